// How this works
//
// Mapping (RFC 4787, section 4.1): one unconnected socket for each source
// address and port of an app, whatever it sends to; so the remotes of a call
// or a game see one endpoint, and can tell it to others. Each remote is a
// peer: statistics, filtering and idle time are the peer's. A mapping lives as
// long as it has a peer. Its port is the app's own where that is free.
//
// Idle time: `idle` for a question and its answer, `stream_idle` once both
// ways are in use, and by port where a rule says so. Only the app refreshes a
// peer that it never sent to: nobody outside keeps a mapping alive.
//
// Outbound, datagrams of a batch of packets are collected and sent with one
// sendmmsg() per socket; those of one peer and size are joined to one message
// (UDP_SEGMENT), and what the TUN gave as a batch goes as one, uncopied. What
// a socket does not take is dropped and counted, as by a router whose queue is
// full: waiting would let one app's flood delay the others.
//
// Inbound, sockets are read in batches (UDP_GRO joins here too), edge-
// triggered, and not at all while the TUN is full: then the kernel's buffers
// fill, which are bounded.
//
// Errors. An ICMP error of one peer surfaces at the next call on the socket,
// whoever that is for, which then has done nothing. So every failed call is
// made once more behind emptying the error queue, which tells whose error it
// was; the app gets it as the ICMP message that a direct route would have
// brought. Only the second failure is the datagram's own.
//
// Limits: beyond max_flows, max_peers and the descriptors a new flow is refused
// at once (of strangers, that is remotes which the app has not sent to, beyond
// a quarter of them), unless flows without an answer have been silent for kEvictAfter,
// which make room, all of them in one sweep: under a scan of ports or
// addresses the cost per packet stays constant.

#include "core/forward/udp_forwarder.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <numeric>
#include <optional>
#include <utility>

#include "core/flow/flow_id.h"
#include "core/forward/host_errors.h"
#include "core/wire/headers.h"

namespace netstack {
namespace {

// Payloads up to this size are copied, to be sent with others.
constexpr size_t kCopyLimit = 4096;
constexpr size_t kArenaSize = 128 * 1024;
// What one message may carry, headers of either family left out.
constexpr size_t kMaxJoined = 65'000;
// Of kReceiveBatch places; not a power of two apart, lest all begin in the
// same cache set.
constexpr size_t kReceiveStride = kMaxDatagram + 1 + 1216;
constexpr int kReadsPerTurn = 4;
// Between two sweeps for flows that make room.
constexpr Duration kRelieveEvery = std::chrono::milliseconds(250);
// Of errors of one socket at once.
constexpr int kErrorsAtOnce = 64;
// Ports that are tried before the kernel chooses.
constexpr int kPortTries = 4;
constexpr uint16_t kFirstUserPort = 1024;

bool IsGroup(const IpAddress& ip) {
  return ip.IsMulticast() || ip.IsLimitedBroadcast();
}

size_t Segments(size_t bytes, uint16_t segment) {
  return segment == 0 ? 1 : (bytes + segment - 1) / segment;
}

// We are one hop.
uint8_t Decremented(uint8_t ttl) {
  return ttl > 1 ? static_cast<uint8_t>(ttl - 1) : 1;
}

size_t HashBytes(const SipHashKey& key, const IpAddress& ip, uint32_t more) {
  std::array<std::byte, 20> b;
  std::memcpy(b.data(), ip.v6(), 16);
  Store32(b.data() + 16, more);
  return SipHash24(key, b);
}

}  // namespace

// --- tables -----------------------------------------------------------------

size_t UdpForwarder::MappingHash::operator()(const MappingKey& key) const {
  return HashBytes(f->hash_key_, key.ip,
                   uint32_t{key.port} << 8 | key.interface);
}
size_t UdpForwarder::MappingHash::operator()(uint32_t index) const {
  const UdpMapping* m = f->slab_.At(index);
  return (*this)(MappingKey{m->app_ip, m->app_port, m->interface});
}
bool UdpForwarder::MappingEqual::operator()(uint32_t a,
                                            const MappingKey& b) const {
  const UdpMapping* m = f->slab_.At(a);
  return m->app_port == b.port && m->interface == b.interface &&
         m->app_ip == b.ip;
}

size_t UdpForwarder::PeerHash::operator()(const PeerKey& key) const {
  std::array<std::byte, 22> b;
  std::memcpy(b.data(), key.remote.ip.v6(), 16);
  Store16(b.data() + 16, key.remote.port);
  Store32(b.data() + 18, key.mapping);
  return SipHash24(f->hash_key_, b);
}
size_t UdpForwarder::PeerHash::operator()(uint32_t index) const {
  const UdpFurtherPeer* p = f->further_.At(index);
  return (*this)(PeerKey{p->mapping, p->remote()});
}
bool UdpForwarder::PeerEqual::operator()(uint32_t a, const PeerKey& b) const {
  const UdpFurtherPeer* p = f->further_.At(a);
  return p->mapping == b.mapping && p->port == b.remote.port &&
         p->ip == b.remote.ip;
}

// No app chooses a local port by itself, and there are 2 * 65,536 of them.
size_t UdpForwarder::LocalHash::operator()(const LocalKey& key) const {
  return (size_t{key.port} * 2 + (key.v4 ? 1 : 0)) * 0x9E3779B97F4A7C15u;
}
size_t UdpForwarder::LocalHash::operator()(uint32_t index) const {
  const UdpMapping* m = f->slab_.At(index);
  return (*this)(LocalKey{m->v4(), m->local_port});
}
bool UdpForwarder::LocalEqual::operator()(uint32_t a, const LocalKey& b) const {
  const UdpMapping* m = f->slab_.At(a);
  return m->local_port == b.port && m->v4() == b.v4;
}
bool UdpForwarder::LocalEqual::operator()(uint32_t a, uint32_t b) const {
  const UdpMapping* m = f->slab_.At(b);
  return (*this)(a, LocalKey{m->v4(), m->local_port});
}

size_t UdpForwarder::AskedHash::operator()(const AskedKey& key) const {
  return HashBytes(f->hash_key_, key.ip, key.mapping);
}

UdpForwarder::UdpForwarder(const Parts& parts, const Options& options,
                           const SipHashKey& hash_key, Instant now)
    : parts_(parts),
      options_(options),
      hash_key_(hash_key),
      start_(now),
      wheel_(now),
      mappings_(0, MappingHash{this}, MappingEqual{this}),
      peers_(0, PeerHash{this}, PeerEqual{this}),
      by_port_(0, LocalHash{this}, LocalEqual{this}),
      asked_(0, AskedHash{this}),
      relieved_(now - kRelieveEvery) {}

UdpForwarder::~UdpForwarder() = default;

void UdpForwarder::Configure(const Options& options, Instant now) {
  const bool other_rules = options.interfaces != options_.interfaces;
  const bool other_filter = options.filtering != options_.filtering;
  options_ = options;
  if (other_filter) {
    asked_.clear();
    if (options.filtering == UdpFiltering::kAddressDependent) {
      slab_.ForEach([&](const UdpMapping* mapping) {
        ForEachPeer(*mapping, [&](const UdpPeer& peer) {
          if (peer.app_sent) ++asked_[{mapping->index, peer.ip}];
        });
      });
    }
  }
  slab_.ForEach([&](UdpMapping* mapping) {
    if (other_rules && mapping->interface != 0) {
      EndPeersIf(mapping, CloseReason::kClosedByRequest, now,
                 [](const UdpPeer&) { return true; });
      return EndIfEmpty(mapping);
    }
    Rearm(mapping, now);  // looks at the new times
  });
}

// --- outbound: tun side to host side ----------------------------------------

void UdpForwarder::OnDatagram(const Packet& packet, const UdpDatagram& udp,
                              uint16_t segment, Instant now) {
  if (shutting_down_) return Drop(DropReason::kShuttingDown);
  const Endpoint app{packet.source, udp.source_port};
  const Endpoint remote{packet.destination, udp.destination_port};
  const uint8_t interface = InterfaceFor(remote.ip);
  if (IsGroup(remote.ip) && interface == 0 && !options_.forward_multicast) {
    return Drop(DropReason::kMulticast);
  }
  UdpMapping* mapping = FindMapping(app, interface);
  UdpPeer* peer = mapping == nullptr ? nullptr : FindPeer(mapping, remote);
  if (peer == nullptr) {
    if (WasBlocked(app, now)) {
      return Refuse(DropReason::kAppBlocked, IcmpError::kProhibited, packet,
                    now);
    }
    if (IsLoop(app, remote)) {
      parts_.listener->OnPressure(Pressure::kLoop);
      return Refuse(DropReason::kLoop, IcmpError::kProhibited, packet, now);
    }
    FlowAdvice advice;
    if (parts_.advisor != nullptr) {
      advice = parts_.advisor->Advise({app, remote, Protocol::kUdp}, now);
      if (advice.refusal) {
        // As closed as a port can be: what was to be QUIC becomes TCP at once.
        return Refuse(*advice.refusal, IcmpError::kPortUnreachable, packet,
                      now);
      }
    }
    if (mapping == nullptr) mapping = Open(packet, app, interface, now);
    if (mapping == nullptr) return;
    busy_ = mapping;
    const bool inside = Hairpin(mapping, packet, udp, segment, now);
    if (!inside) peer = AddPeer(mapping, remote, /*app_sent=*/true, now);
    busy_ = nullptr;
    if (inside) return EndIfEmpty(mapping);
    if (peer == nullptr) {
      Refuse(no_peer_, IcmpError::kProhibited, packet, now);
      if (no_peer_ == DropReason::kFlowTableFull) {
        parts_.listener->OnPressure(Pressure::kFlowLimit);
      }
      return EndIfEmpty(mapping);
    }
    peer->name = std::move(advice.name);
    if (Stops(mapping, peer, packet, segment, now)) return;
  } else if (Stops(mapping, peer, packet, segment, now)) {
    return;
  } else if (IsOurs(remote.ip)) {
    busy_ = mapping;
    const bool inside = Hairpin(mapping, packet, udp, segment, now);
    busy_ = nullptr;
    if (inside) return;
  }
  AppSent(mapping, peer);
  peer->active = TicksAt(now);
  ++peer->outbound_packets;
  if (IsGroup(remote.ip) && !mapping->group) {
    mapping->group = true;
    (void)parts_.datagrams->AllowBroadcast(mapping->fd);
  }
  Pending datagram;
  datagram.mapping = mapping;
  datagram.peer = peer;
  datagram.payload = udp.payload;
  datagram.segment = segment < udp.payload.size() ? segment : 0;
  datagram.tos = packet.tos;
  datagram.ttl = Decremented(packet.ttl);
  datagram.dont_fragment = packet.dont_fragment;
  Keep(datagram, now);
}

// A new flow from an app whose endpoint is one of our own sockets': what we
// sent came in again. Ours alone would not do, since another host's app may
// have the same port; so the routing table is asked where we would send from.
bool UdpForwarder::IsLoop(const Endpoint& app, const Endpoint& remote) {
  const auto it = by_port_.find(LocalKey{app.ip.IsV4(), app.port});
  if (it == by_port_.end() || slab_.At(*it)->app() == app) return false;
  int probe = -1;
  const auto source = parts_.dialer->SourceTowards(remote, &probe);
  if (probe >= 0) parts_.dialer->Close(probe, false);
  return source == app.ip;
}

// True: the datagram does not go now, or not at all. A flow that is blocked
// ends, and with it maybe its mapping.
bool UdpForwarder::Stops(UdpMapping* mapping, UdpPeer* peer,
                         const Packet& packet, uint16_t segment, Instant now) {
  if (peer->blocked) {
    Blocked& recent = blocked_[mapping->app_port % blocked_.size()];
    recent = {mapping->app(), now + kBlockFor};
    blocked_until_ = recent.until;
    Refuse(DropReason::kAppBlocked, IcmpError::kProhibited, packet, now);
    EndPeersIf(mapping, CloseReason::kAppBlocked, now,
               [](const UdpPeer& p) { return p.blocked; });
    EndIfEmpty(mapping);
    return true;
  }
  if (!peer->waits_owner) return false;
  const size_t size = packet.bytes.size();
  if (owner_held_.size() >= kMaxHeld ||
      owner_held_bytes_ + size > kMaxHeldBytes) {
    Drop(DropReason::kOwnerAwaited);
    return true;
  }
  owner_held_bytes_ += size;
  owner_held_.push_back(
      {peer->id, segment, {packet.bytes.begin(), packet.bytes.end()}});
  return true;
}

bool UdpForwarder::WasBlocked(const Endpoint& app, Instant now) const {
  if (now >= blocked_until_) return false;
  const Blocked& recent = blocked_[app.port % blocked_.size()];
  return recent.app == app && now < recent.until;
}

void UdpForwarder::OnDecided(PollToken token, uint64_t flow_id, bool block,
                             Instant now) {
  Flush(now);  // refers to peers
  UdpMapping* mapping = slab_.Find(token.index, token.generation);
  if (mapping != nullptr) {
    ForEachPeer(*mapping, [&](const UdpPeer& p) {
      if (p.id != flow_id) return;
      auto& peer = const_cast<UdpPeer&>(p);
      peer.waits_owner = false;
      peer.blocked = block;
    });
  }
  // Out of the list first: what goes now may open other flows.
  std::vector<Held> mine;
  const auto rest = std::stable_partition(
      owner_held_.begin(), owner_held_.end(),
      [&](const Held& held) { return held.flow_id != flow_id; });
  std::move(rest, owner_held_.end(), std::back_inserter(mine));
  owner_held_.erase(rest, owner_held_.end());
  for (Held& held : mine) {
    owner_held_bytes_ -= held.packet.size();
    // It was read and checked when it came.
    const OrDrop<Packet> packet = ParsePacket(held.packet);
    if (!packet) continue;
    const OrDrop<UdpDatagram> udp = ParseUdp(*packet, ChecksumTrust::kTrusted);
    if (udp) OnDatagram(*packet, *udp, held.segment, now);
  }
  Flush(now);
  mapping = slab_.Find(token.index, token.generation);
  if (!block || mapping == nullptr) return;
  EndPeersIf(mapping, CloseReason::kAppBlocked, now,
             [](const UdpPeer& p) { return p.blocked; });
  EndIfEmpty(mapping);
}

// 1 + the number of the rule with the longest prefix, or 0.
uint8_t UdpForwarder::InterfaceFor(const IpAddress& remote) const {
  uint8_t best = 0;
  for (size_t i = 0; i < options_.interfaces.size(); ++i) {
    const IpPrefix& prefix = options_.interfaces[i].prefix;
    if (!prefix.Contains(remote)) continue;
    if (best == 0 ||
        prefix.length > options_.interfaces[best - 1].prefix.length) {
      best = static_cast<uint8_t>(i + 1);
    }
  }
  return best;
}

UdpMapping* UdpForwarder::FindMapping(const Endpoint& app, uint8_t interface) {
  const MappingKey key{app.ip, app.port, interface};
  UdpMapping* recent = slab_.Find(recent_.index, recent_.generation);
  if (recent != nullptr && MappingEqual{this}(recent->index, key)) {
    return recent;
  }
  const auto it = mappings_.find(key);
  if (it == mappings_.end()) return nullptr;
  UdpMapping* mapping = slab_.At(*it);
  recent_ = {PollToken::Kind::kUdp, mapping->generation, mapping->index};
  return mapping;
}

// A mapping without peers. Null: refused, and the app was told.
UdpMapping* UdpForwarder::Open(const Packet& packet, const Endpoint& app,
                               uint8_t interface, Instant now) {
  const auto refuse = [&](DropReason reason, IcmpError error) -> UdpMapping* {
    Refuse(reason, error, packet, now);
    return nullptr;
  };
  if (memory_short_) {
    return refuse(DropReason::kNoMemory, IcmpError::kProhibited);
  }
  if (!parts_.slots->Take() && !(Relieve(now) && parts_.slots->Take())) {
    parts_.listener->OnPressure(Pressure::kFlowLimit);
    return refuse(DropReason::kFlowTableFull, IcmpError::kProhibited);
  }
  const std::string device =
      interface == 0 ? "" : options_.interfaces[interface - 1].interface;
  const Dial dial =
      parts_.dialer->Open(SocketKind::kUdp, app.ip.IsV4(), device);
  if (dial.outcome != DialOutcome::kConnected) {
    parts_.slots->Give();
    switch (dial.outcome) {
      case DialOutcome::kNoDescriptor:
        (void)Relieve(now);  // for the next one
        parts_.listener->OnPressure(Pressure::kDescriptors);
        return refuse(DropReason::kNoDescriptors, IcmpError::kProhibited);
      case DialOutcome::kProtectFailed:
        parts_.listener->OnPressure(Pressure::kProtect);
        return refuse(DropReason::kUdpHostError, IcmpError::kNetUnreachable);
      case DialOutcome::kProhibited:
        return refuse(DropReason::kUdpHostError, IcmpError::kProhibited);
      case DialOutcome::kNotReady:
        // In a moment there is one; an error would be believed for longer.
        Drop(DropReason::kNotProtectedYet);
        return nullptr;
      default:
        return refuse(DropReason::kUdpHostError, IcmpError::kNetUnreachable);
    }
  }
  UdpMapping* mapping = slab_.Allocate();
  if (mapping == nullptr) {
    parts_.dialer->Close(dial.fd, false);
    parts_.slots->Give();
    return refuse(DropReason::kNoMemory, IcmpError::kProhibited);
  }
  mapping->app_ip = app.ip;
  mapping->app_port = app.port;
  mapping->interface = interface;
  mapping->fd = dial.fd;
  int error = parts_.datagrams->Prepare(dial.fd, SocketKind::kUdp, mapping->v4());
  if (error == 0) error = Bind(mapping);
  const PollToken token{PollToken::Kind::kUdp, mapping->generation,
                        mapping->index};
  if (error == 0) {
    error = parts_.poller->Add(dial.fd, token, Poller::Trigger::kEdgeRead);
  }
  if (error != 0) {
    parts_.dialer->Close(dial.fd, false);
    parts_.slots->Give();
    slab_.Free(mapping);
    const bool no_room = error == -ENOSPC || error == -ENOMEM;
    return refuse(no_room ? DropReason::kNoDescriptors
                          : DropReason::kUdpHostError,
                  IcmpError::kNetUnreachable);
  }
  if (options_.socket_buffer != 0) {
    parts_.datagrams->SetBuffers(dial.fd, options_.socket_buffer,
                                 options_.socket_buffer);
  }
  mappings_.insert(mapping->index);
  by_port_.insert(mapping->index);
  recent_ = token;
  return mapping;
}

// The app's own port where it is free; else one of the same parity near it
// (RFC 4787, REQ-3 and REQ-4); else what the kernel has. Never one below
// 1024: a service of the host's may want that later.
int UdpForwarder::Bind(UdpMapping* mapping) {
  Endpoint local{mapping->v4() ? IpAddress::V4(0, 0, 0, 0) : IpAddress(), 0};
  if (options_.preserve_ports && mapping->app_port >= kFirstUserPort) {
    for (int i = 0; i < kPortTries; ++i) {
      const int port = mapping->app_port + 2 * i;
      if (port > 0xFFFF) break;
      local.port = static_cast<uint16_t>(port);
      if (parts_.datagrams->Bind(mapping->fd, local) != 0) continue;
      mapping->local_port = local.port;
      if (i == 0) ++stats_.ports_preserved;
      return 0;
    }
  }
  local.port = 0;
  const int error = parts_.datagrams->Bind(mapping->fd, local);
  if (error != 0) return error;
  mapping->local_port =
      parts_.dialer->sockets()->LocalEndpoint(mapping->fd).port;
  return 0;
}

void UdpForwarder::Refuse(DropReason reason, IcmpError error,
                          const Packet& packet, Instant now) {
  Drop(reason);
  (void)parts_.icmp->Answer(error, packet, now);
}

UdpPeer* UdpForwarder::FindPeer(const UdpMapping* mapping,
                                const Endpoint& remote) const {
  const UdpPeer& first = mapping->first;
  if (first.id != 0 && first.port == remote.port && first.ip == remote.ip) {
    return const_cast<UdpPeer*>(&first);
  }
  if (mapping->further == UdpPeer::kNone) return nullptr;
  const auto it = peers_.find(PeerKey{mapping->index, remote});
  return it == peers_.end() ? nullptr : further_.At(*it);
}

// Null: a limit is reached. The mapping is busy_, so that it stays.
UdpPeer* UdpForwarder::AddPeer(UdpMapping* mapping, const Endpoint& remote,
                               bool app_sent, Instant now) {
  no_peer_ = DropReason::kNoMemory;
  if (memory_short_) return nullptr;
  no_peer_ = DropReason::kFlowTableFull;
  if (IsFull(*mapping, app_sent) &&
      (!Relieve(now) || IsFull(*mapping, app_sent))) {
    return nullptr;
  }
  UdpPeer* peer = &mapping->first;
  if (peer->id != 0) {
    UdpFurtherPeer* further = further_.Allocate();
    if (further == nullptr) {
      no_peer_ = DropReason::kNoMemory;
      return nullptr;
    }
    further->mapping = mapping->index;
    further->next = std::exchange(mapping->further, further->index);
    peer = further;
  } else {
    *peer = UdpPeer{};  // the place was somebody else's before
  }
  peer->ip = remote.ip;
  peer->port = remote.port;
  if (peer != &mapping->first) {
    peers_.insert(static_cast<UdpFurtherPeer*>(peer)->index);
  }
  peer->id = NextFlowId();
  peer->opened = peer->active = TicksAt(now);
  ++mapping->peers;
  ++mapping->strangers;
  ++flows_;
  ++strangers_;
  if (app_sent) AppSent(mapping, peer);
  ++stats_.opened;
  const AppDecision decision = parts_.listener->OnOpen(
      peer->id, {mapping->app(), remote, Protocol::kUdp},
      {PollToken::Kind::kUdp, mapping->generation, mapping->index});
  peer->blocked = decision == AppDecision::kBlock;
  // A stranger's comes through a mapping of an app that may have it.
  peer->waits_owner = decision == AppDecision::kWait && app_sent;
  Rearm(mapping, now + IdleOf(*peer));
  Tell(FlowChange::kOpened, *mapping, *peer, now);
  return peer;
}

// Whether a limit keeps a new peer out of the mapping.
bool UdpForwarder::IsFull(const UdpMapping& mapping, bool app_sent) const {
  if (flows_ >= options_.max_flows || mapping.peers >= options_.max_peers) {
    return true;
  }
  if (app_sent) return false;
  const auto part = [](uint32_t limit) {
    return std::max<uint32_t>(limit / kStrangersPart, 1);
  };
  return strangers_ >= part(options_.max_flows) ||
         mapping.strangers >= std::min(part(options_.max_peers), 0xFFFFu);
}

// A stranger until now, perhaps.
void UdpForwarder::AppSent(UdpMapping* mapping, UdpPeer* peer) {
  if (peer->app_sent) return;
  peer->app_sent = true;
  --mapping->strangers;
  --strangers_;
  if (options_.filtering == UdpFiltering::kAddressDependent) {
    ++asked_[{mapping->index, peer->ip}];
  }
}

// Copies small ones, so that they go together; sends large ones at once. So do
// all while there is no memory to copy to.
void UdpForwarder::Keep(const Pending& datagram, Instant now) {
  const size_t size = datagram.payload.size();
  if (datagram.segment == 0 && size <= kCopyLimit) {
    if (pending_count_ == kBatch || arena_used_ + size > kArenaSize) {
      Flush(now);
    }
    if (arena_ == nullptr) arena_ = AllocateBytes(kArenaSize);
    if (arena_ == nullptr) {
      pending_[pending_count_++] = datagram;
      return Flush(now);
    }
    std::byte* at = arena_.get() + arena_used_;
    if (size != 0) std::memcpy(at, datagram.payload.data(), size);
    Pending& kept = pending_[pending_count_++] = datagram;
    kept.payload = {at, size};
    arena_used_ += size;
    return;
  }
  const size_t step = datagram.segment == 0
                          ? size
                          : datagram.segment * Datagrams::kMaxSegments;
  for (size_t done = 0; done < size; done += step) {
    if (pending_count_ == kBatch) Flush(now);
    Pending& part = pending_[pending_count_++] = datagram;
    part.payload =
        datagram.payload.subspan(done, std::min(step, size - done));
    if (part.payload.size() <= part.segment) part.segment = 0;
  }
  Flush(now);
}

void UdpForwarder::Flush(Instant now) {
  const size_t count = std::exchange(pending_count_, 0);
  arena_used_ = 0;
  if (count == 0) return;
  const auto order = std::span(order_).first(count);
  std::iota(order.begin(), order.end(), uint8_t{0});
  const auto mapping_of = [this](uint8_t i) {
    return pending_[i].mapping->index;
  };
  // Each socket's own, in their order; most batches are one socket's.
  const bool mixed = std::any_of(order.begin(), order.end(), [&](uint8_t i) {
    return pending_[i].mapping != pending_[0].mapping;
  });
  if (mixed) {
    std::sort(order.begin(), order.end(), [&](uint8_t a, uint8_t b) {
      return mapping_of(a) != mapping_of(b) ? mapping_of(a) < mapping_of(b)
                                            : a < b;
    });
  }
  for (size_t begin = 0; begin < count;) {
    const Pending& first = pending_[order[begin]];
    size_t end = begin + 1;
    while (end < count &&
           pending_[order[end]].mapping == first.mapping &&
           pending_[order[end]].dont_fragment == first.dont_fragment) {
      ++end;
    }
    SendRun(order.subspan(begin, end - begin), now);
    begin = end;
  }
}

// Sends pending datagrams of one socket that agree about don't-fragment, which
// is the socket's to know.
void UdpForwarder::SendRun(std::span<const uint8_t> order, Instant now) {
  const Pending& first = pending_[order[0]];
  UdpMapping* mapping = first.mapping;
  if (!mapping->fragment_known ||
      mapping->dont_fragment != first.dont_fragment) {
    mapping->fragment_known = true;
    mapping->dont_fragment = first.dont_fragment;
    (void)parts_.datagrams->SetDontFragment(mapping->fd, mapping->v4(),
                                            first.dont_fragment);
  }
  const size_t count = Join(order);
  size_t done = 0;
  bool again = false;
  while (done < count) {
    ++stats_.send_calls;
    const int n = parts_.datagrams->Send(
        mapping->fd, std::span(out_).subspan(done, count - done));
    if (n > 0) {
      for (int i = 0; i < n; ++i) Sent(order, joined_[done++]);
      again = false;
      continue;
    }
    if (n == -EAGAIN || n == -ENOBUFS) {
      for (size_t i = joined_[done].begin; i < order.size(); ++i) {
        CountDrop(DropReason::kUdpSocketFull, pending_[order[i]]);
      }
      return;
    }
    local_mtu_ = 0;
    DrainErrors(mapping, now);
    if (!again && !(n == -EMSGSIZE && local_mtu_ != 0)) {
      again = true;
      ++stats_.resent;
      continue;
    }
    again = false;
    const Joined& failed = joined_[done++];
    if (out_[done - 1].segment_size == 0) {
      Failed(pending_[order[failed.begin]], -n, now);
      continue;
    }
    // A batch whose datagrams are beyond the MTU, or that the device cannot
    // cut: one by one they may go, or tell what is wrong with them.
    if (failed.end - failed.begin > 1 || n == -EIO) mapping->no_batches = true;
    for (size_t i = failed.begin; i < failed.end; ++i) {
      SendSingly(pending_[order[i]], now);
    }
  }
}

// Fills joined_, out_ and out_parts_; says how many messages they are.
size_t UdpForwarder::Join(std::span<const uint8_t> order) {
  size_t count = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const Pending& p = pending_[order[i]];
    const size_t size = p.payload.size();
    out_parts_[i] = p.payload;
    if (count != 0) {
      Joined& j = joined_[count - 1];
      const Pending& head = pending_[order[j.begin]];
      if (!j.full && p.peer == head.peer && p.segment == 0 &&
          p.tos == head.tos && p.ttl == head.ttl &&
          size <= head.payload.size() && size != 0 &&
          j.bytes + size <= kMaxJoined) {
        ++j.end;
        j.bytes += size;
        // Only the last one may be shorter.
        j.full = size < head.payload.size();
        DatagramOut& out = out_[count - 1];
        out.parts = std::span(out_parts_).subspan(j.begin, j.end - j.begin);
        out.segment_size = static_cast<uint16_t>(head.payload.size());
        continue;
      }
    }
    Joined& j = joined_[count] = {i, i + 1, size, false};
    j.full = p.segment != 0 || size == 0 || p.mapping->no_batches;
    DatagramOut& out = out_[count++];
    out.to = p.peer->remote();
    out.parts = std::span(out_parts_).subspan(i, 1);
    out.segment_size = p.segment;
    out.tos = p.tos;
    out.ttl = p.ttl;
  }
  return count;
}

void UdpForwarder::Sent(std::span<const uint8_t> order, const Joined& joined) {
  for (size_t i = joined.begin; i < joined.end; ++i) {
    CountSent(pending_[order[i]]);
  }
  if (joined.end - joined.begin > 1 ||
      pending_[order[joined.begin]].segment != 0) {
    ++stats_.outbound_batches;
  }
}

void UdpForwarder::CountSent(const Pending& pending) {
  const size_t size = pending.payload.size();
  pending.peer->outbound_bytes += size;
  stats_.outbound_bytes += size;
  stats_.outbound_datagrams += Segments(size, pending.segment);
}

void UdpForwarder::SendSingly(const Pending& pending, Instant now) {
  Pending one = pending;
  one.segment = 0;
  const size_t step =
      pending.segment == 0 ? pending.payload.size() : pending.segment;
  for (size_t done = 0; done < pending.payload.size(); done += step) {
    one.payload = pending.payload.subspan(
        done, std::min(step, pending.payload.size() - done));
    SendOne(one, now);
  }
}

void UdpForwarder::SendOne(const Pending& pending, Instant now) {
  DatagramOut out;
  out.to = pending.peer->remote();
  out.parts = {&pending.payload, 1};
  out.tos = pending.tos;
  out.ttl = pending.ttl;
  for (bool again : {false, true}) {
    ++stats_.send_calls;
    const int n = parts_.datagrams->Send(pending.mapping->fd, {&out, 1});
    if (n > 0) return CountSent(pending);
    if (n == -EAGAIN || n == -ENOBUFS) {
      return CountDrop(DropReason::kUdpSocketFull, pending);
    }
    local_mtu_ = 0;
    DrainErrors(pending.mapping, now);
    if (again || (n == -EMSGSIZE && local_mtu_ != 0)) {
      return Failed(pending, -n, now);
    }
    ++stats_.resent;
  }
}

// The datagram's own failure.
void UdpForwarder::Failed(const Pending& pending, int error, Instant now) {
  CountDrop(error == EMSGSIZE ? DropReason::kUdpTooBig
                              : DropReason::kUdpHostError,
            pending);
  const std::optional<IcmpAnswer> answer = AnswerOf(error, local_mtu_);
  if (!answer) return;
  const Packet packet =
      Quote(*pending.mapping, pending.peer->remote(), pending.payload,
            pending.payload.size(), pending);
  (void)parts_.icmp->Answer(*answer, packet, now);
}

void UdpForwarder::CountDrop(DropReason reason, const Pending& pending) {
  const size_t n = Segments(pending.payload.size(), pending.segment);
  for (size_t i = 0; i < n; ++i) Drop(reason);
}

// A datagram to the outer endpoint of another mapping (RFC 4787, section 6):
// it comes in there as if it had been outside. True when it was such a one.
bool UdpForwarder::Hairpin(UdpMapping* mapping, const Packet& packet,
                           const UdpDatagram& udp, uint16_t segment,
                           Instant now) {
  if (!IsOurs(packet.destination)) return false;
  const auto it =
      by_port_.find(LocalKey{packet.is_v4, udp.destination_port});
  if (it == by_port_.end()) return false;
  UdpMapping* target = slab_.At(*it);
  const Endpoint remote{packet.destination, udp.destination_port};
  // REQ-9 a: it comes from the sender's outer endpoint.
  const Endpoint from{packet.destination, mapping->local_port};
  UdpPeer* there = FindPeer(target, from);
  if (!Admits(*target, there, from)) {
    Drop(DropReason::kUdpFiltered);
    return true;
  }
  UdpPeer* here = FindPeer(mapping, remote);
  if (here == nullptr) here = AddPeer(mapping, remote, true, now);
  if (here != nullptr && Stops(mapping, here, packet, segment, now)) {
    return true;
  }
  // That may have made room, and a target without peers would be gone: so it
  // is looked for again.
  const auto still = by_port_.find(LocalKey{packet.is_v4,
                                            udp.destination_port});
  target = still == by_port_.end() ? nullptr : slab_.At(*still);
  if (here != nullptr && target != nullptr) {
    there = FindPeer(target, from);
    if (there == nullptr) {
      const UdpMapping* before = std::exchange(busy_, target);
      there = AddPeer(target, from, false, now);
      busy_ = before;
      here = FindPeer(mapping, remote);
    }
  }
  if (here == nullptr || target == nullptr || there == nullptr) {
    Refuse(no_peer_, IcmpError::kProhibited, packet, now);
    if (target != nullptr && target != mapping) EndIfEmpty(target);
    return true;
  }
  InboundDatagram datagram;
  datagram.from = from;
  datagram.to = target->app();
  datagram.payload = udp.payload;
  datagram.segment_size = segment < udp.payload.size() ? segment : 0;
  datagram.tos = packet.tos;
  datagram.ttl = Decremented(packet.ttl);
  AppSent(mapping, here);
  here->active = TicksAt(now);
  ++here->outbound_packets;
  if (!parts_.writer->SendUdp(datagram)) {
    Drop(DropReason::kTunWriteFailed);
    return true;
  }
  ++stats_.hairpinned;
  here->outbound_bytes += udp.payload.size();
  stats_.outbound_bytes += udp.payload.size();
  stats_.outbound_datagrams +=
      Segments(udp.payload.size(), datagram.segment_size);
  Received(there, udp.payload.size(), datagram.segment_size, now);
  return true;
}

// --- way back: host side to tun side ----------------------------------------

void UdpForwarder::OnSocket(const PollEvent& event, Instant now) {
  UdpMapping* mapping = slab_.Find(event.token.index, event.token.generation);
  if (mapping == nullptr) return;
  if (event.error) DrainErrors(mapping, now);
  if (event.readable) Read(mapping, now);
}

void UdpForwarder::Read(UdpMapping* mapping, Instant now) {
  for (int i = 0; i < kReadsPerTurn; ++i) {
    if (held_begin_ < held_end_ || parts_.writer->blocked()) {
      return Wait(mapping);
    }
    size_t asked = 0;
    const int n = Receive(*mapping, &asked);
    if (n == -EAGAIN) return;
    if (n < 0) {
      DrainErrors(mapping, now);
      continue;
    }
    busy_ = mapping;
    const bool delivered = Deliver(mapping, 0, static_cast<size_t>(n), now);
    busy_ = nullptr;
    if (mapping->peers == 0) {
      held_begin_ = held_end_ = 0;
      return EndIfEmpty(mapping);
    }
    if (!delivered) return Wait(mapping);
    // Fewer than asked for: that was all; the next one is a new event.
    if (static_cast<size_t>(n) < asked) return;
  }
  if (mapping->in_ready) return;
  mapping->in_ready = true;
  ready_.push_back(
      {PollToken::Kind::kUdp, mapping->generation, mapping->index});
}

// Into the front of in_; at most `*asked` datagrams.
int UdpForwarder::Receive(const UdpMapping& mapping, size_t* asked) {
  ++stats_.receive_calls;
  if (room_ == nullptr) {
    room_ = AllocateBytes(kReceiveBatch * kReceiveStride);
  }
  *asked = room_ != nullptr ? in_.size() : 1;
  const MutableBytes room =
      room_ != nullptr
          ? MutableBytes(room_.get(), kReceiveBatch * kReceiveStride)
          : MutableBytes(spare_room_);
  return parts_.datagrams->Receive(mapping.fd, room,
                                   std::span(in_).first(*asked));
}

void UdpForwarder::Wait(UdpMapping* mapping) {
  if (mapping->in_waiting) return;
  mapping->in_waiting = true;
  waiting_.push_back(
      {PollToken::Kind::kUdp, mapping->generation, mapping->index});
}

// Writes in_[begin, end) to the TUN. False: it is full, and the rest is held.
bool UdpForwarder::Deliver(UdpMapping* mapping, size_t begin, size_t end,
                           Instant now) {
  for (size_t i = begin; i < end; ++i) {
    DatagramIn& in = in_[i];
    LearnAddress(in.to);
    UdpPeer* peer = FindPeer(mapping, in.from);
    if (!Admits(*mapping, peer, in.from)) {
      Drop(DropReason::kUdpFiltered);
      continue;
    }
    if (peer == nullptr) peer = AddPeer(mapping, in.from, false, now);
    if (peer == nullptr) {
      Drop(no_peer_);
      continue;
    }
    if (peer->blocked) {
      Drop(DropReason::kAppBlocked);
      EndPeersIf(mapping, CloseReason::kAppBlocked, now,
                 [](const UdpPeer& p) { return p.blocked; });
      continue;
    }
    InboundDatagram datagram;
    datagram.from = in.from;
    datagram.to = mapping->app();
    datagram.payload = in.payload;
    datagram.segment_size = in.segment_size;
    datagram.tos = in.tos;
    datagram.ttl = in.ttl == 0 ? 64 : Decremented(in.ttl);
    const bool sent = parts_.writer->SendUdp(datagram);
    const size_t taken =
        sent ? in.payload.size()
             : in.payload.size() - datagram.payload.size();
    if (sent || taken != 0) Received(peer, taken, in.segment_size, now);
    if (sent) continue;
    in.payload = datagram.payload;
    held_ = {PollToken::Kind::kUdp, mapping->generation, mapping->index};
    held_begin_ = i;
    held_end_ = end;
    return false;
  }
  return true;
}

bool UdpForwarder::Admits(const UdpMapping& mapping, const UdpPeer* peer,
                          const Endpoint& from) const {
  // Who answers a question to a group does so from an address of his own.
  if (options_.filtering == UdpFiltering::kEndpointIndependent ||
      mapping.group) {
    return true;
  }
  if (peer != nullptr && peer->app_sent) return true;
  if (options_.filtering == UdpFiltering::kAddressAndPortDependent) {
    return false;
  }
  return asked_.contains({mapping.index, from.ip});
}

void UdpForwarder::Received(UdpPeer* peer, size_t bytes, uint16_t segment,
                            Instant now) {
  peer->inbound_bytes += bytes;
  ++peer->inbound_packets;
  if (peer->app_sent) {
    peer->active = TicksAt(now);
    peer->replied = true;
  }
  stats_.inbound_bytes += bytes;
  stats_.inbound_datagrams += Segments(bytes, segment);
  if (segment != 0) ++stats_.inbound_batches;
}

void UdpForwarder::LearnAddress(const IpAddress& ours) {
  if (ours.IsUnspecified() || IsGroup(ours) || IsOurs(ours)) return;
  ours_[ours_next_++ % ours_.size()] = ours;
}

bool UdpForwarder::IsOurs(const IpAddress& ip) const {
  return std::find(ours_.begin(), ours_.end(), ip) != ours_.end();
}

void UdpForwarder::OnTunWritable(Instant now) {
  if (held_begin_ < held_end_) {
    const size_t begin = std::exchange(held_begin_, 0);
    const size_t end = std::exchange(held_end_, 0);
    UdpMapping* mapping = slab_.Find(held_.index, held_.generation);
    if (mapping == nullptr) {
      for (size_t i = begin; i < end; ++i) Drop(DropReason::kTunWriteFailed);
    } else {
      busy_ = mapping;
      const bool delivered = Deliver(mapping, begin, end, now);
      busy_ = nullptr;
      if (mapping->peers == 0) {
        held_begin_ = held_end_ = 0;
        EndIfEmpty(mapping);
      }
      if (!delivered) return;
    }
  }
  working_.swap(waiting_);
  for (const PollToken& token : working_) {
    UdpMapping* mapping = slab_.Find(token.index, token.generation);
    if (mapping == nullptr) continue;
    mapping->in_waiting = false;
    Read(mapping, now);
  }
  working_.clear();
}

// --- errors -----------------------------------------------------------------

void UdpForwarder::DrainErrors(UdpMapping* mapping, Instant now) {
  for (int i = 0; i < kErrorsAtOnce; ++i) {
    const std::optional<DatagramError> error =
        parts_.datagrams->TakeError(mapping->fd, error_room_);
    if (!error) return;
    if (error->local) {
      // Of the call that has just failed, which knows the datagram.
      local_mtu_ = error->mtu;
      continue;
    }
    ++stats_.host_errors;
    const UdpPeer* peer = FindPeer(mapping, error->destination);
    if (peer == nullptr || !peer->app_sent) continue;
    const std::optional<IcmpAnswer> answer =
        AnswerOf(*error, mapping->v4());
    if (!answer) continue;
    Pending like;
    like.dont_fragment = error->error == EMSGSIZE;
    const Packet packet = Quote(*mapping, error->destination, error->payload,
                                error->payload.size(), like);
    (void)parts_.icmp->Answer(*answer, packet, now);
  }
}

// The start of the packet that an app sent, as it was; `payload` as far as it
// is known. Valid until the next call.
Packet UdpForwarder::Quote(const UdpMapping& mapping, const Endpoint& remote,
                           Bytes payload, size_t payload_size,
                           const Pending& like) {
  IpHeaderFields ip;
  ip.source = mapping.app_ip;
  ip.destination = remote.ip;
  ip.protocol = ip_protocol::kUdp;
  ip.tos = like.tos;
  ip.ttl = static_cast<uint8_t>(like.ttl == 0 ? 1 : like.ttl + 1);
  ip.dont_fragment = like.dont_fragment;
  const size_t size = kUdpHeaderSize + payload_size;
  const size_t ip_size = WriteIpHeader(ip, size, quote_.data());
  UdpHeaderFields udp;
  udp.source_port = mapping.app_port;
  udp.destination_port = remote.port;
  udp.length = static_cast<uint16_t>(size);
  WriteUdpHeader(udp, quote_.data() + ip_size);
  const size_t headers = ip_size + kUdpHeaderSize;
  const size_t kept = std::min(payload.size(), quote_.size() - headers);
  if (kept != 0) std::memcpy(quote_.data() + headers, payload.data(), kept);
  Packet packet;
  packet.bytes = Bytes(quote_).first(headers + kept);
  packet.transport = packet.bytes.subspan(ip_size);
  packet.source = ip.source;
  packet.destination = ip.destination;
  packet.protocol = ip.protocol;
  packet.protocol_at = mapping.v4() ? 9 : 6;
  packet.ttl = ip.ttl;
  packet.tos = ip.tos;
  packet.is_v4 = mapping.v4();
  packet.dont_fragment = ip.dont_fragment;
  return packet;
}

// --- both ways --------------------------------------------------------------

uint32_t UdpForwarder::TicksAt(Instant t) const {
  return static_cast<uint32_t>((t - start_) / kTick);
}

// Of the past, as seen from `now`.
Instant UdpForwarder::TimeOf(uint32_t ticks, Instant now) const {
  return now - (TicksAt(now) - ticks) * kTick;
}

Duration UdpForwarder::IdleOf(const UdpPeer& peer) const {
  for (const PortIdle& rule : options_.port_idle) {
    if (rule.port == peer.port) return rule.idle;
  }
  const bool stream = peer.outbound_packets >= kStreamPackets &&
                      peer.inbound_packets >= kStreamPackets;
  return stream ? options_.stream_idle : options_.idle;
}

template <typename Fn>
void UdpForwarder::ForEachPeer(const UdpMapping& mapping, Fn&& fn) const {
  if (mapping.first.id != 0) fn(mapping.first);
  for (uint32_t i = mapping.further; i != UdpPeer::kNone;) {
    const UdpFurtherPeer* peer = further_.At(i);
    i = peer->next;
    fn(static_cast<const UdpPeer&>(*peer));
  }
}

// Ends every peer of which which(peer) says so; the mapping stays.
template <typename Predicate>
size_t UdpForwarder::EndPeersIf(UdpMapping* mapping, CloseReason reason,
                                Instant now, Predicate&& which) {
  size_t ended = 0;
  if (mapping->first.id != 0 && which(mapping->first)) {
    PeerEnded(mapping, mapping->first, reason, now);
    mapping->first = UdpPeer{};
    --mapping->peers;
    ++ended;
  }
  uint32_t* link = &mapping->further;
  while (*link != UdpPeer::kNone) {
    UdpFurtherPeer* peer = further_.At(*link);
    if (!which(static_cast<const UdpPeer&>(*peer))) {
      link = &peer->next;
      continue;
    }
    PeerEnded(mapping, *peer, reason, now);
    peers_.erase(peer->index);
    *link = peer->next;
    further_.Free(peer);
    --mapping->peers;
    ++ended;
  }
  return ended;
}

void UdpForwarder::PeerEnded(UdpMapping* mapping, const UdpPeer& peer,
                             CloseReason reason, Instant now) {
  --flows_;
  if (!peer.app_sent) {
    --mapping->strangers;
    --strangers_;
  } else if (options_.filtering == UdpFiltering::kAddressDependent) {
    const auto asked = asked_.find({mapping->index, peer.ip});
    if (--asked->second == 0) asked_.erase(asked);
  }
  ++stats_.closed[static_cast<size_t>(reason)];
  if (!flow_changes_) return;
  FlowInfo info = Info(*mapping, peer, now);
  info.state = FlowState::kClosed;
  info.close_reason = reason;
  parts_.listener->OnFlow(FlowChange::kClosed, info);
}

void UdpForwarder::EndIfEmpty(UdpMapping* mapping) {
  if (mapping->peers != 0 || mapping == busy_) return;
  wheel_.Disarm(&mapping->timer);
  mappings_.erase(mapping->index);
  const auto port = by_port_.find(LocalKey{mapping->v4(), mapping->local_port});
  if (port != by_port_.end() && *port == mapping->index) by_port_.erase(port);
  parts_.dialer->Close(mapping->fd, false);
  parts_.slots->Give();
  slab_.Free(mapping);
}

// Ends what nobody has answered for a while; true when that was something.
bool UdpForwarder::Relieve(Instant now) {
  if (now - relieved_ < kRelieveEvery) return false;
  relieved_ = now;
  Flush(now);  // refers to peers
  const uint32_t limit =
      TicksAt(now) - static_cast<uint32_t>(kEvictAfter / kTick);
  size_t ended = 0;
  slab_.ForEach([&](UdpMapping* mapping) {
    ended += EndPeersIf(mapping, CloseReason::kEvicted, now,
                        [&](const UdpPeer& peer) {
                          return !peer.replied &&
                                 static_cast<int32_t>(peer.active - limit) <= 0;
                        });
    EndIfEmpty(mapping);
  });
  return ended != 0;
}

void UdpForwarder::OnTurn(Instant now) {
  wheel_.Advance(now, [this, now](TimerNode* node) {
    // The node is a member of its mapping.
    OnTimer(reinterpret_cast<UdpMapping*>(reinterpret_cast<std::byte*>(node) -
                                          offsetof(UdpMapping, timer)),
            now);
  });
  if (ready_.empty()) return;
  working_.swap(ready_);
  for (const PollToken& token : working_) {
    UdpMapping* mapping = slab_.Find(token.index, token.generation);
    if (mapping == nullptr) continue;
    mapping->in_ready = false;
    Read(mapping, now);
  }
  working_.clear();
}

Instant UdpForwarder::next_deadline(Instant now) const {
  return ready_.empty() ? wheel_.next_deadline() : now;
}

// Traffic moves no timer: one that fires too early looks again.
void UdpForwarder::OnTimer(UdpMapping* mapping, Instant now) {
  EndPeersIf(mapping, CloseReason::kIdleTimeout, now,
             [&](const UdpPeer& peer) {
               return TimeOf(peer.active, now) + IdleOf(peer) <= now;
             });
  if (mapping->peers == 0) return EndIfEmpty(mapping);
  Instant next = kNever;
  ForEachPeer(*mapping, [&](const UdpPeer& peer) {
    next = std::min(next, TimeOf(peer.active, now) + IdleOf(peer));
  });
  // All peers are looked at each time: not for every one of many.
  next = std::max(next, now + mapping->peers * std::chrono::milliseconds(1));
  Rearm(mapping, next);
}

void UdpForwarder::Rearm(UdpMapping* mapping, Instant at) {
  if (mapping->timer.armed() &&
      static_cast<int32_t>(TicksAt(at) - mapping->timer_at) >= 0) {
    return;
  }
  mapping->timer_at = TicksAt(at);
  wheel_.Arm(&mapping->timer, at);
}

UdpForwarder::Moved UdpForwarder::OnNetworkChanged(bool new_sockets,
                                                   Instant now) {
  Flush(now);
  Moved moved;
  // No address of before is ours any more.
  ours_.fill(IpAddress());
  slab_.ForEach([&](UdpMapping* mapping) {
    // Those that a rule binds to an interface stay there.
    if (!new_sockets || mapping->interface != 0 || Rehome(mapping)) {
      moved.kept += mapping->peers;
      return;
    }
    moved.ended += EndPeersIf(mapping, CloseReason::kNetworkChanged, now,
                              [](const UdpPeer&) { return true; });
    EndIfEmpty(mapping);
  });
  return moved;
}

// Another socket for the mapping, protected as things are now. False: there is
// none, and the mapping cannot go on.
bool UdpForwarder::Rehome(UdpMapping* mapping) {
  const Dial dial = parts_.dialer->Open(SocketKind::kUdp, mapping->v4(), "");
  if (dial.outcome != DialOutcome::kConnected) return false;
  // The old one makes way for its port.
  const auto place =
      by_port_.find(LocalKey{mapping->v4(), mapping->local_port});
  if (place != by_port_.end() && *place == mapping->index) {
    by_port_.erase(place);
  }
  const Endpoint local{mapping->v4() ? IpAddress::V4(0, 0, 0, 0) : IpAddress(),
                       mapping->local_port};
  parts_.dialer->Close(std::exchange(mapping->fd, dial.fd), false);
  mapping->dont_fragment = mapping->fragment_known = false;
  mapping->no_batches = false;
  const PollToken token{PollToken::Kind::kUdp, mapping->generation,
                        mapping->index};
  const bool ready =
      parts_.datagrams->Prepare(dial.fd, SocketKind::kUdp, mapping->v4()) ==
          0 &&
      (parts_.datagrams->Bind(dial.fd, local) == 0 || Bind(mapping) == 0) &&
      parts_.poller->Add(dial.fd, token, Poller::Trigger::kEdgeRead) == 0;
  if (!ready) return false;
  if (options_.socket_buffer != 0) {
    parts_.datagrams->SetBuffers(dial.fd, options_.socket_buffer,
                                 options_.socket_buffer);
  }
  if (mapping->group) (void)parts_.datagrams->AllowBroadcast(dial.fd);
  by_port_.insert(mapping->index);
  return true;
}

void UdpForwarder::Shutdown(Instant now) {
  shutting_down_ = true;
  owner_held_.clear();
  owner_held_bytes_ = 0;
  Flush(now);
  slab_.ForEach([&](UdpMapping* mapping) {
    EndPeersIf(mapping, CloseReason::kStackStopped, now,
               [](const UdpPeer&) { return true; });
    EndIfEmpty(mapping);
  });
  held_begin_ = held_end_ = 0;
  ready_.clear();
  waiting_.clear();
}

void UdpForwarder::Trim() {
  if (pending_count_ == 0) arena_.reset();
  if (held_begin_ == held_end_) room_.reset();
  // Tables do not shrink by themselves, and a scan may have made them large.
  const auto shrink = [](auto& table) {
    if (table.size() * 8 < table.capacity()) table.rehash(0);
  };
  shrink(mappings_);
  shrink(peers_);
  shrink(by_port_);
  shrink(asked_);
}

// --- for people -------------------------------------------------------------

FlowInfo UdpForwarder::Info(const UdpMapping& mapping, const UdpPeer& peer,
                            Instant now) const {
  FlowInfo info;
  info.id = peer.id;
  info.key.app = mapping.app();
  info.key.remote = peer.remote();
  info.key.protocol = Protocol::kUdp;
  if (peer.name != nullptr) info.name = *peer.name;
  info.state = FlowState::kOpen;
  info.age = now - TimeOf(peer.opened, now);
  info.idle = now - TimeOf(peer.active, now);
  info.outbound_bytes = peer.outbound_bytes;
  info.inbound_bytes = peer.inbound_bytes;
  info.outbound_packets = peer.outbound_packets;
  info.inbound_packets = peer.inbound_packets;
  info.upstream_local.port = mapping.local_port;
  if (mapping.v4()) info.upstream_local.ip = IpAddress::V4(0, 0, 0, 0);
  for (const IpAddress& ip : ours_) {
    if (!ip.IsUnspecified() && ip.IsV4() == mapping.v4()) {
      info.upstream_local.ip = ip;
    }
  }
  return info;
}

void UdpForwarder::Tell(FlowChange change, const UdpMapping& mapping,
                        const UdpPeer& peer, Instant now) {
  if (flow_changes_) parts_.listener->OnFlow(change, Info(mapping, peer, now));
}

std::vector<FlowInfo> UdpForwarder::List(const FlowFilter& filter,
                                         uint64_t after_id, size_t limit,
                                         Instant now) const {
  std::vector<FlowInfo> infos;
  if (limit == 0) return infos;
  const auto by_id = [](const FlowInfo& a, const FlowInfo& b) {
    return a.id < b.id;
  };
  // A heap of the `limit` smallest ids: memory stays bounded by the page.
  slab_.ForEach([&](const UdpMapping* mapping) {
    ForEachPeer(*mapping, [&](const UdpPeer& peer) {
      if (peer.id <= after_id) return;
      if (infos.size() == limit && peer.id > infos.front().id) return;
      FlowInfo info = Info(*mapping, peer, now);
      if (!filter.Matches(info)) return;
      if (infos.size() == limit) {
        std::pop_heap(infos.begin(), infos.end(), by_id);
        infos.pop_back();
      }
      infos.push_back(std::move(info));
      std::push_heap(infos.begin(), infos.end(), by_id);
    });
  });
  std::sort_heap(infos.begin(), infos.end(), by_id);
  return infos;
}

size_t UdpForwarder::Close(const FlowFilter& filter, Instant now) {
  Flush(now);
  size_t closed = 0;
  slab_.ForEach([&](UdpMapping* mapping) {
    closed += EndPeersIf(mapping, CloseReason::kClosedByRequest, now,
                         [&](const UdpPeer& peer) {
                           return filter.Matches(Info(*mapping, peer, now));
                         });
    EndIfEmpty(mapping);
  });
  return closed;
}

UdpStats UdpForwarder::stats() const {
  UdpStats s = stats_;
  s.active = flows_;
  s.mappings = slab_.size();
  return s;
}

size_t UdpForwarder::record_memory() const {
  return slab_.memory() + further_.memory() +
         (mappings_.capacity() + peers_.capacity() + by_port_.capacity()) *
             (sizeof(uint32_t) + 1) +
         asked_.capacity() * (sizeof(AskedKey) + sizeof(uint32_t) + 1);
}

}  // namespace netstack

// How this works
//
// A mapping is one app address and echo id, and has one ping socket (icmp(7)),
// whose own id the network sees; RFC 5508 calls that an ICMP query session.
// The destinations that the app sends to through it are its peers: each is a
// flow for people to see, and only their replies are let in.
//
// An echo goes out with its TTL less one and its TOS, its data untouched; DF
// is the socket's, set when it differs from the echo before. Its reply comes
// with the app's id again, and with one hop less too: so ping shows the times,
// and traceroute the hops, that a router in our place would give. Nothing is
// ever answered for somebody else; only echoes to our own address, the
// gateway's, end here.
//
// What the network says about an echo (time exceeded, unreachable, too big)
// waits in the socket's error queue with the echo as far as it was quoted. The
// app is told the same, from the same router, about its own packet: the quote
// gets back the app's id and the checksum that goes with it, behind an IP
// header of which we remember what the quote does not have (`sent`). The next
// Send() fails with an error that is in the queue already and not this echo's;
// it is drained and sent again.

#include "core/forward/icmp_forwarder.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/flow/flow_id.h"
#include "core/forward/host_errors.h"
#include "core/wire/checksum.h"
#include "core/wire/headers.h"

namespace netstack {
namespace {

constexpr uint8_t kEchoReply = 0, kEchoRequest = 8;
constexpr uint8_t kEchoRequestV6 = 128, kEchoReplyV6 = 129;

// Replies of one socket taken in one turn; the poller tells of the rest.
constexpr size_t kBatch = 8;
constexpr size_t kRoom = kBatch * 65536;

struct Row {
  uint8_t type;
  IcmpFate fate;
};
// By IANA's registries; what is not in a table is not carried.
constexpr Row kV4Table[] = {
    {8, IcmpFate::kEcho},    // echo
    {3, IcmpFate::kError},   // destination unreachable
    {4, IcmpFate::kError},   // source quench (RFC 6633: obsolete)
    {5, IcmpFate::kError},   // redirect
    {11, IcmpFate::kError},  // time exceeded
    {12, IcmpFate::kError},  // parameter problem
    // Not carried: 0 echo reply (nobody can ask), 9 and 10 router discovery,
    // 13-18 timestamps, information, masks (RFC 6918), 42 extended echo.
};
constexpr Row kV6Table[] = {
    {128, IcmpFate::kEcho},  // echo request
    {1, IcmpFate::kError},   // destination unreachable
    {2, IcmpFate::kError},   // packet too big
    {3, IcmpFate::kError},   // time exceeded
    {4, IcmpFate::kError},   // parameter problem
    // Not carried: 129 echo reply, 130-132 and 143 multicast listeners,
    // 133-137 neighbours and routers, 160 extended echo.
};

uint8_t ProtocolOf(bool v4) {
  return v4 ? ip_protocol::kIcmp : ip_protocol::kIcmpV6;
}

void WriteEchoHeader(uint8_t type, uint16_t checksum, uint16_t id,
                     uint16_t seq, std::byte* out) {
  Store8(out, type);
  Store8(out + 1, 0);
  Store16(out + 2, checksum);
  Store16(out + 4, id);
  Store16(out + 6, seq);
}

// The message's checksum in its place; `header` has zero there.
void StoreChecksum(const IpAddress& from, const IpAddress& to,
                   MutableBytes header, Bytes data) {
  ChecksumAccumulator sum;
  if (!from.IsV4()) {
    sum = PseudoHeader(from, to, ip_protocol::kIcmpV6,
                       static_cast<uint32_t>(header.size() + data.size()));
  }
  sum.Add(header);
  sum.Add(data);
  Store16(&header[2], sum.Finish());
}

}  // namespace

IcmpFate FateOfIcmp(const IcmpMessage& message, bool v4) {
  const auto find = [&](const auto& table) {
    for (const Row& row : table) {
      if (row.type == message.type) return row.fate;
    }
    return IcmpFate::kNotCarried;
  };
  const IcmpFate fate = v4 ? find(kV4Table) : find(kV6Table);
  // An echo of another code is none (RFC 792; RFC 4443, 4.1).
  if (fate == IcmpFate::kEcho && message.code != 0) {
    return IcmpFate::kNotCarried;
  }
  return fate;
}

size_t IcmpForwarder::Hash::operator()(const Key& key) const {
  std::array<std::byte, 18> b;
  std::memcpy(b.data(), key.app.v6(), 16);
  Store16(b.data() + 16, key.id);
  return SipHash24(secret, b);
}

IcmpForwarder::IcmpForwarder(const Parts& parts, const Options& options,
                             const SipHashKey& key)
    : parts_(parts), options_(options), table_(0, Hash{key}) {}

IcmpForwarder::~IcmpForwarder() = default;

void IcmpForwarder::Probe() {
  for (const bool v4 : {true, false}) {
    const Dial dial = parts_.dialer->Open(SocketKind::kEcho, v4);
    if (dial.fd >= 0) parts_.dialer->Close(dial.fd, false);
    permitted_ = dial.outcome != DialOutcome::kProhibited;
    // Without IPv4, IPv6 is asked; one sysctl holds for both.
    if (dial.outcome != DialOutcome::kNetUnreachable) return;
  }
}

// --- outbound: tun side to host side ----------------------------------------

void IcmpForwarder::OnEcho(const Packet& packet, const IcmpMessage& echo,
                           Instant now) {
  if (packet.destination == parts_.icmp->gateway().Of(packet.is_v4)) {
    return AnswerSelf(packet, echo);
  }
  Mapping* m = FindOrOpen(packet, echo, now);
  if (m == nullptr) return;
  Peer* peer = FindPeer(m, packet.destination);
  if (peer == nullptr && memory_short_) {
    Drop(DropReason::kNoMemory);
    (void)parts_.icmp->Answer(IcmpError::kProhibited, packet, now);
    return;
  }
  if (peer == nullptr) peer = AddPeer(m, packet.destination, now);
  if (peer == nullptr) {
    Drop(DropReason::kAppBlocked);
    (void)parts_.icmp->Answer(IcmpError::kProhibited, packet, now);
    // Kept until it is idle: the next echo then costs no socket.
    return;
  }
  ++peer->outbound_packets;
  peer->last_active = now;
  Touch(m, now);
  Send(m, packet, echo, now);
}

void IcmpForwarder::AnswerSelf(const Packet& packet, const IcmpMessage& echo) {
  std::array<std::byte, kIcmpHeaderSize> header;
  WriteEchoHeader(packet.is_v4 ? kEchoReply : kEchoReplyV6, 0, echo.id,
                  echo.seq, header.data());
  StoreChecksum(packet.destination, packet.source, header, echo.payload);
  IpHeaderFields ip;
  ip.source = packet.destination;
  ip.destination = packet.source;
  ip.protocol = ProtocolOf(packet.is_v4);
  ip.tos = packet.tos;
  const std::array<Bytes, 2> parts = {Bytes(header), echo.payload};
  if (!parts_.writer->SendMessage(ip, parts)) {
    return Drop(DropReason::kTunWriteFailed);
  }
  ++stats_.gateway_echoes;
}

IcmpForwarder::Mapping* IcmpForwarder::FindOrOpen(const Packet& packet,
                                                  const IcmpMessage& echo,
                                                  Instant now) {
  const auto found = table_.find(Key{packet.source, echo.id});
  if (found != table_.end()) return slab_.At(found->second);
  if (IsLoop(packet, echo)) {
    Drop(DropReason::kLoop);
    parts_.listener->OnPressure(Pressure::kLoop);
    return nullptr;
  }
  return Open(packet, echo.id, now);
}

// An echo of ours comes in at once after it was sent, so that those who sent
// last are looked at; its id is that of their socket.
bool IcmpForwarder::IsLoop(const Packet& packet,
                           const IcmpMessage& echo) const {
  constexpr int kLookAt = 8;
  for (const Queue& queue : queues_) {
    const Mapping* m = queue.newest;
    for (int i = 0; i < kLookAt && m != nullptr; ++i, m = m->older) {
      if (m->next_sent == 0) continue;
      const Sent& last = m->sent[(m->next_sent - 1) % m->sent.size()];
      if (last.to == packet.destination && last.seq == echo.seq &&
          last.total == packet.bytes.size() &&
          parts_.dialer->sockets()->LocalEndpoint(m->fd).port == echo.id) {
        return true;
      }
    }
  }
  return false;
}

// Null when the echo was refused.
IcmpForwarder::Mapping* IcmpForwarder::Open(const Packet& packet, uint16_t id,
                                            Instant now) {
  const auto refuse = [&](DropReason reason) {
    Drop(reason);
    (void)parts_.icmp->Answer(IcmpError::kProhibited, packet, now);
    return nullptr;
  };
  if (shutting_down_) {
    Drop(DropReason::kShuttingDown);
    return nullptr;
  }
  if (memory_short_) return refuse(DropReason::kNoMemory);
  while (slab_.size() >= options_.max_sockets) {
    if (!MakeRoom(now)) return refuse(DropReason::kFlowTableFull);
  }
  // Where other protocols have taken all places, one of our own makes way.
  if (!parts_.slots->Take() && !(MakeRoom(now) && parts_.slots->Take())) {
    parts_.listener->OnPressure(Pressure::kFlowLimit);
    return refuse(DropReason::kFlowTableFull);
  }
  Dial dial = parts_.dialer->Open(SocketKind::kEcho, packet.is_v4);
  if (dial.fd >= 0 && parts_.datagrams->Prepare(dial.fd, SocketKind::kEcho,
                                                packet.is_v4) != 0) {
    parts_.dialer->Close(dial.fd, false);
    dial = {DialOutcome::kOther, -1};
  }
  if (dial.fd < 0) {
    parts_.slots->Give();
    RefuseOpen(dial.outcome, packet, now);
    return nullptr;
  }
  permitted_ = true;
  Mapping* m = slab_.Allocate();
  if (m == nullptr ||
      parts_.poller->Add(dial.fd,
                         {PollToken::Kind::kEcho, m->generation, m->index},
                         Poller::Trigger::kLevelRead) != 0) {
    if (m != nullptr) slab_.Free(m);
    parts_.dialer->Close(dial.fd, false);
    parts_.slots->Give();
    return refuse(DropReason::kNoMemory);
  }
  m->app = packet.source;
  m->id = id;
  m->fd = dial.fd;
  m->last_active = now;
  table_.emplace(Key{m->app, m->id}, m->index);
  Append(m);
  ++stats_.opened;
  return m;
}

void IcmpForwarder::RefuseOpen(DialOutcome outcome, const Packet& packet,
                               Instant now) {
  IcmpError error = IcmpError::kProhibited;
  DropReason reason = DropReason::kEchoNotSent;
  switch (outcome) {
    case DialOutcome::kProhibited:
      permitted_ = false;
      reason = DropReason::kEchoNotPermitted;
      parts_.listener->OnPressure(Pressure::kPingNotPermitted);
      break;
    case DialOutcome::kNoDescriptor:
      reason = DropReason::kNoDescriptors;
      parts_.listener->OnPressure(Pressure::kDescriptors);
      break;
    case DialOutcome::kProtectFailed:
      parts_.listener->OnPressure(Pressure::kProtect);
      break;
    case DialOutcome::kNotReady:  // in a moment there is one
      return Drop(DropReason::kNotProtectedYet);
    case DialOutcome::kNetUnreachable:  // the host lacks the family
      error = IcmpError::kNetUnreachable;
      break;
    default:
      break;
  }
  Drop(reason);
  (void)parts_.icmp->Answer(error, packet, now);
}

// Ends the mapping that was idle longest, one without replies if there is.
bool IcmpForwarder::MakeRoom(Instant now) {
  for (const Queue& queue : queues_) {
    if (queue.oldest == nullptr) continue;
    ++stats_.evicted;
    End(queue.oldest, CloseReason::kEvicted, now);
    return true;
  }
  return false;
}

IcmpForwarder::Peer* IcmpForwarder::FindPeer(Mapping* m,
                                             const IpAddress& ip) const {
  const auto found =
      std::find_if(m->peers.begin(), m->peers.end(),
                   [&](const Peer& peer) { return peer.ip == ip; });
  return found == m->peers.end() ? nullptr : &*found;
}

IcmpForwarder::Peer* IcmpForwarder::AddPeer(Mapping* m, const IpAddress& ip,
                                            Instant now) {
  PrunePeers(m, now);
  if (m->peers.size() >= kMaxPeers) {
    const auto oldest = std::min_element(
        m->peers.begin(), m->peers.end(), [](const Peer& a, const Peer& b) {
          return a.last_active < b.last_active;
        });
    Tell(FlowChange::kClosed, *m, *oldest, CloseReason::kEvicted, now);
    m->peers.erase(oldest);
    --peers_;
  }
  Peer peer;
  peer.id = NextFlowId();
  const FlowKey key{{m->app, m->id},
                    {ip, 0},
                    ip.IsV4() ? Protocol::kIcmp : Protocol::kIcmpV6};
  const PollToken token{PollToken::Kind::kEcho, m->generation, m->index};
  if (parts_.listener->OnOpen(peer.id, key, token) == AppDecision::kBlock) {
    return nullptr;
  }
  peer.ip = ip;
  peer.opened = peer.last_active = now;
  m->peers.push_back(peer);
  ++peers_;
  Tell(FlowChange::kOpened, *m, m->peers.back(), CloseReason::kNone, now);
  return &m->peers.back();
}

void IcmpForwarder::Send(Mapping* m, const Packet& packet,
                         const IcmpMessage& echo, Instant now) {
  const bool v4 = packet.is_v4;
  std::array<std::byte, kIcmpHeaderSize> header;
  // The kernel writes id and checksum.
  WriteEchoHeader(v4 ? kEchoRequest : kEchoRequestV6, 0, echo.id, echo.seq,
                  header.data());
  const std::array<Bytes, 2> parts = {Bytes(header), echo.payload};
  DatagramOut out;
  out.to = {packet.destination, 0};
  out.parts = parts;
  out.tos = packet.tos;
  out.ttl = static_cast<uint8_t>(packet.ttl - 1);
  if (m->dont_fragment != packet.dont_fragment) {
    (void)parts_.datagrams->SetDontFragment(m->fd, v4, packet.dont_fragment);
    m->dont_fragment = packet.dont_fragment;
  }
  // Remembered before an answer can come.
  Sent& sent = m->sent[m->next_sent++ % m->sent.size()];
  sent = {packet.destination,
          echo.seq,
          static_cast<uint16_t>(packet.fragment_id),
          static_cast<uint16_t>(packet.bytes.size()),
          echo.checksum,
          packet.tos,
          packet.dont_fragment};

  int result = 0;
  std::optional<DatagramError> own;
  // At most two errors of earlier echoes stand before ours: the pending one
  // and one that came while the first was taken.
  for (int attempt = 0; attempt < 3 && !own; ++attempt) {
    result = parts_.datagrams->Send(m->fd, {&out, 1});
    if (result >= 0 || result == -EAGAIN) break;
    own = DrainErrors(m, now);
    if (own && own->error != -result) own.reset();
  }
  if (result > 0) {
    Peer* peer = FindPeer(m, packet.destination);
    peer->outbound_bytes += echo.payload.size();
    ++stats_.requests;
    stats_.outbound_bytes += echo.payload.size();
    return;
  }
  Drop(DropReason::kEchoNotSent);
  if (const auto answer = AnswerOf(-result, own ? own->mtu : 0)) {
    (void)parts_.icmp->Answer(*answer, packet, now);
  }
}

// --- way back ---------------------------------------------------------------

void IcmpForwarder::OnSocket(const PollEvent& event, Instant now) {
  Mapping* m = slab_.Find(event.token.index, event.token.generation);
  if (m == nullptr) return;
  if (event.error) (void)DrainErrors(m, now);
  if (event.readable) Receive(m, now);
}

void IcmpForwarder::Receive(Mapping* m, Instant now) {
  std::array<DatagramIn, kBatch> batch;
  // Without memory one at a time, and none that is longer.
  std::array<std::byte, 2048> little;
  if (room_ == nullptr) room_ = AllocateBytes(kRoom);
  const MutableBytes room =
      room_ != nullptr ? MutableBytes(room_.get(), kRoom) : little;
  const auto into = std::span(batch).first(room_ != nullptr ? kBatch : 1);
  int n = 0;
  // As in Send().
  for (int attempt = 0; attempt < 3; ++attempt) {
    n = parts_.datagrams->Receive(m->fd, room, into);
    if (n >= 0 || n == -EAGAIN) break;
    (void)DrainErrors(m, now);
  }
  for (int i = 0; i < n; ++i) OnReply(m, batch[static_cast<size_t>(i)], now);
}

void IcmpForwarder::OnReply(Mapping* m, const DatagramIn& reply, Instant now) {
  const bool v4 = m->app.IsV4();
  const Bytes message = reply.payload;
  Peer* peer = FindPeer(m, reply.from.ip);
  if (peer == nullptr || reply.truncated || message.size() < kIcmpHeaderSize ||
      Load8(&message[0]) != (v4 ? kEchoReply : kEchoReplyV6)) {
    return Drop(DropReason::kEchoUnasked);
  }
  const Bytes data = message.subspan(kIcmpHeaderSize);
  std::array<std::byte, kIcmpHeaderSize> header;
  WriteEchoHeader(Load8(&message[0]), 0, m->id, Load16(&message[6]),
                  header.data());
  StoreChecksum(reply.from.ip, m->app, header, data);
  IpHeaderFields ip;
  ip.source = reply.from.ip;
  ip.destination = m->app;
  ip.protocol = ProtocolOf(v4);
  ip.tos = reply.tos;
  // We are a hop on the way back, too; the last one, so that it is delivered
  // whatever is left.
  if (reply.ttl != 0) {
    ip.ttl = std::max<uint8_t>(static_cast<uint8_t>(reply.ttl - 1), 1);
  }
  const std::array<Bytes, 2> parts = {Bytes(header), data};
  if (!parts_.writer->SendMessage(ip, parts)) {
    return Drop(DropReason::kTunWriteFailed);
  }
  ++peer->inbound_packets;
  peer->inbound_bytes += data.size();
  peer->last_active = now;
  ++stats_.replies;
  stats_.inbound_bytes += data.size();
  if (!m->replied) {
    Unlink(m);
    m->replied = true;
    Append(m);
  }
  Touch(m, now);
}

// Passes on what the network said. The last error of our own kernel's, whose
// payload is gone.
std::optional<DatagramError> IcmpForwarder::DrainErrors(Mapping* m,
                                                        Instant now) {
  // As much as an ICMP error can quote of it, and what follows is cut.
  std::array<std::byte, kMaxIcmpErrorSize> room;
  std::optional<DatagramError> own;
  // The queue is bounded by the socket's buffer; a flood must not hold the
  // loop, and what remains is told again.
  for (int i = 0; i < 64; ++i) {
    std::optional<DatagramError> e = parts_.datagrams->TakeError(m->fd, room);
    if (!e) break;
    if (e->local) {
      own = e;
      own->payload = {};
    } else {
      PassOn(*m, *e, now);
    }
  }
  return own;
}

void IcmpForwarder::PassOn(const Mapping& m, const DatagramError& error,
                           Instant now) {
  const bool v4 = m.app.IsV4();
  const IpAddress& to = error.destination.ip;
  const std::optional<IcmpAnswer> answer = AnswerOf(error, v4);
  if (!answer) return;
  const Bytes quote = error.payload.first(
      std::min(error.payload.size(), kMaxIcmpErrorSize - kMaxIpHeaderSize));
  if (quote.size() < kIcmpHeaderSize || to.IsV4() != v4 ||
      Load8(&quote[0]) != (v4 ? kEchoRequest : kEchoRequestV6)) {
    return Drop(DropReason::kEchoUnasked);
  }
  const uint16_t seq = Load16(&quote[6]);
  const auto sent =
      std::find_if(m.sent.begin(), m.sent.end(), [&](const Sent& s) {
        return s.total != 0 && s.seq == seq && s.to == to;
      });
  // So long ago that it is forgotten, or forged.
  if (sent == m.sent.end()) return Drop(DropReason::kEchoUnasked);

  // The app's packet, as the router that complains may have seen it.
  std::array<std::byte, kMaxIcmpErrorSize> bytes;
  IpHeaderFields ip;
  ip.source = m.app;
  ip.destination = to;
  ip.protocol = ProtocolOf(v4);
  ip.ttl = 1;
  ip.tos = sent->tos;
  ip.id = sent->ip_id;
  const size_t head = IpHeaderSize(v4);
  WriteIpHeader(ip, sent->total - std::min<size_t>(sent->total, head),
                bytes.data());
  if (v4 && !sent->dont_fragment) {
    Store16(&bytes[6], 0);
    Store16(&bytes[10], 0);
    Store16(&bytes[10], Checksum({bytes.data(), kIpV4HeaderSize}));
  }
  std::byte* icmp = bytes.data() + head;
  std::memcpy(icmp, quote.data(), quote.size());
  Store16(icmp + 2, sent->checksum);
  Store16(icmp + 4, m.id);

  Packet original;
  original.bytes = {bytes.data(), head + quote.size()};
  original.transport = original.bytes.subspan(head);
  original.source = m.app;
  original.destination = to;
  original.protocol = ip.protocol;
  original.protocol_at = v4 ? 9 : 6;
  original.ttl = ip.ttl;
  original.tos = ip.tos;
  original.is_v4 = v4;
  if (parts_.icmp->Answer(*answer, original, now)) ++stats_.errors_passed;
}

// --- both -------------------------------------------------------------------

void IcmpForwarder::OnTurn(Instant now) {
  for (const Queue& queue : queues_) {
    while (queue.oldest != nullptr &&
           queue.oldest->last_active + options_.idle <= now) {
      End(queue.oldest, CloseReason::kIdleTimeout, now);
    }
  }
}

Instant IcmpForwarder::next_deadline() const {
  Instant next = kNever;
  for (const Queue& queue : queues_) {
    if (queue.oldest == nullptr) continue;
    next = std::min(next, queue.oldest->last_active + options_.idle);
  }
  return next;
}

void IcmpForwarder::Shutdown(Instant now) {
  shutting_down_ = true;
  for (const Queue& queue : queues_) {
    while (queue.oldest != nullptr) {
      End(queue.oldest, CloseReason::kStackStopped, now);
    }
  }
}

void IcmpForwarder::Touch(Mapping* m, Instant now) {
  m->last_active = now;
  if (m->newer == nullptr) return;  // the newest already
  Unlink(m);
  Append(m);
}

void IcmpForwarder::Unlink(Mapping* m) {
  Queue& queue = QueueOf(m);
  (m->older != nullptr ? m->older->newer : queue.oldest) = m->newer;
  (m->newer != nullptr ? m->newer->older : queue.newest) = m->older;
  m->older = m->newer = nullptr;
}

void IcmpForwarder::Append(Mapping* m) {
  Queue& queue = QueueOf(m);
  m->older = queue.newest;
  (queue.newest != nullptr ? queue.newest->newer : queue.oldest) = m;
  queue.newest = m;
}

void IcmpForwarder::PrunePeers(Mapping* m, Instant now) {
  std::erase_if(m->peers, [&](const Peer& peer) {
    if (peer.last_active + options_.idle > now) return false;
    Tell(FlowChange::kClosed, *m, peer, CloseReason::kIdleTimeout, now);
    --peers_;
    return true;
  });
}

// The mapping is gone afterwards. An event of its socket that is on its way
// does not find it.
void IcmpForwarder::End(Mapping* m, CloseReason reason, Instant now) {
  for (const Peer& peer : m->peers) {
    Tell(FlowChange::kClosed, *m, peer, reason, now);
  }
  peers_ -= m->peers.size();
  Unlink(m);
  table_.erase(Key{m->app, m->id});
  (void)parts_.poller->Remove(m->fd);
  parts_.dialer->Close(m->fd, false);
  parts_.slots->Give();
  slab_.Free(m);
}

FlowInfo IcmpForwarder::Info(const Mapping& m, const Peer& peer,
                             Instant now) const {
  FlowInfo info;
  info.id = peer.id;
  info.key.protocol = m.app.IsV4() ? Protocol::kIcmp : Protocol::kIcmpV6;
  info.key.app = {m.app, m.id};
  info.key.remote = {peer.ip, 0};
  info.state = FlowState::kOpen;
  info.age = now - peer.opened;
  info.idle = now - peer.last_active;
  info.outbound_bytes = peer.outbound_bytes;
  info.inbound_bytes = peer.inbound_bytes;
  info.outbound_packets = peer.outbound_packets;
  info.inbound_packets = peer.inbound_packets;
  return info;
}

void IcmpForwarder::Tell(FlowChange change, const Mapping& m, const Peer& peer,
                         CloseReason reason, Instant now) {
  if (!flow_changes_) return;
  FlowInfo info = Info(m, peer, now);
  info.close_reason = reason;
  if (change == FlowChange::kClosed) info.state = FlowState::kClosed;
  parts_.listener->OnFlow(change, info);
}

std::vector<FlowInfo> IcmpForwarder::List(const FlowFilter& filter,
                                          uint64_t after_id, size_t limit,
                                          Instant now) const {
  std::vector<FlowInfo> found;
  const auto by_id = [](const FlowInfo& a, const FlowInfo& b) {
    return a.id < b.id;
  };
  const auto keep_lowest = [&] {
    std::sort(found.begin(), found.end(), by_id);
    if (found.size() > limit) found.resize(limit);
  };
  slab_.ForEach([&](const Mapping* m) {
    for (const Peer& peer : m->peers) {
      if (peer.id <= after_id) continue;
      FlowInfo info = Info(*m, peer, now);
      if (!filter.Matches(info)) continue;
      found.push_back(std::move(info));
      if (found.size() >= 2 * limit + 64) keep_lowest();
    }
  });
  keep_lowest();
  return found;
}

size_t IcmpForwarder::Close(const FlowFilter& filter, Instant now) {
  size_t closed = 0;
  std::vector<Mapping*> empty;
  slab_.ForEach([&](Mapping* m) {
    const size_t n = std::erase_if(m->peers, [&](const Peer& peer) {
      if (!filter.Matches(Info(*m, peer, now))) return false;
      Tell(FlowChange::kClosed, *m, peer, CloseReason::kClosedByRequest, now);
      return true;
    });
    closed += n;
    peers_ -= n;
    if (m->peers.empty()) empty.push_back(m);
  });
  for (Mapping* m : empty) End(m, CloseReason::kClosedByRequest, now);
  return closed;
}

IcmpStats IcmpForwarder::stats() const {
  IcmpStats s = stats_;
  s.sockets = slab_.size();
  s.active = peers_;
  return s;
}

}  // namespace netstack

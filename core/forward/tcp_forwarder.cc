// How this works
//
// A flow has two sides. The tun side is a TcpConn: lwIP talking to the app.
// The host side is an ordinary, protected socket. States, and what may happen
// in each:
//
//   kDialing    The app's SYN is kept, connect() is under way, lwIP knows
//               nothing. More SYNs are absorbed (another ISN replaces the kept
//               one), an RST for the SYN cancels, everything else is dropped.
//               Ends by the dial's result: connected -> kHandshake; refused
//               -> RST to the app; unreachable or timed out -> ICMP error.
//   kHandshake  lwIP was given the SYN and answers for itself. Ends with the
//               app's ACK -> kOpen, its RST, or lwIP's own timeout (20 s).
//   kOpen       Bytes flow both ways.
//   kAppClosed  The app's FIN came. What it sent is flushed, then the socket
//               is shut down for writing; inbound goes on.
//   kHostClosed The remote's FIN came. What it sent is flushed, then lwIP
//               sends FIN; outbound goes on.
//   kClosing    Both; the last bytes and FINs are on their way.
//   kTimeWait   lwIP holds the pcb for late segments, the socket is closed.
//               A new SYN with a higher sequence number takes the place.
//   kClosed     Ended; the record lives until Sweep(), because a record is
//               never freed inside its own callback.
//
// So the app sees what the network says: nothing is accepted before the
// remote has accepted, and both directions close, half-close and reset
// independently.
//
// Backpressure. Outbound: the window towards the app opens only by what the
// host's socket took (TcpEngine::Consumed); what it did not take waits in the
// flow's queue. Inbound: the socket is read only while fewer than tx_limit
// bytes wait for the app. Both limits start at buffer_floor, grow with a fast
// peer up to buffer_max while the memory budget has room, and never otherwise.
//
// Connections that end inside the service (LocalStreams: TCP to port 53) are
// flows like any other, whose host side is one end of a local pair; they are
// connected at once, and have places and a half-open limit of their own.
//
// The host's sockets are watched edge-triggered, so that pausing and resuming
// costs no system call: `readable` and `writable` remember the edge.

#include "core/forward/tcp_forwarder.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/flow/flow_id.h"
#include "core/forward/host_errors.h"
#include "core/wire/headers.h"
#include "core/wire/icmp_error.h"

namespace netstack {
namespace {

// Reads of one socket per turn: an elephant yields to mice after this many
// super-segments.
constexpr uint8_t kReadsPerTurn = 4;
// Received pieces smaller than this are copied out of a full-size chunk.
constexpr uint32_t kWorthShrinking = 16 * 1024;
// The least room worth a read while bytes are under way.
constexpr uint32_t kLeastRead = 16 * 1024;
// How long a flow waits after malloc(3) failed.
constexpr Duration kMemoryRetry = std::chrono::milliseconds(10);
// Room in a fresh chunk of outbound bytes, so that small segments share one.
constexpr uint32_t kLeastUpChunk = 2 * 1024;

CloseReason ReasonOfDial(DialOutcome outcome) {
  switch (outcome) {
    case DialOutcome::kRefused:
      return CloseReason::kRefused;
    case DialOutcome::kNetUnreachable:
    case DialOutcome::kHostUnreachable:
      return CloseReason::kUnreachable;
    case DialOutcome::kProhibited:
      return CloseReason::kProhibited;
    case DialOutcome::kTimedOut:
      return CloseReason::kDialTimeout;
    case DialOutcome::kProtectFailed:
      return CloseReason::kProtectFailed;
    case DialOutcome::kNoDescriptor:
    case DialOutcome::kNoPort:
      return CloseReason::kNoResources;
    default:
      return CloseReason::kHostError;
  }
}

// What a failed socket means for its flow.
CloseReason ReasonOfSocket(int error) {
  switch (error) {
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED:
      return CloseReason::kHostReset;
    case ETIMEDOUT:
      return CloseReason::kHostTimeout;
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
      return CloseReason::kUnreachable;
    case ENOMEM:
    case ENOBUFS:
      return CloseReason::kNoResources;
    default:
      return CloseReason::kHostError;
  }
}

// The TTL of the host side: the app's less a hop, when the app set one of its
// own (traceroute -T), else the system's: none begins with less than 64.
uint8_t HostTtl(const KeptSyn& syn, bool v4) {
  const uint8_t app = Load8(&syn.packet[v4 ? 8 : 7]);
  return app > 1 && app <= 32 ? static_cast<uint8_t>(app - 1) : uint8_t{0};
}

FlowKey KeyOf(const Packet& packet, const TcpSegment& segment) {
  FlowKey key;
  key.app = {packet.source, segment.source_port};
  key.remote = {packet.destination, segment.destination_port};
  key.protocol = Protocol::kTcp;
  return key;
}

}  // namespace

size_t TcpForwarder::Hash::operator()(const FlowKey& key) const {
  std::array<std::byte, 37> b;
  std::memcpy(b.data(), key.app.ip.v6(), 16);
  std::memcpy(b.data() + 16, key.remote.ip.v6(), 16);
  Store16(b.data() + 32, key.app.port);
  Store16(b.data() + 34, key.remote.port);
  b[36] = static_cast<std::byte>(key.protocol);
  return SipHash24(f->hash_key_, b);
}

size_t TcpForwarder::Hash::operator()(uint32_t index) const {
  return (*this)(f->slab_.At(index)->key);
}

bool TcpForwarder::Equal::operator()(uint32_t a, const FlowKey& b) const {
  return f->slab_.At(a)->key == b;
}

TcpForwarder::TcpForwarder(const Parts& parts, const Options& options,
                           const SipHashKey& hash_key, Instant now)
    : parts_(parts),
      options_(options),
      hash_key_(hash_key),
      gate_(options.gate, hash_key),
      local_gate_({}, hash_key),
      wheel_(now),
      table_(0, Hash{this}, Equal{this}) {
  Configure(options);
}

TcpForwarder::~TcpForwarder() = default;

void TcpForwarder::Configure(const Options& options) {
  options_ = options;
  gate_.Configure(options.gate);
  if (parts_.local == nullptr) return;
  // One destination is as good as another here: all end in the same place.
  const uint32_t most = parts_.local->max_half_open();
  local_gate_.Configure({most, most});
}

// --- outbound: tun side to host side ----------------------------------------

TcpFlow* TcpForwarder::Find(const FlowKey& key) const {
  const auto it = table_.find(key);
  return it == table_.end() ? nullptr : slab_.At(*it);
}

void TcpForwarder::OnSegment(const Packet& packet, const TcpSegment& segment,
                             Instant now) {
  const FlowKey key = KeyOf(packet, segment);
  TcpFlow* flow = Find(key);
  if (flow != nullptr && flow->state == FlowState::kTimeWait &&
      InTimeWait(flow, packet, segment, now)) {
    flow = nullptr;  // replaced by what this SYN opens
  }
  if (flow == nullptr) return OnUnknown(packet, segment, key, now);
  ++flow->outbound_packets;
  if (flow->syn != nullptr) return WhileDialing(flow, packet, segment, now);
  if (flow->conn.pcb == nullptr) return Drop(DropReason::kTcpBadState);
  Feed(flow, segment, now);
}

void TcpForwarder::OnUnknown(const Packet& packet, const TcpSegment& segment,
                             const FlowKey& key, Instant now) {
  if (segment.Has(tcp_flag::kSyn) && !segment.Has(tcp_flag::kAck)) {
    return Open(packet, segment, key, now);
  }
  // As a host without that connection answers (RFC 9293, 3.10.7.1): the app
  // learns at once that its old connection is gone.
  Drop(DropReason::kTcpNoFlow);
  if (!segment.Has(tcp_flag::kRst)) AnswerReset(key, segment);
}

void TcpForwarder::Open(const Packet& packet, const TcpSegment& segment,
                        const FlowKey& key, Instant now) {
  if (shutting_down_) return Drop(DropReason::kShuttingDown);
  if (parts_.dialer->IsOwnDial(key.app, key.remote) ||
      (parts_.dns_dialer != nullptr &&
       parts_.dns_dialer->IsOwnDial(key.app, key.remote))) {
    // Before the gate: its memory of refusals would hide what goes on.
    Drop(DropReason::kLoop);
    parts_.listener->OnPressure(Pressure::kLoop);
    return AnswerReset(key, segment);
  }
  const bool local = parts_.local != nullptr && parts_.local->Takes(key);
  FlowAdvice advice;
  if (!local && parts_.advisor != nullptr) {
    advice = parts_.advisor->Advise(key, now);
  }
  if (advice.refusal) {
    Drop(*advice.refusal);
    return AnswerReset(key, segment);
  }
  if (!Admits(segment, key, local, now)) return;
  TcpFlow* flow = memory_short_ ? nullptr : slab_.Allocate();
  if (flow == nullptr) {
    if (!local) parts_.slots->Give();
    return Drop(DropReason::kNoMemory);
  }
  flow->key = key;
  if (!KeepSyn(flow, packet, segment)) {
    if (!local) parts_.slots->Give();
    slab_.Free(flow);
    return;
  }
  flow->local = local;
  flow->name = std::move(advice.name);
  flow->id = NextFlowId();
  flow->opened = flow->last_active = now;
  flow->outbound_packets = 1;
  flow->tx_limit = options_.buffer_floor;
  flow->half_open = true;
  GateOf(local).Opened(key.remote);
  flow->has_slot = !local;
  table_.insert(flow->index);
  ++stats_.opened;
  if (local) {
    Tell(FlowChange::kOpened, *flow, now);
    return ConnectLocally(flow, now);
  }
  const AppDecision decision =
      parts_.listener->OnOpen(flow->id, key, TokenOf(*flow));
  Tell(FlowChange::kOpened, *flow, now);
  switch (decision) {
    case AppDecision::kAllow:
      return StartDial(flow, now);
    case AppDecision::kBlock:
      return Block(flow, now);
    case AppDecision::kWait:
      flow->waits_owner = true;
      return Rearm(flow);
  }
}

void TcpForwarder::OnDecided(PollToken token, bool block, Instant now) {
  TcpFlow* flow = slab_.Find(token.index, token.generation);
  if (flow == nullptr || !flow->waits_owner ||
      flow->state != FlowState::kDialing) {
    return;
  }
  flow->waits_owner = false;
  block ? Block(flow, now) : StartDial(flow, now);
}

// A rule refuses the app.
void TcpForwarder::Block(TcpFlow* flow, Instant now) {
  Drop(DropReason::kAppBlocked);
  AnswerFailedDial(flow, DialOutcome::kRefused, now);
  End(flow, CloseReason::kAppBlocked, now);
}

// Takes a place for a new flow, or says why there is none. Flows that end
// inside have places of their own (LocalStreams::Connect).
bool TcpForwarder::Admits(const TcpSegment& segment, const FlowKey& key,
                          bool local, Instant now) {
  if (const auto reason = GateOf(local).Refuses(key, segment.seq, now)) {
    Drop(*reason);
    if (*reason == DropReason::kRecentlyRefused) {
      AnswerReset(key, segment);
    } else if (*reason != DropReason::kTcpDuplicateSyn) {
      parts_.listener->OnPressure(Pressure::kHalfOpen);
    }
    return false;
  }
  if (local || parts_.slots->Take()) return true;
  Drop(DropReason::kFlowTableFull);
  parts_.listener->OnPressure(Pressure::kFlowLimit);
  AnswerReset(key, segment);
  return false;
}

void TcpForwarder::StartDial(TcpFlow* flow, Instant now) {
  const PollToken token = TokenOf(*flow);
  const Dial dial = parts_.dialer->DialTcp(
      flow->key.remote, HostTtl(*flow->syn, flow->key.remote.ip.IsV4()),
      token);
  flow->fd = dial.fd;
  if (dial.fd >= 0) {
    if (parts_.poller->Add(dial.fd, token, Poller::Trigger::kEdgeReadWrite) !=
        0) {
      return Dialed(flow, DialOutcome::kNoDescriptor, now);
    }
  }
  if (dial.outcome != DialOutcome::kInProgress) {
    return Dialed(flow, dial.outcome, now);
  }
  Rearm(flow);
}

// A connection that ends inside is there at once.
void TcpForwarder::ConnectLocally(TcpFlow* flow, Instant now) {
  const int fd = parts_.local->Connect(flow->key, now);
  if (fd < 0) return Dialed(flow, DialOutcome::kNoDescriptor, now);
  flow->fd = fd;
  const PollToken token{PollToken::Kind::kTcpFlow, flow->generation,
                        flow->index};
  const bool watched =
      parts_.poller->Add(fd, token, Poller::Trigger::kEdgeReadWrite) == 0;
  Dialed(flow,
         watched ? DialOutcome::kConnected : DialOutcome::kNoDescriptor, now);
}

// False when the SYN is malformed or memory fails; counted.
bool TcpForwarder::KeepSyn(TcpFlow* flow, const Packet& packet,
                           const TcpSegment& segment) {
  const OrDrop<SynOptions> options = ParseSynOptions(segment.options);
  if (!options) {
    Drop(options.reason());
    return false;
  }
  if (flow->syn == nullptr) flow->syn = std::make_unique<KeptSyn>();
  KeptSyn& kept = *flow->syn;
  kept.facts = {segment.seq, segment.window, *options};
  if (packet.bytes.size() <= kept.packet.size()) {
    std::memcpy(kept.packet.data(), packet.bytes.data(), packet.bytes.size());
    kept.size = static_cast<uint8_t>(packet.bytes.size());
    return true;
  }
  // With data (TCP Fast Open; the app sends it again) or extension headers:
  // what an ICMP error has to quote is the bare segment.
  IpHeaderFields ip;
  ip.source = packet.source;
  ip.destination = packet.destination;
  ip.protocol = ip_protocol::kTcp;
  ip.ttl = packet.ttl;
  ip.tos = packet.tos;
  const size_t tcp_size =
      std::min(packet.transport.size() - segment.payload.size(),
               kept.packet.size() - kMaxIpHeaderSize);
  const size_t ip_size = WriteIpHeader(ip, tcp_size, kept.packet.data());
  std::memcpy(kept.packet.data() + ip_size, packet.transport.data(), tcp_size);
  kept.size = static_cast<uint8_t>(ip_size + tcp_size);
  return true;
}

void TcpForwarder::WhileDialing(TcpFlow* flow, const Packet& packet,
                                const TcpSegment& segment, Instant now) {
  if (segment.Has(tcp_flag::kRst)) {
    // Only the SYN itself can be meant (RFC 5961, section 3).
    const uint32_t offset = segment.seq - flow->syn->facts.seq;
    if (offset > 1) return Drop(DropReason::kTcpBadState);
    return End(flow, CloseReason::kAppReset, now);
  }
  if (!segment.Has(tcp_flag::kSyn) || segment.Has(tcp_flag::kAck)) {
    return Drop(DropReason::kTcpBadState);
  }
  if (!KeepSyn(flow, packet, segment)) return;
  if (flow->state == FlowState::kHandshake) {
    // Connected, but lwIP had no memory for the first SYN.
    return StartHandshake(flow, now);
  }
  Drop(DropReason::kTcpDuplicateSyn);
}

// A segment for a flow in TIME_WAIT. True when the flow has made way.
bool TcpForwarder::InTimeWait(TcpFlow* flow, const Packet&,
                              const TcpSegment& segment, Instant now) {
  if (!segment.Has(tcp_flag::kSyn) || segment.Has(tcp_flag::kAck)) return false;
  if (parts_.engine->MayReuse(flow->conn, segment.seq)) {
    End(flow, CloseReason::kFinished, now);
    return true;
  }
  return false;
}

void TcpForwarder::Feed(TcpFlow* flow, const TcpSegment& segment,
                        Instant now) {
  if (flow->state == FlowState::kTimeWait && segment.Has(tcp_flag::kSyn)) {
    // An old SYN: an ACK, never the RST that lwIP would send.
    Drop(DropReason::kTcpBadState);
    flow->conn.ack_pending = true;
    (void)parts_.engine->Finish(flow->conn, flow->key, now);
    return;
  }
  const TcpEvents events =
      parts_.engine->Input(flow->conn, flow->key, segment, now);
  if (events.drop) return Drop(*events.drop);
  flow->last_active = now;
  if (events.delivered != 0 && !SendUp(flow, now)) return;
  if (!Handle(flow, events, now)) return;
  ShutHostIfDone(flow);
  // One ACK and one read of the socket for all segments of a batch, unless
  // the app may be waiting for them: its window runs low, or a segment was
  // lost and every ACK counts (RFC 5681, section 3.2).
  const bool out_of_order =
      !segment.payload.empty() && events.delivered == 0;
  if (!out_of_order && flow->conn.rx_unacked < flow->conn.rx_limit / 4) {
    return Touch(flow);
  }
  if (PumpDown(flow, now)) Progress(flow, now);
}

// Gives what Input() delivered to the host's socket, straight from the
// packet. False when the flow has ended.
bool TcpForwarder::SendUp(TcpFlow* flow, Instant now) {
  const std::span<const Bytes> parts = parts_.engine->received();
  size_t total = 0;
  for (const Bytes& part : parts) total += part.size();
  size_t sent = 0;
  if (flow->host_shut || flow->fd < 0) {
    // The app sends behind its own FIN: lwIP does not let that through.
    return true;
  }
  if (flow->up_head == nullptr && flow->writable) {
    const int64_t n = parts_.dialer->sockets()->Send(flow->fd, parts);
    if (n >= 0) {
      sent = static_cast<size_t>(n);
    } else if (n != -EAGAIN) {
      HostFailed(flow, static_cast<int>(-n), now);
      return false;
    }
    if (sent < total) flow->writable = false;
  }
  if (sent < total && !KeepUp(flow, parts, sent)) {
    End(flow, CloseReason::kNoResources, now);
    return false;
  }
  flow->outbound_bytes += sent;
  stats_.outbound_bytes += sent;
  parts_.engine->Consumed(flow->conn, static_cast<uint32_t>(sent));
  return true;
}

// Queues all but the first `skip` bytes. False when memory fails.
bool TcpForwarder::KeepUp(TcpFlow* flow, std::span<const Bytes> parts,
                          size_t skip) {
  for (Bytes part : parts) {
    const size_t skipped = std::min(skip, part.size());
    part = part.subspan(skipped);
    skip -= skipped;
    while (!part.empty()) {
      Chunk* tail = flow->up_tail;
      if (tail == nullptr || tail->size == tail->capacity) {
        const auto size = static_cast<uint32_t>(part.size());
        // Large ones in the size that the pool recycles.
        Chunk* chunk = parts_.pool->Allocate(
            size > kLeastRead ? std::max(size, BufferPool::kFullChunk)
                              : std::max(size, kLeastUpChunk));
        if (chunk == nullptr) return false;
        (tail == nullptr ? flow->up_head : tail->next) = chunk;
        flow->up_tail = tail = chunk;
      }
      const size_t n = std::min(part.size(), tail->room().size());
      std::memcpy(tail->room().data(), part.data(), n);
      tail->size += static_cast<uint32_t>(n);
      flow->up_bytes += static_cast<uint32_t>(n);
      part = part.subspan(n);
    }
  }
  return true;
}

// Sends what waits. False when the flow has ended.
bool TcpForwarder::FlushUp(TcpFlow* flow, Instant now) {
  while (flow->up_head != nullptr && flow->writable) {
    up_parts_.clear();
    size_t offered = 0;
    for (Chunk* c = flow->up_head; c != nullptr && up_parts_.size() < 64;
         c = c->next) {
      const size_t offset = c == flow->up_head ? flow->up_offset : 0;
      up_parts_.push_back(c->used().subspan(offset));
      offered += up_parts_.back().size();
    }
    const int64_t n = parts_.dialer->sockets()->Send(flow->fd, up_parts_);
    if (n < 0 && n != -EAGAIN) {
      HostFailed(flow, static_cast<int>(-n), now);
      return false;
    }
    const auto sent = static_cast<uint32_t>(std::max<int64_t>(n, 0));
    if (sent < offered) flow->writable = false;
    flow->up_offset += sent;
    flow->up_bytes -= sent;
    while (flow->up_head != nullptr &&
           flow->up_offset >= flow->up_head->size) {
      Chunk* head = flow->up_head;
      flow->up_offset -= head->size;
      flow->up_head = head->next;
      parts_.pool->Free(head);
    }
    if (flow->up_head == nullptr) flow->up_tail = nullptr;
    flow->outbound_bytes += sent;
    stats_.outbound_bytes += sent;
    if (sent != 0) {
      flow->last_active = now;
      parts_.engine->Consumed(flow->conn, sent);
    }
  }
  return true;
}

void TcpForwarder::ShutHostIfDone(TcpFlow* flow) {
  if (!flow->conn.app_fin || flow->host_shut || flow->up_head != nullptr ||
      flow->fd < 0) {
    return;
  }
  // An error shows at the next read.
  (void)parts_.dialer->sockets()->ShutdownWrite(flow->fd);
  flow->host_shut = true;
}

// --- the dial ---------------------------------------------------------------

void TcpForwarder::Dialed(TcpFlow* flow, DialOutcome outcome, Instant now) {
  if (outcome == DialOutcome::kConnected) {
    flow->dial_micros = static_cast<uint32_t>(
        (now - flow->opened) / std::chrono::microseconds(1));
    flow->state = FlowState::kHandshake;
    flow->writable = true;
    Tell(FlowChange::kUpdated, *flow, now);
    return StartHandshake(flow, now);
  }
  GateOf(flow->local)
      .DialFailed(flow->key.remote, outcome == DialOutcome::kRefused, now);
  if (outcome == DialOutcome::kNoDescriptor) {
    Drop(DropReason::kNoDescriptors);
    parts_.listener->OnPressure(Pressure::kDescriptors);
  } else if (outcome == DialOutcome::kProtectFailed) {
    parts_.listener->OnPressure(Pressure::kProtect);
  }
  AnswerFailedDial(flow, outcome, now);
  End(flow, ReasonOfDial(outcome), now);
}

// What a direct route would have shown the app.
void TcpForwarder::AnswerFailedDial(TcpFlow* flow, DialOutcome outcome,
                                    Instant now) {
  if (const auto answer = ErrorOfDial(*flow)) {
    return AnswerSyn(flow, *answer, now);
  }
  IcmpError error;
  switch (outcome) {
    case DialOutcome::kNetUnreachable:
      error = IcmpError::kNetUnreachable;
      break;
    case DialOutcome::kHostUnreachable:
    case DialOutcome::kTimedOut:
      error = IcmpError::kHostUnreachable;
      break;
    case DialOutcome::kProhibited:
      error = IcmpError::kProhibited;
      break;
    default: {
      TcpSegment syn;
      syn.seq = flow->syn->facts.seq;
      syn.flags = tcp_flag::kSyn;
      return AnswerReset(flow->key, syn);
    }
  }
  IcmpAnswer answer;
  answer.error = error;
  AnswerSyn(flow, answer, now);
}

// The ICMP error that ended the dial, as the network sent it.
std::optional<IcmpAnswer> TcpForwarder::ErrorOfDial(const TcpFlow& flow) {
  if (flow.fd < 0 || flow.local) return std::nullopt;
  std::array<std::byte, 64> quote;
  const auto error = parts_.datagrams->TakeError(flow.fd, quote);
  // What our own kernel found has no sender; the outcome says it.
  if (!error || error->local) return std::nullopt;
  return AnswerOf(*error, flow.key.remote.ip.IsV4());
}

void TcpForwarder::AnswerSyn(TcpFlow* flow, const IcmpAnswer& answer,
                             Instant now) {
  const OrDrop<Packet> original =
      ParsePacket({flow->syn->packet.data(), flow->syn->size});
  if (original && parts_.icmp->Answer(answer, *original, now)) {
    GateOf(flow->local).Answered(flow->key, flow->syn->facts.seq, now);
    ++stats_.icmp_errors_sent;
  }
}

// RFC 9293, 3.10.7.1.
void TcpForwarder::AnswerReset(const FlowKey& key, const TcpSegment& segment) {
  TcpHeaderFields tcp;
  tcp.source_port = key.remote.port;
  tcp.destination_port = key.app.port;
  if (segment.Has(tcp_flag::kAck)) {
    tcp.flags = tcp_flag::kRst;
    tcp.seq = segment.ack;
  } else {
    tcp.flags = tcp_flag::kRst | tcp_flag::kAck;
    tcp.ack = segment.seq + static_cast<uint32_t>(segment.payload.size()) +
              (segment.Has(tcp_flag::kSyn) ? 1 : 0) +
              (segment.Has(tcp_flag::kFin) ? 1 : 0);
  }
  std::array<std::byte, kMaxIpHeaderSize + kTcpHeaderSize> packet;
  const size_t size =
      WriteBareTcp(key.remote.ip, key.app.ip, tcp, packet.data());
  parts_.writer->SendPacket({packet.data(), size});
  ++stats_.resets_sent;
}

void TcpForwarder::StartHandshake(TcpFlow* flow, Instant now) {
  if (parts_.engine->Accept(flow->conn, flow->key, flow->syn->facts, now)) {
    flow->syn.reset();
    if (flow->conn.blocked) Progress(flow, now);
  }
  // Without memory the kept SYN waits for the app to repeat it, and the dial
  // timeout for the app to give up.
  Rearm(flow);
}

// --- way back: host side to tun side ----------------------------------------

void TcpForwarder::OnSocket(const PollEvent& event, Instant now) {
  TcpFlow* flow = slab_.Find(event.token.index, event.token.generation);
  if (flow == nullptr || flow->fd < 0 || flow->state == FlowState::kClosed) {
    return;
  }
  if (flow->state == FlowState::kDialing) {
    if (!event.writable && !event.error) return;
    const DialOutcome outcome = parts_.dialer->FinishDial(
        flow->fd, flow->key.remote.ip.IsV4());
    // The socket is not connected yet, and says so as an error.
    if (outcome == DialOutcome::kInProgress) return;
    if (event.readable) flow->readable = true;
    if (event.read_closed) flow->read_closed = true;
    return Dialed(flow, outcome, now);
  }
  if (event.readable || event.read_closed || event.error) {
    flow->readable = true;
  }
  if (event.read_closed || event.error) flow->read_closed = true;
  if (event.error && !flow->conn.established) {
    // Nothing is read before the handshake ends: ask now.
    const int error = -parts_.dialer->sockets()->TakeError(flow->fd);
    if (error != 0) return HostFailed(flow, error, now);
  }
  if (event.writable || event.error) {
    flow->writable = true;
    if (!FlushUp(flow, now)) return;
    ShutHostIfDone(flow);
  }
  if (!PumpDown(flow, now)) return;
  Progress(flow, now);
}

// How many bytes may be read for the app now; 0 pauses.
uint32_t TcpForwarder::RoomDown(TcpFlow* flow) const {
  const uint32_t held = flow->conn.tx_bytes;
  const uint32_t chunk = parts_.engine->ChunkSize(flow->conn);
  if (held < options_.buffer_floor) {
    const uint32_t room = options_.buffer_floor - held;
    if (held == 0 || room >= std::min(kLeastRead, chunk)) {
      return std::min(chunk, room);
    }
  }
  flow->tx_limited = true;
  if (held >= flow->tx_limit) return 0;
  const uint32_t room = std::min(chunk, flow->tx_limit - held);
  if (room < std::min(kLeastRead, chunk)) return 0;
  return room;
}

// Reads the socket while the app may have more. False when the flow has
// ended.
bool TcpForwarder::PumpDown(TcpFlow* flow, Instant now) {
  if (!flow->conn.established || flow->conn.pcb == nullptr) return true;
  if (flow->turn != turn_) {
    flow->turn = turn_;
    flow->reads = 0;
  }
  while (flow->readable && !flow->host_eof && flow->fd >= 0) {
    if (flow->reads == kReadsPerTurn) {
      MakeReady(flow);
      break;
    }
    ++flow->reads;
    const uint32_t room = RoomDown(flow);
    if (room == 0) break;
    if (flow->conn.tx_bytes >= options_.buffer_floor &&
        !parts_.pool->HasRoom(room)) {
      parts_.listener->OnPressure(Pressure::kMemory);
      WaitForMemory(flow);
      break;
    }
    Chunk* chunk = parts_.pool->Allocate(
        room > kLeastRead ? BufferPool::kFullChunk : room);
    if (chunk == nullptr) {
      // Whoever frees memory may not be us: time has to tell.
      memory_retry_at_ = std::min(memory_retry_at_, now + kMemoryRetry);
      WaitForMemory(flow);
      break;
    }
    const int64_t n =
        parts_.dialer->sockets()->Receive(flow->fd, chunk->room().first(room));
    if (n > 0) {
      chunk->size = static_cast<uint32_t>(n);
      flow->last_active = now;
      // A short read of a stream socket has emptied it (epoll(7)), unless the
      // end is behind it.
      if (chunk->size < room && !flow->read_closed) flow->readable = false;
      if (chunk->size < kWorthShrinking) chunk = parts_.pool->Shrink(chunk);
      parts_.engine->Queue(flow->conn, chunk);
      continue;
    }
    parts_.pool->Free(chunk);
    if (n == 0) {
      flow->host_eof = true;
      parts_.engine->Shutdown(flow->conn);
    } else if (n == -EAGAIN) {
      flow->readable = false;
    } else {
      HostFailed(flow, static_cast<int>(-n), now);
      return false;
    }
  }
  return true;
}

// Lets the engine send whatever there is now, and draws the conclusions.
void TcpForwarder::Progress(TcpFlow* flow, Instant now) {
  const TcpEvents events =
      parts_.engine->Finish(flow->conn, flow->key, now);
  if (!Handle(flow, events, now)) return;
  WaitForTunIfBlocked(flow);
  UpdateState(flow, now);
  if (flow->state != FlowState::kClosed) Rearm(flow);
}

void TcpForwarder::WaitForMemory(TcpFlow* flow) {
  if (flow->in_starved) return;
  ++memory_waits_;
  flow->in_starved = true;
  starved_.push_back(flow);
}

void TcpForwarder::WaitForTunIfBlocked(TcpFlow* flow) {
  if (!flow->conn.blocked || flow->in_blocked) return;
  flow->in_blocked = true;
  blocked_.push_back(flow);
}

void TcpForwarder::Acknowledged(TcpFlow* flow, uint32_t bytes) {
  flow->inbound_bytes += bytes;
  stats_.inbound_bytes += bytes;
  // An app that takes a good part of the limit at once could take more.
  if (flow->tx_limited && bytes >= flow->tx_limit / 4 &&
      flow->tx_limit < options_.buffer_max &&
      parts_.pool->HasRoom(flow->tx_limit)) {
    flow->tx_limit = std::min(flow->tx_limit * 2, options_.buffer_max);
  }
  flow->tx_limited = false;
}

// --- both ways --------------------------------------------------------------

// What the engine told. False when the flow has ended.
bool TcpForwarder::Handle(TcpFlow* flow, const TcpEvents& events,
                          Instant now) {
  if (events.acknowledged != 0) Acknowledged(flow, events.acknowledged);
  if (events.established) {
    ++stats_.established;
    Settle(flow);
    flow->state = FlowState::kOpen;
    Tell(FlowChange::kUpdated, *flow, now);
  }
  if (events.poisoned) {
    parts_.listener->OnPoisoned(flow->id,
                                parts_.engine->counters().last_assert);
    Drop(DropReason::kFlowPoisoned);
    End(flow, CloseReason::kPoisoned, now);
    return false;
  }
  if (!events.gone) return true;
  if (events.reset) {
    End(flow, CloseReason::kAppReset, now);
  } else if (flow->half_open) {
    End(flow, CloseReason::kHandshakeTimeout, now);
  } else if (events.timed_out) {
    End(flow, CloseReason::kAppTimeout, now);
  } else if (flow->up_head != nullptr) {
    return true;  // the app is done; the remote has not taken everything yet
  } else {
    ShutHostIfDone(flow);
    End(flow, CloseReason::kFinished, now);
  }
  return false;
}

void TcpForwarder::HostFailed(TcpFlow* flow, int error, Instant now) {
  End(flow, ReasonOfSocket(error), now);
}

void TcpForwarder::UpdateState(TcpFlow* flow, Instant now) {
  if (flow->half_open) return;
  if (flow->state == FlowState::kTimeWait) {
    if (flow->host_shut) CloseHost(flow, false);
    return;
  }
  if (flow->conn.pcb == nullptr && flow->host_shut) {
    return End(flow, CloseReason::kFinished, now);
  }
  if (parts_.engine->InTimeWait(flow->conn)) return EnterTimeWait(flow, now);
  const FlowState state =
      flow->conn.app_fin
          ? (flow->host_eof ? FlowState::kClosing : FlowState::kAppClosed)
          : (flow->host_eof ? FlowState::kHostClosed : FlowState::kOpen);
  // Nothing more can come or go on the host side: its descriptor is worth
  // more elsewhere.
  if (state == FlowState::kClosing && flow->host_shut) CloseHost(flow, false);
  if (state == flow->state) return;
  flow->state = state;
  Tell(FlowChange::kUpdated, *flow, now);
}

void TcpForwarder::EnterTimeWait(TcpFlow* flow, Instant now) {
  ShutHostIfDone(flow);
  // With bytes still queued for the remote, the socket has to stay a while.
  if (flow->host_shut) CloseHost(flow, false);
  flow->state = FlowState::kTimeWait;
  flow->last_active = now;
  ++stats_.time_wait;
  Tell(FlowChange::kUpdated, *flow, now);
  time_wait_.push_back({PollToken::Kind::kTcpFlow, flow->generation,
                        flow->index});
  while (time_wait_.size() > kMaxTimeWait) {
    const PollToken oldest = time_wait_.front();
    time_wait_.pop_front();
    TcpFlow* old = slab_.Find(oldest.index, oldest.generation);
    if (old != nullptr && old->state == FlowState::kTimeWait) {
      End(old, CloseReason::kFinished, now);
    }
  }
}

// The flow is no longer half-open.
void TcpForwarder::Settle(TcpFlow* flow) {
  if (!flow->half_open) return;
  flow->half_open = false;
  GateOf(flow->local).Settled(flow->key.remote);
}

void TcpForwarder::CloseHost(TcpFlow* flow, bool reset) {
  if (flow->fd >= 0) {
    const int fd = std::exchange(flow->fd, -1);
    if (flow->local) {
      parts_.dialer->sockets()->Close(fd, reset);
    } else {
      parts_.dialer->Close(fd, reset);
    }
  }
  if (flow->has_slot) {
    flow->has_slot = false;
    parts_.slots->Give();
  }
}

// Ends a flow on both sides. Whatever is not a clean end is an RST to whoever
// still listens.
void TcpForwarder::End(TcpFlow* flow, CloseReason reason, Instant now) {
  if (flow->state == FlowState::kClosed) return;
  if (flow->state == FlowState::kTimeWait) {
    --stats_.time_wait;
  } else if (flow->conn.pcb != nullptr) {
    ++stats_.resets_sent;  // which Abort() sends
  }
  flow->close_reason = reason;
  flow->state = FlowState::kClosed;
  Settle(flow);
  parts_.engine->Abort(flow->conn, flow->key);
  ++stats_.closed[static_cast<size_t>(reason)];
  Tell(FlowChange::kClosed, *flow, now);
  // Bytes that the remote will never get are no clean end either.
  CloseHost(flow,
            reason != CloseReason::kFinished || flow->up_head != nullptr);
  parts_.pool->FreeQueue(std::exchange(flow->up_head, nullptr));
  flow->up_tail = nullptr;
  flow->up_bytes = flow->up_offset = 0;
  wheel_.Disarm(&flow->timer);
  table_.erase(flow->index);
  ended_.push_back(flow);
}

void TcpForwarder::Sweep() {
  if (ended_.empty()) return;
  const auto ended = [](const TcpFlow* f) {
    return f->state == FlowState::kClosed;
  };
  for (auto* list : {&touched_, &ready_, &blocked_, &starved_}) {
    std::erase_if(*list, ended);
  }
  for (TcpFlow* flow : ended_) slab_.Free(flow);
  ended_.clear();
}

void TcpForwarder::Touch(TcpFlow* flow) {
  if (flow->in_touched) return;
  flow->in_touched = true;
  touched_.push_back(flow);
}

void TcpForwarder::MakeReady(TcpFlow* flow) {
  if (flow->in_ready) return;
  flow->in_ready = true;
  ready_.push_back(flow);
}

void TcpForwarder::OnTunWritable(Instant now) {
  parts_.writer->Unblock();
  std::vector<TcpFlow*> flows;
  flows.swap(blocked_);
  for (TcpFlow* flow : flows) {
    flow->in_blocked = false;
    if (flow->state != FlowState::kClosed) Progress(flow, now);
  }
}

void TcpForwarder::OnTurn(Instant now) {
  for (const PollToken token : std::exchange(redial_, {})) {
    TcpFlow* flow = slab_.Find(token.index, token.generation);
    if (flow != nullptr && flow->fd < 0 && !flow->waits_owner &&
        flow->state == FlowState::kDialing) {
      StartDial(flow, now);
    }
  }
  wheel_.Advance(now, [this, now](TimerNode* node) {
    // The node is a member of its flow.
    auto* flow = reinterpret_cast<TcpFlow*>(reinterpret_cast<std::byte*>(node) -
                                            offsetof(TcpFlow, timer));
    flow->timer_at = kNever;
    OnTimer(flow, now);
  });
  if (now >= memory_retry_at_) memory_retry_at_ = kNever;
  if (memory_retry_at_ == kNever && !starved_.empty() &&
      parts_.pool->HasRoom(BufferPool::kFullChunk)) {
    for (TcpFlow* flow : starved_) {
      flow->in_starved = false;
      if (flow->state != FlowState::kClosed) MakeReady(flow);
    }
    starved_.clear();
  }
  working_.swap(ready_);
  for (TcpFlow* flow : working_) flow->in_ready = false;
  for (TcpFlow* flow : touched_) {
    flow->in_touched = false;
    if (flow->state == FlowState::kClosed) continue;
    if (PumpDown(flow, now)) Progress(flow, now);
  }
  touched_.clear();
  for (TcpFlow* flow : working_) {
    if (flow->state == FlowState::kClosed) continue;
    if (PumpDown(flow, now)) Progress(flow, now);
  }
  working_.clear();
  ++turn_;
  Sweep();
  gate_.Relax(now);
  local_gate_.Relax(now);
}

Instant TcpForwarder::next_deadline(Instant now) const {
  if (!ready_.empty()) return now;
  return std::min(wheel_.next_deadline(), memory_retry_at_);
}

void TcpForwarder::OnTimer(TcpFlow* flow, Instant now) {
  if (now >= parts_.engine->Deadline(flow->conn)) {
    if (!Handle(flow, parts_.engine->Tick(flow->conn, flow->key, now), now)) {
      return;
    }
    WaitForTunIfBlocked(flow);
    UpdateState(flow, now);
    if (flow->state == FlowState::kClosed) return;
  }
  if (now < StateDeadline(*flow)) return Rearm(flow);
  switch (flow->state) {
    case FlowState::kDialing:
      parts_.dialer->GaveUp();
      return Dialed(flow, DialOutcome::kTimedOut, now);
    case FlowState::kHandshake:
      return End(flow, CloseReason::kHandshakeTimeout, now);
    case FlowState::kTimeWait:
      return End(flow, CloseReason::kFinished, now);
    default:
      return End(flow, CloseReason::kIdleTimeout, now);
  }
}

Instant TcpForwarder::StateDeadline(const TcpFlow& flow) const {
  const auto later = [this](Instant at) {
    if (options_.idle_slack == Duration::zero()) return at;
    const Duration since = at.time_since_epoch();
    const auto slots =
        (since + options_.idle_slack - Duration(1)) / options_.idle_slack;
    return Instant(options_.idle_slack * slots);
  };
  switch (flow.state) {
    case FlowState::kDialing:
      return flow.opened + options_.dial_timeout;
    case FlowState::kHandshake:
      // lwIP's own timeout ends it sooner, if it has the SYN.
      return flow.opened + 2 * options_.dial_timeout;
    case FlowState::kOpen:
      return later(flow.last_active + options_.established_idle);
    case FlowState::kTimeWait:
      return later(flow.last_active + (flow.up_head == nullptr
                                           ? options_.time_wait
                                           : options_.transitory_idle));
    default:
      return later(flow.last_active + options_.transitory_idle);
  }
}

// Moves the timer only forward in time's direction of need: a timer that fires
// too early looks again, so that traffic costs no timer work.
void TcpForwarder::Rearm(TcpFlow* flow) {
  const Instant at =
      std::min(parts_.engine->Deadline(flow->conn), StateDeadline(*flow));
  if (at >= flow->timer_at) return;
  flow->timer_at = at;
  wheel_.Arm(&flow->timer, at);
}

TcpForwarder::Moved TcpForwarder::OnNetworkChanged(
    const std::function<bool(const Endpoint& local, const Endpoint& remote)>&
        moved,
    Instant now) {
  Moved result;
  slab_.ForEach([&](TcpFlow* flow) {
    if (flow->fd < 0 || flow->local || flow->state == FlowState::kClosed) {
      return;
    }
    if (flow->state == FlowState::kDialing) {
      // Its SYN may have gone nowhere; the app need not know. Dialed again at
      // the end of the turn, when no event of the old socket can come.
      parts_.dialer->Close(std::exchange(flow->fd, -1), false);
      redial_.push_back(TokenOf(*flow));
      ++result.kept;
      return;
    }
    const Endpoint local = parts_.dialer->sockets()->LocalEndpoint(flow->fd);
    if (!moved(local, flow->key.remote)) {
      ++result.kept;
      return;
    }
    End(flow, CloseReason::kNetworkChanged, now);
    ++result.reset;
  });
  Sweep();
  return result;
}

void TcpForwarder::Shutdown(Instant now) {
  shutting_down_ = true;
  slab_.ForEach([this, now](TcpFlow* flow) {
    if (flow->state == FlowState::kDialing) {
      AnswerFailedDial(flow, DialOutcome::kOther, now);
    }
    End(flow, CloseReason::kStackStopped, now);
  });
  Sweep();
  time_wait_.clear();
}

// --- for people -------------------------------------------------------------

FlowInfo TcpForwarder::Info(const TcpFlow& flow, Instant now) const {
  FlowInfo info;
  info.id = flow.id;
  info.key = flow.key;
  info.state = flow.state;
  info.close_reason = flow.close_reason;
  info.age = now - flow.opened;
  info.idle = now - flow.last_active;
  info.outbound_bytes = flow.outbound_bytes;
  info.inbound_bytes = flow.inbound_bytes;
  info.outbound_packets = flow.outbound_packets;
  info.inbound_packets = flow.conn.packets;
  info.outbound_buffered = flow.up_bytes;
  info.inbound_buffered = flow.conn.tx_bytes;
  info.dial_time = std::chrono::microseconds(flow.dial_micros);
  if (flow.name != nullptr) info.name = *flow.name;
  return info;
}

void TcpForwarder::FillHostFacts(const TcpFlow& flow, FlowInfo& info) const {
  if (flow.fd < 0 || flow.state == FlowState::kDialing) return;
  info.upstream_local = parts_.dialer->sockets()->LocalEndpoint(flow.fd);
  info.rtt = parts_.dialer->sockets()->RoundTripTime(flow.fd);
}

void TcpForwarder::Tell(FlowChange change, const TcpFlow& flow, Instant now) {
  if (!flow_changes_) return;
  FlowInfo info = Info(flow, now);
  FillHostFacts(flow, info);
  parts_.listener->OnFlow(change, info);
}

std::vector<FlowInfo> TcpForwarder::List(const FlowFilter& filter,
                                         uint64_t after_id, size_t limit,
                                         Instant now) const {
  std::vector<FlowInfo> infos;
  if (limit == 0) return infos;
  const auto by_id = [](const FlowInfo& a, const FlowInfo& b) {
    return a.id < b.id;
  };
  // A heap of the `limit` smallest ids: memory stays bounded by the page.
  slab_.ForEach([&](const TcpFlow* flow) {
    if (flow->id <= after_id || flow->state == FlowState::kClosed) return;
    if (infos.size() == limit && flow->id > infos.front().id) return;
    FlowInfo info = Info(*flow, now);
    if (!filter.Matches(info)) return;
    if (infos.size() == limit) {
      std::pop_heap(infos.begin(), infos.end(), by_id);
      infos.pop_back();
    }
    infos.push_back(std::move(info));
    std::push_heap(infos.begin(), infos.end(), by_id);
  });
  std::sort_heap(infos.begin(), infos.end(), by_id);
  for (FlowInfo& info : infos) {
    if (const TcpFlow* flow = Find(info.key)) FillHostFacts(*flow, info);
  }
  return infos;
}

size_t TcpForwarder::Close(const FlowFilter& filter, Instant now) {
  size_t closed = 0;
  slab_.ForEach([&](TcpFlow* flow) {
    if (flow->state == FlowState::kClosed || flow->state == FlowState::kTimeWait ||
        !filter.Matches(Info(*flow, now))) {
      return;
    }
    if (flow->conn.pcb == nullptr && flow->syn != nullptr) {
      AnswerFailedDial(flow, DialOutcome::kOther, now);
    }
    End(flow, CloseReason::kClosedByRequest, now);
    ++closed;
  });
  Sweep();
  return closed;
}

TcpStats TcpForwarder::stats() const {
  TcpStats s = stats_;
  s.active = slab_.size();
  s.half_open = gate_.half_open() + local_gate_.half_open();
  s.retransmits = parts_.engine->counters().retransmits;
  s.lwip_asserts = parts_.engine->counters().asserts;
  return s;
}

size_t TcpForwarder::record_memory() const {
  return slab_.memory() + table_.capacity() * (sizeof(uint32_t) + 1);
}

}  // namespace netstack

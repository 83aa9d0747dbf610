// How this works
//
// lwIP keeps its connections ("pcbs") in global linked lists and walks them
// for every packet and every timer. Here those lists never hold more than one
// pcb: our flow table has found the flow, and its pcb is installed as the
// whole list for the length of one call. Cost per packet is therefore
// independent of the number of flows, and an idle flow costs nothing. lwIP is
// not patched; all of this uses symbols that it exports.
//
// The rules that make this right (they were read from 2.2.1's source; change
// the version and read again):
//
//  1. Every call into lwIP happens inside one Scope. It installs the pcb in
//     the list that its state belongs to, the other lists being empty, and
//     sets tcp_ticks from the time given. On leaving, the list heads tell
//     whether the pcb lives: that read-back is the only truth, since lwIP's
//     err callback comes before the free (RST), after it (abort, timers) or
//     never (SYN_RCVD, TIME_WAIT).
//  2. Callbacks only record. Nothing is sent, aborted or freed inside them.
//  3. The recv callback always takes the pbuf: lwIP's refused_data would keep
//     a pointer into the caller's packet. A delivered chain may begin with an
//     empty pbuf.
//  4. A SYN enters with empty lists: tcp_alloc(), short of memory, would
//     otherwise abort whatever flow is installed.
//  5. lwIP sees the caller's packet bytes in place only when the segment can't
//     be queued out of order (seq <= rcv_nxt); any other is copied first,
//     because the out-of-order queue keeps header and payload.
//  6. Only SYNs carry options into lwIP, checked by core/wire. lwIP honours an
//     MSS option on any segment and then trips an assertion.
//  7. Before tcp_input(), segments whose ACK lies outside
//     [lastack - snd_wnd_max, snd_nxt] are dropped (RFC 5961, section 5), and
//     those without ACK that are neither SYN nor RST: lwIP would queue their
//     payload.
//  8. pcb->mss is raised once, after the SYN, to the largest multiple of the
//     app's MSS that fits a super-segment, and never lowered: tcp_write()
//     would underflow. cwnd is opened after the handshake's ACK, because
//     tcp_process() sets it there: the TUN is a local device, not a network.
//  9. lwIP never sends a part of a segment. So it is given only as many bytes
//     as the app's window takes now (Write), and when the window shrinks
//     below a queued segment, that is split here (SplitForWindow) and not by
//     the persist timer, which waits 0.3 s. And it is given nothing while a
//     fast retransmission is kept from the TUN: tcp_write() would append the
//     new bytes to that old segment.
// 10. FIN is given to lwIP only when nothing is unsent: tcp_split_unsent_seg()
//     and retransmission can otherwise let it overtake data.
// 11. Chunks are freed by the first sequence number that lwIP still holds, not
//     by the sent callback: a partly acknowledged super-segment is
//     retransmitted whole.
// 12. tcp_close() is never called (it resets whenever the window is not at its
//     maximum): only tcp_shutdown(0, 1) and tcp_abort().
// 13. Timers run per flow and only while it is busy. lwIP's round counter is
//     static: g_timer_round counts along, so that a flow is never skipped.
//     FIN_WAIT_2, idle flows and TIME_WAIT belong to the forwarder's wheel.
// 14. The receive window starts small and grows here; it never moves its right
//     edge back. lwIP's own announcement rule compares with pcb->mss, which is
//     64 KiB here, so that the announcement is ours too.

#include "core/lwip/tcp_engine.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "core/lwip/below_tcp.h"
#include "core/lwip/heap.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/tcp.h"

namespace netstack {
namespace {

constexpr Duration kSlowInterval =
    std::chrono::milliseconds(TCP_SLOW_INTERVAL);
// Segments in flight on a local device are bounded by the window alone.
constexpr tcpwnd_size_t kOpenCongestionWindow = TCP_SND_BUF;

// lwIP's callbacks carry no engine: there is one.
TcpEngine* g_engine = nullptr;
// The listener lives as long as the process, as lwIP's state does.
tcp_pcb* g_listener = nullptr;
// lwIP's static round counter, which we can only count along with.
uint8_t g_timer_round = 0;

uint32_t TicksAt(Instant now) {
  // Never 0, which lwIP takes for "no round-trip measurement runs".
  return static_cast<uint32_t>(now.time_since_epoch() / kSlowInterval) | 1u << 31;
}

bool SeqLt(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) < 0; }

uint32_t SeqOf(const tcp_seg* seg) {
  return Load32(reinterpret_cast<const std::byte*>(&seg->tcphdr->seqno));
}

ip_addr_t ToLwip(const IpAddress& ip) {
  ip_addr_t a;
  std::memset(&a, 0, sizeof a);
  if (ip.IsV4()) {
    IP_SET_TYPE_VAL(a, IPADDR_TYPE_V4);
    std::memcpy(&ip_2_ip4(&a)->addr, ip.v4(), 4);
  } else {
    IP_SET_TYPE_VAL(a, IPADDR_TYPE_V6);
    std::memcpy(&ip_2_ip6(&a)->addr, ip.v6(), 16);
  }
  return a;
}

// What lwIP may send beyond the last acknowledged byte.
uint32_t SendWindow(const tcp_pcb* pcb) {
  return std::min<uint32_t>(pcb->snd_wnd, pcb->cwnd);
}

// Sender-side silly window avoidance (RFC 1122, 4.2.3.4): the smallest piece
// worth sending while more is queued.
uint32_t WorthSending(const tcp_pcb* pcb, uint16_t mss) {
  return std::min<uint32_t>(mss, std::max<uint32_t>(1, pcb->snd_wnd_max / 2));
}

// Whether a segment that was sent before waits in the queue of those that were
// not: its retransmission met a full TUN or a window that has shrunk.
bool AwaitsRetransmission(const tcp_pcb* pcb) {
  const tcp_seg* last = pcb->unsent;
  if (last == nullptr) return false;
  while (last->next != nullptr) last = last->next;
  return SeqOf(last) + TCP_TCPLEN(last) != pcb->snd_lbb;
}

bool IsBusy(const tcp_pcb* pcb) {
  if (pcb->unacked != nullptr || pcb->unsent != nullptr ||
      pcb->ooseq != nullptr) {
    return true;
  }
  if ((pcb->flags & TF_NAGLEMEMERR) != 0) return true;
  switch (pcb->state) {
    case SYN_RCVD:
    case FIN_WAIT_1:
    case CLOSING:
    case LAST_ACK:
      return true;
    default:
      return false;
  }
}

}  // namespace

// The pbuf over the caller's packet, and the SYN's bytes.
struct TcpEngine::RxBuffer {
  pbuf_custom custom;
  bool in_use = false;
  std::array<std::byte, 40> syn;
};

// Rule 1.
class TcpEngine::Scope {
 public:
  // `pcb` null: a SYN is about to make one.
  Scope(TcpEngine* engine, TcpConn& conn, const FlowKey& key, Instant now,
        TcpEvents& events)
      : engine_(engine), pcb_(conn.pcb) {
    engine->conn_ = &conn;
    engine->key_ = &key;
    engine->now_ = now;
    engine->events_ = &events;
    engine->output_blocked_ = false;
    engine->poisoned_ = false;
    tcp_active_pcbs = nullptr;
    tcp_tw_pcbs = nullptr;
    tcp_ticks = TicksAt(now);
    if (pcb_ != nullptr) {
      pcb_->next = nullptr;
      (pcb_->state == TIME_WAIT ? tcp_tw_pcbs : tcp_active_pcbs) = pcb_;
    }
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  // The pcb that lives now, null when lwIP has freed it.
  tcp_pcb* Survivor() const {
    if (tcp_active_pcbs != nullptr) return tcp_active_pcbs;
    return tcp_tw_pcbs;
  }

  ~Scope() {
    tcp_active_pcbs = nullptr;
    tcp_tw_pcbs = nullptr;
    engine_->conn_ = nullptr;
    engine_->key_ = nullptr;
    engine_->events_ = nullptr;
  }

 private:
  TcpEngine* const engine_;
  tcp_pcb* const pcb_;
};

// What lwIP calls. Rule 2: these record and return.
struct LwipCallbacks {
  static err_t Accept(void*, tcp_pcb* pcb, err_t) {
    // Null when tcp_alloc() failed in the listener.
    if (pcb == nullptr) return ERR_MEM;
    g_engine->events_->established = true;
    return ERR_OK;
  }
  static err_t Receive(void*, tcp_pcb*, pbuf* p, err_t) {
    if (p == nullptr) {
      g_engine->events_->app_fin = true;
    } else {
      g_engine->OnReceive(p);
    }
    return ERR_OK;
  }
  static err_t Sent(void*, tcp_pcb*, u16_t bytes) {
    g_engine->events_->acknowledged += bytes;
    return ERR_OK;
  }
  static void Error(void*, err_t error) {
    if (g_engine == nullptr || g_engine->events_ == nullptr) return;
    if (error == ERR_RST) g_engine->events_->reset = true;
    if (error == ERR_ABRT) g_engine->events_->timed_out = true;
  }
  static err_t Output(pbuf* p) {
    return static_cast<err_t>(g_engine->OnOutput(p));
  }
  static void FreeRx(pbuf*) { g_engine->OnRxFreed(); }
  static void Assert(const char* message) {
    if (g_engine != nullptr) g_engine->OnAssert(message);
  }
  static uint32_t Isn(Bytes tuple) { return g_engine->Isn(tuple); }
};

absl::StatusOr<std::unique_ptr<TcpEngine>> TcpEngine::Create(
    const Options& options, BufferPool* pool, SegmentSink* sink) {
  if (g_engine != nullptr) {
    return absl::FailedPreconditionError(
        "another TCP engine lives in this process; lwIP allows one at a time");
  }
  std::unique_ptr<TcpEngine> engine(new TcpEngine(options, pool, sink));
  g_engine = engine.get();
  SetLwipOutput(&LwipCallbacks::Output);
  if (!engine->OpenListener()) {
    return absl::ResourceExhaustedError("no memory for the TCP engine");
  }
  return engine;
}

TcpEngine::TcpEngine(const Options& options, BufferPool* pool,
                     SegmentSink* sink)
    : options_(options),
      pool_(pool),
      sink_(sink),
      failures_before_(GetLwipHeapStats().failures),
      rx_(std::make_unique<RxBuffer>()) {
  received_.reserve(64);
  output_parts_.reserve(64);
}

TcpEngine::~TcpEngine() {
  ReleaseReceived();
  if (g_engine == this) g_engine = nullptr;
}

bool TcpEngine::OpenListener() {
  if (g_listener != nullptr) return true;
  tcp_pcb* pcb = tcp_new_ip_type(IPADDR_TYPE_ANY);
  if (pcb == nullptr) return false;
  // Any port will do: Accept() writes the one that the SYN asks for.
  if (tcp_bind(pcb, IP_ANY_TYPE, 1) != ERR_OK) {
    tcp_abort(pcb);
    return false;
  }
  tcp_pcb* listener = tcp_listen(pcb);
  if (listener == nullptr) {
    tcp_abort(pcb);
    return false;
  }
  tcp_accept(listener, &LwipCallbacks::Accept);
  g_listener = listener;
  return true;
}

void TcpEngine::Configure(const Options& options) {
  options_.rx_floor = options.rx_floor;
  options_.rx_max = options.rx_max;
  options_.delayed_ack = options.delayed_ack;
}

uint16_t TcpEngine::OwnMss(const FlowKey& key) const {
  const uint32_t headers = key.app.ip.IsV4() ? 40 : 60;
  const uint32_t mss = options_.mtu > headers ? options_.mtu - headers : 0;
  return static_cast<uint16_t>(std::clamp<uint32_t>(mss, 536, TCP_MSS));
}

// --- outbound --------------------------------------------------------------

bool TcpEngine::Accept(TcpConn& c, const FlowKey& key, const SynFacts& syn,
                       Instant now) {
  ReleaseReceived();
  const uint16_t default_mss = key.app.ip.IsV4() ? 536 : 1220;
  const uint16_t mss =
      std::min(syn.options.mss.value_or(default_mss), OwnMss(key));

  // A SYN of our own making: the app's, with nothing in it but what we know.
  std::byte* h = rx_->syn.data();
  size_t size = kTcpHeaderSize;
  Store8(h + size++, 2);  // MSS
  Store8(h + size++, 4);
  Store16(h + size, mss);
  size += 2;
  if (syn.options.window_scale) {
    Store8(h + size++, 1);  // no-operation, for alignment
    Store8(h + size++, 3);  // window scale
    Store8(h + size++, 3);
    Store8(h + size++, *syn.options.window_scale);
  }
  if (syn.options.sack_permitted) {
    Store8(h + size++, 1);
    Store8(h + size++, 1);
    Store8(h + size++, 4);  // SACK permitted
    Store8(h + size++, 2);
  }
  Store16(h, key.app.port);
  Store16(h + 2, key.remote.port);
  Store32(h + 4, syn.seq);
  Store32(h + 8, 0);
  Store8(h + 12, static_cast<uint8_t>((size / 4) << 4));
  Store8(h + 13, tcp_flag::kSyn);
  Store16(h + 14, syn.window);
  Store32(h + 16, 0);  // checksum, urgent pointer

  c.rx_limit = std::min<uint32_t>(options_.rx_floor, 0xFFFF);
  c.mss = mss;

  TcpEvents events;
  Scope scope(this, c, key, now, events);  // Rule 4: c.pcb is null.
  pbuf* p = WrapRx(h, size);
  g_listener->local_port = key.remote.port;
  SetLwipAddresses(ToLwip(key.app.ip), ToLwip(key.remote.ip));
  hold_acks_ = false;
  tcp_input(p, nullptr);

  tcp_pcb* pcb = scope.Survivor();
  if (pcb == nullptr) return false;
  c.pcb = pcb;
  tcp_recv(pcb, &LwipCallbacks::Receive);
  tcp_sent(pcb, &LwipCallbacks::Sent);
  tcp_err(pcb, &LwipCallbacks::Error);
  tcp_nagle_disable(pcb);
  // Rule 8.
  pcb->mss = static_cast<u16_t>(mss * (TCP_MSS / mss));
  // Rule 14: what the SYN-ACK announced (see OnOutput), and no more.
  pcb->rcv_wnd = pcb->rcv_ann_wnd = c.rx_limit;
  pcb->rcv_ann_right_edge = pcb->rcv_nxt + c.rx_limit;
  c.blocked = output_blocked_;
  SetTimers(c, now);
  return true;
}

TcpEvents TcpEngine::Input(TcpConn& c, const FlowKey& key,
                           const TcpSegment& segment, Instant now) {
  ReleaseReceived();
  TcpEvents events;
  tcp_pcb* pcb = c.pcb;
  // When the TUN filled up in the middle of a super-segment, the app has more
  // than lwIP knows to be sent.
  uint32_t ack = segment.ack;
  if (c.blocked && SeqLt(pcb->snd_nxt, ack) && !SeqLt(pcb->snd_lbb, ack)) {
    ack = pcb->snd_nxt;
  }
  // Rule 7. SYN_RCVD checks the ACK itself and answers a wrong one with RST.
  if (!segment.Has(tcp_flag::kSyn | tcp_flag::kRst)) {
    if (!segment.Has(tcp_flag::kAck)) {
      events.drop = DropReason::kTcpBadState;
      return events;
    }
    if (pcb->state != SYN_RCVD &&
        (SeqLt(pcb->snd_nxt, ack) ||
         SeqLt(ack, pcb->lastack - pcb->snd_wnd_max))) {
      events.drop = DropReason::kTcpBlindAck;
      return events;
    }
  }

  const size_t size = kTcpHeaderSize + segment.payload.size();
  if (size > 0xFFFF) {
    events.drop = DropReason::kBadTcpHeader;
    return events;
  }
  Scope scope(this, c, key, now, events);
  pbuf* p;
  std::byte* h;
  const bool nothing_to_queue =
      segment.payload.empty() && !segment.Has(tcp_flag::kFin);
  if (nothing_to_queue || !SeqLt(pcb->rcv_nxt, segment.seq)) {
    h = segment.payload.empty()
            ? rx_->syn.data()
            : const_cast<std::byte*>(segment.payload.data()) - kTcpHeaderSize;
    p = WrapRx(h, size);
  } else {
    // Rule 5: a FIN alone is queued, too.
    p = pbuf_alloc(PBUF_RAW, static_cast<u16_t>(size), PBUF_RAM);
    if (p == nullptr) {
      events.drop = DropReason::kNoMemory;
      return events;
    }
    h = static_cast<std::byte*>(p->payload);
    if (!segment.payload.empty()) {
      std::memcpy(h + kTcpHeaderSize, segment.payload.data(),
                  segment.payload.size());
    }
  }
  // Rule 6. RFC 6093: urgent data is delivered in-band.
  Store16(h, segment.source_port);
  Store16(h + 2, segment.destination_port);
  Store32(h + 4, segment.seq);
  Store32(h + 8, ack);
  Store8(h + 12, (kTcpHeaderSize / 4) << 4);
  Store8(h + 13, segment.flags & 0x1F);
  Store16(h + 14, segment.window);
  Store32(h + 16, 0);

  SetLwipAddresses(ToLwip(key.app.ip), ToLwip(key.remote.ip));
  hold_acks_ = true;
  tcp_input(p, nullptr);
  hold_acks_ = false;

  if (events.established) {
    c.established = true;
    pcb->cwnd = kOpenCongestionWindow;  // Rule 8.
    pcb->ssthresh = kOpenCongestionWindow;
  }
  if (events.app_fin) {
    c.app_fin = true;
    // The answer to a FIN is mostly our own FIN, soon: the ACK waits for it
    // like any delayed ACK. Not in TIME_WAIT, where ours was before.
    if (segment.payload.empty() && c.ack_pending &&
        scope.Survivor() == pcb && pcb->state == CLOSE_WAIT) {
      c.ack_pending = false;
      tcp_set_flags(pcb, TF_ACK_DELAY);
    }
  }
  c.rx_pending += events.delivered;
  c.rx_unacked += events.delivered;
  Collect(c, scope, events);
  return events;
}

pbuf* TcpEngine::WrapRx(std::byte* bytes, size_t size) {
  rx_->custom.custom_free_function = &LwipCallbacks::FreeRx;
  rx_->in_use = true;
  return pbuf_alloced_custom(PBUF_RAW, static_cast<u16_t>(size), PBUF_REF,
                             &rx_->custom, bytes, static_cast<u16_t>(size));
}

void TcpEngine::OnRxFreed() { rx_->in_use = false; }

void TcpEngine::OnReceive(pbuf* p) {
  // A chain can come in pieces of at most 64 KiB.
  if (received_chain_ == nullptr) {
    received_chain_ = p;
  } else {
    // pbuf_cat() would overflow tot_len; only `next` matters to us, and
    // pbuf_free() walks it.
    pbuf* last = received_chain_;
    while (last->next != nullptr) last = last->next;
    last->next = p;
  }
  for (; p != nullptr; p = p->next) {
    if (p->len == 0) continue;
    received_.emplace_back(static_cast<const std::byte*>(p->payload), p->len);
    events_->delivered += p->len;
  }
}

void TcpEngine::ReleaseReceived() {
  if (received_chain_ == nullptr) return;
  pbuf_free(std::exchange(received_chain_, nullptr));
  received_.clear();
}

void TcpEngine::Consumed(TcpConn& c, uint32_t bytes) {
  ReleaseReceived();
  c.rx_pending -= std::min(bytes, c.rx_pending);
  if (c.pcb == nullptr) return;
  GrowWindow(c, bytes);
  ReplenishWindow(c);
}

// A sender that fills a good part of its window at once, and whose bytes left
// us at once, is held back by the window alone.
void TcpEngine::GrowWindow(TcpConn& c, uint32_t consumed) {
  if (c.rx_promised != 0 && !pool_->HasRoom(0)) {
    // Pressure: take back what is not announced yet, by not renewing it.
    const uint32_t less = std::min(c.rx_promised, c.rx_limit / 2);
    c.rx_limit -= less;
    c.rx_promised -= less;
    pool_->Unpromise(less);
    return;
  }
  const uint32_t most =
      (c.pcb->flags & TF_WND_SCALE) != 0 ? options_.rx_max : 0xFFFF;
  if (c.rx_limit >= most || c.rx_pending != 0 || consumed < c.rx_limit / 4) {
    return;
  }
  const uint32_t limit = c.rx_limit + std::min(c.rx_limit, most - c.rx_limit);
  // The floor is granted; only what lies beyond it needs the budget.
  const uint32_t promised =
      limit > options_.rx_floor ? limit - options_.rx_floor : 0;
  const uint32_t more = promised > c.rx_promised ? promised - c.rx_promised : 0;
  if (!pool_->HasRoom(more)) return;
  pool_->Promise(more);
  c.rx_promised += more;
  c.rx_limit = limit;
}

// Rule 14.
void TcpEngine::ReplenishWindow(TcpConn& c) {
  tcp_pcb* pcb = c.pcb;
  const uint32_t held = c.rx_pending + pcb->rcv_wnd;
  if (held < c.rx_limit && !c.app_fin) pcb->rcv_wnd += c.rx_limit - held;
  const uint32_t edge = pcb->rcv_nxt + pcb->rcv_wnd;
  const uint32_t gain = edge - pcb->rcv_ann_right_edge;
  if (static_cast<int32_t>(gain) <= 0) return;
  // Receiver-side silly window avoidance (RFC 1122, 4.2.3.3).
  if (gain < std::min<uint32_t>(c.rx_limit / 2, c.mss)) return;
  pcb->rcv_ann_wnd = pcb->rcv_wnd;
  // An ACK for the window's sake alone, when the sender may be waiting.
  if (gain >= c.rx_limit / 2) c.ack_pending = true;
}

// --- way back --------------------------------------------------------------

void TcpEngine::Queue(TcpConn& c, Chunk* chunk) {
  chunk->next = nullptr;
  if (c.tx_head == nullptr) {
    c.tx_head = chunk;
    c.tx_base_seq = c.pcb->snd_lbb;
  } else {
    c.tx_tail->next = chunk;
  }
  c.tx_tail = chunk;
  if (c.tx_next == nullptr) {
    c.tx_next = chunk;
    c.tx_offset = 0;
  }
  c.tx_bytes += chunk->size;
}

uint32_t TcpEngine::ChunkSize(const TcpConn& c) const {
  return c.mss * (TCP_MSS / std::max<uint32_t>(c.mss, 1));
}

TcpEvents TcpEngine::Finish(TcpConn& c, const FlowKey& key, Instant now) {
  ReleaseReceived();
  TcpEvents events;
  if (c.pcb == nullptr) return events;
  Scope scope(this, c, key, now, events);
  tcp_pcb* pcb = c.pcb;
  // RFC 9293, 3.8.6.3: an ACK for at least every second full segment. lwIP
  // counts calls, and one call may be 44 segments here.
  if ((pcb->flags & TF_ACK_DELAY) != 0 && c.rx_unacked >= 2u * c.mss) {
    c.ack_pending = true;
  }
  if (c.ack_pending) tcp_set_flags(pcb, TF_ACK_NOW);
  if (AwaitsRetransmission(pcb)) tcp_output(pcb);
  Write(c);
  do {
    tcp_output(pcb);
  } while (!output_blocked_ && SplitForWindow(c));
  // Rule 10.
  if (c.fin_wanted && !c.fin_queued && c.established && c.tx_next == nullptr &&
      pcb->unsent == nullptr &&
      (pcb->state == ESTABLISHED || pcb->state == CLOSE_WAIT)) {
    c.fin_queued = tcp_shutdown(pcb, 0, 1) == ERR_OK;
    if ((pcb->flags & TF_CLOSEPEND) != 0) {
      // Without memory lwIP would try again by itself, and put the FIN on
      // whatever is unsent then.
      tcp_clear_flags(pcb, TF_CLOSEPEND);
      c.fin_queued = false;
      c.starved = true;
    }
  }
  c.ack_pending = false;
  Collect(c, scope, events);
  return events;
}

// Rule 9: lwIP gets what the window takes, in multiples of the app's MSS while
// there is more.
void TcpEngine::Write(TcpConn& c) {
  tcp_pcb* pcb = c.pcb;
  c.starved = false;
  if (!c.established ||
      (pcb->state != ESTABLISHED && pcb->state != CLOSE_WAIT) ||
      AwaitsRetransmission(pcb)) {
    return;
  }
  while (c.tx_next != nullptr) {
    const uint32_t window = SendWindow(pcb);
    const uint32_t held = pcb->snd_lbb - pcb->lastack;
    const uint32_t usable = window > held ? window - held : 0;
    uint32_t n = std::min<uint32_t>(c.tx_next->size - c.tx_offset, 0xFFFF);
    if (n > usable) {
      if (usable >= WorthSending(pcb, c.mss)) {
        n = usable < c.mss ? usable : std::min(n, usable - usable % c.mss);
      } else if (held == 0) {
        // Starts lwIP's persist timer. No larger than lwIP's segments, which
        // grow with the window: it asserts that its last one is not.
        n = std::min(n, WorthSending(pcb, c.mss));
      } else {
        return;
      }
    }
    n = std::min<uint32_t>(n, pcb->snd_buf);
    if (n == 0) return;
    if (tcp_write(pcb, c.tx_next->data() + c.tx_offset, static_cast<u16_t>(n),
                  0) != ERR_OK) {
      c.starved = true;  // the timer tries again
      return;
    }
    c.tx_offset += n;
    if (c.tx_offset == c.tx_next->size) {
      c.tx_next = c.tx_next->next;
      c.tx_offset = 0;
    }
  }
}

// Whether tcp_output() is worth calling again.
bool TcpEngine::SplitForWindow(TcpConn& c) {
  tcp_pcb* pcb = c.pcb;
  const tcp_seg* head = pcb->unsent;
  if (head == nullptr || head->len == 0) return false;
  // What of the segment lies inside the window. Its start can be acknowledged
  // already, when it is sent again.
  const uint32_t room = pcb->lastack + SendWindow(pcb) - SeqOf(head);
  const uint32_t usable = static_cast<int32_t>(room) > 0 ? room : 0;
  if (head->len <= usable) return false;  // not the window's fault
  if (usable < WorthSending(pcb, c.mss)) return false;
  const uint32_t keep = usable < c.mss ? usable : usable - usable % c.mss;
  return tcp_split_unsent_seg(pcb, static_cast<u16_t>(keep)) == ERR_OK;
}

int TcpEngine::OnOutput(pbuf* p) {
  const auto* h = static_cast<const std::byte*>(p->payload);
  const size_t header_size = static_cast<size_t>(Load8(h + 12) >> 4) * 4;
  const uint8_t flags = Load8(h + 13);
  const size_t payload_size = p->tot_len - header_size;

  if (hold_acks_ && payload_size == 0 && flags == tcp_flag::kAck) {
    // Finish() sends one for everything that happens until then.
    conn_->ack_pending = true;
    return ERR_OK;
  }
  if (payload_size != 0 && conn_->pcb != nullptr &&
      SeqLt(Load32(h + 4), conn_->pcb->snd_nxt)) {
    ++counters_.retransmits;
  }

  std::array<std::byte, 60> syn_ack;
  InboundSegment segment;
  segment.key = key_;
  segment.header = {h, header_size};
  if ((flags & tcp_flag::kSyn) != 0) {
    // lwIP writes TCP_MSS and TCP_WND; what we mean is the TUN's MSS and the
    // window that the flow starts with.
    std::memcpy(syn_ack.data(), h, header_size);
    Store16(syn_ack.data() + 14, static_cast<uint16_t>(conn_->rx_limit));
    if (header_size >= 24 && Load8(h + 20) == 2) {
      Store16(syn_ack.data() + 22, OwnMss(*key_));
    }
    segment.header = {syn_ack.data(), header_size};
  }
  output_parts_.clear();
  size_t skip = header_size;
  for (const pbuf* q = p; q != nullptr; q = q->next) {
    if (q->len > skip) {
      output_parts_.emplace_back(
          static_cast<const std::byte*>(q->payload) + skip, q->len - skip);
    }
    skip -= std::min<size_t>(skip, q->len);
  }
  segment.payload = output_parts_;
  segment.payload_size = payload_size;
  segment.mss = conn_->mss;
  if (!sink_->SendSegment(segment)) {
    output_blocked_ = true;
    return ERR_MEM;
  }
  ++conn_->packets;
  if ((flags & tcp_flag::kAck) != 0) {
    conn_->ack_pending = false;
    conn_->rx_unacked = 0;
  }
  return ERR_OK;
}

// --- life ------------------------------------------------------------------

Instant TcpEngine::Deadline(const TcpConn& c) const {
  return std::min(c.ack_due, c.slow_due);
}

TcpEvents TcpEngine::Tick(TcpConn& c, const FlowKey& key, Instant now) {
  TcpEvents events;
  if (c.pcb == nullptr) return events;
  // Rule 13.
  if (now >= c.ack_due) {
    c.ack_due = kNever;
    Scope scope(this, c, key, now, events);
    c.pcb->last_timer = g_timer_round;
    tcp_fasttmr();
    ++g_timer_round;
    // lwIP forgets an ACK that was not taken.
    if (output_blocked_) c.ack_pending = true;
    Collect(c, scope, events);
    if (events.gone) return events;
  }
  if (now >= c.slow_due) {
    c.slow_due = kNever;
    {
      Scope scope(this, c, key, now, events);
      c.pcb->last_timer = g_timer_round;
      // A late ACK can empty the queue behind lwIP's persist timer, which
      // lwIP then asserts.
      if (c.pcb->unsent == nullptr) c.pcb->persist_backoff = 0;
      TakeBackRetransmission(c.pcb);
      tcp_ticks = TicksAt(now) - 1;
      tcp_slowtmr();
      ++g_timer_round;
      Collect(c, scope, events);
    }
    // What is to be sent again may have to be split first.
    if (!events.gone && (c.starved || c.pcb->unsent != nullptr)) {
      const TcpEvents more = Finish(c, key, now);
      events.gone = more.gone;
    }
  }
  return events;
}

// lwIP's retransmission timer puts what is unacknowledged in front of what is
// unsent, which is wrong for a fast retransmission that was kept from the TUN.
void TcpEngine::TakeBackRetransmission(tcp_pcb* pcb) {
  if (pcb->unsent == nullptr || pcb->unacked == nullptr ||
      !SeqLt(SeqOf(pcb->unsent), SeqOf(pcb->unacked))) {
    return;
  }
  tcp_seg* seg = pcb->unsent;
  pcb->unsent = seg->next;
  seg->next = pcb->unacked;
  pcb->unacked = seg;
}

// Rule 1, on the way out: who lives, what may be freed, what is due.
void TcpEngine::Collect(TcpConn& c, Scope& scope, TcpEvents& events) {
  if (poisoned_) events.poisoned = true;
  if (scope.Survivor() != c.pcb) {
    c.pcb = nullptr;
    events.gone = true;
    ReleaseAll(c);
    return;
  }
  c.blocked = output_blocked_;
  Release(c);
  SetTimers(c, now_);
}

void TcpEngine::SetTimers(TcpConn& c, Instant now) {
  const tcp_pcb* pcb = c.pcb;
  if ((pcb->flags & TF_ACK_DELAY) == 0) {
    c.ack_due = kNever;
  } else if (c.ack_due == kNever) {
    c.ack_due = now + options_.delayed_ack;
  }
  if (!IsBusy(pcb) && !c.starved) {
    c.slow_due = kNever;
  } else if (c.slow_due == kNever) {
    c.slow_due = now + kSlowInterval;
  }
}

// Rule 11.
void TcpEngine::Release(TcpConn& c) {
  if (c.tx_head == nullptr) return;
  const tcp_pcb* pcb = c.pcb;
  uint32_t first = pcb->snd_lbb;
  for (const tcp_seg* seg : {pcb->unacked, pcb->unsent}) {
    if (seg != nullptr && SeqLt(SeqOf(seg), first)) first = SeqOf(seg);
  }
  while (c.tx_head != nullptr && c.tx_head != c.tx_next) {
    Chunk* head = c.tx_head;
    if (SeqLt(first, c.tx_base_seq + head->size)) return;
    c.tx_base_seq += head->size;
    c.tx_bytes -= head->size;
    c.tx_head = head->next;
    pool_->Free(head);
  }
  if (c.tx_head == nullptr) c.tx_tail = nullptr;
}

void TcpEngine::ReleaseAll(TcpConn& c) {
  pool_->FreeQueue(c.tx_head);
  pool_->Unpromise(c.rx_promised);
  c.tx_head = c.tx_tail = c.tx_next = nullptr;
  c.tx_offset = c.tx_bytes = c.rx_promised = 0;
  c.blocked = c.starved = c.ack_pending = false;
  c.ack_due = c.slow_due = kNever;
}

void TcpEngine::Abort(TcpConn& c, const FlowKey& key) {
  ReleaseReceived();
  if (c.pcb == nullptr) return;
  TcpEvents events;
  {
    Scope scope(this, c, key, now_, events);
    tcp_abort(c.pcb);
  }
  c.pcb = nullptr;
  ReleaseAll(c);
}

bool TcpEngine::InTimeWait(const TcpConn& c) const {
  return c.pcb != nullptr && c.pcb->state == TIME_WAIT;
}

bool TcpEngine::MayReuse(const TcpConn& c, uint32_t syn_seq) const {
  return InTimeWait(c) && SeqLt(c.pcb->rcv_nxt, syn_seq);
}

uint64_t TcpEngine::allocation_failures() const {
  return GetLwipHeapStats().failures - failures_before_;
}

void TcpEngine::OnAssert(const char* message) {
  if (options_.abort_on_assert) {
    std::fprintf(stderr, "lwIP assertion failed: %s\n", message);
    std::abort();
  }
  ++counters_.asserts;
  counters_.last_assert = message;
  poisoned_ = true;
}

// RFC 6528: ISN = M + F(tuple, secret), M advancing every 4 microseconds.
uint32_t TcpEngine::Isn(Bytes tuple) const {
  const auto m = now_.time_since_epoch() / std::chrono::microseconds(4);
  return static_cast<uint32_t>(m) +
         static_cast<uint32_t>(SipHash24(options_.isn_key, tuple));
}

}  // namespace netstack

extern "C" {

void netstack_lwip_assert_failed(const char* message) {
  netstack::LwipCallbacks::Assert(message);
}

u32_t netstack_lwip_isn(const ip_addr_t* local_ip, u16_t local_port,
                        const ip_addr_t* remote_ip, u16_t remote_port) {
  std::array<std::byte, 37> tuple{};
  auto put = [&tuple](size_t at, const ip_addr_t* ip) {
    if (IP_IS_V6_VAL(*ip)) {
      std::memcpy(tuple.data() + at, ip_2_ip6(ip)->addr, 16);
    } else {
      std::memcpy(tuple.data() + at, &ip_2_ip4(ip)->addr, 4);
    }
  };
  put(0, local_ip);
  put(16, remote_ip);
  netstack::Store16(tuple.data() + 32, local_port);
  netstack::Store16(tuple.data() + 34, remote_port);
  tuple[36] = static_cast<std::byte>(IP_IS_V6_VAL(*local_ip));
  return netstack::LwipCallbacks::Isn(tuple);
}

}  // extern "C"

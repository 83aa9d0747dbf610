// TCP through lwIP, stateful: "receive a segment | host bytes | consume |
// advance time | memory fails | the TUN is full", with a caller that keeps to
// the API of core/lwip/tcp_engine.h.
//
// Whatever comes in: bytes are delivered at their places and no others, what
// is sent carries the right bytes at its sequence numbers, memory is accounted
// for, and nothing is left at the end.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "core/lwip/heap.h"
#include "core/lwip/tcp_engine.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/fuzz/tcp_steps.h"

namespace netstack::fuzz {
namespace {

constexpr size_t kFlows = 3;
constexpr uint32_t kMostQueued = 1 << 20;

struct Flow {
  FlowKey key;
  TcpConn conn;
  uint32_t isn = 0;  // the app's
  uint32_t our_isn = 0;
  uint32_t delivered = 0;
  uint32_t pending = 0;         // delivered, not consumed
  uint32_t queued = 0;          // inbound bytes so far
  uint32_t last_ack_place = 0;  // of them acknowledged
  uint32_t sent_end = 0;        // the highest sequence number sent, behind it
  uint32_t edge = 0;            // highest right edge of the window announced
  bool scaled = false;
  bool shut = false;
  bool fin = false;
};

class World final : public SegmentSink {
 public:
  explicit World(Steps steps) : steps_(steps), pool_(256 * 1024) {
    TcpEngine::Options o;
    const uint8_t b = steps_.U8();
    o.mtu = (b & 1) != 0 ? 1500 : (b & 2) != 0 ? 65'535 : 1280;
    o.rx_floor = (b & 4) != 0 ? 16 * 1024 : 64 * 1024;
    o.rx_max = 256 * 1024;
    o.isn_key = {b, 1};
    o.abort_on_assert = AbortOnAssert();
    auto engine = TcpEngine::Create(o, &pool_, this);
    FUZZ_CHECK(engine.ok());
    engine_ = *std::move(engine);
    live_ = GetLwipHeapStats().live;
    for (size_t i = 0; i < kFlows; ++i) {
      const bool v4 = i != 1;
      Flow& f = flows_[i];
      f.key.app = {v4 ? IpAddress::V4(10, 0, 0, 2) : *IpAddress::Parse("fd::2"),
                   static_cast<uint16_t>(1000 + i)};
      f.key.remote = {
          v4 ? IpAddress::V4(192, 0, 2, 1) : *IpAddress::Parse("fd::1"), 80};
    }
  }

  void Run() {
    for (int step = 0; step < 600 && !steps_.done(); ++step) Step();
    SetLwipAllocationFaults(0);
    room_ = -1;
    for (Flow& f : flows_) engine_->Abort(f.conn, f.key);
    FUZZ_CHECK(pool_.used() == 0);
    FUZZ_CHECK(pool_.HasRoom(pool_.budget()));
    FUZZ_CHECK(GetLwipHeapStats().live == live_);
  }

  // What the engine sends has the right bytes in the right places.
  bool SendSegment(const InboundSegment& s) override {
    if (room_ == 0) return false;
    if (room_ > 0) --room_;
    const auto flow =
        std::find_if(flows_.begin(), flows_.end(),
                     [&s](const Flow& f) { return &f.key == s.key; });
    FUZZ_CHECK(flow != flows_.end());
    FUZZ_CHECK(s.header.size() >= 20 && s.header.size() <= 60);
    const uint32_t seq = Load32(&s.header[4]);
    const uint8_t flags = Load8(&s.header[13]);
    FUZZ_CHECK(Load16(&s.header[0]) == flow->key.remote.port);
    FUZZ_CHECK(Load16(&s.header[2]) == flow->key.app.port);
    size_t size = 0;
    for (const Bytes& part : s.payload) size += part.size();
    FUZZ_CHECK(size == s.payload_size);
    FUZZ_CHECK(size <= 65'475);
    if ((flags & tcp_flag::kSyn) != 0) {
      flow->our_isn = seq;
      flow->sent_end = seq + 1;
      return true;
    }
    if ((flags & tcp_flag::kRst) != 0) return true;
    if (engine_->counters().asserts != asserts_) return true;  // poisoned now
    CheckWindow(*flow, s);
    uint32_t place = seq - flow->our_isn - 1;
    for (const Bytes& part : s.payload) {
      for (const std::byte b : part) {
        FUZZ_CHECK(static_cast<uint8_t>(b) == StreamByte(place, true));
        ++place;
      }
    }
    if (size != 0) FUZZ_CHECK(place <= flow->queued);
    if ((flags & tcp_flag::kFin) != 0) {
      FUZZ_CHECK(flow->shut);
      FUZZ_CHECK(place == flow->queued);  // behind the last byte
      ++place;
    }
    const uint32_t end = flow->our_isn + 1 + place;
    if (static_cast<int32_t>(end - flow->sent_end) > 0) flow->sent_end = end;
    return true;
  }

 private:
  // The right edge never moves back by more than the scale rounds.
  void CheckWindow(Flow& f, const InboundSegment& s) {
    const uint32_t edge =
        Load32(&s.header[8]) +
        (uint32_t{Load16(&s.header[14])} << (f.scaled ? 7 : 0));
    FUZZ_CHECK(static_cast<int32_t>(edge - f.edge) >= -128);
    if (static_cast<int32_t>(edge - f.edge) > 0) f.edge = edge;
  }

  void Step() {
    const uint8_t op = steps_.U8();
    Flow& f = flows_[(op >> 5) % kFlows];
    // Reading steps among a call's arguments would leave their order open.
    uint32_t place = 0;
    switch (op & 31) {
      case 0:
      case 1:
        return Syn(f);
      case 2:  // the handshake's ACK
        return Receive(f, f.delivered, f.our_isn + 1, tcp_flag::kAck,
                       steps_.Size());
      case 3:
      case 4:
      case 5:
      case 6:  // next in order, everything acknowledged
        return Receive(f, f.delivered, f.sent_end, tcp_flag::kAck,
                       steps_.Size());
      case 7:
      case 8:  // ahead
        place = f.delivered + steps_.Size();
        return Receive(f, place, f.sent_end, tcp_flag::kAck, steps_.Size());
      case 9:  // behind
        place = f.delivered - steps_.U8();
        return Receive(f, place, f.sent_end, tcp_flag::kAck, steps_.Size());
      case 10:
      case 11:  // acknowledges a part
        return Receive(f, f.delivered, f.sent_end - steps_.Size(),
                       tcp_flag::kAck, 0);
      case 12:  // the same again
        for (int i = 0; i < 4; ++i) {
          Receive(f, f.delivered, LastAck(f), tcp_flag::kAck, 0);
        }
        return;
      case 13:
        return Receive(f, f.delivered, f.sent_end,
                       tcp_flag::kAck | tcp_flag::kFin, steps_.Size());
      case 14:
        return Receive(f, f.delivered + steps_.U8(), f.sent_end,
                       tcp_flag::kAck | tcp_flag::kFin, 0);
      case 15: {  // anything
        place = f.delivered + steps_.U32();
        const uint32_t ack = f.sent_end + steps_.U32();
        const uint8_t flags = steps_.U8() & 0x3F;
        return Receive(f, place, ack, flags, steps_.U8());
      }
      case 16:
        return Receive(f, f.delivered + (steps_.U8() & 3), f.sent_end,
                       tcp_flag::kRst, 0);
      case 17:
        window_ = steps_.U16();
        return;
      case 18:
        window_ = steps_.U8() & 15;
        return;
      case 19:
      case 20:
      case 21:
        return HostBytes(f, steps_.Size());
      case 22:
        engine_->Shutdown(f.conn);
        f.shut = true;
        return Finish(f);
      case 23:
        Consume(f, steps_.Size());
        return Finish(f);
      case 24:
        consume_ = !consume_;
        return;
      case 25:
        finish_ = !finish_;
        return;
      case 26:
        return Advance(std::chrono::milliseconds(steps_.U8()));
      case 27:
      case 28:
        return Advance(std::chrono::milliseconds(100) * steps_.U8());
      case 29:
        room_ = (steps_.U8() & 7) - 1;
        return Finish(f);
      case 30: {
        const uint8_t n = steps_.U8();
        SetLwipAllocationFaults(n < 128 ? 0 : n & 15);
        return;
      }
      default:
        engine_->Abort(f.conn, f.key);
        return;
    }
  }

  static uint32_t LastAck(const Flow& f) {
    return f.our_isn + 1 + (f.queued == 0 ? 0 : f.last_ack_place);
  }

  void Syn(Flow& f) {
    const uint8_t b = steps_.U8();
    if (f.conn.pcb != nullptr) {
      return Receive(f, 0u - 1, 0, tcp_flag::kSyn, 0);
    }
    const FlowKey key = f.key;
    f = Flow{};
    f.key = key;
    // So that places repeat for every connection, see StreamByte().
    f.isn = uint32_t{b} << 24;
    SynFacts syn;
    syn.seq = f.isn;
    syn.window = (b & 1) != 0 ? window_ : uint16_t{65'535};
    if ((b & 2) != 0) {
      syn.options.mss = static_cast<uint16_t>(536 + steps_.U8() * 40);
    }
    if ((b & 4) != 0) {
      syn.options.window_scale = steps_.U8() % 15;
      f.scaled = true;
    }
    syn.options.sack_permitted = (b & 8) != 0;
    f.edge = f.isn + 1;
    if (engine_->Accept(f.conn, f.key, syn, now_)) {
      FUZZ_CHECK(f.conn.pcb != nullptr);
    } else {
      FUZZ_CHECK(f.conn.pcb == nullptr);
    }
    asserts_ = engine_->counters().asserts;
  }

  // A segment whose payload begins at `place` of the app's stream.
  void Receive(Flow& f, uint32_t place, uint32_t ack, uint8_t flags,
               uint32_t size) {
    if (f.conn.pcb == nullptr) return;
    // In a block of exactly its size, which is gone afterwards.
    const size_t whole = kTcpHeaderSize + size;
    const auto block = std::make_unique<std::byte[]>(whole);
    for (uint32_t i = 0; i < size; ++i) {
      block[kTcpHeaderSize + i] =
          static_cast<std::byte>(StreamByte(place + i, false));
    }
    TcpSegment s;
    s.source_port = f.key.app.port;
    s.destination_port = f.key.remote.port;
    s.seq = f.isn + 1 + place;
    s.ack = ack;
    s.flags = flags;
    s.window = window_;
    s.payload = {block.get() + kTcpHeaderSize, size};
    TcpEvents e = engine_->Input(f.conn, f.key, s, now_);
    if (e.drop) return;
    uint32_t n = 0;
    for (const Bytes& part : engine_->received()) {
      for (const std::byte b : part) {
        FUZZ_CHECK(e.poisoned || static_cast<uint8_t>(b) ==
                                     StreamByte(f.delivered + n, false));
        ++n;
      }
    }
    FUZZ_CHECK(n == e.delivered);
    FUZZ_CHECK(n == 0 || !f.fin);
    f.fin |= e.app_fin;
    f.delivered += n;
    f.pending += n;
    if (consume_) {
      Consume(f, f.pending);
    } else {
      engine_->Consumed(f.conn, 0);
    }
    After(f, e);
    if (finish_ || n == 0) Finish(f);
  }

  void Consume(Flow& f, uint32_t n) {
    n = std::min(n, f.pending);
    f.pending -= n;
    engine_->Consumed(f.conn, n);
  }

  void HostBytes(Flow& f, uint32_t size) {
    if (f.conn.pcb == nullptr || f.shut ||
        f.conn.tx_bytes + size > kMostQueued) {
      return;
    }
    size = std::max(size, 1u);
    Chunk* chunk = pool_.Allocate(size);
    FUZZ_CHECK(chunk != nullptr);
    for (uint32_t i = 0; i < size; ++i) {
      chunk->data()[i] = static_cast<std::byte>(StreamByte(f.queued + i, true));
    }
    chunk->size = size;
    f.queued += size;
    engine_->Queue(f.conn, chunk);
    Finish(f);
  }

  void Finish(Flow& f) {
    const TcpEvents e = engine_->Finish(f.conn, f.key, now_);
    After(f, e);
  }

  void Advance(Duration d) {
    const Instant end = now_ + d;
    for (Flow& f : flows_) {
      Instant t = now_;
      for (int i = 0; i < 100; ++i) {
        const Instant due = engine_->Deadline(f.conn);
        if (due > end) break;
        FUZZ_CHECK(f.conn.pcb != nullptr);
        t = std::max(t, due);
        After(f, engine_->Tick(f.conn, f.key, t));
      }
    }
    now_ = end;
  }

  void After(Flow& f, const TcpEvents& e) {
    FUZZ_CHECK(!e.gone || f.conn.pcb == nullptr);
    FUZZ_CHECK(!e.reset || e.gone);
    if (f.conn.pcb == nullptr) {
      FUZZ_CHECK(f.conn.tx_head == nullptr && f.conn.tx_bytes == 0);
      FUZZ_CHECK(engine_->Deadline(f.conn) == kNever);
    }
    f.last_ack_place += e.acknowledged;
    if (e.poisoned) {
      engine_->Abort(f.conn, f.key);
      FUZZ_CHECK(f.conn.pcb == nullptr);
    }
    asserts_ = engine_->counters().asserts;
    FUZZ_CHECK(f.last_ack_place <= f.queued);
    CheckPool();
  }

  // The pool knows of what the flows hold, and of nothing else.
  void CheckPool() {
    uint64_t held = 0;
    for (const Flow& f : flows_) {
      uint64_t bytes = 0;
      for (const Chunk* c = f.conn.tx_head; c != nullptr; c = c->next) {
        held += c->capacity;
        bytes += c->size;
      }
      FUZZ_CHECK(bytes == f.conn.tx_bytes);
    }
    FUZZ_CHECK(pool_.used() == held);
  }

  Steps steps_;
  BufferPool pool_;
  std::unique_ptr<TcpEngine> engine_;
  std::array<Flow, kFlows> flows_;
  Instant now_{std::chrono::hours(1)};
  uint16_t window_ = 65'535;
  bool consume_ = true;
  bool finish_ = true;
  int room_ = -1;
  uint64_t live_ = 0;
  uint64_t asserts_ = 0;
};

}  // namespace
}  // namespace netstack::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  netstack::fuzz::World(netstack::fuzz::Steps(data, size)).Run();
  return 0;
}

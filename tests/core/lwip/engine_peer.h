// The TCP engine with one scripted app per flow: segments are made by hand,
// what the engine sends is recorded.
//
//   Engine e;
//   Peer app(&e);
//   app.Connect();
//   app.Send("hello");                       // the engine delivers it
//   EXPECT_EQ(app.got, "hello");
//   app.Queue("world");                      // the host's bytes
//   EXPECT_EQ(app.TakeSent().at(0).payload, "world");
#ifndef TESTS_CORE_LWIP_ENGINE_PEER_H_
#define TESTS_CORE_LWIP_ENGINE_PEER_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/flow/buffer_pool.h"
#include "core/lwip/heap.h"
#include "core/lwip/tcp_engine.h"
#include "gtest/gtest.h"
#include "lwip/priv/tcp_priv.h"
#include "tests/core/wire/test_packets.h"

namespace netstack::test {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A segment towards the app, taken apart by hand.
struct Sent {
  uint32_t seq = 0;
  uint32_t ack = 0;
  uint8_t flags = 0;
  uint16_t window = 0;  // as on the wire
  ByteVector options;
  std::string payload;
  uint16_t mss = 0;

  bool Has(uint8_t f) const { return (flags & f) != 0; }
  uint32_t End() const {
    return seq + static_cast<uint32_t>(payload.size()) +
           (Has(tcp_flag::kSyn) ? 1 : 0) + (Has(tcp_flag::kFin) ? 1 : 0);
  }
};

class RecordingSink final : public SegmentSink {
 public:
  bool SendSegment(const InboundSegment& segment) override {
    if (room == 0) return false;
    if (room > 0) --room;
    const Bytes h = segment.header;
    EXPECT_GE(h.size(), 20u);
    EXPECT_EQ(h.size(), (Load8(&h[12]) >> 4) * 4u);
    EXPECT_EQ(Load16(&h[0]), segment.key->remote.port);
    EXPECT_EQ(Load16(&h[2]), segment.key->app.port);
    EXPECT_EQ(Load16(&h[16]), 0) << "checksum field";
    Sent s;
    s.seq = Load32(&h[4]);
    s.ack = Load32(&h[8]);
    s.flags = Load8(&h[13]);
    s.window = Load16(&h[14]);
    s.options.assign(h.begin() + 20, h.end());
    for (const Bytes& part : segment.payload) {
      s.payload.append(reinterpret_cast<const char*>(part.data()), part.size());
    }
    EXPECT_EQ(s.payload.size(), segment.payload_size);
    s.mss = segment.mss;
    sent[segment.key->app.port].push_back(std::move(s));
    return true;
  }

  // Segments that are taken until the sink is full; negative: no end.
  int64_t room = -1;
  std::map<uint16_t, std::vector<Sent>> sent;  // by the app's port
};

struct Engine {
  static TcpEngine::Options Defaults() {
    TcpEngine::Options o;
    o.isn_key = {1, 2};
    o.abort_on_assert = true;
    return o;
  }
  explicit Engine(const TcpEngine::Options& options = Defaults(),
                  uint64_t budget = 0)
      : pool(budget) {
    auto made = TcpEngine::Create(options, &pool, &sink);
    EXPECT_TRUE(made.ok()) << made.status();
    if (made.ok()) tcp = *std::move(made);
  }

  BufferPool pool;
  RecordingSink sink;
  std::unique_ptr<TcpEngine> tcp;
  Instant now{std::chrono::hours(1)};
};

// The app of one flow, and what the forwarder does for it.
class Peer {
 public:
  explicit Peer(Engine* engine, const Family& family = kV4,
                uint16_t port = 40000)
      : e(engine) {
    key.app = {family.app, port};
    key.remote = {family.remote, 80};
    TakeSent();  // what a peer of the same port has left
  }
  ~Peer() { e->tcp->Abort(conn, key); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  // --- the app ---

  // SYN; false when the engine had no memory. The SYN-ACK is taken off the
  // record.
  bool Syn() {
    SynFacts syn;
    syn.seq = seq++;
    syn.window = static_cast<uint16_t>(std::min<uint32_t>(window, 0xFFFF));
    syn.options = options;
    if (!e->tcp->Accept(conn, key, syn, e->now)) return false;
    const std::vector<Sent> answer = TakeSent();
    if (answer.empty()) return true;  // the sink was full
    syn_ack = answer.at(0);
    ack = syn_ack.seq + 1;
    return true;
  }
  TcpEvents Connect() {
    EXPECT_TRUE(Syn());
    EXPECT_TRUE(syn_ack.Has(tcp_flag::kSyn));
    const TcpEvents events = Segment(tcp_flag::kAck);
    EXPECT_TRUE(events.established);
    EXPECT_TRUE(TakeSent().empty());
    return events;
  }
  // In-order payload.
  TcpEvents Send(absl::string_view payload, uint8_t flags = tcp_flag::kAck) {
    const uint32_t at = seq;
    seq += static_cast<uint32_t>(payload.size());
    if ((flags & tcp_flag::kFin) != 0) ++seq;
    return SegmentAt(at, flags, payload);
  }
  TcpEvents Segment(uint8_t flags) { return SegmentAt(seq, flags, ""); }
  // Input(), the host taking what `consume` allows, Finish(). The packet's
  // buffer is exactly as long as it is and dead afterwards.
  TcpEvents SegmentAt(uint32_t at, uint8_t flags, absl::string_view payload) {
    TcpEvents events = InputAt(at, flags, payload);
    if (!events.drop) {
      e->tcp->Consumed(conn, std::min(consume, events.delivered));
      Finish();
    }
    return events;
  }
  // Input() alone; the buffer is overwritten and freed by Finish().
  TcpEvents InputAt(uint32_t at, uint8_t flags, absl::string_view payload) {
    EXPECT_EQ(packet, nullptr) << "Finish() first";
    packet_size = kTcpHeaderSize + payload.size();
    packet = std::make_unique<std::byte[]>(packet_size);
    std::memcpy(packet.get() + kTcpHeaderSize, payload.data(), payload.size());
    TcpSegment s;
    s.source_port = key.app.port;
    s.destination_port = key.remote.port;
    s.seq = at;
    s.ack = (flags & tcp_flag::kAck) != 0 ? ack : 0;
    s.flags = flags;
    s.window = Window();
    s.options = extra_options;
    s.payload = {packet.get() + kTcpHeaderSize, payload.size()};
    const TcpEvents events = e->tcp->Input(conn, key, s, e->now);
    if (events.drop) {
      packet.reset();
      return events;
    }
    Note(events);
    for (const Bytes& part : e->tcp->received()) {
      got.append(reinterpret_cast<const char*>(part.data()), part.size());
    }
    return events;
  }
  // Acknowledges everything that was sent so far.
  TcpEvents AckAll() {
    for (const Sent& s : TakeSent()) Take(s);
    return Segment(tcp_flag::kAck);
  }
  // As a receiver does: in-order payload and FIN are kept, `ack` moves.
  void Take(const Sent& s) {
    if (static_cast<int32_t>(ack - s.seq) < 0) return;  // a hole
    const uint32_t known = ack - s.seq;
    if (known < s.payload.size()) {
      stream += s.payload.substr(known);
      ack = s.seq + static_cast<uint32_t>(s.payload.size());
    }
    if (s.Has(tcp_flag::kFin) && ack == s.End() - 1) {
      ++ack;
      fin = true;
    }
  }
  // The window field of our segments for `window` bytes.
  uint16_t Window() const {
    const uint32_t w = options.window_scale && !syn_only
                           ? window >> *options.window_scale
                           : window;
    return static_cast<uint16_t>(std::min<uint32_t>(w, 0xFFFF));
  }

  // --- the host ---

  TcpEvents Queue(absl::string_view bytes) {
    while (!bytes.empty()) {
      const size_t n = std::min<size_t>(bytes.size(), e->tcp->ChunkSize(conn));
      Chunk* chunk = e->pool.Allocate(static_cast<uint32_t>(n));
      std::memcpy(chunk->room().data(), bytes.data(), n);
      chunk->size = static_cast<uint32_t>(n);
      e->tcp->Queue(conn, chunk);
      bytes.remove_prefix(n);
    }
    return Finish();
  }
  TcpEvents Shutdown() {
    e->tcp->Shutdown(conn);
    return Finish();
  }
  TcpEvents Consume(uint32_t bytes) {
    e->tcp->Consumed(conn, bytes);
    return Finish();
  }
  TcpEvents Finish() {
    const TcpEvents events = e->tcp->Finish(conn, key, e->now);
    if (packet != nullptr) std::memset(packet.get(), 0xEE, packet_size);
    packet.reset();
    Note(events);
    return events;
  }

  // --- time ---

  // Moves the engine's time on, ticking this flow whenever it is due.
  void Advance(Duration d) {
    const Instant end = e->now + d;
    while (e->tcp->Deadline(conn) <= end) {
      e->now = std::max(e->now, e->tcp->Deadline(conn));
      Note(e->tcp->Tick(conn, key, e->now));
      ++ticks;
    }
    e->now = end;
  }
  Duration UntilDeadline() const { return e->tcp->Deadline(conn) - e->now; }
  bool Idle() const { return e->tcp->Deadline(conn) == kNever; }

  // --- what the engine sent ---

  std::vector<Sent> TakeSent() {
    return std::exchange(e->sink.sent[key.app.port], {});
  }
  // Every segment taken from the record goes to the receiver.
  void TakeAll() {
    for (const Sent& s : TakeSent()) Take(s);
  }

  Engine* const e;
  FlowKey key;
  TcpConn conn;

  // Of the app: what the next segment says.
  SynOptions options{.mss = 1460, .window_scale = 7, .sack_permitted = false};
  uint32_t seq = 1000;
  uint32_t ack = 0;
  uint32_t window = 1 << 20;
  ByteVector extra_options;  // which Input() must not look at
  bool syn_only = false;     // windows are not scaled (no option)
  Sent syn_ack;

  uint32_t consume = UINT32_MAX;  // of each delivery at once
  std::string got;                // delivered to the host
  std::string stream;             // received by the app
  bool fin = false;               // by the app
  int ticks = 0;

  // Since the beginning.
  uint64_t acknowledged = 0;
  bool gone = false;
  bool reset = false;
  bool timed_out = false;
  bool app_fin = false;
  bool poisoned = false;

 private:
  void Note(const TcpEvents& events) {
    acknowledged += events.acknowledged;
    gone |= events.gone;
    reset |= events.reset;
    timed_out |= events.timed_out;
    app_fin |= events.app_fin;
    poisoned |= events.poisoned;
    EXPECT_EQ(conn.pcb == nullptr, gone);
    // Between calls lwIP knows no connection.
    EXPECT_EQ(tcp_active_pcbs, nullptr);
    EXPECT_EQ(tcp_tw_pcbs, nullptr);
  }

  std::unique_ptr<std::byte[]> packet;
  size_t packet_size = 0;
};

// The same numbers in every run.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  uint32_t operator()() { return static_cast<uint32_t>(engine_()); }

 private:
  std::mt19937 engine_;
};

// Bytes that tell their place: a wrong order or a missing piece shows.
inline std::string Pattern(size_t size, uint32_t seed = 0) {
  std::string s(size, '\0');
  uint32_t x = seed * 2654435761u + 12345;
  for (char& c : s) {
    x = x * 1664525u + 1013904223u;
    c = static_cast<char>(x >> 24);
  }
  return s;
}

}  // namespace netstack::test

#endif  // TESTS_CORE_LWIP_ENGINE_PEER_H_

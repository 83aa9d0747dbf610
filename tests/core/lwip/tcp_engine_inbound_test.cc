// What the host sends, and how it reaches the app: core/lwip/tcp_engine.cc,
// rules 8 to 11 and 13.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/lwip/engine_peer.h"

namespace netstack::test {
namespace {

class Inbound : public testing::TestWithParam<const Family*> {
 protected:
  Engine e;
};
INSTANTIATE_TEST_SUITE_P(Families, Inbound, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

size_t PayloadOf(const std::vector<Sent>& sent) {
  size_t n = 0;
  for (const Sent& s : sent) n += s.payload.size();
  return n;
}

// The app takes segments, in order and within its window of `window` bytes,
// and acknowledges, until nothing more comes. Never waits for a timer.
void Drain(Peer& app) {
  while (true) {
    const std::vector<Sent> sent = app.TakeSent();
    if (sent.empty()) return;
    for (const Sent& s : sent) {
      ASSERT_LE(s.End() - app.ack, app.window) << "beyond the window";
      app.Take(s);
    }
    app.Segment(tcp_flag::kAck);
  }
}

// --- super-segments: rule 8 ---

TEST_P(Inbound, SegmentsAreMultiplesOfTheAppsMss) {
  for (const uint16_t mss : std::vector<uint16_t>{536, 1000, 1360, 1400}) {
    Peer app(&e, *GetParam(), mss);
    app.options.mss = mss;
    app.Connect();
    app.Queue(Pattern(500'000));
    const std::vector<Sent> sent = app.TakeSent();
    ASSERT_EQ(PayloadOf(sent), 500'000u) << "cwnd is no limit";
    EXPECT_EQ(sent[0].payload.size(), mss * (65'475u / mss));
    for (size_t i = 0; i + 1 < sent.size(); ++i) {
      ASSERT_EQ(sent[i].payload.size() % mss, 0u);
      EXPECT_EQ(sent[i].mss, mss);
    }
  }
}

TEST_P(Inbound, MssIsTheSynsOrTheTunsOrTheDefault) {
  const bool v4 = GetParam()->v4();
  const auto mss_of = [&](const SynOptions& syn, uint16_t port) {
    Peer app(&e, *GetParam(), port);
    app.options = syn;
    app.Connect();
    return app.conn.mss;
  };
  EXPECT_EQ(mss_of({}, 1), v4 ? 536 : 1220);
  SynOptions options;
  options.mss = 9000;
  EXPECT_EQ(mss_of(options, 2), v4 ? 1460 : 1440);
  options.mss = 700;
  EXPECT_EQ(mss_of(options, 3), 700);
}

TEST_P(Inbound, AcknowledgedAddsUpToWhatWasQueued) {
  Peer app(&e, *GetParam());
  app.Connect();
  for (int i = 0; i < 50; ++i) {
    app.Queue(Pattern(7000));
    app.AckAll();
  }
  app.Shutdown();
  app.AckAll();
  EXPECT_TRUE(app.fin);
  EXPECT_EQ(app.acknowledged, 50u * 7000) << "SYN and FIN are no bytes";
}

// --- small windows: rule 9 ---

TEST_P(Inbound, NothingStallsInASmallWindow) {
  for (const uint32_t window : {1u, 100u, 1459u, 1460u, 8000u, 20'000u}) {
    Peer app(&e, *GetParam(), static_cast<uint16_t>(window));
    app.window = window;
    app.options.window_scale = {};
    app.Connect();
    const std::string all = Pattern(std::min(window * 200, 300'000u));
    app.Queue(all);
    Drain(app);
    EXPECT_TRUE(app.stream == all) << "window " << window;
    EXPECT_EQ(app.ticks, 0);
  }
}

TEST_P(Inbound, NothingStallsWhenTheWindowShrinks) {
  Peer app(&e, *GetParam());
  app.Connect();
  const std::string all = Pattern(200'000);
  // lwIP has segments of 64 KiB that the TUN did not take yet.
  e.sink.room = 0;
  app.Queue(all);
  app.window = 8000;
  // lwIP believes in less only with something new.
  app.Send("x");
  app.Send("y");
  e.sink.room = -1;
  app.Finish();
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_FALSE(sent.empty());
  EXPECT_EQ(sent[0].payload.size() % app.conn.mss, 0u);
  for (const Sent& s : sent) {
    ASSERT_LE(s.End() - app.ack, 8000u + 127u);
    app.Take(s);
  }
  app.Segment(tcp_flag::kAck);
  app.window = 8000 + 127;  // what 8000 >> 7 << 7 may differ by
  Drain(app);
  EXPECT_TRUE(app.stream == all);
  EXPECT_EQ(app.ticks, 0);
}

// A part of a super-segment is acknowledged, the rest has to be split.
TEST_P(Inbound, NothingStallsWhenTheWindowShrinksInMidSegment) {
  Peer app(&e, *GetParam());
  app.window = 60'000;
  app.options.window_scale = {};
  app.Connect();
  const std::string all = Pattern(58'400);
  app.Queue(all);
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(PayloadOf(sent), 58'400u);
  // The first packet of it arrives alone, and there is little room left.
  app.stream = all.substr(0, 1460);
  app.ack = sent[0].seq + 1460;
  app.window = 8000;
  app.Segment(tcp_flag::kAck);
  app.TakeSent();
  app.Advance(seconds(2));  // the retransmission, at once as large as it may be
  EXPECT_GE(PayloadOf(e.sink.sent[app.key.app.port]), 1460u + 4 * 1460);
  app.ticks = 0;
  Drain(app);
  EXPECT_TRUE(app.stream == all);
  EXPECT_EQ(app.ticks, 0);
}

// RFC 1122, 4.2.3.4: while something is under way, no slivers.
TEST_P(Inbound, NoSillyLittleSegments) {
  Peer app(&e, *GetParam());
  app.window = 20'000;
  app.options.window_scale = {};
  app.Connect();
  app.Queue(Pattern(100'000));
  ASSERT_EQ(PayloadOf(app.TakeSent()), 20'000u - 20'000u % app.conn.mss);
  // The app reads byte by byte, and says so.
  for (uint32_t more = 1; more < 1000; more += 37) {
    app.window = 20'000 + more;
    app.Segment(tcp_flag::kAck);
    for (const Sent& s : app.TakeSent()) {
      EXPECT_GE(s.payload.size(), app.conn.mss);
    }
  }
}

TEST_P(Inbound, ClosedWindowIsProbedAndOpens) {
  Peer app(&e, *GetParam());
  app.window = 5000;
  app.options.window_scale = {};
  app.Connect();
  const std::string all = Pattern(20'000);
  app.Queue(all);
  app.window = 0;
  app.AckAll();
  const size_t before = app.stream.size();
  EXPECT_FALSE(app.Idle());
  app.Advance(seconds(10));
  const std::vector<Sent> probes = app.TakeSent();
  EXPECT_GE(probes.size(), 2u);
  EXPECT_LE(probes.size(), 7u) << "backs off";
  for (const Sent& s : probes) EXPECT_LE(s.payload.size(), 1u);
  // The answer to a probe tells the window.
  app.window = 5000;
  app.Segment(tcp_flag::kAck);
  app.ticks = 0;
  Drain(app);
  EXPECT_EQ(app.stream.size(), all.size());
  EXPECT_TRUE(app.stream.substr(before) == all.substr(before));
  EXPECT_EQ(app.ticks, 0);
  EXPECT_TRUE(app.Idle());
}

// The window closes over what is lost, so that the probing of lwIP begins; then
// it was not lost after all. lwIP asserts that it probes for something.
TEST_P(Inbound, LateAckEndsTheProbing) {
  Peer app(&e, *GetParam());
  app.options.window_scale = {};
  app.Connect();
  app.Queue(Pattern(2000));
  app.window = 0;
  app.Send("x");
  app.Send("y");
  app.Advance(seconds(2));  // the retransmission does not fit
  ASSERT_NE(app.conn.pcb->persist_backoff, 0);
  // Something else keeps the flow's timer going.
  app.SegmentAt(app.seq + 100, tcp_flag::kAck, "ahead");
  app.TakeAll();
  app.ack = app.syn_ack.seq + 1 + 2000;
  app.Segment(tcp_flag::kAck);
  app.Advance(seconds(30));
  EXPECT_TRUE(app.Idle());
  EXPECT_EQ(app.acknowledged, 2000u);
}

// The SYN's window is closed, and opens little by little: lwIP derives its
// segment size from the largest window ever.
TEST_P(Inbound, WindowOpensFromNothing) {
  Peer app(&e, *GetParam());
  app.window = 0;
  app.options.window_scale = {};
  app.Connect();
  const std::string all = Pattern(3000);
  app.Queue(all);
  for (const uint32_t window : {1u, 3u, 10u, 100u, 1000u, 8000u}) {
    app.window = window;
    app.Segment(tcp_flag::kAck);
    app.Queue("");
    app.TakeAll();
  }
  for (int i = 0; i < 20; ++i) {
    app.Segment(tcp_flag::kAck);
    app.TakeAll();
    app.Advance(seconds(1));
  }
  EXPECT_TRUE(app.stream == all);
  EXPECT_EQ(e.tcp->counters().asserts, 0u);
}

// lwIP asserts that its last segment is no larger than those it would make.
TEST_P(Inbound, WindowOpensWhileTheTunIsFull) {
  Peer app(&e, *GetParam());
  app.window = 0;
  app.options.window_scale = {};
  app.Connect();
  const std::string all = Pattern(6000);
  app.Queue(all.substr(0, 3000));
  e.sink.room = 0;
  app.window = 2000;
  app.Segment(tcp_flag::kAck);
  app.Queue(all.substr(3000));
  e.sink.room = -1;
  app.Finish();
  Drain(app);
  EXPECT_TRUE(app.stream == all);
}

// --- FIN: rule 10 ---

// Whatever the window and wherever the reader pauses: every byte, then FIN.
TEST_P(Inbound, FinFollowsTheLastByte) {
  Random random(4);
  for (int round = 0; round < 90; ++round) {
    Peer app(&e, *GetParam(), static_cast<uint16_t>(1000 + round));
    app.options.window_scale = {};
    app.window = 5000 + random() % 60'000;
    app.Connect();
    const std::string all = Pattern(40'000 + random() % 360'000);
    app.Queue(all);
    app.Shutdown();
    const size_t pause_at = random() % all.size();
    bool paused = false;
    const uint32_t window = app.window;
    for (int i = 0; i < 2000 && !app.fin; ++i) {
      for (const Sent& s : app.TakeSent()) app.Take(s);
      if (app.fin) break;
      if (!paused && app.stream.size() >= pause_at) {
        paused = true;
        app.window = 0;
        app.Segment(tcp_flag::kAck);
        app.Advance(seconds(5));
        app.TakeSent();  // probes
        app.window = window;
      }
      app.Segment(tcp_flag::kAck);
      if (e.sink.sent[app.key.app.port].empty()) app.Advance(milliseconds(500));
    }
    ASSERT_TRUE(app.fin) << "round " << round;
    ASSERT_TRUE(app.stream == all) << "round " << round;
  }
}

TEST_P(Inbound, FinComesBehindLostSegments) {
  Peer app(&e, *GetParam());
  app.Connect();
  const std::string all = Pattern(150'000);
  app.Queue(all);
  app.Shutdown();
  std::vector<Sent> first = app.TakeSent();
  ASSERT_GE(first.size(), 3u);
  EXPECT_TRUE(first.back().Has(tcp_flag::kFin));
  for (size_t i = 0; i + 1 < first.size(); ++i) {
    EXPECT_FALSE(first[i].Has(tcp_flag::kFin));
  }
  // All lost; the retransmission is cut at other places.
  app.window = 30'000;
  app.Segment(tcp_flag::kAck);
  for (int i = 0; i < 200 && !app.fin; ++i) {
    app.Advance(milliseconds(500));
    app.TakeAll();
    app.Segment(tcp_flag::kAck);
    app.TakeAll();
  }
  EXPECT_TRUE(app.fin);
  EXPECT_TRUE(app.stream == all);
}

// lwIP puts a FIN on its last unsent segment: an old one, when that waits to
// be sent again.
TEST_P(Inbound, FinNeverOvertakesARetransmission) {
  for (const bool without_memory : {false, true}) {
    Peer app(&e, *GetParam());
    app.Connect();
    const std::string all = Pattern(50'000);
    app.Queue(all.substr(0, 20'000));
    app.Queue(all.substr(20'000));
    app.TakeSent();  // lost
    if (without_memory) {
      SetLwipAllocationFaults(1);
      app.Shutdown();
      SetLwipAllocationFaults(0);
    }
    e.sink.room = 0;
    for (int i = 0; i < 3; ++i) app.Segment(tcp_flag::kAck);
    app.Shutdown();
    app.Advance(milliseconds(100));
    e.sink.room = -1;
    app.Finish();
    for (int i = 0; i < 10 && !app.fin; ++i) {
      app.AckAll();
      app.Advance(seconds(1));
    }
    EXPECT_TRUE(app.fin);
    EXPECT_TRUE(app.stream == all);
  }
}

// --- lost segments, and memory: rules 11 and 13 ---

// A super-segment is retransmitted whole, its acknowledged part too, so that
// its chunk has to be there yet.
TEST_P(Inbound, ChunksStayUntilLwipHasNoUseForThem) {
  Peer app(&e, *GetParam());
  app.Connect();
  const std::string all = Pattern(60'000);
  // Three chunks that become one segment.
  e.sink.room = 0;
  for (size_t i = 0; i < 3; ++i) app.Queue(all.substr(i * 20'000, 20'000));
  e.sink.room = -1;
  app.Finish();
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  app.ack += 30'000;
  app.Segment(tcp_flag::kAck);
  EXPECT_EQ(app.conn.tx_bytes, 60'000u);
  app.Advance(seconds(3));
  const std::vector<Sent> again = app.TakeSent();
  ASSERT_FALSE(again.empty());
  EXPECT_EQ(again[0].seq, sent[0].seq);
  EXPECT_EQ(again[0].payload, all);
  EXPECT_GT(e.tcp->counters().retransmits, 0u);
  app.ack += 30'000;
  app.Segment(tcp_flag::kAck);
  EXPECT_EQ(app.conn.tx_bytes, 0u);
  EXPECT_EQ(e.pool.used(), 0u);
}

// With round trips measured, what the app's kernel dropped is repeated about as
// soon as Linux would, and not before a delayed ACK (0.2 s) can have come.
TEST_P(Inbound, RetransmissionIsSoonAfterMeasuredRoundTrips) {
  Peer app(&e, *GetParam());
  app.Connect();
  for (int i = 0; i < 20; ++i) {
    app.Queue("measured");
    app.TakeAll();
    app.Segment(tcp_flag::kAck);
    app.Advance(milliseconds(5));
  }
  app.Queue("lost");
  ASSERT_EQ(app.TakeSent().size(), 1u);
  const Instant start = e.now;
  std::vector<Sent> again;
  while (again.empty() && e.now - start < seconds(5)) {
    app.Advance(milliseconds(10));
    again = app.TakeSent();
  }
  EXPECT_GE(e.now - start, milliseconds(200));
  EXPECT_LE(e.now - start, milliseconds(310));
}

TEST_P(Inbound, RetransmissionAfterOneSecondThenBackingOff) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.Queue("lost");
  std::vector<Instant> times;
  const Instant start = e.now;
  app.TakeSent();
  for (int i = 0; i < 1000 && times.size() < 5; ++i) {
    app.Advance(milliseconds(100));
    if (!app.TakeSent().empty()) times.push_back(e.now);
  }
  ASSERT_EQ(times.size(), 5u);
  EXPECT_GE(times[0] - start, milliseconds(800));
  EXPECT_LE(times[0] - start, milliseconds(1200));
  for (size_t i = 2; i < times.size(); ++i) {
    EXPECT_GE(times[i] - times[i - 1], times[i - 1] - times[i - 2]);
  }
  EXPECT_GE(times[4] - times[3], seconds(4));
}

TEST_P(Inbound, ThreeDuplicateAcksRetransmitAtOnce) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.Queue(Pattern(200'000));
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_GE(sent.size(), 3u);
  for (int i = 0; i < 3; ++i) app.Segment(tcp_flag::kAck);
  const std::vector<Sent> again = app.TakeSent();
  ASSERT_GE(again.size(), 1u);
  EXPECT_EQ(again[0].seq, sent[0].seq);
  EXPECT_EQ(app.ticks, 0);
}

TEST_P(Inbound, AcknowledgedFlowIsIdleAndOwnsNothing) {
  Peer app(&e, *GetParam());
  app.Connect();
  EXPECT_TRUE(app.Idle());
  const uint64_t live = GetLwipHeapStats().live;
  app.Queue(Pattern(300'000));
  EXPECT_FALSE(app.Idle());
  app.AckAll();
  EXPECT_TRUE(app.Idle());
  EXPECT_EQ(e.pool.used(), 0u);
  EXPECT_EQ(GetLwipHeapStats().live, live);
}

// --- a full TUN ---

TEST_P(Inbound, NothingIsLostWhenTheTunIsFull) {
  Peer app(&e, *GetParam());
  app.Connect();
  const std::string all = Pattern(900'000);
  e.sink.room = 2;
  app.Queue(all);
  EXPECT_TRUE(app.conn.blocked);
  for (int i = 0; i < 1000 && app.stream.size() < all.size(); ++i) {
    app.TakeAll();
    e.sink.room = i % 3;
    app.Segment(tcp_flag::kAck);
  }
  EXPECT_TRUE(app.stream == all);
  EXPECT_EQ(app.ticks, 0);
}

// The TUN took the first packets of a super-segment, so that the app
// acknowledges what the engine still has to send.
TEST_P(Inbound, TunThatFillsUpInMidSegment) {
  Peer app(&e, *GetParam());
  app.Connect();
  const std::string all = Pattern(10'000);
  e.sink.room = 0;
  app.Queue(all);
  app.stream = all.substr(0, 1400);
  app.ack += 1400;
  EXPECT_EQ(app.Send("up").drop, std::nullopt);
  EXPECT_EQ(app.got, "up");
  app.ack += 100'000;  // that, however, nobody can have seen
  EXPECT_EQ(app.Send("evil").drop, DropReason::kTcpBlindAck);
  app.ack -= 100'000;
  app.seq -= 4;
  e.sink.room = -1;
  app.Finish();
  app.AckAll();
  EXPECT_TRUE(app.stream == all);
  EXPECT_TRUE(app.Idle());
}

TEST_P(Inbound, SynAckOutlivesAFullTun) {
  Peer app(&e, *GetParam());
  e.sink.room = 0;
  ASSERT_TRUE(app.Syn());
  EXPECT_TRUE(app.conn.blocked);
  e.sink.room = -1;
  app.Finish();
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_TRUE(sent[0].Has(tcp_flag::kSyn));
  EXPECT_FALSE(app.conn.blocked);
}

// A retransmission that finds the TUN full waits; what is queued meanwhile
// comes behind it.
TEST_P(Inbound, RetransmissionOutlivesAFullTun) {
  for (const bool timer_too : {false, true}) {
    Peer app(&e, *GetParam());
    app.window = 500'000;
    app.Connect();
    const std::string all = Pattern(200'000);
    app.Queue(all.substr(0, 20'000));
    app.Queue(all.substr(20'000, 30'000));
    app.TakeSent();  // lost
    e.sink.room = 0;
    for (int i = 0; i < 3; ++i) app.Segment(tcp_flag::kAck);
    app.Queue(all.substr(50'000));
    if (timer_too) app.Advance(seconds(4));
    e.sink.room = -1;
    app.Finish();
    for (int i = 0; i < 10; ++i) {
      app.AckAll();
      app.Advance(seconds(1));
    }
    EXPECT_TRUE(app.stream == all);
    EXPECT_TRUE(app.Idle());
  }
}

// Random windows, losses and full TUNs: the stream is the stream.
TEST_P(Inbound, AnyWeatherGivesTheStream) {
  Random random(5);
  for (int round = 0; round < 100; ++round) {
    SCOPED_TRACE(round);
    Peer app(&e, *GetParam(), static_cast<uint16_t>(1000 + round));
    if (round % 2 == 0) app.options.window_scale = {};
    app.options.mss = static_cast<uint16_t>(536 + random() % 924);
    const uint32_t most = 2000 + random() % 200'000;
    app.window = most;
    app.Connect();
    const std::string all = Pattern(100'000 + random() % 300'000, random());
    size_t queued = 0;
    for (int i = 0; i < 20'000 && !app.fin; ++i) {
      if (queued < all.size()) {
        const size_t n =
            std::min<size_t>(all.size() - queued, random() % 30'000);
        app.Queue(all.substr(queued, n));
        queued += n;
        if (queued == all.size()) app.Shutdown();
      }
      for (const Sent& s : app.TakeSent()) {
        if (random() % 10 != 0) app.Take(s);  // else lost
      }
      e.sink.room = random() % 6 == 0 ? random() % 3 : -1;
      app.window = random() % 10 == 0 ? random() % 3000 : most;
      app.Segment(tcp_flag::kAck);
      if (random() % 4 == 0) app.Advance(milliseconds(random() % 1000));
      ASSERT_FALSE(app.gone);
    }
    e.sink.room = -1;
    ASSERT_TRUE(app.fin);
    ASSERT_TRUE(app.stream == all);
  }
  EXPECT_EQ(e.pool.used(), 0u);
}

}  // namespace
}  // namespace netstack::test

// How connections begin and end, and what is left of them:
// core/lwip/tcp_engine.cc, rules 1, 2, 4, 12 and 13.
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/core/lwip/engine_peer.h"

namespace netstack::test {
namespace {

// The states that a connection can be in, and how it gets there.
struct StateCase {
  const char* name;
  tcp_state state;
  void (*reach)(Peer&);
};
void Established(Peer& app) { app.Connect(); }
void CloseWait(Peer& app) {
  app.Connect();
  app.Send("", tcp_flag::kAck | tcp_flag::kFin);
  app.Advance(milliseconds(40));  // the ACK
  app.TakeSent();
}
void FinWait1(Peer& app) {
  app.Connect();
  app.Shutdown();
}
void FinWait2(Peer& app) {
  app.Connect();
  app.Shutdown();
  app.AckAll();
}
void Closing(Peer& app) {  // both at once; ours is not acknowledged
  app.Connect();
  app.Shutdown();
  app.Send("", tcp_flag::kAck | tcp_flag::kFin);
  app.TakeSent();
}
void LastAck(Peer& app) {
  CloseWait(app);
  app.Shutdown();
}
void TimeWait(Peer& app) {
  FinWait2(app);
  app.Send("", tcp_flag::kAck | tcp_flag::kFin);
  app.TakeSent();
}
const StateCase kStates[] = {
    {"SynRcvd", SYN_RCVD, [](Peer& app) { ASSERT_TRUE(app.Syn()); }},
    {"Established", ESTABLISHED, Established},
    {"CloseWait", CLOSE_WAIT, CloseWait},
    {"FinWait1", FIN_WAIT_1, FinWait1},
    {"FinWait2", FIN_WAIT_2, FinWait2},
    {"Closing", CLOSING, Closing},
    {"LastAck", LAST_ACK, LastAck},
    {"TimeWait", TIME_WAIT, TimeWait},
};

class InState : public testing::TestWithParam<StateCase> {
 protected:
  InState() : app(&e), live_before_(GetLwipHeapStats().live) {
    GetParam().reach(app);
    EXPECT_EQ(app.conn.pcb->state, GetParam().state);
    app.TakeSent();
  }
  void ExpectNothingLeft() {
    EXPECT_EQ(app.conn.pcb, nullptr);
    EXPECT_TRUE(app.Idle());
    EXPECT_EQ(e.pool.used(), 0u);
    EXPECT_EQ(GetLwipHeapStats().live, live_before_);
  }
  bool in(tcp_state s) const { return GetParam().state == s; }

  Engine e;
  Peer app;

 private:
  const uint64_t live_before_;
};
INSTANTIATE_TEST_SUITE_P(States, InState, testing::ValuesIn(kStates),
                         [](const auto& i) { return i.param.name; });

TEST_P(InState, AbortResetsAndFreesEverything) {
  e.tcp->Abort(app.conn, app.key);
  const std::vector<Sent> sent = app.TakeSent();
  if (in(TIME_WAIT)) {
    EXPECT_TRUE(sent.empty());
  } else {
    ASSERT_EQ(sent.size(), 1u);
    EXPECT_TRUE(sent[0].Has(tcp_flag::kRst));
    // Where the app expects our next byte.
    EXPECT_EQ(sent[0].seq,
              app.ack + (in(FIN_WAIT_1) || in(CLOSING) || in(LAST_ACK)));
  }
  ExpectNothingLeft();
  e.tcp->Abort(app.conn, app.key);  // no effect
  EXPECT_TRUE(app.TakeSent().empty());
}

TEST_P(InState, ResetEndsItButForTimeWait) {
  const TcpEvents events = app.Segment(tcp_flag::kRst);
  EXPECT_TRUE(app.TakeSent().empty());
  if (in(TIME_WAIT)) {  // RFC 1337
    EXPECT_FALSE(events.gone);
    return;
  }
  EXPECT_TRUE(events.gone);
  EXPECT_TRUE(events.reset);
  EXPECT_FALSE(events.timed_out);
  ExpectNothingLeft();
}

// RFC 5961, section 3.2.
TEST_P(InState, ResetElsewhereInTheWindowIsAnsweredWithAnAck) {
  app.SegmentAt(app.seq + 1000, tcp_flag::kRst, "");
  EXPECT_FALSE(app.gone);
  const std::vector<Sent> sent = app.TakeSent();
  if (in(TIME_WAIT)) {
    EXPECT_TRUE(sent.empty());
  } else if (!in(SYN_RCVD)) {
    ASSERT_GE(sent.size(), 1u);
    EXPECT_EQ(sent.back().ack, app.seq);
    EXPECT_FALSE(sent.back().Has(tcp_flag::kRst));
  }
}

TEST_P(InState, ResetOutsideTheWindowIsIgnored) {
  app.SegmentAt(app.seq + 70'000, tcp_flag::kRst, "");
  app.SegmentAt(app.seq - 1, tcp_flag::kRst, "");
  EXPECT_FALSE(app.gone);
  EXPECT_FALSE(app.reset);
}

// Only what waits for an answer has a timer.
TEST_P(InState, OnlyBusyStatesHaveADeadline) {
  const bool busy =
      in(SYN_RCVD) || in(FIN_WAIT_1) || in(CLOSING) || in(LAST_ACK);
  EXPECT_EQ(app.Idle(), !busy);
}

// An app that has vanished: lwIP gives up, in its own time, and says so.
TEST_P(InState, SilenceEndsWhatWaitsForAnAnswer) {
  if (app.Idle()) {
    app.Advance(std::chrono::hours(24));
    EXPECT_FALSE(app.gone);  // the forwarder's wheel ends these
    return;
  }
  app.Advance(seconds(20));
  EXPECT_FALSE(app.gone) << "too soon";
  app.Advance(std::chrono::minutes(20));
  EXPECT_TRUE(app.gone);
  EXPECT_TRUE(app.timed_out);
  EXPECT_FALSE(app.reset);
  ExpectNothingLeft();
}

TEST_P(InState, AnotherFlowGoesOn) {
  Peer other(&e, kV6, 41000);
  other.Connect();
  app.Segment(tcp_flag::kRst);
  other.Send("alive");
  EXPECT_EQ(other.got, "alive");
  e.tcp->Abort(app.conn, app.key);
  other.Queue("alive");
  other.TakeAll();
  EXPECT_EQ(other.stream, "alive");
}

TEST_P(InState, WrongHandshakeAckIsReset) {
  if (!in(SYN_RCVD)) return;
  app.ack += 7;
  app.Segment(tcp_flag::kAck);
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_TRUE(sent[0].Has(tcp_flag::kRst));
  EXPECT_EQ(sent[0].seq, app.ack);
  EXPECT_FALSE(app.gone) << "the right one may still come";
}

TEST_P(InState, HandshakeIsRepeated) {
  if (!in(SYN_RCVD)) return;
  app.SegmentAt(app.seq - 1, tcp_flag::kSyn, "");
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].seq, app.syn_ack.seq);
  EXPECT_EQ(sent[0].options, app.syn_ack.options);
  EXPECT_EQ(sent[0].window, app.syn_ack.window);
  app.Advance(seconds(2));
  ASSERT_GE(app.TakeSent().size(), 1u);
  EXPECT_TRUE(app.Segment(tcp_flag::kAck).established);
}

// --- clean ends ---

class Life : public testing::TestWithParam<const Family*> {
 protected:
  Engine e;
};
INSTANTIATE_TEST_SUITE_P(Families, Life, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TEST_P(Life, AppClosesFirst) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.Send("bye", tcp_flag::kAck | tcp_flag::kFin);
  EXPECT_TRUE(app.app_fin);
  app.Queue("more");  // half-closed
  app.AckAll();
  EXPECT_EQ(app.stream, "more");
  app.Shutdown();
  app.AckAll();
  EXPECT_TRUE(app.fin);
  EXPECT_TRUE(app.gone);
  EXPECT_FALSE(app.reset);
  EXPECT_FALSE(app.timed_out);
  EXPECT_FALSE(e.tcp->InTimeWait(app.conn));
}

TEST_P(Life, HostClosesFirst) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.Queue("bye");
  app.Shutdown();
  app.AckAll();
  EXPECT_TRUE(app.fin);
  EXPECT_TRUE(app.Idle());
  app.Send("more");  // half-closed
  EXPECT_EQ(app.got, "more");
  app.Send("", tcp_flag::kAck | tcp_flag::kFin);
  EXPECT_TRUE(app.app_fin);
  // At once: no FIN of ours will take this ACK along.
  EXPECT_EQ(app.TakeSent().back().ack, app.seq);
  EXPECT_TRUE(e.tcp->InTimeWait(app.conn));
  EXPECT_TRUE(app.Idle());
}

TEST_P(Life, BothCloseAtOnce) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.Shutdown();
  app.Send("", tcp_flag::kAck | tcp_flag::kFin);  // does not know of ours
  app.AckAll();
  EXPECT_TRUE(app.fin);
  EXPECT_TRUE(app.app_fin);
  EXPECT_TRUE(e.tcp->InTimeWait(app.conn));
  EXPECT_TRUE(app.Idle());
}

// The answer to a FIN alone is mostly our own FIN.
TEST_P(Life, AckOfAFinWaitsForOurs) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.Send("", tcp_flag::kAck | tcp_flag::kFin);
  EXPECT_TRUE(app.TakeSent().empty());
  app.Shutdown();
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_TRUE(sent[0].Has(tcp_flag::kFin));
  EXPECT_EQ(sent[0].ack, app.seq);
}

// A reader that pauses for long while we wait for its last ACK gets what is
// queued: LAST_ACK does not time out under data.
TEST_P(Life, HalfClosedReaderMayPause) {
  Peer app(&e, *GetParam());
  app.options.window_scale = {};
  app.window = 10'000;
  app.Connect();
  app.Send("", tcp_flag::kAck | tcp_flag::kFin);
  const std::string all = Pattern(50'000);
  app.Queue(all);
  app.Shutdown();
  app.window = 0;
  app.AckAll();
  for (int i = 0; i < 8; ++i) {  // a kernel answers probes
    app.Advance(seconds(1));
    app.TakeSent();
    app.Segment(tcp_flag::kAck);
  }
  app.window = 10'000;
  for (int i = 0; i < 50 && !app.fin; ++i) {
    app.Segment(tcp_flag::kAck);
    app.TakeAll();
    app.Advance(milliseconds(100));
  }
  EXPECT_TRUE(app.fin);
  EXPECT_TRUE(app.stream == all);
}

// --- TIME_WAIT ---

TEST_P(Life, TimeWaitAcknowledgesALateFin) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.Shutdown();
  app.AckAll();
  app.Send("", tcp_flag::kAck | tcp_flag::kFin);
  app.TakeSent();
  app.SegmentAt(app.seq - 1, tcp_flag::kAck | tcp_flag::kFin, "");
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].flags, tcp_flag::kAck);
  EXPECT_EQ(sent[0].ack, app.seq);
}

// RFC 1122, 4.2.2.13.
TEST_P(Life, OnlyALaterSynMayReuseTimeWait) {
  Peer app(&e, *GetParam());
  app.Connect();
  EXPECT_FALSE(e.tcp->MayReuse(app.conn, app.seq + 1000)) << "not in TIME_WAIT";
  app.Shutdown();
  app.AckAll();
  app.Send("", tcp_flag::kAck | tcp_flag::kFin);
  EXPECT_TRUE(e.tcp->MayReuse(app.conn, app.seq + 1));
  EXPECT_TRUE(e.tcp->MayReuse(app.conn, app.seq + 0x7FFFFFFF));
  EXPECT_FALSE(e.tcp->MayReuse(app.conn, app.seq));
  EXPECT_FALSE(e.tcp->MayReuse(app.conn, app.seq - 1));
  EXPECT_FALSE(e.tcp->MayReuse(app.conn, app.seq + 0x80000001));
}

// --- the engine itself ---

TEST(EngineLife, OnlyOneAtATime) {
  BufferPool pool(0);
  RecordingSink sink;
  auto first = TcpEngine::Create(Engine::Defaults(), &pool, &sink);
  ASSERT_TRUE(first.ok());
  auto second = TcpEngine::Create(Engine::Defaults(), &pool, &sink);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  first->reset();
  auto third = TcpEngine::Create(Engine::Defaults(), &pool, &sink);
  EXPECT_TRUE(third.ok()) << third.status();
}

TEST(EngineLife, StartStopStartWorks) {
  { Engine first; }  // the listener stays
  const uint64_t live = GetLwipHeapStats().live;
  for (int i = 0; i < 3; ++i) {
    Engine e;
    Peer app(&e);
    app.Connect();
    app.Send("hello");
    EXPECT_EQ(app.got, "hello");
  }
  EXPECT_EQ(GetLwipHeapStats().live, live);
}

// lwIP counts the rounds of its timers for the process: every engine's have to
// take part.
TEST(EngineLife, TimersOfALaterEngineSkipNobody) {
  for (int round = 0; round < 3; ++round) {
    Engine e;
    Peer app(&e);
    app.Connect();
    for (int i = 0; i < 300; ++i) {
      app.Send("x");
      app.Advance(milliseconds(40));
      ASSERT_EQ(app.TakeSent().size(), 1u) << "round " << round << ", " << i;
    }
    for (int i = 0; i < 7; ++i) {  // another place of the counter
      app.Send("x");
      app.Advance(milliseconds(40));
      app.TakeSent();
    }
  }
}

// --- initial sequence numbers: C7, RFC 6528 ---

uint32_t IsnOf(Engine& e, uint16_t port, const Family& family = kV4) {
  Peer app(&e, family, port);
  EXPECT_TRUE(app.Syn());
  e.tcp->Abort(app.conn, app.key);
  app.TakeSent();
  return app.syn_ack.seq;
}

TEST_P(Life, HundredThousandIsnsWithoutReuseOrPattern) {
  std::set<uint32_t> seen;
  std::map<uint32_t, int> steps;
  std::array<int, 32> ones{};
  uint32_t last = 0;
  for (int i = 0; i < 100'000; ++i) {
    const uint32_t isn =
        IsnOf(e, static_cast<uint16_t>(1 + i % 60'000), *GetParam());
    e.now += std::chrono::microseconds(10);
    seen.insert(isn);
    ++steps[isn - last];
    last = isn;
    for (size_t bit = 0; bit < 32; ++bit) ones[bit] += (isn >> bit) & 1;
  }
  // 100,000 draws of 2^32 collide 1.2 times on average.
  EXPECT_GE(seen.size(), 99'990u);
  for (const auto& [step, times] : steps) ASSERT_LE(times, 3) << step;
  for (const int n : ones) EXPECT_NEAR(n, 50'000, 2000);
}

TEST_P(Life, IsnOfOneFlowAdvancesWithTime) {
  const uint32_t first = IsnOf(e, 1000, *GetParam());
  for (const int microseconds : {4, 40, 1'000'000}) {
    e.now = Instant(std::chrono::hours(1)) +
            std::chrono::microseconds(microseconds);
    EXPECT_EQ(IsnOf(e, 1000, *GetParam()) - first,
              static_cast<uint32_t>(microseconds / 4));
  }
}

TEST(EngineLife, IsnsDependOnKeyAndTuple) {
  std::set<uint32_t> isns;
  for (uint64_t key = 0; key < 10; ++key) {
    TcpEngine::Options o = Engine::Defaults();
    o.isn_key = {key, 7};
    Engine e(o);
    isns.insert(IsnOf(e, 1000));
    isns.insert(IsnOf(e, 1001));
    isns.insert(IsnOf(e, 1000, kV6));
  }
  EXPECT_EQ(isns.size(), 30u);
}

// --- memory fails: rule 4 and R9 ---

class Faults {
 public:
  explicit Faults(uint32_t one_in) { SetLwipAllocationFaults(one_in); }
  ~Faults() { SetLwipAllocationFaults(0); }
};

// lwIP's tcp_alloc() would abort other connections for a new one.
TEST_P(Life, SynWithoutMemoryHurtsNobody) {
  Peer open(&e, *GetParam(), 1);
  open.Connect();
  Peer time_wait(&e, *GetParam(), 2);
  TimeWait(time_wait);
  const uint64_t live = GetLwipHeapStats().live;
  Peer app(&e, *GetParam(), 3);
  {
    Faults all(1);
    EXPECT_FALSE(app.Syn());
  }
  EXPECT_EQ(app.conn.pcb, nullptr);
  EXPECT_EQ(GetLwipHeapStats().live, live);
  EXPECT_GT(e.tcp->allocation_failures(), 0u);
  open.Send("alive");
  EXPECT_EQ(open.got, "alive");
  EXPECT_TRUE(e.tcp->InTimeWait(time_wait.conn));
  app.Connect();  // the SYN again
}

TEST_P(Life, DataWaitsForMemory) {
  Peer app(&e, *GetParam());
  app.Connect();
  {
    Faults all(1);
    app.Queue("hello");
    app.Advance(seconds(3));
    EXPECT_TRUE(app.TakeSent().empty());
  }
  app.Advance(seconds(1));
  app.TakeAll();
  EXPECT_EQ(app.stream, "hello");
}

TEST_P(Life, FinWaitsForMemory) {
  Peer app(&e, *GetParam());
  app.Connect();
  {
    Faults all(1);
    app.Shutdown();
    app.Advance(seconds(3));
    EXPECT_TRUE(app.TakeSent().empty());
  }
  app.Advance(seconds(1));
  app.TakeAll();
  EXPECT_TRUE(app.fin);
}

TEST_P(Life, AckWaitsForMemory) {
  Peer app(&e, *GetParam());
  app.Connect();
  {
    Faults all(1);
    app.Send(Pattern(10'000));
    EXPECT_EQ(app.got.size(), 10'000u);
    EXPECT_TRUE(app.TakeSent().empty());
  }
  app.Advance(seconds(1));
  ASSERT_FALSE(app.TakeSent().empty());
}

TEST_P(Life, OutOfOrderDataIsDroppedWithoutMemory) {
  Peer app(&e, *GetParam());
  app.Connect();
  const uint32_t at = app.seq;
  {
    Faults all(1);
    EXPECT_EQ(app.SegmentAt(at + 100, tcp_flag::kAck, Pattern(100)).drop,
              DropReason::kNoMemory);
  }
  app.SegmentAt(at, tcp_flag::kAck, Pattern(200));
  EXPECT_TRUE(app.got == Pattern(200));
}

// Two streams through every hundredth allocation failing.
TEST_P(Life, OneAllocationInAHundredFails) {
  const uint64_t live = GetLwipHeapStats().live;
  {
    Faults faults(100);
    Random random(6);
    for (int round = 0; round < 150; ++round) {
      SCOPED_TRACE(round);
      Peer app(&e, *GetParam(), static_cast<uint16_t>(1000 + round));
      while (!app.Syn()) app.seq = 1000;
      while (app.ack == 0) {  // the SYN-ACK itself had no memory
        app.Advance(seconds(1));
        const std::vector<Sent> sent = app.TakeSent();
        if (!sent.empty()) app.ack = sent[0].seq + 1;
        ASSERT_FALSE(app.gone);
      }
      app.Segment(tcp_flag::kAck);
      const std::string down = Pattern(50'000, random());
      const std::string up = Pattern(50'000, random());
      app.Queue(down);
      app.Shutdown();
      const uint32_t start = app.seq;
      for (int i = 0; i < 20'000 && !(app.fin && app.app_fin); ++i) {
        ASSERT_FALSE(app.gone);
        app.TakeAll();
        const auto known = static_cast<uint32_t>(app.got.size());
        const uint32_t ahead = random() % 3 * 500;
        const uint32_t from = std::min<uint32_t>(known + ahead, 50'000);
        const uint32_t size = std::min<uint32_t>(500, 50'000 - from);
        app.SegmentAt(
            start + from,
            static_cast<uint8_t>(tcp_flag::kAck |
                                 (from + size == 50'000 ? tcp_flag::kFin : 0)),
            up.substr(from, size));
        app.Advance(milliseconds(random() % 50));
      }
      ASSERT_TRUE(app.fin && app.app_fin);
      ASSERT_TRUE(app.stream == down);
      ASSERT_TRUE(app.got == up);
    }
  }
  EXPECT_GT(e.tcp->allocation_failures(), 100u);
  EXPECT_EQ(e.tcp->counters().asserts, 0u);
  EXPECT_EQ(e.pool.used(), 0u);
  EXPECT_EQ(GetLwipHeapStats().live, live);
}

// --- assertions ---

// Makes lwIP's own bookkeeping wrong, so that its next write says so.
void BreakPcb(Peer& app) { app.conn.pcb->snd_queuelen = 1; }

TEST_P(Life, FailedAssertionPoisonsTheFlowAlone) {
  e.tcp.reset();
  TcpEngine::Options o = Engine::Defaults();
  o.abort_on_assert = false;
  Engine mine(o);
  Peer other(&mine, *GetParam(), 1);
  other.Connect();
  Peer app(&mine, *GetParam(), 2);
  app.Connect();
  BreakPcb(app);
  EXPECT_TRUE(app.Queue("x").poisoned);
  EXPECT_EQ(mine.tcp->counters().asserts, 1u);
  EXPECT_NE(mine.tcp->counters().last_assert, "");
  mine.tcp->Abort(app.conn, app.key);
  EXPECT_TRUE(app.TakeSent().back().Has(tcp_flag::kRst));
  other.Send("alive");
  EXPECT_FALSE(other.poisoned);
  EXPECT_EQ(other.got, "alive");
}

TEST(EngineDeathTest, FailedAssertionAbortsTestBuilds) {
  Engine e;
  Peer app(&e);
  app.Connect();
  BreakPcb(app);
  EXPECT_DEATH(app.Queue("x"), "lwIP assertion failed: tcp_write");
  app.conn.pcb->snd_queuelen = 0;
}

}  // namespace
}  // namespace netstack::test

// What an app sends, and what the engine makes of it: core/lwip/tcp_engine.cc,
// rules 1 to 7, 13 and 14.
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/lwip/engine_peer.h"

namespace netstack::test {
namespace {

class Outbound : public testing::TestWithParam<const Family*> {
 protected:
  Engine e;
};
INSTANTIATE_TEST_SUITE_P(Families, Outbound, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TEST_P(Outbound, PayloadArrivesAsSent) {
  Peer app(&e, *GetParam());
  app.Connect();
  const std::string sent = Pattern(100'000);
  for (size_t i = 0; i < sent.size(); i += 1000) app.Send(sent.substr(i, 1000));
  EXPECT_TRUE(app.got == sent);
}

// Rule 1: no list but the flow's own, so any address and port will do.
TEST_P(Outbound, AnyDestinationIsAccepted) {
  std::vector<std::unique_ptr<Peer>> apps;
  for (uint16_t i = 0; i < 50; ++i) {
    apps.push_back(std::make_unique<Peer>(&e, *GetParam(),
                                          static_cast<uint16_t>(30000 + i)));
    apps.back()->key.remote.port = static_cast<uint16_t>(1 + i * 1300);
    if (GetParam()->v4()) {
      apps.back()->key.remote.ip =
          IpAddress::V4(static_cast<uint8_t>(1 + i), 2, 3, 4);
    }
    apps.back()->Connect();  // the sink checks the ports
    apps.back()->Send("x");
    EXPECT_EQ(apps.back()->got, "x");
  }
}

// Rule 1, read back over many flows: data never crosses.
TEST_P(Outbound, ThousandsOfFlowsInterleaved) {
  constexpr int kFlows = 3000;
  std::vector<std::unique_ptr<Peer>> apps;
  std::vector<std::string> sent(kFlows);
  std::vector<std::string> queued(kFlows);
  for (int i = 0; i < kFlows; ++i) {
    apps.push_back(std::make_unique<Peer>(&e, *GetParam(),
                                          static_cast<uint16_t>(10000 + i)));
    apps.back()->Connect();
  }
  Random random(1);
  for (int n = 0; n < 20'000; ++n) {
    const auto i = random() % kFlows;
    const std::string bytes = Pattern(1 + random() % 200, random());
    if (random() % 2 == 0) {
      apps[i]->Send(bytes);
      sent[i] += bytes;
    } else {
      apps[i]->Queue(bytes);
      queued[i] += bytes;
    }
  }
  for (size_t i = 0; i < kFlows; ++i) {
    apps[i]->TakeAll();
    ASSERT_EQ(apps[i]->got, sent[i]) << "flow " << i;
    ASSERT_EQ(apps[i]->stream, queued[i]) << "flow " << i;
  }
}

// --- reordering: rules 3 and 5 ---

// The packet's buffer is gone after Finish() (see Peer): whatever lwIP keeps
// has to be a copy.
TEST_P(Outbound, OutOfOrderSegmentsAreCopiedAndPutInOrder) {
  Peer app(&e, *GetParam());
  app.Connect();
  const uint32_t at = app.seq;
  for (const uint32_t i : {4, 2, 1, 3}) {
    const TcpEvents events =
        app.SegmentAt(at + i * 100, tcp_flag::kAck, Pattern(100, i));
    EXPECT_EQ(events.delivered, 0u);
  }
  const TcpEvents events = app.InputAt(at, tcp_flag::kAck, Pattern(100, 0));
  EXPECT_EQ(events.delivered, 500u);
  e.tcp->Consumed(app.conn, 500);
  app.Finish();
  EXPECT_EQ(app.got, Pattern(100, 0) + Pattern(100, 1) + Pattern(100, 2) +
                         Pattern(100, 3) + Pattern(100, 4));
}

TEST_P(Outbound, FinOutOfOrderWaitsForTheData) {
  Peer app(&e, *GetParam());
  app.Connect();
  const uint32_t at = app.seq;
  // A FIN alone has no payload, and is queued all the same.
  app.SegmentAt(at + 200, tcp_flag::kAck | tcp_flag::kFin, "");
  EXPECT_FALSE(app.app_fin);
  // Another header passes through meanwhile.
  app.SegmentAt(at, tcp_flag::kAck, "");
  app.SegmentAt(at + 100, tcp_flag::kAck, Pattern(100, 1));
  EXPECT_FALSE(app.app_fin);
  app.SegmentAt(at, tcp_flag::kAck, Pattern(100, 0));
  EXPECT_TRUE(app.app_fin);
  EXPECT_TRUE(app.got == Pattern(100, 0) + Pattern(100, 1));
  app.Advance(milliseconds(40));
  EXPECT_EQ(app.TakeSent().back().ack, at + 201);
}

TEST_P(Outbound, FinWithPayloadOutOfOrder) {
  Peer app(&e, *GetParam());
  app.Connect();
  const uint32_t at = app.seq;
  app.SegmentAt(at + 100, tcp_flag::kAck | tcp_flag::kFin, Pattern(100, 1));
  app.SegmentAt(at, tcp_flag::kAck, Pattern(100, 0));
  EXPECT_TRUE(app.app_fin);
  EXPECT_TRUE(app.got == Pattern(100, 0) + Pattern(100, 1));
}

TEST_P(Outbound, OverlapsAreDeliveredOnce) {
  Peer app(&e, *GetParam());
  app.Connect();
  const uint32_t at = app.seq;
  const std::string all = Pattern(1000);
  app.SegmentAt(at, tcp_flag::kAck, all.substr(0, 300));
  app.SegmentAt(at, tcp_flag::kAck, all.substr(0, 300));          // again
  app.SegmentAt(at + 100, tcp_flag::kAck, all.substr(100, 400));  // half new
  app.SegmentAt(at + 700, tcp_flag::kAck, all.substr(700));       // ahead
  app.SegmentAt(at + 600, tcp_flag::kAck, all.substr(600, 200));
  app.SegmentAt(at + 450, tcp_flag::kAck, all.substr(450, 300));
  EXPECT_TRUE(app.got == all);
}

// What never becomes whole is dropped in time: it will be sent again.
TEST_P(Outbound, HolesDoNotKeepMemoryForever) {
  Peer app(&e, *GetParam());
  app.Connect();
  const uint64_t live = GetLwipHeapStats().live;
  app.SegmentAt(app.seq + 100, tcp_flag::kAck, Pattern(1000));
  EXPECT_GT(GetLwipHeapStats().live, live);
  app.Advance(seconds(60));
  EXPECT_EQ(GetLwipHeapStats().live, live);
  EXPECT_TRUE(app.Idle());
}

// Every order of random pieces with random overlaps gives the stream.
TEST_P(Outbound, AnyOrderGivesTheStream) {
  Random random(2);
  for (int round = 0; round < 200; ++round) {
    Peer app(&e, *GetParam(), static_cast<uint16_t>(20000 + round));
    app.options.sack_permitted = round % 2 == 0;
    app.Connect();
    const uint32_t at = app.seq;
    const std::string all = Pattern(20'000, random());
    while (!app.app_fin) {
      const uint32_t from = random() % 20'001;
      const uint32_t size = std::min<uint32_t>(random() % 3000, 20'000 - from);
      const bool end = from + size == 20'000;
      app.SegmentAt(
          at + from,
          static_cast<uint8_t>(tcp_flag::kAck | (end ? tcp_flag::kFin : 0)),
          all.substr(from, size));
      // A sender repeats the first missing bytes sooner or later.
      if (random() % 8 == 0) {
        const auto next = static_cast<uint32_t>(app.got.size());
        app.SegmentAt(
            at + next,
            static_cast<uint8_t>(tcp_flag::kAck |
                                 (next + 1000 >= 20'000 ? tcp_flag::kFin : 0)),
            all.substr(next, 1000));
      }
    }
    ASSERT_TRUE(app.got == all) << "round " << round;
  }
}

TEST_P(Outbound, HolesAreReportedBySack) {
  Peer app(&e, *GetParam());
  app.options.sack_permitted = true;
  app.Connect();
  const uint32_t at = app.seq;
  app.SegmentAt(at + 100, tcp_flag::kAck, Pattern(50));
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].ack, at);
  ByteVector sack = Hex("0101050A 00000000 00000000");
  Store32(&sack[4], at + 100);
  Store32(&sack[8], at + 150);
  EXPECT_EQ(sent[0].options, sack);
}

// --- what must not reach lwIP: rules 6 and 7 ---

// R3: lwIP would take the option for news and fail an assertion at the next
// write.
TEST_P(Outbound, MssOptionOfAnEstablishedSegmentIsNotLookedAt) {
  Peer app(&e, *GetParam());
  app.window = 3000;
  app.syn_only = true;
  app.options.window_scale = {};
  app.Connect();
  app.Queue(Pattern(10'000));  // some of it stays unsent
  const uint16_t mss = app.conn.pcb->mss;
  app.extra_options = Hex("02040004");
  app.Send("x");
  app.Queue(Pattern(10'000));
  EXPECT_EQ(app.conn.pcb->mss, mss);
  EXPECT_FALSE(app.poisoned);
  EXPECT_EQ(e.tcp->counters().asserts, 0u);
}

TEST_P(Outbound, BlindAcksAreDropped) {
  Peer app(&e, *GetParam());
  app.window = 60'000;
  app.Connect();
  app.Queue(Pattern(5000));
  app.AckAll();
  app.window = 50'000;
  app.Queue(Pattern(1000));
  const uint32_t lastack = app.ack;
  const uint32_t snd_nxt = app.ack + 1000;
  const uint32_t max_window = app.conn.pcb->snd_wnd_max;
  const uint32_t at = app.seq;
  app.TakeSent();
  const auto drop_of = [&](uint32_t ack) {
    app.ack = ack;
    return app.SegmentAt(at, tcp_flag::kAck, "evil").drop;
  };
  EXPECT_EQ(drop_of(snd_nxt + 1), DropReason::kTcpBlindAck);
  EXPECT_EQ(drop_of(snd_nxt + 0x40000000), DropReason::kTcpBlindAck);
  EXPECT_EQ(drop_of(lastack - max_window - 1), DropReason::kTcpBlindAck);
  EXPECT_EQ(app.got, "");
  EXPECT_TRUE(app.TakeSent().empty());
  // The limits themselves are inside.
  EXPECT_EQ(drop_of(lastack - max_window), std::nullopt);
  EXPECT_EQ(app.got, "evil");
  EXPECT_EQ(drop_of(snd_nxt), std::nullopt);
}

TEST_P(Outbound, SegmentsWithoutAckAreDropped) {
  Peer app(&e, *GetParam());
  ASSERT_TRUE(app.Syn());
  EXPECT_EQ(app.SegmentAt(app.seq, 0, "evil").drop, DropReason::kTcpBadState);
  app.Segment(tcp_flag::kAck);
  EXPECT_EQ(app.SegmentAt(app.seq, 0, "evil").drop, DropReason::kTcpBadState);
  EXPECT_EQ(app.SegmentAt(app.seq, tcp_flag::kFin, "evil").drop,
            DropReason::kTcpBadState);
  EXPECT_EQ(app.got, "");
  EXPECT_FALSE(app.app_fin);
}

TEST_P(Outbound, SynInAnOpenConnectionGetsAnAck) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.SegmentAt(app.seq + 5, tcp_flag::kSyn, "");  // RFC 5961, section 4
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].flags, tcp_flag::kAck);
  EXPECT_EQ(sent[0].ack, app.seq);
  EXPECT_FALSE(app.gone);
}

// RFC 6093: in-band.
TEST_P(Outbound, UrgentDataIsOrdinaryData) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.Send("a!b", tcp_flag::kAck | tcp_flag::kUrg | tcp_flag::kPsh);
  EXPECT_EQ(app.got, "a!b");
}

TEST_P(Outbound, SegmentsOf64KiB) {
  Peer app(&e, *GetParam());
  app.Connect();
  const std::string most = Pattern(65'535 - 20 - 1);
  const TcpEvents events = app.Send(most, tcp_flag::kAck | tcp_flag::kFin);
  EXPECT_EQ(events.drop, std::nullopt);
  EXPECT_TRUE(app.got == most);
  EXPECT_TRUE(app.app_fin);
}

TEST_P(Outbound, MoreThanLwipCanCountIsDropped) {
  Peer app(&e, *GetParam());
  app.Connect();
  EXPECT_EQ(app.Send(Pattern(65'516)).drop, DropReason::kBadTcpHeader);
}

TEST_P(Outbound, DataWithTheHandshakesAck) {
  Peer app(&e, *GetParam());
  ASSERT_TRUE(app.Syn());
  const TcpEvents events = app.Send("hello", tcp_flag::kAck | tcp_flag::kFin);
  EXPECT_TRUE(events.established);
  EXPECT_TRUE(events.app_fin);
  EXPECT_EQ(app.got, "hello");
  app.Queue("still open");
  app.TakeAll();
  EXPECT_EQ(app.stream, "still open");
}

// --- acknowledgements ---

TEST_P(Outbound, OneAckPerCallAtMost) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.Send(Pattern(44 * 1460));  // a super-segment, far beyond two segments
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].ack, app.seq);
}

// RFC 9293, 3.8.6.3; lwIP takes a super-segment for one.
TEST_P(Outbound, TwoSegmentsInOneAreAckedAtOnce) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.Send(Pattern(2 * 1460));
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].ack, app.seq);
}

TEST_P(Outbound, SmallSegmentsAreAckedAfterFortyMilliseconds) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.Send("x");
  EXPECT_TRUE(app.TakeSent().empty());
  EXPECT_EQ(app.UntilDeadline(), milliseconds(40));
  app.Advance(milliseconds(39));
  EXPECT_TRUE(app.TakeSent().empty());
  app.Advance(milliseconds(1));
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].ack, app.seq);
  EXPECT_TRUE(app.Idle());
}

TEST_P(Outbound, DataTakesTheAckAlong) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.Send("x");
  app.Queue("y");
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].ack, app.seq);
  app.ack = sent[0].End();
  app.Segment(tcp_flag::kAck);
  EXPECT_TRUE(app.Idle());
  EXPECT_TRUE(app.TakeSent().empty());
}

TEST_P(Outbound, TwoFullSegmentsAreAckedAtOnce) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.Send(Pattern(1400));
  app.TakeSent();
  app.Send(Pattern(1400));
  app.Send(Pattern(1400));
  EXPECT_GE(app.TakeSent().size(), 1u);
}

// The TUN is full when the delayed ACK is due: it is sent later, not lost.
TEST_P(Outbound, DelayedAckOutlivesAFullTun) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.Send("x");
  e.sink.room = 0;
  app.Advance(milliseconds(40));
  EXPECT_TRUE(app.conn.blocked);
  e.sink.room = -1;
  app.Finish();
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].ack, app.seq);
  EXPECT_FALSE(app.conn.blocked);
}

// --- the receive window: rule 14 ---

TEST_P(Outbound, WindowStartsAtTheFloor) {
  for (const uint32_t floor : {16u * 1024, 65'535u, 64u * 1024, 1u << 20}) {
    TcpEngine::Options o = Engine::Defaults();
    o.rx_floor = floor;
    o.rx_max = 4 << 20;
    e.tcp->Configure(o);
    Peer app(&e, *GetParam());
    app.Connect();
    EXPECT_EQ(app.syn_ack.window, std::min(floor, 65'535u));
    // A promise that is kept to the last byte.
    const uint32_t room = app.syn_ack.window;
    app.consume = 0;
    for (uint32_t done = 0; done < room; done += 1000) {
      app.Send(Pattern(std::min(1000u, room - done), done));
    }
    EXPECT_EQ(app.got.size(), room);
    app.Send("too much");
    EXPECT_EQ(app.got.size(), room);
  }
}

TEST_P(Outbound, AllThatSegmentsCarryBeyondTheWindowIsCut) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.consume = 0;
  app.Send(Pattern(60'000));
  app.Send(Pattern(60'000, 1));
  EXPECT_TRUE(app.got == Pattern(60'000) + Pattern(60'000, 1).substr(0, 5535));
}

// What one side of the wire knows of the window.
uint32_t RightEdge(const Sent& s, const Peer& app) {
  const bool scaled =
      app.options.window_scale.has_value() && !s.Has(tcp_flag::kSyn);
  return s.ack + (uint32_t{s.window} << (scaled ? 7 : 0));
}

TEST_P(Outbound, WindowOpensWithWhatTheHostTook) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.consume = 0;
  app.Send(Pattern(65'000));
  app.TakeSent();
  e.now += seconds(1);
  app.Consume(65'000);
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u) << "a window update of its own";
  EXPECT_GE(RightEdge(sent[0], app) - app.seq, 65'000u);
  EXPECT_TRUE(app.Idle());
}

// RFC 1122, 4.2.3.3.
TEST_P(Outbound, WindowDoesNotOpenByAFewBytes) {
  Peer app(&e, *GetParam());
  app.Connect();
  app.consume = 0;
  app.Send(Pattern(65'000));
  app.Send(Pattern(535));
  app.Advance(milliseconds(40));
  const Sent closed = app.TakeSent().back();
  EXPECT_EQ(closed.window, 0);
  app.Consume(100);
  app.SegmentAt(app.seq - 1, tcp_flag::kAck, "");  // a window probe
  const std::vector<Sent> sent = app.TakeSent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].window, 0);
}

TEST_P(Outbound, WindowGrowsWithAFastSenderAndNeverGoesBack) {
  TcpEngine::Options o = Engine::Defaults();
  o.rx_floor = 64 * 1024;
  o.rx_max = 1024 * 1024;
  e.tcp->Configure(o);
  for (const bool scale : {true, false}) {
    Peer app(&e, *GetParam());
    if (!scale) app.options.window_scale = {};
    app.Connect();
    uint32_t edge = RightEdge(app.syn_ack, app);
    Random random(3);
    uint32_t largest = 0;
    for (int i = 0; i < 3000; ++i) {
      // The host takes some, sometimes nothing, sometimes everything.
      app.consume = random() % 4 == 0 ? random() % 50'000 : UINT32_MAX;
      app.Send(
          Pattern(std::min<uint32_t>(edge - app.seq, 1 + random() % 60'000)));
      if (random() % 4 == 0) app.Consume(random() % 100'000);
      for (const Sent& s : app.TakeSent()) {
        const uint32_t next = RightEdge(s, app);
        // RFC 7323, 2.4: rounding by the scale is no shrinking.
        ASSERT_GE(static_cast<int32_t>(next - edge), scale ? -127 : 0);
        if (static_cast<int32_t>(next - edge) > 0) edge = next;
        largest = std::max(largest, edge - s.ack);
      }
      if (app.conn.rx_pending > 0 && random() % 8 == 0) app.Consume(1 << 22);
    }
    EXPECT_EQ(largest, scale ? 1024u * 1024 : 65'535u);
  }
}

TEST(OutboundWindow, GrowsOnlyWithTheBudget) {
  TcpEngine::Options o = Engine::Defaults();
  o.rx_floor = 64 * 1024;
  o.rx_max = 1024 * 1024;
  Engine e(o, /*budget=*/100 * 1024);
  Peer app(&e);
  app.Connect();
  for (int i = 0; i < 100; ++i) app.Send(Pattern(60'000));
  EXPECT_LE(app.conn.rx_promised, 100u * 1024);
  EXPECT_EQ(app.conn.rx_limit, 64u * 1024 + app.conn.rx_promised);
  EXPECT_GT(app.conn.rx_promised, 0u);

  // Another flow's memory is pressure: the promise goes back, step by step,
  // and the window never.
  uint32_t edge = 0;
  for (const Sent& s : app.TakeSent()) edge = RightEdge(s, app);
  Chunk* other = e.pool.Allocate(100 * 1024);
  for (int i = 0; i < 100 && app.conn.rx_promised > 0; ++i) {
    app.Send(Pattern(30'000));
    for (const Sent& s : app.TakeSent()) {
      ASSERT_GE(static_cast<int32_t>(RightEdge(s, app) - edge), -127);
      edge = RightEdge(s, app);
    }
  }
  EXPECT_EQ(app.conn.rx_promised, 0u);
  EXPECT_EQ(app.conn.rx_limit, 64u * 1024);
  e.pool.Free(other);
  EXPECT_TRUE(e.pool.HasRoom(100 * 1024));  // nothing is promised any more
}

TEST(OutboundWindow, PromisesEndWithTheConnection) {
  Engine e(Engine::Defaults(), /*budget=*/4 << 20);
  {
    Peer app(&e);
    app.Connect();
    for (int i = 0; i < 100; ++i) app.Send(Pattern(60'000));
    EXPECT_GT(app.conn.rx_promised, 0u);
  }
  EXPECT_TRUE(e.pool.HasRoom(4 << 20));
}

// --- what the SYN-ACK says ---

ByteVector MssOption(uint16_t mss) {
  ByteVector option = Hex("02040000");
  Store16(&option[2], mss);
  return option;
}

TEST_P(Outbound, SynAckTellsTheTunsMss) {
  const uint16_t headers = GetParam()->v4() ? 40 : 60;
  e.tcp.reset();
  for (const uint32_t mtu : {1280u, 1500u, 9000u, 65'535u}) {
    TcpEngine::Options o = Engine::Defaults();
    o.mtu = mtu;
    Engine mine(o);
    Peer app(&mine, *GetParam());
    app.options = {};
    app.Connect();
    EXPECT_EQ(
        app.syn_ack.options,
        MssOption(static_cast<uint16_t>(std::min(mtu - headers, 65'475u))));
  }
}

TEST_P(Outbound, SynAckOffersWhatTheSynDid) {
  Peer plain(&e, *GetParam(), 1);
  plain.options = {.mss = 1460, .window_scale = {}, .sack_permitted = false};
  plain.Connect();
  EXPECT_EQ(plain.syn_ack.options.size(), 4u);
  Peer both(&e, *GetParam(), 2);
  both.options = {.mss = 1460, .window_scale = 14, .sack_permitted = true};
  both.Connect();
  EXPECT_EQ(both.syn_ack.options,
            Concat(MssOption(GetParam()->v4() ? 1460 : 1440),
                   Hex("01030307 01010402")));
}

}  // namespace
}  // namespace netstack::test

// Flows from their SYN to their end: core/forward/tcp_forwarder.cc.
#include "core/forward/tcp_forwarder.h"

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/lwip/heap.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/forward/forward_rig.h"

namespace netstack::test {
namespace {

class Forwarder : public testing::TestWithParam<const Family*> {
 protected:
  const Family& family() const { return *GetParam(); }
  bool v4() const { return family().v4(); }
};
INSTANTIATE_TEST_SUITE_P(Families, Forwarder, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

// --- the dial ---

TEST_P(Forwarder, SynDialsItsDestinationAndWaits) {
  Rig rig;
  App app(&rig, family());
  app.Syn();
  ASSERT_EQ(rig.sockets.all().size(), 1u);
  EXPECT_EQ(app.socket().connected_to, (Endpoint{family().remote, 80}));
  EXPECT_TRUE(rig.TakeReplies().empty()) << "no handshake before the host's";
  EXPECT_EQ(app.Info().state, FlowState::kDialing);
  EXPECT_EQ(rig.tcp->stats().half_open, 1u);
  const auto watch = rig.poller.watch(app.socket().fd);
  ASSERT_TRUE(watch.has_value());
  EXPECT_EQ(watch->trigger, Poller::Trigger::kEdgeReadWrite);
}

TEST_P(Forwarder, HandshakeFollowsTheHosts) {
  Rig rig;
  App app(&rig, family());
  app.Syn();
  rig.Advance(milliseconds(35));
  app.Dialed();
  EXPECT_EQ(app.Info().state, FlowState::kHandshake);
  app.Handshake();
  EXPECT_EQ(app.Info().state, FlowState::kOpen);
  EXPECT_EQ(app.Info().dial_time, milliseconds(35));
  EXPECT_EQ(rig.tcp->stats().established, 1u);
  EXPECT_EQ(rig.tcp->stats().half_open, 0u);
}

TEST_P(Forwarder, ConnectedAtOnce) {
  Rig rig;
  rig.sockets.connect_result = 0;
  App app(&rig, family());
  app.Syn();
  app.Handshake();
  EXPECT_EQ(app.Info().state, FlowState::kOpen);
}

struct Outcome {
  int error;
  CloseReason reason;
  int v4_code;  // of ICMP type 3; -1: RST
  int v6_code;  // of ICMPv6 type 1
};
const Outcome kOutcomes[] = {
    {ECONNREFUSED, CloseReason::kRefused, -1, -1},
    {ECONNRESET, CloseReason::kRefused, -1, -1},
    {ENETUNREACH, CloseReason::kUnreachable, 0, 0},
    {ENETDOWN, CloseReason::kUnreachable, 0, 0},
    {EAFNOSUPPORT, CloseReason::kUnreachable, 0, 0},
    {EHOSTUNREACH, CloseReason::kUnreachable, 1, 3},
    {EHOSTDOWN, CloseReason::kUnreachable, 1, 3},
    {ENOPROTOOPT, CloseReason::kUnreachable, 1, 3},
    {ETIMEDOUT, CloseReason::kDialTimeout, 1, 3},
    {EACCES, CloseReason::kProhibited, 13, 1},
    {EPERM, CloseReason::kProhibited, 13, 1},
    {EADDRNOTAVAIL, CloseReason::kNoResources, -1, -1},
    {EIO, CloseReason::kHostError, -1, -1},
};

void ExpectAnswer(Rig& rig, App& app, const Outcome& o, bool v4) {
  const ByteVector syn = app.Packet(tcp_flag::kSyn);
  app.Deliver(rig.TakeReplies());
  const int code = v4 ? o.v4_code : o.v6_code;
  EXPECT_EQ(app.reset, code < 0);
  if (code < 0) {
    EXPECT_EQ(app.reset_seq, 0u);  // RFC 9293, 3.10.7.1
    EXPECT_EQ(app.reset_ack, app.seq + 1);
    EXPECT_TRUE(app.icmp.empty());
  } else {
    ASSERT_EQ(app.icmp.size(), 1u);
    EXPECT_EQ(app.icmp[0].type(), v4 ? 3 : 1);
    EXPECT_EQ(app.icmp[0].code(), code);
    // The whole SYN as it came: apps find their socket by it.
    const Bytes quote = app.icmp[0].quote();
    EXPECT_EQ(ByteVector(quote.begin(), quote.end()), syn);
  }
  EXPECT_EQ(rig.closed(o.reason), 1u);
  EXPECT_EQ(rig.tcp->stats().icmp_errors_sent, code < 0 ? 0u : 1u);
  EXPECT_EQ(rig.tcp->stats().active, 0u);
  EXPECT_EQ(rig.tcp->stats().half_open, 0u);
  EXPECT_EQ(rig.sockets.open_count(), 0u);
}

TEST_P(Forwarder, FailedDialShowsWhatTheNetworkSaid) {
  for (const Outcome& o : kOutcomes) {
    SCOPED_TRACE(o.error);
    Rig rig;
    App app(&rig, family());
    app.Syn();
    app.Dialed(o.error);
    ExpectAnswer(rig, app, o, v4());
  }
}

TEST_P(Forwarder, DialFailedAtOnce) {
  for (const Outcome& o : kOutcomes) {
    SCOPED_TRACE(o.error);
    Rig rig;
    rig.sockets.connect_result = -o.error;
    App app(&rig, family());
    app.Syn();
    ExpectAnswer(rig, app, o, v4());
  }
}

// What the network itself said about the dial, with its sender.
TEST_P(Forwarder, FailedDialHasTheRoutersWord) {
  Rig rig;
  App app(&rig, family());
  const ByteVector syn = app.Packet(tcp_flag::kSyn);
  app.Syn();
  ScriptedSocket& socket = rig.sockets.last();
  DatagramError e;
  e.error = EHOSTUNREACH;
  e.type = v4() ? 11 : 3;
  e.offender = *IpAddress::Parse(v4() ? "198.51.100.7" : "2001:db8:7::7");
  rig.datagrams.Of(socket.fd).PushError(e, "the SYN");
  EXPECT_TRUE(socket.keeps_errors);
  socket.so_error = EHOSTUNREACH;
  rig.Event(socket.fd, {.token = {}, .writable = true, .error = true});
  const std::vector<Reply> replies = rig.TakeReplies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].packet.source, e.offender);
  EXPECT_EQ(replies[0].type(), v4() ? 11 : 3);
  EXPECT_EQ(ByteVector(replies[0].quote().begin(), replies[0].quote().end()),
            syn);
}

// traceroute -T: only what no system begins with is the app's own wish.
TEST_P(Forwarder, ASmallTtlIsCarriedToTheHostSide) {
  const std::pair<int, std::optional<uint8_t>> kCases[] = {
      {2, uint8_t{1}}, {32, uint8_t{31}}, {33, std::nullopt},
      {64, std::nullopt}, {255, std::nullopt}};
  for (const auto& [app, host] : kCases) {
    Rig rig;
    ByteVector packet =
        MakeTcpPacket(family(), {.flags = tcp_flag::kSyn});
    Store8(&packet[v4() ? 8 : 7], static_cast<uint8_t>(app));
    if (v4()) FixV4Checksum(packet);
    rig.Give(packet);
    EXPECT_EQ(rig.sockets.last().ttl, host) << app;
  }
}

TEST_P(Forwarder, ErrorsAreSoftOnceConnected) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  EXPECT_FALSE(app.socket().keeps_errors);
}

TEST_P(Forwarder, DialTimesOutAfterThirtySeconds) {
  Rig rig;
  App app(&rig, family());
  app.Syn();
  rig.Advance(seconds(30) - milliseconds(1));
  EXPECT_TRUE(rig.TakeReplies().empty());
  rig.Advance(milliseconds(1) + TimerWheel::kTick);
  ExpectAnswer(rig, app, {0, CloseReason::kDialTimeout, 1, 3}, v4());
  EXPECT_EQ(rig.dialer.stats().timed_out, 1u);
}

TEST_P(Forwarder, SynWithDataIsQuotedWithoutIt) {
  Rig rig;
  App app(&rig, family());
  rig.Give(app.Packet(tcp_flag::kSyn, Pattern(500)));  // TCP Fast Open
  app.Dialed(EHOSTUNREACH);
  app.Deliver(rig.TakeReplies());
  ASSERT_EQ(app.icmp.size(), 1u);
  const OrDrop<Packet> quoted = ParsePacket(app.icmp[0].quote());
  ASSERT_TRUE(quoted);
  EXPECT_EQ(quoted->source, family().app);
  EXPECT_EQ(quoted->destination, family().remote);
  ASSERT_EQ(quoted->transport.size(), 24u);
  EXPECT_EQ(Load16(&quoted->transport[0]), app.port);
  EXPECT_EQ(Load32(&quoted->transport[4]), app.seq);
}

TEST_P(Forwarder, DuplicateSynsAreAbsorbed) {
  Rig rig;
  App app(&rig, family());
  app.Syn();
  app.Syn();
  app.Syn();
  EXPECT_EQ(rig.sockets.all().size(), 1u);
  EXPECT_EQ(rig.dropped(DropReason::kTcpDuplicateSyn), 2u);
  EXPECT_TRUE(rig.TakeReplies().empty());
  app.Dialed();
  app.Handshake();
}

TEST_P(Forwarder, AnotherIsnTakesTheKeptSynsPlace) {
  Rig rig;
  App app(&rig, family());
  app.Syn();
  app.seq = 900'000;
  app.syn_options = Hex("02040258");  // MSS 600
  app.Syn();
  EXPECT_EQ(rig.sockets.all().size(), 1u) << "the dial goes on";
  app.Dialed();
  app.Handshake();  // checks the acknowledgement
  app.silent = true;
  app.HostSends(Pattern(2000));
  EXPECT_TRUE(app.stream == Pattern(2000));
  for (const Reply& r : rig.TakeReplies()) {
    EXPECT_LE(r.tcp->payload.size(), 600u);
  }
}

TEST_P(Forwarder, OnlyTheSynsOwnResetCancelsTheDial) {
  for (const uint32_t offset : {0u, 1u}) {
    Rig rig;
    App app(&rig, family());
    app.Syn();
    const uint32_t isn = app.seq;
    for (const uint32_t wrong : {isn - 1, isn + 2, isn + 70'000}) {
      app.seq = wrong;
      rig.Give(app.Packet(tcp_flag::kRst));
      EXPECT_EQ(rig.tcp->stats().active, 1u);
    }
    EXPECT_EQ(rig.dropped(DropReason::kTcpBadState), 3u);
    app.seq = isn + offset;
    rig.Give(app.Packet(tcp_flag::kRst));
    EXPECT_EQ(rig.closed(CloseReason::kAppReset), 1u);
    EXPECT_EQ(rig.sockets.open_count(), 0u);
    EXPECT_TRUE(rig.TakeReplies().empty());
  }
}

TEST_P(Forwarder, NothingElseCountsWhileDialing) {
  Rig rig;
  App app(&rig, family());
  app.Syn();
  for (const uint8_t flags :
       {tcp_flag::kAck, uint8_t{0}, tcp_flag::kFin,
        static_cast<uint8_t>(tcp_flag::kSyn | tcp_flag::kAck)}) {
    rig.Give(app.Packet(flags, "x"));
  }
  EXPECT_EQ(rig.dropped(DropReason::kTcpBadState), 4u);
  EXPECT_TRUE(rig.TakeReplies().empty());
  EXPECT_EQ(rig.tcp->stats().active, 1u);
}

// R3: the last option is cut.
TEST_P(Forwarder, MalformedSynIsDropped) {
  Rig rig;
  App app(&rig, family());
  app.syn_options = Hex("01010102");
  app.Syn();
  EXPECT_TRUE(rig.sockets.all().empty());
  EXPECT_EQ(rig.dropped(DropReason::kBadTcpOptions), 1u);
  EXPECT_EQ(rig.tcp->stats().opened, 0u);
  EXPECT_EQ(rig.tcp->stats().half_open, 0u);
}

// R3: on an open flow, with data queued.
TEST_P(Forwarder, MssOptionOnAnOpenFlowDoesNothing) {
  Rig rig;
  App app(&rig, family());
  app.window = 3000;
  app.Connect();
  app.silent = true;
  app.HostSends(Pattern(50'000));
  TcpSpec spec;
  spec.source_port = app.port;
  spec.seq = app.seq;
  spec.ack = app.ack;
  spec.window = 3000;
  spec.options = Hex("02040004");
  rig.Give(MakeTcpPacket(family(), spec));
  app.silent = false;
  rig.Give(app.Packet(tcp_flag::kAck));
  app.Pump();
  EXPECT_TRUE(app.stream == Pattern(50'000));
  EXPECT_EQ(rig.tcp->stats().lwip_asserts, 0u);
}

TEST_P(Forwarder, SegmentsOfNoFlowAreReset) {
  Rig rig;
  App app(&rig, family());
  app.ack = 777;
  app.Send("hello?");
  EXPECT_TRUE(app.reset);
  EXPECT_EQ(app.reset_seq, 777u);
  EXPECT_EQ(rig.dropped(DropReason::kTcpNoFlow), 1u);
  // An RST is never answered.
  app.Rst();
  EXPECT_EQ(rig.dropped(DropReason::kTcpNoFlow), 2u);
  EXPECT_TRUE(rig.TakeReplies().empty());
}

TEST_P(Forwarder, HandshakeThatTheAppNeverEnds) {
  Rig rig;
  App app(&rig, family());
  app.Syn();
  app.Dialed();
  rig.Advance(seconds(60));
  EXPECT_EQ(rig.closed(CloseReason::kHandshakeTimeout), 1u);
  EXPECT_TRUE(app.socket().closed);
  EXPECT_TRUE(app.socket().reset);
}

TEST_P(Forwarder, HostFailsWhileTheHandshakeIsUnderWay) {
  Rig rig;
  App app(&rig, family());
  app.Syn();
  app.Dialed();
  app.Deliver(rig.TakeReplies());
  app.socket().so_error = ECONNRESET;
  rig.Event(app.socket().fd, {.token = {}, .readable = true, .error = true});
  app.Deliver(rig.TakeReplies());
  EXPECT_TRUE(app.reset);
  EXPECT_EQ(rig.closed(CloseReason::kHostReset), 1u);
}

// --- payload ---

TEST_P(Forwarder, BytesBothWays) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  const std::string up = Pattern(300'000, 1);
  for (size_t i = 0; i < up.size(); i += 1460) app.Send(up.substr(i, 1460));
  EXPECT_TRUE(app.socket().sent == up);
  const std::string down = Pattern(700'000, 2);
  app.HostSends(down);
  EXPECT_TRUE(app.stream == down);
  const FlowInfo info = app.Info();
  EXPECT_EQ(info.outbound_bytes, up.size());
  EXPECT_EQ(info.inbound_bytes, down.size());
  EXPECT_EQ(rig.tcp->stats().outbound_bytes, up.size());
  EXPECT_EQ(rig.tcp->stats().inbound_bytes, down.size());
  EXPECT_EQ(rig.pool.used(), 0u) << "an idle flow holds no buffer";
}

TEST_P(Forwarder, HostSpeaksFirst) {
  Rig rig;
  App app(&rig, family());
  app.Syn();
  // Its greeting and its FIN come before the app's ACK.
  app.socket_index = 0;
  app.socket().Feed("220 hello");
  app.socket().FeedEnd();
  rig.Event(
      app.socket().fd,
      {.token = {}, .readable = true, .writable = true, .read_closed = true});
  app.Handshake();
  EXPECT_TRUE(app.stream == "220 hello");
  EXPECT_TRUE(app.fin);
  EXPECT_EQ(app.Info().state, FlowState::kHostClosed);
}

// --- backpressure ---

TEST_P(Forwarder, SlowHostHoldsTheAppBack) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  app.socket().send_room = 1000;
  const std::string up = Pattern(300'000);
  size_t given = 0;
  for (int i = 0; i < 300; ++i) {
    app.Send(up.substr(given, 1000));
    given += 1000;
  }
  // One window, and what lies beyond it was not taken.
  EXPECT_EQ(app.socket().sent.size(), 1000u);
  EXPECT_LE(app.Info().outbound_buffered, 65'535u);
  EXPECT_LE(rig.pool.used(), 128u * 1024);
  const size_t calls = app.socket().send_calls;
  app.Send("");
  EXPECT_EQ(app.socket().send_calls, calls) << "not before it is writable";

  // As the app retransmits what had no room, everything arrives.
  const uint32_t start = 5001;
  for (int i = 0; i < 10'000 && app.socket().sent.size() < up.size(); ++i) {
    app.HostWritable(777);
    const size_t known =
        app.socket().sent.size() + app.Info().outbound_buffered;
    app.seq = start + static_cast<uint32_t>(known);
    if (known < up.size()) app.Send(up.substr(known, 1000));
  }
  EXPECT_TRUE(app.socket().sent == up);
  EXPECT_EQ(rig.pool.used(), 0u);
}

TEST_P(Forwarder, SlowAppHoldsTheHostBack) {
  Rig::Settings s;
  s.forwarder.buffer_floor = 64 * 1024;
  s.forwarder.buffer_max = 64 * 1024;
  Rig rig(s);
  App app(&rig, family());
  app.Connect();
  app.silent = true;
  app.window = 0;
  rig.Give(app.Packet(tcp_flag::kAck));
  const std::string down = Pattern(1'000'000);
  app.HostSends(down);
  const uint32_t held = app.Info().inbound_buffered;
  EXPECT_LE(held, 64u * 1024);
  EXPECT_GE(held, 48u * 1024);
  EXPECT_EQ(app.socket().unread(), down.size() - held);
  EXPECT_LE(rig.pool.used(), 2u * 64 * 1024);
  app.silent = false;
  app.window = 65'535;
  rig.Give(app.Packet(tcp_flag::kAck));
  app.Pump();
  EXPECT_TRUE(app.stream == down);
  EXPECT_EQ(rig.pool.used(), 0u);
}

TEST_P(Forwarder, FastAppMayHaveMore) {
  Rig rig;
  App app(&rig, family());
  app.syn_options = Hex("020405B4 01030307");
  app.window = 65'535;
  app.Connect();
  app.HostSends(Pattern(4'000'000));
  app.silent = true;  // and pauses
  app.HostSends(Pattern(4'000'000));
  const uint32_t held = app.Info().inbound_buffered;
  EXPECT_GT(held, 64u * 1024);
  EXPECT_LE(held, 1024u * 1024);
}

// Beyond the floors only the budget's bytes; a flow that waits goes on when
// there is room.
TEST_P(Forwarder, BudgetBoundsFastFlows) {
  Rig::Settings s;
  s.budget = 512 * 1024;
  Rig rig(s);
  std::vector<std::unique_ptr<App>> apps;
  for (int i = 0; i < 8; ++i) {
    apps.push_back(std::make_unique<App>(&rig, family(),
                                         static_cast<uint16_t>(40000 + i)));
    apps.back()->syn_options = Hex("020405B4 01030307");
    apps.back()->Connect();
    apps.back()->HostSends(Pattern(3'000'000));  // grows
    apps.back()->silent = true;
  }
  for (auto& app : apps) app->HostSends(Pattern(3'000'000));
  // A floor for each, and one chunk that is being read.
  EXPECT_LE(rig.pool.used(), 512u * 1024 + 8 * 128 * 1024);
  EXPECT_GT(rig.told(Pressure::kMemory), 0);
  EXPECT_GT(rig.tcp->memory_waits(), 0u);
  for (auto& app : apps) {
    app->silent = false;
    for (int i = 0; i < 100 && app->stream.size() < 6'000'000; ++i) {
      rig.Give(app->Packet(tcp_flag::kAck));
      app->Pump();
      rig.Advance(milliseconds(500));  // lost replies come again
      app->Pump();
    }
    EXPECT_EQ(app->stream.size(), 6'000'000u);
  }
}

TEST_P(Forwarder, FullTunLosesNothing) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  rig.tun.BlockWrites();
  const std::string down = Pattern(500'000);
  app.HostSends(down);
  app.Send("up");
  EXPECT_TRUE(app.socket().sent == "up");
  EXPECT_TRUE(rig.writer.blocked());
  const uint64_t tries = rig.tun.failed_writes();
  rig.Turn();
  EXPECT_EQ(rig.tun.failed_writes(), tries) << "not before it is writable";
  rig.tun.AllowWrites();
  rig.tcp->OnTunWritable(rig.now());
  rig.Turn();
  app.Pump();
  EXPECT_TRUE(app.stream == down);
  EXPECT_EQ(rig.tcp->stats().retransmits, 0u);
}

// A delayed ACK that is due while the TUN is full.
TEST_P(Forwarder, DelayedAckWaitsForTheTun) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  app.Send("x");
  rig.tun.BlockWrites();
  rig.Advance(milliseconds(50));
  EXPECT_TRUE(rig.writer.blocked());
  rig.tun.AllowWrites();
  rig.tcp->OnTunWritable(rig.now());
  const std::vector<Reply> replies = rig.TakeReplies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].tcp->ack, app.seq);
}

// --- ends ---

TEST_P(Forwarder, AppHalfCloses) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  app.Send("request", tcp_flag::kAck | tcp_flag::kFin);
  EXPECT_TRUE(app.socket().sent == "request");
  EXPECT_TRUE(app.socket().write_shut);
  EXPECT_FALSE(app.socket().closed);
  EXPECT_EQ(app.Info().state, FlowState::kAppClosed);
  app.HostSends("answer");
  EXPECT_TRUE(app.stream == "answer");
  app.HostCloses();
  EXPECT_TRUE(app.fin);
  EXPECT_TRUE(app.socket().closed);
  EXPECT_FALSE(app.socket().reset);
  EXPECT_EQ(rig.closed(CloseReason::kFinished), 1u);
  EXPECT_EQ(rig.tcp->stats().active, 0u);
}

TEST_P(Forwarder, HostHalfCloses) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  app.HostSends("hello");
  app.HostCloses();
  EXPECT_TRUE(app.fin);
  EXPECT_TRUE(app.stream == "hello");
  EXPECT_EQ(app.Info().state, FlowState::kHostClosed);
  app.Send("more");
  EXPECT_TRUE(app.socket().sent == "more");
  EXPECT_FALSE(app.socket().write_shut);
  app.Fin();
  EXPECT_TRUE(app.socket().write_shut);
  EXPECT_TRUE(app.socket().closed);
  EXPECT_FALSE(app.socket().reset);
  EXPECT_EQ(app.Info().state, FlowState::kTimeWait);
  EXPECT_EQ(rig.tcp->stats().time_wait, 1u);
  rig.Advance(seconds(10) + TimerWheel::kTick);
  EXPECT_EQ(rig.closed(CloseReason::kFinished), 1u);
  EXPECT_EQ(rig.tcp->stats().active, 0u);
  EXPECT_FALSE(app.reset) << "TIME_WAIT ends in silence";
}

TEST_P(Forwarder, BothCloseAtOnce) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  app.silent = true;
  app.HostCloses();
  app.silent = false;
  const uint32_t ack = app.ack;
  app.ack = ack - (app.fin ? 1 : 0);  // the app has not seen it yet
  app.Fin();
  app.ack = ack;
  rig.Give(app.Packet(tcp_flag::kAck));
  EXPECT_TRUE(app.fin);
  EXPECT_EQ(app.Info().state, FlowState::kTimeWait);
  EXPECT_TRUE(app.socket().closed);
  EXPECT_FALSE(app.socket().reset);
}

TEST_P(Forwarder, AppResets) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  app.Rst();
  EXPECT_TRUE(app.socket().closed);
  EXPECT_TRUE(app.socket().reset) << "as on a direct route";
  EXPECT_EQ(rig.closed(CloseReason::kAppReset), 1u);
  EXPECT_TRUE(rig.TakeReplies().empty());
}

struct HostError {
  int error;
  CloseReason reason;
};
const HostError kHostErrors[] = {
    {ECONNRESET, CloseReason::kHostReset},
    {EPIPE, CloseReason::kHostReset},
    {ECONNABORTED, CloseReason::kHostReset},
    {ETIMEDOUT, CloseReason::kHostTimeout},
    {EHOSTUNREACH, CloseReason::kUnreachable},
    {ENETUNREACH, CloseReason::kUnreachable},
    {ENETDOWN, CloseReason::kUnreachable},
    {ENOBUFS, CloseReason::kNoResources},
    {EIO, CloseReason::kHostError},
};

TEST_P(Forwarder, HostFailsWhileReading) {
  for (const HostError& h : kHostErrors) {
    SCOPED_TRACE(h.error);
    Rig rig;
    App app(&rig, family());
    app.Connect();
    app.socket().receive_error = h.error;
    rig.Event(app.socket().fd,
              {.token = {}, .readable = true, .writable = true, .error = true});
    app.Deliver(rig.TakeReplies());
    EXPECT_TRUE(app.reset);
    EXPECT_EQ(app.reset_seq, app.ack);
    EXPECT_EQ(rig.closed(h.reason), 1u);
  }
}

TEST_P(Forwarder, HostFailsWhileWriting) {
  for (const HostError& h : kHostErrors) {
    SCOPED_TRACE(h.error);
    Rig rig;
    App app(&rig, family());
    app.Connect();
    app.socket().send_error = h.error;
    app.Send("hello");
    EXPECT_TRUE(app.reset);
    EXPECT_EQ(rig.closed(h.reason), 1u);
  }
}

TEST_P(Forwarder, HostFailsWhileFlushing) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  app.socket().send_room = 0;
  app.Send("hello");
  app.socket().send_error = EPIPE;
  rig.Event(app.socket().fd, {.token = {}, .writable = true});
  app.Deliver(rig.TakeReplies());
  EXPECT_TRUE(app.reset);
  EXPECT_EQ(rig.closed(CloseReason::kHostReset), 1u);
}

// What the app sent before it left still reaches the host.
TEST_P(Forwarder, LastBytesOutliveTheApp) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  app.HostCloses();  // so that the app's FIN ends the tun side
  app.socket().send_room = 100;
  app.Send(Pattern(5000), tcp_flag::kAck | tcp_flag::kFin);
  EXPECT_EQ(app.Info().state, FlowState::kTimeWait);
  EXPECT_EQ(app.socket().sent.size(), 100u);
  rig.Advance(seconds(30));  // longer than TIME_WAIT
  EXPECT_FALSE(app.socket().closed);
  app.HostWritable(SIZE_MAX);
  EXPECT_TRUE(app.socket().sent == Pattern(5000));
  EXPECT_TRUE(app.socket().write_shut);
  EXPECT_TRUE(app.socket().closed);
  EXPECT_FALSE(app.socket().reset);
}

TEST_P(Forwarder, LastBytesOutliveLwipsConnection) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  app.socket().send_room = 0;
  app.Send(Pattern(5000), tcp_flag::kAck | tcp_flag::kFin);
  app.HostCloses();  // LAST_ACK, and the app acknowledges: lwIP is done
  EXPECT_TRUE(app.fin);
  ASSERT_EQ(rig.tcp->stats().active, 1u);
  app.HostWritable(2000);
  EXPECT_FALSE(app.socket().closed);
  app.HostWritable(SIZE_MAX);
  EXPECT_TRUE(app.socket().sent == Pattern(5000));
  EXPECT_TRUE(app.socket().closed);
  EXPECT_FALSE(app.socket().reset);
  EXPECT_EQ(rig.closed(CloseReason::kFinished), 1u);
}

// The remote must not take a part for the whole.
TEST_P(Forwarder, BytesThatWereGivenUpEndInAReset) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  app.HostCloses();
  app.socket().send_room = 100;
  app.Send(Pattern(5000), tcp_flag::kAck | tcp_flag::kFin);
  ASSERT_EQ(app.Info().state, FlowState::kTimeWait);
  ScriptedSocket& old = app.socket();
  app.seq += 100'000;
  app.Syn();  // the port is needed again
  EXPECT_TRUE(old.closed);
  EXPECT_TRUE(old.reset);
}

TEST_P(Forwarder, VanishedAppEndsTheFlow) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  app.silent = true;
  app.HostSends("anybody there?");
  rig.Advance(std::chrono::minutes(20));
  EXPECT_EQ(rig.closed(CloseReason::kAppTimeout), 1u);
  EXPECT_TRUE(app.socket().reset);
}

// --- TIME_WAIT ---

void ToTimeWait(App& app) {
  app.Connect();
  app.HostCloses();
  app.Fin();
  ASSERT_EQ(app.Info().state, FlowState::kTimeWait);
}

TEST_P(Forwarder, PortIsReusedAfterTheHostClosedFirst) {
  Rig rig;
  App app(&rig, family());
  ToTimeWait(app);
  rig.Advance(milliseconds(50));
  app.seq += 1000;
  app.syn_ack_seen = false;
  app.fin = false;
  app.Connect();
  EXPECT_FALSE(app.reset);
  app.Send("again");
  EXPECT_TRUE(app.socket().sent == "again");
  EXPECT_EQ(rig.tcp->stats().time_wait, 0u);
  EXPECT_EQ(rig.tcp->stats().opened, 2u);
}

TEST_P(Forwarder, OldSynInTimeWaitGetsAnAckAndNoReset) {
  Rig rig;
  App app(&rig, family());
  ToTimeWait(app);
  const uint32_t next = app.seq;
  app.seq -= 1000;
  app.Syn();
  const std::vector<Reply> replies = rig.TakeReplies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].tcp->flags, tcp_flag::kAck);
  EXPECT_EQ(replies[0].tcp->ack, next);
  EXPECT_EQ(rig.tcp->stats().time_wait, 1u);
}

TEST_P(Forwarder, TimeWaitIsCapped) {
  Rig rig;
  for (size_t i = 0; i < TcpForwarder::kMaxTimeWait + 10; ++i) {
    App app(&rig, family(), static_cast<uint16_t>(1000 + i));
    app.remote_port = static_cast<uint16_t>(1000 + i);
    ToTimeWait(app);
  }
  EXPECT_EQ(rig.tcp->stats().time_wait, TcpForwarder::kMaxTimeWait);
  EXPECT_EQ(rig.tcp->stats().active, TcpForwarder::kMaxTimeWait);
  EXPECT_EQ(rig.closed(CloseReason::kFinished), 10u);
}

// --- timeouts: RFC 5382 ---

TEST_P(Forwarder, IdleFlowEndsAfterItsTimeout) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  rig.Advance(seconds(7440) - milliseconds(1));
  EXPECT_EQ(rig.tcp->stats().active, 1u);
  rig.Advance(milliseconds(1) + TimerWheel::kTick);
  EXPECT_EQ(rig.closed(CloseReason::kIdleTimeout), 1u);
  app.Deliver(rig.TakeReplies());
  EXPECT_TRUE(app.reset);
  EXPECT_TRUE(app.socket().reset);
}

TEST_P(Forwarder, TrafficEitherWayKeepsAFlow) {
  Rig rig;
  App app(&rig, family());
  app.Connect();
  for (int i = 0; i < 4; ++i) {
    rig.Advance(seconds(7000));
    app.Pump();
    if (i % 2 == 0) {
      app.Send("x");
    } else {
      app.HostSends("y");
    }
  }
  EXPECT_EQ(rig.tcp->stats().active, 1u);
}

TEST_P(Forwarder, HalfClosedFlowsEndSooner) {
  for (const bool by_app : {true, false}) {
    Rig rig;
    App app(&rig, family());
    app.Connect();
    if (by_app) {
      app.Fin();
    } else {
      app.HostCloses();
    }
    rig.Advance(seconds(239));
    EXPECT_EQ(rig.tcp->stats().active, 1u);
    rig.Advance(seconds(2));
    EXPECT_EQ(rig.closed(CloseReason::kIdleTimeout), 1u);
  }
}

// P10 in miniature: open, half-closed by the host and TIME_WAIT flows do not
// wake anybody before their deadline.
TEST_P(Forwarder, IdleFlowsNeedNoTurn) {
  Rig rig;
  std::vector<std::unique_ptr<App>> apps;
  for (int i = 0; i < 100; ++i) {
    apps.push_back(
        std::make_unique<App>(&rig, family(), static_cast<uint16_t>(1000 + i)));
    apps.back()->Connect();
    apps.back()->Send("x");
    apps.back()->HostSends("y");
  }
  rig.Advance(seconds(31));  // delayed ACKs, and the timers of the dials
  EXPECT_GE(rig.tcp->next_deadline(rig.now()) - rig.now(), seconds(7000));
}

// --- limits ---

TEST_P(Forwarder, FlowLimitResetsNewFlows) {
  Rig::Settings s;
  s.max_flows = 2;
  Rig rig(s);
  App first(&rig, family(), 1);
  App second(&rig, family(), 2);
  App third(&rig, family(), 3);
  first.Connect();
  second.Syn();
  third.Syn();
  third.Deliver(rig.TakeReplies());
  EXPECT_TRUE(third.reset);
  EXPECT_EQ(third.reset_ack, third.seq + 1);
  EXPECT_EQ(rig.dropped(DropReason::kFlowTableFull), 1u);
  EXPECT_EQ(rig.told(Pressure::kFlowLimit), 1);
  EXPECT_EQ(rig.sockets.all().size(), 2u);
  first.Send("alive");
  EXPECT_EQ(first.socket().sent, "alive");
  first.Rst();
  third.reset = false;
  third.Connect();
  EXPECT_FALSE(third.reset);
}

// A flow in TIME_WAIT has no socket, and takes nobody's place.
TEST_P(Forwarder, TimeWaitDoesNotCountAgainstTheFlowLimit) {
  Rig::Settings s;
  s.max_flows = 1;
  Rig rig(s);
  for (uint16_t i = 0; i < 10; ++i) {
    App app(&rig, family(), static_cast<uint16_t>(1 + i));
    ToTimeWait(app);
    EXPECT_FALSE(app.reset);
  }
}

TEST_P(Forwarder, WithoutDescriptorsNewFlowsAreReset) {
  for (const int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM}) {
    Rig rig;
    rig.sockets.open_results = {-error};
    App app(&rig, family());
    app.Syn();
    app.Deliver(rig.TakeReplies());
    EXPECT_TRUE(app.reset);
    EXPECT_EQ(rig.dropped(DropReason::kNoDescriptors), 1u);
    EXPECT_EQ(rig.closed(CloseReason::kNoResources), 1u);
    EXPECT_EQ(rig.told(Pressure::kDescriptors), 1);
    app.reset = false;
    app.Connect();  // as soon as there is one
    EXPECT_FALSE(app.reset);
  }
}

TEST_P(Forwarder, UnwatchableSocketIsClosed) {
  Rig rig;
  rig.poller.add_result = -ENOSPC;
  App app(&rig, family());
  app.Syn();
  app.Deliver(rig.TakeReplies());
  EXPECT_TRUE(app.reset);
  EXPECT_EQ(rig.sockets.open_count(), 0u);
}

TEST_P(Forwarder, UnprotectedSocketIsNeverConnected) {
  Rig rig;
  std::vector<std::unique_ptr<Protector>> protectors;
  protectors.push_back(std::make_unique<MarkProtector>(&rig.sockets, 7));
  rig.dialer.SetProtectors(std::move(protectors));
  rig.sockets.mark_result = -EPERM;
  App app(&rig, family());
  app.Syn();
  app.Deliver(rig.TakeReplies());
  EXPECT_TRUE(app.reset);
  EXPECT_EQ(app.socket().connected_to, std::nullopt);
  EXPECT_EQ(rig.closed(CloseReason::kProtectFailed), 1u);
  EXPECT_EQ(rig.told(Pressure::kProtect), 1);
}

TEST_P(Forwarder, HalfOpenFlowsPerDestinationAreCapped) {
  Rig::Settings s;
  s.forwarder.gate.max_half_open = 1000;
  s.forwarder.gate.max_per_destination = 5;
  Rig rig(s);
  for (uint16_t i = 0; i < 8; ++i) {
    App app(&rig, family(), static_cast<uint16_t>(1 + i));
    app.Syn();
  }
  EXPECT_EQ(rig.tcp->stats().half_open, 5u);
  EXPECT_EQ(rig.dropped(DropReason::kHalfOpenLimit), 3u);
  EXPECT_TRUE(rig.TakeReplies().empty()) << "the SYN will come again";
  App elsewhere(&rig, family(), 100);
  elsewhere.remote_port = 81;
  elsewhere.Syn();
  EXPECT_EQ(rig.tcp->stats().half_open, 6u);
}

// A quarter of the cap is pressure: then only a repeated SYN is dialed.
TEST_P(Forwarder, UnderPressureASynHasToComeTwice) {
  Rig::Settings s;
  s.forwarder.gate.max_half_open = 40;
  Rig rig(s);
  for (uint16_t i = 0; i < 10; ++i) {
    App(&rig, family(), static_cast<uint16_t>(1 + i)).Syn();
  }
  ASSERT_EQ(rig.tcp->stats().half_open, 10u);
  App app(&rig, family(), 100);
  app.Syn();
  EXPECT_EQ(rig.dropped(DropReason::kSynUnproven), 1u);
  EXPECT_EQ(rig.told(Pressure::kHalfOpen), 1);
  EXPECT_EQ(rig.tcp->stats().half_open, 10u);
  rig.Advance(seconds(1));
  app.Connect();
  EXPECT_EQ(app.Info().state, FlowState::kOpen);
}

// --- memory fails ---

TEST_P(Forwarder, NoMemoryForTheHandshakeWaitsForTheNextSyn) {
  Rig rig;
  App app(&rig, family());
  app.Syn();
  SetLwipAllocationFaults(1);
  app.Dialed();
  SetLwipAllocationFaults(0);
  EXPECT_TRUE(rig.TakeReplies().empty());
  app.Syn();
  app.Handshake();
  app.Send("hello");
  EXPECT_TRUE(app.socket().sent == "hello");
}

TEST_P(Forwarder, NoMemoryForTheHandshakeAtAll) {
  Rig rig;
  App app(&rig, family());
  app.Syn();
  SetLwipAllocationFaults(1);
  app.Dialed();
  rig.Advance(seconds(61));
  SetLwipAllocationFaults(0);
  EXPECT_EQ(rig.closed(CloseReason::kHandshakeTimeout), 1u);
}

// --- for people ---

TEST_P(Forwarder, ListPagesByAscendingId) {
  Rig rig;
  std::vector<uint64_t> ids;
  for (uint16_t i = 0; i < 25; ++i) {
    App app(&rig, family(), static_cast<uint16_t>(100 - i));
    app.Connect();
    ids.push_back(app.Info().id);
  }
  EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
  std::vector<uint64_t> listed;
  uint64_t after = 0;
  while (true) {
    const auto page = rig.tcp->List({}, after, 10, rig.now());
    EXPECT_LE(page.size(), 10u);
    if (page.empty()) break;
    for (const FlowInfo& f : page) listed.push_back(f.id);
    after = page.back().id;
  }
  EXPECT_EQ(listed, ids);
  EXPECT_TRUE(rig.tcp->List({}, 0, 0, rig.now()).empty());
}

TEST_P(Forwarder, ListTellsTheHostSide) {
  Rig rig;
  App app(&rig, family());
  app.Syn();
  EXPECT_EQ(app.Info().upstream_local.port, 0);
  app.Dialed();
  app.Handshake();
  const FlowInfo info = app.Info();
  EXPECT_EQ(info.upstream_local, app.socket().local);
  EXPECT_EQ(info.rtt, milliseconds(20));
  EXPECT_EQ(info.key.app, (Endpoint{family().app, app.port}));
  EXPECT_EQ(info.key.remote, (Endpoint{family().remote, 80}));
  EXPECT_EQ(info.outbound_packets, 2u);
  EXPECT_EQ(info.inbound_packets, 1u);
  rig.Advance(seconds(5));
  EXPECT_EQ(app.Info().idle, seconds(5));
  EXPECT_EQ(app.Info().age, seconds(5));
}

TEST_P(Forwarder, CloseResetsBothSidesOfWhatMatches) {
  Rig rig;
  App open(&rig, family(), 1);
  open.Connect();
  App dialing(&rig, family(), 2);
  dialing.Syn();
  App other(&rig, family(), 3);
  other.remote_port = 443;
  other.Connect();
  FlowFilter filter;
  filter.remote_port = 80;
  EXPECT_EQ(rig.tcp->Close(filter, rig.now()), 2u);
  const std::vector<Reply> replies = rig.TakeReplies();
  open.Deliver(replies);
  dialing.Deliver(replies);
  EXPECT_TRUE(open.reset);
  EXPECT_TRUE(dialing.reset);
  EXPECT_TRUE(open.socket().reset);
  EXPECT_EQ(rig.closed(CloseReason::kClosedByRequest), 2u);
  EXPECT_EQ(rig.List().size(), 1u);
  EXPECT_EQ(rig.tcp->Close(filter, rig.now()), 0u);
}

TEST_P(Forwarder, ShutdownResetsEverybody) {
  Rig rig;
  App open(&rig, family(), 1);
  open.Connect();
  App dialing(&rig, family(), 2);
  dialing.Syn();
  App waiting(&rig, family(), 3);
  ToTimeWait(waiting);
  rig.tcp->Shutdown(rig.now());
  const std::vector<Reply> replies = rig.TakeReplies();
  for (App* app : {&open, &dialing, &waiting}) app->Deliver(replies);
  EXPECT_TRUE(open.reset);
  EXPECT_TRUE(dialing.reset);
  EXPECT_FALSE(waiting.reset);
  EXPECT_EQ(rig.closed(CloseReason::kStackStopped), 3u);
  EXPECT_EQ(rig.sockets.open_count(), 0u);
  App late(&rig, family(), 4);
  late.Syn();
  EXPECT_EQ(rig.dropped(DropReason::kShuttingDown), 1u);
}

TEST_P(Forwarder, ChangesAreToldInOrder) {
  Rig rig;
  App quiet(&rig, family(), 1);
  quiet.Connect();
  EXPECT_TRUE(rig.listener.changes.empty());
  rig.tcp->SetFlowChanges(true);
  App app(&rig, family(), 2);
  app.Connect();
  app.Fin();
  app.HostCloses();
  std::vector<FlowState> states;
  for (const auto& [change, flow] : rig.listener.changes) {
    EXPECT_EQ(flow.key.app.port, 2);
    EXPECT_EQ(change == FlowChange::kOpened, flow.state == FlowState::kDialing);
    EXPECT_EQ(change == FlowChange::kClosed, flow.state == FlowState::kClosed);
    states.push_back(flow.state);
  }
  EXPECT_THAT(states,
              testing::ElementsAre(FlowState::kDialing, FlowState::kHandshake,
                                   FlowState::kOpen, FlowState::kAppClosed,
                                   FlowState::kClosing, FlowState::kClosed));
  EXPECT_EQ(rig.listener.changes.back().second.close_reason,
            CloseReason::kFinished);
  rig.tcp->SetFlowChanges(false);
}

// An event of a flow that is gone finds nobody, even in a reused record.
TEST_P(Forwarder, StaleEventsAreIgnored) {
  Rig rig;
  App app(&rig, family(), 1);
  app.Connect();
  const PollToken old = rig.poller.watch(app.socket().fd)->token;
  app.Rst();
  App next(&rig, family(), 2);
  next.Syn();
  rig.tcp->OnSocket({.token = old, .writable = true}, rig.now());
  EXPECT_EQ(next.Info().state, FlowState::kDialing);
}

TEST_P(Forwarder, ConfigureAppliesToNewFlows) {
  Rig rig;
  TcpForwarder::Options o;
  o.dial_timeout = seconds(5);
  rig.slots.set_limit(1);
  rig.tcp->Configure(o);
  App app(&rig, family(), 1);
  app.Syn();
  App second(&rig, family(), 2);
  second.Syn();
  EXPECT_EQ(rig.dropped(DropReason::kFlowTableFull), 1u);
  rig.Advance(seconds(5) + TimerWheel::kTick);
  EXPECT_EQ(rig.closed(CloseReason::kDialTimeout), 1u);
}

}  // namespace
}  // namespace netstack::test

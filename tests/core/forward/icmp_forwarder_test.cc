// Echoes through scripted ping sockets: core/forward/icmp_forwarder.h.
#include "core/forward/icmp_forwarder.h"

#include <cerrno>
#include <initializer_list>

#include "gtest/gtest.h"
#include "tests/core/forward/icmp_rig.h"

namespace netstack::test {
namespace {

class Echoes : public testing::TestWithParam<const Family*> {
 protected:
  const Family& family() const { return *GetParam(); }
  bool v4() const { return family().v4(); }
  uint8_t protocol() const { return v4() ? 1 : 58; }

  ByteVector Request(uint16_t id, uint16_t seq, absl::string_view data = "data",
                     uint8_t ttl = 64, uint8_t tos = 0) const {
    return RequestTo(family().remote, id, seq, data, ttl, tos);
  }
  ByteVector RequestTo(const IpAddress& to, uint16_t id, uint16_t seq,
                       absl::string_view data = "data", uint8_t ttl = 64,
                       uint8_t tos = 0) const {
    Family f = family();
    f.remote = to;
    ByteVector packet =
        MakeIp(f.app, f.remote, protocol(), MakeEcho(f, id, seq, BytesOf(data)));
    if (v4()) {
      Store8(&packet[8], ttl);
      Store8(&packet[1], tos);
      FixV4Checksum(packet);
    } else {
      Store8(&packet[7], ttl);
      Store32(&packet[0], 0x60000000u | static_cast<uint32_t>(tos) << 20);
    }
    return packet;
  }
  IpAddress Other(int n) const {
    if (v4()) {
      return IpAddress::V4(198, 51, static_cast<uint8_t>(n >> 8),
                           static_cast<uint8_t>(n));
    }
    return *IpAddress::Parse("2001:db8:7::" + std::to_string(n + 1));
  }
  ScriptedDatagramSocket::Arrival ReplyFrom(const IpAddress& from, uint16_t seq,
                                            absl::string_view data = "data",
                                            uint8_t ttl = 60,
                                            uint8_t tos = 0) const {
    return {{from, 0}, EchoText(v4(), true, 999, seq, data), 0, tos, ttl};
  }
  DatagramError FromRouter(uint8_t type, uint8_t code, int error) const {
    DatagramError e;
    e.error = error;
    e.type = type;
    e.code = code;
    e.offender = *IpAddress::Parse(v4() ? "203.0.113.1" : "2001:db8:f::1");
    e.destination = {family().remote, 0};
    return e;
  }
  // What a router quotes of a request that went out as id 999.
  std::string Quoted(uint16_t seq, absl::string_view data = "data") const {
    return EchoText(v4(), false, 999, seq, data);
  }
  // The one message that the app got, an ICMP error about `request`.
  void ExpectError(IcmpRig& rig, uint8_t type, uint8_t code,
                   const IpAddress& from, const ByteVector& request) {
    const std::vector<Reply> replies = rig.TakeReplies();
    ASSERT_EQ(replies.size(), 1u);
    EXPECT_EQ(replies[0].packet.source, from);
    EXPECT_EQ(replies[0].packet.destination, family().app);
    EXPECT_EQ(replies[0].type(), type);
    EXPECT_EQ(replies[0].code(), code);
    // But for the TTL, and IPv4's sum over it.
    ByteVector quote(replies[0].quote().begin(), replies[0].quote().end());
    ASSERT_EQ(quote.size(), request.size());
    if (v4()) {
      EXPECT_EQ(NaiveChecksum(Bytes(quote).first(20)), 0);
      Store8(&quote[8], Load8(&request[8]));
      FixV4Checksum(quote);
    } else {
      Store8(&quote[7], Load8(&request[7]));
    }
    EXPECT_EQ(quote, request);
  }
};
INSTANTIATE_TEST_SUITE_P(Families, Echoes, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TEST_P(Echoes, ThereAndBack) {
  IcmpRig rig;
  rig.Give(Request(77, 5, "hello", 64, 0xB8));
  ASSERT_EQ(rig.sockets.all().size(), 1u);
  EXPECT_EQ(rig.sockets.last().kind, SocketKind::kEcho);
  EXPECT_EQ(rig.sockets.last().v4, v4());
  EXPECT_TRUE(rig.last().prepared);
  ASSERT_EQ(rig.last().sent.size(), 1u);
  const auto& sent = rig.last().sent[0];
  EXPECT_EQ(sent.to.ip, family().remote);
  EXPECT_EQ(sent.ttl, 63);
  EXPECT_EQ(sent.tos, 0xB8);
  EXPECT_EQ(sent.payload, EchoText(v4(), false, 77, 5, "hello"));
  EXPECT_TRUE(rig.tun.written().empty());  // nothing is answered by us

  rig.last().Feed(ReplyFrom(family().remote, 5, "hello", 60, 0x10));
  rig.Readable(rig.last_fd());
  const std::vector<Reply> replies = rig.TakeReplies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].packet.source, family().remote);
  EXPECT_EQ(replies[0].packet.destination, family().app);
  EXPECT_EQ(replies[0].packet.ttl, 59);
  EXPECT_EQ(replies[0].packet.tos, 0x10);
  const auto icmp = ParseIcmp(replies[0].packet, ChecksumTrust::kVerify);
  ASSERT_TRUE(icmp);
  EXPECT_EQ(icmp->type, v4() ? 0 : 129);
  EXPECT_EQ(icmp->id, 77);  // the app's, not the socket's
  EXPECT_EQ(icmp->seq, 5);
  EXPECT_EQ(TextOf(icmp->payload), "hello");
  const IcmpStats s = rig.echoes->stats();
  EXPECT_EQ(s.requests, 1u);
  EXPECT_EQ(s.replies, 1u);
  EXPECT_EQ(s.outbound_bytes, 5u);
  EXPECT_EQ(s.inbound_bytes, 5u);
}

TEST_P(Echoes, OneSocketPerAppAndId) {
  IcmpRig rig;
  rig.Give(Request(1, 1));
  rig.Give(Request(1, 2));
  rig.Give(RequestTo(Other(1), 1, 1));
  EXPECT_EQ(rig.sockets.all().size(), 1u);
  rig.Give(Request(2, 1));
  EXPECT_EQ(rig.sockets.all().size(), 2u);
  EXPECT_EQ(rig.echoes->stats().sockets, 2u);
  EXPECT_EQ(rig.echoes->stats().active, 3u);  // destinations
}

TEST_P(Echoes, OurOwnEchoIsNotCarriedAgain) {
  IcmpRig rig;
  rig.Give(Request(7, 1));
  const uint16_t ours = rig.sockets.last().local.port;
  rig.Give(Request(ours, 1, "data", 63));
  EXPECT_EQ(rig.dropped(DropReason::kLoop), 1u);
  EXPECT_EQ(rig.sockets.all().size(), 1u);
  // Another app's, which has that id by chance.
  rig.Give(Request(ours, 2));
  EXPECT_EQ(rig.dropped(DropReason::kLoop), 1u);
  EXPECT_EQ(rig.sockets.all().size(), 2u);
}

TEST_P(Echoes, ARuleMayBlockThem) {
  IcmpRig rig;
  rig.listener.decision = AppDecision::kBlock;
  rig.Give(Request(7, 1));
  EXPECT_EQ(rig.dropped(DropReason::kAppBlocked), 1u);
  const std::vector<Reply> replies = rig.TakeReplies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].type(), v4() ? 3 : 1);
  EXPECT_EQ(replies[0].code(), v4() ? 13 : 1);
  EXPECT_TRUE(rig.last().sent.empty());
}

TEST_P(Echoes, OnlyThoseWhoWereAskedMayReply) {
  IcmpRig rig;
  rig.Give(Request(1, 1));
  rig.last().Feed(ReplyFrom(Other(3), 1));
  rig.last().Feed({{family().remote, 0}, "short"});
  rig.last().Feed(
      {{family().remote, 0}, EchoText(v4(), false, 1, 1, "a request")});
  rig.Readable(rig.last_fd());
  EXPECT_TRUE(rig.tun.written().empty());
  EXPECT_EQ(rig.dropped(DropReason::kEchoUnasked), 3u);
}

TEST_P(Echoes, BigRepliesAreFragmented) {
  IcmpRig rig({.tun = {.mtu = 1400}});
  std::string data(5000, 'x');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7);
  const ByteVector request =
      MakeIp(family().app, family().remote, protocol(),
             MakeEcho(family(), 1, 1, BytesOf(data)));
  rig.Give(request, /*was_fragmented=*/true);
  EXPECT_FALSE(rig.last().sent.at(0).dont_fragment);
  rig.last().Feed(ReplyFrom(family().remote, 1, data));
  rig.Readable(rig.last_fd());
  BufferPool pool(0);
  Reassembler reassembler(&pool, &rig.drops, {}, {1, 2});
  ByteVector whole;
  const auto written = rig.tun.TakeWritten();
  EXPECT_EQ(written.size(), 4u);
  for (const auto& w : written) {
    EXPECT_LE(w.bytes.size(), 1400u);
    const auto fragment = ParsePacket(w.bytes);
    ASSERT_TRUE(fragment && fragment->is_fragment);
    const auto r = reassembler.Add(*fragment, rig.now());
    whole.assign(r.whole.begin(), r.whole.end());
  }
  const auto packet = ParsePacket(whole);
  ASSERT_TRUE(packet);
  const auto icmp = ParseIcmp(*packet, ChecksumTrust::kVerify);
  ASSERT_TRUE(icmp);
  EXPECT_EQ(TextOf(icmp->payload), data);
}

TEST_P(Echoes, DontFragmentIsTheApps) {
  IcmpRig rig;
  rig.Give(Request(1, 1));  // with DF, which IPv6 always means
  rig.Give(Request(1, 2));
  EXPECT_EQ(rig.last().dont_fragment_calls, 1u);
  rig.Give(Request(1, 3), /*was_fragmented=*/true);
  EXPECT_EQ(rig.last().dont_fragment_calls, 2u);
  EXPECT_TRUE(rig.last().sent.at(0).dont_fragment);
  EXPECT_TRUE(rig.last().sent.at(1).dont_fragment);
  EXPECT_FALSE(rig.last().sent.at(2).dont_fragment);
}

TEST_P(Echoes, RoutersOnTheWayAreSeen) {
  IcmpRig rig;
  const ByteVector request = Request(77, 3, "traceroute", 2, 4);
  rig.Give(request);
  EXPECT_EQ(rig.last().sent.at(0).ttl, 1);
  const DatagramError e = FromRouter(v4() ? 11 : 3, 0, EHOSTUNREACH);
  rig.last().PushError(e, Quoted(3, "traceroute"));
  rig.Error(rig.last_fd());
  ExpectError(rig, v4() ? 11 : 3, 0, e.offender, request);
  EXPECT_EQ(rig.echoes->stats().errors_passed, 1u);
  // The flow goes on (RFC 5508, REQ-8: errors end nothing).
  rig.Give(Request(77, 4));
  EXPECT_EQ(rig.sockets.all().size(), 1u);
  EXPECT_EQ(rig.last().sent.size(), 2u);
}

TEST_P(Echoes, UnreachablesKeepTheirCode) {
  IcmpRig rig;
  for (const uint8_t code : std::initializer_list<uint8_t>{0, 1, 3}) {
    const ByteVector request = Request(77, code);
    rig.Give(request);
    const DatagramError e = FromRouter(v4() ? 3 : 1, code, EHOSTUNREACH);
    rig.last().PushError(e, Quoted(code));
    rig.Error(rig.last_fd());
    ExpectError(rig, v4() ? 3 : 1, code, e.offender, request);
  }
}

TEST_P(Echoes, ErrorsAboutWhatWasNotSent) {
  IcmpRig rig;
  rig.Give(Request(1, 1));
  const DatagramError e = FromRouter(v4() ? 11 : 3, 0, EHOSTUNREACH);
  rig.last().PushError(e, Quoted(2));  // never sent
  DatagramError other = e;
  other.destination.ip = Other(1);
  rig.last().PushError(other, Quoted(1));
  rig.last().PushError(e, Quoted(1).substr(0, 7));
  rig.last().PushError(e, EchoText(v4(), true, 999, 1, ""));
  rig.Error(rig.last_fd());
  EXPECT_TRUE(rig.tun.written().empty());
  EXPECT_EQ(rig.dropped(DropReason::kEchoUnasked), 4u);
}

// An error that waits makes the next Send() fail, which is not that echo's
// fault.
TEST_P(Echoes, AWaitingErrorCostsNoEcho) {
  IcmpRig rig;
  const ByteVector first = Request(1, 1);
  rig.Give(first);
  const DatagramError e = FromRouter(v4() ? 3 : 1, 1, EHOSTUNREACH);
  rig.last().PushError(e, Quoted(1));
  rig.Give(RequestTo(Other(1), 1, 2));
  ExpectError(rig, v4() ? 3 : 1, 1, e.offender, first);
  ASSERT_EQ(rig.last().sent.size(), 2u);
  EXPECT_EQ(rig.last().sent[1].to.ip, Other(1));
  EXPECT_EQ(rig.dropped(DropReason::kEchoNotSent), 0u);
}

TEST_P(Echoes, TooBigForThePathHasItsMtu) {
  IcmpRig rig;
  rig.Give(Request(1, 1));
  rig.last().path_mtu = 1300;
  const ByteVector request = Request(1, 2, std::string(1400, 'x'));
  rig.Give(request);
  EXPECT_EQ(rig.dropped(DropReason::kEchoNotSent), 1u);
  const std::vector<Reply> replies = rig.TakeReplies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].packet.source, rig.icmp.gateway().Of(v4()));
  EXPECT_EQ(replies[0].type(), v4() ? 3 : 2);
  EXPECT_EQ(replies[0].code(), v4() ? 4 : 0);
  EXPECT_EQ(Load32(&replies[0].packet.transport[4]), 1300u);
  // And a router's, later on the way.
  DatagramError e = FromRouter(v4() ? 3 : 2, v4() ? 4 : 0, EMSGSIZE);
  e.mtu = 1290;
  rig.last().PushError(e, Quoted(1));
  rig.Error(rig.last_fd());
  const std::vector<Reply> more = rig.TakeReplies();
  ASSERT_EQ(more.size(), 1u);
  EXPECT_EQ(more[0].packet.source, e.offender);
  EXPECT_EQ(Load32(&more[0].packet.transport[4]), 1290u);
}

TEST_P(Echoes, NoRouteIsSaidAtOnce) {
  IcmpRig rig;
  rig.Give(Request(1, 1));
  rig.last().send_errors = {ENETUNREACH, ENETUNREACH, ENETUNREACH};
  const ByteVector request = Request(1, 2);
  rig.Give(request);
  EXPECT_EQ(rig.dropped(DropReason::kEchoNotSent), 1u);
  const std::vector<Reply> replies = rig.TakeReplies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].type(), v4() ? 3 : 1);
  EXPECT_EQ(replies[0].code(), 0);
  // A full socket is not worth an ICMP error.
  rig.last().send_errors.clear();
  rig.last().send_room = 0;
  rig.Give(Request(1, 3));
  EXPECT_EQ(rig.dropped(DropReason::kEchoNotSent), 2u);
  EXPECT_TRUE(rig.tun.written().empty());
}

TEST_P(Echoes, AFamilyThatTheHostLacks) {
  IcmpRig rig;
  rig.sockets.open_results = {-EAFNOSUPPORT};
  rig.Give(Request(1, 1));
  const std::vector<Reply> replies = rig.TakeReplies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].type(), v4() ? 3 : 1);
  EXPECT_EQ(replies[0].code(), 0);
}

TEST_P(Echoes, WithoutPermissionNothingIsFaked) {
  IcmpRig rig;
  rig.sockets.open_results = {-EACCES};
  rig.echoes->Probe();
  EXPECT_FALSE(rig.echoes->permitted());
  rig.sockets.open_results = {-EACCES};
  rig.Give(Request(1, 1));
  EXPECT_FALSE(rig.echoes->permitted());
  EXPECT_EQ(rig.dropped(DropReason::kEchoNotPermitted), 1u);
  EXPECT_EQ(rig.listener.pressures[static_cast<size_t>(
                Pressure::kPingNotPermitted)],
            1);
  const std::vector<Reply> replies = rig.TakeReplies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].type(), v4() ? 3 : 1);
  EXPECT_EQ(replies[0].code(), v4() ? 13 : 1);
  EXPECT_EQ(rig.echoes->stats().sockets, 0u);
  // Permitted meanwhile.
  rig.Give(Request(1, 2));
  EXPECT_TRUE(rig.echoes->permitted());
  EXPECT_EQ(rig.last().sent.size(), 1u);
}

TEST_P(Echoes, OnlyTheGatewaysAreAnsweredHere) {
  IcmpRig rig;
  const IpAddress gateway = rig.icmp.gateway().Of(v4());
  rig.Give(RequestTo(gateway, 9, 4, "are you there"));
  EXPECT_TRUE(rig.sockets.all().empty());
  const std::vector<Reply> replies = rig.TakeReplies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].packet.source, gateway);
  const auto icmp = ParseIcmp(replies[0].packet, ChecksumTrust::kVerify);
  ASSERT_TRUE(icmp);
  EXPECT_EQ(icmp->type, v4() ? 0 : 129);
  EXPECT_EQ(icmp->id, 9);
  EXPECT_EQ(icmp->seq, 4);
  EXPECT_EQ(TextOf(icmp->payload), "are you there");
  EXPECT_EQ(rig.echoes->stats().gateway_echoes, 1u);
}

TEST_P(Echoes, IdleOnesEnd) {
  IcmpRig rig;
  EXPECT_EQ(rig.echoes->next_deadline(), kNever);
  const Instant start = rig.now();
  rig.Give(Request(1, 1));
  rig.clock.Advance(seconds(30));
  rig.Give(Request(2, 1));
  EXPECT_EQ(rig.echoes->next_deadline(), start + seconds(60));
  rig.clock.Advance(seconds(20));
  rig.Give(Request(1, 2));  // 1 lives on, until 110
  rig.clock.Advance(seconds(40));
  EXPECT_EQ(rig.echoes->next_deadline(), start + seconds(90));
  rig.echoes->OnTurn(rig.now());
  EXPECT_EQ(rig.echoes->stats().sockets, 1u);
  ASSERT_EQ(rig.listener.changes.back().first, FlowChange::kClosed);
  EXPECT_EQ(rig.listener.changes.back().second.key.app.port, 2);
  EXPECT_EQ(rig.listener.changes.back().second.close_reason,
            CloseReason::kIdleTimeout);
  // A reply is traffic, too.
  ScriptedDatagramSocket& one = rig.datagrams.Of(rig.sockets.all()[0]->fd);
  one.Feed(ReplyFrom(family().remote, 2));
  rig.Readable(rig.sockets.all()[0]->fd);
  EXPECT_EQ(rig.echoes->next_deadline(), rig.now() + seconds(60));
}

TEST_P(Echoes, BeyondTheLimitTheUnrepliedMakeWayFirst) {
  IcmpRig rig({.options = {.max_sockets = 3}});
  rig.Give(Request(1, 1));
  rig.last().Feed(ReplyFrom(family().remote, 1));
  rig.Readable(rig.last_fd());
  rig.clock.Advance(seconds(1));
  rig.Give(Request(2, 1));
  rig.clock.Advance(seconds(1));
  rig.Give(Request(3, 1));
  rig.Give(Request(4, 1));
  EXPECT_EQ(rig.echoes->stats().sockets, 3u);
  EXPECT_EQ(rig.echoes->stats().evicted, 1u);
  EXPECT_EQ(rig.listener.changes.back().second.key.app.port, 4);
  std::vector<uint16_t> ids;
  for (const FlowInfo& f : rig.echoes->List({}, 0, 100, rig.now())) {
    ids.push_back(f.key.app.port);
  }
  EXPECT_EQ(ids, (std::vector<uint16_t>{1, 3, 4}));
}

TEST_P(Echoes, WhereOthersHaveAllPlaces) {
  IcmpRig rig({.max_flows = 2});
  ASSERT_TRUE(rig.slots.Take());
  rig.Give(Request(1, 1));
  rig.Give(Request(2, 1));  // takes the place of 1
  EXPECT_EQ(rig.echoes->stats().sockets, 1u);
  rig.echoes->Close({}, rig.now());
  ASSERT_TRUE(rig.slots.Take());
  rig.Give(Request(3, 1));
  EXPECT_EQ(rig.dropped(DropReason::kFlowTableFull), 1u);
  EXPECT_EQ(rig.TakeReplies().size(), 1u);
  rig.slots.Give();
  rig.slots.Give();
}

TEST_P(Echoes, WhileMemoryIsShortNothingIsOpened) {
  IcmpRig rig;
  rig.Give(Request(1, 1));
  rig.echoes->set_memory_short(true);
  rig.Give(Request(2, 1));
  rig.Give(RequestTo(Other(1), 1, 2));
  EXPECT_EQ(rig.dropped(DropReason::kNoMemory), 2u);
  EXPECT_EQ(rig.TakeReplies().size(), 2u) << "prohibited";
  EXPECT_EQ(rig.sockets.all().size(), 1u);
  rig.Give(Request(1, 2));
  EXPECT_EQ(rig.last().sent.size(), 2u);
  rig.echoes->set_memory_short(false);
  rig.Give(RequestTo(Other(1), 1, 3));
  rig.Give(Request(2, 2));
  EXPECT_EQ(rig.sockets.all().size(), 2u);
}

TEST_P(Echoes, OneIdScansTheWorld) {
  IcmpRig rig;
  for (int i = 0; i < 1000; ++i) {
    rig.Give(RequestTo(Other(i), 1, static_cast<uint16_t>(i)));
    rig.clock.Advance(milliseconds(1));
  }
  EXPECT_EQ(rig.sockets.all().size(), 1u);
  EXPECT_EQ(rig.echoes->stats().active, IcmpForwarder::kMaxPeers);
  // The newest may still reply.
  rig.last().Feed(ReplyFrom(Other(999), 999));
  rig.last().Feed(ReplyFrom(Other(0), 0));
  rig.Readable(rig.last_fd());
  EXPECT_EQ(rig.TakeReplies().size(), 1u);
  EXPECT_EQ(rig.dropped(DropReason::kEchoUnasked), 1u);
}

TEST_P(Echoes, FlowsAreSeenAndClosed) {
  IcmpRig rig;
  rig.Give(Request(5, 1, "12345"));
  rig.Give(RequestTo(Other(1), 5, 1));
  rig.clock.Advance(seconds(2));
  const auto flows = rig.echoes->List({}, 0, 10, rig.now());
  ASSERT_EQ(flows.size(), 2u);
  EXPECT_LT(flows[0].id, flows[1].id);
  EXPECT_EQ(flows[0].key.protocol, v4() ? Protocol::kIcmp : Protocol::kIcmpV6);
  EXPECT_EQ(flows[0].key.app.ip, family().app);
  EXPECT_EQ(flows[0].key.app.port, 5);
  EXPECT_EQ(flows[0].key.remote.ip, family().remote);
  EXPECT_EQ(flows[0].state, FlowState::kOpen);
  EXPECT_EQ(flows[0].outbound_bytes, 5u);
  EXPECT_EQ(flows[0].outbound_packets, 1u);
  EXPECT_EQ(flows[0].idle, seconds(2));
  EXPECT_EQ(rig.echoes->List({}, flows[0].id, 10, rig.now()).size(), 1u);
  EXPECT_EQ(rig.echoes->List({}, 0, 1, rig.now())[0].id, flows[0].id);
  FlowFilter one;
  one.id = flows[0].id;
  EXPECT_EQ(rig.echoes->Close(one, rig.now()), 1u);
  EXPECT_EQ(rig.echoes->stats().sockets, 1u);  // for the other destination
  EXPECT_EQ(rig.echoes->Close({}, rig.now()), 1u);
  EXPECT_EQ(rig.echoes->stats().sockets, 0u);
}

TEST_P(Echoes, AnEventOfASocketThatIsGone) {
  IcmpRig rig;
  rig.Give(Request(1, 1));
  const auto watch = rig.poller.watch(rig.last_fd());
  ASSERT_TRUE(watch);
  EXPECT_EQ(rig.echoes->Close({}, rig.now()), 1u);
  rig.echoes->OnSocket({watch->token, true, false, false, true}, rig.now());
  rig.Give(Request(2, 1));  // may have the same place
  rig.echoes->OnSocket({watch->token, true, false, false, true}, rig.now());
  EXPECT_EQ(rig.last().receive_calls, 0u);
}

TEST(IcmpFates, AreDecidedByATable) {
  const auto fate = [](int type, int code, bool v4) {
    IcmpMessage m;
    m.type = static_cast<uint8_t>(type);
    m.code = static_cast<uint8_t>(code);
    return FateOfIcmp(m, v4);
  };
  for (int type = 0; type < 256; ++type) {
    IcmpFate v4 = IcmpFate::kNotCarried;
    if (type == 8) v4 = IcmpFate::kEcho;
    if (type >= 3 && type <= 5) v4 = IcmpFate::kError;
    if (type == 11 || type == 12) v4 = IcmpFate::kError;
    EXPECT_EQ(fate(type, 0, true), v4) << type;
    IcmpFate v6 = IcmpFate::kNotCarried;
    if (type == 128) v6 = IcmpFate::kEcho;
    if (type >= 1 && type <= 4) v6 = IcmpFate::kError;
    EXPECT_EQ(fate(type, 0, false), v6) << type;
  }
  EXPECT_EQ(fate(8, 1, true), IcmpFate::kNotCarried);
  EXPECT_EQ(fate(128, 1, false), IcmpFate::kNotCarried);
}

}  // namespace
}  // namespace netstack::test

// UDP flows with scripted sockets, TUN and time: core/forward/udp_forwarder.h.
#include "core/forward/udp_forwarder.h"

#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/forward/forward_rig.h"

namespace netstack::test {
namespace {

constexpr uint16_t kApp = 40000;

struct Datagram {
  uint16_t source_port = kApp;
  uint16_t destination_port = 443;
  std::string payload = "x";
  uint8_t tos = 0;
  uint8_t ttl = 64;
  bool dont_fragment = true;  // IPv4
  uint16_t segment = 0;       // of a batch
  bool flush = true;          // a batch of packets ends here
  IpAddress to{};             // unspecified: the family's remote
};

class Udp : public testing::TestWithParam<const Family*> {
 protected:
  const Family& family() const { return *GetParam(); }
  bool v4() const { return family().v4(); }
  // Another host than the family's remote.
  IpAddress Other() const {
    return v4() ? IpAddress::V4(192, 0, 2, 77)
                : *IpAddress::Parse("2001:db8::77");
  }
  IpAddress OurAddress() const {
    return v4() ? IpAddress::V4(198, 51, 100, 9)
                : *IpAddress::Parse("2001:db8:1::9");
  }
  Endpoint Remote(uint16_t port = 443) const { return {family().remote, port}; }

  void Start(const Rig::Settings& settings = {}) {
    rig.reset();  // lwIP lives once in a process
    rig = std::make_unique<Rig>(settings);
  }
  // An app's packet through parser and forwarder.
  void Give(Datagram d) {
    const IpAddress to = d.to.IsUnspecified() ? family().remote : d.to;
    ByteVector udp(8);
    Store16(&udp[0], d.source_port);
    Store16(&udp[2], d.destination_port);
    Store16(&udp[4], static_cast<uint16_t>(8 + d.payload.size()));
    for (char c : d.payload) udp.push_back(static_cast<std::byte>(c));
    Store16(&udp[6], NaiveTransportChecksum(family().app, to, 17, udp));
    ByteVector packet = MakeIp(family().app, to, 17, udp);
    if (v4()) {
      Store8(&packet[1], d.tos);
      Store8(&packet[8], d.ttl);
      if (!d.dont_fragment) Store16(&packet[6], 0);
      FixV4Checksum(packet);
    } else {
      Store16(&packet[0], static_cast<uint16_t>(0x6000 | d.tos << 4));
      Store8(&packet[7], d.ttl);
    }
    ExactCopy copy(packet);
    OrDrop<Packet> parsed = ParsePacket(copy.bytes());
    ASSERT_TRUE(parsed);
    if (!d.dont_fragment) parsed->dont_fragment = false;  // as reassembled v6
    const OrDrop<UdpDatagram> datagram =
        ParseUdp(*parsed, ChecksumTrust::kVerify);
    ASSERT_TRUE(datagram) << DropReasonName(datagram.reason());
    rig->udp->OnDatagram(*parsed, *datagram, d.segment, rig->now());
    std::fill(copy.bytes().begin(), copy.bytes().end(), std::byte{0xEE});
    if (d.flush) rig->Turn();
  }
  int Fd(size_t i = 0) { return rig->sockets.all().at(i)->fd; }
  ScriptedDatagramSocket& Socket(size_t i = 0) {
    return rig->datagrams.Of(Fd(i));
  }
  bool Closed(size_t i = 0) { return rig->sockets.all().at(i)->closed; }
  using Arrival = ScriptedDatagramSocket::Arrival;
  void Arrive(Arrival arrival, size_t socket = 0) {
    if (arrival.to.IsUnspecified()) arrival.to = OurAddress();
    Socket(socket).Feed(std::move(arrival));
    rig->Event(Fd(socket), {.token = {}, .readable = true});
  }
  std::vector<Reply> Replies() { return rig->TakeReplies(); }
  static std::string Text(Bytes b) {
    return {reinterpret_cast<const char*>(b.data()), b.size()};
  }
  uint64_t closed(CloseReason r) {
    return rig->udp->stats().closed[static_cast<size_t>(r)];
  }
  std::vector<FlowInfo> List(const FlowFilter& filter = {}) {
    return rig->udp->List(filter, 0, SIZE_MAX, rig->now());
  }
  // An ICMP error of the given type with the app's datagram quoted.
  void ExpectIcmp(const Reply& r, int type, int code, const Endpoint& to,
                  const std::string& payload) {
    EXPECT_EQ(r.packet.protocol, v4() ? 1 : 58);
    EXPECT_EQ(r.packet.destination, family().app);
    EXPECT_EQ(r.type(), type);
    EXPECT_EQ(r.code(), code);
    const Bytes quote = r.quote();
    const size_t ip = v4() ? 20 : 40;
    ASSERT_GE(quote.size(), ip + 8 + payload.size());
    const auto at = [&](size_t i) { return quote.data() + i; };
    EXPECT_EQ(v4() ? IpAddress::V4(at(12)) : IpAddress::V6(at(8)),
              family().app);
    EXPECT_EQ(v4() ? IpAddress::V4(at(16)) : IpAddress::V6(at(24)), to.ip);
    EXPECT_EQ(Load16(at(ip)), kApp);
    EXPECT_EQ(Load16(at(ip + 2)), to.port);
    EXPECT_EQ(Text(quote.subspan(ip + 8, payload.size())), payload);
  }

  std::unique_ptr<Rig> rig = std::make_unique<Rig>();
};
INSTANTIATE_TEST_SUITE_P(Families, Udp, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TEST_P(Udp, CarriesBothWays) {
  Give({.payload = "ping", .tos = 0xB9, .ttl = 17});
  ASSERT_EQ(Socket().sent.size(), 1u);
  const auto& sent = Socket().sent[0];
  EXPECT_EQ(sent.to, Remote());
  EXPECT_EQ(sent.payload, "ping");
  EXPECT_EQ(sent.tos, 0xB9) << "DSCP and ECN are kept";
  EXPECT_EQ(sent.ttl, 16) << "we are one hop";
  EXPECT_TRUE(sent.dont_fragment);

  Arrive({.from = Remote(), .payload = "pong", .tos = 0x03, .ttl = 51});
  const std::vector<Reply> replies = Replies();
  ASSERT_EQ(replies.size(), 1u);
  const Reply& r = replies[0];
  ASSERT_TRUE(r.udp);
  EXPECT_EQ(r.packet.source, family().remote);
  EXPECT_EQ(r.packet.destination, family().app);
  EXPECT_EQ(r.udp->source_port, 443);
  EXPECT_EQ(r.udp->destination_port, kApp);
  EXPECT_EQ(Text(r.udp->payload), "pong");
  EXPECT_EQ(r.packet.tos, 0x03);
  EXPECT_EQ(r.packet.ttl, 50);

  const UdpStats stats = rig->udp->stats();
  EXPECT_EQ(stats.outbound_bytes, 4u);
  EXPECT_EQ(stats.inbound_bytes, 4u);
  EXPECT_EQ(stats.outbound_datagrams, 1u);
  EXPECT_EQ(stats.inbound_datagrams, 1u);
}

TEST_P(Udp, EmptyDatagramsAreDatagrams) {
  Give({.payload = ""});
  ASSERT_EQ(Socket().sent.size(), 1u);
  EXPECT_EQ(Socket().sent[0].payload, "");
  Arrive({.from = Remote(), .payload = ""});
  const std::vector<Reply> replies = Replies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_TRUE(replies[0].udp->payload.empty());
}

// RFC 4787, REQ-1.
TEST_P(Udp, OneSocketPerEndpointOfAnApp) {
  Give({.destination_port = 1});
  Give({.destination_port = 2});
  Give({.to = Other()});
  EXPECT_EQ(rig->sockets.all().size(), 1u);
  EXPECT_EQ(Socket().sent.size(), 3u);
  Give({.source_port = 40001});
  EXPECT_EQ(rig->sockets.all().size(), 2u);
  EXPECT_EQ(rig->udp->stats().mappings, 2u);
  EXPECT_EQ(rig->udp->stats().active, 4u);
  EXPECT_EQ(rig->slots.used(), 2u);
}

TEST_P(Udp, KeepsThePortWhereItIsFree) {
  rig->datagrams.taken_ports = {40001, 40003};
  Give({.source_port = 40000});
  EXPECT_EQ(Socket(0).bound->port, 40000);
  Give({.source_port = 40001});
  EXPECT_EQ(Socket(1).bound->port, 40005) << "near it, of the same parity";
  EXPECT_EQ(rig->udp->stats().ports_preserved, 1u);
  Give({.source_port = 123});
  EXPECT_GE(Socket(2).bound->port, 1024) << "the host may want it";
}

TEST_P(Udp, PortsNeedNotBePreserved) {
  Rig::Settings settings;
  settings.udp.preserve_ports = false;
  Start(settings);
  Give({});
  EXPECT_NE(Socket().bound->port, kApp);
}

// A question and its answer.
TEST_P(Udp, IdleFlowsEnd) {
  Give({});
  Arrive({.from = Remote(), .payload = "y"});
  rig->Advance(milliseconds(59'900));
  EXPECT_FALSE(Closed());
  rig->Advance(milliseconds(200));
  EXPECT_TRUE(Closed());
  EXPECT_EQ(closed(CloseReason::kIdleTimeout), 1u);
}

// RFC 4787, REQ-5: more than two minutes.
TEST_P(Udp, StreamsLiveLonger) {
  for (int i = 0; i < 4; ++i) {
    Give({});
    Arrive({.from = Remote(), .payload = "y"});
  }
  rig->Advance(seconds(119));
  EXPECT_FALSE(Closed());
  Replies();
  Arrive({.from = Remote(), .payload = "late"});
  EXPECT_EQ(Replies().size(), 1u);
  rig->Advance(seconds(299));
  EXPECT_FALSE(Closed()) << "inbound refreshed it";
  rig->Advance(seconds(2));
  EXPECT_TRUE(Closed());
}

TEST_P(Udp, OutboundAloneKeepsAFlow) {
  for (int i = 0; i < 10; ++i) {
    Give({});
    rig->Advance(seconds(40));
  }
  EXPECT_FALSE(Closed());
  EXPECT_EQ(rig->udp->stats().opened, 1u);
}

TEST_P(Udp, SomePortsMayBeSilentForAnHour) {
  Give({.destination_port = 4500});
  Give({.source_port = 40001, .destination_port = 4501});
  rig->Advance(seconds(3590));
  EXPECT_FALSE(Closed(0));
  EXPECT_TRUE(Closed(1));
  rig->Advance(seconds(11));
  EXPECT_TRUE(Closed(0));
}

TEST_P(Udp, PeersEndOneByOne) {
  Give({.destination_port = 1});
  rig->Advance(seconds(30));
  Give({.destination_port = 2});
  Give({.destination_port = 3});
  rig->Advance(seconds(31));
  EXPECT_EQ(rig->udp->stats().active, 2u);
  EXPECT_FALSE(Closed());
  // The first place is free: the next one takes it.
  Give({.destination_port = 4});
  EXPECT_EQ(rig->udp->stats().active, 3u);
  EXPECT_EQ(Socket().sent.size(), 4u);
  rig->Advance(seconds(61));
  EXPECT_TRUE(Closed());
}

TEST_P(Udp, NobodyOutsideKeepsAMapping) {
  Give({});
  rig->Advance(seconds(30));
  for (int i = 0; i < 40; ++i) {
    Arrive({.from = {Other(), 9}, .payload = "scan"});
    rig->Advance(seconds(1));
  }
  EXPECT_EQ(rig->udp->stats().active, 1u) << "the app's own flow has ended";
  rig->Advance(seconds(30));
  EXPECT_TRUE(Closed());
}

TEST_P(Udp, FiltersAsConfigured) {
  struct Case {
    UdpFiltering filtering;
    bool other_port, other_host;
  };
  for (const Case& c :
       {Case{UdpFiltering::kEndpointIndependent, true, true},
        Case{UdpFiltering::kAddressDependent, true, false},
        Case{UdpFiltering::kAddressAndPortDependent, false, false}}) {
    Rig::Settings settings;
    settings.udp.filtering = c.filtering;
    Start(settings);
    Give({});
    Arrive({.from = Remote(), .payload = "asked"});
    EXPECT_EQ(Replies().size(), 1u);
    Arrive({.from = Remote(9), .payload = "port"});
    EXPECT_EQ(Replies().size(), c.other_port ? 1u : 0u);
    Arrive({.from = {Other(), 443}, .payload = "host"});
    EXPECT_EQ(Replies().size(), c.other_host ? 1u : 0u);
    EXPECT_EQ(rig->dropped(DropReason::kUdpFiltered),
              uint64_t{!c.other_port} + uint64_t{!c.other_host});
  }
}

// RFC 4787, REQ-9.
TEST_P(Udp, AppsReachEachOtherByTheirOuterEndpoints) {
  Give({.source_port = 40000});
  Give({.source_port = 50000});
  // What a STUN server told: it has heard of us at our address.
  Arrive({.from = Remote(), .payload = "you are .9:40000"}, 0);
  Arrive({.from = Remote(), .payload = "you are .9:50000"}, 1);
  Replies();
  Give({.source_port = 40000, .destination_port = 50000, .payload = "hi",
        .to = OurAddress()});
  std::vector<Reply> replies = Replies();
  ASSERT_EQ(replies.size(), 1u);
  ASSERT_TRUE(replies[0].udp);
  EXPECT_EQ(replies[0].packet.source, OurAddress());
  EXPECT_EQ(replies[0].packet.destination, family().app);
  EXPECT_EQ(replies[0].udp->source_port, 40000) << "the outer endpoint";
  EXPECT_EQ(replies[0].udp->destination_port, 50000);
  EXPECT_EQ(Text(replies[0].udp->payload), "hi");
  Give({.source_port = 50000, .destination_port = 40000, .payload = "hello",
        .to = OurAddress()});
  replies = Replies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].udp->destination_port, 40000);
  EXPECT_EQ(rig->udp->stats().hairpinned, 2u);
  EXPECT_EQ(Socket(0).sent.size(), 1u) << "nothing of it left";
  // A port of the host that is nobody's mapping is the host's.
  Give({.source_port = 40000, .destination_port = 7, .to = OurAddress()});
  EXPECT_EQ(Socket(0).sent.size(), 2u);
}

TEST_P(Udp, DatagramsOfABatchGoTogether) {
  for (int i = 0; i < 5; ++i) {
    Give({.payload = std::string(1200, static_cast<char>('a' + i)),
          .flush = false});
  }
  Give({.payload = std::string(300, 'z'), .flush = false});
  Give({.payload = std::string(1200, 'n'), .flush = false});
  Give({.destination_port = 444, .payload = std::string(1200, 'o'),
        .flush = false});
  rig->Turn();
  ASSERT_EQ(Socket().sent.size(), 3u);
  EXPECT_EQ(Socket().send_calls, 1u);
  EXPECT_EQ(Socket().sent[0].segment_size, 1200);
  EXPECT_EQ(Socket().sent[0].payload.size(), 5 * 1200 + 300u);
  EXPECT_EQ(Socket().sent[0].payload.substr(4800, 1), "e");
  EXPECT_EQ(Socket().sent[0].payload.back(), 'z');
  EXPECT_EQ(Socket().sent[1].segment_size, 0) << "behind the shorter one";
  EXPECT_EQ(Socket().sent[2].to.port, 444);
  EXPECT_EQ(rig->udp->stats().outbound_datagrams, 8u);
  EXPECT_EQ(rig->udp->stats().outbound_batches, 1u);
  EXPECT_EQ(rig->udp->stats().outbound_bytes, 7 * 1200 + 300u);
}

// Only the last of a batch may have another size, and a smaller one.
TEST_P(Udp, ALargerDatagramBeginsAnotherBatch) {
  Give({.payload = "aaaa", .flush = false});
  Give({.payload = "bbbb", .flush = false});
  Give({.payload = "cccccccc", .flush = false});
  Give({.payload = "dd"});
  ASSERT_EQ(Socket().sent.size(), 2u);
  EXPECT_EQ(Socket().sent[0].payload, "aaaabbbb");
  EXPECT_EQ(Socket().sent[0].segment_size, 4);
  EXPECT_EQ(Socket().sent[1].payload, "ccccccccdd");
  EXPECT_EQ(Socket().sent[1].segment_size, 8);
}

TEST_P(Udp, DifferentHeadersStayApart) {
  Give({.tos = 0, .flush = false});
  Give({.tos = 2, .flush = false});
  Give({.tos = 2, .ttl = 9, .flush = false});
  rig->Turn();
  ASSERT_EQ(Socket().sent.size(), 3u);
  EXPECT_EQ(Socket().send_calls, 1u);
  EXPECT_EQ(Socket().sent[1].tos, 2);
  EXPECT_EQ(Socket().sent[2].ttl, 8);
}

TEST_P(Udp, ABatchOfManySocketsKeepsTheirOrder) {
  for (int i = 0; i < 150; ++i) {
    Give({.source_port = static_cast<uint16_t>(40000 + i % 3),
          .payload = std::to_string(i), .flush = false});
  }
  rig->Turn();
  for (size_t s = 0; s < 3; ++s) {
    std::string all;
    for (const auto& sent : Socket(s).sent) all += sent.payload;
    std::string expected;
    for (size_t i = s; i < 150; i += 3) expected += std::to_string(i);
    EXPECT_EQ(all, expected);
    EXPECT_LE(Socket(s).send_calls, 3u);
  }
}

TEST_P(Udp, BatchesOfTheTunGoAsBatches) {
  Give({.payload = std::string(100 * 600, 'q'), .segment = 600});
  // 100 datagrams, of which old kernels take 64 at once.
  ASSERT_EQ(Socket().sent.size(), 2u);
  EXPECT_EQ(Socket().sent[0].payload.size(), 64 * 600u);
  EXPECT_EQ(Socket().sent[0].segment_size, 600);
  EXPECT_EQ(Socket().sent[1].payload.size(), 36 * 600u);
  EXPECT_EQ(rig->udp->stats().outbound_datagrams, 100u);
}

TEST_P(Udp, ABatchBeyondThePathIsToldOfEachDatagram) {
  Give({});
  Socket().sent.clear();
  Socket().path_mtu = 1300;
  Give({.payload = std::string(3 * 1400, 'q'), .segment = 1400});
  EXPECT_TRUE(Socket().sent.empty());
  EXPECT_EQ(rig->dropped(DropReason::kUdpTooBig), 3u);
  EXPECT_EQ(Replies().size(), 3u);
  Give({.payload = std::string(3 * 1200, 'q'), .segment = 1200});
  EXPECT_EQ(Socket().sent.size(), 1u);
}

TEST_P(Udp, JoinedDatagramsThatFailGoOneByOne) {
  Give({});
  Socket().sent.clear();
  Socket().path_mtu = 1300;
  for (int i = 0; i < 3; ++i) {
    Give({.payload = std::string(1400, 'q'), .dont_fragment = false,
          .flush = false});
  }
  rig->Turn();
  EXPECT_EQ(Socket().sent.size(), 3u) << "the host fragments them";
  EXPECT_TRUE(Replies().empty());
  // And are not joined again.
  const size_t calls = Socket().send_calls;
  for (int i = 0; i < 3; ++i) {
    Give({.payload = std::string(1400, 'q'), .dont_fragment = false,
          .flush = false});
  }
  rig->Turn();
  EXPECT_EQ(Socket().sent.size(), 6u);
  EXPECT_EQ(Socket().send_calls, calls + 1);
}

TEST_P(Udp, TooBigIsToldWithThePathsMtu) {
  Give({});
  Socket().path_mtu = 1300;
  const std::string big(1400, 'b');
  Give({.payload = big, .ttl = 33});
  EXPECT_EQ(Socket().sent.size(), 1u);
  EXPECT_EQ(rig->dropped(DropReason::kUdpTooBig), 1u);
  const std::vector<Reply> replies = Replies();
  ASSERT_EQ(replies.size(), 1u);
  ExpectIcmp(replies[0], v4() ? 3 : 2, v4() ? 4 : 0, Remote(),
             big.substr(0, 500));
  EXPECT_EQ(v4() ? Load16(&replies[0].packet.transport[6])
                 : Load32(&replies[0].packet.transport[4]),
            1300u);
  EXPECT_EQ(Load8(replies[0].quote().data() + (v4() ? 8 : 7)), 33);
  // Who lets it be fragmented gets it through.
  Give({.payload = big, .dont_fragment = false});
  EXPECT_EQ(Socket().sent.size(), 2u);
  EXPECT_FALSE(Socket().sent[1].dont_fragment);
  EXPECT_EQ(Socket().dont_fragment_calls, 2u) << "told once, not each time";
}

TEST_P(Udp, AnErrorOfOnePeerDoesNotLoseAnothersDatagram) {
  Give({.destination_port = 1, .payload = "to A"});
  DatagramError error;
  error.error = ECONNREFUSED;
  error.type = v4() ? 3 : 1;
  error.code = v4() ? 3 : 4;
  error.offender = Other();
  error.destination = Remote(1);
  Socket().PushError(error, "to A");
  Give({.destination_port = 2, .payload = "to B"});
  ASSERT_EQ(Socket().sent.size(), 2u);
  EXPECT_EQ(Socket().sent[1].payload, "to B");
  const std::vector<Reply> replies = Replies();
  ASSERT_EQ(replies.size(), 1u);
  ExpectIcmp(replies[0], v4() ? 3 : 1, v4() ? 3 : 4, Remote(1), "to A");
  EXPECT_EQ(replies[0].packet.source, Other()) << "who met the error";
  EXPECT_EQ(rig->udp->stats().resent, 1u);
  EXPECT_EQ(rig->udp->stats().host_errors, 1u);
  EXPECT_EQ(rig->dropped(DropReason::kUdpHostError), 0u);
}

TEST_P(Udp, ErrorsAreToldWhenTheyCome) {
  Give({.payload = "lost"});
  DatagramError error;
  error.error = EHOSTUNREACH;
  error.type = v4() ? 11 : 3;  // time exceeded, as traceroute wants it
  error.offender = Other();
  error.destination = Remote();
  Socket().PushError(error, "lo");
  rig->Event(Fd(), {.token = {}, .readable = true, .error = true});
  const std::vector<Reply> replies = Replies();
  ASSERT_EQ(replies.size(), 1u);
  ExpectIcmp(replies[0], v4() ? 11 : 3, 0, Remote(), "lo");
  EXPECT_FALSE(Closed()) << "an error ends nothing";
}

TEST_P(Udp, ErrorsOfStrangersAreNobodys) {
  Give({});
  DatagramError error;
  error.error = ECONNREFUSED;
  error.type = v4() ? 3 : 1;
  error.code = v4() ? 3 : 4;
  error.offender = Other();
  error.destination = {Other(), 5};
  Socket().PushError(error);
  rig->Event(Fd(), {.token = {}, .readable = true, .error = true});
  EXPECT_TRUE(Replies().empty());
}

TEST_P(Udp, NoRouteIsToldAtOnce) {
  Give({});
  Socket().send_errors = {ENETUNREACH, ENETUNREACH};
  Give({.destination_port = 2, .payload = "where"});
  const std::vector<Reply> replies = Replies();
  ASSERT_EQ(replies.size(), 1u);
  ExpectIcmp(replies[0], v4() ? 3 : 1, 0, Remote(2), "where");
  EXPECT_EQ(rig->dropped(DropReason::kUdpHostError), 1u);
  EXPECT_EQ(Socket().sent.size(), 1u);
}

TEST_P(Udp, WithoutSocketsAppsAreToldAtOnce) {
  struct Case {
    int error;
    DropReason reason;
    int v4_code, v6_code;
  };
  for (const Case& c :
       {Case{-EMFILE, DropReason::kNoDescriptors, 13, 1},
        Case{-EAFNOSUPPORT, DropReason::kUdpHostError, 0, 0}}) {
    Start();
    rig->sockets.open_results = {c.error};
    Give({});
    EXPECT_EQ(rig->dropped(c.reason), 1u);
    const std::vector<Reply> replies = Replies();
    ASSERT_EQ(replies.size(), 1u);
    EXPECT_EQ(replies[0].type(), v4() ? 3 : 1);
    EXPECT_EQ(replies[0].code(), v4() ? c.v4_code : c.v6_code);
    EXPECT_EQ(rig->slots.used(), 0u);
  }
}

TEST_P(Udp, AFullSocketDropsAndCounts) {
  Give({});
  Socket().send_room = 2;
  for (int i = 0; i < 5; ++i) {
    Give({.destination_port = static_cast<uint16_t>(100 + i), .flush = false});
  }
  rig->Turn();
  EXPECT_EQ(Socket().sent.size(), 3u);
  EXPECT_EQ(rig->dropped(DropReason::kUdpSocketFull), 3u);
  EXPECT_TRUE(Replies().empty());
}

TEST_P(Udp, JoinedInboundGoesOnAsItCame) {
  for (const bool offload : {true, false}) {
    Rig::Settings settings;
    settings.tun.offload = offload;
    settings.tun.udp_offload = offload;
    Start(settings);
    Give({});
    Replies();
    const std::string batch = Pattern(3 * 1000 + 10);
    Arrive({.from = Remote(), .payload = batch, .segment_size = 1000});
    std::string all;
    const std::vector<Reply> replies = Replies();
    EXPECT_EQ(replies.size(), offload ? 1u : 4u);
    for (const Reply& r : replies) {
      ASSERT_TRUE(r.udp);
      EXPECT_EQ(r.how.segment_size, offload ? 1000 : 0);
      all += Text(r.udp->payload);
    }
    EXPECT_EQ(all, batch);
    EXPECT_EQ(rig->udp->stats().inbound_datagrams, 4u);
    EXPECT_EQ(rig->udp->stats().inbound_batches, 1u);
  }
}

TEST_P(Udp, BigInboundDatagramsAreFragmented) {
  Give({});
  Replies();
  const std::string big = Pattern(4000);
  Arrive({.from = Remote(), .payload = big});
  std::string all;
  uint32_t id = 0;
  const std::vector<Reply> replies = Replies();
  ASSERT_EQ(replies.size(), 3u);
  for (size_t i = 0; i < replies.size(); ++i) {
    const Reply& r = replies[i];
    EXPECT_LE(r.bytes.size(), 1500u);
    EXPECT_TRUE(r.packet.is_fragment);
    EXPECT_EQ(r.packet.fragment_offset, all.size());
    const uint32_t mine = v4() ? Load16(&r.bytes[4]) : Load32(&r.bytes[44]);
    if (i != 0) {
      EXPECT_EQ(mine, id);
    }
    id = mine;
    const bool more = v4() ? (Load8(&r.bytes[6]) & 0x20) != 0
                           : (Load8(&r.bytes[43]) & 1) != 0;
    EXPECT_EQ(more, i + 1 < replies.size());
    all += Text(r.packet.transport);
  }
  ASSERT_EQ(all.size(), big.size() + 8);
  EXPECT_EQ(all.substr(8), big);
  const auto* p = reinterpret_cast<const std::byte*>(all.data());
  EXPECT_EQ(NaiveTransportChecksum(family().remote, family().app, 17,
                                   {p, all.size()}),
            0);
}

TEST_P(Udp, AFullTunHoldsReadingUp) {
  Give({});
  Give({.source_port = 40001});
  Replies();
  rig->tun.BlockWrites();
  for (int i = 0; i < 5; ++i) {
    Socket().Feed({.from = Remote(), .payload = std::to_string(i)});
  }
  Arrive({.from = Remote(), .payload = "5"});
  const size_t reads = Socket(1).receive_calls;
  Arrive({.from = Remote(), .payload = "other"}, 1);
  EXPECT_EQ(Socket(1).receive_calls, reads) << "nothing is read meanwhile";
  EXPECT_EQ(rig->next_deadline() > rig->now(), true) << "and nobody spins";
  rig->tun.AllowWrites();
  rig->writer.Unblock();
  rig->udp->OnTunWritable(rig->now());
  rig->Turn();
  std::string all;
  for (const Reply& r : Replies()) all += Text(r.udp->payload);
  EXPECT_EQ(all, "012345other");
}

TEST_P(Udp, ABlockedBatchGoesOnWhereItStopped) {
  Give({});
  Replies();
  rig->tun.FailWrites(EAGAIN, 1);
  Arrive({.from = Remote(), .payload = std::string(10, 'a') + "b",
          .segment_size = 5});
  rig->writer.Unblock();
  rig->udp->OnTunWritable(rig->now());
  std::string all;
  for (const Reply& r : Replies()) all += Text(r.udp->payload);
  EXPECT_EQ(all, "aaaaaaaaaab");
  EXPECT_EQ(rig->udp->stats().inbound_bytes, 11u);
}

TEST_P(Udp, AtTheLimitNewFlowsAreRefusedAndOldOnesLive) {
  Rig::Settings settings;
  settings.udp.max_flows = 10;
  Start(settings);
  for (uint16_t i = 0; i < 10; ++i) {
    Give({.destination_port = static_cast<uint16_t>(100 + i)});
    if (i < 5) {
      Arrive({.from = Remote(static_cast<uint16_t>(100 + i)), .payload = "y"});
    }
  }
  Replies();
  Give({.destination_port = 200, .payload = "new"});
  EXPECT_EQ(rig->dropped(DropReason::kFlowTableFull), 1u);
  EXPECT_EQ(rig->told(Pressure::kFlowLimit), 1);
  std::vector<Reply> replies = Replies();
  ASSERT_EQ(replies.size(), 1u);
  ExpectIcmp(replies[0], v4() ? 3 : 1, v4() ? 13 : 1, Remote(200), "new");
  Give({.destination_port = 100, .payload = "old"});
  EXPECT_EQ(Socket().sent.back().payload, "old");

  // Those without an answer make room after five seconds, all at once.
  rig->Advance(seconds(5));
  Give({.destination_port = 200, .payload = "new"});
  EXPECT_EQ(Socket().sent.back().payload, "new");
  EXPECT_EQ(closed(CloseReason::kEvicted), 5u);
  EXPECT_EQ(rig->udp->stats().active, 6u);
}

TEST_P(Udp, AScanOfDestinationsCostsItsOwnMappingOnly) {
  Rig::Settings settings;
  settings.udp.max_peers = 4;
  Start(settings);
  for (uint16_t i = 0; i < 20; ++i) {
    Give({.destination_port = static_cast<uint16_t>(100 + i)});
  }
  EXPECT_EQ(rig->udp->stats().active, 4u);
  EXPECT_EQ(rig->dropped(DropReason::kFlowTableFull), 16u);
  Give({.source_port = 40001});
  EXPECT_EQ(rig->udp->stats().active, 5u);
}

TEST_P(Udp, AScanOfSourcePortsMakesRoomForItself) {
  Rig::Settings settings;
  settings.max_flows = 8;
  Start(settings);
  Give({.source_port = 1000});
  Arrive({.from = Remote(), .payload = "y"});
  for (uint16_t i = 0; i < 20; ++i) {
    Give({.source_port = static_cast<uint16_t>(2000 + i)});
  }
  EXPECT_EQ(rig->udp->stats().mappings, 8u);
  EXPECT_EQ(rig->dropped(DropReason::kFlowTableFull), 13u);
  rig->Advance(seconds(6));
  Give({.source_port = 3000});
  EXPECT_EQ(rig->udp->stats().mappings, 2u);
  EXPECT_FALSE(Closed(0)) << "it had an answer";
  EXPECT_EQ(rig->slots.used(), 2u);
}

TEST_P(Udp, StrangersCannotFillTheTable) {
  // By the limit of one mapping, and by that of all.
  for (const bool of_all : {false, true}) {
    Rig::Settings settings;
    (of_all ? settings.udp.max_flows : settings.udp.max_peers) = 16;
    Start(settings);
    Give({});
    Arrive({.from = Remote(), .payload = "y"});
    Replies();
    for (uint16_t i = 0; i < 10; ++i) {
      Arrive({.from = {Other(), static_cast<uint16_t>(1 + i)}, .payload = "s"});
    }
    EXPECT_EQ(rig->udp->stats().active, 5u) << "a quarter is theirs";
    EXPECT_EQ(Replies().size(), 4u);
    EXPECT_EQ(rig->dropped(DropReason::kFlowTableFull), 6u);
    // The app goes on to new places, and to one of them.
    for (uint16_t i = 0; i < 11; ++i) {
      Give({.destination_port = static_cast<uint16_t>(1000 + i)});
    }
    EXPECT_EQ(rig->udp->stats().active, 16u);
    EXPECT_EQ(rig->dropped(DropReason::kFlowTableFull), 6u);
    Give({.destination_port = 1, .to = Other()});
    EXPECT_EQ(Socket().sent.back().to, (Endpoint{Other(), 1}));
    // They make room: the app's own peers, since they were not answered, too.
    rig->Advance(seconds(6));
    Give({.destination_port = 9});
    EXPECT_EQ(rig->udp->stats().active, 2u);
    for (uint16_t i = 0; i < 10; ++i) {
      Arrive({.from = {Other(), static_cast<uint16_t>(1 + i)}, .payload = "s"});
    }
    EXPECT_EQ(rig->udp->stats().active, 6u) << "and count anew";
  }
}

TEST_P(Udp, TablesShrinkBehindAScan) {
  Give({});
  const size_t before = rig->udp->record_memory();
  for (uint16_t i = 0; i < 1000; ++i) {
    Give({.source_port = static_cast<uint16_t>(2000 + i)});
  }
  EXPECT_GT(rig->udp->record_memory(), before + 100'000);
  rig->Advance(seconds(61));
  Give({});
  EXPECT_GT(rig->udp->record_memory(), before + 10'000) << "the tables";
  rig->udp->Trim();
  EXPECT_LT(rig->udp->record_memory(), before + 1'000);
  Give({.payload = "found"});
  EXPECT_EQ(rig->sockets.all().size(), 1002u);
}

// Whoever the app sent to is no stranger any more.
TEST_P(Udp, AStrangerWhoIsAnsweredLeavesHisPlace) {
  Rig::Settings settings;
  settings.udp.max_peers = 8;
  Start(settings);
  Give({});
  for (uint16_t i = 0; i < 4; ++i) {
    const auto port = static_cast<uint16_t>(1 + i);
    Arrive({.from = {Other(), port}, .payload = "s"});
    Give({.destination_port = port, .to = Other()});
  }
  EXPECT_EQ(rig->udp->stats().active, 5u);
  EXPECT_EQ(rig->dropped(DropReason::kFlowTableFull), 0u);
}

// Addresses that the app has sent to are counted while peers come and go, and
// anew when the rule changes.
TEST_P(Udp, AnAddressIsKnownAsLongAsAPeerHasIt) {
  Give({.destination_port = 1});
  rig->Advance(seconds(30));
  Give({.destination_port = 2});
  Give({.destination_port = 3, .to = Other()});
  UdpForwarder::Options options;
  options.filtering = UdpFiltering::kAddressDependent;
  rig->udp->Configure(options, rig->now());
  const auto admitted = [&](const IpAddress& ip) {
    Replies();
    Arrive({.from = {ip, 99}, .payload = "s"});
    return Replies().size() == 1;
  };
  EXPECT_TRUE(admitted(family().remote));
  EXPECT_TRUE(admitted(Other()));
  rig->Advance(seconds(31));
  EXPECT_EQ(rig->udp->stats().active, 4u) << "the first of two has ended";
  EXPECT_TRUE(admitted(family().remote));
  rig->Advance(seconds(20));
  Give({.destination_port = 3, .to = Other()});
  rig->Advance(seconds(15));
  EXPECT_FALSE(admitted(family().remote));
  EXPECT_TRUE(admitted(Other()));
  EXPECT_EQ(rig->dropped(DropReason::kUdpFiltered), 1u);
}

TEST_P(Udp, WhileMemoryIsShortNothingIsOpened) {
  Give({});
  Replies();
  rig->udp->set_memory_short(true);
  Give({.source_port = 40001});
  Give({.destination_port = 9});
  Arrive({.from = {Other(), 1}, .payload = "s"});
  EXPECT_EQ(rig->dropped(DropReason::kNoMemory), 3u);
  EXPECT_EQ(rig->dropped(DropReason::kFlowTableFull), 0u);
  EXPECT_EQ(rig->told(Pressure::kFlowLimit), 0);
  const std::vector<Reply> replies = Replies();
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].code(), v4() ? 13 : 1);
  EXPECT_EQ(rig->sockets.all().size(), 1u);
  // What is open goes on.
  Give({.payload = "on"});
  EXPECT_EQ(Socket().sent.back().payload, "on");
  rig->udp->set_memory_short(false);
  Give({.source_port = 40001});
  EXPECT_EQ(rig->sockets.all().size(), 2u);
}

TEST_P(Udp, GroupsAreDroppedUnlessARuleNamesThem) {
  const IpAddress group = v4() ? IpAddress::V4(239, 255, 255, 250)
                               : *IpAddress::Parse("ff02::c");
  Give({.destination_port = 1900, .to = group});
  EXPECT_EQ(rig->dropped(DropReason::kMulticast), 1u);
  EXPECT_TRUE(rig->sockets.all().empty());

  Rig::Settings settings;
  settings.udp.filtering = UdpFiltering::kAddressAndPortDependent;
  settings.udp.interfaces = {
      {*IpPrefix::Parse(v4() ? "224.0.0.0/4" : "ff00::/8"), "lan0"}};
  Start(settings);
  Give({.destination_port = 1900, .payload = "search", .ttl = 1, .to = group});
  ASSERT_EQ(Socket().sent.size(), 1u);
  EXPECT_EQ(Socket().sent[0].ttl, 1);
  EXPECT_EQ(rig->sockets.last().device, "lan0");
  EXPECT_TRUE(Socket().broadcast);
  Arrive({.from = {Other(), 1900}, .payload = "me"});
  EXPECT_EQ(Replies().size(), 1u) << "from an address of its own";
  // Elsewhere goes what no rule names, by a socket of its own.
  Give({});
  ASSERT_EQ(rig->sockets.all().size(), 2u);
  EXPECT_FALSE(rig->sockets.last().device);
  // Other rules, other sockets.
  rig->udp->Configure({}, rig->now());
  EXPECT_TRUE(Closed(0));
  EXPECT_FALSE(Closed(1));
}

TEST_P(Udp, AMissingInterfaceIsNoRoute) {
  Rig::Settings settings;
  settings.udp.interfaces = {
      {{family().remote, static_cast<uint8_t>(v4() ? 32 : 128)}, "gone0"}};
  Start(settings);
  rig->sockets.device_result = -ENODEV;
  Give({});
  EXPECT_EQ(rig->dropped(DropReason::kUdpHostError), 1u);
  EXPECT_EQ(Replies().size(), 1u);
}

TEST_P(Udp, FlowsAreShownAndClosed) {
  rig->udp->SetFlowChanges(true);
  Give({.destination_port = 1, .payload = "abc"});
  Give({.destination_port = 2});
  Arrive({.from = Remote(1), .payload = "defgh"});
  rig->Advance(seconds(2));
  std::vector<FlowInfo> flows = List();
  ASSERT_EQ(flows.size(), 2u);
  EXPECT_LT(flows[0].id, flows[1].id);
  const FlowInfo& f = flows[0];
  EXPECT_EQ(f.key, (FlowKey{{family().app, kApp}, Remote(1), Protocol::kUdp}));
  EXPECT_EQ(f.state, FlowState::kOpen);
  EXPECT_EQ(f.outbound_bytes, 3u);
  EXPECT_EQ(f.inbound_bytes, 5u);
  EXPECT_EQ(f.outbound_packets, 1u);
  EXPECT_EQ(f.inbound_packets, 1u);
  EXPECT_EQ(f.idle, seconds(2));
  EXPECT_EQ(f.upstream_local, (Endpoint{OurAddress(), kApp}));
  EXPECT_EQ(rig->udp->List({}, f.id, 10, rig->now()).size(), 1u);
  EXPECT_EQ(rig->udp->List({}, 0, 1, rig->now()).at(0).id, f.id);

  FlowFilter filter;
  filter.remote_port = 2;
  EXPECT_EQ(rig->udp->Close(filter, rig->now()), 1u);
  EXPECT_EQ(List().size(), 1u);
  EXPECT_FALSE(Closed());
  EXPECT_EQ(rig->udp->Close({}, rig->now()), 1u);
  EXPECT_TRUE(Closed());
  EXPECT_EQ(closed(CloseReason::kClosedByRequest), 2u);
  ASSERT_EQ(rig->listener.changes.size(), 4u);
  EXPECT_EQ(rig->listener.changes[0].first, FlowChange::kOpened);
  EXPECT_EQ(rig->listener.changes[3].first, FlowChange::kClosed);
  EXPECT_EQ(rig->listener.changes[3].second.close_reason,
            CloseReason::kClosedByRequest);
}

class Forbidding final : public FlowAdvisor {
 public:
  FlowAdvice Advise(const FlowKey& key, Instant) override {
    ++asked;
    if (key.remote.port == 443) return {DropReason::kUdpFiltered, nullptr};
    return {{}, std::make_shared<std::string>("example.com")};
  }
  int asked = 0;
};

TEST_P(Udp, AnAdvisorRefusesAndNames) {
  Forbidding advisor;
  Rig::Settings settings;
  settings.advisor = &advisor;
  Start(settings);
  Give({.payload = "quic"});
  EXPECT_TRUE(rig->sockets.all().empty());
  const std::vector<Reply> replies = Replies();
  ASSERT_EQ(replies.size(), 1u);
  ExpectIcmp(replies[0], v4() ? 3 : 1, v4() ? 3 : 4, Remote(), "quic");
  Give({.destination_port = 80});
  Give({.destination_port = 80});
  EXPECT_EQ(advisor.asked, 2) << "once per peer";
  ASSERT_EQ(List().size(), 1u);
  EXPECT_EQ(List()[0].name, "example.com");
  rig.reset();
}

TEST_P(Udp, DatagramsWaitForTheirOwnerAndKeepTheirOrder) {
  rig->listener.decision = AppDecision::kWait;
  Give({.payload = "one"});
  Give({.payload = "two"});
  EXPECT_TRUE(Socket().sent.empty());
  ASSERT_EQ(rig->listener.asked.size(), 1u) << "once per flow";
  const Listener::Asked asked = rig->listener.asked[0];
  EXPECT_EQ(asked.key.app, (Endpoint{family().app, kApp}));
  EXPECT_EQ(asked.key.remote, Remote());
  EXPECT_EQ(asked.key.protocol, Protocol::kUdp);
  rig->udp->OnDecided(asked.token, asked.flow_id, false, rig->now());
  std::string all;
  for (const auto& sent : Socket().sent) all += sent.payload;
  EXPECT_EQ(all, "onetwo");
  Give({.payload = "three"});
  EXPECT_EQ(Socket().sent.back().payload, "three");
  EXPECT_EQ(rig->listener.asked.size(), 1u);
  ASSERT_EQ(List().size(), 1u);
  EXPECT_EQ(List()[0].outbound_packets, 3u);
}

TEST_P(Udp, WhatWaitedIsRefusedWhenItsOwnerIsBlocked) {
  rig->listener.decision = AppDecision::kWait;
  Give({.payload = "quic"});
  const Listener::Asked asked = rig->listener.asked[0];
  rig->udp->OnDecided(asked.token, asked.flow_id, true, rig->now());
  EXPECT_TRUE(Socket().sent.empty());
  EXPECT_TRUE(Closed());
  EXPECT_EQ(closed(CloseReason::kAppBlocked), 1u);
  EXPECT_EQ(rig->dropped(DropReason::kAppBlocked), 1u);
  const std::vector<Reply> replies = Replies();
  ASSERT_EQ(replies.size(), 1u);
  ExpectIcmp(replies[0], v4() ? 3 : 1, v4() ? 13 : 1, Remote(), "quic");
  // One that has nothing waiting any more ends, too.
  Give({.source_port = 40001});
  const Listener::Asked other = rig->listener.asked[1];
  rig->udp->OnDecided(other.token, other.flow_id + 1, true, rig->now());
  EXPECT_EQ(List().size(), 1u) << "that was another flow";
  rig->udp->OnDecided(other.token, other.flow_id, true, rig->now());
  EXPECT_EQ(List().size(), 0u);
}

TEST_P(Udp, ABlockedAppIsLookedUpOnceASecond) {
  rig->listener.decision = AppDecision::kBlock;
  for (int i = 0; i < 10; ++i) {
    Give({.destination_port = static_cast<uint16_t>(443 + i)});
  }
  EXPECT_EQ(rig->listener.asked.size(), 1u);
  EXPECT_EQ(rig->sockets.all().size(), 1u);
  EXPECT_TRUE(Closed());
  EXPECT_EQ(rig->dropped(DropReason::kAppBlocked), 10u);
  rig->listener.decision = AppDecision::kAllow;
  Give({.source_port = 40001});
  EXPECT_EQ(List().size(), 1u) << "another app's";
  rig->clock.Advance(std::chrono::seconds(1));
  Give({});
  EXPECT_EQ(List().size(), 2u);
}

TEST_P(Udp, WhatWaitsForOwnersIsBounded) {
  rig->listener.decision = AppDecision::kWait;
  for (size_t i = 0; i < UdpForwarder::kMaxHeld + 3; ++i) Give({});
  EXPECT_EQ(rig->dropped(DropReason::kOwnerAwaited), 3u);
  const Listener::Asked asked = rig->listener.asked[0];
  rig->udp->OnDecided(asked.token, asked.flow_id, false, rig->now());
  // There is room again, by bytes as well.
  rig->listener.decision = AppDecision::kWait;
  Give({.source_port = 40001, .payload = std::string(1400, 'x')});
  for (int i = 0; i < 50; ++i) {
    Give({.source_port = 40001, .payload = std::string(1400, 'x')});
  }
  EXPECT_EQ(rig->dropped(DropReason::kOwnerAwaited), 3u + 51u - 65536u /
            (1428u + (v4() ? 0u : 20u)));
}

TEST_P(Udp, OurOwnDatagramIsNotCarriedAgain) {
  Rig::Settings settings;
  settings.udp.preserve_ports = false;
  Start(settings);
  Give({});
  const uint16_t ours = rig->sockets.last().local.port;
  // Another host's app that has the same port by chance.
  rig->sockets.on_connect = [&](const Endpoint&) {
    rig->sockets.last().local.ip = OurAddress();
    return 0;
  };
  Give({.source_port = ours, .destination_port = 444});
  EXPECT_EQ(List().size(), 2u);
  EXPECT_EQ(rig->dropped(DropReason::kLoop), 0u);
  // Our route leads into the TUN.
  rig->sockets.on_connect = [&](const Endpoint&) {
    rig->sockets.last().local.ip = family().app;
    return 0;
  };
  const uint16_t other = rig->sockets.all()[0]->local.port;
  Give({.source_port = other, .destination_port = 445});
  EXPECT_EQ(rig->dropped(DropReason::kLoop), 1u);
  EXPECT_EQ(rig->listener.pressures[static_cast<size_t>(Pressure::kLoop)], 1);
  EXPECT_EQ(List().size(), 2u);
}

TEST_P(Udp, AChangedNetworkGivesMappingsOtherSockets) {
  Give({.payload = "before"});
  const uint64_t id = List()[0].id;
  // Not bound to anything: the kernel finds the way.
  EXPECT_EQ(rig->udp->OnNetworkChanged(false, rig->now()).kept, 1u);
  EXPECT_FALSE(Closed(0));
  EXPECT_EQ(rig->udp->OnNetworkChanged(true, rig->now()).kept, 1u);
  EXPECT_TRUE(Closed(0));
  ASSERT_EQ(rig->sockets.all().size(), 2u);
  Give({.payload = "after"});
  ASSERT_EQ(Socket(1).sent.size(), 1u);
  EXPECT_EQ(Socket(1).sent[0].payload, "after");
  Arrive({.from = Remote(), .payload = "answer"}, 1);
  EXPECT_EQ(Replies().size(), 1u);
  ASSERT_EQ(List().size(), 1u);
  EXPECT_EQ(List()[0].id, id) << "the flow is the same";
  // And without any socket it ends.
  rig->sockets.open_results = {-ENETUNREACH};
  EXPECT_EQ(rig->udp->OnNetworkChanged(true, rig->now()).ended, 1u);
  EXPECT_EQ(closed(CloseReason::kNetworkChanged), 1u);
  EXPECT_TRUE(Closed(1));
}

TEST_P(Udp, ShutdownEndsEverything) {
  Give({.destination_port = 1});
  Give({.destination_port = 2, .flush = false});
  rig->udp->Shutdown(rig->now());
  EXPECT_TRUE(Closed());
  EXPECT_EQ(Socket().sent.size(), 2u) << "what waited went out";
  EXPECT_EQ(closed(CloseReason::kStackStopped), 2u);
  Give({});
  EXPECT_EQ(rig->dropped(DropReason::kShuttingDown), 1u);
}

}  // namespace
}  // namespace netstack::test

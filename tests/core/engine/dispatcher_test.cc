// What becomes of each packet: core/engine/dispatcher.h.
#include "core/engine/dispatcher.h"

#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/forward/forward_rig.h"
#include "tests/core/wire/fragment_packets.h"

namespace netstack::test {
namespace {

class NobodyListens final : public DnsFrontListener {
 public:
  void OnDnsLoop() override {}
  void OnDnsQuery(const dns::DnsQueryInfo&) override {}
  void OnUpstreamHealth(const std::string&, bool, absl::string_view) override {
  }
  void OnDnsFailedOpen(absl::string_view) override {}
};
Dispatcher::Parts PartsOf(Rig& rig, TunStats& stats,
                          IcmpForwarder* echoes = nullptr,
                          DnsFront* dns = nullptr) {
  Dispatcher::Parts parts;
  parts.echoes = echoes;
  parts.dns = dns;
  parts.tcp = rig.tcp.get();
  parts.udp = rig.udp.get();
  parts.reassembler = &rig.reassembler;
  parts.icmp = &rig.icmp;
  parts.stats = &stats;
  parts.drops = &rig.drops;
  return parts;
}

// A datagram from port 40000 with one byte, and its checksum.
ByteVector UdpFrom(const Family& family, const IpAddress& to, uint16_t port) {
  ByteVector udp = Hex("9c40 0000 0009 0000 aa");
  Store16(&udp[2], port);
  Store16(&udp[6], NaiveTransportChecksum(family.app, to, 17, udp));
  return udp;
}

class Dispatch : public testing::TestWithParam<const Family*> {
 protected:
  Dispatch()
      : dispatcher(
            {*IpPrefix::Parse("10.0.0.0/24"), *IpPrefix::Parse("fd00::/64")},
            PartsOf(rig, stats, &echoes, &dns)) {
    dispatcher.set_now(rig.now());
  }
  ~Dispatch() override { echoes.Shutdown(rig.now()); }
  const Family& family() const { return *GetParam(); }
  bool v4() const { return family().v4(); }
  void Give(const ByteVector& packet,
            ChecksumTrust trust = ChecksumTrust::kVerify,
            uint16_t udp_segment = 0) {
    ExactCopy copy(packet);
    dispatcher.OnPacket(copy.bytes(), trust, udp_segment);
    rig.Turn();
  }
  ByteVector Ip(uint8_t protocol, const ByteVector& payload) const {
    return MakeIp(family().app, family().remote, protocol, payload);
  }
  ByteVector Udp(uint16_t port) const {
    return UdpFrom(family(), family().remote, port);
  }
  // Exactly one packet was dropped, for this reason.
  void ExpectDropped(DropReason reason) {
    for (size_t i = 0; i < kDropReasonCount; ++i) {
      EXPECT_EQ(rig.drops.packets()[i], i == static_cast<size_t>(reason))
          << kDropReasonNames[i];
    }
    EXPECT_TRUE(rig.sockets.all().empty());
  }
  // And the app was told so by ICMP.
  void ExpectRefused(DropReason reason) {
    ExpectDropped(reason);
    const std::vector<Reply> replies = rig.TakeReplies();
    ASSERT_EQ(replies.size(), 1u);
    EXPECT_EQ(replies[0].packet.source, rig.icmp.gateway().Of(v4()));
    EXPECT_EQ(replies[0].packet.destination, family().app);
    EXPECT_EQ(replies[0].type(), v4() ? 3 : 1);
    EXPECT_EQ(replies[0].code(), v4() ? 13 : 1);
  }
  void ExpectSilentlyDropped(DropReason reason) {
    ExpectDropped(reason);
    EXPECT_TRUE(rig.tun.written().empty());
  }

  DnsFront::Parts DnsParts() {
    DnsFront::Parts parts;
    parts.sockets = &rig.sockets;
    parts.poller = &rig.poller;
    parts.writer = &rig.writer;
    parts.drops = &rig.drops;
    parts.listener = &listener;
    return parts;
  }

  Rig rig;
  IcmpForwarder echoes{EchoParts(), {}, SipHashKey{9, 10}};
  TunStats stats;
  NobodyListens listener;
  DnsFront dns{DnsParts(), Config{}, SipHashKey{5, 6}, rig.now()};
  Dispatcher dispatcher;

 private:
  IcmpForwarder::Parts EchoParts() {
    IcmpForwarder::Parts parts;
    parts.slots = &rig.slots;
    parts.dialer = &rig.dialer;
    parts.datagrams = &rig.datagrams;
    parts.poller = &rig.poller;
    parts.writer = &rig.writer;
    parts.icmp = &rig.icmp;
    parts.drops = &rig.drops;
    parts.listener = &rig.listener;
    return parts;
  }
};
INSTANTIATE_TEST_SUITE_P(Families, Dispatch, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TcpSpec Syn() {
  TcpSpec spec;
  spec.flags = tcp_flag::kSyn;
  return spec;
}


TEST_P(Dispatch, TcpGoesToTheForwarder) {
  Give(MakeTcpPacket(family(), Syn()));
  EXPECT_EQ(rig.sockets.all().size(), 1u);
  EXPECT_EQ(stats.tcp_packets, 1u);
}

TEST_P(Dispatch, TcpOfNoFlow) {
  Give(MakeTcpPacket(family()));
  ExpectDropped(DropReason::kTcpNoFlow);
  EXPECT_EQ(rig.tun.written().size(), 1u);  // RST
}

TEST_P(Dispatch, UdpGoesToTheForwarder) {
  Give(Ip(ip_protocol::kUdp, Udp(443)));
  ASSERT_EQ(rig.sockets.all().size(), 1u);
  ASSERT_EQ(rig.datagrams.Of(rig.sockets.last().fd).sent.size(), 1u);
  EXPECT_EQ(rig.datagrams.Of(rig.sockets.last().fd).sent[0].to,
            (Endpoint{family().remote, 443}));
  EXPECT_EQ(stats.udp_packets, 1u);
}

TEST_P(Dispatch, BatchesOfUdpStayBatches) {
  ByteVector udp = Hex("9c40 01bb 000e 0000 616161626262");
  Give(Ip(ip_protocol::kUdp, udp), ChecksumTrust::kTrusted, 3);
  ASSERT_EQ(rig.sockets.all().size(), 1u);
  ASSERT_EQ(rig.datagrams.Of(rig.sockets.last().fd).sent.size(), 1u);
  EXPECT_EQ(rig.datagrams.Of(rig.sockets.last().fd).sent[0].segment_size, 3);
}

TEST_P(Dispatch, ABatchHasBoundsToo) {
  ByteVector udp(8 + 128 * 2);
  Store16(&udp[0], 40000);
  Store16(&udp[2], 443);
  Store16(&udp[4], static_cast<uint16_t>(udp.size()));
  Give(Ip(ip_protocol::kUdp, udp), ChecksumTrust::kTrusted, 2);
  ASSERT_EQ(rig.sockets.all().size(), 1u);
  EXPECT_EQ(rig.udp->stats().outbound_datagrams, 128u);
  for (const uint16_t port : {uint16_t{443}, uint16_t{53}}) {
    Store16(&udp[2], port);
    Give(Ip(ip_protocol::kUdp, udp), ChecksumTrust::kTrusted, 1);
  }
  EXPECT_EQ(rig.dropped(DropReason::kBadUdpHeader), 2u);
  EXPECT_EQ(rig.udp->stats().outbound_datagrams, 128u);
  EXPECT_EQ(dns.stats().asked.malformed, 0u);
}

TEST_P(Dispatch, UdpChecksumIsVerified) {
  ByteVector udp = Udp(443);
  udp[8] ^= std::byte{1};
  Give(Ip(ip_protocol::kUdp, udp));
  ExpectSilentlyDropped(DropReason::kBadTransportChecksum);
}

TEST_P(Dispatch, DnsGoesToTheResolver) {
  // A query without a question, which is answered at once: FORMERR.
  Give(Ip(ip_protocol::kUdp,
          Hex("9c40 0035 0014 0000 1234 0100 0000 0000 0000 0000")),
       ChecksumTrust::kTrusted);
  EXPECT_EQ(dns.stats().asked.malformed, 1u);
  const std::vector<Reply> replies = rig.TakeReplies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].packet.source, family().remote);
  EXPECT_EQ(replies[0].packet.destination, family().app);
  const Bytes udp = replies[0].packet.transport;
  ASSERT_EQ(udp.size(), 20u);
  EXPECT_EQ(Load16(&udp[0]), 53);
  EXPECT_EQ(Load16(&udp[2]), 0x9C40);
  EXPECT_EQ(Load16(&udp[8]), 0x1234);
  EXPECT_EQ(Load16(&udp[10]) & 0x800F, 0x8001);  // an answer, FORMERR
}

// sendmsg() with UDP_SEGMENT: one packet of the TUN, two messages.
TEST_P(Dispatch, ABatchOfQueriesIsManyQueries) {
  Give(Ip(ip_protocol::kUdp,
          Hex("9c40 0035 0020 0000 1234 0100 0000 0000 0000 0000"
              "5678 0100 0000 0000 0000 0000")),
       ChecksumTrust::kTrusted, 12);
  EXPECT_EQ(dns.stats().asked.malformed, 2u);
  const std::vector<Reply> replies = rig.TakeReplies();
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(Load16(&replies[0].packet.transport[8]), 0x1234);
  EXPECT_EQ(Load16(&replies[1].packet.transport[8]), 0x5678);
}

TEST_P(Dispatch, WhatIsNoDnsIsDroppedAtPort53) {
  Give(Ip(ip_protocol::kUdp, Udp(53)), ChecksumTrust::kTrusted);
  ExpectSilentlyDropped(DropReason::kDnsNotQuery);
}

TEST_P(Dispatch, WithoutTheResolverPort53IsLikeAnyOther) {
  Config config;
  config.dns.enabled = false;
  dns.Configure(config, 0, rig.now());
  Give(Ip(ip_protocol::kUdp, Udp(53)));
  EXPECT_EQ(rig.sockets.all().size(), 1u) << "the UDP forwarder's";
}

TEST_P(Dispatch, UdpTooShortForItsHeader) {
  Give(Ip(ip_protocol::kUdp, Hex("9c4001bb000800")));
  ExpectSilentlyDropped(DropReason::kTooShort);
}

TEST_P(Dispatch, EchoesGoToTheForwarder) {
  const uint8_t icmp = v4() ? ip_protocol::kIcmp : ip_protocol::kIcmpV6;
  Give(Ip(icmp, MakeEcho(family(), 1, 2, Hex("0102"))));
  ASSERT_EQ(rig.sockets.all().size(), 1u);
  EXPECT_EQ(rig.sockets.last().kind, SocketKind::kEcho);
  EXPECT_EQ(stats.icmp_packets, 1u);
  // In fragments, too.
  const ByteVector data(3000);
  for (const ByteVector& fragment :
       CutIntoFragments(family(), {.protocol = icmp},
                        MakeEcho(family(), 1, 3, data), 1232)) {
    Give(fragment);
  }
  const auto& sent = rig.datagrams.Of(rig.sockets.last().fd).sent;
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[1].payload.size(), 3008u);
  EXPECT_FALSE(sent[1].dont_fragment);
}

TEST_P(Dispatch, IcmpThatIsNotCarried) {
  const uint8_t icmp = v4() ? ip_protocol::kIcmp : ip_protocol::kIcmpV6;
  const auto message = [&](uint8_t type) {
    ByteVector m = MakeEcho(family(), 1, 2, ByteVector(28));
    Store8(&m[0], type);
    Store16(&m[2], 0);
    Store16(&m[2], v4() ? NaiveChecksum(m)
                        : NaiveTransportChecksum(family().app, family().remote,
                                                 58, m));
    return Ip(icmp, m);
  };
  Give(message(v4() ? 13 : 133));
  ExpectSilentlyDropped(DropReason::kIcmpNotCarried);
  Give(message(v4() ? 3 : 1));
  EXPECT_EQ(rig.dropped(DropReason::kIcmpErrorFromApp), 1u);
  // The other family's.
  Give(Ip(v4() ? 58 : 1, MakeEcho(family(), 1, 2, {})));
  EXPECT_EQ(rig.dropped(DropReason::kIcmpNotCarried), 2u);
  Give(Ip(icmp, Hex("08000000000100")));
  EXPECT_EQ(rig.dropped(DropReason::kTooShort), 1u);
  ByteVector wrong = MakeEcho(family(), 1, 2, {});
  wrong[7] ^= std::byte{1};
  Give(Ip(icmp, wrong));
  EXPECT_EQ(rig.dropped(DropReason::kBadTransportChecksum), 1u);
  EXPECT_TRUE(rig.sockets.all().empty());
  EXPECT_TRUE(rig.tun.written().empty());
}

// As a router's own address: nothing that is sent to it goes further, whatever
// its TTL.
TEST_P(Dispatch, OurOwnAddressIsNobodyElses) {
  const Family self{family().name, family().app, rig.icmp.gateway().Of(v4())};
  const auto give = [&](uint8_t protocol, const ByteVector& payload) {
    ByteVector packet = MakeIp(self.app, self.remote, protocol, payload);
    Store8(&packet[v4() ? 8 : 7], 1);
    if (v4()) FixV4Checksum(packet);
    Give(packet);
    std::vector<Reply> replies = rig.TakeReplies();
    EXPECT_EQ(replies.size(), 1u);
    return replies.empty() ? Reply{} : replies[0];
  };
  const auto expect = [&](const Reply& r, int type, int code) {
    EXPECT_EQ(r.packet.source, self.remote);
    EXPECT_EQ(r.type(), type);
    EXPECT_EQ(r.code(), code);
  };
  expect(give(ip_protocol::kUdp, UdpFrom(family(), self.remote, 33434)),
         v4() ? 3 : 1, v4() ? 3 : 4);
  expect(give(ip_protocol::kTcp, MakeTcp(self.app, self.remote, Syn())),
         v4() ? 3 : 1, v4() ? 3 : 4);
  EXPECT_EQ(rig.dropped(DropReason::kBadAddress), 2u);
  expect(give(132, ByteVector(12)), v4() ? 3 : 4, v4() ? 2 : 1);
  EXPECT_EQ(rig.dropped(DropReason::kUnknownProtocol), 1u);
  expect(give(v4() ? ip_protocol::kIcmp : ip_protocol::kIcmpV6,
              MakeEcho(self, 1, 2, Hex("0102"))),
         v4() ? 0 : 129, 0);
  EXPECT_TRUE(rig.sockets.all().empty());
  EXPECT_EQ(rig.dropped(DropReason::kTtlExpired), 0u);
  // Names are answered there as anywhere: an empty query, FORMERR.
  ByteVector query = Hex("9c40 0035 0014 0000 1234 0100 0000 0000 0000 0000");
  Store16(&query[6], NaiveTransportChecksum(self.app, self.remote, 17, query));
  EXPECT_EQ(give(ip_protocol::kUdp, query).packet.transport.size(), 20u);
}

TEST_P(Dispatch, OtherTransportsAreRefused) {
  Give(Ip(132, Hex("0000")));  // SCTP
  ExpectRefused(DropReason::kUnknownProtocol);
  EXPECT_EQ(stats.other_packets, 1u);
}

// A SYN in two fragments, as no stack sends it, goes its way all the same.
TEST_P(Dispatch, FragmentsGoOnAsAWhole) {
  TcpSpec spec = Syn();
  spec.payload = ByteVector(40);
  const ByteVector tcp = MakeTcp(family().app, family().remote, spec);
  for (const ByteVector& fragment :
       CutIntoFragments(family(), {.protocol = 6}, tcp, 40)) {
    EXPECT_TRUE(rig.sockets.all().empty());
    Give(fragment);
  }
  EXPECT_EQ(rig.sockets.all().size(), 1u);
  EXPECT_EQ(stats.fragments, 2u);
  EXPECT_EQ(stats.tcp_packets, 2u);
}

TEST_P(Dispatch, WholesOfFragmentsAreChecked) {
  ByteVector tcp = MakeTcp(family().app, family().remote, Syn());
  tcp = Concat(tcp, ByteVector(20));  // which its checksum does not know
  tcp.back() = std::byte{1};
  for (const ByteVector& fragment :
       CutIntoFragments(family(), {.protocol = 6}, tcp, 24)) {
    Give(fragment);
  }
  ExpectSilentlyDropped(DropReason::kBadTransportChecksum);
}

TEST_P(Dispatch, AFragmentOfFragmentsIsNone) {
  if (v4()) return;  // IPv4 cannot say that
  // Behind the fragment header stands another one.
  const ByteVector inner = Hex("0600000100000001 0000000000000000");
  for (const ByteVector& fragment :
       CutIntoFragments(family(), {.protocol = 60},
                        Concat(Hex("2c00010400000000"), inner), 16)) {
    Give(fragment);
  }
  // The first does not hold its transport's header.
  EXPECT_EQ(rig.dropped(DropReason::kFragmentTiny), 1u);
  EXPECT_TRUE(rig.sockets.all().empty());
  rig.reassembler.Expire(rig.now() + std::chrono::hours(1),
                         [](const Packet&) { FAIL() << "no first fragment"; });
}

TEST_P(Dispatch, MalformedFragmentsAreComplainedOfInIpV6) {
  Give(MakeFragment(family(), {}, ByteVector(12)));
  EXPECT_EQ(rig.dropped(DropReason::kBadFragment), 1u);
  const std::vector<Reply> replies = rig.TakeReplies();
  ASSERT_EQ(replies.size(), v4() ? 0u : 1u);
  if (v4()) return;
  EXPECT_EQ(replies[0].type(), 4);
  EXPECT_EQ(replies[0].code(), 0);
}

// Whatever it is, as a router does it.
TEST_P(Dispatch, TtlIsSpentHere) {
  const std::vector<ByteVector> all = {
      MakeTcpPacket(family(), Syn()), MakeTcpPacket(family()),
      Ip(ip_protocol::kUdp, Udp(443)), Ip(132, Hex("0000")),
      MakeFragment(family(), {}, ByteVector(16)),
      Ip(v4() ? 1 : 58, MakeEcho(family(), 1, 2, {}))};
  uint64_t n = 0;
  for (const uint8_t ttl : {uint8_t{0}, uint8_t{1}}) {
    for (ByteVector packet : all) {
      Store8(&packet[v4() ? 8 : 7], ttl);
      if (v4()) FixV4Checksum(packet);
      Give(packet);
      EXPECT_EQ(rig.dropped(DropReason::kTtlExpired), ++n);
      const std::vector<Reply> replies = rig.TakeReplies();
      ASSERT_EQ(replies.size(), 1u);
      EXPECT_EQ(replies[0].type(), v4() ? 11 : 3);
      EXPECT_EQ(replies[0].code(), 0);
      EXPECT_EQ(replies[0].packet.source, rig.icmp.gateway().Of(v4()));
      EXPECT_EQ(ByteVector(replies[0].quote().begin(),
                           replies[0].quote().end()),
                packet);
    }
  }
  EXPECT_TRUE(rig.sockets.all().empty());
  // Two is enough.
  ByteVector packet = MakeTcpPacket(family(), Syn());
  Store8(&packet[v4() ? 8 : 7], 2);
  if (v4()) FixV4Checksum(packet);
  Give(packet);
  EXPECT_EQ(rig.sockets.all().size(), 1u);
}

TEST_P(Dispatch, ForeignSourcesAreDropped) {
  Family foreign = family();
  foreign.app =
      v4() ? IpAddress::V4(10, 0, 1, 2) : *IpAddress::Parse("fd00:0:0:1::2");
  Give(MakeTcpPacket(foreign, Syn()));
  ExpectSilentlyDropped(DropReason::kSourceNotOurs);
}

TEST_P(Dispatch, AddressesThatNoConversationHas) {
  const auto ip = [](const char* text) { return *IpAddress::Parse(text); };
  const std::vector<std::pair<IpAddress, IpAddress>> cases =
      v4()
          ? std::vector<std::pair<
                IpAddress, IpAddress>>{{ip("127.0.0.1"), family().remote},
                                       {family().app, ip("127.0.0.1")},
                                       {family().app, ip("127.255.255.254")},
                                       {ip("0.0.0.0"), family().remote},
                                       {family().app, ip("0.0.0.0")},
                                       {ip("224.0.0.1"), family().remote},
                                       {ip("255.255.255.255"), family().remote}}
          : std::vector<std::pair<IpAddress, IpAddress>>{
                {ip("::1"), family().remote},
                {family().app, ip("::1")},
                {ip("::"), family().remote},
                {family().app, ip("::")},
                {ip("ff02::1"), family().remote}};
  uint64_t n = 0;
  for (const auto& [source, destination] : cases) {
    Give(MakeIp(source, destination, 6, MakeTcp(source, destination, Syn())));
    EXPECT_EQ(rig.dropped(DropReason::kBadAddress), ++n)
        << source.ToString() << " " << destination.ToString();
  }
  EXPECT_TRUE(rig.sockets.all().empty());
  EXPECT_TRUE(rig.tun.written().empty());
}

TEST_P(Dispatch, MulticastIsDropped) {
  const IpAddress group = *IpAddress::Parse(v4() ? "224.0.0.251" : "ff02::fb");
  Give(MakeIp(family().app, group, 17, UdpFrom(family(), group, 5353)));
  ExpectSilentlyDropped(DropReason::kMulticast);
}

TEST(DispatchV4, BroadcastIsDropped) {
  Rig rig;
  TunStats stats;
  Dispatcher d({}, PartsOf(rig, stats));
  const IpAddress all = IpAddress::V4(255, 255, 255, 255);
  ByteVector packet = MakeIp(kV4.app, all, 17, UdpFrom(kV4, all, 67));
  d.OnPacket(packet, ChecksumTrust::kVerify, 0);
  EXPECT_EQ(rig.dropped(DropReason::kMulticast), 1u);
}

TEST(DispatchAll, WithoutPrefixesEverybodyIsOurs) {
  Rig rig;
  TunStats stats;
  Dispatcher d({}, PartsOf(rig, stats));
  for (const Family* f : {&kV4, &kV6}) {
    ByteVector packet = MakeTcpPacket(*f, Syn());
    d.OnPacket(packet, ChecksumTrust::kVerify, 0);
  }
  EXPECT_EQ(rig.sockets.all().size(), 2u);
}

TEST_P(Dispatch, WhatTheParserSays) {
  Give({});
  EXPECT_EQ(rig.dropped(DropReason::kTooShort), 1u);
  Give(Hex("55"));
  EXPECT_EQ(rig.dropped(DropReason::kBadIpVersion) +
                rig.dropped(DropReason::kTooShort),
            2u);
  ByteVector packet = MakeTcpPacket(family());
  packet.resize(packet.size() - 1);
  const uint64_t before = rig.dropped(DropReason::kTooShort) +
                          rig.dropped(DropReason::kBadIpHeader);
  Give(packet);
  EXPECT_EQ(rig.dropped(DropReason::kTooShort) +
                rig.dropped(DropReason::kBadIpHeader),
            before + 1);
  TcpSpec zero_port;
  zero_port.source_port = 0;
  Give(MakeTcpPacket(family(), zero_port));
  EXPECT_EQ(rig.dropped(DropReason::kBadTcpHeader), 1u);
  EXPECT_TRUE(rig.tun.written().empty());
}

TEST_P(Dispatch, ChecksumIsVerifiedUnlessVouchedFor) {
  ByteVector packet = MakeTcpPacket(family(), Syn());
  packet.at(packet.size() - 4) ^= std::byte{1};  // the checksum itself
  Give(packet);
  EXPECT_EQ(rig.dropped(DropReason::kBadTransportChecksum), 1u);
  EXPECT_TRUE(rig.sockets.all().empty());
  Give(packet, ChecksumTrust::kTrusted);
  EXPECT_EQ(rig.sockets.all().size(), 1u);
}

TEST_P(Dispatch, RefusalsAreRateLimited) {
  for (int i = 0; i < 60; ++i) Give(Ip(99, Hex("00")));
  const size_t sent = rig.tun.written().size();
  EXPECT_GT(sent, 15u);
  EXPECT_LE(sent, 25u);
  EXPECT_EQ(rig.dropped(DropReason::kUnknownProtocol), 60u);
  EXPECT_EQ(rig.dropped(DropReason::kIcmpRateLimited), 60 - sent);
}

}  // namespace
}  // namespace netstack::test

// What becomes of each packet: core/engine/dispatcher.h.
#include "core/engine/dispatcher.h"

#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/forward/forward_rig.h"

namespace netstack::test {
namespace {

class Dispatch : public testing::TestWithParam<const Family*> {
 protected:
  Dispatch()
      : dispatcher(
            {*IpPrefix::Parse("10.0.0.0/24"), *IpPrefix::Parse("fd00::/64")},
            rig.tcp.get(), &rig.icmp, &stats, &rig.drops) {
    dispatcher.set_now(rig.now());
  }
  const Family& family() const { return *GetParam(); }
  bool v4() const { return family().v4(); }
  void Give(const ByteVector& packet,
            ChecksumTrust trust = ChecksumTrust::kVerify) {
    ExactCopy copy(packet);
    dispatcher.OnPacket(copy.bytes(), trust);
    rig.Turn();
  }
  ByteVector Ip(uint8_t protocol, const ByteVector& payload) const {
    return MakeIp(family().app, family().remote, protocol, payload);
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
    EXPECT_EQ(replies[0].packet.source, family().remote);
    EXPECT_EQ(replies[0].packet.destination, family().app);
    EXPECT_EQ(replies[0].type(), v4() ? 3 : 1);
    EXPECT_EQ(replies[0].code(), v4() ? 13 : 1);
  }
  void ExpectSilentlyDropped(DropReason reason) {
    ExpectDropped(reason);
    EXPECT_TRUE(rig.tun.written().empty());
  }

  Rig rig;
  TunStats stats;
  Dispatcher dispatcher;
};
INSTANTIATE_TEST_SUITE_P(Families, Dispatch, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TcpSpec Syn() {
  TcpSpec spec;
  spec.flags = tcp_flag::kSyn;
  return spec;
}

ByteVector Udp(uint16_t port) {
  ByteVector udp = Hex("9c40 0000 0009 0000 aa");
  Store16(&udp[2], port);
  return udp;
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

TEST_P(Dispatch, UdpIsRefused) {
  Give(Ip(ip_protocol::kUdp, Udp(443)));
  ExpectRefused(DropReason::kUdpUnsupported);
  EXPECT_EQ(stats.udp_packets, 1u);
}

TEST_P(Dispatch, DnsIsRefusedByItsOwnName) {
  Give(Ip(ip_protocol::kUdp, Udp(53)));
  ExpectRefused(DropReason::kDnsUnsupported);
}

TEST_P(Dispatch, UdpTooShortForPorts) {
  Give(Ip(ip_protocol::kUdp, Hex("9c4000")));
  ExpectRefused(DropReason::kUdpUnsupported);
}

TEST_P(Dispatch, IcmpIsDropped) {
  Give(Ip(v4() ? ip_protocol::kIcmp : ip_protocol::kIcmpV6,
          Hex("0800f7fe00010000")));
  ExpectSilentlyDropped(DropReason::kIcmpUnsupported);
  EXPECT_EQ(stats.icmp_packets, 1u);
}

TEST_P(Dispatch, OtherTransportsAreRefused) {
  Give(Ip(132, Hex("0000")));  // SCTP
  ExpectRefused(DropReason::kUnknownProtocol);
  EXPECT_EQ(stats.other_packets, 1u);
}

TEST_P(Dispatch, FragmentsAreDropped) {
  if (v4()) {
    ByteVector packet = MakeTcpPacket(family());
    Store16(&packet[6], 0x2000);  // more fragments
    FixV4Checksum(packet);
    Give(packet);
  } else {
    Give(Ip(44, Concat(Hex("0600000100000001"),
                       MakeTcp(family().app, family().remote, {}))));
  }
  ExpectSilentlyDropped(DropReason::kFragment);
  EXPECT_EQ(stats.fragments, 1u);
  EXPECT_EQ(stats.tcp_packets, 1u);
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
  Give(MakeIp(family().app, group, 17, Udp(5353)));
  ExpectSilentlyDropped(DropReason::kMulticast);
}

TEST(DispatchV4, BroadcastIsDropped) {
  Rig rig;
  TunStats stats;
  Dispatcher d({}, rig.tcp.get(), &rig.icmp, &stats, &rig.drops);
  ByteVector packet =
      MakeIp(kV4.app, IpAddress::V4(255, 255, 255, 255), 17, Udp(67));
  d.OnPacket(packet, ChecksumTrust::kVerify);
  EXPECT_EQ(rig.dropped(DropReason::kMulticast), 1u);
}

TEST(DispatchAll, WithoutPrefixesEverybodyIsOurs) {
  Rig rig;
  TunStats stats;
  Dispatcher d({}, rig.tcp.get(), &rig.icmp, &stats, &rig.drops);
  for (const Family* f : {&kV4, &kV6}) {
    ByteVector packet = MakeTcpPacket(*f, Syn());
    d.OnPacket(packet, ChecksumTrust::kVerify);
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
  for (int i = 0; i < 60; ++i) Give(Ip(ip_protocol::kUdp, Udp(443)));
  EXPECT_EQ(rig.tun.written().size(), 50u);
  EXPECT_EQ(rig.dropped(DropReason::kUdpUnsupported), 60u);
  EXPECT_EQ(rig.dropped(DropReason::kIcmpRateLimited), 10u);
}

}  // namespace
}  // namespace netstack::test

#include "core/wire/packet.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "core/wire/udp.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/wire/test_packets.h"

namespace netstack {

void PrintTo(DropReason r, std::ostream* out) { *out << DropReasonName(r); }

namespace {

using test::ByteVector;
using test::Concat;
using test::ExactCopy;
using test::Family;
using test::Hex;
using test::kV4;
using test::kV6;
using test::MakeIp;
using test::MakeTcp;
using test::MakeTcpPacket;
using test::TcpSpec;

bool Same(Bytes a, Bytes b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

// Takes a packet through everything that parses it, as the dispatcher does.
// The reason why it is dropped, or nullopt.
std::optional<DropReason> Judge(Bytes bytes) {
  const OrDrop<Packet> packet = ParsePacket(bytes);
  if (!packet) return packet.reason();
  if (packet->is_fragment) return std::nullopt;
  if (packet->protocol == ip_protocol::kUdp) {
    const OrDrop<UdpDatagram> udp = ParseUdp(*packet, ChecksumTrust::kVerify);
    if (!udp) return udp.reason();
  }
  if (packet->protocol != ip_protocol::kTcp) return std::nullopt;
  const OrDrop<TcpSegment> tcp = ParseTcp(*packet, ChecksumTrust::kVerify);
  if (!tcp) return tcp.reason();
  if (!tcp->Has(tcp_flag::kSyn)) return std::nullopt;
  const OrDrop<SynOptions> options = ParseSynOptions(tcp->options);
  if (!options) return options.reason();
  return std::nullopt;
}

// --- Good packets -----------------------------------------------------------

TEST(ParsePacket, ReadsLinuxsSynV4) {
  const ByteVector bytes = test::LinuxSynV4();
  const OrDrop<Packet> p = ParsePacket(bytes);
  ASSERT_TRUE(p);
  EXPECT_TRUE(p->is_v4);
  EXPECT_EQ(p->source.ToString(), "10.0.0.2");
  EXPECT_EQ(p->destination.ToString(), "10.0.0.9");
  EXPECT_EQ(p->protocol, ip_protocol::kTcp);
  EXPECT_EQ(p->protocol_at, 9);
  EXPECT_EQ(p->ttl, 64);
  EXPECT_EQ(p->tos, 0);
  EXPECT_TRUE(p->dont_fragment);
  EXPECT_FALSE(p->is_fragment);
  EXPECT_EQ(p->bytes.data(), bytes.data());
  EXPECT_EQ(p->bytes.size(), 60u);
  EXPECT_EQ(p->transport.data(), bytes.data() + 20);
  EXPECT_EQ(p->transport.size(), 40u);

  const OrDrop<TcpSegment> tcp = ParseTcp(*p, ChecksumTrust::kVerify);
  ASSERT_TRUE(tcp);
  EXPECT_EQ(tcp->source_port, 0xb07e);
  EXPECT_EQ(tcp->destination_port, 80);
  EXPECT_EQ(tcp->seq, 0x76b2660du);
  EXPECT_EQ(tcp->ack, 0u);
  EXPECT_EQ(tcp->flags, tcp_flag::kSyn);
  EXPECT_EQ(tcp->window, 0xfaf0);
  EXPECT_EQ(tcp->options.size(), 20u);
  EXPECT_TRUE(tcp->payload.empty());

  const OrDrop<SynOptions> options = ParseSynOptions(tcp->options);
  ASSERT_TRUE(options);
  EXPECT_EQ(options->mss, 1460);
  EXPECT_EQ(options->window_scale, 10);
  EXPECT_TRUE(options->sack_permitted);
}

TEST(ParsePacket, ReadsLinuxsSynV6) {
  const ByteVector bytes = test::LinuxSynV6();
  const OrDrop<Packet> p = ParsePacket(bytes);
  ASSERT_TRUE(p);
  EXPECT_FALSE(p->is_v4);
  EXPECT_EQ(p->source.ToString(), "2001:db8::2");
  EXPECT_EQ(p->destination.ToString(), "2001:db8::9");
  EXPECT_EQ(p->protocol, ip_protocol::kTcp);
  EXPECT_EQ(p->protocol_at, 6);
  EXPECT_EQ(p->ttl, 64);
  EXPECT_EQ(p->tos, 0);
  EXPECT_TRUE(p->dont_fragment);
  EXPECT_EQ(p->transport.size(), 40u);
  const OrDrop<TcpSegment> tcp = ParseTcp(*p, ChecksumTrust::kVerify);
  ASSERT_TRUE(tcp);
  EXPECT_EQ(tcp->seq, 0x3680bde3u);
  const OrDrop<SynOptions> options = ParseSynOptions(tcp->options);
  ASSERT_TRUE(options);
  EXPECT_EQ(options->mss, 1440);
}

TEST(ParsePacket, ReadsLinuxsUdp) {
  for (const ByteVector& bytes : {test::LinuxUdpV4(), test::LinuxUdpV6()}) {
    const OrDrop<Packet> p = ParsePacket(bytes);
    ASSERT_TRUE(p);
    EXPECT_EQ(p->protocol, ip_protocol::kUdp);
    EXPECT_EQ(p->transport.size(), 13u);
    const std::optional<Ports> ports = PeekPorts(*p);
    ASSERT_TRUE(ports);
    EXPECT_EQ(ports->destination, 53);
  }
}

class BothFamilies : public testing::TestWithParam<Family> {
 protected:
  const Family& family() const { return GetParam(); }
  size_t ip_size() const { return family().v4() ? 20 : 40; }
};

INSTANTIATE_TEST_SUITE_P(Families, BothFamilies, testing::Values(kV4, kV6),
                         [](const auto& p) { return p.param.name; });

TEST_P(BothFamilies, PacketTellsItsHeader) {
  const ByteVector payload = Hex("01 02 03");
  ByteVector bytes = MakeIp(family().app, family().remote, 99, payload);
  if (family().v4()) {
    Store8(&bytes[1], 0xB8);  // type of service
    Store8(&bytes[8], 7);     // time to live
    test::FixV4Checksum(bytes);
  } else {
    Store32(&bytes[0], 0x6B8ABCDE);  // traffic class b8, flow label abcde
    Store8(&bytes[7], 7);            // hop limit
  }
  const OrDrop<Packet> p = ParsePacket(bytes);
  ASSERT_TRUE(p);
  EXPECT_EQ(p->source, family().app);
  EXPECT_EQ(p->destination, family().remote);
  EXPECT_EQ(p->is_v4, family().v4());
  EXPECT_EQ(p->protocol, 99);
  EXPECT_EQ(p->tos, 0xB8);
  EXPECT_EQ(p->ttl, 7);
  EXPECT_TRUE(Same(p->transport, payload));
  EXPECT_TRUE(Same(p->bytes, bytes));
}

TEST_P(BothFamilies, PacketCutsTrailingBytes) {
  const ByteVector packet = MakeTcpPacket(family());
  for (size_t extra : {1u, 2u, 40u}) {
    const ByteVector bytes = Concat(packet, ByteVector(extra));
    const OrDrop<Packet> p = ParsePacket(bytes);
    ASSERT_TRUE(p);
    EXPECT_EQ(p->bytes.size(), packet.size());
    EXPECT_EQ(p->transport.size(), packet.size() - ip_size());
    EXPECT_TRUE(ParseTcp(*p, ChecksumTrust::kVerify));
  }
}

TEST_P(BothFamilies, PacketMayHaveNoPayload) {
  const ByteVector bytes = MakeIp(family().app, family().remote, 99, {});
  const OrDrop<Packet> p = ParsePacket(bytes);
  ASSERT_TRUE(p);
  EXPECT_TRUE(p->transport.empty());
}

TEST_P(BothFamilies, PacketOfTheLargestLength) {
  const size_t payload = family().v4() ? 65535 - 20 : 65535;
  const ByteVector bytes = MakeIp(family().app, family().remote, 99,
                                  ByteVector(payload, std::byte{0xEE}));
  const OrDrop<Packet> p = ParsePacket(bytes);
  ASSERT_TRUE(p);
  EXPECT_EQ(p->transport.size(), payload);
}

TEST_P(BothFamilies, SegmentTellsItsHeader) {
  TcpSpec spec;
  spec.flags = tcp_flag::kAck | tcp_flag::kPsh | tcp_flag::kUrg;
  spec.options = Hex("01 01 01 00");
  spec.payload = Hex("aa bb cc");
  const ByteVector bytes = MakeTcpPacket(family(), spec);
  const OrDrop<Packet> p = ParsePacket(bytes);
  ASSERT_TRUE(p);
  const OrDrop<TcpSegment> tcp = ParseTcp(*p, ChecksumTrust::kVerify);
  ASSERT_TRUE(tcp);
  EXPECT_EQ(tcp->source_port, spec.source_port);
  EXPECT_EQ(tcp->destination_port, spec.destination_port);
  EXPECT_EQ(tcp->seq, spec.seq);
  EXPECT_EQ(tcp->ack, spec.ack);
  EXPECT_EQ(tcp->flags, spec.flags);
  EXPECT_EQ(tcp->window, spec.window);
  EXPECT_TRUE(tcp->Has(tcp_flag::kUrg));
  EXPECT_TRUE(tcp->Has(tcp_flag::kSyn | tcp_flag::kAck));
  EXPECT_FALSE(tcp->Has(tcp_flag::kSyn));
  EXPECT_TRUE(Same(tcp->options, spec.options));
  EXPECT_TRUE(Same(tcp->payload, spec.payload));
}

TEST_P(BothFamilies, SegmentOfEveryHeaderLength) {
  for (size_t words = 0; words <= 10; ++words) {
    TcpSpec spec;
    spec.options = ByteVector(words * 4, std::byte{1});
    spec.payload = Hex("aa");
    const ByteVector bytes = MakeTcpPacket(family(), spec);
    const OrDrop<Packet> p = ParsePacket(bytes);
    ASSERT_TRUE(p);
    const OrDrop<TcpSegment> tcp = ParseTcp(*p, ChecksumTrust::kVerify);
    ASSERT_TRUE(tcp);
    EXPECT_EQ(tcp->options.size(), words * 4);
    EXPECT_TRUE(Same(tcp->payload, spec.payload));
  }
}

TEST_P(BothFamilies, TrustedSegmentsKeepTheirChecksumUnread) {
  ByteVector bytes = MakeTcpPacket(family());
  bytes[ip_size() + 16] ^= std::byte{0xFF};
  const OrDrop<Packet> p = ParsePacket(bytes);
  ASSERT_TRUE(p);
  EXPECT_TRUE(ParseTcp(*p, ChecksumTrust::kTrusted));
  const OrDrop<TcpSegment> verified = ParseTcp(*p, ChecksumTrust::kVerify);
  ASSERT_FALSE(verified);
  EXPECT_EQ(verified.reason(), DropReason::kBadTransportChecksum);
}

TEST_P(BothFamilies, EveryChangedBitOfASegmentIsFound) {
  TcpSpec spec;
  spec.payload = Hex("00 01 02 03 04");
  const ByteVector good = MakeTcpPacket(family(), spec);
  ASSERT_EQ(Judge(good), std::nullopt);
  for (size_t bit = ip_size() * 8; bit < good.size() * 8; ++bit) {
    ByteVector bytes = good;
    bytes[bit / 8] ^= static_cast<std::byte>(0x80 >> (bit % 8));
    EXPECT_NE(Judge(bytes), std::nullopt) << "bit " << bit;
  }
}

TEST(ParsePacket, EveryChangedBitOfAV4HeaderIsFound) {
  const ByteVector good = test::LinuxSynV4();
  for (size_t bit = 0; bit < 160; ++bit) {
    ByteVector bytes = good;
    bytes[bit / 8] ^= static_cast<std::byte>(0x80 >> (bit % 8));
    EXPECT_FALSE(ParsePacket(bytes)) << "bit " << bit;
  }
}

TEST(ParsePacket, SkipsV4Options) {
  ByteVector bytes = MakeIp(kV4.app, kV4.remote, 99, Hex("aa bb"));
  const ByteVector options = Hex("94 04 00 00");  // router alert
  bytes.insert(bytes.begin() + 20, options.begin(), options.end());
  Store8(&bytes[0], 0x46);
  Store16(&bytes[2], 26);
  test::FixV4Checksum(bytes);
  const OrDrop<Packet> p = ParsePacket(bytes);
  ASSERT_TRUE(p);
  EXPECT_TRUE(Same(p->transport, Hex("aa bb")));
}

// --- Fragments --------------------------------------------------------------

struct FragmentCase {
  const char* name;
  uint16_t v4_field;  // flags and offset, RFC 791
  uint16_t v6_field;  // offset and M, RFC 8200, section 4.5
  bool is_fragment;
  uint16_t offset;
};

class Fragments : public testing::TestWithParam<FragmentCase> {};

INSTANTIATE_TEST_SUITE_P(
    All, Fragments,
    testing::Values(FragmentCase{"Whole", 0x0000, 0x0000, false, 0},
                    FragmentCase{"First", 0x2000, 0x0001, true, 0},
                    FragmentCase{"Middle", 0x2001, 0x0009, true, 8},
                    FragmentCase{"Last", 0x0003, 0x0018, true, 24},
                    FragmentCase{"Farthest", 0x1FFF, 0xFFF8, true, 65528},
                    // Reserved bits mean nothing.
                    FragmentCase{"Reserved", 0x8000, 0x0006, false, 0}),
    [](const auto& p) { return p.param.name; });

TEST_P(Fragments, V4) {
  for (const bool dont_fragment : {false, true}) {
    ByteVector bytes = MakeTcpPacket(kV4);
    Store16(&bytes[6], static_cast<uint16_t>(GetParam().v4_field |
                                             (dont_fragment ? 0x4000 : 0)));
    test::FixV4Checksum(bytes);
    const OrDrop<Packet> p = ParsePacket(bytes);
    ASSERT_TRUE(p);
    EXPECT_EQ(p->is_fragment, GetParam().is_fragment);
    EXPECT_EQ(p->fragment_offset, GetParam().offset);
    EXPECT_EQ(p->dont_fragment, dont_fragment);
    EXPECT_EQ(PeekPorts(*p).has_value(), !GetParam().is_fragment);
  }
}

TEST_P(Fragments, V6) {
  ByteVector header = Hex("06 00 0000 12345678");
  Store16(&header[2], GetParam().v6_field);
  const ByteVector tcp = MakeTcp(kV6.app, kV6.remote, {});
  const ByteVector bytes =
      MakeIp(kV6.app, kV6.remote, 44, Concat(header, tcp));
  const OrDrop<Packet> p = ParsePacket(bytes);
  ASSERT_TRUE(p);
  EXPECT_EQ(p->is_fragment, GetParam().is_fragment);
  EXPECT_EQ(p->fragment_offset, GetParam().offset);
  EXPECT_EQ(p->protocol, ip_protocol::kTcp);
  EXPECT_EQ(p->protocol_at, 40);
  EXPECT_TRUE(Same(p->transport, tcp));
  EXPECT_EQ(PeekPorts(*p).has_value(), !GetParam().is_fragment);
  if (!p->is_fragment) {
    EXPECT_TRUE(ParseTcp(*p, ChecksumTrust::kVerify));
  }
}

TEST(ParsePacket, DoesNotReadBehindAFragmentHeader) {
  // What looks like a cut extension header is another fragment's middle.
  const ByteVector bytes = MakeIp(kV6.app, kV6.remote, 44,
                                  Hex("3c 00 0009 12345678  ff ff"));
  const OrDrop<Packet> p = ParsePacket(bytes);
  ASSERT_TRUE(p);
  EXPECT_EQ(p->protocol, 60);
  EXPECT_EQ(p->transport.size(), 2u);
}

// --- IPv6 extension headers -------------------------------------------------

// Each with the next header left open (first byte).
ByteVector Extension(uint8_t type, uint8_t next) {
  ByteVector h;
  if (type == 0) h = Hex("00 00 01 04 00000000");   // PadN
  if (type == 43) h = Hex("00 00 04 00 00000000");  // no segment left
  if (type == 44) h = Hex("00 00 0000 12345678");   // atomic
  if (type == 51) {
    h = Hex("00 04 0000 00000001 00000001 000000000000000000000000");
  }
  if (type == 60) h = Hex("00 01 01 0c 000000000000000000000000");
  Store8(&h[0], next);
  return h;
}

ByteVector WithExtensions(const std::vector<uint8_t>& types, uint8_t protocol,
                          Bytes transport) {
  ByteVector payload;
  for (size_t i = 0; i < types.size(); ++i) {
    const uint8_t next = i + 1 < types.size() ? types[i + 1] : protocol;
    payload = Concat(payload, Extension(types[i], next));
  }
  return MakeIp(kV6.app, kV6.remote, types.empty() ? protocol : types[0],
                Concat(payload, transport));
}

class Extensions : public testing::TestWithParam<std::vector<uint8_t>> {};

INSTANTIATE_TEST_SUITE_P(
    All, Extensions,
    testing::Values(std::vector<uint8_t>{}, std::vector<uint8_t>{0},
                    std::vector<uint8_t>{43}, std::vector<uint8_t>{44},
                    std::vector<uint8_t>{51}, std::vector<uint8_t>{60},
                    std::vector<uint8_t>{0, 60, 43, 44, 51, 60},
                    std::vector<uint8_t>{60, 60, 60, 60, 60, 60, 60, 60}));

TEST_P(Extensions, AreWalked) {
  const ByteVector tcp = MakeTcp(kV6.app, kV6.remote, {});
  const ByteVector bytes = WithExtensions(GetParam(), 6, tcp);
  const OrDrop<Packet> p = ParsePacket(bytes);
  ASSERT_TRUE(p);
  EXPECT_EQ(p->protocol, ip_protocol::kTcp);
  EXPECT_EQ(Load8(&bytes[p->protocol_at]), ip_protocol::kTcp);
  EXPECT_FALSE(p->is_fragment);
  EXPECT_TRUE(Same(p->transport, tcp));
  EXPECT_TRUE(ParseTcp(*p, ChecksumTrust::kVerify));
}

// Cut so that the IPv6 header agrees with what is left.
TEST_P(Extensions, CutAnywhereAreRefused) {
  const ByteVector whole = WithExtensions(GetParam(), 6, {});
  for (size_t size = 40; size < whole.size(); ++size) {
    ExactCopy copy(Bytes(whole).first(size));
    Store16(&copy.bytes()[4], static_cast<uint16_t>(size - 40));
    EXPECT_EQ(Judge(copy.bytes()), DropReason::kBadExtensionHeader) << size;
  }
}

TEST(ParsePacket, UnknownHeadersEndTheWalk) {
  constexpr uint8_t kOthers[] = {50, 59, 135, 139, 140, 253, 255};
  for (const uint8_t protocol : kOthers) {
    const ByteVector bytes = WithExtensions({0, 60}, protocol, Hex("3c"));
    const OrDrop<Packet> p = ParsePacket(bytes);
    ASSERT_TRUE(p);
    EXPECT_EQ(p->protocol, protocol);
    EXPECT_EQ(p->transport.size(), 1u);
  }
}

// --- Drops: data, then the reason -------------------------------------------

struct DropCase {
  const char* name;
  ByteVector bytes;
  DropReason reason;
};

ByteVector Edit(ByteVector bytes, size_t at, uint8_t value) {
  Store8(&bytes[at], value);
  return bytes;
}

ByteVector EditV4(ByteVector bytes, size_t at, uint8_t value) {
  bytes = Edit(std::move(bytes), at, value);
  test::FixV4Checksum(bytes);
  return bytes;
}

ByteVector SynWith(const Family& f, const char* options) {
  TcpSpec spec;
  spec.flags = tcp_flag::kSyn;
  spec.options = Hex(options);
  return MakeTcpPacket(f, spec);
}

ByteVector WithFlags(const Family& f, uint8_t flags) {
  TcpSpec spec;
  spec.flags = flags;
  return MakeTcpPacket(f, spec);
}

ByteVector WithPorts(const Family& f, uint16_t source, uint16_t destination) {
  TcpSpec spec;
  spec.source_port = source;
  spec.destination_port = destination;
  return MakeTcpPacket(f, spec);
}

// From port 40000 to 443, saying that it has `length` bytes.
ByteVector MakeUdp(const Family& f, uint16_t length, const ByteVector& payload) {
  ByteVector udp = Hex("9c40 01bb 0000 0000");
  Store16(&udp[4], length);
  udp = Concat(udp, payload);
  Store16(&udp[6], test::NaiveTransportChecksum(
                       f.app, f.remote, 17, Bytes(udp).first(std::min<size_t>(
                                                length, udp.size()))));
  return udp;
}

ByteVector UdpPacket(const Family& f, uint16_t length, const ByteVector& payload) {
  return MakeIp(f.app, f.remote, 17, MakeUdp(f, length, payload));
}

ByteVector UdpWithPorts(const Family& f, uint16_t source, uint16_t destination) {
  ByteVector udp = MakeUdp(f, 8, {});
  Store16(&udp[0], source);
  Store16(&udp[2], destination);
  Store16(&udp[6], 0);
  Store16(&udp[6], test::NaiveTransportChecksum(f.app, f.remote, 17, udp));
  return MakeIp(f.app, f.remote, 17, udp);
}

void AddUdpDrops(const Family& f, std::vector<DropCase>& cases) {
  cases.push_back({"UDP header cut",
                   MakeIp(f.app, f.remote, 17, Hex("9c4001bb000800")),
                   DropReason::kTooShort});
  cases.push_back({"UDP length 7", UdpPacket(f, 7, Hex("aa")),
                   DropReason::kBadUdpHeader});
  cases.push_back({"UDP length 0", UdpPacket(f, 0, Hex("aa")),
                   DropReason::kBadUdpHeader});
  cases.push_back({"UDP length beyond the packet", UdpPacket(f, 10, Hex("aa")),
                   DropReason::kBadUdpHeader});
  cases.push_back({"UDP source port 0", UdpWithPorts(f, 0, 443),
                   DropReason::kBadUdpHeader});
  cases.push_back({"UDP destination port 0", UdpWithPorts(f, 40000, 0),
                   DropReason::kBadUdpHeader});
  ByteVector udp = MakeUdp(f, 9, Hex("aa"));
  udp[8] = std::byte{0xAB};
  cases.push_back({"UDP checksum", MakeIp(f.app, f.remote, 17, udp),
                   DropReason::kBadTransportChecksum});
  Store16(&udp[6], 0);
  if (!f.v4()) {
    cases.push_back({"UDP without a checksum",
                     MakeIp(f.app, f.remote, 17, udp),
                     DropReason::kBadTransportChecksum});
  }
}

TEST(ParseUdp, ReadsLinuxs) {
  for (const ByteVector& bytes : {test::LinuxUdpV4(), test::LinuxUdpV6()}) {
    const OrDrop<Packet> p = ParsePacket(bytes);
    ASSERT_TRUE(p);
    const OrDrop<UdpDatagram> udp = ParseUdp(*p, ChecksumTrust::kVerify);
    ASSERT_TRUE(udp);
    EXPECT_EQ(udp->destination_port, 53);
    EXPECT_TRUE(Same(udp->payload, Hex("68656c6c6f")));
  }
}

TEST_P(BothFamilies, UdpWithoutAChecksumIsV4s) {
  const Family& f = GetParam();
  ByteVector udp = MakeUdp(f, 9, Hex("aa"));
  Store16(&udp[6], 0);
  const ByteVector bytes = MakeIp(f.app, f.remote, 17, udp);
  const OrDrop<Packet> p = ParsePacket(bytes);
  ASSERT_TRUE(p);
  EXPECT_EQ(bool{ParseUdp(*p, ChecksumTrust::kVerify)}, f.v4());
  EXPECT_TRUE(ParseUdp(*p, ChecksumTrust::kTrusted)) << "it is yet to come";
}

TEST_P(BothFamilies, UdpEndsWhereItsLengthSays) {
  const Family& f = GetParam();
  const ByteVector bytes = UdpPacket(f, 10, Hex("aabbccdd"));
  const OrDrop<Packet> p = ParsePacket(bytes);
  ASSERT_TRUE(p);
  const OrDrop<UdpDatagram> udp = ParseUdp(*p, ChecksumTrust::kVerify);
  ASSERT_TRUE(udp) << DropReasonName(udp.reason());
  EXPECT_TRUE(Same(udp->payload, Hex("aabb")));
  const ByteVector empty = UdpPacket(f, 8, {});
  const OrDrop<Packet> q = ParsePacket(empty);
  ASSERT_TRUE(q);
  EXPECT_TRUE(ParseUdp(*q, ChecksumTrust::kVerify)->payload.empty());
}

TEST(WriteUdpHeader, IsReadBack) {
  ByteVector h(8);
  WriteUdpHeader({.source_port = 1, .destination_port = 0x0203,
                  .length = 0x0405, .checksum = 0x0607},
                 h.data());
  EXPECT_EQ(h, Hex("0001 0203 0405 0607"));
  EXPECT_EQ(UdpChecksumField(0), 0xFFFF);
  EXPECT_EQ(UdpChecksumField(5), 5);
}

ByteVector WithDataOffset(const Family& f, uint8_t words) {
  ByteVector tcp = MakeTcp(f.app, f.remote, {});
  Store8(&tcp[12], static_cast<uint8_t>(words << 4));
  Store16(&tcp[16], 0);
  Store16(&tcp[16], test::NaiveTransportChecksum(f.app, f.remote, 6, tcp));
  return MakeIp(f.app, f.remote, 6, tcp);
}

void AddTcpDrops(const Family& f, std::vector<DropCase>& cases) {
  constexpr auto kTcp = DropReason::kBadTcpHeader;
  constexpr auto kOptions = DropReason::kBadTcpOptions;
  const size_t ip = f.v4() ? 20 : 40;
  cases.insert(
      cases.end(),
      {{"no TCP header", MakeIp(f.app, f.remote, 6, {}),
        DropReason::kTooShort},
       {"19 bytes of TCP", MakeIp(f.app, f.remote, 6, ByteVector(19)),
        DropReason::kTooShort},
       {"source port 0", WithPorts(f, 0, 80), kTcp},
       {"destination port 0", WithPorts(f, 40000, 0), kTcp},
       {"data offset 0", WithDataOffset(f, 0), kTcp},
       {"data offset 4", WithDataOffset(f, 4), kTcp},
       {"data offset beyond", WithDataOffset(f, 6), kTcp},
       {"data offset 15", WithDataOffset(f, 15), kTcp},
       {"SYN and FIN", WithFlags(f, 0x03), kTcp},
       {"SYN and RST", WithFlags(f, 0x06), kTcp},
       {"all flags", WithFlags(f, 0xFF), kTcp},
       {"TCP checksum",
        Edit(MakeTcpPacket(f), ip + 17,
             static_cast<uint8_t>(Load8(&MakeTcpPacket(f)[ip + 17]) ^ 1)),
        DropReason::kBadTransportChecksum},
       {"MSS of length 3", SynWith(f, "02 03 05 00"), kOptions},
       {"MSS of length 5", SynWith(f, "02 05 05 b4 00 01 01 00"), kOptions},
       {"MSS cut", SynWith(f, "01 02 04 05"), kOptions},
       {"MSS without length", SynWith(f, "01 01 01 02"), kOptions},
       {"scale of length 2", SynWith(f, "03 02 01 00"), kOptions},
       {"scale cut", SynWith(f, "01 01 03 03"), kOptions},
       {"SACK of length 3", SynWith(f, "04 03 00 00"), kOptions},
       {"unknown of length 0", SynWith(f, "fe 00 00 00"), kOptions},
       {"unknown of length 1", SynWith(f, "fe 01 00 00"), kOptions},
       {"unknown beyond the end", SynWith(f, "fe 05 00 00"), kOptions},
       {"unknown of length 255", SynWith(f, "fe ff 00 00"), kOptions},
       {"the last byte a kind", SynWith(f, "02 04 05 b4 01 01 01 08"),
        kOptions}});
}

std::vector<DropCase> DropCases() {
  constexpr auto kShort = DropReason::kTooShort;
  constexpr auto kVersion = DropReason::kBadIpVersion;
  constexpr auto kHeader = DropReason::kBadIpHeader;
  constexpr auto kExtension = DropReason::kBadExtensionHeader;
  constexpr auto kAddress = DropReason::kBadAddress;
  const ByteVector v4 = MakeTcpPacket(kV4);
  const ByteVector v6 = MakeTcpPacket(kV6);
  const IpAddress mapped = kV4.app;
  std::vector<DropCase> cases = {
      {"nothing", {}, kShort},
      {"version 0", Edit(v4, 0, 0x05), kVersion},
      {"version 5", Edit(v4, 0, 0x55), kVersion},
      {"version 7", Edit(v6, 0, 0x70), kVersion},
      {"a v4 nibble alone", Hex("45"), kShort},
      {"a v6 nibble alone", Hex("60"), kShort},
      {"v4 header length 0", EditV4(v4, 0, 0x40), kHeader},
      {"v4 header length 16", EditV4(v4, 0, 0x44), kHeader},
      {"v4 total length 0", EditV4(v4, 3, 0), kHeader},
      {"v4 total length 19", EditV4(v4, 3, 19), kHeader},
      {"v4 total below header length", EditV4(EditV4(v4, 0, 0x46), 3, 20),
       kHeader},
      {"v4 total one too long", EditV4(v4, 3, 41), kShort},
      {"v4 total 65535", EditV4(EditV4(v4, 2, 0xFF), 3, 0xFF), kShort},
      {"v4 header beyond the packet",
       EditV4(MakeIp(kV4.app, kV4.remote, 99, ByteVector(8)), 0, 0x48),
       kHeader},
      {"v4 checksum", Edit(v4, 10, 0), DropReason::kBadIpChecksum},
      {"v6 payload one too long", Edit(v6, 5, 21), kShort},
      {"v6 payload 65535", Edit(Edit(v6, 4, 0xFF), 5, 0xFF), kShort},
      {"v6 from a mapped address",
       Edit(v6, 0, 0x60), kAddress},  // addresses set below
      {"v6 to a mapped address", Edit(v6, 0, 0x60), kAddress},
      {"hop-by-hop second", WithExtensions({60, 0}, 6, {}), kExtension},
      {"hop-by-hop twice", WithExtensions({0, 0}, 6, {}), kExtension},
      {"nine extension headers",
       WithExtensions(std::vector<uint8_t>(9, 60), 6, {}), kExtension},
      {"extension loops to the end",
       WithExtensions(std::vector<uint8_t>(200, 60), 6, {}), kExtension},
      {"extension longer than the packet",
       MakeIp(kV6.app, kV6.remote, 60, Hex("06 01 0104 00000000")),
       kExtension},
      {"extension of 2048 bytes",
       MakeIp(kV6.app, kV6.remote, 60, Hex("06 ff 0104 00000000")),
       kExtension},
      {"no room for an extension", MakeIp(kV6.app, kV6.remote, 0, {}),
       kExtension},
      {"7 bytes of extension", MakeIp(kV6.app, kV6.remote, 60, ByteVector(7)),
       kExtension},
      {"7 bytes of fragment header",
       MakeIp(kV6.app, kV6.remote, 44, ByteVector(7)), kExtension},
      {"authentication cut",
       MakeIp(kV6.app, kV6.remote, 51, Hex("06 04 0000 00000001")),
       kExtension},
      {"routing type 0 with a segment left",
       MakeIp(kV6.app, kV6.remote, 43,
              Hex("06 02 00 01 00000000 20010db8000000000000000000000001")),
       kExtension},
      {"an unknown routing type with segments left",
       MakeIp(kV6.app, kV6.remote, 43, Hex("06 00 fd 02 00000000")),
       kExtension},
  };
  for (DropCase& c : cases) {
    const std::string name = c.name;
    if (name == "v6 from a mapped address") {
      std::copy_n(mapped.v6(), 16, &c.bytes[8]);
    }
    if (name == "v6 to a mapped address") {
      std::copy_n(mapped.v6(), 16, &c.bytes[24]);
    }
  }
  AddTcpDrops(kV4, cases);
  AddTcpDrops(kV6, cases);
  AddUdpDrops(kV4, cases);
  AddUdpDrops(kV6, cases);
  return cases;
}

TEST(Parsing, DropsWithTheRightReason) {
  for (const DropCase& c : DropCases()) {
    ExactCopy copy(c.bytes);
    const bool v4 = !c.bytes.empty() && Load8(&c.bytes[0]) >> 4 == 4;
    EXPECT_EQ(Judge(copy.bytes()), c.reason)
        << c.name << (v4 ? " (v4)" : " (v6)");
  }
}

// core/wire returns no other reason: tests/structure compares this list with
// its source.
TEST(Parsing, EveryReasonOfParsingIsTested) {
  std::set<DropReason> seen;
  for (const DropCase& c : DropCases()) seen.insert(c.reason);
  EXPECT_THAT(
      seen,
      testing::UnorderedElementsAre(
          DropReason::kTooShort, DropReason::kBadIpVersion,
          DropReason::kBadIpHeader, DropReason::kBadIpChecksum,
          DropReason::kBadExtensionHeader, DropReason::kBadTcpHeader,
          DropReason::kBadTcpOptions, DropReason::kBadTransportChecksum,
          DropReason::kBadUdpHeader, DropReason::kBadAddress));
}

// --- Truncation: no byte too far, whatever the headers say ------------------

std::vector<ByteVector> GoodPackets() {
  std::vector<ByteVector> packets = {
      test::LinuxSynV4(), test::LinuxSynV6(), test::LinuxUdpV4(),
      test::LinuxUdpV6(),
      WithExtensions({0, 60, 43, 44, 51, 60}, 6,
                     MakeTcp(kV6.app, kV6.remote, {}))};
  for (const Family& f : {kV4, kV6}) {
    TcpSpec spec;
    spec.flags = tcp_flag::kSyn;
    spec.options = Hex("02 04 05 b4 04 02 08 0a 0000000100000000 01 03 03 07");
    spec.payload = Hex("00 01 02");
    packets.push_back(MakeTcpPacket(f, spec));
  }
  return packets;
}

TEST(Parsing, TruncatedPacketsAreTooShort) {
  for (const ByteVector& packet : GoodPackets()) {
    ASSERT_EQ(Judge(packet), std::nullopt);
    for (size_t size = 0; size < packet.size(); ++size) {
      ExactCopy copy(Bytes(packet).first(size));
      EXPECT_EQ(Judge(copy.bytes()), DropReason::kTooShort) << size;
    }
  }
}

// The IP length agrees with what is left, so that the transport is looked at.
TEST(Parsing, TruncatedTransportIsNeverReadBeyond) {
  for (const ByteVector& packet : GoodPackets()) {
    const bool v4 = Load8(&packet[0]) >> 4 == 4;
    const size_t ip = v4 ? 20 : 40;
    for (size_t size = ip; size < packet.size(); ++size) {
      ByteVector cut(packet.begin(),
                     packet.begin() + static_cast<ptrdiff_t>(size));
      if (v4) {
        Store16(&cut[2], static_cast<uint16_t>(size));
        test::FixV4Checksum(cut);
      } else {
        Store16(&cut[4], static_cast<uint16_t>(size - 40));
      }
      ExactCopy copy(cut);
      const OrDrop<Packet> p = ParsePacket(copy.bytes());
      if (!p) {
        EXPECT_EQ(p.reason(), DropReason::kBadExtensionHeader);
        continue;
      }
      const bool ports = PeekPorts(*p).has_value();
      EXPECT_EQ(ports, p->transport.size() >= 4);
      if (p->protocol != ip_protocol::kTcp) continue;
      const auto tcp = ParseTcp(*p, ChecksumTrust::kTrusted);
      if (tcp) {
        (void)ParseSynOptions(tcp->options);  // ASan is the judge
        EXPECT_GE(p->transport.size(), 20u + tcp->options.size());
      } else {
        EXPECT_EQ(tcp.reason(), p->transport.size() < 20
                                    ? DropReason::kTooShort
                                    : DropReason::kBadTcpHeader);
      }
    }
  }
}

TEST(ParseSynOptions, EveryTruncationIsReadWithinItsBytes) {
  const ByteVector options =
      Hex("02 04 05 b4 04 02 08 0a 0000000100000000 01 03 03 07 fe 03 00 00");
  for (size_t size = 0; size <= options.size(); ++size) {
    ExactCopy copy(Bytes(options).first(size));
    const bool whole_option_ends_here =
        size == 0 || size == 4 || size == 6 || size == 16 || size == 17 ||
        size == 20 || size == 23 || size == 24;
    EXPECT_EQ(static_cast<bool>(ParseSynOptions(copy.bytes())),
              whole_option_ends_here)
        << size;
  }
}

// --- Options of a SYN -------------------------------------------------------

struct OptionsCase {
  const char* name;
  const char* options;
  std::optional<uint16_t> mss;
  std::optional<uint8_t> window_scale;
  bool sack_permitted;
};

class GoodSynOptions : public testing::TestWithParam<OptionsCase> {};

INSTANTIATE_TEST_SUITE_P(
    All, GoodSynOptions,
    testing::Values(
        OptionsCase{"None", "", {}, {}, false},
        OptionsCase{"Nops", "01 01 01 01", {}, {}, false},
        OptionsCase{"Mss", "02 04 05 b4", 1460, {}, false},
        OptionsCase{"Scale", "03 03 07", {}, uint8_t{7}, false},
        OptionsCase{"ScaleZero", "03 03 00", {}, uint8_t{0}, false},
        OptionsCase{"Sack", "04 02", {}, {}, true},
        OptionsCase{"All", "02 04 ff ff 01 03 03 0e 04 02", 65535,
                    uint8_t{14}, true},
        // RFC 7323, 2.3: taken as 14.
        OptionsCase{"Scale15", "03 03 0f", {}, uint8_t{14}, false},
        OptionsCase{"Scale255", "03 03 ff", {}, uint8_t{14}, false},
        OptionsCase{"MssZero", "02 04 00 00", 536, {}, false},
        OptionsCase{"Mss535", "02 04 02 17", 536, {}, false},
        OptionsCase{"Mss536", "02 04 02 18", 536, {}, false},
        OptionsCase{"Mss537", "02 04 02 19", 537, {}, false},
        OptionsCase{"UnknownOnes", "fe 02 fd 05 010203 03 03 02", {},
                    uint8_t{2}, false},
        OptionsCase{"EndHidesTheRest", "04 02 00 02 04", {}, {}, true},
        OptionsCase{"EndHidesBadLength", "00 02 00", {}, {}, false},
        // The last of several counts, as in Linux.
        OptionsCase{"Twice", "02 04 05 b4 02 04 05 00", 1280, {}, false}),
    [](const auto& p) { return p.param.name; });

TEST_P(GoodSynOptions, AreRead) {
  ExactCopy copy(Hex(GetParam().options));
  const OrDrop<SynOptions> options = ParseSynOptions(copy.bytes());
  ASSERT_TRUE(options);
  EXPECT_EQ(options->mss, GetParam().mss);
  EXPECT_EQ(options->window_scale, GetParam().window_scale);
  EXPECT_EQ(options->sack_permitted, GetParam().sack_permitted);
}

// --- Ports ------------------------------------------------------------------

TEST_P(BothFamilies, PortsAreThoseOfTcpAndUdpOnly) {
  constexpr uint8_t kProtocols[] = {1, 6, 17, 58, 99};
  for (const uint8_t protocol : kProtocols) {
    const ByteVector bytes = MakeIp(family().app, family().remote, protocol,
                                    Hex("1234 0035"));
    const OrDrop<Packet> p = ParsePacket(bytes);
    ASSERT_TRUE(p);
    const std::optional<Ports> ports = PeekPorts(*p);
    ASSERT_EQ(ports.has_value(), protocol == 6 || protocol == 17);
    if (!ports) continue;
    EXPECT_EQ(ports->source, 0x1234);
    EXPECT_EQ(ports->destination, 53);
  }
}

}  // namespace
}  // namespace netstack

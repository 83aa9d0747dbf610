#include "core/wire/headers.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/wire/packet.h"
#include "gtest/gtest.h"
#include "tests/core/wire/test_packets.h"

namespace netstack {
namespace {

using test::ByteVector;
using test::ExactCopy;
using test::Family;
using test::Hex;

class HeadersTest : public testing::TestWithParam<Family> {
 protected:
  const Family& family() const { return GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(Families, HeadersTest,
                         testing::Values(test::kV4, test::kV6),
                         [](const auto& p) { return p.param.name; });

TEST(WriteIpHeader, WritesKnownBytesV4) {
  // The header of Linux's SYN, from its fields.
  const ByteVector want = test::LinuxSynV4();
  IpHeaderFields fields;
  fields.source = IpAddress::V4(10, 0, 0, 2);
  fields.destination = IpAddress::V4(10, 0, 0, 9);
  fields.protocol = 6;
  fields.id = 0xab09;
  ExactCopy out(ByteVector(20, std::byte{0xEE}));
  ASSERT_EQ(WriteIpHeader(fields, 40, out.bytes().data()), 20u);
  EXPECT_TRUE(std::equal(want.begin(), want.begin() + 20,
                         out.bytes().begin()));
}

TEST(WriteIpHeader, WritesKnownBytesV6) {
  ByteVector want = test::LinuxUdpV6();
  Store32(&want[0], 0x60000000);  // Linux sets a flow label, we do not
  IpHeaderFields fields;
  fields.source = *IpAddress::Parse("2001:db8::2");
  fields.destination = *IpAddress::Parse("2001:db8::9");
  fields.protocol = 17;
  ExactCopy out(ByteVector(40, std::byte{0xEE}));
  ASSERT_EQ(WriteIpHeader(fields, 13, out.bytes().data()), 40u);
  EXPECT_TRUE(std::equal(want.begin(), want.begin() + 40,
                         out.bytes().begin()));
}

TEST_P(HeadersTest, IpHeaderParsesBack) {
  IpHeaderFields fields;
  fields.source = family().remote;
  fields.destination = family().app;
  fields.protocol = 99;
  fields.ttl = 3;
  fields.tos = 0xB9;
  const size_t size = IpHeaderSize(family().v4());
  for (const size_t payload : {size_t{0}, size_t{1}, size_t{65515}}) {
    ByteVector packet(size + payload, std::byte{0xEE});
    ASSERT_EQ(WriteIpHeader(fields, payload, packet.data()), size);
    const OrDrop<Packet> p = ParsePacket(packet);
    ASSERT_TRUE(p);
    EXPECT_EQ(p->source, fields.source);
    EXPECT_EQ(p->destination, fields.destination);
    EXPECT_EQ(p->protocol, fields.protocol);
    EXPECT_EQ(p->ttl, fields.ttl);
    EXPECT_EQ(p->tos, fields.tos);
    EXPECT_TRUE(p->dont_fragment);
    EXPECT_FALSE(p->is_fragment);
    EXPECT_EQ(p->transport.size(), payload);
  }
}

TEST_P(HeadersTest, BareTcpParsesBack) {
  TcpHeaderFields fields;
  fields.source_port = 443;
  fields.destination_port = 50123;
  fields.seq = 0xFEDCBA98;
  fields.ack = 0x12345678;
  fields.flags = tcp_flag::kRst | tcp_flag::kAck;
  fields.window = 0x8001;
  const size_t size = IpHeaderSize(family().v4()) + 20;
  ExactCopy out(ByteVector(60, std::byte{0xEE}));
  ASSERT_EQ(WriteBareTcp(family().remote, family().app, fields,
                         out.bytes().data()),
            size);
  const OrDrop<Packet> p = ParsePacket(out.bytes());
  ASSERT_TRUE(p);
  EXPECT_EQ(p->bytes.size(), size);
  EXPECT_EQ(p->source, family().remote);
  EXPECT_EQ(p->destination, family().app);
  const OrDrop<TcpSegment> tcp = ParseTcp(*p, ChecksumTrust::kVerify);
  ASSERT_TRUE(tcp);
  EXPECT_EQ(tcp->source_port, fields.source_port);
  EXPECT_EQ(tcp->destination_port, fields.destination_port);
  EXPECT_EQ(tcp->seq, fields.seq);
  EXPECT_EQ(tcp->ack, fields.ack);
  EXPECT_EQ(tcp->flags, fields.flags);
  EXPECT_EQ(tcp->window, fields.window);
  EXPECT_TRUE(tcp->options.empty());
  EXPECT_TRUE(tcp->payload.empty());
}

TEST_P(HeadersTest, BareTcpIsWhatTheNaiveBuilderMakes) {
  test::TcpSpec spec;  // the naive builder sets id 0, DF, TTL 64 as we do
  TcpHeaderFields fields{spec.source_port, spec.destination_port, spec.seq,
                         spec.ack,         spec.flags,            spec.window};
  ByteVector out(60, std::byte{0xEE});
  out.resize(
      WriteBareTcp(family().app, family().remote, fields, out.data()));
  EXPECT_EQ(out, test::MakeTcpPacket(family(), spec));
}

}  // namespace
}  // namespace netstack

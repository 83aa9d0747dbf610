#include "core/wire/icmp_error.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/wire/headers.h"
#include "gtest/gtest.h"
#include "tests/core/wire/test_packets.h"

namespace netstack {
namespace {

using test::ByteVector;
using test::Concat;
using test::ExactCopy;
using test::Family;
using test::Hex;
using test::kV4;
using test::kV6;
using test::MakeIp;

const IpAddress kOurV4 = IpAddress::V4(10, 0, 0, 1);
const IpAddress kOurV6 = *IpAddress::Parse("fd00::1");

// The whole answer to `original`, whose checksums are right by the naive sum.
ByteVector Answer(IcmpError error, Bytes original, uint32_t mtu = 0) {
  const OrDrop<Packet> p = ParsePacket(original);
  EXPECT_TRUE(p);
  const IpAddress& from = p->is_v4 ? kOurV4 : kOurV6;
  ExactCopy out(ByteVector(kMaxIcmpErrorSize, std::byte{0xEE}));
  const size_t size = BuildIcmpError(error, *p, from, mtu, out.bytes());
  const Bytes answer = Bytes(out.bytes()).first(size);

  const OrDrop<Packet> back = ParsePacket(answer);
  EXPECT_TRUE(back);
  EXPECT_EQ(back->bytes.size(), size);
  EXPECT_EQ(back->source, from);
  EXPECT_EQ(back->destination, p->source);
  EXPECT_EQ(back->protocol, p->is_v4 ? 1 : 58);
  // A sum over a message that holds its right checksum gives zero.
  EXPECT_EQ(p->is_v4 ? test::NaiveChecksum(back->transport)
                     : test::NaiveTransportChecksum(back->source,
                                                    back->destination, 58,
                                                    back->transport),
            0);
  return {answer.begin(), answer.end()};
}

struct TypeCase {
  const char* name;
  IcmpError error;
  const char* v4;  // type and code
  const char* v6;
};

class IcmpTypes : public testing::TestWithParam<TypeCase> {};

INSTANTIATE_TEST_SUITE_P(
    All, IcmpTypes,
    testing::Values(
        TypeCase{"Net", IcmpError::kNetUnreachable, "0300", "0100"},
        TypeCase{"Host", IcmpError::kHostUnreachable, "0301", "0103"},
        TypeCase{"Protocol", IcmpError::kProtocolUnreachable, "0302", "0401"},
        TypeCase{"Port", IcmpError::kPortUnreachable, "0303", "0104"},
        TypeCase{"Prohibited", IcmpError::kProhibited, "030d", "0101"},
        TypeCase{"Time", IcmpError::kTimeExceeded, "0b00", "0300"},
        TypeCase{"TooBig", IcmpError::kPacketTooBig, "0304", "0200"}),
    [](const auto& p) { return p.param.name; });

TEST_P(IcmpTypes, HaveTheTypesAndCodesOfTheRfcs) {
  const ByteVector v4 = Answer(GetParam().error, test::LinuxSynV4());
  EXPECT_EQ(ByteVector(v4.begin() + 20, v4.begin() + 22),
            Hex(GetParam().v4));
  const ByteVector v6 = Answer(GetParam().error, test::LinuxSynV6());
  EXPECT_EQ(ByteVector(v6.begin() + 40, v6.begin() + 42),
            Hex(GetParam().v6));
}

// `answer` with zeros for its checksums, which Answer() has verified.
ByteVector WithoutChecksums(ByteVector answer) {
  const bool v4 = Load8(&answer[0]) >> 4 == 4;
  if (v4) Store16(&answer[10], 0);
  Store16(&answer[v4 ? 22 : 42], 0);
  return answer;
}

// By hand: port unreachable about Linux's datagrams.
TEST(BuildIcmpError, WritesKnownBytes) {
  EXPECT_EQ(
      WithoutChecksums(
          Answer(IcmpError::kPortUnreachable, test::LinuxUdpV4())),
      Concat(Hex("45c0 003d 0000 4000 4001 0000 0a000001 0a000002"
                 "0303 0000 00000000"),
             test::LinuxUdpV4()));
  EXPECT_EQ(
      WithoutChecksums(
          Answer(IcmpError::kPortUnreachable, test::LinuxUdpV6())),
      Concat(Hex("60000000 003d 3a 40 fd000000000000000000000000000001"
                 "20010db8000000000000000000000002 0104 0000 00000000"),
             test::LinuxUdpV6()));
}

TEST(BuildIcmpError, QuotesAsMuchAsFits) {
  struct Case {
    Family family;
    size_t most;    // of the whole answer
    size_t header;  // of IP and ICMP
  };
  // RFC 1812, 4.3.2.3; RFC 4443, 2.4 c.
  for (const Case& c : {Case{kV4, 576, 28}, Case{kV6, 1280, 48}}) {
    for (const size_t payload :
         {size_t{0}, size_t{1}, size_t{7}, c.most - c.header - 41,
          c.most - c.header - 40, c.most - c.header - 20,
          c.most - c.header - 19, c.most, size_t{9000}, size_t{65515}}) {
      const ByteVector original =
          MakeIp(c.family.app, c.family.remote, 17,
                 ByteVector(payload, std::byte{0x5A}));
      const ByteVector answer =
          Answer(IcmpError::kHostUnreachable, original);
      const size_t quote = std::min(original.size(), c.most - c.header);
      ASSERT_EQ(answer.size(), c.header + quote) << payload;
      EXPECT_TRUE(std::equal(original.begin(),
                             original.begin() + static_cast<ptrdiff_t>(quote),
                             answer.begin() +
                                 static_cast<ptrdiff_t>(c.header)));
    }
  }
}

TEST(BuildIcmpError, QuotesNoTrailingBytes) {
  const ByteVector packet = test::LinuxUdpV4();
  const ByteVector answer = Answer(IcmpError::kPortUnreachable,
                                   Concat(packet, ByteVector(9)));
  EXPECT_EQ(answer.size(), 28 + packet.size());
}

struct MtuCase {
  IcmpError error;
  uint32_t mtu;
  uint32_t v4;  // the word behind the ICMP checksum
  uint32_t v6;
};

TEST(BuildIcmpError, TellsTheMtuInPacketTooBigOnly) {
  for (const MtuCase& c :
       {MtuCase{IcmpError::kPacketTooBig, 1400, 1400, 1400},
        MtuCase{IcmpError::kPacketTooBig, 70000, 65535, 70000},
        MtuCase{IcmpError::kHostUnreachable, 1400, 0, 0},
        MtuCase{IcmpError::kTimeExceeded, 1400, 0, 0}}) {
    const ByteVector v4 = Answer(c.error, test::LinuxSynV4(), c.mtu);
    EXPECT_EQ(Load32(&v4[24]), c.v4);
    const ByteVector v6 = Answer(c.error, test::LinuxSynV6(), c.mtu);
    EXPECT_EQ(Load32(&v6[44]), c.v6);
  }
}

// RFC 4443, 3.4: the pointer is the offset of the unknown next header.
TEST(BuildIcmpError, PointsAtTheUnknownProtocol) {
  const ByteVector bare = MakeIp(kV6.app, kV6.remote, 99, Hex("00"));
  EXPECT_EQ(Load32(&Answer(IcmpError::kProtocolUnreachable, bare)[44]), 6u);
  const ByteVector extended =
      MakeIp(kV6.app, kV6.remote, 60,
             Hex("3c 00 0104 00000000  63 00 0104 00000000  00"));
  EXPECT_EQ(Load32(&Answer(IcmpError::kProtocolUnreachable, extended)[44]),
            48u);
  const ByteVector v4 = MakeIp(kV4.app, kV4.remote, 99, Hex("00"));
  EXPECT_EQ(Load32(&Answer(IcmpError::kProtocolUnreachable, v4)[24]), 0u);
}

// --- Whether to answer ------------------------------------------------------

bool MayAnswer(const ByteVector& bytes) {
  const OrDrop<Packet> p = ParsePacket(bytes);
  EXPECT_TRUE(p);
  return p && MayAnswerWithIcmp(*p);
}

bool MayAnswerBetween(const char* source, const char* destination) {
  return MayAnswer(MakeIp(*IpAddress::Parse(source),
                          *IpAddress::Parse(destination), 17,
                          Hex("1234 0035 0008 0000")));
}

TEST(MayAnswerWithIcmp, ToOneHostAboutOneHost) {
  EXPECT_TRUE(MayAnswer(test::LinuxSynV4()));
  EXPECT_TRUE(MayAnswer(test::LinuxSynV6()));
  EXPECT_TRUE(MayAnswerBetween("10.0.0.2", "240.0.0.1"));
  EXPECT_TRUE(MayAnswerBetween("fe80::2", "2001:db8::1"));
}

TEST(MayAnswerWithIcmp, NotToWhatIsNoSingleHost) {
  for (const char* source : {"0.0.0.0", "127.0.0.1", "224.0.0.1",
                             "255.255.255.255", "240.0.0.1"}) {
    EXPECT_FALSE(MayAnswerBetween(source, "192.0.2.1")) << source;
  }
  for (const char* source : {"::", "::1", "ff02::1"}) {
    EXPECT_FALSE(MayAnswerBetween(source, "2001:db8::1")) << source;
  }
}

TEST(MayAnswerWithIcmp, NotAboutMulticastAndBroadcast) {
  EXPECT_FALSE(MayAnswerBetween("10.0.0.2", "224.0.0.251"));
  EXPECT_FALSE(MayAnswerBetween("10.0.0.2", "255.255.255.255"));
  EXPECT_FALSE(MayAnswerBetween("fd00::2", "ff02::fb"));
}

TEST(MayAnswerWithIcmp, NotAboutIcmpErrors) {
  for (int type = 0; type < 256; ++type) {
    const ByteVector message = {static_cast<std::byte>(type), std::byte{0}};
    const bool v4_error =
        type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
    EXPECT_EQ(MayAnswer(MakeIp(kV4.app, kV4.remote, 1, message)), !v4_error)
        << type;
    const bool v6_error = type < 128 || type == 137;
    EXPECT_EQ(MayAnswer(MakeIp(kV6.app, kV6.remote, 58, message)), !v6_error)
        << type;
    // The other family's ICMP is some unknown protocol.
    EXPECT_TRUE(MayAnswer(MakeIp(kV4.app, kV4.remote, 58, message)));
    EXPECT_TRUE(MayAnswer(MakeIp(kV6.app, kV6.remote, 1, message)));
  }
}

TEST(MayAnswerWithIcmp, NotAboutIcmpWithoutAType) {
  EXPECT_FALSE(MayAnswer(MakeIp(kV4.app, kV4.remote, 1, {})));
  EXPECT_FALSE(MayAnswer(MakeIp(kV6.app, kV6.remote, 58, {})));
}

TEST(MayAnswerWithIcmp, OnlyAboutTheFirstFragment) {
  ByteVector v4 = test::LinuxUdpV4();
  Store16(&v4[6], 0x2000);
  test::FixV4Checksum(v4);
  EXPECT_TRUE(MayAnswer(v4));
  Store16(&v4[6], 0x2001);
  test::FixV4Checksum(v4);
  EXPECT_FALSE(MayAnswer(v4));
  EXPECT_TRUE(MayAnswer(
      MakeIp(kV6.app, kV6.remote, 44, Hex("11 00 0001 12345678 00"))));
  EXPECT_FALSE(MayAnswer(
      MakeIp(kV6.app, kV6.remote, 44, Hex("11 00 0008 12345678 00"))));
}

TEST(MayAnswerWithIcmp, NeverAboutItsOwnErrors) {
  for (const ByteVector& original :
       {test::LinuxSynV4(), test::LinuxSynV6()}) {
    for (const IcmpError error :
         {IcmpError::kNetUnreachable, IcmpError::kHostUnreachable,
          IcmpError::kProtocolUnreachable, IcmpError::kPortUnreachable,
          IcmpError::kProhibited, IcmpError::kTimeExceeded,
          IcmpError::kPacketTooBig}) {
      EXPECT_FALSE(MayAnswer(Answer(error, original, 1400)));
    }
  }
}

}  // namespace
}  // namespace netstack

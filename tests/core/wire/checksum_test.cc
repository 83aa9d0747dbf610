#include "core/wire/checksum.h"

#include <cstddef>
#include <cstdint>
#include <random>

#include "gtest/gtest.h"
#include "tests/core/wire/test_packets.h"

namespace netstack {
namespace {

using test::ByteVector;
using test::ExactCopy;
using test::Hex;
using test::NaiveChecksum;
using test::NaiveSum;

ByteVector RandomBytes(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  ByteVector bytes(size);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

TEST(Checksum, OfRfc1071sExample) {
  // Section 3: the sum of these bytes is ddf2.
  EXPECT_EQ(Checksum(Hex("0001 f203 f4f5 f6f7")), 0xFFFF - 0xDDF2);
}

TEST(Checksum, OfNothingIsAllOnes) { EXPECT_EQ(Checksum({}), 0xFFFF); }

TEST(Checksum, OfAMessageThatHoldsItIsZero) {
  EXPECT_EQ(Checksum(Bytes(test::LinuxSynV4()).first(20)), 0);
}

TEST(Checksum, OfAllOnesDoesNotOverflow) {
  const ByteVector ones(65536, std::byte{0xFF});
  for (size_t size : {1u, 2u, 3u, 4u, 63u, 64u, 65535u, 65536u}) {
    const Bytes part = Bytes(ones).first(size);
    EXPECT_EQ(Checksum(part), NaiveChecksum(part)) << size;
  }
}

TEST(Checksum, EqualsTheNaiveOneAtEveryLength) {
  for (size_t size = 0; size <= 300; ++size) {
    ExactCopy copy(RandomBytes(size, static_cast<uint32_t>(size)));
    EXPECT_EQ(Checksum(copy.bytes()), NaiveChecksum(copy.bytes())) << size;
  }
  for (size_t size : {1459u, 1460u, 1461u, 9000u, 65475u, 65535u}) {
    ExactCopy copy(RandomBytes(size, static_cast<uint32_t>(size)));
    EXPECT_EQ(Checksum(copy.bytes()), NaiveChecksum(copy.bytes())) << size;
  }
}

TEST(Checksum, EqualsTheNaiveOneAtEveryAlignment) {
  const ByteVector bytes = RandomBytes(256, 7);
  for (size_t from = 0; from < 17; ++from) {
    for (size_t size : {0u, 1u, 2u, 3u, 20u, 63u, 64u, 65u, 127u, 200u}) {
      const Bytes part = Bytes(bytes).subspan(from, size);
      EXPECT_EQ(Checksum(part), NaiveChecksum(part)) << from << ' ' << size;
    }
  }
}

TEST(ChecksumAccumulator, PartsAddUpWhereverTheyAreCut) {
  const ByteVector bytes = RandomBytes(70, 3);
  const uint16_t whole = NaiveSum(bytes);
  for (size_t a = 0; a <= bytes.size(); ++a) {
    for (size_t b = a; b <= bytes.size(); ++b) {
      ChecksumAccumulator sum;
      sum.Add(Bytes(bytes).first(a));
      sum.Add(Bytes(bytes).subspan(a, b - a));
      sum.Add(Bytes(bytes).subspan(b));
      EXPECT_EQ(sum.Folded(), whole) << a << ' ' << b;
    }
  }
}

TEST(ChecksumAccumulator, ManyPartsDoNotOverflow) {
  const ByteVector ones(65536, std::byte{0xFF});
  ChecksumAccumulator sum;
  for (int i = 0; i < 100'000; ++i) sum.Add(Bytes(ones).first(64));
  EXPECT_EQ(sum.Folded(), 0xFFFF);
}

TEST(ChecksumAccumulator, AddsWordsInHostOrder) {
  ChecksumAccumulator sum;
  sum.AddWord(0x0001);
  sum.AddWord(0xF203);
  sum.AddWord(0xF4F5);
  sum.AddWord(0xF6F7);
  EXPECT_EQ(sum.Folded(), 0xDDF2);
  EXPECT_EQ(sum.Finish(), 0xFFFF - 0xDDF2);
}

class PseudoHeaderTest : public testing::TestWithParam<test::Family> {};

TEST_P(PseudoHeaderTest, EqualsTheNaiveOne) {
  const test::Family& f = GetParam();
  for (size_t size : {0u, 1u, 19u, 20u, 1460u, 65515u, 70000u}) {
    const ByteVector message = RandomBytes(size, 11);
    ChecksumAccumulator sum = PseudoHeader(f.app, f.remote, 6,
                                           static_cast<uint32_t>(size));
    sum.Add(message);
    EXPECT_EQ(sum.Finish(),
              test::NaiveTransportChecksum(f.app, f.remote, 6, message));
  }
}

INSTANTIATE_TEST_SUITE_P(Families, PseudoHeaderTest,
                         testing::Values(test::kV4, test::kV6),
                         [](const auto& p) { return p.param.name; });

// A kernel's own checksums, without the test's help.
TEST(PseudoHeader, AgreesWithLinux) {
  const ByteVector v4 = test::LinuxUdpV4();
  ChecksumAccumulator sum = PseudoHeader(
      IpAddress::V4(&v4[12]), IpAddress::V4(&v4[16]), 17, 13);
  sum.Add(Bytes(v4).subspan(20));
  EXPECT_EQ(sum.Finish(), 0);

  const ByteVector v6 = test::LinuxUdpV6();
  sum = PseudoHeader(IpAddress::V6(&v6[8]), IpAddress::V6(&v6[24]), 17, 13);
  sum.Add(Bytes(v6).subspan(40));
  EXPECT_EQ(sum.Finish(), 0);
}

}  // namespace
}  // namespace netstack

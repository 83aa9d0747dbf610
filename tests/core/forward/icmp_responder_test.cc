// Errors of ours: built, limited, counted. core/forward/icmp_responder.h.
#include "core/forward/icmp_responder.h"

#include <chrono>

#include "gtest/gtest.h"
#include "tests/core/forward/forward_rig.h"

namespace netstack::test {
namespace {

class Icmp : public testing::TestWithParam<const Family*> {
 protected:
  Icmp() : original_(MakeTcpPacket(*GetParam())) {}
  Packet original() const { return *ParsePacket(original_); }
  uint64_t limited() const {
    return drops.packets()[static_cast<size_t>(DropReason::kIcmpRateLimited)];
  }

  ScriptedTun tun;
  TunStats stats;
  DropCounters drops;
  TunWriter writer{&tun, &stats, &drops};
  IcmpResponder icmp{&writer, &drops, /*per_second=*/100, /*burst=*/3};
  Instant now{std::chrono::hours(1)};

 private:
  const ByteVector original_;
};
INSTANTIATE_TEST_SUITE_P(Families, Icmp, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TEST_P(Icmp, AnswerComesFromTheDestination) {
  EXPECT_TRUE(icmp.Answer(IcmpError::kHostUnreachable, original(), now));
  ASSERT_EQ(tun.written().size(), 1u);
  const Reply r = Understand(tun.written()[0]);
  EXPECT_EQ(r.packet.source, GetParam()->remote);
  EXPECT_EQ(r.packet.destination, GetParam()->app);
  EXPECT_EQ(r.type(), GetParam()->v4() ? 3 : 1);
  EXPECT_EQ(r.code(), GetParam()->v4() ? 1 : 3);
  EXPECT_EQ(icmp.sent(), 1u);
}

TEST_P(Icmp, RateIsLimitedAndCounted) {
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(icmp.Answer(IcmpError::kProhibited, original(), now), i < 3);
  }
  EXPECT_EQ(icmp.sent(), 3u);
  EXPECT_EQ(limited(), 2u);
  now += milliseconds(10);
  EXPECT_TRUE(icmp.Answer(IcmpError::kProhibited, original(), now));
  EXPECT_FALSE(icmp.Answer(IcmpError::kProhibited, original(), now));
  icmp.Configure(1000, 50);
  now += milliseconds(50);
  for (int i = 0; i < 50; ++i) {
    EXPECT_TRUE(icmp.Answer(IcmpError::kProhibited, original(), now));
  }
  EXPECT_EQ(tun.written().size(), 54u);
}

TEST_P(Icmp, ErrorsAreNotAnswered) {
  ASSERT_TRUE(icmp.Answer(IcmpError::kHostUnreachable, original(), now));
  ByteVector error = tun.written()[0].bytes;
  EXPECT_FALSE(
      icmp.Answer(IcmpError::kHostUnreachable, *ParsePacket(error), now));
  EXPECT_EQ(limited(), 0u);
  EXPECT_EQ(icmp.sent(), 1u);
}

}  // namespace
}  // namespace netstack::test

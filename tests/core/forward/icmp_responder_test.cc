// Errors of ours: built, limited, counted. core/forward/icmp_responder.h.
#include "core/forward/icmp_responder.h"

#include <algorithm>
#include <chrono>
#include <vector>

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
  IcmpResponder icmp{&writer, &drops, IcmpResponder::Options{},
                     SipHashKey{1, 2}};
  Instant now{std::chrono::hours(1)};

 private:
  const ByteVector original_;
};
INSTANTIATE_TEST_SUITE_P(Families, Icmp, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TEST_P(Icmp, AnswerComesFromTheGateway) {
  EXPECT_TRUE(icmp.Answer(IcmpError::kHostUnreachable, original(), now));
  ASSERT_EQ(tun.written().size(), 1u);
  const Reply r = Understand(tun.written()[0]);
  EXPECT_EQ(r.packet.source.ToString(),
            GetParam()->v4() ? "192.0.0.8" : "64:ff9b:1::c000:8");
  EXPECT_EQ(r.packet.destination, GetParam()->app);
  EXPECT_EQ(r.type(), GetParam()->v4() ? 3 : 1);
  EXPECT_EQ(r.code(), GetParam()->v4() ? 1 : 3);
  EXPECT_EQ(icmp.sent(), 1u);
}

TEST_P(Icmp, OrFromWhomeverTheAnswerNames) {
  const IpAddress router =
      *IpAddress::Parse(GetParam()->v4() ? "198.51.100.9" : "2001:db8:9::9");
  IcmpAnswer answer;
  answer.error = IcmpError::kTimeExceeded;
  answer.from = router;
  EXPECT_TRUE(icmp.Answer(answer, original(), now));
  const Reply r = Understand(tun.written()[0]);
  EXPECT_EQ(r.packet.source, router);
  EXPECT_EQ(r.type(), GetParam()->v4() ? 11 : 3);
}

TEST_P(Icmp, ForeignErrorsAreExact) {
  IcmpAnswer answer;
  answer.exact = IcmpKind{3, 12, 0x01020304};
  EXPECT_TRUE(icmp.Answer(answer, original(), now));
  const Reply r = Understand(tun.written()[0]);
  EXPECT_EQ(r.type(), 3);
  EXPECT_EQ(r.code(), 12);
  EXPECT_EQ(Load32(&r.packet.transport[4]), 0x01020304u);
}

// Errors about one place.
TEST_P(Icmp, RateOfAPathIsLimitedAndCounted) {
  icmp.Configure({.per_second = 1'000'000, .burst = 1'000, .per_path = 100});
  int sent = 0;
  for (int i = 0; i < 60; ++i) {
    sent += icmp.Answer(IcmpError::kProhibited, original(), now) ? 1 : 0;
  }
  EXPECT_EQ(sent, 25);
  EXPECT_EQ(icmp.sent(), 25u);
  EXPECT_EQ(limited(), 35u);
  now += milliseconds(10);
  EXPECT_TRUE(icmp.Answer(IcmpError::kProhibited, original(), now));
  EXPECT_FALSE(icmp.Answer(IcmpError::kProhibited, original(), now));
  icmp.Configure({.per_second = 1'000'000, .burst = 1'000, .per_path = 0});
  for (int i = 0; i < 50; ++i) {
    EXPECT_TRUE(icmp.Answer(IcmpError::kProhibited, original(), now));
  }
  EXPECT_EQ(tun.written().size(), 76u);
}

// A flood of errors about one place, and one error about another, every 10 ms:
// the other's are told, but for a collision in the table, which this key does
// not have.
TEST_P(Icmp, AFloodSilencesItsOwnPathOnly) {
  Family other = *GetParam();
  other.remote =
      *IpAddress::Parse(GetParam()->v4() ? "198.51.100.7" : "2001:db8:7::7");
  const ByteVector bytes = MakeTcpPacket(other);
  int told = 0;
  for (int i = 0; i < 100; ++i) {
    for (int k = 0; k < 500; ++k) {
      (void)icmp.Answer(IcmpError::kProhibited, original(), now);
    }
    told += icmp.Answer(IcmpError::kProhibited, *ParsePacket(bytes), now);
    now += milliseconds(10);
  }
  EXPECT_EQ(told, 100);
}

// One app's socket scans, 2,000 refusals a second, and every 10 ms somebody
// else is refused once.
TEST_P(Icmp, AScanSilencesItselfOnly) {
  uint32_t number = 0;
  const auto refuse = [&](uint16_t port) {
    Family f = *GetParam();
    ++number;
    f.remote = *IpAddress::Parse(
        (f.v4() ? "198.18." + std::to_string(number >> 8 & 255) + "." +
                      std::to_string(number & 255)
                : "2001:db8:9::" + std::to_string(number)));
    TcpSpec spec;
    spec.source_port = port;
    const ByteVector bytes = MakeTcpPacket(f, spec);
    return icmp.Answer(IcmpError::kProhibited, *ParsePacket(bytes), now);
  };
  int scan = 0, others = 0;
  for (int i = 0; i < 200; ++i) {
    for (int k = 0; k < 20; ++k) scan += refuse(999);
    others += refuse(static_cast<uint16_t>(40000 + i));
    now += milliseconds(10);
  }
  EXPECT_EQ(others, 200);
  EXPECT_GT(scan, 300);
  EXPECT_LE(scan, 2 * (25 + 200)) << "two buckets of 100 a second";
}

// The bucket of all: its rate in the long run, and a burst that nobody can
// count others by.
TEST_P(Icmp, RateOfAllIsLimitedAndVaries) {
  IcmpResponder::Options o;
  o.per_path = 0;
  icmp.Configure(o);
  std::vector<int> bursts;
  uint64_t total = 0;
  for (int second = 0; second < 40; ++second) {
    int burst = 0;
    for (int i = 0; i < 500; ++i) {
      burst += icmp.Answer(IcmpError::kProhibited, original(), now) ? 1 : 0;
    }
    bursts.push_back(burst);
    for (int ms = 0; ms < 950; ++ms) {
      now += milliseconds(1);
      for (int k = 0; k < 4; ++k) {
        total += icmp.Answer(IcmpError::kProhibited, original(), now) ? 1 : 0;
      }
    }
    now += milliseconds(50);
  }
  EXPECT_NEAR(static_cast<double>(total) / 40, 950, 60);
  const auto [least, most] = std::minmax_element(bursts.begin(), bursts.end());
  EXPECT_GT(*least, 25);
  EXPECT_LT(*most, 90);
  EXPECT_GT(*most - *least, 5);
}

TEST_P(Icmp, NoneIsAWishToo) {
  icmp.Configure({.per_second = 0});
  EXPECT_FALSE(icmp.Answer(IcmpError::kProhibited, original(), now));
  EXPECT_EQ(limited(), 1u);
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

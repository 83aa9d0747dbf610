#include "core/base/rate_limiter.h"

#include <cstdint>
#include <limits>

#include "gtest/gtest.h"

namespace netstack {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Instant kStart = Instant(hours(100));

// How many are permitted of `attempts` at one moment.
int TakeMany(RateLimiter& limiter, Instant now, int attempts) {
  int permitted = 0;
  for (int i = 0; i < attempts; ++i) permitted += limiter.Take(now) ? 1 : 0;
  return permitted;
}

TEST(RateLimiter, PermitsABurstAndThenTheRate) {
  RateLimiter limiter(/*per_second=*/10, /*burst=*/5);
  EXPECT_EQ(TakeMany(limiter, kStart, 20), 5);
  EXPECT_EQ(TakeMany(limiter, kStart + milliseconds(99), 20), 0);
  EXPECT_EQ(TakeMany(limiter, kStart + milliseconds(100), 20), 1);
  EXPECT_EQ(TakeMany(limiter, kStart + milliseconds(350), 20), 2);
  EXPECT_EQ(TakeMany(limiter, kStart + milliseconds(400), 20), 1);
}

TEST(RateLimiter, NeverHoldsMoreThanTheBurst) {
  RateLimiter limiter(10, 5);
  EXPECT_EQ(TakeMany(limiter, kStart, 20), 5);
  EXPECT_EQ(TakeMany(limiter, kStart + hours(24 * 365 * 50), 20), 5);
}

TEST(RateLimiter, KeepsARateThatDoesNotDivideASecond) {
  RateLimiter limiter(/*per_second=*/3, /*burst=*/1);
  int permitted = 0;
  for (int ms = 0; ms < 10'000; ++ms) {
    permitted += TakeMany(limiter, kStart + milliseconds(ms), 2);
  }
  EXPECT_EQ(permitted, 30);  // at 0 ms, and 29 thirds up to 9999 ms
}

TEST(RateLimiter, CountsSmallStepsInFull) {
  RateLimiter limiter(/*per_second=*/1, /*burst=*/1);
  EXPECT_EQ(TakeMany(limiter, kStart, 2), 1);
  int permitted = 0;
  for (int i = 1; i <= 1000; ++i) {
    permitted += TakeMany(limiter, kStart + milliseconds(i), 1);
  }
  EXPECT_EQ(permitted, 1);
}

TEST(RateLimiter, ZeroPerSecondNeverPermits) {
  RateLimiter limiter(0, 50);
  EXPECT_FALSE(limiter.Take(kStart));
  EXPECT_FALSE(limiter.Take(kStart + hours(1)));
}

TEST(RateLimiter, ZeroBurstIsOne) {
  RateLimiter limiter(1, 0);
  EXPECT_EQ(TakeMany(limiter, kStart, 5), 1);
}

TEST(RateLimiter, LargestRateAndBurstDoNotOverflow) {
  constexpr uint32_t kMax = std::numeric_limits<uint32_t>::max();
  RateLimiter limiter(kMax, kMax);
  EXPECT_EQ(TakeMany(limiter, kStart, 1000), 1000);
  EXPECT_TRUE(limiter.Take(Instant::max()));
}

TEST(RateLimiter, TimeThatGoesBackRefillsNothing) {
  RateLimiter limiter(1, 2);
  EXPECT_EQ(TakeMany(limiter, kStart, 5), 2);
  EXPECT_FALSE(limiter.Take(kStart - hours(1)));
  EXPECT_FALSE(limiter.Take(kStart));
  EXPECT_TRUE(limiter.Take(kStart + seconds(1)));
}

TEST(RateLimiter, ConfigureCutsTheBucketButFillsNothing) {
  RateLimiter limiter(1, 10);
  limiter.Configure(1, 3);
  EXPECT_EQ(TakeMany(limiter, kStart, 20), 3);
  limiter.Configure(1000, 100);
  EXPECT_EQ(TakeMany(limiter, kStart, 20), 0);
  EXPECT_EQ(TakeMany(limiter, kStart + milliseconds(7), 20), 7);
}

TEST(RateLimiter, ConfiguredFromZeroStartsPermitting) {
  RateLimiter limiter(0, 5);
  EXPECT_FALSE(limiter.Take(kStart));
  limiter.Configure(10, 5);
  EXPECT_EQ(TakeMany(limiter, kStart, 20), 5);
}

// A price above one may be taken on credit, and one of zero still needs a
// token: what is permitted in the long run is the average price's.
TEST(RateLimiter, PricesOtherThanOne) {
  RateLimiter limiter(/*per_second=*/10, /*burst=*/3);
  EXPECT_TRUE(limiter.Take(kStart, 0));
  EXPECT_TRUE(limiter.Take(kStart, 2));
  EXPECT_TRUE(limiter.Take(kStart, 2));
  EXPECT_FALSE(limiter.Take(kStart, 0));
  EXPECT_FALSE(limiter.Take(kStart, 2));
  EXPECT_EQ(TakeMany(limiter, kStart + milliseconds(100), 5), 0);
  EXPECT_EQ(TakeMany(limiter, kStart + milliseconds(200), 5), 1);
}

}  // namespace
}  // namespace netstack

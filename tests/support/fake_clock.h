// Time that a test moves.
#ifndef TESTS_SUPPORT_FAKE_CLOCK_H_
#define TESTS_SUPPORT_FAKE_CLOCK_H_

#include <algorithm>

#include "core/platform/clock.h"

namespace netstack::test {

class FakeClock final : public Clock {
 public:
  Instant Now() override { return now_; }

  void Advance(Duration d) { now_ += d; }
  // Never back.
  void AdvanceTo(Instant t) { now_ = std::max(now_, t); }

 private:
  // Some time after the epoch, as on a machine that is up.
  Instant now_{std::chrono::hours(1)};
};

}  // namespace netstack::test

#endif  // TESTS_SUPPORT_FAKE_CLOCK_H_

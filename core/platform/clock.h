// Where an Instant comes from.
#ifndef CORE_PLATFORM_CLOCK_H_
#define CORE_PLATFORM_CLOCK_H_

#include "core/base/time.h"

namespace netstack {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant Now() = 0;
};

// CLOCK_MONOTONIC.
class SystemClock final : public Clock {
 public:
  Instant Now() override { return std::chrono::steady_clock::now(); }
};

}  // namespace netstack

#endif  // CORE_PLATFORM_CLOCK_H_

// Time as the core sees it: a parameter, never a call.
//
// Below the engine nothing reads a clock; every function that depends on time
// takes `Instant now`. Only platform/clock.h produces an Instant.
#ifndef CORE_BASE_TIME_H_
#define CORE_BASE_TIME_H_

#include <chrono>

namespace netstack {

// Monotonic time in nanoseconds. The epoch is the clock's own: an Instant
// means something only against another Instant of the same clock.
using Duration = std::chrono::nanoseconds;
using Instant = std::chrono::time_point<std::chrono::steady_clock, Duration>;

// "No deadline".
inline constexpr Instant kNever = Instant::max();

}  // namespace netstack

#endif  // CORE_BASE_TIME_H_

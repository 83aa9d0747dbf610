// Waiting without sleeping blindly: a condition is looked at again and again
// until it holds or the time is over.
#ifndef TESTS_E2E_SUPPORT_DEADLINE_H_
#define TESTS_E2E_SUPPORT_DEADLINE_H_

#include <chrono>
#include <thread>

namespace netstack::e2e {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

// What should take no time at all may take this long on a busy machine.
inline constexpr auto kPatience = seconds(20);

inline double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Whether `condition` came true within `patience`.
template <typename Condition>
bool Eventually(Condition condition, Clock::duration patience = kPatience) {
  const auto end = Clock::now() + patience;
  while (!condition()) {
    if (Clock::now() >= end) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

// Time that is part of the traffic, such as a reader's pause.
inline void Pause(Clock::duration time) { std::this_thread::sleep_for(time); }

}  // namespace netstack::e2e

#endif  // TESTS_E2E_SUPPORT_DEADLINE_H_

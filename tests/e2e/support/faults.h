// Allocation failures in a running netstackd: what a library that is loaded
// into it (faults_preload.cc) shares with the test.
#ifndef TESTS_E2E_SUPPORT_FAULTS_H_
#define TESTS_E2E_SUPPORT_FAULTS_H_

#include <atomic>
#include <cstdint>

namespace netstack::e2e {

// In a file that both map; its path is in $NETSTACK_FAULTS.
struct Faults {
  // About one allocation in so many fails, of those that the core's thread
  // makes; 0: none.
  std::atomic<uint32_t> one_in;
  std::atomic<uint64_t> calls;   // of that thread, while one_in was not 0
  std::atomic<uint64_t> failed;  // of them
};
static_assert(std::atomic<uint32_t>::is_always_lock_free);
static_assert(std::atomic<uint64_t>::is_always_lock_free);

}  // namespace netstack::e2e

#endif  // TESTS_E2E_SUPPORT_FAULTS_H_

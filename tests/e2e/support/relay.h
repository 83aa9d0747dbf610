// A bad line: carries IP packets between two TUNs and delays, loses, repeats
// and reorders them. (The kernels that we test on have no netem.)
//
// Packets are changed in no other way, and the same seed gives the same fate
// to the same sequence of packets.
#ifndef TESTS_E2E_SUPPORT_RELAY_H_
#define TESTS_E2E_SUPPORT_RELAY_H_

#include <atomic>
#include <cstdint>
#include <thread>

#include "tests/e2e/support/deadline.h"
#include "tests/e2e/support/fd.h"

namespace netstack::e2e {

// For each direction.
struct Impairment {
  Clock::duration delay{};
  // Each packet's chance.
  double loss = 0;
  double duplicate = 0;
  double reorder = 0;
  // A reordered packet comes this much later than its neighbours.
  Clock::duration late = milliseconds(3);
  uint64_t seed = 1;
};

class Relay {
 public:
  // Takes the descriptors of two TUNs, non-blocking.
  Relay(Fd a, Fd b, const Impairment& impairment);
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  uint64_t carried() const { return carried_; }
  uint64_t lost() const { return lost_; }
  uint64_t duplicated() const { return duplicated_; }
  uint64_t reordered() const { return reordered_; }
  // Lost without intent: a TUN took no more.
  uint64_t overflowed() const { return overflowed_; }

 private:
  void Loop();

  Fd ends_[2];
  Fd stop_;
  Impairment impairment_;
  std::atomic<uint64_t> carried_{0};
  std::atomic<uint64_t> lost_{0};
  std::atomic<uint64_t> duplicated_{0};
  std::atomic<uint64_t> reordered_{0};
  std::atomic<uint64_t> overflowed_{0};
  std::thread thread_;
};

}  // namespace netstack::e2e

#endif  // TESTS_E2E_SUPPORT_RELAY_H_

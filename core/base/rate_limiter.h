// A token bucket: so many per second in the long run, and so many at once.
#ifndef CORE_BASE_RATE_LIMITER_H_
#define CORE_BASE_RATE_LIMITER_H_

#include <algorithm>
#include <cstdint>

#include "core/base/time.h"

namespace netstack {

//   RateLimiter errors(/*per_second=*/1000, /*burst=*/50);
//   if (!errors.Take(now)) return Drop(DropReason::kIcmpRateLimited);
class RateLimiter {
 public:
  // Starts full. Zero per second never permits; a burst of zero is taken as
  // one, since nothing would ever fit into it.
  RateLimiter(uint32_t per_second, uint32_t burst) {
    Configure(per_second, burst);
    credit_ = capacity();
  }

  // Keeps what is in the bucket, as far as the new burst holds it.
  void Configure(uint32_t per_second, uint32_t burst) {
    per_second_ = per_second;
    burst_ = std::max<uint32_t>(burst, 1);
    credit_ = std::min(credit_, capacity());
  }

  // Whether one more may happen now, which one token permits; it costs
  // `tokens`, if need be on credit: a price that varies around one hides from
  // watchers how full the bucket is. `now` never goes back; if it does,
  // nothing is refilled until it catches up.
  bool Take(Instant now, uint32_t tokens = 1) {
    if (per_second_ == 0) return false;
    Refill(now);
    if (credit_ < kToken) return false;
    credit_ -= tokens * kToken;
    return true;
  }

 private:
  // Credit is counted in billionths of a token, so that every nanosecond
  // adds the whole number `per_second_`.
  static constexpr int64_t kToken = 1'000'000'000;

  int64_t capacity() const { return burst_ * kToken; }

  void Refill(Instant now) {
    if (now <= last_) return;
    const int64_t elapsed = (now - last_).count();
    last_ = now;
    // Compared by division first: the product could overflow.
    const int64_t missing = capacity() - credit_;
    credit_ = elapsed > missing / per_second_
                  ? capacity()
                  : credit_ + elapsed * per_second_;
  }

  uint32_t per_second_ = 0;
  uint32_t burst_ = 1;
  int64_t credit_ = 0;
  Instant last_{};
};

}  // namespace netstack

#endif  // CORE_BASE_RATE_LIMITER_H_

// The deactivation PIN: compared, and locked after wrong tries.
#ifndef SERVER_PIN_GUARD_H_
#define SERVER_PIN_GUARD_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/errors.h"

namespace netstack::server {

// One thread.
class PinGuard {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr int kTries = 5;
  static constexpr std::chrono::seconds kLock{60};

  // OK, PIN_REQUIRED, PIN_WRONG or PIN_LOCKED. While it is locked, the right
  // PIN is refused too, and nothing is learned about it.
  absl::Status Check(const std::string& given, const std::string& wanted,
                     Clock::time_point now) {
    if (now < locked_until_) {
      const auto left =
          std::chrono::ceil<std::chrono::seconds>(locked_until_ - now);
      return Refusal(absl::StatusCode::kResourceExhausted, "PIN_LOCKED",
                     absl::StrCat("Too many wrong PINs; try again in ",
                                  left.count(), " s."),
                     {{"seconds_left", absl::StrCat(left.count())}});
    }
    // Asking without one is no guess.
    if (given.empty()) {
      return Refusal(absl::StatusCode::kPermissionDenied, "PIN_REQUIRED",
                     "Stopping needs the deactivation PIN.");
    }
    if (Equal(given, wanted)) {
      wrong_ = 0;
      return absl::OkStatus();
    }
    if (++wrong_ >= kTries) {
      wrong_ = 0;
      locked_until_ = now + kLock;
    }
    const int left = locked_until_ > now ? 0 : kTries - wrong_;
    return Refusal(absl::StatusCode::kPermissionDenied, "PIN_WRONG",
                   "The PIN is wrong.", {{"tries_left", absl::StrCat(left)}});
  }

 private:
  // In a time that says nothing about where they differ.
  static bool Equal(const std::string& a, const std::string& b) {
    size_t difference = a.size() ^ b.size();
    for (size_t i = 0; i < a.size(); ++i) {
      const char other = b.empty() ? '\0' : b[i % b.size()];
      difference |=
          static_cast<size_t>(static_cast<unsigned char>(a[i] ^ other));
    }
    return difference == 0;
  }

  int wrong_ = 0;
  Clock::time_point locked_until_{};
};

}  // namespace netstack::server

#endif  // SERVER_PIN_GUARD_H_

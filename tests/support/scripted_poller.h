// A poller whose events the test injects, and whose sleep is a jump of the
// clock.
#ifndef TESTS_SUPPORT_SCRIPTED_POLLER_H_
#define TESTS_SUPPORT_SCRIPTED_POLLER_H_

#include <atomic>
#include <cstddef>
#include <deque>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "core/platform/poller.h"
#include "tests/support/fake_clock.h"

namespace netstack::test {

class ScriptedPoller final : public Poller {
 public:
  struct Watch {
    PollToken token;
    Trigger trigger = Trigger::kLevelRead;
  };

  // `clock`, which outlives the poller, is moved to the deadline by a Wait()
  // that nothing else ends. Null: such a Wait() returns at once.
  explicit ScriptedPoller(FakeClock* clock = nullptr) : clock_(clock) {}

  // What the kernel would report of `fd`, with the token that it is watched
  // by; fails the test when it is not watched.
  void Inject(int fd, PollEvent event);
  void InjectReadable(int fd) { Inject(fd, {.token = {}, .readable = true}); }
  void InjectWritable(int fd) { Inject(fd, {.token = {}, .writable = true}); }
  // As it is, e.g. of a flow that is gone.
  void InjectToken(PollEvent event) { events_.push_back(event); }

  // nullopt: not watched.
  std::optional<Watch> watch(int fd) const;
  size_t watch_count() const { return watches_.size(); }
  // How often Wait() was called, and how often it slept until a deadline.
  size_t waits() const { return waits_; }
  size_t sleeps() const { return sleeps_; }
  Instant last_deadline() const { return last_deadline_; }
  size_t wakes() const { return wakes_; }

  // The result of the next Add() calls.
  int add_result = 0;

  int Add(int fd, PollToken token, Trigger trigger) override;
  int Modify(int fd, PollToken token, Trigger trigger) override;
  int Remove(int fd) override;
  // With kNever, no event and no Wake() it would sleep for good: fails the
  // test.
  size_t Wait(Instant now, Instant deadline,
              std::span<PollEvent> events) override;
  void Wake() override;

 private:
  FakeClock* const clock_;
  absl::flat_hash_map<int, Watch> watches_;
  std::deque<PollEvent> events_;
  size_t waits_ = 0;
  size_t sleeps_ = 0;
  Instant last_deadline_ = kNever;
  std::atomic<size_t> wakes_{0};
  std::atomic<bool> woken_{false};
};

}  // namespace netstack::test

#endif  // TESTS_SUPPORT_SCRIPTED_POLLER_H_

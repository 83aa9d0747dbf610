#include "tests/support/scripted_poller.h"

#include <cerrno>

#include "gtest/gtest.h"

namespace netstack::test {

void ScriptedPoller::Inject(int fd, PollEvent event) {
  const auto it = watches_.find(fd);
  if (it == watches_.end()) {
    ADD_FAILURE() << "descriptor " << fd << " is not watched";
    return;
  }
  event.token = it->second.token;
  events_.push_back(event);
}

std::optional<ScriptedPoller::Watch> ScriptedPoller::watch(int fd) const {
  const auto it = watches_.find(fd);
  if (it == watches_.end()) return std::nullopt;
  return it->second;
}

int ScriptedPoller::Add(int fd, PollToken token, Trigger trigger) {
  if (add_result != 0) return add_result;
  return watches_.try_emplace(fd, Watch{token, trigger}).second ? 0 : -EEXIST;
}

int ScriptedPoller::Modify(int fd, PollToken token, Trigger trigger) {
  const auto it = watches_.find(fd);
  if (it == watches_.end()) return -ENOENT;
  it->second = {token, trigger};
  return 0;
}

int ScriptedPoller::Remove(int fd) {
  return watches_.erase(fd) == 1 ? 0 : -ENOENT;
}

size_t ScriptedPoller::Wait(Instant now, Instant deadline,
                            std::span<PollEvent> events) {
  ++waits_;
  last_deadline_ = deadline;
  size_t n = 0;
  while (n < events.size() && !events_.empty()) {
    events[n++] = events_.front();
    events_.pop_front();
  }
  const bool woken = woken_.exchange(false);
  if (n > 0 || woken || deadline <= now) return n;
  if (deadline == kNever) {
    ADD_FAILURE() << "Wait() would sleep for good";
  } else if (clock_ != nullptr) {
    ++sleeps_;
    clock_->AdvanceTo(deadline);
  }
  return 0;
}

void ScriptedPoller::Wake() {
  ++wakes_;
  woken_ = true;
}

}  // namespace netstack::test

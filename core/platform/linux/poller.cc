#include "core/platform/poller.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/platform/linux/unique_fd.h"

// epoll_pwait2(2) takes nanoseconds: Linux 5.11, glibc 2.35.
#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 35)
#define NETSTACK_HAVE_EPOLL_PWAIT2 1
#endif
#endif

namespace netstack {
namespace {

// Events taken from the kernel in one call, at most.
constexpr size_t kBatch = 256;

uint32_t EpollEvents(Poller::Trigger trigger) {
  switch (trigger) {
    case Poller::Trigger::kLevelRead:
      return EPOLLIN;
    case Poller::Trigger::kLevelWrite:
      return EPOLLOUT;
    case Poller::Trigger::kLevelReadWrite:
      return EPOLLIN | EPOLLOUT;
    case Poller::Trigger::kEdgeRead:
      return EPOLLIN | EPOLLET;
    case Poller::Trigger::kEdgeReadWrite:
      return EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  }
  return 0;
}

PollEvent FromEpoll(const epoll_event& e) {
  PollEvent event;
  event.token = PollToken::Unpack(e.data.u64);
  event.error = (e.events & (EPOLLERR | EPOLLHUP)) != 0;
  event.read_closed = (e.events & (EPOLLRDHUP | EPOLLHUP)) != 0;
  event.readable =
      (e.events & EPOLLIN) != 0 || event.read_closed || event.error;
  event.writable = (e.events & EPOLLOUT) != 0;
  return event;
}

class EpollPoller final : public Poller {
 public:
  EpollPoller(UniqueFd epoll, UniqueFd wake)
      : epoll_(std::move(epoll)), wake_(std::move(wake)) {}

  int Add(int fd, PollToken token, Trigger trigger) override {
    return Control(EPOLL_CTL_ADD, fd, token, trigger);
  }
  int Modify(int fd, PollToken token, Trigger trigger) override {
    return Control(EPOLL_CTL_MOD, fd, token, trigger);
  }
  int Remove(int fd) override {
    return epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr) == 0 ? 0
                                                                    : -errno;
  }

  size_t Wait(Instant now, Instant deadline,
              std::span<PollEvent> events) override {
    std::array<epoll_event, kBatch> raw;
    const int room = static_cast<int>(std::min(events.size(), raw.size()));
    const int n = WaitRaw(now, deadline, {raw.data(), raw.data() + room});
    size_t stored = 0;
    for (int i = 0; i < n; ++i) {
      if (raw[i].data.u64 == kWakeToken) {
        // Reads what Wake() wrote, so that what its caller did before is seen
        // behind this Wait(); see there.
        woken_.exchange(false, std::memory_order_acq_rel);
        continue;
      }
      events[stored++] = FromEpoll(raw[i]);
    }
    return stored;
  }

  // One write for all calls until the loop sees it. A call that finds the flag
  // set is ordered before the exchange in Wait(), hence seen by that turn.
  void Wake() override {
    if (woken_.exchange(true, std::memory_order_acq_rel)) return;
    const uint64_t one = 1;
    // Edge-triggered and never read: each write is an event of its own, and
    // the counter is full after 2^64 of them (eventfd(2)).
    [[maybe_unused]] const ssize_t n = write(wake_.get(), &one, sizeof(one));
  }

 private:
  static constexpr uint64_t kWakeToken = 0;  // PollToken{}.Pack()

  int Control(int op, int fd, PollToken token, Trigger trigger) {
    epoll_event e{};
    e.events = EpollEvents(trigger);
    e.data.u64 = token.Pack();
    return epoll_ctl(epoll_.get(), op, fd, &e) == 0 ? 0 : -errno;
  }

  // How many of `raw` were filled. A signal ends the wait like a wake-up: the
  // caller looks at its clock and comes back.
  int WaitRaw(Instant now, Instant deadline, std::span<epoll_event> raw) {
    const int room = static_cast<int>(raw.size());
    if (deadline == kNever) {
      return std::max(epoll_wait(epoll_.get(), raw.data(), room, -1), 0);
    }
    const Duration left = std::max(deadline - now, Duration::zero());
#ifdef NETSTACK_HAVE_EPOLL_PWAIT2
    if (have_pwait2_) {
      const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
      timespec ts{};
      ts.tv_sec = static_cast<time_t>(seconds.count());
      ts.tv_nsec = static_cast<long>((left - seconds).count());
      const int n = epoll_pwait2(epoll_.get(), raw.data(), room, &ts, nullptr);
      // An older kernel, or a seccomp filter that does not know the call.
      if (n >= 0 || (errno != ENOSYS && errno != EPERM)) return std::max(n, 0);
      have_pwait2_ = false;
    }
#endif
    // Rounded up: waking early would mean to poll until the deadline comes.
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
    const int timeout = static_cast<int>(std::min<decltype(ms)>(ms, INT_MAX));
    return std::max(epoll_wait(epoll_.get(), raw.data(), room, timeout), 0);
  }

  const UniqueFd epoll_;
  const UniqueFd wake_;
  std::atomic<bool> woken_{false};
#ifdef NETSTACK_HAVE_EPOLL_PWAIT2
  bool have_pwait2_ = true;
#endif
};

}  // namespace

absl::StatusOr<std::unique_ptr<Poller>> NewPoller() {
  const auto failed = [](const char* what) {
    return absl::UnavailableError(
        absl::StrCat("cannot create ", what, ": ", strerror(errno)));
  };
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.ok()) return failed("an epoll descriptor");
  UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.ok()) return failed("an event descriptor");
  epoll_event e{};
  e.events = EPOLLIN | EPOLLET;
  e.data.u64 = PollToken{}.Pack();
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &e) != 0) {
    return failed("the poller's own event");
  }
  return std::make_unique<EpollPoller>(std::move(epoll), std::move(wake));
}

}  // namespace netstack

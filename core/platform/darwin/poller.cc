// kqueue(2). Where it differs from epoll, and what is done about it:
// - A descriptor has a filter for each direction. Its two events are made one
//   when they come behind each other, as they mostly do; else its receiver
//   gets two in one Wait(), and the first may have freed what the second names
//   (PollToken::generation).
// - Adding what is there already is no error.
// - EV_EOF on the writing side also follows our own shutdown(2), so it is no
//   error by itself; fflags has the socket's error, without taking it.
// - The flags of a filter that is there cannot be changed: it is made anew.
#include "core/platform/poller.h"

#include <sys/types.h>
#include <sys/event.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/platform/linux/unique_fd.h"

namespace netstack {
namespace {

// Events taken from the kernel in one call, at most.
constexpr size_t kBatch = 256;

// A token travels in a pointer: there are no 32-bit systems to serve.
static_assert(sizeof(void*) == sizeof(uint64_t));

struct kevent Change(uintptr_t ident, int16_t filter, uint16_t flags,
                     uint64_t token) {
  struct kevent change {};
  EV_SET(&change, ident, filter, flags, 0, 0, reinterpret_cast<void*>(token));
  return change;
}

PollEvent FromKevent(const struct kevent& e) {
  PollEvent event;
  event.token = PollToken::Unpack(reinterpret_cast<uint64_t>(e.udata));
  const bool end = (e.flags & EV_EOF) != 0;
  event.error = end && e.fflags != 0;
  event.read_closed = e.filter == EVFILT_READ && end;
  event.readable = e.filter == EVFILT_READ || event.error;
  event.writable = e.filter == EVFILT_WRITE;
  return event;
}

// Two filters of one descriptor.
void Join(const PollEvent& more, PollEvent* event) {
  event->readable |= more.readable;
  event->writable |= more.writable;
  event->read_closed |= more.read_closed;
  event->error |= more.error;
}

class KqueuePoller final : public Poller {
 public:
  explicit KqueuePoller(UniqueFd kqueue) : kqueue_(std::move(kqueue)) {}

  int Add(int fd, PollToken token, Trigger trigger) override {
    const bool edge =
        trigger == Trigger::kEdgeRead || trigger == Trigger::kEdgeReadWrite;
    const bool write = trigger == Trigger::kLevelReadWrite ||
                       trigger == Trigger::kEdgeReadWrite;
    const uint16_t flags = edge ? EV_ADD | EV_CLEAR : EV_ADD;
    const int error = Apply(fd, EVFILT_READ, flags, token);
    if (error != 0 || !write) return error;
    return Apply(fd, EVFILT_WRITE, flags, token);
  }

  int Modify(int fd, PollToken token, Trigger trigger) override {
    const int error = Remove(fd);
    return error == 0 ? Add(fd, token, trigger) : error;
  }

  int Remove(int fd) override {
    const int error = Apply(fd, EVFILT_READ, EV_DELETE, {});
    // There is none with the triggers that only read.
    Apply(fd, EVFILT_WRITE, EV_DELETE, {});
    return error;
  }

  size_t Wait(Instant now, Instant deadline,
              std::span<PollEvent> events) override {
    timespec left{};
    if (deadline != kNever && deadline > now) {
      const Duration d = deadline - now;
      const auto seconds = std::chrono::floor<std::chrono::seconds>(d);
      left.tv_sec = static_cast<time_t>(seconds.count());
      left.tv_nsec = static_cast<long>((d - seconds).count());
    }
    std::array<struct kevent, kBatch> raw;  // not initialized
    const int n =
        kevent(kqueue_.get(), nullptr, 0, raw.data(),
               static_cast<int>(std::min(events.size(), raw.size())),
               deadline == kNever ? nullptr : &left);
    size_t stored = 0;
    for (int i = 0; i < n; ++i) {  // a signal gives -1: as a wake-up
      if (raw[i].filter == EVFILT_USER) {
        // Reads what Wake() wrote, so that what its caller did before is seen
        // behind this Wait().
        woken_.exchange(false, std::memory_order_acq_rel);
        continue;
      }
      const PollEvent event = FromKevent(raw[i]);
      if (stored > 0 && raw[i].ident == raw[i - 1].ident &&
          raw[i - 1].filter != EVFILT_USER) {
        Join(event, &events[stored - 1]);
        // Both directions are at their end: what epoll calls a hang-up.
        if ((raw[i].flags & raw[i - 1].flags & EV_EOF) != 0) {
          events[stored - 1].error = true;
        }
        continue;
      }
      events[stored++] = event;
    }
    return stored;
  }

  // One call for all until the loop sees it, as in the epoll poller.
  void Wake() override {
    if (woken_.exchange(true, std::memory_order_acq_rel)) return;
    struct kevent trigger {};
    EV_SET(&trigger, kWakeIdent, EVFILT_USER, 0, NOTE_TRIGGER, 0, nullptr);
    kevent(kqueue_.get(), &trigger, 1, nullptr, 0, nullptr);
  }

  // 0 or -errno.
  int AddWake() {
    return Apply(kWakeIdent, EVFILT_USER, EV_ADD | EV_CLEAR, {});
  }

 private:
  static constexpr int kWakeIdent = 0;  // a number of EVFILT_USER's own

  int Apply(int ident, int16_t filter, uint16_t flags, PollToken token) {
    const struct kevent change =
        Change(static_cast<uintptr_t>(ident), filter, flags, token.Pack());
    return kevent(kqueue_.get(), &change, 1, nullptr, 0, nullptr) == 0 ? 0
                                                                       : -errno;
  }

  const UniqueFd kqueue_;
  std::atomic<bool> woken_{false};
};

}  // namespace

absl::StatusOr<std::unique_ptr<Poller>> NewPoller() {
  UniqueFd kqueue_fd(kqueue());  // not inherited by fork(2)
  if (kqueue_fd.ok()) {
    auto poller = std::make_unique<KqueuePoller>(std::move(kqueue_fd));
    if (poller->AddWake() == 0) return poller;
  }
  return absl::UnavailableError(
      absl::StrCat("cannot create a kqueue: ", strerror(errno)));
}

}  // namespace netstack

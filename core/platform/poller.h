// Waiting for descriptors, deadlines and other threads.
#ifndef CORE_PLATFORM_POLLER_H_
#define CORE_PLATFORM_POLLER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "core/base/time.h"

namespace netstack {

// What an event carries back: a typed reference that finds its object without
// a lookup. The generation tells a stale event of a reused index.
struct PollToken {
  enum class Kind : uint8_t {
    kWake = 0,
    kTun = 1,
    kTcpFlow = 2,
    kUdp = 3,
    kEcho = 4,
    kDns = 5,
    kProtect = 6,
    kDnsStream = 7,  // an app's connection to port 53, on its inner end
  };
  Kind kind = Kind::kWake;
  uint32_t generation = 0;  // 24 bits
  uint32_t index = 0;

  uint64_t Pack() const {
    return (static_cast<uint64_t>(kind) << 56) |
           (static_cast<uint64_t>(generation & 0xFFFFFF) << 32) | index;
  }
  static PollToken Unpack(uint64_t v) {
    return {static_cast<Kind>(v >> 56), static_cast<uint32_t>(v >> 32) & 0xFFFFFF,
            static_cast<uint32_t>(v)};
  }
};

struct PollEvent {
  PollToken token;
  bool readable = false;  // data, end of stream or a pending error
  bool writable = false;
  bool read_closed = false;  // the peer has shut down its sending side
  bool error = false;        // error or full hang-up
};

// Loop thread only, but for Wake().
class Poller {
 public:
  // kEdgeRead is for datagram sockets: every datagram that leaves makes one
  // writable again, which is nothing to wake up for.
  enum class Trigger {
    kLevelRead,
    kLevelWrite,
    kLevelReadWrite,
    kEdgeRead,
    kEdgeReadWrite,
  };

  virtual ~Poller() = default;
  // 0 or -errno. The poller does not own `fd`; closing it removes it.
  virtual int Add(int fd, PollToken token, Trigger trigger) = 0;
  virtual int Modify(int fd, PollToken token, Trigger trigger) = 0;
  virtual int Remove(int fd) = 0;
  // Waits until an event, Wake(), or `deadline` (kNever: none; one in the
  // past polls). `now` is the caller's current time. Returns how many events
  // were stored; a Wake() is not among them. A signal may end it early.
  virtual size_t Wait(Instant now, Instant deadline,
                      std::span<PollEvent> events) = 0;
  // Any thread: ends a Wait(), the current or the next one.
  virtual void Wake() = 0;
};

// epoll(7) with an eventfd(2). Deadlines are never met early: epoll_pwait2(2)
// takes nanoseconds, and where there is none a millisecond is rounded up.
absl::StatusOr<std::unique_ptr<Poller>> NewPoller();

}  // namespace netstack

#endif  // CORE_PLATFORM_POLLER_H_

// The resolver's descriptors on the loop's poller: who is to be told about
// which, found by the event's token without a lookup.
//
// Everything below core/dns that owns a socket watches it here, libraries'
// sockets too (curl's); a stale event of a closed socket finds nobody, since
// its generation is old.
#ifndef CORE_DNS_SOCKET_WATCH_H_
#define CORE_DNS_SOCKET_WATCH_H_

#include <cstdint>

#include "core/base/time.h"
#include "core/flow/slab.h"
#include "core/platform/poller.h"

namespace netstack {

class SocketHandler {
 public:
  virtual ~SocketHandler() = default;
  // `cookie` is the handler's own, as given to Watch().
  virtual void OnReady(uint64_t cookie, const PollEvent& event,
                       Instant now) = 0;
};

// Loop thread only.
class SocketWatch {
 public:
  struct Handle {
    uint32_t index = 0;
    uint32_t generation = 0;  // 0: nothing is watched
    bool valid() const { return generation != 0; }
  };

  // `poller` outlives this.
  explicit SocketWatch(Poller* poller) : poller_(poller) {}
  SocketWatch(const SocketWatch&) = delete;
  SocketWatch& operator=(const SocketWatch&) = delete;

  // What the poller tells about it; see Dialer::SetToken().
  static PollToken TokenOf(Handle handle) {
    return {PollToken::Kind::kDns, handle.generation, handle.index};
  }

  // `handler` is called for `fd` until Forget(). An invalid handle when the
  // kernel or malloc refuses.
  Handle Watch(int fd, Poller::Trigger trigger, SocketHandler* handler,
               uint64_t cookie);
  bool Modify(Handle handle, Poller::Trigger trigger);
  // Before the descriptor is closed. No effect on an invalid handle.
  void Forget(Handle handle);
  // The token of an event of kind kDns; false when it is stale.
  bool Dispatch(const PollEvent& event, Instant now);

  uint32_t size() const { return records_.size(); }

 private:
  struct Record {
    uint32_t index = 0;
    uint32_t generation = 0;
    int fd = -1;
    SocketHandler* handler = nullptr;  // the watcher, which forgets in time
    uint64_t cookie = 0;
  };

  Poller* const poller_;
  Slab<Record> records_;
};

}  // namespace netstack

#endif  // CORE_DNS_SOCKET_WATCH_H_

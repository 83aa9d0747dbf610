// The last events of the service, and those who watch them.
//
// The ring of kept events is also every watcher's queue: a watcher is a
// position in it, and one that falls out of it is told how many it missed.
#ifndef SERVER_EVENT_LOG_H_
#define SERVER_EVENT_LOG_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "core/base/mutex.h"
#include "netstack/v1/events.pb.h"

namespace netstack::server {

class EventLog {
 public:
  static constexpr size_t kReplayed = 64;  // to a new watcher
  static constexpr size_t kKept = 1024;

  // Any thread. Also written to the log.
  void Add(v1::EventType type, std::string message, uint64_t flow_id = 0);
  void SetEpoch(uint64_t epoch);

  // The sequence of the newest event; 0 when there was none.
  uint64_t newest() const;
  // Where a watcher starts: before the replay that it asked for.
  uint64_t StartAfter(std::optional<uint64_t> after_sequence) const;

  struct Read {
    std::optional<v1::Event> event;  // the first after the position
    uint64_t lost = 0;               // older ones that are no longer kept
  };
  Read After(uint64_t sequence) const;

  // `changed` is called after every Add(), on its thread; it must not call
  // back. `key` is whatever names the watcher.
  void Subscribe(const void* key, std::function<void()> changed);
  void Unsubscribe(const void* key);

 private:
  mutable Mutex mu_;
  uint64_t next_ ABSL_GUARDED_BY(mu_) = 1;
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<v1::Event> kept_ ABSL_GUARDED_BY(mu_);  // sequences are dense
  std::map<const void*, std::function<void()>> watchers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace netstack::server

#endif  // SERVER_EVENT_LOG_H_

// Finds the processes behind sockets on a thread of its own, since walking
// /proc takes milliseconds.
#ifndef CORE_ENGINE_PROCESS_SEARCH_H_
#define CORE_ENGINE_PROCESS_SEARCH_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "core/base/mutex.h"
#include "core/flow/flow_owner.h"
#include "core/platform/socket_owners.h"

namespace netstack {

class ProcessSearch {
 public:
  // Searches that may wait; one beyond is answered with the uid alone.
  static constexpr size_t kMaxWaiting = 4096;
  // On the search's thread, once for every Start().
  using Answer = std::function<void(uint64_t flow_id, const FlowOwner& owner)>;

  ProcessSearch(std::unique_ptr<ProcessFinder> finder, Answer answer);
  // Drops what waits and waits for the search under way.
  ~ProcessSearch();

  // Any thread. False: too many wait, and no answer comes.
  bool Start(uint64_t flow_id, const SocketOwner& owner);

 private:
  void Run();

  const std::unique_ptr<ProcessFinder> finder_;
  const Answer answer_;
  Mutex mu_;
  std::condition_variable_any wake_;
  std::deque<std::pair<uint64_t, SocketOwner>> waiting_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace netstack

#endif  // CORE_ENGINE_PROCESS_SEARCH_H_

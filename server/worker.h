// One thread with a queue of tasks and of timers.
//
//   Worker w("streams");
//   w.Post([] { ... });
//   w.After(std::chrono::seconds(1), [] { ... });
//
// Tasks run in order of posting, timers in order of their deadline, and never
// two at once. An idle worker sleeps without waking.
#ifndef SERVER_WORKER_H_
#define SERVER_WORKER_H_

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <string>
#include <thread>

#include "absl/functional/any_invocable.h"
#include "core/base/mutex.h"

namespace netstack::server {

class Worker {
 public:
  using Task = absl::AnyInvocable<void()>;

  // `name` shows in ps and debuggers; at most 15 bytes.
  explicit Worker(std::string name);
  // Stops.
  ~Worker();

  // Any thread. After Stop() the task is dropped.
  void Post(Task task);
  // Any thread. There is no cancelling: a task holds what it needs weakly.
  void After(std::chrono::nanoseconds delay, Task task);

  // Runs what was posted before, drops timers, ends the thread. Idempotent;
  // not on the worker itself.
  void Stop();

 private:
  using Clock = std::chrono::steady_clock;

  void Run();

  Mutex mu_;
  std::condition_variable_any wake_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mu_);
  std::multimap<Clock::time_point, Task> timers_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace netstack::server

#endif  // SERVER_WORKER_H_

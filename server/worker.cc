#include "server/worker.h"

#include <pthread.h>

#include <utility>

namespace netstack::server {

Worker::Worker(std::string name) : thread_([this] { Run(); }) {
  pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
}

Worker::~Worker() { Stop(); }

void Worker::Post(Task task) {
  {
    MutexLock lock(mu_);
    if (stopping_) return;
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
}

void Worker::After(std::chrono::nanoseconds delay, Task task) {
  {
    MutexLock lock(mu_);
    if (stopping_) return;
    timers_.emplace(Clock::now() + delay, std::move(task));
  }
  wake_.notify_one();
}

void Worker::Stop() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  std::multimap<Clock::time_point, Task> timers;  // destroyed unlocked
  {
    MutexLock lock(mu_);
    timers.swap(timers_);
  }
}

void Worker::Run() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  std::unique_lock<Mutex> lock(mu_);
  for (;;) {
    const auto now = Clock::now();
    while (!stopping_ && !timers_.empty() && timers_.begin()->first <= now) {
      tasks_.push_back(std::move(timers_.begin()->second));
      timers_.erase(timers_.begin());
    }
    if (!tasks_.empty()) {
      Task task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      std::move(task)();
      task = nullptr;  // what it holds dies outside the lock
      lock.lock();
      continue;
    }
    if (stopping_) return;
    if (timers_.empty()) {
      wake_.wait(lock);
    } else {
      wake_.wait_until(lock, timers_.begin()->first);
    }
  }
}

}  // namespace netstack::server

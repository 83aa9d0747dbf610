#include "core/engine/process_search.h"

#include "core/platform/thread.h"

namespace netstack {

ProcessSearch::ProcessSearch(std::unique_ptr<ProcessFinder> finder,
                             Answer answer)
    : finder_(std::move(finder)), answer_(std::move(answer)) {
  thread_ = std::thread([this] {
    NameThisThread("owners");
    Run();
  });
}

ProcessSearch::~ProcessSearch() {
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

bool ProcessSearch::Start(uint64_t flow_id, const SocketOwner& owner) {
  {
    MutexLock lock(mu_);
    if (waiting_.size() >= kMaxWaiting) return false;
    waiting_.emplace_back(flow_id, owner);
  }
  wake_.notify_one();
  return true;
}

void ProcessSearch::Run() {
  for (;;) {
    std::pair<uint64_t, SocketOwner> next;
    {
      MutexLock lock(mu_);
      while (!stop_ && waiting_.empty()) wake_.wait(mu_);
      if (stop_) return;
      next = waiting_.front();
      waiting_.pop_front();
    }
    FlowOwner owner;
    owner.uid = next.second.uid;
    if (const auto process = finder_->Find(next.second)) {
      owner.pid = process->pid;
      owner.process = process->name;
    }
    answer_(next.first, owner);
  }
}

}  // namespace netstack

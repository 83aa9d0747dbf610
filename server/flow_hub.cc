#include "server/flow_hub.h"

#include <utility>

namespace netstack::server {

void FlowHub::OnFlow(FlowChange change, const FlowInfo& flow) {
  ++sequence_;
  for (Entry& e : watchers_) {
    if (auto watcher = e.watcher.lock()) {
      watcher->OnChange(sequence_, change, flow);
    }
  }
}

void FlowHub::Subscribe(Engine& engine, std::weak_ptr<FlowWatcher> watcher) {
  auto strong = watcher.lock();
  if (!strong) return;
  if (watchers_.empty()) engine.SetFlowChanges(true);
  watchers_.push_back({strong.get(), std::move(watcher)});
}

void FlowHub::Sweep(Engine& engine, const FlowWatcher* gone) {
  if (watchers_.empty()) return;
  std::erase_if(watchers_, [gone](const Entry& e) {
    return e.raw == gone || e.watcher.expired();
  });
  if (watchers_.empty()) engine.SetFlowChanges(false);
}

void FlowHub::EndRun(const absl::Status& why) {
  std::vector<Entry> watchers;
  watchers.swap(watchers_);
  sequence_ = 0;
  for (Entry& e : watchers) {
    if (auto watcher = e.watcher.lock()) watcher->OnStackEnd(why);
  }
}

}  // namespace netstack::server

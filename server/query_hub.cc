#include "server/query_hub.h"

#include <utility>

namespace netstack::server {

void QueryHub::OnQuery(const dns::DnsQueryInfo& query) {
  for (Entry& e : watchers_) {
    if (auto watcher = e.watcher.lock()) watcher->OnQuery(query);
  }
}

void QueryHub::Subscribe(Engine& engine, std::weak_ptr<QueryWatcher> watcher) {
  auto strong = watcher.lock();
  if (!strong) return;
  if (watchers_.empty()) engine.SetQueryLog(true);
  watchers_.push_back({strong.get(), std::move(watcher)});
}

void QueryHub::Sweep(Engine& engine, const QueryWatcher* gone) {
  if (watchers_.empty()) return;
  std::erase_if(watchers_, [gone](const Entry& e) {
    return e.raw == gone || e.watcher.expired();
  });
  if (watchers_.empty()) engine.SetQueryLog(false);
}

void QueryHub::EndRun(const absl::Status& why) {
  for (Entry& e : std::exchange(watchers_, {})) {
    if (auto watcher = e.watcher.lock()) watcher->OnStackEnd(why);
  }
}

}  // namespace netstack::server

// From the resolver's loop to those who watch queries.
//
// Like FlowHub: all but the constructor runs on the loop thread, or while there
// is none (between Runtime::Stop() and Runtime::Start()), so that there is no
// lock here.
#ifndef SERVER_QUERY_HUB_H_
#define SERVER_QUERY_HUB_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "core/dns/query_log.h"
#include "core/engine/engine.h"

namespace netstack::server {

class QueryWatcher {
 public:
  virtual ~QueryWatcher() = default;
  // Loop thread; must not block.
  virtual void OnQuery(const dns::DnsQueryInfo& query) = 0;
  // No more queries will come.
  virtual void OnStackEnd(const absl::Status& why) = 0;
};

class QueryHub {
 public:
  void OnQuery(const dns::DnsQueryInfo& query);
  void Subscribe(Engine& engine, std::weak_ptr<QueryWatcher> watcher);
  // Forgets watchers that are gone, `gone` among them.
  void Sweep(Engine& engine, const QueryWatcher* gone);
  // The run is over: ends every watcher.
  void EndRun(const absl::Status& why);

 private:
  struct Entry {
    const QueryWatcher* raw;
    std::weak_ptr<QueryWatcher> watcher;
  };
  std::vector<Entry> watchers_;
};

}  // namespace netstack::server

#endif  // SERVER_QUERY_HUB_H_

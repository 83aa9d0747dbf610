// From the core's loop to those who watch flows.
//
// Everything but the constructor runs on the loop thread, or while there is
// none (between Runtime::Stop() and Runtime::Start()), so that there is no
// lock here.
#ifndef SERVER_FLOW_HUB_H_
#define SERVER_FLOW_HUB_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "core/engine/engine.h"
#include "core/engine/observer.h"

namespace netstack::server {

class FlowWatcher {
 public:
  virtual ~FlowWatcher() = default;
  // Loop thread: a change of any flow. Must not block.
  virtual void OnChange(uint64_t sequence, FlowChange change,
                        const FlowInfo& flow) = 0;
  // No more changes will come.
  virtual void OnStackEnd(const absl::Status& why) = 0;
};

class FlowHub {
 public:
  void OnFlow(FlowChange change, const FlowInfo& flow);
  void Subscribe(Engine& engine, std::weak_ptr<FlowWatcher> watcher);
  // Forgets watchers that are gone, `gone` among them.
  void Sweep(Engine& engine, const FlowWatcher* gone);
  uint64_t sequence() const { return sequence_; }

  // The run is over: ends every watcher and starts counting anew.
  void EndRun(const absl::Status& why);

 private:
  struct Entry {
    const FlowWatcher* raw;
    std::weak_ptr<FlowWatcher> watcher;
  };
  std::vector<Entry> watchers_;
  uint64_t sequence_ = 0;  // of the latest change in this run
};

}  // namespace netstack::server

#endif  // SERVER_FLOW_HUB_H_

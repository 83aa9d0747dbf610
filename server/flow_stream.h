// One WatchFlows stream.
//
// How this works. The loop thread appends to the stream's queue, so that the
// queue has the loop's order: the subscription and the first page of the
// snapshot are taken in one task on the loop, further pages in one task each
// when the queue has been written out, and changes in between as they happen.
// `cursor_` is the last id that pages have covered; until the snapshot is
// complete, changes of flows behind it are left out, because a page to come
// will hold those flows as they are then. So a flow comes once in a page or
// once as OPENED.
//
// The queue is bounded. When it is full, changes are counted as lost until it
// is written out; then the count is told, and changes go on.
//
// With an interval, the counters of flows with traffic are fetched by the same
// pages ("a sweep"), only while nothing else waits: a slow client gets fewer.
#ifndef SERVER_FLOW_STREAM_H_
#define SERVER_FLOW_STREAM_H_

#include <chrono>
#include <deque>
#include <memory>
#include <vector>

#include "core/flow/flow_info.h"
#include "netstack/v1/flow_service.pb.h"
#include "server/flow_hub.h"
#include "server/stack.h"
#include "server/watch_stream.h"

namespace netstack::server {

class FlowStream final : public WatchStream<v1::WatchFlowsResponse>,
                         public FlowWatcher {
 public:
  // An interval of zero: no sweeps. `stack` outlives the stream.
  FlowStream(Watches* watches, grpc::CallbackServerContext* context,
             Stack* stack, FlowFilter filter, Duration interval);

  // Subscribes and takes the first page.
  void Begin();

  // FlowWatcher, on the loop thread (or after its end).
  void OnChange(uint64_t sequence, FlowChange change,
                const FlowInfo& flow) override;
  void OnStackEnd(const absl::Status& why) override;

 private:
  enum class Kind { kChange, kSnapshot, kCounters, kEndOfSnapshot };
  struct Item {
    Kind kind;
    uint64_t sequence;
    FlowChange change = FlowChange::kUpdated;
    std::vector<FlowInfo> flows;  // one for a change
  };
  enum class Phase { kSnapshot, kIdle, kSweep };

  bool Next(v1::WatchFlowsResponse* out) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnIdle() override;
  void OnEnded() override;

  void RequestPage();
  // Loop thread.
  void TakePage(Engine& engine, uint64_t sequence);
  void ScheduleSweep();
  std::shared_ptr<FlowStream> Self();

  Stack* const stack_;
  const FlowFilter filter_;         // of pages
  const FlowFilter change_filter_;  // the same without state and activity
  const Duration interval_;
  const size_t queue_limit_;

  std::deque<Item> queue_ ABSL_GUARDED_BY(mu_);
  Phase phase_ ABSL_GUARDED_BY(mu_) = Phase::kSnapshot;
  bool page_requested_ ABSL_GUARDED_BY(mu_) = false;
  bool snapshot_done_ ABSL_GUARDED_BY(mu_) = false;
  bool stack_ended_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t cursor_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t snapshot_flows_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t lost_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t sequence_ ABSL_GUARDED_BY(mu_) = 0;  // of the latest item written
  // A sweep tells flows with traffic since the start of the one before.
  using Clock = std::chrono::steady_clock;
  Clock::time_point sweep_from_ ABSL_GUARDED_BY(mu_);
  Clock::time_point last_sweep_ ABSL_GUARDED_BY(mu_) = Clock::now();
};

}  // namespace netstack::server

#endif  // SERVER_FLOW_STREAM_H_

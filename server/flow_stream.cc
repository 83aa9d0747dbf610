#include "server/flow_stream.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/convert.h"

namespace netstack::server {
namespace {

constexpr size_t kPage = 1000;   // flows per task on the loop
constexpr size_t kBatch = 256;   // changes per message

FlowFilter WithoutMoment(FlowFilter filter) {
  filter.state.reset();
  filter.active_within.reset();
  return filter;
}

}  // namespace

FlowStream::FlowStream(Watches* watches, grpc::CallbackServerContext* context,
                       Stack* stack, FlowFilter filter, Duration interval)
    : WatchStream(watches, context),
      stack_(stack),
      filter_(filter),
      change_filter_(WithoutMoment(filter)),
      interval_(interval),
      queue_limit_(watches->limits().watch_queue) {}

std::shared_ptr<FlowStream> FlowStream::Self() {
  return std::static_pointer_cast<FlowStream>(shared_from_this());
}

void FlowStream::Begin() {
  {
    MutexLock lock(mu_);
    page_requested_ = true;
  }
  // The closures own the stream weakly: the loop must not be what deletes it.
  std::weak_ptr<FlowStream> weak = Self();
  stack_->Ask(
      [weak](Engine& engine, FlowHub& hub) {
        if (auto self = weak.lock()) {
          hub.Subscribe(engine, self);
          self->TakePage(engine, hub.sequence());
        }
        return true;
      },
      [weak](absl::StatusOr<bool> asked, uint64_t epoch) {
        auto self = weak.lock();
        if (!self) return;
        if (!asked.ok()) return self->End(asked.status());
        {
          MutexLock lock(self->mu_);
          self->epoch_ = epoch;
        }
        self->Wake();
        if (self->interval_ == Duration::zero()) return;
        // The snapshot holds today's counters: the first sweep comes later.
        self->watches()->worker()->After(self->interval_, [weak] {
          if (auto later = weak.lock()) later->ScheduleSweep();
        });
      });
}

void FlowStream::OnChange(uint64_t sequence, FlowChange change,
                          const FlowInfo& flow) {
  if (!change_filter_.Matches(flow)) return;
  {
    MutexLock lock(mu_);
    if (!snapshot_done_ && flow.id > cursor_) return;
    if (lost_ > 0 || queue_.size() >= queue_limit_) {
      ++lost_;
      ++watches()->counters()->watch_losses;
      return;
    }
    queue_.push_back({Kind::kChange, sequence, change, {flow}});
  }
  Wake();
}

void FlowStream::OnStackEnd(const absl::Status& why) {
  {
    MutexLock lock(mu_);
    stack_ended_ = true;
  }
  End(why);
}

void FlowStream::RequestPage() {
  std::weak_ptr<FlowStream> weak = Self();
  stack_->Ask(
      [weak](Engine& engine, FlowHub& hub) {
        if (auto self = weak.lock()) self->TakePage(engine, hub.sequence());
        return true;
      },
      // Without a stack OnStackEnd() ends the stream.
      [](absl::StatusOr<bool>, uint64_t) {});
}

void FlowStream::TakePage(Engine& engine, uint64_t sequence) {
  FlowFilter filter = filter_;
  uint64_t after = 0;
  bool sweep = false;
  {
    MutexLock lock(mu_);
    after = cursor_;
    sweep = phase_ == Phase::kSweep;
    if (sweep) {
      const Duration since = std::chrono::steady_clock::now() - sweep_from_;
      filter.active_within =
          filter.active_within ? std::min(*filter.active_within, since) : since;
    }
  }
  std::vector<FlowInfo> flows = engine.ListFlows(filter, after, kPage);
  {
    MutexLock lock(mu_);
    page_requested_ = false;
    const size_t count = flows.size();
    if (count > 0) {
      cursor_ = flows.back().id;
      queue_.push_back({sweep ? Kind::kCounters : Kind::kSnapshot, sequence,
                        FlowChange::kUpdated, std::move(flows)});
    }
    if (!sweep) snapshot_flows_ += count;
    if (count < kPage) {
      phase_ = Phase::kIdle;
      if (!snapshot_done_) {
        snapshot_done_ = true;
        queue_.push_back(
            {Kind::kEndOfSnapshot, sequence, FlowChange::kUpdated, {}});
      }
    }
  }
  Wake();
}

void FlowStream::ScheduleSweep() {
  bool begin = false;
  {
    MutexLock lock(mu_);
    if (stack_ended_) return;
    begin = phase_ == Phase::kIdle && queue_.empty();
    if (begin) {
      phase_ = Phase::kSweep;
      cursor_ = 0;
      page_requested_ = true;
      sweep_from_ =
          std::exchange(last_sweep_, std::chrono::steady_clock::now());
    }
  }
  if (begin) RequestPage();
  watches()->worker()->After(interval_, [weak = std::weak_ptr(Self())] {
    if (auto self = weak.lock()) self->ScheduleSweep();
  });
}

bool FlowStream::Next(v1::WatchFlowsResponse* out) {
  // Begin()'s answer brings the epoch, before which nothing is written.
  if (epoch_ == 0) return false;
  out->set_epoch(epoch_);
  if (queue_.empty()) {
    if (lost_ == 0) return false;
    out->set_sequence(sequence_);
    out->mutable_loss()->set_changes(std::exchange(lost_, 0));
    return true;
  }
  for (size_t n = 0; n < kBatch && !queue_.empty(); ++n) {
    Item& item = queue_.front();
    if (item.kind != Kind::kChange && n > 0) break;
    sequence_ = item.sequence;
    switch (item.kind) {
      case Kind::kChange:
      case Kind::kCounters:
        for (const FlowInfo& flow : item.flows) {
          v1::FlowChange* change = out->mutable_changes()->add_changes();
          change->set_sequence(item.sequence);
          change->set_type(item.kind == Kind::kCounters
                               ? v1::FLOW_CHANGE_TYPE_COUNTERS
                               : ToProto(item.change));
          ToProto(flow, change->mutable_flow());
        }
        break;
      case Kind::kSnapshot:
        for (const FlowInfo& flow : item.flows) {
          ToProto(flow, out->mutable_snapshot()->add_flows());
        }
        break;
      case Kind::kEndOfSnapshot:
        out->mutable_end_of_snapshot()->set_flows(snapshot_flows_);
        break;
    }
    const bool alone = item.kind != Kind::kChange;
    queue_.pop_front();
    if (alone) break;
  }
  out->set_sequence(sequence_);
  return true;
}

void FlowStream::OnIdle() {
  {
    MutexLock lock(mu_);
    if (phase_ == Phase::kIdle || page_requested_ || epoch_ == 0) return;
    page_requested_ = true;
  }
  RequestPage();
}

void FlowStream::OnEnded() {
  stack_->Ask(
      [gone = static_cast<const FlowWatcher*>(this)](Engine& engine,
                                                     FlowHub& hub) {
        hub.Sweep(engine, gone);
        return true;
      },
      [](absl::StatusOr<bool>, uint64_t) {});
}

}  // namespace netstack::server

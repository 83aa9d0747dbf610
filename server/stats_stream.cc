#include "server/stats_stream.h"

#include <algorithm>
#include <utility>

#include "server/convert.h"

namespace netstack::server {

void ReadStats(Stack* stack, const ControlCounters& counters,
               absl::AnyInvocable<void(StatsReading)> done) {
  stack->Ask([](Engine& engine, FlowHub&) { return engine.GetStats(); },
             [&counters, done = std::move(done)](absl::StatusOr<Stats> stats,
                                                 uint64_t epoch) mutable {
               StatsReading out;
               if (stats.ok()) {
                 ToProto(*stats, &out.stats);
                 out.epoch = epoch;
               }
               counters.Fill(out.stats.mutable_control());
               out.time = Now();
               done(std::move(out));
             });
}

void StatsStream::Begin() { Read(std::chrono::steady_clock::now()); }

void StatsStream::Read(std::chrono::steady_clock::time_point due) {
  auto weak = std::weak_ptr(
      std::static_pointer_cast<StatsStream>(shared_from_this()));
  ReadStats(stack_, *watches()->counters(),
            [weak, due](StatsReading reading) {
              auto self = weak.lock();
              if (!self) return;
              {
                MutexLock lock(self->mu_);
                self->latest_ = std::move(reading);
              }
              self->Wake();
              // By the plan and not by the answer, so that the pace holds.
              const auto now = std::chrono::steady_clock::now();
              const auto next = std::max(due + self->interval_, now);
              self->watches()->worker()->After(next - now, [weak, next] {
                if (auto later = weak.lock()) later->Read(next);
              });
            });
}

bool StatsStream::Next(v1::WatchStatsResponse* out) {
  if (!latest_) return false;
  out->mutable_stats()->Swap(&latest_->stats);
  out->set_epoch(latest_->epoch);
  *out->mutable_time() = latest_->time;
  latest_.reset();
  return true;
}

}  // namespace netstack::server

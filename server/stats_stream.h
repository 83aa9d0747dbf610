// Reading all counters, and one WatchStats stream.
#ifndef SERVER_STATS_STREAM_H_
#define SERVER_STATS_STREAM_H_

#include <optional>

#include "absl/functional/any_invocable.h"
#include "netstack/v1/netstack_service.pb.h"
#include "server/stack.h"
#include "server/watch_stream.h"

namespace netstack::server {

struct StatsReading {
  v1::Stats stats;
  uint64_t epoch = 0;  // 0: no stack runs, only stats.control is set
  google::protobuf::Timestamp time;
};

// `done` runs on the worker.
void ReadStats(Stack* stack, const ControlCounters& counters,
               absl::AnyInvocable<void(StatsReading)> done);

// Keeps the newest reading only: a slow client misses readings. The next one
// is asked for when the last one was answered, so that they never pile up.
class StatsStream final : public WatchStream<v1::WatchStatsResponse> {
 public:
  // `stack` outlives the stream.
  StatsStream(Watches* watches, grpc::CallbackServerContext* context,
              Stack* stack, Duration interval)
      : WatchStream(watches, context), stack_(stack), interval_(interval) {}
  void Begin();

 private:
  bool Next(v1::WatchStatsResponse* out) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Read(std::chrono::steady_clock::time_point due);

  Stack* const stack_;
  const Duration interval_;
  std::optional<StatsReading> latest_ ABSL_GUARDED_BY(mu_);
};

}  // namespace netstack::server

#endif  // SERVER_STATS_STREAM_H_

// One WatchEvents stream: a position in the event log.
#ifndef SERVER_EVENT_STREAM_H_
#define SERVER_EVENT_STREAM_H_

#include <optional>

#include "netstack/v1/netstack_service.pb.h"
#include "server/event_log.h"
#include "server/watch_stream.h"

namespace netstack::server {

class EventStream final : public WatchStream<v1::WatchEventsResponse> {
 public:
  // `log` outlives the stream.
  EventStream(Watches* watches, grpc::CallbackServerContext* context,
              EventLog* log, std::optional<uint64_t> after);
  void Begin();

 private:
  bool Next(v1::WatchEventsResponse* out) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnEnded() override { log_->Unsubscribe(this); }

  EventLog* const log_;
  const uint64_t replay_until_;
  uint64_t position_ ABSL_GUARDED_BY(mu_);
  bool replayed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace netstack::server

#endif  // SERVER_EVENT_STREAM_H_

#include "server/event_stream.h"

#include <algorithm>
#include <utility>

namespace netstack::server {

EventStream::EventStream(Watches* watches,
                         grpc::CallbackServerContext* context, EventLog* log,
                         std::optional<uint64_t> after)
    : WatchStream(watches, context),
      log_(log),
      replay_until_(log->newest()),
      // An event may come between the two; it is then told as new.
      position_(std::min(log->StartAfter(after), replay_until_)) {}

void EventStream::Begin() {
  log_->Subscribe(this, [this] { Wake(); });
  Wake();
}

bool EventStream::Next(v1::WatchEventsResponse* out) {
  if (!replayed_ && position_ >= replay_until_) {
    replayed_ = true;
    out->mutable_end_of_replay()->set_sequence(replay_until_);
    return true;
  }
  EventLog::Read read = log_->After(position_);
  if (read.lost > 0) {
    position_ += read.lost;
    // What nobody waited for while it was kept is no loss of this stream's.
    if (replayed_) watches()->counters()->watch_losses += read.lost;
    out->mutable_loss()->set_events(read.lost);
    return true;
  }
  if (!read.event) return false;
  position_ = read.event->sequence();
  *out->mutable_event() = *std::move(read.event);
  return true;
}

}  // namespace netstack::server

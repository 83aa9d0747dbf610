#include "server/event_log.h"

#include <algorithm>
#include <utility>

#include "server/convert.h"
#include "spdlog/spdlog.h"

namespace netstack::server {
namespace {

spdlog::level::level_enum Level(v1::EventType type) {
  switch (type) {
    case v1::EVENT_TYPE_STACK_STARTED:
    case v1::EVENT_TYPE_STACK_STOPPED:
    case v1::EVENT_TYPE_CONFIG_CHANGED:
    case v1::EVENT_TYPE_OFFLOAD_UNAVAILABLE:
      return spdlog::level::info;
    case v1::EVENT_TYPE_STACK_FAILED:
    case v1::EVENT_TYPE_CONFIG_REFUSED:
      return spdlog::level::err;
    default:
      return spdlog::level::warn;
  }
}

}  // namespace

void EventLog::Add(v1::EventType type, std::string message,
                   uint64_t flow_id) {
  spdlog::log(Level(type), "{}: {}", v1::EventType_Name(type).substr(11),
              message);
  v1::Event event;
  *event.mutable_time() = Now();
  event.set_type(type);
  event.set_message(std::move(message));
  if (flow_id != 0) event.set_flow_id(flow_id);
  MutexLock lock(mu_);
  event.set_sequence(next_++);
  event.set_epoch(epoch_);
  kept_.push_back(std::move(event));
  if (kept_.size() > kKept) kept_.pop_front();
  for (auto& [key, changed] : watchers_) changed();
}

void EventLog::SetEpoch(uint64_t epoch) {
  MutexLock lock(mu_);
  epoch_ = epoch;
}

uint64_t EventLog::newest() const {
  MutexLock lock(mu_);
  return next_ - 1;
}

uint64_t EventLog::StartAfter(std::optional<uint64_t> after_sequence) const {
  MutexLock lock(mu_);
  if (after_sequence && *after_sequence < next_) return *after_sequence;
  return next_ - 1 - std::min(kReplayed, kept_.size());
}

EventLog::Read EventLog::After(uint64_t sequence) const {
  MutexLock lock(mu_);
  Read out;
  if (kept_.empty() || sequence >= next_ - 1) return out;
  const uint64_t oldest = kept_.front().sequence();
  if (sequence + 1 < oldest) {
    out.lost = oldest - sequence - 1;
    sequence = oldest - 1;
  }
  out.event = kept_[sequence + 1 - oldest];
  return out;
}

void EventLog::Subscribe(const void* key, std::function<void()> changed) {
  MutexLock lock(mu_);
  watchers_[key] = std::move(changed);
}

void EventLog::Unsubscribe(const void* key) {
  MutexLock lock(mu_);
  watchers_.erase(key);
}

}  // namespace netstack::server

#include "server/watch_stream.h"

#include <vector>

#include "absl/strings/str_cat.h"

namespace netstack::server {

void Watches::SetLimits(const ControlConfig& limits) {
  MutexLock lock(mu_);
  limits_ = limits;
}

ControlConfig Watches::limits() const {
  MutexLock lock(mu_);
  return limits_;
}

absl::Status Watches::Admit(const std::shared_ptr<Watch>& watch) {
  MutexLock lock(mu_);
  if (shut_down_) return ShuttingDown();
  if (open_.size() >= limits_.max_watchers) {
    ++counters_->watchers_refused;
    return Refusal(absl::StatusCode::kResourceExhausted, "TOO_MANY_WATCHERS",
                   absl::StrCat("There are ", open_.size(),
                                " watch streams, and control.max_watchers "
                                "allows no more."));
  }
  open_.emplace(watch.get(), watch);
  counters_->watchers = static_cast<uint32_t>(open_.size());
  return absl::OkStatus();
}

void Watches::Remove(Watch* watch) {
  MutexLock lock(mu_);
  open_.erase(watch);
  counters_->watchers = static_cast<uint32_t>(open_.size());
}

void Watches::Shutdown() {
  std::vector<std::shared_ptr<Watch>> open;
  {
    MutexLock lock(mu_);
    shut_down_ = true;
    for (auto& [raw, weak] : open_) {
      if (auto watch = weak.lock()) open.push_back(std::move(watch));
    }
  }
  for (auto& watch : open) watch->End(ShuttingDown());
}

}  // namespace netstack::server

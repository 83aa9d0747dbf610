#include "server/query_stream.h"

#include <utility>

#include "absl/strings/match.h"
#include "server/convert.h"

namespace netstack::server {
namespace {

constexpr size_t kQueriesPerMessage = 256;  // queries per message

}  // namespace

bool QueryFilter::Matches(const dns::DnsQueryInfo& query) const {
  if (app && !app->Contains(query.app.ip)) return false;
  if (only_filtered && query.verdict == dns::DnsVerdict::kResolved) {
    return false;
  }
  if (name_suffix.empty() || query.name == name_suffix) return true;
  return query.name.size() > name_suffix.size() &&
         query.name[query.name.size() - name_suffix.size() - 1] == '.' &&
         absl::EndsWith(query.name, name_suffix);
}

QueryStream::QueryStream(Watches* watches, grpc::CallbackServerContext* context,
                         Stack* stack, QueryFilter filter)
    : WatchStream(watches, context),
      stack_(stack),
      filter_(std::move(filter)),
      queue_limit_(watches->limits().watch_queue) {}

void QueryStream::Begin() {
  // The closures own the stream weakly: the loop must not be what deletes it.
  const std::weak_ptr<QueryStream> weak =
      std::static_pointer_cast<QueryStream>(shared_from_this());
  stack_->Ask(
      [weak, stack = stack_](Engine& engine, FlowHub&) {
        if (auto self = weak.lock()) {
          stack->query_hub().Subscribe(engine, self);
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
      });
}

void QueryStream::OnQuery(const dns::DnsQueryInfo& query) {
  if (!filter_.Matches(query)) return;
  {
    MutexLock lock(mu_);
    if (lost_ > 0 || queue_.size() >= queue_limit_) {
      ++lost_;
      ++watches()->counters()->watch_losses;
      return;
    }
    ToProto(query, &queue_.emplace_back());
  }
  Wake();
}

bool QueryStream::Next(v1::WatchQueriesResponse* out) {
  // Begin()'s answer brings the epoch, before which nothing is written.
  if (epoch_ == 0) return false;
  out->set_epoch(epoch_);
  if (queue_.empty()) {
    if (lost_ == 0) return false;
    out->set_lost(std::exchange(lost_, 0));
    return true;
  }
  for (size_t n = 0; n < kQueriesPerMessage && !queue_.empty(); ++n) {
    *out->add_queries() = std::move(queue_.front());
    queue_.pop_front();
  }
  return true;
}

void QueryStream::OnEnded() {
  stack_->Ask(
      [gone = static_cast<const QueryWatcher*>(this), stack = stack_](
          Engine& engine, FlowHub&) {
        stack->query_hub().Sweep(engine, gone);
        return true;
      },
      [](absl::StatusOr<bool>, uint64_t) {});
}

}  // namespace netstack::server

// A watch stream: what WatchStats, WatchEvents and WatchFlows have in common.
//
// How this works. A source (any thread, the core's loop too) puts what it has
// into the stream's own bounded state under `mu_` and calls Wake(), which only
// posts to the worker: no gRPC code runs on the source's thread. The worker
// then pumps: it asks the stream for its Next() message and writes it. One
// write is outstanding at a time; while it is, what comes waits in the
// stream's state, or is conflated or counted as loss there. A write that is
// not done within the stall timeout means that the client takes nothing: the
// call is cancelled with RESOURCE_EXHAUSTED.
//
//   state        write out?  what may happen
//   open         no          Next() is asked -> write, or idle
//   open         yes         done -> ask again; stalled -> aborted
//   ending       either      what waits is still written, then Finish
//   aborted      yes         wait for the write's end, which comes at once
//   finished     no          Finish() was called; OnDone() deletes
//
// Ending a stalled stream goes through grpc_call_cancel_with_status: Finish()
// would queue its trailers behind the data that flow control holds back, and
// TryCancel() cannot carry our status.
#ifndef SERVER_WATCH_STREAM_H_
#define SERVER_WATCH_STREAM_H_

#include <grpc/grpc.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "core/base/mutex.h"
#include "server/config_convert.h"
#include "server/control_counters.h"
#include "server/errors.h"
#include "server/worker.h"

namespace netstack::server {

class Watch {
 public:
  virtual ~Watch() = default;
  // What waits is still sent, then the stream ends. Any thread.
  virtual void End(const absl::Status& why) = 0;
};

// All watch streams of the service: their cap, and their end at shutdown.
class Watches {
 public:
  // Both outlive the Watches and every stream.
  Watches(Worker* worker, ControlCounters* counters)
      : worker_(worker), counters_(counters) {}

  void SetLimits(const ControlConfig& limits);
  ControlConfig limits() const;

  // TOO_MANY_WATCHERS or SHUTTING_DOWN.
  absl::Status Admit(const std::shared_ptr<Watch>& watch);
  void Remove(Watch* watch);

  // Ends every stream and refuses new ones.
  void Shutdown();

  Worker* worker() const { return worker_; }
  ControlCounters* counters() const { return counters_; }

 private:
  Worker* const worker_;
  ControlCounters* const counters_;
  mutable Mutex mu_;
  ControlConfig limits_ ABSL_GUARDED_BY(mu_);
  std::map<Watch*, std::weak_ptr<Watch>> open_ ABSL_GUARDED_BY(mu_);
  bool shut_down_ ABSL_GUARDED_BY(mu_) = false;
};

template <typename Response>
class WatchStream : public grpc::ServerWriteReactor<Response>,
                    public Watch,
                    public std::enable_shared_from_this<WatchStream<Response>> {
 public:
  void End(const absl::Status& why) override {
    {
      MutexLock lock(mu_);
      if (!end_) end_ = why;
    }
    Wake();
  }

 protected:
  WatchStream(Watches* watches, grpc::CallbackServerContext* context)
      : watches_(watches),
        context_(context),
        stall_timeout_(watches->limits().stall_timeout) {}

  // The next message, or false when nothing waits.
  virtual bool Next(Response* out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  // Nothing waits and no write is out: the time to fetch more. Worker or a
  // gRPC thread.
  virtual void OnIdle() {}
  // The stream is over: unsubscribe. A gRPC thread; deleted afterwards.
  virtual void OnEnded() {}

  // Something waits, perhaps. Any thread, any lock held; cheap.
  void Wake() {
    if (wake_posted_.exchange(true)) return;
    watches_->worker()->Post([weak = this->weak_from_this()] {
      auto self = weak.lock();
      if (!self) return;
      self->wake_posted_ = false;
      self->Pump();
    });
  }

  Watches* watches() const { return watches_; }

  Mutex mu_;

 private:
  template <typename R, typename S, typename... Args>
  friend grpc::ServerWriteReactor<R>* Launch(Watches*,
                                             grpc::CallbackServerContext*,
                                             Args&&...);
  using Clock = std::chrono::steady_clock;

  void OnWriteDone(bool ok) final {
    {
      MutexLock lock(mu_);
      writing_ = false;
      if (!ok) Abort(absl::CancelledError("the call is gone"));
    }
    Pump();
  }

  void OnCancel() final {
    {
      MutexLock lock(mu_);
      Abort(absl::CancelledError("cancelled by the caller"));
    }
    Pump();
  }

  void OnDone() final {
    watches_->Remove(this);
    OnEnded();
    std::shared_ptr<WatchStream> last = std::move(self_);
  }

  void Abort(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!aborted_) end_ = why;
    aborted_ = true;
  }

  void Pump() {
    // Finish() below may let OnDone() run at once on another thread.
    std::shared_ptr<WatchStream> keep = this->shared_from_this();
    mu_.Lock();
    if (writing_ || finished_ || cancelling_) {
      mu_.Unlock();
      return;
    }
    if (!aborted_) {
      message_.Clear();
      if (Next(&message_)) {
        writing_ = true;
        write_since_ = Clock::now();
        ArmStallCheck(stall_timeout_);
        mu_.Unlock();
        this->StartWrite(&message_);
        return;
      }
    }
    if (end_) {
      finished_ = true;
      const absl::Status end = *end_;
      mu_.Unlock();
      this->Finish(ToGrpc(end));
      return;
    }
    mu_.Unlock();
    OnIdle();
  }

  // At most one check is under way, so that busy streams cost one timer per
  // timeout and idle ones none.
  void ArmStallCheck(std::chrono::nanoseconds delay)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (stall_armed_) return;
    stall_armed_ = true;
    watches_->worker()->After(delay, [weak = this->weak_from_this()] {
      if (auto self = weak.lock()) self->CheckStall();
    });
  }

  void CheckStall() {
    {
      MutexLock lock(mu_);
      stall_armed_ = false;
      if (!writing_ || aborted_) return;
      const auto waited = Clock::now() - write_since_;
      if (waited < stall_timeout_) {
        ArmStallCheck(stall_timeout_ - waited);
        return;
      }
      Abort(Refusal(absl::StatusCode::kResourceExhausted, "WATCHER_STALLED",
                    kStalled));
      cancelling_ = true;  // keeps the call alive until we are through
    }
    ++watches_->counters()->watchers_stalled;
    grpc_call_cancel_with_status(context_->c_call(),
                                 GRPC_STATUS_RESOURCE_EXHAUSTED, kStalled,
                                 nullptr);
    {
      MutexLock lock(mu_);
      cancelling_ = false;
    }
    Pump();
  }

  static constexpr char kStalled[] =
      "The caller took nothing for control.stall_timeout.";

  Watches* const watches_;
  grpc::CallbackServerContext* const context_;  // gRPC's, until OnDone
  const Duration stall_timeout_;
  std::shared_ptr<WatchStream> self_;  // from Launch() to OnDone()
  Response message_;                   // in use while writing_
  std::atomic<bool> wake_posted_{false};
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool stall_armed_ ABSL_GUARDED_BY(mu_) = false;
  bool aborted_ ABSL_GUARDED_BY(mu_) = false;
  bool cancelling_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  Clock::time_point write_since_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mu_);
};

// A stream that is refused from the start.
template <typename Response>
class RefusedStream final : public grpc::ServerWriteReactor<Response> {
 public:
  explicit RefusedStream(const absl::Status& why) {
    this->Finish(ToGrpc(why));
  }
  void OnDone() override { delete this; }
};

// Makes stream S(watches, context, args...), admits it and calls its Begin().
template <typename R, typename S, typename... Args>
grpc::ServerWriteReactor<R>* Launch(Watches* watches,
                                    grpc::CallbackServerContext* context,
                                    Args&&... args) {
  auto stream =
      std::make_shared<S>(watches, context, std::forward<Args>(args)...);
  absl::Status admitted = watches->Admit(stream);
  if (!admitted.ok()) return new RefusedStream<R>(admitted);
  stream->self_ = stream;
  stream->Begin();
  return stream.get();
}

}  // namespace netstack::server

#endif  // SERVER_WATCH_STREAM_H_

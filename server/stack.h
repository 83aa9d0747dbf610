// The supervisor: owns the Runtime, the config with its revision, and the
// stack's state.
//
// How this works. Whatever changes something (start, stop, config, the end of
// the engine by itself) is a task on the supervisor's own thread, one after
// the other, so that there is no state "a start is under way" to refuse in:
// a Stop that comes during a Start waits for it. Reading (status, config) only
// takes the mutex. Questions to the engine are posted to its loop and answered
// on the worker; nothing of gRPC's is ever blocked.
//
//   STOPPED   Start -> STARTING            Stop -> STOPPED (no effect)
//   STARTING  the engine came up -> RUNNING, refused -> FAILED
//   RUNNING   Stop -> STOPPING -> STOPPED  the engine ended -> FAILED
//   FAILED    Start -> STARTING            Stop -> STOPPED
#ifndef SERVER_STACK_H_
#define SERVER_STACK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/mutex.h"
#include "core/engine/engine.h"
#include "core/engine/observer.h"
#include "core/engine/runtime.h"
#include "netstack/v1/netstack_service.pb.h"
#include "server/config_convert.h"
#include "server/control_d.h"
#include "server/errors.h"
#include "server/event_log.h"
#include "server/flow_hub.h"
#include "server/pin_guard.h"
#include "server/query_hub.h"
#include "server/worker.h"

namespace netstack::server {

class Stack final : public Observer {
 public:
  // Makes the engine: Runtime::Start, or a test's script of its failures.
  using Factory = std::function<absl::StatusOr<std::unique_ptr<Runtime>>(
      const Config&, Observer*)>;
  template <typename T>
  using Done = absl::AnyInvocable<void(T)>;

  // `events` and `worker` outlive the Stack. `control_changed` is called on
  // the supervisor's thread when control settings changed.
  Stack(CheckedConfig config, Factory factory, EventLog* events,
        Worker* worker,
        std::function<void(const CheckedConfig&)> control_changed);
  // Stops.
  ~Stack() override;

  // Any thread; `done` runs on the supervisor's thread, and must not wait for
  // it.
  void Start(v1::StartRequest request, Done<absl::Status> done);
  void ReplaceTun(v1::ReplaceTunRequest request, Done<absl::Status> done);
  // True when something was stopped. Refusals: PIN_REQUIRED and the like.
  void Stop(v1::StopRequest request, Done<absl::StatusOr<bool>> done);
  // Reads the blocklists again; LIST_REFUSED when that fails.
  void ReloadLists(Done<absl::StatusOr<std::vector<DnsListInfo>>> done);
  void Update(v1::UpdateConfigRequest request,
              Done<absl::StatusOr<v1::UpdateConfigResponse>> done);

  // Where handed-over descriptors come from; before the first Start().
  // `take` gives the descriptor of a nonce, `forget` says that the app which
  // brought the one in use need not be watched any more. `embedded`: numbers
  // of descriptors are taken too (TunHandle.fd).
  struct Descriptors {
    std::string socket;  // its path, for people
    std::function<absl::StatusOr<int>(const std::string& nonce)> take;
    std::function<void()> forget;
    bool embedded = false;
  };
  void SetDescriptors(Descriptors descriptors);

  // Any thread. The app that owns the TUN is gone without a goodbye: told by
  // an event, then app.on_death is carried out. `how` is a sentence.
  void OwnerGone(std::string how);
  // An app that owns the TUN is there (again): its end will be told.
  void OwnerIsBack();
  // Who is asked for owners of flows (owners.source is the app), on the loop
  // thread; before the first Start().
  void SetOwnerSearch(
      std::function<void(uint64_t flow_id, const FlowKey& key)> search) {
    owner_search_ = std::move(search);
  }

  // Any thread.
  v1::StackStatus GetStatus() const;
  v1::GetConfigResponse GetConfig() const;

  // Any thread. Runs `R ask(Engine&, FlowHub&)` on the loop and
  // `done(absl::StatusOr<R>, epoch)` on the worker; STACK_NOT_RUNNING (also
  // when the stack stops before the answer).
  template <typename F, typename D>
  void Ask(F ask, D done);

  // Ends the stack and the supervisor's thread. Idempotent.
  void Shutdown();

  // Observer: the loop thread.
  void OnFlow(FlowChange change, const FlowInfo& flow) override;
  void OnEvent(const Event& event) override;
  void OnOwnerWanted(uint64_t flow_id, const FlowKey& key) override;
  void OnFailed(const absl::Status& why) override;
  void OnDnsQuery(const dns::DnsQueryInfo& query) override;

  // For closures that Ask() runs on the loop; see its file.
  QueryHub& query_hub() { return query_hub_; }

 private:
  struct Run {
    // Null: none. Taken out before it is stopped, which only the supervisor's
    // thread does, so that what it finds here lives until its task ends.
    std::unique_ptr<Runtime> runtime;
    uint64_t epoch = 0;  // of this or the last run
  };
  // Answers exactly once, also when it is destroyed unasked.
  template <typename R>
  class Ticket;

  Config EngineConfig(const CheckedConfig& config) const;
  Engine::KnownAddresses TakeKnownAddresses();
  void ControlDChanged();
  void LoadLists(Runtime& runtime, const Config& config);
  void StartNow(const v1::StartRequest& request, Done<absl::Status> done);
  absl::Status ReplaceNow(const v1::ReplaceTunRequest& request);
  void OwnerGoneNow(uint64_t epoch, const std::string& how);
  // Fills in `fd`, which is the caller's, `mtu` and `ask_mtu`.
  absl::Status TakeDescriptor(const v1::TunHandle& handle, TunConfig* tun);
  bool StopNow(v1::StackState then, const std::string& failure);
  void FailedNow(uint64_t epoch, const absl::Status& why);
  absl::StatusOr<v1::UpdateConfigResponse> UpdateNow(
      const v1::UpdateConfigRequest& request);

  std::vector<std::string> PendingRestart() const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Factory factory_;
  EventLog* const events_;
  Worker* const worker_;
  const std::function<void(const CheckedConfig&)> control_changed_;
  std::function<void(uint64_t, const FlowKey&)> owner_search_;
  const std::chrono::steady_clock::time_point service_start_ =
      std::chrono::steady_clock::now();
  const google::protobuf::Timestamp service_started_at_;

  FlowHub hub_;  // see its file for who may touch it
  QueryHub query_hub_;

  mutable Mutex mu_;
  Descriptors descriptors_ ABSL_GUARDED_BY(mu_);
  bool owner_gone_ ABSL_GUARDED_BY(mu_) = false;  // told already
  CheckedConfig config_ ABSL_GUARDED_BY(mu_);
  uint64_t revision_ ABSL_GUARDED_BY(mu_) = 1;
  v1::StackState state_ ABSL_GUARDED_BY(mu_) = v1::STACK_STATE_STOPPED;
  std::string failure_ ABSL_GUARDED_BY(mu_);
  Run run_ ABSL_GUARDED_BY(mu_);
  EngineInfo info_ ABSL_GUARDED_BY(mu_);
  Config started_with_ ABSL_GUARDED_BY(mu_);
  ControlDConfig started_control_d_ ABSL_GUARDED_BY(mu_);
  std::chrono::steady_clock::time_point stack_start_ ABSL_GUARDED_BY(mu_);
  google::protobuf::Timestamp stack_started_at_ ABSL_GUARDED_BY(mu_);

  PinGuard pin_guard_;  // the supervisor's
  // Of the stack before: what DNS answered, and when that was told. The
  // supervisor's.
  Engine::KnownAddresses known_addresses_;
  std::chrono::steady_clock::time_point known_at_{};

  // Last: their tasks use everything above. Control D's posts to the
  // supervisor's.
  Worker supervisor_;
  ControlD control_d_;
};

template <typename R>
class Stack::Ticket {
 public:
  using Answer = absl::AnyInvocable<void(absl::StatusOr<R>, uint64_t)>;

  Ticket(Worker* worker, uint64_t epoch, Answer answer)
      : worker_(worker), epoch_(epoch), answer_(std::move(answer)) {}
  Ticket(Ticket&& other) noexcept
      : worker_(other.worker_),
        epoch_(other.epoch_),
        answer_(std::exchange(other.answer_, nullptr)) {}
  Ticket& operator=(Ticket&&) = delete;
  ~Ticket() { Give(StackNotRunning()); }

  void Give(absl::StatusOr<R> value) {
    if (!answer_) return;
    worker_->Post([answer = std::exchange(answer_, nullptr),
                   value = std::move(value), epoch = epoch_]() mutable {
      answer(std::move(value), epoch);
    });
  }

 private:
  Worker* worker_;
  uint64_t epoch_;
  Answer answer_;
};

template <typename F, typename D>
void Stack::Ask(F ask, D done) {
  using R = std::invoke_result_t<F, Engine&, FlowHub&>;
  MutexLock lock(mu_);
  Ticket<R> ticket(worker_, run_.epoch, std::move(done));
  if (!run_.runtime) return;
  // Under the lock, so that the Runtime is not stopped meanwhile.
  run_.runtime->Post(
      [this, ask = std::move(ask), ticket = std::move(ticket)](
          Engine& engine) mutable { ticket.Give(ask(engine, hub_)); });
}

}  // namespace netstack::server

#endif  // SERVER_STACK_H_

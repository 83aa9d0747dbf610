// The attached apps: AppService.Attach.
//
// How this works. An AppStream is one app's stream. What it says is checked on
// gRPC's thread and passed on to the stack, which never makes it wait; what
// the service says to it waits in a bounded queue, one write at a time. The
// AppHub knows the streams. It asks the last one that answers owners whose a
// flow is (the query's id is the flow's), and turns the service's events into
// what apps are told, by watching the EventLog as WatchEvents does.
//
//   stream      what may happen
//   new         the first message: hello -> attached, else refused
//   attached    everything; goodbye is remembered
//   ending      what waits is written, then Finish()
//   finished    OnDone(): the hub forgets it; without a goodbye the app is dead
#ifndef SERVER_APP_HUB_H_
#define SERVER_APP_HUB_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/base/mutex.h"
#include "core/engine/engine.h"
#include "core/flow/flow_key.h"
#include "netstack/v1/app_service.grpc.pb.h"
#include "server/control_counters.h"
#include "server/event_log.h"
#include "server/stack.h"
#include "server/worker.h"

namespace netstack::server {

class AppHub;

class AppStream final
    : public grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>,
      public std::enable_shared_from_this<AppStream> {
 public:
  // Messages to an app that takes nothing; beyond, they are dropped and
  // counted (AttachLoss).
  static constexpr size_t kQueue = 1024;

  AppStream(AppHub* hub, uint64_t id) : hub_(hub), id_(id) {}

  // Keeps itself alive until OnDone().
  void Begin();
  // Any thread.
  void Send(v1::AttachResponse message);
  void End(const absl::Status& why);

  uint64_t id() const { return id_; }
  // Only after hello; never changes then.
  const v1::AppHello& hello() const { return hello_; }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  absl::Status Handle();
  absl::Status HandleHello(const v1::AppHello& hello);
  absl::Status HandleNetwork(const v1::NetworkChanged& changed);
  void HandlePower(const v1::PowerChanged& changed);
  void HandleOwner(const v1::OwnerAnswer& answer);
  void Pump();

  AppHub* const hub_;
  const uint64_t id_;
  v1::AttachRequest in_;    // of the one read
  v1::AttachResponse out_;  // of the one write
  v1::AppHello hello_;
  std::shared_ptr<AppStream> self_;

  Mutex mu_;
  bool attached_ ABSL_GUARDED_BY(mu_) = false;
  bool goodbye_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_by_us_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mu_);
  std::deque<v1::AttachResponse> queue_ ABSL_GUARDED_BY(mu_);
  uint64_t lost_ ABSL_GUARDED_BY(mu_) = 0;
};

class AppHub {
 public:
  static constexpr size_t kMaxApps = 8;

  // All outlive the hub.
  AppHub(Stack* stack, EventLog* events, ControlCounters* counters,
         Worker* worker);
  ~AppHub();

  // The reactor of a new stream.
  grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>* Attach();

  // The loop thread: whose is this flow? Answered by Engine::SetOwner().
  void OnOwnerWanted(uint64_t flow_id, const FlowKey& key);

  // Says why, and ends every stream; new ones are refused.
  void Shutdown();

 private:
  friend class AppStream;

  // What streams tell; gRPC's threads.
  absl::Status Attached(const std::shared_ptr<AppStream>& app);
  void Gone(AppStream* app, bool attached, bool goodbye, bool by_us);
  void Network(const std::shared_ptr<AppStream>& app,
               const NetworkChange& change);
  void Power(const v1::PowerChanged& changed);
  void Owner(uint64_t flow_id, const FlowOwner& owner);

  void FollowEvents();  // worker
  void Tell(const v1::AttachResponse& message);
  void ApplyAgain();

  Stack* const stack_;
  EventLog* const events_;
  ControlCounters* const counters_;
  Worker* const worker_;

  Mutex mu_;
  std::map<uint64_t, std::shared_ptr<AppStream>> apps_ ABSL_GUARDED_BY(mu_);
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  bool shut_down_ ABSL_GUARDED_BY(mu_) = false;
  bool doze_ ABSL_GUARDED_BY(mu_) = false;
  bool battery_saver_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<NetworkChange> network_ ABSL_GUARDED_BY(mu_);  // the last
  uint64_t seen_ = 0;  // of the events; worker
  // Flows whose app is asked for wait here for the worker.
  std::shared_ptr<std::atomic<bool>> alive_ =
      std::make_shared<std::atomic<bool>>(true);
};

class AppServiceImpl final : public v1::AppService::CallbackService {
 public:
  // The hub outlives the service.
  explicit AppServiceImpl(AppHub* hub) : hub_(hub) {}

  grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>* Attach(
      grpc::CallbackServerContext*) override {
    return hub_->Attach();
  }

 private:
  AppHub* const hub_;
};

}  // namespace netstack::server

#endif  // SERVER_APP_HUB_H_

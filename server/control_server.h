// The whole control plane but for the process around it: the supervisor, the
// services, gRPC with its limits, and the listener. Tests run this one.
//
//   auto server = ControlServer::Start(options);
//   if (!server.ok()) ...            // one clear sentence
//   (*server)->Start();              // --autostart
//   (*server)->Shutdown(5s);
#ifndef SERVER_CONTROL_SERVER_H_
#define SERVER_CONTROL_SERVER_H_

#include <grpcpp/server.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/app_hub.h"
#include "server/control_counters.h"
#include "server/control_listener.h"
#include "server/dns_service.h"
#include "server/descriptor_listener.h"
#include "server/event_log.h"
#include "server/flow_service.h"
#include "server/netstack_service.h"
#include "server/stack.h"
#include "server/watch_stream.h"
#include "server/worker.h"

namespace netstack::server {

class ControlServer {
 public:
  struct Options {
    std::string socket_path;
    CheckedConfig config;
    std::vector<uint32_t> always_allowed_uids;  // --allow_uid
    // The service is a library in the app's own process: TunHandle.fd is
    // taken.
    bool embedded = false;
    Stack::Factory factory = Runtime::Start;
  };

  static absl::StatusOr<std::unique_ptr<ControlServer>> Start(Options options);
  ~ControlServer();

  // Not on the supervisor's thread: these wait for it.
  absl::Status StartStack(v1::StartRequest request = {});
  // Replaces the config as a whole. A refused one changes nothing, and is
  // told by an event.
  absl::Status Reload(absl::StatusOr<v1::Config> config);

  // Refuses what comes, ends watch streams, waits for calls until the
  // deadline and cancels the rest, stops the stack. Idempotent.
  void Shutdown(std::chrono::nanoseconds deadline);

  Stack& stack() { return stack_; }
  EventLog& events() { return events_; }
  const ControlCounters& counters() const { return counters_; }

 private:
  explicit ControlServer(Options options);
  void ApplyLimits(const CheckedConfig& config);
  DescriptorListener::Limits DescriptorLimits(const CheckedConfig& config);

  const std::vector<uint32_t> always_;
  ControlCounters counters_;
  EventLog events_;
  Worker worker_;
  Watches watches_;
  Mutex listener_mu_;  // limits may change while the listener comes and goes
  std::unique_ptr<ControlListener> listener_ ABSL_GUARDED_BY(listener_mu_);
  std::unique_ptr<DescriptorListener> descriptors_
      ABSL_GUARDED_BY(listener_mu_);
  Stack stack_;
  NetstackServiceImpl netstack_service_;
  FlowServiceImpl flow_service_;
  DnsServiceImpl dns_service_;
  AppHub apps_;
  AppServiceImpl app_service_;
  std::unique_ptr<grpc::Server> grpc_;
  bool shut_down_ = false;
};

}  // namespace netstack::server

#endif  // SERVER_CONTROL_SERVER_H_

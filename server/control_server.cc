#include "server/control_server.h"

#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>

#include <future>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.pb.h"

namespace netstack::server {
namespace {

// See design.md, section 7. Requests are small; the largest answer is a page
// of 1000 flows (~250 kB).
constexpr int kMaxRequest = 64 * 1024;
constexpr int kMaxResponse = 4 * 1024 * 1024;
constexpr int kMaxStreams = 32;  // per connection
constexpr int kMaxThreads = 8;   // of gRPC's sync server: reflection only
constexpr size_t kMemoryQuota = 32 * 1024 * 1024;
constexpr int kMinuteMs = 60 * 1000;

void SetLimits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxRequest);
  builder.SetMaxSendMessageSize(kMaxResponse);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreams);
  // Connections made from a descriptor ignore the handshake timeout, so this
  // is also what ends one that never speaks.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 2 * kMinuteMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 10 * kMinuteMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20 * 1000);
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10 * 1000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 2);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 8 * 1024);
  builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0);
  grpc::ResourceQuota quota("control");
  quota.Resize(kMemoryQuota).SetMaxThreads(kMaxThreads);
  builder.SetResourceQuota(quota);
  // Only reflection is a synchronous service: few threads, seldom woken.
  using Option = grpc::ServerBuilder::SyncServerOption;
  builder.SetSyncServerOption(Option::NUM_CQS, 1);
  builder.SetSyncServerOption(Option::MIN_POLLERS, 1);
  builder.SetSyncServerOption(Option::MAX_POLLERS, 2);
  builder.SetSyncServerOption(Option::CQ_TIMEOUT_MSEC, 60 * kMinuteMs);
}

void EnablePluginsOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    // Held for the life of the process: the last grpc_shutdown() waits up to
    // 10 s for its own poller when a write was blocked shortly before.
    grpc_init();
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    // gRPC's own health service brings no descriptor; linking ours in lets
    // reflection tell it.
    (void)grpc::health::v1::HealthCheckRequest::descriptor();
  });
}

}  // namespace

ControlServer::ControlServer(Options options)
    : always_(options.always_allowed_uids),
      worker_("streams"),
      watches_(&worker_, &counters_),
      stack_(options.config, std::move(options.factory), &events_, &worker_,
             [this](const CheckedConfig& c) { ApplyLimits(c); }),
      netstack_service_(&stack_, &events_, &watches_),
      flow_service_(&stack_, &watches_),
      dns_service_(&stack_, &watches_),
      apps_(&stack_, &events_, &counters_, &worker_),
      app_service_(&apps_) {
  stack_.SetOwnerSearch([this](uint64_t flow_id, const FlowKey& key) {
    apps_.OnOwnerWanted(flow_id, key);
  });
}

absl::StatusOr<std::unique_ptr<ControlServer>> ControlServer::Start(
    Options options) {
  EnablePluginsOnce();
  const std::string path = options.socket_path;
  const std::vector<uint32_t> always = options.always_allowed_uids;
  const ControlConfig limits = options.config.control;
  const CheckedConfig config = options.config;
  const bool embedded = options.embedded;
  std::unique_ptr<ControlServer> out(new ControlServer(std::move(options)));
  out->watches_.SetLimits(limits);

  grpc::ServerBuilder builder;
  SetLimits(builder);
  builder.RegisterService(&out->netstack_service_);
  builder.RegisterService(&out->flow_service_);
  builder.RegisterService(&out->dns_service_);
  builder.RegisterService(&out->app_service_);
  out->grpc_ = builder.BuildAndStart();
  if (out->grpc_ == nullptr) {
    return absl::InternalError("gRPC could not be started.");
  }
  auto* health = out->grpc_->GetHealthCheckService();
  health->SetServingStatus(true);  // the service as a whole, name ""
  health->SetServingStatus(v1::NetstackService::service_full_name(), true);
  health->SetServingStatus(v1::FlowService::service_full_name(), true);
  health->SetServingStatus(v1::DnsService::service_full_name(), true);
  health->SetServingStatus(v1::AppService::service_full_name(), true);

  auto listener = ControlListener::Start(
      path, always, limits, &out->counters_, &out->events_,
      [server = out->grpc_.get()](int fd) {
        grpc::AddInsecureChannelFromFd(server, fd);
      });
  if (!listener.ok()) return listener.status();
  auto descriptors = DescriptorListener::Start(
      path + ".fd", out->DescriptorLimits(config), &out->counters_,
      &out->events_, [stack = &out->stack_] {
        stack->OwnerGone(
            "The app that handed over the TUN has closed its connection.");
      });
  if (!descriptors.ok()) return descriptors.status();
  DescriptorListener* raw = descriptors->get();
  out->stack_.SetDescriptors(
      {raw->path(), [raw](const std::string& nonce) { return raw->Take(nonce); },
       [raw] { raw->ForgetOwner(); }, embedded});
  MutexLock lock(out->listener_mu_);
  out->descriptors_ = *std::move(descriptors);
  out->listener_ = *std::move(listener);
  return out;
}

ControlServer::~ControlServer() { Shutdown(std::chrono::seconds(5)); }

DescriptorListener::Limits ControlServer::DescriptorLimits(
    const CheckedConfig& config) {
  DescriptorListener::Limits limits;
  limits.allowed_uids = config.control.allowed_uids;
  limits.allowed_uids.insert(limits.allowed_uids.end(), always_.begin(),
                             always_.end());
  limits.app = config.app;
  return limits;
}

void ControlServer::ApplyLimits(const CheckedConfig& config) {
  watches_.SetLimits(config.control);
  MutexLock lock(listener_mu_);
  if (listener_) listener_->SetLimits(config.control);
  if (descriptors_) descriptors_->SetLimits(DescriptorLimits(config));
}

absl::Status ControlServer::StartStack(v1::StartRequest request) {
  std::promise<absl::Status> promise;
  stack_.Start(std::move(request), [&promise](absl::Status s) { promise.set_value(std::move(s)); });
  return promise.get_future().get();
}

absl::Status ControlServer::Reload(absl::StatusOr<v1::Config> config) {
  absl::Status done = config.status();
  if (config.ok()) {
    v1::UpdateConfigRequest request;
    *request.mutable_config() = *std::move(config);
    request.mutable_update_mask()->add_paths("*");
    std::promise<absl::Status> promise;
    stack_.Update(std::move(request), [&promise](auto response) {
      promise.set_value(response.status());
    });
    done = promise.get_future().get();
    // The files may have changed though their names have not. What goes wrong
    // is an event.
    if (done.ok()) stack_.ReloadLists([](const auto&) {});
  }
  if (!done.ok()) {
    events_.Add(v1::EVENT_TYPE_CONFIG_REFUSED,
                absl::StrCat("The reloaded config is refused, the running one "
                             "is kept: ",
                             done.message()));
  }
  return done;
}

void ControlServer::Shutdown(std::chrono::nanoseconds deadline) {
  if (std::exchange(shut_down_, true)) return;
  std::unique_ptr<ControlListener> listener;
  {
    MutexLock lock(listener_mu_);
    listener = std::move(listener_);
  }
  listener.reset();
  if (grpc_) {
    grpc_->GetHealthCheckService()->Shutdown();
    watches_.Shutdown();
    apps_.Shutdown();
    grpc_->Shutdown(std::chrono::system_clock::now() +
                    std::chrono::duration_cast<
                        std::chrono::system_clock::duration>(deadline));
    grpc_->Wait();
  }
  stack_.Shutdown();
  // Behind the stack, which asks it until then.
  std::unique_ptr<DescriptorListener> descriptors;
  {
    MutexLock lock(listener_mu_);
    descriptors = std::move(descriptors_);
  }
  descriptors.reset();
  worker_.Stop();
}

}  // namespace netstack::server

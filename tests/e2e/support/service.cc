#include "tests/e2e/support/service.h"

#include <google/protobuf/text_format.h>
#include <grpcpp/grpcpp.h>
#include <sys/un.h>

#include <cstdlib>
#include <mutex>

#include "gtest/gtest.h"
#include "netstack/v1/flow_service.grpc.pb.h"
#include "netstack/v1/netstack_service.grpc.pb.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

// Also a deadline for the service: no answer may take longer.
constexpr auto kRpcDeadline = seconds(10);

void SetDeadline(grpc::ClientContext& context, Clock::duration time) {
  context.set_deadline(
      std::chrono::system_clock::now() +
      std::chrono::duration_cast<std::chrono::system_clock::duration>(time));
}

RpcResult Result(const grpc::Status& status) {
  return {status.error_code(), status.error_message()};
}

// Whether somebody accepts connections to a Unix socket.
bool Answers(const std::string& path) {
  const Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  path.copy(to.sun_path, sizeof(to.sun_path) - 1);
  return connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0;
}

}  // namespace

const Family kV4 = {"V4",         AF_INET,      "10.77.1.2",  "10.77.1.3",
                    "10.77.2.2",  "10.10.0.2",  "10.77.66.1", "10.77.67.1",
                    "10.77.68.1", "203.0.113.1"};
const Family kV6 = {"V6",         AF_INET6,     "fd77:1::2",  "fd77:1::3",
                    "fd77:2::2",  "fd10::2",    "fd77:66::1", "fd77:67::1",
                    "fd77:68::1", "2001:db8::1"};

std::string FamilyName(const testing::TestParamInfo<const Family*>& info) {
  return info.param->name;
}

std::string NetstackdPath() {
  const char* other = std::getenv("NETSTACK_E2E_NETSTACKD");
  return other != nullptr ? other : NETSTACK_NETSTACKD;
}

bool FullScale() {
  const char* scale = std::getenv("NETSTACK_E2E_SCALE");
  return scale != nullptr && std::string(scale) == "full";
}

struct Control::Stubs {
  // Reads the stream that `open` makes.
  template <typename Message, typename Open>
  RpcResult Read(const Open& open,
                 const std::function<bool(const Message&)>& on_message,
                 Clock::duration patience) {
    grpc::ClientContext context;
    SetDeadline(context, patience);
    Note(&context);
    const auto reader = open(&context);
    Message message;
    while (reader->Read(&message)) {
      if (!on_message(message)) {
        context.TryCancel();
        break;
      }
    }
    const RpcResult result = Result(reader->Finish());
    Note(nullptr);
    return result;
  }
  void Note(grpc::ClientContext* context) {
    const std::lock_guard lock(mutex);
    stream = context;
  }

  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::NetstackService::Stub> stack;
  std::unique_ptr<v1::FlowService::Stub> flows;
  std::mutex mutex;
  grpc::ClientContext* stream = nullptr;  // while one is read
};

Control::Control(const std::string& socket_path)
    : stubs_(std::make_unique<Stubs>()) {
  grpc::ChannelArguments arguments;
  // Else channels to the same address share one connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // A fixed window of 64 KiB: else the library reads on for a watcher that
  // has stopped, megabytes ahead.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetMaxReceiveMessageSize(-1);
  stubs_->channel = grpc::CreateCustomChannel(
      "unix:" + socket_path, grpc::InsecureChannelCredentials(), arguments);
  stubs_->stack = v1::NetstackService::NewStub(stubs_->channel);
  stubs_->flows = v1::FlowService::NewStub(stubs_->channel);
}

Control::~Control() = default;

RpcResult Control::Start() {
  grpc::ClientContext context;
  SetDeadline(context, kRpcDeadline);
  v1::StartResponse response;
  return Result(stubs_->stack->Start(&context, {}, &response));
}

RpcResult Control::Stop() {
  grpc::ClientContext context;
  SetDeadline(context, kRpcDeadline);
  v1::StopResponse response;
  return Result(stubs_->stack->Stop(&context, {}, &response));
}

RpcResult Control::GetStatus(v1::StackStatus* status) {
  grpc::ClientContext context;
  SetDeadline(context, kRpcDeadline);
  v1::GetStatusResponse response;
  const RpcResult result =
      Result(stubs_->stack->GetStatus(&context, {}, &response));
  *status = response.status();
  return result;
}

v1::StackStatus Control::Status() {
  v1::StackStatus status;
  const RpcResult result = GetStatus(&status);
  EXPECT_TRUE(result.ok()) << "GetStatus: " << result.message;
  return status;
}

v1::Stats Control::Stats() {
  grpc::ClientContext context;
  SetDeadline(context, kRpcDeadline);
  v1::GetStatsResponse response;
  const RpcResult result =
      Result(stubs_->stack->GetStats(&context, {}, &response));
  EXPECT_TRUE(result.ok()) << "GetStats: " << result.message;
  return response.stats();
}

RpcResult Control::Update(const std::string& config_textproto) {
  grpc::ClientContext context;
  SetDeadline(context, kRpcDeadline);
  v1::UpdateConfigRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
      config_textproto, request.mutable_config()));
  v1::UpdateConfigResponse response;
  return Result(stubs_->stack->UpdateConfig(&context, request, &response));
}

std::vector<v1::Flow> Control::Flows(const v1::FlowFilter& filter) {
  std::vector<v1::Flow> flows;
  v1::ListFlowsRequest request;
  *request.mutable_filter() = filter;
  request.set_page_size(1000);
  do {
    grpc::ClientContext context;
    SetDeadline(context, kRpcDeadline);
    v1::ListFlowsResponse page;
    const RpcResult result =
        Result(stubs_->flows->ListFlows(&context, request, &page));
    EXPECT_TRUE(result.ok()) << "ListFlows: " << result.message;
    if (!result.ok()) break;
    flows.insert(flows.end(), page.flows().begin(), page.flows().end());
    request.set_after_id(page.next_after_id());
  } while (request.after_id() != 0);
  return flows;
}

uint64_t Control::CloseAllFlows() {
  grpc::ClientContext context;
  SetDeadline(context, kRpcDeadline);
  v1::CloseFlowsRequest request;
  request.set_all(true);
  v1::CloseFlowsResponse response;
  const RpcResult result =
      Result(stubs_->flows->CloseFlows(&context, request, &response));
  EXPECT_TRUE(result.ok()) << "CloseFlows: " << result.message;
  return response.closed();
}

RpcResult Control::WatchFlows(
    const v1::WatchFlowsRequest& request,
    const std::function<bool(const v1::WatchFlowsResponse&)>& on_message,
    Clock::duration patience) {
  return stubs_->Read(
      [&](grpc::ClientContext* context) {
        return stubs_->flows->WatchFlows(context, request);
      },
      on_message, patience);
}

RpcResult Control::WatchEvents(
    const std::function<bool(const v1::WatchEventsResponse&)>& on_message,
    Clock::duration patience) {
  return stubs_->Read(
      [&](grpc::ClientContext* context) {
        return stubs_->stack->WatchEvents(context, {});
      },
      on_message, patience);
}

void Control::CancelStream() {
  const std::lock_guard lock(stubs_->mutex);
  if (stubs_->stream != nullptr) stubs_->stream->TryCancel();
}

uint64_t DropsIn(const v1::Stats& stats, v1::DropReason reason) {
  for (const v1::DropCount& d : stats.drops()) {
    if (d.reason() == reason) return d.packets();
  }
  ADD_FAILURE() << "no counter of " << v1::DropReason_Name(reason);
  return 0;
}

uint64_t ClosedIn(const v1::Stats& stats, v1::CloseReason reason) {
  for (const v1::CloseCount& c : stats.tcp().closed()) {
    if (c.reason() == reason) return c.flows();
  }
  ADD_FAILURE() << "no counter of " << v1::CloseReason_Name(reason);
  return 0;
}

uint64_t Control::Drops(v1::DropReason reason) {
  return DropsIn(Stats(), reason);
}

uint64_t Control::Closed(v1::CloseReason reason) {
  return ClosedIn(Stats(), reason);
}

Service::Service(const ServiceOptions& options) : options_(options) {
  WriteFile(dir_ / "netstackd.textproto",
            "tun {\n  name: \"" + std::string(kTun) +
                "\"\n  mtu: " + std::to_string(options.mtu) +
                "\n  offload: " + (options.offload ? "true" : "false") +
                "\n  prefixes: \"10.10.0.0/24\"\n"
                "  prefixes: \"fd10::/64\"\n}\n" +
                options.config);
  Launch();
  if (options_.start) StartStack();
}

Service::~Service() {
  if (testing::Test::HasFailure() && process_ != nullptr) {
    std::fprintf(stderr, "--- netstackd's log:\n%s---\n", Log().c_str());
  }
}

void Service::Launch() {
  control_.reset();
  process_ = std::make_unique<Process>(
      std::vector<std::string>{NetstackdPath(), "--config",
                               dir_ / "netstackd.textproto", "--socket",
                               socket_path()},
      ProcessOptions{.ns = options_.ns.empty() ? World().gw() : options_.ns,
                     .output = dir_ / "log",
                     .descriptors = options_.descriptors,
                     .environment = options_.environment});
  // A channel that failed once waits seconds before it tries again.
  ASSERT_TRUE(Eventually([this] {
    return !process_->running() || Answers(socket_path());
  })) << "netstackd does not answer";
  ASSERT_TRUE(process_->running()) << "netstackd ended: " << Log();
  control_ = std::make_unique<Control>(socket_path());
}

void Service::StartStack() {
  const RpcResult started = control_->Start();
  ASSERT_TRUE(started.ok()) << "Start: " << started.message;
  if (options_.attach) World().Attach(kTun, options_.mtu);
}

}  // namespace netstack::e2e

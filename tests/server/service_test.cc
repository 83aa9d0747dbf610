// Every RPC against the real engine, in a network namespace of the test's own.
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/wire/ip_address.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "grpc/health/v1/health.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "tests/server/test_server.h"
#include "tests/support/net_admin.h"

namespace netstack::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using grpc::StatusCode;

constexpr char kTun[] = "ns-test0";

v1::Config TestConfig() {
  v1::Config config;
  config.mutable_tun()->set_name(kTun);
  return config;
}

// The app and its remote in one namespace: the remote listens on an address of
// the loopback device; the app's socket is bound to the TUN, so that its
// packets leave there although their destination is local.
class Network {
 public:
  // After the stack was started.
  Network() {
    static const bool once =
        AddAddress("lo", IpAddress::V4(10, 77, 0, 1), 32).ok();
    EXPECT_TRUE(once);
    EXPECT_TRUE(AddAddress(kTun, IpAddress::V4(10, 77, 0, 2), 24).ok());
    EXPECT_TRUE(BringUp(kTun).ok());
    // The remote's packets come in through the TUN with a local source.
    for (const char* dev : {"all", kTun}) {
      const std::string conf = std::string("/proc/sys/net/ipv4/conf/") + dev;
      std::ofstream(conf + "/accept_local") << 1;
      std::ofstream(conf + "/rp_filter") << 0;
    }
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = At(0);
    EXPECT_EQ(
        bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address),
        0);
    EXPECT_EQ(listen(listener_, 64), 0);
    socklen_t size = sizeof address;
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  ~Network() {
    close(listener_);
    for (int fd : fds_) close(fd);
  }

  // The app's end and the remote's end of a new connection through the TUN.
  std::pair<int, int> Connect() {
    const int app = App();
    sockaddr_in address = At(port_);
    EXPECT_EQ(
        connect(app, reinterpret_cast<sockaddr*>(&address), sizeof address), 0)
        << strerror(errno);
    const int remote = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    EXPECT_GE(remote, 0);
    fds_.push_back(remote);
    return {app, remote};
  }

  uint16_t port() const { return port_; }

 private:
  static sockaddr_in At(uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    inet_pton(AF_INET, "10.77.0.1", &address.sin_addr);
    return address;
  }

  int App() {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, kTun, sizeof kTun),
              0);
    timeval limit{10, 0};  // connect() and recv() fail instead of hanging
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    fds_.push_back(fd);
    return fd;
  }

  int listener_ = -1;
  uint16_t port_ = 0;
  std::vector<int> fds_;
};

class ServiceTest : public ::testing::Test {
 protected:
  void MustStart() {
    const grpc::Status started = server_.Start();
    ASSERT_TRUE(started.ok())
        << "this test opens a TUN, which needs /dev/net/tun and the right to "
           "use it: "
        << started.error_message();
  }

  v1::UpdateConfigResponse MustUpdate(const v1::UpdateConfigRequest& request) {
    Context context;
    v1::UpdateConfigResponse response;
    const grpc::Status s =
        server_.netstack().UpdateConfig(&context, request, &response);
    EXPECT_TRUE(s.ok()) << s.error_message();
    return response;
  }

  grpc::Status Update(const v1::UpdateConfigRequest& request) {
    Context context;
    v1::UpdateConfigResponse response;
    return server_.netstack().UpdateConfig(&context, request, &response);
  }

  v1::GetConfigResponse GetConfig() {
    Context context;
    v1::GetConfigResponse response;
    EXPECT_TRUE(server_.netstack().GetConfig(&context, {}, &response).ok());
    return response;
  }

  TestServer server_{TestConfig()};
};

// --- Start, Stop, GetStatus

TEST_F(ServiceTest, StatusBeforeTheFirstStart) {
  const v1::StackStatus s = server_.Status();
  EXPECT_EQ(s.state(), v1::STACK_STATE_STOPPED);
  EXPECT_EQ(s.version(), NETSTACK_VERSION);
  EXPECT_EQ(s.epoch(), 0u);
  EXPECT_EQ(s.config_revision(), 1u);
  EXPECT_FALSE(s.has_tun());
  EXPECT_FALSE(s.has_stack_uptime());
  EXPECT_TRUE(s.has_service_uptime());
  EXPECT_GT(s.service_started_at().seconds(), 1'600'000'000);
  EXPECT_THAT(s.supported(),
              ElementsAre(v1::TRAFFIC_KIND_TCP, v1::TRAFFIC_KIND_UDP,
                          v1::TRAFFIC_KIND_ICMP, v1::TRAFFIC_KIND_DNS,
                          v1::TRAFFIC_KIND_FRAGMENTS));
  EXPECT_THAT(s.unsupported(), IsEmpty());
}

TEST_F(ServiceTest, StartStopStart) {
  MustStart();
  const v1::StackStatus first = server_.Status();
  EXPECT_EQ(first.state(), v1::STACK_STATE_RUNNING);
  EXPECT_EQ(first.tun().name(), kTun);
  EXPECT_EQ(first.tun().mtu(), 1500u);
  EXPECT_GT(first.flow_limit(), 0u);
  EXPECT_TRUE(DeviceExists(kTun));

  v1::StopResponse stopped;
  ASSERT_TRUE(server_.Stop(&stopped).ok());
  EXPECT_TRUE(stopped.stopped());
  EXPECT_EQ(stopped.status().state(), v1::STACK_STATE_STOPPED);
  EXPECT_FALSE(DeviceExists(kTun));

  MustStart();
  EXPECT_GT(server_.Status().epoch(), first.epoch());
}

TEST_F(ServiceTest, StartOfARunningStackIsRefused) {
  MustStart();
  const grpc::Status again = server_.Start();
  EXPECT_EQ(again.error_code(), StatusCode::FAILED_PRECONDITION);
  const Details details = DetailsOf(again);
  EXPECT_EQ(details.info.reason(), "STACK_RUNNING");
  EXPECT_EQ(details.info.domain(), "netstack.v1");
  ASSERT_EQ(details.precondition.violations_size(), 1);
  EXPECT_EQ(details.precondition.violations(0).subject(), "stack");
  EXPECT_EQ(server_.Status().state(), v1::STACK_STATE_RUNNING);
}

TEST_F(ServiceTest, StopWithoutAStackIsNoError) {
  v1::StopResponse response;
  EXPECT_TRUE(server_.Stop(&response).ok());
  EXPECT_FALSE(response.stopped());
}

TEST_F(ServiceTest, ManyStartsAndStopsAtOnceEndInOneState) {
  std::vector<std::thread> threads;
  std::atomic<int> started{0}, refused{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      auto stub = v1::NetstackService::NewStub(server_.NewChannel());
      Context context;
      if (i % 2 == 0) {
        v1::StartResponse response;
        const grpc::Status s = stub->Start(&context, {}, &response);
        s.ok() ? ++started : ++refused;
        if (!s.ok()) {
          EXPECT_EQ(s.error_code(), StatusCode::FAILED_PRECONDITION);
        }
      } else {
        v1::StopResponse response;
        EXPECT_TRUE(stub->Stop(&context, {}, &response).ok());
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_GE(started, 1);
  EXPECT_EQ(started + refused, 4);
  EXPECT_TRUE(server_.Stop().ok());
  EXPECT_EQ(server_.Status().state(), v1::STACK_STATE_STOPPED);
}

// --- GetConfig, UpdateConfig

TEST_F(ServiceTest, ConfigAsSetAndInEffect) {
  const v1::GetConfigResponse response = GetConfig();
  EXPECT_EQ(response.revision(), 1u);
  EXPECT_EQ(response.config().DebugString(), TestConfig().DebugString());
  EXPECT_EQ(response.effective().tcp().buffer_max(), 1048576u);
}

TEST_F(ServiceTest, UpdateTellsWhatTookEffectAndWhatWaits) {
  MustStart();
  v1::UpdateConfigRequest request;
  request.mutable_config()->mutable_tun()->set_mtu(9000);
  request.mutable_config()->mutable_tcp()->set_max_half_open(77);
  request.mutable_config()->mutable_tcp()->set_max_half_open_per_destination(
      7);
  const v1::UpdateConfigResponse response = MustUpdate(request);
  EXPECT_EQ(response.revision(), 2u);
  EXPECT_THAT(response.applied(),
              ElementsAre("tcp.max_half_open",
                          "tcp.max_half_open_per_destination"));
  EXPECT_THAT(response.pending_restart(), ElementsAre("tun.mtu"));
  EXPECT_EQ(response.config().tun().name(), kTun);  // kept
  EXPECT_THAT(server_.Status().pending_restart(), ElementsAre("tun.mtu"));
  EXPECT_EQ(server_.Status().tun().mtu(), 1500u);

  ASSERT_TRUE(server_.Stop().ok());
  EXPECT_THAT(GetConfig().pending_restart(), IsEmpty());
  MustStart();
  EXPECT_EQ(server_.Status().tun().mtu(), 9000u);
  EXPECT_EQ(DeviceMtu(kTun), 9000u);
}

TEST_F(ServiceTest, UpdateOfAStoppedStackTakesEffectAtOnce) {
  v1::UpdateConfigRequest request;
  request.mutable_config()->mutable_tun()->set_mtu(9000);
  const v1::UpdateConfigResponse response = MustUpdate(request);
  EXPECT_THAT(response.applied(), ElementsAre("tun.mtu"));
  EXPECT_THAT(response.pending_restart(), IsEmpty());
}

TEST_F(ServiceTest, UpdateWithoutADifferenceKeepsTheRevision) {
  v1::UpdateConfigRequest request;
  *request.mutable_config() = TestConfig();
  EXPECT_EQ(MustUpdate(request).revision(), 1u);
}

TEST_F(ServiceTest, BadConfigIsRefusedWholeFieldByField) {
  v1::UpdateConfigRequest request;
  request.mutable_config()->mutable_tun()->set_mtu(5);
  request.mutable_config()->mutable_tcp()->set_buffer_max(1);
  request.mutable_config()->mutable_tcp()->set_max_half_open(78);
  const grpc::Status refused = Update(request);
  EXPECT_EQ(refused.error_code(), StatusCode::INVALID_ARGUMENT);
  const Details details = DetailsOf(refused);
  EXPECT_EQ(details.info.reason(), "INVALID_CONFIG");
  EXPECT_THAT(details.fields(), testing::IsSupersetOf(
                                    {"tun.mtu", "tcp.buffer_max"}));
  for (const auto& v : details.bad_request.field_violations()) {
    EXPECT_FALSE(v.description().empty());
  }
  EXPECT_EQ(GetConfig().revision(), 1u);
  EXPECT_EQ(GetConfig().effective().tcp().max_half_open(), 4096u);
}

TEST_F(ServiceTest, UnknownMaskPathIsRefused) {
  v1::UpdateConfigRequest request;
  request.mutable_update_mask()->add_paths("tun.colour");
  const grpc::Status refused = Update(request);
  EXPECT_EQ(refused.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(DetailsOf(refused).fields(), ElementsAre("update_mask"));
}

TEST_F(ServiceTest, RevisionConflict) {
  v1::UpdateConfigRequest request;
  request.set_revision(1);
  request.mutable_config()->mutable_tun()->set_mtu(1400);
  EXPECT_EQ(MustUpdate(request).revision(), 2u);
  request.mutable_config()->mutable_tun()->set_mtu(1300);
  const grpc::Status refused = Update(request);
  EXPECT_EQ(refused.error_code(), StatusCode::ABORTED);
  const Details details = DetailsOf(refused);
  EXPECT_EQ(details.info.reason(), "REVISION_MISMATCH");
  EXPECT_EQ(details.info.metadata().at("revision"), "2");
  EXPECT_EQ(GetConfig().effective().tun().mtu(), 1400u);
}

TEST_F(ServiceTest, ValidateOnlyAnswersAndChangesNothing) {
  MustStart();
  v1::UpdateConfigRequest request;
  request.set_validate_only(true);
  request.mutable_config()->mutable_tun()->set_mtu(1400);
  request.mutable_config()->mutable_tcp()->set_max_half_open(1000);
  const v1::UpdateConfigResponse response = MustUpdate(request);
  EXPECT_THAT(response.applied(), ElementsAre("tcp.max_half_open"));
  EXPECT_THAT(response.pending_restart(), ElementsAre("tun.mtu"));
  EXPECT_EQ(response.revision(), 1u);
  EXPECT_EQ(GetConfig().revision(), 1u);
  EXPECT_EQ(GetConfig().effective().tcp().max_half_open(), 4096u);
  request.mutable_config()->mutable_tun()->set_mtu(1);
  EXPECT_EQ(Update(request).error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServiceTest, ControlLimitsChangeLive) {
  v1::UpdateConfigRequest request;
  request.mutable_config()->mutable_control()->set_max_watchers(1);
  EXPECT_THAT(MustUpdate(request).applied(),
              ElementsAre("control.max_watchers"));
  Context first_context, second_context;
  auto first = server_.netstack().WatchStats(&first_context, {});
  v1::WatchStatsResponse reading;
  ASSERT_TRUE(first->Read(&reading));
  auto second = server_.netstack().WatchStats(&second_context, {});
  EXPECT_FALSE(second->Read(&reading));
  const grpc::Status refused = second->Finish();
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(DetailsOf(refused).info.reason(), "TOO_MANY_WATCHERS");
  EXPECT_EQ(server_.Stats().control().watchers_refused(), 1u);
  // The end of the first makes room.
  first_context.TryCancel();
  first->Finish();
  EXPECT_TRUE(Eventually(
      [&] { return server_.Stats().control().watchers() == 0; }));
  Context third_context;
  auto third = server_.netstack().WatchStats(&third_context, {});
  EXPECT_TRUE(third->Read(&reading));
  third_context.TryCancel();
  third->Finish();
}

// --- GetStats, WatchStats

TEST_F(ServiceTest, StatsWithoutAndWithAStack) {
  EXPECT_FALSE(server_.Stats().has_tcp());
  EXPECT_EQ(server_.Stats().control().connections(), 1u);
  MustStart();
  const v1::Stats stats = server_.Stats();
  EXPECT_TRUE(stats.has_tun() && stats.has_tcp() && stats.has_dial() &&
              stats.has_memory() && stats.has_loop());
  ASSERT_EQ(static_cast<size_t>(stats.drops_size()), kDropReasonCount);
  EXPECT_EQ(stats.drops(0).reason(), v1::DROP_REASON_TOO_SHORT);
  ASSERT_EQ(static_cast<size_t>(stats.tcp().closed_size()), kCloseReasonCount);
  EXPECT_GT(stats.flow_limit(), 0u);
}

TEST_F(ServiceTest, WatchStatsGoesOnThroughStops) {
  v1::WatchStatsRequest request;
  *request.mutable_interval() = Millis(100);
  Context context;
  auto stream = server_.netstack().WatchStats(&context, request);
  v1::WatchStatsResponse reading;
  ASSERT_TRUE(stream->Read(&reading));
  EXPECT_EQ(reading.epoch(), 0u);
  MustStart();
  const uint64_t epoch = server_.Status().epoch();
  while (reading.epoch() != epoch) ASSERT_TRUE(stream->Read(&reading));
  EXPECT_TRUE(reading.stats().has_tun());
  ASSERT_TRUE(server_.Stop().ok());
  while (reading.epoch() != 0) ASSERT_TRUE(stream->Read(&reading));
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::CANCELLED);
}

TEST_F(ServiceTest, IntervalsHaveLimits) {
  for (int64_t ms : {0, 99, -5, 3'600'001}) {
    v1::WatchStatsRequest request;
    *request.mutable_interval() = Millis(ms);
    Context context;
    v1::WatchStatsResponse reading;
    auto stream = server_.netstack().WatchStats(&context, request);
    EXPECT_FALSE(stream->Read(&reading));
    const grpc::Status refused = stream->Finish();
    EXPECT_EQ(refused.error_code(), StatusCode::INVALID_ARGUMENT) << ms;
    EXPECT_THAT(DetailsOf(refused).fields(), ElementsAre("interval"));
  }
}

// --- WatchEvents

TEST_F(ServiceTest, EventsAreReplayedThenFollowed) {
  MustStart();
  Context context;
  auto stream = server_.netstack().WatchEvents(&context, {});
  v1::WatchEventsResponse message;
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.event().type(), v1::EVENT_TYPE_STACK_STARTED);
  EXPECT_EQ(message.event().sequence(), 1u);
  EXPECT_EQ(message.event().epoch(), server_.Status().epoch());
  EXPECT_GT(message.event().time().seconds(), 1'600'000'000);
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.end_of_replay().sequence(), 1u);
  ASSERT_TRUE(server_.Stop().ok());
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.event().type(), v1::EVENT_TYPE_STACK_STOPPED);
  EXPECT_EQ(message.event().sequence(), 2u);
  context.TryCancel();
  stream->Finish();

  // Going on where the stream broke.
  v1::WatchEventsRequest request;
  request.set_after_sequence(1);
  Context later;
  stream = server_.netstack().WatchEvents(&later, request);
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.event().sequence(), 2u);
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_TRUE(message.has_end_of_replay());
  later.TryCancel();
  stream->Finish();
}

TEST_F(ServiceTest, TheLast64EventsAreReplayed) {
  for (int i = 1; i <= 200; ++i) {
    server_.server().events().Add(v1::EVENT_TYPE_MEMORY_PRESSURE, "x");
  }
  Context context;
  auto stream = server_.netstack().WatchEvents(&context, {});
  v1::WatchEventsResponse message;
  for (uint64_t sequence = 137; sequence <= 200; ++sequence) {
    ASSERT_TRUE(stream->Read(&message));
    EXPECT_EQ(message.event().sequence(), sequence);
  }
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.end_of_replay().sequence(), 200u);
  context.TryCancel();
  stream->Finish();
}

TEST_F(ServiceTest, EventsOlderThanWhatIsKeptAreTold) {
  for (int i = 1; i <= 1100; ++i) {
    server_.server().events().Add(v1::EVENT_TYPE_MEMORY_PRESSURE, "x");
  }
  v1::WatchEventsRequest request;
  request.set_after_sequence(10);
  Context context;
  auto stream = server_.netstack().WatchEvents(&context, request);
  v1::WatchEventsResponse message;
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.loss().events(), 1100u - 1024 - 10);
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.event().sequence(), 1100u - 1024 + 1);
  context.TryCancel();
  stream->Finish();
}

// --- FlowService

TEST_F(ServiceTest, FlowsNeedAStack) {
  const auto expect = [](const grpc::Status& refused) {
    EXPECT_EQ(refused.error_code(), StatusCode::FAILED_PRECONDITION);
    EXPECT_EQ(DetailsOf(refused).info.reason(), "STACK_NOT_RUNNING");
    EXPECT_EQ(DetailsOf(refused).precondition.violations(0).type(),
              "STACK_STATE");
  };
  Context a, b, c;
  v1::ListFlowsResponse list;
  expect(server_.flows().ListFlows(&a, {}, &list));
  v1::CloseFlowsRequest close;
  close.set_all(true);
  v1::CloseFlowsResponse closed;
  expect(server_.flows().CloseFlows(&b, close, &closed));
  auto stream = server_.flows().WatchFlows(&c, {});
  v1::WatchFlowsResponse message;
  EXPECT_FALSE(stream->Read(&message));
  expect(stream->Finish());
}

TEST_F(ServiceTest, FlowsAreListedPageByPage) {
  MustStart();
  Network net;
  for (int i = 0; i < 5; ++i) net.Connect();
  std::vector<uint64_t> ids;
  v1::ListFlowsRequest request;
  request.set_page_size(2);
  int pages = 0;
  do {
    Context context;
    v1::ListFlowsResponse response;
    ASSERT_TRUE(
        server_.flows().ListFlows(&context, request, &response).ok());
    EXPECT_EQ(response.epoch(), server_.Status().epoch());
    EXPECT_LE(response.flows_size(), 2);
    for (const v1::Flow& f : response.flows()) ids.push_back(f.id());
    request.set_after_id(response.next_after_id());
    ++pages;
  } while (request.after_id() != 0);
  EXPECT_EQ(pages, 3);
  EXPECT_EQ(ids.size(), 5u);
  EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
}

TEST_F(ServiceTest, AFlowTellsWhatItIs) {
  MustStart();
  Network net;
  auto [app, remote] = net.Connect();
  ASSERT_EQ(send(app, "hello", 5, 0), 5);
  char buffer[16];
  ASSERT_EQ(recv(remote, buffer, sizeof buffer, 0), 5);
  ASSERT_EQ(send(remote, "hi", 2, 0), 2);
  ASSERT_EQ(recv(app, buffer, sizeof buffer, 0), 2);
  v1::Flow flow;
  EXPECT_TRUE(Eventually([&] {
    Context context;
    v1::ListFlowsResponse response;
    if (!server_.flows().ListFlows(&context, {}, &response).ok()) return false;
    if (response.flows_size() != 1) return false;
    flow = response.flows(0);
    return flow.outbound_bytes() == 5 && flow.inbound_bytes() == 2;
  })) << flow.DebugString();
  EXPECT_EQ(flow.key().protocol(), v1::PROTOCOL_TCP);
  EXPECT_EQ(flow.key().app().address(), "10.77.0.2");
  EXPECT_EQ(flow.key().remote().address(), "10.77.0.1");
  EXPECT_EQ(flow.key().remote().port(), net.port());
  EXPECT_EQ(flow.state(), v1::FLOW_STATE_OPEN);
  EXPECT_EQ(flow.close_reason(), v1::CLOSE_REASON_NONE);
  EXPECT_NE(flow.upstream_local().port(), 0u);
  EXPECT_GT(flow.outbound_packets(), 0u);
}

TEST_F(ServiceTest, FiltersAreCheckedAndHonoured) {
  MustStart();
  Network net;
  net.Connect();
  const auto count = [&](const v1::FlowFilter& filter) {
    Context context;
    v1::ListFlowsRequest request;
    *request.mutable_filter() = filter;
    v1::ListFlowsResponse response;
    EXPECT_TRUE(
        server_.flows().ListFlows(&context, request, &response).ok());
    return response.flows_size();
  };
  v1::FlowFilter f;
  f.set_remote("10.77.0.0/24");
  f.set_app("10.77.0.2");
  f.set_remote_port(net.port());
  f.set_protocol(v1::PROTOCOL_TCP);
  EXPECT_EQ(count(f), 1);
  f.set_remote("10.78.0.0/24");
  EXPECT_EQ(count(f), 0);
  v1::FlowFilter udp;
  udp.set_protocol(v1::PROTOCOL_UDP);
  EXPECT_EQ(count(udp), 0);

  v1::ListFlowsRequest bad;
  bad.mutable_filter()->set_app("10.0.0.0/64");
  bad.mutable_filter()->set_remote_port(70000);
  bad.mutable_filter()->set_state(static_cast<v1::FlowState>(99));
  *bad.mutable_filter()->mutable_active_within() = Millis(0);
  bad.set_page_size(1001);
  Context context;
  v1::ListFlowsResponse response;
  const grpc::Status refused =
      server_.flows().ListFlows(&context, bad, &response);
  EXPECT_EQ(refused.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(DetailsOf(refused).fields(),
              testing::UnorderedElementsAre(
                  "filter.app", "filter.remote_port", "filter.state",
                  "filter.active_within", "page_size"));
}

TEST_F(ServiceTest, CloseFlowsNeedsAFilterOrAll) {
  MustStart();
  const auto close = [&](const v1::CloseFlowsRequest& request,
                         v1::CloseFlowsResponse* response) {
    Context context;
    return server_.flows().CloseFlows(&context, request, response);
  };
  v1::CloseFlowsRequest request;
  v1::CloseFlowsResponse response;
  grpc::Status refused = close(request, &response);
  EXPECT_EQ(refused.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(DetailsOf(refused).fields(), ElementsAre("all"));
  request.mutable_filter();  // present, but it narrows nothing
  EXPECT_FALSE(close(request, &response).ok());
  request.set_all(true);
  EXPECT_TRUE(close(request, &response).ok());
  EXPECT_EQ(response.closed(), 0u);
  request.mutable_filter()->set_remote_port(80);
  EXPECT_THAT(DetailsOf(close(request, &response)).fields(),
              ElementsAre("all"));

  Network net;
  auto [app, remote] = net.Connect();
  request.set_all(false);
  request.mutable_filter()->set_remote_port(net.port());
  ASSERT_TRUE(close(request, &response).ok());
  EXPECT_EQ(response.closed(), 1u);
  char byte;
  EXPECT_EQ(recv(app, &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
}

TEST_F(ServiceTest, WatchFlowsTellsSnapshotMarkAndChanges) {
  MustStart();
  Network net;
  net.Connect();
  net.Connect();
  Context context;
  auto stream = server_.flows().WatchFlows(&context, {});
  v1::WatchFlowsResponse message;
  ASSERT_TRUE(stream->Read(&message));
  const uint64_t epoch = message.epoch();
  EXPECT_EQ(epoch, server_.Status().epoch());
  ASSERT_EQ(message.snapshot().flows_size(), 2);
  const uint64_t known = message.snapshot().flows(1).id();
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.end_of_snapshot().flows(), 2u);

  auto [app, remote] = net.Connect();
  shutdown(app, SHUT_RDWR);
  shutdown(remote, SHUT_RDWR);
  close(dup(app));
  std::vector<v1::FlowChangeType> types;
  uint64_t sequence = message.sequence();
  bool closed = false;
  v1::CloseFlowsRequest all;
  all.set_all(true);
  while (!closed && stream->Read(&message)) {
    EXPECT_EQ(message.epoch(), epoch);
    EXPECT_GE(message.sequence(), sequence);
    for (const v1::FlowChange& change : message.changes().changes()) {
      EXPECT_EQ(change.sequence(), sequence + 1);
      sequence = change.sequence();
      if (change.flow().id() <= known) continue;
      types.push_back(change.type());
      closed = change.type() == v1::FLOW_CHANGE_TYPE_CLOSED;
      if (change.flow().state() == v1::FLOW_STATE_TIME_WAIT) {
        Context close_context;
        v1::CloseFlowsResponse done;
        server_.flows().CloseFlows(&close_context, all, &done);
      }
    }
  }
  ASSERT_GE(types.size(), 3u);
  EXPECT_EQ(types.front(), v1::FLOW_CHANGE_TYPE_OPENED);
  EXPECT_EQ(types.back(), v1::FLOW_CHANGE_TYPE_CLOSED);

  // The stream ends with the stack.
  ASSERT_TRUE(server_.Stop().ok());
  while (stream->Read(&message)) {
  }
  const grpc::Status ended = stream->Finish();
  EXPECT_EQ(ended.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(DetailsOf(ended).info.reason(), "STACK_NOT_RUNNING");
}

TEST_F(ServiceTest, WatchFlowsTellsCountersByInterval) {
  MustStart();
  Network net;
  auto [app, remote] = net.Connect();
  net.Connect();  // without traffic
  v1::WatchFlowsRequest request;
  *request.mutable_update_interval() = Millis(100);
  Context context;
  auto stream = server_.flows().WatchFlows(&context, request);
  v1::WatchFlowsResponse message;
  ASSERT_TRUE(stream->Read(&message));
  ASSERT_TRUE(message.has_snapshot());
  ASSERT_TRUE(stream->Read(&message));
  ASSERT_TRUE(message.has_end_of_snapshot());
  ASSERT_EQ(send(app, "hello", 5, 0), 5);
  bool told = false;
  while (!told && stream->Read(&message)) {
    for (const v1::FlowChange& change : message.changes().changes()) {
      if (change.type() != v1::FLOW_CHANGE_TYPE_COUNTERS) continue;
      told = told || change.flow().outbound_bytes() == 5;
    }
  }
  EXPECT_TRUE(told);
  context.TryCancel();
  stream->Finish();
}

// --- Health and reflection

TEST_F(ServiceTest, HealthIsToldPerService) {
  auto channel = server_.NewChannel();
  for (const std::string name :
       {"", "netstack.v1.NetstackService", "netstack.v1.FlowService"}) {
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(name);
    grpc::TemplatedGenericStub<grpc::health::v1::HealthCheckRequest,
                               grpc::health::v1::HealthCheckResponse>
        stub(channel);
    Context context;
    grpc::health::v1::HealthCheckResponse response;
    std::promise<grpc::Status> done;
    stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request,
                   &response,
                   [&](grpc::Status s) { done.set_value(std::move(s)); });
    const grpc::Status s = done.get_future().get();
    EXPECT_TRUE(s.ok()) << s.error_message();
    EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING)
        << name;
  }
}

TEST_F(ServiceTest, HugeRequestIsRefused) {
  v1::UpdateConfigRequest request;
  request.mutable_config()->mutable_tun()->set_name(
      std::string(100'000, 'x'));
  EXPECT_EQ(Update(request).error_code(), StatusCode::RESOURCE_EXHAUSTED);
}

}  // namespace
}  // namespace netstack::test

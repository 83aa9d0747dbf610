// The control API by the real grpcurl: by reflection, and by the protoset that
// is shipped.
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

// How grpcurl knows the API.
enum class Knows { kReflection, kProtoset };

class GrpcurlTest : public testing::TestWithParam<Knows> {
 protected:
  void SetUp() override {
    const char* path = std::getenv("NETSTACK_GRPCURL");
    grpcurl_ =
        path != nullptr ? path : NETSTACK_SOURCE_DIR "/build/deps/bin/grpcurl";
    ASSERT_EQ(access(grpcurl_.c_str(), X_OK), 0)
        << "there is no grpcurl at " << grpcurl_
        << "; run deploy/install --test, or set NETSTACK_GRPCURL";
  }

  std::vector<std::string> Words(std::vector<std::string> flags,
                                 const std::vector<std::string>& words) {
    flags.insert(flags.begin(), {grpcurl_, "-plaintext", "-unix"});
    if (GetParam() == Knows::kProtoset) {
      flags.insert(flags.end(), {"-protoset", NETSTACK_PROTOSET});
    }
    flags.push_back(service_.socket_path());
    flags.insert(flags.end(), words.begin(), words.end());
    return flags;
  }
  Output Grpcurl(const std::vector<std::string>& words,
                 const std::vector<std::string>& flags = {}) {
    return Execute(Words(flags, words));
  }
  // The answer of a call that succeeds.
  std::string Call(const std::string& method,
                   const std::vector<std::string>& flags = {}) {
    const Output output = Grpcurl({"netstack.v1." + method}, flags);
    EXPECT_TRUE(output.ok()) << method << ": " << output.err;
    return output.out;
  }
  static bool Has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }

  std::string grpcurl_;
  Service service_{{.start = false}};
};

TEST_P(GrpcurlTest, ListAndDescribe) {
  const Output list = Grpcurl({"list"});
  ASSERT_TRUE(list.ok()) << list.err;
  EXPECT_PRED2(Has, list.out, "netstack.v1.NetstackService\n");
  EXPECT_PRED2(Has, list.out, "netstack.v1.FlowService\n");
  EXPECT_PRED2(Has, list.out, "grpc.health.v1.Health\n");
  const Output methods = Grpcurl({"list", "netstack.v1.NetstackService"});
  for (const char* method :
       {"Start", "Stop", "GetStatus", "GetConfig", "UpdateConfig", "GetStats",
        "WatchStats", "WatchEvents"}) {
    EXPECT_PRED2(Has, methods.out,
                 std::string("netstack.v1.NetstackService.") + method + "\n");
  }
  const Output describe = Grpcurl({"describe", "netstack.v1.Flow"});
  ASSERT_TRUE(describe.ok()) << describe.err;
  EXPECT_PRED2(Has, describe.out, "outbound_bytes");
}

TEST_P(GrpcurlTest, StartStatsWatchStop) {
  EXPECT_PRED2(Has, Call("NetstackService/GetStatus"), "STACK_STATE_STOPPED");
  EXPECT_PRED2(Has, Call("NetstackService/Start"), "STACK_STATE_RUNNING");
  World().Attach(Service::kTun, 1500);
  PatternServer server(World().srv());
  Tcp app(World().app(), AF_INET);
  ASSERT_EQ(app.Connect(Address(kV4.tunnel, server.port())), 0);
  AskFor(app, Wish::kEcho, 0, 0);
  ASSERT_EQ(app.Send(std::string(1'000, 'x')), 0);
  ASSERT_EQ(app.Receive(1'000), std::string(1'000, 'x'));

  const std::string stats = Call("NetstackService/GetStats");
  EXPECT_PRED2(Has, stats, "\"established\": \"1\"");
  // gRPC C++'s reflection does not tell the JSON names of fields.
  EXPECT_PRED2(Has, stats,
               GetParam() == Knows::kReflection
                   ? "\"outbound_bytes\": \"1024\""
                   : "\"outboundBytes\": \"1024\"");
  EXPECT_PRED2(Has, stats, "DROP_REASON_BAD_TCP_OPTIONS");
  const std::string flows =
      Call("FlowService/ListFlows", {"-d", R"({"page_size": 10})"});
  EXPECT_PRED2(Has, flows, "FLOW_STATE_OPEN");
  EXPECT_PRED2(Has, flows, "10.77.1.2");

  // A stream, until its second reading.
  const TempDir dir;
  Process watch(Words({"-d", R"({"interval": "0.1s"})"},
                      {"netstack.v1.NetstackService/WatchStats"}),
                {.output = dir / "out"});
  EXPECT_TRUE(Eventually([&] {
    const std::string text = ReadFile(dir / "out");
    const size_t first = text.find("\"stats\"");
    return first != std::string::npos &&
           text.find("\"stats\"", first + 1) != std::string::npos;
  })) << ReadFile(dir / "out");
  // The flows' snapshot.
  Process flow_watch(Words({}, {"netstack.v1.FlowService/WatchFlows"}),
                     {.output = dir / "flows"});
  EXPECT_TRUE(Eventually([&] {
    return Has(ReadFile(dir / "flows"), GetParam() == Knows::kReflection
                                            ? "end_of_snapshot"
                                            : "endOfSnapshot");
  })) << ReadFile(dir / "flows");

  EXPECT_PRED2(Has, Call("NetstackService/Stop"), "\"stopped\": true");
  EXPECT_EQ(app.ReadError(), ECONNRESET);
  // Watching flows ends with the stack, and says why.
  const auto ended = flow_watch.Wait();
  ASSERT_TRUE(ended.has_value());
  EXPECT_NE(ended->code, 0);
  EXPECT_PRED2(Has, ReadFile(dir / "flows"), "FailedPrecondition");
  EXPECT_TRUE(watch.running());
}

TEST_P(GrpcurlTest, ErrorsHaveDetails) {
  const Output flows = Grpcurl({"netstack.v1.FlowService/ListFlows"});
  EXPECT_FALSE(flows.ok());
  EXPECT_PRED2(Has, flows.err, "FailedPrecondition");
  EXPECT_PRED2(Has, flows.err, "STACK_NOT_RUNNING");
  const Output config = Grpcurl(
      {"netstack.v1.NetstackService/UpdateConfig"},
      {"-d", R"({"config": {"tun": {"mtu": 5}, "tcp": {"buffer_max": 1}}})"});
  EXPECT_FALSE(config.ok());
  EXPECT_PRED2(Has, config.err, "InvalidArgument");
  EXPECT_PRED2(Has, config.err, "tun.mtu");
  EXPECT_PRED2(Has, config.err, "tcp.buffer_max");
}

TEST_P(GrpcurlTest, Health) {
  const Output health = Grpcurl({"grpc.health.v1.Health/Check"});
  ASSERT_TRUE(health.ok()) << health.err;
  EXPECT_PRED2(Has, health.out, "\"SERVING\"");
}

INSTANTIATE_TEST_SUITE_P(Every, GrpcurlTest,
                         testing::Values(Knows::kReflection, Knows::kProtoset),
                         [](const auto& p) {
                           return p.param == Knows::kReflection ? "Reflection"
                                                                : "Protoset";
                         });

}  // namespace
}  // namespace netstack::e2e

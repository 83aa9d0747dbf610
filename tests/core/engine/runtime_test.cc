// The engine on its own thread, with a real TUN: core/engine/runtime.h.
#include "core/engine/runtime.h"

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/support/net_admin.h"

namespace netstack::test {
namespace {

constexpr char kDevice[] = "nsrt0";

class SilentObserver final : public Observer {
 public:
  void OnFlow(FlowChange, const FlowInfo&) override {}
  void OnEvent(const Event&) override {}
  void OnFailed(const absl::Status&) override {}
};

class RuntimeTest : public testing::Test {
 protected:
  static Config Named(const std::string& name) {
    Config config;
    config.tun.name = name;
    return config;
  }
  absl::StatusOr<std::unique_ptr<Runtime>> Start(const Config& config) {
    return Runtime::Start(config, &observer);
  }

  SilentObserver observer;
};

TEST_F(RuntimeTest, StartsCallsAndStops) {
  auto runtime = Start(Named(kDevice));
  ASSERT_TRUE(runtime.ok()) << runtime.status();
  EXPECT_TRUE(DeviceIsUp(kDevice));
  const auto info = (*runtime)->Call([](Engine& e) { return e.GetInfo(); });
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->tun_name, kDevice);
  EXPECT_EQ(info->tun_mtu, 1500u);
  (*runtime)->Stop();
  EXPECT_FALSE(DeviceExists(kDevice)) << "the TUN closes with the stack";
  EXPECT_EQ((*runtime)->Call([](Engine&) { return 1; }).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_FALSE((*runtime)->Post([](Engine&) { FAIL(); }));
  (*runtime)->Stop();  // no effect
}

TEST_F(RuntimeTest, StartStopStart) {
  for (int i = 0; i < 3; ++i) {
    auto runtime = Start(Named(kDevice));
    ASSERT_TRUE(runtime.ok()) << runtime.status();
  }
}

TEST_F(RuntimeTest, OnlyOneAtATime) {
  auto first = Start(Named(kDevice));
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(Start(Named("nsrt1")).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(DeviceExists("nsrt1"));
  // The first one lives.
  EXPECT_TRUE((*first)->Call([](Engine&) { return 1; }).ok());
}

TEST_F(RuntimeTest, BadConfigIsRefusedWithItsField) {
  Config config = Named(kDevice);
  config.tun.mtu = 10;
  const absl::Status status = Start(config).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("tun.mtu"), absl::string_view::npos);
  EXPECT_FALSE(DeviceExists(kDevice));
}

TEST_F(RuntimeTest, BadDescriptorIsRefused) {
  Config config;
  config.tun.fd = 12345;
  EXPECT_EQ(Start(config).status().code(), absl::StatusCode::kInvalidArgument);
}

// Whoever waits for an answer gets one, or is told that none will come.
TEST_F(RuntimeTest, CallsRaceWithStop) {
  for (int round = 0; round < 10; ++round) {
    auto runtime = Start(Named(kDevice));
    ASSERT_TRUE(runtime.ok());
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i) {
      callers.emplace_back([&runtime] {
        while (true) {
          const auto answer = (*runtime)->Call([](Engine&) { return 7; });
          if (!answer.ok()) return;
          EXPECT_EQ(*answer, 7);
        }
      });
    }
    ASSERT_TRUE((*runtime)->Call([](Engine&) { return 1; }).ok());
    (*runtime)->Stop();
    for (std::thread& t : callers) t.join();
  }
}

TEST_F(RuntimeTest, LostDeviceIsTold) {
  class Waiter final : public Observer {
   public:
    void OnFlow(FlowChange, const FlowInfo&) override {}
    void OnEvent(const Event&) override {}
    void OnFailed(const absl::Status& why) override { promise.set_value(why); }
    std::promise<absl::Status> promise;
  } waiter;
  auto runtime = Runtime::Start(Named(kDevice), &waiter);
  ASSERT_TRUE(runtime.ok());
  ASSERT_TRUE(DeleteDevice(kDevice).ok());
  auto told = waiter.promise.get_future();
  ASSERT_EQ(told.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_EQ(told.get().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE((*runtime)->Call([](Engine&) { return 1; }).ok());
}

}  // namespace
}  // namespace netstack::test

// Watchers that are slow, that stop reading (R13 scaled), and stacks that fail.
// The engine is real; what it tells is scripted on its loop.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/test_server.h"

namespace netstack::test {
namespace {

using ::testing::HasSubstr;
using grpc::StatusCode;
using std::chrono::milliseconds;

v1::Config TestConfig() {
  v1::Config config;
  config.mutable_tun()->set_name("ns-watch0");
  config.mutable_control()->set_watch_queue(16);
  return config;
}

// Long enough for a sanitizer that stops the world for half a second.
constexpr int64_t kStallMs = 2000;

class WatchTest : public ::testing::Test {
 protected:
  void MustStart() {
    const grpc::Status started = server_.Start();
    ASSERT_TRUE(started.ok())
        << "this test opens a TUN, which needs /dev/net/tun and the right to "
           "use it: "
        << started.error_message();
  }

  // On the loop thread, as if the engine said so.
  void Say(std::function<void(Observer&)> what) {
    MutexLock lock(mu_);
    ASSERT_TRUE(runtime_->Post(
        [observer = observer_, what = std::move(what)](Engine&) {
          what(*observer);
        }));
  }

  // For the subscriptions that follow.
  void SetStallTimeout() {
    v1::UpdateConfigRequest request;
    *request.mutable_config()->mutable_control()->mutable_stall_timeout() =
        Millis(kStallMs);
    Context context;
    v1::UpdateConfigResponse response;
    ASSERT_TRUE(
        server_.netstack().UpdateConfig(&context, request, &response).ok());
  }

  void FailNextStart(const absl::Status& why) {
    MutexLock lock(mu_);
    fail_with_ = why;
  }

 private:
  Mutex mu_;
  Runtime* runtime_ ABSL_GUARDED_BY(mu_) = nullptr;  // the server's
  Observer* observer_ ABSL_GUARDED_BY(mu_) = nullptr;
  absl::Status fail_with_ ABSL_GUARDED_BY(mu_);

 protected:
  TestServer server_{
      TestConfig(),
      [this](const Config& config,
             Observer* observer) -> absl::StatusOr<std::unique_ptr<Runtime>> {
        MutexLock lock(mu_);
        if (!fail_with_.ok()) return std::exchange(fail_with_, {});
        auto made = Runtime::Start(config, observer);
        if (made.ok()) {
          runtime_ = made->get();
          observer_ = observer;
        }
        return made;
      }};
};

FlowInfo SomeFlow(uint64_t id) {
  FlowInfo flow;
  flow.id = id;
  flow.key.app = {IpAddress::V4(10, 0, 0, 2), 40000};
  flow.key.remote = {IpAddress::V4(192, 0, 2, 1), 80};
  return flow;
}

TEST_F(WatchTest, StartFailuresAreSentencesWithReasons) {
  struct {
    absl::Status why;
    StatusCode code;
    const char* reason;
  } const cases[] = {
      {absl::PermissionDeniedError("no right"), StatusCode::PERMISSION_DENIED,
       "NO_PERMISSION"},
      {absl::NotFoundError("no TUN"), StatusCode::NOT_FOUND, "TUN_NOT_FOUND"},
      {absl::FailedPreconditionError("busy"), StatusCode::FAILED_PRECONDITION,
       "TUN_BUSY"},
      {absl::UnavailableError("else"), StatusCode::UNAVAILABLE,
       "START_FAILED"},
      {absl::UnknownError("odd"), StatusCode::INTERNAL, "START_FAILED"},
  };
  for (const auto& c : cases) {
    FailNextStart(c.why);
    const grpc::Status refused = server_.Start();
    EXPECT_EQ(refused.error_code(), c.code);
    EXPECT_EQ(refused.error_message(), c.why.message());
    EXPECT_EQ(DetailsOf(refused).info.reason(), c.reason);
    EXPECT_EQ(server_.Status().state(), v1::STACK_STATE_FAILED);
    EXPECT_EQ(server_.Status().failure(), c.why.message());
  }
  // FAILED is left by a start, and by a stop.
  MustStart();
  EXPECT_EQ(server_.Status().failure(), "");
  ASSERT_TRUE(server_.Stop().ok());
  FailNextStart(absl::UnavailableError("x"));
  EXPECT_FALSE(server_.Start().ok());
  v1::StopResponse stopped;
  ASSERT_TRUE(server_.Stop(&stopped).ok());
  EXPECT_FALSE(stopped.stopped());
  EXPECT_EQ(server_.Status().state(), v1::STACK_STATE_STOPPED);
}

TEST_F(WatchTest, AnEngineThatEndsIsToldAndCanBeStartedAgain) {
  MustStart();
  Context context;
  auto stream = server_.flows().WatchFlows(&context, {});
  v1::WatchFlowsResponse message;
  ASSERT_TRUE(stream->Read(&message));
  Say([](Observer& o) { o.OnFailed(absl::UnavailableError("TUN is gone")); });
  EXPECT_TRUE(Eventually(
      [&] { return server_.Status().state() == v1::STACK_STATE_FAILED; }));
  EXPECT_EQ(server_.Status().failure(), "TUN is gone");
  EXPECT_FALSE(stream->Read(&message));
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::FAILED_PRECONDITION);
  const v1::Event last =
      *server_.server().events().After(server_.server().events().newest() - 1)
           .event;
  EXPECT_EQ(last.type(), v1::EVENT_TYPE_STACK_FAILED);
  MustStart();
}

TEST_F(WatchTest, TheCoresEventsAreForwardedButNotItsLife) {
  MustStart();
  const uint64_t before = server_.server().events().newest();
  Say([](Observer& o) {
    o.OnEvent({EventType::kStackStarted, "twice", 0});
    o.OnEvent({EventType::kFlowPoisoned, "poisoned", 7});
  });
  ASSERT_TRUE(Eventually(
      [&] { return server_.server().events().newest() > before; }));
  const v1::Event event = *server_.server().events().After(before).event;
  EXPECT_EQ(event.type(), v1::EVENT_TYPE_FLOW_POISONED);
  EXPECT_EQ(event.flow_id(), 7u);
  EXPECT_EQ(event.message(), "poisoned");
}

TEST_F(WatchTest, LossIsToldOnceWithACount) {
  MustStart();
  Context context;
  auto stream = server_.flows().WatchFlows(&context, {});
  v1::WatchFlowsResponse message;
  ASSERT_TRUE(stream->Read(&message));
  ASSERT_TRUE(message.has_end_of_snapshot());
  // More at once, on the loop, than the queue of 16 holds.
  constexpr uint64_t kChanges = 1000;
  Say([](Observer& o) {
    for (uint64_t i = 1; i <= kChanges; ++i) {
      o.OnFlow(FlowChange::kUpdated, SomeFlow(i));
    }
  });
  uint64_t told = 0, lost = 0, losses = 0;
  while (told + lost < kChanges) {
    ASSERT_TRUE(stream->Read(&message));
    told += static_cast<uint64_t>(message.changes().changes_size());
    if (message.has_loss()) {
      ++losses;
      lost += message.loss().changes();
    }
  }
  EXPECT_EQ(told + lost, kChanges);
  EXPECT_GE(losses, 1u);
  EXPECT_GE(told, 16u);
  EXPECT_EQ(server_.Stats().control().watch_losses(), lost);
  // Afterwards changes go on.
  Say([](Observer& o) { o.OnFlow(FlowChange::kClosed, SomeFlow(5)); });
  ASSERT_TRUE(stream->Read(&message));
  ASSERT_EQ(message.changes().changes_size(), 1);
  EXPECT_EQ(message.changes().changes(0).sequence(), kChanges + 1);
  EXPECT_EQ(message.sequence(), kChanges + 1);
  context.TryCancel();
  stream->Finish();
}

TEST_F(WatchTest, ChangesAreFilteredButNotByState) {
  MustStart();
  v1::WatchFlowsRequest request;
  request.mutable_filter()->set_remote("192.0.2.0/24");
  request.mutable_filter()->set_state(v1::FLOW_STATE_OPEN);
  Context context;
  auto stream = server_.flows().WatchFlows(&context, request);
  v1::WatchFlowsResponse message;
  ASSERT_TRUE(stream->Read(&message));
  Say([](Observer& o) {
    FlowInfo other = SomeFlow(1);
    other.key.remote.ip = IpAddress::V4(198, 51, 100, 1);
    o.OnFlow(FlowChange::kOpened, other);
    o.OnFlow(FlowChange::kOpened, SomeFlow(2));  // DIALING
  });
  ASSERT_TRUE(stream->Read(&message));
  ASSERT_EQ(message.changes().changes_size(), 1);
  EXPECT_EQ(message.changes().changes(0).flow().id(), 2u);
  EXPECT_EQ(message.changes().changes(0).sequence(), 2u);
  context.TryCancel();
  stream->Finish();
}

// R13 scaled: 10 watchers, one stops reading.
TEST_F(WatchTest, AStalledWatcherIsEndedAndTheOthersGoOn) {
  constexpr int kOthers = 9, kEvents = 400;
  SetStallTimeout();
  const std::string text(2000, 'x');  // 800 kB in all: over any window
  Context stalled_context;
  // Without probing, which widens the client's window by megabytes.
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  auto stalled_stub =
      v1::NetstackService::NewStub(server_.NewChannel(args));
  auto stalled = stalled_stub->WatchEvents(&stalled_context, {});
  v1::WatchEventsResponse first;
  do {
    ASSERT_TRUE(stalled->Read(&first));
  } while (!first.has_end_of_replay());
  const uint64_t before = first.end_of_replay().sequence();

  std::atomic<int> ready{0}, late{0}, complete{0};
  std::vector<std::thread> others;
  for (int i = 0; i < kOthers; ++i) {
    others.emplace_back([&] {
      auto stub = v1::NetstackService::NewStub(server_.NewChannel());
      Context context;
      auto stream = stub->WatchEvents(&context, {});
      v1::WatchEventsResponse message;
      do {
        if (!stream->Read(&message)) return;
      } while (!message.has_end_of_replay());
      ++ready;
      int seen = 0;
      uint64_t expected = before + 1;
      while (seen < kEvents && stream->Read(&message)) {
        EXPECT_EQ(message.event().sequence(), expected++);
        const auto& t = message.event().time();
        const auto sent = std::chrono::seconds(t.seconds()) +
                          std::chrono::nanoseconds(t.nanos());
        const auto now = std::chrono::system_clock::now().time_since_epoch();
        if (now - sent > milliseconds(100)) ++late;
        ++seen;
      }
      if (seen == kEvents) ++complete;
      context.TryCancel();
      stream->Finish();
    });
  }
  ASSERT_TRUE(Eventually([&] { return ready == kOthers; }));
  for (int i = 0; i < kEvents; ++i) {
    server_.server().events().Add(v1::EVENT_TYPE_MEMORY_PRESSURE, text);
    std::this_thread::sleep_for(milliseconds(5));
  }
  for (auto& t : others) t.join();
  EXPECT_EQ(complete, kOthers);
  // R13 wants at most 1 %; told and not checked, as machines are shared.
  std::printf("events told after more than 100 ms: %d of %d\n", late.load(),
              kOthers * kEvents);

  ASSERT_TRUE(Eventually([&] {
    return server_.Stats().control().watchers_stalled() == 1;
  }));
  // It reads again: what was under way, then the reason.
  v1::WatchEventsResponse message;
  int seen = 0;
  while (stalled->Read(&message)) ++seen;
  EXPECT_LT(seen, kEvents);
  const grpc::Status ended = stalled->Finish();
  EXPECT_EQ(ended.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(ended.error_message(), HasSubstr("stall_timeout"));
  EXPECT_TRUE(Eventually(
      [&] { return server_.Stats().control().watchers() == 0; }));
}

// A watcher that has nothing to take does not stall.
TEST_F(WatchTest, AnIdleWatcherIsLeftAlone) {
  SetStallTimeout();
  v1::WatchEventsRequest request;
  request.set_after_sequence(server_.server().events().newest());
  Context context;
  auto stream = server_.netstack().WatchEvents(&context, request);
  v1::WatchEventsResponse message;
  ASSERT_TRUE(stream->Read(&message));
  std::this_thread::sleep_for(milliseconds(kStallMs * 3 / 2));
  server_.server().events().Add(v1::EVENT_TYPE_MEMORY_PRESSURE, "x");
  EXPECT_TRUE(stream->Read(&message));
  EXPECT_TRUE(message.has_event());
  context.TryCancel();
  stream->Finish();
}

TEST_F(WatchTest, ShutdownEndsWatchersWithAReason) {
  Context context;
  auto stream = server_.netstack().WatchEvents(&context, {});
  v1::WatchEventsResponse message;
  ASSERT_TRUE(stream->Read(&message));
  const auto before = std::chrono::steady_clock::now();
  server_.server().Shutdown(std::chrono::seconds(10));
  EXPECT_LT(std::chrono::steady_clock::now() - before,
            std::chrono::seconds(5));
  EXPECT_FALSE(stream->Read(&message));
  const grpc::Status ended = stream->Finish();
  EXPECT_EQ(ended.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(ended).info.reason(), "SHUTTING_DOWN");
}

// Calls, watchers and stops at once; TSan and ASan look on.
TEST_F(WatchTest, EverythingAtOnce) {
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      auto channel = server_.NewChannel();
      auto netstack = v1::NetstackService::NewStub(channel);
      auto flows = v1::FlowService::NewStub(channel);
      while (!done) {
        Context a, b, c;
        v1::GetStatsResponse stats;
        EXPECT_TRUE(netstack->GetStats(&a, {}, &stats).ok());
        v1::WatchFlowsRequest request;
        *request.mutable_update_interval() = Millis(100);
        auto watch = flows->WatchFlows(&b, request);
        v1::WatchFlowsResponse message;
        watch->Read(&message);
        v1::ListFlowsResponse list;
        flows->ListFlows(&c, {}, &list);
        b.TryCancel();
        watch->Finish();
      }
    });
  }
  for (int i = 0; i < 10; ++i) {
    MustStart();
    std::this_thread::sleep_for(milliseconds(20));
    EXPECT_TRUE(server_.Stop().ok());
  }
  done = true;
  for (auto& t : threads) t.join();
  EXPECT_TRUE(Eventually(
      [&] { return server_.Stats().control().watchers() == 0; }));
}

}  // namespace
}  // namespace netstack::test

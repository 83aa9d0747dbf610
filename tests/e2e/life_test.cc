// The service's own life: signals, starts and stops, a TUN that goes away, and
// what watchers are told of it.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

class LifeTest : public testing::TestWithParam<const Family*> {
 protected:
  const Family& family() const { return *GetParam(); }

  Tcp Connected(uint16_t port) {
    Tcp socket(World().app(), family().family);
    EXPECT_EQ(socket.Connect(Address(family().tunnel, port)), 0);
    return socket;
  }
  // One transfer each way.
  void ExpectTraffic(PatternServer& server) {
    Tcp up = Connected(server.port());
    EXPECT_EQ(AskUpload(up, 1, 1'000'000), "");
    Tcp down = Connected(server.port());
    EXPECT_EQ(AskDownload(down, 2, 1'000'000), "");
  }
};

TEST_P(LifeTest, SigtermResetsFlowsAndEndsCleanly) {
  constexpr size_t kFlows = 100;
  Service service;
  Holder holder(World().srv());
  std::vector<Tcp> apps;
  for (size_t i = 0; i < kFlows; ++i) apps.push_back(Connected(holder.port()));
  ASSERT_TRUE(Eventually([&] { return holder.count() == kFlows; }));

  const auto start = Clock::now();
  service.process().Signal(SIGTERM);
  const auto exit = service.process().Wait();
  EXPECT_LT(SecondsSince(start), 3);
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->code, 0) << "signal " << exit->signal;
  // Both sides were told; nobody waits for a timeout.
  for (Tcp& app : apps) EXPECT_EQ(app.ReadError(), ECONNRESET);
  for (Tcp& server : holder.Take()) EXPECT_EQ(server.ReadError(), ECONNRESET);
  // Nothing is left behind.
  struct stat entry;
  EXPECT_NE(stat(service.socket_path().c_str(), &entry), 0);
  EXPECT_FALSE(
      Execute({"ip", "-n", World().app(), "link", "show", "dev", Service::kTun})
          .ok());
}

TEST_P(LifeTest, StopStartCyclesLeakNothing) {
  constexpr int kCycles = 20;
  Service service({.start = false});
  PatternServer server(World().srv());
  int descriptors = 0;
  size_t memory = 0;
  for (int i = 0; i < kCycles; ++i) {
    SCOPED_TRACE(i);
    ASSERT_NO_FATAL_FAILURE(service.StartStack());
    ExpectTraffic(server);
    Tcp open = Connected(server.port());
    ASSERT_TRUE(service.control().Stop().ok());
    EXPECT_EQ(open.ReadError(), ECONNRESET);
    EXPECT_EQ(service.control().Status().state(), v1::STACK_STATE_STOPPED);
    // gRPC and the allocator have taken what they want after a few.
    if (i == 4) {
      descriptors = service.process().CountDescriptors();
      memory = service.process().ResidentBytes();
    }
  }
  EXPECT_EQ(service.process().CountDescriptors(), descriptors);
  EXPECT_LT(service.process().ResidentBytes(), memory + (1 << 20));
}

// A second Start is refused and disturbs nothing; a second Stop does nothing.
TEST_P(LifeTest, StartAndStopTwice) {
  Service service;
  PatternServer server(World().srv());
  Tcp open = Connected(server.port());
  EXPECT_EQ(service.control().Start().code, 9);  // FAILED_PRECONDITION
  EXPECT_EQ(AskUpload(open, 1, 100'000), "");
  EXPECT_TRUE(service.control().Stop().ok());
  EXPECT_TRUE(service.control().Stop().ok());
}

TEST_P(LifeTest, TunDeletedUnderIt) {
  Service service;
  PatternServer server(World().srv());
  Tcp open = Connected(server.port());
  Ip("-n " + World().app() + " link del " + Service::kTun);
  EXPECT_TRUE(Eventually([&] {
    return service.control().Status().state() == v1::STACK_STATE_FAILED;
  }));
  EXPECT_NE(service.control().Status().failure(), "");
  bool told = false;
  service.control().WatchEvents([&](const v1::WatchEventsResponse& message) {
    told |= message.event().type() == v1::EVENT_TYPE_STACK_FAILED;
    return !message.has_end_of_replay();
  });
  EXPECT_TRUE(told);
  const double cpu = service.process().CpuSeconds();
  Pause(seconds(1));
  EXPECT_LT(service.process().CpuSeconds() - cpu, 0.1);
  // And again, as if nothing had been.
  ASSERT_NO_FATAL_FAILURE(service.StartStack());
  ExpectTraffic(server);
}

TEST_P(LifeTest, KilledAndLaunchedAgain) {
  Service service;
  PatternServer server(World().srv());
  ExpectTraffic(server);
  const uint64_t epoch = service.control().Status().epoch();
  service.process().Signal(SIGKILL);
  ASSERT_TRUE(service.process().Wait().has_value());
  struct stat entry;
  ASSERT_EQ(stat(service.socket_path().c_str(), &entry), 0)
      << "nothing stale to replace";
  ASSERT_NO_FATAL_FAILURE(service.Launch());
  ASSERT_NO_FATAL_FAILURE(service.StartStack());
  EXPECT_GT(service.control().Status().epoch(), epoch);
  ExpectTraffic(server);
}

// R12: a live socket is never stolen, and it is ours alone.
TEST_P(LifeTest, SecondServiceIsRefused) {
  Service service;
  const Output second = Execute(
      {NetstackdPath(), "--socket", service.socket_path()}, World().gw());
  EXPECT_EQ(second.exit.code, 1);
  EXPECT_NE(second.err, "");
  EXPECT_EQ(std::count(second.err.begin(), second.err.end(), '\n'), 1)
      << second.err;
  EXPECT_EQ(service.control().Status().state(), v1::STACK_STATE_RUNNING);
  Control another(service.socket_path());
  EXPECT_EQ(another.Status().state(), v1::STACK_STATE_RUNNING);
  struct stat entry;
  ASSERT_EQ(stat(service.socket_path().c_str(), &entry), 0);
  EXPECT_EQ(entry.st_mode & 07777, 0600u);
}

// A TUN that was made beforehand is attached to by its name, and stays.
TEST_P(LifeTest, PersistentTun) {
  const std::string gw = "-n " + World().gw() + " ";
  Ip(gw + "tuntap add mode tun name " + Service::kTun);
  {
    Service service;
    PatternServer server(World().srv());
    ExpectTraffic(server);
    ASSERT_TRUE(service.control().Stop().ok());
  }
  const Output still = Execute(
      {"ip", "-n", World().app(), "link", "show", "dev", Service::kTun});
  EXPECT_TRUE(still.ok()) << still.err;
  Ip("-n " + World().app() + " link del " + Service::kTun);
}

// Without the right to make a TUN: one sentence, and the service lives.
TEST_P(LifeTest, BusyTunIsToldInOneSentence) {
  Service service({.start = false});
  const Fd mine = MakeTun(World().gw(), Service::kTun);
  const RpcResult result = service.control().Start();
  EXPECT_EQ(result.code, 9);  // FAILED_PRECONDITION
  EXPECT_NE(result.message, "");
  EXPECT_EQ(service.control().Status().state(), v1::STACK_STATE_FAILED);
}

TEST_P(LifeTest, WatchFlowsTellsEveryStep) {
  Service service;
  Tcp listener = Listen(World().srv());
  Tcp before = Connected(listener.Local().port());

  uint64_t snapshot = 0;
  bool complete = false;
  std::vector<v1::FlowChange> changes;
  Tcp during;
  Control watcher(service.socket_path());
  const RpcResult result =
      watcher.WatchFlows({}, [&](const v1::WatchFlowsResponse& message) {
        EXPECT_FALSE(message.has_loss());
        snapshot += message.snapshot().flows_size();
        if (message.has_end_of_snapshot()) {
          complete = true;
          EXPECT_EQ(message.end_of_snapshot().flows(), snapshot);
          during = Connected(listener.Local().port());
          during.Send(std::string("hello"));
          Tcp first = AcceptOne(listener);
          Tcp server = AcceptOne(listener);
          EXPECT_EQ(server.Receive(5), "hello");
          during.ShutdownWrite();
          EXPECT_TRUE(server.AtEnd());
          server.Close();
          EXPECT_TRUE(during.AtEnd());
        }
        for (const v1::FlowChange& change : message.changes().changes()) {
          changes.push_back(change);
          if (change.type() == v1::FLOW_CHANGE_TYPE_CLOSED) return false;
        }
        return true;
      });
  EXPECT_EQ(result.code, 1) << result.message;  // CANCELLED, by us
  EXPECT_TRUE(complete);
  EXPECT_EQ(snapshot, 1u);
  // The first flow may be reset meanwhile (its server went): ours is the one
  // that was opened.
  ASSERT_FALSE(changes.empty());
  uint64_t id = 0;
  uint64_t sequence = 0;
  std::vector<v1::FlowState> states;
  for (const v1::FlowChange& change : changes) {
    EXPECT_GT(change.sequence(), sequence);
    sequence = change.sequence();
    if (change.type() == v1::FLOW_CHANGE_TYPE_OPENED) id = change.flow().id();
    if (change.flow().id() == id) states.push_back(change.flow().state());
  }
  EXPECT_EQ(states.front(), v1::FLOW_STATE_DIALING);
  EXPECT_NE(std::find(states.begin(), states.end(), v1::FLOW_STATE_OPEN),
            states.end());
  EXPECT_NE(std::find(states.begin(), states.end(), v1::FLOW_STATE_APP_CLOSED),
            states.end());
}

TEST_P(LifeTest, ListAndCloseFlows) {
  Service service;
  Holder holder(World().srv());
  std::vector<Tcp> apps;
  std::set<uint32_t> ports;
  for (int i = 0; i < 20; ++i) {
    apps.push_back(Connected(holder.port()));
    ports.insert(apps.back().Local().port());
  }
  const auto flows = service.control().Flows();
  ASSERT_EQ(flows.size(), apps.size());
  for (const v1::Flow& flow : flows) {
    EXPECT_EQ(flow.key().app().address(), family().app);
    EXPECT_EQ(flow.key().remote().address(), family().tunnel);
    EXPECT_EQ(flow.key().remote().port(), holder.port());
    EXPECT_EQ(ports.count(flow.key().app().port()), 1u);
    EXPECT_NE(flow.upstream_local().port(), 0u);
  }
  v1::FlowFilter filter;
  filter.set_app_port(apps[3].Local().port());
  EXPECT_EQ(service.control().Flows(filter).size(), 1u);
  EXPECT_EQ(service.control().CloseAllFlows(), apps.size());
  for (Tcp& app : apps) EXPECT_EQ(app.ReadError(), ECONNRESET);
  EXPECT_TRUE(Eventually([&] { return service.control().Flows().empty(); }));
}

INSTANTIATE_TEST_SUITE_P(Every, LifeTest, testing::Values(&kV4, &kV6),
                         FamilyName);

}  // namespace
}  // namespace netstack::e2e

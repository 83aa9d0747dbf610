// The loop, with everything below it scripted: core/engine/loop.h.
#include "core/engine/loop.h"

#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/core/wire/test_packets.h"
#include "tests/support/fake_clock.h"
#include "tests/support/scripted_datagrams.h"
#include "tests/support/scripted_poller.h"
#include "tests/support/scripted_datagrams.h"
#include "tests/support/scripted_sockets.h"
#include "tests/support/scripted_tun.h"

namespace netstack::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

class Recorder final : public Observer {
 public:
  void OnFlow(FlowChange, const FlowInfo& flow) override {
    flows.push_back(flow);
  }
  void OnEvent(const Event& event) override { events.push_back(event); }
  void OnFailed(const absl::Status& why) override { failures.push_back(why); }

  std::vector<FlowInfo> flows;
  std::vector<Event> events;
  std::vector<absl::Status> failures;
};

class LoopTest : public testing::Test {
 protected:
  void Start(const Config& config = {}, int add_result = 0) {
    Platform platform;
    auto fake_clock = std::make_unique<FakeClock>();
    clock = fake_clock.get();
    auto fake_poller = std::make_unique<ScriptedPoller>(clock);
    poller = fake_poller.get();
    poller->add_result = add_result;
    auto fake_sockets = std::make_unique<ScriptedSockets>();
    sockets = fake_sockets.get();
    auto fake_datagrams = std::make_unique<ScriptedDatagrams>(sockets);
    datagrams = fake_datagrams.get();
    auto fake_tun = std::make_unique<ScriptedTun>();
    tun = fake_tun.get();
    platform.clock = std::move(fake_clock);
    platform.poller = std::move(fake_poller);
    platform.datagrams = std::move(fake_datagrams);
    platform.sockets = std::move(fake_sockets);
    platform.tun = std::move(fake_tun);
    auto made = Loop::Create(config, std::move(platform),
                             Loop::Secrets{{1, 2}, {3, 4}}, &observer);
    status = made.status();
    if (made.ok()) loop = *std::move(made);
  }
  // What the TUN has to read, and a turn.
  void Give(const ByteVector& packet) {
    tun->Push(packet);
    poller->InjectReadable(ScriptedTun::kFd);
    loop->Turn(clock->Now());
  }
  void Syn(const Family& family, uint16_t port = 40000) {
    TcpSpec spec;
    spec.source_port = port;
    spec.flags = tcp_flag::kSyn;
    spec.seq = 1000;
    Give(MakeTcpPacket(family, spec));
  }
  // A connection from SYN to open.
  void Connect(const Family& family, uint16_t port = 40000) {
    tun->TakeWritten();
    Syn(family, port);
    poller->InjectWritable(sockets->last().fd);
    loop->Turn(clock->Now());
    ASSERT_EQ(tun->written().size(), 1u);
    const size_t tcp = family.v4() ? 20 : 40;
    const uint32_t isn = Load32(&tun->TakeWritten()[0].bytes[tcp + 4]);
    TcpSpec spec;
    spec.source_port = port;
    spec.seq = 1001;
    spec.ack = isn + 1;
    Give(MakeTcpPacket(family, spec));
    ASSERT_EQ(loop->GetStats().tcp.established, ++established);
  }
  // Turns until nothing is left to do but to wait for longer than `d`.
  void Settle(Duration d) {
    const Instant end = clock->Now() + d;
    while (clock->Now() < end) loop->Turn(end);
  }

  FakeClock* clock = nullptr;
  ScriptedPoller* poller = nullptr;
  ScriptedSockets* sockets = nullptr;
  ScriptedDatagrams* datagrams = nullptr;
  ScriptedTun* tun = nullptr;
  Recorder observer;
  absl::Status status;
  std::unique_ptr<Loop> loop;
  uint64_t established = 0;
};

TEST_F(LoopTest, PacketsReachTheForwarder) {
  Start();
  ASSERT_TRUE(loop != nullptr) << status;
  EXPECT_EQ(poller->watch(ScriptedTun::kFd)->trigger,
            Poller::Trigger::kLevelRead);
  Connect(kV4);
  Connect(kV6);
  const Stats stats = loop->GetStats();
  EXPECT_EQ(stats.tcp.active, 2u);
  EXPECT_EQ(stats.tun.tcp_packets, 4u);
  EXPECT_EQ(stats.descriptors_used, 2u);
  EXPECT_EQ(loop->ListFlows({}, 0, 10).size(), 2u);
}

TEST_F(LoopTest, UnwatchableTunIsToldAtTheStart) {
  Start({}, -EPERM);
  EXPECT_EQ(loop, nullptr);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
}

TEST_F(LoopTest, ASecondLoopIsRefused) {
  Start();
  std::unique_ptr<Loop> first = std::move(loop);
  Start();
  EXPECT_EQ(loop, nullptr);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  first.reset();
  Start();
  EXPECT_NE(loop, nullptr) << status;
}

// P10 in miniature: a hundred idle flows, and nobody wakes the loop before
// the first of their deadlines, two hours away.
TEST_F(LoopTest, IdleLoopDoesNotWake) {
  Start();
  for (uint16_t i = 0; i < 100; ++i) {
    Connect(i % 2 == 0 ? kV4 : kV6, static_cast<uint16_t>(1000 + i));
  }
  Settle(seconds(62));  // handshakes, dials, trimming
  const uint64_t wakeups = loop->GetStats().loop.wakeups;
  loop->Turn(clock->Now() + minutes(60));
  EXPECT_EQ(loop->GetStats().loop.wakeups, wakeups + 1) << "the test's own";
  EXPECT_GE(clock->Now(), Instant(std::chrono::hours(1)) + minutes(60));
}

TEST_F(LoopTest, FullBatchesGoOnWithoutWaiting) {
  Start();
  TcpSpec spec;
  spec.flags = tcp_flag::kRst;
  for (int i = 0; i < 1000; ++i) tun->Push(MakeTcpPacket(kV4, spec));
  poller->InjectReadable(ScriptedTun::kFd);
  const Instant before = clock->Now();
  for (int i = 0; i < 10 && tun->unread() > 0; ++i) {
    loop->Turn(clock->Now() + minutes(1));
  }
  EXPECT_EQ(tun->unread(), 0u);
  EXPECT_EQ(clock->Now(), before);
}

TEST_F(LoopTest, FullTunIsWatchedUntilItIsWritable) {
  Start();
  Syn(kV4);
  tun->BlockWrites();
  poller->InjectWritable(sockets->last().fd);
  loop->Turn(clock->Now());  // the SYN-ACK has no room
  EXPECT_EQ(poller->watch(ScriptedTun::kFd)->trigger,
            Poller::Trigger::kLevelReadWrite);
  tun->AllowWrites();
  poller->InjectWritable(ScriptedTun::kFd);
  loop->Turn(clock->Now());
  EXPECT_EQ(tun->written().size(), 1u);
  EXPECT_EQ(poller->watch(ScriptedTun::kFd)->trigger,
            Poller::Trigger::kLevelRead);
}

// A download that takes all of the TUN's room leaves a call its part.
TEST_F(LoopTest, FullTunIsSharedByTurns) {
  Start();
  Connect(kV4);
  ScriptedSocket& tcp = sockets->last();
  ByteVector udp = Hex("9c40 01bb 0009 0000 aa");
  Give(MakeIp(kV4.app, kV4.remote, ip_protocol::kUdp, udp));  // no checksum
  const int call = sockets->last().fd;
  ASSERT_NE(call, tcp.fd);
  tun->BlockWrites();
  tcp.Feed(std::string(30'000, 'd'));
  poller->InjectReadable(tcp.fd);
  loop->Turn(clock->Now());
  for (int i = 0; i < 5; ++i) {
    datagrams->Of(call).Feed({.from = {kV4.remote, 443}, .payload = "voice"});
  }
  poller->InjectReadable(call);
  loop->Turn(clock->Now());
  tun->TakeWritten();
  int voice = 0, download = 0;
  for (int i = 0; i < 10; ++i) {
    tun->AllowWrites(1);
    poller->InjectWritable(ScriptedTun::kFd);
    loop->Turn(clock->Now());
    for (const auto& written : tun->TakeWritten()) {
      ++(Load8(&written.bytes[9]) == ip_protocol::kUdp ? voice : download);
    }
  }
  EXPECT_EQ(voice, 5);
  EXPECT_EQ(download, 5);
}

TEST_F(LoopTest, LostTunEndsEveryFlowAndIsTold) {
  Start();
  Connect(kV4);
  tun->FailReads(EBADFD);
  poller->InjectReadable(ScriptedTun::kFd);
  loop->Turn(clock->Now());
  ASSERT_EQ(observer.failures.size(), 1u);
  EXPECT_EQ(observer.failures[0].code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(loop->GetStats().tcp.active, 0u);
  EXPECT_EQ(sockets->open_count(), 0u);
  EXPECT_FALSE(poller->watch(ScriptedTun::kFd).has_value());
  // It answers on.
  bool ran = false;
  EXPECT_TRUE(
      loop->Post([&ran](Engine& e) { ran = e.GetStats().tcp.opened == 1; }));
  loop->Turn(clock->Now());
  EXPECT_TRUE(ran);
  EXPECT_EQ(observer.failures.size(), 1u);
}

TEST_F(LoopTest, PostedWorkRunsInOrder) {
  Start();
  std::string order;
  loop->Post([&order](Engine&) { order += "a"; });
  loop->Post([this, &order](Engine&) {
    order += "b";
    loop->Post([&order](Engine&) { order += "d"; });
    order += "c";
  });
  loop->Turn(kNever);  // the wake-up ends the wait
  loop->Turn(kNever);
  EXPECT_EQ(order, "abcd");
}

TEST_F(LoopTest, StopEndsRunAndResetsEverybody) {
  Start();
  Connect(kV4);
  bool ran = false;
  loop->Post([this, &ran](Engine&) {
    ran = true;
    loop->Stop();
  });
  loop->Run();
  EXPECT_TRUE(ran);
  EXPECT_FALSE(loop->Post([](Engine&) { FAIL(); }));
  EXPECT_EQ(sockets->open_count(), 0u);
  EXPECT_TRUE(sockets->last().reset);
}

TEST_F(LoopTest, WorkThatNeverRanIsDestroyed) {
  Start();
  loop->Stop();
  auto token = std::make_shared<int>(0);
  EXPECT_FALSE(loop->Post([token](Engine&) { FAIL(); }));
  EXPECT_EQ(token.use_count(), 1);
  loop->Run();
}

TEST_F(LoopTest, PostFromOtherThreads) {
  Start();
  std::vector<std::thread> threads;
  int sum = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this, &sum] {
      for (int n = 0; n < 1000; ++n) {
        loop->Post([&sum](Engine&) { ++sum; });
      }
    });
  }
  for (std::thread& t : threads) t.join();
  loop->Turn(kNever);
  EXPECT_EQ(sum, 4000);
}

TEST_F(LoopTest, PressureIsToldAtMostOnceASecond) {
  Config config;
  config.limits.max_flows = 1;
  Start(config);
  Connect(kV4, 1);
  for (uint16_t i = 0; i < 10; ++i) Syn(kV4, static_cast<uint16_t>(100 + i));
  ASSERT_EQ(observer.events.size(), 1u);
  EXPECT_EQ(observer.events[0].type, EventType::kFlowLimitReached);
  clock->Advance(seconds(1));
  Syn(kV4, 200);
  EXPECT_EQ(observer.events.size(), 2u);
}

TEST_F(LoopTest, DescriptorsAreKeptBack) {
  Config config;
  config.dns.enabled = false;  // whose share comes off first
  config.limits.reserved_descriptors = 1000;
  Start(config);  // 1024 of the scripted sockets
  EXPECT_EQ(loop->GetInfo().flow_limit, 24u);
  config.limits.max_flows = 7;
  loop->ApplyConfig(config);
  EXPECT_EQ(loop->GetInfo().flow_limit, 7u);
  config.limits.max_flows = 0;
  config.limits.reserved_descriptors = 0;
  loop->ApplyConfig(config);
  EXPECT_EQ(loop->GetInfo().flow_limit, 1024u - 128);
  config.dns.enabled = true;
  loop->ApplyConfig(config);
  EXPECT_EQ(loop->GetInfo().flow_limit, 1024u - 128 - 128);
  config.dns.limits.reserved_descriptors = 24;
  loop->ApplyConfig(config);
  EXPECT_EQ(loop->GetInfo().flow_limit, 1024u - 128 - 24);
}

TEST_F(LoopTest, ProtectionAppliesToTheNextSocket) {
  Start();
  Syn(kV4, 1);
  EXPECT_EQ(sockets->last().mark, std::nullopt);
  Config config;
  config.protect.so_mark = 99;
  config.protect.bind_to_device = "wlan0";
  loop->ApplyConfig(config);
  Syn(kV4, 2);
  EXPECT_EQ(sockets->last().mark, 99u);
  EXPECT_EQ(sockets->last().device, "wlan0");
}

TEST_F(LoopTest, FlowChangesReachTheObserverOnRequest) {
  Start();
  Connect(kV4, 1);
  EXPECT_TRUE(observer.flows.empty());
  loop->SetFlowChanges(true);
  Connect(kV4, 2);
  EXPECT_EQ(observer.flows.size(), 3u);
  EXPECT_EQ(loop->CloseFlows({}), 2u);
  EXPECT_EQ(observer.flows.size(), 5u);
  EXPECT_EQ(observer.flows.back().close_reason, CloseReason::kClosedByRequest);
  loop->SetFlowChanges(false);
}

TEST_F(LoopTest, DropsAddUpToWhatWasNotCarried) {
  Start();
  Connect(kV4);
  const uint64_t before = loop->GetStats().tun.outbound_packets;
  Give(Hex("00"));
  Give(MakeIp(kV4.app, kV4.remote, 132, Hex("9c4001bb00090000aa")));
  Give(MakeTcpPacket(kV6));
  const Stats stats = loop->GetStats();
  uint64_t drops = 0;
  for (const uint64_t n : stats.drops) drops += n;
  EXPECT_EQ(stats.tun.outbound_packets - before, 3u);
  EXPECT_EQ(drops, 3u);
}

}  // namespace
}  // namespace netstack::test

// R6, R7 and R8: descriptors, the flow table and memory run out.
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

class LimitsTest : public testing::TestWithParam<const Family*> {
 protected:
  const Family& family() const { return *GetParam(); }

  Tcp NewApp() { return Tcp(World().app(), family().family); }
  Address To(uint16_t port) { return Address(family().tunnel, port); }
};

// CPU seconds that the service uses within one second.
double CpuOfOneSecond(Service& service) {
  const double before = service.process().CpuSeconds();
  Pause(seconds(1));
  return service.process().CpuSeconds() - before;
}

TEST_P(LimitsTest, DescriptorsRunOut) {
  constexpr unsigned kDescriptors = 256;
  constexpr int kConnects = 1'000;
  Service service({.descriptors = kDescriptors});
  auto holder = std::make_unique<Holder>(World().srv());
  std::vector<Tcp> apps;
  for (int i = 0; i < kConnects; ++i) {
    apps.push_back(NewApp());
    apps.back().ConnectStart(To(holder->port()));
  }
  // Each gets through or is told; nearly all that descriptors there are go to
  // flows.
  uint32_t refused = 0;
  for (Tcp& app : apps) refused += app.ConnectResult(seconds(5)) != 0;
  const uint32_t through = kConnects - refused;
  EXPECT_GT(through, kDescriptors / 2);
  EXPECT_LE(through, service.control().Status().flow_limit());
  EXPECT_TRUE(Eventually([&] { return holder->count() == through; }))
      << holder->count() << " of " << through;
  ASSERT_TRUE(service.process().running());

  // Meanwhile: no spin, and control as ever, by a new connection as well.
  EXPECT_LT(CpuOfOneSecond(service), 0.2);
  const v1::Stats stats = service.control().Stats();
  EXPECT_GE(DropsIn(stats, v1::DROP_REASON_NO_DESCRIPTORS) +
                DropsIn(stats, v1::DROP_REASON_FLOW_TABLE_FULL),
            refused);
  Control another(service.socket_path());
  EXPECT_EQ(another.Status().state(), v1::STACK_STATE_RUNNING);
  EXPECT_EQ(another.Flows().size(), through);

  // The apps go: full service within a second.
  for (Tcp& app : apps) app.Abort();
  apps.clear();
  const auto start = Clock::now();
  EXPECT_TRUE(Eventually([&] {
    Tcp app = NewApp();
    return app.Connect(To(holder->port()), milliseconds(500)) == 0;
  }));
  EXPECT_LT(SecondsSince(start), 1);
  // Not for one connection only.
  for (uint32_t i = 0; i < through / 2; ++i) {
    apps.push_back(NewApp());
    ASSERT_EQ(apps.back().Connect(To(holder->port())), 0) << i;
  }
}

TEST_P(LimitsTest, FullFlowTableRefusesAtOnce) {
  constexpr int kFlows = 50;
  Service service({.config = "limits { max_flows: 50 }"});
  PatternServer server(World().srv());
  std::vector<Tcp> old;
  for (int i = 0; i < kFlows; ++i) {
    old.push_back(NewApp());
    ASSERT_EQ(old.back().Connect(To(server.port())), 0);
  }
  double best = 1e9;
  for (int i = 0; i < 20; ++i) {
    Tcp app = NewApp();
    const auto start = Clock::now();
    EXPECT_EQ(app.Connect(To(server.port())), ECONNREFUSED);
    const double took = SecondsSince(start);
    EXPECT_LT(took, 0.5);
    best = std::min(best, took);
  }
  // The machine may be busy at any one attempt, hardly at all of them.
  EXPECT_LT(best, 0.010);
  EXPECT_EQ(service.control().Drops(v1::DROP_REASON_FLOW_TABLE_FULL), 20u);
  // The old ones live, and make room when they end.
  for (Tcp& app : old) EXPECT_EQ(AskUpload(app, 1, 10'000), "");
  old.clear();
  EXPECT_TRUE(Eventually([&] {
    Tcp app = NewApp();
    return app.Connect(To(server.port())) == 0;
  }));
}

// R8. Apps that read nothing, and servers that read nothing.
TEST_P(LimitsTest, SlowReadersHoldNoMoreThanTheirShare) {
  const uint64_t flows = FullScale() ? 1'000 : 100;
  constexpr uint64_t kFloor = 64 * 1024;
  const uint64_t budget = 4 << 20;
  // Half of the flows wait for their app, the others for their server.
  Service service({.config = "limits { memory_budget: 4194304 }"});
  PatternServer server(World().srv());
  Holder deaf(World().srv());

  const auto one_fast = [&](const char* to) {
    double best = 1e9;
    for (int i = 0; i < 3; ++i) {
      Tcp app = NewApp();
      EXPECT_EQ(app.Connect(Address(to, server.port())), 0);
      const auto start = Clock::now();
      EXPECT_EQ(AskDownload(app, 1, 20'000'000), "");
      best = std::min(best, SecondsSince(start));
    }
    return best;
  };
  const double alone = one_fast(family().tunnel);

  std::vector<Tcp> slow;
  std::vector<std::thread> senders;
  const size_t memory_before = service.process().ResidentBytes();
  for (uint64_t i = 0; i < flows; ++i) {
    slow.push_back(NewApp());
    if (i % 2 == 0) {
      ASSERT_EQ(slow.back().Connect(To(server.port())), 0);
      AskFor(slow.back(), Wish::kDownload, i, 100'000'000);
    } else {
      ASSERT_EQ(slow.back().Connect(To(deaf.port())), 0);
      // As much as is taken.
      const std::vector<char> bytes(1 << 20);
      while (send(slow.back().fd(), bytes.data(), bytes.size(),
                  MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
      }
    }
  }
  // Until nothing moves any more.
  uint64_t last = 1;
  uint64_t now = 0;
  EXPECT_TRUE(Eventually([&] {
    last = now;
    Pause(milliseconds(300));
    const v1::Stats stats = service.control().Stats();
    now = stats.tcp().inbound_bytes() + stats.tcp().outbound_bytes();
    return now == last;
  }));
  const double memory_grown =
      static_cast<double>(service.process().ResidentBytes()) -
      static_cast<double>(memory_before);
  const v1::Stats stats = service.control().Stats();
  EXPECT_GT(stats.memory().buffered(), 0u);
  EXPECT_LE(stats.memory().buffered_peak(), budget + flows * kFloor);
  uint64_t most = 0;
  for (const v1::Flow& flow : service.control().Flows()) {
    most = std::max<uint64_t>(
        {most, flow.outbound_buffered(), flow.inbound_buffered()});
  }
  EXPECT_LE(most, uint64_t{1} << 20);  // tcp.buffer_max
  // The process holds no more than it tells, give or take its own needs.
  EXPECT_LE(memory_grown,
            1.5 * static_cast<double>(stats.memory().buffered_peak()) + 8e6);
  EXPECT_LT(CpuOfOneSecond(service), 0.2);

  // The kernel's own memory for TCP is short now too: what that costs, a
  // direct connection pays as well.
  const double direct = one_fast(family().direct);
  const double beside = one_fast(family().tunnel);
  EXPECT_LE(beside, 3 * std::max(alone, direct) + 0.5);
  std::printf(
      "%llu slow flows: buffered %.1f MiB (peak %.1f), most in one flow %.0f "
      "KiB, memory +%.1f MiB; 20 MB beside them %.2f s, alone %.2f s, direct "
      "beside them %.2f s\n",
      static_cast<unsigned long long>(flows),
      static_cast<double>(stats.memory().buffered()) / (1 << 20),
      static_cast<double>(stats.memory().buffered_peak()) / (1 << 20),
      static_cast<double>(most) / 1024, memory_grown / (1 << 20), beside, alone,
      direct);
}

INSTANTIATE_TEST_SUITE_P(Every, LimitsTest, testing::Values(&kV4, &kV6),
                         FamilyName);

}  // namespace
}  // namespace netstack::e2e

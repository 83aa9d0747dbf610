// Bytes through the TUN: many sizes, many at once, much at once, every byte
// compared, over every kind of TUN.
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

struct Device {
  const char* name;
  bool offload;
  int mtu;
};
constexpr Device kOffload = {"Offload1500", true, 1500};
constexpr Device kPlain = {"Plain1500", false, 1500};
constexpr Device kPlainJumbo = {"Plain9000", false, 9000};

class DataTest
    : public testing::TestWithParam<std::tuple<const Family*, const Device*>> {
 protected:
  const Family& family() const { return *std::get<0>(GetParam()); }
  const Device& device() const { return *std::get<1>(GetParam()); }

  Tcp Connected() {
    Tcp socket(World().app(), family().family);
    EXPECT_EQ(socket.Connect(Address(family().tunnel, server_.port())), 0);
    return socket;
  }

  PatternServer server_{World().srv()};
  Service service_{{.mtu = device().mtu, .offload = device().offload}};
};

// A TUN of the kind asked for: else the rest shows nothing.
TEST_P(DataTest, TunIsOfThisKind) {
  const v1::StackStatus status = service_.control().Status();
  EXPECT_EQ(status.state(), v1::STACK_STATE_RUNNING);
  EXPECT_EQ(status.tun().offload(), device().offload);
  EXPECT_EQ(static_cast<int>(status.tun().mtu()), device().mtu);
}

// Sizes around the segments and buffers on the way, each on a connection of
// its own and then all on one.
TEST_P(DataTest, ManySizes) {
  std::vector<uint64_t> sizes = {0, 1, 2, 7, 535, 536, 537, 4095, 4096};
  for (uint64_t edge : {1440, 1460, 8940, 16384, 32768, 65475, 65536, 131072,
                        262144, 1048576}) {
    sizes.insert(sizes.end(), {edge - 1, edge, edge + 1});
  }
  uint64_t total = 0;
  for (const uint64_t size : sizes) {
    SCOPED_TRACE(size);
    Tcp up = Connected();
    EXPECT_EQ(AskUpload(up, 2 * size, size), "");
    Tcp down = Connected();
    EXPECT_EQ(AskDownload(down, 2 * size + 1, size), "");
    total += size;
  }
  Tcp echo = Connected();
  AskFor(echo, Wish::kEcho, 0, 0);
  for (const uint64_t size : sizes) {
    SCOPED_TRACE(size);
    std::thread sender([&] { echo.SendPattern(size, size); });
    EXPECT_EQ(Describe(echo.ReceivePattern(size, size), size), "");
    sender.join();
  }
  echo.ShutdownWrite();
  EXPECT_TRUE(echo.AtEnd());
  // The service counts payload, so all of it and nothing twice.
  const uint64_t kRequests = (2 * sizes.size() + 1) * 24;
  const v1::Stats stats = service_.control().Stats();
  EXPECT_EQ(stats.tcp().outbound_bytes(), 2 * total + kRequests);
  EXPECT_EQ(stats.tcp().inbound_bytes(), 2 * total + 8 * sizes.size());
}

TEST_P(DataTest, EightAtOnceEachWay) {
  constexpr uint64_t kSize = 16 * kMiB + 5;
  std::vector<std::string> wrong(16);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < wrong.size(); ++i) {
    threads.emplace_back([this, i, &wrong] {
      Tcp socket = Connected();
      wrong[i] = i % 2 == 0 ? AskUpload(socket, i, kSize)
                            : AskDownload(socket, i, kSize);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& text : wrong) EXPECT_EQ(text, "");
}

// Both directions of one connection at full speed.
TEST_P(DataTest, BothWaysOnOneConnection) {
  constexpr uint64_t kSize = 64 * kMiB;
  Tcp echo = Connected();
  AskFor(echo, Wish::kEcho, 0, 0);
  std::thread sender([&] {
    echo.SendPattern(5, kSize);
    echo.ShutdownWrite();
  });
  EXPECT_EQ(Describe(echo.ReceivePattern(5, kSize), kSize), "");
  sender.join();
  EXPECT_TRUE(echo.AtEnd());
}

TEST_P(DataTest, OneBig) {
  // Counters of 32 bits turn over within the full size.
  const uint64_t size = (FullScale()        ? 10240
                         : device().offload ? 1024
                                            : 256) *
                            kMiB +
                        3;
  Tcp up = Connected();
  auto start = Clock::now();
  EXPECT_EQ(AskUpload(up, 1, size), "");
  const double up_seconds = SecondsSince(start);
  Tcp down = Connected();
  start = Clock::now();
  EXPECT_EQ(AskDownload(down, 2, size), "");
  std::printf("%llu MiB up in %.1f s, down in %.1f s\n",
              static_cast<unsigned long long>(size / kMiB), up_seconds,
              SecondsSince(start));
}

INSTANTIATE_TEST_SUITE_P(Every, DataTest,
                         testing::Combine(testing::Values(&kV4, &kV6),
                                          testing::Values(&kOffload, &kPlain,
                                                          &kPlainJumbo)),
                         [](const auto& p) {
                           return std::string(std::get<0>(p.param)->name) +
                                  std::get<1>(p.param)->name;
                         });

}  // namespace
}  // namespace netstack::e2e

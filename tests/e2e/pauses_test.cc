// C1b: apps that pause, read little, or use a port again: the cases in which
// super-segments and TIME_WAIT of a careless stack lose bytes or connections.
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/e2e/support/pattern.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

struct Case {
  const Family* family;
  bool offload;
};

// 90 downloads of 40-400 kB whose reader pauses 5 s after the first bytes:
// the server's FIN is there long before the last bytes can be.
std::string DownloadWithPause(const Family& family, uint16_t port, size_t i) {
  const uint64_t size = 40'000 + i * 4'000 + i;
  Tcp socket(World().app(), family.family);
  // A third each: 8 kB, 64 kB, and the kernel's own way.
  constexpr int kBuffers[] = {8'000, 64'000, 0};
  if (const int buffer = kBuffers[i % 3]; buffer != 0) {
    socket.SetOption(SOL_SOCKET, SO_RCVBUF, buffer);
  }
  if (socket.Connect(Address(family.tunnel, port)) != 0) {
    return "no connection";
  }
  AskFor(socket, Wish::kDownload, i, size);
  const uint64_t first = std::min<uint64_t>(size, 1 + 500 * i);
  std::string text = Describe(socket.ReceivePattern(i, first), first);
  if (!text.empty()) return text;
  Pause(seconds(5));
  std::string rest = socket.ReceiveAll();
  const size_t good = MatchPattern(i, first, rest);
  if (first + good == size && good == rest.size()) return "";
  return std::to_string(first + good) + " good bytes of " +
         std::to_string(size);
}

// Clients that say all they have to say, and read only 8 s later.
std::string DownloadHalfClosed(const Family& family, uint16_t port, size_t i) {
  const uint64_t size = 50'000 + i * 100'000;
  Tcp socket(World().app(), family.family);
  if (socket.Connect(Address(family.tunnel, port)) != 0) {
    return "no connection";
  }
  AskFor(socket, Wish::kDownload, i, size);
  socket.ShutdownWrite();
  Pause(seconds(8));
  std::string text = Describe(socket.ReceivePattern(i, size), size);
  if (text.empty() && !socket.AtEnd()) text = "no clean end";
  return text;
}

class PausesTest : public testing::TestWithParam<Case> {
 protected:
  const Family& family() const { return *GetParam().family; }

  Tcp Connected(const char* to, uint16_t port) {
    Tcp socket(World().app(), family().family);
    EXPECT_EQ(socket.Connect(Address(to, port)), 0);
    return socket;
  }

  // Runs `one` for 0 .. n-1, all at once; what went wrong.
  static std::vector<std::string> AllAtOnce(
      size_t n, const std::function<std::string(size_t)>& one) {
    std::vector<std::string> wrong(n);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < n; ++i) {
      threads.emplace_back([&, i] { wrong[i] = one(i); });
    }
    for (std::thread& thread : threads) thread.join();
    wrong.erase(std::remove(wrong.begin(), wrong.end(), ""), wrong.end());
    return wrong;
  }

  Service service_{{.offload = GetParam().offload}};
};

// Both kinds at once: what they take is their pauses.
TEST_P(PausesTest, ClientsThatPauseGetEveryByte) {
  PatternServer server(World().srv());
  const auto wrong = AllAtOnce(120, [&](size_t i) {
    return i < 90 ? DownloadWithPause(family(), server.port(), i)
                  : DownloadHalfClosed(family(), server.port(), i - 90);
  });
  EXPECT_EQ(wrong, std::vector<std::string>{});
}

// A receive buffer cut to 8,000 bytes in mid-flow: windows then hold a few
// segments, never a super-segment.
TEST_P(PausesTest, SmallReceiveBufferInMidFlowIsNoSlowerThanDirect) {
  PatternServer server(World().srv());
  constexpr uint64_t kSize = 3'000'000;
  constexpr uint64_t kBefore = 1'000'000;
  const auto download = [&](const char* to) {
    Tcp socket = Connected(to, server.port());
    AskFor(socket, Wish::kDownload, 1, kSize);
    const auto start = Clock::now();
    EXPECT_EQ(Describe(socket.ReceivePattern(1, kBefore), kBefore), "");
    socket.SetOption(SOL_SOCKET, SO_RCVBUF, 8'000);
    std::string rest = socket.ReceiveAll();
    EXPECT_EQ(MatchPattern(1, kBefore, rest), kSize - kBefore);
    return SecondsSince(start);
  };
  // Side by side, the middle of five. When the buffer shrinks over bytes that
  // are under way, Linux drops them, and a direct connection needs one
  // retransmission timeout (0.2 s) too, mostly; so that is always allowed.
  std::vector<double> direct_times;
  std::vector<double> tunnel_times;
  for (int i = 0; i < 5; ++i) {
    direct_times.push_back(download(family().direct));
    tunnel_times.push_back(download(family().tunnel));
  }
  std::sort(direct_times.begin(), direct_times.end());
  std::sort(tunnel_times.begin(), tunnel_times.end());
  const double direct = direct_times[2];
  const double tunnel = tunnel_times[2];
  std::printf("direct %.3f s, through the TUN %.3f s\n", direct, tunnel);
  EXPECT_LE(tunnel, 2 * std::max(direct, 0.2));
}

// The server closes first; the app then uses its port again 50 ms later, while
// the service still remembers the old connection.
TEST_P(PausesTest, PortUsedAgainAfterTheServerClosedFirst) {
  Server server(World().srv(),
                [](Tcp& socket) { socket.Send(Pattern(7, 100)); });
  uint16_t port = 0;
  for (int i = 0; i < 10; ++i) {
    SCOPED_TRACE(i);
    Tcp socket(World().app(), family().family);
    socket.SetOption(SOL_SOCKET, SO_REUSEADDR, 1);
    ASSERT_EQ(socket.Bind(Address(family().app, port)), 0);
    port = socket.Local().port();
    const auto start = Clock::now();
    ASSERT_EQ(socket.Connect(Address(family().tunnel, server.port())), 0);
    EXPECT_EQ(socket.ReceiveAll(), Pattern(7, 100));
    // Less than a repeated SYN would take.
    EXPECT_LT(SecondsSince(start), 0.9);
    socket.Close();
    Pause(milliseconds(50));
  }
}

INSTANTIATE_TEST_SUITE_P(Every, PausesTest,
                         testing::Values(Case{&kV4, true}, Case{&kV6, true},
                                         Case{&kV4, false}, Case{&kV6, false}),
                         [](const auto& p) {
                           return std::string(p.param.family->name) +
                                  (p.param.offload ? "Offload" : "Plain");
                         });

}  // namespace
}  // namespace netstack::e2e

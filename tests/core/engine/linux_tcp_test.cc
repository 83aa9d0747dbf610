// The whole core against Linux's TCP: the kernel is the apps behind a real
// TUN, and the servers on its loopback device. Only the destination of the
// host side's connect() is redirected there.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "core/engine/loop.h"
#include "core/platform/clock.h"
#include "core/platform/datagrams.h"
#include "core/platform/linux/unique_fd.h"
#include "core/platform/poller.h"
#include "core/platform/sockets.h"
#include "core/platform/tun.h"
#include "gtest/gtest.h"
#include "tests/core/wire/test_packets.h"
#include "tests/support/net_admin.h"

namespace netstack::test {
namespace {

constexpr char kDevice[] = "nstcp0";
constexpr int kPatience = 20;  // s; what takes longer never comes

// Real sockets, whose remote is this host whatever was asked for.
class LoopbackSockets final : public Sockets {
 public:
  int Open(SocketKind kind, bool v4) override {
    return real_->Open(kind, v4);
  }
  SocketPair OpenPair() override { return real_->OpenPair(); }
  int SetMark(int fd, uint32_t mark) override {
    return real_->SetMark(fd, mark);
  }
  int BindToDevice(int fd, const std::string& device) override {
    return real_->BindToDevice(fd, device);
  }
  int SetUserTimeout(int fd, Duration timeout) override {
    return real_->SetUserTimeout(fd, timeout);
  }
  int SetTtl(int fd, bool v4, uint8_t ttl) override {
    return real_->SetTtl(fd, v4, ttl);
  }
  int KeepErrors(int fd, bool v4, bool on) override {
    return real_->KeepErrors(fd, v4, on);
  }
  int Connect(int fd, const Endpoint& to) override {
    return real_->Connect(fd, {to.ip.IsV4() ? IpAddress::V4(127, 0, 0, 1)
                                            : *IpAddress::Parse("::1"),
                               to.port});
  }
  int Disconnect(int fd) override { return real_->Disconnect(fd); }
  int TakeError(int fd) override { return real_->TakeError(fd); }
  int64_t Send(int fd, std::span<const Bytes> parts) override {
    return real_->Send(fd, parts);
  }
  int64_t Receive(int fd, MutableBytes into) override {
    return real_->Receive(fd, into);
  }
  int ShutdownWrite(int fd) override { return real_->ShutdownWrite(fd); }
  void Close(int fd, bool reset) override { real_->Close(fd, reset); }
  Endpoint LocalEndpoint(int fd) override { return real_->LocalEndpoint(fd); }
  Duration RoundTripTime(int fd) override { return real_->RoundTripTime(fd); }
  uint32_t DescriptorLimit() override { return real_->DescriptorLimit(); }

 private:
  const std::unique_ptr<Sockets> real_ = NewSockets();
};

class SilentObserver final : public Observer {
 public:
  void OnFlow(FlowChange, const FlowInfo&) override {}
  void OnEvent(const Event&) override {}
  void OnFailed(const absl::Status&) override {}
};

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};
SocketAddress AddressOf(const IpAddress& ip, uint16_t port) {
  SocketAddress a;
  if (ip.IsV4()) {
    auto* in = reinterpret_cast<sockaddr_in*>(&a.storage);
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    std::memcpy(&in->sin_addr, ip.v4(), 4);
    a.size = sizeof(sockaddr_in);
  } else {
    auto* in = reinterpret_cast<sockaddr_in6*>(&a.storage);
    in->sin6_family = AF_INET6;
    in->sin6_port = htons(port);
    std::memcpy(&in->sin6_addr, ip.v6(), 16);
    a.size = sizeof(sockaddr_in6);
  }
  return a;
}

UniqueFd NewSocket(bool v4) {
  UniqueFd fd(socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval patience{kPatience, 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  return fd;
}

std::string Pattern(size_t size, uint32_t seed) {
  std::string s(size, '\0');
  uint32_t x = seed;
  for (char& c : s) {
    x = x * 1664525u + 1013904223u;
    c = static_cast<char>(x >> 24);
  }
  return s;
}

bool SendAll(int fd, const std::string& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n =
        send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  return true;
}
// Up to the end of the stream; `error` is the errno of what ended it.
std::string ReceiveAll(int fd, int* error = nullptr) {
  std::string all;
  std::vector<char> buffer(100'000);
  while (true) {
    const ssize_t n = recv(fd, buffer.data(), buffer.size(), 0);
    if (n <= 0) {
      if (error != nullptr) *error = n == 0 ? 0 : errno;
      EXPECT_TRUE(n == 0 || error != nullptr) << strerror(errno);
      return all;
    }
    all.append(buffer.data(), static_cast<size_t>(n));
  }
}
void ResetOnClose(int fd) {
  const linger now{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

using Case = std::tuple<bool, bool>;  // IPv4, offload

class LinuxTcp : public testing::TestWithParam<Case> {
 protected:
  bool v4() const { return std::get<0>(GetParam()); }
  IpAddress remote() const {
    return v4() ? IpAddress::V4(10, 9, 0, 9) : *IpAddress::Parse("fd09::9");
  }

  void SetUp() override {
    TunOptions options;
    options.name = kDevice;
    options.offload = std::get<1>(GetParam());
    auto tun = OpenTun(options);
    ASSERT_TRUE(tun.ok()) << tun.status();
    ASSERT_EQ((*tun)->offload(), options.offload);
    ASSERT_TRUE(AddAddress(kDevice, IpAddress::V4(10, 9, 0, 2), 24).ok());
    ASSERT_TRUE(AddAddress(kDevice, *IpAddress::Parse("fd09::2"), 64).ok());
    Platform platform;
    platform.clock = std::make_unique<SystemClock>();
    platform.sockets = std::make_unique<LoopbackSockets>();
    platform.datagrams = NewDatagrams();
    auto poller = NewPoller();
    ASSERT_TRUE(poller.ok());
    platform.poller = *std::move(poller);
    platform.tun = *std::move(tun);
    auto made = Loop::Create(Config{}, std::move(platform),
                             Loop::Secrets{{1, 2}, {3, 4}}, &observer_);
    ASSERT_TRUE(made.ok()) << made.status();
    loop_ = *std::move(made);
    thread_ = std::thread([this] { loop_->Run(); });
    Listen();
  }
  void TearDown() override {
    if (loop_ == nullptr) return;
    loop_->Stop();
    thread_.join();
  }

  void Listen() {
    listener_ = NewSocket(v4());
    SocketAddress any = AddressOf(
        v4() ? IpAddress::V4(127, 0, 0, 1) : *IpAddress::Parse("::1"), 0);
    ASSERT_EQ(bind(listener_.get(), any.get(), any.size), 0);
    ASSERT_EQ(listen(listener_.get(), 100), 0);
    ASSERT_EQ(getsockname(listener_.get(), any.get(), &any.size), 0);
    port_ =
        ntohs(v4() ? reinterpret_cast<sockaddr_in*>(&any.storage)->sin_port
                   : reinterpret_cast<sockaddr_in6*>(&any.storage)->sin6_port);
  }
  // The app's connect() through the TUN: 0 or errno.
  int Connect(const UniqueFd& app) {
    SocketAddress to = AddressOf(remote(), port_);
    return connect(app.get(), to.get(), to.size) == 0 ? 0 : errno;
  }
  UniqueFd Accept() {
    UniqueFd server(accept(listener_.get(), nullptr, nullptr));
    EXPECT_TRUE(server.ok()) << strerror(errno);
    const timeval patience{kPatience, 0};
    setsockopt(server.get(), SOL_SOCKET, SO_RCVTIMEO, &patience,
               sizeof(patience));
    return server;
  }
  // A connection from end to end.
  std::pair<UniqueFd, UniqueFd> Pair(int receive_buffer = 0) {
    UniqueFd app = NewSocket(v4());
    if (receive_buffer != 0) {
      setsockopt(app.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer,
                 sizeof(receive_buffer));
    }
    EXPECT_EQ(Connect(app), 0);
    UniqueFd server = Accept();
    return {std::move(app), std::move(server)};
  }

  SilentObserver observer_;
  std::unique_ptr<Loop> loop_;
  std::thread thread_;
  UniqueFd listener_;
  uint16_t port_ = 0;
};
INSTANTIATE_TEST_SUITE_P(All, LinuxTcp,
                         testing::Combine(testing::Bool(), testing::Bool()),
                         [](const auto& i) {
                           return std::string(std::get<0>(i.param) ? "V4"
                                                                   : "V6") +
                                  (std::get<1>(i.param) ? "Offload" : "Plain");
                         });

TEST_P(LinuxTcp, Upload) {
  auto [app, server] = Pair();
  const std::string sent = Pattern(20'000'000, 1);
  std::thread sender([&app = app, &sent] {
    EXPECT_TRUE(SendAll(app.get(), sent));
    shutdown(app.get(), SHUT_WR);
  });
  EXPECT_TRUE(ReceiveAll(server.get()) == sent);
  sender.join();
}

TEST_P(LinuxTcp, Download) {
  auto [app, server] = Pair();
  const std::string sent = Pattern(20'000'000, 2);
  std::thread sender([&server = server, &sent] {
    EXPECT_TRUE(SendAll(server.get(), sent));
    shutdown(server.get(), SHUT_WR);
  });
  EXPECT_TRUE(ReceiveAll(app.get()) == sent);
  sender.join();
}

TEST_P(LinuxTcp, BothWaysAtOnce) {
  auto [app, server] = Pair();
  const std::string up = Pattern(5'000'000, 3);
  const std::string down = Pattern(5'000'000, 4);
  std::thread app_sends([&app = app, &up] {
    EXPECT_TRUE(SendAll(app.get(), up));
    shutdown(app.get(), SHUT_WR);
  });
  std::thread server_sends([&server = server, &down] {
    EXPECT_TRUE(SendAll(server.get(), down));
    shutdown(server.get(), SHUT_WR);
  });
  std::string at_server;
  std::thread server_reads(
      [&, &server = server] { at_server = ReceiveAll(server.get()); });
  EXPECT_TRUE(ReceiveAll(app.get()) == down);
  server_reads.join();
  EXPECT_TRUE(at_server == up);
  app_sends.join();
  server_sends.join();
}

// A receive buffer of a few packets: nothing waits for a timer of seconds.
TEST_P(LinuxTcp, SmallReceiveBuffer) {
  auto [app, server] = Pair(/*receive_buffer=*/8000);
  const std::string sent = Pattern(2'000'000, 5);
  std::thread sender([&server = server, &sent] {
    EXPECT_TRUE(SendAll(server.get(), sent));
    shutdown(server.get(), SHUT_WR);
  });
  EXPECT_TRUE(ReceiveAll(app.get()) == sent);
  sender.join();
}

TEST_P(LinuxTcp, ReceiveBufferCutInMidFlow) {
  auto [app, server] = Pair();
  const std::string sent = Pattern(4'000'000, 6);
  std::thread sender([&server = server, &sent] {
    EXPECT_TRUE(SendAll(server.get(), sent));
    shutdown(server.get(), SHUT_WR);
  });
  std::string got(1'000'000, '\0');
  ASSERT_EQ(recv(app.get(), got.data(), got.size(), MSG_WAITALL),
            static_cast<ssize_t>(got.size()));
  const int small = 8000;
  setsockopt(app.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
  EXPECT_TRUE(got + ReceiveAll(app.get()) == sent);
  sender.join();
}

TEST_P(LinuxTcp, HalfCloseByTheApp) {
  auto [app, server] = Pair();
  ASSERT_TRUE(SendAll(app.get(), "request"));
  shutdown(app.get(), SHUT_WR);
  EXPECT_EQ(ReceiveAll(server.get()), "request");
  ASSERT_TRUE(SendAll(server.get(), "answer"));
  server = UniqueFd();
  EXPECT_EQ(ReceiveAll(app.get()), "answer");
}

TEST_P(LinuxTcp, HalfCloseByTheServer) {
  auto [app, server] = Pair();
  ASSERT_TRUE(SendAll(server.get(), "hello"));
  shutdown(server.get(), SHUT_WR);
  EXPECT_EQ(ReceiveAll(app.get()), "hello");
  ASSERT_TRUE(SendAll(app.get(), "answer"));
  app = UniqueFd();
  EXPECT_EQ(ReceiveAll(server.get()), "answer");
}

TEST_P(LinuxTcp, ResetByTheServer) {
  auto [app, server] = Pair();
  ResetOnClose(server.get());
  server = UniqueFd();
  int error = 0;
  ReceiveAll(app.get(), &error);
  EXPECT_EQ(error, ECONNRESET);
}

TEST_P(LinuxTcp, ResetByTheApp) {
  auto [app, server] = Pair();
  ResetOnClose(app.get());
  app = UniqueFd();
  int error = 0;
  ReceiveAll(server.get(), &error);
  EXPECT_EQ(error, ECONNRESET);
}

TEST_P(LinuxTcp, Refused) {
  listener_ = UniqueFd();
  EXPECT_EQ(Connect(NewSocket(v4())), ECONNREFUSED);
}

// The server closes first, the app's kernel uses the port again at once.
TEST_P(LinuxTcp, PortIsReusedAtOnce) {
  uint16_t port = 0;
  for (int i = 0; i < 5; ++i) {
    UniqueFd app = NewSocket(v4());
    const int on = 1;
    setsockopt(app.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    SocketAddress from = AddressOf(
        v4() ? IpAddress::V4(10, 9, 0, 2) : *IpAddress::Parse("fd09::2"), port);
    ASSERT_EQ(bind(app.get(), from.get(), from.size), 0) << strerror(errno);
    if (port == 0) {
      ASSERT_EQ(getsockname(app.get(), from.get(), &from.size), 0);
      port = ntohs(
          v4() ? reinterpret_cast<sockaddr_in*>(&from.storage)->sin_port
               : reinterpret_cast<sockaddr_in6*>(&from.storage)->sin6_port);
    }
    // Until our ACK of its last FIN is there, the kernel has the port in use
    // (EADDRNOTAVAIL), as on any route.
    int error = Connect(app);
    for (int n = 0; error == EADDRNOTAVAIL && n < 1'000'000; ++n) {
      error = Connect(app);
    }
    ASSERT_EQ(error, 0) << "round " << i;
    UniqueFd server = Accept();
    ASSERT_TRUE(SendAll(server.get(), "bye"));
    server = UniqueFd();
    EXPECT_EQ(ReceiveAll(app.get()), "bye");
  }
}

TEST_P(LinuxTcp, HundredConnections) {
  std::vector<std::pair<UniqueFd, UniqueFd>> pairs;
  for (int i = 0; i < 100; ++i) pairs.push_back(Pair());
  for (uint32_t i = 0; i < 100; ++i) {
    ASSERT_TRUE(SendAll(pairs[i].first.get(), Pattern(1000, i)));
    ASSERT_TRUE(SendAll(pairs[i].second.get(), Pattern(2000, i)));
  }
  for (uint32_t i = 0; i < 100; ++i) {
    auto& [app, server] = pairs[i];
    shutdown(app.get(), SHUT_WR);
    shutdown(server.get(), SHUT_WR);
    EXPECT_TRUE(ReceiveAll(server.get()) == Pattern(1000, i));
    EXPECT_TRUE(ReceiveAll(app.get()) == Pattern(2000, i));
  }
}

}  // namespace
}  // namespace netstack::test

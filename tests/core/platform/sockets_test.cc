// Against the kernel, on the loopback device of a network namespace of our
// own.
#include "core/platform/sockets.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/platform/linux/unique_fd.h"
#include "core/platform/tun.h"
#include "gtest/gtest.h"

namespace netstack {
namespace {

Bytes AsBytes(absl::string_view s) {
  return {reinterpret_cast<const std::byte*>(s.data()), s.size()};
}

template <typename T>
T Option(int fd, int level, int name) {
  T value{};
  socklen_t size = sizeof(value);
  EXPECT_EQ(getsockopt(fd, level, name, &value, &size), 0) << strerror(errno);
  return value;
}

// Waits until poll(2) tells one of `events`; an error counts as any.
void Await(int fd, short events) {
  pollfd p{fd, events, 0};
  ASSERT_EQ(poll(&p, 1, 20000), 1) << "nothing for 20 s";
}

TEST(SocketPair, IsAStreamBetweenTwoDescriptors) {
  const std::unique_ptr<Sockets> sockets = NewSockets();
  const SocketPair pair = sockets->OpenPair();
  ASSERT_EQ(pair.error, 0);
  const UniqueFd first(pair.first), second(pair.second);
  for (int fd : {pair.first, pair.second}) {
    EXPECT_NE(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  }
  std::array<std::byte, 8> buffer;
  EXPECT_EQ(sockets->Receive(pair.second, buffer), -EAGAIN);
  const Bytes part = AsBytes("ab");
  EXPECT_EQ(sockets->Send(pair.first, {&part, 1}), 2);
  EXPECT_EQ(sockets->Receive(pair.second, buffer), 2);
  EXPECT_EQ(sockets->ShutdownWrite(pair.first), 0);
  EXPECT_EQ(sockets->Receive(pair.second, buffer), 0);
  EXPECT_EQ(sockets->Send(pair.second, {&part, 1}), 2) << "half-closed";
  EXPECT_EQ(sockets->LocalEndpoint(pair.first), Endpoint{});
}

class SocketsTest : public testing::TestWithParam<bool> {
 protected:
  bool v4() const { return GetParam(); }
  IpAddress Loopback() const {
    return v4() ? IpAddress::V4(127, 0, 0, 1) : *IpAddress::Parse("::1");
  }

  // Binds `fd` to a free port and tells it.
  Endpoint Bind(int fd) {
    sockaddr_storage storage{};
    socklen_t size;
    if (v4()) {
      auto* a = reinterpret_cast<sockaddr_in*>(&storage);
      a->sin_family = AF_INET;
      a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      size = sizeof(*a);
    } else {
      auto* a = reinterpret_cast<sockaddr_in6*>(&storage);
      a->sin6_family = AF_INET6;
      a->sin6_addr = in6addr_loopback;
      size = sizeof(*a);
    }
    EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&storage), size), 0)
        << strerror(errno);
    EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size), 0);
    const uint16_t port =
        v4() ? reinterpret_cast<sockaddr_in*>(&storage)->sin_port
             : reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port;
    return {Loopback(), ntohs(port)};
  }

  struct Connected {
    UniqueFd listener;
    int ours = -1;  // of the Sockets; the test closes it
    UniqueFd theirs;
    Endpoint remote;
  };
  // `buffer`: SO_RCVBUF of their side; 0 is the default.
  Connected Connect(int buffer = 0) {
    Connected c;
    c.listener = UniqueFd(socket(v4() ? AF_INET : AF_INET6, SOCK_STREAM, 0));
    c.remote = Bind(c.listener.get());
    if (buffer != 0) {
      setsockopt(c.listener.get(), SOL_SOCKET, SO_RCVBUF, &buffer,
                 sizeof(buffer));
    }
    EXPECT_EQ(listen(c.listener.get(), 1), 0);
    c.ours = sockets_->Open(SocketKind::kTcp, v4());
    EXPECT_GE(c.ours, 0) << strerror(-c.ours);
    const int result = sockets_->Connect(c.ours, c.remote);
    EXPECT_TRUE(result == 0 || result == -EINPROGRESS) << strerror(-result);
    Await(c.ours, POLLOUT);
    EXPECT_EQ(sockets_->TakeError(c.ours), 0);
    c.theirs = UniqueFd(accept(c.listener.get(), nullptr, nullptr));
    EXPECT_TRUE(c.theirs.ok());
    return c;
  }

  int64_t Send(int fd, absl::string_view text) {
    const Bytes part = AsBytes(text);
    return sockets_->Send(fd, {&part, 1});
  }

  const std::unique_ptr<Sockets> sockets_ = NewSockets();
};

INSTANTIATE_TEST_SUITE_P(Family, SocketsTest, testing::Bool(),
                         [](const auto& each) {
                           return each.param ? "V4" : "V6";
                         });

TEST_P(SocketsTest, OpensAsPromised) {
  const int fd = sockets_->Open(SocketKind::kTcp, v4());
  ASSERT_GE(fd, 0) << strerror(-fd);
  EXPECT_EQ(Option<int>(fd, SOL_SOCKET, SO_DOMAIN), v4() ? AF_INET : AF_INET6);
  EXPECT_EQ(Option<int>(fd, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
  EXPECT_EQ(Option<int>(fd, IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_EQ(Option<int>(fd, SOL_SOCKET, SO_OOBINLINE), 1);
  EXPECT_NE(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  sockets_->Close(fd, false);
  EXPECT_EQ(fcntl(fd, F_GETFD), -1) << "Close() closes";
}

TEST_P(SocketsTest, SetsOptions) {
  const int fd = sockets_->Open(SocketKind::kTcp, v4());
  EXPECT_EQ(sockets_->SetMark(fd, 0x80000001), 0);
  EXPECT_EQ(Option<uint32_t>(fd, SOL_SOCKET, SO_MARK), 0x80000001u);
  EXPECT_EQ(sockets_->BindToDevice(fd, "lo"), 0);
  std::array<char, 16> device{};
  socklen_t size = device.size();
  ASSERT_EQ(getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device.data(), &size),
            0);
  EXPECT_STREQ(device.data(), "lo");
  EXPECT_EQ(sockets_->BindToDevice(fd, "none-such"), -ENODEV);
  EXPECT_EQ(sockets_->BindToDevice(fd, "a-name-longer-than-15"), -ENODEV);

  EXPECT_EQ(sockets_->SetUserTimeout(fd, std::chrono::seconds(30)), 0);
  EXPECT_EQ(Option<int>(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 30000);
  EXPECT_EQ(sockets_->SetUserTimeout(fd, Duration(1)), 0);
  EXPECT_EQ(Option<int>(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 1)
      << "zero would be the kernel's default";
  EXPECT_EQ(sockets_->SetUserTimeout(fd, Duration::max()), 0);
  sockets_->Close(fd, false);
}

// The kernel cuts a name that is too long, and then finds a device.
TEST_P(SocketsTest, LongDeviceNameMeansNoOtherDevice) {
  auto tun = OpenTun({.name = "fifteen-letters"});
  ASSERT_TRUE(tun.ok()) << tun.status();
  const int fd = sockets_->Open(SocketKind::kTcp, v4());
  EXPECT_EQ(sockets_->BindToDevice(fd, "fifteen-letters"), 0);
  EXPECT_EQ(sockets_->BindToDevice(fd, "fifteen-letters-and"), -ENODEV);
  sockets_->Close(fd, false);
}

TEST_P(SocketsTest, ErrorsAreNegativeErrno) {
  EXPECT_EQ(sockets_->SetMark(-1, 1), -EBADF);
  EXPECT_EQ(sockets_->BindToDevice(-1, "lo"), -EBADF);
  EXPECT_EQ(sockets_->SetUserTimeout(-1, Duration(1)), -EBADF);
  EXPECT_EQ(sockets_->Connect(-1, {Loopback(), 1}), -EBADF);
  EXPECT_EQ(sockets_->TakeError(-1), -EBADF);
  EXPECT_EQ(sockets_->ShutdownWrite(-1), -EBADF);
  EXPECT_EQ(Send(-1, "x"), -EBADF);
  std::array<std::byte, 1> room;
  EXPECT_EQ(sockets_->Receive(-1, room), -EBADF);
  EXPECT_EQ(sockets_->LocalEndpoint(-1).port, 0);
  EXPECT_EQ(sockets_->RoundTripTime(-1), Duration::zero());
}

TEST_P(SocketsTest, RefusedConnectIsToldByTakeErrorOnce) {
  UniqueFd unheard(socket(v4() ? AF_INET : AF_INET6, SOCK_STREAM, 0));
  const Endpoint nobody = Bind(unheard.get());
  const int fd = sockets_->Open(SocketKind::kTcp, v4());
  const int result = sockets_->Connect(fd, nobody);
  if (result == -EINPROGRESS) {
    Await(fd, POLLOUT);
    EXPECT_EQ(sockets_->TakeError(fd), -ECONNREFUSED);
  } else {
    EXPECT_EQ(result, -ECONNREFUSED);
  }
  EXPECT_EQ(sockets_->TakeError(fd), 0);
  sockets_->Close(fd, false);
}

TEST_P(SocketsTest, UnreachableIsToldByConnect) {
  const int fd = sockets_->Open(SocketKind::kTcp, v4());
  // The namespace has no route but the loopback's.
  EXPECT_EQ(sockets_->Connect(fd, *Endpoint::Parse(v4() ? "192.0.2.1:80"
                                                        : "[2001:db8::1]:80")),
            -ENETUNREACH);
  sockets_->Close(fd, false);
}

TEST_P(SocketsTest, GathersAndReceives) {
  Connected c = Connect();
  const std::vector<Bytes> parts = {AsBytes("one "), AsBytes(""),
                                    AsBytes("two "), AsBytes("three")};
  EXPECT_EQ(sockets_->Send(c.ours, parts), 13);
  std::array<char, 32> text{};
  EXPECT_EQ(recv(c.theirs.get(), text.data(), 13, MSG_WAITALL), 13);
  EXPECT_STREQ(text.data(), "one two three");

  std::array<std::byte, 4> room;
  EXPECT_EQ(sockets_->Receive(c.ours, room), -EAGAIN);
  ASSERT_EQ(send(c.theirs.get(), "answer", 6, 0), 6);
  Await(c.ours, POLLIN);
  EXPECT_EQ(sockets_->Receive(c.ours, room), 4);
  EXPECT_EQ(std::memcmp(room.data(), "answ", 4), 0);
  EXPECT_EQ(sockets_->Receive(c.ours, room), 2);
  EXPECT_EQ(sockets_->Receive(c.ours, {}), -EINVAL);
  sockets_->Close(c.ours, false);
}

TEST_P(SocketsTest, LooksAt1024Parts) {
  Connected c = Connect();
  const std::vector<Bytes> parts(1500, AsBytes("x"));
  EXPECT_EQ(sockets_->Send(c.ours, parts), 1024);
  sockets_->Close(c.ours, false);
}

TEST_P(SocketsTest, FullBufferTakesAPartAndThenNothing) {
  Connected c = Connect(4096);
  const std::string much(1 << 20, 'x');
  int64_t taken = 0;
  bool was_short = false;
  int64_t n;
  while ((n = Send(c.ours, much)) > 0) {
    taken += n;
    was_short |= n < static_cast<int64_t>(much.size());
    ASSERT_LT(taken, 1 << 28) << "nobody reads it";
  }
  EXPECT_EQ(n, -EAGAIN);
  EXPECT_TRUE(was_short);
  // Every byte that was taken arrives.
  sockets_->ShutdownWrite(c.ours);
  std::vector<char> room(1 << 16);
  int64_t arrived = 0;
  ssize_t r;
  while ((r = recv(c.theirs.get(), room.data(), room.size(), 0)) > 0) {
    arrived += r;
  }
  EXPECT_EQ(r, 0);
  EXPECT_EQ(arrived, taken);
  sockets_->Close(c.ours, false);
}

TEST_P(SocketsTest, EndOfStreamBothWays) {
  Connected c = Connect();
  EXPECT_EQ(sockets_->ShutdownWrite(c.ours), 0);
  char byte;
  EXPECT_EQ(recv(c.theirs.get(), &byte, 1, 0), 0);
  // The other direction is still open.
  ASSERT_EQ(send(c.theirs.get(), "x", 1, 0), 1);
  Await(c.ours, POLLIN);
  std::array<std::byte, 4> room;
  EXPECT_EQ(sockets_->Receive(c.ours, room), 1);
  shutdown(c.theirs.get(), SHUT_WR);
  Await(c.ours, POLLIN);
  EXPECT_EQ(sockets_->Receive(c.ours, room), 0);
  sockets_->Close(c.ours, false);
}

TEST_P(SocketsTest, SendToClosedPeerIsAnErrorAndNoSignal) {
  Connected c = Connect();
  EXPECT_EQ(sockets_->ShutdownWrite(c.ours), 0);
  EXPECT_EQ(Send(c.ours, "x"), -EPIPE);  // SIGPIPE would end this process
  sockets_->Close(c.ours, false);
}

TEST_P(SocketsTest, CloseSendsFin) {
  Connected c = Connect();
  sockets_->Close(c.ours, false);
  char byte;
  EXPECT_EQ(recv(c.theirs.get(), &byte, 1, 0), 0);
}

TEST_P(SocketsTest, CloseWithResetSendsRst) {
  Connected c = Connect();
  EXPECT_EQ(Send(c.ours, "lost"), 4);
  sockets_->Close(c.ours, true);
  Await(c.theirs.get(), POLLIN);
  EXPECT_EQ(Option<int>(c.theirs.get(), SOL_SOCKET, SO_ERROR), ECONNRESET);
}

TEST_P(SocketsTest, PeersResetIsAnError) {
  Connected c = Connect();
  const linger at_once{1, 0};
  setsockopt(c.theirs.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  c.theirs = UniqueFd();
  Await(c.ours, POLLIN);
  std::array<std::byte, 4> room;
  EXPECT_EQ(sockets_->Receive(c.ours, room), -ECONNRESET);
  sockets_->Close(c.ours, false);
}

TEST_P(SocketsTest, UrgentDataStaysInTheStream) {
  Connected c = Connect();
  ASSERT_EQ(send(c.theirs.get(), "ab", 2, 0), 2);
  ASSERT_EQ(send(c.theirs.get(), "!", 1, MSG_OOB), 1);
  ASSERT_EQ(send(c.theirs.get(), "cd", 2, 0), 2);
  shutdown(c.theirs.get(), SHUT_WR);
  std::string all;
  std::array<std::byte, 16> room;
  for (;;) {
    Await(c.ours, POLLIN);
    const int64_t n = sockets_->Receive(c.ours, room);
    ASSERT_GE(n, 0);
    if (n == 0) break;
    all.append(reinterpret_cast<const char*>(room.data()),
               static_cast<size_t>(n));
  }
  EXPECT_EQ(all, "ab!cd");
  sockets_->Close(c.ours, false);
}

TEST_P(SocketsTest, TellsLocalEndpoint) {
  Connected c = Connect();
  const Endpoint local = sockets_->LocalEndpoint(c.ours);
  EXPECT_EQ(local.ip, Loopback());
  sockaddr_storage peer{};
  socklen_t size = sizeof(peer);
  ASSERT_EQ(
      getpeername(c.theirs.get(), reinterpret_cast<sockaddr*>(&peer), &size),
      0);
  const uint16_t port = v4()
                            ? reinterpret_cast<sockaddr_in*>(&peer)->sin_port
                            : reinterpret_cast<sockaddr_in6*>(&peer)->sin6_port;
  EXPECT_EQ(local.port, ntohs(port));
  sockets_->Close(c.ours, false);
}

TEST_P(SocketsTest, TellsRoundTripTime) {
  const int idle = sockets_->Open(SocketKind::kTcp, v4());
  EXPECT_EQ(sockets_->RoundTripTime(idle), Duration::zero());
  sockets_->Close(idle, false);
  Connected c = Connect();
  EXPECT_EQ(Send(c.ours, "x"), 1);
  EXPECT_EQ(sockets_->RoundTripTime(c.ours),
            std::chrono::microseconds(
                Option<tcp_info>(c.ours, IPPROTO_TCP, TCP_INFO).tcpi_rtt));
  EXPECT_GT(sockets_->RoundTripTime(c.ours), Duration::zero());
  EXPECT_LT(sockets_->RoundTripTime(c.ours), std::chrono::seconds(10));
  sockets_->Close(c.ours, false);
}

// UBSan's check of a virtual call needs descriptors itself.
__attribute__((no_sanitize("vptr"))) std::pair<uint32_t, int>
LimitAndOpenWithoutDescriptors(Sockets& sockets, bool v4) {
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{3, before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  const uint32_t limit = sockets.DescriptorLimit();
  const int fd = sockets.Open(SocketKind::kTcp, v4);
  setrlimit(RLIMIT_NOFILE, &before);
  return {limit, fd};
}

TEST_P(SocketsTest, TellsDescriptorExhaustionAndLimit) {
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(sockets_->DescriptorLimit(), limit.rlim_cur);
  const auto [told, fd] = LimitAndOpenWithoutDescriptors(*sockets_, v4());
  EXPECT_EQ(told, 3u);
  EXPECT_EQ(fd, -EMFILE);
}

}  // namespace
}  // namespace netstack

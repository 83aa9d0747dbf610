#include "core/platform/sockets.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <limits>

#include "core/platform/linux/socket_address.h"

namespace netstack {
namespace {

// IOV_MAX of Linux; sendmsg(2) refuses more with EMSGSIZE.
constexpr size_t kMaxParts = 1024;

template <typename T>
int SetOption(int fd, int level, int name, const T& value) {
  return setsockopt(fd, level, name, &value, sizeof(value)) == 0 ? 0 : -errno;
}

class SystemSockets final : public Sockets {
 public:
  int Open(SocketKind kind, bool v4) override {
    const int type = kind == SocketKind::kTcp ? SOCK_STREAM : SOCK_DGRAM;
    int protocol = 0;
    if (kind == SocketKind::kEcho)
      protocol = v4 ? +IPPROTO_ICMP : +IPPROTO_ICMPV6;
    const int fd = socket(v4 ? AF_INET : AF_INET6,
                          type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    if (fd < 0) return -errno;
    if (kind != SocketKind::kTcp) return fd;
    const int on = 1;
    // Urgent data stays in the stream (RFC 6093, section 5), and what the app
    // wrote at once is not held back: its own TCP has decided that.
    int error = SetOption(fd, IPPROTO_TCP, TCP_NODELAY, on);
    if (error == 0) error = SetOption(fd, SOL_SOCKET, SO_OOBINLINE, on);
    if (error != 0) {
      close(fd);
      return error;
    }
    return fd;
  }

  SocketPair OpenPair() override {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
                   fds) != 0) {
      return {-errno, -1, -1};
    }
    return {0, fds[0], fds[1]};
  }

  int SetMark(int fd, uint32_t mark) override {
    return SetOption(fd, SOL_SOCKET, SO_MARK, mark);
  }

  int BindToDevice(int fd, const std::string& device) override {
    // The kernel cuts a longer name silently, which might hit another device.
    if (device.size() >= 16) return -ENODEV;
    return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device.data(),
                      static_cast<socklen_t>(device.size())) == 0
               ? 0
               : -errno;
  }

  int SetUserTimeout(int fd, Duration timeout) override {
    const auto ms =
        std::chrono::ceil<std::chrono::milliseconds>(timeout).count();
    const auto value =
        static_cast<int>(std::clamp<decltype(ms)>(ms, 0, INT_MAX));
    return SetOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, value);
  }

  int SetTtl(int fd, bool v4, uint8_t ttl) override {
    const int value = ttl;
    return v4 ? SetOption(fd, IPPROTO_IP, IP_TTL, value)
              : SetOption(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, value);
  }

  int KeepErrors(int fd, bool v4, bool on) override {
    // Linux queues IPv4's for every socket that connects (tcp_v4_err()).
    if (v4) return 0;
    const int value = on ? 1 : 0;
    return SetOption(fd, IPPROTO_IPV6, IPV6_RECVERR, value);
  }

  int Connect(int fd, const Endpoint& to) override {
    SocketAddress address;
    const socklen_t size = ToSocketAddress(to, &address);
    if (connect(fd, &address.any, size) == 0) return 0;
    // An interrupted connect goes on in the background (connect(2)).
    return errno == EINTR ? -EINPROGRESS : -errno;
  }

  int Disconnect(int fd) override {
    sockaddr none{};
    none.sa_family = AF_UNSPEC;
    return connect(fd, &none, sizeof(none)) == 0 ? 0 : -errno;
  }

  int TakeError(int fd) override {
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
      return -errno;
    }
    return -error;
  }

  int64_t Send(int fd, std::span<const Bytes> parts) override {
    std::array<iovec, kMaxParts> vec;  // not initialized: 16 KiB
    size_t count = 0;
    for (const Bytes& part : parts.first(std::min(parts.size(), kMaxParts))) {
      if (part.empty()) continue;
      vec[count++] = {const_cast<std::byte*>(part.data()), part.size()};
    }
    msghdr message{};
    message.msg_iov = vec.data();
    message.msg_iovlen = count;
    ssize_t n;
    do {
      n = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? n : -errno;
  }

  int64_t Receive(int fd, MutableBytes into) override {
    if (into.empty()) return -EINVAL;  // its 0 would read as end of stream
    ssize_t n;
    do {
      n = recv(fd, into.data(), into.size(), MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? n : -errno;
  }

  int ShutdownWrite(int fd) override {
    return shutdown(fd, SHUT_WR) == 0 ? 0 : -errno;
  }

  void Close(int fd, bool reset) override {
    // Lingering for no time at all discards what is queued and sends RST
    // (socket(7), tcp(7)).
    if (reset) SetOption(fd, SOL_SOCKET, SO_LINGER, linger{1, 0});
    close(fd);
  }

  Endpoint LocalEndpoint(int fd) override {
    SocketAddress address{};
    socklen_t size = sizeof(address);
    if (getsockname(fd, &address.any, &size) != 0) return {};
    return FromSocketAddress(address);
  }

  Duration RoundTripTime(int fd) override {
    tcp_info info{};
    socklen_t size = sizeof(info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
      return Duration::zero();
    }
    return std::chrono::microseconds(info.tcpi_rtt);
  }

  uint32_t DescriptorLimit() override {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;  // Linux's default
    return static_cast<uint32_t>(
        std::min<rlim_t>(limit.rlim_cur, std::numeric_limits<uint32_t>::max()));
  }
};

}  // namespace

std::unique_ptr<Sockets> NewSockets() {
  return std::make_unique<SystemSockets>();
}

}  // namespace netstack

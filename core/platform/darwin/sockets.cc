// As linux/sockets.cc, but for what Darwin has by another name or not at all:
// IP_BOUND_IF in place of SO_BINDTODEVICE, no SO_MARK, no MSG_NOSIGNAL, and a
// connection's drop time in whole seconds.
#include "core/platform/sockets.h"

#include <fcntl.h>
#include <net/if.h>
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
#include <limits>

#include "core/platform/linux/socket_address.h"

namespace netstack {
namespace {

constexpr size_t kMaxParts = 1024;  // IOV_MAX

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
    const int fd = socket(v4 ? AF_INET : AF_INET6, type, protocol);
    if (fd < 0) return -errno;
    int error = PrepareDescriptor(fd);
    if (error == 0 && kind == SocketKind::kTcp) error = PrepareTcp(fd);
    if (error == 0) return fd;
    close(fd);
    return error;
  }

  SocketPair OpenPair() override {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) return {-errno, -1, -1};
    int error = PrepareDescriptor(fds[0]);
    if (error == 0) error = PrepareDescriptor(fds[1]);
    if (error == 0) return {0, fds[0], fds[1]};
    close(fds[0]);
    close(fds[1]);
    return {error, -1, -1};
  }

  // There are no marks: a config that asks for one must not seem to work.
  int SetMark(int, uint32_t) override { return -ENOPROTOOPT; }

  int BindToDevice(int fd, const std::string& device) override {
    const unsigned index = if_nametoindex(device.c_str());
    if (index == 0) return -ENODEV;
    sockaddr_storage mine{};  // tells the family, bound or not
    socklen_t size = sizeof(mine);
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&mine), &size) != 0) {
      return -errno;
    }
    return mine.ss_family == AF_INET
               ? SetOption(fd, IPPROTO_IP, IP_BOUND_IF, index)
               : SetOption(fd, IPPROTO_IPV6, IPV6_BOUND_IF, index);
  }

  int SetUserTimeout(int fd, Duration timeout) override {
    const auto s = std::chrono::ceil<std::chrono::seconds>(timeout).count();
    const auto value = static_cast<int>(std::clamp<decltype(s)>(s, 0, INT_MAX));
    return SetOption(fd, IPPROTO_TCP, TCP_RXT_CONNDROPTIME, value);
  }

  int SetTtl(int fd, bool v4, uint8_t ttl) override {
    const int value = ttl;
    return v4 ? SetOption(fd, IPPROTO_IP, IP_TTL, value)
              : SetOption(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, value);
  }

  // Darwin keeps no errors; connect() tells the last one when it gives up.
  int KeepErrors(int, bool, bool) override { return 0; }

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
    if (connect(fd, &none, sizeof(none)) == 0) return 0;
    // The BSDs dissolve the association and say so all the same (connect(2)).
    return errno == EAFNOSUPPORT || errno == EINVAL ? 0 : -errno;
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
    message.msg_iovlen = static_cast<int>(count);
    ssize_t n;
    do {
      n = sendmsg(fd, &message, MSG_DONTWAIT);
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
    // Lingering for no time at all discards what is queued and sends RST.
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
    tcp_connection_info info{};
    socklen_t size = sizeof(info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_CONNECTION_INFO, &info, &size) != 0) {
      return Duration::zero();
    }
    return std::chrono::milliseconds(info.tcpi_srtt);
  }

  uint32_t DescriptorLimit() override {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 256;  // Darwin's default
    return static_cast<uint32_t>(
        std::min<rlim_t>(limit.rlim_cur, std::numeric_limits<uint32_t>::max()));
  }

 private:
  // 0 or -errno each.
  static int PrepareDescriptor(int fd) {
    const int status = fcntl(fd, F_GETFL);
    if (status < 0 || fcntl(fd, F_SETFL, status | O_NONBLOCK) != 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
      return -errno;
    }
    return SetOption(fd, SOL_SOCKET, SO_NOSIGPIPE, 1);
  }

  static int PrepareTcp(int fd) {
    // Urgent data stays in the stream (RFC 6093, section 5), and what the app
    // wrote at once is not held back: its own TCP has decided that.
    const int error = SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    return error == 0 ? SetOption(fd, SOL_SOCKET, SO_OOBINLINE, 1) : error;
  }
};

}  // namespace

std::unique_ptr<Sockets> NewSockets() {
  return std::make_unique<SystemSockets>();
}

}  // namespace netstack

// recvmmsg(2), sendmmsg(2), udp(7), ip(7), ipv6(7), icmp(7).
#include "core/platform/datagrams.h"

// linux/errqueue.h needs these before it.
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include <linux/errqueue.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstring>

#include "core/platform/linux/socket_address.h"

// Older C libraries do not name what their kernels know.
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace netstack {
namespace {

// Room for every control message that is on, with their headers.
constexpr size_t kControlIn =
    3 * CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(in6_pktinfo));
constexpr size_t kControlOut = 3 * CMSG_SPACE(sizeof(int));
constexpr size_t kControlError = 512;

template <size_t kSize>
struct alignas(cmsghdr) Control {
  std::array<std::byte, kSize> bytes;  // not initialized
};

template <typename T>
int SetOption(int fd, int level, int name, const T& value) {
  return setsockopt(fd, level, name, &value, sizeof(value)) == 0 ? 0 : -errno;
}

// An integer of a control message, which is one byte or four.
int ValueOf(const cmsghdr* c) {
  if (c->cmsg_len < CMSG_LEN(sizeof(int))) {
    return *reinterpret_cast<const unsigned char*>(CMSG_DATA(c));
  }
  int value;
  std::memcpy(&value, CMSG_DATA(c), sizeof(value));
  return value;
}

void ReadControl(msghdr* message, DatagramIn* in) {
  for (cmsghdr* c = CMSG_FIRSTHDR(message); c != nullptr;
       c = CMSG_NXTHDR(message, c)) {
    const int level = c->cmsg_level;
    const int type = c->cmsg_type;
    if ((level == IPPROTO_IP && type == IP_TOS) ||
        (level == IPPROTO_IPV6 && type == IPV6_TCLASS)) {
      in->tos = static_cast<uint8_t>(ValueOf(c));
    } else if ((level == IPPROTO_IP && type == IP_TTL) ||
               (level == IPPROTO_IPV6 && type == IPV6_HOPLIMIT)) {
      in->ttl = static_cast<uint8_t>(ValueOf(c));
    } else if (level == IPPROTO_UDP && type == UDP_GRO) {
      in->segment_size = static_cast<uint16_t>(ValueOf(c));
    } else if (level == IPPROTO_IP && type == IP_PKTINFO) {
      in->to = IpAddress::V4(reinterpret_cast<const std::byte*>(CMSG_DATA(c)) +
                             offsetof(in_pktinfo, ipi_addr));
    } else if (level == IPPROTO_IPV6 && type == IPV6_PKTINFO) {
      in->to = IpAddress::V6(reinterpret_cast<const std::byte*>(CMSG_DATA(c)) +
                             offsetof(in6_pktinfo, ipi6_addr));
    }
  }
}

// Appends control messages to a buffer that has room for them.
class ControlWriter {
 public:
  explicit ControlWriter(std::byte* at) : at_(at) {}

  template <typename T>
  void Put(int level, int type, T value) {
    auto* c = reinterpret_cast<cmsghdr*>(at_ + size_);
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(sizeof(value));
    std::memcpy(CMSG_DATA(c), &value, sizeof(value));
    size_ += CMSG_SPACE(sizeof(value));
  }
  size_t size() const { return size_; }

 private:
  std::byte* const at_;
  size_t size_ = 0;
};

size_t WriteControl(const DatagramOut& out, std::byte* at) {
  ControlWriter control(at);
  const bool v4 = out.to.ip.IsV4();
  if (out.tos != 0) {
    control.Put(v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS,
                static_cast<int>(out.tos));
  }
  if (out.ttl != 0) {
    control.Put(v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TTL : IPV6_HOPLIMIT,
                static_cast<int>(out.ttl));
  }
  if (out.segment_size != 0) {
    control.Put(IPPROTO_UDP, UDP_SEGMENT, out.segment_size);
  }
  return control.size();
}

class SystemDatagrams final : public Datagrams {
 public:
  int Prepare(int fd, SocketKind kind, bool v4) override {
    const int on = 1;
    int error = 0;
    const auto set = [&](int level, int name) {
      if (error == 0) error = SetOption(fd, level, name, on);
    };
    if (v4) {
      set(IPPROTO_IP, IP_RECVERR);
      set(IPPROTO_IP, IP_RECVTOS);
      set(IPPROTO_IP, IP_RECVTTL);
      set(IPPROTO_IP, IP_PKTINFO);
    } else {
      set(IPPROTO_IPV6, IPV6_V6ONLY);
      set(IPPROTO_IPV6, IPV6_RECVERR);
      set(IPPROTO_IPV6, IPV6_RECVTCLASS);
      set(IPPROTO_IPV6, IPV6_RECVHOPLIMIT);
      set(IPPROTO_IPV6, IPV6_RECVPKTINFO);
    }
    // A kernel before 5.0 has no UDP_GRO; datagrams then come one by one.
    if (kind == SocketKind::kUdp) (void)SetOption(fd, IPPROTO_UDP, UDP_GRO, on);
    return error;
  }

  int Bind(int fd, const Endpoint& local) override {
    SocketAddress address;
    const socklen_t size = ToSocketAddress(local, &address);
    return bind(fd, &address.any, size) == 0 ? 0 : -errno;
  }

  int SetDontFragment(int fd, bool v4, bool on) override {
    if (v4) {
      return SetOption(fd, IPPROTO_IP, IP_MTU_DISCOVER,
                       on ? IP_PMTUDISC_DO : IP_PMTUDISC_DONT);
    }
    // "Don't" would fragment at 1280 bytes and never learn of a larger path.
    return SetOption(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER,
                     on ? IPV6_PMTUDISC_DO : IPV6_PMTUDISC_WANT);
  }

  int AllowBroadcast(int fd) override {
    return SetOption(fd, SOL_SOCKET, SO_BROADCAST, 1);
  }

  void SetBuffers(int fd, uint32_t receive, uint32_t send) override {
    const auto value = [](uint32_t n) {
      return static_cast<int>(std::min<uint32_t>(n, INT_MAX));
    };
    (void)SetOption(fd, SOL_SOCKET, SO_RCVBUF, value(receive));
    (void)SetOption(fd, SOL_SOCKET, SO_SNDBUF, value(send));
  }

  int Receive(int fd, MutableBytes room, std::span<DatagramIn> into) override {
    const size_t count = std::min(into.size(), kMaxBatch);
    if (count == 0 || room.size() < count) return -EINVAL;
    const size_t stride = room.size() / count;
    const size_t share = std::min(stride, kMaxDatagram);
    std::array<mmsghdr, kMaxBatch> messages;  // not initialized, as the rest
    std::array<iovec, kMaxBatch> parts;
    std::array<SocketAddress, kMaxBatch> from;
    std::array<Control<kControlIn>, kMaxBatch> control;
    for (size_t i = 0; i < count; ++i) {
      parts[i] = {room.data() + i * stride, share};
      msghdr& m = messages[i].msg_hdr;
      m = {};
      m.msg_name = &from[i];
      m.msg_namelen = sizeof(from[i]);
      m.msg_iov = &parts[i];
      m.msg_iovlen = 1;
      m.msg_control = control[i].bytes.data();
      m.msg_controllen = kControlIn;
    }
    int n;
    do {
      n = recvmmsg(fd, messages.data(), static_cast<unsigned>(count),
                   MSG_DONTWAIT, nullptr);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return -errno;
    for (int i = 0; i < n; ++i) {
      DatagramIn& in = into[i];
      in = {};
      in.from = FromSocketAddress(from[i]);
      in.truncated = (messages[i].msg_hdr.msg_flags & MSG_TRUNC) != 0;
      in.payload = room.subspan(i * stride, messages[i].msg_len);
      ReadControl(&messages[i].msg_hdr, &in);
      if (in.segment_size >= in.payload.size()) in.segment_size = 0;
    }
    return n;
  }

  int Send(int fd, std::span<const DatagramOut> batch) override {
    std::array<mmsghdr, kMaxBatch> messages;  // not initialized, as the rest
    std::array<iovec, kMaxBatch + kMaxParts> parts;
    std::array<SocketAddress, kMaxBatch> to;
    std::array<Control<kControlOut>, kMaxBatch> control;
    size_t count = 0;
    size_t used = 0;
    for (const DatagramOut& out : batch) {
      if (out.parts.size() > kMaxParts) {
        if (count == 0) return -EINVAL;
        break;
      }
      // The first always fits.
      if (count == kMaxBatch || used + out.parts.size() > parts.size()) break;
      msghdr& m = messages[count].msg_hdr;
      m = {};
      m.msg_name = &to[count];
      m.msg_namelen = ToSocketAddress(out.to, &to[count]);
      m.msg_iov = parts.data() + used;
      m.msg_iovlen = out.parts.size();
      for (const Bytes& part : out.parts) {
        parts[used++] = {const_cast<std::byte*>(part.data()), part.size()};
      }
      std::byte* at = control[count].bytes.data();
      m.msg_controllen = WriteControl(out, at);
      if (m.msg_controllen != 0) m.msg_control = at;
      ++count;
    }
    int n;
    do {
      n = sendmmsg(fd, messages.data(), static_cast<unsigned>(count),
                   MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? n : -errno;
  }

  std::optional<DatagramError> TakeError(int fd, MutableBytes room) override {
    SocketAddress to{};
    Control<kControlError> control;
    iovec part{room.data(), room.size()};
    msghdr m{};
    m.msg_name = &to;
    m.msg_namelen = sizeof(to);
    m.msg_iov = &part;
    m.msg_iovlen = 1;
    m.msg_control = control.bytes.data();
    m.msg_controllen = kControlError;
    ssize_t n;
    do {
      n = recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return std::nullopt;
    DatagramError result;
    result.destination = FromSocketAddress(to);
    result.payload = room.first(static_cast<size_t>(n));
    for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
      if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) ||
          (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_HOPLIMIT)) {
        result.ttl = static_cast<uint8_t>(ValueOf(c));
      }
      const bool v4 =
          c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR;
      const bool v6 =
          c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR;
      if (!v4 && !v6) continue;
      sock_extended_err e;
      std::memcpy(&e, CMSG_DATA(c), sizeof(e));
      result.error = static_cast<int>(e.ee_errno);
      result.local = e.ee_origin != SO_EE_ORIGIN_ICMP &&
                     e.ee_origin != SO_EE_ORIGIN_ICMP6;
      if (result.error == EMSGSIZE) result.mtu = e.ee_info;
      if (result.local) continue;
      result.type = e.ee_type;
      result.code = e.ee_code;
      SocketAddress offender{};
      const size_t behind = c->cmsg_len - CMSG_LEN(sizeof(e));
      std::memcpy(&offender, CMSG_DATA(c) + sizeof(e),
                  std::min(behind, sizeof(offender)));
      result.offender = FromSocketAddress(offender).ip;
    }
    return result;
  }
};

}  // namespace

std::unique_ptr<Datagrams> NewDatagrams() {
  return std::make_unique<SystemDatagrams>();
}

}  // namespace netstack

// One system call per datagram: Darwin's calls for batches are private. It has
// neither joined datagrams nor an error queue: an unconnected socket hears of
// no ICMP error, so apps behind the TUN wait where on Linux they are told.
// Segments are cut here. The TTL of IPv4 is set for the whole socket, before
// each datagram that asks for another one.
#define __APPLE_USE_RFC_3542  // IPV6_RECVHOPLIMIT and its like
#include "core/platform/datagrams.h"

#include <netinet/in.h>
#include <netinet/ip.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>

#include "core/platform/linux/socket_address.h"

namespace netstack {
namespace {

constexpr size_t kControlIn = 128;
constexpr size_t kControlOut = 2 * CMSG_SPACE(sizeof(int));

template <size_t kSize>
struct alignas(cmsghdr) Control {
  std::array<std::byte, kSize> bytes;  // not initialized
};

template <typename T>
int SetOption(int fd, int level, int name, const T& value) {
  return setsockopt(fd, level, name, &value, sizeof(value)) == 0 ? 0 : -errno;
}

// An integer of a control message, which is one byte or four.
uint8_t ValueOf(const cmsghdr* c) {
  if (c->cmsg_len < CMSG_LEN(sizeof(int))) {
    return *reinterpret_cast<const unsigned char*>(CMSG_DATA(c));
  }
  int value;
  std::memcpy(&value, CMSG_DATA(c), sizeof(value));
  return static_cast<uint8_t>(value);
}

void ReadControl(msghdr* message, DatagramIn* in) {
  for (cmsghdr* c = CMSG_FIRSTHDR(message); c != nullptr;
       c = CMSG_NXTHDR(message, c)) {
    const int level = c->cmsg_level;
    const int type = c->cmsg_type;
    if ((level == IPPROTO_IP && type == IP_RECVTOS) ||
        (level == IPPROTO_IPV6 && type == IPV6_TCLASS)) {
      in->tos = ValueOf(c);
    } else if ((level == IPPROTO_IP && type == IP_RECVTTL) ||
               (level == IPPROTO_IPV6 && type == IPV6_HOPLIMIT)) {
      in->ttl = ValueOf(c);
    } else if (level == IPPROTO_IP && type == IP_RECVDSTADDR) {
      in->to = IpAddress::V4(reinterpret_cast<const std::byte*>(CMSG_DATA(c)));
    } else if (level == IPPROTO_IPV6 && type == IPV6_PKTINFO) {
      // in6_pktinfo begins with the address.
      in->to = IpAddress::V6(reinterpret_cast<const std::byte*>(CMSG_DATA(c)));
    }
  }
}

// IPv6 only: IPv4's are set on the socket.
size_t WriteControl(const DatagramOut& out, std::byte* at) {
  size_t size = 0;
  const auto put = [&](int type, int value) {
    auto* c = reinterpret_cast<cmsghdr*>(at + size);
    c->cmsg_level = IPPROTO_IPV6;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(sizeof(value));
    std::memcpy(CMSG_DATA(c), &value, sizeof(value));
    size += CMSG_SPACE(sizeof(value));
  };
  if (out.to.ip.IsV4()) return 0;
  if (out.tos != 0) put(IPV6_TCLASS, out.tos);
  if (out.ttl != 0) put(IPV6_HOPLIMIT, out.ttl);
  return size;
}

// The parts of a datagram, piece by piece.
class Cutter {
 public:
  explicit Cutter(std::span<const Bytes> parts) : parts_(parts) {}

  // Fills `vec` with the next `size` bytes, or all that is left. How many
  // entries; 0 at the end.
  size_t Next(size_t size, std::span<iovec> vec) {
    size_t count = 0;
    while (size > 0 && part_ < parts_.size() && count < vec.size()) {
      const Bytes rest = parts_[part_].subspan(offset_);
      const size_t n = std::min(size, rest.size());
      if (n > 0) vec[count++] = {const_cast<std::byte*>(rest.data()), n};
      size -= n;
      offset_ += n;
      if (offset_ == parts_[part_].size()) {
        ++part_;
        offset_ = 0;
      }
    }
    return count;
  }

 private:
  const std::span<const Bytes> parts_;
  size_t part_ = 0;
  size_t offset_ = 0;
};

// What is behind the IPv4 header that Darwin leaves on the messages of a ping
// socket. Such a sender has no port, and one of UDP has.
MutableBytes WithoutHeader(const DatagramIn& in, MutableBytes payload) {
  if (in.from.port != 0 || !in.from.ip.IsV4() || payload.empty()) {
    return payload;
  }
  const size_t size = std::to_integer<size_t>(payload[0] & std::byte{15}) * 4;
  return payload.subspan(std::min(size, payload.size()));
}

class SystemDatagrams final : public Datagrams {
 public:
  int Prepare(int fd, SocketKind, bool v4) override {
    const int on = 1;
    int error = 0;
    const auto set = [&](int level, int name) {
      if (error == 0) error = SetOption(fd, level, name, on);
    };
    if (v4) {
      set(IPPROTO_IP, IP_RECVTOS);
      set(IPPROTO_IP, IP_RECVTTL);
      set(IPPROTO_IP, IP_RECVDSTADDR);
    } else {
      set(IPPROTO_IPV6, IPV6_V6ONLY);
      set(IPPROTO_IPV6, IPV6_RECVTCLASS);
      set(IPPROTO_IPV6, IPV6_RECVHOPLIMIT);
      set(IPPROTO_IPV6, IPV6_RECVPKTINFO);
    }
    return error;
  }

  int Bind(int fd, const Endpoint& local) override {
    SocketAddress address;
    const socklen_t size = ToSocketAddress(local, &address);
    return bind(fd, &address.any, size) == 0 ? 0 : -errno;
  }

  int SetDontFragment(int fd, bool v4, bool on) override {
    return v4 ? SetOption(fd, IPPROTO_IP, IP_DONTFRAG, static_cast<int>(on))
              : SetOption(fd, IPPROTO_IPV6, IPV6_DONTFRAG,
                          static_cast<int>(on));
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
    const size_t share = std::min(room.size() / count, kMaxDatagram);
    for (size_t i = 0; i < count; ++i) {
      const int error = ReceiveOne(fd, room.subspan(i * share, share), &into[i]);
      // An error behind datagrams is lost; "nothing there" comes again.
      if (error != 0) return i > 0 ? static_cast<int>(i) : error;
    }
    return static_cast<int>(count);
  }

  int Send(int fd, std::span<const DatagramOut> batch) override {
    const size_t count = std::min(batch.size(), kMaxBatch);
    if (count == 0) return -EINVAL;
    for (size_t i = 0; i < count; ++i) {
      const int error = SendSegments(fd, batch[i]);
      if (error != 0) return i > 0 ? static_cast<int>(i) : error;
    }
    return static_cast<int>(count);
  }

  std::optional<DatagramError> TakeError(int fd, MutableBytes) override {
    int error = 0;  // reading it clears it
    socklen_t size = sizeof(error);
    (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return std::nullopt;
  }

 private:
  static int ReceiveOne(int fd, MutableBytes room, DatagramIn* in) {
    SocketAddress from{};
    Control<kControlIn> control;
    iovec part{room.data(), room.size()};
    msghdr m{};
    m.msg_name = &from;
    m.msg_namelen = sizeof(from);
    m.msg_iov = &part;
    m.msg_iovlen = 1;
    m.msg_control = control.bytes.data();
    m.msg_controllen = kControlIn;
    ssize_t n;
    do {
      n = recvmsg(fd, &m, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return -errno;
    *in = {};
    in->from = FromSocketAddress(from);
    in->truncated = (m.msg_flags & MSG_TRUNC) != 0;
    ReadControl(&m, in);
    in->payload = WithoutHeader(*in, room.first(static_cast<size_t>(n)));
    return 0;
  }

  // A segment that does not go is lost like one on the network, unless it is
  // the first: then the datagram waits.
  static int SendSegments(int fd, const DatagramOut& out) {
    if (out.parts.size() > kMaxParts) return -EINVAL;
    if (out.to.ip.IsV4()) {
      if (out.tos != 0) {
        (void)SetOption(fd, IPPROTO_IP, IP_TOS, static_cast<int>(out.tos));
      }
      if (out.ttl != 0) {
        (void)SetOption(fd, IPPROTO_IP, IP_TTL, static_cast<int>(out.ttl));
      }
    }
    SocketAddress to;
    Control<kControlOut> control;
    std::array<iovec, kMaxParts> vec;  // not initialized
    msghdr m{};
    m.msg_name = &to;
    m.msg_namelen = ToSocketAddress(out.to, &to);
    m.msg_iov = vec.data();
    m.msg_controllen =
        static_cast<socklen_t>(WriteControl(out, control.bytes.data()));
    if (m.msg_controllen != 0) m.msg_control = control.bytes.data();
    const size_t size = out.segment_size != 0 ? out.segment_size : SIZE_MAX;
    Cutter cutter(out.parts);
    for (bool first = true;; first = false) {
      m.msg_iovlen = static_cast<int>(cutter.Next(size, vec));
      if (m.msg_iovlen == 0 && !first) return 0;
      ssize_t n;
      do {
        n = sendmsg(fd, &m, MSG_DONTWAIT);
      } while (n < 0 && errno == EINTR);
      if (n < 0 && first) return -errno;
    }
  }
};

}  // namespace

std::unique_ptr<Datagrams> NewDatagrams() {
  return std::make_unique<SystemDatagrams>();
}

}  // namespace netstack

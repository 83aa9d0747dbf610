#include "tests/e2e/support/raw.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "gtest/gtest.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

constexpr size_t kBatch = 64;

Fd PacketSocket(const std::string& ns, const std::string& device,
                uint16_t protocol, int* index) {
  const Enter enter(ns);
  *index = static_cast<int>(if_nametoindex(device.c_str()));
  EXPECT_NE(*index, 0) << "no device " << device << " in " << ns;
  Fd fd(socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  EXPECT_TRUE(fd.ok()) << "packet socket: " << std::strerror(errno);
  sockaddr_ll where{};
  where.sll_family = AF_PACKET;
  where.sll_protocol = htons(protocol);
  where.sll_ifindex = *index;
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&where), sizeof(where)),
            0);
  return fd;
}

}  // namespace

// Protocol 0: this socket receives nothing.
Injector::Injector(const std::string& ns, const std::string& device)
    : fd_(PacketSocket(ns, device, 0, &device_)) {}

void Injector::Send(Bytes packet) {
  std::vector<std::vector<std::byte>> packets(1);
  packets[0].assign(packet.begin(), packet.end());
  Send(packets);
}

void Injector::Send(const std::vector<std::vector<std::byte>>& packets) {
  for (size_t at = 0; at < packets.size();) {
    const size_t n = std::min(kBatch, packets.size() - at);
    mmsghdr messages[kBatch] = {};
    iovec parts[kBatch];
    sockaddr_ll to[kBatch] = {};
    for (size_t i = 0; i < n; ++i) {
      const auto& packet = packets[at + i];
      const bool v4 = Load8(packet.data()) >> 4 == 4;
      to[i].sll_family = AF_PACKET;
      to[i].sll_ifindex = device_;
      to[i].sll_protocol = htons(v4 ? ETH_P_IP : ETH_P_IPV6);
      parts[i] = {const_cast<std::byte*>(packet.data()), packet.size()};
      messages[i].msg_hdr.msg_name = &to[i];
      messages[i].msg_hdr.msg_namelen = sizeof(to[i]);
      messages[i].msg_hdr.msg_iov = &parts[i];
      messages[i].msg_hdr.msg_iovlen = 1;
    }
    const int sent = sendmmsg(fd_.get(), messages, static_cast<unsigned>(n), 0);
    if (sent > 0) {
      at += static_cast<size_t>(sent);
    } else if (errno == ENOBUFS || errno == EAGAIN) {
      std::this_thread::yield();  // the device's queue is full
    } else {
      ADD_FAILURE() << "packet socket: " << std::strerror(errno);
      return;
    }
  }
}

Flood::Flood(Injector& injector, int per_second,
             std::function<std::vector<std::byte>()> next)
    : thread_([this, &injector, per_second, next = std::move(next)] {
        const auto start = Clock::now();
        while (!stopping_) {
          const auto due =
              static_cast<uint64_t>(SecondsSince(start) * per_second);
          if (due <= sent_) {
            Pause(milliseconds(1));
            continue;
          }
          const size_t n = std::min<uint64_t>(due - sent_, 4 * kBatch);
          std::vector<std::vector<std::byte>> packets(n);
          for (auto& packet : packets) packet = next();
          injector.Send(packets);
          sent_ += n;
        }
      }) {}

Flood::~Flood() {
  stopping_ = true;
  thread_.join();
}

Sniffer::Sniffer(const std::string& ns, const std::string& device) {
  int index = 0;
  fd_ = PacketSocket(ns, device, ETH_P_ALL, &index);
  const int size = 16 << 20;
  setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

std::optional<Seen> Sniffer::Next(Clock::duration patience) {
  const auto end = Clock::now() + patience;
  for (;;) {
    const auto left =
        std::chrono::duration_cast<milliseconds>(end - Clock::now()).count();
    pollfd waiting = {fd_.get(), POLLIN, 0};
    if (poll(&waiting, 1, std::max(0, static_cast<int>(left))) != 1) {
      return std::nullopt;
    }
    std::byte packet[128];
    sockaddr_ll from{};
    socklen_t from_size = sizeof(from);
    // MSG_TRUNC: the packet's real size.
    const ssize_t n = recvfrom(fd_.get(), packet, sizeof(packet), MSG_TRUNC,
                               reinterpret_cast<sockaddr*>(&from), &from_size);
    if (n < 40) continue;
    const bool v4 = Load8(&packet[0]) >> 4 == 4;
    const size_t header = v4 ? (Load8(&packet[0]) & 15u) * 4 : 40;
    const uint8_t protocol = Load8(&packet[v4 ? 9 : 6]);
    if (protocol != 6 || static_cast<size_t>(n) < header + 20) continue;
    const std::byte* tcp = packet + header;
    Seen seen;
    seen.to_app = from.sll_pkttype != PACKET_OUTGOING;
    seen.source_port = Load16(tcp);
    seen.destination_port = Load16(tcp + 2);
    seen.seq = Load32(tcp + 4);
    seen.ack = Load32(tcp + 8);
    seen.flags = Load8(tcp + 13);
    seen.window = Load16(tcp + 14);
    seen.payload = static_cast<size_t>(n) - header - (Load8(tcp + 12) >> 4) * 4;
    return seen;
  }
}

}  // namespace netstack::e2e

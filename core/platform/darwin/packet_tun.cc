// As linux/packet_tun.cc.
#include "core/platform/packet_tun.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/platform/linux/unique_fd.h"

namespace netstack {
namespace {

constexpr size_t kMaxParts = 64;
// What may wait for the loop; the kernel may give less.
constexpr int kPipeBytes = 1024 * 1024;

class DarwinPacketPipe final : public PacketPipe {
 public:
  DarwinPacketPipe(UniqueFd app, UniqueFd engine)
      : app_(std::move(app)), engine_(std::move(engine)) {}

  int Input(Bytes packet) override {
    ssize_t n;
    do {
      n = send(app_.get(), packet.data(), packet.size(),
               MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) return 0;
    // ENOBUFS is a full pipe, too.
    return errno == ENOBUFS ? -EAGAIN : -errno;
  }

  int fd() const override { return engine_.get(); }

 private:
  const UniqueFd app_;
  const UniqueFd engine_;
};

class PacketTun final : public Tun {
 public:
  PacketTun(std::shared_ptr<PacketPipe> pipe, uint32_t mtu,
            std::function<int(Bytes packet)> write)
      : pipe_(std::move(pipe)), mtu_(mtu), write_(std::move(write)) {}

  int fd() const override { return pipe_->fd(); }
  const std::string& name() const override { return name_; }
  uint32_t mtu() const override { return mtu_; }
  bool offload() const override { return false; }

  TunRead Read(std::span<const MutableBytes> parts) override {
    if (parts.size() > kMaxParts) return {.size = -EINVAL};
    std::array<iovec, kMaxParts> vec;  // not initialized
    for (size_t i = 0; i < parts.size(); ++i) {
      vec[i] = {parts[i].data(), parts[i].size()};
    }
    msghdr message{};
    message.msg_iov = vec.data();
    message.msg_iovlen = static_cast<int>(parts.size());
    ssize_t n;
    do {
      n = recvmsg(pipe_->fd(), &message, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return {.size = errno == EAGAIN ? 0 : -errno};
    return {.size = n};
  }

  int Write(std::span<const Bytes> parts, const TunWrite& how) override {
    if (how.partial_checksum || how.segment_size != 0) return -EOPNOTSUPP;
    if (parts.size() == 1) return write_(parts[0]);
    gathered_.clear();
    for (const Bytes& part : parts) {
      gathered_.insert(gathered_.end(), part.begin(), part.end());
    }
    return write_(gathered_);
  }

 private:
  const std::shared_ptr<PacketPipe> pipe_;
  const std::string name_ = "packets";
  const uint32_t mtu_;
  const std::function<int(Bytes packet)> write_;
  std::vector<std::byte> gathered_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<PacketPipe>> PacketPipe::Make() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_DGRAM, 0, fds) != 0) {
    return absl::ErrnoToStatus(errno, "cannot make a pair of sockets");
  }
  auto pipe =
      std::make_shared<DarwinPacketPipe>(UniqueFd(fds[0]), UniqueFd(fds[1]));
  for (const int fd : fds) {
    const int on = 1;
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on)) != 0) {
      return absl::ErrnoToStatus(errno, "cannot prepare a pair of sockets");
    }
  }
  // The sender's bounds one datagram (2 KiB by default), the receiver's what
  // may wait.
  (void)setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &kPipeBytes,
                   sizeof(kPipeBytes));
  (void)setsockopt(fds[1], SOL_SOCKET, SO_RCVBUF, &kPipeBytes,
                   sizeof(kPipeBytes));
  return pipe;
}

std::unique_ptr<Tun> NewPacketTun(std::shared_ptr<PacketPipe> pipe,
                                  uint32_t mtu,
                                  std::function<int(Bytes packet)> write) {
  return std::make_unique<PacketTun>(std::move(pipe), mtu, std::move(write));
}

}  // namespace netstack

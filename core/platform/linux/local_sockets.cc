#include "core/platform/local_sockets.h"

#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>


namespace netstack {
namespace {

class SystemLocalSockets final : public LocalSockets {
 public:
  int Connect(const std::string& path) override {
    sockaddr_un address{};
    if (path.empty() || path.size() >= sizeof(address.sun_path)) {
      return -EINVAL;
    }
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    auto size = static_cast<socklen_t>(sizeof(address));
    if (path[0] == '@') {
      // An abstract name is as long as it is said to be.
      address.sun_path[0] = '\0';
      size = static_cast<socklen_t>(sizeof(address.sun_family) + path.size());
    }
    const int fd =
        socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0) {
      return fd;
    }
    const int error = errno;
    close(fd);
    return -error;
  }

  std::optional<uint32_t> PeerUid(int fd) override {
    ucred peer{};
    socklen_t size = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return {};
    return peer.uid;
  }

  uint32_t OwnUid() override { return geteuid(); }

  int64_t Send(int fd, Bytes bytes, int pass) override {
    iovec vec{const_cast<std::byte*>(bytes.data()), bytes.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
    msghdr message{};
    message.msg_iov = &vec;
    message.msg_iovlen = 1;
    if (pass >= 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof(control);
      cmsghdr* c = CMSG_FIRSTHDR(&message);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(c), &pass, sizeof(pass));
    }
    ssize_t n;
    do {
      n = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? n : -errno;
  }

  int64_t Receive(int fd, MutableBytes into) override {
    ssize_t n;
    do {
      n = recv(fd, into.data(), into.size(), MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? n : -errno;
  }

  void Close(int fd) override { close(fd); }
};

}  // namespace

std::unique_ptr<LocalSockets> NewLocalSockets() {
  return std::make_unique<SystemLocalSockets>();
}

}  // namespace netstack

// As linux/local_sockets.cc, without an abstract namespace.
#include "core/platform/local_sockets.h"

#include <fcntl.h>
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
    if (path.empty() || path[0] == '@' ||
        path.size() >= sizeof(address.sun_path)) {
      return -EINVAL;
    }
    address.sun_family = AF_UNIX;
    address.sun_len = sizeof(address);
    std::memcpy(address.sun_path, path.data(), path.size());
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) return -errno;
    const int on = 1;
    if (fcntl(fd, F_SETFL, O_NONBLOCK) == 0 &&
        fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on)) == 0 &&
        connect(fd, reinterpret_cast<const sockaddr*>(&address),
                sizeof(address)) == 0) {
      return fd;
    }
    const int error = errno;
    close(fd);
    return -error;
  }

  std::optional<uint32_t> PeerUid(int fd) override {
    uid_t uid = 0;
    gid_t gid = 0;
    if (getpeereid(fd, &uid, &gid) != 0) return {};
    return uid;
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
      n = sendmsg(fd, &message, MSG_DONTWAIT);
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

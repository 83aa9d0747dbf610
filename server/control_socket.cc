#include "server/control_socket.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace netstack::server {
namespace {

constexpr int kBacklog = 64;

absl::Status Errno(int error, absl::string_view what) {
  return absl::ErrnoToStatus(error, what);
}

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status CheckDirectory(const std::string& dir, bool open_to_others) {
  // Only the last part is made: a missing parent is a mistake in the path.
  if (mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST) {
    return Errno(errno, absl::StrCat("cannot make the directory ", dir));
  }
  struct stat st {};
  if (lstat(dir.c_str(), &st) != 0) {
    return Errno(errno, absl::StrCat("cannot look at ", dir));
  }
  if (!S_ISDIR(st.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(dir, " is not a directory."));
  }
  if (st.st_uid != geteuid()) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "The directory %s belongs to uid %d and not to us (%d); the control "
        "socket needs a directory of its own.",
        dir, st.st_uid, geteuid()));
  }
  const mode_t wider = open_to_others ? 0066 : 0077;
  if ((st.st_mode & wider) != 0) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "The directory %s has mode %04o; the control socket needs a directory "
        "with 0700.",
        dir, st.st_mode & 07777));
  }
  return absl::OkStatus();
}

absl::StatusOr<int> TakeLock(const std::string& path) {
  const std::string name = path + ".lock";
  const int fd = open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
                      0600);
  if (fd < 0) return Errno(errno, absl::StrCat("cannot open ", name));
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  const int error = errno;
  close(fd);
  if (error == EWOULDBLOCK) {
    return absl::AlreadyExistsError(absl::StrCat(
        "Another netstackd holds ", path, " (its lock file is locked)."));
  }
  return Errno(error, absl::StrCat("cannot lock ", name));
}

// Removes a stale socket.
absl::Status MakeRoom(const std::string& path, const sockaddr_un& address) {
  struct stat st {};
  if (lstat(path.c_str(), &st) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return Errno(errno, absl::StrCat("cannot look at ", path));
  }
  if (!S_ISSOCK(st.st_mode)) {
    return absl::AlreadyExistsError(
        absl::StrCat(path, " exists and is not a socket."));
  }
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Errno(errno, "cannot make a socket");
  const int rc =
      connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  close(fd);
  // Only a refusal proves that nobody listens; EAGAIN is a full backlog.
  if (rc == 0 || error != ECONNREFUSED) {
    return absl::AlreadyExistsError(
        absl::StrCat("Another process answers on ", path,
                     "; it is left alone."));
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return Errno(errno, absl::StrCat("cannot remove the stale ", path));
  }
  return absl::OkStatus();
}

absl::StatusOr<int> BindAndListen(const std::string& path,
                                  const sockaddr_un& address) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Errno(errno, "cannot make a socket");
  const mode_t before = umask(0177);
  int rc = bind(fd, reinterpret_cast<const sockaddr*>(&address),
                sizeof address);
  int error = errno;
  umask(before);
  if (rc == 0) {
    rc = listen(fd, kBacklog);
    error = errno;
  }
  if (rc == 0) return fd;
  close(fd);
  return Errno(error, absl::StrCat("cannot listen on ", path));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ControlSocket>> ControlSocket::Bind(
    const std::string& path, bool open_to_others) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(
        absl::StrCat("The socket path has ", path.size(),
                     " bytes; 1 to ", sizeof address.sun_path - 1,
                     " are possible: ", path));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  absl::Status ok = CheckDirectory(DirectoryOf(path), open_to_others);
  if (!ok.ok()) return ok;
  absl::StatusOr<int> lock_fd = TakeLock(path);
  if (!lock_fd.ok()) return lock_fd.status();
  ok = MakeRoom(path, address);
  absl::StatusOr<int> fd = ok.ok() ? BindAndListen(path, address) : ok;
  struct stat st {};
  if (!fd.ok() || lstat(path.c_str(), &st) != 0) {
    const absl::Status why =
        fd.ok() ? Errno(errno, absl::StrCat(path, " is gone")) : fd.status();
    if (fd.ok()) close(*fd);
    close(*lock_fd);
    return why;
  }
  auto out = std::unique_ptr<ControlSocket>(
      new ControlSocket(path, *fd, *lock_fd, st.st_dev, st.st_ino));
  out->OpenToOthers(open_to_others);
  return out;
}

ControlSocket::~ControlSocket() {
  close(fd_);
  OpenToOthers(false);
  struct stat st {};
  if (lstat(path_.c_str(), &st) == 0 && st.st_dev == device_ &&
      st.st_ino == inode_) {
    unlink(path_.c_str());
  }
  // The lock file stays: removing it would let two services lock two files.
  close(lock_fd_);
}

void ControlSocket::OpenToOthers(bool open) {
  if (open == open_) return;
  open_ = open;
  // The socket before the directory when closing, after it when opening: the
  // peer check holds either way. A failure leaves it narrower than wanted.
  (void)!chmod(path_.c_str(), open ? 0666 : 0600);
  (void)!chmod(DirectoryOf(path_).c_str(), open ? 0711 : 0700);
}

}  // namespace netstack::server

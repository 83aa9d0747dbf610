// The control socket's place in the file system.
//
// How this works, in order, so that there is no moment in which it is open to
// others, and no live service loses its socket:
//   1. The path must fit into sockaddr_un (107 bytes and a NUL).
//   2. The directory is made with mode 0700, or must be ours and as narrow.
//   3. A lock file beside the socket ("<path>.lock") is locked with flock(2)
//      and stays so: two services cannot both believe the socket stale.
//   4. A socket that answers connect(2) is another's: refused. One that does
//      not is stale and removed. Anything that is no socket is left alone and
//      refused.
//   5. umask 0177, bind(2), listen(2): 0600 from its first moment.
// The socket is removed at the end if it is still ours (same inode).
//
// With foreign uids allowed (ControlConfig::allowed_uids), the path is opened
// to everybody after that (0711 and 0666), and the peer check of the
// control_listener alone decides; without them it is 0700 and 0600.
#ifndef SERVER_CONTROL_SOCKET_H_
#define SERVER_CONTROL_SOCKET_H_

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace netstack::server {

class ControlSocket {
 public:
  // Errors are one sentence each.
  static absl::StatusOr<std::unique_ptr<ControlSocket>> Bind(
      const std::string& path, bool open_to_others);
  ~ControlSocket();
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

  int fd() const { return fd_; }  // listening, non-blocking; ours to close
  const std::string& path() const { return path_; }
  void OpenToOthers(bool open);

 private:
  ControlSocket(std::string path, int fd, int lock_fd, dev_t device,
                ino_t inode)
      : path_(std::move(path)),
        fd_(fd),
        lock_fd_(lock_fd),
        device_(device),
        inode_(inode) {}

  const std::string path_;
  const int fd_;
  const int lock_fd_;
  const dev_t device_;  // of the socket that we bound
  const ino_t inode_;
  bool open_ = false;
};

}  // namespace netstack::server

#endif  // SERVER_CONTROL_SOCKET_H_

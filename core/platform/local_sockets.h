// Connections to an app of this machine, over which descriptors pass.
//
// Errors are negative errno values.
#ifndef CORE_PLATFORM_LOCAL_SOCKETS_H_
#define CORE_PLATFORM_LOCAL_SOCKETS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/base/bytes.h"

namespace netstack {

class LocalSockets {
 public:
  virtual ~LocalSockets() = default;

  // A non-blocking, close-on-exec connection to the stream socket that
  // listens at `path` ("@name": Linux's abstract namespace); the descriptor
  // or -errno. -EAGAIN: its backlog is full. Never waits (unix(7)).
  virtual int Connect(const std::string& path) = 0;
  // The user that listens there, as it was at listen(2).
  virtual std::optional<uint32_t> PeerUid(int fd) = 0;
  virtual uint32_t OwnUid() = 0;
  // Sends without SIGPIPE; `pass` travels with the first byte as SCM_RIGHTS
  // and stays open here. Bytes taken, -EAGAIN, -ETOOMANYREFS (too many
  // descriptors are on their way already), or -errno.
  virtual int64_t Send(int fd, Bytes bytes, int pass) = 0;
  // Bytes read, 0 at end of stream, -EAGAIN, or -errno. Descriptors that come
  // along are discarded by the kernel.
  virtual int64_t Receive(int fd, MutableBytes into) = 0;
  virtual void Close(int fd) = 0;
};

std::unique_ptr<LocalSockets> NewLocalSockets();

}  // namespace netstack

#endif  // CORE_PLATFORM_LOCAL_SOCKETS_H_

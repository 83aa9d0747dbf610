// Whose a socket of this machine is.
#ifndef CORE_PLATFORM_SOCKET_OWNERS_H_
#define CORE_PLATFORM_SOCKET_OWNERS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/flow/flow_key.h"

namespace netstack {

struct SocketOwner {
  uint32_t uid = 0;
  uint64_t inode = 0;  // of the socket; names it in /proc
};

struct ProcessInfo {
  uint32_t pid = 0;
  std::string name;  // /proc/PID/comm
};

class SocketOwners {
 public:
  virtual ~SocketOwners() = default;
  // Who has the socket whose packets have this key. Does not wait: one
  // question to the kernel, some microseconds. Nothing when there is none in
  // our network namespace.
  virtual std::optional<SocketOwner> Find(const FlowKey& key) = 0;
};

// Linux: NETLINK_SOCK_DIAG (sock_diag(7)), by the exact addresses and ports,
// in the network namespace that the caller is in now. Null where the kernel
// has none (then nothing can be found).
std::unique_ptr<SocketOwners> NewSocketOwners();

// Finds processes by their sockets' inodes. Walks /proc, which takes
// milliseconds: never on the loop. A process that had a socket before is
// looked at first.
class ProcessFinder {
 public:
  virtual ~ProcessFinder() = default;
  virtual std::optional<ProcessInfo> Find(const SocketOwner& owner) = 0;
};
std::unique_ptr<ProcessFinder> NewProcessFinder();

}  // namespace netstack

#endif  // CORE_PLATFORM_SOCKET_OWNERS_H_

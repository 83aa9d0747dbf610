// A TUN for platforms that give packets instead of a descriptor (iOS'
// NEPacketTunnelFlow): the app calls a function with each packet of its apps,
// and is called with each packet to them.
#ifndef CORE_PLATFORM_PACKET_TUN_H_
#define CORE_PLATFORM_PACKET_TUN_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "core/base/bytes.h"
#include "core/platform/tun.h"

namespace netstack {

// From the app to the engine: a pair of datagram sockets, which keeps packets
// apart and wakes the loop. It outlives the stack's runs.
class PacketPipe {
 public:
  static absl::StatusOr<std::shared_ptr<PacketPipe>> Make();
  virtual ~PacketPipe() = default;
  // Any thread. 0, -EAGAIN (the engine has not caught up: the packet is the
  // caller's to keep or drop), or -errno.
  virtual int Input(Bytes packet) = 0;
  // The engine's end; the pipe's own.
  virtual int fd() const = 0;
};

// `write` is called on the loop thread with each packet, whole and in one
// piece, which is the engine's again when it returns; 0, or -errno (the packet
// is dropped and counted). Never waits.
std::unique_ptr<Tun> NewPacketTun(std::shared_ptr<PacketPipe> pipe,
                                  uint32_t mtu,
                                  std::function<int(Bytes packet)> write);

}  // namespace netstack

#endif  // CORE_PLATFORM_PACKET_TUN_H_

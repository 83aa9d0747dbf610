// The TUN device: IP packets in, IP packets out.
//
// With offload one call carries a TCP super-segment of up to 64 KiB that the
// kernel cuts or joins (virtio_net_hdr; Linux Documentation/networking/
// tuntap.rst and the virtio specification, 5.1.6), and where the kernel can
// (USO, Linux 6.2) a batch of UDP datagrams; without, one packet of at most the
// MTU.
#ifndef CORE_PLATFORM_TUN_H_
#define CORE_PLATFORM_TUN_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/bytes.h"

namespace netstack {

// The largest packet that a read can give.
inline constexpr size_t kMaxPacketSize = 65535;

struct TunRead {
  // Bytes of the packet; 0: nothing to read now, also while the device is
  // down; negative: -errno, and the device is gone (EBADFD: it was deleted).
  int64_t size = 0;
  // The kernel vouches for the transport checksum, which may be partial.
  bool checksum_trusted = false;
  // Not 0: a batch of UDP datagrams of one sender to one receiver behind one
  // header; each has this many bytes of payload but for the last, which may
  // be shorter.
  uint16_t udp_segment = 0;
};

// What the kernel is to do to a packet that we write.
struct TunWrite {
  // The transport checksum field holds the folded pseudo-header sum, and the
  // rest is left to the kernel. Only with offload.
  bool partial_checksum = false;
  uint16_t checksum_start = 0;   // offset of the transport header
  uint16_t checksum_offset = 0;  // of the checksum field behind that
  // Payload bytes per packet of a TCP super-segment, or of a batch of UDP
  // datagrams (only with udp_offload()); 0: not to be cut. With it the
  // checksum is partial.
  uint16_t segment_size = 0;
  uint16_t headers = 0;  // bytes of IP and transport header
  bool v4 = true;
  bool udp = false;
};

class Tun {
 public:
  virtual ~Tun() = default;

  virtual int fd() const = 0;
  virtual const std::string& name() const = 0;
  virtual uint32_t mtu() const = 0;
  virtual bool offload() const = 0;
  // Whether batches of UDP datagrams are taken and given too.
  virtual bool udp_offload() const { return false; }

  // Reads one packet, scattered over `parts` in order.
  virtual TunRead Read(std::span<const MutableBytes> parts) = 0;
  // Writes one packet gathered from `parts` (at most 64). 0, -EAGAIN (try
  // again when the descriptor is writable) or -errno (EIO: the device is
  // down).
  virtual int Write(std::span<const Bytes> parts, const TunWrite& how) = 0;
};

struct TunOptions {
  std::string name{};  // used when fd < 0: created, or attached to
  int fd = -1;       // owned from the call on, whatever comes of it
  uint32_t mtu = 1500;
  // A given device is asked for its own MTU; else `mtu` is what it has.
  bool ask_mtu = true;
  bool offload = true;  // asked for; Tun::offload() says what was had
};

// Opens /dev/net/tun, or checks and takes the given descriptor (TUNGETIFF
// must succeed; a TAP, and a TUN without IFF_NO_PI, are refused). A created
// device is brought up with the MTU; one that was there, or is given, keeps its
// own, and Tun::mtu() tells it (the configured one where the device lives in
// another network namespace). Makes the descriptor non-blocking. Nothing
// later needs the device's name, so it may be moved to another namespace.
// Errors carry one clear sentence:
// PERMISSION_DENIED, NOT_FOUND (no /dev/net/tun), FAILED_PRECONDITION (the
// name is taken by another program or another kind of device),
// INVALID_ARGUMENT (no TUN descriptor), UNAVAILABLE.
absl::StatusOr<std::unique_ptr<Tun>> OpenTun(TunOptions options);

// Whether OpenTun() would take this descriptor, as far as can be said without
// changing anything: INVALID_ARGUMENT for files, sockets, TAPs and the like.
absl::Status CheckTunDescriptor(int fd);

}  // namespace netstack

#endif  // CORE_PLATFORM_TUN_H_

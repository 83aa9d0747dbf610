// Datagram sockets: batches of datagrams with what their headers said, and
// the error queue. For UDP and for ping sockets (icmp(7)) alike.
//
// Errors are negative errno values; nothing is allocated per call. Sockets
// come from the Dialer (Sockets::Open) and are closed there.
//
//   datagrams->Prepare(fd, SocketKind::kUdp, v4);
//   datagrams->Bind(fd, local);             // optional
//   n = datagrams->Send(fd, batch);         // -ECONNREFUSED: an ICMP error
//   while (auto e = datagrams->TakeError(fd, room)) ...;    // which is here
//   n = datagrams->Send(fd, batch);         // and this time it goes
#ifndef CORE_PLATFORM_DATAGRAMS_H_
#define CORE_PLATFORM_DATAGRAMS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "core/base/bytes.h"
#include "core/platform/sockets.h"
#include "core/wire/ip_address.h"

namespace netstack {

// The largest payload that one Receive() or Send() carries: a UDP datagram of
// IPv6, or a batch that the kernel joined.
inline constexpr size_t kMaxDatagram = 65535;

struct DatagramIn {
  Endpoint from;  // a ping socket's port is 0
  IpAddress to;   // where it was sent to: an address of our host
  uint8_t tos = 0;  // traffic class in IPv6; both with ECN
  uint8_t ttl = 0;  // hop limit in IPv6; 0: not told
  // Not 0: several datagrams of one sender, each of this many bytes but for
  // the last, which may be shorter (UDP_GRO).
  uint16_t segment_size = 0;
  // The kernel cut the datagram: it did not fit into its room.
  bool truncated = false;
  // UDP: what is behind the UDP header. Ping socket: the ICMP message.
  Bytes payload;
};

struct DatagramOut {
  Endpoint to;  // of the socket's family; a ping socket's port is 0
  std::span<const Bytes> parts;  // gathered; at most kMaxParts
  // Not 0: the payload is cut into datagrams of this many bytes, at most
  // kMaxSegments of them (UDP_SEGMENT).
  uint16_t segment_size = 0;
  uint8_t tos = 0;
  uint8_t ttl = 0;  // 0: the system's own
};

// One entry of the error queue (ip(7), IP_RECVERR).
struct DatagramError {
  int error = 0;  // a positive errno, e.g. ECONNREFUSED
  // Made by our own kernel (EMSGSIZE before anything was sent), and not by an
  // ICMP message from the network; then type and code mean nothing.
  bool local = false;
  uint8_t type = 0;  // ICMP's or ICMPv6's
  uint8_t code = 0;
  uint32_t mtu = 0;    // of EMSGSIZE: what would have gone through
  uint8_t ttl = 0;     // of that message; 0: not told
  IpAddress offender;  // who sent the ICMP message; unspecified with `local`
  // Of the datagram that failed. With `local` the port may be 0: IPv4 does not
  // tell it; but then the Send() before is what failed.
  Endpoint destination;
  // The start of that datagram as far as it was quoted, as in DatagramIn;
  // empty with `local`.
  Bytes payload;
};

// Loop thread only.
class Datagrams {
 public:
  // Bounds of one Send() and Receive(): more is left for the next.
  static constexpr size_t kMaxBatch = 64;
  static constexpr size_t kMaxParts = 64;     // of one datagram
  static constexpr size_t kMaxSegments = 64;  // UDP_MAX_SEGMENTS of old kernels

  virtual ~Datagrams() = default;

  // Makes the socket tell TOS, TTL, joined datagrams and errors, and keeps an
  // IPv6 socket to IPv6. 0 or -errno. Before Bind().
  virtual int Prepare(int fd, SocketKind kind, bool v4) = 0;
  // The unspecified address of the family: any; port 0: the kernel's choice.
  // Of a ping socket the port is the id of its echoes. 0 or -errno.
  virtual int Bind(int fd, const Endpoint& local) = 0;
  // On: datagrams have IPv4's DF, and one that is too big for the path fails
  // with -EMSGSIZE and an error in the queue. Off: the kernel fragments (also
  // IPv6's, where it is the host that does so).
  virtual int SetDontFragment(int fd, bool v4, bool on) = 0;
  // Permits broadcast destinations.
  virtual int AllowBroadcast(int fd) = 0;
  // Asks for kernel buffers of that many bytes; the system may give less.
  virtual void SetBuffers(int fd, uint32_t receive, uint32_t send) = 0;

  // Fills `into` from the front, at most kMaxBatch; each datagram gets an
  // equal share of `room`, at most kMaxDatagram. How many were received,
  // -EAGAIN, or -errno: an error of an earlier datagram, told once; TakeError()
  // knows which. Payloads point into `room`.
  virtual int Receive(int fd, MutableBytes room,
                      std::span<DatagramIn> into) = 0;
  // Sends from the front, at most kMaxBatch. How many the socket took, at
  // least 1; -EAGAIN; or -errno, which is the first one's or, as in
  // Receive(), of an earlier datagram.
  virtual int Send(int fd, std::span<const DatagramOut> batch) = 0;
  // The next entry of the error queue; nullopt when it is empty. Taking the
  // last one clears the socket's pending error.
  virtual std::optional<DatagramError> TakeError(int fd,
                                                 MutableBytes room) = 0;
};

std::unique_ptr<Datagrams> NewDatagrams();

}  // namespace netstack

#endif  // CORE_PLATFORM_DATAGRAMS_H_

// The host side's socket calls, so that a test can script them.
//
// Errors are negative errno values. Nothing here decides anything: the Dialer
// is the only caller of Open() and Connect().
#ifndef CORE_PLATFORM_SOCKETS_H_
#define CORE_PLATFORM_SOCKETS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/base/bytes.h"
#include "core/base/time.h"
#include "core/wire/ip_address.h"

namespace netstack {

enum class SocketKind : uint8_t {
  kTcp,   // with TCP_NODELAY and SO_OOBINLINE
  kUdp,
  kEcho,  // ICMP echo without privileges, a "ping socket" (icmp(7)); -EACCES
          // where net.ipv4.ping_group_range does not permit it
};

// Two connected ends; both -1 with an error.
struct SocketPair {
  int error = 0;  // 0 or -errno
  int first = -1;
  int second = -1;
};

class Sockets {
 public:
  virtual ~Sockets() = default;

  // A non-blocking, close-on-exec socket of the family. The descriptor, or
  // -errno.
  virtual int Open(SocketKind kind, bool v4) = 0;
  // A connected pair of local stream sockets (AF_UNIX), non-blocking and
  // close-on-exec: a stream that stays inside the process.
  virtual SocketPair OpenPair() = 0;
  // 0 or -errno each.
  virtual int SetMark(int fd, uint32_t mark) = 0;
  virtual int BindToDevice(int fd, const std::string& device) = 0;
  virtual int SetUserTimeout(int fd, Duration timeout) = 0;
  // The TTL, or hop limit, of what the socket sends.
  virtual int SetTtl(int fd, bool v4, uint8_t ttl) = 0;
  // On: an ICMP error ends a TCP connect() at once and is kept, whole, for
  // Datagrams::TakeError(). IPv4 does so anyway, and this does nothing. To be
  // turned off once connected, when errors on the way are no end (RFC 1122,
  // 4.2.3.9).
  virtual int KeepErrors(int fd, bool v4, bool on) = 0;
  // 0 when connected at once, -EINPROGRESS, or another -errno.
  virtual int Connect(int fd, const Endpoint& to) = 0;
  // Makes a datagram socket forget its remote and the local address that
  // connect() gave it. 0 or -errno.
  virtual int Disconnect(int fd) = 0;
  // SO_ERROR: 0 or -errno; clears it.
  virtual int TakeError(int fd) = 0;

  // Gathers and sends without SIGPIPE. Bytes taken (never 0 for non-empty
  // parts), -EAGAIN, or -errno. At most 1,024 parts are looked at.
  virtual int64_t Send(int fd, std::span<const Bytes> parts) = 0;
  // Bytes read, 0 at end of stream, -EAGAIN, or -errno.
  virtual int64_t Receive(int fd, MutableBytes into) = 0;
  virtual int ShutdownWrite(int fd) = 0;
  // Closes. With `reset` the peer gets RST instead of FIN (SO_LINGER 0).
  virtual void Close(int fd, bool reset) = 0;

  // For people: port 0 when unknown.
  virtual Endpoint LocalEndpoint(int fd) = 0;
  // TCP_INFO's smoothed round-trip time; zero when unknown.
  virtual Duration RoundTripTime(int fd) = 0;

  // The soft RLIMIT_NOFILE.
  virtual uint32_t DescriptorLimit() = 0;
};

std::unique_ptr<Sockets> NewSockets();

}  // namespace netstack

#endif  // CORE_PLATFORM_SOCKETS_H_

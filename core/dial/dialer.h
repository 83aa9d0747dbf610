// The one place that opens and connects sockets. Every one is protected
// first; a socket that cannot be protected is never connected.
#ifndef CORE_DIAL_DIALER_H_
#define CORE_DIAL_DIALER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/base/time.h"
#include "core/dial/protector.h"
#include "core/flow/stats.h"
#include "core/platform/sockets.h"
#include "core/wire/ip_address.h"

namespace netstack {

// What became of a connect().
enum class DialOutcome : uint8_t {
  kConnected,
  kInProgress,
  kRefused,          // RST: nobody listens there
  kNetUnreachable,   // no route
  kHostUnreachable,  // an ICMP error from the way, or no neighbour
  kProhibited,       // a firewall of ours says no
  kTimedOut,         // the kernel gave up
  kProtectFailed,
  kNoDescriptor,  // EMFILE, ENFILE, or the limit for flows is reached
  kNoPort,        // EADDRNOTAVAIL: no local port left
  kOther,
};

struct Dial {
  DialOutcome outcome = DialOutcome::kOther;
  int fd = -1;  // open only with kConnected and kInProgress; the caller's
};

class Dialer {
 public:
  struct Options {
    // Sockets that may be open at once; beyond: kNoDescriptor.
    uint32_t max_sockets = 1024;
    // TCP_USER_TIMEOUT; zero: not set.
    Duration user_timeout{};
  };

  // `sockets` outlives the dialer.
  Dialer(Sockets* sockets, const Options& options);

  void Configure(const Options& options) { options_ = options; }
  // For sockets from now on, asked in this order.
  void SetProtectors(std::vector<std::unique_ptr<Protector>> protectors) {
    protectors_ = std::move(protectors);
  }

  // Opens, protects, connects without waiting.
  // `ttl`: of what the socket sends; 0: the system's own.
  Dial DialTcp(const Endpoint& to, uint8_t ttl = 0);
  // The same for a datagram socket that talks to one remote only; such a
  // connect() is done at once.
  Dial DialUdp(const Endpoint& to);
  // A protected socket that is not connected (an unconnected UDP socket, a
  // ping socket, one that a library connects by itself): kConnected with its
  // descriptor, or what went wrong.
  // A `device` is what the socket is bound to (SO_BINDTODEVICE), whatever the
  // protectors chose; kNetUnreachable where there is none of that name.
  Dial Open(SocketKind kind, bool v4, const std::string& device = "");
  // What the socket says once it is writable or in error. Counts the result;
  // to be called once per kInProgress. Does not close.
  DialOutcome FinishDial(int fd, bool v4);
  // Counts a dial that the caller gave up for time.
  void GaveUp() { ++stats_.timed_out; }
  // Gives a socket back, whatever became of it. `reset`: with RST.
  void Close(int fd, bool reset);

  Sockets* sockets() const { return sockets_; }
  uint32_t in_use() const { return in_use_; }
  const DialStats& stats() const { return stats_; }

 private:
  DialOutcome Count(DialOutcome outcome);
  Dial OpenProtected(SocketKind kind, bool v4);

  Sockets* const sockets_;
  Options options_;
  std::vector<std::unique_ptr<Protector>> protectors_;
  uint32_t in_use_ = 0;
  DialStats stats_;
};

// The outcome that an errno of connect() or SO_ERROR means; 0 is kConnected.
DialOutcome DialOutcomeOf(int error);

}  // namespace netstack

#endif  // CORE_DIAL_DIALER_H_

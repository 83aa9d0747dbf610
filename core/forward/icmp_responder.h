// ICMP errors of ours towards apps: built, rate-limited, counted, sent.
#ifndef CORE_FORWARD_ICMP_RESPONDER_H_
#define CORE_FORWARD_ICMP_RESPONDER_H_

#include <array>
#include <cstdint>

#include "core/base/rate_limiter.h"
#include "core/flow/stats.h"
#include "core/forward/tun_writer.h"
#include "core/wire/icmp_error.h"

namespace netstack {

// What to tell an app about a packet of its own.
struct IcmpAnswer {
  IcmpError error = IcmpError::kNetUnreachable;
  // Who met the error, of the packet's family; unspecified: the packet's
  // destination, since we have no address of our own on the TUN, and every
  // stack accepts it.
  IpAddress from{};
  uint32_t mtu = 0;  // of kPacketTooBig
};

class IcmpResponder {
 public:
  // Both outlive the responder.
  IcmpResponder(TunWriter* writer, DropCounters* drops, uint32_t per_second,
                uint32_t burst)
      : writer_(writer), drops_(drops), limiter_(per_second, burst) {}

  void Configure(uint32_t per_second, uint32_t burst) {
    limiter_.Configure(per_second, burst);
  }

  // True when it was sent.
  bool Answer(const IcmpAnswer& answer, const Packet& original, Instant now);
  bool Answer(IcmpError error, const Packet& original, Instant now) {
    return Answer(IcmpAnswer{error, {}, 0}, original, now);
  }

  uint64_t sent() const { return sent_; }

 private:
  TunWriter* const writer_;
  DropCounters* const drops_;
  RateLimiter limiter_;
  uint64_t sent_ = 0;
  std::array<std::byte, kMaxIcmpErrorSize> buffer_;
};

}  // namespace netstack

#endif  // CORE_FORWARD_ICMP_RESPONDER_H_

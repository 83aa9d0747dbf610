// ICMP errors of ours towards apps: built, rate-limited, counted, sent.
#ifndef CORE_FORWARD_ICMP_RESPONDER_H_
#define CORE_FORWARD_ICMP_RESPONDER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/base/rate_limiter.h"
#include "core/base/siphash.h"
#include "core/flow/stats.h"
#include "core/forward/tun_writer.h"
#include "core/wire/icmp_error.h"

namespace netstack {

// Who we are on the TUN, where we have no address: the first hop that
// traceroute shows, and the sender of errors that we make ourselves, as the
// router in our place would send them from its own address.
struct GatewayAddresses {
  // The dummy address of RFC 7600, section 4.8, made for routers that have no
  // IPv4 address and must send ICMP.
  IpAddress v4 = IpAddress::V4(192, 0, 0, 8);
  // The same inside RFC 8215's prefix for local use, since IPv6 has none of
  // its own: 64:ff9b:1::c000:8. No host has it and nothing is routed there.
  IpAddress v6 = *IpAddress::Parse("64:ff9b:1::c000:8");

  const IpAddress& Of(bool is_v4) const { return is_v4 ? v4 : v6; }
};

// What to tell an app about a packet of its own.
struct IcmpAnswer {
  IcmpError error = IcmpError::kNetUnreachable;
  // Who met the error, of the packet's family; unspecified: we did.
  IpAddress from{};
  uint32_t mtu = 0;  // of kPacketTooBig
  // A message of the network's to be passed on as it was; then `error` and
  // `mtu` mean nothing.
  std::optional<IcmpKind> exact{};
  uint8_t ttl = 64;  // of the message
};

// How the limits work. Errors about one pair of addresses (app and remote)
// come out of a bucket of their own, and only what this one permits asks the
// bucket of all: so a flood towards one place silences the errors about that
// place and no others (RFC 4443, 2.4 f; Linux' icmp_ratelimit does the same
// by destination, but here all apps are one destination). Nor may one app's
// scan of many places silence the errors about all: so each endpoint of an app
// (its port, or an echo's id) has the same limit again. The buckets are
// kBuckets of each kind, chosen by a keyed hash: no app can aim at another's.
// An endpoint has two, and is silent when both are empty, so that a scan and a
// newcomer who share one do not disturb each other. The
// bucket of all charges zero to two tokens at random, one on average: whoever
// counts the errors that he gets does not learn how many others got (the side
// channel of CVE-2020-25705, "SAD DNS"; Linux b38e7819cae9).
class IcmpResponder {
 public:
  struct Options {
    uint32_t per_second = 1000;  // of all; 0: none is sent
    uint32_t burst = 50;
    uint32_t per_path = 100;  // per second and pair of addresses; 0: no limit
    GatewayAddresses gateway{};
  };

  // Both outlive the responder. `key`: fresh random bits.
  IcmpResponder(TunWriter* writer, DropCounters* drops, const Options& options,
                const SipHashKey& key);

  void Configure(const Options& options);
  const GatewayAddresses& gateway() const { return options_.gateway; }

  // True when it was sent.
  bool Answer(const IcmpAnswer& answer, const Packet& original, Instant now);
  bool Answer(IcmpError error, const Packet& original, Instant now) {
    IcmpAnswer answer;
    answer.error = error;
    return Answer(answer, original, now);
  }

  uint64_t sent() const { return sent_; }

 private:
  static constexpr size_t kBuckets = 256;

  bool Permits(const Packet& original, Instant now);
  bool PermitsEndpoint(const Packet& original, Instant now);

  TunWriter* const writer_;
  DropCounters* const drops_;
  const SipHashKey key_;
  Options options_;
  RateLimiter limiter_;
  std::vector<RateLimiter> paths_;      // kBuckets
  std::vector<RateLimiter> endpoints_;  // kBuckets
  uint64_t draws_ = 0;              // random numbers drawn
  uint64_t sent_ = 0;
  std::array<std::byte, kMaxIcmpErrorSize> buffer_;
};

}  // namespace netstack

#endif  // CORE_FORWARD_ICMP_RESPONDER_H_

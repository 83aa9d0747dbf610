#include "core/forward/icmp_responder.h"

#include <algorithm>
#include <cstring>

namespace netstack {
namespace {

// A traceroute's first volley at one place is 16 probes.
constexpr uint32_t kLeastPathBurst = 16;

uint32_t PathBurst(const IcmpResponder::Options& options) {
  return std::min(options.burst,
                  std::max(options.per_path / 4, kLeastPathBurst));
}

}  // namespace

IcmpResponder::IcmpResponder(TunWriter* writer, DropCounters* drops,
                             const Options& options, const SipHashKey& key)
    : writer_(writer),
      drops_(drops),
      key_(key),
      options_(options),
      limiter_(options.per_second, options.burst),
      paths_(kBuckets, RateLimiter(options.per_path, PathBurst(options))),
      endpoints_(paths_) {}

void IcmpResponder::Configure(const Options& options) {
  options_ = options;
  limiter_.Configure(options.per_second, options.burst);
  for (std::vector<RateLimiter>* limiters : {&paths_, &endpoints_}) {
    for (RateLimiter& limiter : *limiters) {
      limiter.Configure(options.per_path, PathBurst(options));
    }
  }
}

bool IcmpResponder::Permits(const Packet& original, Instant now) {
  std::array<std::byte, 32> pair;
  std::memcpy(pair.data(), original.source.v6(), 16);
  std::memcpy(pair.data() + 16, original.destination.v6(), 16);
  RateLimiter& path = paths_[SipHash24(key_, pair) % kBuckets];
  if (options_.per_path != 0 &&
      (!path.Take(now) || !PermitsEndpoint(original, now))) {
    return false;
  }
  std::array<std::byte, 8> draw;
  ++draws_;
  std::memcpy(draw.data(), &draws_, sizeof(draws_));
  return limiter_.Take(now, static_cast<uint32_t>(SipHash24(key_, draw) % 3));
}

bool IcmpResponder::PermitsEndpoint(const Packet& original, Instant now) {
  const bool icmp = original.protocol == ip_protocol::kIcmp ||
                    original.protocol == ip_protocol::kIcmpV6;
  const size_t at = icmp ? 4 : 0;  // of an echo's id, or the source port
  uint16_t port = 0;
  if (original.transport.size() >= at + 2) {
    port = Load16(original.transport.data() + at);
  }
  std::array<std::byte, 19> endpoint;
  std::memcpy(endpoint.data(), original.source.v6(), 16);
  Store16(endpoint.data() + 16, port);
  endpoint[18] = static_cast<std::byte>(original.protocol);
  const uint64_t hash = SipHash24(key_, endpoint);
  return endpoints_[hash % kBuckets].Take(now) ||
         endpoints_[hash / kBuckets % kBuckets].Take(now);
}

bool IcmpResponder::Answer(const IcmpAnswer& answer, const Packet& original,
                           Instant now) {
  if (!MayAnswerWithIcmp(original)) return false;
  if (!Permits(original, now)) {
    drops_->Count(DropReason::kIcmpRateLimited);
    return false;
  }
  const IpAddress& from = answer.from.IsUnspecified()
                              ? options_.gateway.Of(original.is_v4)
                              : answer.from;
  const IcmpKind kind = answer.exact
                            ? *answer.exact
                            : KindOf(answer.error, original, answer.mtu);
  const size_t size = BuildIcmpError(kind, original, from, buffer_, answer.ttl);
  writer_->SendPacket({buffer_.data(), size});
  ++sent_;
  return true;
}

}  // namespace netstack

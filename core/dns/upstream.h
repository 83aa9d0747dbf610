// One upstream: what it is reached by, how it is doing, and what it answered.
#ifndef CORE_DNS_UPSTREAM_H_
#define CORE_DNS_UPSTREAM_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/base/time.h"
#include "core/dns/exchange.h"
#include "core/dns/name.h"
#include "core/dns/resolver.h"
#include "core/dns/resolver_options.h"
#include "core/wire/ip_address.h"

namespace netstack {

// How long answers took. Smoothed as TCP smooths its round-trip time
// (RFC 6298), percentiles over the last kSamples.
class Latency {
 public:
  static constexpr size_t kSamples = 256;

  void Add(Duration d);
  Duration smoothed() const { return smoothed_; }
  // `share` of the samples took at most so long; zero without any.
  Duration Percentile(double share) const;

 private:
  std::array<uint32_t, kSamples> micros_{};
  size_t count_ = 0;
  Duration smoothed_{};
};

// When an upstream counts as down, and when it is tried again.
//
// Up: asked as its group's order says. Down, after `down_after_failures`
// failures in a row of which the first is `down_after` old: asked only besides
// an upstream that is up, by a real query once the time of a probe has come,
// so that an idle service sends nothing. Any answer brings it up.
class Health {
 public:
  bool up() const { return up_; }
  uint32_t consecutive_failures() const { return failures_; }
  Instant next_probe() const { return next_probe_; }

  // True: it has just changed its state.
  bool OnAnswer();
  bool OnFailure(const DnsResolverOptions& options, Instant now);
  // A query goes to it as a probe; the next one waits twice as long.
  void OnProbe(const DnsResolverOptions& options, Instant now);
  void Forget() { *this = Health(); }

 private:
  bool up_ = true;
  uint32_t failures_ = 0;
  Instant first_failure_{};
  Instant next_probe_{};
  Duration wait_{};
};

struct Upstream {
  DnsUpstreamOptions options;
  std::unique_ptr<Transport> transport;
  bool encrypted = false;

  // The preferred one first. Empty: to be looked up (`host` is set), or the
  // system names none.
  std::vector<Endpoint> addresses;
  bool configured_addresses = false;
  dns::DnsName host;  // with looked-up addresses
  uint16_t port = 0;
  // Look-ups of `host` under way: A and AAAA.
  int lookups = 0;
  std::vector<Endpoint> found;  // by them so far
  uint32_t found_ttl = 0;
  Instant addresses_expire = kNever;
  std::vector<ExchangeId> parked;  // exchanges that wait for addresses

  Instant edns_again{};  // until then asked without EDNS, as it needs
  bool used = false;     // in the present configuration
  Latency latency;
  Health health;
  std::string last_error;
  uint64_t queries = 0;
  uint64_t answers = 0;
  uint64_t timeouts = 0;
  uint64_t failures = 0;
  uint64_t bad_rcodes = 0;
  uint32_t in_flight = 0;

  // The address that was tried is put last.
  void Demote(const Endpoint& tried);
  // How long to wait for it before the next one is asked as well.
  Duration Patience(const DnsResolverOptions& options) const;
  DnsUpstreamInfo Info(Instant now) const;
};

}  // namespace netstack

#endif  // CORE_DNS_UPSTREAM_H_

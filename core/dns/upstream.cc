#include "core/dns/upstream.h"

#include <algorithm>

namespace netstack {

void Latency::Add(Duration d) {
  const auto micros =
      std::chrono::duration_cast<std::chrono::microseconds>(d).count();
  micros_[count_++ % kSamples] = static_cast<uint32_t>(
      std::clamp<decltype(micros)>(micros, 0, UINT32_MAX));
  smoothed_ = count_ == 1 ? d : smoothed_ + (d - smoothed_) / 8;
}

Duration Latency::Percentile(double share) const {
  const size_t n = std::min(count_, kSamples);
  if (n == 0) return {};
  std::array<uint32_t, kSamples> sorted = micros_;
  const auto at =
      std::min(n - 1, static_cast<size_t>(static_cast<double>(n) * share));
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(at),
                   sorted.begin() + static_cast<ptrdiff_t>(n));
  return std::chrono::microseconds(sorted[at]);
}

bool Health::OnAnswer() {
  const bool was_up = up_;
  Forget();
  return !was_up;
}

bool Health::OnFailure(const DnsResolverOptions& options, Instant now) {
  if (failures_++ == 0) first_failure_ = now;
  if (!up_ || failures_ < options.down_after_failures ||
      now - first_failure_ < options.down_after) {
    return false;
  }
  up_ = false;
  wait_ = options.probe_min;
  next_probe_ = now + wait_;
  return true;
}

void Health::OnProbe(const DnsResolverOptions& options, Instant now) {
  wait_ = std::min(wait_ * 2, options.probe_max);
  next_probe_ = now + wait_;
}

void Upstream::Demote(const Endpoint& tried) {
  if (addresses.size() > 1 && addresses.front() == tried) {
    std::rotate(addresses.begin(), addresses.begin() + 1, addresses.end());
  }
}

Duration Upstream::Patience(const DnsResolverOptions& o) const {
  const Duration smoothed = latency.smoothed();
  if (smoothed == Duration::zero()) return o.attempt_max;
  return std::clamp(3 * smoothed, o.attempt_min, o.attempt_max);
}

DnsUpstreamInfo Upstream::Info(Instant now) const {
  DnsUpstreamInfo info;
  info.name = options.name;
  info.kind = options.kind;
  info.server = options.server;
  info.addresses = addresses;
  info.up = health.up();
  info.consecutive_failures = health.consecutive_failures();
  if (!info.up) {
    info.next_probe = std::max(health.next_probe() - now, Duration::zero());
  }
  info.last_error = last_error;
  info.queries = queries;
  info.answers = answers;
  info.timeouts = timeouts;
  info.failures = failures;
  info.bad_rcodes = bad_rcodes;
  info.in_flight = in_flight;
  const TransportStats stats = transport->stats();
  info.mismatched = stats.mismatched;
  info.tls_failures = stats.tls_failures;
  info.truncated = stats.truncated;
  info.connections = stats.connections;
  info.resumed = stats.resumed;
  info.sockets = stats.sockets;
  info.smoothed = latency.smoothed();
  info.p50 = latency.Percentile(0.5);
  info.p90 = latency.Percentile(0.9);
  info.p99 = latency.Percentile(0.99);
  return info;
}

}  // namespace netstack

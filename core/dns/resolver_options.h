// The resolver's configuration: a checked value, made by the engine from its
// own Config. What each limit does is in core/dns/README.md.
#ifndef CORE_DNS_RESOLVER_OPTIONS_H_
#define CORE_DNS_RESOLVER_OPTIONS_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/base/time.h"
#include "core/dns/cache.h"
#include "core/wire/ip_address.h"

namespace netstack {

enum class DnsUpstreamKind : uint8_t {
  kPlain,   // UDP, and TCP where an answer is truncated (RFC 7766)
  kTcp,     // TCP only
  kTls,     // DNS over TLS (RFC 7858)
  kHttps,   // DNS over HTTPS (RFC 8484)
  kSystem,  // what the host uses: resolv.conf, or what the app told
};

struct DnsUpstreamOptions {
  // What groups, logs and statistics call it; unique.
  std::string name;
  DnsUpstreamKind kind = DnsUpstreamKind::kPlain;
  // kPlain, kTcp, kTls: an address or a host name. kHttps: the URL, for
  // example "https://dns.example/dns-query". kSystem: empty.
  std::string server;
  // Zero: 53, 853; kHttps: the URL's.
  uint16_t port = 0;
  // Addresses of the host name. Empty: asked from `bootstrap_servers`.
  std::vector<IpAddress> addresses;
  // The name in the certificate and in SNI. Empty: the host of `server`.
  std::string tls_name;
  // SHA-256 over the certificate's public key (SubjectPublicKeyInfo), in
  // base64, as RFC 7858 and curl write it; one of them must match. Empty:
  // no pin. The certificate is verified all the same.
  std::vector<std::string> pins;
  // kHttps: GET instead of POST, so that caches on the way can help.
  bool http_get = false;
  // kHttps: further request headers, name and value.
  std::vector<std::pair<std::string, std::string>> http_headers;

  friend bool operator==(const DnsUpstreamOptions&,
                         const DnsUpstreamOptions&) = default;
};

// Upstreams in the order in which they are asked.
struct DnsGroupOptions {
  std::string name;                    // what rules call it; unique
  std::vector<std::string> upstreams;  // names; empty: the system's resolver
  friend bool operator==(const DnsGroupOptions&,
                         const DnsGroupOptions&) = default;
};

struct DnsResolverOptions {
  std::vector<DnsUpstreamOptions> upstreams;
  std::vector<DnsGroupOptions> groups;
  // The group that answers where no rule names another. Empty: all upstreams
  // in their order; without any, the system's resolver.
  std::string default_group;

  // Who is asked, in plain DNS, for the addresses of upstreams' host names.
  // Empty: the system's resolver.
  std::vector<Endpoint> bootstrap_servers;

  // The whole of a query, whatever is tried; then SERVFAIL (or stale).
  Duration query_timeout = std::chrono::seconds(5);
  // How long an upstream may take before the next one is asked as well: three
  // times its smoothed latency, between these two.
  Duration attempt_min = std::chrono::milliseconds(250);
  Duration attempt_max = std::chrono::seconds(1);
  // The second upstream is asked this much after the first, answered or not,
  // and the first answer wins. Zero: off.
  Duration hedge_delay{};
  // Answers with these RCODEs make the next upstream be asked.
  std::vector<uint8_t> failover_rcodes = {1, 2, 4, 5};  // FORMERR, SERVFAIL,
                                                        // NOTIMP, REFUSED
  // An upstream is down after so many failures in a row, when it has not
  // answered for `down_after` either. It is then asked only besides others,
  // first after `probe_min`, doubling up to `probe_max`.
  uint32_t down_after_failures = 5;
  Duration down_after = std::chrono::seconds(1);
  Duration probe_min = std::chrono::seconds(1);
  Duration probe_max = std::chrono::seconds(60);

  // Different questions under way; beyond: SERVFAIL at once.
  uint32_t max_in_flight = 4096;
  // Apps waiting for an answer under way; beyond: SERVFAIL at once.
  uint32_t max_waiting = 16384;
  // UDP sockets per plain upstream; beyond, queries share sockets.
  uint32_t max_udp_sockets = 32;
  // Connections per TCP or TLS upstream.
  uint32_t max_connections = 2;
  // How long a connection without a query stays open.
  Duration connection_idle = std::chrono::seconds(30);

  // When no upstream of the group answers: false, SERVFAIL; true, the system's
  // resolver is asked, in the clear, and the listener is told.
  bool fail_open = false;
  // The system's resolver as the app tells it (Android, Apple). Empty: read
  // from the system.
  std::vector<Endpoint> system_servers;
  // Never used as the system's resolver: our own addresses, which would be a
  // loop.
  std::vector<IpPrefix> own_prefixes;
  // How much is kept of what was answered, and for how long.
  dns::Cache::Options cache;
  // An expired answer is served when upstreams have not answered within this
  // (RFC 8767, section 5); the question goes on for the cache.
  Duration stale_after = std::chrono::milliseconds(1800);
  // Certificates that are trusted, PEM. Empty: the system's store.
  std::string ca_file;

  friend bool operator==(const DnsResolverOptions&,
                         const DnsResolverOptions&) = default;
};

// One violated rule; `field` is a path below "dns", e.g. "upstreams[1].server".
struct DnsOptionsProblem {
  std::string field;
  std::string problem;
};
// Every problem; empty when Resolver::Configure() can use them.
std::vector<DnsOptionsProblem> Validate(const DnsResolverOptions& options);

}  // namespace netstack

#endif  // CORE_DNS_RESOLVER_OPTIONS_H_

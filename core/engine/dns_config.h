// The configuration of names: a checked value, netstack.v1.DnsConfig in the
// core's types. Meanings and limits: proto/netstack/v1/dns_config.proto.
#ifndef CORE_ENGINE_DNS_CONFIG_H_
#define CORE_ENGINE_DNS_CONFIG_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/base/time.h"
#include "core/wire/ip_address.h"

namespace netstack {

enum class DnsUpstreamTransport : uint8_t { kDoh, kDot, kPlain, kTcp, kSystem };

struct DnsUpstreamConfig {
  // "https://host[:port]/path", "tls://host[:port]", "tcp://address[:port]",
  // "address[:port]" or "system"; it tells the transport.
  std::string address;
  std::vector<IpAddress> bootstrap;
  std::string tls_name;
  std::vector<std::string> pins;
  bool http_get = false;
  // DoH: further request headers (Control D's client facts).
  std::vector<std::pair<std::string, std::string>> http_headers;
  // What statistics and logs show instead of `address`, whose path is a
  // secret. Empty: `address`.
  std::string shown;
  friend bool operator==(const DnsUpstreamConfig&,
                         const DnsUpstreamConfig&) = default;
};

// What the form of an upstream's address says.
struct DnsUpstreamAddress {
  DnsUpstreamTransport transport = DnsUpstreamTransport::kPlain;
  std::string server;  // the URL of kDoh, else a host or an address
  uint16_t port = 0;   // zero: the transport's own
};
// Returns what is wrong with `text` as `problem`, else an empty one.
struct ParsedDnsAddress {
  DnsUpstreamAddress address;
  std::string problem;
};
ParsedDnsAddress ParseDnsAddress(const std::string& text);

struct DnsGroupConfig {
  std::string name;
  std::vector<DnsUpstreamConfig> upstreams;
  friend bool operator==(const DnsGroupConfig&,
                         const DnsGroupConfig&) = default;
};

enum class DnsRuleAction : uint8_t { kBlock, kAllow, kRewrite, kForward };
enum class DnsBlockAnswer : uint8_t {
  kDefault,  // as the level above says
  kNullAddress,
  kNxDomain,
  kRefused,
};

struct DnsRuleConfig {
  std::string name;
  std::vector<std::string> domains;
  std::vector<IpPrefix> clients;
  DnsRuleAction action = DnsRuleAction::kBlock;
  DnsBlockAnswer block_answer = DnsBlockAnswer::kDefault;
  std::string group;
  std::vector<IpAddress> addresses;
  std::string cname;
  std::vector<uint16_t> types;
  friend bool operator==(const DnsRuleConfig&, const DnsRuleConfig&) = default;
};

struct DnsBlocklistConfig {
  std::string name;
  std::string file;
  friend bool operator==(const DnsBlocklistConfig&,
                         const DnsBlocklistConfig&) = default;
};

struct DnsResolverConfig {
  Duration timeout = std::chrono::seconds(5);
  Duration attempt_min = std::chrono::milliseconds(250);
  Duration attempt_max = std::chrono::seconds(1);
  Duration hedge_after{};
  std::vector<uint8_t> failover_rcodes = {1, 2, 4, 5};
  uint32_t down_after_failures = 5;
  Duration down_after = std::chrono::seconds(1);
  Duration probe_min = std::chrono::seconds(1);
  Duration probe_max = std::chrono::seconds(60);
  bool fail_open = false;
  std::vector<Endpoint> bootstrap_servers;
  std::vector<Endpoint> system_servers;
  std::string ca_file;
  uint32_t max_udp_sockets = 32;
  uint32_t max_connections = 2;
  Duration connection_idle = std::chrono::seconds(30);
};

struct DnsCacheConfig {
  uint64_t max_bytes = 4 * 1024 * 1024;
  Duration min_ttl{};
  Duration max_ttl = std::chrono::hours(24);
  Duration max_negative_ttl = std::chrono::hours(1);
  Duration serve_stale = std::chrono::hours(24);
  bool prefetch = true;
};

struct DnsRebindingConfig {
  bool enabled = false;
  std::vector<std::string> allowed_domains = {".local", ".lan", ".home.arpa",
                                              ".internal"};
  std::vector<IpPrefix> allowed_prefixes;
};

struct DnsAddressPolicyConfig {
  bool enabled = false;
  Duration grace = std::chrono::minutes(5);
  std::vector<IpPrefix> exempt;
  uint32_t max_addresses = 16384;
};

enum class DnsQuicBlock : uint8_t { kNone, kByName, kAll };

struct DnsLeaksConfig {
  bool block_dot = false;
  bool block_doh = false;
  std::vector<std::string> doh_names;
  DnsQuicBlock block_quic = DnsQuicBlock::kNone;
  std::vector<std::string> quic_names;
  bool canary = true;
  bool block_private_relay = false;
};

struct DnsLimitsConfig {
  uint32_t max_in_flight = 4096;
  uint32_t max_waiting = 16384;
  uint32_t max_in_flight_per_connection = 128;
  uint32_t max_connections = 256;
  Duration connection_idle = std::chrono::seconds(30);
  uint32_t reserved_descriptors = 0;
};

struct DnsConfig {
  bool enabled = true;
  std::string default_group;
  std::vector<DnsGroupConfig> groups;
  std::vector<DnsRuleConfig> rules;
  std::vector<DnsBlocklistConfig> blocklists;
  DnsBlockAnswer block_answer = DnsBlockAnswer::kNullAddress;
  Duration block_ttl = std::chrono::seconds(60);
  DnsResolverConfig resolver;
  DnsCacheConfig cache;
  DnsRebindingConfig rebinding;
  DnsAddressPolicyConfig address_policy;
  DnsLeaksConfig leaks;
  DnsLimitsConfig limits;
};

}  // namespace netstack

#endif  // CORE_ENGINE_DNS_CONFIG_H_

#include "core/engine/dns_config.h"

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/engine/dns_config_check.h"
#include "core/engine/dns_names.h"

namespace netstack {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr size_t kMaxGroups = 64, kMaxUpstreams = 16, kMaxAddresses = 16;
constexpr size_t kMaxRules = 4096, kMaxDomains = 1024, kMaxClients = 64;
constexpr size_t kMaxLists = 64, kMaxNames = 4096, kMaxExempt = 256,
                 kMaxQuicNames = 256, kMaxTypes = 64;
constexpr size_t kMaxServers = 8, kMaxPins = 8, kMaxRcodes = 16;
constexpr size_t kMaxLabel = 63;
constexpr char kSystem[] = "system";

// "host", "host:port" or "[address]:port" into its parts; false when the port
// is no port.
bool SplitHostPort(absl::string_view text, DnsUpstreamAddress& out) {
  absl::string_view port;
  bool has_port = false;
  if (absl::ConsumePrefix(&text, "[")) {
    const size_t end = text.find(']');
    if (end == absl::string_view::npos) return false;
    port = text.substr(end + 1);
    text = text.substr(0, end);
    has_port = absl::ConsumePrefix(&port, ":");
    if (!has_port && !port.empty()) return false;
  } else if (const size_t colon = text.rfind(':');
             colon != absl::string_view::npos &&
             text.find(':') == colon) {  // more colons: a bare IPv6 address
    port = text.substr(colon + 1);
    text = text.substr(0, colon);
    has_port = true;
  }
  out.server = std::string(text);
  if (!has_port) return true;
  uint32_t number = 0;
  if (!absl::SimpleAtoi(port, &number) || number == 0 || number > 65535) {
    return false;
  }
  out.port = static_cast<uint16_t>(number);
  return true;
}

bool IsHost(absl::string_view host) {
  return IpAddress::Parse(host).has_value() || IsHostName(host);
}

void CheckNames(const std::string& field, const std::vector<std::string>& names,
                size_t most, ConfigChecker& check) {
  if (names.size() > most) {
    check.Fail(field, absl::StrCat(names.size(), " names, but at most ", most,
                                   " are possible."));
    return;
  }
  for (size_t i = 0; i < names.size(); ++i) {
    if (IsDomainPattern(names[i])) continue;
    check.Fail(absl::StrCat(field, "[", i, "]"),
               absl::StrCat("\"", names[i],
                            "\" is not a name like example.com, "
                            ".example.com or *.example.com."));
  }
}

template <typename List>
void CheckCount(const std::string& field, const List& list, size_t most,
                ConfigChecker& check) {
  if (list.size() <= most) return;
  check.Fail(field, absl::StrCat(list.size(), " entries, but at most ", most,
                                 " are possible."));
}

bool IsGroupName(absl::string_view name) {
  if (name.empty() || name.size() > kMaxLabel || name == kSystem) return false;
  for (char c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-' &&
        c != '_' && c != '.') {
      return false;
    }
  }
  return true;
}

bool HasGroup(const DnsConfig& dns, const std::string& name) {
  for (const DnsGroupConfig& group : dns.groups) {
    if (group.name == name) return true;
  }
  return name.empty() || name == kSystem;
}

// SHA-256 in base64: 43 characters and one '='.
bool IsPin(absl::string_view pin) {
  if (pin.size() != 44 || pin.back() != '=') return false;
  for (char c : pin.substr(0, 43)) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '+' &&
        c != '/') {
      return false;
    }
  }
  return true;
}

void CheckUpstream(const std::string& path, const DnsUpstreamConfig& upstream,
                   ConfigChecker& check) {
  const ParsedDnsAddress parsed = ParseDnsAddress(upstream.address);
  if (!parsed.problem.empty()) {
    check.Fail(absl::StrCat(path, ".address"), parsed.problem);
    return;
  }
  const DnsUpstreamTransport transport = parsed.address.transport;
  const bool tls = transport == DnsUpstreamTransport::kDoh ||
                   transport == DnsUpstreamTransport::kDot;
  CheckCount(absl::StrCat(path, ".bootstrap"), upstream.bootstrap, kMaxServers,
             check);
  CheckCount(absl::StrCat(path, ".pins"), upstream.pins, kMaxPins, check);
  for (size_t i = 0; i < upstream.pins.size(); ++i) {
    if (IsPin(upstream.pins[i])) continue;
    check.Fail(absl::StrCat(path, ".pins[", i, "]"),
               "not the base64 form of a SHA-256 value.");
  }
  if (!tls && (!upstream.pins.empty() || !upstream.tls_name.empty())) {
    check.Fail(
        absl::StrCat(path, upstream.pins.empty() ? ".tls_name" : ".pins"),
        "only an upstream with TLS has a certificate.");
  }
  if (!upstream.tls_name.empty() && !IsHost(upstream.tls_name)) {
    check.Fail(absl::StrCat(path, ".tls_name"),
               absl::StrCat("\"", upstream.tls_name,
                            "\" is neither a host name nor an address."));
  }
  if (upstream.http_get && transport != DnsUpstreamTransport::kDoh) {
    check.Fail(absl::StrCat(path, ".http_get"), "only DoH is HTTP.");
  }
}

void CheckGroups(const DnsConfig& dns, ConfigChecker& check) {
  CheckCount("dns.groups", dns.groups, kMaxGroups, check);
  for (size_t i = 0; i < dns.groups.size(); ++i) {
    const DnsGroupConfig& group = dns.groups[i];
    const std::string path = absl::StrCat("dns.groups[", i, "]");
    if (!IsGroupName(group.name)) {
      check.Fail(absl::StrCat(path, ".name"),
                 absl::StrCat("\"", group.name, "\" is not 1 to ", kMaxLabel,
                              " letters, digits, \"-\", \"_\" and \".\", or "
                              "is \"system\"."));
    }
    for (size_t j = 0; j < i; ++j) {
      if (dns.groups[j].name != group.name) continue;
      check.Fail(absl::StrCat(path, ".name"),
                 absl::StrCat("\"", group.name, "\" is there twice."));
      break;
    }
    if (group.upstreams.empty()) {
      check.Fail(absl::StrCat(path, ".upstreams"), "there is none.");
    }
    CheckCount(absl::StrCat(path, ".upstreams"), group.upstreams, kMaxUpstreams,
               check);
    for (size_t j = 0; j < group.upstreams.size(); ++j) {
      CheckUpstream(absl::StrCat(path, ".upstreams[", j, "]"),
                    group.upstreams[j], check);
    }
  }
  if (!HasGroup(dns, dns.default_group)) {
    check.Fail("dns.default_group",
               absl::StrCat("there is no group \"", dns.default_group, "\"."));
  }
}

void CheckRule(const DnsConfig& dns, size_t index, ConfigChecker& check) {
  const DnsRuleConfig& rule = dns.rules[index];
  const std::string path = absl::StrCat("dns.rules[", index, "]");
  if (rule.name.size() > kMaxLabel) {
    check.Fail(absl::StrCat(path, ".name"),
               absl::StrCat("longer than ", kMaxLabel, " bytes."));
  }
  if (rule.domains.empty() && rule.clients.empty() && rule.types.empty()) {
    check.Fail(absl::StrCat(path, ".domains"),
               "no domains, clients or types: it would match everything.");
  }
  CheckCount(absl::StrCat(path, ".types"), rule.types, kMaxTypes, check);
  CheckNames(absl::StrCat(path, ".domains"), rule.domains, kMaxDomains, check);
  CheckCount(absl::StrCat(path, ".clients"), rule.clients, kMaxClients, check);
  CheckCount(absl::StrCat(path, ".addresses"), rule.addresses, kMaxAddresses,
             check);
  const bool rewrites = rule.action == DnsRuleAction::kRewrite;
  if (rewrites && rule.addresses.empty() == rule.cname.empty()) {
    check.Fail(absl::StrCat(path, ".addresses"),
               "REWRITE needs either addresses or a cname.");
  }
  if (!rewrites && !rule.addresses.empty()) {
    check.Fail(absl::StrCat(path, ".addresses"), "only REWRITE has them.");
  }
  if (!rule.cname.empty() && (!rewrites || !IsHostName(rule.cname))) {
    check.Fail(absl::StrCat(path, ".cname"),
               rewrites ? absl::StrCat("\"", rule.cname, "\" is not a name.")
                        : std::string("only REWRITE has one."));
  }
  if (rule.action != DnsRuleAction::kForward && !rule.group.empty()) {
    check.Fail(absl::StrCat(path, ".group"), "only FORWARD has one.");
  } else if (!HasGroup(dns, rule.group)) {
    check.Fail(absl::StrCat(path, ".group"),
               absl::StrCat("there is no group \"", rule.group, "\"."));
  }
}

void CheckLists(const DnsConfig& dns, ConfigChecker& check) {
  CheckCount("dns.blocklists", dns.blocklists, kMaxLists, check);
  for (size_t i = 0; i < dns.blocklists.size(); ++i) {
    const DnsBlocklistConfig& list = dns.blocklists[i];
    const std::string path = absl::StrCat("dns.blocklists[", i, "]");
    if (!absl::StartsWith(list.file, "/")) {
      check.Fail(absl::StrCat(path, ".file"),
                 absl::StrCat("\"", list.file, "\" is not an absolute path."));
    }
    if (list.name.size() > kMaxLabel) {
      check.Fail(absl::StrCat(path, ".name"),
                 absl::StrCat("longer than ", kMaxLabel, " bytes."));
    }
  }
}

void CheckResolver(const DnsResolverConfig& r, ConfigChecker& check) {
  check.Time("dns.resolver.timeout", r.timeout, seconds(1), seconds(30));
  // Bounds that depend on each other are told once.
  const Duration most =
      r.timeout >= seconds(1) ? r.timeout : Duration(seconds(30));
  check.Time("dns.resolver.attempt_min", r.attempt_min, milliseconds(50), most);
  check.Time(
      "dns.resolver.attempt_max", r.attempt_max,
      std::max<Duration>(milliseconds(50), std::min(r.attempt_min, most)),
      most);
  if (r.hedge_after != Duration::zero()) {
    check.Time("dns.resolver.hedge_after", r.hedge_after, milliseconds(10),
               most);
  }
  CheckCount("dns.resolver.failover_rcodes", r.failover_rcodes, kMaxRcodes,
             check);
  for (size_t i = 0; i < r.failover_rcodes.size(); ++i) {
    check.Range(absl::StrCat("dns.resolver.failover_rcodes[", i, "]"),
                r.failover_rcodes[i], 1, 23);
  }
  check.Range("dns.resolver.down_after_failures", r.down_after_failures, 1,
              1000);
  check.Time("dns.resolver.down_after", r.down_after, milliseconds(100),
             minutes(10));
  check.Time("dns.resolver.probe_min", r.probe_min, milliseconds(100),
             minutes(10));
  check.Time("dns.resolver.probe_max", r.probe_max,
             std::clamp<Duration>(r.probe_min, milliseconds(100), minutes(10)),
             hours(1));
  CheckCount("dns.resolver.bootstrap_servers", r.bootstrap_servers, kMaxServers,
             check);
  CheckCount("dns.resolver.system_servers", r.system_servers, kMaxServers,
             check);
  if (!r.ca_file.empty() && r.ca_file[0] != '/') {
    check.Fail("dns.resolver.ca_file", "not an absolute path.");
  }
  check.Range("dns.resolver.max_udp_sockets", r.max_udp_sockets, 1, 1024);
  check.Range("dns.resolver.max_connections", r.max_connections, 1, 16);
  check.Time("dns.resolver.connection_idle", r.connection_idle, seconds(1),
             minutes(10));
}

void CheckCache(const DnsCacheConfig& c, ConfigChecker& check) {
  check.RangeOrZero("dns.cache.max_bytes", c.max_bytes, 64 * 1024,
                    uint64_t{1} << 30);
  check.Time("dns.cache.min_ttl", c.min_ttl, seconds(0), hours(1));
  check.Time("dns.cache.max_ttl", c.max_ttl, seconds(1), hours(24 * 7));
  check.Time("dns.cache.max_negative_ttl", c.max_negative_ttl, seconds(0),
             hours(24));
  check.Time("dns.cache.serve_stale", c.serve_stale, seconds(0), hours(24 * 7));
  if (c.min_ttl > c.max_ttl && c.min_ttl <= hours(1) &&
      c.max_ttl >= seconds(1)) {
    check.Fail("dns.cache.min_ttl", "above dns.cache.max_ttl.");
  }
}

void CheckLeaks(const DnsConfig& dns, ConfigChecker& check) {
  CheckNames("dns.rebinding.allowed_domains", dns.rebinding.allowed_domains,
             kMaxDomains, check);
  CheckCount("dns.rebinding.allowed_prefixes", dns.rebinding.allowed_prefixes,
             kMaxExempt, check);
  check.Time("dns.address_policy.grace", dns.address_policy.grace, seconds(0),
             hours(24));
  CheckCount("dns.address_policy.exempt", dns.address_policy.exempt, kMaxExempt,
             check);
  check.Range("dns.address_policy.max_addresses",
              dns.address_policy.max_addresses, 1024, 1'000'000);
  CheckNames("dns.leaks.doh_names", dns.leaks.doh_names, kMaxNames, check);
  CheckNames("dns.leaks.quic_names", dns.leaks.quic_names, kMaxQuicNames,
             check);
  if (dns.leaks.block_quic == DnsQuicBlock::kByName &&
      dns.leaks.quic_names.empty()) {
    check.Fail("dns.leaks.quic_names",
               "block_quic is BY_NAME, but no name is given.");
  }
}

void CheckDnsLimits(const DnsLimitsConfig& l, ConfigChecker& check) {
  check.Range("dns.limits.max_in_flight", l.max_in_flight, 16, 65536);
  check.Range("dns.limits.max_waiting", l.max_waiting,
              std::clamp<uint32_t>(l.max_in_flight, 16, 65536), 1'000'000);
  check.Range("dns.limits.max_in_flight_per_connection",
              l.max_in_flight_per_connection, 1, 4096);
  check.Range("dns.limits.max_connections", l.max_connections, 1, 4096);
  check.Time("dns.limits.connection_idle", l.connection_idle, seconds(1),
             minutes(10));
  check.RangeOrZero("dns.limits.reserved_descriptors", l.reserved_descriptors,
                    8, 65536);
}

}  // namespace

ParsedDnsAddress ParseDnsAddress(const std::string& text) {
  ParsedDnsAddress out;
  DnsUpstreamAddress& a = out.address;
  absl::string_view rest = text;
  if (text == kSystem) {
    a.transport = DnsUpstreamTransport::kSystem;
    return out;
  }
  if (absl::ConsumePrefix(&rest, "https://")) {
    a.transport = DnsUpstreamTransport::kDoh;
    DnsUpstreamAddress host;
    const absl::string_view authority = rest.substr(0, rest.find('/'));
    if (!SplitHostPort(authority, host) || !IsHost(host.server) ||
        rest.size() > 1024 ||
        rest.find_first_of(" #@\"\\") != absl::string_view::npos) {
      out.problem = absl::StrCat("\"", text,
                                 "\" is not a URL like "
                                 "https://dns.example/dns-query.");
    }
    a.server = text;
    return out;
  }
  if (absl::ConsumePrefix(&rest, "tls://")) {
    a.transport = DnsUpstreamTransport::kDot;
  } else if (absl::ConsumePrefix(&rest, "tcp://")) {
    a.transport = DnsUpstreamTransport::kTcp;
  }
  const bool good = SplitHostPort(rest, a) && IsHost(a.server);
  // In the clear there is nothing to check a host's name against, and it
  // would have to be looked up first.
  const bool literal = IpAddress::Parse(a.server).has_value();
  if (!good || (a.transport != DnsUpstreamTransport::kDot && !literal)) {
    out.problem =
        absl::StrCat("\"", text,
                     "\" is none of https://host/path, tls://host[:port], "
                     "tcp://address[:port], address[:port] and system.");
  }
  return out;
}

void CheckDns(const DnsConfig& dns, ConfigChecker& check) {
  CheckGroups(dns, check);
  CheckCount("dns.rules", dns.rules, kMaxRules, check);
  if (dns.rules.size() <= kMaxRules) {
    for (size_t i = 0; i < dns.rules.size(); ++i) CheckRule(dns, i, check);
  }
  CheckLists(dns, check);
  check.Time("dns.block_ttl", dns.block_ttl, seconds(1), hours(24));
  CheckResolver(dns.resolver, check);
  CheckCache(dns.cache, check);
  CheckLeaks(dns, check);
  CheckDnsLimits(dns.limits, check);
}

}  // namespace netstack

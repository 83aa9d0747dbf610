#include "core/engine/dns_options.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace netstack {
namespace {

std::string DefaultGroup(const DnsConfig& config) {
  if (!config.default_group.empty()) return config.default_group;
  return config.groups.empty() ? "system" : config.groups.front().name;
}

uint32_t Seconds(Duration d) {
  return static_cast<uint32_t>(d / std::chrono::seconds(1));
}

DnsUpstreamKind KindOf(DnsUpstreamTransport transport) {
  switch (transport) {
    case DnsUpstreamTransport::kDoh:
      return DnsUpstreamKind::kHttps;
    case DnsUpstreamTransport::kDot:
      return DnsUpstreamKind::kTls;
    case DnsUpstreamTransport::kPlain:
      return DnsUpstreamKind::kPlain;
    case DnsUpstreamTransport::kTcp:
      return DnsUpstreamKind::kTcp;
    case DnsUpstreamTransport::kSystem:
      return DnsUpstreamKind::kSystem;
  }
  return DnsUpstreamKind::kSystem;
}

dns::RuleAction ActionOf(DnsRuleAction action) {
  switch (action) {
    case DnsRuleAction::kBlock:
      return dns::RuleAction::kBlock;
    case DnsRuleAction::kAllow:
      return dns::RuleAction::kAllow;
    case DnsRuleAction::kRewrite:
      return dns::RuleAction::kRewrite;
    case DnsRuleAction::kForward:
      return dns::RuleAction::kForward;
  }
  return dns::RuleAction::kAllow;
}

std::optional<dns::BlockAnswer> AnswerOf(DnsBlockAnswer answer) {
  switch (answer) {
    case DnsBlockAnswer::kDefault:
      return std::nullopt;
    case DnsBlockAnswer::kNullAddress:
      return dns::BlockAnswer::kNullAddress;
    case DnsBlockAnswer::kNxDomain:
      return dns::BlockAnswer::kNxDomain;
    case DnsBlockAnswer::kRefused:
      return dns::BlockAnswer::kRefused;
  }
  return std::nullopt;
}

DnsUpstreamOptions ToOptions(const DnsUpstreamConfig& upstream) {
  const DnsUpstreamAddress a = ParseDnsAddress(upstream.address).address;
  DnsUpstreamOptions o;
  o.name = UpstreamName(upstream);
  o.kind = KindOf(a.transport);
  o.server = a.server;
  o.port = a.port;
  o.addresses = upstream.bootstrap;
  o.tls_name = upstream.tls_name;
  o.pins = upstream.pins;
  o.http_get = upstream.http_get;
  o.http_headers = upstream.http_headers;
  return o;
}

}  // namespace

std::string UpstreamName(const DnsUpstreamConfig& upstream) {
  std::string name = upstream.address;
  for (const IpAddress& ip : upstream.bootstrap) {
    absl::StrAppend(&name, " ", ip.ToString());
  }
  if (!upstream.tls_name.empty()) {
    absl::StrAppend(&name, " ", upstream.tls_name);
  }
  for (const std::string& pin : upstream.pins) {
    absl::StrAppend(&name, " ", pin.substr(0, 8));
  }
  if (upstream.http_get) name += " GET";
  return name;
}

DnsResolverOptions ToResolverOptions(const Config& config) {
  const DnsConfig& dns = config.dns;
  const DnsResolverConfig& r = dns.resolver;
  DnsResolverOptions o;
  for (const DnsGroupConfig& group : dns.groups) {
    DnsGroupOptions& g = o.groups.emplace_back();
    g.name = group.name;
    for (const DnsUpstreamConfig& upstream : group.upstreams) {
      DnsUpstreamOptions wanted = ToOptions(upstream);
      g.upstreams.push_back(wanted.name);
      const bool known = std::any_of(
          o.upstreams.begin(), o.upstreams.end(),
          [&](const DnsUpstreamOptions& u) { return u.name == wanted.name; });
      if (!known) o.upstreams.push_back(std::move(wanted));
    }
  }
  // A group without upstreams is the system's resolver.
  o.groups.push_back({"system", {}});
  o.default_group = DefaultGroup(dns);
  o.bootstrap_servers = r.bootstrap_servers;
  o.query_timeout = r.timeout;
  o.attempt_min = r.attempt_min;
  o.attempt_max = r.attempt_max;
  o.hedge_delay = r.hedge_after;
  o.failover_rcodes = r.failover_rcodes;
  o.down_after_failures = r.down_after_failures;
  o.down_after = r.down_after;
  o.probe_min = r.probe_min;
  o.probe_max = r.probe_max;
  o.max_in_flight = dns.limits.max_in_flight;
  o.max_waiting = dns.limits.max_waiting;
  o.max_udp_sockets = r.max_udp_sockets;
  o.max_connections = r.max_connections;
  o.connection_idle = r.connection_idle;
  o.fail_open = r.fail_open;
  o.system_servers = r.system_servers;
  o.own_prefixes = config.tun.prefixes;
  o.ca_file = r.ca_file;
  o.cache.max_bytes = dns.cache.max_bytes;
  o.cache.ttl.min = Seconds(dns.cache.min_ttl);
  o.cache.ttl.max = Seconds(dns.cache.max_ttl);
  o.cache.ttl.max_negative = Seconds(dns.cache.max_negative_ttl);
  o.cache.stale_for = Seconds(dns.cache.serve_stale);
  if (!dns.cache.prefetch) o.cache.prefetch_percent = 0;
  return o;
}

dns::PolicyOptions ToPolicyOptions(const Config& config) {
  const DnsConfig& dns = config.dns;
  dns::PolicyOptions o;
  for (const DnsRuleConfig& rule : dns.rules) {
    dns::PolicyRule& to = o.rules.emplace_back();
    to.name = rule.name;
    to.domains = rule.domains;
    to.clients = rule.clients;
    to.types = rule.types;
    to.action = ActionOf(rule.action);
    to.block = AnswerOf(rule.block_answer);
    to.addresses = rule.addresses;
    to.cname = rule.cname;
    to.group = rule.group == "system" ? "" : rule.group;
  }
  o.block = AnswerOf(dns.block_answer).value_or(o.block);
  o.block_ttl = o.rewrite_ttl = Seconds(dns.block_ttl);
  o.block_doh_names = dns.leaks.block_doh;
  o.more_doh_names = dns.leaks.doh_names;
  o.canary = dns.leaks.canary;
  o.block_private_relay = dns.leaks.block_private_relay;
  o.block_rebinding = dns.rebinding.enabled;
  o.rebinding_names = dns.rebinding.allowed_domains;
  o.rebinding_prefixes = dns.rebinding.allowed_prefixes;
  o.tun_prefixes = config.tun.prefixes;
  return o;
}

std::string GroupOf(const DnsConfig& config,
                    const dns::PolicyDecision& decision) {
  if (!decision.forwarded) return DefaultGroup(config);
  return decision.group.empty() ? "system" : std::string(decision.group);
}

}  // namespace netstack

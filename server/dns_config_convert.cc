#include "server/dns_config_convert.h"

#include <limits>
#include <optional>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/config_convert.h"

namespace netstack::server {
namespace {

using Problems = std::vector<ConfigProblem>;

// Reads the set fields of one message; `path` is where it stands.
class Reader {
 public:
  Reader(std::string path, Problems& problems)
      : path_(std::move(path)), problems_(problems) {}

  std::string Path(absl::string_view field) const {
    return absl::StrCat(path_, ".", field);
  }
  std::string Path(absl::string_view field, int index) const {
    return absl::StrCat(path_, ".", field, "[", index, "]");
  }
  void Fail(std::string path, std::string problem) {
    problems_.push_back({std::move(path), std::move(problem)});
  }

  void Time(const char* field, bool has, const google::protobuf::Duration& in,
            Duration& out) {
    if (has && !FromProto(in, &out)) Fail(Path(field), "not a valid duration.");
  }

  template <typename List>
  void Addresses(const char* field, const List& in,
                 std::vector<IpAddress>& out) {
    for (int i = 0; i < in.size(); ++i) {
      if (const auto ip = IpAddress::Parse(in.Get(i))) {
        out.push_back(*ip);
      } else {
        Fail(Path(field, i),
             absl::StrCat("\"", in.Get(i), "\" is not an address."));
      }
    }
  }

  template <typename List>
  void Prefixes(const char* field, const List& in, std::vector<IpPrefix>& out) {
    for (int i = 0; i < in.size(); ++i) {
      if (const auto prefix = IpPrefix::Parse(in.Get(i))) {
        out.push_back(*prefix);
      } else {
        Fail(Path(field, i), absl::StrCat("\"", in.Get(i),
                                          "\" is not a prefix like "
                                          "10.0.0.0/8 or fd00::/8."));
      }
    }
  }

  // "192.0.2.1", "192.0.2.1:53" or "[2001:db8::1]:53".
  template <typename List>
  void Servers(const char* field, const List& in, std::vector<Endpoint>& out) {
    for (int i = 0; i < in.size(); ++i) {
      if (const auto ip = IpAddress::Parse(in.Get(i))) {
        out.push_back({*ip, 53});
      } else if (const auto server = Endpoint::Parse(in.Get(i));
                 server && server->port != 0) {
        out.push_back(*server);
      } else {
        Fail(Path(field, i), absl::StrCat("\"", in.Get(i),
                                          "\" is not an address with or "
                                          "without a port."));
      }
    }
  }

 private:
  const std::string path_;
  Problems& problems_;
};

// Enums whose core form has the same order without UNSPECIFIED, or with it as
// the default. False when the number is none of the proto's.
template <typename Core>
Core Shifted(int value) {
  return static_cast<Core>(value - 1);
}

std::vector<std::string> Strings(
    const google::protobuf::RepeatedPtrField<std::string>& in) {
  return {in.begin(), in.end()};
}

void ReadUpstream(const v1::DnsUpstream& in, const std::string& path,
                  DnsUpstreamConfig& out, Problems& problems) {
  Reader read(path, problems);
  out.address = in.address();
  read.Addresses("bootstrap", in.bootstrap(), out.bootstrap);
  out.tls_name = in.tls_name();
  out.pins = Strings(in.pins());
  out.http_get = in.http_get();
  if (in.transport() == v1::DNS_TRANSPORT_UNSPECIFIED) return;
  const ParsedDnsAddress parsed = ParseDnsAddress(in.address());
  if (!parsed.problem.empty()) return;  // Validate() says so
  if (ToProto(parsed.address.transport) != in.transport()) {
    read.Fail(read.Path("transport"),
              absl::StrCat("does not agree with the address \"", in.address(),
                           "\"."));
  }
}

void ReadRule(const v1::DnsRule& in, const std::string& path,
              DnsRuleConfig& out, Problems& problems) {
  Reader read(path, problems);
  out.name = in.name();
  out.domains = Strings(in.domains());
  read.Prefixes("clients", in.clients(), out.clients);
  if (in.action() == v1::DNS_RULE_ACTION_UNSPECIFIED ||
      !v1::DnsRuleAction_IsValid(in.action())) {
    read.Fail(read.Path("action"), "must be named.");
  } else {
    out.action = Shifted<DnsRuleAction>(in.action());
  }
  if (v1::DnsBlockAnswer_IsValid(in.block_answer())) {
    out.block_answer = static_cast<DnsBlockAnswer>(in.block_answer());
  } else {
    read.Fail(read.Path("block_answer"), "not a known answer.");
  }
  out.group = in.group();
  read.Addresses("addresses", in.addresses(), out.addresses);
  out.cname = in.cname();
  for (int i = 0; i < in.types_size(); ++i) {
    if (in.types(i) == 0 || in.types(i) > 65535) {
      read.Fail(read.Path("types", i),
                absl::StrCat(in.types(i), " is not between 1 and 65535."));
    } else {
      out.types.push_back(static_cast<uint16_t>(in.types(i)));
    }
  }
}

void ReadLists(const v1::DnsConfig& in, DnsConfig& out) {
  for (int i = 0; i < in.blocklists_size(); ++i) {
    const v1::DnsBlocklist& list = in.blocklists(i);
    DnsBlocklistConfig& to = out.blocklists.emplace_back();
    to.name = list.name();
    to.file = list.file();
  }
}

void ReadResolver(const v1::DnsResolverConfig& in, DnsResolverConfig& out,
                  Problems& problems) {
  Reader read("dns.resolver", problems);
  read.Time("timeout", in.has_timeout(), in.timeout(), out.timeout);
  read.Time("attempt_min", in.has_attempt_min(), in.attempt_min(),
            out.attempt_min);
  read.Time("attempt_max", in.has_attempt_max(), in.attempt_max(),
            out.attempt_max);
  read.Time("hedge_after", in.has_hedge_after(), in.hedge_after(),
            out.hedge_after);
  if (!in.failover_rcodes().empty()) out.failover_rcodes.clear();
  for (int i = 0; i < in.failover_rcodes_size(); ++i) {
    if (in.failover_rcodes(i) > 255) {
      read.Fail(
          read.Path("failover_rcodes", i),
          absl::StrCat(in.failover_rcodes(i), " is not between 1 and 23."));
    } else {
      out.failover_rcodes.push_back(
          static_cast<uint8_t>(in.failover_rcodes(i)));
    }
  }
  if (in.has_down_after_failures()) {
    out.down_after_failures = in.down_after_failures();
  }
  read.Time("down_after", in.has_down_after(), in.down_after(), out.down_after);
  read.Time("probe_min", in.has_probe_min(), in.probe_min(), out.probe_min);
  read.Time("probe_max", in.has_probe_max(), in.probe_max(), out.probe_max);
  if (in.has_fail_open()) out.fail_open = in.fail_open();
  read.Servers("bootstrap_servers", in.bootstrap_servers(),
               out.bootstrap_servers);
  read.Servers("system_servers", in.system_servers(), out.system_servers);
  if (in.has_ca_file()) out.ca_file = in.ca_file();
  if (in.has_max_udp_sockets()) out.max_udp_sockets = in.max_udp_sockets();
  if (in.has_max_connections()) out.max_connections = in.max_connections();
  read.Time("connection_idle", in.has_connection_idle(), in.connection_idle(),
            out.connection_idle);
}

void ReadCache(const v1::DnsCacheConfig& in, DnsCacheConfig& out,
               Problems& problems) {
  Reader read("dns.cache", problems);
  if (in.has_max_bytes()) out.max_bytes = in.max_bytes();
  read.Time("min_ttl", in.has_min_ttl(), in.min_ttl(), out.min_ttl);
  read.Time("max_ttl", in.has_max_ttl(), in.max_ttl(), out.max_ttl);
  read.Time("max_negative_ttl", in.has_max_negative_ttl(),
            in.max_negative_ttl(), out.max_negative_ttl);
  read.Time("serve_stale", in.has_serve_stale(), in.serve_stale(),
            out.serve_stale);
  if (in.has_prefetch()) out.prefetch = in.prefetch();
}

void ReadLimits(const v1::DnsLimitsConfig& in, DnsLimitsConfig& out,
                Problems& problems) {
  Reader read("dns.limits", problems);
  if (in.has_max_in_flight()) out.max_in_flight = in.max_in_flight();
  if (in.has_max_waiting()) out.max_waiting = in.max_waiting();
  if (in.has_max_in_flight_per_connection()) {
    out.max_in_flight_per_connection = in.max_in_flight_per_connection();
  }
  if (in.has_max_connections()) out.max_connections = in.max_connections();
  read.Time("connection_idle", in.has_connection_idle(), in.connection_idle(),
            out.connection_idle);
  if (in.has_reserved_descriptors()) {
    out.reserved_descriptors = in.reserved_descriptors();
  }
}

void ReadLeaks(const v1::DnsConfig& in, DnsConfig& out, Problems& problems) {
  const v1::DnsRebindingConfig& rebinding = in.rebinding();
  if (rebinding.has_enabled()) out.rebinding.enabled = rebinding.enabled();
  if (!rebinding.allowed_domains().empty()) {
    out.rebinding.allowed_domains = Strings(rebinding.allowed_domains());
  }
  Reader rebind("dns.rebinding", problems);
  rebind.Prefixes("allowed_prefixes", rebinding.allowed_prefixes(),
                  out.rebinding.allowed_prefixes);

  Reader address("dns.address_policy", problems);
  const v1::DnsAddressPolicyConfig& policy = in.address_policy();
  if (policy.has_enabled()) out.address_policy.enabled = policy.enabled();
  address.Time("grace", policy.has_grace(), policy.grace(),
               out.address_policy.grace);
  address.Prefixes("exempt", policy.exempt(), out.address_policy.exempt);
  if (policy.has_max_addresses()) {
    out.address_policy.max_addresses = policy.max_addresses();
  }

  Reader read("dns.leaks", problems);
  const v1::DnsLeaksConfig& leaks = in.leaks();
  if (leaks.has_block_dot()) out.leaks.block_dot = leaks.block_dot();
  if (leaks.has_block_doh()) out.leaks.block_doh = leaks.block_doh();
  out.leaks.doh_names = Strings(leaks.doh_names());
  if (!v1::DnsQuicBlock_IsValid(leaks.block_quic())) {
    read.Fail(read.Path("block_quic"), "not a known choice.");
  } else if (leaks.block_quic() != v1::DNS_QUIC_BLOCK_UNSPECIFIED) {
    out.leaks.block_quic = Shifted<DnsQuicBlock>(leaks.block_quic());
  }
  out.leaks.quic_names = Strings(leaks.quic_names());
  if (leaks.has_canary()) out.leaks.canary = leaks.canary();
  if (leaks.has_block_private_relay()) {
    out.leaks.block_private_relay = leaks.block_private_relay();
  }
}

}  // namespace

v1::DnsTransport ToProto(DnsUpstreamTransport transport) {
  switch (transport) {
    case DnsUpstreamTransport::kDoh:
      return v1::DNS_TRANSPORT_DOH;
    case DnsUpstreamTransport::kDot:
      return v1::DNS_TRANSPORT_DOT;
    case DnsUpstreamTransport::kPlain:
      return v1::DNS_TRANSPORT_PLAIN;
    case DnsUpstreamTransport::kTcp:
      return v1::DNS_TRANSPORT_TCP;
    case DnsUpstreamTransport::kSystem:
      return v1::DNS_TRANSPORT_SYSTEM;
  }
  return v1::DNS_TRANSPORT_UNSPECIFIED;
}

void ReadDns(const v1::DnsConfig& in, DnsConfig& out, Problems& problems) {
  Reader read("dns", problems);
  if (in.has_enabled()) out.enabled = in.enabled();
  if (in.has_default_group()) out.default_group = in.default_group();
  for (int i = 0; i < in.groups_size(); ++i) {
    DnsGroupConfig& group = out.groups.emplace_back();
    group.name = in.groups(i).name();
    for (int j = 0; j < in.groups(i).upstreams_size(); ++j) {
      ReadUpstream(in.groups(i).upstreams(j),
                   absl::StrCat("dns.groups[", i, "].upstreams[", j, "]"),
                   group.upstreams.emplace_back(), problems);
    }
  }
  for (int i = 0; i < in.rules_size(); ++i) {
    ReadRule(in.rules(i), read.Path("rules", i), out.rules.emplace_back(),
             problems);
  }
  ReadLists(in, out);
  if (!v1::DnsBlockAnswer_IsValid(in.block_answer())) {
    read.Fail("dns.block_answer", "not a known answer.");
  } else if (in.block_answer() != v1::DNS_BLOCK_ANSWER_UNSPECIFIED) {
    out.block_answer = static_cast<DnsBlockAnswer>(in.block_answer());
  }
  read.Time("block_ttl", in.has_block_ttl(), in.block_ttl(), out.block_ttl);
  ReadResolver(in.resolver(), out.resolver, problems);
  ReadCache(in.cache(), out.cache, problems);
  ReadLeaks(in, out, problems);
  ReadLimits(in.limits(), out.limits, problems);
}

void WriteDns(const DnsConfig& in, v1::DnsConfig& out) {
  out.set_enabled(in.enabled);
  out.set_default_group(in.default_group);
  for (const DnsGroupConfig& group : in.groups) {
    v1::DnsGroup* to = out.add_groups();
    to->set_name(group.name);
    for (const DnsUpstreamConfig& upstream : group.upstreams) {
      v1::DnsUpstream* u = to->add_upstreams();
      u->set_address(upstream.address);
      const ParsedDnsAddress parsed = ParseDnsAddress(upstream.address);
      if (parsed.problem.empty()) {
        u->set_transport(ToProto(parsed.address.transport));
      }
      for (const IpAddress& ip : upstream.bootstrap) {
        u->add_bootstrap(ip.ToString());
      }
      u->set_tls_name(upstream.tls_name);
      for (const std::string& pin : upstream.pins) u->add_pins(pin);
      u->set_http_get(upstream.http_get);
    }
  }
  for (const DnsRuleConfig& rule : in.rules) {
    v1::DnsRule* to = out.add_rules();
    to->set_name(rule.name);
    for (const std::string& domain : rule.domains) to->add_domains(domain);
    for (const IpPrefix& p : rule.clients) to->add_clients(p.ToString());
    to->set_action(
        static_cast<v1::DnsRuleAction>(static_cast<int>(rule.action) + 1));
    to->set_block_answer(static_cast<v1::DnsBlockAnswer>(rule.block_answer));
    to->set_group(rule.group);
    for (const IpAddress& ip : rule.addresses) {
      to->add_addresses(ip.ToString());
    }
    to->set_cname(rule.cname);
    for (uint16_t type : rule.types) to->add_types(type);
  }
  for (const DnsBlocklistConfig& list : in.blocklists) {
    v1::DnsBlocklist* to = out.add_blocklists();
    to->set_name(list.name);
    to->set_file(list.file);
  }
  out.set_block_answer(static_cast<v1::DnsBlockAnswer>(in.block_answer));
  ToProto(in.block_ttl, out.mutable_block_ttl());

  v1::DnsResolverConfig& resolver = *out.mutable_resolver();
  const DnsResolverConfig& r = in.resolver;
  ToProto(r.timeout, resolver.mutable_timeout());
  ToProto(r.attempt_min, resolver.mutable_attempt_min());
  ToProto(r.attempt_max, resolver.mutable_attempt_max());
  ToProto(r.hedge_after, resolver.mutable_hedge_after());
  for (uint8_t rcode : r.failover_rcodes) resolver.add_failover_rcodes(rcode);
  resolver.set_down_after_failures(r.down_after_failures);
  ToProto(r.down_after, resolver.mutable_down_after());
  ToProto(r.probe_min, resolver.mutable_probe_min());
  ToProto(r.probe_max, resolver.mutable_probe_max());
  resolver.set_fail_open(r.fail_open);
  for (const Endpoint& e : r.bootstrap_servers) {
    resolver.add_bootstrap_servers(e.ToString());
  }
  for (const Endpoint& e : r.system_servers) {
    resolver.add_system_servers(e.ToString());
  }
  resolver.set_ca_file(r.ca_file);
  resolver.set_max_udp_sockets(r.max_udp_sockets);
  resolver.set_max_connections(r.max_connections);
  ToProto(r.connection_idle, resolver.mutable_connection_idle());

  v1::DnsCacheConfig& cache = *out.mutable_cache();
  cache.set_max_bytes(in.cache.max_bytes);
  ToProto(in.cache.min_ttl, cache.mutable_min_ttl());
  ToProto(in.cache.max_ttl, cache.mutable_max_ttl());
  ToProto(in.cache.max_negative_ttl, cache.mutable_max_negative_ttl());
  ToProto(in.cache.serve_stale, cache.mutable_serve_stale());
  cache.set_prefetch(in.cache.prefetch);

  v1::DnsRebindingConfig& rebinding = *out.mutable_rebinding();
  rebinding.set_enabled(in.rebinding.enabled);
  for (const std::string& domain : in.rebinding.allowed_domains) {
    rebinding.add_allowed_domains(domain);
  }
  for (const IpPrefix& p : in.rebinding.allowed_prefixes) {
    rebinding.add_allowed_prefixes(p.ToString());
  }

  v1::DnsAddressPolicyConfig& policy = *out.mutable_address_policy();
  policy.set_enabled(in.address_policy.enabled);
  ToProto(in.address_policy.grace, policy.mutable_grace());
  for (const IpPrefix& p : in.address_policy.exempt) {
    policy.add_exempt(p.ToString());
  }
  policy.set_max_addresses(in.address_policy.max_addresses);

  v1::DnsLeaksConfig& leaks = *out.mutable_leaks();
  leaks.set_block_dot(in.leaks.block_dot);
  leaks.set_block_doh(in.leaks.block_doh);
  for (const std::string& name : in.leaks.doh_names) {
    leaks.add_doh_names(name);
  }
  leaks.set_block_quic(
      static_cast<v1::DnsQuicBlock>(static_cast<int>(in.leaks.block_quic) + 1));
  for (const std::string& name : in.leaks.quic_names) {
    leaks.add_quic_names(name);
  }
  leaks.set_canary(in.leaks.canary);
  leaks.set_block_private_relay(in.leaks.block_private_relay);

  v1::DnsLimitsConfig& limits = *out.mutable_limits();
  limits.set_max_in_flight(in.limits.max_in_flight);
  limits.set_max_waiting(in.limits.max_waiting);
  limits.set_max_in_flight_per_connection(
      in.limits.max_in_flight_per_connection);
  limits.set_max_connections(in.limits.max_connections);
  ToProto(in.limits.connection_idle, limits.mutable_connection_idle());
  limits.set_reserved_descriptors(in.limits.reserved_descriptors);
}

}  // namespace netstack::server

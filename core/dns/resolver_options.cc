#include "core/dns/resolver_options.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/dns/https_transport.h"
#include "core/dns/name.h"
#include "core/dns/tls.h"

namespace netstack {
namespace {

class Checker {
 public:
  void Complain(std::string field, std::string problem) {
    problems_.push_back({std::move(field), std::move(problem)});
  }
  void Range(const char* field, Duration value, Duration least, Duration most) {
    if (value >= least && value <= most) return;
    const auto ms = [](Duration d) {
      return std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
    };
    Complain(field, absl::StrCat("must be between ", ms(least), " and ",
                                 ms(most), " ms"));
  }
  void Range(const char* field, uint64_t value, uint64_t least, uint64_t most) {
    if (value >= least && value <= most) return;
    Complain(field, absl::StrCat("must be between ", least, " and ", most));
  }
  void Upstream(const DnsUpstreamOptions& u, const std::string& at);
  std::vector<DnsOptionsProblem> Take() { return std::move(problems_); }

 private:
  std::vector<DnsOptionsProblem> problems_;
};

bool IsHeaderSafe(const std::string& text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return c == '\r' || c == '\n' || c == 0; });
}

// Letters, digits, hyphens and, since they are met, underscores; what else DNS
// permits is no name of a server.
bool IsHostName(const std::string& text) {
  const auto name = dns::DnsName::FromText(text);
  return name && !name->IsRoot() &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                  c == '-' || c == '_' || c == '.';
         });
}

void Checker::Upstream(const DnsUpstreamOptions& u, const std::string& at) {
  if (u.name.empty()) Complain(at + ".name", "must not be empty");
  const bool tls =
      u.kind == DnsUpstreamKind::kTls || u.kind == DnsUpstreamKind::kHttps;
  if (u.kind == DnsUpstreamKind::kSystem) {
    if (!u.server.empty()) {
      Complain(at + ".server", "the system's resolver has none to be given");
    }
  } else if (u.kind == DnsUpstreamKind::kHttps) {
    if (!ParseHttpsUrl(u.server)) {
      Complain(at + ".server",
               "must be an https URL without user and fragment");
    }
    if (u.port != 0) Complain(at + ".port", "is the URL's to say");
    if (!u.tls_name.empty()) {
      Complain(at + ".tls_name", "is the URL's host; give its addresses");
    }
  } else if (!IpAddress::Parse(u.server)) {
    if (!IsHostName(u.server)) {
      Complain(at + ".server", "must be an address or a host name");
    }
  }
  if (!tls && !u.pins.empty()) {
    Complain(at + ".pins", "only encrypted upstreams have a key");
  }
  for (const std::string& pin : u.pins) {
    if (!DecodePin(pin).empty()) continue;
    Complain(at + ".pins", "must be the base64 of a SHA-256");
  }
  if (u.kind != DnsUpstreamKind::kHttps &&
      (u.http_get || !u.http_headers.empty())) {
    Complain(at, "only https upstreams have a method and headers");
  }
  for (const auto& [name, value] : u.http_headers) {
    if (name.empty() || !IsHeaderSafe(name) || !IsHeaderSafe(value) ||
        name.find(':') != std::string::npos) {
      Complain(at + ".http_headers",
               "names and values must be of one line, names without colon");
    }
  }
}

}  // namespace

std::vector<DnsOptionsProblem> Validate(const DnsResolverOptions& o) {
  using std::chrono::milliseconds;
  using std::chrono::seconds;
  Checker check;
  absl::flat_hash_set<std::string> upstreams = {"system"};
  for (size_t i = 0; i < o.upstreams.size(); ++i) {
    const std::string at = absl::StrCat("upstreams[", i, "]");
    check.Upstream(o.upstreams[i], at);
    if (!upstreams.insert(o.upstreams[i].name).second) {
      check.Complain(at + ".name",
                     "is taken (\"system\" is the system's resolver)");
    }
  }
  absl::flat_hash_set<std::string> groups;
  for (size_t i = 0; i < o.groups.size(); ++i) {
    const std::string at = absl::StrCat("groups[", i, "]");
    if (o.groups[i].name.empty()) {
      check.Complain(at + ".name", "must not be empty");
    }
    if (!groups.insert(o.groups[i].name).second) {
      check.Complain(at + ".name", "is taken");
    }
    for (const std::string& name : o.groups[i].upstreams) {
      if (upstreams.contains(name)) continue;
      check.Complain(at + ".upstreams",
                     absl::StrCat("there is no upstream \"", name, "\""));
    }
  }
  if (!o.default_group.empty() && !groups.contains(o.default_group)) {
    check.Complain("default_group", "there is no such group");
  }
  for (const Endpoint& e : o.bootstrap_servers) {
    if (e.port == 0 || e.ip.IsUnspecified()) {
      check.Complain("bootstrap_servers", "must be addresses with ports");
    }
  }
  check.Range("query_timeout", o.query_timeout, milliseconds(500), seconds(30));
  check.Range("attempt_min", o.attempt_min, milliseconds(10), seconds(10));
  check.Range("attempt_max", o.attempt_max, o.attempt_min, seconds(10));
  check.Range("hedge_delay", o.hedge_delay, milliseconds(0), seconds(5));
  check.Range("down_after_failures", o.down_after_failures, 1, 10000);
  check.Range("down_after", o.down_after, milliseconds(0), seconds(60));
  check.Range("probe_min", o.probe_min, milliseconds(100), seconds(600));
  check.Range("probe_max", o.probe_max, o.probe_min, seconds(3600));
  check.Range("stale_after", o.stale_after, milliseconds(0), seconds(30));
  check.Range("max_in_flight", o.max_in_flight, 1, 65536);
  check.Range("max_waiting", o.max_waiting, 1, 1 << 20);
  check.Range("max_udp_sockets", o.max_udp_sockets, 1, 4096);
  check.Range("max_connections", o.max_connections, 1, 16);
  check.Range("connection_idle", o.connection_idle, seconds(1), seconds(3600));
  for (const uint8_t rcode : o.failover_rcodes) {
    if (rcode != 0 && rcode != 3 && rcode < 16) continue;
    check.Complain("failover_rcodes",
                   "must be RCODEs of failure: not NOERROR, not NXDOMAIN");
  }
  return check.Take();
}

}  // namespace netstack

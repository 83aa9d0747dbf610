// A query and its answer as the outside sees them: a value, made only while
// somebody watches.
#ifndef CORE_DNS_QUERY_LOG_H_
#define CORE_DNS_QUERY_LOG_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/base/time.h"
#include "core/wire/ip_address.h"

namespace netstack::dns {

// What decided. X(enumerator, name, meaning). The proto's DnsVerdict has the
// same names.
#define NETSTACK_DNS_VERDICTS(X)                                              \
  X(kResolved, "RESOLVED", "an upstream was asked, or the cache")             \
  X(kBlockedByRule, "BLOCKED_BY_RULE", "blocked by a rule")                   \
  X(kBlockedByList, "BLOCKED_BY_LIST", "blocked by a list")                   \
  X(kRewritten, "REWRITTEN", "rewritten by a rule")                           \
  X(kBlockedDoh, "BLOCKED_DOH", "the name of a DoH server")                   \
  X(kRebinding, "REBINDING", "a public name that leads to a private address") \
  X(kBlockedCname, "BLOCKED_CNAME", "leads to a blocked name")                \
  X(kFailed, "FAILED", "no upstream answered: SERVFAIL")                      \
  X(kMalformed, "MALFORMED", "not a query that can be answered")              \
  X(kLocal, "LOCAL", "answered by the service itself")

enum class DnsVerdict : uint8_t {
#define NETSTACK_X(id, name, text) id,
  NETSTACK_DNS_VERDICTS(NETSTACK_X)
#undef NETSTACK_X
};
inline constexpr std::array kDnsVerdictNames = {
#define NETSTACK_X(id, name, text) absl::string_view(name),
    NETSTACK_DNS_VERDICTS(NETSTACK_X)
#undef NETSTACK_X
};
static_assert(static_cast<size_t>(DnsVerdict::kLocal) + 1 ==
              kDnsVerdictNames.size());
constexpr absl::string_view DnsVerdictName(DnsVerdict v) {
  return kDnsVerdictNames[static_cast<size_t>(v)];
}

struct DnsQueryInfo {
  Endpoint app;
  Endpoint server;  // whom the app meant to ask
  bool tcp = false;
  std::string name;  // without the dot at its end; "." is the root
  uint16_t type = 0;
  DnsVerdict verdict = DnsVerdict::kResolved;
  std::string matched;   // the rule or list that decided
  std::string upstream;  // who answered, if one was asked
  bool cached = false;
  bool stale = false;
  uint8_t rcode = 0;
  Duration latency{};
  std::vector<IpAddress> addresses;  // of the answer, at most 8
};

}  // namespace netstack::dns

#endif  // CORE_DNS_QUERY_LOG_H_

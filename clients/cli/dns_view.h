// Queries and upstreams for people.
#ifndef CLIENTS_CLI_DNS_VIEW_H_
#define CLIENTS_CLI_DNS_VIEW_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "clients/cli/table.h"
#include "netstack/v1/dns_service.pb.h"

namespace netstack::cli {

// "A", "HTTPS", "TYPE4711".
std::string DnsTypeText(uint32_t type);
// The inverse; a number too. InvalidArgument names --type.
absl::StatusOr<uint32_t> ParseDnsType(absl::string_view text);
// "NOERROR", "NXDOMAIN", "RCODE11".
std::string DnsRcodeText(uint32_t rcode);

// One line per query, with a header first where the layout says so.
std::string RenderQuery(const netstack::v1::DnsQuery& query,
                        absl::TimeZone zone, const Layout& layout);
std::string RenderUpstreams(const netstack::v1::GetUpstreamsResponse& response,
                            const Layout& layout);
// `name` or an address, and what was said about it.
std::string RenderExplanation(absl::string_view asked, bool address,
                              const netstack::v1::ExplainResponse& response,
                              const Layout& layout);

}  // namespace netstack::cli

#endif  // CLIENTS_CLI_DNS_VIEW_H_

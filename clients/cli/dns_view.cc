#include "clients/cli/dns_view.h"

#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "clients/cli/fields.h"
#include "clients/cli/flows_view.h"
#include "clients/cli/format.h"

namespace netstack::cli {
namespace {

using netstack::v1::DnsListStatus;
using netstack::v1::DnsQuery;
using netstack::v1::DnsUpstreamStatus;
using netstack::v1::ExplainResponse;
using netstack::v1::GetUpstreamsResponse;

// The IANA registry's names of what apps ask for.
constexpr std::array<std::pair<uint32_t, const char*>, 18> kTypes = {{
    {1, "A"},
    {2, "NS"},
    {5, "CNAME"},
    {6, "SOA"},
    {12, "PTR"},
    {15, "MX"},
    {16, "TXT"},
    {28, "AAAA"},
    {33, "SRV"},
    {35, "NAPTR"},
    {43, "DS"},
    {46, "RRSIG"},
    {48, "DNSKEY"},
    {52, "TLSA"},
    {64, "SVCB"},
    {65, "HTTPS"},
    {255, "ANY"},
    {257, "CAA"},
}};
constexpr std::array<const char*, 6> kRcodes = {
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"};

Style StyleOf(netstack::v1::DnsVerdict verdict) {
  switch (verdict) {
    case netstack::v1::DNS_VERDICT_RESOLVED:
      return Style::kPlain;
    case netstack::v1::DNS_VERDICT_FAILED:
    case netstack::v1::DNS_VERDICT_MALFORMED:
      return Style::kBad;
    default:
      return Style::kWarn;
  }
}

// Who answered, or what decided.
std::string ByText(const DnsQuery& query) {
  std::string text =
      !query.matched().empty() ? query.matched() : query.upstream();
  if (query.stale()) {
    absl::StrAppend(&text, text.empty() ? "" : " ", "(stale)");
  } else if (query.cached()) {
    absl::StrAppend(&text, text.empty() ? "" : " ", "(cached)");
  }
  return text;
}

std::string DurationOr(bool has, const google::protobuf::Duration& duration) {
  return has ? ShowDuration(ToAbsl(duration)) : "-";
}

std::string RenderLists(const GetUpstreamsResponse& response,
                        const Layout& layout) {
  if (response.lists().empty()) return "";
  Table table({{.title = "BLOCKLIST"},
               {.title = "NAMES", .right = true},
               {.title = "EXCEPTIONS", .right = true},
               {.title = "SKIPPED LINES", .right = true}});
  for (const DnsListStatus& list : response.lists()) {
    table.Row({list.name(), ShowCount(list.names()),
               ShowCount(list.exceptions()), ShowCount(list.skipped_lines())});
  }
  return "\n" + table.Render(layout);
}

}  // namespace

std::string DnsTypeText(uint32_t type) {
  for (const auto& [number, name] : kTypes) {
    if (number == type) return name;
  }
  return absl::StrCat("TYPE", type);
}

absl::StatusOr<uint32_t> ParseDnsType(absl::string_view text) {
  const std::string upper = absl::AsciiStrToUpper(text);
  for (const auto& [number, name] : kTypes) {
    if (upper == name) return number;
  }
  absl::string_view digits = upper;
  absl::ConsumePrefix(&digits, "TYPE");
  uint32_t number = 0;
  if (absl::SimpleAtoi(digits, &number) && number > 0 && number <= 65535) {
    return number;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--type takes a record type like A, AAAA or HTTPS, not \"",
                   Printable(text), "\""));
}

std::string DnsRcodeText(uint32_t rcode) {
  if (rcode < kRcodes.size()) return kRcodes[rcode];
  return absl::StrCat("RCODE", rcode);
}

std::string RenderQuery(const DnsQuery& query, absl::TimeZone zone,
                        const Layout& layout) {
  Table table({{.title = "TIME", .min_width = 8},
               {.title = "APP", .min_width = 15},
               {.title = "TYPE", .min_width = 5},
               {.title = "NAME", .min_width = 30},
               {.title = "VERDICT", .min_width = 15},
               {.title = "ANSWER", .min_width = 8},
               {.title = "LATENCY", .right = true, .min_width = 8},
               {.title = "BY"}});
  const std::string answer =
      query.rcode() != 0 || query.addresses().empty()
          ? DnsRcodeText(query.rcode())
          : absl::StrCat(query.addresses(0),
                         query.addresses_size() > 1
                             ? absl::StrCat(" +", query.addresses_size() - 1)
                             : "");
  table.Row({ShowClock(ToAbsl(query.time()), zone),
             query.app().address(),
             DnsTypeText(query.type()),
             query.name(),
             {ShortName(query.verdict()), StyleOf(query.verdict())},
             answer,
             ShowDuration(ToAbsl(query.latency())),
             ByText(query)});
  return table.Render(layout);
}

std::string RenderUpstreams(const GetUpstreamsResponse& response,
                            const Layout& layout) {
  Table table({{.title = "UPSTREAM", .shrink_to = 20},
               {.title = "GROUPS", .shrink_to = 8},
               {.title = "STATE"},
               {.title = "LATENCY", .right = true},
               {.title = "P99", .right = true},
               {.title = "QUERIES", .right = true},
               {.title = "ANSWERS", .right = true},
               {.title = "TIMEOUTS", .right = true},
               {.title = "FAILURES", .right = true},
               {.title = "LAST ERROR", .shrink_to = 16}});
  for (const DnsUpstreamStatus& u : response.upstreams()) {
    table.Row({u.address(), absl::StrJoin(u.groups(), ","),
               u.up() ? Cell("up", Style::kGood) : Cell("down", Style::kBad),
               DurationOr(u.has_latency(), u.latency()),
               DurationOr(u.has_p99(), u.p99()), ShowCount(u.queries()),
               ShowCount(u.answers()), ShowCount(u.timeouts()),
               ShowCount(u.failures()), u.last_error()});
  }
  const std::string text =
      table.empty() ? "No upstreams.\n" : table.Render(layout);
  return text + RenderLists(response, layout);
}

std::string RenderExplanation(absl::string_view asked, bool address,
                              const ExplainResponse& response,
                              const Layout& layout) {
  std::string text;
  if (address) {
    absl::StrAppend(&text, Printable(asked), ": ",
                    Styled(response.permitted() ? "let through" : "refused",
                           response.permitted() ? Style::kGood : Style::kBad,
                           layout.colour),
                    "\n");
  } else {
    absl::StrAppend(
        &text, Printable(asked), ": ",
        Styled(ShortName(response.verdict()), StyleOf(response.verdict()),
               layout.colour),
        response.matched().empty()
            ? ""
            : absl::StrCat(" (", Printable(response.matched()), ")"),
        "\n");
  }
  for (const std::string& reason : response.reasons()) {
    absl::StrAppend(&text, "  ", Printable(reason), "\n");
  }
  if (!response.group().empty()) {
    absl::StrAppend(
        &text, "  Group ", Printable(response.group()), " would be asked: ",
        Printable(absl::StrJoin(response.upstreams(), ", ")), ".\n");
  }
  return text;
}

}  // namespace netstack::cli

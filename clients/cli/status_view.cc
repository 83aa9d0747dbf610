#include "clients/cli/status_view.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/fields.h"
#include "clients/cli/format.h"
#include "clients/cli/stats_view.h"

namespace netstack::cli {
namespace {

using netstack::v1::StackStatus;
using netstack::v1::Stats;
using netstack::v1::TrafficKind;

std::string KindText(int kind) {
  switch (kind) {
    case netstack::v1::TRAFFIC_KIND_TCP:
      return "TCP";
    case netstack::v1::TRAFFIC_KIND_UDP:
      return "UDP";
    case netstack::v1::TRAFFIC_KIND_ICMP:
      return "ICMP (ping)";
    case netstack::v1::TRAFFIC_KIND_DNS:
      return "DNS";
    case netstack::v1::TRAFFIC_KIND_FRAGMENTS:
      return "fragments";
    default:
      return ShortName(static_cast<TrafficKind>(kind));
  }
}

Cell StateCell(const StackStatus& status, absl::TimeZone zone) {
  switch (status.state()) {
    case netstack::v1::STACK_STATE_RUNNING:
      return {
          absl::StrCat("running since ",
                       ShowTime(ToAbsl(status.stack_started_at()), zone), " (",
                       ShowDuration(ToAbsl(status.stack_uptime())), ")"),
          Style::kGood};
    case netstack::v1::STACK_STATE_FAILED:
      return {absl::StrCat("failed: ", status.failure()), Style::kBad};
    case netstack::v1::STACK_STATE_STOPPED:
      return {"stopped (netstackctl start)", Style::kWarn};
    default:
      return {ShortName(status.state()), Style::kWarn};
  }
}

std::string FlowsText(const StackStatus& status, const Stats& stats) {
  return absl::StrCat(ShowCount(stats.tcp().active()), " of ",
                      ShowCount(status.flow_limit()), " (",
                      ShowCount(stats.tcp().half_open()), " half open, ",
                      ShowCount(stats.tcp().opened()), " so far)");
}

std::string BytesText(const Stats& stats) {
  const auto bytes = [](uint64_t n) {
    return ShowBytes(static_cast<double>(n));
  };
  return absl::StrCat(bytes(stats.tcp().outbound_bytes()), " outbound, ",
                      bytes(stats.tcp().inbound_bytes()), " inbound");
}

}  // namespace

std::string TunText(const netstack::v1::TunStatus& tun) {
  return absl::StrCat(Printable(tun.name()), ", MTU ", tun.mtu(),
                      ", super-segments ", tun.offload() ? "on" : "off");
}

std::string KindsText(const google::protobuf::RepeatedField<int>& kinds) {
  std::vector<std::string> texts;
  for (int kind : kinds) texts.push_back(KindText(kind));
  return texts.empty() ? "none" : absl::StrJoin(texts, ", ");
}

std::string RenderStatus(const StackStatus& status, const Stats& stats,
                         absl::string_view socket, absl::TimeZone zone,
                         const Layout& layout) {
  Table table({{.title = "", .min_width = 12}, {.title = "", .shrink_to = 20}});
  const auto row = [&](const char* label, Cell cell) {
    table.Row({{label, Style::kDim}, std::move(cell)});
  };
  row("Stack", StateCell(status, zone));
  if (status.has_tun()) {
    row("TUN", TunText(status.tun()));
    row("Flows", FlowsText(status, stats));
    row("Payload", BytesText(stats));
    const uint64_t drops = TotalDrops(stats);
    row("Dropped", {absl::StrCat(Counted(drops, "packet", "packets"),
                                 drops > 0 ? " (why: netstackctl stats)" : ""),
                    drops > 0 ? Style::kWarn : Style::kPlain});
  }
  row("Carried", KindsText(status.supported()));
  row("Not carried",
      absl::StrCat(KindsText(status.unsupported()),
                   status.unsupported().empty() ? "" : ": dropped, counted"));
  if (status.has_ping() && !status.ping().permitted()) {
    row("Ping", {absl::StrCat("not permitted by the system; permit it with: ",
                              Printable(status.ping().advice())),
                 Style::kWarn});
  }
  row("Config", absl::StrCat("revision ", status.config_revision()));
  if (!status.pending_restart().empty()) {
    row("", {absl::StrCat("waits for a restart of the stack: ",
                          absl::StrJoin(status.pending_restart(), ", ")),
             Style::kWarn});
  }
  row("Service", absl::StrCat("netstackd ", status.version(), ", up ",
                              ShowDuration(ToAbsl(status.service_uptime())),
                              ", at ", socket));
  if (!status.descriptor_socket().empty()) {
    row("", absl::StrCat("takes TUNs at ", status.descriptor_socket()));
  }
  Layout mine = layout;
  mine.header = false;
  return table.Render(mine);
}

}  // namespace netstack::cli

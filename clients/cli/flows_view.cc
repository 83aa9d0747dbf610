#include "clients/cli/flows_view.h"

#include <algorithm>
#include <functional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/fields.h"
#include "clients/cli/format.h"

namespace netstack::cli {
namespace {

using netstack::v1::Endpoint;
using netstack::v1::Flow;
using netstack::v1::FlowChange;
using netstack::v1::FlowFilter;
using netstack::v1::WatchFlowsResponse;

absl::Status Takes(absl::string_view option, absl::string_view what,
                   absl::string_view value) {
  return absl::InvalidArgumentError(absl::StrCat(
      option, " takes ", what, ", not \"", Printable(value), "\""));
}

absl::StatusOr<uint32_t> ParsePort(absl::string_view option,
                                   absl::string_view text) {
  uint32_t port = 0;
  if (!absl::SimpleAtoi(text, &port) || port > 65535) {
    return Takes(option, "a port from 0 to 65535", text);
  }
  return port;
}

template <typename Enum>
absl::StatusOr<Enum> ParseChoice(absl::string_view option,
                                 const std::string& text) {
  const absl::StatusOr<int> value =
      ParseEnum(*google::protobuf::GetEnumDescriptor<Enum>(), text);
  if (!value.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(option, " ", value.status().message()));
  }
  return static_cast<Enum>(*value);
}

uint64_t Bytes(const Flow& flow) {
  return flow.outbound_bytes() + flow.inbound_bytes();
}

Cell StateCell(const Flow& flow) {
  Style style = Style::kPlain;
  switch (flow.state()) {
    case netstack::v1::FLOW_STATE_OPEN:
      style = Style::kGood;
      break;
    case netstack::v1::FLOW_STATE_DIALING:
    case netstack::v1::FLOW_STATE_HANDSHAKE:
      style = Style::kWarn;
      break;
    case netstack::v1::FLOW_STATE_TIME_WAIT:
    case netstack::v1::FLOW_STATE_CLOSED:
      style = Style::kDim;
      break;
    default:
      break;
  }
  return {ShortName(flow.state()), style};
}

std::string RttText(const Flow& flow) {
  return flow.has_rtt() ? ShowDuration(ToAbsl(flow.rtt())) : "-";
}

}  // namespace

bool FilterText::empty() const {
  return id.empty() && protocol.empty() && state.empty() && app.empty() &&
         app_port.empty() && remote.empty() && remote_port.empty() &&
         active_within.empty() && name.empty() && uid.empty() &&
         package.empty();
}

AddressAndPort SplitPort(absl::string_view text) {
  if (absl::StartsWith(text, "[")) {
    const size_t end = text.find(']');
    if (end == absl::string_view::npos) return {std::string(text), ""};
    std::string address(text.substr(1, end - 1));
    absl::string_view rest = text.substr(end + 1);
    if (absl::StartsWith(rest, "/")) {  // [2001:db8::]/32:443
      const size_t colon = rest.find(':');
      absl::StrAppend(&address, rest.substr(0, colon));
      rest = colon == absl::string_view::npos ? "" : rest.substr(colon);
    }
    if (absl::StartsWith(rest, ":")) rest.remove_prefix(1);
    return {address, std::string(rest)};
  }
  const size_t colon = text.find(':');
  if (colon == absl::string_view::npos || colon != text.rfind(':')) {
    return {std::string(text), ""};  // No colon, or IPv6 without brackets.
  }
  return {std::string(text.substr(0, colon)),
          std::string(text.substr(colon + 1))};
}

absl::StatusOr<FlowFilter> ParseFilter(const FilterText& text) {
  FlowFilter filter;
  if (!text.id.empty()) {
    uint64_t id = 0;
    if (!absl::SimpleAtoi(text.id, &id)) {
      return Takes("--id", "a flow's number", text.id);
    }
    filter.set_id(id);
  }
  if (!text.protocol.empty()) {
    const auto value =
        ParseChoice<netstack::v1::Protocol>("--protocol", text.protocol);
    if (!value.ok()) return value.status();
    filter.set_protocol(*value);
  }
  if (!text.state.empty()) {
    const auto value =
        ParseChoice<netstack::v1::FlowState>("--state", text.state);
    if (!value.ok()) return value.status();
    filter.set_state(*value);
  }
  AddressAndPort app = SplitPort(text.app);
  AddressAndPort remote = SplitPort(text.remote);
  filter.set_app(app.address);
  filter.set_remote(remote.address);
  if (!text.app_port.empty()) app.port = text.app_port;
  if (!text.remote_port.empty()) remote.port = text.remote_port;
  if (!app.port.empty()) {
    const auto port = ParsePort("--app-port", app.port);
    if (!port.ok()) return port.status();
    filter.set_app_port(*port);
  }
  if (!remote.port.empty()) {
    const auto port = ParsePort("--remote-port", remote.port);
    if (!port.ok()) return port.status();
    filter.set_remote_port(*port);
  }
  filter.set_name_suffix(text.name);
  if (!text.uid.empty()) {
    uint32_t uid = 0;
    if (!absl::SimpleAtoi(text.uid, &uid)) {
      return Takes("--uid", "a user's number", text.uid);
    }
    filter.set_uid(uid);
  }
  filter.set_package(text.package);
  if (!text.active_within.empty()) {
    const auto within = ParseDuration(text.active_within);
    if (!within.ok() || *within == absl::ZeroDuration()) {
      return Takes("--active-within", "a duration like 30s or 1h2m",
                   text.active_within);
    }
    *filter.mutable_active_within() = ToProto(*within);
  }
  return filter;
}

std::vector<FlowRow> FlowRates::Measure(const std::vector<Flow>& flows,
                                        absl::Time now) {
  const double seconds =
      at_ == absl::InfinitePast() ? 0 : absl::ToDoubleSeconds(now - at_);
  std::map<uint64_t, Seen> seen;
  std::vector<FlowRow> rows;
  for (const Flow& flow : flows) {
    FlowRow row{.flow = flow};
    const auto before = seen_.find(flow.id());
    if (before != seen_.end() && seconds > 0) {
      const auto rate = [&](uint64_t is, uint64_t was) {
        return is > was ? static_cast<double>(is - was) / seconds : 0;
      };
      row.outbound_rate = rate(flow.outbound_bytes(), before->second.outbound);
      row.inbound_rate = rate(flow.inbound_bytes(), before->second.inbound);
    }
    seen[flow.id()] = {flow.outbound_bytes(), flow.inbound_bytes()};
    rows.push_back(std::move(row));
  }
  seen_ = std::move(seen);
  at_ = now;
  return rows;
}

void FlowModel::Apply(const WatchFlowsResponse& message, absl::Time now) {
  switch (message.payload_case()) {
    case WatchFlowsResponse::kSnapshot:
      for (const Flow& flow : message.snapshot().flows()) {
        flows_[flow.id()] = {flow, now};
      }
      break;
    case WatchFlowsResponse::kEndOfSnapshot:
      complete_ = true;
      break;
    case WatchFlowsResponse::kChanges:
      for (const FlowChange& change : message.changes().changes()) {
        if (Stays(change)) {
          flows_[change.flow().id()] = {change.flow(), now};
        } else {
          flows_.erase(change.flow().id());
        }
      }
      break;
    case WatchFlowsResponse::kLoss:
      lost_ += message.loss().changes();
      break;
    case WatchFlowsResponse::PAYLOAD_NOT_SET:
      break;
  }
}

bool FlowModel::Stays(const FlowChange& change) const {
  if (change.type() == netstack::v1::FLOW_CHANGE_TYPE_CLOSED) return false;
  return filter_.state() == netstack::v1::FLOW_STATE_UNSPECIFIED ||
         filter_.state() == change.flow().state();
}

std::vector<Flow> FlowModel::Flows(absl::Time now) const {
  std::vector<Flow> flows;
  for (const auto& [id, entry] : flows_) {
    const absl::Duration since =
        std::max(now - entry.told, absl::ZeroDuration());
    Flow flow = entry.flow;
    if (filter_.has_active_within() &&
        ToAbsl(flow.idle()) + since > ToAbsl(filter_.active_within())) {
      continue;
    }
    *flow.mutable_age() = ToProto(ToAbsl(flow.age()) + since);
    *flow.mutable_idle() = ToProto(ToAbsl(flow.idle()) + since);
    flows.push_back(std::move(flow));
  }
  return flows;
}

void SortFlows(FlowOrder order, std::vector<FlowRow>& rows) {
  const auto by = [&rows](auto&& key) {
    std::stable_sort(
        rows.begin(), rows.end(),
        [&key](const FlowRow& a, const FlowRow& b) { return key(a) > key(b); });
  };
  std::stable_sort(rows.begin(), rows.end(),
                   [](const FlowRow& a, const FlowRow& b) {
                     return a.flow.id() < b.flow.id();
                   });
  switch (order) {
    case FlowOrder::kId:
      return;
    case FlowOrder::kBytes:
      return by([](const FlowRow& r) { return Bytes(r.flow); });
    case FlowOrder::kAge:
      return by([](const FlowRow& r) { return ToAbsl(r.flow.age()); });
    case FlowOrder::kIdle:
      return by([](const FlowRow& r) { return ToAbsl(r.flow.idle()); });
    case FlowOrder::kRate:
      return by(
          [](const FlowRow& r) { return r.outbound_rate + r.inbound_rate; });
  }
}

std::string OwnerText(const netstack::v1::FlowOwner& owner) {
  if (!owner.package().empty()) return owner.package();
  if (!owner.process().empty()) {
    return absl::StrCat(owner.process(), "/", owner.pid());
  }
  return owner.has_uid() ? absl::StrCat("uid ", owner.uid()) : "";
}

std::string RenderFlows(const std::vector<FlowRow>& rows, bool rates,
                        size_t limit, const Layout& layout) {
  std::vector<Column> columns = {{.title = "ID", .right = true},
                                 {.title = "PROTO"},
                                 {.title = "APP", .shrink_to = 12},
                                 {.title = "REMOTE", .shrink_to = 12},
                                 {.title = "STATE"},
                                 {.title = "AGE", .right = true},
                                 {.title = "IDLE", .right = true},
                                 {.title = "OUTBOUND", .right = true},
                                 {.title = "INBOUND", .right = true}};
  if (rates) {
    columns.push_back({.title = "OUT/S", .right = true});
    columns.push_back({.title = "IN/S", .right = true});
  }
  columns.push_back({.title = "RTT", .right = true});
  const bool named = std::any_of(
      rows.begin(), rows.end(),
      [](const FlowRow& row) { return !row.flow.name().empty(); });
  if (named) columns.push_back({.title = "NAME", .shrink_to = 12});
  // Only where somebody finds them out (owners.source).
  const bool owners = std::any_of(
      rows.begin(), rows.end(),
      [](const FlowRow& row) { return row.flow.has_owner(); });
  if (owners) columns.push_back({.title = "OWNER", .shrink_to = 12});
  Table table(columns);
  const size_t shown = limit == 0 ? rows.size() : std::min(limit, rows.size());
  for (size_t i = 0; i < shown; ++i) {
    const Flow& flow = rows[i].flow;
    const auto bytes = [](uint64_t n) {
      return ShowBytes(static_cast<double>(n));
    };
    std::vector<Cell> cells = {absl::StrCat(flow.id()),
                               ShortName(flow.key().protocol()),
                               EndpointText(flow.key().app()),
                               EndpointText(flow.key().remote()),
                               StateCell(flow),
                               ShowDuration(ToAbsl(flow.age())),
                               ShowDuration(ToAbsl(flow.idle())),
                               bytes(flow.outbound_bytes()),
                               bytes(flow.inbound_bytes())};
    if (rates) {
      cells.emplace_back(ShowByteRate(rows[i].outbound_rate));
      cells.emplace_back(ShowByteRate(rows[i].inbound_rate));
    }
    cells.emplace_back(RttText(flow));
    if (named) cells.emplace_back(flow.name());
    if (owners) cells.emplace_back(OwnerText(flow.owner()));
    table.Row(std::move(cells));
  }
  std::string text = rows.empty() ? "No flows.\n" : table.Render(layout);
  if (shown < rows.size()) {
    absl::StrAppend(&text, "… and ",
                    Counted(rows.size() - shown, "flow", "flows"),
                    " more (--limit)\n");
  }
  return text;
}

std::string RenderFlowLine(absl::string_view what, const Flow& flow,
                           absl::Time now, absl::TimeZone zone,
                           const Layout& layout) {
  Table table({{.title = "TIME", .min_width = 8},
               {.title = "CHANGE", .min_width = 8},
               {.title = "ID", .right = true, .min_width = 6},
               {.title = "PROTO", .min_width = 5},
               {.title = "APP", .min_width = 21},
               {.title = "REMOTE", .min_width = 21},
               {.title = "STATE", .min_width = 11},
               {.title = "OUTBOUND", .right = true, .min_width = 9},
               {.title = "INBOUND", .right = true, .min_width = 9},
               {.title = "REASON", .min_width = 6},
               {.title = "NAME"}});
  const bool ended =
      flow.close_reason() != netstack::v1::CLOSE_REASON_UNSPECIFIED &&
      flow.close_reason() != netstack::v1::CLOSE_REASON_NONE;
  table.Row({ShowClock(now, zone), std::string(what), absl::StrCat(flow.id()),
             ShortName(flow.key().protocol()), EndpointText(flow.key().app()),
             EndpointText(flow.key().remote()), ShortName(flow.state()),
             ShowBytes(static_cast<double>(flow.outbound_bytes())),
             ShowBytes(static_cast<double>(flow.inbound_bytes())),
             ended ? ShortName(flow.close_reason()) : "", flow.name()});
  return table.Render(layout);
}

std::string EndpointText(const Endpoint& endpoint) {
  if (absl::StrContains(endpoint.address(), ':')) {
    return absl::StrCat("[", endpoint.address(), "]:", endpoint.port());
  }
  return absl::StrCat(endpoint.address(), ":", endpoint.port());
}

}  // namespace netstack::cli

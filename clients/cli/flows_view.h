// Flows for people: filters from the command line, rates, order, tables.
#ifndef CLIENTS_CLI_FLOWS_VIEW_H_
#define CLIENTS_CLI_FLOWS_VIEW_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "clients/cli/table.h"
#include "netstack/v1/flow.pb.h"
#include "netstack/v1/flow_service.pb.h"

namespace netstack::cli {

// The filter as it was typed; "" is any.
struct FilterText {
  std::string id;
  std::string protocol;
  std::string state;
  std::string app;
  std::string app_port;
  std::string remote;
  std::string remote_port;
  std::string active_within;
  std::string name;
  std::string uid;
  std::string package;

  bool empty() const;
};

// An address or CIDR prefix with an optional port: "192.0.2.0/24:443",
// "2001:db8::/32", "[2001:db8::1]:443". A port alone is ":443".
struct AddressAndPort {
  std::string address;
  std::string port;  // "" when there is none.
};
AddressAndPort SplitPort(absl::string_view text);

// InvalidArgument names the option that is wrong. Whether a prefix is one is
// for the service to say.
absl::StatusOr<netstack::v1::FlowFilter> ParseFilter(const FilterText& text);

// A flow and how fast it is, in payload bytes per second.
struct FlowRow {
  netstack::v1::Flow flow;
  double outbound_rate = 0;
  double inbound_rate = 0;
};

// Rates from successive looks at the same flows. A flow has rate 0 at its
// first look.
class FlowRates {
 public:
  std::vector<FlowRow> Measure(const std::vector<netstack::v1::Flow>& flows,
                               absl::Time now);

 private:
  struct Seen {
    uint64_t outbound = 0;
    uint64_t inbound = 0;
  };
  std::map<uint64_t, Seen> seen_;
  absl::Time at_ = absl::InfinitePast();
};

// What WatchFlows has told so far, as a set of flows of this moment.
//
// Changes of a flow are told even when it has left the filter's state; the
// model drops such flows, and those that fall silent for longer than
// active_within.
class FlowModel {
 public:
  explicit FlowModel(netstack::v1::FlowFilter filter = {})
      : filter_(std::move(filter)) {}

  void Apply(const netstack::v1::WatchFlowsResponse& message, absl::Time now);

  // Whether the snapshot is complete.
  bool complete() const { return complete_; }
  // Changes that were lost: the set is out of date for good.
  uint64_t lost() const { return lost_; }

  // By ascending id; ages and idle times go on between messages.
  std::vector<netstack::v1::Flow> Flows(absl::Time now) const;

 private:
  struct Entry {
    netstack::v1::Flow flow;
    absl::Time told;
  };

  // Whether a change leaves the flow inside the filter.
  bool Stays(const netstack::v1::FlowChange& change) const;

  netstack::v1::FlowFilter filter_;
  std::map<uint64_t, Entry> flows_;
  bool complete_ = false;
  uint64_t lost_ = 0;
};

enum class FlowOrder { kId, kBytes, kAge, kIdle, kRate };

// Most bytes, oldest, longest idle and fastest first; kId ascending.
void SortFlows(FlowOrder order, std::vector<FlowRow>& rows);

// The table. At most `limit` rows, 0 being all; those left out are told.
std::string RenderFlows(const std::vector<FlowRow>& rows, bool rates,
                        size_t limit, const Layout& layout);

// One line for a flow of a watch into a pipe; `what` is "flow" for those of
// the snapshot, else the kind of change. Titles with layout.header.
std::string RenderFlowLine(absl::string_view what,
                           const netstack::v1::Flow& flow, absl::Time now,
                           absl::TimeZone zone, const Layout& layout);

// The package, else "process/pid", else "uid N"; "" when nothing is known.
std::string OwnerText(const netstack::v1::FlowOwner& owner);

// "192.0.2.1:443", "[2001:db8::1]:443".
std::string EndpointText(const netstack::v1::Endpoint& endpoint);

}  // namespace netstack::cli

#endif  // CLIENTS_CLI_FLOWS_VIEW_H_

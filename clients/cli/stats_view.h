// Stats as tables for people.
#ifndef CLIENTS_CLI_STATS_VIEW_H_
#define CLIENTS_CLI_STATS_VIEW_H_

#include <string>

#include "absl/time/time.h"
#include "clients/cli/table.h"
#include "netstack/v1/stats.pb.h"

namespace netstack::cli {

// One reading of the counters.
struct StatsSample {
  netstack::v1::Stats stats;
  uint64_t epoch = 0;  // 0: no stack ran.
  absl::Time time;
};

// What a drop reason means, for a person; "" for an unknown one.
std::string DropMeaning(netstack::v1::DropReason reason);

// All packets dropped, whatever the reason.
uint64_t TotalDrops(const netstack::v1::Stats& stats);

// All groups; with a column of rates when `before` is a reading of the same
// run of the stack. `before` may be null.
std::string RenderStats(const StatsSample& now, const StatsSample* before,
                        const Layout& layout);

// One line of a reading for output that scrolls; the first one of a watch has
// the titles above it (layout.header).
std::string RenderStatsLine(const StatsSample& now, const StatsSample* before,
                            absl::TimeZone zone, const Layout& layout);

}  // namespace netstack::cli

#endif  // CLIENTS_CLI_STATS_VIEW_H_

// The status as one screen for people.
#ifndef CLIENTS_CLI_STATUS_VIEW_H_
#define CLIENTS_CLI_STATUS_VIEW_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "clients/cli/table.h"
#include "google/protobuf/repeated_field.h"
#include "netstack/v1/netstack_service.pb.h"
#include "netstack/v1/stats.pb.h"

namespace netstack::cli {

// "netstack0, MTU 1500, super-segments on".
std::string TunText(const netstack::v1::TunStatus& tun);

// "UDP, ICMP, DNS, fragments", or "none". Takes what the generated code has
// for repeated enums.
std::string KindsText(const google::protobuf::RepeatedField<int>& kinds);

// `stats` is what GetStats said at about the same time.
std::string RenderStatus(const netstack::v1::StackStatus& status,
                         const netstack::v1::Stats& stats,
                         absl::string_view socket, absl::TimeZone zone,
                         const Layout& layout);

}  // namespace netstack::cli

#endif  // CLIENTS_CLI_STATUS_VIEW_H_

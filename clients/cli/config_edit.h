// Changes to the config as people write them, made into requests.
#ifndef CLIENTS_CLI_CONFIG_EDIT_H_
#define CLIENTS_CLI_CONFIG_EDIT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "netstack/v1/config.pb.h"
#include "netstack/v1/netstack_service.pb.h"

namespace netstack::cli {

// "tcp.dial_timeout=10s" becomes a value and a path of the mask,
// "tcp.dial_timeout=" and "tcp=" a path alone: back to the default.
absl::StatusOr<netstack::v1::UpdateConfigRequest> EditRequest(
    const std::vector<std::string>& assignments);

// JSON when it begins with "{", else textproto. The error says where. Empty
// text is refused: it is a mistake more often than a wish for all defaults,
// which is "{}".
absl::StatusOr<netstack::v1::Config> ParseConfigText(absl::string_view text);

// Whether `path` is a config field with a value of its own.
bool IsLeaf(absl::string_view path);

}  // namespace netstack::cli

#endif  // CLIENTS_CLI_CONFIG_EDIT_H_

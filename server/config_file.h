// The config file: netstack.v1.Config as textproto or JSON.
//
// The form follows the file's name (.json; .textproto, .txtpb, .pbtxt) and
// otherwise its first character: '{' is JSON. Unknown fields are refused.
#ifndef SERVER_CONFIG_FILE_H_
#define SERVER_CONFIG_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "netstack/v1/config.pb.h"

namespace netstack::server {

// `name` is for choosing the form and for messages. Errors are
// INVALID_ARGUMENT, one line per problem: "name:line:column: what".
// Columns count bytes from 1.
absl::StatusOr<v1::Config> ParseConfig(absl::string_view name,
                                       absl::string_view text);

// Reads at most 1 MiB. Errors also NOT_FOUND and PERMISSION_DENIED.
absl::StatusOr<v1::Config> ReadConfigFile(const std::string& path);

}  // namespace netstack::server

#endif  // SERVER_CONFIG_FILE_H_

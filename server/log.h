// Logging of the process. No payload and no full address at info level.
#ifndef SERVER_LOG_H_
#define SERVER_LOG_H_

#include <string>

#include "absl/status/status.h"

namespace netstack::server {

// Before any thread. `level` as in --log_level; an empty `file` is standard
// error. Also silences gRPC's own messages unless GRPC_VERBOSITY asks for
// them.
absl::Status SetUpLogging(const std::string& level, const std::string& file);

}  // namespace netstack::server

#endif  // SERVER_LOG_H_

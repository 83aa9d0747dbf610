// Errors as clients see them: canonical codes with google.rpc details.
//
// Inside the server an error is an absl::Status whose payloads are the details
// themselves (payload URL = the Any's type URL), so that it travels unchanged
// through StatusOr and callbacks until ToGrpc() at the edge.
// The reasons are listed in netstack/v1/netstack_service.proto.
#ifndef SERVER_ERRORS_H_
#define SERVER_ERRORS_H_

#include <grpcpp/support/status.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "core/engine/config.h"

namespace netstack::server {

// INVALID_ARGUMENT with a BadRequest that names every field. `reason` is
// INVALID_REQUEST or INVALID_CONFIG. `problems` is not empty.
absl::Status InvalidFields(absl::string_view reason,
                           const std::vector<ConfigProblem>& problems);

// FAILED_PRECONDITION with a PreconditionFailure. `subject` is what stands in
// the way, e.g. "stack".
absl::Status Precondition(absl::string_view reason, absl::string_view type,
                          absl::string_view subject,
                          absl::string_view message);

// Any code, with ErrorInfo.
absl::Status Refusal(
    absl::StatusCode code, absl::string_view reason, absl::string_view message,
    const std::vector<std::pair<std::string, std::string>>& metadata = {});

absl::Status StackNotRunning();
absl::Status ShuttingDown();

// What Runtime::Start() answered, with the reason that its code stands for.
absl::Status StartRefused(const absl::Status& why);

grpc::Status ToGrpc(const absl::Status& status);

}  // namespace netstack::server

#endif  // SERVER_ERRORS_H_

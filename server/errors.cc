#include "server/errors.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace netstack::server {
namespace {

constexpr char kDomain[] = "netstack.v1";
constexpr char kTypePrefix[] = "type.googleapis.com/";

void Attach(absl::Status& status, const google::protobuf::Message& detail) {
  status.SetPayload(
      absl::StrCat(kTypePrefix, detail.GetDescriptor()->full_name()),
      absl::Cord(detail.SerializeAsString()));
}

}  // namespace

absl::Status Refusal(
    absl::StatusCode code, absl::string_view reason, absl::string_view message,
    const std::vector<std::pair<std::string, std::string>>& metadata) {
  absl::Status status(code, message);
  google::rpc::ErrorInfo info;
  info.set_domain(kDomain);
  info.set_reason(std::string(reason));
  for (const auto& [key, value] : metadata) {
    (*info.mutable_metadata())[key] = value;
  }
  Attach(status, info);
  return status;
}

absl::Status InvalidFields(absl::string_view reason,
                           const std::vector<ConfigProblem>& problems) {
  std::string message;
  google::rpc::BadRequest bad;
  for (const ConfigProblem& p : problems) {
    absl::StrAppend(&message, message.empty() ? "" : "; ", p.field, ": ",
                    p.problem);
    auto* v = bad.add_field_violations();
    v->set_field(p.field);
    v->set_description(p.problem);
  }
  absl::Status status =
      Refusal(absl::StatusCode::kInvalidArgument, reason, message);
  Attach(status, bad);
  return status;
}

absl::Status Precondition(absl::string_view reason, absl::string_view type,
                          absl::string_view subject,
                          absl::string_view message) {
  absl::Status status =
      Refusal(absl::StatusCode::kFailedPrecondition, reason, message);
  google::rpc::PreconditionFailure failure;
  auto* v = failure.add_violations();
  v->set_type(std::string(type));
  v->set_subject(std::string(subject));
  v->set_description(std::string(message));
  Attach(status, failure);
  return status;
}

absl::Status StackNotRunning() {
  return Precondition("STACK_NOT_RUNNING", "STACK_STATE", "stack",
                      "The stack is not running.");
}

absl::Status ShuttingDown() {
  return Refusal(absl::StatusCode::kUnavailable, "SHUTTING_DOWN",
                 "The service is shutting down.");
}

absl::Status StartRefused(const absl::Status& why) {
  switch (why.code()) {
    case absl::StatusCode::kPermissionDenied:
      return Refusal(why.code(), "NO_PERMISSION", why.message());
    case absl::StatusCode::kNotFound:
      return Refusal(why.code(), "TUN_NOT_FOUND", why.message());
    case absl::StatusCode::kFailedPrecondition:
      return Precondition("TUN_BUSY", "TUN_STATE", "tun", why.message());
    default:
      return Refusal(why.code(), "START_FAILED", why.message());
  }
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // absl's codes are gRPC's. An expected refusal is never UNKNOWN, so one
  // that arrives here is a fault of ours.
  auto code = static_cast<grpc::StatusCode>(status.code());
  if (code == grpc::StatusCode::UNKNOWN) code = grpc::StatusCode::INTERNAL;
  const std::string message(status.message());
  google::rpc::Status rich;
  rich.set_code(code);
  rich.set_message(message);
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& value) {
    auto* any = rich.add_details();
    any->set_type_url(std::string(url));
    any->set_value(std::string(value));
  });
  return grpc::Status(code, message, rich.SerializeAsString());
}

}  // namespace netstack::server

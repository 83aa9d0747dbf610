#include "clients/cli/client.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/format.h"
#include "clients/cli/json.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/support/log.h"
#include "grpcpp/create_channel_posix.h"

namespace netstack::cli {
namespace {

using netstack::v1::FlowService;
using netstack::v1::NetstackService;

// Where an error keeps the google.rpc.Status that came with it.
constexpr char kDetails[] = "type.googleapis.com/google.rpc.Status";

// A reading of WatchFlows has at most 1000 flows; a config may have many
// prefixes. Far above both.
constexpr int kMaxMessage = 64 << 20;

// A connected descriptor, or errno negated.
int ConnectUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return -ENAMETOOLONG;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) !=
      0) {
    const int error = errno;
    close(fd);
    return -error;
  }
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);  // gRPC wants it so.
  return fd;
}

std::string WhyNot(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::StrCat("there is no socket ", path);
    case ECONNREFUSED:
      return absl::StrCat("nobody listens at ", path,
                          " (left behind by a service that has ended?)");
    case EACCES:
    case EPERM:
      return absl::StrCat("you may not open ", path);
    case ENAMETOOLONG:
      return absl::StrCat("the path ", path, " is too long for a socket (",
                          sizeof(sockaddr_un::sun_path) - 1, " bytes at most)");
    case ENOTSOCK:
    case EPROTOTYPE:
      return absl::StrCat(path, " is not the socket of netstackd");
    default:
      return absl::StrCat("cannot connect to ", path, ": ",
                          std::strerror(error));
  }
}

std::string WhatToDo(int error) {
  if (error == EACCES || error == EPERM) {
    return "Run netstackctl as root or as the service's own user.";
  }
  return "Start netstackd, or name its socket with --socket or "
         "NETSTACK_SOCKET.";
}

google::rpc::Status DetailsOf(const absl::Status& status) {
  google::rpc::Status details;
  if (const auto payload = status.GetPayload(kDetails)) {
    details.ParseFromString(std::string(*payload));
  }
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  return details;
}

// Adds "  subject: text", unless the message itself says as much.
void AddLine(absl::string_view message, absl::string_view subject,
             absl::string_view text, std::string* lines) {
  if (absl::StrContains(message, text) && absl::StrContains(message, subject)) {
    return;
  }
  absl::StrAppend(lines, "  ", Printable(subject), ": ", Printable(text), "\n");
}

// The peer closed the connection before it answered anything.
bool IsTurnedAway(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE &&
         status.error_details().empty();
}

}  // namespace

std::vector<std::string> DefaultSockets() {
  std::vector<std::string> paths;
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && *runtime != '\0') {
    paths.push_back(absl::StrCat(runtime, "/netstackd/netstackd.sock"));
  }
  paths.push_back("/run/netstackd/netstackd.sock");
  return paths;
}

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(
    const std::vector<std::string>& paths, absl::Duration timeout) {
  std::vector<std::string> reasons;
  int error = ENOENT;
  for (const std::string& path : paths) {
    const int fd = ConnectUnix(path);
    if (fd >= 0) {
      grpc::ChannelArguments arguments;
      arguments.SetMaxReceiveMessageSize(kMaxMessage);
      // Owns fd from here on.
      auto channel =
          grpc::CreateCustomInsecureChannelFromFd("localhost", fd, arguments);
      return std::unique_ptr<Client>(new Client(path, timeout, channel));
    }
    reasons.push_back(WhyNot(path, -fd));
    // What is most worth telling: a socket that is there, but not for us.
    if (-fd != ENOENT && -fd != ENOTDIR) error = -fd;
  }
  return absl::UnavailableError(
      absl::StrCat("cannot reach netstackd: ", absl::StrJoin(reasons, "; "),
                   ". ", WhatToDo(error)));
}

Client::Client(std::string socket, absl::Duration timeout,
               const std::shared_ptr<grpc::Channel>& channel)
    : socket_(std::move(socket)),
      timeout_(timeout),
      netstack_(NetstackService::NewStub(channel)),
      flows_(FlowService::NewStub(channel)),
      dns_(netstack::v1::DnsService::NewStub(channel)) {}

void Client::SetDeadline(grpc::ClientContext& context) const {
  if (timeout_ == absl::InfiniteDuration()) return;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout_));
}

absl::Status Client::FromGrpc(const grpc::Status& status) const {
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  std::string message = status.error_message();
  if (IsTurnedAway(status)) {
    message = absl::StrCat(
        "the service at ", socket_,
        " closed the connection: it ended, or your user may not control it "
        "(control.allowed_uids), or it has too many connections "
        "(control.max_connections)");
  } else if (code == absl::StatusCode::kDeadlineExceeded) {
    message =
        absl::StrCat("the service at ", socket_, " did not answer within ",
                     ShowDuration(timeout_), " (--timeout)");
  } else if (code == absl::StatusCode::kUnimplemented) {
    message = absl::StrCat(
        "the service does not know this request; it is of "
        "another version than netstackctl (",
        message, ")");
  } else if (message.empty()) {
    message = absl::StatusCodeToString(code);
  }
  absl::Status result(code, message);
  result.SetPayload(kDetails, absl::Cord(status.error_details()));
  return result;
}

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kUnavailable:
      return kExitUnreachable;
    case absl::StatusCode::kDeadlineExceeded:
      return kExitTimeout;
    default:
      return kExitRefused;
  }
}

std::string ErrorText(const absl::Status& status) {
  const std::string message = Printable(status.message());
  const google::rpc::Status details = DetailsOf(status);
  std::string lines;
  std::string fields;  // All bad fields, a line each.
  int bad_fields = 0;
  for (const google::protobuf::Any& any : details.details()) {
    google::rpc::BadRequest bad;
    google::rpc::PreconditionFailure failure;
    google::rpc::ErrorInfo info;
    if (any.UnpackTo(&bad)) {
      bad_fields = bad.field_violations_size();
      for (const auto& violation : bad.field_violations()) {
        AddLine("", violation.field(), violation.description(), &fields);
        AddLine(message, violation.field(), violation.description(), &lines);
      }
    } else if (any.UnpackTo(&failure)) {
      for (const auto& violation : failure.violations()) {
        AddLine(message, violation.subject(), violation.description(), &lines);
      }
    } else if (any.UnpackTo(&info)) {
      for (const auto& [key, value] : info.metadata()) {
        AddLine(message, key, value, &lines);
      }
    }
  }
  if (bad_fields > 1 && lines.empty()) {  // The message is all of them in one.
    return absl::StrCat("netstackctl: ", bad_fields, " fields are refused\n",
                        fields);
  }
  return absl::StrCat("netstackctl: ", message, "\n", lines);
}

std::string ErrorJson(const absl::Status& status) {
  return JsonLine(DetailsOf(status));
}

void MuteGrpc() {
  if (std::getenv("GRPC_VERBOSITY") != nullptr) return;
  gpr_set_log_function([](gpr_log_func_args*) {});
}

}  // namespace netstack::cli

// The connection to netstackd: finding its socket, calling it, and what its
// errors mean for a person and for the exit code.
#ifndef CLIENTS_CLI_CLIENT_H_
#define CLIENTS_CLI_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cli/watch.h"
#include "grpcpp/grpcpp.h"
#include "netstack/v1/dns_service.grpc.pb.h"
#include "netstack/v1/flow_service.grpc.pb.h"
#include "netstack/v1/netstack_service.grpc.pb.h"

namespace netstack::cli {

// What netstackctl tells its caller.
enum ExitCode : int {
  kExitOk = 0,
  kExitRefused = 1,      // The service answered, with an error.
  kExitUsage = 2,        // Wrong command line or file; nothing was sent.
  kExitUnreachable = 3,  // No service at the socket, or it went away.
  kExitTimeout = 4,      // No answer within --timeout.
};

// Where the socket is looked for, in this order, when none is named: what
// netstackd does when it makes one.
std::vector<std::string> DefaultSockets();

// A connected socket and the stubs on it. It is not connected anew when the
// service goes away: calls then fail with Unavailable.
class Client {
 public:
  // Tries the paths in order. The error is Unavailable and says for each path
  // why it failed, and what to do. `timeout` is that of every call;
  // InfiniteDuration waits for ever.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(
      const std::vector<std::string>& paths, absl::Duration timeout);

  // The path that answered.
  const std::string& socket() const { return socket_; }

  // One request, one answer:
  //   client.Call(&NetstackService::Stub::GetStatus, GetStatusRequest())
  // Errors are as the service sent them, details included (see Report).
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                   Response*),
      const Request& request) {
    grpc::ClientContext context;
    SetDeadline(context);
    Response response;
    const grpc::Status status =
        (stub<Stub>().*method)(&context, request, &response);
    if (!status.ok()) return FromGrpc(status);
    return response;
  }

  // Reads a stream until it ends, `interrupt` is raised or `on_message`
  // returns false; the latter two are no errors. Has no deadline.
  template <typename Stub, typename Request, typename Response>
  absl::Status Watch(std::unique_ptr<grpc::ClientReader<Response>> (
                         Stub::*method)(grpc::ClientContext*, const Request&),
                     const Request& request, Interrupt& interrupt,
                     const std::function<bool(const Response&)>& on_message) {
    grpc::ClientContext context;
    bool enough = false;
    const Interrupt::Scope cancel(interrupt, [&] { context.TryCancel(); });
    auto reader = (stub<Stub>().*method)(&context, request);
    Response response;
    while (!enough && !interrupt.raised() && reader->Read(&response)) {
      enough = !on_message(response);
    }
    if (enough) context.TryCancel();
    const grpc::Status status = reader->Finish();
    if (enough || interrupt.raised() || status.ok()) return absl::OkStatus();
    return FromGrpc(status);
  }

 private:
  Client(std::string socket, absl::Duration timeout,
         const std::shared_ptr<grpc::Channel>& channel);

  template <typename Stub>
  Stub& stub();

  void SetDeadline(grpc::ClientContext& context) const;
  absl::Status FromGrpc(const grpc::Status& status) const;

  std::string socket_;
  absl::Duration timeout_;
  std::unique_ptr<netstack::v1::NetstackService::Stub> netstack_;
  std::unique_ptr<netstack::v1::FlowService::Stub> flows_;
  std::unique_ptr<netstack::v1::DnsService::Stub> dns_;
};

template <>
inline netstack::v1::NetstackService::Stub& Client::stub() {
  return *netstack_;
}
template <>
inline netstack::v1::FlowService::Stub& Client::stub() {
  return *flows_;
}

template <>
inline netstack::v1::DnsService::Stub& Client::stub() {
  return *dns_;
}

// The exit code for an error of Connect, Call or Watch.
ExitCode ExitCodeOf(const absl::Status& status);

// The error in full: its sentence, then a line for every bad field, every
// violated precondition and what else the details hold. Ends with "\n".
std::string ErrorText(const absl::Status& status);

// The error as google.rpc.Status in JSON, on one line.
std::string ErrorJson(const absl::Status& status);

// gRPC writes to stderr whenever a connection fails; we say it ourselves.
// GRPC_VERBOSITY in the environment brings it back.
void MuteGrpc();

}  // namespace netstack::cli

#endif  // CLIENTS_CLI_CLIENT_H_

// A real control plane in the test's own process, and a real channel to it.
#ifndef TESTS_SERVER_TEST_SERVER_H_
#define TESTS_SERVER_TEST_SERVER_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/channel_arguments.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "netstack/v1/dns_service.grpc.pb.h"
#include "netstack/v1/flow_service.grpc.pb.h"
#include "netstack/v1/netstack_service.grpc.pb.h"
#include "server/control_server.h"

namespace netstack::test {

// A directory that goes with the object, with all that is in it.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A call's context with a deadline, so that a test fails instead of hanging.
class Context : public grpc::ClientContext {
 public:
  explicit Context(
      std::chrono::milliseconds limit = std::chrono::seconds(20)) {
    set_deadline(std::chrono::system_clock::now() + limit);
  }
};

class TestServer {
 public:
  // Fails the test when it does not start.
  explicit TestServer(const v1::Config& config = {},
                      server::Stack::Factory factory = Runtime::Start);

  // A connection of its own.
  std::shared_ptr<grpc::Channel> NewChannel(
      const grpc::ChannelArguments& args = {}) const;

  server::ControlServer& server() { return *server_; }
  const std::string& socket() const { return socket_; }
  v1::NetstackService::Stub& netstack() { return *netstack_; }
  v1::FlowService::Stub& flows() { return *flows_; }

  grpc::Status Start(v1::StartResponse* response = nullptr);
  grpc::Status Stop(v1::StopResponse* response = nullptr);
  v1::StackStatus Status();
  v1::Stats Stats();

 private:
  TempDir dir_;
  std::string socket_ = dir_.File("control/n.sock");
  std::unique_ptr<server::ControlServer> server_;
  std::unique_ptr<v1::NetstackService::Stub> netstack_;
  std::unique_ptr<v1::FlowService::Stub> flows_;
};

std::shared_ptr<grpc::Channel> ChannelTo(const std::string& socket,
                                         grpc::ChannelArguments args = {});

// The google.rpc details of an error; parts that are not there stay empty.
struct Details {
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad_request;
  google::rpc::PreconditionFailure precondition;

  std::vector<std::string> fields() const;  // of bad_request
};
Details DetailsOf(const grpc::Status& status);

// True when `done` became so within the limit.
bool Eventually(const std::function<bool()>& done,
                std::chrono::milliseconds limit = std::chrono::seconds(10));

google::protobuf::Duration Millis(int64_t ms);

}  // namespace netstack::test

#endif  // TESTS_SERVER_TEST_SERVER_H_

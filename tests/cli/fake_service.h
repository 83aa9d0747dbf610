// A netstackd without a stack: answers as the test says, on a real socket.
#ifndef TESTS_CLI_FAKE_SERVICE_H_
#define TESTS_CLI_FAKE_SERVICE_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "grpcpp/grpcpp.h"
#include "netstack/v1/dns_service.grpc.pb.h"
#include "netstack/v1/flow_service.grpc.pb.h"
#include "netstack/v1/netstack_service.grpc.pb.h"

namespace netstack::cli {

// Set the public fields before the call that needs them; read them behind it.
class FakeService {
 public:
  FakeService();
  ~FakeService();
  FakeService(const FakeService&) = delete;
  FakeService& operator=(const FakeService&) = delete;

  const std::string& socket() const { return socket_; }

  // Every unary call fails with this unless it is OK.
  grpc::Status refusal;
  // Unary calls do not answer before the caller gives up.
  std::atomic<bool> hangs{false};

  netstack::v1::StackStatus status;
  netstack::v1::GetConfigResponse config;
  netstack::v1::UpdateConfigResponse updated;
  std::vector<netstack::v1::Flow> flows;  // By ascending id.
  uint32_t page = 1000;                   // Flows per page, whatever is asked.
  std::vector<netstack::v1::WatchFlowsResponse> flow_messages;
  std::vector<netstack::v1::WatchEventsResponse> event_messages;
  std::vector<netstack::v1::WatchQueriesResponse> query_messages;
  netstack::v1::ExplainResponse explained;
  netstack::v1::GetUpstreamsResponse upstreams;
  netstack::v1::ReloadListsResponse reloaded;
  int readings = 2;         // Of WatchStats.
  bool streams_end = true;  // With `stream_end`; else they wait for the caller.
  grpc::Status stream_end;
  // True, and notified, when a stream has sent all.
  std::atomic<bool> streaming{false};

  // What was asked last.
  netstack::v1::UpdateConfigRequest update_request;
  netstack::v1::CloseFlowsRequest close_request;
  netstack::v1::ListFlowsRequest list_request;
  netstack::v1::StopRequest stop_request;
  netstack::v1::ExplainRequest explain_request;
  netstack::v1::FlushCacheRequest flush_request;
  netstack::v1::WatchQueriesRequest queries_request;

 private:
  class Netstack;
  class Flows;
  class Dns;

  // What a unary call does before it answers.
  grpc::Status Answer(grpc::ServerContext* context);
  // What a stream does when it has sent all.
  grpc::Status End(grpc::ServerContext* context);

  std::string directory_;
  std::string socket_;
  std::unique_ptr<Netstack> netstack_;
  std::unique_ptr<Flows> flows_service_;
  std::unique_ptr<Dns> dns_service_;
  std::unique_ptr<grpc::Server> server_;
};

// A refusal with google.rpc details as netstackd sends them.
grpc::Status BadFieldRefusal(const std::string& message);
grpc::Status NotRunningRefusal();

}  // namespace netstack::cli

#endif  // TESTS_CLI_FAKE_SERVICE_H_

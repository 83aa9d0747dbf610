// netstack.v1.FlowService: checks, converts, asks the stack.
#ifndef SERVER_FLOW_SERVICE_H_
#define SERVER_FLOW_SERVICE_H_

#include "netstack/v1/flow_service.grpc.pb.h"
#include "server/stack.h"
#include "server/watch_stream.h"

namespace netstack::server {

class FlowServiceImpl final : public v1::FlowService::CallbackService {
 public:
  // Both outlive the service.
  FlowServiceImpl(Stack* stack, Watches* watches)
      : stack_(stack), watches_(watches) {}

  grpc::ServerUnaryReactor* ListFlows(
      grpc::CallbackServerContext* context,
      const v1::ListFlowsRequest* request,
      v1::ListFlowsResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchFlowsResponse>* WatchFlows(
      grpc::CallbackServerContext* context,
      const v1::WatchFlowsRequest* request) override;
  grpc::ServerUnaryReactor* CloseFlows(
      grpc::CallbackServerContext* context,
      const v1::CloseFlowsRequest* request,
      v1::CloseFlowsResponse* response) override;

 private:
  Stack* const stack_;
  Watches* const watches_;
};

}  // namespace netstack::server

#endif  // SERVER_FLOW_SERVICE_H_

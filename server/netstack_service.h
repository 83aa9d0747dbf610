// netstack.v1.NetstackService: checks, converts, asks the stack.
#ifndef SERVER_NETSTACK_SERVICE_H_
#define SERVER_NETSTACK_SERVICE_H_

#include "netstack/v1/netstack_service.grpc.pb.h"
#include "server/event_log.h"
#include "server/stack.h"
#include "server/watch_stream.h"

namespace netstack::server {

class NetstackServiceImpl final : public v1::NetstackService::CallbackService {
 public:
  // All outlive the service.
  NetstackServiceImpl(Stack* stack, EventLog* events, Watches* watches)
      : stack_(stack), events_(events), watches_(watches) {}

  grpc::ServerUnaryReactor* Start(grpc::CallbackServerContext* context,
                                  const v1::StartRequest* request,
                                  v1::StartResponse* response) override;
  grpc::ServerUnaryReactor* Stop(grpc::CallbackServerContext* context,
                                 const v1::StopRequest* request,
                                 v1::StopResponse* response) override;
  grpc::ServerUnaryReactor* ReplaceTun(
      grpc::CallbackServerContext* context,
      const v1::ReplaceTunRequest* request,
      v1::ReplaceTunResponse* response) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;
  grpc::ServerUnaryReactor* GetConfig(grpc::CallbackServerContext* context,
                                      const v1::GetConfigRequest* request,
                                      v1::GetConfigResponse* response) override;
  grpc::ServerUnaryReactor* UpdateConfig(
      grpc::CallbackServerContext* context,
      const v1::UpdateConfigRequest* request,
      v1::UpdateConfigResponse* response) override;
  grpc::ServerUnaryReactor* GetStats(grpc::CallbackServerContext* context,
                                     const v1::GetStatsRequest* request,
                                     v1::GetStatsResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchStatsResponse>* WatchStats(
      grpc::CallbackServerContext* context,
      const v1::WatchStatsRequest* request) override;
  grpc::ServerWriteReactor<v1::WatchEventsResponse>* WatchEvents(
      grpc::CallbackServerContext* context,
      const v1::WatchEventsRequest* request) override;

 private:
  Stack* const stack_;
  EventLog* const events_;
  Watches* const watches_;
};

}  // namespace netstack::server

#endif  // SERVER_NETSTACK_SERVICE_H_

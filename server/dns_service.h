// netstack.v1.DnsService: checks, converts, asks the stack.
#ifndef SERVER_DNS_SERVICE_H_
#define SERVER_DNS_SERVICE_H_

#include "netstack/v1/dns_service.grpc.pb.h"
#include "server/stack.h"
#include "server/watch_stream.h"

namespace netstack::server {

class DnsServiceImpl final : public v1::DnsService::CallbackService {
 public:
  // Both outlive the service.
  DnsServiceImpl(Stack* stack, Watches* watches)
      : stack_(stack), watches_(watches) {}

  grpc::ServerWriteReactor<v1::WatchQueriesResponse>* WatchQueries(
      grpc::CallbackServerContext* context,
      const v1::WatchQueriesRequest* request) override;
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context,
                                    const v1::ExplainRequest* request,
                                    v1::ExplainResponse* response) override;
  grpc::ServerUnaryReactor* FlushCache(
      grpc::CallbackServerContext* context,
      const v1::FlushCacheRequest* request,
      v1::FlushCacheResponse* response) override;
  grpc::ServerUnaryReactor* ReloadLists(
      grpc::CallbackServerContext* context,
      const v1::ReloadListsRequest* request,
      v1::ReloadListsResponse* response) override;
  grpc::ServerUnaryReactor* GetUpstreams(
      grpc::CallbackServerContext* context,
      const v1::GetUpstreamsRequest* request,
      v1::GetUpstreamsResponse* response) override;

 private:
  Stack* const stack_;
  Watches* const watches_;
};

}  // namespace netstack::server

#endif  // SERVER_DNS_SERVICE_H_

#include "server/netstack_service.h"

#include <chrono>
#include <utility>
#include <vector>

#include "server/convert.h"
#include "server/errors.h"
#include "server/event_stream.h"
#include "server/request_check.h"
#include "server/stats_stream.h"

namespace netstack::server {

grpc::ServerUnaryReactor* NetstackServiceImpl::Start(
    grpc::CallbackServerContext* context, const v1::StartRequest* request,
    v1::StartResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  stack_->Start(*request, [this, reactor, response](const absl::Status& started) {
    if (started.ok()) *response->mutable_status() = stack_->GetStatus();
    reactor->Finish(ToGrpc(started));
  });
  return reactor;
}

grpc::ServerUnaryReactor* NetstackServiceImpl::Stop(
    grpc::CallbackServerContext* context, const v1::StopRequest* request,
    v1::StopResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  stack_->Stop(*request, [this, reactor, response](
                             const absl::StatusOr<bool>& stopped) {
    if (stopped.ok()) {
      response->set_stopped(*stopped);
      *response->mutable_status() = stack_->GetStatus();
    }
    reactor->Finish(ToGrpc(stopped.status()));
  });
  return reactor;
}

grpc::ServerUnaryReactor* NetstackServiceImpl::ReplaceTun(
    grpc::CallbackServerContext* context, const v1::ReplaceTunRequest* request,
    v1::ReplaceTunResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  stack_->ReplaceTun(*request,
                     [this, reactor, response](const absl::Status& replaced) {
                       if (replaced.ok()) {
                         *response->mutable_status() = stack_->GetStatus();
                       }
                       reactor->Finish(ToGrpc(replaced));
                     });
  return reactor;
}

grpc::ServerUnaryReactor* NetstackServiceImpl::GetStatus(
    grpc::CallbackServerContext* context, const v1::GetStatusRequest*,
    v1::GetStatusResponse* response) {
  *response->mutable_status() = stack_->GetStatus();
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* NetstackServiceImpl::GetConfig(
    grpc::CallbackServerContext* context, const v1::GetConfigRequest*,
    v1::GetConfigResponse* response) {
  *response = stack_->GetConfig();
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* NetstackServiceImpl::UpdateConfig(
    grpc::CallbackServerContext* context,
    const v1::UpdateConfigRequest* request,
    v1::UpdateConfigResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  stack_->Update(*request, [reactor, response](
                               absl::StatusOr<v1::UpdateConfigResponse> done) {
    if (done.ok()) *response = *std::move(done);
    reactor->Finish(ToGrpc(done.status()));
  });
  return reactor;
}

grpc::ServerUnaryReactor* NetstackServiceImpl::GetStats(
    grpc::CallbackServerContext* context, const v1::GetStatsRequest*,
    v1::GetStatsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  ReadStats(stack_, *watches_->counters(),
            [reactor, response](StatsReading reading) {
              response->mutable_stats()->Swap(&reading.stats);
              response->set_epoch(reading.epoch);
              *response->mutable_time() = reading.time;
              reactor->Finish(grpc::Status::OK);
            });
  return reactor;
}

grpc::ServerWriteReactor<v1::WatchStatsResponse>*
NetstackServiceImpl::WatchStats(grpc::CallbackServerContext* context,
                                const v1::WatchStatsRequest* request) {
  using Response = v1::WatchStatsResponse;
  Duration interval = std::chrono::seconds(1);
  std::vector<ConfigProblem> problems;
  if (request->has_interval()) {
    CheckInterval("interval", request->interval(), &interval, problems);
  }
  if (!problems.empty()) {
    return new RefusedStream<Response>(
        InvalidFields("INVALID_REQUEST", problems));
  }
  return Launch<Response, StatsStream>(watches_, context, stack_, interval);
}

grpc::ServerWriteReactor<v1::WatchEventsResponse>*
NetstackServiceImpl::WatchEvents(grpc::CallbackServerContext* context,
                                 const v1::WatchEventsRequest* request) {
  std::optional<uint64_t> after;
  if (request->has_after_sequence()) after = request->after_sequence();
  return Launch<v1::WatchEventsResponse, EventStream>(watches_, context,
                                                      events_, after);
}

}  // namespace netstack::server

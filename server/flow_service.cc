#include "server/flow_service.h"

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/convert.h"
#include "server/errors.h"
#include "server/flow_stream.h"
#include "server/request_check.h"

namespace netstack::server {
namespace {

constexpr uint32_t kDefaultPage = 100;
constexpr uint32_t kMaxPage = 1000;

grpc::ServerUnaryReactor* Refuse(grpc::CallbackServerContext* context,
                                 const absl::Status& why) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(why));
  return reactor;
}

// Whether a field that narrows is set.
bool Narrows(const v1::FlowFilter& f) {
  return f.has_id() || f.protocol() != v1::PROTOCOL_UNSPECIFIED ||
         f.state() != v1::FLOW_STATE_UNSPECIFIED || !f.app().empty() ||
         !f.remote().empty() || f.has_app_port() || f.has_remote_port() ||
         f.has_active_within() || !f.name_suffix().empty();
}

}  // namespace

grpc::ServerUnaryReactor* FlowServiceImpl::ListFlows(
    grpc::CallbackServerContext* context, const v1::ListFlowsRequest* request,
    v1::ListFlowsResponse* response) {
  FlowFilter filter;
  std::vector<ConfigProblem> problems = FromProto(request->filter(), &filter);
  if (request->page_size() > kMaxPage) {
    problems.push_back({"page_size", absl::StrCat(request->page_size(),
                                                  " is more than ", kMaxPage,
                                                  ".")});
  }
  if (!problems.empty()) {
    return Refuse(context, InvalidFields("INVALID_REQUEST", problems));
  }
  const size_t page =
      request->page_size() == 0 ? kDefaultPage : request->page_size();
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  stack_->Ask(
      [filter, after = request->after_id(), page](Engine& engine, FlowHub&) {
        // One more than asked for tells whether there is another page.
        return engine.ListFlows(filter, after, page + 1);
      },
      [reactor, response, page](absl::StatusOr<std::vector<FlowInfo>> flows,
                                uint64_t epoch) {
        if (!flows.ok()) return reactor->Finish(ToGrpc(flows.status()));
        response->set_epoch(epoch);
        const size_t count = std::min(page, flows->size());
        for (size_t i = 0; i < count; ++i) {
          ToProto((*flows)[i], response->add_flows());
        }
        if (flows->size() > page) {
          response->set_next_after_id((*flows)[page - 1].id);
        }
        reactor->Finish(grpc::Status::OK);
      });
  return reactor;
}

grpc::ServerWriteReactor<v1::WatchFlowsResponse>* FlowServiceImpl::WatchFlows(
    grpc::CallbackServerContext* context,
    const v1::WatchFlowsRequest* request) {
  using Response = v1::WatchFlowsResponse;
  FlowFilter filter;
  std::vector<ConfigProblem> problems = FromProto(request->filter(), &filter);
  Duration interval{};
  if (request->has_update_interval()) {
    CheckInterval("update_interval", request->update_interval(), &interval,
                  problems);
  }
  if (!problems.empty()) {
    return new RefusedStream<Response>(
        InvalidFields("INVALID_REQUEST", problems));
  }
  return Launch<Response, FlowStream>(watches_, context, stack_, filter,
                                      interval);
}

grpc::ServerUnaryReactor* FlowServiceImpl::CloseFlows(
    grpc::CallbackServerContext* context, const v1::CloseFlowsRequest* request,
    v1::CloseFlowsResponse* response) {
  FlowFilter filter;
  std::vector<ConfigProblem> problems = FromProto(request->filter(), &filter);
  const bool narrows = Narrows(request->filter());
  if (!narrows && !request->all()) {
    problems.push_back(
        {"all", "without a filter every flow is meant, which \"all\" must "
                "say."});
  }
  if (narrows && request->all()) {
    problems.push_back({"all", "says every flow, but the filter says some."});
  }
  if (!problems.empty()) {
    return Refuse(context, InvalidFields("INVALID_REQUEST", problems));
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  stack_->Ask(
      [filter](Engine& engine, FlowHub&) { return engine.CloseFlows(filter); },
      [reactor, response](absl::StatusOr<size_t> closed, uint64_t) {
        if (!closed.ok()) return reactor->Finish(ToGrpc(closed.status()));
        response->set_closed(*closed);
        reactor->Finish(grpc::Status::OK);
      });
  return reactor;
}

}  // namespace netstack::server

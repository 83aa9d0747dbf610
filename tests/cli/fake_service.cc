#include "tests/cli/fake_service.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"

namespace netstack::cli {

namespace v1 = netstack::v1;
using grpc::ServerContext;
using grpc::Status;

class FakeService::Netstack : public v1::NetstackService::Service {
 public:
  explicit Netstack(FakeService* fake) : fake_(fake) {}

  Status Start(ServerContext* context, const v1::StartRequest*,
               v1::StartResponse* response) override {
    *response->mutable_status() = fake_->status;
    return fake_->Answer(context);
  }
  Status Stop(ServerContext* context, const v1::StopRequest* request,
              v1::StopResponse* response) override {
    fake_->stop_request = *request;
    response->set_stopped(true);
    return fake_->Answer(context);
  }
  Status GetStatus(ServerContext* context, const v1::GetStatusRequest*,
                   v1::GetStatusResponse* response) override {
    *response->mutable_status() = fake_->status;
    return fake_->Answer(context);
  }
  Status GetConfig(ServerContext* context, const v1::GetConfigRequest*,
                   v1::GetConfigResponse* response) override {
    *response = fake_->config;
    return fake_->Answer(context);
  }
  Status UpdateConfig(ServerContext* context,
                      const v1::UpdateConfigRequest* request,
                      v1::UpdateConfigResponse* response) override {
    fake_->update_request = *request;
    *response = fake_->updated;
    return fake_->Answer(context);
  }
  Status GetStats(ServerContext* context, const v1::GetStatsRequest*,
                  v1::GetStatsResponse* response) override {
    response->mutable_stats()->mutable_tun()->set_outbound_packets(7);
    response->set_epoch(1);
    return fake_->Answer(context);
  }
  Status WatchStats(
      ServerContext* context, const v1::WatchStatsRequest*,
      grpc::ServerWriter<v1::WatchStatsResponse>* writer) override {
    for (int i = 0; i < fake_->readings; ++i) {
      v1::WatchStatsResponse reading;
      reading.set_epoch(1);
      reading.mutable_time()->set_seconds(100 + i);
      reading.mutable_stats()->mutable_tun()->set_outbound_packets(10 * i);
      if (!writer->Write(reading)) break;
    }
    return fake_->End(context);
  }
  Status WatchEvents(
      ServerContext* context, const v1::WatchEventsRequest*,
      grpc::ServerWriter<v1::WatchEventsResponse>* writer) override {
    for (const auto& message : fake_->event_messages) writer->Write(message);
    return fake_->End(context);
  }

 private:
  FakeService* const fake_;  // Owns this.
};

class FakeService::Flows : public v1::FlowService::Service {
 public:
  explicit Flows(FakeService* fake) : fake_(fake) {}

  Status ListFlows(ServerContext* context, const v1::ListFlowsRequest* request,
                   v1::ListFlowsResponse* response) override {
    fake_->list_request = *request;
    response->set_epoch(1);
    for (const v1::Flow& flow : fake_->flows) {
      if (flow.id() <= request->after_id()) continue;
      if (static_cast<uint32_t>(response->flows_size()) == fake_->page) {
        response->set_next_after_id(response->flows().rbegin()->id());
        break;
      }
      *response->add_flows() = flow;
    }
    return fake_->Answer(context);
  }
  Status WatchFlows(
      ServerContext* context, const v1::WatchFlowsRequest*,
      grpc::ServerWriter<v1::WatchFlowsResponse>* writer) override {
    for (const auto& message : fake_->flow_messages) writer->Write(message);
    return fake_->End(context);
  }
  Status CloseFlows(ServerContext* context,
                    const v1::CloseFlowsRequest* request,
                    v1::CloseFlowsResponse* response) override {
    fake_->close_request = *request;
    response->set_closed(fake_->flows.size());
    return fake_->Answer(context);
  }

 private:
  FakeService* const fake_;  // Owns this.
};

class FakeService::Dns : public v1::DnsService::Service {
 public:
  explicit Dns(FakeService* fake) : fake_(fake) {}

  Status WatchQueries(
      ServerContext* context, const v1::WatchQueriesRequest* request,
      grpc::ServerWriter<v1::WatchQueriesResponse>* writer) override {
    fake_->queries_request = *request;
    for (const auto& message : fake_->query_messages) writer->Write(message);
    return fake_->End(context);
  }
  Status Explain(ServerContext* context, const v1::ExplainRequest* request,
                 v1::ExplainResponse* response) override {
    fake_->explain_request = *request;
    *response = fake_->explained;
    return fake_->Answer(context);
  }
  Status FlushCache(ServerContext* context,
                    const v1::FlushCacheRequest* request,
                    v1::FlushCacheResponse* response) override {
    fake_->flush_request = *request;
    response->set_answers(3);
    return fake_->Answer(context);
  }
  Status ReloadLists(ServerContext* context, const v1::ReloadListsRequest*,
                     v1::ReloadListsResponse* response) override {
    *response = fake_->reloaded;
    return fake_->Answer(context);
  }
  Status GetUpstreams(ServerContext* context, const v1::GetUpstreamsRequest*,
                      v1::GetUpstreamsResponse* response) override {
    *response = fake_->upstreams;
    return fake_->Answer(context);
  }

 private:
  FakeService* const fake_;  // Owns this.
};

FakeService::FakeService()
    : netstack_(std::make_unique<Netstack>(this)),
      flows_service_(std::make_unique<Flows>(this)),
      dns_service_(std::make_unique<Dns>(this)) {
  // Not TempDir(): a socket's path must be short.
  char directory[] = "/tmp/netstackctl-test-XXXXXX";
  directory_ = mkdtemp(directory) != nullptr ? directory : "/nonexistent";
  socket_ = directory_ + "/s.sock";
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + socket_,
                           grpc::InsecureServerCredentials());
  builder.RegisterService(netstack_.get());
  builder.RegisterService(flows_service_.get());
  builder.RegisterService(dns_service_.get());
  server_ = builder.BuildAndStart();
  EXPECT_NE(server_, nullptr) << "cannot listen at " << socket_;
}

FakeService::~FakeService() {
  hangs = false;
  if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
  unlink(socket_.c_str());
  rmdir(directory_.c_str());
}

Status FakeService::Answer(ServerContext* context) {
  while (hangs && !context->IsCancelled()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return refusal;
}

Status FakeService::End(ServerContext* context) {
  streaming = true;
  streaming.notify_all();
  while (!streams_end && !context->IsCancelled()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return stream_end;
}

namespace {

Status Refusal(grpc::StatusCode code, const std::string& message,
               const google::protobuf::Message& detail) {
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(message);
  details.add_details()->PackFrom(detail);
  return Status(code, message, details.SerializeAsString());
}

}  // namespace

Status BadFieldRefusal(const std::string& message) {
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field("tun.mtu");
  violation->set_description("must be 1280 to 65535");
  violation = bad.add_field_violations();
  violation->set_field("tcp.dial_timeout");
  violation->set_description("must be 0.1 s to 10 min");
  return Refusal(grpc::StatusCode::INVALID_ARGUMENT, message, bad);
}

Status NotRunningRefusal() {
  google::rpc::PreconditionFailure failure;
  auto* violation = failure.add_violations();
  violation->set_type("STACK_STATE");
  violation->set_subject("stack");
  violation->set_description("start it first");
  return Refusal(grpc::StatusCode::FAILED_PRECONDITION,
                 "The stack is not running.", failure);
}

}  // namespace netstack::cli

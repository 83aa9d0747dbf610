#include "tests/server/test_server.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <thread>
#include <utility>

#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "spdlog/spdlog.h"

namespace netstack::test {

TempDir::TempDir() {
  const char* base = std::getenv("TMPDIR");
  std::string name =
      std::string(base == nullptr ? "/tmp" : base) + "/netstack-XXXXXX";
  if (mkdtemp(name.data()) == nullptr) {
    std::perror("mkdtemp");
    std::abort();
  }
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::shared_ptr<grpc::Channel> ChannelTo(const std::string& socket,
                                         grpc::ChannelArguments args) {
  // Channels to one address would share a connection otherwise.
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel("unix:" + socket,
                                   grpc::InsecureChannelCredentials(), args);
}

TestServer::TestServer(const v1::Config& config,
                       server::Stack::Factory factory) {
  spdlog::set_level(spdlog::level::off);
  auto checked = server::CheckConfig(config);
  if (!checked.ok()) {
    ADD_FAILURE() << checked.status();
    std::abort();
  }
  server::ControlServer::Options options;
  options.socket_path = socket_;
  options.config = *std::move(checked);
  options.factory = std::move(factory);
  auto server = server::ControlServer::Start(std::move(options));
  if (!server.ok()) {
    ADD_FAILURE() << server.status();
    std::abort();
  }
  server_ = *std::move(server);
  auto channel = NewChannel();
  netstack_ = v1::NetstackService::NewStub(channel);
  flows_ = v1::FlowService::NewStub(channel);
}

std::shared_ptr<grpc::Channel> TestServer::NewChannel(
    const grpc::ChannelArguments& args) const {
  return ChannelTo(socket_, args);
}

grpc::Status TestServer::Start(v1::StartResponse* response) {
  Context context;
  v1::StartResponse own;
  return netstack_->Start(&context, {}, response == nullptr ? &own : response);
}

grpc::Status TestServer::Stop(v1::StopResponse* response) {
  Context context;
  v1::StopResponse own;
  return netstack_->Stop(&context, {}, response == nullptr ? &own : response);
}

v1::StackStatus TestServer::Status() {
  Context context;
  v1::GetStatusResponse response;
  const grpc::Status got = netstack_->GetStatus(&context, {}, &response);
  EXPECT_TRUE(got.ok()) << got.error_message();
  return response.status();
}

v1::Stats TestServer::Stats() {
  Context context;
  v1::GetStatsResponse response;
  const grpc::Status got = netstack_->GetStats(&context, {}, &response);
  EXPECT_TRUE(got.ok()) << got.error_message();
  return response.stats();
}

std::vector<std::string> Details::fields() const {
  std::vector<std::string> out;
  for (const auto& v : bad_request.field_violations()) {
    out.push_back(v.field());
  }
  return out;
}

Details DetailsOf(const grpc::Status& status) {
  Details out;
  google::rpc::Status rich;
  EXPECT_TRUE(rich.ParseFromString(status.error_details()));
  if (!status.error_details().empty()) {
    EXPECT_EQ(rich.code(), status.error_code());
    EXPECT_EQ(rich.message(), status.error_message());
  }
  for (const auto& any : rich.details()) {
    if (any.UnpackTo(&out.info) || any.UnpackTo(&out.bad_request) ||
        any.UnpackTo(&out.precondition)) {
      continue;
    }
    ADD_FAILURE() << "unexpected detail " << any.type_url();
  }
  return out;
}

bool Eventually(const std::function<bool()>& done,
                std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

google::protobuf::Duration Millis(int64_t ms) {
  google::protobuf::Duration out;
  out.set_seconds(ms / 1000);
  out.set_nanos(static_cast<int32_t>(ms % 1000) * 1'000'000);
  return out;
}

}  // namespace netstack::test

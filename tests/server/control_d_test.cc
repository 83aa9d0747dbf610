// Control D: its API over real TLS, what is kept, and the PIN of Stop.
#include "server/control_d.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "netstack/v1/app_service.grpc.pb.h"
#include "server/control_d_api.h"
#include "tests/server/test_server.h"

namespace netstack::server {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// control_d_api.py beside this file, as a process.
class Api {
 public:
  Api() {
    Answer(200, Resolver("\"0042\""));
    pid_ = fork();
    if (pid_ == 0) {
      execlp("python3", "python3", NETSTACK_CONTROL_D_API, dir_.path().c_str(),
             nullptr);
      _exit(127);
    }
    EXPECT_TRUE(test::Eventually([this] { return !Port().empty(); }));
  }
  ~Api() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  static std::string Resolver(const std::string& pin,
                              const std::string& exclude = "") {
    return "{\"success\": true, \"body\": {\"resolver\": {\"uid\": \"abc\", "
           "\"doh\": \"https://127.0.0.1:9/abc\", \"exclude\": [" +
           exclude + "]" +
           (pin.empty() ? "" : ", \"deactivation_pin\": " + pin) + "}}}";
  }
  void Answer(int status, const std::string& body) {
    // In one piece, since a request may come at any time.
    const std::string path = dir_.File("answer.json");
    std::ofstream(path + ".new")
        << "{\"status\": " << status << ", \"body\": " << body << "}";
    EXPECT_EQ(rename((path + ".new").c_str(), path.c_str()), 0);
  }
  std::string Port() const { return ReadAll(dir_.File("port")); }
  std::string Requests() const { return ReadAll(dir_.File("requests")); }
  std::string Url() const { return "https://127.0.0.1:" + Port(); }
  std::string File(const std::string& name) const { return dir_.File(name); }

 private:
  test::TempDir dir_;
  pid_t pid_ = -1;
};

class ControlDTest : public testing::Test {
 protected:
  ControlDConfig Config() const {
    ControlDConfig config;
    config.resolver_id = "abc";
    config.api_url = api_.Url();
    config.ca_file = api_.File("cert.pem");
    return config;
  }
  absl::StatusOr<ControlDResolver> Fetch(const ControlDConfig& config,
                                         const std::string& uid) {
    return FetchResolver(config, uid, {}, sockets_, milliseconds(5000));
  }

  Api api_;
  int open_ = 0;
  ControlDSockets sockets_{[this](bool v4) {
                             ++open_;
                             return socket(v4 ? AF_INET : AF_INET6,
                                           SOCK_STREAM | SOCK_CLOEXEC, 0);
                           },
                           [this](int fd) {
                             --open_;
                             close(fd);
                           },
                           [] { return false; }};
};

TEST_F(ControlDTest, AsksForTheUid) {
  api_.Answer(200, Api::Resolver("\"0042\"", "\"corp.example\", \"a.test\""));
  const auto resolver = Fetch(Config(), "abc/phone");
  ASSERT_TRUE(resolver.ok()) << resolver.status();
  EXPECT_EQ(resolver->uid, "abc");
  EXPECT_EQ(resolver->doh, "https://127.0.0.1:9/abc");
  EXPECT_EQ(resolver->pin, "0042") << "with its zeros";
  EXPECT_THAT(resolver->exclude, ElementsAre("corp.example", "a.test"));
  EXPECT_EQ(api_.Requests(),
            "{\"body\": {\"client_id\": \"phone\", \"uid\": \"abc\"}, "
            "\"path\": \"/utility?platform=ctrld&version=" NETSTACK_VERSION
            "\"}\n");
  EXPECT_EQ(open_, 0) << "every socket came from us and went back";
}

TEST_F(ControlDTest, ProvisionsFirst) {
  ControlDConfig config = Config();
  config.resolver_id.clear();
  config.provision_token = "token";
  config.hostname = "laptop-7";
  ASSERT_TRUE(Fetch(config, "").ok());
  EXPECT_THAT(api_.Requests(),
              HasSubstr("{\"hostname\": \"laptop-7\", \"prov_token\": "
                        "\"token\"}"));
  EXPECT_THAT(api_.Requests(), HasSubstr("{\"uid\": \"abc\"}"));
}

TEST_F(ControlDTest, ErrorsSayWhatTheyAre) {
  api_.Answer(404,
              "{\"error\": {\"message\": \"no such device\", "
              "\"code\": 40402}}");
  absl::Status status = Fetch(Config(), "abc").status();
  EXPECT_TRUE(IsDeviceGone(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no such device"));

  api_.Answer(403,
              "{\"error\": {\"message\": \"bad token\", \"code\": 40301}}");
  status = Fetch(Config(), "abc").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_FALSE(IsDeviceGone(status));

  for (const char* nonsense :
       {"{}", "[]", "{\"body\": {\"resolver\": {\"uid\": \"a\"}}}",
        "{\"body\": {\"resolver\": {\"uid\": \"a\", \"doh\": "
        "\"http://x\"}}}"}) {
    api_.Answer(200, nonsense);
    EXPECT_EQ(Fetch(Config(), "abc").status().code(),
              absl::StatusCode::kInternal)
        << nonsense;
  }
}

TEST_F(ControlDTest, TheCertificateIsChecked) {
  ControlDConfig config = Config();
  config.ca_file.clear();  // the system's store does not know it
  EXPECT_EQ(Fetch(config, "abc").status().code(),
            absl::StatusCode::kUnavailable);
  config = Config();
  config.api_url = "https://localhost:" + api_.Port();  // not its name
  const auto wrong = FetchResolver(config, "abc", {IpAddress::V4(127, 0, 0, 1)},
                                   sockets_, milliseconds(5000));
  EXPECT_EQ(wrong.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(api_.Requests(), "") << "nothing was sent";
}

TEST_F(ControlDTest, ASocketThatCannotBeProtectedIsNotUsed) {
  ControlDSockets none = sockets_;
  none.open = [](bool) { return -1; };
  EXPECT_FALSE(
      FetchResolver(Config(), "abc", {}, none, milliseconds(5000)).ok());
  EXPECT_EQ(api_.Requests(), "");
}

// Numbers of JSON have no bounds.
TEST_F(ControlDTest, NumbersBeyondReason) {
  api_.Answer(403, "{\"error\": {\"message\": \"m\", \"code\": 1e300}}");
  EXPECT_EQ(Fetch(Config(), "abc").status().code(),
            absl::StatusCode::kPermissionDenied);
  for (const char* pin : {"1e300", "-7"}) {
    api_.Answer(200, Api::Resolver(pin));
    const auto resolver = Fetch(Config(), "abc");
    ASSERT_TRUE(resolver.ok());
    EXPECT_TRUE(resolver->pin.has_value()) << "closed, not open";
  }
  api_.Answer(200, Api::Resolver("42"));
  EXPECT_EQ(Fetch(Config(), "abc")->pin, "42");
}

TEST(ControlDState, SurvivesTheFile) {
  ControlDResolver resolver{"u", "https://h.example/x", {"a", "b"}, "007"};
  EXPECT_EQ(FromStateText(ToStateText(resolver)), resolver);
  resolver.pin.reset();
  EXPECT_EQ(FromStateText(ToStateText(resolver)), resolver);
  for (const char* damaged : {"", "{", "{}", "{\"uid\":\"u\"}", "null"}) {
    EXPECT_EQ(FromStateText(damaged), std::nullopt) << damaged;
  }
}

TEST_F(ControlDTest, QueriesCarryTheDevicesFacts) {
  ControlDConfig config = Config();
  config.state_file = api_.File("state");
  std::ofstream(config.state_file)
      << ToStateText({"abc", "https://h.example/x", {}, std::nullopt});
  config.client_host = "laptop";
  config.client_mac = "02:00:00:00:00:01";
  using Headers = std::vector<std::pair<std::string, std::string>>;
  const auto headers = [&] {
    EventLog events;
    ControlD control(
        sockets_, [] {}, &events);
    control.Begin(config);
    DnsConfig dns;
    control.Apply(dns);
    EXPECT_EQ(dns.default_group, "control-d");
    return dns.groups.empty() ? Headers()
                              : dns.groups.back().upstreams[0].http_headers;
  };
  EXPECT_EQ(headers(), (Headers{{"x-cd-host", "laptop"},
                                {"x-cd-mac", "02:00:00:00:00:01"}}));
  config.client_id_preference = v1::CONTROL_D_CLIENT_ID_MAC;
  EXPECT_EQ(headers().back(), (Headers::value_type{"x-cd-cpref", "1"}));
  config.client_id_preference = v1::CONTROL_D_CLIENT_ID_HOST;
  EXPECT_EQ(headers().back(), (Headers::value_type{"x-cd-cpref", "2"}));
}

// The whole: a stack that asks the API through its own sockets.
class StopTest : public ControlDTest {
 protected:
  v1::Config ServerConfig() {
    v1::Config config;
    config.mutable_tun()->set_name("ns-cd0");
    v1::ControlDConfig& c = *config.mutable_control_d();
    c.set_resolver_id("abc");
    c.set_api_url(api_.Url());
    c.set_ca_file(api_.File("cert.pem"));
    c.set_state_file(api_.File("state"));
    return config;
  }
  static std::string Reason(const grpc::Status& status) {
    return test::DetailsOf(status).info.reason();
  }
  grpc::Status Stop(test::TestServer& server, const std::string& pin,
                    bool restart = false) {
    test::Context context;
    v1::StopRequest request;
    request.set_pin(pin);
    request.set_restart(restart);
    v1::StopResponse response;
    return server.netstack().Stop(&context, request, &response);
  }
  static bool Saw(test::TestServer& server, v1::EventType type) {
    uint64_t at = 0;
    while (auto event = server.server().events().After(at).event) {
      if (event->type() == type) return true;
      at = event->sequence();
    }
    return false;
  }
};

TEST_F(StopTest, NeedsThePinAndChangesNothingWithoutIt) {
  test::TestServer server(ServerConfig());
  ASSERT_TRUE(server.Start().ok());
  ASSERT_TRUE(test::Eventually(
      [&] { return Saw(server, v1::EVENT_TYPE_CONTROL_D_PROVISIONED); }));
  const uint64_t epoch = server.Status().epoch();
  EXPECT_EQ(Reason(Stop(server, "")), "PIN_REQUIRED");
  EXPECT_EQ(Reason(Stop(server, "42")), "PIN_WRONG");
  EXPECT_EQ(server.Status().state(), v1::STACK_STATE_RUNNING);
  EXPECT_EQ(server.Status().epoch(), epoch) << "nothing was torn down";
  // A restart needs none, and the stack runs afterwards.
  EXPECT_TRUE(Stop(server, "", true).ok());
  EXPECT_EQ(server.Status().state(), v1::STACK_STATE_RUNNING);
  EXPECT_GT(server.Status().epoch(), epoch);
  // The PIN of today counts.
  api_.Answer(200, Api::Resolver("\"0815\""));
  EXPECT_EQ(Reason(Stop(server, "0042")), "PIN_WRONG");
  EXPECT_TRUE(Stop(server, "0815").ok());
  EXPECT_EQ(server.Status().state(), v1::STACK_STATE_STOPPED);
  EXPECT_TRUE(Stop(server, "").ok()) << "there is nothing to protect";
}

TEST_F(StopTest, WhatWasKnownLastWorksWithoutTheApi) {
  {
    test::TestServer server(ServerConfig());
    ASSERT_TRUE(server.Start().ok());
    ASSERT_TRUE(test::Eventually(
        [&] { return Saw(server, v1::EVENT_TYPE_CONTROL_D_PROVISIONED); }));
  }
  struct stat file {};
  ASSERT_EQ(stat(api_.File("state").c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600u);
  api_.Answer(503, "{}");
  test::TestServer server(ServerConfig());
  ASSERT_TRUE(server.Start().ok());
  EXPECT_EQ(Reason(Stop(server, "")), "PIN_REQUIRED");
  test::Context context;
  v1::ExplainRequest request;
  request.set_name("a.example");
  v1::ExplainResponse response;
  auto dns = v1::DnsService::NewStub(server.NewChannel());
  ASSERT_TRUE(dns->Explain(&context, request, &response).ok());
  EXPECT_EQ(response.group(), "control-d");
  EXPECT_THAT(response.upstreams(), ElementsAre("https://127.0.0.1/..."))
      << "the path is a secret";
  EXPECT_TRUE(Stop(server, "0042").ok());
}

TEST_F(StopTest, UntilTheApiAnsweredNamesAreRefused) {
  api_.Answer(503, "{}");
  test::TestServer server(ServerConfig());
  ASSERT_TRUE(server.Start().ok());
  ASSERT_TRUE(test::Eventually(
      [&] { return Saw(server, v1::EVENT_TYPE_CONTROL_D_FAILED); }));
  auto dns = v1::DnsService::NewStub(server.NewChannel());
  test::Context context;
  v1::ExplainRequest request;
  request.set_name("a.example");
  v1::ExplainResponse response;
  ASSERT_TRUE(dns->Explain(&context, request, &response).ok());
  EXPECT_EQ(response.verdict(), v1::DNS_VERDICT_BLOCKED_BY_RULE);
  EXPECT_THAT(response.matched(), HasSubstr("control-d"));
}

TEST_F(StopTest, AGoneDeviceIsAnEvent) {
  api_.Answer(404, "{\"error\": {\"message\": \"gone\", \"code\": 40402}}");
  test::TestServer server(ServerConfig());
  ASSERT_TRUE(server.Start().ok());
  EXPECT_TRUE(test::Eventually(
      [&] { return Saw(server, v1::EVENT_TYPE_DEVICE_GONE); }));
}

TEST_F(StopTest, AnAppIsToldThatItsDeviceIsGone) {
  api_.Answer(404, "{\"error\": {\"message\": \"gone\", \"code\": 40402}}");
  test::TestServer server(ServerConfig());
  const auto apps = v1::AppService::NewStub(server.NewChannel());
  test::Context context;
  const auto stream = apps->Attach(&context);
  v1::AttachRequest hello;
  hello.mutable_hello()->set_package("org.example.vpn");
  ASSERT_TRUE(stream->Write(hello));
  v1::AttachResponse told;
  ASSERT_TRUE(stream->Read(&told));
  ASSERT_TRUE(told.has_welcome());
  ASSERT_TRUE(server.Start().ok());
  ASSERT_TRUE(stream->Read(&told));
  ASSERT_TRUE(told.has_exit()) << told.ShortDebugString();
  EXPECT_EQ(told.exit().reason(), v1::EXIT_REASON_DEVICE_REMOVED);
  context.TryCancel();
}

}  // namespace
}  // namespace netstack::server

// DnsService against the real engine, with queries through a TUN in a network
// namespace of the test's own.
#include <arpa/inet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/wire/ip_address.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "netstack/v1/dns_service.grpc.pb.h"
#include "tests/server/test_server.h"
#include "tests/support/net_admin.h"

namespace netstack::test {
namespace {

using grpc::StatusCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kTun[] = "ns-dns0";

std::string Query(uint16_t id, const std::string& name, uint16_t type = 1) {
  std::string q{static_cast<char>(id >> 8),
                static_cast<char>(id & 0xFF),
                1,
                0,
                0,
                1,
                0,
                0,
                0,
                0,
                0,
                0};
  for (size_t at = 0; at < name.size();) {
    const size_t end = std::min(name.find('.', at), name.size());
    q += static_cast<char>(end - at) + name.substr(at, end - at);
    at = end + 1;
  }
  return q + std::string{0, static_cast<char>(type >> 8),
                         static_cast<char>(type & 0xFF), 0, 1};
}

// A name server that says 192.0.2.80 to everything, on an address of the
// loopback device.
class Upstream {
 public:
  Upstream() {
    fd_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    socklen_t size = sizeof at;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&at), &size);
    port_ = ntohs(at.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~Upstream() {
    shutdown(fd_, SHUT_RDWR);
    thread_.join();
    close(fd_);
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  void Serve() {
    char buffer[2048];
    sockaddr_in from{};
    while (true) {
      socklen_t size = sizeof from;
      const ssize_t n = recvfrom(fd_, buffer, sizeof buffer, 0,
                                 reinterpret_cast<sockaddr*>(&from), &size);
      if (n <= 0) return;
      std::string q(buffer, static_cast<size_t>(n));
      const size_t end = q.find('\0', 12) + 5;
      std::string a = q.substr(0, end);
      a[2] = '\x81';
      a[3] = '\x80';
      a[7] = 1;                  // one answer
      a[9] = a[10] = a[11] = 0;  // no other record
      a += std::string("\xC0\x0C\0\1\0\1\0\0\0\x3C\0\4\xC0\0\2\x50", 16);
      sendto(fd_, a.data(), a.size(), 0, reinterpret_cast<sockaddr*>(&from),
             size);
    }
  }

  int fd_ = -1;
  uint16_t port_ = 0;
  std::thread thread_;
};

class DnsServiceTest : public ::testing::Test {
 protected:
  void Start(const std::string& dns) {
    v1::Config config;
    config.mutable_tun()->set_name(kTun);
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
        "groups { name: 'up' upstreams { address: '" + upstream_.address() +
            "' } } " + dns,
        config.mutable_dns()));
    server_ = std::make_unique<TestServer>(config);
    const grpc::Status started = server_->Start();
    ASSERT_TRUE(started.ok()) << started.error_message();
    ASSERT_TRUE(AddAddress(kTun, IpAddress::V4(10, 78, 0, 2), 24).ok());
    ASSERT_TRUE(BringUp(kTun).ok());
    ASSERT_TRUE(AddDefaultRoute(kTun, true).ok());
    dns_ = v1::DnsService::NewStub(server_->NewChannel());
    app_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(setsockopt(app_, SOL_SOCKET, SO_BINDTODEVICE, kTun, sizeof kTun),
              0);
    timeval limit{10, 0};
    setsockopt(app_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  ~DnsServiceTest() override {
    if (app_ >= 0) close(app_);
  }

  // The answer to a query that an app sends to some server.
  std::string Ask(const std::string& name, uint16_t type = 1) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(53);
    inet_pton(AF_INET, "192.0.2.53", &to.sin_addr);
    const std::string q = Query(7, name, type);
    EXPECT_EQ(sendto(app_, q.data(), q.size(), 0,
                     reinterpret_cast<sockaddr*>(&to), sizeof to),
              static_cast<ssize_t>(q.size()))
        << strerror(errno);
    char buffer[4096];
    const ssize_t n = recv(app_, buffer, sizeof buffer, 0);
    EXPECT_GT(n, 0) << strerror(errno);
    return n > 0 ? std::string(buffer, static_cast<size_t>(n)) : "";
  }
  static int Rcode(const std::string& answer) {
    return answer.size() < 4 ? -1 : answer[3] & 15;
  }
  v1::ExplainResponse Explain(const v1::ExplainRequest& request) {
    Context context;
    v1::ExplainResponse response;
    const grpc::Status status = dns_->Explain(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  Upstream upstream_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<v1::DnsService::Stub> dns_;
  int app_ = -1;
};

TEST_F(DnsServiceTest, WatchTellsWhoAskedWhatAndWhatDecided) {
  Start(
      "rules { name: 'no ads' domains: '.ads.example' "
      "        action: DNS_RULE_ACTION_BLOCK } "
      "rules { name: 'moved' domains: 'old.example' "
      "        action: DNS_RULE_ACTION_REWRITE addresses: '192.0.2.9' }");
  Context context;
  auto stream = dns_->WatchQueries(&context, {});
  // Subscribed for certain: a query that is told was asked after the call.
  std::vector<v1::DnsQuery> seen;
  std::thread asker([&] {
    while (true) {
      if (Rcode(Ask("probe.example")) != 0) return;
      v1::Stats stats = server_->Stats();
      if (stats.dns().udp_queries() > 3) break;
    }
    Ask("x.ads.example");
    Ask("old.example");
    Ask("a.example");
    Ask("a.example");
    Ask("end.example");
  });
  v1::WatchQueriesResponse message;
  while (seen.empty() || seen.back().name() != "end.example") {
    ASSERT_TRUE(stream->Read(&message));
    EXPECT_EQ(message.lost(), 0u);
    for (const auto& q : message.queries()) {
      if (q.name() != "probe.example") seen.push_back(q);
    }
  }
  asker.join();
  ASSERT_EQ(seen.size(), 5u);
  EXPECT_EQ(seen[0].name(), "x.ads.example");
  EXPECT_EQ(seen[0].verdict(), v1::DNS_VERDICT_BLOCKED_BY_RULE);
  EXPECT_EQ(seen[0].matched(), "no ads");
  EXPECT_EQ(seen[0].app().address(), "10.78.0.2");
  EXPECT_EQ(seen[0].server().address(), "192.0.2.53");
  EXPECT_EQ(seen[0].type(), 1u);
  EXPECT_EQ(seen[1].verdict(), v1::DNS_VERDICT_REWRITTEN);
  EXPECT_THAT(seen[1].addresses(), ElementsAre("192.0.2.9"));
  EXPECT_EQ(seen[2].verdict(), v1::DNS_VERDICT_RESOLVED);
  EXPECT_EQ(seen[2].upstream(), upstream_.address());
  EXPECT_FALSE(seen[2].cached());
  EXPECT_THAT(seen[2].addresses(), ElementsAre("192.0.2.80"));
  EXPECT_TRUE(seen[3].cached());
  EXPECT_EQ(seen[3].upstream(), "");
  EXPECT_GT(seen[2].time().seconds(), 0);
}

TEST_F(DnsServiceTest, FiltersOfTheLog) {
  Start("rules { domains: 'b.example' action: DNS_RULE_ACTION_BLOCK }");
  Context context;
  v1::WatchQueriesRequest request;
  request.set_name_suffix("Example.");
  request.set_only_filtered(true);
  auto stream = dns_->WatchQueries(&context, request);
  std::atomic<bool> done{false};
  std::thread asker([&] {
    while (!done) {
      Ask("a.example");
      Ask("b.test");
      Ask("b.example");
    }
  });
  v1::WatchQueriesResponse message;
  ASSERT_TRUE(stream->Read(&message));
  done = true;
  asker.join();
  for (const auto& q : message.queries()) EXPECT_EQ(q.name(), "b.example");
  Context bad;
  request.set_app("x");
  auto refused = dns_->WatchQueries(&bad, request);
  EXPECT_FALSE(refused->Read(&message));
  EXPECT_EQ(refused->Finish().error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(DnsServiceTest, TheWatchEndsWithTheStack) {
  Start("");
  Context context;
  auto stream = dns_->WatchQueries(&context, {});
  std::thread stopper([&] { EXPECT_TRUE(server_->Stop().ok()); });
  v1::WatchQueriesResponse message;
  while (stream->Read(&message)) {
  }
  stopper.join();
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::FAILED_PRECONDITION);
}

TEST_F(DnsServiceTest, ExplainSaysWhyAndChangesNothing) {
  Start(
      "rules { name: 'office' domains: '.corp.example' "
      "        action: DNS_RULE_ACTION_FORWARD group: 'system' } "
      "rules { name: 'no ads' domains: 'ads.example' clients: '10.9.0.0/16' "
      "        action: DNS_RULE_ACTION_BLOCK } "
      "address_policy { enabled: true } leaks { block_dot: true }");
  v1::ExplainRequest request;
  request.set_name("www.example");
  v1::ExplainResponse response = Explain(request);
  EXPECT_EQ(response.verdict(), v1::DNS_VERDICT_RESOLVED);
  EXPECT_EQ(response.group(), "up");
  EXPECT_THAT(response.upstreams(), ElementsAre(upstream_.address()));
  request.set_name("x.corp.example");
  EXPECT_EQ(Explain(request).group(), "system");
  request.set_name("ads.example");
  EXPECT_EQ(Explain(request).verdict(), v1::DNS_VERDICT_RESOLVED);
  request.set_app("10.9.1.1");
  response = Explain(request);
  EXPECT_EQ(response.verdict(), v1::DNS_VERDICT_BLOCKED_BY_RULE);
  EXPECT_EQ(response.matched(), "no ads");
  ASSERT_GE(response.reasons_size(), 1);

  request.Clear();
  request.set_address("192.0.2.80:853");
  response = Explain(request);
  EXPECT_FALSE(response.permitted());
  EXPECT_EQ(response.reasons_size(), 2) << "both reasons are told";
  Ask("a.example");
  request.set_address("192.0.2.80:443");
  request.set_app("10.78.0.2");
  response = Explain(request);
  EXPECT_TRUE(response.permitted());
  EXPECT_EQ(response.led_by(), "a.example");
  const v1::Stats stats = server_->Stats();
  EXPECT_EQ(stats.dns().refused_unknown(), 0u);
  EXPECT_EQ(stats.dns().udp_queries(), 1u);

  for (const char* bad :
       {"", "name: 'a' address: '1.2.3.4'", "name: 'a..b'", "address: 'x'",
        "name: 'a' type: 70000", "name: 'a' app: 'x'"}) {
    Context context;
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(bad, &request));
    EXPECT_EQ(dns_->Explain(&context, request, &response).error_code(),
              StatusCode::INVALID_ARGUMENT)
        << bad;
  }
}

// parity.md, section 2, row 17.
TEST_F(DnsServiceTest, WhatDnsAnsweredIsKnownAfterARestart) {
  Start("address_policy { enabled: true }");
  Ask("a.example");
  Context context;
  v1::StopRequest stop;
  stop.set_restart(true);
  v1::StopResponse stopped;
  ASSERT_TRUE(server_->netstack().Stop(&context, stop, &stopped).ok());
  v1::ExplainRequest request;
  request.set_address("192.0.2.80:443");
  v1::ExplainResponse response = Explain(request);
  EXPECT_TRUE(response.permitted());
  EXPECT_EQ(response.led_by(), "a.example");
  request.set_address("192.0.2.81:443");
  EXPECT_FALSE(Explain(request).permitted());
}

TEST_F(DnsServiceTest, FlushForgets) {
  Start("");
  Ask("a.example");
  Ask("b.a.example");
  Ask("c.example");
  const auto flush = [&](const std::string& text) {
    v1::FlushCacheRequest request;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request));
    Context context;
    v1::FlushCacheResponse response;
    const grpc::Status status = dns_->FlushCache(&context, request, &response);
    return status.ok() ? static_cast<int>(response.answers())
                       : -static_cast<int>(status.error_code());
  };
  EXPECT_EQ(server_->Stats().dns().cache_entries(), 3u);
  EXPECT_EQ(flush("name: 'a.example'"), 1);
  EXPECT_EQ(flush("name: 'a.example' subdomains: true"), 1);
  EXPECT_EQ(flush("all: true"), 1);
  EXPECT_EQ(flush("all: true"), 0);
  EXPECT_EQ(flush(""), -StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(flush("name: 'a' all: true"), -StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(flush("subdomains: true all: true"), -StatusCode::INVALID_ARGUMENT);
}

TEST_F(DnsServiceTest, ListsAreReloadedAndABadOneChangesNothing) {
  TempDir dir;
  const std::string file = dir.File("ads");
  std::ofstream(file) << "0.0.0.0 ads.example\nnonsense line\n";
  Start("blocklists { name: 'ads' file: '" + file + "' }");
  EXPECT_THAT(Ask("ads.example"), HasSubstr(std::string("\0\4\0\0\0\0", 6)));
  const auto reload = [&] {
    Context context;
    v1::ReloadListsResponse response;
    const grpc::Status status = dns_->ReloadLists(&context, {}, &response);
    if (status.ok()) {
      EXPECT_EQ(response.lists_size(), 1);
      EXPECT_EQ(response.lists(0).name(), "ads");
      return std::to_string(response.lists(0).names());
    }
    return DetailsOf(status).info.reason();
  };
  std::ofstream(file) << "0.0.0.0 other.example\n||two.example^\n";
  EXPECT_EQ(reload(), "2");
  EXPECT_THAT(Ask("ads.example"), HasSubstr(std::string("\xC0\0\2\x50", 4)));
  EXPECT_THAT(Ask("x.two.example"), HasSubstr(std::string("\0\4\0\0\0\0", 6)));
  ASSERT_EQ(unlink(file.c_str()), 0);
  EXPECT_EQ(reload(), "LIST_REFUSED");
  EXPECT_THAT(Ask("x.two.example"), HasSubstr(std::string("\0\4\0\0\0\0", 6)))
      << "the list in use stays";
}

TEST_F(DnsServiceTest, UpstreamsTellTheirHealth) {
  Start("");
  Ask("a.example");
  Context context;
  v1::GetUpstreamsResponse response;
  ASSERT_TRUE(dns_->GetUpstreams(&context, {}, &response).ok());
  ASSERT_GE(response.upstreams_size(), 1);
  const v1::DnsUpstreamStatus& u = response.upstreams(0);
  EXPECT_EQ(u.address(), upstream_.address());
  EXPECT_THAT(u.groups(), ElementsAre("up"));
  EXPECT_EQ(u.transport(), v1::DNS_TRANSPORT_PLAIN);
  EXPECT_TRUE(u.up());
  EXPECT_EQ(u.answers(), 1u);
  EXPECT_TRUE(u.has_latency());
}

TEST_F(DnsServiceTest, WithoutAStackEveryRpcIsRefused) {
  TestServer server;
  auto dns = v1::DnsService::NewStub(server.NewChannel());
  Context a, b, c, d, e;
  v1::ExplainRequest explain;
  explain.set_name("a");
  v1::ExplainResponse explained;
  EXPECT_EQ(dns->Explain(&a, explain, &explained).error_code(),
            StatusCode::FAILED_PRECONDITION);
  v1::FlushCacheRequest flush;
  flush.set_all(true);
  v1::FlushCacheResponse flushed;
  EXPECT_EQ(dns->FlushCache(&b, flush, &flushed).error_code(),
            StatusCode::FAILED_PRECONDITION);
  v1::ReloadListsResponse reloaded;
  EXPECT_EQ(dns->ReloadLists(&c, {}, &reloaded).error_code(),
            StatusCode::FAILED_PRECONDITION);
  v1::GetUpstreamsResponse upstreams;
  EXPECT_EQ(dns->GetUpstreams(&d, {}, &upstreams).error_code(),
            StatusCode::FAILED_PRECONDITION);
  auto stream = dns->WatchQueries(&e, {});
  v1::WatchQueriesResponse message;
  EXPECT_FALSE(stream->Read(&message));
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::FAILED_PRECONDITION);
}

}  // namespace
}  // namespace netstack::test

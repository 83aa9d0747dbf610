// DNS over TLS and HTTPS against real servers on loopback: whom we believe,
// and what connections cost.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "core/dns/resolver.h"
#include "core/platform/clock.h"
#include "core/platform/poller.h"
#include "core/platform/sockets.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/dns/dns_rig.h"
#include "tests/core/dns/tls_server.h"

namespace netstack::test {
namespace {

using testing::Each;
using testing::HasSubstr;

// A resolver on the kernel's sockets and clock.
class RealRig {
 public:
  explicit RealRig(const DnsResolverOptions& options)
      : poller(*NewPoller()),
        sockets(NewSockets()),
        dialer(sockets.get(), Dialer::Options{}) {
    for (const DnsOptionsProblem& p : Validate(options)) {
      ADD_FAILURE() << p.field << ": " << p.problem;
    }
    Resolver::Parts parts;
    parts.dialer = &dialer;
    parts.poller = poller.get();
    parts.system_dns = &system_dns;
    parts.secret = {1, 2};
    resolver = Resolver::Create(parts, options, clock.Now());
  }
  ~RealRig() {
    resolver->Shutdown(clock.Now());
    resolver.reset();
    EXPECT_EQ(dialer.in_use(), 0u);
  }

  struct Answer {
    std::string message;
    DnsFailure failure = DnsFailure::kNone;
    int rcode = -1;
    std::string upstream;
    Duration latency{};
  };

  // Asks all at once and waits for every answer.
  std::vector<Answer> AskAll(const std::vector<std::string>& names) {
    std::vector<Answer> answers(names.size());
    size_t left = names.size();
    for (size_t i = 0; i < names.size(); ++i) {
      const std::string message = QueryText(names[i]);
      DnsQuestion q;
      q.message = AsBytes(message);
      q.transport = DnsTransport::kTcp;
      const auto result = resolver->Resolve(
          q, clock.Now(), [&left, &answers, i](const DnsReply& r) {
            answers[i] = Of(r);
            --left;
          });
      if (result.reply) {
        answers[i] = Of(*result.reply);
        --left;
      }
    }
    const Instant end = clock.Now() + seconds(20);
    while (left > 0 && clock.Now() < end) Turn(end);
    EXPECT_EQ(left, 0u) << "not all were answered";
    return answers;
  }
  Answer Ask(const std::string& name) { return AskAll({name})[0]; }

  // Until `d` is over.
  void Idle(Duration d) {
    const Instant end = clock.Now() + d;
    while (clock.Now() < end) Turn(end);
  }
  void Turn(Instant end) {
    std::array<PollEvent, 64> events;
    const size_t n = poller->Wait(
        clock.Now(), std::min(end, resolver->next_deadline()), events);
    for (size_t i = 0; i < n; ++i) resolver->OnSocket(events[i], clock.Now());
    resolver->OnTurn(clock.Now());
  }
  DnsUpstreamInfo Info(absl::string_view name) {
    for (const DnsUpstreamInfo& info : resolver->Upstreams(clock.Now())) {
      if (info.name == name) return info;
    }
    return {};
  }

  SystemClock clock;
  std::unique_ptr<Poller> poller;
  std::unique_ptr<Sockets> sockets;
  Dialer dialer;
  FakeSystemDns system_dns;
  std::unique_ptr<Resolver> resolver;

 private:
  static Answer Of(const DnsReply& r) {
    Answer a;
    a.message.assign(reinterpret_cast<const char*>(r.message.data()),
                     r.message.size());
    a.failure = r.failure;
    a.rcode = r.rcode;
    a.upstream = std::string(r.upstream);
    a.latency = r.latency;
    return a;
  }
};

std::string Ok(const std::string& query) {
  return AnswerText(query, "203.0.113.7");
}
bool IsOk(const RealRig::Answer& a) {
  return a.message.size() > 16 && a.rcode == 0 &&
         a.message.substr(a.message.size() - 4) ==
             std::string("\xCB\x00\x71\x07", 4);
}

// A folder of this test's own, with the authority's certificate in it.
class EncryptedTest : public testing::Test {
 protected:
  EncryptedTest() {
    char name[] = "/tmp/netstack-dns-test-XXXXXX";
    EXPECT_NE(mkdtemp(name), nullptr);
    folder = name;
    Write("ca.pem", authority.CertificatePem());
  }
  ~EncryptedTest() override {
    for (const std::string& file : files) unlink(file.c_str());
    rmdir(folder.c_str());
  }
  void Write(const std::string& name, const std::string& text) {
    files.push_back(folder + "/" + name);
    std::ofstream(files.back()) << text;
  }
  DnsUpstreamOptions Dot(uint16_t port) {
    DnsUpstreamOptions u =
        PlainUpstream("dot", "dns.test", DnsUpstreamKind::kTls);
    u.port = port;
    u.addresses = {IpAddress::V4(127, 0, 0, 1)};
    return u;
  }
  DnsUpstreamOptions Doh(uint16_t port) {
    DnsUpstreamOptions u = PlainUpstream(
        "doh", "https://dns.test:" + std::to_string(port) + "/dns-query",
        DnsUpstreamKind::kHttps);
    u.addresses = {IpAddress::V4(127, 0, 0, 1)};
    return u;
  }
  DnsResolverOptions With(std::vector<DnsUpstreamOptions> upstreams) {
    DnsResolverOptions o = OptionsOf(std::move(upstreams));
    o.ca_file = folder + "/ca.pem";
    o.query_timeout = seconds(3);
    return o;
  }

  const Certificate authority = MakeAuthority();
  const Certificate good = MakeCertificate(authority, {"DNS:dns.test"});
  std::string folder;
  std::vector<std::string> files;
};

// --- DoT --------------------------------------------------------------------

TEST_F(EncryptedTest, DotPoolsPipelinesAndResumes) {
  std::mutex mutex;
  std::vector<size_t> sizes;
  std::vector<std::string> queries;
  TlsServer server(good, "dot", ServeDot([&](const std::string& q) {
                     const std::lock_guard<std::mutex> lock(mutex);
                     sizes.push_back(q.size());
                     return Ok(q);
                   }));
  DnsResolverOptions o = With({Dot(server.port())});
  o.connection_idle = seconds(1);
  RealRig rig(o);
  std::vector<std::string> names;
  for (int i = 0; i < 50; ++i) {
    names.push_back("n" + std::to_string(i) + ".example.com");
  }
  for (const auto& a : rig.AskAll(names)) EXPECT_TRUE(IsOk(a));
  EXPECT_EQ(server.handshakes(), 1) << "one connection for all";
  EXPECT_THAT(server.names(), Each("dns.test"));
  {
    const std::lock_guard<std::mutex> lock(mutex);
    EXPECT_THAT(sizes, Each(128u)) << "padded (RFC 8467)";
  }
  EXPECT_TRUE(IsOk(rig.Ask("again.example.com")));
  EXPECT_EQ(server.handshakes(), 1);
  rig.Idle(milliseconds(1300));
  EXPECT_EQ(rig.dialer.in_use(), 0u) << "closed when idle";
  EXPECT_TRUE(IsOk(rig.Ask("later.example.com")));
  EXPECT_EQ(server.handshakes(), 2);
  EXPECT_EQ(server.resumed(), 1);
  EXPECT_EQ(rig.Info("dot").resumed, 1u);
  EXPECT_EQ(rig.Info("dot").connections, 2u);
}

TEST_F(EncryptedTest, DotAnswersInAnyOrder) {
  // Pairs are answered in reverse.
  auto held = std::make_shared<std::string>();
  TlsServer server(good, "dot", [held](SSL* ssl) {
    ServeDot([held, ssl](const std::string& q) -> std::string {
      if (held->empty()) {
        *held = q;
        return "";
      }
      const std::string first = std::exchange(*held, "");
      const std::string reply = Ok(q);
      WriteAll(ssl, DnsRig::Frame(reply));
      return Ok(first);
    })(ssl);
  });
  RealRig rig(With({Dot(server.port())}));
  for (const auto& a : rig.AskAll({"a.example.com", "b.example.com",
                                   "c.example.com", "d.example.com"})) {
    EXPECT_TRUE(IsOk(a));
  }
}

struct Refused {
  const char* what;
  CertificateOptions certificate;
  bool stranger;  // signed by somebody else
  bool wrong_pin;
  const char* error;
};
class EncryptedRefusalTest : public EncryptedTest,
                             public testing::WithParamInterface<Refused> {};
INSTANTIATE_TEST_SUITE_P(
    Certificates, EncryptedRefusalTest,
    testing::Values(
        Refused{"expired", {"DNS:dns.test", true}, false, false, "expired"},
        Refused{"name", {"DNS:other.test"}, false, false, ""},
        Refused{"stranger", {"DNS:dns.test"}, true, false, ""},
        Refused{"pin", {"DNS:dns.test"}, false, true, ""}),
    [](const auto& i) { return i.param.what; });

TEST_P(EncryptedRefusalTest, NotBelievedAndCounted) {
  const Certificate other = MakeAuthority();
  const Certificate certificate = MakeCertificate(
      GetParam().stranger ? other : authority, GetParam().certificate);
  std::atomic<int> asked{0};
  TlsServer dot(certificate, "dot", ServeDot([&](const std::string& q) {
                  ++asked;
                  return Ok(q);
                }));
  TlsServer doh(certificate, "http/1.1",
                ServeHttp([&](const std::string&, const std::string&) {
                  ++asked;
                  return std::string();
                }));
  DnsUpstreamOptions a = Dot(dot.port());
  DnsUpstreamOptions b = Doh(doh.port());
  if (GetParam().wrong_pin) {
    a.pins = b.pins = {MakeCertificate(authority, {}).Pin()};
  }
  RealRig rig(With({a, b}));
  const RealRig::Answer answer = rig.Ask("example.com");
  EXPECT_EQ(answer.rcode, 2);
  EXPECT_EQ(answer.failure, DnsFailure::kUnreachable);
  EXPECT_EQ(asked, 0) << "no question was sent";
  for (const char* name : {"dot", "doh"}) {
    EXPECT_GE(rig.Info(name).tls_failures, 1u) << name;
    EXPECT_THAT(rig.Info(name).last_error, HasSubstr("TLS failed")) << name;
    EXPECT_THAT(rig.Info(name).last_error, HasSubstr(GetParam().error));
    EXPECT_EQ(rig.Info(name).answers, 0u);
  }
}

TEST_F(EncryptedTest, RightPinAndAddressInCertificate) {
  const Certificate by_address = MakeCertificate(authority, {"IP:127.0.0.1"});
  TlsServer server(by_address, "dot", ServeDot(Ok));
  DnsUpstreamOptions u =
      PlainUpstream("dot", "127.0.0.1", DnsUpstreamKind::kTls);
  u.port = server.port();
  u.pins = {MakeCertificate(authority, {}).Pin(), by_address.Pin()};
  RealRig rig(With({u}));
  EXPECT_TRUE(IsOk(rig.Ask("example.com")));
  EXPECT_THAT(server.names(), Each("")) << "no SNI for addresses";
}

// Nobody is trusted without certificates to trust.
TEST_F(EncryptedTest, UnreadableStoreTrustsNobody) {
  TlsServer server(good, "dot", ServeDot(Ok));
  DnsResolverOptions o = With({Dot(server.port())});
  o.ca_file = folder + "/nothing.pem";
  RealRig rig(o);
  EXPECT_EQ(rig.Ask("example.com").rcode, 2);
  EXPECT_GE(rig.Info("dot").tls_failures, 1u);
}

// --- DoH --------------------------------------------------------------------

std::string HttpResponse(const std::string& body,
                         const std::string& status = "200 OK",
                         const std::string& type = "application/dns-message") {
  return "HTTP/1.1 " + status + "\r\nContent-Type: " + type +
         "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}

TEST_F(EncryptedTest, DohPost) {
  std::mutex mutex;
  std::string head;
  std::string body;
  TlsServer server(good, "http/1.1",
                   ServeHttp([&](const std::string& h, const std::string& b) {
                     const std::lock_guard<std::mutex> lock(mutex);
                     head = h;
                     body = b;
                     return HttpResponse(Ok(b));
                   }));
  DnsUpstreamOptions u = Doh(server.port());
  u.http_headers = {{"x-cd-host", "phone"}};
  setenv("https_proxy", "http://127.0.0.1:1", 1);  // not to be looked at
  RealRig rig(With({u}));
  EXPECT_TRUE(IsOk(rig.Ask("example.com")));
  unsetenv("https_proxy");
  const std::lock_guard<std::mutex> lock(mutex);
  EXPECT_THAT(head, HasSubstr("POST /dns-query HTTP/1.1\r\n"));
  EXPECT_THAT(head, HasSubstr("x-cd-host: phone\r\n"));
  EXPECT_THAT(head, HasSubstr("Content-Type: application/dns-message\r\n"));
  EXPECT_EQ(Number16At(body, 0), 0) << "the id is zero";
  EXPECT_EQ(body.size(), 128u) << "padded";
  EXPECT_THAT(server.names(), Each("dns.test"));
}

TEST_F(EncryptedTest, DohClosesWhenIdleAndResumes) {
  TlsServer server(good, "http/1.1",
                   ServeHttp([&](const std::string&, const std::string& q) {
                     return HttpResponse(Ok(q));
                   }));
  DnsResolverOptions o = With({Doh(server.port())});
  o.connection_idle = seconds(1);
  RealRig rig(o);
  EXPECT_TRUE(IsOk(rig.Ask("a.example.com")));
  EXPECT_TRUE(IsOk(rig.Ask("b.example.com")));
  EXPECT_EQ(server.handshakes(), 1);
  EXPECT_EQ(rig.dialer.in_use(), 1u);
  rig.Idle(milliseconds(1300));
  EXPECT_EQ(rig.dialer.in_use(), 0u);
  EXPECT_EQ(rig.resolver->next_deadline(), kNever);
  EXPECT_TRUE(IsOk(rig.Ask("c.example.com")));
  EXPECT_EQ(server.handshakes(), 2);
  EXPECT_EQ(server.resumed(), 1);
}

TEST_F(EncryptedTest, DohGet) {
  std::mutex mutex;
  std::string path;
  TlsServer server(good, "http/1.1",
                   ServeHttp([&](const std::string& h, const std::string&) {
                     const std::lock_guard<std::mutex> lock(mutex);
                     path = h.substr(0, h.find(" HTTP"));
                     std::string query;
                     absl::WebSafeBase64Unescape(
                         path.substr(path.find("dns=") + 4), &query);
                     return HttpResponse(Ok(query));
                   }));
  DnsUpstreamOptions u = Doh(server.port());
  u.http_get = true;
  RealRig rig(With({u}));
  EXPECT_TRUE(IsOk(rig.Ask("example.com")));
  const std::lock_guard<std::mutex> lock(mutex);
  EXPECT_THAT(path, HasSubstr("GET /dns-query?dns=AAAB"));
  EXPECT_EQ(path.find('=', path.find("dns=") + 4), std::string::npos);
}

struct BadResponse {
  const char* what;
  std::string status;
  std::string type;
  int body;  // 0: a good one, 1: to another question, 2: too large, 3: empty
};
class DohResponseTest : public EncryptedTest,
                        public testing::WithParamInterface<BadResponse> {};
INSTANTIATE_TEST_SUITE_P(
    Responses, DohResponseTest,
    testing::Values(
        BadResponse{"status", "503 Busy", "application/dns-message", 0},
        BadResponse{"redirect", "302 Found", "application/dns-message", 0},
        BadResponse{"type", "200 OK", "text/html", 0},
        BadResponse{"question", "200 OK", "application/dns-message", 1},
        BadResponse{"size", "200 OK", "application/dns-message", 2},
        BadResponse{"empty", "200 OK", "application/dns-message", 3}),
    [](const auto& i) { return i.param.what; });

TEST_P(DohResponseTest, IsNoAnswer) {
  const BadResponse& p = GetParam();
  TlsServer server(good, "http/1.1",
                   ServeHttp([&](const std::string&, const std::string& query) {
                     std::string body = Ok(query);
                     if (p.body == 1) body[13] = 'x';
                     if (p.body == 2) body.resize(70000);
                     if (p.body == 3) body.clear();
                     return HttpResponse(body, p.status, p.type);
                   }));
  TlsServer dot(good, "dot", ServeDot(Ok));
  RealRig rig(With({Doh(server.port()), Dot(dot.port())}));
  const RealRig::Answer answer = rig.Ask("example.com");
  EXPECT_TRUE(IsOk(answer)) << "the next one answers";
  EXPECT_EQ(answer.upstream, "dot");
  EXPECT_LT(answer.latency, milliseconds(900)) << "at once";
  EXPECT_EQ(rig.Info("doh").failures, 1u);
}

// A connection whose server went silent is not used for ever.
TEST_F(EncryptedTest, DohSilentConnectionIsLeft) {
  std::atomic<int> connections{0};
  TlsServer server(good, "http/1.1", [&](SSL* ssl) {
    const int number = ++connections;
    int answered = 0;
    ServeHttp([&](const std::string&, const std::string& q) {
      return number == 1 && answered++ > 0 ? std::string()
                                           : HttpResponse(Ok(q));
    })(ssl);
  });
  RealRig rig(With({Doh(server.port())}));
  EXPECT_TRUE(IsOk(rig.Ask("a.example.com")));
  const RealRig::Answer second = rig.Ask("b.example.com");
  EXPECT_TRUE(IsOk(second));
  EXPECT_LT(second.latency, seconds(2));
  const RealRig::Answer third = rig.Ask("c.example.com");
  EXPECT_TRUE(IsOk(third));
  EXPECT_LT(third.latency, milliseconds(200)) << "over the live one";
}

// The first address takes connections and says nothing: the next attempt goes
// to the second one, while the first is still under way.
TEST_F(EncryptedTest, DohSecondAddressWhenTheFirstIsSilent) {
  TlsServer server(good, "http/1.1",
                   ServeHttp([](const std::string&, const std::string& q) {
                     return HttpResponse(Ok(q));
                   }));
  const int silent = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(server.port());
  at.sin_addr.s_addr = htonl(0x7F000002);
  ASSERT_EQ(bind(silent, reinterpret_cast<sockaddr*>(&at), sizeof(at)), 0);
  ASSERT_EQ(listen(silent, 16), 0);
  DnsUpstreamOptions doh = Doh(server.port());
  doh.addresses = {IpAddress::V4(127, 0, 0, 2), IpAddress::V4(127, 0, 0, 1)};
  RealRig rig(With({doh}));
  const RealRig::Answer answer = rig.Ask("example.com");
  EXPECT_TRUE(IsOk(answer));
  EXPECT_LT(answer.latency, milliseconds(1900));
  close(silent);
}

TEST_F(EncryptedTest, RefusedPortFailsOverAtOnce) {
  TlsServer dot(good, "dot", ServeDot(Ok));
  RealRig rig(With({Doh(1), Dot(dot.port())}));
  const RealRig::Answer answer = rig.Ask("example.com");
  EXPECT_TRUE(IsOk(answer));
  EXPECT_LT(answer.latency, milliseconds(900));
}

TEST_F(EncryptedTest, NetworkChangeOpensAnew) {
  TlsServer dot(good, "dot", ServeDot(Ok));
  TlsServer doh(good, "http/1.1",
                ServeHttp([](const std::string&, const std::string& q) {
                  return HttpResponse(Ok(q));
                }));
  for (const bool https : {false, true}) {
    RealRig rig(With({https ? Doh(doh.port()) : Dot(dot.port())}));
    EXPECT_TRUE(IsOk(rig.Ask("a.example.com")));
    rig.resolver->OnNetworkChanged(rig.clock.Now());
    rig.Turn(rig.clock.Now());
    EXPECT_EQ(rig.dialer.in_use(), 0u);
    EXPECT_TRUE(IsOk(rig.Ask("b.example.com")));
    EXPECT_EQ(rig.Info(https ? "doh" : "dot").connections, 2u);
  }
}

}  // namespace
}  // namespace netstack::test

// Names: real clients through the TUN, a real resolver in srv.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The upstream's port: anything to port 53 on the wire is a leak.
constexpr uint16_t kUpstreamPort = 5300;

// What unbound answers by itself.
std::string UnboundConfig(const std::string& folder) {
  std::string config =
      "server:\n"
      "  directory: \"" +
      folder +
      "\"\n"
      "  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n"
      "  use-syslog: no\n  logfile: \"\"\n  do-daemonize: no\n"
      "  interface: 10.77.1.2@5300\n  interface: fd77:1::2@5300\n"
      "  interface: 10.77.2.2@5300\n"
      "  access-control: 0.0.0.0/0 allow\n  access-control: ::/0 allow\n"
      "  max-udp-size: 4096\n"
      "  local-zone: \"example.\" static\n"
      "  local-data: \"a.example. 60 IN A 10.77.1.2\"\n"
      "  local-data: \"a.example. 60 IN AAAA fd77:1::2\"\n"
      "  local-data: \"b.example. 60 IN A 10.77.1.3\"\n"
      "  local-data: \"b.example. 60 IN AAAA fd77:1::3\"\n"
      "  local-data: \"ads.example. 60 IN A 10.77.1.3\"\n"
      "  local-data: \"slow.example. 60 IN A 10.77.1.3\"\n"
      "  local-zone: \"many.example.\" redirect\n"
      "  local-data: \"many.example. 60 IN A 10.77.1.2\"\n"
      "  local-zone: \".\" static\n";
  // 3,600 and 60,000 bytes.
  for (int i = 0; i < 240; ++i) {
    const std::string text =
        "T" + std::to_string(1000 + i) + std::string(235, 'x');
    for (const char* name : {"large.example.", "huge.example."}) {
      if (i >= 15 && std::string(name) == "large.example.") continue;
      config += "  local-data: '" + std::string(name) + " 60 IN TXT \"" + text +
                "\"'\n";
    }
  }
  config += "remote-control:\n  control-enable: no\n";
  return config;
}

constexpr char kGroups[] =
    "dns { groups { name: 'up' upstreams { address: '10.77.1.2:5300' } } "
    "      groups { name: 'hole' upstreams { address: '10.77.66.1:5300' } } "
    "      rules { name: 'slow' domains: 'slow.example' "
    "              action: DNS_RULE_ACTION_FORWARD group: 'hole' } ";

class DnsTest : public testing::TestWithParam<const Family*> {
 protected:
  // Whatever a test does: of DNS nothing leaves but to its upstreams (R16).
  void TearDown() override {
    if (watch_ == nullptr) return;
    const std::string seen = EndWatch();
    EXPECT_THAT(seen, HasSubstr("\"leaks\": {}"));
  }
  void StartWatch() {
    std::vector<std::string> arguments = {"python3", kClient, "watch", "gs",
                                          files_ / "ready"};
    arguments.insert(arguments.end(), upstreams_.begin(), upstreams_.end());
    unlink((files_ / "ready").c_str());
    unlink((files_ / "watched").c_str());
    watch_ = std::make_unique<Process>(
        arguments,
        ProcessOptions{.ns = World().gw(), .output = files_ / "watched"});
    ASSERT_TRUE(Eventually([&] {
      return access((files_ / "ready").c_str(), F_OK) == 0;
    })) << ReadFile(files_ / "watched");
  }
  // What it saw.
  std::string EndWatch() {
    watch_->Signal(SIGTERM);
    EXPECT_TRUE(watch_->Wait(seconds(10)).has_value());
    watch_.reset();
    return ReadFile(files_ / "watched");
  }

  void Begin(const std::string& more = "", const std::string& rest = "") {
    StartUpstream();
    StartWatch();
    ServiceOptions options;
    options.config = std::string(kGroups) + more + " } " + rest;
    service_ = std::make_unique<Service>(options);
  }
  void StartUpstream() {
    WriteFile(files_ / "unbound.conf", UnboundConfig(files_.path()));
    upstream_ = std::make_unique<Process>(
        std::vector<std::string>{"unbound", "-c", files_ / "unbound.conf"},
        ProcessOptions{.ns = World().srv(), .output = files_ / "unbound.log"});
    ASSERT_TRUE(Eventually([&] {
      return !upstream_->running() ||
             Execute({"dig", "+time=1", "+tries=1", "-p", "5300", "@10.77.2.2",
                      "a.example"},
                     World().app())
                 .ok();
    })) << ReadFile(files_ / "unbound.log");
    ASSERT_TRUE(upstream_->running()) << ReadFile(files_ / "unbound.log");
  }
  Control& control() { return service_->control(); }

  // An address behind which nobody answers: whom the apps believe to ask.
  std::string Asked() const {
    return GetParam()->family == AF_INET ? "203.0.113.53" : "2001:db8::53";
  }
  // dig's output, which must be a success.
  std::string Dig(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(),
                     {"dig", "+time=6", "+tries=1", "@" + Asked()});
    const Output output = Execute(arguments, World().app());
    EXPECT_TRUE(output.ok()) << output.out << output.err;
    return output.out;
  }
  std::string Short(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "+short");
    return Dig(arguments);
  }
  std::string Python(std::vector<std::string> arguments,
                     const std::string& ns = "") {
    arguments.insert(arguments.begin(), {"python3", kClient});
    const Output output = Execute(arguments, ns.empty() ? World().app() : ns);
    EXPECT_TRUE(output.ok()) << output.err;
    return output.out;
  }

  static constexpr char kClient[] =
      NETSTACK_SOURCE_DIR "/tests/e2e/dns_client.py";
  TempDir files_;
  std::vector<std::string> upstreams_ = {"10.77.1.2:5300", "[fd77:1::2]:5300",
                                         "10.77.66.1:5300"};
  std::unique_ptr<Process> watch_;
  std::unique_ptr<Process> upstream_;
  std::unique_ptr<Service> service_;
};
INSTANTIATE_TEST_SUITE_P(Families, DnsTest, testing::Values(&kV4, &kV6),
                         FamilyName);

TEST_P(DnsTest, AnyServerAnswersOverUdpAndTcp) {
  Begin();
  EXPECT_EQ(Short({"a.example"}), "10.77.1.2\n");
  EXPECT_EQ(Short({"+tcp", "b.example"}), "10.77.1.3\n");
  EXPECT_EQ(Short({"a.example", "AAAA"}), "fd77:1::2\n");
  EXPECT_THAT(Dig({"nothing.example"}), HasSubstr("status: NXDOMAIN"));
  const v1::Stats stats = control().Stats();
  EXPECT_EQ(stats.dns().udp_queries(), 3u);
  EXPECT_EQ(stats.dns().tcp_queries(), 1u);
  EXPECT_EQ(stats.dns().connections_opened(), 1u);
}

TEST_P(DnsTest, KdigWithEdnsAndDnssec) {
  Begin();
  for (const std::vector<std::string>& how :
       {std::vector<std::string>{"+noedns"},
        {"+edns", "+bufsize=1232"},
        {"+dnssec"},
        {"+tcp", "+dnssec"},
        {"+cookie"},
        {"+padding=128"},
        {"+subnet=192.0.2.0/24"}}) {
    std::vector<std::string> arguments = {"kdig", "+time=6", "+retry=0",
                                          "@" + Asked(), "a.example"};
    arguments.insert(arguments.end(), how.begin(), how.end());
    const Output output = Execute(arguments, World().app());
    EXPECT_TRUE(output.ok()) << how[0] << output.err;
    EXPECT_THAT(output.out, HasSubstr("10.77.1.2")) << how[0];
    EXPECT_THAT(output.out, Not(HasSubstr("WARNING"))) << how[0] << output.out;
  }
}

// parity.md, section 2, row 13.
TEST_P(DnsTest, LargeAnswers) {
  Begin();
  // Without EDNS: TC, and over TCP all of it.
  EXPECT_THAT(Dig({"+noedns", "+ignore", "large.example", "TXT"}),
              HasSubstr("flags: qr tc"));
  EXPECT_THAT(Dig({"+noedns", "large.example", "TXT"}), HasSubstr("T1014"));
  EXPECT_GE(control().Stats().dns().truncated(), 2u);
  // With room for it, over the MTU: fragments, no TC.
  const std::string whole =
      Dig({"+bufsize=4096", "+ignore", "large.example", "TXT"});
  EXPECT_THAT(whole, Not(HasSubstr("flags: qr tc")));
  EXPECT_THAT(whole, HasSubstr("ANSWER: 15"));
  // 60 kB.
  const std::string huge = Dig({"+tcp", "huge.example", "TXT"});
  EXPECT_THAT(huge, HasSubstr("ANSWER: 240"));
  EXPECT_THAT(huge, HasSubstr("T1239"));
  // By itself: UDP, TC, TCP.
  EXPECT_THAT(Dig({"huge.example", "TXT"}), HasSubstr("ANSWER: 240"));
}

TEST_P(DnsTest, AHundredPipelinedOverTcp) {
  Begin();
  EXPECT_THAT(Python({"pipeline", Asked(), "100", "many.example"}),
              HasSubstr("\"answers\": 100, \"rcodes\": [0]"));
  EXPECT_EQ(control().Stats().dns().connections_opened(), 1u);
}

TEST_P(DnsTest, MalformedQueriesGetTheirCodeOrNothing) {
  Begin();
  const std::string result = Python({"malformed", Asked()});
  for (const char* answered :
       {"\"cut\": 1", "\"no_question\": 1", "\"two_questions\": 1",
        "\"looping_name\": 1", "\"notify\": 4", "\"transfer\": 5"}) {
    EXPECT_THAT(result, HasSubstr(answered));
  }
  for (const char* silent :
       {"\"an_answer\": null", "\"short\": null", "\"empty_text\": null"}) {
    EXPECT_THAT(result, HasSubstr(silent));
  }
  EXPECT_EQ(control().Stats().dns().malformed(), 6u);
  EXPECT_EQ(control().Drops(v1::DROP_REASON_DNS_NOT_QUERY), 3u);
}

// Rows 1 and 2: a query that hangs holds up nobody, and its late answer goes
// to nobody else.
TEST_P(DnsTest, ASlowQueryHoldsUpNobody) {
  Begin();
  Process slow({"dig", "+time=6", "+tries=1", "@" + Asked(), "slow.example"},
               {.ns = World().app(), .output = files_ / "slow"});
  const auto begin = Clock::now();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(Short({"a.example"}), "10.77.1.2\n");
  }
  EXPECT_LT(Clock::now() - begin, seconds(3));
  Server listener(World().srv(), [](Tcp& tcp) { tcp.Receive(1); },
                  {.port = 7000});
  Tcp app(World().app(), GetParam()->family);
  EXPECT_EQ(app.Connect(Address(GetParam()->tunnel, 7000)), 0) << "TCP goes on";
  EXPECT_TRUE(slow.Wait(seconds(10)).has_value());
  EXPECT_THAT(ReadFile(files_ / "slow"), HasSubstr("SERVFAIL"));
  EXPECT_THAT(Python({"same-id", Asked(), "slow.example", "b.example"}),
              HasSubstr("[\"b.example\", \"slow.example\"]"));
}

// 100 queries in flight while the first upstream is black-holed. Row 14.
TEST_P(DnsTest, ABlackHoledUpstreamCostsUnderTwoSeconds) {
  Begin(
      "groups { name: 'both' "
      "  upstreams { address: '10.77.66.1:5300' } "
      "  upstreams { address: '10.77.1.2:5300' } } default_group: 'both'");
  const std::string result = Python({"burst", Asked(), "100", "many.example"});
  EXPECT_THAT(result, HasSubstr("\"answers\": 100, \"rcodes\": [0]"));
  const double slowest =
      std::stod(result.substr(result.find("slowest\": ") + 10));
  EXPECT_LT(slowest, 2.0);
  RecordProperty("slowest_ms", static_cast<int>(slowest * 1000));
}

TEST_P(DnsTest, RulesAndListsDecideAndReload) {
  WriteFile(files_ / "ads.txt", "0.0.0.0 ads.example\n");
  Begin(
      "rules { name: 'nx' domains: '.b.example' "
      "        action: DNS_RULE_ACTION_BLOCK "
      "        block_answer: DNS_BLOCK_ANSWER_NXDOMAIN } "
      "rules { name: 'moved' domains: 'old.example' "
      "        action: DNS_RULE_ACTION_REWRITE addresses: '10.77.1.3' } "
      "blocklists { file: '" +
      (files_ / "ads.txt") + "' }");
  EXPECT_EQ(Short({"ads.example"}), "0.0.0.0\n");
  EXPECT_THAT(Dig({"b.example"}), HasSubstr("status: NXDOMAIN"));
  EXPECT_EQ(Short({"old.example"}), "10.77.1.3\n");
  EXPECT_EQ(Short({"a.example"}), "10.77.1.2\n");
  WriteFile(files_ / "ads.txt", "||a.example^\n");
  service_->process().Signal(SIGHUP);
  EXPECT_TRUE(Eventually([&] { return Short({"a.example"}) == "0.0.0.0\n"; }));
  EXPECT_EQ(Short({"ads.example"}), "10.77.1.3\n");
}

TEST_P(DnsTest, FlowsCarryTheNameThatLedThere) {
  Begin();
  const bool v4 = GetParam()->family == AF_INET;
  Short({"a.example", v4 ? "A" : "AAAA"});
  Server listener(World().srv(), [](Tcp& tcp) { tcp.Receive(1); },
                  {.port = 7000});
  Tcp app(World().app(), GetParam()->family);
  ASSERT_EQ(app.Connect(Address(GetParam()->tunnel, 7000)), 0);
  v1::FlowFilter filter;
  filter.set_name_suffix("example");
  const std::vector<v1::Flow> flows = control().Flows(filter);
  ASSERT_EQ(flows.size(), 1u);
  EXPECT_EQ(flows[0].name(), "a.example");
  filter.set_name_suffix("b.example");
  EXPECT_TRUE(control().Flows(filter).empty());
}

// Row 17, and the ways around.
TEST_P(DnsTest, OnlyWhatDnsAnswered) {
  Begin(
      "address_policy { enabled: true exempt: '10.77.2.0/24' } "
      "leaks { block_dot: true }");
  Server listener(World().srv(), [](Tcp& tcp) { tcp.Receive(1); },
                  {.port = 7000});
  const auto connect = [&](uint16_t port) {
    Tcp app(World().app(), GetParam()->family);
    return app.Connect(Address(GetParam()->tunnel, port));
  };
  const auto begin = Clock::now();
  EXPECT_EQ(connect(7000), ECONNREFUSED);
  EXPECT_LT(Clock::now() - begin, seconds(1)) << "refused at once";
  Short({"a.example"});
  Short({"a.example", "AAAA"});
  EXPECT_EQ(connect(7000), 0);
  EXPECT_EQ(connect(853), ECONNREFUSED);
  EXPECT_EQ(control().Drops(v1::DROP_REASON_ADDRESS_NOT_RESOLVED), 1u);
  EXPECT_EQ(control().Drops(v1::DROP_REASON_DOT_BLOCKED), 1u);
}

// R7: the table is full, and names resolve.
TEST_P(DnsTest, AFullFlowTableDoesNotStarveNames) {
  Begin("", "limits { max_flows: 4 }");
  Server listener(World().srv(), [](Tcp& tcp) { tcp.Receive(1); },
                  {.port = 7000});
  std::vector<std::unique_ptr<Tcp>> flows;
  for (int i = 0; i < 6; ++i) {
    flows.push_back(std::make_unique<Tcp>(World().app(), GetParam()->family));
    (void)flows.back()->Connect(Address(GetParam()->tunnel, 7000));
  }
  EXPECT_GE(control().Drops(v1::DROP_REASON_FLOW_TABLE_FULL), 2u);
  EXPECT_THAT(Python({"burst", Asked(), "200", "many.example"}),
              HasSubstr("\"answers\": 200, \"rcodes\": [0]"));
  EXPECT_EQ(Short({"+tcp", "a.example"}), "10.77.1.2\n");
}

// R16: on the wire nothing but what goes to the configured upstream, whose port
// is another one here; and the watch of every test here sees what does.
TEST_P(DnsTest, NothingLeaks) {
  Begin("leaks { block_dot: true }");
  for (const char* name : {"a.example", "nothing.example", "slow.example"}) {
    (void)Execute({"dig", "+time=1", "+tries=2", "@" + Asked(), name},
                  World().app());
    (void)Execute({"dig", "+tcp", "+time=1", "+tries=1", "@" + Asked(), name},
                  World().app());
  }
  (void)Execute(
      {"kdig", "+tls", "+time=1", "+retry=0", "@" + Asked(), "a.example"},
      World().app());
  Python({"malformed", Asked()});
  EXPECT_GT(control().Stats().dns().udp_queries(), 3u);
  const std::string seen = EndWatch();
  EXPECT_THAT(seen, HasSubstr("\"leaks\": {}"));
  EXPECT_THAT(seen, Not(HasSubstr("\"upstream\": 0")));
  // By a path around the service: to port 53, and a query to another port.
  StartWatch();
  for (const char* port : {"53", "5301"}) {
    (void)Execute(
        {"dig", "+time=1", "+tries=1", "-p", port, "@10.77.1.3", "a.example"},
        World().gw());
  }
  EXPECT_THAT(EndWatch(), HasSubstr("\"leaks\": {\"10.77.1.3:53\": 1, "
                                    "\"10.77.1.3:5301\": 1}"));
}

// R16: a TUN without IPv6 lets none out, whatever apps and names try.
TEST_P(DnsTest, NoIpv6WhenItIsOff) {
  StartUpstream();
  StartWatch();
  ServiceOptions options;
  options.config = std::string(kGroups) + " } ";
  options.start = false;
  service_ = std::make_unique<Service>(options);
  ASSERT_TRUE(control().Update("tun { prefixes: '10.10.0.0/24' }").ok());
  service_->StartStack();
  const auto dig = [&](const std::string& server, const char* type) {
    return Execute({"dig", "+short", "+time=1", "+tries=1", "@" + server,
                    "a.example", type},
                   World().app())
        .out;
  };
  EXPECT_EQ(dig("203.0.113.53", "AAAA"), "fd77:1::2\n");
  EXPECT_THAT(dig("2001:db8::53", "A"), HasSubstr("no servers"));
  Tcp app(World().app(), AF_INET6);
  EXPECT_EQ(app.ConnectStart(Address("fd77:1::2", 7000)), EINPROGRESS);
  (void)Execute({"ping", "-c", "1", "-W", "1", "fd77:1::2"}, World().app());
  EXPECT_GE(control().Drops(v1::DROP_REASON_SOURCE_NOT_OURS), 3u);
  const std::string seen = EndWatch();
  EXPECT_THAT(seen, HasSubstr("\"leaks\": {}, \"ipv6\": 0"));
  EXPECT_THAT(seen, Not(HasSubstr("\"upstream\": 0")));
}

// R17: 100,000 forged answers, half of them to the right port; none is
// believed, and every question is answered all the same.
TEST_P(DnsTest, ForgedAnswersAreNotBelieved) {
  const bool v4 = GetParam()->family == AF_INET;
  const std::string at = v4 ? "10.77.1.2" : "fd77:1::2";
  const std::string upstream = (v4 ? at : "[" + at + "]") + ":5399";
  upstreams_.push_back(upstream);
  Process forger({"python3", kClient, "forge", at, "5399", "1000", "10.77.1.2"},
                 {.ns = World().srv(), .output = files_ / "forged"});
  Begin("groups { name: 'forged' upstreams { address: '" + upstream +
        "' } } default_group: 'forged'");
  // Fewer at once than there are sockets, so that each has one of its own.
  for (int wave = 0; wave < 5; ++wave) {
    const std::string result =
        Python({"burst", Asked(), "25",
                "letters-enough-that-nobody-guesses-their-case.wave" +
                    std::to_string(wave) + ".example"});
    EXPECT_THAT(result, HasSubstr("\"answers\": 25, \"rcodes\": [0]"));
    EXPECT_THAT(result, HasSubstr("\"addresses\": [\"10.77.1.2\"]"));
  }
  forger.Signal(SIGTERM);
  ASSERT_TRUE(forger.Wait(seconds(20)).has_value());
  const std::string seen = ReadFile(files_ / "forged");
  const auto number = [&](const std::string& what) {
    const size_t begin = seen.find("\"" + what + "\": ");
    return begin == std::string::npos
               ? 0
               : std::stoi(seen.substr(begin + what.size() + 4));
  };
  EXPECT_GE(number("forged"), 100'000) << seen;
  EXPECT_GE(number("tcp"), 125) << "who is being forged asks over TCP";
}

// Row 16: QUIC that a rule forbids is refused at once, so that apps take TCP,
// and only where the rule says so.
TEST_P(DnsTest, ForbiddenQuicIsRefusedAndTcpFollows) {
  Begin("leaks { block_quic: DNS_QUIC_BLOCK_BY_NAME quic_names: 'a.example' }");
  Process echo({"python3", kClient, "echo", "443", "10.77.1.2", "10.77.1.3",
                "fd77:1::2", "fd77:1::3"},
               {.ns = World().srv(), .output = files_ / "echo"});
  Server listener(World().srv(), [](Tcp& tcp) { tcp.Receive(1); },
                  {.port = 443});
  ASSERT_TRUE(Eventually([&] {
    return Python({"quic", Asked(), "b.example", "443"}).find("answered") !=
           std::string::npos;
  }));
  EXPECT_EQ(control().Drops(v1::DROP_REASON_QUIC_BLOCKED), 0u);
  const std::string result = Python({"quic", Asked(), "a.example", "443"});
  EXPECT_THAT(result, HasSubstr("\"quic\": \"refused\", \"tcp\": "
                                "\"connected\""));
  const double took = std::stod(result.substr(result.find("seconds\": ") + 10));
  EXPECT_LT(took, 1.0) << "an ICMP error, and no timer of the app's";
  EXPECT_GE(control().Drops(v1::DROP_REASON_QUIC_BLOCKED), 1u);
  EXPECT_TRUE(echo.running()) << ReadFile(files_ / "echo");
}

// Row 3: stopping while queries are under way, over UDP and TCP.
TEST_P(DnsTest, StopsAndStartsWhileNamesAreUnderWay) {
  Begin();
  const pid_t pid = service_->process().pid();
  for (int i = 0; i < 5; ++i) {
    Process udp({"python3", kClient, "burst", Asked(), "500", "slow.example"},
                {.ns = World().app(), .output = files_ / "udp"});
    Process tcp(
        {"python3", kClient, "pipeline", Asked(), "100", "slow.example"},
        {.ns = World().app(), .output = files_ / "tcp"});
    ASSERT_TRUE(
        Eventually([&] { return control().Stats().dns().waiting() >= 100; }));
    const auto begin = Clock::now();
    ASSERT_TRUE(control().Stop().ok());
    EXPECT_LT(Clock::now() - begin, seconds(5));
    service_->StartStack();
    EXPECT_EQ(Short({"a.example"}), "10.77.1.2\n");
  }
  EXPECT_EQ(service_->process().pid(), pid);
  EXPECT_TRUE(service_->process().running());
}

}  // namespace
}  // namespace netstack::e2e

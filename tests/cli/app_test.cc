// The whole of netstackctl against a service in process.
#include "clients/cli/app.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "tests/cli/fake_service.h"

namespace netstack::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

struct Result {
  int code = -1;
  std::string out;
  std::string err;
};

Result RunCtl(const std::vector<std::string>& args, bool tty = false) {
  std::ostringstream out, err;
  Console console{.out = &out, .err = &err, .tty = tty};
  Result result;
  result.code = RunCli(args, console);
  result.out = out.str();
  result.err = err.str();
  return result;
}

class AppTest : public ::testing::Test {
 protected:
  Result Ctl(std::vector<std::string> args, bool tty = false) {
    args.insert(args.end(), {"--socket", service_.socket()});
    return RunCtl(args, tty);
  }

  void AddFlow(uint64_t id, uint64_t bytes) {
    netstack::v1::Flow flow;
    flow.set_id(id);
    flow.set_outbound_bytes(bytes);
    service_.flows.push_back(flow);
  }

  template <typename Message>
  static Message Parse(const std::string& text) {
    Message message;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message));
    return message;
  }

  FakeService service_;
};

// A JSON document that is one message.
template <typename Message>
Message FromJson(const std::string& json) {
  Message message;
  const auto status =
      google::protobuf::util::JsonStringToMessage(json, &message);
  EXPECT_TRUE(status.ok()) << status.ToString() << "\n" << json;
  return message;
}

TEST_F(AppTest, StartTellsTheTun) {
  service_.status.mutable_tun()->set_name("tun7");
  const Result result = Ctl({"start"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("Started on tun7"));
}

TEST_F(AppTest, StopTellsWhatItDid) {
  EXPECT_EQ(Ctl({"stop"}).out, "Stopped.\n");
}

TEST_F(AppTest, StatusIsTheRpcsAnswerInJson) {
  service_.status.set_config_revision(5);
  const Result result = Ctl({"status", "--json"});
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.out, HasSubstr("\"config_revision\": \"5\""));
  const auto answer = FromJson<netstack::v1::GetStatusResponse>(result.out);
  EXPECT_EQ(answer.status().config_revision(), 5u);
}

TEST_F(AppTest, StatsPrintsGroupsAndNoColourIntoAPipe) {
  const Result result = Ctl({"stats"});
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.out, HasSubstr("outbound packets"));
  EXPECT_THAT(result.out, Not(HasSubstr("\x1b")));
}

TEST_F(AppTest, WatchedStatsAreOneLineEachWithRates) {
  const Result result = Ctl({"stats", "--watch"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, StartsWith("TIME "));
  EXPECT_THAT(result.out, HasSubstr("00:01:41"));
  EXPECT_THAT(result.out, HasSubstr("10.0/s"));
}

TEST_F(AppTest, WatchedStatsInJsonAreOneObjectPerLine) {
  std::istringstream lines(Ctl({"--json", "stats", "--watch", "200ms"}).out);
  int readings = 0;
  for (std::string line; std::getline(lines, line); ++readings) {
    FromJson<netstack::v1::WatchStatsResponse>(line);
  }
  EXPECT_EQ(readings, 2);
}

TEST_F(AppTest, WatchedStatsRedrawATerminal) {
  const Result result = Ctl({"stats", "--watch"}, /*tty=*/true);
  EXPECT_THAT(result.out, StartsWith("\x1b[2J\x1b[H"));
  EXPECT_THAT(result.out, HasSubstr("RATE"));
}

TEST_F(AppTest, CtrlCEndsAWatchWithoutError) {
  service_.streams_end = false;
  const auto old = std::signal(SIGINT, SIG_IGN);  // Outside of the watch.
  for (const bool tty : {false, true}) {
    service_.streaming = false;
    std::thread ctrl_c([this] {
      service_.streaming.wait(false);
      kill(getpid(), SIGINT);
    });
    const Result result = Ctl({"flows", "--watch"}, tty);
    ctrl_c.join();
    EXPECT_EQ(result.code, 0);
    EXPECT_THAT(result.err, IsEmpty());
  }
  std::signal(SIGINT, old);
}

TEST_F(AppTest, FlowsJoinsAllPages) {
  for (uint64_t id = 1; id <= 7; ++id) AddFlow(id, id);
  service_.page = 3;
  const Result result = Ctl({"flows", "--json"});
  EXPECT_EQ(result.code, 0);
  const auto answer = FromJson<netstack::v1::ListFlowsResponse>(result.out);
  ASSERT_EQ(answer.flows_size(), 7);
  EXPECT_EQ(answer.flows(6).id(), 7u);
  EXPECT_EQ(answer.next_after_id(), 0u);
}

TEST_F(AppTest, FlowsSortsAndLimits) {
  AddFlow(1, 10);
  AddFlow(2, 30);
  AddFlow(3, 20);
  const auto answer = FromJson<netstack::v1::ListFlowsResponse>(
      Ctl({"flows", "--json", "--sort", "bytes", "-n", "2"}).out);
  ASSERT_EQ(answer.flows_size(), 2);
  EXPECT_EQ(answer.flows(0).id(), 2u);
  EXPECT_EQ(answer.flows(1).id(), 3u);
}

TEST_F(AppTest, FlowsSendsItsFilter) {
  EXPECT_EQ(Ctl({"flows", "--remote", "[2001:db8::1]:443"}).code, 0);
  EXPECT_EQ(service_.list_request.filter().remote(), "2001:db8::1");
  EXPECT_EQ(service_.list_request.filter().remote_port(), 443u);
}

TEST_F(AppTest, WatchedFlowsAreALineForEachChange) {
  using netstack::v1::WatchFlowsResponse;
  service_.flow_messages = {
      Parse<WatchFlowsResponse>("snapshot { flows { id: 41 } }"),
      Parse<WatchFlowsResponse>("end_of_snapshot { flows: 1 }"),
      Parse<WatchFlowsResponse>(
          R"pb(changes {
                 changes {
                   type: FLOW_CHANGE_TYPE_CLOSED
                   flow { id: 41 close_reason: CLOSE_REASON_APP_RESET }
                 }
               })pb"),
      Parse<WatchFlowsResponse>("loss { changes: 3 }")};
  const Result result = Ctl({"flows", "--watch"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("flow          41"));
  EXPECT_THAT(result.out, HasSubstr("closed        41"));
  EXPECT_THAT(result.out, HasSubstr("app-reset"));
  EXPECT_THAT(result.out, HasSubstr("lost 3 changes"));
}

TEST_F(AppTest, WatchEndsWithTheServicesReason) {
  service_.stream_end = NotRunningRefusal();
  const Result result = Ctl({"flows", "--watch"}, /*tty=*/true);
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("not running"));
}

TEST_F(AppTest, CloseNeedsAFilterOrAll) {
  EXPECT_EQ(Ctl({"close"}).code, 2);
  EXPECT_EQ(Ctl({"close", "--all", "--id", "3"}).code, 2);
  EXPECT_FALSE(service_.close_request.all());
  AddFlow(3, 0);
  EXPECT_EQ(Ctl({"close", "--id", "3"}).out, "Closed 1 flow.\n");
  EXPECT_EQ(service_.close_request.filter().id(), 3u);
  EXPECT_FALSE(service_.close_request.all());
  EXPECT_EQ(Ctl({"close", "--all"}).code, 0);
  EXPECT_TRUE(service_.close_request.all());
  EXPECT_FALSE(service_.close_request.has_filter());
}

TEST_F(AppTest, ConfigGetShowsDefaultsAndSingleValues) {
  service_.config = Parse<netstack::v1::GetConfigResponse>(
      R"pb(config { tun { mtu: 9000 } }
           effective {
             tun { mtu: 9000 }
             tcp { dial_timeout { seconds: 30 } }
           }
           revision: 4
           pending_restart: "tun.mtu")pb");
  EXPECT_EQ(Ctl({"config", "get", "tcp.dial_timeout"}).out, "30s\n");
  EXPECT_EQ(Ctl({"config", "get", "--textproto"}).out,
            "tun {\n  mtu: 9000\n}\n");
  const std::string all = Ctl({"config", "get"}).out;
  EXPECT_THAT(all, HasSubstr("waits for a restart"));
  EXPECT_THAT(all, HasSubstr("Revision 4."));
  EXPECT_THAT(Ctl({"config", "get", "tcp"}).out, Not(HasSubstr("tun.mtu")));
  const auto json = FromJson<netstack::v1::GetConfigResponse>(
      Ctl({"config", "get", "tcp", "--json"}).out);
  EXPECT_FALSE(json.config().has_tun());
  EXPECT_EQ(json.effective().tcp().dial_timeout().seconds(), 30);
}

TEST_F(AppTest, ConfigSetSendsMaskRevisionAndDryRun) {
  service_.updated =
      Parse<netstack::v1::UpdateConfigResponse>(
          R"pb(revision: 4
               applied: "tcp.dial_timeout"
               pending_restart: "tun.mtu")pb");
  const Result result = Ctl({"config", "set", "tcp.dial_timeout=5s",
                             "tun.mtu=9000", "--revision", "3", "--dry-run"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(service_.update_request.update_mask().paths(),
              ElementsAre("tcp.dial_timeout", "tun.mtu"));
  EXPECT_EQ(service_.update_request.revision(), 3u);
  EXPECT_TRUE(service_.update_request.validate_only());
  EXPECT_EQ(service_.update_request.config().tun().mtu(), 9000u);
  EXPECT_EQ(result.out,
            "Dry run: nothing was changed.\n"
            "Would take effect at once: tcp.dial_timeout\n"
            "Needs a restart of the stack: tun.mtu\n"
            "  (netstackctl stop && netstackctl start)\n"
            "Revision 4.\n");
}

TEST_F(AppTest, ConfigApplyReplacesTheWhole) {
  const std::string file =
      ::testing::TempDir() + "netstackctl-apply-" + std::to_string(getpid());
  std::ofstream(file) << "{\"tun\": {\"mtu\": 1400}}";
  EXPECT_EQ(Ctl({"config", "apply", file}).code, 0);
  EXPECT_THAT(service_.update_request.update_mask().paths(), ElementsAre("*"));
  EXPECT_EQ(service_.update_request.config().tun().mtu(), 1400u);
  std::ofstream(file) << "";
  EXPECT_EQ(Ctl({"config", "apply", file}).code, 2);
  EXPECT_EQ(Ctl({"config", "apply", "/"}).code, 2);
  unlink(file.c_str());
}

TEST_F(AppTest, EventsEndAtTheMarkUnlessWatched) {
  using netstack::v1::WatchEventsResponse;
  service_.event_messages = {
      Parse<WatchEventsResponse>(
          R"pb(event {
                 sequence: 1
                 time { seconds: 1714566896 }
                 type: EVENT_TYPE_STACK_STARTED
                 message: "The stack runs."
               })pb"),
      Parse<WatchEventsResponse>("end_of_replay { sequence: 1 }"),
      Parse<WatchEventsResponse>("event { sequence: 2 message: 'later' }")};
  EXPECT_EQ(Ctl({"events"}).out,
            "   1  2024-05-01 12:34:56  stack-started     The stack runs.\n");
  EXPECT_THAT(Ctl({"events", "--watch"}).out, HasSubstr("later"));
}

TEST_F(AppTest, StopSendsThePinAsItWasTyped) {
  EXPECT_THAT(Ctl({"stop", "--pin", "0042"}).out, HasSubstr("Stopped."));
  EXPECT_EQ(service_.stop_request.pin(), "0042");
  EXPECT_FALSE(service_.stop_request.restart());
  EXPECT_THAT(Ctl({"stop", "--restart"}).out,
              HasSubstr("Stopped and started."));
  EXPECT_TRUE(service_.stop_request.restart());
}

TEST_F(AppTest, DnsLogIsALineForEachQuery) {
  service_.query_messages.push_back(
      Parse<netstack::v1::WatchQueriesResponse>(
          "queries { time { seconds: 3600 } app { address: '10.0.0.2' } "
          "  name: 'ads.example' type: 65 "
          "  verdict: DNS_VERDICT_BLOCKED_BY_LIST matched: 'ads: ads.example' "
          "  latency { nanos: 20000 } } "
          "queries { name: 'a.example' type: 1 verdict: DNS_VERDICT_RESOLVED "
          "  upstream: 'https://dns.example/q' addresses: '192.0.2.1' "
          "  addresses: '192.0.2.2' } "
          "queries { name: 'b.example' type: 28 verdict: DNS_VERDICT_FAILED "
          "  rcode: 2 }"));
  service_.query_messages.push_back(
      Parse<netstack::v1::WatchQueriesResponse>("lost: 4"));
  const Result result =
      Ctl({"dns", "log", "example", "--filtered", "--app", "10.0.0.0/8"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("01:00:00"));
  EXPECT_THAT(result.out, HasSubstr("HTTPS"));
  EXPECT_THAT(result.out, HasSubstr("blocked-by-list"));
  EXPECT_THAT(result.out, HasSubstr("ads: ads.example"));
  EXPECT_THAT(result.out, HasSubstr("192.0.2.1 +1"));
  EXPECT_THAT(result.out, HasSubstr("SERVFAIL"));
  EXPECT_THAT(result.out, HasSubstr("lost 4 queries"));
  EXPECT_EQ(service_.queries_request.name_suffix(), "example");
  EXPECT_EQ(service_.queries_request.app(), "10.0.0.0/8");
  EXPECT_TRUE(service_.queries_request.only_filtered());
  const Result json = Ctl({"dns", "log", "--json"});
  EXPECT_THAT(json.out, HasSubstr("\"name\":\"ads.example\""));
}

TEST_F(AppTest, DnsExplainTellsNamesFromAddresses) {
  service_.explained = Parse<netstack::v1::ExplainResponse>(
      "verdict: DNS_VERDICT_RESOLVED group: 'up' upstreams: '192.0.2.1' "
      "reasons: 'nothing mentions the name'");
  Result result =
      Ctl({"dns", "explain", "a.example", "--type", "aaaa", "--app", "fd::1"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("a.example: resolved"));
  EXPECT_THAT(result.out, HasSubstr("nothing mentions the name"));
  EXPECT_THAT(result.out, HasSubstr("Group up would be asked: 192.0.2.1."));
  EXPECT_EQ(service_.explain_request.type(), 28u);
  EXPECT_EQ(service_.explain_request.app(), "fd::1");
  service_.explained.Clear();
  for (const char* address :
       {"192.0.2.1", "192.0.2.1:443", "2001:db8::1", "[2001:db8::1]:443"}) {
    result = Ctl({"dns", "explain", address, "--udp"});
    EXPECT_THAT(result.out, HasSubstr("refused"));
    EXPECT_EQ(service_.explain_request.address(), address);
    EXPECT_EQ(service_.explain_request.protocol(), netstack::v1::PROTOCOL_UDP);
  }
  EXPECT_EQ(Ctl({"dns", "explain", "a", "--type", "BOGUS"}).code, 2);
}

TEST_F(AppTest, DnsFlushNeedsANameOrAll) {
  EXPECT_EQ(Ctl({"dns", "flush"}).code, 2);
  EXPECT_EQ(Ctl({"dns", "flush", "a", "--all"}).code, 2);
  EXPECT_EQ(Ctl({"dns", "flush", "--subdomains", "--all"}).code, 2);
  EXPECT_THAT(Ctl({"dns", "flush", "a.example", "--subdomains"}).out,
              HasSubstr("Forgot 3 answers."));
  EXPECT_EQ(service_.flush_request.name(), "a.example");
  EXPECT_TRUE(service_.flush_request.subdomains());
  EXPECT_EQ(Ctl({"dns", "flush", "--all"}).code, 0);
  EXPECT_TRUE(service_.flush_request.all());
}

TEST_F(AppTest, DnsUpstreamsAndReload) {
  service_.upstreams = Parse<netstack::v1::GetUpstreamsResponse>(
      "upstreams { address: 'tls://dns.example' groups: 'a' groups: 'b' "
      "  up: true latency { nanos: 12000000 } queries: 5 } "
      "upstreams { address: '192.0.2.9' last_error: 'refused' } "
      "lists { name: 'ads' names: 1000000 }");
  Result result = Ctl({"dns", "upstreams"});
  EXPECT_THAT(result.out, HasSubstr("tls://dns.example"));
  EXPECT_THAT(result.out, HasSubstr("a,b"));
  EXPECT_THAT(result.out, HasSubstr("down"));
  EXPECT_THAT(result.out, HasSubstr("refused"));
  EXPECT_THAT(result.out, HasSubstr("BLOCKLIST"));
  service_.reloaded = Parse<netstack::v1::ReloadListsResponse>(
      "lists { name: 'ads' names: 1 exceptions: 2 skipped_lines: 3 }");
  EXPECT_EQ(Ctl({"dns", "reload"}).out,
            "ads: 1 name, 2 exceptions, 3 lines skipped\n");
}

TEST_F(AppTest, RefusalsNameEveryField) {
  service_.refusal = BadFieldRefusal("The config is refused.");
  const Result result = Ctl({"config", "set", "tun.mtu=1"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.out, IsEmpty());
  EXPECT_EQ(result.err,
            "netstackctl: The config is refused.\n"
            "  tun.mtu: must be 1280 to 65535\n"
            "  tcp.dial_timeout: must be 0.1 s to 10 min\n");
}

TEST_F(AppTest, RefusalsWhoseMessageIsAllFieldsAreTakenApart) {
  service_.refusal = BadFieldRefusal(
      "tun.mtu: must be 1280 to 65535; "
      "tcp.dial_timeout: must be 0.1 s to 10 min");
  EXPECT_EQ(Ctl({"config", "set", "tun.mtu=1"}).err,
            "netstackctl: 2 fields are refused\n"
            "  tun.mtu: must be 1280 to 65535\n"
            "  tcp.dial_timeout: must be 0.1 s to 10 min\n");
}

TEST_F(AppTest, RefusalsInJsonAreAStatusWithDetails) {
  service_.refusal = NotRunningRefusal();
  const Result result = Ctl({"flows", "--json"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.out, IsEmpty());
  EXPECT_THAT(result.err, HasSubstr("\"code\":9"));
  EXPECT_THAT(result.err, HasSubstr("google.rpc.PreconditionFailure"));
}

TEST_F(AppTest, ServiceThatHangsIsATimeout) {
  service_.hangs = true;
  for (const char* command : {"status", "stats", "flows", "events"}) {
    const Result result = Ctl({command, "--timeout", "50ms"});
    EXPECT_EQ(result.code, 4) << command;
    EXPECT_THAT(result.err, HasSubstr("did not answer within 50.0ms"));
  }
  EXPECT_EQ(Ctl({"stats", "--watch", "--timeout", "50ms"}).code, 4);
}

TEST(UnreachableTest, SaysWhichSocketAndWhy) {
  const Result result = RunCtl({"status", "--socket", "/nonexistent/x.sock"});
  EXPECT_EQ(result.code, 3);
  EXPECT_THAT(result.err, HasSubstr("there is no socket /nonexistent/x.sock"));
  EXPECT_THAT(result.err, HasSubstr("Start netstackd"));
  EXPECT_EQ(RunCtl({"status", "--socket", std::string(200, 'x')}).code, 3);
}

TEST(UnreachableTest, StaleSocketHasNobodyBehindIt) {
  const std::string path = "/tmp/netstackctl-stale-" + std::to_string(getpid());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
            0);
  close(fd);
  const Result result = RunCtl({"status", "--socket", path});
  unlink(path.c_str());
  EXPECT_EQ(result.code, 3);
  EXPECT_THAT(result.err, HasSubstr("nobody listens at " + path));
}

// As netstackd does with a user that may not control it.
TEST(UnreachableTest, ConnectionClosedAtOnceIsExplained) {
  const std::string path =
      "/tmp/netstackctl-closes-" + std::to_string(getpid());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
            0);
  ASSERT_EQ(listen(fd, 1), 0);
  std::thread closer([fd] { close(accept(fd, nullptr, nullptr)); });
  const Result result = RunCtl({"status", "--socket", path});
  closer.join();
  close(fd);
  unlink(path.c_str());
  EXPECT_EQ(result.code, 3);
  EXPECT_THAT(result.err, HasSubstr("control.allowed_uids"));
}

TEST(UsageTest, WrongCommandLinesAreCodeTwo) {
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"bogus"},
      {"config"},
      {"status", "--bogus"},
      {"flows", "--state", "opne"},
      {"flows", "--id", "x"},
      {"stats", "--watch", "1ms"},
      {"stats", "--timeout", "soon"},
      {"config", "set"},
      {"config", "set", "tun.nme=x"},
      {"config", "get", "tun.nme"},
      {"completion", "tcsh"}};
  for (const auto& args : wrong) {
    const Result result = RunCtl(args);
    EXPECT_EQ(result.code, 2) << ::testing::PrintToString(args);
    EXPECT_THAT(result.out, IsEmpty());
    EXPECT_THAT(result.err, StartsWith("netstackctl: "));
  }
}

TEST(UsageTest, EveryCommandHasHelpWithExamples) {
  Console console{.out = nullptr, .err = nullptr};
  Context context{.console = &console};
  const auto app = MakeApp(context);
  const auto all = [](const CLI::App*) { return true; };
  std::vector<std::vector<std::string>> commands = {{}};
  for (const CLI::App* command : app->get_subcommands(all)) {
    commands.push_back({command->get_name()});
    for (const CLI::App* below : command->get_subcommands(all)) {
      commands.push_back({command->get_name(), below->get_name()});
    }
  }
  EXPECT_EQ(commands.size(), 20u);
  for (std::vector<std::string> args : commands) {
    args.push_back("--help");
    const Result result = RunCtl(args);
    EXPECT_EQ(result.code, 0);
    EXPECT_THAT(result.out, HasSubstr("Examples:\n"))
        << ::testing::PrintToString(args);
  }
}

}  // namespace
}  // namespace netstack::cli

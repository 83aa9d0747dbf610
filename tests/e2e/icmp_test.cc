// C4: ping, traceroute and tracepath show through the TUN what they show over
// a kernel's route with the same hops; and nothing is faked.
#include <memory>
#include <regex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/e2e/support/far.h"
#include "tests/e2e/support/pattern.h"
#include "tests/e2e/support/process.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

class IcmpTest : public testing::TestWithParam<const Family*> {
 protected:
  const Family& family() const { return *GetParam(); }
  bool v4() const { return family().family == AF_INET; }
  std::string Flag() const { return v4() ? "-4" : "-6"; }

  // What a program among the apps writes; its exit code is not looked at, since
  // ping's says whether there was an answer.
  std::string App(const std::vector<std::string>& arguments) {
    const Output out = Execute(arguments, World().app(), seconds(60));
    return out.out + out.err;
  }
  std::string Ping(const std::string& to, std::vector<std::string> more = {}) {
    std::vector<std::string> words = {"ping", Flag(), "-n", "-W", "2",
                                      "-i",   "0.2"};
    words.insert(words.end(), more.begin(), more.end());
    words.push_back(to);
    return App(words);
  }
  static int Received(const std::string& output) {
    std::smatch m;
    if (!std::regex_search(output, m, std::regex("(\\d+) received"))) return -1;
    return std::stoi(m[1]);
  }
  static std::string Find(const std::string& text, const std::string& regex) {
    std::smatch m;
    return std::regex_search(text, m, std::regex(regex)) ? m[1].str()
                                                         : "none in: " + text;
  }
  // What `program` shows of the way to far through the TUN is what it shows of
  // the kernel's route, but for the names of the first and last hop.
  void ExpectSameWay(std::vector<std::string> program) {
    const auto run = [&](const std::string& to) {
      std::vector<std::string> words = program;
      words.push_back(to);
      return App(words);
    };
    const std::vector<std::string> ours = Hops(run(Far::Tunnel(family())));
    const std::vector<std::string> theirs = Hops(run(Far::Routed(family())));
    ASSERT_EQ(theirs.size(), 4u) << theirs[0];
    EXPECT_EQ(theirs[0], Far::RoutedGateway(family()));
    EXPECT_EQ(theirs[2], Far::Mid(family()));
    EXPECT_EQ(theirs[3], Far::Routed(family()));
    // srv has several addresses to choose from.
    EXPECT_EQ(ours, (std::vector<std::string>{
                        Far::Gateway(family()), theirs[1], theirs[2],
                        Far::Tunnel(family())}));
  }
  // The address in each numbered line.
  static std::vector<std::string> Hops(const std::string& output) {
    std::vector<std::string> hops;
    std::regex line("(?:^|\\n) *(\\d+)[:?]* +([0-9a-f.:]+|\\*|no reply)");
    for (std::sregex_iterator i(output.begin(), output.end(), line), end;
         i != end; ++i) {
      const auto number = static_cast<size_t>(std::stoi((*i)[1]));
      if (number == hops.size() + 1) hops.push_back((*i)[2]);
    }
    if (hops.empty()) hops.push_back(output);
    return hops;
  }
  std::vector<std::string> Traceroute(const std::string& how) const {
    return {"traceroute", Flag(), how, "-n", "-q", "1", "-w", "3", "-m", "8"};
  }

  Far far_;
  Service service_;
};

TEST_P(IcmpTest, PingShowsTheRemote) {
  const std::string ours = Ping(Far::Tunnel(family()), {"-c", "5"});
  const std::string theirs = Ping(Far::Routed(family()), {"-c", "5"});
  EXPECT_EQ(Received(ours), 5) << ours;
  EXPECT_EQ(Received(theirs), 5) << theirs;
  // As many hops, both ways.
  EXPECT_EQ(Find(ours, "(ttl=\\d+)"), Find(theirs, "(ttl=\\d+)"));
  const v1::Stats stats = service_.control().Stats();
  EXPECT_EQ(stats.icmp().requests(), 5u);
  EXPECT_EQ(stats.icmp().replies(), 5u);
  const auto flows = service_.control().Flows();
  ASSERT_EQ(flows.size(), 1u);
  EXPECT_EQ(flows[0].key().protocol(),
            v4() ? v1::PROTOCOL_ICMP : v1::PROTOCOL_ICMP_V6);
  EXPECT_EQ(flows[0].key().remote().address(), Far::Tunnel(family()));
  EXPECT_EQ(flows[0].outbound_packets(), 5u);
  EXPECT_EQ(flows[0].inbound_packets(), 5u);
}

// In fragments there and back, over the small link too; ping compares content.
TEST_P(IcmpTest, BigPings) {
  for (const char* size : {"1400", "3000", "20000", "60000"}) {
    // The first may teach a kernel the path's MTU.
    (void)Ping(Far::Tunnel(family()), {"-c", "1", "-s", size});
    const std::string out =
        Ping(Far::Tunnel(family()), {"-c", "3", "-s", size});
    EXPECT_EQ(Received(out), 3) << out;
    EXPECT_EQ(out.find("wrong data"), std::string::npos) << out;
  }
  EXPECT_GT(service_.control().Stats().fragments().reassembled(), 0u);
}

TEST_P(IcmpTest, PathMtuOfPings) {
  for (const std::string& ns : {World().app(), World().gw()}) {
    Ip("-n " + ns + " route flush cache");
    Ip("-n " + ns + " -6 route flush cache");
  }
  const std::vector<std::string> more = {"-c", "3", "-M", "do", "-s", "1400"};
  for (const std::string& to :
       {Far::Routed(family()), Far::Tunnel(family())}) {
    const std::string out = Ping(to, more);
    // From mid at first, as long as nobody here knows; later ones fail where the path's MTU is known.
    EXPECT_EQ(Find(out, "From (\\S+) icmp_seq=1 "), Far::Mid(family())) << to;
    EXPECT_EQ(Find(out, "mtu ?= ?(\\d+)"), std::to_string(Far::kSmallMtu))
        << to;
    EXPECT_EQ(Received(out), 0) << out;
  }
  const std::string out = Ping(
      Far::Tunnel(family()), {"-c", "3", "-M", "do", "-s", v4() ? "1272"
                                                               : "1252"});
  EXPECT_EQ(Received(out), 3) << out;
}

TEST_P(IcmpTest, TtlOfOneEndsHere) {
  const std::string ours = Ping(Far::Tunnel(family()), {"-c", "2", "-t", "1"});
  EXPECT_EQ(Received(ours), 0);
  EXPECT_NE(ours.find("From " + Far::Gateway(family())), std::string::npos);
  EXPECT_EQ(service_.control().Drops(v1::DROP_REASON_TTL_EXPIRED), 2u);
}

TEST_P(IcmpTest, TracerouteByIcmp) { ExpectSameWay(Traceroute("-I")); }
// To a port after the other, and all to one (-U).
TEST_P(IcmpTest, TracerouteByUdp) {
  ExpectSameWay(Traceroute("--module=default"));
  std::vector<std::string> words = Traceroute("-U");
  words.insert(words.end(), {"-p", "33500"});
  ExpectSameWay(words);
}
TEST_P(IcmpTest, TracerouteByTcp) {
  PatternServer server(far_.far());
  std::vector<std::string> words = Traceroute("-T");
  words.insert(words.end(), {"-p", std::to_string(server.port())});
  ExpectSameWay(words);
}

// The hops, the small link and the way back.
TEST_P(IcmpTest, Tracepath) {
  for (const std::string& ns : {World().app(), World().gw()}) {
    Ip("-n " + ns + " route flush cache");
    Ip("-n " + ns + " -6 route flush cache");
  }
  const std::vector<std::string> words = {"tracepath", Flag(), "-n", "-m", "8",
                                          "-p", "33600"};
  // Its words without the times, with one name for both gateways and ends.
  const auto run = [&](const std::string& to, const std::string& gateway) {
    std::vector<std::string> all = words;
    all.push_back(to);
    std::string text = std::regex_replace(
        App(all), std::regex(" +[0-9.]+ms *| +$| +\n"), " ");
    for (const auto& [name, word] :
         {std::pair(gateway, "GATEWAY"), std::pair(to, "FAR")}) {
      for (size_t at; (at = text.find(" " + name + " ")) != text.npos;) {
        text.replace(at + 1, name.size(), word);
      }
    }
    return text;
  };
  const std::string theirs =
      run(Far::Routed(family()), Far::RoutedGateway(family()));
  EXPECT_NE(theirs.find("Resume: pmtu " + std::to_string(Far::kSmallMtu) +
                        " hops 4 back 4"),
            std::string::npos)
      << theirs;
  EXPECT_NE(theirs.find("FAR reached"), std::string::npos) << theirs;
  EXPECT_EQ(run(Far::Tunnel(family()), Far::Gateway(family())), theirs);
}

// Why a way ends: !H, !N, !X, from the router that says so.
TEST_P(IcmpTest, TraceroutesShowTheRoutersRefusals) {
  struct Place {
    const char* ours;
    const char* theirs;
  };
  const Place v4_places[] = {{"10.77.67.1", "10.77.67.9"},
                             {"10.77.68.1", "10.77.68.9"},
                             {"203.0.113.1", "203.0.113.9"}};
  const Place v6_places[] = {{"fd77:67::1", "fd77:67::9"},
                             {"fd77:68::1", "fd77:68::9"},
                             {"2001:db8:dead::1", "2001:db8:dead::9"}};
  for (const Place& place : v4() ? v4_places : v6_places) {
    SCOPED_TRACE(place.ours);
    Far::Route(place.theirs);
    for (const char* how : {"--module=default", "-T"}) {
      // As above: asked again, since a kernel tells it once a second.
      const auto end = [&](const char* to) {
        std::vector<std::string> words = Traceroute(how);
        words.insert(words.end(), {"-m", "4", "-w", "1", to});
        std::string found;
        (void)Eventually([&] {
          found = Find(App(words), " 2 +(\\S+ .*![A-Z0-9]+)");
          return found.find("none in") != 0;
        });
        // Without the time.
        return std::regex_replace(found, std::regex(" +[0-9.]+ ms"), "");
      };
      EXPECT_EQ(end(place.ours), end(place.theirs)) << how;
    }
    Ip("-n " + World().app() + " route del " + place.theirs +
       (v4() ? "/32" : "/128"));
  }
}

// The errors of routers, in ping's own words.
TEST_P(IcmpTest, UnreachablesAreTheRouters) {
  struct Place {
    const char* ours;
    const char* theirs;
  };
  const Place v4_places[] = {{"10.77.67.1", "10.77.67.9"},
                             {"10.77.68.1", "10.77.68.9"},
                             {"203.0.113.1", "203.0.113.9"}};
  const Place v6_places[] = {{"fd77:67::1", "fd77:67::9"},
                             {"fd77:68::1", "fd77:68::9"},
                             {"2001:db8:dead::1", "2001:db8:dead::9"}};
  for (const Place& place : v4() ? v4_places : v6_places) {
    SCOPED_TRACE(place.ours);
    Far::Route(place.theirs);
    // A kernel limits such errors by time and receiver, with no knob here.
    const auto error = [&](const char* to) {
      std::string found;
      (void)Eventually([&] {
        found = Find(Ping(to, {"-c", "1"}), "(From \\S+ icmp_seq=1 .*)");
        return found.find("none in") != 0;
      });
      return found;
    };
    EXPECT_EQ(error(place.ours), error(place.theirs));
    Ip("-n " + World().app() + " route del " + place.theirs +
       (v4() ? "/32" : "/128"));
  }
}

TEST_P(IcmpTest, NothingIsFaked) {
  const std::string out = Ping(family().black_hole, {"-c", "2", "-W", "1"});
  EXPECT_EQ(Received(out), 0) << out;
  EXPECT_EQ(out.find("From"), std::string::npos) << out;
  // We are there ourselves.
  EXPECT_EQ(Received(Ping(Far::Gateway(family()), {"-c", "2"})), 2);
  EXPECT_EQ(Received(Ping(Far::Gateway(family()), {"-c", "2", "-t", "1"})), 2);
}

// Where the system permits no ping sockets, it is told: to the app, by the
// status and by an event.
TEST_P(IcmpTest, WithoutPermission) {
  const auto range = [](const std::string& value) {
    const Output out =
        Execute({"sh", "-c", "echo '" + value +
                                 "' > /proc/sys/net/ipv4/ping_group_range"},
                World().gw());
    ASSERT_TRUE(out.ok()) << out.err;
  };
  EXPECT_TRUE(service_.control().Status().ping().permitted());
  const std::string before = Execute(
      {"cat", "/proc/sys/net/ipv4/ping_group_range"}, World().gw()).out;
  range("1 0");
  const std::string out = Ping(Far::Tunnel(family()), {"-c", "1"});
  range(before);
  EXPECT_EQ(Received(out), 0);
  EXPECT_NE(out.find(v4() ? "Packet filtered" : "Administratively prohibited"),
            std::string::npos)
      << out;
  EXPECT_EQ(service_.control().Drops(v1::DROP_REASON_ECHO_NOT_PERMITTED), 1u);
  const v1::PingStatus ping = service_.control().Status().ping();
  EXPECT_FALSE(ping.permitted());
  EXPECT_NE(ping.advice().find("ping_group_range"), std::string::npos);
  bool told = false;
  (void)service_.control().WatchEvents([&](const v1::WatchEventsResponse& e) {
    told |= e.event().type() == v1::EVENT_TYPE_PING_NOT_PERMITTED;
    return !told && !e.has_end_of_replay();
  });
  EXPECT_TRUE(told);
  // And when it is permitted again, it works without a restart.
  EXPECT_EQ(Received(Ping(Far::Tunnel(family()), {"-c", "1"})), 1);
}

// TCP follows the path by itself: both directions over the small link.
TEST_P(IcmpTest, TcpOverASmallerPath) {
  PatternServer server(far_.far());
  Tcp socket(World().app(), family().family);
  ASSERT_EQ(socket.Connect(Address(Far::Tunnel(family()), server.port())), 0);
  EXPECT_EQ(AskDownload(socket, 1, 5'000'000), "");
  Tcp other(World().app(), family().family);
  ASSERT_EQ(other.Connect(Address(Far::Tunnel(family()), server.port())), 0);
  EXPECT_EQ(AskUpload(other, 2, 5'000'000), "");
}

INSTANTIATE_TEST_SUITE_P(Every, IcmpTest, testing::Values(&kV4, &kV6),
                         FamilyName);

}  // namespace
}  // namespace netstack::e2e

// The service as a VPN app uses it: TUNs that come and go, sockets that the app
// protects, networks that change, apps that die, owners of flows.
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/e2e/support/app.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

std::string Nonce(int i) {
  std::string nonce = std::to_string(i);
  return std::string(8 - nonce.size(), 'n') + nonce;
}

// A new TUN, addressed and the default route of app, as establish() makes it.
Fd Establish(int i, int mtu) {
  const std::string name = "vpn" + std::to_string(i);
  Fd tun = MakeTun(World().gw(), name);
  World().Attach(name, mtu);
  return tun;
}

// A datagram socket of app, connected.
class Udp {
 public:
  Udp(const Family& family, const Address& to) {
    const Enter enter(World().app());
    fd_ = Fd(socket(family.family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(fd_.get(), to.get(), to.size), 0);
    const timeval patience{3, 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience,
               sizeof(patience));
  }
  // Sends it and gives what comes back; else "", with errno.
  std::string Ask(const std::string& text) {
    char answer[2048];
    if (send(fd_.get(), text.data(), text.size(), 0) < 0) return "";
    const ssize_t n = recv(fd_.get(), answer, sizeof(answer), 0);
    return n < 0 ? "" : std::string(answer, static_cast<size_t>(n));
  }

 private:
  Fd fd_;
};

// Sends every datagram back, in srv, from the address that it was sent to.
class Echo {
 public:
  Echo() {
    const Enter enter(World().srv());
    for (const Family* family : {&kV4, &kV6}) {
      Fd fd(socket(family->family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      const Address at(family->tunnel, port_);
      EXPECT_EQ(bind(fd.get(), at.get(), at.size), 0);
      Address a;
      getsockname(fd.get(), reinterpret_cast<sockaddr*>(&a.storage), &a.size);
      port_ = a.port();
      threads_.emplace_back([this, raw = fd.get()] { Answer(raw); });
      fds_.push_back(std::move(fd));
    }
  }
  ~Echo() {
    stop_ = true;
    for (const Fd& fd : fds_) shutdown(fd.get(), SHUT_RDWR);
    for (std::thread& thread : threads_) thread.join();
  }
  uint16_t port() const { return port_; }
  uint64_t received() const { return received_; }

 private:
  void Answer(int fd) {
    char bytes[2048];
    while (!stop_) {
      Address from;
      const ssize_t n =
          recvfrom(fd, bytes, sizeof(bytes), 0,
                   reinterpret_cast<sockaddr*>(&from.storage), &from.size);
      if (n < 0 || stop_) continue;
      ++received_;
      (void)!sendto(fd, bytes, static_cast<size_t>(n), 0, from.get(),
                    from.size);
    }
  }

  std::vector<Fd> fds_;
  uint16_t port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> received_{0};
  std::vector<std::thread> threads_;
};

Tcp Connected(const Family& family, uint16_t port) {
  Tcp socket(World().app(), family.family);
  EXPECT_EQ(socket.Connect(Address(family.tunnel, port)), 0);
  return socket;
}

void Report(const char* what, const std::string& figures) {
  std::printf("[ FIGURES  ] %s: %s\n", what, figures.c_str());
  testing::Test::RecordProperty(what, figures);
}

// --- TUNs that come and go --------------------------------------------------

TEST(PhonesTest, ReplacingTheTunLosesNothing) {
  const int replacements = FullScale() ? 100 : 20;
  constexpr int kTransfers = 100;
  const uint64_t size = FullScale() ? 24'000'000 : 4'000'000;
  Service service({.start = false});
  AppStubs app(service);
  Handover handover(service.socket_path());
  ASSERT_TRUE(handover.ok());
  PatternServer server(World().srv());
  Fd tun = Establish(0, 1500);
  ASSERT_EQ(handover.Give(Nonce(0), tun.get()), 0);
  ASSERT_EQ(app.Start(Nonce(0)), "");

  std::atomic<int> live{0};
  std::atomic<int> started{0};
  std::vector<std::string> results(kTransfers);
  std::vector<std::thread> threads;
  for (int i = 0; i < kTransfers; ++i) {
    threads.emplace_back([&, i] {
      const Family& family = i % 4 < 2 ? kV4 : kV6;
      Tcp socket = Connected(family, server.port());
      // A blackout of some retransmissions is no failure; a stall is.
      socket.SetPatience(seconds(30));
      ++live;
      ++started;
      results[static_cast<size_t>(i)] =
          i % 2 == 0 ? AskUpload(socket, static_cast<uint64_t>(i), size)
                     : AskDownload(socket, static_cast<uint64_t>(i), size);
      --live;
    });
  }
  EXPECT_TRUE(Eventually([&] { return started == kTransfers; }));
  int done = 0;
  int with_all_live = 0;
  for (int i = 1; i <= replacements; ++i) {
    if (live == kTransfers) ++with_all_live;
    if (live == 0) break;
    Fd next = Establish(i, i % 2 == 0 ? 1500 : 1280);
    ASSERT_EQ(handover.Give(Nonce(i), next.get()), 0);
    ASSERT_EQ(app.Replace(Nonce(i)), "");
    tun = std::move(next);  // the app closes its old one
    ++done;
  }
  for (std::thread& thread : threads) thread.join();
  int bad = 0;
  for (const std::string& result : results) {
    EXPECT_EQ(result, "");
    if (!result.empty()) ++bad;
  }
  EXPECT_EQ(done, replacements) << "the transfers ended too soon";
  EXPECT_GT(with_all_live, 0);
  EXPECT_EQ(service.control().Stats().tcp().opened(),
            static_cast<uint64_t>(kTransfers))
      << "somebody connected again";
  Report("tun_replaced",
         std::to_string(done) + " times (" + std::to_string(with_all_live) +
             " with all " + std::to_string(kTransfers) +
             " transfers live), MTU 1500/1280, " + std::to_string(bad) +
             " transfers wrong of " + std::to_string(kTransfers) + " of " +
             std::to_string(size) + " bytes");
}

// R10: the app is killed, again and again.
TEST(PhonesTest, KilledAppsLeaveNothingBehind) {
  const int cycles = FullScale() ? 100 : 20;
  Service service({.start = false});
  AppStubs stubs(service);
  PatternServer server(World().srv());
  std::atomic<uint64_t> deaths{0};
  Control watcher(service.socket_path());
  std::thread events([&] {
    watcher.WatchEvents(
        [&](const v1::WatchEventsResponse& message) {
          if (message.event().type() == v1::EVENT_TYPE_APP_DIED) ++deaths;
          return true;
        },
        seconds(600));
  });
  double slowest_death = 0;
  double slowest_ready = 0;
  int descriptors = 0;
  size_t memory = 0;
  for (int i = 0; i < cycles; ++i) {
    SCOPED_TRACE(i);
    const std::string nonce = Nonce(i);
    const std::string path = service.socket_path();
    Fd tun = Establish(i, 1500);
    int pipe_fds[2];
    ASSERT_EQ(pipe(pipe_fds), 0);
    Fd read_end(pipe_fds[0]);
    Fd write_end(pipe_fds[1]);
    const auto begin = Clock::now();
    const pid_t child = fork();
    if (child == 0) {
      Handover handover(path);
      const char verdict = static_cast<char>(handover.Give(nonce, tun.get()));
      (void)!write(write_end.get(), &verdict, 1);
      for (;;) pause();
    }
    ASSERT_GT(child, 0);
    tun.Reset();  // only the app has it, and the service
    char verdict = -1;
    ASSERT_EQ(read(read_end.get(), &verdict, 1), 1);
    ASSERT_EQ(verdict, 0);
    ASSERT_EQ(i == 0 ? stubs.Start(nonce) : stubs.Replace(nonce), "");
    if (i > 0) slowest_ready = std::max(slowest_ready, SecondsSince(begin));
    Tcp flow = Connected(kV4, server.port());
    ASSERT_EQ(AskDownload(flow, 1, 100'000), "");

    const auto killed = Clock::now();
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    ASSERT_TRUE(Eventually(
        [&] { return deaths == static_cast<uint64_t>(i) + 1; }, seconds(5)));
    slowest_death = std::max(slowest_death, SecondsSince(killed));
    // The TUN still captures, and carries.
    Tcp after = Connected(kV6, server.port());
    ASSERT_EQ(AskUpload(after, 2, 100'000), "");
    if (i == cycles / 2) {
      descriptors = service.process().CountDescriptors();
      memory = service.process().ResidentBytes();
    }
  }
  EXPECT_LT(slowest_death, 1);
  EXPECT_LT(slowest_ready, 0.5);
  EXPECT_TRUE(Eventually([&] {
    return service.process().CountDescriptors() <= descriptors;
  })) << descriptors << " -> " << service.process().CountDescriptors();
  EXPECT_LT(service.process().ResidentBytes(), memory + 1024 * 1024);
  watcher.CancelStream();
  events.join();
  Report("app_killed",
         std::to_string(cycles) + " times; told after at most " +
             std::to_string(slowest_death * 1000) +
             " ms, ready again (handed over and replaced) within " +
             std::to_string(slowest_ready * 1000) + " ms; descriptors " +
             std::to_string(descriptors) + " -> " +
             std::to_string(service.process().CountDescriptors()));
}

// R10: the service is killed, again and again, and the app goes on with its TUN.
TEST(PhonesTest, KilledServicesAreBackAtOnce) {
  const int cycles = FullScale() ? 100 : 20;
  Service service({.start = false});
  PatternServer server(World().srv());
  Fd tun = Establish(0, 1500);
  double slowest_death = 0;
  double slowest_ready = 0;
  for (int i = 0; i < cycles; ++i) {
    SCOPED_TRACE(i);
    const auto begin = Clock::now();
    if (i > 0) service.Launch();
    AppStubs app(service);
    Handover handover(service.socket_path());
    ASSERT_EQ(handover.Give(Nonce(i), tun.get()), 0);
    ASSERT_EQ(app.Start(Nonce(i)), "");
    if (i > 0) slowest_ready = std::max(slowest_ready, SecondsSince(begin));
    Tcp flow = Connected(i % 2 == 0 ? kV4 : kV6, server.port());
    ASSERT_EQ(AskDownload(flow, 1, 100'000), "");

    const auto killed = Clock::now();
    service.process().Signal(SIGKILL);
    ASSERT_TRUE(handover.Ends()) << "the app is not told";
    slowest_death = std::max(slowest_death, SecondsSince(killed));
    ASSERT_TRUE(service.process().Wait().has_value());
    // The app's descriptor keeps the device and its routes: nothing passes.
    const uint64_t before = server.accepted();
    Tcp dead(World().app(), AF_INET);
    EXPECT_NE(dead.Connect(Address(kV4.tunnel, server.port()),
                           milliseconds(50)),
              0);
    EXPECT_EQ(server.accepted(), before);
  }
  EXPECT_LT(slowest_death, 1);
  EXPECT_LT(slowest_ready, 0.5);
  Report("service_killed",
         std::to_string(cycles) + " times; seen by the app after at most " +
             std::to_string(slowest_death * 1000) +
             " ms, ready again (launched, handed over, started) within " +
             std::to_string(slowest_ready * 1000) + " ms");
}

// --- protection -------------------------------------------------------------

// In gw, whatever has not this mark may not leave. A rule and not a check, so
// that one connect() too many cannot be missed.
class OnlyMarkedLeaves {
 public:
  static constexpr uint32_t kMark = 0x77;
  OnlyMarkedLeaves() {
    for (const char* v : {"", "-6 "}) {
      Ip(std::string(v) + "-n " + World().gw() +
         " rule add priority 10 not fwmark 0x77 table 77");
      Ip(std::string(v) + "-n " + World().gw() +
         " route add prohibit default table 77");
    }
  }
  ~OnlyMarkedLeaves() {
    for (const char* v : {"", "-6 "}) {
      Ip(std::string(v) + "-n " + World().gw() + " rule del priority 10");
      Ip(std::string(v) + "-n " + World().gw() + " route flush table 77");
    }
  }
};

// Accepts, and closes a while later: a reset at once would reach the service
// before its app has seen the connection, and be told as a refusal.
class Acceptor {
 public:
  Acceptor() : listener_(Listen(World().srv())) {
    thread_ = std::thread([this] {
      std::deque<Fd> open;
      for (;;) {
        Fd fd(accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!fd.ok() && stop_) return;
        if (!fd.ok()) continue;
        ++accepted_;
        const linger now{1, 0};
        setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        open.push_back(std::move(fd));
        if (open.size() > 64) open.pop_front();
      }
    });
  }
  ~Acceptor() {
    stop_ = true;
    shutdown(listener_.fd(), SHUT_RDWR);
    thread_.join();
  }
  uint16_t port() const { return listener_.Local().port(); }
  uint64_t accepted() const { return accepted_; }

 private:
  Tcp listener_;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> accepted_{0};
  std::thread thread_;
};

struct Latency {
  int failed = 0;
  double p50 = 0;  // microseconds
  double p99 = 0;
  std::string text() const {
    return "p50 " + std::to_string(static_cast<int>(p50)) + " us, p99 " +
           std::to_string(static_cast<int>(p99)) + " us, " +
           std::to_string(failed) + " failed";
  }
};

Latency ConnectAgainAndAgain(const Family& family, uint16_t port, int times) {
  std::vector<double> took;
  Latency result;
  for (int i = 0; i < times; ++i) {
    Tcp socket(World().app(), family.family);
    const auto start = Clock::now();
    if (socket.Connect(Address(family.tunnel, port)) != 0) ++result.failed;
    took.push_back(SecondsSince(start) * 1e6);
    socket.Abort();
  }
  std::sort(took.begin(), took.end());
  result.p50 = took[took.size() / 2];
  result.p99 = took[took.size() * 99 / 100];
  return result;
}

TEST(PhonesTest, EverySocketIsProtectedByTheAppBeforeItConnects) {
  const int connects = FullScale() ? 100'000 : 2'000;
  const OnlyMarkedLeaves rule;
  const TempDir dir;
  Acceptor acceptor;
  struct Case {
    const char* name;
    const char* protocol;
    ProtectingApp::Protocol app;
    int pool;
  };
  // Without an app, for comparison: the service marks by itself.
  {
    Service service({.config = "protect { so_mark: 0x77 }"});
    const Latency own =
        ConnectAgainAndAgain(kV4, acceptor.port(), connects / 10);
    EXPECT_EQ(own.failed, 0);
    Report("connect_no_app", own.text());
  }
  for (const Case& c : {
           Case{"connect_pipelined_no_pool", "PIPELINED",
                ProtectingApp::Protocol::kPipelined, 0},
           Case{"connect_pipelined_pool", "PIPELINED",
                ProtectingApp::Protocol::kPipelined, 8},
           Case{"connect_protect_path_no_pool", "PROTECT_PATH",
                ProtectingApp::Protocol::kProtectPath, 0},
           Case{"connect_protect_path_pool", "PROTECT_PATH",
                ProtectingApp::Protocol::kProtectPath, 8},
       }) {
    SCOPED_TRACE(c.name);
    const std::string path = dir / "protect";
    ProtectingApp app(path, c.app, OnlyMarkedLeaves::kMark);
    Service service({.config = "protect { app_socket: \"" + path +
                               "\" app_protocol: PROTECT_PROTOCOL_" +
                               c.protocol +
                               " pool_size: " + std::to_string(c.pool) +
                               " timeout { seconds: 10 } }"});
    const uint64_t before = acceptor.accepted();
    const bool usual =
        c.pool == 8 && c.app == ProtectingApp::Protocol::kPipelined;
    const int times = usual ? connects : connects / 4;
    const Latency v4 = ConnectAgainAndAgain(kV4, acceptor.port(), times);
    const Latency v6 = ConnectAgainAndAgain(kV6, acceptor.port(), times / 10);
    EXPECT_EQ(v4.failed, 0);
    EXPECT_EQ(v6.failed, 0);
    const auto all = static_cast<uint64_t>(times + times / 10);
    EXPECT_TRUE(Eventually([&] { return acceptor.accepted() - before == all; }))
        << acceptor.accepted() - before << " of " << all;
    const v1::DialStats dial = service.control().Stats().dial();
    EXPECT_GE(app.asked(), static_cast<uint64_t>(times));
    EXPECT_EQ(dial.protect_failed(), 0u);
    Report(c.name, std::to_string(times) + " IPv4: " + v4.text() +
                       "; IPv6: " + v6.text() + "; asked " +
                       std::to_string(app.asked()) + ", pool " +
                       std::to_string(dial.pool_hits()) + " hits " +
                       std::to_string(dial.pool_misses()) + " misses");
    // The rule bites: what the app has not marked does not leave.
    app.set_refuse(true);
    Tcp refused(World().app(), AF_INET);
    int error = 0;
    for (int i = 0; i < 40 && error == 0; ++i) {  // until the pool is empty
      refused = Tcp(World().app(), AF_INET);
      error = refused.Connect(Address(kV4.tunnel, acceptor.port()));
    }
    EXPECT_NE(error, 0);
    EXPECT_GT(service.control().Stats().dial().protect_refused(), 0u);
  }
  {
    // And without any protection nothing leaves at all.
    Service service;
    const uint64_t before = acceptor.accepted();
    Tcp socket(World().app(), AF_INET);
    EXPECT_NE(socket.Connect(Address(kV4.tunnel, acceptor.port())), 0);
    EXPECT_EQ(acceptor.accepted(), before);
  }
}

TEST(PhonesTest, ADeadProtectorFailsDialsAndIsTold) {
  const TempDir dir;
  Acceptor acceptor;
  const std::string path = dir / "protect";
  auto app = std::make_unique<ProtectingApp>(
      path, ProtectingApp::Protocol::kPipelined, 1);
  Service service({.config = "protect { app_socket: \"" + path +
                             "\" pool_size: 0 timeout { seconds: 1 } }"});
  Tcp first(World().app(), AF_INET);
  ASSERT_EQ(first.Connect(Address(kV4.tunnel, acceptor.port())), 0);
  app.reset();
  const uint64_t before = acceptor.accepted();
  Tcp second(World().app(), AF_INET);
  const auto start = Clock::now();
  EXPECT_EQ(second.Connect(Address(kV4.tunnel, acceptor.port())),
            ECONNREFUSED);
  EXPECT_LT(SecondsSince(start), 1.5);
  EXPECT_EQ(acceptor.accepted(), before);
  EXPECT_GT(service.control().Stats().dial().protect_unanswered(), 0u);
  EXPECT_GT(service.control().Closed(v1::CLOSE_REASON_PROTECT_FAILED), 0u);
  bool told = false;
  service.control().WatchEvents([&](const v1::WatchEventsResponse& message) {
    told = told || message.event().type() == v1::EVENT_TYPE_PROTECTOR_DOWN;
    return !message.has_end_of_replay();
  });
  EXPECT_TRUE(told);
  // It comes back, and with it the connections.
  ProtectingApp again(path, ProtectingApp::Protocol::kPipelined, 1);
  Tcp third(World().app(), AF_INET);
  EXPECT_EQ(third.Connect(Address(kV4.tunnel, acceptor.port())), 0);
}

// --- loops and owners: the service among the apps ---------------------------

// The service runs in app, where both the TUN and the way out are.
std::string AmongApps(const std::string& more) {
  return "protect { bind_to_device: \"as\" }" + more;
}

class Outside {
 public:
  // The way out for sockets that are bound to the veth; everybody else takes
  // the TUN, whose route is better.
  Outside() {
    Ip("-n " + World().app() + " route add default via 10.77.2.2 metric 5000");
    Ip("-6 -n " + World().app() +
       " route add default via fd77:2::2 metric 5000");
  }
  ~Outside() {
    Ip("-n " + World().app() + " route del default via 10.77.2.2 metric 5000");
    Ip("-6 -n " + World().app() +
       " route del default via fd77:2::2 metric 5000");
  }
};

TEST(PhonesTest, TheOwnerOfEveryFlowIsShown) {
  constexpr int kFlows = 200;
  const Outside outside;
  Service service({.config = AmongApps("owners { source: OWNER_SOURCE_SYSTEM }"),
                   .ns = World().app()});
  Holder holder(World().srv());
  Echo echo;
  std::vector<Tcp> flows;
  std::vector<std::unique_ptr<Udp>> datagrams;
  for (int i = 0; i < kFlows; ++i) {
    const Family& family = i % 2 == 0 ? kV4 : kV6;
    if (i % 4 < 2) {
      flows.push_back(Connected(family, holder.port()));
      continue;
    }
    datagrams.push_back(std::make_unique<Udp>(
        family, Address(family.tunnel, echo.port())));
    EXPECT_EQ(datagrams.back()->Ask("mine"), "mine");
  }
  int with_uid = 0;
  int with_process = 0;
  EXPECT_TRUE(Eventually([&] {
    with_uid = with_process = 0;
    for (const v1::Flow& flow : service.control().Flows()) {
      if (flow.owner().has_uid() && flow.owner().uid() == getuid()) ++with_uid;
      if (flow.owner().pid() == static_cast<uint32_t>(getpid()) &&
          flow.owner().process() == "e2e_phones") {
        ++with_process;
      }
    }
    return with_process == kFlows;
  })) << with_uid << " with uid, " << with_process << " with process, of "
      << kFlows;
  v1::FlowFilter filter;
  filter.set_uid(getuid());
  EXPECT_EQ(service.control().Flows(filter).size(), size_t{kFlows});
  filter.set_uid(getuid() + 1);
  EXPECT_EQ(service.control().Flows(filter).size(), 0u);
  filter.clear_uid();
  filter.set_package("e2e_phones");
  EXPECT_EQ(service.control().Flows(filter).size(), size_t{kFlows});
  Report("owners", std::to_string(with_uid) + " uids and " +
                       std::to_string(with_process) + " processes of " +
                       std::to_string(kFlows) +
                       " flows, half of them UDP");
}

TEST(PhonesTest, RulesBlockAppsAtOnce) {
  const Outside outside;
  PatternServer server(World().srv());
  Echo echo;
  const std::string me = std::to_string(getuid());
  struct Case {
    const char* what;
    std::string rules;
    bool blocked;
  };
  for (const Case& c : {
           Case{"by uid", "rules { uid: " + me + " action: APP_ACTION_BLOCK }",
                true},
           Case{"by process",
                "rules { package: 'e2e_phones' action: APP_ACTION_BLOCK }",
                true},
           Case{"another process",
                "rules { package: 'e2e_phone' action: APP_ACTION_BLOCK }",
                false},
           Case{"allowed before it is blocked",
                "rules { package: 'e2e_phones' action: APP_ACTION_ALLOW } "
                "rules { uid: " + me + " action: APP_ACTION_BLOCK }",
                false},
       }) {
    SCOPED_TRACE(c.what);
    Service service(
        {.config = AmongApps("owners { source: OWNER_SOURCE_SYSTEM } apps { " +
                             c.rules + " }"),
         .ns = World().app()});
    for (const Family* family : {&kV4, &kV6}) {
      Tcp socket(World().app(), family->family);
      const auto start = Clock::now();
      const int error =
          socket.Connect(Address(family->tunnel, server.port()));
      EXPECT_EQ(error, c.blocked ? ECONNREFUSED : 0);
      EXPECT_LT(SecondsSince(start), 1);
      if (!c.blocked) {
        EXPECT_EQ(AskUpload(socket, 1, 10'000), "");
      }
      // The first datagram counts: nobody sends it again.
      Udp datagrams(*family, Address(family->tunnel, echo.port()));
      const uint64_t before = echo.received();
      const std::string answer = datagrams.Ask("first");
      const int why = errno;
      EXPECT_EQ(answer, c.blocked ? "" : "first");
      EXPECT_EQ(echo.received() - before, c.blocked ? 0u : 1u);
      if (c.blocked) {
        // "Administratively prohibited" is no host for IPv4, and EACCES for
        // IPv6.
        EXPECT_EQ(why, family == &kV4 ? EHOSTUNREACH : EACCES);
      }
    }
    EXPECT_EQ(service.control().Closed(v1::CLOSE_REASON_APP_BLOCKED),
              c.blocked ? 2u : 0u) << "of TCP";
    EXPECT_EQ(service.control().Drops(v1::DROP_REASON_APP_BLOCKED),
              c.blocked ? 4u : 0u);
  }
}

TEST(PhonesTest, TheAppIsAskedForOwners) {
  Service service(
      {.config = "owners { source: OWNER_SOURCE_APP } apps { rules { "
                 "package: 'org.example.bad' action: APP_ACTION_BLOCK } }"});
  AppStubs stubs(service);
  PatternServer good(World().srv());
  PatternServer bad(World().srv());
  Tcp unanswered(World().app(), AF_INET);
  EXPECT_EQ(unanswered.Connect(Address(kV4.tunnel, good.port())), 0)
      << "nobody is attached: unknown, and unknown is carried";
  AttachedApp app(stubs, [&](const v1::FlowKey& key) {
    v1::FlowOwner owner;
    owner.set_uid(10'042);
    owner.set_package(key.remote().port() == bad.port() ? "org.example.bad"
                                                        : "org.example.good");
    return owner;
  });
  for (const Family* family : {&kV4, &kV6}) {
    Tcp through = Connected(*family, good.port());
    EXPECT_EQ(AskDownload(through, 1, 10'000), "");
    Tcp blocked(World().app(), family->family);
    EXPECT_EQ(blocked.Connect(Address(family->tunnel, bad.port())),
              ECONNREFUSED);
    v1::FlowFilter filter;
    filter.set_package("org.example.good");
    filter.set_uid(10'042);
    EXPECT_EQ(service.control().Flows(filter).size(),
              family == &kV4 ? 1u : 2u);
  }
  EXPECT_EQ(service.control().Closed(v1::CLOSE_REASON_APP_BLOCKED), 2u);
  EXPECT_EQ(good.accepted(), 3u);
  EXPECT_EQ(bad.accepted(), 0u);
}

TEST(PhonesTest, ALoopIsNoticedWithinASecond) {
  // Nothing protects the sockets: they take the TUN's route, as the apps'.
  Service service({.config = "tcp { dial_timeout { seconds: 5 } }",
                   .ns = World().app()});
  AppStubs stubs(service);
  AttachedApp app(stubs);
  for (const Family* family : {&kV4, &kV6}) {
    const uint64_t before = app.loops();
    Tcp socket(World().app(), family->family);
    const auto start = Clock::now();
    EXPECT_EQ(socket.Connect(Address(family->tunnel, 9)), ECONNREFUSED);
    EXPECT_LT(SecondsSince(start), 1);
    EXPECT_TRUE(Eventually([&] { return app.loops() > before; }, seconds(2)));
    std::this_thread::sleep_for(milliseconds(1100));  // it is told once a second
  }
  const auto told = [&](const std::function<void()>& what) {
    const uint64_t before = app.loops();
    const auto start = Clock::now();
    what();
    EXPECT_TRUE(Eventually([&] { return app.loops() > before; }, seconds(2)));
    EXPECT_LT(SecondsSince(start), 1.2);
    std::this_thread::sleep_for(milliseconds(1100));
  };
  for (const Family* family : {&kV4, &kV6}) {
    SCOPED_TRACE(family->name);
    told([&] { (void)Udp(*family, Address(family->tunnel, 9)).Ask("round"); });
    told([&] {
      (void)Execute({"ping", "-n", "-c", "1", "-W", "1", family->tunnel},
                    World().app());
    });
  }
  EXPECT_GE(service.control().Drops(v1::DROP_REASON_LOOP), 6u);
  const v1::Stats stats = service.control().Stats();
  EXPECT_LT(stats.udp().opened(), 10u);
  EXPECT_LT(stats.icmp().opened(), 10u);
  EXPECT_LT(service.control().Stats().tcp().opened(), 10u)
      << "it went round and round";
}

// --- networks that change (R11) ---------------------------------------------

TEST(PhonesTest, AChangedNetworkResetsWhatIsDeadAndNothingElse) {
  constexpr int kFlows = 50;
  // Nothing is kept in the cache: each question goes up.
  const TempDir files;
  WriteFile(files / "unbound.conf",
            "server:\n  directory: \"" + files.path() +
                "\"\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n"
                "  use-syslog: no\n  logfile: \"\"\n  do-daemonize: no\n"
                "  interface: 10.77.1.2@5300\n"
                "  access-control: 0.0.0.0/0 allow\n"
                "  local-data: \"a.example. 0 IN A 10.77.1.2\"\n"
                "remote-control:\n  control-enable: no\n");
  Process unbound({"unbound", "-c", files / "unbound.conf"},
                  {.ns = World().srv(), .output = files / "log"});
  const std::vector<std::string> dig = {"dig",     "+short",  "+time=5",
                                        "+tries=1", "@203.0.113.53",
                                        "a.example"};
  Service service({.config = "dns { groups { name: 'up' upstreams { address: "
                             "'tcp://10.77.1.2:5300' } } }"});
  AppStubs stubs(service);
  AttachedApp app(stubs);
  PatternServer server(World().srv());
  const std::string gw = World().gw();
  std::vector<Tcp> flows;
  for (int i = 0; i < kFlows; ++i) {
    flows.push_back(Connected(kV4, server.port()));
  }
  Echo echo;
  Udp call(kV4, Address(kV4.tunnel, echo.port()));
  EXPECT_EQ(call.Ask("before"), "before");
  EXPECT_EQ(Execute(dig, World().app()).out, "10.77.1.2\n");
  // Nothing has changed: nothing is reset.
  v1::NetworkHandled handled = app.ChangeNetwork({});
  EXPECT_EQ(handled.flows_reset(), 0u);
  EXPECT_EQ(handled.flows_kept(), static_cast<uint64_t>(kFlows));

  // Another address on the uplink, and the old one gone.
  Ip("-n " + gw + " addr del 10.77.1.1/24 dev gs");
  Ip("-n " + gw + " addr add 10.77.1.9/24 dev gs");
  Ip("-n " + gw + " route replace default via 10.77.1.2");
  v1::NetworkChanged change;
  change.set_interface("gs");
  const auto start = Clock::now();
  handled = app.ChangeNetwork(change);
  EXPECT_EQ(handled.flows_reset(), static_cast<uint64_t>(kFlows));
  for (Tcp& flow : flows) EXPECT_EQ(flow.ReadError(), ECONNRESET);
  const double reset = SecondsSince(start);
  Tcp again = Connected(kV4, server.port());
  EXPECT_EQ(AskUpload(again, 1, 100'000), "");
  const double connected = SecondsSince(start);
  EXPECT_LT(connected, 2);
  // The same sockets of the app go on, and its flow is the same one.
  EXPECT_EQ(call.Ask("after"), "after");
  const double datagrams = SecondsSince(start);
  EXPECT_EQ(service.control().Stats().udp().opened(), 1u);
  const auto resolving = Clock::now();
  EXPECT_EQ(Execute(dig, World().app()).out, "10.77.1.2\n");
  const double resolved = SecondsSince(resolving);
  EXPECT_LT(resolved, 1);
  EXPECT_EQ(service.control().Closed(v1::CLOSE_REASON_NETWORK_CHANGED),
            static_cast<uint64_t>(kFlows));
  Ip("-n " + gw + " addr del 10.77.1.9/24 dev gs");
  Ip("-n " + gw + " addr add 10.77.1.1/24 dev gs");
  Ip("-n " + gw + " route replace default via 10.77.1.2");
  Report("network_changed",
         std::to_string(kFlows) + " flows reset after " +
             std::to_string(reset * 1000) + " ms, connected and served after " +
             std::to_string(connected * 1000) + " ms, UDP answered after " +
             std::to_string(datagrams * 1000) + " ms, a name after " +
             std::to_string(resolved * 1000) + " ms");
}

// --- memory (the iOS profile) -----------------------------------------------

// What the system counts for an extension.
size_t CountedBytes(pid_t pid) {
  const std::string status =
      ReadFile("/proc/" + std::to_string(pid) + "/status");
  size_t sum = 0;
  for (const char* name : {"RssAnon:", "RssShmem:"}) {
    const size_t at = status.find(name);
    if (at != std::string::npos) {
      sum += std::stoul(status.substr(at + std::string(name).size())) * 1024;
    }
  }
  return sum;
}

TEST(PhonesTest, TheIosProfileStaysWithin15MiB) {
  constexpr size_t kLimit = 15 * 1024 * 1024;
  const std::string profile =
      ReadFile(NETSTACK_SOURCE_DIR "/deploy/config/ios.textproto");
  Service service(
      {.config = profile.substr(profile.find("tcp {")),  // the TUN is ours
       .offload = false});
  const pid_t pid = service.process().pid();
  PatternServer server(World().srv());
  Holder holder(World().srv());
  const size_t idle = CountedBytes(pid);
  std::vector<Tcp> flows;
  const auto open = [&](size_t count) {
    while (flows.size() < count) {
      flows.push_back(
          Connected(flows.size() % 2 == 0 ? kV4 : kV6, holder.port()));
    }
  };
  open(450);
  // The load: 50 more that transfer, half of them each way, again and again.
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> transfers{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 50; ++i) {
    threads.emplace_back([&, i] {
      while (!stop) {
        Tcp socket = Connected(i % 4 < 2 ? kV4 : kV6, server.port());
        EXPECT_EQ(i % 2 == 0 ? AskUpload(socket, 1, 2'000'000)
                             : AskDownload(socket, 2, 2'000'000),
                  "");
        ++transfers;
      }
    });
  }
  size_t most = 0;
  const auto end = Clock::now() + seconds(8);
  while (Clock::now() < end) {
    most = std::max(most, CountedBytes(pid));
    std::this_thread::sleep_for(milliseconds(10));
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, kLimit);
  EXPECT_GT(transfers, 50u);
  open(5'000);
  const size_t many = CountedBytes(pid);
  // Idle: TIME_WAIT is over, buffers have gone back, and nobody is woken.
  EXPECT_TRUE(Eventually(
      [&] { return service.control().Stats().tcp().active() == flows.size(); },
      seconds(40)));
  std::this_thread::sleep_for(seconds(4));
  const uint64_t wakeups = service.control().Stats().loop().wakeups();
  const auto quiet = seconds(FullScale() ? 60 : 10);
  std::this_thread::sleep_for(quiet);
  // Asking is one.
  const uint64_t woken =
      service.control().Stats().loop().wakeups() - wakeups - 1;
  EXPECT_EQ(woken, 0u);
  Report("ios_memory",
         "idle " + std::to_string(idle / 1024) + " KiB, 500 flows under load (" +
             std::to_string(transfers) + " transfers of 2 MB) at most " +
             std::to_string(most / 1024) + " KiB, 5,000 idle flows " +
             std::to_string(many / 1024) + " KiB; loop woken " +
             std::to_string(woken) + " times in " +
             std::to_string(quiet.count()) + " s idle");
}

}  // namespace
}  // namespace netstack::e2e

// C2: how connections end, and how they fail to begin: the app sees through
// the TUN what a direct route would show.
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <cerrno>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/e2e/support/pattern.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

class OutcomeTest : public testing::TestWithParam<const Family*> {
 protected:
  const Family& family() const { return *GetParam(); }

  // An app's connection and the server's end of it.
  struct Pair {
    Tcp app;
    Tcp server;
  };
  Pair Connect() {
    Pair pair;
    pair.app = Tcp(World().app(), family().family);
    EXPECT_EQ(
        pair.app.Connect(Address(family().tunnel, listener_.Local().port())),
        0);
    pair.server = AcceptOne(listener_);
    EXPECT_TRUE(pair.server.ok());
    return pair;
  }

  // The state of the only flow.
  v1::FlowState State() {
    const auto flows = service_.control().Flows();
    EXPECT_EQ(flows.size(), 1u);
    return flows.empty() ? v1::FLOW_STATE_UNSPECIFIED : flows[0].state();
  }
  bool StateBecomes(v1::FlowState state) {
    return Eventually([&] { return State() == state; }, seconds(5));
  }
  bool ClosedBecomes(v1::CloseReason reason, uint64_t flows) {
    return Eventually(
        [&] { return service_.control().Closed(reason) == flows; });
  }

  // errno and seconds of a connection to port 80.
  struct Attempt {
    int error;
    double seconds;
  };
  Attempt TryConnect(const std::string& to) {
    Tcp socket(World().app(), family().family);
    const auto start = Clock::now();
    const int error = socket.Connect(Address(to, 80));
    return {error, SecondsSince(start)};
  }

  // The same bad place without the service: another address of its prefix,
  // routed over the direct veth.
  std::string Direct(const std::string& place) {
    const bool v4 = family().family == AF_INET;
    std::string other = place;
    other.back() = '9';
    Ip("-n " + World().app() + (v4 ? "" : " -6") + " route replace " + other +
       " via " + family().direct + " dev as");
    return other;
  }
  void ExpectAsDirect(const std::string& place, int error) {
    const Attempt direct = TryConnect(Direct(place));
    const Attempt tunnel = TryConnect(place);
    EXPECT_EQ(direct.error, error) << "the topology is not as expected";
    EXPECT_EQ(tunnel.error, error) << std::strerror(tunnel.error);
    // A SYN may have to be repeated on the host side (see deploy/topology).
    EXPECT_LT(tunnel.seconds, direct.seconds + 1.3);
  }

  Tcp listener_ = Listen(World().srv());
  // Flows count as closed after their TIME_WAIT.
  Service service_{{.config = "tcp { time_wait { seconds: 1 } }"}};
};

TEST_P(OutcomeTest, AppClosesItsHalfFirst) {
  Pair pair = Connect();
  ASSERT_EQ(pair.app.Send(Pattern(1, 5'000)), 0);
  pair.app.ShutdownWrite();
  EXPECT_EQ(pair.server.ReceiveAll(), Pattern(1, 5'000));
  EXPECT_TRUE(StateBecomes(v1::FLOW_STATE_APP_CLOSED));
  // The other half stays open for as long as anyone likes.
  Pause(seconds(1));
  std::thread sender([&] {
    EXPECT_EQ(pair.server.Send(Pattern(2, 3'000'000)), 0);
    pair.server.Close();
  });
  EXPECT_EQ(pair.app.ReceiveAll(), Pattern(2, 3'000'000));
  sender.join();
  EXPECT_TRUE(ClosedBecomes(v1::CLOSE_REASON_FINISHED, 1));
}

TEST_P(OutcomeTest, ServerClosesItsHalfFirst) {
  Pair pair = Connect();
  ASSERT_EQ(pair.server.Send(Pattern(1, 5'000)), 0);
  pair.server.ShutdownWrite();
  EXPECT_EQ(pair.app.ReceiveAll(), Pattern(1, 5'000));
  EXPECT_TRUE(StateBecomes(v1::FLOW_STATE_HOST_CLOSED));
  Pause(seconds(1));
  std::thread sender([&] {
    EXPECT_EQ(pair.app.Send(Pattern(2, 3'000'000)), 0);
    pair.app.Close();
  });
  EXPECT_EQ(pair.server.ReceiveAll(), Pattern(2, 3'000'000));
  sender.join();
  EXPECT_TRUE(ClosedBecomes(v1::CLOSE_REASON_FINISHED, 1));
}

TEST_P(OutcomeTest, AppResets) {
  Pair pair = Connect();
  ASSERT_EQ(pair.app.Send(Pattern(1, 10)), 0);
  EXPECT_EQ(pair.server.Receive(10), Pattern(1, 10));
  pair.app.Abort();
  EXPECT_EQ(pair.server.ReadError(), ECONNRESET);
  EXPECT_TRUE(ClosedBecomes(v1::CLOSE_REASON_APP_RESET, 1));
}

TEST_P(OutcomeTest, ServerResets) {
  Pair pair = Connect();
  ASSERT_EQ(pair.server.Send(Pattern(1, 10)), 0);
  EXPECT_EQ(pair.app.Receive(10), Pattern(1, 10));
  pair.server.Abort();
  EXPECT_EQ(pair.app.ReadError(), ECONNRESET);
  EXPECT_TRUE(ClosedBecomes(v1::CLOSE_REASON_HOST_RESET, 1));
}

// In the middle of a transfer that fills every buffer.
TEST_P(OutcomeTest, ServerResetsWhileTheAppSends) {
  Pair pair = Connect();
  std::thread reader([&] {
    pair.server.Receive(1'000'000);
    pair.server.Abort();
  });
  const Transfer sent = pair.app.SendPattern(1, 100'000'000);
  reader.join();
  EXPECT_TRUE(sent.error == ECONNRESET || sent.error == EPIPE) << sent.error;
}

TEST_P(OutcomeTest, AppResetsWhileTheServerSends) {
  Pair pair = Connect();
  std::thread reader([&] {
    pair.app.Receive(1'000'000);
    pair.app.Abort();
  });
  const Transfer sent = pair.server.SendPattern(1, 100'000'000);
  reader.join();
  EXPECT_TRUE(sent.error == ECONNRESET || sent.error == EPIPE) << sent.error;
}

// A half-closed flow can still be reset from either side.
TEST_P(OutcomeTest, ResetAfterHalfClose) {
  Pair pair = Connect();
  pair.app.ShutdownWrite();
  EXPECT_TRUE(pair.server.AtEnd());
  pair.server.Abort();
  EXPECT_EQ(pair.app.ReadError(), ECONNRESET);

  Pair other = Connect();
  other.server.ShutdownWrite();
  EXPECT_TRUE(other.app.AtEnd());
  other.app.Abort();
  EXPECT_EQ(other.server.ReadError(), ECONNRESET);
}

TEST_P(OutcomeTest, Refused) {
  // Port 80 of srv has no listener.
  const Attempt direct = TryConnect(family().direct);
  const Attempt tunnel = TryConnect(family().tunnel);
  EXPECT_EQ(direct.error, ECONNREFUSED);
  EXPECT_EQ(tunnel.error, ECONNREFUSED) << std::strerror(tunnel.error);
  EXPECT_LT(tunnel.seconds, 0.5);
  EXPECT_EQ(service_.control().Closed(v1::CLOSE_REASON_REFUSED), 1u);
}

TEST_P(OutcomeTest, HostUnreachable) {
  ExpectAsDirect(family().unreachable, EHOSTUNREACH);
  EXPECT_EQ(service_.control().Closed(v1::CLOSE_REASON_UNREACHABLE), 1u);
}

TEST_P(OutcomeTest, Prohibited) {
  // RFC 1812's code 13 is "host unreachable" to an IPv4 socket.
  ExpectAsDirect(family().prohibited,
                 family().family == AF_INET ? EHOSTUNREACH : EACCES);
}

TEST_P(OutcomeTest, NetworkUnreachable) {
  ExpectAsDirect(family().no_route, ENETUNREACH);
}

// Without any route in gw, as with IPv4-only uplinks: the app hears of it at
// once, so that it can take its other address (Happy Eyeballs).
TEST_P(OutcomeTest, NoRouteOfTheServiceIsToldAtOnce) {
  const std::string route = "-n " + World().gw() +
                            (family().family == AF_INET ? "" : " -6") +
                            " route ";
  const std::string router =
      family().family == AF_INET ? "10.77.1.2" : "fd77:1::2";
  Ip(route + "del default");
  const Attempt attempt = TryConnect(family().no_route);
  Ip(route + "add default via " + router);
  EXPECT_EQ(attempt.error, ENETUNREACH) << std::strerror(attempt.error);
  EXPECT_LT(attempt.seconds, 0.5);
}

TEST_P(OutcomeTest, BlackHoleIsUnreachableAfterTheDialTimeout) {
  const double timeout = FullScale() ? 30 : 2;
  if (!FullScale()) {
    ASSERT_TRUE(
        service_.control().Update("tcp { dial_timeout { seconds: 2 } }").ok());
  }
  const Attempt attempt = TryConnect(family().black_hole);
  EXPECT_EQ(attempt.error, EHOSTUNREACH) << std::strerror(attempt.error);
  EXPECT_NEAR(attempt.seconds, timeout, 1);
  std::printf("given up after %.2f s\n", attempt.seconds);
  EXPECT_EQ(service_.control().Closed(v1::CLOSE_REASON_DIAL_TIMEOUT), 1u);
  EXPECT_EQ(service_.control().Stats().tcp().half_open(), 0u);
}

// An app that gives up sends nothing: its dial must end all the same.
TEST_P(OutcomeTest, AppGivesUpWhileDialing) {
  ASSERT_TRUE(
      service_.control().Update("tcp { dial_timeout { seconds: 1 } }").ok());
  Tcp socket(World().app(), family().family);
  EXPECT_EQ(socket.ConnectStart(Address(family().black_hole, 80)), EINPROGRESS);
  EXPECT_TRUE(StateBecomes(v1::FLOW_STATE_DIALING));
  socket.Close();
  EXPECT_TRUE(Eventually([&] { return service_.control().Flows().empty(); }));
}

// A server that reads nothing stops the app, and does not fill the service.
TEST_P(OutcomeTest, ZeroWindowOfTheServer) {
  constexpr uint64_t kSize = 60'000'000;
  Pair pair = Connect();
  Transfer sent;
  std::thread sender([&] {
    sent = pair.app.SendPattern(1, kSize);
    pair.app.ShutdownWrite();
  });
  Pause(seconds(3));
  const auto flows = service_.control().Flows();
  ASSERT_EQ(flows.size(), 1u);
  EXPECT_LE(flows[0].outbound_buffered(), 1u << 20);  // tcp.buffer_max
  EXPECT_LT(flows[0].outbound_bytes(), kSize);
  EXPECT_EQ(Describe(pair.server.ReceivePattern(1, kSize), kSize), "");
  EXPECT_TRUE(pair.server.AtEnd());
  sender.join();
  EXPECT_EQ(Describe(sent, kSize), "");
  EXPECT_GT(sent.longest_wait, 1);  // it was stopped
}

TEST_P(OutcomeTest, ZeroWindowOfTheApp) {
  constexpr uint64_t kSize = 60'000'000;
  Pair pair = Connect();
  Transfer sent;
  std::thread sender([&] {
    sent = pair.server.SendPattern(1, kSize);
    pair.server.ShutdownWrite();
  });
  Pause(seconds(3));
  const auto flows = service_.control().Flows();
  ASSERT_EQ(flows.size(), 1u);
  EXPECT_LE(flows[0].inbound_buffered(), 1u << 20);  // tcp.buffer_max
  EXPECT_LT(flows[0].inbound_bytes(), kSize);
  EXPECT_EQ(Describe(pair.app.ReceivePattern(1, kSize), kSize), "");
  EXPECT_TRUE(pair.app.AtEnd());
  sender.join();
  EXPECT_EQ(Describe(sent, kSize), "");
  EXPECT_GT(sent.longest_wait, 1);
}

TEST_P(OutcomeTest, SimultaneousClose) {
  constexpr int kTimes = 50;
  for (int i = 0; i < kTimes; ++i) {
    SCOPED_TRACE(i);
    Pair pair = Connect();
    ASSERT_EQ(pair.app.Send(Pattern(1, 10'000)), 0);
    ASSERT_EQ(pair.server.Send(Pattern(2, 10'000)), 0);
    std::thread other([&] { pair.server.ShutdownWrite(); });
    pair.app.ShutdownWrite();
    other.join();
    EXPECT_EQ(pair.app.ReceiveAll(), Pattern(2, 10'000));
    EXPECT_EQ(pair.server.ReceiveAll(), Pattern(1, 10'000));
    EXPECT_EQ(pair.app.ReadError(), 0);
    EXPECT_EQ(pair.server.ReadError(), 0);
  }
  EXPECT_TRUE(ClosedBecomes(v1::CLOSE_REASON_FINISHED, kTimes));
}

// Told in the README: urgent data arrives in-band (RFC 6093).
TEST_P(OutcomeTest, UrgentDataIsInBand) {
  Pair pair = Connect();
  const auto send_urgent = [](Tcp& from) {
    EXPECT_EQ(from.Send(std::string("before ")), 0);
    EXPECT_EQ(send(from.fd(), "!", 1, MSG_OOB), 1);
    EXPECT_EQ(from.Send(std::string(" after")), 0);
    from.ShutdownWrite();
  };
  send_urgent(pair.app);
  EXPECT_EQ(pair.server.ReceiveAll(), "before ! after");
  send_urgent(pair.server);
  EXPECT_EQ(pair.app.ReceiveAll(), "before ! after");
}

// Nothing is accepted for a server before it accepted: its backlog of one is
// full, so the app waits as it would without the service.
TEST_P(OutcomeTest, ConnectWaitsForTheServer) {
  Tcp full = Listen(World().srv(), 0, 0);
  const Address to(family().tunnel, full.Local().port());
  const Address direct(family().direct, full.Local().port());
  // Fills the backlog directly.
  Tcp first(World().app(), family().family);
  ASSERT_EQ(first.Connect(direct), 0);
  Tcp waiting(World().app(), family().family);
  EXPECT_EQ(waiting.ConnectStart(to), EINPROGRESS);
  EXPECT_EQ(waiting.ConnectResult(milliseconds(500)), ETIMEDOUT);
  EXPECT_TRUE(AcceptOne(full).ok());
  EXPECT_EQ(waiting.ConnectResult(seconds(10)), 0);
}

INSTANTIATE_TEST_SUITE_P(Every, OutcomeTest, testing::Values(&kV4, &kV6),
                         FamilyName);

}  // namespace
}  // namespace netstack::e2e

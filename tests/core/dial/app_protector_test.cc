// Asking an app to protect sockets, and what a dial does meanwhile:
// core/dial/app_protector and the dialer's side of it.
#include "core/dial/app_protector.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/dial/dialer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/wire/test_packets.h"
#include "tests/support/scripted_poller.h"
#include "tests/support/scripted_sockets.h"

namespace netstack::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// The app's side of the connections, as a script.
class ScriptedApp final : public LocalSockets {
 public:
  struct Sent {
    int connection;
    std::string bytes;
    int passed;
  };

  int connect_result = 0;  // a negative errno: nobody listens
  std::optional<uint32_t> uid = 1000;
  int64_t send_result = 0;  // a negative errno, for every Send()
  std::vector<Sent> sent;
  std::vector<std::string> paths;  // of connect()
  std::vector<int> closed;

  // What Receive() gives next; an empty one is the end of the stream.
  void Answer(int connection, const std::string& bytes) {
    answers_[connection].push_back(bytes);
  }

  int Connect(const std::string& path) override {
    paths.push_back(path);
    return connect_result != 0 ? connect_result : next_++;
  }
  std::optional<uint32_t> PeerUid(int) override { return uid; }
  uint32_t OwnUid() override { return 1000; }
  int64_t Send(int fd, Bytes bytes, int pass) override {
    if (send_result != 0) return send_result;
    sent.push_back({fd,
                    {reinterpret_cast<const char*>(bytes.data()),
                     bytes.size()},
                    pass});
    return static_cast<int64_t>(bytes.size());
  }
  int64_t Receive(int fd, MutableBytes into) override {
    auto& queue = answers_[fd];
    if (queue.empty()) return -EAGAIN;
    const std::string next = queue.front();
    queue.pop_front();
    EXPECT_LE(next.size(), into.size());
    std::memcpy(into.data(), next.data(), next.size());
    return static_cast<int64_t>(next.size());
  }
  void Close(int fd) override { closed.push_back(fd); }

 private:
  int next_ = 500;
  std::map<int, std::deque<std::string>> answers_;
};

class ProtectTest : public testing::TestWithParam<const Family*>,
                    public DialListener {
 protected:
  static constexpr PollToken kToken{PollToken::Kind::kTcpFlow, 7, 3};

  Endpoint to() const { return {GetParam()->remote, 443}; }

  void Use(ProtectProtocol protocol, uint32_t pool = 0) {
    AppProtector::Options options;
    options.path = "/run/app";
    options.protocol = protocol;
    dialer.set_now(now);
    dialer.SetAppProtector(
        std::make_unique<AppProtector>(&app, &poller, &dialer, options),
        {pool, pool, std::min(pool, 1u)}, this);
  }
  void OnProtectorDown() override { ++down; }
  Dial Begin() { return dialer.DialTcp(to(), 0, kToken); }
  DialOutcome Finish(int fd) {
    return dialer.FinishDial(fd, GetParam()->v4());
  }

  // A pipelined answer to the request at `index`.
  std::string AnswerTo(size_t index, bool yes) {
    std::string answer = app.sent[index].bytes.substr(0, 4);
    answer += yes ? '\0' : '\1';
    return answer + std::string(3, '\0');
  }
  void Readable(int connection_index, uint32_t generation = 1) {
    PollEvent event;
    event.token = {PollToken::Kind::kProtect, generation,
                   static_cast<uint32_t>(connection_index)};
    event.readable = true;
    dialer.OnPoll(event, now);
  }
  // What the loop does at the end of a turn.
  std::vector<PollEvent> Turn() {
    dialer.OnTurn(now);
    std::vector<PollEvent> events;
    while (const auto event = dialer.TakeEvent()) events.push_back(*event);
    return events;
  }

  ScriptedApp app;
  ScriptedPoller poller;
  ScriptedSockets sockets;
  Dialer dialer{&sockets, {}};
  Instant now{seconds(1000)};
  int down = 0;
};
INSTANTIATE_TEST_SUITE_P(Families, ProtectTest, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TEST_P(ProtectTest, NothingIsConnectedBeforeTheAppSaysYes) {
  Use(ProtectProtocol::kPipelined);
  const Dial dial = Begin();
  EXPECT_EQ(dial.outcome, DialOutcome::kInProgress);
  EXPECT_THAT(sockets.last().calls, IsEmpty());
  ASSERT_THAT(app.sent, SizeIs(1));
  EXPECT_EQ(app.sent[0].passed, dial.fd);
  EXPECT_EQ(app.sent[0].bytes.size(), 8u);
  EXPECT_EQ(app.sent[0].bytes[4], 6) << "TCP";
  EXPECT_EQ(app.sent[0].bytes[5], GetParam()->v4() ? 4 : 6);
  EXPECT_THAT(app.paths, ElementsAre("/run/app"));
  // The poller reports an unconnected socket as hung up; it is no failure.
  EXPECT_EQ(Finish(dial.fd), DialOutcome::kInProgress);

  app.Answer(500, AnswerTo(0, true));
  Readable(0);
  EXPECT_THAT(Turn(), IsEmpty()) << "the poller tells the rest";
  EXPECT_THAT(sockets.last().calls, ElementsAre("Connect"));
  EXPECT_EQ(sockets.last().connected_to, to());
  EXPECT_EQ(Finish(dial.fd), DialOutcome::kConnected);
  EXPECT_EQ(dialer.stats().protect_asked, 1u);
  EXPECT_EQ(dialer.stats().connected, 1u);
}

TEST_P(ProtectTest, ARefusalFailsTheDialAndNothingIsConnected) {
  Use(ProtectProtocol::kPipelined);
  const Dial dial = Begin();
  app.Answer(500, AnswerTo(0, false));
  Readable(0);
  const std::vector<PollEvent> events = Turn();
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].token.Pack(), kToken.Pack());
  EXPECT_EQ(Finish(dial.fd), DialOutcome::kProtectFailed);
  dialer.Close(dial.fd, false);
  EXPECT_THAT(sockets.last().calls, ElementsAre("Close"));
  EXPECT_EQ(dialer.stats().protect_refused, 1u);
  EXPECT_EQ(dialer.stats().protect_failed, 1u);
  EXPECT_EQ(down, 0) << "it is there, and says no";
  EXPECT_EQ(dialer.in_use(), 0u);
}

TEST_P(ProtectTest, AnAppThatIsNotThereFailsTheDialAtOnce) {
  for (const auto protocol :
       {ProtectProtocol::kPipelined, ProtectProtocol::kProtectPath}) {
    Use(protocol);
    app.connect_result = -ECONNREFUSED;
    const int before = down;
    const Dial dial = Begin();
    ASSERT_EQ(dial.outcome, DialOutcome::kInProgress);
    EXPECT_LE(dialer.next_deadline(now), now);
    ASSERT_THAT(Turn(), SizeIs(1));
    EXPECT_EQ(Finish(dial.fd), DialOutcome::kProtectFailed);
    dialer.Close(dial.fd, false);
    EXPECT_EQ(down, before + 1);
    EXPECT_THAT(sockets.last().calls, ElementsAre("Close"));
  }
}

TEST_P(ProtectTest, ASilentAppFailsTheDialInTime) {
  for (const auto protocol :
       {ProtectProtocol::kPipelined, ProtectProtocol::kProtectPath}) {
    Use(protocol);
    const Dial dial = Begin();
    EXPECT_EQ(dialer.next_deadline(now), now + seconds(2));
    now += milliseconds(1999);
    EXPECT_THAT(Turn(), IsEmpty());
    now += milliseconds(1);
    ASSERT_THAT(Turn(), SizeIs(1));
    EXPECT_EQ(Finish(dial.fd), DialOutcome::kProtectFailed);
    dialer.Close(dial.fd, false);
    EXPECT_EQ(dialer.next_deadline(now), kNever);
  }
}

// The loop may have slept for hours before a dial.
TEST_P(ProtectTest, TheTimeoutCountsFromTheQuestion) {
  Use(ProtectProtocol::kPipelined);
  Turn();
  now += std::chrono::hours(1);
  dialer.set_now(now);
  const Dial dial = Begin();
  EXPECT_THAT(Turn(), IsEmpty());
  EXPECT_EQ(Finish(dial.fd), DialOutcome::kInProgress);
  dialer.Close(dial.fd, false);
}

TEST_P(ProtectTest, AForeignListenerIsNotTrusted) {
  Use(ProtectProtocol::kPipelined);
  app.uid = 4242;
  const Dial dial = Begin();
  ASSERT_THAT(Turn(), SizeIs(1));
  EXPECT_EQ(Finish(dial.fd), DialOutcome::kProtectFailed);
  EXPECT_THAT(app.sent, IsEmpty()) << "it was given a socket";
  dialer.Close(dial.fd, false);
}

TEST_P(ProtectTest, AnswersMayComeInAnyOrderAndInPieces) {
  Use(ProtectProtocol::kPipelined);
  const Dial a = Begin();
  const Dial b = Begin();
  ASSERT_THAT(app.sent, SizeIs(2));
  EXPECT_EQ(app.sent[0].connection, app.sent[1].connection);
  const std::string both = AnswerTo(1, true) + AnswerTo(0, false);
  app.Answer(500, both.substr(0, 3));
  Readable(0);
  EXPECT_THAT(Turn(), IsEmpty());
  app.Answer(500, both.substr(3));
  Readable(0);
  EXPECT_THAT(Turn(), SizeIs(1));
  EXPECT_EQ(Finish(a.fd), DialOutcome::kProtectFailed);
  EXPECT_THAT(sockets.Get(b.fd).calls, ElementsAre("Connect"));
  dialer.Close(a.fd, false);
  dialer.Close(b.fd, false);
}

TEST_P(ProtectTest, ADeadConnectionFailsWhatWasAskedAndIsMadeAgain) {
  Use(ProtectProtocol::kPipelined);
  const Dial a = Begin();
  app.Answer(500, "");  // the end
  Readable(0);
  ASSERT_THAT(Turn(), SizeIs(1));
  EXPECT_EQ(Finish(a.fd), DialOutcome::kProtectFailed);
  EXPECT_THAT(app.closed, ElementsAre(500));
  dialer.Close(a.fd, false);
  const Dial b = Begin();
  ASSERT_THAT(app.sent, SizeIs(2));
  EXPECT_EQ(app.sent[1].connection, 501);
  // A late event of the old connection is nobody's.
  Readable(0, 1);
  app.Answer(501, AnswerTo(1, true));
  Readable(0, 2);
  Turn();
  EXPECT_THAT(sockets.Get(b.fd).calls, ElementsAre("Connect"));
  dialer.Close(b.fd, false);
}

TEST_P(ProtectTest, AGarbledAnswerClosesTheConnection) {
  Use(ProtectProtocol::kPipelined);
  const Dial dial = Begin();
  app.Answer(500, AnswerTo(0, true).substr(0, 7) + "x");
  Readable(0);
  ASSERT_THAT(Turn(), SizeIs(1));
  EXPECT_EQ(Finish(dial.fd), DialOutcome::kProtectFailed);
  EXPECT_THAT(app.closed, ElementsAre(500));
  dialer.Close(dial.fd, false);
}

TEST_P(ProtectTest, AGivenUpDialIsNotConnectedByALateAnswer) {
  for (const auto protocol :
       {ProtectProtocol::kPipelined, ProtectProtocol::kProtectPath}) {
    Use(protocol);
    app.sent.clear();
    const Dial dial = Begin();
    ASSERT_THAT(app.sent, SizeIs(1));
    const int connection = app.sent[0].connection;
    dialer.Close(dial.fd, false);
    app.Answer(connection, protocol == ProtectProtocol::kPipelined
                               ? AnswerTo(0, true)
                               : std::string(1, '\0'));
    Readable(0);
    EXPECT_THAT(Turn(), IsEmpty());
    EXPECT_THAT(sockets.Get(dial.fd).calls, testing::Each("Close"));
    EXPECT_EQ(dialer.stats().protecting, 0u);
  }
}

TEST_P(ProtectTest, ProtectPathHasAConnectionForEachSocket) {
  Use(ProtectProtocol::kProtectPath);
  std::vector<Dial> dials;
  for (size_t i = 0; i < AppProtector::kConnections + 3; ++i) {
    dials.push_back(Begin());
  }
  ASSERT_THAT(app.sent, SizeIs(AppProtector::kConnections));
  for (size_t i = 0; i < AppProtector::kConnections; ++i) {
    EXPECT_EQ(app.sent[i].bytes.size(), 1u);
    EXPECT_EQ(app.sent[i].passed, dials[i].fd);
    EXPECT_EQ(app.sent[i].connection, 500 + static_cast<int>(i));
  }
  app.Answer(500, std::string(1, '\0'));
  Readable(0);
  app.Answer(501, std::string(1, '\1'));
  Readable(1);
  EXPECT_THAT(Turn(), SizeIs(1)) << "the refusal";
  EXPECT_THAT(sockets.Get(dials[0].fd).calls, ElementsAre("Connect"));
  EXPECT_EQ(Finish(dials[1].fd), DialOutcome::kProtectFailed);
  EXPECT_THAT(app.sent, SizeIs(AppProtector::kConnections + 2))
      << "places that became free were not used";
  for (const Dial& d : dials) dialer.Close(d.fd, false);
}

TEST_P(ProtectTest, AFullBacklogIsTriedAgain) {
  Use(ProtectProtocol::kProtectPath);
  app.connect_result = -EAGAIN;
  const Dial dial = Begin();
  EXPECT_THAT(Turn(), IsEmpty());
  EXPECT_LE(dialer.next_deadline(now), now + milliseconds(10));
  app.connect_result = 0;
  now += milliseconds(10);
  EXPECT_THAT(Turn(), IsEmpty());
  EXPECT_THAT(app.sent, SizeIs(1));
  dialer.Close(dial.fd, false);
}

TEST_P(ProtectTest, ThePoolServesAtOnceAndIsFilledAgain) {
  Use(ProtectProtocol::kPipelined, 2);
  Turn();
  // Two of TCP and UDP and one echo socket, of both families.
  ASSERT_THAT(app.sent, SizeIs(10));
  for (size_t i = 0; i < 10; ++i) app.Answer(500, AnswerTo(i, true));
  Readable(0);
  Turn();
  EXPECT_EQ(dialer.stats().pool_ready, 10u);
  EXPECT_EQ(dialer.next_deadline(now), kNever) << "an idle pool wakes nobody";

  const Dial dial = Begin();
  EXPECT_EQ(dial.outcome, DialOutcome::kInProgress);
  EXPECT_THAT(sockets.Get(dial.fd).calls, ElementsAre("Connect"));
  EXPECT_EQ(dialer.stats().pool_hits, 1u);
  const Dial udp = dialer.Open(SocketKind::kUdp, GetParam()->v4());
  EXPECT_EQ(udp.outcome, DialOutcome::kConnected);
  Turn();
  EXPECT_THAT(app.sent, SizeIs(12)) << "the pool was not filled again";
  dialer.Close(dial.fd, false);
  dialer.Close(udp.fd, false);
}

TEST_P(ProtectTest, AnEmptyPoolMakesDialsAskAndDatagramsWait) {
  Use(ProtectProtocol::kPipelined, 1);
  Turn();
  const Dial udp = dialer.Open(SocketKind::kUdp, GetParam()->v4());
  EXPECT_EQ(udp.outcome, DialOutcome::kNotReady);
  EXPECT_EQ(udp.fd, -1);
  const Dial tcp = Begin();
  EXPECT_EQ(tcp.outcome, DialOutcome::kInProgress);
  EXPECT_THAT(sockets.Get(tcp.fd).calls, IsEmpty());
  EXPECT_EQ(dialer.DialTcp(to()).outcome, DialOutcome::kNotReady)
      << "without a token nobody could be told";
  EXPECT_EQ(dialer.stats().pool_misses, 3u);
  dialer.Close(tcp.fd, false);
}

TEST_P(ProtectTest, ARefusedPoolIsNotAskedForInACircle) {
  Use(ProtectProtocol::kPipelined, 1);
  app.connect_result = -ECONNREFUSED;
  Turn();
  Turn();
  const size_t tried = app.paths.size();
  EXPECT_GT(dialer.next_deadline(now), now);
  for (int i = 0; i < 10; ++i) Turn();
  EXPECT_EQ(app.paths.size(), tried);
  now += seconds(1);
  Turn();
  EXPECT_GT(app.paths.size(), tried);
}

TEST_P(ProtectTest, ChangedProtectionEmptiesThePool) {
  Use(ProtectProtocol::kPipelined, 1);
  Turn();
  for (size_t i = 0; i < app.sent.size(); ++i) {
    app.Answer(500, AnswerTo(i, true));
  }
  Readable(0);
  Turn();
  ASSERT_EQ(dialer.stats().pool_ready, 6u);
  dialer.FlushPool();
  EXPECT_EQ(dialer.stats().pool_ready, 0u);
  EXPECT_EQ(dialer.in_use(), 0u);
  EXPECT_EQ(sockets.open_count(), 0u);
}

TEST_P(ProtectTest, OurOwnSynIsKnownWhileItsDialIsUnderWay) {
  const Dial dial = dialer.DialTcp(to());
  const Endpoint local = sockets.last().local;
  EXPECT_TRUE(dialer.IsOwnDial(local, to()));
  EXPECT_FALSE(dialer.IsOwnDial(local, {to().ip, 444}));
  EXPECT_FALSE(dialer.IsOwnDial({local.ip, 50001}, to()));
  EXPECT_EQ(Finish(dial.fd), DialOutcome::kConnected);
  EXPECT_FALSE(dialer.IsOwnDial(local, to()));
  dialer.Close(dial.fd, false);
}

}  // namespace
}  // namespace netstack::test

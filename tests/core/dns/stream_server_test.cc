// DNS over TCP as a server: framing, pipelining, backpressure, ends.
#include "core/dns/stream_server.h"

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/scripted_poller.h"
#include "tests/support/scripted_sockets.h"

namespace netstack::dns {
namespace {

using std::chrono::seconds;
using test::ScriptedSocket;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

const Endpoint kApp{IpAddress::V4(10, 0, 0, 2), 40000};
const Endpoint kServer{IpAddress::V4(192, 0, 2, 53), 53};

Bytes AsBytes(absl::string_view s) {
  return {reinterpret_cast<const std::byte*>(s.data()), s.size()};
}
std::string Text(Bytes b) {
  return {reinterpret_cast<const char*>(b.data()), b.size()};
}
// A query of 12 bytes that is told by its first one.
std::string Query(char name) { return std::string(1, name) + "-----------"; }
std::string Framed(const std::string& message) {
  return std::string{static_cast<char>(message.size() >> 8),
                     static_cast<char>(message.size() & 0xFF)} +
         message;
}

// Keeps what is asked until the test answers, or answers at once.
class Asker final : public StreamAsker {
 public:
  bool HasRoom() const override { return room; }
  void AskFromStream(const StreamRef& from, const Endpoint& app,
                     const Endpoint& to, Bytes query, Instant now) override {
    EXPECT_EQ(app, kApp);
    EXPECT_EQ(to, kServer);
    queries.push_back(Text(query));
    refs.push_back(from);
    if (echo) server->Answer(from, query, now);
  }

  StreamServer* server = nullptr;
  bool room = true;
  bool echo = false;
  std::vector<std::string> queries;
  std::vector<StreamRef> refs;
};

class StreamServerTest : public testing::Test {
 protected:
  StreamServerTest() { Make({}); }

  void Make(const StreamServer::Options& options) {
    server_ = std::make_unique<StreamServer>(&sockets_, &poller_, &asker_,
                                             options, clock_.Now());
    asker_.server = server_.get();
  }
  ~StreamServerTest() override {
    server_.reset();
    for (int fd : apps_) {
      if (!sockets_.Get(fd).closed) sockets_.Close(fd, false);
    }
    EXPECT_EQ(sockets_.open_count(), 0u);
  }

  int Open() {
    const int fd = server_->Open(kApp, kServer, clock_.Now());
    if (fd >= 0) apps_.push_back(fd);
    return fd;
  }
  // The app's end of a connection, and ours.
  ScriptedSocket& app(size_t i = 0) { return sockets_.Get(apps_.at(i)); }
  ScriptedSocket& ours(size_t i = 0) { return *app(i).peer; }

  void Write(absl::string_view bytes, size_t i = 0) {
    const Bytes part = AsBytes(bytes);
    ASSERT_EQ(sockets_.Send(app(i).fd, {&part, 1}),
              static_cast<int64_t>(bytes.size()));
    Event(i, {.token = {}, .readable = true});
  }
  void Event(size_t i, PollEvent event) {
    const auto watch = poller_.watch(ours(i).fd);
    ASSERT_TRUE(watch.has_value());
    EXPECT_EQ(watch->token.kind, PollToken::Kind::kDnsStream);
    event.token = watch->token;
    server_->OnSocket(event, clock_.Now());
    Turn();
  }
  void Turn() {
    do {
      server_->OnTurn(clock_.Now());
    } while (server_->next_deadline() <= clock_.Now());
  }
  void Answer(size_t query, absl::string_view message) {
    server_->Answer(asker_.refs.at(query), AsBytes(message), clock_.Now());
    Turn();
  }
  std::string sent(size_t i = 0) { return std::exchange(ours(i).sent, ""); }

  test::FakeClock clock_;
  test::ScriptedSockets sockets_;
  test::ScriptedPoller poller_;
  Asker asker_;
  std::unique_ptr<StreamServer> server_;
  std::vector<int> apps_;
};

TEST_F(StreamServerTest, AnswersAsTheyComeAndOutOfOrder) {
  Open();
  Write(Framed(Query('a')) + Framed(Query('b')) + Framed(Query('c')));
  EXPECT_THAT(asker_.queries, ElementsAre(Query('a'), Query('b'), Query('c')));
  Answer(2, "third");
  EXPECT_EQ(sent(), Framed("third"));
  Answer(0, "first");
  Answer(1, "second");
  EXPECT_EQ(sent(), Framed("first") + Framed("second"));
}

TEST_F(StreamServerTest, QueriesMayComeInAnyPieces) {
  Open();
  const std::string all = Framed(Query('a')) + Framed(Query('b'));
  for (char c : all) Write(std::string(1, c));
  EXPECT_THAT(asker_.queries, ElementsAre(Query('a'), Query('b')));
}

TEST_F(StreamServerTest, ALengthThatNoMessageHasEndsTheConnection) {
  Open();
  Write(Framed(Query('a')) + std::string("\0\0", 2) + Framed(Query('b')));
  EXPECT_THAT(asker_.queries, ElementsAre(Query('a')));
  EXPECT_TRUE(app().end);
  EXPECT_EQ(server_->stats().broken, 1u);
  EXPECT_EQ(server_->stats().connections, 0u);
  Answer(0, "late");  // finds nobody
}

TEST_F(StreamServerTest, TheLargestAnswerPasses) {
  Open();
  asker_.echo = true;
  const std::string large(65535, 'x');
  Write(Framed(large));
  EXPECT_EQ(sent(), Framed(large));
}

TEST_F(StreamServerTest, ReadingPausesAtTheLimitOfQueriesUnderWay) {
  StreamServer::Options options;
  options.max_in_flight = 2;
  Make(options);
  Open();
  Write(Framed(Query('a')) + Framed(Query('b')) + Framed(Query('c')) +
        Framed(Query('d')));
  EXPECT_EQ(asker_.queries.size(), 2u);
  EXPECT_EQ(server_->stats().paused, 1u);
  Answer(0, "1");
  EXPECT_EQ(asker_.queries.size(), 3u);
  Answer(1, "2");
  EXPECT_EQ(asker_.queries.size(), 4u);
  Write(Framed(Query('e')));
  EXPECT_EQ(asker_.queries.size(), 4u) << "two are under way";
  EXPECT_GT(ours().unread(), 0u) << "left in the socket, so that TCP waits";
}

TEST_F(StreamServerTest, ReadingPausesWhileTheAppTakesNoAnswers) {
  Open();
  asker_.echo = true;
  ours().send_room = 0;
  const std::string large(60'000, 'x');
  for (int i = 0; i < 5; ++i) Write(Framed(large));
  EXPECT_EQ(asker_.queries.size(), 3u) << "128 KiB of answers wait";
  ours().send_room = 1u << 20;
  Event(0, {.token = {}, .writable = true});
  EXPECT_EQ(asker_.queries.size(), 5u);
  EXPECT_EQ(sent().size(), 5 * 60'002u);
}

TEST_F(StreamServerTest, WaitsWhileTheResolverHasNoRoom) {
  Open();
  asker_.room = false;
  Write(Framed(Query('a')) + Framed(Query('b')));
  EXPECT_THAT(asker_.queries, IsEmpty());
  asker_.room = true;
  Turn();
  EXPECT_THAT(asker_.queries, ElementsAre(Query('a'), Query('b')))
      << "nothing is lost";
}

TEST_F(StreamServerTest, WhatWasAskedIsAnsweredBehindTheAppsEnd) {
  Open();
  Write(Framed(Query('a')));
  ASSERT_EQ(sockets_.ShutdownWrite(app().fd), 0);
  Event(0, {.token = {}, .readable = true, .read_closed = true});
  EXPECT_FALSE(ours().closed);
  Answer(0, "answer");
  EXPECT_EQ(sent(), Framed("answer"));
  EXPECT_TRUE(ours().closed);
  EXPECT_EQ(server_->stats().connections, 0u);
}

TEST_F(StreamServerTest, AnAppThatIsGoneTakesItsQueriesWithIt) {
  Open();
  Write(Framed(Query('a')));
  ours().receive_error = ECONNRESET;
  Event(0, {.token = {}, .readable = true, .read_closed = true, .error = true});
  EXPECT_TRUE(ours().closed);
  Answer(0, "late");
  Open();
  EXPECT_EQ(sent(1), "") << "nor does another connection get it";
}

TEST_F(StreamServerTest, IdleConnectionsAreClosed) {
  Open();
  Write(Framed(Query('a')));
  clock_.Advance(seconds(40));
  Turn();
  EXPECT_FALSE(ours().closed) << "a query is under way";
  Answer(0, "answer");
  clock_.Advance(seconds(29));
  Turn();
  EXPECT_FALSE(ours().closed);
  clock_.Advance(seconds(2));
  Turn();
  EXPECT_TRUE(ours().closed);
  EXPECT_EQ(server_->stats().idle, 1u);
  EXPECT_EQ(server_->next_deadline(), kNever) << "no wake-up is left";
}

TEST_F(StreamServerTest, AnAppThatNeverReadsIsIdleToo) {
  Open();
  asker_.echo = true;
  ours().send_room = 0;
  Write(Framed(Query('a')));
  clock_.Advance(seconds(31));
  Turn();
  EXPECT_TRUE(ours().closed);
}

TEST_F(StreamServerTest, ConnectionsAreLimited) {
  StreamServer::Options options;
  options.max_connections = 2;
  Make(options);
  EXPECT_GE(Open(), 0);
  EXPECT_GE(Open(), 0);
  EXPECT_EQ(Open(), -EMFILE);
  EXPECT_EQ(server_->stats().refused, 1u);
  server_->Shutdown();
  EXPECT_GE(Open(), 0);
}

// Connections that ask nothing keep nobody out for long.
TEST_F(StreamServerTest, TheIdlestMakesRoom) {
  StreamServer::Options options;
  options.max_connections = 3;
  Make(options);
  Open();
  clock_.Advance(std::chrono::milliseconds(200));
  Open();
  Open();
  Write(Framed(Query('a')), 2);  // under way
  clock_.Advance(std::chrono::milliseconds(799));
  EXPECT_EQ(Open(), -EMFILE) << "the idlest had less than a second";
  clock_.Advance(std::chrono::milliseconds(1));
  EXPECT_GE(Open(), 0);
  EXPECT_EQ(server_->stats().idle, 1u);
  EXPECT_EQ(server_->stats().connections, 3u);
  Turn();
  EXPECT_TRUE(ours(0).closed);
  EXPECT_FALSE(ours(1).closed);
  Answer(0, "answer");
  EXPECT_EQ(sent(2), Framed("answer"));
}

TEST_F(StreamServerTest, ADescriptorLimitRefuses) {
  sockets_.open_results = {0, -EMFILE};
  EXPECT_EQ(Open(), -EMFILE);
  EXPECT_EQ(sockets_.open_count(), 0u);
  poller_.add_result = -ENOMEM;
  EXPECT_EQ(Open(), -ENOMEM);
  EXPECT_EQ(sockets_.open_count(), 0u);
  poller_.add_result = 0;
}

TEST_F(StreamServerTest, ManyHeldQueriesNeedNoStack) {
  StreamServer::Options options;
  options.max_in_flight = 1;
  Make(options);
  Open();
  std::string all;
  for (int i = 0; i < 4000; ++i) all += Framed(Query('q'));
  Write(all);
  asker_.echo = true;
  Answer(0, "x");
  EXPECT_EQ(asker_.queries.size(), 4000u);
}

}  // namespace
}  // namespace netstack::dns

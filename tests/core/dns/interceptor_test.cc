// Queries of apps on their way to the resolver and back:
// core/dns/interceptor.h.
#include "core/dns/interceptor.h"

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/dns/test_messages.h"
#include "tests/support/fake_clock.h"
#include "tests/support/scripted_poller.h"
#include "tests/support/scripted_sockets.h"

namespace netstack::dns {
namespace {

using netstack::test::ByteVector;
using test::MessageMaker;
using test::Name;
using ::testing::IsEmpty;

// The resolver of a test: answers when the test says so.
class FakeResolver final : public Resolver {
 public:
  struct Asked {
    Query query;
    DnsTransport transport;
    Callback done;
  };

  Result Resolve(const DnsQuestion& question, Instant, Callback done) override {
    const auto query = ParseQuery(question.message);
    Result result;
    if (!query) {
      DnsReply reply;
      reply.failure = DnsFailure::kMalformed;
      reply.message = WriteFaultAnswer(question.message, query.fault(), out_);
      result.reply = reply;
      return result;
    }
    if (at_once != nullptr) {
      told_ = *query;
      at_once->query = &told_;
      result.reply = *at_once;
      return result;
    }
    asked.push_back({*query, question.transport, std::move(done)});
    result.id = asked.size();
    return result;
  }
  void Answer(size_t i, const ByteVector& message) {
    DnsReply reply;
    reply.message = message;
    reply.query = &asked[i].query;
    reply.source = DnsSource::kUpstream;
    reply.upstream = "up";
    Callback done = std::move(asked[i].done);
    done(reply);
  }

  void Cancel(QueryId) override {}
  void Configure(const DnsResolverOptions&, Instant) override {}
  void OnNetworkChanged(Instant) override {}
  void SetRules(std::shared_ptr<const RuleSet>) override {}
  void SetBlocklist(std::shared_ptr<const Blocklist>) override {}
  size_t FlushCache(absl::string_view, bool) override { return 0; }
  void Shutdown(Instant) override {}
  void OnSocket(const PollEvent&, Instant) override {}
  void OnTurn(Instant) override {}
  Instant next_deadline() const override { return kNever; }
  DnsStats stats() const override { return {}; }
  std::vector<DnsUpstreamInfo> Upstreams(Instant) const override { return {}; }

  std::vector<Asked> asked;
  DnsReply* at_once = nullptr;  // given for every query from now on

 private:
  Query told_;
  std::vector<std::byte> out_ = std::vector<std::byte>(kMaxMessageSize);
};

const Endpoint kApp{IpAddress::V4(10, 0, 0, 2), 40000};
const Endpoint kServer{IpAddress::V4(192, 0, 2, 53), 53};

class Sink final : public Interceptor::Sink {
 public:
  void SendAnswer(const Endpoint& server, const Endpoint& app,
                  Bytes message) override {
    EXPECT_EQ(server, kServer);
    EXPECT_EQ(app.ip, kApp.ip);
    answers.emplace_back(app.port, ByteVector(message.begin(), message.end()));
  }
  void OnQuery(const DnsQueryInfo& query) override { log.push_back(query); }

  std::vector<std::pair<uint16_t, ByteVector>> answers;
  std::vector<DnsQueryInfo> log;
};

class InterceptorTest : public testing::Test {
 protected:
  InterceptorTest() {
    Interceptor::Options options;
    options.max_waiting = 3;
    interceptor_ = std::make_unique<Interceptor>(
        Interceptor::Parts{&resolver_, &addresses_, &sockets_, &poller_,
                           &drops_, &sink_},
        options, clock_.Now());
  }
  void Datagram(uint16_t port, unsigned id, const std::string& name) {
    const ByteVector message = MessageMaker(id, test::kRd).Question(name, 1);
    interceptor_->OnDatagram({kApp.ip, port}, kServer, message, clock_.Now());
  }
  // An answer to the query with that id.
  static ByteVector A(unsigned id, const std::string& name,
                      const std::string& ip) {
    return MessageMaker(id, test::kAnswerFlags)
        .Question(name, 1)
        .Address(name, ip, 60);
  }
  uint64_t dropped(DropReason r) const {
    return drops_.packets()[static_cast<size_t>(r)];
  }

  netstack::test::FakeClock clock_;
  netstack::test::ScriptedSockets sockets_;
  netstack::test::ScriptedPoller poller_;
  DropCounters drops_;
  Sink sink_;
  AddressPolicy addresses_{AddressPolicy::Options{}, SipHashKey{5, 6}};
  FakeResolver resolver_;
  std::unique_ptr<Interceptor> interceptor_;
};

// parity.md, section 2, row 2: the id is the app's, and no key.
TEST_F(InterceptorTest, SameIdsOfDifferentQuestionsAreNotMixedUp) {
  Datagram(1000, 7, "a.example");
  Datagram(1000, 7, "b.example");
  Datagram(1001, 7, "a.example");
  resolver_.Answer(1, A(7, "b.example", "192.0.2.2"));
  resolver_.Answer(2, A(7, "a.example", "192.0.2.1"));
  resolver_.Answer(0, A(7, "a.example", "192.0.2.1"));
  ASSERT_EQ(sink_.answers.size(), 3u);
  EXPECT_EQ(sink_.answers[0].first, 1000);
  EXPECT_EQ(ParseAnswer(sink_.answers[0].second)->name(), Name("b.example"));
  EXPECT_EQ(sink_.answers[1].first, 1001);
  EXPECT_EQ(sink_.answers[2].first, 1000);
}

TEST_F(InterceptorTest, QueriesBeyondTheLimitAreDroppedAndCounted) {
  for (uint16_t i = 0; i < 5; ++i) {
    Datagram(static_cast<uint16_t>(1000 + i), i,
             "h" + std::to_string(i) + ".example");
  }
  EXPECT_EQ(resolver_.asked.size(), 3u);
  EXPECT_EQ(dropped(DropReason::kDnsInFlightLimit), 2u);
  EXPECT_EQ(interceptor_->stats().waiting, 3u);
  EXPECT_FALSE(interceptor_->HasRoom()) << "streams wait";
  resolver_.Answer(0, A(0, "h0.example", "192.0.2.1"));
  EXPECT_TRUE(interceptor_->HasRoom());
  Datagram(2000, 1, "again.example");
  EXPECT_EQ(resolver_.asked.size(), 4u);
}

TEST_F(InterceptorTest, WhatIsNoQueryIsDropped) {
  interceptor_->OnDatagram(kApp, kServer, {}, clock_.Now());
  const ByteVector answer = A(7, "a.example", "192.0.2.1");
  interceptor_->OnDatagram(kApp, kServer, answer, clock_.Now());
  EXPECT_EQ(dropped(DropReason::kDnsNotQuery), 2u);
  EXPECT_THAT(sink_.answers, IsEmpty());
  const ByteVector cut =
      netstack::test::Hex("0007 0100 0001 0000 0000 0000 01");
  interceptor_->OnDatagram(kApp, kServer, cut, clock_.Now());
  ASSERT_EQ(sink_.answers.size(), 1u);
  EXPECT_EQ(Load8(&sink_.answers[0].second[3]) & 15, 1);
  EXPECT_EQ(interceptor_->stats().malformed, 1u);
}

TEST_F(InterceptorTest, LearnsWhereAnswersLeadButNotFromBlockedOnes) {
  Datagram(1000, 1, "www.a.example");
  resolver_.Answer(0, A(1, "www.a.example", "192.0.2.80"));
  const ByteVector blocked = A(2, "no.example", "192.0.2.81");
  DnsReply reply;
  reply.message = blocked;
  reply.source = DnsSource::kPolicy;
  reply.action = PolicyAction::kBlock;
  reply.policy = PolicySource::kRule;
  reply.rule = "no ads";
  resolver_.at_once = &reply;
  interceptor_->SetLog(true);
  Datagram(1000, 2, "no.example");
  EXPECT_EQ(
      addresses_.NameOf(kApp.ip, IpAddress::V4(192, 0, 2, 80), clock_.Now()),
      "www.a.example");
  EXPECT_EQ(addresses_.stats().addresses, 1u);
  ASSERT_EQ(sink_.answers.size(), 2u);
  ASSERT_EQ(sink_.log.size(), 1u);
  EXPECT_EQ(sink_.log[0].verdict, DnsVerdict::kBlockedByRule);
  EXPECT_EQ(sink_.log[0].matched, "no ads");
}

TEST_F(InterceptorTest, LogsOnlyWhileSomebodyWatches) {
  Datagram(1000, 1, "a.example");
  resolver_.Answer(0, A(1, "a.example", "192.0.2.80"));
  EXPECT_THAT(sink_.log, IsEmpty());
  interceptor_->SetLog(true);
  Datagram(1000, 2, "a.example");
  resolver_.Answer(1, A(2, "a.example", "192.0.2.80"));
  ASSERT_EQ(sink_.log.size(), 1u);
  EXPECT_EQ(sink_.log[0].name, "a.example");
  EXPECT_EQ(sink_.log[0].verdict, DnsVerdict::kResolved);
  EXPECT_EQ(sink_.log[0].upstream, "up");
  EXPECT_EQ(sink_.log[0].server, kServer);
  EXPECT_FALSE(sink_.log[0].tcp);
}

TEST_F(InterceptorTest, AStreamsAnswersGoBackToItsOwnConnection) {
  const int first = interceptor_->streams().Open(kApp, kServer, clock_.Now());
  const int second = interceptor_->streams().Open(kApp, kServer, clock_.Now());
  ASSERT_GE(second, 0);
  const auto ask = [&](int fd, unsigned id, const std::string& name) {
    ByteVector q = MessageMaker(id, test::kRd).Question(name, 1);
    ByteVector framed;
    test::Put16(framed, static_cast<unsigned>(q.size()));
    test::PutAll(framed, q);
    const Bytes part = framed;
    ASSERT_GT(sockets_.Send(fd, {&part, 1}), 0);
    const auto watch = poller_.watch(sockets_.Get(fd).peer->fd);
    ASSERT_TRUE(watch.has_value());
    interceptor_->streams().OnSocket({watch->token, true, false, false, false},
                                     clock_.Now());
  };
  ask(first, 9, "a.example");
  ask(second, 9, "b.example");
  ASSERT_EQ(resolver_.asked.size(), 2u);
  EXPECT_EQ(resolver_.asked[0].transport, DnsTransport::kTcp);
  resolver_.Answer(1, A(9, "b.example", "192.0.2.2"));
  EXPECT_EQ(sockets_.Get(first).unread(), 0u);
  EXPECT_GT(sockets_.Get(second).unread(), 0u);
  EXPECT_EQ(interceptor_->stats().tcp_queries, 2u);
  sockets_.Close(first, false);
  sockets_.Close(second, false);
}

}  // namespace
}  // namespace netstack::dns

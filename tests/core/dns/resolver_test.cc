// Questions to upstreams: who is asked, when the next one, and what is
// believed. core/dns/resolver.cc and the plain transports.
#include "core/dns/resolver.h"

#include <cerrno>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/dns/dns_rig.h"

namespace netstack::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

DnsResolverOptions One(const std::string& server = "192.0.2.53") {
  return OptionsOf({PlainUpstream("a", server)});
}
DnsResolverOptions Two() {
  return OptionsOf(
      {PlainUpstream("a", "192.0.2.53"), PlainUpstream("b", "2001:db8::53")});
}

// --- one plain upstream -----------------------------------------------------

TEST(Resolver, AsksOverAConnectedSocketAndAnswers) {
  for (const char* server : {"192.0.2.53", "2001:db8::53"}) {
    DnsRig rig(One(server));
    auto& q = rig.AskText(QueryText("WwW.ExamPle.com", 1, 0xBEEF));
    ASSERT_EQ(rig.socket_count(), 1u);
    ScriptedSocket& s = rig.socket(0);
    EXPECT_EQ(s.kind, SocketKind::kUdp);
    EXPECT_EQ(s.connected_to, (Endpoint{*IpAddress::Parse(server), 53}));
    EXPECT_NE(Number16At(s.sent, 0), 0xBEEF) << "an id of our own";
    EXPECT_EQ(q.calls, 0);
    rig.clock.Advance(milliseconds(20));
    rig.Answer(s, "203.0.113.1");
    ASSERT_EQ(q.calls, 1);
    EXPECT_EQ(q.source, DnsSource::kUpstream);
    EXPECT_EQ(q.upstream, "a");
    EXPECT_EQ(q.rcode, 0);
    EXPECT_EQ(q.address(), "203.0.113.1");
    EXPECT_EQ(Number16At(q.message, 0), 0xBEEF) << "the app's id";
    EXPECT_EQ(QuestionName(q.message), "WwW.ExamPle.com");
    EXPECT_EQ(q.latency, milliseconds(20));
    EXPECT_TRUE(s.closed);
    EXPECT_EQ(rig.Info("a").smoothed, milliseconds(20));
  }
}

TEST(Resolver, IdleMeansNoSocketAndNoDeadline) {
  DnsRig rig(One());
  EXPECT_EQ(rig.resolver->next_deadline(), kNever);
  rig.Ask("example.com");
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(rig.resolver->next_deadline(), kNever);
  EXPECT_EQ(rig.sockets.open_count(), 0u);
}

TEST(Resolver, ProtectedOrNotAsked) {
  DnsRig rig(One());
  std::vector<std::unique_ptr<Protector>> protectors;
  protectors.push_back(std::make_unique<MarkProtector>(&rig.sockets, 7));
  rig.dialer.SetProtectors(std::move(protectors));
  rig.Ask("example.com");
  EXPECT_THAT(rig.socket(0).calls, ElementsAre("SetMark", "Connect"));
  rig.AnswerLast("203.0.113.1");

  rig.sockets.mark_result = -EPERM;
  auto& q = rig.Ask("other.example.com");
  rig.Advance(seconds(5));
  EXPECT_EQ(q.rcode, 2);
  for (size_t i = 1; i < rig.socket_count(); ++i) {
    EXPECT_EQ(rig.socket(i).connected_to, std::nullopt);
    EXPECT_EQ(rig.socket(i).sent, "");
  }
  EXPECT_TRUE(rig.Info("a").up) << "not the upstream's fault";
}

// Neither the app's EDNS options nor its client subnet leave the house.
TEST(Resolver, SendsAQueryOfItsOwn) {
  DnsRig rig(One());
  const std::string subnet =
      std::string("\0\x08\0\x07\0\x01\x18\0\xC6\x33\x64", 11);
  auto& q = rig.AskText(EdnsQueryText("example.com", subnet));
  const std::string& sent = rig.socket(0).sent;
  EXPECT_THAT(sent, testing::Not(HasSubstr("\xC6\x33\x64")));
  // One OPT record at the end, without options, of 1,232 bytes.
  const size_t opt = QuestionEnd(sent);
  EXPECT_EQ(Number16At(sent, 10), 1);
  EXPECT_EQ(Number16At(sent, opt + 1), 41);
  EXPECT_EQ(Number16At(sent, opt + 3), 1232);
  EXPECT_EQ(Number16At(sent, opt + 9), 0);
  EXPECT_EQ(sent.size(), opt + 11);
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(Number16At(q.message, 10), 1) << "an OPT for who had one";
}

TEST(Resolver, MalformedQueriesAreAnsweredAtOnce) {
  DnsRig rig(One());
  std::string two = QueryText("example.com");
  two[5] = 2;  // questions
  auto& q = rig.AskText(two);
  EXPECT_EQ(q.calls, 1);
  EXPECT_EQ(q.rcode, 1);
  EXPECT_EQ(q.failure, DnsFailure::kMalformed);
  EXPECT_EQ(rig.AskText("short").message, "");
  EXPECT_EQ(rig.socket_count(), 0u);
}

TEST(Resolver, NobodyAnswers) {
  DnsRig rig(One());
  auto& q = rig.Ask("example.com");
  rig.Advance(seconds(5) - milliseconds(1));
  EXPECT_EQ(q.calls, 0);
  EXPECT_GE(rig.socket_count(), 3u) << "asked again meanwhile";
  rig.Advance(milliseconds(8));
  EXPECT_EQ(q.calls, 1);
  EXPECT_EQ(q.rcode, 2);
  EXPECT_EQ(q.failure, DnsFailure::kTimeout);
  EXPECT_EQ(rig.sockets.open_count(), 0u);
}

// A lost datagram costs the patience, not the query.
TEST(Resolver, LostDatagramIsSentAgainFromAnotherSocket) {
  DnsRig rig(One());
  auto& q = rig.Ask("example.com");
  rig.Advance(seconds(1) + milliseconds(8));
  ASSERT_EQ(rig.socket_count(), 2u);
  EXPECT_NE(rig.socket(0).sent, rig.socket(1).sent) << "another id";
  rig.Answer(rig.socket(0), "203.0.113.1");  // it was only late
  EXPECT_EQ(q.address(), "203.0.113.1");
  EXPECT_EQ(rig.sockets.open_count(), 0u) << "the other is cancelled";
}

// parity.md, section 2, row 2: a late answer never goes to another query.
TEST(Resolver, LateAnswerIsNobodys) {
  DnsRig rig(One());
  rig.Ask("slow.example.com");
  rig.Advance(seconds(6));
  const std::string late = AnswerText(rig.socket(0).sent, "203.0.113.66");
  auto& q = rig.Ask("other.example.com");
  rig.Arrive(rig.sockets.last(), late);
  EXPECT_EQ(q.calls, 0);
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(q.address(), "203.0.113.1");
}

TEST(Resolver, CancelledQueriesAreNotAnswered) {
  DnsRig rig(One());
  auto& gone = rig.Ask("example.com");
  auto& other = rig.Ask("example.com");
  rig.Cancel(gone);
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(gone.calls, 0);
  EXPECT_EQ(other.calls, 1);
  rig.resolver->Cancel(other.id);  // too late, no effect
  EXPECT_EQ(rig.resolver->stats().cancelled, 1u);
}

TEST(Resolver, EqualQuestionsAreAskedOnce) {
  DnsRig rig(One());
  auto& first = rig.AskText(QueryText("example.com", 1, 1));
  auto& second = rig.AskText(QueryText("EXAMPLE.com", 1, 2));
  EXPECT_EQ(rig.socket_count(), 1u);
  auto& other_type = rig.Ask("example.com", 28);
  EXPECT_EQ(rig.socket_count(), 2u);
  rig.Answer(rig.socket(0), "203.0.113.1");
  EXPECT_FALSE(first.coalesced);
  EXPECT_TRUE(second.coalesced);
  EXPECT_EQ(Number16At(first.message, 0), 1);
  EXPECT_EQ(Number16At(second.message, 0), 2);
  EXPECT_EQ(QuestionName(second.message), "EXAMPLE.com");
  EXPECT_EQ(second.address(), "203.0.113.1");
  EXPECT_EQ(other_type.calls, 0);
  rig.Answer(rig.socket(1), "");
  EXPECT_EQ(rig.resolver->stats().coalesced, 1u);
}

TEST(Resolver, CallbackMayAskAgain) {
  DnsRig rig(One());
  int answers = 0;
  const std::string first = QueryText("a.example.com");
  const std::string second = QueryText("b.example.com");
  DnsQuestion q;
  q.message = AsBytes(first);
  rig.resolver->Resolve(q, rig.now(), [&](const DnsReply& r) {
    ++answers;
    const std::string before(reinterpret_cast<const char*>(r.message.data()),
                             r.message.size());
    DnsQuestion again;
    again.message = AsBytes(second);
    rig.resolver->Resolve(again, rig.now(),
                          [&](const DnsReply&) { ++answers; });
    EXPECT_EQ(before,
              absl::string_view(reinterpret_cast<const char*>(r.message.data()),
                                r.message.size()));
  });
  rig.Turn();
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(answers, 1);
  rig.Turn();
  rig.AnswerLast("203.0.113.2");
  EXPECT_EQ(answers, 2);
}

// --- forgers ----------------------------------------------------------------

TEST(Resolver, WrongIdWrongQuestionAndQueriesAreNotBelieved) {
  DnsRig rig(One());
  auto& q = rig.Ask("example.com");
  ScriptedSocket& s = rig.socket(0);
  std::string wrong_id = AnswerText(s.sent, "203.0.113.66");
  wrong_id[1] = static_cast<char>(wrong_id[1] ^ 1);
  rig.Arrive(s, wrong_id);
  std::string wrong_name = AnswerText(s.sent, "203.0.113.66");
  wrong_name[13] = 'x';
  rig.Arrive(s, wrong_name);
  std::string wrong_type = AnswerText(s.sent, "203.0.113.66");
  wrong_type[QuestionEnd(wrong_type) - 3] = 28;
  rig.Arrive(s, wrong_type);
  rig.Arrive(s, s.sent);  // a query
  rig.Arrive(s, "short");
  EXPECT_EQ(q.calls, 0);
  EXPECT_EQ(rig.Info("a").mismatched, 5u);
  rig.Answer(s, "203.0.113.1");
  EXPECT_EQ(q.address(), "203.0.113.1");
}

// R17: somebody who knows the port tries ids. After a few of them the
// question goes over TCP, and nothing of the flood is believed.
TEST(Resolver, FloodOfForgedAnswers) {
  DnsRig rig(One());
  auto& q = rig.Ask("example.com");
  ScriptedSocket& udp = rig.socket(0);
  const int real = Number16At(udp.sent, 0);
  std::string forged = AnswerText(udp.sent, "203.0.113.66");
  int arrived = 0;
  for (int i = 0; i < 100000 && !udp.closed; ++i) {
    const int id = (real + 1 + i) & 0xFFFF;
    if (id == real) continue;
    forged.replace(0, 2, Number16(id));
    rig.Arrive(udp, forged);
    ++arrived;
  }
  EXPECT_EQ(arrived, 8);
  EXPECT_EQ(q.calls, 0);
  ASSERT_EQ(rig.socket_count(), 2u);
  ScriptedSocket& tcp = rig.socket(1);
  EXPECT_EQ(tcp.kind, SocketKind::kTcp);
  rig.Connected(tcp);
  ASSERT_EQ(DnsRig::Frames(tcp).size(), 1u);
  tcp.Feed(DnsRig::Frame(AnswerText(DnsRig::Frames(tcp)[0], "203.0.113.1")));
  rig.Readable(tcp);
  EXPECT_EQ(q.address(), "203.0.113.1");
  rig.Advance(seconds(60));
}

// Letters in another case: a forger, or a server that does not keep them.
TEST(Resolver, OtherCaseGoesOverTcp) {
  DnsRig rig(One());
  auto& q = rig.Ask("some.long.name.example.com");
  ScriptedSocket& udp = rig.socket(0);
  EXPECT_NE(QuestionName(udp.sent), "some.long.name.example.com");
  std::string lower = AnswerText(udp.sent, "203.0.113.66");
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
  }
  lower.replace(0, 2, udp.sent.substr(0, 2));
  rig.Arrive(udp, lower);
  EXPECT_EQ(q.calls, 0);
  ASSERT_EQ(rig.socket_count(), 2u);
  ScriptedSocket& tcp = rig.socket(1);
  rig.Connected(tcp);
  std::string answer = AnswerText(DnsRig::Frames(tcp).at(0), "203.0.113.1");
  tcp.Feed(DnsRig::Frame(answer));
  rig.Readable(tcp);
  EXPECT_EQ(q.address(), "203.0.113.1");
}

TEST(Resolver, IdsAndCaseDiffer) {
  DnsRig rig(One());
  std::set<int> ids;
  std::set<std::string> names;
  for (int i = 0; i < 200; ++i) {
    rig.Ask("some.longer.name.example.com");
    ids.insert(Number16At(rig.sockets.last().sent, 0));
    names.insert(QuestionName(rig.sockets.last().sent));
    rig.AnswerLast("203.0.113.1", 3);
    rig.resolver->FlushCache("", false);
  }
  EXPECT_GT(ids.size(), 190u);
  EXPECT_GT(names.size(), 190u);
}

// --- TCP --------------------------------------------------------------------

TEST(Resolver, TruncatedIsAskedOverTcp) {
  DnsRig rig(One());
  auto& q = rig.Ask("big.example.com");
  ScriptedSocket& udp = rig.socket(0);
  rig.Arrive(udp, AnswerText(udp.sent, "", 0, 300, /*truncated=*/true));
  EXPECT_TRUE(udp.closed);
  ASSERT_EQ(rig.socket_count(), 2u);
  ScriptedSocket& tcp = rig.socket(1);
  EXPECT_EQ(tcp.connected_to, udp.connected_to);
  EXPECT_EQ(tcp.sent, "");
  rig.Connected(tcp);
  const auto frames = DnsRig::Frames(tcp);
  ASSERT_EQ(frames.size(), 1u);
  const std::string answer =
      DnsRig::Frame(AnswerText(frames[0], "203.0.113.1"));
  for (const char c : answer) {  // byte by byte
    EXPECT_EQ(q.calls, 0);
    tcp.Feed(std::string(1, c));
    rig.Readable(tcp);
  }
  EXPECT_EQ(q.address(), "203.0.113.1");
  EXPECT_EQ(rig.Info("a").truncated, 1u);
  EXPECT_FALSE(tcp.closed) << "kept for the next one";
  rig.Advance(seconds(30));
  EXPECT_TRUE(tcp.closed);
}

DnsResolverOptions Tcp() {
  return OptionsOf({PlainUpstream("t", "192.0.2.53", DnsUpstreamKind::kTcp)});
}

TEST(ResolverTcp, PipelinesAndTakesAnswersInAnyOrder) {
  DnsRig rig(Tcp());
  auto& first = rig.Ask("a.example.com");
  auto& second = rig.Ask("b.example.com");
  ASSERT_EQ(rig.socket_count(), 1u);
  ScriptedSocket& s = rig.socket(0);
  rig.Connected(s);
  auto& third = rig.Ask("c.example.com");
  const auto frames = DnsRig::Frames(s);
  ASSERT_EQ(frames.size(), 3u);
  s.Feed(DnsRig::Frame(AnswerText(frames[2], "203.0.113.3")) +
         DnsRig::Frame(AnswerText(frames[0], "203.0.113.1")));
  rig.Readable(s);
  EXPECT_EQ(first.address(), "203.0.113.1");
  EXPECT_EQ(third.address(), "203.0.113.3");
  EXPECT_EQ(second.calls, 0);
  s.Feed(DnsRig::Frame(AnswerText(frames[1], "203.0.113.2")));
  rig.Readable(s);
  EXPECT_EQ(second.address(), "203.0.113.2");
  EXPECT_EQ(rig.Info("t").connections, 1u);
}

TEST(ResolverTcp, QuestionThatCrossedAnIdleCloseIsAskedAgain) {
  DnsRig rig(Tcp());
  rig.Ask("a.example.com");
  ScriptedSocket& s = rig.socket(0);
  rig.Connected(s);
  s.Feed(DnsRig::Frame(AnswerText(DnsRig::Frames(s)[0], "203.0.113.1")));
  rig.Readable(s);
  auto& q = rig.Ask("b.example.com");
  s.FeedEnd();
  rig.Readable(s);
  EXPECT_TRUE(s.closed);
  ASSERT_EQ(rig.socket_count(), 2u);
  ScriptedSocket& next = rig.socket(1);
  rig.Connected(next);
  next.Feed(DnsRig::Frame(AnswerText(DnsRig::Frames(next)[0], "203.0.113.2")));
  rig.Readable(next);
  EXPECT_EQ(q.address(), "203.0.113.2");
  EXPECT_EQ(rig.Info("t").failures, 0u);
}

// A connection that a NAT forgot: the answer comes over another one.
TEST(ResolverTcp, SilentConnectionIsLeft) {
  DnsRig rig(Tcp());
  rig.Ask("a.example.com");
  ScriptedSocket& s = rig.socket(0);
  rig.Connected(s);
  rig.clock.Advance(milliseconds(30));
  s.Feed(DnsRig::Frame(AnswerText(DnsRig::Frames(s)[0], "203.0.113.1")));
  rig.Readable(s);
  auto& q = rig.Ask("b.example.com");
  rig.Advance(milliseconds(300));
  ASSERT_EQ(rig.socket_count(), 2u);
  ScriptedSocket& next = rig.socket(1);
  rig.Connected(next);
  next.Feed(DnsRig::Frame(AnswerText(DnsRig::Frames(next)[0], "203.0.113.2")));
  rig.Readable(next);
  EXPECT_EQ(q.address(), "203.0.113.2");
  rig.Ask("c.example.com");
  EXPECT_EQ(DnsRig::Frames(next).size(), 2u) << "the live one is used";
  rig.Advance(seconds(40));
}

TEST(ResolverTcp, ConnectionThatWentSilentIsNotTriedAgain) {
  DnsRig rig(Tcp());
  rig.Ask("a.example.com");
  rig.Connected(rig.socket(0));
  rig.Advance(seconds(4));  // others were opened, and nobody took them
  for (size_t i = 1; i < rig.socket_count(); ++i) {
    if (!rig.socket(i).closed) rig.Connected(rig.socket(i));
  }
  rig.Advance(seconds(3));
  const size_t before = rig.socket_count();
  rig.Ask("b.example.com");
  EXPECT_EQ(rig.socket_count(), before + 1) << "a new one, at once";
  rig.Advance(seconds(60));
}

TEST(ResolverTcp, RefusedFailsOver) {
  DnsResolverOptions o = Tcp();
  o.upstreams.push_back(PlainUpstream("b", "192.0.2.54"));
  DnsRig rig(o);
  auto& q = rig.Ask("example.com");
  rig.socket(0).so_error = ECONNREFUSED;
  rig.Tell(rig.socket(0), {.token = {}, .readable = true, .error = true});
  ASSERT_EQ(rig.socket_count(), 2u);
  EXPECT_EQ(rig.to(1), "192.0.2.54:53");
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(q.upstream, "b");
  EXPECT_THAT(rig.Info("t").last_error, HasSubstr("refused"));
}

// --- several upstreams ------------------------------------------------------

TEST(ResolverGroup, SilentFirstOneIsNotWaitedFor) {
  DnsRig rig(Two());
  auto& q = rig.Ask("example.com");
  EXPECT_EQ(rig.to(0), "192.0.2.53:53");
  rig.Advance(milliseconds(990));
  EXPECT_EQ(rig.socket_count(), 1u);
  rig.Advance(milliseconds(20));
  ASSERT_EQ(rig.socket_count(), 2u);
  EXPECT_EQ(rig.to(1), "[2001:db8::53]:53");
  rig.Answer(rig.socket(1), "203.0.113.1");
  EXPECT_EQ(q.upstream, "b");
  EXPECT_EQ(rig.Info("a").timeouts, 1u);
  EXPECT_TRUE(rig.socket(0).closed);
}

TEST(ResolverGroup, PatienceFollowsTheLatency) {
  DnsRig rig(Two());
  for (int i = 0; i < 20; ++i) {
    rig.Ask("a" + std::to_string(i) + ".example.com");
    rig.clock.Advance(milliseconds(100));
    rig.AnswerLast("203.0.113.1");
  }
  const size_t before = rig.socket_count();
  rig.Ask("example.com");
  rig.Advance(milliseconds(295));
  EXPECT_EQ(rig.socket_count(), before + 1);
  rig.Advance(milliseconds(10));
  EXPECT_EQ(rig.socket_count(), before + 2) << "3 x 100 ms";
}

TEST(ResolverGroup, BadRcodesAndIcmpErrorsFailOverAtOnce) {
  DnsRig rig(Two());
  auto& q = rig.Ask("example.com");
  rig.AnswerLast("", 2);
  ASSERT_EQ(rig.socket_count(), 2u);
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(q.upstream, "b");
  EXPECT_EQ(q.address(), "203.0.113.1");
  EXPECT_EQ(rig.Info("a").bad_rcodes, 1u);
  EXPECT_TRUE(rig.Info("a").up);

  auto& other = rig.Ask("other.example.com");
  rig.sockets.last().receive_error = ECONNREFUSED;
  rig.Readable(rig.sockets.last());
  ASSERT_EQ(rig.socket_count(), 4u);
  rig.AnswerLast("203.0.113.2");
  EXPECT_EQ(other.upstream, "b");
  EXPECT_EQ(rig.Info("a").failures, 1u);
}

TEST(ResolverGroup, NxdomainIsAnAnswer) {
  DnsRig rig(Two());
  auto& q = rig.Ask("example.com");
  rig.AnswerLast("", 3);
  EXPECT_EQ(q.rcode, 3);
  EXPECT_EQ(rig.socket_count(), 1u);
}

TEST(ResolverGroup, AllAnswerBadly) {
  DnsRig rig(Two());
  auto& q = rig.Ask("example.com");
  rig.AnswerLast("", 2);
  rig.AnswerLast("", 5);
  EXPECT_EQ(q.calls, 1);
  EXPECT_EQ(q.rcode, 5) << "what the last one said";
  EXPECT_EQ(q.source, DnsSource::kUpstream);
}

// An old server: asked again without EDNS.
TEST(ResolverGroup, FormerrToEdns) {
  DnsRig rig(One());
  auto& q = rig.Ask("example.com");
  rig.AnswerLast("", 1);
  ASSERT_EQ(rig.socket_count(), 2u);
  EXPECT_EQ(Number16At(rig.socket(1).sent, 10), 0) << "no OPT";
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(q.address(), "203.0.113.1");
  rig.Ask("other.example.com");
  EXPECT_EQ(Number16At(rig.socket(2).sent, 10), 0) << "remembered";
  rig.AnswerLast("203.0.113.1");
  rig.Advance(std::chrono::minutes(10));
  rig.Ask("third.example.com");
  EXPECT_EQ(Number16At(rig.socket(3).sent, 10), 1) << "servers are renewed";
  rig.AnswerLast("203.0.113.1");
}

// One app's question that the server does not like takes EDNS, and so DNSSEC,
// from nobody.
TEST(ResolverGroup, FormerrToWhateverIsAskedIsNotAboutEdns) {
  DnsRig rig(One());
  auto& q = rig.Ask("bad.example.com");
  rig.AnswerLast("", 1);
  ASSERT_EQ(rig.socket_count(), 2u);
  EXPECT_EQ(Number16At(rig.socket(1).sent, 10), 0) << "tried without";
  rig.AnswerLast("", 1);
  EXPECT_EQ(q.rcode, 1);
  rig.Ask("good.example.com");
  EXPECT_EQ(Number16At(rig.socket(2).sent, 10), 1) << "still with EDNS";
  rig.AnswerLast("203.0.113.1");
}

// An answer is kept for the question that was asked, and for nothing that it
// brings along (RFC 5452, section 6).
TEST(Resolver, WhatAnAnswerBringsAlongAnswersNothing) {
  DnsRig rig(One());
  rig.Ask("evil.example");
  const std::string& sent = rig.socket(0).sent;
  std::string m = AnswerText(sent, "203.0.113.1");
  // bank.example A 198.51.100.66, in every section.
  const std::string more = std::string("\4bank\7example\0", 14) + Number16(1) +
                           Number16(1) + Number16(0) + Number16(300) +
                           Number16(4) + std::string("\xC6\x33\x64\x42", 4);
  m += more + more + more;
  m.replace(6, 6, Number16(2) + Number16(1) + Number16(1));
  rig.Arrive(rig.socket(0), m);
  auto& bank = rig.Ask("bank.example");
  EXPECT_EQ(bank.calls, 0) << "not known";
  ASSERT_EQ(rig.socket_count(), 2u);
  rig.AnswerLast("203.0.113.2");
  EXPECT_EQ(bank.address(), "203.0.113.2");
}

// What a server says without recursion is for its asker: it may be nothing.
TEST(Resolver, AnswersWithoutRecursionAreNotKept) {
  DnsRig rig(One());
  std::string snoop = QueryText("example.com");
  snoop[2] = 0;  // RD
  auto& q = rig.AskText(snoop);
  EXPECT_EQ(rig.socket(0).sent[2] & 1, 0) << "asked as it was meant";
  rig.AnswerLast("", 5);
  EXPECT_EQ(q.rcode, 5);
  auto& other = rig.Ask("example.com");
  ASSERT_EQ(other.calls, 0) << "REFUSED was not for this one";
  ASSERT_EQ(rig.socket_count(), 2u);
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(other.address(), "203.0.113.1");
  // What is known may be told.
  EXPECT_EQ(rig.AskText(snoop).address(), "203.0.113.1");
  EXPECT_EQ(rig.socket_count(), 2u);
}

// Each alias goes through rules and lists: no message may make thousands.
TEST(Resolver, AliasesWithoutEndAreNoAnswer) {
  for (const int count : {128, 129}) {
    DnsRig rig(One());
    auto& q = rig.AskText(QueryText("a.test"), DnsTransport::kTcp);
    std::string m = AnswerText(rig.socket(0).sent, "");
    for (int i = 0; i < count; ++i) {
      m += std::string("\xC0\x0C", 2) + Number16(5) + Number16(1) +
           Number16(0) + Number16(300) + Number16(2) +
           std::string("\xC0\x0C", 2);
    }
    m.replace(6, 2, Number16(count));
    rig.Arrive(rig.socket(0), m);
    EXPECT_EQ(q.calls == 1 && q.rcode == 0, count == 128);
    rig.Advance(seconds(6));
    EXPECT_EQ(q.rcode, count == 128 ? 0 : 2);
  }
}

TEST(ResolverGroup, NoRouteFailsOverAndAnswersSoon) {
  DnsRig rig(Two());
  rig.connect_result = [](const Endpoint& to) {
    return to.ip.IsV4() ? -ENETUNREACH : 0;
  };
  auto& q = rig.Ask("example.com");
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(q.upstream, "b");
  rig.connect_result = [](const Endpoint&) { return -ENETUNREACH; };
  auto& none = rig.Ask("other.example.com");
  rig.Advance(milliseconds(1700));
  EXPECT_EQ(none.rcode, 2);
  EXPECT_EQ(none.failure, DnsFailure::kUnreachable);
}

// The seed's flaw, parity.md section 2, row 14; and issue 4's figure.
TEST(ResolverGroup, AHundredQueriesWhileTheFirstIsABlackHole) {
  DnsRig rig(Two());
  std::vector<DnsRig::Asked*> asked;
  for (int i = 0; i < 100; ++i) {
    asked.push_back(&rig.Ask("n" + std::to_string(i) + ".example.com"));
  }
  Duration longest{};
  // The second answers each after 50 ms.
  for (int ms = 0; ms < 2000; ms += 10) {
    rig.Advance(milliseconds(10));
    std::vector<ScriptedSocket*> open;
    for (const auto& s : rig.sockets.all()) {
      if (!s->closed && !s->connected_to->ip.IsV4() && !s->sent.empty()) {
        open.push_back(s.get());
      }
    }
    for (ScriptedSocket* s : open) {
      // Shared sockets hold several queries: split by our own framing is not
      // possible, so each is answered from its own start.
      size_t at = 0;
      const std::string sent = std::exchange(s->sent, "");
      while (at < sent.size()) {
        const size_t size = QuestionEnd(sent.substr(at)) + 11;
        s->Feed(AnswerText(sent.substr(at, size), "203.0.113.1"));
        at += size;
      }
      rig.Readable(*s);
    }
  }
  for (const DnsRig::Asked* q : asked) {
    ASSERT_EQ(q->calls, 1);
    EXPECT_EQ(q->address(), "203.0.113.1");
    longest = std::max(longest, q->latency);
  }
  EXPECT_LE(longest, seconds(2));
}

TEST(ResolverGroup, DownAndUpAgain) {
  DnsRig rig(Two());
  for (int i = 0; i < 8; ++i) {
    rig.Ask("n" + std::to_string(i) + ".example.com");
    rig.Advance(milliseconds(1010));
    rig.AnswerAt("[2001:db8::53]:53", "203.0.113.1");
  }
  EXPECT_THAT(rig.health, ElementsAre("a down"));
  EXPECT_FALSE(rig.Info("a").up);
  // While it is down it costs nobody any time...
  size_t before = rig.socket_count();
  auto& q = rig.Ask("x.example.com");
  EXPECT_EQ(rig.to(before), "[2001:db8::53]:53");
  rig.Answer(rig.socket(before), "203.0.113.1");
  EXPECT_EQ(q.upstream, "b");
  // ...and is asked besides, once its time has come.
  rig.Advance(seconds(70));
  before = rig.socket_count();
  rig.Ask("y.example.com");
  ASSERT_EQ(rig.socket_count(), before + 2);
  EXPECT_EQ(rig.to(before), "[2001:db8::53]:53");
  EXPECT_EQ(rig.to(before + 1), "192.0.2.53:53");
  rig.Answer(rig.socket(before + 1), "203.0.113.9");
  EXPECT_THAT(rig.health, ElementsAre("a down", "a up"));
  rig.Ask("z.example.com");
  EXPECT_EQ(rig.to(before + 2), "192.0.2.53:53");
  rig.AnswerLast("203.0.113.1");
}

TEST(ResolverGroup, AllDownAreAskedAllTheSame) {
  DnsRig rig(Two());
  for (int i = 0; i < 6; ++i) {
    rig.Ask("n" + std::to_string(i) + ".example.com");
    rig.Advance(seconds(6));
  }
  EXPECT_FALSE(rig.Info("a").up);
  EXPECT_FALSE(rig.Info("b").up);
  auto& q = rig.Ask("example.com");
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(q.address(), "203.0.113.1");
}

TEST(ResolverGroup, Hedges) {
  DnsResolverOptions o = Two();
  o.hedge_delay = milliseconds(50);
  DnsRig rig(o);
  auto& q = rig.Ask("example.com");
  rig.Advance(milliseconds(45));
  EXPECT_EQ(rig.socket_count(), 1u);
  rig.Advance(milliseconds(10));
  ASSERT_EQ(rig.socket_count(), 2u);
  rig.Answer(rig.socket(1), "203.0.113.1");
  EXPECT_EQ(q.upstream, "b");
  EXPECT_EQ(rig.resolver->stats().hedged, 1u);
  EXPECT_EQ(rig.Info("a").timeouts, 0u) << "nobody is to blame";
}

// --- limits -----------------------------------------------------------------

TEST(ResolverLimits, BusyIsSaidAtOnce) {
  DnsResolverOptions o = One();
  o.max_in_flight = 2;
  o.max_waiting = 3;
  DnsRig rig(o);
  rig.Ask("a.example.com");
  rig.Ask("b.example.com");
  auto& third = rig.Ask("c.example.com");
  EXPECT_EQ(third.rcode, 2);
  EXPECT_EQ(third.failure, DnsFailure::kBusy);
  EXPECT_EQ(rig.Ask("b.example.com").calls, 0) << "waits with the other";
  EXPECT_EQ(rig.Ask("b.example.com").failure, DnsFailure::kBusy);
  EXPECT_EQ(
      rig.resolver->stats().failures[static_cast<size_t>(DnsFailure::kBusy)],
      2u);
}

TEST(ResolverLimits, QueriesShareSocketsBeyondTheLimit) {
  DnsResolverOptions o = One();
  o.max_udp_sockets = 2;
  DnsRig rig(o);
  std::vector<DnsRig::Asked*> asked;
  for (int i = 0; i < 6; ++i) {
    asked.push_back(&rig.Ask("n" + std::to_string(i) + ".example.com"));
  }
  ASSERT_EQ(rig.socket_count(), 2u);
  // Every second query is at the second socket; all names are as long.
  for (size_t k = 0; k < 2; ++k) {
    const std::string sent = rig.socket(k).sent;
    ASSERT_EQ(sent.size() % 3, 0u);
    const size_t size = sent.size() / 3;
    for (size_t i = 0; i < 3; ++i) {
      rig.Arrive(rig.socket(k),
                 AnswerText(sent.substr(i * size, size), "203.0.113.1"));
    }
  }
  for (const DnsRig::Asked* q : asked) EXPECT_EQ(q->calls, 1);
  EXPECT_EQ(rig.sockets.open_count(), 0u);
}

TEST(ResolverLimits, NoDescriptorLeft) {
  Dialer::Options d;
  d.max_sockets = 1;
  DnsRig rig(Two(), d);
  auto& first = rig.Ask("a.example.com");
  auto& second = rig.Ask("b.example.com");
  EXPECT_EQ(second.calls, 0) << "shares the socket";
  rig.Answer(rig.socket(0), "203.0.113.1");
  EXPECT_EQ(first.calls, 1);
  rig.sockets.open_results.assign(100, -EMFILE);
  auto& third = rig.Ask("c.example.com");
  rig.Advance(milliseconds(350));
  EXPECT_EQ(third.calls, 0) << "there may be one soon";
  rig.sockets.open_results.clear();
  rig.Advance(milliseconds(500));
  ASSERT_FALSE(rig.sockets.last().sent.empty());
  rig.sockets.open_results.assign(1000, -EMFILE);
  auto& fourth = rig.Ask("d.example.com");
  rig.Advance(seconds(6));
  EXPECT_EQ(fourth.rcode, 2);
  EXPECT_TRUE(rig.Info("b").up);
}

// --- where upstreams are ----------------------------------------------------

TEST(ResolverBootstrap, LooksUpTheUpstreamsName) {
  DnsResolverOptions o = OptionsOf({PlainUpstream("named", "dns.example.net")});
  o.bootstrap_servers = {*Endpoint::Parse("198.51.100.53:53")};
  DnsRig rig(o);
  auto& q = rig.Ask("example.com");
  ASSERT_EQ(rig.socket_count(), 2u);  // A and AAAA
  EXPECT_EQ(rig.to(0), "198.51.100.53:53");
  rig.Answer(rig.socket(0), "192.0.2.77");
  EXPECT_EQ(q.calls, 0);
  rig.Answer(rig.socket(1), "");
  ASSERT_EQ(rig.socket_count(), 3u);
  EXPECT_EQ(rig.to(2), "192.0.2.77:53");
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(q.upstream, "named");
  // Known from here on, until its TTL ends.
  rig.Ask("b.example.com");
  EXPECT_EQ(rig.socket_count(), 4u);
  rig.AnswerLast("203.0.113.1");
  rig.Advance(seconds(301));
  rig.Ask("c.example.com");
  EXPECT_EQ(rig.socket_count(), 7u) << "asked, and looked up meanwhile";
}

TEST(ResolverBootstrap, UnknownNameFailsOver) {
  DnsResolverOptions o = OptionsOf({PlainUpstream("named", "dns.example.net"),
                                    PlainUpstream("b", "192.0.2.54")});
  o.bootstrap_servers = {*Endpoint::Parse("198.51.100.53:53")};
  DnsRig rig(o);
  auto& q = rig.Ask("example.com");
  rig.Answer(rig.socket(0), "", 3);
  rig.Answer(rig.socket(1), "", 3);
  rig.Turn();
  ASSERT_EQ(rig.socket_count(), 3u);
  EXPECT_EQ(rig.to(2), "192.0.2.54:53");
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(q.upstream, "b");
}

TEST(ResolverBootstrap, SecondAddressWhenTheFirstIsSilent) {
  DnsUpstreamOptions u = PlainUpstream("named", "dns.example.net");
  u.addresses = {*IpAddress::Parse("192.0.2.1"),
                 *IpAddress::Parse("192.0.2.2")};
  DnsRig rig(OptionsOf({u}));
  auto& q = rig.Ask("example.com");
  EXPECT_EQ(rig.to(0), "192.0.2.1:53");
  rig.Advance(milliseconds(1010));
  ASSERT_EQ(rig.socket_count(), 2u);
  EXPECT_EQ(rig.to(1), "192.0.2.2:53");
  rig.Answer(rig.socket(1), "203.0.113.1");
  EXPECT_EQ(q.calls, 1);
  rig.Ask("b.example.com");
  EXPECT_EQ(rig.to(2), "192.0.2.2:53") << "preferred from here on";
  rig.AnswerLast("203.0.113.1");
}

TEST(ResolverSystem, AsksWhatTheHostAsks) {
  DnsRig rig({});
  rig.system_dns.servers = {*Endpoint::Parse("198.51.100.1:53")};
  auto& q = rig.Ask("example.com");
  EXPECT_EQ(rig.to(0), "198.51.100.1:53");
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(q.upstream, "system");
  rig.system_dns.servers = {*Endpoint::Parse("[2001:db8::1]:53")};
  rig.Advance(seconds(2));
  rig.Ask("b.example.com");
  EXPECT_EQ(rig.to(1), "[2001:db8::1]:53");
  rig.AnswerLast("203.0.113.1");
  rig.system_dns.servers.clear();
  rig.Advance(seconds(2));
  auto& none = rig.Ask("c.example.com");
  rig.Advance(seconds(2));
  EXPECT_EQ(none.failure, DnsFailure::kNoUpstream);
}

TEST(ResolverSystem, NeverOurselves) {
  DnsResolverOptions o;
  o.own_prefixes = {*IpPrefix::Parse("10.0.0.0/24")};
  DnsRig rig(o);
  rig.system_dns.servers = {*Endpoint::Parse("10.0.0.1:53"),
                            *Endpoint::Parse("198.51.100.1:53")};
  rig.Ask("example.com");
  EXPECT_EQ(rig.to(0), "198.51.100.1:53");
  rig.AnswerLast("203.0.113.1");
}

TEST(ResolverFail, ClosedByDefault) {
  DnsRig rig(One());
  rig.system_dns.servers = {*Endpoint::Parse("198.51.100.1:53")};
  auto& q = rig.Ask("example.com");
  rig.Advance(seconds(6));
  EXPECT_EQ(q.rcode, 2);
  for (size_t i = 0; i < rig.socket_count(); ++i) {
    EXPECT_EQ(rig.to(i), "192.0.2.53:53");
  }
}

TEST(ResolverFail, OpenWhenConfigured) {
  DnsResolverOptions o = One();
  o.fail_open = true;
  DnsRig rig(o);
  rig.system_dns.servers = {*Endpoint::Parse("198.51.100.1:53")};
  auto& q = rig.Ask("example.com");
  rig.Advance(milliseconds(1990));
  ASSERT_EQ(rig.socket_count(), 2u);
  EXPECT_EQ(rig.to(1), "192.0.2.53:53") << "the first may have been lost";
  rig.Advance(milliseconds(20));
  ASSERT_EQ(rig.socket_count(), 3u);
  EXPECT_EQ(rig.to(2), "198.51.100.1:53");
  rig.Answer(rig.socket(2), "203.0.113.1");
  EXPECT_EQ(q.upstream, "system");
  EXPECT_EQ(rig.failed_open, 1);
  EXPECT_EQ(rig.resolver->stats().failed_open, 1u);
  // A bad answer is an answer: nothing leaves in the clear for it.
  auto& bad = rig.Ask("bad.example.com");
  rig.AnswerLast("", 2);
  EXPECT_EQ(bad.rcode, 2);
  EXPECT_EQ(rig.socket_count(), 4u);
}

// Who is refused by everybody need not wait.
TEST(ResolverFail, OpensAtOnceWhenAllHaveFailed) {
  DnsResolverOptions o = Two();
  o.fail_open = true;
  DnsRig rig(o);
  rig.system_dns.servers = {*Endpoint::Parse("198.51.100.1:53")};
  rig.connect_result = [](const Endpoint& to) {
    return to.port == 53 && to.ip == IpAddress::V4(198, 51, 100, 1)
               ? 0
               : -ENETUNREACH;
  };
  auto& q = rig.Ask("example.com");
  rig.Advance(milliseconds(200));
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(q.upstream, "system");
  EXPECT_LT(q.latency, milliseconds(300));
}

// --- changes ----------------------------------------------------------------

// R11: what was asked over the old network is asked over the new one.
TEST(ResolverChange, NetworkChanged) {
  DnsRig rig(One());
  auto& q = rig.Ask("example.com");
  rig.Advance(milliseconds(100));
  rig.resolver->OnNetworkChanged(rig.now());
  rig.Turn();
  rig.Advance(milliseconds(10));
  ASSERT_EQ(rig.socket_count(), 2u);
  EXPECT_TRUE(rig.socket(0).closed);
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(q.address(), "203.0.113.1");
  EXPECT_LE(q.latency, seconds(1));
  EXPECT_TRUE(rig.Info("a").up);
}

TEST(ResolverChange, UnchangedUpstreamsKeepWhatTheyKnow) {
  DnsRig rig(Two());
  rig.Ask("a.example.com");
  rig.clock.Advance(milliseconds(20));
  rig.AnswerLast("203.0.113.1");
  auto& q = rig.Ask("b.example.com");
  DnsResolverOptions o = Two();
  o.upstreams[1].server = "2001:db8::54";
  rig.resolver->Configure(o, rig.now());
  rig.Turn();
  EXPECT_EQ(rig.Info("a").answers, 1u);
  rig.Answer(rig.socket(1), "203.0.113.2");
  EXPECT_EQ(q.address(), "203.0.113.2");
}

TEST(ResolverChange, QuestionsOfARemovedUpstreamAreAskedOfAnother) {
  DnsRig rig(One());
  auto& q = rig.Ask("example.com");
  rig.resolver->Configure(One("192.0.2.99"), rig.now());
  rig.Advance(milliseconds(10));
  EXPECT_TRUE(rig.socket(0).closed);
  ASSERT_EQ(rig.socket_count(), 2u);
  EXPECT_EQ(rig.to(1), "192.0.2.99:53");
  rig.AnswerLast("203.0.113.1");
  EXPECT_EQ(q.calls, 1);
}

TEST(ResolverChange, ShutdownAnswersEverybody) {
  DnsRig rig(Two());
  auto& q = rig.Ask("example.com");
  rig.resolver->Shutdown(rig.now());
  EXPECT_EQ(q.rcode, 2);
  EXPECT_EQ(rig.sockets.open_count(), 0u);
  EXPECT_EQ(rig.Ask("late.example.com").failure, DnsFailure::kBusy);
}

TEST(ResolverOptions, ProblemsAreNamed) {
  DnsResolverOptions o;
  o.upstreams = {PlainUpstream("a", "not a host"),
                 PlainUpstream("a", "http://x/", DnsUpstreamKind::kHttps)};
  o.upstreams[0].pins = {"short"};
  o.groups = {{"g", {"nobody"}}};
  o.default_group = "none";
  o.query_timeout = milliseconds(1);
  o.failover_rcodes = {3};
  std::vector<std::string> fields;
  for (const auto& p : Validate(o)) fields.push_back(p.field);
  EXPECT_THAT(fields,
              ElementsAre("upstreams[0].server", "upstreams[0].pins",
                          "upstreams[0].pins", "upstreams[1].server",
                          "upstreams[1].name", "groups[0].upstreams",
                          "default_group", "query_timeout", "failover_rcodes"));
}

}  // namespace
}  // namespace netstack::test

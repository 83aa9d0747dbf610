#include "core/dns/message.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/dns/test_messages.h"

namespace netstack::dns {
namespace {

using test::ByteVector;
using test::ExactCopy;
using test::Hex;
using test::Ip;
using test::kAnswerFlags;
using test::kRd;
using test::MessageMaker;
using test::Name;
using test::SvcbData;
using test::Wire;
using testing::ElementsAre;
using testing::IsEmpty;

ByteVector Copy(Bytes bytes) { return ByteVector(bytes.begin(), bytes.end()); }

// A buffer for Write functions.
struct Out {
  ByteVector buffer = ByteVector(kMaxMessageSize);
  operator MutableBytes() { return buffer; }  // NOLINT: as it is used
};

Query QueryFor(absl::string_view name, unsigned type, bool edns = false) {
  MessageMaker m(0x1234, kRd);
  m.Question(name, type);
  if (edns) m.Opt(4096);
  return *ParseQuery(m.bytes());
}

// A view that owns its bytes.
struct Viewed {
  explicit Viewed(ByteVector m)
      : bytes(std::move(m)), parsed(ParseAnswer(bytes)) {
    EXPECT_TRUE(parsed);
  }
  explicit Viewed(Bytes m) : Viewed(Copy(m)) {}
  const AnswerView* operator->() const { return &*parsed; }
  const AnswerView& operator*() const { return *parsed; }
  ByteVector bytes;
  OrFault<AnswerView, AnswerFault> parsed;
};

// --- Queries -----------------------------------------------------------------

TEST(ParseQuery, ReadsEverythingThatCounts) {
  ByteVector options;
  for (unsigned code : {8u, 10u, 11u, 12u, 65001u}) {
    test::Put16(options, code);
    test::Put16(options, 2);
    test::Put16(options, 0);
  }
  const ByteVector m = MessageMaker(0xBEEF, 0x0130)  // RD, AD, CD
                           .Question("wWw.Example", type::kHttps)
                           .Opt(1400, 0x8000, options);
  ExactCopy copy(m);
  const auto q = ParseQuery(copy.bytes());
  ASSERT_TRUE(q);
  EXPECT_EQ(q->id, 0xBEEF);
  EXPECT_TRUE(q->recursion_desired);
  EXPECT_TRUE(q->authentic_data);
  EXPECT_TRUE(q->checking_disabled);
  EXPECT_EQ(q->name, Name("www.example"));
  EXPECT_EQ(q->type, type::kHttps);
  EXPECT_TRUE(q->upper.IsUpper(2));
  EXPECT_FALSE(q->upper.IsUpper(1));
  EXPECT_TRUE(q->edns.present);
  EXPECT_TRUE(q->edns.dnssec_ok);
  EXPECT_EQ(q->edns.udp_size, 1400);
  EXPECT_TRUE(q->edns.client_subnet && q->edns.cookie && q->edns.padding &&
              q->edns.tcp_keepalive);
}

TEST(ParseQuery, PlainQueryHasNone) {
  const auto q =
      ParseQuery(MessageMaker(1, 0).Question("a.example", 1).bytes());
  ASSERT_TRUE(q);
  EXPECT_FALSE(q->recursion_desired);
  EXPECT_FALSE(q->edns.present);
  EXPECT_FALSE(q->upper.any());
}

struct FaultCase {
  QueryFault fault;
  ByteVector message;
  std::optional<Rcode> rcode;
};

std::vector<FaultCase> QueryFaults() {
  const auto plain = [](unsigned flags = kRd) {
    return MessageMaker(7, flags).Question("a.example", 1);
  };
  ByteVector cut_question = plain();
  cut_question.resize(cut_question.size() - 1);
  ByteVector cut_opt = plain().Opt(1232);
  cut_opt.resize(cut_opt.size() - 1);
  MessageMaker many = plain();
  for (int i = 0; i < 9; ++i) many.Record(2, Wire("."), 16, 0, {});
  const std::optional<Rcode> form = Rcode::kFormErr;
  return {
      {QueryFault::kTooShort, Hex("0007 0100 0001 0000 0000 00"), {}},
      {QueryFault::kIsAnswer, plain(0x8100), {}},
      {QueryFault::kOpcode, plain(0x2900), Rcode::kNotImp},
      {QueryFault::kQuestionCount, MessageMaker(7, kRd), form},
      {QueryFault::kQuestionCount, plain().Question("b", 1), form},
      {QueryFault::kBadName,
       MessageMaker(7, kRd).Append(Hex("c00c 0001 0001")).Count(4), form},
      {QueryFault::kCut, cut_question, form},
      {QueryFault::kCut, cut_opt, form},
      {QueryFault::kUnexpectedRecords, plain().Address("a", "192.0.2.1", 1),
       form},
      {QueryFault::kUnexpectedRecords, plain().Soa("a", 1, 1), form},
      {QueryFault::kUnexpectedRecords, many, form},
      {QueryFault::kBadEdns, plain().Opt(1232).Opt(1232), form},
      {QueryFault::kBadEdns, plain().Record(2, Wire("x"), 41, 0, {}, 1232),
       form},
      {QueryFault::kBadEdns, plain().Opt(1232, 0, Hex("000a 0008 01")), form},
      {QueryFault::kEdnsVersion, plain().Opt(1232, 0x00010000),
       Rcode::kBadVersion},
      {QueryFault::kClass, MessageMaker(7, kRd).Question("version.bind", 16, 3),
       Rcode::kRefused},
      {QueryFault::kType, MessageMaker(7, kRd).Question("a", 41), form},
      {QueryFault::kType, MessageMaker(7, kRd).Question("a", 0), form},
      {QueryFault::kZoneTransfer, MessageMaker(7, kRd).Question("a", 252),
       Rcode::kRefused},
      {QueryFault::kZoneTransfer,
       MessageMaker(7, kRd).Question("a", 251).Soa("a", 1, 1), Rcode::kRefused},
  };
}

TEST(ParseQuery, EveryFaultHasItsReasonAndAnswer) {
  std::vector<bool> seen(kQueryFaultCount);
  for (const FaultCase& c : QueryFaults()) {
    const size_t index = static_cast<size_t>(c.fault);
    SCOPED_TRACE(kQueryFaultNames[index]);
    seen[index] = true;
    ExactCopy copy(c.message);
    const auto q = ParseQuery(copy.bytes());
    ASSERT_FALSE(q);
    EXPECT_EQ(kQueryFaultNames[static_cast<size_t>(q.fault())],
              kQueryFaultNames[index]);
    EXPECT_EQ(RcodeOf(c.fault), c.rcode);

    Out out;
    const Bytes answer = WriteFaultAnswer(copy.bytes(), c.fault, out);
    if (!c.rcode) {
      EXPECT_TRUE(answer.empty());
      continue;
    }
    ASSERT_GE(answer.size(), kHeaderSize);
    EXPECT_EQ(Load16(&answer[0]), 7);
    EXPECT_EQ(Load8(&answer[2]) & 0x80, 0x80);
    EXPECT_EQ(Load8(&answer[2]) & 0x79, Load8(&c.message[2]) & 0x79);
    EXPECT_EQ(Load8(&answer[3]) & 0x0F, static_cast<int>(*c.rcode) & 0x0F);
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), false), 0);
}

TEST(ParseQuery, SurvivesEveryCut) {
  const ByteVector m = MessageMaker(7, kRd)
                           .Question("a.example", 1)
                           .Opt(1232, 0, Hex("000a 0008 0102030405060708"));
  for (size_t size = 0; size < m.size(); ++size) {
    ExactCopy cut(Bytes(m).first(size));
    EXPECT_FALSE(ParseQuery(cut.bytes())) << size;
  }
  EXPECT_TRUE(ParseQuery(m));
}

TEST(WriteFaultAnswer, KeepsTheQuestionAndTellsBadVersionInEdns) {
  const ByteVector m =
      MessageMaker(7, kRd).Question("A.example", 1).Opt(1232, 0x00010000);
  Out out;
  const Viewed view(WriteFaultAnswer(m, QueryFault::kEdnsVersion, out));
  EXPECT_EQ(view->rcode(), Rcode::kBadVersion);
  EXPECT_EQ(view->name(), Name("a.example"));
  EXPECT_TRUE(view->upper().IsUpper(1));
}

TEST(UdpLimit, FollowsTheAskerWithinBounds) {
  Query q = QueryFor("a", 1);
  EXPECT_EQ(UdpLimit(q, 1232), 512u);
  q.edns.present = true;
  q.edns.udp_size = 0;
  EXPECT_EQ(UdpLimit(q, 1232), 512u);
  q.edns.udp_size = 1000;
  EXPECT_EQ(UdpLimit(q, 1232), 1000u);
  q.edns.udp_size = 65535;
  EXPECT_EQ(UdpLimit(q, 1232), 1232u);
}

TEST(WriteQuery, ParsesBackAsMeant) {
  const DnsName name = Name("www.example.com");
  QueryToUpstream up;
  up.id = 0x4242;
  up.type = type::kAaaa;
  up.name = &name;
  up.upper.Set(1);
  up.checking_disabled = true;
  up.dnssec_ok = true;
  Out out;
  const auto q = ParseQuery(WriteQuery(up, out));
  ASSERT_TRUE(q);
  EXPECT_EQ(q->id, 0x4242);
  EXPECT_EQ(q->type, type::kAaaa);
  EXPECT_EQ(q->name, name);
  EXPECT_TRUE(q->upper.IsUpper(1));
  EXPECT_TRUE(q->recursion_desired && q->checking_disabled &&
              q->authentic_data && q->edns.dnssec_ok);
  EXPECT_EQ(q->edns.udp_size, kOurUdpSize);
}

TEST(WriteQuery, PadsToAMultiple) {
  Out out;
  for (size_t length = 1; length <= 60; ++length) {
    const DnsName name = Name(std::string(length, 'a') + ".example");
    QueryToUpstream up;
    up.name = &name;
    up.pad_to = 128;
    const Bytes message = WriteQuery(up, out);
    EXPECT_EQ(message.size(), 128u) << length;
    const auto q = ParseQuery(message);
    ASSERT_TRUE(q);
    EXPECT_TRUE(q->edns.padding);
  }
}

TEST(WriteQuery, LeavesOutEdnsAndFitsOrNot) {
  const DnsName name = Name("a.example");
  QueryToUpstream up;
  up.name = &name;
  up.edns = false;
  Out out;
  const Bytes message = WriteQuery(up, out);
  ASSERT_EQ(message.size(), 12 + 11 + 4u);
  EXPECT_FALSE(ParseQuery(message)->edns.present);
  for (size_t room = 0; room < 27; ++room) {
    ExactCopy small(ByteVector(room, std::byte{0xEE}));
    EXPECT_TRUE(WriteQuery(up, small.bytes()).empty()) << room;
  }
}

// What an app asked must not leave with more than it has to (ECS, cookies).
TEST(UpstreamQueryFor, PassesOnNoOptions) {
  const ByteVector m = MessageMaker(9, 0x0110)
                           .Question("A.example", 1)
                           .Opt(4096, 0x8000, Hex("0008 0007 00011800c00002"));
  const auto q = ParseQuery(m);
  ASSERT_TRUE(q);
  ASSERT_TRUE(q->edns.client_subnet);
  Out out;
  const auto sent = ParseQuery(WriteQuery(UpstreamQueryFor(*q), out));
  ASSERT_TRUE(sent);
  EXPECT_FALSE(sent->edns.client_subnet);
  EXPECT_FALSE(sent->upper.any());
  EXPECT_TRUE(sent->edns.dnssec_ok);
  EXPECT_TRUE(sent->checking_disabled);
  EXPECT_EQ(sent->id, 0);
}

// --- Answers -----------------------------------------------------------------

TEST(ParseAnswer, FindsAddressesHintsAndAliases) {
  const Viewed view(
      MessageMaker(7, kAnswerFlags)
          .Question("www.example", type::kHttps)
          .Cname("www.example", "cdn.example", 300)
          .Answer("cdn.example", type::kHttps, 60,
                  SvcbData("edge.example", {"192.0.2.1", "192.0.2.2"},
                           {"2001:db8::1"}))
          .Answer("cdn.example", type::kHttps, 60, SvcbData(".", {}, {}))
          .Record(2, Wire("edge.example"), 1, 50, Hex("c0000203"))
          .Opt(1232));
  EXPECT_EQ(view->id(), 7);
  EXPECT_EQ(view->rcode(), Rcode::kNoError);
  EXPECT_FALSE(view->IsNegative());
  EXPECT_EQ(view->Ttl(), 60u);
  EXPECT_THAT(view->Addresses(),
              ElementsAre(AnswerAddress{Ip("192.0.2.1"), 60, true},
                          AnswerAddress{Ip("192.0.2.2"), 60, true},
                          AnswerAddress{Ip("2001:db8::1"), 60, true},
                          AnswerAddress{Ip("192.0.2.3"), 50, true}));
  EXPECT_EQ(view->Addresses(2).size(), 2u);
  EXPECT_THAT(view->TargetNames(),
              ElementsAre(Name("cdn.example"), Name("edge.example")));
  EXPECT_EQ(view->TargetNames(1).size(), 1u);
}

TEST(ParseAnswer, PlainAddressesAreNoHints) {
  const Viewed view(MessageMaker(7, kAnswerFlags)
                        .Question("a.example", 28)
                        .Address("a.example", "2001:db8::1", 5)
                        .Address("a.example", "2001:db8::2", 6));
  EXPECT_THAT(view->Addresses(),
              ElementsAre(AnswerAddress{Ip("2001:db8::1"), 5, false},
                          AnswerAddress{Ip("2001:db8::2"), 6, false}));
}

// RFC 9460, 2.2: of a malformed record nothing is used.
TEST(ParseAnswer, MalformedSvcbGivesNothing) {
  const char* const kBad[] = {
      "",                                      // empty
      "0001",                                  // no target
      "0001 00 0004 0003 c00002",              // a hint of three bytes
      "0001 00 0004 0000",                     // none in it
      "0001 00 0006 0004 c0000201",            // an IPv6 hint of four
      "0001 00 0004 0008 c0000201",            // cut
      "0001 00 0004 0004 c0000201 0001 0000",  // keys do not ascend
      "0001 c00c 0004 0004 c0000201",          // a compressed target
      "0001 00 0004",                          // a key without length
  };
  for (const char* hex : kBad) {
    const Viewed view(MessageMaker(7, kAnswerFlags)
                          .Question("a.example", 65)
                          .Answer("a.example", 65, 60, Hex(hex)));
    EXPECT_THAT(view->Addresses(), IsEmpty()) << hex;
    EXPECT_THAT(view->TargetNames(), IsEmpty()) << hex;
  }
}

TEST(ParseAnswer, EveryFaultHasItsReason) {
  const auto plain = [](unsigned flags = kAnswerFlags) {
    return MessageMaker(7, flags).Question("a.example", 1);
  };
  ByteVector cut = plain().Address("a.example", "192.0.2.1", 1);
  cut.resize(cut.size() - 1);
  ByteVector missing = plain();
  Store16(&missing[6], 1);
  const std::vector<std::pair<AnswerFault, ByteVector>> cases = {
      {AnswerFault::kTooShort, Hex("0007 8180 0001 0000 0000 00")},
      {AnswerFault::kIsQuery, plain(kRd)},
      {AnswerFault::kOpcode, plain(0xA980)},
      {AnswerFault::kQuestionCount, MessageMaker(7, kAnswerFlags)},
      {AnswerFault::kQuestionCount, plain().Question("b", 1)},
      {AnswerFault::kBadName,
       MessageMaker(7, kAnswerFlags).Append(Hex("c00c 0001 0001")).Count(4)},
      {AnswerFault::kBadName,
       plain().Record(0, Hex("c0ff"), 1, 1, Hex("c0000201"))},
      {AnswerFault::kBadName, plain().Answer("a", 5, 1, Hex("0361"))},
      {AnswerFault::kCut, cut},
      {AnswerFault::kCut, missing},
      {AnswerFault::kBadRecord, plain().Answer("a", 1, 1, Hex("c00002"))},
      {AnswerFault::kBadRecord, plain().Answer("a", 28, 1, Hex("c0000201"))},
      {AnswerFault::kBadRecord, plain().Answer("a", 5, 1, Hex("016100 00"))},
      {AnswerFault::kBadRecord,
       plain().Record(1, Wire("a"), 6, 1, Hex("0000 00000001"))},
      {AnswerFault::kBadRecord, plain().Answer("a", 15, 1, Hex("00"))},
      {AnswerFault::kBadEdns, plain().Opt(1232).Opt(1232)},
      {AnswerFault::kBadEdns, plain().Record(0, Wire("."), 41, 0, {}, 1232)},
      {AnswerFault::kBadEdns, plain().Record(2, Wire("x"), 41, 0, {}, 1232)},
  };
  std::vector<bool> seen(kAnswerFaultCount);
  for (const auto& [fault, message] : cases) {
    SCOPED_TRACE(kAnswerFaultNames[static_cast<size_t>(fault)]);
    seen[static_cast<size_t>(fault)] = true;
    ExactCopy copy(message);
    const auto view = ParseAnswer(copy.bytes());
    ASSERT_FALSE(view);
    EXPECT_EQ(kAnswerFaultNames[static_cast<size_t>(view.fault())],
              kAnswerFaultNames[static_cast<size_t>(fault)]);
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), false), 0);
}

TEST(ParseAnswer, SurvivesEveryCut) {
  const ByteVector m = MessageMaker(7, kAnswerFlags)
                           .Question("www.example", 1)
                           .Cname("www.example", "a.example", 30)
                           .Address("a.example", "192.0.2.1", 20)
                           .Soa("example", 10, 5)
                           .Opt(1232);
  for (size_t size = 0; size < m.size(); ++size) {
    ExactCopy cut(Bytes(m).first(size));
    EXPECT_FALSE(ParseAnswer(cut.bytes())) << size;
  }
  EXPECT_TRUE(ParseAnswer(m));
}

// R17: what a forger has to guess.
TEST(AnswerView, AnswersOnlyItsQuestion) {
  const DnsName name = Name("a.example");
  const DnsName other = Name("b.example");
  const Viewed view(MessageMaker(7, kAnswerFlags).Question("A.example", 1));
  QueryToUpstream q;
  q.name = &name;
  EXPECT_TRUE(view->Answers(q));
  q.upper.Set(1);
  EXPECT_TRUE(view->Answers(q));
  q.upper.Set(3);  // not the case that was asked with
  EXPECT_FALSE(view->Answers(q));
  q.upper = {};
  q.type = type::kAaaa;
  EXPECT_FALSE(view->Answers(q));
  q.type = type::kA;
  q.name = &other;
  EXPECT_FALSE(view->Answers(q));
  q.name = &name;
  const Viewed chaos(MessageMaker(7, kAnswerFlags).Question("a.example", 1, 3));
  EXPECT_FALSE(chaos->Answers(q));
}

TEST(AnswerView, TtlOfPositiveIsTheLeastOfTheAnswers) {
  const Viewed view(MessageMaker(7, kAnswerFlags)
                        .Question("a", 1)
                        .Cname("a", "b", 40)
                        .Address("b", "192.0.2.1", 30)
                        .Address("b", "192.0.2.2", 50)
                        .Record(1, Wire("."), 2, 3, Wire("ns")));
  EXPECT_EQ(view->Ttl(), 30u);
  EXPECT_FALSE(view->IsNegative());
}

// RFC 2308, section 5.
TEST(AnswerView, TtlOfNegativeIsTheSoas) {
  const auto ttl = [](const MessageMaker& m) {
    return Viewed(m.bytes())->Ttl();
  };
  const auto nxdomain = [] {
    return MessageMaker(7, kAnswerFlags | 3).Question("a", 1);
  };
  EXPECT_EQ(ttl(nxdomain().Soa(".", 100, 50)), 50u);
  EXPECT_EQ(ttl(nxdomain().Soa(".", 50, 100)), 50u);
  EXPECT_EQ(ttl(nxdomain()), std::nullopt);
  EXPECT_TRUE(Viewed(nxdomain().bytes())->IsNegative());
  // No data, behind an alias that lives shorter.
  const Viewed nodata(MessageMaker(7, kAnswerFlags)
                          .Question("a", 1)
                          .Cname("a", "b", 20)
                          .Soa(".", 100, 50));
  EXPECT_TRUE(nodata->IsNegative());
  EXPECT_EQ(nodata->Ttl(), 20u);
  // A referral is no answer, and SERVFAIL has no TTL.
  EXPECT_EQ(ttl(MessageMaker(7, kAnswerFlags)
                    .Question("a", 1)
                    .Record(1, Wire("."), 2, 3, Wire("ns"))),
            std::nullopt);
  EXPECT_EQ(
      ttl(MessageMaker(7, kAnswerFlags | 2).Question("a", 1).Soa(".", 9, 9)),
      std::nullopt);
}

// RFC 2181, section 8.
TEST(AnswerView, TtlWithTheHighBitIsZero) {
  const Viewed view(MessageMaker(7, kAnswerFlags)
                        .Question("a", 1)
                        .Address("a", "192.0.2.1", 0x80000001));
  EXPECT_EQ(view->Ttl(), 0u);
}

// --- Stored answers ----------------------------------------------------------

StoredAnswer Store(const ByteVector& message, const TtlLimits& limits = {}) {
  return StoredAnswer(*Viewed(message), limits);
}

TEST(StoredAnswer, ComesBackForAnotherAsker) {
  // AA, AD, RD, RA; another id, other case, an OPT of the upstream's.
  const StoredAnswer stored =
      Store(MessageMaker(0xAAAA, 0x85A0)
                .Question("WWW.example", 1)
                .Record(0, Hex("c00c"), 5, 300, Wire("a.example"))
                .Record(0, Wire("a.example"), 1, 100, Hex("c0000201"))
                .Record(1, Wire("example"), 2, 30, Wire("ns.example"))
                .Opt(4096));
  EXPECT_EQ(stored.ttl(), 100u);
  EXPECT_FALSE(stored.is_negative());

  const ByteVector asked = MessageMaker(0x5555, 0x0110)  // RD, CD
                               .Question("wWw.eXample", 1)
                               .Opt(4096, 0x8000);
  const Query query = *ParseQuery(asked);
  Out out;
  const Viewed view(WriteAnswer(query, stored, WriteOptions{.age = 40}, out));
  EXPECT_EQ(view->id(), 0x5555);
  // QR, RD, RA, AD (DO asks for it), CD; not AA.
  EXPECT_EQ(Load16(&view.bytes[2]), 0x81B0);
  // The question as it was asked, case and all.
  EXPECT_TRUE(std::equal(asked.begin() + 12, asked.begin() + 12 + 17,
                         view.bytes.begin() + 12));
  std::vector<uint32_t> ttls;
  view->ForEachRecord([&](const Record& r) {
    ttls.push_back(r.ttl);
    return true;
  });
  EXPECT_THAT(ttls, ElementsAre(260u, 60u, 0u));
  // Our own OPT behind them: 1232 bytes, DO as asked, no options.
  EXPECT_EQ(Copy(Bytes(view.bytes).last(11)),
            Hex("00 0029 04d0 00008000 0000"));
}

TEST(StoredAnswer, PlainAskerGetsNoEdnsAndNoAd) {
  const StoredAnswer stored = Store(MessageMaker(1, 0x81A0)
                                        .Question("a.example", 1)
                                        .Address("a.example", "192.0.2.1", 9)
                                        .Opt(4096));
  Out out;
  const Viewed view(WriteAnswer(QueryFor("a.example", 1), stored, {}, out));
  EXPECT_EQ(Load16(&view.bytes[2]), 0x8180);
  EXPECT_EQ(Load16(&view.bytes[10]), 0);
  EXPECT_EQ(view->Addresses().size(), 1u);
}

TEST(StoredAnswer, StaleTellsTheStaleTtl) {
  const StoredAnswer stored = Store(MessageMaker(1, kAnswerFlags)
                                        .Question("a.example", 1)
                                        .Address("a.example", "192.0.2.1", 9));
  Out out;
  const Viewed view(
      WriteAnswer(QueryFor("a.example", 1, true), stored,
                  WriteOptions{.age = 9,
                               .expired_ttl = 30,
                               .extended_error = ExtendedError::kStaleAnswer},
                  out));
  EXPECT_EQ(view->Ttl(), 30u);
  // The OPT's last six bytes: EDE, two bytes, stale answer.
  EXPECT_EQ(Copy(Bytes(view.bytes).last(6)), Hex("000f 0002 0003"));
}

TEST(StoredAnswer, LimitsMoveTtls) {
  const ByteVector positive = MessageMaker(1, kAnswerFlags)
                                  .Question("a", 1)
                                  .Address("a", "192.0.2.1", 5)
                                  .Address("a", "192.0.2.2", 500);
  TtlLimits limits;
  limits.min = 60;
  limits.max = 100;
  const StoredAnswer stored = Store(positive, limits);
  EXPECT_EQ(stored.ttl(), 60u);
  Out out;
  const Viewed view(
      WriteAnswer(QueryFor("a", 1), stored, WriteOptions{.age = 10}, out));
  EXPECT_THAT(view->Addresses(),
              ElementsAre(AnswerAddress{Ip("192.0.2.1"), 50, false},
                          AnswerAddress{Ip("192.0.2.2"), 90, false}));
  limits.max_negative = 7;
  const ByteVector negative =
      MessageMaker(1, kAnswerFlags | 3).Question("a", 1).Soa(".", 100, 100);
  EXPECT_EQ(Store(negative, limits).ttl(), 7u);
  EXPECT_TRUE(Store(negative, limits).is_negative());
}

TEST(StoredAnswer, FailuresAndCutAnswersHaveTheirOwnTtl) {
  EXPECT_EQ(Store(MessageMaker(1, kAnswerFlags | 2).Question("a", 1)).ttl(),
            5u);
  EXPECT_EQ(Store(MessageMaker(1, kAnswerFlags | 0x0200)
                      .Question("a", 1)
                      .Address("a", "192.0.2.1", 60))
                .ttl(),
            0u);
  EXPECT_EQ(Store(MessageMaker(1, kAnswerFlags).Question("a", 1)).ttl(), 0u);
  const StoredAnswer bad_version =
      Store(MessageMaker(1, kAnswerFlags).Question("a", 1).Opt(0, 1u << 24));
  EXPECT_EQ(bad_version.rcode(), Rcode::kServFail);
}

TEST(StoredAnswer, OptInTheMiddleTakesWhatFollowsAlong) {
  const StoredAnswer stored =
      Store(MessageMaker(1, kAnswerFlags)
                .Question("a", 1)
                .Address("a", "192.0.2.1", 60)
                .Record(2, Wire("x"), 1, 60, Hex("c0000202"))
                .Opt(1232)
                .Record(2, Wire("y"), 1, 60, Hex("c0000203")));
  Out out;
  const Viewed view(WriteAnswer(QueryFor("a", 1, true), stored, {}, out));
  EXPECT_EQ(view->record_count(), 3u);  // A, A, our OPT
  EXPECT_EQ(view->Addresses().size(), 2u);
}

TEST(WriteAnswer, TruncatesBeyondTheLimit) {
  MessageMaker m(1, kAnswerFlags);
  m.Question("a.example", 1);
  for (int i = 0; i < 60; ++i) m.Address("a.example", "192.0.2.1", 60);
  const StoredAnswer stored = Store(m);
  const Query query = QueryFor("A.example", 1, true);
  Out out;
  const size_t whole = stored.message().size() + 11;
  EXPECT_EQ(
      WriteAnswer(query, stored, WriteOptions{.limit = whole}, out).size(),
      whole);
  const Viewed view(
      WriteAnswer(query, stored, WriteOptions{.limit = whole - 1}, out));
  EXPECT_TRUE(view->truncated());
  EXPECT_EQ(view->answer_count(), 0u);
  EXPECT_EQ(view->id(), query.id);
  EXPECT_TRUE(view->upper().IsUpper(1));
  EXPECT_LE(view.bytes.size(), 512u);
}

// Of 65,535 bytes the records come first: over TCP there is nothing to fall
// back to.
TEST(WriteAnswer, TheLargestMessagePasses) {
  MessageMaker m(1, kAnswerFlags);
  m.Question("a", 16);
  // The records' head is 13 bytes each: 19 + 255 * 256 + 236 = 65,535.
  for (int i = 0; i < 255; ++i) {
    m.Answer("a", 16, 60, ByteVector(243, std::byte{1}));
  }
  m.Answer("a", 16, 60, ByteVector(223, std::byte{1}));
  const StoredAnswer stored = Store(m);
  ASSERT_EQ(stored.message().size(), kMaxMessageSize);
  Out out;
  const Viewed view(WriteAnswer(QueryFor("a", 16, true), stored, {}, out));
  EXPECT_FALSE(view->truncated());
  EXPECT_EQ(view->answer_count(), 256u);
  EXPECT_EQ(view->record_count(), 256u) << "without our OPT";
}

// The extended error is worth less than the answer.
TEST(WriteAnswer, LeavesOutTheErrorThatDoesNotFit) {
  MessageMaker m(1, kAnswerFlags);
  m.Question("a.example", 1).Address("a.example", "192.0.2.1", 60);
  const StoredAnswer stored = Store(m);
  const Query query = QueryFor("a.example", 1, true);
  Out out;
  WriteOptions options;
  options.extended_error = ExtendedError::kStaleAnswer;
  options.limit = stored.message().size() + 11 + 6;
  EXPECT_EQ(WriteAnswer(query, stored, options, out).size(), options.limit);
  --options.limit;
  const Viewed view(WriteAnswer(query, stored, options, out));
  EXPECT_FALSE(view->truncated());
  EXPECT_EQ(view.bytes.size(), options.limit - 5);
}

TEST(WriteAnswer, WritesNothingIntoTooLittleRoom) {
  const StoredAnswer stored = Store(MessageMaker(1, kAnswerFlags)
                                        .Question("a.example", 1)
                                        .Address("a.example", "192.0.2.1", 9));
  const Query query = QueryFor("a.example", 1, true);
  const size_t whole = stored.message().size() + 11;
  for (size_t room = 0; room < whole; ++room) {
    ExactCopy small(ByteVector(room, std::byte{0xEE}));
    EXPECT_TRUE(WriteAnswer(query, stored, {}, small.bytes()).empty());
  }
}

// --- Answers of our own ------------------------------------------------------

TEST(WriteBlockAnswer, NullAddresses) {
  Out out;
  const Viewed a(WriteBlockAnswer(QueryFor("Ads.example", type::kA),
                                  BlockAnswer::kNullAddress, 60, out));
  EXPECT_THAT(a->Addresses(),
              ElementsAre(AnswerAddress{Ip("0.0.0.0"), 60, false}));
  EXPECT_TRUE(a->upper().IsUpper(1));
  const Viewed aaaa(WriteBlockAnswer(QueryFor("ads.example", type::kAaaa),
                                     BlockAnswer::kNullAddress, 60, out));
  EXPECT_THAT(aaaa->Addresses(),
              ElementsAre(AnswerAddress{IpAddress(), 60, false}));
  // Other types: no data, kept for the TTL.
  const Viewed https(WriteBlockAnswer(QueryFor("ads.example", type::kHttps),
                                      BlockAnswer::kNullAddress, 60, out));
  EXPECT_TRUE(https->IsNegative());
  EXPECT_EQ(https->rcode(), Rcode::kNoError);
  EXPECT_EQ(https->Ttl(), 60u);
}

TEST(WriteBlockAnswer, NxDomainAndRefused) {
  Out out;
  const Viewed nx(WriteBlockAnswer(QueryFor("ads.example", 1, true),
                                   BlockAnswer::kNxDomain, 60, out));
  EXPECT_EQ(nx->rcode(), Rcode::kNxDomain);
  EXPECT_EQ(nx->Ttl(), 60u);
  const Viewed refused(WriteBlockAnswer(QueryFor("ads.example", 1, true),
                                        BlockAnswer::kRefused, 60, out));
  EXPECT_EQ(refused->rcode(), Rcode::kRefused);
  EXPECT_EQ(Copy(Bytes(refused.bytes).last(6)),
            Hex("000f 0002 000f"));  // EDE: blocked
}

TEST(WriteRewriteAnswer, AddressesOfTheAskedFamily) {
  const std::vector<IpAddress> ips = {Ip("192.0.2.1"), Ip("2001:db8::1"),
                                      Ip("192.0.2.2")};
  Out out;
  const Viewed a(WriteRewriteAnswer(QueryFor("a", 1), nullptr, ips, 9, out));
  EXPECT_THAT(a->Addresses(),
              ElementsAre(AnswerAddress{Ip("192.0.2.1"), 9, false},
                          AnswerAddress{Ip("192.0.2.2"), 9, false}));
  const Viewed aaaa(
      WriteRewriteAnswer(QueryFor("a", 28, true), nullptr, ips, 9, out));
  EXPECT_THAT(aaaa->Addresses(),
              ElementsAre(AnswerAddress{Ip("2001:db8::1"), 9, false}));
  const Viewed none(
      WriteRewriteAnswer(QueryFor("a", 16), nullptr, ips, 9, out));
  EXPECT_TRUE(none->IsNegative());
  EXPECT_EQ(none->Ttl(), 9u);
}

TEST(WriteRewriteAnswer, CnameOwnsTheAddresses) {
  const DnsName target = Name("safe.example");
  const std::vector<IpAddress> ips = {Ip("192.0.2.1")};
  Out out;
  const Viewed view(
      WriteRewriteAnswer(QueryFor("a.test", 1, true), &target, ips, 9, out));
  EXPECT_THAT(view->TargetNames(), ElementsAre(target));
  std::vector<DnsName> owners;
  view->ForEachRecord([&](const Record& r) {
    owners.push_back(view->NameAt(r.owner_at));
    return true;
  });
  EXPECT_THAT(owners, ElementsAre(Name("a.test"), target));
  EXPECT_FALSE(view->IsNegative());
}

TEST(WriteRewriteAnswer, LeavesOutWhatDoesNotFit) {
  const std::vector<IpAddress> ips(100, Ip("192.0.2.1"));
  Out out;
  const Viewed view(WriteRewriteAnswer(QueryFor("a", 1, true), nullptr, ips, 9,
                                       MutableBytes(out).first(512)));
  EXPECT_LE(view.bytes.size(), 512u);
  EXPECT_GT(view.bytes.size(), 512u - 16);
  EXPECT_GT(view->Addresses().size(), 25u);
}

TEST(WriteErrorAnswer, TellsWhy) {
  Out out;
  const Viewed view(WriteErrorAnswer(QueryFor("A", 1, true), Rcode::kServFail,
                                     out, ExtendedError::kNetworkError));
  EXPECT_EQ(view->rcode(), Rcode::kServFail);
  EXPECT_EQ(Copy(Bytes(view.bytes).last(6)), Hex("000f 0002 0017"));
}

TEST(Names, OfTypesAndRcodes) {
  EXPECT_EQ(TypeName(type::kHttps), "HTTPS");
  EXPECT_EQ(TypeName(4711), "TYPE4711");
  EXPECT_EQ(RcodeName(Rcode::kNxDomain), "NXDOMAIN");
  EXPECT_EQ(RcodeName(static_cast<Rcode>(9)), "RCODE9");
}

}  // namespace
}  // namespace netstack::dns

#include "core/dns/policy.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/dns/known_names.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/dns/test_messages.h"

namespace netstack::dns {
namespace {

using test::ByteVector;
using test::Ip;
using test::kAnswerFlags;
using test::MessageMaker;
using test::Name;
using testing::HasSubstr;

constexpr SipHashKey kKey{9, 10};

PolicyRule Rule(std::string name, std::vector<std::string> domains,
                RuleAction action) {
  PolicyRule rule;
  rule.name = std::move(name);
  rule.domains = std::move(domains);
  rule.action = action;
  if (action == RuleAction::kRewrite) rule.addresses = {Ip("192.0.2.53")};
  if (action == RuleAction::kForward) rule.group = rule.name;
  return rule;
}

class PolicyTest : public testing::Test {
 protected:
  void Use(const PolicyOptions& options) {
    ASSERT_TRUE(RuleSet::Validate(options).empty());
    policy_.SetRules(RuleSet::Create(options, kKey));
  }
  void Use(std::vector<PolicyRule> rules) {
    PolicyOptions options;
    options.rules = std::move(rules);
    Use(options);
  }
  void UseList(absl::string_view text) {
    BlocklistBuilder builder(kKey, {});
    builder.Add("ads", text);
    policy_.SetBlocklist(std::move(builder).Build());
  }
  PolicyDecision Decide(absl::string_view name,
                        absl::string_view client = "10.0.0.2") {
    return policy_.Decide(Name(name), type::kA, Ip(client));
  }
  PolicyDecision Answer(const ByteVector& message) {
    const AnswerView view = *ParseAnswer(message);
    return policy_.DecideAnswer(
        policy_.Decide(view.name(), view.type(), Ip("10.0.0.2")),
        Ip("10.0.0.2"), view);
  }
  static MessageMaker To(absl::string_view name, absl::string_view ip) {
    return MessageMaker(1, kAnswerFlags)
        .Question(name, 1)
        .Address(name, ip, 60);
  }

  Policy policy_;
};

TEST(DomainPattern, MatchesWhatItSays) {
  struct Case {
    const char* pattern;
    std::vector<const char*> yes;
    std::vector<const char*> no;
  };
  const Case cases[] = {
      {"Ads.example", {"ads.example"}, {"x.ads.example", "example"}},
      {".ads.example",
       {"ads.example", "x.y.ads.example"},
       {"xads.example", "example"}},
      {"*.ads.example",
       {"x.ads.example", "x.y.ads.example"},
       {"ads.example", "xads.example"}},
      {"ad*.example",
       {"ad.example", "ads.x.example"},
       {"bad.example", "ads.example.net"}},
      {"*ads*", {"ads", "x.badsy.example"}, {"a.ds.example"}},
      {"a*b*c.example",
       {"abc.example", "a.xb.bc.example"},
       {"acb.example", "ab.example"}},
      {"*", {"x.example", "."}, {}},
  };
  for (const Case& c : cases) {
    const auto pattern = DomainPattern::Parse(c.pattern);
    ASSERT_TRUE(pattern) << c.pattern;
    for (const char* name : c.yes) {
      EXPECT_TRUE(pattern->Matches(Name(name))) << c.pattern << " " << name;
    }
    for (const char* name : c.no) {
      EXPECT_FALSE(pattern->Matches(Name(name))) << c.pattern << " " << name;
    }
  }
  for (const char* text : {"", ".", "..a", "a..b", "a b", "http://a", ".a*",
                           "a/b", "*.", "\xC3\xBC.example"}) {
    EXPECT_FALSE(DomainPattern::Parse(text)) << text;
  }
}

TEST_F(PolicyTest, NothingMentionedPasses) {
  const PolicyDecision d = Decide("a.example");
  EXPECT_EQ(d.action, PolicyAction::kPass);
  EXPECT_EQ(d.source, PolicySource::kNone);
  EXPECT_FALSE(d.forwarded);
  EXPECT_EQ(d.Explain(), "passes");
}

TEST_F(PolicyTest, FirstRuleThatMatchesDecides) {
  Use({Rule("let", {"good.ads.example"}, RuleAction::kAllow),
       Rule("wide", {".ads.example"}, RuleAction::kBlock),
       Rule("late", {"very.good.ads.example"}, RuleAction::kAllow),
       Rule("star", {"t*.example"}, RuleAction::kBlock),
       Rule("rest", {}, RuleAction::kRewrite)});
  EXPECT_EQ(Decide("good.ads.example").by, "let");
  EXPECT_EQ(Decide("good.ads.example").action, PolicyAction::kPass);
  EXPECT_EQ(Decide("ads.example").action, PolicyAction::kBlock);
  EXPECT_EQ(Decide("very.good.ads.example").by, "wide");  // more specific
  EXPECT_EQ(Decide("track.example").by, "star");
  const PolicyDecision d = Decide("other.test");
  EXPECT_EQ(d.action, PolicyAction::kRewrite);
  ASSERT_NE(d.addresses, nullptr);
  EXPECT_EQ(d.addresses->size(), 1u);
  EXPECT_EQ(d.cname, nullptr);
  EXPECT_EQ(d.ttl, 60u);
}

TEST_F(PolicyTest, RulesLookAtAskerAppAndType) {
  PolicyRule kids = Rule("kids", {".play.example"}, RuleAction::kBlock);
  kids.clients = {*IpPrefix::Parse("10.0.1.0/24"),
                  *IpPrefix::Parse("fd00:1::/64")};
  PolicyRule app = Rule("app", {".play.example"}, RuleAction::kBlock);
  app.apps = {"org.example.game"};
  PolicyRule https = Rule("https", {}, RuleAction::kBlock);
  https.types = {type::kHttps};
  Use({kids, app, https});
  EXPECT_TRUE(policy_.depends_on_asker());
  EXPECT_EQ(Decide("x.play.example", "10.0.1.9").by, "kids");
  EXPECT_EQ(Decide("x.play.example", "fd00:1::9").by, "kids");
  EXPECT_EQ(Decide("x.play.example", "10.0.2.9").action, PolicyAction::kPass);
  EXPECT_EQ(
      policy_
          .Decide(Name("play.example"), 1, Ip("10.0.2.9"), "org.example.game")
          .by,
      "app");
  EXPECT_EQ(policy_.Decide(Name("play.example"), 1, Ip("10.0.2.9"), "x").action,
            PolicyAction::kPass);
  EXPECT_EQ(policy_.Decide(Name("a.test"), type::kHttps, Ip("10.0.2.9")).by,
            "https");
  Use({https});
  EXPECT_FALSE(policy_.depends_on_asker());
}

TEST_F(PolicyTest, ForwardingAndDecidingAreIndependent) {
  Use({Rule("corp", {".corp.example"}, RuleAction::kForward),
       Rule("no", {"bad.corp.example"}, RuleAction::kBlock),
       Rule("lab", {"lab.corp.example"}, RuleAction::kForward)});
  PolicyDecision d = Decide("lab.corp.example");
  EXPECT_TRUE(d.forwarded);
  EXPECT_EQ(d.group, "corp");  // the first
  EXPECT_THAT(d.Explain(), HasSubstr("group corp"));
  d = Decide("bad.corp.example");
  EXPECT_EQ(d.action, PolicyAction::kBlock);
  UseList("||ads.corp.example^");
  EXPECT_EQ(Decide("ads.corp.example").action, PolicyAction::kBlock);
  EXPECT_FALSE(Decide("example").forwarded);
}

TEST_F(PolicyTest, BlockAnswersAreChosen) {
  PolicyRule refuse = Rule("r", {"r.example"}, RuleAction::kBlock);
  refuse.block = BlockAnswer::kRefused;
  PolicyOptions options;
  options.rules = {refuse, Rule("d", {"d.example"}, RuleAction::kBlock)};
  Use(options);
  EXPECT_EQ(Decide("r.example").block, BlockAnswer::kRefused);
  EXPECT_EQ(Decide("d.example").block, BlockAnswer::kNullAddress);
  options.block = BlockAnswer::kNxDomain;
  options.block_ttl = 5;
  Use(options);
  EXPECT_EQ(Decide("d.example").block, BlockAnswer::kNxDomain);
  EXPECT_EQ(Decide("d.example").ttl, 5u);
}

TEST_F(PolicyTest, ListsComeBehindRulesAndExplain) {
  UseList("||ads.example^\n||fine.example^\n@@||good.ads.example^\n");
  Use({Rule("mine", {"fine.example"}, RuleAction::kAllow)});
  EXPECT_EQ(Decide("x.ads.example").Explain(),
            "blocked by list ads (ads.example)");
  EXPECT_EQ(Decide("x.good.ads.example").Explain(),
            "passes by an exception in list ads (good.ads.example)");
  EXPECT_EQ(Decide("fine.example").Explain(), "passes by rule mine");
}

TEST_F(PolicyTest, BuiltInNames) {
  PolicyOptions options;
  Use(options);
  PolicyDecision d = Decide("use-application-dns.net");
  EXPECT_EQ(d.source, PolicySource::kCanary);
  EXPECT_EQ(d.block, BlockAnswer::kNxDomain);
  EXPECT_EQ(Decide("mask.icloud.com").action, PolicyAction::kPass);
  EXPECT_EQ(Decide("dns.google").action, PolicyAction::kPass);

  options.canary = false;
  options.block_private_relay = true;
  options.block_doh_names = true;
  options.more_doh_names = {"doh.corp.example"};
  options.rules = {Rule("mine", {"dns.quad9.net"}, RuleAction::kAllow)};
  Use(options);
  EXPECT_EQ(Decide("use-application-dns.net").action, PolicyAction::kPass);
  EXPECT_EQ(Decide("mask-h2.icloud.com").block, BlockAnswer::kNxDomain);
  EXPECT_EQ(Decide("dns.google").source, PolicySource::kDohName);
  EXPECT_EQ(Decide("abc123.dns.nextdns.io").source, PolicySource::kDohName);
  EXPECT_EQ(Decide("doh.corp.example").source, PolicySource::kDohName);
  EXPECT_EQ(Decide("dns.quad9.net").action, PolicyAction::kPass);
  EXPECT_EQ(Decide("google").action, PolicyAction::kPass);
}

// Each once, and none below another, which would say nothing.
TEST(KnownNames, SayEachThingOnce) {
  std::vector<DnsName> names;
  for (absl::string_view text : KnownDohNames()) {
    const auto name = DnsName::FromText(text);
    ASSERT_TRUE(name.has_value()) << text;
    for (const DnsName& other : names) {
      EXPECT_FALSE(name->IsWithin(other)) << text;
      EXPECT_FALSE(other.IsWithin(*name)) << text;
    }
    names.push_back(*name);
  }
}

TEST_F(PolicyTest, AliasesAreCheckedLikeNames) {
  UseList("||tracker.example^\n@@||kept.example^\n");
  Use({Rule("mine", {"trusted.test"}, RuleAction::kAllow),
       Rule("no", {"bad.example"}, RuleAction::kBlock)});
  const auto through = [](absl::string_view name, absl::string_view alias) {
    return MessageMaker(1, kAnswerFlags)
        .Question(name, 1)
        .Cname(name, "cdn.test", 60)
        .Cname("cdn.test", alias, 60)
        .Address(alias, "192.0.2.1", 60);
  };
  PolicyDecision d = Answer(through("www.shop.test", "x.tracker.example"));
  EXPECT_EQ(d.action, PolicyAction::kBlock);
  EXPECT_EQ(d.source, PolicySource::kList);
  EXPECT_EQ(d.Explain(), "blocked by list ads (x.tracker.example)");
  EXPECT_EQ(Answer(through("www.shop.test", "bad.example")).by, "no");
  // An alias that is let pass does not save the others, nor condemns any.
  EXPECT_EQ(Answer(through("www.shop.test", "trusted.test")).action,
            PolicyAction::kPass);
  // Who lets the question pass, knows.
  EXPECT_EQ(Answer(through("trusted.test", "x.tracker.example")).action,
            PolicyAction::kPass);
  EXPECT_EQ(Answer(through("kept.example", "x.tracker.example")).action,
            PolicyAction::kPass);
  EXPECT_EQ(Answer(through("www.shop.test", "fine.test")).action,
            PolicyAction::kPass);

  d = Answer(MessageMaker(1, kAnswerFlags)
                 .Question("shop.test", 65)
                 .Answer("shop.test", 65, 60,
                         test::SvcbData("tracker.example", {}, {})));
  EXPECT_EQ(d.action, PolicyAction::kBlock);

  PolicyOptions off;
  off.check_aliases = false;
  Use(off);
  EXPECT_EQ(Answer(through("www.shop.test", "x.tracker.example")).action,
            PolicyAction::kPass);
}

TEST(IsPrivateAddress, ByFamily) {
  for (const char* ip :
       {"10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1",
        "169.254.1.1", "100.64.0.1", "0.1.2.3", "::1", "fe80::1", "fd12::1",
        "fec0::1", "64:ff9b::10.0.0.1"}) {
    EXPECT_TRUE(IsPrivateAddress(Ip(ip))) << ip;
  }
  for (const char* ip :
       {"0.0.0.0", "::", "192.0.2.1", "172.32.0.1", "100.128.0.1", "11.0.0.1",
        "2001:db8::1", "64:ff9b::192.0.2.1"}) {
    EXPECT_FALSE(IsPrivateAddress(Ip(ip))) << ip;
  }
}

TEST_F(PolicyTest, RebindingIsBlocked) {
  PolicyOptions options;
  options.tun_prefixes = {*IpPrefix::Parse("198.18.0.0/15")};
  options.rebinding_prefixes = {*IpPrefix::Parse("10.9.0.0/16")};
  options.rebinding_names = {".lan", "router.example"};
  options.rules = {Rule("corp", {".corp.example"}, RuleAction::kForward),
                   Rule("mine", {"nas.example"}, RuleAction::kAllow)};
  Use(options);
  const auto blocked = [&](absl::string_view name, absl::string_view ip) {
    return Answer(To(name, ip)).action == PolicyAction::kBlock;
  };
  EXPECT_TRUE(blocked("evil.test", "192.168.1.1"));
  EXPECT_TRUE(blocked("evil.test", "fd00::1"));
  EXPECT_TRUE(blocked("evil.test", "198.18.0.1"));
  EXPECT_FALSE(blocked("evil.test", "192.0.2.1"));
  EXPECT_FALSE(blocked("evil.test", "0.0.0.0"));  // an upstream's block
  EXPECT_FALSE(blocked("evil.test", "10.9.1.1"));
  EXPECT_FALSE(blocked("pc.lan", "192.168.1.1"));
  EXPECT_FALSE(blocked("router.example", "192.168.1.1"));
  EXPECT_TRUE(blocked("x.router.example", "192.168.1.1"));
  EXPECT_FALSE(blocked("pc.corp.example", "192.168.1.1"));
  EXPECT_FALSE(blocked("nas.example", "192.168.1.1"));
  EXPECT_EQ(Answer(To("evil.test", "10.0.0.1")).Explain(),
            "blocked: the answer leads into a private network (10.0.0.1)");
  // A hint is as good as an address.
  EXPECT_EQ(Answer(MessageMaker(1, kAnswerFlags)
                       .Question("evil.test", 65)
                       .Answer("evil.test", 65, 60,
                               test::SvcbData(".", {"10.0.0.1"}, {})))
                .source,
            PolicySource::kRebinding);
  // No number of good addresses hides a bad one.
  MessageMaker many = To("evil.test", "192.0.2.1");
  for (int i = 0; i < 1000; ++i) many.Address("evil.test", "192.0.2.2", 60);
  EXPECT_EQ(Answer(many).action, PolicyAction::kPass);
  EXPECT_EQ(Answer(many.Address("evil.test", "10.0.0.1", 60)).action,
            PolicyAction::kBlock);
  // An exception in a list is about blocklists only.
  UseList("@@||evil.test^\n");
  EXPECT_TRUE(blocked("evil.test", "192.168.1.1"));
  options.block_rebinding = false;
  Use(options);
  EXPECT_FALSE(blocked("evil.test", "192.168.1.1"));
}

TEST_F(PolicyTest, GenerationChangesWithEachPart) {
  const uint32_t first = policy_.generation();
  Use(PolicyOptions());
  const uint32_t second = policy_.generation();
  EXPECT_NE(first, second);
  UseList("a.example\n");
  EXPECT_NE(policy_.generation(), second);
}

TEST(RuleSet, ValidateNamesEveryProblem) {
  PolicyOptions options;
  EXPECT_TRUE(RuleSet::Validate(options).empty());
  PolicyRule bad = Rule("x", {"a b"}, RuleAction::kRewrite);
  bad.addresses.clear();
  PolicyRule both = Rule("x", {}, RuleAction::kRewrite);
  both.cname = "a.example";
  PolicyRule mixed = Rule("x", {}, RuleAction::kAllow);
  mixed.block = BlockAnswer::kRefused;
  mixed.group = "g";
  mixed.addresses = {Ip("192.0.2.1")};
  PolicyRule cname = Rule("x", {}, RuleAction::kRewrite);
  cname.addresses.clear();
  cname.cname = "..";
  options.rules = {bad, both, mixed, cname};
  options.more_doh_names = {"ok.example", ""};
  options.rebinding_names = {"a/b"};
  std::vector<std::string> fields;
  for (const PolicyProblem& p : RuleSet::Validate(options)) {
    EXPECT_FALSE(p.problem.empty());
    fields.push_back(p.field);
  }
  EXPECT_THAT(fields,
              testing::UnorderedElementsAre(
                  "rules[0].domains[0]", "rules[0].addresses", "rules[1].cname",
                  "rules[2].action", "rules[2].block", "rules[2].group",
                  "rules[3].cname", "more_doh_names[1]", "rebinding_names[0]"));
}

TEST(RuleSet, ValidateBoundsTheCounts) {
  PolicyOptions options;
  PolicyRule rule = Rule("x", {}, RuleAction::kBlock);
  rule.domains.assign(RuleSet::kMaxWildcards + 1, "a*b.example");
  options.rules = {rule};
  EXPECT_EQ(RuleSet::Validate(options).size(), 1u);
  options.rules[0].domains.assign(RuleSet::kMaxDomains + 1, "a.example");
  EXPECT_EQ(RuleSet::Validate(options).size(), 1u);
  options.rules.assign(RuleSet::kMaxRules + 1,
                       Rule("x", {"a.example"}, RuleAction::kBlock));
  EXPECT_EQ(RuleSet::Validate(options).size(), 1u);
}

}  // namespace
}  // namespace netstack::dns

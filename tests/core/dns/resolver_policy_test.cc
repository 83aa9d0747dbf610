// Rules, lists and the cache in the resolver's way: what they are for is
// tested with them; here it is that every answer passes through them.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "core/dns/blocklist.h"
#include "core/dns/policy.h"
#include "core/dns/resolver.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/dns/dns_rig.h"

namespace netstack::test {
namespace {

DnsResolverOptions Options() {
  DnsResolverOptions o = OptionsOf(
      {PlainUpstream("a", "192.0.2.53"), PlainUpstream("split", "192.0.2.99")});
  o.groups = {{"main", {"a"}}, {"work", {"split"}}};
  o.default_group = "main";
  return o;
}

std::shared_ptr<const dns::RuleSet> Rules(
    std::vector<dns::PolicyRule> rules,
    dns::PolicyOptions options = dns::PolicyOptions()) {
  options.rules = std::move(rules);
  EXPECT_TRUE(dns::RuleSet::Validate(options).empty());
  return dns::RuleSet::Create(options, {5, 6});
}
dns::PolicyRule Rule(const std::string& name, dns::RuleAction action,
                     const std::string& domain) {
  dns::PolicyRule r;
  r.name = name;
  r.action = action;
  r.domains = {domain};
  return r;
}
std::shared_ptr<const dns::Blocklist> List(const std::string& text) {
  dns::BlocklistBuilder builder({7, 8}, {});
  builder.Add("ads", text);
  return std::move(builder).Build();
}

// The answer with a CNAME to `target` (one label below .test) before it.
std::string AliasText(const std::string& query, const std::string& target,
                      const std::string& address) {
  std::string m = query.substr(0, QuestionEnd(query));
  m[2] = static_cast<char>(0x81);
  m[3] = static_cast<char>(0x80);
  m.replace(4, 8, std::string("\0\1\0\2\0\0\0\0", 8));
  const std::string name =
      static_cast<char>(target.size()) + target + std::string("\4test\0", 6);
  m += std::string("\xC0\x0C", 2) + Number16(5) + Number16(1) + Number16(0) +
       Number16(300) + Number16(static_cast<int>(name.size())) + name;
  const auto ip = *IpAddress::Parse(address);
  return m + name + Number16(1) + Number16(1) + Number16(0) + Number16(300) +
         Number16(4) + std::string(reinterpret_cast<const char*>(ip.v4()), 4);
}

TEST(ResolverPolicy, BlockedNamesAreAnsweredAtOnceAndNobodyIsAsked) {
  DnsRig rig(Options());
  rig.resolver->SetBlocklist(List("||ads.test^\n"));
  auto& q = rig.Ask("x.ads.test");
  EXPECT_EQ(q.calls, 1);
  EXPECT_EQ(q.source, DnsSource::kPolicy);
  EXPECT_EQ(q.address(), "0.0.0.0");
  EXPECT_EQ(q.rule, "ads: ads.test");
  EXPECT_EQ(rig.socket_count(), 0u);
  // Reloaded: in force from the next query on.
  rig.resolver->SetBlocklist(List(""));
  rig.Ask("x.ads.test");
  EXPECT_EQ(rig.socket_count(), 1u);
  rig.AnswerLast("203.0.113.1");
}

TEST(ResolverPolicy, ForwardedNamesGoToTheirGroup) {
  DnsRig rig(Options());
  rig.system_dns.servers = {*Endpoint::Parse("198.51.100.1:53")};
  auto work = Rule("w", dns::RuleAction::kForward, ".corp.test");
  work.group = "work";
  const auto home = Rule("h", dns::RuleAction::kForward, ".home.test");
  rig.resolver->SetRules(Rules({work, home}));
  rig.Ask("a.corp.test");
  EXPECT_EQ(rig.to(0), "192.0.2.99:53");
  rig.AnswerLast("203.0.113.1");
  rig.Ask("a.home.test");
  EXPECT_EQ(rig.to(1), "198.51.100.1:53") << "an empty group";
  rig.AnswerLast("203.0.113.1");
  rig.Ask("a.example.test");
  EXPECT_EQ(rig.to(2), "192.0.2.53:53");
  rig.AnswerLast("203.0.113.1");
}

TEST(ResolverPolicy, RewritesToAddressesAndToNames) {
  DnsRig rig(Options());
  auto fixed = Rule("fixed", dns::RuleAction::kRewrite, "a.test");
  fixed.addresses = {*IpAddress::Parse("198.51.100.7")};
  auto alias = Rule("alias", dns::RuleAction::kRewrite, "b.test");
  alias.cname = "safe.test";
  rig.resolver->SetRules(Rules({fixed, alias}));
  auto& first = rig.Ask("a.test");
  EXPECT_EQ(first.address(), "198.51.100.7");
  EXPECT_EQ(first.rule, "fixed");
  EXPECT_EQ(rig.socket_count(), 0u);

  auto& second = rig.Ask("b.test");
  ASSERT_EQ(rig.socket_count(), 1u);
  EXPECT_EQ(absl::AsciiStrToLower(QuestionName(rig.socket(0).sent)),
            "safe.test");
  rig.AnswerLast("203.0.113.5");
  EXPECT_EQ(second.source, DnsSource::kPolicy);
  EXPECT_EQ(QuestionName(second.message), "b.test");
  EXPECT_EQ(second.address(), "203.0.113.5");
  EXPECT_EQ(Number16At(second.message, 6), 2) << "the CNAME and the address";
}

// Over UDP without EDNS an answer has 512 bytes, ours too.
TEST(ResolverPolicy, RewritesFitTheAsker) {
  DnsRig rig(Options());
  auto many = Rule("many", dns::RuleAction::kRewrite, "a.test");
  for (uint8_t i = 1; i <= 100; ++i) {
    many.addresses.push_back(IpAddress::V4(198, 51, 100, i));
  }
  auto alias = Rule("alias", dns::RuleAction::kRewrite, "*");
  const std::string label(63, 'x');
  alias.cname = label + "." + label + "." + label + "." + std::string(61, 'y');
  rig.resolver->SetRules(Rules({many, alias}));
  auto& udp = rig.Ask("a.test");
  EXPECT_LE(udp.message.size(), 512u);
  EXPECT_EQ(Number16At(udp.message, 6), 30);
  auto& tcp = rig.AskText(QueryText("a.test"), DnsTransport::kTcp);
  EXPECT_EQ(Number16At(tcp.message, 6), 100);
  // Two names of 255 bytes do not fit: the app comes again over TCP.
  const std::string longest =
      label + "." + label + "." + label + "." + std::string(61, 'z');
  auto& cut = rig.Ask(longest, 16);
  EXPECT_EQ(Number16At(cut.message, 2) & 0x0200, 0x0200);
  EXPECT_EQ(Number16At(cut.message, 6), 0);
  auto& whole = rig.AskText(QueryText(longest, 16), DnsTransport::kTcp);
  EXPECT_EQ(Number16At(whole.message, 6), 1);
  auto& looked_up = rig.Ask(longest);
  rig.AnswerLast("203.0.113.5");
  EXPECT_EQ(Number16At(looked_up.message, 2) & 0x0200, 0x0200);
}

TEST(ResolverPolicy, CloakedNamesAreBlockedFreshAndCached) {
  DnsRig rig(Options());
  auto& before = rig.Ask("shop.test");
  rig.Arrive(rig.socket(0),
             AliasText(rig.socket(0).sent, "tracker", "203.0.113.9"));
  EXPECT_EQ(before.address(), "203.0.113.9");
  rig.resolver->SetBlocklist(List("||tracker.test^\n"));
  auto& cached = rig.Ask("shop.test");
  EXPECT_EQ(cached.source, DnsSource::kPolicy) << "not as it was kept";
  EXPECT_EQ(cached.address(), "0.0.0.0");
  EXPECT_EQ(rig.socket_count(), 1u);
  rig.resolver->FlushCache("", false);
  auto& fresh = rig.Ask("shop.test");
  rig.Arrive(rig.socket(1),
             AliasText(rig.socket(1).sent, "tracker", "203.0.113.9"));
  EXPECT_EQ(fresh.source, DnsSource::kPolicy);
  EXPECT_EQ(fresh.address(), "0.0.0.0");
}

TEST(ResolverPolicy, RebindingIsBlockedOutsideOfForwardedGroups) {
  DnsRig rig(Options());
  auto work = Rule("w", dns::RuleAction::kForward, ".corp.test");
  work.group = "work";
  rig.resolver->SetRules(Rules({work}));
  auto& evil = rig.Ask("evil.test");
  rig.AnswerLast("192.168.1.1");
  EXPECT_EQ(evil.source, DnsSource::kPolicy);
  EXPECT_EQ(evil.address(), "0.0.0.0");
  auto& own = rig.Ask("wiki.corp.test");
  rig.AnswerLast("192.168.1.1");
  EXPECT_EQ(own.address(), "192.168.1.1");
}

// --- cache ------------------------------------------------------------------

TEST(ResolverCache, KeepsForTheTtlAndTellsWhatIsLeft) {
  DnsRig rig(Options());
  rig.Ask("example.test");
  rig.AnswerLast("203.0.113.1");  // 300 s
  rig.Advance(seconds(100));
  auto& q = rig.AskText(QueryText("EXAMPLE.test", 1, 77));
  EXPECT_EQ(q.calls, 1);
  EXPECT_EQ(q.source, DnsSource::kCache);
  EXPECT_EQ(Number16At(q.message, 0), 77);
  EXPECT_EQ(QuestionName(q.message), "EXAMPLE.test");
  EXPECT_EQ(Number16At(q.message, q.message.size() - 8), 200) << "TTL";
  EXPECT_EQ(rig.socket_count(), 1u);
  rig.Ask("example.test", 28);
  EXPECT_EQ(rig.socket_count(), 2u) << "another type";
  rig.AnswerLast("");
  EXPECT_EQ(rig.resolver->FlushCache("test", true), 1u);
  rig.Ask("example.test");
  EXPECT_EQ(rig.socket_count(), 3u);
  rig.AnswerLast("203.0.113.1");
}

TEST(ResolverCache, GroupsDoNotMix) {
  DnsRig rig(Options());
  auto work = Rule("w", dns::RuleAction::kForward, ".corp.test");
  work.group = "work";
  rig.Ask("a.corp.test");
  rig.AnswerLast("203.0.113.1");
  rig.resolver->SetRules(Rules({work}));
  auto& q = rig.Ask("a.corp.test");
  EXPECT_EQ(q.calls, 0) << "what the others said is not for this group";
  rig.AnswerLast("203.0.113.2");
  EXPECT_EQ(q.address(), "203.0.113.2");
}

// RFC 8767.
TEST(ResolverCache, ServesStaleWhenUpstreamsAreSilent) {
  DnsRig rig(Options());
  rig.Ask("example.test");
  rig.AnswerLast("203.0.113.1");
  rig.Advance(seconds(400));
  auto& q = rig.Ask("example.test");
  EXPECT_EQ(q.calls, 0) << "upstreams first";
  rig.Advance(milliseconds(1810));
  ASSERT_EQ(q.calls, 1);
  EXPECT_TRUE(q.stale);
  EXPECT_EQ(q.address(), "203.0.113.1");
  EXPECT_EQ(Number16At(q.message, q.message.size() - 8), 30) << "TTL";
  // Others do not wait while it is known that nobody answers.
  auto& next = rig.Ask("example.test");
  EXPECT_EQ(next.calls, 1);
  EXPECT_TRUE(next.stale);
  rig.Advance(seconds(6));
  EXPECT_EQ(rig.sockets.open_count(), 0u);
  // The answer that comes at last is kept.
  rig.Advance(seconds(20));
  auto& last = rig.Ask("example.test");
  rig.AnswerLast("203.0.113.2");
  EXPECT_EQ(last.address(), "203.0.113.2");
  EXPECT_FALSE(last.stale);
}

TEST(ResolverCache, FailureIsAnsweredWithWhatIsStale) {
  DnsRig rig(Options());
  rig.Ask("example.test");
  rig.AnswerLast("203.0.113.1");
  rig.Advance(seconds(400));
  rig.connect_result = [](const Endpoint&) { return -ENETUNREACH; };
  auto& q = rig.Ask("example.test");
  rig.Advance(seconds(2));
  EXPECT_EQ(q.calls, 1);
  EXPECT_TRUE(q.stale);
  EXPECT_EQ(q.source, DnsSource::kCache);
}

TEST(ResolverCache, PrefetchesWhatIsAskedForOften) {
  DnsRig rig(Options());
  rig.Ask("example.test");
  rig.AnswerLast("203.0.113.1");
  for (int i = 0; i < 8; ++i) rig.Ask("example.test");
  rig.Advance(seconds(290));
  auto& q = rig.Ask("example.test");
  EXPECT_EQ(q.source, DnsSource::kCache);
  ASSERT_EQ(rig.socket_count(), 2u) << "fetched again meanwhile";
  rig.AnswerLast("203.0.113.2");
  rig.Advance(seconds(20));
  auto& later = rig.Ask("example.test");
  EXPECT_EQ(later.source, DnsSource::kCache);
  EXPECT_EQ(later.address(), "203.0.113.2");
}

}  // namespace
}  // namespace netstack::test

// What happens to a name, and why: rules, built-in lists, blocklists, and what
// an answer may lead to.
//
//   PolicyDecision d = policy.Decide(query, client);
//   switch (d.action) {
//     case PolicyAction::kBlock: WriteBlockAnswer(query, d.block, d.ttl, out);
//     case PolicyAction::kRewrite: WriteRewriteAnswer(query, d.rewrite->...);
//     case PolicyAction::kPass: ask group d.group, and then
//   }
//   PolicyDecision a = policy.DecideAnswer(query, client, d, view);
//
// Precedence, for questions:
//
//   1. Rules, in the order of the configuration. The first of allow, block
//      and rewrite that matches decides, whatever comes below. Independent of
//      that, the first "forward" rule that matches names the upstream group.
//   2. Built-in names, as far as switched on: canaries and private relay
//      (NXDOMAIN, which is what they listen to), known DoH resolvers (blocked).
//   3. Blocklists. An exception in any list wins over all of them.
//   4. What nobody mentions passes.
//
// For answers, unless an allow rule or a list's exception let the question
// pass:
//
//   5. CNAME cloaking: every alias and every HTTPS and SVCB target in the
//      answer goes through 1 to 3 as if it had been asked for (an allow rule
//      lets that one name pass; rewrites and groups count for questions only).
//   6. Rebinding: an address of a private network, from an upstream that is not
//      of a group named by a forward rule, is blocked, hints included. An allow
//      rule exempts from it; a list's exception does not.
//
// Loop thread; the parts that are built elsewhere (RuleSet, Blocklist) are
// immutable and replaced as a whole.
#ifndef CORE_DNS_POLICY_H_
#define CORE_DNS_POLICY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "core/base/siphash.h"
#include "core/dns/blocklist.h"
#include "core/dns/message.h"
#include "core/dns/name.h"
#include "core/wire/ip_address.h"

namespace netstack::dns {

// Which names a rule is about.
//
//   ads.example     that name
//   .ads.example    that name and all below it
//   *.ads.example   all below it, but not it
//   *ads*.example   "*" anywhere else: any characters, dots too
//   *               every name
class DomainPattern {
 public:
  enum class Kind : uint8_t { kExact, kSuffix, kBelow, kWildcard, kAny };

  // Nullopt when it is none of these, or no host name but for its stars.
  static std::optional<DomainPattern> Parse(absl::string_view text);

  bool Matches(const DnsName& name) const;

  Kind kind() const { return kind_; }
  const DnsName& name() const { return name_; }     // but for kWildcard, kAny
  absl::string_view text() const { return text_; }  // as parsed, lower case

 private:
  Kind kind_ = Kind::kExact;
  DnsName name_;
  std::string text_;
};

enum class RuleAction : uint8_t { kAllow, kBlock, kRewrite, kForward };

struct PolicyRule {
  std::string name;  // what logs and Explain() call it; may be empty
  // One of them must match the name; empty: every name.
  std::vector<std::string> domains;
  // The asker must lie in one of them; empty: every asker.
  std::vector<IpPrefix> clients;
  // The asking app must be one of them, as its platform names it; empty: every
  // app. Not known on every platform: then a rule with apps matches nobody.
  std::vector<std::string> apps;
  // The asked type must be one of them; empty: every type.
  std::vector<uint16_t> types;

  RuleAction action = RuleAction::kAllow;
  // kBlock; nullopt: as PolicyOptions says.
  std::optional<BlockAnswer> block;
  // kRewrite: addresses, or a name whose answer is given; one of them.
  std::vector<IpAddress> addresses;
  std::string cname;
  // kForward: a group of upstreams; empty: the system's resolver.
  std::string group;
};

struct PolicyOptions {
  std::vector<PolicyRule> rules;
  BlockAnswer block = BlockAnswer::kNullAddress;
  // Seconds that apps keep a blocked or rewritten answer.
  uint32_t block_ttl = 60;
  uint32_t rewrite_ttl = 60;

  bool check_aliases = true;  // CNAME cloaking
  bool block_doh_names = false;
  std::vector<std::string> more_doh_names;  // with all below them
  bool canary = true;                       // use-application-dns.net
  bool block_private_relay = false;

  bool block_rebinding = true;
  // Names, as patterns, that may lead to private addresses; and prefixes that
  // count as public. `tun_prefixes` count as private.
  std::vector<std::string> rebinding_names = {".local", ".lan", ".home.arpa",
                                              ".internal"};
  std::vector<IpPrefix> rebinding_prefixes;
  std::vector<IpPrefix> tun_prefixes;
};

// One violated rule; `field` is a path below "dns.policy", "rules[3].cname".
struct PolicyProblem {
  std::string field;
  std::string problem;
};

// Loopback, RFC 1918, shared (100.64.0.0/10), link-local, unique local and site
// local addresses, "this network" (0.0.0.0/8), and these inside 64:ff9b::/96.
// The unspecified addresses themselves are not: they are how upstreams block.
bool IsPrivateAddress(const IpAddress& ip);

// Compiled rules. Immutable.
class RuleSet {
 public:
  static constexpr size_t kMaxRules = 10'000;
  static constexpr size_t kMaxDomains = 100'000;
  // Patterns of kind kWildcard are tried one by one.
  static constexpr size_t kMaxWildcards = 1'000;

  // Every problem, not only the first; empty when Create() can use them.
  static std::vector<PolicyProblem> Validate(const PolicyOptions& options);

  // `options` have passed Validate(). The key makes the hash of names.
  static std::shared_ptr<const RuleSet> Create(const PolicyOptions& options,
                                               const SipHashKey& key);

  const PolicyOptions& options() const { return options_; }

 private:
  friend class Policy;

  struct Target {  // of a rewrite, parsed
    DnsName cname;
    bool has_cname = false;
  };
  struct Asker {
    const IpAddress* client;
    absl::string_view app;
    uint16_t type;
  };
  struct NameHash {
    using is_transparent = void;
    const SipHashKey* key;
    size_t operator()(absl::string_view wire) const;
  };
  struct NameEqual {
    using is_transparent = void;
    bool operator()(absl::string_view a, absl::string_view b) const {
      return a == b;
    }
  };
  // What a name is mentioned by, for the name itself and for those below it.
  // Rules ascend. Built-in names come behind all rules.
  struct Mention {
    std::vector<uint32_t> here;
    std::vector<uint32_t> below;
  };
  enum class BuiltIn : uint8_t { kNone, kCanary, kRelay, kDoh };

  explicit RuleSet(const SipHashKey& key) : key_(key) {}
  void AddDomain(uint32_t rule, const DomainPattern& pattern);
  void AddBuiltIn(BuiltIn kind, absl::string_view name);

  // The first rule among the deciding ones, or among the forwarding ones.
  struct Found {
    const PolicyRule* decides = nullptr;
    const PolicyRule* forwards = nullptr;
    BuiltIn built_in = BuiltIn::kNone;
  };
  Found Find(const DnsName& name, const Asker& asker) const;
  void Consider(uint32_t rule, const Asker& asker, uint32_t& decides,
                uint32_t& forwards) const;
  bool MayRebind(const DnsName& name) const;
  bool IsPublic(const IpAddress& ip) const;

  PolicyOptions options_;
  const SipHashKey key_;
  std::vector<Target> targets_;  // by rule
  absl::flat_hash_map<std::string, Mention, NameHash, NameEqual> mentions_{
      0, NameHash{&key_}};
  absl::flat_hash_map<std::string, BuiltIn, NameHash, NameEqual> built_ins_{
      0, NameHash{&key_}};
  std::vector<uint32_t> for_all_names_;  // rules
  std::vector<std::pair<uint32_t, DomainPattern>> wildcards_;
  std::vector<DomainPattern> rebinding_names_;
  bool by_asker_ = false;  // some rule has clients or apps
};

enum class PolicyAction : uint8_t { kPass, kBlock, kRewrite };

// What decided. X(enumerator, name, what it means).
#define NETSTACK_DNS_POLICY_SOURCES(X)                                 \
  X(kNone, "NONE", "nothing mentions the name")                        \
  X(kRule, "RULE", "a rule of the configuration")                      \
  X(kList, "LIST", "a blocklist, or an exception in one")              \
  X(kCanary, "CANARY", "a canary that browsers and systems listen to") \
  X(kPrivateRelay, "PRIVATE_RELAY", "iCloud Private Relay")            \
  X(kDohName, "DOH_NAME", "a known DoH resolver's name")               \
  X(kRebinding, "REBINDING", "the answer leads into a private network")

enum class PolicySource : uint8_t {
#define NETSTACK_X(id, name, text) id,
  NETSTACK_DNS_POLICY_SOURCES(NETSTACK_X)
#undef NETSTACK_X
};

inline constexpr std::array kPolicySourceNames = {
#define NETSTACK_X(id, name, text) absl::string_view(name),
    NETSTACK_DNS_POLICY_SOURCES(NETSTACK_X)
#undef NETSTACK_X
};
inline constexpr size_t kPolicySourceCount = kPolicySourceNames.size();
static_assert(static_cast<size_t>(PolicySource::kRebinding) + 1 ==
              kPolicySourceCount);

struct PolicyDecision {
  PolicyAction action = PolicyAction::kPass;
  PolicySource source = PolicySource::kNone;
  BlockAnswer block = BlockAnswer::kNullAddress;  // kBlock
  uint32_t ttl = 0;                               // kBlock, kRewrite

  // kRewrite: of the rule, valid as long as the rules are; `cname` may be
  // null, `addresses` may be empty.
  const DnsName* cname = nullptr;
  const std::vector<IpAddress>* addresses = nullptr;

  // kPass: who is to be asked, when `forwarded`; empty: the system's resolver.
  bool forwarded = false;
  absl::string_view group;

  // The name of the rule or list that decided; valid as long as these are.
  absl::string_view by;
  // The name in a list that was met, or the alias that decided; else empty.
  std::string via;

  // A sentence for people: "blocked by list ads (ads.example)".
  std::string Explain() const;
};

class Policy {
 public:
  Policy();

  // Replaced at once and as a whole; decisions made before keep what they
  // point at only until then.
  void SetRules(std::shared_ptr<const RuleSet> rules);
  void SetBlocklist(std::shared_ptr<const Blocklist> list);

  // Changes with each of the two. An answer that passed under the same
  // generation need not be looked at again for the same asker.
  uint32_t generation() const { return generation_; }
  // Whether it needs to, for an answer that passed for whomever: rules that
  // look at the asker make it depend on him.
  bool depends_on_asker() const { return rules_->by_asker_; }

  PolicyDecision Decide(const DnsName& name, uint16_t type,
                        const IpAddress& client,
                        absl::string_view app = {}) const;
  PolicyDecision Decide(const Query& query, const IpAddress& client) const {
    return Decide(query.name, query.type, client);
  }

  // `question` is what Decide() said. Passes, or blocks.
  PolicyDecision DecideAnswer(const PolicyDecision& question,
                              const IpAddress& client, const AnswerView& answer,
                              absl::string_view app = {}) const;

 private:
  // 2 and 3, for a name that no rule decides.
  void ByLists(const DnsName& name, RuleSet::BuiltIn built_in,
               PolicyDecision& decision) const;
  void Block(BlockAnswer how, PolicySource source, PolicyDecision& d) const;

  std::shared_ptr<const RuleSet> rules_;
  std::shared_ptr<const Blocklist> list_;
  uint32_t generation_ = 1;
};

}  // namespace netstack::dns

#endif  // CORE_DNS_POLICY_H_

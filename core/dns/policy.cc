#include "core/dns/policy.h"

#include <algorithm>
#include <functional>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/base/bytes.h"
#include "core/dns/known_names.h"

namespace netstack::dns {
namespace {

constexpr uint32_t kNoRule = UINT32_MAX;

absl::string_view AsText(Bytes wire) {
  return {reinterpret_cast<const char*>(wire.data()), wire.size()};
}

bool StartsWith(absl::string_view text, absl::string_view with) {
  return text.substr(0, with.size()) == with;
}

// Whether all of `text` matches, "*" being any characters, also none. Goes
// back to the last star only, so that its time is a product and no power.
bool Glob(absl::string_view pattern, absl::string_view text) {
  size_t p = 0, t = 0;
  size_t star = absl::string_view::npos, after = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      after = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != absl::string_view::npos) {
      p = star + 1;
      t = ++after;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool IsPatternText(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' ||
           c == '_' || c == '.' || c == '*';
  });
}

// The prefixes of IsPrivateAddress().
const std::vector<IpPrefix>& PrivatePrefixes() {
  static const auto* const kPrefixes = [] {
    auto* prefixes = new std::vector<IpPrefix>;  // never freed: used till exit
    for (const char* text :
         {"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8",
          "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "::1/128",
          "fc00::/7", "fe80::/10", "fec0::/10"}) {
      prefixes->push_back(*IpPrefix::Parse(text));
    }
    return prefixes;
  }();
  return *kPrefixes;
}

bool IsIn(const std::vector<IpPrefix>& prefixes, const IpAddress& ip) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const IpPrefix& p) { return p.Contains(ip); });
}

// The first `labels` labels of the name counted from the root, for people.
std::string Ancestor(const DnsName& name, size_t labels) {
  Bytes wire = name.wire();
  for (size_t skip = name.LabelCount() - labels; skip > 0; --skip) {
    wire = wire.subspan(1u + Load8(wire.data()));
  }
  const std::optional<DnsName> ancestor = DnsName::FromWire(wire);
  return ancestor ? ancestor->ToString() : std::string();
}

}  // namespace

bool IsPrivateAddress(const IpAddress& ip) {
  if (ip.IsUnspecified()) return false;
  if (IsIn(PrivatePrefixes(), ip)) return true;
  // RFC 6052: a NAT64 leads there.
  const bool nat64 = ip.High() == 0x0064'FF9B'0000'0000 && ip.Low() >> 32 == 0;
  return nat64 && IsIn(PrivatePrefixes(), IpAddress::V4(ip.v4()));
}

// --- Patterns ----------------------------------------------------------------

std::optional<DomainPattern> DomainPattern::Parse(absl::string_view text) {
  DomainPattern pattern;
  pattern.text_ = absl::AsciiStrToLower(text);
  absl::string_view rest = pattern.text_;
  if (!IsPatternText(rest) || rest.size() > 2 * DnsName::kMaxSize) {
    return std::nullopt;
  }
  if (rest == "*") {
    pattern.kind_ = Kind::kAny;
    return pattern;
  }
  if (StartsWith(rest, "*.") && rest.find('*', 1) == absl::string_view::npos) {
    pattern.kind_ = Kind::kBelow;
    rest.remove_prefix(2);
  } else if (StartsWith(rest, ".")) {
    pattern.kind_ = Kind::kSuffix;
    rest.remove_prefix(1);
  }
  if (rest.find('*') != absl::string_view::npos) {
    if (pattern.kind_ != Kind::kExact) return std::nullopt;  // ".a*"
    pattern.kind_ = Kind::kWildcard;
    return pattern;
  }
  const std::optional<DnsName> name = DnsName::FromText(rest);
  if (!name || name->IsRoot()) return std::nullopt;
  pattern.name_ = *name;
  return pattern;
}

bool DomainPattern::Matches(const DnsName& name) const {
  switch (kind_) {
    case Kind::kExact:
      return name == name_;
    case Kind::kSuffix:
      return name.IsWithin(name_);
    case Kind::kBelow:
      return name.IsWithin(name_) && !(name == name_);
    case Kind::kWildcard:
      return Glob(text_, name.ToString());
    case Kind::kAny:
      return true;
  }
  return false;
}

// --- Rules -------------------------------------------------------------------

namespace {

// Adds to `problems`, below one rule's path.
class RuleChecker {
 public:
  RuleChecker(size_t index, std::vector<PolicyProblem>& problems)
      : path_(absl::StrCat("rules[", index, "]")), problems_(problems) {}

  void Check(const PolicyRule& rule) {
    for (size_t i = 0; i < rule.domains.size(); ++i) {
      if (!DomainPattern::Parse(rule.domains[i])) {
        Add(absl::StrCat("domains[", i, "]"),
            "is no name; permitted are a.example, .a.example, *.a.example, "
            "stars elsewhere, and *");
      }
    }
    const bool rewrites = rule.action == RuleAction::kRewrite;
    if (rewrites == (rule.addresses.empty() && rule.cname.empty())) {
      Add(rewrites ? "addresses" : "action",
          rewrites ? "a rewrite needs addresses or a cname"
                   : "only a rewrite has addresses or a cname");
    } else if (rewrites && !rule.addresses.empty() && !rule.cname.empty()) {
      Add("cname", "a rewrite has addresses or a cname, not both");
    }
    if (!rule.cname.empty()) CheckCname(rule.cname);
    if (rule.block && rule.action != RuleAction::kBlock) {
      Add("block", "only a rule that blocks says how");
    }
    if (!rule.group.empty() && rule.action != RuleAction::kForward) {
      Add("group", "only a rule that forwards names a group");
    }
  }

 private:
  void CheckCname(absl::string_view cname) {
    const std::optional<DnsName> name = DnsName::FromText(cname);
    if (!name || name->IsRoot()) Add("cname", "is no name");
  }
  void Add(absl::string_view field, absl::string_view problem) {
    problems_.push_back(
        {absl::StrCat(path_, ".", field), std::string(problem)});
  }

  std::string path_;
  std::vector<PolicyProblem>& problems_;
};

void CheckPatterns(absl::string_view field,
                   const std::vector<std::string>& patterns,
                   std::vector<PolicyProblem>& problems) {
  for (size_t i = 0; i < patterns.size(); ++i) {
    if (!DomainPattern::Parse(patterns[i])) {
      problems.push_back({absl::StrCat(field, "[", i, "]"), "is no name"});
    }
  }
}

size_t CountWildcards(const PolicyRule& rule) {
  return static_cast<size_t>(std::count_if(
      rule.domains.begin(), rule.domains.end(), [](const std::string& text) {
        const auto pattern = DomainPattern::Parse(text);
        return pattern && pattern->kind() == DomainPattern::Kind::kWildcard;
      }));
}

}  // namespace

std::vector<PolicyProblem> RuleSet::Validate(const PolicyOptions& options) {
  std::vector<PolicyProblem> problems;
  size_t domains = 0, wildcards = 0;
  for (size_t i = 0; i < options.rules.size(); ++i) {
    RuleChecker(i, problems).Check(options.rules[i]);
    domains += options.rules[i].domains.size();
    wildcards += CountWildcards(options.rules[i]);
  }
  if (options.rules.size() > kMaxRules) {
    problems.push_back({"rules", absl::StrCat("at most ", kMaxRules)});
  }
  if (domains > kMaxDomains) {
    problems.push_back(
        {"rules", absl::StrCat("at most ", kMaxDomains,
                               " domains in all rules; more fit a blocklist")});
  }
  if (wildcards > kMaxWildcards) {
    problems.push_back({"rules", absl::StrCat("at most ", kMaxWildcards,
                                              " domains with stars inside")});
  }
  for (size_t i = 0; i < options.more_doh_names.size(); ++i) {
    const auto name = DnsName::FromText(options.more_doh_names[i]);
    if (!name || name->IsRoot()) {
      problems.push_back(
          {absl::StrCat("more_doh_names[", i, "]"), "is no name"});
    }
  }
  CheckPatterns("rebinding_names", options.rebinding_names, problems);
  return problems;
}

std::shared_ptr<const RuleSet> RuleSet::Create(const PolicyOptions& options,
                                               const SipHashKey& key) {
  std::shared_ptr<RuleSet> set(new RuleSet(key));
  set->options_ = options;
  set->targets_.resize(options.rules.size());
  for (uint32_t i = 0; i < options.rules.size(); ++i) {
    const PolicyRule& rule = options.rules[i];
    if (!rule.clients.empty() || !rule.apps.empty()) set->by_asker_ = true;
    if (const auto cname = DnsName::FromText(rule.cname)) {
      set->targets_[i] = {*cname, true};
    }
    if (rule.domains.empty()) set->for_all_names_.push_back(i);
    for (const std::string& domain : rule.domains) {
      if (const auto pattern = DomainPattern::Parse(domain)) {
        set->AddDomain(i, *pattern);
      }
    }
  }
  if (options.canary) {
    for (absl::string_view name : CanaryNames()) {
      set->AddBuiltIn(BuiltIn::kCanary, name);
    }
  }
  if (options.block_private_relay) {
    for (absl::string_view name : PrivateRelayNames()) {
      set->AddBuiltIn(BuiltIn::kRelay, name);
    }
  }
  if (options.block_doh_names) {
    for (absl::string_view name : KnownDohNames()) {
      set->AddBuiltIn(BuiltIn::kDoh, name);
    }
    for (const std::string& name : options.more_doh_names) {
      set->AddBuiltIn(BuiltIn::kDoh, name);
    }
  }
  for (const std::string& text : options.rebinding_names) {
    if (auto pattern = DomainPattern::Parse(text)) {
      set->rebinding_names_.push_back(*std::move(pattern));
    }
  }
  return set;
}

void RuleSet::AddDomain(uint32_t rule, const DomainPattern& pattern) {
  using Kind = DomainPattern::Kind;
  if (pattern.kind() == Kind::kAny) {
    for_all_names_.push_back(rule);
    return;
  }
  if (pattern.kind() == Kind::kWildcard) {
    wildcards_.emplace_back(rule, pattern);
    return;
  }
  Mention& mention = mentions_[std::string(AsText(pattern.name().wire()))];
  if (pattern.kind() != Kind::kBelow) mention.here.push_back(rule);
  if (pattern.kind() != Kind::kExact) mention.below.push_back(rule);
}

void RuleSet::AddBuiltIn(BuiltIn kind, absl::string_view text) {
  if (const auto name = DnsName::FromText(text)) {
    built_ins_.emplace(std::string(AsText(name->wire())), kind);
  }
}

size_t RuleSet::NameHash::operator()(absl::string_view wire) const {
  return SipHash24(*key, Bytes(reinterpret_cast<const std::byte*>(wire.data()),
                               wire.size()));
}

void RuleSet::Consider(uint32_t rule, const Asker& asker, uint32_t& decides,
                       uint32_t& forwards) const {
  const PolicyRule& r = options_.rules[rule];
  uint32_t& best = r.action == RuleAction::kForward ? forwards : decides;
  if (rule >= best) return;
  if (!r.clients.empty() && !IsIn(r.clients, *asker.client)) return;
  if (!r.apps.empty() &&
      (asker.app.empty() ||
       std::find(r.apps.begin(), r.apps.end(), asker.app) == r.apps.end())) {
    return;
  }
  if (!r.types.empty() &&
      std::find(r.types.begin(), r.types.end(), asker.type) == r.types.end()) {
    return;
  }
  best = rule;
}

RuleSet::Found RuleSet::Find(const DnsName& name, const Asker& asker) const {
  uint32_t decides = kNoRule, forwards = kNoRule;
  const auto consider = [&](const std::vector<uint32_t>& rules) {
    for (uint32_t rule : rules) Consider(rule, asker, decides, forwards);
  };
  Found found;
  const absl::string_view wire = AsText(name.wire());
  for (size_t at = 0; wire[at] != 0;
       at += 1u + static_cast<uint8_t>(wire[at])) {
    const absl::string_view suffix = wire.substr(at);
    if (!mentions_.empty()) {
      const auto it = mentions_.find(suffix);
      if (it != mentions_.end()) {
        consider(at == 0 ? it->second.here : it->second.below);
      }
    }
    if (!built_ins_.empty() && found.built_in == BuiltIn::kNone) {
      const auto it = built_ins_.find(suffix);
      if (it != built_ins_.end()) found.built_in = it->second;
    }
  }
  if (!wildcards_.empty()) {
    const std::string text = name.ToString();
    for (const auto& [rule, pattern] : wildcards_) {
      if (Glob(pattern.text(), text)) Consider(rule, asker, decides, forwards);
    }
  }
  consider(for_all_names_);
  if (decides != kNoRule) found.decides = &options_.rules[decides];
  if (forwards != kNoRule) found.forwards = &options_.rules[forwards];
  return found;
}

bool RuleSet::MayRebind(const DnsName& name) const {
  return std::any_of(rebinding_names_.begin(), rebinding_names_.end(),
                     [&](const DomainPattern& p) { return p.Matches(name); });
}

bool RuleSet::IsPublic(const IpAddress& ip) const {
  if (IsIn(options_.rebinding_prefixes, ip)) return true;
  return !IsPrivateAddress(ip) && !IsIn(options_.tun_prefixes, ip);
}

// --- Decisions ---------------------------------------------------------------

std::string PolicyDecision::Explain() const {
  std::string text;
  switch (action) {
    case PolicyAction::kPass:
      text = "passes";
      break;
    case PolicyAction::kBlock:
      text = "blocked";
      break;
    case PolicyAction::kRewrite:
      text = "rewritten";
      break;
  }
  switch (source) {
    case PolicySource::kNone:
      break;
    case PolicySource::kRule:
      absl::StrAppend(&text, " by rule", by.empty() ? "" : " ", by);
      break;
    case PolicySource::kList:
      absl::StrAppend(&text,
                      action == PolicyAction::kPass
                          ? " by an exception in list "
                          : " by list ",
                      by);
      break;
    case PolicySource::kCanary:
      text += " as a canary";
      break;
    case PolicySource::kPrivateRelay:
      text += " as private relay";
      break;
    case PolicySource::kDohName:
      text += " as a known DoH resolver";
      break;
    case PolicySource::kRebinding:
      text += ": the answer leads into a private network";
      break;
  }
  if (!via.empty()) absl::StrAppend(&text, " (", via, ")");
  if (action == PolicyAction::kPass && forwarded) {
    absl::StrAppend(&text, ", asked from ",
                    group.empty() ? "the system's resolver" : "group ", group);
  }
  return text;
}

Policy::Policy()
    : rules_(RuleSet::Create(PolicyOptions(), SipHashKey())),
      list_(std::make_shared<Blocklist>()) {}

void Policy::SetRules(std::shared_ptr<const RuleSet> rules) {
  rules_ = std::move(rules);
  ++generation_;
}

void Policy::SetBlocklist(std::shared_ptr<const Blocklist> list) {
  list_ = std::move(list);
  ++generation_;
}

void Policy::Block(BlockAnswer how, PolicySource source,
                   PolicyDecision& d) const {
  d.action = PolicyAction::kBlock;
  d.source = source;
  d.block = how;
  d.ttl = rules_->options_.block_ttl;
}

PolicyDecision Policy::Decide(const DnsName& name, uint16_t type,
                              const IpAddress& client,
                              absl::string_view app) const {
  const PolicyOptions& options = rules_->options_;
  const RuleSet::Found found = rules_->Find(name, {&client, app, type});
  PolicyDecision d;
  if (found.forwards != nullptr) {
    d.forwarded = true;
    d.group = found.forwards->group;
  }
  if (found.decides == nullptr) {
    ByLists(name, found.built_in, d);
    return d;
  }
  const PolicyRule& rule = *found.decides;
  d.source = PolicySource::kRule;
  if (rule.action == RuleAction::kBlock) {
    Block(rule.block.value_or(options.block), PolicySource::kRule, d);
  } else if (rule.action == RuleAction::kRewrite) {
    d.action = PolicyAction::kRewrite;
    d.ttl = options.rewrite_ttl;
    d.addresses = &rule.addresses;
    const auto index = static_cast<size_t>(&rule - options.rules.data());
    const RuleSet::Target& target = rules_->targets_[index];
    if (target.has_cname) d.cname = &target.cname;
  }
  d.by = rule.name;
  return d;
}

void Policy::ByLists(const DnsName& name, RuleSet::BuiltIn built_in,
                     PolicyDecision& d) const {
  using BuiltIn = RuleSet::BuiltIn;
  const BlockAnswer how = rules_->options_.block;
  switch (built_in) {
    case BuiltIn::kCanary:
      return Block(BlockAnswer::kNxDomain, PolicySource::kCanary, d);
    case BuiltIn::kRelay:
      return Block(BlockAnswer::kNxDomain, PolicySource::kPrivateRelay, d);
    case BuiltIn::kDoh:
      return Block(how, PolicySource::kDohName, d);
    case BuiltIn::kNone:
      break;
  }
  const std::optional<BlocklistMatch> match = list_->Find(name);
  if (!match) return;
  if (match->exception) {
    d.source = PolicySource::kList;  // passes, and says why
  } else {
    Block(how, PolicySource::kList, d);
  }
  d.by = list_->ListName(match->list);
  d.via = Ancestor(name, match->labels);
}

PolicyDecision Policy::DecideAnswer(const PolicyDecision& question,
                                    const IpAddress& client,
                                    const AnswerView& answer,
                                    absl::string_view app) const {
  const PolicyOptions& options = rules_->options_;
  // Whatever let the question pass by name, knew what it was doing. All of the
  // answer is looked at: what lies behind a limit would be a way around.
  if (question.source == PolicySource::kRule) return question;
  if (options.check_aliases && question.source == PolicySource::kNone) {
    for (const DnsName& alias : answer.TargetNames(kMaxMessageSize)) {
      PolicyDecision d = Decide(alias, answer.type(), client, app);
      if (d.action != PolicyAction::kBlock) continue;
      d.via = alias.ToString();
      return d;
    }
  }
  if (!options.block_rebinding || question.forwarded ||
      rules_->MayRebind(answer.name())) {
    return question;
  }
  for (const AnswerAddress& address : answer.Addresses(kMaxMessageSize)) {
    if (rules_->IsPublic(address.ip)) continue;
    PolicyDecision d = question;
    Block(options.block, PolicySource::kRebinding, d);
    d.by = {};
    d.via = address.ip.ToString();
    return d;
  }
  return question;
}

}  // namespace netstack::dns

// How this works
//
// A *waiter* is an app's query. A *job* is a question under way; waiters with
// the same question share one. An *attempt* is the job's question to one
// upstream, for which its transport has an exchange.
//
// A job asks the first upstream of its group. When that answers badly or
// fails, the next one is asked at once; when it is silent for longer than its
// patience (three times what it usually takes), the next one is asked as well
// and whichever answers first wins. After the last, the first again, on a new
// socket and its next address. The job ends with an answer, or when everybody
// has failed, or at its deadline.
//
// What the transports report is recorded as an event and handled in OnTurn();
// ended jobs are told to their waiters at the end of it. So no callback runs
// while a socket or a job is being handled.
#include "core/dns/resolver.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "core/dns/https_transport.h"
#include "core/dns/message.h"
#include "core/dns/socket_watch.h"
#include "core/dns/stream_transport.h"
#include "core/dns/tls.h"
#include "core/dns/udp_transport.h"
#include "core/dns/upstream.h"
#include "core/flow/timer_wheel.h"

namespace netstack {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr absl::string_view kSystemName = "system";
constexpr absl::string_view kBootstrapName = "bootstrap";
// Attempts of one job, so that a dead network costs a few datagrams.
constexpr size_t kMaxAttempts = 10;
// Rounds over all upstreams that end at once, before the job does: a network
// that is about to come up gets a moment.
constexpr int kMaxRounds = 4;
constexpr Duration kRoundPause = milliseconds(100);
// The longest that one upstream is waited for in later rounds.
constexpr Duration kMaxPatience = seconds(2);
// How often the system's resolvers are looked at.
constexpr Duration kSystemEvery = seconds(1);
// Looked-up addresses of upstreams are kept at least so long.
constexpr uint32_t kMinAddressTtl = 60;
// After a look-up in vain, while older addresses serve.
constexpr Duration kLookupAgain = seconds(5);
constexpr Duration kTellFailOpenEvery = seconds(10);
// RFC 8467, section 4.1.
constexpr uint16_t kPadding = 128;
// How long silent upstreams are waited for before fail_open asks in the clear:
// a lost datagram is no reason to.
constexpr Duration kOpenAfter = seconds(2);
// How long a server that does not know EDNS is asked without it.
constexpr Duration kWithoutEdns = std::chrono::minutes(10);
// Aliases and targets of one answer. Each goes through rules and lists, so that
// a message full of them would hold up the loop; resolvers end chains at a
// dozen.
constexpr size_t kMaxTargets = 128;

struct Group {
  std::string name;
  uint16_t number = 0;  // for the cache; the same as long as the name is
  std::vector<Upstream*> upstreams;
};

struct Waiter {
  dns::Query query;
  IpAddress client;
  // Of the group that was asked, for the cache.
  uint16_t group = 0;
  // A rule answers with this name's addresses.
  std::optional<dns::DnsName> rewrite_to;
  Resolver::Callback done;
  Instant started{};
  size_t limit = 0;
  bool coalesced = false;
};

struct Attempt {
  ExchangeId id = 0;
  Upstream* upstream = nullptr;
  Endpoint address;
  Instant sent{};
  bool active = true;
  bool overdue = false;  // its upstream was blamed for its silence
  bool parked = false;   // waits for its upstream's address
  bool edns = true;
};

struct Job : TimerNode {
  std::string key;
  dns::Query query;  // the first waiter's
  Group* group = nullptr;
  uint16_t group_number = 0;  // its, which may go before the job does
  std::vector<Upstream*> order;
  size_t next = 0;  // into order
  int round = 0;
  int vain_rounds = 0;  // in which nobody could even be asked
  bool hedged = false;
  bool failed_open = false;
  Instant started{};
  Instant deadline{};
  Instant next_try = kNever;
  // When its waiters get an expired answer instead; kNever without one.
  Instant stale_at = kNever;
  std::vector<Attempt> attempts;
  std::vector<Resolver::QueryId> waiters;
  std::vector<Upstream*> lookups;  // whose addresses this is to find

  // The result.
  dns::StoredAnswer answer;
  const Upstream* answered_by = nullptr;
  DnsFailure failure = DnsFailure::kNone;
  // The last answer with an rcode that asks for another upstream.
  dns::StoredAnswer bad_answer;
  const Upstream* bad_answer_by = nullptr;
  ExchangeError last_error = ExchangeError::kOther;

  bool Waits() const {
    return std::any_of(attempts.begin(), attempts.end(),
                       [](const Attempt& a) { return a.active; });
  }
};

// What a transport reported.
struct Event {
  ExchangeId id = 0;
  bool answered = false;
  dns::StoredAnswer answer;
  ExchangeError error = ExchangeError::kOther;
  std::string detail;
};

dns::CacheKey KeyOf(const dns::Query& query, uint16_t group) {
  dns::CacheKey key;
  key.name = &query.name;
  key.type = query.type;
  key.group = group;
  key.dnssec_ok = query.edns.present && query.edns.dnssec_ok;
  key.checking_disabled = query.checking_disabled;
  return key;
}

// What makes two questions the same: the name, the type, the flags that
// change the answer, and who is asked.
std::string KeyOf(const dns::Query& query, const Group* group) {
  std::string key(reinterpret_cast<const char*>(query.name.wire().data()),
                  query.name.size());
  key.push_back(static_cast<char>(query.type >> 8));
  key.push_back(static_cast<char>(query.type & 0xFF));
  key.push_back(static_cast<char>(
      (query.recursion_desired ? 1 : 0) | (query.checking_disabled ? 2 : 0) |
      (query.edns.present && query.edns.dnssec_ok ? 4 : 0)));
  return absl::StrCat(key, group->name);
}

class ResolverImpl final : public Resolver, public ExchangeListener {
 public:
  ResolverImpl(const Parts& parts, Instant now)
      : parts_(parts),
        now_(now),
        wheel_(now),
        watch_(parts.poller),
        ids_(parts.secret),
        scratch_(65536),
        told_(65536),
        out_(65536),
        own_system_dns_(parts.system_dns == nullptr ? NewSystemDns() : nullptr),
        system_dns_(parts.system_dns == nullptr ? own_system_dns_.get()
                                                : parts.system_dns),
        cache_(dns::Cache::Options(), parts.secret) {}
  ~ResolverImpl() override;

  Result Resolve(const DnsQuestion& question, Instant now,
                 Callback done) override;
  void Cancel(QueryId id) override;
  void Configure(const DnsResolverOptions& options, Instant now) override;
  void OnNetworkChanged(Instant now) override;
  void SetRules(std::shared_ptr<const dns::RuleSet> rules) override {
    policy_.SetRules(std::move(rules));
  }
  void SetBlocklist(std::shared_ptr<const dns::Blocklist> list) override {
    policy_.SetBlocklist(std::move(list));
  }
  size_t FlushCache(absl::string_view name, bool below) override;
  void Shutdown(Instant now) override;
  void OnSocket(const PollEvent& event, Instant now) override;
  void OnTurn(Instant now) override;
  Instant next_deadline() const override { return touched_ ? kAtOnce : wake_; }
  DnsStats stats() const override;
  std::vector<DnsUpstreamInfo> Upstreams(Instant now) const override;

  // ExchangeListener.
  void OnAnswer(ExchangeId id, Bytes answer) override;
  void OnFailed(ExchangeId id, ExchangeError error,
                absl::string_view detail) override;

 private:
  // Asking.
  Result Now(DnsReply reply, Instant started);
  Group* GroupOf(const dns::PolicyDecision& decision);
  void ByPolicy(const dns::Query& query, const dns::PolicyDecision& decision,
                bool of_answer, size_t limit, MutableBytes out,
                DnsReply* reply);
  bool FromCache(const dns::Query& query, const IpAddress& client,
                 const dns::PolicyDecision& decision, uint16_t group,
                 const dns::Cache::Hit& hit, size_t limit, MutableBytes out,
                 DnsReply* reply);
  Group* GroupNamed(absl::string_view name);
  Job* FindOrStart(const dns::Query& query, Group* group);
  std::vector<Upstream*> OrderOf(const Group& group) const;
  void TryNext(Job* job);
  void AskProbes(Job* job);
  std::optional<ExchangeError> Ask(Job* job, Upstream* upstream,
                                   bool edns = true);
  std::optional<ExchangeError> SendTo(Job* job, Attempt* attempt, bool fresh);
  dns::NameCase RandomCase(const dns::DnsName& name);
  bool MayOpen(const Job& job) const;
  bool FailOpen(Job* job);
  void Arm(Job* job);
  void OnTimer(Job* job);
  void BlameSilent(Job* job);
  void Blame(Upstream* upstream, const Endpoint& address,
             absl::string_view why);

  // Ends.
  // Whether OnTurn() has left something for the next turn.
  bool Pending() const {
    return !events_.empty() || !done_.empty() || !stale_.empty();
  }
  void HandleEvents();
  void HandleAnswer(Job* job, Attempt* attempt, dns::StoredAnswer answer);
  void HandleFailure(Job* job, Attempt* attempt, const Event& event);
  void GoOn(Job* job);
  void GiveUp(Job* job);
  void Finish(Job* job);
  void Deliver();
  void Tell(QueryId id, const Job* job);
  DnsReply ReplyOf(const Job* job, const Waiter& waiter, MutableBytes out);
  void ReplyWithAnswer(const Job& job, const Waiter& waiter,
                       const dns::PolicyDecision& decision, MutableBytes out,
                       DnsReply* reply);

  // Upstreams.
  std::unique_ptr<Upstream> NewUpstream(const DnsUpstreamOptions& options);
  std::unique_ptr<Transport> NewTransport(const Upstream& upstream);
  void MakeTls();
  void MakeGroups();
  uint16_t NumberOf(const std::string& group);
  void Forget(Upstream* upstream);
  void RefreshSystem(Upstream* upstream);
  void StartLookup(Upstream* upstream);
  void OnLookup(Upstream* upstream, const Job& job);
  void SendParked(Upstream* upstream);
  template <typename Fn>
  void ForEachUpstream(Fn&& fn) const;

  const Parts parts_;
  DnsResolverOptions options_;
  Instant now_;
  TimerWheel wheel_;
  SocketWatch watch_;
  RandomIds ids_;
  std::vector<std::byte> scratch_;  // one datagram or read
  std::vector<std::byte> told_;     // replies of Resolve()
  std::vector<std::byte> out_;      // replies to callbacks
  const std::unique_ptr<SystemDns> own_system_dns_;
  SystemDns* const system_dns_;
  std::unique_ptr<TlsContext> tls_;
  std::unique_ptr<HttpsClient> https_;
  // In this order destroyed: jobs refer to upstreams.
  std::vector<std::unique_ptr<Upstream>> upstreams_;
  std::unique_ptr<Upstream> system_;
  std::unique_ptr<Upstream> bootstrap_;  // null without bootstrap_servers
  std::vector<std::unique_ptr<Group>> groups_;
  Group* default_group_ = nullptr;
  Group bootstrap_group_;
  Group system_group_;  // of rules that forward to the system's resolver
  absl::flat_hash_map<std::string, std::unique_ptr<Job>> jobs_;
  absl::flat_hash_map<ExchangeId, Job*> exchanges_;
  absl::flat_hash_map<QueryId, std::unique_ptr<Waiter>> waiters_;
  std::vector<Event> events_;
  std::vector<std::unique_ptr<Job>> done_;
  std::vector<QueryId> stale_;  // waited long enough
  dns::Policy policy_;
  dns::Cache cache_;
  std::string rule_text_;  // what a reply's `rule` refers to
  absl::flat_hash_map<std::string, uint16_t> group_numbers_;
  ExchangeId last_exchange_ = 0;
  QueryId last_query_ = 0;
  dns::Query told_query_;  // what a reply of Resolve() refers to
  DnsStats stats_;
  bool touched_ = true;  // something may be to do in OnTurn()
  Instant wake_ = kNever;
  std::optional<Instant> told_fail_open_;
  bool shut_ = false;
};

ResolverImpl::~ResolverImpl() {
  for (auto& [key, job] : jobs_) wheel_.Disarm(job.get());
  // Transports, which cancel, before what they use.
  upstreams_.clear();
  system_.reset();
  bootstrap_.reset();
}

template <typename Fn>
void ResolverImpl::ForEachUpstream(Fn&& fn) const {
  for (const auto& upstream : upstreams_) fn(upstream.get());
  if (system_ != nullptr) fn(system_.get());
  if (bootstrap_ != nullptr) fn(bootstrap_.get());
}

// --- asking -----------------------------------------------------------------

Resolver::Result ResolverImpl::Resolve(const DnsQuestion& question, Instant now,
                                       Callback done) {
  now_ = now;
  ++stats_.queries;
  DnsReply reply;
  const auto query = dns::ParseQuery(question.message);
  if (!query) {
    reply.failure = DnsFailure::kMalformed;
    reply.message =
        dns::WriteFaultAnswer(question.message, query.fault(), told_);
    return Now(reply, now);
  }
  told_query_ = *query;
  reply.query = &told_query_;
  const size_t limit = question.transport == DnsTransport::kUdp
                           ? dns::UdpLimit(*query, question.limit)
                           : question.limit;
  dns::PolicyDecision decision = policy_.Decide(*query, question.client.ip);
  dns::Query asked = *query;
  std::optional<dns::DnsName> rewrite_to;
  if (decision.action == dns::PolicyAction::kRewrite &&
      decision.addresses->empty() && decision.cname != nullptr &&
      (query->type == dns::type::kA || query->type == dns::type::kAaaa)) {
    rewrite_to = *decision.cname;
    asked.name = *decision.cname;
    asked.upper = {};
  } else if (decision.action != dns::PolicyAction::kPass) {
    ByPolicy(*query, decision, /*of_answer=*/false, limit, told_, &reply);
    return Now(reply, now);
  }
  Group* group = GroupOf(decision);
  bool may_be_stale = false;
  const auto hit = cache_.Find(KeyOf(asked, group->number), now);
  if (hit && !rewrite_to) {
    const auto it = jobs_.find(KeyOf(asked, group));
    // Expired: upstreams get their chance first, unless they had it.
    const bool wait =
        hit->stale &&
        (hit->refresh || (it != jobs_.end() && now < it->second->stale_at));
    if (!wait && FromCache(*query, question.client.ip, decision, group->number,
                           *hit, limit, told_, &reply)) {
      asked.recursion_desired = true;  // what is fetched is for all
      if (hit->refresh && !shut_) (void)FindOrStart(asked, group);
      return Now(reply, now);
    }
    may_be_stale = hit->stale;
  }
  if (shut_ || waiters_.size() >= options_.max_waiting) {
    reply.failure = DnsFailure::kBusy;
  }
  Job* job = nullptr;
  if (reply.failure == DnsFailure::kNone) {
    job = FindOrStart(asked, group);
    if (job == nullptr) reply.failure = DnsFailure::kBusy;
  }
  if (job == nullptr) {
    reply.message = dns::WriteErrorAnswer(*query, dns::Rcode::kServFail, told_);
    return Now(reply, now);
  }
  touched_ = true;
  auto waiter = std::make_unique<Waiter>();
  waiter->query = *query;
  waiter->client = question.client.ip;
  waiter->group = group->number;
  waiter->rewrite_to = std::move(rewrite_to);
  waiter->done = std::move(done);
  waiter->started = now;
  waiter->limit = limit;
  waiter->coalesced = !job->waiters.empty();
  if (waiter->coalesced) ++stats_.coalesced;
  const QueryId id = ++last_query_;
  job->waiters.push_back(id);
  if (may_be_stale && job->stale_at == kNever) {
    job->stale_at = job->started + options_.stale_after;
    Arm(job);
  }
  waiters_.emplace(id, std::move(waiter));
  Result result;
  result.id = id;
  return result;
}

Resolver::Result ResolverImpl::Now(DnsReply reply, Instant started) {
  reply.latency = now_ - started;
  if (reply.message.size() >= 4) reply.rcode = Load8(&reply.message[3]) & 0x0F;
  ++stats_.replies[static_cast<size_t>(reply.source)];
  if (reply.failure != DnsFailure::kNone) {
    ++stats_.failures[static_cast<size_t>(reply.failure)];
  }
  Result result;
  result.reply = reply;
  return result;
}

Group* ResolverImpl::GroupOf(const dns::PolicyDecision& decision) {
  if (!decision.forwarded) return default_group_;
  return decision.group.empty() ? &system_group_ : GroupNamed(decision.group);
}

// Blocked, or rewritten to what the rule itself says.
void ResolverImpl::ByPolicy(const dns::Query& query,
                            const dns::PolicyDecision& decision, bool of_answer,
                            size_t limit, MutableBytes out, DnsReply* reply) {
  reply->source = DnsSource::kPolicy;
  reply->failure = DnsFailure::kNone;
  reply->action = decision.action;
  reply->policy = decision.source;
  reply->of_answer = of_answer;
  rule_text_ = decision.via.empty()
                   ? std::string(decision.by)
                   : absl::StrCat(decision.by, ": ", decision.via);
  reply->rule = rule_text_;
  const MutableBytes room = out.first(std::min(out.size(), limit));
  reply->message =
      decision.action == dns::PolicyAction::kBlock
          ? dns::WriteBlockAnswer(query, decision.block, decision.ttl, room)
          : dns::WriteRewriteAnswer(query, decision.cname, *decision.addresses,
                                    decision.ttl, room);
  if (reply->message.empty()) {  // two names of 255 bytes, say
    reply->message = dns::WriteTruncatedAnswer(query, out);
  }
}

// An answer that is kept passes the policy as it is now. True: `reply` is
// made of it, or of what the policy says to it.
bool ResolverImpl::FromCache(const dns::Query& query, const IpAddress& client,
                             const dns::PolicyDecision& decision,
                             uint16_t group, const dns::Cache::Hit& hit,
                             size_t limit, MutableBytes out, DnsReply* reply) {
  bool passed_again = false;
  if (hit.tag != policy_.generation() || policy_.depends_on_asker()) {
    const auto view = dns::ParseAnswer(hit.answer->message());
    if (!view) return false;
    const dns::PolicyDecision of_answer =
        policy_.DecideAnswer(decision, client, *view);
    if (of_answer.action == dns::PolicyAction::kBlock) {
      ByPolicy(query, of_answer, /*of_answer=*/true, limit, out, reply);
      return true;
    }
    passed_again = true;
  }
  dns::WriteOptions write;
  write.limit = limit;
  write.age = hit.age;
  write.expired_ttl = hit.expired_ttl;
  if (hit.stale) {
    write.extended_error = hit.answer->rcode() == dns::Rcode::kNxDomain
                               ? dns::ExtendedError::kStaleNxDomain
                               : dns::ExtendedError::kStaleAnswer;
    ++stats_.stale;
  }
  reply->source = DnsSource::kCache;
  reply->failure = DnsFailure::kNone;
  reply->stale = hit.stale;
  reply->message = dns::WriteAnswer(query, *hit.answer, write, out);
  if (passed_again) {
    cache_.SetTag(KeyOf(query, group), policy_.generation());
  }
  return true;
}

Group* ResolverImpl::GroupNamed(absl::string_view name) {
  for (const auto& group : groups_) {
    if (group->name == name) return group.get();
  }
  return default_group_;
}

Job* ResolverImpl::FindOrStart(const dns::Query& query, Group* group) {
  std::string key = KeyOf(query, group);
  const auto it = jobs_.find(key);
  if (it != jobs_.end()) return it->second.get();
  if (jobs_.size() >= options_.max_in_flight) return nullptr;
  auto owned = std::make_unique<Job>();
  Job* job = owned.get();
  job->key = key;
  job->query = query;
  job->group = group;
  job->group_number = group->number;
  job->order = OrderOf(*group);
  job->started = now_;
  job->deadline = now_ + options_.query_timeout;
  jobs_.emplace(std::move(key), std::move(owned));
  touched_ = true;
  TryNext(job);
  AskProbes(job);
  Arm(job);
  return job;
}

// Those that are up, as configured; then the others, soonest probe first.
std::vector<Upstream*> ResolverImpl::OrderOf(const Group& group) const {
  std::vector<Upstream*> order = group.upstreams;
  std::stable_sort(order.begin(), order.end(), [](Upstream* a, Upstream* b) {
    if (a->health.up() != b->health.up()) return a->health.up();
    return !a->health.up() && a->health.next_probe() < b->health.next_probe();
  });
  return order;
}

// Asks the next upstream that can be asked.
void ResolverImpl::TryNext(Job* job) {
  for (size_t i = 0; i <= job->order.size(); ++i) {
    // One more in the clear, where that is wanted.
    if (job->attempts.size() >= kMaxAttempts && !FailOpen(job)) break;
    if (job->next >= job->order.size()) {
      if (!FailOpen(job)) {
        job->next = 0;
        ++job->round;
      }
      if (job->order.empty()) break;
    }
    Upstream* upstream = job->order[job->next++];
    if (!job->attempts.empty()) ++stats_.failed_over;
    const auto error = Ask(job, upstream);
    if (error) {
      job->last_error = *error;
      continue;
    }
    const Duration patience =
        std::min(upstream->Patience(options_) * (1 << std::min(job->round, 4)),
                 kMaxPatience);
    job->next_try = now_ + patience;
    if (options_.hedge_delay > Duration::zero() && !job->hedged &&
        job->order.size() > 1) {
      job->next_try = std::min(job->next_try, now_ + options_.hedge_delay);
    }
    if (MayOpen(*job)) {
      job->next_try =
          std::min(job->next_try, std::max(now_, job->started + kOpenAfter));
    }
    return;
  }
  if (job->Waits()) {
    // Enough was asked: until the deadline, or what lies in between.
    const Instant open = job->started + kOpenAfter;
    job->next_try = MayOpen(*job) && now_ < open ? open : kNever;
    return;
  }
  // Nobody could be asked.
  if (job->order.empty() || job->attempts.size() >= kMaxAttempts ||
      ++job->vain_rounds > kMaxRounds) {
    GiveUp(job);
    return;
  }
  job->next_try = now_ + kRoundPause * (1 << (job->vain_rounds - 1));
}

// A real query tells whether an upstream that was down has come back.
void ResolverImpl::AskProbes(Job* job) {
  if (!job->lookups.empty() || !job->Waits()) return;
  for (Upstream* upstream : job->group->upstreams) {
    if (upstream->health.up() || now_ < upstream->health.next_probe()) continue;
    const bool asked =
        std::any_of(job->attempts.begin(), job->attempts.end(),
                    [&](const Attempt& a) { return a.upstream == upstream; });
    upstream->health.OnProbe(options_, now_);
    if (!asked) (void)Ask(job, upstream);
  }
}

std::optional<ExchangeError> ResolverImpl::Ask(Job* job, Upstream* upstream,
                                               bool edns) {
  if (upstream->options.kind == DnsUpstreamKind::kSystem) {
    RefreshSystem(upstream);
  }
  Attempt attempt;
  attempt.upstream = upstream;
  attempt.sent = now_;
  attempt.id = ++last_exchange_;
  attempt.edns = edns && now_ >= upstream->edns_again;
  const bool known = !upstream->addresses.empty();
  if (!known && upstream->port == 0) return ExchangeError::kNoAddress;
  if (!upstream->configured_addresses && upstream->lookups == 0 &&
      (!known || now_ >= upstream->addresses_expire)) {
    StartLookup(upstream);
  }
  if (!known && upstream->lookups == 0) return ExchangeError::kNoAddress;
  const bool again = std::any_of(
      job->attempts.begin(), job->attempts.end(),
      [&](const Attempt& a) { return a.upstream == upstream && a.active; });
  ++upstream->queries;
  if (known) {
    if (const auto error = SendTo(job, &attempt, again)) {
      upstream->last_error =
          std::string(kExchangeErrorNames[static_cast<size_t>(*error)]);
      if (*error != ExchangeError::kNoDescriptor &&
          *error != ExchangeError::kProtectFailed) {
        ++upstream->failures;
        Blame(upstream, attempt.address, upstream->last_error);
      }
      return error;
    }
  } else {
    attempt.parked = true;
    upstream->parked.push_back(attempt.id);
  }
  ++upstream->in_flight;
  exchanges_.emplace(attempt.id, job);
  job->attempts.push_back(attempt);
  return std::nullopt;
}

std::optional<ExchangeError> ResolverImpl::SendTo(Job* job, Attempt* attempt,
                                                  bool fresh) {
  Upstream* upstream = attempt->upstream;
  dns::QueryToUpstream to = dns::UpstreamQueryFor(job->query);
  to.recursion_desired = job->query.recursion_desired;
  to.edns = attempt->edns;
  to.pad_to = upstream->encrypted && to.edns ? kPadding : 0;
  if (!upstream->encrypted) to.upper = RandomCase(job->query.name);
  UpstreamQuery query;
  query.size = static_cast<uint16_t>(dns::WriteQuery(to, query.data).size());
  query.question_size = static_cast<uint16_t>(job->query.name.size() + 4);
  if (query.size == 0) return ExchangeError::kOther;
  std::optional<ExchangeError> error = ExchangeError::kNoAddress;
  // A family without a route is no reason to wait.
  for (size_t i = 0; i < upstream->addresses.size(); ++i) {
    attempt->address = upstream->addresses.front();
    error = upstream->transport->Send(attempt->id, query, upstream->addresses,
                                      fresh, now_);
    if (error != ExchangeError::kUnreachable) break;
    upstream->Demote(attempt->address);
  }
  touched_ = true;
  return error;
}

// Letters in random case: some more bits for a forger to guess.
dns::NameCase ResolverImpl::RandomCase(const dns::DnsName& name) {
  dns::NameCase upper;
  uint64_t bits = 0;
  const Bytes wire = name.wire();
  for (size_t i = 0; i < wire.size(); ++i) {
    if (i % 64 == 0) bits = ids_.Next();
    const uint8_t c = Load8(&wire[i]);
    if (c >= 'a' && c <= 'z' && (bits >> (i % 64) & 1) != 0) upper.Set(i);
  }
  return upper;
}

// The last resort of a group, when it is configured: the system's resolver.
bool ResolverImpl::MayOpen(const Job& job) const {
  return options_.fail_open && !job.failed_open && job.lookups.empty() &&
         job.bad_answer.empty();
}

bool ResolverImpl::FailOpen(Job* job) {
  if (!MayOpen(*job)) return false;
  if (job->Waits() && now_ < job->started + kOpenAfter) return false;
  job->failed_open = true;
  for (const Upstream* u : job->order) {
    if (u->options.kind == DnsUpstreamKind::kSystem) return false;
  }
  job->order.push_back(system_.get());
  job->next = job->order.size() - 1;
  ++stats_.failed_open;
  if (parts_.listener != nullptr &&
      (!told_fail_open_ || now_ - *told_fail_open_ >= kTellFailOpenEvery)) {
    told_fail_open_ = now_;
    parts_.listener->OnFailedOpen(job->group->name);
  }
  return true;
}

void ResolverImpl::Arm(Job* job) {
  if (jobs_.contains(job->key)) {
    const Instant stale = job->waiters.empty() ? kNever : job->stale_at;
    wheel_.Arm(job, std::min({job->next_try, job->deadline, stale}));
  }
}

void ResolverImpl::OnTimer(Job* job) {
  BlameSilent(job);
  if (now_ >= job->deadline) {
    job->last_error = ExchangeError::kTimedOut;
    GiveUp(job);
    return;
  }
  if (now_ >= job->stale_at && !job->waiters.empty()) {
    touched_ = true;
    stale_.insert(stale_.end(), job->waiters.begin(), job->waiters.end());
    job->waiters.clear();
  }
  if (now_ >= job->next_try) {
    const bool hedging = options_.hedge_delay > Duration::zero() &&
                         !job->hedged && job->attempts.size() == 1 &&
                         job->attempts[0].active && !job->attempts[0].overdue;
    job->hedged = true;
    if (hedging) ++stats_.hedged;
    TryNext(job);
  }
  // TryNext() may have ended it, and its record lives until Deliver().
  if (job->failure == DnsFailure::kNone && job->answer.empty()) Arm(job);
}

void ResolverImpl::BlameSilent(Job* job) {
  for (Attempt& attempt : job->attempts) {
    Upstream* upstream = attempt.upstream;
    if (!attempt.active || attempt.overdue || attempt.parked ||
        now_ - attempt.sent < upstream->Patience(options_)) {
      continue;
    }
    attempt.overdue = true;
    ++upstream->timeouts;
    upstream->last_error = "no answer in time";
    Blame(upstream, attempt.address, upstream->last_error);
  }
}

void ResolverImpl::Blame(Upstream* upstream, const Endpoint& address,
                         absl::string_view why) {
  upstream->Demote(address);
  if (!upstream->health.OnFailure(options_, now_)) return;
  if (parts_.listener != nullptr) {
    parts_.listener->OnUpstreamHealth(upstream->options.name, false, why);
  }
}

// --- way back: what became of it --------------------------------------------

void ResolverImpl::OnSocket(const PollEvent& event, Instant now) {
  now_ = now;
  if (watch_.Dispatch(event, now)) touched_ = true;
}

void ResolverImpl::OnAnswer(ExchangeId id, Bytes answer) {
  touched_ = true;
  Event event;
  event.id = id;
  const auto view = dns::ParseAnswer(answer);
  // Truncated over a stream, where there is room for all: no answer.
  if (view && !view->truncated() &&
      view->TargetNames(kMaxTargets + 1).size() <= kMaxTargets) {
    event.answered = true;
    event.answer = dns::StoredAnswer(*view, options_.cache.ttl);
  } else {
    event.error = ExchangeError::kBadAnswer;
  }
  events_.push_back(std::move(event));
}

void ResolverImpl::OnFailed(ExchangeId id, ExchangeError error,
                            absl::string_view detail) {
  touched_ = true;
  Event event;
  event.id = id;
  event.error = error;
  event.detail = std::string(detail);
  events_.push_back(std::move(event));
}

void ResolverImpl::OnTurn(Instant now) {
  now_ = now;
  if (!touched_ && now < wake_) return;
  HandleEvents();
  wheel_.Advance(now,
                 [&](TimerNode* node) { OnTimer(static_cast<Job*>(node)); });
  ForEachUpstream([&](Upstream* u) { u->transport->OnTurn(now); });
  if (https_ != nullptr) https_->OnTurn(now);
  HandleEvents();
  Deliver();
  // After Disarm() the wheel's own deadline may be too early.
  wake_ = wheel_.size() == 0 ? kNever : wheel_.next_deadline();
  ForEachUpstream([&](Upstream* u) {
    wake_ = std::min(wake_, u->transport->next_deadline());
  });
  if (https_ != nullptr) wake_ = std::min(wake_, https_->next_deadline());
  touched_ = Pending();
}

void ResolverImpl::HandleEvents() {
  for (Event& event : std::exchange(events_, {})) {
    const auto it = exchanges_.find(event.id);
    if (it == exchanges_.end()) continue;  // cancelled meanwhile
    Job* job = it->second;
    exchanges_.erase(it);
    const auto attempt =
        std::find_if(job->attempts.begin(), job->attempts.end(),
                     [&](const Attempt& a) { return a.id == event.id; });
    attempt->active = false;
    --attempt->upstream->in_flight;
    if (event.answered) {
      HandleAnswer(job, &*attempt, std::move(event.answer));
    } else {
      HandleFailure(job, &*attempt, event);
    }
  }
}

void ResolverImpl::HandleAnswer(Job* job, Attempt* attempt,
                                dns::StoredAnswer answer) {
  Upstream* upstream = attempt->upstream;
  ++upstream->answers;
  upstream->latency.Add(now_ - attempt->sent);
  if (upstream->health.OnAnswer() && parts_.listener != nullptr) {
    parts_.listener->OnUpstreamHealth(upstream->options.name, true,
                                      "it answers again");
  }
  const auto rcode = static_cast<uint16_t>(answer.rcode());
  constexpr auto kFormErr = static_cast<uint16_t>(dns::Rcode::kFormErr);
  // A server that does not know EDNS (RFC 6891, section 7): FORMERR alone does
  // not say so, an app can have that for a question of its own making.
  if (!attempt->edns && rcode != kFormErr && now_ >= upstream->edns_again) {
    upstream->edns_again = now_ + kWithoutEdns;
  }
  const auto& bad = options_.failover_rcodes;
  if (std::find(bad.begin(), bad.end(), rcode) == bad.end()) {
    job->answer = std::move(answer);
    job->answered_by = upstream;
    Finish(job);
    return;
  }
  ++upstream->bad_rcodes;
  upstream->last_error =
      absl::StrCat("answered ", dns::RcodeName(answer.rcode()));
  job->bad_answer = std::move(answer);
  job->bad_answer_by = upstream;
  if (rcode == kFormErr && attempt->edns) {
    if (!Ask(job, upstream, /*edns=*/false)) {
      job->next_try = now_ + upstream->Patience(options_);
      Arm(job);
      return;
    }
  }
  GoOn(job);
}

void ResolverImpl::HandleFailure(Job* job, Attempt* attempt,
                                 const Event& event) {
  Upstream* upstream = attempt->upstream;
  job->last_error = event.error;
  upstream->last_error =
      std::string(kExchangeErrorNames[static_cast<size_t>(event.error)]);
  if (!event.detail.empty()) {
    absl::StrAppend(&upstream->last_error, ": ", event.detail);
  }
  if (event.error != ExchangeError::kNoDescriptor &&
      event.error != ExchangeError::kProtectFailed) {
    ++upstream->failures;
    Blame(upstream, attempt->address, upstream->last_error);
  }
  GoOn(job);
}

// An attempt has ended without an answer that will do.
void ResolverImpl::GoOn(Job* job) {
  if (job->Waits()) return;  // for another one; the timer goes on
  if (job->next < job->order.size() && job->round == 0) {
    TryNext(job);
  } else if (!job->bad_answer.empty()) {
    GiveUp(job);  // everybody was asked, and that is what they say
  } else if (job->next < job->order.size() || FailOpen(job)) {
    TryNext(job);
  } else if (job->attempts.size() >= kMaxAttempts ||
             ++job->vain_rounds > kMaxRounds) {
    GiveUp(job);
  } else {
    job->next_try = now_ + kRoundPause * (1 << (job->vain_rounds - 1));
  }
  if (job->failure == DnsFailure::kNone && job->answer.empty()) Arm(job);
}

void ResolverImpl::GiveUp(Job* job) {
  if (!job->bad_answer.empty()) {
    job->answer = std::move(job->bad_answer);
    job->answered_by = job->bad_answer_by;
  } else if (job->order.empty()) {
    job->failure = DnsFailure::kNoUpstream;
  } else if (job->last_error == ExchangeError::kNoDescriptor) {
    job->failure = DnsFailure::kNoDescriptor;
  } else if (now_ >= job->deadline) {
    job->failure = DnsFailure::kTimeout;
  } else if (job->last_error == ExchangeError::kNoAddress &&
             job->attempts.empty()) {
    job->failure = DnsFailure::kNoUpstream;
  } else {
    job->failure = DnsFailure::kUnreachable;
  }
  Finish(job);
}

// Told at the end of the turn; equal questions from here on are a new job.
void ResolverImpl::Finish(Job* job) {
  touched_ = true;
  wheel_.Disarm(job);
  for (Attempt& attempt : job->attempts) {
    if (!attempt.active) continue;
    attempt.active = false;
    exchanges_.erase(attempt.id);
    --attempt.upstream->in_flight;
    attempt.upstream->transport->Cancel(attempt.id, attempt.overdue);
  }
  done_.push_back(std::move(jobs_.extract(job->key).mapped()));
}

void ResolverImpl::Deliver() {
  for (const std::unique_ptr<Job>& job : std::exchange(done_, {})) {
    // Without RD a server tells what it happens to know, which may be nothing
    // (RFC 1035, 4.1.1): that is for its asker only.
    if (!job->answer.empty() && job->lookups.empty() &&
        job->query.recursion_desired) {
      // Whether it passes is found for each waiter; the mark says so only when
      // nobody else's answer can differ.
      cache_.Insert(KeyOf(job->query, job->group_number), job->answer,
                    /*tag=*/0, now_);
    }
    for (Upstream* upstream : job->lookups) OnLookup(upstream, *job);
    for (const QueryId id : job->waiters) Tell(id, job.get());
  }
  for (const QueryId id : std::exchange(stale_, {})) Tell(id, nullptr);
}

void ResolverImpl::Tell(QueryId id, const Job* job) {
  auto node = waiters_.extract(id);
  if (node.empty()) return;  // cancelled
  const std::unique_ptr<Waiter> waiter = std::move(node.mapped());
  const DnsReply reply = ReplyOf(job, *waiter, out_);
  ++stats_.replies[static_cast<size_t>(reply.source)];
  if (reply.failure != DnsFailure::kNone) {
    ++stats_.failures[static_cast<size_t>(reply.failure)];
  }
  waiter->done(reply);
}

// `job` has ended; null: an expired answer is told meanwhile.
DnsReply ResolverImpl::ReplyOf(const Job* job, const Waiter& waiter,
                               MutableBytes out) {
  DnsReply reply;
  reply.query = &waiter.query;
  reply.coalesced = waiter.coalesced;
  reply.latency = now_ - waiter.started;
  // As the rules are now: they may have changed meanwhile.
  const dns::PolicyDecision decision =
      policy_.Decide(waiter.query, waiter.client);
  if (decision.action == dns::PolicyAction::kBlock) {
    ByPolicy(waiter.query, decision, /*of_answer=*/false, waiter.limit, out,
             &reply);
  } else if (job != nullptr && job->failure == DnsFailure::kNone) {
    ReplyWithAnswer(*job, waiter, decision, out, &reply);
  } else {
    reply.failure = job != nullptr ? job->failure : DnsFailure::kTimeout;
    const auto hit = waiter.rewrite_to
                         ? std::nullopt
                         : cache_.Find(KeyOf(waiter.query, waiter.group), now_);
    if (!hit || !FromCache(waiter.query, waiter.client, decision, waiter.group,
                           *hit, waiter.limit, out, &reply)) {
      reply.message =
          dns::WriteErrorAnswer(waiter.query, dns::Rcode::kServFail, out,
                                reply.failure == DnsFailure::kTimeout
                                    ? dns::ExtendedError::kNoReachableAuthority
                                    : dns::ExtendedError::kNetworkError);
    }
  }
  if (reply.message.size() >= 4) reply.rcode = Load8(&reply.message[3]) & 0x0F;
  return reply;
}

void ResolverImpl::ReplyWithAnswer(const Job& job, const Waiter& waiter,
                                   const dns::PolicyDecision& decision,
                                   MutableBytes out, DnsReply* reply) {
  reply->source = DnsSource::kUpstream;
  if (job.answered_by != nullptr) {
    reply->upstream = job.answered_by->options.name;
  }
  const auto view = dns::ParseAnswer(job.answer.message());
  if (waiter.rewrite_to) {
    std::vector<IpAddress> addresses;
    if (view) {
      for (const dns::AnswerAddress& a : view->Addresses()) {
        if (!a.is_hint) addresses.push_back(a.ip);
      }
    }
    reply->action = dns::PolicyAction::kRewrite;
    reply->source = DnsSource::kPolicy;
    reply->policy = dns::PolicySource::kRule;
    rule_text_ = std::string(decision.by);
    reply->rule = rule_text_;
    reply->message = dns::WriteRewriteAnswer(
        waiter.query, &*waiter.rewrite_to, addresses, decision.ttl,
        out.first(std::min(out.size(), waiter.limit)));
    if (reply->message.empty()) {
      reply->message = dns::WriteTruncatedAnswer(waiter.query, out);
    }
    return;
  }
  if (view) {
    const dns::PolicyDecision of_answer =
        policy_.DecideAnswer(decision, waiter.client, *view);
    if (of_answer.action == dns::PolicyAction::kBlock) {
      ByPolicy(waiter.query, of_answer, /*of_answer=*/true, waiter.limit, out,
               reply);
      return;
    }
  }
  dns::WriteOptions options;
  options.limit = waiter.limit;
  reply->message = dns::WriteAnswer(waiter.query, job.answer, options, out);
}

void ResolverImpl::Cancel(QueryId id) {
  // The job goes on: its answer is for the cache, and others may wait.
  if (waiters_.erase(id) != 0) ++stats_.cancelled;
}

// --- upstreams --------------------------------------------------------------

std::unique_ptr<Upstream> ResolverImpl::NewUpstream(
    const DnsUpstreamOptions& options) {
  auto upstream = std::make_unique<Upstream>();
  upstream->options = options;
  std::string host = options.server;
  switch (options.kind) {
    case DnsUpstreamKind::kPlain:
    case DnsUpstreamKind::kTcp:
      upstream->port = options.port != 0 ? options.port : 53;
      break;
    case DnsUpstreamKind::kTls:
      upstream->port = options.port != 0 ? options.port : 853;
      upstream->encrypted = true;
      break;
    case DnsUpstreamKind::kHttps: {
      const auto url = ParseHttpsUrl(options.server);
      host = url->host;
      upstream->port = url->port;
      upstream->encrypted = true;
      break;
    }
    case DnsUpstreamKind::kSystem:
      upstream->configured_addresses = true;
      break;
  }
  std::vector<IpAddress> addresses = options.addresses;
  if (const auto literal = IpAddress::Parse(host)) addresses = {*literal};
  for (const IpAddress& ip : addresses) {
    upstream->addresses.push_back({ip, upstream->port});
    upstream->configured_addresses = true;
  }
  if (!upstream->configured_addresses) {
    upstream->host = *dns::DnsName::FromText(host);
  }
  upstream->transport = NewTransport(*upstream);
  return upstream;
}

std::unique_ptr<Transport> ResolverImpl::NewTransport(
    const Upstream& upstream) {
  const DnsUpstreamOptions& o = upstream.options;
  const auto url = ParseHttpsUrl(o.server);
  if (o.kind == DnsUpstreamKind::kHttps) {
    HttpsTransport::Options https;
    https.url = url->url;
    https.host = url->host;
    https.port = url->port;
    https.pins = o.pins;
    https.get = o.http_get;
    https.headers = o.http_headers;
    https.timeout = options_.query_timeout + seconds(1);
    return std::make_unique<HttpsTransport>(https_.get(), this,
                                            std::move(https));
  }
  StreamTransport::Parts parts;
  parts.dialer = parts_.dialer;
  parts.watch = &watch_;
  parts.ids = &ids_;
  parts.listener = this;
  parts.scratch = scratch_;
  StreamTransport::Options stream;
  stream.max_connections = options_.max_connections;
  stream.idle = options_.connection_idle;
  if (o.kind == DnsUpstreamKind::kTls) {
    stream.tls = tls_.get();
    stream.peer.name = o.tls_name.empty() ? o.server : o.tls_name;
    for (const std::string& pin : o.pins) {
      stream.peer.pins.push_back(DecodePin(pin));
    }
  }
  auto tcp = std::make_unique<StreamTransport>(parts, std::move(stream));
  if (o.kind == DnsUpstreamKind::kTls || o.kind == DnsUpstreamKind::kTcp) {
    return tcp;
  }
  UdpTransport::Parts udp;
  udp.dialer = parts_.dialer;
  udp.watch = &watch_;
  udp.ids = &ids_;
  udp.listener = this;
  udp.scratch = scratch_;
  return std::make_unique<UdpTransport>(udp, options_.max_udp_sockets,
                                        std::move(tcp));
}

void ResolverImpl::Configure(const DnsResolverOptions& options, Instant now) {
  now_ = now;
  touched_ = true;
  // What transports were made with.
  const bool keep = system_ != nullptr && options.ca_file == options_.ca_file &&
                    options.max_udp_sockets == options_.max_udp_sockets &&
                    options.max_connections == options_.max_connections &&
                    options.connection_idle == options_.connection_idle &&
                    options.query_timeout == options_.query_timeout;
  const bool same_servers =
      options.bootstrap_servers == options_.bootstrap_servers;
  std::vector<std::unique_ptr<Upstream>> old = std::exchange(upstreams_, {});
  if (!keep || !same_servers) {
    if (bootstrap_ != nullptr) old.push_back(std::move(bootstrap_));
  }
  if (!keep && system_ != nullptr) old.push_back(std::move(system_));
  options_ = options;
  cache_.Configure(options.cache);
  std::vector<std::unique_ptr<Upstream>> kept;
  for (const DnsUpstreamOptions& wanted : options.upstreams) {
    const auto it =
        !keep ? old.end()
              : std::find_if(old.begin(), old.end(), [&](const auto& u) {
                  return u != nullptr && u->options == wanted;
                });
    kept.push_back(it == old.end() ? nullptr : std::move(*it));
  }
  for (const auto& upstream : old) {
    if (upstream != nullptr) Forget(upstream.get());
  }
  old.clear();  // before the TLS context that they use
  if (!keep) {
    https_.reset();
    tls_.reset();
  }
  MakeTls();
  for (size_t i = 0; i < kept.size(); ++i) {
    upstreams_.push_back(kept[i] != nullptr
                             ? std::move(kept[i])
                             : NewUpstream(options.upstreams[i]));
  }
  if (system_ == nullptr) {
    DnsUpstreamOptions system;
    system.name = std::string(kSystemName);
    system.kind = DnsUpstreamKind::kSystem;
    system_ = NewUpstream(system);
  }
  if (bootstrap_ == nullptr && !options.bootstrap_servers.empty()) {
    DnsUpstreamOptions bootstrap;
    bootstrap.name = std::string(kBootstrapName);
    bootstrap.server = options.bootstrap_servers[0].ip.ToString();
    bootstrap_ = NewUpstream(bootstrap);
    bootstrap_->addresses = options.bootstrap_servers;
  }
  MakeGroups();
}

void ResolverImpl::MakeTls() {
  const bool wanted =
      std::any_of(options_.upstreams.begin(), options_.upstreams.end(),
                  [](const DnsUpstreamOptions& u) {
                    return u.kind == DnsUpstreamKind::kTls ||
                           u.kind == DnsUpstreamKind::kHttps;
                  });
  if (!wanted || tls_ != nullptr) return;
  auto made = TlsContext::Create(options_.ca_file);
  // Without certificates nobody is trusted: every handshake fails and says
  // so, and the others of the group answer.
  tls_ = made.ok() ? *std::move(made) : TlsContext::CreateTrustingNobody();
  HttpsClient::Parts parts;
  parts.dialer = parts_.dialer;
  parts.watch = &watch_;
  parts.tls = tls_.get();
  parts.idle = options_.connection_idle;
  https_ = std::make_unique<HttpsClient>(parts);
}

void ResolverImpl::MakeGroups() {
  const auto named = [&](const std::string& name) {
    for (const auto& upstream : upstreams_) {
      if (upstream->options.name == name) return upstream.get();
    }
    return system_.get();
  };
  std::vector<std::unique_ptr<Group>> old = std::exchange(groups_, {});
  for (const DnsGroupOptions& wanted : options_.groups) {
    auto group = std::make_unique<Group>();
    group->name = wanted.name;
    for (const std::string& name : wanted.upstreams) {
      group->upstreams.push_back(named(name));
    }
    groups_.push_back(std::move(group));
  }
  default_group_ = nullptr;
  if (options_.default_group.empty()) {
    auto all = std::make_unique<Group>();
    for (const auto& upstream : upstreams_) {
      all->upstreams.push_back(upstream.get());
    }
    default_group_ = all.get();
    groups_.push_back(std::move(all));
  } else {
    default_group_ = GroupNamed(options_.default_group);
  }
  for (const auto& group : groups_) {
    if (group->upstreams.empty()) group->upstreams = {system_.get()};
    group->number = NumberOf(group->name);
  }
  system_group_.name = "\nsystem";
  system_group_.upstreams = {system_.get()};
  system_group_.number = NumberOf(system_group_.name);
  // A name that no configured group has.
  bootstrap_group_.name = "\nbootstrap";
  bootstrap_group_.upstreams = {bootstrap_ != nullptr ? bootstrap_.get()
                                                      : system_.get()};
  // Questions under way are asked of the new ones.
  for (const auto& [key, job] : jobs_) {
    if (job->group != &bootstrap_group_ && job->group != &system_group_) {
      job->group = GroupNamed(job->group->name);
    }
    job->order = OrderOf(*job->group);
    job->next = 0;
    job->round = 0;
    if (!job->Waits()) job->next_try = now_;
    wheel_.Arm(job.get(), std::min(job->next_try, job->deadline));
  }
}

// Answers are kept per group; a number means the same as long as we run.
uint16_t ResolverImpl::NumberOf(const std::string& group) {
  const auto next = static_cast<uint16_t>(group_numbers_.size());
  return group_numbers_.try_emplace(group, next).first->second;
}

// Nothing refers to it any more.
void ResolverImpl::Forget(Upstream* upstream) {
  for (const auto& [key, job] : jobs_) {
    for (Attempt& attempt : job->attempts) {
      if (attempt.upstream != upstream || !attempt.active) continue;
      exchanges_.erase(attempt.id);
      upstream->transport->Cancel(attempt.id, /*silent=*/false);
    }
    std::erase_if(job->attempts,
                  [&](const Attempt& a) { return a.upstream == upstream; });
    std::erase(job->order, upstream);
    std::erase(job->lookups, upstream);
    if (job->bad_answer_by == upstream) job->bad_answer = {};
  }
  for (const auto& job : done_) {
    std::erase(job->lookups, upstream);
    if (job->answered_by != upstream) continue;
    // Its answer is as good as before, its name is not to be had any more.
    job->answered_by = system_ != nullptr ? system_.get() : nullptr;
  }
}

void ResolverImpl::RefreshSystem(Upstream* upstream) {
  if (now_ < upstream->addresses_expire &&
      upstream->addresses_expire != kNever) {
    return;
  }
  upstream->addresses_expire = now_ + kSystemEvery;
  std::vector<Endpoint> servers = options_.system_servers;
  if (servers.empty()) servers = system_dns_->Servers();
  // Ours would come back to us.
  std::erase_if(servers, [&](const Endpoint& e) {
    return std::any_of(
        options_.own_prefixes.begin(), options_.own_prefixes.end(),
        [&](const IpPrefix& p) { return p.length != 0 && p.Contains(e.ip); });
  });
  if (servers == upstream->found) return;  // their order may be ours by now
  upstream->found = servers;
  upstream->addresses = std::move(servers);
}

// A and AAAA of its host name, from the bootstrap servers.
void ResolverImpl::StartLookup(Upstream* upstream) {
  ++stats_.bootstraps;
  upstream->found.clear();
  upstream->found_ttl = UINT32_MAX;
  for (const uint16_t type : {dns::type::kA, dns::type::kAaaa}) {
    dns::Query query;
    query.name = upstream->host;
    query.type = type;
    Job* job = FindOrStart(query, &bootstrap_group_);
    if (job == nullptr) continue;
    job->lookups.push_back(upstream);
    ++upstream->lookups;
  }
}

void ResolverImpl::OnLookup(Upstream* upstream, const Job& job) {
  --upstream->lookups;
  const auto view = dns::ParseAnswer(job.answer.message());
  if (view) {
    for (const dns::AnswerAddress& address : view->Addresses()) {
      if (address.is_hint) continue;
      upstream->found.push_back({address.ip, upstream->port});
      upstream->found_ttl = std::min(upstream->found_ttl, address.ttl);
    }
  }
  if (upstream->lookups > 0) return;
  if (!upstream->found.empty()) {
    // IPv4 first: where both are broken in silence, IPv6 is so more often.
    std::stable_sort(upstream->found.begin(), upstream->found.end(),
                     [](const Endpoint& a, const Endpoint& b) {
                       return a.ip.IsV4() && !b.ip.IsV4();
                     });
    upstream->addresses = std::exchange(upstream->found, {});
    upstream->addresses_expire =
        now_ + seconds(std::max(upstream->found_ttl, kMinAddressTtl));
  }
  // Not with every query, when nobody knows the name.
  if (now_ >= upstream->addresses_expire) {
    upstream->addresses_expire = now_ + kLookupAgain;
  }
  SendParked(upstream);
}

void ResolverImpl::SendParked(Upstream* upstream) {
  for (const ExchangeId id : std::exchange(upstream->parked, {})) {
    const auto it = exchanges_.find(id);
    if (it == exchanges_.end()) continue;  // the job has ended
    Job* job = it->second;
    const auto attempt =
        std::find_if(job->attempts.begin(), job->attempts.end(),
                     [&](const Attempt& a) { return a.id == id; });
    attempt->sent = now_;
    attempt->parked = false;
    const auto error = SendTo(job, &*attempt, /*fresh=*/false);
    if (error) OnFailed(id, *error, "");
  }
}

void ResolverImpl::OnNetworkChanged(Instant now) {
  now_ = now;
  touched_ = true;
  ForEachUpstream([&](Upstream* upstream) {
    upstream->health.Forget();
    upstream->latency = {};
    upstream->edns_again = {};
    // The old addresses serve until others are known. The system's are looked
    // at before the next query.
    upstream->addresses_expire = now;
    upstream->transport->Reset(now);
  });
  for (const auto& [key, job] : jobs_) {
    job->attempts.clear();
    job->next = 0;
    job->round = 0;
    job->vain_rounds = 0;
  }
  // What Reset() told: each job goes on with its first upstream.
  for (const Event& event : std::exchange(events_, {})) {
    exchanges_.erase(event.id);
  }
  ForEachUpstream([](Upstream* upstream) {
    upstream->parked.clear();
    upstream->in_flight = 0;
  });
  exchanges_.clear();
  for (const auto& [key, job] : jobs_) {
    job->next_try = now;
    wheel_.Arm(job.get(), now);
  }
}

size_t ResolverImpl::FlushCache(absl::string_view name, bool below) {
  if (name.empty()) return cache_.FlushAll();
  const auto parsed = dns::DnsName::FromText(name);
  return parsed ? cache_.Flush(*parsed, below) : 0;
}

void ResolverImpl::Shutdown(Instant now) {
  now_ = now;
  shut_ = true;
  std::vector<Job*> jobs;
  for (const auto& [key, job] : jobs_) jobs.push_back(job.get());
  for (Job* job : jobs) {
    job->lookups.clear();
    GiveUp(job);
  }
  Deliver();
  ForEachUpstream([&](Upstream* u) { u->transport->Reset(now); });
  events_.clear();
  wake_ = kNever;
  touched_ = false;
}

DnsStats ResolverImpl::stats() const {
  DnsStats stats = stats_;
  stats.in_flight = static_cast<uint32_t>(jobs_.size());
  stats.waiting = static_cast<uint32_t>(waiters_.size());
  stats.sockets = parts_.dialer->in_use();
  stats.cache = cache_.stats();
  return stats;
}

std::vector<DnsUpstreamInfo> ResolverImpl::Upstreams(Instant now) const {
  std::vector<DnsUpstreamInfo> all;
  ForEachUpstream([&](const Upstream* upstream) {
    const bool implied =
        upstream == system_.get() || upstream == bootstrap_.get();
    if (!implied || upstream->queries != 0) all.push_back(upstream->Info(now));
  });
  return all;
}

}  // namespace

std::unique_ptr<Resolver> Resolver::Create(const Parts& parts,
                                           const DnsResolverOptions& options,
                                           Instant now) {
  auto resolver = std::make_unique<ResolverImpl>(parts, now);
  resolver->Configure(options, now);
  return resolver;
}

}  // namespace netstack

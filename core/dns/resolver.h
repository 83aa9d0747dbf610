// Answers questions: policy, then cache, then upstreams.
//
//   DnsQuestion q;
//   q.client = flow.source;
//   q.message = datagram;
//   Resolver::Result r = resolver.Resolve(q, now, [this, cookie](
//       const DnsReply& reply) { Send(cookie, reply.message); });
//   if (r.reply) Send(cookie, r.reply->message);   // known at once
//
// Loop thread only. Nothing here blocks. The loop calls OnSocket() for every
// event of PollToken::Kind::kDns and OnTurn() once per turn, after the events,
// and sleeps no longer than until next_deadline(). An idle resolver has none.
//
// Callbacks run inside OnTurn() and Shutdown() only, never inside Resolve() or
// Cancel(). They may call Resolve() and Cancel(), nothing else here; `rule` of
// their reply is valid until then, the rest of it until they return.
#ifndef CORE_DNS_RESOLVER_H_
#define CORE_DNS_RESOLVER_H_

#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/strings/string_view.h"
#include "core/base/bytes.h"
#include "core/base/siphash.h"
#include "core/base/time.h"
#include "core/dial/dialer.h"
#include "core/dns/blocklist.h"
#include "core/dns/cache.h"
#include "core/dns/message.h"
#include "core/dns/policy.h"
#include "core/dns/resolver_options.h"
#include "core/platform/poller.h"
#include "core/platform/system_dns.h"
#include "core/wire/ip_address.h"

namespace netstack {

enum class DnsTransport : uint8_t { kUdp, kTcp };

// Who gave the answer.
enum class DnsSource : uint8_t {
  kPolicy,  // a rule or a list: blocked or rewritten
  kCache,
  kUpstream,
  kFailure,  // ours: SERVFAIL, FORMERR and the like
};
inline constexpr absl::string_view kDnsSourceNames[] = {"policy", "cache",
                                                        "upstream", "failure"};
static_assert(std::size(kDnsSourceNames) ==
              static_cast<size_t>(DnsSource::kFailure) + 1);

// Why an answer is ours and not a server's.
enum class DnsFailure : uint8_t {
  kNone,
  kMalformed,     // FORMERR, NOTIMP, BADVERS, REFUSED: see dns::QueryFault
  kTimeout,       // SERVFAIL: nobody answered within the query's time
  kUnreachable,   // SERVFAIL: every upstream failed at once
  kBusy,          // SERVFAIL: max_in_flight or max_waiting is reached
  kNoDescriptor,  // SERVFAIL: no socket left
  kNoUpstream,    // SERVFAIL: the group has none, e.g. no system resolver
};
inline constexpr absl::string_view kDnsFailureNames[] = {
    "none", "malformed",     "timeout",    "unreachable",
    "busy", "no_descriptor", "no_upstream"};
static_assert(std::size(kDnsFailureNames) ==
              static_cast<size_t>(DnsFailure::kNoUpstream) + 1);

struct DnsQuestion {
  Endpoint client;
  // Whom the app meant to ask; for the log.
  Endpoint server;
  DnsTransport transport = DnsTransport::kUdp;
  // A whole DNS message without TCP's length. Not kept.
  Bytes message;
  // Bytes that an answer may have on its way to the app; over UDP what the
  // query itself permits counts too. A larger one becomes its question with
  // TC set, and the app comes again over TCP.
  size_t limit = 65535;
};

struct DnsReply {
  // Ready for the app: the query's id, its question as the app spelled it, an
  // OPT record exactly when the query had one. Empty: nothing may be answered
  // (the query was none, but an answer or too short).
  Bytes message;
  // The query, checked; null when it could not be parsed.
  const dns::Query* query = nullptr;
  DnsSource source = DnsSource::kFailure;
  DnsFailure failure = DnsFailure::kNone;
  uint8_t rcode = 0;           // of the header
  bool stale = false;          // older than its TTL (RFC 8767)
  bool coalesced = false;      // somebody else's question was the same
  absl::string_view upstream;  // its name, with kUpstream
  // What the policy did, with kPolicy, and whether the name that was asked for
  // or what the answer led to made it do so.
  dns::PolicyAction action = dns::PolicyAction::kPass;
  dns::PolicySource policy = dns::PolicySource::kNone;
  bool of_answer = false;
  absl::string_view rule;  // the rule or list that decided; may be empty
  Duration latency{};      // since Resolve()
};

struct DnsUpstreamInfo {
  std::string name;
  DnsUpstreamKind kind = DnsUpstreamKind::kPlain;
  std::string server;               // as configured
  std::vector<Endpoint> addresses;  // in use, the preferred one first
  bool up = true;
  uint32_t consecutive_failures = 0;
  Duration next_probe{};   // with !up: from now
  std::string last_error;  // a sentence; empty when there was none

  uint64_t queries = 0;
  uint64_t answers = 0;
  uint64_t timeouts = 0;      // no answer when the query ended
  uint64_t failures = 0;      // refused, unreachable, reset, HTTP errors
  uint64_t bad_rcodes = 0;    // answers in failover_rcodes
  uint64_t mismatched = 0;    // forged or late: another id or question
  uint64_t tls_failures = 0;  // certificate, name, pin or handshake
  uint64_t truncated = 0;     // asked again over TCP
  uint64_t connections = 0;   // opened: TCP, TLS, HTTPS
  uint64_t resumed = 0;       // of these by a TLS session ticket
  uint32_t in_flight = 0;
  uint32_t sockets = 0;
  // Of the last 256 answers; zero when there is none.
  Duration smoothed{};
  Duration p50{};
  Duration p90{};
  Duration p99{};
};

struct DnsStats {
  uint64_t queries = 0;       // Resolve()
  uint64_t replies[4] = {};   // by DnsSource
  uint64_t failures[7] = {};  // by DnsFailure
  uint64_t coalesced = 0;
  uint64_t cancelled = 0;
  uint64_t hedged = 0;       // a second upstream asked by hedge_delay
  uint64_t failed_over = 0;  // another upstream asked, whyever
  uint64_t stale = 0;        // served so
  uint64_t failed_open = 0;  // asked in the clear because of fail_open
  uint64_t bootstraps = 0;   // host names of upstreams looked up
  uint32_t in_flight = 0;    // different questions
  uint32_t waiting = 0;      // apps
  uint32_t sockets = 0;
  dns::Cache::Stats cache;
};

// What the engine tells its observer. Called inside OnTurn(); not to call back.
class ResolverListener {
 public:
  virtual ~ResolverListener() = default;
  virtual void OnUpstreamHealth(absl::string_view upstream, bool up,
                                absl::string_view why) = 0;
  // fail_open has let a query out in the clear; told at most every 10 s.
  virtual void OnFailedOpen(absl::string_view group) = 0;
};

class Resolver {
 public:
  // All outlive the resolver. The dialer is the resolver's own, so that DNS
  // has its share of descriptors: its max_sockets bounds what is open here.
  struct Parts {
    Dialer* dialer = nullptr;
    Poller* poller = nullptr;
    ResolverListener* listener = nullptr;  // may be null
    // Random bits that nobody else knows: ids are made of them.
    SipHashKey secret;
    SystemDns* system_dns = nullptr;  // null: the host's own
  };

  using QueryId = uint64_t;  // never 0, never used twice
  using Callback = absl::AnyInvocable<void(const DnsReply&)>;

  struct Result {
    // Set: the answer was known; it is valid until the next call here, and
    // `done` is not called. Else `id` says what is under way.
    std::optional<DnsReply> reply;
    QueryId id = 0;
  };

  static std::unique_ptr<Resolver> Create(const Parts& parts,
                                          const DnsResolverOptions& options,
                                          Instant now);
  virtual ~Resolver() = default;

  // `done` is called once, within query_timeout, unless Cancel() came first.
  virtual Result Resolve(const DnsQuestion& question, Instant now,
                         Callback done) = 0;
  // The app is gone. No effect when the answer was delivered.
  virtual void Cancel(QueryId id) = 0;

  // `options` have passed Validate(). Queries under way go on; upstreams that
  // are configured as before keep their connections and health.
  virtual void Configure(const DnsResolverOptions& options, Instant now) = 0;
  // Another network: connections are opened anew, addresses of upstreams
  // looked up again, health forgotten. Queries under way are asked again.
  virtual void OnNetworkChanged(Instant now) = 0;
  // What happens to names; in force from the next query and the next answer
  // on, for cached ones too.
  virtual void SetRules(std::shared_ptr<const dns::RuleSet> rules) = 0;
  virtual void SetBlocklist(std::shared_ptr<const dns::Blocklist> list) = 0;
  // How many answers were forgotten: of `name`, and of what is below it if
  // `below`; all of them with an empty name, none with one that is no name.
  virtual size_t FlushCache(absl::string_view name, bool below) = 0;
  // Every query is answered with SERVFAIL, inside this call; every socket is
  // closed.
  virtual void Shutdown(Instant now) = 0;

  virtual void OnSocket(const PollEvent& event, Instant now) = 0;
  virtual void OnTurn(Instant now) = 0;
  virtual Instant next_deadline() const = 0;

  virtual DnsStats stats() const = 0;
  virtual std::vector<DnsUpstreamInfo> Upstreams(Instant now) const = 0;
};

}  // namespace netstack

#endif  // CORE_DNS_RESOLVER_H_

#include "core/dns/interceptor.h"

#include <string>

#include "core/dns/verdict.h"

namespace netstack::dns {
namespace {

// What a UDP datagram can carry: 65,535 less the headers of IPv4 and UDP.
constexpr size_t kMaxDatagram = 65507;
constexpr size_t kLoggedAddresses = 8;
constexpr size_t kFlagsAt = 2;
constexpr uint8_t kTruncated = 0x02;  // in the first byte of the flags

bool IsTruncated(Bytes message) {
  return message.size() > kFlagsAt &&
         (Load8(message.data() + kFlagsAt) & kTruncated) != 0;
}

}  // namespace

Interceptor::Interceptor(const Parts& parts, const Options& options,
                         Instant now)
    : parts_(parts),
      options_(options),
      streams_(parts.sockets, parts.poller, this, options.streams, now) {}

Interceptor::~Interceptor() = default;

void Interceptor::Configure(const Options& options) {
  options_ = options;
  streams_.Configure(options.streams);
}

// --- outbound: from apps to the resolver ------------------------------------

void Interceptor::OnDatagram(const Endpoint& app, const Endpoint& server,
                             Bytes payload, Instant now) {
  Pending from;
  from.app = app;
  from.server = server;
  if (!HasRoom()) {
    ++stats_.dropped;
    parts_.drops->Count(DropReason::kDnsInFlightLimit);
    return;
  }
  ++stats_.udp_queries;
  if (!Ask(from, payload, now)) parts_.drops->Count(DropReason::kNoMemory);
}

void Interceptor::AskFromStream(const StreamRef& from, const Endpoint& app,
                                const Endpoint& server, Bytes query,
                                Instant now) {
  Pending pending;
  pending.app = app;
  pending.server = server;
  pending.transport = DnsTransport::kTcp;
  pending.stream = from;
  ++stats_.tcp_queries;
  if (!Ask(pending, query, now)) streams_.Answer(from, {}, now);
}

bool Interceptor::Ask(const Pending& from, Bytes query, Instant now) {
  Pending* pending = pending_.Allocate();
  if (pending == nullptr) return false;
  const uint32_t index = pending->index, generation = pending->generation;
  *pending = from;
  pending->index = index;
  pending->generation = generation;
  pending->asked = now;

  DnsQuestion question;
  question.client = from.app;
  question.server = from.server;
  question.transport = from.transport;
  question.message = query;
  if (from.transport == DnsTransport::kUdp) question.limit = kMaxDatagram;
  const Resolver::Result result = parts_.resolver->Resolve(
      question, now, [this, index, generation](const DnsReply& later) {
        Pending* p = pending_.Find(index, generation);
        if (p == nullptr) return;
        const Pending to = *p;
        pending_.Free(p);
        OnReply(to, later, to.asked + later.latency);
      });
  if (result.reply) {
    const Pending to = *pending;
    pending_.Free(pending);
    OnReply(to, *result.reply, now);
  }
  return true;
}

// --- way back: from the resolver to apps ------------------------------------

void Interceptor::OnReply(const Pending& to, const DnsReply& reply,
                          Instant now) {
  if (reply.failure == DnsFailure::kMalformed) {
    if (reply.message.empty()) {
      ++stats_.not_queries;
      parts_.drops->Count(DropReason::kDnsNotQuery);
    } else {
      ++stats_.malformed;
    }
  } else if (!reply.message.empty()) {
    Learn(to, reply, now);
  }
  if (log_) Log(to, reply);
  if (to.transport == DnsTransport::kTcp) {
    return streams_.Answer(to.stream, reply.message, now);
  }
  if (reply.message.empty()) return;
  if (IsTruncated(reply.message)) ++stats_.truncated;
  parts_.sink->SendAnswer(to.server, to.app, reply.message);
}

// The addresses of an answer, and the name that the app asked for: before the
// answer leaves, so that the flow that follows it is known.
void Interceptor::Learn(const Pending& to, const DnsReply& reply, Instant now) {
  if (reply.query == nullptr || reply.source == DnsSource::kFailure ||
      reply.action == dns::PolicyAction::kBlock) {
    return;
  }
  if (reply.query->type != type::kA && reply.query->type != type::kAaaa &&
      reply.query->type != type::kHttps && reply.query->type != type::kSvcb) {
    return;
  }
  const OrFault<AnswerView, AnswerFault> view = ParseAnswer(reply.message);
  if (!view) return;
  parts_.addresses->Learn(to.app.ip, reply.query->name, view->Addresses(), now);
}

void Interceptor::Log(const Pending& to, const DnsReply& reply) {
  DnsQueryInfo info;
  info.app = to.app;
  info.server = to.server;
  info.tcp = to.transport == DnsTransport::kTcp;
  if (reply.query != nullptr) {
    info.name = reply.query->name.ToString();
    info.type = reply.query->type;
  }
  info.verdict = VerdictOf(reply);
  info.matched = std::string(reply.rule);
  info.upstream = std::string(reply.upstream);
  info.cached = reply.source == DnsSource::kCache;
  info.stale = reply.stale;
  info.rcode = reply.rcode;
  info.latency = reply.latency;
  if (const auto view = ParseAnswer(reply.message)) {
    for (const AnswerAddress& a : view->Addresses(kLoggedAddresses)) {
      info.addresses.push_back(a.ip);
    }
  }
  parts_.sink->OnQuery(info);
}

Interceptor::Stats Interceptor::stats() const {
  Stats s = stats_;
  s.waiting = pending_.size();
  s.streams = streams_.stats();
  return s;
}

}  // namespace netstack::dns

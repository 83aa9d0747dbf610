#include "core/engine/dns_front.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/dns/verdict.h"
#include "core/engine/dns_options.h"

namespace netstack {
namespace {

constexpr uint16_t kDotPort = 853;
constexpr uint16_t kHttpsPort = 443;
constexpr uint32_t kLeastShare = 32, kMostShare = 1024;

dns::AddressPolicy::Options AddressOptions(const DnsConfig& config) {
  dns::AddressPolicy::Options o;
  o.enforce = config.enabled && config.address_policy.enabled;
  o.grace = config.address_policy.grace;
  o.max_addresses = config.address_policy.max_addresses;
  o.exempt = config.address_policy.exempt;
  return o;
}

Resolver::Parts ResolverParts(const DnsFront::Parts& parts,
                              SystemDns* system_dns, Dialer* dialer,
                              ResolverListener* listener,
                              const SipHashKey& secret) {
  Resolver::Parts p;
  p.dialer = dialer;
  p.poller = parts.poller;
  p.system_dns = system_dns;
  p.listener = listener;
  p.secret = secret;
  return p;
}

}  // namespace

void NetworkDns::Use(const std::vector<IpAddress>& servers) {
  named_.clear();
  for (const IpAddress& ip : servers) named_.push_back({ip, 53});
}

const std::vector<Endpoint>& NetworkDns::Servers() {
  if (!named_.empty() || system_ == nullptr) return named_;
  return system_->Servers();
}

uint32_t DnsFront::Share(const DnsConfig& config, uint32_t limit) {
  if (!config.enabled) return 0;
  const uint32_t wanted = config.limits.reserved_descriptors;
  if (wanted != 0) return std::min(wanted, limit / 2);
  return std::min(std::clamp(limit / 8, kLeastShare, kMostShare), limit / 4);
}

DnsFront::DnsFront(const Parts& parts, const Config& config,
                   const SipHashKey& secret, Instant now)
    : parts_(parts),
      secret_(secret),
      config_(config.dns),
      network_dns_(parts.system_dns),
      dialer_(parts.sockets, Dialer::Options{}),
      addresses_(AddressOptions(config.dns), secret),
      resolver_(Resolver::Create(
          ResolverParts(parts, &network_dns_, &dialer_, this, secret),
          ToResolverOptions(config), now)),
      interceptor_({resolver_.get(), &addresses_, parts.sockets, parts.poller,
                    parts.drops, this},
                   InterceptorOptions(), now) {}

DnsFront::~DnsFront() = default;

dns::Interceptor::Options DnsFront::InterceptorOptions() const {
  dns::Interceptor::Options o;
  o.max_waiting = config_.limits.max_waiting;
  o.streams.max_connections = max_streams_;
  o.streams.max_in_flight = config_.limits.max_in_flight_per_connection;
  o.streams.idle = config_.limits.connection_idle;
  return o;
}

void DnsFront::Configure(const Config& config, uint32_t share, Instant now) {
  config_ = config.dns;
  // Half of the share is for upstreams; a connection of an app takes two.
  max_streams_ =
      std::min(config_.limits.max_connections, std::max(share / 4, 1u));
  Dialer::Options dial;
  dial.max_sockets = std::max(share / 2, 1u);
  dialer_.Configure(dial);
  addresses_.Configure(AddressOptions(config_));
  resolver_->Configure(ToResolverOptions(config), now);
  const std::shared_ptr<const dns::RuleSet> rules =
      dns::RuleSet::Create(ToPolicyOptions(config), secret_);
  policy_.SetRules(rules);
  resolver_->SetRules(rules);
  interceptor_.Configure(InterceptorOptions());
  quic_names_.clear();
  for (const std::string& text : config_.leaks.quic_names) {
    if (auto pattern = dns::DomainPattern::Parse(text)) {
      quic_names_.push_back(*std::move(pattern));
    }
  }
}

void DnsFront::SetLists(DnsLists lists) {
  lists_ = std::move(lists);
  // Without lists one that blocks nothing.
  if (lists_.list == nullptr) lists_.list = std::make_shared<dns::Blocklist>();
  policy_.SetBlocklist(lists_.list);
  resolver_->SetBlocklist(lists_.list);
}

// --- outbound ---------------------------------------------------------------

void DnsFront::OnDatagram(const Packet& packet, const UdpDatagram& datagram,
                          Instant now) {
  const Endpoint app{packet.source, datagram.source_port};
  const Endpoint server{packet.destination, datagram.destination_port};
  if (dialer_.IsOwnDial(app, server)) {
    // Answered, it would be asked again, and so on without end.
    parts_.drops->Count(DropReason::kLoop);
    parts_.listener->OnDnsLoop();
    return;
  }
  interceptor_.OnDatagram(app, server, datagram.payload, now);
}

int DnsFront::Connect(const FlowKey& key, Instant now) {
  return interceptor_.streams().Open(key.app, key.remote, now);
}

FlowAdvice DnsFront::Advise(const FlowKey& key, Instant now) {
  return Judge(key, now, true, nullptr);
}

FlowAdvice DnsFront::Judge(const FlowKey& key, Instant now, bool counts,
                           std::vector<std::string>* reasons) {
  FlowAdvice advice;
  if (!config_.enabled) {
    if (reasons != nullptr) reasons->push_back("DNS is off (dns.enabled).");
    return advice;
  }
  const auto refuse = [&](DropReason reason, std::string why) {
    if (!advice.refusal) advice.refusal = reason;
    if (reasons != nullptr) reasons->push_back(std::move(why));
  };
  const absl::string_view name =
      addresses_.NameOf(key.app.ip, key.remote.ip, now);
  if (!name.empty()) {
    if (last_name_ == nullptr || *last_name_ != name) {
      last_name_ = std::make_shared<const std::string>(name);
    }
    advice.name = last_name_;
    if (reasons != nullptr) {
      reasons->push_back(
          absl::StrCat("The address was answered for ", name, "."));
    }
  }
  if (config_.leaks.block_dot && key.remote.port == kDotPort) {
    refuse(DropReason::kDotBlocked,
           "Port 853 is DNS over TLS or QUIC, which dns.leaks.block_dot "
           "refuses.");
  }
  if (key.protocol == Protocol::kUdp && key.remote.port == kHttpsPort &&
      config_.leaks.block_quic != DnsQuicBlock::kNone) {
    const bool all = config_.leaks.block_quic == DnsQuicBlock::kAll;
    if (all || (advice.name != nullptr && IsQuicName(*advice.name))) {
      refuse(DropReason::kQuicBlocked,
             all ? "UDP 443 is QUIC, which dns.leaks.block_quic refuses."
                 : "UDP 443 is QUIC, which dns.leaks.quic_names refuses for "
                   "this name.");
    }
  }
  if (!config_.address_policy.enabled) return advice;
  using Verdict = dns::AddressPolicy::Verdict;
  // Check() counts refusals, which a dry run is not to do.
  const Verdict verdict = counts ? addresses_.Check(key.remote.ip, now)
                                 : addresses_.Peek(key.remote.ip, now);
  switch (verdict) {
    case Verdict::kExpired:
      refuse(DropReason::kAddressNotResolved,
             "DNS answered the address too long ago (dns.address_policy).");
      break;
    case Verdict::kUnknown:
      refuse(DropReason::kAddressNotResolved,
             "No answer of DNS held the address (dns.address_policy).");
      break;
    case Verdict::kExempt:
      if (reasons != nullptr) {
        reasons->push_back("dns.address_policy.exempt permits the address.");
      }
      break;
    case Verdict::kKnown:
    case Verdict::kNotEnforced:
      break;
  }
  return advice;
}

bool DnsFront::IsQuicName(absl::string_view name) const {
  const auto parsed = dns::DnsName::FromText(name);
  return parsed && std::any_of(quic_names_.begin(), quic_names_.end(),
                               [&](const dns::DomainPattern& pattern) {
                                 return pattern.Matches(*parsed);
                               });
}

// --- way back ---------------------------------------------------------------

void DnsFront::SendAnswer(const Endpoint& server, const Endpoint& app,
                          Bytes message) {
  InboundDatagram datagram;
  datagram.from = server;
  datagram.to = app;
  datagram.payload = message;
  // A full TUN: as if it were lost on the way; the app asks again.
  if (!parts_.writer->SendUdp(datagram)) {
    parts_.drops->Count(DropReason::kTunWriteFailed);
  }
}

void DnsFront::OnQuery(const dns::DnsQueryInfo& query) {
  dns::DnsQueryInfo shown = query;
  shown.upstream = ShownUpstream(query.upstream);
  parts_.listener->OnDnsQuery(shown);
}

void DnsFront::OnSocket(const PollEvent& event, Instant now) {
  if (event.token.kind == PollToken::Kind::kDnsStream) {
    interceptor_.streams().OnSocket(event, now);
  } else {
    resolver_->OnSocket(event, now);
  }
}

void DnsFront::OnTurn(Instant now) {
  resolver_->OnTurn(now);
  interceptor_.OnTurn(now);
}

Instant DnsFront::next_deadline() const {
  return std::min(resolver_->next_deadline(), interceptor_.next_deadline());
}

void DnsFront::OnNetworkChanged(const std::vector<IpAddress>& servers,
                                Instant now) {
  network_dns_.Use(servers);
  resolver_->OnNetworkChanged(now);
}

void DnsFront::Shutdown(Instant now) {
  resolver_->Shutdown(now);
  interceptor_.streams().Shutdown();
}

// --- for people -------------------------------------------------------------

void DnsFront::OnUpstreamHealth(absl::string_view upstream, bool up,
                                absl::string_view why) {
  parts_.listener->OnUpstreamHealth(ShownUpstream(upstream), up, why);
}

void DnsFront::OnFailedOpen(absl::string_view group) {
  parts_.listener->OnDnsFailedOpen(group);
}

std::string DnsFront::ShownUpstream(absl::string_view name) const {
  for (const DnsGroupConfig& group : config_.groups) {
    for (const DnsUpstreamConfig& upstream : group.upstreams) {
      if (UpstreamName(upstream) == name) {
        return upstream.shown.empty() ? upstream.address : upstream.shown;
      }
    }
  }
  return std::string(name);
}

size_t DnsFront::FlushCache(const std::string& name, bool below) {
  return resolver_->FlushCache(name, below);
}

DnsUpstreams DnsFront::ListUpstreams(Instant now) const {
  DnsUpstreams out;
  for (DnsUpstreamInfo& info : resolver_->Upstreams(now)) {
    DnsUpstreams::Upstream& u = out.upstreams.emplace_back();
    for (const DnsGroupConfig& group : config_.groups) {
      for (const DnsUpstreamConfig& upstream : group.upstreams) {
        if (UpstreamName(upstream) != info.name) continue;
        u.groups.push_back(group.name);
        break;
      }
    }
    info.name = ShownUpstream(info.name);
    u.info = std::move(info);
  }
  out.lists = lists_.infos;
  return out;
}

DnsExplanation DnsFront::Explain(const DnsExplainRequest& request,
                                 Instant now) {
  DnsExplanation out;
  if (!request.name.empty()) {
    ExplainName(request, out);
    return out;
  }
  FlowKey key;
  key.app = {request.app, 0};
  key.remote = request.address;
  key.protocol = request.protocol;
  if (key.protocol != Protocol::kIcmp && Takes(key)) {
    out.permitted = true;
    out.reasons.push_back("Port 53 is answered by the resolver itself.");
    return out;
  }
  const FlowAdvice advice = Judge(key, now, false, &out.reasons);
  out.permitted = !advice.refusal;
  if (advice.name != nullptr) out.led_by = *advice.name;
  if (out.permitted) out.reasons.push_back("It is let through.");
  return out;
}

void DnsFront::ExplainName(const DnsExplainRequest& request,
                           DnsExplanation& out) {
  const auto name = dns::DnsName::FromText(request.name);
  if (!config_.enabled || !name) {
    out.verdict = dns::DnsVerdict::kMalformed;
    out.reasons.push_back(config_.enabled ? "That is not a name."
                                          : "DNS is off (dns.enabled).");
    return;
  }
  const dns::PolicyDecision decision =
      policy_.Decide(*name, request.type, request.app);
  out.verdict = dns::VerdictOf(decision.action, decision.source, false);
  out.matched = std::string(decision.by);
  if (!decision.via.empty()) {
    absl::StrAppend(&out.matched, out.matched.empty() ? "" : ": ",
                    decision.via);
  }
  out.reasons.push_back(decision.Explain());
  if (decision.action != dns::PolicyAction::kPass) return;
  out.group = GroupOf(config_, decision);
  for (const DnsGroupConfig& group : config_.groups) {
    if (group.name != out.group) continue;
    for (const DnsUpstreamConfig& upstream : group.upstreams) {
      out.upstreams.push_back(ShownUpstream(UpstreamName(upstream)));
    }
  }
  if (out.upstreams.empty()) out.upstreams.push_back("system");
}

DnsFrontStats DnsFront::stats() const {
  return {interceptor_.stats(), resolver_->stats(), addresses_.stats()};
}

}  // namespace netstack

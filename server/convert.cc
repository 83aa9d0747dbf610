#include "server/convert.h"

#include <ctime>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/config_convert.h"

namespace netstack::server {
namespace {

void Fill(const Endpoint& e, v1::Endpoint* out) {
  out->set_address(e.ip.ToString());
  out->set_port(e.port);
}

void Fill(const TunStats& s, v1::TunStats* out) {
  out->set_outbound_packets(s.outbound_packets);
  out->set_outbound_bytes(s.outbound_bytes);
  out->set_inbound_packets(s.inbound_packets);
  out->set_inbound_bytes(s.inbound_bytes);
  out->set_reads(s.reads);
  out->set_writes(s.writes);
  out->set_write_blocked(s.write_blocked);
  out->set_outbound_merged(s.outbound_merged);
  out->set_tcp_packets(s.tcp_packets);
  out->set_udp_packets(s.udp_packets);
  out->set_icmp_packets(s.icmp_packets);
  out->set_other_packets(s.other_packets);
  out->set_fragments(s.fragments);
}

void Fill(const TcpStats& s, v1::TcpStats* out) {
  out->set_opened(s.opened);
  out->set_established(s.established);
  out->set_active(s.active);
  out->set_half_open(s.half_open);
  out->set_time_wait(s.time_wait);
  for (size_t i = 0; i < s.closed.size(); ++i) {
    v1::CloseCount* c = out->add_closed();
    c->set_reason(ToProto(static_cast<CloseReason>(i)));
    c->set_flows(s.closed[i]);
  }
  out->set_outbound_bytes(s.outbound_bytes);
  out->set_inbound_bytes(s.inbound_bytes);
  out->set_resets_sent(s.resets_sent);
  out->set_icmp_errors_sent(s.icmp_errors_sent);
  out->set_retransmits(s.retransmits);
  out->set_lwip_asserts(s.lwip_asserts);
}

void Fill(const UdpStats& s, v1::UdpStats* out) {
  out->set_opened(s.opened);
  out->set_active(s.active);
  out->set_mappings(s.mappings);
  for (size_t i = 0; i < s.closed.size(); ++i) {
    v1::CloseCount* c = out->add_closed();
    c->set_reason(ToProto(static_cast<CloseReason>(i)));
    c->set_flows(s.closed[i]);
  }
  out->set_outbound_bytes(s.outbound_bytes);
  out->set_inbound_bytes(s.inbound_bytes);
  out->set_outbound_datagrams(s.outbound_datagrams);
  out->set_inbound_datagrams(s.inbound_datagrams);
  out->set_outbound_batches(s.outbound_batches);
  out->set_inbound_batches(s.inbound_batches);
  out->set_send_calls(s.send_calls);
  out->set_receive_calls(s.receive_calls);
  out->set_hairpinned(s.hairpinned);
  out->set_host_errors(s.host_errors);
  out->set_resent(s.resent);
  out->set_ports_preserved(s.ports_preserved);
}

void Fill(const FragmentStats& s, v1::FragmentStats* out) {
  out->set_reassembled(s.reassembled);
  out->set_used(s.used);
  out->set_timed_out(s.timed_out);
  out->set_evicted(s.evicted);
  out->set_overlapped(s.overlapped);
  out->set_held(s.held);
  out->set_datagrams(s.datagrams);
  out->set_bytes(s.bytes);
}

void Fill(const IcmpStats& s, v1::IcmpStats* out) {
  out->set_opened(s.opened);
  out->set_evicted(s.evicted);
  out->set_requests(s.requests);
  out->set_replies(s.replies);
  out->set_errors_passed(s.errors_passed);
  out->set_gateway_echoes(s.gateway_echoes);
  out->set_outbound_bytes(s.outbound_bytes);
  out->set_inbound_bytes(s.inbound_bytes);
  out->set_sockets(s.sockets);
  out->set_active(s.active);
}

void Fill(const DialStats& s, v1::DialStats* out) {
  out->set_attempts(s.attempts);
  out->set_connected(s.connected);
  out->set_refused(s.refused);
  out->set_unreachable(s.unreachable);
  out->set_timed_out(s.timed_out);
  out->set_protect_failed(s.protect_failed);
  out->set_no_descriptor(s.no_descriptor);
  out->set_other_errors(s.other_errors);
  out->set_protect_asked(s.protect_asked);
  out->set_protect_refused(s.protect_refused);
  out->set_protect_unanswered(s.protect_unanswered);
  out->set_pool_hits(s.pool_hits);
  out->set_pool_misses(s.pool_misses);
  out->set_pool_ready(s.pool_ready);
  out->set_protecting(s.protecting);
}

void Fill(const MemoryStats& s, v1::MemoryStats* out) {
  out->set_buffered(s.buffered);
  out->set_buffered_peak(s.buffered_peak);
  out->set_budget(s.budget);
  out->set_pressure(s.pressure);
  out->set_flow_records(s.flow_records);
  out->set_allocation_failures(s.allocation_failures);
}

void Fill(const LoopStats& s, v1::LoopStats* out) {
  out->set_wakeups(s.wakeups);
  out->set_turns(s.turns);
  ToProto(s.longest_turn, out->mutable_longest_turn());
  ToProto(s.busy, out->mutable_busy());
}

void Fill(const DnsFrontStats& s, v1::DnsStats* out) {
  const auto replies = [&s](DnsSource source) {
    return s.resolver.replies[static_cast<size_t>(source)];
  };
  const auto failures = [&s](DnsFailure failure) {
    return s.resolver.failures[static_cast<size_t>(failure)];
  };
  out->set_udp_queries(s.asked.udp_queries);
  out->set_tcp_queries(s.asked.tcp_queries);
  out->set_answered_policy(replies(DnsSource::kPolicy));
  out->set_answered_cache(replies(DnsSource::kCache));
  out->set_answered_upstream(replies(DnsSource::kUpstream));
  out->set_answered_failure(replies(DnsSource::kFailure));
  out->set_malformed(s.asked.malformed);
  out->set_timed_out(failures(DnsFailure::kTimeout));
  out->set_unreachable(failures(DnsFailure::kUnreachable));
  out->set_busy(failures(DnsFailure::kBusy));
  out->set_no_descriptor(failures(DnsFailure::kNoDescriptor));
  out->set_no_upstream(failures(DnsFailure::kNoUpstream));
  out->set_not_queries(s.asked.not_queries);
  out->set_dropped(s.asked.dropped);
  out->set_truncated(s.asked.truncated);
  out->set_coalesced(s.resolver.coalesced);
  out->set_hedged(s.resolver.hedged);
  out->set_failed_over(s.resolver.failed_over);
  out->set_stale(s.resolver.stale);
  out->set_failed_open(s.resolver.failed_open);
  out->set_waiting(s.asked.waiting);
  out->set_in_flight(s.resolver.in_flight);
  out->set_sockets(s.resolver.sockets);
  out->set_connections(s.asked.streams.connections);
  out->set_connections_opened(s.asked.streams.opened);
  out->set_connections_refused(s.asked.streams.refused);
  out->set_connections_broken(s.asked.streams.broken);
  out->set_connections_idle(s.asked.streams.idle);
  out->set_connections_paused(s.asked.streams.paused);
  out->set_cache_entries(s.resolver.cache.entries);
  out->set_cache_bytes(s.resolver.cache.bytes);
  out->set_cache_evicted(s.resolver.cache.evicted);
  out->set_cache_prefetches(s.resolver.cache.prefetches);
  out->set_addresses(s.addresses.addresses);
  out->set_names(s.addresses.names);
  out->set_refused_unknown(s.addresses.refused_unknown);
  out->set_refused_expired(s.addresses.refused_expired);
}

v1::DnsTransport TransportOf(DnsUpstreamKind kind) {
  switch (kind) {
    case DnsUpstreamKind::kPlain:
      return v1::DNS_TRANSPORT_PLAIN;
    case DnsUpstreamKind::kTcp:
      return v1::DNS_TRANSPORT_TCP;
    case DnsUpstreamKind::kTls:
      return v1::DNS_TRANSPORT_DOT;
    case DnsUpstreamKind::kHttps:
      return v1::DNS_TRANSPORT_DOH;
    case DnsUpstreamKind::kSystem:
      return v1::DNS_TRANSPORT_SYSTEM;
  }
  return v1::DNS_TRANSPORT_UNSPECIFIED;
}

void ReadPrefix(const char* field, const std::string& text,
                std::optional<IpPrefix>& out,
                std::vector<ConfigProblem>& problems) {
  if (text.empty()) return;
  out = IpPrefix::Parse(text);
  if (out) return;
  problems.push_back(
      {field, absl::StrCat("\"", text, "\" is neither an address nor a prefix "
                                       "like 10.0.0.0/8 or fd00::/8.")});
}

void ReadPort(const char* field, bool has, uint32_t value,
              std::optional<uint16_t>& out,
              std::vector<ConfigProblem>& problems) {
  if (!has) return;
  if (value <= 65535) {
    out = static_cast<uint16_t>(value);
    return;
  }
  problems.push_back(
      {field, absl::StrCat(value, " is not between 0 and 65535.")});
}

}  // namespace

void ToProto(const FlowKey& key, v1::FlowKey* out) {
  out->set_protocol(static_cast<v1::Protocol>(key.protocol));
  Fill(key.app, out->mutable_app());
  Fill(key.remote, out->mutable_remote());
}

void ToProto(const FlowOwner& owner, v1::FlowOwner* out) {
  if (owner.uid) out->set_uid(*owner.uid);
  out->set_package(owner.package);
  if (owner.pid) out->set_pid(*owner.pid);
  out->set_process(owner.process);
}

void ToProto(const FlowInfo& flow, v1::Flow* out) {
  if (flow.owner.known()) ToProto(flow.owner, out->mutable_owner());
  out->set_id(flow.id);
  ToProto(flow.key, out->mutable_key());
  out->set_state(ToProto(flow.state));
  out->set_close_reason(ToProto(flow.close_reason));
  if (flow.upstream_local.port != 0) {
    Fill(flow.upstream_local, out->mutable_upstream_local());
  }
  ToProto(flow.age, out->mutable_age());
  ToProto(flow.idle, out->mutable_idle());
  out->set_outbound_bytes(flow.outbound_bytes);
  out->set_inbound_bytes(flow.inbound_bytes);
  out->set_outbound_packets(flow.outbound_packets);
  out->set_inbound_packets(flow.inbound_packets);
  out->set_outbound_buffered(flow.outbound_buffered);
  out->set_inbound_buffered(flow.inbound_buffered);
  if (flow.rtt != Duration::zero()) ToProto(flow.rtt, out->mutable_rtt());
  if (flow.dial_time != Duration::zero()) {
    ToProto(flow.dial_time, out->mutable_dial_time());
  }
  out->set_name(flow.name);
}

void ToProto(const Stats& stats, v1::Stats* out) {
  ToProto(stats.uptime, out->mutable_uptime());
  Fill(stats.tun, out->mutable_tun());
  Fill(stats.tcp, out->mutable_tcp());
  Fill(stats.udp, out->mutable_udp());
  Fill(stats.fragments, out->mutable_fragments());
  Fill(stats.icmp, out->mutable_icmp());
  Fill(stats.dial, out->mutable_dial());
  Fill(stats.memory, out->mutable_memory());
  Fill(stats.loop, out->mutable_loop());
  Fill(stats.dns, out->mutable_dns());
  out->set_flow_limit(stats.flow_limit);
  out->set_descriptors_used(stats.descriptors_used);
  for (size_t i = 0; i < stats.drops.size(); ++i) {
    v1::DropCount* d = out->add_drops();
    d->set_reason(ToProto(static_cast<DropReason>(i)));
    d->set_packets(stats.drops[i]);
  }
}

std::vector<ConfigProblem> FromProto(const v1::FlowFilter& filter,
                                     FlowFilter* out) {
  std::vector<ConfigProblem> problems;
  if (filter.has_id()) out->id = filter.id();
  if (filter.protocol() != v1::PROTOCOL_UNSPECIFIED) {
    if (v1::Protocol_IsValid(filter.protocol())) {
      out->protocol = static_cast<Protocol>(filter.protocol());
    } else {
      problems.push_back({"filter.protocol", "not a known protocol."});
    }
  }
  if (filter.state() != v1::FLOW_STATE_UNSPECIFIED) {
    if (v1::FlowState_IsValid(filter.state())) {
      out->state = static_cast<FlowState>(filter.state() - 1);
    } else {
      problems.push_back({"filter.state", "not a known state."});
    }
  }
  ReadPrefix("filter.app", filter.app(), out->app, problems);
  ReadPrefix("filter.remote", filter.remote(), out->remote, problems);
  ReadPort("filter.app_port", filter.has_app_port(), filter.app_port(),
           out->app_port, problems);
  ReadPort("filter.remote_port", filter.has_remote_port(),
           filter.remote_port(), out->remote_port, problems);
  if (filter.has_uid()) out->uid = filter.uid();
  out->package = filter.package();
  if (filter.has_active_within()) {
    Duration within{};
    if (FromProto(filter.active_within(), &within) &&
        within > Duration::zero()) {
      out->active_within = within;
    } else {
      problems.push_back({"filter.active_within", "not more than 0."});
    }
  }
  out->name_suffix = absl::AsciiStrToLower(filter.name_suffix());
  absl::string_view suffix = out->name_suffix;
  if (absl::ConsumeSuffix(&suffix, ".") || absl::ConsumePrefix(&suffix, ".")) {
    out->name_suffix = std::string(suffix);
  }
  return problems;
}

void ToProto(const dns::DnsQueryInfo& query, v1::DnsQuery* out) {
  // When it came: the answer is just being told.
  google::protobuf::Timestamp time = Now();
  const int64_t nanos = time.seconds() * 1'000'000'000 + time.nanos() -
                        query.latency.count();
  out->mutable_time()->set_seconds(nanos / 1'000'000'000);
  out->mutable_time()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  Fill(query.app, out->mutable_app());
  Fill(query.server, out->mutable_server());
  out->set_tcp(query.tcp);
  out->set_name(query.name);
  out->set_type(query.type);
  out->set_verdict(ToProto(query.verdict));
  out->set_matched(query.matched);
  out->set_upstream(query.upstream);
  out->set_cached(query.cached);
  out->set_stale(query.stale);
  out->set_rcode(query.rcode);
  ToProto(query.latency, out->mutable_latency());
  for (const IpAddress& ip : query.addresses) {
    out->add_addresses(ip.ToString());
  }
}

void ToProto(const DnsUpstreams::Upstream& upstream,
             v1::DnsUpstreamStatus* out) {
  const DnsUpstreamInfo& u = upstream.info;
  for (const std::string& group : upstream.groups) out->add_groups(group);
  out->set_address(u.name);
  out->set_transport(TransportOf(u.kind));
  for (const Endpoint& e : u.addresses) Fill(e, out->add_endpoints());
  out->set_up(u.up);
  if (!u.up) ToProto(u.next_probe, out->mutable_next_probe());
  out->set_consecutive_failures(u.consecutive_failures);
  out->set_last_error(u.last_error);
  out->set_queries(u.queries);
  out->set_answers(u.answers);
  out->set_timeouts(u.timeouts);
  out->set_failures(u.failures);
  out->set_bad_rcodes(u.bad_rcodes);
  out->set_mismatched(u.mismatched);
  out->set_tls_failures(u.tls_failures);
  out->set_truncated(u.truncated);
  out->set_connections(u.connections);
  out->set_resumed(u.resumed);
  out->set_in_flight(u.in_flight);
  out->set_sockets(u.sockets);
  if (u.answers == 0) return;
  ToProto(u.smoothed, out->mutable_latency());
  ToProto(u.p50, out->mutable_p50());
  ToProto(u.p90, out->mutable_p90());
  ToProto(u.p99, out->mutable_p99());
}

google::protobuf::Timestamp Now() {
  timespec ts{};
  clock_gettime(CLOCK_REALTIME, &ts);
  google::protobuf::Timestamp out;
  out.set_seconds(ts.tv_sec);
  out.set_nanos(static_cast<int32_t>(ts.tv_nsec));
  return out;
}

}  // namespace netstack::server

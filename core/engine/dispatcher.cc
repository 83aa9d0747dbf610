#include "core/engine/dispatcher.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace netstack {
namespace {

constexpr uint16_t kDnsPort = 53;

// Addresses that no packet of a unicast conversation may have. Loopback is
// one: through us an app would reach services of our own host (RFC 1122,
// 3.2.1.3; RFC 4291, 2.5.3).
bool IsBadAddress(const IpAddress& ip) {
  return ip.IsUnspecified() || ip.IsLoopback();
}

}  // namespace

Dispatcher::Dispatcher(std::vector<IpPrefix> prefixes, TcpForwarder* tcp,
                       IcmpResponder* icmp, TunStats* stats,
                       DropCounters* drops)
    : prefixes_(std::move(prefixes)),
      tcp_(tcp),
      icmp_(icmp),
      stats_(stats),
      drops_(drops) {}

void Dispatcher::OnPacket(MutableBytes bytes, ChecksumTrust trust) {
  const Decision d = Decide(bytes, trust);
  if (d.packet.protocol != 0) CountProtocol(d.packet);
  switch (d.verdict) {
    case Verdict::kTcp:
      tcp_->OnSegment(d.packet, d.segment, now_);
      return;
    case Verdict::kRefuse:
      drops_->Count(d.reason);
      (void)icmp_->Answer(IcmpError::kProhibited, d.packet, now_);
      return;
    case Verdict::kDrop:
      drops_->Count(d.reason);
      return;
  }
}

Dispatcher::Decision Dispatcher::Decide(Bytes bytes,
                                        ChecksumTrust trust) const {
  Decision d;
  const OrDrop<Packet> packet = ParsePacket(bytes);
  if (!packet) {
    d.reason = packet.reason();
    return d;
  }
  d.packet = *packet;
  const Packet& p = d.packet;
  const auto drop = [&d](DropReason reason) {
    d.verdict = Verdict::kDrop;
    d.reason = reason;
    return d;
  };
  const auto refuse = [&d](DropReason reason) {
    d.verdict = Verdict::kRefuse;
    d.reason = reason;
    return d;
  };
  if (IsBadAddress(p.source) || IsBadAddress(p.destination) ||
      p.source.IsMulticast() || p.source.IsLimitedBroadcast()) {
    return drop(DropReason::kBadAddress);
  }
  if (p.destination.IsMulticast() || p.destination.IsLimitedBroadcast()) {
    return drop(DropReason::kMulticast);
  }
  if (!IsOurs(p.source)) return drop(DropReason::kSourceNotOurs);
  if (p.is_fragment) return drop(DropReason::kFragment);

  switch (p.protocol) {
    case ip_protocol::kTcp: {
      const OrDrop<TcpSegment> segment = ParseTcp(p, trust);
      if (!segment) return drop(segment.reason());
      d.segment = *segment;
      d.verdict = Verdict::kTcp;
      return d;
    }
    case ip_protocol::kUdp: {
      // The UDP forwarder and the DNS interceptor will stand here.
      const std::optional<Ports> ports = PeekPorts(p);
      return refuse(ports && ports->destination == kDnsPort
                        ? DropReason::kDnsUnsupported
                        : DropReason::kUdpUnsupported);
    }
    case ip_protocol::kIcmp:
    case ip_protocol::kIcmpV6:
      // The ICMP forwarder will stand here.
      return drop(DropReason::kIcmpUnsupported);
    default:
      return refuse(DropReason::kUnknownProtocol);
  }
}

bool Dispatcher::IsOurs(const IpAddress& source) const {
  return prefixes_.empty() ||
         std::any_of(
             prefixes_.begin(), prefixes_.end(),
             [&source](const IpPrefix& p) { return p.Contains(source); });
}

void Dispatcher::CountProtocol(const Packet& packet) {
  if (packet.is_fragment) ++stats_->fragments;
  switch (packet.protocol) {
    case ip_protocol::kTcp:
      ++stats_->tcp_packets;
      return;
    case ip_protocol::kUdp:
      ++stats_->udp_packets;
      return;
    case ip_protocol::kIcmp:
    case ip_protocol::kIcmpV6:
      ++stats_->icmp_packets;
      return;
    default:
      ++stats_->other_packets;
      return;
  }
}

}  // namespace netstack

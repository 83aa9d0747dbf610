#include "core/engine/dispatcher.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace netstack {
namespace {

// Addresses that no packet of a unicast conversation may have. Loopback is
// one: through us an app would reach services of our own host (RFC 1122,
// 3.2.1.3; RFC 4291, 2.5.3).
bool IsBadAddress(const IpAddress& ip) {
  return ip.IsUnspecified() || ip.IsLoopback();
}

}  // namespace

Dispatcher::Dispatcher(std::vector<IpPrefix> prefixes, const Parts& parts)
    : prefixes_(std::move(prefixes)), parts_(parts) {}

void Dispatcher::OnPacket(MutableBytes bytes, ChecksumTrust trust,
                          uint16_t udp_segment) {
  Decision d = Decide(bytes, trust);
  d.udp_segment = udp_segment;
  if ((d.verdict == Verdict::kUdp || d.verdict == Verdict::kDns) &&
      udp_segment != 0 &&
      d.datagram.payload.size() > kMaxUdpSegments * udp_segment) {
    d.verdict = Verdict::kDrop;
    d.reason = DropReason::kBadUdpHeader;
  }
  if (d.packet.protocol != 0) CountProtocol(d.packet);
  Act(d);
}

void Dispatcher::Act(const Decision& d) {
  switch (d.verdict) {
    case Verdict::kTcp:
      parts_.tcp->OnSegment(d.packet, d.segment, now_);
      return;
    case Verdict::kUdp:
      parts_.udp->OnDatagram(d.packet, d.datagram, d.udp_segment, now_);
      return;
    case Verdict::kEcho:
      parts_.echoes->OnEcho(d.packet, d.icmp, now_);
      return;
    case Verdict::kFragment:
      OnFragment(d.packet);
      return;
    case Verdict::kTimeExceeded:
      parts_.drops->Count(d.reason);
      (void)parts_.icmp->Answer(IcmpError::kTimeExceeded, d.packet, now_);
      return;
    case Verdict::kDns:
      OnDns(d);
      return;
    case Verdict::kRefuse:
      parts_.drops->Count(d.reason);
      (void)parts_.icmp->Answer(d.refusal, d.packet, now_);
      return;
    case Verdict::kDrop:
      parts_.drops->Count(d.reason);
      return;
  }
}

// A batch (TunRead::udp_segment) is as many messages as datagrams.
void Dispatcher::OnDns(const Decision& d) {
  const Bytes payload = d.datagram.payload;
  const size_t step = d.udp_segment == 0 ? payload.size() : d.udp_segment;
  UdpDatagram one = d.datagram;
  size_t done = 0;
  do {
    one.payload = payload.subspan(done, std::min(step, payload.size() - done));
    parts_.dns->OnDatagram(d.packet, one, now_);
    done += step;
  } while (done < payload.size());
}

// The reassembler counts what it does not keep.
void Dispatcher::OnFragment(const Packet& fragment) {
  const Reassembler::Result result = parts_.reassembler->Add(fragment, now_);
  if (result.complaint) {
    IcmpAnswer answer;
    answer.exact = result.complaint;
    (void)parts_.icmp->Answer(answer, fragment, now_);
  }
  if (result.whole.empty()) return;
  // Its fragments have been counted, and nobody vouches for the whole.
  Decision d = Decide(result.whole, ChecksumTrust::kVerify);
  if (d.verdict == Verdict::kFragment) {
    // A fragment of fragments: no stack makes that.
    d.verdict = Verdict::kDrop;
    d.reason = DropReason::kBadFragment;
  }
  // The app let it be fragmented; so may those behind us.
  d.packet.dont_fragment = false;
  Act(d);
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
  const auto decide = [&d](Verdict verdict, DropReason reason) {
    d.verdict = verdict;
    d.reason = reason;
    return d;
  };
  if (IsBadAddress(p.source) || IsBadAddress(p.destination) ||
      p.source.IsMulticast() || p.source.IsLimitedBroadcast()) {
    return decide(Verdict::kDrop, DropReason::kBadAddress);
  }
  if (!IsOurs(p.source)) {
    return decide(Verdict::kDrop, DropReason::kSourceNotOurs);
  }
  if (p.destination.IsMulticast() || p.destination.IsLimitedBroadcast()) {
    // Groups are joined and left on links: where the UDP forwarder sends them
    // to one, it stands for the app there, and the TTL, mostly 1, is the
    // link's.
    if (p.protocol != ip_protocol::kUdp || p.is_fragment) {
      return decide(Verdict::kDrop, DropReason::kMulticast);
    }
    DecideByTransport(trust, d);
    return d;
  }
  // We are one hop (RFC 1812, 5.2.3; RFC 8200, 3): every packet, also of TCP
  // and fragments, has to have one to spend, but those that end here.
  const bool for_gateway =
      p.destination == parts_.icmp->gateway().Of(p.is_v4);
  if (p.ttl <= 1 && !for_gateway) {
    return decide(Verdict::kTimeExceeded, DropReason::kTtlExpired);
  }
  if (p.is_fragment) {
    d.verdict = Verdict::kFragment;
    return d;
  }
  DecideByTransport(trust, d);
  if (for_gateway) DecideForGateway(d);
  return d;
}

// Our own address answers echoes and names; it is nobody's on the host side.
void Dispatcher::DecideForGateway(Decision& d) const {
  const bool is_dns = parts_.dns != nullptr && d.verdict == Verdict::kTcp &&
                      parts_.dns->TakesUdp(d.segment.destination_port);
  switch (d.verdict) {
    case Verdict::kTcp:
      if (is_dns) return;
      d.refusal = IcmpError::kPortUnreachable;
      break;
    case Verdict::kUdp:
      d.refusal = IcmpError::kPortUnreachable;
      break;
    case Verdict::kRefuse:
      d.refusal = IcmpError::kProtocolUnreachable;
      return;
    default:
      return;
  }
  d.verdict = Verdict::kRefuse;
  d.reason = DropReason::kBadAddress;
}

void Dispatcher::DecideByTransport(ChecksumTrust trust, Decision& d) const {
  const auto decide = [&d](Verdict verdict, DropReason reason) {
    d.verdict = verdict;
    d.reason = reason;
  };
  switch (d.packet.protocol) {
    case ip_protocol::kTcp: {
      const OrDrop<TcpSegment> segment = ParseTcp(d.packet, trust);
      if (!segment) return decide(Verdict::kDrop, segment.reason());
      d.segment = *segment;
      d.verdict = Verdict::kTcp;
      return;
    }
    case ip_protocol::kUdp: {
      const OrDrop<UdpDatagram> datagram = ParseUdp(d.packet, trust);
      if (!datagram) return decide(Verdict::kDrop, datagram.reason());
      d.datagram = *datagram;
      const bool is_dns = parts_.dns != nullptr &&
                          parts_.dns->TakesUdp(datagram->destination_port);
      d.verdict = is_dns ? Verdict::kDns : Verdict::kUdp;
      return;
    }
    case ip_protocol::kIcmp:
    case ip_protocol::kIcmpV6:
      return DecideIcmp(trust, d);
    default:
      return decide(Verdict::kRefuse, DropReason::kUnknownProtocol);
  }
}

void Dispatcher::DecideIcmp(ChecksumTrust trust, Decision& d) const {
  const auto drop = [&d](DropReason reason) {
    d.verdict = Verdict::kDrop;
    d.reason = reason;
  };
  // One family's ICMP in the other is nothing that we know.
  if ((d.packet.protocol == ip_protocol::kIcmp) != d.packet.is_v4) {
    return drop(DropReason::kIcmpNotCarried);
  }
  const OrDrop<IcmpMessage> icmp = ParseIcmp(d.packet, trust);
  if (!icmp) return drop(icmp.reason());
  switch (FateOfIcmp(*icmp, d.packet.is_v4)) {
    case IcmpFate::kEcho:
      d.icmp = *icmp;
      d.verdict = Verdict::kEcho;
      return;
    case IcmpFate::kError:
      return drop(DropReason::kIcmpErrorFromApp);
    case IcmpFate::kNotCarried:
      return drop(DropReason::kIcmpNotCarried);
  }
}

bool Dispatcher::IsOurs(const IpAddress& source) const {
  return prefixes_.empty() ||
         std::any_of(
             prefixes_.begin(), prefixes_.end(),
             [&source](const IpPrefix& p) { return p.Contains(source); });
}

void Dispatcher::CountProtocol(const Packet& packet) {
  if (packet.is_fragment) ++parts_.stats->fragments;
  switch (packet.protocol) {
    case ip_protocol::kTcp:
      ++parts_.stats->tcp_packets;
      return;
    case ip_protocol::kUdp:
      ++parts_.stats->udp_packets;
      return;
    case ip_protocol::kIcmp:
    case ip_protocol::kIcmpV6:
      ++parts_.stats->icmp_packets;
      return;
    default:
      ++parts_.stats->other_packets;
      return;
  }
}

}  // namespace netstack

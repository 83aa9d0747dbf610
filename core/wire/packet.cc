#include "core/wire/packet.h"

#include <algorithm>

#include "core/wire/checksum.h"
#include "core/wire/headers.h"

namespace netstack {
namespace {

// IPv6 extension headers (RFC 8200, section 4; RFC 4302).
constexpr uint8_t kHopByHop = 0;
constexpr uint8_t kRouting = 43;
constexpr uint8_t kFragment = 44;
constexpr uint8_t kAuthentication = 51;
constexpr uint8_t kDestinationOptions = 60;
constexpr int kMaxExtensionHeaders = 8;


OrDrop<Packet> ParseV4(Bytes bytes) {
  if (bytes.size() < kIpV4HeaderSize) return DropReason::kTooShort;
  const std::byte* h = bytes.data();
  const size_t header_size = (Load8(h) & 0x0Fu) * 4;
  const size_t total = Load16(h + 2);
  if (header_size < kIpV4HeaderSize || total < header_size) {
    return DropReason::kBadIpHeader;
  }
  if (total > bytes.size()) return DropReason::kTooShort;
  if (Checksum(bytes.first(header_size)) != 0) {
    return DropReason::kBadIpChecksum;
  }
  const uint16_t fragment = Load16(h + 6);
  Packet packet;
  packet.bytes = bytes.first(total);
  packet.transport = packet.bytes.subspan(header_size);
  packet.source = IpAddress::V4(h + 12);
  packet.destination = IpAddress::V4(h + 16);
  packet.protocol = Load8(h + 9);
  packet.protocol_at = 9;
  packet.ttl = Load8(h + 8);
  packet.tos = Load8(h + 1);
  packet.is_v4 = true;
  packet.dont_fragment = (fragment & 0x4000) != 0;
  packet.is_fragment = (fragment & 0x3FFF) != 0;  // MF or an offset
  packet.fragment_offset = static_cast<uint16_t>((fragment & 0x1FFF) * 8);
  packet.more_fragments = (fragment & 0x2000) != 0;
  packet.fragment_id = Load16(h + 4);
  return packet;
}

// Walks the extension headers: moves packet.transport behind them and sets
// protocol and fragment fields. False: BAD_EXTENSION_HEADER. `first`: how many
// headers there were before.
bool WalkExtensionHeaders(Packet& packet, int first = 0) {
  for (int i = first;; ++i) {
    const uint8_t type = packet.protocol;
    if (type != kHopByHop && type != kRouting && type != kFragment &&
        type != kAuthentication && type != kDestinationOptions) {
      return true;
    }
    const Bytes rest = packet.transport;
    if (i == kMaxExtensionHeaders || rest.size() < 8) return false;
    if (type == kHopByHop && i > 0) return false;

    size_t size = (Load8(&rest[1]) + size_t{1}) * 8;
    if (type == kFragment) size = kFragmentHeaderSize;
    if (type == kAuthentication) size = (Load8(&rest[1]) + size_t{2}) * 4;
    if (size > rest.size()) return false;
    // Segments left: the destination is only a stop on the way.
    if (type == kRouting && Load8(&rest[3]) != 0) return false;

    if (type == kFragment) packet.fragment_named_at = packet.protocol_at;
    packet.protocol = Load8(&rest[0]);
    packet.protocol_at =
        static_cast<uint16_t>(packet.bytes.size() - rest.size());
    packet.transport = rest.subspan(size);
    if (type == kFragment) {
      const uint16_t field = Load16(&rest[2]);
      packet.is_fragment = (field & 0xFFF9) != 0;  // M or an offset
      packet.fragment_offset = field & 0xFFF8;
      packet.more_fragments = (field & 1) != 0;
      packet.fragment_id = Load32(&rest[4]);
      if (packet.is_fragment) return true;
    }
  }
}

OrDrop<Packet> ParseV6(Bytes bytes) {
  if (bytes.size() < kIpV6HeaderSize) return DropReason::kTooShort;
  const std::byte* h = bytes.data();
  const size_t total = kIpV6HeaderSize + Load16(h + 4);
  if (total > bytes.size()) return DropReason::kTooShort;
  Packet packet;
  packet.bytes = bytes.first(total);
  packet.transport = packet.bytes.subspan(kIpV6HeaderSize);
  packet.source = IpAddress::V6(h + 8);
  packet.destination = IpAddress::V6(h + 24);
  if (packet.source.IsV4() || packet.destination.IsV4()) {
    return DropReason::kBadAddress;
  }
  packet.protocol = Load8(h + 6);
  packet.protocol_at = 6;
  packet.ttl = Load8(h + 7);
  packet.tos = static_cast<uint8_t>((Load16(h) >> 4) & 0xFF);
  packet.is_v4 = false;
  if (!WalkExtensionHeaders(packet)) return DropReason::kBadExtensionHeader;
  return packet;
}

}  // namespace

OrDrop<Packet> ParsePacket(Bytes bytes) {
  if (bytes.empty()) return DropReason::kTooShort;
  const uint8_t version = Load8(bytes.data()) >> 4;
  if (version == 4) return ParseV4(bytes);
  if (version == 6) return ParseV6(bytes);
  return DropReason::kBadIpVersion;
}

OrDrop<TcpSegment> ParseTcp(const Packet& packet, ChecksumTrust trust) {
  const Bytes bytes = packet.transport;
  if (bytes.size() < kTcpHeaderSize) return DropReason::kTooShort;
  const std::byte* h = bytes.data();
  const size_t header_size = (Load8(h + 12) >> 4) * size_t{4};
  TcpSegment tcp;
  tcp.source_port = Load16(h);
  tcp.destination_port = Load16(h + 2);
  tcp.seq = Load32(h + 4);
  tcp.ack = Load32(h + 8);
  tcp.flags = Load8(h + 13);
  tcp.window = Load16(h + 14);
  if (header_size < kTcpHeaderSize || header_size > bytes.size() ||
      tcp.source_port == 0 || tcp.destination_port == 0 ||
      (tcp.Has(tcp_flag::kSyn) &&
       tcp.Has(tcp_flag::kFin | tcp_flag::kRst))) {
    return DropReason::kBadTcpHeader;
  }
  if (trust == ChecksumTrust::kVerify) {
    ChecksumAccumulator sum =
        PseudoHeader(packet.source, packet.destination, ip_protocol::kTcp,
                     static_cast<uint32_t>(bytes.size()));
    sum.Add(bytes);
    if (sum.Finish() != 0) return DropReason::kBadTransportChecksum;
  }
  tcp.options = bytes.subspan(kTcpHeaderSize, header_size - kTcpHeaderSize);
  tcp.payload = bytes.subspan(header_size);
  return tcp;
}

bool HoldsTransportHeader(const Packet& first_fragment) {
  Packet p = first_fragment;
  if (!p.is_v4) {
    // Whatever stands here, it is not the first header of the packet.
    if (!WalkExtensionHeaders(p, 1)) return false;
    if (p.fragment_named_at != first_fragment.fragment_named_at) return false;
  }
  const Bytes rest = p.transport;
  size_t needed = 8;
  if (p.protocol == ip_protocol::kTcp) {
    if (rest.size() < kTcpHeaderSize) return false;
    needed = std::max(kTcpHeaderSize, (Load8(&rest[12]) >> 4) * size_t{4});
  }
  return rest.size() >= needed;
}

OrDrop<IcmpMessage> ParseIcmp(const Packet& packet, ChecksumTrust trust) {
  const Bytes bytes = packet.transport;
  if (bytes.size() < kIcmpHeaderSize) return DropReason::kTooShort;
  if (trust == ChecksumTrust::kVerify) {
    // ICMP has no pseudo-header, ICMPv6 has (RFC 4443, 2.3).
    ChecksumAccumulator sum;
    if (!packet.is_v4) {
      sum = PseudoHeader(packet.source, packet.destination,
                         ip_protocol::kIcmpV6,
                         static_cast<uint32_t>(bytes.size()));
    }
    sum.Add(bytes);
    if (sum.Finish() != 0) return DropReason::kBadTransportChecksum;
  }
  IcmpMessage icmp;
  icmp.type = Load8(&bytes[0]);
  icmp.code = Load8(&bytes[1]);
  icmp.checksum = Load16(&bytes[2]);
  icmp.id = Load16(&bytes[4]);
  icmp.seq = Load16(&bytes[6]);
  icmp.payload = bytes.subspan(kIcmpHeaderSize);
  return icmp;
}

OrDrop<SynOptions> ParseSynOptions(Bytes options) {
  // Kinds and their whole lengths (RFC 9293, 3.2; RFC 7323, 2.2; RFC 2018, 2).
  constexpr uint8_t kEnd = 0, kNop = 1, kMss = 2, kScale = 3, kSack = 4;
  constexpr size_t kMssSize = 4, kScaleSize = 3, kSackSize = 2;
  constexpr uint16_t kMinMss = 536;
  constexpr uint8_t kMaxScale = 14;

  SynOptions result;
  while (!options.empty()) {
    const uint8_t kind = Load8(options.data());
    if (kind == kEnd) break;
    if (kind == kNop) {
      options = options.subspan(1);
      continue;
    }
    if (options.size() < 2) return DropReason::kBadTcpOptions;
    const size_t size = Load8(&options[1]);
    if (size < 2 || size > options.size()) return DropReason::kBadTcpOptions;
    if ((kind == kMss && size != kMssSize) ||
        (kind == kScale && size != kScaleSize) ||
        (kind == kSack && size != kSackSize)) {
      return DropReason::kBadTcpOptions;
    }
    if (kind == kMss) result.mss = std::max(Load16(&options[2]), kMinMss);
    if (kind == kScale) {
      result.window_scale = std::min(Load8(&options[2]), kMaxScale);
    }
    if (kind == kSack) result.sack_permitted = true;
    options = options.subspan(size);
  }
  return result;
}

std::optional<Ports> PeekPorts(const Packet& packet) {
  const bool has_ports = packet.protocol == ip_protocol::kTcp ||
                         packet.protocol == ip_protocol::kUdp;
  if (!has_ports || packet.is_fragment || packet.transport.size() < 4) {
    return std::nullopt;
  }
  return Ports{Load16(packet.transport.data()),
               Load16(packet.transport.data() + 2)};
}

}  // namespace netstack

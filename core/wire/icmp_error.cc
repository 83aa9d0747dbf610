#include "core/wire/icmp_error.h"

#include <algorithm>
#include <cstring>

#include "core/wire/checksum.h"
#include "core/wire/headers.h"

namespace netstack {
namespace {

constexpr size_t kMaxV4Size = 576;
constexpr size_t kMaxV6Size = kMaxIcmpErrorSize;

struct TypeAndCode {
  uint8_t type;
  uint8_t code;
};

TypeAndCode Lookup(IcmpError error, bool v4) {
  switch (error) {
    case IcmpError::kNetUnreachable:
      return v4 ? TypeAndCode{3, 0} : TypeAndCode{1, 0};
    case IcmpError::kHostUnreachable:
      return v4 ? TypeAndCode{3, 1} : TypeAndCode{1, 3};
    case IcmpError::kProtocolUnreachable:
      return v4 ? TypeAndCode{3, 2} : TypeAndCode{4, 1};
    case IcmpError::kPortUnreachable:
      return v4 ? TypeAndCode{3, 3} : TypeAndCode{1, 4};
    case IcmpError::kProhibited:
      return v4 ? TypeAndCode{3, 13} : TypeAndCode{1, 1};
    case IcmpError::kTimeExceeded:
      return v4 ? TypeAndCode{11, 0} : TypeAndCode{3, 0};
    case IcmpError::kReassemblyTimeExceeded:
      return v4 ? TypeAndCode{11, 1} : TypeAndCode{3, 1};
    case IcmpError::kPacketTooBig:
      return v4 ? TypeAndCode{3, 4} : TypeAndCode{2, 0};
  }
  return v4 ? TypeAndCode{3, 1} : TypeAndCode{1, 3};
}

// The second word of the ICMP header.
uint32_t Parameter(IcmpError error, const Packet& original, uint32_t mtu) {
  if (error == IcmpError::kPacketTooBig) {
    // RFC 1191, 4: sixteen bits, the upper half is unused.
    return original.is_v4 ? std::min<uint32_t>(mtu, 0xFFFF) : mtu;
  }
  if (error == IcmpError::kProtocolUnreachable && !original.is_v4) {
    return original.protocol_at;  // RFC 4443, 3.4
  }
  return 0;
}

// An error message, a redirect, or a message too short to tell.
bool IsIcmpError(const Packet& packet) {
  const uint8_t icmp =
      packet.is_v4 ? ip_protocol::kIcmp : ip_protocol::kIcmpV6;
  if (packet.protocol != icmp) return false;
  if (packet.transport.empty()) return true;
  const uint8_t type = Load8(packet.transport.data());
  if (packet.is_v4) {
    return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
  }
  return type < 128 || type == 137;
}

// An address that names exactly one other host.
bool IsOneHost(const IpAddress& ip) {
  const bool class_e = ip.IsV4() && (Load8(ip.v4()) >> 4) == 0xF;
  return !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLoopback() &&
         !class_e;
}

}  // namespace

bool MayAnswerWithIcmp(const Packet& original) {
  return IsOneHost(original.source) && !original.destination.IsMulticast() &&
         !original.destination.IsLimitedBroadcast() &&
         original.fragment_offset == 0 && !IsIcmpError(original);
}

IcmpKind KindOf(IcmpError error, const Packet& original, uint32_t mtu) {
  const TypeAndCode kind = Lookup(error, original.is_v4);
  return {kind.type, kind.code, Parameter(error, original, mtu)};
}

size_t BuildIcmpError(IcmpError error, const Packet& original,
                      const IpAddress& from, uint32_t mtu, MutableBytes out) {
  return BuildIcmpError(KindOf(error, original, mtu), original, from, out);
}

size_t BuildIcmpError(const IcmpKind& kind, const Packet& original,
                      const IpAddress& from, MutableBytes out, uint8_t ttl) {
  const bool v4 = original.is_v4;
  const size_t ip_size = IpHeaderSize(v4);
  const size_t room =
      (v4 ? kMaxV4Size : kMaxV6Size) - ip_size - kIcmpHeaderSize;
  const size_t quote = std::min(original.bytes.size(), room);
  const size_t message = kIcmpHeaderSize + quote;

  IpHeaderFields ip;
  ip.source = from;
  ip.destination = original.source;
  ip.protocol = v4 ? ip_protocol::kIcmp : ip_protocol::kIcmpV6;
  // RFC 1812, 4.3.2.5: errors have precedence 6, internetwork control.
  ip.tos = v4 ? 0xC0 : 0;
  ip.ttl = ttl;
  WriteIpHeader(ip, message, out.data());

  std::byte* h = out.data() + ip_size;
  Store8(h, kind.type);
  Store8(h + 1, kind.code);
  Store16(h + 2, 0);
  Store32(h + 4, kind.parameter);
  std::memcpy(h + kIcmpHeaderSize, original.bytes.data(), quote);

  // ICMP has no pseudo-header, ICMPv6 has (RFC 4443, 2.3).
  ChecksumAccumulator sum;
  if (!v4) {
    sum = PseudoHeader(ip.source, ip.destination, ip.protocol,
                       static_cast<uint32_t>(message));
  }
  sum.Add({h, message});
  Store16(h + 2, sum.Finish());
  return ip_size + message;
}

}  // namespace netstack

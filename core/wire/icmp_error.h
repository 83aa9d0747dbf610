// ICMP and ICMPv6 errors that we send to an app (RFC 792, RFC 1812, RFC 4443).
#ifndef CORE_WIRE_ICMP_ERROR_H_
#define CORE_WIRE_ICMP_ERROR_H_

#include <cstddef>
#include <cstdint>

#include "core/base/bytes.h"
#include "core/wire/packet.h"

namespace netstack {

enum class IcmpError : uint8_t {
  kNetUnreachable,    // v4 3/0,  v6 1/0 (no route)
  kHostUnreachable,   // v4 3/1,  v6 1/3 (address unreachable)
  kProtocolUnreachable,  // v4 3/2, v6 4/1 (unrecognized next header)
  kPortUnreachable,   // v4 3/3,  v6 1/4
  kProhibited,        // v4 3/13, v6 1/1 (administratively)
  kTimeExceeded,      // v4 11/0, v6 3/0 (hop limit)
  kReassemblyTimeExceeded,  // v4 11/1, v6 3/1
  kPacketTooBig,      // v4 3/4 with the MTU (RFC 1191), v6 2/0
};

// An error as it stands in the message's first words.
struct IcmpKind {
  uint8_t type = 0;
  uint8_t code = 0;
  uint32_t parameter = 0;  // the second word: MTU, pointer or zero
};

// The message's first words for an error about `original`. `mtu` is used by
// kPacketTooBig only.
IcmpKind KindOf(IcmpError error, const Packet& original, uint32_t mtu);

// The largest message that BuildIcmpError makes: IPv4 quotes as much as fits
// into 576 bytes (RFC 1812, 4.3.2.3), IPv6 into 1280 (RFC 4443, 2.4 c).
inline constexpr size_t kMaxIcmpErrorSize = 1280;

// Whether an error about `original` may be sent at all: not about ICMP
// errors, multicast or broadcast, later fragments, or an unspecified source
// (RFC 1122, 3.2.2; RFC 4443, 2.4 e).
bool MayAnswerWithIcmp(const Packet& original);

// Writes a whole IP packet from `from` (of the original's family) to
// original.source into `out` (at least kMaxIcmpErrorSize bytes). Returns its
// size.
size_t BuildIcmpError(const IcmpKind& kind, const Packet& original,
                      const IpAddress& from, MutableBytes out,
                      uint8_t ttl = 64);
size_t BuildIcmpError(IcmpError error, const Packet& original,
                      const IpAddress& from, uint32_t mtu, MutableBytes out);

}  // namespace netstack

#endif  // CORE_WIRE_ICMP_ERROR_H_

// UDP (RFC 768; RFC 8200, 8.1).
#ifndef CORE_WIRE_UDP_H_
#define CORE_WIRE_UDP_H_

#include <cstddef>
#include <cstdint>

#include "core/base/bytes.h"
#include "core/base/or_drop.h"
#include "core/wire/packet.h"

namespace netstack {

inline constexpr size_t kUdpHeaderSize = 8;
inline constexpr size_t kUdpChecksumOffset = 6;

// A datagram whose length lies inside its packet.
struct UdpDatagram {
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  Bytes payload;
};

// `packet` is UDP and not a fragment. Fewer than 8 bytes are TOO_SHORT; a
// length below 8 or beyond the packet, and port 0 on either side, are
// BAD_UDP_HEADER (nobody could answer to port 0). Bytes of the packet behind
// the length are cut. A checksum of zero means none in IPv4 and is wrong in
// IPv6.
OrDrop<UdpDatagram> ParseUdp(const Packet& packet, ChecksumTrust trust);

struct UdpHeaderFields {
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint16_t length = 0;    // header and payload
  uint16_t checksum = 0;  // as it is to stand there
};

// Writes kUdpHeaderSize bytes.
void WriteUdpHeader(const UdpHeaderFields& fields, std::byte* out);

// A computed sum of zero is sent as all ones, since zero means none.
constexpr uint16_t UdpChecksumField(uint16_t sum) {
  return sum == 0 ? 0xFFFF : sum;
}

}  // namespace netstack

#endif  // CORE_WIRE_UDP_H_

// The Internet checksum (RFC 1071).
#ifndef CORE_WIRE_CHECKSUM_H_
#define CORE_WIRE_CHECKSUM_H_

#include <cstdint>

#include "core/base/bytes.h"
#include "core/wire/ip_address.h"

namespace netstack {

// A running one's complement sum over parts of a message. Parts may have odd
// lengths: the sum remembers on which side of a 16-bit word it stands.
class ChecksumAccumulator {
 public:
  // Adds bytes in the order in which they stand in the message.
  void Add(Bytes part);
  // Adds one 16-bit word in host order, at an even position.
  void AddWord(uint16_t word);
  // The folded sum, not complemented, in host order. This is what a
  // checksum field holds for a packet that asks for hardware checksumming.
  uint16_t Folded() const;
  // The checksum to store into the packet, in host order.
  uint16_t Finish() const { return static_cast<uint16_t>(~Folded()); }

 private:
  uint64_t sum_ = 0;
  bool odd_ = false;
};

// The pseudo-header of TCP, UDP and ICMPv6 for `length` bytes of transport
// header and payload (RFC 9293, 3.1; RFC 8200, 8.1). Both addresses are of
// one family.
ChecksumAccumulator PseudoHeader(const IpAddress& source,
                                 const IpAddress& destination,
                                 uint8_t protocol, uint32_t length);

// The checksum over one piece, to be stored, in host order.
uint16_t Checksum(Bytes bytes);

}  // namespace netstack

#endif  // CORE_WIRE_CHECKSUM_H_

// Positions and flags inside DNS messages; for message.cc and message_write.cc.
#ifndef CORE_DNS_MESSAGE_BITS_H_
#define CORE_DNS_MESSAGE_BITS_H_

#include <cstddef>
#include <cstdint>

namespace netstack::dns {

// The second word of the header (RFC 1035, 4.1.1; RFC 4035, 3.2).
namespace flag {
inline constexpr uint16_t kAnswer = 0x8000;
inline constexpr uint16_t kOpcodeMask = 0x7800;
inline constexpr uint16_t kTruncated = 0x0200;
inline constexpr uint16_t kRecursionDesired = 0x0100;
inline constexpr uint16_t kRecursionAvailable = 0x0080;
inline constexpr uint16_t kAuthenticData = 0x0020;
inline constexpr uint16_t kCheckingDisabled = 0x0010;
inline constexpr uint16_t kRcodeMask = 0x000F;
}  // namespace flag

// EDNS option codes.
namespace option {
inline constexpr uint16_t kClientSubnet = 8;
inline constexpr uint16_t kCookie = 10;
inline constexpr uint16_t kTcpKeepalive = 11;
inline constexpr uint16_t kPadding = 12;
inline constexpr uint16_t kExtendedError = 15;
}  // namespace option

// Of an OPT record's TTL field.
inline constexpr uint32_t kDnssecOk = 0x8000;

inline constexpr size_t kRecordHeadSize = 10;  // behind the owner name
inline constexpr size_t kSoaNumbersSize = 20;
inline constexpr size_t kOptSize = 11;  // without options

// A compressed name that is the question's.
inline constexpr uint16_t kQuestionPointer = 0xC000 | 12;

}  // namespace netstack::dns

#endif  // CORE_DNS_MESSAGE_BITS_H_

// Writing headers of packets towards an app.
#ifndef CORE_WIRE_HEADERS_H_
#define CORE_WIRE_HEADERS_H_

#include <cstddef>
#include <cstdint>

#include "core/base/bytes.h"
#include "core/wire/ip_address.h"

namespace netstack {

inline constexpr size_t kIpV4HeaderSize = 20;
inline constexpr size_t kIpV6HeaderSize = 40;
inline constexpr size_t kMaxIpHeaderSize = kIpV6HeaderSize;

constexpr size_t IpHeaderSize(bool v4) {
  return v4 ? kIpV4HeaderSize : kIpV6HeaderSize;
}

struct IpHeaderFields {
  IpAddress source;  // both addresses are of one family, which decides
  IpAddress destination;
  uint8_t protocol = 0;
  uint8_t ttl = 64;
  uint8_t tos = 0;
  uint16_t id = 0;  // IPv4 only; with DF it may be 0 (RFC 6864)
  bool dont_fragment = true;  // IPv4's DF
};

// Writes an IPv4 or IPv6 header for `payload` bytes behind it, with IPv4's
// header checksum. `out` has IpHeaderSize() bytes, and header and payload
// together are at most 65535 (IPv6: the payload alone). Returns that size.
size_t WriteIpHeader(const IpHeaderFields& fields, size_t payload,
                     std::byte* out);

inline constexpr size_t kFragmentHeaderSize = 8;  // IPv6's
inline constexpr size_t kMaxFragmentHeaderSize =
    kIpV6HeaderSize + kFragmentHeaderSize;

// Writes the header of a fragment: IPv4's, or IPv6's with a fragment header
// behind it. `offset` is a multiple of 8; `id` has sixteen bits in IPv4.
// Returns its size, at most kMaxFragmentHeaderSize.
size_t WriteFragmentHeader(const IpHeaderFields& fields, uint32_t id,
                           size_t offset, bool more, size_t payload,
                           std::byte* out);

struct TcpHeaderFields {
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint32_t seq = 0;
  uint32_t ack = 0;
  uint8_t flags = 0;
  uint16_t window = 0;
};

// Writes a whole TCP packet without payload and options (an RST, a bare
// ACK), checksums included, into `out` (at least 60 bytes). Returns its size.
size_t WriteBareTcp(const IpAddress& source, const IpAddress& destination,
                    const TcpHeaderFields& tcp, std::byte* out);

}  // namespace netstack

#endif  // CORE_WIRE_HEADERS_H_

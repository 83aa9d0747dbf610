// Bytes of packets and streams.
#ifndef CORE_BASE_BYTES_H_
#define CORE_BASE_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace netstack {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

// Big-endian loads and stores. The caller has checked that `p` has room.
inline uint8_t Load8(const std::byte* p) { return static_cast<uint8_t>(*p); }
inline uint16_t Load16(const std::byte* p) {
  return static_cast<uint16_t>((Load8(p) << 8) | Load8(p + 1));
}
inline uint32_t Load32(const std::byte* p) {
  return (static_cast<uint32_t>(Load16(p)) << 16) | Load16(p + 2);
}
inline uint64_t Load64(const std::byte* p) {
  return (static_cast<uint64_t>(Load32(p)) << 32) | Load32(p + 4);
}
inline void Store8(std::byte* p, uint8_t v) { *p = std::byte{v}; }
inline void Store16(std::byte* p, uint16_t v) {
  Store8(p, static_cast<uint8_t>(v >> 8));
  Store8(p + 1, static_cast<uint8_t>(v & 0xFF));
}
inline void Store32(std::byte* p, uint32_t v) {
  Store16(p, static_cast<uint16_t>(v >> 16));
  Store16(p + 2, static_cast<uint16_t>(v & 0xFFFF));
}

}  // namespace netstack

#endif  // CORE_BASE_BYTES_H_

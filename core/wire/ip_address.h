// One address type for IPv4 and IPv6: 16 bytes, IPv4 as ::ffff:a.b.c.d
// (RFC 4291, section 2.5.5.2). No twin handlers anywhere above.
#ifndef CORE_WIRE_IP_ADDRESS_H_
#define CORE_WIRE_IP_ADDRESS_H_

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "core/base/bytes.h"

namespace netstack {

class IpAddress {
 public:
  // "::", which is the unspecified address of no family.
  constexpr IpAddress() = default;

  // `p` points at 4 or 16 bytes in network order.
  static IpAddress V4(const std::byte* p) {
    IpAddress ip = V4(0, 0, 0, 0);
    std::memcpy(ip.b_.data() + 12, p, 4);
    return ip;
  }
  static IpAddress V6(const std::byte* p) {
    IpAddress ip;
    std::memcpy(ip.b_.data(), p, 16);
    return ip;
  }
  static constexpr IpAddress V4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
    IpAddress ip;
    ip.b_ = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, a, b, c, d};
    return ip;
  }
  // Text as inet_pton(3) takes it, either family; nullopt otherwise. Zone
  // identifiers ("%eth0") are refused. "::ffff:192.0.2.1" gives the IPv4
  // address, as this type cannot tell the two apart.
  static std::optional<IpAddress> Parse(absl::string_view text);

  bool IsV4() const { return High() == 0 && (Low() >> 32) == 0xFFFF; }
  bool IsUnspecified() const {  // 0.0.0.0 or ::
    return High() == 0 && (Low() == 0 || Low() == kMapped);
  }
  bool IsLoopback() const {  // 127.0.0.0/8 or ::1
    return High() == 0 &&
           (Low() == 1 || (Low() >> 24) == (kMapped >> 24) + 127);
  }
  bool IsMulticast() const {  // 224.0.0.0/4 or ff00::/8
    return b_[0] == 0xFF || (IsV4() && (b_[12] >> 4) == 0xE);
  }
  bool IsLimitedBroadcast() const {  // 255.255.255.255
    return High() == 0 && Low() == (kMapped | 0xFFFFFFFF);
  }
  bool IsLinkLocal() const {  // 169.254.0.0/16 or fe80::/10
    return (High() >> 54) == 0x3FA ||
           (IsV4() && b_[12] == 169 && b_[13] == 254);
  }

  // Network order. v4() is the last four of the sixteen.
  const std::byte* v6() const {
    return reinterpret_cast<const std::byte*>(b_.data());
  }
  const std::byte* v4() const { return v6() + 12; }

  // The two halves as numbers in host order, for masks and hashes.
  uint64_t High() const { return Load64(v6()); }
  uint64_t Low() const { return Load64(v6() + 8); }

  // RFC 5952, section 4; IPv4 in dots.
  std::string ToString() const;

  friend bool operator==(const IpAddress&, const IpAddress&) = default;
  friend auto operator<=>(const IpAddress&, const IpAddress&) = default;

 private:
  // The low half of 0.0.0.0.
  static constexpr uint64_t kMapped = 0xFFFF'0000'0000;

  alignas(8) std::array<uint8_t, 16> b_{};
};

// An address and a port. Printed "192.0.2.1:80" and "[2001:db8::1]:80".
struct Endpoint {
  IpAddress ip;
  uint16_t port = 0;

  std::string ToString() const;
  // The form that ToString() prints; nullopt otherwise.
  static std::optional<Endpoint> Parse(absl::string_view text);
  friend bool operator==(const Endpoint&, const Endpoint&) = default;
  friend auto operator<=>(const Endpoint&, const Endpoint&) = default;
};

// A CIDR prefix. `length` counts in the address's own family: 0-32 for IPv4,
// 0-128 for IPv6. Bits behind the length are zero. The default is ::/0, which
// contains no IPv4 address.
struct IpPrefix {
  IpAddress ip;
  uint8_t length = 0;

  // Whether `a` is of the prefix's family and lies in it.
  bool Contains(const IpAddress& a) const {
    if (ip.IsV4() != a.IsV4()) return false;
    const unsigned bits = length + (ip.IsV4() ? 96u : 0u);
    return ((ip.High() ^ a.High()) & Mask(bits)) == 0 &&
           ((ip.Low() ^ a.Low()) & Mask(bits < 64 ? 0 : bits - 64)) == 0;
  }
  // "10.0.0.0/8", or a bare address, which is /32 or /128. Host bits set are
  // cut off ("10.0.0.2/24" is 10.0.0.0/24, as ip-address(8) takes it). A
  // length behind "::ffff:10.0.0.0" is refused: it could count in either
  // family.
  static std::optional<IpPrefix> Parse(absl::string_view text);
  std::string ToString() const;
  friend bool operator==(const IpPrefix&, const IpPrefix&) = default;

  // The first `bits` bits of 64 set; all of them from 64 on.
  static constexpr uint64_t Mask(unsigned bits) {
    if (bits == 0) return 0;
    return bits >= 64 ? ~uint64_t{0} : ~uint64_t{0} << (64 - bits);
  }
};

}  // namespace netstack

#endif  // CORE_WIRE_IP_ADDRESS_H_

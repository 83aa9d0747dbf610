// One address type for IPv4 and IPv6: 16 bytes, IPv4 as ::ffff:a.b.c.d
// (RFC 4291, section 2.5.5.2). No twin handlers anywhere above.
#ifndef CORE_WIRE_IP_ADDRESS_H_
#define CORE_WIRE_IP_ADDRESS_H_

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
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
  static IpAddress V4(const std::byte* p);
  static IpAddress V6(const std::byte* p);
  static constexpr IpAddress V4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
    IpAddress ip;
    ip.b_ = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, a, b, c, d};
    return ip;
  }
  // Text as inet_pton(3) takes it, either family; nullopt otherwise. Zone
  // identifiers ("%eth0") are refused.
  static std::optional<IpAddress> Parse(absl::string_view text);

  bool IsV4() const;
  bool IsUnspecified() const;  // 0.0.0.0 or ::
  bool IsLoopback() const;     // 127.0.0.0/8 or ::1
  bool IsMulticast() const;    // 224.0.0.0/4 or ff00::/8
  bool IsLimitedBroadcast() const;  // 255.255.255.255
  bool IsLinkLocal() const;         // 169.254.0.0/16 or fe80::/10

  // Network order. v4() is the last four of the sixteen.
  const std::byte* v6() const {
    return reinterpret_cast<const std::byte*>(b_.data());
  }
  const std::byte* v4() const { return v6() + 12; }

  std::string ToString() const;

  friend bool operator==(const IpAddress&, const IpAddress&) = default;
  friend auto operator<=>(const IpAddress&, const IpAddress&) = default;

 private:
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
// 0-128 for IPv6. Bits behind the length are zero.
struct IpPrefix {
  IpAddress ip;
  uint8_t length = 0;

  bool Contains(const IpAddress& a) const;
  // "10.0.0.0/8", or a bare address, which is /32 or /128. Host bits set are
  // cut off ("10.0.0.2/24" is 10.0.0.0/24, as ip-address(8) takes it).
  static std::optional<IpPrefix> Parse(absl::string_view text);
  std::string ToString() const;
  friend bool operator==(const IpPrefix&, const IpPrefix&) = default;
};

}  // namespace netstack

#endif  // CORE_WIRE_IP_ADDRESS_H_

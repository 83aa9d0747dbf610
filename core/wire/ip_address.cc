#include "core/wire/ip_address.h"

#include "absl/strings/str_cat.h"

namespace netstack {
namespace {

// A decimal number without sign, spaces and leading zeros (which some
// readers take for octal), at most `max`.
std::optional<uint32_t> ParseDecimal(absl::string_view text, uint32_t max) {
  if (text.empty() || text.size() > 5) return std::nullopt;
  if (text.size() > 1 && text[0] == '0') return std::nullopt;
  uint32_t value = 0;
  for (char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<uint32_t>(c - '0');
  }
  if (value > max) return std::nullopt;
  return value;
}

std::optional<IpAddress> ParseV4(absl::string_view text) {
  std::array<uint8_t, 4> part{};
  for (size_t i = 0; i < part.size(); ++i) {
    const bool last = i + 1 == part.size();
    const size_t end = last ? text.size() : text.find('.');
    if (end == absl::string_view::npos) return std::nullopt;
    const auto value = ParseDecimal(text.substr(0, end), 255);
    if (!value) return std::nullopt;
    part[i] = static_cast<uint8_t>(*value);
    text.remove_prefix(last ? end : end + 1);
  }
  return IpAddress::V4(part[0], part[1], part[2], part[3]);
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<uint16_t> ParseGroup(absl::string_view text) {
  if (text.empty() || text.size() > 4) return std::nullopt;
  unsigned value = 0;
  for (char c : text) {
    const int digit = HexDigit(c);
    if (digit < 0) return std::nullopt;
    value = value * 16 + static_cast<unsigned>(digit);
  }
  return static_cast<uint16_t>(value);
}

// The 16-bit groups that stand on one side of a "::", or in a whole address.
struct Groups {
  std::array<uint16_t, 8> value{};
  size_t count = 0;
};

// Groups joined by single colons. Only the last may be an IPv4 address in
// dots, and only where the address ends (`dots`). Empty text has no groups.
std::optional<Groups> ParseGroups(absl::string_view text, bool dots) {
  Groups groups;
  if (text.empty()) return groups;
  while (true) {
    const size_t colon = text.find(':');
    const absl::string_view part = text.substr(0, colon);
    const bool last = colon == absl::string_view::npos;
    if (last && dots && part.find('.') != absl::string_view::npos) {
      const auto v4 = ParseV4(part);
      if (!v4 || groups.count + 2 > groups.value.size()) return std::nullopt;
      groups.value[groups.count++] = Load16(v4->v4());
      groups.value[groups.count++] = Load16(v4->v4() + 2);
    } else {
      const auto group = ParseGroup(part);
      if (!group || groups.count == groups.value.size()) return std::nullopt;
      groups.value[groups.count++] = *group;
    }
    if (last) return groups;
    text.remove_prefix(colon + 1);
  }
}

// RFC 4291, section 2.2.
std::optional<IpAddress> ParseV6(absl::string_view text) {
  const size_t gap = text.find("::");
  const bool has_gap = gap != absl::string_view::npos;
  const auto head = ParseGroups(text.substr(0, gap), !has_gap);
  if (!head) return std::nullopt;
  Groups tail;
  if (has_gap) {
    const auto parsed = ParseGroups(text.substr(gap + 2), true);
    if (!parsed) return std::nullopt;
    tail = *parsed;
  }
  const size_t count = head->count + tail.count;
  // "::" stands for at least one group.
  if (has_gap ? count > 7 : count != 8) return std::nullopt;

  std::array<std::byte, 16> bytes{};
  for (size_t i = 0; i < head->count; ++i) {
    Store16(bytes.data() + 2 * i, head->value[i]);
  }
  for (size_t i = 0; i < tail.count; ++i) {
    Store16(bytes.data() + 2 * (8 - tail.count + i), tail.value[i]);
  }
  return IpAddress::V6(bytes.data());
}

std::string FormatV6(const std::byte* p) {
  std::array<uint16_t, 8> group{};
  for (size_t i = 0; i < 8; ++i) group[i] = Load16(p + 2 * i);
  // The longest run of zero groups, the first among equals, and never a
  // single group (RFC 5952, 4.2.2 and 4.2.3).
  size_t gap = 8, gap_size = 1;
  for (size_t i = 0; i < 8;) {
    size_t end = i;
    while (end < 8 && group[end] == 0) ++end;
    if (end - i > gap_size) {
      gap = i;
      gap_size = end - i;
    }
    i = end + 1;
  }
  std::string text;
  for (size_t i = 0; i < 8; ++i) {
    if (i == gap) {
      text += "::";
      i += gap_size - 1;
      continue;
    }
    if (!text.empty() && text.back() != ':') text += ':';
    absl::StrAppend(&text, absl::Hex(group[i]));
  }
  return text;
}

// `ip` with the bits behind the first `length` of its family cleared.
IpAddress CutHostBits(const IpAddress& ip, unsigned length) {
  std::array<std::byte, 16> bytes{};
  std::memcpy(bytes.data(), ip.v6(), bytes.size());
  const unsigned bits = length + (ip.IsV4() ? 96 : 0);
  for (unsigned i = 0; i < 16; ++i) {
    if (bits >= 8 * (i + 1)) continue;
    const unsigned kept = bits > 8 * i ? bits - 8 * i : 0;
    bytes[i] &= static_cast<std::byte>(0xFF00 >> kept & 0xFF);
  }
  return IpAddress::V6(bytes.data());
}

}  // namespace

std::optional<IpAddress> IpAddress::Parse(absl::string_view text) {
  if (text.find(':') == absl::string_view::npos) return ParseV4(text);
  return ParseV6(text);
}

std::string IpAddress::ToString() const {
  if (!IsV4()) return FormatV6(v6());
  return absl::StrCat(b_[12], ".", b_[13], ".", b_[14], ".", b_[15]);
}

std::string Endpoint::ToString() const {
  if (ip.IsV4()) return absl::StrCat(ip.ToString(), ":", port);
  return absl::StrCat("[", ip.ToString(), "]:", port);
}

std::optional<Endpoint> Endpoint::Parse(absl::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos) return std::nullopt;
  const auto port = ParseDecimal(text.substr(colon + 1), 65535);
  absl::string_view host = text.substr(0, colon);
  const bool brackets =
      host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (brackets) host = host.substr(1, host.size() - 2);
  const auto ip = IpAddress::Parse(host);
  if (!port || !ip || ip->IsV4() == brackets) return std::nullopt;
  // "::ffff:192.0.2.1:80" would be IPv4 without brackets, and is a typo.
  if (!brackets && host.find(':') != absl::string_view::npos) {
    return std::nullopt;
  }
  return Endpoint{*ip, static_cast<uint16_t>(*port)};
}

std::optional<IpPrefix> IpPrefix::Parse(absl::string_view text) {
  const size_t slash = text.find('/');
  const absl::string_view host = text.substr(0, slash);
  const auto ip = IpAddress::Parse(host);
  if (!ip) return std::nullopt;
  const uint32_t full = ip->IsV4() ? 32 : 128;
  if (slash == absl::string_view::npos) {
    return IpPrefix{*ip, static_cast<uint8_t>(full)};
  }
  const auto length = ParseDecimal(text.substr(slash + 1), full);
  if (!length) return std::nullopt;
  if (ip->IsV4() && host.find(':') != absl::string_view::npos) {
    return std::nullopt;
  }
  return IpPrefix{CutHostBits(*ip, *length), static_cast<uint8_t>(*length)};
}

std::string IpPrefix::ToString() const {
  return absl::StrCat(ip.ToString(), "/", length);
}

}  // namespace netstack

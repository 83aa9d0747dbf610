// A domain name as DNS carries it (RFC 1035, section 3.1), lower-cased, since
// names are compared without case (RFC 4343).
#ifndef CORE_DNS_NAME_H_
#define CORE_DNS_NAME_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "core/base/bytes.h"

namespace netstack::dns {

// A valid name: labels of 1-63 bytes, at most 255 bytes with their lengths and
// the root's zero. Any byte may stand in a label. A plain value; copying
// copies what the name is long.
class DnsName {
 public:
  static constexpr size_t kMaxSize = 255;

  DnsName() { bytes_[0] = 0; }  // the root
  DnsName(const DnsName& other) : size_(other.size_) {
    std::memcpy(bytes_, other.bytes_, size_);
  }
  DnsName& operator=(const DnsName& other) {
    size_ = other.size_;
    std::memmove(bytes_, other.bytes_, size_);
    return *this;
  }

  // "www.example.com", with or without a dot at the end; "." is the root.
  // "\." and "\065" escape as in zone files (RFC 1035, 5.1). Bytes from 0x80
  // on are refused: names of other alphabets come as "xn--".
  static std::optional<DnsName> FromText(absl::string_view text);

  // The uncompressed name at the start of `wire`; what follows is ignored.
  static std::optional<DnsName> FromWire(Bytes wire);

  // With the root's zero at the end.
  Bytes wire() const {
    return {reinterpret_cast<const std::byte*>(bytes_), size_};
  }
  size_t size() const { return size_; }
  bool IsRoot() const { return size_ == 1; }
  size_t LabelCount() const;  // without the root: 0 for "."

  // Whether this is `ancestor` or lies below it.
  bool IsWithin(const DnsName& ancestor) const;

  // FromText()'s form without the dot at the end; the root is ".".
  std::string ToString() const;

  friend bool operator==(const DnsName& a, const DnsName& b) {
    return a.size_ == b.size_ && std::memcmp(a.bytes_, b.bytes_, a.size_) == 0;
  }

 private:
  friend struct NameReader;

  uint8_t size_ = 1;
  uint8_t bytes_[kMaxSize];  // NOLINT: only the first size_ ones are set
};

// Which bytes of a name's wire form were upper-case letters. Askers that mix
// case as a nonce ("0x20") want it back as they sent it.
class NameCase {
 public:
  void Set(size_t i) { bits_[i / 64] |= uint64_t{1} << (i % 64); }
  bool IsUpper(size_t i) const { return (bits_[i / 64] >> (i % 64)) & 1; }
  bool any() const { return (bits_[0] | bits_[1] | bits_[2] | bits_[3]) != 0; }
  friend bool operator==(const NameCase&, const NameCase&) = default;

 private:
  std::array<uint64_t, 4> bits_{};
};

// A name read from a message, following compression pointers.
struct ReadName {
  DnsName name;
  NameCase upper;
  size_t end = 0;  // offset behind the name where it stands
};

// The name at `at`. Pointers must point at an earlier place than the one they
// are followed from, so that no message makes this loop; nullopt for any other
// pointer, for a name that runs beyond the message, and for one over 255
// bytes.
std::optional<ReadName> ReadNameAt(Bytes message, size_t at);

// The same for a name that may not hold pointers: a question's, or a target in
// SVCB.
std::optional<ReadName> ReadPlainNameAt(Bytes message, size_t at);

// ReadNameAt(), of which only the end is wanted.
std::optional<size_t> SkipNameAt(Bytes message, size_t at);

}  // namespace netstack::dns

#endif  // CORE_DNS_NAME_H_

#include "core/dns/name.h"

#include "absl/strings/str_cat.h"
#include "core/dns/message.h"

namespace netstack::dns {
namespace {

constexpr size_t kMaxLabel = 63;
// Each pointer adds no byte, so that names alone do not bound them. Real
// messages need no more than one per label.
constexpr int kMaxPointers = 128;

constexpr bool IsUpperLetter(uint8_t c) { return c >= 'A' && c <= 'Z'; }

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// The byte that the text starts with, which loses it; an escape is one byte.
std::optional<uint8_t> TakeByte(absl::string_view& text) {
  const char c = text[0];
  if (c != '\\') {
    text.remove_prefix(1);
    if (static_cast<uint8_t>(c) >= 0x80) return std::nullopt;
    return static_cast<uint8_t>(c);
  }
  if (text.size() < 2) return std::nullopt;
  if (!IsDigit(text[1])) {
    const char escaped = text[1];
    text.remove_prefix(2);
    return static_cast<uint8_t>(escaped);
  }
  if (text.size() < 4 || !IsDigit(text[2]) || !IsDigit(text[3])) {
    return std::nullopt;
  }
  const int value =
      (text[1] - '0') * 100 + (text[2] - '0') * 10 + (text[3] - '0');
  text.remove_prefix(4);
  if (value > 255) return std::nullopt;
  return static_cast<uint8_t>(value);
}

}  // namespace

// Walks names in messages; with Keep it copies and lower-cases what it reads.
struct NameReader {
  static uint8_t* BytesOf(DnsName& name) { return name.bytes_; }
  static void SetSize(DnsName& name, size_t size) {
    name.size_ = static_cast<uint8_t>(size);
  }

  template <bool kKeep>
  static bool Read(Bytes message, size_t at, bool pointers, ReadName& to) {
    size_t chunk = at;  // where the labels being read began
    size_t size = 0;
    int followed = 0;
    while (true) {
      if (at >= message.size()) return false;
      const uint8_t length = Load8(&message[at]);
      if (length == 0) break;
      if (length > kMaxLabel) {
        if ((length & 0xC0) != 0xC0 || !pointers) return false;
        if (message.size() - at < 2 || ++followed > kMaxPointers) return false;
        const size_t target = Load16(&message[at]) & 0x3FFFu;
        if (target >= chunk || target < kHeaderSize) return false;
        if (followed == 1) to.end = at + 2;
        at = chunk = target;
        continue;
      }
      if (message.size() - at <= length) return false;
      if (size + 1 + length + 1 > DnsName::kMaxSize) return false;
      if constexpr (kKeep) CopyLabel(&message[at], length, size, to);
      size += 1u + length;
      at += 1u + length;
    }
    if constexpr (kKeep) {
      to.name.bytes_[size] = 0;
      SetSize(to.name, size + 1);
    }
    if (followed == 0) to.end = at + 1;
    return true;
  }

  // `label` and its length byte, which is below 'A', to offset `size`.
  static void CopyLabel(const std::byte* label, size_t length, size_t size,
                        ReadName& to) {
    for (size_t i = 0; i <= length; ++i) {
      const uint8_t c = Load8(label + i);
      const bool upper = IsUpperLetter(c);
      if (upper) to.upper.Set(size + i);
      to.name.bytes_[size + i] = static_cast<uint8_t>(upper ? c + 32 : c);
    }
  }
};

std::optional<DnsName> DnsName::FromText(absl::string_view text) {
  DnsName name;
  if (text == ".") return name;
  if (text.empty()) return std::nullopt;
  size_t label = 0;  // where the current label's length stands
  size_t size = 1;
  while (true) {
    const bool end = text.empty();
    if (end || text[0] == '.') {
      const size_t length = size - label - 1;
      if (length == 0 || length > kMaxLabel) return std::nullopt;
      name.bytes_[label] = static_cast<uint8_t>(length);
      label = size;
      if (size >= kMaxSize) return std::nullopt;
      ++size;
      if (!end) text.remove_prefix(1);
      if (text.empty()) break;
      continue;
    }
    const std::optional<uint8_t> c = TakeByte(text);
    if (!c || size >= kMaxSize) return std::nullopt;
    name.bytes_[size++] =
        static_cast<uint8_t>(IsUpperLetter(*c) ? *c + 32 : *c);
  }
  name.bytes_[label] = 0;
  name.size_ = static_cast<uint8_t>(size);
  return name;
}

std::optional<DnsName> DnsName::FromWire(Bytes wire) {
  ReadName read;
  if (!NameReader::Read<true>(wire, 0, /*pointers=*/false, read)) {
    return std::nullopt;
  }
  return read.name;
}

size_t DnsName::LabelCount() const {
  size_t count = 0;
  for (size_t at = 0; bytes_[at] != 0; at += 1u + bytes_[at]) ++count;
  return count;
}

bool DnsName::IsWithin(const DnsName& ancestor) const {
  if (ancestor.size_ > size_) return false;
  const size_t start = size_ - ancestor.size_;
  if (std::memcmp(bytes_ + start, ancestor.bytes_, ancestor.size_) != 0) {
    return false;
  }
  // The bytes agree; they count only from a label's start on.
  size_t at = 0;
  while (at < start) at += 1u + bytes_[at];
  return at == start;
}

std::string DnsName::ToString() const {
  if (IsRoot()) return ".";
  std::string text;
  for (size_t at = 0; bytes_[at] != 0; at += 1u + bytes_[at]) {
    if (at > 0) text += '.';
    for (size_t i = at + 1; i <= at + bytes_[at]; ++i) {
      const uint8_t c = bytes_[i];
      if (c == '.' || c == '\\') {
        text += '\\';
        text += static_cast<char>(c);
      } else if (c > 0x20 && c < 0x7F) {
        text += static_cast<char>(c);
      } else {
        absl::StrAppend(&text, "\\", absl::Dec(c, absl::kZeroPad3));
      }
    }
  }
  return text;
}

std::optional<ReadName> ReadNameAt(Bytes message, size_t at) {
  ReadName read;
  if (!NameReader::Read<true>(message, at, /*pointers=*/true, read)) {
    return std::nullopt;
  }
  return read;
}

std::optional<ReadName> ReadPlainNameAt(Bytes message, size_t at) {
  ReadName read;
  if (!NameReader::Read<true>(message, at, /*pointers=*/false, read)) {
    return std::nullopt;
  }
  return read;
}

std::optional<size_t> SkipNameAt(Bytes message, size_t at) {
  ReadName read;
  if (!NameReader::Read<false>(message, at, /*pointers=*/true, read)) {
    return std::nullopt;
  }
  return read.end;
}

}  // namespace netstack::dns

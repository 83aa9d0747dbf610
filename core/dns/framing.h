// DNS messages in a stream: two bytes of length before each (RFC 1035, 4.2.2).
//
//   FrameReader reader;
//   reader.Append(bytes_from_the_socket);
//   while (auto message = reader.Next()) Use(*message);
//   if (reader.broken()) Close();
#ifndef CORE_DNS_FRAMING_H_
#define CORE_DNS_FRAMING_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/base/bytes.h"

namespace netstack::dns {

inline constexpr size_t kFrameHeader = 2;
// A header: what is shorter cannot be answered, and is no DNS.
inline constexpr size_t kLeastFrame = 12;

class FrameReader {
 public:
  // Bytes as they come, in any pieces. What Next() gave is invalid afterwards.
  void Append(Bytes bytes) {
    if (begin_ > 0) {
      held_.erase(held_.begin(),
                  held_.begin() + static_cast<ptrdiff_t>(begin_));
      begin_ = 0;
    }
    held_.insert(held_.end(), bytes.begin(), bytes.end());
  }

  // The next whole message, valid until the next Append() or Trim(); nullopt
  // when there is none yet, or never will be again (broken()).
  std::optional<Bytes> Next() {
    if (broken_) return std::nullopt;
    const Bytes rest = Bytes(held_).subspan(begin_);
    if (rest.size() < kFrameHeader) return std::nullopt;
    const size_t length = Load16(rest.data());
    if (length < kLeastFrame) {
      broken_ = true;
      return std::nullopt;
    }
    if (rest.size() - kFrameHeader < length) return std::nullopt;
    begin_ += kFrameHeader + length;
    return rest.subspan(kFrameHeader, length);
  }

  // Gives memory back that nothing lies in.
  void Trim() {
    if (begin_ != held_.size()) return;
    std::vector<std::byte>().swap(held_);
    begin_ = 0;
  }

  // A length was met that no message has: the stream makes no sense any more.
  bool broken() const { return broken_; }
  // Bytes that wait, for a whole message or for Next().
  size_t held() const { return held_.size() - begin_; }

 private:
  std::vector<std::byte> held_;
  size_t begin_ = 0;
  bool broken_ = false;
};

}  // namespace netstack::dns

#endif  // CORE_DNS_FRAMING_H_

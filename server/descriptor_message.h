// One message of the descriptor socket (netstack.v1.TunHandle), taken apart as
// it arrives in pieces: a length in 8 bytes (big-endian, of the nonce), the
// nonce, and exactly one descriptor, which comes with the first byte.
//
// Bytes and descriptor numbers only, no system calls: what is to be closed is
// given back. tests/fuzz/descriptor_fuzz.cc says what holds for any input.
#ifndef SERVER_DESCRIPTOR_MESSAGE_H_
#define SERVER_DESCRIPTOR_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace netstack::server {

class DescriptorMessage {
 public:
  static constexpr size_t kLength = 8;
  static constexpr size_t kMinNonce = 8, kMaxNonce = 64;

  enum class Fault : uint8_t {
    kNone,
    kCut,           // our table had no room for what came
    kMany,          // more than one descriptor
    kMalformed,     // a length out of bounds, or a descriptor elsewhere
    kNoDescriptor,  // none came
  };

  // How many bytes to read next, at most: the first one alone, so that it is
  // certain what came with it; then never beyond the end of the message.
  size_t Want() const {
    if (bytes_.empty()) return 1;
    if (bytes_.size() < kLength) return kLength - bytes_.size();
    return kLength + Length() - bytes_.size();
  }

  // What one read gave: 1 to Want() bytes. The result is the caller's to
  // close. Not after done().
  std::vector<int> Take(absl::string_view bytes,
                        const std::vector<int>& descriptors, bool cut) {
    std::vector<int> surplus;
    cut_ = cut_ || cut;
    for (const int one : descriptors) {
      if (!bytes_.empty()) {
        misplaced_ = true;
      } else if (descriptor_ < 0 && !many_) {
        descriptor_ = one;
        continue;
      } else {
        many_ = true;
      }
      surplus.push_back(one);
    }
    bytes_.append(bytes.data(), bytes.size());
    return surplus;
  }

  bool empty() const { return bytes_.empty(); }
  // Nothing more is to be read: it is whole, or past help.
  bool done() const {
    if (misplaced_) return true;
    if (bytes_.size() < kLength) return false;
    return BadLength() || bytes_.size() == kLength + Length();
  }

  // Once it is done.
  Fault fault() const {
    if (cut_) return Fault::kCut;
    if (many_) return Fault::kMany;
    if (misplaced_ || BadLength()) return Fault::kMalformed;
    return descriptor_ < 0 ? Fault::kNoDescriptor : Fault::kNone;
  }
  std::string nonce() const { return bytes_.substr(kLength); }

  // The one that came, or -1.
  int descriptor() const { return descriptor_; }
  // The caller's from then on.
  int TakeDescriptor() { return std::exchange(descriptor_, -1); }

 private:
  uint64_t Length() const {
    uint64_t n = 0;
    for (size_t i = 0; i < kLength; ++i) {
      n = (n << 8) | static_cast<unsigned char>(bytes_[i]);
    }
    return n;
  }
  bool BadLength() const {
    return bytes_.size() >= kLength &&
           (Length() < kMinNonce || Length() > kMaxNonce);
  }

  std::string bytes_;
  int descriptor_ = -1;
  bool many_ = false;
  bool cut_ = false;
  bool misplaced_ = false;
};

}  // namespace netstack::server

#endif  // SERVER_DESCRIPTOR_MESSAGE_H_

// What the stateful TCP fuzz targets share: reading steps from the input, and
// bytes that tell their place in a stream.
#ifndef TESTS_FUZZ_TCP_STEPS_H_
#define TESTS_FUZZ_TCP_STEPS_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace netstack::fuzz {

// Reads the input front to back; zeros behind its end.
class Steps {
 public:
  Steps(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

  bool done() const { return at_ == end_; }
  uint8_t U8() { return done() ? uint8_t{0} : *at_++; }
  uint16_t U16() {
    const unsigned high = U8();
    return static_cast<uint16_t>(high << 8 | U8());
  }
  uint32_t U32() {
    const uint32_t high = U16();
    return high << 16 | U16();
  }
  // 0 to 65,535 in one byte, small numbers more often.
  uint32_t Size() {
    const uint32_t b = U8();
    return b < 64 ? b : (b - 63) * (b - 63) * 16 / 9;
  }

 private:
  const uint8_t* at_;
  const uint8_t* const end_;
};

// The byte at a place of a stream; the places of two directions differ.
constexpr uint8_t StreamByte(uint32_t place, bool inbound) {
  uint32_t x = (place & 0xFFFFFF) * 2654435761u + (inbound ? 77u : 0u);
  x ^= x >> 15;
  return static_cast<uint8_t>(x >> 8);
}

// NETSTACK_FUZZ_ASSERTS=1: a failed assertion of lwIP's ends the process, to
// see which can be reached. Without, it is what production does.
inline bool AbortOnAssert() {
  static const bool abort = std::getenv("NETSTACK_FUZZ_ASSERTS") != nullptr;
  return abort;
}

}  // namespace netstack::fuzz

#endif  // TESTS_FUZZ_TCP_STEPS_H_

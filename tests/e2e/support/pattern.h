// Content made from a seed: both ends know every byte, so nothing needs to be
// stored, and the first wrong byte has a position.
#ifndef TESTS_E2E_SUPPORT_PATTERN_H_
#define TESTS_E2E_SUPPORT_PATTERN_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace netstack::e2e {

// Eight bytes of content: SplitMix64 at a position.
inline uint64_t PatternWord(uint64_t seed, uint64_t index) {
  uint64_t z = seed + (index + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// Writes the content from `offset` on.
inline void FillPattern(uint64_t seed, uint64_t offset, std::span<char> into) {
  for (size_t at = 0; at < into.size();) {
    const uint64_t word = PatternWord(seed, (offset + at) / 8);
    const size_t skip = (offset + at) % 8;
    const size_t n = std::min(8 - skip, into.size() - at);
    std::memcpy(&into[at], reinterpret_cast<const char*>(&word) + skip, n);
    at += n;
  }
}

// How many bytes from the beginning are the content from `offset` on.
inline size_t MatchPattern(uint64_t seed, uint64_t offset,
                           std::span<const char> bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const uint64_t word = PatternWord(seed, (offset + at) / 8);
    const size_t skip = (offset + at) % 8;
    const size_t n = std::min(8 - skip, bytes.size() - at);
    const char* want = reinterpret_cast<const char*>(&word) + skip;
    if (std::memcmp(&bytes[at], want, n) != 0) {
      return at + (std::mismatch(want, want + n, &bytes[at]).first - want);
    }
    at += n;
  }
  return bytes.size();
}

inline std::string Pattern(uint64_t seed, size_t size) {
  std::string text(size, '\0');
  FillPattern(seed, 0, text);
  return text;
}

}  // namespace netstack::e2e

#endif  // TESTS_E2E_SUPPORT_PATTERN_H_

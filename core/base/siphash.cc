#include "core/base/siphash.h"

#include <bit>
#include <cstddef>
#include <cstring>

namespace netstack {
namespace {

// Little-endian, as the paper reads the message.
uint64_t LoadWord(const std::byte* p) {
  uint64_t v;
  std::memcpy(&v, p, sizeof(v));
  if constexpr (std::endian::native == std::endian::big) {
    v = __builtin_bswap64(v);
  }
  return v;
}

struct State {
  uint64_t v0, v1, v2, v3;

  void Round() {
    v0 += v1;
    v1 = std::rotl(v1, 13) ^ v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1;
    v1 = std::rotl(v1, 17) ^ v2;
    v2 = std::rotl(v2, 32);
  }
  void Compress(uint64_t word) {
    v3 ^= word;
    Round();
    Round();
    v0 ^= word;
  }
};

}  // namespace

uint64_t SipHash24(const SipHashKey& key, Bytes data) {
  State s{key.k0 ^ 0x736f6d6570736575, key.k1 ^ 0x646f72616e646f6d,
          key.k0 ^ 0x6c7967656e657261, key.k1 ^ 0x7465646279746573};
  // The last word: the rest of the message, and its size modulo 256 on top.
  uint64_t last = static_cast<uint64_t>(data.size()) << 56;
  for (; data.size() >= 8; data = data.subspan(8)) {
    s.Compress(LoadWord(data.data()));
  }
  for (size_t i = 0; i < data.size(); ++i) {
    last |= static_cast<uint64_t>(Load8(&data[i])) << (8 * i);
  }
  s.Compress(last);
  s.v2 ^= 0xFF;
  for (int i = 0; i < 4; ++i) s.Round();
  return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

}  // namespace netstack

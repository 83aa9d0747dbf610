#include "core/wire/checksum.h"

#include <bit>
#include <cstring>

namespace netstack {
namespace {

// Sums are kept in the machine's byte order and swapped once at the end: a
// one's complement sum does not depend on byte order (RFC 1071, 2 B).

uint16_t Fold(uint64_t sum) {
  sum = (sum & 0xFFFFFFFF) + (sum >> 32);
  sum = (sum & 0xFFFFFFFF) + (sum >> 32);
  sum = (sum & 0xFFFF) + (sum >> 16);
  sum = (sum & 0xFFFF) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

constexpr uint16_t Swap(uint16_t v) {
  return static_cast<uint16_t>((v << 8) | (v >> 8));
}

constexpr uint16_t HostToMessage(uint16_t v) {
  return std::endian::native == std::endian::little ? Swap(v) : v;
}

// The sum of `size` bytes as 32-bit words, the last one filled with zeros.
// Cannot overflow below 16 GiB. memcpy because nothing here is aligned.
uint64_t Sum(const std::byte* p, size_t size) {
  // Independent accumulators in a loop of constant length: gcc and clang
  // make vector code of the inner loop.
  constexpr size_t kLanes = 8;
  uint64_t low[kLanes] = {};
  uint64_t high[kLanes] = {};
  for (; size >= kLanes * 8; p += kLanes * 8, size -= kLanes * 8) {
    uint64_t word[kLanes];
    std::memcpy(word, p, sizeof(word));
    for (size_t i = 0; i < kLanes; ++i) {
      low[i] += word[i] & 0xFFFFFFFF;
      high[i] += word[i] >> 32;
    }
  }
  uint64_t sum = 0;
  for (size_t i = 0; i < kLanes; ++i) sum += low[i] + high[i];
  for (; size >= 4; p += 4, size -= 4) {
    uint32_t word;
    std::memcpy(&word, p, 4);
    sum += word;
  }
  if (size > 0) {
    uint32_t word = 0;
    std::memcpy(&word, p, size);
    sum += word;
  }
  return sum;
}

}  // namespace

void ChecksumAccumulator::Add(Bytes part) {
  const uint16_t folded = Fold(Sum(part.data(), part.size()));
  sum_ += odd_ ? Swap(folded) : folded;
  odd_ ^= (part.size() & 1) != 0;
}

void ChecksumAccumulator::AddWord(uint16_t word) {
  sum_ += HostToMessage(word);
}

uint16_t ChecksumAccumulator::Folded() const {
  return HostToMessage(Fold(sum_));
}

ChecksumAccumulator PseudoHeader(const IpAddress& source,
                                 const IpAddress& destination,
                                 uint8_t protocol, uint32_t length) {
  ChecksumAccumulator sum;
  const bool v4 = source.IsV4();
  const size_t size = v4 ? 4 : 16;
  sum.Add({v4 ? source.v4() : source.v6(), size});
  sum.Add({v4 ? destination.v4() : destination.v6(), size});
  sum.AddWord(protocol);
  sum.AddWord(static_cast<uint16_t>(length >> 16));
  sum.AddWord(static_cast<uint16_t>(length & 0xFFFF));
  return sum;
}

uint16_t Checksum(Bytes bytes) {
  ChecksumAccumulator sum;
  sum.Add(bytes);
  return sum.Finish();
}

}  // namespace netstack

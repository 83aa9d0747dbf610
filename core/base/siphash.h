// SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF",
// 2012): a keyed hash that nobody without the key can steer. Hash tables that
// strangers fill use it, and TCP's initial sequence numbers (RFC 6528).
#ifndef CORE_BASE_SIPHASH_H_
#define CORE_BASE_SIPHASH_H_

#include <cstdint>

#include "core/base/bytes.h"

namespace netstack {

// 128 secret bits; as two numbers, the first eight bytes of the paper's key
// being `k0` in little-endian order.
struct SipHashKey {
  uint64_t k0 = 0;
  uint64_t k1 = 0;
};

uint64_t SipHash24(const SipHashKey& key, Bytes data);

}  // namespace netstack

#endif  // CORE_BASE_SIPHASH_H_

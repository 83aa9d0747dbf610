#include "core/lwip/heap.h"

#include <cstring>

#include "arch/cc.h"
#include "core/base/sanitizers.h"
#include "core/flow/block_cache.h"

namespace netstack {
namespace {

// Blocks for a full batch of segments; what is beyond goes back at once. None
// under AddressSanitizer, which keeps freed blocks itself, and longer.
#ifdef NETSTACK_ASAN
constexpr size_t kMaxCached = 0;
#else
constexpr size_t kMaxCached = 512 * 1024;
#endif

LwipHeapStats g_stats;
BlockCache& Cache() {
  static auto* const cache = new BlockCache(kMaxCached);  // never destroyed
  return *cache;
}
uint32_t g_fault_one_in = 0;
constexpr uint32_t kFaultSeed = 2463534242u;
uint32_t g_fault_state = kFaultSeed;

bool Fault() {
  if (g_fault_one_in == 0) return false;
  // Xorshift (Marsaglia, 2003).
  g_fault_state ^= g_fault_state << 13;
  g_fault_state ^= g_fault_state >> 17;
  g_fault_state ^= g_fault_state << 5;
  return g_fault_state % g_fault_one_in == 0;
}

}  // namespace

LwipHeapStats GetLwipHeapStats() { return g_stats; }

void TrimLwipHeap() { Cache().Trim(); }

void SetLwipAllocationFaults(uint32_t one_in) {
  g_fault_one_in = one_in;
  g_fault_state = kFaultSeed;
}

}  // namespace netstack

extern "C" {

void* netstack_lwip_malloc(size_t size) {
  void* p = netstack::Fault() ? nullptr : netstack::Cache().Allocate(size);
  if (p == nullptr) {
    ++netstack::g_stats.failures;
  } else {
    ++netstack::g_stats.live;
  }
  return p;
}

void* netstack_lwip_calloc(size_t count, size_t size) {
  if (size != 0 && count > SIZE_MAX / size) return nullptr;
  void* p = netstack_lwip_malloc(count * size);
  if (p != nullptr) std::memset(p, 0, count * size);
  return p;
}

void netstack_lwip_free(void* p) {
  if (p == nullptr) return;
  --netstack::g_stats.live;
  netstack::Cache().Free(p);
}

}  // extern "C"

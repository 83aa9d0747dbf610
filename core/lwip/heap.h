// lwIP's memory: blocks of a BlockCache, counted, with failures on demand for
// tests. lwIP is one thread's.
#ifndef CORE_LWIP_HEAP_H_
#define CORE_LWIP_HEAP_H_

#include <cstdint>

namespace netstack {

struct LwipHeapStats {
  uint64_t live = 0;      // blocks handed out now
  uint64_t failures = 0;  // since the process started
};
LwipHeapStats GetLwipHeapStats();

// Gives blocks that wait for reuse back; called when traffic pauses.
void TrimLwipHeap();

// For tests: about one allocation in `one_in` fails from now on, by a
// pseudo-random sequence that is the same each time; 0 is none, the default.
void SetLwipAllocationFaults(uint32_t one_in);

}  // namespace netstack

#endif  // CORE_LWIP_HEAP_H_

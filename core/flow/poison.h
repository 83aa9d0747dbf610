// Memory that we keep for reuse, made unreadable under AddressSanitizer: a
// recycled record would otherwise hide each use after its end. No code in
// other builds.
#ifndef CORE_FLOW_POISON_H_
#define CORE_FLOW_POISON_H_

#include <cstddef>

#include "core/base/sanitizers.h"

#ifdef NETSTACK_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace netstack {

inline void Poison([[maybe_unused]] const void* p, [[maybe_unused]] size_t n) {
#ifdef NETSTACK_ASAN
  __asan_poison_memory_region(p, n);
#endif
}

inline void Unpoison([[maybe_unused]] const void* p,
                     [[maybe_unused]] size_t n) {
#ifdef NETSTACK_ASAN
  __asan_unpoison_memory_region(p, n);
#endif
}

}  // namespace netstack

#endif  // CORE_FLOW_POISON_H_

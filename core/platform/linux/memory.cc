#include "core/platform/memory.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace netstack {

void ReturnFreeMemory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

}  // namespace netstack

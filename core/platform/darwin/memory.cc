#include "core/platform/memory.h"

#include <malloc/malloc.h>

namespace netstack {

// Of every zone, as much as it can spare.
void ReturnFreeMemory() { malloc_zone_pressure_relief(nullptr, 0); }

}  // namespace netstack

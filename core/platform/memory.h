// Memory and the system.
#ifndef CORE_PLATFORM_MEMORY_H_
#define CORE_PLATFORM_MEMORY_H_

namespace netstack {

// Gives freed heap memory back to the system (malloc_trim(3)); may take
// milliseconds on a large heap.
void ReturnFreeMemory();

}  // namespace netstack

#endif  // CORE_PLATFORM_MEMORY_H_

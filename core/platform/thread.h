// Naming threads, for ps(1), top(1) and debuggers.
#ifndef CORE_PLATFORM_THREAD_H_
#define CORE_PLATFORM_THREAD_H_

namespace netstack {

// At most 15 bytes are kept.
void NameThisThread(const char* name);

}  // namespace netstack

#endif  // CORE_PLATFORM_THREAD_H_

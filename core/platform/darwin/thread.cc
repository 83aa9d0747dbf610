#include "core/platform/thread.h"

#include <pthread.h>

namespace netstack {

void NameThisThread(const char* name) { pthread_setname_np(name); }

}  // namespace netstack

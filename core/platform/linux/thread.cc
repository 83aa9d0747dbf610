#include "core/platform/thread.h"

#include <sys/prctl.h>

namespace netstack {

void NameThisThread(const char* name) { prctl(PR_SET_NAME, name); }

}  // namespace netstack

// Loaded into netstackd by LD_PRELOAD: malloc and its kin, which fail on
// demand in the core's thread. So every allocation of the data path takes
// part: lwIP's, payload's, and those of C++'s containers. gRPC's threads are
// left alone, for that library ends the process without memory.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "tests/e2e/support/faults.h"

namespace {

using netstack::e2e::Faults;

Faults* g_faults = nullptr;

enum class Thread : char { kUnknown, kCore, kOther };
__attribute__((tls_model("initial-exec"))) thread_local Thread t_thread =
    Thread::kUnknown;
__attribute__((tls_model("initial-exec"))) thread_local uint32_t t_random =
    2463534242u;

__attribute__((constructor)) void Map() {
  const char* path = std::getenv("NETSTACK_FAULTS");
  if (path == nullptr) return;
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  void* memory = mmap(nullptr, sizeof(Faults), PROT_READ | PROT_WRITE,
                      MAP_SHARED, fd, 0);
  close(fd);
  if (memory != MAP_FAILED) g_faults = static_cast<Faults*>(memory);
}

bool Fails() {
  if (g_faults == nullptr) return false;
  const uint32_t one_in = g_faults->one_in.load(std::memory_order_relaxed);
  if (one_in == 0) return false;
  if (t_thread == Thread::kUnknown) {
    char name[16] = {};
    prctl(PR_GET_NAME, name);
    t_thread = std::strcmp(name, "netstack-loop") == 0 ? Thread::kCore
                                                       : Thread::kOther;
  }
  if (t_thread != Thread::kCore) return false;
  g_faults->calls.fetch_add(1, std::memory_order_relaxed);
  // Xorshift (Marsaglia, 2003).
  t_random ^= t_random << 13;
  t_random ^= t_random >> 17;
  t_random ^= t_random << 5;
  if (t_random % one_in != 0) return false;
  g_faults->failed.fetch_add(1, std::memory_order_relaxed);
  errno = ENOMEM;
  return true;
}

}  // namespace

extern "C" {

// glibc's own, under the names that it exports for this.
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* old, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

void* malloc(size_t size) { return Fails() ? nullptr : __libc_malloc(size); }

void* calloc(size_t count, size_t size) {
  return Fails() ? nullptr : __libc_calloc(count, size);
}

void* realloc(void* old, size_t size) {
  return Fails() ? nullptr : __libc_realloc(old, size);
}

void* aligned_alloc(size_t alignment, size_t size) {
  return Fails() ? nullptr : __libc_memalign(alignment, size);
}

int posix_memalign(void** out, size_t alignment, size_t size) {
  if (Fails()) return ENOMEM;
  void* memory = __libc_memalign(alignment, size);
  if (memory == nullptr) return ENOMEM;
  *out = memory;
  return 0;
}

}  // extern "C"

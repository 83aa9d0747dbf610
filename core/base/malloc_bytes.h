// Bytes by malloc(3), for large buffers that one can live without for a while:
// operator new would first spend the reserve of core/base/memory_reserve.h, and
// then throw.
#ifndef CORE_BASE_MALLOC_BYTES_H_
#define CORE_BASE_MALLOC_BYTES_H_

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace netstack {

struct FreeMallocBytes {
  void operator()(std::byte* bytes) const { std::free(bytes); }
};
using MallocBytes = std::unique_ptr<std::byte[], FreeMallocBytes>;

// Not initialized, so that only pages which are used are ever touched. Null
// when there is no memory.
inline MallocBytes AllocateBytes(size_t size) {
  return MallocBytes(static_cast<std::byte*>(std::malloc(size)));
}

}  // namespace netstack

#endif  // CORE_BASE_MALLOC_BYTES_H_

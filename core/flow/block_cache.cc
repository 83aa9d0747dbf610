#include "core/flow/block_cache.h"

#include <cstdlib>

#include "core/flow/poison.h"

#if defined(__APPLE__)
#include <malloc/malloc.h>
#else
#include <malloc.h>
#endif

namespace netstack {
namespace {

// What malloc really gave. To know it here spares every block a header, and
// lwIP frees without telling a size.
size_t UsableSize(void* block) {
#if defined(__APPLE__)
  return malloc_size(block);
#else
  return malloc_usable_size(block);
#endif
}

// All of a waiting block but its link: LeakSanitizer does not look for pointers
// in what is poisoned.
void Hide(void* block, size_t size) {
  Poison(static_cast<std::byte*>(block) + sizeof(void*), size - sizeof(void*));
}

}  // namespace

size_t BlockCache::ClassFor(size_t size) {
  if (size <= kFineStep + 8) return 0;
  if (size <= kFineEnd) return (size - 8 + kFineStep - 1) / kFineStep - 1;
  return kFineClasses + (size - 8 + kCoarseStep - 1) / kCoarseStep - 2;
}

size_t BlockCache::BytesOf(size_t cls) {
  return cls < kFineClasses ? (cls + 1) * kFineStep + 8
                            : (cls - kFineClasses + 2) * kCoarseStep + 8;
}

size_t BlockCache::ClassOf(size_t usable) {
  if (usable < kFineStep + 8 || usable >= kMaxBlock + kCoarseStep) {
    return kClasses;
  }
  if (usable < 2 * kCoarseStep + 8) {
    const size_t fine = (usable - 8) / kFineStep - 1;
    return fine < kFineClasses ? fine : kFineClasses - 1;
  }
  return kFineClasses + (usable - 8) / kCoarseStep - 2;
}

void* BlockCache::Allocate(size_t size) {
  if (size > kMaxBlock) return std::malloc(size);
  const size_t cls = ClassFor(size);
  Waiting* block = waiting_[cls];
  if (block == nullptr) return std::malloc(BytesOf(cls));
  Unpoison(block, BytesOf(cls));
  waiting_[cls] = block->next;
  cached_bytes_ -= BytesOf(cls);
  return block;
}

void BlockCache::Free(void* p) {
  if (p == nullptr) return;
  const size_t cls = ClassOf(UsableSize(p));
  if (cls == kClasses || cached_bytes_ + BytesOf(cls) > max_bytes_) {
    std::free(p);
    return;
  }
  auto* block = static_cast<Waiting*>(p);
  block->next = waiting_[cls];
  waiting_[cls] = block;
  cached_bytes_ += BytesOf(cls);
  Hide(block, BytesOf(cls));
}

void BlockCache::Trim() {
  for (size_t cls = 0; cls < kClasses; ++cls) {
    while (Waiting* block = waiting_[cls]) {
      Unpoison(block, BytesOf(cls));
      waiting_[cls] = block->next;
      std::free(block);
    }
  }
  cached_bytes_ = 0;
}

}  // namespace netstack

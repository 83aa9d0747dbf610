#include "core/flow/buffer_pool.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "core/flow/poison.h"

namespace netstack {

BufferPool::~BufferPool() { Trim(); }

Chunk* BufferPool::Allocate(uint32_t capacity) {
  Chunk* chunk = nullptr;
  if (capacity == kFullChunk && recycled_ != nullptr) {
    chunk = recycled_;
    recycled_ = chunk->next;
    --recycled_count_;
    Unpoison(chunk->data(), chunk->capacity);
  } else {
    const uint64_t size = uint64_t{sizeof(Chunk)} + capacity;
    const bool fits = static_cast<size_t>(size) == size;  // 32-bit systems
    void* memory = fits ? small_.Allocate(static_cast<size_t>(size)) : nullptr;
    if (memory == nullptr) {
      ++failures_;
      return nullptr;
    }
    chunk = new (memory) Chunk;
    chunk->capacity = capacity;
  }
  chunk->next = nullptr;
  chunk->size = 0;
  used_ += capacity;
  peak_ = std::max(peak_, used_);
  return chunk;
}

void BufferPool::Free(Chunk* chunk) {
  used_ -= chunk->capacity;
  if (chunk->capacity != kFullChunk || recycled_count_ == kMaxRecycled) {
    small_.Free(chunk);
    return;
  }
  chunk->next = recycled_;
  recycled_ = chunk;
  ++recycled_count_;
  Poison(chunk->data(), chunk->capacity);
}

void BufferPool::FreeQueue(Chunk* head) {
  while (head != nullptr) {
    Chunk* next = head->next;
    Free(head);
    head = next;
  }
}

Chunk* BufferPool::Shrink(Chunk* chunk) {
  if (chunk->size == chunk->capacity) return chunk;
  // The two exist together for a moment only, which shall not count as a
  // peak.
  const uint32_t before = chunk->capacity;
  used_ -= before;
  Chunk* copy = Allocate(chunk->size);
  used_ += before;
  if (copy == nullptr) return chunk;
  std::memcpy(copy->data(), chunk->data(), chunk->size);
  copy->size = chunk->size;
  copy->next = chunk->next;
  Free(chunk);
  return copy;
}

void BufferPool::Trim() {
  while (recycled_ != nullptr) {
    Chunk* next = recycled_->next;
    Unpoison(recycled_->data(), recycled_->capacity);
    small_.Free(recycled_);
    recycled_ = next;
  }
  recycled_count_ = 0;
  small_.Trim();
}

}  // namespace netstack

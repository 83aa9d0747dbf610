// Memory for payload: chunks out of one budget.
//
// Every byte that a flow holds back (the host's socket is full, the app's
// window is closed) lies in a chunk of this pool, so that one number says what
// buffering costs and one limit bounds it. An idle flow holds no chunk.
#ifndef CORE_FLOW_BUFFER_POOL_H_
#define CORE_FLOW_BUFFER_POOL_H_

#include <cstddef>
#include <cstdint>

#include "core/base/bytes.h"
#include "core/flow/block_cache.h"

namespace netstack {

// `size` of `capacity` bytes behind the header are in use. Owned by whoever
// took it from the pool; chunks link into singly linked queues by `next`.
struct Chunk {
  Chunk* next = nullptr;
  uint32_t size = 0;
  uint32_t capacity = 0;

  std::byte* data() { return reinterpret_cast<std::byte*>(this + 1); }
  const std::byte* data() const {
    return reinterpret_cast<const std::byte*>(this + 1);
  }
  Bytes used() const { return {data(), size}; }
  MutableBytes room() { return {data() + size, capacity - size}; }
};

class BufferPool {
 public:
  // The capacity of a full-size chunk, which the pool recycles: a TCP
  // super-segment and a little.
  static constexpr uint32_t kFullChunk = 64 * 1024;

  // `budget` in bytes of capacity; 0 is no limit.
  explicit BufferPool(uint64_t budget) : budget_(budget) {}
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // A chunk of at least `capacity` bytes, or nullptr when malloc fails
  // (counted). The budget is not asked: callers decide with HasRoom() whether
  // a flow may take more than its floor, and a floor is always granted.
  Chunk* Allocate(uint32_t capacity);
  void Free(Chunk* chunk);
  // Frees a whole queue; nullptr is an empty one.
  void FreeQueue(Chunk* head);
  // A copy of `chunk`'s used bytes in the smallest chunk that holds them;
  // `chunk` goes back to the pool. When memory fails, `chunk` itself.
  Chunk* Shrink(Chunk* chunk);

  // Whether `more` bytes beyond the floors may be taken or promised.
  bool HasRoom(uint64_t more) const {
    return budget_ == 0 || used_ + promised_ + more <= budget_;
  }
  // Windows beyond the floor that flows were promised (TCP may not take a
  // promise back); counts against the budget like used bytes.
  void Promise(uint64_t bytes) { promised_ += bytes; }
  void Unpromise(uint64_t bytes) { promised_ -= bytes; }

  // Gives recycled chunks back to the system; called when traffic pauses.
  void Trim();

  void set_budget(uint64_t budget) { budget_ = budget; }
  uint64_t budget() const { return budget_; }
  uint64_t used() const { return used_; }  // bytes of capacity handed out
  uint64_t peak() const { return peak_; }
  uint64_t allocation_failures() const { return failures_; }

 private:
  static constexpr uint32_t kMaxRecycled = 32;
  static constexpr size_t kMaxSmallCached = 1024 * 1024;

  uint64_t budget_;
  uint64_t used_ = 0;
  uint64_t promised_ = 0;
  uint64_t peak_ = 0;
  uint64_t failures_ = 0;
  Chunk* recycled_ = nullptr;  // full-size chunks, owned
  uint32_t recycled_count_ = 0;
  BlockCache small_{kMaxSmallCached};
};

}  // namespace netstack

#endif  // CORE_FLOW_BUFFER_POOL_H_

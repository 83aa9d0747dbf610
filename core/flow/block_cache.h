// malloc(3) with a memory for small blocks: what a packet needs for a moment
// (lwIP's segments and headers, a chunk of a few bytes) is the block that the
// packet before it gave back, so that carrying packets allocates nothing once
// it is under way.
//
// A block's size is rounded up to its class: 16 bytes apart up to 264, then
// 256 apart up to kMaxBlock. Larger ones go straight to malloc. Blocks that
// wait are unreadable under AddressSanitizer. One thread.
#ifndef CORE_FLOW_BLOCK_CACHE_H_
#define CORE_FLOW_BLOCK_CACHE_H_

#include <array>
#include <cstddef>

namespace netstack {

class BlockCache {
 public:
  static constexpr size_t kMaxBlock = 64 * 256 + 8;

  // Keeps at most `max_bytes` of blocks for reuse.
  explicit constexpr BlockCache(size_t max_bytes) : max_bytes_(max_bytes) {}
  ~BlockCache() { Trim(); }
  BlockCache(const BlockCache&) = delete;
  BlockCache& operator=(const BlockCache&) = delete;

  // As malloc(3) and free(3); the bytes are not initialised.
  void* Allocate(size_t size);
  void Free(void* block);

  // Gives the waiting blocks back; called when traffic pauses.
  void Trim();

  size_t cached_bytes() const { return cached_bytes_; }

 private:
  struct Waiting {
    Waiting* next;
  };
  // Sizes that glibc hands out without a rest: 16 n + 8.
  static constexpr size_t kFineStep = 16;
  static constexpr size_t kFineClasses = 16;
  static constexpr size_t kCoarseStep = 256;
  static constexpr size_t kFineEnd = kFineClasses * kFineStep + 8;
  static constexpr size_t kClasses = kFineClasses + kMaxBlock / kCoarseStep;

  // The class whose blocks have `size` bytes at least.
  static size_t ClassFor(size_t size);
  static size_t BytesOf(size_t cls);
  // The highest class that a block of `usable` bytes may serve; kClasses
  // when it is none's.
  static size_t ClassOf(size_t usable);

  const size_t max_bytes_;
  size_t cached_bytes_ = 0;
  std::array<Waiting*, kClasses> waiting_{};
};

}  // namespace netstack

#endif  // CORE_FLOW_BLOCK_CACHE_H_

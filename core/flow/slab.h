// Records that stay where they are, found by a 32-bit index with a
// generation: what an epoll event carries instead of a pointer.
#ifndef CORE_FLOW_SLAB_H_
#define CORE_FLOW_SLAB_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace netstack {

// T has public members `uint32_t index` and `uint32_t generation`, written by
// the slab only. Memory grows by blocks and is given back block by block when
// the last record of a block goes, save one.
template <typename T>
class Slab {
 public:
  static constexpr uint32_t kBlock = 256;

  Slab() = default;
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  ~Slab();

  // A default-constructed record with its index and a new generation
  // (24 bits, never 0), or nullptr when malloc fails.
  T* Allocate();
  void Free(T* record);

  // The live record at `index` if it is still of that generation.
  T* Find(uint32_t index, uint32_t generation) const;
  // The live record at `index`; the caller knows that there is one.
  T* At(uint32_t index) const;

  // Calls fn(T*) for every live record. `fn` may free the record it is given,
  // and no other.
  template <typename Fn>
  void ForEach(Fn&& fn) const;

  uint32_t size() const { return size_; }
  size_t memory() const;  // bytes of all blocks and bookkeeping

 private:
  struct Block;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<uint32_t> with_room_;  // indices of blocks with a free record
  uint32_t size_ = 0;
  uint32_t next_generation_ = 1;
};

}  // namespace netstack

// The implementation belongs below this line, in this file.

#endif  // CORE_FLOW_SLAB_H_

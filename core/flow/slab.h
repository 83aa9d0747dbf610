// Records that stay where they are, found by a 32-bit index with a
// generation: what an epoll event carries instead of a pointer.
#ifndef CORE_FLOW_SLAB_H_
#define CORE_FLOW_SLAB_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <vector>

#include "core/flow/poison.h"

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

  // The block to allocate from, or nullptr when malloc fails.
  Block* BlockWithRoom();
  bool AddBlock();
  Block* BlockOf(uint32_t index) const;

  std::vector<std::unique_ptr<Block>> blocks_;  // null where given back
  // A min-heap of the blocks with a free record: filling the lowest one first
  // lets the others run empty. Entries of blocks that were given back stay
  // until they come up.
  std::vector<uint32_t> with_room_;
  uint32_t empty_blocks_ = 0;  // 0 or 1
  uint32_t size_ = 0;
  uint32_t next_generation_ = 1;
};

// The implementation.

template <typename T>
struct Slab<T>::Block {
  static constexpr uint32_t kWords = kBlock / 64;

  uint64_t live[kWords] = {};  // bit per record
  uint32_t count = 0;          // of live records
  alignas(T) std::byte storage[kBlock * sizeof(T)];

  Block() { Poison(storage, sizeof(storage)); }
  ~Block() {
    for (uint32_t slot = NextLive(0); slot < kBlock;
         slot = NextLive(slot + 1)) {
      Record(slot)->~T();
    }
    Unpoison(storage, sizeof(storage));  // malloc's from here on
  }

  std::byte* Place(uint32_t slot) { return storage + slot * sizeof(T); }
  T* Record(uint32_t slot) {
    return std::launder(reinterpret_cast<T*>(Place(slot)));
  }
  bool IsLive(uint32_t slot) const {
    return (live[slot / 64] >> (slot % 64) & 1) != 0;
  }
  // The first live record from `slot` on, or kBlock.
  uint32_t NextLive(uint32_t slot) const {
    for (uint32_t word = slot / 64; word < kWords; ++word, slot = word * 64) {
      const uint64_t rest = live[word] >> (slot % 64);
      if (rest != 0)
        return slot + static_cast<uint32_t>(std::countr_zero(rest));
    }
    return kBlock;
  }
  // Only when count < kBlock.
  uint32_t FirstFree() const {
    uint32_t word = 0;
    while (live[word] == ~uint64_t{0}) ++word;
    return word * 64 + static_cast<uint32_t>(std::countr_one(live[word]));
  }
};

template <typename T>
Slab<T>::~Slab() = default;

template <typename T>
T* Slab<T>::Allocate() {
  Block* block = BlockWithRoom();
  if (block == nullptr) return nullptr;
  const uint32_t number = with_room_.front();
  const uint32_t slot = block->FirstFree();
  Unpoison(block->Place(slot), sizeof(T));
  T* record = new (block->Place(slot)) T();
  record->index = number * kBlock + slot;
  record->generation = next_generation_;
  next_generation_ = next_generation_ == 0xFFFFFF ? 1 : next_generation_ + 1;

  if (block->count == 0) --empty_blocks_;
  block->live[slot / 64] |= uint64_t{1} << (slot % 64);
  ++size_;
  if (++block->count == kBlock) {
    std::pop_heap(with_room_.begin(), with_room_.end(), std::greater<>());
    with_room_.pop_back();
  }
  return record;
}

template <typename T>
void Slab<T>::Free(T* record) {
  const uint32_t number = record->index / kBlock;
  const uint32_t slot = record->index % kBlock;
  Block* block = blocks_[number].get();
  record->~T();
  Poison(block->Place(slot), sizeof(T));
  block->live[slot / 64] &= ~(uint64_t{1} << (slot % 64));
  --size_;
  if (block->count-- == kBlock) {
    // Cannot fail: AddBlock() made room for every block.
    with_room_.push_back(number);
    std::push_heap(with_room_.begin(), with_room_.end(), std::greater<>());
  }
  if (block->count != 0) return;
  // One empty block is kept, lest a record that comes and goes at the edge of
  // a block cost a malloc each time.
  if (empty_blocks_ == 0) {
    empty_blocks_ = 1;
  } else {
    blocks_[number].reset();
  }
}

template <typename T>
T* Slab<T>::Find(uint32_t index, uint32_t generation) const {
  Block* block = BlockOf(index);
  if (block == nullptr || !block->IsLive(index % kBlock)) return nullptr;
  T* record = block->Record(index % kBlock);
  return record->generation == generation ? record : nullptr;
}

template <typename T>
T* Slab<T>::At(uint32_t index) const {
  return blocks_[index / kBlock]->Record(index % kBlock);
}

template <typename T>
template <typename Fn>
void Slab<T>::ForEach(Fn&& fn) const {
  for (uint32_t number = 0; number < blocks_.size(); ++number) {
    // Looked up anew each time: `fn` may have freed the block's last record.
    for (uint32_t slot = 0;; ++slot) {
      Block* block = BlockOf(number * kBlock);
      if (block == nullptr) break;
      slot = block->NextLive(slot);
      if (slot == kBlock) break;
      fn(block->Record(slot));
    }
  }
}

template <typename T>
size_t Slab<T>::memory() const {
  size_t bytes = blocks_.capacity() * sizeof(blocks_[0]) +
                 with_room_.capacity() * sizeof(with_room_[0]);
  for (const auto& block : blocks_) bytes += block ? sizeof(Block) : 0;
  return bytes;
}

template <typename T>
typename Slab<T>::Block* Slab<T>::BlockOf(uint32_t index) const {
  const uint32_t number = index / kBlock;
  return number < blocks_.size() ? blocks_[number].get() : nullptr;
}

template <typename T>
typename Slab<T>::Block* Slab<T>::BlockWithRoom() {
  while (!with_room_.empty()) {
    Block* block = BlockOf(with_room_.front() * kBlock);
    if (block != nullptr) return block;
    std::pop_heap(with_room_.begin(), with_room_.end(), std::greater<>());
    with_room_.pop_back();
  }
  return AddBlock() ? blocks_[with_room_.front()].get() : nullptr;
}

// Only when with_room_ is empty, so that no block can be in it twice.
template <typename T>
bool Slab<T>::AddBlock() {
  // Rare (once per kBlock records), so a search is cheap enough.
  const auto hole = std::find(blocks_.begin(), blocks_.end(), nullptr);
  const auto number = static_cast<uint32_t>(hole - blocks_.begin());
  try {
    if (hole == blocks_.end()) blocks_.emplace_back();
    with_room_.reserve(blocks_.capacity());
    blocks_[number] = std::make_unique<Block>();
  } catch (const std::bad_alloc&) {
    return false;  // an empty slot at the end does no harm
  }
  with_room_.push_back(number);
  ++empty_blocks_;
  return true;
}

}  // namespace netstack

#endif  // CORE_FLOW_SLAB_H_

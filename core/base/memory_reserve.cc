#include "core/base/memory_reserve.h"

#include <cstdlib>

namespace netstack {
namespace {

std::atomic<MemoryReserve*> g_reserve{nullptr};

}  // namespace

MemoryReserve::MemoryReserve() {
  MemoryReserve* none = nullptr;
  installed_ = g_reserve.compare_exchange_strong(none, this);
  if (!installed_) return;
  for (std::atomic<void*>& block : blocks_) block = std::malloc(kBlockSize);
  before_ = std::set_new_handler(&MemoryReserve::OnNoMemory);
}

MemoryReserve::~MemoryReserve() {
  if (!installed_) return;
  std::set_new_handler(before_);
  g_reserve = nullptr;
  for (std::atomic<void*>& block : blocks_) std::free(block.exchange(nullptr));
}

bool MemoryReserve::Give() {
  for (std::atomic<void*>& block : blocks_) {
    if (void* memory = block.exchange(nullptr); memory != nullptr) {
      std::free(memory);
      ++given_;
      return true;
    }
  }
  return false;
}

// Returning means: try again.
void MemoryReserve::OnNoMemory() {
  MemoryReserve* reserve = g_reserve.load();
  if (reserve == nullptr || !reserve->Give()) throw std::bad_alloc();
}

bool MemoryReserve::Refill() {
  const uint64_t given = given_.load();
  if (given == refilled_) return true;
  for (std::atomic<void*>& block : blocks_) {
    if (block.load() != nullptr) continue;
    void* memory = std::malloc(kBlockSize);
    if (memory == nullptr) return false;
    block = memory;
  }
  // Blocks given meanwhile count for the next turn.
  refilled_ = given;
  return true;
}

}  // namespace netstack

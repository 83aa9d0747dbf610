// Memory kept back for the moment when there is none.
//
// Payload is allocated by malloc(3) and every caller can live without: a flow
// waits or is shed. The containers around it cannot: std::vector and absl's
// tables throw, and nobody could go on from the middle of that. So some blocks
// are held in reserve, and operator new, when it finds no memory, gives one
// back and tries again. What a loop turn adds to its lists is far less than
// the reserve; after the turn the loop takes it again, and opens no flow until
// it has it (DropReason::kNoMemory).
#ifndef CORE_BASE_MEMORY_RESERVE_H_
#define CORE_BASE_MEMORY_RESERVE_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

namespace netstack {

// C++'s new handler is global: the first one of the process is it, another at
// the same time does nothing.
class MemoryReserve {
 public:
  static constexpr size_t kBlocks = 8;
  // Below malloc's threshold for mapping: freed, it serves small requests.
  static constexpr size_t kBlockSize = 32 * 1024;

  MemoryReserve();
  ~MemoryReserve();
  MemoryReserve(const MemoryReserve&) = delete;
  MemoryReserve& operator=(const MemoryReserve&) = delete;

  // Takes again what was given back; false while that fails. Costs one load
  // when nothing was. The thread that made the reserve.
  bool Refill();
  // Blocks given back so far.
  uint64_t given() const { return given_.load(std::memory_order_relaxed); }

 private:
  static void OnNoMemory();
  bool Give();

  // Any thread's operator new takes from these.
  std::array<std::atomic<void*>, kBlocks> blocks_{};
  std::atomic<uint64_t> given_{0};
  uint64_t refilled_ = 0;  // given_, when all blocks were there
  bool installed_ = false;
  std::new_handler before_ = nullptr;
};

}  // namespace netstack

#endif  // CORE_BASE_MEMORY_RESERVE_H_

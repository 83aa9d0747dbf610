#include "core/base/memory_reserve.h"

#include <new>

#include "core/base/sanitizers.h"
#include "gtest/gtest.h"

namespace netstack {
namespace {

// What operator new calls when malloc fails.
void NewFails() { std::get_new_handler()(); }

TEST(MemoryReserveTest, GivesItsBlocksAndThenGivesUp) {
  MemoryReserve reserve;
  EXPECT_TRUE(reserve.Refill());
  for (size_t i = 0; i < MemoryReserve::kBlocks; ++i) {
    EXPECT_NO_THROW(NewFails()) << i;
  }
  EXPECT_EQ(reserve.given(), MemoryReserve::kBlocks);
  EXPECT_THROW(NewFails(), std::bad_alloc);
  EXPECT_EQ(reserve.given(), MemoryReserve::kBlocks);
}

TEST(MemoryReserveTest, RefillTakesAgainWhatWasGiven) {
  MemoryReserve reserve;
  for (int round = 0; round < 3; ++round) {
    NewFails();
    NewFails();
    EXPECT_TRUE(reserve.Refill());
  }
  EXPECT_EQ(reserve.given(), 6u);
  // All of them are there again.
  for (size_t i = 0; i < MemoryReserve::kBlocks; ++i) NewFails();
  EXPECT_THROW(NewFails(), std::bad_alloc);
}

TEST(MemoryReserveTest, SecondOneDoesNothing) {
  const std::new_handler before = std::get_new_handler();
  {
    MemoryReserve reserve;
    const std::new_handler ours = std::get_new_handler();
    EXPECT_NE(ours, before);
    {
      MemoryReserve second;
      NewFails();
      EXPECT_EQ(second.given(), 0u);
      EXPECT_EQ(reserve.given(), 1u);
    }
    EXPECT_EQ(std::get_new_handler(), ours);
    NewFails();
    EXPECT_EQ(reserve.given(), 2u);
  }
  EXPECT_EQ(std::get_new_handler(), before);
}

#if !defined(NETSTACK_ASAN) && !defined(NETSTACK_TSAN)
// Sanitizers end a process that asks for so much.
TEST(MemoryReserveTest, OperatorNewAsksIt) {
  MemoryReserve reserve;
  // More than any machine has: it is tried again for every block there is.
  volatile size_t much = size_t{1} << 60;
  void* memory = nullptr;
  EXPECT_THROW(memory = ::operator new(much), std::bad_alloc);
  EXPECT_EQ(memory, nullptr);
  EXPECT_EQ(reserve.given(), MemoryReserve::kBlocks);
}
#endif

}  // namespace
}  // namespace netstack

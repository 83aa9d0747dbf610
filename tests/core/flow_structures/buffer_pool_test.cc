#include "core/flow/buffer_pool.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/base/sanitizers.h"
#include "gtest/gtest.h"

namespace netstack {
namespace {

constexpr uint32_t kFull = BufferPool::kFullChunk;

void Fill(Chunk* chunk, absl::string_view text) {
  ASSERT_GE(chunk->room().size(), text.size());
  std::memcpy(chunk->room().data(), text.data(), text.size());
  chunk->size += static_cast<uint32_t>(text.size());
}

absl::string_view Text(const Chunk* chunk) {
  return {reinterpret_cast<const char*>(chunk->data()), chunk->size};
}

TEST(BufferPoolTest, ChunkIsEmptyAndUnlinked) {
  BufferPool pool(0);
  Chunk* chunk = pool.Allocate(100);
  ASSERT_NE(chunk, nullptr);
  EXPECT_EQ(chunk->next, nullptr);
  EXPECT_EQ(chunk->size, 0u);
  EXPECT_GE(chunk->capacity, 100u);
  EXPECT_EQ(chunk->room().size(), chunk->capacity);
  // Every byte is ours; ASan says so otherwise.
  std::memset(chunk->data(), 0xAA, chunk->capacity);
  pool.Free(chunk);
}

TEST(BufferPoolTest, CountsCapacityHandedOut) {
  BufferPool pool(0);
  Chunk* a = pool.Allocate(1000);
  Chunk* b = pool.Allocate(kFull);
  EXPECT_EQ(pool.used(), 1000u + kFull);
  pool.Free(a);
  EXPECT_EQ(pool.used(), kFull);
  pool.Free(b);
  EXPECT_EQ(pool.used(), 0u);
  EXPECT_EQ(pool.peak(), 1000u + kFull);
  pool.Free(pool.Allocate(10));
  EXPECT_EQ(pool.peak(), 1000u + kFull);
}

TEST(BufferPoolTest, BudgetBoundsRoomAndNotAllocation) {
  BufferPool pool(1000);
  EXPECT_TRUE(pool.HasRoom(1000));
  EXPECT_FALSE(pool.HasRoom(1001));
  Chunk* chunk = pool.Allocate(600);
  EXPECT_TRUE(pool.HasRoom(400));
  EXPECT_FALSE(pool.HasRoom(401));
  pool.Promise(300);
  EXPECT_TRUE(pool.HasRoom(100));
  EXPECT_FALSE(pool.HasRoom(101));
  pool.Unpromise(300);
  EXPECT_TRUE(pool.HasRoom(400));
  // A floor is granted whatever the budget says.
  Chunk* floor = pool.Allocate(5000);
  ASSERT_NE(floor, nullptr);
  EXPECT_FALSE(pool.HasRoom(0));
  pool.set_budget(0);
  EXPECT_TRUE(pool.HasRoom(1ull << 40));
  pool.Free(chunk);
  pool.Free(floor);
}

TEST(BufferPoolTest, FreesQueue) {
  BufferPool pool(0);
  Chunk* head = nullptr;
  for (int i = 0; i < 100; ++i) {
    Chunk* chunk = pool.Allocate(i % 2 == 0 ? kFull : 10);
    chunk->next = head;
    head = chunk;
  }
  pool.FreeQueue(head);
  EXPECT_EQ(pool.used(), 0u);
  pool.FreeQueue(nullptr);
  EXPECT_EQ(pool.used(), 0u);
}

TEST(BufferPoolTest, RecycledChunkIsAsNew) {
  BufferPool pool(0);
  Chunk* other = pool.Allocate(kFull);
  Chunk* first = pool.Allocate(kFull);
  Fill(first, "secret");
  first->next = first;
  pool.Free(other);
  pool.Free(first);
  Chunk* again = pool.Allocate(kFull);
  EXPECT_EQ(again, first) << "full-size chunks shall be recycled";
  EXPECT_EQ(again->size, 0u);
  EXPECT_EQ(again->next, nullptr);
  std::memset(again->data(), 0, again->capacity);
  pool.Free(again);
}

TEST(BufferPoolTest, TrimmedPoolStillServes) {
  BufferPool pool(0);
  std::vector<Chunk*> chunks;
  for (int i = 0; i < 64; ++i) chunks.push_back(pool.Allocate(kFull));
  for (Chunk* chunk : chunks) pool.Free(chunk);
  pool.Trim();
  pool.Trim();
  Chunk* chunk = pool.Allocate(kFull);
  Fill(chunk, "x");
  EXPECT_EQ(Text(chunk), "x");
  // And recycles; without that, ASan's malloc gives another one.
  pool.Free(chunk);
  EXPECT_EQ(pool.Allocate(kFull), chunk);
  pool.Free(chunk);
}

TEST(BufferPoolTest, ShrinkKeepsBytesAndLink) {
  BufferPool pool(0);
  Chunk* chunk = pool.Allocate(kFull);
  Chunk* next = pool.Allocate(10);
  Fill(chunk, "twelve bytes");
  chunk->next = next;
  Chunk* small = pool.Shrink(chunk);
  EXPECT_EQ(Text(small), "twelve bytes");
  EXPECT_EQ(small->capacity, 12u);
  EXPECT_EQ(small->next, next);
  EXPECT_EQ(pool.used(), 12u + 10u);
  EXPECT_EQ(pool.peak(), kFull + 10u);
  EXPECT_EQ(pool.Shrink(small), small) << "there is nothing to gain";
  pool.FreeQueue(small);
}

#if !defined(NETSTACK_ASAN) && !defined(NETSTACK_TSAN)
// Sanitizers map terabytes themselves and end a process that malloc fails.
TEST(BufferPoolTest, MallocFailureIsToldAndCounted) {
  // In a child, whose address space is small from now on.
  const auto starve = [] {
    BufferPool pool(0);
    Chunk* chunk = pool.Allocate(kFull);
    chunk->size = 10;
    const rlimit none{0, 0};
    setrlimit(RLIMIT_AS, &none);
    setrlimit(RLIMIT_DATA, &none);
    const bool failed = pool.Allocate(1u << 30) == nullptr;
    const bool counted = pool.allocation_failures() == 1;
    const bool used = pool.used() == kFull;
    // A small one may still be had of what malloc keeps.
    Chunk* shrunk = pool.Shrink(chunk);
    _exit(failed && counted && used && shrunk != nullptr ? 0 : 1);
  };
  EXPECT_EXIT(starve(), testing::ExitedWithCode(0), "");
}
#endif

}  // namespace
}  // namespace netstack

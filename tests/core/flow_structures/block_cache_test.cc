#include "core/flow/block_cache.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"

namespace netstack {
namespace {

constexpr size_t kMiB = 1024 * 1024;

TEST(BlockCacheTest, EverySizeFits) {
  BlockCache cache(kMiB);
  for (size_t size = 0; size <= BlockCache::kMaxBlock + 600; ++size) {
    void* block = cache.Allocate(size);
    ASSERT_NE(block, nullptr);
    ASSERT_EQ(reinterpret_cast<uintptr_t>(block) % alignof(std::max_align_t),
              0u);
    // Every byte is ours, of a new block and of one that waited.
    std::memset(block, 0xAA, size);
    cache.Free(block);
    void* again = cache.Allocate(size);
    std::memset(again, 0x55, size);
    cache.Free(again);
  }
  cache.Free(nullptr);
}

TEST(BlockCacheTest, TheNextOfThatClassGetsTheSameBlock) {
  BlockCache cache(kMiB);
  for (const size_t size : {1u, 24u, 25u, 40u, 264u, 265u, 1476u, 16392u}) {
    void* block = cache.Allocate(size);
    cache.Free(block);
    EXPECT_GE(cache.cached_bytes(), size);
    EXPECT_EQ(cache.Allocate(size), block) << size;
    EXPECT_EQ(cache.cached_bytes(), 0u);
    std::free(block);
  }
}

TEST(BlockCacheTest, ABlockServesNoLargerRequest) {
  BlockCache cache(kMiB);
  void* small = cache.Allocate(40);
  cache.Free(small);
  void* large = cache.Allocate(41);
  EXPECT_NE(large, small);
  cache.Free(large);
}

TEST(BlockCacheTest, KeepsNoMoreThanItMay) {
  BlockCache cache(1000);
  std::vector<void*> blocks;
  for (int i = 0; i < 100; ++i) blocks.push_back(cache.Allocate(100));
  for (void* block : blocks) cache.Free(block);
  EXPECT_GT(cache.cached_bytes(), 800u);
  EXPECT_LE(cache.cached_bytes(), 1000u);
}

TEST(BlockCacheTest, LargeBlocksDoNotWait) {
  BlockCache cache(kMiB);
  cache.Free(cache.Allocate(BlockCache::kMaxBlock + 1000));
  EXPECT_EQ(cache.cached_bytes(), 0u);
}

TEST(BlockCacheTest, TrimGivesAllBack) {
  BlockCache cache(kMiB);
  std::vector<void*> blocks;
  for (size_t size = 1; size < 10'000; size += 7) {
    blocks.push_back(cache.Allocate(size));
  }
  for (void* block : blocks) cache.Free(block);
  EXPECT_GT(cache.cached_bytes(), 0u);
  cache.Trim();
  EXPECT_EQ(cache.cached_bytes(), 0u);
  cache.Free(cache.Allocate(100));  // goes on
  EXPECT_GT(cache.cached_bytes(), 0u);
}

}  // namespace
}  // namespace netstack

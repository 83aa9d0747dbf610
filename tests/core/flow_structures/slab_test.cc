#include "core/flow/slab.h"

#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "core/base/sanitizers.h"
#include "gtest/gtest.h"

namespace netstack {
namespace {

struct Record {
  static inline int alive = 0;

  uint32_t index = 0;
  uint32_t generation = 0;
  uint64_t value = 42;

  Record() { ++alive; }
  ~Record() { --alive; }
};

using RecordSlab = Slab<Record>;
constexpr uint32_t kBlock = RecordSlab::kBlock;

TEST(SlabTest, RecordIsDefaultConstructedAndFound) {
  RecordSlab slab;
  Record* r = slab.Allocate();
  ASSERT_NE(r, nullptr);
  EXPECT_EQ(r->value, 42u);
  EXPECT_NE(r->generation, 0u);
  EXPECT_EQ(slab.Find(r->index, r->generation), r);
  EXPECT_EQ(slab.At(r->index), r);
  EXPECT_EQ(slab.size(), 1u);
}

TEST(SlabTest, FindsNothingWhereThereIsNothing) {
  RecordSlab slab;
  EXPECT_EQ(slab.Find(0, 1), nullptr);
  Record* r = slab.Allocate();
  EXPECT_EQ(slab.Find(r->index, r->generation + 1), nullptr);
  EXPECT_EQ(slab.Find(r->index, 0), nullptr);
  EXPECT_EQ(slab.Find(r->index + 1, r->generation), nullptr);
  EXPECT_EQ(slab.Find(r->index + kBlock, r->generation), nullptr);
  EXPECT_EQ(slab.Find(UINT32_MAX, r->generation), nullptr);
}

TEST(SlabTest, StaleReferenceToReusedIndexIsNotFound) {
  RecordSlab slab;
  Record* keeper = slab.Allocate();
  Record* first = slab.Allocate();
  const uint32_t index = first->index;
  const uint32_t generation = first->generation;
  slab.Free(first);
  EXPECT_EQ(slab.Find(index, generation), nullptr);
  Record* second = slab.Allocate();
  ASSERT_EQ(second->index, index);
  EXPECT_EQ(second->value, 42u);
  EXPECT_EQ(slab.Find(index, generation), nullptr);
  EXPECT_EQ(slab.Find(index, second->generation), second);
  EXPECT_NE(slab.Find(keeper->index, keeper->generation), nullptr);
}

TEST(SlabTest, GenerationHas24BitsAndIsNeverZero) {
  RecordSlab slab;
  uint32_t last = 0;
  for (uint32_t i = 0; i < (1u << 24) + 10; ++i) {
    Record* r = slab.Allocate();
    if (r->generation == 0 || r->generation > 0xFFFFFF ||
        r->generation == last) {
      FAIL() << "generation " << r->generation << " of allocation " << i;
    }
    last = r->generation;
    slab.Free(r);
  }
}

TEST(SlabTest, RecordsStayWhereTheyAre) {
  RecordSlab slab;
  std::vector<Record*> records;
  std::set<uint32_t> indices;
  for (uint32_t i = 0; i < 10 * kBlock; ++i) {
    records.push_back(slab.Allocate());
    records.back()->value = i;
    indices.insert(records.back()->index);
  }
  EXPECT_EQ(indices.size(), records.size());
  for (uint32_t i = 0; i < records.size(); ++i) {
    EXPECT_EQ(records[i]->value, i);
    EXPECT_EQ(slab.At(records[i]->index), records[i]);
  }
}

TEST(SlabTest, DestroysRecords) {
  ASSERT_EQ(Record::alive, 0);
  {
    RecordSlab slab;
    std::vector<Record*> records;
    for (uint32_t i = 0; i < 3 * kBlock; ++i) {
      records.push_back(slab.Allocate());
    }
    slab.Free(records[7]);
    EXPECT_EQ(Record::alive, static_cast<int>(3 * kBlock) - 1);
  }
  EXPECT_EQ(Record::alive, 0);
}

TEST(SlabTest, GivesBlocksBackSaveOne) {
  RecordSlab slab;
  Record* first = slab.Allocate();
  const size_t one_block = slab.memory();
  std::vector<Record*> records;
  for (uint32_t i = 1; i < 100 * kBlock; ++i) {
    records.push_back(slab.Allocate());
  }
  const size_t hundred_blocks = slab.memory();
  EXPECT_GE(hundred_blocks, 100 * kBlock * sizeof(Record));
  for (Record* r : records) slab.Free(r);
  // The first block lives, another one is kept.
  EXPECT_LT(slab.memory(), hundred_blocks / 20);
  slab.Free(first);
  EXPECT_EQ(slab.size(), 0u);
  EXPECT_GE(slab.memory(), sizeof(Record) * kBlock);
  EXPECT_LT(slab.memory(), 2 * one_block);
}

TEST(SlabTest, EdgeOfBlockCostsNoBlockEachTime) {
  RecordSlab slab;
  for (uint32_t i = 0; i < kBlock; ++i) slab.Allocate();
  Record* first = slab.Allocate();
  const size_t memory = slab.memory();
  slab.Free(first);
  EXPECT_EQ(slab.memory(), memory);
  slab.Free(slab.Allocate());
  EXPECT_EQ(slab.memory(), memory);
}

TEST(SlabTest, FillsLowestBlockFirst) {
  RecordSlab slab;
  std::vector<Record*> records;
  for (uint32_t i = 0; i < 4 * kBlock; ++i) {
    records.push_back(slab.Allocate());
  }
  slab.Free(records[3 * kBlock + 5]);
  slab.Free(records[1 * kBlock + 5]);
  slab.Free(records[2 * kBlock + 5]);
  EXPECT_EQ(slab.Allocate()->index, 1 * kBlock + 5);
  EXPECT_EQ(slab.Allocate()->index, 2 * kBlock + 5);
  EXPECT_EQ(slab.Allocate()->index, 3 * kBlock + 5);
  EXPECT_EQ(slab.Allocate()->index, 4 * kBlock);
}

TEST(SlabTest, ForEachVisitsEachOnceAndMayFreeIt) {
  RecordSlab slab;
  std::vector<Record*> records;
  for (uint32_t i = 0; i < 5 * kBlock; ++i) {
    records.push_back(slab.Allocate());
    records.back()->value = i;
  }
  slab.Free(records[64]);  // holes at the ends of words
  slab.Free(records[127]);
  std::set<uint64_t> seen;
  slab.ForEach([&](Record* r) {
    EXPECT_TRUE(seen.insert(r->value).second);
    // Frees whole blocks, the first and the last too.
    if (r->value < 3 * kBlock || r->value >= 4 * kBlock) slab.Free(r);
  });
  EXPECT_EQ(seen.size(), 5 * kBlock - 2);
  EXPECT_EQ(slab.size(), kBlock);
  slab.ForEach([&](Record* r) { slab.Free(r); });
  EXPECT_EQ(slab.size(), 0u);
  slab.ForEach([&](Record*) { FAIL(); });
}

// Against a map, with random allocations and frees in waves.
TEST(SlabTest, BehavesAsAMap) {
  std::mt19937 random(1);
  RecordSlab slab;
  std::map<uint32_t, std::pair<uint32_t, uint64_t>> model;
  for (int step = 0; step < 60000; ++step) {
    const bool growing = step / 5000 % 2 == 0;
    if (model.empty() || random() % 10 < (growing ? 7u : 3u)) {
      Record* r = slab.Allocate();
      r->value = random();
      ASSERT_TRUE(
          model.emplace(r->index, std::pair{r->generation, r->value}).second);
    } else {
      auto it = model.lower_bound(
          static_cast<uint32_t>(random() % (model.rbegin()->first + 1)));
      Record* r = slab.Find(it->first, it->second.first);
      ASSERT_NE(r, nullptr);
      ASSERT_EQ(r->value, it->second.second);
      slab.Free(r);
      ASSERT_EQ(slab.Find(it->first, it->second.first), nullptr);
      model.erase(it);
    }
    ASSERT_EQ(slab.size(), model.size());
  }
  size_t visited = 0;
  slab.ForEach([&](Record* r) {
    ++visited;
    EXPECT_EQ(model.at(r->index).first, r->generation);
  });
  EXPECT_EQ(visited, model.size());
}

#if defined(NETSTACK_ASAN)
TEST(SlabDeathTest, UseAfterFreeIsSeen) {
  RecordSlab slab;
  slab.Allocate();
  Record* r = slab.Allocate();
  slab.Free(r);
  EXPECT_DEATH(r->value = 1, "use-after-poison");
}
#endif

}  // namespace
}  // namespace netstack

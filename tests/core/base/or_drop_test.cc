#include "core/base/or_drop.h"

#include <memory>
#include <string>

#include "gtest/gtest.h"

namespace netstack {
namespace {

TEST(OrDrop, HoldsAValue) {
  OrDrop<std::string> v = std::string("packet");
  ASSERT_TRUE(v);
  EXPECT_EQ(*v, "packet");
  EXPECT_EQ(v->size(), 6u);
  v->push_back('s');
  EXPECT_EQ(*v, "packets");
}

TEST(OrDrop, HoldsAReason) {
  const OrDrop<std::string> v = DropReason::kBadFragment;
  ASSERT_FALSE(v);
  EXPECT_EQ(v.reason(), DropReason::kBadFragment);
}

TEST(OrDrop, TakesValuesThatOnlyMove) {
  OrDrop<std::unique_ptr<int>> v = std::make_unique<int>(7);
  ASSERT_TRUE(v);
  const std::unique_ptr<int> taken = std::move(*v);
  EXPECT_EQ(*taken, 7);
}

}  // namespace
}  // namespace netstack

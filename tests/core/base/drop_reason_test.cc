#include "core/base/drop_reason.h"

#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace netstack {
namespace {

TEST(DropReason, NamesAreTheEnumerators) {
  EXPECT_EQ(DropReasonName(DropReason::kTooShort), "TOO_SHORT");
  EXPECT_EQ(DropReasonName(DropReason::kSourceNotOurs), "SOURCE_NOT_OURS");
  EXPECT_EQ(DropReasonName(DropReason::kIcmpRateLimited),
            "ICMP_RATE_LIMITED");
}

TEST(DropReason, NamesAreUniqueAndOfTheProtosForm) {
  std::set<std::string> seen;
  for (absl::string_view name : kDropReasonNames) {
    EXPECT_THAT(std::string(name), testing::MatchesRegex("[A-Z][A-Z0-9_]*"));
    EXPECT_TRUE(seen.insert(std::string(name)).second) << name;
  }
  EXPECT_EQ(seen.size(), kDropReasonCount);
}

}  // namespace
}  // namespace netstack

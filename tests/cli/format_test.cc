#include "clients/cli/format.h"

#include <limits>
#include <string>

#include "gtest/gtest.h"

namespace netstack::cli {
namespace {

TEST(FormatTest, BytesHaveThreeDigitsAndABinaryUnit) {
  EXPECT_EQ(ShowBytes(0), "0 B");
  EXPECT_EQ(ShowBytes(1023), "1023 B");
  EXPECT_EQ(ShowBytes(1024), "1.0 KiB");
  EXPECT_EQ(ShowBytes(1536), "1.5 KiB");
  EXPECT_EQ(ShowBytes(100.0 * 1024), "100 KiB");
  EXPECT_EQ(ShowBytes(1024.0 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(ShowBytes(12.34 * 1024 * 1024), "12.3 MiB");
  EXPECT_EQ(
      ShowBytes(static_cast<double>(std::numeric_limits<uint64_t>::max())),
      "16.0 EiB");
  EXPECT_EQ(ShowByteRate(2048), "2.0 KiB/s");
}

TEST(FormatTest, CountsAreGroupedByThree) {
  EXPECT_EQ(ShowCount(0), "0");
  EXPECT_EQ(ShowCount(999), "999");
  EXPECT_EQ(ShowCount(1000), "1,000");
  EXPECT_EQ(ShowCount(1234567), "1,234,567");
  EXPECT_EQ(ShowCountRate(0), "0/s");
  EXPECT_EQ(ShowCountRate(0.25), "0.2/s");
  EXPECT_EQ(ShowCountRate(1234.4), "1,234/s");
  EXPECT_EQ(Counted(1, "flow", "flows"), "1 flow");
  EXPECT_EQ(Counted(0, "flow", "flows"), "0 flows");
}

TEST(FormatTest, DurationsHaveTheirTwoLeadingUnits) {
  EXPECT_EQ(ShowDuration(absl::ZeroDuration()), "0s");
  EXPECT_EQ(ShowDuration(absl::Seconds(-1)), "0s");
  EXPECT_EQ(ShowDuration(absl::Nanoseconds(12)), "12ns");
  EXPECT_EQ(ShowDuration(absl::Microseconds(850)), "850µs");
  EXPECT_EQ(ShowDuration(absl::Microseconds(12345)), "12.3ms");
  EXPECT_EQ(ShowDuration(absl::Microseconds(999999)), "999ms");
  EXPECT_EQ(ShowDuration(absl::Milliseconds(4250)), "4.2s");
  EXPECT_EQ(ShowDuration(absl::Milliseconds(59999)), "59.9s");
  EXPECT_EQ(ShowDuration(absl::Seconds(185)), "3m05s");
  EXPECT_EQ(ShowDuration(absl::Seconds(3599)), "59m59s");
  EXPECT_EQ(ShowDuration(absl::Minutes(62)), "1h02m");
  EXPECT_EQ(ShowDuration(absl::Hours(76)), "3d04h");
}

TEST(FormatTest, TimesAreOfTheZone) {
  const absl::Time time = absl::FromUnixSeconds(1714566896);
  EXPECT_EQ(ShowTime(time, absl::UTCTimeZone()), "2024-05-01 12:34:56");
  EXPECT_EQ(ShowClock(time, absl::FixedTimeZone(7200)), "14:34:56");
}

TEST(FormatTest, TruncateCountsCharactersAndNotBytes) {
  EXPECT_EQ(DisplayWidth("850µs…"), 6u);
  EXPECT_EQ(Truncate("abcdef", 6), "abcdef");
  EXPECT_EQ(Truncate("abcdef", 5), "abcd…");
  EXPECT_EQ(Truncate("µµµµ", 3), "µµ…");
  EXPECT_EQ(Truncate("abc", 1), "…");
  EXPECT_EQ(Truncate("abc", 0), "");
}

TEST(FormatTest, PrintableLeavesNothingThatSteersATerminal) {
  EXPECT_EQ(Printable("a\x1b[2Jb\n\tc\x7f"), "a?[2Jb??c?");
  EXPECT_EQ(Printable("tun µ"), "tun µ");
}

TEST(FormatTest, DurationsSurviveTheProto) {
  const absl::Duration duration = absl::Milliseconds(1500);
  EXPECT_EQ(ToProto(duration).seconds(), 1);
  EXPECT_EQ(ToProto(duration).nanos(), 500000000);
  EXPECT_EQ(ToAbsl(ToProto(duration)), duration);
}

}  // namespace
}  // namespace netstack::cli

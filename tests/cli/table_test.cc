#include "clients/cli/table.h"

#include <string>

#include "gtest/gtest.h"

namespace netstack::cli {
namespace {

Table Small() {
  Table table({{.title = "ID", .right = true},
               {.title = "REMOTE", .shrink_to = 6},
               {.title = "STATE"}});
  table.Row({"7", "192.0.2.1:443", {"open", Style::kGood}});
  table.Row({"1234", "198.51.100.17:8080", "closing"});
  table.Row({"8", ""});
  return table;
}

TEST(TableTest, AlignsColumnsWithoutBlanksAtTheEnd) {
  EXPECT_EQ(Small().Render({}),
            "  ID  REMOTE              STATE\n"
            "   7  192.0.2.1:443       open\n"
            "1234  198.51.100.17:8080  closing\n"
            "   8\n");
}

TEST(TableTest, CutsTheColumnThatMayShrink) {
  EXPECT_EQ(Small().Render({.width = 24}),
            "  ID  REMOTE     STATE\n"
            "   7  192.0.2.…  open\n"
            "1234  198.51.1…  closing\n"
            "   8\n");
}

TEST(TableTest, CutsTheLineWhereNothingMayShrinkAnyMore) {
  const std::string text = Small().Render({.width = 10});
  EXPECT_EQ(text,
            "  ID  REM…\n"
            "   7  192…\n"
            "1234  198…\n"
            "   8\n");
}

TEST(TableTest, ColoursOnlyWhenAsked) {
  Table table({{.title = "A"}});
  table.Row({{"x", Style::kBad}});
  EXPECT_EQ(table.Render({.colour = true}),
            "\x1b[1mA\x1b[0m\n\x1b[31mx\x1b[0m\n");
  EXPECT_EQ(table.Render({.colour = false}), "A\nx\n");
}

TEST(TableTest, HeadingsDoNotWidenColumns) {
  Table table({{.title = "A"}, {.title = "B"}});
  table.Heading("a long heading");
  table.Row({"1", "2"});
  EXPECT_EQ(table.Render({.header = false, .indent = 2}),
            "  a long heading\n"
            "  1  2\n");
}

TEST(TableTest, ForeignTextCannotSteerTheTerminal) {
  Table table({{.title = "A"}});
  table.Row({"\x1b[31m"});
  EXPECT_EQ(table.Render({.header = false}), "?[31m\n");
}

}  // namespace
}  // namespace netstack::cli

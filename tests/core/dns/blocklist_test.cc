#include "core/dns/blocklist.h"

#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/core/dns/test_messages.h"

namespace netstack::dns {
namespace {

using test::Name;

constexpr SipHashKey kKey{1, 2};

std::shared_ptr<const Blocklist> Build(const std::vector<std::string>& texts) {
  BlocklistBuilder builder(kKey, {});
  for (size_t i = 0; i < texts.size(); ++i) {
    builder.Add(absl::StrCat("list", i), texts[i]);
  }
  return std::move(builder).Build();
}

bool Blocks(const Blocklist& list, absl::string_view name) {
  const auto match = list.Find(Name(name));
  return match && !match->exception;
}

TEST(Blocklist, EmptyBlocksNothing) {
  EXPECT_FALSE(Blocklist().Find(Name("a.example")));
  EXPECT_FALSE(Build({})->Find(Name("a.example")));
  EXPECT_FALSE(Build({"# nothing\n"})->Find(Name("a.example")));
}

TEST(Blocklist, HostsLinesBlockOneName) {
  const auto list =
      Build({"0.0.0.0 ads.example track.example # both\r\n"
             "::1\tsix.example\n127.0.0.1 last.example"});
  for (const char* name :
       {"ads.example", "track.example", "six.example", "last.example"}) {
    EXPECT_TRUE(Blocks(*list, name)) << name;
  }
  EXPECT_FALSE(Blocks(*list, "www.ads.example"));
  EXPECT_FALSE(Blocks(*list, "example"));
  EXPECT_FALSE(Blocks(*list, "xads.example"));
  EXPECT_EQ(list->size(), 4u);
}

TEST(Blocklist, NamesAndAdblockRulesBlockAllBelow) {
  const auto list =
      Build({"Ads.Example\n*.wild.example\n||block.example^\n||zip^\n"});
  for (const char* name :
       {"ads.example", "a.b.ads.example", "wild.example", "x.wild.example",
        "block.example", "x.block.example", "zip", "x.y.zip"}) {
    EXPECT_TRUE(Blocks(*list, name)) << name;
  }
  for (const char* name : {"badads.example", "example", "ads.example.com"}) {
    EXPECT_FALSE(Blocks(*list, name)) << name;
  }
}

TEST(Blocklist, ExceptionsWinOverEveryList) {
  const auto list = Build({"||example^\n||ads.good.example^\n",
                           "@@||good.example^\n", "good.example\n"});
  EXPECT_TRUE(Blocks(*list, "bad.example"));
  for (const char* name :
       {"good.example", "www.good.example", "ads.good.example"}) {
    const auto match = list->Find(Name(name));
    ASSERT_TRUE(match) << name;
    EXPECT_TRUE(match->exception) << name;
    EXPECT_EQ(list->ListName(match->list), "list1") << name;
    EXPECT_EQ(match->labels, 2) << name;
  }
}

TEST(Blocklist, TellsTheMostSpecificNameAndTheFirstList) {
  const auto list = Build({"a.example\n", "example.net\n||ads.a.example^\n",
                           "0.0.0.0 a.example\n"});
  auto match = list->Find(Name("x.ads.a.example"));
  ASSERT_TRUE(match);
  EXPECT_EQ(match->list, 1);
  EXPECT_EQ(match->labels, 3);
  match = list->Find(Name("y.a.example"));
  ASSERT_TRUE(match);
  EXPECT_EQ(match->list, 0);
  EXPECT_EQ(match->labels, 2);
  EXPECT_EQ(list->size(), 3u);
}

TEST(Blocklist, NamesWithOtherBytesAreNotMistaken) {
  const auto list = Build({"a.example\n"});
  // One label "x.a" or "a" with a byte that no list has.
  EXPECT_FALSE(Blocks(*list, "a\\.example"));
  EXPECT_FALSE(Blocks(*list, "a\\000.example"));
  EXPECT_TRUE(Blocks(*list, "\\000\\.x.a.example"));
}

struct LineCase {
  const char* line;
  LineFault fault;
};

TEST(BlocklistBuilder, RefusesByReason) {
  const std::string long_line = "0.0.0.0 " + std::string(5000, 'a');
  const std::string long_label = std::string(64, 'a') + ".example";
  const LineCase cases[] = {
      {"-?.example", LineFault::kPattern},
      {"a..example", LineFault::kBadName},
      {long_label.c_str(), LineFault::kBadName},
      {"error", LineFault::kBadName},
      {"0.0.0.0 a_b!.example", LineFault::kBadName},
      {"b\xC3\xBC"
       "cher.example",
       LineFault::kBadName},
      {"192.0.2.1", LineFault::kAddress},
      {"||192.0.2.1^", LineFault::kAddress},
      {"0.0.0.0 192.0.2.1", LineFault::kAddress},
      {"2001:db8::1", LineFault::kAddress},
      {"192.0.2.7 printer.example", LineFault::kRewrite},
      {"127.0.0.1 localhost", LineFault::kLocalName},
      {"255.255.255.255 broadcasthost", LineFault::kLocalName},
      {"||ads.example^$third-party", LineFault::kOptions},
      {"@@||ads.example^$important", LineFault::kOptions},
      {"example.com##.banner", LineFault::kCosmetic},
      {"##.banner", LineFault::kCosmetic},
      {"example.com#@#.banner", LineFault::kCosmetic},
      {"||ads.example/banner^", LineFault::kPattern},
      {"||ads*.example^", LineFault::kPattern},
      {"||ads.example", LineFault::kPattern},
      {"@@ads.example", LineFault::kPattern},
      {"/ads[0-9]/", LineFault::kPattern},
      {"|https://ads.example|", LineFault::kPattern},
      {"ads.example and.more", LineFault::kPattern},
      {long_line.c_str(), LineFault::kTooLong},
  };
  for (const LineCase& c : cases) {
    SCOPED_TRACE(std::string(c.line).substr(0, 60));
    BlocklistBuilder builder(kKey, {});
    const ListReport report =
        builder.Add("x", absl::StrCat("! comment\n", c.line, "\n"));
    EXPECT_EQ(report.lines, 2u);
    EXPECT_EQ(report.blank, 1u);
    EXPECT_EQ(report.names + report.exceptions, 0u);
    EXPECT_EQ(report.refused_in_all(), 1u);
    EXPECT_EQ(report.refused[static_cast<size_t>(c.fault)], 1u);
    EXPECT_EQ(report.first_refused_line, 2u);
    EXPECT_EQ(report.first_fault, c.fault);
    EXPECT_EQ(std::move(builder).Build()->size(), 0u);
  }
}

TEST(BlocklistBuilder, SkipsCommentsAndHeaders) {
  BlocklistBuilder builder(kKey, {});
  const ListReport report = builder.Add(
      "x",
      "\xEF\xBB\xBF[Adblock Plus 2.0]\n# a\n! b\n// c\n\n   \n## d\n"
      "||ads.example^\n");
  EXPECT_EQ(report.lines, 8u);
  EXPECT_EQ(report.blank, 7u);
  EXPECT_EQ(report.names, 1u);
  EXPECT_EQ(report.refused_in_all(), 0u);
}

TEST(BlocklistBuilder, KeepsItsLimits) {
  BlocklistBuilder builder(kKey, {.max_names = 2});
  const ListReport report =
      builder.Add("x", "a.example\nb.example\nc.example\n");
  EXPECT_EQ(report.names, 2u);
  EXPECT_EQ(report.refused[static_cast<size_t>(LineFault::kTooMany)], 1u);
  EXPECT_FALSE(Blocks(*std::move(builder).Build(), "c.example"));

  BlocklistBuilder many(kKey, {});
  for (size_t i = 0; i < BlocklistBuilder::kMaxLists; ++i) {
    EXPECT_EQ(many.Add("x", "a.example\n").names, 1u);
  }
  EXPECT_EQ(many.Add("x", "z.example\n").names, 0u);
  EXPECT_FALSE(Blocks(*std::move(many).Build(), "z.example"));
}

// Against a map, with names that share much and little, both ways.
TEST(Blocklist, AgreesWithAMap) {
  std::mt19937 random(7);  // NOLINT: the same names every time
  const auto label = [&] {
    std::string text;
    const size_t length = 1 + random() % (random() % 16 == 0 ? 60 : 5);
    for (size_t i = 0; i < length; ++i) {
      text += static_cast<char>('a' + random() % 3);
    }
    return text;
  };
  const auto name = [&] {
    std::string text = label();
    for (size_t i = random() % 4; i > 0; --i) text += "." + label();
    return text + ".example";
  };
  std::map<std::string, bool> blocked;  // and whether all below it, too
  std::string text;
  for (int i = 0; i < 20000; ++i) {
    const std::string n = name();
    const bool below = random() % 2 == 0;
    blocked[n] |= below;
    absl::StrAppend(&text, below ? "" : "0.0.0.0 ", n, "\n");
  }
  const auto list = Build({text});
  EXPECT_EQ(list->size(), blocked.size());
  const auto expected = [&](const std::string& n) {
    const auto whole = blocked.find(n);
    if (whole != blocked.end()) return true;
    for (size_t dot = n.find('.'); dot != std::string::npos;
         dot = n.find('.', dot + 1)) {
      const auto parent = blocked.find(n.substr(dot + 1));
      if (parent != blocked.end() && parent->second) return true;
    }
    return false;
  };
  for (const auto& [n, below] : blocked) ASSERT_TRUE(Blocks(*list, n)) << n;
  int found = 0;
  for (int i = 0; i < 50000; ++i) {
    const std::string n = name();
    ASSERT_EQ(Blocks(*list, n), expected(n)) << n;
    found += expected(n);
  }
  EXPECT_GT(found, 1000);
  EXPECT_LT(found, 49000);
}

}  // namespace
}  // namespace netstack::dns

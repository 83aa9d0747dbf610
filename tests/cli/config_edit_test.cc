#include "clients/cli/config_edit.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace netstack::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ConfigEditTest, AssignmentsBecomeValuesAndAMask) {
  const auto request =
      EditRequest({"tcp.dial_timeout=10s", "tun.name=a=b", "limits="});
  ASSERT_TRUE(request.ok());
  EXPECT_THAT(request->update_mask().paths(),
              ElementsAre("tcp.dial_timeout", "tun.name", "limits"));
  EXPECT_EQ(request->config().tcp().dial_timeout().seconds(), 10);
  EXPECT_EQ(request->config().tun().name(), "a=b");
  EXPECT_FALSE(request->config().has_limits());
}

TEST(ConfigEditTest, EmptyValueIsInTheMaskAlone) {
  const auto request = EditRequest({"tcp.dial_timeout="});
  ASSERT_TRUE(request.ok());
  EXPECT_THAT(request->update_mask().paths(), ElementsAre("tcp.dial_timeout"));
  EXPECT_FALSE(request->config().has_tcp());
}

TEST(ConfigEditTest, RefusesWhatIsNoAssignment) {
  const auto error = [](std::vector<std::string> assignments) {
    return std::string(EditRequest(assignments).status().message());
  };
  EXPECT_THAT(error({"tun.mtu"}), HasSubstr("is not PATH=VALUE"));
  EXPECT_THAT(error({"tun.mtu=1", "tun.mtu=2"}), HasSubstr("given twice"));
  EXPECT_THAT(error({"tun.nme=x"}), HasSubstr("did you mean tun.name?"));
  EXPECT_THAT(error({"=x"}), HasSubstr("no config field"));
}

TEST(ConfigEditTest, ReadsJsonAndTextproto) {
  const auto json = ParseConfigText("  {\"tcp\": {\"dial_timeout\": \"5s\"}}");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(json->tcp().dial_timeout().seconds(), 5);
  const auto text = ParseConfigText("tun { mtu: 9000 }  # jumbo");
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(text->tun().mtu(), 9000u);
}

TEST(ConfigEditTest, FileErrorsSayWhere) {
  const auto text = ParseConfigText("tun {\n  mtu: x\n}");
  EXPECT_THAT(std::string(text.status().message()), HasSubstr("line 2"));
  EXPECT_FALSE(ParseConfigText("{\"tun\": {\"nme\": \"x\"}}").ok());
  EXPECT_FALSE(ParseConfigText("").ok());
  EXPECT_TRUE(ParseConfigText("{}").ok());
}

}  // namespace
}  // namespace netstack::cli

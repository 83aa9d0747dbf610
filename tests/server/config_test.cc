// Config as file and as message: forms, refusals field by field, masks.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "google/protobuf/text_format.h"
#include "server/config_convert.h"
#include "server/config_file.h"
#include "server/errors.h"
#include "tests/server/test_server.h"

namespace netstack::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

v1::Config Text(const std::string& text) {
  v1::Config out;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &out));
  return out;
}

std::vector<std::string> BadFields(const std::string& text) {
  auto checked = CheckConfig(Text(text));
  if (checked.ok()) return {};
  return test::DetailsOf(ToGrpc(checked.status())).fields();
}

google::protobuf::FieldMask Mask(const std::vector<std::string>& paths) {
  google::protobuf::FieldMask out;
  for (const auto& p : paths) out.add_paths(p);
  return out;
}

TEST(ConfigFile, ReadsBothFormsAndGuessesByTheFirstCharacter) {
  const std::string text = "tcp { dial_timeout { seconds: 5 } }";
  const std::string json = " {\"tcp\": {\"dialTimeout\": \"5s\"}}";
  for (const auto& [name, content] :
       {std::pair{"a.textproto", text}, std::pair{"a.json", json},
        std::pair{"a.conf", text}, std::pair{"a.conf", json}}) {
    auto config = ParseConfig(name, content);
    ASSERT_TRUE(config.ok()) << name << config.status();
    EXPECT_EQ(config->tcp().dial_timeout().seconds(), 5) << name;
  }
  EXPECT_FALSE(ParseConfig("a.textproto", json).ok());
  EXPECT_FALSE(ParseConfig("a.json", text).ok());
}

TEST(ConfigFile, EmptyTextIsAllDefaults) {
  auto config = ParseConfig("a.textproto", "");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->ByteSizeLong(), 0u);
}

TEST(ConfigFile, UnknownFieldsHaveLineAndColumn) {
  auto text = ParseConfig("a.textproto", "tun { mtu: 1500 }\n tcp { bogus: 1 }");
  EXPECT_THAT(std::string(text.status().message()),
              StartsWith("a.textproto:2:13: "));
  auto json = ParseConfig("a.json", "{\n \"tcp\": {\n  \"bogus\": 1}}");
  EXPECT_THAT(std::string(json.status().message()), StartsWith("a.json:3:3: "));
  auto top = ParseConfig("a.json", "{\n \"bogus\": 1}");
  EXPECT_THAT(std::string(top.status().message()), StartsWith("a.json:2:2: "));
}

TEST(ConfigFile, BadValuesHaveLineAndColumn) {
  auto json =
      ParseConfig("a.json", "{\"tcp\":\n {\"dialTimeout\": \"5x\"}}");
  EXPECT_THAT(std::string(json.status().message()), StartsWith("a.json:2:3: "));
}

TEST(ConfigFile, HostileTextIsRefusedAndNotCrashedOn) {
  std::string deep(100'000, '{');
  EXPECT_FALSE(ParseConfig("a.json", deep).ok());
  EXPECT_FALSE(ParseConfig("a.textproto", deep).ok());
  EXPECT_FALSE(ParseConfig("a.json", "{\"tcp\":{\"x\\").ok());
  EXPECT_FALSE(ParseConfig("a.json", "").ok());
}

TEST(Config, DefaultsAreTheCores) {
  auto checked = CheckConfig({});
  ASSERT_TRUE(checked.ok()) << checked.status();
  const v1::Config effective = Effective(*checked);
  // Written out and read again it is the same config.
  auto again = CheckConfig(effective);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_THAT(Difference(effective, Effective(*again)), IsEmpty());
  const Config core;
  EXPECT_EQ(effective.tun().name(), core.tun.name);
  EXPECT_EQ(effective.tcp().buffer_max(), core.tcp.buffer_max);
  EXPECT_EQ(effective.tcp().established_idle().seconds(), 7440);
}

// Every leaf is written out, so that a new field cannot be forgotten.
TEST(Config, EffectiveHasEveryField) {
  auto checked = CheckConfig(Text("control { allowed_uids: 7 }"));
  ASSERT_TRUE(checked.ok());
  const v1::Config effective = Effective(*checked);
  const auto* r = effective.GetReflection();
  for (int i = 0; i < v1::Config::descriptor()->field_count(); ++i) {
    const auto* part = v1::Config::descriptor()->field(i);
    const auto& message = r->GetMessage(effective, part);
    for (int j = 0; j < part->message_type()->field_count(); ++j) {
      const auto* f = part->message_type()->field(j);
      const bool set =
          f->is_repeated()
              ? message.GetReflection()->FieldSize(message, f) > 0
              : message.GetReflection()->HasField(message, f);
      EXPECT_TRUE(set) << part->name() << "." << f->name();
    }
  }
}

TEST(Config, EveryBadFieldIsNamed) {
  EXPECT_THAT(
      BadFields("tun { name: 'a/b' mtu: 100 prefixes: '10.0.0.0/8' "
                "      prefixes: 'x' }"
                "tcp { dial_timeout { seconds: -1 } buffer_max: 1 }"
                "limits { memory_budget: 1 }"
                "protect { bind_to_device: 'much-too-long-a-name' }"
                "control { max_watchers: 0 stall_timeout { seconds: 6000 } }"),
      testing::UnorderedElementsAre(
          "tun.prefixes[1]", "tun.name", "tun.mtu", "tcp.dial_timeout",
          "tcp.buffer_max", "limits.memory_budget", "protect.bind_to_device",
          "control.max_watchers", "control.stall_timeout"));
}

TEST(Config, ImpossibleDurationsAreRefused) {
  EXPECT_THAT(BadFields("tcp { dial_timeout { seconds: 1 nanos: -5 } }"),
              ElementsAre("tcp.dial_timeout"));
  EXPECT_THAT(
      BadFields("tcp { dial_timeout { seconds: 9000000000000000000 } }"),
      ElementsAre("tcp.dial_timeout"));
}

TEST(Config, NobodyIsNoAllowedUid) {
  EXPECT_THAT(BadFields("control { allowed_uids: [1000, 65534] }"),
              ElementsAre("control.allowed_uids[1]"));
}

TEST(Merge, EmptyMaskTakesWhatIsSet) {
  auto merged =
      Merge(Text("tun { name: 'a' } tcp { buffer_max: 100000 }"),
            Text("tcp { buffer_floor: 20000 } tun { prefixes: '10.0.0.0/8' }"),
            {});
  ASSERT_TRUE(merged.ok());
  EXPECT_EQ(merged->DebugString(),
            Text("tun { name: 'a' prefixes: '10.0.0.0/8' } "
                 "tcp { buffer_floor: 20000 buffer_max: 100000 }")
                .DebugString());
}

TEST(Merge, AMaskedFieldThatIsUnsetReturnsToItsDefault) {
  auto merged = Merge(Text("tun { name: 'a' mtu: 9000 }"), {},
                      Mask({"tun.name"}));
  ASSERT_TRUE(merged.ok());
  EXPECT_EQ(merged->DebugString(), Text("tun { mtu: 9000 }").DebugString());
}

TEST(Merge, WholeMessagesAndRepeatedFieldsAreReplaced) {
  const v1::Config from = Text("tun { name: 'a' prefixes: '10.0.0.0/8' }");
  auto part = Merge(from, Text("tun { mtu: 9000 }"), Mask({"tun"}));
  ASSERT_TRUE(part.ok());
  EXPECT_EQ(part->DebugString(), Text("tun { mtu: 9000 }").DebugString());
  auto list = Merge(from, Text("tun { prefixes: 'fd00::/8' }"),
                    Mask({"tun.prefixes"}));
  ASSERT_TRUE(list.ok());
  EXPECT_THAT(list->tun().prefixes(), ElementsAre("fd00::/8"));
  auto all = Merge(from, Text("tcp { buffer_max: 5 }"), Mask({"*"}));
  ASSERT_TRUE(all.ok());
  EXPECT_FALSE(all->has_tun());
}

TEST(Merge, UnknownPathsAreRefused) {
  for (const std::string path :
       {"", "bogus", "tun.bogus", "tun.name.x", "tun.", ".tun",
        "tcp.dial_timeout.seconds", "*.name"}) {
    auto merged = Merge({}, {}, Mask({path, "tun"}));
    EXPECT_EQ(merged.status().code(), absl::StatusCode::kInvalidArgument)
        << path;
  }
}

TEST(Difference, NamesLeavesInTheOrderOfTheProto) {
  auto a = CheckConfig({});
  auto b = CheckConfig(
      Text("control { max_watchers: 3 } tun { prefixes: '10.0.0.0/8' } "
           "tcp { dial_timeout { seconds: 31 } }"));
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_THAT(Difference(Effective(*a), Effective(*b)),
              ElementsAre("tun.prefixes", "tcp.dial_timeout",
                          "control.max_watchers"));
}

}  // namespace
}  // namespace netstack::server

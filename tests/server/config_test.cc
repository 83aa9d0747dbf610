// Config as file and as message: forms, refusals field by field, masks.
#include <functional>
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
  auto checked = CheckConfig(Text(
      "control { allowed_uids: 7 } protect { app_uid: 7 } "
      "owners { source: OWNER_SOURCE_SYSTEM } "
      "apps { rules { uid: 7 action: APP_ACTION_BLOCK } }"
      "udp { interfaces { prefix: '10.0.0.0/8' interface: 'lan' } }"
      "dns {"
      "  groups { name: 'g' upstreams { address: 'tls://dns.example' "
      "           bootstrap: '192.0.2.1' tls_name: 'dns.example' "
      "           pins: 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=' "
      "           http_get: false } }"
      "  rules { name: 'r' domains: '.a' clients: '10.0.0.0/8' action: "
      "          DNS_RULE_ACTION_REWRITE addresses: '192.0.2.1' types: 1 }"
      "  blocklists { name: 'l' file: '/l' }"
      "  resolver { bootstrap_servers: '192.0.2.1' "
      "             system_servers: '[2001:db8::1]:5353' }"
      "  rebinding { allowed_prefixes: '10.0.0.0/8' }"
      "  address_policy { exempt: '10.0.0.0/8' }"
      "  leaks { doh_names: 'a.example' quic_names: 'b.example' }"
      "}"
      "control_d { resolver_id: 'x' api_addresses: '192.0.2.1' }"));
  ASSERT_TRUE(checked.ok()) << checked.status();
  // Optional and repeated fields, at every depth; strings of lists' entries
  // may be empty.
  const std::function<void(const google::protobuf::Message&, std::string)>
      check = [&check](const google::protobuf::Message& message,
                       const std::string& path) {
        const auto* r = message.GetReflection();
        const auto* type = message.GetDescriptor();
        for (int i = 0; i < type->field_count(); ++i) {
          const auto* f = type->field(i);
          const std::string name = path + f->name();
          if (!f->is_repeated() && !f->has_presence()) continue;
          if (f->is_repeated()) {
            EXPECT_GT(r->FieldSize(message, f), 0) << name;
            continue;
          }
          EXPECT_TRUE(r->HasField(message, f)) << name;
          if (f->cpp_type() != f->CPPTYPE_MESSAGE ||
              f->message_type()->full_name() == "google.protobuf.Duration") {
            continue;
          }
          check(r->GetMessage(message, f), name + ".");
        }
      };
  check(Effective(*checked), "");
}

TEST(Config, ANameConfigSurvivesTheWayThereAndBack) {
  const v1::Config config = Text(
      "dns { enabled: true default_group: 'g' "
      "  groups { name: 'g' upstreams { address: 'https://d.example/q' "
      "             bootstrap: '2001:db8::1' http_get: true } "
      "           upstreams { address: '192.0.2.7' } } "
      "  rules { name: 'n' domains: '*.example' action: DNS_RULE_ACTION_BLOCK "
      "          block_answer: DNS_BLOCK_ANSWER_REFUSED } "
      "  rules { clients: '10.0.0.0/8' action: DNS_RULE_ACTION_FORWARD "
      "          group: 'g' } "
      "  rules { domains: 'c.example' action: DNS_RULE_ACTION_REWRITE "
      "          cname: 'd.example' } "
      "  leaks { block_quic: DNS_QUIC_BLOCK_BY_NAME quic_names: '.v.example' }"
      "}");
  auto checked = CheckConfig(config);
  ASSERT_TRUE(checked.ok()) << checked.status();
  auto again = CheckConfig(Effective(*checked));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_THAT(Difference(Effective(*checked), Effective(*again)), IsEmpty());
  const DnsConfig& dns = again->core.dns;
  ASSERT_EQ(dns.groups.size(), 1u);
  EXPECT_EQ(dns.groups[0].upstreams[0].bootstrap[0].ToString(), "2001:db8::1");
  EXPECT_TRUE(dns.groups[0].upstreams[0].http_get);
  ASSERT_EQ(dns.rules.size(), 3u);
  EXPECT_EQ(dns.rules[0].block_answer, DnsBlockAnswer::kRefused);
  EXPECT_EQ(dns.rules[1].action, DnsRuleAction::kForward);
  EXPECT_EQ(dns.rules[2].cname, "d.example");
  EXPECT_EQ(dns.leaks.block_quic, DnsQuicBlock::kByName);
}

TEST(Config, EveryBadFieldOfNamesIsNamed) {
  EXPECT_THAT(
      BadFields("dns { default_group: 'none' "
                "  groups { name: 'a b' } "
                "  groups { name: 'g' upstreams { address: 'dns.example' } "
                "    upstreams { address: 'tls://x:0' } "
                "    upstreams { address: '192.0.2.1' tls_name: 'x' } "
                "    upstreams { address: 'https://h/' pins: 'short' } "
                "    upstreams { address: '192.0.2.1' "
                "                transport: DNS_TRANSPORT_DOT } "
                "    upstreams { address: '192.0.2.1' bootstrap: 'y' } } "
                "  rules { action: DNS_RULE_ACTION_BLOCK } "
                "  rules { domains: 'a..b' } "
                "  rules { domains: 'a' action: DNS_RULE_ACTION_REWRITE } "
                "  rules { domains: 'a' action: DNS_RULE_ACTION_FORWARD "
                "          group: 'none' types: 0 } "
                "  blocklists { file: 'relative' } "
                "  resolver { timeout { seconds: 60 } failover_rcodes: 24 "
                "             system_servers: 'host' } "
                "  cache { max_bytes: 1 } "
                "  address_policy { exempt: 'z' max_addresses: 1 } "
                "  leaks { block_quic: DNS_QUIC_BLOCK_BY_NAME } "
                "  limits { max_in_flight: 1 } }"),
      testing::UnorderedElementsAre(
          "dns.default_group", "dns.groups[0].name", "dns.groups[0].upstreams",
          "dns.groups[1].upstreams[0].address",
          "dns.groups[1].upstreams[1].address",
          "dns.groups[1].upstreams[2].tls_name",
          "dns.groups[1].upstreams[3].pins[0]",
          "dns.groups[1].upstreams[4].transport",
          "dns.groups[1].upstreams[5].bootstrap[0]", "dns.rules[0].domains",
          "dns.rules[1].action", "dns.rules[1].domains[0]",
          "dns.rules[2].addresses", "dns.rules[3].group",
          "dns.rules[3].types[0]", "dns.blocklists[0].file",
          "dns.resolver.timeout", "dns.resolver.failover_rcodes[0]",
          "dns.resolver.system_servers[0]", "dns.cache.max_bytes",
          "dns.address_policy.exempt[0]", "dns.address_policy.max_addresses",
          "dns.leaks.quic_names", "dns.limits.max_in_flight"));
}

TEST(Config, ControlDsFieldsAreChecked) {
  EXPECT_THAT(
      BadFields("control_d { resolver_id: 'a' provision_token: 'b' "
                "  hostname: 'a_b' api_url: 'http://x' api_addresses: 'y' "
                "  ca_file: 'z' state_file: 'w' "
                "  refetch_interval { seconds: 1 } client_mac: 'a b' }"),
      testing::UnorderedElementsAre(
          "control_d.provision_token", "control_d.hostname",
          "control_d.api_url", "control_d.api_addresses[0]",
          "control_d.ca_file", "control_d.state_file",
          "control_d.refetch_interval", "control_d.client_mac"));
}

TEST(Secrets, AreToldAsSetAndKeptByThat) {
  const v1::Config set = Text("control_d { resolver_id: 'deadbeef' }");
  const v1::Config shown = WithoutSecrets(set);
  EXPECT_EQ(shown.control_d().resolver_id(), "(set)");
  auto checked = CheckConfig(set);
  ASSERT_TRUE(checked.ok());
  EXPECT_EQ(Effective(*checked).DebugString().find("deadbeef"),
            std::string::npos);
  // Read, edited and written.
  v1::Config edited = shown;
  edited.mutable_control_d()->set_client_host("laptop");
  for (const auto& mask : {Mask({"*"}), Mask({}), Mask({"control_d"})}) {
    auto merged = Merge(set, edited, mask);
    ASSERT_TRUE(merged.ok());
    EXPECT_EQ(merged->control_d().resolver_id(), "deadbeef");
    EXPECT_EQ(merged->control_d().client_host(), "laptop");
  }
  auto removed = Merge(set, {}, Mask({"control_d.resolver_id"}));
  ASSERT_TRUE(removed.ok());
  EXPECT_TRUE(removed->control_d().resolver_id().empty());
  // There is none that it could stand for.
  EXPECT_THAT(BadFields("control_d { resolver_id: '(set)' }"),
              ElementsAre("control_d.resolver_id"));
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

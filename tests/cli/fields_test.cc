#include "clients/cli/fields.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "netstack/v1/config.pb.h"
#include "netstack/v1/flow.pb.h"

namespace netstack::cli {
namespace {

using netstack::v1::Config;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

// Sets and reads back; the error's text when it was refused.
std::string RoundTrip(const std::string& path, const std::string& value) {
  Config config;
  const absl::Status status = SetField(config, path, value);
  if (!status.ok()) return std::string(status.message());
  return FieldText(config, path);
}

TEST(FieldsTest, ParsesDurations) {
  EXPECT_EQ(*ParseDuration("30s"), absl::Seconds(30));
  EXPECT_EQ(*ParseDuration("1h2m"), absl::Minutes(62));
  EXPECT_EQ(*ParseDuration("250ms"), absl::Milliseconds(250));
  EXPECT_EQ(*ParseDuration("2"), absl::Seconds(2));
  EXPECT_EQ(*ParseDuration("0"), absl::ZeroDuration());
  for (const char* bad : {"", "s", "-1s", "3 apples", "inf", "nan", "1e300"}) {
    EXPECT_FALSE(ParseDuration(bad).ok()) << bad;
  }
}

TEST(FieldsTest, SetsEveryTypeOfTheConfig) {
  EXPECT_EQ(RoundTrip("tun.name", "tun7"), "tun7");
  EXPECT_EQ(RoundTrip("tun.mtu", "9000"), "9000");
  EXPECT_EQ(RoundTrip("tun.offload", "no"), "false");
  EXPECT_EQ(RoundTrip("tcp.dial_timeout", "1h2m"), "1h2m");
  EXPECT_EQ(RoundTrip("tcp.buffer_max", "2MiB"), "2097152");
  EXPECT_EQ(RoundTrip("limits.memory_budget", "8GiB"), "8589934592");
  EXPECT_EQ(RoundTrip("tun.prefixes", "10.0.0.0/8, fd00::/8"),
            "10.0.0.0/8,fd00::/8");
  EXPECT_EQ(RoundTrip("control.allowed_uids", "1000,1001"), "1000,1001");
}

TEST(FieldsTest, RefusesWhatTheTypeDoesNotHold) {
  EXPECT_EQ(RoundTrip("tun.mtu", "big"),
            "tun.mtu takes a whole number of at most 32 bits, not \"big\"");
  EXPECT_THAT(RoundTrip("tun.mtu", "4294967296"), HasSubstr("32 bits"));
  EXPECT_THAT(RoundTrip("tun.mtu", "-1"), HasSubstr("32 bits"));
  EXPECT_THAT(RoundTrip("limits.memory_budget", "99999999999GiB"),
              HasSubstr("a whole number"));
  EXPECT_THAT(RoundTrip("tun.offload", "perhaps"), HasSubstr("true or false"));
  EXPECT_THAT(RoundTrip("tcp.dial_timeout", "soon"), HasSubstr("30s"));
  EXPECT_THAT(RoundTrip("control.allowed_uids", "1,x"), HasSubstr("\"x\""));
}

TEST(FieldsTest, RepeatedFieldsAreReplaced) {
  Config config;
  config.mutable_tun()->add_prefixes("192.0.2.0/24");
  ASSERT_TRUE(SetField(config, "tun.prefixes", "10.0.0.0/8").ok());
  EXPECT_EQ(FieldText(config, "tun.prefixes"), "10.0.0.0/8");
}

TEST(FieldsTest, UnsetFieldsHaveNoText) {
  Config config;
  EXPECT_FALSE(HasField(config, "tun.mtu"));
  EXPECT_EQ(FieldText(config, "tun.mtu"), "");
  config.mutable_tun()->set_mtu(0);
  EXPECT_TRUE(HasField(config, "tun.mtu"));
  EXPECT_EQ(FieldText(config, "tun.mtu"), "0");
}

TEST(FieldsTest, MisspelledPathsAreCorrected) {
  const auto error = [](const char* path) {
    return std::string(CheckPath(*Config::descriptor(), path).message());
  };
  EXPECT_EQ(error("tcp.dial_timout"),
            "no config field \"tcp.dial_timout\"; did you mean "
            "tcp.dial_timeout?");
  EXPECT_THAT(error("dial_timeout"), HasSubstr("mean tcp.dial_timeout?"));
  EXPECT_THAT(error("tun.xyzzy_quux"), HasSubstr("there are tun.name"));
  EXPECT_THAT(error("xyzzyquux"), HasSubstr("there are tun, tcp"));
  EXPECT_THAT(error("tun.mtu.x"), Not(HasSubstr("OK")));
  EXPECT_EQ(error("tun"), "");
  EXPECT_EQ(error("tun.mtu"), "");
}

TEST(FieldsTest, SectionsTakeNoValue) {
  EXPECT_THAT(RoundTrip("tcp", "1"), HasSubstr("is a section"));
}

TEST(FieldsTest, PathsAreThoseOfTheProto) {
  const std::vector<std::string> leaves = LeafPaths(*Config::descriptor());
  EXPECT_THAT(leaves, Contains("tcp.dial_timeout"));
  EXPECT_THAT(leaves, Not(Contains("tcp.dial_timeout.seconds")));
  EXPECT_THAT(leaves, Not(Contains("tcp")));
  EXPECT_THAT(SectionPaths(*Config::descriptor()), Contains("tcp"));
  EXPECT_TRUE(Within("tcp.dial_timeout", "tcp"));
  EXPECT_TRUE(Within("tcp", ""));
  EXPECT_FALSE(Within("tcpx.a", "tcp"));
}

TEST(FieldsTest, EnumsHaveShortNames) {
  const auto& states = *netstack::v1::FlowState_descriptor();
  EXPECT_EQ(ShortName(netstack::v1::FLOW_STATE_APP_CLOSED), "app-closed");
  EXPECT_EQ(ShortName(states, 99), "#99");
  EXPECT_EQ(*ParseEnum(states, "app-closed"),
            netstack::v1::FLOW_STATE_APP_CLOSED);
  EXPECT_EQ(*ParseEnum(states, "FLOW_STATE_OPEN"),
            netstack::v1::FLOW_STATE_OPEN);
  EXPECT_THAT(std::string(ParseEnum(states, "opne").status().message()),
              HasSubstr("dialing, handshake, open"));
  EXPECT_THAT(ShortNames(states), Not(Contains("unspecified")));
}

}  // namespace
}  // namespace netstack::cli

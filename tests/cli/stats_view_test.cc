#include "clients/cli/stats_view.h"

#include <string>

#include "clients/cli/status_view.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace netstack::cli {
namespace {

using netstack::v1::Stats;
using ::testing::HasSubstr;
using ::testing::Not;

StatsSample Sample(int64_t second, const std::string& text) {
  StatsSample sample;
  sample.epoch = 3;
  sample.time = absl::FromUnixSeconds(second);
  EXPECT_TRUE(
      google::protobuf::TextFormat::ParseFromString(text, &sample.stats));
  return sample;
}

TEST(DropMeaningTest, EveryReasonHasOne) {
  const auto& reasons = *netstack::v1::DropReason_descriptor();
  for (int i = 0; i < reasons.value_count(); ++i) {
    const auto reason =
        static_cast<netstack::v1::DropReason>(reasons.value(i)->number());
    if (reason == netstack::v1::DROP_REASON_UNSPECIFIED) continue;
    EXPECT_NE(DropMeaning(reason), "") << reasons.value(i)->name();
  }
}

TEST(RenderStatsTest, OnlyDropsThatHappenedWithTheirMeaning) {
  const std::string text = RenderStats(
      Sample(10, R"pb(drops { reason: DROP_REASON_TOO_SHORT }
                      drops { reason: DROP_REASON_MULTICAST packets: 4 })pb"),
      nullptr, {});
  EXPECT_THAT(text, HasSubstr("multicast"));
  EXPECT_THAT(text, HasSubstr("multicast or broadcast, which is not carried"));
  EXPECT_THAT(text, Not(HasSubstr("too-short")));
  EXPECT_THAT(text, Not(HasSubstr("RATE")));
}

TEST(RenderStatsTest, RatesArePerSecondOfTheSameRun) {
  const StatsSample before = Sample(10, "tun { outbound_packets: 100 }");
  StatsSample now = Sample(12, "tun { outbound_packets: 300 }");
  EXPECT_THAT(RenderStats(now, &before, {}),
              HasSubstr("outbound packets                   300  100/s"));
  now.epoch = 4;
  EXPECT_THAT(RenderStats(now, &before, {}), Not(HasSubstr("RATE")));
}

TEST(RenderStatsTest, WithoutAStackOnlyTheControlSocket) {
  StatsSample sample = Sample(10, "control { connections: 1 }");
  sample.epoch = 0;
  const std::string text = RenderStats(sample, nullptr, {});
  EXPECT_THAT(text, HasSubstr("No stack runs"));
  EXPECT_THAT(text, HasSubstr("Control socket"));
  EXPECT_THAT(text, Not(HasSubstr("TUN (")));
}

TEST(RenderStatsLineTest, Golden) {
  const StatsSample before = Sample(100, "tun { outbound_bytes: 1024 }");
  const StatsSample now = Sample(102, R"pb(
    tun { outbound_bytes: 5120 inbound_packets: 20 }
    tcp { active: 1234 half_open: 2 }
    drops { reason: DROP_REASON_MULTICAST packets: 4 })pb");
  EXPECT_EQ(RenderStatsLine(before, nullptr, absl::UTCTimeZone(), {}),
            "TIME        FLOWS  HALF-OPEN     OUTBOUND      INBOUND  "
            "OUT-PACKETS   IN-PACKETS      DROPS   BUFFERED\n"
            "00:01:40        0          0            -            -  "
            "          -            -          -        0 B\n");
  EXPECT_EQ(
      RenderStatsLine(now, &before, absl::UTCTimeZone(), {.header = false}),
      "00:01:42    1,234          2    2.0 KiB/s        0 B/s  "
      "        0/s       10.0/s      2.0/s        0 B\n");
}

TEST(RenderStatusTest, Golden) {
  netstack::v1::StackStatus status;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"pb(state: STACK_STATE_RUNNING
           version: "0.1.0"
           service_uptime { seconds: 7200 }
           stack_started_at { seconds: 1714566896 }
           stack_uptime { seconds: 3720 }
           tun { name: "netstack0" mtu: 1500 offload: true }
           flow_limit: 65536
           config_revision: 3
           pending_restart: "tun.mtu"
           supported: TRAFFIC_KIND_TCP
           unsupported: [ TRAFFIC_KIND_UDP, TRAFFIC_KIND_ICMP ])pb",
      &status));
  Stats stats;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"pb(tcp { active: 12 opened: 40 outbound_bytes: 1536 }
           drops { reason: DROP_REASON_MULTICAST packets: 1 })pb",
      &stats));
  EXPECT_EQ(RenderStatus(status, stats, "/run/x.sock", absl::UTCTimeZone(), {}),
            "Stack         running since 2024-05-01 12:34:56 (1h02m)\n"
            "TUN           netstack0, MTU 1500, super-segments on\n"
            "Flows         12 of 65,536 (0 half open, 40 so far)\n"
            "Payload       1.5 KiB outbound, 0 B inbound\n"
            "Dropped       1 packet (why: netstackctl stats)\n"
            "Carried       TCP\n"
            "Not carried   UDP, ICMP (ping): dropped, counted\n"
            "Config        revision 3\n"
            "              waits for a restart of the stack: tun.mtu\n"
            "Service       netstackd 0.1.0, up 2h00m, at /run/x.sock\n");
}

}  // namespace
}  // namespace netstack::cli

#include "clients/cli/flows_view.h"

#include <string>
#include <vector>

#include "clients/cli/format.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace netstack::cli {
namespace {

using netstack::v1::Flow;
using netstack::v1::WatchFlowsResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Flow MakeFlow(uint64_t id, uint64_t outbound, uint64_t inbound) {
  Flow flow;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"pb(key {
             protocol: PROTOCOL_TCP
             app { address: "10.0.0.2" port: 40000 }
             remote { address: "2001:db8::1" port: 443 }
           }
           state: FLOW_STATE_OPEN
           close_reason: CLOSE_REASON_NONE
           age { seconds: 62 }
           idle { nanos: 1500000 }
           rtt { nanos: 850000 })pb",
      &flow));
  flow.set_id(id);
  flow.set_outbound_bytes(outbound);
  flow.set_inbound_bytes(inbound);
  return flow;
}

WatchFlowsResponse Message(const std::string& text) {
  WatchFlowsResponse message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message));
  return message;
}

std::vector<uint64_t> Ids(const std::vector<Flow>& flows) {
  std::vector<uint64_t> ids;
  for (const Flow& flow : flows) ids.push_back(flow.id());
  return ids;
}

TEST(SplitPortTest, KnowsV4AndV6) {
  const auto split = [](const char* text) {
    const AddressAndPort parts = SplitPort(text);
    return parts.address + "|" + parts.port;
  };
  EXPECT_EQ(split("192.0.2.0/24"), "192.0.2.0/24|");
  EXPECT_EQ(split("192.0.2.0/24:443"), "192.0.2.0/24|443");
  EXPECT_EQ(split(":443"), "|443");
  EXPECT_EQ(split("2001:db8::/32"), "2001:db8::/32|");
  EXPECT_EQ(split("[2001:db8::1]:443"), "2001:db8::1|443");
  EXPECT_EQ(split("[2001:db8::1]"), "2001:db8::1|");
  EXPECT_EQ(split("[2001:db8::]/32:443"), "2001:db8::/32|443");
  EXPECT_EQ(split("[2001:db8::/32]:443"), "2001:db8::/32|443");
}

TEST(ParseFilterTest, FillsEveryField) {
  const auto filter = ParseFilter({.id = "7",
                                   .protocol = "tcp",
                                   .state = "app-closed",
                                   .app = "10.0.0.0/8",
                                   .app_port = "40000",
                                   .remote = "192.0.2.1:443",
                                   .remote_port = "",
                                   .active_within = "30s",
                                   .name = "example.com",
                                   .uid = "10042",
                                   .package = "org.example"});
  ASSERT_TRUE(filter.ok()) << filter.status();
  EXPECT_EQ(filter->id(), 7u);
  EXPECT_EQ(filter->protocol(), netstack::v1::PROTOCOL_TCP);
  EXPECT_EQ(filter->state(), netstack::v1::FLOW_STATE_APP_CLOSED);
  EXPECT_EQ(filter->app(), "10.0.0.0/8");
  EXPECT_EQ(filter->app_port(), 40000u);
  EXPECT_EQ(filter->remote(), "192.0.2.1");
  EXPECT_EQ(filter->remote_port(), 443u);
  EXPECT_EQ(filter->active_within().seconds(), 30);
  EXPECT_EQ(filter->name_suffix(), "example.com");
  EXPECT_EQ(filter->uid(), 10042u);
  EXPECT_EQ(filter->package(), "org.example");
}

TEST(OwnerTextTest, SaysTheMostTelling) {
  netstack::v1::FlowOwner owner;
  EXPECT_EQ(OwnerText(owner), "");
  owner.set_uid(0);
  EXPECT_EQ(OwnerText(owner), "uid 0");
  owner.set_pid(7);
  owner.set_process("curl");
  EXPECT_EQ(OwnerText(owner), "curl/7");
  owner.set_package("org.example");
  EXPECT_EQ(OwnerText(owner), "org.example");
}

TEST(ParseFilterTest, EmptyTextIsAnEmptyFilter) {
  EXPECT_TRUE(FilterText().empty());
  const auto filter = ParseFilter({});
  ASSERT_TRUE(filter.ok());
  EXPECT_EQ(filter->ByteSizeLong(), 0u);
}

TEST(ParseFilterTest, NamesTheWrongOption) {
  FilterText text;
  text.remote = "192.0.2.1:70000";
  EXPECT_THAT(std::string(ParseFilter(text).status().message()),
              HasSubstr("--remote-port"));
  text = {};
  text.id = "-3";
  EXPECT_THAT(std::string(ParseFilter(text).status().message()),
              HasSubstr("--id"));
}

TEST(FlowRatesTest, NeedsTwoLooks) {
  FlowRates rates;
  const absl::Time start = absl::FromUnixSeconds(1000);
  EXPECT_EQ(rates.Measure({MakeFlow(1, 100, 0)}, start)[0].outbound_rate, 0);
  const auto rows = rates.Measure({MakeFlow(1, 300, 50), MakeFlow(2, 9, 9)},
                                  start + absl::Seconds(2));
  EXPECT_EQ(rows[0].outbound_rate, 100);
  EXPECT_EQ(rows[0].inbound_rate, 25);
  EXPECT_EQ(rows[1].outbound_rate, 0) << "new flows have no rate yet";
}

TEST(FlowModelTest, FollowsSnapshotAndChanges) {
  FlowModel model;
  const absl::Time start = absl::FromUnixSeconds(1000);
  model.Apply(Message("snapshot { flows { id: 1 } flows { id: 2 } }"), start);
  EXPECT_FALSE(model.complete());
  model.Apply(Message("end_of_snapshot { flows: 2 }"), start);
  EXPECT_TRUE(model.complete());
  model.Apply(Message(R"pb(changes {
                             changes {
                               type: FLOW_CHANGE_TYPE_OPENED
                               flow { id: 3 }
                             }
                             changes {
                               type: FLOW_CHANGE_TYPE_CLOSED
                               flow { id: 1 }
                             }
                           })pb"),
              start);
  EXPECT_THAT(Ids(model.Flows(start)), ElementsAre(2, 3));
  EXPECT_EQ(model.lost(), 0u);
  model.Apply(Message("loss { changes: 5 }"), start);
  EXPECT_EQ(model.lost(), 5u);
}

TEST(FlowModelTest, AgesGoOnBetweenMessages) {
  FlowModel model;
  const absl::Time start = absl::FromUnixSeconds(1000);
  model.Apply(Message("snapshot { flows { id: 1 age { seconds: 5 } } }"),
              start);
  const auto flows = model.Flows(start + absl::Seconds(10));
  EXPECT_EQ(flows[0].age().seconds(), 15);
  EXPECT_EQ(flows[0].idle().seconds(), 10);
}

TEST(FlowModelTest, DropsFlowsThatLeaveTheFilter) {
  netstack::v1::FlowFilter filter;
  filter.set_state(netstack::v1::FLOW_STATE_OPEN);
  filter.mutable_active_within()->set_seconds(30);
  FlowModel model(filter);
  const absl::Time start = absl::FromUnixSeconds(1000);
  model.Apply(Message("snapshot { flows { id: 1 } flows { id: 2 } }"), start);
  model.Apply(Message(R"pb(changes {
                             changes {
                               type: FLOW_CHANGE_TYPE_UPDATED
                               flow { id: 1 state: FLOW_STATE_TIME_WAIT }
                             }
                           })pb"),
              start);
  EXPECT_THAT(Ids(model.Flows(start)), ElementsAre(2));
  EXPECT_TRUE(model.Flows(start + absl::Seconds(31)).empty());
}

TEST(SortFlowsTest, LargestFirstAndTiesById) {
  std::vector<FlowRow> rows = {{.flow = MakeFlow(3, 5, 0)},
                               {.flow = MakeFlow(2, 5, 0)},
                               {.flow = MakeFlow(1, 1, 1), .inbound_rate = 7}};
  const auto order = [&rows](FlowOrder by) {
    SortFlows(by, rows);
    return std::vector<uint64_t>{rows[0].flow.id(), rows[1].flow.id(),
                                 rows[2].flow.id()};
  };
  EXPECT_THAT(order(FlowOrder::kBytes), ElementsAre(2, 3, 1));
  EXPECT_THAT(order(FlowOrder::kRate), ElementsAre(1, 2, 3));
  EXPECT_THAT(order(FlowOrder::kId), ElementsAre(1, 2, 3));
}

TEST(RenderFlowsTest, Golden) {
  const std::vector<FlowRow> rows = {{.flow = MakeFlow(7, 1536, 0)},
                                     {.flow = MakeFlow(8, 0, 5 << 20)}};
  EXPECT_EQ(
      RenderFlows(rows, false, 1, {}),
      "ID  PROTO  APP             REMOTE             STATE    AGE   IDLE  "
      "OUTBOUND  INBOUND    RTT\n"
      " 7  tcp    10.0.0.2:40000  [2001:db8::1]:443  open   1m02s  1.5ms   "
      "1.5 KiB      0 B  850µs\n"
      "… and 1 flow more (--limit)\n");
  EXPECT_EQ(RenderFlows({}, true, 0, {}), "No flows.\n");
}

TEST(RenderFlowsTest, NoLineIsWiderThanTheTerminal) {
  const std::vector<FlowRow> rows = {{.flow = MakeFlow(7, 1536, 0)}};
  for (size_t width : {20, 60, 80, 100}) {
    const std::string text = RenderFlows(rows, true, 0, {.width = width});
    size_t begin = 0;
    for (size_t end; (end = text.find('\n', begin)) != std::string::npos;
         begin = end + 1) {
      EXPECT_LE(DisplayWidth(text.substr(begin, end - begin)), width);
    }
  }
}

}  // namespace
}  // namespace netstack::cli

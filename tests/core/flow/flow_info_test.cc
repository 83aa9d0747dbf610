#include "core/flow/flow_info.h"

#include <chrono>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace netstack {
namespace {

using std::chrono::seconds;

FlowInfo MakeFlow() {
  FlowInfo f;
  f.id = 7;
  f.key = {*Endpoint::Parse("10.0.0.2:40000"),
           *Endpoint::Parse("[2001:db8::1]:443"), Protocol::kTcp};
  f.state = FlowState::kOpen;
  f.idle = seconds(5);
  f.name = "www.example.com";
  f.owner.uid = 10042;
  f.owner.package = "org.example.browser";
  f.owner.process = "browser";
  return f;
}

// One condition that the flow above meets, and one that it does not.
struct FilterCase {
  const char* name;
  std::function<void(FlowFilter&)> meets;
  std::function<void(FlowFilter&)> fails;
};

std::vector<FilterCase> Cases() {
  return {
      {"id", [](auto& f) { f.id = 7; }, [](auto& f) { f.id = 8; }},
      {"protocol", [](auto& f) { f.protocol = Protocol::kTcp; },
       [](auto& f) { f.protocol = Protocol::kUdp; }},
      {"state", [](auto& f) { f.state = FlowState::kOpen; },
       [](auto& f) { f.state = FlowState::kDialing; }},
      {"app", [](auto& f) { f.app = IpPrefix::Parse("10.0.0.0/24"); },
       [](auto& f) { f.app = IpPrefix::Parse("10.0.1.0/24"); }},
      {"app's family", [](auto& f) { f.app = IpPrefix::Parse("0.0.0.0/0"); },
       [](auto& f) { f.app = IpPrefix::Parse("::/0"); }},
      {"remote",
       [](auto& f) { f.remote = IpPrefix::Parse("2001:db8::/32"); },
       [](auto& f) { f.remote = IpPrefix::Parse("2001:db8::2"); }},
      {"app_port", [](auto& f) { f.app_port = 40000; },
       [](auto& f) { f.app_port = 443; }},
      {"remote_port", [](auto& f) { f.remote_port = 443; },
       [](auto& f) { f.remote_port = 40000; }},
      {"uid", [](auto& f) { f.uid = 10042; }, [](auto& f) { f.uid = 0; }},
      {"package", [](auto& f) { f.package = "org.example.browser"; },
       [](auto& f) { f.package = "org.example"; }},
      {"process", [](auto& f) { f.package = "browser"; },
       [](auto& f) { f.package = "brows"; }},
      {"active_within", [](auto& f) { f.active_within = seconds(5); },
       [](auto& f) { f.active_within = seconds(4); }},
      {"name", [](auto& f) { f.name_suffix = "www.example.com"; },
       [](auto& f) { f.name_suffix = "a.www.example.com"; }},
      {"name's suffix", [](auto& f) { f.name_suffix = "example.com"; },
       [](auto& f) { f.name_suffix = "ample.com"; }},
  };
}

TEST(FlowFilter, EmptyMatchesEverything) {
  EXPECT_TRUE(FlowFilter{}.Matches(MakeFlow()));
  EXPECT_TRUE(FlowFilter{}.Matches(FlowInfo{}));
}

TEST(FlowFilter, EachFieldDecidesAlone) {
  for (const FilterCase& c : Cases()) {
    FlowFilter filter;
    c.meets(filter);
    EXPECT_TRUE(filter.Matches(MakeFlow())) << c.name;
    filter = {};
    c.fails(filter);
    EXPECT_FALSE(filter.Matches(MakeFlow())) << c.name;
  }
}

TEST(FlowFilter, AllFieldsMustMatch) {
  FlowFilter all;
  for (const FilterCase& c : Cases()) c.meets(all);
  EXPECT_TRUE(all.Matches(MakeFlow()));
  for (const FilterCase& c : Cases()) {
    FlowFilter one_wrong = all;
    c.fails(one_wrong);
    EXPECT_FALSE(one_wrong.Matches(MakeFlow())) << c.name;
  }
}

template <typename Names>
void ExpectNamesOfTheProtosForm(const Names& names) {
  std::set<std::string> seen;
  for (absl::string_view name : names) {
    EXPECT_THAT(std::string(name), testing::MatchesRegex("[A-Z][A-Z0-9_]*"));
    EXPECT_TRUE(seen.insert(std::string(name)).second) << name;
  }
}

TEST(FlowInfo, StatesAndCloseReasonsHaveNames) {
  ExpectNamesOfTheProtosForm(kFlowStateNames);
  ExpectNamesOfTheProtosForm(kCloseReasonNames);
  EXPECT_EQ(FlowStateName(FlowState::kDialing), "DIALING");
  EXPECT_EQ(FlowStateName(FlowState::kClosed), "CLOSED");
  EXPECT_EQ(CloseReasonName(CloseReason::kNone), "NONE");
  EXPECT_EQ(CloseReasonName(CloseReason::kStackStopped), "STACK_STOPPED");
}

}  // namespace
}  // namespace netstack

// The proto mirrors the core's tables name for name, and the shipped protoset
// holds the services.
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/drop_reason.h"
#include "core/dns/query_log.h"
#include "core/engine/observer.h"
#include "core/flow/flow_info.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "gtest/gtest.h"
#include "netstack/v1/dns_service.pb.h"
#include "netstack/v1/events.pb.h"
#include "netstack/v1/flow.pb.h"
#include "netstack/v1/flow_service.pb.h"
#include "netstack/v1/stats.pb.h"

namespace netstack {
namespace {

// Every name of the core is in the proto with value + 1, and the proto has no
// other value below `own` (from there on they are the service's).
template <typename Names>
void ExpectMirrors(const google::protobuf::EnumDescriptor* proto,
                   const std::string& prefix, const Names& core, int own) {
  ASSERT_NE(proto->FindValueByNumber(0), nullptr);
  EXPECT_EQ(proto->FindValueByNumber(0)->name(), prefix + "UNSPECIFIED");
  for (size_t i = 0; i < core.size(); ++i) {
    const auto* value = proto->FindValueByNumber(static_cast<int>(i) + 1);
    ASSERT_NE(value, nullptr) << prefix << core[i] << " is missing";
    EXPECT_EQ(value->name(), absl::StrCat(prefix, core[i]));
  }
  for (int i = 0; i < proto->value_count(); ++i) {
    const int number = proto->value(i)->number();
    EXPECT_TRUE(number <= static_cast<int>(core.size()) || number >= own)
        << proto->value(i)->name() << " is unknown to the core";
  }
}

constexpr int kNone = 1 << 30;

TEST(Names, DropReasons) {
  ExpectMirrors(v1::DropReason_descriptor(), "DROP_REASON_", kDropReasonNames,
                kNone);
}
TEST(Names, FlowStates) {
  ExpectMirrors(v1::FlowState_descriptor(), "FLOW_STATE_", kFlowStateNames,
                kNone);
}
TEST(Names, CloseReasons) {
  ExpectMirrors(v1::CloseReason_descriptor(), "CLOSE_REASON_",
                kCloseReasonNames, kNone);
}
TEST(Names, EventTypes) {
  ExpectMirrors(v1::EventType_descriptor(), "EVENT_TYPE_", kEventTypeNames,
                100);
}
TEST(Names, DnsVerdicts) {
  ExpectMirrors(v1::DnsVerdict_descriptor(), "DNS_VERDICT_",
                dns::kDnsVerdictNames, kNone);
}
TEST(Names, FlowChanges) {
  EXPECT_EQ(static_cast<int>(FlowChange::kOpened) + 1,
            v1::FLOW_CHANGE_TYPE_OPENED);
  EXPECT_EQ(static_cast<int>(FlowChange::kUpdated) + 1,
            v1::FLOW_CHANGE_TYPE_UPDATED);
  EXPECT_EQ(static_cast<int>(FlowChange::kClosed) + 1,
            v1::FLOW_CHANGE_TYPE_CLOSED);
}
TEST(Names, Protocols) {
  EXPECT_EQ(static_cast<int>(Protocol::kIcmp), v1::PROTOCOL_ICMP);
  EXPECT_EQ(static_cast<int>(Protocol::kTcp), v1::PROTOCOL_TCP);
  EXPECT_EQ(static_cast<int>(Protocol::kUdp), v1::PROTOCOL_UDP);
  EXPECT_EQ(static_cast<int>(Protocol::kIcmpV6), v1::PROTOCOL_ICMP_V6);
}

TEST(Protoset, HoldsTheServicesAndAllTheyImport) {
  std::ifstream file(NETSTACK_PROTOSET, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  google::protobuf::FileDescriptorSet set;
  ASSERT_TRUE(set.ParseFromString(bytes));
  google::protobuf::DescriptorPool pool;
  for (const auto& proto : set.file()) {
    ASSERT_NE(pool.BuildFile(proto), nullptr) << proto.name();
  }
  const auto* netstack = pool.FindServiceByName("netstack.v1.NetstackService");
  const auto* flows = pool.FindServiceByName("netstack.v1.FlowService");
  ASSERT_NE(netstack, nullptr);
  ASSERT_NE(flows, nullptr);
  const auto* dns = pool.FindServiceByName("netstack.v1.DnsService");
  ASSERT_NE(dns, nullptr);
  EXPECT_EQ(dns->method_count(), 5);
  EXPECT_EQ(netstack->method_count(), 9);
  EXPECT_EQ(flows->method_count(), 3);
  google::protobuf::SourceLocation where;
  EXPECT_TRUE(netstack->method(0)->GetSourceLocation(&where));
  EXPECT_NE(where.leading_comments.find("TUN"), std::string::npos);
}

}  // namespace
}  // namespace netstack

// The core's values as messages, and filters the other way.
#ifndef SERVER_CONVERT_H_
#define SERVER_CONVERT_H_

#include <vector>

#include "core/engine/config.h"
#include "core/engine/observer.h"
#include "core/engine/stats.h"
#include "core/flow/flow_info.h"
#include "google/protobuf/timestamp.pb.h"
#include "core/dns/query_log.h"
#include "core/engine/dns_front.h"
#include "netstack/v1/dns_service.pb.h"
#include "netstack/v1/events.pb.h"
#include "netstack/v1/flow.pb.h"
#include "netstack/v1/flow_service.pb.h"
#include "netstack/v1/stats.pb.h"

namespace netstack::server {

// The core's enums start at 0, where the proto's have _UNSPECIFIED: proto
// value = core value + 1. tests/server/names_test.cc compares the names.
inline v1::FlowState ToProto(FlowState s) {
  return static_cast<v1::FlowState>(static_cast<int>(s) + 1);
}
inline v1::CloseReason ToProto(CloseReason r) {
  return static_cast<v1::CloseReason>(static_cast<int>(r) + 1);
}
inline v1::DropReason ToProto(DropReason r) {
  return static_cast<v1::DropReason>(static_cast<int>(r) + 1);
}
inline v1::EventType ToProto(EventType t) {
  return static_cast<v1::EventType>(static_cast<int>(t) + 1);
}
inline v1::FlowChangeType ToProto(FlowChange c) {
  return static_cast<v1::FlowChangeType>(static_cast<int>(c) + 1);
}

void ToProto(const FlowKey& key, v1::FlowKey* out);
void ToProto(const FlowOwner& owner, v1::FlowOwner* out);
void ToProto(const FlowInfo& flow, v1::Flow* out);
void ToProto(const Stats& stats, v1::Stats* out);  // all but `control`

// Problems are named by their path in the request, "filter.app" and so on;
// `out` is usable when there are none.
std::vector<ConfigProblem> FromProto(const v1::FlowFilter& filter,
                                     FlowFilter* out);

inline v1::DnsVerdict ToProto(dns::DnsVerdict v) {
  return static_cast<v1::DnsVerdict>(static_cast<int>(v) + 1);
}
void ToProto(const dns::DnsQueryInfo& query, v1::DnsQuery* out);
void ToProto(const DnsUpstreams::Upstream& upstream,
             v1::DnsUpstreamStatus* out);

google::protobuf::Timestamp Now();

}  // namespace netstack::server

#endif  // SERVER_CONVERT_H_

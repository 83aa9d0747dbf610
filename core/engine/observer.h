// What the engine tells of its own accord.
#ifndef CORE_ENGINE_OBSERVER_H_
#define CORE_ENGINE_OBSERVER_H_

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "core/dns/query_log.h"
#include "core/flow/flow_info.h"

namespace netstack {

// X(enumerator, name, meaning). The proto's EventType has the same names.
#define NETSTACK_EVENT_TYPES(X)                                               \
  X(kStackStarted, "STACK_STARTED", "the stack reads the TUN")                \
  X(kStackStopped, "STACK_STOPPED", "the stack was stopped by request")       \
  X(kStackFailed, "STACK_FAILED", "the stack ended by itself, see message")   \
  X(kConfigChanged, "CONFIG_CHANGED", "a new revision took effect")           \
  X(kOffloadUnavailable, "OFFLOAD_UNAVAILABLE",                               \
    "the TUN has no super-segments; it is used plain")                        \
  X(kDescriptorsExhausted, "DESCRIPTORS_EXHAUSTED",                           \
    "no file descriptors for new flows; told at most once a second")          \
  X(kFlowLimitReached, "FLOW_LIMIT_REACHED",                                  \
    "new flows are refused; told at most once a second")                      \
  X(kHalfOpenPressure, "HALF_OPEN_PRESSURE",                                  \
    "many dials under way: SYN floods are filtered; at most once a second")   \
  X(kMemoryPressure, "MEMORY_PRESSURE",                                       \
    "flows wait for the memory budget; told at most once a second")           \
  X(kProtectFailed, "PROTECT_FAILED",                                         \
    "a socket could not be protected; told at most once a second")            \
  X(kFlowPoisoned, "FLOW_POISONED", "an lwIP assertion failed on a flow")     \
  X(kPingNotPermitted, "PING_NOT_PERMITTED",                                  \
    "an echo was refused: the system permits no ping sockets; at most "       \
    "once a second")                                                          \
  X(kUpstreamDown, "UPSTREAM_DOWN", "a DNS upstream does not answer")         \
  X(kUpstreamUp, "UPSTREAM_UP", "a DNS upstream answers again")               \
  X(kFailOpen, "FAIL_OPEN",                                                   \
    "a query was asked in the clear; told at most every 10 s")                \
  X(kListRefused, "LIST_REFUSED", "a blocklist could not be used")            \
  X(kListsLoaded, "LISTS_LOADED", "blocklists were read and are in use")      \
  X(kLoopDetected, "LOOP_DETECTED",                                           \
    "a packet of our own came in through the TUN; at most once a second")     \
  X(kTunReplaced, "TUN_REPLACED", "the stack reads another TUN now")          \
  X(kProtectorDown, "PROTECTOR_DOWN",                                         \
    "the app that protects sockets does not answer; at most once a second")   \
  X(kNetworkChanged, "NETWORK_CHANGED", "flows moved to another network")

enum class EventType : uint8_t {
#define NETSTACK_X(id, name, text) id,
  NETSTACK_EVENT_TYPES(NETSTACK_X)
#undef NETSTACK_X
};
inline constexpr std::array kEventTypeNames = {
#define NETSTACK_X(id, name, text) absl::string_view(name),
    NETSTACK_EVENT_TYPES(NETSTACK_X)
#undef NETSTACK_X
};
static_assert(static_cast<size_t>(EventType::kNetworkChanged) + 1 ==
              kEventTypeNames.size());
constexpr absl::string_view EventTypeName(EventType t) {
  return kEventTypeNames[static_cast<size_t>(t)];
}

struct Event {
  EventType type = EventType::kStackStarted;
  std::string message;   // a sentence for a person
  uint64_t flow_id = 0;  // where one flow is concerned
};

// Called on the loop thread; must not block and must not call the engine.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void OnFlow(FlowChange change, const FlowInfo& flow) = 0;
  virtual void OnEvent(const Event& event) = 0;
  // Only after Engine::SetQueryLog(true): a query was answered.
  virtual void OnDnsQuery(const dns::DnsQueryInfo& /*query*/) {}
  // Whose is this flow (owners.source is the app)? To be answered by
  // Engine::SetOwner().
  virtual void OnOwnerWanted(uint64_t, const FlowKey&) {}
  // The engine ended by itself (the TUN is gone): nothing more will come, and
  // Stop() is still to be called.
  virtual void OnFailed(const absl::Status& why) = 0;
};

}  // namespace netstack

#endif  // CORE_ENGINE_OBSERVER_H_

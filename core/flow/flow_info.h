// A flow as the outside sees it: a value, taken on the loop thread and read
// anywhere.
#ifndef CORE_FLOW_FLOW_INFO_H_
#define CORE_FLOW_FLOW_INFO_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "core/base/time.h"
#include "core/flow/flow_key.h"
#include "core/flow/flow_owner.h"

namespace netstack {

// X(enumerator, name, meaning). The proto's FlowState has the same names.
#define NETSTACK_FLOW_STATES(X)                                              \
  X(kDialing, "DIALING", "connect() on the host side is under way")          \
  X(kHandshake, "HANDSHAKE", "host side connected, app's handshake is not")  \
  X(kOpen, "OPEN", "both directions open")                                   \
  X(kAppClosed, "APP_CLOSED", "the app has sent FIN; inbound still open")    \
  X(kHostClosed, "HOST_CLOSED", "the remote has sent FIN; outbound is open") \
  X(kClosing, "CLOSING", "both have sent FIN, last bytes on their way")      \
  X(kTimeWait, "TIME_WAIT", "closed cleanly, kept for late segments")        \
  X(kClosed, "CLOSED", "gone; only in changes and events")

enum class FlowState : uint8_t {
#define NETSTACK_X(id, name, text) id,
  NETSTACK_FLOW_STATES(NETSTACK_X)
#undef NETSTACK_X
};
inline constexpr std::array kFlowStateNames = {
#define NETSTACK_X(id, name, text) absl::string_view(name),
    NETSTACK_FLOW_STATES(NETSTACK_X)
#undef NETSTACK_X
};
static_assert(static_cast<size_t>(FlowState::kClosed) + 1 ==
              kFlowStateNames.size());
constexpr absl::string_view FlowStateName(FlowState s) {
  return kFlowStateNames[static_cast<size_t>(s)];
}

// X(enumerator, name, meaning). The proto's CloseReason has the same names.
#define NETSTACK_CLOSE_REASONS(X)                                              \
  X(kNone, "NONE", "still open")                                               \
  X(kFinished, "FINISHED", "both sides closed cleanly")                        \
  X(kAppReset, "APP_RESET", "the app sent RST")                                \
  X(kHostReset, "HOST_RESET", "the remote sent RST")                           \
  X(kRefused, "REFUSED", "the remote refused the connection")                  \
  X(kUnreachable, "UNREACHABLE", "no route, or an ICMP error on the way")      \
  X(kProhibited, "PROHIBITED", "the host's firewall forbids the connection")   \
  X(kDialTimeout, "DIAL_TIMEOUT", "no answer within the dial timeout")         \
  X(kHandshakeTimeout, "HANDSHAKE_TIMEOUT", "the app never ended its handshake") \
  X(kIdleTimeout, "IDLE_TIMEOUT", "idle beyond the configured timeout")        \
  X(kHostTimeout, "HOST_TIMEOUT", "the remote stopped acknowledging")          \
  X(kAppTimeout, "APP_TIMEOUT", "the app stopped acknowledging")               \
  X(kProtectFailed, "PROTECT_FAILED", "the socket could not be protected")     \
  X(kNoResources, "NO_RESOURCES", "no descriptor, port or memory left")        \
  X(kEvicted, "EVICTED", "gave way to another half-open flow")                 \
  X(kPoisoned, "POISONED", "an lwIP assertion failed on this flow")            \
  X(kHostError, "HOST_ERROR", "another error of the host's socket")            \
  X(kClosedByRequest, "CLOSED_BY_REQUEST", "FlowService.CloseFlows")           \
  X(kStackStopped, "STACK_STOPPED", "the stack was stopped")                   \
  X(kNetworkChanged, "NETWORK_CHANGED", "its network is no longer in use")     \
  X(kAppBlocked, "APP_BLOCKED", "a rule of apps.rules blocks its owner")

enum class CloseReason : uint8_t {
#define NETSTACK_X(id, name, text) id,
  NETSTACK_CLOSE_REASONS(NETSTACK_X)
#undef NETSTACK_X
};
inline constexpr std::array kCloseReasonNames = {
#define NETSTACK_X(id, name, text) absl::string_view(name),
    NETSTACK_CLOSE_REASONS(NETSTACK_X)
#undef NETSTACK_X
};
inline constexpr size_t kCloseReasonCount = kCloseReasonNames.size();
static_assert(static_cast<size_t>(CloseReason::kAppBlocked) + 1 ==
              kCloseReasonCount);
constexpr absl::string_view CloseReasonName(CloseReason r) {
  return kCloseReasonNames[static_cast<size_t>(r)];
}

// What a FlowInfo is told for. kUpdated: the state changed; byte counts alone
// do not make a change.
enum class FlowChange : uint8_t { kOpened, kUpdated, kClosed };

struct FlowInfo {
  uint64_t id = 0;  // ascending by opening, unique in the process's life
  FlowKey key;
  FlowState state = FlowState::kDialing;
  CloseReason close_reason = CloseReason::kNone;
  Endpoint upstream_local;  // host side's local address; port 0 while dialing
  Duration age{};           // since the first SYN
  Duration idle{};          // since the last packet or byte either way
  // Payload bytes delivered to the other side, and IP packets (super-segments
  // count as one) on the tun side.
  uint64_t outbound_bytes = 0;
  uint64_t inbound_bytes = 0;
  uint64_t outbound_packets = 0;
  uint64_t inbound_packets = 0;
  // Bytes held in our buffers right now.
  uint32_t outbound_buffered = 0;
  uint32_t inbound_buffered = 0;
  // The host side's smoothed round-trip time as its kernel estimates it; zero
  // while unknown.
  Duration rtt{};
  // The time from the SYN to the host side's connection; zero while dialing.
  Duration dial_time{};
  // The name whose DNS answer led to the remote address: lower case, without
  // the dot at its end. Empty: none is known.
  std::string name;
  FlowOwner owner;  // unset while unknown
};

// All set fields must match; an empty filter matches every flow.
struct FlowFilter {
  std::optional<uint64_t> id;
  std::optional<Protocol> protocol;
  std::optional<FlowState> state;
  std::optional<IpPrefix> app;
  std::optional<IpPrefix> remote;
  std::optional<uint16_t> app_port;
  std::optional<uint16_t> remote_port;
  // Flows with traffic within this time.
  std::optional<Duration> active_within;
  // Flows whose name is this one or ends with "." and this; lower case. Empty:
  // any.
  std::string name_suffix;
  std::optional<uint32_t> uid;
  std::string package;  // or a process' name; empty: any
  // Only these; in place of uid and package for those who know no owners.
  std::shared_ptr<const absl::flat_hash_set<uint64_t>> ids;

  bool Matches(const FlowInfo& f) const;
};

}  // namespace netstack

#endif  // CORE_FLOW_FLOW_INFO_H_

// What a forwarder tells the engine of its own accord.
#ifndef CORE_FORWARD_FORWARD_LISTENER_H_
#define CORE_FORWARD_FORWARD_LISTENER_H_

#include "absl/strings/string_view.h"
#include "core/flow/flow_info.h"
#include "core/platform/poller.h"

namespace netstack {

enum class Pressure : uint8_t {
  kDescriptors,
  kFlowLimit,
  kHalfOpen,
  kMemory,
  kProtect,
  kPingNotPermitted,
  kProtectorDown,  // the app does not answer
  kLoop,           // our own packets come in
};

// May a new flow go?
enum class AppDecision : uint8_t {
  kAllow,
  kBlock,
  kWait,  // its owner is not known yet; the forwarder will be told
};

// Called on the loop thread, from within the forwarder: it must not be called
// back.
class ForwardListener {
 public:
  virtual ~ForwardListener() = default;
  // Only after SetFlowChanges(true).
  virtual void OnFlow(FlowChange change, const FlowInfo& flow) = 0;
  // As often as it happens; the engine thins it out.
  virtual void OnPressure(Pressure pressure) = 0;
  // A new flow, before anything of it leaves. `token` is the flow's with its
  // forwarder, and comes back when the decision was kWait.
  virtual AppDecision OnOpen(uint64_t, const FlowKey&, PollToken) {
    return AppDecision::kAllow;
  }
  virtual void OnPoisoned(uint64_t flow_id, absl::string_view why) = 0;
};

}  // namespace netstack

#endif  // CORE_FORWARD_FORWARD_LISTENER_H_

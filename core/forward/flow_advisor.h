// What is known about a flow before it begins: the name that led to its
// address, and whether a rule forbids it.
#ifndef CORE_FORWARD_FLOW_ADVISOR_H_
#define CORE_FORWARD_FLOW_ADVISOR_H_

#include <memory>
#include <optional>
#include <string>

#include "core/base/drop_reason.h"
#include "core/base/time.h"
#include "core/flow/flow_key.h"

namespace netstack {

// A name, shared by all flows that it led to; lower case, without the dot at
// its end.
using FlowName = std::shared_ptr<const std::string>;

struct FlowAdvice {
  // Set: the flow is refused at once (RST, ICMP) and counted so.
  std::optional<DropReason> refusal{};
  FlowName name{};  // null: no name is known
};

// Loop thread only. Asked once per flow (TCP: per first SYN; UDP: per new
// peer), never per packet.
class FlowAdvisor {
 public:
  virtual ~FlowAdvisor() = default;
  virtual FlowAdvice Advise(const FlowKey& key, Instant now) = 0;
};

}  // namespace netstack

#endif  // CORE_FORWARD_FLOW_ADVISOR_H_

// Whoever has flows to show: one per protocol. The engine asks all of them and
// merges by id.
#ifndef CORE_FLOW_FLOW_SOURCE_H_
#define CORE_FLOW_FLOW_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/base/time.h"
#include "core/flow/flow_info.h"

namespace netstack {

// Loop thread only.
class FlowSource {
 public:
  virtual ~FlowSource() = default;

  // At most `limit` flows that match, with id > after_id, by ascending id.
  // Memory is bounded by `limit`, whatever the number of flows.
  virtual std::vector<FlowInfo> List(const FlowFilter& filter,
                                     uint64_t after_id, size_t limit,
                                     Instant now) const = 0;
  // Ends every matching flow; says how many.
  virtual size_t Close(const FlowFilter& filter, Instant now) = 0;
  // Whether ForwardListener::OnFlow is to be called.
  virtual void SetFlowChanges(bool wanted) = 0;
};

}  // namespace netstack

#endif  // CORE_FLOW_FLOW_SOURCE_H_

// Ids of flows: ascending by opening and never used twice in the life of the
// process, through all stacks and all protocols.
#ifndef CORE_FLOW_FLOW_ID_H_
#define CORE_FLOW_FLOW_ID_H_

#include <cstdint>

namespace netstack {

// The loop thread of the one live stack calls it.
inline uint64_t NextFlowId() {
  static uint64_t last = 0;
  return ++last;
}

}  // namespace netstack

#endif  // CORE_FLOW_FLOW_ID_H_

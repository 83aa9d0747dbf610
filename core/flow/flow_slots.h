// The places for flows that hold a descriptor, shared by all protocols: what
// limits.max_flows and the process's descriptor limit come to.
#ifndef CORE_FLOW_FLOW_SLOTS_H_
#define CORE_FLOW_FLOW_SLOTS_H_

#include <cstdint>

namespace netstack {

class FlowSlots {
 public:
  explicit FlowSlots(uint32_t limit) : limit_(limit) {}

  // A lower limit refuses new flows until enough have gone.
  void set_limit(uint32_t limit) { limit_ = limit; }
  uint32_t limit() const { return limit_; }
  uint32_t used() const { return used_; }

  // False when all are taken; each success is given back once.
  bool Take() {
    if (used_ >= limit_) return false;
    ++used_;
    return true;
  }
  void Give() { --used_; }

 private:
  uint32_t limit_;
  uint32_t used_ = 0;
};

}  // namespace netstack

#endif  // CORE_FLOW_FLOW_SLOTS_H_

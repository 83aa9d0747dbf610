// Deadlines of many flows at constant cost: a hierarchical timing wheel
// (Varghese and Lauck, 1987) with intrusive nodes.
//
// Nothing here wakes anybody: the loop sleeps until next_deadline(), which is
// never later than the earliest node and, after Advance(), exact. Idle flows
// with far deadlines therefore cost no wake-up at all: there is no ticking,
// and cascading happens when a deadline falls due.
#ifndef CORE_FLOW_TIMER_WHEEL_H_
#define CORE_FLOW_TIMER_WHEEL_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/base/time.h"

namespace netstack {

// Embedded in whatever has a deadline; must outlive its stay in the wheel.
struct TimerNode {
  TimerNode* prev = nullptr;  // null: not in a wheel
  TimerNode* next = nullptr;
  int64_t tick = 0;  // deadline in the wheel's ticks

  bool armed() const { return prev != nullptr; }
};

class TimerWheel {
 public:
  // The resolution. A node fires at or after its deadline, by less than this.
  static constexpr Duration kTick = std::chrono::milliseconds(4);

  explicit TimerWheel(Instant start);
  TimerWheel(const TimerWheel&) = delete;
  TimerWheel& operator=(const TimerWheel&) = delete;

  // Arms, or moves, `node`. A deadline at or before the last Advance()'s time
  // fires at the next Advance(), never within the current one. Deadlines
  // beyond about two years are cut to that.
  void Arm(TimerNode* node, Instant deadline);
  // No effect when not armed.
  void Disarm(TimerNode* node);

  // Takes every node whose deadline is at or before `now` out of the wheel and
  // hands it to `fire`, which may arm and disarm any node, this one too.
  template <typename Fire>
  void Advance(Instant now, Fire&& fire) {
    if (now < next_deadline_) return;
    Collect(now);
    // The due list is a member list: `fire` may disarm a node that is due.
    while (TimerNode* node = PopDue()) fire(node);
    RecomputeNext();
  }

  // When Advance() should next be called; kNever when nothing is armed.
  Instant next_deadline() const { return next_deadline_; }
  size_t size() const { return size_; }

 private:
  static constexpr int kBits = 6;
  static constexpr int kSlots = 1 << kBits;
  static constexpr int kLevels = 6;

  // The cut: 2.2 years. A quarter of what the levels span, so that the top
  // level may wrap around without becoming ambiguous.
  static constexpr int64_t kMaxTicks = int64_t{1} << (kBits * kLevels - 2);

  int64_t TickOf(Instant t, bool round_up) const;
  Instant TimeOf(int64_t tick) const { return start_ + tick * kTick; }
  size_t SlotOf(int64_t tick) const;
  void Insert(TimerNode* node);
  void Collect(Instant now);
  TimerNode* PopDue();
  void RecomputeNext();

  Instant start_;
  Instant now_;          // of the last Advance() that did something
  int64_t current_ = 0;  // now_ as a tick; every node in a slot has a later one
  size_t size_ = 0;
  Instant next_deadline_ = kNever;
  std::array<uint64_t, kLevels> occupied_{};  // bit per slot
  // List heads: the slots of all levels, level by level. A head's tick is the
  // earliest of its list, or 0 when that is not known.
  std::array<TimerNode, kLevels * kSlots> slots_;
  // Nodes that are due now, and those that were overdue when armed. Their
  // ticks are never after current_, which tells them from nodes in slots.
  TimerNode due_;
  TimerNode overdue_;
};

}  // namespace netstack

#endif  // CORE_FLOW_TIMER_WHEEL_H_

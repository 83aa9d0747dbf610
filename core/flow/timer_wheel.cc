// How this works: ticks are numbers in base 64. A node stands in the level of
// the highest digit in which its tick differs from current_, in the slot that
// this digit names. So every node of a level is due before every node of the
// next one, and the first occupied slot of the lowest occupied level holds the
// earliest node. When current_ moves, only nodes whose digit it reaches or
// passes are touched; for all others level and slot stay what they are, so
// that a node's place can always be computed from its tick.
#include "core/flow/timer_wheel.h"

#include <algorithm>
#include <bit>

namespace netstack {
namespace {

void MakeEmpty(TimerNode* head) { head->prev = head->next = head; }
bool IsEmpty(const TimerNode& head) { return head.next == &head; }

void Append(TimerNode* head, TimerNode* node) {
  node->prev = head->prev;
  node->next = head;
  head->prev->next = node;
  head->prev = node;
}

void Unlink(TimerNode* node) {
  node->prev->next = node->next;
  node->next->prev = node->prev;
  node->prev = node->next = nullptr;
}

// Moves all of `from` to the end of `to`.
void Splice(TimerNode* from, TimerNode* to) {
  if (IsEmpty(*from)) return;
  from->next->prev = to->prev;
  from->prev->next = to;
  to->prev->next = from->next;
  to->prev = from->prev;
  MakeEmpty(from);
}

}  // namespace

TimerWheel::TimerWheel(Instant start) : start_(start), now_(start) {
  for (TimerNode& head : slots_) MakeEmpty(&head);
  MakeEmpty(&due_);
  MakeEmpty(&overdue_);
}

int64_t TimerWheel::TickOf(Instant t, bool round_up) const {
  const Duration since = t - start_;
  const int64_t tick = since / kTick;
  return tick + (round_up && since % kTick != Duration::zero() ? 1 : 0);
}

// Only for ticks after current_ by at most kMaxTicks.
size_t TimerWheel::SlotOf(int64_t tick) const {
  const auto differing = static_cast<uint64_t>(tick ^ current_);
  // A carry beyond the top digit belongs to the top level, which wraps.
  const int level = std::min(
      (static_cast<int>(std::bit_width(differing)) - 1) / kBits, kLevels - 1);
  const int64_t digit = (tick >> (level * kBits)) & (kSlots - 1);
  return static_cast<size_t>(level * kSlots + digit);
}

void TimerWheel::Insert(TimerNode* node) {
  const size_t slot = SlotOf(node->tick);
  TimerNode* head = &slots_[slot];
  if (IsEmpty(*head)) {
    head->tick = node->tick;
    occupied_[slot / kSlots] |= uint64_t{1} << (slot % kSlots);
  } else {
    head->tick = std::min(head->tick, node->tick);  // unknown stays unknown
  }
  Append(head, node);
}

void TimerWheel::Arm(TimerNode* node, Instant deadline) {
  Disarm(node);
  ++size_;
  if (deadline <= now_) {
    node->tick = current_;
    Append(&overdue_, node);
    next_deadline_ = std::min(next_deadline_, now_);
    return;
  }
  const int64_t latest = current_ + kMaxTicks;
  node->tick =
      deadline >= TimeOf(latest) ? latest : TickOf(deadline, /*round_up=*/true);
  Insert(node);
  next_deadline_ = std::min(next_deadline_, TimeOf(node->tick));
}

void TimerWheel::Disarm(TimerNode* node) {
  if (!node->armed()) return;
  Unlink(node);
  --size_;
  if (node->tick <= current_) return;  // was due or overdue
  const size_t slot = SlotOf(node->tick);
  TimerNode* head = &slots_[slot];
  if (IsEmpty(*head)) {
    occupied_[slot / kSlots] &= ~(uint64_t{1} << (slot % kSlots));
  } else if (head->tick == node->tick) {
    head->tick = 0;
  }
}

// Moves the time to `now` and every node that is due into the due list.
void TimerWheel::Collect(Instant now) {
  const int64_t before = current_;
  now_ = now;
  current_ = TickOf(now, /*round_up=*/false);
  Splice(&overdue_, &due_);

  // Taken out first and sorted afterwards, as Insert() must not put a node
  // into a slot that is yet to be visited.
  TimerNode reached;
  MakeEmpty(&reached);
  for (int level = 0; level < kLevels; ++level) {
    const int shift = level * kBits;
    const int64_t steps = (current_ >> shift) - (before >> shift);
    if (steps == 0) break;  // then no higher digit changed either
    // The slots behind the old digit, as many as there were steps.
    uint64_t passed =
        steps >= kSlots ? ~uint64_t{0} : (uint64_t{1} << steps) - 1;
    passed = std::rotl(passed,
                       static_cast<int>((before >> shift) + 1) & (kSlots - 1));
    uint64_t visit = occupied_[level] & passed;
    occupied_[level] &= ~passed;
    for (; visit != 0; visit &= visit - 1) {
      Splice(&slots_[level * kSlots + std::countr_zero(visit)], &reached);
    }
  }
  while (!IsEmpty(reached)) {
    TimerNode* node = reached.next;
    Unlink(node);
    if (node->tick <= current_) {
      Append(&due_, node);
    } else {
      Insert(node);
    }
  }
}

TimerNode* TimerWheel::PopDue() {
  if (IsEmpty(due_)) return nullptr;
  TimerNode* node = due_.next;
  Unlink(node);
  --size_;
  return node;
}

void TimerWheel::RecomputeNext() {
  if (!IsEmpty(overdue_)) {
    next_deadline_ = now_;
    return;
  }
  for (int level = 0; level < kLevels; ++level) {
    if (occupied_[level] == 0) continue;
    // The slots in the order in which they come after the current digit.
    const int digit =
        static_cast<int>(current_ >> (level * kBits)) & (kSlots - 1);
    const int ahead = std::countr_zero(std::rotr(occupied_[level], digit));
    TimerNode* head =
        &slots_[level * kSlots + ((digit + ahead) & (kSlots - 1))];
    if (head->tick == 0) {  // its earliest node was disarmed
      head->tick = head->next->tick;
      for (TimerNode* n = head->next; n != head; n = n->next) {
        head->tick = std::min(head->tick, n->tick);
      }
    }
    next_deadline_ = TimeOf(head->tick);
    return;
  }
  next_deadline_ = kNever;
}

}  // namespace netstack

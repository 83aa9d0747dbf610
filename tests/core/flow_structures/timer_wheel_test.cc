#include "core/flow/timer_wheel.h"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace netstack {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr Duration kTick = TimerWheel::kTick;
// Not a whole number of ticks, as no clock's time is.
constexpr Instant kStart{hours(20) + microseconds(1234)};

// Advances and returns the nodes that fired.
std::vector<TimerNode*> Fired(TimerWheel& wheel, Instant now) {
  std::vector<TimerNode*> fired;
  wheel.Advance(now, [&](TimerNode* node) {
    EXPECT_FALSE(node->armed());
    fired.push_back(node);
  });
  return fired;
}

using Nodes = std::vector<TimerNode*>;

TEST(TimerWheelTest, EmptyNeverWakes) {
  TimerWheel wheel(kStart);
  EXPECT_EQ(wheel.next_deadline(), kNever);
  EXPECT_EQ(Fired(wheel, kStart + hours(1)), Nodes{});
  EXPECT_EQ(wheel.next_deadline(), kNever);
  EXPECT_EQ(wheel.size(), 0u);
}

TEST(TimerWheelTest, FiresAtOrAfterDeadlineByLessThanATick) {
  for (const Duration after :
       {Duration(1), Duration(kTick) - Duration(1), Duration(kTick),
        Duration(kTick) + Duration(1), Duration(milliseconds(255)),
        Duration(milliseconds(256)), Duration(seconds(16) + milliseconds(384)),
        Duration(minutes(20)), Duration(hours(20)), Duration(hours(24 * 60)),
        Duration(hours(24 * 365))}) {
    SCOPED_TRACE(after.count());
    TimerWheel wheel(kStart);
    TimerNode node;
    wheel.Arm(&node, kStart + after);
    EXPECT_TRUE(node.armed());
    const Instant next = wheel.next_deadline();
    EXPECT_GE(next, kStart + after);
    EXPECT_LT(next, kStart + after + kTick);
    EXPECT_EQ(Fired(wheel, next - Duration(1)), Nodes{});
    EXPECT_EQ(Fired(wheel, next), Nodes{&node});
    EXPECT_EQ(wheel.next_deadline(), kNever);
    EXPECT_EQ(wheel.size(), 0u);
  }
}

TEST(TimerWheelTest, PastDeadlineFiresAtNextAdvance) {
  TimerWheel wheel(kStart);
  TimerNode node;
  wheel.Arm(&node, kStart - hours(1));
  EXPECT_LE(wheel.next_deadline(), kStart);
  EXPECT_EQ(Fired(wheel, kStart), Nodes{&node});
  // Also one that is past by less than a tick.
  const Instant now = kStart + seconds(1) + microseconds(1500);
  TimerNode other;
  wheel.Arm(&other, now);
  Fired(wheel, now + kTick);
  wheel.Arm(&node, now + kTick);
  EXPECT_EQ(Fired(wheel, now + kTick), Nodes{&node});
  EXPECT_EQ(wheel.next_deadline(), kNever);
}

TEST(TimerWheelTest, ArmMovesAnArmedNode) {
  TimerWheel wheel(kStart);
  TimerNode node;
  wheel.Arm(&node, kStart + seconds(1));
  wheel.Arm(&node, kStart + hours(1));
  EXPECT_EQ(wheel.size(), 1u);
  EXPECT_EQ(Fired(wheel, kStart + minutes(59)), Nodes{});
  wheel.Arm(&node, kStart + minutes(59) + seconds(1));
  EXPECT_EQ(Fired(wheel, kStart + minutes(59) + seconds(2)), Nodes{&node});
}

TEST(TimerWheelTest, DisarmedNodeDoesNotFire) {
  TimerWheel wheel(kStart);
  TimerNode near;
  TimerNode far;
  TimerNode past;
  wheel.Arm(&near, kStart + milliseconds(10));
  wheel.Arm(&far, kStart + hours(3));
  wheel.Arm(&past, kStart);
  for (TimerNode* node : {&near, &far, &past}) {
    wheel.Disarm(node);
    EXPECT_FALSE(node->armed());
    wheel.Disarm(node);  // no effect
  }
  EXPECT_EQ(wheel.size(), 0u);
  EXPECT_EQ(Fired(wheel, kStart + hours(4)), Nodes{});
  EXPECT_EQ(wheel.next_deadline(), kNever);
}

TEST(TimerWheelTest, NextIsExactAfterDisarmingTheEarliest) {
  TimerWheel wheel(kStart);
  TimerNode a;
  TimerNode b;
  TimerNode c;
  // All in one slot of a high level, so that its minimum must be found anew.
  wheel.Arm(&a, kStart + hours(30));
  wheel.Arm(&b, kStart + hours(30) + seconds(2));
  wheel.Arm(&c, kStart + hours(30) + seconds(1));
  wheel.Disarm(&a);
  EXPECT_LE(wheel.next_deadline(), kStart + hours(30) + seconds(1) + kTick);
  TimerNode other;
  wheel.Arm(&other, kStart + seconds(1));
  EXPECT_EQ(Fired(wheel, wheel.next_deadline()), Nodes{&other});
  EXPECT_GE(wheel.next_deadline(), kStart + hours(30) + seconds(1));
  EXPECT_LT(wheel.next_deadline(), kStart + hours(30) + seconds(1) + kTick);
}

TEST(TimerWheelTest, EverythingDueFiresAfterAJumpOfDays) {
  TimerWheel wheel(kStart);
  std::deque<TimerNode> nodes(1000);
  for (size_t i = 0; i < nodes.size(); ++i) {
    wheel.Arm(&nodes[i], kStart + minutes(static_cast<int64_t>(7 * i)));
  }
  // 7 * 1000 minutes are 4.9 days; the machine was suspended for four.
  const Instant now = kStart + hours(96);
  EXPECT_EQ(Fired(wheel, now).size(), 96u * 60 / 7 + 1);
  EXPECT_EQ(wheel.size(), nodes.size() - (96 * 60 / 7 + 1));
  EXPECT_GT(wheel.next_deadline(), now);
  EXPECT_EQ(Fired(wheel, now + hours(24)).size(),
            nodes.size() - (96 * 60 / 7 + 1));
}

TEST(TimerWheelTest, FarDeadlinesAreCut) {
  TimerWheel wheel(kStart);
  TimerNode never;
  TimerNode century;
  wheel.Arm(&never, kNever);
  wheel.Arm(&century, kStart + hours(24 * 365 * 100));
  EXPECT_GT(wheel.next_deadline(), kStart + hours(24 * 365 * 2));
  EXPECT_LT(wheel.next_deadline(), kStart + hours(24 * 365 * 3));
  EXPECT_EQ(Fired(wheel, kStart + hours(24 * 365 * 2)), Nodes{});
  EXPECT_EQ(Fired(wheel, kStart + hours(24 * 365 * 3)).size(), 2u);
}

// The digits of all levels carry at once; the top one wraps around after 8.7
// years of uptime.
TEST(TimerWheelTest, DecadesOfUptime) {
  TimerWheel wheel(kStart);
  TimerNode node;
  TimerNode soon;
  Instant now = kStart;
  for (int year = 0; year < 40; ++year) {
    const Instant deadline = now + hours(24 * 365);
    wheel.Arm(&node, deadline);
    wheel.Arm(&soon, now + seconds(10));
    ASSERT_EQ(Fired(wheel, now + seconds(11)), Nodes{&soon});
    ASSERT_GE(wheel.next_deadline(), deadline) << "year " << year;
    ASSERT_LT(wheel.next_deadline(), deadline + kTick) << "year " << year;
    ASSERT_EQ(Fired(wheel, deadline - kTick), Nodes{});
    ASSERT_EQ(Fired(wheel, deadline + kTick), Nodes{&node});
    now = deadline + kTick;
  }
}

TEST(TimerWheelTest, FireMayRearmItsNode) {
  TimerWheel wheel(kStart);
  TimerNode node;
  wheel.Arm(&node, kStart + seconds(1));
  int fired = 0;
  Instant now = kStart;
  for (int i = 0; i < 100; ++i) {
    now = wheel.next_deadline();
    wheel.Advance(now, [&](TimerNode* n) {
      ++fired;
      wheel.Arm(n, now + seconds(1));
    });
  }
  EXPECT_EQ(fired, 100);
  EXPECT_GE(now, kStart + seconds(100));
  EXPECT_LT(now, kStart + seconds(100) + 100 * kTick);
}

TEST(TimerWheelTest, RearmedInThePastFiresOncePerAdvance) {
  TimerWheel wheel(kStart);
  TimerNode node;
  wheel.Arm(&node, kStart);
  for (int i = 0; i < 3; ++i) {
    int fired = 0;
    wheel.Advance(kStart, [&](TimerNode* n) {
      ++fired;
      wheel.Arm(n, kStart);
    });
    EXPECT_EQ(fired, 1);
    EXPECT_LE(wheel.next_deadline(), kStart);
  }
}

TEST(TimerWheelTest, FireMayDisarmAndMoveNodesThatAreDue) {
  TimerWheel wheel(kStart);
  std::deque<TimerNode> nodes(10);
  for (TimerNode& node : nodes) wheel.Arm(&node, kStart + seconds(1));
  const Instant now = kStart + seconds(2);
  std::vector<TimerNode*> fired;
  wheel.Advance(now, [&](TimerNode* node) {
    fired.push_back(node);
    if (fired.size() > 1) return;
    // Nobody knows the order, so: of the others, disarm half, move half.
    for (size_t i = 0; i < nodes.size(); ++i) {
      if (&nodes[i] == node) continue;
      if (i % 2 == 0) {
        wheel.Disarm(&nodes[i]);
      } else {
        wheel.Arm(&nodes[i], now + seconds(1));
      }
    }
  });
  EXPECT_EQ(fired.size(), 1u);
  const size_t moved = wheel.size();
  EXPECT_GE(moved, 4u);
  EXPECT_EQ(Fired(wheel, now + seconds(1) + kTick).size(), moved);
}

// The promise that an idle service makes no wake-up: 10,000 flows with their
// idle timeouts far away, and a loop that sleeps until next_deadline().
TEST(TimerWheelTest, IdleFlowsCostNoWakeUp) {
  TimerWheel wheel(kStart);
  std::deque<TimerNode> nodes(10000);
  std::mt19937_64 random(7);
  Instant earliest = kNever;
  for (TimerNode& node : nodes) {
    const Instant deadline =
        kStart + hours(2) + microseconds(random() % 3'600'000'000);
    earliest = std::min(earliest, deadline);
    wheel.Arm(&node, deadline);
  }
  EXPECT_GE(wheel.next_deadline(), earliest);
  EXPECT_LT(wheel.next_deadline(), earliest + kTick);
  // A wake-up for another reason moves the wheel's time, and cascades what
  // it passes, but adds no wake-up.
  TimerNode other;
  for (const Duration after : {Duration(milliseconds(40)), Duration(hours(1)),
                               Duration(hours(1) + minutes(59))}) {
    wheel.Arm(&other, kStart + after);
    EXPECT_EQ(Fired(wheel, kStart + after + kTick), Nodes{&other});
    EXPECT_GE(wheel.next_deadline(), earliest);
    EXPECT_LT(wheel.next_deadline(), earliest + kTick);
  }
  // From then on every wake-up fires something.
  size_t wakes = 0;
  while (wheel.next_deadline() != kNever) {
    ++wakes;
    ASSERT_FALSE(Fired(wheel, wheel.next_deadline()).empty());
  }
  EXPECT_EQ(wheel.size(), 0u);
  EXPECT_LE(wakes, nodes.size());
}

// Random operations against a list of deadlines.
class Model {
 public:
  explicit Model(uint64_t seed) : random_(seed) {}

  void Run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) Step();
  }

 private:
  struct Entry {
    TimerNode node;
    std::optional<Instant> deadline;
  };

  // Of any magnitude, from nanoseconds to a year.
  Duration AnyDuration() { return Duration(random_() >> (9 + random_() % 55)); }

  void Arm(Entry& e) {
    const Instant deadline =
        now_ + AnyDuration() -
        (random_() % 4 == 0 ? AnyDuration() % hours(1) : Duration::zero());
    wheel_.Arm(&e.node, deadline);
    e.deadline = deadline;
  }

  void Disarm(Entry& e) {
    wheel_.Disarm(&e.node);
    e.deadline.reset();
  }

  void Step() {
    Entry& e = entries_[random_() % entries_.size()];
    switch (random_() % 5) {
      case 0:
      case 1:
        Arm(e);
        break;
      case 2:
        Disarm(e);
        break;
      default:
        Advance();
    }
    size_t armed = 0;
    for (const Entry& each : entries_) {
      ASSERT_EQ(each.node.armed(), each.deadline.has_value());
      armed += each.deadline.has_value() ? 1 : 0;
      // Never too late.
      if (each.deadline) {
        ASSERT_LT(wheel_.next_deadline(),
                  std::max(*each.deadline, now_) + kTick);
      }
    }
    ASSERT_EQ(wheel_.size(), armed);
  }

  void Advance() {
    if (random_() % 2 == 0 && wheel_.next_deadline() != kNever) {
      now_ = std::max(now_, wheel_.next_deadline());
    } else {
      now_ += AnyDuration();
    }
    const bool acted = now_ >= wheel_.next_deadline();
    // Nodes armed by `fire` for a time in the past are for the next Advance().
    std::vector<const TimerNode*> later;
    wheel_.Advance(now_, [&](TimerNode* node) {
      Entry& e = *std::find_if(entries_.begin(), entries_.end(),
                               [&](Entry& x) { return &x.node == node; });
      ASSERT_TRUE(e.deadline.has_value()) << "a disarmed node fired";
      ASSERT_LE(*e.deadline, now_) << "too early";
      ASSERT_EQ(std::count(later.begin(), later.end(), node), 0);
      e.deadline.reset();
      Entry& other = entries_[random_() % entries_.size()];
      switch (random_() % 6) {
        case 0:
          Arm(e);
          later.push_back(&e.node);
          break;
        case 1:
          Arm(other);
          later.push_back(&other.node);
          break;
        case 2:
          Disarm(other);
          break;
        default:
          break;
      }
    });
    CheckAfterAdvance(later, acted);
  }

  void CheckAfterAdvance(const std::vector<const TimerNode*>& later,
                         bool acted) {
    Instant earliest = kNever;
    for (const Entry& e : entries_) {
      if (!e.deadline) continue;
      earliest = std::min(earliest, *e.deadline);
      if (std::count(later.begin(), later.end(), &e.node) != 0) continue;
      ASSERT_GT(*e.deadline + kTick, now_) << "a due node did not fire";
    }
    // Exact, unless Advance() came too early to do anything.
    if (earliest == kNever) {
      ASSERT_TRUE(!acted || wheel_.next_deadline() == kNever);
      return;
    }
    const Instant due = std::max(earliest, now_);
    ASSERT_LT(wheel_.next_deadline(), due + kTick);
    if (acted) {
      ASSERT_GE(wheel_.next_deadline(), std::min(earliest, now_))
          << "a wake-up for nothing";
      if (earliest > now_) {
        ASSERT_GE(wheel_.next_deadline(), earliest) << "a wake-up for nothing";
      }
    }
  }

  std::mt19937_64 random_;
  Instant now_ = kStart;
  TimerWheel wheel_{kStart};
  std::deque<Entry> entries_{64};
};

TEST(TimerWheelTest, BehavesAsAListOfDeadlines) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(seed);
    Model(seed).Run(2000);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace netstack

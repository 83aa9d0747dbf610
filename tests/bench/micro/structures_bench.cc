// The timer wheel under as many timers as there are flows.
#include <benchmark/benchmark.h>

#include <vector>

#include "core/flow/timer_wheel.h"
#include "tests/bench/micro/core_rig.h"

namespace netstack::bench {
namespace {

constexpr uint32_t kTimers = 50000;
constexpr uint32_t kTwoHoursMs = 7'440'000;

struct Wheel {
  Instant now{std::chrono::hours(1)};
  TimerWheel wheel{now};
  std::vector<TimerNode> nodes = std::vector<TimerNode>(kTimers);
  Random random;

  Wheel() {
    for (TimerNode& node : nodes) wheel.Arm(&node, Deadline(kTwoHoursMs));
  }
  Instant Deadline(uint32_t most_ms) {
    return now + std::chrono::milliseconds(1 + random.Below(most_ms));
  }
};

// A flow's timer moves to another time.
void Rearm(benchmark::State& state) {
  Wheel w;
  for (auto _ : state) {
    w.wheel.Arm(&w.nodes[w.random.Below(kTimers)], w.Deadline(kTwoHoursMs));
  }
}
BENCHMARK(Rearm)->Name("TimerRearm/timers:50000");

// Delayed ACKs: armed 40 ms ahead and fired, 100 at a time.
void ArmAndFire(benchmark::State& state) {
  Wheel w;
  int64_t fired = 0;
  for (auto _ : state) {
    for (int i = 0; i < 100; ++i) {
      w.wheel.Arm(&w.nodes[w.random.Below(kTimers)],
                  w.now + std::chrono::milliseconds(40));
    }
    w.now += std::chrono::milliseconds(44);
    w.wheel.Advance(w.now, [&](TimerNode* node) {
      ++fired;
      w.wheel.Arm(node, w.Deadline(kTwoHoursMs));
    });
  }
  state.SetItemsProcessed(fired);
}
BENCHMARK(ArmAndFire)->Name("TimerArmAndFire/timers:50000");

}  // namespace
}  // namespace netstack::bench

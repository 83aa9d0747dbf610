// Through the whole core (reader, parser, table, lwIP, forwarder, writer), a
// batch of 64 packets per turn, each of a flow picked at random. Only the
// core's turns are timed, by processor time; `per_packet` is what R4 asks for.
#include "tests/bench/micro/flows_bench.h"

#include <benchmark/benchmark.h>

#include <memory>
#include <string>

#include "tests/bench/micro/core_rig.h"

namespace netstack::bench {
namespace {

constexpr uint32_t kBatch = 64;
constexpr uint16_t kMss = 1460;

using Case = void (*)(CoreRig&, Random&);

// One core at a time (lwIP is global), kept from one benchmark to the next.
std::unique_ptr<CoreRig> g_rig;
CoreRig::Options g_made_for;

CoreRig& RigFor(const CoreRig::Options& options) {
  if (g_rig != nullptr && g_made_for.flows == options.flows &&
      g_made_for.v4 == options.v4 && g_made_for.offload == options.offload) {
    return *g_rig;
  }
  g_rig.reset();
  g_rig = std::make_unique<CoreRig>(options);
  g_made_for = options;
  g_rig->OpenAll();
  return *g_rig;
}

double InSeconds(Duration d) {
  return std::chrono::duration<double>(d).count();
}

// `prepare` queues the batch; the turn that works on it is timed, and then
// everybody has their say, untimed.
template <typename Prepare>
void TimeTurns(benchmark::State& state, const CoreRig::Options& options,
               Prepare prepare) {
  CoreRig& rig = RigFor(options);
  if (rig.established() < options.flows) {
    return state.SkipWithError("not every flow is established");
  }
  Random random;
  for (auto _ : state) {
    for (uint32_t i = 0; i < kBatch; ++i) {
      prepare(rig, random.Below(options.flows));
    }
    state.SetIterationTime(InSeconds(rig.Turn().cpu));
    rig.Settle();
  }
  const auto packets = static_cast<int64_t>(state.iterations() * kBatch);
  state.counters["per_packet"] = benchmark::Counter(
      static_cast<double>(packets),
      benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void Upload(benchmark::State& state, CoreRig::Options options, size_t size) {
  TimeTurns(state, options,
            [size](CoreRig& rig, uint32_t flow) { rig.Send(flow, size); });
}

void Download(benchmark::State& state, CoreRig::Options options) {
  TimeTurns(state, options,
            [](CoreRig& rig, uint32_t flow) { rig.HostSends(flow, kMss); });
}

// The ACKs of a download: what the turn before has sent is answered.
void Acks(benchmark::State& state, CoreRig::Options options) {
  CoreRig& rig = RigFor(options);
  Random random;
  int64_t packets = 0;
  for (auto _ : state) {
    for (uint32_t i = 0; i < kBatch; ++i) {
      rig.HostSends(random.Below(options.flows), kMss);
    }
    rig.Turn();
    packets += static_cast<int64_t>(rig.Answer());
    state.SetIterationTime(InSeconds(rig.Turn().cpu));
    rig.Settle();
  }
  state.counters["per_packet"] = benchmark::Counter(
      static_cast<double>(packets),
      benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// Found in the table and refused at lwIP's door: parser, hash, lookup.
void FindAndDrop(benchmark::State& state, CoreRig::Options options) {
  TimeTurns(state, options,
            [](CoreRig& rig, uint32_t flow) { rig.SendBlindAck(flow); });
}

// SYN, dial, handshake, both FINs: `per_connection` is of the core alone.
void OpenAndClose(benchmark::State& state, CoreRig::Options options) {
  g_rig.reset();
  Duration took{};
  int64_t connections = 0;
  for (auto _ : state) {
    state.PauseTiming();
    CoreRig rig(options);
    state.ResumeTiming();
    rig.OpenAll();
    for (uint32_t flow = 0; flow < options.flows; ++flow) {
      rig.Finish(flow);
      rig.HostFinishes(flow);
      if (flow % kBatch == kBatch - 1) rig.Settle();
    }
    rig.Settle();
    if (rig.engine().GetStats().tcp.active != 0) {
      return state.SkipWithError("a flow has not ended");
    }
    connections += options.flows;
  }
  state.counters["per_connection"] = benchmark::Counter(
      static_cast<double>(connections),
      benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// One page of FlowService.ListFlows, which stalls the loop for so long.
void ListPage(benchmark::State& state, CoreRig::Options options) {
  CoreRig& rig = RigFor(options);
  // From the first flow's id on, wherever the process's count stands.
  const auto first = rig.engine().ListFlows({}, 0, 1);
  if (first.empty()) return state.SkipWithError("no flows");
  Random random;
  for (auto _ : state) {
    const uint64_t after = first[0].id + random.Below(options.flows);
    benchmark::DoNotOptimize(rig.engine().ListFlows({}, after, 1000));
  }
}

}  // namespace

void ReleaseRig() { g_rig.reset(); }

void RegisterFlowBenchmarks() {
  // Flows outermost: changing their number means to open them all.
  for (const uint32_t flows : {10u, 10000u, 50000u}) {
    const CoreRig::Options v4{.flows = flows};
    const auto name = [flows](const char* what) {
      return std::string(what) + "/flows:" + std::to_string(flows);
    };
    const auto add = [&](const char* what, auto fn, auto... args) {
      return benchmark::RegisterBenchmark(name(what).c_str(), fn, v4, args...)
          ->UseManualTime();
    };
    add("FindAndDrop", FindAndDrop);
    add("Upload1", Upload, size_t{1});
    add("Upload1460", Upload, size_t{kMss});
    add("Upload64K", Upload, size_t{44} * kMss);
    add("Download1460", Download);
    add("Acks", Acks);
    benchmark::RegisterBenchmark(name("ListPage1000").c_str(), ListPage, v4)
        ->Unit(benchmark::kMillisecond);
  }
  const CoreRig::Options v6{.flows = 10000, .v4 = false};
  benchmark::RegisterBenchmark("Upload1460V6/flows:10000", Upload, v6,
                               size_t{kMss})
      ->UseManualTime();
  const CoreRig::Options plain{.flows = 10000, .offload = false};
  benchmark::RegisterBenchmark("Upload1460Plain/flows:10000", Upload, plain,
                               size_t{kMss})
      ->UseManualTime();
  benchmark::RegisterBenchmark("Download1460Plain/flows:10000", Download, plain)
      ->UseManualTime();
  const CoreRig::Options churn{.flows = 4096};
  benchmark::RegisterBenchmark("OpenAndClose/flows:4096", OpenAndClose, churn)
      ->Unit(benchmark::kMillisecond);
}

}  // namespace netstack::bench

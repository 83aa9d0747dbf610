// Cost per packet and per connection, over the number of flows.
#ifndef TESTS_BENCH_MICRO_FLOWS_BENCH_H_
#define TESTS_BENCH_MICRO_FLOWS_BENCH_H_

namespace netstack::bench {

void RegisterFlowBenchmarks();
// Ends the core that the benchmarks share.
void ReleaseRig();

}  // namespace netstack::bench

#endif  // TESTS_BENCH_MICRO_FLOWS_BENCH_H_

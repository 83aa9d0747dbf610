// microbench: see each file for what is measured.
#include <benchmark/benchmark.h>

#include "tests/bench/micro/flows_bench.h"

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  netstack::bench::RegisterFlowBenchmarks();
  benchmark::RunSpecifiedBenchmarks();
  netstack::bench::ReleaseRig();
  benchmark::Shutdown();
  return 0;
}

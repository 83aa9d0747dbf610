// R4: opens many TCP flows in the core, shows that all are established and
// alive, and tells what each costs in memory and how long a turn of the loop
// can take. Sockets are scripted: no descriptor limit holds.
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "tests/bench/micro/core_rig.h"

namespace netstack::bench {
namespace {

constexpr uint32_t kBatch = 64;
constexpr uint32_t kRounds = 4000;

struct Memory {
  double malloced = 0;
  double resident = 0;
};

Memory Now() {
  const struct mallinfo2 info = mallinfo2();
  std::ifstream statm("/proc/self/statm");
  double total = 0, resident = 0;
  statm >> total >> resident;
  return {static_cast<double>(info.uordblks + info.hblkhd),
          resident * static_cast<double>(sysconf(_SC_PAGESIZE))};
}

double InMillis(Duration d) {
  return std::chrono::duration<double, std::milli>(d).count();
}

double Percentile(std::vector<Duration>& turns, double p) {
  std::sort(turns.begin(), turns.end());
  return InMillis(turns[static_cast<size_t>(
      p / 100 * static_cast<double>(turns.size() - 1))]);
}

int Run(uint32_t flows) {
  CoreRig rig({.flows = flows});
  const Memory before = Now();
  const Duration opening = rig.OpenAll();
  const Memory after = Now();
  const Stats opened = rig.engine().GetStats();
  std::printf("flows                    %u\n", flows);
  std::printf("established              %lu\n",
              static_cast<unsigned long>(opened.tcp.established));
  std::printf("longest turn, opening    %.3f ms\n", InMillis(opening));
  std::printf("malloced per flow        %.0f bytes\n",
              (after.malloced - before.malloced) / flows);
  std::printf("  of it the flow record  %.0f bytes\n",
              static_cast<double>(opened.memory.flow_records) / flows);
  std::printf("resident per flow        %.0f bytes\n",
              (after.resident - before.resident) / flows);

  // Every flow carries a segment out and one back.
  Random random;
  std::vector<Duration> turns;
  turns.reserve(kRounds * 2);
  Duration upload{};
  for (uint32_t round = 0; round < kRounds; ++round) {
    for (uint32_t i = 0; i < kBatch; ++i) {
      rig.Send(random.Below(flows), 1460);
    }
    const CoreRig::Cost cost = rig.Turn();
    turns.push_back(cost.wall);
    upload += cost.cpu;
    rig.Settle();
    for (uint32_t i = 0; i < kBatch; ++i) {
      rig.HostSends((round * kBatch + i) % flows, 100);
    }
    turns.push_back(rig.Turn().wall);
    rig.Settle();
  }
  std::printf("per packet               %.2f us\n",
              InMillis(upload) * 1000 / (kRounds * kBatch));
  std::printf("turns under load         p99.9 %.3f ms, longest %.3f ms\n",
              Percentile(turns, 99.9), Percentile(turns, 100));

  // What people ask for stalls the loop, too.
  turns.clear();
  for (uint64_t after_id = 0;;) {
    const Instant begin = std::chrono::steady_clock::now();
    const auto page = rig.engine().ListFlows({}, after_id, 1000);
    turns.push_back(std::chrono::steady_clock::now() - begin);
    if (page.empty()) break;
    after_id = page.back().id;
  }
  std::printf("pages of 1000 flows      median %.3f ms, longest %.3f ms\n",
              Percentile(turns, 50), Percentile(turns, 100));

  const Stats stats = rig.engine().GetStats();
  const uint64_t wanted = uint64_t{kRounds} * kBatch;
  const bool alive = stats.tcp.established == flows &&
                     stats.tcp.active == flows &&
                     stats.tcp.outbound_bytes == wanted * 1460 &&
                     stats.tcp.inbound_bytes == wanted * 100;
  const Instant begin = std::chrono::steady_clock::now();
  const size_t closed = rig.engine().CloseFlows({});
  std::printf("closing all at once      %.3f ms\n",
              InMillis(std::chrono::steady_clock::now() - begin));
  if (!alive || closed != flows) {
    std::printf("FAILED: active %lu, outbound %lu, inbound %lu, closed %zu\n",
                static_cast<unsigned long>(stats.tcp.active),
                static_cast<unsigned long>(stats.tcp.outbound_bytes),
                static_cast<unsigned long>(stats.tcp.inbound_bytes), closed);
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace netstack::bench

int main(int argc, char** argv) {
  const int flows = argc == 2 ? std::atoi(argv[1]) : 50000;
  if (argc > 2 || flows <= 0 || flows > 1'000'000) {
    std::fprintf(stderr, "usage: hold_flows [FLOWS]   (default 50000)\n");
    return 2;
  }
  return netstack::bench::Run(static_cast<uint32_t>(flows));
}

// The engine's counters and gauges, as one value. All counters start at zero
// when the stack starts and only rise; gauges say so.
#ifndef CORE_ENGINE_STATS_H_
#define CORE_ENGINE_STATS_H_

#include <array>
#include <cstdint>

#include "core/base/drop_reason.h"
#include "core/base/time.h"
#include "core/engine/dns_front.h"
#include "core/flow/stats.h"

namespace netstack {

struct LoopStats {
  uint64_t wakeups = 0;  // returns from waiting
  uint64_t turns = 0;    // turns of the loop
  Duration longest_turn{};  // since start
  Duration busy{};          // time not spent waiting
};

struct Stats {
  Duration uptime{};
  TunStats tun;
  TcpStats tcp;
  UdpStats udp;
  FragmentStats fragments;
  IcmpStats icmp;
  DialStats dial;
  MemoryStats memory;
  LoopStats loop;
  DnsFrontStats dns;
  uint32_t flow_limit = 0;        // gauge: flows that may be open at once
  uint32_t descriptors_used = 0;  // gauge: host-side sockets
  std::array<uint64_t, kDropReasonCount> drops{};  // packets, by DropReason
};

}  // namespace netstack

#endif  // CORE_ENGINE_STATS_H_

// Counters and gauges of the parts that carry flows. All counters start at
// zero when the stack starts and only rise; gauges say so. Each part owns the
// one it writes; engine/stats.h gathers them.
#ifndef CORE_FLOW_STATS_H_
#define CORE_FLOW_STATS_H_

#include <array>
#include <cstdint>

#include "core/base/drop_reason.h"
#include "core/flow/flow_info.h"

namespace netstack {

// Packets not carried, by DropReason: the one place where drops are counted.
class DropCounters {
 public:
  void Count(DropReason r, uint64_t packets = 1) {
    packets_[static_cast<size_t>(r)] += packets;
  }
  const std::array<uint64_t, kDropReasonCount>& packets() const {
    return packets_;
  }

 private:
  std::array<uint64_t, kDropReasonCount> packets_{};
};

// IP packets through the TUN, by direction (outbound = tun to host).
struct TunStats {
  uint64_t outbound_packets = 0;  // as read: a super-segment is one
  uint64_t outbound_bytes = 0;    // IP headers included
  uint64_t inbound_packets = 0;   // as written
  uint64_t inbound_bytes = 0;
  uint64_t reads = 0;        // read calls that returned a packet
  uint64_t writes = 0;       // write calls that took a packet
  uint64_t write_blocked = 0;  // writes that found the TUN full and waited
  uint64_t outbound_merged = 0;  // packets that software GRO appended
  // By protocol as read, whatever became of them.
  uint64_t tcp_packets = 0;
  uint64_t udp_packets = 0;
  uint64_t icmp_packets = 0;
  uint64_t other_packets = 0;
  uint64_t fragments = 0;
};

// Reassembly of the apps' fragments. Of the fragments read, each is in
// `used`, held, or a drop.
struct FragmentStats {
  uint64_t reassembled = 0;  // datagrams that became whole
  uint64_t used = 0;         // fragments of those
  uint64_t timed_out = 0;    // datagrams that did not
  uint64_t evicted = 0;      // datagrams that made way for newer ones
  uint64_t overlapped = 0;   // datagrams given up for an overlap
  uint64_t held = 0;         // gauge: fragments that wait
  uint64_t datagrams = 0;    // gauge: datagrams that they belong to
  uint64_t bytes = 0;        // gauge: memory that they take
};

// Echoes of the apps. A mapping is one app address and echo id, with one
// socket; a flow is one destination of it.
struct IcmpStats {
  uint64_t opened = 0;    // mappings
  uint64_t evicted = 0;   // mappings that made way for newer ones
  uint64_t requests = 0;  // that the host took
  uint64_t replies = 0;   // given to apps
  uint64_t errors_passed = 0;   // of the network, given to apps
  uint64_t gateway_echoes = 0;  // to our own address, answered here
  uint64_t outbound_bytes = 0;  // echo data of requests
  uint64_t inbound_bytes = 0;   // echo data of replies
  uint64_t sockets = 0;  // gauge: mappings
  uint64_t active = 0;   // gauge: flows
};

struct TcpStats {
  uint64_t opened = 0;       // flows whose SYN was admitted
  uint64_t established = 0;  // flows whose handshake the app completed
  uint64_t active = 0;       // gauge: flows in the table
  uint64_t half_open = 0;    // gauge: dialing or in handshake
  uint64_t time_wait = 0;    // gauge
  std::array<uint64_t, kCloseReasonCount> closed{};  // by CloseReason
  uint64_t outbound_bytes = 0;  // payload the host side's sockets took
  uint64_t inbound_bytes = 0;   // payload the apps acknowledged
  uint64_t resets_sent = 0;     // RST towards apps
  uint64_t icmp_errors_sent = 0;
  uint64_t retransmits = 0;   // segments sent to an app again
  uint64_t lwip_asserts = 0;  // assertions that failed inside lwIP
};

struct UdpStats {
  uint64_t opened = 0;    // flows: pairs of an app's and a remote's endpoint
  uint64_t active = 0;    // gauge: flows in the tables
  uint64_t mappings = 0;  // gauge: endpoints of apps, each with a socket
  std::array<uint64_t, kCloseReasonCount> closed{};  // by CloseReason
  // Payload and datagrams that the host side's sockets took, and the TUN.
  uint64_t outbound_bytes = 0;
  uint64_t inbound_bytes = 0;
  uint64_t outbound_datagrams = 0;
  uint64_t inbound_datagrams = 0;
  // Of these, messages to or from the kernel with several datagrams.
  uint64_t outbound_batches = 0;  // UDP_SEGMENT
  uint64_t inbound_batches = 0;   // UDP_GRO
  uint64_t send_calls = 0;     // sendmmsg(2)
  uint64_t receive_calls = 0;  // recvmmsg(2)
  uint64_t hairpinned = 0;   // datagrams from app to app (RFC 4787, 6)
  uint64_t host_errors = 0;  // ICMP errors that the network sent to us
  uint64_t resent = 0;  // calls made again behind another datagram's error
  uint64_t ports_preserved = 0;  // mappings with the app's own port
};

struct DialStats {
  uint64_t attempts = 0;
  uint64_t connected = 0;
  uint64_t refused = 0;
  uint64_t unreachable = 0;
  uint64_t timed_out = 0;
  uint64_t protect_failed = 0;
  uint64_t no_descriptor = 0;  // EMFILE or ENFILE
  uint64_t other_errors = 0;
  // The app that protects our sockets, and the pool of protected ones.
  uint64_t protect_asked = 0;
  uint64_t protect_refused = 0;
  uint64_t protect_unanswered = 0;
  uint64_t pool_hits = 0;
  uint64_t pool_misses = 0;
  uint32_t pool_ready = 0;  // gauge
  uint32_t protecting = 0;  // gauge
};

struct MemoryStats {
  uint64_t buffered = 0;       // gauge: payload bytes in flow buffers
  uint64_t buffered_peak = 0;  // highest `buffered` since start
  uint64_t budget = 0;         // the configured limit; 0 is none
  uint64_t pressure = 0;       // times that a flow waited for the budget
  uint64_t flow_records = 0;   // gauge: bytes of flow records and table
  uint64_t allocation_failures = 0;
};

}  // namespace netstack

#endif  // CORE_FLOW_STATS_H_

// The whole core in memory: a loop whose TUN, sockets and poller are arrays,
// and the apps' side of many TCP flows.
//
//   CoreRig rig({.flows = 50000});
//   rig.OpenAll();                  // SYN, dial, SYN-ACK, ACK for each
//   rig.Send(7, 1460);              // queues a segment of flow 7's app
//   rig.Turn();                     // the core's turn, which is timed
//   rig.Answer();                   // queues the ACKs that the apps owe
//
// The kernel costs nothing here but one copy of each packet that the core
// reads; hosts take everything at once. No descriptor is used, so that no
// limit holds.
#ifndef TESTS_BENCH_MICRO_CORE_RIG_H_
#define TESTS_BENCH_MICRO_CORE_RIG_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/base/time.h"
#include "core/engine/engine.h"
#include "core/engine/loop.h"

namespace netstack::bench {

class MemoryTun;
class MemorySockets;
class MemoryPoller;

// Deterministic and cheap (Marsaglia's xorshift64).
class Random {
 public:
  uint32_t Below(uint32_t limit) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<uint32_t>(state_ % limit);
  }

 private:
  uint64_t state_ = 0x9E3779B97F4A7C15;
};

class CoreRig {
 public:
  struct Options {
    uint32_t flows = 1;
    bool v4 = true;
    bool offload = true;  // else a plain TUN, checksums and all
  };
  explicit CoreRig(const Options& options);
  ~CoreRig();

  // --- what the apps do; takes effect with the next Turn() ---
  void Open(uint32_t flow);  // a SYN
  void Send(uint32_t flow, size_t payload);
  // A segment whose ACK no receiver may believe: found, judged, dropped.
  void SendBlindAck(uint32_t flow);
  void Finish(uint32_t flow);  // FIN
  // Queues an ACK for everything that came since the last call; how many.
  size_t Answer();

  // --- what the hosts do ---
  void HostSends(uint32_t flow, uint32_t bytes);
  void HostFinishes(uint32_t flow);

  // What a turn took: as a clock on the wall sees it, and of the processor,
  // which other programs on the machine do not lengthen.
  struct Cost {
    Duration wall{};
    Duration cpu{};
  };
  // One turn of the loop.
  Cost Turn();
  // Turns and answers until nobody has anything to say; the longest turn.
  Duration Settle();
  // Opens every flow, some at a time; the longest turn.
  Duration OpenAll();

  uint32_t flows() const { return options_.flows; }
  Engine& engine() { return *loop_; }
  uint64_t established() const;
  // Segments and bytes that the core wrote to the TUN.
  uint64_t written() const { return written_; }

 private:
  friend class MemoryTun;

  // One app's TCP, as far as it is needed.
  struct App {
    uint32_t next_seq = 1000;
    uint32_t next_ack = 0;
    int fd = -1;  // of the host's side
    bool owes_ack = false;
  };

  void Queue(uint32_t flow, uint8_t flags, size_t payload, bool syn_options);
  void OnWritten(const std::byte* header, size_t size);

  const Options options_;
  std::vector<App> apps_;
  std::vector<uint32_t> owing_;
  MemoryTun* tun_ = nullptr;          // owned by the loop
  MemorySockets* sockets_ = nullptr;  // owned by the loop
  std::unique_ptr<Observer> observer_;
  std::unique_ptr<Loop> loop_;
  uint64_t written_ = 0;
};

}  // namespace netstack::bench

#endif  // TESTS_BENCH_MICRO_CORE_RIG_H_

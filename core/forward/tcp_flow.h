// The record of one TCP flow. Written by the TcpForwarder only.
//
// It is what an idle flow costs beside lwIP's pcb, hence the order and the
// widths.
#ifndef CORE_FORWARD_TCP_FLOW_H_
#define CORE_FORWARD_TCP_FLOW_H_

#include <array>
#include <cstdint>
#include <memory>

#include "core/base/time.h"
#include "core/flow/buffer_pool.h"
#include "core/flow/flow_info.h"
#include "core/flow/flow_key.h"
#include "core/flow/timer_wheel.h"
#include "core/forward/flow_advisor.h"
#include "core/lwip/tcp_engine.h"

namespace netstack {

// The SYN of a flow whose dial is under way: what lwIP will be given, and the
// packet for an ICMP error to quote.
struct KeptSyn {
  SynFacts facts;
  uint8_t size = 0;
  std::array<std::byte, 128> packet;
};

struct TcpFlow {
  // Of the slab.
  uint32_t index = 0;
  uint32_t generation = 0;

  FlowKey key;
  int fd = -1;  // the host side; -1 when closed or not yet open
  uint64_t id = 0;
  TcpConn conn;  // the tun side

  // Outbound bytes that the host's socket did not take yet, in order;
  // `up_offset` bytes of the head are gone already.
  Chunk* up_head = nullptr;
  Chunk* up_tail = nullptr;
  uint32_t up_bytes = 0;
  uint32_t up_offset = 0;

  // Inbound bytes that may wait for the app; grows with its speed.
  uint32_t tx_limit = 0;
  uint32_t dial_micros = 0;
  uint32_t turn = 0;  // of `reads`, the reads of the socket in that turn
  uint8_t reads = 0;
  uint64_t outbound_bytes = 0;
  uint64_t inbound_bytes = 0;
  uint64_t outbound_packets = 0;
  Instant opened{};
  Instant last_active{};

  TimerNode timer;
  Instant timer_at = kNever;  // what the timer was armed for

  std::unique_ptr<KeptSyn> syn;  // until lwIP has it
  FlowName name;  // that led to the address; shared

  FlowState state = FlowState::kDialing;
  CloseReason close_reason = CloseReason::kNone;
  bool local : 1 = false;         // ends inside, see LocalStreams
  bool half_open : 1 = false;     // counted by the SynGate
  bool has_slot : 1 = false;      // counted as holding a descriptor
  bool readable : 1 = false;      // the host's socket may have bytes
  bool writable : 1 = false;      // and may take some
  bool read_closed : 1 = false;   // the remote's FIN is there, behind data
  bool host_eof : 1 = false;      // and has been read
  bool host_shut : 1 = false;     // our FIN went to the remote
  bool in_touched : 1 = false;    // in one of the forwarder's lists
  bool in_ready : 1 = false;
  bool in_blocked : 1 = false;
  bool in_starved : 1 = false;
  bool waits_owner : 1 = false;  // not dialed before its owner is known
  bool tx_limited : 1 = false;    // reading stopped at tx_limit
};

}  // namespace netstack

#endif  // CORE_FORWARD_TCP_FLOW_H_

// The records of UDP. Written by the UdpForwarder only.
//
// A mapping is one socket, for one source address and port of an app; a peer
// is one remote that the mapping talks to, and what people see as a flow. Most
// mappings have one peer, hence it lies in the mapping. An idle session costs
// these records and its places in the tables, hence order and widths.
#ifndef CORE_FORWARD_UDP_FLOW_H_
#define CORE_FORWARD_UDP_FLOW_H_

#include <cstdint>

#include "core/flow/timer_wheel.h"
#include "core/forward/flow_advisor.h"
#include "core/wire/ip_address.h"

namespace netstack {

struct UdpPeer {
  static constexpr uint32_t kNone = 0xFFFFFFFF;

  IpAddress ip;
  FlowName name;    // that led to `ip`; null where none is known
  uint64_t id = 0;  // of the flow; 0: a free place
  uint64_t outbound_bytes = 0;
  uint64_t inbound_bytes = 0;
  uint64_t outbound_packets = 0;  // on the tun side, as TCP's
  uint64_t inbound_packets = 0;
  // In units of UdpForwarder::kTick since the forwarder's start.
  uint32_t opened = 0;
  uint32_t active = 0;
  uint32_t next = kNone;  // of the mapping's further peers
  uint16_t port = 0;
  bool app_sent : 1 = false;  // the app has sent to it
  bool replied : 1 = false;   // and it has answered
  bool waits_owner : 1 = false;  // ForwardListener::OnOpen() said kWait
  bool blocked : 1 = false;      // or kBlock, and it is about to end

  Endpoint remote() const { return {ip, port}; }
};

struct UdpMapping {
  // Of the slab.
  uint32_t index = 0;
  uint32_t generation = 0;

  IpAddress app_ip;
  TimerNode timer;
  uint32_t timer_at = 0;  // what it was armed for, as UdpPeer::active
  int fd = -1;
  uint32_t peers = 0;  // with the first
  uint32_t further = UdpPeer::kNone;  // the head of their list
  uint16_t app_port = 0;
  uint16_t local_port = 0;
  uint16_t strangers = 0;  // of its peers, those that it never sent to
  uint8_t interface = 0;   // 1 + the number of its rule; 0: none
  bool dont_fragment : 1 = false;  // what the socket was told last
  bool fragment_known : 1 = false;
  bool no_batches : 1 = false;     // UDP_SEGMENT fails on its way
  bool in_ready : 1 = false;       // in one of the forwarder's lists
  bool in_waiting : 1 = false;
  bool group : 1 = false;  // has sent to a multicast or broadcast address
  UdpPeer first;

  Endpoint app() const { return {app_ip, app_port}; }
  bool v4() const { return app_ip.IsV4(); }
};

// A peer beside the first.
struct UdpFurtherPeer : UdpPeer {
  uint32_t index = 0;  // of the slab
  uint32_t generation = 0;
  uint32_t mapping = 0;
};

}  // namespace netstack

#endif  // CORE_FORWARD_UDP_FLOW_H_

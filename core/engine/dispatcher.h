// The second hop of an outbound packet: parse it, decide, act, count.
#ifndef CORE_ENGINE_DISPATCHER_H_
#define CORE_ENGINE_DISPATCHER_H_

#include <vector>

#include "core/base/drop_reason.h"
#include "core/base/time.h"
#include "core/engine/dns_front.h"
#include "core/engine/tun_reader.h"
#include "core/flow/stats.h"
#include "core/forward/icmp_forwarder.h"
#include "core/forward/icmp_responder.h"
#include "core/forward/reassembler.h"
#include "core/forward/tcp_forwarder.h"
#include "core/forward/udp_forwarder.h"
#include "core/wire/ip_address.h"
#include "core/wire/packet.h"
#include "core/wire/udp.h"

namespace netstack {

enum class Verdict : uint8_t {
  kTcp,          // to the TCP forwarder
  kEcho,         // to the ICMP forwarder
  kUdp,          // to the UDP forwarder
  kDns,          // a datagram to port 53: to the resolver
  kFragment,     // to the reassembler, and on when it makes a whole packet
  kTimeExceeded, // drop, and say so by ICMP, as a router does
  kRefuse,       // drop, and say `refusal` by ICMP: the app need not wait
  kDrop,
};

class Dispatcher final : public PacketHandler {
 public:
  // Datagrams in one packet of the TUN: what Linux makes of one sendmsg()
  // (UDP_MAX_SEGMENTS). Beyond, a packet of 64 KiB could ask for as many sends.
  static constexpr size_t kMaxUdpSegments = 128;

  // What it works with; all outlive the dispatcher.
  struct Parts {
    TcpForwarder* tcp = nullptr;
    IcmpForwarder* echoes = nullptr;
    UdpForwarder* udp = nullptr;
    DnsFront* dns = nullptr;  // null: port 53 is like any other
    Reassembler* reassembler = nullptr;
    IcmpResponder* icmp = nullptr;
    TunStats* stats = nullptr;
    DropCounters* drops = nullptr;
  };

  // `prefixes`: whose packets are ours; empty means everybody's.
  Dispatcher(std::vector<IpPrefix> prefixes, const Parts& parts);

  // The time of the turn; packets have none of their own.
  void set_now(Instant now) { now_ = now; }

  void OnPacket(MutableBytes bytes, ChecksumTrust trust,
                uint16_t udp_segment) override;

 private:
  struct Decision {
    Verdict verdict = Verdict::kDrop;
    DropReason reason = DropReason::kTooShort;
    IcmpError refusal = IcmpError::kProhibited;  // of kRefuse
    Packet packet;
    TcpSegment segment;
    IcmpMessage icmp;
    UdpDatagram datagram;
    uint16_t udp_segment = 0;
  };

  Decision Decide(Bytes bytes, ChecksumTrust trust) const;
  // Of a packet that is whole and may be carried.
  void DecideByTransport(ChecksumTrust trust, Decision& d) const;
  void DecideIcmp(ChecksumTrust trust, Decision& d) const;
  void DecideForGateway(Decision& d) const;
  void Act(const Decision& decision);
  void OnFragment(const Packet& fragment);
  void OnDns(const Decision& decision);
  bool IsOurs(const IpAddress& source) const;
  void CountProtocol(const Packet& packet);

  const std::vector<IpPrefix> prefixes_;
  const Parts parts_;
  Instant now_{};
};

}  // namespace netstack

#endif  // CORE_ENGINE_DISPATCHER_H_

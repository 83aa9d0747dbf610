// The second hop of an outbound packet: parse it, decide, act, count.
#ifndef CORE_ENGINE_DISPATCHER_H_
#define CORE_ENGINE_DISPATCHER_H_

#include <vector>

#include "core/base/drop_reason.h"
#include "core/base/time.h"
#include "core/engine/tun_reader.h"
#include "core/flow/stats.h"
#include "core/forward/icmp_responder.h"
#include "core/forward/tcp_forwarder.h"
#include "core/wire/ip_address.h"
#include "core/wire/packet.h"

namespace netstack {

enum class Verdict : uint8_t {
  kTcp,     // to the TCP forwarder
  kRefuse,  // drop, and say so by ICMP, so that the app need not wait
  kDrop,
};

class Dispatcher final : public PacketHandler {
 public:
  // All outlive the dispatcher. `prefixes`: whose packets are ours; empty
  // means everybody's.
  Dispatcher(std::vector<IpPrefix> prefixes, TcpForwarder* tcp,
             IcmpResponder* icmp, TunStats* stats, DropCounters* drops);

  // The time of the turn; packets have none of their own.
  void set_now(Instant now) { now_ = now; }

  void OnPacket(MutableBytes bytes, ChecksumTrust trust) override;

 private:
  struct Decision {
    Verdict verdict = Verdict::kDrop;
    DropReason reason = DropReason::kTooShort;
    Packet packet;
    TcpSegment segment;
  };

  Decision Decide(Bytes bytes, ChecksumTrust trust) const;
  bool IsOurs(const IpAddress& source) const;
  void CountProtocol(const Packet& packet);

  const std::vector<IpPrefix> prefixes_;
  TcpForwarder* const tcp_;
  IcmpResponder* const icmp_;
  TunStats* const stats_;
  DropCounters* const drops_;
  Instant now_{};
};

}  // namespace netstack

#endif  // CORE_ENGINE_DISPATCHER_H_

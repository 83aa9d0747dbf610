// The last hop of an inbound packet: headers, checksums, cutting, the TUN.
#ifndef CORE_FORWARD_TUN_WRITER_H_
#define CORE_FORWARD_TUN_WRITER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/base/bytes.h"
#include "core/flow/stats.h"
#include "core/lwip/segment_sink.h"
#include "core/platform/tun.h"
#include "core/wire/headers.h"

namespace netstack {

// A UDP datagram towards an app, or a batch of them.
struct InboundDatagram {
  Endpoint from;
  Endpoint to;
  Bytes payload;  // valid during the call only
  // Not 0: each datagram has this many bytes but for the last.
  uint16_t segment_size = 0;
  uint8_t tos = 0;
  uint8_t ttl = 64;
};

// Writes what the TCP engine sends. With offload a super-segment is one write
// and the kernel cuts it and makes its checksums; a plain TUN gets packets of
// the app's MSS, cut and summed here.
//
// A TUN that is full (EAGAIN) makes blocked() true until Unblock(); nothing
// is dropped for it.
class TunWriter final : public SegmentSink {
 public:
  // All outlive the writer.
  TunWriter(Tun* tun, TunStats* stats, DropCounters* drops);

  // Another TUN from now on, which outlives the writer's use of it. Segments
  // that the apps' handshakes made for a larger MTU are cut to the new one.
  void SetTun(Tun* tun);

  bool SendSegment(const InboundSegment& segment) override;

  // A whole IP packet of ours (RST, ICMP), checksums included. Dropped and
  // counted when the TUN does not take it.
  void SendPacket(Bytes packet);

  // False: the TUN takes nothing now; what was taken of a batch is cut off the
  // front of `datagram.payload`, and the rest is to be given again. A datagram
  // beyond the TUN's MTU goes in fragments.
  bool SendUdp(InboundDatagram& datagram);

  // A whole transport message (of ICMP, or a UDP datagram) with its checksum,
  // in at most 8 pieces; in IP fragments where it is beyond the TUN's MTU
  // (RFC 791, 3.2; RFC 8200, 4.5). False: the TUN takes nothing now, and
  // nothing was sent. A message whose later fragments find the TUN full is lost
  // and counted.
  bool SendMessage(const IpHeaderFields& ip, std::span<const Bytes> parts);

  bool blocked() const { return blocked_; }
  // The TUN is writable again.
  void Unblock() { blocked_ = false; }

 private:
  // More pieces than this are gathered by copying first.
  static constexpr size_t kMaxParts = 60;

  uint16_t PacketPayload(const InboundSegment& segment) const;
  bool WriteWhole(const InboundSegment& segment);
  bool WriteCut(const InboundSegment& segment);
  bool WriteUdp(const InboundDatagram& datagram, uint16_t segment_size);
  // False: the TUN is full. Any other failure drops.
  bool Write(std::span<const Bytes> parts, const TunWrite& how, size_t size);

  Tun* tun_;
  uint32_t mtu_ = 0;  // its
  TunStats* const stats_;
  DropCounters* const drops_;
  bool blocked_ = false;
  // Of datagrams that we fragment. They are told apart by order: nobody on the
  // way to an app could make use of guessing one (RFC 7739).
  uint32_t next_fragment_id_ = 1;
  std::array<std::byte, 128> header_;  // IP and TCP header of the packet
  std::vector<Bytes> parts_;
  std::vector<std::byte> gathered_;
};

}  // namespace netstack

#endif  // CORE_FORWARD_TUN_WRITER_H_

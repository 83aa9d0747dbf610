#include "core/wire/udp.h"

#include "core/wire/checksum.h"

namespace netstack {

OrDrop<UdpDatagram> ParseUdp(const Packet& packet, ChecksumTrust trust) {
  if (packet.transport.size() < kUdpHeaderSize) return DropReason::kTooShort;
  const std::byte* h = packet.transport.data();
  UdpDatagram udp;
  udp.source_port = Load16(h);
  udp.destination_port = Load16(h + 2);
  const size_t length = Load16(h + 4);
  if (length < kUdpHeaderSize || length > packet.transport.size() ||
      udp.source_port == 0 || udp.destination_port == 0) {
    return DropReason::kBadUdpHeader;
  }
  const Bytes datagram = packet.transport.first(length);
  const bool none = Load16(h + kUdpChecksumOffset) == 0;
  if (trust == ChecksumTrust::kVerify && !(none && packet.is_v4)) {
    if (none) return DropReason::kBadTransportChecksum;
    ChecksumAccumulator sum =
        PseudoHeader(packet.source, packet.destination, ip_protocol::kUdp,
                     static_cast<uint32_t>(length));
    sum.Add(datagram);
    if (sum.Finish() != 0) return DropReason::kBadTransportChecksum;
  }
  udp.payload = datagram.subspan(kUdpHeaderSize);
  return udp;
}

void WriteUdpHeader(const UdpHeaderFields& fields, std::byte* out) {
  Store16(out, fields.source_port);
  Store16(out + 2, fields.destination_port);
  Store16(out + 4, fields.length);
  Store16(out + kUdpChecksumOffset, fields.checksum);
}

}  // namespace netstack

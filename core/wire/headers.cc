#include "core/wire/headers.h"

#include <cstring>

#include "core/wire/checksum.h"
#include "core/wire/packet.h"

namespace netstack {
namespace {

void WriteV4(const IpHeaderFields& fields, size_t payload, std::byte* out) {
  Store8(out, 0x45);  // version 4, five words
  Store8(out + 1, fields.tos);
  Store16(out + 2, static_cast<uint16_t>(kIpV4HeaderSize + payload));
  Store16(out + 4, fields.id);
  Store16(out + 6, fields.dont_fragment ? 0x4000 : 0);
  Store8(out + 8, fields.ttl);
  Store8(out + 9, fields.protocol);
  Store16(out + 10, 0);
  std::memcpy(out + 12, fields.source.v4(), 4);
  std::memcpy(out + 16, fields.destination.v4(), 4);
  Store16(out + 10, Checksum({out, kIpV4HeaderSize}));
}

void WriteV6(const IpHeaderFields& fields, size_t payload, std::byte* out) {
  // Version, traffic class, and no flow label (RFC 6437, 2: zero is allowed).
  Store32(out, 0x60000000u | static_cast<uint32_t>(fields.tos) << 20);
  Store16(out + 4, static_cast<uint16_t>(payload));
  Store8(out + 6, fields.protocol);
  Store8(out + 7, fields.ttl);
  std::memcpy(out + 8, fields.source.v6(), 16);
  std::memcpy(out + 24, fields.destination.v6(), 16);
}

}  // namespace

size_t WriteIpHeader(const IpHeaderFields& fields, size_t payload,
                     std::byte* out) {
  const bool v4 = fields.source.IsV4();
  if (v4) {
    WriteV4(fields, payload, out);
  } else {
    WriteV6(fields, payload, out);
  }
  return IpHeaderSize(v4);
}

size_t WriteFragmentHeader(const IpHeaderFields& fields, uint32_t id,
                           size_t offset, bool more, size_t payload,
                           std::byte* out) {
  if (fields.source.IsV4()) {
    WriteV4(fields, payload, out);
    Store16(out + 4, static_cast<uint16_t>(id & 0xFFFF));
    Store16(out + 6,
            static_cast<uint16_t>(offset / 8 + (more ? 0x2000u : 0u)));
    Store16(out + 10, 0);
    Store16(out + 10, Checksum({out, kIpV4HeaderSize}));
    return kIpV4HeaderSize;
  }
  WriteV6(fields, payload + kFragmentHeaderSize, out);
  Store8(out + 6, 44);
  std::byte* fragment = out + kIpV6HeaderSize;
  Store8(fragment, fields.protocol);
  Store8(fragment + 1, 0);
  Store16(fragment + 2, static_cast<uint16_t>(offset + (more ? 1u : 0u)));
  Store32(fragment + 4, id);
  return kMaxFragmentHeaderSize;
}

size_t WriteBareTcp(const IpAddress& source, const IpAddress& destination,
                    const TcpHeaderFields& tcp, std::byte* out) {
  IpHeaderFields ip;
  ip.source = source;
  ip.destination = destination;
  ip.protocol = ip_protocol::kTcp;
  const size_t ip_size = WriteIpHeader(ip, kTcpHeaderSize, out);

  std::byte* h = out + ip_size;
  Store16(h, tcp.source_port);
  Store16(h + 2, tcp.destination_port);
  Store32(h + 4, tcp.seq);
  Store32(h + 8, tcp.ack);
  Store8(h + 12, 0x50);  // data offset: five words
  Store8(h + 13, tcp.flags);
  Store16(h + 14, tcp.window);
  Store16(h + 16, 0);  // checksum
  Store16(h + 18, 0);  // urgent pointer
  ChecksumAccumulator sum = PseudoHeader(source, destination, ip.protocol,
                                         static_cast<uint32_t>(kTcpHeaderSize));
  sum.Add({h, kTcpHeaderSize});
  Store16(h + 16, sum.Finish());
  return ip_size + kTcpHeaderSize;
}

}  // namespace netstack

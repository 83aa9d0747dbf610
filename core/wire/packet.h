// Parsing, once, at the edge: bytes from the TUN become checked values, and
// behind this file nobody reads raw headers.
//
// Everything here is total: any bytes give a value or a DropReason.
#ifndef CORE_WIRE_PACKET_H_
#define CORE_WIRE_PACKET_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "core/base/bytes.h"
#include "core/base/or_drop.h"
#include "core/wire/ip_address.h"

namespace netstack {

// IANA numbers as they stand in IP headers.
namespace ip_protocol {
inline constexpr uint8_t kIcmp = 1;
inline constexpr uint8_t kTcp = 6;
inline constexpr uint8_t kUdp = 17;
inline constexpr uint8_t kIcmpV6 = 58;
}  // namespace ip_protocol

// An IP packet whose header holds together: version, header length, total
// length, IPv4 header checksum and IPv6 extension headers were checked.
// Spans point into the caller's bytes.
struct Packet {
  Bytes bytes;      // the whole packet, cut at the length its header tells
  Bytes transport;  // from the transport header on; of a fragment, whatever
                    // stands behind the IP headers
  IpAddress source;
  IpAddress destination;
  uint8_t protocol = 0;  // of the transport, behind IPv6 extension headers
  uint16_t protocol_at = 0;  // where in `bytes` the protocol is named
  uint8_t ttl = 0;       // hop limit in IPv6
  uint8_t tos = 0;       // traffic class in IPv6
  bool is_v4 = true;
  bool is_fragment = false;  // first, middle or last; atomic ones are not
  uint16_t fragment_offset = 0;  // bytes of payload before this fragment's
  bool more_fragments = false;   // of a fragment: not the last
  uint32_t fragment_id = 0;      // IPv4's id; of an IPv6 fragment, its own
  // Of an IPv6 fragment: where in `bytes` the fragment header begins is
  // protocol_at, and this is where that header is named.
  uint16_t fragment_named_at = 0;
  bool dont_fragment = true;  // IPv4's DF; always true in IPv6
};

// IPv6: at most 8 extension headers (hop-by-hop, routing, destination
// options, fragment, authentication) are walked; more, a cut one, or a
// hop-by-hop that is not the first is BAD_EXTENSION_HEADER. An atomic
// fragment (RFC 6946) counts as a whole packet. ESP and "no next header" end
// the walk as that protocol, and so does a real fragment: what its fragment
// header names is its protocol. A routing header with segments left is
// BAD_EXTENSION_HEADER: we are no stop of the route (RFC 5095; RFC 8200, 4.4).
// An IPv6 address inside ::ffff:0:0/96 is BAD_ADDRESS: behind this function it
// would be taken for IPv4, and RFC 4291 gives it no place on the wire.
// Trailing bytes beyond the length that the header tells are cut.
OrDrop<Packet> ParsePacket(Bytes bytes);

namespace tcp_flag {
inline constexpr uint8_t kFin = 0x01;
inline constexpr uint8_t kSyn = 0x02;
inline constexpr uint8_t kRst = 0x04;
inline constexpr uint8_t kPsh = 0x08;
inline constexpr uint8_t kAck = 0x10;
inline constexpr uint8_t kUrg = 0x20;
}  // namespace tcp_flag

inline constexpr size_t kTcpHeaderSize = 20;

// A TCP segment whose data offset lies inside it.
struct TcpSegment {
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint32_t seq = 0;
  uint32_t ack = 0;
  uint8_t flags = 0;  // tcp_flag
  uint16_t window = 0;
  Bytes options;  // between the fixed header and the payload; unchecked
  Bytes payload;

  bool Has(uint8_t f) const { return (flags & f) != 0; }
};

// Whether the kernel vouches for the transport checksum (virtio_net_hdr says
// NEEDS_CSUM or DATA_VALID) or it must be computed here.
enum class ChecksumTrust : uint8_t { kVerify, kTrusted };

// `packet` is TCP and not a fragment. Fewer than 20 bytes are TOO_SHORT. Port
// 0 on either side, SYN together with FIN or RST, and a data offset below 5 or
// beyond the packet are BAD_TCP_HEADER. Only then the checksum is looked at.
OrDrop<TcpSegment> ParseTcp(const Packet& packet, ChecksumTrust trust);

// The options of a SYN that we pass on.
struct SynOptions {
  // RFC 9293, 3.7.1: 536 (IPv4) and 1220 (IPv6) when the option is absent.
  std::optional<uint16_t> mss;
  std::optional<uint8_t> window_scale;  // RFC 7323; at most 14
  bool sack_permitted = false;
};

// Unknown options are skipped by their length. A length below 2 or beyond
// the end, or a known option with the wrong length, is BAD_TCP_OPTIONS;
// unlike stock lwIP no byte beyond the options is read. An end-of-options
// byte ends the walk. An MSS below 536 is raised to 536; a window scale above
// 14 is lowered to 14 (RFC 7323, 2.3).
OrDrop<SynOptions> ParseSynOptions(Bytes options);

// Whether a first fragment has its transport's whole header, and in IPv6 all
// extension headers (RFC 1858; RFC 7112, 5): nothing else of a datagram may be
// judged before it is whole. Of a transport that is not known: eight bytes. A
// second fragment header is refused.
bool HoldsTransportHeader(const Packet& first_fragment);

inline constexpr size_t kIcmpHeaderSize = 8;

// An ICMP or ICMPv6 message.
struct IcmpMessage {
  uint8_t type = 0;
  uint8_t code = 0;
  uint16_t checksum = 0;
  uint16_t id = 0;   // of an echo
  uint16_t seq = 0;  // of an echo
  Bytes payload;     // behind the eight bytes of the header
};

// `packet` is ICMP (ICMPv6 in IPv6) and not a fragment. Fewer than 8 bytes are
// TOO_SHORT.
OrDrop<IcmpMessage> ParseIcmp(const Packet& packet, ChecksumTrust trust);

// Source and destination port of a TCP or UDP packet that is no fragment and
// has at least four bytes of transport; for counting what we do not carry.
struct Ports {
  uint16_t source = 0;
  uint16_t destination = 0;
};
std::optional<Ports> PeekPorts(const Packet& packet);

}  // namespace netstack

#endif  // CORE_WIRE_PACKET_H_

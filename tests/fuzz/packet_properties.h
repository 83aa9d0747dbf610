// What holds of every packet that the parsers accept, whatever its bytes.
#ifndef TESTS_FUZZ_PACKET_PROPERTIES_H_
#define TESTS_FUZZ_PACKET_PROPERTIES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/base/bytes.h"
#include "core/wire/checksum.h"
#include "core/wire/headers.h"
#include "core/wire/packet.h"
#include "tests/fuzz/fuzz_check.h"

namespace netstack::fuzz {

// The fuzzer's bytes in a heap block of their own, to be changed.
inline std::vector<std::byte> Copy(const uint8_t* data, size_t size) {
  const auto* p = reinterpret_cast<const std::byte*>(data);
  std::vector<std::byte> bytes(p, p + size);
  bytes.shrink_to_fit();
  return bytes;
}

inline bool Same(Bytes a, Bytes b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

inline bool Inside(Bytes part, Bytes whole) {
  return part.data() >= whole.data() &&
         part.data() + part.size() <= whole.data() + whole.size();
}

// The options written again read the same.
inline void CheckSynOptions(Bytes bytes) {
  const OrDrop<SynOptions> options = ParseSynOptions(bytes);
  if (!options) {
    FUZZ_CHECK(options.reason() == DropReason::kBadTcpOptions);
    return;
  }
  std::vector<std::byte> again;
  const auto add = [&again](int b) {
    again.push_back(static_cast<std::byte>(b));
  };
  if (options->mss) {
    FUZZ_CHECK(*options->mss >= 536);
    for (int b : {2, 4, *options->mss >> 8, *options->mss & 0xFF}) add(b);
  }
  if (options->window_scale) {
    FUZZ_CHECK(*options->window_scale <= 14);
    for (int b : {3, 3, int{*options->window_scale}}) add(b);
  }
  if (options->sack_permitted) {
    for (int b : {4, 2}) add(b);
  }
  const OrDrop<SynOptions> back = ParseSynOptions(again);
  FUZZ_CHECK(back);
  FUZZ_CHECK(back->mss == options->mss);
  FUZZ_CHECK(back->window_scale == options->window_scale);
  FUZZ_CHECK(back->sack_permitted == options->sack_permitted);
}

// A segment whose checksum is made right is accepted.
inline void CheckTcpWithRightChecksum(const Packet& packet) {
  std::vector<std::byte> bytes(packet.transport.begin(),
                               packet.transport.end());
  Store16(&bytes[16], 0);
  ChecksumAccumulator sum =
      PseudoHeader(packet.source, packet.destination, ip_protocol::kTcp,
                   static_cast<uint32_t>(bytes.size()));
  sum.Add(bytes);
  Store16(&bytes[16], sum.Finish());
  Packet fixed = packet;
  fixed.transport = bytes;
  FUZZ_CHECK(ParseTcp(fixed, ChecksumTrust::kVerify));
}

inline void CheckTcp(const Packet& packet) {
  const auto verified = ParseTcp(packet, ChecksumTrust::kVerify);
  const auto tcp = ParseTcp(packet, ChecksumTrust::kTrusted);
  if (!tcp) {
    FUZZ_CHECK(!verified && verified.reason() == tcp.reason());
    FUZZ_CHECK(tcp.reason() == DropReason::kTooShort ||
               tcp.reason() == DropReason::kBadTcpHeader);
    return;
  }
  FUZZ_CHECK(verified ||
             verified.reason() == DropReason::kBadTransportChecksum);
  FUZZ_CHECK(Inside(tcp->options, packet.transport));
  FUZZ_CHECK(Inside(tcp->payload, packet.transport));
  FUZZ_CHECK(tcp->options.size() <= 40);
  FUZZ_CHECK(kTcpHeaderSize + tcp->options.size() + tcp->payload.size() ==
             packet.transport.size());
  FUZZ_CHECK(tcp->source_port != 0 && tcp->destination_port != 0);
  const auto ports = PeekPorts(packet);
  FUZZ_CHECK(ports && ports->source == tcp->source_port &&
             ports->destination == tcp->destination_port);
  CheckSynOptions(tcp->options);
  CheckTcpWithRightChecksum(packet);
}

// The packet built anew from its fields reads the same.
inline void CheckRebuilt(const Packet& packet) {
  IpHeaderFields fields;
  fields.source = packet.source;
  fields.destination = packet.destination;
  fields.protocol = packet.protocol;
  fields.ttl = packet.ttl;
  fields.tos = packet.tos;
  std::vector<std::byte> bytes(IpHeaderSize(packet.is_v4));
  WriteIpHeader(fields, packet.transport.size(), bytes.data());
  bytes.insert(bytes.end(), packet.transport.begin(),
               packet.transport.end());
  const OrDrop<Packet> back = ParsePacket(bytes);
  FUZZ_CHECK(back);
  FUZZ_CHECK(back->source == packet.source);
  FUZZ_CHECK(back->destination == packet.destination);
  FUZZ_CHECK(back->protocol == packet.protocol);
  FUZZ_CHECK(back->ttl == packet.ttl && back->tos == packet.tos);
  FUZZ_CHECK(back->dont_fragment && !back->is_fragment);
  FUZZ_CHECK(Same(back->transport, packet.transport));
}

inline void CheckPacket(Bytes bytes) {
  const OrDrop<Packet> p = ParsePacket(bytes);
  if (!p) return;
  FUZZ_CHECK(p->bytes.data() == bytes.data());
  FUZZ_CHECK(p->bytes.size() <= bytes.size());
  FUZZ_CHECK(Inside(p->transport, p->bytes));
  FUZZ_CHECK(p->transport.data() + p->transport.size() ==
             p->bytes.data() + p->bytes.size());
  FUZZ_CHECK(p->bytes.size() - p->transport.size() >=
             IpHeaderSize(p->is_v4));
  FUZZ_CHECK(p->source.IsV4() == p->is_v4);
  FUZZ_CHECK(p->destination.IsV4() == p->is_v4);
  FUZZ_CHECK(p->protocol_at < p->bytes.size() - p->transport.size());
  FUZZ_CHECK(Load8(&p->bytes[p->protocol_at]) == p->protocol);
  FUZZ_CHECK(p->is_fragment || p->fragment_offset == 0);
  FUZZ_CHECK(p->fragment_offset % 8 == 0);
  // Trailing bytes make no difference.
  const OrDrop<Packet> cut = ParsePacket(p->bytes);
  FUZZ_CHECK(cut && cut->transport.data() == p->transport.data() &&
             cut->transport.size() == p->transport.size());
  if (p->is_fragment) {
    FUZZ_CHECK(!PeekPorts(*p));
    return;
  }
  CheckRebuilt(*p);
  if (p->protocol == ip_protocol::kTcp) CheckTcp(*p);
}

}  // namespace netstack::fuzz

#endif  // TESTS_FUZZ_PACKET_PROPERTIES_H_

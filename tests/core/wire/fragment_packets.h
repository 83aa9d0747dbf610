// Fragments made by hand for tests, in both families.
#ifndef TESTS_CORE_WIRE_FRAGMENT_PACKETS_H_
#define TESTS_CORE_WIRE_FRAGMENT_PACKETS_H_

#include <cstdint>
#include <vector>

#include "tests/core/wire/test_packets.h"

namespace netstack::test {

struct FragmentSpec {
  uint32_t id = 7;  // sixteen bits of it in IPv4
  uint16_t offset = 0;  // bytes, a multiple of 8
  bool more = true;
  uint8_t protocol = 17;
  uint8_t tos = 0;
};

inline ByteVector MakeFragment(const Family& f, const FragmentSpec& spec,
                               Bytes payload) {
  if (f.v4()) {
    ByteVector packet = MakeIp(f.app, f.remote, spec.protocol, payload);
    Store8(&packet[1], spec.tos);
    Store16(&packet[4], static_cast<uint16_t>(spec.id));
    Store16(&packet[6], static_cast<uint16_t>(spec.offset / 8 +
                                              (spec.more ? 0x2000 : 0)));
    FixV4Checksum(packet);
    return packet;
  }
  ByteVector header(8);
  Store8(&header[0], spec.protocol);
  Store16(&header[2],
          static_cast<uint16_t>(spec.offset + (spec.more ? 1 : 0)));
  Store32(&header[4], spec.id);
  ByteVector packet = MakeIp(f.app, f.remote, 44, Concat(header, payload));
  Store32(&packet[0], 0x60000000u | static_cast<uint32_t>(spec.tos) << 20);
  return packet;
}

// `payload` (a transport header and what is behind it) in fragments of at most
// `step` bytes, which is a multiple of 8.
inline std::vector<ByteVector> CutIntoFragments(const Family& f,
                                                FragmentSpec spec,
                                                Bytes payload, size_t step) {
  std::vector<ByteVector> all;
  for (size_t at = 0; at < payload.size(); at += step) {
    const size_t n = std::min(step, payload.size() - at);
    spec.offset = static_cast<uint16_t>(at);
    spec.more = at + n < payload.size();
    all.push_back(MakeFragment(f, spec, payload.subspan(at, n)));
  }
  return all;
}

// A UDP datagram with a right checksum.
inline ByteVector MakeUdp(const Family& f, uint16_t from, uint16_t to,
                          Bytes payload) {
  ByteVector udp(8);
  Store16(&udp[0], from);
  Store16(&udp[2], to);
  Store16(&udp[4], static_cast<uint16_t>(8 + payload.size()));
  udp = Concat(udp, payload);
  Store16(&udp[6], NaiveTransportChecksum(f.app, f.remote, 17, udp));
  return udp;
}

// An echo request with a right checksum.
inline ByteVector MakeEcho(const Family& f, uint16_t id, uint16_t seq,
                           Bytes payload) {
  ByteVector icmp(8);
  Store8(&icmp[0], f.v4() ? 8 : 128);
  Store16(&icmp[4], id);
  Store16(&icmp[6], seq);
  icmp = Concat(icmp, payload);
  Store16(&icmp[2], f.v4() ? NaiveChecksum(icmp)
                           : NaiveTransportChecksum(f.app, f.remote, 58, icmp));
  return icmp;
}

}  // namespace netstack::test

#endif  // TESTS_CORE_WIRE_FRAGMENT_PACKETS_H_

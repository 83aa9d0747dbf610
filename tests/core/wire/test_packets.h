// Packets made by hand for tests. Nothing here uses the code under test but
// IpAddress and the loads and stores of bytes.h.
#ifndef TESTS_CORE_WIRE_TEST_PACKETS_H_
#define TESTS_CORE_WIRE_TEST_PACKETS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/base/bytes.h"
#include "core/wire/ip_address.h"

namespace netstack::test {

using ByteVector = std::vector<std::byte>;

// "4500 003c" or "45 00 00 3c"; white space means nothing.
inline ByteVector Hex(absl::string_view text) {
  std::string digits;
  for (char c : text) {
    if (c != ' ' && c != '\n') digits += c;
  }
  ByteVector bytes;
  for (size_t i = 0; i + 1 < digits.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(
        std::strtoul(digits.substr(i, 2).c_str(), nullptr, 16)));
  }
  return bytes;
}

// A copy in a heap block of exactly its size, so that ASan reports the first
// byte read behind it.
class ExactCopy {
 public:
  explicit ExactCopy(Bytes bytes)
      : size_(bytes.size()), block_(std::make_unique<std::byte[]>(size_)) {
    // Not std::copy: gcc 12 at -O3 sees lengths in it that cannot be.
    for (size_t i = 0; i < size_; ++i) block_[i] = bytes[i];
  }
  MutableBytes bytes() { return {block_.get(), size_}; }

 private:
  size_t size_;
  std::unique_ptr<std::byte[]> block_;
};

inline ByteVector Concat(ByteVector a, Bytes b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// RFC 1071's sum, word by word; host order, not complemented.
inline uint16_t NaiveSum(Bytes bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    const uint32_t low = i + 1 < bytes.size() ? Load8(&bytes[i + 1]) : 0;
    sum += Load8(&bytes[i]) * 256u + low;
    sum = (sum & 0xFFFF) + (sum >> 16);
  }
  return static_cast<uint16_t>(sum);
}

inline uint16_t NaiveChecksum(Bytes bytes) {
  return static_cast<uint16_t>(~NaiveSum(bytes));
}

// The checksum over pseudo-header and message (RFC 9293, 3.1; RFC 8200, 8.1).
inline uint16_t NaiveTransportChecksum(const IpAddress& source,
                                       const IpAddress& destination,
                                       uint8_t protocol, Bytes message) {
  ByteVector all;
  const auto add = [&all](const std::byte* p, size_t n) {
    all.insert(all.end(), p, p + n);
  };
  const bool v4 = source.IsV4();
  add(v4 ? source.v4() : source.v6(), v4 ? 4 : 16);
  add(v4 ? destination.v4() : destination.v6(), v4 ? 4 : 16);
  std::byte tail[8] = {};
  Store32(tail, static_cast<uint32_t>(message.size()));
  Store32(tail + 4, protocol);
  add(tail, 8);
  return NaiveChecksum(Concat(all, message));
}

// One address pair per family: what most tests need.
struct Family {
  const char* name;
  IpAddress app;
  IpAddress remote;
  bool v4() const { return app.IsV4(); }
};
inline const Family kV4 = {"V4", IpAddress::V4(10, 0, 0, 2),
                           IpAddress::V4(192, 0, 2, 1)};
inline const Family kV6 = {"V6", *IpAddress::Parse("fd00::2"),
                           *IpAddress::Parse("2001:db8::1")};

// Sets IPv4's header checksum anew, over what there is of a header that is
// longer than the packet.
inline void FixV4Checksum(ByteVector& packet) {
  const size_t size =
      std::min<size_t>((Load8(packet.data()) & 15u) * 4, packet.size());
  Store16(&packet[10], 0);
  Store16(&packet[10], NaiveChecksum(Bytes(packet).first(size)));
}

// An IP packet without IPv4 options; `protocol` is IPv6's next header.
inline ByteVector MakeIp(const IpAddress& source,
                         const IpAddress& destination, uint8_t protocol,
                         Bytes payload) {
  ByteVector packet;
  if (source.IsV4()) {
    packet = Hex("4500 0000 0000 4000 4000 0000 00000000 00000000");
    Store16(&packet[2], static_cast<uint16_t>(20 + payload.size()));
    Store8(&packet[9], protocol);
    std::copy_n(source.v4(), 4, &packet[12]);
    std::copy_n(destination.v4(), 4, &packet[16]);
    FixV4Checksum(packet);
  } else {
    packet = Hex("6000 0000 0000 0040");
    Store16(&packet[4], static_cast<uint16_t>(payload.size()));
    Store8(&packet[6], protocol);
    packet.insert(packet.end(), source.v6(), source.v6() + 16);
    packet.insert(packet.end(), destination.v6(), destination.v6() + 16);
  }
  return Concat(packet, payload);
}

struct TcpSpec {
  uint16_t source_port = 40000;
  uint16_t destination_port = 80;
  uint32_t seq = 0x01020304;
  uint32_t ack = 0x05060708;
  uint8_t flags = 0x10;  // ACK
  uint16_t window = 0xABCD;
  ByteVector options{};  // filled up to whole words with zeros
  ByteVector payload{};
};

// A TCP header, options and payload, with a correct checksum.
inline ByteVector MakeTcp(const IpAddress& source,
                          const IpAddress& destination, TcpSpec spec) {
  while (spec.options.size() % 4 != 0) spec.options.push_back(std::byte{0});
  ByteVector tcp(20);
  Store16(&tcp[0], spec.source_port);
  Store16(&tcp[2], spec.destination_port);
  Store32(&tcp[4], spec.seq);
  Store32(&tcp[8], spec.ack);
  Store8(&tcp[12],
         static_cast<uint8_t>((5 + spec.options.size() / 4) * 16));
  Store8(&tcp[13], spec.flags);
  Store16(&tcp[14], spec.window);
  tcp = Concat(Concat(tcp, spec.options), spec.payload);
  Store16(&tcp[16], NaiveTransportChecksum(source, destination, 6, tcp));
  return tcp;
}

// From the app to the remote.
inline ByteVector MakeTcpPacket(const Family& f, const TcpSpec& spec = {}) {
  return MakeIp(f.app, f.remote, 6, MakeTcp(f.app, f.remote, spec));
}

// What Linux 6 wrote into a TUN without offload (10.0.0.2 and 2001:db8::2 to
// port 80 of 10.0.0.9 and 2001:db8::9, and "hello" to port 53).
inline ByteVector LinuxSynV4() {
  return Hex(
      "4500003cab09400040067ba80a0000020a000009b07e005076b2660d00000000"
      "a002faf0df700000020405b40402080a818b4a77000000000103030a");
}
inline ByteVector LinuxSynV6() {
  return Hex(
      "60050f8e0028064020010db800000000000000000000000220010db800000000"
      "0000000000000009d34400503680bde300000000a002fd20dbf60000020405a0"
      "0402080ad3da77a9000000000103030a");
}
inline ByteVector LinuxUdpV4() {
  return Hex(
      "45000021065340004011206f0a0000020a0000098d260035000d1a9c68656c6c"
      "6f");
}
inline ByteVector LinuxUdpV6() {
  return Hex(
      "60021cdb000d114020010db800000000000000000000000220010db800000000"
      "0000000000000009d6de0035000d897168656c6c6f");
}

}  // namespace netstack::test

#endif  // TESTS_CORE_WIRE_TEST_PACKETS_H_

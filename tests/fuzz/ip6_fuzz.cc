// IPv6 packets with extension headers: the input's bytes as they are, and
// once more with a payload length that is true.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/packet_properties.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace netstack;  // NOLINT: a whole program
  std::vector<std::byte> bytes = fuzz::Copy(data, size);
  fuzz::CheckPacket(bytes);
  if (bytes.size() < kIpV6HeaderSize) return 0;

  Store8(&bytes[0], static_cast<uint8_t>(0x60 | (Load8(&bytes[0]) & 0x0F)));
  const size_t payload =
      std::min<size_t>(bytes.size() - kIpV6HeaderSize, 0xFFFF);
  Store16(&bytes[4], static_cast<uint16_t>(payload));
  const OrDrop<Packet> p = ParsePacket(bytes);
  FUZZ_CHECK(p || p.reason() == DropReason::kBadExtensionHeader ||
             p.reason() == DropReason::kBadAddress);
  fuzz::CheckPacket(bytes);
  return 0;
}

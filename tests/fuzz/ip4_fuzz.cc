// IPv4 packets: the input's bytes as they are, and once more with a right
// header checksum, which a fuzzer would not guess.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/packet_properties.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace netstack;  // NOLINT: a whole program
  std::vector<std::byte> bytes = fuzz::Copy(data, size);
  fuzz::CheckPacket(bytes);
  if (bytes.empty()) return 0;

  Store8(&bytes[0], static_cast<uint8_t>(0x40 | (Load8(&bytes[0]) & 0x0F)));
  const size_t header = (Load8(&bytes[0]) & size_t{15}) * 4;
  if (header >= kIpV4HeaderSize && header <= bytes.size()) {
    Store16(&bytes[10], 0);
    Store16(&bytes[10], Checksum(Bytes(bytes).first(header)));
    // Nothing is left to object to but the total length.
    const size_t total = Load16(&bytes[2]);
    FUZZ_CHECK(static_cast<bool>(ParsePacket(bytes)) ==
               (total >= header && total <= bytes.size()));
  }
  fuzz::CheckPacket(bytes);
  return 0;
}

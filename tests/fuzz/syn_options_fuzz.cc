// The options of a SYN.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/packet_properties.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  netstack::fuzz::CheckSynOptions(netstack::fuzz::Copy(data, size));
  return 0;
}

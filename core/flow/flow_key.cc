#include "core/flow/flow_key.h"

#include <array>
#include <cstddef>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace netstack {

const char* ProtocolName(Protocol p) {
  switch (p) {
    case Protocol::kIcmp:
      return "ICMP";
    case Protocol::kTcp:
      return "TCP";
    case Protocol::kUdp:
      return "UDP";
    case Protocol::kIcmpV6:
      return "ICMPv6";
  }
  return "?";
}

std::string FlowKey::ToString() const {
  return absl::StrCat(ProtocolName(protocol), " ", app.ToString(), " -> ",
                      remote.ToString());
}

uint64_t HashFlowKey(const SipHashKey& secret, const FlowKey& key) {
  // Field by field: the struct has padding, whose bytes are anything.
  std::array<std::byte, 37> bytes;
  std::memcpy(bytes.data(), key.app.ip.v6(), 16);
  std::memcpy(bytes.data() + 16, key.remote.ip.v6(), 16);
  Store16(bytes.data() + 32, key.app.port);
  Store16(bytes.data() + 34, key.remote.port);
  Store8(bytes.data() + 36, static_cast<uint8_t>(key.protocol));
  return SipHash24(secret, bytes);
}

}  // namespace netstack

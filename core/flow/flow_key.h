// What tells flows apart: protocol, the app's endpoint and the remote one.
#ifndef CORE_FLOW_FLOW_KEY_H_
#define CORE_FLOW_FLOW_KEY_H_

#include <cstdint>
#include <string>

#include "core/base/siphash.h"
#include "core/wire/ip_address.h"

namespace netstack {

// IANA protocol numbers, as in an IP header.
enum class Protocol : uint8_t { kIcmp = 1, kTcp = 6, kUdp = 17, kIcmpV6 = 58 };

// "TCP", "UDP", "ICMP", "ICMPv6"; "?" for anything else.
const char* ProtocolName(Protocol p);

struct FlowKey {
  Endpoint app;     // tun side: source of outbound packets
  Endpoint remote;  // what the app wants to reach
  Protocol protocol = Protocol::kTcp;

  // "TCP 10.0.0.2:40000 -> 192.0.2.1:80"
  std::string ToString() const;
  friend bool operator==(const FlowKey&, const FlowKey&) = default;
};

// For hash tables. Apps choose most of a key, hence the secret.
uint64_t HashFlowKey(const SipHashKey& secret, const FlowKey& key);

}  // namespace netstack

#endif  // CORE_FLOW_FLOW_KEY_H_

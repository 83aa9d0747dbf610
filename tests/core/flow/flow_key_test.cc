#include "core/flow/flow_key.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace netstack {
namespace {

const FlowKey kKey = {*Endpoint::Parse("10.0.0.2:40000"),
                      *Endpoint::Parse("192.0.2.1:80"), Protocol::kTcp};
constexpr SipHashKey kSecret{1, 2};

// kKey with each of its parts changed, one at a time.
std::vector<FlowKey> Neighbours() {
  std::vector<FlowKey> keys(6, kKey);
  keys[0].app.ip = IpAddress::V4(10, 0, 0, 3);
  keys[1].app.port = 40001;
  keys[2].remote.ip = IpAddress::V4(192, 0, 2, 2);
  keys[3].remote.port = 81;
  keys[4].protocol = Protocol::kUdp;
  std::swap(keys[5].app, keys[5].remote);
  return keys;
}

TEST(FlowKey, IsPrinted) {
  EXPECT_EQ(kKey.ToString(), "TCP 10.0.0.2:40000 -> 192.0.2.1:80");
  const FlowKey v6 = {*Endpoint::Parse("[fd00::2]:5353"),
                      *Endpoint::Parse("[2001:db8::1]:53"), Protocol::kUdp};
  EXPECT_EQ(v6.ToString(), "UDP [fd00::2]:5353 -> [2001:db8::1]:53");
}

TEST(FlowKey, ProtocolsHaveNames) {
  EXPECT_STREQ(ProtocolName(Protocol::kIcmp), "ICMP");
  EXPECT_STREQ(ProtocolName(Protocol::kTcp), "TCP");
  EXPECT_STREQ(ProtocolName(Protocol::kUdp), "UDP");
  EXPECT_STREQ(ProtocolName(Protocol::kIcmpV6), "ICMPv6");
  EXPECT_STREQ(ProtocolName(Protocol{0}), "?");
}

TEST(FlowKey, EveryPartTellsFlowsApart) {
  EXPECT_EQ(kKey, FlowKey(kKey));
  for (const FlowKey& key : Neighbours()) EXPECT_NE(key, kKey);
}

TEST(HashFlowKey, DependsOnEveryPart) {
  std::set<uint64_t> seen = {HashFlowKey(kSecret, kKey)};
  for (const FlowKey& key : Neighbours()) {
    EXPECT_TRUE(seen.insert(HashFlowKey(kSecret, key)).second)
        << key.ToString();
  }
}

TEST(HashFlowKey, DependsOnTheSecretAndNothingElse) {
  const FlowKey copy = kKey;
  EXPECT_EQ(HashFlowKey(kSecret, kKey), HashFlowKey(kSecret, copy));
  EXPECT_NE(HashFlowKey(kSecret, kKey), HashFlowKey({1, 3}, kKey));
  EXPECT_NE(HashFlowKey(kSecret, kKey), HashFlowKey({2, 2}, kKey));
}

// Ports counted up, as a scanner does: no bucket of 1024 gets far more than
// its 16 of 16,384.
TEST(HashFlowKey, SpreadsNeighbouringKeys) {
  std::vector<int> buckets(1024);
  FlowKey key = kKey;
  int fullest = 0;
  for (uint16_t port = 1; port <= 16'384; ++port) {
    key.remote.port = port;
    int& bucket = buckets[HashFlowKey(kSecret, key) % buckets.size()];
    fullest = std::max(fullest, ++bucket);
  }
  EXPECT_LT(fullest, 48);
}

}  // namespace
}  // namespace netstack

// Whose a flow is and whether it may go: core/forward/app_gate.
#include "core/forward/app_gate.h"

#include <chrono>
#include <map>
#include <optional>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace netstack::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr PollToken kToken{PollToken::Kind::kTcpFlow, 5, 9};

// The system's socket tables, as a script: by the app's port.
class Sockets final : public SocketOwners {
 public:
  std::map<uint16_t, SocketOwner> known;
  std::optional<SocketOwner> Find(const FlowKey& key) override {
    const auto it = known.find(key.app.port);
    if (it == known.end()) return {};
    return it->second;
  }
};

FlowKey Key(uint16_t port) {
  return {{IpAddress::V4(10, 0, 0, 2), port},
          {IpAddress::V4(192, 0, 2, 1), 443},
          Protocol::kTcp};
}

FlowOwner Package(uint32_t uid, const std::string& package) {
  FlowOwner owner;
  owner.uid = uid;
  owner.package = package;
  return owner;
}

class AppGateTest : public testing::Test {
 protected:
  void Use(std::vector<AppRule> rules, bool system = false,
           bool block_unknown = false) {
    AppGate::Options options;
    options.enabled = true;
    options.rules = std::move(rules);
    options.block_unknown = block_unknown;
    gate.Configure(options, system ? &sockets : nullptr,
                   [this](uint64_t id, const FlowKey&,
                          const std::optional<SocketOwner>&) {
                     searched.push_back(id);
                   });
  }
  static AppRule Rule(std::optional<uint32_t> uid, std::string package,
                      bool block = true) {
    return {uid, std::move(package), block};
  }

  Sockets sockets;
  AppGate gate;
  std::vector<uint64_t> searched;
  Instant now{seconds(1000)};
};

TEST_F(AppGateTest, CostsNothingWhenOwnersAreOff) {
  EXPECT_EQ(gate.OnOpen(1, Key(1), kToken, now), AppDecision::kAllow);
  EXPECT_EQ(gate.next_deadline(now), kNever);
  EXPECT_EQ(gate.size(), 0u);
}

TEST_F(AppGateTest, WithoutRulesNobodyWaits) {
  Use({});
  EXPECT_EQ(gate.OnOpen(1, Key(1), kToken, now), AppDecision::kAllow);
  EXPECT_THAT(searched, ElementsAre(1));
  EXPECT_EQ(gate.OwnerOf(1), nullptr);
  gate.Answer(1, Package(7, "a.b"));
  ASSERT_NE(gate.OwnerOf(1), nullptr);
  EXPECT_EQ(gate.OwnerOf(1)->package, "a.b");
  EXPECT_FALSE(gate.Take(now).has_value());
}

TEST_F(AppGateTest, AUidThatTheSystemKnowsDecidesAtOnce) {
  sockets.known[1] = {7, 100};
  sockets.known[2] = {8, 101};
  Use({Rule(7, "")}, /*system=*/true);
  EXPECT_EQ(gate.OnOpen(1, Key(1), kToken, now), AppDecision::kBlock);
  EXPECT_EQ(gate.OnOpen(2, Key(2), kToken, now), AppDecision::kAllow);
  EXPECT_EQ(gate.OwnerOf(1)->uid, 7u);
  EXPECT_THAT(searched, ElementsAre(2)) << "of a refused flow no more is asked";
}

TEST_F(AppGateTest, APackageIsWaitedFor) {
  sockets.known[1] = {7, 100};
  for (const bool bad : {true, false}) {
    Use({Rule({}, "bad")}, /*system=*/true);
    const uint64_t id = bad ? 1 : 2;
    EXPECT_EQ(gate.OnOpen(id, Key(1), kToken, now), AppDecision::kWait);
    EXPECT_FALSE(gate.Take(now).has_value());
    FlowOwner owner;
    owner.pid = 3;
    owner.process = bad ? "bad" : "good";
    gate.Answer(id, owner);
    EXPECT_EQ(gate.next_deadline(now), now);
    const auto decided = gate.Take(now);
    ASSERT_TRUE(decided.has_value());
    EXPECT_EQ(decided->token.Pack(), kToken.Pack());
    EXPECT_EQ(decided->block, bad);
    EXPECT_EQ(gate.OwnerOf(id)->uid, 7u) << "what was known before";
  }
}

TEST_F(AppGateTest, SilenceIsUnknownAfterTheTimeout) {
  for (const bool block_unknown : {false, true}) {
    Use({Rule(7, "")}, false, block_unknown);
    const uint64_t id = block_unknown ? 1 : 2;
    EXPECT_EQ(gate.OnOpen(id, Key(1), kToken, now), AppDecision::kWait);
    EXPECT_EQ(gate.next_deadline(now), now + seconds(1));
    now += milliseconds(999);
    EXPECT_FALSE(gate.Take(now).has_value());
    now += milliseconds(1);
    const auto decided = gate.Take(now);
    ASSERT_TRUE(decided.has_value());
    EXPECT_EQ(decided->block, block_unknown);
    // Too late: shown, and nothing else.
    gate.Answer(id, Package(7, ""));
    EXPECT_FALSE(gate.Take(now).has_value());
    EXPECT_EQ(gate.OwnerOf(id)->uid, 7u);
  }
}

TEST_F(AppGateTest, TheFirstRuleThatMatchesDecides) {
  Use({Rule(7, "a", false), Rule(7, "")});
  const auto blocks = [&](uint64_t id, const FlowOwner& owner) {
    EXPECT_EQ(gate.OnOpen(id, Key(1), kToken, now), AppDecision::kWait);
    gate.Answer(id, owner);
    return gate.Take(now)->block;
  };
  EXPECT_FALSE(blocks(1, Package(7, "a")));
  EXPECT_TRUE(blocks(2, Package(7, "b")));
  EXPECT_FALSE(blocks(3, Package(8, "b")));
  EXPECT_FALSE(blocks(4, {}));
}

TEST_F(AppGateTest, OwnersAreFoundByUidAndPackageAndSwept) {
  Use({});
  for (uint64_t id = 1; id <= 4; ++id) {
    (void)gate.OnOpen(id, Key(1), kToken, now);
    gate.Answer(id, Package(id % 2 == 0 ? 7 : 8, id == 4 ? "b" : "a"));
  }
  EXPECT_THAT(gate.Matching(7, ""), UnorderedElementsAre(2, 4));
  EXPECT_THAT(gate.Matching({}, "a"), UnorderedElementsAre(1, 2, 3));
  EXPECT_THAT(gate.Matching(7, "b"), UnorderedElementsAre(4));
  gate.Sweep({2});
  EXPECT_EQ(gate.size(), 1u);
  EXPECT_EQ(gate.OwnerOf(2)->package, "a");
  EXPECT_EQ(gate.OwnerOf(4), nullptr);
  EXPECT_THAT(gate.Matching(8, ""), IsEmpty());
}

// Nobody can say whose an echo is.
TEST_F(AppGateTest, EchoesAreOfUnknownOwners) {
  FlowKey echo = Key(1);
  echo.protocol = Protocol::kIcmp;
  Use({Rule(42, "")});
  EXPECT_EQ(gate.OnOpen(1, echo, kToken, now), AppDecision::kAllow);
  Use({Rule(42, "")}, false, /*block_unknown=*/true);
  EXPECT_EQ(gate.OnOpen(2, echo, kToken, now), AppDecision::kBlock);
  EXPECT_TRUE(searched.empty());
}

}  // namespace
}  // namespace netstack::test

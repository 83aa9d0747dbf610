#include "core/dns/address_policy.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/core/dns/test_messages.h"

namespace netstack::dns {
namespace {

using test::Ip;
using test::Name;
using Verdict = AddressPolicy::Verdict;

class AddressPolicyTest : public testing::Test {
 protected:
  AddressPolicyTest() {
    options_.enforce = true;
    options_.grace = std::chrono::seconds(100);
    options_.least = std::chrono::seconds(10);
    policy_.Configure(options_);
  }
  void Learn(absl::string_view client, absl::string_view name,
             absl::string_view ip, uint32_t ttl) {
    const AnswerAddress address{Ip(ip), ttl, false};
    policy_.Learn(Ip(client), Name(name), {&address, 1}, now_);
  }
  Verdict Check(absl::string_view ip) { return policy_.Check(Ip(ip), now_); }
  std::string NameOf(absl::string_view client, absl::string_view ip) {
    return std::string(policy_.NameOf(Ip(client), Ip(ip), now_));
  }
  void Pass(int64_t seconds) { now_ += std::chrono::seconds(seconds); }

  Instant now_{std::chrono::hours(1)};
  AddressPolicy::Options options_;
  AddressPolicy policy_{AddressPolicy::Options(), SipHashKey{5, 6}};
};

// parity.md, section 2, row 17: the TTL counts, not five minutes.
TEST_F(AddressPolicyTest, KnowsForTtlAndGrace) {
  EXPECT_EQ(Check("192.0.2.1"), Verdict::kUnknown);
  Learn("10.0.0.2", "a.example", "192.0.2.1", 1000);
  Learn("10.0.0.2", "a.example", "2001:db8::1", 1000);
  Pass(1099);
  EXPECT_EQ(Check("192.0.2.1"), Verdict::kKnown);
  EXPECT_EQ(Check("2001:db8::1"), Verdict::kKnown);
  Pass(1);
  EXPECT_EQ(Check("192.0.2.1"), Verdict::kExpired);
  EXPECT_EQ(policy_.stats().refused_unknown, 1u);
  EXPECT_EQ(policy_.stats().refused_expired, 1u);
  EXPECT_TRUE(AddressPolicy::Refuses(Verdict::kExpired));
  EXPECT_TRUE(AddressPolicy::Refuses(Verdict::kUnknown));
  EXPECT_FALSE(AddressPolicy::Refuses(Verdict::kKnown));
  EXPECT_FALSE(AddressPolicy::Refuses(Verdict::kExempt));
  EXPECT_FALSE(AddressPolicy::Refuses(Verdict::kNotEnforced));
}

TEST_F(AddressPolicyTest, ShorterTtlDoesNotShorten) {
  Learn("10.0.0.2", "a.example", "192.0.2.1", 1000);
  Learn("10.0.0.2", "a.example", "192.0.2.1", 0);
  Pass(1000);
  EXPECT_EQ(Check("192.0.2.1"), Verdict::kKnown);
  Learn("10.0.0.2", "b.example", "192.0.2.2", 0);  // least, then grace
  Pass(109);
  EXPECT_EQ(Check("192.0.2.2"), Verdict::kKnown);
  Pass(1);
  EXPECT_EQ(Check("192.0.2.2"), Verdict::kExpired);
}

TEST_F(AddressPolicyTest, SinkholesOpenNothing) {
  for (const char* ip :
       {"0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "255.255.255.255"}) {
    Learn("10.0.0.2", "ads.example", ip, 1000);
    EXPECT_EQ(Check(ip), Verdict::kUnknown) << ip;
  }
  EXPECT_EQ(policy_.stats().learned, 0u);
}

TEST_F(AddressPolicyTest, ExemptionsAndOff) {
  options_.exempt = {*IpPrefix::Parse("192.168.0.0/16"),
                     *IpPrefix::Parse("fd00::/8")};
  policy_.Configure(options_);
  EXPECT_EQ(Check("192.168.7.7"), Verdict::kExempt);
  EXPECT_EQ(Check("fd00::7"), Verdict::kExempt);
  EXPECT_EQ(Check("192.169.0.1"), Verdict::kUnknown);
  options_.enforce = false;
  policy_.Configure(options_);
  EXPECT_EQ(Check("192.169.0.1"), Verdict::kNotEnforced);
  EXPECT_EQ(policy_.stats().refused_unknown, 1u);
}

TEST_F(AddressPolicyTest, SurvivesReloadAndRestart) {
  Learn("10.0.0.2", "a.example", "192.0.2.1", 1000);
  Learn("10.0.0.2", "old.example", "192.0.2.2", 0);
  policy_.Configure(options_);
  EXPECT_EQ(Check("192.0.2.1"), Verdict::kKnown);
  Pass(500);
  const std::vector<AddressPolicy::Known> known = policy_.Snapshot(now_);
  ASSERT_EQ(known.size(), 1u);
  AddressPolicy next(options_, SipHashKey{7, 8});
  const Instant later = now_ + std::chrono::hours(5);  // another clock
  next.Restore(known, later);
  EXPECT_EQ(next.Check(Ip("192.0.2.1"), later + std::chrono::seconds(599)),
            Verdict::kKnown);
  EXPECT_EQ(next.Check(Ip("192.0.2.1"), later + std::chrono::seconds(600)),
            Verdict::kExpired);
  EXPECT_EQ(next.NameOf(Ip("10.0.0.2"), Ip("192.0.2.1"), later), "a.example");
}

TEST_F(AddressPolicyTest, NamesAreTheClientsMostRecent) {
  EXPECT_EQ(NameOf("10.0.0.2", "192.0.2.1"), "");
  Learn("10.0.0.2", "a.example", "192.0.2.1", 1000);
  Learn("10.0.0.3", "b.example", "192.0.2.1", 1000);
  EXPECT_EQ(NameOf("10.0.0.2", "192.0.2.1"), "a.example");
  EXPECT_EQ(NameOf("10.0.0.3", "192.0.2.1"), "b.example");
  // Who asked for none himself is told the most recent.
  EXPECT_EQ(NameOf("fd00::2", "192.0.2.1"), "b.example");
  Learn("10.0.0.2", "c.example", "192.0.2.1", 1000);
  EXPECT_EQ(NameOf("10.0.0.2", "192.0.2.1"), "c.example");
  EXPECT_EQ(NameOf("fd00::2", "192.0.2.1"), "c.example");
  EXPECT_EQ(policy_.stats().names, 2u);  // a.example is in no use
  Pass(1100);
  EXPECT_EQ(NameOf("10.0.0.2", "192.0.2.1"), "");
}

TEST_F(AddressPolicyTest, ClientsPerAddressAreBounded) {
  for (int i = 0; i < 100; ++i) {
    Learn(absl::StrCat("10.0.0.", i), absl::StrCat("n", i, ".example"),
          "192.0.2.1", 1000);
  }
  EXPECT_EQ(NameOf("10.0.0.99", "192.0.2.1"), "n99.example");
  EXPECT_EQ(NameOf("10.0.0.96", "192.0.2.1"), "n96.example");
  EXPECT_EQ(NameOf("10.0.0.95", "192.0.2.1"), "n99.example");
  EXPECT_EQ(policy_.stats().names, 4u);
}

TEST_F(AddressPolicyTest, ForgetsTheOldestBeyondItsLimit) {
  options_.max_addresses = 3;
  policy_.Configure(options_);
  for (int i = 1; i <= 3; ++i) {
    Learn("10.0.0.2", "a.example", absl::StrCat("192.0.2.", i), 1000);
  }
  Learn("10.0.0.2", "a.example", "192.0.2.1", 1000);  // young again
  Learn("10.0.0.2", "a.example", "192.0.2.4", 1000);
  EXPECT_EQ(Check("192.0.2.2"), Verdict::kUnknown);
  EXPECT_EQ(Check("192.0.2.1"), Verdict::kKnown);
  EXPECT_EQ(policy_.stats().evicted, 1u);
  options_.max_addresses = 1;
  policy_.Configure(options_);
  EXPECT_EQ(policy_.stats().addresses, 1u);
  EXPECT_EQ(Check("192.0.2.4"), Verdict::kKnown);
  EXPECT_EQ(policy_.stats().names, 1u);
}

}  // namespace
}  // namespace netstack::dns

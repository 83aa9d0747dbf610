// Floods and people: core/forward/syn_gate.h.
#include "core/forward/syn_gate.h"

#include <chrono>
#include <cstdint>

#include "gtest/gtest.h"
#include "tests/core/wire/test_packets.h"

namespace netstack::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Gate : public testing::TestWithParam<const Family*> {
 protected:
  static SynGate::Options Options() {
    SynGate::Options o;
    o.max_half_open = 100;
    o.max_per_destination = 60;
    return o;
  }
  FlowKey Key(uint16_t app_port, uint16_t remote_port = 80) const {
    FlowKey key;
    key.app = {GetParam()->app, app_port};
    key.remote = {GetParam()->remote, remote_port};
    return key;
  }
  // `n` flows become half-open, each to a port of its own.
  void Fill(uint16_t n) {
    for (uint16_t i = 0; i < n; ++i) gate.Opened(Key(1, 1000 + i).remote);
  }
  void Empty(uint16_t n) {
    for (uint16_t i = 0; i < n; ++i) gate.Settled(Key(1, 1000 + i).remote);
  }
  void Refuse(int times) {
    for (int i = 0; i < times; ++i) {
      gate.DialFailed(Key(1).remote, /*refused=*/true, now);
    }
  }

  SynGate gate{Options(), SipHashKey{5, 6}};
  Instant now{std::chrono::hours(1)};
};
INSTANTIATE_TEST_SUITE_P(Families, Gate, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TEST_P(Gate, OpenInQuietTimes) {
  EXPECT_EQ(gate.Refuses(Key(1), 1, now), std::nullopt);
  Fill(24);
  EXPECT_FALSE(gate.under_pressure(now));
  EXPECT_EQ(gate.Refuses(Key(1), 1, now), std::nullopt);
}

TEST_P(Gate, PressureIsAQuarterOfTheCap) {
  Fill(25);
  EXPECT_TRUE(gate.under_pressure(now));
  EXPECT_EQ(gate.Refuses(Key(1), 7, now), DropReason::kSynUnproven);
  Empty(1);
  EXPECT_FALSE(gate.under_pressure(now));
}

TEST_P(Gate, RetransmissionIsTheProof) {
  Fill(25);
  ASSERT_EQ(gate.Refuses(Key(1), 7, now), DropReason::kSynUnproven);
  now += seconds(1);
  EXPECT_EQ(gate.Refuses(Key(1), 7, now), std::nullopt);
}

TEST_P(Gate, OnlyTheSameSynCounts) {
  Fill(25);
  ASSERT_EQ(gate.Refuses(Key(1), 7, now), DropReason::kSynUnproven);
  now += seconds(1);
  EXPECT_EQ(gate.Refuses(Key(1), 8, now), DropReason::kSynUnproven);
  EXPECT_EQ(gate.Refuses(Key(2), 7, now), DropReason::kSynUnproven);
  EXPECT_EQ(gate.Refuses(Key(1, 81), 7, now), DropReason::kSynUnproven);
}

// Sending everything twice at once proves nothing.
TEST_P(Gate, TooSoonIsNoProof) {
  Fill(25);
  ASSERT_EQ(gate.Refuses(Key(1), 7, now), DropReason::kSynUnproven);
  EXPECT_EQ(gate.Refuses(Key(1), 7, now), DropReason::kSynUnproven);
  now += milliseconds(50);
  EXPECT_EQ(gate.Refuses(Key(1), 7, now), DropReason::kSynUnproven);
  now += seconds(1);  // of the first one
  EXPECT_EQ(gate.Refuses(Key(1), 7, now), std::nullopt);
}

TEST_P(Gate, TooLateIsNoProof) {
  Fill(25);
  ASSERT_EQ(gate.Refuses(Key(1), 7, now), DropReason::kSynUnproven);
  now += seconds(17);
  EXPECT_EQ(gate.Refuses(Key(1), 7, now), DropReason::kSynUnproven);
}

// Nearly all honest SYNs are remembered through a second of a flood.
TEST_P(Gate, FloodDoesNotDisplaceThePeople) {
  Fill(25);
  for (uint16_t i = 0; i < 100; ++i) {
    ASSERT_EQ(gate.Refuses(Key(i), 7, now), DropReason::kSynUnproven);
  }
  for (uint32_t i = 0; i < 100'000; ++i) {
    now += std::chrono::microseconds(10);
    gate.Refuses(Key(static_cast<uint16_t>(200 + i % 60'000)), i, now);
  }
  int proven = 0;
  for (uint16_t i = 0; i < 100; ++i) {
    proven += gate.Refuses(Key(i), 7, now) == std::nullopt;
  }
  EXPECT_GE(proven, 99);
}

TEST_P(Gate, CapOfAll) {
  Fill(100);
  now += seconds(1);
  gate.Refuses(Key(1), 7, now);
  now += seconds(1);
  EXPECT_EQ(gate.Refuses(Key(1), 7, now), DropReason::kHalfOpenLimit);
  EXPECT_EQ(gate.half_open(), 100u);
  Empty(1);
  EXPECT_EQ(gate.Refuses(Key(1), 7, now), std::nullopt);
}

TEST_P(Gate, CapOfADestination) {
  SynGate::Options o = Options();
  o.max_half_open = 10'000;
  gate.Configure(o);
  for (int i = 0; i < 60; ++i) gate.Opened(Key(1).remote);
  EXPECT_EQ(gate.Refuses(Key(1), 7, now), DropReason::kHalfOpenLimit);
  EXPECT_EQ(gate.Refuses(Key(1, 81), 7, now), std::nullopt);
  gate.Settled(Key(1).remote);
  EXPECT_EQ(gate.Refuses(Key(1), 7, now), std::nullopt);
}

TEST_P(Gate, ManyRefusalsAreBelievedForTheRestOfTheSecond) {
  Refuse(SynGate::kBelievedRefusals - 1);
  EXPECT_EQ(gate.Refuses(Key(9), 1, now), std::nullopt);
  Refuse(1);
  EXPECT_EQ(gate.Refuses(Key(9), 1, now), DropReason::kRecentlyRefused);
  EXPECT_EQ(gate.Refuses(Key(9, 81), 1, now), std::nullopt);
  now += milliseconds(999);
  EXPECT_EQ(gate.Refuses(Key(9), 1, now), DropReason::kRecentlyRefused);
  now += milliseconds(1);
  EXPECT_EQ(gate.Refuses(Key(9), 1, now), std::nullopt);
}

TEST_P(Gate, OtherFailuresAreNoRefusals) {
  for (uint32_t i = 0; i < SynGate::kBelievedRefusals; ++i) {
    gate.DialFailed(Key(1).remote, /*refused=*/false, now);
  }
  EXPECT_EQ(gate.Refuses(Key(9), 1, now), std::nullopt);
}

TEST_P(Gate, FailuresByTheThousandArePressure) {
  for (uint32_t i = 0; i < SynGate::kFailuresPerSlot - 1; ++i) {
    gate.DialFailed(Key(1).remote, false, now);
  }
  EXPECT_FALSE(gate.under_pressure(now));
  gate.DialFailed(Key(1).remote, false, now);
  EXPECT_TRUE(gate.under_pressure(now));
  now += milliseconds(100);  // the next slot remembers
  EXPECT_TRUE(gate.under_pressure(now));
  now += milliseconds(100);
  EXPECT_FALSE(gate.under_pressure(now));
}

// Linux sends its SYN once more on an ICMP error before it believes it.
TEST_P(Gate, EchoOfAnAnsweredSynIsAbsorbed) {
  gate.Answered(Key(1), 7, now);
  now += milliseconds(1);
  EXPECT_EQ(gate.Refuses(Key(1), 7, now), DropReason::kTcpDuplicateSyn);
  EXPECT_EQ(gate.Refuses(Key(1), 8, now), std::nullopt);
  EXPECT_EQ(gate.Refuses(Key(2), 7, now), std::nullopt);
  now += milliseconds(200);
  EXPECT_EQ(gate.Refuses(Key(1), 7, now), std::nullopt) << "a new try";
}

// After the pressure the table is given back; what it knew is forgotten.
TEST_P(Gate, MemoryIsReleasedAfterPressure) {
  Fill(25);
  ASSERT_EQ(gate.Refuses(Key(1), 7, now), DropReason::kSynUnproven);
  now += seconds(10);
  gate.Relax(now);
  EXPECT_EQ(gate.Refuses(Key(1), 7, now), std::nullopt) << "not yet";
  Empty(25);
  now += seconds(31);
  gate.Relax(now);
  Fill(25);
  EXPECT_EQ(gate.Refuses(Key(1), 7, now), DropReason::kSynUnproven);
}

}  // namespace
}  // namespace netstack::test

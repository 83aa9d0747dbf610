// Every rule of core/forward/reassembler.cc, in both families.
#include "core/forward/reassembler.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "gtest/gtest.h"
#include "tests/core/wire/fragment_packets.h"

namespace netstack::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

ByteVector Pattern(size_t size, uint32_t seed = 1) {
  ByteVector bytes(size);
  std::mt19937 random(seed);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

class Fragments : public testing::TestWithParam<const Family*> {
 protected:
  Fragments() { Make({}); }
  ~Fragments() override {
    reassembler.reset();
    EXPECT_EQ(pool.used(), 0u);
  }
  void Make(const Reassembler::Options& options) {
    reassembler = std::make_unique<Reassembler>(&pool, &drops, options,
                                                SipHashKey{1, 2});
  }
  const Family& family() const { return *GetParam(); }
  bool v4() const { return family().v4(); }

  // The whole packet, when this completed one; its bytes are copied.
  ByteVector Give(const ByteVector& packet) {
    ++given;
    ExactCopy copy(packet);
    const OrDrop<Packet> parsed = ParsePacket(copy.bytes());
    EXPECT_TRUE(parsed && parsed->is_fragment);
    const Reassembler::Result r = reassembler->Add(*parsed, now);
    complaint = r.complaint;
    ExpectSum();
    return {r.whole.begin(), r.whole.end()};
  }
  ByteVector Give(const FragmentSpec& spec, Bytes payload) {
    return Give(MakeFragment(family(), spec, payload));
  }
  // Every fragment is used, held or dropped.
  void ExpectSum() {
    const FragmentStats s = reassembler->stats();
    EXPECT_EQ(given, s.used + s.held +
                         std::accumulate(drops.packets().begin(),
                                         drops.packets().end(), uint64_t{0}));
  }
  uint64_t dropped(DropReason r) const {
    return drops.packets()[static_cast<size_t>(r)];
  }
  // How many first fragments were told of.
  std::vector<ByteVector> Expire() {
    std::vector<ByteVector> told;
    reassembler->Expire(now, [&](const Packet& first) {
      EXPECT_TRUE(first.is_fragment);
      EXPECT_EQ(first.fragment_offset, 0);
      told.emplace_back(first.bytes.begin(), first.bytes.end());
    });
    ExpectSum();
    return told;
  }
  // `whole` is the packet that would have been sent unfragmented.
  void ExpectWhole(const ByteVector& whole, uint8_t protocol, Bytes payload,
                   uint8_t tos = 0) {
    const OrDrop<Packet> packet = ParsePacket(whole);
    ASSERT_TRUE(packet);
    EXPECT_EQ(packet->bytes.size(), whole.size());
    EXPECT_FALSE(packet->is_fragment);
    EXPECT_EQ(packet->source, family().app);
    EXPECT_EQ(packet->destination, family().remote);
    EXPECT_EQ(packet->protocol, protocol);
    EXPECT_EQ(packet->ttl, 64);
    EXPECT_EQ(packet->tos, tos);
    EXPECT_TRUE(std::equal(packet->transport.begin(), packet->transport.end(),
                           payload.begin(), payload.end()));
  }

  BufferPool pool{0};
  DropCounters drops;
  std::unique_ptr<Reassembler> reassembler;
  std::optional<IcmpKind> complaint;
  Instant now{std::chrono::hours(1)};
  uint64_t given = 0;
};
INSTANTIATE_TEST_SUITE_P(Families, Fragments, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TEST_P(Fragments, InOrder) {
  const ByteVector payload = Pattern(4000);
  const auto cut = CutIntoFragments(family(), {}, payload, 1448);
  ASSERT_EQ(cut.size(), 3u);
  EXPECT_TRUE(Give(cut[0]).empty());
  EXPECT_TRUE(Give(cut[1]).empty());
  EXPECT_EQ(reassembler->stats().held, 2u);
  ExpectWhole(Give(cut[2]), 17, payload);
  const FragmentStats s = reassembler->stats();
  EXPECT_EQ(s.reassembled, 1u);
  EXPECT_EQ(s.used, 3u);
  EXPECT_EQ(s.held, 0u);
  EXPECT_EQ(s.bytes, 0u);
  EXPECT_EQ(s.datagrams, 0u);
  EXPECT_EQ(pool.used(), 0u);
  EXPECT_EQ(reassembler->next_deadline(), kNever);
}

TEST_P(Fragments, AnyOrderAndInterleaved) {
  std::mt19937 random(3);
  const ByteVector a = Pattern(5000, 1), b = Pattern(5000, 2);
  for (int round = 0; round < 50; ++round) {
    const auto id = static_cast<uint32_t>(round);
    auto all = CutIntoFragments(family(), {.id = id}, a, 504);
    const auto more = CutIntoFragments(family(), {.id = id + 1000}, b, 504);
    all.insert(all.end(), more.begin(), more.end());
    std::shuffle(all.begin(), all.end(), random);
    int whole = 0;
    for (const ByteVector& fragment : all) {
      const ByteVector got = Give(fragment);
      if (got.empty()) continue;
      ++whole;
      const bool first = Load32(&got[got.size() - 4]) == Load32(&a[4996]);
      ExpectWhole(got, 17, first ? a : b);
    }
    EXPECT_EQ(whole, 2);
  }
}

TEST_P(Fragments, TheLargestDatagram) {
  Make({.max_fragments = 8192});
  const size_t head = v4() ? 20 : 0;
  const ByteVector payload = Pattern(65535 - head);
  ByteVector whole;
  for (const auto& f : CutIntoFragments(family(), {}, payload, 1232)) {
    whole = Give(f);
  }
  ExpectWhole(whole, 17, payload);
  // Eight bytes more than a length can say. The last fragment alone is seen to
  // be too much.
  const auto offset = static_cast<uint16_t>(65528);
  EXPECT_TRUE(
      Give({.id = 8, .offset = offset, .more = false}, Pattern(16)).empty());
  EXPECT_EQ(dropped(DropReason::kBadFragment), 1u);
  EXPECT_EQ(complaint.has_value(), !v4());
  if (complaint) {
    EXPECT_EQ(complaint->type, 4);
    EXPECT_EQ(complaint->parameter, 42u);  // the offset's place
  }
}

TEST_P(Fragments, LengthsThatNoFragmentHas) {
  EXPECT_TRUE(Give({.more = true}, Pattern(20)).empty());
  EXPECT_EQ(dropped(DropReason::kBadFragment), 1u);
  EXPECT_EQ(complaint.has_value(), !v4());
  if (complaint) {
    EXPECT_EQ(complaint->type, 4);
    EXPECT_EQ(complaint->code, 0);
    EXPECT_EQ(complaint->parameter, 4u);  // the payload length's place
  }
  EXPECT_TRUE(Give({.offset = 8, .more = true}, {}).empty());
  EXPECT_TRUE(Give({.offset = 8, .more = false}, {}).empty());
  EXPECT_EQ(dropped(DropReason::kBadFragment), 3u);
  EXPECT_EQ(reassembler->stats().datagrams, 0u);
}

TEST_P(Fragments, ExactDuplicatesAreIgnored) {
  const ByteVector payload = Pattern(64);
  const auto cut = CutIntoFragments(family(), {}, payload, 32);
  Give(cut[0]);
  Give(cut[0]);
  EXPECT_EQ(dropped(DropReason::kFragmentDuplicate), 1u);
  ExpectWhole(Give(cut[1]), 17, payload);
}

TEST_P(Fragments, TheSamePlaceWithOtherBytesIsAnOverlap) {
  const ByteVector payload = Pattern(64);
  const auto cut = CutIntoFragments(family(), {}, payload, 32);
  Give(cut[0]);
  EXPECT_TRUE(Give({}, Pattern(32, 99)).empty());
  EXPECT_TRUE(Give(cut[1]).empty());
  EXPECT_EQ(dropped(DropReason::kFragmentOverlap), 3u);
  EXPECT_EQ(reassembler->stats().overlapped, 1u);
}

TEST_P(Fragments, AnyOverlapGivesUpTheDatagram) {
  // Held: [16, 48). Every way to touch it.
  const std::pair<int, int> kCases[] = {{8, 16},  {40, 16}, {24, 8}, {16, 8},
                                        {32, 16}, {8, 48},  {16, 40}};
  uint32_t id = 100;
  uint64_t expected = 0;
  for (const auto& [offset, size] : kCases) {
    SCOPED_TRACE(testing::Message() << offset << "+" << size);
    Give({.id = ++id, .offset = 16}, Pattern(32));
    EXPECT_TRUE(Give({.id = id, .offset = static_cast<uint16_t>(offset)},
                     Pattern(static_cast<size_t>(size)))
                    .empty());
    expected += 2;
    EXPECT_EQ(dropped(DropReason::kFragmentOverlap), expected);
    // And what would have completed it, in any order, never does.
    EXPECT_TRUE(Give({.id = id}, Pattern(16)).empty());
    EXPECT_TRUE(Give({.id = id, .offset = 16}, Pattern(32)).empty());
    EXPECT_TRUE(
        Give({.id = id, .offset = 48, .more = false}, Pattern(16)).empty());
    expected += 3;
    EXPECT_EQ(dropped(DropReason::kFragmentOverlap), expected);
  }
  // Silently, also when the time is up.
  now += seconds(61);
  EXPECT_TRUE(Expire().empty());
  EXPECT_EQ(reassembler->stats().datagrams, 0u);
  EXPECT_EQ(reassembler->stats().timed_out, 0u);
}

TEST_P(Fragments, EndsThatDiffer) {
  // Another end.
  Give({.id = 1, .offset = 64, .more = false}, Pattern(16));
  Give({.id = 1, .offset = 80, .more = false}, Pattern(16));
  // Bytes behind the end.
  Give({.id = 2, .offset = 64, .more = false}, Pattern(16));
  Give({.id = 2, .offset = 80}, Pattern(16));
  // An end before bytes that are there.
  Give({.id = 3, .offset = 64}, Pattern(16));
  Give({.id = 3, .offset = 32, .more = false}, Pattern(16));
  // The end again, but not as the end.
  Give({.id = 4, .offset = 64, .more = false}, Pattern(16));
  Give({.id = 4, .offset = 48}, Pattern(16));
  EXPECT_EQ(dropped(DropReason::kBadFragment), 6u);
  EXPECT_EQ(reassembler->stats().held, 2u);
  Give({.id = 4, .offset = 72}, Pattern(8));
  EXPECT_EQ(dropped(DropReason::kFragmentOverlap), 3u);
  for (uint32_t id = 1; id <= 3; ++id) {
    EXPECT_TRUE(Give({.id = id}, Pattern(16)).empty());
  }
  EXPECT_EQ(dropped(DropReason::kBadFragment), 9u);
}

TEST_P(Fragments, FirstFragmentWithoutItsTransportHeader) {
  // TCP's 20 bytes, and as many as its data offset says.
  ByteVector tcp = MakeTcp(family().app, family().remote,
                           {.flags = 2, .options = Hex("020405b4 01010101")});
  ASSERT_EQ(tcp.size(), 28u);
  Give({.id = 1, .protocol = 6}, Bytes(tcp).first(8));
  Give({.id = 1, .protocol = 6}, Bytes(tcp).first(16));
  Give({.id = 1, .protocol = 6}, Bytes(tcp).first(24));
  EXPECT_EQ(dropped(DropReason::kFragmentTiny), 3u);
  EXPECT_EQ(complaint.has_value(), !v4());
  if (complaint) {
    EXPECT_EQ(complaint->code, 3);
  }
  EXPECT_EQ(reassembler->stats().datagrams, 0u);
  tcp = Concat(tcp, Pattern(4));
  Give({.id = 1, .protocol = 6}, tcp);
  EXPECT_EQ(reassembler->stats().held, 1u);
  // Eight bytes hold UDP's and an echo's.
  Give({.id = 2, .protocol = 17}, Pattern(8));
  EXPECT_EQ(reassembler->stats().held, 2u);
  EXPECT_EQ(dropped(DropReason::kFragmentTiny), 3u);
}

TEST_P(Fragments, TimeIsUp) {
  const seconds limit(v4() ? 30 : 60);
  const ByteVector first = MakeFragment(family(), {.id = 1}, Pattern(16));
  Give(first);
  Give({.id = 1, .offset = 32}, Pattern(16));
  now += seconds(1);
  Give({.id = 2, .offset = 32}, Pattern(16));
  const Instant due = now - seconds(1) + limit;
  EXPECT_EQ(reassembler->next_deadline(), due);
  now = due - milliseconds(1);
  EXPECT_TRUE(Expire().empty());
  EXPECT_EQ(reassembler->stats().held, 3u);
  now = due;
  // With the first fragment its sender is told, quoting it as it was.
  EXPECT_EQ(Expire(), std::vector<ByteVector>{first});
  EXPECT_EQ(dropped(DropReason::kFragmentTimeout), 2u);
  EXPECT_EQ(reassembler->next_deadline(), due + seconds(1));
  now += seconds(1);
  EXPECT_TRUE(Expire().empty());  // without it nobody
  EXPECT_EQ(dropped(DropReason::kFragmentTimeout), 3u);
  EXPECT_EQ(reassembler->stats().timed_out, 2u);
  EXPECT_EQ(reassembler->stats().bytes, 0u);
  // What comes too late begins anew.
  EXPECT_TRUE(Give({.id = 1, .offset = 16}, Pattern(16)).empty());
  EXPECT_EQ(reassembler->stats().held, 1u);
}

TEST_P(Fragments, TimeoutsAreConfigured) {
  Make({.timeout_v4 = seconds(3), .timeout_v6 = seconds(3)});
  Give({}, Pattern(16));
  EXPECT_EQ(reassembler->next_deadline(), now + seconds(3));
  reassembler->Configure({.timeout_v4 = seconds(5), .timeout_v6 = seconds(5)});
  EXPECT_EQ(reassembler->next_deadline(), now + seconds(5));
}

TEST_P(Fragments, TooManyOfOneDatagram) {
  Make({.max_fragments = 4});
  for (uint16_t i = 0; i < 6; ++i) {
    Give({.offset = static_cast<uint16_t>(i * 16)}, Pattern(8));
  }
  EXPECT_EQ(dropped(DropReason::kFragmentLimit), 6u);
  EXPECT_EQ(reassembler->stats().held, 0u);
}

TEST_P(Fragments, TheOldestDatagramMakesWay) {
  Make({.max_datagrams = 3});
  for (uint32_t id = 1; id <= 4; ++id) {
    Give({.id = id}, Pattern(16, id));
    now += milliseconds(1);
  }
  EXPECT_EQ(dropped(DropReason::kFragmentLimit), 1u);
  EXPECT_EQ(reassembler->stats().evicted, 1u);
  EXPECT_EQ(reassembler->stats().datagrams, 3u);
  // The newer ones become whole.
  for (uint32_t id = 2; id <= 4; ++id) {
    EXPECT_FALSE(Give({.id = id, .offset = 16, .more = false}, Pattern(8))
                     .empty());
  }
  EXPECT_TRUE(
      Give({.id = 1, .offset = 16, .more = false}, Pattern(8)).empty());
}

TEST_P(Fragments, BytesAreBounded) {
  Make({.max_bytes = Reassembler::kFloor});
  for (uint32_t id = 0; id < 1000; ++id) {
    Give({.id = id}, Pattern(1400));
    ASSERT_LE(reassembler->stats().bytes, Reassembler::kFloor);
    ASSERT_LE(pool.used(), Reassembler::kFloor);
  }
  EXPECT_GT(reassembler->stats().evicted, 900u);
  // A flood of tiny ones costs its books, too.
  for (uint32_t id = 0; id < 5000; ++id) {
    Give({.id = id + 5000, .offset = 8}, Pattern(8));
    ASSERT_LE(reassembler->stats().bytes, Reassembler::kFloor);
  }
  EXPECT_LT(reassembler->stats().datagrams, 600u);
}

// The one that grows is the oldest: the others make way, not it.
TEST_P(Fragments, TheDatagramAtHandDoesNotMakeWayForItself) {
  Make({.max_bytes = Reassembler::kFloor});
  const ByteVector payload = Pattern(60'000);
  const auto cut = CutIntoFragments(family(), {.id = 1}, payload, 1400);
  Give(cut[0]);
  for (uint32_t id = 2; id < 60; ++id) Give({.id = id}, Pattern(1400));
  for (size_t i = 1; i + 1 < cut.size(); ++i) Give(cut[i]);
  ExpectWhole(Give(cut.back()), 17, payload);
}

TEST_P(Fragments, TheBudgetIsAsked) {
  pool.set_budget(1024 * 1024);
  pool.Promise(1024 * 1024);  // all of it is somebody else's
  uint64_t most = 0;
  for (uint32_t id = 0; id < 1000; ++id) {
    Give({.id = id}, Pattern(1400));
    most = std::max(most, reassembler->stats().bytes);
  }
  EXPECT_LE(most, Reassembler::kFloor);
  EXPECT_GT(most, Reassembler::kFloor - 4096);  // which is always granted
  pool.Unpromise(1024 * 1024);
  for (uint32_t id = 0; id < 300; ++id) Give({.id = id + 1000}, Pattern(1400));
  EXPECT_GT(reassembler->stats().bytes, 2 * Reassembler::kFloor);
}

TEST_P(Fragments, WhileMemoryIsShortNothingIsBegun) {
  const ByteVector payload = Pattern(64);
  const auto cut = CutIntoFragments(family(), {.id = 1}, payload, 16);
  for (int i : {0, 1, 2}) Give(cut[static_cast<size_t>(i)]);
  const auto other = CutIntoFragments(family(), {.id = 2}, payload, 16);
  Give(other[0]);
  reassembler->set_memory_short(true);
  Give({.id = 3}, Pattern(16));
  EXPECT_EQ(dropped(DropReason::kNoMemory), 1u);
  // A vector of three has a place for a fourth, one of one for none.
  ExpectWhole(Give(cut[3]), 17, payload);
  Give(other[1]);
  EXPECT_EQ(dropped(DropReason::kNoMemory), 2u);
  reassembler->set_memory_short(false);
  Give(other[1]);
  Give(other[2]);
  ExpectWhole(Give(other[3]), 17, payload);
  Give({.id = 3}, Pattern(16));
  EXPECT_EQ(reassembler->stats().held, 1u);
}

// RFC 3168, section 5.3.
TEST_P(Fragments, EcnMarksOfAll) {
  const auto give = [&](uint32_t id, uint8_t a, uint8_t b) {
    Give({.id = id, .tos = a}, Pattern(16));
    return Give({.id = id, .offset = 16, .more = false, .tos = b}, Pattern(8));
  };
  const ByteVector payload = Concat(Pattern(16), Pattern(8));
  ExpectWhole(give(1, 0xB8, 0xB8), 17, payload, 0xB8);
  ExpectWhole(give(2, 0xB8 | 2, 0xB8 | 2), 17, payload, 0xB8 | 2);
  ExpectWhole(give(3, 2, 3), 17, payload, 3);
  ExpectWhole(give(4, 3, 1), 17, payload, 3);
  EXPECT_TRUE(give(5, 0, 3).empty());
  EXPECT_TRUE(give(6, 2, 0).empty());
  EXPECT_EQ(dropped(DropReason::kBadFragment), 4u);
}

TEST_P(Fragments, WhatTellsDatagramsApart) {
  Give({.id = 1}, Pattern(16));
  EXPECT_TRUE(
      Give({.id = 2, .offset = 16, .more = false}, Pattern(8)).empty());
  // The protocol does so in IPv4 only (RFC 791, 3.2; RFC 8200, 4.5).
  EXPECT_EQ(Give({.id = 1, .offset = 16, .more = false, .protocol = 132},
                 Pattern(8))
                .empty(),
            v4());
}

TEST(FragmentsV4, OptionsAreTheFirstFragments) {
  BufferPool pool(0);
  DropCounters drops;
  Reassembler reassembler(&pool, &drops, {}, SipHashKey{1, 2});
  const Instant now{std::chrono::hours(1)};
  // Router alert in the first.
  ByteVector first = MakeFragment(kV4, {}, Pattern(16));
  Store8(&first[0], 0x46);
  const ByteVector option = Hex("94040000");
  first.insert(first.begin() + 20, option.begin(), option.end());
  Store16(&first[2], static_cast<uint16_t>(first.size()));
  FixV4Checksum(first);
  const ByteVector second =
      MakeFragment(kV4, {.offset = 16, .more = false}, Pattern(5));
  EXPECT_TRUE(reassembler.Add(*ParsePacket(second), now).whole.empty());
  const MutableBytes whole = reassembler.Add(*ParsePacket(first), now).whole;
  const OrDrop<Packet> packet = ParsePacket(whole);
  ASSERT_TRUE(packet);
  EXPECT_EQ(whole.size(), 24u + 21u);
  EXPECT_EQ(packet->transport.size(), 21u);
}

// The first fragment's headers become the datagram's, and each fragment was
// measured with its own: so the whole may be longer than a packet can be.
TEST(FragmentsV4, OptionsThatMakeTheWholeTooLong) {
  BufferPool pool(0);
  DropCounters drops;
  Reassembler reassembler(&pool, &drops, {}, SipHashKey{1, 2});
  const Instant now{std::chrono::hours(1)};
  ByteVector first = MakeFragment(kV4, {}, Pattern(65472));
  Store8(&first[0], 0x4F);
  first.insert(first.begin() + 20, 40, std::byte{1});  // no operation
  Store16(&first[2], static_cast<uint16_t>(first.size()));
  FixV4Checksum(first);
  ASSERT_TRUE(reassembler.Add(*ParsePacket(first), now).whole.empty());
  const ByteVector last =
      MakeFragment(kV4, {.offset = 65472, .more = false}, Pattern(43));
  EXPECT_TRUE(reassembler.Add(*ParsePacket(last), now).whole.empty());
  EXPECT_EQ(drops.packets()[static_cast<size_t>(DropReason::kBadFragment)],
            2u);
  EXPECT_EQ(reassembler.stats().bytes, 0u);
  EXPECT_EQ(reassembler.stats().datagrams, 0u);
}

TEST(FragmentsV6, ExtensionHeadersThatMakeTheWholeTooLong) {
  BufferPool pool(0);
  DropCounters drops;
  Reassembler reassembler(&pool, &drops, {.max_fragments = 128},
                          SipHashKey{1, 2});
  const Instant now{std::chrono::hours(1)};
  // Seven destination options of 2 KiB each stand before the fragment header.
  ByteVector options;
  for (int i = 0; i < 7; ++i) {
    ByteVector header(2048);
    Store8(&header[0], i < 6 ? 60 : 44);
    Store8(&header[1], 255);
    options = Concat(options, header);
  }
  const auto give_first = [&](size_t size, uint32_t id) {
    ByteVector header = Hex("1100000100000000");  // offset 0, more
    Store32(&header[4], id);
    const ByteVector packet =
        MakeIp(kV6.app, kV6.remote, 60,
               Concat(options, Concat(header, Pattern(size))));
    return reassembler.Add(*ParsePacket(packet), now).whole.size();
  };
  const auto give_last = [&](uint16_t offset, size_t size, uint32_t id) {
    const ByteVector packet = MakeFragment(
        kV6, {.id = id, .offset = offset, .more = false}, Pattern(size));
    return reassembler.Add(*ParsePacket(packet), now).whole.size();
  };
  // The longest that there can be, and a byte more, in both orders.
  const size_t most = 65535 - options.size();
  EXPECT_EQ(give_first(48000, 1), 0u);
  EXPECT_EQ(give_last(48000, most - 48000, 1), 40u + 65535u);
  EXPECT_EQ(give_first(48000, 2), 0u);
  EXPECT_EQ(give_last(48000, most - 48000 + 1, 2), 0u);
  EXPECT_EQ(give_last(48000, 17535, 3), 0u);
  EXPECT_EQ(give_first(48000, 3), 0u);
  EXPECT_EQ(drops.packets()[static_cast<size_t>(DropReason::kBadFragment)],
            4u);
  EXPECT_EQ(reassembler.stats().datagrams, 0u);
}

TEST(FragmentsV6, ExtensionHeadersOnBothSides) {
  BufferPool pool(0);
  DropCounters drops;
  Reassembler reassembler(&pool, &drops, {}, SipHashKey{1, 2});
  const Instant now{std::chrono::hours(1)};
  // Destination options stand before and behind the fragment header.
  const ByteVector options = Hex("2c00010400000000");  // next: fragment
  const ByteVector behind = Hex("1100010400000000");   // next: UDP
  const ByteVector udp = Pattern(24);
  const ByteVector payload = Concat(behind, udp);
  const auto make = [&](uint16_t offset, bool more, Bytes part) {
    ByteVector header = Hex("3c00000000000009");  // next: options
    Store16(&header[2], static_cast<uint16_t>(offset | (more ? 1 : 0)));
    return MakeIp(kV6.app, kV6.remote, 60,
                  Concat(Concat(options, header), part));
  };
  // The first must reach to the end of UDP's header.
  EXPECT_TRUE(
      reassembler.Add(*ParsePacket(make(0, true, Bytes(payload).first(8))), now)
          .whole.empty());
  EXPECT_EQ(drops.packets()[static_cast<size_t>(DropReason::kFragmentTiny)],
            1u);
  EXPECT_TRUE(
      reassembler
          .Add(*ParsePacket(make(0, true, Bytes(payload).first(16))), now)
          .whole.empty());
  const MutableBytes whole =
      reassembler
          .Add(*ParsePacket(make(16, false, Bytes(payload).subspan(16))), now)
          .whole;
  const ByteVector first = Hex("3c00010400000000");  // now: options
  EXPECT_EQ(ByteVector(whole.begin(), whole.end()),
            MakeIp(kV6.app, kV6.remote, 60, Concat(first, payload)));
}

}  // namespace
}  // namespace netstack::test

// The reassembler, stateful: fragments of a few datagrams of both families,
// hostile in every field, time, and a budget.
//
// Whatever comes in: each fragment is used, held or a counted drop; limits
// hold; a whole packet parses, is no fragment, and every byte of its payload
// is one that a fragment brought for that place; at the end nothing is left.
//
// Steps: 0-5 a fragment (id and how many headers, offset / 8, size, flags), 6 a
// raw packet, 7 time.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>

#include "core/forward/reassembler.h"
#include "tests/core/wire/fragment_packets.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/fuzz/tcp_steps.h"

namespace netstack::fuzz {
namespace {

using test::ByteVector;

// One of two contents that a place may have.
std::byte Content(uint32_t place, bool other) {
  return static_cast<std::byte>(StreamByte(place, other));
}

class World {
 public:
  explicit World(Steps steps) : steps_(steps) {
    const uint8_t b = steps_.U8();
    options_.max_bytes = (b & 1) != 0 ? Reassembler::kFloor : 1 << 20;
    options_.max_datagrams = (b & 2) != 0 ? 2 : 64;
    options_.max_fragments = (b & 4) != 0 ? 3 : 128;
    pool_.set_budget((b & 8) != 0 ? 200'000 : 0);
    reassembler_.Configure(options_);
  }

  void Run() {
    for (int i = 0; i < 1000 && !steps_.done(); ++i) {
      Step();
      Look();
    }
    now_ += std::chrono::hours(1);
    Expire();
    Look();
    const FragmentStats s = reassembler_.stats();
    FUZZ_CHECK(s.held == 0 && s.datagrams == 0 && s.bytes == 0);
    FUZZ_CHECK(pool_.used() == 0);
    FUZZ_CHECK(reassembler_.next_deadline() == kNever);
  }

 private:
  void Step() {
    const uint8_t op = steps_.U8() & 7;
    if (op == 7) {
      now_ += std::chrono::seconds(steps_.U8());
      return Expire();
    }
    if (op == 6) return Raw();
    test::FragmentSpec spec;
    const uint8_t id = steps_.U8();
    spec.id = id & 7u;
    spec.offset = static_cast<uint16_t>(
        std::min<uint32_t>(steps_.Size(), 8191) * 8);
    const uint32_t size = steps_.Size();
    const uint8_t flags = steps_.U8();
    spec.more = (flags & 1) != 0;
    spec.tos = (flags >> 1) & 3;
    const bool other = (flags & 8) != 0;
    constexpr uint8_t kProtocols[] = {17, 6, 1, 58};
    spec.protocol = kProtocols[(flags >> 4) & 3];
    const test::Family& family = (id & 8) != 0 ? test::kV6 : test::kV4;
    const size_t most = family.v4() ? 65'515 : 65'527;
    ByteVector payload(std::min<size_t>(size, most));
    for (size_t i = 0; i < payload.size(); ++i) {
      payload[i] = Content(spec.offset + static_cast<uint32_t>(i), other);
    }
    ByteVector packet = test::MakeFragment(family, spec, payload);
    // Headers before the fragment's own, as large as they can be: they make
    // the whole longer than each fragment told.
    if ((flags & 0x40) != 0) packet = WithHeaders(family, packet, id >> 4);
    Give(packet);
  }

  // Of IPv6 `count` (at most 7) destination options of 2 KiB, of IPv4 options.
  ByteVector WithHeaders(const test::Family& family, const ByteVector& packet,
                         size_t count) {
    if (family.v4()) {
      ByteVector longer = packet;
      const size_t size = std::min<size_t>(count, 10) * 4;
      longer.insert(longer.begin() + 20, size, std::byte{1});
      if (longer.size() > 65'535) return packet;
      Store8(&longer[0], static_cast<uint8_t>(0x45 + size / 4));
      Store16(&longer[2], static_cast<uint16_t>(longer.size()));
      test::FixV4Checksum(longer);
      return longer;
    }
    count = std::min<size_t>(count, 7);
    if (count == 0) return packet;
    ByteVector options(count * 2048);
    for (size_t i = 0; i < count; ++i) {
      Store8(&options[i * 2048], i + 1 < count ? 60 : 44);
      Store8(&options[i * 2048 + 1], 255);
    }
    ByteVector longer = packet;
    longer.insert(longer.begin() + 40, options.begin(), options.end());
    if (longer.size() > 65'535 + 40) return packet;
    Store16(&longer[4], static_cast<uint16_t>(longer.size() - 40));
    Store8(&longer[6], 60);
    return longer;
  }

  void Raw() {
    const size_t size = steps_.U8();
    ByteVector packet(size);
    for (std::byte& b : packet) b = static_cast<std::byte>(steps_.U8());
    if (size >= 20 && Load8(&packet[0]) == 0x45) test::FixV4Checksum(packet);
    raw_ = true;
    Give(packet);
  }

  void Give(const ByteVector& packet) {
    test::ExactCopy copy(packet);
    const OrDrop<Packet> parsed = ParsePacket(copy.bytes());
    if (!parsed || !parsed->is_fragment) return;
    ++given_;
    const Reassembler::Result r = reassembler_.Add(*parsed, now_);
    if (r.complaint) FUZZ_CHECK(!parsed->is_v4 && r.whole.empty());
    if (r.whole.empty()) return;
    const OrDrop<Packet> whole = ParsePacket(r.whole);
    // Behind a fragment header may stand anything that a packet may not.
    if (!whole) {
      FUZZ_CHECK(whole.reason() == DropReason::kBadExtensionHeader);
      return;
    }
    FUZZ_CHECK(whole->bytes.size() == r.whole.size());
    FUZZ_CHECK(whole->source == parsed->source);
    FUZZ_CHECK(whole->destination == parsed->destination);
    // Raw fragments bring bytes of their own.
    if (whole->is_fragment || raw_) return;
    for (size_t i = 0; i < whole->transport.size(); ++i) {
      const auto place = static_cast<uint32_t>(i);
      FUZZ_CHECK(whole->transport[i] == Content(place, false) ||
                 whole->transport[i] == Content(place, true));
    }
  }

  void Expire() {
    reassembler_.Expire(now_, [](const Packet& first) {
      FUZZ_CHECK(first.is_fragment && first.fragment_offset == 0);
    });
    FUZZ_CHECK(reassembler_.next_deadline() > now_);
  }

  void Look() {
    const FragmentStats s = reassembler_.stats();
    const uint64_t dropped =
        std::accumulate(drops_.packets().begin(), drops_.packets().end(),
                        uint64_t{0});
    FUZZ_CHECK(given_ == s.used + s.held + dropped);
    FUZZ_CHECK(s.bytes <= options_.max_bytes);
    FUZZ_CHECK(s.datagrams <= options_.max_datagrams);
    FUZZ_CHECK(pool_.used() <= s.bytes);
  }

  Steps steps_;
  Reassembler::Options options_;
  BufferPool pool_{0};
  DropCounters drops_;
  Reassembler reassembler_{&pool_, &drops_, options_, SipHashKey{1, 2}};
  Instant now_{std::chrono::hours(1)};
  uint64_t given_ = 0;
  bool raw_ = false;  // some came
};

}  // namespace
}  // namespace netstack::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  netstack::fuzz::World(netstack::fuzz::Steps(data, size)).Run();
  return 0;
}

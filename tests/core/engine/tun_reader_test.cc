// Reading in batches, and joining packets: core/engine/tun_reader.h.
#include "core/engine/tun_reader.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/wire/test_packets.h"
#include "tests/support/scripted_tun.h"

namespace netstack::test {
namespace {

struct Got {
  ByteVector bytes;
  ChecksumTrust trust = ChecksumTrust::kVerify;
  uint16_t udp_segment = 0;
};

// Keeps every packet, and spoils the buffer as the stack does.
class Keeper final : public PacketHandler {
 public:
  void OnPacket(MutableBytes packet, ChecksumTrust trust,
                uint16_t udp_segment) override {
    got.push_back({{packet.begin(), packet.end()}, trust, udp_segment});
    std::fill(packet.begin(), packet.end(), std::byte{0xEE});
  }
  std::vector<Got> got;
};

ByteVector Text(const std::string& text) {
  const auto* p = reinterpret_cast<const std::byte*>(text.data());
  return {p, p + text.size()};
}

class Reader : public testing::TestWithParam<const Family*> {
 protected:
  // A data segment of one connection.
  ByteVector Data(uint32_t seq, const std::string& payload,
                  TcpSpec spec = {}) const {
    spec.seq = seq;
    spec.payload = Text(payload);
    return MakeTcpPacket(*GetParam(), spec);
  }
  size_t headers() const { return GetParam()->v4() ? 40 : 60; }
  std::vector<Got> ReadAll(ScriptedTun& tun) {
    Keeper keeper;
    TunReader reader(&tun, &keeper, &stats);
    while (reader.ReadBatch() == TunReader::Result::kMore) {
    }
    return keeper.got;
  }
  std::string PayloadOf(const Got& got) const {
    const Bytes payload = Bytes(got.bytes).subspan(headers());
    return {reinterpret_cast<const char*>(payload.data()), payload.size()};
  }

  TunStats stats;
};
INSTANTIATE_TEST_SUITE_P(Families, Reader, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TEST_P(Reader, SegmentsInOrderBecomeOne) {
  ScriptedTun tun;
  TcpSpec first;
  first.ack = 100;
  first.window = 10;
  TcpSpec last;
  last.ack = 300;
  last.window = 30;
  last.flags = 0x18;  // PSH
  tun.Push(Data(1000, "abc", first));
  tun.Push(Data(1003, "de", first));
  tun.Push(Data(1005, "fgh", last));
  const std::vector<Got> got = ReadAll(tun);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].trust, ChecksumTrust::kTrusted);
  const OrDrop<Packet> packet = ParsePacket(got[0].bytes);  // lengths, sums
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->bytes.size(), got[0].bytes.size());
  const OrDrop<TcpSegment> tcp = ParseTcp(*packet, got[0].trust);
  ASSERT_TRUE(tcp);
  EXPECT_EQ(PayloadOf(got[0]), "abcdefgh");
  EXPECT_EQ(tcp->seq, 1000u);
  // What the newest says.
  EXPECT_EQ(tcp->ack, 300u);
  EXPECT_EQ(tcp->window, 30);
  EXPECT_EQ(tcp->flags, 0x18);
  EXPECT_EQ(stats.reads, 3u);
  EXPECT_EQ(stats.outbound_packets, 3u);
  EXPECT_EQ(stats.outbound_merged, 2u);
  EXPECT_EQ(stats.outbound_bytes, 3 * headers() + 8);
}

// What differs from the packet before in one thing only is not joined to it,
// and passes unchanged.
TEST_P(Reader, WhatDoesNotContinueIsLeftAlone) {
  const auto changed = [&](auto change) {
    TcpSpec spec;
    change(spec);
    return Data(1003, "def", spec);
  };
  std::map<std::string, ByteVector> others = {
      {"a gap", Data(1004, "def")},
      {"again", Data(1000, "abc")},
      {"source port", changed([](TcpSpec& s) { s.source_port = 1; })},
      {"destination port", changed([](TcpSpec& s) { s.destination_port = 1; })},
      {"FIN", changed([](TcpSpec& s) { s.flags = 0x11; })},
      {"SYN", changed([](TcpSpec& s) { s.flags = 0x12; })},
      {"RST", changed([](TcpSpec& s) { s.flags = 0x14; })},
      {"URG", changed([](TcpSpec& s) { s.flags = 0x30; })},
      {"no ACK", changed([](TcpSpec& s) { s.flags = 0; })},
      {"ECE", changed([](TcpSpec& s) { s.flags = 0x50; })},
      {"options", changed([](TcpSpec& s) { s.options = Hex("01010101"); })},
      {"no payload", Data(1003, "")},
  };
  Family elsewhere = *GetParam();
  elsewhere.remote = GetParam()->v4() ? IpAddress::V4(192, 0, 2, 77)
                                      : *IpAddress::Parse("2001:db8::77");
  TcpSpec spec;
  spec.seq = 1003;
  spec.payload = Text("def");
  others["another destination"] = MakeTcpPacket(elsewhere, spec);
  ByteVector broken = Data(1003, "def");
  broken.back() ^= std::byte{1};
  others["checksum"] = broken;
  ByteVector longer = Data(1003, "def");
  longer.push_back(std::byte{0});
  others["trailing byte"] = longer;
  ByteVector ttl = Data(1003, "def");
  if (GetParam()->v4()) {
    Store8(&ttl[8], 63);
    FixV4Checksum(ttl);
  } else {
    Store8(&ttl[7], 63);
  }
  others["hop limit"] = ttl;

  for (const auto& [name, packet] : others) {
    SCOPED_TRACE(name);
    ScriptedTun tun;
    tun.Push(Data(1000, "abc"));
    tun.Push(packet);
    const std::vector<Got> got = ReadAll(tun);
    ASSERT_EQ(got.size(), 2u);
    EXPECT_EQ(got[0].bytes, Data(1000, "abc"));
    EXPECT_EQ(got[1].bytes, packet);
  }
}

TEST_P(Reader, NoFurtherThanAPacketMayBe) {
  ScriptedTun tun({.offload = false, .mtu = 9000});
  std::string all;
  for (int i = 0; i < 10; ++i) {
    const std::string piece(8900, static_cast<char>('a' + i));
    tun.Push(Data(static_cast<uint32_t>(all.size()), piece));
    all += piece;
  }
  const std::vector<Got> got = ReadAll(tun);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(PayloadOf(got[0]).size(), 7 * 8900u);
  EXPECT_EQ(PayloadOf(got[0]) + PayloadOf(got[1]), all);
}

// IPv4's total length, IPv6's payload length, version nibble: nothing of a
// broken packet is believed.
TEST_P(Reader, GarbageIsHandedOnAsItIs) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    ScriptedTun tun;
    std::vector<ByteVector> pushed;
    for (int i = 0; i < 4; ++i) {
      ByteVector p = Data(1000, "abc");
      p.resize(1 + random() % (p.size() + 20));
      for (int n = 0; n < 3; ++n) {
        p[random() % p.size()] = static_cast<std::byte>(random());
      }
      pushed.push_back(p);
      tun.Push(p);
    }
    const std::vector<Got> got = ReadAll(tun);
    ASSERT_EQ(got.size(), pushed.size());
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i].bytes, pushed[i]);
    }
  }
}

// What each connection sends, in its order, is the same with and without
// joining; and everything that comes out is a valid packet.
TEST_P(Reader, JoiningChangesNoStream) {
  std::mt19937 random(8);
  for (int round = 0; round < 50; ++round) {
    ScriptedTun tun;
    std::map<uint16_t, std::string> sent;
    std::map<uint16_t, uint32_t> seqs;
    for (int i = 0; i < 400; ++i) {
      TcpSpec spec;
      // Runs of one connection, as a sender makes them.
      static uint16_t port = 1;
      if (random() % 4 == 0) port = static_cast<uint16_t>(1 + random() % 5);
      spec.source_port = port;
      if (random() % 10 == 0) spec.options = Hex("01010101");
      if (random() % 20 == 0) spec.flags |= 0x08;
      const std::string payload(random() % 1400,
                                static_cast<char>(random() % 256));
      tun.Push(Data(seqs[port], payload, spec));
      seqs[port] += static_cast<uint32_t>(payload.size());
      sent[port] += payload;
    }
    std::map<uint16_t, std::string> got;
    for (const Got& g : ReadAll(tun)) {
      const OrDrop<Packet> packet = ParsePacket(g.bytes);
      ASSERT_TRUE(packet);
      // A joined packet's checksum is vouched for, not made.
      const OrDrop<TcpSegment> tcp = ParseTcp(*packet, g.trust);
      ASSERT_TRUE(tcp);
      ASSERT_EQ(tcp->seq, got[tcp->source_port].size());
      got[tcp->source_port].append(
          reinterpret_cast<const char*>(tcp->payload.data()),
          tcp->payload.size());
    }
    ASSERT_EQ(got, sent);
  }
}

TEST_P(Reader, BatchesEnd) {
  ScriptedTun tun;
  for (int i = 0; i < 300; ++i) tun.Push(Data(0, ""));
  Keeper keeper;
  TunReader reader(&tun, &keeper, &stats);
  EXPECT_EQ(reader.ReadBatch(), TunReader::Result::kMore);
  EXPECT_GT(keeper.got.size(), 100u);
  EXPECT_LT(keeper.got.size(), 300u);
  EXPECT_EQ(reader.ReadBatch(), TunReader::Result::kDrained);
  EXPECT_EQ(keeper.got.size(), 300u);
}

// Nothing that grows is kept over the end of a batch.
TEST_P(Reader, NothingIsHeldBack) {
  ScriptedTun tun;
  Keeper keeper;
  TunReader reader(&tun, &keeper, &stats);
  tun.Push(Data(0, "abc"));
  EXPECT_EQ(reader.ReadBatch(), TunReader::Result::kDrained);
  ASSERT_EQ(keeper.got.size(), 1u);
  tun.Push(Data(3, "def"));
  EXPECT_EQ(reader.ReadBatch(), TunReader::Result::kDrained);
  ASSERT_EQ(keeper.got.size(), 2u);
  EXPECT_EQ(keeper.got[1].bytes, Data(3, "def"));
}

TEST_P(Reader, FailureComesBehindWhatWasRead) {
  for (const bool offload : {false, true}) {
    ScriptedTun tun({.offload = offload, .mtu = 1500});
    Keeper keeper;
    TunReader reader(&tun, &keeper, &stats);
    tun.Push(Data(0, "abc"));
    tun.FailReads(EBADFD);
    EXPECT_EQ(reader.ReadBatch(), TunReader::Result::kFailed);
    EXPECT_EQ(reader.error(), EBADFD);
    EXPECT_EQ(keeper.got.size(), 1u);
  }
}

TEST_P(Reader, OffloadPassesWholePacketsOn) {
  ScriptedTun tun({.offload = true, .mtu = 1500});
  const ByteVector big = Data(0, std::string(60'000, 'x'));
  tun.Push(big, /*checksum_trusted=*/true);
  tun.Push(Data(60'000, "abc"), /*checksum_trusted=*/false);
  const std::vector<Got> got = ReadAll(tun);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].bytes, big);
  EXPECT_EQ(got[0].trust, ChecksumTrust::kTrusted);
  EXPECT_EQ(got[1].trust, ChecksumTrust::kVerify);
  EXPECT_EQ(stats.outbound_merged, 0u);
}

TEST_P(Reader, OffloadTellsTheBordersOfUdpBatches) {
  ScriptedTun tun({.offload = true, .udp_offload = true, .mtu = 1500});
  tun.Push(LinuxUdpV4(), /*checksum_trusted=*/true, /*udp_segment=*/1200);
  tun.Push(LinuxUdpV6());
  const std::vector<Got> got = ReadAll(tun);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].udp_segment, 1200);
  EXPECT_EQ(got[1].udp_segment, 0);
}

}  // namespace
}  // namespace netstack::test

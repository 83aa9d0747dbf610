// Segments become packets: core/forward/tun_writer.h.
#include "core/forward/tun_writer.h"

#include <cerrno>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/forward/forward_rig.h"

namespace netstack::test {
namespace {

constexpr uint16_t kMss = 1000;
constexpr uint32_t kSeq = 0xFFFFF000;  // wraps within a super-segment

class Writer : public testing::TestWithParam<const Family*> {
 protected:
  explicit Writer(bool offload = false)
      : tun({.offload = offload, .mtu = 1500}) {
    key.app = {GetParam()->app, 40000};
    key.remote = {GetParam()->remote, 80};
  }
  // A segment whose payload lies in pieces of `piece` bytes.
  bool Send(const std::string& payload, uint8_t flags = 0x10,
            size_t piece = 700, const ByteVector& options = {}) {
    header.assign(20, std::byte{0});
    Store16(&header[0], 80);
    Store16(&header[2], 40000);
    Store32(&header[4], kSeq);
    Store32(&header[8], 0x01020304);
    Store8(&header[12], static_cast<uint8_t>((5 + options.size() / 4) << 4));
    Store8(&header[13], flags);
    Store16(&header[14], 0x5678);
    header = Concat(header, options);
    std::vector<Bytes> parts;
    const auto* p = reinterpret_cast<const std::byte*>(payload.data());
    for (size_t at = 0; at < payload.size(); at += piece) {
      parts.emplace_back(p + at, std::min(piece, payload.size() - at));
    }
    InboundSegment s;
    s.key = &key;
    s.header = header;
    s.payload = parts;
    s.payload_size = payload.size();
    s.mss = kMss;
    return writer.SendSegment(s);
  }
  uint64_t failed() const {
    return drops.packets()[static_cast<size_t>(DropReason::kTunWriteFailed)];
  }
  // What every packet of a segment has in common.
  void ExpectOurs(const Reply& r) {
    EXPECT_EQ(r.packet.source, key.remote.ip);
    EXPECT_EQ(r.packet.destination, key.app.ip);
    ASSERT_TRUE(r.tcp);
    EXPECT_EQ(r.tcp->source_port, 80);
    EXPECT_EQ(r.tcp->destination_port, 40000);
    EXPECT_EQ(r.tcp->ack, 0x01020304u);
    EXPECT_EQ(r.tcp->window, 0x5678);
    EXPECT_TRUE(r.packet.dont_fragment);
  }

  FlowKey key;
  ScriptedTun tun;
  TunStats stats;
  DropCounters drops;
  TunWriter writer{&tun, &stats, &drops};
  ByteVector header;
};
INSTANTIATE_TEST_SUITE_P(Families, Writer, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

std::string Payload(const Reply& r) {
  return {reinterpret_cast<const char*>(r.tcp->payload.data()),
          r.tcp->payload.size()};
}

TEST_P(Writer, PlainTunGetsPacketsOfTheAppsMss) {
  for (const size_t size : {0u, 1u, 999u, 1000u, 1001u, 5000u, 65'000u}) {
    const std::string payload = Pattern(size);
    ASSERT_TRUE(Send(payload, 0x19));  // ACK PSH FIN
    const auto written = tun.TakeWritten();
    ASSERT_EQ(written.size(), std::max<size_t>(1, (size + 999) / 1000));
    std::string all;
    for (size_t i = 0; i < written.size(); ++i) {
      const Reply r = Understand(written[i]);  // checks the sums
      ExpectOurs(r);
      EXPECT_EQ(r.tcp->seq, static_cast<uint32_t>(kSeq + all.size()));
      // FIN and PSH are the last packet's.
      EXPECT_EQ(r.tcp->flags, i + 1 == written.size() ? 0x19 : 0x10);
      all += Payload(r);
    }
    EXPECT_EQ(all, payload);
  }
}

TEST_P(Writer, PiecesOfAnySize) {
  for (const size_t piece : {1u, 3u, 59u, 999u, 1000u, 65'535u}) {
    const std::string payload = Pattern(4567);
    ASSERT_TRUE(Send(payload, 0x10, piece));
    std::string all;
    for (const auto& w : tun.TakeWritten()) all += Payload(Understand(w));
    EXPECT_EQ(all, payload);
  }
}

// The handshake was made for another MTU than the TUN in use has.
TEST_P(Writer, ASmallerTunGetsSmallerPackets) {
  for (const bool offload : {false, true}) {
    ScriptedTun small({.offload = offload, .mtu = 700});
    writer.SetTun(&small);
    const std::string payload = Pattern(5000);
    ASSERT_TRUE(Send(payload, 0x10));
    EXPECT_TRUE(tun.TakeWritten().empty());
    const size_t headers = GetParam()->v4() ? 40 : 60;
    const auto written = small.TakeWritten();
    if (offload) {
      ASSERT_EQ(written.size(), 1u);
      EXPECT_EQ(written[0].how.segment_size, 700 - headers);
      continue;
    }
    std::string all;
    for (const auto& w : written) {
      EXPECT_LE(w.bytes.size(), 700u);
      all += Payload(Understand(w));
    }
    EXPECT_EQ(all, payload);
    EXPECT_EQ(written.size(), (5000 + 699 - headers) / (700 - headers));
  }
  writer.SetTun(&tun);
  ASSERT_TRUE(Send(Pattern(1000)));
  EXPECT_EQ(tun.TakeWritten().size(), 1u);
}

TEST_P(Writer, OptionsAreKept) {
  const ByteVector sack = Hex("0101050A 00000001 00000002");
  ASSERT_TRUE(Send("", 0x10, 700, sack));
  const Reply r = Understand(tun.written().at(0));
  EXPECT_EQ(ByteVector(r.tcp->options.begin(), r.tcp->options.end()), sack);
}

TEST_P(Writer, FullTunKeepsTheSegmentWithTheCaller) {
  tun.BlockWrites();
  EXPECT_FALSE(Send("x"));
  EXPECT_TRUE(writer.blocked());
  EXPECT_FALSE(Send("x"));
  EXPECT_EQ(tun.failed_writes(), 1u) << "no more tries until it is writable";
  EXPECT_EQ(stats.write_blocked, 1u);
  EXPECT_EQ(failed(), 0u);
  tun.AllowWrites();
  EXPECT_FALSE(Send("x"));
  writer.Unblock();
  EXPECT_TRUE(Send("x"));
}

TEST_P(Writer, TunThatFillsUpInTheMiddle) {
  // The first packet fails; the caller keeps the whole segment.
  tun.FailWrites(EAGAIN, 1);
  EXPECT_FALSE(Send(Pattern(5000)));
  writer.Unblock();
  EXPECT_TRUE(Send(Pattern(5000)));
  EXPECT_EQ(tun.written().size(), 5u);
}

TEST_P(Writer, OtherErrorsDropAndCount) {
  tun.FailWrites(EIO, 1);
  EXPECT_TRUE(Send("x"));
  EXPECT_FALSE(writer.blocked());
  EXPECT_EQ(failed(), 1u);
  EXPECT_EQ(stats.writes, 0u);
}

TEST_P(Writer, OwnPacketsAreDroppedByAFullTun) {
  const ByteVector packet = MakeTcpPacket(*GetParam());
  writer.SendPacket(packet);
  EXPECT_EQ(tun.TakeWritten().at(0).bytes, packet);
  tun.BlockWrites();
  writer.SendPacket(packet);
  writer.SendPacket(packet);
  EXPECT_EQ(failed(), 2u);
}

TEST_P(Writer, CountsWhatWasWritten) {
  const size_t headers = GetParam()->v4() ? 40 : 60;
  ASSERT_TRUE(Send(Pattern(2500)));
  EXPECT_EQ(stats.inbound_packets, 3u);
  EXPECT_EQ(stats.writes, 3u);
  EXPECT_EQ(stats.inbound_bytes, 2500 + 3 * headers);
}

class OffloadWriter : public Writer {
 protected:
  OffloadWriter() : Writer(/*offload=*/true) {}
};
INSTANTIATE_TEST_SUITE_P(Families, OffloadWriter, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TEST_P(OffloadWriter, SuperSegmentIsOneWrite) {
  const std::string payload = Pattern(65'000);
  ASSERT_TRUE(Send(payload, 0x19));
  ASSERT_EQ(tun.written().size(), 1u);
  const Reply r = Understand(tun.written()[0]);
  ExpectOurs(r);
  EXPECT_EQ(Payload(r), payload);
  EXPECT_EQ(r.tcp->flags, 0x19);
  const uint16_t ip = GetParam()->v4() ? 20 : 40;
  EXPECT_TRUE(r.how.partial_checksum);
  EXPECT_EQ(r.how.checksum_start, ip);
  EXPECT_EQ(r.how.checksum_offset, 16);
  EXPECT_EQ(r.how.headers, ip + 20);
  EXPECT_EQ(r.how.segment_size, kMss);
  EXPECT_EQ(r.how.v4, GetParam()->v4());
}

TEST_P(OffloadWriter, OneMssIsNotCut) {
  ASSERT_TRUE(Send(Pattern(kMss)));
  EXPECT_EQ(tun.TakeWritten().at(0).how.segment_size, 0);
  ASSERT_TRUE(Send(Pattern(kMss + 1)));
  EXPECT_EQ(tun.TakeWritten().at(0).how.segment_size, kMss);
}

TEST_P(OffloadWriter, ManyPiecesAreGathered) {
  const std::string payload = Pattern(10'000);
  ASSERT_TRUE(Send(payload, 0x10, 1));  // writev takes 64
  EXPECT_EQ(Payload(Understand(tun.written().at(0))), payload);
}

TEST_P(OffloadWriter, FullTun) {
  tun.BlockWrites();
  EXPECT_FALSE(Send(Pattern(5000)));
  EXPECT_TRUE(writer.blocked());
}

}  // namespace
}  // namespace netstack::test

#include "tests/support/scripted_tun.h"

#include <algorithm>

#include "gtest/gtest.h"

namespace netstack::test {

void ScriptedTun::Push(Bytes packet, bool checksum_trusted,
                       uint16_t udp_segment) {
  if (udp_segment != 0) {
    EXPECT_TRUE(options_.udp_offload);
  }
  const size_t most = options_.offload ? kMaxPacketSize : options_.mtu;
  EXPECT_LE(packet.size(), most) << "no kernel hands us such a packet";
  packets_.push_back({{packet.begin(), packet.end()}, checksum_trusted,
                      udp_segment});
}

TunRead ScriptedTun::Read(std::span<const MutableBytes> parts) {
  if (packets_.empty()) return {.size = -read_error_};
  const Packet packet = std::move(packets_.front());
  packets_.pop_front();
  // As readv(2) does: in order, and what finds no room is lost.
  size_t at = 0;
  for (const MutableBytes& part : parts) {
    const size_t n = std::min(part.size(), packet.bytes.size() - at);
    std::copy_n(packet.bytes.begin() + static_cast<ptrdiff_t>(at), n,
                part.begin());
    at += n;
  }
  return {.size = static_cast<int64_t>(at),
          .checksum_trusted = packet.checksum_trusted,
          .udp_segment = packet.udp_segment};
}

int ScriptedTun::Write(std::span<const Bytes> parts, const TunWrite& how) {
  if (write_room_ > 0) {
    --write_room_;
  } else if (write_failures_ > 0) {
    --write_failures_;
    ++failed_writes_;
    return -write_error_;
  }
  Written packet{.bytes = {}, .how = how};
  for (const Bytes& part : parts) {
    packet.bytes.insert(packet.bytes.end(), part.begin(), part.end());
  }
  EXPECT_LE(parts.size(), 64u);
  EXPECT_GE(packet.bytes.size(), 20u);
  EXPECT_LE(packet.bytes.size(), kMaxPacketSize);
  if (!options_.offload) {
    EXPECT_FALSE(how.partial_checksum);
    EXPECT_EQ(how.segment_size, 0);
  }
  if (how.segment_size == 0) {
    EXPECT_LE(packet.bytes.size(), options_.mtu);
  } else {
    EXPECT_TRUE(how.partial_checksum) << "the kernel takes no other (EINVAL)";
    EXPECT_LE(how.headers + how.segment_size, options_.mtu);
    if (how.udp) {
      EXPECT_TRUE(options_.udp_offload);
    }
  }
  written_.push_back(std::move(packet));
  return 0;
}

}  // namespace netstack::test

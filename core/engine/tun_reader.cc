#include "core/engine/tun_reader.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/wire/checksum.h"
#include "core/wire/headers.h"

namespace netstack {
namespace {

constexpr size_t kV4Headers = kIpV4HeaderSize + kTcpHeaderSize;
constexpr size_t kV6Headers = kIpV6HeaderSize + kTcpHeaderSize;

bool IsV4(const std::byte* packet) { return Load8(packet) >> 4 == 4; }

// The bytes of an IP header that a packet may not share with the one that it
// continues: lengths, id and header checksum.
bool SameIpHeader(const std::byte* a, const std::byte* b, bool v4) {
  if (v4) {
    // Version, IHL, TOS; DF and offset; TTL, protocol; addresses.
    return std::memcmp(a, b, 2) == 0 && std::memcmp(a + 6, b + 6, 4) == 0 &&
           std::memcmp(a + 12, b + 12, 8) == 0;
  }
  return std::memcmp(a, b, 4) == 0 && std::memcmp(a + 6, b + 6, 34) == 0;
}

// Addresses of a packet whose headers are known to be whole.
IpAddress SourceOf(const std::byte* p, bool v4) {
  return v4 ? IpAddress::V4(p + 12) : IpAddress::V6(p + 8);
}
IpAddress DestinationOf(const std::byte* p, bool v4) {
  return v4 ? IpAddress::V4(p + 16) : IpAddress::V6(p + 24);
}

// Data and acknowledgement, nothing else.
bool PlainFlags(uint8_t flags) {
  return (flags & ~tcp_flag::kPsh) == tcp_flag::kAck;
}

}  // namespace

TunReader::TunReader(Tun* tun, PacketHandler* handler, TunStats* stats)
    : tun_(tun), handler_(handler), stats_(stats) {
  // Room for a packet that has grown to its limit and one more behind it.
  buffer_.resize(2 * kMaxPacketSize + 2 * kV6Headers);
  header_.resize(kV6Headers);
  start_ = end_ = kV6Headers;
}

TunReader::Result TunReader::ReadBatch() {
  return tun_->offload() ? ReadWhole() : ReadMerging();
}

void TunReader::Count(size_t size) {
  ++stats_->reads;
  ++stats_->outbound_packets;
  stats_->outbound_bytes += size;
}

TunReader::Result TunReader::ReadWhole() {
  const MutableBytes room(buffer_.data(), kMaxPacketSize);
  size_t bytes = 0;
  for (size_t n = 0; n < kBatchPackets && bytes < kBatchBytes; ++n) {
    const TunRead read = tun_->Read({&room, 1});
    if (read.size == 0) return Result::kDrained;
    if (read.size < 0) {
      error_ = static_cast<int>(-read.size);
      return Result::kFailed;
    }
    const auto size = static_cast<size_t>(read.size);
    Count(size);
    bytes += size;
    handler_->OnPacket(room.first(size),
                       read.checksum_trusted ? ChecksumTrust::kTrusted
                                             : ChecksumTrust::kVerify,
                       read.udp_segment);
  }
  return Result::kMore;
}

TunReader::Result TunReader::ReadMerging() {
  size_t bytes = 0;
  for (size_t n = 0; n < kBatchPackets && bytes < kBatchBytes; ++n) {
    // What grows has at most kMaxPacketSize bytes, so that there is room.
    const size_t guess = guess_;
    const std::array<MutableBytes, 2> room = {
        MutableBytes(header_.data(), guess),
        MutableBytes(buffer_.data() + end_, kMaxPacketSize - guess)};
    const TunRead read = tun_->Read(room);
    if (read.size <= 0) {
      Flush();
      if (read.size == 0) return Result::kDrained;
      error_ = static_cast<int>(-read.size);
      return Result::kFailed;
    }
    const auto size = static_cast<size_t>(read.size);
    Count(size);
    bytes += size;
    if (size > guess && Continues(guess, size - guess)) {
      Append(guess, size - guess);
      continue;
    }
    // Another packet: what grew is finished, and its bytes may go, so that
    // this one's header can be put in front of what was read behind it.
    const size_t tail = end_;
    Flush();
    const size_t front = std::min(guess, size);
    std::byte* packet = buffer_.data() + tail - front;
    std::memcpy(packet, header_.data(), front);
    if (Load8(packet) >> 4 == 6) {
      guess_ = kV6Headers;
    } else {
      guess_ = kV4Headers;
    }
    if (!CanGrow({packet, size})) {
      handler_->OnPacket({packet, size}, ChecksumTrust::kVerify, 0);
      continue;
    }
    // It may grow: to the start of the buffer with it, unless it is there.
    start_ = kV6Headers;
    std::memmove(buffer_.data() + start_, packet, size);
    end_ = start_ + size;
    merged_header_ = guess_;
    merged_packets_ = 1;
    next_seq_ = Load32(buffer_.data() + start_ + guess_ - kTcpHeaderSize + 4) +
                static_cast<uint32_t>(size - guess_);
  }
  Flush();
  return Result::kMore;
}

// Whether a packet may begin a merge: valid, TCP without IP or TCP options,
// plain data. Everything about it is checked here, since what is merged goes
// on as trusted.
bool TunReader::CanGrow(Bytes packet) const {
  if (packet.size() <= guess_) return false;
  const OrDrop<Packet> parsed = ParsePacket(packet);
  if (!parsed || parsed->is_fragment ||
      parsed->protocol != ip_protocol::kTcp ||
      parsed->bytes.size() != packet.size() ||
      parsed->transport.size() + IpHeaderSize(parsed->is_v4) !=
          packet.size()) {
    return false;
  }
  const OrDrop<TcpSegment> tcp = ParseTcp(*parsed, ChecksumTrust::kVerify);
  return tcp && tcp->options.empty() && !tcp->payload.empty() &&
         PlainFlags(tcp->flags);
}

// Whether what was just read, header_ and the payload behind end_, is the next
// piece of what grows.
bool TunReader::Continues(size_t header_size, size_t payload_size) const {
  if (start_ == end_ || header_size != merged_header_) return false;
  const std::byte* head = buffer_.data() + start_;
  const std::byte* next = header_.data();
  const bool v4 = IsV4(head);
  if (end_ - start_ + payload_size > kMaxPacketSize) return false;
  if (!SameIpHeader(head, next, v4)) return false;
  const size_t ip_size = IpHeaderSize(v4);
  const size_t length =
      v4 ? Load16(next + 2) : Load16(next + 4) + kIpV6HeaderSize;
  if (length != header_size + payload_size) return false;
  if (v4 && Checksum({next, ip_size}) != 0) return false;
  const std::byte* tcp = next + ip_size;
  if (std::memcmp(tcp, head + ip_size, 4) != 0) return false;  // ports
  if (Load32(tcp + 4) != next_seq_) return false;
  if (Load8(tcp + 12) >> 4 != kTcpHeaderSize / 4) return false;
  if (!PlainFlags(Load8(tcp + 13))) return false;
  ChecksumAccumulator sum = PseudoHeader(
      SourceOf(next, v4), DestinationOf(next, v4), ip_protocol::kTcp,
      static_cast<uint32_t>(kTcpHeaderSize + payload_size));
  sum.Add({tcp, kTcpHeaderSize});
  sum.Add({buffer_.data() + end_, payload_size});
  return sum.Finish() == 0;
}

void TunReader::Append(size_t header_size, size_t payload_size) {
  const std::byte* tcp = header_.data() + header_size - kTcpHeaderSize;
  std::byte* grown =
      buffer_.data() + start_ + merged_header_ - kTcpHeaderSize;
  // The newest acknowledgement, flags and window count.
  std::memcpy(grown + 8, tcp + 8, 4);
  Store8(grown + 13, Load8(grown + 13) | Load8(tcp + 13));
  std::memcpy(grown + 14, tcp + 14, 2);
  end_ += payload_size;
  next_seq_ += static_cast<uint32_t>(payload_size);
  ++merged_packets_;
  ++stats_->outbound_merged;
}

void TunReader::Flush() {
  if (start_ == end_) return;
  std::byte* packet = buffer_.data() + start_;
  const size_t size = end_ - start_;
  if (merged_packets_ > 1) {
    if (IsV4(packet)) {
      Store16(packet + 2, static_cast<uint16_t>(size));
      Store16(packet + 10, 0);
      Store16(packet + 10, Checksum({packet, kIpV4HeaderSize}));
    } else {
      Store16(packet + 4, static_cast<uint16_t>(size - kIpV6HeaderSize));
    }
  }
  start_ = end_ = kV6Headers;
  handler_->OnPacket({packet, size}, ChecksumTrust::kTrusted, 0);
}

}  // namespace netstack

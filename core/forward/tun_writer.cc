#include "core/forward/tun_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/wire/checksum.h"
#include "core/wire/headers.h"
#include "core/wire/packet.h"
#include "core/wire/udp.h"

namespace netstack {
namespace {

constexpr size_t kFlagsOffset = 13;
constexpr size_t kChecksumOffset = 16;

// Walks the pieces of a payload.
class Cursor {
 public:
  explicit Cursor(std::span<const Bytes> parts) : parts_(parts) {}

  // Appends the next `n` bytes, which exist, to `out` as pieces.
  void Take(size_t n, std::vector<Bytes>& out) {
    while (n != 0) {
      const Bytes rest = parts_[index_].subspan(offset_);
      const size_t k = std::min(n, rest.size());
      if (k != 0) out.push_back(rest.first(k));
      n -= k;
      offset_ += k;
      if (offset_ == parts_[index_].size()) {
        ++index_;
        offset_ = 0;
      }
    }
  }

 private:
  std::span<const Bytes> parts_;
  size_t index_ = 0;
  size_t offset_ = 0;
};

size_t WriteSegmentIpHeader(const FlowKey& key, size_t payload,
                            std::byte* out) {
  IpHeaderFields ip;
  ip.source = key.remote.ip;
  ip.destination = key.app.ip;
  ip.protocol = ip_protocol::kTcp;
  return WriteIpHeader(ip, payload, out);
}

ChecksumAccumulator TcpPseudoHeader(const FlowKey& key, size_t length) {
  return PseudoHeader(key.remote.ip, key.app.ip, ip_protocol::kTcp,
                      static_cast<uint32_t>(length));
}

}  // namespace

TunWriter::TunWriter(Tun* tun, TunStats* stats, DropCounters* drops)
    : tun_(tun), mtu_(tun->mtu()), stats_(stats), drops_(drops) {
  parts_.reserve(64);
}

void TunWriter::SetTun(Tun* tun) {
  tun_ = tun;
  mtu_ = tun->mtu();
}

// Payload bytes of one packet: the app's MSS, or less where the TUN has become
// smaller since the handshake.
uint16_t TunWriter::PacketPayload(const InboundSegment& segment) const {
  const size_t headers =
      (segment.key->app.ip.IsV4() ? kIpV4HeaderSize : kIpV6HeaderSize) +
      segment.header.size();
  const size_t room = mtu_ > headers ? mtu_ - headers : 1;
  return static_cast<uint16_t>(
      std::clamp<size_t>(segment.mss, 1, std::min<size_t>(room, 65535)));
}

bool TunWriter::SendSegment(const InboundSegment& segment) {
  if (blocked_) return false;
  if (segment.payload.size() > kMaxParts) {
    gathered_.clear();
    for (const Bytes& part : segment.payload) {
      gathered_.insert(gathered_.end(), part.begin(), part.end());
    }
    const Bytes whole = gathered_;
    InboundSegment copy = segment;
    copy.payload = {&whole, 1};
    return tun_->offload() ? WriteWhole(copy) : WriteCut(copy);
  }
  return tun_->offload() ? WriteWhole(segment) : WriteCut(segment);
}

bool TunWriter::WriteWhole(const InboundSegment& segment) {
  const size_t tcp_size = segment.header.size() + segment.payload_size;
  const size_t ip_size =
      WriteSegmentIpHeader(*segment.key, tcp_size, header_.data());
  std::byte* tcp = header_.data() + ip_size;
  std::memcpy(tcp, segment.header.data(), segment.header.size());
  Store16(tcp + kChecksumOffset,
          TcpPseudoHeader(*segment.key, tcp_size).Folded());

  TunWrite how;
  how.partial_checksum = true;
  how.checksum_start = static_cast<uint16_t>(ip_size);
  how.checksum_offset = kChecksumOffset;
  how.headers = static_cast<uint16_t>(ip_size + segment.header.size());
  how.v4 = segment.key->app.ip.IsV4();
  const uint16_t most = PacketPayload(segment);
  if (segment.payload_size > most) how.segment_size = most;

  parts_.clear();
  parts_.emplace_back(header_.data(), how.headers);
  parts_.insert(parts_.end(), segment.payload.begin(), segment.payload.end());
  return Write(parts_, how, ip_size + tcp_size);
}

bool TunWriter::WriteCut(const InboundSegment& segment) {
  Cursor cursor(segment.payload);
  const uint32_t seq = Load32(segment.header.data() + 4);
  const uint8_t flags = Load8(segment.header.data() + kFlagsOffset);
  const size_t step = PacketPayload(segment);
  size_t done = 0;
  do {
    const size_t n = std::min(segment.payload_size - done, step);
    const bool last = done + n == segment.payload_size;
    const size_t tcp_size = segment.header.size() + n;
    const size_t ip_size =
        WriteSegmentIpHeader(*segment.key, tcp_size, header_.data());
    std::byte* tcp = header_.data() + ip_size;
    std::memcpy(tcp, segment.header.data(), segment.header.size());
    Store32(tcp + 4, seq + static_cast<uint32_t>(done));
    // What concerns the end of the segment belongs to its last packet.
    Store8(tcp + kFlagsOffset,
           last ? flags
                : static_cast<uint8_t>(
                      flags & ~(tcp_flag::kFin | tcp_flag::kPsh)));
    const Bytes head(header_.data(), ip_size + segment.header.size());
    parts_.clear();
    parts_.push_back(head);
    cursor.Take(n, parts_);
    ChecksumAccumulator sum = TcpPseudoHeader(*segment.key, tcp_size);
    sum.Add(head.subspan(ip_size));
    for (size_t i = 1; i < parts_.size(); ++i) sum.Add(parts_[i]);
    Store16(tcp + kChecksumOffset, sum.Finish());
    // When the TUN fills up in the middle, lwIP sends the segment again from
    // its start; the app's TCP knows what it has.
    if (!Write(parts_, TunWrite{}, ip_size + tcp_size)) return false;
    done += n;
  } while (done < segment.payload_size);
  return true;
}

void TunWriter::SendPacket(Bytes packet) {
  if (blocked_ || !Write({&packet, 1}, TunWrite{}, packet.size())) {
    drops_->Count(DropReason::kTunWriteFailed);
  }
}

bool TunWriter::SendUdp(InboundDatagram& datagram) {
  if (blocked_) return false;
  const size_t segment = datagram.segment_size;
  if (segment == 0 || datagram.payload.size() <= segment) {
    return WriteUdp(datagram, 0);
  }
  const size_t headers = IpHeaderSize(datagram.to.ip.IsV4()) + kUdpHeaderSize;
  if (tun_->udp_offload() && headers + segment <= tun_->mtu() &&
      headers + datagram.payload.size() <= kMaxPacketSize) {
    return WriteUdp(datagram, datagram.segment_size);
  }
  InboundDatagram one = datagram;
  while (!datagram.payload.empty()) {
    one.payload =
        datagram.payload.first(std::min(segment, datagram.payload.size()));
    if (!WriteUdp(one, 0)) return false;
    datagram.payload = datagram.payload.subspan(one.payload.size());
  }
  return true;
}

bool TunWriter::WriteUdp(const InboundDatagram& datagram,
                         uint16_t segment_size) {
  const size_t size = kUdpHeaderSize + datagram.payload.size();
  IpHeaderFields ip;
  ip.source = datagram.from.ip;
  ip.destination = datagram.to.ip;
  ip.protocol = ip_protocol::kUdp;
  ip.ttl = datagram.ttl;
  ip.tos = datagram.tos;
  UdpHeaderFields udp;
  udp.source_port = datagram.from.port;
  udp.destination_port = datagram.to.port;
  udp.length = static_cast<uint16_t>(size);
  ChecksumAccumulator sum = PseudoHeader(ip.source, ip.destination, ip.protocol,
                                         static_cast<uint32_t>(size));
  const size_t ip_size = IpHeaderSize(ip.source.IsV4());
  const bool fits = ip_size + size <= tun_->mtu() || segment_size != 0;
  if (tun_->offload() && fits) {
    udp.checksum = sum.Folded();
    WriteIpHeader(ip, size, header_.data());
    WriteUdpHeader(udp, header_.data() + ip_size);
    TunWrite how;
    how.partial_checksum = true;
    how.checksum_start = static_cast<uint16_t>(ip_size);
    how.checksum_offset = kUdpChecksumOffset;
    how.segment_size = segment_size;
    how.headers = static_cast<uint16_t>(ip_size + kUdpHeaderSize);
    how.v4 = ip.source.IsV4();
    how.udp = true;
    const std::array<Bytes, 2> parts = {Bytes(header_.data(), how.headers),
                                        datagram.payload};
    return Write(parts, how, ip_size + size);
  }
  std::array<std::byte, kUdpHeaderSize> header;
  WriteUdpHeader(udp, header.data());
  sum.Add(header);
  sum.Add(datagram.payload);
  udp.checksum = UdpChecksumField(sum.Finish());
  WriteUdpHeader(udp, header.data());
  const std::array<Bytes, 2> parts = {header, datagram.payload};
  return SendMessage(ip, parts);
}

bool TunWriter::SendMessage(const IpHeaderFields& ip,
                            std::span<const Bytes> parts) {
  if (blocked_) return false;
  size_t size = 0;
  for (const Bytes& part : parts) size += part.size();
  const bool v4 = ip.source.IsV4();
  const size_t mtu = tun_->mtu();
  const bool whole = IpHeaderSize(v4) + size <= mtu;
  // Whole 8-byte units (RFC 791, 3.2).
  const size_t step =
      whole ? size
            : (mtu - (v4 ? kIpV4HeaderSize : kMaxFragmentHeaderSize)) / 8 * 8;
  const uint32_t id = whole ? 0 : next_fragment_id_++;
  Cursor cursor(parts);
  size_t done = 0;
  do {
    const size_t n = std::min(size - done, step);
    const size_t head =
        whole ? WriteIpHeader(ip, n, header_.data())
              : WriteFragmentHeader(ip, id, done, done + n < size, n,
                                    header_.data());
    parts_.clear();
    parts_.emplace_back(header_.data(), head);
    cursor.Take(n, parts_);
    if (!Write(parts_, TunWrite{}, head + n)) {
      if (done == 0) return false;
      drops_->Count(DropReason::kTunWriteFailed);
      return true;  // without this one the others are of no use
    }
    done += n;
  } while (done < size);
  return true;
}

bool TunWriter::Write(std::span<const Bytes> parts, const TunWrite& how,
                      size_t size) {
  const int error = tun_->Write(parts, how);
  if (error == 0) {
    ++stats_->writes;
    ++stats_->inbound_packets;
    stats_->inbound_bytes += size;
    return true;
  }
  if (error == -EAGAIN) {
    ++stats_->write_blocked;
    blocked_ = true;
    return false;
  }
  drops_->Count(DropReason::kTunWriteFailed);
  return true;
}

}  // namespace netstack

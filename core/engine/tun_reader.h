// The first hop of an outbound packet: reading the TUN in batches.
//
// A TUN with offload gives super-segments. From a plain one this makes them
// (software GRO): a packet that continues the one before it is read straight
// behind that one's payload, so that joining costs no copy, and what goes on
// is one packet of up to 64 KiB with its lengths and sums put right, as an
// offloading kernel would have given it.
#ifndef CORE_ENGINE_TUN_READER_H_
#define CORE_ENGINE_TUN_READER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/base/bytes.h"
#include "core/flow/stats.h"
#include "core/platform/tun.h"
#include "core/wire/packet.h"

namespace netstack {

// Takes each packet. The bytes are mutable and dead after the call.
class PacketHandler {
 public:
  virtual ~PacketHandler() = default;
  // `udp_segment`: see TunRead.
  virtual void OnPacket(MutableBytes packet, ChecksumTrust trust,
                        uint16_t udp_segment) = 0;
};

class TunReader {
 public:
  // All outlive the reader.
  TunReader(Tun* tun, PacketHandler* handler, TunStats* stats);

  // Another TUN from now on; call it after kDrained.
  void SetTun(Tun* tun) { tun_ = tun; }

  enum class Result : uint8_t { kDrained, kMore, kFailed };

  // Reads until the TUN is empty (kDrained) or a batch is full (kMore), so
  // that sockets and timers get their turn. kFailed: the TUN is gone, see
  // error().
  Result ReadBatch();
  // The errno of kFailed.
  int error() const { return error_; }

 private:
  static constexpr size_t kBatchPackets = 256;
  static constexpr size_t kBatchBytes = size_t{1} << 20;

  Result ReadWhole();
  Result ReadMerging();
  bool Continues(size_t header_size, size_t payload_size) const;
  void Append(size_t header_size, size_t payload_size);
  bool CanGrow(Bytes packet) const;
  void Flush();
  void Count(size_t size);

  Tun* tun_;
  PacketHandler* const handler_;
  TunStats* const stats_;
  int error_ = 0;

  std::vector<std::byte> buffer_;
  // Merging: the packet that grows is buffer_[start_, end_); empty when
  // start_ == end_. Its headers (IP and TCP without options) are
  // merged_header_ bytes, and `next_seq_` is what continues it.
  std::vector<std::byte> header_;  // of the packet being read
  size_t start_ = 0;
  size_t end_ = 0;
  size_t merged_header_ = 0;
  uint32_t next_seq_ = 0;
  uint32_t merged_packets_ = 0;
  size_t guess_ = 40;  // header size of the packet before
};

}  // namespace netstack

#endif  // CORE_ENGINE_TUN_READER_H_

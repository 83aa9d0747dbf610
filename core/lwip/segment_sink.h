// Where the TCP engine's segments towards an app go.
#ifndef CORE_LWIP_SEGMENT_SINK_H_
#define CORE_LWIP_SEGMENT_SINK_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/base/bytes.h"
#include "core/flow/flow_key.h"

namespace netstack {

// One TCP segment, up to 64 KiB of payload. Everything it points at is valid
// during the call only.
struct InboundSegment {
  // The segment travels from key->remote to key->app.
  const FlowKey* key = nullptr;
  // TCP header with options, 20-60 bytes, checksum field zero.
  Bytes header;
  // The payload's pieces in order.
  std::span<const Bytes> payload;
  size_t payload_size = 0;
  // The app's MSS: the most payload that one packet may carry.
  uint16_t mss = 0;
};

class SegmentSink {
 public:
  virtual ~SegmentSink() = default;
  // False: the TUN takes nothing now, and the segment is kept by the caller.
  // A segment that can never be sent is dropped, counted, and true.
  virtual bool SendSegment(const InboundSegment& segment) = 0;
};

}  // namespace netstack

#endif  // CORE_LWIP_SEGMENT_SINK_H_

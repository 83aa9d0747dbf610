// Connections that end inside the service: their host side is one end of a
// connected pair of local sockets, so that all of TCP's semantics (windows,
// half-close, resets, backpressure) are the forwarder's as for any other.
#ifndef CORE_FORWARD_LOCAL_STREAMS_H_
#define CORE_FORWARD_LOCAL_STREAMS_H_

#include <cstdint>

#include "core/base/time.h"
#include "core/flow/flow_key.h"

namespace netstack {

// Loop thread only; called from within the forwarder, which must not be called
// back.
class LocalStreams {
 public:
  virtual ~LocalStreams() = default;

  // Whether a connection with this key ends inside.
  virtual bool Takes(const FlowKey& key) const = 0;
  // Our end of a new connection: a stream socket, connected and non-blocking,
  // the caller's to close. -errno when there is no room for one more; the app
  // then gets RST.
  virtual int Connect(const FlowKey& key, Instant now) = 0;
  // How many may be half-open at once: such flows have a limit of their own,
  // which no flood of others can use up.
  virtual uint32_t max_half_open() const = 0;
};

}  // namespace netstack

#endif  // CORE_FORWARD_LOCAL_STREAMS_H_

// What a host-side datagram socket says about a datagram, as the ICMP that the
// app would have seen on a direct route.
#ifndef CORE_FORWARD_HOST_ERRORS_H_
#define CORE_FORWARD_HOST_ERRORS_H_

#include <cstdint>
#include <optional>

#include "core/forward/icmp_responder.h"
#include "core/platform/datagrams.h"

namespace netstack {

// Of an entry of the error queue. An error from the network keeps its type,
// code and sender, since both sides are of one family. nullopt: nothing that
// an app should hear of (a source quench, RFC 6633; a shortage of our own).
std::optional<IcmpAnswer> AnswerOf(const DatagramError& error, bool v4);

// Of a positive errno of sending, when the queue has no entry for it; `mtu` of
// EMSGSIZE.
std::optional<IcmpAnswer> AnswerOf(int error, uint32_t mtu);

}  // namespace netstack

#endif  // CORE_FORWARD_HOST_ERRORS_H_

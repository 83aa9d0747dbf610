// Why a packet was not carried. There is no drop without one of these: the
// dispatcher's verdict names the reason, one place counts it, and
// netstack.v1.DropReason exposes the same names (a test compares them).
#ifndef CORE_BASE_DROP_REASON_H_
#define CORE_BASE_DROP_REASON_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace netstack {

// X(enumerator, name, what it means). Append only: the order is the proto's.
#define NETSTACK_DROP_REASONS(X)                                               \
  X(kTooShort, "TOO_SHORT", "shorter than its own headers say")                \
  X(kBadIpVersion, "BAD_IP_VERSION", "neither IPv4 nor IPv6")                  \
  X(kBadIpHeader, "BAD_IP_HEADER", "header or total length impossible")        \
  X(kBadIpChecksum, "BAD_IP_CHECKSUM", "IPv4 header checksum wrong")           \
  X(kBadExtensionHeader, "BAD_EXTENSION_HEADER",                               \
    "IPv6 extension headers cut, looping or too many")                         \
  X(kBadTcpHeader, "BAD_TCP_HEADER", "TCP data offset or flags impossible")    \
  X(kBadTcpOptions, "BAD_TCP_OPTIONS", "a SYN's options cut or malformed")     \
  X(kBadTransportChecksum, "BAD_TRANSPORT_CHECKSUM",                           \
    "TCP, UDP or ICMP checksum wrong")                                         \
  X(kSourceNotOurs, "SOURCE_NOT_OURS",                                         \
    "source address outside the TUN's prefixes")                               \
  X(kBadAddress, "BAD_ADDRESS",                                                \
    "source or destination that no unicast packet may have")                   \
  X(kMulticast, "MULTICAST", "multicast or broadcast destination")             \
  X(kBadFragment, "BAD_FRAGMENT",                                              \
    "a fragment of impossible length, place or mark, and its datagram")        \
  X(kUdpFiltered, "UDP_FILTERED",                                              \
    "an inbound datagram that udp.filtering does not let in")                  \
  X(kIcmpNotCarried, "ICMP_NOT_CARRIED",                                       \
    "ICMP of a type that does not leave the app's own link")                   \
  X(kDnsNotQuery, "DNS_NOT_QUERY",                                             \
    "to port 53, but no DNS query that could be answered")                     \
  X(kUnknownProtocol, "UNKNOWN_PROTOCOL", "a transport we do not carry")       \
  X(kTcpNoFlow, "TCP_NO_FLOW", "TCP, not a SYN, of a flow that is not known")  \
  X(kTcpBlindAck, "TCP_BLIND_ACK",                                             \
    "acknowledges what was never sent or long ago (RFC 5961, section 5)")      \
  X(kTcpBadState, "TCP_BAD_STATE",                                             \
    "a segment that the flow's handshake does not permit")                     \
  X(kTcpDuplicateSyn, "TCP_DUPLICATE_SYN",                                     \
    "the SYN again while its dial goes on")                                    \
  X(kFlowTableFull, "FLOW_TABLE_FULL", "a new flow beyond the flow limit")     \
  X(kNoDescriptors, "NO_DESCRIPTORS",                                          \
    "a new flow beyond the file descriptors left for flows")                   \
  X(kHalfOpenLimit, "HALF_OPEN_LIMIT",                                         \
    "a new flow beyond the half-open limit of all or of its destination")      \
  X(kSynUnproven, "SYN_UNPROVEN",                                              \
    "first SYN under pressure: only its retransmission will be dialed")        \
  X(kRecentlyRefused, "RECENTLY_REFUSED",                                      \
    "answered from memory: this destination has just refused very often")      \
  X(kNoMemory, "NO_MEMORY", "no memory for a flow or a buffer")                \
  X(kFlowPoisoned, "FLOW_POISONED",                                            \
    "an lwIP assertion failed on this flow, which is being reset")             \
  X(kShuttingDown, "SHUTTING_DOWN", "the stack is stopping")                   \
  X(kTunWriteFailed, "TUN_WRITE_FAILED", "the TUN refused the packet")         \
  X(kIcmpRateLimited, "ICMP_RATE_LIMITED",                                     \
    "an ICMP error of ours beyond the rate limit")                             \
  X(kTtlExpired, "TTL_EXPIRED",                                                \
    "TTL or hop limit used up on us, as a router's would be")                  \
  X(kFragmentOverlap, "FRAGMENT_OVERLAP",                                      \
    "fragments that overlap, and all others of their datagram")                \
  X(kFragmentDuplicate, "FRAGMENT_DUPLICATE", "the same fragment again")       \
  X(kFragmentTiny, "FRAGMENT_TINY",                                            \
    "a first fragment without its transport's whole header")                   \
  X(kFragmentLimit, "FRAGMENT_LIMIT",                                          \
    "fragments beyond a limit, or that made way for newer ones")               \
  X(kFragmentTimeout, "FRAGMENT_TIMEOUT",                                      \
    "fragments whose datagram did not become whole in time")                   \
  X(kIcmpErrorFromApp, "ICMP_ERROR_FROM_APP",                                  \
    "an app's ICMP error about what was delivered to it")                      \
  X(kEchoNotPermitted, "ECHO_NOT_PERMITTED",                                   \
    "an echo, but the system permits us no ping sockets")                      \
  X(kEchoNotSent, "ECHO_NOT_SENT", "an echo that the host did not take")       \
  X(kEchoUnasked, "ECHO_UNASKED",                                              \
    "an echo reply, or an error about an echo, that nobody waits for")         \
  X(kBadUdpHeader, "BAD_UDP_HEADER", "UDP length or port impossible")          \
  X(kUdpSocketFull, "UDP_SOCKET_FULL",                                         \
    "the host's socket took no more datagrams")                                \
  X(kUdpTooBig, "UDP_TOO_BIG",                                                 \
    "a datagram beyond the path's MTU that may not be fragmented")             \
  X(kUdpHostError, "UDP_HOST_ERROR",                                           \
    "the host could not send a datagram: no route, a firewall, no socket")     \
  X(kDnsInFlightLimit, "DNS_IN_FLIGHT_LIMIT",                                  \
    "a query beyond dns.limits.max_waiting")                                   \
  X(kAddressNotResolved, "ADDRESS_NOT_RESOLVED",                               \
    "a new flow to an address that DNS did not answer")                        \
  X(kDotBlocked, "DOT_BLOCKED", "a new flow to DNS over TLS or QUIC")          \
  X(kQuicBlocked, "QUIC_BLOCKED", "a new flow of QUIC that a rule refuses")     \
  X(kLoop, "LOOP", "from one of our own sockets: it went in a circle")         \
  X(kAppBlocked, "APP_BLOCKED", "a rule of apps.rules blocks its owner")       \
  X(kOwnerAwaited, "OWNER_AWAITED",                                            \
    "whose it is was not known yet, and too much waited for that")             \
  X(kNotProtectedYet, "NOT_PROTECTED_YET",                                     \
    "the app had not protected a socket for it yet")

enum class DropReason : uint8_t {
#define NETSTACK_X(id, name, text) id,
  NETSTACK_DROP_REASONS(NETSTACK_X)
#undef NETSTACK_X
};

inline constexpr std::array kDropReasonNames = {
#define NETSTACK_X(id, name, text) absl::string_view(name),
    NETSTACK_DROP_REASONS(NETSTACK_X)
#undef NETSTACK_X
};
inline constexpr size_t kDropReasonCount = kDropReasonNames.size();
static_assert(static_cast<size_t>(DropReason::kNotProtectedYet) + 1 ==
              kDropReasonCount);

// The proto's name without its prefix, e.g. "TOO_SHORT".
constexpr absl::string_view DropReasonName(DropReason r) {
  return kDropReasonNames[static_cast<size_t>(r)];
}

}  // namespace netstack

#endif  // CORE_BASE_DROP_REASON_H_

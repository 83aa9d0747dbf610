// Names that software uses to get around the network's DNS, and names by which
// a network says that it wants to be asked. Small lists of our own keeping; the
// configuration adds to them.
#ifndef CORE_DNS_KNOWN_NAMES_H_
#define CORE_DNS_KNOWN_NAMES_H_

#include <span>

#include "absl/strings/string_view.h"

namespace netstack::dns {

// Host names of public DNS-over-HTTPS and DNS-over-TLS resolvers: with all
// that is below them, since many give every user a name there. Written down in
// 2026-11 from what the operators publish, not copied from a list and not
// complete: who wants all of them configures one of the blocklists that are
// kept for it. To be reviewed with every release.
std::span<const absl::string_view> KnownDohNames();

// Firefox asks for it before it turns its DNS over HTTPS on by default, and
// leaves it off when the answer is NXDOMAIN
// (support.mozilla.org/kb/canary-domain-use-application-dnsnet).
std::span<const absl::string_view> CanaryNames();

// iCloud Private Relay stays off when these are NXDOMAIN
// (developer.apple.com/icloud/prepare-your-network-for-icloud-private-relay).
std::span<const absl::string_view> PrivateRelayNames();

}  // namespace netstack::dns

#endif  // CORE_DNS_KNOWN_NAMES_H_

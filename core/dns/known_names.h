// Names that software uses to get around the network's DNS, and names by which
// a network says that it wants to be asked. Small lists of our own keeping; the
// configuration adds to them.
#ifndef CORE_DNS_KNOWN_NAMES_H_
#define CORE_DNS_KNOWN_NAMES_H_

#include <span>

#include "absl/strings/string_view.h"

namespace netstack::dns {

// Host names of public DNS-over-HTTPS and DNS-over-TLS resolvers, each with all
// that is below it, since many give every user or browser a name there: those
// that browsers and systems switch to by themselves, and those with many users.
// Not complete: who wants all of them configures one of the blocklists that are
// kept for it. Written down in 2026-11 and compared then, name by name, with
// AdGuard's "Known DNS Providers" (2026-07), Chromium's doh_provider_entry.cc
// and the "DoH-IP-blocklists" of active domains (2026-08); a name that none of
// the three has is not here. To be compared again with every release.
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

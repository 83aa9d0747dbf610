// From the configuration to what core/dns takes.
#ifndef CORE_ENGINE_DNS_OPTIONS_H_
#define CORE_ENGINE_DNS_OPTIONS_H_

#include <string>

#include "core/dns/policy.h"
#include "core/dns/resolver_options.h"
#include "core/engine/config.h"

namespace netstack {

// `config` has passed Validate().
DnsResolverOptions ToResolverOptions(const Config& config);
dns::PolicyOptions ToPolicyOptions(const Config& config);

// What the resolver calls it: the address, so that groups which name the same
// one share its connections and its health, and a mark of the rest where that
// is not all.
std::string UpstreamName(const DnsUpstreamConfig& upstream);

// The name of the group that is asked after `decision`.
std::string GroupOf(const DnsConfig& config,
                    const dns::PolicyDecision& decision);

}  // namespace netstack

#endif  // CORE_ENGINE_DNS_OPTIONS_H_

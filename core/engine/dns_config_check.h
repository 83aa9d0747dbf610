// The limits of DnsConfig; Validate() calls it.
#ifndef CORE_ENGINE_DNS_CONFIG_CHECK_H_
#define CORE_ENGINE_DNS_CONFIG_CHECK_H_

#include "core/engine/config_checker.h"
#include "core/engine/dns_config.h"

namespace netstack {

void CheckDns(const DnsConfig& dns, ConfigChecker& check);

}  // namespace netstack

#endif  // CORE_ENGINE_DNS_CONFIG_CHECK_H_

// The host's own resolvers.
#ifndef CORE_PLATFORM_SYSTEM_DNS_H_
#define CORE_PLATFORM_SYSTEM_DNS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/wire/ip_address.h"

namespace netstack {

// Loop thread only.
class SystemDns {
 public:
  virtual ~SystemDns() = default;
  // In the order of preference, with their ports; empty when the host names
  // none. Looks whether they have changed since the last call, which costs a
  // system call or two.
  virtual const std::vector<Endpoint>& Servers() = 0;
};

// resolv.conf(5), read again when the file was changed or replaced.
std::unique_ptr<SystemDns> NewSystemDns(
    const std::string& path = "/etc/resolv.conf");

// The "nameserver" lines of such a file, at most 8. Link-local addresses with
// a zone ("fe80::1%eth0") are left out: an Endpoint has no zone.
std::vector<Endpoint> ParseResolvConf(absl::string_view text);

}  // namespace netstack

#endif  // CORE_PLATFORM_SYSTEM_DNS_H_

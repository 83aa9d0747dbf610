// Blocklists: from files to what the loop thread looks names up in.
#ifndef CORE_ENGINE_DNS_LISTS_H_
#define CORE_ENGINE_DNS_LISTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "core/base/siphash.h"
#include "core/dns/blocklist.h"
#include "core/engine/dns_config.h"

namespace netstack {

// A list in use.
struct DnsListInfo {
  std::string name;
  std::string file;
  uint64_t names = 0;
  uint64_t exceptions = 0;
  uint64_t skipped_lines = 0;
};

// All lists, packed into one.
struct DnsLists {
  std::shared_ptr<const dns::Blocklist> list;  // null: none
  std::vector<DnsListInfo> infos;              // of those that could be read
  // What went wrong with the first that could not; the others are in `list`.
  absl::Status problem;
};

// Reads and packs; a second per million names or so. Any thread but the loop's.
DnsLists LoadDnsLists(const std::vector<DnsBlocklistConfig>& configs,
                      const SipHashKey& key);

}  // namespace netstack

#endif  // CORE_ENGINE_DNS_LISTS_H_

// The engine: reads packets from the TUN, decides what becomes of each, and
// owns everything that lives on the loop thread.
//
// Unless a method says otherwise it is called on the loop thread.
#ifndef CORE_ENGINE_ENGINE_H_
#define CORE_ENGINE_ENGINE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/engine/config.h"
#include "core/engine/dns_front.h"
#include "core/engine/observer.h"
#include "core/engine/stats.h"
#include "core/flow/flow_info.h"
#include "core/flow/flow_owner.h"
#include "core/platform/tun.h"

namespace netstack {

// Facts that hold while the stack runs.
struct EngineInfo {
  std::string tun_name;
  uint32_t tun_mtu = 0;
  bool offload = false;  // super-segments both ways
  uint32_t flow_limit = 0;
  bool ping_permitted = true;  // ping sockets, hence echoes of the apps
};

// The host is on another network.
struct NetworkChange {
  std::string interface;               // in use now; empty: not known
  std::vector<IpAddress> dns_servers;  // its own
  bool none = false;                   // no network at all
  bool reset_all = false;              // every TCP flow
};

struct NetworkHandled {
  uint64_t reset = 0;  // TCP flows
  uint64_t kept = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;

  virtual EngineInfo GetInfo() const = 0;
  virtual Stats GetStats() const = 0;

  // At most `limit` flows that match, with id > after_id, by ascending id.
  virtual std::vector<FlowInfo> ListFlows(const FlowFilter& filter,
                                          uint64_t after_id,
                                          size_t limit) const = 0;

  // Resets every matching flow on both sides; says how many.
  virtual size_t CloseFlows(const FlowFilter& filter) = 0;

  // Applies what can change while running. `config` has passed Validate();
  // fields that NeedsRestart() names are ignored.
  virtual void ApplyConfig(const Config& config) = 0;

  // Reads and writes another TUN from now on, and keeps every flow: what
  // waits in the old one is read first, what new flows are told of the MTU is
  // the new one's, and segments to the apps are cut to it. FAILED_PRECONDITION
  // when the old one has failed already, UNAVAILABLE when the new one cannot
  // be watched; then the old one stays in use.
  virtual absl::Status ReplaceTun(std::unique_ptr<Tun> tun) = 0;

  // Resets TCP flows whose connection would not use the same local address if
  // it were made now, gives UDP mappings new sockets, and has DNS find its
  // upstreams anew. Without any network nothing is done: the same one may come
  // back.
  virtual NetworkHandled OnNetworkChanged(const NetworkChange& change) = 0;
  // The device saves power: what is not urgent is done once a minute.
  virtual void SetPowerSaving(bool saving) = 0;
  // The answer to Observer::OnOwnerWanted(); an unknown owner is one, too.
  virtual void SetOwner(uint64_t flow_id, const FlowOwner& owner) = 0;

  // Observer::OnFlow is called only while this is true (default false), so
  // that nobody pays for changes that nobody watches.
  virtual void SetFlowChanges(bool wanted) = 0;

  // The same for Observer::OnDnsQuery.
  virtual void SetQueryLog(bool wanted) = 0;
  // A dry run: asks nobody, changes nothing, counts nothing.
  virtual DnsExplanation ExplainDns(const DnsExplainRequest& request) = 0;
  // Forgets kept answers of `name` (and of what is below it), or with an empty
  // name all; says how many.
  virtual size_t FlushDnsCache(const std::string& name, bool below) = 0;
  virtual DnsUpstreams ListDnsUpstreams() const = 0;
  // What DNS answered, to be carried over a restart of the stack: addresses
  // with their names and what is left of their time.
  using KnownAddresses = std::vector<dns::AddressPolicy::Known>;
  virtual KnownAddresses GetKnownAddresses() const = 0;
  virtual void RestoreKnownAddresses(const KnownAddresses& known) = 0;
  // Takes the place of the lists in use.
  virtual void SetDnsLists(DnsLists lists) = 0;

  // A protected TCP socket for what the service itself asks (Control D's API),
  // out of DNS's share of descriptors; -1 when there is none. It is to be given
  // back here.
  virtual int OpenSocket(bool v4) = 0;
  virtual void CloseSocket(int fd) = 0;
};

}  // namespace netstack

#endif  // CORE_ENGINE_ENGINE_H_

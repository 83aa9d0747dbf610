// Names, as the engine has them: the interceptor, the resolver and what they
// know about addresses, tied to the loop, the TUN and the configuration.
//
// Loop thread only.
#ifndef CORE_ENGINE_DNS_FRONT_H_
#define CORE_ENGINE_DNS_FRONT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/base/drop_reason.h"
#include "core/base/siphash.h"
#include "core/base/time.h"
#include "core/dial/dialer.h"
#include "core/dns/address_policy.h"
#include "core/dns/interceptor.h"
#include "core/dns/policy.h"
#include "core/dns/query_log.h"
#include "core/dns/resolver.h"
#include "core/engine/config.h"
#include "core/engine/dns_lists.h"
#include "core/forward/flow_advisor.h"
#include "core/forward/local_streams.h"
#include "core/forward/tun_writer.h"
#include "core/platform/poller.h"
#include "core/platform/sockets.h"
#include "core/platform/system_dns.h"
#include "core/wire/packet.h"
#include "core/wire/udp.h"

namespace netstack {

// What the engine counts about names.
struct DnsFrontStats {
  dns::Interceptor::Stats asked;
  DnsStats resolver;
  dns::AddressPolicy::Stats addresses;
};

// See DnsService.Explain.
struct DnsExplainRequest {
  std::string name;  // or
  Endpoint address;  // with the port 0: any
  uint16_t type = dns::type::kA;
  IpAddress app;
  Protocol protocol = Protocol::kTcp;
};
struct DnsExplanation {
  // Of a name.
  dns::DnsVerdict verdict = dns::DnsVerdict::kResolved;
  std::string matched;
  std::string group;
  std::vector<std::string> upstreams;
  // Of an address.
  bool permitted = false;
  std::string led_by;
  // Sentences for a person.
  std::vector<std::string> reasons;
};

struct DnsUpstreams {
  struct Upstream {
    DnsUpstreamInfo info;
    std::vector<std::string> groups;
  };
  std::vector<Upstream> upstreams;
  std::vector<DnsListInfo> lists;
};

// What goes outside.
class DnsFrontListener {
 public:
  virtual ~DnsFrontListener() = default;
  virtual void OnDnsQuery(const dns::DnsQueryInfo& query) = 0;
  virtual void OnUpstreamHealth(const std::string& upstream, bool up,
                                absl::string_view why) = 0;
  virtual void OnDnsFailedOpen(absl::string_view group) = 0;
  // A query of our own came in through the TUN; as often as it happens.
  virtual void OnDnsLoop() = 0;
};

// The resolvers of the network in use: those that the app names, else those
// that the system knows.
class NetworkDns final : public SystemDns {
 public:
  // `system` may be null, and else outlives this.
  explicit NetworkDns(SystemDns* system) : system_(system) {}
  void Use(const std::vector<IpAddress>& servers);
  const std::vector<Endpoint>& Servers() override;

 private:
  SystemDns* const system_;
  std::vector<Endpoint> named_;
};

class DnsFront final : public LocalStreams,
                       public FlowAdvisor,
                       public ResolverListener,
                       public dns::Interceptor::Sink {
 public:
  // All outlive it.
  struct Parts {
    Sockets* sockets = nullptr;
    Poller* poller = nullptr;
    SystemDns* system_dns = nullptr;  // null: only dns.resolver.system_servers
    TunWriter* writer = nullptr;
    DropCounters* drops = nullptr;
    DnsFrontListener* listener = nullptr;
  };

  // Descriptors that DNS has for itself, of `limit` that the process may have;
  // 0 while it is off.
  static uint32_t Share(const DnsConfig& config, uint32_t limit);

  DnsFront(const Parts& parts, const Config& config, const SipHashKey& secret,
           Instant now);
  ~DnsFront() override;

  // What can change while running: all of it. `share`: see Share().
  void Configure(const Config& config, uint32_t share, Instant now);
  // Replaced at once.
  void SetLists(DnsLists lists);
  const std::vector<DnsListInfo>& lists() const { return lists_.infos; }
  Dialer& dialer() { return dialer_; }
  dns::AddressPolicy& addresses() { return addresses_; }

  // Whether a datagram to `port` ends here.
  bool TakesUdp(uint16_t port) const { return config_.enabled && port == 53; }
  void OnDatagram(const Packet& packet, const UdpDatagram& datagram,
                  Instant now);

  void OnSocket(const PollEvent& event, Instant now);
  void OnTurn(Instant now);
  Instant next_deadline() const;
  // `servers`: the network's own; none: what the system says.
  void OnNetworkChanged(const std::vector<IpAddress>& servers, Instant now);
  void Shutdown(Instant now);

  void SetQueryLog(bool wanted) { interceptor_.SetLog(wanted); }
  size_t FlushCache(const std::string& name, bool below);
  DnsExplanation Explain(const DnsExplainRequest& request, Instant now);
  DnsUpstreams ListUpstreams(Instant now) const;
  DnsFrontStats stats() const;

  // LocalStreams.
  bool Takes(const FlowKey& key) const override {
    return config_.enabled && key.remote.port == 53;
  }
  int Connect(const FlowKey& key, Instant now) override;
  uint32_t max_half_open() const override { return max_streams_; }

  // FlowAdvisor.
  FlowAdvice Advise(const FlowKey& key, Instant now) override;

  // ResolverListener.
  void OnUpstreamHealth(absl::string_view upstream, bool up,
                        absl::string_view why) override;
  void OnFailedOpen(absl::string_view group) override;

  // Interceptor::Sink.
  void SendAnswer(const Endpoint& server, const Endpoint& app,
                  Bytes message) override;
  void OnQuery(const dns::DnsQueryInfo& query) override;

 private:
  dns::Interceptor::Options InterceptorOptions() const;
  // The way of a verdict about an address, for Advise() and for Explain().
  FlowAdvice Judge(const FlowKey& key, Instant now, bool counts,
                   std::vector<std::string>* reasons);
  void ExplainName(const DnsExplainRequest& request, DnsExplanation& out);
  bool IsQuicName(absl::string_view name) const;
  std::string ShownUpstream(absl::string_view name) const;

  const Parts parts_;
  const SipHashKey secret_;
  DnsConfig config_;
  uint32_t max_streams_ = 0;
  DnsLists lists_;
  dns::Policy policy_;  // of the resolver's parts, for Explain()
  std::vector<dns::DomainPattern> quic_names_;
  FlowName last_name_;  // of the flow before: often the same
  NetworkDns network_dns_;
  Dialer dialer_;       // the resolver's own share of descriptors
  dns::AddressPolicy addresses_;
  std::unique_ptr<Resolver> resolver_;
  dns::Interceptor interceptor_;
};

}  // namespace netstack

#endif  // CORE_ENGINE_DNS_FRONT_H_

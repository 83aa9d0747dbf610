// The loop: one thread's turn after turn of TUN, sockets, timers and posted
// work. It owns everything that lives on that thread.
#ifndef CORE_ENGINE_LOOP_H_
#define CORE_ENGINE_LOOP_H_

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "core/base/memory_reserve.h"
#include "core/base/mutex.h"
#include "core/dial/dialer.h"
#include "core/engine/config.h"
#include "core/engine/dispatcher.h"
#include "core/engine/dns_front.h"
#include "core/engine/engine.h"
#include "core/engine/observer.h"
#include "core/engine/process_search.h"
#include "core/engine/tun_reader.h"
#include "core/flow/buffer_pool.h"
#include "core/flow/flow_slots.h"
#include "core/flow/flow_source.h"
#include "core/forward/app_gate.h"
#include "core/forward/forward_listener.h"
#include "core/forward/icmp_forwarder.h"
#include "core/forward/icmp_responder.h"
#include "core/forward/reassembler.h"
#include "core/forward/tcp_forwarder.h"
#include "core/forward/tun_writer.h"
#include "core/forward/udp_forwarder.h"
#include "core/lwip/tcp_engine.h"
#include "core/platform/clock.h"
#include "core/platform/datagrams.h"
#include "core/platform/local_sockets.h"
#include "core/platform/poller.h"
#include "core/platform/sockets.h"
#include "core/platform/system_dns.h"
#include "core/platform/tun.h"

namespace netstack {

// The contact with the operating system; a test brings its own.
struct Platform {
  std::unique_ptr<Clock> clock;
  std::unique_ptr<Poller> poller;
  std::unique_ptr<Sockets> sockets;
  std::unique_ptr<Datagrams> datagrams;
  std::unique_ptr<Tun> tun;
  std::unique_ptr<SystemDns> system_dns{};  // null: the host's are not known
  // Null: nobody can be asked to protect sockets.
  std::unique_ptr<LocalSockets> local_sockets;
  // Null: there is no app in this process.
  std::function<int(int fd)> protect;
};

class Loop final : public Engine,
                   public ForwardListener,
                   public DnsFrontListener,
                   public DialListener {
 public:
  // Random bits that nobody else knows, fresh for every loop.
  struct Secrets {
    SipHashKey isn;
    SipHashKey hash;
    SipHashKey dns{};
  };

  // Any thread; the loop runs on the one that calls Run(). `config` has
  // passed Validate(). `observer` outlives the loop.
  static absl::StatusOr<std::unique_ptr<Loop>> Create(const Config& config,
                                                      Platform platform,
                                                      const Secrets& secrets,
                                                      Observer* observer);
  ~Loop() override;

  // Turns until Stop(), then resets every flow and closes the TUN. Called
  // once; only Stop() and Post() may follow.
  void Run();
  // One turn: waits at most until `deadline`. For tests, instead of Run().
  void Turn(Instant deadline);

  // Any thread. Ends Run() after the turn at hand.
  void Stop();
  // Any thread. Runs `fn` on the loop; false after Stop().
  bool Post(absl::AnyInvocable<void(Engine&)> fn);

  // Engine.
  EngineInfo GetInfo() const override;
  Stats GetStats() const override;
  std::vector<FlowInfo> ListFlows(const FlowFilter& filter, uint64_t after_id,
                                  size_t limit) const override;
  size_t CloseFlows(const FlowFilter& filter) override;
  void ApplyConfig(const Config& config) override;
  void SetFlowChanges(bool wanted) override;
  void SetQueryLog(bool wanted) override;
  DnsExplanation ExplainDns(const DnsExplainRequest& request) override;
  size_t FlushDnsCache(const std::string& name, bool below) override;
  DnsUpstreams ListDnsUpstreams() const override;
  KnownAddresses GetKnownAddresses() const override;
  void RestoreKnownAddresses(const KnownAddresses& known) override;
  void SetDnsLists(DnsLists lists) override;
  int OpenSocket(bool v4) override;
  void CloseSocket(int fd) override;
  absl::Status ReplaceTun(std::unique_ptr<Tun> tun) override;
  NetworkHandled OnNetworkChanged(const NetworkChange& change) override;
  void SetPowerSaving(bool saving) override;
  void SetOwner(uint64_t flow_id, const FlowOwner& owner) override;

  // ForwardListener.
  void OnFlow(FlowChange change, const FlowInfo& flow) override;
  void OnPressure(Pressure pressure) override;
  void OnPoisoned(uint64_t flow_id, absl::string_view why) override;
  AppDecision OnOpen(uint64_t flow_id, const FlowKey& key,
                     PollToken token) override;
  // DialListener.
  void OnProtectorDown() override;

  // DnsFrontListener.
  void OnDnsQuery(const dns::DnsQueryInfo& query) override;
  void OnUpstreamHealth(const std::string& upstream, bool up,
                        absl::string_view why) override;
  void OnDnsFailedOpen(absl::string_view group) override;
  void OnDnsLoop() override;

 private:
  Loop(const Config& config, Platform platform, const SipHashKey& hash_key,
       Observer* observer);
  absl::Status Init(const Secrets& secrets);
  void Release();
  void OnTun(const PollEvent& event);
  void ReadTun();
  void WatchTun();
  void Trim();
  bool ManyBlocksFreed() const;
  void Fail(int error);
  void RunPosted();
  uint32_t FlowLimit() const;
  uint32_t DnsShare() const;
  TcpForwarder::Options ForwarderOptions() const;
  UdpForwarder::Options UdpOptions() const;
  IcmpResponder::Options IcmpOptions() const;
  Reassembler::Options FragmentOptions() const;
  IcmpForwarder::Options EchoOptions() const;
  TcpEngine::Options EngineOptions(const SipHashKey& isn_key) const;
  void ApplyProtectors();
  void Protect(Dialer& dialer, const Dialer::Pool& pool, uint32_t first_index);
  void ApplyOwners();
  void Dispatch(const PollEvent& event);
  void FollowDecisions();
  void SearchOwner(uint64_t flow_id, const FlowKey& key,
                   const std::optional<SocketOwner>& known);
  void SweepOwners();
  // What the forwarders can match: they know no owners.
  FlowFilter WithoutOwners(const FlowFilter& filter) const;

  Config config_;
  Platform platform_;
  Observer* const observer_;
  Instant started_{};
  Instant now_{};

  TunStats tun_stats_;
  DropCounters drops_;
  LoopStats loop_stats_;
  // In the order of construction: each uses those above it.
  MemoryReserve reserve_;
  BufferPool pool_;
  FlowSlots slots_;
  TunWriter writer_;
  Dialer dialer_;
  IcmpResponder icmp_;
  Reassembler reassembler_;
  std::unique_ptr<DnsFront> dns_;
  std::set<int> lent_;  // by OpenSocket()
  std::unique_ptr<TcpEngine> tcp_engine_;
  std::unique_ptr<TcpForwarder> tcp_;
  std::unique_ptr<UdpForwarder> udp_;
  std::unique_ptr<IcmpForwarder> echoes_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<TunReader> reader_;
  std::vector<FlowSource*> flow_sources_;  // forwarders above

  // Owners of flows.
  AppGate app_gate_;
  std::unique_ptr<SocketOwners> socket_owners_;
  std::unique_ptr<ProcessSearch> processes_;
  size_t sweep_owners_at_ = 1024;
  std::optional<ProtectConfig> protect_applied_;
  std::string network_;  // the interface in use, as the app says
  bool power_saving_ = false;

  bool tun_more_ = false;       // the last batch was full
  bool tun_watched_for_write_ = false;
  bool udp_first_ = false;  // when the TUN was writable last
  bool failed_ = false;         // the TUN is gone
  Instant trim_at_ = kNever;    // when idle buffers go back to the system
  uint64_t blocks_at_trim_ = 0;  // lwIP's, then
  std::array<PollEvent, 256> events_;
  std::array<Instant, 8> last_told_{};  // by Pressure

  std::atomic<bool> stop_{false};
  Mutex mutex_;
  std::vector<absl::AnyInvocable<void(Engine&)>> posted_
      ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace netstack

#endif  // CORE_ENGINE_LOOP_H_

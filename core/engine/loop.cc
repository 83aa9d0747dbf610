#include "core/engine/loop.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/lwip/heap.h"
#include "core/platform/memory.h"

namespace netstack {
namespace {

// How long after the last traffic recycled buffers go back to the system.
constexpr Duration kTrimAfter = std::chrono::seconds(2);
// Freed blocks of lwIP's that make sweeping the heap worth its time.
constexpr uint64_t kWorthSweeping = 4096;
// Batches of the old TUN that are still read when it is replaced.
constexpr int kLastBatches = 16;
// Protected sockets that are held ready for those who cannot wait, even with
// protect.pool_size 0.
constexpr uint32_t kLeastDatagramPool = 4;
// Of timers that are not urgent, while the device saves power.
constexpr Duration kPowerSlack = std::chrono::seconds(60);
// The same pressure is told at most this often.
constexpr Duration kTellEvery = std::chrono::seconds(1);

#ifdef NDEBUG
constexpr bool kAbortOnLwipAssert = false;
#else
constexpr bool kAbortOnLwipAssert = true;
#endif

uint32_t ReservedDescriptors(const Config& config, uint32_t limit) {
  if (config.limits.reserved_descriptors != 0) {
    return config.limits.reserved_descriptors;
  }
  return std::clamp<uint32_t>(limit / 8, 32, 256);
}

EventType TypeOf(Pressure pressure) {
  switch (pressure) {
    case Pressure::kDescriptors:
      return EventType::kDescriptorsExhausted;
    case Pressure::kFlowLimit:
      return EventType::kFlowLimitReached;
    case Pressure::kHalfOpen:
      return EventType::kHalfOpenPressure;
    case Pressure::kMemory:
      return EventType::kMemoryPressure;
    case Pressure::kProtect:
      return EventType::kProtectFailed;
    case Pressure::kPingNotPermitted:
      return EventType::kPingNotPermitted;
    case Pressure::kProtectorDown:
      return EventType::kProtectorDown;
    case Pressure::kLoop:
      return EventType::kLoopDetected;
  }
  return EventType::kMemoryPressure;
}

const char* MessageOf(Pressure pressure) {
  switch (pressure) {
    case Pressure::kDescriptors:
      return "no file descriptor left for a new flow; it was reset";
    case Pressure::kFlowLimit:
      return "the flow limit is reached; new flows are reset";
    case Pressure::kHalfOpen:
      return "many dials are under way; only repeated SYNs are dialed";
    case Pressure::kMemory:
      return "the memory budget is used up; fast flows are held back";
    case Pressure::kProtect:
      return "a socket could not be protected; its flow was reset";
    case Pressure::kPingNotPermitted:
      return "an echo was refused: net.ipv4.ping_group_range does not "
             "include a group of ours";
    case Pressure::kProtectorDown:
      return "the app that protects sockets does not answer";
    case Pressure::kLoop:
      return "a packet of our own came in through the TUN: sockets are not "
             "protected (protect); its flow was refused";
  }
  return "";
}

}  // namespace

absl::StatusOr<std::unique_ptr<Loop>> Loop::Create(const Config& config,
                                                   Platform platform,
                                                   const Secrets& secrets,
                                                   Observer* observer) {
  std::unique_ptr<Loop> loop(
      new Loop(config, std::move(platform), secrets.hash, observer));
  if (absl::Status status = loop->Init(secrets); !status.ok()) return status;
  return loop;
}

Loop::Loop(const Config& config, Platform platform, const SipHashKey& hash_key,
           Observer* observer)
    : config_(config),
      platform_(std::move(platform)),
      observer_(observer),
      started_(platform_.clock->Now()),
      now_(started_),
      pool_(config.limits.memory_budget),
      slots_(0),
      writer_(platform_.tun.get(), &tun_stats_, &drops_),
      dialer_(platform_.sockets.get(), Dialer::Options{}),
      icmp_(&writer_, &drops_, IcmpOptions(), hash_key),
      reassembler_(&pool_, &drops_, FragmentOptions(), hash_key) {}

Loop::~Loop() { Release(); }

absl::Status Loop::Init(const Secrets& secrets) {
  absl::StatusOr<std::unique_ptr<TcpEngine>> engine =
      TcpEngine::Create(EngineOptions(secrets.isn), &pool_, &writer_);
  if (!engine.ok()) return engine.status();
  tcp_engine_ = *std::move(engine);

  DnsFront::Parts dns_parts;
  dns_parts.sockets = platform_.sockets.get();
  dns_parts.poller = platform_.poller.get();
  dns_parts.system_dns = platform_.system_dns.get();
  dns_parts.writer = &writer_;
  dns_parts.drops = &drops_;
  dns_parts.listener = this;
  dns_ = std::make_unique<DnsFront>(dns_parts, config_, secrets.dns, now_);

  TcpForwarder::Parts parts;
  parts.engine = tcp_engine_.get();
  parts.pool = &pool_;
  parts.slots = &slots_;
  parts.dialer = &dialer_;
  parts.dns_dialer = &dns_->dialer();
  parts.datagrams = platform_.datagrams.get();
  parts.poller = platform_.poller.get();
  parts.writer = &writer_;
  parts.icmp = &icmp_;
  parts.drops = &drops_;
  parts.listener = this;
  parts.local = dns_.get();
  parts.advisor = dns_.get();
  tcp_ = std::make_unique<TcpForwarder>(parts, ForwarderOptions(),
                                        secrets.hash, now_);
  UdpForwarder::Parts udp;
  udp.slots = &slots_;
  udp.dialer = &dialer_;
  udp.datagrams = platform_.datagrams.get();
  udp.poller = platform_.poller.get();
  udp.writer = &writer_;
  udp.icmp = &icmp_;
  udp.drops = &drops_;
  udp.listener = this;
  udp.advisor = dns_.get();
  udp_ = std::make_unique<UdpForwarder>(udp, UdpOptions(), secrets.hash, now_);
  IcmpForwarder::Parts echo;
  echo.slots = &slots_;
  echo.dialer = &dialer_;
  echo.datagrams = platform_.datagrams.get();
  echo.poller = platform_.poller.get();
  echo.writer = &writer_;
  echo.icmp = &icmp_;
  echo.drops = &drops_;
  echo.listener = this;
  echoes_ =
      std::make_unique<IcmpForwarder>(echo, EchoOptions(), secrets.hash);
  flow_sources_ = {tcp_.get(), udp_.get(), echoes_.get()};
  Dispatcher::Parts hops;
  hops.tcp = tcp_.get();
  hops.udp = udp_.get();
  hops.echoes = echoes_.get();
  hops.dns = dns_.get();
  hops.reassembler = &reassembler_;
  hops.icmp = &icmp_;
  hops.stats = &tun_stats_;
  hops.drops = &drops_;
  dispatcher_ = std::make_unique<Dispatcher>(config_.tun.prefixes, hops);
  reader_ = std::make_unique<TunReader>(platform_.tun.get(),
                                        dispatcher_.get(), &tun_stats_);
  ApplyConfig(config_);
  echoes_->Probe();  // protected like every socket
  const int error =
      platform_.poller->Add(platform_.tun->fd(), {PollToken::Kind::kTun, 0, 0},
                            Poller::Trigger::kLevelRead);
  if (error != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot watch the TUN: ",
                     std::generic_category().message(-error)));
  }
  return absl::OkStatus();
}

void Loop::Run() {
  while (!stop_.load(std::memory_order_acquire)) Turn(kNever);
  now_ = platform_.clock->Now();
  tcp_->Shutdown(now_);
  echoes_->Shutdown(now_);
  udp_->Shutdown(now_);
  RunPosted();
  {
    MutexLock lock(mutex_);
    closed_ = true;
    posted_.clear();
  }
  Release();
}

// Closes what the loop holds open. The poller stays: another thread may be
// about to wake it.
void Loop::Release() {
  if (tcp_ == nullptr) return;
  dns_->Shutdown(now_);
  processes_.reset();
  tcp_->Shutdown(now_);
  echoes_->Shutdown(now_);
  udp_->Shutdown(now_);
  reader_.reset();
  dispatcher_.reset();
  flow_sources_.clear();
  echoes_.reset();
  udp_.reset();
  tcp_.reset();
  dns_.reset();
  tcp_engine_.reset();
  dialer_.SetAppProtector(nullptr, {}, nullptr);
  platform_.tun.reset();
}

void Loop::Turn(Instant deadline) {
  if (tun_more_) {
    deadline = now_;
  } else {
    deadline = std::min({deadline, tcp_->next_deadline(now_),
                         dns_->next_deadline(), echoes_->next_deadline(),
                         udp_->next_deadline(now_),
                         reassembler_.next_deadline(), trim_at_,
                         dialer_.next_deadline(now_),
                         dns_->dialer().next_deadline(now_),
                         app_gate_.next_deadline(now_)});
  }
  const size_t n = platform_.poller->Wait(now_, deadline, events_);
  now_ = platform_.clock->Now();
  const Instant begin = now_;
  ++loop_stats_.wakeups;
  dialer_.set_now(now_);
  dns_->dialer().set_now(now_);
  RunPosted();
  for (size_t i = 0; i < n; ++i) Dispatch(events_[i]);
  if (tun_more_) ReadTun();
  for (Dialer* dialer : {&dialer_, &dns_->dialer()}) {
    dialer->OnTurn(now_);
    while (const auto event = dialer->TakeEvent()) Dispatch(*event);
  }
  FollowDecisions();
  // Before TCP, which carries the answers over its streams.
  dns_->OnTurn(now_);
  tcp_->OnTurn(now_);
  echoes_->OnTurn(now_);
  udp_->OnTurn(now_);
  reassembler_.Expire(now_, [this](const Packet& first) {
    (void)icmp_.Answer(IcmpError::kReassemblyTimeExceeded, first, now_);
  });
  const bool memory_short = !reserve_.Refill();
  tcp_->set_memory_short(memory_short);
  udp_->set_memory_short(memory_short);
  echoes_->set_memory_short(memory_short);
  reassembler_.set_memory_short(memory_short);
  if (writer_.blocked() != tun_watched_for_write_) WatchTun();
  if (trim_at_ == kNever) {
    // Traffic, or flows that timers ended.
    if (n != 0 || ManyBlocksFreed()) trim_at_ = now_ + kTrimAfter;
  } else if (n == 0 && now_ >= trim_at_) {
    Trim();
  }
  ++loop_stats_.turns;
  const Duration took = platform_.clock->Now() - begin;
  loop_stats_.busy += took;
  loop_stats_.longest_turn = std::max(loop_stats_.longest_turn, took);
}

void Loop::Dispatch(const PollEvent& event) {
  switch (event.token.kind) {
    case PollToken::Kind::kWake:
      break;
    case PollToken::Kind::kTun:
      OnTun(event);
      break;
    case PollToken::Kind::kTcpFlow:
      tcp_->OnSocket(event, now_);
      break;
    case PollToken::Kind::kProtect:
      // Each knows its own by the index.
      dialer_.OnPoll(event, now_);
      dns_->dialer().OnPoll(event, now_);
      break;
    case PollToken::Kind::kDns:
    case PollToken::Kind::kDnsStream:
      dns_->OnSocket(event, now_);
      break;
    case PollToken::Kind::kUdp:
      udp_->OnSocket(event, now_);
      break;
    case PollToken::Kind::kEcho:
      echoes_->OnSocket(event, now_);
      break;
  }
}

// Flows whose owner is known by now go, or do not.
void Loop::FollowDecisions() {
  while (const auto decided = app_gate_.Take(now_)) {
    if (decided->token.kind == PollToken::Kind::kTcpFlow) {
      tcp_->OnDecided(decided->token, decided->block, now_);
    } else if (decided->token.kind == PollToken::Kind::kUdp) {
      udp_->OnDecided(decided->token, decided->flow_id, decided->block, now_);
    }
  }
  if (app_gate_.size() >= sweep_owners_at_) SweepOwners();
}

// Traffic pauses: what it needed goes back. The heap is swept only when many
// flows have gone, since that takes a while.
void Loop::Trim() {
  trim_at_ = kNever;
  pool_.Trim();
  TrimLwipHeap();
  udp_->Trim();
  reassembler_.Trim();
  if (ManyBlocksFreed()) ReturnFreeMemory();
  blocks_at_trim_ = GetLwipHeapStats().live;
}

bool Loop::ManyBlocksFreed() const {
  return GetLwipHeapStats().live + kWorthSweeping <= blocks_at_trim_;
}

void Loop::OnTun(const PollEvent& event) {
  if (event.writable && writer_.blocked()) {
    // By turns, since whoever is first may fill the TUN again: a download must
    // not silence a call.
    writer_.Unblock();
    udp_first_ = !udp_first_;
    if (udp_first_) udp_->OnTunWritable(now_);
    if (!writer_.blocked()) tcp_->OnTunWritable(now_);
    if (!udp_first_) udp_->OnTunWritable(now_);
  }
  if (event.readable || event.error) ReadTun();
}

void Loop::ReadTun() {
  tun_more_ = false;
  if (failed_) return;
  dispatcher_->set_now(now_);
  const TunReader::Result result = reader_->ReadBatch();
  udp_->Flush(now_);
  switch (result) {
    case TunReader::Result::kDrained:
      return;
    case TunReader::Result::kMore:
      tun_more_ = true;
      return;
    case TunReader::Result::kFailed:
      Fail(reader_->error());
      return;
  }
}

// A full TUN is watched for writing too; level-triggered, so only then.
void Loop::WatchTun() {
  if (failed_) return;
  tun_watched_for_write_ = writer_.blocked();
  (void)platform_.poller->Modify(platform_.tun->fd(),
                                 {PollToken::Kind::kTun, 0, 0},
                                 tun_watched_for_write_
                                     ? Poller::Trigger::kLevelReadWrite
                                     : Poller::Trigger::kLevelRead);
}

// The TUN is gone, and with it everybody we talk to. The loop goes on
// answering until it is stopped.
void Loop::Fail(int error) {
  failed_ = true;
  (void)platform_.poller->Remove(platform_.tun->fd());
  tcp_->Shutdown(now_);
  echoes_->Shutdown(now_);
  udp_->Shutdown(now_);
  observer_->OnFailed(absl::UnavailableError(
      absl::StrCat("the TUN ", platform_.tun->name(), " is gone: ",
                   std::generic_category().message(error))));
}

// --- other threads ----------------------------------------------------------

void Loop::Stop() {
  stop_.store(true, std::memory_order_release);
  platform_.poller->Wake();
}

bool Loop::Post(absl::AnyInvocable<void(Engine&)> fn) {
  {
    MutexLock lock(mutex_);
    if (closed_ || stop_.load(std::memory_order_acquire)) return false;
    posted_.push_back(std::move(fn));
  }
  platform_.poller->Wake();
  return true;
}

void Loop::RunPosted() {
  std::vector<absl::AnyInvocable<void(Engine&)>> work;
  {
    MutexLock lock(mutex_);
    work.swap(posted_);
  }
  for (auto& fn : work) fn(*this);
}

// --- Engine -----------------------------------------------------------------

uint32_t Loop::DnsShare() const {
  return DnsFront::Share(config_.dns, platform_.sockets->DescriptorLimit());
}

uint32_t Loop::FlowLimit() const {
  const uint32_t descriptors = platform_.sockets->DescriptorLimit();
  const uint32_t reserved =
      ReservedDescriptors(config_, descriptors) + DnsShare();
  const uint32_t most = descriptors > reserved ? descriptors - reserved : 1;
  const uint32_t wanted = config_.limits.max_flows;
  return wanted == 0 ? most : std::min(wanted, most);
}

TcpForwarder::Options Loop::ForwarderOptions() const {
  TcpForwarder::Options o;
  o.dial_timeout = config_.tcp.dial_timeout;
  o.established_idle = config_.tcp.established_idle;
  o.transitory_idle = config_.tcp.transitory_idle;
  o.time_wait = config_.tcp.time_wait;
  o.buffer_floor = config_.tcp.buffer_floor;
  o.buffer_max = config_.tcp.buffer_max;
  o.gate.max_half_open = config_.tcp.max_half_open;
  o.gate.max_per_destination = config_.tcp.max_half_open_per_destination;
  if (power_saving_) o.idle_slack = kPowerSlack;
  return o;
}

UdpForwarder::Options Loop::UdpOptions() const { return config_.udp; }

IcmpResponder::Options Loop::IcmpOptions() const {
  IcmpResponder::Options o;
  o.per_second = config_.limits.icmp_errors_per_second;
  o.burst = config_.limits.icmp_error_burst;
  o.per_path = config_.limits.icmp_errors_per_path;
  o.gateway = {config_.icmp.gateway_v4, config_.icmp.gateway_v6};
  return o;
}

IcmpForwarder::Options Loop::EchoOptions() const {
  IcmpForwarder::Options o;
  o.idle = config_.icmp.idle_timeout;
  o.max_sockets = config_.icmp.max_sockets;
  return o;
}

Reassembler::Options Loop::FragmentOptions() const {
  Reassembler::Options o;
  o.max_bytes = config_.fragments.max_bytes;
  o.max_datagrams = config_.fragments.max_datagrams;
  o.max_fragments = config_.fragments.max_per_datagram;
  o.timeout_v4 = config_.fragments.timeout_v4;
  o.timeout_v6 = config_.fragments.timeout_v6;
  return o;
}

TcpEngine::Options Loop::EngineOptions(const SipHashKey& isn_key) const {
  TcpEngine::Options o;
  o.mtu = platform_.tun->mtu();
  o.rx_floor = config_.tcp.buffer_floor;
  o.rx_max = config_.tcp.buffer_max;
  o.isn_key = isn_key;
  o.abort_on_assert = kAbortOnLwipAssert;
  return o;
}

void Loop::ApplyProtectors() {
  const uint32_t size = config_.protect.pool_size;
  const uint32_t datagrams = std::max(size, kLeastDatagramPool);
  Protect(dialer_, {size, datagrams, 1}, 0);
  // Here TCP cannot wait either: curl asks for sockets and connects them.
  Protect(dns_->dialer(), {datagrams, datagrams, 0},
          AppProtector::kConnections);
}

// The same protection for every dialer; `first_index` keeps their connections
// to the app apart.
void Loop::Protect(Dialer& dialer, const Dialer::Pool& pool,
                   uint32_t first_index) {
  const ProtectConfig& protect = config_.protect;
  Sockets* sockets = platform_.sockets.get();
  std::vector<std::unique_ptr<Protector>> protectors;
  if (protect.so_mark != 0) {
    protectors.push_back(
        std::make_unique<MarkProtector>(sockets, protect.so_mark));
  }
  const std::string& device =
      protect.follow_network && !network_.empty() ? network_
                                                  : protect.bind_to_device;
  if (!device.empty()) {
    protectors.push_back(std::make_unique<DeviceProtector>(sockets, device));
  }
  if (platform_.protect) {
    protectors.push_back(
        std::make_unique<CallbackProtector>(platform_.protect));
  }
  dialer.SetProtectors(std::move(protectors));
  if (protect.app_socket.empty() || platform_.local_sockets == nullptr) {
    dialer.SetAppProtector(nullptr, {}, this);
    return;
  }
  AppProtector::Options options;
  options.path = protect.app_socket;
  options.protocol = protect.app_protocol;
  options.uid = protect.app_uid;
  options.timeout = protect.timeout;
  options.first_index = first_index;
  dialer.SetAppProtector(
      std::make_unique<AppProtector>(platform_.local_sockets.get(),
                                     platform_.poller.get(), &dialer,
                                     std::move(options)),
      pool, this);
}

void Loop::ApplyOwners() {
  const OwnerSource source = config_.owners.source;
  AppGate::Options options;
  options.enabled = source != OwnerSource::kOff;
  options.rules = config_.apps.rules;
  options.block_unknown = config_.apps.block_unknown;
  options.timeout = config_.owners.timeout;
  if (source == OwnerSource::kSystem && processes_ == nullptr) {
    socket_owners_ = NewSocketOwners();
    processes_ = std::make_unique<ProcessSearch>(
        NewProcessFinder(), [this](uint64_t flow_id, const FlowOwner& owner) {
          Post([flow_id, owner](Engine& e) { e.SetOwner(flow_id, owner); });
        });
  }
  app_gate_.Configure(
      options,
      source == OwnerSource::kSystem ? socket_owners_.get() : nullptr,
      [this](uint64_t flow_id, const FlowKey& key,
             const std::optional<SocketOwner>& known) {
        SearchOwner(flow_id, key, known);
      });
}

void Loop::SearchOwner(uint64_t flow_id, const FlowKey& key,
                       const std::optional<SocketOwner>& known) {
  if (config_.owners.source == OwnerSource::kApp) {
    observer_->OnOwnerWanted(flow_id, key);
    return;
  }
  if (known && processes_->Start(flow_id, *known)) return;
  FlowOwner owner;
  if (known) owner.uid = known->uid;
  app_gate_.Answer(flow_id, owner);
}

void Loop::SweepOwners() {
  absl::flat_hash_set<uint64_t> live;
  for (const FlowSource* source : flow_sources_) {
    for (const FlowInfo& f :
         source->List({}, 0, std::numeric_limits<size_t>::max(), now_)) {
      live.insert(f.id);
    }
  }
  app_gate_.Sweep(live);
  sweep_owners_at_ = std::max<size_t>(1024, 2 * app_gate_.size());
}

void Loop::ApplyConfig(const Config& config) {
  const TunConfig tun = std::move(config_.tun);
  config_ = config;
  config_.tun = tun;  // restart only
  pool_.set_budget(config_.limits.memory_budget);
  slots_.set_limit(FlowLimit());
  icmp_.Configure(IcmpOptions());
  reassembler_.Configure(FragmentOptions());
  echoes_->Configure(EchoOptions());
  Dialer::Options dial;
  dial.max_sockets = FlowLimit();
  dial.user_timeout = config_.tcp.host_user_timeout;
  dialer_.Configure(dial);
  // A reload that changes nothing here leaves connections and pool alone.
  if (!protect_applied_ || !(*protect_applied_ == config_.protect)) {
    protect_applied_ = config_.protect;
    ApplyProtectors();
  }
  ApplyOwners();
  dns_->Configure(config_, DnsShare(), now_);
  tcp_engine_->Configure(EngineOptions({}));
  tcp_->Configure(ForwarderOptions());
  udp_->Configure(UdpOptions(), now_);
}

absl::Status Loop::ReplaceTun(std::unique_ptr<Tun> tun) {
  if (failed_) {
    return absl::FailedPreconditionError(
        "the TUN in use has failed and its flows are gone");
  }
  const int error = platform_.poller->Add(
      tun->fd(), {PollToken::Kind::kTun, 0, 0}, Poller::Trigger::kLevelRead);
  if (error != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot watch the new TUN: ",
                     std::generic_category().message(-error)));
  }
  // What the apps sent before the new TUN stood. Its routes lead nowhere near
  // the old one any more, so this ends soon; what is left is sent again.
  dispatcher_->set_now(now_);
  for (int batch = 0; batch < kLastBatches; ++batch) {
    if (reader_->ReadBatch() != TunReader::Result::kMore) break;
  }
  (void)platform_.poller->Remove(platform_.tun->fd());
  writer_.SetTun(tun.get());
  reader_->SetTun(tun.get());
  std::swap(platform_.tun, tun);
  tcp_engine_->Configure(EngineOptions({}));
  tun_more_ = false;
  tun_watched_for_write_ = false;
  // Whoever waited for the old one finds room in the new one.
  if (writer_.blocked()) tcp_->OnTunWritable(now_);
  observer_->OnEvent(
      {EventType::kTunReplaced,
       absl::StrCat("The stack reads ", platform_.tun->name(), ", MTU ",
                    platform_.tun->mtu(),
                    platform_.tun->offload() ? ", super-segments." : ".",
                    " before: ", tun->name(), "."),
       0});
  return absl::OkStatus();
}

NetworkHandled Loop::OnNetworkChanged(const NetworkChange& change) {
  network_ = change.interface;
  if (config_.protect.follow_network) ApplyProtectors();
  NetworkHandled handled;
  if (change.none && !change.reset_all) return handled;
  // One socket of each family asks for all flows.
  int probes[2] = {-1, -1};
  const auto moved = [&](const Endpoint& local, const Endpoint& remote) {
    if (change.reset_all) return true;
    const std::optional<IpAddress> now = dialer_.SourceTowards(
        remote, &probes[remote.ip.IsV4() ? 0 : 1]);
    return now != local.ip;
  };
  const TcpForwarder::Moved tcp = tcp_->OnNetworkChanged(moved, now_);
  for (const int probe : probes) {
    if (probe >= 0) dialer_.Close(probe, false);
  }
  const bool bound = config_.protect.follow_network;
  (void)udp_->OnNetworkChanged(bound, now_);
  // The next echo of each has a socket of the network in use.
  if (bound) (void)echoes_->Close({}, now_);
  dns_->OnNetworkChanged(change.dns_servers, now_);
  handled.reset = tcp.reset;
  handled.kept = tcp.kept;
  observer_->OnEvent(
      {EventType::kNetworkChanged,
       absl::StrCat("The network in use is ",
                    change.interface.empty() ? "another one"
                                             : change.interface,
                    "; ", tcp.reset, " TCP flows were reset, ", tcp.kept,
                    " stay."),
       0});
  return handled;
}

void Loop::SetPowerSaving(bool saving) {
  power_saving_ = saving;
  tcp_->Configure(ForwarderOptions());
}

void Loop::SetOwner(uint64_t flow_id, const FlowOwner& owner) {
  app_gate_.Answer(flow_id, owner);
}

EngineInfo Loop::GetInfo() const {
  EngineInfo info;
  info.tun_name = platform_.tun->name();
  info.tun_mtu = platform_.tun->mtu();
  info.offload = platform_.tun->offload();
  info.flow_limit = FlowLimit();
  info.ping_permitted = echoes_->permitted();
  return info;
}

Stats Loop::GetStats() const {
  Stats s;
  s.uptime = now_ - started_;
  s.tun = tun_stats_;
  s.tcp = tcp_->stats();
  s.tcp.icmp_errors_sent = icmp_.sent();
  s.udp = udp_->stats();
  s.fragments = reassembler_.stats();
  s.icmp = echoes_->stats();
  s.dial = dialer_.stats();
  s.memory.buffered = pool_.used();
  s.memory.buffered_peak = pool_.peak();
  s.memory.budget = pool_.budget();
  s.memory.pressure = tcp_->memory_waits();
  s.memory.flow_records = tcp_->record_memory() + udp_->record_memory();
  s.memory.allocation_failures =
      pool_.allocation_failures() + tcp_engine_->allocation_failures() +
      reserve_.given();
  s.loop = loop_stats_;
  s.dns = dns_->stats();
  s.flow_limit = FlowLimit();
  s.descriptors_used = dialer_.in_use();
  s.drops = drops_.packets();
  return s;
}

std::vector<FlowInfo> Loop::ListFlows(const FlowFilter& filter,
                                      uint64_t after_id, size_t limit) const {
  const FlowFilter plain = WithoutOwners(filter);
  std::vector<FlowInfo> infos;
  for (const FlowSource* source : flow_sources_) {
    std::vector<FlowInfo> more = source->List(plain, after_id, limit, now_);
    std::vector<FlowInfo> merged;
    merged.reserve(infos.size() + more.size());
    std::merge(std::make_move_iterator(infos.begin()),
               std::make_move_iterator(infos.end()),
               std::make_move_iterator(more.begin()),
               std::make_move_iterator(more.end()),
               std::back_inserter(merged),
               [](const FlowInfo& a, const FlowInfo& b) { return a.id < b.id; });
    infos = std::move(merged);
    if (infos.size() > limit) infos.resize(limit);
  }
  for (FlowInfo& info : infos) {
    if (const FlowOwner* owner = app_gate_.OwnerOf(info.id)) {
      info.owner = *owner;
    }
  }
  return infos;
}

FlowFilter Loop::WithoutOwners(const FlowFilter& filter) const {
  FlowFilter plain = filter;
  if (!filter.uid && filter.package.empty()) return plain;
  plain.ids = std::make_shared<const absl::flat_hash_set<uint64_t>>(
      app_gate_.Matching(filter.uid, filter.package));
  plain.uid.reset();
  plain.package.clear();
  return plain;
}

size_t Loop::CloseFlows(const FlowFilter& filter) {
  size_t closed = 0;
  const FlowFilter plain = WithoutOwners(filter);
  for (FlowSource* source : flow_sources_) closed += source->Close(plain, now_);
  return closed;
}

void Loop::SetQueryLog(bool wanted) { dns_->SetQueryLog(wanted); }

DnsExplanation Loop::ExplainDns(const DnsExplainRequest& request) {
  return dns_->Explain(request, now_);
}

size_t Loop::FlushDnsCache(const std::string& name, bool below) {
  return dns_->FlushCache(name, below);
}

DnsUpstreams Loop::ListDnsUpstreams() const {
  return dns_->ListUpstreams(now_);
}

Loop::KnownAddresses Loop::GetKnownAddresses() const {
  return dns_->addresses().Snapshot(now_);
}

void Loop::RestoreKnownAddresses(const KnownAddresses& known) {
  dns_->addresses().Restore(known, now_);
}

void Loop::SetDnsLists(DnsLists lists) {
  observer_->OnEvent({EventType::kListsLoaded,
                      absl::StrCat(lists.infos.size(),
                                   " blocklists are in use, with ",
                                   lists.list ? lists.list->size() : 0,
                                   " different names."),
                      0});
  dns_->SetLists(std::move(lists));
}

int Loop::OpenSocket(bool v4) {
  const int fd = dns_->dialer().Open(SocketKind::kTcp, v4).fd;
  if (fd >= 0) lent_.insert(fd);
  return fd;
}

void Loop::CloseSocket(int fd) {
  if (lent_.erase(fd) == 1) {
    dns_->dialer().Close(fd, false);
  } else {
    platform_.sockets->Close(fd, false);  // of a stack before this one
  }
}

void Loop::SetFlowChanges(bool wanted) {
  for (FlowSource* source : flow_sources_) source->SetFlowChanges(wanted);
}

// --- ForwardListener --------------------------------------------------------

void Loop::OnFlow(FlowChange change, const FlowInfo& flow) {
  const FlowOwner* owner = app_gate_.OwnerOf(flow.id);
  if (owner == nullptr) return observer_->OnFlow(change, flow);
  FlowInfo owned = flow;
  owned.owner = *owner;
  observer_->OnFlow(change, owned);
}

void Loop::OnDnsQuery(const dns::DnsQueryInfo& query) {
  observer_->OnDnsQuery(query);
}

void Loop::OnUpstreamHealth(const std::string& upstream, bool up,
                            absl::string_view why) {
  observer_->OnEvent(
      {up ? EventType::kUpstreamUp : EventType::kUpstreamDown,
       up ? absl::StrCat("The DNS upstream ", upstream, " answers again.")
          : absl::StrCat("The DNS upstream ", upstream,
                         " does not answer: ", why),
       0});
}

void Loop::OnDnsFailedOpen(absl::string_view group) {
  observer_->OnEvent({EventType::kFailOpen,
                      absl::StrCat("No upstream of ", group,
                                   " answers: the system's resolvers are "
                                   "asked, in the clear."),
                      0});
}

void Loop::OnDnsLoop() { OnPressure(Pressure::kLoop); }

void Loop::OnPressure(Pressure pressure) {
  Instant& last = last_told_[static_cast<size_t>(pressure)];
  if (last != Instant{} && now_ - last < kTellEvery) return;
  last = now_;
  observer_->OnEvent({TypeOf(pressure), MessageOf(pressure), 0});
}

AppDecision Loop::OnOpen(uint64_t flow_id, const FlowKey& key,
                         PollToken token) {
  return app_gate_.OnOpen(flow_id, key, token, now_);
}

void Loop::OnProtectorDown() { OnPressure(Pressure::kProtectorDown); }

void Loop::OnPoisoned(uint64_t flow_id, absl::string_view why) {
  observer_->OnEvent({EventType::kFlowPoisoned,
                      absl::StrCat("flow ", flow_id,
                                   " was reset: lwIP asserts \"", why, "\""),
                      flow_id});
}

}  // namespace netstack

#include "server/stack.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/util/message_differencer.h"
#include "server/convert.h"

namespace netstack::server {
namespace {

constexpr v1::TrafficKind kSupported[] = {
    v1::TRAFFIC_KIND_TCP,
    v1::TRAFFIC_KIND_UDP,
    v1::TRAFFIC_KIND_ICMP,
    v1::TRAFFIC_KIND_DNS,
    v1::TRAFFIC_KIND_FRAGMENTS};

// What brings echoes back; a group of our own would do as well.
constexpr char kPingAdvice[] =
    "sysctl -w net.ipv4.ping_group_range='0 2147483647'";

// Greater for each run, also of the next process: microseconds since 1970.
uint64_t NextEpoch(uint64_t last) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto us =
      std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  return std::max(static_cast<uint64_t>(us), last + 1);
}

Duration Since(std::chrono::steady_clock::time_point then) {
  return std::chrono::steady_clock::now() - then;
}

// `paths` without those that `waiting` names.
std::vector<std::string> Without(std::vector<std::string> paths,
                                 const std::vector<std::string>& waiting) {
  std::erase_if(paths, [&](const std::string& p) {
    return std::find(waiting.begin(), waiting.end(), p) != waiting.end();
  });
  return paths;
}

// Control D's sockets are the engine's: protected like all others.
ControlDSockets SocketsOf(Stack* stack) {
  ControlDSockets out;
  out.open = [stack](bool v4) {
    auto promise = std::make_shared<std::promise<int>>();
    std::future<int> fd = promise->get_future();
    stack->Ask(
        [v4](Engine& engine, FlowHub&) { return engine.OpenSocket(v4); },
        [promise](absl::StatusOr<int> opened, uint64_t) {
          promise->set_value(opened.value_or(-1));
        });
    return fd.get();
  };
  out.close = [stack](int fd) {
    stack->Ask(
        [fd](Engine& engine, FlowHub&) {
          engine.CloseSocket(fd);
          return true;
        },
        // Without an engine nobody counts it any more.
        [fd](const absl::StatusOr<bool>& closed, uint64_t) {
          if (!closed.ok()) close(fd);
        });
  };
  return out;
}

// Paths of what `wanted` changes only at the next start.
std::vector<std::string> Waiting(const Config& core,
                                 const ControlDConfig& control_d,
                                 const CheckedConfig& wanted) {
  std::vector<std::string> out = NeedsRestart(core, wanted.core);
  std::vector<std::string> more =
      ControlDDifference(control_d, wanted.control_d);
  out.insert(out.end(), std::make_move_iterator(more.begin()),
             std::make_move_iterator(more.end()));
  return out;
}

}  // namespace

Stack::Stack(CheckedConfig config, Factory factory, EventLog* events,
             Worker* worker,
             std::function<void(const CheckedConfig&)> control_changed)
    : factory_(std::move(factory)),
      events_(events),
      worker_(worker),
      control_changed_(std::move(control_changed)),
      service_started_at_(Now()),
      config_(std::move(config)),
      supervisor_("supervisor"),
      control_d_(SocketsOf(this), [this] { ControlDChanged(); }, events) {}

Stack::~Stack() { Shutdown(); }

void Stack::SetDescriptors(Descriptors descriptors) {
  MutexLock lock(mu_);
  descriptors_ = std::move(descriptors);
}

absl::Status Stack::TakeDescriptor(const v1::TunHandle& handle,
                                   TunConfig* tun) {
  Descriptors from;
  {
    MutexLock lock(mu_);
    from = descriptors_;
  }
  if (handle.has_mtu() && (handle.mtu() < 1280 || handle.mtu() > 65535)) {
    return InvalidFields("INVALID_REQUEST",
                         {{"tun.mtu", absl::StrCat(handle.mtu(),
                                                   " is not between 1280 and "
                                                   "65535.")}});
  }
  switch (handle.source_case()) {
    case v1::TunHandle::kNonce: {
      OwnerIsBack();
      if (!from.take) {
        return Refusal(absl::StatusCode::kNotFound, "DESCRIPTOR_NOT_FOUND",
                       "This service takes no descriptors.");
      }
      absl::StatusOr<int> fd = from.take(handle.nonce());
      if (!fd.ok()) return fd.status();
      tun->fd = *fd;
      break;
    }
    case v1::TunHandle::kFd:
      if (!from.embedded) {
        return Precondition("NOT_SAME_PROCESS", "TUN_STATE", "tun",
                            "A descriptor's number means nothing in another "
                            "process; hand it over on the descriptor socket.");
      }
      if (handle.fd() < 0) {
        return InvalidFields("INVALID_REQUEST",
                             {{"tun.fd", "not a descriptor."}});
      }
      tun->fd = handle.fd();
      if (from.forget) from.forget();
      break;
    case v1::TunHandle::SOURCE_NOT_SET:
      if (from.forget) from.forget();
      break;
  }
  if (handle.has_mtu()) {
    tun->mtu = handle.mtu();
    tun->ask_mtu = false;
  }
  return absl::OkStatus();
}

void Stack::Start(v1::StartRequest request, Done<absl::Status> done) {
  supervisor_.Post(
      [this, request = std::move(request), done = std::move(done)]() mutable {
        StartNow(request, std::move(done));
      });
}

void Stack::StartNow(const v1::StartRequest& request,
                     Done<absl::Status> done) {
  CheckedConfig checked;
  uint64_t epoch = 0;
  bool running = false;
  {
    MutexLock lock(mu_);
    running = state_ == v1::STACK_STATE_RUNNING;
    if (!running) {
      state_ = v1::STACK_STATE_STARTING;
      failure_.clear();
      checked = config_;
      epoch = run_.epoch = NextEpoch(run_.epoch);
    }
  }
  if (running) {
    done(Precondition("STACK_RUNNING", "STACK_STATE", "stack",
                      "The stack is already running."));
    return;
  }
  events_->SetEpoch(epoch);
  control_d_.Begin(checked.control_d);
  const Config config = EngineConfig(checked);
  // Not among what NeedsRestart() compares: it came with this request.
  Config with_tun = config;
  const absl::Status taken = TakeDescriptor(request.tun(), &with_tun.tun);
  absl::StatusOr<std::unique_ptr<Runtime>> made =
      taken.ok() ? factory_(with_tun, this) : taken;
  absl::StatusOr<EngineInfo> info =
      made.ok() ? (*made)->Call([known = TakeKnownAddresses()](Engine& e) {
        e.RestoreKnownAddresses(known);
        return e.GetInfo();
      })
                : made.status();
  if (!info.ok()) {
    if (made.ok()) (*made)->Stop();
    {
      MutexLock lock(mu_);
      state_ = v1::STACK_STATE_FAILED;
      failure_ = std::string(info.status().message());
    }
    events_->Add(v1::EVENT_TYPE_STACK_FAILED,
                 std::string(info.status().message()));
    done(taken.ok() ? StartRefused(info.status()) : taken);
    return;
  }
  {
    MutexLock lock(mu_);
    run_.runtime = std::move(*made);
    state_ = v1::STACK_STATE_RUNNING;
    info_ = *info;
    started_with_ = checked.core;
    started_control_d_ = checked.control_d;
    stack_start_ = std::chrono::steady_clock::now();
    stack_started_at_ = Now();
  }
  events_->Add(v1::EVENT_TYPE_STACK_STARTED,
               absl::StrCat("The stack reads ", info->tun_name, ", MTU ",
                            info->tun_mtu,
                            info->offload ? ", super-segments." : "."));
  control_d_.Running();
  done(absl::OkStatus());
}

// What is left of what the stack before knew.
Engine::KnownAddresses Stack::TakeKnownAddresses() {
  Engine::KnownAddresses known = std::exchange(known_addresses_, {});
  const Duration gone = Since(known_at_);
  std::erase_if(known, [gone](dns::AddressPolicy::Known& k) {
    k.left -= gone;
    return k.left <= Duration::zero();
  });
  return known;
}

void Stack::ReplaceTun(v1::ReplaceTunRequest request,
                       Done<absl::Status> done) {
  supervisor_.Post(
      [this, request = std::move(request), done = std::move(done)]() mutable {
        done(ReplaceNow(request));
      });
}

absl::Status Stack::ReplaceNow(const v1::ReplaceTunRequest& request) {
  TunConfig wanted;
  Runtime* runtime = nullptr;  // this is the supervisor's thread
  {
    MutexLock lock(mu_);
    runtime = run_.runtime.get();
    wanted = config_.core.tun;
  }
  if (runtime == nullptr) return StackNotRunning();
  absl::Status status = TakeDescriptor(request.tun(), &wanted);
  if (!status.ok()) return status;
  TunOptions options;
  options.name = wanted.name;
  options.fd = wanted.fd;
  options.mtu = wanted.mtu;
  options.ask_mtu = wanted.ask_mtu;
  options.offload = wanted.offload;
  absl::StatusOr<std::unique_ptr<Tun>> tun = OpenTun(std::move(options));
  if (!tun.ok()) return StartRefused(tun.status());
  struct Answer {
    absl::Status status;
    EngineInfo info;
  };
  absl::StatusOr<Answer> answer =
      runtime->Call([tun = *std::move(tun)](Engine& engine) mutable {
        absl::Status replaced = engine.ReplaceTun(std::move(tun));
        return Answer{std::move(replaced), engine.GetInfo()};
      });
  if (!answer.ok()) return StackNotRunning();
  if (!answer->status.ok()) return StartRefused(answer->status);
  MutexLock lock(mu_);
  info_ = answer->info;
  return absl::OkStatus();
}

void Stack::OwnerGone(std::string how) {
  MutexLock lock(mu_);
  supervisor_.Post([this, epoch = run_.epoch, how = std::move(how)] {
    OwnerGoneNow(epoch, how);
  });
}

void Stack::OwnerGoneNow(uint64_t epoch, const std::string& how) {
  bool close = false;
  {
    MutexLock lock(mu_);
    // An app has two lifelines, and both tell.
    if (!run_.runtime || run_.epoch != epoch || owner_gone_) return;
    owner_gone_ = true;
    close = config_.app.close_on_death;
  }
  events_->Add(v1::EVENT_TYPE_APP_DIED,
               absl::StrCat(how, close ? " The stack is stopped."
                                       : " The stack goes on capturing."));
  if (!close) return;
  StopNow(v1::STACK_STATE_FAILED, how);
  events_->Add(v1::EVENT_TYPE_STACK_FAILED, how);
}

void Stack::OwnerIsBack() {
  MutexLock lock(mu_);
  owner_gone_ = false;
}

void Stack::OnOwnerWanted(uint64_t flow_id, const FlowKey& key) {
  if (owner_search_) owner_search_(flow_id, key);
}

// The PIN first: it may have to be fetched, which is nothing to make the
// supervisor wait for.
void Stack::Stop(v1::StopRequest request, Done<absl::StatusOr<bool>> done) {
  auto stop = [this, request, done = std::move(done)](
                  std::optional<std::string> pin) mutable {
    supervisor_.Post([this, request = std::move(request), pin = std::move(pin),
                      done = std::move(done)]() mutable {
      if (pin && !request.restart()) {
        bool running = false;
        {
          MutexLock lock(mu_);
          running = run_.runtime != nullptr;
        }
        const absl::Status right =
            running ? pin_guard_.Check(request.pin(), *pin,
                                       PinGuard::Clock::now())
                    : absl::OkStatus();
        if (!right.ok()) return done(right);
      }
      const bool stopped = StopNow(v1::STACK_STATE_STOPPED, "");
      if (stopped) {
        events_->Add(v1::EVENT_TYPE_STACK_STOPPED, "The stack was stopped.");
      }
      if (!stopped || !request.restart()) return done(stopped);
      StartNow({}, [&done](const absl::Status& started) {
        started.ok() ? done(true) : done(started);
      });
    });
  };
  if (request.restart()) return stop(std::nullopt);
  control_d_.WithPin(std::move(stop));
}

void Stack::ReloadLists(Done<absl::StatusOr<std::vector<DnsListInfo>>> done) {
  supervisor_.Post([this, done = std::move(done)]() mutable {
    Runtime* runtime = nullptr;  // this is the supervisor's thread
    std::vector<DnsBlocklistConfig> lists;
    {
      MutexLock lock(mu_);
      runtime = run_.runtime.get();
      lists = config_.core.dns.blocklists;
    }
    if (runtime == nullptr) return done(StackNotRunning());
    runtime->LoadLists(
        std::move(lists),
        [this, done = std::move(done)](
            absl::StatusOr<std::vector<DnsListInfo>> loaded) mutable {
          if (loaded.ok()) return done(std::move(loaded));
          if (absl::IsUnavailable(loaded.status())) {
            return done(StackNotRunning());
          }
          events_->Add(v1::EVENT_TYPE_LIST_REFUSED,
                       std::string(loaded.status().message()));
          done(Precondition("LIST_REFUSED", "BLOCKLIST", "dns.blocklists",
                            loaded.status().message()));
        });
  });
}

// The config as the engine gets it: with what Control D told.
Config Stack::EngineConfig(const CheckedConfig& config) const {
  Config out = config.core;
  control_d_.Apply(out.dns);
  return out;
}

// Control D's thread.
void Stack::ControlDChanged() {
  supervisor_.Post([this] {
    Runtime* runtime = nullptr;
    CheckedConfig config;
    {
      MutexLock lock(mu_);
      runtime = run_.runtime.get();
      config = config_;
    }
    if (runtime == nullptr) return;
    (void)runtime->Call([core = EngineConfig(config)](Engine& engine) {
      engine.ApplyConfig(core);
      return true;
    });
  });
}

// Without a gap: the lists in use stay until these are read.
void Stack::LoadLists(Runtime& runtime, const Config& config) {
  runtime.LoadLists(
      config.dns.blocklists,
      [this](const absl::StatusOr<std::vector<DnsListInfo>>& loaded) {
        if (loaded.ok() || absl::IsUnavailable(loaded.status())) return;
        events_->Add(v1::EVENT_TYPE_LIST_REFUSED,
                     std::string(loaded.status().message()));
      });
}

bool Stack::StopNow(v1::StackState then, const std::string& failure) {
  std::unique_ptr<Runtime> runtime;
  {
    MutexLock lock(mu_);
    runtime = std::move(run_.runtime);
    state_ = runtime ? v1::STACK_STATE_STOPPING : then;
    failure_ = failure;
  }
  if (!runtime) return false;
  control_d_.End();
  // Apps keep addresses; a restart is no reason to refuse what DNS answered.
  auto known = runtime->Call(
      [](Engine& engine) { return engine.GetKnownAddresses(); });
  if (known.ok()) {
    known_addresses_ = *std::move(known);
    known_at_ = std::chrono::steady_clock::now();
  }
  std::function<void()> forget;
  {
    MutexLock lock(mu_);
    forget = descriptors_.forget;
  }
  if (forget) forget();
  runtime->Stop();
  hub_.EndRun(StackNotRunning());
  query_hub_.EndRun(StackNotRunning());
  MutexLock lock(mu_);
  state_ = then;
  return true;
}

void Stack::OnFailed(const absl::Status& why) {
  MutexLock lock(mu_);
  supervisor_.Post([this, epoch = run_.epoch, why] { FailedNow(epoch, why); });
}

void Stack::FailedNow(uint64_t epoch, const absl::Status& why) {
  // A stop may have come first, and even another start.
  {
    MutexLock lock(mu_);
    if (!run_.runtime || run_.epoch != epoch) return;
  }
  const std::string message(why.message());
  StopNow(v1::STACK_STATE_FAILED, message);
  events_->Add(v1::EVENT_TYPE_STACK_FAILED, message);
}

void Stack::Update(v1::UpdateConfigRequest request,
                   Done<absl::StatusOr<v1::UpdateConfigResponse>> done) {
  supervisor_.Post([this, request = std::move(request),
                    done = std::move(done)]() mutable {
    done(UpdateNow(request));
  });
}

absl::StatusOr<v1::UpdateConfigResponse> Stack::UpdateNow(
    const v1::UpdateConfigRequest& request) {
  CheckedConfig old;
  Runtime* runtime = nullptr;  // this is the supervisor's thread
  Config started_with;
  ControlDConfig started_control_d;
  uint64_t revision = 0;
  {
    MutexLock lock(mu_);
    old = config_;
    runtime = run_.runtime.get();
    started_with = started_with_;
    started_control_d = started_control_d_;
    revision = revision_;
  }
  if (request.has_revision() && request.revision() != revision) {
    return Refusal(absl::StatusCode::kAborted, "REVISION_MISMATCH",
                   absl::StrCat("The change was made from revision ",
                                request.revision(), ", but the config is at ",
                                revision, "."),
                   {{"revision", absl::StrCat(revision)}});
  }
  auto merged = Merge(old.proto, request.config(), request.update_mask());
  if (!merged.ok()) return merged.status();
  auto wanted = CheckConfig(*merged);
  if (!wanted.ok()) return wanted.status();

  v1::UpdateConfigResponse response;
  std::vector<std::string> changed =
      Difference(Effective(old), Effective(*wanted));
  std::vector<std::string> pending;
  if (runtime != nullptr) {
    pending = Waiting(started_with, started_control_d, *wanted);
  }
  for (std::string& path : Without(changed, pending)) {
    response.add_applied(std::move(path));
  }
  for (std::string& path : pending) {
    response.add_pending_restart(std::move(path));
  }
  *response.mutable_config() = WithoutSecrets(wanted->proto);
  // A field that is set to its default changes nothing in effect, but is
  // another config all the same.
  const bool differs = !google::protobuf::util::MessageDifferencer::Equals(
      old.proto, wanted->proto);
  response.set_revision(differs && !request.validate_only() ? revision + 1
                                                            : revision);
  if (request.validate_only() || !differs) return response;

  {
    MutexLock lock(mu_);
    config_ = *wanted;
    revision_ = response.revision();
  }
  if (runtime != nullptr) {
    auto info = runtime->Call([core = EngineConfig(*wanted)](Engine& engine) {
      engine.ApplyConfig(core);
      return engine.GetInfo();
    });
    if (wanted->core.dns.blocklists != old.core.dns.blocklists) {
      LoadLists(*runtime, wanted->core);
    }
    MutexLock lock(mu_);
    if (info.ok()) info_ = *info;
  }
  control_changed_(*wanted);
  events_->Add(v1::EVENT_TYPE_CONFIG_CHANGED,
               absl::StrCat("Config revision ", response.revision(),
                            "; applied: ",
                            changed.empty() ? "nothing"
                                            : absl::StrJoin(response.applied(),
                                                            ", "),
                            response.pending_restart().empty()
                                ? std::string(".")
                                : absl::StrCat("; after a restart: ",
                                               absl::StrJoin(
                                                   response.pending_restart(),
                                                   ", "),
                                               ".")));
  return response;
}

v1::StackStatus Stack::GetStatus() const {
  v1::StackStatus out;
  out.set_version(NETSTACK_VERSION);
  *out.mutable_service_started_at() = service_started_at_;
  ToProto(Since(service_start_), out.mutable_service_uptime());
  for (v1::TrafficKind kind : kSupported) out.add_supported(kind);
  MutexLock lock(mu_);
  out.set_descriptor_socket(descriptors_.socket);
  out.set_state(state_);
  out.set_failure(failure_);
  out.set_epoch(run_.epoch);
  out.set_config_revision(revision_);
  for (std::string& path : PendingRestart()) {
    out.add_pending_restart(std::move(path));
  }
  if (state_ != v1::STACK_STATE_RUNNING &&
      state_ != v1::STACK_STATE_STOPPING) {
    return out;
  }
  *out.mutable_stack_started_at() = stack_started_at_;
  ToProto(Since(stack_start_), out.mutable_stack_uptime());
  out.mutable_tun()->set_name(info_.tun_name);
  out.mutable_tun()->set_mtu(info_.tun_mtu);
  out.mutable_tun()->set_offload(info_.offload);
  out.set_flow_limit(info_.flow_limit);
  out.mutable_ping()->set_permitted(info_.ping_permitted);
  if (!info_.ping_permitted) out.mutable_ping()->set_advice(kPingAdvice);
  return out;
}

v1::GetConfigResponse Stack::GetConfig() const {
  MutexLock lock(mu_);
  v1::GetConfigResponse out;
  *out.mutable_config() = WithoutSecrets(config_.proto);
  *out.mutable_effective() = Effective(config_);
  out.set_revision(revision_);
  for (std::string& path : PendingRestart()) {
    out.add_pending_restart(std::move(path));
  }
  return out;
}

void Stack::Shutdown() {
  control_d_.Stop();
  supervisor_.Post([this] {
    if (StopNow(v1::STACK_STATE_STOPPED, "")) {
      events_->Add(v1::EVENT_TYPE_STACK_STOPPED,
                   "The stack was stopped with the service.");
    }
  });
  supervisor_.Stop();
}

void Stack::OnFlow(FlowChange change, const FlowInfo& flow) {
  hub_.OnFlow(change, flow);
}

void Stack::OnDnsQuery(const dns::DnsQueryInfo& query) {
  query_hub_.OnQuery(query);
}

void Stack::OnEvent(const Event& event) {
  // The stack's own life is told here, where the reasons are known.
  switch (event.type) {
    case EventType::kStackStarted:
    case EventType::kStackStopped:
    case EventType::kStackFailed:
    case EventType::kConfigChanged:
      return;
    case EventType::kPingNotPermitted: {
      {
        MutexLock lock(mu_);
        info_.ping_permitted = false;
      }
      events_->Add(ToProto(event.type), event.message, event.flow_id);
      return;
    }
    default:
      events_->Add(ToProto(event.type), event.message, event.flow_id);
  }
}

std::vector<std::string> Stack::PendingRestart() const {
  if (!run_.runtime) return {};
  return Waiting(started_with_, started_control_d_, config_);
}

}  // namespace netstack::server

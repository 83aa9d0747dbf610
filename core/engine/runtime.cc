#include "core/engine/runtime.h"

#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/mutex.h"
#include "core/engine/dns_lists.h"
#include "core/engine/loop.h"
#include "core/platform/system_dns.h"
#include "core/platform/thread.h"

namespace netstack {
namespace {

SipHashKey RandomKey(std::random_device& device) {
  const auto word = [&device] {
    return (static_cast<uint64_t>(device()) << 32) | device();
  };
  return {word(), word()};
}

absl::Status CheckConfig(const Config& config) {
  const std::vector<ConfigProblem> problems = Validate(config);
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(problems.front().field, ": ", problems.front().problem));
}

}  // namespace

struct Runtime::State {
  std::unique_ptr<Loop> loop;
  std::thread thread;
  Mutex mutex;
  bool stopped ABSL_GUARDED_BY(mutex) = false;
  SipHashKey lists_key;  // of the names in blocklists
  Mutex loader_mutex;
  std::thread loader ABSL_GUARDED_BY(loader_mutex);
};

absl::StatusOr<std::unique_ptr<Runtime>> Runtime::Start(const Config& config,
                                                        Observer* observer) {
  return StartEmbedded(config, observer, Embedding{});
}

absl::StatusOr<std::unique_ptr<Runtime>> Runtime::StartEmbedded(
    const Config& config, Observer* observer, Embedding embedding) {
  if (absl::Status status = CheckConfig(config); !status.ok()) return status;

  Platform platform;
  TunOptions tun_options;
  tun_options.name = config.tun.name;
  tun_options.fd = config.tun.fd;
  tun_options.mtu = config.tun.mtu;
  tun_options.ask_mtu = config.tun.ask_mtu;
  tun_options.offload = config.tun.offload;
  absl::StatusOr<std::unique_ptr<Tun>> tun =
      embedding.tun != nullptr ? std::move(embedding.tun)
                               : OpenTun(std::move(tun_options));
  if (!tun.ok()) return tun.status();
  const bool plain = config.tun.offload && !(*tun)->offload();
  platform.tun = *std::move(tun);
  platform.clock = std::make_unique<SystemClock>();
  platform.sockets = NewSockets();
  platform.local_sockets = NewLocalSockets();
  platform.datagrams = NewDatagrams();
  platform.system_dns = NewSystemDns();
  platform.protect = std::move(embedding.protect);
  absl::StatusOr<std::unique_ptr<Poller>> poller = NewPoller();
  if (!poller.ok()) return poller.status();
  platform.poller = *std::move(poller);

  std::random_device device;
  const Loop::Secrets secrets{RandomKey(device), RandomKey(device),
                              RandomKey(device)};
  absl::StatusOr<std::unique_ptr<Loop>> loop =
      Loop::Create(config, std::move(platform), secrets, observer);
  if (!loop.ok()) return loop.status();

  auto state = std::make_unique<State>();
  state->loop = *std::move(loop);
  state->lists_key = RandomKey(device);
  if (!config.dns.blocklists.empty()) {
    // Before the first packet, so that no name passes unfiltered. A list that
    // cannot be read is no reason to have no network.
    DnsLists lists = LoadDnsLists(config.dns.blocklists, state->lists_key);
    if (!lists.problem.ok()) {
      observer->OnEvent({EventType::kListRefused,
                         std::string(lists.problem.message()), 0});
    }
    state->loop->SetDnsLists(std::move(lists));
  }
  if (plain) {
    observer->OnEvent({EventType::kOffloadUnavailable,
                       "the TUN has no super-segments; it is used plain", 0});
  }
  state->thread = std::thread([l = state->loop.get()] {
    NameThisThread("netstack-loop");
    l->Run();
  });
  return std::unique_ptr<Runtime>(new Runtime(std::move(state)));
}

Runtime::Runtime(std::unique_ptr<State> state) : state_(std::move(state)) {}

Runtime::~Runtime() { Stop(); }

bool Runtime::Post(absl::AnyInvocable<void(Engine&)> fn) {
  return state_->loop->Post(std::move(fn));
}

void Runtime::LoadLists(std::vector<DnsBlocklistConfig> lists,
                        ListsDone done) {
  MutexLock lock(state_->loader_mutex);
  if (state_->loader.joinable()) state_->loader.join();
  state_->loader = std::thread([state = state_.get(), lists = std::move(lists),
                                done = std::move(done)]() mutable {
    NameThisThread("netstack-lists");
    DnsLists loaded = LoadDnsLists(lists, state->lists_key);
    if (!loaded.problem.ok()) return done(loaded.problem);
    std::vector<DnsListInfo> infos = loaded.infos;
    auto used = std::make_shared<std::promise<void>>();
    std::future<void> in_use = used->get_future();
    const bool posted = state->loop->Post(
        [used, loaded = std::move(loaded)](Engine& e) mutable {
          e.SetDnsLists(std::move(loaded));
          used->set_value();
        });
    used.reset();
    try {
      if (!posted) throw std::future_error(std::future_errc::broken_promise);
      in_use.get();
      done(std::move(infos));
    } catch (const std::future_error&) {  // destroyed without being run
      done(absl::UnavailableError("the stack is stopping"));
    }
  });
}

void Runtime::Stop() {
  MutexLock lock(state_->mutex);
  if (state_->stopped) return;
  state_->stopped = true;
  state_->loop->Stop();
  // What is still posted is destroyed unrun, so that whoever waits for it is
  // told. The loop object stays: Post() may be under way in another thread.
  state_->thread.join();
  MutexLock loader_lock(state_->loader_mutex);
  if (state_->loader.joinable()) state_->loader.join();
}

}  // namespace netstack

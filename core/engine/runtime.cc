#include "core/engine/runtime.h"

#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/mutex.h"
#include "core/engine/loop.h"
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
};

absl::StatusOr<std::unique_ptr<Runtime>> Runtime::Start(const Config& config,
                                                        Observer* observer) {
  if (absl::Status status = CheckConfig(config); !status.ok()) return status;

  Platform platform;
  platform.clock = std::make_unique<SystemClock>();
  platform.sockets = NewSockets();
  platform.datagrams = NewDatagrams();
  absl::StatusOr<std::unique_ptr<Poller>> poller = NewPoller();
  if (!poller.ok()) return poller.status();
  platform.poller = *std::move(poller);
  TunOptions tun_options;
  tun_options.name = config.tun.name;
  tun_options.fd = config.tun.fd;
  tun_options.mtu = config.tun.mtu;
  tun_options.offload = config.tun.offload;
  absl::StatusOr<std::unique_ptr<Tun>> tun = OpenTun(std::move(tun_options));
  if (!tun.ok()) return tun.status();
  const bool plain = config.tun.offload && !(*tun)->offload();
  platform.tun = *std::move(tun);

  std::random_device device;
  const Loop::Secrets secrets{RandomKey(device), RandomKey(device)};
  absl::StatusOr<std::unique_ptr<Loop>> loop =
      Loop::Create(config, std::move(platform), secrets, observer);
  if (!loop.ok()) return loop.status();

  auto state = std::make_unique<State>();
  state->loop = *std::move(loop);
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

void Runtime::Stop() {
  MutexLock lock(state_->mutex);
  if (state_->stopped) return;
  state_->stopped = true;
  state_->loop->Stop();
  // What is still posted is destroyed unrun, so that whoever waits for it is
  // told. The loop object stays: Post() may be under way in another thread.
  state_->thread.join();
}

}  // namespace netstack

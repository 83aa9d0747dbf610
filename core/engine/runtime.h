// The engine on its own thread: what a service holds.
//
//   auto rt = Runtime::Start(config, &observer);
//   if (!rt.ok()) return rt.status();          // one clear sentence
//   Stats s = (*rt)->Call([](Engine& e) { return e.GetStats(); });
//   (*rt)->Stop();
//
// At most one Runtime lives per process at a time (lwIP's state is
// process-global); a second Start() is FAILED_PRECONDITION. Start, Stop,
// Start again works.
#ifndef CORE_ENGINE_RUNTIME_H_
#define CORE_ENGINE_RUNTIME_H_

#include <functional>
#include <future>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/engine/config.h"
#include "core/engine/engine.h"
#include "core/engine/observer.h"

namespace netstack {

class Runtime {
 public:
  // Opens the TUN and starts the loop thread with real sockets and clocks.
  // `observer` outlives the Runtime. Errors: INVALID_ARGUMENT (config),
  // PERMISSION_DENIED (no right to open the TUN), NOT_FOUND (no TUN device),
  // FAILED_PRECONDITION (another engine lives, TUN busy), UNAVAILABLE (else).
  static absl::StatusOr<std::unique_ptr<Runtime>> Start(const Config& config,
                                                        Observer* observer);
  // The same where the service is a library in the app's own process.
  struct Embedding {
    // In place of what config.tun names; null: that.
    std::unique_ptr<Tun> tun;
    // Called on the loop thread with every socket before it is connected; 0:
    // protected. Must be quick. Null: nobody is asked.
    std::function<int(int fd)> protect;
  };
  static absl::StatusOr<std::unique_ptr<Runtime>> StartEmbedded(
      const Config& config, Observer* observer, Embedding embedding);
  // Stops.
  ~Runtime();

  // Any thread. `fn` runs on the loop thread, in order of posting. After
  // Stop() began, `fn` is destroyed without being run; false says so.
  bool Post(absl::AnyInvocable<void(Engine&)> fn);

  // Any thread but the loop's. Runs `fn` there and waits for its value;
  // UNAVAILABLE when the engine stops first.
  template <typename F, typename R = std::invoke_result_t<F, Engine&>>
  absl::StatusOr<R> Call(F fn) {
    auto promise = std::make_shared<std::promise<R>>();
    std::future<R> future = promise->get_future();
    bool posted = Post([promise, fn = std::move(fn)](Engine& e) mutable {
      promise->set_value(fn(e));
    });
    promise.reset();
    if (!posted) return absl::UnavailableError("the stack is stopping");
    try {
      return future.get();
    } catch (const std::future_error&) {  // destroyed without being run
      return absl::UnavailableError("the stack is stopping");
    }
  }

  // Any thread but the loop's. Reads blocklists on a thread of their own and
  // puts them to use; when one of them cannot be read, all that are in use
  // stay. `done` runs on that thread: the lists in use now, or
  // FAILED_PRECONDITION, or UNAVAILABLE when the engine stops first. Waits for
  // a load that is under way.
  using ListsDone =
      absl::AnyInvocable<void(absl::StatusOr<std::vector<DnsListInfo>>)>;
  void LoadLists(std::vector<DnsBlocklistConfig> lists, ListsDone done);

  // Any thread but the loop's; idempotent. Resets every flow, closes every
  // socket and the TUN, ends the thread.
  void Stop();

 private:
  struct State;
  explicit Runtime(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace netstack

#endif  // CORE_ENGINE_RUNTIME_H_

// Control D for a running stack: asks the API for the device's resolver, keeps
// what it said last on disk, asks again every hour, and knows the PIN.
//
// How this works. Everything that waits for the network runs on a thread of its
// own ("control-d"), so that neither the supervisor nor an RPC waits for the
// API. The supervisor calls Begin() before the stack starts and gets what was
// known last, with which names work at once; the thread then fetches, and what
// is new is told by `changed`, on that thread. Without anything known, names
// are refused until the first answer: asking anybody else would be a leak.
#ifndef SERVER_CONTROL_D_H_
#define SERVER_CONTROL_D_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "core/base/mutex.h"
#include "core/engine/dns_config.h"
#include "server/control_d_api.h"
#include "server/control_d_config.h"
#include "server/event_log.h"
#include "server/worker.h"

namespace netstack::server {

class ControlD {
 public:
  // `sockets` are called on the thread, and may block it shortly. `changed`:
  // see above. `events` outlives this.
  ControlD(ControlDSockets sockets, std::function<void()> changed,
           EventLog* events);
  ~ControlD();  // as Stop()

  // A stack is about to start, or has stopped. The supervisor's thread.
  void Begin(const ControlDConfig& config);
  void End();
  // The stack runs: the first fetch may begin.
  void Running();

  // Any thread. Puts the resolver that is known, or the refusal of every name,
  // into `dns`; nothing when Control D is off.
  void Apply(DnsConfig& dns) const;

  // Any thread. `done` gets the PIN that a stop must name, asked for anew if
  // the API answers within some seconds; on the thread, or at once when
  // Control D is off or no stack runs.
  void WithPin(absl::AnyInvocable<void(std::optional<std::string>)> done);

  // Gives up what is under way and ends the thread.
  void Stop();

 private:
  // Says when to ask again; zero when the run is over.
  Duration Fetch(uint64_t run, std::chrono::milliseconds timeout);
  void FetchForEver(uint64_t run);
  void Keep(const ControlDConfig& config, const ControlDResolver& resolver);

  std::atomic<bool> stopping_{false};
  const ControlDSockets sockets_;
  const std::function<void()> changed_;
  EventLog* const events_;

  mutable Mutex mu_;
  ControlDConfig config_ ABSL_GUARDED_BY(mu_);  // of the run
  std::optional<ControlDResolver> known_ ABSL_GUARDED_BY(mu_);
  uint64_t run_ ABSL_GUARDED_BY(mu_) = 0;      // counts Begin() and End()
  bool active_ ABSL_GUARDED_BY(mu_) = false;   // between Begin() and End()
  bool failing_ ABSL_GUARDED_BY(mu_) = false;  // told by an event
  bool gone_ ABSL_GUARDED_BY(mu_) = false;     // told by an event

  Worker worker_;  // last: its tasks use everything above
};

}  // namespace netstack::server

#endif  // SERVER_CONTROL_D_H_

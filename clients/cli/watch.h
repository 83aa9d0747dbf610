// What a --watch needs: an end on Ctrl-C, and a screen redrawn in place.
#ifndef CLIENTS_CLI_WATCH_H_
#define CLIENTS_CLI_WATCH_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "absl/time/time.h"

namespace netstack::cli {

// Raised by SIGINT, by SIGTERM, by Raise(), and when whoever reads our
// output has gone (so that "events --watch | head -1" ends at once).
// At most one lives at a time; the signals have their old meaning after it.
class Interrupt {
 public:
  // `output` is the descriptor whose reader is observed; -1: none.
  explicit Interrupt(int output);
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Calls `action` when the interrupt is raised while the scope lives, on
  // another thread or, when it was raised before, at once.
  class Scope {
   public:
    Scope(Interrupt& interrupt, std::function<void()> action);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Interrupt& interrupt_;  // Outlives the scope.
  };

  void Raise();
  bool raised() const;

  // Waits; true when it was raised meanwhile or before.
  bool WaitFor(absl::Duration duration);

 private:
  void Listen(int output);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool raised_ = false;           // Guarded by mutex_.
  std::function<void()> action_;  // Guarded by mutex_; null outside scopes.
  int wake_[2] = {-1, -1};        // Pipe; the signal handler writes to it.
  std::thread listener_;
};

// The bytes that replace what a terminal shows by `text`. Lines beyond
// `height` are cut off and told.
std::string RedrawFrame(const std::string& text, size_t height, bool first);

}  // namespace netstack::cli

#endif  // CLIENTS_CLI_WATCH_H_

// Signals as something to wait for.
//
//   Signals signals;                // before any thread is made
//   int signal = signals.Wait();    // SIGTERM, SIGINT or SIGHUP
#ifndef SERVER_SIGNALS_H_
#define SERVER_SIGNALS_H_

#include <functional>

namespace netstack::server {

class Signals {
 public:
  // Blocks the three signals in this and all later threads and ignores
  // SIGPIPE.
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // The next signal.
  int Wait();
  // Runs `work` on a thread of its own until it is done; a SIGTERM or SIGINT
  // meanwhile ends the process at once, with 128 + the signal.
  void RunUnlessSignalled(const std::function<void()>& work);

 private:
  int fd_ = -1;    // signalfd
  int done_ = -1;  // eventfd
};

}  // namespace netstack::server

#endif  // SERVER_SIGNALS_H_

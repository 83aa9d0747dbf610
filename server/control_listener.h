// Accepts control connections and decides who may speak gRPC.
//
// How this works. gRPC's own listener dies at the first EMFILE and asks nobody
// who he is (design.md, section 7), so this one accepts on a thread of its own,
// asks SO_PEERCRED, and hands over only what is permitted: a foreign uid is
// closed before a byte was read or written. Of each connection a dup is kept
// in the epoll set; its hang-up is how the end of a connection is seen, which
// gRPC does not tell.
//
// Descriptors: a few are held in reserve. When accept4() or dup() finds none
// left, one of the reserve is given up for it, and taken back as soon as one is
// free. While the reserve is too small for another connection, accepting
// pauses for 50 ms at a time, and callers wait in the backlog: level-triggered
// epoll would spin otherwise.
#ifndef SERVER_CONTROL_LISTENER_H_
#define SERVER_CONTROL_LISTENER_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/mutex.h"
#include "server/config_convert.h"
#include "server/control_counters.h"
#include "server/control_socket.h"
#include "server/event_log.h"

namespace netstack::server {

class ControlListener {
 public:
  static constexpr int kReserve = 16;

  // `handle` owns the descriptor that it is given; it is called on the
  // listener's thread. `counters` and `events` outlive the listener.
  // `always` are uids that may connect beside root, our own and the config's.
  static absl::StatusOr<std::unique_ptr<ControlListener>> Start(
      const std::string& path, std::vector<uint32_t> always,
      const ControlConfig& limits, ControlCounters* counters,
      EventLog* events, std::function<void(int fd)> handle);
  // Stops and removes the socket.
  ~ControlListener();

  // Any thread; for connections from now on.
  void SetLimits(const ControlConfig& limits);
  const std::string& path() const { return socket_->path(); }

 private:
  ControlListener(std::unique_ptr<ControlSocket> socket,
                  std::vector<uint32_t> always, ControlCounters* counters,
                  EventLog* events, std::function<void(int fd)> handle);

  void Run();
  // False when the reserve is too small for another connection.
  bool AcceptAll();
  void Admit(int fd);
  int DupWithReserve(int fd);
  bool GiveReserve();
  void RefillReserve();
  bool MayUse(uid_t uid, uint32_t* max_connections);
  void TellRefused(uid_t uid);
  void TellExhausted();

  const std::unique_ptr<ControlSocket> socket_;
  const std::vector<uint32_t> always_;
  ControlCounters* const counters_;
  EventLog* const events_;
  const std::function<void(int fd)> handle_;

  Mutex mu_;
  ControlConfig limits_ ABSL_GUARDED_BY(mu_);

  // Only the listener's thread, but for the constructor.
  int epoll_ = -1;
  int stop_ = -1;  // eventfd
  std::vector<int> reserve_;
  std::set<int> connections_;  // dups
  std::chrono::steady_clock::time_point last_refused_;
  std::chrono::steady_clock::time_point last_exhausted_;

  std::thread thread_;
};

}  // namespace netstack::server

#endif  // SERVER_CONTROL_LISTENER_H_

// Takes TUN descriptors from apps: the service's second local socket.
//
// How this works. gRPC cannot carry descriptors, so they come over a socket of
// their own, "<control socket>.fd", beside the control socket and under the
// same rules (control_socket.h, SO_PEERCRED). netstack.v1.TunHandle describes
// the messages. One thread owns the socket and its connections; the table of
// descriptors that wait to be named is under a mutex, since Start and
// ReplaceTun look there from the supervisor's thread.
//
//   a connection's state   what is read next
//   length                 the first byte alone, so that it is certain that the
//                          descriptor came with it; then the other seven
//   nonce                  as many bytes as the length said
//   refused                nothing: the verdict is sent and it is closed
//
// What a hostile peer can do is bounded: connections (kMaxConnections, the
// newest is closed), the time that an unfinished message may take
// (kMessageTimeout), descriptors that wait (app.max_descriptors, each for
// app.descriptor_timeout at most). Whatever comes as SCM_RIGHTS is closed
// unless it is the one that is kept: the control buffer holds SCM_MAX_FD, so
// the kernel cannot drop what we then do not know of, and MSG_CTRUNC (no room
// in our descriptor table) refuses the message.
//
// The lifeline: when a descriptor is taken into use while the connection that
// brought it is still open, that connection is watched from then on, and its
// end means that the app is gone.
#ifndef SERVER_DESCRIPTOR_LISTENER_H_
#define SERVER_DESCRIPTOR_LISTENER_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/mutex.h"
#include "netstack/v1/netstack_service.pb.h"
#include "server/config_convert.h"
#include "server/control_counters.h"
#include "server/control_socket.h"
#include "server/descriptor_message.h"
#include "server/event_log.h"

namespace netstack::server {

class DescriptorListener {
 public:
  static constexpr size_t kMaxConnections = 16;
  static constexpr std::chrono::seconds kMessageTimeout{5};

  struct Limits {
    std::vector<uint32_t> allowed_uids;  // beside root and our own
    AppConfig app;
  };

  // `counters` and `events` outlive the listener. `owner_gone` is called on
  // the listener's thread when the lifeline ends.
  static absl::StatusOr<std::unique_ptr<DescriptorListener>> Start(
      const std::string& path, const Limits& limits, ControlCounters* counters,
      EventLog* events, std::function<void()> owner_gone);
  // Stops, closes what waits, removes the socket.
  ~DescriptorListener();

  // Any thread; for messages from now on.
  void SetLimits(const Limits& limits);
  const std::string& path() const { return socket_->path(); }

  // Any thread. The descriptor that came with this nonce, the caller's from
  // then on; its connection becomes the lifeline if it is still open, and
  // else there is none. NOT_FOUND (DESCRIPTOR_NOT_FOUND).
  absl::StatusOr<int> Take(const std::string& nonce);
  // Any thread. The TUN in use is nobody's any more.
  void ForgetOwner();

 private:
  using Clock = std::chrono::steady_clock;
  using Verdict = v1::DescriptorVerdict;

  struct Connection {
    uint64_t id = 0;
    DescriptorMessage message;  // the one at hand
    Clock::time_point since;  // of its first byte, or of the accept
    bool any = false;         // a message was taken
  };
  struct Pending {
    int fd = -1;
    uint64_t connection = 0;
    Clock::time_point until;
  };

  DescriptorListener(std::unique_ptr<ControlSocket> socket,
                     ControlCounters* counters, EventLog* events,
                     std::function<void()> owner_gone);

  void Run();
  int NextTimeout();
  void AcceptAll();
  // False when the connection is to be closed.
  bool Receive(int fd, Connection& c);
  bool Finish(int fd, Connection& c);
  Verdict Judge(Connection& c);
  Verdict Keep(Connection& c, const std::string& nonce);
  void CloseConnection(int fd);
  void Expire();
  void TellRefused(const std::string& why);

  const std::unique_ptr<ControlSocket> socket_;
  ControlCounters* const counters_;
  EventLog* const events_;
  const std::function<void()> owner_gone_;

  Mutex mu_;
  Limits limits_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Pending> pending_ ABSL_GUARDED_BY(mu_);
  // By descriptor; changed on the listener's thread only.
  std::map<int, Connection> connections_ ABSL_GUARDED_BY(mu_);
  uint64_t owner_ ABSL_GUARDED_BY(mu_) = 0;  // the lifeline; 0: none

  // The listener's thread, but for Start().
  int epoll_ = -1;
  int wake_ = -1;  // eventfd: stop, or look at the times
  std::atomic<bool> stop_{false};
  uint64_t next_id_ = 1;
  Clock::time_point last_told_{};

  std::thread thread_;
};

}  // namespace netstack::server

#endif  // SERVER_DESCRIPTOR_LISTENER_H_

// Datagram sockets in memory, beside ScriptedSockets, which opens and closes
// them.
//
//   ScriptedSockets sockets;
//   ScriptedDatagrams datagrams(&sockets);
//   ... the code under test opens a UDP socket and sends ...
//   ScriptedDatagramSocket& s = datagrams.Of(sockets.last().fd);
//   EXPECT_EQ(s.sent[0].payload, "hello");
//   s.Feed({.from = peer, .payload = "world"});  // and tells that it is
//                                                // readable
//
// Errors behave as the kernel's: one that is pushed makes the next Send() or
// Receive() fail once, unless the error queue is emptied before.
#ifndef TESTS_SUPPORT_SCRIPTED_DATAGRAMS_H_
#define TESTS_SUPPORT_SCRIPTED_DATAGRAMS_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/platform/datagrams.h"
#include "tests/support/scripted_sockets.h"

namespace netstack::test {

struct ScriptedDatagramSocket {
  struct Sent {
    Endpoint to;
    std::string payload;
    uint16_t segment_size = 0;
    uint8_t tos = 0;
    uint8_t ttl = 0;
    bool dont_fragment = false;
    size_t call = 0;  // the how many-th Send() took it, from 1
  };
  struct Arrival {
    Endpoint from;
    std::string payload;
    uint16_t segment_size = 0;
    uint8_t tos = 0;
    uint8_t ttl = 64;
    IpAddress to{};  // an address of the host
  };
  struct Error {
    DatagramError error;  // its payload is the next member
    std::string payload;
  };

  // What was done to it.
  bool prepared = false;
  std::optional<Endpoint> bound;
  bool dont_fragment = false;
  size_t dont_fragment_calls = 0;
  bool broadcast = false;
  std::vector<Sent> sent;
  size_t send_calls = 0;
  size_t receive_calls = 0;

  // The script.
  // Datagrams (batches of UDP_SEGMENT count as one) that Send() takes until
  // it returns -EAGAIN.
  size_t send_room = std::numeric_limits<size_t>::max();
  // Not 0: with don't-fragment, larger packets fail as the kernel lets them.
  uint32_t path_mtu = 0;
  // Positive errnos, each the result of one call before anything is taken.
  std::deque<int> send_errors;

  void Feed(Arrival arrival) { inbox.push_back(std::move(arrival)); }
  // An ICMP error came in for an earlier datagram.
  void PushError(const DatagramError& error, std::string quoted = "") {
    pending_error = error.error;
    errors.push_back({error, std::move(quoted)});
  }

  std::deque<Arrival> inbox;
  std::deque<Error> errors;
  int pending_error = 0;
};

class ScriptedDatagrams final : public Datagrams {
 public:
  // `sockets` outlives this.
  explicit ScriptedDatagrams(ScriptedSockets* sockets) : sockets_(sockets) {}

  // Of any socket that ever was.
  ScriptedDatagramSocket& Of(int fd) { return states_[fd]; }
  // Ports that Bind() finds in use.
  std::set<uint16_t> taken_ports;
  // Decides a Bind() where set.
  std::function<int(const Endpoint&)> on_bind;
  int prepare_result = 0;

  int Prepare(int fd, SocketKind kind, bool v4) override;
  int Bind(int fd, const Endpoint& local) override;
  int SetDontFragment(int fd, bool v4, bool on) override;
  int AllowBroadcast(int fd) override;
  void SetBuffers(int fd, uint32_t receive, uint32_t send) override;
  int Receive(int fd, MutableBytes room, std::span<DatagramIn> into) override;
  int Send(int fd, std::span<const DatagramOut> batch) override;
  std::optional<DatagramError> TakeError(int fd, MutableBytes room) override;

 private:
  // Null, and a failed test, when `fd` is not open.
  ScriptedDatagramSocket* Live(int fd, const char* call);

  ScriptedSockets* const sockets_;
  std::map<int, ScriptedDatagramSocket> states_;
  uint16_t next_port_ = 50001;
};

}  // namespace netstack::test

#endif  // TESTS_SUPPORT_SCRIPTED_DATAGRAMS_H_

// The host's sockets in memory: the test is the network.
//
//   ScriptedSockets sockets;
//   ... the code under test dials ...
//   ScriptedSocket& s = sockets.last();
//   EXPECT_EQ(s.mark, 7u);
//   s.Feed("hello");          // and tells the code that `s.fd` is readable
//
// Descriptors are numbers that nobody has; they are never used twice, so each
// use after Close() is found, and fails the test.
#ifndef TESTS_SUPPORT_SCRIPTED_SOCKETS_H_
#define TESTS_SUPPORT_SCRIPTED_SOCKETS_H_

#include <cerrno>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/platform/sockets.h"

namespace netstack::test {

struct ScriptedSocket {
  int fd = -1;
  SocketKind kind = SocketKind::kTcp;
  bool v4 = true;
  // Of a pair: the other end, which gets what this one is sent.
  ScriptedSocket* peer = nullptr;

  // What was done to it. `calls` has the names of the methods in their order,
  // without Send and Receive.
  std::vector<std::string> calls;
  std::optional<uint32_t> mark;
  std::optional<std::string> device;
  std::optional<Duration> user_timeout;
  std::optional<uint8_t> ttl;
  bool keeps_errors = false;
  std::optional<Endpoint> connected_to;
  std::string sent;
  size_t send_calls = 0;
  size_t receive_calls = 0;
  bool write_shut = false;
  bool closed = false;
  bool reset = false;  // only with closed

  // The script.
  int so_error = 0;  // a positive errno; TakeError() clears it
  // Bytes that Send() takes until it returns -EAGAIN.
  size_t send_room = std::numeric_limits<size_t>::max();
  int send_error = 0;     // a positive errno, before anything is taken
  int receive_error = 0;  // a positive errno, behind what was fed
  Endpoint local{IpAddress::V4(198, 51, 100, 1), 50000};
  Duration round_trip_time = std::chrono::milliseconds(20);

  // One Receive() gives at most one piece.
  void Feed(absl::string_view piece) { pieces.emplace_back(piece); }
  void Feed(Bytes piece) {
    pieces.emplace_back(reinterpret_cast<const char*>(piece.data()),
                        piece.size());
  }
  // End of stream behind what was fed.
  void FeedEnd() { end = true; }
  size_t unread() const {
    size_t n = 0;
    for (const std::string& piece : pieces) n += piece.size();
    return n;
  }

  std::deque<std::string> pieces;
  bool end = false;
};

class ScriptedSockets final : public Sockets {
 public:
  // Results of the next Open() calls, e.g. -EMFILE; 0 or an empty queue
  // opens.
  std::deque<int> open_results;
  // The result of every Connect() that `on_connect` does not decide.
  int connect_result = -EINPROGRESS;
  std::function<int(const Endpoint&)> on_connect;
  // Results of SetMark() and BindToDevice().
  int mark_result = 0;
  int device_result = 0;
  uint32_t descriptor_limit = 1024;

  // All sockets in the order of opening, closed ones too.
  const std::vector<std::unique_ptr<ScriptedSocket>>& all() const {
    return sockets_;
  }
  ScriptedSocket& last() { return *sockets_.back(); }
  // Of any socket that ever was.
  ScriptedSocket& Get(int fd);
  size_t open_count() const;

  int Open(SocketKind kind, bool v4) override;
  SocketPair OpenPair() override;
  int SetMark(int fd, uint32_t mark) override;
  int BindToDevice(int fd, const std::string& device) override;
  int SetUserTimeout(int fd, Duration timeout) override;
  int SetTtl(int fd, bool v4, uint8_t ttl) override;
  int KeepErrors(int fd, bool v4, bool on) override;
  int Connect(int fd, const Endpoint& to) override;
  int Disconnect(int fd) override;
  int TakeError(int fd) override;
  int64_t Send(int fd, std::span<const Bytes> parts) override;
  int64_t Receive(int fd, MutableBytes into) override;
  int ShutdownWrite(int fd) override;
  void Close(int fd, bool reset) override;
  Endpoint LocalEndpoint(int fd) override;
  Duration RoundTripTime(int fd) override;
  uint32_t DescriptorLimit() override { return descriptor_limit; }

 private:
  static constexpr int kFirstFd = 1000;

  // Null, and a failed test, when `fd` is not open.
  ScriptedSocket* Live(int fd, const char* call);

  std::vector<std::unique_ptr<ScriptedSocket>> sockets_;
};

}  // namespace netstack::test

#endif  // TESTS_SUPPORT_SCRIPTED_SOCKETS_H_

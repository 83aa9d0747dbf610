// Many connections that do nothing.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <sstream>
#include <string>
#include <vector>

#include "tests/bench/load/tools.h"

namespace netload {
namespace {

class IdleConnections {
 public:
  IdleConnections(const Address& to, std::vector<Address> from)
      : to_(to), from_(std::move(from)), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (!epoll_.ok()) DieWithErrno("epoll_create1");
  }

  // Opens until `count` stand, or until time or patience end.
  void Open(size_t count, size_t batch, Seconds timeout) {
    conns_.resize(count);
    const Time start = Clock::now();
    size_t next = 0;
    while (next < count || waiting_ > 0) {
      while (next < count && waiting_ < batch && failed_ < 100) Begin(next++);
      if (failed_ >= 100) next = count;
      Wait();
      if (Clock::now() - start > timeout) break;
    }
    took_ = Clock::now() - start;
  }

  // An echo on each that stands; how many answered. In batches, so that no
  // queue on the way overflows.
  size_t Prove(size_t batch, Seconds timeout) {
    const Time start = Clock::now();
    proven_ = 0;
    size_t next = 0;
    while (next < conns_.size() || waiting_ > 0) {
      while (next < conns_.size() && waiting_ < batch) {
        Conn& c = conns_[next];
        if (c.state == State::kIdle && send(c.fd.get(), "y", 1, 0) == 1) {
          c.state = State::kEchoing;
          ++waiting_;
        }
        ++next;
      }
      Wait();
      if (Clock::now() - start > timeout) break;
    }
    return proven_;
  }

  size_t standing() const {
    return static_cast<size_t>(
        std::count_if(conns_.begin(), conns_.end(),
                      [](const Conn& c) { return c.state == State::kIdle; }));
  }
  size_t failed() const { return failed_; }
  Seconds took() const { return took_; }

 private:
  enum class State { kClosed, kConnecting, kEchoing, kIdle };
  struct Conn {
    Fd fd;
    State state = State::kClosed;
  };

  void Begin(size_t i) {
    Conn& c = conns_[i];
    c.fd = OpenTcp(to_.family());
    if (!c.fd.ok()) {
      ++failed_;
      return;
    }
    if (!from_.empty()) {
      const Address& from = from_[i % from_.size()];
      if (bind(c.fd.get(), from.get(), from.size) != 0) DieWithErrno("bind");
    }
    if (connect(c.fd.get(), to_.get(), to_.size) != 0 && errno != EINPROGRESS) {
      c.fd.Reset();
      ++failed_;
      return;
    }
    c.state = State::kConnecting;
    ++waiting_;
    epoll_event e{};
    e.events = EPOLLIN | EPOLLOUT | EPOLLET;
    e.data.u64 = i;
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, c.fd.get(), &e);
  }

  void Wait() {
    std::array<epoll_event, 256> events;
    const int n = epoll_wait(epoll_.get(), events.data(),
                             static_cast<int>(events.size()), 100);
    for (int k = 0; k < n; ++k) {
      const epoll_event& e = events[static_cast<size_t>(k)];
      Step(conns_[e.data.u64], e.events);
    }
  }

  void Step(Conn& c, uint32_t what) {
    if (c.state == State::kConnecting && (what & (EPOLLOUT | EPOLLERR))) {
      if (ConnectError(c.fd.get()) != 0 || send(c.fd.get(), "x", 1, 0) != 1) {
        return Fail(c);
      }
      c.state = State::kEchoing;
    }
    if (c.state == State::kClosed || (what & EPOLLIN) == 0) return;
    char bytes[8];
    const ssize_t n = recv(c.fd.get(), bytes, sizeof(bytes), 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return Fail(c);
    if (c.state == State::kEchoing) {
      --waiting_;
      ++proven_;
    }
    c.state = State::kIdle;
  }

  void Fail(Conn& c) {
    if (c.state != State::kIdle) --waiting_;
    c.state = State::kClosed;
    c.fd.Reset();
    ++failed_;
  }

  const Address to_;
  const std::vector<Address> from_;
  Fd epoll_;
  std::vector<Conn> conns_;
  size_t waiting_ = 0;
  size_t proven_ = 0;
  size_t failed_ = 0;
  Seconds took_{};
};

void Hold(double seconds) {
  const Time end =
      Clock::now() + std::chrono::milliseconds(
                         static_cast<int64_t>(std::max(seconds, 0.0) * 1000));
  char byte;
  if (seconds < 0) {
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    return;
  }
  while (Clock::now() < end) poll(nullptr, 0, 10);
}

}  // namespace

int Idle(const Options& options) {
  const uint64_t limit = RaiseFileLimit();
  const Address to = ParseAddress(options.Text("to", ""));
  std::vector<Address> from;
  std::istringstream list(options.Text("from", ""));
  for (std::string address; std::getline(list, address, ',');) {
    from.push_back(ParseAddress((address.find(':') == std::string::npos
                                     ? address
                                     : "[" + address + "]") +
                                ":0"));
  }
  const auto count = static_cast<size_t>(options.Number("count", 1000));
  const auto batch = static_cast<size_t>(options.Number("batch", 128));
  const Seconds timeout(options.Number("timeout", 60));
  if (count + 16 > limit) {
    Die("the descriptor limit is " + std::to_string(limit));
  }
  IdleConnections connections(to, std::move(from));
  connections.Open(count, batch, timeout);
  const size_t open = connections.standing();
  JsonLine("idle")
      .Add("asked", static_cast<double>(count))
      .Add("open", static_cast<double>(open))
      .Add("failed", static_cast<double>(connections.failed()))
      .Add("seconds", connections.took().count())
      .Print();
  Hold(options.Number("hold", 0));
  JsonLine("idle-proof")
      .Add("of", static_cast<double>(open))
      .Add("alive", static_cast<double>(connections.Prove(batch, timeout)))
      .Print();
  return 0;
}

}  // namespace netload

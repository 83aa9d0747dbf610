// Connections per second, and what one costs in time.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <vector>

#include "tests/bench/load/tools.h"

namespace netload {
namespace {

// A connection that takes longer has failed.
constexpr Seconds kTooLong(5);

class Clients {
 public:
  Clients(const Address& to, size_t clients, double max)
      : to_(to), max_(max), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (!epoll_.ok()) DieWithErrno("epoll_create1");
    clients_.resize(clients);
  }

  void Run(Seconds length) {
    start_ = Clock::now();
    end_ = start_ + std::chrono::duration_cast<Clock::duration>(length);
    for (size_t i = 0; i < clients_.size(); ++i) Begin(i);
    std::array<epoll_event, 256> events;
    Time last_sweep = start_;
    while (open_ > 0) {
      const int n = epoll_wait(epoll_.get(), events.data(),
                               static_cast<int>(events.size()), 100);
      for (int k = 0; k < n; ++k) {
        Step(events[static_cast<size_t>(k)].data.u32);
      }
      const Time now = Clock::now();
      if (now - last_sweep < std::chrono::milliseconds(100)) continue;
      last_sweep = now;
      for (size_t i = 0; i < clients_.size(); ++i) {
        if (clients_[i].fd.ok() && now - clients_[i].begin > kTooLong) Fail(i);
      }
    }
    took_ = Clock::now() - start_;
  }

  void Print() {
    JsonLine("connect")
        .Add(samples_)
        .Add("clients", static_cast<double>(clients_.size()))
        .Add("failed", failed_)
        .Add("seconds", took_.count())
        .Add("rate", static_cast<double>(samples_.size()) / took_.count())
        .Print();
  }

 private:
  struct Client {
    Fd fd;
    Time begin{};
    bool sent = false;
  };

  void Begin(size_t i) {
    Client& c = clients_[i];
    if (Clock::now() >= end_ || begun_ >= max_) return;
    ++begun_;
    c.begin = Clock::now();
    c.sent = false;
    c.fd = OpenTcp(to_.family());
    if (!c.fd.ok()) DieWithErrno("socket");
    ++open_;
    if (connect(c.fd.get(), to_.get(), to_.size) != 0 && errno != EINPROGRESS) {
      return Fail(i);
    }
    Watch(EPOLL_CTL_ADD, i, EPOLLOUT);
  }

  void Step(size_t i) {
    Client& c = clients_[i];
    if (!c.fd.ok()) return;
    if (!c.sent) {
      if (ConnectError(c.fd.get()) != 0 || send(c.fd.get(), "x", 1, 0) != 1) {
        return Fail(i);
      }
      c.sent = true;
      return Watch(EPOLL_CTL_MOD, i, EPOLLIN);
    }
    char byte;
    if (recv(c.fd.get(), &byte, 1, 0) != 1) return Fail(i);
    samples_.Add(Clock::now() - c.begin);
    c.fd.Reset();
    --open_;
    Begin(i);
  }

  void Fail(size_t i) {
    ++failed_;
    clients_[i].fd.Reset();
    --open_;
    // A path that refuses everything must not become a busy loop.
    if (failed_ < 1000) Begin(i);
  }

  void Watch(int how, size_t i, uint32_t what) {
    epoll_event e{};
    e.events = what;
    e.data.u32 = static_cast<uint32_t>(i);
    if (epoll_ctl(epoll_.get(), how, clients_[i].fd.get(), &e) != 0) {
      DieWithErrno("epoll_ctl");
    }
  }

  const Address to_;
  const double max_;
  Fd epoll_;
  std::vector<Client> clients_;
  Samples samples_;
  Time start_{};
  Time end_{};
  Seconds took_{};
  size_t open_ = 0;
  double begun_ = 0;
  double failed_ = 0;
};

}  // namespace

int Connect(const Options& options) {
  RaiseFileLimit();
  const Address to = ParseAddress(options.Text("to", ""));
  Clients clients(to, static_cast<size_t>(options.Number("clients", 1)),
                  options.Number("max", 1e9));
  clients.Run(Seconds(options.Number("seconds", 2)));
  clients.Print();
  return 0;
}

}  // namespace netload

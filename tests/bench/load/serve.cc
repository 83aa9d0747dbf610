// The servers: echo, sink, source.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/bench/load/tools.h"

namespace netload {
namespace {

enum class Kind { kEcho, kSink, kSource };

// A dual-stack listener whose port other processes may share.
Fd Listen(int port) {
  Fd fd(socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.ok()) DieWithErrno("socket");
  const int on = 1, off = 0;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
  setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  any.sin6_port = htons(static_cast<uint16_t>(port));
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&any), sizeof(any)) != 0 ||
      listen(fd.get(), 65535) != 0) {
    DieWithErrno("cannot listen on port " + std::to_string(port));
  }
  return fd;
}

class Server {
 public:
  Server() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (!epoll_.ok()) DieWithErrno("epoll_create1");
  }

  void AddListener(Kind kind, int port) {
    if (port == 0) return;
    Fd fd = Listen(port);
    Watch(EPOLL_CTL_ADD, fd.get(), EPOLLIN);
    const int number = fd.get();
    listeners_.emplace(number, Listener{std::move(fd), kind});
  }

  [[noreturn]] void Run() {
    std::array<epoll_event, 256> events;
    while (true) {
      const int n = epoll_wait(epoll_.get(), events.data(),
                               static_cast<int>(events.size()), -1);
      for (int i = 0; i < n; ++i) {
        const int fd = events[static_cast<size_t>(i)].data.fd;
        if (auto it = listeners_.find(fd); it != listeners_.end()) {
          AcceptAll(it->second);
        } else if (!Work(fd)) {
          conns_[static_cast<size_t>(fd)] = {};  // closes
        }
      }
    }
  }

 private:
  struct Listener {
    Fd fd;
    Kind kind;
  };
  struct Conn {
    Fd fd;
    Kind kind = Kind::kEcho;
    std::string owed;  // echo: read and not yet written
  };

  void Watch(int how, int fd, uint32_t what) {
    epoll_event e{};
    e.events = what;
    e.data.fd = fd;
    epoll_ctl(epoll_.get(), how, fd, &e);
  }

  void AcceptAll(const Listener& listener) {
    while (true) {
      Fd fd(accept4(listener.fd.get(), nullptr, nullptr,
                    SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!fd.ok()) return;
      const int on = 1;
      setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      const auto index = static_cast<size_t>(fd.get());
      if (conns_.size() <= index) conns_.resize(index + 1);
      Watch(EPOLL_CTL_ADD, fd.get(),
            listener.kind == Kind::kSource ? EPOLLOUT : EPOLLIN);
      conns_[index] = {std::move(fd), listener.kind, {}};
    }
  }

  // False: the connection is over.
  bool Work(int fd) {
    Conn& conn = conns_[static_cast<size_t>(fd)];
    switch (conn.kind) {
      case Kind::kEcho:
        return Echo(conn);
      case Kind::kSink:
        return Read(conn) > 0 || errno == EAGAIN;
      case Kind::kSource:
        return send(fd, buffer_.data(), buffer_.size(), 0) > 0 ||
               errno == EAGAIN;
    }
    return false;
  }

  ssize_t Read(Conn& conn) {
    errno = 0;
    return recv(conn.fd.get(), buffer_.data(), buffer_.size(), 0);
  }

  // One read per event, so that one fast peer does not starve the others.
  bool Echo(Conn& conn) {
    const int fd = conn.fd.get();
    if (!conn.owed.empty()) {
      const ssize_t n = send(fd, conn.owed.data(), conn.owed.size(), 0);
      if (n < 0) return errno == EAGAIN;
      conn.owed.erase(0, static_cast<size_t>(n));
      if (conn.owed.empty()) Watch(EPOLL_CTL_MOD, fd, EPOLLIN);
      return true;
    }
    const ssize_t n = Read(conn);
    if (n <= 0) return errno == EAGAIN;
    const ssize_t sent = send(fd, buffer_.data(), static_cast<size_t>(n), 0);
    if (sent < 0 && errno != EAGAIN) return false;
    const auto done = static_cast<size_t>(sent < 0 ? 0 : sent);
    if (done == static_cast<size_t>(n)) return true;
    conn.owed.assign(buffer_.data() + done, static_cast<size_t>(n) - done);
    Watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
    return true;
  }

  Fd epoll_;
  std::unordered_map<int, Listener> listeners_;
  std::vector<Conn> conns_;  // by descriptor
  std::array<char, 128 * 1024> buffer_{};
};

}  // namespace

int Serve(const Options& options) {
  RaiseFileLimit();
  const auto processes = static_cast<int>(options.Number("processes", 1));
  // One server per process, made before any of them runs: a port that is
  // taken is told here.
  std::vector<pid_t> children;
  const pid_t parent = getpid();
  for (int i = 0; i < processes; ++i) {
    auto server = std::make_unique<Server>();
    server->AddListener(Kind::kEcho,
                        static_cast<int>(options.Number("echo", 7001)));
    server->AddListener(Kind::kSink,
                        static_cast<int>(options.Number("sink", 0)));
    server->AddListener(Kind::kSource,
                        static_cast<int>(options.Number("source", 0)));
    const pid_t child = fork();
    if (child < 0) DieWithErrno("fork");
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) return 0;
      server->Run();
    }
    children.push_back(child);
  }
  JsonLine("serve").Add("processes", processes).Print();
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
  for (const pid_t child : children) kill(child, SIGKILL);
  for (const pid_t child : children) waitpid(child, nullptr, 0);
  return 0;
}

}  // namespace netload

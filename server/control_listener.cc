#include "server/control_listener.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/peer.h"
#include "spdlog/spdlog.h"

namespace netstack::server {
namespace {

constexpr int kPauseMs = 50;
// What one connection may take: itself, its dup, and what accept4() wants
// before it says that nobody waits.
constexpr size_t kPerConnection = 3;
constexpr int kPerTurn = 64;  // accepts before other events are looked at

void Add(int epoll, int fd, uint32_t events) {
  epoll_event ev{};
  ev.events = events;
  ev.data.fd = fd;
  (void)epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev);
}

// True once a second.
bool Seldom(std::chrono::steady_clock::time_point& last) {
  const auto now = std::chrono::steady_clock::now();
  if (now - last < std::chrono::seconds(1)) return false;
  last = now;
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ControlListener>> ControlListener::Start(
    const std::string& path, std::vector<uint32_t> always,
    const ControlConfig& limits, ControlCounters* counters, EventLog* events,
    std::function<void(int fd)> handle) {
  const bool others = !always.empty() || !limits.allowed_uids.empty();
  auto socket = ControlSocket::Bind(path, others);
  if (!socket.ok()) return socket.status();
  auto out = std::unique_ptr<ControlListener>(
      new ControlListener(*std::move(socket), std::move(always), counters,
                          events, std::move(handle)));
  out->epoll_ = epoll_create1(EPOLL_CLOEXEC);
  out->stop_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (out->epoll_ < 0 || out->stop_ < 0) {
    return absl::ErrnoToStatus(errno, "cannot make an epoll set");
  }
  out->SetLimits(limits);
  out->RefillReserve();
  Add(out->epoll_, out->stop_, EPOLLIN);
  Add(out->epoll_, out->socket_->fd(), EPOLLIN);
  out->thread_ = std::thread([raw = out.get()] { raw->Run(); });
  pthread_setname_np(out->thread_.native_handle(), "control");
  return out;
}

ControlListener::ControlListener(std::unique_ptr<ControlSocket> socket,
                                 std::vector<uint32_t> always,
                                 ControlCounters* counters, EventLog* events,
                                 std::function<void(int fd)> handle)
    : socket_(std::move(socket)),
      always_(std::move(always)),
      counters_(counters),
      events_(events),
      handle_(std::move(handle)) {}

ControlListener::~ControlListener() {
  if (thread_.joinable()) {
    (void)!eventfd_write(stop_, 1);
    thread_.join();
  }
  for (int fd : connections_) close(fd);
  for (int fd : reserve_) close(fd);
  counters_->connections = 0;
  if (stop_ >= 0) close(stop_);
  if (epoll_ >= 0) close(epoll_);
}

void ControlListener::SetLimits(const ControlConfig& limits) {
  MutexLock lock(mu_);
  limits_ = limits;
  socket_->OpenToOthers(!always_.empty() || !limits.allowed_uids.empty());
}

void ControlListener::Run() {
  bool paused = false;
  for (;;) {
    epoll_event ready[32];
    const int n = epoll_wait(epoll_, ready, 32, paused ? kPauseMs : -1);
    bool accept = false;
    for (int i = 0; i < n; ++i) {
      const int fd = ready[i].data.fd;
      if (fd == stop_) return;
      if (fd == socket_->fd()) {
        accept = true;
        continue;
      }
      // The peer is gone, or gRPC has shut the connection down. Closing is
      // not enough: gRPC's descriptor keeps the file open, and with it this
      // entry, which would go on to report a number that is another's by now.
      (void)epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
      connections_.erase(fd);
      close(fd);
    }
    RefillReserve();  // also when nobody connects
    if (paused) {
      Add(epoll_, socket_->fd(), EPOLLIN);
      paused = false;
      accept = true;
    }
    if (accept && !AcceptAll()) {
      (void)epoll_ctl(epoll_, EPOLL_CTL_DEL, socket_->fd(), nullptr);
      paused = true;
    }
    counters_->connections = static_cast<uint32_t>(connections_.size());
  }
}

bool ControlListener::AcceptAll() {
  for (int turn = 0; turn < kPerTurn; ++turn) {
    // Not while it suffices: refilling would take back what was just given.
    if (reserve_.size() < kPerConnection) RefillReserve();
    if (reserve_.size() < kPerConnection) return false;
    const int fd = accept4(socket_->fd(), nullptr, nullptr,
                           SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      Admit(fd);
      continue;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) return true;
    if (errno == EINTR || errno == ECONNABORTED) continue;
    // EMFILE, ENFILE, ENOBUFS, ENOMEM.
    ++counters_->accept_errors;
    TellExhausted();
    if (!GiveReserve()) return false;
  }
  return true;
}

void ControlListener::Admit(int fd) {
  const std::optional<uint32_t> uid = PeerUid(fd);
  if (!uid) {
    close(fd);
    return;
  }
  uint32_t max_connections = 0;
  if (!MayUse(*uid, &max_connections)) {
    ++counters_->refused_uid;
    close(fd);
    TellRefused(*uid);
    return;
  }
  if (connections_.size() >= max_connections) {
    ++counters_->refused_limit;
    close(fd);
    return;
  }
  const int watched = DupWithReserve(fd);
  if (watched < 0) {
    close(fd);
    return;
  }
  // Counted before it can be asked about.
  connections_.insert(watched);
  counters_->connections = static_cast<uint32_t>(connections_.size());
  ++counters_->accepted;
  Add(epoll_, watched, EPOLLRDHUP | EPOLLHUP);
  spdlog::debug("control: connection from uid {}", *uid);
  handle_(fd);
}

int ControlListener::DupWithReserve(int fd) {
  for (;;) {
    const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy >= 0) return copy;
    ++counters_->accept_errors;
    TellExhausted();
    if (!GiveReserve()) return -1;
  }
}

bool ControlListener::GiveReserve() {
  if (reserve_.empty()) return false;
  close(reserve_.back());
  reserve_.pop_back();
  return true;
}

void ControlListener::RefillReserve() {
  while (reserve_.size() < kReserve) {
    // Any descriptor holds the place; an eventfd needs no file system.
    const int fd = eventfd(0, EFD_CLOEXEC);
    if (fd < 0) return;
    reserve_.push_back(fd);
  }
}

bool ControlListener::MayUse(uid_t uid, uint32_t* max_connections) {
  MutexLock lock(mu_);
  *max_connections = limits_.max_connections;
  return MayConnect(uid, always_) || MayConnect(uid, limits_.allowed_uids);
}

void ControlListener::TellRefused(uid_t uid) {
  if (!Seldom(last_refused_)) return;
  events_->Add(v1::EVENT_TYPE_CONTROL_REFUSED,
               absl::StrCat("uid ", uid,
                            " may not use the control socket and was turned "
                            "away."));
}

void ControlListener::TellExhausted() {
  if (!Seldom(last_exhausted_)) return;
  events_->Add(v1::EVENT_TYPE_CONTROL_DESCRIPTORS_EXHAUSTED,
               "No file descriptors for control connections; the reserve is "
               "in use.");
}

}  // namespace netstack::server

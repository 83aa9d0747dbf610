#include "server/descriptor_listener.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/platform/tun.h"
#include "server/errors.h"
#include "server/peer.h"

namespace netstack::server {
namespace {

constexpr size_t kMaxDescriptors = 253;  // SCM_MAX_FD of Linux

void WatchFd(int epoll, int fd) {
  epoll_event ev{};
  ev.events = EPOLLIN | EPOLLRDHUP;
  ev.data.fd = fd;
  (void)epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev);
}

// The end of the stream has arrived, or the peer is gone.
bool IsOver(int fd) {
  pollfd p{fd, POLLRDHUP, 0};
  return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

struct Received {
  ssize_t size = 0;  // as recvmsg(2); errno is kept
  std::vector<int> descriptors;
  bool cut = false;  // the kernel had to leave descriptors out
};

Received ReceiveSome(int fd, char* into, size_t size) {
  iovec vec{into, size};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxDescriptors * sizeof(int))];
  msghdr message{};
  message.msg_iov = &vec;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  Received out;
  do {
    out.size = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (out.size < 0 && errno == EINTR);
  if (out.size < 0) return out;
  out.cut = (message.msg_flags & MSG_CTRUNC) != 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr;
       c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int one = -1;
      std::memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof one);
      out.descriptors.push_back(one);
    }
  }
  return out;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DescriptorListener>> DescriptorListener::Start(
    const std::string& path, const Limits& limits, ControlCounters* counters,
    EventLog* events, std::function<void()> owner_gone) {
  auto socket = ControlSocket::Bind(path, !limits.allowed_uids.empty());
  if (!socket.ok()) return socket.status();
  auto out = std::unique_ptr<DescriptorListener>(new DescriptorListener(
      *std::move(socket), counters, events, std::move(owner_gone)));
  out->epoll_ = epoll_create1(EPOLL_CLOEXEC);
  out->wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (out->epoll_ < 0 || out->wake_ < 0) {
    return absl::ErrnoToStatus(errno, "cannot make an epoll set");
  }
  out->SetLimits(limits);
  WatchFd(out->epoll_, out->wake_);
  WatchFd(out->epoll_, out->socket_->fd());
  out->thread_ = std::thread([raw = out.get()] { raw->Run(); });
  pthread_setname_np(out->thread_.native_handle(), "descriptors");
  return out;
}

DescriptorListener::DescriptorListener(std::unique_ptr<ControlSocket> socket,
                                       ControlCounters* counters,
                                       EventLog* events,
                                       std::function<void()> owner_gone)
    : socket_(std::move(socket)),
      counters_(counters),
      events_(events),
      owner_gone_(std::move(owner_gone)) {}

DescriptorListener::~DescriptorListener() {
  if (thread_.joinable()) {
    stop_ = true;
    (void)!eventfd_write(wake_, 1);
    thread_.join();
  }
  {
    MutexLock lock(mu_);
    for (auto& [fd, c] : connections_) {
      if (c.message.descriptor() >= 0) close(c.message.descriptor());
      close(fd);
    }
    for (auto& [nonce, p] : pending_) close(p.fd);
  }
  counters_->descriptors_pending = 0;
  if (wake_ >= 0) close(wake_);
  if (epoll_ >= 0) close(epoll_);
}

void DescriptorListener::SetLimits(const Limits& limits) {
  MutexLock lock(mu_);
  limits_ = limits;
  socket_->OpenToOthers(!limits.allowed_uids.empty());
}

absl::StatusOr<int> DescriptorListener::Take(const std::string& nonce) {
  MutexLock lock(mu_);
  const auto it = pending_.find(nonce);
  if (it == pending_.end()) {
    return Refusal(absl::StatusCode::kNotFound, "DESCRIPTOR_NOT_FOUND",
                   absl::StrCat("No descriptor waits under this nonce of ",
                                nonce.size(), " bytes."));
  }
  const int fd = it->second.fd;
  owner_ = 0;
  for (const auto& [socket_fd, c] : connections_) {
    if (c.id == it->second.connection && !IsOver(socket_fd)) owner_ = c.id;
  }
  pending_.erase(it);
  counters_->descriptors_pending = static_cast<uint32_t>(pending_.size());
  return fd;
}

void DescriptorListener::ForgetOwner() {
  MutexLock lock(mu_);
  owner_ = 0;
}

void DescriptorListener::Run() {
  while (!stop_) {
    epoll_event ready[16];
    const int n = epoll_wait(epoll_, ready, 16, NextTimeout());
    for (int i = 0; i < n; ++i) {
      const int fd = ready[i].data.fd;
      if (fd == wake_) {
        eventfd_t ignored;
        (void)!eventfd_read(wake_, &ignored);
      } else if (fd == socket_->fd()) {
        AcceptAll();
      } else {
        Connection* c = nullptr;
        {
          MutexLock lock(mu_);
          const auto it = connections_.find(fd);
          if (it != connections_.end()) c = &it->second;
        }
        // Only this thread erases connections.
        if (c != nullptr && !Receive(fd, *c)) CloseConnection(fd);
      }
    }
    Expire();
  }
}

// Milliseconds until something expires; -1: nothing does.
int DescriptorListener::NextTimeout() {
  MutexLock lock(mu_);
  Clock::time_point next = Clock::time_point::max();
  for (const auto& [nonce, p] : pending_) next = std::min(next, p.until);
  for (const auto& [fd, c] : connections_) {
    if (!c.any || !c.message.empty()) {
      next = std::min(next, c.since + kMessageTimeout);
    }
  }
  if (next == Clock::time_point::max()) return -1;
  const auto wait = std::chrono::ceil<std::chrono::milliseconds>(
      next - Clock::now());
  return static_cast<int>(std::clamp<int64_t>(wait.count(), 0, 600'000));
}

void DescriptorListener::AcceptAll() {
  for (int turn = 0; turn < 64; ++turn) {
    const int fd = accept4(socket_->fd(), nullptr, nullptr,
                           SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) {
        // No descriptor for it. Level-triggered epoll would spin, so look
        // again a little later; callers wait in the backlog.
        ++counters_->accept_errors;
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
      }
      return;
    }
    MutexLock lock(mu_);
    const std::optional<uint32_t> uid = PeerUid(fd);
    if (!uid || !MayConnect(*uid, limits_.allowed_uids)) {
      ++counters_->refused_uid;
      close(fd);
      continue;
    }
    if (connections_.size() >= kMaxConnections) {
      ++counters_->refused_limit;
      close(fd);
      continue;
    }
    Connection c;
    c.id = next_id_++;
    c.since = Clock::now();
    connections_.emplace(fd, std::move(c));
    WatchFd(epoll_, fd);
  }
}

bool DescriptorListener::Receive(int fd, Connection& c) {
  // At most one whole message per turn, so that nobody starves the others.
  while (!c.message.done()) {
    char buffer[DescriptorMessage::kLength + DescriptorMessage::kMaxNonce];
    const Received got = ReceiveSome(fd, buffer, c.message.Want());
    if (got.size < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
    const bool first = c.message.empty();
    for (const int one : c.message.Take(
             {buffer, static_cast<size_t>(got.size)}, got.descriptors,
             got.cut)) {
      close(one);
    }
    if (got.size == 0) return false;
    if (first) c.since = Clock::now();
  }
  return Finish(fd, c);
}

// Answers the message at hand.
bool DescriptorListener::Finish(int fd, Connection& c) {
  const Verdict verdict = Judge(c);
  if (c.message.descriptor() >= 0) close(c.message.TakeDescriptor());
  c.message = DescriptorMessage();
  const bool good = verdict == v1::DESCRIPTOR_VERDICT_UNSPECIFIED;
  if (good) {
    c.any = true;
    ++counters_->descriptors_taken;
  } else {
    ++counters_->descriptors_refused;
    TellRefused(v1::DescriptorVerdict_Name(verdict));
  }
  const char byte = static_cast<char>(verdict);
  // One that does not read its answers is closed.
  return send(fd, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1 && good;
}

DescriptorListener::Verdict DescriptorListener::Judge(Connection& c) {
  switch (c.message.fault()) {
    case DescriptorMessage::Fault::kCut:
      return v1::DESCRIPTOR_VERDICT_TOO_MANY;
    case DescriptorMessage::Fault::kMany:
      return v1::DESCRIPTOR_VERDICT_MANY;
    case DescriptorMessage::Fault::kMalformed:
      return v1::DESCRIPTOR_VERDICT_MALFORMED;
    case DescriptorMessage::Fault::kNoDescriptor:
      return v1::DESCRIPTOR_VERDICT_NONE;
    case DescriptorMessage::Fault::kNone:
      break;
  }
  if (!CheckTunDescriptor(c.message.descriptor()).ok()) {
    return v1::DESCRIPTOR_VERDICT_WRONG_KIND;
  }
  return Keep(c, c.message.nonce());
}

DescriptorListener::Verdict DescriptorListener::Keep(Connection& c,
                                                     const std::string& nonce) {
  MutexLock lock(mu_);
  if (pending_.count(nonce) != 0) return v1::DESCRIPTOR_VERDICT_NONCE_IN_USE;
  if (pending_.size() >= limits_.app.max_descriptors) {
    return v1::DESCRIPTOR_VERDICT_TOO_MANY;
  }
  pending_[nonce] = {c.message.TakeDescriptor(), c.id,
                     Clock::now() + limits_.app.descriptor_timeout};
  counters_->descriptors_pending = static_cast<uint32_t>(pending_.size());
  return v1::DESCRIPTOR_VERDICT_UNSPECIFIED;
}

void DescriptorListener::CloseConnection(int fd) {
  bool owner = false;
  {
    MutexLock lock(mu_);
    const auto it = connections_.find(fd);
    if (it == connections_.end()) return;
    if (it->second.message.descriptor() >= 0) {
      close(it->second.message.descriptor());
    }
    owner = owner_ == it->second.id;
    if (owner) owner_ = 0;
    connections_.erase(it);
  }
  close(fd);
  if (owner) owner_gone_();
}

void DescriptorListener::Expire() {
  const Clock::time_point now = Clock::now();
  std::vector<int> late;
  {
    MutexLock lock(mu_);
    for (auto it = pending_.begin(); it != pending_.end();) {
      if (it->second.until > now) {
        ++it;
        continue;
      }
      // In this order: who sees the device gone finds it counted.
      ++counters_->descriptors_expired;
      close(it->second.fd);
      it = pending_.erase(it);
    }
    counters_->descriptors_pending = static_cast<uint32_t>(pending_.size());
    for (const auto& [fd, c] : connections_) {
      const bool waits = !c.any || !c.message.empty();
      if (waits && c.since + kMessageTimeout <= now) late.push_back(fd);
    }
  }
  for (int fd : late) CloseConnection(fd);
}

void DescriptorListener::TellRefused(const std::string& why) {
  const Clock::time_point now = Clock::now();
  if (last_told_ != Clock::time_point{} &&
      now - last_told_ < std::chrono::seconds(1)) {
    return;
  }
  last_told_ = now;
  events_->Add(v1::EVENT_TYPE_DESCRIPTOR_REFUSED,
               absl::StrCat("A message on ", path(), " was refused: ", why,
                            "."));
}

}  // namespace netstack::server

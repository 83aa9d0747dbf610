#include "core/dial/app_protector.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace netstack {
namespace {

constexpr Duration kRetry = std::chrono::milliseconds(5);

std::byte Protocol(SocketKind kind) {
  switch (kind) {
    case SocketKind::kTcp:
      return std::byte{6};
    case SocketKind::kUdp:
      return std::byte{17};
    case SocketKind::kEcho:
      return std::byte{1};
  }
  return std::byte{0};
}

}  // namespace

AppProtector::AppProtector(LocalSockets* sockets, Poller* poller,
                           Listener* listener, Options options)
    : sockets_(sockets),
      poller_(poller),
      listener_(listener),
      options_(std::move(options)) {}

AppProtector::~AppProtector() {
  for (Connection& c : connections_) CloseConnection(c);
}

bool AppProtector::Ask(uint32_t ticket, int fd, SocketKind kind, bool v4,
                       Instant now) {
  if (questions_.size() >= kMaxQuestions) return false;
  questions_[ticket] = {fd, kind, v4, false, now};
  queue_.push_back(ticket);
  Pump(now);
  return true;
}

void AppProtector::Cancel(uint32_t ticket) {
  const auto it = questions_.find(ticket);
  if (it == questions_.end()) return;
  if (it->second.sent) --sent_;
  questions_.erase(it);
  for (Connection& c : connections_) {
    if (options_.protocol == ProtectProtocol::kProtectPath && c.fd >= 0 &&
        c.ticket == ticket) {
      CloseConnection(c);
    }
  }
}

void AppProtector::Pump(Instant now) {
  retry_at_ = kNever;
  while (!queue_.empty()) {
    const uint32_t ticket = queue_.front();
    const auto it = questions_.find(ticket);
    if (it == questions_.end() || it->second.sent) {
      queue_.pop_front();
      continue;
    }
    const bool goes_on = options_.protocol == ProtectProtocol::kPipelined
                             ? SendPipelined(ticket, it->second)
                             : SendAlone(ticket, it->second, now);
    if (!goes_on) return;
    queue_.pop_front();
  }
}

// False: wait until the connection takes more.
bool AppProtector::SendPipelined(uint32_t ticket, const Question& q) {
  std::array<std::byte, 8> request{};
  Store32(request.data(), ticket);
  request[4] = Protocol(q.kind);
  request[5] = q.v4 ? std::byte{4} : std::byte{6};
  // A connection that broke unnoticed is made again, once.
  for (int attempt = 0; attempt < 2; ++attempt) {
    Connection& c = connections_[0];
    if (c.fd < 0 && Open() < 0) break;
    const int64_t n = sockets_->Send(c.fd, request, q.fd);
    if (n == static_cast<int64_t>(request.size())) {
      questions_[ticket].sent = true;
      ++sent_;
      return true;
    }
    // Room comes with a writable connection, or with an answer.
    if (n == -EAGAIN || (n == -ETOOMANYREFS && sent_ != 0)) return false;
    Broken(c);
  }
  Give(ticket, ProtectVerdict::kUnanswered);
  return true;
}

bool AppProtector::SendAlone(uint32_t ticket, const Question& q,
                             Instant now) {
  const int index = Open();
  if (index == -EBUSY) return false;  // a connection that ends calls again
  if (index == -EAGAIN) {
    retry_at_ = now + kRetry;
    return false;
  }
  if (index < 0) {
    Give(ticket, ProtectVerdict::kUnanswered);
    return true;
  }
  Connection& c = connections_[static_cast<size_t>(index)];
  c.ticket = ticket;
  questions_[ticket].sent = true;
  ++sent_;
  // What existing apps expect: one byte, whose value they ignore.
  const std::byte mark{'!'};
  if (sockets_->Send(c.fd, {&mark, 1}, q.fd) != 1) Broken(c);
  return true;
}

int AppProtector::Open() {
  const auto free =
      std::find_if(connections_.begin(), connections_.end(),
                   [](const Connection& c) { return c.fd < 0; });
  if (free == connections_.end()) return -EBUSY;
  const int fd = sockets_->Connect(options_.path);
  if (fd < 0) return fd;
  const std::optional<uint32_t> uid = sockets_->PeerUid(fd);
  const bool trusted = uid && (*uid == 0 || uid == options_.uid ||
                               *uid == sockets_->OwnUid());
  const auto index = static_cast<uint32_t>(free - connections_.begin());
  ++free->generation;
  const PollToken token{PollToken::Kind::kProtect,
                        free->generation & 0xFFFFFF,
                        options_.first_index + index};
  if (!trusted ||
      poller_->Add(fd, token, Poller::Trigger::kEdgeReadWrite) != 0) {
    sockets_->Close(fd);
    return -EACCES;
  }
  free->fd = fd;
  free->answered = 0;
  return static_cast<int>(index);
}

void AppProtector::CloseConnection(Connection& c) {
  if (c.fd >= 0) sockets_->Close(std::exchange(c.fd, -1));
}

void AppProtector::OnPoll(const PollEvent& event, Instant now) {
  const uint32_t index = event.token.index - options_.first_index;
  if (index >= connections_.size()) return;  // another protector's
  Connection& c = connections_[index];
  if (c.fd < 0 || (c.generation & 0xFFFFFF) != event.token.generation) return;
  if (event.readable || event.read_closed || event.error) {
    if (options_.protocol == ProtectProtocol::kPipelined) {
      ReadPipelined(c);
    } else {
      ReadAlone(c);
    }
  }
  Pump(now);
}

void AppProtector::ReadPipelined(Connection& c) {
  while (c.fd >= 0) {
    std::array<std::byte, 512> buffer;
    const int64_t n = sockets_->Receive(c.fd, buffer);
    if (n == -EAGAIN) return;
    if (n <= 0) return Broken(c);
    for (const std::byte b : Bytes(buffer).first(static_cast<size_t>(n))) {
      c.answer[c.answered++] = b;
      if (c.answered < c.answer.size()) continue;
      c.answered = 0;
      if (Load8(&c.answer[5]) != 0 || Load16(&c.answer[6]) != 0) {
        return Broken(c);
      }
      // One that is not known came too late, or its dial was given up.
      Give(Load32(c.answer.data()), Load8(&c.answer[4]) == 0
                                        ? ProtectVerdict::kYes
                                        : ProtectVerdict::kNo);
    }
  }
}

void AppProtector::ReadAlone(Connection& c) {
  std::byte verdict{1};
  const int64_t n = sockets_->Receive(c.fd, {&verdict, 1});
  if (n == -EAGAIN) return;
  if (n != 1) return Broken(c);
  CloseConnection(c);
  Give(c.ticket, verdict == std::byte{0} ? ProtectVerdict::kYes
                                         : ProtectVerdict::kNo);
}

void AppProtector::Broken(Connection& c) {
  CloseConnection(c);
  if (options_.protocol == ProtectProtocol::kProtectPath) {
    return Give(c.ticket, ProtectVerdict::kUnanswered);
  }
  std::vector<uint32_t> lost;
  for (const auto& [ticket, q] : questions_) {
    if (q.sent) lost.push_back(ticket);
  }
  for (uint32_t ticket : lost) Give(ticket, ProtectVerdict::kUnanswered);
}

void AppProtector::Give(uint32_t ticket, ProtectVerdict verdict) {
  const auto it = questions_.find(ticket);
  // An answer to what was never sent is nobody's.
  if (it == questions_.end()) return;
  if (verdict != ProtectVerdict::kUnanswered && !it->second.sent) return;
  if (it->second.sent) --sent_;
  questions_.erase(it);
  verdicts_.emplace_back(ticket, verdict);
}

void AppProtector::OnTurn(Instant now) {
  while (!questions_.empty()) {
    const auto& [ticket, q] = *questions_.begin();
    if (q.asked + options_.timeout > now) break;
    const uint32_t late = ticket;
    Give(late, ProtectVerdict::kUnanswered);
    for (Connection& c : connections_) {
      if (options_.protocol == ProtectProtocol::kProtectPath &&
          c.fd >= 0 && c.ticket == late) {
        CloseConnection(c);
      }
    }
  }
  if (retry_at_ <= now || !queue_.empty()) Pump(now);
  std::vector<std::pair<uint32_t, ProtectVerdict>> verdicts;
  verdicts.swap(verdicts_);
  for (const auto& [ticket, verdict] : verdicts) {
    listener_->OnVerdict(ticket, verdict, now);
  }
}

Instant AppProtector::next_deadline(Instant now) const {
  if (!verdicts_.empty()) return now;
  Instant next = retry_at_;
  if (!questions_.empty()) {
    next = std::min(next, questions_.begin()->second.asked + options_.timeout);
  }
  return next;
}

}  // namespace netstack

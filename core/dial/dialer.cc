#include "core/dial/dialer.h"

#include <cerrno>

namespace netstack {
namespace {

// After the app refused to protect a socket of the pool, or was not there.
constexpr Duration kFillAgain = std::chrono::seconds(1);

}  // namespace

DialOutcome DialOutcomeOf(int error) {
  switch (error) {
    case 0:
      return DialOutcome::kConnected;
    case EINPROGRESS:
      return DialOutcome::kInProgress;
    case ECONNREFUSED:
    case ECONNRESET:
      return DialOutcome::kRefused;
    case ENETUNREACH:
    case ENETDOWN:
    case EAFNOSUPPORT:
      return DialOutcome::kNetUnreachable;
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENOPROTOOPT:  // ICMP protocol unreachable, icmp(7)
      return DialOutcome::kHostUnreachable;
    case EACCES:
    case EPERM:
      return DialOutcome::kProhibited;
    case ETIMEDOUT:
      return DialOutcome::kTimedOut;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      return DialOutcome::kNoDescriptor;
    case EADDRNOTAVAIL:
      return DialOutcome::kNoPort;
    default:
      return DialOutcome::kOther;
  }
}

Dialer::Dialer(Sockets* sockets, const Options& options)
    : sockets_(sockets), options_(options) {}

Dialer::~Dialer() { FlushPool(); }

void Dialer::SetProtectors(
    std::vector<std::unique_ptr<Protector>> protectors) {
  protectors_ = std::move(protectors);
  FlushPool();
}

void Dialer::SetAppProtector(std::unique_ptr<AppProtector> app,
                             const Pool& pool, DialListener* listener) {
  FlushPool();
  // What was asked of the one before is not answered any more.
  std::vector<uint32_t> tickets;
  for (const auto& [ticket, asked] : asked_) tickets.push_back(ticket);
  for (uint32_t ticket : tickets) {
    if (app_ != nullptr) app_->Cancel(ticket);
    OnVerdict(ticket, ProtectVerdict::kUnanswered, now_);
  }
  app_ = std::move(app);
  wanted_ = app_ == nullptr ? Pool{} : pool;
  listener_ = listener;
  FlushPool();
}

void Dialer::FlushPool() {
  for (std::vector<int>& ready : pool_) {
    for (int fd : ready) Close(fd, false);
    ready.clear();
  }
  // Those being asked for were protected in the old way, too.
  std::vector<uint32_t> stale;
  for (const auto& [ticket, asked] : asked_) {
    if (asked.pool) stale.push_back(ticket);
  }
  for (uint32_t ticket : stale) {
    if (app_ != nullptr) app_->Cancel(ticket);
    const int fd = asked_[ticket].fd;
    asked_.erase(ticket);
    Close(fd, false);
  }
  filling_.fill(0);
  impossible_.fill(false);
  fill_ = wanted_.tcp + wanted_.udp + wanted_.echo != 0;
  fill_at_ = kNever;
}

Dial Dialer::OpenLocally(SocketKind kind, bool v4) {
  if (in_use_ >= options_.max_sockets) return {DialOutcome::kNoDescriptor, -1};
  const int fd = sockets_->Open(kind, v4);
  if (fd < 0) return {DialOutcomeOf(-fd), -1};
  ++in_use_;
  for (const auto& protector : protectors_) {
    if (protector->Protect(fd) == 0) continue;
    Close(fd, false);
    return {DialOutcome::kProtectFailed, -1};
  }
  return {DialOutcome::kConnected, fd};
}

std::optional<int> Dialer::FromPool(SocketKind kind, bool v4) {
  if (PoolTarget(kind) == 0) return {};
  fill_ = true;
  std::vector<int>& ready = Ready(kind, v4);
  if (ready.empty()) {
    ++stats_.pool_misses;
    return {};
  }
  ++stats_.pool_hits;
  const int fd = ready.back();
  ready.pop_back();
  return fd;
}

Dial Dialer::OpenProtected(SocketKind kind, bool v4) {
  if (app_ == nullptr) return OpenLocally(kind, v4);
  if (const auto fd = FromPool(kind, v4)) {
    return {DialOutcome::kConnected, *fd};
  }
  return {DialOutcome::kNotReady, -1};
}

bool Dialer::Ask(const Asked& what, uint32_t* ticket) {
  while (next_ticket_ == 0 || asked_.contains(next_ticket_)) ++next_ticket_;
  *ticket = next_ticket_++;
  if (!app_->Ask(*ticket, what.fd, what.kind, what.v4, now_)) return false;
  asked_[*ticket] = what;
  ++stats_.protect_asked;
  return true;
}

Dial Dialer::Open(SocketKind kind, bool v4, const std::string& device) {
  ++stats_.attempts;
  const Dial dial = OpenProtected(kind, v4);
  if (dial.fd < 0 || device.empty() ||
      sockets_->BindToDevice(dial.fd, device) == 0) {
    return {Count(dial.outcome), dial.fd};
  }
  Close(dial.fd, false);
  return {Count(DialOutcome::kNetUnreachable), -1};
}

Dial Dialer::DialUdp(const Endpoint& to) {
  ++stats_.attempts;
  const Dial dial = OpenProtected(SocketKind::kUdp, to.ip.IsV4());
  if (dial.fd < 0) return {Count(dial.outcome), -1};
  const DialOutcome outcome = DialOutcomeOf(-sockets_->Connect(dial.fd, to));
  if (outcome == DialOutcome::kConnected) {
    Under& under = under_[dial.fd];
    under.to = to;
    under.from = sockets_->LocalEndpoint(dial.fd);
    own_.insert({under.from, to});
    return {Count(outcome), dial.fd};
  }
  Close(dial.fd, false);
  return {Count(outcome), -1};
}

Dial Dialer::DialTcp(const Endpoint& to, uint8_t ttl,
                     std::optional<PollToken> token) {
  ++stats_.attempts;
  const bool v4 = to.ip.IsV4();
  Dial open = OpenProtected(SocketKind::kTcp, v4);
  const bool ask = open.outcome == DialOutcome::kNotReady && token;
  if (ask) open = OpenLocally(SocketKind::kTcp, v4);
  if (open.fd < 0) return {Count(open.outcome), -1};
  if (!ask) return Connect(open.fd, to, ttl, token);
  Under under;
  under.to = to;
  under.ttl = ttl;
  under.token = *token;
  if (!Ask({open.fd, SocketKind::kTcp, v4, false}, &under.ticket)) {
    Close(open.fd, false);
    return {Count(DialOutcome::kProtectFailed), -1};
  }
  under_[open.fd] = under;
  return {DialOutcome::kInProgress, open.fd};
}

void Dialer::SetToken(int fd, PollToken token) {
  const auto it = under_.find(fd);
  if (it != under_.end()) it->second.token = token;
}

bool Dialer::IsProtecting(int fd) const {
  const auto it = under_.find(fd);
  return it != under_.end() && it->second.ticket != 0;
}

// connect() of a protected socket, without waiting.
DialOutcome Dialer::Begin(int fd, const Endpoint& to, uint8_t ttl) {
  const bool v4 = to.ip.IsV4();
  if (options_.user_timeout > Duration::zero()) {
    // A wish of the operator's; the flow works without it.
    (void)sockets_->SetUserTimeout(fd, options_.user_timeout);
  }
  // Both are for the app's eyes only.
  if (ttl != 0) (void)sockets_->SetTtl(fd, v4, ttl);
  (void)sockets_->KeepErrors(fd, v4, true);
  return DialOutcomeOf(-sockets_->Connect(fd, to));
}

// The socket is protected. Closes it when it does not connect.
Dial Dialer::Connect(int fd, const Endpoint& to, uint8_t ttl,
                     std::optional<PollToken> token) {
  const DialOutcome outcome = Begin(fd, to, ttl);
  if (outcome == DialOutcome::kInProgress) {
    Under& under = under_[fd];
    under.to = to;
    under.from = sockets_->LocalEndpoint(fd);
    if (token) under.token = *token;
    under.ticket = 0;
    own_.insert({under.from, to});
    return {outcome, fd};
  }
  if (outcome == DialOutcome::kConnected) {
    (void)sockets_->KeepErrors(fd, to.ip.IsV4(), false);
    return {Count(outcome), fd};
  }
  Close(fd, false);
  return {Count(outcome), -1};
}

std::optional<IpAddress> Dialer::SourceTowards(const Endpoint& to,
                                               int* probe) {
  if (*probe < 0) {
    *probe = OpenProtected(SocketKind::kUdp, to.ip.IsV4()).fd;
    if (*probe < 0) return {};
  } else if (sockets_->Disconnect(*probe) != 0) {
    return {};
  }
  // A datagram socket's connect() chooses the route and sends nothing.
  if (sockets_->Connect(*probe, to) != 0) return {};
  return sockets_->LocalEndpoint(*probe).ip;
}

bool Dialer::IsOwnDial(const Endpoint& source,
                       const Endpoint& destination) const {
  return own_.contains({source, destination});
}

DialOutcome Dialer::FinishDial(int fd, bool v4) {
  const auto it = under_.find(fd);
  if (it != under_.end()) {
    if (it->second.ticket != 0) return DialOutcome::kInProgress;
    if (it->second.failed) {
      const DialOutcome failed = *it->second.failed;
      under_.erase(it);
      return Count(failed);
    }
  }
  Forget(fd);
  const DialOutcome outcome = DialOutcomeOf(-sockets_->TakeError(fd));
  if (outcome == DialOutcome::kConnected) {
    (void)sockets_->KeepErrors(fd, v4, false);
  }
  return Count(outcome);
}

// The dial is over, one way or another.
void Dialer::Forget(int fd) {
  const auto it = under_.find(fd);
  if (it == under_.end()) return;
  if (it->second.ticket != 0) {
    app_->Cancel(it->second.ticket);
    asked_.erase(it->second.ticket);
  }
  if (it->second.from.port != 0) own_.erase({it->second.from, it->second.to});
  under_.erase(it);
}

void Dialer::Close(int fd, bool reset) {
  Forget(fd);
  sockets_->Close(fd, reset);
  --in_use_;
}

// --- the app's verdicts -----------------------------------------------------

void Dialer::OnVerdict(uint32_t ticket, ProtectVerdict verdict, Instant now) {
  const auto it = asked_.find(ticket);
  if (it == asked_.end()) return;
  const Asked asked = it->second;
  asked_.erase(it);
  if (verdict == ProtectVerdict::kNo) ++stats_.protect_refused;
  if (verdict == ProtectVerdict::kUnanswered) {
    ++stats_.protect_unanswered;
    if (listener_ != nullptr) listener_->OnProtectorDown();
  }
  const bool yes = verdict == ProtectVerdict::kYes;
  if (asked.pool) {
    const size_t which =
        static_cast<size_t>(asked.kind) * 2 + (asked.v4 ? 0 : 1);
    --filling_[which];
    if (yes) {
      pool_[which].push_back(asked.fd);
    } else {
      Close(asked.fd, false);
      // The app says no, or is not there: not at once again.
      fill_at_ = now + kFillAgain;
    }
    return;
  }
  const auto dial = under_.find(asked.fd);
  if (dial == under_.end()) return;
  Under& under = dial->second;
  under.ticket = 0;
  if (!yes) {
    under.failed = DialOutcome::kProtectFailed;
  } else {
    const DialOutcome outcome = Begin(asked.fd, under.to, under.ttl);
    if (outcome == DialOutcome::kInProgress) {
      under.from = sockets_->LocalEndpoint(asked.fd);
      own_.insert({under.from, under.to});
      return;  // the poller tells the rest
    }
    if (outcome == DialOutcome::kConnected) {
      (void)sockets_->KeepErrors(asked.fd, asked.v4, false);
    }
    under.failed = outcome;  // kConnected, too
  }
  PollEvent event;
  event.token = under.token;
  event.writable = true;
  events_.push_back(event);
}

std::optional<PollEvent> Dialer::TakeEvent() {
  if (events_.empty()) return {};
  const PollEvent event = events_.front();
  events_.pop_front();
  return event;
}

void Dialer::OnPoll(const PollEvent& event, Instant now) {
  now_ = now;
  if (app_ != nullptr) app_->OnPoll(event, now);
}

void Dialer::OnTurn(Instant now) {
  now_ = now;
  if (app_ == nullptr) return;
  app_->OnTurn(now);
  if (now >= fill_at_) {
    fill_ = true;
    fill_at_ = kNever;
  }
  if (fill_) FillPool(now);
}

void Dialer::FillPool(Instant now) {
  fill_ = false;
  if (fill_at_ != kNever) return;  // a failure is being waited out
  for (const SocketKind kind :
       {SocketKind::kTcp, SocketKind::kUdp, SocketKind::kEcho}) {
    for (const bool v4 : {true, false}) {
      const size_t which = static_cast<size_t>(kind) * 2 + (v4 ? 0 : 1);
      while (!impossible_[which] &&
             pool_[which].size() + filling_[which] < PoolTarget(kind)) {
        const Dial open = OpenLocally(kind, v4);
        if (open.outcome == DialOutcome::kNoDescriptor ||
            open.outcome == DialOutcome::kProtectFailed) {
          fill_at_ = now + kFillAgain;
          return;
        }
        uint32_t ticket = 0;
        if (open.fd < 0) {
          impossible_[which] = true;  // no ping sockets here, or no IPv6
        } else if (Ask({open.fd, kind, v4, true}, &ticket)) {
          ++filling_[which];
        } else {
          Close(open.fd, false);
          fill_at_ = now + kFillAgain;
          return;
        }
      }
    }
  }
}

Instant Dialer::next_deadline(Instant now) const {
  if (app_ == nullptr) return kNever;
  if (fill_ && fill_at_ == kNever) return now;
  return std::min({app_->next_deadline(now), fill_at_,
                   events_.empty() ? kNever : now});
}

DialStats Dialer::stats() const {
  DialStats s = stats_;
  for (const std::vector<int>& ready : pool_) {
    s.pool_ready += static_cast<uint32_t>(ready.size());
  }
  s.protecting = static_cast<uint32_t>(asked_.size());
  return s;
}

DialOutcome Dialer::Count(DialOutcome outcome) {
  switch (outcome) {
    case DialOutcome::kConnected:
      ++stats_.connected;
      break;
    case DialOutcome::kRefused:
      ++stats_.refused;
      break;
    case DialOutcome::kNetUnreachable:
    case DialOutcome::kHostUnreachable:
    case DialOutcome::kProhibited:
      ++stats_.unreachable;
      break;
    case DialOutcome::kTimedOut:
      ++stats_.timed_out;
      break;
    case DialOutcome::kProtectFailed:
      ++stats_.protect_failed;
      break;
    case DialOutcome::kNotReady:  // told by pool_misses
      break;
    case DialOutcome::kNoDescriptor:
      ++stats_.no_descriptor;
      break;
    case DialOutcome::kInProgress:
      break;
    case DialOutcome::kNoPort:
    case DialOutcome::kOther:
      ++stats_.other_errors;
      break;
  }
  return outcome;
}

}  // namespace netstack

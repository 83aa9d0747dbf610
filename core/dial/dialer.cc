#include "core/dial/dialer.h"

#include <cerrno>

namespace netstack {

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

Dial Dialer::OpenProtected(SocketKind kind, bool v4) {
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
  if (outcome == DialOutcome::kConnected) return {Count(outcome), dial.fd};
  Close(dial.fd, false);
  return {Count(outcome), -1};
}

Dial Dialer::DialTcp(const Endpoint& to, uint8_t ttl) {
  const bool v4 = to.ip.IsV4();
  ++stats_.attempts;
  const Dial open = OpenProtected(SocketKind::kTcp, v4);
  if (open.fd < 0) return {Count(open.outcome), -1};
  const int fd = open.fd;
  if (options_.user_timeout > Duration::zero()) {
    // A wish of the operator's; the flow works without it.
    (void)sockets_->SetUserTimeout(fd, options_.user_timeout);
  }
  // Both are for the app's eyes only.
  if (ttl != 0) (void)sockets_->SetTtl(fd, v4, ttl);
  (void)sockets_->KeepErrors(fd, v4, true);
  const DialOutcome outcome = DialOutcomeOf(-sockets_->Connect(fd, to));
  if (outcome == DialOutcome::kInProgress) return {outcome, fd};
  if (outcome == DialOutcome::kConnected) {
    (void)sockets_->KeepErrors(fd, v4, false);
    return {Count(outcome), fd};
  }
  Close(fd, false);
  return {Count(outcome), -1};
}

DialOutcome Dialer::FinishDial(int fd, bool v4) {
  const DialOutcome outcome = DialOutcomeOf(-sockets_->TakeError(fd));
  if (outcome == DialOutcome::kConnected) {
    (void)sockets_->KeepErrors(fd, v4, false);
  }
  return Count(outcome);
}

void Dialer::Close(int fd, bool reset) {
  sockets_->Close(fd, reset);
  --in_use_;
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

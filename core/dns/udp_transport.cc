#include "core/dns/udp_transport.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace netstack {
namespace {

// Answers taken from one socket per event, lest a flood keep the loop here;
// the rest is reported again.
constexpr int kMaxPerEvent = 64;
// Late ids that are remembered per shared socket.
constexpr size_t kMaxLate = 256;

}  // namespace

ExchangeError ErrorOf(DialOutcome outcome) {
  switch (outcome) {
    case DialOutcome::kRefused:
      return ExchangeError::kRefused;
    case DialOutcome::kNetUnreachable:
    case DialOutcome::kHostUnreachable:
    case DialOutcome::kProhibited:
      return ExchangeError::kUnreachable;
    case DialOutcome::kTimedOut:
      return ExchangeError::kTimedOut;
    case DialOutcome::kProtectFailed:
      return ExchangeError::kProtectFailed;
    case DialOutcome::kNoDescriptor:
    case DialOutcome::kNoPort:
    case DialOutcome::kNotReady:
      return ExchangeError::kNoDescriptor;
    case DialOutcome::kConnected:
    case DialOutcome::kInProgress:
    case DialOutcome::kOther:
      break;
  }
  return ExchangeError::kOther;
}

UdpTransport::UdpTransport(const Parts& parts, uint32_t max_sockets,
                           std::unique_ptr<Transport> tcp)
    : parts_(parts),
      max_sockets_(std::max<uint32_t>(max_sockets, 1)),
      tcp_(std::move(tcp)) {}

UdpTransport::~UdpTransport() {
  while (!open_.empty()) Close(open_.back());
}

std::optional<ExchangeError> UdpTransport::Send(
    ExchangeId id, const UpstreamQuery& query,
    std::span<const Endpoint> servers, bool /*fresh*/, Instant /*now*/) {
  if (servers.empty()) return ExchangeError::kNoAddress;
  ExchangeError error = ExchangeError::kOther;
  Socket* socket = SocketFor(servers[0], &error);
  if (socket == nullptr) return error;

  auto exchange = std::make_unique<Exchange>();
  exchange->query = query;
  exchange->server = servers[0];
  do {
    exchange->wire_id = static_cast<uint16_t>(parts_.ids->Next());
  } while (
      std::any_of(socket->exchanges.begin(), socket->exchanges.end(),
                  [&](const auto& e) { return e.first == exchange->wire_id; }));
  Store16(&exchange->query.data[0], exchange->wire_id);

  const Bytes datagram = exchange->query.bytes();
  const int64_t sent =
      parts_.dialer->sockets()->Send(socket->fd, {&datagram, 1});
  if (sent < 0 && sent != -EAGAIN) {
    // An ICMP error of an earlier datagram shows here too. EAGAIN is a loss
    // like any other on the way.
    const ExchangeError why = ErrorOf(DialOutcomeOf(static_cast<int>(-sent)));
    if (socket->exchanges.empty()) Close(socket);
    return why;
  }
  exchange->socket = socket;
  socket->exchanges.emplace_back(exchange->wire_id, id);
  exchanges_.emplace(id, std::move(exchange));
  return std::nullopt;
}

UdpTransport::Socket* UdpTransport::SocketFor(const Endpoint& server,
                                              ExchangeError* error) {
  if (open_.size() >= max_sockets_) {
    if (Socket* shared = Share(server)) return shared;
    // All of them talk to another address of the upstream.
    *error = ExchangeError::kNoDescriptor;
    return nullptr;
  }
  const Dial dial = parts_.dialer->DialUdp(server);
  if (dial.fd < 0) {
    *error = ErrorOf(dial.outcome);
    if (*error == ExchangeError::kNoDescriptor) return Share(server);
    return nullptr;
  }
  Socket* socket = sockets_.Allocate();
  if (socket == nullptr) {
    parts_.dialer->Close(dial.fd, false);
    *error = ExchangeError::kNoDescriptor;
    return nullptr;
  }
  socket->fd = dial.fd;
  socket->server = server;
  const uint64_t cookie = uint64_t{socket->generation} << 32 | socket->index;
  socket->watch =
      parts_.watch->Watch(dial.fd, Poller::Trigger::kLevelRead, this, cookie);
  open_.push_back(socket);
  if (!socket->watch.valid()) {
    Close(socket);
    *error = ExchangeError::kNoDescriptor;
    return nullptr;
  }
  ++stats_.connections;
  return socket;
}

// The one with the fewest queries.
UdpTransport::Socket* UdpTransport::Share(const Endpoint& server) {
  Socket* best = nullptr;
  for (Socket* socket : open_) {
    if (socket->server != server) continue;
    if (best == nullptr || socket->exchanges.size() < best->exchanges.size()) {
      best = socket;
    }
  }
  // Half of all ids in use: finding a free one would take its time.
  if (best != nullptr && best->exchanges.size() > 32768) return nullptr;
  return best;
}

void UdpTransport::Close(Socket* socket) {
  parts_.watch->Forget(socket->watch);
  parts_.dialer->Close(socket->fd, false);
  open_.erase(std::find(open_.begin(), open_.end(), socket));
  sockets_.Free(socket);
}

void UdpTransport::Detach(ExchangeId id, Exchange* exchange) {
  Socket* socket = std::exchange(exchange->socket, nullptr);
  if (socket == nullptr) return;
  const auto at = std::find(socket->exchanges.begin(), socket->exchanges.end(),
                            std::pair(exchange->wire_id, id));
  *at = socket->exchanges.back();
  socket->exchanges.pop_back();
  if (socket->exchanges.empty()) {
    Close(socket);
  } else if (socket->late.size() < kMaxLate) {
    socket->late.push_back(exchange->wire_id);
  }
}

void UdpTransport::Cancel(ExchangeId id, bool silent) {
  const auto it = exchanges_.find(id);
  if (it == exchanges_.end()) {
    tcp_->Cancel(id, silent);
    return;
  }
  Detach(id, it->second.get());
  exchanges_.erase(it);
}

void UdpTransport::Reset(Instant now) {
  while (!open_.empty()) FailAll(open_.back(), ExchangeError::kClosed);
  for (const ExchangeId id : std::exchange(to_tcp_, {})) {
    if (exchanges_.erase(id) != 0) {
      parts_.listener->OnFailed(id, ExchangeError::kClosed, "");
    }
  }
  tcp_->Reset(now);
}

void UdpTransport::OnTurn(Instant now) {
  for (const ExchangeId id : std::exchange(to_tcp_, {})) {
    const auto it = exchanges_.find(id);
    if (it == exchanges_.end()) continue;
    const std::unique_ptr<Exchange> exchange = std::move(it->second);
    exchanges_.erase(it);  // TCP's from here on
    const auto error = tcp_->Send(id, exchange->query, {&exchange->server, 1},
                                  /*fresh=*/false, now);
    if (error) parts_.listener->OnFailed(id, *error, "over TCP");
  }
  tcp_->OnTurn(now);
}

Instant UdpTransport::next_deadline() const {
  return to_tcp_.empty() ? tcp_->next_deadline() : kAtOnce;
}

TransportStats UdpTransport::stats() const {
  TransportStats all = tcp_->stats();
  all.mismatched += stats_.mismatched;
  all.truncated += stats_.truncated;
  all.connections += stats_.connections;
  all.sockets += static_cast<uint32_t>(open_.size());
  return all;
}

// --- way back ---------------------------------------------------------------

void UdpTransport::OnReady(uint64_t cookie, const PollEvent& /*event*/,
                           Instant /*now*/) {
  const auto index = static_cast<uint32_t>(cookie);
  const auto generation = static_cast<uint32_t>(cookie >> 32);
  for (int i = 0; i < kMaxPerEvent; ++i) {
    // Looked up each time: an answer may have closed it.
    Socket* socket = sockets_.Find(index, generation);
    if (socket == nullptr) return;
    const int64_t n =
        parts_.dialer->sockets()->Receive(socket->fd, parts_.scratch);
    if (n == -EAGAIN) return;
    if (n < 0) {
      FailAll(socket, ErrorOf(DialOutcomeOf(static_cast<int>(-n))));
      return;
    }
    OnDatagram(socket, parts_.scratch.first(static_cast<size_t>(n)));
  }
}

void UdpTransport::OnDatagram(Socket* socket, Bytes datagram) {
  if (datagram.size() < 12) {
    ++stats_.mismatched;
    return;
  }
  const uint16_t wire_id = Load16(&datagram[0]);
  const auto at =
      std::find_if(socket->exchanges.begin(), socket->exchanges.end(),
                   [&](const auto& e) { return e.first == wire_id; });
  const ExchangeId id = at == socket->exchanges.end() ? 0 : at->second;
  Exchange* exchange = id == 0 ? nullptr : exchanges_.at(id).get();
  const QuestionMatch match = exchange == nullptr
                                  ? QuestionMatch::kNo
                                  : MatchQuestion(datagram, exchange->query);
  if (match == QuestionMatch::kOtherCase) {
    ++stats_.mismatched;
    ToTcp(id, exchange);
    return;
  }
  if (match == QuestionMatch::kNo) {
    ++stats_.mismatched;
    const auto late =
        std::find(socket->late.begin(), socket->late.end(), wire_id);
    if (late != socket->late.end()) {
      socket->late.erase(late);
      return;
    }
    if (++socket->forged < kMaxForged) return;
    // Somebody guesses. Nothing that comes here is believed any more.
    while (socket->exchanges.size() > 1) {
      const ExchangeId last = socket->exchanges.back().second;
      ToTcp(last, exchanges_.at(last).get());
    }
    const ExchangeId last = socket->exchanges.front().second;
    ToTcp(last, exchanges_.at(last).get());
    return;
  }
  constexpr uint8_t kTruncated = 0x02;
  if ((Load8(&datagram[2]) & kTruncated) != 0) {
    ++stats_.truncated;
    ToTcp(id, exchange);
    return;
  }
  Detach(id, exchange);
  exchanges_.erase(id);
  parts_.listener->OnAnswer(id, datagram);
}

// Not sent from here: the listener's owner may be in the middle of something.
void UdpTransport::ToTcp(ExchangeId id, Exchange* exchange) {
  Detach(id, exchange);
  to_tcp_.push_back(id);
}

void UdpTransport::FailAll(Socket* socket, ExchangeError error) {
  std::vector<std::pair<uint16_t, ExchangeId>> exchanges;
  exchanges.swap(socket->exchanges);
  Close(socket);
  for (const auto& [wire_id, id] : exchanges) {
    exchanges_.erase(id);
    parts_.listener->OnFailed(id, error, "");
  }
}

}  // namespace netstack

#include "core/dns/stream_transport.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include "core/dns/udp_transport.h"

namespace netstack {
namespace {

// Reads per event, lest one server keep the loop; the rest is reported again.
constexpr int kMaxReads = 8;
// Of decrypted bytes taken at once.
constexpr size_t kPlainChunk = 16 * 1024;
constexpr size_t kMaxMessage = 65535;

}  // namespace

StreamTransport::StreamTransport(const Parts& parts, Options options)
    : parts_(parts), options_(std::move(options)) {}

StreamTransport::~StreamTransport() {
  while (!open_.empty()) Close(open_.back());
}

std::optional<ExchangeError> StreamTransport::Send(
    ExchangeId id, const UpstreamQuery& query,
    std::span<const Endpoint> servers, bool fresh, Instant now) {
  if (servers.empty()) return ExchangeError::kNoAddress;
  ExchangeError error = ExchangeError::kOther;
  Connection* connection = ConnectionFor(servers[0], fresh, now, &error);
  if (connection == nullptr) return error;
  auto exchange = std::make_unique<Exchange>();
  exchange->query = query;
  exchange->server = servers[0];
  Attach(id, exchange.get(), connection, now);
  exchanges_.emplace(id, std::move(exchange));
  return std::nullopt;
}

StreamTransport::Connection* StreamTransport::ConnectionFor(
    const Endpoint& server, bool fresh, Instant now, ExchangeError* error) {
  Connection* best = nullptr;
  uint32_t usable = 0;
  for (Connection* c : open_) {
    // One that was opened a moment ago is as fresh as can be.
    if (fresh && c->opened != now) c->retired = true;
    if (c->asked != kNever && now - c->asked > kSilent &&
        c->state == State::kReady) {
      c->retired = true;
    }
    if (c->retired || c->server != server) continue;
    ++usable;
    if (best == nullptr || c->exchanges.size() < best->exchanges.size()) {
      best = c;
    }
  }
  const bool more = best == nullptr || (best->exchanges.size() >= kBusy &&
                                        usable < options_.max_connections);
  if (!more) return best;
  MakeRoom();
  Connection* opened = Open(server, now, error);
  return opened != nullptr ? opened : best;
}

// Retired connections live on for the answers that they may still bring, but
// not beyond as many as the usable ones.
void StreamTransport::MakeRoom() {
  for (size_t i = open_.size(); i-- > 0;) {
    Connection* c = open_[i];
    if (c->retired && c->exchanges.empty()) Close(c);
  }
  while (open_.size() >= size_t{2} * options_.max_connections) {
    const auto oldest = std::min_element(
        open_.begin(), open_.end(), [](Connection* a, Connection* b) {
          return a->retired != b->retired ? a->retired : a->opened < b->opened;
        });
    for (const auto& [wire_id, id] : (*oldest)->exchanges) {
      exchanges_.erase(id);
      failed_.emplace_back(id, ExchangeError::kClosed);
    }
    (*oldest)->exchanges.clear();
    Close(*oldest);
  }
}

StreamTransport::Connection* StreamTransport::Open(const Endpoint& server,
                                                   Instant now,
                                                   ExchangeError* error) {
  const Dial dial = parts_.dialer->DialTcp(server, 0, PollToken{});
  if (dial.fd < 0) {
    *error = ErrorOf(dial.outcome);
    return nullptr;
  }
  Connection* c = connections_.Allocate();
  if (c == nullptr) {
    parts_.dialer->Close(dial.fd, true);
    *error = ExchangeError::kNoDescriptor;
    return nullptr;
  }
  c->fd = dial.fd;
  c->server = server;
  c->opened = now;
  c->idle_since = now;
  open_.push_back(c);
  const uint64_t cookie = uint64_t{c->generation} << 32 | c->index;
  if (parts_.dialer->IsProtecting(c->fd)) {
    c->trigger = Poller::Trigger::kEdgeReadWrite;
  }
  c->watch = parts_.watch->Watch(c->fd, c->trigger, this, cookie);
  if (!c->watch.valid()) {
    Close(c);
    *error = ExchangeError::kNoDescriptor;
    return nullptr;
  }
  parts_.dialer->SetToken(c->fd, SocketWatch::TokenOf(c->watch));
  ++stats_.connections;
  // A dial that is done at once shows as writable too.
  return c;
}

void StreamTransport::Attach(ExchangeId id, Exchange* exchange, Connection* c,
                             Instant now) {
  do {
    exchange->wire_id = static_cast<uint16_t>(parts_.ids->Next());
  } while (c->exchanges.contains(exchange->wire_id));
  exchange->connection = c;
  Store16(&exchange->query.data[0], exchange->wire_id);
  std::array<std::byte, 2> length;
  Store16(&length[0], exchange->query.size);
  c->plain.append(reinterpret_cast<const char*>(length.data()), 2);
  c->plain.append(reinterpret_cast<const char*>(exchange->query.data.data()),
                  exchange->query.size);
  c->exchanges.emplace(exchange->wire_id, id);
  if (c->asked == kNever) c->asked = now;
  c->idle_since = now;
  if (c->state == State::kReady) MarkDirty(c);
}

void StreamTransport::MarkDirty(Connection* c) {
  if (c->dirty) return;
  c->dirty = true;
  dirty_.push_back(c);
}

void StreamTransport::Cancel(ExchangeId id, bool /*silent*/) {
  const auto it = exchanges_.find(id);
  if (it == exchanges_.end()) return;
  Connection* c = it->second->connection;
  if (c != nullptr) c->exchanges.erase(it->second->wire_id);
  exchanges_.erase(it);
}

void StreamTransport::Reset(Instant /*now*/) {
  while (!open_.empty()) {
    // The next connection may be to another server: nothing is asked again.
    open_.back()->answered = 0;
    Fail(open_.back(), ExchangeError::kClosed, "the network changed");
  }
  again_.clear();
  for (auto& [id, exchange] : std::exchange(exchanges_, {})) {
    parts_.listener->OnFailed(id, ExchangeError::kClosed,
                              "the network changed");
  }
}

void StreamTransport::OnTurn(Instant now) {
  for (const auto& [id, error] : std::exchange(failed_, {})) {
    parts_.listener->OnFailed(id, error, "");
  }
  for (const ExchangeId id : std::exchange(again_, {})) {
    const auto it = exchanges_.find(id);
    if (it == exchanges_.end()) continue;
    ExchangeError error = ExchangeError::kOther;
    Connection* c = ConnectionFor(it->second->server, false, now, &error);
    if (c != nullptr) {
      Attach(id, it->second.get(), c, now);
      continue;
    }
    exchanges_.erase(it);
    parts_.listener->OnFailed(id, error, "");
  }
  for (size_t i = open_.size(); i-- > 0;) {
    Connection* c = open_[i];
    if (c->state != State::kReady && now >= c->opened + kConnectTimeout) {
      if (c->state == State::kConnecting) parts_.dialer->GaveUp();
      Fail(c, ExchangeError::kTimedOut, "");
    } else if (c->exchanges.empty() &&
               (c->retired || now >= c->idle_since + options_.idle)) {
      Close(c);
    }
  }
  for (Connection* c : std::exchange(dirty_, {})) {
    c->dirty = false;
    Flush(c);
  }
}

Instant StreamTransport::next_deadline() const {
  if (!failed_.empty() || !again_.empty() || !dirty_.empty()) {
    return kAtOnce;
  }
  Instant next = kNever;
  for (const Connection* c : open_) {
    if (c->state != State::kReady) {
      next = std::min(next, c->opened + kConnectTimeout);
    } else if (c->exchanges.empty()) {
      next =
          std::min(next, c->retired ? kAtOnce : c->idle_since + options_.idle);
    }
  }
  return next;
}

TransportStats StreamTransport::stats() const {
  TransportStats s = stats_;
  s.sockets = static_cast<uint32_t>(open_.size());
  return s;
}

// May fail the connection, so not for use inside Send().
void StreamTransport::Flush(Connection* c) {
  const Bytes frames{
      reinterpret_cast<const std::byte*>(c->plain.data()) + c->plain_at,
      c->plain.size() - c->plain_at};
  size_t sent = 0;
  if (c->tls != nullptr) {
    if (c->state == State::kReady && !frames.empty()) {
      c->tls->Write(frames);
      c->plain.clear();
    }
    while (!c->tls->output().empty()) {
      if (!SendBytes(c, c->tls->output(), &sent)) return;
      c->tls->ConsumeOutput(sent);
      if (sent == 0) break;
    }
    Watch(c, !c->tls->output().empty());
    return;
  }
  while (c->plain_at < c->plain.size()) {
    const Bytes rest{
        reinterpret_cast<const std::byte*>(c->plain.data()) + c->plain_at,
        c->plain.size() - c->plain_at};
    if (!SendBytes(c, rest, &sent)) return;
    c->plain_at += sent;
    if (sent == 0) break;
  }
  if (c->plain_at == c->plain.size()) {
    c->plain.clear();
    c->plain_at = 0;
  }
  Watch(c, !c->plain.empty());
}

// `*sent` is 0 when the socket takes no more. False: the connection is gone.
bool StreamTransport::SendBytes(Connection* c, Bytes bytes, size_t* sent) {
  const int64_t n = parts_.dialer->sockets()->Send(c->fd, {&bytes, 1});
  if (n >= 0) {
    *sent = static_cast<size_t>(n);
    return true;
  }
  *sent = 0;
  if (n == -EAGAIN) return true;
  Fail(c, ExchangeError::kClosed, "");
  return false;
}

void StreamTransport::Watch(Connection* c, bool writing) {
  const Poller::Trigger wanted =
      writing ? Poller::Trigger::kLevelReadWrite : Poller::Trigger::kLevelRead;
  if (c->trigger == wanted) return;
  c->trigger = wanted;
  (void)parts_.watch->Modify(c->watch, wanted);
}

// --- way back ---------------------------------------------------------------

void StreamTransport::OnReady(uint64_t cookie, const PollEvent& event,
                              Instant now) {
  Connection* c = connections_.Find(static_cast<uint32_t>(cookie),
                                    static_cast<uint32_t>(cookie >> 32));
  if (c == nullptr) return;
  if (c->state == State::kConnecting) {
    if (!event.writable && !event.error) return;
    const DialOutcome outcome =
        parts_.dialer->FinishDial(c->fd, c->server.ip.IsV4());
    if (outcome == DialOutcome::kInProgress) return;
    if (outcome != DialOutcome::kConnected) {
      Fail(c, ErrorOf(outcome), "");
      return;
    }
    OnConnected(c);
    return;
  }
  if (event.readable && !OnReadable(c, now)) return;
  if (event.writable) Flush(c);
}

void StreamTransport::OnConnected(Connection* c) {
  if (options_.tls == nullptr) {
    c->state = State::kReady;
  } else {
    c->tls = TlsStream::Create(*options_.tls, options_.peer, session_.get());
    if (c->tls == nullptr) {
      Fail(c, ExchangeError::kTls, "OpenSSL gives no connection");
      return;
    }
    c->state = State::kHandshake;
  }
  Flush(c);
}

bool StreamTransport::OnReadable(Connection* c, Instant now) {
  for (int i = 0; i < kMaxReads; ++i) {
    const int64_t n = parts_.dialer->sockets()->Receive(c->fd, parts_.scratch);
    if (n == -EAGAIN) return true;
    if (n <= 0) {
      Fail(c, ExchangeError::kClosed, "");
      return false;
    }
    c->asked = kNever;
    const Bytes bytes = parts_.scratch.first(static_cast<size_t>(n));
    const bool alive =
        c->tls != nullptr ? OnCipher(c, bytes, now) : OnPlain(c, bytes, now);
    if (!alive) return false;
  }
  return true;
}

bool StreamTransport::OnCipher(Connection* c, Bytes bytes, Instant now) {
  TlsStream* tls = c->tls.get();
  const bool was_open = tls->state() == TlsStream::State::kOpen;
  tls->Feed(bytes);
  if (!was_open && tls->state() == TlsStream::State::kOpen) {
    if (tls->resumed()) ++stats_.resumed;
    c->state = State::kReady;
  }
  std::array<std::byte, kPlainChunk> plain;
  while (const size_t n = tls->Read(plain)) {
    if (!OnPlain(c, Bytes(plain).first(n), now)) return false;
  }
  if (SslSessionPtr session = tls->TakeSession()) session_ = std::move(session);
  if (tls->state() == TlsStream::State::kFailed) {
    if (!was_open) {
      ++stats_.tls_failures;
      session_.reset();
    }
    const std::string why = tls->error();
    if (!tls->output().empty()) {  // our alert; nobody waits for it
      const Bytes alert = tls->output();
      (void)parts_.dialer->sockets()->Send(c->fd, {&alert, 1});
    }
    Fail(c, was_open ? ExchangeError::kClosed : ExchangeError::kTls, why);
    return false;
  }
  if (tls->state() == TlsStream::State::kClosed) {
    Fail(c, ExchangeError::kClosed, "");
    return false;
  }
  const uint32_t generation = c->generation;
  const uint32_t index = c->index;
  Flush(c);
  return connections_.Find(index, generation) != nullptr;
}

bool StreamTransport::OnPlain(Connection* c, Bytes bytes, Instant now) {
  // A frame that lies whole in the bytes is not copied.
  if (c->in.empty()) {
    while (bytes.size() >= 2) {
      const size_t size = Load16(&bytes[0]);
      if (bytes.size() < 2 + size) break;
      OnFrame(c, bytes.subspan(2, size), now);
      bytes = bytes.subspan(2 + size);
    }
  }
  c->in.insert(c->in.end(), bytes.begin(), bytes.end());
  size_t at = 0;
  while (c->in.size() - at >= 2) {
    const size_t size = Load16(&c->in[at]);
    if (c->in.size() - at < 2 + size) break;
    OnFrame(c, Bytes(c->in).subspan(at + 2, size), now);
    at += 2 + size;
  }
  c->in.erase(c->in.begin(), c->in.begin() + static_cast<ptrdiff_t>(at));
  if (c->in.empty() && c->in.capacity() > 4096) c->in = {};
  return true;
}

void StreamTransport::OnFrame(Connection* c, Bytes message, Instant now) {
  if (message.size() < 12 || message.size() > kMaxMessage) {
    ++stats_.mismatched;
    return;
  }
  const auto it = c->exchanges.find(Load16(&message[0]));
  if (it == c->exchanges.end()) {
    ++stats_.mismatched;
    return;
  }
  const ExchangeId id = it->second;
  if (MatchQuestion(message, exchanges_.at(id)->query) == QuestionMatch::kNo) {
    ++stats_.mismatched;
    return;
  }
  c->exchanges.erase(it);
  exchanges_.erase(id);
  ++c->answered;
  c->idle_since = now;
  // Others still wait; whether the server is alive shows from here on.
  if (!c->exchanges.empty()) c->asked = now;
  parts_.listener->OnAnswer(id, message);
}

void StreamTransport::Close(Connection* c) {
  if (c->tls != nullptr && c->state == State::kReady) {
    c->tls->Shutdown();
    const Bytes alert = c->tls->output();
    if (!alert.empty()) {
      (void)parts_.dialer->sockets()->Send(c->fd, {&alert, 1});
    }
  }
  parts_.watch->Forget(c->watch);
  parts_.dialer->Close(c->fd, false);
  open_.erase(std::find(open_.begin(), open_.end(), c));
  if (c->dirty) dirty_.erase(std::find(dirty_.begin(), dirty_.end(), c));
  connections_.Free(c);
}

void StreamTransport::Fail(Connection* c, ExchangeError error,
                           absl::string_view detail) {
  const auto exchanges = std::move(c->exchanges);
  const bool again = error == ExchangeError::kClosed && c->answered > 0;
  Close(c);
  for (const auto& [wire_id, id] : exchanges) {
    Exchange* exchange = exchanges_.at(id).get();
    if (again && !exchange->asked_again) {
      exchange->asked_again = true;
      exchange->connection = nullptr;
      again_.push_back(id);
      continue;
    }
    exchanges_.erase(id);
    parts_.listener->OnFailed(id, error, detail);
  }
}

}  // namespace netstack

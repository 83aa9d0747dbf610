// How this works
//
// The TCP forwarder treats a connection to port 53 like any other; only its
// host side is one end of a local pair, and the other end is here. So windows,
// retransmission, half-close and resets are TCP's, and what is left is framing.
//
// Queries of one connection are asked as they come, many at a time, and
// answered as they are answered (RFC 7766, 6.2.1.1 and 7: out of order).
//
// Backpressure. A connection is read only while fewer than max_in_flight of its
// queries are under way, fewer than kMaxHeld bytes of answers wait for the app
// and the asker has room. Else it is paused: the pair fills up, the forwarder
// stops opening the window, the app's TCP waits.
//
// Ends. The app's FIN: what was asked is still answered, then our end closes.
// An app that resets: answers to come find the connection gone. Nothing asked,
// or nothing taken, for `idle`: closed. Beyond max_connections the one that is
// idle longest makes way (RFC 7766, 6.2.3), so that no app keeps others out by
// connections that ask nothing.
//
// A connection is never freed inside its own event: it is marked and swept in
// OnTurn().

#include "core/dns/stream_server.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

namespace netstack::dns {
namespace {

// Answers that may wait for one app: two of the largest.
constexpr size_t kMaxHeld = 128 * 1024;
constexpr size_t kReadSize = 16 * 1024;
// How long a connection has for its first or next query before another one may
// take its place.
constexpr Duration kLeastIdle = std::chrono::seconds(1);

}  // namespace

StreamServer::StreamServer(Sockets* sockets, Poller* poller, StreamAsker* asker,
                           const Options& options, Instant now)
    : sockets_(sockets),
      poller_(poller),
      asker_(asker),
      options_(options),
      wheel_(now) {}

StreamServer::~StreamServer() { Shutdown(); }

int StreamServer::Open(const Endpoint& app, const Endpoint& server,
                       Instant now) {
  const auto refuse = [this](int error) {
    ++stats_.refused;
    return error;
  };
  if (open_ >= options_.max_connections && !MakeRoom(now)) {
    return refuse(-EMFILE);
  }
  Connection* c = connections_.Allocate();
  if (c == nullptr) return refuse(-ENOMEM);
  const SocketPair pair = sockets_->OpenPair();
  if (pair.error != 0) {
    connections_.Free(c);
    return refuse(pair.error);
  }
  c->fd = pair.second;
  const int error = poller_->Add(
      c->fd, {PollToken::Kind::kDnsStream, c->generation, c->index},
      Poller::Trigger::kEdgeReadWrite);
  if (error != 0) {
    sockets_->Close(pair.first, false);
    sockets_->Close(pair.second, false);
    connections_.Free(c);
    return refuse(error);
  }
  c->app = app;
  c->server = server;
  c->last_active = now;
  ++open_;
  ++stats_.opened;
  Rearm(c);
  return pair.first;
}

bool StreamServer::MakeRoom(Instant now) {
  Connection* oldest = nullptr;
  connections_.ForEach([&](Connection* c) {
    if (c->closed || c->in_flight > 0 || !c->out.empty()) return;
    if (now < c->last_active + kLeastIdle) return;
    if (oldest == nullptr || c->last_active < oldest->last_active) oldest = c;
  });
  if (oldest == nullptr) return false;
  ++stats_.idle;
  Close(oldest);
  return true;
}

void StreamServer::OnSocket(const PollEvent& event, Instant now) {
  Connection* c = Find({event.token.index, event.token.generation});
  if (c == nullptr || c->closed) return;
  if (event.writable || event.error) {
    c->writable = true;
    Flush(c, now);
    if (c->closed) return;
  }
  if (event.readable || event.read_closed || event.error) c->readable = true;
  Read(c, now);
  Settle(c);
}

bool StreamServer::MayRead(const Connection& c) const {
  return !c.closed && !c.starved && c.in_flight < options_.max_in_flight &&
         c.out_bytes < kMaxHeld;
}

// Asks what is held, then reads for more, while it may.
void StreamServer::Read(Connection* c, Instant now) {
  std::array<std::byte, kReadSize> buffer;
  Ask(c, now);
  while (MayRead(*c) && c->readable && !c->ended) {
    const int64_t n = sockets_->Receive(c->fd, buffer);
    if (n == -EAGAIN) {
      c->readable = false;
    } else if (n < 0) {
      return Close(c);
    } else if (n == 0) {
      c->ended = true;
    } else {
      c->last_active = now;
      c->reader.Append(Bytes(buffer).first(static_cast<size_t>(n)));
      Ask(c, now);
    }
  }
  if (c->closed) return;
  const bool paused = !MayRead(*c);
  if (paused && !c->paused) ++stats_.paused;
  c->paused = paused;
}

void StreamServer::Ask(Connection* c, Instant now) {
  while (MayRead(*c)) {
    if (!asker_->HasRoom()) {
      c->starved = true;
      starved_.push_back({c->index, c->generation});
      break;
    }
    const std::optional<Bytes> query = c->reader.Next();
    if (!query) break;
    ++c->in_flight;
    asker_->AskFromStream({c->index, c->generation}, c->app, c->server, *query,
                          now);
  }
  if (c->closed) return;
  if (c->reader.broken()) {
    ++stats_.broken;
    return Close(c);
  }
  c->reader.Trim();
}

void StreamServer::Answer(const StreamRef& to, Bytes message, Instant now) {
  Connection* c = Find(to);
  if (c == nullptr || c->closed) return;
  --c->in_flight;
  c->last_active = now;
  if (!message.empty()) {
    std::vector<std::byte> framed(kFrameHeader + message.size());
    Store16(framed.data(), static_cast<uint16_t>(message.size()));
    std::memcpy(framed.data() + kFrameHeader, message.data(), message.size());
    c->out_bytes += framed.size();
    c->out.push_back(std::move(framed));
    Flush(c, now);
  }
  // Not now: this may be a call from within Ask().
  if (c->paused || c->ended) MakeReady(c);
}

void StreamServer::MakeReady(Connection* c) {
  if (c->closed || c->in_ready) return;
  c->in_ready = true;
  ready_.push_back({c->index, c->generation});
}

void StreamServer::Flush(Connection* c, Instant now) {
  std::array<Bytes, 16> parts;
  while (!c->closed && c->writable && !c->out.empty()) {
    size_t count = 0;
    for (auto it = c->out.begin(); it != c->out.end() && count < parts.size();
         ++it) {
      parts[count] = Bytes(*it).subspan(count == 0 ? c->out_offset : 0);
      ++count;
    }
    const int64_t n = sockets_->Send(c->fd, std::span(parts).first(count));
    if (n == -EAGAIN) {
      c->writable = false;
      return;
    }
    if (n < 0) return Close(c);
    c->last_active = now;
    c->out_bytes -= static_cast<size_t>(n);
    c->out_offset += static_cast<size_t>(n);
    while (!c->out.empty() && c->out_offset >= c->out.front().size()) {
      c->out_offset -= c->out.front().size();
      c->out.pop_front();
    }
  }
}

// The end of a connection that has nothing more to do.
void StreamServer::Settle(Connection* c) {
  if (!c->closed && c->ended && c->in_flight == 0 && c->out.empty() &&
      !c->starved) {
    Close(c);
  }
}

void StreamServer::Rearm(Connection* c) {
  wheel_.Arm(&c->timer, c->last_active + options_.idle);
}

void StreamServer::OnTurn(Instant now) {
  if (!starved_.empty() && asker_->HasRoom()) {
    for (const StreamRef& ref : std::exchange(starved_, {})) {
      Connection* c = Find(ref);
      if (c == nullptr || c->closed) continue;
      c->starved = false;
      MakeReady(c);
    }
  }
  for (const StreamRef& ref : std::exchange(ready_, {})) {
    Connection* c = Find(ref);
    if (c == nullptr || c->closed) continue;
    c->in_ready = false;
    Read(c, now);
    Settle(c);
  }
  wheel_.Advance(now, [this, now](TimerNode* node) {
    // The node is a member of its connection.
    auto* c = reinterpret_cast<Connection*>(reinterpret_cast<std::byte*>(node) -
                                            offsetof(Connection, timer));
    // What is under way has a deadline of its own. An app that takes nothing
    // is idle too.
    const bool busy = c->in_flight > 0 && c->out.empty();
    if (busy || now < c->last_active + options_.idle) {
      if (busy) c->last_active = now;
      return Rearm(c);
    }
    ++stats_.idle;
    Close(c);
  });
  for (Connection* c : closed_) connections_.Free(c);
  closed_.clear();
}

void StreamServer::Close(Connection* c) {
  if (c->closed) return;
  c->closed = true;
  sockets_->Close(std::exchange(c->fd, -1), false);
  wheel_.Disarm(&c->timer);
  --open_;
  closed_.push_back(c);
}

void StreamServer::Shutdown() {
  connections_.ForEach([this](Connection* c) { Close(c); });
  for (Connection* c : closed_) connections_.Free(c);
  closed_.clear();
}

StreamServer::Stats StreamServer::stats() const {
  Stats s = stats_;
  s.connections = open_;
  return s;
}

}  // namespace netstack::dns

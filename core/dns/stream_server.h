// DNS over TCP as a server (RFC 7766), on the inner ends of local pairs: the
// apps' connections to port 53 of whatever server.
//
// How this works: see the top of stream_server.cc.
#ifndef CORE_DNS_STREAM_SERVER_H_
#define CORE_DNS_STREAM_SERVER_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/time.h"
#include "core/dns/framing.h"
#include "core/flow/slab.h"
#include "core/flow/timer_wheel.h"
#include "core/platform/poller.h"
#include "core/platform/sockets.h"
#include "core/wire/ip_address.h"

namespace netstack::dns {

// Names a connection for as long as it lives.
struct StreamRef {
  uint32_t index = 0;
  uint32_t generation = 0;
};

// Who answers what is asked over a stream.
class StreamAsker {
 public:
  virtual ~StreamAsker() = default;
  // Whether one more may be asked; else connections wait.
  virtual bool HasRoom() const = 0;
  // One query of a connection. StreamServer::Answer() is called for it once,
  // within this call or later.
  virtual void AskFromStream(const StreamRef& from, const Endpoint& app,
                             const Endpoint& server, Bytes query,
                             Instant now) = 0;
};

class StreamServer {
 public:
  struct Options {
    uint32_t max_connections = 256;
    uint32_t max_in_flight = 128;  // per connection
    Duration idle = std::chrono::seconds(30);
  };
  struct Stats {
    uint64_t opened = 0;
    uint64_t refused = 0;  // beyond max_connections, or without a descriptor
    uint64_t broken = 0;   // closed because a length made no sense
    // Closed because nothing was asked any more, or for a second already and
    // a new connection needed the room.
    uint64_t idle = 0;
    uint64_t paused = 0;       // times that reading stopped for backpressure
    uint32_t connections = 0;  // gauge
  };

  // All outlive the server.
  StreamServer(Sockets* sockets, Poller* poller, StreamAsker* asker,
               const Options& options, Instant now);
  ~StreamServer();  // closes what is open
  StreamServer(const StreamServer&) = delete;
  StreamServer& operator=(const StreamServer&) = delete;

  void Configure(const Options& options) { options_ = options; }

  // The app's end of a new connection, or -errno.
  int Open(const Endpoint& app, const Endpoint& server, Instant now);
  // A query's answer: a whole message; empty when there is none to give. No
  // effect when the connection is gone.
  void Answer(const StreamRef& to, Bytes message, Instant now);
  void OnSocket(const PollEvent& event, Instant now);
  // Goes on with what waited, fires what is due, frees what ended. Once per
  // loop turn, behind whoever answers.
  void OnTurn(Instant now);
  // The epoch when connections have more to do at once.
  Instant next_deadline() const {
    return ready_.empty() ? wheel_.next_deadline() : Instant{};
  }
  void Shutdown();

  Stats stats() const;

 private:
  struct Connection {
    uint32_t index = 0;
    uint32_t generation = 0;
    int fd = -1;
    Endpoint app;
    Endpoint server;
    FrameReader reader;
    std::deque<std::vector<std::byte>> out;  // framed answers, in order
    size_t out_offset = 0;                   // bytes of the first that are gone
    size_t out_bytes = 0;
    uint32_t in_flight = 0;
    Instant last_active{};
    TimerNode timer;
    bool readable = false;
    bool writable = true;
    bool ended = false;    // the app's FIN is read
    bool starved = false;  // the asker had no room
    bool paused = false;
    bool in_ready = false;
    bool closed = false;  // to be freed at the end of the turn
  };

  Connection* Find(const StreamRef& ref) const {
    return connections_.Find(ref.index, ref.generation);
  }
  void Read(Connection* c, Instant now);
  void Ask(Connection* c, Instant now);
  void Flush(Connection* c, Instant now);
  bool MayRead(const Connection& c) const;
  void Settle(Connection* c);
  void Rearm(Connection* c);
  void MakeReady(Connection* c);
  bool MakeRoom(Instant now);
  void Close(Connection* c);

  Sockets* const sockets_;
  Poller* const poller_;
  StreamAsker* const asker_;
  Options options_;
  TimerWheel wheel_;
  Slab<Connection> connections_;
  std::vector<StreamRef> starved_;  // wait for the asker
  std::vector<StreamRef> ready_;    // may go on
  std::vector<Connection*> closed_;
  uint32_t open_ = 0;
  Stats stats_;
};

}  // namespace netstack::dns

#endif  // CORE_DNS_STREAM_SERVER_H_

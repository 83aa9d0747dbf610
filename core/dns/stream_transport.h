// DNS over TCP (RFC 7766) and over TLS (RFC 7858): connections that stay open
// for a while, many queries on each, answers in any order.
//
// How this works
//
// kConnecting: the dial is under way; frames wait in `plain`.
// kHandshake:  TLS only; bytes go to and from TlsStream.
// kReady:      frames are sent at the end of each turn, all of a turn at once.
//
// A connection whose server has been silent for kSilent although it was asked
// is suspected of being dead (a NAT that forgot it, another network): new
// queries open another. Exchanges of a connection that is closed by the
// server after it had answered something are asked once more on a new one:
// the server's idle close and our query have crossed.
#ifndef CORE_DNS_STREAM_TRANSPORT_H_
#define CORE_DNS_STREAM_TRANSPORT_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "core/base/bytes.h"
#include "core/base/time.h"
#include "core/dial/dialer.h"
#include "core/dns/exchange.h"
#include "core/dns/socket_watch.h"
#include "core/dns/tls.h"
#include "core/flow/slab.h"

namespace netstack {

class StreamTransport final : public Transport, public SocketHandler {
 public:
  static constexpr Duration kSilent = std::chrono::seconds(1);
  // Dial and handshake together.
  static constexpr Duration kConnectTimeout = std::chrono::seconds(4);
  // A further connection is opened when each has so many queries under way.
  static constexpr size_t kBusy = 64;

  struct Parts {
    Dialer* dialer = nullptr;
    SocketWatch* watch = nullptr;
    RandomIds* ids = nullptr;
    ExchangeListener* listener = nullptr;
    MutableBytes scratch;  // 64 KiB; shared, used within a call
  };
  struct Options {
    uint32_t max_connections = 2;
    Duration idle = std::chrono::seconds(30);
    const TlsContext* tls = nullptr;  // null: TCP; else it outlives this
    TlsStream::Peer peer;             // with TLS
  };

  StreamTransport(const Parts& parts, Options options);
  ~StreamTransport() override;

  std::optional<ExchangeError> Send(ExchangeId id, const UpstreamQuery& query,
                                    std::span<const Endpoint> servers,
                                    bool fresh, Instant now) override;
  void Cancel(ExchangeId id, bool silent) override;
  void Reset(Instant now) override;
  void OnTurn(Instant now) override;
  Instant next_deadline() const override;
  TransportStats stats() const override;

  void OnReady(uint64_t cookie, const PollEvent& event, Instant now) override;

 private:
  enum class State : uint8_t { kConnecting, kHandshake, kReady };

  struct Connection {
    uint32_t index = 0;
    uint32_t generation = 0;
    int fd = -1;
    SocketWatch::Handle watch;
    Poller::Trigger trigger = Poller::Trigger::kLevelReadWrite;
    Endpoint server;
    State state = State::kConnecting;
    bool retired = false;  // gets no more queries
    bool dirty = false;    // in dirty_
    uint64_t answered = 0;
    Instant opened{};
    Instant idle_since{};    // of the last query's end
    Instant asked = kNever;  // the first query since it was last heard of
    std::unique_ptr<TlsStream> tls;
    std::string plain;  // frames to send; behind TLS: to encrypt
    size_t plain_at = 0;
    std::vector<std::byte> in;  // the start of a frame
    absl::flat_hash_map<uint16_t, ExchangeId> exchanges;
  };
  struct Exchange {
    UpstreamQuery query;
    Connection* connection = nullptr;  // null: in again_
    uint16_t wire_id = 0;
    Endpoint server;
    bool asked_again = false;
  };

  Connection* ConnectionFor(const Endpoint& server, bool fresh, Instant now,
                            ExchangeError* error);
  Connection* Open(const Endpoint& server, Instant now, ExchangeError* error);
  void MakeRoom();
  void Attach(ExchangeId id, Exchange* exchange, Connection* connection,
              Instant now);
  void MarkDirty(Connection* connection);
  void Flush(Connection* connection);
  bool SendBytes(Connection* connection, Bytes bytes, size_t* sent);
  void Watch(Connection* connection, bool writing);

  void OnConnected(Connection* connection);
  // False: the connection is gone.
  bool OnReadable(Connection* connection, Instant now);
  bool OnCipher(Connection* connection, Bytes bytes, Instant now);
  bool OnPlain(Connection* connection, Bytes bytes, Instant now);
  void OnFrame(Connection* connection, Bytes message, Instant now);
  void Close(Connection* connection);
  // Closes and tells the exchanges, or asks them again.
  void Fail(Connection* connection, ExchangeError error,
            absl::string_view detail);

  const Parts parts_;
  const Options options_;
  Slab<Connection> connections_;
  std::vector<Connection*> open_;
  std::vector<Connection*> dirty_;
  absl::flat_hash_map<ExchangeId, std::unique_ptr<Exchange>> exchanges_;
  std::vector<ExchangeId> again_;  // from OnTurn() on
  // To be told from OnTurn() on: found inside Send().
  std::vector<std::pair<ExchangeId, ExchangeError>> failed_;
  SslSessionPtr session_;
  TransportStats stats_;
};

}  // namespace netstack

#endif  // CORE_DNS_STREAM_TRANSPORT_H_

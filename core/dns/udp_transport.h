// Plain DNS over UDP, with TCP where UDP does not do (RFC 7766, 5452).
//
// A forger off the path has to guess the source port, the id, the server's
// address and the question, in the time until the real answer:
// - every query has a connected socket of its own, so that the kernel picks
//   the port at random and drops what comes from anybody but the server. Only
//   when `max_sockets` are open do queries share one, with ids of their own;
// - ids are a pseudo-random function's, the question is compared, and so is
//   the random case of its letters ("0x20"): an answer that differs in nothing
//   else comes from a forger or from a server that does not keep it, so that
//   the question goes over TCP;
// - after kMaxForged wrong answers at a socket its queries go over TCP: who
//   floods guesses learns that the guess before last was the last one.
//
// An ICMP error ends the socket's exchanges at once.
#ifndef CORE_DNS_UDP_TRANSPORT_H_
#define CORE_DNS_UDP_TRANSPORT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "core/base/bytes.h"
#include "core/dial/dialer.h"
#include "core/dns/exchange.h"
#include "core/dns/socket_watch.h"
#include "core/flow/slab.h"

namespace netstack {

class UdpTransport final : public Transport, public SocketHandler {
 public:
  // Chance of one accepted per query under attack: 8 in 65,536, for whoever
  // knows the port.
  static constexpr uint32_t kMaxForged = 8;

  struct Parts {
    Dialer* dialer = nullptr;
    SocketWatch* watch = nullptr;
    RandomIds* ids = nullptr;
    ExchangeListener* listener = nullptr;
    // Where one datagram fits (65,535 bytes); shared, used within a call.
    MutableBytes scratch;
  };

  // `tcp` tells the same listener; it takes over truncated exchanges.
  UdpTransport(const Parts& parts, uint32_t max_sockets,
               std::unique_ptr<Transport> tcp);
  ~UdpTransport() override;

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
  struct Socket {
    uint32_t index = 0;
    uint32_t generation = 0;
    int fd = -1;
    SocketWatch::Handle watch;
    Endpoint server;
    uint32_t forged = 0;
    std::vector<std::pair<uint16_t, ExchangeId>> exchanges;  // by wire id
    // Ids of exchanges that ended while the socket lives on for others; what
    // comes for them is late and not forged.
    std::vector<uint16_t> late;
  };
  struct Exchange {
    UpstreamQuery query;
    Socket* socket = nullptr;  // null: in to_tcp_
    uint16_t wire_id = 0;
    Endpoint server;
  };

  // A socket to `server`, new or shared; null with `*error` set.
  Socket* SocketFor(const Endpoint& server, ExchangeError* error);
  Socket* Share(const Endpoint& server);
  void Close(Socket* socket);
  // Takes the exchange off its socket, and closes one that is left alone.
  void Detach(ExchangeId id, Exchange* exchange);
  void OnDatagram(Socket* socket, Bytes datagram);
  void FailAll(Socket* socket, ExchangeError error);
  void ToTcp(ExchangeId id, Exchange* exchange);

  const Parts parts_;
  const uint32_t max_sockets_;
  const std::unique_ptr<Transport> tcp_;
  Slab<Socket> sockets_;
  std::vector<Socket*> open_;
  absl::flat_hash_map<ExchangeId, std::unique_ptr<Exchange>> exchanges_;
  // To be asked over TCP, from OnTurn() on: a listener is being called now.
  std::vector<ExchangeId> to_tcp_;
  TransportStats stats_;
};

// What a dial that gave no socket means.
ExchangeError ErrorOf(DialOutcome outcome);

}  // namespace netstack

#endif  // CORE_DNS_UDP_TRANSPORT_H_

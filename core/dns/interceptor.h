// Port 53: queries from apps' packets and streams to the resolver, and its
// answers back.
//
//   Interceptor dns(parts, options, now);
//   dns.OnDatagram(app, server, payload, now);   // UDP
//   int fd = dns.streams().Open(app, server, now);  // TCP: see StreamServer
//   ...
//   dns.OnTurn(now);                             // once per loop turn
//
// Every query has an entry of its own here; an answer finds it by the entry's
// number, never by the id in the message, which is the app's choice.
//
// Loop thread only.
#ifndef CORE_DNS_INTERCEPTOR_H_
#define CORE_DNS_INTERCEPTOR_H_

#include <cstdint>
#include <memory>

#include "core/base/bytes.h"
#include "core/base/drop_reason.h"
#include "core/base/time.h"
#include "core/dns/address_policy.h"
#include "core/dns/query_log.h"
#include "core/dns/resolver.h"
#include "core/dns/stream_server.h"
#include "core/flow/slab.h"
#include "core/flow/stats.h"
#include "core/platform/poller.h"
#include "core/platform/sockets.h"
#include "core/wire/ip_address.h"

namespace netstack::dns {

class Interceptor final : public StreamAsker {
 public:
  struct Options {
    // Queries of apps under way at once; beyond, UDP is dropped and streams
    // wait.
    uint32_t max_waiting = 16384;
    StreamServer::Options streams;
  };

  // Where answers and news go.
  class Sink {
   public:
    virtual ~Sink() = default;
    // A datagram from `server` to `app`; of any size up to 65,507 bytes.
    virtual void SendAnswer(const Endpoint& server, const Endpoint& app,
                            Bytes message) = 0;
    // Only after SetLog(true); must not call back.
    virtual void OnQuery(const DnsQueryInfo& query) = 0;
  };

  struct Stats {
    uint64_t udp_queries = 0;  // handed to the resolver
    uint64_t tcp_queries = 0;
    uint64_t not_queries = 0;  // to port 53, but nothing that has an answer
    uint64_t malformed = 0;    // answered with FORMERR and the like
    uint64_t truncated = 0;    // answered with TC: the app comes over TCP
    uint64_t dropped = 0;      // beyond max_waiting
    uint32_t waiting = 0;      // gauge
    StreamServer::Stats streams;
  };

  // All outlive the interceptor; the resolver is shut down before it goes.
  struct Parts {
    Resolver* resolver = nullptr;
    AddressPolicy* addresses = nullptr;  // learns what answers lead to
    Sockets* sockets = nullptr;
    Poller* poller = nullptr;
    DropCounters* drops = nullptr;
    Sink* sink = nullptr;
  };

  Interceptor(const Parts& parts, const Options& options, Instant now);
  ~Interceptor() override;

  void Configure(const Options& options);
  // Whether Sink::OnQuery() is to be called.
  void SetLog(bool wanted) { log_ = wanted; }

  // A UDP payload that an app sent to port 53 of `server`.
  void OnDatagram(const Endpoint& app, const Endpoint& server, Bytes payload,
                  Instant now);

  StreamServer& streams() { return streams_; }
  void OnTurn(Instant now) { streams_.OnTurn(now); }
  Instant next_deadline() const { return streams_.next_deadline(); }

  Stats stats() const;

  // StreamAsker.
  bool HasRoom() const override {
    return pending_.size() < options_.max_waiting;
  }
  void AskFromStream(const StreamRef& from, const Endpoint& app,
                     const Endpoint& server, Bytes query, Instant now) override;

 private:
  // A query under way.
  struct Pending {
    uint32_t index = 0;
    uint32_t generation = 0;
    Endpoint app;
    Endpoint server;
    DnsTransport transport = DnsTransport::kUdp;
    StreamRef stream;  // of kTcp
    Instant asked{};
  };

  // False: there is no room.
  bool Ask(const Pending& from, Bytes query, Instant now);
  void OnReply(const Pending& to, const DnsReply& reply, Instant now);
  void Learn(const Pending& to, const DnsReply& reply, Instant now);
  void Log(const Pending& to, const DnsReply& reply);

  const Parts parts_;
  Options options_;
  bool log_ = false;
  Slab<Pending> pending_;
  Stats stats_;
  StreamServer streams_;
};

}  // namespace netstack::dns

#endif  // CORE_DNS_INTERCEPTOR_H_

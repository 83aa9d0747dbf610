// DNS over HTTPS (RFC 8484): HTTP/2 by libcurl's multi interface, which lives
// on our loop. curl opens no socket, resolves no name, reads no clock of ours
// and starts no thread:
// - sockets come from the Dialer, hence protected, and go back to it;
// - addresses are given with the request (CURLOPT_RESOLVE);
// - what curl waits for is watched by SocketWatch, its timer is our deadline;
// - the environment's proxies are not looked at;
// - certificates are verified against the TlsContext's store, read once, and
//   not from disk by each connection.
#ifndef CORE_DNS_HTTPS_TRANSPORT_H_
#define CORE_DNS_HTTPS_TRANSPORT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "core/base/time.h"
#include "core/dial/dialer.h"
#include "core/dns/exchange.h"
#include "core/dns/socket_watch.h"
#include "core/dns/tls.h"

namespace netstack {

class HttpsTransport;
struct CurlCallbacks;

// The connections of all HTTPS upstreams. Loop thread only.
class HttpsClient final : public SocketHandler {
 public:
  struct Parts {
    Dialer* dialer = nullptr;
    SocketWatch* watch = nullptr;
    const TlsContext* tls = nullptr;
    // Connections are closed when there was no request for so long; their TLS
    // sessions are kept for the next one.
    Duration idle{};
  };
  // The parts outlive the client.
  explicit HttpsClient(const Parts& parts);
  ~HttpsClient() override;
  HttpsClient(const HttpsClient&) = delete;
  HttpsClient& operator=(const HttpsClient&) = delete;

  void OnTurn(Instant now);
  Instant next_deadline() const;
  void OnReady(uint64_t cookie, const PollEvent& event, Instant now) override;
  uint32_t sockets() const { return static_cast<uint32_t>(fds_.size()); }

 private:
  friend class HttpsTransport;
  friend struct CurlCallbacks;
  struct Socket {
    SocketWatch::Handle watch;        // invalid: curl does not wait for it now
    HttpsTransport* owner = nullptr;  // for its counters; null once it is gone
  };

  bool Start();
  void Stop();
  bool HasRequests() const;
  // What curl says of requests that ended.
  void CollectEnds();

  const Parts parts_;
  void* multi_ = nullptr;  // CURLM
  void* share_ = nullptr;  // CURLSH: TLS sessions
  Instant now_{};
  Instant deadline_ = kNever;  // curl's
  Instant used_{};             // the last request's start or end
  absl::flat_hash_map<int, Socket> fds_;
  std::vector<HttpsTransport*> transports_;
};

class HttpsTransport final : public Transport {
 public:
  // Larger answers are refused, as DNS has none.
  static constexpr size_t kMaxBody = 65535;

  struct Options {
    std::string url;   // checked by ParseHttpsUrl()
    std::string host;  // of the URL
    uint16_t port = 443;
    std::vector<std::string> pins;  // base64
    bool get = false;
    std::vector<std::pair<std::string, std::string>> headers;
    // curl ends requests after this; our owner cancels before.
    Duration timeout{};
  };

  // `client` and `listener` outlive the transport.
  HttpsTransport(HttpsClient* client, ExchangeListener* listener,
                 Options options);
  ~HttpsTransport() override;

  std::optional<ExchangeError> Send(ExchangeId id, const UpstreamQuery& query,
                                    std::span<const Endpoint> servers,
                                    bool fresh, Instant now) override;
  void Cancel(ExchangeId id, bool silent) override;
  void Reset(Instant now) override;
  void OnTurn(Instant now) override;
  Instant next_deadline() const override { return kNever; }
  TransportStats stats() const override;

 private:
  friend class HttpsClient;
  friend struct CurlCallbacks;
  struct Exchange;

  bool Prepare(Exchange* exchange, bool fresh);
  // An easy handle with what all requests share; null: no memory.
  void* NewHandle();
  void End(Exchange* exchange, int result);
  void Recycle(Exchange* exchange);
  void SetAddresses(std::span<const Endpoint> servers);

  HttpsClient* const client_;
  ExchangeListener* const listener_;
  const Options options_;
  void* headers_ = nullptr;        // curl_slist
  std::shared_ptr<void> resolve_;  // curl_slist; requests share it
  std::string resolve_text_;
  std::vector<void*> idle_handles_;
  absl::flat_hash_map<ExchangeId, std::unique_ptr<Exchange>> exchanges_;
  Instant heard_ = Instant::min();  // when the last answer came
  TransportStats stats_;
};

// "https://host[:port][/path][?query]" without user, fragment and template:
// "{?dns}" at the end is cut off.
struct HttpsUrl {
  std::string url;
  std::string host;  // without brackets
  uint16_t port = 443;
};
std::optional<HttpsUrl> ParseHttpsUrl(absl::string_view text);

}  // namespace netstack

#endif  // CORE_DNS_HTTPS_TRANSPORT_H_

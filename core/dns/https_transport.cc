#include "core/dns/https_transport.h"

#include <curl/curl.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <chrono>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace netstack {
namespace {

constexpr absl::string_view kMediaType = "application/dns-message";
// Handles kept for later requests, per upstream.
constexpr size_t kMaxIdleHandles = 16;
// Connections kept open, over all upstreams.
constexpr long kMaxConnections = 16;
// Of one connection, in the words of curl: never used again when older.
constexpr long kMaxIdleSeconds = 60;

ExchangeError ErrorOfCurl(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_CONNECT:
      return ExchangeError::kRefused;
    case CURLE_OPERATION_TIMEDOUT:
      return ExchangeError::kTimedOut;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_CIPHER:
      return ExchangeError::kTls;
    case CURLE_WRITE_ERROR:  // our own limit of the answer's size
      return ExchangeError::kBadAnswer;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
      return ExchangeError::kClosed;
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_WEIRD_SERVER_REPLY:
      return ExchangeError::kHttp;
    case CURLE_COULDNT_RESOLVE_HOST:
      return ExchangeError::kNoAddress;
    default:
      return ExchangeError::kOther;
  }
}

}  // namespace

struct HttpsTransport::Exchange {
  ExchangeId id = 0;
  HttpsTransport* transport = nullptr;
  CURL* handle = nullptr;
  UpstreamQuery query;
  Instant sent{};
  std::shared_ptr<void> resolve;  // read by curl while it begins
  std::string url;                // with GET
  std::string body;
  char error[CURL_ERROR_SIZE] = {};
};

struct CurlCallbacks {
  static int OnSocket(CURL* /*easy*/, curl_socket_t fd, int what, void* user,
                      void* /*socket*/) {
    auto* client = static_cast<HttpsClient*>(user);
    const auto it = client->fds_.find(fd);
    if (it == client->fds_.end()) return 0;  // none of the Dialer's
    SocketWatch::Handle& watch = it->second.watch;
    if (what == CURL_POLL_REMOVE || what == CURL_POLL_NONE) {
      client->parts_.watch->Forget(watch);
      watch = {};
      return 0;
    }
    const Poller::Trigger trigger =
        what == CURL_POLL_IN    ? Poller::Trigger::kLevelRead
        : what == CURL_POLL_OUT ? Poller::Trigger::kLevelWrite
                                : Poller::Trigger::kLevelReadWrite;
    if (watch.valid()) {
      (void)client->parts_.watch->Modify(watch, trigger);
    } else {
      watch = client->parts_.watch->Watch(fd, trigger, client,
                                          static_cast<uint64_t>(fd));
    }
    return 0;
  }

  static int OnTimer(CURLM* /*multi*/, long ms, void* user) {
    auto* client = static_cast<HttpsClient*>(user);
    client->deadline_ =
        ms < 0 ? kNever : client->now_ + std::chrono::milliseconds(ms);
    return 0;
  }

  static curl_socket_t OnOpen(void* user, curlsocktype /*purpose*/,
                              struct curl_sockaddr* address) {
    auto* transport = static_cast<HttpsTransport*>(user);
    HttpsClient* client = transport->client_;
    if (address->socktype != SOCK_STREAM) return CURL_SOCKET_BAD;
    const Dial dial = client->parts_.dialer->Open(SocketKind::kTcp,
                                                  address->family == AF_INET);
    if (dial.fd < 0) return CURL_SOCKET_BAD;
    client->fds_[dial.fd] = {{}, transport};
    ++transport->stats_.connections;
    ++transport->stats_.sockets;
    return dial.fd;
  }

  static int OnClose(void* user, curl_socket_t fd) {
    auto* client = static_cast<HttpsClient*>(user);
    const auto it = client->fds_.find(fd);
    if (it == client->fds_.end()) return 1;
    client->parts_.watch->Forget(it->second.watch);
    if (it->second.owner != nullptr) --it->second.owner->stats_.sockets;
    client->fds_.erase(it);
    client->parts_.dialer->Close(fd, false);
    return 0;
  }

  static CURLcode OnTls(CURL* /*easy*/, void* context, void* user) {
    auto* client = static_cast<HttpsClient*>(user);
    auto* ctx = static_cast<SSL_CTX*>(context);
    SSL_CTX_set1_cert_store(ctx, client->parts_.tls->store());
    return CURLE_OK;
  }

  static size_t OnBody(char* data, size_t size, size_t count, void* user) {
    auto* exchange = static_cast<HttpsTransport::Exchange*>(user);
    const size_t n = size * count;
    if (exchange->body.size() + n > HttpsTransport::kMaxBody) return 0;
    exchange->body.append(data, n);
    return n;
  }
};

// --- the client -------------------------------------------------------------

HttpsClient::HttpsClient(const Parts& parts) : parts_(parts) {
  static const CURLcode initialized = curl_global_init(CURL_GLOBAL_DEFAULT);
  (void)initialized;
}

HttpsClient::~HttpsClient() { Stop(); }

// Made when it is first used: many a service never speaks HTTPS.
bool HttpsClient::Start() {
  if (multi_ != nullptr) return true;
  multi_ = curl_multi_init();
  if (share_ == nullptr) share_ = curl_share_init();
  if (multi_ == nullptr || share_ == nullptr) {
    Stop();
    return false;
  }
  curl_share_setopt(share_, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
  curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &CurlCallbacks::OnSocket);
  curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &CurlCallbacks::OnTimer);
  curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
  curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, kMaxConnections);
  curl_multi_setopt(multi_, CURLMOPT_MAX_HOST_CONNECTIONS, 4L);
  return true;
}

// Only without requests.
void HttpsClient::Stop() {
  for (HttpsTransport* transport : transports_) {
    for (void* handle : transport->idle_handles_) curl_easy_cleanup(handle);
    transport->idle_handles_.clear();
  }
  if (multi_ != nullptr) curl_multi_cleanup(multi_);  // closes connections
  if (share_ != nullptr) curl_share_cleanup(share_);
  multi_ = nullptr;
  share_ = nullptr;
  deadline_ = kNever;
}

bool HttpsClient::HasRequests() const {
  return std::any_of(
      transports_.begin(), transports_.end(),
      [](const HttpsTransport* t) { return !t->exchanges_.empty(); });
}

Instant HttpsClient::next_deadline() const {
  if (fds_.empty() || HasRequests()) return deadline_;
  return std::min(deadline_, used_ + parts_.idle);
}

void HttpsClient::OnTurn(Instant now) {
  now_ = now;
  if (multi_ == nullptr) return;
  if (!fds_.empty() && now >= used_ + parts_.idle && !HasRequests()) {
    curl_multi_cleanup(multi_);
    multi_ = nullptr;
    deadline_ = kNever;
    return;
  }
  if (now < deadline_) return;
  deadline_ = kNever;
  int running = 0;
  curl_multi_socket_action(multi_, CURL_SOCKET_TIMEOUT, 0, &running);
  CollectEnds();
}

void HttpsClient::OnReady(uint64_t cookie, const PollEvent& event,
                          Instant now) {
  now_ = now;
  if (multi_ == nullptr) return;
  int what = 0;
  if (event.readable) what |= CURL_CSELECT_IN;
  if (event.writable) what |= CURL_CSELECT_OUT;
  if (event.error) what |= CURL_CSELECT_ERR;
  int running = 0;
  curl_multi_socket_action(multi_, static_cast<curl_socket_t>(cookie), what,
                           &running);
  CollectEnds();
}

void HttpsClient::CollectEnds() {
  int left = 0;
  while (CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    char* user = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &user);
    auto* exchange = reinterpret_cast<HttpsTransport::Exchange*>(user);
    // `message` dies with the handle's removal.
    exchange->transport->End(exchange, message->data.result);
  }
}

// --- one upstream -----------------------------------------------------------

HttpsTransport::HttpsTransport(HttpsClient* client, ExchangeListener* listener,
                               Options options)
    : client_(client), listener_(listener), options_(std::move(options)) {
  client_->transports_.push_back(this);
  curl_slist* list = nullptr;
  list = curl_slist_append(list, absl::StrCat("Accept: ", kMediaType).c_str());
  if (!options_.get) {
    list = curl_slist_append(
        list, absl::StrCat("Content-Type: ", kMediaType).c_str());
  }
  for (const auto& [name, value] : options_.headers) {
    list = curl_slist_append(list, absl::StrCat(name, ": ", value).c_str());
  }
  headers_ = list;
}

HttpsTransport::~HttpsTransport() {
  while (!exchanges_.empty())
    Cancel(exchanges_.begin()->first, /*silent=*/false);
  for (void* handle : idle_handles_) curl_easy_cleanup(handle);
  for (auto& [fd, socket] : client_->fds_) {
    if (socket.owner == this) socket.owner = nullptr;
  }
  curl_slist_free_all(static_cast<curl_slist*>(headers_));
  auto& all = client_->transports_;
  all.erase(std::find(all.begin(), all.end(), this));
}

std::optional<ExchangeError> HttpsTransport::Send(
    ExchangeId id, const UpstreamQuery& query,
    std::span<const Endpoint> servers, bool fresh, Instant now) {
  if (servers.empty()) return ExchangeError::kNoAddress;
  if (!client_->Start()) return ExchangeError::kOther;
  client_->now_ = client_->used_ = now;
  SetAddresses(servers);
  auto exchange = std::make_unique<Exchange>();
  exchange->id = id;
  exchange->transport = this;
  exchange->query = query;
  exchange->sent = now;
  Store16(&exchange->query.data[0], 0);  // RFC 8484, section 4.1: cacheable
  if (!Prepare(exchange.get(), fresh)) return ExchangeError::kOther;
  if (curl_multi_add_handle(client_->multi_, exchange->handle) != CURLM_OK) {
    curl_easy_cleanup(exchange->handle);
    return ExchangeError::kOther;
  }
  exchanges_.emplace(id, std::move(exchange));
  return std::nullopt;
}

// "host:port:address,address", which curl takes for the name's resolution.
void HttpsTransport::SetAddresses(std::span<const Endpoint> servers) {
  if (IpAddress::Parse(options_.host)) return;  // nothing to resolve
  std::string text = absl::StrCat(
      options_.host, ":", options_.port, ":",
      absl::StrJoin(servers, ",", [](std::string* out, const Endpoint& e) {
        e.ip.IsV4() ? absl::StrAppend(out, e.ip.ToString())
                    : absl::StrAppend(out, "[", e.ip.ToString(), "]");
      }));
  if (text == resolve_text_) return;
  curl_slist* list = curl_slist_append(nullptr, text.c_str());
  if (list == nullptr) return;
  resolve_text_ = std::move(text);
  // curl reads the list some time after curl_multi_add_handle(), so that
  // requests that have begun keep theirs.
  resolve_ = {
      list, [](void* l) { curl_slist_free_all(static_cast<curl_slist*>(l)); }};
}

void* HttpsTransport::NewHandle() {
  CURL* h = curl_easy_init();
  if (h == nullptr) return nullptr;
  curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "https");
  curl_easy_setopt(h, CURLOPT_PROXY, "");
  curl_easy_setopt(h, CURLOPT_HTTP_VERSION,
                   static_cast<long>(CURL_HTTP_VERSION_2TLS));
  curl_easy_setopt(h, CURLOPT_PIPEWAIT, 1L);
  curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers_);
  curl_easy_setopt(
      h, CURLOPT_TIMEOUT_MS,
      static_cast<long>(
          std::chrono::ceil<std::chrono::milliseconds>(options_.timeout)
              .count()));
  curl_easy_setopt(h, CURLOPT_MAXAGE_CONN, kMaxIdleSeconds);
  curl_easy_setopt(h, CURLOPT_TCP_NODELAY, 1L);
  curl_easy_setopt(h, CURLOPT_SHARE, client_->share_);
  curl_easy_setopt(h, CURLOPT_SSLVERSION,
                   static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, 1L);
  curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, 2L);
  curl_easy_setopt(h, CURLOPT_CAINFO, nullptr);
  curl_easy_setopt(h, CURLOPT_CAPATH, nullptr);
  curl_easy_setopt(h, CURLOPT_SSL_CTX_FUNCTION, &CurlCallbacks::OnTls);
  curl_easy_setopt(h, CURLOPT_SSL_CTX_DATA, client_);
  if (!options_.pins.empty()) {
    const std::string pins =
        absl::StrCat("sha256//", absl::StrJoin(options_.pins, ";sha256//"));
    curl_easy_setopt(h, CURLOPT_PINNEDPUBLICKEY, pins.c_str());
  }
  curl_easy_setopt(h, CURLOPT_OPENSOCKETFUNCTION, &CurlCallbacks::OnOpen);
  curl_easy_setopt(h, CURLOPT_OPENSOCKETDATA, this);
  curl_easy_setopt(h, CURLOPT_CLOSESOCKETFUNCTION, &CurlCallbacks::OnClose);
  curl_easy_setopt(h, CURLOPT_CLOSESOCKETDATA, client_);
  curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, &CurlCallbacks::OnBody);
  return h;
}

bool HttpsTransport::Prepare(Exchange* exchange, bool fresh) {
  if (!idle_handles_.empty()) {
    exchange->handle = idle_handles_.back();
    idle_handles_.pop_back();
  } else {
    exchange->handle = NewHandle();
  }
  CURL* h = exchange->handle;
  if (h == nullptr) return false;
  const absl::string_view message(
      reinterpret_cast<const char*>(exchange->query.data.data()),
      exchange->query.size);
  if (options_.get) {
    std::string encoded;
    absl::WebSafeBase64Escape(message, &encoded);  // without padding
    exchange->url = absl::StrCat(
        options_.url, absl::StrContains(options_.url, '?') ? "&" : "?",
        "dns=", encoded);
    curl_easy_setopt(h, CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(h, CURLOPT_URL, exchange->url.c_str());
  } else {
    curl_easy_setopt(h, CURLOPT_URL, options_.url.c_str());
    curl_easy_setopt(h, CURLOPT_POST, 1L);
    curl_easy_setopt(h, CURLOPT_POSTFIELDS, message.data());
    curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE,
                     static_cast<long>(message.size()));
  }
  exchange->resolve = resolve_;
  curl_easy_setopt(h, CURLOPT_RESOLVE, resolve_.get());
  curl_easy_setopt(h, CURLOPT_FRESH_CONNECT, fresh ? 1L : 0L);
  curl_easy_setopt(h, CURLOPT_WRITEDATA, exchange);
  curl_easy_setopt(h, CURLOPT_PRIVATE, exchange);
  curl_easy_setopt(h, CURLOPT_ERRORBUFFER, exchange->error);
  return true;
}

// Not while curl calls us: removes its handle.
void HttpsTransport::Cancel(ExchangeId id, bool silent) {
  const auto it = exchanges_.find(id);
  if (it == exchanges_.end()) return;
  // Nothing came since it was sent: its connection may be dead and must not
  // get the next query too.
  if (silent && heard_ < it->second->sent) {
    curl_easy_setopt(it->second->handle, CURLOPT_FORBID_REUSE, 1L);
  }
  curl_multi_remove_handle(client_->multi_, it->second->handle);
  Recycle(it->second.get());
  exchanges_.erase(it);
}

void HttpsTransport::Recycle(Exchange* exchange) {
  if (idle_handles_.size() >= kMaxIdleHandles) {
    curl_easy_cleanup(exchange->handle);
    return;
  }
  curl_easy_setopt(exchange->handle, CURLOPT_ERRORBUFFER, nullptr);
  curl_easy_setopt(exchange->handle, CURLOPT_RESOLVE, nullptr);
  curl_easy_setopt(exchange->handle, CURLOPT_FORBID_REUSE, 0L);
  idle_handles_.push_back(exchange->handle);
}

// Its connections are of the network that is gone; other upstreams' too, so
// that the last one to be reset takes curl's whole state along.
void HttpsTransport::Reset(Instant now) {
  client_->now_ = now;
  while (!exchanges_.empty()) {
    const ExchangeId id = exchanges_.begin()->first;
    Cancel(id, /*silent=*/false);
    listener_->OnFailed(id, ExchangeError::kClosed, "the network changed");
  }
  if (!client_->HasRequests()) client_->Stop();
}

void HttpsTransport::OnTurn(Instant /*now*/) {}  // the client's

TransportStats HttpsTransport::stats() const { return stats_; }

void HttpsTransport::End(Exchange* exchange, int result) {
  const ExchangeId id = exchange->id;
  const std::unique_ptr<Exchange> owned =
      std::move(exchanges_.extract(id).mapped());
  CURL* h = exchange->handle;
  long status = 0;
  char* type = nullptr;
  curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(h, CURLINFO_CONTENT_TYPE, &type);
  const std::string media = type == nullptr ? "" : type;
  curl_multi_remove_handle(client_->multi_, h);
  Recycle(exchange);

  const auto code = static_cast<CURLcode>(result);
  client_->used_ = client_->now_;
  if (code == CURLE_OK) heard_ = client_->now_;
  if (code != CURLE_OK) {
    const ExchangeError error = ErrorOfCurl(code);
    if (error == ExchangeError::kTls) ++stats_.tls_failures;
    listener_->OnFailed(id, error,
                        exchange->error[0] != '\0' ? exchange->error
                                                   : curl_easy_strerror(code));
    return;
  }
  if (status != 200) {
    listener_->OnFailed(id, ExchangeError::kHttp,
                        absl::StrCat("HTTP status ", status));
    return;
  }
  // Parameters may follow the type.
  const absl::string_view bare = absl::StripAsciiWhitespace(
      absl::string_view(media).substr(0, media.find(';')));
  if (!absl::EqualsIgnoreCase(bare, kMediaType)) {
    listener_->OnFailed(id, ExchangeError::kHttp,
                        "another content type than application/dns-message");
    return;
  }
  const Bytes answer{reinterpret_cast<const std::byte*>(exchange->body.data()),
                     exchange->body.size()};
  if (MatchQuestion(answer, exchange->query) == QuestionMatch::kNo) {
    ++stats_.mismatched;
    listener_->OnFailed(id, ExchangeError::kBadAnswer, "");
    return;
  }
  listener_->OnAnswer(id, answer);
}

std::optional<HttpsUrl> ParseHttpsUrl(absl::string_view text) {
  text = absl::StripSuffix(text, "{?dns}");
  if (text.size() > 2048 ||
      !std::all_of(text.begin(), text.end(), absl::ascii_isgraph)) {
    return std::nullopt;
  }
  HttpsUrl parsed;
  std::unique_ptr<CURLU, void (*)(CURLU*)> url(curl_url(), &curl_url_cleanup);
  if (url == nullptr ||
      curl_url_set(url.get(), CURLUPART_URL, std::string(text).c_str(),
                   CURLU_DISALLOW_USER) != CURLUE_OK) {
    return std::nullopt;
  }
  const auto part = [&](CURLUPart what) -> std::optional<std::string> {
    char* found = nullptr;
    const CURLUcode code =
        curl_url_get(url.get(), what, &found, CURLU_DEFAULT_PORT);
    if (code != CURLUE_OK) return std::nullopt;
    std::string copy(found);
    curl_free(found);
    return copy;
  };
  const auto scheme = part(CURLUPART_SCHEME);
  const auto host = part(CURLUPART_HOST);
  const auto port = part(CURLUPART_PORT);
  uint32_t number = 0;
  if (scheme != "https" || !host || host->empty() || !port ||
      !absl::SimpleAtoi(*port, &number) || number == 0 || number > 65535 ||
      part(CURLUPART_FRAGMENT) || part(CURLUPART_ZONEID)) {
    return std::nullopt;
  }
  parsed.url = std::string(text);
  absl::string_view bare = *host;  // "[2001:db8::1]"
  if (absl::ConsumePrefix(&bare, "[")) absl::ConsumeSuffix(&bare, "]");
  parsed.host = std::string(bare);
  parsed.port = static_cast<uint16_t>(number);
  return parsed;
}

}  // namespace netstack

// The resolver alone behind a UDP socket: what core/dns answers and how fast,
// without a TUN in between. For comparisons with other forwarders; the service
// itself has no such socket.
//
//   resolver_server 127.0.0.1:5300 plain=127.0.0.1:5301
//   [tls=NAME@127.0.0.1:853]
//                   [https=URL@127.0.0.1] [ca=FILE] [cache=BYTES]
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/dial/dialer.h"
#include "core/dns/resolver.h"
#include "core/platform/clock.h"
#include "core/platform/poller.h"
#include "core/platform/sockets.h"

namespace netstack {
namespace {

constexpr size_t kBatch = 64;
constexpr size_t kMaxQuery = 4096;

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "resolver_server: %s\n", why.c_str());
  std::exit(2);
}

DnsUpstreamOptions UpstreamOf(DnsUpstreamKind kind, absl::string_view value,
                              size_t number) {
  DnsUpstreamOptions u;
  u.name = absl::StrCat("u", number);
  u.kind = kind;
  if (kind == DnsUpstreamKind::kPlain) {
    const auto endpoint = Endpoint::Parse(value);
    if (!endpoint) Die("no endpoint: " + std::string(value));
    u.server = endpoint->ip.ToString();
    u.port = endpoint->port;
    return u;
  }
  const std::vector<std::string> parts = absl::StrSplit(value, '@');
  if (parts.size() != 2) Die("want NAME@ADDRESS: " + std::string(value));
  u.server = parts[0];
  if (kind == DnsUpstreamKind::kTls) {
    const auto endpoint = Endpoint::Parse(parts[1]);
    if (!endpoint) Die("no endpoint: " + parts[1]);
    u.addresses = {endpoint->ip};
    u.port = endpoint->port;
  } else {
    u.addresses = {*IpAddress::Parse(parts[1])};
  }
  return u;
}

class Server {
 public:
  Server(const Endpoint& at, const DnsResolverOptions& options)
      : poller_(*NewPoller()),
        sockets_(NewSockets()),
        dialer_(sockets_.get(), Dialer::Options{}) {
    fd_ = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int size = 4 << 20;
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(at.port);
    std::memcpy(&address.sin_addr, at.ip.v4(), 4);
    if (bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address))) {
      Die("cannot bind " + at.ToString());
    }
    poller_->Add(fd_, {PollToken::Kind::kUdp, 0, 0},
                 Poller::Trigger::kLevelRead);
    Resolver::Parts parts;
    parts.dialer = &dialer_;
    parts.poller = poller_.get();
    parts.secret = {static_cast<uint64_t>(getpid()), 0x9E3779B97F4A7C15};
    resolver_ = Resolver::Create(parts, options, clock_.Now());
  }

  void Run() {
    std::array<PollEvent, 256> events;
    Instant now = clock_.Now();
    for (;;) {
      const size_t n = poller_->Wait(now, resolver_->next_deadline(), events);
      now = clock_.Now();
      for (size_t i = 0; i < n; ++i) {
        if (events[i].token.kind == PollToken::Kind::kUdp) {
          ReadQueries(now);
        } else {
          resolver_->OnSocket(events[i], now);
        }
      }
      resolver_->OnTurn(now);
    }
  }

 private:
  void ReadQueries(Instant now) {
    std::array<mmsghdr, kBatch> batch{};
    std::array<iovec, kBatch> vec;
    for (size_t i = 0; i < kBatch; ++i) {
      vec[i] = {buffers_[i].data(), kMaxQuery};
      batch[i].msg_hdr.msg_iov = &vec[i];
      batch[i].msg_hdr.msg_iovlen = 1;
      batch[i].msg_hdr.msg_name = &peers_[i];
      batch[i].msg_hdr.msg_namelen = sizeof(sockaddr_in);
    }
    const int n = recvmmsg(fd_, batch.data(), kBatch, 0, nullptr);
    for (int i = 0; i < n; ++i) {
      const sockaddr_in peer = peers_[i];
      DnsQuestion q;
      q.client.ip =
          IpAddress::V4(reinterpret_cast<const std::byte*>(&peer.sin_addr));
      q.client.port = ntohs(peer.sin_port);
      q.message = Bytes(buffers_[i]).first(batch[i].msg_len);
      const Resolver::Result result = resolver_->Resolve(
          q, now, [this, peer](const DnsReply& r) { Send(peer, r.message); });
      if (result.reply) Send(peer, result.reply->message);
    }
  }
  void Send(const sockaddr_in& peer, Bytes message) {
    if (message.empty()) return;
    sendto(fd_, message.data(), message.size(), 0,
           reinterpret_cast<const sockaddr*>(&peer), sizeof(peer));
  }

  SystemClock clock_;
  std::unique_ptr<Poller> poller_;
  std::unique_ptr<Sockets> sockets_;
  Dialer dialer_;
  std::unique_ptr<Resolver> resolver_;
  int fd_ = -1;
  std::array<std::array<std::byte, kMaxQuery>, kBatch> buffers_;
  std::array<sockaddr_in, kBatch> peers_;
};

int Main(int argc, char** argv) {
  if (argc < 3) Die("usage: see the head of resolver_server.cc");
  const auto at = Endpoint::Parse(argv[1]);
  if (!at) Die(std::string("no endpoint: ") + argv[1]);
  DnsResolverOptions options;
  for (int i = 2; i < argc; ++i) {
    absl::string_view word = argv[i];
    const size_t number = options.upstreams.size();
    if (absl::ConsumePrefix(&word, "plain=")) {
      options.upstreams.push_back(
          UpstreamOf(DnsUpstreamKind::kPlain, word, number));
    } else if (absl::ConsumePrefix(&word, "tls=")) {
      options.upstreams.push_back(
          UpstreamOf(DnsUpstreamKind::kTls, word, number));
    } else if (absl::ConsumePrefix(&word, "https=")) {
      options.upstreams.push_back(
          UpstreamOf(DnsUpstreamKind::kHttps, word, number));
    } else if (absl::ConsumePrefix(&word, "ca=")) {
      options.ca_file = std::string(word);
    } else if (absl::ConsumePrefix(&word, "cache=")) {
      if (!absl::SimpleAtoi(word, &options.cache.max_bytes)) Die("cache=");
    } else {
      Die(absl::StrCat("what is ", word, "?"));
    }
  }
  for (const DnsOptionsProblem& p : Validate(options)) {
    Die(p.field + ": " + p.problem);
  }
  signal(SIGPIPE, SIG_IGN);
  Server(*at, options).Run();
  return 0;
}

}  // namespace
}  // namespace netstack

int main(int argc, char** argv) { return netstack::Main(argc, argv); }

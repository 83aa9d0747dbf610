// A resolver with everything around it scripted: sockets, poller, time.
//
//   DnsRig rig(Plain("a", "192.0.2.53"));
//   DnsRig::Asked& q = rig.Ask("www.example.com");
//   rig.AnswerLast("203.0.113.1");
//   EXPECT_EQ(q.source, DnsSource::kUpstream);
//
// Messages of the network are made here by hand, so that the code under test
// does not judge itself.
#ifndef TESTS_CORE_DNS_DNS_RIG_H_
#define TESTS_CORE_DNS_DNS_RIG_H_

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "core/dial/dialer.h"
#include "core/dns/resolver.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/scripted_poller.h"
#include "tests/support/scripted_sockets.h"

namespace netstack::test {

using std::chrono::milliseconds;
using std::chrono::seconds;

inline Bytes AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string Number16(int n) {
  return {static_cast<char>(n >> 8 & 0xFF), static_cast<char>(n & 0xFF)};
}
inline int Number16At(absl::string_view text, size_t at) {
  return at + 2 > text.size() ? -1
                              : static_cast<unsigned char>(text[at]) << 8 |
                                    static_cast<unsigned char>(text[at + 1]);
}

// A query as a stub resolver writes it: id 0x1234, RD, no EDNS.
inline std::string QueryText(absl::string_view name, int type = 1,
                             int id = 0x1234) {
  std::string m =
      Number16(id) + std::string("\x01\x00\x00\x01", 4) + std::string(6, '\0');
  for (absl::string_view label : absl::StrSplit(name, '.')) {
    m += static_cast<char>(label.size());
    m += std::string(label);
  }
  m += '\0';
  return m + Number16(type) + Number16(1);
}
// The same with an OPT record: size 4096 and the given options.
inline std::string EdnsQueryText(absl::string_view name,
                                 const std::string& options = "") {
  std::string m = QueryText(name);
  m[11] = 1;
  return m + std::string("\0\0\x29\x10\0\0\0\0\0", 9) +
         Number16(static_cast<int>(options.size())) + options;
}
// Where the question of a message ends.
inline size_t QuestionEnd(absl::string_view message) {
  size_t at = 12;
  while (at < message.size() && message[at] != 0) {
    at += static_cast<unsigned char>(message[at]) + size_t{1};
  }
  return at + 5;
}
// The name, as written.
inline std::string QuestionName(absl::string_view message) {
  std::string name;
  for (size_t at = 12; at < message.size() && message[at] != 0;) {
    const auto n = static_cast<unsigned char>(message[at]);
    name += (name.empty() ? "" : ".") + std::string(message.substr(at + 1, n));
    at += n + size_t{1};
  }
  return name;
}

// The answer to `query` (a message that was sent): one A record, or none with
// an empty address.
inline std::string AnswerText(absl::string_view query,
                              const std::string& address, int rcode = 0,
                              int ttl = 300, bool truncated = false) {
  std::string m(query.substr(0, QuestionEnd(query)));
  m[2] = static_cast<char>(truncated ? 0x83 : 0x81);
  m[3] = static_cast<char>(0x80 | rcode);
  const auto ip = IpAddress::Parse(address);
  m.replace(
      4, 8,
      std::string("\0\1", 2) + Number16(ip ? 1 : 0) + std::string(4, '\0'));
  if (!ip) return m;
  m += std::string("\xC0\x0C", 2) + Number16(ip->IsV4() ? 1 : 28) +
       Number16(1) + Number16(0) + Number16(ttl) +
       Number16(ip->IsV4() ? 4 : 16);
  return m + (ip->IsV4()
                  ? std::string(reinterpret_cast<const char*>(ip->v4()), 4)
                  : std::string(reinterpret_cast<const char*>(ip->v6()), 16));
}

inline DnsUpstreamOptions PlainUpstream(
    const std::string& name, const std::string& server,
    DnsUpstreamKind kind = DnsUpstreamKind::kPlain) {
  DnsUpstreamOptions u;
  u.name = name;
  u.server = server;
  u.kind = kind;
  return u;
}

class FakeSystemDns final : public SystemDns {
 public:
  std::vector<Endpoint> servers;
  const std::vector<Endpoint>& Servers() override { return servers; }
};

class DnsRig final : public ResolverListener {
 public:
  // One app's query and its answer.
  struct Asked {
    Resolver::QueryId id = 0;
    int calls = 0;
    std::string message;
    DnsSource source = DnsSource::kFailure;
    DnsFailure failure = DnsFailure::kNone;
    int rcode = -1;
    bool coalesced = false;
    bool stale = false;
    std::string upstream;
    std::string rule;
    Duration latency{};

    // The last four bytes, which are the address of AnswerText()'s record.
    std::string address() const {
      if (message.size() < 4 || Number16At(message, 6) < 1) return "";
      return IpAddress::V4(AsBytes(message).data() + message.size() - 4)
          .ToString();
    }
  };

  explicit DnsRig(DnsResolverOptions o) : DnsRig(std::move(o), {}) {}
  DnsRig(DnsResolverOptions o, const Dialer::Options& d)
      : options(std::move(o)), dialer(&sockets, d) {
    sockets.on_connect = [this](const Endpoint& to) {
      const bool udp = sockets.last().kind == SocketKind::kUdp;
      if (connect_result) return connect_result(to);
      return udp ? 0 : -EINPROGRESS;
    };
    EXPECT_TRUE(Validate(options).empty());
    Resolver::Parts parts;
    parts.dialer = &dialer;
    parts.poller = &poller;
    parts.system_dns = &system_dns;
    parts.listener = this;
    parts.secret = {11, 12};
    resolver = Resolver::Create(parts, options, now());
    Turn();
  }
  ~DnsRig() override {
    resolver->Shutdown(now());
    resolver.reset();
    EXPECT_EQ(dialer.in_use(), 0u);
    EXPECT_EQ(sockets.open_count(), 0u);
    EXPECT_EQ(poller.watch_count(), 0u);
    for (const auto& asked : all) {
      if (asked->id != 0 && !cancelled(asked->id)) {
        EXPECT_EQ(asked->calls, 1) << "a query is answered once";
      }
    }
  }

  Instant now() { return clock.Now(); }
  void Turn() { resolver->OnTurn(now()); }
  // Time passes; deadlines are met as the loop would.
  void Advance(Duration d) {
    const Instant end = now() + d;
    while (resolver->next_deadline() <= end) {
      clock.AdvanceTo(resolver->next_deadline());
      Turn();
    }
    clock.AdvanceTo(end);
    Turn();
  }

  Asked& Ask(absl::string_view name, int type = 1) {
    return AskText(QueryText(name, type));
  }
  Asked& AskText(const std::string& message,
                 DnsTransport transport = DnsTransport::kUdp) {
    all.push_back(std::make_unique<Asked>());
    Asked* asked = all.back().get();
    DnsQuestion q;
    q.client = *Endpoint::Parse("10.0.0.2:40000");
    q.server = *Endpoint::Parse("8.8.8.8:53");
    q.transport = transport;
    q.message = AsBytes(message);
    const Resolver::Result result = resolver->Resolve(
        q, now(), [asked](const DnsReply& r) { Note(asked, r); });
    EXPECT_EQ(asked->calls, 0) << "called inside Resolve()";
    asked->id = result.id;
    if (result.reply) {
      EXPECT_EQ(result.id, 0u);
      Note(asked, *result.reply);
    } else {
      EXPECT_NE(result.id, 0u);
    }
    Turn();
    return *asked;
  }
  void Cancel(Asked& asked) {
    cancelled_.push_back(asked.id);
    resolver->Cancel(asked.id);
  }

  // Sockets.
  ScriptedSocket& socket(size_t i) { return *sockets.all().at(i); }
  size_t socket_count() const { return sockets.all().size(); }
  // Datagrams arrive at a UDP socket.
  void Arrive(ScriptedSocket& s, const std::string& datagram) {
    s.Feed(datagram);
    Readable(s);
  }
  void Readable(ScriptedSocket& s) { Tell(s, {.token = {}, .readable = true}); }
  void Tell(ScriptedSocket& s, PollEvent event) {
    const auto watch = poller.watch(s.fd);
    ASSERT_TRUE(watch.has_value()) << "not watched";
    event.token = watch->token;
    EXPECT_EQ(event.token.kind, PollToken::Kind::kDns);
    resolver->OnSocket(event, now());
    Turn();
  }
  void AnswerLast(const std::string& address, int rcode = 0) {
    Answer(sockets.last(), address, rcode);
  }
  void Answer(ScriptedSocket& s, const std::string& address, int rcode = 0) {
    ASSERT_FALSE(s.sent.empty()) << "nothing was asked";
    Arrive(s, AnswerText(s.sent, address, rcode));
  }
  // The newest open socket to `server`.
  void AnswerAt(absl::string_view server, const std::string& address) {
    for (size_t i = socket_count(); i-- > 0;) {
      if (socket(i).closed || to(i) != server) continue;
      Answer(socket(i), address);
      return;
    }
    ADD_FAILURE() << "nobody asks " << server;
  }
  // A TCP socket's dial ends well.
  void Connected(ScriptedSocket& s) {
    Tell(s, {.token = {}, .writable = true});
  }
  // The frames that were sent over a TCP socket.
  static std::vector<std::string> Frames(const ScriptedSocket& s) {
    std::vector<std::string> frames;
    for (size_t at = 0; at + 2 <= s.sent.size();) {
      const auto n = static_cast<size_t>(Number16At(s.sent, at));
      frames.push_back(s.sent.substr(at + 2, n));
      EXPECT_EQ(frames.back().size(), n) << "a frame is cut";
      at += 2 + n;
    }
    return frames;
  }
  static std::string Frame(const std::string& message) {
    return Number16(static_cast<int>(message.size())) + message;
  }

  DnsUpstreamInfo Info(absl::string_view name) {
    for (const DnsUpstreamInfo& info : resolver->Upstreams(now())) {
      if (info.name == name) return info;
    }
    ADD_FAILURE() << "no upstream " << name;
    return {};
  }
  std::string to(size_t i) { return socket(i).connected_to->ToString(); }

  void OnUpstreamHealth(absl::string_view upstream, bool up,
                        absl::string_view) override {
    health.push_back(std::string(upstream) + (up ? " up" : " down"));
  }
  void OnFailedOpen(absl::string_view) override { ++failed_open; }

  DnsResolverOptions options;
  FakeClock clock;
  ScriptedPoller poller{&clock};
  ScriptedSockets sockets;
  std::function<int(const Endpoint&)> connect_result;
  FakeSystemDns system_dns;
  Dialer dialer;
  std::unique_ptr<Resolver> resolver;
  std::vector<std::unique_ptr<Asked>> all;
  std::vector<std::string> health;
  int failed_open = 0;

 private:
  static void Note(Asked* asked, const DnsReply& r) {
    ++asked->calls;
    asked->message.assign(reinterpret_cast<const char*>(r.message.data()),
                          r.message.size());
    asked->source = r.source;
    asked->failure = r.failure;
    asked->rcode = r.rcode;
    asked->coalesced = r.coalesced;
    asked->stale = r.stale;
    asked->upstream = std::string(r.upstream);
    asked->rule = std::string(r.rule);
    asked->latency = r.latency;
  }
  bool cancelled(Resolver::QueryId id) const {
    return std::find(cancelled_.begin(), cancelled_.end(), id) !=
           cancelled_.end();
  }
  std::vector<Resolver::QueryId> cancelled_;
};

inline DnsResolverOptions OptionsOf(std::vector<DnsUpstreamOptions> upstreams) {
  DnsResolverOptions o;
  o.upstreams = std::move(upstreams);
  return o;
}

}  // namespace netstack::test

#endif  // TESTS_CORE_DNS_DNS_RIG_H_

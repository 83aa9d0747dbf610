// UDP through the TUN: what arrives, from where, and what apps are told when it
// does not. RFC 4787 as far as a kernel and a second server can show it.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/wire/fragment_packets.h"
#include "tests/e2e/support/far.h"
#include "tests/e2e/support/process.h"
#include "tests/e2e/support/raw.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/topology.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

namespace netstack::e2e {
namespace {

std::string Content(size_t size, unsigned seed) {
  std::string s(size, '\0');
  unsigned x = seed * 2654435761u + 1;
  for (char& c : s) {
    x = x * 1664525u + 1013904223u;
    c = static_cast<char>(x >> 24);
  }
  return s;
}

// A datagram socket of a namespace.
class Socket {
 public:
  Socket(const std::string& ns, int family, const std::string& ip = "",
         uint16_t port = 0) {
    Enter enter(ns);
    fd_ = Fd(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    EXPECT_TRUE(fd_.ok()) << strerror(errno);
    const std::string any = family == AF_INET ? "0.0.0.0" : "::";
    const Address at(ip.empty() ? any : ip, port);
    EXPECT_EQ(bind(fd_.get(), at.get(), at.size), 0) << strerror(errno);
  }

  uint16_t port() const {
    Address a;
    getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&a.storage), &a.size);
    return a.port();
  }
  int Connect(const Address& to) {
    return connect(fd_.get(), to.get(), to.size) == 0 ? 0 : errno;
  }
  // 0 or errno.
  int Send(const std::string& bytes, const Address& to) {
    const ssize_t n = sendto(fd_.get(), bytes.data(), bytes.size(), 0,
                             to.get(), to.size);
    return n >= 0 ? 0 : errno;
  }
  int Send(const std::string& bytes) {
    return send(fd_.get(), bytes.data(), bytes.size(), 0) >= 0 ? 0 : errno;
  }
  struct Got {
    int error = 0;  // ETIMEDOUT: nothing came
    std::string bytes;
    Address from;
    int tos = -1;
    int ttl = -1;
  };
  Got Receive(Clock::duration patience = seconds(5)) {
    Got got;
    pollfd p{fd_.get(), POLLIN, 0};
    const auto ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(patience);
    if (poll(&p, 1, static_cast<int>(ms.count())) == 0) {
      got.error = ETIMEDOUT;
      return got;
    }
    got.bytes.resize(65536);
    iovec part{got.bytes.data(), got.bytes.size()};
    alignas(cmsghdr) std::array<char, 256> control;
    msghdr m{};
    m.msg_name = &got.from.storage;
    m.msg_namelen = sizeof(got.from.storage);
    m.msg_iov = &part;
    m.msg_iovlen = 1;
    m.msg_control = control.data();
    m.msg_controllen = control.size();
    ssize_t n = recvmsg(fd_.get(), &m, MSG_DONTWAIT);
    // Linux wakes poll() with the entry of the error queue, and only then sets
    // the socket's error.
    for (int i = 0; n < 0 && errno == EAGAIN && i < 100; ++i) {
      Pause(milliseconds(1));
      n = recvmsg(fd_.get(), &m, MSG_DONTWAIT);
    }
    if (n < 0) {
      got.error = errno;
      got.bytes.clear();
      return got;
    }
    got.bytes.resize(static_cast<size_t>(n));
    got.from.size = m.msg_namelen;
    for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr;
         c = CMSG_NXTHDR(&m, c)) {
      const bool v4 = c->cmsg_level == IPPROTO_IP;
      if (v4 ? c->cmsg_type == IP_TOS : c->cmsg_type == IPV6_TCLASS) {
        got.tos = *reinterpret_cast<unsigned char*>(CMSG_DATA(c));
      }
      if (v4 ? c->cmsg_type == IP_TTL : c->cmsg_type == IPV6_HOPLIMIT) {
        got.ttl = *reinterpret_cast<unsigned char*>(CMSG_DATA(c));
      }
    }
    return got;
  }
  void Set(int level, int option, int value) {
    EXPECT_EQ(setsockopt(fd_.get(), level, option, &value, sizeof(value)), 0)
        << strerror(errno);
  }
  int Get(int level, int option) {
    int value = -1;
    socklen_t size = sizeof(value);
    getsockopt(fd_.get(), level, option, &value, &size);
    return value;
  }
  int fd() const { return fd_.get(); }

 private:
  Fd fd_;
};

// Sends everything back to where it came from.
class Echo {
 public:
  Echo(const std::string& ns, int family, const std::string& ip = "")
      : socket_(ns, family, ip), thread_([this] { Run(); }) {}
  ~Echo() {
    stop_ = true;
    thread_.join();
  }
  uint16_t port() const { return socket_.port(); }

 private:
  void Run() {
    while (!stop_) {
      const Socket::Got got = socket_.Receive(milliseconds(100));
      if (got.error == 0) socket_.Send(got.bytes, got.from);
    }
  }
  Socket socket_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// Knows an address for every name.
class NameServer {
 public:
  NameServer()
      : socket_(World().srv(), AF_INET, kV4.tunnel, kPort),
        thread_([this] { Run(); }) {}
  ~NameServer() {
    stop_ = true;
    thread_.join();
  }
  static constexpr uint16_t kPort = 5300;

 private:
  void Run() {
    while (!stop_) {
      const Socket::Got got = socket_.Receive(milliseconds(100));
      if (got.error != 0 || got.bytes.size() < 17) continue;
      size_t at = 12;  // behind the question's name
      while (at < got.bytes.size() && got.bytes[at] != 0) {
        at += static_cast<unsigned char>(got.bytes[at]) + size_t{1};
      }
      if (at + 5 > got.bytes.size()) continue;
      const std::string head("\x81\x80\0\1\0\1\0\0\0\0", 10);
      const std::string answer(
          "\xC0\x0C\0\1\0\1\0\0\0\x3C\0\4\x0A\x4D\1\2", 16);
      socket_.Send(got.bytes.substr(0, 2) + head +
                       got.bytes.substr(12, at + 5 - 12) + answer,
                   got.from);
    }
  }
  Socket socket_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// Asks for a new name every 20 ms, each once, and counts the addresses.
class Asker {
 public:
  explicit Asker(const Family& family)
      : server_(family.family == AF_INET ? "203.0.113.53" : "2001:db8::53", 53),
        socket_(World().app(), family.family),
        thread_([this] { Run(); }) {}
  ~Asker() {
    if (thread_.joinable()) Stop();
  }
  void Stop() {
    stop_ = true;
    thread_.join();
  }
  // Behind Stop().
  int answered() const { return answered_; }
  int failed() const { return failed_; }

 private:
  void Run() {
    for (uint16_t id = 1; !stop_; ++id) {
      std::string name = "n" + std::to_string(id);
      name = static_cast<char>(name.size()) + name + "\7example";
      std::string query(12, '\0');
      query[0] = static_cast<char>(id >> 8);
      query[1] = static_cast<char>(id);
      query[2] = 1;  // recursion desired
      query[5] = 1;
      query += name + std::string("\0\0\1\0\1", 5);
      const int error = socket_.Send(query, server_);
      const Socket::Got got = socket_.Receive(seconds(5));
      const bool good = error == 0 && got.error == 0 &&
                        got.bytes.size() > query.size() &&
                        got.bytes.compare(0, 2, query, 0, 2) == 0 &&
                        (got.bytes[3] & 15) == 0 && got.bytes[7] == 1;
      ++(good ? answered_ : failed_);
      Pause(milliseconds(20));
    }
  }
  const Address server_;
  Socket socket_;
  std::atomic<bool> stop_{false};
  int answered_ = 0;
  int failed_ = 0;
  std::thread thread_;
};

class UdpTest : public testing::TestWithParam<const Family*> {
 protected:
  const Family& family() const { return *GetParam(); }
  bool v4() const { return family().family == AF_INET; }
  int level() const { return v4() ? IPPROTO_IP : IPPROTO_IPV6; }
  Socket App() const { return Socket(World().app(), family().family); }
  // Bound to an address, since a wildcard socket may answer from another one.
  Socket Srv(const std::string& ip = "") const {
    return Socket(World().srv(), family().family,
                  ip.empty() ? family().tunnel : ip);
  }
  Address Tunnel(uint16_t port) const { return {family().tunnel, port}; }
  static std::string Ip(const Address& a) {
    char text[INET6_ADDRSTRLEN] = "";
    const void* at =
        a.family() == AF_INET
            ? static_cast<const void*>(
                  &reinterpret_cast<const sockaddr_in*>(a.get())->sin_addr)
            : &reinterpret_cast<const sockaddr_in6*>(a.get())->sin6_addr;
    inet_ntop(a.family(), at, text, sizeof(text));
    return text;
  }
};
INSTANTIATE_TEST_SUITE_P(Families, UdpTest, testing::Values(&kV4, &kV6),
                         FamilyName);

// With offload and without; beyond the MTU in fragments both ways.
TEST_P(UdpTest, EveryByteComesBack) {
  for (const bool offload : {true, false}) {
    ServiceOptions options;
    options.offload = offload;
    Service service(options);
    Echo echo(World().srv(), family().family, family().tunnel);
    Socket app = App();
    unsigned seed = 0;
    for (const size_t size : {0, 1, 1200, 1452, 1472, 1473, 8000, 60000}) {
      const std::string sent = Content(size, ++seed);
      ASSERT_EQ(app.Send(sent, Tunnel(echo.port())), 0) << size;
      const Socket::Got got = app.Receive();
      ASSERT_EQ(got.error, 0) << strerror(got.error) << " at " << size;
      EXPECT_TRUE(got.bytes == sent) << size;
      EXPECT_EQ(Ip(got.from), family().tunnel);
      EXPECT_EQ(got.from.port(), echo.port());
    }
    const auto flows = service.control().Flows();
    ASSERT_EQ(flows.size(), 1u);
    EXPECT_EQ(flows[0].key().protocol(), v1::PROTOCOL_UDP);
    EXPECT_EQ(flows[0].key().remote().address(), family().tunnel);
    EXPECT_EQ(flows[0].outbound_bytes(), flows[0].inbound_bytes());
    EXPECT_EQ(flows[0].outbound_bytes(), 73'598u);
    EXPECT_EQ(service.control().Stats().udp().mappings(), 1u);
  }
}

TEST_P(UdpTest, KeepsTosAndSpendsOneHop) {
  Service service;
  Socket srv = Srv(), app = App();
  for (Socket* s : {&srv, &app}) {
    s->Set(level(), v4() ? IP_RECVTOS : IPV6_RECVTCLASS, 1);
    s->Set(level(), v4() ? IP_RECVTTL : IPV6_RECVHOPLIMIT, 1);
  }
  app.Set(level(), v4() ? IP_TOS : IPV6_TCLASS, 0xB9);
  app.Set(level(), v4() ? IP_TTL : IPV6_UNICAST_HOPS, 40);
  ASSERT_EQ(app.Send("x", Tunnel(srv.port())), 0);
  Socket::Got got = srv.Receive();
  ASSERT_EQ(got.error, 0);
  EXPECT_EQ(got.tos, 0xB9);
  EXPECT_EQ(got.ttl, 39) << "gw is the hop, and srv is on its link";
  srv.Set(level(), v4() ? IP_TOS : IPV6_TCLASS, 0x03);
  srv.Set(level(), v4() ? IP_TTL : IPV6_UNICAST_HOPS, 50);
  ASSERT_EQ(srv.Send("y", got.from), 0);
  got = app.Receive();
  ASSERT_EQ(got.error, 0);
  EXPECT_EQ(got.tos, 0x03);
  EXPECT_EQ(got.ttl, 49);
}

// "Full cone": the same endpoint for all remotes, and all may answer.
TEST_P(UdpTest, RemotesFindTheAppByOneEndpoint) {
  Service service;
  Socket first = Srv(family().tunnel), second = Srv(family().tunnel2);
  Socket app = App();
  ASSERT_EQ(app.Send("a", Tunnel(first.port())), 0);
  const Socket::Got a = first.Receive();
  ASSERT_EQ(a.error, 0);
  EXPECT_EQ(a.from.port(), app.port()) << "the app's own port is free";
  // The other has never heard of the app, but was told of its endpoint.
  ASSERT_EQ(second.Send("hello", a.from), 0);
  const Socket::Got b = app.Receive();
  ASSERT_EQ(b.error, 0) << strerror(b.error);
  EXPECT_EQ(b.bytes, "hello");
  EXPECT_EQ(Ip(b.from), family().tunnel2);
  ASSERT_EQ(app.Send("you", b.from), 0);
  const Socket::Got c = second.Receive();
  ASSERT_EQ(c.error, 0);
  EXPECT_EQ(c.from.port(), a.from.port());
  EXPECT_EQ(service.control().Stats().udp().mappings(), 1u);
  EXPECT_EQ(service.control().Flows().size(), 2u);
}

TEST_P(UdpTest, FilteringKeepsStrangersOut) {
  ServiceOptions options;
  options.config = "udp { filtering: UDP_FILTERING_ADDRESS_DEPENDENT }";
  Service service(options);
  Socket first = Srv(family().tunnel), same = Srv(family().tunnel);
  Socket other = Srv(family().tunnel2), app = App();
  ASSERT_EQ(app.Send("a", Tunnel(first.port())), 0);
  const Socket::Got a = first.Receive();
  ASSERT_EQ(a.error, 0);
  ASSERT_EQ(other.Send("no", a.from), 0);
  ASSERT_EQ(same.Send("yes", a.from), 0);
  EXPECT_EQ(app.Receive().bytes, "yes");
  EXPECT_EQ(app.Receive(milliseconds(200)).error, ETIMEDOUT);
  EXPECT_EQ(service.control().Drops(v1::DROP_REASON_UDP_FILTERED), 1u);
}

// Two apps behind us, each knowing the other's outer endpoint.
TEST_P(UdpTest, AppsMeetAtTheirOuterEndpoints) {
  Service service;
  Socket srv = Srv(), a = App(), b = App();
  std::array<Address, 2> outer;
  for (Socket* s : {&a, &b}) {
    ASSERT_EQ(s->Send("who am I", Tunnel(srv.port())), 0);
    const Socket::Got got = srv.Receive();
    ASSERT_EQ(got.error, 0);
    outer[s == &a ? 0 : 1] = got.from;
    ASSERT_EQ(srv.Send("you", got.from), 0);
    ASSERT_EQ(s->Receive().error, 0);
  }
  ASSERT_EQ(a.Send("hi", outer[1]), 0);
  const Socket::Got got = b.Receive();
  ASSERT_EQ(got.error, 0) << strerror(got.error);
  EXPECT_EQ(got.bytes, "hi");
  EXPECT_EQ(Ip(got.from), Ip(outer[0]));
  EXPECT_EQ(got.from.port(), outer[0].port());
  ASSERT_EQ(b.Send("hello", got.from), 0);
  EXPECT_EQ(a.Receive().bytes, "hello");
  EXPECT_EQ(service.control().Stats().udp().hairpinned(), 2u);
}

TEST_P(UdpTest, AppsAreToldWhatTheNetworkSays) {
  Service service;
  const auto ask = [&](const std::string& ip, uint16_t port) {
    Socket app = App();
    // Else Linux keeps to itself what may be transient.
    app.Set(level(), v4() ? IP_RECVERR : IPV6_RECVERR, 1);
    EXPECT_EQ(app.Connect({ip, port}), 0);
    // More than once, as an app would: an unreachable route of Linux tells one
    // host at most one error a second (net.ipv4.route.error_cost), and shares
    // that count with the port unreachable before it.
    int error = ETIMEDOUT;
    for (int i = 0; i < 3 && error == ETIMEDOUT; ++i) {
      EXPECT_EQ(app.Send("x"), 0);
      error = app.Receive(seconds(2)).error;
    }
    return error;
  };
  uint16_t closed = 0;
  {
    closed = Srv().port();
  }
  EXPECT_EQ(ask(family().tunnel, closed), ECONNREFUSED);
  EXPECT_EQ(ask(family().unreachable, 9), EHOSTUNREACH);
  EXPECT_EQ(ask(family().prohibited, 9), v4() ? EHOSTUNREACH : EACCES);
  EXPECT_EQ(ask(family().no_route, 9), ENETUNREACH);
  EXPECT_EQ(ask(family().black_hole, 9), ETIMEDOUT);
}

// One socket of an app, two remotes of which one refuses: an error of his is
// nobody else's loss.
TEST_P(UdpTest, ARefusingRemoteCostsOthersNothing) {
  Service service;
  Echo echo(World().srv(), family().family, family().tunnel);
  const uint16_t closed = Srv().port();
  Socket app = App();
  constexpr int kRounds = 200;
  for (int i = 0; i < kRounds; ++i) {
    ASSERT_EQ(app.Send("lost", Tunnel(closed)), 0);
    ASSERT_EQ(app.Send(std::to_string(i), Tunnel(echo.port())), 0);
    const Socket::Got got = app.Receive();
    ASSERT_EQ(got.error, 0) << "round " << i;
    EXPECT_EQ(got.bytes, std::to_string(i));
  }
  EXPECT_GT(service.control().Stats().udp().host_errors(), 0u);
}

TEST_P(UdpTest, BatchesStayBatches) {
  Service service;
  Socket srv = Srv(), app = App();
  for (Socket* s : {&srv, &app}) s->Set(SOL_SOCKET, SO_RCVBUF, 1 << 20);
  ASSERT_EQ(app.Connect(Tunnel(srv.port())), 0);
  app.Set(IPPROTO_UDP, UDP_SEGMENT, 1200);
  srv.Set(IPPROTO_UDP, UDP_SEGMENT, 1200);
  const std::string batch = Content(20 * 1200 + 77, 5);
  ASSERT_EQ(app.Send(batch), 0) << strerror(errno);
  const auto collect = [&](Socket& s, Address* from) {
    std::string all;
    while (all.size() < batch.size()) {
      const Socket::Got got = s.Receive();
      EXPECT_EQ(got.error, 0) << all.size();
      if (got.error != 0) break;
      EXPECT_LE(got.bytes.size(), 1200u);
      all += got.bytes;
      if (from != nullptr) *from = got.from;
    }
    return all;
  };
  Address from;
  EXPECT_TRUE(collect(srv, &from) == batch);
  ASSERT_EQ(srv.Send(batch, from), 0) << strerror(errno);
  EXPECT_TRUE(collect(app, nullptr) == batch);
  const v1::Stats stats = service.control().Stats();
  EXPECT_EQ(stats.udp().outbound_datagrams(), 21u);
  EXPECT_EQ(stats.udp().inbound_datagrams(), 21u);
  EXPECT_GT(stats.udp().outbound_batches(), 0u);
  EXPECT_GT(stats.udp().inbound_batches(), 0u);
  // Where the kernel has USO, 21 datagrams are one packet of the TUN.
  RecordProperty("udp_packets", static_cast<int>(stats.tun().udp_packets()));
}

// A path with a small MTU behind the next hop.
TEST_P(UdpTest, PathMtuIsToldToTheApp) {
  Far far;
  Service service;
  Echo echo(far.far(), family().family, Far::Tunnel(family()));
  Socket app = App();
  ASSERT_EQ(app.Connect({Far::Tunnel(family()), echo.port()}), 0);
  app.Set(level(), v4() ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER,
          v4() ? +IP_PMTUDISC_DO : +IPV6_PMTUDISC_DO);
  int mtu = 0;
  for (int i = 0; i < 20 && mtu != Far::kSmallMtu; ++i) {
    app.Send(std::string(1400, 'b'));
    app.Receive(milliseconds(100));
    mtu = app.Get(level(), v4() ? IP_MTU : IPV6_MTU);
  }
  EXPECT_EQ(mtu, Far::kSmallMtu);
  const size_t fits = Far::kSmallMtu - (v4() ? 28 : 48);
  ASSERT_EQ(app.Send(std::string(fits, 'c')), 0);
  Socket::Got got = app.Receive();
  EXPECT_EQ(got.bytes.size(), fits);
  EXPECT_EQ(app.Send(std::string(fits + 1, 'd')), EMSGSIZE);
}

// R7, by destinations: new flows are refused at once, old ones live.
TEST_P(UdpTest, AFullTableRefusesAtOnce) {
  ServiceOptions options;
  options.config = "udp { max_flows: 64 }";
  Service service(options);
  Echo echo(World().srv(), family().family, family().tunnel);
  Socket old = App();
  ASSERT_EQ(old.Connect(Tunnel(echo.port())), 0);
  ASSERT_EQ(old.Send("old"), 0);
  ASSERT_EQ(old.Receive().bytes, "old");
  Socket scan = App();
  for (uint16_t port = 1; port <= 200; ++port) {
    scan.Send("s", {family().black_hole, static_cast<uint16_t>(10000 + port)});
  }
  Socket late = App();
  ASSERT_EQ(late.Connect(Tunnel(echo.port())), 0);
  const auto before = Clock::now();
  ASSERT_EQ(late.Send("late"), 0);
  const int error = late.Receive().error;
  const auto took = Clock::now() - before;
  EXPECT_EQ(error, v4() ? EHOSTUNREACH : EACCES) << strerror(error);
  EXPECT_LT(took, milliseconds(100)) << "10 ms on a quiet machine";
  ASSERT_EQ(old.Send("alive"), 0);
  EXPECT_EQ(old.Receive().bytes, "alive");
  EXPECT_GT(service.control().Drops(v1::DROP_REASON_FLOW_TABLE_FULL), 100u);
  // The scan makes room.
  std::this_thread::sleep_for(seconds(6));
  ASSERT_EQ(late.Send("late"), 0);
  EXPECT_EQ(late.Receive().bytes, "late");
  EXPECT_EQ(service.control().Stats().udp().active(), 2u);
}

// R7: somebody scatters 100,000 datagrams a minute, over source ports or over
// destinations. Those who have flows keep them, names are answered, and who
// comes new has a flow or is told at once that there is none.
class Scatter : public UdpTest {
 protected:
  struct Told {
    int answered = 0;
    int refused = 0;
    int silent = 0;
    std::vector<double> refused_after;  // ms
  };

  void Run(const std::function<std::vector<std::byte>()>& next) {
    const uint64_t cap = FullScale() ? 16'384 : 512;
    const auto time = seconds(FullScale() ? 60 : 3);
    const std::string number = std::to_string(cap);
    ServiceOptions options;
    options.config = "limits { max_flows: " + number +
                     " } udp { max_flows: " + number + " max_peers: " + number +
                     " } dns { enabled: true groups { name: 'up' upstreams { "
                     "address: '10.77.1.2:5300' } } }";
    NameServer names;
    Service service(options);
    Echo echo(World().srv(), family().family, family().tunnel);
    echo_ = Tunnel(echo.port());
    std::vector<std::unique_ptr<Socket>> old;
    for (int i = 0; i < 10; ++i) {
      old.push_back(std::make_unique<Socket>(World().app(), family().family));
      ASSERT_EQ(old.back()->Connect(echo_), 0);
    }
    uint64_t alive = 0;
    const auto all_live = [&] {
      for (size_t i = 0; i < old.size(); ++i) {
        const std::string word = std::to_string(++alive);
        ASSERT_EQ(old[i]->Send(word), 0) << "flow " << i;
        ASSERT_EQ(old[i]->Receive().bytes, word) << "flow " << i;
      }
    };
    all_live();
    Asker asker(family());
    Injector injector(World().app(), Service::kTun);

    Told told;
    uint64_t scattered = 0;
    {
      Flood flood(injector, 100'000 / 60, next);
      for (const auto end = Clock::now() + time; Clock::now() < end;) {
        all_live();
        if (HasFatalFailure()) return;
        Newcomer(told);
        Pause(milliseconds(100));
      }
      scattered = flood.sent();
    }
    const uint64_t most = service.control().Stats().udp().active();
    EXPECT_LE(most, cap);
    EXPECT_GT(scattered, static_cast<uint64_t>(time.count()) * 1000);

    // A table that is full, and what makes room is taken at once.
    const uint64_t refused =
        service.control().Drops(v1::DROP_REASON_FLOW_TABLE_FULL);
    Told full;
    {
      Flood flood(injector, 10'000, next);
      ASSERT_TRUE(Eventually([&] { return flood.sent() > 2 * cap; }));
      for (int i = 0; i < 20; ++i) {
        Newcomer(full);
        Pause(milliseconds(20));
      }
    }
    all_live();
    asker.Stop();
    EXPECT_GT(service.control().Drops(v1::DROP_REASON_FLOW_TABLE_FULL),
              refused);
    EXPECT_GE(full.refused, 10) << full.answered << " answered";
    EXPECT_LE(full.silent, 1) << "as below";
    std::sort(full.refused_after.begin(), full.refused_after.end());
    ASSERT_FALSE(full.refused_after.empty());
    const double median = full.refused_after[full.refused_after.size() / 2];
    EXPECT_LE(median, 10);
    EXPECT_LE(full.refused_after.back(), 100) << "10 ms on a quiet machine";
    EXPECT_EQ(asker.failed(), 0);
    EXPECT_GT(asker.answered(), 20);
    EXPECT_LE(told.silent, 1) << "its errors may be limited with the scan's";
    std::printf(
        "%llu scattered, %llu flows; newcomers %d answered, %d refused, %d "
        "silent; full: %d refused after %.2f ms (median), %.2f ms (last); "
        "names %d of %d; %llu echoes of old flows\n",
        static_cast<unsigned long long>(scattered),
        static_cast<unsigned long long>(most), told.answered, told.refused,
        told.silent, full.refused, median, full.refused_after.back(),
        asker.answered(), asker.answered() + asker.failed(),
        static_cast<unsigned long long>(alive));
  }

  void Newcomer(Told& told) {
    Socket app = App();
    app.Set(level(), v4() ? IP_RECVERR : IPV6_RECVERR, 1);
    ASSERT_EQ(app.Connect(echo_), 0);
    const auto start = Clock::now();
    ASSERT_EQ(app.Send("new"), 0);
    const Socket::Got got = app.Receive(milliseconds(500));
    if (got.error == ETIMEDOUT) {
      ++told.silent;
    } else if (got.error == 0) {
      ++told.answered;
    } else {
      EXPECT_EQ(got.error, v4() ? EHOSTUNREACH : EACCES);
      ++told.refused;
      told.refused_after.push_back(SecondsSince(start) * 1000);
    }
  }
  std::vector<std::byte> Datagram(uint16_t from, const IpAddress& to,
                                  uint16_t port) const {
    const test::Family f{family().name, *IpAddress::Parse(family().app), to};
    return test::MakeIp(
        f.app, f.remote, 17,
        test::MakeUdp(f, from, port, test::Hex("00112233")));
  }

 private:
  Address echo_;
};
INSTANTIATE_TEST_SUITE_P(Families, Scatter, testing::Values(&kV4, &kV6),
                         FamilyName);

TEST_P(Scatter, OverSourcePorts) {
  uint16_t port = 1024;
  const IpAddress to = *IpAddress::Parse(family().black_hole);
  Run([&] {
    port = port == 0xFFFF ? 1024 : port + 1;
    return Datagram(port, to, 9);
  });
}

TEST_P(Scatter, OverDestinations) {
  uint32_t number = 0;
  Run([&] {
    ++number;
    char text[64];
    if (v4()) {
      std::snprintf(text, sizeof(text), "198.18.%u.%u", number >> 8 & 255,
                    number & 255);
    } else {
      std::snprintf(text, sizeof(text), "fd77:66::%x", number & 0xFFFF);
    }
    const IpAddress to = *IpAddress::Parse(text);
    return Datagram(999, to, static_cast<uint16_t>(9 + (number >> 16)));
  });
}

TEST_P(UdpTest, FlowsCanBeClosed) {
  Service service;
  Echo echo(World().srv(), family().family, family().tunnel);
  Socket app = App();
  ASSERT_EQ(app.Send("x", Tunnel(echo.port())), 0);
  ASSERT_EQ(app.Receive().error, 0);
  EXPECT_EQ(service.control().CloseAllFlows(), 1u);
  EXPECT_EQ(service.control().Flows().size(), 0u);
  const v1::Stats stats = service.control().Stats();
  EXPECT_EQ(stats.udp().mappings(), 0u);
  EXPECT_EQ(stats.descriptors_used(), 0u);
  ASSERT_EQ(app.Send("again", Tunnel(echo.port())), 0);
  EXPECT_EQ(app.Receive().bytes, "again");
}

// C3, judged by coturn (RFC 5780): it needs a server with two addresses.
TEST(UdpNat, DiscoveryFindsEndpointIndependence) {
  Service service;
  Process server({"turnserver", "-n", "--no-auth", "--no-tls", "--no-dtls",
                  "--no-cli", "--log-file", "/dev/null", "--pidfile",
                  "/dev/null", "--userdb", "/dev/null", "-L", kV4.tunnel, "-L",
                  kV4.tunnel2, "--listening-port", "3478",
                  "--alt-listening-port", "3479"},
                 {.ns = World().srv(), .output = "/dev/null"});
  std::string out;
  for (int i = 0; i < 20; ++i) {
    const Output o = Execute({"turnutils_natdiscovery", "-m", "-f", "-H",
                              kV4.tunnel},
                             World().app(), seconds(60));
    out = o.out + o.err;
    if (out.find("NAT with") != std::string::npos) break;
    std::this_thread::sleep_for(milliseconds(300));
  }
  EXPECT_NE(out.find("NAT with Endpoint Independent Mapping!"),
            std::string::npos)
      << out;
  EXPECT_NE(out.find("NAT with Endpoint Independent Filtering!"),
            std::string::npos)
      << out;
}

}  // namespace
}  // namespace netstack::e2e

// R2: a million malformed packets. None crashes, each is counted under its own
// reason, none leaves, memory stays, and a legitimate ping-pong lives through
// it. (50,000 but at full scale.)
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>

#include <arpa/inet.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/wire/fragment_packets.h"
#include "tests/e2e/support/pattern.h"
#include "tests/e2e/support/raw.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

using test::ByteVector;
using test::Concat;
using test::Hex;
using test::MakeIp;
using test::MakeTcp;

// Counts packets on gw's uplink to or from an address.
class Uplink {
 public:
  explicit Uplink(const IpAddress& ip) : ip_(ip) {
    const Enter enter(World().gw());
    fd_ = Fd(socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    htons(ETH_P_ALL)));
    sockaddr_ll where{};
    where.sll_family = AF_PACKET;
    where.sll_protocol = htons(ETH_P_ALL);
    where.sll_ifindex = static_cast<int>(if_nametoindex("gs"));
    EXPECT_EQ(
        bind(fd_.get(), reinterpret_cast<sockaddr*>(&where), sizeof(where)), 0);
  }
  // Of all that it has seen; it has to be called while much is going on.
  size_t Count() {
    std::byte bytes[128];
    ssize_t n;
    while ((n = recv(fd_.get(), bytes, sizeof(bytes), MSG_TRUNC)) > 0) {
      ++all_;
      const bool v4 = Load8(bytes) >> 4 == 4;
      const IpAddress from = v4 ? IpAddress::V4(bytes + 12)
                                : IpAddress::V6(bytes + 8);
      const IpAddress to = v4 ? IpAddress::V4(bytes + 16)
                              : IpAddress::V6(bytes + 24);
      seen_ += from == ip_ || to == ip_;
    }
    return seen_;
  }
  size_t all() const { return all_; }

 private:
  const IpAddress ip_;
  Fd fd_;
  size_t seen_ = 0;
  size_t all_ = 0;
};

class MalformedTest : public testing::TestWithParam<const Family*> {
 protected:
  struct Kind {
    v1::DropReason reason;
    std::vector<ByteVector> packets;  // each of which is dropped for it
  };

  const Family& family() const { return *GetParam(); }
  bool v4() const { return family().family == AF_INET; }

  // The next malformed packets, of one kind.
  Kind Next(std::mt19937& random) {
    test::Family f{family().name, *IpAddress::Parse(family().app),
                   *IpAddress::Parse(family().tunnel2)};
    const auto word = [&] { return static_cast<uint32_t>(random()); };
    const auto syn = [&] {
      return MakeTcp(f.app, f.remote,
                     {.source_port = static_cast<uint16_t>(word() | 1024),
                      .destination_port = 80,
                      .seq = word(),
                      .flags = 2});
    };
    const auto spoil = [&](ByteVector bytes, size_t at) {
      bytes[at] ^= static_cast<std::byte>(1 + word() % 255);
      return bytes;
    };
    const uint8_t icmp = v4() ? 1 : 58;
    switch (word() % 17) {
      case 0: {  // versions that there are not
        ByteVector packet = MakeIp(f.app, f.remote, 6, syn());
        const uint8_t versions[] = {0, 1, 2, 3, 5, 7, 8, 9, 15};
        Store8(packet.data(),
               static_cast<uint8_t>(versions[word() % 9] << 4 | 5));
        return {v1::DROP_REASON_BAD_IP_VERSION, {packet}};
      }
      case 1: {  // cut
        ByteVector packet = MakeIp(f.app, f.remote, 6, syn());
        packet.resize(1 + word() % (packet.size() - 1));
        return {v1::DROP_REASON_TOO_SHORT, {packet}};
      }
      case 2: {
        ByteVector packet = MakeIp(f.app, f.remote, 6, syn());
        if (v4()) {
          Store8(packet.data(), static_cast<uint8_t>(0x40 | word() % 5));
          return {v1::DROP_REASON_BAD_IP_HEADER, {packet}};
        }
        packet = MakeIp(f.app, f.remote, 0, Hex("06FF0000 00000000"));
        return {v1::DROP_REASON_BAD_EXTENSION_HEADER, {packet}};
      }
      case 3:
        if (v4()) {
          return {v1::DROP_REASON_BAD_IP_CHECKSUM,
                  {spoil(MakeIp(f.app, f.remote, 6, syn()), 10 + word() % 2)}};
        }
        return {v1::DROP_REASON_BAD_EXTENSION_HEADER,
                {MakeIp(f.app, f.remote, 43,
                        Concat(Hex("0602000100000000 0000000000000000"
                                   "0000000000000000"),
                               syn()))}};
      case 4:
        return {v1::DROP_REASON_BAD_TRANSPORT_CHECKSUM,
                {MakeIp(f.app, f.remote, 6, spoil(syn(), 16))}};
      case 5:
        return {v1::DROP_REASON_BAD_TRANSPORT_CHECKSUM,
                {MakeIp(f.app, f.remote, icmp,
                        spoil(MakeEcho(f, 1, 2, Hex("00112233")), 2))}};
      case 6: {
        ByteVector tcp = syn();
        Store8(&tcp[12], static_cast<uint8_t>(word() % 5 << 4));
        return {v1::DROP_REASON_BAD_TCP_HEADER,
                {MakeIp(f.app, f.remote, 6, tcp)}};
      }
      case 7: {
        test::Family other = f;
        other.app = *IpAddress::Parse(v4() ? "10.11.0.2" : "fd11::2");
        return {v1::DROP_REASON_SOURCE_NOT_OURS,
                {MakeIp(other.app, f.remote, 6, syn())}};
      }
      case 8:
        return {v1::DROP_REASON_BAD_ADDRESS,
                {MakeIp(f.app, *IpAddress::Parse(v4() ? "127.0.0.1" : "::1"), 6,
                        syn())}};
      case 9:
        return {v1::DROP_REASON_BAD_FRAGMENT,
                {MakeFragment(f, {.id = word()},
                              ByteVector(8 * (1 + word() % 50) + 1 +
                                         word() % 7))}};
      case 10:
        return {v1::DROP_REASON_FRAGMENT_TINY,
                {MakeFragment(f, {.id = word(), .protocol = 6},
                              ByteVector(8 + 8 * (word() % 2)))}};
      case 11: {  // the teardrop, whole datagrams of it
        const test::FragmentSpec first{.id = word()};
        test::FragmentSpec second = first;
        second.offset = static_cast<uint16_t>(8 * (1 + word() % 3));
        second.more = false;
        return {v1::DROP_REASON_FRAGMENT_OVERLAP,
                {MakeFragment(f, first, ByteVector(32)),
                 MakeFragment(f, second, ByteVector(16, std::byte{7}))}};
      }
      case 12: {  // messages that no app has to send anybody
        ByteVector message = MakeEcho(f, 1, 2, ByteVector(word() % 64));
        Store8(&message[0], v4() ? 13 : 133);
        Store16(&message[2], 0);
        Store16(&message[2],
                v4() ? test::NaiveChecksum(message)
                     : test::NaiveTransportChecksum(f.app, f.remote, 58,
                                                    message));
        return {v1::DROP_REASON_ICMP_NOT_CARRIED,
                {MakeIp(f.app, f.remote, icmp, message)}};
      }
      case 13: {  // lengths and ports of UDP
        ByteVector udp = MakeUdp(f, 4000, 4000, ByteVector(word() % 64));
        switch (word() % 3) {
          case 0:
            Store16(&udp[4], static_cast<uint16_t>(word() % 8));
            break;
          case 1:
            Store16(&udp[4],
                    static_cast<uint16_t>(udp.size() + 1 + word() % 99));
            break;
          default:
            Store16(&udp[2 * (word() % 2)], 0);
        }
        return {v1::DROP_REASON_BAD_UDP_HEADER,
                {MakeIp(f.app, f.remote, 17, udp)}};
      }
      case 14: {
        const ByteVector udp =
            MakeUdp(f, 4000, 4000, ByteVector(1 + word() % 64));
        return {v1::DROP_REASON_BAD_TRANSPORT_CHECKSUM,
                {MakeIp(f.app, f.remote, 17, spoil(udp, udp.size() - 1))}};
      }
      case 15: {
        // Forged errors about the ping-pong's own packets, of whatever kind and
        // MTU: nothing that an app says changes a path or ends a flow.
        test::Family flow = f;
        flow.remote = *IpAddress::Parse(family().tunnel);
        ByteVector message(8);
        Store8(&message[0], v4() ? (word() % 2 != 0 ? 3 : 11)
                                 : static_cast<uint8_t>(1 + word() % 4));
        Store8(&message[1], static_cast<uint8_t>(word() % 5));
        Store32(&message[4], word() % 1500);
        message = Concat(message,
                         MakeIp(flow.remote, flow.app, 6,
                                MakeTcp(flow.remote, flow.app,
                                        {.source_port = server_.port(),
                                         .destination_port = player_port_})));
        Store16(&message[2],
                v4() ? test::NaiveChecksum(message)
                     : test::NaiveTransportChecksum(f.app, f.remote, 58,
                                                    message));
        return {v1::DROP_REASON_ICMP_ERROR_FROM_APP,
                {MakeIp(f.app, f.remote, icmp, message)}};
      }
      default: {  // a SYN whose last option is cut
        const ByteVector tcp =
            MakeTcp(f.app, f.remote,
                    {.source_port = static_cast<uint16_t>(word() | 1024),
                     .destination_port = 80,
                     .flags = 2,
                     .options = Hex("01010204")});
        return {v1::DROP_REASON_BAD_TCP_OPTIONS,
                {MakeIp(f.app, f.remote, 6, tcp)}};
      }
    }
  }

  double ResidentMib() {
    return static_cast<double>(service_.process().ResidentBytes()) / (1 << 20);
  }

  PatternServer server_{World().srv()};
  uint16_t player_port_ = 0;
  // So that the test need not wait for a minute.
  Service service_{{.config = "fragments { timeout_v4 { seconds: 2 } "
                              "timeout_v6 { seconds: 2 } }"}};
};

TEST_P(MalformedTest, CountedAndNothingElse) {
  const uint64_t wanted = FullScale() ? 1'000'000 : 50'000;
  constexpr uint64_t kBatch = 4'000;
  // The device holds a batch, so that none is lost before it is read.
  Ip("-n " + World().app() + " link set " + Service::kTun +
     " txqueuelen 20000");
  // What the app's own kernel has to say on a new link (RFC 3810, RFC 4861) is
  // over, and is not ours to count.
  Ip("-n " + World().app() + " -6 addr flush dev " + Service::kTun +
     " scope link");
  Pause(seconds(2));
  const v1::Stats at_first = service_.control().Stats();
  Injector injector(World().app(), Service::kTun);
  Uplink uplink(*IpAddress::Parse(family().tunnel2));

  // The ping-pong: content that is compared, over a path of its own.
  Tcp socket(World().app(), family().family);
  ASSERT_EQ(socket.Connect(Address(family().tunnel, server_.port())), 0);
  Address player;
  ASSERT_EQ(getsockname(socket.fd(),
                        reinterpret_cast<sockaddr*>(&player.storage),
                        &player.size),
            0);
  player_port_ = player.port();
  AskFor(socket, Wish::kEcho, 0, 0);
  std::atomic<bool> stopping{false};
  std::atomic<uint64_t> rounds{0};
  std::string wrong;
  std::thread playing([&] {
    while (!stopping && wrong.empty()) {
      socket.SendPattern(rounds, 1'000);
      wrong = Describe(socket.ReceivePattern(rounds, 1'000), 1'000);
      ++rounds;
    }
  });

  std::mt19937 random(2);
  std::map<v1::DropReason, uint64_t> expected;
  uint64_t sent = 0;
  const auto run = [&](uint64_t until) {
    while (sent < until) {
      std::vector<ByteVector> batch;
      while (batch.size() < kBatch) {
        Kind kind = Next(random);
        expected[kind.reason] += kind.packets.size();
        for (ByteVector& packet : kind.packets) {
          batch.push_back(std::move(packet));
        }
      }
      sent += batch.size();
      injector.Send(batch);
      const auto dropped = [&] {
        const v1::Stats stats = service_.control().Stats();
        uint64_t total = 0;
        for (const auto& [reason, count] : expected) {
          total += DropsIn(stats, reason) - DropsIn(at_first, reason);
        }
        return total;
      };
      if (!Eventually([&] { return dropped() >= sent; }, seconds(20))) {
        ADD_FAILURE() << dropped() << " of " << sent << " dropped";
        return;
      }
      EXPECT_EQ(uplink.Count(), 0u);
    }
  };
  // What stays when their time has ended and memory has gone back.
  const auto settled = [&] {
    EXPECT_TRUE(Eventually([&] {
      return service_.control().Stats().fragments().datagrams() == 0;
    }));
    Pause(seconds(5));
    return ResidentMib();
  };
  // Warm: what the first use of each thing takes is no growth.
  run(wanted / 5);
  const double before = settled();
  run(wanted / 5 + wanted);
  const double after = settled();
  // As many again, at full scale: so it is not a slow leak either.
  if (FullScale()) run(wanted / 5 + 2 * wanted);
  const double at_last = FullScale() ? settled() : after;
  stopping = true;
  playing.join();
  EXPECT_EQ(wrong, "");
  EXPECT_GT(rounds, 100u);

  ASSERT_TRUE(service_.process().running());
  const v1::Stats stats = service_.control().Stats();
  for (const v1::DropCount& count : stats.drops()) {
    const auto found = expected.find(count.reason());
    const uint64_t dropped =
        count.packets() - DropsIn(at_first, count.reason());
    if (found != expected.end()) {
      EXPECT_EQ(dropped, found->second) << v1::DropReason_Name(count.reason());
    } else if (count.reason() != v1::DROP_REASON_ICMP_RATE_LIMITED) {
      EXPECT_EQ(dropped, 0u) << v1::DropReason_Name(count.reason());
    }
  }
  EXPECT_EQ(expected.size(), v4() ? 15u : 14u);  // every kind came
  EXPECT_EQ(stats.fragments().held(), 0u);
  EXPECT_EQ(stats.tcp().opened(), 1u);
  EXPECT_EQ(stats.udp().opened(), 0u);
  EXPECT_EQ(uplink.Count(), 0u);
  EXPECT_GT(uplink.all(), 100u);  // it sees the ping-pong
  EXPECT_LE(std::abs(after - before), 1);
  EXPECT_LE(std::abs(at_last - before), 1);
  std::printf("%llu malformed packets, %llu rounds beside them; memory %.2f "
              "MiB, %+.2f after %llu, %+.2f at last\n",
              static_cast<unsigned long long>(sent),
              static_cast<unsigned long long>(rounds.load()), before,
              after - before, static_cast<unsigned long long>(wanted),
              at_last - before);
}

INSTANTIATE_TEST_SUITE_P(Every, MalformedTest, testing::Values(&kV4, &kV6),
                         FamilyName);

}  // namespace
}  // namespace netstack::e2e

// R3, R5 and R17: packets that no kernel sends, floods of SYNs, and forgeries
// against live flows.
#include <algorithm>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/wire/test_packets.h"
#include "tests/e2e/support/pattern.h"
#include "tests/e2e/support/raw.h"
#include "tests/e2e/support/relay.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

using test::Hex;
using test::MakeIp;
using test::MakeTcp;
using test::TcpSpec;

constexpr uint8_t kFin = 1;
constexpr uint8_t kSyn = 2;
constexpr uint8_t kRst = 4;
constexpr uint8_t kAck = 16;

IpAddress Parse(const std::string& text) { return *IpAddress::Parse(text); }

class HostileTest : public testing::TestWithParam<const Family*> {
 protected:
  const Family& family() const { return *GetParam(); }

  std::vector<std::byte> Packet(const std::string& to, const TcpSpec& spec) {
    const IpAddress app = Parse(family().app);
    return MakeIp(app, Parse(to), 6, MakeTcp(app, Parse(to), spec));
  }
  bool DropsBecome(v1::DropReason reason, uint64_t packets) {
    return Eventually(
        [&] { return service_.control().Drops(reason) == packets; });
  }
  // The service lives, and carries.
  void ExpectService() {
    ASSERT_TRUE(service_.process().running());
    EXPECT_EQ(service_.control().Stats().tcp().lwip_asserts(), 0u);
    Tcp socket(World().app(), family().family);
    ASSERT_EQ(socket.Connect(Address(family().tunnel, server_.port())), 0);
    EXPECT_EQ(AskDownload(socket, 1, 100'000), "");
  }

  PatternServer server_{World().srv()};
  Service service_;
  Injector injector_{World().app(), Service::kTun};
};

// Stock lwIP takes an MSS option on any segment, and then trips an assertion
// over the data that it has queued with the old one.
TEST_P(HostileTest, MssOptionOnEstablishedSegmentWithDataQueued) {
  Sniffer sniffer(World().app(), Service::kTun);
  Tcp socket(World().app(), family().family);
  ASSERT_EQ(socket.Connect(Address(family().tunnel, server_.port())), 0);
  constexpr uint64_t kSize = 20'000'000;
  AskFor(socket, Wish::kDownload, 3, kSize);
  // Nobody reads: data queues up. What the app acknowledged last:
  ASSERT_TRUE(Eventually([&] {
    const auto flows = service_.control().Flows();
    return flows.size() == 1 && flows[0].inbound_buffered() > 100'000;
  }));
  Seen last;
  while (const auto seen = sniffer.Next(milliseconds(300))) {
    if (!seen->to_app) last = *seen;
  }
  ASSERT_EQ(last.source_port, socket.Local().port());
  for (const char* mss : {"0204 0001", "0204 0218", "0204 FFFF", "0204 0000"}) {
    for (uint16_t window : {uint16_t{1}, last.window}) {
      injector_.Send(
          Packet(family().tunnel,
                 {.source_port = last.source_port,
                  .destination_port = server_.port(),
                  .seq = last.seq + static_cast<uint32_t>(last.payload),
                  .ack = last.ack,
                  .flags = kAck,
                  .window = window,
                  .options = Hex(mss)}));
    }
  }
  EXPECT_EQ(Describe(socket.ReceivePattern(3, kSize), kSize), "");
  EXPECT_TRUE(socket.AtEnd());
  ExpectService();
}

// Stock lwIP reads one byte behind a cut last option.
TEST_P(HostileTest, SynWithCutLastOption) {
  const char* const kOptions[] = {
      "01010102",           // kind without length
      "02040218 01010103",  // the same behind a good MSS
      "01010204",           // MSS without value
      "02040218 01080a00",  // timestamps cut
      "02000000",           // length 0
      "02010000",           // length 1
  };
  for (const char* options : kOptions) {
    injector_.Send(Packet(family().tunnel, {.destination_port = server_.port(),
                                            .flags = kSyn,
                                            .options = Hex(options)}));
  }
  EXPECT_TRUE(
      DropsBecome(v1::DROP_REASON_BAD_TCP_OPTIONS, std::size(kOptions)));
  EXPECT_EQ(service_.control().Stats().tcp().opened(), 0u);
  ExpectService();
}

TEST_P(HostileTest, CutHeaders) {
  const IpAddress app = Parse(family().app);
  const IpAddress remote = Parse(family().tunnel);
  uint64_t packets = 0;
  v1::DropReason reason;
  if (family().family == AF_INET6) {
    reason = v1::DROP_REASON_BAD_EXTENSION_HEADER;
    // Hop-by-hop, routing and destination options: one octet, two, a header
    // whose length points behind the packet, and 3 of 4 such in a row.
    for (const uint8_t next : std::initializer_list<uint8_t>{0, 43, 60}) {
      for (const char* cut :
           {"06", "0600", "06FF 000000000000", "3C00 000000000000 06"}) {
        injector_.Send(MakeIp(app, remote, next, Hex(cut)));
        ++packets;
      }
    }
  } else {
    reason = v1::DROP_REASON_BAD_TCP_HEADER;
    // A data offset behind the segment, and one inside the header.
    for (const uint8_t offset :
         std::initializer_list<uint8_t>{0x60, 0xF0, 0x40, 0x00}) {
      std::vector<std::byte> tcp = MakeTcp(app, remote, {.flags = kSyn});
      Store8(&tcp[12], offset);
      Store16(&tcp[16], 0);
      Store16(&tcp[16], test::NaiveTransportChecksum(app, remote, 6, tcp));
      injector_.Send(MakeIp(app, remote, 6, tcp));
      ++packets;
    }
  }
  EXPECT_TRUE(DropsBecome(reason, packets))
      << service_.control().Stats().ShortDebugString();
  ExpectService();
}

// R17. The attacker knows the flows' addresses and ports, and nothing else.
TEST_P(HostileTest, BlindForgeriesDoNotTouchLiveFlows) {
  const uint64_t packets = FullScale() ? 1'000'000 : 20'000;
  constexpr size_t kFlows = 4;
  std::vector<Tcp> flows;
  for (size_t i = 0; i < kFlows; ++i) {
    flows.emplace_back(World().app(), family().family);
    ASSERT_EQ(flows[i].Connect(Address(family().tunnel, server_.port())), 0);
    AskFor(flows[i], Wish::kEcho, 0, 0);
  }
  // Live: two idle, two in a ping-pong of content that is compared.
  std::atomic<bool> stopping{false};
  std::vector<std::string> wrong(kFlows);
  std::vector<uint64_t> rounds(kFlows);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      while (!stopping && wrong[i].empty()) {
        flows[i].SendPattern(rounds[i], 3'000);
        wrong[i] = Describe(flows[i].ReceivePattern(rounds[i], 3'000), 3'000);
        ++rounds[i];
      }
    });
  }
  std::mt19937 random(17);
  const auto forge = [&] {
    constexpr uint8_t kKinds[] = {kRst,        kRst | kAck, kSyn,
                                  kSyn | kAck, kAck,        kAck /* data */,
                                  kFin | kAck};
    const size_t kind = random() % std::size(kKinds);
    TcpSpec spec{.source_port = flows[random() % kFlows].Local().port(),
                 .destination_port = server_.port(),
                 .seq = static_cast<uint32_t>(random()),
                 .ack = static_cast<uint32_t>(random()),
                 .flags = kKinds[kind]};
    if (kind == 5) spec.payload = Hex("deadbeef deadbeef");
    return Packet(family().tunnel, spec);
  };
  {
    // Not faster than the service reads: the TUN would drop them unseen.
    Flood flood(injector_, 40'000, forge);
    EXPECT_TRUE(
        Eventually([&] { return flood.sent() >= packets; }, seconds(100)));
  }
  stopping = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<std::string>(kFlows));
  EXPECT_GT(rounds[0], 10u);
  // Every flow is whole: its echo is, and the end is clean.
  for (size_t i = 0; i < kFlows; ++i) {
    SCOPED_TRACE(i);
    std::thread sender([&] {
      flows[i].SendPattern(99, 1'000'000);
      flows[i].ShutdownWrite();
    });
    EXPECT_EQ(Describe(flows[i].ReceivePattern(99, 1'000'000), 1'000'000), "");
    sender.join();
    EXPECT_TRUE(flows[i].AtEnd());
  }
  const v1::Stats stats = service_.control().Stats();
  EXPECT_EQ(ClosedIn(stats, v1::CLOSE_REASON_APP_RESET), 0u);
  EXPECT_EQ(stats.tcp().opened(), kFlows);
  // They did arrive.
  EXPECT_GE(stats.tun().tcp_packets(), packets * 98 / 100);
  std::printf("%llu forgeries, %llu dropped for their ACK\n",
              static_cast<unsigned long long>(packets),
              static_cast<unsigned long long>(
                  DropsIn(stats, v1::DROP_REASON_TCP_BLIND_ACK)));
}

// R5. A long path to a server, 100 ms there and back, beside the veth.
class LongPath {
 public:
  LongPath() {
    Fd gw = MakeTun(World().gw(), "far0");
    Fd srv = MakeTun(World().srv(), "far1");
    const auto set_up = [](const std::string& ns, const std::string& device,
                           const std::string& last) {
      const std::string ip = "-n " + ns + " ";
      Ip(ip + "link set " + device + " addrgenmode none");
      Ip(ip + "link set " + device + " up txqueuelen 5000");
      Ip(ip + "addr add 10.77.9." + last + "/24 dev " + device);
      Ip(ip + "-6 addr add fd77:9::" + last + "/64 dev " + device + " nodad");
    };
    set_up(World().gw(), "far0", "1");
    set_up(World().srv(), "far1", "2");
    relay_ = std::make_unique<Relay>(std::move(gw), std::move(srv),
                                     Impairment{.delay = milliseconds(50)});
  }
  static std::string AddressOf(const Family& family) {
    return family.family == AF_INET ? "10.77.9.2" : "fd77:9::2";
  }

 private:
  std::unique_ptr<Relay> relay_;
};

constexpr const char* kTargets[] = {"Refusing", "OneBlackHole",
                                    "RandomBlackHoles"};
enum class Target { kRefusing, kOneBlackHole, kRandomBlackHoles };

class FloodTest
    : public testing::TestWithParam<std::tuple<const Family*, Target>> {
 protected:
  const Family& family() const { return *std::get<0>(GetParam()); }
  Target target() const { return std::get<1>(GetParam()); }

  IpAddress NextTarget(std::mt19937& random) const {
    const bool v4 = family().family == AF_INET;
    switch (target()) {
      case Target::kRefusing:
        return Parse(family().tunnel2);  // nobody listens at port 9 there
      case Target::kOneBlackHole:
        return Parse(family().black_hole);
      case Target::kRandomBlackHoles:
        break;
    }
    const auto host = static_cast<uint32_t>(random());
    if (v4) {
      return IpAddress::V4(198, static_cast<uint8_t>(18 + (host & 1)),
                           static_cast<uint8_t>(host >> 8),
                           static_cast<uint8_t>(host >> 16));
    }
    char text[64];
    std::snprintf(text, sizeof(text), "fd77:66::%x:%x", host >> 16,
                  host & 0xFFFF);
    return Parse(text);
  }
};

TEST_P(FloodTest, LegitimateConnectsGetThrough) {
  const int rate = FullScale() ? 50'000 : 5'000;
  const int duration = FullScale() ? 30 : 4;
  constexpr int kConnects = 100;
  LongPath path;
  PatternServer server(World().srv());
  Service service;
  Injector injector(World().app(), Service::kTun);
  // Warm: libraries, threads and buffers of the first use are no growth.
  {
    Tcp warm(World().app(), family().family);
    ASSERT_EQ(
        warm.Connect(Address(LongPath::AddressOf(family()), server.port())), 0);
    ASSERT_EQ(AskUpload(warm, 1, 100'000), "");
  }
  const uint64_t cap = 4096;  // tcp.max_half_open's default
  const size_t memory_before = service.process().ResidentBytes();
  const double cpu_before = service.process().CpuSeconds();

  std::mt19937 random(5);
  const IpAddress app = Parse(family().app);
  auto flood = std::make_unique<Flood>(injector, rate, [&] {
    const IpAddress to = NextTarget(random);
    TcpSpec syn{.source_port = static_cast<uint16_t>(1024 + random() % 64000),
                .destination_port = 9,
                .seq = static_cast<uint32_t>(random()),
                .flags = kSyn,
                .options = Hex("020405b4")};
    return MakeIp(app, to, 6, MakeTcp(app, to, syn));
  });
  const auto start = Clock::now();
  Pause(milliseconds(500));  // the flood is under way

  std::atomic<int> in_time{0};
  std::vector<std::thread> threads;
  uint64_t half_open = 0;
  size_t memory = memory_before;
  const auto look = [&] {
    half_open =
        std::max(half_open, service.control().Stats().tcp().half_open());
    memory = std::max(memory, service.process().ResidentBytes());
  };
  for (int i = 0; i < kConnects; ++i) {
    threads.emplace_back([&, i] {
      Tcp socket(World().app(), family().family);
      const auto begin = Clock::now();
      const int error = socket.Connect(
          Address(LongPath::AddressOf(family()), server.port()), seconds(3));
      const double took = SecondsSince(begin);
      if (error == 0 && took <= 3 && AskUpload(socket, i, 100) == "") {
        ++in_time;
      } else {
        std::printf("connect %d: %s after %.2f s\n", i, std::strerror(error),
                    took);
      }
    });
    // Spread over the flood's time, but for its last three seconds.
    const auto next = start + milliseconds(500) +
                      (i + 1) * milliseconds((duration - 3) * 1000) / kConnects;
    std::this_thread::sleep_until(next);
    if (i % 10 == 0) look();
  }
  while (SecondsSince(start) < duration) {
    look();
    Pause(milliseconds(100));
  }
  const uint64_t sent = flood->sent();
  flood.reset();
  for (std::thread& thread : threads) thread.join();

  EXPECT_GE(in_time, 99);
  EXPECT_LE(half_open, cap);
  const double grown =
      (static_cast<double>(memory) - static_cast<double>(memory_before)) /
      (1 << 20);
  EXPECT_LE(grown, 8);
  EXPECT_GT(sent, static_cast<uint64_t>(rate) * duration * 9 / 10);
  const v1::Stats stats = service.control().Stats();
  std::printf(
      "%llu SYNs; %d of %d connects in time; half-open at most %llu; memory "
      "+%.1f MiB; CPU %.1f s; %llu read from the TUN\n",
      static_cast<unsigned long long>(sent), in_time.load(), kConnects,
      static_cast<unsigned long long>(half_open), grown,
      service.process().CpuSeconds() - cpu_before,
      static_cast<unsigned long long>(stats.tun().tcp_packets()));
}

INSTANTIATE_TEST_SUITE_P(Every, HostileTest, testing::Values(&kV4, &kV6),
                         FamilyName);
INSTANTIATE_TEST_SUITE_P(
    Every, FloodTest,
    testing::Combine(testing::Values(&kV4, &kV6),
                     testing::Values(Target::kRefusing, Target::kOneBlackHole,
                                     Target::kRandomBlackHoles)),
    [](const auto& p) {
      return std::string(std::get<0>(p.param)->name) +
             kTargets[static_cast<int>(std::get<1>(p.param))];
    });

}  // namespace
}  // namespace netstack::e2e

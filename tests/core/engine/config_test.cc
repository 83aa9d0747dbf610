#include "core/engine/config.h"

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace netstack {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> Fields(const Config& config) {
  std::vector<std::string> fields;
  for (const ConfigProblem& p : Validate(config)) fields.push_back(p.field);
  return fields;
}

// A change to the default configuration that is judged by one field.
struct FieldCase {
  const char* field;
  std::vector<std::function<void(Config&)>> good;
  std::vector<std::function<void(Config&)>> bad;
};

template <typename T, typename Sub>
std::function<void(Config&)> Set(Sub Config::*sub, T Sub::*field, T value) {
  return [=](Config& c) { (c.*sub).*field = value; };
}

std::function<void(Config&)> Name(std::string name) {
  return Set(&Config::tun, &TunConfig::name, std::move(name));
}
std::function<void(Config&)> Device(std::string name) {
  return Set(&Config::protect, &ProtectConfig::bind_to_device,
             std::move(name));
}
std::function<void(Config&)> Tun(uint32_t TunConfig::*f, uint32_t value) {
  return Set(&Config::tun, f, value);
}
std::function<void(Config&)> Tcp(Duration TcpConfig::*f, Duration value) {
  return Set(&Config::tcp, f, value);
}
std::function<void(Config&)> Tcp(uint32_t TcpConfig::*f, uint32_t value) {
  return Set(&Config::tcp, f, value);
}
std::function<void(Config&)> Limit(uint32_t LimitsConfig::*f,
                                   uint32_t value) {
  return Set(&Config::limits, f, value);
}
std::function<void(Config&)> Budget(uint64_t value) {
  return Set(&Config::limits, &LimitsConfig::memory_budget, value);
}
std::function<void(Config&)> Prefix(const char* ip, uint8_t length) {
  return [=](Config& c) {
    c.tun.prefixes = {IpPrefix{*IpAddress::Parse(ip), length}};
  };
}

std::function<void(Config&)> Gateway(IpAddress IcmpConfig::*field,
                                     const char* ip) {
  return [=](Config& c) { c.icmp.*field = *IpAddress::Parse(ip); };
}
template <typename T>
std::function<void(Config&)> Udp(T UdpConfig::*field, T value) {
  return [=](Config& c) { c.udp.*field = value; };
}
std::function<void(Config&)> PortIdle(uint16_t port, Duration idle) {
  return [=](Config& c) { c.udp.port_idle = {{port, idle}}; };
}
std::function<void(Config&)> Rule(const char* ip, uint8_t length,
                                  const char* interface) {
  return [=](Config& c) {
    c.udp.interfaces = {{{*IpAddress::Parse(ip), length}, interface}};
  };
}
template <typename T>
std::function<void(Config&)> Fragments(T FragmentConfig::*field, T value) {
  return [=](Config& c) { c.fragments.*field = value; };
}

std::vector<FieldCase> Cases() {
  using F = FragmentConfig;
  using T = TcpConfig;
  using L = LimitsConfig;
  return {
      {"tun.name",
       {Name("t"), Name("fifteen-letters"), Name("wg0.100")},
       {Name(""), Name("sixteen--letters"), Name("a/b"), Name("a b"),
        Name("a:1"), Name("."), Name(".."), Name("tun%d"), Name("a\n"),
        Name("\xC3\xBC")}},
      {"tun.fd",
       {[](Config& c) { c.tun.fd = 0; }, [](Config& c) { c.tun.fd = 100; },
        // A descriptor needs no name.
        [](Config& c) { c.tun.fd = 3, c.tun.name = ""; }},
       {[](Config& c) { c.tun.fd = -2; }}},
      {"tun.mtu",
       {Tun(&TunConfig::mtu, 1280), Tun(&TunConfig::mtu, 65535)},
       {Tun(&TunConfig::mtu, 0), Tun(&TunConfig::mtu, 1279),
        Tun(&TunConfig::mtu, 65536)}},
      {"tun.prefixes[0]",
       {Prefix("10.0.0.0", 8), Prefix("10.0.0.1", 32), Prefix("0.0.0.0", 0),
        Prefix("2001:db8::", 32), Prefix("::", 0)},
       {Prefix("10.0.0.1", 8), Prefix("10.0.0.0", 33),
        Prefix("10.0.0.0", 104), Prefix("2001:db8::1", 64),
        Prefix("2001:db8::", 129), Prefix("224.0.0.0", 4),
        Prefix("ff00::", 8)}},
      {"tun.prefixes",
       {[](Config& c) {
         c.tun.prefixes.assign(256, *IpPrefix::Parse("10.0.0.0/8"));
       }},
       {[](Config& c) {
         c.tun.prefixes.assign(257, *IpPrefix::Parse("10.0.0.0/8"));
       }}},
      {"tcp.dial_timeout",
       {Tcp(&T::dial_timeout, milliseconds(100)),
        Tcp(&T::dial_timeout, seconds(600))},
       {Tcp(&T::dial_timeout, seconds(0)),
        Tcp(&T::dial_timeout, milliseconds(99)),
        Tcp(&T::dial_timeout, seconds(-1)),
        Tcp(&T::dial_timeout, milliseconds(600'001))}},
      {"tcp.established_idle",
       {Tcp(&T::established_idle, seconds(1)),
        Tcp(&T::established_idle, hours(720))},
       {Tcp(&T::established_idle, seconds(0)),
        Tcp(&T::established_idle, hours(721)),
        Tcp(&T::established_idle, Duration::max())}},
      {"tcp.transitory_idle",
       {Tcp(&T::transitory_idle, seconds(1)),
        Tcp(&T::transitory_idle, hours(24))},
       {Tcp(&T::transitory_idle, seconds(0)),
        Tcp(&T::transitory_idle, hours(25))}},
      {"tcp.time_wait",
       {Tcp(&T::time_wait, seconds(0)), Tcp(&T::time_wait, seconds(240))},
       {Tcp(&T::time_wait, seconds(-1)), Tcp(&T::time_wait, seconds(241)),
        Tcp(&T::time_wait, Duration::min())}},
      {"tcp.host_user_timeout",
       {Tcp(&T::host_user_timeout, seconds(0)),
        Tcp(&T::host_user_timeout, seconds(1)),
        Tcp(&T::host_user_timeout, hours(24))},
       {Tcp(&T::host_user_timeout, milliseconds(1)),
        Tcp(&T::host_user_timeout, seconds(-1)),
        Tcp(&T::host_user_timeout, hours(25))}},
      {"tcp.max_half_open",
       {Tcp(&T::max_half_open, 512), Tcp(&T::max_half_open, 1'000'000)},
       {Tcp(&T::max_half_open, 0), Tcp(&T::max_half_open, 1'000'001)}},
      {"tcp.max_half_open_per_destination",
       {Tcp(&T::max_half_open_per_destination, 1),
        Tcp(&T::max_half_open_per_destination, 4096)},
       {Tcp(&T::max_half_open_per_destination, 0),
        Tcp(&T::max_half_open_per_destination, 4097),
        Tcp(&T::max_half_open_per_destination, 1'000'001)}},
      {"tcp.buffer_floor",
       {Tcp(&T::buffer_floor, 16 * 1024), Tcp(&T::buffer_floor, 1024 * 1024)},
       {Tcp(&T::buffer_floor, 16 * 1024 - 1),
        Tcp(&T::buffer_floor, 1024 * 1024 + 1),
        Tcp(&T::buffer_floor, 4 * 1024 * 1024 + 1)}},
      {"tcp.buffer_max",
       {Tcp(&T::buffer_max, 64 * 1024), Tcp(&T::buffer_max, 4 * 1024 * 1024)},
       {Tcp(&T::buffer_max, 16 * 1024 - 1),
        Tcp(&T::buffer_max, 4 * 1024 * 1024 + 1)}},
      {"limits.max_flows",
       {Limit(&L::max_flows, 0), Limit(&L::max_flows, 1),
        Limit(&L::max_flows, 1'000'000)},
       {Limit(&L::max_flows, 1'000'001)}},
      {"limits.reserved_descriptors",
       {Limit(&L::reserved_descriptors, 0),
        Limit(&L::reserved_descriptors, 8),
        Limit(&L::reserved_descriptors, 65'536)},
       {Limit(&L::reserved_descriptors, 7),
        Limit(&L::reserved_descriptors, 65'537)}},
      {"limits.memory_budget",
       {Budget(0), Budget(1024 * 1024), Budget(uint64_t{1} << 40)},
       {Budget(1), Budget(1024 * 1024 - 1), Budget(~uint64_t{0})}},
      {"limits.icmp_errors_per_second",
       {Limit(&L::icmp_errors_per_second, 0),
        Limit(&L::icmp_errors_per_second, 1'000'000)},
       {Limit(&L::icmp_errors_per_second, 1'000'001)}},
      {"limits.icmp_error_burst",
       {Limit(&L::icmp_error_burst, 1),
        Limit(&L::icmp_error_burst, 1'000'000),
        [](Config& c) {
          c.limits.icmp_errors_per_second = 0;
          c.limits.icmp_error_burst = 0;
        }},
       {Limit(&L::icmp_error_burst, 0),
        Limit(&L::icmp_error_burst, 1'000'001)}},
      {"limits.icmp_errors_per_path",
       {Limit(&L::icmp_errors_per_path, 0),
        Limit(&L::icmp_errors_per_path, 1'000'000)},
       {Limit(&L::icmp_errors_per_path, 1'000'001)}},
      {"icmp.gateway_v4",
       {Gateway(&IcmpConfig::gateway_v4, "10.0.0.1")},
       {Gateway(&IcmpConfig::gateway_v4, "fd00::1"),
        Gateway(&IcmpConfig::gateway_v4, "0.0.0.0"),
        Gateway(&IcmpConfig::gateway_v4, "127.0.0.1"),
        Gateway(&IcmpConfig::gateway_v4, "224.0.0.1"),
        Gateway(&IcmpConfig::gateway_v4, "255.255.255.255")}},
      {"icmp.gateway_v6",
       {Gateway(&IcmpConfig::gateway_v6, "fe80::1")},
       {Gateway(&IcmpConfig::gateway_v6, "10.0.0.1"),
        Gateway(&IcmpConfig::gateway_v6, "::"),
        Gateway(&IcmpConfig::gateway_v6, "::1"),
        Gateway(&IcmpConfig::gateway_v6, "ff02::1")}},
      {"icmp.idle_timeout",
       {[](Config& c) { c.icmp.idle_timeout = seconds(1); },
        [](Config& c) { c.icmp.idle_timeout = hours(1); }},
       {[](Config& c) { c.icmp.idle_timeout = milliseconds(999); },
        [](Config& c) { c.icmp.idle_timeout = hours(2); }}},
      {"icmp.max_sockets",
       {[](Config& c) { c.icmp.max_sockets = 1; },
        [](Config& c) { c.icmp.max_sockets = 65'536; }},
       {[](Config& c) { c.icmp.max_sockets = 0; },
        [](Config& c) { c.icmp.max_sockets = 65'537; }}},
      {"udp.idle",
       {Udp(&UdpConfig::idle, Duration(seconds(1))),
        Udp(&UdpConfig::idle, Duration(hours(24)))},
       {Udp(&UdpConfig::idle, Duration(0)),
        Udp(&UdpConfig::idle, Duration(hours(25)))}},
      {"udp.stream_idle",
       {Udp(&UdpConfig::stream_idle, Duration(seconds(1))),
        Udp(&UdpConfig::stream_idle, Duration(hours(24)))},
       {Udp(&UdpConfig::stream_idle, Duration(-1)),
        Udp(&UdpConfig::stream_idle, Duration(hours(25)))}},
      {"udp.port_idle[0].port",
       {PortIdle(1, seconds(1)), PortIdle(65535, hours(24))},
       {PortIdle(0, seconds(1))}},
      {"udp.port_idle[0].idle",
       {PortIdle(500, seconds(1))},
       {PortIdle(500, seconds(0)), PortIdle(500, hours(25))}},
      {"udp.port_idle",
       {[](Config& c) { c.udp.port_idle.assign(64, {1, seconds(9)}); },
        [](Config& c) { c.udp.port_idle.clear(); }},
       {[](Config& c) { c.udp.port_idle.assign(65, {1, seconds(9)}); }}},
      {"udp.max_flows",
       {Udp(&UdpConfig::max_flows, 1u), Udp(&UdpConfig::max_flows, 1'000'000u)},
       {Udp(&UdpConfig::max_flows, 0u),
        Udp(&UdpConfig::max_flows, 1'000'001u)}},
      {"udp.max_peers",
       {Udp(&UdpConfig::max_peers, 1u), Udp(&UdpConfig::max_peers, 1'000'000u)},
       {Udp(&UdpConfig::max_peers, 0u),
        Udp(&UdpConfig::max_peers, 1'000'001u)}},
      {"udp.socket_buffer",
       {Udp(&UdpConfig::socket_buffer, 0u),
        Udp(&UdpConfig::socket_buffer, 4096u),
        Udp(&UdpConfig::socket_buffer, 1u << 30)},
       {Udp(&UdpConfig::socket_buffer, 4095u),
        Udp(&UdpConfig::socket_buffer, (1u << 30) + 1)}},
      {"udp.interfaces[0].interface",
       {Rule("224.0.0.0", 4, "wlan0")},
       {Rule("224.0.0.0", 4, ""), Rule("224.0.0.0", 4, "sixteen--letters")}},
      {"udp.interfaces[0].prefix",
       {Rule("192.168.1.0", 24, "lan"), Rule("ff00::", 8, "lan"),
        Rule("::", 0, "lan")},
       {Rule("192.168.1.1", 24, "lan"), Rule("192.168.1.0", 33, "lan")}},
      {"udp.interfaces",
       {[](Config& c) {
         c.udp.interfaces.assign(64, {*IpPrefix::Parse("10.0.0.0/8"), "l"});
       }},
       {[](Config& c) {
         c.udp.interfaces.assign(65, {*IpPrefix::Parse("10.0.0.0/8"), "l"});
       }}},
      {"fragments.max_bytes",
       {Fragments(&F::max_bytes, uint64_t{131'072}),
        Fragments(&F::max_bytes, uint64_t{1} << 30)},
       {Fragments(&F::max_bytes, uint64_t{131'071}),
        Fragments(&F::max_bytes, (uint64_t{1} << 30) + 1)}},
      {"fragments.max_datagrams",
       {Fragments(&F::max_datagrams, 1u), Fragments(&F::max_datagrams, 65'536u)},
       {Fragments(&F::max_datagrams, 0u),
        Fragments(&F::max_datagrams, 65'537u)}},
      {"fragments.max_per_datagram",
       {Fragments(&F::max_per_datagram, 2u),
        Fragments(&F::max_per_datagram, 8192u)},
       {Fragments(&F::max_per_datagram, 1u),
        Fragments(&F::max_per_datagram, 8193u)}},
      {"fragments.timeout_v4",
       {Fragments(&F::timeout_v4, Duration(seconds(1))),
        Fragments(&F::timeout_v4, Duration(seconds(120)))},
       {Fragments(&F::timeout_v4, Duration(milliseconds(999))),
        Fragments(&F::timeout_v4, Duration(seconds(121)))}},
      {"fragments.timeout_v6",
       {Fragments(&F::timeout_v6, Duration(seconds(1))),
        Fragments(&F::timeout_v6, Duration(seconds(120)))},
       {Fragments(&F::timeout_v6, Duration(milliseconds(999))),
        Fragments(&F::timeout_v6, Duration(seconds(121)))}},
      {"protect.so_mark",
       {[](Config& c) { c.protect.so_mark = 0xFFFFFFFF; }},
       {}},
      {"protect.bind_to_device",
       {Device(""), Device("eth0")},
       {Device("sixteen--letters"), Device("a/b")}},
  };
}

TEST(ValidateConfig, TakesTheDefaults) {
  EXPECT_THAT(Fields(Config{}), IsEmpty());
}

TEST(ValidateConfig, TakesEveryFieldUpToItsLimits) {
  for (const FieldCase& c : Cases()) {
    for (size_t i = 0; i < c.good.size(); ++i) {
      Config config;
      c.good[i](config);
      EXPECT_THAT(Fields(config), IsEmpty()) << c.field << ", case " << i;
    }
  }
}

TEST(ValidateConfig, NamesTheFieldBeyondItsLimits) {
  for (const FieldCase& c : Cases()) {
    for (size_t i = 0; i < c.bad.size(); ++i) {
      Config config;
      c.bad[i](config);
      EXPECT_THAT(Fields(config), ElementsAre(c.field))
          << c.field << ", case " << i;
    }
  }
}

TEST(ValidateConfig, SaysWhatIsPermittedInASentence) {
  for (const FieldCase& c : Cases()) {
    for (const auto& change : c.bad) {
      Config config;
      change(config);
      for (const ConfigProblem& p : Validate(config)) {
        EXPECT_GT(p.problem.size(), 20u);
        EXPECT_EQ(p.problem.back(), '.') << p.problem;
      }
    }
  }
  Config config;
  config.tun.mtu = 9;
  config.tcp.dial_timeout = milliseconds(5);
  const std::vector<ConfigProblem> problems = Validate(config);
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_EQ(problems[0].problem, "9 is not between 1280 and 65535.");
  EXPECT_EQ(problems[1].problem, "0.005 s is not between 0.1 s and 600 s.");
}

TEST(ValidateConfig, TellsEveryProblem) {
  Config config;
  config.tun.name = "";
  config.tun.mtu = 0;
  config.tun.prefixes = {*IpPrefix::Parse("10.0.0.0/8"),
                         IpPrefix{*IpAddress::Parse("10.0.0.1"), 8}};
  config.tcp.max_half_open = 0;
  config.limits.reserved_descriptors = 1;
  config.protect.bind_to_device = "/";
  EXPECT_THAT(Fields(config),
              ElementsAre("tun.name", "tun.mtu", "tun.prefixes[1]",
                          "tcp.max_half_open", "limits.reserved_descriptors",
                          "protect.bind_to_device"));
}

TEST(NeedsRestart, NothingForTheSame) {
  EXPECT_THAT(NeedsRestart(Config{}, Config{}), IsEmpty());
}

TEST(NeedsRestart, TunFieldsInTheProtosOrder) {
  Config wanted;
  wanted.tun.prefixes = {*IpPrefix::Parse("10.0.0.0/8")};
  EXPECT_THAT(NeedsRestart(Config{}, wanted), ElementsAre("tun.prefixes"));
  wanted.tun.offload = false;
  wanted.tun.mtu = 9000;
  wanted.tun.name = "other";
  EXPECT_THAT(
      NeedsRestart(Config{}, wanted),
      ElementsAre("tun.name", "tun.mtu", "tun.offload", "tun.prefixes"));
}

TEST(NeedsRestart, NotForADescriptorThatCameWithTheStart) {
  Config running;
  running.tun.fd = 5;
  EXPECT_THAT(NeedsRestart(running, Config{}), IsEmpty());
}

TEST(NeedsRestart, NothingElse) {
  for (const FieldCase& c : Cases()) {
    if (std::string(c.field).rfind("tun.", 0) == 0) continue;
    for (const auto& change : c.good) {
      Config wanted;
      change(wanted);
      EXPECT_THAT(NeedsRestart(Config{}, wanted), IsEmpty()) << c.field;
    }
  }
}

}  // namespace
}  // namespace netstack

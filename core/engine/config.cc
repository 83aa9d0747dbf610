#include "core/engine/config.h"

#include <cstddef>
#include <limits>

#include "absl/strings/str_cat.h"
#include "core/engine/config_checker.h"
#include "core/engine/dns_config_check.h"

namespace netstack {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr size_t kMaxPrefixes = 256;      // searched for every packet
// The protocol's own bounds: RFC 8200, section 5, and a 16-bit length.
constexpr uint32_t kMinMtu = 1280, kMaxMtu = 65535;
constexpr uint32_t kMinBuffer = 16 * 1024, kMaxBuffer = 4 * 1024 * 1024;
constexpr uint32_t kMaxHalfOpen = 1'000'000;
constexpr uint32_t kMaxFlows = 1'000'000;
constexpr uint32_t kMinReserved = 8, kMaxReserved = 65'536;
constexpr uint64_t kMinBudget = 1024 * 1024;
constexpr size_t kMaxSocketPath = 107;  // sockaddr_un, and a NUL
constexpr size_t kMaxAppRules = 1024;   // searched for every flow
constexpr uint32_t kMaxIcmpErrors = 1'000'000;
constexpr size_t kMaxPortRules = 64;  // searched for every timer
// Searched for every datagram; UdpMapping has a byte for them.
constexpr size_t kMaxInterfaceRules = 64;
// Two of the largest datagrams, since less could never hold one and its books.
constexpr uint64_t kMinFragmentBytes = Reassembler::kFloor;
constexpr uint64_t kMaxFragmentBytes = uint64_t{1} << 30;
constexpr uint32_t kMaxDatagrams = 65'536;
// 2: a datagram of one fragment is none. 8192: as many as offsets.
constexpr uint32_t kMinPerDatagram = 2, kMaxPerDatagram = 8192;

// Empty, or what is wrong with the prefix.
std::string PrefixProblem(const IpPrefix& p) {
  const unsigned full = p.ip.IsV4() ? 32 : 128;
  if (p.length > full) {
    return absl::StrCat("its length is ", p.length, ", but at most ", full,
                        " is possible.");
  }
  if (IpPrefix::Parse(p.ToString()) != p) {
    return "bits behind its length are set; they must be zero.";
  }
  if (p.ip.IsMulticast()) {
    return "it is multicast, which no source address may be.";
  }
  return "";
}

void CheckTun(const TunConfig& tun, ConfigChecker& check) {
  if (tun.fd < -1) {
    check.Fail("tun.fd", absl::StrCat(tun.fd, " is not a descriptor."));
  }
  // A descriptor brings its own name.
  if (tun.fd == -1) check.Name("tun.name", tun.name);
  check.Range("tun.mtu", tun.mtu, kMinMtu, kMaxMtu);
  if (tun.prefixes.size() > kMaxPrefixes) {
    check.Fail("tun.prefixes",
               absl::StrCat(tun.prefixes.size(), " prefixes, but at most ",
                            kMaxPrefixes, " are possible."));
    return;
  }
  for (size_t i = 0; i < tun.prefixes.size(); ++i) {
    const std::string problem = PrefixProblem(tun.prefixes[i]);
    if (problem.empty()) continue;
    check.Fail(absl::StrCat("tun.prefixes[", i, "]"),
               absl::StrCat(tun.prefixes[i].ToString(), ": ", problem));
  }
}

void CheckTcp(const TcpConfig& tcp, ConfigChecker& check) {
  check.Time("tcp.dial_timeout", tcp.dial_timeout, milliseconds(100),
             seconds(600));
  // The upper bounds keep every deadline far from the clock's end. RFC 5382's
  // lower bounds are the defaults; shorter ones are the user's choice.
  check.Time("tcp.established_idle", tcp.established_idle, seconds(1),
             hours(24 * 30));
  check.Time("tcp.transitory_idle", tcp.transitory_idle, seconds(1),
             hours(24));
  check.Time("tcp.time_wait", tcp.time_wait, seconds(0), seconds(240));
  if (tcp.host_user_timeout != Duration::zero()) {
    check.Time("tcp.host_user_timeout", tcp.host_user_timeout, seconds(1),
               hours(24));
  }
  check.Range("tcp.max_half_open", tcp.max_half_open, 1, kMaxHalfOpen);
  check.Range("tcp.max_half_open_per_destination",
              tcp.max_half_open_per_destination, 1, kMaxHalfOpen);
  // Said only when both are in range, so that one mistake is told once.
  if (tcp.max_half_open >= 1 &&
      tcp.max_half_open_per_destination <= kMaxHalfOpen &&
      tcp.max_half_open_per_destination > tcp.max_half_open) {
    check.Fail("tcp.max_half_open_per_destination",
               absl::StrCat(tcp.max_half_open_per_destination,
                            " is above tcp.max_half_open, which is ",
                            tcp.max_half_open, "."));
  }
  check.Range("tcp.buffer_floor", tcp.buffer_floor, kMinBuffer, kMaxBuffer);
  check.Range("tcp.buffer_max", tcp.buffer_max, kMinBuffer, kMaxBuffer);
  if (tcp.buffer_floor <= kMaxBuffer && tcp.buffer_max >= kMinBuffer &&
      tcp.buffer_floor > tcp.buffer_max) {
    check.Fail("tcp.buffer_floor",
               absl::StrCat(tcp.buffer_floor, " is above tcp.buffer_max, ",
                            "which is ", tcp.buffer_max, "."));
  }
}

void CheckUdp(const UdpConfig& udp, ConfigChecker& check) {
  check.Time("udp.idle", udp.idle, seconds(1), hours(24));
  check.Time("udp.stream_idle", udp.stream_idle, seconds(1), hours(24));
  if (udp.port_idle.size() > kMaxPortRules) {
    check.Fail("udp.port_idle",
               absl::StrCat(udp.port_idle.size(), " entries, but at most ",
                            kMaxPortRules, " are possible."));
  } else {
    for (size_t i = 0; i < udp.port_idle.size(); ++i) {
      const std::string path = absl::StrCat("udp.port_idle[", i, "]");
      check.Range(path + ".port", udp.port_idle[i].port, 1, 65'535);
      check.Time(path + ".idle", udp.port_idle[i].idle, seconds(1),
                 hours(24));
    }
  }
  check.Range("udp.max_flows", udp.max_flows, 1, kMaxFlows);
  check.Range("udp.max_peers", udp.max_peers, 1, kMaxFlows);
  check.RangeOrZero("udp.socket_buffer", udp.socket_buffer, 4096,
                    uint64_t{1} << 30);
  if (udp.interfaces.size() > kMaxInterfaceRules) {
    check.Fail("udp.interfaces",
               absl::StrCat(udp.interfaces.size(), " rules, but at most ",
                            kMaxInterfaceRules, " are possible."));
    return;
  }
  for (size_t i = 0; i < udp.interfaces.size(); ++i) {
    const std::string path = absl::StrCat("udp.interfaces[", i, "]");
    check.Name(path + ".interface", udp.interfaces[i].interface);
    const IpPrefix& prefix = udp.interfaces[i].prefix;
    if (IpPrefix::Parse(prefix.ToString()) != prefix) {
      check.Fail(path + ".prefix",
                 absl::StrCat(prefix.ToString(), " is no prefix."));
    }
  }
}

void CheckLimits(const LimitsConfig& limits, ConfigChecker& check) {
  check.RangeOrZero("limits.max_flows", limits.max_flows, 1, kMaxFlows);
  check.RangeOrZero("limits.reserved_descriptors",
                    limits.reserved_descriptors, kMinReserved, kMaxReserved);
  check.RangeOrZero("limits.memory_budget", limits.memory_budget, kMinBudget,
                    std::numeric_limits<int64_t>::max());
  check.Range("limits.icmp_errors_per_second", limits.icmp_errors_per_second,
              0, kMaxIcmpErrors);
  // None per second is a way to send none; then the burst means nothing.
  if (limits.icmp_errors_per_second > 0) {
    check.Range("limits.icmp_error_burst", limits.icmp_error_burst, 1,
                kMaxIcmpErrors);
  }
  check.Range("limits.icmp_errors_per_path", limits.icmp_errors_per_path, 0,
              kMaxIcmpErrors);
}

void CheckGateway(absl::string_view field, const IpAddress& ip, bool v4,
                  ConfigChecker& check) {
  if (ip.IsV4() != v4) {
    check.Fail(field, absl::StrCat(ip.ToString(), " is not an IPv",
                                   v4 ? "4" : "6", " address."));
  } else if (ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() ||
             ip.IsLimitedBroadcast()) {
    check.Fail(field, absl::StrCat(ip.ToString(),
                                   " cannot be the sender of a packet."));
  }
}

void CheckFragments(const FragmentConfig& f, ConfigChecker& check) {
  check.Range("fragments.max_bytes", f.max_bytes, kMinFragmentBytes,
              kMaxFragmentBytes);
  check.Range("fragments.max_datagrams", f.max_datagrams, 1, kMaxDatagrams);
  check.Range("fragments.max_per_datagram", f.max_per_datagram,
              kMinPerDatagram, kMaxPerDatagram);
  check.Time("fragments.timeout_v4", f.timeout_v4, seconds(1), seconds(120));
  check.Time("fragments.timeout_v6", f.timeout_v6, seconds(1), seconds(120));
}

void CheckApp(const Config& config, ConfigChecker& check) {
  const ProtectConfig& protect = config.protect;
  if (protect.app_socket.size() > kMaxSocketPath) {
    check.Fail("protect.app_socket",
               absl::StrCat("it has ", protect.app_socket.size(),
                            " bytes, but at most ", kMaxSocketPath,
                            " are possible."));
  }
  check.Time("protect.timeout", protect.timeout, milliseconds(10),
             seconds(60));
  check.Range("protect.pool_size", protect.pool_size, 0, 256);
  check.Time("owners.timeout", config.owners.timeout, milliseconds(10),
             seconds(10));
  const std::vector<AppRule>& rules = config.apps.rules;
  if (rules.size() > kMaxAppRules) {
    check.Fail("apps.rules",
               absl::StrCat(rules.size(), " rules, but at most ",
                            kMaxAppRules, " are possible."));
    return;
  }
  for (size_t i = 0; i < rules.size(); ++i) {
    if (rules[i].uid || !rules[i].package.empty()) continue;
    check.Fail(absl::StrCat("apps.rules[", i, "]"),
               "it names neither a uid nor a package.");
  }
  if (!rules.empty() && config.owners.source == OwnerSource::kOff) {
    check.Fail("apps.rules",
               "rules need to know whose a flow is, but owners.source is "
               "off.");
  }
}

}  // namespace

std::vector<ConfigProblem> Validate(const Config& config) {
  ConfigChecker check;
  CheckTun(config.tun, check);
  CheckTcp(config.tcp, check);
  CheckUdp(config.udp, check);
  CheckLimits(config.limits, check);
  CheckDns(config.dns, check);
  CheckGateway("icmp.gateway_v4", config.icmp.gateway_v4, true, check);
  CheckGateway("icmp.gateway_v6", config.icmp.gateway_v6, false, check);
  // RFC 5508, REQ-1, wants at least 60 s; shorter is the user's choice.
  check.Time("icmp.idle_timeout", config.icmp.idle_timeout, seconds(1),
             hours(1));
  check.Range("icmp.max_sockets", config.icmp.max_sockets, 1, 65'536);
  CheckFragments(config.fragments, check);
  if (!config.protect.bind_to_device.empty()) {
    check.Name("protect.bind_to_device", config.protect.bind_to_device);
  }
  CheckApp(config, check);
  return check.Take();
}

std::vector<std::string> NeedsRestart(const Config& running,
                                      const Config& wanted) {
  const TunConfig& a = running.tun;
  const TunConfig& b = wanted.tun;
  std::vector<std::string> fields;
  // Not `fd`: it came with the start of the stack and has no path in the
  // proto, so that a wanted configuration never carries one.
  if (a.name != b.name) fields.push_back("tun.name");
  if (a.mtu != b.mtu) fields.push_back("tun.mtu");
  if (a.offload != b.offload) fields.push_back("tun.offload");
  if (a.prefixes != b.prefixes) fields.push_back("tun.prefixes");
  return fields;
}

}  // namespace netstack

// The engine's configuration: a checked value. The server makes it from
// netstack.v1.Config; Validate() is the one place that knows the limits.
#ifndef CORE_ENGINE_CONFIG_H_
#define CORE_ENGINE_CONFIG_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/time.h"
#include "core/engine/dns_config.h"
#include "core/forward/icmp_forwarder.h"
#include "core/forward/icmp_responder.h"
#include "core/forward/reassembler.h"
#include "core/forward/udp_forwarder.h"
#include "core/dial/app_protector.h"
#include "core/flow/flow_owner.h"
#include "core/wire/ip_address.h"

namespace netstack {

// Every change here needs a restart of the stack.
struct TunConfig {
  // Either a name (the device is created, or attached to when it exists), or
  // a descriptor of this process, which the engine then owns and closes.
  std::string name = "netstack0";
  int fd = -1;
  // Bytes of the largest IP packet, 1280-65535. Set on the device when we
  // create it.
  uint32_t mtu = 1500;
  // A descriptor's device is asked for its MTU; else `mtu` is what it has.
  bool ask_mtu = true;
  // Ask the kernel for 64 KiB super-segments (IFF_VNET_HDR, TUNSETOFFLOAD);
  // a TUN that cannot is used plain.
  bool offload = true;
  // Which sources are ours; packets of others are dropped and counted. Empty
  // means 0.0.0.0/0 and ::/0.
  std::vector<IpPrefix> prefixes;
};

struct TcpConfig {
  // No answer from the remote: the app gets ICMP host unreachable.
  Duration dial_timeout = std::chrono::seconds(30);
  // RFC 5382, REQ-5: at least 2 h 4 min.
  Duration established_idle = std::chrono::seconds(7440);
  // Half-closed or closing; RFC 5382, REQ-5: at least 4 min.
  Duration transitory_idle = std::chrono::seconds(240);
  // How long a cleanly closed flow is remembered. The peer is local, so that
  // 2 MSL of the Internet is not needed.
  Duration time_wait = std::chrono::seconds(10);
  // TCP_USER_TIMEOUT of the host side: unacknowledged data older than this
  // ends the flow. Zero leaves the kernel's own rule.
  Duration host_user_timeout{};
  // Flows whose dial or handshake is under way.
  uint32_t max_half_open = 4096;
  uint32_t max_half_open_per_destination = 512;
  // Receive window towards the app and send buffer towards it, per flow and
  // direction: what is always granted, and what a fast flow may grow to
  // while the memory budget allows. Bytes, 16 KiB - 4 MiB.
  uint32_t buffer_floor = 64 * 1024;
  uint32_t buffer_max = 1024 * 1024;
};

// UdpForwarder::Options says what each field means.
using UdpConfig = UdpForwarder::Options;

struct LimitsConfig {
  // Flows of all protocols. Zero: as many as the descriptor limit allows.
  uint32_t max_flows = 0;
  // Descriptors kept back from flows for control, logs and the TUN. Zero:
  // 1/8 of RLIMIT_NOFILE, between 32 and 256.
  uint32_t reserved_descriptors = 0;
  // Payload bytes held in buffers of all flows together. Zero: no limit
  // but buffer_max per flow.
  uint64_t memory_budget = 256 * 1024 * 1024;
  // ICMP errors of ours per second, and in one burst (RFC 1812, 4.3.2.8).
  uint32_t icmp_errors_per_second = 1000;
  uint32_t icmp_error_burst = 50;
  // Of these, per second about one pair of app and remote address; zero: no
  // limit but the one above.
  uint32_t icmp_errors_per_path = 100;
};

// Who we are to traceroute, and how ICMP goes through us.
struct IcmpConfig {
  // First hop and sender of errors that we make ourselves, per family:
  // GatewayAddresses says why these.
  IpAddress gateway_v4 = GatewayAddresses{}.v4;
  IpAddress gateway_v6 = GatewayAddresses{}.v6;
  // IcmpForwarder::Options says more.
  Duration idle_timeout = IcmpForwarder::Options{}.idle;
  uint32_t max_sockets = IcmpForwarder::Options{}.max_sockets;
};

// Reassembly of the apps' fragments; Reassembler::Options says more.
struct FragmentConfig {
  uint64_t max_bytes = Reassembler::Options{}.max_bytes;
  uint32_t max_datagrams = Reassembler::Options{}.max_datagrams;
  uint32_t max_per_datagram = Reassembler::Options{}.max_fragments;
  Duration timeout_v4 = Reassembler::Options{}.timeout_v4;
  Duration timeout_v6 = Reassembler::Options{}.timeout_v6;
};

// How host-side sockets are kept out of the VPN.
struct ProtectConfig {
  uint32_t so_mark = 0;        // SO_MARK; zero: not set
  std::string bind_to_device;  // SO_BINDTODEVICE; empty: not set
  // Where the app is asked to protect each socket; empty: nobody is asked.
  // "@name" is Linux's abstract namespace.
  std::string app_socket;
  ProtectProtocol app_protocol = ProtectProtocol::kPipelined;
  // Who must listen there, beside root and ourselves.
  std::optional<uint32_t> app_uid;
  Duration timeout = std::chrono::seconds(2);
  // Protected sockets held ready, per kind and family; of echo sockets one.
  uint32_t pool_size = 8;
  // Bind to the interface that NetworkChange names, not to bind_to_device.
  bool follow_network = false;

  friend bool operator==(const ProtectConfig&, const ProtectConfig&) = default;
};

// Where the owner of a flow is looked up.
enum class OwnerSource : uint8_t {
  kOff,
  kSystem,  // sock_diag(7) and /proc: apps of our own network namespace
  kApp,     // Observer::OnOwnerWanted()
};

struct OwnersConfig {
  OwnerSource source = OwnerSource::kOff;
  // How long a flow that a rule might block waits for its owner.
  Duration timeout = std::chrono::seconds(1);
};

// Rules about apps; the first that matches decides, else the flow is carried.
struct AppsConfig {
  std::vector<AppRule> rules;
  bool block_unknown = false;
};

struct Config {
  TunConfig tun;
  TcpConfig tcp;
  UdpConfig udp;
  LimitsConfig limits;
  ProtectConfig protect;
  DnsConfig dns;
  IcmpConfig icmp;
  FragmentConfig fragments;
  OwnersConfig owners;
  AppsConfig apps;
};

// One violated rule. `field` is the path in netstack.v1.Config, for example
// "tcp.buffer_max".
struct ConfigProblem {
  std::string field;
  std::string problem;  // a sentence: what is wrong and what is permitted
};

// Every problem, not only the first; empty when the config can be used.
std::vector<ConfigProblem> Validate(const Config& config);

// The paths of changed fields that take effect only after a restart of the
// stack, in the order of the proto; empty when all can be applied live.
std::vector<std::string> NeedsRestart(const Config& running,
                                      const Config& wanted);

}  // namespace netstack

#endif  // CORE_ENGINE_CONFIG_H_

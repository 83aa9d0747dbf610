#include "server/config_convert.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/util/message_differencer.h"
#include "server/dns_config_convert.h"
#include "server/errors.h"

namespace netstack::server {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using Problems = std::vector<ConfigProblem>;

constexpr int64_t kNanos = 1'000'000'000;

void ReadDuration(const char* field, bool has,
                  const google::protobuf::Duration& d, Duration* out,
                  Problems& problems) {
  if (!has || FromProto(d, out)) return;
  problems.push_back({field, "not a valid duration."});
}

void ReadTun(const v1::TunConfig& in, TunConfig& out, Problems& problems) {
  if (in.has_name()) out.name = in.name();
  if (in.has_mtu()) out.mtu = in.mtu();
  if (in.has_offload()) out.offload = in.offload();
  for (int i = 0; i < in.prefixes_size(); ++i) {
    if (auto prefix = IpPrefix::Parse(in.prefixes(i))) {
      out.prefixes.push_back(*prefix);
    } else {
      problems.push_back({absl::StrCat("tun.prefixes[", i, "]"),
                          absl::StrCat("\"", in.prefixes(i),
                                       "\" is not a prefix like "
                                       "10.0.0.0/8 or fd00::/8.")});
    }
  }
}

void ReadTcp(const v1::TcpConfig& in, TcpConfig& out, Problems& problems) {
  ReadDuration("tcp.dial_timeout", in.has_dial_timeout(), in.dial_timeout(),
               &out.dial_timeout, problems);
  ReadDuration("tcp.established_idle", in.has_established_idle(),
               in.established_idle(), &out.established_idle, problems);
  ReadDuration("tcp.transitory_idle", in.has_transitory_idle(),
               in.transitory_idle(), &out.transitory_idle, problems);
  ReadDuration("tcp.time_wait", in.has_time_wait(), in.time_wait(),
               &out.time_wait, problems);
  ReadDuration("tcp.host_user_timeout", in.has_host_user_timeout(),
               in.host_user_timeout(), &out.host_user_timeout, problems);
  if (in.has_max_half_open()) out.max_half_open = in.max_half_open();
  if (in.has_max_half_open_per_destination()) {
    out.max_half_open_per_destination = in.max_half_open_per_destination();
  }
  if (in.has_buffer_floor()) out.buffer_floor = in.buffer_floor();
  if (in.has_buffer_max()) out.buffer_max = in.buffer_max();
}

void ReadUdp(const v1::UdpConfig& in, UdpConfig& out, Problems& problems) {
  ReadDuration("udp.idle", in.has_idle(), in.idle(), &out.idle, problems);
  ReadDuration("udp.stream_idle", in.has_stream_idle(), in.stream_idle(),
               &out.stream_idle, problems);
  if (!in.port_idle().empty()) out.port_idle.clear();
  for (int i = 0; i < in.port_idle_size(); ++i) {
    const v1::UdpPortIdle& rule = in.port_idle(i);
    UdpForwarder::PortIdle idle;
    // Beyond 16 bits it becomes 0, which is refused as well.
    idle.port = static_cast<uint16_t>(rule.port() > 65535 ? 0 : rule.port());
    const std::string path = absl::StrCat("udp.port_idle[", i, "].idle");
    ReadDuration(path.c_str(), true, rule.idle(), &idle.idle, problems);
    out.port_idle.push_back(idle);
  }
  switch (in.filtering()) {
    case v1::UDP_FILTERING_UNSPECIFIED:
      break;
    case v1::UDP_FILTERING_ENDPOINT_INDEPENDENT:
      out.filtering = UdpFiltering::kEndpointIndependent;
      break;
    case v1::UDP_FILTERING_ADDRESS_DEPENDENT:
      out.filtering = UdpFiltering::kAddressDependent;
      break;
    case v1::UDP_FILTERING_ADDRESS_AND_PORT_DEPENDENT:
      out.filtering = UdpFiltering::kAddressAndPortDependent;
      break;
    default:
      problems.push_back({"udp.filtering", "not a known filtering."});
  }
  if (in.has_preserve_ports()) out.preserve_ports = in.preserve_ports();
  if (in.has_forward_multicast()) {
    out.forward_multicast = in.forward_multicast();
  }
  if (in.has_max_flows()) out.max_flows = in.max_flows();
  if (in.has_max_peers()) out.max_peers = in.max_peers();
  if (in.has_socket_buffer()) out.socket_buffer = in.socket_buffer();
  for (int i = 0; i < in.interfaces_size(); ++i) {
    const v1::UdpInterfaceRule& rule = in.interfaces(i);
    if (auto prefix = IpPrefix::Parse(rule.prefix())) {
      out.interfaces.push_back({*prefix, rule.interface()});
    } else {
      problems.push_back({absl::StrCat("udp.interfaces[", i, "].prefix"),
                          absl::StrCat("\"", rule.prefix(),
                                       "\" is not a prefix like "
                                       "192.168.1.0/24 or ff00::/8.")});
    }
  }
}

void FillUdp(const UdpConfig& udp, v1::UdpConfig& out) {
  ToProto(udp.idle, out.mutable_idle());
  ToProto(udp.stream_idle, out.mutable_stream_idle());
  for (const UdpForwarder::PortIdle& rule : udp.port_idle) {
    v1::UdpPortIdle* idle = out.add_port_idle();
    idle->set_port(rule.port);
    ToProto(rule.idle, idle->mutable_idle());
  }
  out.set_filtering(
      static_cast<v1::UdpFiltering>(static_cast<int>(udp.filtering) + 1));
  out.set_preserve_ports(udp.preserve_ports);
  out.set_forward_multicast(udp.forward_multicast);
  out.set_max_flows(udp.max_flows);
  out.set_max_peers(udp.max_peers);
  out.set_socket_buffer(udp.socket_buffer);
  for (const UdpForwarder::InterfaceRule& rule : udp.interfaces) {
    v1::UdpInterfaceRule* made = out.add_interfaces();
    made->set_prefix(rule.prefix.ToString());
    made->set_interface(rule.interface);
  }
}

void ReadLimits(const v1::LimitsConfig& in, LimitsConfig& out) {
  if (in.has_max_flows()) out.max_flows = in.max_flows();
  if (in.has_reserved_descriptors()) {
    out.reserved_descriptors = in.reserved_descriptors();
  }
  if (in.has_memory_budget()) out.memory_budget = in.memory_budget();
  if (in.has_icmp_errors_per_second()) {
    out.icmp_errors_per_second = in.icmp_errors_per_second();
  }
  if (in.has_icmp_error_burst()) out.icmp_error_burst = in.icmp_error_burst();
  if (in.has_icmp_errors_per_path()) {
    out.icmp_errors_per_path = in.icmp_errors_per_path();
  }
}

void ReadAddress(const char* field, bool has, const std::string& text,
                 IpAddress& out, Problems& problems) {
  if (!has) return;
  if (const auto ip = IpAddress::Parse(text)) {
    out = *ip;
  } else {
    problems.push_back(
        {field, absl::StrCat("\"", text, "\" is not an IP address.")});
  }
}

void ReadIcmp(const v1::IcmpConfig& in, IcmpConfig& out, Problems& problems) {
  ReadAddress("icmp.gateway_v4", in.has_gateway_v4(), in.gateway_v4(),
              out.gateway_v4, problems);
  ReadAddress("icmp.gateway_v6", in.has_gateway_v6(), in.gateway_v6(),
              out.gateway_v6, problems);
  ReadDuration("icmp.idle_timeout", in.has_idle_timeout(), in.idle_timeout(),
               &out.idle_timeout, problems);
  if (in.has_max_sockets()) out.max_sockets = in.max_sockets();
}

void ReadFragments(const v1::FragmentConfig& in, FragmentConfig& out,
                   Problems& problems) {
  if (in.has_max_bytes()) out.max_bytes = in.max_bytes();
  if (in.has_max_datagrams()) out.max_datagrams = in.max_datagrams();
  if (in.has_max_per_datagram()) out.max_per_datagram = in.max_per_datagram();
  ReadDuration("fragments.timeout_v4", in.has_timeout_v4(), in.timeout_v4(),
               &out.timeout_v4, problems);
  ReadDuration("fragments.timeout_v6", in.has_timeout_v6(), in.timeout_v6(),
               &out.timeout_v6, problems);
}

void CheckRange(const char* field, uint64_t value, uint64_t low, uint64_t high,
                Problems& problems) {
  if (value >= low && value <= high) return;
  problems.push_back({field, absl::StrCat(value, " is not between ", low,
                                          " and ", high, ".")});
}

void ReadControl(const v1::ControlConfig& in, ControlConfig& out,
                 Problems& problems) {
  out.allowed_uids.assign(in.allowed_uids().begin(), in.allowed_uids().end());
  if (out.allowed_uids.size() > 64) {
    problems.push_back({"control.allowed_uids",
                        absl::StrCat(out.allowed_uids.size(),
                                     " uids, but at most 64 are possible.")});
  }
  for (int i = 0; i < in.allowed_uids_size(); ++i) {
    // 65534 is what every user who is not mapped into our user namespace
    // looks like, and -1 is no uid.
    if (in.allowed_uids(i) == 65534 ||
        in.allowed_uids(i) == std::numeric_limits<uint32_t>::max()) {
      problems.push_back({absl::StrCat("control.allowed_uids[", i, "]"),
                          absl::StrCat(in.allowed_uids(i),
                                       " stands for nobody in particular.")});
    }
  }
  if (in.has_max_connections()) out.max_connections = in.max_connections();
  CheckRange("control.max_connections", out.max_connections, 1, 1024,
             problems);
  if (in.has_max_watchers()) out.max_watchers = in.max_watchers();
  CheckRange("control.max_watchers", out.max_watchers, 1, 1024, problems);
  if (in.has_watch_queue()) out.watch_queue = in.watch_queue();
  CheckRange("control.watch_queue", out.watch_queue, 16, 65536, problems);
  ReadDuration("control.stall_timeout", in.has_stall_timeout(),
               in.stall_timeout(), &out.stall_timeout, problems);
  if (out.stall_timeout < std::chrono::milliseconds(100) ||
      out.stall_timeout > std::chrono::minutes(10)) {
    problems.push_back(
        {"control.stall_timeout", "not between 0.1 s and 600 s."});
  }
}

void ReadProtect(const v1::ProtectConfig& in, ProtectConfig& out,
                 Problems& problems) {
  if (in.has_so_mark()) out.so_mark = in.so_mark();
  if (in.has_bind_to_device()) out.bind_to_device = in.bind_to_device();
  if (in.has_app_socket()) out.app_socket = in.app_socket();
  switch (in.app_protocol()) {
    case v1::PROTECT_PROTOCOL_UNSPECIFIED:
      break;
    case v1::PROTECT_PROTOCOL_PROTECT_PATH:
      out.app_protocol = ProtectProtocol::kProtectPath;
      break;
    case v1::PROTECT_PROTOCOL_PIPELINED:
      out.app_protocol = ProtectProtocol::kPipelined;
      break;
    default:
      problems.push_back({"protect.app_protocol", "not a known protocol."});
  }
  if (in.has_app_uid()) out.app_uid = in.app_uid();
  ReadDuration("protect.timeout", in.has_timeout(), in.timeout(),
               &out.timeout, problems);
  if (in.has_pool_size()) out.pool_size = in.pool_size();
  if (in.has_follow_network()) out.follow_network = in.follow_network();
}

void ReadOwners(const v1::Config& in, Config& out, Problems& problems) {
  switch (in.owners().source()) {
    case v1::OWNER_SOURCE_UNSPECIFIED:
    case v1::OWNER_SOURCE_OFF:
      break;
    case v1::OWNER_SOURCE_SYSTEM:
      out.owners.source = OwnerSource::kSystem;
      break;
    case v1::OWNER_SOURCE_APP:
      out.owners.source = OwnerSource::kApp;
      break;
    default:
      problems.push_back({"owners.source", "not a known source."});
  }
  ReadDuration("owners.timeout", in.owners().has_timeout(),
               in.owners().timeout(), &out.owners.timeout, problems);
  for (int i = 0; i < in.apps().rules_size(); ++i) {
    const v1::AppRule& rule = in.apps().rules(i);
    AppRule made;
    if (rule.has_uid()) made.uid = rule.uid();
    made.package = rule.package();
    made.block = rule.action() == v1::APP_ACTION_BLOCK;
    if (!made.block && rule.action() != v1::APP_ACTION_ALLOW) {
      problems.push_back({absl::StrCat("apps.rules[", i, "].action"),
                          "neither ALLOW nor BLOCK."});
    }
    out.apps.rules.push_back(std::move(made));
  }
  if (in.apps().has_block_unknown()) {
    out.apps.block_unknown = in.apps().block_unknown();
  }
}

void ReadApp(const v1::AppConfig& in, AppConfig& out, Problems& problems) {
  switch (in.on_death()) {
    case v1::APP_DEATH_POLICY_UNSPECIFIED:
    case v1::APP_DEATH_POLICY_KEEP_CAPTURING:
      break;
    case v1::APP_DEATH_POLICY_CLOSE:
      out.close_on_death = true;
      break;
    default:
      problems.push_back({"app.on_death", "not a known policy."});
  }
  ReadDuration("app.descriptor_timeout", in.has_descriptor_timeout(),
               in.descriptor_timeout(), &out.descriptor_timeout, problems);
  if (out.descriptor_timeout < std::chrono::milliseconds(100) ||
      out.descriptor_timeout > std::chrono::minutes(10)) {
    problems.push_back(
        {"app.descriptor_timeout", "not between 0.1 s and 600 s."});
  }
  if (in.has_max_descriptors()) out.max_descriptors = in.max_descriptors();
  CheckRange("app.max_descriptors", out.max_descriptors, 1, 64, problems);
}

void WriteApp(const CheckedConfig& config, v1::Config& out) {
  const ProtectConfig& p = config.core.protect;
  v1::ProtectConfig& protect = *out.mutable_protect();
  protect.set_so_mark(p.so_mark);
  protect.set_bind_to_device(p.bind_to_device);
  protect.set_app_socket(p.app_socket);
  protect.set_app_protocol(p.app_protocol == ProtectProtocol::kProtectPath
                               ? v1::PROTECT_PROTOCOL_PROTECT_PATH
                               : v1::PROTECT_PROTOCOL_PIPELINED);
  if (p.app_uid) protect.set_app_uid(*p.app_uid);
  ToProto(p.timeout, protect.mutable_timeout());
  protect.set_pool_size(p.pool_size);
  protect.set_follow_network(p.follow_network);
  v1::AppConfig& app = *out.mutable_app();
  app.set_on_death(config.app.close_on_death
                       ? v1::APP_DEATH_POLICY_CLOSE
                       : v1::APP_DEATH_POLICY_KEEP_CAPTURING);
  ToProto(config.app.descriptor_timeout, app.mutable_descriptor_timeout());
  app.set_max_descriptors(config.app.max_descriptors);
  const OwnerSource source = config.core.owners.source;
  v1::OwnersConfig& owners = *out.mutable_owners();
  owners.set_source(source == OwnerSource::kSystem ? v1::OWNER_SOURCE_SYSTEM
                    : source == OwnerSource::kApp  ? v1::OWNER_SOURCE_APP
                                                   : v1::OWNER_SOURCE_OFF);
  ToProto(config.core.owners.timeout, owners.mutable_timeout());
  v1::AppsConfig& apps = *out.mutable_apps();
  for (const AppRule& rule : config.core.apps.rules) {
    v1::AppRule& r = *apps.add_rules();
    if (rule.uid) r.set_uid(*rule.uid);
    r.set_package(rule.package);
    r.set_action(rule.block ? v1::APP_ACTION_BLOCK : v1::APP_ACTION_ALLOW);
  }
  apps.set_block_unknown(config.core.apps.block_unknown);
}

bool IsLeaf(const FieldDescriptor* f) {
  return f->is_repeated() ||
         f->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE ||
         f->message_type()->full_name() == "google.protobuf.Duration";
}

// Copies one field, or its absence.
void CopyField(const Message& from, const FieldDescriptor* f, Message& to) {
  const Reflection* r = to.GetReflection();
  r->ClearField(&to, f);
  std::unique_ptr<Message> only(from.New());
  only->CopyFrom(from);
  std::vector<const FieldDescriptor*> set;
  r->ListFields(*only, &set);
  for (const FieldDescriptor* other : set) {
    if (other != f) r->ClearField(only.get(), other);
  }
  to.MergeFrom(*only);
}

// Every leaf that is set in `change` replaces the one in `to`.
void CopySet(const Message& change, Message& to) {
  const Reflection* r = change.GetReflection();
  std::vector<const FieldDescriptor*> set;
  r->ListFields(change, &set);
  for (const FieldDescriptor* f : set) {
    if (IsLeaf(f)) {
      CopyField(change, f, to);
    } else {
      CopySet(r->GetMessage(change, f), *r->MutableMessage(&to, f));
    }
  }
}

// False when there is no such field.
bool CopyPath(const Message& change, absl::string_view path, Message& to) {
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(path, absl::MaxSplits('.', 1));
  const FieldDescriptor* f =
      change.GetDescriptor()->FindFieldByName(parts.first);
  if (f == nullptr) return false;
  if (absl::StrContains(path, ".")) {
    if (IsLeaf(f)) return false;
    const Reflection* r = change.GetReflection();
    return CopyPath(r->GetMessage(change, f), parts.second,
                    *r->MutableMessage(&to, f));
  }
  CopyField(change, f, to);
  return true;
}

void CompareFields(const Message& a, const Message& b, std::string prefix,
                   std::vector<std::string>& out) {
  const Reflection* r = a.GetReflection();
  for (int i = 0; i < a.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* f = a.GetDescriptor()->field(i);
    const std::string path = absl::StrCat(prefix, f->name());
    if (!IsLeaf(f)) {
      CompareFields(r->GetMessage(a, f), r->GetMessage(b, f),
                    absl::StrCat(path, "."), out);
      continue;
    }
    google::protobuf::util::MessageDifferencer differ;
    if (!differ.CompareWithFields(a, b, {f}, {f})) out.push_back(path);
  }
}

}  // namespace

bool FromProto(const google::protobuf::Duration& d, Duration* out) {
  if (d.nanos() <= -kNanos || d.nanos() >= kNanos) return false;
  if ((d.seconds() > 0 && d.nanos() < 0) || (d.seconds() < 0 && d.nanos() > 0))
    return false;
  const int64_t limit = std::numeric_limits<int64_t>::max() / kNanos - 1;
  if (d.seconds() > limit || d.seconds() < -limit) return false;
  *out = std::chrono::nanoseconds(d.seconds() * kNanos + d.nanos());
  return true;
}

void ToProto(Duration d, google::protobuf::Duration* out) {
  out->set_seconds(d.count() / kNanos);
  out->set_nanos(static_cast<int32_t>(d.count() % kNanos));
}

absl::StatusOr<CheckedConfig> CheckConfig(const v1::Config& proto) {
  CheckedConfig out;
  out.proto = proto;
  Problems problems;
  ReadTun(proto.tun(), out.core.tun, problems);
  ReadTcp(proto.tcp(), out.core.tcp, problems);
  ReadUdp(proto.udp(), out.core.udp, problems);
  ReadLimits(proto.limits(), out.core.limits);
  ReadIcmp(proto.icmp(), out.core.icmp, problems);
  ReadFragments(proto.fragments(), out.core.fragments, problems);
  ReadProtect(proto.protect(), out.core.protect, problems);
  ReadOwners(proto, out.core, problems);
  ReadDns(proto.dns(), out.core.dns, problems);
  for (ConfigProblem& p : Validate(out.core)) problems.push_back(std::move(p));
  ReadControlD(proto.control_d(), out.control_d, problems);
  ReadControl(proto.control(), out.control, problems);
  ReadApp(proto.app(), out.app, problems);
  if (!problems.empty()) return InvalidFields("INVALID_CONFIG", problems);
  return out;
}

v1::Config Effective(const CheckedConfig& config) {
  v1::Config out;
  v1::TunConfig& tun = *out.mutable_tun();
  tun.set_name(config.core.tun.name);
  tun.set_mtu(config.core.tun.mtu);
  tun.set_offload(config.core.tun.offload);
  for (const IpPrefix& p : config.core.tun.prefixes) {
    tun.add_prefixes(p.ToString());
  }
  if (tun.prefixes().empty()) {
    tun.add_prefixes("0.0.0.0/0");
    tun.add_prefixes("::/0");
  }
  v1::TcpConfig& tcp = *out.mutable_tcp();
  const TcpConfig& t = config.core.tcp;
  ToProto(t.dial_timeout, tcp.mutable_dial_timeout());
  ToProto(t.established_idle, tcp.mutable_established_idle());
  ToProto(t.transitory_idle, tcp.mutable_transitory_idle());
  ToProto(t.time_wait, tcp.mutable_time_wait());
  ToProto(t.host_user_timeout, tcp.mutable_host_user_timeout());
  tcp.set_max_half_open(t.max_half_open);
  tcp.set_max_half_open_per_destination(t.max_half_open_per_destination);
  tcp.set_buffer_floor(t.buffer_floor);
  tcp.set_buffer_max(t.buffer_max);
  FillUdp(config.core.udp, *out.mutable_udp());
  v1::LimitsConfig& limits = *out.mutable_limits();
  const LimitsConfig& l = config.core.limits;
  limits.set_max_flows(l.max_flows);
  limits.set_reserved_descriptors(l.reserved_descriptors);
  limits.set_memory_budget(l.memory_budget);
  limits.set_icmp_errors_per_second(l.icmp_errors_per_second);
  limits.set_icmp_error_burst(l.icmp_error_burst);
  limits.set_icmp_errors_per_path(l.icmp_errors_per_path);
  v1::IcmpConfig& icmp = *out.mutable_icmp();
  icmp.set_gateway_v4(config.core.icmp.gateway_v4.ToString());
  icmp.set_gateway_v6(config.core.icmp.gateway_v6.ToString());
  ToProto(config.core.icmp.idle_timeout, icmp.mutable_idle_timeout());
  icmp.set_max_sockets(config.core.icmp.max_sockets);
  v1::FragmentConfig& fragments = *out.mutable_fragments();
  const FragmentConfig& f = config.core.fragments;
  fragments.set_max_bytes(f.max_bytes);
  fragments.set_max_datagrams(f.max_datagrams);
  fragments.set_max_per_datagram(f.max_per_datagram);
  ToProto(f.timeout_v4, fragments.mutable_timeout_v4());
  ToProto(f.timeout_v6, fragments.mutable_timeout_v6());
  WriteApp(config, out);
  WriteDns(config.core.dns, *out.mutable_dns());
  WriteControlD(config.control_d, *out.mutable_control_d());
  v1::ControlConfig& control = *out.mutable_control();
  for (uint32_t uid : config.control.allowed_uids) {
    control.add_allowed_uids(uid);
  }
  control.set_max_connections(config.control.max_connections);
  control.set_max_watchers(config.control.max_watchers);
  control.set_watch_queue(config.control.watch_queue);
  ToProto(config.control.stall_timeout, control.mutable_stall_timeout());
  return out;
}

absl::StatusOr<v1::Config> Merge(const v1::Config& current,
                                 const v1::Config& change,
                                 const google::protobuf::FieldMask& mask) {
  v1::Config out = current;
  if (mask.paths().empty()) {
    CopySet(change, out);
    KeepSecrets(current, out);
    return out;
  }
  if (mask.paths_size() == 1 && mask.paths(0) == "*") {
    out = change;
    KeepSecrets(current, out);
    return out;
  }
  Problems problems;
  for (const std::string& path : mask.paths()) {
    if (CopyPath(change, path, out)) continue;
    problems.push_back({"update_mask", absl::StrCat("\"", path,
                                                    "\" is not a field of "
                                                    "the config.")});
  }
  if (!problems.empty()) return InvalidFields("INVALID_REQUEST", problems);
  KeepSecrets(current, out);
  return out;
}

std::vector<std::string> Difference(const v1::Config& a, const v1::Config& b) {
  std::vector<std::string> out;
  CompareFields(a, b, "", out);
  return out;
}

}  // namespace netstack::server

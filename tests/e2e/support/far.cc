#include "tests/e2e/support/far.h"

#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

bool V4(const Family& family) { return family.family == AF_INET; }

void Sysctl(const std::string& ns, const std::string& name,
            const std::string& value) {
  const Output out = Execute(
      {"sh", "-c", "echo " + value + " > /proc/sys/net/" + name}, ns);
  EXPECT_TRUE(out.ok()) << name << ": " << out.err;
}

void Link(const std::string& a, const std::string& device_a,
          const std::string& b, const std::string& device_b,
          const std::string& net, int mtu) {
  Ip("-n " + a + " link add " + device_a + " mtu " + std::to_string(mtu) +
     " type veth peer name " + device_b + " mtu " + std::to_string(mtu) +
     " netns " + b);
  const auto set_up = [&](const std::string& ns, const std::string& device,
                          const char* last) {
    Ip("-n " + ns + " addr add 10.77." + net + "." + last + "/24 dev " +
       device);
    Ip("-n " + ns + " -6 addr add fd77:" + net + "::" + last + "/64 dev " +
       device + " nodad");
    Ip("-n " + ns + " link set " + device + " up");
  };
  set_up(a, device_a, "1");
  set_up(b, device_b, "2");
}

}  // namespace

std::string Far::mid() const { return World().prefix() + "-mid"; }
std::string Far::far() const { return World().prefix() + "-far"; }
std::string Far::Tunnel(const Family& family) {
  return V4(family) ? "10.77.4.2" : "fd77:4::2";
}
std::string Far::Routed(const Family& family) {
  return V4(family) ? "10.77.4.3" : "fd77:4::3";
}
std::string Far::Mid(const Family& family) {
  return V4(family) ? "10.77.5.2" : "fd77:5::2";
}
std::string Far::Gateway(const Family& family) {
  return V4(family) ? "192.0.0.8" : "64:ff9b:1::c000:8";
}
std::string Far::RoutedGateway(const Family& family) {
  return V4(family) ? "10.77.0.1" : "fd77::1";
}

Far::Far() {
  const std::string srv = World().srv();
  for (const std::string& ns : {mid(), far()}) {
    Ip("netns add " + ns);
    Ip("-n " + ns + " link set lo up");
    for (const char* name :
         {"ipv4/conf/all/rp_filter", "ipv4/icmp_ratelimit",
          "ipv6/icmp/ratelimit", "ipv6/conf/all/accept_dad",
          "ipv6/conf/default/accept_dad"}) {
      Sysctl(ns, name, "0");
    }
    Sysctl(ns, "ipv4/ip_forward", "1");
    Sysctl(ns, "ipv6/conf/all/forwarding", "1");
  }
  Link(srv, "sm", mid(), "ms", "5", 1500);
  Link(mid(), "mf", far(), "fm", "4", kSmallMtu);
  Ip("-n " + far() + " addr add 10.77.4.3/24 dev fm");
  Ip("-n " + far() + " -6 addr add fd77:4::3/64 dev fm nodad");
  Ip("-n " + srv + " route add 10.77.4.0/24 via 10.77.5.2");
  Ip("-n " + srv + " -6 route add fd77:4::/64 via fd77:5::2");
  Ip("-n " + mid() + " route add default via 10.77.5.1");
  Ip("-n " + mid() + " -6 route add default via fd77:5::1");
  Ip("-n " + far() + " route add default via 10.77.4.1");
  Ip("-n " + far() + " -6 route add default via fd77:4::1");
  // Errors come from the addresses that the hops are known by, whichever of
  // several a kernel would choose.
  for (const char* to : {"10.77.4.3", "fd77:4::3"}) Route(to);
}

Far::~Far() {
  Ip("-n " + World().srv() + " link del sm");
  for (const char* to : {"10.77.4.3/32", "fd77:4::3/128"}) {
    Ip("-n " + World().app() + " route del " + to);
  }
  Ip("netns del " + mid());
  Ip("netns del " + far());
}

void Far::Route(const std::string& destination) {
  const bool v6 = destination.find(':') != std::string::npos;
  Ip("-n " + World().app() + " route replace " + destination +
     (v6 ? "/128 via fd77:0::1" : "/32 via 10.77.0.1"));
}

}  // namespace netstack::e2e

#include "tests/support/net_admin.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/platform/linux/unique_fd.h"

namespace netstack::test {
namespace {

absl::Status Failed(const std::string& what, int error) {
  return absl::UnavailableError(absl::StrCat(what, ": ", strerror(error)));
}

// uid_map and its like take the whole text in one write
// (user_namespaces(7)).
absl::Status WriteFile(const char* path, const std::string& text) {
  UniqueFd fd(open(path, O_WRONLY | O_CLOEXEC));
  if (!fd.ok() || write(fd.get(), text.data(), text.size()) !=
                      static_cast<ssize_t>(text.size())) {
    return Failed(path, errno);
  }
  return absl::OkStatus();
}

absl::Status Ioctl(unsigned long call, const std::string& device,
                   ifreq* request) {
  UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  device.copy(request->ifr_name, IFNAMSIZ - 1);
  if (ioctl(fd.get(), call, request) == 0) return absl::OkStatus();
  return Failed(device, errno);
}

// A netlink request of one fixed header and at most a few attributes.
template <typename Header>
struct Message {
  nlmsghdr netlink{};
  Header header{};
  char attributes[64] = {};

  Message(uint16_t type, int flags) {
    netlink.nlmsg_len = NLMSG_LENGTH(sizeof(Header));
    netlink.nlmsg_type = type;
    netlink.nlmsg_flags =
        static_cast<uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
  }
  void Add(uint16_t type, const void* data, size_t size) {
    rtattr attribute{};
    attribute.rta_len = static_cast<uint16_t>(RTA_LENGTH(size));
    attribute.rta_type = type;
    char* at = reinterpret_cast<char*>(this) + NLMSG_ALIGN(netlink.nlmsg_len);
    std::memcpy(at, &attribute, sizeof(attribute));
    std::memcpy(at + RTA_LENGTH(0), data, size);
    netlink.nlmsg_len =
        static_cast<uint32_t>(NLMSG_ALIGN(netlink.nlmsg_len) + RTA_SPACE(size));
  }
  absl::Status Send() {
    UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    struct {
      nlmsghdr netlink;
      nlmsgerr error;
      char more[512];
    } reply{};
    if (!fd.ok() || send(fd.get(), this, netlink.nlmsg_len, 0) < 0 ||
        recv(fd.get(), &reply, sizeof(reply), 0) < 0) {
      return Failed("netlink", errno);
    }
    if (reply.error.error == 0) return absl::OkStatus();
    return Failed("netlink", -reply.error.error);
  }
};

// Linux makes an IPv6 address its own a moment after it was added, in a work
// queue (addrconf_dad_work() in net/ipv6/addrconf.c). Packets that come before
// are not for it.
absl::Status AwaitLocalRoute(const IpAddress& address) {
  const std::string wanted =
      absl::StrCat(absl::BytesToHexString(absl::string_view(
                       reinterpret_cast<const char*>(address.v6()), 16)),
                   " 80 ");
  for (int i = 0; i < 10000; ++i) {
    std::ifstream routes("/proc/thread-self/net/ipv6_route");
    std::string line;
    while (std::getline(routes, line)) {
      // RTF_LOCAL, RTF_NONEXTHOP and RTF_UP of linux/ipv6_route.h.
      if (absl::StartsWith(line, wanted) &&
          absl::StrContains(line, " 80200001 ")) {
        return absl::OkStatus();
      }
    }
    usleep(1000);
  }
  return absl::DeadlineExceededError("the address does not become local");
}

}  // namespace

absl::Status EnterFreshNamespaces() {
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  if (unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0) {
    // setgroups must be given up before an unprivileged gid_map.
    for (const auto& [path, text] :
         {std::pair{"/proc/self/setgroups", std::string("deny")},
          std::pair{"/proc/self/uid_map", absl::StrCat("0 ", uid, " 1")},
          std::pair{"/proc/self/gid_map", absl::StrCat("0 ", gid, " 1")}}) {
      if (absl::Status s = WriteFile(path, text); !s.ok()) return s;
    }
  } else if (unshare(CLONE_NEWNET) != 0) {  // some containers allow just this
    return Failed(
        "this test needs namespaces of its own (allow user namespaces, or run "
        "it as root); unshare",
        errno);
  }
  return BringUp("lo");
}

absl::Status BringUp(const std::string& device) {
  ifreq request{};
  if (absl::Status s = Ioctl(SIOCGIFFLAGS, device, &request); !s.ok()) {
    return s;
  }
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  return Ioctl(SIOCSIFFLAGS, device, &request);
}

absl::Status AddAddress(const std::string& device, const IpAddress& address,
                        uint8_t prefix_length) {
  const bool v4 = address.IsV4();
  Message<ifaddrmsg> message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
  message.header.ifa_family = v4 ? AF_INET : AF_INET6;
  message.header.ifa_prefixlen = prefix_length;
  message.header.ifa_index = if_nametoindex(device.c_str());
  const void* bytes = v4 ? address.v4() : address.v6();
  message.Add(IFA_LOCAL, bytes, v4 ? 4 : 16);
  message.Add(IFA_ADDRESS, bytes, v4 ? 4 : 16);
  if (v4) return message.Send();
  message.header.ifa_flags = IFA_F_NODAD;  // don't look for duplicates
  if (absl::Status s = message.Send(); !s.ok()) return s;
  return AwaitLocalRoute(address);
}

absl::Status AddDefaultRoute(const std::string& device, bool v4) {
  Message<rtmsg> message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
  message.header.rtm_family = v4 ? AF_INET : AF_INET6;
  message.header.rtm_table = RT_TABLE_MAIN;
  message.header.rtm_protocol = RTPROT_STATIC;
  message.header.rtm_scope = RT_SCOPE_LINK;
  message.header.rtm_type = RTN_UNICAST;
  const uint32_t index = if_nametoindex(device.c_str());
  message.Add(RTA_OIF, &index, sizeof(index));
  return message.Send();
}

absl::Status DeleteDevice(const std::string& device) {
  Message<ifinfomsg> message(RTM_DELLINK, 0);
  message.header.ifi_index = static_cast<int>(if_nametoindex(device.c_str()));
  return message.Send();
}

bool DeviceExists(const std::string& device) {
  return if_nametoindex(device.c_str()) != 0;
}

bool DeviceIsUp(const std::string& device) {
  ifreq request{};
  return Ioctl(SIOCGIFFLAGS, device, &request).ok() &&
         (request.ifr_flags & IFF_UP) != 0;
}

uint32_t DeviceMtu(const std::string& device) {
  ifreq request{};
  if (!Ioctl(SIOCGIFMTU, device, &request).ok()) return 0;
  return static_cast<uint32_t>(request.ifr_mtu);
}

absl::Status SetDeviceMtu(const std::string& device, uint32_t mtu) {
  ifreq request{};
  request.ifr_mtu = static_cast<int>(mtu);
  return Ioctl(SIOCSIFMTU, device, &request);
}

}  // namespace netstack::test

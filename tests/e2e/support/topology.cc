#include "tests/e2e/support/topology.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <sstream>
#include <vector>

#include "gtest/gtest.h"
#include "tests/e2e/support/process.h"

namespace netstack::e2e {
namespace {

const char kScript[] = NETSTACK_SOURCE_DIR "/deploy/topology";

}  // namespace

Enter::Enter(const std::string& ns)
    : back_(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
  const Fd there(open(("/run/netns/" + ns).c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_TRUE(there.ok() && setns(there.get(), CLONE_NEWNET) == 0)
      << "namespace " << ns << ": " << std::strerror(errno);
}

Enter::~Enter() {
  // A thread that stays elsewhere would make every later test wrong.
  if (setns(back_.get(), CLONE_NEWNET) != 0) std::abort();
}

Topology::Topology() : prefix_("e2e" + std::to_string(getpid())) {
  // What a killed process of the same number may have left.
  Execute({kScript, "down", prefix_});
  const Output up = Execute({kScript, "up", prefix_});
  if (!up.ok()) failure_ = "deploy/topology up failed: " + up.err;
}

Topology::~Topology() { Execute({kScript, "down", prefix_}); }

void Topology::Attach(const std::string& tun, int mtu) {
  const Output out =
      Execute({kScript, "attach", prefix_, tun, std::to_string(mtu)});
  EXPECT_TRUE(out.ok()) << "deploy/topology attach: " << out.err;
}

void Ip(const std::string& words) {
  std::vector<std::string> arguments = {"ip"};
  std::istringstream in(words);
  for (std::string word; in >> word;) arguments.push_back(word);
  const Output out = Execute(arguments);
  EXPECT_TRUE(out.ok()) << "ip " << words << ": " << out.err;
}

Fd MakeTun(const std::string& ns, const std::string& name) {
  const Enter enter(ns);
  Fd fd(open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  ifreq request{};
  std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  EXPECT_EQ(ioctl(fd.get(), TUNSETIFF, &request), 0)
      << "TUN " << name << ": " << std::strerror(errno);
  return fd;
}

}  // namespace netstack::e2e

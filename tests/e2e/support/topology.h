// The namespaces app, gw and srv of deploy/topology, one set per test process.
//
// Nothing needs a thread inside a namespace: a socket belongs to the one in
// which it was made, so Enter() for the moment of making it is enough.
#ifndef TESTS_E2E_SUPPORT_TOPOLOGY_H_
#define TESTS_E2E_SUPPORT_TOPOLOGY_H_

#include <string>

#include "tests/e2e/support/fd.h"

namespace netstack::e2e {

// The calling thread is in the namespace for the life of this object.
class Enter {
 public:
  explicit Enter(const std::string& ns);
  ~Enter();
  Enter(const Enter&) = delete;
  Enter& operator=(const Enter&) = delete;

 private:
  Fd back_;
};

class Topology {
 public:
  Topology();
  ~Topology();
  Topology(const Topology&) = delete;
  Topology& operator=(const Topology&) = delete;

  // A sentence why there are no namespaces; empty: all is well.
  const std::string& failure() const { return failure_; }
  const std::string& prefix() const { return prefix_; }
  std::string app() const { return prefix_ + "-app"; }
  std::string gw() const { return prefix_ + "-gw"; }
  std::string srv() const { return prefix_ + "-srv"; }

  // Moves the TUN from gw to app and makes it the default route there.
  void Attach(const std::string& tun, int mtu);

 private:
  std::string prefix_;
  std::string failure_;
};

// The set of this process; made by main().
Topology& World();

// Runs `ip` with the words of a line; a failure is the test's.
void Ip(const std::string& words);

// A new TUN without offloads; non-blocking. It goes with the descriptor.
Fd MakeTun(const std::string& ns, const std::string& name);

}  // namespace netstack::e2e

#endif  // TESTS_E2E_SUPPORT_TOPOLOGY_H_

// Two more hops behind srv, the second over a link of a small MTU:
//
//   srv --10.77.5.0/24-- mid --10.77.4.0/24, MTU 1300-- far
//
// far has two addresses in each family: the apps reach one through the TUN
// and the other through the kernel's forwarding in gw, over the same hops. So
// what a router in our place shows can be compared in the same run.
#ifndef TESTS_E2E_SUPPORT_FAR_H_
#define TESTS_E2E_SUPPORT_FAR_H_

#include <string>

#include "tests/e2e/support/service.h"

namespace netstack::e2e {

class Far {
 public:
  static constexpr int kSmallMtu = 1300;

  Far();
  ~Far();
  Far(const Far&) = delete;
  Far& operator=(const Far&) = delete;

  std::string mid() const;
  std::string far() const;
  // far's address through the TUN, and over the kernel's route.
  static std::string Tunnel(const Family& family);
  static std::string Routed(const Family& family);
  // The second router on both ways.
  static std::string Mid(const Family& family);
  // The first: ours, and the kernel's.
  static std::string Gateway(const Family& family);
  static std::string RoutedGateway(const Family& family);

  // From app over the kernel's route, beside those to far.
  static void Route(const std::string& destination);
};

}  // namespace netstack::e2e

#endif  // TESTS_E2E_SUPPORT_FAR_H_

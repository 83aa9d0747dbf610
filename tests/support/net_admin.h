// What a test of the real kernel needs: namespaces of its own, addresses and
// devices in them.
#ifndef TESTS_SUPPORT_NET_ADMIN_H_
#define TESTS_SUPPORT_NET_ADMIN_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "core/wire/ip_address.h"

namespace netstack::test {

// Moves the process, which has one thread, to a new network namespace with
// the loopback device up, and to a user namespace that may administer it.
absl::Status EnterFreshNamespaces();

// All in the current network namespace.
absl::Status BringUp(const std::string& device);
absl::Status AddAddress(const std::string& device, const IpAddress& address,
                        uint8_t prefix_length);
// The device, which is up, leads everywhere of `v4` or IPv6, without gateway.
absl::Status AddDefaultRoute(const std::string& device, bool v4);
// RTM_DELLINK; works for TUN devices that a descriptor holds, too.
absl::Status DeleteDevice(const std::string& device);
bool DeviceExists(const std::string& device);
bool DeviceIsUp(const std::string& device);
uint32_t DeviceMtu(const std::string& device);  // 0: no such device
absl::Status SetDeviceMtu(const std::string& device, uint32_t mtu);

}  // namespace netstack::test

#endif  // TESTS_SUPPORT_NET_ADMIN_H_

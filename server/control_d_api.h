// Control D's API: which resolver a device has (parity with the "utility" call
// of its clients).
//
// Blocking, over TLS, through sockets that the caller opens: so they are
// protected like every other. Any thread but the loop's.
#ifndef SERVER_CONTROL_D_API_H_
#define SERVER_CONTROL_D_API_H_

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/time.h"
#include "core/wire/ip_address.h"
#include "server/control_d_config.h"

namespace netstack::server {

// What the API said last.
struct ControlDResolver {
  std::string uid;
  std::string doh;                   // an https URL
  std::vector<std::string> exclude;  // domains for the system's resolver
  // Stops are to name it; zeros may lead. Unset: none.
  std::optional<std::string> pin;

  friend bool operator==(const ControlDResolver&,
                         const ControlDResolver&) = default;
};

// As the state file holds it; nullopt when it is damaged.
std::string ToStateText(const ControlDResolver& resolver);
std::optional<ControlDResolver> FromStateText(const std::string& text);

struct ControlDSockets {
  // A protected TCP socket that is not connected, or -1.
  std::function<int(bool v4)> open;
  std::function<void(int fd)> close;
  // Whether the service ends: what is under way is given up.
  std::function<bool()> stopping;
};

// The code of "no such device", an error's payload of kDeviceGoneUrl.
inline constexpr int kDeviceGoneCode = 40402;
bool IsDeviceGone(const absl::Status& status);

// Asks for `uid` ("uid" or "uid/clientid"); with an empty one, has the API make
// a device by the provisioning token first. `addresses`: of the API's host.
// Errors: NOT_FOUND and IsDeviceGone(), UNAVAILABLE (not reached),
// PERMISSION_DENIED (the API refuses), INTERNAL (its answer makes no sense).
absl::StatusOr<ControlDResolver> FetchResolver(
    const ControlDConfig& config, const std::string& uid,
    const std::vector<IpAddress>& addresses, const ControlDSockets& sockets,
    std::chrono::milliseconds timeout);

}  // namespace netstack::server

#endif  // SERVER_CONTROL_D_API_H_

// Whose a flow is: the app behind it, as far as it is known.
#ifndef CORE_FLOW_FLOW_OWNER_H_
#define CORE_FLOW_FLOW_OWNER_H_

#include <cstdint>
#include <optional>
#include <string>

namespace netstack {

// A value; what is not known is unset or empty.
struct FlowOwner {
  std::optional<uint32_t> uid;
  std::string package;  // Android: "org.example.browser"
  std::optional<uint32_t> pid;
  std::string process;  // Linux: /proc/PID/comm

  bool known() const {
    return uid || pid || !package.empty() || !process.empty();
  }
  friend bool operator==(const FlowOwner&, const FlowOwner&) = default;
};

// A rule about the flows of an app. Matches by all fields that are set; one
// at least is.
struct AppRule {
  std::optional<uint32_t> uid;
  std::string package;  // a package, or a process' name
  bool block = false;

  friend bool operator==(const AppRule&, const AppRule&) = default;
};

}  // namespace netstack

#endif  // CORE_FLOW_FLOW_OWNER_H_

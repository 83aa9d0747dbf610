// Checks that several requests share.
#ifndef SERVER_REQUEST_CHECK_H_
#define SERVER_REQUEST_CHECK_H_

#include <chrono>
#include <vector>

#include "core/engine/config.h"
#include "server/config_convert.h"

namespace netstack::server {

inline constexpr Duration kMinInterval = std::chrono::milliseconds(100);
inline constexpr Duration kMaxInterval = std::chrono::hours(1);

// An interval of a watch.
inline void CheckInterval(const char* field,
                          const google::protobuf::Duration& in, Duration* out,
                          std::vector<ConfigProblem>& problems) {
  if (FromProto(in, out) && *out >= kMinInterval && *out <= kMaxInterval) {
    return;
  }
  problems.push_back({field, "not between 0.1 s and 3600 s."});
}

}  // namespace netstack::server

#endif  // SERVER_REQUEST_CHECK_H_

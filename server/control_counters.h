// Counters of the control socket and of watch streams: netstack.v1.ControlStats
// says what each means. Written and read from any thread.
#ifndef SERVER_CONTROL_COUNTERS_H_
#define SERVER_CONTROL_COUNTERS_H_

#include <atomic>
#include <cstdint>

#include "netstack/v1/stats.pb.h"

namespace netstack::server {

struct ControlCounters {
  std::atomic<uint32_t> connections{0};
  std::atomic<uint64_t> accepted{0};
  std::atomic<uint64_t> refused_uid{0};
  std::atomic<uint64_t> refused_limit{0};
  std::atomic<uint64_t> accept_errors{0};
  std::atomic<uint32_t> watchers{0};
  std::atomic<uint64_t> watchers_stalled{0};
  std::atomic<uint64_t> watchers_refused{0};
  std::atomic<uint64_t> watch_losses{0};
  std::atomic<uint64_t> descriptors_taken{0};
  std::atomic<uint64_t> descriptors_refused{0};
  std::atomic<uint64_t> descriptors_expired{0};
  std::atomic<uint32_t> descriptors_pending{0};
  std::atomic<uint32_t> apps{0};
  std::atomic<uint64_t> owner_queries{0};
  std::atomic<uint64_t> owner_answers{0};

  void Fill(v1::ControlStats* out) const {
    out->set_connections(connections);
    out->set_accepted(accepted);
    out->set_refused_uid(refused_uid);
    out->set_refused_limit(refused_limit);
    out->set_accept_errors(accept_errors);
    out->set_watchers(watchers);
    out->set_watchers_stalled(watchers_stalled);
    out->set_watchers_refused(watchers_refused);
    out->set_watch_losses(watch_losses);
    out->set_descriptors_taken(descriptors_taken);
    out->set_descriptors_refused(descriptors_refused);
    out->set_descriptors_expired(descriptors_expired);
    out->set_descriptors_pending(descriptors_pending);
    out->set_apps(apps);
    out->set_owner_queries(owner_queries);
    out->set_owner_answers(owner_answers);
  }
};

}  // namespace netstack::server

#endif  // SERVER_CONTROL_COUNTERS_H_

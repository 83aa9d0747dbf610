#include "core/flow/flow_info.h"

namespace netstack {

bool FlowFilter::Matches(const FlowInfo& f) const {
  return (!id || *id == f.id) &&
         (!protocol || *protocol == f.key.protocol) &&
         (!state || *state == f.state) &&
         (!app || app->Contains(f.key.app.ip)) &&
         (!remote || remote->Contains(f.key.remote.ip)) &&
         (!app_port || *app_port == f.key.app.port) &&
         (!remote_port || *remote_port == f.key.remote.port) &&
         (!active_within || f.idle <= *active_within);
}

}  // namespace netstack

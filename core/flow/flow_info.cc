#include "core/flow/flow_info.h"

namespace netstack {
namespace {

bool IsOrIsBelow(absl::string_view name, absl::string_view suffix) {
  if (name.size() < suffix.size()) return false;
  const size_t rest = name.size() - suffix.size();
  return name.substr(rest) == suffix && (rest == 0 || name[rest - 1] == '.');
}

}  // namespace

bool FlowFilter::Matches(const FlowInfo& f) const {
  return (ids == nullptr || ids->contains(f.id)) &&
         (!id || *id == f.id) &&
         (!protocol || *protocol == f.key.protocol) &&
         (!state || *state == f.state) &&
         (!app || app->Contains(f.key.app.ip)) &&
         (!remote || remote->Contains(f.key.remote.ip)) &&
         (!app_port || *app_port == f.key.app.port) &&
         (!remote_port || *remote_port == f.key.remote.port) &&
         (name_suffix.empty() || IsOrIsBelow(f.name, name_suffix)) &&
         (!uid || f.owner.uid == uid) &&
         (package.empty() || package == f.owner.package ||
          package == f.owner.process) &&
         (!active_within || f.idle <= *active_within);
}

}  // namespace netstack

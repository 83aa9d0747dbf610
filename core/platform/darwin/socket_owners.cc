// Darwin tells whose a socket is to nobody but the system; the app's own
// knowledge (OWNER_SOURCE_APP) is all there is.
#include "core/platform/socket_owners.h"

namespace netstack {
namespace {

class NoProcesses final : public ProcessFinder {
 public:
  std::optional<ProcessInfo> Find(const SocketOwner&) override { return {}; }
};

}  // namespace

std::unique_ptr<SocketOwners> NewSocketOwners() { return nullptr; }

std::unique_ptr<ProcessFinder> NewProcessFinder() {
  return std::make_unique<NoProcesses>();
}

}  // namespace netstack

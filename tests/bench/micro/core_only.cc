// P8: the core on a TUN of its own, without gRPC, until standard input
// closes. Prints a line when it runs; whoever started it reads its memory.
#include <unistd.h>

#include <cstdio>
#include <string>

#include "core/engine/runtime.h"

namespace {

class SilentObserver final : public netstack::Observer {
 public:
  void OnFlow(netstack::FlowChange, const netstack::FlowInfo&) override {}
  void OnEvent(const netstack::Event&) override {}
  void OnFailed(const absl::Status&) override {}
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: core_only TUN\n");
    return 2;
  }
  SilentObserver observer;
  netstack::Config config;
  config.tun.name = argv[1];
  auto runtime = netstack::Runtime::Start(config, &observer);
  if (!runtime.ok()) {
    std::fprintf(stderr, "core_only: %s\n",
                 std::string(runtime.status().message()).c_str());
    return 1;
  }
  std::printf("running\n");
  std::fflush(stdout);
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
  (*runtime)->Stop();
  return 0;
}

// main() of the end-to-end tests. They run in namespaces of their own (see
// deploy/rootless): what a killed test leaves there, the kernel takes away.
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

std::unique_ptr<Topology> world;

class MakeWorld : public testing::Environment {
 public:
  void SetUp() override {
    world = std::make_unique<Topology>();
    ASSERT_EQ(world->failure(), "");
  }
  void TearDown() override { world.reset(); }
};

// Comes back only when the program cannot be started at all.
void StartAgainThroughRootless(char** argv) {
  std::vector<char*> words;
  std::string script = NETSTACK_SOURCE_DIR "/deploy/rootless";
  std::string self = "/proc/self/exe";
  char path[4096] = {};
  if (readlink(self.c_str(), path, sizeof(path) - 1) > 0) self = path;
  words.push_back(script.data());
  words.push_back(self.data());
  for (char** a = argv + 1; *a != nullptr; ++a) words.push_back(*a);
  words.push_back(nullptr);
  execv(words[0], words.data());
  std::fprintf(stderr, "%s: %s\n", words[0], std::strerror(errno));
}

}  // namespace

Topology& World() { return *world; }

}  // namespace netstack::e2e

int main(int argc, char** argv) {
  std::vector<char*> original(argv, argv + argc + 1);
  testing::InitGoogleTest(&argc, argv);
  // The build lists the cases, maybe where there are no namespaces to have.
  if (!GTEST_FLAG_GET(list_tests)) {
    if (std::getenv("NETSTACK_ROOTLESS") == nullptr) {
      netstack::e2e::StartAgainThroughRootless(original.data());
      return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    testing::AddGlobalTestEnvironment(new netstack::e2e::MakeWorld);
  }
  return RUN_ALL_TESTS();
}

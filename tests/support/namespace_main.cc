// main() of tests that run against the kernel in namespaces of their own.
#include <cstdio>

#include "gtest/gtest.h"
#include "tests/support/net_admin.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  // The build lists the cases, maybe where there are no namespaces to have.
  if (!GTEST_FLAG_GET(list_tests)) {
    // Here, since unshare(2) of a user namespace needs a single thread.
    const absl::Status status = netstack::test::EnterFreshNamespaces();
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      return 1;
    }
  }
  return RUN_ALL_TESTS();
}

#include "clients/cli/watch.h"

#include <unistd.h>

#include <csignal>
#include <string>

#include "gtest/gtest.h"

namespace netstack::cli {
namespace {

TEST(InterruptTest, CtrlCRaisesItAndRunsTheAction) {
  Interrupt interrupt(-1);
  bool cancelled = false;
  {
    const Interrupt::Scope scope(interrupt, [&] { cancelled = true; });
    EXPECT_FALSE(interrupt.raised());
    std::raise(SIGINT);
    EXPECT_TRUE(interrupt.WaitFor(absl::Seconds(30)));
  }
  EXPECT_TRUE(cancelled);
}

TEST(InterruptTest, ReaderThatGoesAwayRaisesIt) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  Interrupt interrupt(fds[1]);
  EXPECT_FALSE(interrupt.raised());
  close(fds[0]);
  EXPECT_TRUE(interrupt.WaitFor(absl::Seconds(30)));
  close(fds[1]);
}

TEST(InterruptTest, ScopeAfterTheFactRunsAtOnce) {
  Interrupt interrupt(-1);
  interrupt.Raise();
  bool cancelled = false;
  const Interrupt::Scope scope(interrupt, [&] { cancelled = true; });
  EXPECT_TRUE(cancelled);
}

TEST(InterruptTest, TimeAloneDoesNotRaiseIt) {
  Interrupt interrupt(-1);
  EXPECT_FALSE(interrupt.WaitFor(absl::Milliseconds(1)));
}

TEST(RedrawFrameTest, FirstClearsAndAllCutToTheScreen) {
  EXPECT_EQ(RedrawFrame("a\nb\n", 24, true),
            "\x1b[2J\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
  EXPECT_EQ(RedrawFrame("a\nb\nc\nd\n", 4, false),
            "\x1b[Ha\x1b[K\nb\x1b[K\n… 2 more lines\x1b[K\n\x1b[J");
}

}  // namespace
}  // namespace netstack::cli

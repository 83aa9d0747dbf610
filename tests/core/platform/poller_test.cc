#include "core/platform/poller.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <memory>
#include <thread>
#include <vector>

#include "core/platform/clock.h"
#include "core/platform/linux/unique_fd.h"
#include "gtest/gtest.h"

namespace netstack {
namespace {

using std::chrono::milliseconds;

constexpr PollToken kToken{
    .kind = PollToken::Kind::kTcpFlow, .generation = 0xABCDEF, .index = 77};

TEST(PollTokenTest, PacksAndUnpacks) {
  for (const PollToken& t :
       {kToken, PollToken{PollToken::Kind::kTun, 0, 0},
        PollToken{PollToken::Kind::kTcpFlow, 0xFFFFFF, 0xFFFFFFFF},
        PollToken{PollToken::Kind::kWake, 1, 1}}) {
    const PollToken back = PollToken::Unpack(t.Pack());
    EXPECT_EQ(back.kind, t.kind);
    EXPECT_EQ(back.generation, t.generation);
    EXPECT_EQ(back.index, t.index);
  }
}

class PollerTest : public testing::Test {
 protected:
  PollerTest() {
    auto poller = NewPoller();
    EXPECT_TRUE(poller.ok()) << poller.status();
    poller_ = *std::move(poller);
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    ours_ = UniqueFd(fds[0]);
    theirs_ = UniqueFd(fds[1]);
  }

  // What is there now.
  std::vector<PollEvent> Poll() {
    std::array<PollEvent, 16> events;
    const size_t n = poller_->Wait(clock_.Now(), Instant{}, events);
    return {events.begin(), events.begin() + n};
  }

  void Write(const UniqueFd& fd, size_t n = 1) {
    const std::vector<char> data(n, 'x');
    ASSERT_EQ(write(fd.get(), data.data(), n), static_cast<ssize_t>(n));
  }
  void Read(const UniqueFd& fd) {
    char c;
    ASSERT_EQ(read(fd.get(), &c, 1), 1);
  }
  // Until the kernel takes no more.
  void Stuff(const UniqueFd& fd) {
    const std::array<char, 4096> data{};
    while (write(fd.get(), data.data(), data.size()) > 0) {
    }
  }
  void Drain(const UniqueFd& fd) {
    std::array<char, 4096> data;
    while (read(fd.get(), data.data(), data.size()) > 0) {
    }
  }

  SystemClock clock_;
  std::unique_ptr<Poller> poller_;
  UniqueFd ours_;
  UniqueFd theirs_;
};

TEST_F(PollerTest, NothingToReport) { EXPECT_TRUE(Poll().empty()); }

TEST_F(PollerTest, LevelReadRepeatsUntilRead) {
  ASSERT_EQ(poller_->Add(ours_.get(), kToken, Poller::Trigger::kLevelRead), 0);
  EXPECT_TRUE(Poll().empty()) << "writable alone is no event";
  Write(theirs_);
  for (int i = 0; i < 2; ++i) {
    const auto events = Poll();
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].token.Pack(), kToken.Pack());
    EXPECT_TRUE(events[0].readable);
    EXPECT_FALSE(events[0].writable);
    EXPECT_FALSE(events[0].read_closed);
    EXPECT_FALSE(events[0].error);
  }
  Read(ours_);
  EXPECT_TRUE(Poll().empty());
}

TEST_F(PollerTest, LevelReadWriteAndBack) {
  using Trigger = Poller::Trigger;
  ASSERT_EQ(poller_->Add(ours_.get(), kToken, Trigger::kLevelRead), 0);
  ASSERT_EQ(poller_->Modify(ours_.get(), kToken, Trigger::kLevelReadWrite), 0);
  for (int i = 0; i < 2; ++i) {
    const auto events = Poll();
    ASSERT_EQ(events.size(), 1u);
    EXPECT_TRUE(events[0].writable);
    EXPECT_FALSE(events[0].readable);
  }
  ASSERT_EQ(poller_->Modify(ours_.get(), kToken, Trigger::kLevelRead), 0);
  EXPECT_TRUE(Poll().empty());
}

TEST_F(PollerTest, LevelWriteTellsOfRoomAndNotOfData) {
  ASSERT_EQ(poller_->Add(ours_.get(), kToken, Poller::Trigger::kLevelWrite),
            0);
  Write(theirs_);
  for (int i = 0; i < 2; ++i) {
    const auto events = Poll();
    ASSERT_EQ(events.size(), 1u);
    EXPECT_TRUE(events[0].writable);
    EXPECT_FALSE(events[0].readable);
  }
}

TEST_F(PollerTest, ModifyChangesToken) {
  ASSERT_EQ(poller_->Add(ours_.get(), kToken, Poller::Trigger::kLevelRead), 0);
  PollToken other = kToken;
  other.index = 78;
  ASSERT_EQ(poller_->Modify(ours_.get(), other, Poller::Trigger::kLevelRead),
            0);
  Write(theirs_);
  const auto events = Poll();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].token.index, 78u);
}

TEST_F(PollerTest, EdgeTellsEachChangeOnce) {
  ASSERT_EQ(poller_->Add(ours_.get(), kToken, Poller::Trigger::kEdgeReadWrite),
            0);
  auto events = Poll();
  ASSERT_EQ(events.size(), 1u) << "the state when added is an event";
  EXPECT_TRUE(events[0].writable);
  EXPECT_FALSE(events[0].readable);
  EXPECT_TRUE(Poll().empty());

  Write(theirs_);
  events = Poll();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_TRUE(events[0].readable);
  EXPECT_TRUE(Poll().empty()) << "unread data is told once";

  Write(theirs_);
  events = Poll();
  ASSERT_EQ(events.size(), 1u) << "more data is a new event";
  EXPECT_TRUE(events[0].readable);
}

TEST_F(PollerTest, EdgeTellsWhenWritableAgain) {
  Stuff(ours_);
  ASSERT_EQ(poller_->Add(ours_.get(), kToken, Poller::Trigger::kEdgeReadWrite),
            0);
  EXPECT_TRUE(Poll().empty());
  Drain(theirs_);
  const auto events = Poll();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_TRUE(events[0].writable);
}

TEST_F(PollerTest, HalfCloseIsReadClosedAndNoError) {
  ASSERT_EQ(poller_->Add(ours_.get(), kToken, Poller::Trigger::kEdgeReadWrite),
            0);
  Poll();
  ASSERT_EQ(shutdown(theirs_.get(), SHUT_WR), 0);
  const auto events = Poll();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_TRUE(events[0].readable);
  EXPECT_TRUE(events[0].read_closed);
  EXPECT_FALSE(events[0].error);
}

TEST_F(PollerTest, HangUpIsErrorWhateverTheTrigger) {
  for (const auto trigger :
       {Poller::Trigger::kLevelRead, Poller::Trigger::kLevelReadWrite,
        Poller::Trigger::kEdgeRead, Poller::Trigger::kEdgeReadWrite}) {
    int fds[2];
    ASSERT_EQ(pipe(fds), 0);
    UniqueFd reader(fds[0]);
    UniqueFd writer(fds[1]);
    ASSERT_EQ(poller_->Add(reader.get(), kToken, trigger), 0);
    writer = UniqueFd();
    const auto events = Poll();
    ASSERT_EQ(events.size(), 1u);
    EXPECT_TRUE(events[0].error);
    EXPECT_TRUE(events[0].readable) << "read() tells what it is";
  }
}

TEST_F(PollerTest, RemovedAndClosedDescriptorsAreSilent) {
  ASSERT_EQ(poller_->Add(ours_.get(), kToken, Poller::Trigger::kLevelRead), 0);
  ASSERT_EQ(poller_->Add(theirs_.get(), kToken, Poller::Trigger::kLevelRead),
            0);
  Write(theirs_);
  Write(ours_);
  ASSERT_EQ(poller_->Remove(ours_.get()), 0);
  theirs_ = UniqueFd();
  EXPECT_TRUE(Poll().empty());
}

TEST_F(PollerTest, TellsErrors) {
  using Trigger = Poller::Trigger;
  EXPECT_EQ(poller_->Add(-1, kToken, Trigger::kLevelRead), -EBADF);
  EXPECT_EQ(poller_->Modify(ours_.get(), kToken, Trigger::kLevelRead), -ENOENT);
  EXPECT_EQ(poller_->Remove(ours_.get()), -ENOENT);
  ASSERT_EQ(poller_->Add(ours_.get(), kToken, Trigger::kLevelRead), 0);
  EXPECT_EQ(poller_->Add(ours_.get(), kToken, Trigger::kLevelRead), -EEXIST);
}

TEST_F(PollerTest, StoresNoMoreThanThereIsRoomFor) {
  std::vector<UniqueFd> fds;
  for (uint32_t i = 0; i < 10; ++i) {
    fds.emplace_back(dup(theirs_.get()));
    PollToken token = kToken;
    token.index = i;
    ASSERT_EQ(
        poller_->Add(fds.back().get(), token, Poller::Trigger::kEdgeReadWrite),
        0);
  }
  std::vector<bool> seen(10);
  std::array<PollEvent, 4> events;
  for (const size_t expected : {4u, 4u, 2u, 0u}) {
    ASSERT_EQ(poller_->Wait(clock_.Now(), Instant{}, events), expected);
    for (size_t i = 0; i < expected; ++i) seen[events[i].token.index] = true;
  }
  EXPECT_EQ(seen, std::vector<bool>(10, true));
}

TEST_F(PollerTest, WaitsUntilDeadlineAndNotForGood) {
  for (const Duration wait :
       {Duration(milliseconds(20)), Duration(std::chrono::microseconds(300))}) {
    const Instant start = clock_.Now();
    std::array<PollEvent, 4> events;
    EXPECT_EQ(poller_->Wait(start, start + wait, events), 0u);
    EXPECT_GE(clock_.Now() - start, wait) << "waking early means to spin";
    EXPECT_LT(clock_.Now() - start, std::chrono::seconds(10));
  }
}

TEST_F(PollerTest, FarDeadlineDoesNotOverflow) {
  std::array<PollEvent, 4> events;
  for (const Instant deadline : {kNever - Duration(1), kNever,
                                 clock_.Now() + std::chrono::hours(24 * 365)}) {
    poller_->Wake();
    EXPECT_EQ(poller_->Wait(clock_.Now(), deadline, events), 0u);
  }
}

TEST_F(PollerTest, WakeBeforeWaitEndsIt) {
  std::array<PollEvent, 4> events;
  for (int i = 0; i < 3; ++i) {
    poller_->Wake();
    poller_->Wake();
    EXPECT_EQ(poller_->Wait(clock_.Now(), kNever, events), 0u);
  }
  // And only that one: this Wait() has to last.
  const Instant start = clock_.Now();
  EXPECT_EQ(poller_->Wait(start, start + milliseconds(20), events), 0u);
  EXPECT_GE(clock_.Now() - start, milliseconds(20));
}

TEST_F(PollerTest, WakeIsNotAmongTheEvents) {
  ASSERT_EQ(poller_->Add(ours_.get(), kToken, Poller::Trigger::kLevelRead), 0);
  Write(theirs_);
  poller_->Wake();
  const auto events = Poll();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].token.index, kToken.index);
}

// A token like the poller's own, but for its index, is the caller's.
TEST_F(PollerTest, WakeTokenOfOthersIsAnEvent) {
  const PollToken token{.kind = PollToken::Kind::kWake, .index = 5};
  ASSERT_EQ(poller_->Add(ours_.get(), token, Poller::Trigger::kLevelRead), 0);
  Write(theirs_);
  ASSERT_EQ(Poll().size(), 1u);
}

TEST_F(PollerTest, NoWakeFromOtherThreadsIsLost) {
  // Each Wait() must end, and each turn must see what was done before the
  // Wake() that ended it; otherwise this hangs.
  constexpr int kThreads = 3;
  constexpr int kPosts = 20000;
  std::atomic<int> posted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kPosts; ++i) {
        posted.fetch_add(1, std::memory_order_relaxed);
        poller_->Wake();
      }
    });
  }
  std::array<PollEvent, 4> events;
  while (posted.load(std::memory_order_relaxed) < kThreads * kPosts) {
    EXPECT_EQ(poller_->Wait(clock_.Now(), kNever, events), 0u);
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace netstack

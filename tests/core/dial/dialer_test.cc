// Protected before connected, or not at all: core/dial.
#include "core/dial/dialer.h"

#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/dial/protector.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/wire/test_packets.h"
#include "tests/support/scripted_sockets.h"

namespace netstack::test {
namespace {

using testing::ElementsAre;

class DialerTest : public testing::TestWithParam<const Family*> {
 protected:
  Endpoint to() const { return {GetParam()->remote, 443}; }
  void ProtectBy(std::vector<std::unique_ptr<Protector>> protectors) {
    dialer.SetProtectors(std::move(protectors));
  }

  ScriptedSockets sockets;
  Dialer dialer{&sockets, {}};
};
INSTANTIATE_TEST_SUITE_P(Families, DialerTest, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TEST_P(DialerTest, ConnectsASocketOfTheFamily) {
  const Dial dial = dialer.DialTcp(to());
  EXPECT_EQ(dial.outcome, DialOutcome::kInProgress);
  EXPECT_EQ(dial.fd, sockets.last().fd);
  EXPECT_EQ(sockets.last().v4, GetParam()->v4());
  EXPECT_EQ(sockets.last().connected_to, to());
  EXPECT_THAT(sockets.last().calls, ElementsAre("Connect"));
  EXPECT_EQ(dialer.in_use(), 1u);
  EXPECT_EQ(dialer.stats().attempts, 1u);
}

TEST_P(DialerTest, ProtectsInOrderBeforeConnecting) {
  std::vector<std::unique_ptr<Protector>> protectors;
  protectors.push_back(std::make_unique<MarkProtector>(&sockets, 0x1234));
  protectors.push_back(std::make_unique<DeviceProtector>(&sockets, "wlan0"));
  ProtectBy(std::move(protectors));
  EXPECT_EQ(dialer.DialTcp(to()).outcome, DialOutcome::kInProgress);
  EXPECT_THAT(sockets.last().calls,
              ElementsAre("SetMark", "BindToDevice", "Connect"));
  EXPECT_EQ(sockets.last().mark, 0x1234u);
  EXPECT_EQ(sockets.last().device, "wlan0");
}

TEST_P(DialerTest, UnprotectedSocketsAreClosedAndNotConnected) {
  for (const bool mark_fails : {true, false}) {
    (mark_fails ? sockets.mark_result : sockets.device_result) = -EPERM;
    std::vector<std::unique_ptr<Protector>> protectors;
    protectors.push_back(std::make_unique<MarkProtector>(&sockets, 1));
    protectors.push_back(std::make_unique<DeviceProtector>(&sockets, "wlan0"));
    ProtectBy(std::move(protectors));
    const Dial dial = dialer.DialTcp(to());
    EXPECT_EQ(dial.outcome, DialOutcome::kProtectFailed);
    EXPECT_EQ(dial.fd, -1);
    EXPECT_EQ(sockets.last().connected_to, std::nullopt);
    EXPECT_TRUE(sockets.last().closed);
    sockets.mark_result = sockets.device_result = 0;
  }
  EXPECT_EQ(dialer.in_use(), 0u);
  EXPECT_EQ(dialer.stats().protect_failed, 2u);
}

TEST_P(DialerTest, UserTimeoutIsSetWhenAskedFor) {
  Dialer::Options o;
  o.user_timeout = std::chrono::seconds(20);
  dialer.Configure(o);
  dialer.DialTcp(to());
  EXPECT_EQ(sockets.last().user_timeout, std::chrono::seconds(20));
}

TEST_P(DialerTest, NoMoreSocketsThanAllowed) {
  Dialer::Options o;
  o.max_sockets = 2;
  dialer.Configure(o);
  const int fd = dialer.DialTcp(to()).fd;
  dialer.DialTcp(to());
  const Dial third = dialer.DialTcp(to());
  EXPECT_EQ(third.outcome, DialOutcome::kNoDescriptor);
  EXPECT_EQ(third.fd, -1);
  EXPECT_EQ(sockets.all().size(), 2u);
  EXPECT_EQ(dialer.stats().no_descriptor, 1u);
  dialer.Close(fd, false);
  EXPECT_EQ(dialer.DialTcp(to()).outcome, DialOutcome::kInProgress);
}

TEST_P(DialerTest, NoDescriptorLeft) {
  for (const int error : {EMFILE, ENFILE}) {
    sockets.open_results = {-error};
    const Dial dial = dialer.DialTcp(to());
    EXPECT_EQ(dial.outcome, DialOutcome::kNoDescriptor);
    EXPECT_EQ(dial.fd, -1);
  }
  EXPECT_EQ(dialer.in_use(), 0u);
}

TEST_P(DialerTest, FailedConnectClosesItsSocket) {
  sockets.connect_result = -ENETUNREACH;
  const Dial dial = dialer.DialTcp(to());
  EXPECT_EQ(dial.outcome, DialOutcome::kNetUnreachable);
  EXPECT_EQ(dial.fd, -1);
  EXPECT_TRUE(sockets.last().closed);
  EXPECT_EQ(dialer.in_use(), 0u);
  EXPECT_EQ(dialer.stats().unreachable, 1u);
}

TEST_P(DialerTest, ConnectedAtOnce) {
  sockets.connect_result = 0;
  const Dial dial = dialer.DialTcp(to());
  EXPECT_EQ(dial.outcome, DialOutcome::kConnected);
  EXPECT_EQ(dial.fd, sockets.last().fd);
  EXPECT_EQ(dialer.stats().connected, 1u);
}

TEST_P(DialerTest, FinishTellsAndCountsWhatBecameOfIt) {
  const int fd = dialer.DialTcp(to()).fd;
  sockets.last().so_error = ECONNREFUSED;
  EXPECT_EQ(dialer.FinishDial(fd, GetParam()->v4()), DialOutcome::kRefused);
  EXPECT_EQ(dialer.stats().refused, 1u);
  EXPECT_FALSE(sockets.last().closed) << "the caller's";
  dialer.Close(fd, true);
  EXPECT_TRUE(sockets.last().reset);

  const int other = dialer.DialTcp(to()).fd;
  EXPECT_EQ(dialer.FinishDial(other, GetParam()->v4()), DialOutcome::kConnected);
  EXPECT_EQ(dialer.stats().connected, 1u);
}

TEST(DialOutcomeOf, EveryErrorThatConnectKnows) {
  const std::pair<int, DialOutcome> cases[] = {
      {0, DialOutcome::kConnected},
      {EINPROGRESS, DialOutcome::kInProgress},
      {ECONNREFUSED, DialOutcome::kRefused},
      {ECONNRESET, DialOutcome::kRefused},
      {ENETUNREACH, DialOutcome::kNetUnreachable},
      {ENETDOWN, DialOutcome::kNetUnreachable},
      {EAFNOSUPPORT, DialOutcome::kNetUnreachable},
      {EHOSTUNREACH, DialOutcome::kHostUnreachable},
      {EHOSTDOWN, DialOutcome::kHostUnreachable},
      {ENOPROTOOPT, DialOutcome::kHostUnreachable},
      {EACCES, DialOutcome::kProhibited},
      {EPERM, DialOutcome::kProhibited},
      {ETIMEDOUT, DialOutcome::kTimedOut},
      {EMFILE, DialOutcome::kNoDescriptor},
      {ENFILE, DialOutcome::kNoDescriptor},
      {ENOBUFS, DialOutcome::kNoDescriptor},
      {ENOMEM, DialOutcome::kNoDescriptor},
      {EADDRNOTAVAIL, DialOutcome::kNoPort},
      {EIO, DialOutcome::kOther},
  };
  for (const auto& [error, outcome] : cases) {
    EXPECT_EQ(DialOutcomeOf(error), outcome) << error;
  }
}

// Each outcome has one counter, and the counters add up to the attempts.
TEST_P(DialerTest, CountersAddUp) {
  for (const int error : {0, ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, EACCES,
                          ETIMEDOUT, EMFILE, EADDRNOTAVAIL, EIO}) {
    sockets.connect_result = -error;
    dialer.DialTcp(to());
  }
  const DialStats& s = dialer.stats();
  EXPECT_EQ(s.connected, 1u);
  EXPECT_EQ(s.refused, 1u);
  EXPECT_EQ(s.unreachable, 3u);
  EXPECT_EQ(s.timed_out, 1u);
  EXPECT_EQ(s.no_descriptor, 1u);
  EXPECT_EQ(s.other_errors, 2u);
  EXPECT_EQ(s.attempts, 9u);
}

}  // namespace
}  // namespace netstack::test

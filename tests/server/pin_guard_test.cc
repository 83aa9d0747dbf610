// The deactivation PIN: right, wrong, missing, locked.
#include "server/pin_guard.h"

#include <chrono>
#include <string>

#include "gtest/gtest.h"
#include "tests/server/test_server.h"

namespace netstack::server {
namespace {

using std::chrono::seconds;

class PinGuardTest : public testing::Test {
 protected:
  std::string Reason(const std::string& given,
                     const std::string& wanted = "0042") {
    const absl::Status status = guard_.Check(given, wanted, now_);
    if (status.ok()) return "";
    last_ = test::DetailsOf(ToGrpc(status)).info;
    return last_.reason();
  }

  PinGuard guard_;
  PinGuard::Clock::time_point now_ = PinGuard::Clock::now();
  google::rpc::ErrorInfo last_;
};

TEST_F(PinGuardTest, OnlyTheWholePinIsRight) {
  EXPECT_EQ(Reason("0042"), "");
  for (const char* wrong : {"42", "00042", "0043", "004", "0042 ", "1042"}) {
    EXPECT_EQ(Reason(wrong), "PIN_WRONG") << wrong;
    EXPECT_EQ(Reason("0042"), "") << "the count begins anew";
  }
}

TEST_F(PinGuardTest, AskingWithoutOneIsNoTry) {
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Reason(""), "PIN_REQUIRED");
  EXPECT_EQ(Reason("0042"), "");
}

TEST_F(PinGuardTest, FiveWrongOnesLockForAMinute) {
  for (int left = 4; left >= 0; --left) {
    EXPECT_EQ(Reason("1"), "PIN_WRONG");
    EXPECT_EQ(last_.metadata().at("tries_left"), std::to_string(left));
  }
  EXPECT_EQ(Reason("0042"), "PIN_LOCKED") << "the right one too";
  EXPECT_EQ(last_.metadata().at("seconds_left"), "60");
  now_ += seconds(59);
  EXPECT_EQ(Reason("0042"), "PIN_LOCKED");
  now_ += seconds(1);
  EXPECT_EQ(Reason("0042"), "");
}

TEST_F(PinGuardTest, AfterTheLockThereAreFiveTriesAgain) {
  for (int i = 0; i < 5; ++i) Reason("1");
  now_ += seconds(60);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Reason("1"), "PIN_WRONG");
  EXPECT_EQ(Reason("0042"), "");
}

}  // namespace
}  // namespace netstack::server

// What sockets say as the ICMP that apps understand.
#include "core/forward/host_errors.h"

#include <cerrno>
#include <initializer_list>

#include "gtest/gtest.h"
#include "tests/core/wire/test_packets.h"

namespace netstack::test {
namespace {

class HostErrors : public testing::TestWithParam<const Family*> {
 protected:
  bool v4() const { return GetParam()->v4(); }
  DatagramError FromNetwork(uint8_t type, uint8_t code, uint32_t mtu = 0) {
    DatagramError e;
    e.error = EHOSTUNREACH;
    e.type = type;
    e.code = code;
    e.mtu = mtu;
    e.offender = *IpAddress::Parse(v4() ? "198.51.100.1" : "2001:db8:1::1");
    return e;
  }
};
INSTANTIATE_TEST_SUITE_P(Families, HostErrors, testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TEST_P(HostErrors, TheNetworksAreExact) {
  const uint8_t unreachable = v4() ? 3 : 1;
  const uint8_t exceeded = v4() ? 11 : 3;
  for (const uint8_t code :
       std::initializer_list<uint8_t>{0, 1, 3, 5, 10, 13}) {
    const auto a = AnswerOf(FromNetwork(unreachable, code), v4());
    ASSERT_TRUE(a && a->exact);
    EXPECT_EQ(a->exact->type, unreachable);
    EXPECT_EQ(a->exact->code, code);
    EXPECT_EQ(a->exact->parameter, 0u);
    EXPECT_EQ(a->from, FromNetwork(0, 0).offender);
  }
  const auto a = AnswerOf(FromNetwork(exceeded, 0), v4());
  ASSERT_TRUE(a && a->exact);
  EXPECT_EQ(a->exact->type, exceeded);
}

// We are a hop on the message's way, and the last one.
TEST_P(HostErrors, TheMessageSpendsAHop) {
  DatagramError e = FromNetwork(v4() ? 11 : 3, 0);
  EXPECT_EQ(AnswerOf(e, v4())->ttl, 64) << "not told";
  e.ttl = 62;
  EXPECT_EQ(AnswerOf(e, v4())->ttl, 61);
  e.ttl = 1;
  EXPECT_EQ(AnswerOf(e, v4())->ttl, 1);
}

TEST_P(HostErrors, TooBigHasTheMtu) {
  const auto a =
      AnswerOf(FromNetwork(v4() ? 3 : 2, v4() ? 4 : 0, 1400), v4());
  ASSERT_TRUE(a && a->exact);
  EXPECT_EQ(a->exact->parameter, 1400u);
}

TEST_P(HostErrors, WhatNoAppHearsOf) {
  // Source quench, redirect, an echo; neighbours.
  for (const uint8_t type :
       std::initializer_list<uint8_t>{4, 5, 8, 0, 128, 135, 137}) {
    if (!v4() && type == 4) continue;  // a parameter problem there
    EXPECT_FALSE(AnswerOf(FromNetwork(type, 0), v4())) << int{type};
  }
  for (const int error : {ENOBUFS, ENOMEM, EAGAIN, EINVAL, EPIPE}) {
    EXPECT_FALSE(AnswerOf(error, 0)) << error;
  }
  EXPECT_FALSE(AnswerOf(EMSGSIZE, 0));
}

TEST_P(HostErrors, AnOffenderOfTheOtherFamilyIsNotNamed) {
  DatagramError e = FromNetwork(v4() ? 3 : 1, 0);
  e.offender = *IpAddress::Parse(v4() ? "::" : "0.0.0.0");
  const auto a = AnswerOf(e, v4());
  ASSERT_TRUE(a);
  EXPECT_TRUE(a->from.IsUnspecified());
}

TEST_P(HostErrors, OurOwnKernels) {
  DatagramError e;
  e.local = true;
  e.error = EMSGSIZE;
  e.mtu = 1280;
  const auto a = AnswerOf(e, v4());
  ASSERT_TRUE(a);
  EXPECT_FALSE(a->exact);
  EXPECT_EQ(a->error, IcmpError::kPacketTooBig);
  EXPECT_EQ(a->mtu, 1280u);
  EXPECT_TRUE(a->from.IsUnspecified());
  const std::pair<int, IcmpError> kCases[] = {
      {ENETUNREACH, IcmpError::kNetUnreachable},
      {EADDRNOTAVAIL, IcmpError::kNetUnreachable},
      {EHOSTUNREACH, IcmpError::kHostUnreachable},
      {EACCES, IcmpError::kProhibited},
      {EPERM, IcmpError::kProhibited},
      {ECONNREFUSED, IcmpError::kPortUnreachable}};
  for (const auto& [error, expected] : kCases) {
    const auto answer = AnswerOf(error, 0);
    ASSERT_TRUE(answer) << error;
    EXPECT_EQ(answer->error, expected) << error;
  }
}

}  // namespace
}  // namespace netstack::test

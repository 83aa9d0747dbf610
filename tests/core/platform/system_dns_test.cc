// The host's resolvers: core/platform/system_dns.h.
#include "core/platform/system_dns.h"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace netstack::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

Endpoint At(const char* text) { return *Endpoint::Parse(text); }

TEST(ParseResolvConf, TakesNameserverLines) {
  EXPECT_THAT(ParseResolvConf("# nameserver 192.0.2.9\n"
                              "search example.com\n"
                              "nameserver 192.0.2.1\n"
                              "  nameserver\t2001:db8::1  # first\r\n"
                              "nameserver fe80::1%eth0\n"
                              "nameserver not-an-address\n"
                              "nameserver\n"
                              "nameserver 127.0.0.53"),
              ElementsAre(At("192.0.2.1:53"), At("[2001:db8::1]:53"),
                          At("127.0.0.53:53")));
  EXPECT_THAT(ParseResolvConf(""), IsEmpty());
  std::string many;
  for (int i = 0; i < 100; ++i) many += "nameserver 192.0.2.1\n";
  EXPECT_EQ(ParseResolvConf(many).size(), 8u);
}

TEST(SystemDns, FollowsItsFile) {
  const std::string folder =
      testing::TempDir() + "/system_dns_test_" + std::to_string(std::rand());
  std::filesystem::create_directory(folder);
  const std::string path = folder + "/resolv.conf";
  const auto dns = NewSystemDns(path);
  EXPECT_THAT(dns->Servers(), IsEmpty()) << "there is none";
  std::ofstream(path) << "nameserver 192.0.2.1\n";
  EXPECT_THAT(dns->Servers(), ElementsAre(At("192.0.2.1:53")));
  // Replaced as tools do it: written aside and renamed.
  std::ofstream(folder + "/new") << "nameserver 192.0.2.2\n";
  std::filesystem::rename(folder + "/new", path);
  EXPECT_THAT(dns->Servers(), ElementsAre(At("192.0.2.2:53")));
  std::filesystem::remove(path);
  EXPECT_THAT(dns->Servers(), IsEmpty());
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace netstack::test

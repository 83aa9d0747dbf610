#include "core/wire/ip_address.h"

#include <arpa/inet.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace netstack {
namespace {

IpAddress Ip(const char* text) {
  const std::optional<IpAddress> ip = IpAddress::Parse(text);
  EXPECT_TRUE(ip) << text;
  return ip.value_or(IpAddress());
}

// What the C library makes of the text, as sixteen bytes.
std::optional<IpAddress> ByLibrary(const std::string& text) {
  std::array<std::byte, 16> raw{};
  if (inet_pton(AF_INET, text.c_str(), raw.data()) == 1) {
    return IpAddress::V4(raw.data());
  }
  if (inet_pton(AF_INET6, text.c_str(), raw.data()) == 1) {
    return IpAddress::V6(raw.data());
  }
  return std::nullopt;
}

// --- Text -----------------------------------------------------------------

struct TextCase {
  const char* text;
  const char* printed;
};

class IpAddressText : public testing::TestWithParam<TextCase> {};

TEST_P(IpAddressText, IsReadAndPrintedCanonically) {
  const auto [text, printed] = GetParam();
  const auto ip = IpAddress::Parse(text);
  ASSERT_TRUE(ip) << text;
  EXPECT_EQ(ip->ToString(), printed);
  EXPECT_EQ(IpAddress::Parse(printed), ip);
  EXPECT_EQ(ByLibrary(text), ip);
}

INSTANTIATE_TEST_SUITE_P(
    V4, IpAddressText,
    testing::Values(TextCase{"0.0.0.0", "0.0.0.0"},
                    TextCase{"192.0.2.1", "192.0.2.1"},
                    TextCase{"255.255.255.255", "255.255.255.255"},
                    TextCase{"::ffff:192.0.2.1", "192.0.2.1"},
                    TextCase{"::ffff:c000:201", "192.0.2.1"}));

// RFC 5952, sections 1, 2 and 4.
INSTANTIATE_TEST_SUITE_P(
    V6, IpAddressText,
    testing::Values(
        TextCase{"::", "::"}, TextCase{"::1", "::1"}, TextCase{"1::", "1::"},
        TextCase{"0:0:0:0:0:0:0:0", "::"},
        TextCase{"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},
        TextCase{"2001:0db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},
        TextCase{"2001:db8::1:0:0:1", "2001:db8::1:0:0:1"},
        TextCase{"2001:DB8:0:0:1::1", "2001:db8::1:0:0:1"},
        // One group of zeros is not shortened (4.2.2).
        TextCase{"2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1"},
        // The longest run is (4.2.3).
        TextCase{"2001:0:0:1:0:0:0:1", "2001:0:0:1::1"},
        TextCase{"1:0:0:2:0:0:0:0", "1:0:0:2::"},
        TextCase{"0:0:0:1:0:0:0:0", "0:0:0:1::"},
        TextCase{"0:0:0:0:1:0:0:0", "::1:0:0:0"},
        TextCase{"1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"},
        TextCase{"::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"},
        TextCase{"1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"},
        TextCase{"fe80::ABCD:ef01", "fe80::abcd:ef01"},
        TextCase{"64:ff9b::192.0.2.33", "64:ff9b::c000:221"},
        TextCase{"1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"},
        // Neighbours of the IPv4-mapped prefix stay IPv6.
        TextCase{"::fffe:192.0.2.1", "::fffe:c000:201"},
        TextCase{"::1:ffff:192.0.2.1", "::1:ffff:c000:201"}));

class NotAnIpAddress : public testing::TestWithParam<const char*> {};

TEST_P(NotAnIpAddress, IsRefused) {
  EXPECT_EQ(IpAddress::Parse(GetParam()), std::nullopt);
  EXPECT_EQ(ByLibrary(GetParam()), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(
    All, NotAnIpAddress,
    testing::Values("", " ", "1", "1.2.3", "1.2.3.4.5", "1.2.3.", ".1.2.3",
                    "1..2.3", "1.2.3.256", "1.2.3.-4", "01.2.3.4",
                    "1.2.3.00", "1.2.3.4 ", " 1.2.3.4", "1.2.3.0x4",
                    "0x1.2.3.4", "1.2.3.1000", ":", ":::", "::::", "1:",
                    ":1", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
                    "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "1:2:3:4::5:6:7:8",
                    "12345::", "g::", "::-1", "::1%eth0", "[::1]", "::1/64",
                    "1:2:3:4:5:6:7:1.2.3.4", "::1.2.3", "1.2.3.4::",
                    "::1.2.3.4:5", "1.2.3.4:80", "::01.2.3.4"));

// Texts next to valid ones must be judged as the C library judges them.
TEST(IpAddress, ParsesAsTheLibraryDoes) {
  std::mt19937 random(1);
  const std::string letters = "0123456789abcdefABCDEF::::....%/ g";
  const std::vector<std::string> seeds = {
      "192.0.2.1", "10.0.0.255",          "2001:db8::1:0:0:1",
      "::",        "::ffff:255.1.20.130", "1:2:3:4:5:6:7:8"};
  int valid = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::string text = seeds[random() % seeds.size()];
    for (auto edits = random() % 4; edits > 0; --edits) {
      const size_t at = random() % (text.size() + 1);
      const char letter = letters[random() % letters.size()];
      const auto how = random() % 3;
      if (how == 0) {
        text.insert(at, 1, letter);
      } else if (at < text.size()) {
        text.replace(at, 1, how == 1 ? "" : std::string(1, letter));
      }
    }
    const auto ours = IpAddress::Parse(text);
    ASSERT_EQ(ours, ByLibrary(text)) << "\"" << text << "\"";
    if (!ours) continue;
    ++valid;
    ASSERT_EQ(IpAddress::Parse(ours->ToString()), ours) << text;
  }
  EXPECT_GT(valid, 20'000);
}

TEST(IpAddress, RefusesTextWithAZeroByte) {
  EXPECT_EQ(IpAddress::Parse(absl::string_view("1.2.3.4\0", 8)),
            std::nullopt);
  EXPECT_EQ(IpAddress::Parse(absl::string_view("::1\0", 4)), std::nullopt);
}

// --- Bytes ----------------------------------------------------------------

TEST(IpAddress, KeepsBytesInNetworkOrder) {
  const std::byte v4[] = {std::byte{192}, std::byte{0}, std::byte{2},
                          std::byte{1}};
  const IpAddress a = IpAddress::V4(v4);
  EXPECT_EQ(a, IpAddress::V4(192, 0, 2, 1));
  EXPECT_EQ(a, Ip("192.0.2.1"));
  EXPECT_EQ(std::memcmp(a.v4(), v4, 4), 0);

  std::array<std::byte, 16> v6;
  for (size_t i = 0; i < 16; ++i) v6[i] = static_cast<std::byte>(i + 1);
  const IpAddress b = IpAddress::V6(v6.data());
  EXPECT_EQ(b, Ip("102:304:506:708:90a:b0c:d0e:f10"));
  EXPECT_EQ(std::memcmp(b.v6(), v6.data(), 16), 0);
  EXPECT_EQ(b.High(), 0x0102030405060708u);
  EXPECT_EQ(b.Low(), 0x090A0B0C0D0E0F10u);
}

TEST(IpAddress, OrdersByBytes) {
  EXPECT_LT(Ip("10.0.0.1"), Ip("10.0.0.2"));
  EXPECT_LT(Ip("10.0.0.255"), Ip("10.0.1.0"));
  EXPECT_LT(Ip("255.255.255.255"), Ip("2001:db8::"));
  EXPECT_NE(Ip("::"), Ip("0.0.0.0"));
}

// --- What an address is ---------------------------------------------------

struct KindCase {
  const char* text;
  const char* kinds;  // any of "4ulmbk", see below
};

class IpAddressKind : public testing::TestWithParam<KindCase> {};

TEST_P(IpAddressKind, IsTold) {
  const IpAddress ip = Ip(GetParam().text);
  const auto is = [](char kind) {
    return std::strchr(GetParam().kinds, kind) != nullptr;
  };
  EXPECT_EQ(ip.IsV4(), is('4'));
  EXPECT_EQ(ip.IsUnspecified(), is('u'));
  EXPECT_EQ(ip.IsLoopback(), is('l'));
  EXPECT_EQ(ip.IsMulticast(), is('m'));
  EXPECT_EQ(ip.IsLimitedBroadcast(), is('b'));
  EXPECT_EQ(ip.IsLinkLocal(), is('k'));
}

INSTANTIATE_TEST_SUITE_P(
    V4, IpAddressKind,
    testing::Values(
        KindCase{"0.0.0.0", "4u"}, KindCase{"0.0.0.1", "4"},
        KindCase{"127.0.0.0", "4l"}, KindCase{"127.255.255.255", "4l"},
        KindCase{"126.255.255.255", "4"}, KindCase{"128.0.0.0", "4"},
        KindCase{"224.0.0.0", "4m"}, KindCase{"239.255.255.255", "4m"},
        KindCase{"223.255.255.255", "4"}, KindCase{"240.0.0.0", "4"},
        KindCase{"255.255.255.255", "4b"}, KindCase{"255.255.255.254", "4"},
        KindCase{"169.254.0.0", "4k"}, KindCase{"169.254.255.255", "4k"},
        KindCase{"169.253.255.255", "4"}, KindCase{"169.255.0.0", "4"},
        KindCase{"254.128.0.0", "4"}));

INSTANTIATE_TEST_SUITE_P(
    V6, IpAddressKind,
    testing::Values(
        KindCase{"::", "u"}, KindCase{"::1", "l"}, KindCase{"::2", ""},
        KindCase{"::1:0:0", ""}, KindCase{"1::1", ""},
        KindCase{"ff00::", "m"}, KindCase{"ffff::1", "m"},
        KindCase{"feff::1", ""}, KindCase{"fe80::", "k"},
        KindCase{"febf:ffff::", "k"}, KindCase{"fe7f:ffff::", ""},
        KindCase{"fec0::", ""}, KindCase{"e000::", ""},
        KindCase{"::fffe:127.0.0.1", ""}, KindCase{"::127.0.0.1", ""},
        KindCase{"1::ffff:224.0.0.1", ""}, KindCase{"a9fe::", ""}));

TEST(IpAddress, DefaultIsUnspecifiedAndOfNoFamily) {
  EXPECT_TRUE(IpAddress().IsUnspecified());
  EXPECT_FALSE(IpAddress().IsV4());
}

// --- Endpoints ------------------------------------------------------------

class EndpointText : public testing::TestWithParam<const char*> {};

TEST_P(EndpointText, IsReadAsItIsPrinted) {
  const auto e = Endpoint::Parse(GetParam());
  ASSERT_TRUE(e);
  EXPECT_EQ(e->ToString(), GetParam());
}

INSTANTIATE_TEST_SUITE_P(All, EndpointText,
                         testing::Values("192.0.2.1:80", "192.0.2.1:0",
                                         "192.0.2.1:65535",
                                         "[2001:db8::1]:80", "[::]:0"));

class NotAnEndpoint : public testing::TestWithParam<const char*> {};

TEST_P(NotAnEndpoint, IsRefused) {
  EXPECT_EQ(Endpoint::Parse(GetParam()), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(
    All, NotAnEndpoint,
    testing::Values("", ":", ":80", "192.0.2.1", "192.0.2.1:",
                    "192.0.2.1:65536", "192.0.2.1:080", "192.0.2.1:+80",
                    "192.0.2.1: 80", "192.0.2.1:80 ", "[192.0.2.1]:80",
                    "2001:db8::1:80", "[2001:db8::1]", "[2001:db8::1]80",
                    "[2001:db8::1:80", "2001:db8::1]:80", "[]:80", "[:80",
                    "[::ffff:192.0.2.1]:80", "::ffff:192.0.2.1:80"));

TEST(Endpoint, HoldsAddressAndPort) {
  const Endpoint e{Ip("2001:db8::1"), 443};
  EXPECT_EQ(Endpoint::Parse("[2001:db8::1]:443"), e);
  EXPECT_NE(e, (Endpoint{Ip("2001:db8::1"), 444}));
  EXPECT_NE(e, (Endpoint{Ip("2001:db8::2"), 443}));
}

// --- Prefixes -------------------------------------------------------------

struct PrefixCase {
  const char* text;
  const char* printed;
};

class PrefixText : public testing::TestWithParam<PrefixCase> {};

TEST_P(PrefixText, IsReadAndPrinted) {
  const auto prefix = IpPrefix::Parse(GetParam().text);
  ASSERT_TRUE(prefix);
  EXPECT_EQ(prefix->ToString(), GetParam().printed);
  EXPECT_EQ(IpPrefix::Parse(GetParam().printed), prefix);
}

INSTANTIATE_TEST_SUITE_P(
    All, PrefixText,
    testing::Values(
        PrefixCase{"10.0.0.0/8", "10.0.0.0/8"},
        PrefixCase{"10.0.0.2/24", "10.0.0.0/24"},
        PrefixCase{"10.255.255.255/9", "10.128.0.0/9"},
        PrefixCase{"255.255.255.255/31", "255.255.255.254/31"},
        PrefixCase{"1.2.3.4/0", "0.0.0.0/0"},
        PrefixCase{"192.0.2.1", "192.0.2.1/32"},
        PrefixCase{"192.0.2.1/32", "192.0.2.1/32"},
        PrefixCase{"2001:db8::1", "2001:db8::1/128"},
        PrefixCase{"2001:db8::1/32", "2001:db8::/32"},
        PrefixCase{"ffff:ffff::/17", "ffff:8000::/17"},
        PrefixCase{"::ffff:1.2.3.4", "1.2.3.4/32"},
        PrefixCase{"ffff::/0", "::/0"}));

class NotAPrefix : public testing::TestWithParam<const char*> {};

TEST_P(NotAPrefix, IsRefused) {
  EXPECT_EQ(IpPrefix::Parse(GetParam()), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(
    All, NotAPrefix,
    testing::Values("", "/", "/8", "10.0.0.0/", "10.0.0.0/33",
                    "10.0.0.0/-1", "10.0.0.0/08", "10.0.0.0/8 ",
                    "10.0.0.0/8/8", "10.0.0.0/255.0.0.0", "10/8",
                    "2001:db8::/129", "2001:db8::/1000000000000",
                    "::ffff:10.0.0.0/8", "::ffff:10.0.0.0/104"));

struct ContainsCase {
  const char* prefix;
  const char* address;
  bool inside;
};

class PrefixContains : public testing::TestWithParam<ContainsCase> {};

TEST_P(PrefixContains, Address) {
  const auto prefix = IpPrefix::Parse(GetParam().prefix);
  ASSERT_TRUE(prefix);
  EXPECT_EQ(prefix->Contains(Ip(GetParam().address)), GetParam().inside);
}

INSTANTIATE_TEST_SUITE_P(
    All, PrefixContains,
    testing::Values(ContainsCase{"10.0.0.0/8", "10.0.0.0", true},
                    ContainsCase{"10.0.0.0/8", "10.255.255.255", true},
                    ContainsCase{"10.0.0.0/8", "11.0.0.0", false},
                    ContainsCase{"10.0.0.0/8", "9.255.255.255", false},
                    ContainsCase{"192.0.2.1/32", "192.0.2.1", true},
                    ContainsCase{"192.0.2.1/32", "192.0.2.0", false},
                    ContainsCase{"0.0.0.0/0", "255.255.255.255", true},
                    // Never across families, not even by "everything".
                    ContainsCase{"0.0.0.0/0", "::", false},
                    ContainsCase{"::/0", "192.0.2.1", false},
                    ContainsCase{"::/0", "2001:db8::1", true},
                    ContainsCase{"2001:db8::/32", "2001:db8:ffff::1", true},
                    ContainsCase{"2001:db8::/32", "2001:db9::", false},
                    ContainsCase{"2001:db8::/64", "2001:db8::1:0:0:0", true},
                    ContainsCase{"2001:db8::/64", "2001:db8:0:1::", false},
                    ContainsCase{"2001:db8::/65", "2001:db8::8000:0:0:0",
                                 false},
                    ContainsCase{"2001:db8::/65", "2001:db8::7fff:0:0:0",
                                 true},
                    ContainsCase{"::1/128", "::1", true},
                    ContainsCase{"::1/128", "::", false}));

// Every length of both families, against bits compared one by one.
TEST(IpPrefix, ContainsWhatAgreesInItsFirstBits) {
  for (const char* text : {"170.85.170.85", "aa55:aa55::aa55:aa55"}) {
    const IpAddress ip = Ip(text);
    const size_t first = ip.IsV4() ? 96 : 0;
    for (size_t length = 0; first + length <= 128; ++length) {
      const auto prefix =
          IpPrefix::Parse(std::string(text) + "/" + std::to_string(length));
      ASSERT_TRUE(prefix);
      for (size_t bit = first; bit < 128; ++bit) {
        std::array<std::byte, 16> flipped;
        std::memcpy(flipped.data(), ip.v6(), 16);
        flipped[bit / 8] ^= static_cast<std::byte>(0x80 >> (bit % 8));
        EXPECT_EQ(prefix->Contains(IpAddress::V6(flipped.data())),
                  bit >= first + length)
            << prefix->ToString() << ", bit " << bit;
      }
    }
  }
}

}  // namespace
}  // namespace netstack

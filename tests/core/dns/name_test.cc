#include "core/dns/name.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/dns/test_messages.h"

namespace netstack::dns {
namespace {

using test::ByteVector;
using test::ExactCopy;
using test::Hex;
using test::Name;

TEST(DnsName, TextBecomesLowerCaseWireAndBack) {
  const DnsName name = Name("WwW.Example.COM.");
  EXPECT_EQ(ByteVector(name.wire().begin(), name.wire().end()),
            Hex("03 777777 07 6578616d706c65 03 636f6d 00"));
  EXPECT_EQ(name.ToString(), "www.example.com");
  EXPECT_EQ(name.LabelCount(), 3u);
  EXPECT_EQ(name, Name("www.example.com"));
  EXPECT_EQ(Name(".").ToString(), ".");
  EXPECT_TRUE(Name(".").IsRoot());
  EXPECT_EQ(Name(".").LabelCount(), 0u);
}

TEST(DnsName, EscapesGoBothWays) {
  const DnsName name = Name("a\\.b\\032c.\\255");
  EXPECT_EQ(ByteVector(name.wire().begin(), name.wire().end()),
            Hex("05 612e622063 01 ff 00"));
  EXPECT_EQ(name.ToString(), "a\\.b\\032c.\\255");
  EXPECT_EQ(Name(name.ToString()), name);
}

TEST(DnsName, RefusesWhatIsNoName) {
  for (const char* text :
       {"", "..", ".a", "a..b", "a\\", "a\\2", "a\\25", "a\\256",
        "b\xC3\xBC"
        "cher.de"}) {
    EXPECT_FALSE(DnsName::FromText(text)) << text;
  }
}

TEST(DnsName, LengthsAreBounded) {
  const std::string label63(63, 'a'), label64(64, 'a');
  EXPECT_TRUE(DnsName::FromText(label63));
  EXPECT_FALSE(DnsName::FromText(label64));
  // 3 * 64 + 62 + 1 = 255 bytes of wire.
  const std::string most =
      label63 + "." + label63 + "." + label63 + "." + std::string(61, 'b');
  ASSERT_TRUE(DnsName::FromText(most));
  EXPECT_EQ(DnsName::FromText(most)->size(), 255u);
  EXPECT_TRUE(DnsName::FromText(most + "."));
  EXPECT_FALSE(DnsName::FromText(most + "b"));
  EXPECT_EQ(Name(most).ToString(), most);
}

TEST(DnsName, WithinCountsWholeLabels) {
  const DnsName ads = Name("ads.example.com");
  EXPECT_TRUE(ads.IsWithin(ads));
  EXPECT_TRUE(ads.IsWithin(Name("example.com")));
  EXPECT_TRUE(ads.IsWithin(Name(".")));
  EXPECT_FALSE(ads.IsWithin(Name("www.ads.example.com")));
  EXPECT_FALSE(Name("badexample.com").IsWithin(Name("example.com")));
  // The ancestor's bytes, but not at a label's start: the label "x\3com" ends
  // as the name "com" does.
  EXPECT_FALSE(Name("x\\003com").IsWithin(Name("com")));
}

TEST(DnsName, FromWireTakesNoPointerAndNothingCut) {
  const ByteVector wire = test::Wire("www.example");
  EXPECT_EQ(DnsName::FromWire(wire), Name("www.example"));
  for (size_t size = 0; size < wire.size(); ++size) {
    ExactCopy cut(Bytes(wire).first(size));
    EXPECT_FALSE(DnsName::FromWire(cut.bytes())) << size;
  }
  EXPECT_FALSE(DnsName::FromWire(Hex("c000")));
}

// 12 bytes of header, then what the test needs.
ByteVector After(const char* hex) {
  ByteVector bytes(12);
  test::PutAll(bytes, Hex(hex));
  return bytes;
}

TEST(ReadNameAt, FollowsPointersBackwards) {
  // 12: "com", 17: "Example" and a pointer to 12, 27: a pointer to 17.
  const ByteVector m = After("03 636f6d 00  07 4578616d706c65 c00c  c011");
  const auto name = ReadNameAt(m, 27);
  ASSERT_TRUE(name);
  EXPECT_EQ(name->name, Name("example.com"));
  EXPECT_EQ(name->end, 29u);
  EXPECT_TRUE(name->upper.IsUpper(1));  // the E, behind its length
  EXPECT_FALSE(name->upper.IsUpper(2));
  EXPECT_EQ(SkipNameAt(m, 17), 27u);
  EXPECT_FALSE(ReadPlainNameAt(m, 17));
  EXPECT_TRUE(ReadPlainNameAt(m, 12));
}

TEST(ReadNameAt, RefusesLoopsAndForwardPointers) {
  EXPECT_FALSE(ReadNameAt(After("c00c"), 12));           // itself
  EXPECT_FALSE(ReadNameAt(After("c00e 01 61 00"), 12));  // forward
  EXPECT_FALSE(ReadNameAt(After("01 61 c00c"), 12));     // its own label
  EXPECT_FALSE(ReadNameAt(After("c000"), 12));           // the header
  EXPECT_FALSE(ReadNameAt(After("00 c00c c0"), 15));     // cut
  EXPECT_FALSE(ReadNameAt(After("40 61 00"), 12));       // a reserved kind
  EXPECT_FALSE(ReadNameAt(After("80 61 00"), 12));
  EXPECT_FALSE(SkipNameAt(After("01 61 c00c"), 12));
}

TEST(ReadNameAt, BoundsPointersAndLength) {
  // A ladder of pointers, each to the one before, down to a root.
  ByteVector m(13);
  std::vector<size_t> rungs = {12};
  for (int i = 0; i < 200; ++i) {
    const size_t at = m.size();
    test::Put16(m, 0xC000u | static_cast<unsigned>(rungs.back()));
    rungs.push_back(at);
  }
  EXPECT_TRUE(ReadNameAt(m, rungs[128]));
  EXPECT_FALSE(ReadNameAt(m, rungs[129]));

  // 255 bytes by pointers are a name, 256 are none.
  ByteVector n(12);
  for (int i = 0; i < 3; ++i) {
    n.push_back(std::byte{63});
    n.resize(n.size() + 63, std::byte{'a'});
  }
  n.push_back(std::byte{0});  // 193 bytes at 12
  const size_t fits = n.size();
  n.push_back(std::byte{61});
  n.resize(n.size() + 61, std::byte{'b'});
  test::Put16(n, 0xC00C);
  const size_t too_long = n.size();
  n.push_back(std::byte{62});
  n.resize(n.size() + 62, std::byte{'b'});
  test::Put16(n, 0xC00C);
  ASSERT_TRUE(ReadNameAt(n, fits));
  EXPECT_EQ(ReadNameAt(n, fits)->name.size(), 255u);
  EXPECT_FALSE(ReadNameAt(n, too_long));
  EXPECT_FALSE(SkipNameAt(n, too_long));
}

}  // namespace
}  // namespace netstack::dns

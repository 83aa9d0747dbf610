// Messages in a stream, in whatever pieces it comes.
#include "core/dns/framing.h"

#include <cstddef>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace netstack::dns {
namespace {

std::vector<std::byte> Stream(const std::vector<size_t>& lengths) {
  std::vector<std::byte> out;
  for (size_t i = 0; i < lengths.size(); ++i) {
    out.push_back(static_cast<std::byte>(lengths[i] >> 8));
    out.push_back(static_cast<std::byte>(lengths[i] & 0xFF));
    out.insert(out.end(), lengths[i], static_cast<std::byte>('a' + i));
  }
  return out;
}

TEST(FrameReader, GivesMessagesWhole) {
  const auto stream = Stream({12, 300, 65535});
  for (size_t step : {size_t{1}, size_t{13}, size_t{4096}, stream.size()}) {
    FrameReader reader;
    std::vector<size_t> sizes;
    for (size_t at = 0; at < stream.size(); at += step) {
      reader.Append(
          Bytes(stream).subspan(at, std::min(step, stream.size() - at)));
      while (const auto message = reader.Next()) {
        EXPECT_EQ(message->front(), static_cast<std::byte>('a' + sizes.size()));
        EXPECT_EQ(message->back(), message->front());
        sizes.push_back(message->size());
      }
    }
    EXPECT_EQ(sizes, (std::vector<size_t>{12, 300, 65535})) << step;
    EXPECT_EQ(reader.held(), 0u);
    EXPECT_FALSE(reader.broken());
  }
}

TEST(FrameReader, IsBrokenByALengthBelowAHeader) {
  for (size_t length = 0; length < 12; ++length) {
    FrameReader reader;
    reader.Append(Stream({12, length, 12}));
    EXPECT_TRUE(reader.Next().has_value());
    EXPECT_FALSE(reader.Next().has_value());
    EXPECT_TRUE(reader.broken()) << length;
    EXPECT_FALSE(reader.Next().has_value()) << "and stays so";
  }
}

TEST(FrameReader, KeepsNothingThatWasRead) {
  FrameReader reader;
  for (int i = 0; i < 10'000; ++i) {
    reader.Append(Stream({100}));
    EXPECT_TRUE(reader.Next().has_value());
    EXPECT_EQ(reader.held(), 0u);
    if (i % 3 == 0) reader.Trim();
  }
}

}  // namespace
}  // namespace netstack::dns

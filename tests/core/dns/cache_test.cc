#include "core/dns/cache.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/core/dns/test_messages.h"

namespace netstack::dns {
namespace {

using test::ByteVector;
using test::kAnswerFlags;
using test::MessageMaker;
using test::Name;

constexpr SipHashKey kKey{3, 4};

class CacheTest : public testing::Test {
 protected:
  static ByteVector Message(absl::string_view name, uint32_t ttl,
                            absl::string_view ip = "192.0.2.1") {
    return MessageMaker(1, kAnswerFlags)
        .Question(name, 1)
        .Address(name, ip, ttl);
  }
  static ByteVector Failure(absl::string_view name) {
    return MessageMaker(1, kAnswerFlags | 2).Question(name, 1);
  }

  CacheKey Key(absl::string_view name) {
    name_ = Name(name);
    CacheKey key;
    key.name = &name_;
    key.type = 1;
    return key;
  }
  void Insert(const ByteVector& message, uint32_t tag = 0) {
    const AnswerView view = *ParseAnswer(message);
    CacheKey key;
    key.name = &view.name();
    key.type = view.type();
    cache_.Insert(key, StoredAnswer(view, cache_.options().ttl), tag, now_);
  }
  std::optional<Cache::Hit> Find(absl::string_view name) {
    return cache_.Find(Key(name), now_);
  }
  void Pass(int64_t seconds) { now_ += std::chrono::seconds(seconds); }
  void Configure(const Cache::Options& options) { cache_.Configure(options); }

  Instant now_{std::chrono::hours(1)};
  DnsName name_;
  Cache cache_{Cache::Options(), kKey};
};

TEST_F(CacheTest, KeepsAnswersForTheirTtl) {
  EXPECT_FALSE(Find("a.example"));
  Insert(Message("A.example", 100), 7);
  Pass(99);
  auto hit = Find("a.example");
  ASSERT_TRUE(hit);
  EXPECT_EQ(hit->age, 99u);
  EXPECT_EQ(hit->tag, 7u);
  EXPECT_FALSE(hit->stale);
  EXPECT_EQ(hit->expired_ttl, 0u);
  EXPECT_FALSE(Find("b.example"));
  Pass(1);
  hit = Find("a.example");
  ASSERT_TRUE(hit);
  EXPECT_TRUE(hit->stale);
  EXPECT_EQ(hit->expired_ttl, 30u);
  EXPECT_EQ(cache_.stats().hits, 2u);
  EXPECT_EQ(cache_.stats().stale_hits, 1u);
  EXPECT_EQ(cache_.stats().misses, 2u);
}

TEST_F(CacheTest, EveryPartOfTheKeyCounts) {
  Insert(Message("a.example", 100));
  CacheKey key = Key("a.example");
  EXPECT_TRUE(cache_.Find(key, now_));
  key.type = 28;
  EXPECT_FALSE(cache_.Find(key, now_));
  key = Key("a.example");
  key.group = 1;
  EXPECT_FALSE(cache_.Find(key, now_));
  key = Key("a.example");
  key.dnssec_ok = true;
  EXPECT_FALSE(cache_.Find(key, now_));
  key = Key("a.example");
  key.checking_disabled = true;
  EXPECT_FALSE(cache_.Find(key, now_));
}

TEST_F(CacheTest, StaleEndsAndIsTakenOut) {
  Cache::Options options;
  options.stale_for = 50;
  Configure(options);
  Insert(Message("a.example", 100));
  Pass(149);
  EXPECT_TRUE(Find("a.example"));
  Pass(1);
  EXPECT_FALSE(Find("a.example"));
  EXPECT_EQ(cache_.stats().entries, 0u);
  EXPECT_EQ(cache_.stats().expired, 1u);
  options.stale_for = 0;
  Configure(options);
  Insert(Message("a.example", 100));
  Pass(100);
  EXPECT_FALSE(Find("a.example"));
}

TEST_F(CacheTest, StaleAsksForRefreshingOnceInAWhile) {
  Insert(Message("a.example", 10));
  Pass(11);
  EXPECT_TRUE(Find("a.example")->refresh);
  EXPECT_FALSE(Find("a.example")->refresh);
  Pass(10);
  EXPECT_TRUE(Find("a.example")->refresh);
  Insert(Message("a.example", 10));
  EXPECT_FALSE(Find("a.example")->stale);
  EXPECT_FALSE(Find("a.example")->refresh);
}

// RFC 8767: a failure does not hide what was known.
TEST_F(CacheTest, FailuresDoNotReplaceStaleAnswers) {
  Insert(Message("a.example", 10));
  Pass(11);
  EXPECT_TRUE(Find("a.example")->refresh);
  Insert(Failure("a.example"));
  const auto hit = Find("a.example");
  ASSERT_TRUE(hit);
  EXPECT_EQ(hit->answer->rcode(), Rcode::kNoError);
  EXPECT_FALSE(hit->refresh);

  Insert(Failure("b.example"));
  EXPECT_EQ(Find("b.example")->answer->rcode(), Rcode::kServFail);
  Pass(5);
  EXPECT_FALSE(Find("b.example"));  // failures are never stale
  Insert(Failure("b.example"));
  Insert(Message("b.example", 10));
  EXPECT_EQ(Find("b.example")->answer->rcode(), Rcode::kNoError);
}

TEST_F(CacheTest, PrefetchesThePopularOnly) {
  Insert(Message("hot.example", 100));
  Insert(Message("cold.example", 100));
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(Find("hot.example")->refresh);
  Pass(90);
  EXPECT_FALSE(Find("hot.example")->refresh);  // a tenth is still left
  Pass(1);
  EXPECT_TRUE(Find("hot.example")->refresh);
  EXPECT_FALSE(Find("hot.example")->refresh);  // told
  EXPECT_FALSE(Find("cold.example")->refresh);
  EXPECT_EQ(cache_.stats().prefetches, 1u);
}

TEST_F(CacheTest, ZeroTtlTakesTheOldAnswerOut) {
  Insert(Message("a.example", 100));
  Insert(Message("a.example", 0));
  EXPECT_FALSE(Find("a.example"));
  EXPECT_EQ(cache_.stats().entries, 0u);
}

TEST_F(CacheTest, FlushesByNameBelowAndAll) {
  for (const char* name :
       {"example", "a.example", "b.a.example", "ba.example", "a.test"}) {
    Insert(Message(name, 100));
  }
  EXPECT_EQ(cache_.Flush(Name("nothing"), true), 0u);
  EXPECT_EQ(cache_.Flush(Name("example"), false), 1u);
  EXPECT_FALSE(Find("example"));
  EXPECT_EQ(cache_.Flush(Name("a.example"), true), 2u);
  EXPECT_TRUE(Find("ba.example"));
  EXPECT_TRUE(Find("a.test"));
  EXPECT_EQ(cache_.FlushAll(), 2u);
  EXPECT_EQ(cache_.stats().flushed, 5u);
  EXPECT_EQ(cache_.stats().entries, 0u);
}

TEST_F(CacheTest, StaysWithinItsBytes) {
  Cache::Options options;
  options.max_bytes = 64 * 1024;
  Configure(options);
  for (int i = 0; i < 5000; ++i) {
    Insert(Message(absl::StrCat("n", i, ".example"), 100));
    ASSERT_LE(cache_.stats().bytes, options.max_bytes + 64 * 1024);
  }
  const size_t full = cache_.stats().entries;
  EXPECT_GT(full, 100u);
  EXPECT_EQ(cache_.stats().evicted + full, 5000u);
  options.max_bytes = 32 * 1024;
  Configure(options);
  EXPECT_LT(cache_.stats().entries, full * 6 / 10);
  options.max_bytes = 0;
  Configure(options);
  EXPECT_EQ(cache_.stats().entries, 0u);
  Insert(Message("a.example", 100));
  EXPECT_FALSE(Find("a.example"));
  EXPECT_EQ(cache_.stats().too_large, 1u);
}

// What the queues are for: a flood of names that are asked for once.
TEST_F(CacheTest, FloodsDoNotPushOutThePopular) {
  Cache::Options options;
  options.max_bytes = 128 * 1024;
  Configure(options);
  for (int i = 0; i < 50; ++i) {
    Insert(Message(absl::StrCat("hot", i, ".example"), 1000));
    Find(absl::StrCat("hot", i, ".example"));
  }
  for (int i = 0; i < 20000; ++i) {
    Insert(Message(absl::StrCat("r", i, ".flood.example"), 1000));
    // Asked for again every 2,000 names: an LRU of this size keeps some 400.
    if (i % 40 == 0) Find(absl::StrCat("hot", i / 40 % 50, ".example"));
  }
  int kept = 0;
  for (int i = 0; i < 50; ++i) {
    kept += Find(absl::StrCat("hot", i, ".example")).has_value();
  }
  EXPECT_EQ(kept, 50);
}

TEST_F(CacheTest, WhoReturnsSoonComesToStay) {
  Cache::Options options;
  options.max_bytes = 64 * 1024;
  Configure(options);
  int next = 0;
  const auto flood = [&](int count) {
    for (int i = 0; i < count; ++i) {
      Insert(Message(absl::StrCat("r", next++, ".flood.example"), 1000));
    }
  };
  Insert(Message("back.example", 1000));
  flood(400);
  ASSERT_FALSE(Find("back.example"));
  Insert(Message("back.example", 1000));  // its ghost is there
  flood(400);
  EXPECT_TRUE(Find("back.example"));
}

TEST_F(CacheTest, TagsAreTheCallers) {
  Insert(Message("a.example", 100), 1);
  cache_.SetTag(Key("a.example"), 2);
  cache_.SetTag(Key("b.example"), 3);
  EXPECT_EQ(Find("a.example")->tag, 2u);
}

}  // namespace
}  // namespace netstack::dns

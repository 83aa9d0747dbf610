// Names: a blocklist of a million, and what an answer from the cache costs.
//
// The names are made here: 1 to 3 labels of random words below the endings that
// blocklists have most of, 22 bytes on average, as the large public lists.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/dns/address_policy.h"
#include "core/dns/blocklist.h"
#include "core/dns/cache.h"
#include "core/dns/message.h"
#include "core/dns/policy.h"

namespace netstack::dns::bench {
namespace {

constexpr SipHashKey kKey{11, 12};
constexpr int kNames = 1'000'000;

class Names {
 public:
  explicit Names(uint32_t seed) : random_(seed) {}

  std::string Next() {
    static constexpr const char* kEndings[] = {
        "com", "com", "com", "com", "com", "com", "net", "net",   "org", "info",
        "xyz", "top", "ru",  "de",  "cn",  "io",  "br",  "co.uk", "pl",  "fr"};
    std::string name = Word(6, 16) + "." + kEndings[random_() % 20];
    if (random_() % 2 == 0) name = Word(2, 8) + "." + name;
    if (random_() % 8 == 0) name = Word(2, 12) + "." + name;
    return name;
  }

 private:
  std::string Word(size_t least, size_t most) {
    static constexpr char kChars[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    std::string word;
    const size_t length = least + random_() % (most - least + 1);
    while (word.size() < length) word += kChars[random_() % 26];
    if (random_() % 4 == 0) word[word.size() / 2] = kChars[26 + random_() % 11];
    return word;
  }

  std::mt19937 random_;
};

const std::string& ListText() {
  static const auto* const text = [] {
    auto* t = new std::string;
    Names names(1);
    for (int i = 0; i < kNames; ++i) *t += names.Next() + "\n";
    return t;
  }();
  return *text;
}

std::shared_ptr<const Blocklist> Load() {
  BlocklistBuilder builder(kKey, {});
  builder.Add("ads", ListText());
  return std::move(builder).Build();
}

const Blocklist& Loaded() {
  static const auto* const list = new std::shared_ptr<const Blocklist>(Load());
  return **list;
}

void BlocklistLoad(benchmark::State& state) {
  ListText();
  std::shared_ptr<const Blocklist> list;
  for (auto _ : state) list = Load();
  state.counters["names"] = static_cast<double>(list->size());
  state.counters["MiB"] = static_cast<double>(list->memory()) / (1 << 20);
  state.counters["text_bytes_per_name"] =
      static_cast<double>(ListText().size()) / kNames;
}
BENCHMARK(BlocklistLoad)
    ->Name("BlocklistLoad/names:1000000")
    ->Unit(benchmark::kMillisecond);

// `listed`: names of the list, or others below the same endings. 2^16 of them,
// so that no cache of the processor holds what they need.
void BlocklistFind(benchmark::State& state, bool listed) {
  const Blocklist& list = Loaded();
  std::vector<DnsName> names;
  Names from(listed ? 1 : 2);
  for (int i = 0; i < kNames; ++i) {
    const std::string name = from.Next();
    if (i % 15 == 0) names.push_back(*DnsName::FromText(name));
  }
  std::mt19937 random(3);
  std::shuffle(names.begin(), names.end(), random);
  size_t i = 0, found = 0;
  for (auto _ : state) {
    found += list.Find(names[i]).has_value();
    if (++i == names.size()) i = 0;
  }
  const double share =
      static_cast<double>(found) / static_cast<double>(state.iterations());
  if (listed ? share < 1 : share > 0.01) {
    state.SkipWithError("the wrong names were found");
  }
}
BENCHMARK_CAPTURE(BlocklistFind, Listed, true);
BENCHMARK_CAPTURE(BlocklistFind, NotListed, false);

void PutName(std::vector<std::byte>& to, const DnsName& name) {
  to.insert(to.end(), name.wire().begin(), name.wire().end());
}

// A query as stub resolvers send it, with EDNS.
std::vector<std::byte> QueryBytes(const DnsName& name) {
  std::vector<std::byte> buffer(512);
  QueryToUpstream query;
  query.id = 1;
  query.name = &name;
  const Bytes written = WriteQuery(query, buffer);
  return {written.begin(), written.end()};
}

// An answer of an alias and four addresses.
std::vector<std::byte> AnswerBytes(const DnsName& name) {
  std::vector<std::byte> m(kHeaderSize);
  Store16(&m[2], 0x8180);
  Store16(&m[4], 1);
  Store16(&m[6], 5);
  PutName(m, name);
  const auto put16 = [&](unsigned v) {
    m.push_back(static_cast<std::byte>(v >> 8 & 0xFF));
    m.push_back(static_cast<std::byte>(v & 0xFF));
  };
  put16(1);
  put16(1);
  const DnsName cdn = *DnsName::FromText("cdn.example.net");
  const auto head = [&](unsigned owner, unsigned type, size_t size) {
    put16(owner);
    put16(type);
    put16(1);
    put16(0);
    put16(3600);
    put16(static_cast<unsigned>(size));
  };
  head(0xC00C, 5, cdn.size());
  const size_t cdn_at = m.size();
  PutName(m, cdn);
  for (unsigned i = 0; i < 4; ++i) {
    head(0xC000u | static_cast<unsigned>(cdn_at), 1, 4);
    put16(0xC000);
    put16(0x0200 + i);
  }
  return m;
}

// Everything that an answer from the cache costs but the packets: parse, policy
// with a million names, cache, write.
void CachedAnswer(benchmark::State& state) {
  constexpr int kHot = 1000;
  Policy policy;
  policy.SetBlocklist(
      std::shared_ptr<const Blocklist>(&Loaded(), [](const Blocklist*) {}));
  Cache cache(Cache::Options(), kKey);
  Instant now{std::chrono::hours(1)};
  const IpAddress client = IpAddress::V4(10, 0, 0, 2);
  std::vector<std::vector<std::byte>> queries;
  Names names(4);
  for (int i = 0; i < kHot; ++i) {
    const DnsName name = *DnsName::FromText(names.Next());
    queries.push_back(QueryBytes(name));
    const std::vector<std::byte> answer = AnswerBytes(name);
    const auto view = ParseAnswer(answer);
    if (!view) return state.SkipWithError("the answer is not valid");
    CacheKey key;
    key.name = &name;
    key.type = type::kA;
    cache.Insert(key, StoredAnswer(*view, {}), 1, now);
  }
  now += std::chrono::seconds(10);
  std::vector<std::byte> out(kMaxMessageSize);
  size_t i = 0, missed = 0;
  for (auto _ : state) {
    const auto query = ParseQuery(queries[i]);
    if (++i == queries.size()) i = 0;
    const PolicyDecision decision = policy.Decide(*query, client);
    CacheKey key;
    key.name = &query->name;
    key.type = query->type;
    const auto hit = cache.Find(key, now);
    if (decision.action != PolicyAction::kPass || !hit) {
      ++missed;
      continue;
    }
    WriteOptions options;
    options.limit = UdpLimit(*query, kOurUdpSize);
    options.age = hit->age;
    benchmark::DoNotOptimize(
        WriteAnswer(*query, *hit->answer, options, out).data());
  }
  if (missed > 0) state.SkipWithError("not every name was answered");
  state.SetItemsProcessed(state.iterations());
  state.counters["bytes_per_entry"] =
      static_cast<double>(cache.stats().bytes) / kHot;
}
BENCHMARK(CachedAnswer)->Name("DnsCachedAnswer/hot:1000");

void Parse(benchmark::State& state, bool answer) {
  const DnsName name = *DnsName::FromText("www.example.com");
  const std::vector<std::byte> m =
      answer ? AnswerBytes(name) : QueryBytes(name);
  for (auto _ : state) {
    if (answer) {
      const auto view = ParseAnswer(m);
      benchmark::DoNotOptimize(view->record_count());
    } else {
      const auto query = ParseQuery(m);
      benchmark::DoNotOptimize(query->type);
    }
  }
}
BENCHMARK_CAPTURE(Parse, DnsQuery, false);
BENCHMARK_CAPTURE(Parse, DnsAnswer, true);

void Learn(benchmark::State& state) {
  AddressPolicy policy(AddressPolicy::Options(), kKey);
  const DnsName name = *DnsName::FromText("www.example.com");
  const std::vector<std::byte> m = AnswerBytes(name);
  const auto view = ParseAnswer(m);
  const Instant now{std::chrono::hours(1)};
  for (auto _ : state) {
    policy.Learn(IpAddress::V4(10, 0, 0, 2), name, view->Addresses(), now);
  }
}
BENCHMARK(Learn)->Name("DnsLearn/addresses:4");

}  // namespace
}  // namespace netstack::dns::bench

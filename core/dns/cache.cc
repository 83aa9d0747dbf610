#include "core/dns/cache.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/base/bytes.h"

namespace netstack::dns {
namespace {

// What an entry costs besides itself and its message: malloc's headers of two
// blocks, and its place in the set at a usual load.
constexpr size_t kOverhead = 2 * 16 + 12;

// Hits that count towards staying; more make no difference (the paper's 2
// bits).
constexpr uint8_t kMaxFrequency = 3;
constexpr size_t kGhostWays = 4;
constexpr size_t kGhostSets = 1024;
// Ghosts live while so many more have left: as many as the table holds.
constexpr uint32_t kGhostLife = kGhostWays * kGhostSets;

uint32_t Seconds(Duration d) {
  const auto s = std::chrono::duration_cast<std::chrono::seconds>(d).count();
  return static_cast<uint32_t>(std::clamp<int64_t>(s, 0, UINT32_MAX));
}

}  // namespace

struct Cache::Entry {
  StoredAnswer answer;  // its question's name is the key's
  size_t hash = 0;
  Instant stored{};
  Instant refresh_after{};  // `refresh` was told; not before this again
  uint16_t type = 0;
  uint16_t group = 0;
  bool dnssec_ok = false;
  bool checking_disabled = false;
  bool in_main = false;
  uint8_t frequency = 0;
  uint32_t hits = 0;  // since it was stored
  uint32_t tag = 0;
  Entry* newer = nullptr;  // neighbours in its queue
  Entry* older = nullptr;

  size_t bytes() const {
    return sizeof(*this) + answer.memory() - sizeof(answer) + kOverhead;
  }
  bool Is(const DnsName& name) const {
    const Bytes at = answer.message().subspan(kHeaderSize);
    return at.size() >= name.size() &&
           std::memcmp(at.data(), name.wire().data(), name.size()) == 0;
  }
  bool failed() const {
    return answer.rcode() != Rcode::kNoError &&
           answer.rcode() != Rcode::kNxDomain;
  }
  // Whether it may be served at that age, fresh or stale.
  bool Serves(uint32_t age, uint32_t stale_for) const {
    return age < answer.ttl() || (!failed() && age - answer.ttl() < stale_for);
  }
};

size_t Cache::Hash::operator()(const Entry* e) const { return e->hash; }

bool Cache::Equal::operator()(const Entry* e, const Lookup& l) const {
  return e->hash == l.hash && e->type == l.key->type &&
         e->group == l.key->group && e->dnssec_ok == l.key->dnssec_ok &&
         e->checking_disabled == l.key->checking_disabled &&
         e->Is(*l.key->name);
}

Cache::Cache(const Options& options, const SipHashKey& key)
    : options_(options), key_(key) {}

Cache::~Cache() { FlushAll(); }

void Cache::Configure(const Options& options) {
  options_ = options;
  MakeRoom();
}

size_t Cache::HashOf(const CacheKey& key) const {
  std::byte data[DnsName::kMaxSize + 5];
  Store16(data, key.type);
  Store16(data + 2, key.group);
  Store8(data + 4,
         static_cast<uint8_t>(key.dnssec_ok | (key.checking_disabled ? 2 : 0)));
  std::memcpy(data + 5, key.name->wire().data(), key.name->size());
  return SipHash24(key_, Bytes(data, key.name->size() + 5));
}

Cache::Entry* Cache::FindEntry(const CacheKey& key, size_t hash) const {
  const auto it = entries_.find(Lookup{&key, hash});
  return it == entries_.end() ? nullptr : *it;
}

std::optional<Cache::Hit> Cache::Find(const CacheKey& key, Instant now) {
  Entry* e = FindEntry(key, HashOf(key));
  if (e == nullptr) {
    ++stats_.misses;
    return std::nullopt;
  }
  const uint32_t age = Seconds(now - e->stored);
  if (!e->Serves(age, options_.stale_for)) {
    ++stats_.misses;
    ++stats_.expired;
    Remove(e);
    return std::nullopt;
  }
  Hit hit;
  hit.answer = &e->answer;
  hit.age = age;
  hit.tag = e->tag;
  hit.stale = age >= e->answer.ttl();
  if (hit.stale) hit.expired_ttl = options_.stale_ttl;
  ++stats_.hits;
  if (hit.stale) ++stats_.stale_hits;
  ++e->hits;
  if (e->frequency < kMaxFrequency) ++e->frequency;

  const uint64_t left = e->answer.ttl() - std::min(age, e->answer.ttl());
  const bool popular =
      e->hits >= options_.prefetch_hits && !e->failed() &&
      left * 100 < uint64_t{e->answer.ttl()} * options_.prefetch_percent;
  if ((hit.stale || popular) && now >= e->refresh_after) {
    hit.refresh = true;
    e->refresh_after = now + options_.refresh_pause;
    if (!hit.stale) ++stats_.prefetches;
  }
  return hit;
}

void Cache::Insert(const CacheKey& key, StoredAnswer answer, uint32_t tag,
                   Instant now) {
  const size_t hash = HashOf(key);
  Entry* old = FindEntry(key, hash);
  auto entry = std::make_unique<Entry>();
  entry->answer = std::move(answer);
  if (old != nullptr && entry->failed() && !old->failed() &&
      old->Serves(Seconds(now - old->stored), options_.stale_for)) {
    old->refresh_after = now + options_.refresh_pause;
    return;
  }
  // Who replaces an answer inherits its place, since it is as popular.
  const bool replaces = old != nullptr;
  bool to_main = replaces && old->in_main;
  const uint8_t frequency = replaces ? old->frequency : uint8_t{0};
  if (replaces) Remove(old);
  if (entry->answer.empty() || entry->answer.ttl() == 0) return;
  const size_t bytes = entry->bytes();
  if (bytes > options_.max_bytes / 8) {
    ++stats_.too_large;
    return;
  }
  if (!replaces) to_main = TakeGhost(hash);
  entry->hash = hash;
  entry->stored = now;
  entry->type = key.type;
  entry->group = key.group;
  entry->dnssec_ok = key.dnssec_ok;
  entry->checking_disabled = key.checking_disabled;
  entry->in_main = to_main;
  entry->frequency = frequency;
  entry->tag = tag;
  Entry* e = entry.release();  // owned by the set from here on
  entries_.insert(e);
  Push(to_main ? main_ : small_, e);
  ++stats_.inserted;
  MakeRoom();
}

void Cache::SetTag(const CacheKey& key, uint32_t tag) {
  if (Entry* e = FindEntry(key, HashOf(key))) e->tag = tag;
}

size_t Cache::Flush(const DnsName& name, bool below) {
  return Removing([&](const Entry& e) {
    if (e.Is(name)) return true;
    if (!below) return false;
    const std::optional<DnsName> own =
        DnsName::FromWire(e.answer.message().subspan(kHeaderSize));
    return own && own->IsWithin(name);
  });
}

size_t Cache::FlushAll() {
  return Removing([](const Entry&) { return true; });
}

size_t Cache::Removing(const std::function<bool(const Entry&)>& which) {
  size_t count = 0;
  for (Queue* queue : {&small_, &main_}) {
    for (Entry* e = queue->oldest; e != nullptr;) {
      Entry* next = e->newer;
      if (which(*e)) {
        Remove(e);
        ++count;
      }
      e = next;
    }
  }
  stats_.flushed += count;
  return count;
}

Cache::Stats Cache::stats() const {
  Stats s = stats_;
  s.entries = entries_.size();
  s.bytes = small_.bytes + main_.bytes + (ghosts_.capacity() * sizeof(Ghost));
  return s;
}

// --- Eviction ----------------------------------------------------------------

void Cache::Push(Queue& queue, Entry* entry) {
  entry->newer = nullptr;
  entry->older = queue.newest;
  (queue.newest != nullptr ? queue.newest->newer : queue.oldest) = entry;
  queue.newest = entry;
  queue.bytes += entry->bytes();
}

void Cache::Unlink(Entry* entry) {
  Queue& queue = entry->in_main ? main_ : small_;
  (entry->newer != nullptr ? entry->newer->older : queue.newest) = entry->older;
  (entry->older != nullptr ? entry->older->newer : queue.oldest) = entry->newer;
  queue.bytes -= entry->bytes();
}

void Cache::Remove(Entry* entry) {
  Unlink(entry);
  entries_.erase(entry);
  delete entry;
}

void Cache::MakeRoom() {
  while (small_.bytes + main_.bytes > options_.max_bytes) {
    const bool small_first =
        small_.oldest != nullptr &&
        (small_.bytes > options_.max_bytes / 10 || main_.oldest == nullptr);
    if (small_first) {
      EvictFromSmall();
    } else {
      EvictFromMain();
    }
  }
}

void Cache::EvictFromSmall() {
  Entry* e = small_.oldest;
  if (e->frequency > 0) {
    Unlink(e);
    e->in_main = true;
    e->frequency = 0;
    Push(main_, e);
    return;
  }
  AddGhost(e->hash);
  ++stats_.evicted;
  Remove(e);
}

void Cache::EvictFromMain() {
  Entry* e = main_.oldest;
  if (e->frequency > 0) {
    // Another round; at most kMaxFrequency of them, so that this ends.
    Unlink(e);
    --e->frequency;
    Push(main_, e);
    return;
  }
  ++stats_.evicted;
  Remove(e);
}

bool Cache::TakeGhost(size_t hash) {
  if (ghosts_.empty()) return false;
  Ghost* set = &ghosts_[hash % kGhostSets * kGhostWays];
  for (size_t i = 0; i < kGhostWays; ++i) {
    if (set[i].left != 0 && set[i].hash == static_cast<uint32_t>(hash >> 32) &&
        ghost_clock_ - set[i].left < kGhostLife) {
      set[i] = {};
      return true;
    }
  }
  return false;
}

void Cache::AddGhost(size_t hash) {
  if (ghosts_.empty()) ghosts_.resize(kGhostSets * kGhostWays);
  if (++ghost_clock_ == 0) ghost_clock_ = 1;  // 0 means none
  Ghost* set = &ghosts_[hash % kGhostSets * kGhostWays];
  Ghost* oldest = set;
  for (size_t i = 0; i < kGhostWays; ++i) {
    // Unsigned: empty ones are farther away than any other.
    if (set[i].left == 0) {
      oldest = &set[i];
      break;
    }
    if (ghost_clock_ - set[i].left > ghost_clock_ - oldest->left) {
      oldest = &set[i];
    }
  }
  *oldest = {static_cast<uint32_t>(hash >> 32), ghost_clock_};
}

}  // namespace netstack::dns

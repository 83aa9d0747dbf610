// Answers kept: a bounded number of bytes, each for as long as its TTL says.
//
//   if (auto hit = cache.Find(key, now)) {
//     WriteOptions o{.age = hit->age, .expired_ttl = hit->expired_ttl};
//     reply = WriteAnswer(query, *hit->answer, o, out);
//     if (hit->refresh) AskUpstream(...);   // told once
//   }
//   ...
//   cache.Insert(key, StoredAnswer(*view, options.ttl), tag, now);
//
// How this works
//
// S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction",
// SOSP 2023): new answers enter a small queue, a tenth of the bytes; those that
// are asked for again move on to the main queue when they come to its end, the
// others go, leaving 32 bits of their key in a ghost queue: who returns while
// its ghost is there enters the main queue at once. Why not LRU: names that are
// asked for once (random subdomains, trackers' nonces) are most of the names,
// and in an LRU each of them pushes out one that is asked for every minute.
// Here they only push out each other. A hit writes a counter, and moves
// nothing.
//
// Loop thread. Time is a parameter.
#ifndef CORE_DNS_CACHE_H_
#define CORE_DNS_CACHE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "core/base/siphash.h"
#include "core/base/time.h"
#include "core/dns/message.h"
#include "core/dns/name.h"

namespace netstack::dns {

// What tells answers apart: the question (class IN), what was asked of DNSSEC,
// and who is asked: with split DNS the same name has other answers elsewhere.
struct CacheKey {
  const DnsName* name = nullptr;  // of the caller
  uint16_t type = 0;
  uint16_t group = 0;  // of upstreams; the caller's numbering
  bool dnssec_ok = false;
  bool checking_disabled = false;
};

class Cache {
 public:
  struct Options {
    // Of everything that is kept, with what keeping costs. Zero: no cache.
    size_t max_bytes = size_t{4} << 20;
    TtlLimits ttl;
    // How long after its TTL an answer may be served, at most (RFC 8767: one
    // to three days); zero for never. The TTL that is told then.
    uint32_t stale_for = 86400;
    uint32_t stale_ttl = 30;
    // An answer is to be fetched again before it runs out when less than so
    // many percent of its TTL are left and it was asked for so often; zero
    // percent for never.
    uint32_t prefetch_percent = 10;
    uint32_t prefetch_hits = 4;
    // How long `refresh` is not told again for the same answer.
    Duration refresh_pause = std::chrono::seconds(10);

    friend bool operator==(const Options&, const Options&) = default;
  };

  struct Hit {
    const StoredAnswer* answer = nullptr;  // until the next call here
    uint32_t age = 0;                      // for WriteOptions
    uint32_t expired_ttl = 0;
    bool stale = false;
    // Somebody should ask upstream: stale, or due for prefetching. Told once,
    // to the first asker, and again only after Options::refresh_pause.
    bool refresh = false;
    uint32_t tag = 0;  // as given to Insert() or SetTag()
  };

  struct Stats {
    uint64_t hits = 0;  // of them stale: the next
    uint64_t stale_hits = 0;
    uint64_t misses = 0;
    uint64_t inserted = 0;
    uint64_t evicted = 0;  // by size
    uint64_t expired = 0;  // beyond any use
    uint64_t flushed = 0;
    uint64_t too_large = 0;   // over an eighth of the cache: not kept
    uint64_t prefetches = 0;  // refresh told of fresh answers
    size_t entries = 0;
    size_t bytes = 0;
  };

  // The key makes the hash: names come from strangers.
  Cache(const Options& options, const SipHashKey& key);
  ~Cache();
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  // A smaller size evicts at once. TTL limits count for later answers.
  void Configure(const Options& options);
  const Options& options() const { return options_; }

  std::optional<Hit> Find(const CacheKey& key, Instant now);

  // Keeps `answer`, which is to the question of `key`, in place of an older
  // one. Not when its ttl() is zero: then the older one goes. A failure
  // (SERVFAIL and the like) does not replace an answer that may still be
  // served stale: that one is told again after Options::refresh_pause.
  void Insert(const CacheKey& key, StoredAnswer answer, uint32_t tag,
              Instant now);

  // For the caller's mark of an answer, e.g. the policy that it passed last.
  // No effect when it is gone.
  void SetTag(const CacheKey& key, uint32_t tag);

  // Forgets the answers of `name`, and of all names below it if `below`. How
  // many there were.
  size_t Flush(const DnsName& name, bool below);
  size_t FlushAll();

  Stats stats() const;

 private:
  struct Entry;
  struct Lookup {
    const CacheKey* key;
    size_t hash;
  };
  // The set's elements are entries; lookups go by key.
  struct Hash {
    using is_transparent = void;
    size_t operator()(const Entry* e) const;
    size_t operator()(const Lookup& l) const { return l.hash; }
  };
  struct Equal {
    using is_transparent = void;
    bool operator()(const Entry* a, const Entry* b) const { return a == b; }
    bool operator()(const Entry* e, const Lookup& l) const;
    bool operator()(const Lookup& l, const Entry* e) const {
      return (*this)(e, l);
    }
  };
  // First in, first out; entries may leave from the middle.
  struct Queue {
    Entry* newest = nullptr;
    Entry* oldest = nullptr;
    size_t bytes = 0;
  };

  size_t HashOf(const CacheKey& key) const;
  Entry* FindEntry(const CacheKey& key, size_t hash) const;
  void Push(Queue& queue, Entry* entry);
  void Unlink(Entry* entry);
  void Remove(Entry* entry);
  size_t Removing(const std::function<bool(const Entry&)>& which);
  void MakeRoom();
  void EvictFromSmall();
  void EvictFromMain();
  bool TakeGhost(size_t hash);
  void AddGhost(size_t hash);

  Options options_;
  const SipHashKey key_;
  absl::flat_hash_set<Entry*, Hash, Equal> entries_;
  Queue small_;
  Queue main_;
  // The ghosts: a table of 32-bit pieces of hashes, each with its place in
  // the order of leaving, so that the old ones are known without a queue.
  struct Ghost {
    uint32_t hash = 0;
    uint32_t left = 0;  // 0: none
  };
  std::vector<Ghost> ghosts_;
  uint32_t ghost_clock_ = 0;
  Stats stats_;
};

}  // namespace netstack::dns

#endif  // CORE_DNS_CACHE_H_

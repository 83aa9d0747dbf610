// The apps' IP fragments become whole datagrams again (RFC 791, 3.2;
// RFC 8200, 4.5), before anybody looks at their transport.
//
// Pure data with time as a parameter; how it works is told in the .cc.
#ifndef CORE_FORWARD_REASSEMBLER_H_
#define CORE_FORWARD_REASSEMBLER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "core/base/bytes.h"
#include "core/base/malloc_bytes.h"
#include "core/base/siphash.h"
#include "core/base/time.h"
#include "core/flow/buffer_pool.h"
#include "core/flow/stats.h"
#include "core/wire/icmp_error.h"
#include "core/wire/packet.h"

namespace netstack {

class Reassembler {
 public:
  struct Options {
    // Memory of all fragments that wait, their records included. Whatever the
    // budget of limits.memory_budget says, kFloor of it is granted.
    uint64_t max_bytes = 4 * 1024 * 1024;
    uint32_t max_datagrams = 1024;  // that fragments may wait for
    uint32_t max_fragments = 128;   // of one datagram
    Duration timeout_v4 = std::chrono::seconds(30);
    Duration timeout_v6 = std::chrono::seconds(60);  // RFC 8200, 4.5
  };
  // Two of the largest datagrams.
  static constexpr uint64_t kFloor = 2 * 65536;

  // `pool` and `drops` outlive the reassembler. `key`: fresh random bits.
  Reassembler(BufferPool* pool, DropCounters* drops, const Options& options,
              const SipHashKey& key);
  ~Reassembler();
  Reassembler(const Reassembler&) = delete;
  Reassembler& operator=(const Reassembler&) = delete;

  void Configure(const Options& options) { options_ = options; }

  // While memory is short no datagram is begun, and those that are there take
  // only what they have places for (DropReason::kNoMemory).
  void set_memory_short(bool is) { memory_short_ = is; }

  struct Result {
    // The whole packet when this fragment was the last one missing, valid
    // until the next call; else empty. Its transport is unchecked, and it may
    // begin with whatever a fragment may carry: to be parsed like a packet.
    MutableBytes whole;
    // What the sender of a malformed fragment is to be told (RFC 8200, 4.5).
    std::optional<IcmpKind> complaint;
  };
  // `fragment` is one. What is not kept is counted, and so is what was kept
  // before and is given up now.
  Result Add(const Packet& fragment, Instant now);

  // Gives up what is due. Calls tell(const Packet&) with the first fragment of
  // every such datagram that has one: its sender is to be told that time was
  // exceeded in reassembly. `tell` must not call back.
  template <typename Tell>
  void Expire(Instant now, Tell&& tell) {
    for (List& list : lists_) {
      while (!list.empty() && Deadline(list.front()) <= now) {
        const Bytes first = FirstFragment(list.front());
        if (!first.empty()) tell(*ParsePacket(first));
        GiveUp(list.begin(), DropReason::kFragmentTimeout);
      }
    }
  }
  // When Expire() is next needed; kNever when nothing waits.
  Instant next_deadline() const;

  // Gives back what only traffic needs.
  void Trim();

  FragmentStats stats() const;

 private:
  // What fragments of one datagram share.
  struct Key {
    IpAddress source;
    IpAddress destination;
    uint32_t id = 0;
    uint8_t protocol = 0;  // 0 in IPv6, where the id alone tells
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct Hash {
    SipHashKey secret;
    size_t operator()(const Key& key) const;
  };
  struct Piece {
    uint32_t offset = 0;
    uint32_t size = 0;
    Chunk* chunk = nullptr;  // owned
    uint32_t data_at = 0;    // where in the chunk; behind the first one's head
    uint32_t end() const { return offset + size; }
    const std::byte* data() const { return chunk->data() + data_at; }
  };
  struct Assembly {
    Key key;
    Instant created{};
    std::vector<Piece> pieces;  // by offset, without overlaps
    uint32_t end = 0;           // bytes of the whole payload; 0: not known
    uint32_t have = 0;          // bytes in `pieces`
    uint64_t cost = 0;          // its share of bytes_
    uint8_t ecn = 0;            // a bit for each codepoint seen
    // Given up for it; what else comes is dropped until its time ends.
    std::optional<DropReason> refused;
  };
  // Oldest first, so that the front is due first.
  using List = std::list<Assembly>;

  List& ListOf(bool v4) { return lists_[v4 ? 0 : 1]; }
  Instant Deadline(const Assembly& a) const;
  Assembly* FindOrMake(const Packet& fragment, Instant now);
  bool MakeRoom(uint64_t cost, const Assembly* keep);
  bool Place(Assembly& a, const Packet& fragment);
  std::optional<DropReason> Check(Assembly& a, const Packet& fragment,
                                  size_t at) const;
  MutableBytes Join(Assembly& a);
  Bytes FirstFragment(const Assembly& a) const;
  void FreePieces(Assembly& a);
  void Refuse(Assembly& a, DropReason reason);
  void GiveUp(List::iterator a, DropReason reason);
  void Erase(List::iterator a);

  BufferPool* const pool_;
  DropCounters* const drops_;
  Options options_;
  std::array<List, 2> lists_;  // IPv4, IPv6
  absl::flat_hash_map<Key, List::iterator, Hash> table_;
  uint64_t bytes_ = 0;
  FragmentStats stats_;
  bool memory_short_ = false;
  MallocBytes whole_;  // null until the first fragment comes
};

}  // namespace netstack

#endif  // CORE_FORWARD_REASSEMBLER_H_

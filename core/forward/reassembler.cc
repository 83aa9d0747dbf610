// How this works
//
// Fragments of one datagram (same addresses and id, in IPv4 the same protocol
// too) gather in an Assembly, each in a chunk of the buffer pool; the first
// one keeps its whole packet, since its headers become the datagram's and an
// ICMP error has to quote it. When every byte up to the end is there, the
// pieces are joined in one buffer and the Assembly goes.
//
// What is refused, and why:
//   - Any overlap that is not the same fragment again gives up the datagram,
//     and whatever comes of it later (RFC 5722; IPv4 the same, since RFC 1858
//     and RFC 3128 show what overlaps are for). The Assembly stays, empty,
//     until its time ends: else what comes later would begin it anew.
//   - So do two ends that differ, and bytes behind the end.
//   - A first fragment without its transport's whole header.
//   - Lengths that no fragment may have, and what would be more than 64 KiB.
//   - Different ECN marks that do not go together (RFC 3168, 5.3).
// Limits: bytes, datagrams, fragments of one datagram, time. For room the
// oldest datagram goes: whoever floods us with pieces loses his own first, and
// a datagram that becomes whole within its turn is never hit.

#include "core/forward/reassembler.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/wire/checksum.h"
#include "core/wire/headers.h"

namespace netstack {
namespace {

constexpr size_t kMaxPacket = 65535;
// What the books take per datagram and per fragment beside the bytes.
constexpr uint64_t kAssemblyCost = 256;
constexpr uint64_t kPieceCost = 64;

// ECN's codepoints as bits of Assembly::ecn.
constexpr uint8_t kNotEct = 1 << 0;
constexpr uint8_t kCe = 1 << 3;

// Header bytes of the whole packet.
size_t HeadSize(const Packet& fragment) {
  return fragment.is_v4
             ? fragment.bytes.size() - fragment.transport.size()
             : fragment.protocol_at;  // without the fragment header
}

// The header bytes that a packet's length field does not count.
size_t FixedSize(bool v4) { return v4 ? 0 : kIpV6HeaderSize; }

// RFC 8200, 4.5: a parameter problem that points at the field.
std::optional<IcmpKind> ParameterProblem(const Packet& fragment,
                                         uint32_t pointer) {
  if (fragment.is_v4) return std::nullopt;
  return IcmpKind{4, 0, pointer};
}

}  // namespace

size_t Reassembler::Hash::operator()(const Key& key) const {
  std::array<std::byte, 37> b;
  std::memcpy(b.data(), key.source.v6(), 16);
  std::memcpy(b.data() + 16, key.destination.v6(), 16);
  Store32(b.data() + 32, key.id);
  b[36] = static_cast<std::byte>(key.protocol);
  return SipHash24(secret, b);
}

Reassembler::Reassembler(BufferPool* pool, DropCounters* drops,
                         const Options& options, const SipHashKey& key)
    : pool_(pool),
      drops_(drops),
      options_(options),
      table_(0, Hash{key}) {}

Reassembler::~Reassembler() {
  for (List& list : lists_) {
    for (Assembly& a : list) FreePieces(a);
  }
}

Reassembler::Result Reassembler::Add(const Packet& fragment, Instant now) {
  const size_t size = fragment.transport.size();
  const size_t end = fragment.fragment_offset + size;
  Result result;
  const auto drop = [&](DropReason reason) {
    drops_->Count(reason);
    return result;
  };
  if (size == 0) return drop(DropReason::kBadFragment);
  if (fragment.more_fragments && size % 8 != 0) {
    result.complaint = ParameterProblem(fragment, 4);  // payload length
    return drop(DropReason::kBadFragment);
  }
  if (HeadSize(fragment) - FixedSize(fragment.is_v4) + end > kMaxPacket) {
    result.complaint =
        ParameterProblem(fragment, fragment.protocol_at + 2u);  // offset
    return drop(DropReason::kBadFragment);
  }
  if (fragment.fragment_offset == 0 && !HoldsTransportHeader(fragment)) {
    // RFC 7112, 5: parameter problem, code 3.
    if (!fragment.is_v4) result.complaint = IcmpKind{4, 3, 0};
    return drop(DropReason::kFragmentTiny);
  }
  Assembly* a = FindOrMake(fragment, now);
  if (a == nullptr) return drop(DropReason::kNoMemory);
  if (a->refused) return drop(*a->refused);
  if (!Place(*a, fragment) || a->end == 0 || a->have != a->end) return result;
  result.whole = Join(*a);
  return result;
}

Instant Reassembler::Deadline(const Assembly& a) const {
  return a.created +
         (a.key.source.IsV4() ? options_.timeout_v4 : options_.timeout_v6);
}

Instant Reassembler::next_deadline() const {
  Instant next = kNever;
  for (const List& list : lists_) {
    if (!list.empty()) next = std::min(next, Deadline(list.front()));
  }
  return next;
}

void Reassembler::Trim() {
  if (!table_.empty()) return;
  table_.rehash(0);
  whole_.reset();
}

FragmentStats Reassembler::stats() const {
  FragmentStats s = stats_;
  s.datagrams = table_.size();
  s.bytes = bytes_;
  return s;
}

Reassembler::Assembly* Reassembler::FindOrMake(const Packet& fragment,
                                               Instant now) {
  Key key{fragment.source, fragment.destination, fragment.fragment_id,
          fragment.is_v4 ? fragment.protocol : uint8_t{0}};
  const auto found = table_.find(key);
  if (found != table_.end()) return &*found->second;
  while (table_.size() >= options_.max_datagrams) {
    if (!MakeRoom(UINT64_MAX, nullptr)) break;
  }
  if (memory_short_ || !MakeRoom(kAssemblyCost, nullptr)) return nullptr;
  if (whole_ == nullptr) {
    whole_ = AllocateBytes(kMaxPacket + kIpV6HeaderSize);
    if (whole_ == nullptr) return nullptr;
  }
  List& list = ListOf(fragment.is_v4);
  const auto a = list.emplace(list.end());
  a->key = key;
  a->created = now;
  a->cost = kAssemblyCost;
  bytes_ += a->cost;
  table_.emplace(key, a);
  return &*a;
}

// Lets the oldest datagrams go, but `keep`, until `cost` more bytes fit;
// UINT64_MAX: lets one go. False when that cannot be had.
bool Reassembler::MakeRoom(uint64_t cost, const Assembly* keep) {
  const auto fits = [&] {
    if (cost == UINT64_MAX) return false;
    if (bytes_ + cost > options_.max_bytes) return false;
    return bytes_ + cost <= kFloor || pool_->HasRoom(cost);
  };
  bool freed = false;
  while (!fits() && !(freed && cost == UINT64_MAX)) {
    std::optional<List::iterator> oldest;
    for (List& list : lists_) {
      auto a = list.begin();
      if (a != list.end() && &*a == keep) ++a;
      if (a == list.end()) continue;
      if (!oldest || a->created < (*oldest)->created) oldest = a;
    }
    if (!oldest) return false;
    ++stats_.evicted;
    GiveUp(*oldest, DropReason::kFragmentLimit);
    freed = true;
  }
  return true;
}

// Why the fragment does not go to `pieces[at]`, if it does not.
std::optional<DropReason> Reassembler::Check(Assembly& a,
                                             const Packet& fragment,
                                             size_t at) const {
  const uint32_t begin = fragment.fragment_offset;
  const auto size = static_cast<uint32_t>(fragment.transport.size());
  const uint32_t end = begin + size;
  if (at > 0 && a.pieces[at - 1].offset == begin &&
      a.pieces[at - 1].size == size &&
      std::memcmp(a.pieces[at - 1].data(), fragment.transport.data(), size) ==
          0) {
    return DropReason::kFragmentDuplicate;
  }
  if ((at > 0 && a.pieces[at - 1].end() > begin) ||
      (at < a.pieces.size() && end > a.pieces[at].offset)) {
    return DropReason::kFragmentOverlap;
  }
  if (fragment.more_fragments) {
    if (a.end != 0 && end >= a.end) return DropReason::kBadFragment;
  } else if (a.end != 0 || at != a.pieces.size()) {
    return DropReason::kBadFragment;  // another end, or bytes behind it
  }
  if (a.pieces.size() >= options_.max_fragments) {
    return DropReason::kFragmentLimit;
  }
  return std::nullopt;
}

// False when it was dropped.
bool Reassembler::Place(Assembly& a, const Packet& fragment) {
  size_t at = a.pieces.size();
  while (at > 0 && a.pieces[at - 1].offset > fragment.fragment_offset) --at;
  if (const auto reason = Check(a, fragment, at)) {
    drops_->Count(*reason);
    if (*reason != DropReason::kFragmentDuplicate) {
      if (*reason == DropReason::kFragmentOverlap) ++stats_.overlapped;
      Refuse(a, *reason);
    }
    return false;
  }
  const bool first = fragment.fragment_offset == 0;
  const Bytes bytes = first ? fragment.bytes : fragment.transport;
  const uint64_t cost = bytes.size() + kPieceCost;
  Chunk* chunk = nullptr;
  const bool grows = a.pieces.size() == a.pieces.capacity();
  if (!(memory_short_ && grows) && MakeRoom(cost, &a)) {
    chunk = pool_->Allocate(static_cast<uint32_t>(bytes.size()));
  }
  if (chunk == nullptr) {
    drops_->Count(DropReason::kNoMemory);
    return false;
  }
  std::memcpy(chunk->data(), bytes.data(), bytes.size());
  chunk->size = static_cast<uint32_t>(bytes.size());
  const auto size = static_cast<uint32_t>(fragment.transport.size());
  a.pieces.insert(a.pieces.begin() + static_cast<std::ptrdiff_t>(at),
                  {fragment.fragment_offset, size, chunk,
                   static_cast<uint32_t>(bytes.size()) - size});
  a.have += size;
  a.cost += cost;
  bytes_ += cost;
  a.ecn |= static_cast<uint8_t>(1u << (fragment.tos & 3));
  if (!fragment.more_fragments) a.end = fragment.fragment_offset + size;
  ++stats_.held;
  return true;
}

// The whole packet, in whole_; empty when its ECN marks do not go together.
// The Assembly is gone.
MutableBytes Reassembler::Join(Assembly& a) {
  const List::iterator self = table_.find(a.key)->second;
  if ((a.ecn & kNotEct) != 0 && a.ecn != kNotEct) {
    GiveUp(self, DropReason::kBadFragment);
    return {};
  }
  const Packet first = *ParsePacket(FirstFragment(a));
  const size_t head = HeadSize(first);
  // Each fragment was short enough with headers of its own; but the whole gets
  // the first one's, which may have more of them.
  if (head - FixedSize(first.is_v4) + a.end > kMaxPacket) {
    GiveUp(self, DropReason::kBadFragment);
    return {};
  }
  std::byte* out = whole_.get();
  std::memcpy(out, first.bytes.data(), head);
  for (const Piece& piece : a.pieces) {
    std::memcpy(out + head + piece.offset, piece.data(), piece.size);
  }
  const size_t size = head + a.end;
  if (first.is_v4) {
    Store16(out + 2, static_cast<uint16_t>(size));
    Store16(out + 6, 0);  // a fragment no more, and it may be one again
    if ((a.ecn & kCe) != 0) Store8(out + 1, Load8(out + 1) | 3);
    Store16(out + 10, 0);
    Store16(out + 10, Checksum({out, head}));
  } else {
    Store16(out + 4, static_cast<uint16_t>(size - kIpV6HeaderSize));
    // The fragment header is left out: what named it names what it named.
    Store8(out + first.fragment_named_at,
           Load8(&first.bytes[first.protocol_at]));
    if ((a.ecn & kCe) != 0) Store8(out + 1, Load8(out + 1) | 0x30);
  }
  ++stats_.reassembled;
  stats_.used += a.pieces.size();
  stats_.held -= a.pieces.size();
  FreePieces(a);
  Erase(self);
  return {out, size};
}

// The packet of the first fragment as it came; empty when it did not.
Bytes Reassembler::FirstFragment(const Assembly& a) const {
  if (a.pieces.empty() || a.pieces[0].offset != 0) return {};
  return a.pieces[0].chunk->used();
}

void Reassembler::FreePieces(Assembly& a) {
  for (const Piece& piece : a.pieces) pool_->Free(piece.chunk);
  a.pieces.clear();
  bytes_ -= a.cost - kAssemblyCost;
  a.cost = kAssemblyCost;
}

// Gives up the datagram, whose place remains.
void Reassembler::Refuse(Assembly& a, DropReason reason) {
  drops_->Count(reason, a.pieces.size());
  stats_.held -= a.pieces.size();
  FreePieces(a);
  a.pieces.shrink_to_fit();
  a.refused = reason;
}

void Reassembler::GiveUp(List::iterator a, DropReason reason) {
  if (reason == DropReason::kFragmentTimeout && !a->refused) {
    ++stats_.timed_out;
  }
  Refuse(*a, reason);
  Erase(a);
}

void Reassembler::Erase(List::iterator a) {
  bytes_ -= a->cost;
  table_.erase(a->key);
  ListOf(a->key.source.IsV4()).erase(a);
}

}  // namespace netstack

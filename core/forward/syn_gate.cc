#include "core/forward/syn_gate.h"

#include <array>
#include <cstring>

namespace netstack {
namespace {

constexpr Duration kSlot = std::chrono::milliseconds(100);
constexpr Duration kSeenUnit = std::chrono::milliseconds(16);
constexpr uint32_t kSeenTimeMask = 0xFFF;
// A repetition sooner than any stack's timer proves nothing (100 ms), and
// one later than this (16 s) is hardly of the same attempt.
constexpr uint32_t kSoonest = 6;
constexpr uint32_t kLatest = 1000;
// An echo comes at once; the same SYN later is an honest new try.
constexpr Duration kEcho = std::chrono::milliseconds(200);
// What pressure needs is kept this long after it ended.
constexpr Duration kRelaxAfter = std::chrono::seconds(30);

}  // namespace

size_t SynGate::EndpointHash::operator()(const Endpoint& e) const {
  std::array<std::byte, 18> b;
  std::memcpy(b.data(), e.ip.v6(), 16);
  Store16(b.data() + 16, e.port);
  return SipHash24(*key, b);
}

std::optional<DropReason> SynGate::Refuses(const FlowKey& key, uint32_t isn,
                                           Instant now) {
  if (JustAnswered(key, isn, now)) return DropReason::kTcpDuplicateSyn;
  const int64_t second = now.time_since_epoch() / std::chrono::seconds(1);
  if (!refusers_.empty()) {
    const auto it = refusers_.find(key.remote);
    if (it != refusers_.end() && it->second.second == second &&
        it->second.count >= kBelievedRefusals) {
      return DropReason::kRecentlyRefused;
    }
  }
  if (under_pressure(now)) {
    last_pressure_ = now;
    if (!SeenBefore(key, isn, now)) return DropReason::kSynUnproven;
  }
  if (half_open_ >= options_.max_half_open) return DropReason::kHalfOpenLimit;
  const auto it = per_destination_.find(key.remote);
  if (it != per_destination_.end() &&
      it->second >= options_.max_per_destination) {
    return DropReason::kHalfOpenLimit;
  }
  return std::nullopt;
}

bool SynGate::under_pressure(Instant now) {
  if (half_open_ >= (options_.max_half_open + 3) / 4) return true;
  const int64_t slot = now.time_since_epoch() / kSlot;
  if (slot != slot_) {
    last_slot_failures_ = slot == slot_ + 1 ? slot_failures_ : 0;
    slot_failures_ = 0;
    slot_ = slot;
  }
  return slot_failures_ >= kFailuresPerSlot ||
         last_slot_failures_ >= kFailuresPerSlot;
}

uint64_t SynGate::HashOf(const FlowKey& key, uint32_t isn) const {
  std::array<std::byte, 40> b;
  std::memcpy(b.data(), key.app.ip.v6(), 16);
  std::memcpy(b.data() + 16, key.remote.ip.v6(), 16);
  Store16(b.data() + 32, key.app.port);
  Store16(b.data() + 34, key.remote.port);
  Store32(b.data() + 36, isn);
  return SipHash24(key_, b);
}

void SynGate::Answered(const FlowKey& key, uint32_t isn, Instant now) {
  const uint64_t hash = HashOf(key, isn);
  answers_[hash % kAnswers] = {hash, now};
  last_answer_ = now;
}

bool SynGate::JustAnswered(const FlowKey& key, uint32_t isn,
                           Instant now) const {
  if (now - last_answer_ > kEcho) return false;  // nearly always
  const uint64_t hash = HashOf(key, isn);
  const Answer& answer = answers_[hash % kAnswers];
  return answer.hash == hash && now - answer.at <= kEcho;
}

bool SynGate::SeenBefore(const FlowKey& key, uint32_t isn, Instant now) {
  if (seen_.empty()) seen_.resize(kSets * kWays);
  const uint64_t hash = HashOf(key, isn);
  const auto tag = static_cast<uint32_t>(hash >> 44) | 1;  // never an empty one
  const auto time = static_cast<uint32_t>(now.time_since_epoch() / kSeenUnit) &
                    kSeenTimeMask;
  uint32_t* const set = &seen_[(hash % kSets) * kWays];
  size_t oldest = 0;
  uint32_t oldest_age = 0;
  for (size_t i = 0; i < kWays; ++i) {
    const uint32_t age = (time - set[i]) & kSeenTimeMask;
    if (set[i] != 0 && set[i] >> 12 == tag && age <= kLatest) {
      return age >= kSoonest;
    }
    const uint32_t rank = set[i] == 0 ? kSeenTimeMask + 1 : age;
    if (rank >= oldest_age) {
      oldest = i;
      oldest_age = rank;
    }
  }
  set[oldest] = tag << 12 | time;
  return false;
}

void SynGate::Opened(const Endpoint& destination) {
  ++half_open_;
  ++per_destination_[destination];
}

void SynGate::Settled(const Endpoint& destination) {
  --half_open_;
  const auto it = per_destination_.find(destination);
  if (--it->second == 0) per_destination_.erase(it);
}

void SynGate::DialFailed(const Endpoint& destination, bool refused,
                         Instant now) {
  (void)under_pressure(now);  // moves the slot on
  ++slot_failures_;
  if (!refused) return;
  if (refusers_.size() >= kMaxRefusers) refusers_.clear();
  Refusals& r = refusers_[destination];
  const int64_t second = now.time_since_epoch() / std::chrono::seconds(1);
  if (r.second != second) r = {second, 0};
  ++r.count;
}

void SynGate::Relax(Instant now) {
  if (now - last_pressure_ < kRelaxAfter) return;
  if (!seen_.empty()) std::vector<uint32_t>().swap(seen_);
  if (half_open_ == 0 && refusers_.size() > 64) refusers_.clear();
}

}  // namespace netstack

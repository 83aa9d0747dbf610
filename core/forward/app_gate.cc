#include "core/forward/app_gate.h"

#include <algorithm>
#include <utility>

namespace netstack {

void AppGate::Configure(const Options& options, SocketOwners* system,
                        Search search) {
  options_ = options;
  system_ = system;
  search_ = std::move(search);
}

AppDecision AppGate::OnOpen(uint64_t flow_id, const FlowKey& key,
                            PollToken token, Instant now) {
  if (!options_.enabled) return AppDecision::kAllow;
  if (key.protocol == Protocol::kIcmp || key.protocol == Protocol::kIcmpV6) {
    // No system tells whose an echo is, and no app can.
    return *Blocks({}, true) ? AppDecision::kBlock : AppDecision::kAllow;
  }
  std::optional<SocketOwner> known;
  FlowOwner owner;
  if (system_ != nullptr) {
    known = system_->Find(key);
    if (known) {
      owner.uid = known->uid;
      Remember(flow_id, owner);
    }
  }
  const std::optional<bool> blocks = Blocks(owner, false);
  // Of a flow that is refused nothing more need be known.
  if (blocks && *blocks) return AppDecision::kBlock;
  if (!blocks) {
    waiting_[flow_id] = {token, now + options_.timeout};
    deadlines_.emplace_back(now + options_.timeout, flow_id);
  }
  search_(flow_id, key, known);
  return blocks ? AppDecision::kAllow : AppDecision::kWait;
}

std::optional<bool> AppGate::Blocks(const FlowOwner& owner,
                                    bool complete) const {
  if (options_.rules.empty()) return false;
  for (const AppRule& rule : options_.rules) {
    if (rule.uid) {
      if (!owner.uid && !complete) return {};
      if (owner.uid != rule.uid) continue;
    }
    if (!rule.package.empty()) {
      const bool named = !owner.package.empty() || !owner.process.empty();
      if (!named && !complete) return {};
      if (rule.package != owner.package && rule.package != owner.process) {
        continue;
      }
    }
    return rule.block;
  }
  if (!owner.known()) {
    if (!complete && options_.block_unknown) return {};
    return options_.block_unknown;
  }
  return false;
}

void AppGate::Answer(uint64_t flow_id, const FlowOwner& owner) {
  FlowOwner all = owner;
  if (const FlowOwner* before = OwnerOf(flow_id)) {
    if (!all.uid) all.uid = before->uid;
  }
  if (all.known()) Remember(flow_id, all);
  const auto it = waiting_.find(flow_id);
  if (it == waiting_.end()) return;
  decided_.push_back({it->second.token, flow_id, *Blocks(all, true)});
  waiting_.erase(it);
}

std::optional<AppGate::Decided> AppGate::Take(Instant now) {
  while (!deadlines_.empty()) {
    const auto [until, flow_id] = deadlines_.front();
    if (waiting_.contains(flow_id)) {
      if (until > now) break;
      Answer(flow_id, {});
    }
    deadlines_.pop_front();
  }
  if (decided_.empty()) return {};
  const Decided next = decided_.front();
  decided_.pop_front();
  return next;
}

Instant AppGate::next_deadline(Instant now) const {
  if (!decided_.empty()) return now;
  return deadlines_.empty() ? kNever : deadlines_.front().first;
}

const FlowOwner* AppGate::OwnerOf(uint64_t flow_id) const {
  const auto it = owners_.find(flow_id);
  return it == owners_.end() ? nullptr : &names_[it->second];
}

absl::flat_hash_set<uint64_t> AppGate::Matching(
    std::optional<uint32_t> uid, const std::string& package) const {
  std::vector<bool> matches;
  for (const FlowOwner& o : names_) {
    matches.push_back((!uid || o.uid == uid) &&
                      (package.empty() || package == o.package ||
                       package == o.process));
  }
  absl::flat_hash_set<uint64_t> ids;
  for (const auto& [id, name] : owners_) {
    if (matches[name]) ids.insert(id);
  }
  return ids;
}

void AppGate::Remember(uint64_t flow_id, const FlowOwner& owner) {
  // Few apps, many flows; the newest are the likeliest.
  const auto same = std::find(names_.rbegin(), names_.rend(), owner);
  const auto index =
      same == names_.rend()
          ? names_.size()
          : static_cast<size_t>(names_.rend() - same) - 1;
  if (same == names_.rend()) names_.push_back(owner);
  owners_[flow_id] = static_cast<uint32_t>(index);
}

void AppGate::Sweep(const absl::flat_hash_set<uint64_t>& live) {
  std::vector<FlowOwner> before;
  before.swap(names_);
  absl::flat_hash_map<uint64_t, uint32_t> old;
  old.swap(owners_);
  for (const auto& [id, name] : old) {
    if (live.contains(id)) Remember(id, before[name]);
  }
}

}  // namespace netstack

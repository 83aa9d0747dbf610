// Whose each flow is, and whether it may go (apps.rules).
//
// How this works. A new flow asks OnOpen(). Where no rule could block it, it
// goes at once, and its owner is only found out to be shown. Where one could,
// it is decided as soon as enough is known: at once when the system tells the
// uid and a rule names that, else when the app or the process table has
// answered, at most after `timeout`, as unknown. A flow that waits is named by
// its forwarder's token; Take() gives those whose turn has come.
//
// Owners are kept by flow id, interned, and only while owners.source is on:
// a flow's record pays nothing for them. Those of flows that ended are swept
// when they have become many (Loop::SweepOwners).
#ifndef CORE_FORWARD_APP_GATE_H_
#define CORE_FORWARD_APP_GATE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "core/base/time.h"
#include "core/flow/flow_info.h"
#include "core/flow/flow_key.h"
#include "core/flow/flow_owner.h"
#include "core/forward/forward_listener.h"
#include "core/platform/poller.h"
#include "core/platform/socket_owners.h"

namespace netstack {

class AppGate {
 public:
  struct Options {
    bool enabled = false;  // owners are found out at all
    std::vector<AppRule> rules;
    bool block_unknown = false;
    Duration timeout = std::chrono::seconds(1);
  };
  // A flow that waited.
  struct Decided {
    PollToken token;
    uint64_t flow_id = 0;
    bool block = false;
  };
  // Starts a search whose answer is Answer(), later. `known`: what the system
  // has told already.
  using Search = std::function<void(uint64_t flow_id, const FlowKey& key,
                                    const std::optional<SocketOwner>& known)>;

  // `system` may be null; else asked on the spot. All outlive the gate.
  void Configure(const Options& options, SocketOwners* system, Search search);

  AppDecision OnOpen(uint64_t flow_id, const FlowKey& key, PollToken token,
                     Instant now);
  // What became of a search; an unknown owner is an answer, too.
  void Answer(uint64_t flow_id, const FlowOwner& owner);
  // The next flow that need not wait any longer.
  std::optional<Decided> Take(Instant now);
  Instant next_deadline(Instant now) const;

  // Null while unknown.
  const FlowOwner* OwnerOf(uint64_t flow_id) const;
  // Ids of the flows that these match; both as in FlowFilter.
  absl::flat_hash_set<uint64_t> Matching(std::optional<uint32_t> uid,
                                         const std::string& package) const;
  size_t size() const { return owners_.size(); }
  // Forgets every flow but those of `live`.
  void Sweep(const absl::flat_hash_set<uint64_t>& live);

 private:
  struct Waiting {
    PollToken token;
    Instant until{};
  };
  // Nothing: it depends on what is not known yet.
  std::optional<bool> Blocks(const FlowOwner& owner, bool complete) const;
  void Remember(uint64_t flow_id, const FlowOwner& owner);

  Options options_;
  SocketOwners* system_ = nullptr;
  Search search_;
  std::vector<FlowOwner> names_;  // interned; freed by Sweep
  absl::flat_hash_map<uint64_t, uint32_t> owners_;  // index of names_
  absl::flat_hash_map<uint64_t, Waiting> waiting_;
  std::deque<std::pair<Instant, uint64_t>> deadlines_;  // may be stale
  std::deque<Decided> decided_;
};

}  // namespace netstack

#endif  // CORE_FORWARD_APP_GATE_H_

// Which SYNs are worth a dial: the half-open limits, and what tells a flood
// from people.
//
// How this works
//
// A flow is half-open from its SYN until the app completed the handshake.
// Their number is capped, in all and per destination (address and port), so
// that one black-holed address cannot use up what the others need.
//
// Pressure: a quarter of the cap is in use, or dials fail by the thousand per
// second. Then a SYN is dialed only when it has come before: real stacks send
// it again after one second (RFC 6298), a flood does not. Remembering costs
// four bytes per SYN in a fixed table that exists only under pressure. So
// under a flood of any rate new connections take one second longer, and
// nothing else.
//
// A destination that has refused very often within a second is believed
// without asking again for the rest of that second.
#ifndef CORE_FORWARD_SYN_GATE_H_
#define CORE_FORWARD_SYN_GATE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "core/base/drop_reason.h"
#include "core/base/siphash.h"
#include "core/base/time.h"
#include "core/flow/flow_key.h"

namespace netstack {

class SynGate {
 public:
  struct Options {
    uint32_t max_half_open = 4096;
    uint32_t max_per_destination = 512;
  };
  // Refusals by one destination within a second before it is believed.
  static constexpr uint32_t kBelievedRefusals = 256;
  // Failed dials within 100 ms that mean pressure.
  static constexpr uint32_t kFailuresPerSlot = 500;

  SynGate(const Options& options, const SipHashKey& key)
      : options_(options), key_(key) {}

  void Configure(const Options& options) { options_ = options; }

  // Whether this SYN is to be dialed; the reason if not. kRecentlyRefused is
  // to be answered with RST, the others not at all.
  std::optional<DropReason> Refuses(const FlowKey& key, uint32_t isn,
                                    Instant now);

  // A flow became half-open, and stopped being so. Once each per flow.
  void Opened(const Endpoint& destination);
  void Settled(const Endpoint& destination);
  // A dial failed; `refused`: by the destination itself.
  void DialFailed(const Endpoint& destination, bool refused, Instant now);

  // The app was told by ICMP that its SYN failed. Linux then sends that SYN
  // once more before it believes it (RFC 6069): such an echo is absorbed
  // (kTcpDuplicateSyn) and not dialed again.
  void Answered(const FlowKey& key, uint32_t isn, Instant now);

  uint32_t half_open() const { return half_open_; }
  bool under_pressure(Instant now);

  // Frees what only pressure needs; called when the loop has time.
  void Relax(Instant now);

 private:
  struct Refusals {
    int64_t second = 0;
    uint32_t count = 0;
  };
  struct EndpointHash {
    const SipHashKey* key;
    size_t operator()(const Endpoint& e) const;
  };
  template <typename V>
  using EndpointMap = absl::flat_hash_map<Endpoint, V, EndpointHash>;

  // 2^18 sets of four entries: a second of a million SYNs.
  static constexpr size_t kSets = size_t{1} << 18;
  static constexpr size_t kWays = 4;
  static constexpr size_t kMaxRefusers = 4096;

  struct Answer {
    uint64_t hash = 0;
    Instant at{};
  };
  static constexpr size_t kAnswers = 64;

  uint64_t HashOf(const FlowKey& key, uint32_t isn) const;
  bool SeenBefore(const FlowKey& key, uint32_t isn, Instant now);
  bool JustAnswered(const FlowKey& key, uint32_t isn, Instant now) const;

  Options options_;
  SipHashKey key_;
  uint32_t half_open_ = 0;
  EndpointMap<uint32_t> per_destination_{0, EndpointHash{&key_}};
  EndpointMap<Refusals> refusers_{0, EndpointHash{&key_}};
  std::array<Answer, kAnswers> answers_;  // by hash
  Instant last_answer_{};
  int64_t slot_ = 0;  // of 100 ms
  uint32_t slot_failures_ = 0;
  uint32_t last_slot_failures_ = 0;
  // Entries: 20 bits of hash, 12 bits of time in units of 16 ms; 0 is empty.
  std::vector<uint32_t> seen_;
  Instant last_pressure_{};
};

}  // namespace netstack

#endif  // CORE_FORWARD_SYN_GATE_H_

// TCP from the apps to ordinary sockets and back.
//
// How this works: see the top of tcp_forwarder.cc.
#ifndef CORE_FORWARD_TCP_FORWARDER_H_
#define CORE_FORWARD_TCP_FORWARDER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "core/base/siphash.h"
#include "core/base/time.h"
#include "core/dial/dialer.h"
#include "core/flow/buffer_pool.h"
#include "core/flow/flow_info.h"
#include "core/flow/flow_slots.h"
#include "core/flow/flow_source.h"
#include "core/flow/slab.h"
#include "core/flow/stats.h"
#include "core/flow/timer_wheel.h"
#include "core/forward/flow_advisor.h"
#include "core/forward/forward_listener.h"
#include "core/forward/icmp_responder.h"
#include "core/forward/local_streams.h"
#include "core/forward/syn_gate.h"
#include "core/forward/tcp_flow.h"
#include "core/forward/tun_writer.h"
#include "core/lwip/tcp_engine.h"
#include "core/platform/datagrams.h"
#include "core/platform/poller.h"
#include "core/wire/packet.h"

namespace netstack {

class TcpForwarder final : public FlowSource {
 public:
  struct Options {
    Duration dial_timeout = std::chrono::seconds(30);
    Duration established_idle = std::chrono::seconds(7440);
    Duration transitory_idle = std::chrono::seconds(240);
    Duration time_wait = std::chrono::seconds(10);
    uint32_t buffer_floor = 64 * 1024;
    uint32_t buffer_max = 1024 * 1024;
    SynGate::Options gate;
    // Idle flows are forgotten up to this much later, many at once, so that
    // a sleeping device wakes seldom. Zero: in time.
    Duration idle_slack{};
  };
  // Cleanly closed flows remembered at once; beyond, the oldest goes.
  static constexpr size_t kMaxTimeWait = 4096;

  // What it works with; all outlive the forwarder.
  struct Parts {
    TcpEngine* engine = nullptr;
    BufferPool* pool = nullptr;
    FlowSlots* slots = nullptr;  // flows in TIME_WAIT hold none
    Dialer* dialer = nullptr;
    const Dialer* dns_dialer = nullptr;  // may be null; its own is no app's
    Datagrams* datagrams = nullptr;  // for what a failed dial's socket tells
    Poller* poller = nullptr;
    TunWriter* writer = nullptr;
    IcmpResponder* icmp = nullptr;
    DropCounters* drops = nullptr;
    ForwardListener* listener = nullptr;
    LocalStreams* local = nullptr;   // may be null
    FlowAdvisor* advisor = nullptr;  // may be null
  };

  // `hash_key`: fresh random bits, so that no app can aim at the flow table.
  TcpForwarder(const Parts& parts, const Options& options,
               const SipHashKey& hash_key, Instant now);
  ~TcpForwarder() override;  // after Shutdown()
  TcpForwarder(const TcpForwarder&) = delete;
  TcpForwarder& operator=(const TcpForwarder&) = delete;

  void Configure(const Options& options);

  // One segment of an app. The packet's buffer is mutable and the caller's
  // again afterwards (see TcpEngine::Input).
  void OnSegment(const Packet& packet, const TcpSegment& segment, Instant now);
  // The poller's word about a flow's socket.
  void OnSocket(const PollEvent& event, Instant now);
  // A flow that ForwardListener::OnOpen() made wait may go, or may not.
  void OnDecided(PollToken token, bool block, Instant now);
  // The host is on another network. Flows for which `moved` holds are reset on
  // both sides; those whose dial is under way are dialed again.
  struct Moved {
    uint64_t reset = 0;
    uint64_t kept = 0;
  };
  Moved OnNetworkChanged(
      const std::function<bool(const Endpoint& local, const Endpoint& remote)>&
          moved,
      Instant now);
  // The TUN takes packets again.
  void OnTunWritable(Instant now);
  // Fires what is due, continues flows that had more to do, sweeps closed
  // ones. Once per loop turn, last.
  void OnTurn(Instant now);

  // When OnTurn() is next needed: now, when flows have more to do.
  Instant next_deadline(Instant now) const;

  // Resets every flow on both sides. Nothing may follow.
  void Shutdown(Instant now);

  // Memory is so short that no flow is opened (see base/memory_reserve.h).
  void set_memory_short(bool is) { memory_short_ = is; }

  void SetFlowChanges(bool wanted) override { flow_changes_ = wanted; }
  std::vector<FlowInfo> List(const FlowFilter& filter, uint64_t after_id,
                             size_t limit, Instant now) const override;
  size_t Close(const FlowFilter& filter, Instant now) override;
  TcpStats stats() const;
  size_t record_memory() const;
  // Times that a flow waited for the memory budget.
  uint64_t memory_waits() const { return memory_waits_; }

 private:
  // Flows are found by key through a set of slab indices, five bytes each.
  struct Hash {
    using is_transparent = void;
    const TcpForwarder* f;
    size_t operator()(uint32_t index) const;
    size_t operator()(const FlowKey& key) const;
  };
  struct Equal {
    using is_transparent = void;
    const TcpForwarder* f;
    bool operator()(uint32_t a, uint32_t b) const { return a == b; }
    bool operator()(uint32_t a, const FlowKey& b) const;
    bool operator()(const FlowKey& a, uint32_t b) const {
      return (*this)(b, a);
    }
  };

  // Outbound.
  TcpFlow* Find(const FlowKey& key) const;
  void OnUnknown(const Packet& packet, const TcpSegment& segment,
                 const FlowKey& key, Instant now);
  void Open(const Packet& packet, const TcpSegment& segment,
            const FlowKey& key, Instant now);
  void WhileDialing(TcpFlow* flow, const Packet& packet,
                    const TcpSegment& segment, Instant now);
  bool InTimeWait(TcpFlow* flow, const Packet& packet,
                  const TcpSegment& segment, Instant now);
  void Feed(TcpFlow* flow, const TcpSegment& segment, Instant now);
  bool Admits(const TcpSegment& segment, const FlowKey& key, bool local,
              Instant now);
  void StartDial(TcpFlow* flow, Instant now);
  void ConnectLocally(TcpFlow* flow, Instant now);
  SynGate& GateOf(bool local) { return local ? local_gate_ : gate_; }
  bool KeepSyn(TcpFlow* flow, const Packet& packet, const TcpSegment& segment);
  void Block(TcpFlow* flow, Instant now);
  void Dialed(TcpFlow* flow, DialOutcome outcome, Instant now);
  void StartHandshake(TcpFlow* flow, Instant now);
  bool SendUp(TcpFlow* flow, Instant now);
  bool KeepUp(TcpFlow* flow, std::span<const Bytes> parts, size_t skip);
  bool FlushUp(TcpFlow* flow, Instant now);
  void ShutHostIfDone(TcpFlow* flow);

  // Inbound.
  bool PumpDown(TcpFlow* flow, Instant now);
  uint32_t RoomDown(TcpFlow* flow) const;
  void Progress(TcpFlow* flow, Instant now);
  void WaitForMemory(TcpFlow* flow);
  void WaitForTunIfBlocked(TcpFlow* flow);
  void Acknowledged(TcpFlow* flow, uint32_t bytes);

  // Both.
  bool Handle(TcpFlow* flow, const TcpEvents& events, Instant now);
  void HostFailed(TcpFlow* flow, int error, Instant now);
  void UpdateState(TcpFlow* flow, Instant now);
  void EnterTimeWait(TcpFlow* flow, Instant now);
  void Settle(TcpFlow* flow);
  void CloseHost(TcpFlow* flow, bool reset);
  void End(TcpFlow* flow, CloseReason reason, Instant now);
  void Sweep();
  void OnTimer(TcpFlow* flow, Instant now);
  Instant StateDeadline(const TcpFlow& flow) const;
  void Rearm(TcpFlow* flow);
  void AnswerReset(const FlowKey& key, const TcpSegment& segment);
  std::optional<IcmpAnswer> ErrorOfDial(const TcpFlow& flow);
  void AnswerSyn(TcpFlow* flow, const IcmpAnswer& answer, Instant now);
  void AnswerFailedDial(TcpFlow* flow, DialOutcome outcome, Instant now);
  void Touch(TcpFlow* flow);
  void MakeReady(TcpFlow* flow);
  FlowInfo Info(const TcpFlow& flow, Instant now) const;
  void FillHostFacts(const TcpFlow& flow, FlowInfo& info) const;
  void Tell(FlowChange change, const TcpFlow& flow, Instant now);
  static PollToken TokenOf(const TcpFlow& flow) {
    return {PollToken::Kind::kTcpFlow, flow.generation, flow.index};
  }
  void Drop(DropReason reason) { parts_.drops->Count(reason); }

  const Parts parts_;
  Options options_;
  const SipHashKey hash_key_;
  SynGate gate_;
  SynGate local_gate_;  // of flows that end inside
  TimerWheel wheel_;
  Slab<TcpFlow> slab_;
  absl::flat_hash_set<uint32_t, Hash, Equal> table_;
  TcpStats stats_;
  uint64_t memory_waits_ = 0;
  bool flow_changes_ = false;
  bool shutting_down_ = false;
  bool memory_short_ = false;
  // When flows that found no memory for a chunk try again.
  Instant memory_retry_at_ = kNever;

  uint32_t turn_ = 1;  // counts OnTurn()
  std::vector<TcpFlow*> touched_;  // had segments in the batch at hand
  std::vector<TcpFlow*> ready_;    // had more to do than one turn allows
  std::vector<TcpFlow*> working_;  // ready_ of the turn at hand
  std::vector<TcpFlow*> blocked_;  // wait for the TUN
  std::vector<TcpFlow*> starved_;  // wait for memory, or its budget
  std::vector<PollToken> redial_;  // their network is gone
  std::vector<TcpFlow*> ended_;    // to be freed at the end of the turn
  std::deque<PollToken> time_wait_;  // oldest first; may be stale
  std::vector<Bytes> up_parts_;
};

}  // namespace netstack

#endif  // CORE_FORWARD_TCP_FORWARDER_H_

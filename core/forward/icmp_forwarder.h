// Echoes of the apps (ping, traceroute -I, mtr) through ping sockets.
//
// How this works: see the top of icmp_forwarder.cc.
#ifndef CORE_FORWARD_ICMP_FORWARDER_H_
#define CORE_FORWARD_ICMP_FORWARDER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "core/base/malloc_bytes.h"
#include "core/base/siphash.h"
#include "core/base/time.h"
#include "core/dial/dialer.h"
#include "core/flow/flow_info.h"
#include "core/flow/flow_slots.h"
#include "core/flow/flow_source.h"
#include "core/flow/slab.h"
#include "core/flow/stats.h"
#include "core/forward/forward_listener.h"
#include "core/forward/icmp_responder.h"
#include "core/forward/tun_writer.h"
#include "core/platform/datagrams.h"
#include "core/platform/poller.h"
#include "core/wire/packet.h"

namespace netstack {

// What becomes of an ICMP message that an app sends.
enum class IcmpFate : uint8_t {
  kEcho,        // carried
  kError,       // about what we delivered: the remote hears nothing of it
  kNotCarried,  // concerns the app's own link, or is obsolete
};
IcmpFate FateOfIcmp(const IcmpMessage& message, bool v4);

class IcmpForwarder final : public FlowSource {
 public:
  struct Options {
    // A mapping without an echo or reply for this long ends; RFC 5508, REQ-1:
    // at least 60 s.
    Duration idle = std::chrono::seconds(60);
    // Mappings, each of one socket; beyond, the one that was idle longest
    // makes way, those without any reply first.
    uint32_t max_sockets = 1024;
  };
  // Destinations of one mapping; beyond, the one that was idle longest goes.
  static constexpr size_t kMaxPeers = 64;

  // What it works with; all outlive the forwarder.
  struct Parts {
    FlowSlots* slots = nullptr;
    Dialer* dialer = nullptr;
    Datagrams* datagrams = nullptr;
    Poller* poller = nullptr;
    TunWriter* writer = nullptr;
    IcmpResponder* icmp = nullptr;
    DropCounters* drops = nullptr;
    ForwardListener* listener = nullptr;
  };

  // `key`: fresh random bits.
  IcmpForwarder(const Parts& parts, const Options& options,
                const SipHashKey& key);
  ~IcmpForwarder() override;  // after Shutdown()
  IcmpForwarder(const IcmpForwarder&) = delete;
  IcmpForwarder& operator=(const IcmpForwarder&) = delete;

  void Configure(const Options& options) { options_ = options; }

  // Asks the system whether it lets us; permitted() knows from then on, and
  // from every mapping that is opened.
  void Probe();
  bool permitted() const { return permitted_; }

  // While memory is short nothing new is opened (DropReason::kNoMemory).
  void set_memory_short(bool is) { memory_short_ = is; }

  // An echo request with at least two hops left, or to the gateway.
  void OnEcho(const Packet& packet, const IcmpMessage& echo, Instant now);
  // The poller's word about a mapping's socket.
  void OnSocket(const PollEvent& event, Instant now);
  // Ends what has been idle. Once per loop turn.
  void OnTurn(Instant now);
  Instant next_deadline() const;

  // Ends everything. Nothing may follow.
  void Shutdown(Instant now);

  std::vector<FlowInfo> List(const FlowFilter& filter, uint64_t after_id,
                             size_t limit, Instant now) const override;
  size_t Close(const FlowFilter& filter, Instant now) override;
  void SetFlowChanges(bool wanted) override { flow_changes_ = wanted; }
  IcmpStats stats() const;

 private:
  // A destination of a mapping: what people see as a flow.
  struct Peer {
    uint64_t id = 0;
    IpAddress ip;
    Instant opened{};
    Instant last_active{};
    uint64_t outbound_bytes = 0;  // of echo data
    uint64_t inbound_bytes = 0;
    uint64_t outbound_packets = 0;
    uint64_t inbound_packets = 0;
  };
  // What an error about an echo has to quote and its socket does not know.
  struct Sent {
    IpAddress to;
    uint16_t seq = 0;
    uint16_t ip_id = 0;
    uint16_t total = 0;  // the packet's length
    uint16_t checksum = 0;
    uint8_t tos = 0;
    bool dont_fragment = false;
  };
  struct Mapping {
    // Of the slab.
    uint32_t index = 0;
    uint32_t generation = 0;

    IpAddress app;
    uint16_t id = 0;  // the app's
    int fd = -1;
    bool replied = false;
    std::optional<bool> dont_fragment;  // as the socket is set
    Instant last_active{};
    Mapping* older = nullptr;  // in its queue
    Mapping* newer = nullptr;
    std::vector<Peer> peers;
    // The last echoes; next_sent is the oldest.
    std::array<Sent, 32> sent;
    uint32_t next_sent = 0;
  };
  struct Queue {  // by last_active
    Mapping* oldest = nullptr;
    Mapping* newest = nullptr;
  };
  struct Key {
    IpAddress app;
    uint16_t id = 0;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct Hash {
    SipHashKey secret;
    size_t operator()(const Key& key) const;
  };

  // Outbound.
  void AnswerSelf(const Packet& packet, const IcmpMessage& echo);
  Mapping* FindOrOpen(const Packet& packet, const IcmpMessage& echo,
                      Instant now);
  Mapping* Open(const Packet& packet, uint16_t id, Instant now);
  bool IsLoop(const Packet& packet, const IcmpMessage& echo) const;
  void RefuseOpen(DialOutcome outcome, const Packet& packet, Instant now);
  bool MakeRoom(Instant now);
  Peer* FindPeer(Mapping* m, const IpAddress& ip) const;
  // Null: a rule blocks it.
  Peer* AddPeer(Mapping* m, const IpAddress& ip, Instant now);
  void Send(Mapping* m, const Packet& packet, const IcmpMessage& echo,
            Instant now);

  // Inbound.
  void Receive(Mapping* m, Instant now);
  void OnReply(Mapping* m, const DatagramIn& reply, Instant now);
  std::optional<DatagramError> DrainErrors(Mapping* m, Instant now);
  void PassOn(const Mapping& m, const DatagramError& error, Instant now);

  // Both.
  void Touch(Mapping* m, Instant now);
  void Unlink(Mapping* m);
  void Append(Mapping* m);
  Queue& QueueOf(const Mapping* m) { return queues_[m->replied ? 1 : 0]; }
  void PrunePeers(Mapping* m, Instant now);
  void End(Mapping* m, CloseReason reason, Instant now);
  FlowInfo Info(const Mapping& m, const Peer& peer, Instant now) const;
  void Tell(FlowChange change, const Mapping& m, const Peer& peer,
            CloseReason reason, Instant now);
  void Drop(DropReason reason) { parts_.drops->Count(reason); }

  const Parts parts_;
  Options options_;
  Slab<Mapping> slab_;
  absl::flat_hash_map<Key, uint32_t, Hash> table_;
  std::array<Queue, 2> queues_;  // without a reply, with
  IcmpStats stats_;
  uint64_t peers_ = 0;
  bool permitted_ = true;
  bool flow_changes_ = false;
  bool shutting_down_ = false;
  bool memory_short_ = false;
  MallocBytes room_;  // what a socket says
};

}  // namespace netstack

#endif  // CORE_FORWARD_ICMP_FORWARDER_H_

// UDP from the apps to ordinary sockets and back.
//
// How this works: see the top of udp_forwarder.cc.
#ifndef CORE_FORWARD_UDP_FORWARDER_H_
#define CORE_FORWARD_UDP_FORWARDER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "core/base/drop_reason.h"
#include "core/base/malloc_bytes.h"
#include "core/base/siphash.h"
#include "core/base/time.h"
#include "core/dial/dialer.h"
#include "core/flow/flow_info.h"
#include "core/flow/flow_slots.h"
#include "core/flow/flow_source.h"
#include "core/flow/slab.h"
#include "core/flow/stats.h"
#include "core/flow/timer_wheel.h"
#include "core/forward/flow_advisor.h"
#include "core/forward/forward_listener.h"
#include "core/forward/icmp_responder.h"
#include "core/forward/tun_writer.h"
#include "core/forward/udp_flow.h"
#include "core/platform/datagrams.h"
#include "core/platform/poller.h"
#include "core/wire/packet.h"
#include "core/wire/udp.h"

namespace netstack {

// Whose datagrams come in through a mapping (RFC 4787, section 5).
enum class UdpFiltering : uint8_t {
  kEndpointIndependent,      // everybody's
  kAddressDependent,         // addresses that the app has sent to
  kAddressAndPortDependent,  // addresses and ports that it has sent to
};

class UdpForwarder final : public FlowSource {
 public:
  struct PortIdle {
    uint16_t port = 0;  // of the remote
    Duration idle{};
    friend bool operator==(const PortIdle&, const PortIdle&) = default;
  };
  // Datagrams to the prefix leave by the interface.
  struct InterfaceRule {
    IpPrefix prefix;
    std::string interface;
    friend bool operator==(const InterfaceRule&,
                           const InterfaceRule&) = default;
  };
  struct Options {
    // Of a peer that has had few datagrams, and of one with both ways in use.
    Duration idle = std::chrono::seconds(60);
    Duration stream_idle = std::chrono::seconds(300);
    // Instead of both, by the remote's port. The defaults are IKE and IPsec
    // through NAT (RFC 3948): Wi-Fi calling is silent for long.
    std::vector<PortIdle> port_idle = {{500, std::chrono::hours(1)},
                                       {4500, std::chrono::hours(1)}};
    UdpFiltering filtering = UdpFiltering::kEndpointIndependent;
    // Try the app's own port first.
    bool preserve_ports = true;
    // Send multicast and broadcast that no rule names, too.
    bool forward_multicast = false;
    uint32_t max_flows = 65'536;  // peers of all mappings together
    uint32_t max_peers = 4096;    // of one mapping
    uint32_t socket_buffer = 0;   // bytes; 0: the system's own
    std::vector<InterfaceRule> interfaces;  // at most 255; longest wins
  };
  // The unit of UdpPeer's times: wraps after 497 days, far beyond every idle
  // time.
  static constexpr Duration kTick = std::chrono::milliseconds(10);
  // Datagrams each way that make a stream of a request and its answer.
  static constexpr uint32_t kStreamPackets = 4;
  // Of max_flows and max_peers, the part that remotes get which the app has
  // not sent to: nobody outside keeps an app from new flows.
  static constexpr uint32_t kStrangersPart = 4;
  // Without an answer for this long, a flow makes room for a new one when a
  // limit is reached.
  static constexpr Duration kEvictAfter = std::chrono::seconds(5);
  // Datagrams that wait until their flows' owners are known.
  static constexpr size_t kMaxHeld = 64;
  static constexpr size_t kMaxHeldBytes = 64 * 1024;
  // How long an endpoint stays blocked without its owner being looked up.
  static constexpr Duration kBlockFor = std::chrono::seconds(1);

  // What it works with; all outlive the forwarder.
  struct Parts {
    FlowSlots* slots = nullptr;  // one per mapping
    Dialer* dialer = nullptr;
    Datagrams* datagrams = nullptr;
    Poller* poller = nullptr;
    TunWriter* writer = nullptr;
    IcmpResponder* icmp = nullptr;
    DropCounters* drops = nullptr;
    ForwardListener* listener = nullptr;
    FlowAdvisor* advisor = nullptr;  // may be null
  };

  // `hash_key`: fresh random bits, so that no app can aim at the tables.
  UdpForwarder(const Parts& parts, const Options& options,
               const SipHashKey& hash_key, Instant now);
  ~UdpForwarder() override;  // after Shutdown()
  UdpForwarder(const UdpForwarder&) = delete;
  UdpForwarder& operator=(const UdpForwarder&) = delete;

  // Rules that changed end the mappings that stand by the old ones.
  void Configure(const Options& options, Instant now);

  // While memory is short nothing new is opened (DropReason::kNoMemory).
  void set_memory_short(bool is) { memory_short_ = is; }

  // One datagram of an app, or a batch (TunRead::udp_segment). Small ones are
  // copied and wait for Flush(); the packet is the caller's again afterwards.
  void OnDatagram(const Packet& packet, const UdpDatagram& udp,
                  uint16_t segment, Instant now);
  // Sends what waits: behind every batch of packets.
  void Flush(Instant now);
  // The poller's word about a mapping's socket.
  void OnSocket(const PollEvent& event, Instant now);
  // A flow that ForwardListener::OnOpen() made wait may go, or may not.
  void OnDecided(PollToken token, uint64_t flow_id, bool block, Instant now);
  // The host is on another network. Datagrams find their way by themselves,
  // unless sockets are bound to what was: `new_sockets` gives every mapping
  // another one, with its port where that is free. Its flows stay.
  struct Moved {
    uint64_t ended = 0;  // flows, for want of a socket
    uint64_t kept = 0;
  };
  Moved OnNetworkChanged(bool new_sockets, Instant now);
  // The TUN takes packets again, and the writer knows.
  void OnTunWritable(Instant now);
  // Fires what is due, continues mappings that had more to read. Once per
  // loop turn, behind Flush().
  void OnTurn(Instant now);
  Instant next_deadline(Instant now) const;

  // Ends every flow. Nothing may follow.
  void Shutdown(Instant now);
  // Gives buffers back that only traffic needs.
  void Trim();

  void SetFlowChanges(bool wanted) override { flow_changes_ = wanted; }
  std::vector<FlowInfo> List(const FlowFilter& filter, uint64_t after_id,
                             size_t limit, Instant now) const override;
  size_t Close(const FlowFilter& filter, Instant now) override;
  UdpStats stats() const;
  size_t record_memory() const;

 private:
  // Mappings are found by the app's endpoint and the interface that the
  // remote is reached by, their further peers by mapping and remote, and, for
  // hairpins, mappings by their local port: through sets of slab indices,
  // five bytes each.
  struct MappingKey {
    IpAddress ip;
    uint16_t port;
    uint8_t interface;
  };
  struct MappingHash {
    using is_transparent = void;
    const UdpForwarder* f;
    size_t operator()(const MappingKey& key) const;
    size_t operator()(uint32_t index) const;
  };
  struct MappingEqual {
    using is_transparent = void;
    const UdpForwarder* f;
    bool operator()(uint32_t a, uint32_t b) const { return a == b; }
    bool operator()(uint32_t a, const MappingKey& b) const;
    bool operator()(const MappingKey& a, uint32_t b) const {
      return (*this)(b, a);
    }
  };
  struct PeerKey {
    uint32_t mapping;
    Endpoint remote;
  };
  struct PeerHash {
    using is_transparent = void;
    const UdpForwarder* f;
    size_t operator()(const PeerKey& key) const;
    size_t operator()(uint32_t index) const;
  };
  struct PeerEqual {
    using is_transparent = void;
    const UdpForwarder* f;
    bool operator()(uint32_t a, uint32_t b) const { return a == b; }
    bool operator()(uint32_t a, const PeerKey& b) const;
    bool operator()(const PeerKey& a, uint32_t b) const {
      return (*this)(b, a);
    }
  };
  struct LocalKey {
    bool v4;
    uint16_t port;
  };
  struct LocalHash {
    using is_transparent = void;
    const UdpForwarder* f;
    size_t operator()(const LocalKey& key) const;
    size_t operator()(uint32_t index) const;
  };
  struct LocalEqual {
    using is_transparent = void;
    const UdpForwarder* f;
    // By key alone: two sockets of one port (on different interfaces) are one
    // place here, the first one's.
    bool operator()(uint32_t a, uint32_t b) const;
    bool operator()(uint32_t a, const LocalKey& b) const;
    bool operator()(const LocalKey& a, uint32_t b) const {
      return (*this)(b, a);
    }
  };

  // An address that a mapping's app has sent to.
  struct AskedKey {
    uint32_t mapping;
    IpAddress ip;
    friend bool operator==(const AskedKey&, const AskedKey&) = default;
  };
  struct AskedHash {
    const UdpForwarder* f;
    size_t operator()(const AskedKey& key) const;
  };

  // A datagram, or a batch of at most kMaxSegments, that waits for Flush().
  struct Pending {
    UdpMapping* mapping = nullptr;
    UdpPeer* peer = nullptr;
    Bytes payload;  // in arena_, or in the packet until OnDatagram() returns
    uint16_t segment = 0;
    uint8_t tos = 0;
    uint8_t ttl = 0;
    bool dont_fragment = false;
  };
  // One message for sendmmsg(2): pending datagrams joined, if more than one.
  struct Joined {
    size_t begin = 0;  // in order_
    size_t end = 0;
    size_t bytes = 0;
    bool full = false;
  };
  static constexpr size_t kBatch = Datagrams::kMaxBatch;
  static constexpr size_t kReceiveBatch = 32;

  // Outbound.
  uint8_t InterfaceFor(const IpAddress& remote) const;
  UdpMapping* FindMapping(const Endpoint& app, uint8_t interface);
  UdpMapping* Open(const Packet& packet, const Endpoint& app,
                   uint8_t interface, Instant now);
  bool IsLoop(const Endpoint& app, const Endpoint& remote);
  bool Stops(UdpMapping* mapping, UdpPeer* peer, const Packet& packet,
             uint16_t segment, Instant now);
  bool WasBlocked(const Endpoint& app, Instant now) const;
  bool Rehome(UdpMapping* mapping);
  int Bind(UdpMapping* mapping);
  void Refuse(DropReason reason, IcmpError error, const Packet& packet,
              Instant now);
  UdpPeer* FindPeer(const UdpMapping* mapping, const Endpoint& remote) const;
  UdpPeer* AddPeer(UdpMapping* mapping, const Endpoint& remote, bool app_sent,
                   Instant now);
  bool IsFull(const UdpMapping& mapping, bool app_sent) const;
  void AppSent(UdpMapping* mapping, UdpPeer* peer);
  void Keep(const Pending& datagram, Instant now);
  void SendRun(std::span<const uint8_t> order, Instant now);
  size_t Join(std::span<const uint8_t> order);
  void Sent(std::span<const uint8_t> order, const Joined& joined);
  void CountSent(const Pending& pending);
  void SendSingly(const Pending& pending, Instant now);
  void SendOne(const Pending& pending, Instant now);
  void Failed(const Pending& pending, int error, Instant now);
  void CountDrop(DropReason reason, const Pending& pending);
  bool Hairpin(UdpMapping* mapping, const Packet& packet,
               const UdpDatagram& udp, uint16_t segment, Instant now);

  // Inbound.
  void Read(UdpMapping* mapping, Instant now);
  int Receive(const UdpMapping& mapping, size_t* asked);
  bool Deliver(UdpMapping* mapping, size_t begin, size_t end, Instant now);
  bool Admits(const UdpMapping& mapping, const UdpPeer* peer,
              const Endpoint& from) const;
  void Received(UdpPeer* peer, size_t bytes, uint16_t segment, Instant now);
  void Wait(UdpMapping* mapping);
  void LearnAddress(const IpAddress& ours);
  bool IsOurs(const IpAddress& ip) const;

  // Errors.
  void DrainErrors(UdpMapping* mapping, Instant now);
  Packet Quote(const UdpMapping& mapping, const Endpoint& remote,
               Bytes payload, size_t payload_size, const Pending& like);

  // Both.
  uint32_t TicksAt(Instant t) const;
  Instant TimeOf(uint32_t ticks, Instant now) const;
  Duration IdleOf(const UdpPeer& peer) const;
  bool Relieve(Instant now);
  template <typename Predicate>
  size_t EndPeersIf(UdpMapping* mapping, CloseReason reason, Instant now,
                    Predicate&& which);
  void PeerEnded(UdpMapping* mapping, const UdpPeer& peer, CloseReason reason,
                 Instant now);
  void EndIfEmpty(UdpMapping* mapping);
  void OnTimer(UdpMapping* mapping, Instant now);
  void Rearm(UdpMapping* mapping, Instant at);
  template <typename Fn>
  void ForEachPeer(const UdpMapping& mapping, Fn&& fn) const;
  FlowInfo Info(const UdpMapping& mapping, const UdpPeer& peer,
                Instant now) const;
  void Tell(FlowChange change, const UdpMapping& mapping, const UdpPeer& peer,
            Instant now);
  void Drop(DropReason reason) { parts_.drops->Count(reason); }

  const Parts parts_;
  Options options_;
  const SipHashKey hash_key_;
  const Instant start_;
  TimerWheel wheel_;
  Slab<UdpMapping> slab_;
  Slab<UdpFurtherPeer> further_;
  absl::flat_hash_set<uint32_t, MappingHash, MappingEqual> mappings_;
  absl::flat_hash_set<uint32_t, PeerHash, PeerEqual> peers_;
  absl::flat_hash_set<uint32_t, LocalHash, LocalEqual> by_port_;
  // How many peers of each address, with address-dependent filtering only: a
  // stranger's datagram must not cost a walk through all peers.
  absl::flat_hash_map<AskedKey, uint32_t, AskedHash> asked_;
  UdpStats stats_;
  uint32_t flows_ = 0;
  uint32_t strangers_ = 0;  // of the flows
  bool memory_short_ = false;
  DropReason no_peer_{};  // why AddPeer() gave none
  bool flow_changes_ = false;
  bool shutting_down_ = false;
  Instant relieved_{};
  // Not ended when it runs empty: somebody works with it.
  const UdpMapping* busy_ = nullptr;
  PollToken recent_;  // the mapping of the packet before

  // Outbound: what waits, and what one Send() is made of.
  std::array<Pending, kBatch> pending_;
  size_t pending_count_ = 0;
  MallocBytes arena_;  // null while there is nothing in it, or no memory
  size_t arena_used_ = 0;
  std::array<uint8_t, kBatch> order_;
  std::array<Joined, kBatch> joined_;
  std::array<DatagramOut, kBatch> out_;
  std::array<Bytes, kBatch> out_parts_;
  uint32_t local_mtu_ = 0;  // of the last local error that was drained

  // Inbound: what one Receive() gave. While the TUN is full, the rest of a
  // batch waits here and nothing else is read.
  MallocBytes room_;
  std::array<std::byte, kMaxDatagram> spare_room_;  // while there is no memory
  std::array<DatagramIn, kReceiveBatch> in_;
  PollToken held_;
  size_t held_begin_ = 0;
  size_t held_end_ = 0;  // > held_begin_: something is held
  std::vector<PollToken> ready_;    // mappings that have more to read
  std::vector<PollToken> waiting_;  // and that wait for the TUN
  std::vector<PollToken> working_;
  // Whole packets whose flows' owners are awaited, oldest first.
  struct Held {
    uint64_t flow_id = 0;
    uint16_t segment = 0;
    std::vector<std::byte> packet;
  };
  std::vector<Held> owner_held_;
  size_t owner_held_bytes_ = 0;
  // Endpoints of apps that a rule blocked just now, by port.
  struct Blocked {
    Endpoint app;
    Instant until{};
  };
  std::array<Blocked, 64> blocked_;
  Instant blocked_until_{};  // the latest
  // Addresses of our host, as inbound datagrams told them.
  std::array<IpAddress, 8> ours_;
  size_t ours_next_ = 0;
  std::array<std::byte, 2048> quote_;
  std::array<std::byte, 2048> error_room_;
};

}  // namespace netstack

#endif  // CORE_FORWARD_UDP_FORWARDER_H_

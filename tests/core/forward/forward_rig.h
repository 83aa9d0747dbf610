// A forwarder with everything around it scripted: the TUN, the sockets, time.
//
//   Rig rig;
//   App app(&rig);
//   app.Connect();                          // SYN, dial, handshake
//   app.Send("hello");
//   EXPECT_EQ(app.socket().sent, "hello");
//   app.HostSends("world");
//   EXPECT_EQ(app.stream, "world");
#ifndef TESTS_CORE_FORWARD_FORWARD_RIG_H_
#define TESTS_CORE_FORWARD_FORWARD_RIG_H_

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/dial/dialer.h"
#include "core/flow/buffer_pool.h"
#include "core/forward/forward_listener.h"
#include "core/forward/icmp_responder.h"
#include "core/forward/reassembler.h"
#include "core/forward/tcp_forwarder.h"
#include "core/forward/tun_writer.h"
#include "core/forward/udp_forwarder.h"
#include "core/lwip/tcp_engine.h"
#include "core/wire/packet.h"
#include "gtest/gtest.h"
#include "tests/core/wire/test_packets.h"
#include "tests/support/fake_clock.h"
#include "tests/support/scripted_datagrams.h"
#include "tests/support/scripted_poller.h"
#include "tests/support/scripted_sockets.h"
#include "tests/support/scripted_tun.h"

namespace netstack::test {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A packet that was written to the TUN, checked and taken apart.
struct Reply {
  // Shared, since copies of `bytes`, `packet` and `tcp` point into it.
  std::shared_ptr<const ByteVector> owner;
  Bytes bytes;
  Packet packet;
  std::optional<TcpSegment> tcp;
  std::optional<UdpDatagram> udp;
  TunWrite how;

  bool Has(uint8_t f) const { return tcp && tcp->Has(f); }
  // ICMP's and ICMPv6's.
  int type() const { return Load8(&packet.transport[0]); }
  int code() const { return Load8(&packet.transport[1]); }
  Bytes quote() const { return packet.transport.subspan(8); }
};

inline Reply Understand(const ScriptedTun::Written& written) {
  Reply r;
  r.owner = std::make_shared<const ByteVector>(written.bytes);
  r.bytes = *r.owner;
  r.how = written.how;
  const OrDrop<Packet> packet = ParsePacket(r.bytes);
  EXPECT_TRUE(packet) << "not a packet";
  if (!packet) return r;
  r.packet = *packet;
  if (r.packet.protocol == ip_protocol::kTcp) {
    ChecksumTrust trust = ChecksumTrust::kVerify;
    if (written.how.partial_checksum) {
      // The field holds the pseudo-header's sum, the kernel does the rest.
      trust = ChecksumTrust::kTrusted;
      ByteVector rest(r.packet.transport.begin(), r.packet.transport.end());
      const uint16_t field = Load16(&rest[16]);
      std::fill(rest.begin(), rest.end(), std::byte{0});
      const auto sum = static_cast<uint16_t>(~NaiveTransportChecksum(
          r.packet.source, r.packet.destination, 6, rest));
      EXPECT_EQ(field, sum);
    }
    const OrDrop<TcpSegment> tcp = ParseTcp(r.packet, trust);
    EXPECT_TRUE(tcp) << DropReasonName(tcp ? DropReason{} : tcp.reason());
    if (tcp) r.tcp = *tcp;
  } else if (r.packet.is_fragment) {
    // The checksum is the whole datagram's.
  } else if (r.packet.protocol == ip_protocol::kUdp) {
    ChecksumTrust trust = ChecksumTrust::kVerify;
    if (written.how.partial_checksum) {
      trust = ChecksumTrust::kTrusted;
      EXPECT_TRUE(written.how.udp);
      ByteVector rest(r.packet.transport.begin(), r.packet.transport.end());
      const uint16_t field = Load16(&rest[6]);
      std::fill(rest.begin(), rest.end(), std::byte{0});
      EXPECT_EQ(field, static_cast<uint16_t>(~NaiveTransportChecksum(
                           r.packet.source, r.packet.destination, 17, rest)));
    } else {
      EXPECT_NE(Load16(&r.packet.transport[6]), 0) << "no checksum";
    }
    const OrDrop<UdpDatagram> udp = ParseUdp(r.packet, trust);
    EXPECT_TRUE(udp) << DropReasonName(udp ? DropReason{} : udp.reason());
    if (udp) r.udp = *udp;
  } else if (r.packet.protocol == ip_protocol::kIcmp) {
    EXPECT_EQ(NaiveChecksum(r.packet.transport), 0);
  } else {
    EXPECT_EQ(NaiveTransportChecksum(r.packet.source, r.packet.destination,
                                     r.packet.protocol, r.packet.transport),
              0);
  }
  return r;
}

class Listener final : public ForwardListener {
 public:
  void OnFlow(FlowChange change, const FlowInfo& flow) override {
    changes.emplace_back(change, flow);
  }
  void OnPressure(Pressure pressure) override {
    ++pressures[static_cast<size_t>(pressure)];
  }
  void OnPoisoned(uint64_t, absl::string_view) override { ++poisoned; }
  AppDecision OnOpen(uint64_t flow_id, const FlowKey& key,
                     PollToken token) override {
    asked.push_back({flow_id, key, token});
    return decision;
  }

  std::vector<std::pair<FlowChange, FlowInfo>> changes;
  std::array<int, 8> pressures{};
  // Of new flows: what is said, and who asked.
  AppDecision decision = AppDecision::kAllow;
  struct Asked {
    uint64_t flow_id = 0;
    FlowKey key;
    PollToken token;
  };
  std::vector<Asked> asked;
  int poisoned = 0;
};

struct Rig {
  struct Settings {
    TcpForwarder::Options forwarder{};
    UdpForwarder::Options udp{};
    Dialer::Options dialer{};
    ScriptedTun::Options tun{};
    uint64_t budget = 0;
    uint32_t max_flows = 1024;
    IcmpResponder::Options icmp{};
    Reassembler::Options fragments{};
    bool abort_on_assert = true;
    LocalStreams* local = nullptr;
    FlowAdvisor* advisor = nullptr;
  };

  Rig() : Rig(Settings{}) {}
  explicit Rig(const Settings& s)
      : tun(s.tun),
        pool(s.budget),
        slots(s.max_flows),
        writer(&tun, &tun_stats, &drops),
        dialer(&sockets, s.dialer),
        icmp(&writer, &drops, s.icmp, SipHashKey{5, 6}),
        reassembler(&pool, &drops, s.fragments, SipHashKey{7, 8}) {
    TcpEngine::Options o;
    o.mtu = s.tun.mtu;
    o.rx_floor = s.forwarder.buffer_floor;
    o.rx_max = s.forwarder.buffer_max;
    o.isn_key = {1, 2};
    o.abort_on_assert = s.abort_on_assert;
    auto made = TcpEngine::Create(o, &pool, &writer);
    EXPECT_TRUE(made.ok()) << made.status();
    engine = *std::move(made);
    TcpForwarder::Parts parts;
    parts.engine = engine.get();
    parts.pool = &pool;
    parts.slots = &slots;
    parts.dialer = &dialer;
    parts.datagrams = &datagrams;
    parts.poller = &poller;
    parts.writer = &writer;
    parts.icmp = &icmp;
    parts.drops = &drops;
    parts.listener = &listener;
    parts.local = s.local;
    parts.advisor = s.advisor;
    tcp = std::make_unique<TcpForwarder>(parts, s.forwarder, SipHashKey{3, 4},
                                         now());
    UdpForwarder::Parts udp_parts;
    udp_parts.slots = &slots;
    udp_parts.dialer = &dialer;
    udp_parts.datagrams = &datagrams;
    udp_parts.poller = &poller;
    udp_parts.writer = &writer;
    udp_parts.icmp = &icmp;
    udp_parts.drops = &drops;
    udp_parts.listener = &listener;
    udp_parts.advisor = s.advisor;
    udp = std::make_unique<UdpForwarder>(udp_parts, s.udp, SipHashKey{3, 4},
                                         now());
  }
  ~Rig() {
    if (tcp == nullptr) return;
    tcp->Shutdown(now());
    udp->Shutdown(now());
    const UdpStats flows = udp->stats();
    EXPECT_EQ(flows.active, 0u);
    EXPECT_EQ(flows.mappings, 0u);
    EXPECT_EQ(flows.opened, std::accumulate(flows.closed.begin(),
                                            flows.closed.end(), uint64_t{0}));
    // What every test shares: nothing is left, and all flows are told.
    EXPECT_EQ(pool.used(), 0u);
    EXPECT_EQ(slots.used(), 0u);
    EXPECT_EQ(dialer.in_use(), 0u);
    EXPECT_EQ(sockets.open_count(), 0u);
    const TcpStats stats = tcp->stats();
    EXPECT_EQ(stats.active, 0u);
    EXPECT_EQ(stats.half_open, 0u);
    EXPECT_EQ(stats.time_wait, 0u);
    EXPECT_EQ(stats.opened, std::accumulate(stats.closed.begin(),
                                            stats.closed.end(), uint64_t{0}));
  }
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  Instant now() { return clock.Now(); }
  uint64_t dropped(DropReason r) const {
    return drops.packets()[static_cast<size_t>(r)];
  }
  uint64_t closed(CloseReason r) const {
    return tcp->stats().closed[static_cast<size_t>(r)];
  }
  int told(Pressure p) const {
    return listener.pressures[static_cast<size_t>(p)];
  }

  // One packet of an app through parser and forwarder, and a turn. Its buffer
  // is dead afterwards.
  void Give(const ByteVector& bytes) {
    ExactCopy copy(bytes);
    const OrDrop<Packet> packet = ParsePacket(copy.bytes());
    ASSERT_TRUE(packet);
    const OrDrop<TcpSegment> segment =
        ParseTcp(*packet, ChecksumTrust::kVerify);
    ASSERT_TRUE(segment) << DropReasonName(segment.reason());
    tcp->OnSegment(*packet, *segment, now());
    std::fill(copy.bytes().begin(), copy.bytes().end(), std::byte{0xEE});
    Turn();
  }
  // The poller's word about a descriptor, which has to be watched.
  void Event(int fd, PollEvent event) {
    const auto watch = poller.watch(fd);
    ASSERT_TRUE(watch.has_value());
    event.token = watch->token;
    if (event.token.kind == PollToken::Kind::kUdp) {
      udp->OnSocket(event, now());
    } else {
      tcp->OnSocket(event, now());
    }
    Turn();
  }
  void Turn() {
    udp->Flush(now());
    do {
      tcp->OnTurn(now());
      udp->OnTurn(now());
    } while (next_deadline() <= now());
  }
  Instant next_deadline() {
    return std::min(tcp->next_deadline(now()), udp->next_deadline(now()));
  }
  // Moves time on, from deadline to deadline.
  void Advance(Duration d) {
    const Instant end = now() + d;
    while (next_deadline() <= end) {
      clock.AdvanceTo(next_deadline());
      tcp->OnTurn(now());
      udp->OnTurn(now());
    }
    clock.AdvanceTo(end);
  }
  // What was written since the last call.
  std::vector<Reply> TakeReplies() {
    std::vector<Reply> replies;
    for (const auto& w : tun.TakeWritten()) replies.push_back(Understand(w));
    return replies;
  }
  std::vector<FlowInfo> List(const FlowFilter& filter = {}) {
    return tcp->List(filter, 0, SIZE_MAX, now());
  }

  FakeClock clock;
  ScriptedSockets sockets;
  ScriptedDatagrams datagrams{&sockets};
  ScriptedPoller poller;
  ScriptedTun tun;
  TunStats tun_stats;
  DropCounters drops;
  BufferPool pool;
  FlowSlots slots;
  TunWriter writer;
  Dialer dialer;
  IcmpResponder icmp;
  Reassembler reassembler;
  std::unique_ptr<TcpEngine> engine;
  Listener listener;
  std::unique_ptr<TcpForwarder> tcp;
  std::unique_ptr<UdpForwarder> udp;
};

// One app's connection. Replies to other apps get lost in Pump(): with more
// than one app at work, Deliver() them.
class App {
 public:
  explicit App(Rig* r, const Family& f = kV4, uint16_t p = 40000)
      : rig(r), family(f), port(p) {}

  ByteVector Packet(uint8_t flags, absl::string_view payload = "") const {
    TcpSpec spec;
    spec.source_port = port;
    spec.destination_port = remote_port;
    spec.seq = seq;
    spec.ack = (flags & tcp_flag::kAck) != 0 ? ack : 0;
    spec.flags = flags;
    spec.window = window;
    if ((flags & tcp_flag::kSyn) != 0) spec.options = syn_options;
    const auto* p = reinterpret_cast<const std::byte*>(payload.data());
    spec.payload.assign(p, p + payload.size());
    return MakeTcpPacket(family, spec);
  }
  void Syn() { rig->Give(Packet(tcp_flag::kSyn)); }
  // The dial's outcome: SO_ERROR.
  void Dialed(int error = 0) {
    socket_index = rig->sockets.all().size() - 1;
    socket().so_error = error;
    rig->Event(socket().fd,
               {.token = {}, .writable = true, .error = error != 0});
  }
  void Connect() {
    Syn();
    ASSERT_FALSE(rig->sockets.all().empty());
    Dialed();
    Handshake();
  }
  void Handshake() {
    Deliver(rig->TakeReplies());
    ASSERT_TRUE(syn_ack_seen);
    ++seq;
    rig->Give(Packet(tcp_flag::kAck));
    Pump();
  }
  void Send(absl::string_view payload, uint8_t flags = tcp_flag::kAck) {
    const ByteVector packet = Packet(flags, payload);
    seq += static_cast<uint32_t>(payload.size());
    if ((flags & tcp_flag::kFin) != 0) ++seq;
    rig->Give(packet);
    Pump();
  }
  void Fin() { Send("", tcp_flag::kAck | tcp_flag::kFin); }
  void Rst() { rig->Give(Packet(tcp_flag::kRst | tcp_flag::kAck)); }

  // The host's side of the flow.
  ScriptedSocket& socket() { return *rig->sockets.all().at(socket_index); }
  void HostSends(absl::string_view bytes) {
    // One piece: a short read means that the socket is empty (epoll(7)).
    socket().Feed(bytes);
    rig->Event(socket().fd, {.token = {}, .readable = true});
    Pump();
  }
  void HostCloses() {
    socket().FeedEnd();
    rig->Event(socket().fd,
               {.token = {}, .readable = true, .read_closed = true});
    Pump();
  }
  void HostWritable(size_t room) {
    socket().send_room = room;
    rig->Event(socket().fd, {.token = {}, .writable = true});
    Pump();
  }

  // Takes what was written, and acknowledges, until nothing more comes.
  void Pump() {
    while (true) {
      const std::vector<Reply> replies = rig->TakeReplies();
      if (replies.empty() || !Deliver(replies) || silent) return;
      rig->Give(Packet(tcp_flag::kAck));
    }
  }
  // Whether something has to be acknowledged.
  bool Deliver(const std::vector<Reply>& replies) {
    bool news = false;
    for (const Reply& r : replies) {
      EXPECT_EQ(r.packet.destination, family.app);
      if (!r.tcp) {
        EXPECT_EQ(r.packet.source, rig->icmp.gateway().Of(family.v4()));
        icmp.push_back(r);
        continue;
      }
      EXPECT_EQ(r.packet.source, family.remote);
      if (r.tcp->destination_port != port) continue;
      EXPECT_EQ(r.tcp->source_port, remote_port);
      if (r.Has(tcp_flag::kRst)) {
        reset = true;
        reset_seq = r.tcp->seq;
        reset_ack = r.tcp->ack;
        continue;
      }
      if (r.Has(tcp_flag::kSyn)) {
        syn_ack_seen = true;
        EXPECT_EQ(r.tcp->ack, seq + 1);
        ack = r.tcp->seq + 1;
        continue;
      }
      const Bytes payload = r.tcp->payload;
      const uint32_t known = ack - r.tcp->seq;
      if (static_cast<int32_t>(known) >= 0 && known < payload.size()) {
        stream.append(reinterpret_cast<const char*>(payload.data()) + known,
                      payload.size() - known);
        ack = r.tcp->seq + static_cast<uint32_t>(payload.size());
      }
      if (r.Has(tcp_flag::kFin) &&
          ack == r.tcp->seq + static_cast<uint32_t>(payload.size()) && !fin) {
        fin = true;
        ++ack;
      }
      news |= !payload.empty() || r.Has(tcp_flag::kFin);
    }
    return news;
  }
  FlowInfo Info() {
    FlowFilter filter;
    filter.app_port = port;
    const std::vector<FlowInfo> flows = rig->List(filter);
    EXPECT_EQ(flows.size(), 1u);
    return flows.empty() ? FlowInfo{} : flows[0];
  }

  Rig* const rig;
  const Family& family;
  const uint16_t port;
  uint16_t remote_port = 80;
  uint32_t seq = 5000;
  uint32_t ack = 0;
  uint16_t window = 65'535;
  ByteVector syn_options = Hex("020405B4");  // MSS 1460
  bool silent = false;                       // acknowledges nothing by itself
  size_t socket_index = 0;

  bool syn_ack_seen = false;
  bool reset = false;
  uint32_t reset_seq = 0;
  uint32_t reset_ack = 0;
  bool fin = false;
  std::string stream;
  std::vector<Reply> icmp;
};

// Bytes that tell their place.
inline std::string Pattern(size_t size, uint32_t seed = 0) {
  std::string s(size, '\0');
  uint32_t x = seed * 2654435761u + 12345;
  for (char& c : s) {
    x = x * 1664525u + 1013904223u;
    c = static_cast<char>(x >> 24);
  }
  return s;
}

}  // namespace netstack::test

#endif  // TESTS_CORE_FORWARD_FORWARD_RIG_H_

// The ICMP forwarder with everything around it scripted.
#ifndef TESTS_CORE_FORWARD_ICMP_RIG_H_
#define TESTS_CORE_FORWARD_ICMP_RIG_H_

#include <memory>
#include <string>
#include <vector>

#include "core/forward/icmp_forwarder.h"
#include "tests/core/forward/forward_rig.h"
#include "tests/core/wire/fragment_packets.h"
#include "tests/support/scripted_datagrams.h"

namespace netstack::test {

inline std::string TextOf(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline ByteVector BytesOf(absl::string_view text) {
  const auto* p = reinterpret_cast<const std::byte*>(text.data());
  return {p, p + text.size()};
}

// An ICMP message without checksum, as a ping socket takes and gives it.
inline std::string EchoText(bool v4, bool reply, uint16_t id, uint16_t seq,
                            absl::string_view data) {
  ByteVector h(8);
  Store8(&h[0], v4 ? (reply ? 0 : 8) : (reply ? 129 : 128));
  Store16(&h[4], id);
  Store16(&h[6], seq);
  return TextOf(h) + std::string(data);
}

struct IcmpRig {
  struct Settings {
    IcmpForwarder::Options options{};
    IcmpResponder::Options icmp{};
    ScriptedTun::Options tun{};
    uint32_t max_flows = 1024;
  };

  IcmpRig() : IcmpRig(Settings{}) {}
  explicit IcmpRig(const Settings& s)
      : tun(s.tun), slots(s.max_flows), icmp(&writer, &drops, s.icmp, {1, 2}) {
    IcmpForwarder::Parts parts;
    parts.slots = &slots;
    parts.dialer = &dialer;
    parts.datagrams = &datagrams;
    parts.poller = &poller;
    parts.writer = &writer;
    parts.icmp = &icmp;
    parts.drops = &drops;
    parts.listener = &listener;
    echoes = std::make_unique<IcmpForwarder>(parts, s.options,
                                             SipHashKey{3, 4});
    echoes->SetFlowChanges(true);
  }
  ~IcmpRig() {
    echoes->Shutdown(now());
    EXPECT_EQ(slots.used(), 0u);
    EXPECT_EQ(dialer.in_use(), 0u);
    EXPECT_EQ(sockets.open_count(), 0u);
    EXPECT_EQ(poller.watch_count(), 0u);
    EXPECT_EQ(echoes->stats().active, 0u);
    EXPECT_EQ(echoes->stats().sockets, 0u);
    size_t opened = 0, closed = 0;
    for (const auto& [change, flow] : listener.changes) {
      if (change == FlowChange::kOpened) ++opened;
      if (change == FlowChange::kClosed) ++closed;
    }
    EXPECT_EQ(opened, closed);
  }

  Instant now() { return clock.Now(); }
  uint64_t dropped(DropReason r) const {
    return drops.packets()[static_cast<size_t>(r)];
  }
  // A packet as the dispatcher gives it on.
  void Give(const ByteVector& bytes, bool was_fragmented = false) {
    ExactCopy copy(bytes);
    OrDrop<Packet> packet = ParsePacket(copy.bytes());
    ASSERT_TRUE(packet);
    if (was_fragmented) packet->dont_fragment = false;
    const OrDrop<IcmpMessage> message =
        ParseIcmp(*packet, ChecksumTrust::kVerify);
    ASSERT_TRUE(message);
    ASSERT_EQ(FateOfIcmp(*message, packet->is_v4), IcmpFate::kEcho);
    echoes->OnEcho(*packet, *message, now());
  }
  // The poller's word about a socket.
  void Event(int fd, PollEvent event) {
    const auto watch = poller.watch(fd);
    ASSERT_TRUE(watch.has_value());
    event.token = watch->token;
    ASSERT_EQ(event.token.kind, PollToken::Kind::kEcho);
    echoes->OnSocket(event, now());
  }
  void Readable(int fd) { Event(fd, {.token = {}, .readable = true}); }
  void Error(int fd) {
    Event(fd, {.token = {}, .readable = true, .error = true});
  }
  int last_fd() { return sockets.last().fd; }
  ScriptedDatagramSocket& last() { return datagrams.Of(last_fd()); }
  std::vector<Reply> TakeReplies() {
    std::vector<Reply> replies;
    for (const auto& written : tun.TakeWritten()) {
      replies.push_back(Understand(written));
    }
    return replies;
  }

  FakeClock clock;
  ScriptedTun tun;
  ScriptedSockets sockets;
  ScriptedDatagrams datagrams{&sockets};
  ScriptedPoller poller{&clock};
  TunStats tun_stats;
  DropCounters drops;
  Listener listener;
  FlowSlots slots;
  TunWriter writer{&tun, &tun_stats, &drops};
  Dialer dialer{&sockets, Dialer::Options{}};
  IcmpResponder icmp;
  std::unique_ptr<IcmpForwarder> echoes;
};

}  // namespace netstack::test

#endif  // TESTS_CORE_FORWARD_ICMP_RIG_H_

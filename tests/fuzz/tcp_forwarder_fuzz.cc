// The TCP forwarder, stateful: packets of four apps, events of their sockets,
// time, full TUNs, failing memory, in any order.
//
// Whatever comes in: the host gets a prefix of what the app sent, the app gets
// what the host sent at the right places, a socket is never used after it was
// closed (the scripted ones tell), and at the end every flow has ended, every
// counter adds up and nothing is left.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/lwip/heap.h"
#include "tests/core/forward/forward_rig.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/fuzz/tcp_steps.h"

namespace netstack::fuzz {
namespace {

using test::kV4;
using test::kV6;
using test::Rig;

constexpr size_t kApps = 4;

std::string StreamText(uint32_t place, uint32_t size, bool inbound) {
  std::string s(size, '\0');
  for (uint32_t i = 0; i < size; ++i) {
    s[i] = static_cast<char>(StreamByte(place + i, inbound));
  }
  return s;
}

Rig::Settings SettingsOf(uint8_t b) {
  Rig::Settings s;
  s.tun.offload = (b & 1) != 0;
  s.budget = (b & 2) != 0 ? 128 * 1024 : 0;
  s.max_flows = (b & 4) != 0 ? 2 : 100;
  s.forwarder.gate.max_half_open = (b & 8) != 0 ? 4 : 100;
  s.forwarder.gate.max_per_destination = (b & 16) != 0 ? 2 : 100;
  s.abort_on_assert = AbortOnAssert();
  return s;
}

// An app, and what it knows of its connection.
struct App {
  const test::Family* family = nullptr;
  uint16_t port = 0;
  uint16_t remote_port = 80;
  uint32_t isn = 0;
  uint32_t sent = 0;         // place of the next byte
  uint32_t our_isn = 0;      // of the newest SYN-ACK
  uint32_t received_to = 0;  // the next sequence number expected
};

class World {
 public:
  explicit World(Steps steps) : steps_(steps), rig_(SettingsOf(steps_.U8())) {
    for (size_t i = 0; i < kApps; ++i) {
      apps_[i].family = i % 2 == 0 ? &kV4 : &kV6;
      apps_[i].port = static_cast<uint16_t>(1000 + i);
      apps_[i].remote_port = i < 2 ? 80 : 81;
    }
    rig_.tcp->SetFlowChanges(true);
  }

  void Run() {
    for (int step = 0; step < 400 && !steps_.done(); ++step) {
      Step();
      rig_.Turn();
      Look();
    }
    SetLwipAllocationFaults(0);
    rig_.tcp->Shutdown(rig_.now());
    Look();
    CheckEnd();
  }

 private:
  void Step() {
    const uint8_t op = steps_.U8();
    App& app = apps_[(op >> 5) % kApps];
    switch (op & 31) {
      case 0:
      case 1:  // a new connection
        app.isn += 1u << 24;
        app.sent = 0;
        return Packet(app, 0u - 1, 0, tcp_flag::kSyn, 0);
      case 2:  // the same SYN again
        return Packet(app, 0u - 1, 0, tcp_flag::kSyn, 0);
      case 3:  // another one in its place
        app.isn += (steps_.U8() & 3u) << 24;
        return Packet(app, 0u - 1, 0, tcp_flag::kSyn, steps_.U8());
      case 4:
      case 5:
      case 6:
      case 7: {  // the next bytes
        const uint32_t size = std::min(steps_.Size(), 65'000u);
        Packet(app, app.sent, app.received_to, tcp_flag::kAck, size);
        app.sent += size;
        return;
      }
      case 8: {  // ahead or again
        const uint32_t place = app.sent + steps_.U8() - 100;
        return Packet(app, place, app.received_to, tcp_flag::kAck, steps_.U8());
      }
      case 9: {
        Packet(app, app.sent, app.received_to, tcp_flag::kAck | tcp_flag::kFin,
               0);
        ++app.sent;
        return;
      }
      case 10:
        return Packet(app, app.sent, app.received_to, tcp_flag::kRst, 0);
      case 11:  // an RST that may or may not be believed
        return Packet(app, (steps_.U8() & 3) - 2u, 0, tcp_flag::kRst, 0);
      case 12: {  // anything
        uint32_t place = steps_.U32();
        const uint32_t ack = steps_.U32();
        const uint8_t flags = steps_.U8() & 0x3F;
        // Every ISN is a multiple of 2^24, see StreamByte().
        if ((flags & tcp_flag::kSyn) != 0) place = (place << 24) - 1;
        return Packet(app, place, ack, flags, steps_.U8());
      }
      case 13:
        window_ = steps_.U16();
        return;
      case 14:
      case 15:
      case 16: {
        const uint8_t bits = steps_.U8();
        return SocketEvent((bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0,
                           (bits & 8) != 0);
      }
      case 17:  // the dial succeeds
        return SocketEvent(false, true, false, false);
      case 18:
        if (test::ScriptedSocket* s = Socket()) {
          s->so_error = kErrors[steps_.U8() % kErrors.size()];
        }
        return;
      case 19:
        if (test::ScriptedSocket* s = Socket()) {
          int& error = steps_.U8() % 2 == 0 ? s->send_error : s->receive_error;
          error = kErrors[steps_.U8() % kErrors.size()];
        }
        return;
      case 20:
      case 21:
        if (test::ScriptedSocket* s = Socket()) {
          const uint32_t size = std::max(steps_.Size(), 1u);
          if (s->end) return;
          uint32_t& fed = FedOf(*s);
          // One piece: a short read means that the socket is empty.
          std::string all = s->pieces.empty() ? "" : s->pieces.front();
          s->pieces.clear();
          s->Feed(all + StreamText(fed, size, true));
          fed += size;
          return Event(*s, {.token = {}, .readable = true});
        }
        return;
      case 22:
        if (test::ScriptedSocket* s = Socket()) {
          s->FeedEnd();
          return Event(*s,
                       {.token = {}, .readable = true, .read_closed = true});
        }
        return;
      case 23:
        if (test::ScriptedSocket* s = Socket()) {
          s->send_room = steps_.Size();
          if (s->send_room > 0)
            return Event(*s, {.token = {}, .writable = true});
        }
        return;
      case 24:
        rig_.sockets.connect_result = -kErrors[steps_.U8() % kErrors.size()];
        return;
      case 25:
        rig_.sockets.open_results.assign(steps_.U8() & 3, -EMFILE);
        return;
      case 26:
        return rig_.Advance(std::chrono::milliseconds(steps_.U8()));
      case 27:
        return rig_.Advance(std::chrono::seconds(steps_.U8()));
      case 28:
        if (steps_.U8() % 2 == 0) {
          rig_.tun.BlockWrites();
        } else {
          rig_.tun.AllowWrites();
          rig_.tcp->OnTunWritable(rig_.now());
        }
        return;
      case 29: {
        const uint8_t n = steps_.U8();
        SetLwipAllocationFaults(n < 128 ? 0 : n & 15);
        return;
      }
      case 30: {
        const int error = steps_.U8() % 2 == 0 ? EAGAIN : EIO;
        rig_.tun.FailWrites(error, steps_.U8() & 7);
        return;
      }
      default: {
        FlowFilter filter;
        filter.app_port = app.port;
        (void)rig_.tcp->Close(filter, rig_.now());
        return;
      }
    }
  }

  static constexpr std::array<int, 10> kErrors = {
      EINPROGRESS, 0,      ECONNREFUSED, ENETUNREACH, EHOSTUNREACH,
      EACCES,      EMFILE, EPIPE,        ECONNRESET,  ETIMEDOUT};

  void Packet(App& app, uint32_t place, uint32_t ack, uint8_t flags,
              uint32_t size) {
    test::TcpSpec spec;
    spec.source_port = app.port;
    spec.destination_port = app.remote_port;
    spec.seq = app.isn + 1 + place;
    spec.ack = (flags & tcp_flag::kAck) != 0 ? ack : 0;
    spec.flags = flags;
    spec.window = window_;
    if ((flags & tcp_flag::kSyn) != 0) {
      const uint8_t n = steps_.U8();
      if ((n & 1) != 0) spec.options = test::Hex("020405B4 01030307 01010402");
      if ((n & 2) != 0) spec.options.resize(n & 15, std::byte{n});
    }
    const std::string payload = StreamText(place, size, false);
    const auto* p = reinterpret_cast<const std::byte*>(payload.data());
    spec.payload.assign(p, p + size);
    const test::ByteVector bytes = test::MakeTcpPacket(*app.family, spec);
    test::ExactCopy copy(bytes);
    const OrDrop<netstack::Packet> packet = ParsePacket(copy.bytes());
    FUZZ_CHECK(packet);
    const OrDrop<TcpSegment> segment =
        ParseTcp(*packet, ChecksumTrust::kTrusted);
    if (!segment) return;
    rig_.tcp->OnSegment(*packet, *segment, rig_.now());
    // The buffer is the reader's again.
    std::fill(copy.bytes().begin(), copy.bytes().end(), std::byte{0xEE});
  }

  // One of the newest sockets that are open.
  test::ScriptedSocket* Socket() {
    const auto& all = rig_.sockets.all();
    if (all.empty()) return nullptr;
    const size_t back = 1 + steps_.U8() % std::min<size_t>(all.size(), 6);
    test::ScriptedSocket* s = all[all.size() - back].get();
    return s->closed ? nullptr : s;
  }
  void SocketEvent(bool readable, bool writable, bool read_closed, bool error) {
    test::ScriptedSocket* s = Socket();
    if (s == nullptr) return;
    Event(*s, {.token = {},
               .readable = readable,
               .writable = writable,
               .read_closed = read_closed,
               .error = error});
  }
  void Event(test::ScriptedSocket& s, PollEvent event) {
    const auto watch = rig_.poller.watch(s.fd);
    if (!watch) return;
    event.token = watch->token;
    rig_.tcp->OnSocket(event, rig_.now());
  }
  uint32_t& FedOf(const test::ScriptedSocket& s) {
    const auto index = static_cast<size_t>(s.fd - 1000);
    if (fed_.size() <= index) fed_.resize(index + 1);
    return fed_[index];
  }

  // What has come out at both sides.
  void Look() {
    const bool honest = rig_.tcp->stats().lwip_asserts == 0;
    for (const auto& written : rig_.tun.TakeWritten()) {
      const test::Reply r = test::Understand(written);
      if (!r.tcp) continue;
      const auto app = std::find_if(
          apps_.begin(), apps_.end(),
          [&r](const App& a) { return a.port == r.tcp->destination_port; });
      FUZZ_CHECK(app != apps_.end());
      FUZZ_CHECK(r.packet.destination == app->family->app);
      if (r.Has(tcp_flag::kRst)) continue;
      if (r.Has(tcp_flag::kSyn)) {
        app->our_isn = r.tcp->seq;
        app->received_to = r.tcp->seq + 1;
        continue;
      }
      uint32_t place = r.tcp->seq - app->our_isn - 1;
      for (const std::byte b : r.tcp->payload) {
        if (honest) {
          FUZZ_CHECK(static_cast<uint8_t>(b) == StreamByte(place, true));
        }
        ++place;
      }
      const uint32_t end = r.tcp->seq +
                           static_cast<uint32_t>(r.tcp->payload.size()) +
                           (r.Has(tcp_flag::kFin) ? 1 : 0);
      if (r.tcp->seq == app->received_to) app->received_to = end;
    }
    for (const auto& s : rig_.sockets.all()) {
      size_t& seen = SeenOf(*s);
      for (; seen < s->sent.size(); ++seen) {
        if (!honest) continue;
        FUZZ_CHECK(static_cast<uint8_t>(s->sent[seen]) ==
                   StreamByte(static_cast<uint32_t>(seen), false));
      }
    }
    // The scripted sockets and the poller complain through GoogleTest.
    FUZZ_CHECK(
        !testing::UnitTest::GetInstance()->ad_hoc_test_result().Failed());
    CheckLists();
  }
  size_t& SeenOf(const test::ScriptedSocket& s) {
    const auto index = static_cast<size_t>(s.fd - 1000);
    if (seen_.size() <= index) seen_.resize(index + 1);
    return seen_[index];
  }

  void CheckLists() {
    const TcpStats stats = rig_.tcp->stats();
    uint64_t closed = 0;
    for (const uint64_t n : stats.closed) closed += n;
    FUZZ_CHECK(stats.opened == closed + stats.active);
    FUZZ_CHECK(stats.half_open <= stats.active);
    const auto flows = rig_.List();
    FUZZ_CHECK(flows.size() == stats.active);
    size_t time_wait = 0;
    for (const FlowInfo& f : flows) {
      time_wait += f.state == FlowState::kTimeWait;
    }
    FUZZ_CHECK(time_wait == stats.time_wait);
    FUZZ_CHECK(rig_.dialer.in_use() == rig_.sockets.open_count());
  }

  void CheckEnd() {
    const TcpStats stats = rig_.tcp->stats();
    FUZZ_CHECK(stats.active == 0);
    FUZZ_CHECK(stats.half_open == 0);
    FUZZ_CHECK(stats.time_wait == 0);
    FUZZ_CHECK(rig_.pool.used() == 0);
    FUZZ_CHECK(rig_.pool.HasRoom(rig_.pool.budget()));
    FUZZ_CHECK(rig_.sockets.open_count() == 0);
    // Every flow was told to begin and to end, once each.
    uint64_t opened = 0;
    uint64_t closed = 0;
    for (const auto& [change, flow] : rig_.listener.changes) {
      opened += change == FlowChange::kOpened;
      closed += change == FlowChange::kClosed;
    }
    FUZZ_CHECK(opened == stats.opened);
    FUZZ_CHECK(closed == stats.opened);
  }

  Steps steps_;
  Rig rig_;
  std::array<App, kApps> apps_;
  std::vector<uint32_t> fed_;
  std::vector<size_t> seen_;
  uint16_t window_ = 65'535;
};

}  // namespace
}  // namespace netstack::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // The listener of the process, made by its first engine.
  static const bool warm = [] {
    return netstack::test::Rig().engine != nullptr;
  }();
  (void)warm;
  const uint64_t live = netstack::GetLwipHeapStats().live;
  netstack::fuzz::World(netstack::fuzz::Steps(data, size)).Run();
  FUZZ_CHECK(netstack::GetLwipHeapStats().live == live);
  return 0;
}

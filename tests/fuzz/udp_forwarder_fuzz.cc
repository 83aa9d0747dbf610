// The UDP forwarder, stateful: datagrams and batches of a few apps, answers and
// errors of a hostile network, time, failing sockets, a full TUN.
//
// Whatever comes in: what an app gets is from the network with its bytes, or an
// error about itself; every mapping has a socket and a place, every flow a
// mapping; limits hold; each flow is told to begin and to end once; at the end
// nothing is left.
//
// Steps: 0-2 a datagram (port, destination, size, marks), 3 an answer, 4 an
// error, 5 raw bytes as an app's packet, 6 time, 7 faults.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/core/forward/forward_rig.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/fuzz/tcp_steps.h"

namespace netstack::fuzz {
namespace {

using test::ByteVector;
using test::Family;
using test::Rig;

Rig::Settings SettingsOf(uint8_t b) {
  Rig::Settings s;
  s.udp.max_flows = (b & 1) != 0 ? 6 : 1000;
  s.udp.max_peers = (b & 1) != 0 ? 3 : 100;
  s.max_flows = (b & 2) != 0 ? 3 : 100;
  s.udp.filtering = static_cast<UdpFiltering>((b >> 2) % 3);
  s.tun.offload = (b & 16) != 0;
  s.tun.udp_offload = (b & 32) != 0 && s.tun.offload;
  s.tun.mtu = (b & 64) != 0 ? 1280 : 1500;
  s.udp.preserve_ports = (b & 128) == 0;
  return s;
}

class World {
 public:
  explicit World(Steps steps)
      : settings_(SettingsOf(steps.U8())), steps_(steps), rig_(settings_) {
    (void)steps_.U8();
    rig_.udp->SetFlowChanges(true);
  }

  void Run() {
    for (int i = 0; i < 400 && !steps_.done(); ++i) {
      Step();
      if (!keep_batch_) rig_.udp->Flush(rig_.now());
      if (!keep_batch_) rig_.udp->OnTurn(rig_.now());
      Look();
    }
    rig_.tun.AllowWrites();
    rig_.udp->Shutdown(rig_.now());
    FUZZ_CHECK(rig_.sockets.open_count() == 0);
    FUZZ_CHECK(rig_.slots.used() == 0);
    FUZZ_CHECK(rig_.udp->List({}, 0, 1000, rig_.now()).empty());
    size_t opened = 0, closed = 0;
    for (const auto& [change, flow] : rig_.listener.changes) {
      opened += change == FlowChange::kOpened;
      closed += change == FlowChange::kClosed;
    }
    FUZZ_CHECK(opened == closed);
    FUZZ_CHECK(opened == rig_.udp->stats().opened);
  }

 private:
  static IpAddress AddressOf(uint8_t n, bool v4) {
    if (n == 7) return v4 ? IpAddress::V4(198, 51, 100, 9)
                          : *IpAddress::Parse("2001:db8:1::9");  // ours
    if (n == 6) return v4 ? IpAddress::V4(239, 1, 2, 3)
                          : *IpAddress::Parse("ff02::c");
    return v4 ? IpAddress::V4(192, 0, 2, n)
              : *IpAddress::Parse("2001:db8::" + std::to_string(n + 1));
  }
  const Family& FamilyOf(uint8_t b) const {
    return (b & 1) != 0 ? test::kV6 : test::kV4;
  }
  static std::string Payload(size_t size, bool inbound) {
    std::string s(size, '\0');
    for (size_t i = 0; i < size; ++i) {
      s[i] = static_cast<char>(StreamByte(static_cast<uint32_t>(i), inbound));
    }
    return s;
  }
  void Give(const ByteVector& packet, uint16_t segment) {
    test::ExactCopy copy(packet);
    OrDrop<Packet> parsed = ParsePacket(copy.bytes());
    if (!parsed || parsed->is_fragment || parsed->protocol != 17) return;
    const OrDrop<UdpDatagram> udp = ParseUdp(*parsed, ChecksumTrust::kTrusted);
    if (!udp) return;
    rig_.udp->OnDatagram(*parsed, *udp, segment, rig_.now());
    std::fill(copy.bytes().begin(), copy.bytes().end(), std::byte{0xEE});
  }
  // An open socket, or -1.
  int Open(uint8_t b) {
    std::vector<int> open;
    for (const auto& s : rig_.sockets.all()) {
      if (!s->closed) open.push_back(s->fd);
    }
    return open.empty() ? -1 : open[b % open.size()];
  }

  void Step() {
    const uint8_t b = steps_.U8();
    const uint8_t what = b & 7, n = b >> 3;
    switch (what) {
      case 0:
      case 1:
      case 2:
        return SendFromApp(n);
      case 3:
        return Answer(n);
      case 4:
        return Error(n);
      case 5: {
        ByteVector raw(std::min<size_t>(steps_.U8(), 100));
        for (std::byte& x : raw) x = std::byte{steps_.U8()};
        const Family& f = FamilyOf(n);
        return Give(test::MakeIp(f.app, AddressOf((n >> 1) & 7, f.v4()), 17,
                                 raw),
                    steps_.U16());
      }
      case 6: {
        const Duration d = std::chrono::milliseconds(250) * steps_.U8();
        keep_batch_ = false;
        rig_.udp->Flush(rig_.now());
        rig_.Advance(d);
        return;
      }
      default:
        return Fault(n);
    }
  }

  void SendFromApp(uint8_t n) {
    const uint8_t who = steps_.U8();
    const Family& f = FamilyOf(who);
    const IpAddress to = AddressOf((who >> 1) & 7, f.v4());
    const size_t size = std::min<size_t>(steps_.Size(), 60'000);
    const uint8_t marks = steps_.U8();
    ByteVector udp(8);
    Store16(&udp[0], static_cast<uint16_t>(40000 + n % 6));
    Store16(&udp[2], static_cast<uint16_t>(
                         (who & 16) != 0 ? 40000 + (who >> 5) : 50 + (who >> 5)));
    Store16(&udp[4], static_cast<uint16_t>(8 + size));
    for (char c : Payload(size, false)) {
      udp.push_back(static_cast<std::byte>(c));
    }
    ByteVector packet = test::MakeIp(f.app, to, 17, udp);
    if (f.v4()) {
      Store8(&packet[1], marks & 3);
      if ((marks & 4) != 0) Store16(&packet[6], 0);
      test::FixV4Checksum(packet);
    }
    keep_batch_ = (marks & 8) != 0;
    const auto segment = static_cast<uint16_t>(
        (marks & 16) != 0 ? 1 + (marks >> 5) * 211 : 0);
    Give(packet, segment);
  }

  void Answer(uint8_t n) {
    const int fd = Open(n);
    const uint8_t who = steps_.U8();
    const size_t size = std::min<size_t>(steps_.Size(), 60'000);
    const auto segment =
        static_cast<uint16_t>((who & 128) != 0 ? 1 + steps_.U8() * 8 : 0);
    if (fd < 0) return;
    const bool v4 = rig_.sockets.Get(fd).v4;
    test::ScriptedDatagramSocket::Arrival a;
    a.from = {AddressOf((who >> 1) & 3, v4),
              static_cast<uint16_t>(50 + ((who >> 3) & 15))};
    a.to = AddressOf(7, v4);
    a.payload = Payload(size, true);
    a.segment_size = segment < size ? segment : 0;
    rig_.datagrams.Of(fd).Feed(a);
    const auto watch = rig_.poller.watch(fd);
    FUZZ_CHECK(watch.has_value());
    rig_.udp->OnSocket({.token = watch->token, .readable = true}, rig_.now());
  }

  void Error(uint8_t n) {
    const int fd = Open(n);
    const uint8_t who = steps_.U8(), kind = steps_.U8();
    DatagramError error;
    error.type = steps_.U8();
    error.code = steps_.U8();
    const size_t quoted = std::min<size_t>(steps_.Size(), 4000);
    if (fd < 0) return;
    const bool v4 = rig_.sockets.Get(fd).v4;
    constexpr int kErrors[] = {ECONNREFUSED, EHOSTUNREACH, EMSGSIZE, EPROTO};
    error.error = kErrors[kind & 3];
    error.local = (kind & 4) != 0;
    error.mtu = (kind & 8) != 0 ? 1300 : 0;
    error.offender = AddressOf(kind >> 5, (kind & 16) != 0 ? !v4 : v4);
    error.destination = {AddressOf((who >> 1) & 7, v4),
                         static_cast<uint16_t>(50 + (who >> 5))};
    rig_.datagrams.Of(fd).PushError(error, Payload(quoted, false));
    if ((who & 1) != 0) return;  // met by the next call
    const auto watch = rig_.poller.watch(fd);
    rig_.udp->OnSocket(
        {.token = watch->token, .readable = true, .error = true}, rig_.now());
  }

  void Fault(uint8_t n) {
    const int fd = Open(steps_.U8());
    switch (n % 12) {
      case 0:
        rig_.sockets.open_results.push_back(-EMFILE);
        return;
      case 1:
        rig_.sockets.open_results.push_back(-EAFNOSUPPORT);
        return;
      case 2:
        return rig_.tun.BlockWrites();
      case 3:
        rig_.tun.AllowWrites();
        if (!rig_.writer.blocked()) return;
        rig_.writer.Unblock();
        return rig_.udp->OnTunWritable(rig_.now());
      case 4:
        if (fd >= 0) rig_.datagrams.Of(fd).send_errors = {ENETUNREACH};
        return;
      case 5:
        if (fd >= 0) {
          rig_.datagrams.Of(fd).send_errors = {EIO, EIO, EINVAL, EPERM};
        }
        return;
      case 6:
        if (fd >= 0) rig_.datagrams.Of(fd).send_room = steps_.U8();
        return;
      case 7:
        if (fd >= 0) rig_.datagrams.Of(fd).path_mtu = 1300;
        return;
      case 8:
        rig_.datagrams.taken_ports = {40000, 40002, 40004};
        return;
      case 9: {
        FlowFilter filter;
        filter.remote_port = static_cast<uint16_t>(50 + steps_.U8() % 8);
        (void)rig_.udp->Close(filter, rig_.now());
        return;
      }
      case 10: {
        UdpForwarder::Options o = settings_.udp;
        o.idle = std::chrono::seconds(1 + steps_.U8());
        return rig_.udp->Configure(o, rig_.now());
      }
      default:
        return rig_.udp->Trim();
    }
  }

  void Look() {
    const UdpStats stats = rig_.udp->stats();
    FUZZ_CHECK(stats.mappings == rig_.sockets.open_count());
    FUZZ_CHECK(stats.mappings == rig_.slots.used());
    FUZZ_CHECK(stats.active >= stats.mappings);
    FUZZ_CHECK(stats.active <= settings_.udp.max_flows);
    FUZZ_CHECK(stats.mappings <= settings_.max_flows);
    FUZZ_CHECK(rig_.udp->List({}, 0, 2000, rig_.now()).size() == stats.active);
    for (const auto& written : rig_.tun.TakeWritten()) {
      const OrDrop<Packet> p = ParsePacket(written.bytes);
      FUZZ_CHECK(p);
      FUZZ_CHECK(p->destination == test::kV4.app ||
                 p->destination == test::kV6.app);
      FUZZ_CHECK(written.bytes.size() <= settings_.tun.mtu ||
                 written.how.segment_size != 0);
    }
  }

  const Rig::Settings settings_;
  Steps steps_;
  Rig rig_;
  bool keep_batch_ = false;  // more packets of this batch come
};

}  // namespace
}  // namespace netstack::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  netstack::fuzz::World(netstack::fuzz::Steps(data, size)).Run();
  return 0;
}

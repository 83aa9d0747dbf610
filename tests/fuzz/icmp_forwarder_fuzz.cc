// The ICMP forwarder, stateful: echoes of a few apps, replies and errors of a
// hostile network, time, failing sockets, a full TUN.
//
// Whatever comes in: what the app gets is a reply or an error with one of its
// own ids and about itself; every socket has a mapping and a place; each flow
// is told to begin and to end once; at the end nothing is left.
//
// Steps: 0-2 an echo (ids, destination, size, TTL), 3 a reply, 4 an error with
// a quote, 5 raw bytes from the network, 6 time, 7 faults.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>

#include "tests/core/forward/icmp_rig.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/fuzz/tcp_steps.h"

namespace netstack::fuzz {
namespace {

using test::ByteVector;
using test::EchoText;
using test::Family;
using test::IcmpRig;

IcmpRig::Settings SettingsOf(uint8_t b) {
  IcmpRig::Settings s;
  s.options.max_sockets = (b & 1) != 0 ? 3 : 64;
  s.max_flows = (b & 2) != 0 ? 2 : 100;
  s.tun.mtu = (b & 4) != 0 ? 1280 : 1500;
  if ((b & 8) != 0) s.icmp.per_second = 0;
  return s;
}

class World {
 public:
  explicit World(Steps steps) : steps_(steps), rig_(SettingsOf(steps_.U8())) {}

  void Run() {
    for (int i = 0; i < 400 && !steps_.done(); ++i) {
      Step();
      rig_.echoes->OnTurn(rig_.now());
      Look();
    }
    rig_.tun.AllowWrites();
    rig_.echoes->Shutdown(rig_.now());
    Look();
    FUZZ_CHECK(rig_.sockets.open_count() == 0);
    FUZZ_CHECK(rig_.slots.used() == 0);
    FUZZ_CHECK(rig_.echoes->List({}, 0, 1000, rig_.now()).empty());
    size_t opened = 0, closed = 0;
    for (const auto& [change, flow] : rig_.listener.changes) {
      opened += change == FlowChange::kOpened;
      closed += change == FlowChange::kClosed;
    }
    FUZZ_CHECK(opened == closed);
  }

 private:
  Family FamilyOf(uint8_t b) {
    Family f = (b & 1) != 0 ? test::kV6 : test::kV4;
    const uint8_t n = (b >> 1) & 7;
    if (f.v4()) {
      f.remote = IpAddress::V4(192, 0, 2, n);
    } else {
      f.remote = *IpAddress::Parse("2001:db8::" + std::to_string(n));
    }
    // The gateway itself.
    if (n == 7) f.remote = rig_.icmp.gateway().Of(f.v4());
    return f;
  }
  // A socket that is open, or none.
  test::ScriptedSocket* Open(uint8_t b) {
    std::vector<test::ScriptedSocket*> open;
    for (const auto& s : rig_.sockets.all()) {
      if (!s->closed) open.push_back(s.get());
    }
    return open.empty() ? nullptr : open[b % open.size()];
  }

  void Step() {
    const uint8_t op = steps_.U8();
    const uint8_t who = steps_.U8();
    switch (op & 7) {
      case 0:
      case 1:
      case 2:
        return Echo(op, who);
      case 3:
        return Reply(op, who);
      case 4:
        return Error(op, who);
      case 5:
        return Raw(op, who);
      case 6:
        rig_.clock.Advance(std::chrono::seconds(who));
        return;
      default:
        return Fault(who);
    }
  }

  void Echo(uint8_t op, uint8_t who) {
    const Family f = FamilyOf(who);
    const uint32_t size = steps_.Size() % 3000;
    const auto id = static_cast<uint16_t>(op >> 3);
    ByteVector packet =
        test::MakeIp(f.app, f.remote, f.v4() ? 1 : 58,
               test::MakeEcho(f, id, static_cast<uint16_t>(who >> 4),
                        ByteVector(size)));
    rig_.Give(packet, (who & 0x80) != 0);
  }

  void Reply(uint8_t op, uint8_t who) {
    test::ScriptedSocket* s = Open(op >> 3);
    if (s == nullptr) return;
    const uint32_t size = steps_.Size();
    Family f = FamilyOf(who);
    rig_.datagrams.Of(s->fd).Feed(
        {{f.remote, 0},
         EchoText(s->v4, true, 7, who >> 4, std::string(size % 60'000, 'r')),
         0,
         who,
         steps_.U8()});
    rig_.Readable(s->fd);
  }

  void Error(uint8_t op, uint8_t who) {
    test::ScriptedSocket* s = Open(op >> 3);
    if (s == nullptr) return;
    DatagramError e;
    const Family f = FamilyOf(who);
    e.destination = {f.remote, 0};
    const uint8_t kind = steps_.U8();
    e.local = (kind & 1) != 0;
    e.error = (kind & 2) != 0 ? EMSGSIZE : EHOSTUNREACH;
    e.type = steps_.U8();
    e.code = steps_.U8();
    e.mtu = steps_.U16();
    e.offender = FamilyOf(kind >> 2).remote;
    std::string quote = EchoText(s->v4, false, 7, who >> 4,
                                 std::string(steps_.Size() % 2000, 'q'));
    quote.resize(std::min<size_t>(quote.size(), steps_.Size()));
    rig_.datagrams.Of(s->fd).PushError(e, e.local ? "" : quote);
    // Or the next Send() meets it.
    if ((kind & 0x80) != 0) return;
    rig_.Event(s->fd, {.token = {}, .readable = true, .error = true});
  }

  void Raw(uint8_t op, uint8_t who) {
    test::ScriptedSocket* s = Open(op >> 3);
    if (s == nullptr) return;
    std::string bytes(steps_.U8() % 64, '\0');
    for (char& c : bytes) c = static_cast<char>(steps_.U8());
    rig_.datagrams.Of(s->fd).Feed({{FamilyOf(who).remote, 0}, bytes});
    rig_.Readable(s->fd);
  }

  void Fault(uint8_t b) {
    switch (b & 7) {
      case 0:
        rig_.sockets.open_results.push_back(-EACCES);
        return;
      case 1:
        rig_.sockets.open_results.push_back(-EMFILE);
        return;
      case 2:
        rig_.tun.BlockWrites();
        return;
      case 3:
        rig_.tun.AllowWrites();
        rig_.writer.Unblock();
        return;
      case 4:
        if (auto* s = Open(b >> 3)) {
          rig_.datagrams.Of(s->fd).send_errors.push_back(ENETUNREACH);
        }
        return;
      case 5:
        if (auto* s = Open(b >> 3)) rig_.datagrams.Of(s->fd).path_mtu = 1300;
        return;
      case 6:
        rig_.datagrams.prepare_result = (b & 8) != 0 ? -EINVAL : 0;
        return;
      default:
        rig_.echoes->Close({}, rig_.now());
        return;
    }
  }

  void Look() {
    for (const auto& written : rig_.tun.TakeWritten()) {
      const OrDrop<Packet> p = ParsePacket(written.bytes);
      FUZZ_CHECK(p);
      FUZZ_CHECK(p->bytes.size() == written.bytes.size());
      FUZZ_CHECK(p->destination == test::kV4.app ||
                 p->destination == test::kV6.app);
      if (p->is_fragment) continue;
      const OrDrop<IcmpMessage> icmp = ParseIcmp(*p, ChecksumTrust::kVerify);
      FUZZ_CHECK(icmp);
      if (icmp->type == (p->is_v4 ? 0 : 129)) {
        FUZZ_CHECK(icmp->id < 32);  // an app's
        continue;
      }
      // An error: what is quoted is from the app that gets it.
      FUZZ_CHECK(p->is_v4 ? icmp->type == 3 || icmp->type == 11 ||
                                icmp->type == 12
                          : icmp->type >= 1 && icmp->type <= 4);
      const size_t at = p->is_v4 ? 12 : 8;
      const size_t size = p->is_v4 ? 4 : 16;
      FUZZ_CHECK(icmp->payload.size() >= at + size);
      const std::byte* app = p->is_v4 ? p->destination.v4() : p->destination.v6();
      FUZZ_CHECK(std::equal(app, app + size, icmp->payload.begin() + at));
    }
    const IcmpStats s = rig_.echoes->stats();
    FUZZ_CHECK(s.sockets == rig_.sockets.open_count());
    FUZZ_CHECK(s.sockets == rig_.slots.used());
    FUZZ_CHECK(s.sockets == rig_.poller.watch_count());
    FUZZ_CHECK(s.active == rig_.echoes->List({}, 0, 10'000, rig_.now()).size());
    FUZZ_CHECK(rig_.echoes->next_deadline() > rig_.now() ||
               rig_.echoes->next_deadline() == kNever);
    FUZZ_CHECK(
        !testing::UnitTest::GetInstance()->ad_hoc_test_result().Failed());
  }

  Steps steps_;
  IcmpRig rig_;
};

}  // namespace
}  // namespace netstack::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  netstack::fuzz::World(netstack::fuzz::Steps(data, size)).Run();
  return 0;
}

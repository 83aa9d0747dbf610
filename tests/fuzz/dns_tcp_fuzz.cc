// DNS over TCP: the stream in the pieces that the first bytes say gives the
// same messages as in one piece, within bounds; and the server above it, with a
// resolver that echoes at once or later, loses none and gives each one answer.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/dns/framing.h"
#include "core/dns/stream_server.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/support/fake_clock.h"
#include "tests/support/scripted_poller.h"
#include "tests/support/scripted_sockets.h"

namespace netstack::dns {
namespace {

using Message = std::vector<std::byte>;

std::vector<Message> Read(const std::vector<Bytes>& pieces, bool* broken) {
  FrameReader reader;
  std::vector<Message> out;
  for (const Bytes& piece : pieces) {
    reader.Append(piece);
    while (const auto message = reader.Next()) {
      FUZZ_CHECK(message->size() >= kLeastFrame);
      out.emplace_back(message->begin(), message->end());
    }
    if (out.size() % 3 == 0) reader.Trim();
  }
  *broken = reader.broken();
  return out;
}

class Echo final : public StreamAsker {
 public:
  // Now and then there is none at first; what was promised is kept.
  bool HasRoom() const override {
    if (asked % 7 != 6 || granted == asked) return true;
    if (++refused % 2 == 0) granted = asked;
    return granted == asked;
  }
  void AskFromStream(const StreamRef& from, const Endpoint&, const Endpoint&,
                     Bytes query, Instant now) override {
    ++asked;
    if (asked % 3 == 0) {
      later.emplace_back(from, Message(query.begin(), query.end()));
      return;
    }
    server->Answer(from, query, now);
  }
  StreamServer* server = nullptr;
  size_t asked = 0;
  mutable size_t refused = 0;
  mutable size_t granted = SIZE_MAX;
  std::vector<std::pair<StreamRef, Message>> later;
};

void Serve(const std::vector<Bytes>& pieces, const std::vector<Message>& all,
           bool broken) {
  test::FakeClock clock;
  test::ScriptedSockets sockets;
  test::ScriptedPoller poller;
  Echo echo;
  StreamServer::Options options;
  options.max_in_flight = 4;
  StreamServer server(&sockets, &poller, &echo, options, clock.Now());
  echo.server = &server;
  const int app = server.Open({}, {}, clock.Now());
  FUZZ_CHECK(app >= 0);
  test::ScriptedSocket& ours = *sockets.Get(app).peer;
  const auto turn = [&](bool writable) {
    if (const auto watch = poller.watch(ours.fd); watch && !ours.closed) {
      server.OnSocket({watch->token, true, writable, false, false},
                      clock.Now());
    }
    for (auto& [ref, message] : std::exchange(echo.later, {})) {
      server.Answer(ref, message, clock.Now());
    }
    server.OnTurn(clock.Now());
  };
  for (const Bytes& piece : pieces) {
    if (ours.closed) break;
    if (!piece.empty()) (void)sockets.Send(app, {&piece, 1});
    ours.send_room = piece.size() * 2;  // often less than what is answered
    turn(true);
  }
  ours.send_room = SIZE_MAX;
  for (size_t i = 0; i < 2 * all.size() + 8 && !ours.closed; ++i) turn(true);
  FUZZ_CHECK(echo.asked <= all.size());
  if (!broken) {
    FUZZ_CHECK(echo.asked == all.size());
    size_t bytes = 0;
    for (const Message& m : all) bytes += m.size() + kFrameHeader;
    FUZZ_CHECK(ours.sent.size() == bytes);
  } else {
    FUZZ_CHECK(ours.closed);
  }
  server.Shutdown();
  sockets.Close(app, false);
  FUZZ_CHECK(sockets.open_count() == 0);
}

}  // namespace
}  // namespace netstack::dns

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using netstack::Bytes;
  if (size < 4 || size > 200'000) return 0;
  const Bytes all(reinterpret_cast<const std::byte*>(data) + 4, size - 4);
  std::vector<Bytes> pieces;
  for (size_t at = 0, i = 0; at < all.size(); ++i) {
    const size_t step =
        std::min<size_t>(all.size() - at, size_t{data[i % 4]} * 5 + 1);
    pieces.push_back(all.subspan(at, step));
    at += step;
  }
  bool broken = false, broken_whole = false;
  const auto cut = netstack::dns::Read(pieces, &broken);
  const auto whole = netstack::dns::Read({all}, &broken_whole);
  FUZZ_CHECK(cut == whole);
  FUZZ_CHECK(broken == broken_whole);
  netstack::dns::Serve(pieces, whole, broken);
  return 0;
}

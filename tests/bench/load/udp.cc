// UDP: a server and clients for round trips, floods, idle sessions and a
// voice-like stream.
//
// Messages begin with one byte: 'e' echo me; 's' count me; 'q' how many have
// you counted of me, which is answered with 'q' and a uint32; 'f' and three
// uint32 (count, size, datagrams per second) and a uint16 (datagrams per
// UDP_SEGMENT) flood me. All in the machine's byte order.
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/load/tools.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace netload {
namespace {

constexpr int kBuffer = 8 << 20;
constexpr size_t kFloodHeader = 15;

struct Flood {
  uint32_t count = 0, size = 0, rate = 0;
  uint16_t segments = 1;
};

Fd OpenUdp(int family) {
  Fd fd(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.ok()) DieWithErrno("socket");
  // Losses are to be the path's; where we may not, the system's limit holds.
  for (int option : {SO_RCVBUFFORCE, SO_SNDBUFFORCE, SO_RCVBUF, SO_SNDBUF}) {
    setsockopt(fd.get(), SOL_SOCKET, option, &kBuffer, sizeof(kBuffer));
  }
  return fd;
}

bool Readable(int fd, Micros patience) {
  pollfd p{fd, POLLIN, 0};
  const timespec t{static_cast<time_t>(patience.count() / 1e6),
                   static_cast<long>(
                       static_cast<int64_t>(patience.count()) % 1'000'000 *
                       1000)};
  return ppoll(&p, 1, &t, nullptr) == 1;
}

// Sends `count` datagrams at a rate: in bursts of what a quarter of a
// millisecond owes, sleeping between. How many the socket took.
uint32_t SendPaced(int fd, const sockaddr* to, socklen_t to_size, char kind,
                   const Flood& flood) {
  std::vector<char> bytes(size_t{flood.size} * flood.segments, kind);
  const uint32_t per_message = flood.segments;
  iovec part{bytes.data(), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(uint16_t))> control{};
  std::array<mmsghdr, 64> messages{};
  for (mmsghdr& m : messages) {
    m.msg_hdr.msg_name = const_cast<sockaddr*>(to);
    m.msg_hdr.msg_namelen = to_size;
    m.msg_hdr.msg_iov = &part;
    m.msg_hdr.msg_iovlen = 1;
    if (per_message > 1) {
      m.msg_hdr.msg_control = control.data();
      m.msg_hdr.msg_controllen = control.size();
      cmsghdr* c = CMSG_FIRSTHDR(&m.msg_hdr);
      c->cmsg_level = IPPROTO_UDP;
      c->cmsg_type = UDP_SEGMENT;
      c->cmsg_len = CMSG_LEN(sizeof(uint16_t));
      const auto size = static_cast<uint16_t>(flood.size);
      std::memcpy(CMSG_DATA(c), &size, sizeof(size));
    }
  }
  const Time start = Clock::now();
  uint32_t sent = 0, taken = 0;
  while (sent < flood.count) {
    const double elapsed = Seconds(Clock::now() - start).count();
    const auto due = std::min<double>(elapsed * flood.rate + 1, flood.count);
    while (sent < due) {
      const auto owed = static_cast<uint32_t>(due) - sent;
      const unsigned n = std::clamp<unsigned>(
          (owed + per_message - 1) / per_message, 1, messages.size());
      const int done = sendmmsg(fd, messages.data(), n, 0);
      if (done > 0) taken += static_cast<uint32_t>(done) * per_message;
      sent += (done > 0 ? static_cast<uint32_t>(done) : 1) * per_message;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(250));
  }
  return taken;
}

uint32_t Load(const char* p) {
  uint32_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

// Receives many at once and counts those of a kind.
uint64_t CountArrivals(int fd, char kind, uint64_t most, Micros silence) {
  std::vector<char> bytes(64 * 2048);
  std::array<mmsghdr, 64> messages{};
  std::array<iovec, 64> parts;
  for (size_t i = 0; i < messages.size(); ++i) {
    parts[i] = {bytes.data() + i * 2048, 2048};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  uint64_t got = 0;
  while (got < most && Readable(fd, silence)) {
    const int n = recvmmsg(fd, messages.data(), messages.size(), MSG_DONTWAIT,
                           nullptr);
    for (int i = 0; i < n; ++i) {
      got += bytes[static_cast<size_t>(i) * 2048] == kind;
    }
  }
  return got;
}

// What of `flood` arrived at the other side, either way.
struct FloodResult {
  double arrived = 0, seconds = 0;
};

FloodResult FloodUp(int fd, const Flood& flood) {
  const Time start = Clock::now();
  SendPaced(fd, nullptr, 0, 's', flood);
  const double seconds = Seconds(Clock::now() - start).count();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  for (int i = 0; i < 20; ++i) {
    if (send(fd, "q", 1, 0) != 1) continue;
    std::array<char, 2048> answer;
    while (Readable(fd, std::chrono::milliseconds(300))) {
      const ssize_t n = recv(fd, answer.data(), answer.size(), MSG_DONTWAIT);
      if (n == 5 && answer[0] == 'q') return {double(Load(&answer[1])), seconds};
    }
  }
  Die("the server does not say what it has counted");
}

FloodResult FloodDown(int fd, const Flood& flood) {
  std::array<char, kFloodHeader> ask{};
  ask[0] = 'f';
  std::memcpy(&ask[1], &flood.count, 4);
  std::memcpy(&ask[5], &flood.size, 4);
  std::memcpy(&ask[9], &flood.rate, 4);
  std::memcpy(&ask[13], &flood.segments, 2);
  const Time start = Clock::now();
  if (send(fd, ask.data(), ask.size(), 0) < 0) DieWithErrno("send");
  const uint64_t got = CountArrivals(fd, 'd', flood.count,
                                     std::chrono::milliseconds(500));
  return {double(got), Seconds(Clock::now() - start).count()};
}

void RoundTrips(int fd, Seconds length, size_t size) {
  std::vector<char> message(std::max<size_t>(size, 1), 'e');
  Samples samples;
  uint64_t lost = 0;
  const Time start = Clock::now();
  for (Time now = start; now - start < length;) {
    if (send(fd, message.data(), message.size(), 0) < 0) DieWithErrno("send");
    if (!Readable(fd, std::chrono::milliseconds(200))) {
      ++lost;
      now = Clock::now();
      continue;
    }
    (void)!recv(fd, message.data(), message.size(), 0);
    const Time then = std::exchange(now, Clock::now());
    samples.Add(now - then);
  }
  JsonLine("udp rtt")
      .Add(samples)
      .Add("rate", static_cast<double>(samples.size()) / length.count())
      .Add("lost", static_cast<double>(lost))
      .Print();
}

// Both ways, `rate` per second, on a schedule that nothing delays.
void Voice(int fd, Seconds length, double rate, size_t size) {
  const Micros step(1e6 / rate);
  const auto count = static_cast<uint32_t>(length.count() * rate);
  std::vector<char> message(std::max<size_t>(size, 16), 'e');
  std::vector<char> seen(count);
  Samples trips, jitter;
  uint32_t got = 0, twice = 0;
  const Time start = Clock::now();
  Time last_arrival{};
  uint32_t next = 0;
  const auto due = [&](uint32_t n) {
    return start + std::chrono::duration_cast<Clock::duration>(step * n);
  };
  // The last ones have a second to come back.
  const Time end = due(count) + std::chrono::seconds(1);
  while (Clock::now() < end && (next < count || got < count)) {
    const Time until = next < count ? due(next) : end;
    const Time now = Clock::now();
    if (now >= until && next < count) {
      std::memcpy(&message[1], &next, sizeof(next));
      (void)!send(fd, message.data(), message.size(), 0);
      ++next;
      continue;
    }
    if (!Readable(fd, std::max<Micros>(until - now, Micros(0)))) continue;
    std::array<char, 2048> answer;
    if (recv(fd, answer.data(), answer.size(), MSG_DONTWAIT) < 5) continue;
    const uint32_t number = Load(&answer[1]);
    if (number >= count) continue;
    twice += seen[number];
    if (seen[number]++ != 0) continue;
    ++got;
    const Time arrival = Clock::now();
    trips.Add(arrival - due(number));
    if (last_arrival != Time{}) {
      const Micros gap = arrival - last_arrival;
      jitter.Add(gap > step ? gap - step : step - gap);
    }
    last_arrival = arrival;
  }
  JsonLine("udp voice")
      .Add("sent", next)
      .Add("lost", next - got)
      .Add("twice", twice)
      .Add("jitter_p50_us", jitter.Percentile(50))
      .Add("jitter_p99_us", jitter.Percentile(99))
      .Add("jitter_max_us", jitter.Percentile(100))
      .Add(trips)
      .Print();
}

// The highest rate of which at most one datagram in a thousand is lost.
void Search(int fd, bool up, Flood flood, Seconds length) {
  double low = 0, high = 0, best = 0;
  for (double rate = 10'000; high == 0 || high / low > 1.08;
       rate = high == 0 ? low * 2 : (low + high) / 2) {
    flood.rate = static_cast<uint32_t>(rate);
    flood.count = static_cast<uint32_t>(rate * length.count());
    flood.count -= flood.count % flood.segments;
    const FloodResult r = up ? FloodUp(fd, flood) : FloodDown(fd, flood);
    const double reached = r.arrived / r.seconds;
    const bool good = r.arrived >= 0.999 * flood.count;
    best = good ? std::max(best, reached) : best;
    // A sender that cannot keep the rate has found the limit as well.
    if (good && reached > 0.9 * rate) {
      low = rate;
    } else {
      high = rate;
    }
    if (rate < 500 || rate > 5e7) break;
    if (low == 0) low = high / 16;
  }
  JsonLine(up ? "udp up" : "udp down").Add("pps", best).Print();
}

}  // namespace

int UdpServe(const Options& options) {
  Fd fd = OpenUdp(AF_INET6);
  const int off = 0, on = 1;
  setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
  // Answers come from where the question went: one socket per address would
  // be needed otherwise.
  setsockopt(fd.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  any.sin6_port = htons(static_cast<uint16_t>(options.Number("port", 7002)));
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&any), sizeof(any)) != 0) {
    DieWithErrno("cannot bind");
  }
  JsonLine("udpserve").Print();
  std::map<std::string, uint32_t> counted;
  constexpr size_t kBatch = 64, kRoom = 2048;
  std::vector<char> bytes(kBatch * kRoom);
  std::array<mmsghdr, kBatch> messages;
  std::array<iovec, kBatch> parts;
  std::array<sockaddr_in6, kBatch> from;
  std::array<std::array<char, 64>, kBatch> control;
  while (true) {
    for (size_t i = 0; i < kBatch; ++i) {
      parts[i] = {bytes.data() + i * kRoom, kRoom};
      messages[i] = {};
      msghdr& m = messages[i].msg_hdr;
      m.msg_name = &from[i];
      m.msg_namelen = sizeof(from[i]);
      m.msg_iov = &parts[i];
      m.msg_iovlen = 1;
      m.msg_control = control[i].data();
      m.msg_controllen = control[i].size();
    }
    // Waits for one and takes what is there.
    const int n = recvmmsg(fd.get(), messages.data(), kBatch, MSG_WAITFORONE,
                           nullptr);
    if (n < 0 && errno == EINTR) continue;
    for (int i = 0; i < n; ++i) {
      const auto k = static_cast<size_t>(i);
      char* p = bytes.data() + k * kRoom;
      const size_t size = messages[k].msg_len;
      msghdr& m = messages[k].msg_hdr;
      if (size == 0) continue;
      const auto who = [&] {
        return std::string(reinterpret_cast<const char*>(&from[k].sin6_addr),
                           16) +
               std::to_string(from[k].sin6_port);
      };
      // The address it came to is the one that answers.
      parts[k].iov_len = size;
      if (p[0] == 'e') {
        sendmsg(fd.get(), &m, 0);
      } else if (p[0] == 's') {
        ++counted[who()];
      } else if (p[0] == 'q') {
        const uint32_t count = std::exchange(counted[who()], 0);
        std::memcpy(p + 1, &count, sizeof(count));
        parts[k].iov_len = 5;
        sendmsg(fd.get(), &m, 0);
      } else if (p[0] == 'f' && size >= kFloodHeader) {
        Flood flood;
        flood.count = Load(p + 1);
        flood.size = std::min<uint32_t>(Load(p + 5), 1500);
        flood.rate = std::max<uint32_t>(Load(p + 9), 1);
        std::memcpy(&flood.segments, p + 13, 2);
        flood.segments = std::clamp<uint16_t>(flood.segments, 1, 40);
        // From a socket of the address that was asked, which the path's NAT
        // knows.
        Fd out = OpenUdp(AF_INET6);
        setsockopt(out.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
        setsockopt(out.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
        sockaddr_in6 local = any;
        for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr;
             c = CMSG_NXTHDR(&m, c)) {
          if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            in6_pktinfo info;
            std::memcpy(&info, CMSG_DATA(c), sizeof(info));
            local.sin6_addr = info.ipi6_addr;
          }
        }
        if (bind(out.get(), reinterpret_cast<sockaddr*>(&local),
                 sizeof(local)) != 0) {
          DieWithErrno("cannot bind");
        }
        SendPaced(out.get(), reinterpret_cast<sockaddr*>(&from[k]),
                  sizeof(from[k]), 'd', flood);
      }
    }
  }
}

int Udp(const Options& options) {
  const Address to = ParseAddress(options.Text("to", ""));
  const std::string what = options.Text("what", "rtt");
  const Seconds length(options.Number("seconds", 2));
  Flood flood;
  flood.size = static_cast<uint32_t>(options.Number("size", 64));
  flood.segments = static_cast<uint16_t>(options.Number("segments", 1));
  if (flood.size == 0 || flood.size > 1472 || flood.segments == 0 ||
      flood.segments > 40) {
    Die("--size 1-1472, --segments 1-40");
  }
  if (what == "idle") {
    RaiseFileLimit();
    const auto count = static_cast<size_t>(options.Number("count", 1000));
    std::vector<Fd> open;
    size_t alive = 0;
    const auto ask = [&](const Fd& fd) {
      for (int i = 0; i < 5; ++i) {
        if (send(fd.get(), "e", 1, 0) == 1 &&
            Readable(fd.get(), std::chrono::milliseconds(200))) {
          char c;
          return recv(fd.get(), &c, 1, 0) == 1;
        }
      }
      return false;
    };
    for (size_t i = 0; i < count; ++i) {
      Fd fd(socket(to.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
      if (!fd.ok() || connect(fd.get(), to.get(), to.size) != 0) {
        DieWithErrno("socket");
      }
      alive += ask(fd);
      open.push_back(std::move(fd));
    }
    JsonLine("udp idle").Add("open", static_cast<double>(alive)).Print();
    if (options.Number("hold", 0) < 0) {
      char c;
      while (read(0, &c, 1) > 0) {
      }
    }
    alive = 0;
    for (const Fd& fd : open) alive += ask(fd);
    JsonLine("udp idle").Add("alive", static_cast<double>(alive)).Print();
    return 0;
  }
  Fd fd = OpenUdp(to.family());
  if (connect(fd.get(), to.get(), to.size) != 0) DieWithErrno("connect");
  if (what == "rtt") {
    RoundTrips(fd.get(), length, flood.size);
  } else if (what == "voice") {
    Voice(fd.get(), length, options.Number("rate", 50), flood.size);
  } else if (what == "up" || what == "down") {
    Search(fd.get(), what == "up", flood, length);
  } else {
    Die("--what rtt, voice, up, down or idle");
  }
  return 0;
}

}  // namespace netload

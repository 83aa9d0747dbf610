#include "tests/bench/micro/core_rig.h"

#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <utility>

#include "core/wire/checksum.h"
#include "core/wire/headers.h"

namespace netstack::bench {
namespace {

constexpr uint32_t kPortsPerAddress = 50000;
constexpr uint16_t kFirstPort = 10000;
constexpr uint16_t kHostPort = 80;
// Flows that are opened at a time: far below the half-open limits.
constexpr uint32_t kOpenAtOnce = 128;

IpAddress Last(bool v4, uint8_t last) {
  if (v4) return IpAddress::V4(10, 10, 0, last);
  std::array<std::byte, 16> b{};
  b[0] = std::byte{0xFD};
  b[1] = std::byte{0x10};
  b[15] = std::byte{last};
  return IpAddress::V6(b.data());
}

Endpoint AppOf(uint32_t flow, bool v4) {
  return {Last(v4, static_cast<uint8_t>(2 + flow / kPortsPerAddress)),
          static_cast<uint16_t>(kFirstPort + flow % kPortsPerAddress)};
}

IpAddress HostOf(bool v4) { return Last(v4, 200); }

Duration ThreadCpuTime() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

class SilentObserver final : public Observer {
 public:
  void OnFlow(FlowChange, const FlowInfo&) override {}
  void OnEvent(const Event& event) override {
    std::fprintf(stderr, "core: %s\n", event.message.c_str());
  }
  void OnFailed(const absl::Status& why) override {
    std::fprintf(stderr, "core: %s\n", std::string(why.message()).c_str());
    std::abort();
  }
};

}  // namespace

// Hosts that connect, take and give at once.
class MemorySockets final : public Sockets {
 public:
  explicit MemorySockets(uint32_t most) {
    hosts_.reserve(most);
    free_.reserve(most);
    connecting_.reserve(kOpenAtOnce);
    ready_.reserve(4 * kOpenAtOnce);
  }

  struct Host {
    PollToken token;
    uint32_t unread = 0;
    bool finished = false;
    bool watched = false;
  };
  Host& at(int fd) { return hosts_[static_cast<size_t>(fd)]; }
  void MakeReady(int fd) { ready_.push_back(fd); }
  bool idle() const { return connecting_.empty() && ready_.empty(); }

  // What epoll would say.
  size_t Events(std::span<PollEvent> events) {
    size_t n = 0;
    while (n < events.size() && !connecting_.empty()) {
      events[n++] = {at(connecting_.back()).token, false, true, false, false};
      connecting_.pop_back();
    }
    while (n < events.size() && !ready_.empty()) {
      const Host& host = at(ready_.back());
      ready_.pop_back();
      if (!host.watched) continue;
      events[n++] = {host.token, true, true, host.finished, false};
    }
    return n;
  }

  int last_opened() const { return last_opened_; }

  int Open(SocketKind kind, bool) override {
    if (kind != SocketKind::kTcp) return -EACCES;  // TCP alone is measured
    if (free_.empty()) {
      hosts_.emplace_back();
      last_opened_ = static_cast<int>(hosts_.size()) - 1;
    } else {
      last_opened_ = free_.back();
      free_.pop_back();
      at(last_opened_) = {};
    }
    on_open(last_opened_);
    return last_opened_;
  }
  int Connect(int fd, const Endpoint&) override {
    connecting_.push_back(fd);
    return -EINPROGRESS;
  }
  int Disconnect(int) override { return 0; }
  SocketPair OpenPair() override { return {-EMFILE, -1, -1}; }
  int SetMark(int, uint32_t) override { return 0; }
  int BindToDevice(int, const std::string&) override { return 0; }
  int SetUserTimeout(int, Duration) override { return 0; }
  int SetTtl(int, bool, uint8_t) override { return 0; }
  int KeepErrors(int, bool, bool) override { return 0; }
  int TakeError(int) override { return 0; }
  int64_t Send(int, std::span<const Bytes> parts) override {
    int64_t n = 0;
    for (const Bytes& part : parts) n += static_cast<int64_t>(part.size());
    return n;
  }
  int64_t Receive(int fd, MutableBytes into) override {
    Host& host = at(fd);
    if (host.unread == 0) return host.finished ? 0 : -EAGAIN;
    const auto n = std::min<size_t>(host.unread, into.size());
    host.unread -= static_cast<uint32_t>(n);
    return static_cast<int64_t>(n);
  }
  int ShutdownWrite(int) override { return 0; }
  void Close(int fd, bool) override {
    at(fd).watched = false;
    free_.push_back(fd);
  }
  Endpoint LocalEndpoint(int) override { return {Last(true, 100), 40000}; }
  Duration RoundTripTime(int) override { return std::chrono::milliseconds(1); }
  uint32_t DescriptorLimit() override { return 1u << 20; }

  std::function<void(int)> on_open;

 private:
  std::vector<Host> hosts_;
  std::vector<int> free_;
  std::vector<int> connecting_;
  std::vector<int> ready_;
  int last_opened_ = -1;
};

// What the apps' kernel has sent and not yet given away.
class MemoryTun final : public Tun {
 public:
  MemoryTun(CoreRig* rig, bool offload) : rig_(rig), offload_(offload) {
    bytes_.reserve(1 << 20);
    packets_.reserve(1024);
  }

  // Room for a packet of `size` bytes, to be filled in.
  std::byte* Push(size_t size) {
    const size_t at = bytes_.size();
    bytes_.resize(at + size);
    packets_.push_back({at, size});
    return bytes_.data() + at;
  }
  bool empty() const { return next_ == packets_.size(); }

  int fd() const override { return -1; }
  const std::string& name() const override { return name_; }
  uint32_t mtu() const override { return 1500; }
  bool offload() const override { return offload_; }

  TunRead Read(std::span<const MutableBytes> parts) override {
    if (empty()) {
      packets_.clear();
      bytes_.clear();
      next_ = 0;
      return {};
    }
    const auto [at, size] = packets_[next_++];
    size_t done = 0;
    for (const MutableBytes& part : parts) {
      const size_t n = std::min(part.size(), size - done);
      std::memcpy(part.data(), bytes_.data() + at + done, n);
      done += n;
    }
    return {static_cast<int64_t>(size), offload_};
  }

  int Write(std::span<const Bytes> parts, const TunWrite&) override {
    size_t size = 0;
    for (const Bytes& part : parts) size += part.size();
    rig_->OnWritten(parts[0].data(), size);
    return 0;
  }

 private:
  struct Slice {
    size_t at;
    size_t size;
  };
  CoreRig* const rig_;
  const bool offload_;
  const std::string name_ = "memory0";
  std::vector<std::byte> bytes_;
  std::vector<Slice> packets_;
  size_t next_ = 0;
};

// Never sleeps.
class MemoryPoller final : public Poller {
 public:
  MemoryPoller(MemoryTun* tun, MemorySockets* sockets)
      : tun_(tun), sockets_(sockets) {}

  int Add(int fd, PollToken token, Trigger) override {
    if (fd < 0) {
      tun_token_ = token;
      return 0;
    }
    sockets_->at(fd).token = token;
    sockets_->at(fd).watched = true;
    return 0;
  }
  int Modify(int, PollToken, Trigger) override { return 0; }
  int Remove(int) override { return 0; }
  size_t Wait(Instant, Instant, std::span<PollEvent> events) override {
    size_t n = 0;
    if (!tun_->empty()) events[n++] = {tun_token_, true, false, false, false};
    return n + sockets_->Events(events.subspan(n));
  }
  void Wake() override {}

 private:
  MemoryTun* const tun_;
  MemorySockets* const sockets_;
  PollToken tun_token_;
};

CoreRig::CoreRig(const Options& options) : options_(options) {
  apps_.resize(options.flows);
  owing_.reserve(options.flows);
  Platform platform;
  auto tun = std::make_unique<MemoryTun>(this, options.offload);
  auto sockets = std::make_unique<MemorySockets>(options.flows + 1024);
  tun_ = tun.get();
  sockets_ = sockets.get();
  platform.clock = std::make_unique<SystemClock>();
  platform.poller = std::make_unique<MemoryPoller>(tun_, sockets_);
  platform.tun = std::move(tun);
  platform.sockets = std::move(sockets);
  platform.datagrams = NewDatagrams();  // not used: no app sends any
  observer_ = std::make_unique<SilentObserver>();
  Config config;
  auto loop = Loop::Create(config, std::move(platform), {}, observer_.get());
  if (!loop.ok()) {
    std::fprintf(stderr, "%s\n", std::string(loop.status().message()).c_str());
    std::abort();
  }
  loop_ = *std::move(loop);
}

CoreRig::~CoreRig() = default;

void CoreRig::Open(uint32_t flow) {
  // The next socket that is opened is this flow's: SYNs are read in order.
  apps_[flow] = {};
  apps_[flow].next_seq += flow;
  Queue(flow, tcp_flag::kSyn, 0, true);
  ++apps_[flow].next_seq;
}

void CoreRig::Send(uint32_t flow, size_t payload) {
  Queue(flow, tcp_flag::kAck | tcp_flag::kPsh, payload, false);
  apps_[flow].next_seq += static_cast<uint32_t>(payload);
  apps_[flow].owes_ack = false;
}

void CoreRig::SendBlindAck(uint32_t flow) {
  apps_[flow].next_ack += 1u << 30;
  Queue(flow, tcp_flag::kAck, 0, false);
  apps_[flow].next_ack -= 1u << 30;
}

void CoreRig::Finish(uint32_t flow) {
  Queue(flow, tcp_flag::kAck | tcp_flag::kFin, 0, false);
  ++apps_[flow].next_seq;
}

size_t CoreRig::Answer() {
  size_t answered = 0;
  for (const uint32_t flow : owing_) {
    if (!std::exchange(apps_[flow].owes_ack, false)) continue;
    Queue(flow, tcp_flag::kAck, 0, false);
    ++answered;
  }
  owing_.clear();
  return answered;
}

void CoreRig::HostSends(uint32_t flow, uint32_t bytes) {
  sockets_->at(apps_[flow].fd).unread += bytes;
  sockets_->MakeReady(apps_[flow].fd);
}

void CoreRig::HostFinishes(uint32_t flow) {
  sockets_->at(apps_[flow].fd).finished = true;
  sockets_->MakeReady(apps_[flow].fd);
}

CoreRig::Cost CoreRig::Turn() {
  const Duration cpu = ThreadCpuTime();
  const Instant begin = std::chrono::steady_clock::now();
  loop_->Turn(begin);
  const Duration wall = std::chrono::steady_clock::now() - begin;
  return {wall, ThreadCpuTime() - cpu};
}

Duration CoreRig::Settle() {
  Duration longest{};
  do {
    longest = std::max(longest, Turn().wall);
  } while (Answer() != 0 || !tun_->empty() || !sockets_->idle());
  return longest;
}

Duration CoreRig::OpenAll() {
  Duration longest{};
  for (uint32_t flow = 0; flow < options_.flows;) {
    const uint32_t end = std::min(flow + kOpenAtOnce, options_.flows);
    uint32_t opening = flow;
    sockets_->on_open = [&](int fd) { apps_[opening++].fd = fd; };
    for (; flow < end; ++flow) Open(flow);
    longest = std::max(longest, Settle());
  }
  return longest;
}

uint64_t CoreRig::established() const {
  return loop_->GetStats().tcp.established;
}

void CoreRig::Queue(uint32_t flow, uint8_t flags, size_t payload,
                    bool syn_options) {
  const App& app = apps_[flow];
  const Endpoint from = AppOf(flow, options_.v4);
  IpHeaderFields ip;
  ip.source = from.ip;
  ip.destination = HostOf(options_.v4);
  ip.protocol = ip_protocol::kTcp;
  // MSS 1460, SACK permitted, no-operation, window scale 7, as Linux sends.
  static constexpr uint8_t kOptions[12] = {2, 4, 5, 0xB4, 4, 2,
                                           1, 1, 1, 3,    3, 7};
  const size_t options = syn_options ? sizeof(kOptions) : 0;
  const size_t tcp_size = kTcpHeaderSize + options + payload;
  std::byte* packet = tun_->Push(IpHeaderSize(options_.v4) + tcp_size);
  std::byte* tcp = packet + WriteIpHeader(ip, tcp_size, packet);
  Store16(tcp, from.port);
  Store16(tcp + 2, kHostPort);
  Store32(tcp + 4, app.next_seq);
  Store32(tcp + 8, app.next_ack);
  Store8(tcp + 12, static_cast<uint8_t>((kTcpHeaderSize + options) / 4 << 4));
  Store8(tcp + 13, flags);
  Store16(tcp + 14, syn_options ? 64240 : 502);
  Store32(tcp + 16, 0);
  if (syn_options) std::memcpy(tcp + kTcpHeaderSize, kOptions, options);
  if (options_.offload) return;  // the kernel vouches for the sum
  ChecksumAccumulator sum =
      PseudoHeader(ip.source, ip.destination, ip_protocol::kTcp,
                   static_cast<uint32_t>(tcp_size));
  sum.Add({tcp, tcp_size});
  Store16(tcp + 16, sum.Finish());
}

// What an app's TCP makes of a segment: everything comes in order here.
void CoreRig::OnWritten(const std::byte* header, size_t size) {
  ++written_;
  const size_t ip_size = IpHeaderSize(options_.v4);
  const std::byte* tcp = header + ip_size;
  const uint32_t address = Load8(header + (options_.v4 ? 19 : 39)) - 2u;
  const uint32_t flow =
      address * kPortsPerAddress + Load16(tcp + 2) - kFirstPort;
  App& app = apps_[flow];
  const uint8_t flags = Load8(tcp + 13);
  if ((flags & tcp_flag::kRst) != 0) return;
  auto length = static_cast<uint32_t>(size - ip_size -
                                      (Load8(tcp + 12) >> 4) * size_t{4});
  if ((flags & (tcp_flag::kSyn | tcp_flag::kFin)) != 0) ++length;
  if (length == 0) return;
  app.next_ack = Load32(tcp + 4) + length;
  if (!std::exchange(app.owes_ack, true)) owing_.push_back(flow);
}

}  // namespace netstack::bench

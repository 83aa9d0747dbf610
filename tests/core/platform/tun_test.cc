// Against the kernel, in a network namespace of our own: the kernel is the
// app, and this test the stack behind the TUN.
#include "core/platform/tun.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/platform/linux/unique_fd.h"
#include "core/platform/poller.h"
#include "core/wire/checksum.h"
#include "core/wire/packet.h"
#include "gtest/gtest.h"
#include "tests/core/wire/test_packets.h"
#include "tests/support/net_admin.h"

namespace netstack::test {
namespace {

constexpr char kName[] = "nstest0";

// What a machine lacks shall fail these tests and say so.
constexpr char kNeedsTun[] =
    "these tests need /dev/net/tun: load the tun module, and let this user "
    "open the file";

constexpr int kPatience = 10000;  // ms; what takes longer never comes

std::unique_ptr<Tun> OpenOrFail(TunOptions options) {
  auto tun = OpenTun(std::move(options));
  if (tun.ok()) return *std::move(tun);
  ADD_FAILURE() << tun.status() << "\n" << kNeedsTun;
  return nullptr;
}

absl::Status OpenStatus(TunOptions options) {
  return OpenTun(std::move(options)).status();
}

// A descriptor as somebody else would hand it in.
UniqueFd RawTun(const char* name, int flags) {
  UniqueFd fd(open("/dev/net/tun", O_RDWR));
  EXPECT_TRUE(fd.ok()) << strerror(errno) << "\n" << kNeedsTun;
  ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = static_cast<short>(flags);
  EXPECT_EQ(ioctl(fd.get(), TUNSETIFF, &request), 0) << strerror(errno);
  return fd;
}

// As RawTun(), but the caller's to hand on.
int GivenTun(int flags) { return dup(RawTun(kName, flags).get()); }

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

// Runs `fn` in a child process and returns what it returns.
std::string InChild(const std::function<std::string()>& fn) {
  int fds[2];
  EXPECT_EQ(pipe(fds), 0);
  UniqueFd reader(fds[0]);
  const pid_t child = fork();
  if (child == 0) {
    const std::string text = fn();
    const ssize_t n = write(fds[1], text.data(), text.size());
    _exit(n == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  close(fds[1]);
  std::string text;
  std::array<char, 4096> buffer;
  ssize_t n;
  while ((n = read(reader.get(), buffer.data(), buffer.size())) > 0) {
    text.append(buffer.data(), static_cast<size_t>(n));
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  return text;
}

// Gives up every capability. For a child.
void DropCapabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2]{};
  syscall(SYS_capset, &header, none);
}

// Gives the device, which is up, the family's app to carry.
void Configure(const Family& family) {
  ASSERT_EQ(AddAddress(kName, family.app, family.v4() ? 32 : 128),
            absl::OkStatus());
  ASSERT_EQ(AddDefaultRoute(kName, family.v4()), absl::OkStatus());
}

// From the IPv4 app to its remote.
void SendDatagram(const UniqueFd& app) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(7);
  std::memcpy(&to.sin_addr, kV4.remote.v4(), 4);
  ASSERT_EQ(sendto(app.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&to),
                   sizeof(to)),
            1)
      << strerror(errno);
}

struct ReadPacket {
  ByteVector bytes;
  bool checksum_trusted = false;
};

// Waits for the next packet that `wanted` accepts; the kernel sends others of
// its own accord (IPv6 multicast).
std::optional<ReadPacket> ReadUntil(
    Tun& tun, const std::function<bool(const Packet&)>& wanted) {
  for (;;) {
    pollfd p{tun.fd(), POLLIN, 0};
    if (poll(&p, 1, kPatience) != 1) {
      ADD_FAILURE() << "no packet comes";
      return std::nullopt;
    }
    // In two pieces, to see the scattering.
    std::array<std::byte, 48> head;
    ByteVector rest(kMaxPacketSize);
    const std::array<MutableBytes, 2> parts = {MutableBytes(head),
                                               MutableBytes(rest)};
    const TunRead r = tun.Read(parts);
    if (r.size < 0) {
      ADD_FAILURE() << "Read(): " << strerror(static_cast<int>(-r.size));
      return std::nullopt;
    }
    const auto size = static_cast<size_t>(r.size);
    ReadPacket packet{
        {head.begin(), head.begin() + std::min(size, head.size())},
        r.checksum_trusted};
    if (size > head.size()) {
      packet.bytes =
          Concat(packet.bytes, Bytes(rest).first(size - head.size()));
    }
    const auto parsed = ParsePacket(packet.bytes);
    if (parsed && wanted(*parsed)) return packet;
  }
}

int WriteWhole(Tun& tun, const ByteVector& packet) {
  const Bytes part(packet);
  return tun.Write({&part, 1}, TunWrite{});
}

struct Case {
  const Family* family;
  bool offload;
};
std::string CaseName(const testing::TestParamInfo<Case>& c) {
  return absl::StrCat(c.param.family->name,
                      c.param.offload ? "Offload" : "Plain");
}
const auto kCases = testing::Values(Case{&kV4, false}, Case{&kV4, true},
                                    Case{&kV6, false}, Case{&kV6, true});

// The device has an address of the family's app; everything else of the
// family goes through it.
class TunTrafficTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    tun_ = OpenOrFail({.name = kName, .offload = GetParam().offload});
    ASSERT_NE(tun_, nullptr);
    ASSERT_EQ(tun_->offload(), GetParam().offload)
        << "Linux has had TSO for TUNs since 2.6.27";
    Configure(family());
  }

  const Family& family() const { return *GetParam().family; }
  bool v4() const { return family().v4(); }

  struct Address {
    sockaddr_storage storage{};
    socklen_t size = 0;
    const sockaddr* get() const {
      return reinterpret_cast<const sockaddr*>(&storage);
    }
  };
  Address Remote(uint16_t port) const {
    Address a;
    if (v4()) {
      auto* s = reinterpret_cast<sockaddr_in*>(&a.storage);
      s->sin_family = AF_INET;
      s->sin_port = htons(port);
      std::memcpy(&s->sin_addr, family().remote.v4(), 4);
      a.size = sizeof(*s);
    } else {
      auto* s = reinterpret_cast<sockaddr_in6*>(&a.storage);
      s->sin6_family = AF_INET6;
      s->sin6_port = htons(port);
      std::memcpy(&s->sin6_addr, family().remote.v6(), 16);
      a.size = sizeof(*s);
    }
    return a;
  }

  bool FromAppOfProtocol(const Packet& p, uint8_t protocol) const {
    return p.protocol == protocol && p.destination == family().remote;
  }

  // Checks the sum of what the kernel wrote, which is whole without offload,
  // and partial or whole but vouched for with it.
  void ExpectChecksum(const ReadPacket& packet) {
    const auto parsed = ParsePacket(packet.bytes);
    ASSERT_TRUE(parsed);
    const uint16_t sum =
        NaiveTransportChecksum(parsed->source, parsed->destination,
                               parsed->protocol, parsed->transport);
    if (!packet.checksum_trusted) {
      EXPECT_EQ(sum, 0);
    }
    EXPECT_EQ(packet.checksum_trusted, GetParam().offload);
  }

  std::unique_ptr<Tun> tun_;
};

INSTANTIATE_TEST_SUITE_P(Traffic, TunTrafficTest, kCases, CaseName);

TEST_P(TunTrafficTest, NothingToReadIsZero) {
  // IPv6 says hello first.
  std::array<std::byte, 2048> room;
  const MutableBytes part(room);
  TunRead r;
  for (int i = 0; i < 100; ++i) {
    r = tun_->Read({&part, 1});
    if (r.size == 0) break;
  }
  EXPECT_EQ(r.size, 0);
}

TEST_P(TunTrafficTest, ReadsDatagramOfTheKernel) {
  UniqueFd app(socket(v4() ? AF_INET : AF_INET6, SOCK_DGRAM, 0));
  const Address to = Remote(5353);
  ASSERT_EQ(sendto(app.get(), "hello", 5, 0, to.get(), to.size), 5)
      << strerror(errno);
  const auto packet = ReadUntil(*tun_, [&](const Packet& p) {
    return FromAppOfProtocol(p, ip_protocol::kUdp);
  });
  ASSERT_TRUE(packet);
  const auto parsed = ParsePacket(packet->bytes);
  EXPECT_EQ(parsed->source, family().app);
  EXPECT_EQ(PeekPorts(*parsed)->destination, 5353);
  ASSERT_EQ(parsed->transport.size(), 8u + 5);
  EXPECT_EQ(std::memcmp(&parsed->transport[8], "hello", 5), 0);
  ExpectChecksum(*packet);
}

TEST_P(TunTrafficTest, WritesDatagramToTheKernel) {
  UniqueFd app(socket(v4() ? AF_INET : AF_INET6, SOCK_DGRAM, 0));
  const Address remote = Remote(5353);
  ASSERT_EQ(connect(app.get(), remote.get(), remote.size), 0);
  Address local;
  local.size = sizeof(local.storage);
  ASSERT_EQ(getsockname(app.get(), reinterpret_cast<sockaddr*>(&local.storage),
                        &local.size),
            0);
  const uint16_t port =
      ntohs(v4() ? reinterpret_cast<sockaddr_in*>(&local.storage)->sin_port
                 : reinterpret_cast<sockaddr_in6*>(&local.storage)->sin6_port);
  ByteVector udp(8);
  Store16(&udp[0], 5353);
  Store16(&udp[2], port);
  Store16(&udp[4], 8 + 6);
  udp = Concat(udp, Hex("616e73776572"));  // "answer"
  Store16(&udp[6], NaiveTransportChecksum(family().remote, family().app,
                                          ip_protocol::kUdp, udp));
  const ByteVector packet =
      MakeIp(family().remote, family().app, ip_protocol::kUdp, udp);
  // In pieces, an empty one among them.
  const Bytes all(packet);
  const std::vector<Bytes> parts = {all.first(10), Bytes(), all.subspan(10, 20),
                                    all.subspan(30)};
  ASSERT_EQ(tun_->Write(parts, TunWrite{}), 0);
  pollfd p{app.get(), POLLIN, 0};
  ASSERT_EQ(poll(&p, 1, kPatience), 1);
  std::array<char, 16> text{};
  EXPECT_EQ(recv(app.get(), text.data(), text.size(), 0), 6);
  EXPECT_STREQ(text.data(), "answer");
}

// The smallest peer of the kernel's TCP that can take and give bytes.
class TunTcpTest : public TunTrafficTest {
 protected:
  static constexpr uint32_t kIsn = 1000;
  static constexpr uint16_t kMss = 1200;

  // Connects a socket of the kernel with us.
  void Handshake() {
    app_ = UniqueFd(
        socket(v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0));
    const Address remote = Remote(80);
    ASSERT_EQ(connect(app_.get(), remote.get(), remote.size), -1);
    ASSERT_EQ(errno, EINPROGRESS);
    const auto syn = ReadTcp();
    ASSERT_TRUE(syn);
    ExpectChecksum(*syn);
    const TcpSegment s = Tcp(*syn);
    ASSERT_TRUE(s.Has(tcp_flag::kSyn));
    port_ = s.source_port;
    acked_ = s.seq + 1;
    ByteVector mss = Hex("0204 0000");
    Store16(&mss[2], kMss);
    ASSERT_EQ(
        WriteWhole(*tun_, Segment({.seq = kIsn,
                                   .flags = tcp_flag::kSyn | tcp_flag::kAck,
                                   .options = mss})),
        0);
    const auto ack = ReadTcp();
    ASSERT_TRUE(ack);
    ASSERT_EQ(Tcp(*ack).ack, kIsn + 1);
  }

  std::optional<ReadPacket> ReadTcp() {
    return ReadUntil(*tun_, [&](const Packet& p) {
      return FromAppOfProtocol(p, ip_protocol::kTcp);
    });
  }
  TcpSegment Tcp(const ReadPacket& packet) {
    const auto parsed = ParsePacket(packet.bytes);
    EXPECT_TRUE(parsed);
    const auto tcp =
        ParseTcp(*parsed, packet.checksum_trusted ? ChecksumTrust::kTrusted
                                                  : ChecksumTrust::kVerify);
    EXPECT_TRUE(tcp) << DropReasonName(tcp.reason());
    return *tcp;
  }

  // From us to the app, checksums whole.
  ByteVector Segment(TcpSpec spec) {
    spec.source_port = 80;
    spec.destination_port = port_;
    spec.ack = acked_;
    spec.window = 65535;
    return MakeIp(family().remote, family().app, ip_protocol::kTcp,
                  MakeTcp(family().remote, family().app, std::move(spec)));
  }

  // Makes the checksum of a packet partial: the pseudo-header's sum alone.
  void MakePartial(ByteVector& packet) {
    const size_t at = IpSize();
    Store16(&packet[at + 16],
            PseudoHeader(family().remote, family().app, ip_protocol::kTcp,
                         static_cast<uint32_t>(packet.size() - at))
                .Folded());
  }
  size_t IpSize() const { return v4() ? 20 : 40; }
  TunWrite Partial() const {
    return {.partial_checksum = true,
            .checksum_start = static_cast<uint16_t>(IpSize()),
            .checksum_offset = 16,
            .segment_size = 0,
            .headers = static_cast<uint16_t>(IpSize() + 20),
            .v4 = v4()};
  }

  std::string AppReceives(size_t size) {
    std::string text(size, '\0');
    size_t n = 0;
    while (n < size) {
      pollfd p{app_.get(), POLLIN, 0};
      if (poll(&p, 1, kPatience) != 1) break;
      const ssize_t r = recv(app_.get(), &text[n], size - n, 0);
      if (r <= 0) break;
      n += static_cast<size_t>(r);
    }
    text.resize(n);
    return text;
  }

  UniqueFd app_;
  uint16_t port_ = 0;
  uint32_t acked_ = 0;
};

std::string Pattern(size_t size) {
  std::string s(size, '\0');
  for (size_t i = 0; i < size; ++i) s[i] = static_cast<char>('a' + i * 7 % 26);
  return s;
}

ByteVector ToBytes(const std::string& s) {
  const auto* p = reinterpret_cast<const std::byte*>(s.data());
  return {p, p + s.size()};
}

INSTANTIATE_TEST_SUITE_P(Traffic, TunTcpTest, kCases, CaseName);

TEST_P(TunTcpTest, OutboundSuperSegments) {
  ASSERT_NO_FATAL_FAILURE(Handshake());
  const std::string sent = Pattern(10 * kMss);  // the first window
  ASSERT_EQ(send(app_.get(), sent.data(), sent.size(), 0),
            static_cast<ssize_t>(sent.size()));
  std::string received;
  size_t largest = 0;
  while (received.size() < sent.size()) {
    const auto packet = ReadTcp();
    ASSERT_TRUE(packet);
    const TcpSegment s = Tcp(*packet);
    ASSERT_EQ(s.seq, acked_ + received.size());
    received.append(reinterpret_cast<const char*>(s.payload.data()),
                    s.payload.size());
    largest = std::max(largest, s.payload.size());
    ExpectChecksum(*packet);
  }
  EXPECT_TRUE(received == sent);
  if (GetParam().offload) {
    EXPECT_GT(largest, kMss) << "no super-segment was seen";
  } else {
    EXPECT_EQ(largest, kMss);
  }
}

TEST_P(TunTcpTest, InboundWholeChecksum) {
  ASSERT_NO_FATAL_FAILURE(Handshake());
  ByteVector packet =
      Segment({.seq = kIsn + 1, .payload = ToBytes(Pattern(1000))});
  packet.back() ^= std::byte{1};
  ASSERT_EQ(WriteWhole(*tun_, packet), 0);  // which the kernel drops
  packet.back() ^= std::byte{1};
  ASSERT_EQ(WriteWhole(*tun_, packet), 0);
  EXPECT_TRUE(AppReceives(1000) == Pattern(1000));
}

TEST_P(TunTcpTest, InboundPartialChecksum) {
  ASSERT_NO_FATAL_FAILURE(Handshake());
  ByteVector packet =
      Segment({.seq = kIsn + 1, .payload = ToBytes(Pattern(1000))});
  MakePartial(packet);
  const Bytes part(packet);
  if (!GetParam().offload) {
    EXPECT_EQ(tun_->Write({&part, 1}, Partial()), -EOPNOTSUPP);
    return;
  }
  ASSERT_EQ(tun_->Write({&part, 1}, Partial()), 0);
  EXPECT_TRUE(AppReceives(1000) == Pattern(1000));
}

// Sees what the kernel makes of a packet that we write: the header that
// PACKET_VNET_HDR gives (packet(7)) is made anew from the kernel's own record.
class Sniffer {
 public:
  Sniffer() : fd_(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL))) {
    const int on = 1;
    EXPECT_EQ(
        setsockopt(fd_.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)), 0)
        << strerror(errno);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(if_nametoindex(kName));
    EXPECT_EQ(
        bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)),
        0);
  }

  struct Header {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t header_length;
    uint16_t gso_size;
    uint16_t checksum_start;
    uint16_t checksum_offset;
  };
  // Of the next packet of this size.
  Header Next(size_t size) {
    ByteVector packet(1 << 17);
    Header header{};
    for (;;) {
      pollfd p{fd_.get(), POLLIN, 0};
      if (poll(&p, 1, kPatience) != 1) break;
      const ssize_t n = recv(fd_.get(), packet.data(), packet.size(), 0);
      if (n != static_cast<ssize_t>(sizeof(header) + size)) continue;
      std::memcpy(&header, packet.data(), sizeof(header));
      return header;
    }
    ADD_FAILURE() << "no packet of " << size << " bytes";
    return header;
  }

 private:
  UniqueFd fd_;
};

TEST_P(TunTcpTest, InboundSuperSegment) {
  ASSERT_NO_FATAL_FAILURE(Handshake());
  const std::string sent = Pattern(40 * kMss + 7);
  ByteVector packet = Segment({.seq = kIsn + 1, .payload = ToBytes(sent)});
  MakePartial(packet);
  TunWrite how = Partial();
  how.segment_size = kMss;
  // As the writer does it: headers, and the payload in pieces.
  const Bytes all(packet);
  std::vector<Bytes> parts = {all.first(how.headers)};
  for (size_t at = how.headers; at < all.size(); at += 1000) {
    parts.push_back(all.subspan(at, std::min<size_t>(1000, all.size() - at)));
  }
  ASSERT_LE(parts.size(), 64u);
  if (!GetParam().offload) {
    EXPECT_EQ(tun_->Write(parts, how), -EOPNOTSUPP);
    return;
  }
  Sniffer sniffer;
  ASSERT_EQ(tun_->Write(parts, how), 0);
  EXPECT_TRUE(AppReceives(sent.size()) == sent);
  const Sniffer::Header seen = sniffer.Next(packet.size());
  EXPECT_EQ(seen.gso_type, v4() ? 1 : 4);  // VIRTIO_NET_HDR_GSO_TCPV4, _TCPV6
  EXPECT_EQ(seen.gso_size, kMss);
  EXPECT_EQ(seen.flags, 1);  // VIRTIO_NET_HDR_F_NEEDS_CSUM
  EXPECT_EQ(seen.checksum_start, IpSize());
  EXPECT_EQ(seen.checksum_offset, 16);
}

TEST_P(TunTcpTest, ResetReachesTheApp) {
  ASSERT_NO_FATAL_FAILURE(Handshake());
  ASSERT_EQ(
      WriteWhole(*tun_, Segment({.seq = kIsn + 1,
                                 .flags = tcp_flag::kRst | tcp_flag::kAck})),
      0);
  pollfd p{app_.get(), POLLIN, 0};
  ASSERT_EQ(poll(&p, 1, kPatience), 1);
  char byte;
  EXPECT_EQ(recv(app_.get(), &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
}

TEST(TunTest, CreatesDeviceAndTakesItAlongWhenClosed) {
  for (const bool offload : {false, true}) {
    auto tun = OpenOrFail({.name = kName, .mtu = 9000, .offload = offload});
    ASSERT_NE(tun, nullptr);
    EXPECT_EQ(tun->name(), kName);
    EXPECT_EQ(tun->mtu(), 9000u);
    EXPECT_EQ(tun->offload(), offload);
    EXPECT_EQ(DeviceMtu(kName), 9000u);
    EXPECT_TRUE(DeviceIsUp(kName));
    EXPECT_NE(fcntl(tun->fd(), F_GETFL) & O_NONBLOCK, 0);
    EXPECT_NE(fcntl(tun->fd(), F_GETFD) & FD_CLOEXEC, 0);
    tun.reset();
    EXPECT_FALSE(DeviceExists(kName));
  }
}

TEST(TunTest, KernelChoosesAName) {
  auto tun = OpenOrFail({.name = ""});
  ASSERT_NE(tun, nullptr);
  EXPECT_TRUE(DeviceExists(tun->name())) << tun->name();
}

TEST(TunTest, LongestName) {
  const std::string name = "fifteen-letters";
  auto tun = OpenOrFail({.name = name});
  ASSERT_NE(tun, nullptr);
  EXPECT_EQ(tun->name(), name);
}

TEST(TunTest, BadNames) {
  for (const char* name : {"sixteen--letters", "a/b", "a b", ".."}) {
    const absl::Status s = OpenStatus({.name = name});
    EXPECT_TRUE(absl::IsInvalidArgument(s)) << name << ": " << s;
  }
}

TEST(TunTest, BadMtuLeavesNoDevice) {
  for (const uint32_t mtu : {0u, 20u, 65536u, 0xFFFFFFFFu}) {
    const absl::Status s = OpenStatus({.name = kName, .mtu = mtu});
    EXPECT_TRUE(absl::IsInvalidArgument(s)) << mtu << ": " << s;
    EXPECT_FALSE(DeviceExists(kName));
  }
}

TEST(TunTest, TakenNames) {
  auto tun = OpenOrFail({.name = kName});
  ASSERT_NE(tun, nullptr);
  absl::Status s = OpenStatus({.name = kName});
  EXPECT_TRUE(absl::IsFailedPrecondition(s)) << s;
  EXPECT_TRUE(absl::StrContains(s.message(), "another program")) << s;
  s = OpenStatus({.name = "lo"});
  EXPECT_TRUE(absl::IsFailedPrecondition(s)) << s;
  EXPECT_TRUE(absl::StrContains(s.message(), "is no TUN")) << s;
}

TEST(TunTest, PermissionDenied) {
  const std::string status = InChild([] {
    DropCapabilities();
    return OpenStatus({.name = kName}).ToString();
  });
  EXPECT_TRUE(absl::StartsWith(status, "PERMISSION_DENIED")) << status;
  EXPECT_TRUE(absl::StrContains(status, "CAP_NET_ADMIN")) << status;
}

// Calls OpenTun() where `prepare` changed an empty /dev/net.
std::string OpenWithOtherDev(const std::function<void()>& prepare) {
  return InChild([&]() -> std::string {
    if (unshare(CLONE_NEWNS) != 0 ||
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("none", "/dev/net", "tmpfs", 0, nullptr) != 0) {
      return absl::StrCat("cannot hide /dev/net: ", strerror(errno));
    }
    prepare();
    return OpenStatus({.name = kName}).ToString();
  });
}

TEST(TunTest, UnreadableDeviceFile) {
  const std::string status = OpenWithOtherDev([] {
    UniqueFd(creat("/dev/net/tun", 0));
    DropCapabilities();
  });
  EXPECT_TRUE(absl::StartsWith(status, "PERMISSION_DENIED")) << status;
  EXPECT_TRUE(absl::StrContains(status, "/dev/net/tun")) << status;
}

TEST(TunTest, NoDeviceFile) {
  const std::string status = OpenWithOtherDev([] {});
  EXPECT_TRUE(absl::StartsWith(status, "NOT_FOUND")) << status;
  EXPECT_TRUE(absl::StrContains(status, "modprobe tun")) << status;
}

TEST(TunTest, AttachesToPersistentDevice) {
  {
    UniqueFd owner = RawTun(kName, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
    ASSERT_EQ(
        ioctl(owner.get(), TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6),
        0);
    ASSERT_EQ(ioctl(owner.get(), TUNSETPERSIST, 1), 0);
    ASSERT_TRUE(SetDeviceMtu(kName, 1400).ok());
  }
  for (const bool offload : {true, false}) {
    auto tun = OpenOrFail({.name = kName, .mtu = 9000, .offload = offload});
    ASSERT_NE(tun, nullptr);
    EXPECT_EQ(tun->mtu(), 1400u) << "the device's, not the configured one";
    EXPECT_EQ(DeviceMtu(kName), 1400u);
    EXPECT_EQ(tun->offload(), offload);
    EXPECT_FALSE(DeviceIsUp(kName)) << "its owner's business";
  }
  EXPECT_TRUE(DeviceExists(kName));
  // The last one was without offload, and so is what the kernel sends now.
  auto tun = OpenOrFail({.name = kName, .offload = false});
  ASSERT_NE(tun, nullptr);
  ASSERT_TRUE(BringUp(kName).ok());
  Configure(kV4);
  SendDatagram(UniqueFd(socket(AF_INET, SOCK_DGRAM, 0)));
  const auto packet = ReadUntil(
      *tun, [](const Packet& p) { return p.protocol == ip_protocol::kUdp; });
  ASSERT_TRUE(packet);
  EXPECT_FALSE(packet->checksum_trusted);
  const auto parsed = ParsePacket(packet->bytes);
  EXPECT_EQ(NaiveTransportChecksum(parsed->source, parsed->destination,
                                   ip_protocol::kUdp, parsed->transport),
            0)
      << "a partial checksum without a header that says so";
  ASSERT_EQ(ioctl(tun->fd(), TUNSETPERSIST, 0), 0);
}

TEST(TunTest, DeletedDeviceIsToldByReadAndWrite) {
  auto tun = OpenOrFail({.name = kName});
  ASSERT_NE(tun, nullptr);
  auto poller = NewPoller();
  ASSERT_TRUE(poller.ok());
  ASSERT_EQ((*poller)->Add(tun->fd(), {.kind = PollToken::Kind::kTun},
                           Poller::Trigger::kLevelRead),
            0);
  ASSERT_TRUE(DeleteDevice(kName).ok());
  std::array<PollEvent, 2> events;
  const Instant now{std::chrono::seconds(1)};
  ASSERT_EQ((*poller)->Wait(now, now + std::chrono::seconds(20), events), 1u);
  EXPECT_TRUE(events[0].readable);
  EXPECT_TRUE(events[0].error);
  std::array<std::byte, 2048> room;
  const MutableBytes part(room);
  EXPECT_EQ(tun->Read({&part, 1}).size, -EBADFD);
  EXPECT_EQ(WriteWhole(*tun, MakeTcpPacket(kV4)), -EBADFD);
  EXPECT_EQ(tun->name(), kName);
}

TEST(TunTest, DeviceThatIsDownReadsNothingAndRefusesWrites) {
  UniqueFd raw = RawTun(kName, IFF_TUN | IFF_NO_PI);
  auto tun = OpenOrFail({.fd = dup(raw.get())});
  ASSERT_NE(tun, nullptr);
  std::array<std::byte, 2048> room;
  const MutableBytes part(room);
  EXPECT_EQ(tun->Read({&part, 1}).size, 0);
  EXPECT_EQ(WriteWhole(*tun, MakeTcpPacket(kV4)), -EIO);
}

TEST(TunTest, TooManyParts) {
  auto tun = OpenOrFail({.name = kName});
  ASSERT_NE(tun, nullptr);
  const ByteVector packet = MakeTcpPacket(kV4);
  std::vector<Bytes> parts(65, Bytes());
  parts[0] = packet;
  EXPECT_EQ(tun->Write(parts, TunWrite{}), -EINVAL);
  parts.pop_back();
  EXPECT_EQ(tun->Write(parts, TunWrite{}), 0);
  std::array<std::byte, 64> room;
  EXPECT_EQ(tun->Read(std::vector<MutableBytes>(65, MutableBytes(room))).size,
            -EINVAL);
}

TEST(TunTest, KernelRefusesWhatIsNoPacket) {
  for (const bool offload : {false, true}) {
    auto tun = OpenOrFail({.name = kName, .offload = offload});
    ASSERT_NE(tun, nullptr);
    EXPECT_EQ(WriteWhole(*tun, Hex("0500 0000 0000 0000 0000 0000")), -EINVAL);
  }
}

// Descriptors that were handed in.

TEST(GivenTunTest, IsTakenAsItIs) {
  UniqueFd raw = RawTun(kName, IFF_TUN | IFF_NO_PI);
  ASSERT_TRUE(SetDeviceMtu(kName, 1380).ok());
  const int fd = dup(raw.get());
  ASSERT_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  auto tun = OpenOrFail({.name = "ignored", .fd = fd, .mtu = 9000});
  ASSERT_NE(tun, nullptr);
  EXPECT_EQ(tun->fd(), fd);
  EXPECT_EQ(tun->name(), kName);
  EXPECT_EQ(tun->mtu(), 1380u);
  EXPECT_FALSE(tun->offload()) << "it was made without IFF_VNET_HDR";
  EXPECT_FALSE(DeviceIsUp(kName));
  EXPECT_NE(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  tun.reset();
  EXPECT_FALSE(IsOpen(fd));
}

// The header is there whatever was asked for, and of whatever size it was.
TEST(GivenTunTest, WithHeaders) {
  for (const bool offload : {false, true}) {
    for (const int header_size : {10, 12}) {
      SCOPED_TRACE(absl::StrCat(offload, " ", header_size));
      UniqueFd raw = RawTun(kName, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
      int size = header_size;
      ASSERT_EQ(ioctl(raw.get(), TUNSETVNETHDRSZ, &size), 0);
      ASSERT_EQ(ioctl(raw.get(), TUNSETOFFLOAD, offload ? 0 : TUN_F_CSUM), 0);
      auto tun = OpenOrFail({.fd = dup(raw.get()), .offload = offload});
      ASSERT_NE(tun, nullptr);
      EXPECT_EQ(tun->offload(), offload);
      ASSERT_TRUE(BringUp(kName).ok());
      Configure(kV4);
      // A SYN to a closed port of the kernel: it answers with RST.
      TcpSpec syn{.flags = tcp_flag::kSyn};
      ASSERT_EQ(WriteWhole(*tun, MakeIp(kV4.remote, kV4.app, ip_protocol::kTcp,
                                        MakeTcp(kV4.remote, kV4.app, syn))),
                0);
      const auto packet = ReadUntil(*tun, [](const Packet& p) {
        return p.protocol == ip_protocol::kTcp;
      });
      ASSERT_TRUE(packet);
      const auto parsed = ParsePacket(packet->bytes);
      const auto tcp =
          ParseTcp(*parsed, packet->checksum_trusted ? ChecksumTrust::kTrusted
                                                     : ChecksumTrust::kVerify);
      ASSERT_TRUE(tcp);
      EXPECT_TRUE(tcp->Has(tcp_flag::kRst));
      EXPECT_EQ(tcp->ack, syn.seq + 1);
      // Offloads that somebody left on are off when they are not wanted.
      SendDatagram(UniqueFd(socket(AF_INET, SOCK_DGRAM, 0)));
      const auto datagram = ReadUntil(*tun, [](const Packet& p) {
        return p.protocol == ip_protocol::kUdp;
      });
      ASSERT_TRUE(datagram);
      EXPECT_EQ(datagram->checksum_trusted, offload);
    }
  }
}

TEST(GivenTunTest, WhatIsNoTunIsRefusedAndClosed) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  close(fds[1]);
  const auto refused = [](int fd, const char* why) {
    SCOPED_TRACE(why);
    ASSERT_GE(fd, 0);
    const absl::Status s = OpenStatus({.name = kName, .fd = fd});
    EXPECT_TRUE(absl::IsInvalidArgument(s)) << s;
    EXPECT_TRUE(absl::StrContains(s.message(), why)) << s;
    EXPECT_FALSE(IsOpen(fd));
    EXPECT_FALSE(DeviceExists(kName));
  };
  refused(fds[0], "no TUN");
  refused(open("/dev/null", O_RDWR), "no TUN");
  refused(socket(AF_INET, SOCK_DGRAM, 0), "no TUN");
  refused(open("/dev/net/tun", O_RDWR), "never named");
  refused(GivenTun(IFF_TAP | IFF_NO_PI), "TAP");
  refused(GivenTun(IFF_TUN), "IFF_NO_PI");
  refused(GivenTun(IFF_TUN | IFF_VNET_HDR), "IFF_NO_PI");
  refused(12345, "Bad file descriptor");
}

TEST(GivenTunTest, DeletedDeviceIsRefused) {
  UniqueFd raw = RawTun(kName, IFF_TUN | IFF_NO_PI);
  ASSERT_TRUE(DeleteDevice(kName).ok());
  const absl::Status s = OpenStatus({.fd = dup(raw.get())});
  EXPECT_TRUE(absl::IsInvalidArgument(s)) << s;
  EXPECT_TRUE(absl::StrContains(s.message(), "deleted")) << s;
}

// While it lives, the thread is in another network namespace.
class OtherNamespace {
 public:
  OtherNamespace() : ours_(open("/proc/thread-self/ns/net", O_RDONLY)) {
    EXPECT_EQ(unshare(CLONE_NEWNET), 0) << strerror(errno);
  }
  ~OtherNamespace() {
    EXPECT_EQ(setns(ours_.get(), CLONE_NEWNET), 0) << strerror(errno);
  }

 private:
  UniqueFd ours_;
};

TEST(GivenTunTest, NameOfAnotherNamespaceMeansNothingHere) {
  UniqueFd namesake = RawTun(kName, IFF_TUN | IFF_NO_PI);
  ASSERT_TRUE(SetDeviceMtu(kName, 1300).ok());
  UniqueFd given;
  {
    OtherNamespace other;
    given = RawTun(kName, IFF_TUN | IFF_NO_PI);
    ASSERT_TRUE(SetDeviceMtu(kName, 1400).ok());
  }
  auto tun = OpenOrFail({.fd = dup(given.get()), .mtu = 1234});
  ASSERT_NE(tun, nullptr);
  EXPECT_EQ(tun->mtu(), 1234u) << "not the MTU of our device of this name";
}

TEST(TunTest, CarriesPacketsInAnotherNamespace) {
  std::unique_ptr<Tun> tun;
  UniqueFd app;
  {
    OtherNamespace other;
    tun = OpenOrFail({.name = kName, .mtu = 1400});
    ASSERT_NE(tun, nullptr);
    Configure(kV4);
    app = UniqueFd(socket(AF_INET, SOCK_DGRAM, 0));
  }
  EXPECT_FALSE(DeviceExists(kName));
  EXPECT_EQ(tun->name(), kName);
  EXPECT_EQ(tun->mtu(), 1400u);
  SendDatagram(app);
  EXPECT_TRUE(ReadUntil(
      *tun, [](const Packet& p) { return p.protocol == ip_protocol::kUdp; }));
  EXPECT_EQ(WriteWhole(*tun, MakeTcpPacket(kV4)), 0);
}

}  // namespace
}  // namespace netstack::test

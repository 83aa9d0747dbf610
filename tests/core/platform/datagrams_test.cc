// Against the kernel, on the loopback device of a network namespace of our
// own.
#include "core/platform/datagrams.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/platform/sockets.h"
#include "gtest/gtest.h"
#include "tests/support/net_admin.h"

namespace netstack {
namespace {

Bytes AsBytes(absl::string_view s) {
  return {reinterpret_cast<const std::byte*>(s.data()), s.size()};
}
std::string AsText(Bytes b) {
  return {reinterpret_cast<const char*>(b.data()), b.size()};
}

class DatagramsTest : public testing::TestWithParam<bool> {
 protected:
  struct Socket {
    int fd = -1;
    Endpoint local;
  };

  bool v4() const { return GetParam(); }
  IpAddress Loopback() const {
    return v4() ? IpAddress::V4(127, 0, 0, 1) : *IpAddress::Parse("::1");
  }
  ~DatagramsTest() override {
    for (int fd : open_) sockets_->Close(fd, false);
  }

  Socket Open(SocketKind kind = SocketKind::kUdp) {
    Socket s;
    s.fd = sockets_->Open(kind, v4());
    EXPECT_GE(s.fd, 0) << strerror(-s.fd);
    open_.push_back(s.fd);
    EXPECT_EQ(datagrams_->Prepare(s.fd, kind, v4()), 0);
    EXPECT_EQ(datagrams_->Bind(s.fd, {Loopback(), 0}), 0);
    s.local = sockets_->LocalEndpoint(s.fd);
    return s;
  }
  // A port that nobody has.
  Endpoint Closed() {
    const Socket s = Open();
    sockets_->Close(s.fd, false);
    open_.pop_back();
    return s.local;
  }

  int Send(const Socket& s, const Endpoint& to, absl::string_view text) {
    const Bytes part = AsBytes(text);
    DatagramOut out;
    out.to = to;
    out.parts = {&part, 1};
    return datagrams_->Send(s.fd, {&out, 1});
  }
  // Waits until something is there.
  std::vector<DatagramIn> Receive(const Socket& s, size_t most = 16) {
    pollfd p{s.fd, POLLIN, 0};
    EXPECT_EQ(poll(&p, 1, 20000), 1) << "nothing for 20 s";
    std::vector<DatagramIn> in(most);
    const int n = datagrams_->Receive(s.fd, room_, in);
    EXPECT_GT(n, 0) << strerror(-n);
    in.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return in;
  }
  void AwaitError(const Socket& s) {
    pollfd p{s.fd, 0, 0};
    ASSERT_EQ(poll(&p, 1, 20000), 1) << "no error for 20 s";
    ASSERT_NE(p.revents & POLLERR, 0);
  }

  const std::unique_ptr<Sockets> sockets_ = NewSockets();
  const std::unique_ptr<Datagrams> datagrams_ = NewDatagrams();
  std::vector<int> open_;
  std::vector<std::byte> room_ =
      std::vector<std::byte>(16 * kMaxDatagram, std::byte{});
};

INSTANTIATE_TEST_SUITE_P(Family, DatagramsTest, testing::Bool(),
                         [](const auto& each) {
                           return each.param ? "V4" : "V6";
                         });

TEST_P(DatagramsTest, CarriesBatchesWithTosAndTtl) {
  const Socket a = Open(), b = Open();
  const std::string one = "one", two = "two", three = "three";
  const std::array<Bytes, 2> split = {AsBytes(two), AsBytes(three)};
  const Bytes whole = AsBytes(one);
  std::array<DatagramOut, 3> out;
  out[0].to = out[1].to = out[2].to = b.local;
  out[0].parts = {&whole, 1};
  out[0].tos = 0xB9;  // expedited forwarding, ECT(1)
  out[0].ttl = 7;
  out[1].parts = split;
  EXPECT_EQ(datagrams_->Send(a.fd, out), 3);

  const std::vector<DatagramIn> in = Receive(b);
  ASSERT_EQ(in.size(), 3u);
  EXPECT_EQ(AsText(in[0].payload), "one");
  EXPECT_EQ(in[0].from, a.local);
  EXPECT_EQ(in[0].to, b.local.ip);
  EXPECT_EQ(in[0].tos, 0xB9);
  EXPECT_EQ(in[0].ttl, 7);
  EXPECT_EQ(in[0].segment_size, 0);
  EXPECT_EQ(AsText(in[1].payload), "twothree");
  EXPECT_EQ(in[1].tos, 0);
  EXPECT_EQ(in[1].ttl, 64);
  EXPECT_TRUE(in[2].payload.empty()) << "an empty datagram is one";

  std::array<DatagramIn, 1> none;
  EXPECT_EQ(datagrams_->Receive(b.fd, room_, none), -EAGAIN);
  EXPECT_FALSE(datagrams_->TakeError(b.fd, room_));
}

TEST_P(DatagramsTest, TellsTruncation) {
  const Socket a = Open(), b = Open();
  EXPECT_EQ(Send(a, b.local, std::string(100, 'x')), 1);
  pollfd p{b.fd, POLLIN, 0};
  ASSERT_EQ(poll(&p, 1, 20000), 1);
  std::array<DatagramIn, 1> in;
  std::array<std::byte, 10> room;
  ASSERT_EQ(datagrams_->Receive(b.fd, room, in), 1);
  EXPECT_TRUE(in[0].truncated);
  EXPECT_EQ(in[0].payload.size(), 10u);
}

TEST_P(DatagramsTest, CutsAndJoinsBatches) {
  const Socket a = Open(), b = Open();
  std::string payload;
  for (int i = 0; i < 45; ++i) payload.append(1000, static_cast<char>('A' + i));
  payload.append("tail");
  const Bytes part = AsBytes(payload);
  DatagramOut out;
  out.to = b.local;
  out.parts = {&part, 1};
  out.segment_size = 1000;
  ASSERT_EQ(datagrams_->Send(a.fd, {&out, 1}), 1);
  std::string got;
  size_t calls = 0;
  while (got.size() < payload.size() && ++calls < 100) {
    for (const DatagramIn& in : Receive(b)) {
      got += AsText(in.payload);
      // Loopback keeps the batch whole.
      EXPECT_EQ(in.segment_size, 1000);
    }
  }
  EXPECT_EQ(got, payload);
}

TEST_P(DatagramsTest, TellsWhoseErrorItWas) {
  const Socket a = Open(), b = Open();
  const Endpoint closed = Closed();
  ASSERT_EQ(Send(a, closed, "lost"), 1);
  AwaitError(a);
  // It surfaces at a send to somebody else, which is not done.
  EXPECT_EQ(Send(a, b.local, "mine"), -ECONNREFUSED);
  const auto error = datagrams_->TakeError(a.fd, room_);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->error, ECONNREFUSED);
  EXPECT_FALSE(error->local);
  EXPECT_EQ(error->type, v4() ? 3 : 1);
  EXPECT_EQ(error->code, v4() ? 3 : 4);
  EXPECT_EQ(error->offender, Loopback());
  EXPECT_EQ(error->ttl, 64);
  EXPECT_EQ(error->destination, closed);
  EXPECT_EQ(AsText(error->payload), "lost");
  EXPECT_FALSE(datagrams_->TakeError(a.fd, room_));
  EXPECT_EQ(Send(a, b.local, "mine"), 1);
  EXPECT_EQ(AsText(Receive(b).at(0).payload), "mine");
}

TEST_P(DatagramsTest, TakingErrorsClearsThePendingOne) {
  const Socket a = Open(), b = Open();
  const Endpoint closed = Closed();
  ASSERT_EQ(Send(a, closed, "lost"), 1);
  AwaitError(a);
  EXPECT_TRUE(datagrams_->TakeError(a.fd, room_));
  EXPECT_EQ(Send(a, b.local, "mine"), 1);
}

TEST_P(DatagramsTest, TellsThePathMtu) {
  ASSERT_TRUE(test::SetDeviceMtu("lo", 1400).ok());
  const Socket a = Open(), b = Open();
  const std::string big(1500, 'b');
  ASSERT_EQ(datagrams_->SetDontFragment(a.fd, v4(), true), 0);
  EXPECT_EQ(Send(a, b.local, big), -EMSGSIZE);
  const auto error = datagrams_->TakeError(a.fd, room_);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->error, EMSGSIZE);
  EXPECT_TRUE(error->local);
  EXPECT_EQ(error->mtu, 1400u);
  EXPECT_EQ(error->destination.ip, b.local.ip);
  EXPECT_EQ(error->destination.port, v4() ? 0 : b.local.port);

  ASSERT_EQ(datagrams_->SetDontFragment(a.fd, v4(), false), 0);
  EXPECT_EQ(Send(a, b.local, big), 1);
  EXPECT_EQ(Receive(b).at(0).payload.size(), big.size());
  ASSERT_TRUE(test::SetDeviceMtu("lo", 65536).ok());
}

TEST_P(DatagramsTest, BindTellsWhatIsTaken) {
  const Socket a = Open();
  const int fd = sockets_->Open(SocketKind::kUdp, v4());
  open_.push_back(fd);
  ASSERT_EQ(datagrams_->Prepare(fd, SocketKind::kUdp, v4()), 0);
  EXPECT_EQ(datagrams_->Bind(fd, a.local), -EADDRINUSE);
  // The other family's port is another one.
  const int other = sockets_->Open(SocketKind::kUdp, !v4());
  open_.push_back(other);
  ASSERT_EQ(datagrams_->Prepare(other, SocketKind::kUdp, !v4()), 0);
  const IpAddress any =
      v4() ? *IpAddress::Parse("::") : IpAddress::V4(0, 0, 0, 0);
  EXPECT_EQ(datagrams_->Bind(other, {any, a.local.port}), 0);
}

TEST_P(DatagramsTest, CarriesEchoes) {
  {
    std::ofstream range("/proc/sys/net/ipv4/ping_group_range");
    range << "0 0\n";
  }
  const Socket a = Open(SocketKind::kEcho);
  // Type, code, checksum (the kernel's), id (the kernel's), sequence 7.
  std::string echo(8, '\0');
  echo[0] = static_cast<char>(v4() ? 8 : 128);
  echo[7] = 7;
  echo += "payload";
  const Bytes part = AsBytes(echo);
  DatagramOut out;
  out.to = {Loopback(), 0};
  out.parts = {&part, 1};
  out.ttl = 9;
  ASSERT_EQ(datagrams_->Send(a.fd, {&out, 1}), 1);
  const std::vector<DatagramIn> in = Receive(a);
  ASSERT_EQ(in.size(), 1u);
  ASSERT_EQ(in[0].payload.size(), echo.size());
  EXPECT_EQ(Load8(in[0].payload.data()), v4() ? 0 : 129);
  EXPECT_EQ(Load16(in[0].payload.data() + 4), a.local.port);
  EXPECT_EQ(Load16(in[0].payload.data() + 6), 7);
  EXPECT_EQ(AsText(in[0].payload.subspan(8)), "payload");
  EXPECT_EQ(in[0].from.ip, Loopback());
  EXPECT_EQ(in[0].ttl, 64) << "of the answer";
}

}  // namespace
}  // namespace netstack

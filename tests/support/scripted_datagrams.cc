#include "tests/support/scripted_datagrams.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "gtest/gtest.h"

namespace netstack::test {
namespace {

size_t HeadersOf(const Endpoint& to) { return to.ip.IsV4() ? 28 : 48; }

}  // namespace

ScriptedDatagramSocket* ScriptedDatagrams::Live(int fd, const char* call) {
  for (const auto& s : sockets_->all()) {
    if (s->fd == fd && !s->closed) return &states_[fd];
  }
  ADD_FAILURE() << call << "() of descriptor " << fd << ", which is not open";
  return nullptr;
}

int ScriptedDatagrams::Prepare(int fd, SocketKind kind, bool v4) {
  ScriptedDatagramSocket* s = Live(fd, "Prepare");
  if (s == nullptr) return -EBADF;
  EXPECT_EQ(sockets_->Get(fd).kind, kind);
  EXPECT_EQ(sockets_->Get(fd).v4, v4);
  EXPECT_FALSE(s->bound) << "IPV6_V6ONLY comes before bind()";
  if (prepare_result == 0) s->prepared = true;
  return prepare_result;
}

int ScriptedDatagrams::Bind(int fd, const Endpoint& local) {
  ScriptedDatagramSocket* s = Live(fd, "Bind");
  if (s == nullptr) return -EBADF;
  EXPECT_EQ(sockets_->Get(fd).v4, local.ip.IsV4()) << "EINVAL of the kernel";
  if (s->bound) return -EINVAL;
  if (on_bind) {
    const int result = on_bind(local);
    if (result != 0) return result;
  }
  if (taken_ports.count(local.port) != 0) return -EADDRINUSE;
  Endpoint at = local;
  if (at.port == 0) at.port = next_port_++;
  s->bound = at;
  sockets_->Get(fd).local = at;
  return 0;
}

int ScriptedDatagrams::SetDontFragment(int fd, bool v4, bool on) {
  ScriptedDatagramSocket* s = Live(fd, "SetDontFragment");
  if (s == nullptr) return -EBADF;
  EXPECT_EQ(sockets_->Get(fd).v4, v4);
  s->dont_fragment = on;
  ++s->dont_fragment_calls;
  return 0;
}

int ScriptedDatagrams::AllowBroadcast(int fd) {
  ScriptedDatagramSocket* s = Live(fd, "AllowBroadcast");
  if (s == nullptr) return -EBADF;
  s->broadcast = true;
  return 0;
}

void ScriptedDatagrams::SetBuffers(int fd, uint32_t, uint32_t) {
  (void)Live(fd, "SetBuffers");
}

int ScriptedDatagrams::Receive(int fd, MutableBytes room,
                               std::span<DatagramIn> into) {
  ScriptedDatagramSocket* s = Live(fd, "Receive");
  if (s == nullptr) return -EBADF;
  ++s->receive_calls;
  EXPECT_TRUE(s->prepared);
  if (const int error = std::exchange(s->pending_error, 0)) return -error;
  if (s->inbox.empty()) return -EAGAIN;
  const size_t stride = room.size() / into.size();
  const size_t share = std::min(stride, kMaxDatagram);
  size_t n = 0;
  for (; n < into.size() && !s->inbox.empty(); ++n) {
    const ScriptedDatagramSocket::Arrival& a = s->inbox.front();
    DatagramIn& in = into[n];
    in = {};
    in.from = a.from;
    in.to = a.to;
    in.tos = a.tos;
    in.ttl = a.ttl;
    in.segment_size = a.segment_size;
    in.truncated = a.payload.size() > share;
    const size_t size = std::min(a.payload.size(), share);
    std::memcpy(room.data() + n * stride, a.payload.data(), size);
    in.payload = room.subspan(n * stride, size);
    s->inbox.pop_front();
  }
  return static_cast<int>(n);
}

int ScriptedDatagrams::Send(int fd, std::span<const DatagramOut> batch) {
  ScriptedDatagramSocket* s = Live(fd, "Send");
  if (s == nullptr) return -EBADF;
  ++s->send_calls;
  EXPECT_FALSE(batch.empty());
  EXPECT_TRUE(s->prepared);
  if (const int error = std::exchange(s->pending_error, 0)) return -error;
  if (!s->send_errors.empty()) {
    const int error = s->send_errors.front();
    s->send_errors.pop_front();
    return -error;
  }
  int taken = 0;
  for (const DatagramOut& out : batch.first(
           std::min(batch.size(), size_t{Datagrams::kMaxBatch}))) {
    EXPECT_EQ(sockets_->Get(fd).v4, out.to.ip.IsV4());
    EXPECT_LE(out.parts.size(), size_t{kMaxParts});
    if (s->send_room == 0) return taken > 0 ? taken : -EAGAIN;
    ScriptedDatagramSocket::Sent sent;
    sent.to = out.to;
    sent.segment_size = out.segment_size;
    sent.tos = out.tos;
    sent.ttl = out.ttl;
    sent.dont_fragment = s->dont_fragment;
    sent.call = s->send_calls;
    for (const Bytes& part : out.parts) {
      sent.payload.append(reinterpret_cast<const char*>(part.data()),
                          part.size());
    }
    EXPECT_LE(sent.payload.size(), size_t{kMaxDatagram});
    if (out.segment_size != 0) {
      EXPECT_LE(sent.payload.size(),
                size_t{out.segment_size} * kMaxSegments);
    }
    const size_t packet =
        HeadersOf(out.to) +
        (out.segment_size != 0 ? out.segment_size : sent.payload.size());
    if (s->path_mtu != 0 && packet > s->path_mtu &&
        (s->dont_fragment || out.segment_size != 0)) {
      if (taken > 0) return taken;
      DatagramError error;
      error.error = EMSGSIZE;
      error.local = true;
      error.mtu = s->path_mtu;
      error.destination = out.to;
      if (out.to.ip.IsV4()) error.destination.port = 0;  // as Linux does
      s->errors.push_back({error, ""});
      return -EMSGSIZE;
    }
    s->sent.push_back(std::move(sent));
    --s->send_room;
    ++taken;
  }
  return taken;
}

std::optional<DatagramError> ScriptedDatagrams::TakeError(int fd,
                                                          MutableBytes room) {
  ScriptedDatagramSocket* s = Live(fd, "TakeError");
  if (s == nullptr || s->errors.empty()) return std::nullopt;
  const ScriptedDatagramSocket::Error e = std::move(s->errors.front());
  s->errors.pop_front();
  s->pending_error = s->errors.empty() ? 0 : s->errors.front().error.error;
  DatagramError result = e.error;
  const size_t size = std::min(room.size(), e.payload.size());
  std::memcpy(room.data(), e.payload.data(), size);
  result.payload = room.first(size);
  return result;
}

}  // namespace netstack::test

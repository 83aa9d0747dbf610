#include "tests/support/scripted_sockets.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "gtest/gtest.h"

namespace netstack::test {

ScriptedSocket& ScriptedSockets::Get(int fd) {
  return *sockets_.at(static_cast<size_t>(fd - kFirstFd));
}

size_t ScriptedSockets::open_count() const {
  return static_cast<size_t>(
      std::count_if(sockets_.begin(), sockets_.end(),
                    [](const auto& s) { return !s->closed; }));
}

ScriptedSocket* ScriptedSockets::Live(int fd, const char* call) {
  const auto index = static_cast<size_t>(fd - kFirstFd);
  if (fd < kFirstFd || index >= sockets_.size()) {
    ADD_FAILURE() << call << "() of descriptor " << fd << ", which is no one's";
    return nullptr;
  }
  ScriptedSocket* s = sockets_[index].get();
  if (s->closed) {
    ADD_FAILURE() << call << "() of descriptor " << fd << " after Close()";
    return nullptr;
  }
  return s;
}

int ScriptedSockets::Open(SocketKind kind, bool v4) {
  if (!open_results.empty()) {
    const int result = open_results.front();
    open_results.pop_front();
    if (result != 0) return result;
  }
  sockets_.push_back(std::make_unique<ScriptedSocket>());
  ScriptedSocket& s = *sockets_.back();
  s.fd = kFirstFd + static_cast<int>(sockets_.size()) - 1;
  s.kind = kind;
  s.v4 = v4;
  return s.fd;
}

SocketPair ScriptedSockets::OpenPair() {
  const int first = Open(SocketKind::kTcp, true);
  if (first < 0) return {first, -1, -1};
  const int second = Open(SocketKind::kTcp, true);
  if (second < 0) {
    Close(first, false);
    return {second, -1, -1};
  }
  Get(first).peer = &Get(second);
  Get(second).peer = &Get(first);
  return {0, first, second};
}

int ScriptedSockets::SetMark(int fd, uint32_t mark) {
  ScriptedSocket* s = Live(fd, "SetMark");
  if (s == nullptr) return -EBADF;
  s->calls.emplace_back("SetMark");
  if (mark_result == 0) s->mark = mark;
  return mark_result;
}

int ScriptedSockets::BindToDevice(int fd, const std::string& device) {
  ScriptedSocket* s = Live(fd, "BindToDevice");
  if (s == nullptr) return -EBADF;
  s->calls.emplace_back("BindToDevice");
  if (device_result == 0) s->device = device;
  return device_result;
}

int ScriptedSockets::SetUserTimeout(int fd, Duration timeout) {
  ScriptedSocket* s = Live(fd, "SetUserTimeout");
  if (s == nullptr) return -EBADF;
  s->calls.emplace_back("SetUserTimeout");
  s->user_timeout = timeout;
  return 0;
}

int ScriptedSockets::SetTtl(int fd, bool v4, uint8_t ttl) {
  ScriptedSocket* s = Live(fd, "SetTtl");
  if (s == nullptr) return -EBADF;
  EXPECT_EQ(v4, s->v4);
  s->ttl = ttl;
  return 0;
}

int ScriptedSockets::KeepErrors(int fd, bool v4, bool on) {
  ScriptedSocket* s = Live(fd, "KeepErrors");
  if (s == nullptr) return -EBADF;
  EXPECT_EQ(v4, s->v4);
  s->keeps_errors = on;
  return 0;
}

int ScriptedSockets::Connect(int fd, const Endpoint& to) {
  ScriptedSocket* s = Live(fd, "Connect");
  if (s == nullptr) return -EBADF;
  EXPECT_EQ(s->v4, to.ip.IsV4()) << "the kernel says EAFNOSUPPORT";
  s->calls.emplace_back("Connect");
  s->connected_to = to;
  return on_connect ? on_connect(to) : connect_result;
}

int ScriptedSockets::Disconnect(int fd) {
  ScriptedSocket* s = Live(fd, "Disconnect");
  if (s == nullptr) return -EBADF;
  s->calls.emplace_back("Disconnect");
  s->connected_to.reset();
  return 0;
}

int ScriptedSockets::TakeError(int fd) {
  ScriptedSocket* s = Live(fd, "TakeError");
  if (s == nullptr) return -EBADF;
  s->calls.emplace_back("TakeError");
  return -std::exchange(s->so_error, 0);
}

int64_t ScriptedSockets::Send(int fd, std::span<const Bytes> parts) {
  ScriptedSocket* s = Live(fd, "Send");
  if (s == nullptr) return -EBADF;
  ++s->send_calls;
  if (s->send_error != 0) return -s->send_error;
  if (s->write_shut) return -EPIPE;
  size_t asked = 0;
  size_t taken = 0;
  for (const Bytes& part : parts.first(std::min<size_t>(parts.size(), 1024))) {
    asked += part.size();
    const size_t n = std::min(part.size(), s->send_room);
    s->sent.append(reinterpret_cast<const char*>(part.data()), n);
    if (s->peer != nullptr && n > 0) s->peer->Feed(part.first(n));
    s->send_room -= n;
    taken += n;
  }
  if (asked > 0 && taken == 0) return -EAGAIN;
  return static_cast<int64_t>(taken);
}

int64_t ScriptedSockets::Receive(int fd, MutableBytes into) {
  ScriptedSocket* s = Live(fd, "Receive");
  if (s == nullptr) return -EBADF;
  ++s->receive_calls;
  EXPECT_FALSE(into.empty()) << "its 0 would read as end of stream";
  if (s->pieces.empty()) {
    if (s->receive_error != 0) return -s->receive_error;
    return s->end ? 0 : -EAGAIN;
  }
  std::string& piece = s->pieces.front();
  const size_t n = std::min(piece.size(), into.size());
  std::memcpy(into.data(), piece.data(), n);
  piece.erase(0, n);
  if (piece.empty()) s->pieces.pop_front();
  return static_cast<int64_t>(n);
}

int ScriptedSockets::ShutdownWrite(int fd) {
  ScriptedSocket* s = Live(fd, "ShutdownWrite");
  if (s == nullptr) return -EBADF;
  s->calls.emplace_back("ShutdownWrite");
  s->write_shut = true;
  if (s->peer != nullptr) s->peer->FeedEnd();
  return 0;
}

void ScriptedSockets::Close(int fd, bool reset) {
  ScriptedSocket* s = Live(fd, "Close");
  if (s == nullptr) return;
  s->calls.emplace_back("Close");
  s->closed = true;
  s->reset = reset;
  if (s->peer != nullptr) s->peer->FeedEnd();
}

Endpoint ScriptedSockets::LocalEndpoint(int fd) {
  const ScriptedSocket* s = Live(fd, "LocalEndpoint");
  return s == nullptr ? Endpoint{} : s->local;
}

Duration ScriptedSockets::RoundTripTime(int fd) {
  const ScriptedSocket* s = Live(fd, "RoundTripTime");
  return s == nullptr ? Duration::zero() : s->round_trip_time;
}

}  // namespace netstack::test

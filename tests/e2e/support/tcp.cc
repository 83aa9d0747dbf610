#include "tests/e2e/support/tcp.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <cerrno>
#include <cstring>

#include "gtest/gtest.h"
#include "tests/e2e/support/pattern.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

constexpr size_t kPiece = 256 * 1024;

struct Request {
  uint32_t wish;
  uint32_t zero;
  uint64_t seed;
  uint64_t size;
};

int Milliseconds(Clock::duration time) {
  return static_cast<int>(
      std::chrono::duration_cast<milliseconds>(time).count());
}

std::span<const char> BytesOf(const auto& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

void Serve(Tcp& socket) {
  const std::string text = socket.Receive(sizeof(Request));
  if (text.size() != sizeof(Request)) return;
  Request request;
  std::memcpy(&request, text.data(), sizeof(request));
  switch (static_cast<Wish>(request.wish)) {
    case Wish::kUpload: {
      const uint64_t good =
          socket.ReceivePattern(request.seed, request.size).bytes;
      socket.Send(BytesOf(good));
      break;
    }
    case Wish::kDownload:
      socket.SendPattern(request.seed, request.size);
      break;
    case Wish::kEcho: {
      std::vector<char> buffer(kPiece);
      for (;;) {
        const ssize_t n = socket.ReceiveSome(buffer);
        if (n <= 0) break;
        if (socket.Send({buffer.data(), static_cast<size_t>(n)}) != 0) break;
      }
      break;
    }
  }
}

}  // namespace

Address::Address(const std::string& ip, uint16_t port) {
  auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
  if (inet_pton(AF_INET, ip.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    size = sizeof(*v4);
  } else {
    storage = {};
    EXPECT_EQ(inet_pton(AF_INET6, ip.c_str(), &v6->sin6_addr), 1) << ip;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    size = sizeof(*v6);
  }
}

uint16_t Address::port() const {
  // At the same place in both families.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
}

Tcp::Tcp(Fd fd) : fd_(std::move(fd)) { SetPatience(kPatience); }

Tcp::Tcp(const std::string& ns, int family) {
  const Enter enter(ns);
  fd_ = Fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_TRUE(fd_.ok()) << "socket: " << std::strerror(errno);
  SetPatience(kPatience);
}

void Tcp::SetPatience(Clock::duration patience) {
  if (!fd_.ok()) return;
  const timeval time = {
      .tv_sec = std::chrono::duration_cast<seconds>(patience).count(),
      .tv_usec = std::chrono::duration_cast<std::chrono::microseconds>(
                     patience % seconds(1))
                     .count()};
  setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time));
  setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time));
}

int Tcp::Bind(const Address& to) {
  return bind(fd_.get(), to.get(), to.size) == 0 ? 0 : errno;
}

int Tcp::ConnectStart(const Address& to) {
  const int flags = fcntl(fd_.get(), F_GETFL);
  fcntl(fd_.get(), F_SETFL, flags | O_NONBLOCK);
  const int error = connect(fd_.get(), to.get(), to.size) == 0 ? 0 : errno;
  if (error != EINPROGRESS) fcntl(fd_.get(), F_SETFL, flags);
  return error;
}

int Tcp::ConnectResult(Clock::duration patience) {
  pollfd waiting = {.fd = fd_.get(), .events = POLLOUT, .revents = 0};
  if (poll(&waiting, 1, std::max(0, Milliseconds(patience))) != 1) {
    return ETIMEDOUT;
  }
  fcntl(fd_.get(), F_SETFL, fcntl(fd_.get(), F_GETFL) & ~O_NONBLOCK);
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

int Tcp::Connect(const Address& to, Clock::duration patience) {
  const int error = ConnectStart(to);
  return error == EINPROGRESS ? ConnectResult(patience) : error;
}

int Tcp::Send(std::span<const char> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return 0;
}

ssize_t Tcp::ReceiveSome(std::span<char> into) {
  for (;;) {
    const ssize_t n = recv(fd_.get(), into.data(), into.size(), 0);
    if (n >= 0) return n;
    if (errno != EINTR) return -errno;
  }
}

std::string Tcp::Receive(size_t size) {
  std::string text(size, '\0');
  size_t at = 0;
  while (at < size) {
    const ssize_t n = ReceiveSome({&text[at], size - at});
    if (n <= 0) break;
    at += static_cast<size_t>(n);
  }
  text.resize(at);
  return text;
}

std::string Tcp::ReceiveAll() {
  std::string text;
  std::vector<char> buffer(kPiece);
  for (;;) {
    const ssize_t n = ReceiveSome(buffer);
    // A stream that does not end must not pass for one that did.
    EXPECT_GE(n, 0) << "no clean end after " << text.size()
                    << " bytes: " << std::strerror(static_cast<int>(-n));
    if (n <= 0) return text;
    text.append(buffer.data(), static_cast<size_t>(n));
  }
}

Transfer Tcp::SendPattern(uint64_t seed, uint64_t size) {
  Transfer done;
  std::vector<char> buffer(std::min<uint64_t>(size, kPiece));
  while (done.bytes < size && done.error == 0) {
    const size_t n = std::min<uint64_t>(buffer.size(), size - done.bytes);
    FillPattern(seed, done.bytes, {buffer.data(), n});
    const auto start = Clock::now();
    done.error = Send({buffer.data(), n});
    done.longest_wait = std::max(done.longest_wait, SecondsSince(start));
    if (done.error == 0) done.bytes += n;
  }
  return done;
}

Transfer Tcp::ReceivePattern(uint64_t seed, uint64_t size) {
  Transfer done;
  std::vector<char> buffer(std::min<uint64_t>(size, kPiece));
  while (done.bytes < size) {
    const auto start = Clock::now();
    const ssize_t n = ReceiveSome(
        {buffer.data(), std::min<uint64_t>(buffer.size(), size - done.bytes)});
    done.longest_wait = std::max(done.longest_wait, SecondsSince(start));
    if (n < 0) done.error = static_cast<int>(-n);
    done.ended = n == 0;
    if (n <= 0) break;
    const size_t good =
        MatchPattern(seed, done.bytes, {buffer.data(), static_cast<size_t>(n)});
    done.bytes += good;
    done.wrong = good != static_cast<size_t>(n);
    if (done.wrong) break;
  }
  return done;
}

bool Tcp::AtEnd() {
  char byte;
  return ReceiveSome({&byte, 1}) == 0;
}

int Tcp::ReadError() {
  char byte;
  const ssize_t n = ReceiveSome({&byte, 1});
  return n < 0 ? static_cast<int>(-n) : 0;
}

void Tcp::Abort() {
  const linger now = {.l_onoff = 1, .l_linger = 0};
  setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  fd_.Reset();
}

void Tcp::SetOption(int level, int option, int value) {
  EXPECT_EQ(setsockopt(fd_.get(), level, option, &value, sizeof(value)), 0)
      << "option " << option << ": " << std::strerror(errno);
}

Address Tcp::Local() const {
  Address address;
  getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address.storage),
              &address.size);
  return address;
}

Address Tcp::Peer() const {
  Address address;
  getpeername(fd_.get(), reinterpret_cast<sockaddr*>(&address.storage),
              &address.size);
  return address;
}

Tcp Listen(const std::string& ns, uint16_t port, int backlog,
           int receive_buffer) {
  Tcp listener(ns, AF_INET6);
  listener.SetOption(IPPROTO_IPV6, IPV6_V6ONLY, 0);
  listener.SetOption(SOL_SOCKET, SO_REUSEADDR, 1);
  // Before listen(), so that connections inherit it with their SYN-ACK.
  if (receive_buffer != 0) {
    listener.SetOption(SOL_SOCKET, SO_RCVBUF, receive_buffer);
  }
  EXPECT_EQ(listener.Bind(Address("::", port)), 0) << std::strerror(errno);
  EXPECT_EQ(listen(listener.fd(), backlog), 0) << std::strerror(errno);
  return listener;
}

Tcp AcceptOne(Tcp& listener) {
  return Tcp(Fd(accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC)));
}

Server::Server(const std::string& ns, Handler handler)
    : Server(ns, std::move(handler), Options()) {}

Server::Server(const std::string& ns, Handler handler, Options options)
    : handler_(std::move(handler)),
      listener_(
          Listen(ns, options.port, options.backlog, options.receive_buffer)) {
  if (options.send_buffer != 0) {
    listener_.SetOption(SOL_SOCKET, SO_SNDBUF, options.send_buffer);
  }
  port_ = listener_.Local().port();
  listener_.SetPatience(milliseconds(200));
  thread_ = std::thread([this] { Accept(); });
}

// A finished thread keeps its stack until it is joined: with tens of thousands
// of connections there would be no room for another.
void Server::Reap() {
  if (finished_ < 64) return;
  std::erase_if(connections_, [](Connection& c) {
    if (c.fd >= 0) return false;
    c.thread.join();
    return true;
  });
  finished_ = 0;
}

void Server::Accept() {
  while (!stopping_) {
    Tcp socket = AcceptOne(listener_);
    if (!socket.ok()) continue;  // nobody came: look at stopping_
    // Clients lose patience; a server waits until its destructor wakes it.
    socket.SetPatience(std::chrono::hours(1));
    ++accepted_;
    const std::lock_guard lock(mutex_);
    Reap();
    Connection& c = connections_.emplace_back();
    c.socket = std::move(socket);
    c.fd = c.socket.fd();
    c.thread = std::thread([this, &c] {
      handler_(c.socket);
      const std::lock_guard closing(mutex_);
      c.fd = -1;
      ++finished_;
      c.socket.Close();
    });
  }
}

Server::~Server() {
  stopping_ = true;
  shutdown(listener_.fd(), SHUT_RDWR);
  thread_.join();
  {
    // Wakes handlers that wait; their threads close.
    const std::lock_guard lock(mutex_);
    for (Connection& c : connections_) {
      if (c.fd >= 0) shutdown(c.fd, SHUT_RDWR);
    }
  }
  for (Connection& c : connections_) c.thread.join();
}

Holder::Holder(const std::string& ns) : listener_(Listen(ns)) {
  port_ = listener_.Local().port();
  listener_.SetPatience(milliseconds(200));
  thread_ = std::thread([this] {
    while (!stopping_) {
      Tcp socket = AcceptOne(listener_);
      if (!socket.ok()) continue;
      const std::lock_guard lock(mutex_);
      held_.push_back(std::move(socket));
    }
  });
}

Holder::~Holder() {
  stopping_ = true;
  shutdown(listener_.fd(), SHUT_RDWR);
  thread_.join();
}

size_t Holder::count() {
  const std::lock_guard lock(mutex_);
  return held_.size();
}

std::vector<Tcp> Holder::Take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(held_, {});
}

PatternServer::PatternServer(const std::string& ns, Options options)
    : Server(ns, Serve, options) {}

void AskFor(Tcp& socket, Wish wish, uint64_t seed, uint64_t size) {
  const Request request = {static_cast<uint32_t>(wish), 0, seed, size};
  socket.Send(BytesOf(request));
}

std::string Describe(const Transfer& transfer, uint64_t wanted) {
  if (transfer.bytes == wanted && transfer.error == 0) return "";
  std::string text = "good bytes: " + std::to_string(transfer.bytes) + " of " +
                     std::to_string(wanted);
  if (transfer.wrong) text += ", then a wrong one";
  if (transfer.ended) text += ", then the end of the stream";
  if (transfer.error != 0) {
    text += std::string(", then ") + std::strerror(transfer.error);
  }
  return text;
}

std::string UploadAnswer(Tcp& socket, uint64_t size) {
  const std::string answer = socket.Receive(sizeof(uint64_t));
  uint64_t good = 0;
  if (answer.size() != sizeof(good)) return "upload: no answer";
  std::memcpy(&good, answer.data(), sizeof(good));
  if (good != size) {
    return "upload: the server got " + std::to_string(good) + " good bytes";
  }
  return socket.AtEnd() ? "" : "upload: no clean end";
}

std::string AskUpload(Tcp& socket, uint64_t seed, uint64_t size) {
  AskFor(socket, Wish::kUpload, seed, size);
  const std::string wrong = Describe(socket.SendPattern(seed, size), size);
  return wrong.empty() ? UploadAnswer(socket, size) : "upload: " + wrong;
}

std::string AskDownload(Tcp& socket, uint64_t seed, uint64_t size) {
  AskFor(socket, Wish::kDownload, seed, size);
  const std::string wrong = Describe(socket.ReceivePattern(seed, size), size);
  if (!wrong.empty()) return "download: " + wrong;
  return socket.AtEnd() ? "" : "download: no clean end";
}

}  // namespace netstack::e2e

// TCP sockets of apps and servers. They block, but never for longer than
// kPatience at a time: what hangs fails.
#ifndef TESTS_E2E_SUPPORT_TCP_H_
#define TESTS_E2E_SUPPORT_TCP_H_

#include <sys/socket.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "tests/e2e/support/deadline.h"
#include "tests/e2e/support/fd.h"

namespace netstack::e2e {

// An address and a port, for the socket calls.
struct Address {
  Address() = default;
  Address(const std::string& ip, uint16_t port);  // "10.0.0.1" or "fd00::1"

  int family() const { return storage.ss_family; }
  uint16_t port() const;
  const sockaddr* get() const {
    return reinterpret_cast<const sockaddr*>(&storage);
  }

  sockaddr_storage storage{};
  socklen_t size = sizeof(sockaddr_storage);
};

// How reading or writing went on until it could not.
struct Transfer {
  uint64_t bytes = 0;  // good ones
  int error = 0;       // errno; 0 after end of stream, or when all was done
  bool wrong = false;  // the byte at `bytes` was not the expected one
  bool ended = false;  // end of stream was seen
  double longest_wait = 0;  // seconds without a byte
};

class Tcp {
 public:
  Tcp() = default;
  explicit Tcp(Fd fd);
  // A new socket of a namespace.
  Tcp(const std::string& ns, int family);

  int fd() const { return fd_.get(); }
  bool ok() const { return fd_.ok(); }

  // 0 or errno; ETIMEDOUT when there is no answer within `patience`.
  int Connect(const Address& to, Clock::duration patience = seconds(40));
  int Bind(const Address& to);
  // Begins to connect without waiting; 0, EINPROGRESS or another errno.
  int ConnectStart(const Address& to);
  // The result of ConnectStart(), or ETIMEDOUT.
  int ConnectResult(Clock::duration patience);

  // 0, or the errno that ended it.
  int Send(std::span<const char> bytes);
  // Exactly so many bytes; less only at end of stream or after an error.
  std::string Receive(size_t size);
  // What is there within the patience: bytes, 0 at the end, or -errno.
  ssize_t ReceiveSome(std::span<char> into);
  // Up to the end of the stream; anything else is the test's failure.
  std::string ReceiveAll();

  Transfer SendPattern(uint64_t seed, uint64_t size);
  // Reads `size` bytes of content, and no more.
  Transfer ReceivePattern(uint64_t seed, uint64_t size);
  // Whether the next thing read is the end of the stream.
  bool AtEnd();
  // The errno that the next read gives; 0 for bytes or the end.
  int ReadError();

  void ShutdownWrite() { shutdown(fd_.get(), SHUT_WR); }
  // Closes with RST.
  void Abort();
  void Close() { fd_.Reset(); }
  void SetOption(int level, int option, int value);
  // For each later call.
  void SetPatience(Clock::duration patience);
  Address Local() const;
  Address Peer() const;

 private:
  Fd fd_;
};

// Serves each connection on a thread of its own, both families, any port.
// The destructor ends the connections and waits for the threads.
class Server {
 public:
  using Handler = std::function<void(Tcp&)>;
  struct Options {
    int receive_buffer = 0;  // SO_RCVBUF of the listener; 0: the kernel's own
    int send_buffer = 0;
    uint16_t port = 0;  // 0: any
    int backlog = 4096;
  };

  Server(const std::string& ns, Handler handler);
  Server(const std::string& ns, Handler handler, Options options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  uint16_t port() const { return port_; }
  uint64_t accepted() const { return accepted_; }

 private:
  struct Connection {
    Tcp socket;
    int fd = -1;
    std::thread thread;
  };

  void Accept();
  void Reap();

  Handler handler_;
  Tcp listener_;
  uint16_t port_ = 0;
  std::atomic<uint64_t> accepted_{0};
  std::mutex mutex_;
  std::list<Connection> connections_;
  size_t finished_ = 0;  // of connections_
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

// Accepts and keeps connections, and does nothing with them.
class Holder {
 public:
  explicit Holder(const std::string& ns);
  ~Holder();
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;

  uint16_t port() const { return port_; }
  size_t count();
  // The connections so far; the caller's from now on.
  std::vector<Tcp> Take();

 private:
  Tcp listener_;
  uint16_t port_ = 0;
  std::mutex mutex_;
  std::vector<Tcp> held_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

// A listening socket of both families; `port` 0: any.
Tcp Listen(const std::string& ns, uint16_t port = 0, int backlog = 4096,
           int receive_buffer = 0);
Tcp AcceptOne(Tcp& listener);

// What PatternServer is asked for.
enum class Wish : uint32_t { kUpload, kDownload, kEcho };

// Speaks a protocol of 24 bytes: a wish, a seed and a size. An upload is
// checked and answered with the count of good bytes, a download is sent, an
// echo comes back until the end of the stream. Then it closes.
class PatternServer : public Server {
 public:
  explicit PatternServer(const std::string& ns, Options options = {});
};

// The client's side of it, on a connected socket. What went wrong, or "".
std::string AskUpload(Tcp& socket, uint64_t seed, uint64_t size);
std::string AskDownload(Tcp& socket, uint64_t seed, uint64_t size);
void AskFor(Tcp& socket, Wish wish, uint64_t seed, uint64_t size);
// The end of an upload: what the server says, compared.
std::string UploadAnswer(Tcp& socket, uint64_t size);
std::string Describe(const Transfer& transfer, uint64_t wanted);

}  // namespace netstack::e2e

#endif  // TESTS_E2E_SUPPORT_TCP_H_

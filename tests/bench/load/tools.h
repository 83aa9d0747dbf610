// What the subcommands of netload share: time, addresses, descriptors,
// percentiles and the one line of JSON.
#ifndef TESTS_BENCH_LOAD_TOOLS_H_
#define TESTS_BENCH_LOAD_TOOLS_H_

#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace netload {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;
using Micros = std::chrono::duration<double, std::micro>;
using Seconds = std::chrono::duration<double>;

// Ends the program: a measurement that cannot be made has no result.
[[noreturn]] void Die(const std::string& what);
[[noreturn]] void DieWithErrno(const std::string& what);

// An owned descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() { Reset(); }

  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }
  void Reset();

 private:
  int fd_ = -1;
};

// An IPv4 or IPv6 address with a port: "10.0.0.1:80", "[fd00::1]:80".
struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;

  const sockaddr* get() const {
    return reinterpret_cast<const sockaddr*>(&storage);
  }
  int family() const { return storage.ss_family; }
};
Address ParseAddress(const std::string& text);

// A non-blocking TCP socket with TCP_NODELAY.
Fd OpenTcp(int family);
// SO_ERROR, 0 when the connect() succeeded.
int ConnectError(int fd);

// Raises RLIMIT_NOFILE as far as the machine lets us; the limit then.
uint64_t RaiseFileLimit();

// Collects durations; percentiles in microseconds.
class Samples {
 public:
  void Add(Micros sample) { us_.push_back(sample.count()); }
  size_t size() const { return us_.size(); }
  void Merge(const Samples& other);
  // `p` from 0 to 100; sorts. 0 when there are none.
  double Percentile(double p);

 private:
  std::vector<double> us_;
  bool sorted_ = false;
};

// {"tool":"connect","rate":1234.5}
class JsonLine {
 public:
  explicit JsonLine(std::string_view tool);
  JsonLine& Add(std::string_view name, double value);
  JsonLine& Add(std::string_view name, std::string_view value);
  // p50_us, p99_us and count.
  JsonLine& Add(Samples& samples);
  void Print();  // and flushes: the reader may be waiting for it

 private:
  std::string text_;
};

// Options of the form --name value, each of which has a default.
class Options {
 public:
  // Dies on a name that is not among `known`, listing them.
  Options(int argc, char** argv, std::vector<std::string> known);
  std::string Text(const std::string& name, std::string otherwise) const;
  double Number(const std::string& name, double otherwise) const;

 private:
  std::vector<std::pair<std::string, std::string>> given_;
};

// The subcommands; each returns the exit code.
int Serve(const Options& options);
int PingPong(const Options& options);
int Connect(const Options& options);
int Idle(const Options& options);
int UdpServe(const Options& options);
int Udp(const Options& options);

}  // namespace netload

#endif  // TESTS_BENCH_LOAD_TOOLS_H_

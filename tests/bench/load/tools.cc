#include "tests/bench/load/tools.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace netload {

void Die(const std::string& what) {
  std::fprintf(stderr, "netload: %s\n", what.c_str());
  std::exit(1);
}

void DieWithErrno(const std::string& what) {
  Die(what + ": " + std::strerror(errno));
}

void Fd::Reset() {
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

Address ParseAddress(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) Die("no port in the address " + text);
  std::string host = text.substr(0, colon);
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  const int port = std::atoi(text.c_str() + colon + 1);
  Address address;
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(static_cast<uint16_t>(port));
    std::memcpy(&address.storage, &v4, sizeof(v4));
    address.size = sizeof(v4);
  } else if (inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(static_cast<uint16_t>(port));
    std::memcpy(&address.storage, &v6, sizeof(v6));
    address.size = sizeof(v6);
  } else {
    Die("not an address: " + text);
  }
  return address;
}

Fd OpenTcp(int family) {
  Fd fd(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.ok()) return fd;
  const int on = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

int ConnectError(int fd) {
  int error = 0;
  socklen_t size = sizeof(error);
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
  return error;
}

uint64_t RaiseFileLimit() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  rlimit wanted{1u << 20, 1u << 20};
  if (setrlimit(RLIMIT_NOFILE, &wanted) == 0) return wanted.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

void Samples::Merge(const Samples& other) {
  us_.insert(us_.end(), other.us_.begin(), other.us_.end());
  sorted_ = false;
}

double Samples::Percentile(double p) {
  if (us_.empty()) return 0;
  if (!sorted_) std::sort(us_.begin(), us_.end());
  sorted_ = true;
  const double last = static_cast<double>(us_.size() - 1);
  return us_[static_cast<size_t>(std::lround(p / 100 * last))];
}

JsonLine::JsonLine(std::string_view tool) {
  text_ = "{\"tool\":\"" + std::string(tool) + "\"";
}

JsonLine& JsonLine::Add(std::string_view name, double value) {
  char number[32];
  const bool whole = value == std::floor(value) && std::abs(value) < 1e15;
  std::snprintf(number, sizeof(number), whole ? "%.0f" : "%.3f", value);
  text_ += ",\"" + std::string(name) + "\":" + number;
  return *this;
}

JsonLine& JsonLine::Add(std::string_view name, std::string_view value) {
  text_ += ",\"" + std::string(name) + "\":\"" + std::string(value) + "\"";
  return *this;
}

JsonLine& JsonLine::Add(Samples& samples) {
  return Add("count", static_cast<double>(samples.size()))
      .Add("p50_us", samples.Percentile(50))
      .Add("p99_us", samples.Percentile(99));
}

void JsonLine::Print() {
  std::printf("%s}\n", text_.c_str());
  std::fflush(stdout);
}

Options::Options(int argc, char** argv, std::vector<std::string> known) {
  for (int i = 0; i < argc; i += 2) {
    const std::string name = argv[i];
    const bool is_known =
        name.rfind("--", 0) == 0 &&
        std::find(known.begin(), known.end(), name.substr(2)) != known.end();
    if (!is_known || i + 1 == argc) {
      std::string all;
      for (const std::string& k : known) all += " --" + k;
      Die("'" + name + "' is no option with a value; there are:" + all);
    }
    given_.emplace_back(name.substr(2), argv[i + 1]);
  }
}

std::string Options::Text(const std::string& name,
                          std::string otherwise) const {
  for (const auto& [n, value] : given_) {
    if (n == name) return value;
  }
  return otherwise;
}

double Options::Number(const std::string& name, double otherwise) const {
  const std::string text = Text(name, "");
  if (text.empty()) return otherwise;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (*end != '\0') Die("--" + name + " is a number, not '" + text + "'");
  return value;
}

}  // namespace netload

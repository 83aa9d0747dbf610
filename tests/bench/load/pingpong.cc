// Round-trip times on one open connection.
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "tests/bench/load/tools.h"

namespace netload {
namespace {

// Nothing on this path takes longer: beyond, the measurement has failed.
constexpr int kStallMs = 10'000;

void WaitFor(int fd, short what) {
  pollfd p{fd, what, 0};
  if (poll(&p, 1, kStallMs) != 1) Die("nothing moved for 10 s");
}

}  // namespace

int PingPong(const Options& options) {
  const Address to = ParseAddress(options.Text("to", ""));
  const Seconds length(options.Number("seconds", 2));
  std::vector<char> message(static_cast<size_t>(options.Number("size", 1)));
  Fd fd = OpenTcp(to.family());
  if (!fd.ok()) DieWithErrno("socket");
  const Time begin = Clock::now();
  if (connect(fd.get(), to.get(), to.size) != 0) WaitFor(fd.get(), POLLOUT);
  if (const int error = ConnectError(fd.get())) {
    Die(std::string("cannot connect: ") + std::strerror(error));
  }
  const Micros connected = Clock::now() - begin;

  Samples samples;
  const Time start = Clock::now();
  Time now = start;
  while (now - start < length) {
    for (size_t sent = 0; sent < message.size();) {
      const ssize_t n =
          send(fd.get(), message.data() + sent, message.size() - sent, 0);
      if (n > 0)
        sent += static_cast<size_t>(n);
      else if (errno == EAGAIN)
        WaitFor(fd.get(), POLLOUT);
      else
        DieWithErrno("send");
    }
    for (size_t got = 0; got < message.size();) {
      // Waiting first: every round trip sleeps, as an app would.
      WaitFor(fd.get(), POLLIN);
      const ssize_t n =
          recv(fd.get(), message.data() + got, message.size() - got, 0);
      if (n > 0)
        got += static_cast<size_t>(n);
      else if (n == 0)
        Die("the server has closed");
      else if (errno != EAGAIN)
        DieWithErrno("recv");
    }
    const Time then = now;
    now = Clock::now();
    samples.Add(now - then);
  }
  JsonLine("pingpong")
      .Add(samples)
      .Add("connect_us", connected.count())
      .Add("rate",
           static_cast<double>(samples.size()) / Seconds(now - start).count())
      .Print();
  return 0;
}

}  // namespace netload

#include "tests/e2e/support/relay.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <map>
#include <random>
#include <string>

namespace netstack::e2e {
namespace {

struct Waiting {
  int to;
  std::string packet;
};

}  // namespace

Relay::Relay(Fd a, Fd b, const Impairment& impairment)
    : ends_{std::move(a), std::move(b)},
      stop_(eventfd(0, EFD_CLOEXEC)),
      impairment_(impairment),
      thread_([this] { Loop(); }) {}

Relay::~Relay() {
  const uint64_t one = 1;
  if (write(stop_.get(), &one, sizeof(one)) != sizeof(one)) std::abort();
  thread_.join();
}

void Relay::Loop() {
  std::mt19937_64 random(impairment_.seed);
  std::uniform_real_distribution<double> chance(0, 1);
  // By the time of delivery; equal times keep their order.
  std::multimap<Clock::time_point, Waiting> waiting;
  std::string buffer(65536, '\0');
  for (;;) {
    timespec timeout{};
    if (!waiting.empty()) {
      const auto left = waiting.begin()->first - Clock::now();
      if (left > Clock::duration::zero()) {
        timeout.tv_sec = left / seconds(1);
        timeout.tv_nsec = (left % seconds(1)).count();
      }
    }
    pollfd fds[3] = {{ends_[0].get(), POLLIN, 0},
                     {ends_[1].get(), POLLIN, 0},
                     {stop_.get(), POLLIN, 0}};
    ppoll(fds, 3, waiting.empty() ? nullptr : &timeout, nullptr);
    if (fds[2].revents != 0) return;
    for (int from = 0; from < 2; ++from) {
      // Not forever: what waits must go on time.
      for (int n = 0; n < 64; ++n) {
        const ssize_t size =
            read(ends_[from].get(), buffer.data(), buffer.size());
        if (size <= 0) break;
        if (chance(random) < impairment_.loss) {
          ++lost_;
          continue;
        }
        auto due = Clock::now() + impairment_.delay;
        if (chance(random) < impairment_.reorder) {
          ++reordered_;
          due += impairment_.late;
        }
        const std::string packet = buffer.substr(0, static_cast<size_t>(size));
        waiting.emplace(due, Waiting{1 - from, packet});
        if (chance(random) < impairment_.duplicate) {
          ++duplicated_;
          waiting.emplace(due, Waiting{1 - from, packet});
        }
      }
    }
    while (!waiting.empty() && waiting.begin()->first <= Clock::now()) {
      const Waiting& w = waiting.begin()->second;
      const ssize_t written =
          write(ends_[w.to].get(), w.packet.data(), w.packet.size());
      ++(written == static_cast<ssize_t>(w.packet.size()) ? carried_
                                                          : overflowed_);
      waiting.erase(waiting.begin());
    }
  }
}

}  // namespace netstack::e2e

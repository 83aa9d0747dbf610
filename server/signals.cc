#include "server/signals.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <thread>

namespace netstack::server {

Signals::Signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  (void)signal(SIGPIPE, SIG_IGN);
  fd_ = signalfd(-1, &set, SFD_CLOEXEC);
  done_ = eventfd(0, EFD_CLOEXEC);
}

Signals::~Signals() {
  if (fd_ >= 0) close(fd_);
  if (done_ >= 0) close(done_);
}

int Signals::Wait() {
  signalfd_siginfo info{};
  while (read(fd_, &info, sizeof info) < 0 && errno == EINTR) {
  }
  return static_cast<int>(info.ssi_signo);
}

void Signals::RunUnlessSignalled(const std::function<void()>& work) {
  std::thread worker([&] {
    work();
    (void)!eventfd_write(done_, 1);
  });
  for (;;) {
    pollfd fds[2] = {{fd_, POLLIN, 0}, {done_, POLLIN, 0}};
    if (poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents != 0) break;
    const int signal = Wait();
    if (signal != SIGHUP) _exit(128 + signal);
  }
  worker.join();
}

}  // namespace netstack::server

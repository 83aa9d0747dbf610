#include "clients/cli/watch.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace netstack::cli {
namespace {

// Write end of the living Interrupt's pipe; the handler knows no more.
std::atomic<int> g_wake{-1};

void OnSignal(int) {
  const int saved = errno;
  const char byte = 's';
  if (write(g_wake.load(), &byte, 1) < 0) {
    // The pipe is full: it has been told already.
  }
  errno = saved;
}

struct OldActions {
  struct sigaction interrupt {};
  struct sigaction terminate {};
};
OldActions g_old;

}  // namespace

Interrupt::Interrupt(int output) {
  if (pipe2(wake_, O_CLOEXEC | O_NONBLOCK) != 0) return;  // Ctrl-C kills us.
  g_wake = wake_[1];
  struct sigaction action {};
  action.sa_handler = OnSignal;
  sigemptyset(&action.sa_mask);
  // A second Ctrl-C ends us even if the first one hangs.
  action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);
  sigaction(SIGINT, &action, &g_old.interrupt);
  sigaction(SIGTERM, &action, &g_old.terminate);
  listener_ = std::thread([this, output] { Listen(output); });
}

Interrupt::~Interrupt() {
  if (!listener_.joinable()) return;
  sigaction(SIGINT, &g_old.interrupt, nullptr);
  sigaction(SIGTERM, &g_old.terminate, nullptr);
  const char byte = 'q';
  while (write(wake_[1], &byte, 1) < 0 && errno == EINTR) {
  }
  listener_.join();
  g_wake = -1;
  close(wake_[0]);
  close(wake_[1]);
}

void Interrupt::Listen(int output) {
  // Events 0: only errors, and a pipe has one when its reader has gone.
  pollfd fds[2] = {{.fd = wake_[0], .events = POLLIN, .revents = 0},
                   {.fd = output, .events = 0, .revents = 0}};
  for (;;) {
    if (poll(fds, 2, -1) < 0) continue;
    if ((fds[0].revents & POLLIN) != 0) {
      char byte = 0;
      if (read(wake_[0], &byte, 1) == 1 && byte == 'q') return;
      Raise();
    } else if (fds[1].revents != 0) {
      fds[1].fd = -1;
      Raise();
    }
  }
}

void Interrupt::Raise() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (raised_) return;
  raised_ = true;
  if (action_) action_();
  changed_.notify_all();
}

bool Interrupt::raised() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return raised_;
}

bool Interrupt::WaitFor(absl::Duration duration) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, absl::ToChronoNanoseconds(duration),
                           [this] { return raised_; });
}

Interrupt::Scope::Scope(Interrupt& interrupt, std::function<void()> action)
    : interrupt_(interrupt) {
  const std::lock_guard<std::mutex> lock(interrupt_.mutex_);
  if (interrupt_.raised_) action();
  interrupt_.action_ = std::move(action);
}

Interrupt::Scope::~Scope() {
  const std::lock_guard<std::mutex> lock(interrupt_.mutex_);
  interrupt_.action_ = nullptr;
}

std::string RedrawFrame(const std::string& text, size_t height, bool first) {
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  if (!lines.empty() && lines.back().empty()) lines.pop_back();
  // The last row stays free: a newline there would scroll.
  const size_t room = height > 2 ? height - 1 : 1;
  if (lines.size() > room) {
    const size_t hidden = lines.size() - (room - 1);
    lines.resize(room - 1);
    lines.push_back(absl::StrCat("… ", hidden, " more lines"));
  }
  std::string frame = first ? "\x1b[2J\x1b[H" : "\x1b[H";
  for (const std::string& line : lines) {
    absl::StrAppend(&frame, line, "\x1b[K\n");
  }
  return frame + "\x1b[J";
}

}  // namespace netstack::cli

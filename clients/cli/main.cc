// netstackctl: composes the console of this process and runs the command.
#include <sys/ioctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>

#include "clients/cli/app.h"

namespace {

netstack::cli::TerminalSize AskSize() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
    return {};
  }
  return {.width = size.ws_col, .height = size.ws_row};
}

bool WantsColour(bool tty) {
  const char* no_color = std::getenv("NO_COLOR");  // See no-color.org.
  const char* term = std::getenv("TERM");
  return tty && (no_color == nullptr || *no_color == '\0') &&
         (term == nullptr || std::string(term) != "dumb");
}

}  // namespace

int main(int argc, char** argv) {
  // "netstackctl flows | head" ends quietly, whatever our parent ignores.
  std::signal(SIGPIPE, SIG_DFL);
  const bool tty = isatty(STDOUT_FILENO) == 1;
  netstack::cli::Console console{.out = &std::cout,
                                 .err = &std::cerr,
                                 .out_fd = STDOUT_FILENO,
                                 .tty = tty,
                                 .colour = WantsColour(tty),
                                 .size = AskSize,
                                 .zone = absl::LocalTimeZone()};
  return netstack::cli::RunCli({argv + 1, argv + argc}, console);
}

// What every command is given: the global options and where to write.
#ifndef CLIENTS_CLI_CONTEXT_H_
#define CLIENTS_CLI_CONTEXT_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <ostream>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cli/client.h"
#include "clients/cli/json.h"
#include "clients/cli/table.h"

namespace netstack::cli {

// Size of a terminal.
struct TerminalSize {
  size_t width = 80;
  size_t height = 24;
};

// Where data and errors go, and what kind of place it is. Tests give streams
// of their own.
struct Console {
  std::ostream* out;  // Data; outlives the console, as does err.
  std::ostream* err;  // Errors.
  int out_fd = -1;    // Descriptor behind `out`; -1: none, as in tests.
  bool tty = false;   // `out` is a terminal.
  bool colour = false;
  // Asked for anew for every frame, since terminals are resized.
  std::function<TerminalSize()> size = [] { return TerminalSize(); };
  absl::TimeZone zone = absl::UTCTimeZone();
};

// One run of netstackctl.
struct Context {
  Console* console;  // Outlives the context.

  // Global options.
  std::string socket = {};
  bool json = false;
  std::string timeout = "10s";

  // What the command said; RunCli returns it.
  int exit_code = kExitOk;

  std::ostream& out() { return *console->out; }
  std::ostream& err() { return *console->err; }

  // For a table: no limit unless a terminal has one.
  Layout layout() const {
    return {.width = console->tty ? console->size().width : 0,
            .colour = console->colour};
  }

  // Connects as the global options say.
  absl::StatusOr<std::unique_ptr<Client>> Connect();

  // Tells the error on stderr and takes its exit code.
  void Fail(const absl::Status& status);

  // The command line was wrong: says so, exit code 2.
  void FailUsage(absl::string_view message);
};

// Each adds its commands to `app`; they run when the command line has been
// parsed. `context` outlives `app`.
void AddStackCommands(CLI::App& app, Context& context);   // start stop status
void AddStatsCommand(CLI::App& app, Context& context);    // stats
void AddFlowCommands(CLI::App& app, Context& context);    // flows close
void AddDnsCommands(CLI::App& app, Context& context);     // dns …
void AddConfigCommands(CLI::App& app, Context& context);  // config …
void AddEventsCommand(CLI::App& app, Context& context);   // events
void AddToolCommands(CLI::App& app, Context& context);    // completion version

// Connects, calls once, prints: the whole of most commands. `print` is given
// the answer when people read it; machines get the answer itself.
template <typename Stub, typename Request, typename Response>
void CallAndPrint(Context& context,
                  grpc::Status (Stub::*method)(grpc::ClientContext*,
                                               const Request&, Response*),
                  const Request& request,
                  const std::function<void(const Response&)>& print) {
  const auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  const absl::StatusOr<Response> response = (*client)->Call(method, request);
  if (!response.ok()) return context.Fail(response.status());
  if (context.json) {
    context.out() << JsonDocument(*response);
  } else {
    print(*response);
  }
}

// The option "--watch [INTERVAL]".
class WatchOption {
 public:
  void AddTo(CLI::App& app);

  bool given() const { return option_->count() > 0; }
  // 1 s when none was named; InvalidArgument outside 100 ms - 1 h, the limits
  // of the service.
  absl::StatusOr<absl::Duration> interval() const;

 private:
  CLI::Option* option_ = nullptr;  // Owned by the app.
  std::string text_;
};

}  // namespace netstack::cli

#endif  // CLIENTS_CLI_CONTEXT_H_

#include "clients/cli/app.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "clients/cli/client.h"
#include "clients/cli/fields.h"
#include "clients/cli/format.h"

namespace netstack::cli {
namespace {

void AddGlobalOptions(CLI::App& app, Context& context) {
  app.add_option("--socket", context.socket,
                 "The service's socket; else "
                 "$XDG_RUNTIME_DIR/netstackd/netstackd.sock, then "
                 "/run/netstackd/netstackd.sock")
      ->type_name("FILE")
      ->envname("NETSTACK_SOCKET");
  app.add_flag("--json", context.json,
               "JSON instead of text; a watch gives one object per line");
  app.add_option("--timeout", context.timeout,
                 "How long to wait for an answer, in seconds or as 1m30s; 0 "
                 "waits for ever (default 10s)")
      ->type_name("DURATION");
}

// CLI11's own checks cannot say "1h2m"; ours runs before any command does.
void CheckTimeout(const Context& context) {
  if (!ParseDuration(context.timeout).ok()) {
    throw CLI::ValidationError(
        "--timeout", absl::StrCat("takes a duration like 30s or 1h2m, not \"",
                                  context.timeout, "\""));
  }
}

// CLI11 says "a subcommand is required" where the one given is unknown.
std::string WhatIsWrong(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> unknown = app.remaining(true);
  const bool lacks = dynamic_cast<const CLI::RequiredError*>(&error) != nullptr;
  if (!lacks || unknown.empty()) return error.what();
  return absl::StrCat("there is no command or option \"", Printable(unknown[0]),
                      "\"");
}

}  // namespace

std::unique_ptr<CLI::App> MakeApp(Context& context) {
  auto app = std::make_unique<CLI::App>(
      "Controls netstackd, the network stack behind a TUN.", "netstackctl");
  app->require_subcommand(1);
  app->fallthrough();  // Global options may stand behind the command.
  app->get_formatter()->column_width(32);
  app->parse_complete_callback([&context] { CheckTimeout(context); });
  AddGlobalOptions(*app, context);
  AddStackCommands(*app, context);
  AddStatsCommand(*app, context);
  AddFlowCommands(*app, context);
  AddDnsCommands(*app, context);
  AddConfigCommands(*app, context);
  AddEventsCommand(*app, context);
  AddToolCommands(*app, context);
  app->footer(
      "Every command has --help with examples, and takes the options above\n"
      "before or behind its name.\n\n"
      "Examples:\n"
      "  netstackctl start && netstackctl status\n"
      "  netstackctl flows --watch --sort rate\n"
      "  netstackctl stats --json --socket /run/netstackd/netstackd.sock\n\n"
      "Exit codes: 0 done, 1 refused by the service, 2 wrong command line or\n"
      "file, 3 service not reachable, 4 no answer in time.");
  return app;
}

int RunCli(const std::vector<std::string>& args, Console& console) {
  MuteGrpc();
  Context context{.console = &console};
  const std::unique_ptr<CLI::App> app = MakeApp(context);
  std::vector<std::string> reversed(args.rbegin(), args.rend());  // As CLI11
  try {                                                           // wants it.
    app->parse(std::move(reversed));
  } catch (const CLI::Success& help) {
    return app->exit(help, *console.out, *console.err);
  } catch (const CLI::ParseError& error) {
    *console.err << "netstackctl: " << WhatIsWrong(*app, error)
                 << "\nSee: netstackctl --help, netstackctl COMMAND --help\n";
    return kExitUsage;
  }
  console.out->flush();
  return context.exit_code;
}

}  // namespace netstack::cli

// netstackctl as a function: command line in, exit code out.
#ifndef CLIENTS_CLI_APP_H_
#define CLIENTS_CLI_APP_H_

#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "clients/cli/context.h"

namespace netstack::cli {

// The whole tree of commands. `context` outlives the app.
std::unique_ptr<CLI::App> MakeApp(Context& context);

// Runs the command line `args` (without the program's name) and returns what
// the process shall exit with.
int RunCli(const std::vector<std::string>& args, Console& console);

}  // namespace netstack::cli

#endif  // CLIENTS_CLI_APP_H_

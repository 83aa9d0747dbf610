// Shell completion, generated from the CLI11 app itself so that it always
// knows the commands and options that there are.
//
// What completes an option's value or an argument is read from its type name:
// the set of a CLI::IsMember check, `words` for a type named there, file names
// for FILE, else nothing.
#ifndef CLIENTS_CLI_COMPLETION_H_
#define CLIENTS_CLI_COMPLETION_H_

#include <map>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

namespace netstack::cli {

// Words for a type name: {"PATH", {"tun.mtu", …}}. Words that end in "=" get
// no blank behind them.
using CompletionWords = std::map<std::string, std::vector<std::string>>;

std::string BashCompletion(const CLI::App& app, const CompletionWords& words);
std::string ZshCompletion(const CLI::App& app, const CompletionWords& words);
std::string FishCompletion(const CLI::App& app, const CompletionWords& words);

}  // namespace netstack::cli

#endif  // CLIENTS_CLI_COMPLETION_H_

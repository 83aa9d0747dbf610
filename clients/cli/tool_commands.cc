// completion and version: what needs no stack.
#include <memory>
#include <string>

#include "clients/cli/completion.h"
#include "clients/cli/context.h"
#include "clients/cli/fields.h"
#include "google/protobuf/struct.pb.h"
#include "netstack/v1/config.pb.h"

namespace netstack::cli {
namespace {

using netstack::v1::Config;
using netstack::v1::GetStatusRequest;
using netstack::v1::NetstackService;

CompletionWords WordsByType() {
  CompletionWords words;
  auto& paths = words["PATH"];
  auto& assignments = words["PATH=VALUE"];
  paths = SectionPaths(*Config::descriptor());
  for (const std::string& path : LeafPaths(*Config::descriptor())) {
    paths.push_back(path);
    assignments.push_back(path + "=");
  }
  return words;
}

void AddCompletion(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "completion", "Print the completion script of a shell");
  const auto shell = std::make_shared<std::string>();
  command->add_option("shell", *shell, "Which shell")
      ->type_name("SHELL")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}))
      ->required();
  command->footer(
      "Examples:\n"
      "  source <(netstackctl completion bash)\n"
      "  netstackctl completion zsh > ~/.zfunc/_netstackctl\n"
      "  netstackctl completion fish > "
      "~/.config/fish/completions/netstackctl.fish");
  command->callback([&app, &context, shell] {
    const CompletionWords words = WordsByType();
    context.out() << (*shell == "bash"  ? BashCompletion(app, words)
                      : *shell == "zsh" ? ZshCompletion(app, words)
                                        : FishCompletion(app, words));
  });
}

// The service's version is shown when there is a service; its absence is no
// error here.
void RunVersion(Context& context) {
  std::string service, socket;
  if (const auto client = context.Connect(); client.ok()) {
    const auto status =
        (*client)->Call(&NetstackService::Stub::GetStatus, GetStatusRequest());
    if (status.ok()) {
      service = status->status().version();
      socket = (*client)->socket();
    }
  }
  if (context.json) {
    google::protobuf::Struct document;
    (*document.mutable_fields())["netstackctl"].set_string_value(
        NETSTACK_VERSION);
    if (!service.empty()) {
      (*document.mutable_fields())["netstackd"].set_string_value(service);
    }
    context.out() << JsonDocument(document);
    return;
  }
  context.out() << "netstackctl " << NETSTACK_VERSION << "\n";
  if (!service.empty()) {
    context.out() << "netstackd " << service << " at " << socket << "\n";
  }
}

void AddVersion(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "version", "Tell the versions of netstackctl and of the service");
  command->footer(
      "Without a service only that of netstackctl; the exit code is 0.\n\n"
      "Examples:\n"
      "  netstackctl version\n"
      "  netstackctl version --json");
  command->callback([&context] { RunVersion(context); });
}

}  // namespace

void AddToolCommands(CLI::App& app, Context& context) {
  AddCompletion(app, context);
  AddVersion(app, context);
}

}  // namespace netstack::cli

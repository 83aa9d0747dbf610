// config get, set, apply.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/config_edit.h"
#include "clients/cli/context.h"
#include "clients/cli/fields.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/field_mask_util.h"

namespace netstack::cli {
namespace {

using google::protobuf::util::FieldMaskUtil;
using netstack::v1::Config;
using netstack::v1::GetConfigRequest;
using netstack::v1::GetConfigResponse;
using netstack::v1::NetstackService;
using netstack::v1::UpdateConfigRequest;
using netstack::v1::UpdateConfigResponse;

// What set and apply have in common.
struct UpdateOptions {
  std::optional<uint64_t> revision;
  bool dry_run = false;

  void AddTo(CLI::App& command) {
    command
        .add_option("--revision", revision,
                    "Refuse unless this is the current revision, so that "
                    "nobody's change is overwritten")
        ->type_name("N");
    command.add_flag("--dry-run", dry_run,
                     "Check and tell what would happen, change nothing");
  }
};

bool Contains(const google::protobuf::RepeatedPtrField<std::string>& paths,
              const std::string& path) {
  return std::find(paths.begin(), paths.end(), path) != paths.end();
}

void PrintConfig(Context& context, const GetConfigResponse& response,
                 const std::string& section) {
  Table table({{.title = "FIELD"},
               {.title = "VALUE", .shrink_to = 20},
               {.title = "", .shrink_to = 10}});
  for (const std::string& path : LeafPaths(*Config::descriptor())) {
    if (!Within(path, section)) continue;
    const bool set = HasField(response.config(), path);
    const bool waits = Contains(response.pending_restart(), path);
    const std::string value = FieldText(response.effective(), path);
    const Cell note = waits ? Cell("waits for a restart", Style::kWarn)
                      : set ? Cell("set", Style::kGood)
                            : Cell("default", Style::kDim);
    table.Row({path, value.empty() ? "-" : value, note});
  }
  context.out() << table.Render(context.layout());
  if (section.empty()) {
    context.out() << "\nRevision " << response.revision() << ".\n";
  }
}

// Leaves only `path` in both configs.
void Trim(const std::string& path, GetConfigResponse& response) {
  google::protobuf::FieldMask mask;
  mask.add_paths(path);
  FieldMaskUtil::TrimMessage(mask, response.mutable_config());
  FieldMaskUtil::TrimMessage(mask, response.mutable_effective());
}

void RunGet(Context& context, const std::string& path, bool textproto) {
  if (!path.empty()) {
    const absl::Status known = CheckPath(*Config::descriptor(), path);
    if (!known.ok()) return context.FailUsage(known.message());
  }
  const auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  auto response =
      (*client)->Call(&NetstackService::Stub::GetConfig, GetConfigRequest());
  if (!response.ok()) return context.Fail(response.status());
  if (!path.empty()) Trim(path, *response);
  if (context.json) {
    context.out() << JsonDocument(*response);
  } else if (textproto) {
    std::string text;
    google::protobuf::TextFormat::PrintToString(response->config(), &text);
    context.out() << text;
  } else if (IsLeaf(path)) {
    context.out() << FieldText(response->effective(), path) << "\n";
  } else {
    PrintConfig(context, *response, path);
  }
}

void AddGet(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "get", "Show the config with its defaults, a section, or one value");
  const auto path = std::make_shared<std::string>();
  const auto textproto = std::make_shared<bool>(false);
  command->add_option("path", *path, "A field (tcp.dial_timeout) or a section")
      ->type_name("PATH");
  command->add_flag("--textproto", *textproto,
                    "Only what is set, as a file for \"config apply\"");
  command->footer(
      "A single field prints its value alone, for scripts.\n\n"
      "Examples:\n"
      "  netstackctl config get\n"
      "  netstackctl config get tcp\n"
      "  netstackctl config get tcp.dial_timeout\n"
      "  netstackctl config get --textproto > netstackd.textproto");
  command->callback(
      [&context, path, textproto] { RunGet(context, *path, *textproto); });
}

void PrintUpdate(Context& context, const UpdateConfigResponse& response,
                 bool dry_run) {
  std::ostream& out = context.out();
  const bool colour = context.console->colour;
  if (dry_run) out << "Dry run: nothing was changed.\n";
  if (!response.applied().empty()) {
    out << Styled(dry_run ? "Would take effect at once: " : "In effect now: ",
                  Style::kGood, colour)
        << absl::StrJoin(response.applied(), ", ") << "\n";
  }
  if (!response.pending_restart().empty()) {
    out << Styled("Needs a restart of the stack: ", Style::kWarn, colour)
        << absl::StrJoin(response.pending_restart(), ", ")
        << "\n  (netstackctl stop && netstackctl start)\n";
  }
  if (response.applied().empty() && response.pending_restart().empty()) {
    out << "Nothing differs from what is in effect.\n";
  }
  out << "Revision " << response.revision() << ".\n";
}

void Send(Context& context, UpdateConfigRequest request,
          const UpdateOptions& options) {
  if (options.revision) request.set_revision(*options.revision);
  request.set_validate_only(options.dry_run);
  CallAndPrint<NetstackService::Stub, UpdateConfigRequest,
               UpdateConfigResponse>(
      context, &NetstackService::Stub::UpdateConfig, request,
      [&](const UpdateConfigResponse& response) {
        PrintUpdate(context, response, options.dry_run);
      });
}

void AddSet(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "set", "Change fields of the running service (not of its file)");
  const auto assignments = std::make_shared<std::vector<std::string>>();
  const auto options = std::make_shared<UpdateOptions>();
  command
      ->add_option("assignments", *assignments,
                   "PATH=VALUE; PATH= returns to the default")
      ->type_name("PATH=VALUE")
      ->required();
  options->AddTo(*command);
  command->footer(
      "All of them take effect, or none. Durations are 30s or 1h2m, lists are\n"
      "separated by commas, whole numbers may end in KiB, MiB or GiB.\n\n"
      "Examples:\n"
      "  netstackctl config set tcp.dial_timeout=10s tcp.buffer_max=2MiB\n"
      "  netstackctl config set tun.prefixes=10.0.0.0/8,fd00::/8\n"
      "  netstackctl config set tcp.dial_timeout=    # the default again\n"
      "  netstackctl config set --dry-run tun.mtu=9000");
  command->callback([&context, assignments, options] {
    absl::StatusOr<UpdateConfigRequest> request = EditRequest(*assignments);
    if (!request.ok()) return context.FailUsage(request.status().message());
    Send(context, *std::move(request), *options);
  });
}

absl::StatusOr<std::string> ReadAll(const std::string& file) {
  std::ostringstream text;
  if (file == "-") {
    text << std::cin.rdbuf();
    return text.str();
  }
  std::ifstream in(file, std::ios::binary);
  // A directory opens too, and would read as an empty file.
  std::error_code ignored;
  if (!in || std::filesystem::is_directory(file, ignored)) {
    return absl::NotFoundError(absl::StrCat("cannot read ", file));
  }
  text << in.rdbuf();
  return text.str();
}

void RunApply(Context& context, const std::string& file,
              const UpdateOptions& options) {
  const absl::StatusOr<std::string> text = ReadAll(file);
  if (!text.ok()) return context.FailUsage(text.status().message());
  const absl::StatusOr<Config> config = ParseConfigText(*text);
  if (!config.ok()) {
    return context.FailUsage(
        absl::StrCat(file, ": ", config.status().message()));
  }
  UpdateConfigRequest request;
  *request.mutable_config() = *config;
  request.mutable_update_mask()->add_paths("*");
  Send(context, std::move(request), options);
}

void AddApply(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("apply", "Replace the whole config by that of a file");
  const auto file = std::make_shared<std::string>();
  const auto options = std::make_shared<UpdateOptions>();
  command
      ->add_option("file", *file,
                   "JSON or textproto, as netstackd reads it; - is stdin")
      ->type_name("FILE")
      ->required();
  options->AddTo(*command);
  command->footer(
      "Fields that the file does not name return to their defaults.\n\n"
      "Examples:\n"
      "  netstackctl config apply netstackd.textproto --dry-run\n"
      "  netstackctl config apply netstackd.json --revision 3\n"
      "  echo 'tun { mtu: 9000 }' | netstackctl config apply -");
  command->callback(
      [&context, file, options] { RunApply(context, *file, *options); });
}

}  // namespace

void AddConfigCommands(CLI::App& app, Context& context) {
  CLI::App* config =
      app.add_subcommand("config", "Show and change the configuration");
  config->require_subcommand(1);
  config->footer(
      "Examples:\n"
      "  netstackctl config get\n"
      "  netstackctl config set tcp.dial_timeout=10s\n"
      "  netstackctl config apply netstackd.json");
  AddGet(*config, context);
  AddSet(*config, context);
  AddApply(*config, context);
}

}  // namespace netstack::cli

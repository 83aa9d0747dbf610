#include "server/flags.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>

namespace netstack::server {
namespace {

constexpr char kFooter[] = R"(
Without --config every setting has its default; see
netstack/v1/config.proto or `netstackctl config get`.

Signals: SIGHUP reads the config file again; SIGTERM and SIGINT shut down,
a second one ends at once.
Exit codes: 0 clean end, 1 refused (socket, TUN, log file), 2 bad flags,
3 bad config.)";

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::optional<std::string> DefaultSocketPath() {
  // systemd may name several directories; the first is ours.
  std::string dir = Environment("RUNTIME_DIRECTORY");
  dir = dir.substr(0, dir.find(':'));
  if (!dir.empty()) return dir + "/netstackd.sock";
  dir = Environment("XDG_RUNTIME_DIR");
  if (!dir.empty()) return dir + "/netstackd/netstackd.sock";
  if (geteuid() == 0) return "/run/netstackd/netstackd.sock";
  return std::nullopt;
}

FlagsResult ParseFlags(int argc, const char* const* argv) {
  Flags flags;
  CLI::App app(
      "netstackd owns a TUN and forwards the TCP connections of the apps\n"
      "behind it through ordinary sockets. It is controlled over gRPC on a\n"
      "Unix socket.",
      "netstackd");
  app.add_option("--config", flags.config_file,
                 "Config file: netstack.v1.Config as textproto or JSON")
      ->type_name("FILE");
  app.add_option("--socket", flags.socket_path,
                 "Control socket; its directory must be ours with mode 0700")
      ->type_name("PATH");
  app.add_flag("--autostart,--auto-start", flags.autostart,
               "Start the stack at once; exit 1 when that fails");
  app.add_option("--allow_uid,--allow-uid", flags.allow_uids,
                 "A further user who may use the control socket (repeatable)")
      ->type_name("UID")
      ->expected(1);
  app.add_option("--log_level,--log-level", flags.log_level,
                 "trace, debug, info, warn, error or off")
      ->type_name("LEVEL")
      ->check(CLI::IsMember(
          {"trace", "debug", "info", "warn", "error", "off"}));
  app.add_option("--log_file,--log-file", flags.log_file,
                 "Log here instead of to standard error")
      ->type_name("FILE");
  app.add_flag("--check_config,--check-config", flags.check_config,
               "Check the config file and exit");
  app.set_version_flag("--version", "netstackd " NETSTACK_VERSION);
  app.footer(kFooter);
  FlagsResult out;
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    out.text = app.help();
    return out;
  } catch (const CLI::CallForVersion& version) {
    out.text = std::string(version.what()) + "\n";
    return out;
  } catch (const CLI::ParseError& error) {
    out.exit_code = kExitBadFlags;
    out.text = std::string("netstackd: ") + error.what() +
               " (--help tells the flags)\n";
    return out;
  }
  if (flags.check_config && flags.config_file.empty()) {
    out.exit_code = kExitBadFlags;
    out.text = "netstackd: --check_config needs --config\n";
    return out;
  }
  if (app.count("--socket") > 0 && flags.socket_path.empty()) {
    out.exit_code = kExitBadFlags;
    out.text = "netstackd: --socket: the path is empty\n";
    return out;
  }
  if (flags.socket_path.empty() && !flags.check_config) {
    if (auto path = DefaultSocketPath()) {
      flags.socket_path = *path;
    } else {
      out.exit_code = kExitBadFlags;
      out.text =
          "netstackd: there is neither $RUNTIME_DIRECTORY nor "
          "$XDG_RUNTIME_DIR; give --socket\n";
      return out;
    }
  }
  out.flags = std::move(flags);
  return out;
}

}  // namespace netstack::server

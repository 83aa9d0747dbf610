// netstackd: composes the service from its parts, and nothing else.
#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>

#include "server/config_convert.h"
#include "server/config_file.h"
#include "server/control_server.h"
#include "server/flags.h"
#include "server/log.h"
#include "server/notify.h"
#include "server/signals.h"
#include "spdlog/spdlog.h"

namespace netstack::server {
namespace {

// For RPCs under way; an idle client that does not notice the goodbye (gRPC C++
// looks every 5 s) is cut then.
constexpr auto kShutdownDeadline = std::chrono::seconds(1);

int Fail(int code, const std::string& text) {
  std::fprintf(stderr, "netstackd: %s\n", text.c_str());
  return code;
}

// One line per problem.
std::string Lines(const std::string& file, const absl::Status& bad) {
  std::string text(bad.message());
  for (size_t at = 0; (at = text.find("; ", at)) != std::string::npos;) {
    text.replace(at, 2, "\n  ");
  }
  return file + " is refused:\n  " + text;
}

// Every flow costs a descriptor; the default soft limit is made for select().
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

void Reload(ControlServer& server, const std::string& file) {
  if (file.empty()) {
    spdlog::warn("SIGHUP, but there is no config file to read");
    return;
  }
  NotifyReloading();
  // What went wrong is an event and in the log.
  (void)server.Reload(ReadConfigFile(file)).ok();
  NotifyReady();
}

int Run(const Flags& flags) {
  v1::Config proto;
  if (!flags.config_file.empty()) {
    auto read = ReadConfigFile(flags.config_file);
    if (!read.ok()) {
      return Fail(kExitBadConfig, std::string(read.status().message()));
    }
    proto = *std::move(read);
  }
  auto config = CheckConfig(proto);
  if (!config.ok()) {
    return Fail(kExitBadConfig, Lines(flags.config_file, config.status()));
  }
  if (flags.check_config) {
    std::printf("%s: good\n", flags.config_file.c_str());
    return kExitOk;
  }
  absl::Status logging = SetUpLogging(flags.log_level, flags.log_file);
  if (!logging.ok()) {
    return Fail(kExitRefused, std::string(logging.message()));
  }
  RaiseDescriptorLimit();

  Signals signals;
  ControlServer::Options options;
  options.socket_path = flags.socket_path;
  options.config = *std::move(config);
  options.always_allowed_uids = flags.allow_uids;
  auto server = ControlServer::Start(std::move(options));
  if (!server.ok()) {
    return Fail(kExitRefused, std::string(server.status().message()));
  }
  spdlog::info("netstackd {} answers on {}", NETSTACK_VERSION,
               flags.socket_path);
  if (flags.autostart) {
    absl::Status started = (*server)->StartStack();
    if (!started.ok()) {
      return Fail(kExitRefused, std::string(started.message()));
    }
  }
  NotifyReady();
  for (int signal = 0; signal != SIGTERM && signal != SIGINT;) {
    signal = signals.Wait();
    if (signal == SIGHUP) Reload(**server, flags.config_file);
  }
  spdlog::info("shutting down");
  NotifyStopping();
  signals.RunUnlessSignalled([&] { (*server)->Shutdown(kShutdownDeadline); });
  return kExitOk;
}

}  // namespace
}  // namespace netstack::server

int main(int argc, char** argv) {
  using namespace netstack::server;
  const FlagsResult parsed = ParseFlags(argc, argv);
  if (!parsed.flags) {
    std::fputs(parsed.text.c_str(), parsed.exit_code == 0 ? stdout : stderr);
    return parsed.exit_code;
  }
  return Run(*parsed.flags);
}

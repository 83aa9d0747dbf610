#include "clients/cli/context.h"

#include "absl/strings/str_cat.h"
#include "clients/cli/fields.h"
#include "clients/cli/format.h"

namespace netstack::cli {

absl::StatusOr<std::unique_ptr<Client>> Context::Connect() {
  // --timeout was checked when the command line was parsed; 0 is no limit.
  absl::Duration limit = *ParseDuration(timeout);
  if (limit == absl::ZeroDuration()) limit = absl::InfiniteDuration();
  const std::vector<std::string> paths =
      socket.empty() ? DefaultSockets() : std::vector<std::string>{socket};
  return Client::Connect(paths, limit);
}

void Context::Fail(const absl::Status& status) {
  out().flush();
  err() << (json ? ErrorJson(status) : ErrorText(status));
  exit_code = ExitCodeOf(status);
}

void Context::FailUsage(absl::string_view message) {
  err() << "netstackctl: " << Printable(message) << "\n";
  exit_code = kExitUsage;
}

void WatchOption::AddTo(CLI::App& app) {
  option_ = app.add_option("--watch,-w", text_,
                           "Go on until Ctrl-C, with a reading every INTERVAL "
                           "(1s if not given; 100ms to 1h)")
                ->type_name("[INTERVAL]")
                ->expected(0, 1);
}

absl::StatusOr<absl::Duration> WatchOption::interval() const {
  // CLI11 stores "true" for an option without its value.
  if (text_.empty() || text_ == "true") return absl::Seconds(1);
  const absl::StatusOr<absl::Duration> parsed = ParseDuration(text_);
  if (!parsed.ok() || *parsed < absl::Milliseconds(100) ||
      *parsed > absl::Hours(1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--watch takes an interval from 100ms to 1h, not \"", text_, "\""));
  }
  return *parsed;
}

}  // namespace netstack::cli

#include "server/log.h"

#include <sys/stat.h>

#include <cstdlib>
#include <memory>

#include "absl/strings/str_cat.h"
#include "spdlog/sinks/basic_file_sink.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace netstack::server {

absl::Status SetUpLogging(const std::string& level, const std::string& file) {
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  std::shared_ptr<spdlog::sinks::sink> sink;
  if (file.empty()) {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  } else {
    const mode_t before = umask(0077);
    try {
      sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file);
    } catch (const spdlog::spdlog_ex& error) {
      umask(before);
      return absl::UnavailableError(
          absl::StrCat("cannot log to ", file, ": ", error.what()));
    }
    umask(before);
  }
  auto logger = std::make_shared<spdlog::logger>("netstackd", sink);
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::info);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

}  // namespace netstack::server

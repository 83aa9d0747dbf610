// The command line. CLI11: its help is readable and it is what netstackctl
// uses; absl's flags (of 20220623) have help by source file and no short
// error sentences.
#ifndef SERVER_FLAGS_H_
#define SERVER_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace netstack::server {

// Exit codes of netstackd.
inline constexpr int kExitOk = 0;
inline constexpr int kExitRefused = 1;    // socket, TUN, log file
inline constexpr int kExitBadFlags = 2;
inline constexpr int kExitBadConfig = 3;  // also a config file not readable

struct Flags {
  std::string config_file;  // empty: all defaults
  std::string socket_path;
  std::string log_level = "info";
  std::string log_file;  // empty: standard error
  std::vector<uint32_t> allow_uids;
  bool autostart = false;
  bool check_config = false;
};

struct FlagsResult {
  std::optional<Flags> flags;  // nothing: print `text` and exit
  int exit_code = kExitOk;
  std::string text;  // help, version, or what is wrong
};

FlagsResult ParseFlags(int argc, const char* const* argv);

// $RUNTIME_DIRECTORY/netstackd.sock, else
// $XDG_RUNTIME_DIR/netstackd/netstackd.sock, else, for root,
// /run/netstackd/netstackd.sock; nothing otherwise.
std::optional<std::string> DefaultSocketPath();

}  // namespace netstack::server

#endif  // SERVER_FLAGS_H_

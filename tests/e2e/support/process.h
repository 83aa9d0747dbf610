// A program that is started in a network namespace, and that never outlives
// the test: it is killed by the destructor, or by the kernel when the test
// process dies. Start from the main thread only: the kernel ends the program
// with the thread that started it.
#ifndef TESTS_E2E_SUPPORT_PROCESS_H_
#define TESTS_E2E_SUPPORT_PROCESS_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "tests/e2e/support/deadline.h"

namespace netstack::e2e {

struct ProcessOptions {
  std::string ns{};          // a name of `ip netns`; empty: ours
  std::string output{};      // file for stdout
  std::string errors{};      // file for stderr; empty: as stdout
  std::string directory{};   // working directory; empty: ours
  unsigned descriptors = 0;  // RLIMIT_NOFILE, soft and hard; 0: ours
  std::vector<std::string> environment{};  // NAME=VALUE, beside ours
};

// How a program ended.
struct Exit {
  int code = -1;   // -1 when a signal ended it
  int signal = 0;  // that signal
  bool ok() const { return code == 0 && signal == 0; }
};

class Process {
 public:
  // The first argument is a path, or a name that PATH knows.
  Process(const std::vector<std::string>& arguments,
          const ProcessOptions& options);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  bool running() { return !Poll().has_value(); }
  // How it ended, if it did.
  std::optional<Exit> Poll();
  std::optional<Exit> Wait(Clock::duration patience = kPatience);
  void Signal(int signal);

  // From /proc, while it runs.
  int CountDescriptors() const;
  double CpuSeconds() const;
  size_t ResidentBytes() const;  // RssAnon

 private:
  pid_t pid_ = -1;
  std::optional<Exit> exit_;
};

// A program's end and what it wrote.
struct Output {
  Exit exit;
  std::string out;
  std::string err;
  bool ok() const { return exit.ok(); }
};

// Runs a program to its end; ends it when it takes longer.
Output Execute(const std::vector<std::string>& arguments,
               const std::string& ns = "",
               Clock::duration patience = seconds(60),
               const std::string& directory = "");

std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& content);

// A folder of mode 0700 that goes with the object.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const {
    return path_ + "/" + name;
  }

 private:
  std::string path_;
};

}  // namespace netstack::e2e

#endif  // TESTS_E2E_SUPPORT_PROCESS_H_

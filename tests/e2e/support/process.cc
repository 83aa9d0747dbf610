#include "tests/e2e/support/process.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "gtest/gtest.h"
#include "tests/e2e/support/fd.h"

namespace netstack::e2e {
namespace {

namespace fs = std::filesystem;

constexpr int kCouldNotStart = 127;

Fd OpenForWriting(const std::string& path) {
  const std::string file = path.empty() ? "/dev/null" : path;
  return Fd(
      open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
}

// In the child, between fork and exec: system calls only, since other threads
// of the test may have held any lock.
[[noreturn]] void Become(char* const* argv, char* const* environment,
                         const ProcessOptions& options, int ns, int out,
                         int err, pid_t parent) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kCouldNotStart);
  if (ns >= 0 && setns(ns, CLONE_NEWNET) != 0) _exit(kCouldNotStart);
  if (options.descriptors != 0) {
    const rlimit limit = {options.descriptors, options.descriptors};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) _exit(kCouldNotStart);
  }
  if (!options.directory.empty() && chdir(options.directory.c_str()) != 0) {
    _exit(kCouldNotStart);
  }
  const int in = open("/dev/null", O_RDONLY);
  if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) {
    _exit(kCouldNotStart);
  }
  execvpe(argv[0], argv, environment);
  _exit(kCouldNotStart);
}

}  // namespace

Process::Process(const std::vector<std::string>& arguments,
                 const ProcessOptions& options) {
  std::vector<char*> argv;
  for (const std::string& a : arguments) {
    argv.push_back(const_cast<char*>(a.c_str()));
  }
  argv.push_back(nullptr);
  std::vector<char*> environment;
  // The first of a name counts.
  for (const std::string& entry : options.environment) {
    environment.push_back(const_cast<char*>(entry.c_str()));
  }
  for (char** entry = environ; *entry != nullptr; ++entry) {
    environment.push_back(*entry);
  }
  environment.push_back(nullptr);
  Fd ns;
  if (!options.ns.empty()) {
    ns = Fd(open(("/run/netns/" + options.ns).c_str(), O_RDONLY | O_CLOEXEC));
    EXPECT_TRUE(ns.ok()) << "there is no namespace " << options.ns;
  }
  const Fd out = OpenForWriting(options.output);
  const Fd err = options.errors.empty() ? Fd(dup(out.get()))
                                        : OpenForWriting(options.errors);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    Become(argv.data(), environment.data(), options, ns.get(), out.get(),
           err.get(), parent);
  }
  EXPECT_GT(pid_, 0) << "fork";
}

Process::~Process() {
  if (pid_ <= 0 || Poll()) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

std::optional<Exit> Process::Poll() {
  if (exit_ || pid_ <= 0) return exit_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  exit_.emplace();
  if (WIFEXITED(status)) exit_->code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) exit_->signal = WTERMSIG(status);
  return exit_;
}

std::optional<Exit> Process::Wait(Clock::duration patience) {
  Eventually([this] { return Poll().has_value(); }, patience);
  return exit_;
}

void Process::Signal(int signal) {
  // Not after the end: the number may be someone else's by now.
  if (pid_ > 0 && !Poll()) kill(pid_, signal);
}

int Process::CountDescriptors() const {
  std::error_code error;
  int n = 0;
  for (const auto& entry :
       fs::directory_iterator("/proc/" + std::to_string(pid_) + "/fd", error)) {
    (void)entry;
    ++n;
  }
  EXPECT_FALSE(error) << error.message();
  return n;
}

double Process::CpuSeconds() const {
  const std::string stat = ReadFile("/proc/" + std::to_string(pid_) + "/stat");
  // Behind the name, which may hold anything: state, and from there utime and
  // stime are the 12th and 13th.
  std::istringstream fields(stat.substr(stat.rfind(')') + 1));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  double user = 0;
  double system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

size_t Process::ResidentBytes() const {
  std::istringstream status(
      ReadFile("/proc/" + std::to_string(pid_) + "/status"));
  std::string word;
  while (status >> word) {
    size_t kib = 0;
    if (word == "RssAnon:" && status >> kib) return kib * 1024;
  }
  ADD_FAILURE() << "no RssAnon of process " << pid_;
  return 0;
}

Output Execute(const std::vector<std::string>& arguments, const std::string& ns,
               Clock::duration patience, const std::string& directory) {
  const TempDir dir;
  Process process(arguments, {.ns = ns,
                              .output = dir / "out",
                              .errors = dir / "err",
                              .directory = directory});
  Output output;
  output.exit = process.Wait(patience).value_or(Exit{});
  output.out = ReadFile(dir / "out");
  output.err = ReadFile(dir / "err");
  if (process.running()) output.err += "\n(it did not end in time)";
  if (output.exit.code == kCouldNotStart) {
    output.err += "\n(" + arguments[0] + " could not be started)";
  }
  return output;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  return std::move(content).str();
}

void WriteFile(const std::string& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file << content;
  file.close();
  EXPECT_TRUE(file.good()) << path;
}

TempDir::TempDir() {
  path_ = (fs::temp_directory_path() / "netstack-e2e.XXXXXX").string();
  EXPECT_NE(mkdtemp(path_.data()), nullptr) << path_;
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace netstack::e2e

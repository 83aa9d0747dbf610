// netstackd as a process: flags, exit codes, signals, descriptors.
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/test_server.h"

namespace netstack::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using std::chrono::milliseconds;

// A run of netstackd whose output goes to a file.
class Process {
 public:
  // `before` runs in the child before exec: only system calls.
  explicit Process(std::vector<std::string> args,
                   const std::function<void()>& before = {}) {
    args.insert(args.begin(), NETSTACKD);
    std::vector<char*> argv;
    for (auto& a : args) argv.push_back(a.data());
    argv.push_back(nullptr);
    const std::string out = dir_.File("out");
    pid_ = fork();
    if (pid_ != 0) return;
    const int fd = open(out.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, 1);
    dup2(fd, 2);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (before) before();
    execv(argv[0], argv.data());
    _exit(127);
  }
  ~Process() {
    if (!status_) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  pid_t pid() const { return pid_; }
  void Signal(int signal) const { kill(pid_, signal); }

  // The exit code, 128 + signal, or -1 when it does not end.
  int Wait(milliseconds limit = std::chrono::seconds(20)) {
    Eventually(
        [this] {
          int status = 0;
          if (waitpid(pid_, &status, WNOHANG) == pid_) status_ = status;
          return status_.has_value();
        },
        limit);
    if (!status_) return -1;
    return WIFEXITED(*status_) ? WEXITSTATUS(*status_)
                               : 128 + WTERMSIG(*status_);
  }

  std::string Output() const {
    std::ifstream file(dir_.File("out"));
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // Waits for a text in the output.
  bool Says(const std::string& text) const {
    return Eventually([&] {
      return Output().find(text) != std::string::npos;
    });
  }

 private:
  TempDir dir_;
  pid_t pid_ = -1;
  std::optional<int> status_;
};

class ProcessTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& text) {
    std::ofstream(dir_.File(name)) << text;
    return dir_.File(name);
  }

  TempDir dir_;
  const std::string socket_ = dir_.File("c/n.sock");
};

// One line, no trace of where in the code it comes from.
void ExpectSentence(const std::string& output, const std::string& part) {
  EXPECT_THAT(output, HasSubstr(part));
  EXPECT_THAT(output, StartsWith("netstackd: "));
  EXPECT_EQ(std::count(output.begin(), output.end(), '\n'), 1) << output;
  EXPECT_THAT(output, Not(HasSubstr(".cc")));
}

TEST_F(ProcessTest, HelpAndVersion) {
  Process help({"--help"});
  EXPECT_EQ(help.Wait(), 0);
  for (const char* flag :
       {"--config", "--socket", "--autostart", "--log_level", "--log_file",
        "--allow_uid", "--version", "--check_config"}) {
    EXPECT_THAT(help.Output(), HasSubstr(flag));
  }
  Process version({"--version"});
  EXPECT_EQ(version.Wait(), 0);
  EXPECT_EQ(version.Output(), "netstackd " NETSTACK_VERSION "\n");
}

TEST_F(ProcessTest, BadFlagsAreOneSentenceAndExitCode2) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--bogus"}, "--bogus"},
      {{"stray"}, "stray"},
      {{"--log_level", "loud"}, "loud"},
      {{"--allow_uid", "me"}, "me"},
      {{"--allow_uid", "-1"}, "-1"},
      {{"--socket", ""}, "--socket"},
      {{"--config"}, "--config"},
      {{"--check_config"}, "--config"}};
  for (const auto& [args, part] : cases) {
    Process p(args);
    EXPECT_EQ(p.Wait(), 2) << part;
    ExpectSentence(p.Output(), part);
  }
}

TEST_F(ProcessTest, WithoutAPlaceForTheSocketItSaysSo) {
  Process p({}, [] {
    unsetenv("RUNTIME_DIRECTORY");
    unsetenv("XDG_RUNTIME_DIR");
    (void)!setresuid(12345, 12345, 12345);
  });
  if (geteuid() == 0 && p.Wait() == 127) {
    GTEST_SKIP() << "another uid may not run the binary here";
  }
  EXPECT_EQ(p.Wait(), 2);
  ExpectSentence(p.Output(), "--socket");
}

TEST_F(ProcessTest, BadConfigIsToldFieldByFieldAndExitCode3) {
  Process p({"--config", Write("c.textproto",
                               "tun { mtu: 1 }\ntcp { buffer_max: 1 }"),
             "--socket", socket_});
  EXPECT_EQ(p.Wait(), 3);
  EXPECT_THAT(p.Output(), HasSubstr("\n  tun.mtu: "));
  EXPECT_THAT(p.Output(), HasSubstr("\n  tcp.buffer_max: "));
  EXPECT_FALSE(std::filesystem::exists(socket_));

  Process unknown({"--config", Write("d.textproto", "tun {\n colour: 1 }")});
  EXPECT_EQ(unknown.Wait(), 3);
  ExpectSentence(unknown.Output(), "d.textproto:2:8: ");

  Process absent({"--config", dir_.File("absent")});
  EXPECT_EQ(absent.Wait(), 3);
  ExpectSentence(absent.Output(), "No such file");

  Process check({"--check_config", "--config",
                 Write("e.json", "{\"tun\": {\"mtu\": 1400}}")});
  EXPECT_EQ(check.Wait(), 0);
}

TEST_F(ProcessTest, RefusalsAtRunTimeAreOneSentenceAndExitCode1) {
  Process live({"--socket", socket_});
  ASSERT_TRUE(live.Says("answers on"));
  Process second({"--socket", socket_});
  EXPECT_EQ(second.Wait(), 1);
  ExpectSentence(second.Output(), "Another netstackd");

  Process orphan({"--socket", dir_.File("no/such/n.sock")});
  EXPECT_EQ(orphan.Wait(), 1);
  ExpectSentence(orphan.Output(), "cannot make the directory");

  Process unlogged({"--socket", dir_.File("d/n.sock"), "--log_file",
                    dir_.path()});
  EXPECT_EQ(unlogged.Wait(), 1);
  ExpectSentence(unlogged.Output(), "cannot log to");
}

// exec() as root would bring capabilities back but for SECBIT_NOROOT.
void DropCapabilities() {
  prctl(PR_SET_SECUREBITS, SECBIT_NOROOT);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  syscall(SYS_capset, &header, data);
}

TEST_F(ProcessTest, AutostartWithoutTheRightIsOneSentenceAndExitCode1) {
  Process p({"--socket", socket_, "--autostart", "--log_level", "off"},
            DropCapabilities);
  EXPECT_EQ(p.Wait(), 1);
  ExpectSentence(p.Output(), "TUN");
}

TEST_F(ProcessTest, SigtermAndSigintEndItCleanly) {
  for (int signal : {SIGTERM, SIGINT}) {
    Process p({"--socket", socket_});
    ASSERT_TRUE(p.Says("answers on"));
    p.Signal(signal);
    EXPECT_EQ(p.Wait(), 0);
    EXPECT_FALSE(std::filesystem::exists(socket_));
  }
}

TEST_F(ProcessTest, AfterKill9TheStaleSocketIsReplaced) {
  {
    Process p({"--socket", socket_});
    ASSERT_TRUE(p.Says("answers on"));
    p.Signal(SIGKILL);
    EXPECT_EQ(p.Wait(), 128 + SIGKILL);
  }
  EXPECT_TRUE(std::filesystem::exists(socket_));
  Process p({"--socket", socket_});
  EXPECT_TRUE(p.Says("answers on"));
}

TEST_F(ProcessTest, SighupReloadsAndABadFileIsRefusedWhole) {
  const std::string config = Write("c.textproto", "tcp { max_half_open: 1000 }");
  Process p({"--socket", socket_, "--config", config});
  ASSERT_TRUE(p.Says("answers on"));
  auto stub = v1::NetstackService::NewStub(ChannelTo(socket_));
  const auto get = [&] {
    Context context;
    v1::GetConfigResponse response;
    EXPECT_TRUE(stub->GetConfig(&context, {}, &response).ok());
    return response;
  };
  EXPECT_EQ(get().effective().tcp().max_half_open(), 1000u);

  Write("c.textproto", "tcp { max_half_open: 2000 }");
  p.Signal(SIGHUP);
  EXPECT_TRUE(Eventually([&] { return get().revision() == 2; }));
  EXPECT_EQ(get().effective().tcp().max_half_open(), 2000u);

  for (const char* bad : {"tcp { max_half_open: 3000 } tun { mtu: 1 }",
                          "tcp { max_half_open: 3000 } bogus: 1"}) {
    Context context;
    auto events = stub->WatchEvents(&context, {});
    v1::WatchEventsResponse message;
    while (events->Read(&message) && !message.has_end_of_replay()) {
    }
    Write("c.textproto", bad);
    p.Signal(SIGHUP);
    ASSERT_TRUE(events->Read(&message));
    EXPECT_EQ(message.event().type(), v1::EVENT_TYPE_CONFIG_REFUSED);
    EXPECT_EQ(get().effective().tcp().max_half_open(), 2000u);
    EXPECT_EQ(get().revision(), 2u);
    context.TryCancel();
    events->Finish();
  }
}

TEST_F(ProcessTest, TellsSystemdWhenItIsReady) {
  const std::string path = dir_.File("notify");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address),
            0);
  const auto next = [fd]() -> std::string {
    pollfd p{fd, POLLIN, 0};
    char buffer[256];
    if (poll(&p, 1, 10'000) != 1) return "nothing";
    const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    return std::string(buffer, n > 0 ? static_cast<size_t>(n) : 0);
  };
  const std::string config = Write("c.textproto", "");
  Process p({"--socket", socket_, "--config", config}, [&path] {
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
  });
  EXPECT_EQ(next(), "READY=1");
  p.Signal(SIGHUP);
  EXPECT_THAT(next(), StartsWith("RELOADING=1\nMONOTONIC_USEC="));
  EXPECT_EQ(next(), "READY=1");
  p.Signal(SIGTERM);
  EXPECT_EQ(next(), "STOPPING=1");
  EXPECT_EQ(p.Wait(), 0);
  close(fd);
}

TEST_F(ProcessTest, RaisesTheDescriptorLimit) {
  Process p({"--socket", socket_}, [] {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 200);
    setrlimit(RLIMIT_NOFILE, &limit);
  });
  ASSERT_TRUE(p.Says("answers on"));
  rlimit limit{};
  ASSERT_EQ(prlimit(p.pid(), RLIMIT_NOFILE, nullptr, &limit), 0);
  EXPECT_EQ(limit.rlim_cur, limit.rlim_max);
}

// The lowest number that is free in a process.
rlim_t LowestFree(pid_t pid) {
  for (rlim_t fd = 0;; ++fd) {
    struct stat st {};
    const std::string name =
        "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd);
    if (lstat(name.c_str(), &st) != 0) return fd;
  }
}

// R6, the control part: no descriptor is left in the whole process.
TEST_F(ProcessTest, ANewControlConnectionAnswersWithoutFreeDescriptors) {
  Process p({"--socket", socket_});
  ASSERT_TRUE(p.Says("answers on"));
  const auto answers = [&] {
    auto stub = v1::NetstackService::NewStub(ChannelTo(socket_));
    Context context(std::chrono::seconds(5));
    v1::GetStatusResponse response;
    return stub->GetStatus(&context, {}, &response).ok();
  };
  ASSERT_TRUE(answers());  // whatever gRPC opens late is open now
  rlimit old{};
  ASSERT_EQ(prlimit(p.pid(), RLIMIT_NOFILE, nullptr, &old), 0);
  rlimit none = old;
  none.rlim_cur = LowestFree(p.pid());
  ASSERT_EQ(prlimit(p.pid(), RLIMIT_NOFILE, &none, nullptr), 0);
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(answers()) << i;
  auto stub = v1::NetstackService::NewStub(ChannelTo(socket_));
  Context context;
  v1::GetStatsResponse stats;
  ASSERT_TRUE(stub->GetStats(&context, {}, &stats).ok());
  EXPECT_GT(stats.stats().control().accept_errors(), 0u);
  ASSERT_EQ(prlimit(p.pid(), RLIMIT_NOFILE, &old, nullptr), 0);
  EXPECT_TRUE(answers());
}

}  // namespace
}  // namespace netstack::test

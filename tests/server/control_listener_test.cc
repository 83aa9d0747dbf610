// R12 and the caps: who is let in, and what becomes of the others.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/base/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/control_listener.h"
#include "tests/server/test_server.h"

namespace netstack::server {
namespace {

using test::Eventually;
using test::TempDir;

// Only what may be called between fork() and _exit() of a process with
// threads.
int Connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 &&
      connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

// A listener whose connections are only kept.
class ControlListenerTest : public ::testing::Test {
 protected:
  void Listen(const ControlConfig& limits, std::vector<uint32_t> always = {}) {
    auto listener = ControlListener::Start(path_, std::move(always), limits,
                                           &counters_, &events_, [this](int fd) {
                                             MutexLock lock(mu_);
                                             handed_.push_back(fd);
                                           });
    ASSERT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
  }

  size_t handed() {
    MutexLock lock(mu_);
    return handed_.size();
  }

  void CloseHanded() {
    MutexLock lock(mu_);
    for (int fd : handed_) {
      shutdown(fd, SHUT_RDWR);  // as gRPC does
      close(fd);
    }
    handed_.clear();
  }

  void TearDown() override {
    listener_.reset();
    CloseHanded();
  }

  TempDir dir_;
  const std::string path_ = dir_.File("c/n.sock");
  ControlCounters counters_;
  EventLog events_;
  Mutex mu_;
  std::vector<int> handed_;
  std::unique_ptr<ControlListener> listener_;
};

TEST_F(ControlListenerTest, OwnUidIsLetIn) {
  Listen({});
  const int fd = Connect(path_);
  ASSERT_GE(fd, 0);
  EXPECT_TRUE(Eventually([&] { return handed() == 1; }));
  EXPECT_EQ(counters_.connections, 1u);
  close(fd);
  EXPECT_TRUE(Eventually([&] { return counters_.connections == 0; }));
}

// Whatever the file system permits: the check is the listener's own.
TEST_F(ControlListenerTest, ForeignUidIsClosedWithoutAByte) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another uid";
  constexpr int kTimes = 1000;
  Listen({});
  // Past the 0600 in 0700, which would already keep it out.
  ASSERT_EQ(chmod(dir_.path().c_str(), 0755), 0);
  ASSERT_EQ(chmod(dir_.File("c").c_str(), 0755), 0);
  ASSERT_EQ(chmod(path_.c_str(), 0666), 0);
  const pid_t child = fork();
  if (child == 0) {
    if (setresuid(12345, 12345, 12345) != 0) _exit(2);
    for (int i = 0; i < kTimes; ++i) {
      const int fd = Connect(path_);
      if (fd < 0) _exit(3);
      char byte;
      // 0 is a clean end; ECONNRESET comes when we had written.
      if (read(fd, &byte, 1) != 0) _exit(4);
      close(fd);
    }
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(counters_.refused_uid, static_cast<uint64_t>(kTimes));
  EXPECT_EQ(handed(), 0u);
  // Told, but not a thousand times.
  EXPECT_GE(events_.newest(), 1u);
  EXPECT_LE(events_.newest(), 20u);
  EXPECT_EQ(events_.After(0).event->type(), v1::EVENT_TYPE_CONTROL_REFUSED);
}

TEST_F(ControlListenerTest, AForeignUidCannotEvenReachItByDefault) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another uid";
  Listen({});
  ASSERT_EQ(chmod(dir_.path().c_str(), 0755), 0);
  const pid_t child = fork();
  if (child == 0) {
    if (setresuid(12345, 12345, 12345) != 0) _exit(2);
    _exit(Connect(path_) < 0 && errno == EACCES ? 0 : 3);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(ControlListenerTest, AllowedUidIsLetIn) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another uid";
  ControlConfig limits;
  limits.allowed_uids = {12345};
  Listen(limits, {12346});
  ASSERT_EQ(chmod(dir_.path().c_str(), 0755), 0);
  for (uid_t uid : {12345u, 12346u}) {
    const pid_t child = fork();
    if (child == 0) {
      if (setresuid(uid, uid, uid) != 0) _exit(2);
      _exit(Connect(path_) >= 0 ? 0 : 3);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(WEXITSTATUS(status), 0) << uid;
  }
  EXPECT_TRUE(Eventually([&] { return counters_.accepted == 2; }));
  EXPECT_EQ(counters_.refused_uid, 0u);
}

TEST_F(ControlListenerTest, ConnectionsAreCapped) {
  ControlConfig limits;
  limits.max_connections = 3;
  Listen(limits);
  std::vector<int> fds;
  for (int i = 0; i < 5; ++i) fds.push_back(Connect(path_));
  EXPECT_TRUE(Eventually([&] { return counters_.refused_limit == 2; }));
  EXPECT_EQ(handed(), 3u);
  // The end of one makes room, whichever side ends it.
  close(fds[0]);
  EXPECT_TRUE(Eventually([&] { return counters_.connections == 2; }));
  CloseHanded();
  EXPECT_TRUE(Eventually([&] { return counters_.connections == 0; }));
  limits.max_connections = 1;
  listener_->SetLimits(limits);
  fds.push_back(Connect(path_));
  fds.push_back(Connect(path_));
  EXPECT_TRUE(Eventually([&] { return counters_.refused_limit == 3; }));
  for (int fd : fds) close(fd);
}

TEST_F(ControlListenerTest, NoDescriptorsNeitherKillItNorMakeItSpin) {
  Listen({});
  // The child connects when there are none left in this process.
  int go[2];
  ASSERT_EQ(pipe(go), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(go[1]);  // so that it ends when the test does
    char byte;
    if (read(go[0], &byte, 1) != 1) _exit(2);
    const int first = Connect(path_);
    if (first < 0) _exit(3);
    if (read(go[0], &byte, 1) != 1) _exit(4);
    _exit(0);
  }
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  rlimit small = old;
  small.rlim_cur = 128;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &small), 0);
  std::vector<int> hogs;
  for (int fd; (fd = dup(0)) >= 0;) hogs.push_back(fd);
  ASSERT_EQ(errno, EMFILE);

  ASSERT_EQ(write(go[1], "1", 1), 1);
  EXPECT_TRUE(Eventually([&] { return handed() == 1; }));
  EXPECT_GE(counters_.accept_errors, 1u);
  EXPECT_EQ(write(go[1], "2", 1), 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(Eventually([&] { return counters_.connections == 0; }));

  for (int fd : hogs) close(fd);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
  const int fd = Connect(path_);
  EXPECT_TRUE(Eventually([&] { return handed() == 2; }));
  close(fd);
  close(go[0]);
  close(go[1]);
}

// Beyond the reserve accepting pauses; no connection is lost for good.
TEST_F(ControlListenerTest, BeyondTheReserveConnectionsWait) {
  ControlConfig limits;
  limits.max_connections = 1024;
  Listen(limits);
  constexpr int kClients = 40;
  int go[2];
  ASSERT_EQ(pipe(go), 0);
  const pid_t child = fork();
  if (child == 0) {
    char byte;
    if (read(go[0], &byte, 1) != 1) _exit(2);
    for (int i = 0; i < kClients; ++i) {
      if (Connect(path_) < 0) _exit(3);
    }
    if (read(go[0], &byte, 1) != 1) _exit(4);
    _exit(0);
  }
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  rlimit small = old;
  small.rlim_cur = 128;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &small), 0);
  std::vector<int> hogs;
  for (int fd; (fd = dup(0)) >= 0;) hogs.push_back(fd);

  ASSERT_EQ(write(go[1], "1", 1), 1);
  EXPECT_TRUE(Eventually([&] { return handed() >= 6; }));
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  usleep(500'000);
  getrusage(RUSAGE_SELF, &after);
  const auto cpu_ms = [](const rusage& r) {
    return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000 +
           (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1000;
  };
  // A spinning listener would burn all of the 500 ms.
  EXPECT_LE(cpu_ms(after) - cpu_ms(before), 200);
  EXPECT_LT(handed(), static_cast<size_t>(kClients));

  for (int fd : hogs) close(fd);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
  EXPECT_TRUE(Eventually([&] { return handed() == kClients; }));
  EXPECT_EQ(write(go[1], "2", 1), 1);
  waitpid(child, nullptr, 0);
  close(go[0]);
  close(go[1]);
}

}  // namespace
}  // namespace netstack::server

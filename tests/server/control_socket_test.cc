// R12: the socket's modes, and who gets it.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/control_socket.h"
#include "tests/server/test_server.h"

namespace netstack::server {
namespace {

using ::testing::HasSubstr;
using test::TempDir;

mode_t ModeOf(const std::string& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0 ? st.st_mode & 07777 : 0;
}

std::string Message(const absl::Status& s) { return std::string(s.message()); }

int ListenOn(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address),
            0);
  EXPECT_EQ(listen(fd, 1), 0);
  return fd;
}

TEST(ControlSocket, IsPrivateFromItsFirstMoment) {
  TempDir dir;
  const std::string path = dir.File("c/n.sock");
  const mode_t before = umask(0);  // the worst that a parent can leave us
  std::atomic<bool> done{false};
  std::atomic<int> seen{0}, wide{0};
  std::thread watcher([&] {
    while (!done) {
      const mode_t mode = ModeOf(path);
      if (mode != 0) ++seen;
      if (mode != 0 && mode != 0600) ++wide;
    }
  });
  for (int i = 0; i < 300 || (seen == 0 && i < 100'000); ++i) {
    auto socket = ControlSocket::Bind(path, false);
    ASSERT_TRUE(socket.ok()) << socket.status();
    EXPECT_EQ(ModeOf(path), 0600u);
  }
  done = true;
  watcher.join();
  umask(before);
  EXPECT_GT(seen, 0);
  EXPECT_EQ(wide, 0);
  EXPECT_EQ(ModeOf(dir.File("c")), 0700u);
  EXPECT_EQ(ModeOf(path + ".lock"), 0600u);
}

TEST(ControlSocket, GoesAwayWithItsOwner) {
  TempDir dir;
  const std::string path = dir.File("c/n.sock");
  ASSERT_TRUE(ControlSocket::Bind(path, false).ok());
  EXPECT_EQ(ModeOf(path), 0u);
}

TEST(ControlSocket, OpensToOthersOnlyWhenAsked) {
  TempDir dir;
  const std::string path = dir.File("c/n.sock");
  auto socket = ControlSocket::Bind(path, true);
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_EQ(ModeOf(path), 0666u);
  EXPECT_EQ(ModeOf(dir.File("c")), 0711u);
  (*socket)->OpenToOthers(false);
  EXPECT_EQ(ModeOf(path), 0600u);
  EXPECT_EQ(ModeOf(dir.File("c")), 0700u);
}

TEST(ControlSocket, WideDirectoryIsRefused) {
  TempDir dir;
  for (mode_t mode : {0755, 0710, 0701, 0777}) {
    ASSERT_EQ(chmod(dir.path().c_str(), mode), 0);
    auto socket = ControlSocket::Bind(dir.File("n.sock"), false);
    EXPECT_EQ(socket.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(Message(socket.status()), HasSubstr("0700"));
  }
  ASSERT_EQ(chmod(dir.path().c_str(), 0700), 0);
  EXPECT_TRUE(ControlSocket::Bind(dir.File("n.sock"), false).ok());
}

TEST(ControlSocket, ForeignDirectoryIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a directory away";
  TempDir dir;
  ASSERT_EQ(chown(dir.path().c_str(), 12345, 12345), 0);
  auto socket = ControlSocket::Bind(dir.File("n.sock"), false);
  EXPECT_EQ(socket.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(socket.status()), HasSubstr("uid 12345"));
}

TEST(ControlSocket, LinkInPlaceOfTheDirectoryIsRefused) {
  TempDir dir;
  ASSERT_EQ(mkdir(dir.File("real").c_str(), 0700), 0);
  ASSERT_EQ(symlink("real", dir.File("link").c_str()), 0);
  EXPECT_FALSE(ControlSocket::Bind(dir.File("link/n.sock"), false).ok());
}

TEST(ControlSocket, PathTooLongIsRefusedWithTheLimit) {
  TempDir dir;
  const std::string stem = dir.File("c/");
  const std::string longest = stem + std::string(107 - stem.size(), 'x');
  EXPECT_TRUE(ControlSocket::Bind(longest, false).ok());
  auto socket = ControlSocket::Bind(longest + "x", false);
  EXPECT_EQ(socket.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(socket.status()), HasSubstr("107"));
  EXPECT_FALSE(ControlSocket::Bind("", false).ok());
}

TEST(ControlSocket, ALiveSocketIsNeverStolen) {
  TempDir dir;
  const std::string path = dir.File("n.sock");
  auto first = ControlSocket::Bind(path, false);
  ASSERT_TRUE(first.ok());
  struct stat before {}, after {};
  ASSERT_EQ(lstat(path.c_str(), &before), 0);
  auto second = ControlSocket::Bind(path, false);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  ASSERT_EQ(lstat(path.c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
}

// One of another program, which has no lock file.
TEST(ControlSocket, AForeignLiveSocketIsNeverStolen) {
  TempDir dir;
  const std::string path = dir.File("n.sock");
  const int fd = ListenOn(path);
  struct stat before {}, after {};
  ASSERT_EQ(lstat(path.c_str(), &before), 0);
  // Also not when its backlog (1) is full.
  for (int i = 0; i < 4; ++i) {
    auto socket = ControlSocket::Bind(path, false);
    EXPECT_EQ(socket.status().code(), absl::StatusCode::kAlreadyExists);
  }
  ASSERT_EQ(lstat(path.c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  close(fd);
}

TEST(ControlSocket, AStaleSocketIsReplaced) {
  TempDir dir;
  const std::string path = dir.File("n.sock");
  close(ListenOn(path));
  ASSERT_NE(ModeOf(path), 0u);
  auto socket = ControlSocket::Bind(path, false);
  EXPECT_TRUE(socket.ok()) << socket.status();
  EXPECT_EQ(ModeOf(path), 0600u);
}

TEST(ControlSocket, AnythingElseInTheWayIsLeftAlone) {
  TempDir dir;
  const std::string path = dir.File("n.sock");
  std::ofstream(path) << "precious";
  auto socket = ControlSocket::Bind(path, false);
  EXPECT_EQ(socket.status().code(), absl::StatusCode::kAlreadyExists);
  std::string content;
  std::ifstream(path) >> content;
  EXPECT_EQ(content, "precious");
}

// The end of an old service must not remove the socket of a new one.
TEST(ControlSocket, AReplacedSocketIsNotRemoved) {
  TempDir dir;
  const std::string path = dir.File("n.sock");
  auto socket = ControlSocket::Bind(path, false);
  ASSERT_TRUE(socket.ok());
  ASSERT_EQ(unlink(path.c_str()), 0);
  const int fd = ListenOn(path);
  socket->reset();
  EXPECT_NE(ModeOf(path), 0u);
  close(fd);
}

}  // namespace
}  // namespace netstack::server

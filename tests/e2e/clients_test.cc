// C6: programs that people use, through the TUN.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/e2e/support/pattern.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMiB = 1 << 20;
constexpr size_t kBig = 64 * kMiB;

class ClientsTest : public testing::TestWithParam<const Family*> {
 protected:
  void SetUp() override {
    fs::create_directory(files_ / "www");
    WriteFile(files_ / "www/big", Pattern(1, kBig));
    WriteFile(files_ / "www/small", Pattern(2, kMiB));
    http_ = Serve({"python3", NETSTACK_SOURCE_DIR "/deploy/http_server.py",
                   "--port", "80", "--root", files_ / "www"},
                  80);
  }

  // Starts a server in srv and waits until its port is open.
  std::unique_ptr<Process> Serve(const std::vector<std::string>& arguments,
                                 uint16_t port) {
    auto process = std::make_unique<Process>(
        arguments, ProcessOptions{.ns = World().srv(),
                                  .output = files_ / "server.log",
                                  .directory = files_.path()});
    EXPECT_TRUE(Eventually([&] {
      Tcp probe(World().app(), GetParam()->family);
      return !process->running() ||
             probe.Connect(Address(GetParam()->direct, port)) == 0;
    }));
    EXPECT_TRUE(process->running())
        << arguments[0] << ": " << ReadFile(files_ / "server.log");
    return process;
  }

  std::string Host() const {
    const std::string address = GetParam()->tunnel;
    return GetParam()->family == AF_INET6 ? "[" + address + "]" : address;
  }
  std::string Url(const std::string& file) const {
    return "http://" + Host() + "/" + file;
  }
  // Runs a client among the apps; its output.
  std::string App(const std::vector<std::string>& arguments) {
    const Output output = Execute(arguments, World().app(), seconds(60));
    EXPECT_TRUE(output.ok()) << arguments[0] << " ended with "
                             << output.exit.code << ": " << output.err;
    return output.out;
  }
  std::string Curl(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"curl", "--silent", "--show-error",
                                         "--fail", "--noproxy", "*"});
    return App(arguments);
  }
  // Compared without printing megabytes.
  bool Same(const std::string& file, uint64_t seed, size_t size) {
    return ReadFile(files_ / file) == Pattern(seed, size);
  }

  TempDir files_;
  Service service_;
  std::unique_ptr<Process> http_;
};

TEST_P(ClientsTest, Curl) {
  const std::string echo = Curl({"--http1.1", Url("echo")});
  EXPECT_EQ(echo,
            GetParam()->family == AF_INET ? "10.77.1.1\n" : "fd77:1::1\n");
  Curl({"--http1.1", "-o", files_ / "got", Url("big")});
  EXPECT_TRUE(Same("got", 1, kBig));
}

TEST_P(ClientsTest, CurlUploads) {
  const std::string sum = Execute({"sha256sum", files_ / "www/big"}).out;
  const std::string answer = Curl({"-T", files_ / "www/big", Url("upload")});
  EXPECT_EQ(answer.substr(0, 64), sum.substr(0, 64));
}

TEST_P(ClientsTest, CurlInParallel) {
  constexpr int kFiles = 32;
  std::vector<std::string> arguments = {"--parallel", "--parallel-max", "16"};
  for (int i = 0; i < kFiles; ++i) {
    arguments.insert(
        arguments.end(),
        {"-o", files_ / ("got" + std::to_string(i)), Url("small")});
  }
  Curl(arguments);
  for (int i = 0; i < kFiles; ++i) {
    EXPECT_TRUE(Same("got" + std::to_string(i), 2, kMiB)) << i;
  }
}

// HTTP/2 without TLS; one transfer a time, since curl 7.88 does not use such a
// connection twice on any route.
TEST_P(ClientsTest, CurlHttp2) {
  const auto server = Serve(
      {"nghttpd", "--no-tls", "--htdocs", files_ / "www", "8080"}, 8080);
  const std::string base = "http://" + Host() + ":8080/";
  const std::string version =
      Curl({"--http2-prior-knowledge", "-o", files_ / "got", "-w",
            "%{http_version}", base + "big"});
  EXPECT_EQ(version, "2");
  EXPECT_TRUE(Same("got", 1, kBig));
}

TEST_P(ClientsTest, Wget) {
  App({"wget", "--no-proxy", "--tries=1", "-q", "-O", files_ / "got",
       Url("big")});
  EXPECT_TRUE(Same("got", 1, kBig));
}

TEST_P(ClientsTest, Iperf3BothWays) {
  const auto server = Serve({"iperf3", "-s", "-p", "5201"}, 5201);
  for (const char* direction : {"--format=g", "--reverse", "--bidir"}) {
    SCOPED_TRACE(direction);
    // Right after a test the server may still be busy with its end; iperf3
    // then ends with 0 and no figures.
    Output output;
    EXPECT_TRUE(Eventually([&] {
      output = Execute({"iperf3", "-c", GetParam()->tunnel, "-t", "1", "-P",
                        "4", "--json", direction},
                       World().app());
      return output.ok() &&
             output.out.find("\"sum_received\"") != std::string::npos;
    })) << output.out;
    const size_t sum = output.out.find("\"sum_received\"");
    ASSERT_NE(sum, std::string::npos);
    const std::string key = "\"bits_per_second\":";
    const size_t rate = output.out.find(key, sum);
    ASSERT_NE(rate, std::string::npos);
    const double gbits =
        std::strtod(output.out.c_str() + rate + key.size(), nullptr) / 1e9;
    EXPECT_GT(gbits, 0.01);
    std::printf("iperf3 %s: %.1f Gbit/s\n", direction, gbits);
  }
}

// A repository over HTTP by git's plain protocol: many small requests.
TEST_P(ClientsTest, GitClone) {
  const std::string repo = files_ / "work";
  const auto git = [&](std::vector<std::string> words) {
    words.insert(words.begin(),
                 {"git", "-c", "user.name=e2e", "-c", "user.email=e2e@example",
                  "-c", "init.defaultBranch=main", "-c", "http.proxy=", "-c",
                  "commit.gpgSign=false", "-C", files_.path()});
    return words;
  };
  const auto local = [&](const std::vector<std::string>& words) {
    const Output output = Execute(git(words));
    EXPECT_TRUE(output.ok()) << words[0] << ": " << output.err;
    return output.out;
  };
  local({"init", "-q", repo});
  for (int i = 0; i < 30; ++i) {
    WriteFile(repo + "/file" + std::to_string(i), Pattern(i, 20'000));
    local({"-C", repo, "add", "."});
    local({"-C", repo, "commit", "-q", "-m", std::to_string(i)});
  }
  local({"clone", "-q", "--bare", repo, files_ / "bare.git"});
  local({"-C", files_ / "bare.git", "update-server-info"});
  const auto server = Serve({"python3", "-m", "http.server", "--bind",
                             "::", "--directory", files_.path(), "8081"},
                            8081);
  App(git({"clone", "-q", "http://" + Host() + ":8081/bare.git",
           files_ / "clone"}));
  const auto tree = [&](const std::string& dir) {
    return local({"-C", dir, "rev-parse", "HEAD", "HEAD^{tree}"});
  };
  EXPECT_EQ(tree(files_ / "clone"), tree(repo));
  local({"-C", files_ / "clone", "fsck", "--strict"});
}

// Like ssh: a line now and then, answered at once, for a long time, beside
// bulk transfers.
TEST_P(ClientsTest, InteractiveSessions) {
  constexpr int kSessions = 10;
  const int lines = FullScale() ? 600 : 25;
  PatternServer server(World().srv());
  std::vector<std::string> wrong(kSessions);
  std::vector<double> slowest(kSessions);
  std::atomic<bool> stopping{false};
  std::string bulk_wrong;
  std::thread bulk([&] {
    for (uint64_t i = 0; !stopping && bulk_wrong.empty(); ++i) {
      Tcp socket(World().app(), GetParam()->family);
      socket.Connect(Address(GetParam()->tunnel, server.port()));
      bulk_wrong = AskDownload(socket, i, 20 * kMiB);
    }
  });
  std::vector<std::thread> threads;
  for (int s = 0; s < kSessions; ++s) {
    threads.emplace_back([&, s] {
      Tcp socket(World().app(), GetParam()->family);
      socket.Connect(Address(GetParam()->tunnel, server.port()));
      AskFor(socket, Wish::kEcho, 0, 0);
      for (int i = 0; i < lines && wrong[s].empty(); ++i) {
        Pause(milliseconds(200));
        const std::string line = "session " + std::to_string(s) + " line " +
                                 std::to_string(i) + "\n";
        const auto start = Clock::now();
        socket.Send(line);
        if (socket.Receive(line.size()) != line) wrong[s] = line;
        slowest[s] = std::max(slowest[s], SecondsSince(start));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  stopping = true;
  bulk.join();
  EXPECT_EQ(wrong, std::vector<std::string>(kSessions));
  EXPECT_EQ(bulk_wrong, "");
  const double worst = *std::max_element(slowest.begin(), slowest.end());
  // Only what a repeated segment would take fails here.
  EXPECT_LT(worst, 1);
  std::printf("slowest answer: %.1f ms\n", worst * 1000);
}

INSTANTIATE_TEST_SUITE_P(Every, ClientsTest, testing::Values(&kV4, &kV6),
                         FamilyName);

}  // namespace
}  // namespace netstack::e2e

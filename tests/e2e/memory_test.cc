// R9: memory fails at random, everywhere in the core's thread.
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <mutex>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/e2e/support/faults.h"
#include "tests/e2e/support/fd.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

// The switch that netstackd's allocator looks at.
class FaultSwitch {
 public:
  FaultSwitch() : path_(dir_ / "faults") {
    WriteFile(path_, std::string(sizeof(Faults), '\0'));
    const Fd fd(open(path_.c_str(), O_RDWR | O_CLOEXEC));
    void* memory = mmap(nullptr, sizeof(Faults), PROT_READ | PROT_WRITE,
                        MAP_SHARED, fd.get(), 0);
    EXPECT_NE(memory, MAP_FAILED);
    faults_ = static_cast<Faults*>(memory);
  }
  ~FaultSwitch() { munmap(faults_, sizeof(Faults)); }
  FaultSwitch(const FaultSwitch&) = delete;
  FaultSwitch& operator=(const FaultSwitch&) = delete;

  std::vector<std::string> environment() const {
    return {"LD_PRELOAD=" NETSTACK_FAULTS_LIBRARY, "NETSTACK_FAULTS=" + path_};
  }
  Faults* operator->() { return faults_; }

 private:
  TempDir dir_;
  const std::string path_;
  Faults* faults_;
};

class MemoryTest : public testing::TestWithParam<const Family*> {};

// A hundredth of all allocations fail while flows come, carry and go. Flows
// may be shed; no byte may be wrong, nothing may crash or stay behind, and
// with memory back all is as before.
TEST_P(MemoryTest, OneAllocationInThirtyFails) {
  const int transfers = FullScale() ? 4'000 : 400;
  constexpr int kAtOnce = 8;
  constexpr uint64_t kSize = 100'000;
  FaultSwitch faults;
  PatternServer server(World().srv());
  Service service({.environment = faults.environment()});
  const auto connect = [&](Tcp& socket) {
    return socket.Connect(Address(GetParam()->tunnel, server.port()),
                          seconds(10));
  };
  {
    Tcp warm(World().app(), GetParam()->family);
    ASSERT_EQ(connect(warm), 0);
    ASSERT_EQ(AskUpload(warm, 1, kSize), "");
  }

  // R9 has one in a hundred; but carrying bytes hardly allocates.
  faults->one_in = 30;
  std::atomic<int> next{0};
  std::atomic<int> whole{0};
  std::atomic<int> shed{0};
  std::mutex mutex;
  std::vector<std::string> wrong;
  std::vector<std::thread> threads;
  for (int t = 0; t < kAtOnce; ++t) {
    threads.emplace_back([&] {
      for (int i; (i = next++) < transfers;) {
        Tcp socket(World().app(), GetParam()->family);
        if (connect(socket) != 0) {
          ++shed;
          continue;
        }
        const auto seed = static_cast<uint64_t>(i);
        AskFor(socket, Wish::kEcho, 0, 0);
        std::thread sender([&] { socket.SendPattern(seed, kSize); });
        const Transfer got = socket.ReceivePattern(seed, kSize);
        if (got.bytes < kSize) shutdown(socket.fd(), SHUT_RDWR);
        sender.join();
        if (got.bytes == kSize) {
          ++whole;
        } else if (got.error == ECONNRESET) {
          ++shed;
        } else {
          // Other bytes than those that were sent, an end that nobody made,
          // or silence.
          const std::lock_guard lock(mutex);
          wrong.push_back(std::to_string(i) + ": " + Describe(got, kSize));
        }
      }
    });
  }
  // Control answers meanwhile.
  while (next < transfers && service.process().running()) {
    service.control().Stats();
    service.control().Flows();
    Pause(milliseconds(100));
  }
  for (std::thread& thread : threads) thread.join();
  const uint64_t calls = faults->calls;
  const uint64_t failed = faults->failed;
  faults->one_in = 0;

  ASSERT_TRUE(service.process().running());
  EXPECT_EQ(wrong, std::vector<std::string>{});
  EXPECT_GT(whole, transfers / 2);
  EXPECT_GT(failed, static_cast<uint64_t>(transfers) / 40);
  EXPECT_GT(failed, calls / 60);
  const v1::Stats stats = service.control().Stats();
  EXPECT_GT(stats.memory().allocation_failures(), 0u);
  EXPECT_EQ(stats.tcp().lwip_asserts(), 0u);
  // As before: everything works, and nothing is left.
  for (uint64_t i = 0; i < 20; ++i) {
    Tcp socket(World().app(), GetParam()->family);
    ASSERT_EQ(connect(socket), 0) << i;
    EXPECT_EQ(AskDownload(socket, i, kSize), "") << i;
  }
  EXPECT_TRUE(Eventually([&] {
    const v1::Stats now = service.control().Stats();
    return now.tcp().active() == now.tcp().time_wait() &&
           now.memory().buffered() == 0;
  })) << service.control().Stats().ShortDebugString();
  std::printf(
      "%d transfers whole, %d shed; %llu of %llu allocations of the core's "
      "thread failed\n",
      whole.load(), shed.load(), static_cast<unsigned long long>(failed),
      static_cast<unsigned long long>(calls));
}

// A datagram socket of a namespace, connected; false in `ok` when it is not.
Fd DatagramTo(const std::string& ns, const Address& to) {
  const Enter enter(ns);
  Fd fd(socket(to.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(fd.get(), to.get(), to.size), 0);
  return fd;
}

// The same for datagrams, whole and in fragments, and echoes, which allocate
// less, hence more often: what is lost is lost as on a bad line, and what comes
// is what was sent.
TEST_P(MemoryTest, OneAllocationInTenFailsForDatagrams) {
  const int rounds = FullScale() ? 4'000 : 400;
  FaultSwitch faults;
  Service service({.environment = faults.environment()});
  Fd server;
  uint16_t port = 0;
  {
    const Enter enter(World().srv());
    server = Fd(socket(GetParam()->family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    Address at(GetParam()->tunnel, 0);
    ASSERT_EQ(bind(server.get(), at.get(), at.size), 0);
    ASSERT_EQ(getsockname(server.get(),
                          reinterpret_cast<sockaddr*>(&at.storage), &at.size),
              0);
    port = at.port();
  }
  std::atomic<bool> stopping{false};
  std::thread echo([&] {
    std::string room(65536, '\0');
    while (!stopping) {
      Address from;
      pollfd p{server.get(), POLLIN, 0};
      if (poll(&p, 1, 50) != 1) continue;
      const ssize_t n =
          recvfrom(server.get(), room.data(), room.size(), 0,
                   reinterpret_cast<sockaddr*>(&from.storage), &from.size);
      if (n < 0) continue;
      sendto(server.get(), room.data(), static_cast<size_t>(n), 0, from.get(),
             from.size);
    }
  });
  // One app each: a new mapping, and for the large ones fragments both ways.
  const auto round = [&](int i) {
    const Fd fd =
        DatagramTo(World().app(), Address(GetParam()->tunnel, port));
    const size_t sizes[] = {1, 1'000, 5'000, 20'000};
    std::string sent(sizes[i % 4], static_cast<char>('a' + i % 26));
    sent += std::to_string(i);
    EXPECT_EQ(send(fd.get(), sent.data(), sent.size(), 0),
              static_cast<ssize_t>(sent.size()));
    pollfd p{fd.get(), POLLIN, 0};
    if (poll(&p, 1, 300) != 1) return false;
    std::string got(65536, '\0');
    const ssize_t n = recv(fd.get(), got.data(), got.size(), MSG_DONTWAIT);
    if (n < 0) return false;  // told that there is no flow for it
    got.resize(static_cast<size_t>(n));
    EXPECT_TRUE(got == sent) << i;
    return true;
  };
  const auto ping = [&](int count) {
    const Output out = Execute(
        {"ping", GetParam()->family == AF_INET ? "-4" : "-6", "-n", "-c",
         std::to_string(count), "-i", "0.01", "-W", "1", "-s", "4000",
         GetParam()->tunnel},
        World().app());
    EXPECT_EQ(out.out.find("wrong data"), std::string::npos) << out.out;
    const size_t at = out.out.find(" received");
    return at == std::string::npos
               ? 0
               : std::stoi(out.out.substr(out.out.rfind(' ', at - 1) + 1));
  };
  faults->one_in = 30;
  int whole = 0;
  for (int i = 0; i < rounds; ++i) whole += round(i);
  const int echoes = ping(rounds / 4);
  const uint64_t failed = faults->failed;
  faults->one_in = 0;
  ASSERT_TRUE(service.process().running());
  EXPECT_GT(failed, static_cast<uint64_t>(rounds) / 20);
  EXPECT_GT(whole, rounds / 2);
  EXPECT_GT(echoes, rounds / 8);
  // As before: everything works, and nothing is left.
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(round(i)) << i;
  EXPECT_EQ(ping(10), 10);
  stopping = true;
  echo.join();
  EXPECT_GT(service.control().CloseAllFlows(), 0u);
  EXPECT_TRUE(Eventually([&] {
    return service.control().Stats().descriptors_used() == 0;
  }));
  std::printf("%d of %d datagrams and %d of %d echoes came back; %llu "
              "allocations failed\n",
              whole, rounds, echoes, rounds / 4,
              static_cast<unsigned long long>(failed));
}

INSTANTIATE_TEST_SUITE_P(Every, MemoryTest, testing::Values(&kV4, &kV6),
                         FamilyName);

}  // namespace
}  // namespace netstack::e2e

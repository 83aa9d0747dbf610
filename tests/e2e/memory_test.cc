// R9: memory fails at random, everywhere in the core's thread.
#include <fcntl.h>
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
TEST_P(MemoryTest, OneAllocationInAHundredFails) {
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

  faults->one_in = 100;
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
  EXPECT_GT(failed, static_cast<uint64_t>(transfers) / 10);
  EXPECT_GT(failed, calls / 200);
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

INSTANTIATE_TEST_SUITE_P(Every, MemoryTest, testing::Values(&kV4, &kV6),
                         FamilyName);

}  // namespace
}  // namespace netstack::e2e

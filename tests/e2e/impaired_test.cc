// C1: transfers through a TUN that loses, repeats, reorders and delays.
//
//   app --tunA--[relay]--tunM-- mid --tun0 (plain)-- netstackd in gw
//
// The relay is the bad line; mid is a kernel router, which the line needs
// since netstackd's TUN has the kernel at its other end.
#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/e2e/support/relay.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

// The namespace mid, with everything in it; goes with the object.
class Mid {
 public:
  Mid() : name_(World().prefix() + "-mid") {
    Ip("netns add " + name_);
    Fd app_end = MakeTun(World().app(), "tunA");
    Fd mid_end = MakeTun(name_, "tunM");
    Ip("-n " + World().gw() + " link set " + Service::kTun + " netns " + name_);
    {
      const Output forwarding =
          Execute({"sh", "-c",
                   "echo 1 >/proc/sys/net/ipv4/ip_forward && "
                   "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding && "
                   "echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter && "
                   "echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter"},
                  name_);
      EXPECT_TRUE(forwarding.ok()) << forwarding.err;
    }
    for (const std::string& device : {World().app() + " tunA", name_ + " tunM",
                                      name_ + " " + Service::kTun}) {
      const size_t blank = device.find(' ');
      const std::string ns = "-n " + device.substr(0, blank) + " ";
      const std::string dev = device.substr(blank + 1);
      Ip(ns + "link set " + dev + " addrgenmode none txqueuelen 5000");
      Ip(ns + "link set " + dev + " up");
    }
    const std::string app = "-n " + World().app() + " ";
    Ip(app + "addr add 10.10.0.2/24 dev tunA");
    Ip(app + "-6 addr add fd10::2/64 dev tunA nodad");
    Ip(app + "route replace default dev tunA");
    Ip(app + "-6 route replace default dev tunA");
    const std::string mid = "-n " + name_ + " ";
    Ip(mid + "route add 10.10.0.0/24 dev tunM");
    Ip(mid + "-6 route add fd10::/64 dev tunM");
    Ip(mid + "route add default dev " + Service::kTun);
    Ip(mid + "-6 route add default dev " + Service::kTun);
    relay_ = std::make_unique<Relay>(std::move(app_end), std::move(mid_end),
                                     Impairment{.delay = milliseconds(20),
                                                .loss = 0.01,
                                                .duplicate = 0.01,
                                                .reorder = 0.02});
  }
  ~Mid() {
    relay_.reset();
    Execute({"ip", "netns", "del", name_});
  }

  const Relay& relay() const { return *relay_; }

 private:
  std::string name_;
  std::unique_ptr<Relay> relay_;
};

class ImpairedTest : public testing::TestWithParam<const Family*> {};

TEST_P(ImpairedTest, TransfersAreWholeAndNeverStall) {
  // Each way.
  const size_t transfers = FullScale() ? 200 : 40;
  constexpr size_t kAtOnce = 8;
  constexpr uint64_t kSize = uint64_t{1} << 20;
  PatternServer server(World().srv());
  Service service({.offload = false, .attach = false});
  Mid mid;

  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::vector<std::string> wrong;
  double longest_wait = 0;
  const auto one = [&](size_t i) -> std::string {
    Tcp socket(World().app(), GetParam()->family);
    socket.SetPatience(seconds(60));  // stalls are measured below
    const int error =
        socket.Connect(Address(GetParam()->tunnel, server.port()));
    if (error != 0) return std::string("connect: ") + std::strerror(error);
    const bool up = i % 2 == 0;
    AskFor(socket, up ? Wish::kUpload : Wish::kDownload, i, kSize);
    const Transfer done =
        up ? socket.SendPattern(i, kSize) : socket.ReceivePattern(i, kSize);
    // The last bytes of an upload are still under way.
    const auto start = Clock::now();
    std::string text = Describe(done, kSize);
    if (text.empty() && up) text = UploadAnswer(socket, kSize);
    if (text.empty() && !up && !socket.AtEnd()) text = "no clean end";
    const std::lock_guard lock(mutex);
    longest_wait =
        std::max({longest_wait, done.longest_wait, SecondsSince(start)});
    return text;
  };
  std::vector<std::thread> threads;
  const auto start = Clock::now();
  for (size_t t = 0; t < kAtOnce; ++t) {
    threads.emplace_back([&] {
      for (size_t i; (i = next++) < 2 * transfers;) {
        const std::string text = one(i);
        if (text.empty()) continue;
        const std::lock_guard lock(mutex);
        wrong.push_back("transfer " + std::to_string(i) + ": " + text);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(wrong, std::vector<std::string>{});
  EXPECT_LT(longest_wait, 20);
  // The line was as bad as it should be.
  const Relay& relay = mid.relay();
  EXPECT_GT(relay.lost(), relay.carried() / 200);
  EXPECT_GT(relay.duplicated(), relay.carried() / 200);
  EXPECT_GT(relay.reordered(), relay.carried() / 100);
  std::printf(
      "%zu transfers each way in %.1f s; longest wait %.2f s; packets: %llu "
      "carried, %llu lost, %llu duplicated, %llu reordered, %llu overflowed\n",
      transfers, SecondsSince(start), longest_wait,
      static_cast<unsigned long long>(relay.carried()),
      static_cast<unsigned long long>(relay.lost()),
      static_cast<unsigned long long>(relay.duplicated()),
      static_cast<unsigned long long>(relay.reordered()),
      static_cast<unsigned long long>(relay.overflowed()));
}

INSTANTIATE_TEST_SUITE_P(Every, ImpairedTest, testing::Values(&kV4, &kV6),
                         FamilyName);

}  // namespace
}  // namespace netstack::e2e

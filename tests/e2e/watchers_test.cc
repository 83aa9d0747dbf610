// R13: a watcher that stops reading is ended; the others notice nothing.
#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/e2e/support/service.h"
#include "tests/e2e/support/tcp.h"
#include "tests/e2e/support/topology.h"

namespace netstack::e2e {
namespace {

// One WatchFlows on a control connection and a thread of its own; notes when
// the flow of an app's port was told as opened.
class Watcher {
 public:
  explicit Watcher(const Service& service)
      : control_(service.socket_path()), thread_([this] { Watch(); }) {}
  ~Watcher() {
    if (thread_.joinable()) End();
  }

  bool ready() const { return ready_; }
  uint64_t losses() const { return losses_; }
  // Stops reading, without ending the stream.
  void Stall() { stalled_ = true; }
  // Reads on to the end that the service gave the stream.
  RpcResult ReadToTheEnd() {
    stalled_ = false;
    thread_.join();
    return result_;
  }
  RpcResult End() {
    stalled_ = false;
    control_.CancelStream();
    thread_.join();
    return result_;
  }
  std::map<uint32_t, Clock::time_point> Opened() {
    const std::lock_guard lock(mutex_);
    return opened_;
  }

 private:
  void Watch() {
    v1::WatchFlowsRequest request;
    request.mutable_update_interval()->set_nanos(100'000'000);
    result_ = control_.WatchFlows(
        request,
        [this](const v1::WatchFlowsResponse& message) {
          while (stalled_) Pause(milliseconds(5));
          if (message.has_end_of_snapshot()) ready_ = true;
          losses_ += message.loss().changes();
          const auto now = Clock::now();
          const std::lock_guard lock(mutex_);
          for (const v1::FlowChange& c : message.changes().changes()) {
            if (c.type() == v1::FLOW_CHANGE_TYPE_OPENED) {
              opened_.insert_or_assign(c.flow().key().app().port(), now);
            }
          }
          return true;
        },
        seconds(300));
  }

  Control control_;
  std::atomic<bool> ready_{false};
  std::atomic<bool> stalled_{false};
  std::atomic<uint64_t> losses_{0};
  std::mutex mutex_;
  std::map<uint32_t, Clock::time_point> opened_;
  RpcResult result_;
  std::thread thread_;
};

class WatchersTest : public testing::TestWithParam<const Family*> {
 protected:
  // Connections one after the other, until `enough`; when each was there.
  std::map<uint32_t, Clock::time_point> ManyFlows(
      uint16_t server, const std::function<bool(size_t)>& enough) {
    std::map<uint32_t, Clock::time_point> connected;
    while (!enough(connected.size())) {
      Tcp app(World().app(), GetParam()->family);
      EXPECT_EQ(app.Connect(Address(GetParam()->tunnel, server)), 0);
      connected[app.Local().port()] = Clock::now();
      app.Abort();
    }
    return connected;
  }
};

TEST_P(WatchersTest, StalledOneIsEndedAndOthersNoticeNothing) {
  constexpr size_t kWatchers = 10;
  Service service;
  ASSERT_TRUE(service.control()
                  .Update(FullScale()
                              ? "control { stall_timeout { seconds: 10 } }"
                              : "control { stall_timeout { seconds: 2 } }")
                  .ok());
  const auto stall = FullScale() ? seconds(60) : seconds(5);
  Server server(World().srv(), [](Tcp& socket) { socket.ReadError(); });
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (size_t i = 0; i < kWatchers; ++i) {
    watchers.push_back(std::make_unique<Watcher>(service));
  }
  ASSERT_TRUE(Eventually([&] {
    return std::all_of(watchers.begin(), watchers.end(),
                       [](const auto& w) { return w->ready(); });
  }));
  const auto until = [](Clock::time_point end) {
    return [end](size_t) { return Clock::now() > end; };
  };
  // The same without a stalled one: what that needs is no growth.
  ManyFlows(server.port(), until(Clock::now() + stall));
  const size_t memory = service.process().ResidentBytes();

  watchers[0]->Stall();
  const auto start = Clock::now();
  const auto connected = ManyFlows(
      server.port(), [&](size_t) { return Clock::now() - start > stall; });
  const double grown = (static_cast<double>(service.process().ResidentBytes()) -
                        static_cast<double>(memory)) /
                       (1 << 20);
  EXPECT_EQ(service.control().Stats().control().watchers_stalled(), 1u);
  EXPECT_LE(grown, 1);
  EXPECT_EQ(watchers[0]->ReadToTheEnd().code, 8);  // RESOURCE_EXHAUSTED

  size_t told = 0;
  size_t in_time = 0;
  for (size_t i = 1; i < kWatchers; ++i) {
    SCOPED_TRACE(i);
    ASSERT_TRUE(Eventually([&] {
      return watchers[i]->Opened().count(connected.rbegin()->first) == 1;
    }));
    EXPECT_EQ(watchers[i]->losses(), 0u);
    const auto opened = watchers[i]->Opened();
    for (const auto& [port, time] : connected) {
      ++told;
      const auto at = opened.find(port);
      if (at != opened.end() && at->second <= time + milliseconds(100)) {
        ++in_time;
      }
    }
    EXPECT_EQ(watchers[i]->End().code, 1);  // CANCELLED, by us
  }
  EXPECT_GE(in_time * 100, told * 99);
  std::printf(
      "%zu flows; %zu of %zu told to the others within 100 ms; memory %+.2f "
      "MiB\n",
      connected.size(), in_time, told, grown);
}

INSTANTIATE_TEST_SUITE_P(Every, WatchersTest, testing::Values(&kV4, &kV6),
                         FamilyName);

}  // namespace
}  // namespace netstack::e2e

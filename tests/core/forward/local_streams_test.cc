// Flows that end inside the service, and flows that a rule forbids.
#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/forward/flow_advisor.h"
#include "core/forward/local_streams.h"
#include "gtest/gtest.h"
#include "tests/core/forward/forward_rig.h"

namespace netstack::test {
namespace {

// Takes connections to one port.
class Local final : public LocalStreams {
 public:
  bool Takes(const FlowKey& key) const override { return key.remote.port == 53; }
  int Connect(const FlowKey& key, Instant) override {
    keys.push_back(key);
    if (error != 0) return error;
    const SocketPair pair = rig->sockets.OpenPair();
    ours.push_back(pair.second);
    return pair.first;
  }
  uint32_t max_half_open() const override { return most; }

  // The service's end of the latest connection.
  ScriptedSocket& end() { return rig->sockets.Get(ours.back()); }

  Rig* rig = nullptr;
  int error = 0;
  uint32_t most = 8;
  std::vector<FlowKey> keys;
  std::vector<int> ours;
};

class Advisor final : public FlowAdvisor {
 public:
  FlowAdvice Advise(const FlowKey& key, Instant) override {
    ++asked;
    last = key;
    return advice;
  }
  FlowAdvice advice;
  int asked = 0;
  FlowKey last;
};

class LocalStreamsTest : public testing::TestWithParam<const Family*> {
 protected:
  LocalStreamsTest() {
    Rig::Settings settings;
    settings.local = &local_;
    settings.advisor = &advisor_;
    settings.max_flows = 1;
    rig_ = std::make_unique<Rig>(settings);
    local_.rig = rig_.get();
  }
  ~LocalStreamsTest() override {
    for (int fd : local_.ours) {
      if (!rig_->sockets.Get(fd).closed) rig_->sockets.Close(fd, false);
    }
  }
  const Family& family() const { return *GetParam(); }

  Local local_;
  Advisor advisor_;
  std::unique_ptr<Rig> rig_;
};
INSTANTIATE_TEST_SUITE_P(Families, LocalStreamsTest,
                         testing::Values(&kV4, &kV6),
                         [](const auto& i) { return i.param->name; });

TEST_P(LocalStreamsTest, IsConnectedAtOnceAndCarriesBytesBothWays) {
  App app(rig_.get(), family());
  app.remote_port = 53;
  app.Syn();
  ASSERT_EQ(local_.keys.size(), 1u);
  EXPECT_EQ(local_.keys[0].remote, (Endpoint{family().remote, 53}));
  EXPECT_EQ(rig_->dialer.stats().attempts, 0u) << "nothing left the service";
  app.Handshake();
  EXPECT_EQ(app.Info().state, FlowState::kOpen);
  app.Send("query");
  EXPECT_EQ(local_.end().unread(), 5u);
  app.socket_index = 0;
  app.HostSends("answer");
  EXPECT_EQ(app.stream, "answer");
  app.HostCloses();
  EXPECT_TRUE(app.fin);
  app.Fin();
  EXPECT_TRUE(local_.end().end) << "our end sees the app's FIN";
}

TEST_P(LocalStreamsTest, NeedsNoPlaceAmongTheFlows) {
  App other(rig_.get(), family(), 40001);
  other.Syn();
  ASSERT_EQ(rig_->slots.used(), 1u) << "which is the limit";
  App app(rig_.get(), family());
  app.remote_port = 53;
  app.Syn();
  EXPECT_EQ(local_.keys.size(), 1u);
  EXPECT_EQ(rig_->dropped(DropReason::kFlowTableFull), 0u);
  App third(rig_.get(), family(), 40002);
  third.Syn();
  EXPECT_EQ(rig_->dropped(DropReason::kFlowTableFull), 1u);
  app.Rst();
}

TEST_P(LocalStreamsTest, ANewOneBeyondTheLimitIsReset) {
  local_.error = -EMFILE;
  App app(rig_.get(), family());
  app.remote_port = 53;
  app.Syn();
  app.Deliver(rig_->TakeReplies());
  EXPECT_TRUE(app.reset);
  EXPECT_EQ(rig_->closed(CloseReason::kNoResources), 1u);
}

// A flood of SYNs to port 53 leaves room for whoever sends his SYN again, and
// a flood of others does not touch it.
TEST_P(LocalStreamsTest, HasAHalfOpenLimitOfItsOwn) {
  for (uint16_t i = 0; i < 100; ++i) {
    App flood(rig_.get(), family(), static_cast<uint16_t>(20000 + i));
    flood.remote_port = 53;
    flood.Syn();
  }
  EXPECT_LE(rig_->tcp->stats().half_open, 8u);
  EXPECT_GT(rig_->dropped(DropReason::kSynUnproven), 0u);
  App app(rig_.get(), family());
  app.remote_port = 53;
  app.Syn();
  rig_->Advance(seconds(1));
  app.Syn();
  EXPECT_EQ(local_.keys.back().app.port, app.port);
}

TEST_P(LocalStreamsTest, TheServicesEndGoesWhenTheAppResets) {
  App app(rig_.get(), family());
  app.remote_port = 53;
  app.Syn();
  app.Handshake();
  app.Rst();
  EXPECT_TRUE(local_.end().end);
  EXPECT_EQ(rig_->tcp->stats().active, 0u);
}

TEST_P(LocalStreamsTest, ARefusedFlowGetsRstAndIsCounted) {
  advisor_.advice.refusal = DropReason::kUnknownProtocol;
  App app(rig_.get(), family());
  app.Syn();
  app.Deliver(rig_->TakeReplies());
  EXPECT_TRUE(app.reset);
  EXPECT_EQ(app.reset_ack, app.seq + 1);
  EXPECT_EQ(rig_->dropped(DropReason::kUnknownProtocol), 1u);
  EXPECT_TRUE(rig_->sockets.all().empty());
  EXPECT_EQ(rig_->tcp->stats().opened, 0u);
  EXPECT_EQ(advisor_.last.remote, (Endpoint{family().remote, 80}));
}

TEST_P(LocalStreamsTest, AFlowCarriesItsName) {
  advisor_.advice.name = std::make_shared<const std::string>("www.example.com");
  App app(rig_.get(), family());
  app.Connect();
  EXPECT_EQ(app.Info().name, "www.example.com");
  EXPECT_EQ(advisor_.asked, 1) << "once per flow";
  app.Send("x");
  EXPECT_EQ(advisor_.asked, 1);
  FlowFilter filter;
  filter.name_suffix = "example.com";
  EXPECT_EQ(rig_->List(filter).size(), 1u);
  filter.name_suffix = "example.org";
  EXPECT_TRUE(rig_->List(filter).empty());
}

TEST_P(LocalStreamsTest, WhatEndsInsideIsNotAskedAbout) {
  advisor_.advice.refusal = DropReason::kUnknownProtocol;
  App app(rig_.get(), family());
  app.remote_port = 53;
  app.Syn();
  EXPECT_EQ(local_.keys.size(), 1u);
  EXPECT_EQ(advisor_.asked, 0);
  app.Rst();
}

}  // namespace
}  // namespace netstack::test

// What a VPN app does with the service: hand over a TUN, replace it, attach,
// die. The real engine and control plane in this process.
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "netstack/v1/app_service.grpc.pb.h"
#include "tests/server/test_server.h"
#include "tests/support/net_admin.h"

namespace netstack::test {
namespace {

using grpc::StatusCode;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr auto kGood = v1::DESCRIPTOR_VERDICT_UNSPECIFIED;

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() { Reset(); }
  void Reset() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

Fd MakeDevice(const std::string& name, short kind = IFF_TUN) {
  Fd fd(open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  ifreq request{};
  std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
  request.ifr_flags = static_cast<short>(kind | IFF_NO_PI);
  EXPECT_EQ(ioctl(fd.get(), TUNSETIFF, &request), 0) << std::strerror(errno);
  return fd;
}

// The app's end of the descriptor socket.
class Handover {
 public:
  explicit Handover(const std::string& path)
      : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    path.copy(to.sun_path, sizeof to.sun_path - 1);
    EXPECT_EQ(connect(fd_.get(), reinterpret_cast<sockaddr*>(&to), sizeof to),
              0)
        << std::strerror(errno);
    const timeval patience{10, 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }

  static std::string Message(const std::string& nonce) {
    std::string m(8, '\0');
    m[7] = static_cast<char>(nonce.size());
    return m + nonce;
  }

  // False when the service has closed the connection.
  bool Send(const std::string& bytes, const std::vector<int>& fds) {
    iovec vec{const_cast<char*>(bytes.data()), bytes.size()};
    std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
    msghdr message{};
    message.msg_iov = &vec;
    message.msg_iovlen = 1;
    if (!fds.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* c = CMSG_FIRSTHDR(&message);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
      std::memcpy(CMSG_DATA(c), fds.data(), fds.size() * sizeof(int));
    }
    return sendmsg(fd_.get(), &message, MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }
  // -1: the connection was closed.
  int Verdict() {
    char verdict = 0;
    return recv(fd_.get(), &verdict, 1, 0) == 1 ? verdict : -1;
  }
  int Give(const std::string& nonce, const std::vector<int>& fds) {
    return Send(Message(nonce), fds) ? Verdict() : -1;
  }
  void Close() { fd_.Reset(); }

 private:
  Fd fd_;
};

size_t OpenDescriptors() {
  size_t n = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator("/proc/self/fd")) {
    ++n;
  }
  return n;
}

class AppTest : public testing::Test {
 protected:
  static v1::Config MakeConfig() {
    v1::Config config;
    config.mutable_tun()->set_name("never-made");
    return config;
  }
  explicit AppTest(const v1::Config& config = MakeConfig())
      : server(config), apps(v1::AppService::NewStub(server.NewChannel())) {}

  std::string socket() { return server.Status().descriptor_socket(); }

  grpc::Status StartWith(const std::string& nonce,
                         std::optional<uint32_t> mtu = {}) {
    Context context;
    v1::StartRequest request;
    v1::StartResponse response;
    request.mutable_tun()->set_nonce(nonce);
    if (mtu) request.mutable_tun()->set_mtu(*mtu);
    return server.netstack().Start(&context, request, &response);
  }
  grpc::Status ReplaceWith(const std::string& nonce,
                           v1::ReplaceTunResponse* response) {
    Context context;
    v1::ReplaceTunRequest request;
    request.mutable_tun()->set_nonce(nonce);
    return server.netstack().ReplaceTun(&context, request, response);
  }
  bool Update(const std::string& path, const v1::Config& change) {
    Context context;
    v1::UpdateConfigRequest request;
    v1::UpdateConfigResponse response;
    *request.mutable_config() = change;
    request.mutable_update_mask()->add_paths(path);
    return server.netstack().UpdateConfig(&context, request, &response).ok();
  }
  bool ClosesOnDeath() {
    v1::Config change;
    change.mutable_app()->set_on_death(v1::APP_DEATH_POLICY_CLOSE);
    return Update("app.on_death", change);
  }
  size_t Events(v1::EventType type) {
    size_t n = 0;
    uint64_t at = 0;
    for (;;) {
      const auto read = server.server().events().After(at);
      if (!read.event) return n;
      at = read.event->sequence();
      if (read.event->type() == type) ++n;
    }
  }

  TestServer server;
  std::unique_ptr<v1::AppService::Stub> apps;
};

TEST_F(AppTest, ATunIsHandedOverNamedAndUsed) {
  Fd tun = MakeDevice("app0");
  Handover app(socket());
  ASSERT_EQ(app.Give("nonce-01", {tun.get()}), kGood);
  EXPECT_EQ(server.Stats().control().descriptors_pending(), 1u);
  tun.Reset();  // ours; the service has its own
  ASSERT_TRUE(StartWith("nonce-01").ok());
  const v1::StackStatus status = server.Status();
  EXPECT_EQ(status.state(), v1::STACK_STATE_RUNNING);
  EXPECT_EQ(status.tun().name(), "app0");
  EXPECT_FALSE(status.tun().offload());
  EXPECT_THAT(std::vector<std::string>(status.pending_restart().begin(),
                                       status.pending_restart().end()),
              testing::IsEmpty());
  EXPECT_EQ(server.Stats().control().descriptors_pending(), 0u);
  ASSERT_TRUE(server.Stop().ok());
  EXPECT_FALSE(DeviceExists("app0")) << "somebody still holds it";
  // A nonce is good once.
  EXPECT_EQ(StartWith("nonce-01").error_code(), StatusCode::NOT_FOUND);
}

TEST_F(AppTest, TheAppsMtuHoldsWhereItIsGiven) {
  Fd tun = MakeDevice("app0");
  Handover app(socket());
  ASSERT_EQ(app.Give("nonce-01", {tun.get()}), kGood);
  ASSERT_EQ(StartWith("nonce-01", 1279).error_code(),
            StatusCode::INVALID_ARGUMENT);
  // Refused before it was taken.
  ASSERT_TRUE(StartWith("nonce-01", 1400).ok());
  EXPECT_EQ(server.Status().tun().mtu(), 1400u);
}

TEST_F(AppTest, UnknownNoncesAndForeignNumbersAreRefused) {
  const grpc::Status unknown = StartWith("never-gi");
  EXPECT_EQ(unknown.error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(DetailsOf(unknown).info.reason(), "DESCRIPTOR_NOT_FOUND");
  Context context;
  v1::StartRequest request;
  v1::StartResponse response;
  request.mutable_tun()->set_fd(3);
  const grpc::Status number =
      server.netstack().Start(&context, request, &response);
  EXPECT_EQ(number.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(DetailsOf(number).info.reason(), "NOT_SAME_PROCESS");
}

TEST_F(AppTest, DescriptorsNobodyNamesAreClosed) {
  v1::Config change;
  *change.mutable_app()->mutable_descriptor_timeout() = Millis(200);
  ASSERT_TRUE(Update("app.descriptor_timeout", change));
  Fd tun = MakeDevice("app0");
  Handover app(socket());
  ASSERT_EQ(app.Give("nonce-01", {tun.get()}), kGood);
  tun.Reset();
  EXPECT_TRUE(DeviceExists("app0"));
  EXPECT_TRUE(Eventually([] { return !DeviceExists("app0"); }));
  EXPECT_EQ(server.Stats().control().descriptors_expired(), 1u);
}

TEST_F(AppTest, TheNumberThatMayWaitIsBounded) {
  Fd tun = MakeDevice("app0");
  Handover app(socket());
  for (int i = 0; i < 8; ++i) {
    ASSERT_EQ(app.Give("nonce-0" + std::to_string(i), {tun.get()}), kGood);
  }
  EXPECT_EQ(app.Give("nonce-08", {tun.get()}),
            v1::DESCRIPTOR_VERDICT_TOO_MANY);
  EXPECT_EQ(app.Verdict(), -1) << "it was not closed";
  EXPECT_EQ(server.Stats().control().descriptors_pending(), 8u);
}

// R14, in kinds and in numbers.
TEST_F(AppTest, HostileMessagesAreRefusedAndLeakNothing) {
  constexpr int kMessages = 10'000;
  Fd tun = MakeDevice("app0");
  Fd tap = MakeDevice("tap0", IFF_TAP);
  Fd unnamed(open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  Fd file(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  Fd sock(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const std::string path = socket();
  const std::string good = Handover::Message("hostile0");
  std::string too_short(8, '\0'), too_long(8, '\0');
  too_short[7] = 7;
  too_long[6] = 1;
  const std::string endless(8, '\xff');
  struct Case {
    const char* what;
    std::string bytes;
    std::vector<int> fds;
    int verdict;  // -1: any, or none
  };
  const std::vector<Case> cases = {
      {"none", good, {}, v1::DESCRIPTOR_VERDICT_NONE},
      {"a TAP", good, {tap.get()}, v1::DESCRIPTOR_VERDICT_WRONG_KIND},
      {"an unnamed TUN", good, {unnamed.get()},
       v1::DESCRIPTOR_VERDICT_WRONG_KIND},
      {"a file", good, {file.get()}, v1::DESCRIPTOR_VERDICT_WRONG_KIND},
      {"/dev/null", good, {null.get()}, v1::DESCRIPTOR_VERDICT_WRONG_KIND},
      {"a socket", good, {sock.get()}, v1::DESCRIPTOR_VERDICT_WRONG_KIND},
      {"two", good, {tun.get(), tun.get()}, v1::DESCRIPTOR_VERDICT_MANY},
      {"as many as go", good, std::vector<int>(253, tun.get()),
       v1::DESCRIPTOR_VERDICT_MANY},
      {"a short nonce", too_short + "1234567", {tun.get()},
       v1::DESCRIPTOR_VERDICT_MALFORMED},
      {"a long nonce", too_long, {tun.get()},
       v1::DESCRIPTOR_VERDICT_MALFORMED},
      {"2^64 - 1", endless, {tun.get()}, v1::DESCRIPTOR_VERDICT_MALFORMED},
      {"truncated in the length", good.substr(0, 3), {tun.get()}, -1},
      {"truncated in the nonce", good.substr(0, 12), {tun.get()}, -1},
      {"one byte", good.substr(0, 1), {tun.get()}, -1},
  };
  for (const Case& c : cases) {
    if (c.verdict < 0) continue;
    Handover app(path);
    ASSERT_TRUE(app.Send(c.bytes, c.fds)) << c.what;
    EXPECT_EQ(app.Verdict(), c.verdict) << c.what;
    EXPECT_EQ(app.Verdict(), -1) << c.what << ": not closed";
  }
  {  // a descriptor behind the first byte
    Handover app(path);
    ASSERT_TRUE(app.Send(good.substr(0, 1), {}));
    ASSERT_TRUE(app.Send(good.substr(1), {tun.get()}));
    EXPECT_EQ(app.Verdict(), v1::DESCRIPTOR_VERDICT_MALFORMED);
  }
  const auto settled = [&] {
    // Connections that were left are noticed by the listener's own thread.
    // Until then a new one may find all places taken.
    EXPECT_TRUE(Eventually([&] {
      Handover app(path);
      return app.Give("hostile1", {}) == v1::DESCRIPTOR_VERDICT_NONE;
    }));
    std::this_thread::sleep_for(milliseconds(50));
    return OpenDescriptors();
  };
  const size_t before = settled();
  std::minstd_rand random(1);
  for (int i = 0; i < kMessages; ++i) {
    const Case& c = cases[random() % cases.size()];
    Handover app(path);
    (void)app.Send(c.bytes, c.fds);
    if (i % 3 == 0) (void)app.Send(c.bytes, c.fds);  // and again behind it
  }
  EXPECT_TRUE(Eventually([&] { return settled() <= before; }))
      << before << " -> " << OpenDescriptors();
  EXPECT_EQ(server.Stats().control().descriptors_taken(), 0u);
  EXPECT_EQ(server.Stats().control().descriptors_pending(), 0u);
  // And it works as before.
  Handover app(path);
  ASSERT_EQ(app.Give("nonce-01", {tun.get()}), kGood);
  EXPECT_TRUE(StartWith("nonce-01").ok());
}

TEST_F(AppTest, AnotherTunReplacesTheOneInUse) {
  Fd tun = MakeDevice("app0");
  Handover app(socket());
  ASSERT_EQ(app.Give("nonce-01", {tun.get()}), kGood);
  tun.Reset();
  v1::ReplaceTunResponse response;
  EXPECT_EQ(ReplaceWith("nonce-01", &response).error_code(),
            StatusCode::FAILED_PRECONDITION)
      << "no stack runs";
  ASSERT_TRUE(StartWith("nonce-01").ok());
  Fd next = MakeDevice("app1");
  ASSERT_TRUE(SetDeviceMtu("app1", 1300).ok());
  ASSERT_EQ(app.Give("nonce-02", {next.get()}), kGood);
  next.Reset();
  ASSERT_TRUE(ReplaceWith("nonce-02", &response).ok());
  EXPECT_EQ(response.status().tun().name(), "app1");
  EXPECT_EQ(response.status().tun().mtu(), 1300u);
  EXPECT_FALSE(DeviceExists("app0")) << "the old one is still held";
  EXPECT_EQ(Events(v1::EVENT_TYPE_TUN_REPLACED), 1u);
  // One that cannot be used leaves the one in use alone.
  EXPECT_EQ(ReplaceWith("nonce-03", &response).error_code(),
            StatusCode::NOT_FOUND);
  EXPECT_EQ(server.Status().tun().name(), "app1");
}

TEST_F(AppTest, TheAppsDeathIsToldAndTheTunKept) {
  Fd tun = MakeDevice("app0");
  Handover app(socket());
  ASSERT_EQ(app.Give("nonce-01", {tun.get()}), kGood);
  tun.Reset();
  ASSERT_TRUE(StartWith("nonce-01").ok());
  const auto start = std::chrono::steady_clock::now();
  app.Close();
  EXPECT_TRUE(
      Eventually([this] { return Events(v1::EVENT_TYPE_APP_DIED) == 1; }));
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(1));
  EXPECT_EQ(server.Status().state(), v1::STACK_STATE_RUNNING);
  EXPECT_TRUE(DeviceExists("app0"));
}

TEST_F(AppTest, TheAppsDeathClosesTheTunWhereThatIsThePolicy) {
  ASSERT_TRUE(ClosesOnDeath());
  Fd tun = MakeDevice("app0");
  Handover app(socket());
  ASSERT_EQ(app.Give("nonce-01", {tun.get()}), kGood);
  tun.Reset();
  ASSERT_TRUE(StartWith("nonce-01").ok());
  app.Close();
  EXPECT_TRUE(Eventually([] { return !DeviceExists("app0"); },
                         seconds(1)));
  EXPECT_TRUE(Eventually([this] {
    return server.Status().state() == v1::STACK_STATE_FAILED;
  }));
  EXPECT_EQ(Events(v1::EVENT_TYPE_APP_DIED), 1u);
}

TEST_F(AppTest, AConnectionClosedBeforeStartIsNoLifeline) {
  ASSERT_TRUE(ClosesOnDeath());
  Fd tun = MakeDevice("app0");
  {
    Handover app(socket());
    ASSERT_EQ(app.Give("nonce-01", {tun.get()}), kGood);
  }
  ASSERT_TRUE(StartWith("nonce-01").ok());
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(server.Status().state(), v1::STACK_STATE_RUNNING);
  EXPECT_EQ(Events(v1::EVENT_TYPE_APP_DIED), 0u);
}

// An attached app.
class Attachment {
 public:
  Attachment(v1::AppService::Stub& stub, const v1::AppHello& hello)
      : stream_(stub.Attach(&context_)) {
    v1::AttachRequest request;
    *request.mutable_hello() = hello;
    EXPECT_TRUE(stream_->Write(request));
  }
  bool Write(const v1::AttachRequest& request) {
    return stream_->Write(request);
  }
  // The next message; UNSET at the end of the stream.
  v1::AttachResponse Read() {
    v1::AttachResponse response;
    if (!stream_->Read(&response)) response.Clear();
    return response;
  }
  void Goodbye() {
    v1::AttachRequest request;
    request.mutable_goodbye();
    EXPECT_TRUE(stream_->Write(request));
    stream_->WritesDone();
  }
  void Die() { context_.TryCancel(); }
  grpc::Status Finish() { return stream_->Finish(); }

 private:
  Context context_;
  std::unique_ptr<
      grpc::ClientReaderWriter<v1::AttachRequest, v1::AttachResponse>>
      stream_;
};

v1::AppHello Hello(bool owns_tun = true) {
  v1::AppHello hello;
  hello.set_hostname("phone");
  hello.set_package("org.example.vpn");
  hello.set_platform(v1::PLATFORM_ANDROID);
  hello.set_owns_tun(owns_tun);
  hello.set_answers_owners(true);
  return hello;
}

TEST_F(AppTest, AnAppAttachesAndSaysGoodbye) {
  Attachment app(*apps, Hello());
  const v1::AttachResponse first = app.Read();
  ASSERT_TRUE(first.has_welcome());
  EXPECT_EQ(first.welcome().attachment(), 1u);
  EXPECT_TRUE(
      Eventually([this] { return server.Stats().control().apps() == 1; }));
  app.Goodbye();
  EXPECT_TRUE(app.Finish().ok());
  EXPECT_TRUE(
      Eventually([this] { return server.Stats().control().apps() == 0; }));
  EXPECT_EQ(Events(v1::EVENT_TYPE_APP_ATTACHED), 1u);
  EXPECT_EQ(Events(v1::EVENT_TYPE_APP_DETACHED), 1u);
  EXPECT_EQ(Events(v1::EVENT_TYPE_APP_DIED), 0u);
}

TEST_F(AppTest, TheFirstMessageMustBeHelloAndNoOther) {
  Context context;
  auto stream = apps->Attach(&context);
  v1::AttachRequest request;
  request.mutable_power_changed()->set_doze(true);
  ASSERT_TRUE(stream->Write(request));
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::INVALID_ARGUMENT);

  Attachment twice(*apps, Hello());
  ASSERT_TRUE(twice.Read().has_welcome());
  *request.mutable_hello() = Hello();
  ASSERT_TRUE(twice.Write(request));
  EXPECT_EQ(twice.Finish().error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(AppTest, WhatIsOutOfBoundsEndsTheStream) {
  v1::AppHello hello = Hello();
  hello.set_hostname(std::string(256, 'x'));
  Attachment app(*apps, hello);
  while (app.Read().payload_case() != v1::AttachResponse::PAYLOAD_NOT_SET) {
  }
  const grpc::Status status = app.Finish();
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(DetailsOf(status).fields(),
              testing::ElementsAre("hello.hostname"));
}

TEST_F(AppTest, TooManyAppsAreRefused) {
  std::vector<std::unique_ptr<Attachment>> many;
  for (int i = 0; i < 8; ++i) {
    many.push_back(std::make_unique<Attachment>(*apps, Hello(false)));
    ASSERT_TRUE(many.back()->Read().has_welcome());
  }
  EXPECT_TRUE(
      Eventually([this] { return server.Stats().control().apps() == 8; }));
  Attachment one_more(*apps, Hello(false));
  while (one_more.Read().payload_case() !=
         v1::AttachResponse::PAYLOAD_NOT_SET) {
  }
  EXPECT_EQ(one_more.Finish().error_code(), StatusCode::RESOURCE_EXHAUSTED);
  for (auto& app : many) app->Goodbye();
  for (auto& app : many) EXPECT_TRUE(app->Finish().ok());
}

TEST_F(AppTest, AnAppThatVanishesIsDeadAndItsStackFollowsThePolicy) {
  ASSERT_TRUE(ClosesOnDeath());
  Fd tun = MakeDevice("app0");
  {
    Handover app(socket());
    ASSERT_EQ(app.Give("nonce-01", {tun.get()}), kGood);
  }
  ASSERT_TRUE(StartWith("nonce-01").ok());
  Attachment app(*apps, Hello());
  ASSERT_TRUE(app.Read().has_welcome());
  EXPECT_TRUE(
      Eventually([this] { return server.Stats().control().apps() == 1; }));
  const auto start = std::chrono::steady_clock::now();
  app.Die();
  EXPECT_TRUE(Eventually([this] {
    return server.Status().state() == v1::STACK_STATE_FAILED;
  }));
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(1));
  EXPECT_EQ(Events(v1::EVENT_TYPE_APP_DIED), 1u);
}

TEST_F(AppTest, AppsAreToldWhenTheStackStops) {
  Fd tun = MakeDevice("app0");
  Handover handover(socket());
  ASSERT_EQ(handover.Give("nonce-01", {tun.get()}), kGood);
  ASSERT_TRUE(StartWith("nonce-01").ok());
  Attachment app(*apps, Hello());
  ASSERT_TRUE(app.Read().has_welcome());
  EXPECT_TRUE(
      Eventually([this] { return server.Stats().control().apps() == 1; }));
  ASSERT_TRUE(server.Stop().ok());
  const v1::AttachResponse told = app.Read();
  ASSERT_TRUE(told.has_exit()) << told.ShortDebugString();
  EXPECT_EQ(told.exit().reason(), v1::EXIT_REASON_STACK_STOPPED);
  app.Goodbye();
  EXPECT_TRUE(app.Finish().ok());
}

TEST_F(AppTest, ANetworkChangeIsAnsweredAlsoWithoutAStack) {
  Attachment app(*apps, Hello());
  ASSERT_TRUE(app.Read().has_welcome());
  v1::AttachRequest request;
  request.mutable_network_changed()->set_interface("wlan0");
  request.mutable_network_changed()->add_dns_servers("192.0.2.53");
  ASSERT_TRUE(app.Write(request));
  EXPECT_TRUE(app.Read().has_network_handled());
  request.mutable_network_changed()->add_dns_servers("one.one.one.one");
  ASSERT_TRUE(app.Write(request));
  const grpc::Status status = app.Finish();
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(DetailsOf(status).fields(),
              testing::ElementsAre("network_changed.dns_servers[1]"));
}

}  // namespace
}  // namespace netstack::test

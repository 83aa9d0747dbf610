#include "tests/e2e/support/app.h"

#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "gtest/gtest.h"

namespace netstack::e2e {
namespace {

sockaddr_un Local(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  return address;
}

std::string Text(const grpc::Status& status) {
  return status.ok() ? "" : status.error_message();
}

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + seconds(10));
}

}  // namespace

Handover::Handover(const std::string& socket_path)
    : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  const sockaddr_un to = Local(socket_path + ".fd");
  const timeval patience{10, 0};
  setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  if (connect(fd_.get(), reinterpret_cast<const sockaddr*>(&to),
              sizeof(to)) != 0) {
    fd_.Reset();
  }
}

int Handover::Give(const std::string& nonce, int descriptor) {
  char bytes[72] = {};
  bytes[7] = static_cast<char>(nonce.size());
  std::memcpy(bytes + 8, nonce.data(), nonce.size());
  iovec vec{bytes, 8 + nonce.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &vec;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(c), &descriptor, sizeof(descriptor));
  if (sendmsg(fd_.get(), &message, MSG_NOSIGNAL) < 0) return -1;
  char verdict = 0;
  return recv(fd_.get(), &verdict, 1, 0) == 1 ? verdict : -1;
}

bool Handover::Ends() {
  char byte = 0;
  const ssize_t n = recv(fd_.get(), &byte, 1, 0);
  return n == 0 || (n < 0 && errno == ECONNRESET);
}

AppStubs::AppStubs(const Service& service) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  channel_ = grpc::CreateCustomChannel("unix:" + service.socket_path(),
                                       grpc::InsecureChannelCredentials(),
                                       arguments);
  stack_ = v1::NetstackService::NewStub(channel_);
  apps_ = v1::AppService::NewStub(channel_);
}

std::string AppStubs::Start(const std::string& nonce) {
  grpc::ClientContext context;
  SetDeadline(context);
  v1::StartRequest request;
  v1::StartResponse response;
  request.mutable_tun()->set_nonce(nonce);
  return Text(stack_->Start(&context, request, &response));
}

std::string AppStubs::Replace(const std::string& nonce) {
  grpc::ClientContext context;
  SetDeadline(context);
  v1::ReplaceTunRequest request;
  v1::ReplaceTunResponse response;
  request.mutable_tun()->set_nonce(nonce);
  return Text(stack_->ReplaceTun(&context, request, &response));
}

AttachedApp::AttachedApp(AppStubs& stubs, OwnerOf owner)
    : owner_(std::move(owner)), stream_(stubs.apps().Attach(&context_)) {
  v1::AttachRequest request;
  v1::AppHello& hello = *request.mutable_hello();
  hello.set_package("org.example.vpn");
  hello.set_platform(v1::PLATFORM_ANDROID);
  hello.set_answers_owners(owner_ != nullptr);
  EXPECT_TRUE(stream_->Write(request));
  v1::AttachResponse response;
  EXPECT_TRUE(stream_->Read(&response));
  EXPECT_TRUE(response.has_welcome());
  thread_ = std::thread([this] { Run(); });
}

AttachedApp::~AttachedApp() {
  v1::AttachRequest request;
  request.mutable_goodbye();
  Write(request);
  stream_->WritesDone();
  thread_.join();
  const grpc::Status status = stream_->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
}

void AttachedApp::Write(const v1::AttachRequest& request) {
  const std::lock_guard lock(write_mutex_);
  EXPECT_TRUE(stream_->Write(request));
}

void AttachedApp::Run() {
  v1::AttachResponse response;
  while (stream_->Read(&response)) {
    if (response.has_owner_query()) {
      v1::AttachRequest answer;
      answer.mutable_owner_answer()->set_id(response.owner_query().id());
      *answer.mutable_owner_answer()->mutable_owner() =
          owner_(response.owner_query().key());
      Write(answer);
    } else if (response.has_loop_found()) {
      ++loops_;
    } else if (response.has_network_handled()) {
      const std::lock_guard lock(mutex_);
      handled_.push_back(response.network_handled());
    }
  }
}

v1::NetworkHandled AttachedApp::ChangeNetwork(
    const v1::NetworkChanged& change) {
  v1::AttachRequest request;
  *request.mutable_network_changed() = change;
  size_t before = 0;
  {
    const std::lock_guard lock(mutex_);
    before = handled_.size();
  }
  Write(request);
  EXPECT_TRUE(Eventually([&] {
    const std::lock_guard lock(mutex_);
    return handled_.size() > before;
  }));
  const std::lock_guard lock(mutex_);
  return handled_.size() > before ? handled_[before] : v1::NetworkHandled();
}

ProtectingApp::ProtectingApp(const std::string& path, Protocol protocol,
                             uint32_t mark)
    : protocol_(protocol),
      mark_(mark),
      listener_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  unlink(path.c_str());
  const sockaddr_un address = Local(path);
  EXPECT_EQ(bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof(address)),
            0)
      << std::strerror(errno);
  EXPECT_EQ(listen(listener_.get(), 50), 0);
  thread_ = std::thread([this] { Run(); });
}

ProtectingApp::~ProtectingApp() {
  stop_ = true;
  shutdown(listener_.get(), SHUT_RDWR);
  thread_.join();
}

// One thread serves all, as apps do.
void ProtectingApp::Run() {
  std::vector<Fd> connections;
  while (!stop_) {
    std::vector<pollfd> polls = {{listener_.get(), POLLIN, 0}};
    for (const Fd& c : connections) polls.push_back({c.get(), POLLIN, 0});
    if (poll(polls.data(), polls.size(), 100) <= 0) continue;
    for (size_t i = polls.size(); i-- > 1;) {
      if (polls[i].revents != 0 && !Serve(polls[i].fd)) {
        connections.erase(connections.begin() + static_cast<long>(i) - 1);
      }
    }
    if ((polls[0].revents & POLLIN) == 0) continue;
    Fd next(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (next.ok()) connections.push_back(std::move(next));
  }
}

bool ProtectingApp::Serve(int connection) {
  char bytes[8];
  iovec vec{bytes, protocol_ == Protocol::kPipelined ? 8U : 1U};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &vec;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t n = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
  if (n != static_cast<ssize_t>(vec.iov_len)) return false;
  const cmsghdr* c = CMSG_FIRSTHDR(&message);
  if (c == nullptr || c->cmsg_type != SCM_RIGHTS) return false;
  int descriptor = -1;
  std::memcpy(&descriptor, CMSG_DATA(c), sizeof(descriptor));
  const Fd owned(descriptor);
  ++asked_;
  const bool done =
      !refuse_ && setsockopt(descriptor, SOL_SOCKET, SO_MARK, &mark_,
                             sizeof(mark_)) == 0;
  if (protocol_ == Protocol::kProtectPath) {
    const char verdict = done ? 0 : 1;
    (void)!send(connection, &verdict, 1, MSG_NOSIGNAL);
    return true;  // the service closes
  }
  char answer[8] = {bytes[0], bytes[1], bytes[2], bytes[3],
                    static_cast<char>(done ? 0 : 1), 0, 0, 0};
  return send(connection, answer, sizeof(answer), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(sizeof(answer));
}

}  // namespace netstack::e2e

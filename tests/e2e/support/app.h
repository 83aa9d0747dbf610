// What a VPN app does: hands over TUNs, protects sockets, attaches.
#ifndef TESTS_E2E_SUPPORT_APP_H_
#define TESTS_E2E_SUPPORT_APP_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "grpcpp/channel.h"
#include "netstack/v1/app_service.grpc.pb.h"
#include "netstack/v1/netstack_service.grpc.pb.h"
#include "tests/e2e/support/fd.h"
#include "tests/e2e/support/service.h"

namespace netstack::e2e {

// The connection to the descriptor socket. Everything in it may be called
// between fork() and exec().
class Handover {
 public:
  explicit Handover(const std::string& socket_path);
  bool ok() const { return fd_.ok(); }
  // The verdict's byte; -1: the connection was closed.
  int Give(const std::string& nonce, int descriptor);
  void Close() { fd_.Reset(); }
  // Waits, at most 10 s, until the service has ended the connection.
  bool Ends();

 private:
  Fd fd_;
};

// gRPC of an app, on a channel of its own.
class AppStubs {
 public:
  explicit AppStubs(const Service& service);
  // Empty when it went well.
  std::string Start(const std::string& nonce);
  std::string Replace(const std::string& nonce);
  v1::AppService::Stub& apps() { return *apps_; }

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::NetstackService::Stub> stack_;
  std::unique_ptr<v1::AppService::Stub> apps_;
};

// An attached app. Queries for owners are answered by `owner`, on a thread of
// its own.
class AttachedApp {
 public:
  using OwnerOf = std::function<v1::FlowOwner(const v1::FlowKey&)>;
  AttachedApp(AppStubs& stubs, OwnerOf owner = nullptr);
  // Says goodbye.
  ~AttachedApp();

  // The counts of NetworkHandled.
  v1::NetworkHandled ChangeNetwork(const v1::NetworkChanged& change);
  uint64_t loops() const { return loops_; }

 private:
  void Run();
  void Write(const v1::AttachRequest& request);

  grpc::ClientContext context_;
  OwnerOf owner_;
  std::unique_ptr<
      grpc::ClientReaderWriter<v1::AttachRequest, v1::AttachResponse>>
      stream_;
  std::mutex write_mutex_;
  std::mutex mutex_;
  std::vector<v1::NetworkHandled> handled_;
  std::atomic<uint64_t> loops_{0};
  std::thread thread_;
};

// Listens at `path` and protects the sockets that come: each gets SO_MARK
// `mark`, as the kernel does in VpnService.protect().
class ProtectingApp {
 public:
  enum class Protocol { kProtectPath, kPipelined };
  ProtectingApp(const std::string& path, Protocol protocol, uint32_t mark);
  ~ProtectingApp();

  uint64_t asked() const { return asked_; }
  void set_refuse(bool refuse) { refuse_ = refuse; }

 private:
  void Run();
  // False: the connection is over.
  bool Serve(int connection);

  const Protocol protocol_;
  const uint32_t mark_;
  Fd listener_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> refuse_{false};
  std::atomic<uint64_t> asked_{0};
  std::thread thread_;
};

}  // namespace netstack::e2e

#endif  // TESTS_E2E_SUPPORT_APP_H_

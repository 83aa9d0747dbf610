// The real netstackd in the namespace gw, and a gRPC client of it.
#ifndef TESTS_E2E_SUPPORT_SERVICE_H_
#define TESTS_E2E_SUPPORT_SERVICE_H_

#include <sys/socket.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "netstack/v1/events.pb.h"
#include "netstack/v1/flow_service.pb.h"
#include "netstack/v1/netstack_service.pb.h"
#include "tests/e2e/support/process.h"
#include "tests/e2e/support/tcp.h"

namespace netstack::e2e {

// The end of an RPC.
struct RpcResult {
  int code = 0;  // grpc::StatusCode
  std::string message;
  bool ok() const { return code == 0; }
};

// A control connection of its own. Every call has a deadline; what fails is
// the test's failure, unless the call returns an RpcResult.
class Control {
 public:
  explicit Control(const std::string& socket_path);
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  RpcResult Start();
  RpcResult Stop();
  RpcResult GetStatus(v1::StackStatus* status);
  v1::StackStatus Status();
  v1::Stats Stats();
  RpcResult Update(const std::string& config_textproto);
  std::vector<v1::Flow> Flows(const v1::FlowFilter& filter = {});
  uint64_t CloseAllFlows();

  // Reads a stream until `on_message` returns false or the patience is over;
  // the result is that of the stream, CANCELLED when the caller ended it.
  RpcResult WatchFlows(
      const v1::WatchFlowsRequest& request,
      const std::function<bool(const v1::WatchFlowsResponse&)>& on_message,
      Clock::duration patience = kPatience);
  RpcResult WatchEvents(
      const std::function<bool(const v1::WatchEventsResponse&)>& on_message,
      Clock::duration patience = kPatience);

  // Ends the stream that another thread is reading.
  void CancelStream();

  // The number of one drop reason, or of one close reason.
  uint64_t Drops(v1::DropReason reason);
  uint64_t Closed(v1::CloseReason reason);

 private:
  struct Stubs;
  std::unique_ptr<Stubs> stubs_;
};

uint64_t DropsIn(const v1::Stats& stats, v1::DropReason reason);
uint64_t ClosedIn(const v1::Stats& stats, v1::CloseReason reason);

struct ServiceOptions {
  // As in a config file, added to the TUN's name and prefixes.
  std::string config{};
  int mtu = 1500;
  bool offload = true;
  unsigned descriptors = 0;  // RLIMIT_NOFILE; 0: ours
  std::vector<std::string> environment{};  // NAME=VALUE
  bool start = true;         // start the stack
  bool attach = true;        // and move the TUN to app
  std::string ns{};          // where it runs; empty: gw
};

// One run of the program. The destructor ends it.
class Service {
 public:
  explicit Service(const ServiceOptions& options = {});
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  static constexpr char kTun[] = "tun0";

  Control& control() { return *control_; }
  Process& process() { return *process_; }
  std::string socket_path() const { return dir_ / "run/netstackd.sock"; }
  // What it wrote.
  std::string Log() const { return ReadFile(dir_ / "log"); }

  // Starts the program (again) and waits until it answers.
  void Launch();
  // Starts the stack and moves the TUN to app.
  void StartStack();

 private:
  ServiceOptions options_;
  TempDir dir_;
  std::unique_ptr<Process> process_;
  std::unique_ptr<Control> control_;
};

// The program under test; $NETSTACK_E2E_NETSTACKD names another one.
std::string NetstackdPath();

// Whether the figures of docs/acceptance.md are to be reached, which takes
// long (NETSTACK_E2E_SCALE=full), and not only shown to be in reach.
bool FullScale();

// Where things are for one address family.
struct Family {
  const char* name;
  int family;
  const char* tunnel;       // srv through the TUN
  const char* tunnel2;      // the same, another address
  const char* direct;       // srv over the direct veth
  const char* app;          // the app's own address behind the TUN
  const char* black_hole;   // nothing ever answers
  const char* unreachable;  // a router says so
  const char* prohibited;   // a router says so
  const char* no_route;     // a router says so
};
extern const Family kV4;
extern const Family kV6;
// For INSTANTIATE_TEST_SUITE_P.
std::string FamilyName(const testing::TestParamInfo<const Family*>& info);

}  // namespace netstack::e2e

#endif  // TESTS_E2E_SUPPORT_SERVICE_H_

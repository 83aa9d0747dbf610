// Packets made by hand, put onto a device as if the namespace's own kernel had
// sent them, and packets seen on it. (tests/core/wire/test_packets.h makes
// them.)
#ifndef TESTS_E2E_SUPPORT_RAW_H_
#define TESTS_E2E_SUPPORT_RAW_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/base/bytes.h"
#include "tests/e2e/support/deadline.h"
#include "tests/e2e/support/fd.h"

namespace netstack::e2e {

class Injector {
 public:
  Injector(const std::string& ns, const std::string& device);

  // IP packets. Waits while the device is full.
  void Send(Bytes packet);
  void Send(const std::vector<std::vector<std::byte>>& packets);

 private:
  int device_ = 0;
  Fd fd_;  // behind device_, which making it sets
};

// Sends packets at a steady rate from a thread until it is destroyed.
class Flood {
 public:
  Flood(Injector& injector, int per_second,
        std::function<std::vector<std::byte>()> next);
  ~Flood();
  Flood(const Flood&) = delete;
  Flood& operator=(const Flood&) = delete;

  uint64_t sent() const { return sent_; }

 private:
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> sent_{0};
  std::thread thread_;
};

// What is to know of a TCP segment on its way.
struct Seen {
  bool to_app = false;  // towards this namespace
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint32_t seq = 0;
  uint32_t ack = 0;
  uint8_t flags = 0;
  uint16_t window = 0;
  size_t payload = 0;
};

class Sniffer {
 public:
  Sniffer(const std::string& ns, const std::string& device);

  // The next TCP segment, if one comes in time.
  std::optional<Seen> Next(Clock::duration patience);

 private:
  Fd fd_;
};

}  // namespace netstack::e2e

#endif  // TESTS_E2E_SUPPORT_RAW_H_

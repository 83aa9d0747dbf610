// Keeping a socket of ours out of the VPN.
#ifndef CORE_DIAL_PROTECTOR_H_
#define CORE_DIAL_PROTECTOR_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "core/platform/sockets.h"

namespace netstack {

// Called with every socket before connect(), and done at once. Who must ask
// somebody else is an AppProtector (app_protector.h).
class Protector {
 public:
  virtual ~Protector() = default;
  // 0, or -errno: then the socket is closed and the dial fails.
  virtual int Protect(int fd) = 0;
};

// SO_MARK (socket(7)): a routing rule sends marked packets past the TUN.
class MarkProtector final : public Protector {
 public:
  // `sockets` outlives this.
  MarkProtector(Sockets* sockets, uint32_t mark)
      : sockets_(sockets), mark_(mark) {}
  int Protect(int fd) override { return sockets_->SetMark(fd, mark_); }

 private:
  Sockets* const sockets_;
  const uint32_t mark_;
};

// SO_BINDTODEVICE (socket(7)): the socket uses one interface only.
class DeviceProtector final : public Protector {
 public:
  DeviceProtector(Sockets* sockets, std::string device)
      : sockets_(sockets), device_(std::move(device)) {}
  int Protect(int fd) override { return sockets_->BindToDevice(fd, device_); }

 private:
  Sockets* const sockets_;
  const std::string device_;
};

// A function of the app in whose process we are.
class CallbackProtector final : public Protector {
 public:
  explicit CallbackProtector(std::function<int(int fd)> protect)
      : protect_(std::move(protect)) {}
  int Protect(int fd) override { return protect_(fd); }

 private:
  const std::function<int(int fd)> protect_;
};

}  // namespace netstack

#endif  // CORE_DIAL_PROTECTOR_H_

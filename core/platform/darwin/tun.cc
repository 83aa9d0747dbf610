// utun: a control socket of the kernel whose messages are one packet each,
// behind the address family in 4 bytes of network order. It has no offload:
// software GRO and GSO do their part. On iOS only the system makes them, for a
// packet tunnel provider.
#include "core/platform/tun.h"

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/platform/darwin/utun.h"
#include "core/platform/linux/unique_fd.h"

namespace netstack {
namespace {

constexpr size_t kMaxParts = 64;

class DarwinTun final : public Tun {
 public:
  DarwinTun(UniqueFd fd, std::string name, uint32_t mtu)
      : fd_(std::move(fd)), name_(std::move(name)), mtu_(mtu) {}

  int fd() const override { return fd_.get(); }
  const std::string& name() const override { return name_; }
  uint32_t mtu() const override { return mtu_; }
  bool offload() const override { return false; }

  TunRead Read(std::span<const MutableBytes> parts) override {
    if (parts.size() > kMaxParts) return {.size = -EINVAL};
    uint32_t family = 0;  // the packet says its version itself
    std::array<iovec, kMaxParts + 1> vec;  // not initialized
    size_t count = 0;
    vec[count++] = {&family, sizeof(family)};
    for (const MutableBytes& part : parts) {
      vec[count++] = {part.data(), part.size()};
    }
    ssize_t n;
    do {
      n = readv(fd_.get(), vec.data(), static_cast<int>(count));
    } while (n < 0 && errno == EINTR);
    if (n < 0) return {.size = errno == EAGAIN ? 0 : -errno};
    // The end of the stream: whoever made the device has taken it away.
    if (n < static_cast<ssize_t>(sizeof(family))) return {.size = -ENXIO};
    return {.size = n - static_cast<ssize_t>(sizeof(family))};
  }

  int Write(std::span<const Bytes> parts, const TunWrite& how) override {
    if (parts.size() > kMaxParts || parts.empty() || parts[0].empty()) {
      return -EINVAL;
    }
    if (how.partial_checksum || how.segment_size != 0) return -EOPNOTSUPP;
    const bool v4 = std::to_integer<int>(parts[0][0]) >> 4 == 4;
    uint32_t family = htonl(v4 ? AF_INET : AF_INET6);
    std::array<iovec, kMaxParts + 1> vec;  // not initialized
    size_t count = 0;
    vec[count++] = {&family, sizeof(family)};
    for (const Bytes& part : parts) {
      vec[count++] = {const_cast<std::byte*>(part.data()), part.size()};
    }
    ssize_t n;
    do {
      n = writev(fd_.get(), vec.data(), static_cast<int>(count));
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? 0 : -errno;
  }

 private:
  const UniqueFd fd_;
  const std::string name_;
  const uint32_t mtu_;
};

std::string Reason(int error) { return strerror(error); }

// An ioctl that names a device; 0 or -errno.
int NameIoctl(unsigned long request, const std::string& name, ifreq* data) {
  strlcpy(data->ifr_name, name.c_str(), sizeof(data->ifr_name));
  UniqueFd socket_fd(socket(AF_INET, SOCK_DGRAM, 0));
  if (!socket_fd.ok()) return -errno;
  return ioctl(socket_fd.get(), request, data) == 0 ? 0 : -errno;
}

// The device's MTU, or `otherwise` where it can't be asked.
uint32_t ReadMtu(const std::string& name, uint32_t otherwise) {
  ifreq request{};
  if (NameIoctl(SIOCGIFMTU, name, &request) != 0 || request.ifr_mtu <= 0) {
    return otherwise;
  }
  return static_cast<uint32_t>(request.ifr_mtu);
}

// Empty when `fd` is no utun.
std::string DeviceName(int fd) {
  char name[IFNAMSIZ] = {};
  socklen_t size = sizeof(name);
  if (getsockopt(fd, darwin::kControlProtocol, darwin::kUtunInterfaceName, name,
                 &size) != 0) {
    return "";
  }
  return {name, strnlen(name, sizeof(name))};
}

absl::Status SetDescriptorFlags(int fd) {
  const int status = fcntl(fd, F_GETFL);
  if (status < 0 || fcntl(fd, F_SETFL, status | O_NONBLOCK) != 0 ||
      fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return absl::UnavailableError(absl::StrCat(
        "cannot set the descriptor flags of the utun: ", Reason(errno)));
  }
  return absl::OkStatus();
}

// The kernel's unit for a name: "utun4" is 5; 0 lets the kernel choose, for
// which "utun" stands.
absl::StatusOr<uint32_t> UnitOf(const std::string& name) {
  uint32_t number = 0;
  if (name.empty() || name == "utun") return 0u;
  if (absl::StartsWith(name, "utun") &&
      absl::SimpleAtoi(name.substr(4), &number) && number < 65535) {
    return number + 1;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "the TUN's name \"", name, "\" is none on this system: they are utun0, "
      "utun1 and so on, and \"utun\" takes the next free one"));
}

absl::Status ConnectError(int error, const std::string& name) {
  const std::string what =
      absl::StrCat("cannot create the TUN \"", name, "\": ");
  switch (error) {
    case EPERM:
    case EACCES:
      return absl::PermissionDeniedError(
          absl::StrCat(what, "permission denied; run as root"));
    case EBUSY:
      return absl::FailedPreconditionError(absl::StrCat(
          what, "another program uses it; choose another name, or \"utun\""));
    default:
      return absl::UnavailableError(absl::StrCat(what, Reason(error)));
  }
}

absl::StatusOr<std::unique_ptr<Tun>> OpenByName(const TunOptions& options) {
  const absl::StatusOr<uint32_t> unit = UnitOf(options.name);
  if (!unit.ok()) return unit.status();
  UniqueFd fd(socket(PF_SYSTEM, SOCK_DGRAM, darwin::kControlProtocol));
  if (!fd.ok()) return ConnectError(errno, options.name);
  darwin::ControlInfo info{};
  strlcpy(info.name, darwin::kUtunControl, sizeof(info.name));
  if (ioctl(fd.get(), darwin::kGetControlInfo, &info) != 0) {
    return absl::NotFoundError(
        absl::StrCat("this system has no utun: ", Reason(errno)));
  }
  const darwin::ControlAddress address = {
      .length = sizeof(address),
      .family = AF_SYSTEM,
      .system_address = darwin::kControlAddress,
      .id = info.id,
      .unit = *unit,
      .reserved = {}};
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
              sizeof(address)) != 0) {
    return ConnectError(errno, options.name);
  }
  const std::string name = DeviceName(fd.get());
  ifreq request{};
  request.ifr_mtu = static_cast<int>(options.mtu);
  if (const int error = NameIoctl(SIOCSIFMTU, name, &request); error != 0) {
    return absl::UnavailableError(absl::StrCat("cannot set the MTU of ", name,
                                               ": ", Reason(-error)));
  }
  if (absl::Status s = SetDescriptorFlags(fd.get()); !s.ok()) return s;
  return std::make_unique<DarwinTun>(std::move(fd), name, options.mtu);
}

absl::StatusOr<std::unique_ptr<Tun>> TakeGiven(const TunOptions& options) {
  UniqueFd fd(options.fd);
  const std::string name = DeviceName(fd.get());
  if (name.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("descriptor ", fd.get(), " is no utun"));
  }
  if (absl::Status s = SetDescriptorFlags(fd.get()); !s.ok()) return s;
  const uint32_t mtu = ReadMtu(name, options.mtu);
  return std::make_unique<DarwinTun>(std::move(fd), name, mtu);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tun>> OpenTun(TunOptions options) {
  return options.fd >= 0 ? TakeGiven(options) : OpenByName(options);
}

}  // namespace netstack

// Linux's TUN (Documentation/networking/tuntap.rst). The ioctls that need the
// device's name are all made in OpenTun(): they act in the caller's network
// namespace, and the device may be moved to another one later, where only the
// descriptor reaches it.
#include "core/platform/tun.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "core/platform/linux/unique_fd.h"

namespace netstack {
namespace {

constexpr char kDevice[] = "/dev/net/tun";
constexpr size_t kMaxParts = 64;

// struct virtio_net_hdr of <linux/virtio_net.h>, which is no C++ ("class" is
// a member there). Without num_buffers, as the kernel takes it by default; in
// the machine's byte order (virtio's "legacy").
struct VnetHeader {
  static constexpr uint8_t kNeedsChecksum = 1;
  static constexpr uint8_t kDataValid = 2;
  static constexpr uint8_t kGsoTcpV4 = 1;
  static constexpr uint8_t kGsoTcpV6 = 4;
  static constexpr uint8_t kGsoUdp = 5;  // VIRTIO_NET_HDR_GSO_UDP_L4
  static constexpr uint8_t kGsoEcn = 0x80;

  uint8_t flags = 0;
  uint8_t gso_type = 0;
  uint16_t header_length = 0;
  uint16_t gso_size = 0;
  uint16_t checksum_start = 0;
  uint16_t checksum_offset = 0;
};
static_assert(sizeof(VnetHeader) == 10);

// TUN_F_USO4 and TUN_F_USO6 (Linux 6.2), which older headers do not have.
constexpr unsigned kUso = 0x20 | 0x40;
constexpr unsigned kTso = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;

struct Offload {
  bool tcp = false;
  bool udp = false;  // only with tcp
};

// Asks for all, then for what every kernel has: one that does not know a flag
// refuses the whole set.
Offload SetOffload(int fd) {
  if (ioctl(fd, TUNSETOFFLOAD, kTso | kUso) == 0) return {true, true};
  return {ioctl(fd, TUNSETOFFLOAD, kTso) == 0, false};
}

class LinuxTun final : public Tun {
 public:
  LinuxTun(UniqueFd fd, std::string name, uint32_t mtu, bool vnet_header,
           Offload offload)
      : fd_(std::move(fd)),
        name_(std::move(name)),
        mtu_(mtu),
        vnet_header_(vnet_header),
        offload_(offload) {}

  int fd() const override { return fd_.get(); }
  const std::string& name() const override { return name_; }
  uint32_t mtu() const override { return mtu_; }
  bool offload() const override { return offload_.tcp; }
  bool udp_offload() const override { return offload_.udp; }

  TunRead Read(std::span<const MutableBytes> parts) override {
    VnetHeader header{};
    std::array<iovec, kMaxParts + 1> vec;  // not initialized
    size_t count = 0;
    if (vnet_header_) vec[count++] = {&header, sizeof(header)};
    if (parts.size() > kMaxParts) return {.size = -EINVAL};
    for (const MutableBytes& part : parts) {
      vec[count++] = {part.data(), part.size()};
    }
    ssize_t n;
    do {
      n = readv(fd_.get(), vec.data(), static_cast<int>(count));
    } while (n < 0 && errno == EINTR);
    if (n < 0) return {.size = errno == EAGAIN ? 0 : -errno};
    if (!vnet_header_) return {.size = n};
    if (n < static_cast<ssize_t>(sizeof(header))) return {.size = -EIO};
    // How TCP's super-segments came about the receiver of a stream need not
    // know; datagrams have borders. The checksum is partial with NEEDS_CSUM
    // and was verified with DATA_VALID.
    TunRead read;
    read.size = n - static_cast<ssize_t>(sizeof(header));
    read.checksum_trusted = (header.flags & (VnetHeader::kNeedsChecksum |
                                             VnetHeader::kDataValid)) != 0;
    if ((header.gso_type & ~VnetHeader::kGsoEcn) == VnetHeader::kGsoUdp) {
      read.udp_segment = header.gso_size;
    }
    return read;
  }

  int Write(std::span<const Bytes> parts, const TunWrite& how) override {
    if (parts.size() > kMaxParts) return -EINVAL;
    if (!vnet_header_ && (how.partial_checksum || how.segment_size != 0)) {
      return -EOPNOTSUPP;
    }
    VnetHeader header = HeaderOf(how);
    std::array<iovec, kMaxParts + 1> vec;  // not initialized
    size_t count = 0;
    if (vnet_header_) vec[count++] = {&header, sizeof(header)};
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
  static VnetHeader HeaderOf(const TunWrite& how) {
    VnetHeader header{};
    if (how.partial_checksum) {
      header.flags = VnetHeader::kNeedsChecksum;
      header.checksum_start = how.checksum_start;
      header.checksum_offset = how.checksum_offset;
    }
    if (how.segment_size != 0) {
      header.gso_type = how.udp  ? VnetHeader::kGsoUdp
                        : how.v4 ? VnetHeader::kGsoTcpV4
                                 : VnetHeader::kGsoTcpV6;
      header.gso_size = how.segment_size;
      header.header_length = how.headers;
    }
    return header;
  }

  const UniqueFd fd_;
  const std::string name_;
  const uint32_t mtu_;
  const bool vnet_header_;  // each packet has one, offload or not
  const Offload offload_;
};

std::string Reason(int error) { return strerror(error); }

// An ioctl that names a device. Such ones can be made on a socket of any
// family (netdevice(7)), so we take one that never reaches a network.
int NameIoctl(unsigned long request, ifreq* request_data) {
  UniqueFd socket_fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket_fd.ok()) return -errno;
  return ioctl(socket_fd.get(), request, request_data) == 0 ? 0 : -errno;
}

// `name` was checked to fit.
ifreq RequestFor(absl::string_view name) {
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), name.size());
  return request;
}

std::string NameIn(const ifreq& request) {
  return {request.ifr_name, strnlen(request.ifr_name, IFNAMSIZ)};
}

absl::Status CheckName(const std::string& name) {
  if (name.size() < IFNAMSIZ) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the TUN's name \"", name, "\" is too long: Linux takes ",
                   IFNAMSIZ - 1, " bytes at most"));
}

absl::StatusOr<UniqueFd> OpenDevice() {
  UniqueFd fd(open(kDevice, O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (fd.ok()) return fd;
  switch (errno) {
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat("cannot open ", kDevice,
                       ": permission denied; run as root, give access to the "
                       "file and CAP_NET_ADMIN, or pass a descriptor"));
    case ENOENT:
    case ENODEV:
    case ENXIO:
    case ENOTDIR:
      return absl::NotFoundError(absl::StrCat(
          "cannot open ", kDevice, ": ", Reason(errno),
          "; load the kernel's tun module (modprobe tun), let the container "
          "have the file, or pass a descriptor"));
    default:
      return absl::UnavailableError(
          absl::StrCat("cannot open ", kDevice, ": ", Reason(errno)));
  }
}

// Why TUNSETIFF failed for `name`, which did or did not exist before.
absl::Status AttachError(int error, const std::string& name, bool existed) {
  const std::string what = absl::StrCat(
      "cannot ", existed ? "attach to" : "create", " the TUN \"", name, "\": ");
  switch (error) {
    case EPERM:
    case EACCES:
      return absl::PermissionDeniedError(
          absl::StrCat(what,
                       "permission denied; run as root, give CAP_NET_ADMIN in "
                       "this network namespace, or pass a descriptor"));
    case EBUSY:
    case EEXIST:
      return absl::FailedPreconditionError(absl::StrCat(
          what, "another program uses it; stop that or choose another name"));
    case EINVAL:
      if (existed) {
        return absl::FailedPreconditionError(
            absl::StrCat(what,
                         "a device of this name exists and is no TUN with one "
                         "queue; choose another name"));
      }
      return absl::InvalidArgumentError(absl::StrCat(
          what, "Linux does not take this name; choose another one"));
    default:
      return absl::UnavailableError(absl::StrCat(what, Reason(error)));
  }
}

struct Attached {
  UniqueFd fd;
  std::string name;
  bool vnet_header = false;
  Offload offload;
};

// Sets size and meaning of the header.
Offload EnableOffload(int fd) {
  int size = sizeof(VnetHeader);
  if (ioctl(fd, TUNSETVNETHDRSZ, &size) != 0) return {};
  return SetOffload(fd);
}

// Creates the device, or attaches to it. With `offload` the result has it;
// nullopt: it can't be had, and nothing was left behind.
absl::StatusOr<std::optional<Attached>> Attach(const std::string& name,
                                               bool existed, bool offload) {
  absl::StatusOr<UniqueFd> fd = OpenDevice();
  if (!fd.ok()) return fd.status();
  unsigned features = 0;
  if (offload && (ioctl(fd->get(), TUNGETFEATURES, &features) != 0 ||
                  (features & IFF_VNET_HDR) == 0)) {
    return std::nullopt;
  }
  ifreq request = RequestFor(name);
  request.ifr_flags =
      static_cast<short>(IFF_TUN | IFF_NO_PI | (offload ? IFF_VNET_HDR : 0));
  if (ioctl(fd->get(), TUNSETIFF, &request) != 0) {
    return AttachError(errno, name, existed);
  }
  Offload had;
  if (offload) had = EnableOffload(fd->get());
  if (offload && !had.tcp) return std::nullopt;
  // A persistent device remembers the offloads of who had it before, and
  // would hand us super-segments without a header to tell them.
  if (!offload) ioctl(fd->get(), TUNSETOFFLOAD, 0);
  return Attached{.fd = *std::move(fd),
                  .name = NameIn(request),
                  .vnet_header = offload,
                  .offload = had};
}

absl::Status BringUp(const std::string& name, uint32_t mtu) {
  ifreq request = RequestFor(name);
  request.ifr_mtu = static_cast<int>(mtu);
  if (const int error = NameIoctl(SIOCSIFMTU, &request); error != 0) {
    const std::string text =
        absl::StrCat("cannot set the MTU of the TUN \"", name, "\" to ", mtu,
                     ": ", Reason(-error));
    return error == -EINVAL ? absl::InvalidArgumentError(text)
                            : absl::UnavailableError(text);
  }
  request = RequestFor(name);
  int error = NameIoctl(SIOCGIFFLAGS, &request);
  if (error == 0) {
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    error = NameIoctl(SIOCSIFFLAGS, &request);
  }
  if (error == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("cannot bring up the TUN \"", name, "\": ", Reason(-error)));
}

// The device's MTU, or `otherwise` where it can't be asked.
uint32_t ReadMtu(const std::string& name, uint32_t otherwise) {
  ifreq request = RequestFor(name);
  if (NameIoctl(SIOCGIFMTU, &request) != 0 || request.ifr_mtu <= 0) {
    return otherwise;
  }
  return static_cast<uint32_t>(request.ifr_mtu);
}

absl::StatusOr<std::unique_ptr<Tun>> OpenByName(const TunOptions& options) {
  if (absl::Status s = CheckName(options.name); !s.ok()) return s;
  const bool existed =
      !options.name.empty() && if_nametoindex(options.name.c_str()) != 0;
  absl::StatusOr<std::optional<Attached>> tun = std::nullopt;
  if (options.offload) tun = Attach(options.name, existed, /*offload=*/true);
  if (tun.ok() && !tun->has_value()) {
    tun = Attach(options.name, existed, /*offload=*/false);
  }
  if (!tun.ok()) return tun.status();
  Attached& a = **tun;
  uint32_t mtu = options.mtu;
  if (existed) {
    mtu = ReadMtu(a.name, mtu);
  } else if (absl::Status s = BringUp(a.name, mtu); !s.ok()) {
    return s;
  }
  return std::make_unique<LinuxTun>(std::move(a.fd), std::move(a.name), mtu,
                                    a.vnet_header, a.offload);
}

// Whether the TUN's name means the same device to us. A descriptor may come
// from another network namespace, where "tun0" is someone else's. True when
// the kernel does not tell: SIOCGSKNS needs CAP_NET_ADMIN over the device.
bool IsInOurNamespace(int tun) {
  UniqueFd theirs(ioctl(tun, SIOCGSKNS));
  UniqueFd ours(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  struct stat a {};
  struct stat b {};
  if (!theirs.ok() || !ours.ok() || fstat(theirs.get(), &a) != 0 ||
      fstat(ours.get(), &b) != 0) {
    return true;
  }
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// Whether packets have the 4 bytes of packet information in front, which
// TUNGETIFF does not tell: it sets IFF_NOFILTER, a bit of the same value as
// IFF_NO_PI. So we offer a packet of version 0, which the kernel refuses
// (tun_get_user() in drivers/net/tun.c), unless it takes the first bytes for
// packet information.
bool HasPacketInformation(int fd, bool vnet_header) {
  const std::array<std::byte, sizeof(VnetHeader) + 4> zeros{};
  const size_t size = vnet_header ? zeros.size() : 4;
  return write(fd, zeros.data(), size) >= 0 || errno != EINVAL;
}

// Makes reads and writes those of LinuxTun; what TUNGETIFF said is in `flags`.
absl::Status PrepareGiven(int fd, int flags) {
  const auto failed = [fd](const char* what) {
    return absl::UnavailableError(absl::StrCat(
        "cannot ", what, " the TUN on descriptor ", fd, ": ", Reason(errno)));
  };
  const auto refused = [fd](const char* why) {
    return absl::InvalidArgumentError(
        absl::StrCat("descriptor ", fd, " is a ", why));
  };
  if ((flags & (IFF_TUN | IFF_TAP)) != IFF_TUN) {
    return refused("TAP, which carries Ethernet frames; pass a TUN (IFF_TUN)");
  }
  const int status = fcntl(fd, F_GETFL);
  if (status < 0 || fcntl(fd, F_SETFL, status | O_NONBLOCK) != 0 ||
      fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return failed("set the descriptor flags of");
  }
  int size = sizeof(VnetHeader);
  if ((flags & IFF_VNET_HDR) != 0 && ioctl(fd, TUNSETVNETHDRSZ, &size) != 0) {
    return failed("set the header size of");
  }
  if (HasPacketInformation(fd, (flags & IFF_VNET_HDR) != 0)) {
    return refused(
        "TUN with packet information headers; create it with IFF_NO_PI");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Tun>> TakeGiven(const TunOptions& options) {
  UniqueFd fd(options.fd);
  ifreq request{};
  if (ioctl(fd.get(), TUNGETIFF, &request) != 0) {
    const int error = errno;
    return absl::InvalidArgumentError(
        absl::StrCat("descriptor ", fd.get(), " is no TUN: ",
                     error == EBADFD ? "its device was deleted or never named"
                                     : Reason(error),
                     "; pass one on which TUNSETIFF was called"));
  }
  if (absl::Status s = PrepareGiven(fd.get(), request.ifr_flags); !s.ok()) {
    return s;
  }
  // Whether packets have headers was decided by whoever made the device;
  // what they may ask of us is ours to say.
  const bool vnet_header = (request.ifr_flags & IFF_VNET_HDR) != 0;
  Offload offload;
  if (vnet_header && options.offload) offload = SetOffload(fd.get());
  if (vnet_header && !offload.tcp) ioctl(fd.get(), TUNSETOFFLOAD, 0);
  const std::string name = NameIn(request);
  const uint32_t mtu = options.ask_mtu && IsInOurNamespace(fd.get())
                           ? ReadMtu(name, options.mtu)
                           : options.mtu;
  return std::make_unique<LinuxTun>(std::move(fd), name, mtu, vnet_header,
                                    offload);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tun>> OpenTun(TunOptions options) {
  return options.fd >= 0 ? TakeGiven(options) : OpenByName(options);
}

absl::Status CheckTunDescriptor(int fd) {
  struct stat st {};
  // Before any ioctl, which means something else to every kind of device.
  if (fstat(fd, &st) != 0 || !S_ISCHR(st.st_mode)) {
    return absl::InvalidArgumentError("the descriptor is no device");
  }
  ifreq request{};
  if (ioctl(fd, TUNGETIFF, &request) != 0) {
    return absl::InvalidArgumentError("the descriptor is no TUN");
  }
  if ((request.ifr_flags & (IFF_TUN | IFF_TAP)) != IFF_TUN) {
    return absl::InvalidArgumentError("the descriptor is a TAP");
  }
  return absl::OkStatus();
}

}  // namespace netstack

#include "core/platform/socket_owners.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "core/platform/linux/unique_fd.h"

namespace netstack {
namespace {

class LinuxSocketOwners final : public SocketOwners {
 public:
  explicit LinuxSocketOwners(UniqueFd fd) : fd_(std::move(fd)) {}

  std::optional<SocketOwner> Find(const FlowKey& key) override {
    if (key.protocol == Protocol::kTcp) {
      return Ask(key.app, key.remote, IPPROTO_TCP);
    }
    if (key.protocol != Protocol::kUdp) return {};
    // The kernel looks a datagram's receiver up, so the question is asked
    // from the remote's side.
    if (auto owner = Ask(key.remote, key.app, IPPROTO_UDP)) return owner;
    return Ask(key.app, key.remote, IPPROTO_UDP);
  }

 private:
  struct Request {
    nlmsghdr header;
    inet_diag_req_v2 body;
  };

  std::optional<SocketOwner> Ask(const Endpoint& source,
                                 const Endpoint& destination,
                                 uint8_t protocol) {
    const bool v4 = source.ip.IsV4();
    if (v4 != destination.ip.IsV4()) return {};
    // An app may talk IPv4 through an IPv6 socket; the kernel finds those
    // under IPv4 as well.
    Request request{};
    request.header.nlmsg_len = sizeof(request);
    request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    request.header.nlmsg_flags = NLM_F_REQUEST;
    request.header.nlmsg_seq = ++sequence_;
    request.body.sdiag_family = v4 ? AF_INET : AF_INET6;
    request.body.sdiag_protocol = protocol;
    request.body.idiag_states = ~0U;
    request.body.id.idiag_sport = htons(source.port);
    request.body.id.idiag_dport = htons(destination.port);
    std::memcpy(request.body.id.idiag_src,
                v4 ? source.ip.v4() : source.ip.v6(), v4 ? 4 : 16);
    std::memcpy(request.body.id.idiag_dst,
                v4 ? destination.ip.v4() : destination.ip.v6(), v4 ? 4 : 16);
    request.body.id.idiag_cookie[0] = INET_DIAG_NOCOOKIE;
    request.body.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    if (send(fd_.get(), &request, sizeof(request), MSG_DONTWAIT) !=
        static_cast<ssize_t>(sizeof(request))) {
      return {};
    }
    // The kernel answers within send(); what is left of an earlier question
    // is passed over.
    for (int turn = 0; turn < 4; ++turn) {
      alignas(nlmsghdr) char buffer[4096];
      const ssize_t n = recv(fd_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
      if (n < static_cast<ssize_t>(sizeof(nlmsghdr))) return {};
      nlmsghdr header;
      std::memcpy(&header, buffer, sizeof(header));
      if (header.nlmsg_seq != sequence_) continue;
      if (header.nlmsg_type != SOCK_DIAG_BY_FAMILY ||
          n < static_cast<ssize_t>(NLMSG_LENGTH(sizeof(inet_diag_msg)))) {
        return {};
      }
      inet_diag_msg message;
      std::memcpy(&message, buffer + NLMSG_HDRLEN, sizeof(message));
      return SocketOwner{message.idiag_uid, message.idiag_inode};
    }
    return {};
  }

  const UniqueFd fd_;
  uint32_t sequence_ = 0;
};

// A directory of /proc, for as long as it is read.
class Directory {
 public:
  explicit Directory(const std::string& path) : dir_(opendir(path.c_str())) {}
  ~Directory() {
    if (dir_ != nullptr) closedir(dir_);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  bool ok() const { return dir_ != nullptr; }
  int fd() const { return dirfd(dir_); }
  const char* Next() {
    const dirent* entry = readdir(dir_);
    return entry == nullptr ? nullptr : entry->d_name;
  }

 private:
  DIR* const dir_;
};

class LinuxProcessFinder final : public ProcessFinder {
 public:
  std::optional<ProcessInfo> Find(const SocketOwner& owner) override {
    if (owner.inode == 0) return {};
    const std::string wanted = absl::StrCat("socket:[", owner.inode, "]");
    for (const uint32_t pid : recent_) {
      if (Has(pid, wanted)) return Take(pid);
    }
    Directory proc("/proc");
    if (!proc.ok()) return {};
    while (const char* name = proc.Next()) {
      uint32_t pid = 0;
      const absl::string_view text(name);
      const auto [end, error] =
          std::from_chars(text.data(), text.data() + text.size(), pid);
      if (error != std::errc() || end != text.data() + text.size()) continue;
      struct stat st {};
      if (fstatat(proc.fd(), name, &st, 0) != 0 || st.st_uid != owner.uid) {
        continue;
      }
      if (Has(pid, wanted)) return Take(pid);
    }
    return {};
  }

 private:
  static constexpr size_t kRecent = 32;

  static bool Has(uint32_t pid, const std::string& wanted) {
    Directory fds(absl::StrCat("/proc/", pid, "/fd"));
    if (!fds.ok()) return false;
    while (const char* name = fds.Next()) {
      char target[64];
      const ssize_t n =
          readlinkat(fds.fd(), name, target, sizeof(target));
      if (n > 0 && absl::string_view(target, static_cast<size_t>(n)) ==
                       wanted) {
        return true;
      }
    }
    return false;
  }

  std::optional<ProcessInfo> Take(uint32_t pid) {
    std::erase(recent_, pid);
    recent_.insert(recent_.begin(), pid);
    if (recent_.size() > kRecent) recent_.pop_back();
    UniqueFd file(open(absl::StrCat("/proc/", pid, "/comm").c_str(),
                       O_RDONLY | O_CLOEXEC));
    if (!file.ok()) return {};
    char name[64];
    ssize_t n = read(file.get(), name, sizeof(name));
    while (n > 0 && name[n - 1] == '\n') --n;
    if (n < 0) return {};
    return ProcessInfo{pid, std::string(name, static_cast<size_t>(n))};
  }

  std::vector<uint32_t> recent_;  // the newest first
};

}  // namespace

std::unique_ptr<SocketOwners> NewSocketOwners() {
  UniqueFd fd(socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
                     NETLINK_SOCK_DIAG));
  if (!fd.ok()) return nullptr;
  return std::make_unique<LinuxSocketOwners>(std::move(fd));
}

std::unique_ptr<ProcessFinder> NewProcessFinder() {
  return std::make_unique<LinuxProcessFinder>();
}

}  // namespace netstack

#include "core/platform/system_dns.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/str_split.h"
#include "core/platform/linux/unique_fd.h"

namespace netstack {
namespace {

constexpr size_t kMaxServers = 8;
// A resolv.conf has a few lines; whoever makes it larger is not read.
constexpr size_t kMaxFile = 64 * 1024;
constexpr uint16_t kPort = 53;

std::string ReadAll(int fd) {
  std::string text;
  std::array<char, 4096> chunk;
  while (text.size() < kMaxFile) {
    const ssize_t n = read(fd, chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text.append(chunk.data(), static_cast<size_t>(n));
  }
  return text;
}

bool Same(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino &&
         a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec &&
         a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

class ResolvConf final : public SystemDns {
 public:
  explicit ResolvConf(std::string path) : path_(std::move(path)) {}

  const std::vector<Endpoint>& Servers() override {
    struct stat now {};
    if (stat(path_.c_str(), &now) != 0) {
      seen_ = {};
      servers_.clear();
      return servers_;
    }
    if (Same(now, seen_)) return servers_;
    // Non-blocking: a FIFO in its place must not stop the loop.
    const UniqueFd fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd.ok() || fstat(fd.get(), &now) != 0 || !S_ISREG(now.st_mode)) {
      return servers_;
    }
    seen_ = now;
    servers_ = ParseResolvConf(ReadAll(fd.get()));
    return servers_;
  }

 private:
  const std::string path_;
  struct stat seen_ {};
  std::vector<Endpoint> servers_;
};

}  // namespace

std::unique_ptr<SystemDns> NewSystemDns(const std::string& path) {
  return std::make_unique<ResolvConf>(path);
}

std::vector<Endpoint> ParseResolvConf(absl::string_view text) {
  std::vector<Endpoint> servers;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.size() < 2 || words[0] != "nameserver") continue;
    const auto ip = IpAddress::Parse(words[1]);
    if (ip && servers.size() < kMaxServers) servers.push_back({*ip, kPort});
  }
  return servers;
}

}  // namespace netstack

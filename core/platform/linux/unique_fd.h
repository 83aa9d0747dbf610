// Ownership of one descriptor.
#ifndef CORE_PLATFORM_LINUX_UNIQUE_FD_H_
#define CORE_PLATFORM_LINUX_UNIQUE_FD_H_

#include <unistd.h>

#include <utility>

namespace netstack {

class UniqueFd {
 public:
  explicit UniqueFd(int fd = -1) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  // Not repeated on EINTR: Linux has released the number by then (close(2)).
  ~UniqueFd() {
    if (fd_ >= 0) close(fd_);
  }

  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }

 private:
  int fd_;
};

}  // namespace netstack

#endif  // CORE_PLATFORM_LINUX_UNIQUE_FD_H_

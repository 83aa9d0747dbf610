// Who speaks on a local socket, and whether he may.
#ifndef SERVER_PEER_H_
#define SERVER_PEER_H_

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace netstack::server {

// Of the process that called connect(), in our user namespace.
inline std::optional<uint32_t> PeerUid(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return {};
  return peer.uid;
}

// Root, ourselves, and those who are named.
inline bool MayConnect(uint32_t uid, const std::vector<uint32_t>& allowed) {
  return uid == 0 || uid == geteuid() ||
         std::find(allowed.begin(), allowed.end(), uid) != allowed.end();
}

}  // namespace netstack::server

#endif  // SERVER_PEER_H_

// Endpoints as the kernel takes and gives them.
#ifndef CORE_PLATFORM_LINUX_SOCKET_ADDRESS_H_
#define CORE_PLATFORM_LINUX_SOCKET_ADDRESS_H_

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

#include "core/wire/ip_address.h"

namespace netstack {

// Room for either family; sockaddr_storage is four times as large.
union SocketAddress {
  sockaddr any;
  sockaddr_in v4;
  sockaddr_in6 v6;
};

// Fills `out`; returns how many bytes of it count.
inline socklen_t ToSocketAddress(const Endpoint& endpoint, SocketAddress* out) {
  if (endpoint.ip.IsV4()) {
    out->v4 = {};
    out->v4.sin_family = AF_INET;
    out->v4.sin_port = htons(endpoint.port);
    std::memcpy(&out->v4.sin_addr, endpoint.ip.v4(), 4);
    return sizeof(out->v4);
  }
  out->v6 = {};
  out->v6.sin6_family = AF_INET6;
  out->v6.sin6_port = htons(endpoint.port);
  std::memcpy(&out->v6.sin6_addr, endpoint.ip.v6(), 16);
  return sizeof(out->v6);
}

// Default-constructed when it is of neither family.
inline Endpoint FromSocketAddress(const SocketAddress& address) {
  if (address.any.sa_family == AF_INET) {
    return {IpAddress::V4(
                reinterpret_cast<const std::byte*>(&address.v4.sin_addr)),
            ntohs(address.v4.sin_port)};
  }
  if (address.any.sa_family == AF_INET6) {
    return {IpAddress::V6(
                reinterpret_cast<const std::byte*>(&address.v6.sin6_addr)),
            ntohs(address.v6.sin6_port)};
  }
  return {};
}

}  // namespace netstack

#endif  // CORE_PLATFORM_LINUX_SOCKET_ADDRESS_H_

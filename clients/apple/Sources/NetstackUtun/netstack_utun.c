#include "netstack_utun.h"

#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* The SDK for iOS has no <sys/kern_control.h>; names of its own, since the one
 * for macOS has. */
struct utun_control_info {
  uint32_t id;
  char name[96];
};
struct utun_control_address {
  uint8_t length;
  uint8_t family;
  uint16_t system_address;
  uint32_t id;
  uint32_t unit;
  uint32_t reserved[5];
};
#define UTUN_GET_CONTROL_INFO _IOWR('N', 3, struct utun_control_info)

int netstack_utun_descriptor(void) {
  struct utun_control_info info = {.id = 0};
  strlcpy(info.name, "com.apple.net.utun_control", sizeof(info.name));
  const int count = getdtablesize();
  for (int fd = 0; fd < count; ++fd) {
    struct utun_control_address peer = {.length = 0};
    socklen_t size = sizeof(peer);
    if (getpeername(fd, (struct sockaddr *)&peer, &size) != 0 ||
        peer.family != AF_SYSTEM) {
      continue;
    }
    /* The control's id is the same for every descriptor; any one tells it. */
    if (info.id == 0 && ioctl(fd, UTUN_GET_CONTROL_INFO, &info) != 0) continue;
    if (peer.id == info.id) return fd;
  }
  return -1;
}

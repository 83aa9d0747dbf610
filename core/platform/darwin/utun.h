// What is needed of <sys/kern_control.h>, <sys/sys_domain.h> and
// <net/if_utun.h>: the SDK for iOS has none of them, though its kernel speaks
// them. Names and values are those of Darwin's kernel.
#ifndef CORE_PLATFORM_DARWIN_UTUN_H_
#define CORE_PLATFORM_DARWIN_UTUN_H_

#include <sys/ioctl.h>

#include <cstdint>

namespace netstack::darwin {

inline constexpr char kUtunControl[] = "com.apple.net.utun_control";
inline constexpr int kControlProtocol = 2;          // SYSPROTO_CONTROL
inline constexpr uint16_t kControlAddress = 2;      // AF_SYS_CONTROL
inline constexpr int kUtunInterfaceName = 2;        // UTUN_OPT_IFNAME

struct ControlInfo {  // ctl_info
  uint32_t id;
  char name[96];
};
inline constexpr unsigned long kGetControlInfo =  // CTLIOCGINFO
    _IOWR('N', 3, ControlInfo);

struct ControlAddress {  // sockaddr_ctl
  uint8_t length;
  uint8_t family;  // AF_SYSTEM
  uint16_t system_address;
  uint32_t id;
  uint32_t unit;
  uint32_t reserved[5];
};
static_assert(sizeof(ControlAddress) == 32);

}  // namespace netstack::darwin

#endif  // CORE_PLATFORM_DARWIN_UTUN_H_

/* Hooks that lwIP calls, see lwipopts.h. Included by lwIP only. */
#ifndef CORE_LWIP_PORT_HOOKS_H_
#define CORE_LWIP_PORT_HOOKS_H_

#include "lwip/arch.h"
#include "lwip/ip_addr.h"

#ifdef __cplusplus
extern "C" {
#endif

u32_t netstack_lwip_isn(const ip_addr_t* local_ip, u16_t local_port,
                        const ip_addr_t* remote_ip, u16_t remote_port);

#ifdef __cplusplus
}
#endif

#endif /* CORE_LWIP_PORT_HOOKS_H_ */

// What lwIP's TCP finds below itself: instead of lwIP's IP, a hook that takes
// each finished segment.
//
// lwIP's ip4.c, ip6.c, netif.c and everything under them are not compiled;
// this file's .cc defines the few symbols that tcp.c, tcp_in.c and tcp_out.c
// need of them. No hostile byte ever meets lwIP's IP code.
#ifndef CORE_LWIP_BELOW_TCP_H_
#define CORE_LWIP_BELOW_TCP_H_

#include "lwip/err.h"
#include "lwip/ip_addr.h"
#include "lwip/pbuf.h"

namespace netstack {

// Receives what lwIP sends: `p` starts at the TCP header and stays lwIP's.
// ERR_OK, or an error that makes lwIP keep the segment.
using LwipOutput = err_t (*)(struct pbuf* p);

// Set once, before the first segment.
void SetLwipOutput(LwipOutput output);

// Tells tcp_input() the addresses of the segment that it is given next.
void SetLwipAddresses(const ip_addr_t& source, const ip_addr_t& destination);

}  // namespace netstack

#endif  // CORE_LWIP_BELOW_TCP_H_

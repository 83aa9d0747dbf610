#include "core/lwip/below_tcp.h"

#include "lwip/ip.h"
#include "lwip/ip4.h"
#include "lwip/ip6.h"
#include "lwip/netif.h"

namespace netstack {
namespace {

LwipOutput g_output = nullptr;
// lwIP wants some netif to route to; it looks at nothing in it.
struct netif g_netif;

}  // namespace

void SetLwipOutput(LwipOutput output) { g_output = output; }

void SetLwipAddresses(const ip_addr_t& source, const ip_addr_t& destination) {
  ip_data.current_netif = &g_netif;
  ip_data.current_input_netif = &g_netif;
  ip_data.current_iphdr_src = source;
  ip_data.current_iphdr_dest = destination;
}

}  // namespace netstack

extern "C" {

// Of ip.c.
struct ip_globals ip_data;

// Of ip.c and ip4_addr.c.
const ip_addr_t ip_addr_any_type = IPADDR_ANY_TYPE_INIT;
const ip_addr_t ip_addr_any = IPADDR4_INIT(IPADDR_ANY);

// Broadcast and multicast were refused at the edge (core/wire, dispatcher).
u8_t ip4_addr_isbroadcast_u32(u32_t, const struct netif*) { return 0; }

// Of ip4.c, ip6.c and netif.c: there is one way, and it needs no source
// address, since every pcb has one from the start.
struct netif* ip4_route(const ip4_addr_t*) { return &netstack::g_netif; }
struct netif* ip6_route(const ip6_addr_t*, const ip6_addr_t*) {
  return &netstack::g_netif;
}
const ip_addr_t* ip6_select_source_address(struct netif*, const ip6_addr_t*) {
  return nullptr;
}
struct netif* netif_get_by_index(u8_t) { return &netstack::g_netif; }

err_t ip4_output_if(struct pbuf* p, const ip4_addr_t*, const ip4_addr_t*, u8_t,
                    u8_t, u8_t, struct netif*) {
  return netstack::g_output(p);
}
err_t ip6_output_if(struct pbuf* p, const ip6_addr_t*, const ip6_addr_t*, u8_t,
                    u8_t, u8_t, struct netif*) {
  return netstack::g_output(p);
}

// Flows have timers of their own, see tcp_engine.cc.
void netstack_lwip_tcp_timer_needed(void) {}

}  // extern "C"

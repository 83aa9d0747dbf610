/* How lwIP is built: TCP alone, without an operating system, timers, sockets
 * or IP. The options that matter say why; see ../tcp_engine.cc for the rules
 * that the engine keeps around them. */
#ifndef CORE_LWIP_PORT_LWIPOPTS_H_
#define CORE_LWIP_PORT_LWIPOPTS_H_

#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_TIMERS 0
#define LWIP_SOCKET 0
#define LWIP_NETCONN 0
#define LWIP_SINGLE_NETIF 1
#define LWIP_NETIF_LOOPBACK 0
#define LWIP_HAVE_LOOPIF 0

#define LWIP_IPV4 1
#define LWIP_IPV6 1
#define LWIP_IPV6_SCOPES 0
#define LWIP_TCP 1
#define LWIP_UDP 0
#define LWIP_RAW 0
#define LWIP_ICMP 0
#define LWIP_ICMP6 0
#define LWIP_ARP 0
#define LWIP_ETHERNET 0
#define LWIP_DHCP 0
#define LWIP_DNS 0
#define LWIP_IGMP 0
#define LWIP_IPV6_MLD 0
#define LWIP_IPV6_FRAG 0
#define LWIP_IPV6_REASS 0
#define IP_FRAG 0
#define IP_REASSEMBLY 0
#define LWIP_ND6_TCP_REACHABILITY_HINTS 0
#define LWIP_STATS 0
#define LWIP_NETIF_HOSTNAME 0

/* Memory: everything from heap.cc, which counts and recycles. The MEMP_NUM_*
 * limits do not apply; the flow table bounds the number of pcbs. */
#define MEM_ALIGNMENT 8
#define MEM_LIBC_MALLOC 0
#define MEM_CUSTOM_ALLOCATOR 1
#define MEM_CUSTOM_MALLOC netstack_lwip_malloc
#define MEM_CUSTOM_CALLOC netstack_lwip_calloc
#define MEM_CUSTOM_FREE netstack_lwip_free
#define MEMP_MEM_MALLOC 1
#define LWIP_SUPPORT_CUSTOM_PBUF 1
/* Headers below TCP are written by us, elsewhere. */
#define PBUF_LINK_HLEN 0
#define PBUF_LINK_ENCAPSULATION_HLEN 0

/* The largest segment that lwIP may build: a super-segment. pcb->mss is the
 * largest multiple of the peer's MSS up to this; the MSS option that we send
 * is written by us. u16 arithmetic in tcp_out.c overflows above 65475. */
#define TCP_MSS 65475
#define TCP_CALCULATE_EFF_SEND_MSS 0
/* The ceiling of what a flow's window may grow to; the engine opens a small
 * part and grows it out of the memory budget. */
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 7
#define TCP_WND (4 * 1024 * 1024)
#define TCP_SND_BUF (8 * 1024 * 1024)
#define TCP_SND_QUEUELEN 65000
#define TCP_SNDLOWAT (TCP_SND_BUF / 2)
#define TCP_SNDQUEUELOWAT 1
#define TCP_WND_UPDATE_THRESHOLD (32 * 1024)
/* We never copy into lwIP's own buffers, so that spare room has no use. */
#define TCP_OVERSIZE 0
#define TCP_QUEUE_OOSEQ 1
#define TCP_OOSEQ_MAX_BYTES (256 * 1024)
#define TCP_OOSEQ_MAX_PBUFS 256
#define LWIP_TCP_SACK_OUT 1
#define LWIP_TCP_MAX_SACK_NUM 3
#define LWIP_TCP_TIMESTAMPS 0
#define TCP_LISTEN_BACKLOG 0
#define LWIP_TCP_KEEPALIVE 0
#define SO_REUSE 0
/* lwIP's clock: it counts round trips and retransmissions in these. With its
 * own 500 ms a segment that the app's kernel dropped, as Linux does when a
 * receive buffer shrinks, took 1 s to be repeated; a direct route takes 0.2 s.
 * Now 0.2 to 0.3 s: not sooner, since an app may delay its ACK by 0.2 s. */
#define TCP_SLOW_INTERVAL 100
/* RFC 6298: one second to start with (lwIP's own 3 s is RFC 1122's). */
#define LWIP_TCP_RTO_TIME 1000
/* LAST_ACK ends after two of these, with data still queued: stays long. */
#define TCP_MSL 60000UL
/* Ours to drive, per flow. */
#define tcp_timer_needed netstack_lwip_tcp_timer_needed

/* The kernel, or tun_writer.cc, makes checksums; packet.cc checks them. */
#define CHECKSUM_GEN_TCP 0
#define CHECKSUM_CHECK_TCP 0
#define LWIP_CHECKSUM_ON_COPY 0

/* RFC 6528. */
#define LWIP_HOOK_FILENAME "hooks.h"
#define LWIP_HOOK_TCP_ISN netstack_lwip_isn

/* u32 comparison of seq numbers and struct packing as in cc.h. */
#define LWIP_COMPAT_SOCKETS 0

#endif /* CORE_LWIP_PORT_LWIPOPTS_H_ */

/* The utun of a packet tunnel provider. */
#ifndef CLIENTS_APPLE_SOURCES_NETSTACKUTUN_INCLUDE_NETSTACK_UTUN_H_
#define CLIENTS_APPLE_SOURCES_NETSTACKUTUN_INCLUDE_NETSTACK_UTUN_H_

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The descriptor of the utun that NetworkExtension made for this process, or
 * -1. There is no call that tells it; it is found among the process' own
 * descriptors as the one that is connected to the kernel's utun control. Call
 * it after setTunnelNetworkSettings() has succeeded. The descriptor stays
 * NetworkExtension's: dup(2) it for whoever closes what it is given.
 */
int netstack_utun_descriptor(void);

#ifdef __cplusplus
}
#endif

#endif /* CLIENTS_APPLE_SOURCES_NETSTACKUTUN_INCLUDE_NETSTACK_UTUN_H_ */

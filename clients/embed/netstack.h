/* netstackd as a library: the whole service in an app's own process, for
 * platforms that have no background services of one's own (an iOS extension)
 * or no descriptor for their TUN.
 *
 *   netstack_options options;
 *   netstack_options_init(&options);
 *   options.socket_path = "/data/data/org.example.vpn/run/n.sock";
 *   options.write_packet = to_the_apps;      // or options.tun_fd = fd
 *   options.protect = protect_with_the_os;
 *   netstack_service *n = NULL;
 *   char why[256];
 *   if (netstack_start(&options, &n, why, sizeof why) != NETSTACK_OK) ...
 *   netstack_input(n, packet, size);          // for each packet of the apps
 *   netstack_stop(n);
 *
 * Everything else (stats, flows, config, events) is gRPC over the socket, as
 * with the program; proto/netstack/v1 describes it.
 *
 * One netstack per process at a time; after netstack_stop() another may be
 * started. All functions may be called on any thread, but for
 * netstack_stop(), which nothing else may run beside or follow. They never
 * throw, and never call exit().
 */
#ifndef CLIENTS_EMBED_NETSTACK_H_
#define CLIENTS_EMBED_NETSTACK_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define NETSTACK_API __attribute__((visibility("default")))
#else
#define NETSTACK_API
#endif

typedef struct netstack_service netstack_service;

typedef enum {
  NETSTACK_OK = 0,
  NETSTACK_INVALID = 1, /* an option or the config; the text says which */
  NETSTACK_BUSY = 2,    /* another one runs in this process */
  NETSTACK_REFUSED = 3, /* the socket or the TUN cannot be had */
} netstack_result;

typedef struct {
  /* sizeof(netstack_options), set by netstack_options_init(): how a newer
   * library knows an older app. */
  size_t size;

  /* Where the control socket is made: at most 104 bytes, in a directory that
   * is ours alone (0700; its last part is made). Required. */
  const char *socket_path;

  /* A netstack.v1.Config as JSON (begins with '{') or textproto. NULL: all
   * defaults. Not kept. */
  const char *config;

  /* The TUN, if there is a descriptor: the library owns it from a successful
   * netstack_start() on. -1: none. */
  int tun_fd;

  /* Largest IP packet in bytes, 1280-65535. 0: the device's own, else the
   * config's. */
  uint32_t mtu;

  /* Given to the callbacks. */
  void *context;

  /* Instead of a descriptor: called with each IP packet to the apps, on the
   * library's loop thread. The bytes are the library's again when it returns.
   * 0: taken; else an errno: the packet is dropped and counted. Must not wait,
   * and must not call this library. NULL: none. */
  int (*write_packet)(void *context, const uint8_t *packet, size_t size);

  /* Called with every socket before it is connected, on the loop thread, to
   * keep it out of the VPN (VpnService.protect, IP_BOUND_IF). 0: protected;
   * else the connection fails: there is never an unprotected one. Must be
   * quick, and must not close the descriptor. NULL: nobody is asked. */
  int (*protect)(void *context, int fd);
} netstack_options;

/* Fills in the defaults: no TUN, no callbacks. */
NETSTACK_API void netstack_options_init(netstack_options *options);

/* Starts the service, and with tun_fd or write_packet also its stack; without
 * either, Start over gRPC does. Returns when packets are taken. On failure
 * *out is NULL, nothing is left behind, tun_fd is still the caller's unless
 * the stack had it already, and `why` (may be NULL) has a sentence of at most
 * `why_size` - 1 bytes. */
NETSTACK_API netstack_result netstack_start(const netstack_options *options,
                                            netstack_service **out,
                                            char *why, size_t why_size);

/* One IP packet of an app. 0; EAGAIN: the library has not caught up, the
 * packet is still the caller's to keep or to drop; another errno: it is not
 * taken (EINVAL: no write_packet was given). Never waits. */
NETSTACK_API int netstack_input(netstack_service *n, const void *packet,
                                size_t size);

/* Resets every flow, closes every socket and the TUN, removes the control
 * socket and ends every thread but gRPC's own. No callback comes any more
 * when it returns. NULL is nothing to do. */
NETSTACK_API void netstack_stop(netstack_service *n);

/* "0.1.0" */
NETSTACK_API const char *netstack_version(void);

#ifdef __cplusplus
}
#endif

#endif /* CLIENTS_EMBED_NETSTACK_H_ */

/* The service as a C library, used from C: packets in and out by callback,
 * sockets protected by callback, and started and stopped 1,000 times.
 *
 *   embed_test FOLDER [TIMES]
 *
 * Runs in namespaces of its own without any network, so that every connection
 * is answered at once: there is no route.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "netstack.h"

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, \
              #condition, why);                                       \
      exit(1);                                                        \
    }                                                                 \
  } while (0)

static char why[256];

struct app {
  atomic_int packets; /* that came out */
  atomic_int icmp;    /* of these */
  atomic_int protects;
  int refuse;
};

static int WritePacket(void *context, const uint8_t *packet, size_t size) {
  struct app *app = context;
  atomic_fetch_add(&app->packets, 1);
  if (size > 20 && packet[9] == 1) atomic_fetch_add(&app->icmp, 1);
  return 0;
}

static int Protect(void *context, int fd) {
  struct app *app = context;
  atomic_fetch_add(&app->protects, 1);
  return fd < 0 || app->refuse;
}

static uint16_t Sum(const uint8_t *bytes, size_t size, uint32_t sum) {
  for (size_t i = 0; i + 1 < size; i += 2) {
    sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
  }
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)~sum;
}

/* A SYN from 10.0.0.2 to 192.0.2.1:80. */
static void MakeSyn(uint8_t packet[40], uint16_t port) {
  static const uint8_t kHeader[20] = {0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6,
                                      0,    0, 10, 0, 0, 2, 192,  0, 2,  1};
  memset(packet, 0, 40);
  memcpy(packet, kHeader, sizeof kHeader);
  const uint16_t ip = Sum(packet, 20, 0);
  packet[10] = (uint8_t)(ip >> 8);
  packet[11] = (uint8_t)ip;
  packet[20] = (uint8_t)(port >> 8);
  packet[21] = (uint8_t)port;
  packet[23] = 80;
  packet[27] = 1;    /* sequence number */
  packet[32] = 0x50; /* 20 bytes of header */
  packet[33] = 0x02; /* SYN */
  packet[34] = 0x40; /* window */
  /* The pseudo-header: addresses, protocol, length. */
  uint32_t pseudo = 6 + 20;
  for (int i = 12; i < 20; i += 2) {
    pseudo += (uint32_t)(packet[i] << 8 | packet[i + 1]);
  }
  const uint16_t tcp = Sum(packet + 20, 20, pseudo);
  packet[36] = (uint8_t)(tcp >> 8);
  packet[37] = (uint8_t)tcp;
}

static int Becomes(atomic_int *what, int wanted) {
  const struct timespec pause = {0, 1000 * 1000};
  for (int i = 0; i < 10000; ++i) {
    if (atomic_load(what) >= wanted) return 1;
    nanosleep(&pause, NULL);
  }
  return 0;
}

static int CountDescriptors(void) {
  DIR *dir = opendir("/proc/self/fd");
  int n = 0;
  while (readdir(dir) != NULL) ++n;
  closedir(dir);
  return n;
}

static long AnonymousKiB(void) {
  FILE *file = fopen("/proc/self/status", "r");
  char line[256];
  long kib = 0;
  while (fgets(line, sizeof line, file) != NULL) {
    if (sscanf(line, "RssAnon: %ld", &kib) == 1) break;
  }
  fclose(file);
  return kib;
}

/* What malloc() has given out and not got back. The process' size says less:
 * every thread leaves an arena with holes. */
static long HeapKiB(void) { return (long)(mallinfo2().uordblks / 1024); }

static void TestOptions(netstack_options options, const char *path) {
  netstack_service *n = NULL;
  netstack_options bad = options;
  bad.size = 3;
  CHECK(netstack_start(&bad, &n, why, sizeof why) == NETSTACK_INVALID);
  bad = options;
  bad.socket_path = NULL;
  CHECK(netstack_start(&bad, &n, why, sizeof why) == NETSTACK_INVALID);
  bad = options;
  bad.tun_fd = 0;
  CHECK(netstack_start(&bad, &n, NULL, 0) == NETSTACK_INVALID);
  bad = options;
  bad.config = "tun { mtu: 1 }";
  CHECK(netstack_start(&bad, &n, why, sizeof why) == NETSTACK_INVALID);
  CHECK(strstr(why, "tun.mtu") != NULL);
  bad = options;
  bad.socket_path = "/proc/nowhere/n.sock";
  CHECK(netstack_start(&bad, &n, why, sizeof why) != NETSTACK_OK);
  CHECK(n == NULL);
  bad = options;
  bad.write_packet = NULL;
  bad.tun_fd = dup(0); /* no TUN */
  CHECK(netstack_start(&bad, &n, why, sizeof why) != NETSTACK_OK);
  CHECK(access(path, F_OK) != 0); /* nothing is left behind */
  netstack_stop(NULL);
}

static void TestTraffic(netstack_options options, struct app *app) {
  netstack_service *n = NULL;
  netstack_service *second = NULL;
  uint8_t syn[40];
  CHECK(netstack_start(&options, &n, why, sizeof why) == NETSTACK_OK);
  CHECK(netstack_start(&options, &second, why, sizeof why) == NETSTACK_BUSY);
  CHECK(second == NULL);
  CHECK(netstack_input(n, syn, 0) == EINVAL);
  for (uint16_t i = 1; i <= 20; ++i) {
    MakeSyn(syn, (uint16_t)(1000 + i));
    CHECK(netstack_input(n, syn, sizeof syn) == 0);
  }
  /* No route: an ICMP error for each; and each socket was protected. */
  CHECK(Becomes(&app->icmp, 20));
  CHECK(atomic_load(&app->protects) == 20);
  /* What cannot be protected is never connected: RST and not ICMP. */
  app->refuse = 1;
  const int before = atomic_load(&app->packets);
  MakeSyn(syn, 2000);
  CHECK(netstack_input(n, syn, sizeof syn) == 0);
  CHECK(Becomes(&app->packets, before + 1));
  CHECK(atomic_load(&app->icmp) == 20);
  app->refuse = 0;
  /* More than the pipe holds is refused, and nothing breaks. */
  int full = 0;
  for (int i = 0; i < 200000; ++i) {
    MakeSyn(syn, (uint16_t)(3000 + i % 50000));
    const int error = netstack_input(n, syn, sizeof syn);
    CHECK(error == 0 || error == EAGAIN);
    full += error == EAGAIN;
  }
  printf("input: 200000 SYNs, %d found the pipe full\n", full);
  netstack_stop(n);
}

static void *Feed(void *n) {
  uint8_t syn[40];
  for (int i = 0; i < 200; ++i) {
    MakeSyn(syn, (uint16_t)(1000 + i));
    (void)netstack_input(n, syn, sizeof syn);
  }
  return NULL;
}

static void TestStartAndStop(netstack_options options, int times) {
  int descriptors = 0;
  long memory = 0;
  long heap = 0;
  struct timespec begin, end;
  for (int i = 0; i < times; ++i) {
    netstack_service *n = NULL;
    if (i == 50) { /* gRPC and the allocator have taken what they keep */
      descriptors = CountDescriptors();
      memory = AnonymousKiB();
      heap = HeapKiB();
      clock_gettime(CLOCK_MONOTONIC, &begin);
    }
    CHECK(netstack_start(&options, &n, why, sizeof why) == NETSTACK_OK);
    if (i % 10 == 0) { /* with flows under way, from another thread */
      pthread_t thread;
      CHECK(pthread_create(&thread, NULL, Feed, n) == 0);
      CHECK(pthread_join(thread, NULL) == 0);
    }
    netstack_stop(n);
  }
  if (times <= 50) return;
  clock_gettime(CLOCK_MONOTONIC, &end);
  const long grown = HeapKiB() - heap;
  printf("%d starts and stops: descriptors %d -> %d, heap %+ld KiB, memory "
         "%+ld KiB, %.1f ms each\n",
         times, descriptors, CountDescriptors(), grown,
         AnonymousKiB() - memory,
         ((double)(end.tv_sec - begin.tv_sec) * 1e3 +
          (double)(end.tv_nsec - begin.tv_nsec) / 1e6) /
             (times - 50));
  CHECK(CountDescriptors() <= descriptors);
#ifndef NETSTACK_SANITIZED /* which keeps freed memory */
  CHECK(grown < 64);
#endif
}

int main(int argc, char **argv) {
  struct app app = {0};
  char path[256];
  netstack_options options;
  if (argc < 2) return 2;
  /* The user namespace only where it is needed. */
  if (unshare(CLONE_NEWNET) != 0 &&
      unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) {
    perror("unshare");
    return 1;
  }
  snprintf(path, sizeof path, "%s/embed-%d/n.sock", argv[1], (int)getpid());
  netstack_options_init(&options);
  options.socket_path = path;
  options.write_packet = WritePacket;
  options.protect = Protect;
  options.context = &app;
  options.config = "limits { icmp_errors_per_second: 100000 "
                   "icmp_error_burst: 100000 }";
  CHECK(netstack_version()[0] != '\0');
  TestOptions(options, path);
  TestTraffic(options, &app);
  TestStartAndStop(options, argc > 2 ? atoi(argv[2]) : 1000);
  printf("well\n");
  return 0;
}

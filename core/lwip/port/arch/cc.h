/* The compiler and the machine, for lwIP. */
#ifndef CORE_LWIP_PORT_ARCH_CC_H_
#define CORE_LWIP_PORT_ARCH_CC_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Counts, poisons the flow at hand and returns; aborts in test builds. */
void netstack_lwip_assert_failed(const char* message);

void* netstack_lwip_malloc(size_t size);
void* netstack_lwip_calloc(size_t count, size_t size);
void netstack_lwip_free(void* p);

#ifdef __cplusplus
}
#endif

#define LWIP_PLATFORM_DIAG(x)
#define LWIP_PLATFORM_ASSERT(message) netstack_lwip_assert_failed(message)

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define BYTE_ORDER BIG_ENDIAN
#else
#ifndef BYTE_ORDER
#define BYTE_ORDER LITTLE_ENDIAN
#endif
#endif

#endif /* CORE_LWIP_PORT_ARCH_CC_H_ */

// Which sanitizer this build has, as gcc and clang each tell it:
// NETSTACK_ASAN and NETSTACK_TSAN are defined or not.
#ifndef CORE_BASE_SANITIZERS_H_
#define CORE_BASE_SANITIZERS_H_

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NETSTACK_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define NETSTACK_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(NETSTACK_ASAN)
#define NETSTACK_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) && !defined(NETSTACK_TSAN)
#define NETSTACK_TSAN 1
#endif

#endif  // CORE_BASE_SANITIZERS_H_

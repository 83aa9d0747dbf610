// What every fuzz target uses.
#ifndef TESTS_FUZZ_FUZZ_CHECK_H_
#define TESTS_FUZZ_FUZZ_CHECK_H_

#include <cstdio>
#include <cstdlib>

// Ends the process with the broken property's text: libFuzzer then keeps the
// input, and the replay test is red. In release builds too.
#define FUZZ_CHECK(condition)                                            \
  do {                                                                   \
    if (!(condition)) {                                                  \
      std::fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__,    \
                   #condition);                                          \
      std::abort();                                                      \
    }                                                                    \
  } while (false)

#endif  // TESTS_FUZZ_FUZZ_CHECK_H_

// Broken on purpose: says std::string and does not include <string>. The
// test structure/header_check_self_test wants the compiler to object.
#ifndef TESTS_STRUCTURE_NOT_SELF_CONTAINED_H_
#define TESTS_STRUCTURE_NOT_SELF_CONTAINED_H_

struct NotSelfContained {
  std::string text;
};

#endif  // TESTS_STRUCTURE_NOT_SELF_CONTAINED_H_

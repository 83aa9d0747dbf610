// What all parts of a configuration are checked with.
#ifndef CORE_ENGINE_CONFIG_CHECKER_H_
#define CORE_ENGINE_CONFIG_CHECKER_H_

#include <cctype>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "core/base/time.h"
#include "core/engine/config.h"

namespace netstack {

inline constexpr size_t kMaxInterfaceName = 15;  // IFNAMSIZ - 1

// Rules that a kernel has for names of network interfaces, and no "%", which
// Linux would replace by a number of its choice.
inline bool IsInterfaceName(absl::string_view name) {
  if (name.empty() || name.size() > kMaxInterfaceName) return false;
  if (name == "." || name == "..") return false;
  for (char c : name) {
    const auto u = static_cast<unsigned char>(c);
    if (!std::isgraph(u) || c == '/' || c == ':' || c == '%') return false;
  }
  return true;
}

// Collects problems; every method adds at most one.
class ConfigChecker {
 public:
  void Fail(absl::string_view field, std::string problem) {
    problems_.push_back({std::string(field), std::move(problem)});
  }

  void Range(absl::string_view field, uint64_t value, uint64_t min,
             uint64_t max) {
    if (value >= min && value <= max) return;
    Fail(field,
         absl::StrCat(value, " is not between ", min, " and ", max, "."));
  }

  void RangeOrZero(absl::string_view field, uint64_t value, uint64_t min,
                   uint64_t max) {
    if (value == 0 || (value >= min && value <= max)) return;
    Fail(field, absl::StrCat(value, " is neither 0 nor between ", min, " and ",
                             max, "."));
  }

  void Time(absl::string_view field, Duration value, Duration min,
            Duration max) {
    if (value >= min && value <= max) return;
    Fail(field, absl::StrCat(Text(value), " is not between ", Text(min),
                             " and ", Text(max), "."));
  }

  void Name(absl::string_view field, absl::string_view name) {
    if (IsInterfaceName(name)) return;
    Fail(field, absl::StrCat("not an interface name: 1 to ", kMaxInterfaceName,
                             " printable characters without space, \"/\", "
                             "\":\" and \"%\" are."));
  }

  std::vector<ConfigProblem> Take() { return std::move(problems_); }

 private:
  static std::string Text(Duration d) {
    return absl::StrCat(std::chrono::duration<double>(d).count(), " s");
  }

  std::vector<ConfigProblem> problems_;
};

}  // namespace netstack

#endif  // CORE_ENGINE_CONFIG_CHECKER_H_

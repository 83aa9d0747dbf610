// Names as a configuration may have them.
#ifndef CORE_ENGINE_DNS_NAMES_H_
#define CORE_ENGINE_DNS_NAMES_H_

#include "absl/strings/ascii.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace netstack {

// Labels of 1-63 letters, digits, '-' and '_' (and '*' where `wildcards`),
// 253 bytes in all (RFC 1035, 2.3.4); one dot at the end does no harm.
inline bool IsNameOf(absl::string_view text, bool wildcards) {
  absl::ConsumeSuffix(&text, ".");
  if (text.empty() || text.size() > 253) return false;
  size_t label = 0;
  for (char c : text) {
    if (c == '.') {
      if (label == 0) return false;
      label = 0;
      continue;
    }
    const bool good = absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                      c == '-' || c == '_' || (wildcards && c == '*');
    if (!good || ++label > 63) return false;
  }
  return label != 0;
}

inline bool IsHostName(absl::string_view text) { return IsNameOf(text, false); }

// The forms of DnsRule.domains.
inline bool IsDomainPattern(absl::string_view text) {
  absl::ConsumePrefix(&text, ".");
  return IsNameOf(text, true);
}

}  // namespace netstack

#endif  // CORE_ENGINE_DNS_NAMES_H_

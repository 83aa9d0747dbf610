// The text of blocklists: the first line is a name to look up, the rest a list.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "core/dns/blocklist.h"
#include "tests/fuzz/fuzz_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace netstack;       // NOLINT: a whole program
  using namespace netstack::dns;  // NOLINT
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::string line = text.substr(0, text.find('\n'));

  const auto build = [&](const std::string& list, ListReport* report) {
    BlocklistBuilder builder(SipHashKey{1, 2}, {});
    *report = builder.Add("x", list);
    return std::move(builder).Build();
  };
  ListReport report;
  const std::shared_ptr<const Blocklist> list = build(text, &report);
  FUZZ_CHECK(list->size() <= report.names + report.exceptions);
  FUZZ_CHECK((report.first_refused_line == 0) ==
             (report.refused_in_all() == 0));
  FUZZ_CHECK(report.first_refused_line <= report.lines);
  FUZZ_CHECK(report.blank <= report.lines);

  const auto name = DnsName::FromText(line);
  if (!name) return 0;
  const auto match = list->Find(*name);
  FUZZ_CHECK(!match || match->labels <= name->LabelCount());
  // Twice the same list changes nothing.
  ListReport twice;
  const auto doubled = build(text + "\n" + text, &twice);
  FUZZ_CHECK(doubled->size() == list->size());
  FUZZ_CHECK(doubled->Find(*name).has_value() == match.has_value());
  // An Adblock rule for the name blocks it, if it is a host name at all,
  // unless an exception had been met.
  ListReport one;
  const auto alone = build("||" + name->ToString() + "^\n", &one);
  FUZZ_CHECK(one.names == 0 || alone->Find(*name).has_value());
  FUZZ_CHECK(one.names + one.refused_in_all() == 1);
  return 0;
}

#include "core/engine/dns_lists.h"

#include <fstream>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace netstack {
namespace {

// The largest file that is read; a list of five million names has 100 MB.
constexpr std::streamoff kMaxFile = std::streamoff{512} << 20;

std::string NameOf(const DnsBlocklistConfig& config) {
  if (!config.name.empty()) return config.name;
  return config.file.substr(config.file.rfind('/') + 1);
}

absl::Status Refused(const DnsBlocklistConfig& config, const char* why) {
  return absl::FailedPreconditionError(absl::StrCat(
      "the blocklist ", NameOf(config), " (", config.file, ") ", why));
}

// The whole file; the status says why not.
absl::Status Read(const DnsBlocklistConfig& config, std::string& out) {
  std::ifstream file(config.file, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? std::streamoff{file.tellg()} : -1;
  if (size < 0) return Refused(config, "cannot be read.");
  if (size > kMaxFile) return Refused(config, "is larger than 512 MiB.");
  out.resize(static_cast<size_t>(size));
  file.seekg(0);
  file.read(out.data(), size);
  // Shorter, when somebody wrote it meanwhile.
  if (file.gcount() != size) return Refused(config, "changes as it is read.");
  return absl::OkStatus();
}

}  // namespace

DnsLists LoadDnsLists(const std::vector<DnsBlocklistConfig>& configs,
                      const SipHashKey& key) {
  DnsLists out;
  dns::BlocklistBuilder builder(key, {});
  std::string text;
  for (const DnsBlocklistConfig& config : configs) {
    if (absl::Status read = Read(config, text); !read.ok()) {
      if (out.problem.ok()) out.problem = std::move(read);
      continue;
    }
    const std::string name = NameOf(config);
    const dns::ListReport report = builder.Add(name, text);
    out.infos.push_back({name, config.file, report.names, report.exceptions,
                         report.refused_in_all()});
  }
  text.clear();
  text.shrink_to_fit();
  if (!out.infos.empty()) out.list = std::move(builder).Build();
  return out;
}

}  // namespace netstack

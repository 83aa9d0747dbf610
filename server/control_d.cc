#include "server/control_d.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "spdlog/spdlog.h"

namespace netstack::server {
namespace {

constexpr char kGroup[] = "control-d";
constexpr std::chrono::seconds kFetchTimeout{20};
// Of a fetch that somebody waits for.
constexpr std::chrono::seconds kPinTimeout{5};
// After a failure while nothing is known.
constexpr std::chrono::seconds kRetry{5};

// Hosts whose addresses are known, so that no look-up in the clear is needed.
struct KnownHost {
  const char* host;
  const char* v4;
  const char* v6;
};
constexpr std::array<KnownHost, 3> kKnownHosts = {{
    {"api.controld.com", "147.185.34.1", "2606:1a40:3::1"},
    {"dns.controld.com", "76.76.2.22", "2606:1a40::22"},
    {"freedns.controld.com", "76.76.2.11", "2606:1a40::11"},
}};

std::string HostOf(absl::string_view url) {
  absl::string_view rest = url.substr(url.find("//") + 2);
  return std::string(rest.substr(0, rest.find_first_of("/:")));
}

std::vector<IpAddress> AddressesOf(absl::string_view url) {
  for (const KnownHost& known : kKnownHosts) {
    if (HostOf(url) == known.host) {
      return {*IpAddress::Parse(known.v4), *IpAddress::Parse(known.v6)};
    }
  }
  return {};
}

// Whole, or not at all; for the owner only.
absl::Status WriteFile(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".new";
  const int fd =
      open(temporary.c_str(),
           O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return absl::ErrnoToStatus(errno, temporary);
  const bool written = fchmod(fd, 0600) == 0 &&
                       write(fd, text.data(), text.size()) ==
                           static_cast<ssize_t>(text.size()) &&
                       fsync(fd) == 0;
  close(fd);
  if (!written || rename(temporary.c_str(), path.c_str()) != 0) {
    const absl::Status status = absl::ErrnoToStatus(errno, path);
    unlink(temporary.c_str());
    return status;
  }
  return absl::OkStatus();
}

std::optional<ControlDResolver> ReadState(const std::string& path) {
  if (path.empty()) return std::nullopt;
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  return FromStateText(text);
}

// The uid to ask for; empty: provision first.
std::string UidOf(const ControlDConfig& config,
                  const std::optional<ControlDResolver>& known) {
  if (!config.resolver_id.empty()) return config.resolver_id;
  return known ? known->uid : "";
}

void Header(const char* name, const std::string& value,
            DnsUpstreamConfig& upstream) {
  if (!value.empty()) upstream.http_headers.emplace_back(name, value);
}

}  // namespace

ControlD::ControlD(ControlDSockets sockets, std::function<void()> changed,
                   EventLog* events)
    : sockets_({std::move(sockets.open), std::move(sockets.close),
                [this] { return stopping_.load(); }}),
      changed_(std::move(changed)),
      events_(events),
      worker_("control-d") {}

ControlD::~ControlD() { Stop(); }

void ControlD::Stop() {
  stopping_ = true;
  worker_.Stop();
}

void ControlD::Begin(const ControlDConfig& config) {
  std::optional<ControlDResolver> kept = ReadState(config.state_file);
  MutexLock lock(mu_);
  // What another configuration led to is no use.
  const std::string wanted =
      config.resolver_id.substr(0, config.resolver_id.find('/'));
  if (kept && !wanted.empty() && kept->uid != wanted) kept.reset();
  if (!kept && known_ && config == config_) kept = known_;
  config_ = config;
  known_ = config.enabled() ? std::move(kept) : std::nullopt;
  failing_ = gone_ = false;
  active_ = config.enabled();
  ++run_;
}

void ControlD::End() {
  MutexLock lock(mu_);
  ++run_;
  active_ = false;
}

void ControlD::Running() {
  uint64_t run = 0;
  {
    MutexLock lock(mu_);
    if (!config_.enabled()) return;
    run = run_;
  }
  worker_.Post([this, run] { FetchForEver(run); });
}

void ControlD::FetchForEver(uint64_t run) {
  const Duration again = Fetch(run, kFetchTimeout);
  if (again == Duration::zero()) return;
  worker_.After(again, [this, run] { FetchForEver(run); });
}

Duration ControlD::Fetch(uint64_t run, std::chrono::milliseconds timeout) {
  ControlDConfig config;
  std::optional<ControlDResolver> known;
  {
    MutexLock lock(mu_);
    if (run != run_) return Duration::zero();
    config = config_;
    known = known_;
  }
  const std::vector<IpAddress> addresses = config.api_addresses.empty()
                                               ? AddressesOf(config.api_url)
                                               : config.api_addresses;
  const auto fetched =
      FetchResolver(config, UidOf(config, known), addresses, sockets_, timeout);
  bool tell = false;
  {
    MutexLock lock(mu_);
    if (run != run_) return Duration::zero();
    if (fetched.ok()) {
      tell = known_ != *fetched;
      known_ = *fetched;
      failing_ = gone_ = false;
    } else {
      bool& told = IsDeviceGone(fetched.status()) ? gone_ : failing_;
      tell = !std::exchange(told, true);
    }
  }
  if (fetched.ok()) {
    if (!tell) return config.refetch_interval;
    Keep(config, *fetched);
    events_->Add(
        v1::EVENT_TYPE_CONTROL_D_PROVISIONED,
        absl::StrCat("Control D's resolver is in use",
                     fetched->pin ? ", with a deactivation PIN." : "."));
    changed_();
    return config.refetch_interval;
  }
  const Duration again = known ? std::min<Duration>(config.refetch_interval,
                                                    std::chrono::minutes(1))
                               : Duration(kRetry);
  if (!tell) return again;
  events_->Add(IsDeviceGone(fetched.status()) ? v1::EVENT_TYPE_DEVICE_GONE
                                              : v1::EVENT_TYPE_CONTROL_D_FAILED,
               std::string(fetched.status().message()));
  return again;
}

void ControlD::Keep(const ControlDConfig& config,
                    const ControlDResolver& resolver) {
  if (config.state_file.empty()) return;
  const absl::Status kept = WriteFile(config.state_file, ToStateText(resolver));
  if (!kept.ok()) {
    spdlog::warn("Control D's answer is not kept: {}",
                 std::string(kept.message()));
  }
}

void ControlD::Apply(DnsConfig& dns) const {
  MutexLock lock(mu_);
  if (!config_.enabled()) return;
  if (!known_) {
    DnsRuleConfig rule;
    rule.name = "control-d: no answer of the API yet";
    rule.domains = {"*"};
    rule.block_answer = DnsBlockAnswer::kRefused;
    dns.rules.insert(dns.rules.begin(), std::move(rule));
    return;
  }
  DnsGroupConfig group;
  group.name = kGroup;
  DnsUpstreamConfig& upstream = group.upstreams.emplace_back();
  upstream.address = known_->doh;
  upstream.bootstrap = AddressesOf(known_->doh);
  upstream.shown = absl::StrCat("https://", HostOf(known_->doh), "/...");
  Header("x-cd-host", config_.client_host, upstream);
  Header("x-cd-ip", config_.client_ip, upstream);
  Header("x-cd-mac", config_.client_mac, upstream);
  Header("x-cd-os", config_.client_os, upstream);
  if (config_.client_id_preference != v1::CONTROL_D_CLIENT_ID_UNSPECIFIED) {
    // ctrld's numbers: 1 the MAC address, 2 the host's name.
    Header("x-cd-cpref", absl::StrCat(config_.client_id_preference), upstream);
  }
  std::erase_if(dns.groups,
                [](const DnsGroupConfig& g) { return g.name == kGroup; });
  dns.groups.push_back(std::move(group));
  dns.default_group = kGroup;
  if (known_->exclude.empty()) return;
  DnsRuleConfig& rule = dns.rules.emplace_back();
  rule.name = "control-d: excluded";
  rule.action = DnsRuleAction::kForward;
  for (const std::string& domain : known_->exclude) {
    rule.domains.push_back(absl::StartsWith(domain, "*.") ||
                                   absl::StartsWith(domain, ".")
                               ? domain
                               : "." + domain);
  }
}

void ControlD::WithPin(
    absl::AnyInvocable<void(std::optional<std::string>)> done) {
  uint64_t run = 0;
  {
    MutexLock lock(mu_);
    run = active_ ? run_ : 0;
  }
  if (run == 0) return done(std::nullopt);
  worker_.Post([this, run, done = std::move(done)]() mutable {
    (void)Fetch(run, kPinTimeout);
    std::optional<std::string> pin;
    {
      MutexLock lock(mu_);
      if (known_) pin = known_->pin;
    }
    done(std::move(pin));
  });
}

}  // namespace netstack::server

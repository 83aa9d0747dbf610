#include "server/control_d_config.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/engine/dns_config.h"
#include "server/config_convert.h"

namespace netstack::server {
namespace {

constexpr size_t kMaxAddresses = 8;
constexpr size_t kMaxSecret = 256;
constexpr size_t kMaxFact = 255;

// What ends up in a URL, a JSON text or an HTTP header.
bool IsPlain(const std::string& text) {
  for (char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (!absl::ascii_isgraph(u) || c == '"' || c == '\\') return false;
  }
  return true;
}

// 3-64 letters, digits and '-', not at its ends (RFC 1123, 2.1).
bool IsDeviceName(const std::string& name) {
  if (name.size() < 3 || name.size() > 64) return false;
  for (char c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-') {
      return false;
    }
  }
  return name.front() != '-' && name.back() != '-';
}

class Checker {
 public:
  explicit Checker(std::vector<ConfigProblem>& problems)
      : problems_(problems) {}

  void Fail(const char* field, std::string problem) {
    problems_.push_back(
        {absl::StrCat("control_d.", field), std::move(problem)});
  }
  void Plain(const char* field, const std::string& text, size_t most) {
    if (text.size() > most) {
      Fail(field, absl::StrCat("longer than ", most, " bytes."));
    } else if (!IsPlain(text)) {
      Fail(field, "holds characters that it cannot have.");
    }
  }
  void Path(const char* field, const std::string& path) {
    if (!path.empty() && path[0] != '/') Fail(field, "not an absolute path.");
  }

 private:
  std::vector<ConfigProblem>& problems_;
};

void Check(const ControlDConfig& c, std::vector<ConfigProblem>& problems) {
  Checker check(problems);
  check.Plain("resolver_id", c.resolver_id, kMaxSecret);
  check.Plain("provision_token", c.provision_token, kMaxSecret);
  if (!c.resolver_id.empty() && !c.provision_token.empty()) {
    check.Fail("provision_token", "not beside resolver_id.");
  }
  for (const char* field : {"resolver_id", "provision_token"}) {
    const std::string& secret =
        field[0] == 'r' ? c.resolver_id : c.provision_token;
    if (secret == kSecretIsSet) {
      check.Fail(field, "stands for a secret that is set, but none is.");
    }
  }
  if (!c.hostname.empty() && !IsDeviceName(c.hostname)) {
    check.Fail("hostname",
               absl::StrCat("\"", c.hostname,
                            "\" is not 3 to 64 letters, digits and \"-\"."));
  }
  const ParsedDnsAddress url = ParseDnsAddress(c.api_url);
  if (!url.problem.empty() ||
      url.address.transport != DnsUpstreamTransport::kDoh) {
    check.Fail("api_url",
               absl::StrCat("\"", c.api_url, "\" is not an https URL."));
  }
  const absl::string_view host = absl::string_view(c.api_url).substr(
      std::min<size_t>(c.api_url.size(), 8));
  const absl::string_view authority = host.substr(0, host.find_first_of("/:"));
  if (url.problem.empty() && c.enabled() && c.api_addresses.empty() &&
      authority != "api.controld.com" && !IpAddress::Parse(authority)) {
    // Looking it up in the clear, or through ourselves, is no good.
    check.Fail("api_addresses", "needed for an API at another host.");
  }
  if (c.api_addresses.size() > kMaxAddresses) {
    check.Fail("api_addresses",
               absl::StrCat("more than ", kMaxAddresses, " addresses."));
  }
  check.Path("ca_file", c.ca_file);
  check.Path("state_file", c.state_file);
  if (c.refetch_interval < std::chrono::minutes(1) ||
      c.refetch_interval > std::chrono::hours(24 * 7)) {
    check.Fail("refetch_interval", "not between 60 s and 604800 s.");
  }
  check.Plain("client_host", c.client_host, kMaxFact);
  check.Plain("client_ip", c.client_ip, kMaxFact);
  check.Plain("client_mac", c.client_mac, kMaxFact);
  check.Plain("client_os", c.client_os, kMaxFact);
  if (!v1::ControlDClientId_IsValid(c.client_id_preference)) {
    check.Fail("client_id_preference", "not a known value.");
  }
}

std::string Hidden(const std::string& secret) {
  return secret.empty() ? "" : kSecretIsSet;
}

}  // namespace

void ReadControlD(const v1::ControlDConfig& in, ControlDConfig& out,
                  std::vector<ConfigProblem>& problems) {
  out.resolver_id = in.resolver_id();
  out.provision_token = in.provision_token();
  out.hostname = in.hostname();
  if (in.has_api_url()) out.api_url = in.api_url();
  for (int i = 0; i < in.api_addresses_size(); ++i) {
    if (const auto ip = IpAddress::Parse(in.api_addresses(i))) {
      out.api_addresses.push_back(*ip);
    } else {
      problems.push_back(
          {absl::StrCat("control_d.api_addresses[", i, "]"),
           absl::StrCat("\"", in.api_addresses(i), "\" is not an address.")});
    }
  }
  out.ca_file = in.ca_file();
  out.state_file = in.state_file();
  if (in.has_refetch_interval() &&
      !FromProto(in.refetch_interval(), &out.refetch_interval)) {
    problems.push_back({"control_d.refetch_interval", "not a valid duration."});
  }
  out.client_host = in.client_host();
  out.client_ip = in.client_ip();
  out.client_mac = in.client_mac();
  out.client_os = in.client_os();
  out.client_id_preference = in.client_id_preference();
  Check(out, problems);
}

void WriteControlD(const ControlDConfig& in, v1::ControlDConfig& out) {
  out.set_resolver_id(Hidden(in.resolver_id));
  out.set_provision_token(Hidden(in.provision_token));
  out.set_hostname(in.hostname);
  out.set_api_url(in.api_url);
  for (const IpAddress& ip : in.api_addresses) {
    out.add_api_addresses(ip.ToString());
  }
  out.set_ca_file(in.ca_file);
  out.set_state_file(in.state_file);
  ToProto(in.refetch_interval, out.mutable_refetch_interval());
  out.set_client_host(in.client_host);
  out.set_client_ip(in.client_ip);
  out.set_client_mac(in.client_mac);
  out.set_client_os(in.client_os);
  out.set_client_id_preference(in.client_id_preference);
}

v1::Config WithoutSecrets(v1::Config config) {
  if (!config.has_control_d()) return config;
  v1::ControlDConfig& c = *config.mutable_control_d();
  if (!c.resolver_id().empty()) c.set_resolver_id(kSecretIsSet);
  if (!c.provision_token().empty()) c.set_provision_token(kSecretIsSet);
  return config;
}

void KeepSecrets(const v1::Config& current, v1::Config& config) {
  if (!config.has_control_d()) return;
  const v1::ControlDConfig& from = current.control_d();
  v1::ControlDConfig& to = *config.mutable_control_d();
  if (to.resolver_id() == kSecretIsSet && !from.resolver_id().empty()) {
    to.set_resolver_id(from.resolver_id());
  }
  if (to.provision_token() == kSecretIsSet && !from.provision_token().empty()) {
    to.set_provision_token(from.provision_token());
  }
}

std::vector<std::string> ControlDDifference(const ControlDConfig& a,
                                            const ControlDConfig& b) {
  std::vector<std::string> out;
  const auto compare = [&out](const char* field, bool same) {
    if (!same) out.push_back(absl::StrCat("control_d.", field));
  };
  compare("resolver_id", a.resolver_id == b.resolver_id);
  compare("provision_token", a.provision_token == b.provision_token);
  compare("hostname", a.hostname == b.hostname);
  compare("api_url", a.api_url == b.api_url);
  compare("api_addresses", a.api_addresses == b.api_addresses);
  compare("ca_file", a.ca_file == b.ca_file);
  compare("state_file", a.state_file == b.state_file);
  compare("refetch_interval", a.refetch_interval == b.refetch_interval);
  compare("client_host", a.client_host == b.client_host);
  compare("client_ip", a.client_ip == b.client_ip);
  compare("client_mac", a.client_mac == b.client_mac);
  compare("client_os", a.client_os == b.client_os);
  compare("client_id_preference",
          a.client_id_preference == b.client_id_preference);
  return out;
}

}  // namespace netstack::server

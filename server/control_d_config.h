// netstack.v1.ControlDConfig, checked. Meaning and limits: config.proto.
#ifndef SERVER_CONTROL_D_CONFIG_H_
#define SERVER_CONTROL_D_CONFIG_H_

#include <chrono>
#include <string>
#include <vector>

#include "core/base/time.h"
#include "core/engine/config.h"
#include "core/wire/ip_address.h"
#include "netstack/v1/config.pb.h"

namespace netstack::server {

// What a set secret is told as, and what leaves one as it is.
inline constexpr char kSecretIsSet[] = "(set)";

struct ControlDConfig {
  std::string resolver_id;
  std::string provision_token;
  std::string hostname;
  std::string api_url = "https://api.controld.com";
  std::vector<IpAddress> api_addresses;
  std::string ca_file;
  std::string state_file;
  Duration refetch_interval = std::chrono::hours(1);
  std::string client_host;
  std::string client_ip;
  std::string client_mac;
  std::string client_os;
  v1::ControlDClientId client_id_preference =
      v1::CONTROL_D_CLIENT_ID_UNSPECIFIED;

  bool enabled() const {
    return !resolver_id.empty() || !provision_token.empty();
  }
  friend bool operator==(const ControlDConfig&,
                         const ControlDConfig&) = default;
};

// Appends what is wrong to `problems`.
void ReadControlD(const v1::ControlDConfig& in, ControlDConfig& out,
                  std::vector<ConfigProblem>& problems);
// Every default written out, secrets hidden.
void WriteControlD(const ControlDConfig& in, v1::ControlDConfig& out);

// `config` with its secrets told as kSecretIsSet.
v1::Config WithoutSecrets(v1::Config config);
// Secrets of `config` that are kSecretIsSet become those of `current`.
void KeepSecrets(const v1::Config& current, v1::Config& config);

// Paths of fields that differ, in the order of the proto.
std::vector<std::string> ControlDDifference(const ControlDConfig& a,
                                            const ControlDConfig& b);

}  // namespace netstack::server

#endif  // SERVER_CONTROL_D_CONFIG_H_

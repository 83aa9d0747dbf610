#include "server/control_d_api.h"

#include <curl/curl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/engine/dns_config.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"

namespace netstack::server {
namespace {

using google::protobuf::Struct;
using google::protobuf::Value;

constexpr size_t kMaxAnswer = 1024 * 1024;
constexpr size_t kMaxExcluded = 1000;
constexpr char kGonePayload[] = "netstack.v1/device-gone";

struct CurlDeleter {
  void operator()(CURL* curl) const { curl_easy_cleanup(curl); }
};
struct ListDeleter {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using List = std::unique_ptr<curl_slist, ListDeleter>;

void Append(List& list, const std::string& text) {
  curl_slist* more = curl_slist_append(list.get(), text.c_str());
  if (more == nullptr) return;
  (void)list.release();
  list.reset(more);
}

size_t TakeBytes(char* data, size_t size, size_t count, void* user) {
  auto* out = static_cast<std::string*>(user);
  if (out->size() + size * count > kMaxAnswer) return 0;  // ends the transfer
  out->append(data, size * count);
  return size * count;
}

curl_socket_t OpenSocket(void* user, curlsocktype, curl_sockaddr* address) {
  const auto* sockets = static_cast<const ControlDSockets*>(user);
  const int fd = sockets->open(address->family == AF_INET);
  return fd < 0 ? CURL_SOCKET_BAD : fd;
}

int CloseSocket(void* user, curl_socket_t fd) {
  static_cast<const ControlDSockets*>(user)->close(fd);
  return 0;
}

// libcurl asks at least once a second.
int GiveUp(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const ControlDSockets*>(user)->stopping() ? 1 : 0;
}

std::string Text(const Struct& s, const char* field) {
  const auto it = s.fields().find(field);
  return it == s.fields().end() ? "" : it->second.string_value();
}

const Struct& Part(const Struct& s, const char* field) {
  static const Struct empty;
  const auto it = s.fields().find(field);
  return it == s.fields().end() ? empty : it->second.struct_value();
}

// A PIN comes as a string or as a number; only the string can keep its zeros.
std::optional<std::string> Pin(const Struct& s) {
  const auto it = s.fields().find("deactivation_pin");
  if (it == s.fields().end()) return std::nullopt;
  if (it->second.kind_case() == Value::kStringValue) {
    if (it->second.string_value().empty()) return std::nullopt;
    return it->second.string_value();
  }
  if (it->second.kind_case() != Value::kNumberValue) return std::nullopt;
  const double number = it->second.number_value();
  // Not a PIN that anybody can name, but one all the same: closed, not open.
  if (!(number >= 0 && number < 1e15)) return absl::StrCat(number);
  return absl::StrCat(std::llround(number));
}

absl::Status Refused(const Struct& answer, long http) {
  const Struct& error = Part(answer, "error");
  const auto code = error.fields().find("code");
  // A number of JSON may be larger than any int.
  const int number = code == error.fields().end()
                         ? 0
                         : static_cast<int>(std::clamp(
                               code->second.number_value(), 0.0, 999'999.0));
  std::string message =
      absl::StrCat("Control D's API refuses (HTTP ", http,
                   number == 0 ? "" : absl::StrCat(", code ", number),
                   "): ", Text(error, "message"));
  if (number != kDeviceGoneCode) return absl::PermissionDeniedError(message);
  absl::Status gone = absl::NotFoundError(message);
  gone.SetPayload(kGonePayload, absl::Cord("1"));
  return gone;
}

absl::StatusOr<ControlDResolver> ReadAnswer(const std::string& json,
                                            long http) {
  Struct answer;
  const bool parsed =
      google::protobuf::util::JsonStringToMessage(json, &answer).ok();
  if (http != 200) {
    if (!parsed && http >= 500) {
      return absl::UnavailableError(
          absl::StrCat("Control D's API answers HTTP ", http, "."));
    }
    return Refused(answer, http);
  }
  const Struct& resolver = Part(Part(answer, "body"), "resolver");
  ControlDResolver out;
  out.uid = Text(resolver, "uid");
  out.doh = Text(resolver, "doh");
  out.pin = Pin(resolver);
  const auto excluded = resolver.fields().find("exclude");
  if (excluded != resolver.fields().end()) {
    for (const Value& v : excluded->second.list_value().values()) {
      if (out.exclude.size() == kMaxExcluded) break;
      if (!v.string_value().empty()) out.exclude.push_back(v.string_value());
    }
  }
  if (!parsed || out.uid.empty()) {
    return absl::InternalError("Control D's API gave no resolver.");
  }
  return out;
}

// Whether what came can be used as an upstream.
absl::Status CheckResolver(const ControlDResolver& resolver) {
  const ParsedDnsAddress url = ParseDnsAddress(resolver.doh);
  if (url.problem.empty() &&
      url.address.transport == DnsUpstreamTransport::kDoh) {
    return absl::OkStatus();
  }
  return absl::InternalError("Control D's API gave no DoH URL.");
}

void Set(Struct& s, const char* field, const std::string& value) {
  (*s.mutable_fields())[field].set_string_value(value);
}

std::string ToJson(const Struct& s) {
  std::string out;
  (void)google::protobuf::util::MessageToJsonString(s, &out);
  return out;
}

std::string HostName() {
  char name[65] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "netstackd";
}

// "host" and port of an https URL.
std::pair<std::string, std::string> HostAndPort(absl::string_view url) {
  absl::string_view rest = url.substr(url.find("//") + 2);
  rest = rest.substr(0, rest.find('/'));
  const size_t colon = rest.rfind(':');
  if (colon == absl::string_view::npos || absl::EndsWith(rest, "]")) {
    return {std::string(rest), "443"};
  }
  return {std::string(rest.substr(0, colon)),
          std::string(rest.substr(colon + 1))};
}

absl::StatusOr<ControlDResolver> Post(const ControlDConfig& config,
                                      const std::vector<IpAddress>& addresses,
                                      const ControlDSockets& sockets,
                                      std::chrono::milliseconds timeout,
                                      const std::string& body) {
  const std::unique_ptr<CURL, CurlDeleter> curl(curl_easy_init());
  if (curl == nullptr) return absl::ResourceExhaustedError("no memory");
  CURL* c = curl.get();
  const std::string url = absl::StrCat(
      config.api_url, "/utility?platform=ctrld&version=", NETSTACK_VERSION);
  std::string answer;
  char error[CURL_ERROR_SIZE] = {};
  List headers, resolve;
  Append(headers, "Content-Type: application/json");
  if (!addresses.empty()) {
    const auto [host, port] = HostAndPort(config.api_url);
    std::vector<std::string> texts;
    for (const IpAddress& ip : addresses) {
      texts.push_back(ip.IsV4() ? ip.ToString()
                                : absl::StrCat("[", ip.ToString(), "]"));
    }
    Append(resolve,
           absl::StrCat(host, ":", port, ":", absl::StrJoin(texts, ",")));
  }
  curl_easy_setopt(c, CURLOPT_URL, url.c_str());
  curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https");
  curl_easy_setopt(c, CURLOPT_PROXY, "");  // none of the environment's
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(c, CURLOPT_ERRORBUFFER, error);
  curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, static_cast<long>(timeout.count()));
  curl_easy_setopt(c, CURLOPT_POSTFIELDS, body.c_str());
  curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(c, CURLOPT_RESOLVE, resolve.get());
  curl_easy_setopt(c, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
  if (!config.ca_file.empty()) {
    curl_easy_setopt(c, CURLOPT_CAINFO, config.ca_file.c_str());
    curl_easy_setopt(c, CURLOPT_CAPATH, nullptr);
  }
  curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, &TakeBytes);
  curl_easy_setopt(c, CURLOPT_WRITEDATA, &answer);
  void* user = const_cast<ControlDSockets*>(&sockets);
  curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, &OpenSocket);
  curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, user);
  curl_easy_setopt(c, CURLOPT_CLOSESOCKETFUNCTION, &CloseSocket);
  curl_easy_setopt(c, CURLOPT_CLOSESOCKETDATA, user);
  curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, &GiveUp);
  curl_easy_setopt(c, CURLOPT_XFERINFODATA, user);
  const CURLcode result = curl_easy_perform(c);
  if (result != CURLE_OK) {
    return absl::UnavailableError(
        absl::StrCat("Control D's API cannot be asked: ",
                     error[0] != '\0' ? error : curl_easy_strerror(result)));
  }
  long http = 0;
  curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &http);
  return ReadAnswer(answer, http);
}

std::string UidBody(const std::string& uid) {
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(uid, absl::MaxSplits('/', 1));
  Struct body;
  Set(body, "uid", parts.first);
  if (!parts.second.empty()) Set(body, "client_id", parts.second);
  return ToJson(body);
}

}  // namespace

bool IsDeviceGone(const absl::Status& status) {
  return status.GetPayload(kGonePayload).has_value();
}

std::string ToStateText(const ControlDResolver& resolver) {
  Struct s;
  Set(s, "uid", resolver.uid);
  Set(s, "doh", resolver.doh);
  if (resolver.pin) Set(s, "deactivation_pin", *resolver.pin);
  auto* exclude = (*s.mutable_fields())["exclude"].mutable_list_value();
  for (const std::string& domain : resolver.exclude) {
    exclude->add_values()->set_string_value(domain);
  }
  return ToJson(s) + "\n";
}

std::optional<ControlDResolver> FromStateText(const std::string& text) {
  Struct s;
  if (!google::protobuf::util::JsonStringToMessage(text, &s).ok()) {
    return std::nullopt;
  }
  ControlDResolver out;
  out.uid = Text(s, "uid");
  out.doh = Text(s, "doh");
  out.pin = Pin(s);
  const auto exclude = s.fields().find("exclude");
  if (exclude != s.fields().end()) {
    for (const Value& v : exclude->second.list_value().values()) {
      out.exclude.push_back(v.string_value());
    }
  }
  if (out.uid.empty() || !CheckResolver(out).ok()) return std::nullopt;
  return out;
}

absl::StatusOr<ControlDResolver> FetchResolver(
    const ControlDConfig& config, const std::string& uid,
    const std::vector<IpAddress>& addresses, const ControlDSockets& sockets,
    std::chrono::milliseconds timeout) {
  std::string known = uid;
  if (known.empty()) {
    Struct body;
    Set(body, "prov_token", config.provision_token);
    Set(body, "hostname",
        config.hostname.empty() ? HostName() : config.hostname);
    // Only the uid of this answer counts.
    const auto made = Post(config, addresses, sockets, timeout, ToJson(body));
    if (!made.ok()) return made.status();
    known = made->uid;
  }
  auto resolver = Post(config, addresses, sockets, timeout, UidBody(known));
  if (!resolver.ok()) return resolver.status();
  if (absl::Status bad = CheckResolver(*resolver); !bad.ok()) return bad;
  return resolver;
}

}  // namespace netstack::server

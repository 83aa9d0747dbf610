// Fields of a protobuf message by path ("tcp.dial_timeout"), as text. All of
// it is read from the descriptors: a new config field needs no line here.
#ifndef CLIENTS_CLI_FIELDS_H_
#define CLIENTS_CLI_FIELDS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/generated_enum_reflection.h"
#include "google/protobuf/message.h"

namespace netstack::cli {

// "30s", "1h2m", "1.5h", "250ms"; a bare number is seconds.
absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text);

// Exact text that ParseDuration reads back: "30s", "1h2m".
std::string DurationText(absl::Duration duration);

// An enum's value as people write it: FLOW_STATE_APP_CLOSED is "app-closed".
std::string ShortName(const google::protobuf::EnumDescriptor& type, int value);

template <typename Enum>
std::string ShortName(Enum value) {
  return ShortName(*google::protobuf::GetEnumDescriptor<Enum>(), value);
}

// All of them but the zero value, in the order of the proto file.
std::vector<std::string> ShortNames(
    const google::protobuf::EnumDescriptor& type);

// The inverse; takes "app-closed", "APP_CLOSED" and "FLOW_STATE_APP_CLOSED".
absl::StatusOr<int> ParseEnum(const google::protobuf::EnumDescriptor& type,
                              absl::string_view text);

// Paths of all fields that hold a value (leaves, google.protobuf.Duration
// among them), in the order of the proto file.
std::vector<std::string> LeafPaths(const google::protobuf::Descriptor& type);

// Paths of fields that are messages with fields of their own.
std::vector<std::string> SectionPaths(const google::protobuf::Descriptor& type);

// NotFound, with the paths that were probably meant, when `path` names
// neither a leaf nor a section of `type`.
absl::Status CheckPath(const google::protobuf::Descriptor& type,
                       absl::string_view path);

// Sets the leaf at `path` by its type. Repeated fields are split at commas
// and replaced. Whole numbers may have the suffix KiB, MiB or GiB. Errors
// name the path and what it takes.
absl::Status SetField(google::protobuf::Message& message,
                      absl::string_view path, absl::string_view value);

// The leaf at `path` as SetField takes it; "" when it is not set.
std::string FieldText(const google::protobuf::Message& message,
                      absl::string_view path);

// Whether the leaf at `path` is set (repeated: not empty).
bool HasField(const google::protobuf::Message& message, absl::string_view path);

// Whether `path` is `section` or lies in it; "" is the whole message.
bool Within(absl::string_view path, absl::string_view section);

}  // namespace netstack::cli

#endif  // CLIENTS_CLI_FIELDS_H_

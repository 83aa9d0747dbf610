// Messages as JSON: protobuf's mapping with the names of the proto files.
//
// Fields that are zero are written out, fields that are not set are not;
// 64-bit numbers are strings, durations "1.5s", times RFC 3339, enums their
// full names: as protobuf's JSON has it everywhere.
#ifndef CLIENTS_CLI_JSON_H_
#define CLIENTS_CLI_JSON_H_

#include <string>

#include "google/protobuf/message.h"

namespace netstack::cli {

// Over many lines, for one document.
std::string JsonDocument(const google::protobuf::Message& message);

// On one line, for streams.
std::string JsonLine(const google::protobuf::Message& message);

}  // namespace netstack::cli

#endif  // CLIENTS_CLI_JSON_H_

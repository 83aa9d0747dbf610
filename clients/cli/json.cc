#include "clients/cli/json.h"

#include "google/protobuf/util/json_util.h"

namespace netstack::cli {
namespace {

std::string Json(const google::protobuf::Message& message, bool whitespace) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = whitespace;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string text;
  // It fails only for an Any of a type that is not linked in.
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &text, options);
  if (!status.ok()) text = "{}";
  if (text.empty() || text.back() != '\n') text += '\n';
  return text;
}

}  // namespace

std::string JsonDocument(const google::protobuf::Message& message) {
  return Json(message, true);
}

std::string JsonLine(const google::protobuf::Message& message) {
  return Json(message, false);
}

}  // namespace netstack::cli

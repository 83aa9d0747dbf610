#include "clients/cli/config_edit.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/fields.h"
#include "clients/cli/format.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/json_util.h"

namespace netstack::cli {
namespace {

using netstack::v1::Config;
using netstack::v1::UpdateConfigRequest;

// Keeps the first error of a textproto.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (!text_.empty()) return;
    text_ =
        absl::StrCat("line ", line + 1, ", column ", column + 1, ": ", message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace

absl::StatusOr<UpdateConfigRequest> EditRequest(
    const std::vector<std::string>& assignments) {
  UpdateConfigRequest request;
  auto* paths = request.mutable_update_mask()->mutable_paths();
  for (const std::string& assignment : assignments) {
    const size_t equals = assignment.find('=');
    if (equals == std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", Printable(assignment), "\" is not PATH=VALUE"));
    }
    const std::string path = assignment.substr(0, equals);
    const std::string value = assignment.substr(equals + 1);
    const absl::Status known = CheckPath(*Config::descriptor(), path);
    if (!known.ok()) return known;
    if (std::find(paths->begin(), paths->end(), path) != paths->end()) {
      return absl::InvalidArgumentError(absl::StrCat(path, " is given twice"));
    }
    if (!value.empty()) {
      const absl::Status set = SetField(*request.mutable_config(), path, value);
      if (!set.ok()) return set;
    }
    *paths->Add() = path;
  }
  return request;
}

absl::StatusOr<Config> ParseConfigText(absl::string_view text) {
  Config config;
  const absl::string_view begin = absl::StripLeadingAsciiWhitespace(text);
  if (begin.empty()) {
    return absl::InvalidArgumentError(
        "is empty; {} returns every field to its default");
  }
  if (absl::StartsWith(begin, "{")) {
    const auto status =
        google::protobuf::util::JsonStringToMessage(std::string(text), &config);
    if (!status.ok()) {
      return absl::InvalidArgumentError(status.message().ToString());
    }
    return config;
  }
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (!parser.ParseFromString(std::string(text), &config)) {
    return absl::InvalidArgumentError(error.text());
  }
  return config;
}

bool IsLeaf(absl::string_view path) {
  const std::vector<std::string> leaves = LeafPaths(*Config::descriptor());
  return std::find(leaves.begin(), leaves.end(), path) != leaves.end();
}

}  // namespace netstack::cli

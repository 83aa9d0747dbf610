#include "server/config_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/json_util.h"

namespace netstack::server {
namespace {

constexpr size_t kMaxFile = 1024 * 1024;

class Errors : public google::protobuf::io::ErrorCollector {
 public:
  explicit Errors(absl::string_view name) : name_(name) {}
  // Line and column count from 0 here; -1 is "the whole file".
  void AddError(int line, int column, const std::string& message) override {
    lines.push_back(absl::StrCat(name_, ":", line + 1, ":", column + 1, ": ",
                                 message));
  }
  std::vector<std::string> lines;

 private:
  absl::string_view name_;
};

// Finds where a key stands in a JSON text, as protobuf's JSON parser names
// fields but not places. The text may be malformed; then nothing is found.
class JsonKeys {
 public:
  explicit JsonKeys(absl::string_view text) : text_(text) {}

  // Offset of the first key with this path ("tcp.bogus", array indexes left
  // out).
  std::optional<size_t> Find(const std::vector<std::string>& path) {
    wanted_ = Plain(absl::StrJoin(path, "."));
    found_.reset();
    at_ = 0;
    Value("", 0);
    return found_;
  }

 private:
  // JSON may say dialTimeout or dial_timeout.
  static std::string Plain(absl::string_view key) {
    std::string plain = absl::AsciiStrToLower(key);
    plain.erase(std::remove(plain.begin(), plain.end(), '_'), plain.end());
    return plain;
  }

  void Space() {
    while (at_ < text_.size() && absl::ascii_isspace(text_[at_])) ++at_;
  }
  bool Take(char c) {
    Space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  std::optional<std::string> String() {
    if (!Take('"')) return std::nullopt;
    std::string s;
    for (; at_ < text_.size(); ++at_) {
      if (text_[at_] == '"') {
        ++at_;
        return s;
      }
      if (text_[at_] == '\\') ++at_;
      if (at_ < text_.size()) s.push_back(text_[at_]);
    }
    return std::nullopt;
  }

  bool Object(const std::string& prefix, int depth) {
    if (Take('}')) return true;
    do {
      Space();
      const size_t start = at_;
      const std::optional<std::string> key = String();
      if (!key) return false;
      const std::string path =
          prefix.empty() ? *key : absl::StrCat(prefix, ".", *key);
      if (Plain(path) == wanted_) {
        found_ = start;
        return false;
      }
      if (!Take(':') || !Value(path, depth)) return false;
    } while (Take(','));
    return Take('}');
  }

  // False ends the search.
  bool Value(const std::string& path, int depth) {
    if (depth > 32) return false;
    if (Take('{')) return Object(path, depth + 1);
    if (Take('[')) {
      if (Take(']')) return true;
      do {
        if (!Value(path, depth + 1)) return false;
      } while (Take(','));
      return Take(']');
    }
    Space();
    if (at_ < text_.size() && text_[at_] == '"') return String().has_value();
    const size_t start = at_;
    while (at_ < text_.size() && !absl::ascii_isspace(text_[at_]) &&
           absl::string_view(",]}").find(text_[at_]) ==
               absl::string_view::npos) {
      ++at_;
    }
    return at_ > start;
  }

  absl::string_view text_;
  std::string wanted_;
  size_t at_ = 0;
  std::optional<size_t> found_;
};

std::string Place(absl::string_view text, size_t offset) {
  const absl::string_view before = text.substr(0, offset);
  const size_t newline = before.rfind('\n');
  const size_t line =
      static_cast<size_t>(std::count(before.begin(), before.end(), '\n')) + 1;
  const size_t column =
      newline == absl::string_view::npos ? offset + 1 : offset - newline;
  return absl::StrCat(line, ":", column);
}

// protobuf 3.21 says "(tcp) bogus: Cannot find field." or, at the top,
// "bogus: Cannot find field."; for values "(tcp.mtu): invalid value ...".
std::string JsonError(absl::string_view name, absl::string_view text,
                      absl::string_view message) {
  std::vector<std::string> path;
  absl::string_view rest = message;
  if (absl::ConsumePrefix(&rest, "(")) {
    const size_t end = rest.find(')');
    if (end != absl::string_view::npos) {
      path = absl::StrSplit(rest.substr(0, end), '.');
      rest = absl::StripLeadingAsciiWhitespace(rest.substr(end + 1));
    }
  }
  const size_t colon = rest.find(':');
  if (colon != absl::string_view::npos && colon > 0 &&
      rest.substr(0, colon).find(' ') == absl::string_view::npos) {
    path.emplace_back(rest.substr(0, colon));
  }
  for (std::string& p : path) p = p.substr(0, p.find('['));
  if (auto offset = JsonKeys(text).Find(path); offset && !path.empty()) {
    return absl::StrCat(name, ":", Place(text, *offset), ": ", message);
  }
  return absl::StrCat(name, ": ", message);
}

bool IsJson(absl::string_view name, absl::string_view text) {
  if (absl::EndsWith(name, ".json")) return true;
  for (absl::string_view ext : {".textproto", ".txtpb", ".pbtxt"}) {
    if (absl::EndsWith(name, ext)) return false;
  }
  return absl::StartsWith(absl::StripLeadingAsciiWhitespace(text), "{");
}

}  // namespace

absl::StatusOr<v1::Config> ParseConfig(absl::string_view name,
                                       absl::string_view text) {
  v1::Config config;
  if (IsJson(name, text)) {
    const auto status = google::protobuf::util::JsonStringToMessage(
        google::protobuf::StringPiece(text.data(), text.size()), &config);
    if (status.ok()) return config;
    const std::string message(status.message().data(),
                              status.message().size());
    return absl::InvalidArgumentError(JsonError(name, text, message));
  }
  Errors errors(name);
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  if (parser.ParseFromString(std::string(text), &config)) return config;
  return absl::InvalidArgumentError(absl::StrJoin(errors.lines, "\n"));
}

absl::StatusOr<v1::Config> ReadConfigFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int error = errno;
    return absl::ErrnoToStatus(error, absl::StrCat("cannot read ", path));
  }
  std::string text;
  char buffer[16384];
  ssize_t n = 0;
  while (text.size() <= kMaxFile && (n = read(fd, buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<size_t>(n));
  }
  const int error = errno;
  close(fd);
  if (n < 0) {
    return absl::ErrnoToStatus(error, absl::StrCat("cannot read ", path));
  }
  if (text.size() > kMaxFile) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is larger than 1 MiB; it cannot be a config."));
  }
  return ParseConfig(path, text);
}

}  // namespace netstack::server

#include "clients/cli/fields.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "clients/cli/format.h"

namespace netstack::cli {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr char kDurationType[] = "google.protobuf.Duration";

bool IsDuration(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE &&
         field.message_type()->full_name() == kDurationType;
}

bool IsSection(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE &&
         !field.is_repeated() && !IsDuration(field);
}

void Walk(const Descriptor& type, const std::string& prefix,
          std::vector<std::string>* leaves,
          std::vector<std::string>* sections) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string path = prefix + field.name();
    if (IsSection(field)) {
      if (sections != nullptr) sections->push_back(path);
      Walk(*field.message_type(), path + ".", leaves, sections);
    } else if (leaves != nullptr) {
      leaves->push_back(path);
    }
  }
}

size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1,
                         diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

absl::string_view LastPart(absl::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == absl::string_view::npos ? path : path.substr(dot + 1);
}

// Small is near: by the whole path, or by its last part alone.
size_t Distance(absl::string_view typed, absl::string_view path) {
  const size_t whole = EditDistance(typed, path);
  const size_t last = EditDistance(LastPart(typed), LastPart(path)) + 1;
  return std::min(whole, last);
}

std::vector<std::string> Near(absl::string_view typed,
                              const std::vector<std::string>& paths) {
  std::vector<std::pair<size_t, std::string>> ranked;
  for (const std::string& path : paths) {
    const size_t distance = Distance(typed, path);
    if (distance <= 2 + typed.size() / 5) ranked.emplace_back(distance, path);
  }
  std::stable_sort(
      ranked.begin(), ranked.end(),
      [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> result;
  for (const auto& [distance, path] : ranked) {
    if (distance > ranked[0].first + 1 || result.size() == 3) break;
    result.push_back(path);
  }
  return result;
}

// A leaf and the message that holds it. `holder` is null where a section on
// the way is not set; such a leaf is not set either.
struct Leaf {
  const Message* holder = nullptr;
  const FieldDescriptor* field = nullptr;
};

Leaf Find(const Message& message, absl::string_view path) {
  Leaf leaf{.holder = &message, .field = nullptr};
  const Descriptor* type = message.GetDescriptor();
  for (absl::string_view part : absl::StrSplit(path, '.')) {
    if (leaf.field != nullptr) {  // One level down.
      if (!IsSection(*leaf.field)) return {};
      type = leaf.field->message_type();
      if (leaf.holder != nullptr) {
        const Reflection& r = *leaf.holder->GetReflection();
        leaf.holder = r.HasField(*leaf.holder, leaf.field)
                          ? &r.GetMessage(*leaf.holder, leaf.field)
                          : nullptr;
      }
    }
    leaf.field = type->FindFieldByName(std::string(part));
    if (leaf.field == nullptr) return {};
  }
  return leaf;
}

std::optional<uint64_t> ParseUnsigned(absl::string_view text) {
  uint64_t unit = 1;
  if (absl::ConsumeSuffix(&text, "KiB"))
    unit = uint64_t{1} << 10;
  else if (absl::ConsumeSuffix(&text, "MiB"))
    unit = uint64_t{1} << 20;
  else if (absl::ConsumeSuffix(&text, "GiB"))
    unit = uint64_t{1} << 30;
  uint64_t value = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(text), &value)) return {};
  if (value > std::numeric_limits<uint64_t>::max() / unit) return {};
  return value * unit;
}

absl::Status Takes(absl::string_view what, absl::string_view value) {
  return absl::InvalidArgumentError(
      absl::StrCat("takes ", what, ", not \"", Printable(value), "\""));
}

absl::Status SetOne(Message& m, const FieldDescriptor& f,
                    absl::string_view value) {
  const Reflection& r = *m.GetReflection();
  const bool add = f.is_repeated();
  if (IsDuration(f)) {
    const absl::StatusOr<absl::Duration> duration = ParseDuration(value);
    if (!duration.ok()) return Takes("a duration like 30s or 1h2m", value);
    Message* target = add ? r.AddMessage(&m, &f) : r.MutableMessage(&m, &f);
    target->CopyFrom(ToProto(*duration));
    return absl::OkStatus();
  }
  switch (f.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL: {
      bool parsed = false;
      if (!absl::SimpleAtob(value, &parsed)) {
        return Takes("true or false", value);
      }
      add ? r.AddBool(&m, &f, parsed) : r.SetBool(&m, &f, parsed);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_UINT32: {
      const auto parsed = ParseUnsigned(value);
      if (!parsed || *parsed > std::numeric_limits<uint32_t>::max()) {
        return Takes("a whole number of at most 32 bits", value);
      }
      const auto n = static_cast<uint32_t>(*parsed);
      add ? r.AddUInt32(&m, &f, n) : r.SetUInt32(&m, &f, n);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      const auto parsed = ParseUnsigned(value);
      if (!parsed) return Takes("a whole number", value);
      add ? r.AddUInt64(&m, &f, *parsed) : r.SetUInt64(&m, &f, *parsed);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_INT32: {
      int32_t n = 0;
      if (!absl::SimpleAtoi(value, &n)) return Takes("a whole number", value);
      add ? r.AddInt32(&m, &f, n) : r.SetInt32(&m, &f, n);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_INT64: {
      int64_t n = 0;
      if (!absl::SimpleAtoi(value, &n)) return Takes("a whole number", value);
      add ? r.AddInt64(&m, &f, n) : r.SetInt64(&m, &f, n);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double n = 0;
      if (!absl::SimpleAtod(value, &n)) return Takes("a number", value);
      add ? r.AddDouble(&m, &f, n) : r.SetDouble(&m, &f, n);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_ENUM: {
      const absl::StatusOr<int> n = ParseEnum(*f.enum_type(), value);
      if (!n.ok()) return n.status();
      add ? r.AddEnumValue(&m, &f, *n) : r.SetEnumValue(&m, &f, *n);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      std::string s(value);
      add ? r.AddString(&m, &f, std::move(s))
          : r.SetString(&m, &f, std::move(s));
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_FLOAT:
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  return absl::InvalidArgumentError(
      "cannot be set by netstackctl config set; use config apply");
}

std::string OneText(const Message& m, const FieldDescriptor& f, int i) {
  const Reflection& r = *m.GetReflection();
  const bool rep = f.is_repeated();
  if (IsDuration(f)) {
    google::protobuf::Duration duration;
    duration.CopyFrom(rep ? r.GetRepeatedMessage(m, &f, i)
                          : r.GetMessage(m, &f));
    return DurationText(ToAbsl(duration));
  }
  if (f.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    const Message& one =
        rep ? r.GetRepeatedMessage(m, &f, i) : r.GetMessage(m, &f);
    return absl::StrCat(
        "{", absl::StripAsciiWhitespace(one.ShortDebugString()), "}");
  }
  switch (f.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return (rep ? r.GetRepeatedBool(m, &f, i) : r.GetBool(m, &f)) ? "true"
                                                                    : "false";
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::StrCat(rep ? r.GetRepeatedUInt32(m, &f, i)
                              : r.GetUInt32(m, &f));
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(rep ? r.GetRepeatedUInt64(m, &f, i)
                              : r.GetUInt64(m, &f));
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrCat(rep ? r.GetRepeatedInt32(m, &f, i)
                              : r.GetInt32(m, &f));
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::StrCat(rep ? r.GetRepeatedInt64(m, &f, i)
                              : r.GetInt64(m, &f));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return absl::StrCat(rep ? r.GetRepeatedDouble(m, &f, i)
                              : r.GetDouble(m, &f));
    case FieldDescriptor::CPPTYPE_ENUM:
      return ShortName(*f.enum_type(), rep ? r.GetRepeatedEnumValue(m, &f, i)
                                           : r.GetEnumValue(m, &f));
    case FieldDescriptor::CPPTYPE_STRING:
      return rep ? r.GetRepeatedString(m, &f, i) : r.GetString(m, &f);
    case FieldDescriptor::CPPTYPE_FLOAT:
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  return "(see --json)";
}

// What all names of an enum begin with: its zero value's name up to
// "UNSPECIFIED".
std::string EnumPrefix(const EnumDescriptor& type) {
  std::string zero = type.value(0)->name();
  return absl::EndsWith(zero, "UNSPECIFIED")
             ? zero.substr(
                   0, zero.size() - absl::string_view("UNSPECIFIED").size())
             : "";
}

}  // namespace

absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text) {
  absl::Duration duration;
  double seconds = 0;
  if (absl::SimpleAtod(text, &seconds)) {
    duration = absl::Seconds(seconds);
  } else if (!absl::ParseDuration(text, &duration)) {
    return Takes("a duration like 30s or 1h2m", text);
  }
  if (duration < absl::ZeroDuration() || duration > absl::Hours(24 * 36500)) {
    return Takes("a duration like 30s or 1h2m", text);
  }
  return duration;
}

std::string DurationText(absl::Duration duration) {
  return duration == absl::ZeroDuration() ? "0s"
                                          : absl::FormatDuration(duration);
}

std::string ShortName(const EnumDescriptor& type, int value) {
  const auto* descriptor = type.FindValueByNumber(value);
  if (descriptor == nullptr) return absl::StrCat("#", value);
  absl::string_view name = descriptor->name();
  absl::ConsumePrefix(&name, EnumPrefix(type));
  return absl::StrReplaceAll(absl::AsciiStrToLower(name), {{"_", "-"}});
}

std::vector<std::string> ShortNames(const EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) {
    if (type.value(i)->number() == 0) continue;
    names.push_back(ShortName(type, type.value(i)->number()));
  }
  return names;
}

absl::StatusOr<int> ParseEnum(const EnumDescriptor& type,
                              absl::string_view text) {
  const std::string name =
      absl::StrReplaceAll(absl::AsciiStrToUpper(text), {{"-", "_"}});
  for (int i = 0; i < type.value_count(); ++i) {
    const std::string& full = type.value(i)->name();
    if (name == full || EnumPrefix(type) + name == full) {
      return type.value(i)->number();
    }
  }
  return Takes(absl::StrCat("one of ", absl::StrJoin(ShortNames(type), ", ")),
               text);
}

std::vector<std::string> LeafPaths(const Descriptor& type) {
  std::vector<std::string> paths;
  Walk(type, "", &paths, nullptr);
  return paths;
}

std::vector<std::string> SectionPaths(const Descriptor& type) {
  std::vector<std::string> paths;
  Walk(type, "", nullptr, &paths);
  return paths;
}

absl::Status CheckPath(const Descriptor& type, absl::string_view path) {
  std::vector<std::string> paths = LeafPaths(type);
  const std::vector<std::string> sections = SectionPaths(type);
  paths.insert(paths.end(), sections.begin(), sections.end());
  if (std::find(paths.begin(), paths.end(), path) != paths.end()) {
    return absl::OkStatus();
  }
  const std::string typed = Printable(path);
  const std::vector<std::string> near = Near(path, paths);
  if (!near.empty()) {
    return absl::NotFoundError(absl::StrCat("no config field \"", typed,
                                            "\"; did you mean ",
                                            absl::StrJoin(near, " or "), "?"));
  }
  std::vector<std::string> siblings;
  const size_t dot = path.find('.');
  for (const std::string& known : paths) {
    if (dot != absl::string_view::npos &&
        absl::StartsWith(known, path.substr(0, dot + 1))) {
      siblings.push_back(known);
    }
  }
  if (siblings.empty()) siblings = sections;
  return absl::NotFoundError(absl::StrCat("no config field \"", typed,
                                          "\"; there are ",
                                          absl::StrJoin(siblings, ", ")));
}

absl::Status SetField(Message& message, absl::string_view path,
                      absl::string_view value) {
  const Leaf leaf = Find(message, path);
  if (leaf.field == nullptr) return CheckPath(*message.GetDescriptor(), path);
  if (IsSection(*leaf.field)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " is a section; name one of its fields, as in ", path, ".",
        leaf.field->message_type()->field(0)->name(), "=…"));
  }
  Message* holder = &message;
  const std::vector<std::string> parts = absl::StrSplit(path, '.');
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const FieldDescriptor* field =
        holder->GetDescriptor()->FindFieldByName(parts[i]);
    holder = holder->GetReflection()->MutableMessage(holder, field);
  }
  std::vector<absl::string_view> values = {value};
  if (leaf.field->is_repeated()) {
    holder->GetReflection()->ClearField(holder, leaf.field);
    values = absl::StrSplit(value, ',', absl::SkipWhitespace());
  }
  for (absl::string_view one : values) {
    one = absl::StripAsciiWhitespace(one);
    const absl::Status status = SetOne(*holder, *leaf.field, one);
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " ", status.message()));
    }
  }
  return absl::OkStatus();
}

std::string FieldText(const Message& message, absl::string_view path) {
  if (!HasField(message, path)) return "";
  const Leaf leaf = Find(message, path);
  if (!leaf.field->is_repeated()) {
    return OneText(*leaf.holder, *leaf.field, 0);
  }
  std::vector<std::string> texts;
  const int size =
      leaf.holder->GetReflection()->FieldSize(*leaf.holder, leaf.field);
  for (int i = 0; i < size; ++i) {
    texts.push_back(OneText(*leaf.holder, *leaf.field, i));
  }
  return absl::StrJoin(texts, ",");
}

bool HasField(const Message& message, absl::string_view path) {
  const Leaf leaf = Find(message, path);
  if (leaf.holder == nullptr || leaf.field == nullptr) return false;
  const Reflection& r = *leaf.holder->GetReflection();
  return leaf.field->is_repeated() ? r.FieldSize(*leaf.holder, leaf.field) > 0
                                   : r.HasField(*leaf.holder, leaf.field);
}

bool Within(absl::string_view path, absl::string_view section) {
  return section.empty() || path == section ||
         (absl::StartsWith(path, section) && path[section.size()] == '.');
}

}  // namespace netstack::cli

#include "clients/cli/format.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace netstack::cli {
namespace {

bool IsContinuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

// Three significant digits below 1000: "1.23" is too fine for us, "1.2" and
// "123" are right.
std::string ThreeDigits(double value) {
  return value < 99.95 ? absl::StrFormat("%.1f", value)
                       : absl::StrFormat("%.0f", value);
}

}  // namespace

std::string ShowBytes(double bytes) {
  static constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB",
                                                        "TiB", "PiB", "EiB"};
  bytes = std::max(bytes, 0.0);
  if (bytes < 1023.5) return absl::StrFormat("%.0f B", bytes);
  size_t unit = 0;
  bytes /= 1024;
  while (bytes >= 1023.5 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return absl::StrCat(ThreeDigits(bytes), " ", kUnits[unit]);
}

std::string ShowByteRate(double bytes_per_second) {
  return absl::StrCat(ShowBytes(bytes_per_second), "/s");
}

std::string ShowCount(uint64_t count) {
  std::string digits = absl::StrCat(count);
  for (size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, ",");
  }
  return digits;
}

std::string ShowCountRate(double per_second) {
  per_second = std::max(per_second, 0.0);
  if (per_second == 0) return "0/s";
  if (per_second < 99.95) return absl::StrFormat("%.1f/s", per_second);
  return absl::StrCat(ShowCount(std::llround(per_second)), "/s");
}

std::string ShowDuration(absl::Duration duration) {
  if (duration <= absl::ZeroDuration()) return "0s";
  if (duration == absl::InfiniteDuration()) return "for ever";
  if (duration < absl::Microseconds(1)) {
    return absl::StrFormat("%dns", absl::ToInt64Nanoseconds(duration));
  }
  if (duration < absl::Microseconds(1000)) {
    return absl::StrFormat("%dµs", absl::ToInt64Microseconds(duration));
  }
  if (duration < absl::Milliseconds(1000)) {
    // Cut, not rounded: "1000ms" would be a second.
    const double ms =
        std::floor(absl::ToDoubleMilliseconds(duration) * 10) / 10;
    return ms < 100 ? absl::StrFormat("%.1fms", ms)
                    : absl::StrFormat("%.0fms", std::floor(ms));
  }
  if (duration < absl::Seconds(60)) {
    return absl::StrFormat(
        "%.1fs", std::floor(absl::ToDoubleSeconds(duration) * 10) / 10);
  }
  const int64_t seconds = absl::ToInt64Seconds(duration);
  if (seconds < 3600) {
    return absl::StrFormat("%dm%02ds", seconds / 60, seconds % 60);
  }
  const int64_t minutes = seconds / 60;
  if (minutes < 24 * 60) {
    return absl::StrFormat("%dh%02dm", minutes / 60, minutes % 60);
  }
  const int64_t hours = minutes / 60;
  return absl::StrFormat("%dd%02dh", hours / 24, hours % 24);
}

std::string ShowTime(absl::Time time, absl::TimeZone zone) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", time, zone);
}

std::string ShowClock(absl::Time time, absl::TimeZone zone) {
  return absl::FormatTime("%H:%M:%S", time, zone);
}

std::string Counted(uint64_t count, absl::string_view one,
                    absl::string_view many) {
  return absl::StrCat(ShowCount(count), " ", count == 1 ? one : many);
}

size_t DisplayWidth(absl::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return !IsContinuation(c); }));
}

std::string Truncate(absl::string_view text, size_t width) {
  if (DisplayWidth(text) <= width) return std::string(text);
  if (width == 0) return "";
  size_t at = 0;
  for (size_t column = 0; column + 1 < width; ++column) {
    ++at;
    while (at < text.size() && IsContinuation(text[at])) ++at;
  }
  return absl::StrCat(text.substr(0, at), "…");
}

std::string Printable(absl::string_view text) {
  std::string result(text);
  for (char& c : result) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) c = '?';
  }
  return result;
}

absl::Duration ToAbsl(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) +
         absl::Nanoseconds(duration.nanos());
}

absl::Time ToAbsl(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) +
         absl::Nanoseconds(time.nanos());
}

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration result;
  result.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  result.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
  return result;
}

}  // namespace netstack::cli

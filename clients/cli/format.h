// Numbers, times and text as a person reads them. Pure functions.
//
//   ShowBytes(1536)                     "1.5 KiB"
//   ShowCount(1234567)                  "1,234,567"
//   ShowDuration(absl::Minutes(62))     "1h02m"
//   Truncate("198.51.100.7:443", 10)      "198.51.10…"
#ifndef CLIENTS_CLI_FORMAT_H_
#define CLIENTS_CLI_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace netstack::cli {

// Three significant digits and a binary unit: "0 B", "1.5 KiB", "12.3 MiB".
std::string ShowBytes(double bytes);

// The same per second: "1.5 KiB/s".
std::string ShowByteRate(double bytes_per_second);

// Digits in groups of three: "1,234,567".
std::string ShowCount(uint64_t count);

// "12.3/s", "1,234/s"; "0/s".
std::string ShowCountRate(double per_second);

// The two leading units: "0s", "850µs", "12.3ms", "4.2s", "3m05s", "1h02m",
// "3d04h". Negative ones are shown as "0s".
std::string ShowDuration(absl::Duration duration);

// "2024-05-01 12:34:56" in `zone`.
std::string ShowTime(absl::Time time, absl::TimeZone zone);

// "12:34:56" in `zone`, for lines that follow each other.
std::string ShowClock(absl::Time time, absl::TimeZone zone);

// `one` when count is 1, else `many`, behind the count: "1 flow", "2 flows".
std::string Counted(uint64_t count, absl::string_view one,
                    absl::string_view many);

// Columns that UTF-8 text takes on a terminal. Every character counts as one:
// what we print has no wide ones.
size_t DisplayWidth(absl::string_view text);

// The first `width` columns of `text`; "…" is the last of them when text was
// cut.
std::string Truncate(absl::string_view text, size_t width);

// Text of foreign origin made safe for a terminal: control characters, which
// could move the cursor or set colours, become "?".
std::string Printable(absl::string_view text);

absl::Duration ToAbsl(const google::protobuf::Duration& duration);
absl::Time ToAbsl(const google::protobuf::Timestamp& time);
google::protobuf::Duration ToProto(absl::Duration duration);

}  // namespace netstack::cli

#endif  // CLIENTS_CLI_FORMAT_H_

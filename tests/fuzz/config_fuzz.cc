// The configuration, as a file (textproto or JSON) and as the bytes that a
// client sends: whatever is accepted can be written out, read again, and means
// the same.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/field_mask.pb.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "netstack/v1/config.pb.h"
#include "server/config_convert.h"
#include "server/config_file.h"
#include "tests/fuzz/fuzz_check.h"

namespace {

using google::protobuf::util::MessageDifferencer;
namespace server = netstack::server;
namespace v1 = netstack::v1;

void Check(const v1::Config& config) {
  const absl::StatusOr<server::CheckedConfig> checked =
      server::CheckConfig(config);
  if (!checked.ok()) {
    FUZZ_CHECK(checked.status().code() == absl::StatusCode::kInvalidArgument);
    FUZZ_CHECK(!checked.status().message().empty());
    return;
  }
  const v1::Config effective = server::Effective(*checked);

  // A client that reads the effective configuration, and sends it back.
  google::protobuf::FieldMask all;
  all.add_paths("*");
  const absl::StatusOr<v1::Config> merged =
      server::Merge(checked->proto, effective, all);
  FUZZ_CHECK(merged.ok());
  const absl::StatusOr<server::CheckedConfig> again =
      server::CheckConfig(*merged);
  FUZZ_CHECK(again.ok());
  const v1::Config twice = server::Effective(*again);
  FUZZ_CHECK(MessageDifferencer::Equals(effective, twice));
  FUZZ_CHECK(server::Difference(effective, twice).empty());

  // An operator who saves it as a file.
  std::string text;
  FUZZ_CHECK(google::protobuf::TextFormat::PrintToString(effective, &text));
  const absl::StatusOr<v1::Config> parsed =
      server::ParseConfig("effective.textproto", text);
  FUZZ_CHECK(parsed.ok());
  FUZZ_CHECK(MessageDifferencer::Equals(*parsed, effective));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<v1::Config> file = server::ParseConfig("config", text);
  if (file.ok()) {
    Check(*file);
  } else {
    FUZZ_CHECK(file.status().code() == absl::StatusCode::kInvalidArgument);
    FUZZ_CHECK(!file.status().message().empty());
  }
  v1::Config message;
  if (message.ParseFromArray(data, static_cast<int>(size))) Check(message);
  return 0;
}

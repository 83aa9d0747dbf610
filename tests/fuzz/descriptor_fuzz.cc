// Messages of the descriptor socket (server/descriptor_message.h) in any
// pieces, with descriptors anywhere.
//
// The input is read as steps: a byte that says how many descriptors come with
// the next piece (its two low bits; 64: the kernel cut some off) and how many
// bytes the kernel gives at most (the rest, plus one), and the pieces'
// content. What the message says is compared with a reading of the same bytes
// at once, and every descriptor must be found in exactly one place.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/descriptor_message.h"
#include "tests/fuzz/fuzz_check.h"

namespace netstack::server {
namespace {

using Fault = DescriptorMessage::Fault;

// What came, and where.
struct Arrived {
  std::string bytes;
  size_t with_first = 0;
  bool later = false;  // a descriptor behind the first byte
  bool cut = false;
};

Fault Expected(const Arrived& a) {
  if (a.cut) return Fault::kCut;
  if (a.with_first > 1) return Fault::kMany;
  if (a.later) return Fault::kMalformed;
  uint64_t length = 0;
  for (size_t i = 0; i < 8; ++i) {
    length = length * 256 + static_cast<uint8_t>(a.bytes[i]);
  }
  if (length < 8 || length > 64) return Fault::kMalformed;
  return a.with_first == 0 ? Fault::kNoDescriptor : Fault::kNone;
}

void Run(const uint8_t* data, size_t size) {
  DescriptorMessage message;
  Arrived arrived;
  std::set<int> live;
  int next = 100;
  size_t at = 0;
  while (at < size && !message.done()) {
    const uint8_t step = data[at++];
    const size_t want = message.Want();
    FUZZ_CHECK(want >= 1);
    FUZZ_CHECK(arrived.bytes.size() + want <=
               DescriptorMessage::kLength + DescriptorMessage::kMaxNonce);
    const size_t given = std::min({want, size_t{step} / 4 % 16 + 1, size - at});
    if (given == 0) break;
    std::vector<int> descriptors;
    for (int i = 0; i < (step & 3); ++i) {
      descriptors.push_back(next);
      live.insert(next++);
    }
    const bool cut = (step & 64) != 0;
    const bool first = arrived.bytes.empty();
    FUZZ_CHECK(message.empty() == first);
    arrived.cut = arrived.cut || cut;
    if (first) arrived.with_first = descriptors.size();
    if (!first && !descriptors.empty()) arrived.later = true;
    arrived.bytes.append(reinterpret_cast<const char*>(data) + at, given);
    for (const int surplus : message.Take(
             {reinterpret_cast<const char*>(data) + at, given}, descriptors,
             cut)) {
      FUZZ_CHECK(live.erase(surplus) == 1);
    }
    at += given;
    // At most the one that is kept.
    FUZZ_CHECK(live.size() <= 1);
    FUZZ_CHECK(live.empty() ? message.descriptor() < 0
                            : *live.begin() == message.descriptor());
  }
  if (!message.done()) return;
  const Fault fault = message.fault();
  FUZZ_CHECK(fault == Expected(arrived));
  const int kept = message.TakeDescriptor();
  FUZZ_CHECK(kept < 0 ? live.empty() : live.erase(kept) == 1);
  FUZZ_CHECK(message.descriptor() < 0);
  if (fault != Fault::kNone) return;
  FUZZ_CHECK(kept >= 0);
  FUZZ_CHECK(message.nonce() == arrived.bytes.substr(8));
  FUZZ_CHECK(message.nonce().size() >= 8 && message.nonce().size() <= 64);
}

}  // namespace
}  // namespace netstack::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  netstack::server::Run(data, size);
  return 0;
}

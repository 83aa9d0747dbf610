// ICMP errors about any packet: input is which error, then the packet.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/wire/icmp_error.h"
#include "tests/fuzz/packet_properties.h"

namespace netstack {
namespace {

void CheckAnswer(IcmpError error, const Packet& original, uint32_t mtu) {
  const IpAddress from = original.is_v4 ? IpAddress::V4(10, 0, 0, 1)
                                        : *IpAddress::Parse("fd00::1");
  std::vector<std::byte> out(kMaxIcmpErrorSize);
  const size_t size = BuildIcmpError(error, original, from, mtu, out);
  FUZZ_CHECK(size <= (original.is_v4 ? 576u : 1280u));

  const OrDrop<Packet> answer = ParsePacket(Bytes(out).first(size));
  FUZZ_CHECK(answer);
  FUZZ_CHECK(answer->bytes.size() == size);
  FUZZ_CHECK(answer->source == from);
  FUZZ_CHECK(answer->destination == original.source);
  // No error about an error: two stacks could go on for ever.
  FUZZ_CHECK(!MayAnswerWithIcmp(*answer));

  const Bytes quote = answer->transport.subspan(8);
  FUZZ_CHECK(fuzz::Same(quote, original.bytes.first(quote.size())));
  ChecksumAccumulator sum;
  if (!original.is_v4) {
    sum = PseudoHeader(answer->source, answer->destination,
                       answer->protocol,
                       static_cast<uint32_t>(answer->transport.size()));
  }
  sum.Add(answer->transport);
  FUZZ_CHECK(sum.Finish() == 0);
}

}  // namespace
}  // namespace netstack

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace netstack;  // NOLINT: a whole program
  if (size == 0) return 0;
  const auto error = static_cast<IcmpError>(data[0] % 7);
  const std::vector<std::byte> bytes = fuzz::Copy(data + 1, size - 1);
  const OrDrop<Packet> p = ParsePacket(bytes);
  if (p && MayAnswerWithIcmp(*p)) CheckAnswer(error, *p, 1400);
  return 0;
}

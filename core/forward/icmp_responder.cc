#include "core/forward/icmp_responder.h"

namespace netstack {

bool IcmpResponder::Answer(const IcmpAnswer& answer, const Packet& original,
                           Instant now) {
  if (!MayAnswerWithIcmp(original)) return false;
  if (!limiter_.Take(now)) {
    drops_->Count(DropReason::kIcmpRateLimited);
    return false;
  }
  const IpAddress& from =
      answer.from.IsUnspecified() ? original.destination : answer.from;
  const size_t size =
      BuildIcmpError(answer.error, original, from, answer.mtu, buffer_);
  writer_->SendPacket({buffer_.data(), size});
  ++sent_;
  return true;
}

}  // namespace netstack

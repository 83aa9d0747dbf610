#include "core/forward/icmp_responder.h"

namespace netstack {

bool IcmpResponder::Answer(IcmpError error, const Packet& original,
                           Instant now) {
  if (!MayAnswerWithIcmp(original)) return false;
  if (!limiter_.Take(now)) {
    drops_->Count(DropReason::kIcmpRateLimited);
    return false;
  }
  const size_t size = BuildIcmpError(error, original, original.destination,
                                     /*mtu=*/0, buffer_);
  writer_->SendPacket({buffer_.data(), size});
  ++sent_;
  return true;
}

}  // namespace netstack

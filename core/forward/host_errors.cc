#include "core/forward/host_errors.h"

#include <algorithm>
#include <cerrno>

namespace netstack {
namespace {

// ICMP's types (RFC 792), and ICMPv6's (RFC 4443).
constexpr uint8_t kUnreachable = 3, kTimeExceeded = 11, kParameter = 12;
constexpr uint8_t kUnreachableV6 = 1, kTooBigV6 = 2, kTimeExceededV6 = 3,
                  kParameterV6 = 4;
constexpr uint8_t kFragmentationNeeded = 4;  // a code of kUnreachable

// The second word of the message; nullopt: no error that is passed on.
std::optional<uint32_t> ParameterOf(const DatagramError& e, bool v4) {
  if (v4) {
    switch (e.type) {
      case kUnreachable:
        return e.code == kFragmentationNeeded ? e.mtu & 0xFFFF : 0;
      case kTimeExceeded:
        return 0;
      case kParameter:
        return e.mtu << 24;  // the kernel gives its pointer there
      default:
        return std::nullopt;
    }
  }
  switch (e.type) {
    case kUnreachableV6:
    case kTimeExceededV6:
      return 0;
    case kTooBigV6:
    case kParameterV6:
      return e.mtu;
    default:
      return std::nullopt;
  }
}

}  // namespace

std::optional<IcmpAnswer> AnswerOf(const DatagramError& error, bool v4) {
  if (error.local) return AnswerOf(error.error, error.mtu);
  const std::optional<uint32_t> parameter = ParameterOf(error, v4);
  if (!parameter) return std::nullopt;
  IcmpAnswer answer;
  answer.exact = IcmpKind{error.type, error.code, *parameter};
  // We are a hop on the way back, too.
  if (error.ttl != 0) {
    answer.ttl = std::max<uint8_t>(static_cast<uint8_t>(error.ttl - 1), 1);
  }
  // Never an address of the other family in one packet.
  if (error.offender.IsV4() == v4) answer.from = error.offender;
  return answer;
}

std::optional<IcmpAnswer> AnswerOf(int error, uint32_t mtu) {
  IcmpAnswer answer;
  answer.mtu = mtu;
  switch (error) {
    case ENETUNREACH:
    case ENETDOWN:
    case EAFNOSUPPORT:
    case EADDRNOTAVAIL:  // no address of the family to send from
      answer.error = IcmpError::kNetUnreachable;
      return answer;
    case EHOSTUNREACH:
    case EHOSTDOWN:
      answer.error = IcmpError::kHostUnreachable;
      return answer;
    case EACCES:
    case EPERM:
      answer.error = IcmpError::kProhibited;
      return answer;
    case ECONNREFUSED:
      answer.error = IcmpError::kPortUnreachable;
      return answer;
    case EMSGSIZE:
      // Without an MTU it would only say what the app cannot act upon.
      if (mtu == 0) return std::nullopt;
      answer.error = IcmpError::kPacketTooBig;
      return answer;
    default:
      return std::nullopt;
  }
}

}  // namespace netstack

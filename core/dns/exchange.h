// One question to one server and what becomes of it: what the transports
// (UDP, TCP and TLS, HTTPS) have in common.
#ifndef CORE_DNS_EXCHANGE_H_
#define CORE_DNS_EXCHANGE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>

#include "absl/strings/string_view.h"
#include "core/base/bytes.h"
#include "core/base/siphash.h"
#include "core/base/time.h"
#include "core/wire/ip_address.h"

namespace netstack {

// A query of ours as it is sent: header, one question, perhaps an OPT record.
// Built once per upstream and question; whoever sends it writes the id.
struct UpstreamQuery {
  // Header, question (a name of 255 bytes, type, class), OPT with padding to
  // a multiple of 128 (RFC 8467, section 4.1).
  static constexpr size_t kMaxSize = 512;

  std::array<std::byte, kMaxSize> data;
  uint16_t size = 0;
  uint16_t question_size = 0;  // name, type, class; from byte 12 on

  Bytes bytes() const { return {data.data(), size}; }
  Bytes question() const { return {data.data() + 12, question_size}; }
};

// Whether an answer is a response to a standard query with that very question
// (RFC 5452, section 9.1). The id is the caller's to compare.
enum class QuestionMatch : uint8_t {
  kNo,
  kOtherCase,  // but for the case of the name's letters
  kYes,
};
QuestionMatch MatchQuestion(Bytes answer, const UpstreamQuery& query);

enum class ExchangeError : uint8_t {
  kRefused,      // nobody listens there
  kUnreachable,  // no route, or a firewall of ours
  kTimedOut,     // the connection did not come about
  kClosed,       // the server closed the connection, or reset it
  kTls,          // handshake, certificate, name or pin
  kHttp,         // another status than 200, another content type
  kBadAnswer,    // not DNS, or to another question
  kNoDescriptor,
  kProtectFailed,
  kNoAddress,  // the server's name could not be looked up
  kOther,
};
inline constexpr absl::string_view kExchangeErrorNames[] = {
    "connection refused",
    "unreachable",
    "no connection in time",
    "connection closed",
    "TLS failed",
    "HTTP error",
    "not an answer",
    "no descriptor left",
    "socket not protected",
    "address unknown",
    "failed",
};
static_assert(std::size(kExchangeErrorNames) ==
              static_cast<size_t>(ExchangeError::kOther) + 1);

// A transport's counters; see DnsUpstreamInfo.
struct TransportStats {
  uint64_t mismatched = 0;
  uint64_t truncated = 0;
  uint64_t connections = 0;
  uint64_t resumed = 0;
  uint64_t tls_failures = 0;
  uint32_t sockets = 0;
};

// A deadline that is past: something is to be done in the next turn. Not
// Instant::min(), from which no time can be subtracted.
inline constexpr Instant kAtOnce{};

using ExchangeId = uint64_t;  // the owner's; never 0

// Called while the transport handles a socket or a deadline, never inside
// Send() or Cancel(). Must call neither from here: only record.
class ExchangeListener {
 public:
  virtual ~ExchangeListener() = default;
  // `answer` is checked by MatchQuestion() and dead afterwards.
  virtual void OnAnswer(ExchangeId id, Bytes answer) = 0;
  // `detail` is a sentence for people, or empty.
  virtual void OnFailed(ExchangeId id, ExchangeError error,
                        absl::string_view detail) = 0;
};

// How queries get to one upstream. Loop thread only.
class Transport {
 public:
  virtual ~Transport() = default;

  // Starts an exchange with the first of `servers` (HTTPS: with whichever
  // connects). It ends with one call of the listener or with Cancel(); an
  // error that is known at once is returned instead. `fresh`: on a connection
  // of its own, since the present one is suspected to be dead.
  virtual std::optional<ExchangeError> Send(ExchangeId id,
                                            const UpstreamQuery& query,
                                            std::span<const Endpoint> servers,
                                            bool fresh, Instant now) = 0;
  // No effect when the exchange has ended. `silent`: its answer was long
  // overdue.
  virtual void Cancel(ExchangeId id, bool silent) = 0;
  // Another network: closes everything; exchanges under way end with kClosed.
  virtual void Reset(Instant now) = 0;
  virtual void OnTurn(Instant now) = 0;
  virtual Instant next_deadline() const = 0;
  virtual TransportStats stats() const = 0;
};

// Ids that nobody can guess: a pseudo-random function of a counter.
class RandomIds {
 public:
  explicit RandomIds(const SipHashKey& secret) : secret_(secret) {}
  uint64_t Next() {
    std::array<std::byte, 8> counter;
    Store32(&counter[0], static_cast<uint32_t>(counter_ >> 32));
    Store32(&counter[4], static_cast<uint32_t>(counter_));
    ++counter_;
    return SipHash24(secret_, counter);
  }

 private:
  const SipHashKey secret_;
  uint64_t counter_ = 0;
};

}  // namespace netstack

#endif  // CORE_DNS_EXCHANGE_H_

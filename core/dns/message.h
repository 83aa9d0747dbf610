// DNS messages: bytes from apps and from upstreams become checked values, and
// values become bytes (RFC 1035, 2181, 2308, 6891, 9460).
//
//   OrFault<Query, QueryFault> query = ParseQuery(bytes);
//   if (!query) return Reply(WriteFaultAnswer(bytes, query.fault(), out));
//   ... ask an upstream with WriteQuery(), then
//   OrFault<AnswerView, AnswerFault> view = ParseAnswer(received);
//   if (!view || !view->Answers(asked)) return;           // forged or broken
//   StoredAnswer stored(*view, limits);                   // cache, coalescing
//   Reply(WriteAnswer(*query, stored, WriteOptions{.limit = 1232}, out));
//
// Every Write function fills the start of `out` and returns that part of it,
// empty if `out` is too small: one buffer of kMaxMessageSize on the loop thread
// serves them all, and nothing is allocated. Parsing is total: any bytes give
// a value or a fault.
#ifndef CORE_DNS_MESSAGE_H_
#define CORE_DNS_MESSAGE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/base/bytes.h"
#include "core/dns/name.h"
#include "core/wire/ip_address.h"

namespace netstack::dns {

inline constexpr size_t kHeaderSize = 12;
inline constexpr size_t kMaxMessageSize = 65535;
// What an asker without EDNS can take over UDP (RFC 1035, 4.2.1).
inline constexpr size_t kPlainUdpSize = 512;
// What we tell upstreams and apps that we take over UDP (RFC 9715).
inline constexpr uint16_t kOurUdpSize = 1232;

// Numbers of the IANA registries, as they stand in messages.
namespace type {
inline constexpr uint16_t kA = 1;
inline constexpr uint16_t kNs = 2;
inline constexpr uint16_t kCname = 5;
inline constexpr uint16_t kSoa = 6;
inline constexpr uint16_t kPtr = 12;
inline constexpr uint16_t kMx = 15;
inline constexpr uint16_t kTxt = 16;
inline constexpr uint16_t kAaaa = 28;
inline constexpr uint16_t kSrv = 33;
inline constexpr uint16_t kDname = 39;
inline constexpr uint16_t kOpt = 41;
inline constexpr uint16_t kSvcb = 64;
inline constexpr uint16_t kHttps = 65;
inline constexpr uint16_t kIxfr = 251;
inline constexpr uint16_t kAxfr = 252;
inline constexpr uint16_t kAny = 255;
}  // namespace type
inline constexpr uint16_t kClassIn = 1;

enum class Rcode : uint16_t {
  kNoError = 0,
  kFormErr = 1,
  kServFail = 2,
  kNxDomain = 3,
  kNotImp = 4,
  kRefused = 5,
  kBadVersion = 16,  // in EDNS only
};

// "A", "HTTPS", else "TYPE123"; "NXDOMAIN", else "RCODE9".
std::string TypeName(uint16_t type);
std::string RcodeName(Rcode rcode);

// A value, or what is wrong with the bytes that it was to come from.
template <typename T, typename Fault>
class [[nodiscard]] OrFault {
 public:
  OrFault(T value) : v_(std::move(value)) {}  // NOLINT: implicit by design
  OrFault(Fault fault) : v_(fault) {}         // NOLINT: implicit by design

  explicit operator bool() const { return v_.index() == 0; }
  // Only when true, and only when false, respectively.
  T& operator*() { return std::get<0>(v_); }
  const T& operator*() const { return std::get<0>(v_); }
  T* operator->() { return &std::get<0>(v_); }
  const T* operator->() const { return &std::get<0>(v_); }
  Fault fault() const { return std::get<1>(v_); }

 private:
  std::variant<T, Fault> v_;
};

// --- Queries -----------------------------------------------------------------

// What EDNS says (RFC 6891); in a query without it, `present` is false and
// the rest is meaningless. Options that ask something of a resolver are told,
// the others are ignored as the RFC demands.
struct Edns {
  bool present = false;
  bool dnssec_ok = false;      // DO
  uint16_t udp_size = 0;       // as sent; see UdpLimit()
  bool client_subnet = false;  // RFC 7871; never passed on
  bool cookie = false;         // RFC 7873; never passed on
  bool padding = false;        // RFC 7830
  bool tcp_keepalive = false;  // RFC 7828
};

// A query that can be answered: opcode QUERY, one question of class IN, no
// zone transfer, EDNS version 0 or none. A value without references into the
// bytes that it came from.
struct Query {
  uint16_t id = 0;
  bool recursion_desired = true;   // RD
  bool authentic_data = false;     // AD
  bool checking_disabled = false;  // CD
  uint16_t type = type::kA;
  DnsName name;
  NameCase upper;  // of `name` as the app wrote it
  Edns edns;
};

// Why bytes are no such query. X(enumerator, name, what it means).
#define NETSTACK_DNS_QUERY_FAULTS(X)                                    \
  X(kTooShort, "TOO_SHORT", "shorter than a header; nothing to answer") \
  X(kIsAnswer, "IS_ANSWER", "an answer, not a query; never answered")   \
  X(kOpcode, "OPCODE", "an opcode other than QUERY: NOTIMP")            \
  X(kQuestionCount, "QUESTION_COUNT", "not one question: FORMERR")      \
  X(kBadName, "BAD_NAME", "the question's name is malformed: FORMERR")  \
  X(kCut, "CUT", "a question or a record runs beyond the end: FORMERR") \
  X(kUnexpectedRecords, "UNEXPECTED_RECORDS",                           \
    "answers, authorities or too many additional records: FORMERR")     \
  X(kBadEdns, "BAD_EDNS", "EDNS malformed or given twice: FORMERR")     \
  X(kEdnsVersion, "EDNS_VERSION", "EDNS of another version: BADVERS")   \
  X(kClass, "CLASS", "a class other than IN: REFUSED")                  \
  X(kType, "TYPE", "a type that nobody may ask for: FORMERR")           \
  X(kZoneTransfer, "ZONE_TRANSFER", "AXFR or IXFR: REFUSED")

enum class QueryFault : uint8_t {
#define NETSTACK_X(id, name, text) id,
  NETSTACK_DNS_QUERY_FAULTS(NETSTACK_X)
#undef NETSTACK_X
};

inline constexpr std::array kQueryFaultNames = {
#define NETSTACK_X(id, name, text) absl::string_view(name),
    NETSTACK_DNS_QUERY_FAULTS(NETSTACK_X)
#undef NETSTACK_X
};
inline constexpr size_t kQueryFaultCount = kQueryFaultNames.size();
static_assert(static_cast<size_t>(QueryFault::kZoneTransfer) + 1 ==
              kQueryFaultCount);

// At most 8 additional records are walked. Bytes behind the last one are
// ignored, as resolvers do. A compression pointer in the question is kBadName.
OrFault<Query, QueryFault> ParseQuery(Bytes message);

// The rcode that tells the asker; nullopt for what is not to be answered.
std::optional<Rcode> RcodeOf(QueryFault fault);

// The answer to a query that ParseQuery() refused: its id, opcode and RD, its
// question where that can be read. Empty for what is not to be answered.
Bytes WriteFaultAnswer(Bytes message, QueryFault fault, MutableBytes out);

// How many bytes of UDP payload an answer may have: 512 without EDNS, else
// what the asker says, at least 512 and at most `most`.
size_t UdpLimit(const Query& query, size_t most);

// A query of our own.
struct QueryToUpstream {
  uint16_t id = 0;  // zero for DoH (RFC 8484, 4.1)
  uint16_t type = type::kA;
  const DnsName* name = nullptr;  // of the caller
  NameCase upper;                 // "0x20" case; leave it for none
  bool recursion_desired = true;
  bool checking_disabled = false;
  bool authentic_data = true;  // RFC 6840, 5.7: tell us AD without DO
  bool dnssec_ok = false;
  bool edns = true;  // false for servers that answer FORMERR
  uint16_t udp_size = kOurUdpSize;
  // Pads the message to a multiple of it (RFC 8467: 128 when encrypted); zero
  // for none. Needs `edns`.
  uint16_t pad_to = 0;
};
// What of `query` is passed on: name, type, CD and DO. The pointer is to
// `query`'s name.
QueryToUpstream UpstreamQueryFor(const Query& query);
Bytes WriteQuery(const QueryToUpstream& query, MutableBytes out);

// --- Answers -----------------------------------------------------------------

// Why bytes are no answer that we pass on. X(enumerator, name, meaning).
#define NETSTACK_DNS_ANSWER_FAULTS(X)                                    \
  X(kTooShort, "TOO_SHORT", "shorter than a header")                     \
  X(kIsQuery, "IS_QUERY", "a query")                                     \
  X(kOpcode, "OPCODE", "an opcode other than QUERY")                     \
  X(kQuestionCount, "QUESTION_COUNT", "not one question")                \
  X(kBadName, "BAD_NAME", "a name malformed, looping or over 255 bytes") \
  X(kCut, "CUT", "a record runs beyond the end")                         \
  X(kBadRecord, "BAD_RECORD", "an address or a SOA of a wrong length")   \
  X(kBadEdns, "BAD_EDNS", "EDNS given twice or outside its section")

enum class AnswerFault : uint8_t {
#define NETSTACK_X(id, name, text) id,
  NETSTACK_DNS_ANSWER_FAULTS(NETSTACK_X)
#undef NETSTACK_X
};

inline constexpr std::array kAnswerFaultNames = {
#define NETSTACK_X(id, name, text) absl::string_view(name),
    NETSTACK_DNS_ANSWER_FAULTS(NETSTACK_X)
#undef NETSTACK_X
};
inline constexpr size_t kAnswerFaultCount = kAnswerFaultNames.size();
static_assert(static_cast<size_t>(AnswerFault::kBadEdns) + 1 ==
              kAnswerFaultCount);

enum class Section : uint8_t { kAnswer, kAuthority, kAdditional };

// A resource record where it stands in its message; checked to lie inside.
struct Record {
  Section section = Section::kAnswer;
  uint16_t type = 0;
  uint16_t rclass = 0;
  uint32_t ttl = 0;     // above 2^31 - 1 told as 0 (RFC 2181, section 8)
  size_t owner_at = 0;  // offsets into the message
  size_t ttl_at = 0;
  size_t rdata_at = 0;
  size_t rdata_size = 0;
};

// An address that an answer leads to.
struct AnswerAddress {
  IpAddress ip;
  uint32_t ttl = 0;
  bool is_hint = false;  // not an address record of the answer section
  friend bool operator==(const AnswerAddress&, const AnswerAddress&) = default;
};

// A checked answer over the caller's bytes, which must outlive it: one
// question; every record lies inside the message; all owner names, and the
// names in CNAME, DNAME, NS, PTR, MX and SOA, decode; A, AAAA and SOA have
// their sizes; at most one OPT. Bytes behind the last record are cut.
class AnswerView {
 public:
  Bytes message() const { return message_; }
  uint16_t id() const;
  Rcode rcode() const { return rcode_; }  // with EDNS' upper bits
  bool truncated() const;                 // TC
  bool authentic_data() const;            // AD

  // The question as the answer repeats it.
  const DnsName& name() const { return name_; }
  const NameCase& upper() const { return upper_; }
  uint16_t type() const { return type_; }
  uint16_t qclass() const { return qclass_; }

  // Whether it answers that question: name, type and class IN are equal, and
  // the name's case too when `query` mixed it. The id is the caller's matter.
  bool Answers(const QueryToUpstream& query) const;

  size_t answer_count() const { return counts_[0]; }
  size_t record_count() const {
    return size_t{counts_[0]} + counts_[1] + counts_[2];
  }

  // NXDOMAIN, or NOERROR without a record of the asked type (RFC 2308).
  bool IsNegative() const;

  // Seconds that it may be kept: the least TTL among the answers; of a
  // negative answer the lesser of its SOA's TTL and minimum, and nullopt
  // without a SOA (RFC 2308, section 5); nullopt for every other rcode.
  std::optional<uint32_t> Ttl() const;

  // Calls fn(const Record&) in order, OPT left out. False from `fn` ends it.
  template <typename Fn>
  void ForEachRecord(Fn&& fn) const;

  // The name at an offset that a Record gave, at an owner or a name in rdata.
  DnsName NameAt(size_t at) const;

  // Addresses in the answer section, then what clients may use without asking
  // again: hints of SVCB and HTTPS records, and addresses in the additional
  // section (RFC 9460, 4.1). In order of the message, at most `most`.
  std::vector<AnswerAddress> Addresses(size_t most = 256) const;

  // Names that the answer leads through besides the asked one: targets of
  // CNAME, DNAME, SVCB and HTTPS in the answer section, at most `most`.
  std::vector<DnsName> TargetNames(size_t most = 16) const;

 private:
  friend struct AnswerReader;

  // The record at `at`, which was checked; moves `at` behind it.
  Record ReadRecord(size_t& at, size_t index) const;

  Bytes message_;
  DnsName name_;
  NameCase upper_;
  uint16_t type_ = 0;
  uint16_t qclass_ = 0;
  Rcode rcode_ = Rcode::kNoError;
  std::array<uint16_t, 3> counts_{};  // by Section, with OPT
  size_t records_at_ = 0;
  // Offset and place of the OPT among the records; zero and all for none.
  size_t opt_at_ = 0;
  size_t opt_index_ = SIZE_MAX;

  friend class StoredAnswer;
};

OrFault<AnswerView, AnswerFault> ParseAnswer(Bytes message);

// How long answers are kept and what TTL apps are told, in seconds.
struct TtlLimits {
  uint32_t min = 0;
  uint32_t max = 86400;
  uint32_t max_negative = 3600;
  // Of SERVFAIL and other rcodes that tell of trouble (RFC 9520: 1-300); zero
  // for not at all.
  uint32_t failure = 5;

  friend bool operator==(const TtlLimits&, const TtlLimits&) = default;
};

// An answer made independent of who asked: question in lower case, id zero, no
// EDNS, TTLs within the limits. In memory one block.
class StoredAnswer {
 public:
  StoredAnswer() = default;
  // Records behind an OPT that is not the last are left out: taking it out
  // from between them would move what compression pointers point at. They
  // can only be additional.
  StoredAnswer(const AnswerView& view, const TtlLimits& limits);

  bool empty() const { return size_ == 0; }
  Bytes message() const { return Bytes(block_).first(size_); }
  Rcode rcode() const { return rcode_; }
  bool is_negative() const { return negative_; }
  // Seconds from its arrival that it is fresh; zero: not to be kept.
  uint32_t ttl() const { return ttl_; }
  size_t memory() const { return sizeof(*this) + block_.capacity(); }

 private:
  friend Bytes WriteAnswer(const Query&, const StoredAnswer&,
                           const struct WriteOptions&, MutableBytes);

  std::vector<std::byte> block_;  // the message, then 16-bit TTL offsets
  uint16_t size_ = 0;             // of the message
  uint16_t question_end_ = 0;
  uint16_t ttl_count_ = 0;
  bool negative_ = false;
  bool authentic_ = false;
  Rcode rcode_ = Rcode::kNoError;
  uint32_t ttl_ = 0;
};

// RFC 8914; told to askers with EDNS.
enum class ExtendedError : uint16_t {
  kStaleAnswer = 3,
  kForgedAnswer = 4,  // a rewrite
  kBlocked = 15,      // by the operator's lists or rules
  kFiltered = 17,     // by the user's wish
  kStaleNxDomain = 19,
  kNoReachableAuthority = 22,
  kNetworkError = 23,
};

struct WriteOptions {
  // Bytes that the asker can take: UdpLimit(), or kMaxMessageSize over TCP. A
  // larger answer becomes its question with TC set (RFC 2181, section 9), but
  // first loses the extended error, and at kMaxMessageSize the OPT record.
  size_t limit = kMaxMessageSize;
  // Seconds since the answer came; TTLs are told less by it.
  uint32_t age = 0;
  // What is told instead of a TTL that has run out (RFC 8767: 30).
  uint32_t expired_ttl = 0;
  std::optional<ExtendedError> extended_error = std::nullopt;
};

// `stored` as the answer to `query`: its id, RD, CD, the question's case, EDNS
// if it has it, AD only if it asked for AD or DO (RFC 6840, 5.8). The names
// and types are the same (the caller's matter). One copy, and a patch per TTL.
Bytes WriteAnswer(const Query& query, const StoredAnswer& stored,
                  const WriteOptions& options, MutableBytes out);

// No records but the question; `rcode` says why.
Bytes WriteErrorAnswer(const Query& query, Rcode rcode, MutableBytes out,
                       std::optional<ExtendedError> extended_error = {});

// The question with TC: the asker comes again over TCP.
Bytes WriteTruncatedAnswer(const Query& query, MutableBytes out);

// How a blocked name is answered.
enum class BlockAnswer : uint8_t {
  kNullAddress,  // 0.0.0.0 and ::, no data for other types
  kNxDomain,
  kRefused,  // apps ask again and again
};

// `ttl`: seconds, of the null address and of the SOA that lets the asker keep
// a negative answer.
Bytes WriteBlockAnswer(const Query& query, BlockAnswer how, uint32_t ttl,
                       MutableBytes out);

// Our own answer: an optional CNAME, then those of `addresses` that are of the
// asked type, owned by the CNAME's target. Without any that is "no data" with
// a SOA. `ttl` is of all of them. Addresses that do not fit `out` are left
// out.
Bytes WriteRewriteAnswer(const Query& query, const DnsName* cname,
                         std::span<const IpAddress> addresses, uint32_t ttl,
                         MutableBytes out);

// --- The implementation of ForEachRecord -------------------------------------

template <typename Fn>
void AnswerView::ForEachRecord(Fn&& fn) const {
  size_t at = records_at_;
  for (size_t i = 0; i < record_count(); ++i) {
    const Record record = ReadRecord(at, i);
    if (i == opt_index_) continue;
    if (!fn(record)) return;
  }
}

}  // namespace netstack::dns

#endif  // CORE_DNS_MESSAGE_H_

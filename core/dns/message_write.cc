// Writing. Parsing is message.cc.
#include <algorithm>

#include "core/dns/message.h"
#include "core/dns/message_bits.h"

namespace netstack::dns {
namespace {

// Appends to a buffer of the caller; what does not fit makes it empty.
class Writer {
 public:
  explicit Writer(MutableBytes out)
      : out_(out.first(std::min(out.size(), kMaxMessageSize))) {}

  size_t size() const { return size_; }
  bool Fits(size_t more) const { return !full_ && out_.size() - size_ >= more; }
  std::byte* at(size_t offset) { return &out_[offset]; }

  void Put16(uint16_t v) {
    if (std::byte* p = Grow(2)) Store16(p, v);
  }
  void Put32(uint32_t v) {
    if (std::byte* p = Grow(4)) Store32(p, v);
  }
  void Put(Bytes bytes) {
    std::byte* p = Grow(bytes.size());
    if (p != nullptr && !bytes.empty()) {
      std::memcpy(p, bytes.data(), bytes.size());
    }
  }
  void PutZeros(size_t count) {
    std::byte* p = Grow(count);
    if (p != nullptr && count > 0) std::memset(p, 0, count);
  }

  // Of the header, which is always there when something was written.
  void Count(size_t offset, uint16_t by) {
    if (full_) return;
    Store16(&out_[offset], static_cast<uint16_t>(Load16(&out_[offset]) + by));
  }

  Bytes Finish() const { return full_ ? Bytes() : Bytes(out_).first(size_); }

 private:
  std::byte* Grow(size_t by) {
    if (!Fits(by)) {
      full_ = true;
      return nullptr;
    }
    size_ += by;
    return by == 0 ? nullptr : &out_[size_ - by];
  }

  MutableBytes out_;
  size_t size_ = 0;
  bool full_ = false;
};

// Offsets of the counts in a header.
constexpr size_t kAnswerCount = 6, kAuthorityCount = 8, kAdditionalCount = 10;

void PutHeader(Writer& w, uint16_t id, uint16_t flags, uint16_t questions) {
  w.Put16(id);
  w.Put16(flags);
  w.Put16(questions);
  w.PutZeros(6);
}

// Letters back to upper case in a name that was just written there.
void RestoreCase(const NameCase& upper, size_t size, std::byte* name) {
  if (!upper.any()) return;
  for (size_t i = 0; i < size; ++i) {
    if (upper.IsUpper(i)) name[i] ^= std::byte{0x20};
  }
}

void PutQuestion(Writer& w, const DnsName& name, const NameCase& upper,
                 uint16_t type) {
  if (!w.Fits(name.size() + 4)) return w.PutZeros(SIZE_MAX);
  const size_t at = w.size();
  w.Put(name.wire());
  RestoreCase(upper, name.size(), w.at(at));
  w.Put16(type);
  w.Put16(kClassIn);
}

void PutOpt(Writer& w, uint16_t udp_size, uint32_t ttl, size_t options) {
  w.PutZeros(1);
  w.Put16(type::kOpt);
  w.Put16(udp_size);
  w.Put32(ttl);
  w.Put16(static_cast<uint16_t>(options));
  w.Count(kAdditionalCount, 1);
}

// The OPT record of an answer.
void PutAnswerOpt(Writer& w, const Query& query, Rcode rcode,
                  std::optional<ExtendedError> error) {
  const uint32_t ttl = static_cast<uint32_t>(static_cast<uint16_t>(rcode) >> 4)
                           << 24 |
                       (query.edns.dnssec_ok ? kDnssecOk : 0);
  PutOpt(w, kOurUdpSize, ttl, error ? 6 : 0);
  if (error) {
    w.Put16(option::kExtendedError);
    w.Put16(2);
    w.Put16(static_cast<uint16_t>(*error));
  }
}

size_t AnswerOptSize(const Query& query, std::optional<ExtendedError> error) {
  if (!query.edns.present) return 0;
  return kOptSize + (error ? 6 : 0);
}

uint16_t AnswerFlags(const Query& query, Rcode rcode) {
  unsigned flags = flag::kAnswer | flag::kRecursionAvailable |
                   (static_cast<uint16_t>(rcode) & flag::kRcodeMask);
  if (query.recursion_desired) flags |= flag::kRecursionDesired;
  if (query.checking_disabled) flags |= flag::kCheckingDisabled;
  return static_cast<uint16_t>(flags);
}

// Header and question of an answer of ours.
void PutAnswerHead(Writer& w, const Query& query, uint16_t flags) {
  PutHeader(w, query.id, flags, 1);
  PutQuestion(w, query.name, query.upper, query.type);
}

// Header, question and OPT.
Bytes WriteBare(const Query& query, uint16_t more_flags, Rcode rcode,
                std::optional<ExtendedError> error, MutableBytes out) {
  Writer w(out);
  PutAnswerHead(w, query,
                static_cast<uint16_t>(AnswerFlags(query, rcode) | more_flags));
  if (query.edns.present) PutAnswerOpt(w, query, rcode, error);
  return w.Finish();
}

// A record but its data: owner (a pointer), type, class, TTL.
void PutRecordHead(Writer& w, uint16_t owner, uint16_t type, uint32_t ttl) {
  w.Put16(owner);
  w.Put16(type);
  w.Put16(kClassIn);
  w.Put32(ttl);
}

constexpr size_t kPointedHead = 2 + kRecordHeadSize;

void PutAddress(Writer& w, uint16_t owner, const IpAddress& ip, uint32_t ttl) {
  const bool v4 = ip.IsV4();
  PutRecordHead(w, owner, v4 ? type::kA : type::kAaaa, ttl);
  w.Put16(v4 ? 4 : 16);
  w.Put(v4 ? Bytes(ip.v4(), 4) : Bytes(ip.v6(), 16));
  w.Count(kAnswerCount, 1);
}

// A SOA of the asked name, so that askers keep the negative answer for `ttl`
// (RFC 2308, section 5). Nobody is named in it: "." and ".".
void PutSoa(Writer& w, uint16_t owner, uint32_t ttl) {
  PutRecordHead(w, owner, type::kSoa, ttl);
  w.Put16(2 + kSoaNumbersSize);
  w.PutZeros(2);
  w.Put32(1);       // serial
  w.Put32(3600);    // refresh
  w.Put32(600);     // retry
  w.Put32(604800);  // expire
  w.Put32(ttl);     // minimum
  w.Count(kAuthorityCount, 1);
}

}  // namespace

Bytes WriteFaultAnswer(Bytes message, QueryFault fault, MutableBytes out) {
  const std::optional<Rcode> rcode = RcodeOf(fault);
  if (!rcode) return {};
  const uint16_t asked = Load16(&message[2]);
  const auto code = static_cast<uint16_t>(*rcode);
  Writer w(out);
  PutHeader(w, Load16(message.data()),
            static_cast<uint16_t>(
                flag::kAnswer | flag::kRecursionAvailable |
                (asked & (flag::kOpcodeMask | flag::kRecursionDesired)) |
                (code & flag::kRcodeMask)),
            0);
  const std::optional<ReadName> name = ReadPlainNameAt(message, kHeaderSize);
  if (Load16(&message[4]) == 1 && name && message.size() - name->end >= 4) {
    w.Put(message.subspan(kHeaderSize, name->end + 4 - kHeaderSize));
    w.Count(4, 1);
  }
  if (code > flag::kRcodeMask) {
    PutOpt(w, kOurUdpSize, static_cast<uint32_t>(code >> 4) << 24, 0);
  }
  return w.Finish();
}

Bytes WriteQuery(const QueryToUpstream& query, MutableBytes out) {
  unsigned flags = 0;
  if (query.recursion_desired) flags |= flag::kRecursionDesired;
  if (query.checking_disabled) flags |= flag::kCheckingDisabled;
  if (query.authentic_data) flags |= flag::kAuthenticData;
  Writer w(out);
  PutHeader(w, query.id, static_cast<uint16_t>(flags), 1);
  PutQuestion(w, *query.name, query.upper, query.type);
  if (!query.edns) return w.Finish();

  const uint32_t ttl = query.dnssec_ok ? kDnssecOk : 0;
  if (query.pad_to == 0) {
    PutOpt(w, query.udp_size, ttl, 0);
    return w.Finish();
  }
  const size_t bare = w.size() + kOptSize + 4;
  const size_t padding = (query.pad_to - bare % query.pad_to) % query.pad_to;
  PutOpt(w, query.udp_size, ttl, 4 + padding);
  w.Put16(option::kPadding);
  w.Put16(static_cast<uint16_t>(padding));
  w.PutZeros(padding);
  return w.Finish();
}

Bytes WriteAnswer(const Query& query, const StoredAnswer& stored,
                  const WriteOptions& options, MutableBytes out) {
  const size_t limit = std::min(options.limit, kMaxMessageSize);
  std::optional<ExtendedError> error = options.extended_error;
  bool opt = query.edns.present;
  if (stored.size_ + AnswerOptSize(query, error) > limit) error.reset();
  // Of the largest messages the records count more than our OPT: over TCP
  // there is no way to ask again for more room.
  if (limit == kMaxMessageSize && stored.size_ + kOptSize > limit) opt = false;
  const size_t size = stored.size_ + (opt ? AnswerOptSize(query, error) : 0);
  if (size > limit) return WriteTruncatedAnswer(query, out);
  Writer w(out);
  if (!w.Fits(size)) return {};
  w.Put(stored.message());
  std::byte* p = w.at(0);
  Store16(p, query.id);
  uint16_t flags = AnswerFlags(query, stored.rcode_);
  const bool wants_ad =
      query.authentic_data || (query.edns.present && query.edns.dnssec_ok);
  if (stored.authentic_ && wants_ad) flags |= flag::kAuthenticData;
  Store16(p + 2, flags);
  RestoreCase(query.upper, query.name.size(), p + kHeaderSize);

  const std::byte* offset = stored.block_.data() + stored.size_;
  for (uint16_t i = 0; i < stored.ttl_count_; ++i, offset += 2) {
    std::byte* ttl_at = p + Load16(offset);
    const uint32_t ttl = Load32(ttl_at);
    Store32(ttl_at,
            ttl > options.age ? ttl - options.age : options.expired_ttl);
  }
  if (opt) PutAnswerOpt(w, query, stored.rcode_, error);
  return w.Finish();
}

Bytes WriteErrorAnswer(const Query& query, Rcode rcode, MutableBytes out,
                       std::optional<ExtendedError> extended_error) {
  return WriteBare(query, 0, rcode, extended_error, out);
}

Bytes WriteTruncatedAnswer(const Query& query, MutableBytes out) {
  return WriteBare(query, flag::kTruncated, Rcode::kNoError, {}, out);
}

Bytes WriteBlockAnswer(const Query& query, BlockAnswer how, uint32_t ttl,
                       MutableBytes out) {
  if (how == BlockAnswer::kRefused) {
    return WriteErrorAnswer(query, Rcode::kRefused, out,
                            ExtendedError::kBlocked);
  }
  const bool nxdomain = how == BlockAnswer::kNxDomain;
  const Rcode rcode = nxdomain ? Rcode::kNxDomain : Rcode::kNoError;
  Writer w(out);
  PutAnswerHead(w, query, AnswerFlags(query, rcode));
  if (!nxdomain && query.type == type::kA) {
    PutAddress(w, kQuestionPointer, IpAddress::V4(0, 0, 0, 0), ttl);
  } else if (!nxdomain && query.type == type::kAaaa) {
    PutAddress(w, kQuestionPointer, IpAddress(), ttl);
  } else {
    PutSoa(w, kQuestionPointer, ttl);
  }
  if (query.edns.present) {
    PutAnswerOpt(w, query, rcode, ExtendedError::kBlocked);
  }
  return w.Finish();
}

Bytes WriteRewriteAnswer(const Query& query, const DnsName* cname,
                         std::span<const IpAddress> addresses, uint32_t ttl,
                         MutableBytes out) {
  Writer w(out);
  PutAnswerHead(w, query, AnswerFlags(query, Rcode::kNoError));
  uint16_t owner = kQuestionPointer;
  if (cname != nullptr) {
    PutRecordHead(w, kQuestionPointer, type::kCname, ttl);
    w.Put16(static_cast<uint16_t>(cname->size()));
    owner = static_cast<uint16_t>(0xC000 | w.size());
    w.Put(cname->wire());
    w.Count(kAnswerCount, 1);
  }
  const size_t opt = AnswerOptSize(query, ExtendedError::kForgedAnswer);
  bool any = query.type == type::kCname && cname != nullptr;
  for (const IpAddress& ip : addresses) {
    const bool v4 = ip.IsV4();
    if (query.type != (v4 ? type::kA : type::kAaaa)) continue;
    any = true;
    if (!w.Fits(kPointedHead + (v4 ? 4 : 16) + opt)) break;
    PutAddress(w, owner, ip, ttl);
  }
  if (!any) PutSoa(w, owner, ttl);
  if (query.edns.present) {
    PutAnswerOpt(w, query, Rcode::kNoError, ExtendedError::kForgedAnswer);
  }
  return w.Finish();
}

}  // namespace netstack::dns

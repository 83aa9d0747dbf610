// Parsing. Writing is message_write.cc.
#include "core/dns/message.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/dns/message_bits.h"

namespace netstack::dns {
namespace {

// Meta types that no question may hold, and the obsolete MAILB and MAILA.
bool IsAskable(uint16_t type) {
  constexpr uint16_t kTkey = 249, kTsig = 250, kMailB = 253, kMailA = 254;
  return type != 0 && type != type::kOpt && type != kTkey && type != kTsig &&
         type != kMailB && type != kMailA;
}

constexpr uint16_t kMaxAdditional = 8;

// What the fixed part of a record says; the name before it was read.
struct RecordHead {
  uint16_t type;
  uint16_t rclass;
  uint32_t ttl;
  size_t rdata_at;
  size_t rdata_size;
};

// The head at `at`; nullopt when it, or the data it tells of, is cut.
std::optional<RecordHead> ReadHead(Bytes message, size_t at) {
  if (message.size() - at < kRecordHeadSize) return std::nullopt;
  const std::byte* p = &message[at];
  const RecordHead head{Load16(p), Load16(p + 2), Load32(p + 4),
                        at + kRecordHeadSize, Load16(p + 8)};
  if (message.size() - head.rdata_at < head.rdata_size) return std::nullopt;
  return head;
}

// The options of an OPT record; false when one is cut.
bool ReadOptions(Bytes options, Edns& edns) {
  while (!options.empty()) {
    if (options.size() < 4) return false;
    const uint16_t code = Load16(options.data());
    const size_t size = Load16(options.data() + 2);
    if (options.size() - 4 < size) return false;
    switch (code) {
      case option::kClientSubnet:
        edns.client_subnet = true;
        break;
      case option::kCookie:
        edns.cookie = true;
        break;
      case option::kTcpKeepalive:
        edns.tcp_keepalive = true;
        break;
      case option::kPadding:
        edns.padding = true;
        break;
      default:
        break;
    }
    options = options.subspan(4 + size);
  }
  return true;
}

// The additional records of a query, of which only OPT means something to us.
std::optional<QueryFault> ReadAdditional(Bytes message, size_t at,
                                         uint16_t count, Edns& edns) {
  for (uint16_t i = 0; i < count; ++i) {
    const std::optional<size_t> end = SkipNameAt(message, at);
    if (!end) return QueryFault::kCut;
    const std::optional<RecordHead> head = ReadHead(message, *end);
    if (!head) return QueryFault::kCut;
    if (head->type == type::kOpt) {
      // RFC 6891, 6.1.1 and 6.1.2.
      if (edns.present || *end != at + 1) return QueryFault::kBadEdns;
      edns.present = true;
      edns.udp_size = head->rclass;
      if ((head->ttl >> 16 & 0xFF) != 0) return QueryFault::kEdnsVersion;
      edns.dnssec_ok = (head->ttl & kDnssecOk) != 0;
      if (!ReadOptions(message.subspan(head->rdata_at, head->rdata_size),
                       edns)) {
        return QueryFault::kBadEdns;
      }
    }
    at = head->rdata_at + head->rdata_size;
  }
  return std::nullopt;
}

// The seconds of a record's TTL field (RFC 2181, section 8).
uint32_t Seconds(uint32_t ttl) { return ttl > 0x7FFFFFFF ? 0 : ttl; }

// An SVCB or HTTPS record's data; of a malformed one nothing may be used
// (RFC 9460, 2.2).
struct Svcb {
  DnsName target;
  Bytes v4_hints;  // multiples of 4 and of 16 bytes
  Bytes v6_hints;
};

std::optional<Svcb> ReadSvcb(Bytes rdata) {
  constexpr uint16_t kV4Hint = 4, kV6Hint = 6;
  Svcb svcb;
  if (rdata.size() < 3) return std::nullopt;
  const std::optional<ReadName> target = ReadPlainNameAt(rdata, 2);
  if (!target) return std::nullopt;
  svcb.target = target->name;
  int last = -1;
  for (Bytes rest = rdata.subspan(target->end); !rest.empty();) {
    if (rest.size() < 4) return std::nullopt;
    const int key = Load16(rest.data());
    const size_t size = Load16(rest.data() + 2);
    if (key <= last || rest.size() - 4 < size) return std::nullopt;
    last = key;
    const Bytes value = rest.subspan(4, size);
    if (key == kV4Hint || key == kV6Hint) {
      const size_t unit = key == kV4Hint ? 4 : 16;
      if (size == 0 || size % unit != 0) return std::nullopt;
      (key == kV4Hint ? svcb.v4_hints : svcb.v6_hints) = value;
    }
    rest = rest.subspan(4 + size);
  }
  return svcb;
}

bool IsSvcb(uint16_t type) {
  return type == type::kSvcb || type == type::kHttps;
}

}  // namespace

std::string TypeName(uint16_t type) {
  static constexpr std::pair<uint16_t, absl::string_view> kNames[] = {
      {type::kA, "A"},
      {type::kNs, "NS"},
      {type::kCname, "CNAME"},
      {type::kSoa, "SOA"},
      {type::kPtr, "PTR"},
      {type::kMx, "MX"},
      {type::kTxt, "TXT"},
      {type::kAaaa, "AAAA"},
      {type::kSrv, "SRV"},
      {35, "NAPTR"},
      {type::kDname, "DNAME"},
      {43, "DS"},
      {46, "RRSIG"},
      {47, "NSEC"},
      {48, "DNSKEY"},
      {50, "NSEC3"},
      {52, "TLSA"},
      {type::kSvcb, "SVCB"},
      {type::kHttps, "HTTPS"},
      {type::kAny, "ANY"},
      {257, "CAA"},
  };
  for (const auto& [number, name] : kNames) {
    if (number == type) return std::string(name);
  }
  return absl::StrCat("TYPE", type);
}

std::string RcodeName(Rcode rcode) {
  switch (rcode) {
    case Rcode::kNoError:
      return "NOERROR";
    case Rcode::kFormErr:
      return "FORMERR";
    case Rcode::kServFail:
      return "SERVFAIL";
    case Rcode::kNxDomain:
      return "NXDOMAIN";
    case Rcode::kNotImp:
      return "NOTIMP";
    case Rcode::kRefused:
      return "REFUSED";
    case Rcode::kBadVersion:
      return "BADVERS";
  }
  return absl::StrCat("RCODE", static_cast<uint16_t>(rcode));
}

// --- Queries -----------------------------------------------------------------

OrFault<Query, QueryFault> ParseQuery(Bytes message) {
  if (message.size() < kHeaderSize) return QueryFault::kTooShort;
  const std::byte* head = message.data();
  const uint16_t flags = Load16(head + 2);
  if (flags & flag::kAnswer) return QueryFault::kIsAnswer;
  if (flags & flag::kOpcodeMask) return QueryFault::kOpcode;
  if (Load16(head + 4) != 1) return QueryFault::kQuestionCount;

  const std::optional<ReadName> name = ReadPlainNameAt(message, kHeaderSize);
  if (!name) return QueryFault::kBadName;
  if (message.size() - name->end < 4) return QueryFault::kCut;
  Query query;
  query.id = Load16(head);
  query.recursion_desired = (flags & flag::kRecursionDesired) != 0;
  query.authentic_data = (flags & flag::kAuthenticData) != 0;
  query.checking_disabled = (flags & flag::kCheckingDisabled) != 0;
  query.name = name->name;
  query.upper = name->upper;
  query.type = Load16(&message[name->end]);
  if (Load16(&message[name->end + 2]) != kClassIn) return QueryFault::kClass;
  if (query.type == type::kAxfr || query.type == type::kIxfr) {
    return QueryFault::kZoneTransfer;
  }
  if (!IsAskable(query.type)) return QueryFault::kType;

  const uint16_t additional = Load16(head + 10);
  if (Load16(head + 6) != 0 || Load16(head + 8) != 0 ||
      additional > kMaxAdditional) {
    return QueryFault::kUnexpectedRecords;
  }
  const std::optional<QueryFault> fault =
      ReadAdditional(message, name->end + 4, additional, query.edns);
  if (fault) return *fault;
  return query;
}

std::optional<Rcode> RcodeOf(QueryFault fault) {
  switch (fault) {
    case QueryFault::kTooShort:
    case QueryFault::kIsAnswer:
      return std::nullopt;
    case QueryFault::kOpcode:
      return Rcode::kNotImp;
    case QueryFault::kQuestionCount:
    case QueryFault::kBadName:
    case QueryFault::kCut:
    case QueryFault::kUnexpectedRecords:
    case QueryFault::kBadEdns:
    case QueryFault::kType:
      return Rcode::kFormErr;
    case QueryFault::kEdnsVersion:
      return Rcode::kBadVersion;
    case QueryFault::kClass:
    case QueryFault::kZoneTransfer:
      return Rcode::kRefused;
  }
  return Rcode::kServFail;
}

size_t UdpLimit(const Query& query, size_t most) {
  if (!query.edns.present) return kPlainUdpSize;
  return std::min(std::max<size_t>(query.edns.udp_size, kPlainUdpSize),
                  std::max(most, kPlainUdpSize));
}

QueryToUpstream UpstreamQueryFor(const Query& query) {
  QueryToUpstream up;
  up.type = query.type;
  up.name = &query.name;
  up.checking_disabled = query.checking_disabled;
  up.dnssec_ok = query.edns.present && query.edns.dnssec_ok;
  return up;
}

// --- Answers -----------------------------------------------------------------

// Fills an AnswerView while checking its message.
struct AnswerReader {
  Bytes message;
  AnswerView view;
  size_t at = 0;

  std::optional<AnswerFault> ReadQuestion();
  std::optional<AnswerFault> ReadRecords();
  std::optional<AnswerFault> ReadOpt(const RecordHead& head, size_t start,
                                     size_t index);
  // Whether the data of a record of a known type holds together.
  std::optional<AnswerFault> CheckData(const RecordHead& head) const;
  std::optional<AnswerFault> CheckName(size_t from, size_t end) const;
  std::optional<AnswerFault> CheckSoa(size_t from, size_t end) const;
};

std::optional<AnswerFault> AnswerReader::ReadQuestion() {
  if (message.size() < kHeaderSize) return AnswerFault::kTooShort;
  const std::byte* head = message.data();
  const uint16_t flags = Load16(head + 2);
  if (!(flags & flag::kAnswer)) return AnswerFault::kIsQuery;
  if (flags & flag::kOpcodeMask) return AnswerFault::kOpcode;
  if (Load16(head + 4) != 1) return AnswerFault::kQuestionCount;
  view.rcode_ = static_cast<Rcode>(flags & flag::kRcodeMask);
  for (size_t i = 0; i < 3; ++i) view.counts_[i] = Load16(head + 6 + 2 * i);

  const std::optional<ReadName> name = ReadPlainNameAt(message, kHeaderSize);
  if (!name) return AnswerFault::kBadName;
  if (message.size() - name->end < 4) return AnswerFault::kCut;
  view.name_ = name->name;
  view.upper_ = name->upper;
  view.type_ = Load16(&message[name->end]);
  view.qclass_ = Load16(&message[name->end + 2]);
  at = view.records_at_ = name->end + 4;
  return std::nullopt;
}

std::optional<AnswerFault> AnswerReader::ReadRecords() {
  for (size_t i = 0; i < view.record_count(); ++i) {
    const size_t start = at;
    if (start == message.size()) return AnswerFault::kCut;
    const std::optional<size_t> owner_end = SkipNameAt(message, start);
    if (!owner_end) return AnswerFault::kBadName;
    const std::optional<RecordHead> head = ReadHead(message, *owner_end);
    if (!head) return AnswerFault::kCut;
    std::optional<AnswerFault> fault;
    if (head->type == type::kOpt) {
      fault = ReadOpt(*head, start, i);
    } else {
      fault = CheckData(*head);
    }
    if (fault) return fault;
    at = head->rdata_at + head->rdata_size;
  }
  view.message_ = message.first(at);
  return std::nullopt;
}

std::optional<AnswerFault> AnswerReader::ReadOpt(const RecordHead& head,
                                                 size_t start, size_t index) {
  const bool additional = index >= size_t{view.counts_[0]} + view.counts_[1];
  const bool root = Load8(&message[start]) == 0;
  if (view.opt_at_ != 0 || !additional || !root) return AnswerFault::kBadEdns;
  view.opt_at_ = start;
  view.opt_index_ = index;
  view.rcode_ = static_cast<Rcode>(static_cast<uint16_t>(view.rcode_) |
                                   (head.ttl >> 24 << 4));
  return std::nullopt;
}

std::optional<AnswerFault> AnswerReader::CheckData(
    const RecordHead& head) const {
  const size_t from = head.rdata_at;
  const size_t end = from + head.rdata_size;
  switch (head.type) {
    case type::kA:
    case type::kAaaa:
      if (head.rclass == kClassIn &&
          head.rdata_size != (head.type == type::kA ? 4 : 16)) {
        return AnswerFault::kBadRecord;
      }
      return std::nullopt;
    case type::kCname:
    case type::kDname:
    case type::kNs:
    case type::kPtr:
      return CheckName(from, end);
    case type::kMx:
      if (head.rdata_size < 2) return AnswerFault::kBadRecord;
      return CheckName(from + 2, end);
    case type::kSoa:
      return CheckSoa(from, end);
    default:
      return std::nullopt;
  }
}

std::optional<AnswerFault> AnswerReader::CheckName(size_t from,
                                                   size_t end) const {
  // The name may not borrow bytes behind its record, but by pointers.
  const std::optional<size_t> name_end = SkipNameAt(message.first(end), from);
  if (!name_end) return AnswerFault::kBadName;
  if (*name_end != end) return AnswerFault::kBadRecord;
  return std::nullopt;
}

std::optional<AnswerFault> AnswerReader::CheckSoa(size_t from,
                                                  size_t end) const {
  const std::optional<size_t> server = SkipNameAt(message.first(end), from);
  if (!server) return AnswerFault::kBadName;
  const std::optional<size_t> mailbox = SkipNameAt(message.first(end), *server);
  if (!mailbox) return AnswerFault::kBadName;
  if (end - *mailbox != kSoaNumbersSize) return AnswerFault::kBadRecord;
  return std::nullopt;
}

OrFault<AnswerView, AnswerFault> ParseAnswer(Bytes message) {
  AnswerReader reader;
  reader.message = message.first(std::min(message.size(), kMaxMessageSize));
  std::optional<AnswerFault> fault = reader.ReadQuestion();
  if (!fault) fault = reader.ReadRecords();
  if (fault) return *fault;
  return reader.view;
}

uint16_t AnswerView::id() const { return Load16(message_.data()); }

bool AnswerView::truncated() const {
  return (Load16(&message_[2]) & flag::kTruncated) != 0;
}

bool AnswerView::authentic_data() const {
  return (Load16(&message_[2]) & flag::kAuthenticData) != 0;
}

bool AnswerView::Answers(const QueryToUpstream& query) const {
  return type_ == query.type && qclass_ == kClassIn && name_ == *query.name &&
         (!query.upper.any() || upper_ == query.upper);
}

Record AnswerView::ReadRecord(size_t& at, size_t index) const {
  Record record;
  record.section = index < counts_[0] ? Section::kAnswer
                   : index < size_t{counts_[0]} + counts_[1]
                       ? Section::kAuthority
                       : Section::kAdditional;
  record.owner_at = at;
  // Checked when the answer was parsed, so only the end is looked for.
  while (true) {
    const uint8_t length = Load8(&message_[at]);
    at += length >= 0xC0 ? 2 : 1u + length;
    if (length == 0 || length >= 0xC0) break;
  }
  const std::byte* p = &message_[at];
  record.type = Load16(p);
  record.rclass = Load16(p + 2);
  record.ttl_at = at + 4;
  record.ttl = Seconds(Load32(p + 4));
  record.rdata_size = Load16(p + 8);
  record.rdata_at = at + kRecordHeadSize;
  at = record.rdata_at + record.rdata_size;
  return record;
}

bool AnswerView::IsNegative() const {
  if (rcode_ == Rcode::kNxDomain) return true;
  if (rcode_ != Rcode::kNoError) return false;
  bool found = false;
  ForEachRecord([&](const Record& record) {
    if (record.section != Section::kAnswer) return false;
    found = type_ == type::kAny || record.type == type_;
    return !found;
  });
  return !found;
}

std::optional<uint32_t> AnswerView::Ttl() const {
  if (rcode_ != Rcode::kNoError && rcode_ != Rcode::kNxDomain) {
    return std::nullopt;
  }
  const bool negative = IsNegative();
  std::optional<uint32_t> ttl;
  bool has_soa = false;
  const auto lower_to = [&ttl](uint32_t seconds) {
    ttl = ttl ? std::min(*ttl, seconds) : seconds;
  };
  ForEachRecord([&](const Record& record) {
    if (record.section == Section::kAnswer) {
      lower_to(record.ttl);  // of a negative answer, its aliases
      return true;
    }
    if (record.section != Section::kAuthority || !negative) return false;
    if (record.type == type::kSoa) {
      has_soa = true;
      const size_t minimum = record.rdata_at + record.rdata_size - 4;
      lower_to(std::min(record.ttl, Seconds(Load32(&message_[minimum]))));
    }
    return true;
  });
  if (negative && !has_soa) return std::nullopt;
  return ttl;
}

DnsName AnswerView::NameAt(size_t at) const {
  const std::optional<ReadName> read = ReadNameAt(message_, at);
  return read ? read->name : DnsName();
}

std::vector<AnswerAddress> AnswerView::Addresses(size_t most) const {
  std::vector<AnswerAddress> found;
  const auto add = [&](bool v4, const std::byte* p, uint32_t ttl, bool hint) {
    if (found.size() == most) return;
    found.push_back({v4 ? IpAddress::V4(p) : IpAddress::V6(p), ttl, hint});
  };
  ForEachRecord([&](const Record& record) {
    if (record.section == Section::kAuthority || record.rclass != kClassIn) {
      return true;
    }
    const Bytes rdata = message_.subspan(record.rdata_at, record.rdata_size);
    if (record.type == type::kA || record.type == type::kAaaa) {
      add(record.type == type::kA, rdata.data(), record.ttl,
          record.section == Section::kAdditional);
    } else if (IsSvcb(record.type)) {
      const std::optional<Svcb> svcb = ReadSvcb(rdata);
      if (!svcb) return true;
      for (size_t i = 0; i < svcb->v4_hints.size(); i += 4) {
        add(true, &svcb->v4_hints[i], record.ttl, true);
      }
      for (size_t i = 0; i < svcb->v6_hints.size(); i += 16) {
        add(false, &svcb->v6_hints[i], record.ttl, true);
      }
    }
    return found.size() < most;
  });
  return found;
}

std::vector<DnsName> AnswerView::TargetNames(size_t most) const {
  std::vector<DnsName> found;
  ForEachRecord([&](const Record& record) {
    if (record.section != Section::kAnswer) return false;
    if (record.type == type::kCname || record.type == type::kDname) {
      found.push_back(NameAt(record.rdata_at));
    } else if (IsSvcb(record.type)) {
      const std::optional<Svcb> svcb =
          ReadSvcb(message_.subspan(record.rdata_at, record.rdata_size));
      // "." is the owner itself (RFC 9460, 2.5.2).
      if (svcb && !svcb->target.IsRoot()) found.push_back(svcb->target);
    }
    return found.size() < most;
  });
  return found;
}

// --- Stored answers ----------------------------------------------------------

StoredAnswer::StoredAnswer(const AnswerView& view, const TtlLimits& limits)
    : negative_(view.IsNegative()),
      authentic_(view.authentic_data()),
      rcode_(view.rcode()) {
  const Bytes from = view.message();
  if (static_cast<uint16_t>(rcode_) > flag::kRcodeMask) {
    rcode_ = Rcode::kServFail;  // an extended one is between us and upstream
  }
  const uint32_t most = negative_ ? limits.max_negative : limits.max;
  const auto within = [&](uint32_t ttl) {
    return std::max(std::min(ttl, most), std::min(limits.min, most));
  };
  if (rcode_ != Rcode::kNoError && rcode_ != Rcode::kNxDomain) {
    ttl_ = limits.failure;
  } else if (const std::optional<uint32_t> ttl = view.Ttl()) {
    ttl_ = within(*ttl);
  }
  if (view.truncated()) ttl_ = 0;

  const size_t end = view.opt_at_ != 0 ? view.opt_at_ : from.size();
  uint16_t kept[3] = {view.counts_[0], view.counts_[1], view.counts_[2]};
  if (view.opt_at_ != 0) {
    kept[2] = static_cast<uint16_t>(view.opt_index_ - kept[0] - kept[1]);
  }
  ttl_count_ = static_cast<uint16_t>(kept[0] + kept[1] + kept[2]);
  size_ = static_cast<uint16_t>(end);
  question_end_ = static_cast<uint16_t>(view.records_at_);
  block_.reserve(end + size_t{2} * ttl_count_);
  block_.assign(from.begin(), from.begin() + static_cast<ptrdiff_t>(end));
  block_.resize(end + size_t{2} * ttl_count_);

  std::byte* head = block_.data();
  Store16(head, 0);
  Store16(head + 2,
          static_cast<uint16_t>(flag::kAnswer | flag::kRecursionAvailable |
                                static_cast<uint16_t>(rcode_)));
  for (size_t i = 0; i < 3; ++i) Store16(head + 6 + 2 * i, kept[i]);
  std::memcpy(head + kHeaderSize, view.name().wire().data(),
              view.name().size());
  std::byte* offset = head + end;
  view.ForEachRecord([&](const Record& record) {
    if (record.owner_at >= end) return false;
    Store32(head + record.ttl_at, within(record.ttl));
    Store16(offset, static_cast<uint16_t>(record.ttl_at));
    offset += 2;
    return true;
  });
}

}  // namespace netstack::dns

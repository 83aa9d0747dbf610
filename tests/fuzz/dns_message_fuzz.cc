// DNS messages: the bytes as a query of an app, and as an answer of an
// upstream.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/dns/message.h"
#include "tests/fuzz/packet_properties.h"

namespace netstack::dns {
namespace {

std::vector<std::byte>& Scratch() {
  static auto* const scratch = new std::vector<std::byte>(kMaxMessageSize);
  return *scratch;
}

// What any answer of ours to `query` is: parseable, to that question, within
// the limit.
AnswerView CheckReply(const Query& query, Bytes reply) {
  FUZZ_CHECK(!reply.empty());
  const auto view = ParseAnswer(reply);
  FUZZ_CHECK(static_cast<bool>(view));
  FUZZ_CHECK(view->id() == query.id);
  FUZZ_CHECK(view->name() == query.name);
  FUZZ_CHECK(view->upper() == query.upper);
  FUZZ_CHECK(view->type() == query.type && view->qclass() == kClassIn);
  FUZZ_CHECK(view->message().size() == reply.size());
  return *view;
}

void CheckQuery(Bytes message) {
  const auto query = ParseQuery(message);
  if (!query) {
    const Bytes reply = WriteFaultAnswer(message, query.fault(), Scratch());
    FUZZ_CHECK(reply.empty() == !RcodeOf(query.fault()).has_value());
    FUZZ_CHECK(reply.empty() || Load16(&reply[0]) == Load16(&message[0]));
    return;
  }
  // Text and back.
  const auto name = DnsName::FromText(query->name.ToString());
  FUZZ_CHECK(name && *name == query->name);
  // To an upstream and back.
  QueryToUpstream up = UpstreamQueryFor(*query);
  up.id = query->id;
  up.upper = query->upper;
  up.pad_to = 128;
  const Bytes sent = WriteQuery(up, Scratch());
  FUZZ_CHECK(!sent.empty() && sent.size() % 128 == 0);
  const auto again = ParseQuery(sent);
  FUZZ_CHECK(static_cast<bool>(again));
  FUZZ_CHECK(again->name == query->name && again->upper == query->upper);
  FUZZ_CHECK(again->type == query->type && again->id == query->id);
  FUZZ_CHECK(again->checking_disabled == query->checking_disabled);

  for (const BlockAnswer how :
       {BlockAnswer::kNullAddress, BlockAnswer::kNxDomain,
        BlockAnswer::kRefused}) {
    const Bytes blocked = WriteBlockAnswer(*query, how, 60, Scratch());
    FUZZ_CHECK(blocked.size() <= kPlainUdpSize);
    CheckReply(*query, blocked);
  }
  FUZZ_CHECK(
      CheckReply(*query, WriteTruncatedAnswer(*query, Scratch())).truncated());
  const IpAddress ips[] = {IpAddress::V4(192, 0, 2, 1), IpAddress()};
  CheckReply(*query,
             WriteRewriteAnswer(*query, &query->name, ips, 60, Scratch()));
}

void CheckAnswer(Bytes message) {
  const auto parsed = ParseAnswer(message);
  if (!parsed) return;
  const AnswerView& view = *parsed;
  FUZZ_CHECK(view.message().size() <= message.size());
  size_t seen = 0;
  view.ForEachRecord([&](const Record& r) {
    ++seen;
    FUZZ_CHECK(r.rdata_at + r.rdata_size <= view.message().size());
    FUZZ_CHECK(r.ttl_at + 4 <= r.rdata_at && r.owner_at < r.ttl_at);
    FUZZ_CHECK(ReadNameAt(view.message(), r.owner_at).has_value());
    return true;
  });
  FUZZ_CHECK(seen <= view.record_count());
  FUZZ_CHECK(view.Addresses(8).size() <= 8);
  FUZZ_CHECK(view.TargetNames(8).size() <= 8);

  TtlLimits limits;
  limits.min = 10;
  const StoredAnswer stored(view, limits);
  FUZZ_CHECK(stored.ttl() <= limits.max);
  // As it is kept it can be read again.
  FUZZ_CHECK(static_cast<bool>(ParseAnswer(stored.message())));
  if (view.qclass() != kClassIn) return;

  Query query;
  query.id = 0x1234;
  query.name = view.name();
  query.upper = view.upper();
  query.type = view.type();
  query.edns.present = true;
  const Bytes whole = WriteAnswer(query, stored, {}, Scratch());
  const AnswerView reply = CheckReply(query, whole);
  FUZZ_CHECK(reply.truncated() || reply.answer_count() == view.answer_count());
  FUZZ_CHECK(reply.truncated() ||
             view.Addresses(4000).size() >= reply.Addresses(4000).size());
  const size_t limit = UdpLimit(query, kOurUdpSize);
  WriteOptions small;
  small.limit = limit;
  small.age = 1000;
  FUZZ_CHECK(CheckReply(query, WriteAnswer(query, stored, small, Scratch()))
                 .message()
                 .size() <= limit);
}

}  // namespace
}  // namespace netstack::dns

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace netstack;  // NOLINT: a whole program
  std::vector<std::byte> bytes = fuzz::Copy(data, size);
  dns::CheckQuery(bytes);
  dns::CheckAnswer(bytes);
  // And with the flags that let either pass farther.
  if (bytes.size() < dns::kHeaderSize) return 0;
  Store16(&bytes[2], 0x0100);
  Store16(&bytes[4], 1);
  dns::CheckQuery(bytes);
  Store16(&bytes[2], 0x8180);
  dns::CheckAnswer(bytes);
  return 0;
}

// ldns as the judge: what we write, it reads as meant; what it writes, with its
// compression, we read the same.
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "core/dns/message.h"
#include "gtest/gtest.h"
#include "tests/core/dns/test_messages.h"

// Behind all others: it defines `true` and `false` as macros.
#include <ldns/ldns.h>

namespace netstack::dns {
namespace {

using test::ByteVector;
using test::Ip;
using test::Name;

struct PacketFree {
  void operator()(ldns_pkt* p) const { ldns_pkt_free(p); }
};
using Packet = std::unique_ptr<ldns_pkt, PacketFree>;

Packet Read(Bytes message) {
  ldns_pkt* packet = nullptr;
  const ldns_status status =
      ldns_wire2pkt(&packet, reinterpret_cast<const uint8_t*>(message.data()),
                    message.size());
  EXPECT_EQ(status, LDNS_STATUS_OK) << ldns_get_errorstr_by_id(status);
  return Packet(packet);
}

std::string Text(char* text) {
  std::string copy = text == nullptr ? "" : text;
  std::free(text);  // ldns gives what malloc gave
  while (!copy.empty() && copy.back() == '\n') copy.pop_back();
  return copy;
}

std::string Question(const Packet& p) {
  const ldns_rr* rr = ldns_rr_list_rr(ldns_pkt_question(p.get()), 0);
  return Text(ldns_rdf2str(ldns_rr_owner(rr)));
}

std::vector<std::string> Records(const ldns_rr_list* list) {
  std::vector<std::string> texts;
  for (size_t i = 0; i < ldns_rr_list_rr_count(list); ++i) {
    texts.push_back(Text(ldns_rr2str(ldns_rr_list_rr(list, i))));
  }
  return texts;
}

Query Asked(absl::string_view name, uint16_t type) {
  return *ParseQuery(test::MessageMaker(77, test::kRd)
                         .Question(name, type)
                         .Opt(1400, 0x8000)
                         .bytes());
}

TEST(AgainstLdns, ReadsOurQuery) {
  const DnsName name = Name("www.example.com");
  QueryToUpstream query;
  query.id = 4711;
  query.type = type::kAaaa;
  query.name = &name;
  query.dnssec_ok = true;
  query.pad_to = 128;
  ByteVector out(512);
  const Packet p = Read(WriteQuery(query, out));
  ASSERT_TRUE(p);
  EXPECT_EQ(ldns_pkt_id(p.get()), 4711);
  EXPECT_TRUE(ldns_pkt_rd(p.get()));
  EXPECT_TRUE(ldns_pkt_edns_do(p.get()));
  EXPECT_EQ(ldns_pkt_edns_udp_size(p.get()), kOurUdpSize);
  EXPECT_EQ(Question(p), "www.example.com.");
}

TEST(AgainstLdns, ReadsOurBlockAnswers) {
  ByteVector out(512);
  const Query query = Asked("Ads.example", 1);
  Packet p = Read(WriteBlockAnswer(query, BlockAnswer::kNullAddress, 60, out));
  ASSERT_TRUE(p);
  EXPECT_EQ(ldns_pkt_id(p.get()), 77);
  EXPECT_EQ(ldns_pkt_get_rcode(p.get()), LDNS_RCODE_NOERROR);
  EXPECT_EQ(Question(p), "Ads.example.");
  EXPECT_EQ(Records(ldns_pkt_answer(p.get())),
            std::vector<std::string>{"Ads.example.\t60\tIN\tA\t0.0.0.0"});

  p = Read(WriteBlockAnswer(query, BlockAnswer::kNxDomain, 60, out));
  ASSERT_TRUE(p);
  EXPECT_EQ(ldns_pkt_get_rcode(p.get()), LDNS_RCODE_NXDOMAIN);
  EXPECT_EQ(Records(ldns_pkt_authority(p.get())),
            std::vector<std::string>{"Ads.example.\t60\tIN\tSOA\t. . 1 3600 "
                                     "600 604800 60"});
}

TEST(AgainstLdns, ReadsOurRewrite) {
  ByteVector out(512);
  const DnsName target = Name("safe.example");
  const std::vector<IpAddress> ips = {Ip("2001:db8::1")};
  const Packet p =
      Read(WriteRewriteAnswer(Asked("a.test", 28), &target, ips, 9, out));
  ASSERT_TRUE(p);
  EXPECT_EQ(
      Records(ldns_pkt_answer(p.get())),
      (std::vector<std::string>{"a.test.\t9\tIN\tCNAME\tsafe.example.",
                                "safe.example.\t9\tIN\tAAAA\t2001:db8::1"}));
}

// An answer of ldns' making, compressed as it does, goes through us.
TEST(AgainstLdns, ItsAnswerPassesUnchangedButForTtls) {
  const Packet made(ldns_pkt_new());
  ldns_pkt_set_qr(made.get(), true);
  ldns_pkt_set_ra(made.get(), true);
  ldns_rr* question = nullptr;
  ASSERT_EQ(ldns_rr_new_question_frm_str(&question, "www.example.com. IN MX",
                                         nullptr, nullptr),
            LDNS_STATUS_OK);
  ldns_pkt_push_rr(made.get(), LDNS_SECTION_QUESTION, question);
  const auto push = [&](ldns_pkt_section section, const char* text) {
    ldns_rr* rr = nullptr;
    ASSERT_EQ(ldns_rr_new_frm_str(&rr, text, 0, nullptr, nullptr),
              LDNS_STATUS_OK)
        << text;
    ldns_pkt_push_rr(made.get(), section, rr);
  };
  push(LDNS_SECTION_ANSWER, "www.example.com. 300 IN CNAME mx.example.com.");
  push(LDNS_SECTION_ANSWER, "mx.example.com. 200 IN MX 5 mail.example.com.");
  push(LDNS_SECTION_ANSWER, "mx.example.com. 200 IN TXT \"a b\"");
  push(LDNS_SECTION_AUTHORITY, "example.com. 250 IN NS ns.example.com.");
  push(LDNS_SECTION_ADDITIONAL, "mail.example.com. 150 IN A 192.0.2.25");
  push(LDNS_SECTION_ADDITIONAL, "mail.example.com. 150 IN AAAA 2001:db8::25");
  uint8_t* wire = nullptr;
  size_t size = 0;
  ASSERT_EQ(ldns_pkt2wire(&wire, made.get(), &size), LDNS_STATUS_OK);
  const auto* bytes = reinterpret_cast<const std::byte*>(wire);
  const ByteVector message(bytes, bytes + size);
  std::free(wire);

  const auto view = ParseAnswer(message);
  ASSERT_TRUE(view);
  EXPECT_EQ(view->record_count(), 6u);
  EXPECT_EQ(view->Ttl(), 200u);
  EXPECT_EQ(view->TargetNames(), std::vector<DnsName>{Name("mx.example.com")});
  EXPECT_EQ(view->Addresses(),
            (std::vector<AnswerAddress>{{Ip("192.0.2.25"), 150, true},
                                        {Ip("2001:db8::25"), 150, true}}));

  ByteVector out(kMaxMessageSize);
  WriteOptions options;
  options.age = 100;
  const Packet back =
      Read(WriteAnswer(Asked("WWW.example.com", type::kMx),
                       StoredAnswer(*view, TtlLimits()), options, out));
  ASSERT_TRUE(back);
  EXPECT_EQ(Question(back), "WWW.example.com.");
  EXPECT_EQ(Records(ldns_pkt_answer(back.get())),
            (std::vector<std::string>{
                "WWW.example.com.\t200\tIN\tCNAME\tmx.example.com.",
                "mx.example.com.\t100\tIN\tMX\t5 mail.example.com.",
                "mx.example.com.\t100\tIN\tTXT\t\"a b\""}));
  EXPECT_EQ(Records(ldns_pkt_additional(back.get())),
            (std::vector<std::string>{
                "mail.example.com.\t50\tIN\tA\t192.0.2.25",
                "mail.example.com.\t50\tIN\tAAAA\t2001:db8::25"}));
}

}  // namespace
}  // namespace netstack::dns

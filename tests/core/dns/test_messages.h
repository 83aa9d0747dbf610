// DNS messages made by hand, record by record. Nothing of core/dns makes them
// but DnsName's parsing of text.
#ifndef TESTS_CORE_DNS_TEST_MESSAGES_H_
#define TESTS_CORE_DNS_TEST_MESSAGES_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "core/base/bytes.h"
#include "core/dns/name.h"
#include "core/wire/ip_address.h"
#include "tests/core/wire/test_packets.h"

namespace netstack::dns::test {

using netstack::test::ByteVector;
using netstack::test::ExactCopy;
using netstack::test::Hex;

inline DnsName Name(absl::string_view text) {
  return DnsName::FromText(text).value();
}

inline IpAddress Ip(absl::string_view text) {
  return IpAddress::Parse(text).value();
}

inline void Put16(ByteVector& to, unsigned v) {
  to.push_back(static_cast<std::byte>(v >> 8 & 0xFF));
  to.push_back(static_cast<std::byte>(v & 0xFF));
}
inline void Put32(ByteVector& to, uint32_t v) {
  Put16(to, v >> 16);
  Put16(to, v & 0xFFFF);
}
inline void PutAll(ByteVector& to, Bytes bytes) {
  for (std::byte b : bytes) to.push_back(b);
}

// "www.Example.com" in wire form, its case kept; "." is the root.
inline ByteVector Wire(absl::string_view text) {
  ByteVector wire;
  if (text != ".") {
    for (absl::string_view label : absl::StrSplit(text, '.')) {
      wire.push_back(static_cast<std::byte>(label.size()));
      for (char c : label) wire.push_back(static_cast<std::byte>(c));
    }
  }
  wire.push_back(std::byte{0});
  return wire;
}

inline ByteVector AddressBytes(absl::string_view ip) {
  const IpAddress a = Ip(ip);
  return a.IsV4() ? ByteVector(a.v4(), a.v4() + 4)
                  : ByteVector(a.v6(), a.v6() + 16);
}

// A message that grows section by section.
class MessageMaker {
 public:
  // `flags`: the header's second word.
  MessageMaker(unsigned id, unsigned flags) {
    Put16(bytes_, id);
    Put16(bytes_, flags);
    bytes_.resize(12);
  }

  MessageMaker& Question(absl::string_view name, unsigned type,
                         unsigned qclass = 1) {
    Append(Wire(name));
    Put16(bytes_, type);
    Put16(bytes_, qclass);
    return Count(4);
  }

  // `section`: 0 answer, 1 authority, 2 additional.
  MessageMaker& Record(int section, const ByteVector& owner, unsigned type,
                       uint32_t ttl, const ByteVector& rdata,
                       unsigned rclass = 1) {
    Append(owner);
    Put16(bytes_, type);
    Put16(bytes_, rclass);
    Put32(bytes_, ttl);
    Put16(bytes_, static_cast<unsigned>(rdata.size()));
    Append(rdata);
    return Count(6 + 2 * static_cast<size_t>(section));
  }

  MessageMaker& Answer(absl::string_view owner, unsigned type, uint32_t ttl,
                       const ByteVector& rdata) {
    return Record(0, Wire(owner), type, ttl, rdata);
  }
  MessageMaker& Address(absl::string_view owner, absl::string_view ip,
                        uint32_t ttl) {
    const ByteVector rdata = AddressBytes(ip);
    return Answer(owner, rdata.size() == 4 ? 1 : 28, ttl, rdata);
  }
  MessageMaker& Cname(absl::string_view owner, absl::string_view target,
                      uint32_t ttl) {
    return Answer(owner, 5, ttl, Wire(target));
  }
  MessageMaker& Soa(absl::string_view owner, uint32_t ttl, uint32_t minimum) {
    ByteVector rdata = Wire("ns.example");
    PutAll(rdata, Wire("mail.example"));
    for (uint32_t v : {1u, 2u, 3u, 4u, minimum}) Put32(rdata, v);
    return Record(1, Wire(owner), 6, ttl, rdata);
  }
  MessageMaker& Opt(unsigned udp_size, uint32_t ttl = 0,
                    const ByteVector& options = {}) {
    return Record(2, Wire("."), 41, ttl, options, udp_size);
  }
  MessageMaker& Append(const ByteVector& more) {
    PutAll(bytes_, more);
    return *this;
  }
  MessageMaker& Count(size_t at) {
    Store16(&bytes_[at], static_cast<uint16_t>(Load16(&bytes_[at]) + 1));
    return *this;
  }

  const ByteVector& bytes() const { return bytes_; }
  operator ByteVector() const { return bytes_; }  // NOLINT: as it is used

 private:
  ByteVector bytes_;
};

// The data of an HTTPS record: priority 1, target, and hints.
inline ByteVector SvcbData(absl::string_view target,
                           std::initializer_list<const char*> v4,
                           std::initializer_list<const char*> v6) {
  ByteVector rdata;
  Put16(rdata, 1);
  PutAll(rdata, Wire(target));
  const auto hints = [&](unsigned key, std::initializer_list<const char*> list,
                         size_t unit) {
    if (list.size() == 0) return;
    Put16(rdata, key);
    Put16(rdata, static_cast<unsigned>(list.size() * unit));
    for (const char* ip : list) PutAll(rdata, AddressBytes(ip));
  };
  hints(4, v4, 4);
  hints(6, v6, 16);
  return rdata;
}

inline constexpr unsigned kRd = 0x0100;
inline constexpr unsigned kAnswerFlags = 0x8180;  // QR, RD, RA

}  // namespace netstack::dns::test

#endif  // TESTS_CORE_DNS_TEST_MESSAGES_H_

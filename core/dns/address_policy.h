// What DNS answered: which addresses are known, by which name, for how long.
//
// Two uses. Names of flows: a flow carries the name whose answer led its client
// to that address. And "only what DNS answered" (optional): connections to
// addresses that no answer named are refused.
//
// An address is known for its record's TTL and a grace: apps keep addresses
// longer than they should, and a refused app looks broken. Learning again
// extends it, nothing shortens it. Block answers of ours must not be given to
// Learn(); unspecified, loopback and multicast addresses are left out anyway,
// so that an upstream's sinkhole opens nothing.
//
// Bounded: beyond `max_addresses` the one learned longest ago goes. Configure()
// keeps what is known, and Snapshot() and Restore() carry it over a restart of
// the stack.
//
// Loop thread. Time is a parameter.
#ifndef CORE_DNS_ADDRESS_POLICY_H_
#define CORE_DNS_ADDRESS_POLICY_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/node_hash_map.h"
#include "absl/strings/string_view.h"
#include "core/base/siphash.h"
#include "core/base/time.h"
#include "core/dns/message.h"
#include "core/wire/ip_address.h"

namespace netstack::dns {

class AddressPolicy {
 public:
  struct Options {
    // Refuse what is not known. Off: names are kept all the same.
    bool enforce = false;
    Duration grace = std::chrono::minutes(5);
    // Least time that an address is known, whatever its TTL (with its grace).
    Duration least = std::chrono::minutes(1);
    size_t max_addresses = 16384;
    // Destinations that are never refused: the LAN, for example.
    std::vector<IpPrefix> exempt;

    friend bool operator==(const Options&, const Options&) = default;
  };

  enum class Verdict : uint8_t {
    kNotEnforced,
    kExempt,
    kKnown,
    kExpired,  // was known; counted apart, since a longer grace would help
    kUnknown,
  };
  static bool Refuses(Verdict v) {
    return v == Verdict::kExpired || v == Verdict::kUnknown;
  }

  struct Stats {
    size_t addresses = 0;
    size_t names = 0;
    size_t bytes = 0;  // roughly
    uint64_t learned = 0;
    uint64_t evicted = 0;  // beyond max_addresses
    uint64_t refused_unknown = 0;
    uint64_t refused_expired = 0;
  };

  AddressPolicy(const Options& options, const SipHashKey& key);
  ~AddressPolicy();
  AddressPolicy(const AddressPolicy&) = delete;
  AddressPolicy& operator=(const AddressPolicy&) = delete;

  void Configure(const Options& options);

  // `client` was answered that `name` leads to `addresses`. TTLs count from
  // `now`: of a cached answer they are what is left.
  void Learn(const IpAddress& client, const DnsName& name,
             std::span<const AnswerAddress> addresses, Instant now);

  // Whether a new flow to `destination` is to be opened. Counts refusals.
  Verdict Check(const IpAddress& destination, Instant now);
  // The same, not counted.
  Verdict Peek(const IpAddress& destination, Instant now) const;

  // The name that led `client` to `destination`: the most recent one that it
  // asked for; of another client, when it asked for none itself (an app's IPv4
  // queries lead to its IPv6 flows). Valid until the next call here; empty
  // when there is none.
  absl::string_view NameOf(const IpAddress& client,
                           const IpAddress& destination, Instant now);

  struct Known {
    IpAddress address;
    std::string name;
    Duration left{};
  };
  // What is known and not expired, oldest first.
  std::vector<Known> Snapshot(Instant now) const;
  void Restore(std::span<const Known> known, Instant now);

  Stats stats() const;

 private:
  struct NameRecord {
    uint32_t users = 0;
  };
  using Names = absl::node_hash_map<std::string, NameRecord>;
  using Name = Names::value_type;

  struct ByClient {
    IpAddress client;
    Name* name = nullptr;
  };
  // How many clients' own names are kept per address.
  static constexpr size_t kClients = 4;

  struct Entry {
    IpAddress address;
    Instant expires{};
    // The most recent first.
    std::vector<ByClient> names;
  };
  struct AddressHash {
    const SipHashKey* key;
    size_t operator()(const IpAddress& a) const;
  };
  using Order = std::list<Entry>;  // learned longest ago first

  Entry& Touch(const IpAddress& address, Instant now);
  void SetName(Entry& entry, const IpAddress& client, const std::string& name);
  void Drop(Order::iterator entry);
  Name* Use(const std::string& name);
  void Release(Name* name);
  void Shrink();

  Options options_;
  const SipHashKey key_;
  Order order_;
  absl::flat_hash_map<IpAddress, Order::iterator, AddressHash> by_address_{
      0, AddressHash{&key_}};
  Names names_;
  Stats stats_;
};

}  // namespace netstack::dns

#endif  // CORE_DNS_ADDRESS_POLICY_H_

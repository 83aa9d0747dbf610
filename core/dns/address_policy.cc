#include "core/dns/address_policy.h"

#include <algorithm>
#include <utility>

#include "core/base/bytes.h"

namespace netstack::dns {
namespace {

// An entry's list node, its place in the map, and malloc's headers.
constexpr size_t kEntryOverhead = 16 + 40 + 2 * 16;
constexpr size_t kNameOverhead = 64;

bool IsLearnable(const IpAddress& ip) {
  return !ip.IsUnspecified() && !ip.IsLoopback() && !ip.IsMulticast() &&
         !ip.IsLimitedBroadcast();
}

}  // namespace

size_t AddressPolicy::AddressHash::operator()(const IpAddress& a) const {
  return SipHash24(*key, Bytes(a.v6(), 16));
}

AddressPolicy::AddressPolicy(const Options& options, const SipHashKey& key)
    : options_(options), key_(key) {}

AddressPolicy::~AddressPolicy() = default;

void AddressPolicy::Configure(const Options& options) {
  options_ = options;
  Shrink();
}

void AddressPolicy::Learn(const IpAddress& client, const DnsName& name,
                          std::span<const AnswerAddress> addresses,
                          Instant now) {
  std::string text;
  for (const AnswerAddress& address : addresses) {
    if (!IsLearnable(address.ip)) continue;
    if (text.empty()) text = name.ToString();
    Entry& entry = Touch(address.ip, now);
    const Duration ttl =
        std::max<Duration>(std::chrono::seconds(address.ttl), options_.least);
    entry.expires = std::max(entry.expires, now + ttl + options_.grace);
    SetName(entry, client, text);
    ++stats_.learned;
  }
  Shrink();
}

AddressPolicy::Verdict AddressPolicy::Check(const IpAddress& destination,
                                            Instant now) {
  const Verdict verdict = Peek(destination, now);
  if (verdict == Verdict::kUnknown) ++stats_.refused_unknown;
  if (verdict == Verdict::kExpired) ++stats_.refused_expired;
  return verdict;
}

AddressPolicy::Verdict AddressPolicy::Peek(const IpAddress& destination,
                                           Instant now) const {
  if (!options_.enforce) return Verdict::kNotEnforced;
  for (const IpPrefix& prefix : options_.exempt) {
    if (prefix.Contains(destination)) return Verdict::kExempt;
  }
  const auto it = by_address_.find(destination);
  if (it == by_address_.end()) return Verdict::kUnknown;
  return now < it->second->expires ? Verdict::kKnown : Verdict::kExpired;
}

absl::string_view AddressPolicy::NameOf(const IpAddress& client,
                                        const IpAddress& destination,
                                        Instant now) {
  const auto it = by_address_.find(destination);
  if (it == by_address_.end() || now >= it->second->expires) return {};
  const std::vector<ByClient>& names = it->second->names;
  for (const ByClient& own : names) {
    if (own.client == client) return own.name->first;
  }
  return names.empty() ? absl::string_view() : names.front().name->first;
}

std::vector<AddressPolicy::Known> AddressPolicy::Snapshot(Instant now) const {
  std::vector<Known> known;
  for (const Entry& entry : order_) {
    if (now >= entry.expires) continue;
    known.push_back({entry.address,
                     entry.names.empty() ? "" : entry.names.front().name->first,
                     entry.expires - now});
  }
  return known;
}

void AddressPolicy::Restore(std::span<const Known> known, Instant now) {
  for (const Known& k : known) {
    Entry& entry = Touch(k.address, now);
    entry.expires = std::max(entry.expires, now + k.left);
    // By no client of now; so any of them is told it.
    if (entry.names.empty() && !k.name.empty()) {
      SetName(entry, IpAddress(), k.name);
    }
  }
  Shrink();
}

AddressPolicy::Stats AddressPolicy::stats() const {
  Stats s = stats_;
  s.addresses = order_.size();
  s.names = names_.size();
  s.bytes =
      order_.size() * (sizeof(Entry) + sizeof(ByClient) + kEntryOverhead) +
      names_.size() * (sizeof(Name) + kNameOverhead);
  return s;
}

AddressPolicy::Entry& AddressPolicy::Touch(const IpAddress& address,
                                           Instant now) {
  const auto it = by_address_.find(address);
  if (it != by_address_.end()) {
    order_.splice(order_.end(), order_, it->second);
    return *it->second;
  }
  order_.push_back({address, now, {}});
  by_address_.emplace(address, std::prev(order_.end()));
  return order_.back();
}

void AddressPolicy::SetName(Entry& entry, const IpAddress& client,
                            const std::string& name) {
  std::vector<ByClient>& names = entry.names;
  auto own = std::find_if(names.begin(), names.end(), [&](const ByClient& n) {
    return n.client == client;
  });
  if (own == names.end()) {
    if (names.size() == kClients) {
      own = std::prev(names.end());
    } else {
      names.reserve(names.size() + 1);  // most have one client
      own = names.insert(names.end(), ByClient());
    }
  }
  Name* const use = Use(name);  // before the old one is let go: maybe the same
  if (own->name != nullptr) Release(own->name);
  *own = {client, use};
  std::rotate(names.begin(), own, std::next(own));
}

AddressPolicy::Name* AddressPolicy::Use(const std::string& name) {
  Name& record = *names_.try_emplace(name).first;
  ++record.second.users;
  return &record;
}

void AddressPolicy::Release(Name* name) {
  if (--name->second.users == 0) names_.erase(name->first);
}

void AddressPolicy::Drop(Order::iterator entry) {
  for (const ByClient& n : entry->names) Release(n.name);
  by_address_.erase(entry->address);
  order_.erase(entry);
}

void AddressPolicy::Shrink() {
  while (order_.size() > options_.max_addresses) {
    Drop(order_.begin());
    ++stats_.evicted;
  }
}

}  // namespace netstack::dns

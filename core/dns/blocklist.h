// Blocklists: names by the million, exact, in about 20 bytes each.
//
//   BlocklistBuilder builder(key, options);       // any thread
//   ListReport report = builder.Add("ads", file_contents);
//   std::shared_ptr<const Blocklist> list = std::move(builder).Build();
//   ...
//   if (auto match = list->Find(name)) ...        // the loop thread
//
// How this works
//
// Names are kept as text with their labels reversed ("com.example.ads"),
// sorted, in blocks of 8, each name being what differs from the one before it
// (front coding). A hash table leads to the block: 32 bits per name, which are
// the block's number and as many bits of the name's hash as are left. A name is
// looked up once per label: most probes end at the hash table, the others
// unpack one block and compare the name itself. So there are no false
// positives.
//
// The hash is keyed (SipHash), so that no list can be made whose names collide.
//
// Lines that are understood, whatever the file calls itself:
//
//   0.0.0.0 ads.example        a hosts file's line: that name only. Further
//                              names on the line, too. The address must be
//                              unspecified or loopback: others would rewrite
//   ads.example                a list of names: the name and all below it
//   *.ads.example              the same
//   ||ads.example^             Adblock's: the name and all below it
//   @@||good.example^          Adblock's exception: not blocked by any list,
//                              nor anything below it
//   # ! //                     comments; "# ..." behind a hosts line or a name
//
// All else is refused and counted by a reason: a rule that is understood half
// is not applied half.
#ifndef CORE_DNS_BLOCKLIST_H_
#define CORE_DNS_BLOCKLIST_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/base/siphash.h"
#include "core/dns/name.h"

namespace netstack::dns {

// Why a line gave no name. X(enumerator, name, what it means).
#define NETSTACK_DNS_LINE_FAULTS(X)                                           \
  X(kBadName, "BAD_NAME", "no host name")                                     \
  X(kAddress, "ADDRESS", "an IP address instead of a name")                   \
  X(kRewrite, "REWRITE", "a hosts line that leads somewhere")                 \
  X(kLocalName, "LOCAL_NAME", "localhost and its kin, as hosts files have")   \
  X(kOptions, "OPTIONS", "Adblock options ($...)")                            \
  X(kCosmetic, "COSMETIC", "hides parts of pages (##, #@#)")                  \
  X(kPattern, "PATTERN", "a part of a URL, a regular expression, a wildcard") \
  X(kTooLong, "TOO_LONG", "a line over 4,096 bytes")                          \
  X(kTooMany, "TOO_MANY", "beyond the limit of names")

enum class LineFault : uint8_t {
#define NETSTACK_X(id, name, text) id,
  NETSTACK_DNS_LINE_FAULTS(NETSTACK_X)
#undef NETSTACK_X
};

inline constexpr std::array kLineFaultNames = {
#define NETSTACK_X(id, name, text) absl::string_view(name),
    NETSTACK_DNS_LINE_FAULTS(NETSTACK_X)
#undef NETSTACK_X
};
inline constexpr size_t kLineFaultCount = kLineFaultNames.size();
static_assert(static_cast<size_t>(LineFault::kTooMany) + 1 == kLineFaultCount);

// What became of a list.
struct ListReport {
  uint64_t lines = 0;
  uint64_t blank = 0;  // and comments
  uint64_t names = 0;  // to block, as written: duplicates count
  uint64_t exceptions = 0;
  std::array<uint64_t, kLineFaultCount> refused{};
  // The first refused line, for the user: its number from 1, and why.
  uint64_t first_refused_line = 0;
  LineFault first_fault = LineFault::kBadName;

  uint64_t refused_in_all() const;
};

// What a name met.
struct BlocklistMatch {
  bool exception = false;
  uint16_t list = 0;  // in the order of Add(); see Blocklist::ListName()
  // How many labels of the name stand in the list: all of them, or fewer when
  // a parent is listed.
  uint8_t labels = 0;
};

// Immutable, so that every thread may read it; replaced as a whole.
class Blocklist {
 public:
  Blocklist() = default;  // blocks nothing
  Blocklist(const Blocklist&) = delete;
  Blocklist& operator=(const Blocklist&) = delete;

  // An exception for the name or a parent of it wins over every list; else
  // the most specific listed name; nullopt when there is none.
  std::optional<BlocklistMatch> Find(const DnsName& name) const;

  absl::string_view ListName(uint16_t list) const { return lists_[list]; }
  size_t list_count() const { return lists_.size(); }
  size_t size() const { return size_; }  // different names
  size_t memory() const;                 // bytes of all that it holds

 private:
  friend class BlocklistBuilder;

  // The meta byte of `key`, the reversed text of a name, and its hash; nullopt
  // if absent.
  std::optional<uint8_t> FindKey(absl::string_view key, uint64_t hash) const;
  std::optional<uint8_t> FindInBlock(size_t block, absl::string_view key) const;

  SipHashKey key_;
  size_t size_ = 0;
  // Names in the lists have so many labels; others need no probe.
  uint8_t fewest_labels_ = 1;
  uint8_t most_labels_ = 0;
  bool has_exceptions_ = false;  // else the first match is the answer
  unsigned block_bits_ = 0;
  std::vector<uint32_t> slots_;  // 0: empty; else hash bits and block + 1
  std::vector<uint8_t> blocks_;
  std::vector<uint32_t> starts_;  // of blocks, in blocks_
  std::vector<std::string> lists_;
};

class BlocklistBuilder {
 public:
  static constexpr size_t kMaxLists = 64;
  struct Options {
    uint64_t max_names = 5'000'000;  // further ones are refused
  };

  BlocklistBuilder(const SipHashKey& key, const Options& options);
  ~BlocklistBuilder();
  BlocklistBuilder(const BlocklistBuilder&) = delete;
  BlocklistBuilder& operator=(const BlocklistBuilder&) = delete;

  // Takes the names of a whole file. Lists beyond kMaxLists are refused whole
  // (TOO_MANY).
  ListReport Add(absl::string_view name, absl::string_view text);

  // Sorts and packs. While it runs, about 45 bytes per name are in use
  // besides the result. The builder is empty afterwards.
  std::shared_ptr<const Blocklist> Build() &&;

 private:
  struct Entry;
  struct Lines;

  SipHashKey key_;
  Options options_;
  std::vector<std::string> lists_;
  std::vector<char> text_;  // keys of entries, one behind the other
  std::vector<Entry> entries_;
};

}  // namespace netstack::dns

#endif  // CORE_DNS_BLOCKLIST_H_

#include "core/dns/blocklist.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "core/base/bytes.h"
#include "core/wire/ip_address.h"

namespace netstack::dns {
namespace {

// Names per block: more of them are smaller and slower to look up.
constexpr size_t kBlock = 8;
constexpr size_t kMaxLine = 4096;
// Of a name as text.
constexpr size_t kMaxText = 253;
constexpr size_t kMaxLabels = 127;

// Slots per 100 names. Unsuccessful probes read 8 of them then, which lie in
// one or two cache lines (Knuth, The Art of Computer Programming, 6.4).
constexpr uint64_t kSlotsPer100 = 135;

// The meta byte of a name.
constexpr uint8_t kException = 0x80;
constexpr uint8_t kSubtree = 0x40;
constexpr uint8_t kListMask = 0x3F;
static_assert(BlocklistBuilder::kMaxLists == kListMask + 1);

// The first byte of a block: all its names have the meta byte that follows.
// Otherwise each name brings its own.
constexpr uint8_t kSameMeta = 1;
// In a nibble: the number follows in a byte.
constexpr uint8_t kLong = 15;

// Characters of host names, and the underscore of service names.
struct HostCharacters {
  std::array<char, 256> lower{};  // 0 for what is none
  constexpr HostCharacters() {
    for (int c = 'a'; c <= 'z'; ++c) {
      lower[static_cast<size_t>(c)] = static_cast<char>(c);
      lower[static_cast<size_t>(c - 32)] = static_cast<char>(c);
    }
    for (int c = '0'; c <= '9'; ++c) {
      lower[static_cast<size_t>(c)] = static_cast<char>(c);
    }
    lower['-'] = '-';
    lower['_'] = '_';
  }
};
constexpr HostCharacters kHost;

char HostChar(char c) { return kHost.lower[static_cast<uint8_t>(c)]; }

// A name's text with its labels in reverse. `end[i]` is the length of the
// first i + 1 labels: the keys of the name's ancestors are prefixes.
struct Key {
  char text[kMaxText + 1];
  uint8_t size = 0;
  uint8_t labels = 0;
  uint8_t end[kMaxLabels];

  absl::string_view view() const { return {text, size}; }
  absl::string_view First(size_t count) const {
    return {text, count == 0 ? 0u : end[count - 1]};
  }
  // False when it does not fit; `label` is lower-cased and checked by `take`.
  template <typename Take>
  bool Append(const char* label, size_t length, Take take) {
    const size_t dot = labels > 0 ? 1 : 0;
    if (length == 0 || length > 63 || labels == kMaxLabels ||
        size + dot + length > kMaxText) {
      return false;
    }
    if (dot) text[size] = '.';
    for (size_t i = 0; i < length; ++i) {
      const char c = take(label[i]);
      if (c == 0) return false;
      text[size + dot + i] = c;
    }
    size = static_cast<uint8_t>(size + dot + length);
    end[labels++] = size;
    return true;
  }
};

// "ads.example.com" as "com.example.ads"; false when it is no host name.
bool KeyOfText(absl::string_view name, Key& key) {
  if (!name.empty() && name.back() == '.') name.remove_suffix(1);
  if (name.empty() || name.size() > kMaxText) return false;
  while (true) {
    const size_t dot = name.rfind('.');
    const size_t from = dot == absl::string_view::npos ? 0 : dot + 1;
    if (!key.Append(name.data() + from, name.size() - from, HostChar)) {
      return false;
    }
    if (from == 0) return true;
    name = name.substr(0, dot);
  }
}

// The labels of `name` from the root down, as far as they could be listed: a
// label with other characters ends it, and so do more than `most` labels.
Key KeyOfName(const DnsName& name, size_t most) {
  Key key;
  const auto* wire = reinterpret_cast<const uint8_t*>(name.wire().data());
  uint8_t at[kMaxLabels];
  size_t count = 0;
  for (size_t i = 0; wire[i] != 0; i += 1u + wire[i]) {
    at[count++] = static_cast<uint8_t>(i);
  }
  // Already in lower case: an upper-case letter cannot be there.
  while (count > 0 && key.labels < most) {
    const uint8_t* label = wire + at[--count];
    if (!key.Append(reinterpret_cast<const char*>(label + 1), *label,
                    HostChar)) {
      break;
    }
  }
  return key;
}

uint64_t HashOf(const SipHashKey& key, absl::string_view text) {
  return SipHash24(
      key, Bytes(reinterpret_cast<const std::byte*>(text.data()), text.size()));
}

// The slot that a hash begins at: its upper half scaled to the table.
size_t SlotOf(uint64_t hash, size_t slots) {
  return static_cast<size_t>((hash >> 32) * slots >> 32);
}

// What a slot holds of a hash: the lower bits, above the block's number.
uint32_t TagOf(uint64_t hash, unsigned block_bits) {
  return static_cast<uint32_t>(hash) << block_bits;
}

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\r'; }

absl::string_view Strip(absl::string_view text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
  return text;
}

// The first word of `text`, which loses it and the space behind it.
absl::string_view TakeWord(absl::string_view& text) {
  size_t end = 0;
  while (end < text.size() && !IsSpace(text[end])) ++end;
  const absl::string_view word = text.substr(0, end);
  text = Strip(text.substr(end));
  return word;
}

bool StartsWith(absl::string_view text, absl::string_view with) {
  return text.substr(0, with.size()) == with;
}

// Names that hosts files give the machine itself.
bool IsLocalName(absl::string_view name) {
  static constexpr absl::string_view kNames[] = {
      "localhost",       "localhost.localdomain",
      "local",           "localdomain",
      "broadcasthost",   "ip6-localhost",
      "ip6-loopback",    "ip6-localnet",
      "ip6-mcastprefix", "ip6-allnodes",
      "ip6-allrouters",  "ip6-allhosts",
      "localhost6",      "0.0.0.0",
  };
  return std::find(std::begin(kNames), std::end(kNames), name) !=
         std::end(kNames);
}

bool HasAny(absl::string_view text, absl::string_view chars) {
  return text.find_first_of(chars) != absl::string_view::npos;
}

bool CouldBeAddress(absl::string_view text) {
  const char last = text.empty() ? 'x' : text.back();
  return (last >= '0' && last <= '9') ||
         text.find(':') != absl::string_view::npos;
}

}  // namespace

uint64_t ListReport::refused_in_all() const {
  return std::accumulate(refused.begin(), refused.end(), uint64_t{0});
}

// --- Reading -----------------------------------------------------------------

// A name that was read. Its key lies in the builder's text.
struct BlocklistBuilder::Entry {
  uint64_t prefix;  // the key's first bytes, so that most compares end here
  uint32_t at;
  uint8_t size;
  uint8_t meta;
};

namespace {

// The key's first eight bytes as a number that sorts as they do.
uint64_t PrefixOf(const Key& key) {
  std::byte bytes[8] = {};
  std::memcpy(bytes, key.text, std::min<size_t>(key.size, 8));
  return Load64(bytes);
}

}  // namespace

// Takes one file apart.
struct BlocklistBuilder::Lines {
  BlocklistBuilder& to;
  uint8_t list;
  ListReport report;

  void Take(absl::string_view line);
  void TakeAdblock(absl::string_view rule, bool exception);
  void TakeHosts(absl::string_view names);
  void TakePlain(absl::string_view name);
  void Put(absl::string_view name, uint8_t flags);
  void Refuse(LineFault fault);
};

void BlocklistBuilder::Lines::Refuse(LineFault fault) {
  if (report.first_refused_line == 0) {
    report.first_refused_line = report.lines;
    report.first_fault = fault;
  }
  ++report.refused[static_cast<size_t>(fault)];
}

void BlocklistBuilder::Lines::Put(absl::string_view name, uint8_t flags) {
  Key key;
  if (!KeyOfText(name, key)) return Refuse(LineFault::kBadName);
  if (CouldBeAddress(name) && IpAddress::Parse(name)) {
    return Refuse(LineFault::kAddress);
  }
  if (to.entries_.size() >= to.options_.max_names ||
      to.text_.size() > UINT32_MAX - kMaxText) {
    return Refuse(LineFault::kTooMany);
  }
  to.entries_.push_back({PrefixOf(key), static_cast<uint32_t>(to.text_.size()),
                         key.size, static_cast<uint8_t>(flags | list)});
  to.text_.insert(to.text_.end(), key.text, key.text + key.size);
  ++((flags & kException) ? report.exceptions : report.names);
}

void BlocklistBuilder::Lines::Take(absl::string_view line) {
  ++report.lines;
  if (line.size() > kMaxLine) return Refuse(LineFault::kTooLong);
  line = Strip(line);
  if (report.lines == 1 && StartsWith(line, "\xEF\xBB\xBF")) {
    line.remove_prefix(3);  // a byte order mark
  }
  if (StartsWith(line, "##") || line.find("#@#") != absl::string_view::npos ||
      line.find("#?#") != absl::string_view::npos) {
    // "## " is a comment of hosts files too.
    if (StartsWith(line, "##") &&
        (line.size() == 2 || HasAny(line, " \t") || line[2] == '#')) {
      ++report.blank;
      return;
    }
    return Refuse(LineFault::kCosmetic);
  }
  const bool header = StartsWith(line, "[") && !line.empty() &&
                      line.back() == ']';  // "[Adblock Plus 2.0]"
  if (line.empty() || line[0] == '#' || line[0] == '!' || header ||
      StartsWith(line, "//")) {
    ++report.blank;
    return;
  }
  if (StartsWith(line, "@@")) return TakeAdblock(line.substr(2), true);
  if (StartsWith(line, "||")) return TakeAdblock(line, false);
  if (line.find("##") != absl::string_view::npos) {
    return Refuse(LineFault::kCosmetic);
  }
  const size_t comment = line.find('#');
  if (comment != absl::string_view::npos) {
    line = Strip(line.substr(0, comment));
  }
  absl::string_view rest = line;
  const absl::string_view first = TakeWord(rest);
  if (rest.empty()) return TakePlain(first);
  const auto ip =
      CouldBeAddress(first) ? IpAddress::Parse(first) : std::nullopt;
  if (!ip) return Refuse(LineFault::kPattern);
  if (!ip->IsUnspecified() && !ip->IsLoopback()) {
    // "255.255.255.255 broadcasthost", "ff02::1 ip6-allnodes".
    return Refuse(IsLocalName(rest) ? LineFault::kLocalName
                                    : LineFault::kRewrite);
  }
  TakeHosts(rest);
}

void BlocklistBuilder::Lines::TakeHosts(absl::string_view names) {
  while (!names.empty()) {
    const absl::string_view name = TakeWord(names);
    if (IsLocalName(name)) {
      Refuse(LineFault::kLocalName);
    } else {
      Put(name, 0);
    }
  }
}

void BlocklistBuilder::Lines::TakePlain(absl::string_view name) {
  if (StartsWith(name, "*.")) name.remove_prefix(2);
  if (HasAny(name, "$")) return Refuse(LineFault::kOptions);
  if (CouldBeAddress(name) && IpAddress::Parse(name)) {
    return Refuse(LineFault::kAddress);
  }
  if (HasAny(name, "/*|^=&?,;:@~[]()")) return Refuse(LineFault::kPattern);
  if (IsLocalName(name)) return Refuse(LineFault::kLocalName);
  // A word by itself is rather a broken file than a top-level domain to block
  // ("||zip^" does that).
  if (!HasAny(name.substr(0, name.size() - 1), ".")) {
    return Refuse(LineFault::kBadName);
  }
  Put(name, kSubtree);
}

void BlocklistBuilder::Lines::TakeAdblock(absl::string_view rule,
                                          bool exception) {
  if (HasAny(rule, "$")) return Refuse(LineFault::kOptions);
  if (!StartsWith(rule, "||") || rule.size() < 4 || rule.back() != '^') {
    return Refuse(LineFault::kPattern);
  }
  const absl::string_view name = rule.substr(2, rule.size() - 3);
  if (CouldBeAddress(name) && IpAddress::Parse(name)) {
    return Refuse(LineFault::kAddress);
  }
  if (HasAny(name, "/*|^=&?,;:@~[]()")) return Refuse(LineFault::kPattern);
  Put(name, exception ? kException | kSubtree : kSubtree);
}

BlocklistBuilder::BlocklistBuilder(const SipHashKey& key,
                                   const Options& options)
    : key_(key), options_(options) {}

BlocklistBuilder::~BlocklistBuilder() = default;

ListReport BlocklistBuilder::Add(absl::string_view name,
                                 absl::string_view text) {
  Lines lines{*this, static_cast<uint8_t>(lists_.size()), {}};
  if (lists_.size() == kMaxLists) {
    lines.report.lines = 1;
    lines.Refuse(LineFault::kTooMany);
    return lines.report;
  }
  lists_.emplace_back(name);
  while (!text.empty()) {
    const void* end = std::memchr(text.data(), '\n', text.size());
    const size_t size =
        end == nullptr
            ? text.size()
            : static_cast<size_t>(static_cast<const char*>(end) - text.data());
    lines.Take(text.substr(0, size));
    text.remove_prefix(std::min(size + 1, text.size()));
  }
  return lines.report;
}

// --- Packing -----------------------------------------------------------------

namespace {

// What two entries of one name make together. An exception wins: it says "by
// no list". Of two that block, the earlier list is told, and subtree stays.
uint8_t Merge(uint8_t a, uint8_t b) {
  if ((a ^ b) & kException) return (a & kException) ? a : b;
  const int list = std::min(a & kListMask, b & kListMask);
  return static_cast<uint8_t>(((a | b) & ~kListMask) | list);
}

void PutNumber(std::vector<uint8_t>& to, size_t number) {
  if (number >= kLong) to.push_back(static_cast<uint8_t>(number));
}

size_t CommonPrefix(absl::string_view a, absl::string_view b) {
  const size_t most = std::min(a.size(), b.size());
  size_t i = 0;
  while (i < most && a[i] == b[i]) ++i;
  return i;
}

}  // namespace

std::shared_ptr<const Blocklist> BlocklistBuilder::Build() && {
  auto result = std::make_shared<Blocklist>();
  Blocklist& list = *result;
  list.key_ = key_;
  list.lists_ = std::move(lists_);
  std::vector<Entry> entries = std::move(entries_);
  const std::vector<char> text = std::move(text_);
  const auto key_of = [&text](const Entry& e) {
    return absl::string_view(text.data() + e.at, e.size);
  };

  std::sort(entries.begin(), entries.end(),
            [&](const Entry& a, const Entry& b) {
              if (a.prefix != b.prefix) return a.prefix < b.prefix;
              return key_of(a) < key_of(b);
            });
  size_t kept = 0;
  for (const Entry& e : entries) {
    if (kept > 0 && entries[kept - 1].prefix == e.prefix &&
        key_of(entries[kept - 1]) == key_of(e)) {
      entries[kept - 1].meta = Merge(entries[kept - 1].meta, e.meta);
    } else {
      entries[kept++] = e;
    }
  }
  entries.resize(kept);
  list.size_ = kept;
  if (kept == 0) return result;

  const size_t blocks = (kept + kBlock - 1) / kBlock;
  list.block_bits_ = static_cast<unsigned>(std::bit_width(blocks));
  list.slots_.resize(kept * kSlotsPer100 / 100 + 1);
  list.starts_.reserve(blocks);
  std::vector<uint8_t> packed;
  packed.reserve(kept * 12);
  list.fewest_labels_ = kMaxLabels;
  for (size_t i = 0; i < kept; i += kBlock) {
    const size_t end = std::min(i + kBlock, kept);
    list.starts_.push_back(static_cast<uint32_t>(packed.size()));
    const bool same =
        std::all_of(&entries[i], &entries[i] + (end - i),
                    [&](const Entry& e) { return e.meta == entries[i].meta; });
    packed.push_back(same ? kSameMeta : 0);
    if (same) packed.push_back(entries[i].meta);
    absl::string_view before;
    for (size_t j = i; j < end; ++j) {
      const absl::string_view key = key_of(entries[j]);
      const size_t shared = CommonPrefix(before, key);
      const size_t rest = key.size() - shared;
      packed.push_back(
          static_cast<uint8_t>(std::min<size_t>(shared, kLong) << 4 |
                               std::min<size_t>(rest, kLong)));
      PutNumber(packed, shared);
      PutNumber(packed, rest);
      if (!same) packed.push_back(entries[j].meta);
      packed.insert(packed.end(), key.begin() + static_cast<ptrdiff_t>(shared),
                    key.end());
      before = key;

      if (entries[j].meta & kException) list.has_exceptions_ = true;
      const auto labels =
          static_cast<uint8_t>(1 + std::count(key.begin(), key.end(), '.'));
      list.fewest_labels_ = std::min(list.fewest_labels_, labels);
      list.most_labels_ = std::max(list.most_labels_, labels);
      const uint64_t hash = HashOf(key_, key);
      size_t slot = SlotOf(hash, list.slots_.size());
      while (list.slots_[slot] != 0) {
        if (++slot == list.slots_.size()) slot = 0;
      }
      list.slots_[slot] =
          TagOf(hash, list.block_bits_) | static_cast<uint32_t>(i / kBlock + 1);
    }
  }
  list.blocks_.assign(packed.begin(), packed.end());  // without spare room
  return result;
}

// --- Looking up --------------------------------------------------------------

size_t Blocklist::memory() const {
  size_t bytes = sizeof(*this) + slots_.capacity() * sizeof(slots_[0]) +
                 blocks_.capacity() + starts_.capacity() * sizeof(starts_[0]);
  for (const std::string& name : lists_) {
    bytes += sizeof(name) + name.capacity();
  }
  return bytes;
}

std::optional<BlocklistMatch> Blocklist::Find(const DnsName& name) const {
  if (size_ == 0) return std::nullopt;
  const Key key = KeyOfName(name, most_labels_);
  // An exact entry counts for the whole name only.
  const size_t whole = name.LabelCount();
  // All slots are fetched before the first is read: they lie anywhere in some
  // megabytes, and the waits then overlap.
  std::array<uint64_t, kMaxLabels + 1> hashes;  // NOLINT: filled as needed
  for (size_t labels = key.labels; labels >= fewest_labels_; --labels) {
    hashes[labels] = HashOf(key_, key.First(labels));
    __builtin_prefetch(&slots_[SlotOf(hashes[labels], slots_.size())]);
  }
  std::optional<BlocklistMatch> match;
  for (size_t labels = key.labels; labels >= fewest_labels_; --labels) {
    const std::optional<uint8_t> meta =
        FindKey(key.First(labels), hashes[labels]);
    if (!meta || (!(*meta & kSubtree) && labels != whole)) continue;
    const bool exception = (*meta & kException) != 0;
    if (match && !exception) continue;
    match = BlocklistMatch{exception, static_cast<uint16_t>(*meta & kListMask),
                           static_cast<uint8_t>(labels)};
    if (exception || !has_exceptions_) break;
  }
  return match;
}

std::optional<uint8_t> Blocklist::FindKey(absl::string_view key,
                                          uint64_t hash) const {
  const uint32_t tag = TagOf(hash, block_bits_);
  const uint32_t block_mask = (uint32_t{1} << block_bits_) - 1;
  size_t slot = SlotOf(hash, slots_.size());
  for (uint32_t value; (value = slots_[slot]) != 0;) {
    if ((value & ~block_mask) == tag) {
      const auto meta = FindInBlock((value & block_mask) - 1, key);
      if (meta) return meta;
    }
    if (++slot == slots_.size()) slot = 0;
  }
  return std::nullopt;
}

std::optional<uint8_t> Blocklist::FindInBlock(size_t block,
                                              absl::string_view key) const {
  const uint8_t* p = &blocks_[starts_[block]];
  const uint8_t* end = block + 1 < starts_.size()
                           ? &blocks_[starts_[block + 1]]
                           : blocks_.data() + blocks_.size();
  const bool same = *p++ == kSameMeta;
  uint8_t meta = same ? *p++ : 0;
  // How much of `key` the entry before agrees with. Nothing is unpacked: an
  // entry that keeps more than that of its predecessor differs from `key`
  // where that did, and one that keeps less is behind it in the order.
  size_t agreed = 0;
  while (p != end) {
    size_t shared = *p >> 4;
    size_t rest = *p++ & 0xF;
    if (shared == kLong) shared = *p++;
    if (rest == kLong) rest = *p++;
    if (!same) meta = *p++;
    if (shared < agreed) return std::nullopt;
    if (shared == agreed) {
      const size_t most = std::min(rest, key.size() - agreed);
      size_t i = 0;
      while (i < most && p[i] == static_cast<uint8_t>(key[agreed + i])) {
        ++i;
      }
      agreed += i;
      if (i == rest && agreed == key.size()) return meta;
    }
    p += rest;
  }
  return std::nullopt;
}

}  // namespace netstack::dns

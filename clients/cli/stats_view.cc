#include "clients/cli/stats_view.h"

#include <cmath>
#include <functional>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/fields.h"
#include "clients/cli/format.h"

namespace netstack::cli {
namespace {

using netstack::v1::CloseCount;
using netstack::v1::DropCount;
using netstack::v1::DropReason;
using netstack::v1::Stats;

using Counter = std::function<uint64_t(const Stats&)>;

// Seconds between two readings whose difference means something.
std::optional<double> SecondsBetween(const StatsSample& now,
                                     const StatsSample* before) {
  if (before == nullptr || before->epoch != now.epoch) return {};
  const double seconds = absl::ToDoubleSeconds(now.time - before->time);
  if (seconds <= 0) return {};
  return seconds;
}

double Rate(const Counter& counter, const Stats& now, const Stats& before,
            double seconds) {
  const uint64_t a = counter(before), b = counter(now);
  return b > a ? static_cast<double>(b - a) / seconds : 0;
}

uint64_t DropsOf(const Stats& stats, DropReason reason) {
  for (const DropCount& drop : stats.drops()) {
    if (drop.reason() == reason) return drop.packets();
  }
  return 0;
}

// Builds the table of one reading, group by group.
class StatsTable {
 public:
  StatsTable(const StatsSample& now, const StatsSample* before)
      : now_(now), seconds_(SecondsBetween(now, before)), table_(Columns()) {
    if (seconds_) before_ = &before->stats;
  }

  void Group(const std::string& title) {
    if (!table_.empty()) table_.Heading("");
    table_.Heading(title);
  }

  // `trouble` colours the number when it is not zero.
  void Count(const std::string& label, const Counter& counter,
             bool trouble = false) {
    Number(label, counter, trouble, "");
  }

  void CountWith(const std::string& label, const Counter& counter,
                 const std::string& note) {
    Number(label, counter, true, note);
  }

  void Bytes(const std::string& label, const Counter& counter) {
    const auto value = static_cast<double>(counter(now_.stats));
    Add(label, ShowBytes(value), ShowByteRate(RateOf(counter)));
  }

  void Gauge(const std::string& label, const std::string& text,
             const std::string& note = "") {
    Add(label, text, "", note);
  }

  std::string Render(const Layout& layout) const {
    Layout mine = layout;
    mine.header = seconds_.has_value();
    return table_.Render(mine);
  }

  double RateOf(const Counter& counter) const {
    return seconds_ ? Rate(counter, now_.stats, *before_, *seconds_) : 0;
  }

 private:
  static std::vector<Column> Columns() {
    return {{.title = "", .min_width = 26},
            {.title = "TOTAL", .right = true, .min_width = 12},
            {.title = "RATE", .right = true, .min_width = 0},
            {.title = "", .shrink_to = 10}};
  }

  void Number(const std::string& label, const Counter& counter, bool trouble,
              const std::string& note) {
    const uint64_t value = counter(now_.stats);
    Add(label,
        Cell(ShowCount(value),
             trouble && value > 0 ? Style::kWarn : Style::kPlain),
        ShowCountRate(RateOf(counter)), note);
  }

  void Add(const std::string& label, Cell total, const std::string& rate,
           const std::string& note = "") {
    table_.Row({"  " + label,
                std::move(total),
                seconds_ ? rate : "",
                {note, Style::kDim}});
  }

  const StatsSample& now_;
  std::optional<double> seconds_;
  const Stats* before_ = nullptr;  // Set when seconds_ is.
  Table table_;
};

void AddTun(StatsTable& t) {
  t.Group("TUN (IP packets; outbound is from the apps)");
  t.Count("outbound packets",
          [](const Stats& s) { return s.tun().outbound_packets(); });
  t.Bytes("outbound bytes",
          [](const Stats& s) { return s.tun().outbound_bytes(); });
  t.Count("inbound packets",
          [](const Stats& s) { return s.tun().inbound_packets(); });
  t.Bytes("inbound bytes",
          [](const Stats& s) { return s.tun().inbound_bytes(); });
  t.Count("reads", [](const Stats& s) { return s.tun().reads(); });
  t.Count("writes", [](const Stats& s) { return s.tun().writes(); });
  t.Count(
      "writes that waited",
      [](const Stats& s) { return s.tun().write_blocked(); }, true);
  t.Count("packets merged (GRO)",
          [](const Stats& s) { return s.tun().outbound_merged(); });
  t.Count("TCP packets read",
          [](const Stats& s) { return s.tun().tcp_packets(); });
  t.Count("UDP packets read",
          [](const Stats& s) { return s.tun().udp_packets(); });
  t.Count("ICMP packets read",
          [](const Stats& s) { return s.tun().icmp_packets(); });
  t.Count("other packets read",
          [](const Stats& s) { return s.tun().other_packets(); });
  t.Count("fragments read", [](const Stats& s) { return s.tun().fragments(); });
}

void AddTcp(StatsTable& t, const Stats& stats) {
  t.Group("TCP flows");
  t.Gauge("now", ShowCount(stats.tcp().active()),
          absl::StrCat("of ", ShowCount(stats.flow_limit())));
  t.Gauge("half open", ShowCount(stats.tcp().half_open()));
  t.Gauge("in TIME_WAIT", ShowCount(stats.tcp().time_wait()));
  t.Gauge("host sockets", ShowCount(stats.descriptors_used()));
  t.Count("opened", [](const Stats& s) { return s.tcp().opened(); });
  t.Count("established", [](const Stats& s) { return s.tcp().established(); });
  t.Bytes("outbound payload",
          [](const Stats& s) { return s.tcp().outbound_bytes(); });
  t.Bytes("inbound payload",
          [](const Stats& s) { return s.tcp().inbound_bytes(); });
  t.Count("resets sent to apps",
          [](const Stats& s) { return s.tcp().resets_sent(); });
  t.Count("ICMP errors to apps",
          [](const Stats& s) { return s.tcp().icmp_errors_sent(); });
  t.Count("retransmits to apps",
          [](const Stats& s) { return s.tcp().retransmits(); });
  t.Count(
      "lwIP assertions", [](const Stats& s) { return s.tcp().lwip_asserts(); },
      true);
  for (const CloseCount& count : stats.tcp().closed()) {
    if (count.flows() == 0) continue;
    const auto reason = count.reason();
    t.Count("ended: " + ShortName(reason), [reason](const Stats& s) {
      for (const CloseCount& c : s.tcp().closed()) {
        if (c.reason() == reason) return c.flows();
      }
      return uint64_t{0};
    });
  }
}

void AddUdp(StatsTable& t, const Stats& stats) {
  t.Group("UDP flows");
  t.Gauge("now", ShowCount(stats.udp().active()),
          absl::StrCat("of ", ShowCount(stats.udp().mappings()),
                       " app endpoints"));
  t.Count("opened", [](const Stats& s) { return s.udp().opened(); });
  t.Count("outbound datagrams",
          [](const Stats& s) { return s.udp().outbound_datagrams(); });
  t.Bytes("outbound payload",
          [](const Stats& s) { return s.udp().outbound_bytes(); });
  t.Count("inbound datagrams",
          [](const Stats& s) { return s.udp().inbound_datagrams(); });
  t.Bytes("inbound payload",
          [](const Stats& s) { return s.udp().inbound_bytes(); });
  t.Count("outbound batches (GSO)",
          [](const Stats& s) { return s.udp().outbound_batches(); });
  t.Count("inbound batches (GRO)",
          [](const Stats& s) { return s.udp().inbound_batches(); });
  t.Count("send calls", [](const Stats& s) { return s.udp().send_calls(); });
  t.Count("receive calls",
          [](const Stats& s) { return s.udp().receive_calls(); });
  t.Count("from app to app",
          [](const Stats& s) { return s.udp().hairpinned(); });
  t.Count("errors of the network",
          [](const Stats& s) { return s.udp().host_errors(); });
  t.Count("sent again", [](const Stats& s) { return s.udp().resent(); });
  t.Count("ports preserved",
          [](const Stats& s) { return s.udp().ports_preserved(); });
  for (const CloseCount& count : stats.udp().closed()) {
    if (count.flows() == 0) continue;
    const auto reason = count.reason();
    t.Count("ended: " + ShortName(reason), [reason](const Stats& s) {
      for (const CloseCount& c : s.udp().closed()) {
        if (c.reason() == reason) return c.flows();
      }
      return uint64_t{0};
    });
  }
}

void AddIcmp(StatsTable& t, const Stats& stats) {
  t.Group("Echoes (ping)");
  t.Gauge("now", ShowCount(stats.icmp().active()),
          absl::StrCat("by ", ShowCount(stats.icmp().sockets()), " sockets"));
  t.Count("requests", [](const Stats& s) { return s.icmp().requests(); });
  t.Count("replies", [](const Stats& s) { return s.icmp().replies(); });
  t.Count("ICMP errors passed on",
          [](const Stats& s) { return s.icmp().errors_passed(); });
  t.Count("answered for the gateway",
          [](const Stats& s) { return s.icmp().gateway_echoes(); });
  t.Count(
      "made way", [](const Stats& s) { return s.icmp().evicted(); }, true);
}

void AddFragments(StatsTable& t, const Stats& stats) {
  t.Group("Fragments of the apps");
  t.Gauge("waiting", ShowCount(stats.fragments().held()),
          absl::StrCat("in ",
                       ShowBytes(static_cast<double>(
                           stats.fragments().bytes()))));
  t.Count("datagrams made whole",
          [](const Stats& s) { return s.fragments().reassembled(); });
  t.Count(
      "timed out", [](const Stats& s) { return s.fragments().timed_out(); },
      true);
  t.Count(
      "made way", [](const Stats& s) { return s.fragments().evicted(); }, true);
  t.Count(
      "overlapping",
      [](const Stats& s) { return s.fragments().overlapped(); }, true);
}

void AddDials(StatsTable& t, const Stats& stats) {
  t.Group("Dials (connections to the host side)");
  t.Count("attempts", [](const Stats& s) { return s.dial().attempts(); });
  t.Count("connected", [](const Stats& s) { return s.dial().connected(); });
  t.Count("refused", [](const Stats& s) { return s.dial().refused(); });
  t.Count("unreachable", [](const Stats& s) { return s.dial().unreachable(); });
  t.Count("timed out", [](const Stats& s) { return s.dial().timed_out(); });
  t.Count(
      "not protected", [](const Stats& s) { return s.dial().protect_failed(); },
      true);
  if (stats.dial().protect_asked() + stats.dial().pool_misses() != 0) {
    t.Count("app asked to protect",
            [](const Stats& s) { return s.dial().protect_asked(); });
    t.Count(
        "refused by the app",
        [](const Stats& s) { return s.dial().protect_refused(); }, true);
    t.Count(
        "not answered by the app",
        [](const Stats& s) { return s.dial().protect_unanswered(); }, true);
    t.Count("taken from the pool",
            [](const Stats& s) { return s.dial().pool_hits(); });
    t.Count("found the pool empty",
            [](const Stats& s) { return s.dial().pool_misses(); });
    t.Gauge("ready in the pool", ShowCount(stats.dial().pool_ready()));
    t.Gauge("being protected", ShowCount(stats.dial().protecting()));
  }
  t.Count(
      "no descriptor", [](const Stats& s) { return s.dial().no_descriptor(); },
      true);
  t.Count(
      "other errors", [](const Stats& s) { return s.dial().other_errors(); },
      true);
}

void AddDns(StatsTable& t, const Stats& stats) {
  const auto& dns = stats.dns();
  t.Group("Names (queries of apps to port 53)");
  t.Gauge("under way", ShowCount(dns.waiting()));
  t.Gauge("TCP connections", ShowCount(dns.connections()));
  t.Gauge("answers kept", ShowCount(dns.cache_entries()),
          ShowBytes(static_cast<double>(dns.cache_bytes())));
  t.Gauge("addresses known", ShowCount(dns.addresses()));
  t.Count("over UDP", [](const Stats& s) { return s.dns().udp_queries(); });
  t.Count("over TCP", [](const Stats& s) { return s.dns().tcp_queries(); });
  t.Count("answered by rule or list",
          [](const Stats& s) { return s.dns().answered_policy(); });
  t.Count("answered from the cache",
          [](const Stats& s) { return s.dns().answered_cache(); });
  t.Count("answered by an upstream",
          [](const Stats& s) { return s.dns().answered_upstream(); });
  t.Count(
      "failed", [](const Stats& s) { return s.dns().answered_failure(); },
      true);
  t.Count("asked another upstream",
          [](const Stats& s) { return s.dns().failed_over(); });
  t.Count("malformed", [](const Stats& s) { return s.dns().malformed(); });
  t.Count("told to come over TCP",
          [](const Stats& s) { return s.dns().truncated(); });
  t.Count(
      "asked in the clear",
      [](const Stats& s) { return s.dns().failed_open(); }, true);
}

void AddMemory(StatsTable& t, const Stats& stats) {
  const auto& memory = stats.memory();
  const auto bytes = [](uint64_t n) {
    return ShowBytes(static_cast<double>(n));
  };
  t.Group("Memory of flows");
  t.Gauge("buffered", bytes(memory.buffered()),
          memory.budget() == 0 ? "no budget set"
                               : absl::StrCat("of ", bytes(memory.budget())));
  t.Gauge("buffered at most", bytes(memory.buffered_peak()));
  t.Gauge("flow records", bytes(memory.flow_records()));
  t.Count(
      "waits for the budget",
      [](const Stats& s) { return s.memory().pressure(); }, true);
  t.Count(
      "allocations failed",
      [](const Stats& s) { return s.memory().allocation_failures(); }, true);
}

void AddLoop(StatsTable& t, const StatsSample& now, const StatsSample* before) {
  const auto& loop = now.stats.loop();
  t.Group("Loop thread");
  t.Count("wakeups", [](const Stats& s) { return s.loop().wakeups(); });
  t.Count("turns", [](const Stats& s) { return s.loop().turns(); });
  t.Gauge("longest turn", ShowDuration(ToAbsl(loop.longest_turn())));
  absl::Duration busy = ToAbsl(loop.busy());
  absl::Duration wall = ToAbsl(now.stats.uptime());
  std::string note = "of all time";
  if (SecondsBetween(now, before)) {
    busy -= ToAbsl(before->stats.loop().busy());
    wall = now.time - before->time;
    note = "since the last reading";
  }
  const double share =
      wall > absl::ZeroDuration() ? absl::FDivDuration(busy, wall) * 100 : 0;
  t.Gauge("busy", absl::StrFormat("%.1f%%", share), note);
}

void AddDrops(StatsTable& t, const Stats& stats) {
  if (TotalDrops(stats) == 0) {
    t.Group("Dropped packets: none");
    return;
  }
  t.Group("Dropped packets");
  for (const DropCount& drop : stats.drops()) {
    if (drop.packets() == 0) continue;
    const DropReason reason = drop.reason();
    t.CountWith(
        ShortName(reason),
        [reason](const Stats& s) { return DropsOf(s, reason); },
        DropMeaning(reason));
  }
}

void AddControl(StatsTable& t, const Stats& stats) {
  t.Group("Control socket");
  t.Gauge("connections", ShowCount(stats.control().connections()));
  t.Gauge("watchers", ShowCount(stats.control().watchers()));
  t.Count("accepted", [](const Stats& s) { return s.control().accepted(); });
  t.Count(
      "refused: foreign user",
      [](const Stats& s) { return s.control().refused_uid(); }, true);
  t.Count(
      "refused: too many",
      [](const Stats& s) { return s.control().refused_limit(); }, true);
  t.Count(
      "accept errors",
      [](const Stats& s) { return s.control().accept_errors(); }, true);
  t.Count(
      "watchers stalled",
      [](const Stats& s) { return s.control().watchers_stalled(); }, true);
  t.Count(
      "watchers refused",
      [](const Stats& s) { return s.control().watchers_refused(); }, true);
  t.Count(
      "changes lost", [](const Stats& s) { return s.control().watch_losses(); },
      true);
  const auto& control = stats.control();
  if (control.descriptors_taken() + control.descriptors_refused() +
          control.apps() + control.owner_queries() ==
      0) {
    return;  // no VPN app
  }
  t.Gauge("apps attached", ShowCount(control.apps()));
  t.Gauge("TUNs waiting", ShowCount(control.descriptors_pending()));
  t.Count("TUNs taken",
          [](const Stats& s) { return s.control().descriptors_taken(); });
  t.Count(
      "TUNs refused",
      [](const Stats& s) { return s.control().descriptors_refused(); }, true);
  t.Count(
      "TUNs never named",
      [](const Stats& s) { return s.control().descriptors_expired(); }, true);
  t.Count("owners asked of apps",
          [](const Stats& s) { return s.control().owner_queries(); });
  t.Count("owners told by apps",
          [](const Stats& s) { return s.control().owner_answers(); });
}

}  // namespace

std::string DropMeaning(DropReason reason) {
  // Follows the comments of DropReason in stats.proto; a test holds it
  // complete.
  switch (reason) {
    case netstack::v1::DROP_REASON_TOO_SHORT:
      return "shorter than its own headers say";
    case netstack::v1::DROP_REASON_BAD_IP_VERSION:
      return "neither IPv4 nor IPv6";
    case netstack::v1::DROP_REASON_BAD_IP_HEADER:
      return "header or total length impossible";
    case netstack::v1::DROP_REASON_BAD_IP_CHECKSUM:
      return "IPv4 header checksum wrong";
    case netstack::v1::DROP_REASON_BAD_EXTENSION_HEADER:
      return "IPv6 extension headers cut, looping or too many";
    case netstack::v1::DROP_REASON_BAD_TCP_HEADER:
      return "TCP data offset or flags impossible";
    case netstack::v1::DROP_REASON_BAD_TCP_OPTIONS:
      return "a SYN's options cut or malformed";
    case netstack::v1::DROP_REASON_BAD_TRANSPORT_CHECKSUM:
      return "TCP, UDP or ICMP checksum wrong";
    case netstack::v1::DROP_REASON_SOURCE_NOT_OURS:
      return "source address outside tun.prefixes";
    case netstack::v1::DROP_REASON_BAD_ADDRESS:
      return "an address that no unicast packet may have";
    case netstack::v1::DROP_REASON_MULTICAST:
      return "multicast or broadcast, which is not carried";
    case netstack::v1::DROP_REASON_BAD_FRAGMENT:
      return "a fragment of impossible length, place or mark";
    case netstack::v1::DROP_REASON_UDP_FILTERED:
      return "from a remote that udp.filtering keeps out";
    case netstack::v1::DROP_REASON_ICMP_NOT_CARRIED:
      return "a type of ICMP that stays on the app's link";
    case netstack::v1::DROP_REASON_DNS_NOT_QUERY:
      return "to port 53, but no DNS query that could be answered";
    case netstack::v1::DROP_REASON_DNS_IN_FLIGHT_LIMIT:
      return "a query beyond dns.limits.max_waiting";
    case netstack::v1::DROP_REASON_ADDRESS_NOT_RESOLVED:
      return "a new flow to an address that DNS did not answer";
    case netstack::v1::DROP_REASON_DOT_BLOCKED:
      return "a new flow to DNS over TLS or QUIC";
    case netstack::v1::DROP_REASON_QUIC_BLOCKED:
      return "a new flow of QUIC that a rule refuses";
    case netstack::v1::DROP_REASON_UNKNOWN_PROTOCOL:
      return "a transport that is not carried";
    case netstack::v1::DROP_REASON_TCP_NO_FLOW:
      return "not a SYN, and of no known flow";
    case netstack::v1::DROP_REASON_TCP_BLIND_ACK:
      return "acknowledges what was never sent (RFC 5961)";
    case netstack::v1::DROP_REASON_TCP_BAD_STATE:
      return "not permitted by the flow's handshake";
    case netstack::v1::DROP_REASON_TCP_DUPLICATE_SYN:
      return "the SYN again while its dial goes on";
    case netstack::v1::DROP_REASON_FLOW_TABLE_FULL:
      return "a new flow beyond limits.max_flows";
    case netstack::v1::DROP_REASON_NO_DESCRIPTORS:
      return "a new flow, but no file descriptor left";
    case netstack::v1::DROP_REASON_HALF_OPEN_LIMIT:
      return "a new flow beyond tcp.max_half_open…";
    case netstack::v1::DROP_REASON_SYN_UNPROVEN:
      return "first SYN under pressure; its repetition is dialed";
    case netstack::v1::DROP_REASON_RECENTLY_REFUSED:
      return "the destination has just refused very often";
    case netstack::v1::DROP_REASON_NO_MEMORY:
      return "no memory for a flow or a buffer";
    case netstack::v1::DROP_REASON_FLOW_POISONED:
      return "an lwIP assertion failed; the flow is being reset";
    case netstack::v1::DROP_REASON_SHUTTING_DOWN:
      return "the stack was stopping";
    case netstack::v1::DROP_REASON_TUN_WRITE_FAILED:
      return "the TUN refused the packet";
    case netstack::v1::DROP_REASON_ICMP_RATE_LIMITED:
      return "beyond limits.icmp_errors_per_second or …_path";
    case netstack::v1::DROP_REASON_ICMP_ERROR_FROM_APP:
      return "an app's ICMP error about a packet of ours";
    case netstack::v1::DROP_REASON_ECHO_NOT_PERMITTED:
      return "no ping sockets (netstackctl status says why)";
    case netstack::v1::DROP_REASON_ECHO_NOT_SENT:
      return "an echo that the host did not take";
    case netstack::v1::DROP_REASON_ECHO_UNASKED:
      return "about an echo that nobody waits for";
    case netstack::v1::DROP_REASON_TTL_EXPIRED:
      return "TTL or hop limit used up here (traceroute)";
    case netstack::v1::DROP_REASON_FRAGMENT_OVERLAP:
      return "fragments that overlap, and their datagram";
    case netstack::v1::DROP_REASON_FRAGMENT_DUPLICATE:
      return "the same fragment again";
    case netstack::v1::DROP_REASON_FRAGMENT_TINY:
      return "a first fragment without its whole header";
    case netstack::v1::DROP_REASON_FRAGMENT_LIMIT:
      return "fragments beyond a limit of `fragments`";
    case netstack::v1::DROP_REASON_FRAGMENT_TIMEOUT:
      return "fragments whose rest did not come in time";
    case netstack::v1::DROP_REASON_BAD_UDP_HEADER:
      return "UDP length or port impossible";
    case netstack::v1::DROP_REASON_UDP_SOCKET_FULL:
      return "the host's socket took no more datagrams";
    case netstack::v1::DROP_REASON_UDP_TOO_BIG:
      return "beyond the path's MTU; the app was told";
    case netstack::v1::DROP_REASON_UDP_HOST_ERROR:
      return "no route, a firewall or no socket on the host";
    case netstack::v1::DROP_REASON_LOOP:
      return "our own packet came back: sockets are not protected";
    case netstack::v1::DROP_REASON_APP_BLOCKED:
      return "a rule of apps.rules blocks its owner";
    case netstack::v1::DROP_REASON_OWNER_AWAITED:
      return "whose it is was not known yet";
    case netstack::v1::DROP_REASON_NOT_PROTECTED_YET:
      return "the app had no protected socket ready (protect.pool_size)";
    default:
      return "";
  }
}

uint64_t TotalDrops(const Stats& stats) {
  uint64_t total = 0;
  for (const DropCount& drop : stats.drops()) total += drop.packets();
  return total;
}

std::string RenderStats(const StatsSample& now, const StatsSample* before,
                        const Layout& layout) {
  StatsTable table(now, before);
  std::string title;
  if (now.epoch == 0) {
    title = "No stack runs (netstackctl start).\n\n";
  } else {
    title = absl::StrCat("Since the stack started, ",
                         ShowDuration(ToAbsl(now.stats.uptime())), " ago:\n\n");
    AddTun(table);
    AddTcp(table, now.stats);
    AddUdp(table, now.stats);
    AddIcmp(table, now.stats);
    AddFragments(table, now.stats);
    AddDials(table, now.stats);
    AddDns(table, now.stats);
    AddMemory(table, now.stats);
    AddLoop(table, now, before);
    AddDrops(table, now.stats);
  }
  AddControl(table, now.stats);
  return title + table.Render(layout);
}

std::string RenderStatsLine(const StatsSample& now, const StatsSample* before,
                            absl::TimeZone zone, const Layout& layout) {
  Table table({{.title = "TIME", .min_width = 8},
               {.title = "FLOWS", .right = true, .min_width = 7},
               {.title = "HALF-OPEN", .right = true, .min_width = 9},
               {.title = "OUTBOUND", .right = true, .min_width = 11},
               {.title = "INBOUND", .right = true, .min_width = 11},
               {.title = "OUT-PACKETS", .right = true, .min_width = 11},
               {.title = "IN-PACKETS", .right = true, .min_width = 11},
               {.title = "DROPS", .right = true, .min_width = 9},
               {.title = "BUFFERED", .right = true, .min_width = 9}});
  const std::string clock = ShowClock(now.time, zone);
  if (now.epoch == 0) {
    table.Row({clock, "stopped"});
    return table.Render(layout);
  }
  const std::optional<double> seconds = SecondsBetween(now, before);
  const auto bytes = [&](const Counter& counter) -> std::string {
    if (!seconds) return "-";
    return ShowByteRate(Rate(counter, now.stats, before->stats, *seconds));
  };
  const auto count = [&](const Counter& counter) -> std::string {
    if (!seconds) return "-";
    return ShowCountRate(Rate(counter, now.stats, before->stats, *seconds));
  };
  table.Row({clock, ShowCount(now.stats.tcp().active()),
             ShowCount(now.stats.tcp().half_open()),
             bytes([](const Stats& s) { return s.tun().outbound_bytes(); }),
             bytes([](const Stats& s) { return s.tun().inbound_bytes(); }),
             count([](const Stats& s) { return s.tun().outbound_packets(); }),
             count([](const Stats& s) { return s.tun().inbound_packets(); }),
             count(TotalDrops),
             ShowBytes(static_cast<double>(now.stats.memory().buffered()))});
  return table.Render(layout);
}

}  // namespace netstack::cli

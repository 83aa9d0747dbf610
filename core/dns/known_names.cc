#include "core/dns/known_names.h"

namespace netstack::dns {
namespace {

constexpr absl::string_view kDoh[] = {
    // Google
    "dns.google",
    "dns.google.com",
    "dns64.dns.google",
    "8888.google",
    // Cloudflare, and the names that browsers were given there
    "cloudflare-dns.com",
    "one.one.one.one",
    "1dot1dot1dot1.cloudflare-dns.com",
    "chrome.cloudflare-dns.com",
    "mozilla.cloudflare-dns.com",
    "family.cloudflare-dns.com",
    "security.cloudflare-dns.com",
    "dns.cloudflare.com",
    "cloudflare-gateway.com",
    // Quad9
    "dns.quad9.net",
    "dns9.quad9.net",
    "dns10.quad9.net",
    "dns11.quad9.net",
    // OpenDNS, Cisco
    "doh.opendns.com",
    "doh.familyshield.opendns.com",
    "dns.opendns.com",
    "doh.umbrella.com",
    "dns.umbrella.com",
    "doh.sandbox.opendns.com",
    // AdGuard, NextDNS, Control D
    "dns.adguard.com",
    "dns-family.adguard.com",
    "dns-unfiltered.adguard.com",
    "dns.adguard-dns.com",
    "family.adguard-dns.com",
    "unfiltered.adguard-dns.com",
    "d.adguard-dns.com",
    "dns.nextdns.io",
    "doh.nextdns.io",
    "firefox.dns.nextdns.io",
    "chromium.dns.nextdns.io",
    "dns.controld.com",
    "freedns.controld.com",
    // CleanBrowsing, DNS.SB, Mullvad, dns0.eu, DNS4EU
    "doh.cleanbrowsing.org",
    "family-filter-dns.cleanbrowsing.org",
    "adult-filter-dns.cleanbrowsing.org",
    "security-filter-dns.cleanbrowsing.org",
    "doh.dns.sb",
    "dot.sb",
    "doh.sb",
    "dns.mullvad.net",
    "adblock.dns.mullvad.net",
    "base.dns.mullvad.net",
    "extended.dns.mullvad.net",
    "family.dns.mullvad.net",
    "all.dns.mullvad.net",
    "doh.mullvad.net",
    "dns0.eu",
    "zero.dns0.eu",
    "kids.dns0.eu",
    "open.dns0.eu",
    "joindns4.eu",
    // Providers whose resolvers browsers switch to by themselves
    "doh.xfinity.com",
    "dot.xfinity.com",
    "doh.cox.net",
    "dot.cox.net",
    "dns.shaw.ca",
    "private.canadianshield.cira.ca",
    "protected.canadianshield.cira.ca",
    "family.canadianshield.cira.ca",
    "doh.quickline.ch",
    "doh.sbb.ch",
    "ordns.he.net",
    // Others with many users
    "dns.alidns.com",
    "doh.pub",
    "dot.pub",
    "dns.pub",
    "doh.360.cn",
    "dot.360.cn",
    "dns.twnic.tw",
    "public.dns.iij.jp",
    "dns.switch.ch",
    "odvr.nic.cz",
    "doh.libredns.gr",
    "dot.libredns.gr",
    "doh.ffmuc.net",
    "dot.ffmuc.net",
    "doh.applied-privacy.net",
    "dot1.applied-privacy.net",
    "dns.digitale-gesellschaft.ch",
    "fi.doh.dns.snopyta.org",
    "dnsforge.de",
    "unicast.uncensoreddns.org",
    "anycast.uncensoreddns.org",
    "wikimedia-dns.org",
    "doh.tiar.app",
    "dot.tiar.app",
    "jp.tiar.app",
    "common.dot.dns.yandex.net",
    "safe.dot.dns.yandex.net",
    "family.dot.dns.yandex.net",
    "basic.rethinkdns.com",
    "max.rethinkdns.com",
    "sky.rethinkdns.com",
    "rx.techomespace.com",
    "blitz.ahadns.com",
    "dns.rabbitdns.org",
    "doh.dnslify.com",
    "dns.aa.net.uk",
    "doh.powerdns.org",
    "dns.decloudus.com",
    "freedom.mydns.network",
};

constexpr absl::string_view kCanary[] = {"use-application-dns.net"};

constexpr absl::string_view kPrivateRelay[] = {"mask.icloud.com",
                                               "mask-h2.icloud.com"};

}  // namespace

std::span<const absl::string_view> KnownDohNames() { return kDoh; }
std::span<const absl::string_view> CanaryNames() { return kCanary; }
std::span<const absl::string_view> PrivateRelayNames() { return kPrivateRelay; }

}  // namespace netstack::dns

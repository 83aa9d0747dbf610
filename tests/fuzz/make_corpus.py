#!/usr/bin/env python3
"""Writes the seed corpora of the packet fuzzers, one named file per input.

    make_corpus.py           writes them below corpus/
    make_corpus.py --check   exits 1 when a file is missing or different

Files of other names (found by a fuzzer, or another target's) are left alone.
"""
import pathlib
import socket
import struct
import sys

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"
APP4, REMOTE4 = "10.0.0.2", "192.0.2.1"
APP6, REMOTE6 = "fd00::2", "2001:db8::1"
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pton(text):
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return socket.inet_pton(family, text)


def ip4(protocol, payload, src=APP4, dst=REMOTE4, options=b"", frag=0x4000,
        ttl=64, tos=0, total=None):
    words = 5 + len(options) // 4
    size = words * 4 + len(payload) if total is None else total
    head = struct.pack("!BBHHHBBH", 0x40 | words, tos, size, 1, frag, ttl,
                       protocol, 0) + pton(src) + pton(dst) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ip6(next_header, payload, src=APP6, dst=REMOTE6, tclass=0, size=None):
    size = len(payload) if size is None else size
    return struct.pack("!IHBB", 6 << 28 | tclass << 20, size, next_header,
                       64) + pton(src) + pton(dst) + payload


def tcp(src, dst, flags=ACK, options=b"", payload=b"", sport=40000, dport=80,
        words=None, seq=1, ack=1):
    options += b"\0" * (-len(options) % 4)
    words = 5 + len(options) // 4 if words is None else words
    body = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, words << 4, flags,
                       65535, 0, 0) + options + payload
    pseudo = pton(src) + pton(dst) + struct.pack("!II", len(body), 6)
    return body[:16] + struct.pack("!H", checksum(pseudo + body)) + body[18:]


def ext(next_header, kind):
    """An IPv6 extension header of `kind`."""
    body = {
        0: bytes.fromhex("000104" + "00" * 4),
        43: bytes.fromhex("00040000000000"),
        44: bytes.fromhex("00000012345678"),
        51: bytes.fromhex("040000" + "00000001" * 2 + "00" * 12),
        60: bytes.fromhex("01010c" + "00" * 12),
    }[kind]
    return bytes([next_header]) + body


def chain(kinds, protocol, payload):
    following = kinds[1:] + [protocol]
    headers = b"".join(ext(n, k) for k, n in zip(kinds, following))
    return ip6(kinds[0], headers + payload)


LINUX_SYN4 = bytes.fromhex(
    "4500003cab09400040067ba80a0000020a000009b07e005076b2660d00000000"
    "a002faf0df700000020405b40402080a818b4a77000000000103030a")
LINUX_SYN6 = bytes.fromhex(
    "60050f8e0028064020010db800000000000000000000000220010db800000000"
    "0000000000000009d34400503680bde300000000a002fd20dbf60000020405a0"
    "0402080ad3da77a9000000000103030a")
SYN_OPTIONS = bytes.fromhex("020405b40402080a000000010000000001030307")

OPTIONS = {
    "empty": b"",
    "linux": SYN_OPTIONS,
    "nops": b"\1" * 40,
    "end_first": b"\0" + b"\2\4",
    "mss_cut": b"\2\4\5",
    "mss_short": b"\2\3\5\0",
    "mss_zero": b"\2\4\0\0",
    "kind_is_last_byte": b"\1\1\1\2",
    "length_zero": b"\x08\0\0\0",
    "length_one": b"\x08\1\0\0",
    "length_beyond": b"\x08\x0a\0\0",
    "scale_255": b"\3\3\xff\1",
    "sack_long": b"\4\3\0\0",
    "unknown": b"\xfe\4\1\2\xfd\2",
    "fast_open": b"\x22\x0a" + b"\xaa" * 8,
    "mss_twice": b"\2\4\5\xb4\2\4\2\0",
}


def tcp_cases(wrap, src, dst):
    """Packets that differ behind the IP header only."""
    cases = {
        "syn": tcp(src, dst, SYN, SYN_OPTIONS),
        "ack": tcp(src, dst),
        "data": tcp(src, dst, ACK | PSH, payload=b"hello, world"),
        "fin": tcp(src, dst, FIN | ACK),
        "rst": tcp(src, dst, RST),
        "urgent": tcp(src, dst, ACK | URG, payload=b"!"),
        "syn_fin": tcp(src, dst, SYN | FIN),
        "syn_rst": tcp(src, dst, SYN | RST),
        "no_flags": tcp(src, dst, 0),
        "all_flags": tcp(src, dst, 255),
        "port_zero": tcp(src, dst, sport=0),
        "offset_4": tcp(src, dst, words=4),
        "offset_15": tcp(src, dst, words=15),
        "options_40": tcp(src, dst, SYN, b"\1" * 40),
        "data_with_mss": tcp(src, dst, ACK, b"\2\4\0\4", b"x"),
        "cut_header": tcp(src, dst)[:19],
        "no_header": b"",
        "bad_checksum": tcp(src, dst)[:16] + b"\0\0\0\0",
    }
    for name, options in OPTIONS.items():
        if name != "empty":
            cases[f"syn_{name}"] = tcp(src, dst, SYN, options)
    return {f"tcp_{name}": wrap(body) for name, body in cases.items()}


def ip4_cases():
    udp = bytes.fromhex("9c40003500090000aa")
    cases = tcp_cases(lambda body: ip4(6, body), APP4, REMOTE4)
    good = ip4(6, tcp(APP4, REMOTE4))
    cases.update({
        "linux_syn": LINUX_SYN4,
        "udp_dns": ip4(17, udp),
        "icmp_echo": ip4(1, bytes.fromhex("0800f7fe00010000")),
        "icmp_unreachable": ip4(1, bytes.fromhex("0303fcfc00000000") + good),
        "unknown_protocol": ip4(99, b"abc"),
        "options": ip4(6, tcp(APP4, REMOTE4), options=b"\x94\4\0\0"),
        "options_40": ip4(6, tcp(APP4, REMOTE4), options=b"\1" * 40),
        "fragment_first": ip4(17, udp, frag=0x2000),
        "fragment_last": ip4(17, udp, frag=0x0001),
        "fragment_farthest": ip4(17, udp, frag=0x1FFF),
        "no_df": ip4(6, tcp(APP4, REMOTE4), frag=0),
        "trailing": good + b"\0" * 6,
        "cut": good[:-1],
        "header_cut": good[:19],
        "total_0": ip4(6, tcp(APP4, REMOTE4), total=0),
        "total_19": ip4(6, tcp(APP4, REMOTE4), total=19),
        "total_65535": ip4(6, tcp(APP4, REMOTE4), total=65535),
        "ihl_4": b"\x44" + good[1:],
        "ihl_15": b"\x4f" + good[1:],
        "bad_checksum": good[:10] + b"\0\0" + good[12:],
        "version_5": b"\x55" + good[1:],
        "multicast": ip4(17, udp, dst="224.0.0.251"),
        "broadcast": ip4(17, udp, dst="255.255.255.255"),
        "from_unspecified": ip4(17, udp, src="0.0.0.0"),
    })
    return cases


def ip6_cases():
    segment = tcp(APP6, REMOTE6)
    udp = bytes.fromhex("9c40003500090000aa")
    cases = tcp_cases(lambda body: ip6(6, body), APP6, REMOTE6)
    good = ip6(6, segment)
    cases.update({
        "linux_syn": LINUX_SYN6,
        "udp_dns": ip6(17, udp),
        "icmp_echo": ip6(58, bytes.fromhex("8000000000010000")),
        "icmp_unreachable": ip6(58, bytes.fromhex("0104000000000000") + good),
        "no_next_header": ip6(59, b""),
        "esp": ip6(50, b"\0" * 8),
        "unknown_protocol": ip6(99, b"abc"),
        "hop_by_hop": chain([0], 6, segment),
        "every_extension": chain([0, 60, 43, 44, 51, 60], 6, segment),
        "eight_extensions": chain([60] * 8, 6, segment),
        "nine_extensions": chain([60] * 9, 6, segment),
        "hop_by_hop_second": chain([60, 0], 6, segment),
        "extension_cut": chain([60], 6, b"")[:-1],
        "extension_missing": ip6(60, b""),
        "extension_beyond": ip6(60, b"\6\xff\1\4\0\0\0\0"),
        "authentication_cut": ip6(51, b"\6\4\0\0\0\0\0\1"),
        "routing_0": ip6(43, b"\6\2\0\1\0\0\0\0" + pton(REMOTE6) + segment),
        "atomic_fragment": ip6(44, b"\6\0\0\0\0\0\0\1" + segment),
        "fragment_first": ip6(44, b"\x11\0\0\1\0\0\0\1" + udp),
        "fragment_last": ip6(44, b"\x11\0\0\x08\0\0\0\1" + udp),
        "fragment_of_extension": ip6(44, b"\x3c\0\0\1\0\0\0\1\xff\xff"),
        "fragment_cut": ip6(44, b"\6\0\0\0\0\0\0"),
        "two_atomic_fragments": chain([44, 44], 6, segment),
        "trailing": good + b"\0" * 6,
        "cut": good[:-1],
        "header_cut": good[:39],
        "payload_0": ip6(6, segment, size=0),
        "payload_65535": ip6(6, segment, size=65535),
        "jumbo": ip6(0, b"\6\0\xc2\4\0\1\0\0" + segment, size=0),
        "from_mapped": ip6(6, segment, src="::ffff:10.0.0.2"),
        "to_mapped": ip6(6, segment, dst="::ffff:192.0.2.1"),
        "from_unspecified": ip6(17, udp, src="::"),
        "multicast": ip6(17, udp, dst="ff02::fb"),
        "traffic_class": ip6(6, segment, tclass=0xB8),
        "version_7": b"\x70" + good[1:],
    })
    return cases


def corpora():
    four, six = ip4_cases(), ip6_cases()
    icmp = {}
    for i, (name, packet) in enumerate(four.items()):
        icmp[f"v4_{name}"] = bytes([i % 7]) + packet
    for i, (name, packet) in enumerate(six.items()):
        icmp[f"v6_{name}"] = bytes([i % 7]) + packet
    icmp["v4_large"] = b"\6" + ip4(17, b"Z" * 1000)
    icmp["v6_large"] = b"\6" + ip6(17, b"Z" * 1400)
    return {"ip4": four, "ip6": six, "syn_options": OPTIONS,
            "icmp_error": icmp}


def main():
    check = sys.argv[1:] == ["--check"]
    stale = []
    for target, cases in corpora().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in cases.items():
            path = folder / name
            if check:
                if not path.is_file() or path.read_bytes() != content:
                    stale.append(path)
            else:
                path.write_bytes(content)
    for path in stale:
        print(f"{path}: not what this script makes")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

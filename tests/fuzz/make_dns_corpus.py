#!/usr/bin/env python3
"""Writes the seeds of the DNS fuzz targets to corpus/.

    make_dns_corpus.py           writes them
    make_dns_corpus.py --check   exits 1 when a file differs or is missing
"""
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).parent / "corpus"


def name(text):
    if text == ".":
        return b"\0"
    return b"".join(bytes([len(p)]) + p.encode()
                    for p in text.split(".")) + b"\0"


def rr(owner, kind, ttl, data, rclass=1):
    owner = name(owner) if isinstance(owner, str) else owner
    return owner + struct.pack("!HHIH", kind, rclass, ttl, len(data)) + data


def opt(size=1232, ttl=0, data=b""):
    return rr(".", 41, ttl, data, size)


def message(flags, question=("www.example.com", 1), answers=(),
            authorities=(), additional=(), ident=0x1234, counts=None, qclass=1):
    body = name(question[0]) + struct.pack("!HH", question[1], qclass)
    counts = counts or (1, len(answers), len(authorities), len(additional))
    return struct.pack("!HHHHHH", ident, flags, *counts) + body + b"".join(
        (*answers, *authorities, *additional))


POINTER = b"\xc0\x0c"
A = rr(POINTER, 1, 60, bytes([192, 0, 2, 1]))
AAAA = rr(POINTER, 28, 60, bytes.fromhex("20010db8" + "00" * 11 + "01"))
SOA = rr("example.com", 6, 300, name("ns.example.com") + name("mail.example")
         + struct.pack("!IIIII", 1, 2, 3, 4, 60))
HTTPS = rr(POINTER, 65, 60, b"\0\1" + name("cdn.example") +
           bytes.fromhex("0001000302683300040004c0000201") +
           bytes.fromhex("0006001020010db8" + "00" * 11 + "02"))

QUERIES = {
    "query_a": message(0x0100),
    "query_0x20": message(0x0100, ("wWw.ExAmPlE.cOm", 28)),
    "query_edns": message(0x0130, additional=[opt(4096, 0x8000)]),
    "query_ecs_cookie": message(0x0100, additional=[opt(
        1232, 0, bytes.fromhex("0008000700011800c00002"
                               "000a00080102030405060708000c0004" "00" * 4))]),
    "query_root": message(0x0100, (".", 2)),
    "query_two_opt": message(0x0100, additional=[opt(), opt()]),
    "query_edns1": message(0x0100, additional=[opt(1232, 0x00010000)]),
    "query_chaos": message(0x0100, ("version.bind", 16), qclass=3),
    "query_axfr": message(0x0100, ("example.com", 252)),
    "query_notify": message(0x2000),
    "query_two_questions": message(0x0100, counts=(2, 0, 0, 0)),
    "query_pointer": struct.pack("!HHHHHH", 1, 0x100, 1, 0, 0, 0) + POINTER +
        b"\0\1\0\1",
    "query_cut": message(0x0100)[:-1],
    "query_longest": message(0x0100, (".".join(["a" * 63] * 3 + ["b" * 61]),
                                      1)),
    "query_odd_bytes": struct.pack("!HHHHHH", 1, 0x100, 1, 0, 0, 0) +
        b"\4a.\\\0\2\xff \0" + b"\0\1\0\1",
}
ANSWERS = {
    "answer_a": message(0x8180, answers=[A]),
    "answer_aaaa_ad": message(0x81a0, ("www.example.com", 28), [AAAA],
                              additional=[opt(1232, 0x8000)]),
    "answer_cname": message(0x8180, answers=[
        rr(POINTER, 5, 300, name("cdn.example")),
        rr("cdn.example", 1, 30, bytes([192, 0, 2, 2]))]),
    "answer_dname": message(0x8180, answers=[
        rr("example.com", 39, 300, name("example.net")),
        rr(POINTER, 5, 300, b"\3www\7example\3net\0")]),
    "answer_https": message(0x8180, ("www.example.com", 65), [HTTPS]),
    "answer_nxdomain": message(0x8183, authorities=[SOA],
                               additional=[opt()]),
    "answer_nodata": message(0x8180, authorities=[SOA]),
    "answer_servfail": message(0x8182),
    "answer_truncated": message(0x8380),
    "answer_opt_in_the_middle": message(0x8180, answers=[A],
                                        additional=[opt(), AAAA]),
    "answer_extended_rcode": message(0x8180,
                                     additional=[opt(1232, 1 << 24)]),
    "answer_ttl_high_bit": message(0x8180, answers=[
        rr(POINTER, 1, 0x80000001, bytes(4))]),
    "answer_many": message(0x8180, answers=[A] * 100),
    "answer_mx": message(0x8180, ("example.com", 15), [
        rr(POINTER, 15, 60, b"\0\5" + name("mail.example"))]),
    "answer_pointer_loop": message(0x8180, answers=[
        rr(b"\xc0\x21", 1, 60, bytes(4))]),
    "answer_pointer_forward": message(0x8180, answers=[
        rr(b"\xc0\xff", 1, 60, bytes(4))]),
    "answer_name_over_its_data": message(0x8180, answers=[
        rr(POINTER, 5, 60, b"\5ab")]),
    "answer_short_a": message(0x8180, answers=[rr(POINTER, 1, 60, bytes(3))]),
    "answer_short_soa": message(0x8183, authorities=[
        rr(POINTER, 6, 60, b"\0\0" + bytes(19))]),
    "answer_counts_lie": message(0x8180, answers=[A], counts=(1, 9, 9, 9)),
    "answer_trailing": message(0x8180, answers=[A]) + b"junk",
    "answer_svcb_descending": message(0x8180, ("a.example", 64), [
        rr(POINTER, 64, 60, b"\0\1\0" + bytes.fromhex(
            "00060000" "00040004c0000201"))]),
}
LISTS = {
    "hosts": "ads.example\n0.0.0.0 ads.example track.example # x\n"
             "127.0.0.1 localhost\n::1 six.example\n192.0.2.1 printer\n",
    "plain": "x.ads.example\nads.example\n*.wild.example\nerror\n",
    "adblock": "x.good.example\n[Adblock Plus 2.0]\n! t\n||example^\n"
               "@@||good.example^\n||a.example^$third-party\n##.x\n/re/\n"
               "a.example##.y\n||a*.example^\n",
    "no_newline": "a.example\na.example",
    "carriage_return": "a.example\r\na.example\r\n",
    "byte_order_mark": "a.example\n\ufeffa.example\n",
    "odd_bytes": "\\000.a.example\n0.0.0.0 a\u00fc.example\n\0.example\n",
    "shared_prefixes": "n7.a.example\n" + "".join(
        f"n{i}.a.example\nn{i}.{'long' * 10}.example\n" for i in range(40)),
    "mixed_meta": "n3.example\n" + "".join(
        ("||n%d.example^\n" if i % 2 else "0.0.0.0 n%d.example\n") % i
        for i in range(40)),
}


def files():
    for file, data in {**QUERIES, **ANSWERS}.items():
        yield HERE / "dns_message" / file, data
    for file, text in LISTS.items():
        yield HERE / "dns_blocklist" / file, text.encode()


def main():
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    wrong = 0
    for path, data in files():
        if sys.argv[1:]:
            if not path.is_file() or path.read_bytes() != data:
                print(f"{path} is not what this script makes")
                wrong = 1
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return wrong


if __name__ == "__main__":
    sys.exit(main())

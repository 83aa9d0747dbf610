#!/usr/bin/env python3
"""Writes the seed corpora of fragments_fuzz.cc and icmp_forwarder_fuzz.cc:
sequences of steps, one named file per story.

    make_icmp_corpus.py           writes them below corpus/
    make_icmp_corpus.py --check   exits 1 when a file is missing or different

The steps' numbers are those of the targets' Step().
"""
import sys

from make_tcp_corpus import CORPUS, size, u16

MORE, OTHER = 1, 8


def fragment(offset, length, flags=0, id=1, v6=False):
    """`offset` in bytes."""
    return [0, id | (8 if v6 else 0), size(offset // 8), size(length), flags]


def fragment_cases():
    stories = {
        "two": [fragment(0, 16, MORE), fragment(16, 10)],
        "reversed": [fragment(16, 10), fragment(0, 16, MORE)],
        "three": [fragment(0, 24, MORE), fragment(48, 5),
                  fragment(24, 24, MORE)],
        "duplicate": [fragment(0, 16, MORE)] * 2 + [fragment(16, 10)],
        "other_bytes": [fragment(0, 16, MORE), fragment(0, 16, MORE | OTHER),
                        fragment(16, 10)],
        "overlap": [fragment(0, 32, MORE), fragment(16, 32, MORE),
                    fragment(48, 10)],
        "two_ends": [fragment(16, 10), fragment(24, 10),
                     fragment(0, 16, MORE)],
        "behind_the_end": [fragment(16, 8), fragment(32, 8, MORE)],
        "tiny": [fragment(0, 8, MORE | 16), fragment(8, 40)],
        "odd_length": [fragment(0, 17, MORE)],
        "empty": [fragment(0, 0, MORE), fragment(8, 0)],
        "too_long": [[0, 1, 255, 255, 0], [0, 1, 200, 255, MORE]],
        "timeout": [fragment(0, 16, MORE), [7, 61], fragment(16, 10)],
        "ecn": [fragment(0, 16, MORE | 4), fragment(16, 8, 6),
                fragment(0, 16, MORE, 2), fragment(16, 8, 6, 2)],
        "many": [fragment(8 * i, 8, MORE, i % 8) for i in range(60)],
        "nested": [[0, 9, 0, 16, MORE | 16], [0, 9, 2, 8, 0]],
    }
    cases = {}
    for name, steps in stories.items():
        for suffix, bit in (("_v4", 0), ("_v6", 8)):
            turned = [s if s[0] == 7 else [s[0], s[1] | bit, *s[2:]]
                      for s in steps]
            body = b"".join(map(bytes, turned))
            cases[name + suffix] = b"\0" + body
            cases[name + suffix + "_limited"] = b"\x0f" + body
    v6 = bytes.fromhex(
        "60000000001c2c40" "fd000000000000000000000000000002"
        "20010db8000000000000000000000001" "3c00000100000001"
        "1100010400000000" "000100020000000000000000")
    # The first one's headers make the whole longer than 64 KiB.
    cases["headers_too_long"] = b"\0" + bytes(
        [0, 0x79, 0, 48, MORE | 0x40, 0, 9, 6, 78, MORE, 0, 9, 56, 249, 0])
    cases["headers_v4"] = b"\0" + bytes(
        [0, 0xA1, 0, 48, MORE | 0x40, 0, 1, 6, 10, 0])
    cases["raw_options_behind"] = b"\0" + bytes([6, len(v6)]) + v6
    v4 = bytes.fromhex("45000024000720004011000" "00a000002c0000201"
                       "00010002001000000000000000000000")
    cases["raw_v4"] = b"\0" + bytes([6, len(v4)]) + v4
    return cases


def forwarder_cases():
    """`who`: family bit, destination << 1, sequence << 4."""
    def echo(id=1, who=2, length=56):
        return [id << 3, who, size(length)]

    def reply(who=2, length=56, ttl=60, socket=0):
        return [socket << 3 | 3, who, size(length), ttl]

    def error(kind, type, code, mtu=0, who=2, quote=64, keep=200, socket=0):
        return [socket << 3 | 4, who, kind, type, code, *u16(mtu),
                size(quote), size(keep)]

    stories = {
        "ping": [echo(), reply(), echo(1, 18), reply(18)],
        "big": [echo(1, 2 | 128, 2900), reply(2, 20000)],
        "gateway": [echo(1, 14)],
        "traceroute": [echo(1, 16 * i + 2) for i in range(6)] +
                      [error(0, 11, 0, 0, 16 * i + 2) for i in range(6)],
        "traceroute_v6": [echo(1, 16 * i + 3) for i in range(6)] +
                         [error(4, 3, 0, 0, 16 * i + 3) for i in range(6)],
        "unreachable": [echo(), error(0, 3, 1), echo(), error(128, 3, 3),
                        echo(1, 18)],
        "too_big": [echo(1, 2, 1400), error(3, 0, 0, 1300),
                    error(2, 3, 4, 1290)],
        "too_big_v6": [echo(1, 3, 1400), error(6, 2, 0, 1290, 3)],
        "small_path": [echo(), [7, 5], echo(1, 2, 1450)],
        "short_quote": [echo(), error(0, 11, 0, 0, 2, 64, 3)],
        "long_quote": [echo(), error(0, 11, 0, 0, 2, 1990, 2000)],
        "unasked": [echo(), reply(4), error(0, 11, 0, 0, 4)],
        "raw": [echo(), [5, 2, 3, 0, 0, 0], [5, 2, 9] + [255] * 9],
        "idle": [echo(), [6, 59], echo(2), [6, 2], echo(), [6, 200]],
        "many": [echo(i, 2 + i % 2) for i in range(12)],
        "scan": [echo(1, 2 * i) for i in range(7)] + [reply(4)],
        "not_permitted": [[7, 0], echo(), echo()],
        "no_descriptor": [[7, 1], echo(), echo()],
        "not_prepared": [[7, 14], echo(), [7, 6], echo()],
        "full_tun": [echo(), [7, 2], reply(), [7, 3], reply()],
        "no_route": [echo(), [7, 4], echo(), [7, 4], [7, 4], [7, 4], echo()],
        "closed": [echo(), echo(2), [7, 7], reply(), echo()],
    }
    cases = {}
    for name, steps in stories.items():
        body = b"".join(map(bytes, steps))
        cases[name] = b"\0" + body
        cases[name + "_limited"] = b"\x07" + body
    cases["silent"] = b"\x08" + cases["traceroute"][1:]
    return cases


def main():
    check = sys.argv[1:] == ["--check"]
    stale = []
    for target, cases in {"fragments": fragment_cases(),
                          "icmp_forwarder": forwarder_cases()}.items():
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

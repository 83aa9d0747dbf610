#!/usr/bin/env python3
"""Writes the seed corpus of udp_forwarder_fuzz.cc: sequences of steps, one
named file per story.

    make_udp_corpus.py           writes it below corpus/
    make_udp_corpus.py --check   exits 1 when a file is missing or different

The steps' numbers are those of the target's Step().
"""
import sys

from make_tcp_corpus import CORPUS, size, u16

MORE, BATCH, FRAGMENT = 8, 16, 4


def send(who=2, length=100, app=0, marks=0):
    return [app << 3, who, size(length), marks]


def answer(who=2, length=100, socket=0, segment=None):
    tail = [] if segment is None else [segment // 8]
    return [socket << 3 | 3, who | (0 if segment is None else 128),
            size(length), *tail]


def error(who=2, kind=0, type=3, code=3, quoted=30, socket=0):
    return [socket << 3 | 4, who, kind, type, code, size(quoted)]


def fault(number, *more, socket=0):
    return [number << 3 | 7, socket, *more]


def wait(seconds):
    return [6, min(seconds * 4, 255)]


def cases():
    stories = {
        "echo": [send(), answer()],
        "echo_v6": [send(3), answer(3)],
        "stream": [send(), answer()] * 5 + [wait(60), wait(60), answer()],
        "idle": [send(), answer(), wait(63), send()],
        "batch": [send(2, 1200, 0, MORE)] * 6 + [send(2, 300)],
        "batch_of_sockets": [send(2, 1200, i % 3, MORE) for i in range(9)] +
                            [send()],
        "tun_batch": [send(2, 20000, 0, BATCH | 5 << 5)],
        "tun_batch_small": [send(2, 5000, 0, BATCH)],
        "joined_inbound": [send(), answer(2, 5000, 0, 1000)],
        "big": [send(2, 9000, 0, FRAGMENT), answer(2, 20000)],
        "strangers": [send()] + [answer(2 + 8 * i) for i in range(12)],
        "scan": [send(2 | i << 5) for i in range(8)] * 2 + [wait(6), send(4)],
        "scan_ports": [send(2, 10, i) for i in range(6)] + [wait(6), send()],
        "hairpin": [send(2, 10, 0), answer(), send(2, 10, 1),
                    send(14 | 16 | 1 << 5, 20, 0), send(14 | 16, 20, 1)],
        "multicast": [send(12), answer(4)],
        "refused": [send(), error(), send(4)],
        "refused_quietly": [send(), error(3), send(4), send(2)],
        "too_big": [send(), fault(7), send(2, 1450), send(2, 1450, 0, 4)],
        "too_big_batch": [send(), fault(7), send(2, 9000, 0, BATCH | 7 << 5)],
        "batch_refused": [send(), fault(5)] +
                         [send(2, 1200, 0, MORE)] * 3 + [send()],
        "no_route": [send(), fault(4), fault(4), send()],
        "no_descriptor": [fault(0), send(), fault(1), send()],
        "full_socket": [send(), fault(6, 1)] + [send(2, 9, 0, MORE)] * 3 +
                       [send()],
        "full_tun": [send(), fault(2), answer(), answer(), fault(3)],
        "full_tun_batch": [send(), fault(2), answer(2, 5000, 0, 1000),
                           wait(63), fault(3)],
        "closed": [send(), send(4), fault(9, 0), answer(), send()],
        "configured": [send(), send(34), fault(10, 1), wait(3), send()],
        "trimmed": [send(), answer(), fault(11), send(), answer()],
        "ports_taken": [fault(8), send(), send(2, 1, 1), send(2, 1, 2)],
        "raw": [[5, 8, 0, 50, 0, 60, 0, 8, 0, 0, *u16(3)], [5, 0, *u16(9)]],
    }
    made = {}
    for name, steps in stories.items():
        body = b"".join(map(bytes, steps))
        made[name] = b"\0\0" + body
        made[name + "_limited"] = b"\x43\0" + body
        made[name + "_offload"] = b"\xb4\0" + body
    return made


def main():
    check = sys.argv[1:] == ["--check"]
    folder = CORPUS / "udp_forwarder"
    folder.mkdir(parents=True, exist_ok=True)
    stale = []
    for name, content in cases().items():
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

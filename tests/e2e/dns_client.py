#!/usr/bin/env python3
"""What dig and kdig do not do: many queries at once, malformed ones, and a look
at what leaves the gateway. Prints one JSON object.

    dns_client.py pipeline SERVER COUNT NAME   over one TCP connection
    dns_client.py burst SERVER COUNT NAME      over UDP, all at once
    dns_client.py malformed SERVER             rcode of each malformed query
    dns_client.py same-id SERVER NAME NAME     two questions with one id
    dns_client.py sniff DEVICE SECONDS         packets to port 53 and 853
"""
import json
import select
import socket
import struct
import sys
import time

PATIENCE = 15


def name_bytes(name):
    labels = name.rstrip(".").split(".")
    return b"".join(bytes([len(p)]) + p.encode() for p in labels) + b"\0"


def query(ident, name, kind=1):
    return struct.pack("!6H", ident, 0x0100, 1, 0, 0, 0) + name_bytes(
        name) + struct.pack("!2H", kind, 1)


def connect(server, kind):
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    s = socket.socket(family, kind)
    s.settimeout(PATIENCE)
    s.connect((server, 53))
    return s


def addresses(answer):
    """The A records of an answer whose names are all compressed."""
    count = struct.unpack("!H", answer[6:8])[0]
    return [socket.inet_ntoa(answer[len(answer) - 4:])] if count else []


def pipeline(server, count, name):
    s = connect(server, socket.SOCK_STREAM)
    start = time.monotonic()
    out = b""
    for i in range(count):
        q = query(i, f"h{i}.{name}")
        out += struct.pack("!H", len(q)) + q
    s.sendall(out)
    held, got = b"", {}
    while len(got) < count:
        more = s.recv(65536)
        if not more:
            break
        held += more
        while len(held) >= 2:
            size = struct.unpack("!H", held[:2])[0]
            if len(held) < 2 + size:
                break
            answer, held = held[2:2 + size], held[2 + size:]
            ident = struct.unpack("!H", answer[:2])[0]
            assert ident not in got, "answered twice"
            assert query(ident, f"h{ident}.{name}")[12:] in answer
            got[ident] = answer[3] & 15
    return {"answers": len(got), "rcodes": sorted(set(got.values())),
            "seconds": time.monotonic() - start}


def burst(server, count, name):
    s = connect(server, socket.SOCK_DGRAM)
    start = time.monotonic()
    for i in range(count):
        s.send(query(i, f"h{i}.{name}"))
    got, last = {}, 0.0
    while len(got) < count:
        try:
            answer = s.recv(65536)
        except socket.timeout:
            break
        ident = struct.unpack("!H", answer[:2])[0]
        assert query(ident, f"h{ident}.{name}")[12:] in answer
        got[ident] = answer[3] & 15
        last = time.monotonic() - start
    return {"answers": len(got), "rcodes": sorted(set(got.values())),
            "slowest": last}


def malformed(server):
    good = query(7, "a.example")
    cases = {
        "cut": good[:-3],
        "no_question": struct.pack("!6H", 7, 0x0100, 0, 0, 0, 0),
        "two_questions": struct.pack("!6H", 7, 0x0100, 2, 0, 0, 0) + 2 * good[
            12:],
        "looping_name": struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) +
                        b"\xc0\x0c" + struct.pack("!2H", 1, 1),
        "notify": struct.pack("!6H", 7, 0x2100, 1, 0, 0, 0) + good[12:],
        "transfer": query(7, "a.example", 252),
        "an_answer": struct.pack("!6H", 7, 0x8100, 1, 0, 0, 0) + good[12:],
        "short": good[:11],
        "empty_text": b"x",
    }
    result = {}
    for what, message in cases.items():
        s = connect(server, socket.SOCK_DGRAM)
        s.settimeout(1)
        s.send(message)
        try:
            answer = s.recv(65536)
            assert answer[:2] == message[:2] and answer[2] & 0x80
            result[what] = answer[3] & 15
        except socket.timeout:
            result[what] = None
    return result


def same_id(server, first, second):
    """The first is slow: its late answer must not go to the second."""
    s = connect(server, socket.SOCK_DGRAM)
    s.send(query(99, first))
    s.send(query(99, second))
    names = []
    for _ in range(2):
        answer = s.recv(65536)
        for name in (first, second):
            if name_bytes(name) in answer[:300]:
                names.append(name)
    return {"names": names}


def sniff(device, seconds):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind((device, 0))
    seen = {}
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if not select.select([s], [], [], left)[0]:
            break
        frame, who = s.recvfrom(65536)
        kind = struct.unpack("!H", frame[12:14])[0]
        packet = frame[14:]
        if kind == 0x0800:
            at, protocol = (packet[0] & 15) * 4, packet[9]
            to = socket.inet_ntop(socket.AF_INET, packet[16:20])
        elif kind == 0x86DD:
            at, protocol = 40, packet[6]
            to = socket.inet_ntop(socket.AF_INET6, packet[24:40])
        else:
            continue
        if protocol not in (6, 17) or len(packet) < at + 4:
            continue
        port = struct.unpack("!H", packet[at + 2:at + 4])[0]
        if port in (53, 853):
            key = f"{to} {port}"
            seen[key] = seen.get(key, 0) + 1
    return seen


def main():
    what, *rest = sys.argv[1:]
    commands = {
        "pipeline": lambda s, n, name: pipeline(s, int(n), name),
        "burst": lambda s, n, name: burst(s, int(n), name),
        "malformed": malformed,
        "same-id": same_id,
        "sniff": lambda d, t: sniff(d, float(t)),
    }
    print(json.dumps(commands[what](*rest)))


if __name__ == "__main__":
    main()

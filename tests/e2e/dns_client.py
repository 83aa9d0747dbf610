#!/usr/bin/env python3
"""What dig and kdig do not do: many queries at once, malformed ones, and a look
at what leaves the gateway. Prints one JSON object.

    dns_client.py pipeline SERVER COUNT NAME   over one TCP connection
    dns_client.py burst SERVER COUNT NAME      over UDP, all at once
    dns_client.py malformed SERVER             rcode of each malformed query
    dns_client.py same-id SERVER NAME NAME     two questions with one id
    dns_client.py quic SERVER NAME PORT        a datagram to where the name
                                               leads, then TCP, as browsers do
    dns_client.py echo PORT ADDRESS...         UDP, until SIGTERM
    dns_client.py forge ADDRESS PORT COUNT TRUTH
        an upstream whose forger sends COUNT answers to each query, and which
        tells the truth over TCP only; until SIGTERM
    dns_client.py watch DEVICE READY ADDRESS:PORT...
        what leaves over a device that is DNS and goes to none of these, and
        how much of it is IPv6; until SIGTERM. Writes the file READY first
"""
import json
import random
import select
import signal
import socket
import struct
import sys
import threading
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


def address(answer):
    """The last A record of an answer that ends with it; "" without one."""
    count = struct.unpack("!H", answer[6:8])[0]
    return socket.inet_ntoa(answer[len(answer) - 4:]) if count else ""


def question_end(message):
    """Where the question ends; 0 when there is none that makes sense."""
    at = 12
    while at < len(message) and 0 < message[at] < 64:
        at += 1 + message[at]
    whole = at + 5 <= len(message) and message[at] == 0
    return at + 5 if whole else 0


def is_query(message):
    """Whether these bytes are a query of DNS, wherever they go."""
    if len(message) < 17 or message[2] & 0xF8 or message[4:8] != b"\0\1\0\0":
        return False
    end = question_end(message)
    return end > 0 and message[end - 2:end] == b"\0\1"


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
    got, last, where = {}, 0.0, set()
    while len(got) < count:
        try:
            answer = s.recv(65536)
        except socket.timeout:
            break
        ident = struct.unpack("!H", answer[:2])[0]
        assert query(ident, f"h{ident}.{name}")[12:] in answer
        got[ident] = answer[3] & 15
        where.add(address(answer))
        last = time.monotonic() - start
    return {"answers": len(got), "rcodes": sorted(set(got.values())),
            "slowest": last, "addresses": sorted(where)}


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


def quic(server, name, port):
    """What becomes of a first datagram of QUIC, and how soon TCP follows."""
    v6 = ":" in server
    with connect(server, socket.SOCK_DGRAM) as s:
        s.send(query(1, name, 28 if v6 else 1))
        answer = s.recv(65536)
    family = socket.AF_INET6 if v6 else socket.AF_INET
    to = socket.inet_ntop(family, answer[-16:] if v6 else answer[-4:])
    start = time.monotonic()
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(3)
        s.connect((to, port))
        s.send(b"\xC0" + bytes(1199))  # a long header, an Initial's size
        try:
            outcome = "answered" if s.recv(2048) else "empty"
        except ConnectionRefusedError:
            outcome = "refused"
        except socket.timeout:
            outcome = "silent"
    result = {"quic": outcome, "tcp": None}
    if outcome != "answered":
        with socket.create_connection((to, port), timeout=5):
            result["tcp"] = "connected"
    result["seconds"] = time.monotonic() - start
    return result


def until_terminated():
    def end(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, end)


def echo(port, where):
    # One each, so that answers come from the address that was asked.
    sockets = []
    for address in where:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sockets.append(socket.socket(family, socket.SOCK_DGRAM))
        sockets[-1].bind((address, port))
    while True:
        for s in select.select(sockets, [], [])[0]:
            data, who = s.recvfrom(65536)
            s.sendto(data, who)


def answer_to(message, ip, ident=None):
    """One A record, for the question in the letters that it has there."""
    end = question_end(message)
    return (message[:2] if ident is None else struct.pack("!H", ident)) + \
        b"\x81\x80\0\1\0\1\0\0\0\0" + message[12:end] + \
        b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(ip)


def forge(where, port, count, truth):
    """Knows everything that a forger may: server, question, the time, and, for
    half of its answers, the port. Not the id, and not the letters' case."""
    v6 = ":" in where
    family = socket.AF_INET6 if v6 else socket.AF_INET
    seen = {"udp": 0, "tcp": 0, "forged": 0}

    def serve_tcp():
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((where, port))
            listener.listen()
            while True:
                s, _ = listener.accept()
                threading.Thread(target=serve_one, args=(s,),
                                 daemon=True).start()

    def serve_one(s):
        with s, s.makefile("rb") as f:
            while len(head := f.read(2)) == 2:
                message = f.read(struct.unpack("!H", head)[0])
                seen["tcp"] += 1
                answer = answer_to(message, truth)
                s.sendall(struct.pack("!H", len(answer)) + answer)

    threading.Thread(target=serve_tcp, daemon=True).start()
    rng = random.Random(1)
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.bind((where, port))
        try:
            while True:
                message, who = s.recvfrom(4096)
                if not is_query(message):
                    continue
                seen["udp"] += 1
                end = question_end(message)
                lower = message[:12] + message[12:end - 4].lower() + \
                    message[end - 4:end]
                for i in range(count):
                    to = who if i % 2 == 0 else (
                        who[0], rng.randrange(1024, 65536), *who[2:])
                    s.sendto(answer_to(lower, "6.6.6.6",
                                       rng.randrange(65536)), to)
                    seen["forged"] += 1
        except KeyboardInterrupt:
            pass
    return seen


def payload_of(frame):
    """(family, destination, protocol, port, payload); None for no such."""
    kind, packet = frame[12:14], frame[14:]
    if kind == b"\x08\0" and len(packet) >= 20:
        at, protocol = (packet[0] & 15) * 4, packet[9]
        family, to = 4, socket.inet_ntop(socket.AF_INET, packet[16:20])
        if packet[6] & 0x1F or packet[7]:
            return family, to, protocol, 0, b""  # not the first fragment
    elif kind == b"\x86\xDD" and len(packet) >= 40:
        at, protocol = 40, packet[6]
        family, to = 6, socket.inet_ntop(socket.AF_INET6, packet[24:40])
    else:
        return None
    if protocol not in (6, 17) or len(packet) < at + 8:
        return family, to, protocol, 0, packet[at:]
    port = struct.unpack("!H", packet[at + 2:at + 4])[0]
    if protocol == 17:
        return family, to, protocol, port, packet[at + 8:]
    return family, to, protocol, port, packet[at + (packet[at + 12] >> 4) * 4:]


def watch(device, ready, *upstreams):
    leaks, ipv6, asked = {}, 0, 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                       socket.htons(3)) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        s.bind((device, 0))
        with open(ready, "w", encoding="ascii") as f:
            f.write("ready")
        try:
            while True:
                frame, who = s.recvfrom(65536)
                found = payload_of(frame) if who[2] == 4 else None  # outgoing
                if not found:
                    continue
                family, to, protocol, port, payload = found
                # Neighbours and groups are the kernel's own affair.
                if family == 6 and not (protocol in (0, 58) and (
                        protocol == 0 or payload[:1] in
                        (b"\x82", b"\x83", b"\x84", b"\x85", b"\x86", b"\x87",
                         b"\x88", b"\x89", b"\x8f"))):
                    ipv6 += 1
                name = f"[{to}]:{port}" if family == 6 else f"{to}:{port}"
                if name in upstreams:
                    asked += 1
                elif port in (53, 853) or is_query(payload) or (
                        protocol == 6 and is_query(payload[2:])):
                    leaks[name] = leaks.get(name, 0) + 1
        except KeyboardInterrupt:
            pass
    return {"leaks": leaks, "ipv6": ipv6, "upstream": asked}


def main():
    what, *rest = sys.argv[1:]
    commands = {
        "pipeline": lambda s, n, name: pipeline(s, int(n), name),
        "burst": lambda s, n, name: burst(s, int(n), name),
        "malformed": malformed,
        "same-id": same_id,
        "quic": lambda s, name, port: quic(s, name, int(port)),
        "echo": lambda port, *where: echo(int(port), where),
        "forge": lambda a, p, n, truth: forge(a, int(p), int(n), truth),
        "watch": watch,
    }
    until_terminated()
    print(json.dumps(commands[what](*rest)))


if __name__ == "__main__":
    main()

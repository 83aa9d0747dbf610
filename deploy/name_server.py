#!/usr/bin/env python3
"""A name server for namespaces: answers over UDP, both families.

    name_server.py [--port PORT] NAME=ADDRESS...

An address of the asked family gives an A or AAAA record, any other type "no
data"; names that were not given do not exist. Knows no EDNS and needs none.
"""
import argparse
import socket
import struct


def read_name(message):
    labels, at = [], 12
    while message[at]:
        size = message[at]
        labels.append(message[at + 1:at + 1 + size].decode("latin-1"))
        at += 1 + size
    return ".".join(labels).lower(), at + 1


def answer(message, names):
    name, end = read_name(message)
    kind = struct.unpack("!H", message[end:end + 2])[0]
    family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
    data = [socket.inet_pton(family, a) for a in names.get(name, ())
            if (":" in a) == (family == socket.AF_INET6)] if family else []
    code = 0 if name in names else 3
    head = message[:2] + struct.pack("!5H", 0x8180 | code, 1, len(data), 0, 0)
    records = b"".join(
        b"\xc0\x0c" + struct.pack("!2HIH", kind, 1, 60, len(d)) + d
        for d in data)
    return head + message[12:end + 4] + records


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("names", nargs="+", metavar="NAME=ADDRESS")
    args = parser.parse_args()
    names = {}
    for entry in args.names:
        name, _, address = entry.partition("=")
        names.setdefault(name.lower(), []).append(address)
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", args.port))
    while True:
        message, sender = s.recvfrom(4096)
        try:
            s.sendto(answer(message, names), sender)
        except (IndexError, struct.error):
            pass  # not a query


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes the seed corpora of tcp_engine_fuzz.cc and tcp_forwarder_fuzz.cc:
sequences of steps, one named file per story.

    make_tcp_corpus.py           writes them below corpus/
    make_tcp_corpus.py --check   exits 1 when a file is missing or different

The steps' numbers are those of the targets' Step().
"""
import pathlib
import sys

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def size(n):
    """The byte that Steps::Size() reads as about `n`."""
    return min(range(256), key=lambda b: abs(
        (b if b < 64 else (b - 63) * (b - 63) * 16 // 9) - n))


def u16(n):
    return [n >> 8, n & 255]


def on(flow, *steps):
    """The same steps on another flow: the operation's upper three bits."""
    return [[flow << 5 | s[0], *s[1:]] for s in steps]


def engine_cases():
    big, some, mss = size(60000), size(3000), size(1460)
    syn, scaled = [0, 2, 23], [0, 14, 23, 7]
    ack = [2, 0]
    up, down = (lambda n: [3, n]), (lambda n: [19, n])
    fin, shut = [13, 0], [22]
    acks = [10, 0]
    stories = {
        "handshake": [syn, ack],
        "echo": [syn, ack, up(mss), down(mss), acks, up(5), down(5), acks],
        "app_closes": [syn, ack, up(9), fin, down(mss), acks, shut, acks],
        "host_closes": [syn, ack, down(mss), shut, acks, up(9), fin],
        "both_close": [syn, ack, shut, [13, 0], acks],
        "fin_with_data": [syn, ack, [13, mss], shut, acks],
        "fin_ahead": [syn, ack, [14, 100], up(size(100)), acks],
        "bulk_down": [scaled, ack] + [down(big)] * 8 + [acks] * 8,
        "bulk_up": [scaled, ack] + [up(big)] * 8 + [acks],
        "lost": [syn, ack, down(big), [27, 20], [27, 40], acks],
        "part_acknowledged":
            [scaled, ack, down(big), [10, some], [27, 30], acks],
        "fast_retransmit": [scaled, ack] + [down(some)] * 4 + [[12]] * 2,
        "fast_retransmit_full_tun":
            [scaled, ack] + [down(some)] * 4 + [[29, 1], [12], down(some),
                                                [29, 0], [12], acks],
        "out_of_order": [syn, ack, [7, mss, mss], [7, some, mss], up(mss),
                         up(mss), up(mss), acks],
        "small_window": [[17] + u16(1000), syn, ack, down(big), acks, acks,
                         acks],
        "zero_window": [syn, ack, down(big), [17] + u16(0), acks, [28, 50],
                        [28, 100], [17] + u16(9000), acks, acks],
        "window_from_nothing": [[18, 0], [0, 3, 23], ack, down(some), [18, 1],
                                acks, [18, 3], acks, [18, 9], acks, down(9)],
        "slow_host": [syn, ack, [24], up(big), up(some), [23, some],
                      [23, big], [24], up(9)],
        "resets": [syn, ack, [16, 1], [16, 0]],
        "blind": [syn, ack, [15] + [0, 0, 0, 5] + [0, 1, 0, 0] + [16, 9]],
        "silence": [syn, [28, 255], [28, 255]],
        "vanished": [syn, ack, down(mss)] + [[28, 255]] * 9,
        "no_memory_for_syn": [[30, 129], syn, [30, 0], syn, ack],
        "no_memory_for_fin": [syn, ack, [30, 129], shut, [28, 30], [30, 0],
                              [28, 30], acks],
        "no_memory": [syn, [30, 0x83], ack] + [up(mss), down(mss)] * 9,
        "syn_again": [syn, [0, 2, 23], ack, [0, 2, 23]],
        "full_tun": [[29, 1], syn, [29, 0], ack, [29, 2], down(big), [29, 0]],
        "delayed_ack": [syn, ack, up(5), [26, 45]],
        "delayed_ack_full_tun":
            [syn, ack, up(5), [29, 1], [26, 45], [29, 0]],
        "batch": [syn, ack, [25], up(mss), up(mss), [25], up(mss)],
    }
    three = []
    for flow in range(3):
        three += on(flow, syn, ack)
    for _ in range(4):
        for flow in range(3):
            three += on(flow, up(mss), down(some), acks)
    stories["three_flows"] = three
    return {name: b"\1" + b"".join(map(bytes, steps))
            for name, steps in stories.items()}


def forwarder_cases():
    big, some, mss = size(60000), size(3000), size(1460)
    syn, scaled, dialed = [0, 0], [0, 1], [17, 0]
    ack = [4, 0]
    up, feed = (lambda n: [5, n]), (lambda n: [20, 0, n])
    fin, end = [9], [22, 0]
    connect = [syn, dialed, ack]
    fail = lambda i: [18, 0, i]
    stories = {
        "connect": connect,
        "echo": connect + [up(mss), feed(mss), ack, up(9), feed(9), ack],
        "refused": [syn, fail(2), dialed],
        "net_unreachable": [syn, fail(3), dialed],
        "host_unreachable": [syn, fail(4), dialed, [2, 0]],
        "prohibited": [syn, fail(5), dialed],
        "dial_times_out": [syn, [2, 0], [27, 31]],
        "connected_at_once": [[24, 1], syn, ack, up(9)],
        "no_descriptor": [[25, 1], syn, syn, dialed, ack],
        "another_isn": [syn, [3, 1, 0, 0], dialed, ack],
        "cancelled": [syn, [11, 1]],
        "app_closes": connect + [up(mss), fin, feed(mss), end, ack],
        "host_closes": connect + [feed(mss), end, ack, up(mss), fin, [27, 11]],
        "both_close": connect + [end, fin, ack],
        "app_resets": connect + [up(mss), [10]],
        "host_resets": connect + [[19, 0, 1, 8], [14, 0, 9]],
        "host_fails_writing": connect + [[19, 0, 0, 7], up(mss)],
        "slow_host": connect + [[23, 0, 5]] + [up(mss)] * 9 +
                     [[23, 0, some]] * 5,
        "slow_host_app_gone": connect + [[23, 0, 5], end, ack, up(some), fin,
                                         [27, 20], [23, 0, big]],
        "slow_host_port_reused": connect + [[23, 0, 5], end, ack, up(some),
                                            fin, syn, dialed],
        "slow_app": connect + [[13, 0, 0], ack] + [feed(big)] * 5 +
                    [[13, 255, 255]] + [ack] * 9,
        "bulk_down": [scaled, dialed, ack] + [feed(big), ack, ack] * 6,
        "full_tun": connect + [[28, 0], feed(big), up(9), [26, 50], [28, 1],
                               ack, ack],
        "tun_fails": connect + [[30, 0, 3], feed(big), [28, 1], [30, 1, 2],
                                feed(big), [27, 2], ack],
        "reused_in_time_wait": connect + [end, ack, fin, syn, dialed, ack],
        "idle": connect + [[27, 255]] * 30,
        "half_closed_idle": connect + [fin, [27, 250]],
        "handshake_never_ends": [syn, dialed, [27, 30], [27, 40]],
        "closed_by_request": connect + [[31]],
        "closed_while_dialing": [syn, [31]],
        "no_memory": [[29, 0x82]] + connect + [up(mss), feed(some)] * 5 +
                     [[29, 0], ack, ack],
        "no_memory_for_syn": [syn, [29, 129], dialed, [29, 0], [2, 0], ack],
        "bad_options": [[0, 0x23], [0, 0x27]],
    }
    four = []
    for flow in range(4):
        four += on(flow, *connect)
    for _ in range(3):
        for flow in range(4):
            four += on(flow, up(mss), [20, flow, some], ack)
    stories["four_apps"] = four
    cases = {}
    for name, steps in stories.items():
        body = b"".join(map(bytes, steps))
        cases[name] = b"\0" + body
        cases[name + "_offload"] = b"\1" + body
    cases["four_apps_limited"] = b"\x1e" + cases["four_apps"][1:]
    return cases


def main():
    check = sys.argv[1:] == ["--check"]
    stale = []
    for target, cases in {"tcp_engine": engine_cases(),
                          "tcp_forwarder": forwarder_cases()}.items():
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

"""The rows of UDP: round trips, rates without loss, idle sessions, voice."""
import json
import subprocess
import time

from harness import rows as r
from harness import world as w

BATCH = 20
# netload's arguments, by column.
FLOODS = {
    "up 64 B": ["--what", "up", "--size", 64],
    "down 64 B": ["--what", "down", "--size", 64],
    "up 1200 B": ["--what", "up", "--size", 1200],
    "down 1200 B": ["--what", "down", "--size", 1200],
    f"up 1200 B ×{BATCH}": ["--what", "up", "--size", 1200, "--segments",
                            BATCH],
    f"down 1200 B ×{BATCH}": ["--what", "down", "--size", 1200, "--segments",
                              BATCH],
}


def netload(bench, route, *args, timeout=120):
    return bench.world.netload("udp", "--to", f"{route.v4}:{w.UDP}", *args,
                               timeout=timeout)


def round_trips(bench, route):
    return bench.measure("udp rtt", route, lambda: netload(
        bench, route, "--what", "rtt", "--seconds", bench.seconds))


def latency(bench):
    names = [r.DIRECT, r.NAT, r.OFFLOAD, r.PLAIN] + bench.peers(1500)
    turns = r.Turns(bench.rounds)
    for turn in range(bench.rounds):
        bench.world.log(f"UDP echo, round {turn + 1} of {bench.rounds}")
        for name in names:
            turns.add(name, "rtt", round_trips(bench, bench.route(name)))
    bench.report.table(
        "UDP echo of 64 bytes, µs", ["path", "p50", "p99", "lost"],
        [[n, r.spread(turns.values(n, "rtt", "p50_us"), 0),
          r.spread(turns.values(n, "rtt", "p99_us"), 0),
          sum(v or 0 for v in turns.values(n, "rtt", "lost"))]
         for n in names])
    rs = turns.ratios(r.OFFLOAD, [r.NAT], "rtt", "p50_us")
    bench.report.goal("P4", "UDP echo p50 / kernel NAT", "≤ 1.25",
                      r.spread(rs), rs and r.median(rs) <= 1.25)
    if bench.peers(1500):
        rs = turns.ratios(r.OFFLOAD, bench.peers(1500), "rtt", "p50_us", min)
        bench.report.goal("P4", "UDP echo p50 / best peer here", "≤ 1",
                          r.spread(rs), rs and r.median(rs) <= 1.02)


def rates(bench):
    """P6: the highest rate with less than a datagram in a thousand lost."""
    names = [r.DIRECT, r.NAT, r.OFFLOAD, r.PLAIN] + bench.peers(1500)
    step = 0.3 if bench.quick else 1
    turns = r.Turns(bench.rounds)
    for turn in range(bench.rounds):
        bench.world.log(f"UDP rates, round {turn + 1} of {bench.rounds}")
        for what, args in FLOODS.items():
            for name in names:
                route = bench.route(name)
                turns.add(name, what, bench.measure(
                    what, route, lambda route=route, args=args: netload(
                        bench, route, *args, "--seconds", step)))
    bench.report.table(
        "UDP datagrams/s, less than 0.1 % lost; ×N: N per call (UDP_SEGMENT)",
        ["path"] + list(FLOODS),
        [[n] + [r.spread(turns.values(n, f, "pps"), 0) for f in FLOODS]
         for n in names])
    for what in FLOODS:
        if bench.peers(1500):
            rs = turns.ratios(r.OFFLOAD, bench.peers(1500), what, "pps")
            bench.report.goal("P6", f"{what} / best peer here", "> 1",
                              r.spread(rs), rs and r.median(rs) > 1)
        rs = turns.ratios(r.OFFLOAD, [r.NAT], what, "pps")
        bench.report.goal("P6", f"{what} / kernel NAT", "", r.spread(rs), None)
    for way in "up", "down":
        batch = turns.values(r.OFFLOAD, f"{way} 1200 B ×{BATCH}", "pps")
        single = turns.values(r.OFFLOAD, f"{way} 1200 B", "pps")
        rs = [b / s for b, s in zip(batch, single) if b and s]
        bench.report.goal("P6", f"{way}, batches / single datagrams", "≥ 3",
                          r.spread(rs), rs and r.median(rs) >= 3)


class Sessions:
    """with Sessions(...) as idle: `idle.open` UDP sessions stand."""

    def __init__(self, bench, route, count):
        self.bench, self.route, self.count = bench, route, count

    def __enter__(self):
        world = self.bench.world
        self.process = world.spawn(
            "app", world.tool("netload"), "udp", "--what", "idle", "--to",
            f"{self.route.v4}:{w.UDP}", "--count", self.count, "--hold", -1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = self.process.stdout.readline()
        self.open = json.loads(line)["open"] if line else 0
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdin = None
        self.bench.world.end(self.process)


def sessions(bench, rows):
    # A descriptor each in netstackd and in the client; some are kept back.
    count = min(10000, w.descriptor_limit() - 512)
    alone, held = bench.fresh("no sessions"), bench.fresh("UDP sessions")
    for route in (alone, held):
        round_trips(bench, route)
    time.sleep(4)  # buffers go back to the system after 2 s
    before = w.memory(held.pid)
    begin = time.monotonic()
    with Sessions(bench, held, count) as idle:
        bench.world.log(f"{idle.open} of {count} UDP sessions stand")
        time.sleep(4)
        after = w.memory(held.pid)
        active = int(held.service.stats()["udp"].get("mappings", 0))
        # They end a minute after their last datagram.
        in_time = time.monotonic() - begin < 55
        if "P7" in rows:
            each = {k: (after[k] - before[k]) / max(idle.open, 1)
                    for k in before}
            bench.report.goal(
                "P7", f"RSS per UDP session, {idle.open} open, {active} "
                "mappings", "≤ 300 B, then ≤ 120 B",
                f"{each['rss']:.0f} B (RssAnon {each['anon']:.0f} B)",
                each["rss"] <= 300 and in_time and active >= idle.open)
        if "P9" in rows:
            turns = r.Turns(bench.rounds)
            for _ in range(bench.rounds):
                for route in (alone, held):
                    turns.add(route.name, "rtt", round_trips(bench, route))
            rs = [1 / x for x in turns.ratios(held.name, [alone.name], "rtt",
                                              "p50_us")]
            bench.report.goal(
                "P9", f"UDP echo p50, inverse, beside {idle.open} UDP "
                "sessions / none", "≥ 0.95", r.spread(rs),
                rs and r.median(rs) >= 0.95)
    for route in (alone, held):
        bench.world.stop(route)


def voice(bench, seconds):
    """50 datagrams/s of 160 bytes both ways beside a saturating download."""
    for name in (r.NAT, r.OFFLOAD, r.PLAIN):
        route = bench.route(name)
        stream = bench.world.spawn(
            "app", "iperf3", "-J", "-R", "-c", route.v4, "-t", seconds + 2,
            stdout=subprocess.PIPE)
        time.sleep(1)
        try:
            result = netload(bench, route, "--what", "voice", "--rate", 50,
                             "--size", 160, "--seconds", seconds,
                             timeout=seconds + 60)
            end = json.loads(stream.communicate(timeout=60)[0]).get("end", {})
        finally:
            bench.world.end(stream)
        gbps = end.get("sum_received", {}).get("bits_per_second", 0) / 1e9
        bench.report.raw.append({"what": "voice", "route": name, "foreign": 0,
                                 **result})
        bench.report.goal(
            "VOICE", f"{name}: {seconds} s, 50/s of 160 B both ways beside "
            f"{gbps:.1f} Gbit/s down", "0 lost",
            f"{result['lost']:.0f} of {result['sent']:.0f} lost; jitter p99 "
            f"{result['jitter_p99_us'] / 1000:.2f} ms, round trip p99 "
            f"{result['p99_us'] / 1000:.2f} ms", result["lost"] == 0)

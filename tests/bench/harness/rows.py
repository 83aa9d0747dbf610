"""What is measured for each row of the table, and how ratios come about.

A row's function gets a Bench and fills its report. Whatever is compared is
measured in turns (A B C A B C ...), and a ratio is of one turn: what changes
on the machine from minute to minute then touches both sides of it.
"""
import contextlib
import json
import os
import statistics
import subprocess
import time

from harness import quiet
from harness import world as w

STREAMS = {"up": [], "down": ["-R"], "up ×8": ["-P", "8"],
           "down ×8": ["-P", "8", "-R"]}


class Bench:
    """The choices of the command line, and the readings so far."""

    def __init__(self, world, options, report):
        self.world, self.report = world, report
        self.rounds = options.rounds or (2 if options.quick else 5)
        self.seconds = options.seconds or (1 if options.quick else 3)
        self.patience = quiet.Patience(
            (20 if options.quick else 600) if options.wait is None
            else options.wait)
        self.quick, self.use_peers = options.quick, options.peers
        self.routes = {}

    # --- routes, made when they are first needed ---

    def route(self, name):
        if name not in self.routes:
            self.routes[name] = self._make(name)
        return self.routes[name]

    def _make(self, name):
        if name == "direct veth":
            return self.world.direct()
        if name == "kernel NAT":
            return self.world.nat()
        kind, mtu = name.rsplit(" ", 1)
        if kind in w.KINDS:
            return self.world.service(w.KINDS[kind], name, int(mtu))
        return self.world.service(w.Netstackd, name, int(mtu),
                                  offload=kind == "netstackd offload")

    def fresh(self, name):
        """A netstackd of its own, which nobody has used yet."""
        return self.world.service(w.Netstackd, name, 1500)

    def peers(self, mtu):
        if not self.use_peers:
            return []
        return [f"{peer} {mtu}" for peer in self.report.peers]

    # --- one run of one thing ---

    def measure(self, what, route, once):
        """Runs once() quietly; a failure is a reading, too."""
        def guarded():
            try:
                return once()
            except w.Trouble as trouble:
                return {"error": str(trouble)}
        result = self.patience.quietly(guarded)
        self.report.raw.append({"what": what, "route": route.name, **result})
        self.world.log(f"  {what:9} {route.name:24} " + (
            result.get("error") or ", ".join(
                f"{k} {v:.4g}" for k, v in result.items()
                if isinstance(v, (int, float)))))
        return result

    def stream(self, route, what, v6=False, seconds=None):
        """iperf3: Gbit/s and the service's CPU seconds per GB."""
        seconds = seconds or self.seconds

        def once():
            before = quiet.cpu(route.pid) if route.pid else 0
            out = self.world.run(
                "app", "iperf3", "-J", "-c", route.v6 if v6 else route.v4,
                "-t", seconds, *STREAMS[what], timeout=seconds + 20)
            end = json.loads(out).get("end", {})
            if not end.get("sum_received", {}).get("bytes"):
                time.sleep(1)  # its server finishes with the failed one
                raise w.Trouble("iperf3: " + json.loads(out).get(
                    "error", "nothing arrived"))
            got = end["sum_received"]
            result = {"gbps": got["bits_per_second"] / 1e9}
            if route.pid:
                used = quiet.cpu(route.pid) - before
                result["cpu_s_per_gb"] = used / (got["bytes"] / 1e9)
            return result
        return self.measure(what, route, once)

    def pingpong(self, route, awake=False):
        def once():
            with quiet.Awake() if awake else contextlib.nullcontext():
                return self.world.netload(
                    "pingpong", "--to", f"{route.v4}:{w.ECHO}", "--seconds",
                    self.seconds)
        return self.measure("rtt awake" if awake else "rtt", route, once)

    def connect(self, route, clients, what):
        def once():
            before = quiet.cpu(route.pid) if route.pid else 0
            result = self.world.netload(
                "connect", "--to", f"{route.v4}:{w.ECHO}", "--seconds",
                self.seconds, "--clients", clients)
            if route.pid and result["count"]:
                result["cpu_us_each"] = (
                    quiet.cpu(route.pid) - before) / result["count"] * 1e6
            return result
        return self.measure(what, route, once)


class Turns:
    """Readings of several routes, turn by turn."""

    def __init__(self, rounds):
        self.rounds, self.readings = rounds, {}

    def add(self, name, what, result):
        self.readings.setdefault((name, what), []).append(result)

    def values(self, name, what, key):
        return [r.get(key) for r in self.readings.get((name, what), [])]

    def ratios(self, name, refs, what, key, better=max):
        """Of each turn: name's value by the best of refs'."""
        result = []
        for turn in range(self.rounds):
            def value(n, turn=turn):
                vs = self.values(n, what, key)
                return vs[turn] if turn < len(vs) else None
            mine = value(name)
            theirs = [v for v in map(value, refs) if v]
            if mine and theirs:
                result.append(mine / better(theirs))
        return result


def spread(values, digits=2):
    """"median (least–most)"; a dash when there is nothing."""
    values = [v for v in values if v is not None]
    if not values:
        return "–"
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


# --- P1, P2, P3 -------------------------------------------------------------

OFFLOAD, PLAIN, PLAIN9 = ("netstackd offload 1500", "netstackd plain 1500",
                          "netstackd plain 9000")
DIRECT, NAT = "direct veth", "kernel NAT"


def throughput(bench, rows):
    """P1, P2 and P3 are of the same runs."""
    offload = "P1" in rows or "P3" in rows
    plain = "P2" in rows or "P3" in rows
    names = [DIRECT, NAT]
    names += [OFFLOAD] if offload else []
    names += [PLAIN] if plain else []
    names += bench.peers(1500)
    if plain:
        names += [PLAIN9] + bench.peers(9000)
    routes = [bench.route(n) for n in names]
    turns = Turns(bench.rounds)
    for turn in range(bench.rounds):
        bench.world.log(f"throughput, round {turn + 1} of {bench.rounds}")
        for what in STREAMS:
            for route in routes:
                if route.mtu != 1500 and "8" in what:
                    continue
                turns.add(route.name, what, bench.stream(route, what))
                if route.name == OFFLOAD:
                    turns.add(OFFLOAD + ", IPv6", what,
                              bench.stream(route, what, v6=True))
    report = bench.report
    shown = names + ([OFFLOAD + ", IPv6"] if offload else [])
    report.table(
        "TCP throughput, Gbit/s", ["path"] + list(STREAMS),
        [[n] + [spread(turns.values(n, s, "gbps"), 1) for s in STREAMS]
         for n in shown])
    report.table(
        "CPU seconds of the service's process per GB",
        ["path"] + list(STREAMS),
        [[n] + [spread(turns.values(n, s, "cpu_s_per_gb")) for s in STREAMS]
         for n in shown if n not in (DIRECT, NAT)])

    def ratio(row, name, refs, what, goal, against):
        rs = turns.ratios(name, refs, what, "gbps")
        report.goal(row, f"{what}, {name} / {against}", f"≥ {goal:g}",
                    spread(rs), rs and median(rs) >= goal)

    if offload and "P1" in rows:
        for what in STREAMS:
            ratio("P1", OFFLOAD, [NAT], what, 0.5 if "8" in what else 0.9,
                  "kernel NAT")
        for what in STREAMS:
            ratio("P1", OFFLOAD, [DIRECT], what, 0, "direct veth")
        if bench.peers(1500):
            for what in STREAMS:
                ratio("P1", OFFLOAD, bench.peers(1500), what, 4,
                      "best peer here")
    if plain and "P2" in rows:
        for name, mtu in ((PLAIN, 1500), (PLAIN9, 9000)):
            if bench.peers(mtu):
                ratio("P2", name, bench.peers(mtu), "up", 2, "best peer here")
                ratio("P2", name, bench.peers(mtu), "down", 1.2,
                      "best peer here")
    if "P3" in rows:
        for name, what, goal in ((OFFLOAD, "up", 0.4), (OFFLOAD, "down", 0.4),
                                 (PLAIN, "up", 1.3), (PLAIN, "down", 1.56)):
            v = turns.values(name, what, "cpu_s_per_gb")
            report.goal("P3", f"CPU s/GB, {what}, {name}", f"≤ {goal}",
                        spread(v), median(v) is not None and median(v) <= goal)


# --- P4, P5 -----------------------------------------------------------------

def latency(bench):
    names = [DIRECT, NAT, OFFLOAD, PLAIN] + bench.peers(1500)
    turns = Turns(bench.rounds)
    for turn in range(bench.rounds):
        bench.world.log(f"ping-pong, round {turn + 1} of {bench.rounds}")
        for name in names:
            turns.add(name, "pp", bench.pingpong(bench.route(name)))
        for name in names:
            turns.add(name, "awake", bench.pingpong(bench.route(name), True))
        for name in names:
            turns.add(name, "busy", busy_pingpong(bench, bench.route(name)))
    bench.report.table(
        "TCP ping-pong on an open connection, µs: alone; with the cores kept "
        "awake; beside a download",
        ["path", "p50", "p99", "p50 awake", "p99 awake", "p50 beside",
         "p99 beside", "download, Gbit/s"],
        [[n] + [spread(turns.values(n, what, k), 0)
                for what in ("pp", "awake", "busy")
                for k in ("p50_us", "p99_us")]
         + [spread(turns.values(n, "busy", "gbps"), 1)] for n in names])
    rs = turns.ratios(OFFLOAD, [NAT], "pp", "p50_us")
    bench.report.goal("P4", "ping-pong p50 / kernel NAT", "≤ 1.25",
                      spread(rs), rs and median(rs) <= 1.25)
    if bench.peers(1500):
        rs = turns.ratios(OFFLOAD, bench.peers(1500), "pp", "p50_us", min)
        bench.report.goal("P4", "ping-pong p50 / best peer here", "≤ 1",
                          spread(rs), rs and median(rs) <= 1.02)


def busy_pingpong(bench, route):
    """Round trips beside a download on the same route."""
    def once():
        seconds = bench.seconds + 1
        stream = bench.world.spawn(
            "app", "iperf3", "-J", "-R", "-c", route.v4, "-t", seconds,
            stdout=subprocess.PIPE)
        time.sleep(0.5)
        try:
            result = bench.world.netload(
                "pingpong", "--to", f"{route.v4}:{w.ECHO}", "--seconds",
                bench.seconds)
            end = json.loads(stream.communicate(timeout=seconds + 20)[0])
        except subprocess.TimeoutExpired:
            raise w.Trouble("iperf3 does not end") from None
        finally:
            bench.world.end(stream)
        got = end.get("end", {}).get("sum_received", {})
        result["gbps"] = got.get("bits_per_second", 0) / 1e9
        return result
    return bench.measure("busy rtt", route, once)


def connections(bench):
    names = [DIRECT, NAT, OFFLOAD, PLAIN] + bench.peers(1500)
    turns = Turns(bench.rounds)
    for turn in range(bench.rounds):
        bench.world.log(f"connections, round {turn + 1} of {bench.rounds}")
        for clients, what in ((1, "serial"), (64, "64")):
            for name in names:
                turns.add(name, what, bench.connect(
                    bench.route(name), clients, f"conn {what}"))
    bench.report.table(
        "Connect, echo a byte, close",
        ["path", "p50 µs", "p99 µs", "serial/s", "64 clients/s",
         "CPU µs each", "failed"],
        [[n, spread(turns.values(n, "serial", "p50_us"), 0),
          spread(turns.values(n, "serial", "p99_us"), 0),
          spread(turns.values(n, "serial", "rate"), 0),
          spread(turns.values(n, "64", "rate"), 0),
          spread(turns.values(n, "64", "cpu_us_each"), 0),
          sum(turns.values(n, "64", "failed"))] for n in names])
    for what in ("serial", "64"):
        rs = turns.ratios(OFFLOAD, [NAT], what, "rate")
        bench.report.goal("P5", f"connections/s, {what} / kernel NAT",
                          "≥ 0.8", spread(rs), rs and median(rs) >= 0.8)
        if bench.peers(1500):
            rs = turns.ratios(OFFLOAD, bench.peers(1500), what, "rate")
            bench.report.goal("P5", f"connections/s, {what} / best peer here",
                              "> 1", spread(rs), rs and median(rs) > 1)


# --- P7, P9, P10: idle flows -------------------------------------------------

class IdleFlows:
    """with IdleFlows(...) as idle: `idle.open` connections stand."""

    def __init__(self, world, route, count):
        self.world, self.route, self.count = world, route, count

    def __enter__(self):
        self.process = self.world.spawn(
            "app", self.world.tool("netload"), "idle", "--to",
            f"{self.route.v4}:{w.ECHO}", "--count", self.count, "--hold", -1,
            "--batch", 128, "--timeout", 120, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)
        line = self.process.stdout.readline()
        self.open = json.loads(line)["open"] if line else 0
        self.alive = 0
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        line = self.process.stdout.readline()
        self.process.stdin = None
        self.process.wait(150)
        self.alive = json.loads(line)["alive"] if line else 0
        self.world.end(self.process)


def loop_thread(bench, route):
    """The thread that works when there is traffic."""
    before = w.threads(route.pid)
    bench.stream(route, "up", seconds=1)
    after = w.threads(route.pid)
    return max(after, key=lambda t: after[t][0] - before.get(t, (0,))[0])


def idle_flows(bench, rows):
    # A descriptor each in netstackd and in the client; some are kept back.
    most = w.descriptor_limit() - 512
    counts = [min(10000, most)]
    if "P9" in rows and most > 11000:
        counts.append(min(50000, most))
    for count in counts:
        alone, held = bench.fresh("no idle flows"), bench.fresh(
            f"{count} idle flows")
        loop = loop_thread(bench, held)
        time.sleep(4)  # idle buffers go back to the system after 2 s
        before = w.memory(held.pid)
        with IdleFlows(bench.world, held, count) as idle:
            bench.world.log(f"{idle.open} of {count} idle flows stand")
            time.sleep(6)
            after = w.memory(held.pid)
            if "P7" in rows and count == counts[0]:
                memory_of_flows(bench, before, after, idle.open)
            if "P10" in rows and count == counts[0]:
                wakeups(bench, held, loop, idle.open)
            if "P9" in rows:
                beside_idle_flows(bench, alone, held, idle.open)
        bench.report.goal(
            "P9" if "P9" in rows else "P7",
            f"of {idle.open} idle flows alive at the end", "all",
            str(idle.alive), idle.open == count == idle.alive)
        bench.world.stop(alone)
        bench.world.stop(held)


def memory_of_flows(bench, before, after, count):
    each = {k: (after[k] - before[k]) / max(count, 1) for k in before}
    bench.report.goal("P7", f"RSS per idle TCP flow, {count} open",
                      "≤ 600 B, then ≤ 150 B", f"{each['rss']:.0f} B",
                      each["rss"] <= 600)
    bench.report.goal("P7", "RssAnon per idle TCP flow", "",
                      f"{each['anon']:.0f} B", None)


def wakeups(bench, route, loop, count):
    seconds = 15 if bench.quick else 60
    switches = w.threads(route.pid)[loop][1]
    counted = route.service.wakeups()
    time.sleep(seconds)
    # The second reading wakes the loop itself.
    counted = route.service.wakeups() - counted - 1
    switches = w.threads(route.pid)[loop][1] - switches - 2
    per_minute = counted * 60 / seconds
    bench.report.goal(
        "P10", f"wake-ups of the loop per minute, {count} idle flows", "0",
        f"{per_minute:g} (in {seconds} s: {counted} counted by GetStats, "
        f"{max(switches, 0)} context switches of the thread)", counted == 0)


def beside_idle_flows(bench, alone, held, count):
    turns = Turns(bench.rounds)
    for turn in range(bench.rounds):
        bench.world.log(f"beside {count} idle flows, round {turn + 1}")
        for route in (alone, held):
            for what in ("up", "down"):
                turns.add(route.name, what, bench.stream(route, what))
            turns.add(route.name, "pp", bench.pingpong(route, awake=True))
    for what, key in (("up", "gbps"), ("down", "gbps"), ("pp", "p50_us")):
        rs = turns.ratios(held.name, [alone.name], what, key)
        if what == "pp":
            rs = [1 / r for r in rs]
        label = "ping-pong p50, inverse" if what == "pp" else f"{what} stream"
        bench.report.goal("P9", f"{label} beside {count} idle flows / none",
                          "≥ 0.95", spread(rs), rs and median(rs) >= 0.95)


# --- P8, R4, microbenchmarks ------------------------------------------------

def idle_memory(bench):
    mib = 1 << 20
    route = bench.fresh("idle memory")
    route.service.stats()
    time.sleep(4)
    m = w.memory(route.pid)
    bench.report.goal(
        "P8", "netstackd idle: RssAnon + shared dirty (RSS)", "≤ 6 MiB",
        f"{m['idle'] / mib:.2f} MiB ({m['rss'] / mib:.1f})",
        m["idle"] <= 6 * mib)
    bench.world.stop(route)
    core = bench.world.spawn(
        "gw", bench.world.tool("core_only"), "bench-core",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if core.stdout.readline() != b"running\n":
        raise w.Trouble("core_only: " + bench.world.last_words())
    time.sleep(1)
    m = w.memory(core.pid)
    bench.report.goal(
        "P8", "the core alone: RssAnon + shared dirty (RSS)", "≤ 2 MiB",
        f"{m['idle'] / mib:.2f} MiB ({m['rss'] / mib:.1f})",
        m["idle"] <= 2 * mib)
    core.stdin.close()
    core.stdin = None
    core.wait(10)
    bench.world.end(core)


def held_flows(bench):
    with quiet.lock():
        bench.patience.wait_until_quiet()
        p = subprocess.run([bench.world.tool("hold_flows")], text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           check=False)
    facts = {}
    for line in p.stdout.splitlines():
        name, _, value = line.strip().partition("  ")
        facts[name] = value.strip()
        bench.world.log(f"  {name}: {value.strip()}")
    got = facts.get("established", "0")
    bench.report.goal("R4", "TCP flows established (scripted sockets)",
                      "50000", got, got == "50000" and p.returncode == 0)
    cost = facts.get("per packet", "inf us").split()[0]
    bench.report.goal("R4", "µs per packet at 50,000 flows", "≤ 2", cost,
                      float(cost) <= 2)
    load = facts.get("turns under load", "p99.9 inf ms").split()[1]
    page = facts.get("pages of 1000 flows", "").partition("longest ")[2]
    bench.report.goal("R4", "turn of the loop under load, p99.9 ms", "≤ 30",
                      load, float(load) <= 30)
    bench.report.goal("R4", "longest page of ListFlows at 50,000", "≤ 30 ms",
                      page, float(page.split()[0] or "inf") <= 30)
    bench.report.text("hold_flows", p.stdout)


def micro(bench):
    tool = bench.world.tool("microbench")
    if not os.path.exists(tool):
        bench.report.note("no microbenchmarks: Google Benchmark is not "
                          "installed")
        return
    with quiet.lock():
        bench.patience.wait_until_quiet()
        p = subprocess.run(
            [tool, "--benchmark_color=false",
             f"--benchmark_min_time={0.05 if bench.quick else 0.5}"],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            check=False)
    bench.report.text("microbench (per_packet is what counts; the times are "
                      "of batches of 64)", p.stdout)



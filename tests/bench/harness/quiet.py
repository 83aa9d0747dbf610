"""Who else used the machine while we measured: locks, waiting, noise.

"Ours" is this process with all its descendants: the services measured, the
servers and the load generators. Everybody else is a stranger; a run that
strangers disturbed is measured again.
"""
import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import time

TICK = os.sysconf("SC_CLK_TCK")
LOCK = os.environ.get(
    "NETSTACK_BENCH_LOCK",
    os.path.join(tempfile.gettempdir(), "netstack-bench.lock"))
# Cores of strangers above which a run is made again.
NOISE = 0.12


# Seconds to wait for another measurement's single run.
PATIENCE = 300


@contextlib.contextmanager
def lock():
    """One measurement at a time on this machine."""
    with open(LOCK, "a", encoding="ascii") as f:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    sys.exit(f"run: somebody has held {LOCK} for {PATIENCE} s")
                time.sleep(0.1)
        yield


def _stat(pid):
    with open(f"/proc/{pid}/stat", "rb") as f:
        return f.read().rsplit(b")", 1)[1].split()


def cpu(pid):
    """CPU seconds of a process, user and system, all threads."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICK


def own_cpu():
    """CPU seconds so far of this process and all its descendants, with those
    that have ended and been waited for."""
    parents, ticks = {}, {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            f = _stat(name)
            parents[int(name)] = int(f[1])
            ticks[int(name)] = sum(int(x) for x in f[11:15])
    me = os.getpid()

    def ours(pid):
        while pid not in (0, me):
            pid = parents.get(pid, 0)
        return pid == me

    return sum(t for pid, t in ticks.items() if ours(pid)) / TICK


def machine_cpu():
    """CPU seconds of all processes; interrupts, which are nobody's, apart."""
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system = (int(x) for x in f.readline().split()[1:4])
    return (user + nice + system) / TICK


class Noise:
    """with Noise() as n: ...; n.cores is what strangers took meanwhile."""

    def __enter__(self):
        self.at = time.monotonic()
        self.before = machine_cpu() - own_cpu()
        return self

    def __exit__(self, *_):
        took = time.monotonic() - self.at
        strangers = machine_cpu() - own_cpu() - self.before
        self.cores = max(0.0, strangers / max(took, 0.01))


class Awake:
    """with Awake(): no core sleeps, by a busy loop of the idle class on each.
    Waking a virtual processor takes tens of microseconds, now and then, which
    is all that a ping-pong would show."""

    LOOP = ("import os, sys\n"
            "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
            "os.sched_setaffinity(0, {int(sys.argv[1])})\n"
            "while True: pass")

    def __enter__(self):
        self.loops = [
            subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--",
                              sys.executable, "-c", self.LOOP, str(core)])
            for core in os.sched_getaffinity(0)]
        time.sleep(0.2)

    def __exit__(self, *_):
        for loop in self.loops:
            loop.kill()
            loop.wait()


class Patience:
    """What may be spent on waiting and on repeating, in seconds and in all: a
    machine that is never quiet still gets its (noisy) report."""

    def __init__(self, seconds):
        self.left = seconds

    def wait_until_quiet(self):
        """Until the machine is otherwise idle, for 15 s at most."""
        begin = time.monotonic()
        most = min(self.left, 15)
        while time.monotonic() - begin < most:
            with Noise() as noise:
                time.sleep(0.3)
            if noise.cores < NOISE:
                break
            time.sleep(0.3)
        self.left -= time.monotonic() - begin

    def quietly(self, measure, tries=3):
        """measure() gives a dict. Repeats it while strangers disturb it; the
        least disturbed result, with "foreign" (cores) and "tries"."""
        best = None
        for attempt in range(1, tries + 1):
            with lock():
                self.wait_until_quiet()
                begin = time.monotonic()
                with Noise() as noise:
                    result = measure()
            result["foreign"] = round(noise.cores, 3)
            if best is None or result["foreign"] < best["foreign"]:
                best = result
            if attempt > 1:
                self.left -= time.monotonic() - begin
            if best["foreign"] <= NOISE or self.left <= 0:
                break
        best["tries"] = attempt
        return best

"""The namespaces, the servers in them, and the services between.

Every service has a TUN (or TAP) of its own in the app namespace and an
address of the server of its own, which is routed there: so all of them stand
at once and can be measured in turns.
"""
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time

REPO = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))))
PREFIX = "bench"
ECHO, UDP = 7001, 7002
PEERS = ("pasta", "slirp4netns")


class Trouble(Exception):
    """What keeps us from measuring, in a sentence."""


def descriptor_limit():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _raise_limit():
    hard = descriptor_limit()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def sh(*cmd):
    p = subprocess.run([str(c) for c in cmd], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       text=True, check=False)
    if p.returncode != 0:
        raise Trouble(f"{' '.join(map(str, cmd))}: {p.stdout.strip()}")
    return p.stdout


class Route:
    """A way from app to srv: addresses there, and who stands between."""

    def __init__(self, name, v4, v6=None, service=None, mtu=1500):
        self.name, self.v4, self.v6 = name, v4, v6
        self.service, self.mtu = service, mtu

    @property
    def pid(self):
        return self.service.process.pid if self.service else None


class World:
    def __init__(self, build, log):
        self.build, self.log = build, log
        self.processes, self.count = [], 0
        self.work = tempfile.mkdtemp(prefix="netstack-bench.")

    def __enter__(self):
        _raise_limit()
        try:
            sh(f"{REPO}/deploy/topology", "up", PREFIX)
            self.spawn("srv", "iperf3", "-s")
            serve = self.spawn("srv", self.tool("netload"), "serve",
                               "--echo", ECHO, "--processes", 2,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            serve.stdout.readline()
            serve = self.spawn("srv", self.tool("netload"), "udpserve",
                               "--port", UDP, stdout=subprocess.PIPE)
            serve.stdout.readline()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for p in reversed(self.processes):
            self.end(p)
        subprocess.run([f"{REPO}/deploy/topology", "down", PREFIX],
                       check=False)
        shutil.rmtree(self.work, ignore_errors=True)

    def tool(self, name):
        places = {"netstackd": "server", "netstackctl": "clients/cli",
                  "netload": "tests/bench/load"}
        place = places.get(name, "tests/bench/micro")
        return os.path.join(self.build, place, name)

    def command(self, ns, *cmd):
        return ["nsenter", f"--net=/run/netns/{PREFIX}-{ns}", "--",
                *map(str, cmd)]

    def spawn(self, ns, *cmd, **options):
        """Starts a program; its pid is the program's own. It dies with us."""
        log = open(os.path.join(self.work, "log"), "ab")
        options = {"stdin": subprocess.DEVNULL, "stdout": log, **options}
        with log:
            p = subprocess.Popen(
                self.command(ns, "setpriv", "--pdeathsig", "KILL", "--", *cmd),
                stderr=log, **options)
        self.processes.append(p)
        return p

    def end(self, process):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
        if process in self.processes:
            self.processes.remove(process)

    def run(self, ns, *cmd, timeout):
        """The output of a program that ends by itself."""
        try:
            p = subprocess.run(
                self.command(ns, *cmd), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise Trouble(f"{cmd[0]} did not end within {timeout} s") from None
        if p.returncode != 0 and not p.stdout:
            raise Trouble(f"{cmd[0]}: {p.stderr.strip()[-300:]}")
        return p.stdout

    def netload(self, *args, timeout=60):
        out = self.run("app", self.tool("netload"), *args, timeout=timeout)
        return json.loads(out.splitlines()[-1])

    def last_words(self):
        with open(os.path.join(self.work, "log"), errors="replace") as f:
            return "".join(f.readlines()[-15:])

    # --- routes ---

    def direct(self):
        return Route("direct veth", "10.77.2.2", "fd77:2::2")

    def nat(self):
        return Route("kernel NAT", "10.77.3.2", "fd77:3::2")

    def service(self, kind, name, mtu, **options):
        """Starts a service and routes an address of srv through it."""
        self.count += 1
        service = kind(self, self.count, mtu, **options)
        k = self.count
        v4, v6 = f"10.77.1.{20 + k}", f"fd77:1::{20 + k}"
        srv, app = f"{PREFIX}-srv", f"{PREFIX}-app"
        sh("ip", "-n", srv, "addr", "add", f"{v4}/24", "dev", "sg")
        sh("ip", "-n", srv, "-6", "addr", "add", f"{v6}/64", "dev", "sg",
           "nodad")
        service.start()
        dev = service.device
        sh("ip", "-n", app, "link", "set", dev, "addrgenmode", "none")
        sh("ip", "-n", app, "link", "set", dev, "mtu", mtu, "up")
        sh("ip", "-n", app, "addr", "replace",
           f"{service.net}.{service.host}/24", "dev", dev)
        via = ["via", service.gateway] if service.gateway else []
        sh("ip", "-n", app, "route", "replace", f"{v4}/32", *via, "dev", dev)
        if service.gateway:
            v6 = None  # the peers are measured over IPv4
        else:
            sh("ip", "-n", app, "-6", "addr", "add", f"fd{20 + k}::2/64",
               "dev", dev, "nodad")
            sh("ip", "-n", app, "-6", "route", "replace", f"{v6}/128", "dev",
               dev)
        route = Route(name, v4, v6, service, mtu)
        # Everything that a first connection allocates is there from here on.
        self.netload("connect", "--to", f"{v4}:{ECHO}", "--max", 3)
        return route

    def stop(self, route):
        self.end(route.service.process)


class Service:
    """One program with its device in app; start() makes both."""
    gateway = None  # of a TAP; a TUN needs none
    host = 2        # the app's address in the service's net

    def __init__(self, world, number, mtu):
        self.world, self.mtu = world, mtu
        self.device = f"bt{number}"
        self.net = f"10.{20 + number}.0"
        self.net6 = f"fd{20 + number}::"
        self.process = None

    def wait_for_device(self, ns):
        for _ in range(100):
            if self.process.poll() is not None:
                break
            if subprocess.run(["ip", "-n", f"{PREFIX}-{ns}", "link", "show",
                               "dev", self.device], capture_output=True,
                              check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise Trouble(f"{type(self).__name__} made no device:\n"
                      f"{self.world.last_words()}")


class Netstackd(Service):
    def __init__(self, world, number, mtu, offload=True):
        super().__init__(world, number, mtu)
        self.offload = offload
        self.home = os.path.join(world.work, self.device)
        self.socket = os.path.join(self.home, "socket")

    def start(self):
        os.mkdir(self.home, 0o700)
        config = os.path.join(self.home, "config.textproto")
        with open(config, "w", encoding="ascii") as f:
            f.write(f'tun {{ name: "{self.device}" mtu: {self.mtu} '
                    f'offload: {str(self.offload).lower()} '
                    f'prefixes: "{self.net}.0/24" '
                    f'prefixes: "{self.net6}/64" }}\n')
        self.process = self.world.spawn(
            "gw", self.world.tool("netstackd"), "--config", config,
            "--socket", self.socket, "--autostart", "--log_level", "warn")
        self.wait_for_device("gw")
        sh("ip", "-n", f"{PREFIX}-gw", "link", "set", self.device, "netns",
           f"{PREFIX}-app")

    def stats(self):
        """GetStats over gRPC, which wakes the loop once."""
        out = subprocess.run(
            [self.world.tool("netstackctl"), "--json", "stats"],
            env={**os.environ, "NETSTACK_SOCKET": self.socket}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if out.returncode != 0:
            raise Trouble(f"netstackctl: {out.stderr.strip()}")
        return json.loads(out.stdout)["stats"]

    def wakeups(self):
        return int(self.stats()["loop"]["wakeups"])


class Pasta(Service):
    def start(self):
        self.gateway = f"{self.net}.1"
        self.process = self.world.spawn(
            "gw", "pasta", "-q", "-f", "--runas", 0, "--netns-only", "--netns",
            f"/run/netns/{PREFIX}-app", "-I", self.device, "-4", "-a",
            f"{self.net}.2", "-n", 24, "-g", self.gateway, "-m", self.mtu,
            "-i", "gs", "-t", "none", "-u", "none", "-T", "none", "-U", "none")
        self.wait_for_device("app")


class Slirp4netns(Service):
    host = 100

    def start(self):
        self.gateway = f"{self.net}.2"
        self.process = self.world.spawn(
            "gw", "slirp4netns", "--netns-type=path", "--disable-dns",
            f"--cidr={self.net}.0/24", f"--mtu={self.mtu}",
            f"/run/netns/{PREFIX}-app", self.device)
        self.wait_for_device("app")


KINDS = {"pasta": Pasta, "slirp4netns": Slirp4netns}


def memory(pid):
    """Bytes: RSS, RssAnon, and RssAnon with shared dirty pages."""
    found = {}
    for name in ("status", "smaps_rollup"):
        with open(f"/proc/{pid}/{name}", encoding="ascii") as f:
            for line in f:
                key, _, value = line.partition(":")
                if value.endswith("kB\n"):
                    found[key] = int(value.split()[0]) * 1024
    return {"rss": found["VmRSS"], "anon": found["RssAnon"],
            "idle": found["RssAnon"] + found["Shared_Dirty"]}


def threads(pid):
    """Thread id -> (CPU ticks, voluntary context switches)."""
    result = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        base = f"/proc/{pid}/task/{tid}"
        with open(f"{base}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        with open(f"{base}/status", encoding="ascii") as f:
            switches = [int(line.split()[1]) for line in f
                        if line.startswith("voluntary_ctxt_switches")]
        result[int(tid)] = (int(fields[11]) + int(fields[12]), switches[0])
    return result

"""The world of names in the namespaces of deploy/topology: servers in srv,
netstackd in gw, questions from app through its TUN."""
import contextlib
import ctypes
import os
import pathlib
import re
import subprocess
import time

from world import World, find, wait_for

REPO = pathlib.Path(__file__).resolve().parents[3]
PREFIX = "dnslab"
DIRECT = "10.77.2.2"     # srv over a veth
KERNEL = "10.77.3.2"     # srv through the kernel's forwarding and NAT in gw
UPSTREAM = "10.77.1.2"   # srv, as gw sees it
ANYBODY = "203.0.113.53"  # nobody is there: whom apps believe to ask
CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def inside(ns):
    """This thread, and those that it starts, in a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(fd):
        if libc.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    with open("/proc/thread-self/ns/net", "rb") as back, \
            open(f"/run/netns/{PREFIX}-{ns}", "rb") as there:
        enter(there.fileno())
        try:
            yield
        finally:
            enter(back.fileno())


class Lab(World):
    listen = ["127.0.0.1", UPSTREAM, DIRECT, KERNEL]

    def __init__(self, build):
        super().__init__()
        self.build = pathlib.Path(build).resolve()
        self.service = None

    def __enter__(self):
        subprocess.run([REPO / "deploy/topology", "up", PREFIX], check=True)
        return super().__enter__()

    def __exit__(self, *exc):
        super().__exit__(*exc)
        subprocess.run([REPO / "deploy/topology", "down", PREFIX], check=True)

    def wait_for(self, address):
        with inside("srv"):
            wait_for(address)

    @staticmethod
    def command(ns, *command):
        return ["nsenter", f"--net=/run/netns/{PREFIX}-{ns}", "--",
                *map(str, command)]

    def run(self, *command, ns="srv"):
        return super().run(*self.command(ns, "setpriv", "--pdeathsig", "KILL",
                                         "--", *command))

    def app(self, *command, timeout=120):
        """What a program of an app prints."""
        done = subprocess.run(self.command("app", *command), check=False,
                              stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.STDOUT, timeout=timeout)
        if done.returncode != 0:
            raise SystemExit(f"{command[0]}: {done.stdout[-1000:]}")
        return done.stdout

    def netstackd(self, dns):
        """Starts the service with that "dns { ... }", its TUN in app."""
        home = self.folder / "netstackd"
        home.mkdir(mode=0o700)
        config = home / "config.textproto"
        config.write_text('tun { name: "dnstun" prefixes: "10.10.0.0/24" '
                          'prefixes: "fd10::/64" } dns { %s }\n' % dns)
        self.service = self.run(self.build / "server/netstackd", "--config",
                                config, "--socket", home / "socket",
                                "--autostart", "--log_level", "warn", ns="gw")
        for _ in range(200):
            if subprocess.run(["ip", "-n", f"{PREFIX}-gw", "link", "show",
                               "dev", "dnstun"], capture_output=True,
                              check=False).returncode == 0:
                break
            if self.service.poll() is not None:
                raise SystemExit("netstackd ended: " + self.last_words())
            time.sleep(0.05)
        subprocess.run([REPO / "deploy/topology", "attach", PREFIX, "dnstun",
                        "1500"], check=True)
        with inside("app"):
            wait_for((ANYBODY, 53))

    def last_words(self):
        log = self.folder / f"{self.running.index(self.service)}.log"
        return log.read_text(errors="replace")[-2000:]

    def restart_netstackd(self, dns):
        self.service.terminate()
        self.service.wait(10)
        home = self.folder / "netstackd"
        for name in os.listdir(home):
            (home / name).unlink()
        home.rmdir()
        self.netstackd(dns)

    def dnsperf(self, server, port, file, *, seconds=None, clients=8,
                outstanding=200, rate=None, timeout=5):
        """Queries per second, average latency in seconds, how many were lost,
        and the rcodes. Without `seconds`: the file once."""
        command = [find("dnsperf"), "-s", server, "-p", port, "-d", file,
                   "-c", clients, "-q", outstanding, "-t", timeout]
        command += ["-l", seconds] if seconds else ["-n", 1]
        command += ["-Q", rate] if rate else []
        text = self.app(*command)

        def number(label):
            found = re.search(rf"{label}:\s+([\d.]+)", text)
            return float(found[1]) if found else 0.0
        return {"rate": number("Queries per second"),
                "latency": number(r"Average Latency \(s\)"),
                "lost": int(number("Queries lost")),
                "rcodes": (re.search(r"Response codes:\s+(.*)", text) or
                           ["", "none"])[1]}


def cpu(pid):
    """User and system time in seconds."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(
        ")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

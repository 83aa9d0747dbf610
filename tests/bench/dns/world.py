"""A small Internet of names on loopback: an authoritative server (nsd) with
10,000 names of our own making, and resolvers in front of it."""
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

AUTHORITY = ("127.0.0.1", 5301)
ORIGIN = "lab.test"


def names(count):
    """(name, type) of every question, of all kinds that matter to a
    forwarder; and the zone file that answers them."""
    zone = [
        f"$ORIGIN {ORIGIN}.", "$TTL 300",
        "@ SOA ns hostmaster 1 3600 600 86400 120", "@ NS ns",
        "ns A 127.0.0.1",
        "*.wild A 198.51.100.99", "*.wild TXT \"a wildcard\"",
        "old DNAME new", "host.new A 198.51.100.44", "empty.below.x A 192.0.2.1",
    ]
    questions = []

    def ask(name, *types):
        for rdtype in types:
            questions.append((f"{name}.{ORIGIN}", rdtype))

    i = 0
    while len(questions) < count:
        i += 1
        four = f"198.51.{i // 250 % 250}.{i % 250 + 1}"
        six = f"2001:db8::{i:x}"
        kind = i % 16
        if kind == 0:
            zone += [f"a{i} A {four}", f"a{i} AAAA {six}"]
            ask(f"a{i}", "A", "AAAA", "TXT")  # the last: no data
        elif kind == 1:
            zone += [f"c{i} CNAME a{i}x", f"a{i}x CNAME a{i}y",
                     f"a{i}y A {four}"]
            ask(f"c{i}", "A", "AAAA", "CNAME")
        elif kind == 2:
            ask(f"nothing{i}", "A", "HTTPS")  # NXDOMAIN
        elif kind == 3:
            zone.append(f"m{i} MX 10 a{i}m")
            zone.append(f"m{i} MX 20 b{i}m")
            zone.append(f"a{i}m A {four}")
            ask(f"m{i}", "MX", "A")
        elif kind == 4:
            zone.append(f"t{i} TXT \"{'x' * 200}\" \"second {i}\"")
            ask(f"t{i}", "TXT")
        elif kind == 5:  # more than fits into 1,232 bytes
            zone += [f"big{i} TXT \"{k} {'y' * 220}\"" for k in range(12)]
            ask(f"big{i}", "TXT")
        elif kind == 6:
            zone.append(f"_s._tcp.v{i} SRV 1 2 443 a{i}v")
            zone.append(f"a{i}v A {four}")
            ask(f"_s._tcp.v{i}", "SRV")
        elif kind == 7:
            zone.append(f"h{i} TYPE65 \\# 19 0001 00 0001 0003 02 6832 "
                        f"0004 0004 c6336401")
            ask(f"h{i}", "HTTPS")
        elif kind == 8:
            ask(f"any{i}.wild", "A", "TXT", "AAAA")
        elif kind == 9:
            zone += [f"r{i} A 203.0.{i % 250}.{k}" for k in range(1, 30)]
            ask(f"r{i}", "A")
        elif kind == 10:
            label = "L" + "o" * 61
            zone.append(f"{label}.{i}.{label} A {four}")
            ask(f"{label}.{i}.{label}", "A")
        elif kind == 11:
            zone += [f"$TTL {i % 100000 + 1}", f"ttl{i} A {four}", "$TTL 300"]
            ask(f"ttl{i}", "A")
        elif kind == 12:
            zone.append(f"z{i} CNAME gone{i}")  # leads to nothing
            ask(f"z{i}", "A")
        elif kind == 13:
            zone.append(f"ptr{i} PTR a{i}.{ORIGIN}.")
            ask(f"ptr{i}", "PTR")
        elif kind == 14:
            zone.append(f"odd{i} TYPE65280 \\# 4 {i:08x}")
            ask(f"odd{i}", "TYPE65280")
        else:
            ask(f"MiXeD{i}.WiLd", "A")
            if i % 160 == 15:
                ask("host.old", "A")
                ask("below.x", "A")  # an empty non-terminal
    return questions[:count], "\n".join(zone) + "\n"


def huge(count=3):
    """The same of answers that need all of a message's 64 KiB, over TCP."""
    zone, questions = [], []
    for i in range(count):
        # The name's head, 241 records of 14 + 256 bytes, and less than one
        # record of room.
        zone += [f"huge{i} TXT \"{k:03}{'z' * 252}\"" for k in range(241)]
        questions.append((f"huge{i}.{ORIGIN}", "TXT"))
    return questions, "\n".join(zone) + "\n"


def wait_for(address, deadline=15):
    """Until somebody answers UDP there."""
    query = bytes.fromhex("000101000001000000000000") + b"\3lab\4test\0\0\6\0\1"
    end = time.monotonic() + deadline
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(0.2)
        while time.monotonic() < end:
            try:
                s.sendto(query, address)
                if s.recv(4096):
                    return
            except OSError:
                time.sleep(0.05)
    raise SystemExit(f"nobody answers at {address}")


class World:
    """Programs, each ended by its own id; files in one folder that goes."""
    listen = ["127.0.0.1"]  # where resolvers do

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="netstack-dns."))
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            if process.poll() is None:
                process.kill()
        shutil.rmtree(self.folder)

    def wait_for(self, address):
        wait_for(address)

    def run(self, *command):
        log = open(self.folder / f"{len(self.running)}.log", "wb")
        process = subprocess.Popen([str(c) for c in command], stdout=log,
                                   stderr=subprocess.STDOUT, cwd=self.folder)
        self.running.append(process)
        return process

    def authority(self, zone):
        (self.folder / "zone").write_text(zone)
        (self.folder / "nsd.conf").write_text(f"""
server:
    ip-address: {AUTHORITY[0]}@{AUTHORITY[1]}
    username: ""
    zonesdir: "{self.folder}"
    database: ""
    pidfile: "{self.folder}/nsd.pid"
    xfrdfile: "{self.folder}/xfrd.state"
    zonelistfile: "{self.folder}/zone.list"
    xfrdir: "{self.folder}"
    rrl-ratelimit: 0
    minimal-responses: no
remote-control:
    control-enable: no
zone:
    name: {ORIGIN}
    zonefile: zone
""")
        self.run(find("nsd"), "-d", "-c", self.folder / "nsd.conf")
        self.wait_for(AUTHORITY)

    def unbound(self, port, forward_to=None, tls=None):
        """A resolver; or, with `forward_to`, a forwarder. `tls`: (key,
        certificate): also at port + 1 (DoT) and port + 2 (DoH)."""
        where = (f"forward-zone:\n  name: .\n  forward-addr: "
                 f"127.0.0.1@{forward_to}\n" if forward_to else
                 f"stub-zone:\n  name: {ORIGIN}\n  stub-addr: "
                 f"{AUTHORITY[0]}@{AUTHORITY[1]}\n")
        ports = [port] if not tls else [port, port + 1, port + 2]
        interfaces = "\n    ".join(f"interface: {ip}@{p}"
                                   for ip in self.listen for p in ports)
        secure = "" if not tls else f"""
    tls-port: {port + 1}
    https-port: {port + 2}
    tls-service-key: "{tls[0]}"
    tls-service-pem: "{tls[1]}"
"""
        conf = self.folder / f"unbound{port}.conf"
        conf.write_text(f"""
server:
    {interfaces}
    access-control: 0.0.0.0/0 allow
    {secure}
    username: ""
    chroot: ""
    pidfile: ""
    use-syslog: no
    do-not-query-localhost: no
    local-zone: "test." nodefault
    module-config: "iterator"
    num-threads: 1
    minimal-responses: no
    rrset-roundrobin: no
    msg-cache-size: 32m
    rrset-cache-size: 64m
    outgoing-range: 4096
    num-queries-per-thread: 4096
    so-rcvbuf: 0
    incoming-num-tcp: 100
remote-control:
    control-enable: no
{where}""")
        self.run(find("unbound"), "-d", "-c", conf)
        self.wait_for(("127.0.0.1", port))

    def dnsmasq(self, port, forward_to):
        self.run(find("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null",
                 f"--port={port}",
                 f"--listen-address={','.join(self.listen)}",
                 "--bind-interfaces", "--no-resolv", "--no-hosts",
                 f"--server=127.0.0.1#{forward_to}", "--cache-size=20000",
                 "--dns-forward-max=4096", "--pid-file=", "--user=root")
        self.wait_for(("127.0.0.1", port))

    def resolver(self, program, port, *options):
        process = self.run(pathlib.Path(program).resolve(),
                           f"127.0.0.1:{port}", *options)
        self.wait_for(("127.0.0.1", port))
        return process

    def certificate(self, name):
        """(key, certificate, the authority's certificate) for a name."""
        def openssl(*args):
            subprocess.run(["openssl", *map(str, args)], check=True,
                           cwd=self.folder, stderr=subprocess.DEVNULL)
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key",
                "-out", "ca.pem", "-subj", "/CN=lab", "-days", "2")
        openssl("req", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:P-256", "-nodes", "-keyout", "leaf.key",
                "-out", "leaf.csr", "-subj", "/CN=leaf")
        (self.folder / "leaf.ext").write_text(f"subjectAltName=DNS:{name}\n")
        openssl("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey",
                "ca.key", "-CAcreateserial", "-out", "leaf.pem", "-days", "1",
                "-extfile", "leaf.ext")
        return (self.folder / "leaf.key", self.folder / "leaf.pem",
                self.folder / "ca.pem")


def find(program):
    path = shutil.which(program, path=os.environ.get("PATH", "") +
                        ":/usr/sbin:/usr/local/sbin")
    if path is None:
        raise SystemExit(f"{program} is missing; see deploy/install --test")
    return path

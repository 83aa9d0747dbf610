#!/usr/bin/env python3
"""Checks what a compiler does not: who may include whom, and who may name
what.

    check_floors.py <repository root>   prints every broken rule, exits 1
    check_floors.py --self-test         breaks each rule in a temporary tree

The rules are docstrings of the check_* functions. To change the floors,
change FLOORS.
"""
import pathlib
import re
import sys
import tempfile

# base < wire < flow < {lwip, platform} < dial < {forward, dns} < engine.
# Folders on one floor do not include each other.
FLOORS = {
    "base": 0, "wire": 1, "flow": 2, "lwip": 3, "platform": 3, "dial": 4,
    "forward": 5, "dns": 5, "engine": 6,
}
# Above core/: the server, then its clients.
TOPS = {"core": 0, "server": 1, "clients": 2}

LWIP_HOMES = ("core/lwip/", "tests/core/lwip/", "tests/fuzz/")
RPC_HOMES = ("server/", "clients/", "proto/", "tests/server/", "tests/e2e/",
             "tests/cli/", "tests/clients/", "tests/fuzz/", "tests/bench/")
OS_HOMES = ("core/platform/",)

LWIP_HEADER = re.compile(r"(lwip|netif|arch)/")
RPC_HEADER = re.compile(
    r"(grpc|grpcpp|google/protobuf|google/rpc|netstack/v1)/|.*\.pb\.h$")
OS_HEADER = re.compile(
    r"(sys|netinet|net|linux|arpa|asm|bits|mach)/|"
    r"(unistd|fcntl|poll|signal|pthread|dlfcn|netdb|ifaddrs|sched|"
    r"termios|syslog|errno|pwd|grp)\.h$")
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', re.M)
SOURCES = (".h", ".cc", ".c", ".inc")


def strip_comments(text):
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)


def sources(root):
    """(path from the root, text) of all our C and C++ files."""
    for top in ("core", "server", "clients", "tests"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in SOURCES and path.is_file():
                text = path.read_text(encoding="utf-8", errors="replace")
                yield path.relative_to(root).as_posix(), text


def includes(text):
    # Not stripped of comments: a "//" may stand in an include's path, and a
    # commented-out include is worth a look anyway.
    return INCLUDE.findall(text)


def check_core_floors(path, text):
    """core/X includes only core/Y on a lower floor, or X itself."""
    parts = path.split("/")
    if parts[0] != "core" or len(parts) < 3:
        return
    here = parts[1]
    if here not in FLOORS:
        yield f"core/{here} has no floor: add it to check_floors.py"
        return
    for name in includes(text):
        there = name.split("/")
        if there[0] != "core":
            continue
        if len(there) < 3 or there[1] not in FLOORS:
            yield f"includes {name}, which lies on no floor"
        elif there[1] != here and FLOORS[there[1]] >= FLOORS[here]:
            yield f"includes {name}: {there[1]} is not below {here}"


def check_top_floors(path, text):
    """core knows no server, the server no clients, and none the tests."""
    top = path.split("/")[0]
    if top not in TOPS:
        return
    for name in includes(text):
        there = name.split("/")[0]
        if there == "tests" or TOPS.get(there, -1) > TOPS[top]:
            yield f"includes {name}, which is above {top}/"


def check_lwip_headers(path, text):
    """lwIP's headers are included inside the lwIP engine only."""
    if path.startswith(LWIP_HOMES):
        return
    for name in includes(text):
        if LWIP_HEADER.match(name):
            yield f"includes lwIP's {name} outside core/lwip"


def check_rpc_headers(path, text):
    """gRPC and protobuf stay in server, clients and their tests."""
    if path.startswith(RPC_HOMES):
        return
    for name in includes(text):
        if RPC_HEADER.match(name):
            yield f"includes {name}: no gRPC and protobuf here"


def check_os_headers(path, text):
    """Inside core only core/platform includes the system's headers."""
    if not path.startswith("core/") or path.startswith(OS_HOMES):
        return
    for name in includes(text):
        if OS_HEADER.match(name):
            yield f"includes the system's {name} outside core/platform"


def check_include_roots(path, text):
    """Our headers are included from the repository root."""
    for name in includes(text):
        if name.startswith(("./", "../")):
            yield f"includes {name}: write it from the repository root"


def check_own_header_first(path, text):
    """x.cc begins with x.h: compiling it shows that x.h needs nothing else.
    (tests/structure compiles only the headers without a .cc by themselves.)
    """
    if not path.endswith(".cc") or path.startswith("tests/"):
        return
    own = path[:-2] + "h"
    found = includes(text)
    if own in found and found[0] != own:
        yield f"includes {found[0]} before its own header"


def check_include_guards(path, text):
    """A header's guard is its path."""
    if not path.endswith(".h") or path.startswith("core/lwip/port/"):
        return
    guard = re.sub(r"[^A-Z0-9]", "_", path.upper()) + "_"
    if f"#ifndef {guard}\n#define {guard}\n" not in text:
        yield f"has not the include guard {guard}"


def check_clock(path, text):
    """Below the engine time is a parameter: only platform reads a clock."""
    if not path.startswith("core/") or path.startswith("core/platform/"):
        return
    found = re.search(
        r"(steady_clock|system_clock|high_resolution_clock)::now|"
        r"\bclock_gettime\s*\(|\bgettimeofday\s*\(|\babsl::Now\s*\(|"
        r"\btime\s*\(\s*(NULL|nullptr|0)\s*\)", strip_comments(text))
    if found:
        yield f"reads a clock ({found.group(0)}); take `Instant now`"


def check_sleep(path, text):
    """Tests wait for what happens, not for time to pass."""
    if not path.startswith(("tests/core/", "core/")):
        return
    found = re.search(r"\b(sleep_for|sleep_until|usleep|nanosleep|SleepFor)"
                      r"\s*\(", strip_comments(text))
    if found:
        yield f"sleeps ({found.group(1)})"


def check_name_tables(path, text):
    """A table of names made by an X macro is tied to its enum's end."""
    if not path.startswith("core/"):
        return
    for table in re.findall(r"std::array (k\w+Names)\s*=", text):
        asserts = re.findall(r"static_assert\((.*?)\);", text, re.S)
        count = re.search(rf"(\w+)\s*=\s*{table}\.size\(\)", text)
        names = [table] + ([count.group(1)] if count else [])
        if not any("+ 1" in a and any(n in a for n in names)
                   for a in asserts):
            yield f"{table} is not tied to its enum by a static_assert"


def check_machine_paths(path, text):
    """No file knows the machine that it was written on."""
    found = re.search(r'"/(root|work|home)/', text)
    if found:
        yield f"names a path of some machine ({found.group(0)[1:]})"


CHECKS = [f for n, f in sorted(globals().items()) if n.startswith("check_")]


def check_parse_reasons(root):
    """Every reason that core/wire drops with stands in packet_test.cc."""
    used = set()
    for path in sorted((root / "core/wire").glob("*.cc")):
        used |= set(re.findall(r"DropReason::(k\w+)", path.read_text()))
    test = root / "tests/core/wire/packet_test.cc"
    text = test.read_text() if test.is_file() else ""
    listed = text.partition("EveryReasonOfParsingIsTested")[2]
    listed = set(re.findall(r"DropReason::(k\w+)",
                            listed.partition("\n}\n")[0]))
    for name in sorted(used - listed):
        yield f"tests/core/wire/packet_test.cc: nothing is dropped by {name}"
    for name in sorted(listed - used):
        yield f"core/wire: {name} is tested, but nothing uses it"


def problems(root):
    found = []
    seen = 0
    for path, text in sources(root):
        seen += 1
        for check in CHECKS:
            found += [f"{path}: {problem}" for problem in check(path, text)]
    if seen == 0:
        found.append(f"{root}: no sources")
    found += check_parse_reasons(root)
    return found


# --- Self-test ---------------------------------------------------------------

GUARDED = "#ifndef {0}\n#define {0}\n{1}\n#endif\n"
TEST_FILE = "tests/core/wire/packet_test.cc"
GOOD = {
    "core/base/a.h": GUARDED.format("CORE_BASE_A_H_", "#include <span>"),
    "core/wire/packet.cc": '#include "core/base/a.h"\nDropReason::kShort;\n',
    "core/platform/tun.cc":
        "#include <sys/socket.h>\nsteady_clock::now();\n",
    "core/lwip/e.cc": '#include "lwip/tcp.h"\n#include "core/flow/k.h"\n',
    "core/forward/f.cc":
        '#include "core/dial/d.h"\n#include "core/lwip/e.h"\n// sleep()\n',
    "server/s.cc": "#include <grpcpp/server.h>\n"
                   '#include "core/engine/runtime.h"\n',
    "clients/c.cc": '#include "netstack/v1/stats.pb.h"\n'
                    '#include "server/s.h"\n',
    TEST_FILE: "TEST(P, EveryReasonOfParsingIsTested) {\n"
               "  DropReason::kShort;\n}\n",
}
NAMES = ("inline constexpr std::array kXNames = {};\n"
         "inline constexpr size_t kXCount = kXNames.size();\n")
# What makes the good tree bad: file, text, and a part of the complaint.
BAD = [
    ("core/wire/x.cc", '#include "core/flow/k.h"', "not below wire"),
    ("core/base/x.cc", '#include "core/wire/packet.h"', "not below base"),
    ("core/lwip/x.cc", '#include "core/platform/tun.h"', "not below lwip"),
    ("core/platform/x.cc", '#include "core/lwip/e.h"', "not below platform"),
    ("core/dial/x.cc", '#include "core/forward/f.h"', "not below dial"),
    ("core/forward/x.cc", '#include "core/dns/d.h"', "not below forward"),
    ("core/forward/x.cc", '#  include "core/engine/e.h"', "not below"),
    ("core/new/x.cc", "", "has no floor"),
    ("core/wire/x.cc", '#include "core/new/n.h"', "on no floor"),
    ("core/engine/x.cc", '#include "server/s.h"', "above core/"),
    ("server/x.cc", '#include "clients/c.h"', "above server/"),
    ("server/x.cc", '#include "tests/fake.h"', "above server/"),
    ("core/forward/x.cc", '#include "lwip/tcp.h"', "lwIP's lwip/tcp.h"),
    ("tests/core/wire/x.cc", "#include <lwip/tcp.h>", "lwIP's"),
    ("core/engine/x.cc", "#include <grpcpp/server.h>", "no gRPC"),
    ("core/engine/x.cc", '#include "netstack/v1/a.pb.h"', "no gRPC"),
    ("tests/core/wire/x.cc", "#include <google/protobuf/any.h>", "no gRPC"),
    ("core/wire/x.cc", "#include <netinet/in.h>", "system's netinet/in.h"),
    ("core/engine/x.cc", "#include <unistd.h>", "system's unistd.h"),
    ("core/lwip/x.cc", "#include <sys/uio.h>", "system's sys/uio.h"),
    ("core/wire/x.cc", '#include "../base/a.h"', "repository root"),
    ("core/wire/x.cc", '#include <string>\n#include "core/wire/x.h"',
     "before its own"),
    ("core/wire/x.h", "#pragma once\n", "include guard CORE_WIRE_X_H_"),
    ("core/wire/x.h", GUARDED.format("WIRE_X_H", ""), "include guard"),
    ("core/forward/x.cc", "std::chrono::steady_clock::now()", "a clock"),
    ("core/engine/x.cc", "time(nullptr)", "a clock"),
    ("tests/core/wire/x.cc", "std::this_thread::sleep_for(s);", "sleeps"),
    ("core/flow/x.cc", NAMES, "kXNames is not tied"),
    ("server/x.cc", 'Open("/' + 'root/a");', "some machine"),
    ("core/wire/x.cc", "return DropReason::kNew;", "dropped by kNew"),
    (TEST_FILE, "TEST(P, EveryReasonOfParsingIsTested) {\n"
                "DropReason::kShort, DropReason::kOld;\n}\n", "kOld"),
]
ALSO_GOOD = [
    ("core/flow/x.cc",
     NAMES + "static_assert(static_cast<size_t>(X::kZ) + 1 == kXCount);"),
    ("core/engine/x.cc", "// steady_clock::now() is the platform's\n"),
    ("core/platform/linux/x.cc", "#include <linux/if_tun.h>"),
    ("tests/core/platform/x.cc", "#include <sys/socket.h>"),
]


def judge(changes):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for path, text in {**GOOD, **changes}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        return problems(root)


def self_test():
    failed = []
    if found := judge({}):
        failed.append(f"the good tree: {found}")
    for path, text in ALSO_GOOD:
        if found := judge({path: text}):
            failed.append(f"{path} with {text!r}: {found}")
    for path, text, complaint in BAD:
        found = judge({path: text})
        if len(found) != 1 or complaint not in found[0]:
            failed.append(f"{path} with {text!r}: wanted {complaint!r} once, "
                          f"got {found}")
    with tempfile.TemporaryDirectory() as folder:
        if not problems(pathlib.Path(folder)):
            failed.append("an empty tree passes")
    # Whoever adds a check adds to BAD.
    unbroken = {f.__name__ for f in CHECKS}
    for path, text, _ in BAD:
        unbroken -= {f.__name__ for f in CHECKS if list(f(path, text))}
    failed += [f"no example breaks {name}" for name in sorted(unbroken)]
    return failed


def main():
    if sys.argv[1:] == ["--self-test"]:
        found = self_test()
    elif len(sys.argv) == 2:
        found = problems(pathlib.Path(sys.argv[1]))
    else:
        sys.exit(__doc__)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

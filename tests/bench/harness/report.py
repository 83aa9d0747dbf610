"""The report: a table of goals, tables of readings, the machine, all runs."""
import json
import os
import platform
import subprocess
import time


def _first_line(*cmd):
    try:
        p = subprocess.run(cmd, stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL, text=True, check=False,
                           timeout=10)
        return p.stdout.splitlines()[0].strip()
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return ""


def _grep(path, key):
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            if line.startswith(key):
                return line.split("=" if "=" in line else ":")[1].strip(' "\n')
    return "unknown"


def machine(build, repo):
    """What a reader has to know to compare."""
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": f"{os.cpu_count()} × "
                     + _grep("/proc/cpuinfo", "model name"),
        "memory": f"{int(_grep('/proc/meminfo', 'MemTotal').split()[0]) >> 20}"
                  " GiB",
        "system": f"Linux {platform.release()}, "
                  + _grep("/etc/os-release", "PRETTY_NAME"),
        "commit": _first_line("git", "-C", repo, "describe", "--always",
                              "--dirty"),
        "compiler": "",
        "iperf3": _first_line("iperf3", "--version").split("(")[0],
        "pasta": _first_line("pasta", "--version"),
        "slirp4netns": _first_line("slirp4netns", "--version"),
    }
    cache = os.path.join(build, "CMakeCache.txt")
    if os.path.exists(cache):
        compiler = _grep(cache, "CMAKE_CXX_COMPILER:")
        facts["compiler"] = (_first_line(compiler, "--version") + ", "
                             + _grep(cache, "CMAKE_BUILD_TYPE:"))
    return {k: v for k, v in facts.items() if v}


def _place(row):
    """Rows by letter and number; those without a number, as VOICE, last."""
    number = row[1:]
    return (0, row[0], int(number)) if number.isdigit() else (1, row, 0)


class Report:
    def __init__(self, peers):
        self.peers = peers
        self.raw, self.goals, self.parts, self.notes = [], [], [], []

    def goal(self, row, what, goal, reading, met):
        """met: None when there is no goal."""
        self.goals.append((row, what, goal, reading, met))

    def table(self, title, head, rows):
        lines = [f"## {title}", "", "| " + " | ".join(head) + " |",
                 "|---" * len(head) + "|"]
        lines += ["| " + " | ".join(map(str, r)) + " |" for r in rows]
        self.parts.append("\n".join(lines))

    def text(self, title, body):
        self.parts.append(f"## {title}\n\n```\n{body.rstrip()}\n```")

    def note(self, text):
        self.notes.append(text)

    def markdown(self, facts, how):
        noisy = [r["foreign"] for r in self.raw]
        out = ["# Measured side by side", ""]
        out += [f"- {k}: {v}" for k, v in facts.items()]
        out.append(f"- how: {how}")
        if noisy:
            loud = sum(n > 0.12 for n in noisy)
            out.append(
                f"- noise: strangers took {sum(noisy) / len(noisy):.2f} cores "
                f"on average, at most {max(noisy):.2f}; {loud} of "
                f"{len(noisy)} runs stayed above 0.12 after all repetitions")
        failed = [r for r in self.raw if "error" in r]
        out += [f"- failed run: {r['what']}, {r['route']}: {r['error']}"
                for r in failed[:10]]
        out += [f"- {n}" for n in self.notes]
        out += ["", "Values are medians (least–most) of the rounds. Ratios are",
                "of one round each; \"best peer here\" is the best of: "
                + (", ".join(self.peers) or "none") + ".", "",
                "| # | what | goal | reading | met |", "|---|---|---|---|---|"]
        for row, what, goal, reading, met in sorted(
                self.goals, key=lambda g: _place(g[0])):
            mark = "" if met is None or goal in ("", "≥ 0") else (
                "yes" if met else "**no**")
            shown = "" if goal == "≥ 0" else goal
            out.append(f"| {row} | {what} | {shown} | {reading} | {mark} |")
        return "\n".join(out) + "\n\n" + "\n\n".join(self.parts) + "\n"

    def write(self, folder, facts, how):
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "results.md")
        with open(path, "w", encoding="utf-8") as f:
            f.write(self.markdown(facts, how))
        with open(os.path.join(folder, "runs.json"), "w",
                  encoding="utf-8") as f:
            json.dump({"machine": facts, "runs": self.raw}, f, indent=1)
        return path

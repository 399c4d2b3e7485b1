"""
`make bench-peers`: ours beside what a user could pick instead, pass after pass on one machine, as ratios.

    run.py [--only dbos,huey] [--passes 5] [--uvloop] [--sync-ms 1] [--python A,B] [--out FILE]

Sets up an environment for each peer (`build/peers/NAME`, by pip) the first time. Every workload runs in a fresh
process and folder, ours and theirs in turn, with every commit synced unless a remark says otherwise; a ratio is
taken within its pass, and its median is shown. What did not run is said, and left out.
"""

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from slow_disk import slow_disk  # noqa: E402  # beside the folder of this script

ROOT = HERE.parents[2]
HOME = ROOT / "build" / "peers"


class Peer(NamedTuple):
    """What pip installs, the least Python, and what has to be said about the figures."""

    packages: list[str]
    least: tuple[int, int] = (3, 11)
    remark: str = ""


PEERS = {
    "unhinged": Peer(["unhinged"]),
    "dura": Peer(["dura"], (3, 13)),
    "huey": Peer(["huey"], remark="a job queue without a history: a job taken when it is killed is lost"),
    "dbos": Peer(["dbos", "aiosqlite"]),
    "kairo": Peer(["kairo-sdk[embedded]"], (3, 12)),
    "edda": Peer(["edda-framework"], remark="has no children: its jobs are activities"),
    "mundane": Peer(["mundane-sdk"], remark="a file for each run, and no engine that would recover them"),
    "duroxide": Peer(["duroxide"], remark="its commits are not synced: a power cut takes the last of them"),
}
SIZES = {
    "W1": {"runs": 200, "steps": 10},
    "W2": {"steps": 100, "latency_runs": 50},
    "W3": {"jobs": 300},
}
#: The figure of each workload that ratios are of, and what it is called.
FIGURES = {"W1": ("steps_per_s", "steps/s, 200 runs at once"), "W2": ("steps_per_s", "steps/s, one run alone"),
           "W3": ("jobs_per_s", "jobs/s that a parent awaits")}  # fmt: skip
#: Our own runs, and the event loop of each.
OURS = {"ours": "asyncio", "ours on uvloop": "uvloop"}
SECONDS = 90.0


def main():
    options = _options()
    names = options.only.split(",") if options.only else list(PEERS)
    pythons = {name: python for name in names if (python := _set_up(name, options)) is not None}
    running = ["ours", *pythons]
    if options.uvloop and (python := _environment("uvloop", ["uvloop"], sys.executable)) is not None:
        running.insert(1, "ours on uvloop")
        pythons["ours on uvloop"] = python
    slow = slow_disk(options.sync_ms, HOME)
    found = {name: {workload: [] for workload in SIZES} for name in running}
    for number in range(options.passes):
        for workload, sizes in SIZES.items():
            for name in found:
                print(f"pass {number + 1} of {options.passes}: {workload} {name}", file=sys.stderr, flush=True)
                found[name][workload].append(_run(name, pythons, workload, sizes, slow))
    _report(found, pythons, options)


def _options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="peers, separated by commas: " + ",".join(PEERS))
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--uvloop", action="store_true", help="ours also on uvloop, from an environment of its own")
    parser.add_argument("--sync-ms", type=float, default=0.0, help="a sync takes at least so long, as on a slower disk")
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="interpreters, separated by commas: a peer gets the first that it runs on",
    )
    parser.add_argument("--out", type=Path, help="all figures, as JSON")
    return parser.parse_args()


def _set_up(name, options):
    """
    The interpreter of a peer's environment; None, with the reason said, if there is none.
    """
    for python in options.python.split(","):
        if tuple(map(int, _said(python, "import sys; print(*sys.version_info[:2])").split())) >= PEERS[name].least:
            return _environment(name, PEERS[name].packages, python)
    print(f"{name}: needs Python {'.'.join(map(str, PEERS[name].least))} (--python), left out", file=sys.stderr)
    return None


def _said(python, program):
    return subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def _environment(name, packages, python):
    home = HOME / name
    interpreter = home / "bin" / "python"
    if not (home / "ready").exists():
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([python, "-m", "venv", home], check=True)
        done = subprocess.run(
            [interpreter, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *packages],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            print(f"{name}: left out, pip said: {done.stderr[-500:]}", file=sys.stderr)
            return None
        (home / "ready").touch()
    return interpreter


def _run(name, pythons, workload, sizes, slow):
    """
    The figures of one workload, once; None if it did not end.
    """
    environment = {**os.environ, **slow}
    if OURS.get(name) == "uvloop":  # the interpreter and its packages are ours, so that only the loop differs
        packages = _said(pythons[name], "import sysconfig; print(sysconfig.get_path('platlib'))")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), packages]))
    with tempfile.TemporaryDirectory(prefix="bench-", dir=HOME.parent) as folder:
        command = [pythons.get(name), HERE / f"on_{name}.py", workload, folder, json.dumps(sizes)]
        if name in OURS:
            command = [sys.executable, HERE.parent / "child.py", *command[2:], "full", OURS[name]]
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=SECONDS, env=environment
            )
        except subprocess.TimeoutExpired:
            print(f"  {name} {workload} did not end in {SECONDS:g} s", file=sys.stderr)
            return None
        result = Path(folder) / "result.json"
        if name in OURS and result.exists():
            return json.loads(result.read_text(encoding="utf-8"))
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            print(f"  {name} {workload}: {done.stderr[-500:]}", file=sys.stderr)
            return None
        return json.loads(lines[-1].removeprefix("RESULT "))


def _report(found, pythons, options):
    peers = [name for name in found if name not in OURS]
    slow = f" (in {options.sync_ms:g} ms at least)" if options.sync_ms else ""
    print(
        f"\nPython {platform.python_version()}, SQLite {sqlite3.sqlite_version}, every commit synced{slow}; medians of "
        f"{options.passes} passes. In brackets: our runs against the best peer; `ours` against each peer; both within "
        "a pass.\n"
    )
    print("| | " + " | ".join(what for _, what in FIGURES.values()) + " |")
    print("|---|" + "---:|" * len(FIGURES))
    for name in found:
        if name in OURS:
            _row(name, [_against_best(found, peers, name, workload, "") for workload in FIGURES])
            inline = [_against_best(found, peers, name, "W2", "inline_") if each == "W2" else "" for each in FIGURES]
            _row(f'{name}, `commits="inline"`', inline)
    versions = {}
    for name in peers:
        package = PEERS[name].packages[0].partition("[")[0]
        versions[name] = _said(pythons[name], f"from importlib.metadata import version; print(version({package!r}))")
        python = _said(pythons[name], "import platform; print(platform.python_version())")
        python = "" if python == platform.python_version() else f", Python {python}"
        _row(f"{name} {versions[name]}{python}", [_theirs(found, name, workload) for workload in FIGURES])
    for name in peers:
        if PEERS[name].remark:
            print(f"\n{name}: {PEERS[name].remark}.")
    if options.out:
        options.out.write_text(json.dumps({"versions": versions, "sizes": SIZES, "figures": found}, indent=1) + "\n")


def _row(name, cells):
    print(f"| {name} | " + " | ".join(cells) + " |")


def _figures(found, name, workload, prefix=""):
    """
    The figure of each pass that ratios are of; None for a pass that did not end.
    """
    figure = prefix + FIGURES[workload][0]
    return [each and each[figure] for each in found[name][workload]]


def _median(figures):
    return statistics.median([each for each in figures if each] or [0.0])


def _ratio(over, under):
    pairs = [(one, other) for one, other in zip(over, under, strict=True) if one and other]
    return statistics.median(one / other for one, other in pairs) if pairs else 0.0


def _against_best(found, peers, name, workload, prefix):
    mine = _figures(found, name, workload, prefix)
    if not any(mine):
        return "did not end"
    best = max(peers, key=lambda peer: _median(_figures(found, peer, workload)), default=None)
    against = f" ({_ratio(mine, _figures(found, best, workload)):.2f} times {best})" if best else ""
    return f"{_median(mine):,.0f}{against}"


def _theirs(found, name, workload):
    theirs = _figures(found, name, workload)
    if not any(theirs):
        return "did not end"
    return f"{_median(theirs):,.0f} ({_ratio(_figures(found, 'ours', workload), theirs):.1f})"


if __name__ == "__main__":
    main()

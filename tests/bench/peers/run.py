"""
`make bench-peers`: ours beside what a user could pick instead, pass after pass on one machine, as ratios.

    run.py [--only dbos,huey] [--passes 5] [--out FILE]

Sets up an environment for each peer (`build/peers/NAME`, by pip, at the versions below) the first time. Every
workload runs in a fresh process and folder, ours and theirs in turn, with every commit synced; a ratio is taken
within its pass, and its median is shown. What did not run is said, and left out.
"""

import argparse
import json
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
HOME = ROOT / "build" / "peers"
#: Name -> what pip installs, and the least Python.
PEERS = {
    "unhinged": (["unhinged"], (3, 11)),
    "dbos": (["dbos", "aiosqlite"], (3, 11)),
    "huey": (["huey"], (3, 11)),
    "kairo": (["kairo-sdk[embedded]"], (3, 12)),
}
SIZES = {
    "W1": {"runs": 200, "steps": 10},
    "W2": {"steps": 100, "latency_runs": 50},
    "W3": {"jobs": 300},
}
#: The figure of each workload that ratios are of, and what it is called.
FIGURES = {"W1": ("steps_per_s", "steps/s, 200 runs at once"), "W2": ("steps_per_s", "steps/s, one run alone"),
           "W3": ("jobs_per_s", "jobs/s that a parent awaits")}  # fmt: skip
SECONDS = 90.0


def main():
    options = _options()
    names = options.only.split(",") if options.only else list(PEERS)
    pythons = {name: python for name in names if (python := _set_up(name, options.python)) is not None}
    found = {name: {workload: [] for workload in SIZES} for name in ["ours", *pythons]}
    for number in range(options.passes):
        for workload, sizes in SIZES.items():
            for name in found:
                print(f"pass {number + 1} of {options.passes}: {workload} {name}", file=sys.stderr, flush=True)
                found[name][workload].append(_run(name, pythons.get(name), workload, sizes))
    _report(found, pythons, options)


def _options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="peers, separated by commas: " + ",".join(PEERS))
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the peers' environments")
    parser.add_argument("--out", type=Path, help="all figures, as JSON")
    return parser.parse_args()


def _set_up(name, python):
    """
    The interpreter of a peer's environment; None, with the reason said, if there is none.
    """
    packages, least = PEERS[name]
    version = subprocess.run(
        [python, "-c", "import sys; print(*sys.version_info[:2])"], check=True, capture_output=True, text=True
    ).stdout
    if tuple(map(int, version.split())) < least:
        print(f"{name}: needs Python {'.'.join(map(str, least))} (--python), left out", file=sys.stderr)
        return None
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


def _run(name, interpreter, workload, sizes):
    """
    The figures of one workload, once; None if it did not end.
    """
    with tempfile.TemporaryDirectory(prefix="bench-", dir=HOME.parent) as folder:
        if name == "ours":
            command = [sys.executable, HERE.parent / "child.py", workload, folder, json.dumps(sizes), "full"]
        else:
            command = [interpreter, HERE / f"on_{name}.py", workload, folder, json.dumps(sizes)]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            print(f"  {name} {workload} did not end in {SECONDS:g} s", file=sys.stderr)
            return None
        if name == "ours":
            return json.loads((Path(folder) / "result.json").read_text(encoding="utf-8"))
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            print(f"  {name} {workload}: {done.stderr[-500:]}", file=sys.stderr)
            return None
        return json.loads(lines[-1].removeprefix("RESULT "))


def _report(found, pythons, options):
    print(
        f"\nPython {platform.python_version()}, SQLite {sqlite3.sqlite_version}, every commit synced; medians of "
        f"{options.passes} passes. Ours divided by theirs, within each pass."
    )
    versions = {}
    for name, interpreter in pythons.items():
        package = PEERS[name][0][0].partition("[")[0]
        versions[name] = subprocess.run(
            [interpreter, "-c", f"from importlib.metadata import version; print(version({package!r}))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    print("\n| | ours | " + " | ".join(f"{name} {versions[name]}" for name in pythons) + " |")
    print("|---|---:|" + "---:|" * len(pythons))
    for workload, (figure, what) in FIGURES.items():
        ours = [each[figure] for each in found["ours"][workload]]
        cells = []
        for name in pythons:
            theirs = found[name][workload]
            pairs = [(mine, its[figure]) for mine, its in zip(ours, theirs, strict=True) if its]
            if not pairs:
                cells.append("did not end")
                continue
            ratio = statistics.median(mine / its for mine, its in pairs)
            cells.append(f"{statistics.median(its for _, its in pairs):,.0f} ({ratio:.1f}x)")
        print(f"| {what} | {statistics.median(ours):,.0f} | " + " | ".join(cells) + " |")
    if options.out:
        options.out.write_text(json.dumps({"versions": versions, "sizes": SIZES, "figures": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

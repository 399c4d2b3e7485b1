"""
The benchmark: `python tests/bench/run.py`, or `make bench`.

Runs the six workloads of the peer benchmarks, fan-out, queues, the event loop's lag, replay, growth, cores,
import and exit against durable, and raw `sqlite3` on the same disk. Every workload runs in a fresh process on a
fresh folder. Passes are interleaved (raw, W1, lag, W2, W3, ..., raw, W1, ...), so that noise
falls on all alike, and a ratio is taken within its pass. The workloads with 100,000 runs take
part in the first pass only.

Prints a JSON line per workload with each pass and the medians, then a table with the targets.
Nothing is asserted: a missed target is a line in the table.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import report
from measuring import clock, cores
from plotting import curve_of, plot
from slow_disk import slow_disk

HERE = Path(__file__).resolve().parent
CHILD = HERE / "child.py"
#: In the clone, so on the disk the user has it on; a temporary directory may be memory.
DATA = HERE.parents[1] / "build"

#: Sizes at scale 1, and the least of each at any other.
SIZES: dict[str, dict[str, tuple[int, int]]] = {
    "raw": {"rows": (4_400, 100), "single_rows": (100, 20)},
    "W1": {"runs": (200, 2), "steps": (10, 10)},
    "lag": {"runs": (200, 20), "steps": (10, 10), "rounds": (5, 1)},
    "beside": {"runs": (100, 5), "steps": (5, 2)},
    "W2": {"steps": (100, 10), "latency_runs": (200, 5)},
    "W3": {"jobs": (500, 5)},
    "emitting": {"items": (10_000, 100), "runs": (200, 2), "steps": (10, 10)},
    "transacting": {"runs": (100, 4), "times": (20, 2)},
    "asking": {"runs": (20, 2), "times": (10, 2)},
    "watching": {"runs": (1_000, 10), "steps": (10, 10), "rounds": (3, 1)},
    "fan": {"few": (500, 5), "many": (10_000, 20), "window": (10, 10)},
    "waking": {"few": (10, 10), "many": (10_000, 100)},
    "queued": {"jobs": (100_000, 1_000)},
    "W4": {"runs": (100_000, 100), "warm_up": (2_000, 20)},
    "W5": {"waiting": (100_000, 100), "active": (1_000, 5)},
    "W6": {"steps": (5_000, 40), "edge": (500, 10)},
    "replay": {"events": (20_000, 200), "repeats": (5, 2)},
    "look": {"runs": (100_000, 100), "repeats": (5, 1)},
    "debug": {"steps": (5_000, 50), "repeats": (5, 1), "checked": (10_000, 20)},
    "growing": {
        "steps": (100_000, 200),
        "runs": (100_000, 1_000),
        "at_once": (10_000, 100),
        "signals": (10_000, 60),
        "probes": (300, 20),
    },
    "multicore": {"jobs": (100, 4)},
    "import": {"repeats": (7, 1)},
    "crash": {},
}
#: Not scaled: seconds. An engine looks after its file each 5 s, and the first look seals what was written before it: it
#: idles from then on, and 5 s have what it does now and then.
SECONDS = {"lag": {"idle_s": 0.5}, "W4": {"idle_s": 2.0}, "watching": {"settles": 6.0, "idles": 5.0}}
ONCE = ("queued", "W4", "W5", "look", "growing")


def main() -> None:
    options = _options()
    names = options.only.split(",") if options.only else list(SIZES)
    if unknown := set(names) - set(SIZES):
        sys.exit(f"unknown workloads {' '.join(sorted(unknown))}; there are {' '.join(SIZES)}")
    if {"W1", "W2"} & set(names) and "raw" not in names:
        names.insert(0, "raw")  # what they are measured against
    base = options.data or DATA
    base.mkdir(parents=True, exist_ok=True)
    options.environment = slow_disk(options.sync_ms, DATA)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=base))
    began = clock()
    passes: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    errors: dict[str, list[str]] = {name: [] for name in names}
    try:
        for number in range(options.repeat):
            for name in names:
                if number and name in ONCE:
                    continue
                print(f"pass {number + 1} of {options.repeat}: {name}", file=sys.stderr, flush=True)
                place = folder / f"{name}-{number}"
                place.mkdir()
                try:
                    passes[name].append(_measured(name, place, options))
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    errors[name].append(str(error))
                    print(f"  {error}", file=sys.stderr, flush=True)
                if not options.keep:
                    shutil.rmtree(place, ignore_errors=True)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    _print(names, passes, errors, options, clock() - began)
    if any(errors.values()):
        sys.exit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="workloads, separated by commas: " + ",".join(SIZES))
    parser.add_argument("--repeat", type=int, default=5, help="passes; figures are their medians (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all sizes; 0.1 for a quick look")
    parser.add_argument("--durability", choices=("full", "process"), default="full")
    parser.add_argument("--sync-ms", type=float, default=0.0, help="a sync takes at least so long, as on a slower disk")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="the event loop")
    parser.add_argument("--data", type=Path, help="where the journals are written (default: build/ in the clone)")
    parser.add_argument("--out", type=Path, help="the JSON lines go to this file instead of standard output")
    parser.add_argument("--plot", type=Path, help="the curves of `growing` go to this file, as SVG")
    parser.add_argument("--keep", action="store_true", help="leave the journals behind")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds for one process")
    return parser.parse_args()


def params_of(name: str, scale: float) -> dict[str, Any]:
    """
    Sizes of a workload. What is not a count of runs, steps or rows keeps its size.
    """
    fixed = ("W1:steps", "lag:steps", "W2:steps", "emitting:steps", "watching:steps", "fan:window", "waking:few")
    sizes: dict[str, Any] = {
        size: full if f"{name}:{size}" in fixed else max(least, round(full * scale))
        for size, (full, least) in SIZES[name].items()
    }
    return sizes | {key: max(0.2, seconds * min(1.0, scale)) for key, seconds in SECONDS.get(name, {}).items()}


# --- one workload, once ------------------------------------------------------------------------------


def _measured(name: str, place: Path, options: argparse.Namespace) -> dict[str, Any]:
    params = params_of(name, options.scale)
    if name != "W5":
        return _run(name, place, params, options)
    set_up = _killed("W5-before", place, params, options)
    return set_up | _run("W5-after", place, params, options)


def _run(name: str, place: Path, params: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    process = _start(name, place, params, options)
    try:
        code = process.wait(options.timeout)
    finally:
        _kill(process)
    result = place / "result.json"
    if code or not result.exists():
        raise RuntimeError(f"{name} ended with {code}:\n{_last_words(name, place)}")
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def _killed(name: str, place: Path, params: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """
    What a process said when it was ready; then it is killed with SIGKILL.
    """
    process = _start(name, place, params, options)
    ready, began = place / "ready.json", clock()
    try:
        while not (ready.exists() and ready.stat().st_size):
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(0.05)
                raise RuntimeError(f"{name} ended with {code}:\n{_last_words(name, place)}")
            if clock() - began > options.timeout:
                raise RuntimeError(f"{name} was not ready after {options.timeout:g} s:\n{_last_words(name, place)}")
    finally:
        _kill(process)
    found: dict[str, Any] = json.loads(ready.read_text(encoding="utf-8"))
    return found


def _start(name: str, place: Path, params: dict[str, Any], options: argparse.Namespace) -> subprocess.Popen[bytes]:
    with (place / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, CHILD, name, place, json.dumps(params), options.durability, options.loop],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that what it starts ends with it
            env={**os.environ, **options.environment},
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(name: str, place: Path) -> str:
    return (place / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-2_000:]


# --- the end -------------------------------------------------------------------------------------------


def _print(
    names: list[str],
    passes: dict[str, list[dict[str, Any]]],
    errors: dict[str, list[str]],
    options: argparse.Namespace,
    seconds: float,
) -> None:
    about = _about(options)
    lines = [
        json.dumps(
            {
                "workload": name,
                **about,
                "params": params_of(name, options.scale),
                "median": report.medians(passes[name]),
                "passes": passes[name],
                "errors": errors[name],
            }
        )
        for name in names
    ]
    if options.plot and passes.get("growing"):
        grown = report.medians(passes["growing"])
        curves = {
            "a step, by steps before it": curve_of(grown, "us_at_step_"),
            "a run, by runs in the file": curve_of(grown, "us_among_"),
        }
        machine = f"Python {about['python']}, SQLite {about['sqlite']}, durability {about['durability']}"
        plot(options.plot, curves, machine)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        print("\n".join(lines))
    described = ", ".join(f"{name} {value}" for name, value in about.items())
    print(
        f"\n{described}; medians of {options.repeat} passes, queued, W4, W5, look and growing once; {seconds:.0f} s\n"
    )
    print(report.table(report.rows(passes)))
    print(
        "\nW1 counts events: all that its runs record (their starts and ends too), from start_many to the last result\n"
        "and however few rows hold them, against raw inserts of a row for each in transactions of 100. Ratios are\n"
        "medians of the ratios within each pass, in brackets."
    )


def _about(options: argparse.Namespace) -> dict[str, Any]:
    try:
        durable = version("durable-asyncio")
    except PackageNotFoundError:
        project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        durable = f"{project['version']} (not installed)"
    return {
        "durability": options.durability,
        "sync_ms": options.sync_ms,
        "scale": options.scale,
        "loop": options.loop,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "durable": durable,
        "cores": cores(),
        "machine": platform.machine(),
        "system": platform.platform(terse=True),
    }


if __name__ == "__main__":
    main()

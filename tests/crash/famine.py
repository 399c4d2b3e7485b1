"""
Moments without threads, descriptors, memory or disk, in processes that really have none: idle ones, and busy ones.

    python tests/crash/famine.py --seconds 3

Each process has an engine with runs that wait for a timer and for a signal, and, if it is busy, begins one run after
another of two steps, one of them a plain function. Then something is gone for a while. What must hold: the engine is
not dead, resumes by itself, and every run ends with what it should, those that were asked for meanwhile included,
unless their start was refused.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from durable import Engine, Flow, Retry, Return, gather, sleep, step, wait_for, workflow
from durable.errors import DurableError

ROOT = Path(__file__).parents[2]
#: Seconds from relief until all that was asked for has ended, on a machine that does other things.
PATIENCE = 60.0
#: Runs of the load at once.
AT_ONCE = 10
#: Bytes that a process may still map while it has no memory: as good as nothing, and enough for an exception.
LEFT = 256 << 10

#: Characters of a value that takes memory of its own, and is in the journal once.
LARGE = 300_000

#: Lets all go on that was gone.
Relief = Callable[[], None]


@step(retry=Retry(attempts=100, delay=0.1, factor=1))
async def quick(number: int) -> int:
    return number


@step(retry=Retry(attempts=100, delay=0.1, factor=1))
def threaded(number: int) -> int:
    return number


@step(retry=Retry(attempts=100, delay=0.1, factor=1))
async def large(number: int) -> str:
    return str(number) * LARGE


@workflow
async def busy(number: int) -> Flow[int]:
    first: int = yield quick(number)
    others: list[int] = yield gather(quick(1), threaded(2))
    text: str = yield large(3)
    yield Return(first + sum(others) + len(text) // LARGE)


@workflow
async def timed(number: int) -> Flow[int]:
    yield sleep(0.5)
    value: int = yield quick(number)
    yield Return(value)


@workflow
async def signalled() -> Flow[str]:
    text: str = yield wait_for("go", str)
    number: int = yield threaded(7)
    yield Return(f"{text} {number}")


# --- what is gone -----------------------------------------------------------------------------------------


def without_threads(_: Path) -> Relief:
    """
    A stack larger than all memory that the process may map: the system has no thread to give.
    """
    threading.stack_size(1 << 40)

    def relieve() -> None:
        threading.stack_size(0)

    return relieve


def without_descriptors(_: Path) -> Relief:
    """
    Whatever comes free is taken.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    held: list[int] = []

    async def eat() -> None:
        while True:
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.open("/dev/null", os.O_RDONLY))
            await asyncio.sleep(0.001)

    eating = asyncio.create_task(eat())

    def relieve() -> None:
        eating.cancel()
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    return relieve


def without_memory(_: Path) -> Relief:
    """
    Nothing more is mapped.
    """
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + LEFT, before[1]))

    def relieve() -> None:
        resource.setrlimit(resource.RLIMIT_AS, before)

    return relieve


def without_disk(path: Path) -> Relief:
    """
    No file grows: neither the journal nor its WAL.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(path).st_size, before[1]))

    def relieve() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return relieve


KINDS: dict[str, Callable[[Path], Relief]] = {
    "threads": without_threads, "descriptors": without_descriptors, "memory": without_memory, "disk": without_disk,
}  # fmt: skip
LOADS = ("idle", "busy")


# --- one process ------------------------------------------------------------------------------------------


async def starve(path: Path, kind: str, load: str, seconds: float) -> str:
    """
    "fine: ...", or what is wrong, of one engine that had nothing of *kind* for some seconds.
    """
    engine = Engine(path, [busy, timed, signalled], durability="process", grace=0.5)
    async with engine:
        waiting = [await engine.start(signalled(), id=f"signalled-{number}") for number in range(3)]
        waiting += [await engine.start(timed(number), id=f"timed-{number}") for number in range(3)]
        started: list[tuple[Any, int]] = []
        stop = asyncio.Event()

        async def ask(number: int) -> None:
            while not stop.is_set():
                with contextlib.suppress(DurableError, MemoryError, OSError):
                    run = await engine.start(busy(number))
                    started.append((run, number + 4))
                    await asyncio.wait_for(run.result(), 0.5)
                    continue
                await asyncio.sleep(0.01)

        asking = [asyncio.create_task(ask(number)) for number in range(AT_ONCE if load == "busy" else 0)]
        relieve = KINDS[kind](path)
        await asyncio.sleep(seconds)
        relieve()
        stop.set()
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            if (got := await engine.run(busy(5))) != 9:
                return f"WRONG: a new run returned {got!r}"
            resumed = time.monotonic() - began
            for run in waiting[:3]:
                await run.signal("go", "on")
            ends: list[tuple[Awaitable[Any], Any]] = [(run.result(), "on 7") for run in waiting[:3]]
            ends += [(run.result(), number) for number, run in enumerate(waiting[3:])]
            ends += [(run.result(), expected) for run, expected in started]
            for end, expected in ends:
                if (got := await end) != expected:
                    return f"WRONG: a run returned {got!r}, expected {expected!r}"
            await asyncio.gather(*asking)
    if engine.failure is not None:
        return f"WRONG: the engine is dead: {engine.failure!r:.200}"
    return f"fine: {len(ends) + 2} runs ended right, the first {resumed:.1f} s after relief"


def verdict(folder: Path, kind: str, load: str, seconds: float) -> str:
    """
    That of a process of its own.
    """
    program = [sys.executable, __file__, "--child", str(folder / f"{kind}-{load}.db"), kind, load, str(seconds)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, capture_output=True, text=True, timeout=2 * PATIENCE, env=env, check=False)
    last = (done.stdout.splitlines() or [""])[-1]
    return last if done.returncode == 0 else f"WRONG: exit {done.returncode}: {last}{done.stderr[-600:]}"


def main() -> int:
    """
    Starve as the command line says; 1 if something is wrong.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for which something is gone")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        logging.disable(logging.CRITICAL)
        path, kind, load, seconds = args.child
        print(asyncio.run(starve(Path(path), kind, load, float(seconds))))
        return 0
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            for load in LOADS:
                found = verdict(Path(folder), kind, load, args.seconds)
                print(f"{kind:<12} {load:<5} {found}", flush=True)
                wrong += found.startswith("WRONG")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

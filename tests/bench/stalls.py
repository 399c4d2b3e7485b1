"""
Stalls: how long the event loop, and the writer, are held at once, under loads that are large in one dimension.

    python tests/bench/stalls.py [LOAD ...] [--size N | --small | --most N] [--freeze] [--where] [--plot FILE.svg]

The loop's figures are processor time of its thread (so that other programs on a noisy machine do not count): of the
longest iteration, and of the longest single callback; beside them what the longest garbage collection took, which is
part of some callback, and how late a timer of 1 ms was, by the wall. The writer's are of its longest transaction.

With `--plot` each load is measured at a tenth of its size as well, and drawn: the longest iteration, and what one unit
(a job, a signal, an event) costs against one among a tenth as many.
"""

import argparse
import asyncio
import gc
import json
import logging
import sys
import tempfile
import threading
import time
import traceback
from asyncio import events
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from attrs import define, field
from plotting import bars

from durable import (
    Engine,
    Flow,
    GroupFailedError,
    Return,
    Schedule,
    for_each,
    gather,
    job,
    sleep,
    step,
    wait_for,
    workflow,
)
from durable._core.policies.caps import Caps
from durable._shell.storage import connections, database

HOUR = 3600.0
#: Callbacks that took longer (seconds of CPU) are told with `--where`.
TOLD = 0.02
#: No cap on the length of a history: it is what is measured.
CAPS = Caps(events=100_000_000, events_warning=100_000_000)


# --- what is measured ----------------------------------------------------------------------------------


@define
class Stalls:
    """
    What was held, and for how long (seconds).
    """

    #: Processor time of all threads.
    cpu: float = 0.0
    callback: float = 0.0
    iteration: float = 0.0
    iterations: list[float] = field(factory=list)
    garbage: float = 0.0
    late: list[float] = field(factory=list)
    transaction: float = 0.0
    transaction_cpu: float = 0.0
    transactions: int = 0
    #: Stacks seen while a callback took long, and how often.
    where: dict[str, int] = field(factory=dict)

    def figures(self) -> dict[str, Any]:
        """
        In milliseconds.
        """
        late = sorted(self.late) or [0.0]
        return {
            "loop_cpu_max_ms": _ms(self.iteration),
            "loop_cpu_p99_ms": _ms(sorted(self.iterations)[int(len(self.iterations) * 0.99)]),
            "callback_cpu_max_ms": _ms(self.callback),
            "garbage_max_ms": _ms(self.garbage),
            "lag_p99_ms": _ms(late[int(len(late) * 0.99)]),
            "lag_max_ms": _ms(late[-1]),
            "cpu_s": round(self.cpu, 3),
            "transactions": self.transactions,
            "transaction_max_ms": _ms(self.transaction),
            "transaction_cpu_max_ms": _ms(self.transaction_cpu),
        }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 1)


@contextmanager
def watched(*, where: bool = False) -> Iterator[Stalls]:
    """
    Measure what runs within, in this thread's loop and on every writer's thread.
    """
    found = Stalls()
    run, transact, cpu = events.Handle._run, database.transact, time.thread_time
    began_at: list[float] = [0.0]
    collecting: list[float] = [0.0]
    iterated: list[float] = [cpu()]
    over = threading.Event()
    selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    select = selector.select
    loops = threading.get_ident()

    def timed_run(handle: events.Handle) -> None:
        if threading.get_ident() != loops:
            run(handle)
            return
        began = cpu()
        began_at[0] = time.perf_counter()
        run(handle)
        took = cpu() - began
        began_at[0] = 0.0
        found.callback = max(found.callback, took)

    def timed_select(timeout: float | None = None) -> Any:
        took = cpu() - iterated[0]
        found.iteration = max(found.iteration, took)
        found.iterations.append(took)
        try:
            return select(timeout)
        finally:
            iterated[0] = cpu()

    def timed_transact(conn: Any, path: str, fn: Any) -> Any:
        wall = time.perf_counter()

        def timed(conn: Any) -> Any:
            nonlocal wall
            wall = time.perf_counter()
            began = cpu()
            try:
                return fn(conn)
            finally:
                found.transaction_cpu = max(found.transaction_cpu, cpu() - began)

        try:
            return transact(conn, path, timed)
        finally:
            found.transactions += 1
            found.transaction = max(found.transaction, time.perf_counter() - wall)

    def collected(phase: str, _info: object) -> None:
        if phase == "start":
            collecting[0] = cpu()
        else:
            found.garbage = max(found.garbage, cpu() - collecting[0])

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            found.late.append(time.perf_counter() - began - 0.001)

    def sample() -> None:
        while not over.wait(0.002):
            began = began_at[0]
            if began and time.perf_counter() - began > TOLD:
                stack = traceback.extract_stack(sys._current_frames()[loops])
                text = " < ".join(f"{Path(each.filename).stem}.{each.name}" for each in reversed(stack[-9:]))
                found.where[text] = found.where.get(text, 0) + 1

    began = time.process_time()
    selector.select = timed_select
    events.Handle._run = timed_run  # type: ignore[method-assign]
    database.transact = timed_transact  # type: ignore[assignment]
    gc.callbacks.append(collected)
    ticking = asyncio.get_running_loop().create_task(tick())
    if where:
        threading.Thread(target=sample, daemon=True).start()
    try:
        yield found
    finally:
        found.cpu = time.process_time() - began
        over.set()
        ticking.cancel()
        selector.select = select
        gc.callbacks.remove(collected)
        events.Handle._run = run  # type: ignore[method-assign]
        database.transact = transact


assert database.transact is connections.transact  # what is timed is what writes


# --- loads -------------------------------------------------------------------------------------------


@step
async def ok() -> int:
    return 1


@step
async def hold() -> int:
    await asyncio.sleep(HOUR)
    return 1


@step
async def megabyte(number: int) -> str:
    return f"{number:07}" * 149_000


@step
async def refuse(number: int) -> int:
    msg = f"no {number}"
    raise ValueError(msg)


@job
async def one(number: int) -> int:
    return number


@workflow
async def sequence(steps: int) -> Flow[int]:
    for _ in range(steps):
        yield ok()
    yield Return(steps)


@workflow
async def holding() -> Flow[int]:
    yield hold()
    yield Return(1)


@workflow
async def each(jobs: int) -> Flow[int]:
    found = yield for_each(one, range(jobs), concurrency=None)
    yield Return(len(found))


@workflow
async def windowed(jobs: int) -> Flow[int]:
    found = yield for_each(one, range(jobs), concurrency=10)
    yield Return(len(found))


@workflow
async def gathered(jobs: int) -> Flow[int]:
    found = yield gather(*(one(number) for number in range(jobs)))
    yield Return(len(found))


@workflow
async def steps_at_once(steps: int) -> Flow[int]:
    found = yield gather(*(ok() for _ in range(steps)))
    yield Return(len(found))


@workflow
async def failing(steps: int) -> Flow[int]:
    try:
        yield gather(*(refuse(number) for number in range(steps)))
    except GroupFailedError as errors:
        yield Return(len(errors.exceptions))


@workflow
async def megabytes(values: int) -> Flow[int]:
    for number in range(values):
        yield megabyte(number)
    yield Return(values)


@workflow
async def counting(signals: int) -> Flow[int]:
    for _ in range(signals):
        yield wait_for("add", int)
    yield Return(signals)


@workflow
async def parked() -> Flow[None]:
    yield sleep(HOUR)


ALL = [sequence, each, windowed, gathered, steps_at_once, failing, megabytes, counting, parked, holding, one]


def engine(folder: Path, **options: Any) -> Engine:
    """
    On the file of *folder*.
    """
    return Engine(folder / "stalls.db", ALL, **{"durability": "process", "caps": CAPS, **options})


Measure = Callable[[], Any]


async def _until(engine: Engine, status: str, runs: int) -> None:
    while (await engine.stats()).runs.get(status, 0) < runs:
        await asyncio.sleep(0.05)


async def _many(engine: Engine, make: Callable[[int], Any], runs: int, at_once: int = 1000) -> None:
    for at in range(0, runs, at_once):
        await engine.start_many([make(number) for number in range(at, min(runs, at + at_once))])


async def for_each_jobs(folder: Path, size: int, measure: Measure) -> None:
    """
    A `for_each` of *size* jobs, all at once.
    """
    async with engine(folder) as opened:
        await opened.run(each(2))
        with measure():
            assert await opened.run(each(size)) == size


async def for_each_window(folder: Path, size: int, measure: Measure) -> None:
    """
    A `for_each` of *size* jobs, ten at a time.
    """
    async with engine(folder) as opened:
        await opened.run(windowed(20))
        with measure():
            assert await opened.run(windowed(size)) == size


async def gather_jobs(folder: Path, size: int, measure: Measure) -> None:
    """
    A `gather` of *size* jobs.
    """
    async with engine(folder) as opened:
        await opened.run(gathered(2))
        with measure():
            assert await opened.run(gathered(size)) == size


async def gather_steps(folder: Path, size: int, measure: Measure) -> None:
    """
    A `gather` of *size* steps.
    """
    async with engine(folder) as opened:
        await opened.run(steps_at_once(2))
        with measure():
            assert await opened.run(steps_at_once(size)) == size


async def group_errors(folder: Path, size: int, measure: Measure) -> None:
    """
    A `gather` of *size* steps, all of which fail.
    """
    async with engine(folder) as opened:
        await opened.run(failing(2))
        with measure():
            assert await opened.run(failing(size)) == size


async def active(folder: Path, size: int, measure: Measure) -> None:
    """
    *size* runs that are active at a time.
    """
    async with engine(folder, concurrency=size + 1, grace=0.0) as opened:
        await opened.run(sequence(1))
        with measure():
            await _many(opened, lambda _: holding(), size)
            while (await opened.stats()).active < size:
                await asyncio.sleep(0.05)
            await opened.run(sequence(100))


async def signals(folder: Path, size: int, measure: Measure) -> None:
    """
    *size* signals to one run, 200 at a time.
    """
    async with engine(folder) as opened:
        run = await opened.start(counting(size))
        await _until(opened, "waiting", 1)
        with measure():
            for at in range(0, size, 200):
                await asyncio.gather(*(run.signal("add", number) for number in range(at, min(size, at + 200))))
            assert await run.result() == size


async def values(folder: Path, size: int, measure: Measure) -> None:
    """
    *size* values of 1 MiB, then the replay of their run.
    """
    async with engine(folder) as opened:
        await opened.run(megabytes(1))
        with measure():
            assert await opened.run(megabytes(size)) == size


async def starts(folder: Path, size: int, measure: Measure) -> None:
    """
    `start_many` of *size* runs.
    """
    async with engine(folder) as opened:
        await opened.queue("default").pause()
        with measure():
            await opened.start_many([one(number) for number in range(size)])


async def schedules(folder: Path, size: int, measure: Measure) -> None:
    """
    *size* ticks: as many schedules as tick in two seconds, each once a second, and a run for each.
    """
    listed = [
        Schedule(f"each-{number}", one(number), every=1.0, overlap="allow") for number in range(max(1, size // 2))
    ]
    async with engine(folder, schedules=listed) as opened:
        with measure():
            await _until(opened, "succeeded", 2 * len(listed))


async def recovery(folder: Path, size: int, measure: Measure) -> None:
    """
    Opening a file in which *size* runs are ready, until all have ended.
    """
    async with engine(folder) as opened:
        await opened.queue("default").pause()
        await _many(opened, one, size)
    with measure():
        async with engine(folder) as opened:
            await opened.queue("default").resume()
            await _until(opened, "succeeded", size)


async def replay(folder: Path, size: int, measure: Measure) -> None:
    """
    A run of *size* steps that is woken by a signal.
    """
    async with engine(folder) as opened:
        run = await opened.start(steps_then_signal(size))
        await _until(opened, "waiting", 1)
        with measure():
            await run.signal("add", 1)
            assert await run.result() == size


@workflow
async def steps_then_signal(steps: int) -> Flow[int]:
    for _ in range(steps):
        yield ok()
    yield wait_for("add", int)
    yield Return(steps)


ALL.append(steps_then_signal)


async def prune_runs(folder: Path, size: int, measure: Measure) -> None:
    """
    Pruning *size* short runs.
    """
    async with engine(folder) as opened:
        await _many(opened, one, size)
        await _until(opened, "succeeded", size)
        with measure():
            await opened.prune(older_than=0.0)


async def prune_events(folder: Path, size: int, measure: Measure) -> None:
    """
    Pruning runs of 1,000 steps, *size* steps in all.
    """
    async with engine(folder) as opened:
        await _many(opened, lambda _: sequence(min(size, 1000)), max(1, size // 1000), 50)
        await _until(opened, "succeeded", max(1, size // 1000))
        with measure():
            await opened.prune(older_than=0.0)


async def prune_values(folder: Path, size: int, measure: Measure) -> None:
    """
    Pruning *size* values of 1 MiB.
    """
    async with engine(folder) as opened:
        await opened.run(megabytes(size))
        with measure():
            await opened.prune(older_than=0.0)


async def backup(folder: Path, size: int, measure: Measure) -> None:
    """
    A backup of *size* MB, with runs and reads beside it.
    """
    async with engine(folder, durability="full") as opened:
        await opened.run(megabytes(max(1, size)))
        spans: dict[str, list[float]] = {"run": [], "read": []}

        async def beside(name: str, work: Callable[[], Awaitable[Any]]) -> None:
            while True:
                began = time.perf_counter()
                await work()
                spans[name].append(time.perf_counter() - began)
                await asyncio.sleep(0.002)

        with measure():
            tasks = [
                asyncio.ensure_future(beside("run", lambda: opened.run(sequence(1)))),
                asyncio.ensure_future(beside("read", opened.stats)),
            ]
            began = time.perf_counter()
            await opened.backup(folder / "copy.db")
            took = time.perf_counter() - began
            for task in tasks:
                task.cancel()
        told = {name: f"{len(each)}, longest {_ms(max(each, default=0.0))} ms" for name, each in spans.items()}
        print(json.dumps({"backup_s": round(took, 2), **told}))


async def importing(folder: Path, size: int, measure: Measure) -> None:
    """
    Importing an export of runs of 100 steps, *size* steps in all.
    """
    (folder / "from").mkdir()
    (folder / "to").mkdir()
    async with engine(folder / "from") as opened:
        await _many(opened, lambda _: sequence(100), max(1, size // 100), 50)
        await _until(opened, "succeeded", max(1, size // 100))
        await opened.export([run.run_id async for run in opened.runs()], folder / "runs.jsonl")
    async with engine(folder / "to") as opened:
        with measure():
            await opened.import_runs(folder / "runs.jsonl")


#: Each with its full size, and one that is quick.
LOADS: dict[str, tuple[Callable[[Path, int, Measure], Awaitable[None]], int, int]] = {
    "for_each_jobs": (for_each_jobs, 100_000, 300),
    "for_each_window": (for_each_window, 100_000, 300),
    "gather_jobs": (gather_jobs, 100_000, 300),
    "gather_steps": (gather_steps, 10_000, 300),
    "group_errors": (group_errors, 5_000, 100),
    "active": (active, 10_000, 100),
    "signals": (signals, 100_000, 300),
    "values": (values, 100, 2),
    "starts": (starts, 100_000, 300),
    "schedules": (schedules, 2_000, 20),
    "recovery": (recovery, 100_000, 300),
    "replay": (replay, 100_000, 300),
    "prune_runs": (prune_runs, 100_000, 300),
    "prune_events": (prune_events, 100_000, 300),
    "prune_values": (prune_values, 100, 2),
    "backup": (backup, 300, 2),
    "import": (importing, 100_000, 300),
}


async def measured(name: str, size: int, *, where: bool = False) -> Stalls:
    """
    What the load called *name* held.
    """
    found: list[Stalls] = []

    @contextmanager
    def measure() -> Iterator[None]:
        with watched(where=where) as stalls:
            found.append(stalls)
            yield

    with tempfile.TemporaryDirectory() as folder:
        await LOADS[name][0](Path(folder), size, measure)
    return found[0]


def freeze_survivors(phase: str, info: dict[str, int]) -> None:
    """
    What a full collection leaves is in use, so the next one does not visit it.
    """
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()


def main() -> None:
    """
    Measure the loads that the command line names, or all.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loads", nargs="*", metavar="LOAD", help=f"of {', '.join(LOADS)}")
    parser.add_argument("--size", type=int, help="instead of the full one")
    parser.add_argument("--small", action="store_true", help="so small that it takes seconds")
    parser.add_argument("--most", type=int, default=10**9, help="no load is larger")
    parser.add_argument(
        "--plot", type=Path, help="measure a tenth of each load, too, and draw both to this file, as SVG"
    )
    parser.add_argument("--freeze", action="store_true", help="freeze survivors, as examples/guide/operating.md has it")
    parser.add_argument("--where", action="store_true", help=f"tell what runs in callbacks of over {TOLD * 1e3:g} ms")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if asked.freeze:
        gc.callbacks.append(freeze_survivors)
    drawn: list[tuple[str, float, float]] = []
    for name in asked.loads or LOADS:
        size = min(asked.most, asked.size or LOADS[name][2 if asked.small else 1])
        tenth = _measured(name, max(1, size // 10), asked) if asked.plot else None
        whole = _measured(name, size, asked)
        if tenth is not None:
            growth = whole.cpu / size / (tenth.cpu / max(1, size // 10))
            drawn.append((f"{name} {size:,}", whole.iteration * 1e3, growth))
    if asked.plot:
        bars(asked.plot, drawn)


def _measured(name: str, size: int, asked: argparse.Namespace) -> Stalls:
    began = time.perf_counter()
    found = asyncio.run(measured(name, size, where=asked.where))
    told = {"load": name, "size": size, **found.figures(), "seconds": round(time.perf_counter() - began, 1)}
    print(json.dumps(told), flush=True)
    for stack, times in sorted(found.where.items(), key=lambda item: -item[1])[:8]:
        print(f"  {times:5} {stack}")
    return found


if __name__ == "__main__":
    main()

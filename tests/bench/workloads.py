"""
The workloads W1 to W6 and the loop's lag, on a durable engine. Each is one function: folder,
sizes and durability in, measured figures out; it runs in a process and a folder of its own.

They are those of the peer benchmarks: no-op steps with a small result, so that what is
measured is the engine.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from measuring import ask, clock, collect, disk_bytes, latencies, memory, percentile, trim

from durable import Engine, Flow, Queue, Return, continue_as, for_each, gather, job, sleep, step, wait_for, workflow

HOUR = 3600.0
#: Runs of one `start_many` where 100,000 are started: one transaction each.
CHUNK = 1_000
#: What a run and each of its steps record: a start and an end. Raw rows are held against these, whatever rows a format
#: makes of them: one that packs two events into a row is as fast as it is, and no slower for having fewer rows.
EVENTS_OF_A_RUN = 2
EVENTS_OF_A_STEP = 2

#: The clock at the end of each step of `timed`, in the order in which they ran.
ended_at: list[float] = []
#: Whether the step of `held` never ends, for W5's first process.
holding = False


@step
async def ok() -> dict[str, bool]:
    return {"ok": True}


@step
async def stamp() -> dict[str, bool]:
    ended_at.append(clock())
    return {"ok": True}


@step
async def hold() -> dict[str, bool]:
    if holding:
        await asyncio.Event().wait()
    return {"ok": True}


@job
async def one(number: int) -> dict[str, bool]:
    return {"ok": number >= 0}


@workflow
async def sequence(steps: int) -> Flow[int]:
    for _ in range(steps):
        yield ok()
    yield Return(steps)


@workflow
async def timed(steps: int) -> Flow[int]:
    for _ in range(steps):
        yield stamp()
    yield Return(steps)


@workflow
async def fan_out(jobs: int) -> Flow[int]:
    results: list[dict[str, bool]] = yield gather(*(one(number) for number in range(jobs)))
    yield Return(sum(result["ok"] for result in results))


@workflow
async def windowed(jobs: int, window: int) -> Flow[int]:
    results: list[dict[str, bool]] = yield for_each(one, range(jobs), concurrency=window)
    yield Return(sum(result["ok"] for result in results))


@job(queue="narrow")
async def held_up(number: int) -> int:
    await asyncio.Event().wait()
    return number


@workflow
async def parked(seconds: float) -> Flow[None]:
    yield sleep(seconds)


@workflow
async def held() -> Flow[int]:
    yield hold()
    yield Return(1)


@workflow
async def long_history(steps: int) -> Flow[int]:
    for _ in range(steps):
        yield ok()
    yield wait_for("go")
    yield Return(steps)


@workflow
async def counting(signals: int) -> Flow[int]:
    total = 0
    for _ in range(signals):
        number: int = yield wait_for("add", int)
        total += number
    yield Return(total)


@workflow
async def chained(total: int, left: int) -> Flow[int]:
    for _ in range(min(100, left)):
        number: int = yield wait_for("add", int)
        total += number
    if left > 100:
        yield continue_as(chained(total, left - 100))
    yield Return(total)


DEFINITIONS = [
    sequence, timed, fan_out, windowed, one, held_up, parked, held, long_history, counting, chained,
]  # fmt: skip


@asynccontextmanager
async def opened(folder: Path, durability: str, **options: Any) -> AsyncIterator[Engine]:
    """
    An engine on the folder's journal.
    """
    async with Engine(folder / "app.db", DEFINITIONS, durability=durability, **options) as engine:
        yield engine


async def _empty_bytes(folder: Path, durability: str) -> int:
    """
    Size of a journal without runs, so that only what runs add is counted.
    """
    async with Engine(folder / "empty.db", DEFINITIONS, durability=durability):
        pass
    return disk_bytes(folder / "empty.db")


# --- W1, W2, W3: throughput and latency -----------------------------------------------------------


async def w1(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    Many runs of a few steps, started together: from `start_many` to the last result.
    """
    runs, steps = params["runs"], params["steps"]
    async with opened(folder, durability) as engine:
        await engine.run(sequence(1))  # the first use of anything costs more, and is not the question
        seconds = await sequences(engine, runs, steps)
    counted = "SELECT count(*), total(length(body)) + total(length(value)) FROM durable_events WHERE run > 1"
    written, value_bytes = ask(folder / "app.db", counted)[0]
    events = runs * (EVENTS_OF_A_RUN + EVENTS_OF_A_STEP * steps)
    return {
        "seconds": seconds,
        "runs_per_s": runs / seconds,
        "steps_per_s": runs * steps / seconds,
        "event_rows": events,
        "event_rows_per_s": events / seconds,
        "rows_written": written,
        "bytes_per_event": value_bytes / events,
    }


async def sequences(engine: Engine, runs: int, steps: int) -> float:
    began = clock()
    started = await engine.start_many([sequence(steps) for _ in range(runs)])
    results = await asyncio.gather(*(run.result() for run in started))
    seconds = clock() - began
    assert results == [steps] * runs
    return seconds


async def lag(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    W1 once more, beside a task that sleeps for 1 ms again and again: by how much it oversleeps.

    The same is measured before, on the idle loop: what the machine alone does to a timer.
    """
    idle: list[float] = []
    busy: list[float] = []
    async with opened(folder, durability) as engine:
        await engine.run(sequence(1))
        await _beside(idle, lambda: asyncio.sleep(params["idle_s"]))
        for _ in range(params["rounds"]):  # one is too short for a 99th percentile
            await _beside(busy, lambda: sequences(engine, params["runs"], params["steps"]))
    return {
        **latencies(busy, "lag"),
        "ticks": len(busy),
        "idle_p50_ms": percentile(idle, 0.5) * 1e3,
        "idle_p99_ms": percentile(idle, 0.99) * 1e3,
    }


async def _beside(late: list[float], work: Callable[[], Awaitable[Any]]) -> None:
    interval = 0.001

    async def tick() -> None:
        while True:
            began = clock()
            await asyncio.sleep(interval)
            late.append(clock() - began - interval)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    await work()
    await asyncio.sleep(2 * interval)  # a tick that is overdue is counted too
    ticker.cancel()


async def w2(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    One run alone, step after step; then runs of one step, one after another. Also with commits inline.
    """
    inline = folder / "inline"
    inline.mkdir()
    theirs = await _alone(inline, params, durability, commits="inline")
    return {**await _alone(folder, params, durability), **{f"inline_{name}": value for name, value in theirs.items()}}


async def _alone(folder: Path, params: dict[str, Any], durability: str, **options: Any) -> dict[str, Any]:
    steps = params["steps"]
    async with opened(folder, durability, **options) as engine:
        await engine.run(timed(1))  # as in W1
        ended_at.clear()
        await engine.run(timed(steps + 1))
        per_step = (ended_at[-1] - ended_at[0]) / steps
        waits: list[float] = []
        for _ in range(params["latency_runs"]):
            began = clock()
            await engine.run(sequence(1))
            waits.append(clock() - began)
    return {"ms_per_step": per_step * 1e3, "steps_per_s": 1 / per_step, **latencies(waits, "start_to_result")}


async def w3(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    A parent that awaits its jobs with `gather`: from `start` to its result.
    """
    jobs = params["jobs"]
    async with opened(folder, durability) as engine:
        await engine.run(fan_out(1))
        began = clock()
        done = await engine.run(fan_out(jobs))
        seconds = clock() - began
        assert done == jobs
    (events,) = ask(folder / "app.db", "SELECT count(*) FROM durable_events WHERE run > 2")[0]
    return {"seconds": seconds, "jobs_per_s": jobs / seconds, "event_rows_per_s": events / seconds}


# --- fan-out and fan-in, and queues -------------------------------------------------------------------


async def fan(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    What a job costs among many, against among few: all at once, and some at a time.

    The few are measured before and after the many, as often as is fair to both.
    """
    few, many, window = params["few"], params["many"], params["window"]
    found: dict[str, float] = {}
    async with opened(folder, durability) as engine:
        for name, op in (("gather", fan_out), ("window", lambda jobs: windowed(jobs, window))):
            await engine.run(op(1))
            small = [await _per_job(engine, op, few) for _ in range(3)]
            large = await _per_job(engine, op, many)
            small += [await _per_job(engine, op, few) for _ in range(3)]
            found |= {
                f"{name}_few_us": percentile(small, 0.5) * 1e6,
                f"{name}_many_us": large * 1e6,
                f"{name}_growth": large / percentile(small, 0.5),
            }
    return found


async def _per_job(engine: Engine, op: Callable[[int], Any], jobs: int) -> float:
    began = clock()
    done = await engine.run(op(jobs))
    seconds = clock() - began
    assert done == jobs
    return seconds / jobs


async def queued(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    Jobs that wait in a queue of two slots: what they cost in memory, above an engine without any.
    """
    jobs = params["jobs"]
    async with opened(folder, durability, queues=[Queue("narrow", concurrency=2)], grace=0.0) as engine:
        await engine.run(sequence(1))
        before = await _settled()
        for first in range(0, jobs, CHUNK):
            await engine.start_many([held_up(number) for number in range(first, min(jobs, first + CHUNK))])
        after = await _settled()
        depth = (await engine.queue("narrow").info()).depth
    return {"depth": depth, **{f"{name}_mb": (after[name] - before[name]) / 1e6 for name in after}}


# --- W4: waiting runs --------------------------------------------------------------------------------


async def w4(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    Runs that sleep for an hour: how fast they start, what each keeps in memory and on disk.

    Memory is the growth of this process between *warm_up* waiting runs and *runs* more, both
    times idle and collected; "trimmed" after the C allocator gave back its free pages.
    """
    runs, warm_up = params["runs"], params["warm_up"]
    empty = await _empty_bytes(folder, durability)
    async with opened(folder, durability) as engine:
        await _park(engine, warm_up)
        await _until_waiting(engine, warm_up)
        before = await _settled()
        began = clock()
        await _park(engine, runs)
        started = clock() - began
        await _until_waiting(engine, warm_up + runs)
        waiting = clock() - began
        after = await _settled()
        idle = await _idle_cpu(params["idle_s"])
    found = {
        "runs": runs,
        "starts_per_s": runs / started,
        "waiting_per_s": runs / waiting,
        "idle_cpu_cores": idle,
        "disk_bytes_per_run": (disk_bytes(folder / "app.db") - empty) / (warm_up + runs),
    }
    return found | {f"{name}_bytes_per_run": (after[name] - before[name]) / runs for name in after}


async def _park(engine: Engine, runs: int) -> None:
    for first in range(0, runs, CHUNK):
        await engine.start_many([parked(HOUR) for _ in range(min(CHUNK, runs - first))])


async def _until_waiting(engine: Engine, runs: int) -> None:
    began = clock()
    while await _count(engine, "waiting") < runs:
        await asyncio.sleep(max(0.05, 2 * (clock() - began)))  # the question itself reads every run
        began = clock()


async def _count(engine: Engine, status: str) -> int:
    return (await engine.stats()).runs.get(status, 0)


async def _settled() -> dict[str, int]:
    """
    Resident memory once nothing is going on: collected, then trimmed too; and the peak so far.
    """
    await asyncio.sleep(0.5)
    collect()
    plain = memory()
    if not plain:
        return {}
    trim()
    trimmed = memory()
    return {"rss": plain["rss"], "rss_trimmed": trimmed["rss"], "anonymous_trimmed": trimmed["anonymous"],
            "peak": trimmed["peak"]}  # fmt: skip


async def _idle_cpu(seconds: float) -> float:
    used, began = time.process_time(), clock()
    await asyncio.sleep(seconds)
    return (time.process_time() - used) / (clock() - began)


# --- W5: after kill -9 ---------------------------------------------------------------------------------


async def w5_before(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    Waiting runs, and active ones with a step under way; then wait to be killed.
    """
    global holding  # noqa: PLW0603 - the step must not end in this process, and must in the next
    holding = True
    waiting, active = params["waiting"], params["active"]
    began = clock()
    async with opened(folder, durability, concurrency=active + 1) as engine:
        await _park(engine, waiting)
        await _until_waiting(engine, waiting)
        await engine.start_many([held().options(key=f"held-{number}") for number in range(active)])
        while await _count(engine, "running") < active:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # and their steps have begun
        (folder / "ready.json").write_text(json.dumps({"set_up_s": clock() - began}), encoding="utf-8")
        await asyncio.sleep(HOUR)
    return {}


async def w5_after(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    Open what the kill left: until a new `start` is acknowledged, and until the active ones have ended.
    """
    loaded = _count_loads()
    engine = Engine(folder / "app.db", DEFINITIONS, durability=durability, concurrency=params["active"] + 1)
    began = clock()
    await engine.open()
    opened_s = clock() - began
    await engine.start(sequence(1))
    accepted_s = clock() - began
    loaded_then = len(loaded)
    runs = [await engine.find(f"held-{number}") for number in range(params["active"])]
    await asyncio.gather(*(run.result() for run in runs))
    finished_s = clock() - began
    left = await _count(engine, "waiting")
    await engine.aclose()
    attempts = ask(
        folder / "app.db",
        "SELECT count(*) FROM durable_events AS e JOIN durable_runs AS r ON r.run = e.run "
        "WHERE r.workflow = 'held' AND e.kind = 10",
    )
    return {
        "opened_s": opened_s,
        "accepted_s": accepted_s,
        "finished_s": finished_s,
        "loaded_when_accepting": loaded_then,
        "loaded_in_all": len(loaded),
        "still_waiting": left,
        "attempts_of_held": attempts[0][0],
    }


def _count_loads() -> list[str]:
    """
    A list that grows by one for each run whose execution is made from now on.
    """
    from durable._core.run.execution import Execution

    loaded: list[str] = []
    make = Execution.__init__

    def counted(execution: Execution, *args: Any, **kwargs: Any) -> None:
        make(execution, *args, **kwargs)
        loaded.append(execution.run_id)

    Execution.__init__ = counted  # type: ignore[method-assign]
    return loaded


# --- W6: a long history -----------------------------------------------------------------------------------


async def w6(folder: Path, params: dict[str, Any], durability: str) -> dict[str, Any]:
    """
    One run of many steps: does the last cost more than the first, and what does each weigh.
    """
    steps, edge = params["steps"], params["edge"]
    empty = await _empty_bytes(folder, durability)
    async with opened(folder, durability) as engine:
        await engine.run(timed(1))
        ended_at.clear()
        await engine.run(timed(steps))
    first = (ended_at[edge - 1] - ended_at[0]) / (edge - 1)
    last = (ended_at[-1] - ended_at[-edge]) / (edge - 1)
    return {
        "first_ms_per_step": first * 1e3,
        "last_ms_per_step": last * 1e3,
        "growth": last / first,
        "bytes_per_step": (disk_bytes(folder / "app.db") - empty) / steps,
    }


WORKLOADS: dict[str, Callable[[Path, dict[str, Any], str], Awaitable[dict[str, Any]]]] = {
    "W1": w1,
    "lag": lag,
    "W2": w2,
    "W3": w3,
    "fan": fan,
    "queued": queued,
    "W4": w4,
    "W5-before": w5_before,
    "W5-after": w5_after,
    "W6": w6,
}

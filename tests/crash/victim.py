"""
A program to be killed: mixed work on one journal, its effects in a ledger outside of it.

    victim.py DATABASE LEDGER RUNS [POINT COUNT]

Run it again until it exits with 0. The ledger is append-only, one JSON list a line, synced before
the effect counts as done, and knows nothing of the engine:

    ["boot", pid]                     this life began
    ["ack", run, kind]                a start was acknowledged; that run is never started again
    ["cancel", run]                   a cancel was acknowledged
    ["effect", run, place, attempt, token]   the body of a step or job ran
    ["seen", run, place, token]       somebody outside of the workflow got that body's outcome
    ["end", run, status, result]      the end of a run, as its caller sees it
    ["enter", run], ["leave", run]    something of that run is inside its limits, or no more

With POINT the program kills itself with SIGKILL the COUNTth time it gets there (`killing.py`).
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import sys
from pathlib import Path

import structlog

from durable import (
    AsyncTransaction,
    Engine,
    Finished,
    Flow,
    Limit,
    Queue,
    Retry,
    Return,
    RunCancelledError,
    Transaction,
    context,
    for_each,
    gather,
    job,
    race,
    sleep,
    step,
    transaction,
    wait_for,
    workflow,
)

#: Members of each group, signals of each run.
MEMBERS = 4
SIGNALS = 3
KINDS = ("line", "family", "loop", "doomed", "chain")

NARROW = Limit("narrow", concurrency=2)
ALONE = Limit("alone", concurrency=1)


class Ledger:
    """The effects outside: what was done is on disk before anybody hears of it."""

    def __init__(self, path):
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.lines = [json.loads(line) for line in Path(path).read_text().splitlines()]

    def write(self, *line):
        os.write(self._fd, (json.dumps(line) + "\n").encode())
        os.fdatasync(self._fd)

    def has(self, *start):
        return any(line[: len(start)] == list(start) for line in self.lines)


ledger: Ledger


def act(seen):
    """One effect: a fresh token every time, so that a stale or repeated outcome shows."""
    mine = context()
    for place, token in seen:
        ledger.write("seen", mine.run_id, place, token)
    token = secrets.token_hex(4)
    ledger.write("effect", mine.run_id, mine.position, mine.attempt, token)
    return [mine.position, token]


@step
async def effect(seen: list[list[str]]) -> list[str]:
    await asyncio.sleep(0)
    return act(seen)


@step
def threaded(seen: list[list[str]]) -> list[str]:
    return act(seen)


@step(retry=Retry(attempts=10, on=ConnectionError, delay=0.01))
async def shaky(seen: list[list[str]]) -> list[str]:
    done = act(seen)
    if context().attempt < 3:
        raise ConnectionError("not yet")
    return done


@transaction
def keep(tx: Transaction, run: str, mark: str) -> str:
    tx.execute("INSERT INTO app (run, mark) VALUES (?, ?)", (run, mark))
    return mark


@transaction
async def keep_slowly(tx: AsyncTransaction, run: str, mark: str) -> str:
    await tx.execute("INSERT INTO app (run, mark) VALUES (?, ?)", (run, mark))
    await asyncio.sleep(0)
    return mark


@step
async def item(number: int) -> list[str]:
    return act([])


@job(queue="children")
async def child(name: str) -> int:
    ledger.write("effect", context().run_id, "job", context().attempt, name)
    return int(name.rpartition("/")[2])


@contextlib.contextmanager
def inside(run):
    ledger.write("enter", run)
    try:
        yield
    finally:
        ledger.write("leave", run)


@job(limit=NARROW)
async def limited_child(name: str) -> int:
    run, _, number = name.rpartition("/")
    with inside(run):
        ledger.write("effect", context().run_id, "job", context().attempt, name)
        await asyncio.sleep(0)
    return int(number)


@step(limit=NARROW)
async def limited(run: str) -> list[str]:
    with inside(run):
        await asyncio.sleep(0)
        return act([])


@job
async def follow(name: str) -> str:
    ledger.write("effect", context().run_id, "follow", context().attempt, name)
    return name


@workflow
async def line(run: str) -> Flow[dict[str, object]]:
    """Steps, a transaction, a timer, signals, retries: one after the other."""
    done: list[list[str]] = []
    first: list[str] = yield effect(done)
    done.append(first)
    second: list[str] = yield threaded(done)
    done.append(second)
    third: list[str] = yield effect(done)
    done.append(third)
    yield keep(run, "middle")
    got: list[int] = []
    for _ in range(SIGNALS):
        payload: int = yield wait_for("go", int)
        got.append(payload)
    yield sleep(0.01)
    fourth: list[str] = yield shaky(done)
    done.append(fourth)
    yield keep_slowly(run, "end")
    last: list[str] = yield effect(done)
    yield Return({"tokens": [*done, last], "signals": got})


@workflow
async def family(run: str) -> Flow[dict[str, object]]:
    """Children by gather, then a row that tells how often the parent went on."""
    names = [f"{run}/{number}" for number in range(2 * MEMBERS)]
    numbers: list[int] = yield gather(*(child(name) for name in names[:MEMBERS]))
    yield keep(run, "resumed")
    more: list[int] = yield for_each(child, names[MEMBERS:], concurrency=2)
    done: list[str] = yield effect([])
    yield keep(run, "end")
    yield Return({"numbers": [*numbers, *more], "tokens": [done]})


@workflow
async def loop(run: str) -> Flow[dict[str, object]]:
    """A step for each of some items, a race against a timer, a group of steps."""
    tokens: list[list[str]] = yield for_each(item, range(MEMBERS), concurrency=2)
    won = yield race(sleep(0.005), wait_for("never"))
    both: list[list[str]] = yield gather(effect(tokens), threaded([]))
    yield keep(run, f"won {won.index}")
    last: list[str] = yield effect(both)
    yield Return({"tokens": [*tokens, *both, last]})


@workflow
async def doomed(run: str) -> Flow[None]:
    """Waits until it is cancelled, and cleans up after itself."""
    yield effect([])
    try:
        yield gather(child(f"{run}/0"), wait_for("never"))
    finally:
        yield keep(run, "cleaned up")


@workflow(limit=ALONE, limit_key=lambda _run: "shared")
async def chain(run: str) -> Flow[dict[str, object]]:
    """Alone among its like: a window over limited jobs, a limited step; then a follow-up and a hook."""
    names = [f"{run}/{number}" for number in range(MEMBERS + 2)]
    numbers: list[int] = yield for_each(limited_child, names, concurrency=3)
    done: list[str] = yield limited(run)
    yield keep(run, "end")
    yield Return({"numbers": numbers, "tokens": [done]})


@chain.on_finish
def hook(finished: Finished[dict[str, object]]) -> list[object]:
    return [follow(f"hook of {finished.run_id}")]


WORKFLOWS = {"line": line, "family": family, "loop": loop, "doomed": doomed, "chain": chain}


async def client(engine, run_id, kind):
    """Whoever uses the engine: asks for each thing until it was acknowledged, and never again."""
    if not ledger.has("ack", run_id):
        op = WORKFLOWS[kind](run_id)
        if kind == "chain":
            op = op.then(follow(f"then of {run_id}"))
        await engine.start(op, id=run_id)
        ledger.write("ack", run_id, kind)
    run = engine.get(run_id)
    if ledger.has("end", run_id):
        return
    if kind == "line":
        for number in range(SIGNALS):
            if not ledger.has("signal", run_id, number):
                await run.signal("go", number, dedup=str(number))
                ledger.write("signal", run_id, number)
    if kind == "doomed":
        await asyncio.sleep(0.03)
        if not ledger.has("cancel", run_id):
            await run.cancel("no longer wanted")
            ledger.write("cancel", run_id)
    try:
        result = await run.result()
    except RunCancelledError:
        ledger.write("end", run_id, "cancelled", None)
    else:
        async for info in engine.runs(workflow="follow"):
            if info.follows == run_id:  # all that the end has started is there with it
                ledger.write("seen", info.run_id, "follow", await engine.get(info.run_id).result())
        ledger.write("end", run_id, "succeeded", result)


async def main(database, runs):
    engine = Engine(
        database, [line, family, loop, doomed, chain, child, limited_child, follow],
        queues=[Queue("children", concurrency=3)], crash_limit=1000, grace=1.0,
        commits="inline" if ledger.has("boot") else "thread",  # all lives but the first wait for short commits
    )  # fmt: skip
    ledger.write("boot", os.getpid())  # before the file is opened: what is to be continued begins while it is
    async with engine:
        clients = (client(engine, f"run-{number}", KINDS[number % len(KINDS)]) for number in range(runs))
        await asyncio.gather(*clients)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    ledger = Ledger(sys.argv[2])
    sys.path.insert(0, str(Path(__file__).parent))
    if len(sys.argv) > 4:
        import killing

        killing.at(sys.argv[4], int(sys.argv[5]))
    if bug := os.environ.get("PLANTED_BUG"):
        import planted

        planted.plant(bug)
    asyncio.run(main(sys.argv[1], int(sys.argv[3])))

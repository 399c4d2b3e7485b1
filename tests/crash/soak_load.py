"""
A mixed load on one journal, for as many lives as it takes; its effects go to a ledger outside of the engine.

`soak.py`, `power_loss.py` and `disk_calls.py` kill it, cut its power, fail its disk; `soak_judge.py` reads the ledger.

The ledger is append-only, one JSON list a line, each written with one `write`:

    ["boot", life]                    a process owns the file from here on
    ["ack", run, kind]                a start was acknowledged; that run is never started again
    ["signal", run, number]           a signal was acknowledged
    ["cancel", run]                   a cancel was acknowledged
    ["effect", life, run, place, attempt, token, seen, name, at]
                                      the body of a step or job ran; of which outcomes ([run, place, token]) it knew
    ["end", run, status, result]      the end of a run, as its caller was told

It is not synced: what `write` took survives the death of the process, and a power cut is one of the file's,
not of the world outside. The last life writes how each run stands to a file `final`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import secrets
import sqlite3
import time
from pathlib import Path

import anyio

from durable import (
    AsyncTransaction,
    Engine,
    Flow,
    Queue,
    Retry,
    Return,
    RunCancelledError,
    Transaction,
    context,
    current,
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
from durable.errors import JournalError

Outcome = list[str]

OPEN = ("pending", "running", "waiting", "paused", "blocked")
#: Seconds that the last life may take for what the others left open: what is open then is stuck.
PATIENCE = 60.0


class Ledger:
    """The world outside: it knows nothing of the engine, and forgets nothing."""

    def __init__(self, folder: Path, life: int) -> None:
        self.life = life
        self._fd = os.open(folder / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, *line: object) -> None:
        os.write(self._fd, (json.dumps(line) + "\n").encode())

    def close(self) -> None:
        os.close(self._fd)


ledger: Ledger


def act(seen: list[Outcome], name: str = "") -> Outcome:
    """One effect: a fresh token each time, so that a stale or repeated outcome shows."""
    mine = context()
    place, token = ("job" if name else mine.position), secrets.token_hex(4)
    ledger.write("effect", ledger.life, mine.run_id, place, mine.attempt, token, seen, name, time.time())
    return [mine.run_id, place, token]


@step
async def effect(seen: list[Outcome]) -> Outcome:
    return act(seen)


@step
def threaded(seen: list[Outcome]) -> Outcome:
    return act(seen)


@step(retry=Retry(attempts=1000, on=ConnectionError, delay=0.01))
async def shaky(seen: list[Outcome]) -> Outcome:
    done = act(seen)
    if context().attempt < 2:
        raise ConnectionError("not yet")
    return done


@step
async def item(number: int) -> Outcome:
    await asyncio.sleep(0)
    return act([])


@job(queue="children")
async def child(name: str) -> Outcome:
    return act([], name)


@transaction
def keep(tx: Transaction, run: str, mark: str, token: str) -> None:
    tx.execute("INSERT INTO app (run, mark, token) VALUES (?, ?, ?)", (run, mark, token))


@transaction
async def keep_slowly(tx: AsyncTransaction, run: str, mark: str, token: str) -> None:
    await tx.execute("INSERT INTO app (run, mark, token) VALUES (?, ?, ?)", (run, mark, token))
    await asyncio.sleep(0)


def ended(*tokens: Outcome, signals: list[int] | None = None) -> dict[str, object]:
    return {"tokens": list(tokens), "signals": signals or []}


@workflow
async def chain(run: str) -> Flow[dict[str, object]]:
    """Steps and transactions, each of which is told the outcome before."""
    done: list[Outcome] = []
    for number in range(24):
        last: Outcome = yield effect(done[-1:])
        done.append(last)
        if number % 4 == 3:
            yield keep(run, str(number), last[2])
    yield Return(ended(*done))


@workflow
async def rows(_key: str) -> Flow[dict[str, object]]:
    """Transactions after each other, and at once."""
    run = current().run_id
    first: Outcome = yield effect([])
    for number in range(6):
        yield keep(run, str(number), first[2])
    yield gather(*(keep(run, str(number), first[2]) for number in range(6, 9)), keep_slowly(run, "9", first[2]))
    yield Return(ended(first))


@workflow
async def family(run: str) -> Flow[dict[str, object]]:
    """Jobs by gather, and by a window."""
    names = [f"{run}/{number}" for number in range(8)]
    done: list[Outcome] = yield gather(*(child(name) for name in names[:4]))
    yield keep(run, "resumed", done[-1][2])
    more: list[Outcome] = yield for_each(child, names[4:], concurrency=2)
    last: Outcome = yield effect([*done, *more])
    yield Return(ended(*done, *more, last))


@workflow
async def group(run: str) -> Flow[dict[str, object]]:
    """Steps at once, in threads and out of them, for each of some items; a race."""
    both: list[Outcome] = yield gather(effect([]), threaded([]), effect([]), effect([]))
    items: list[Outcome] = yield for_each(item, range(12), concurrency=4)
    won = yield race(sleep(0.005), wait_for("never"))
    yield keep(run, f"won {won.index}", both[0][2])
    last: Outcome = yield effect([*both, *items])
    yield Return(ended(*both, *items, last))


@workflow
async def signalled(run: str) -> Flow[dict[str, object]]:
    """Waits for signals, with a step after each."""
    got: list[int] = []
    done: list[Outcome] = []
    for _ in range(3):
        payload: int = yield wait_for("go", int)
        got.append(payload)
        last: Outcome = yield effect(done[-1:])
        done.append(last)
    yield Return(ended(*done, signals=got))


@workflow
async def timed(run: str) -> Flow[dict[str, object]]:
    """A step, a timer, a step that fails at first."""
    first: Outcome = yield effect([])
    yield sleep(0.03)
    second: Outcome = yield shaky([first])
    yield keep_slowly(run, "end", second[2])
    yield Return(ended(first, second))


@workflow
async def doomed(run: str) -> Flow[None]:
    """Waits until it is cancelled, and cleans up after itself."""
    first: Outcome = yield effect([])
    try:
        yield gather(child(f"{run}/0"), wait_for("never"))
    finally:
        yield keep(run, "cleaned up", first[2])


KINDS = {fn.name: fn for fn in (chain, rows, family, group, signalled, timed, doomed)}
MEMBERS = 4


async def acknowledged(ask):
    """What *ask* is told; asked again as long as the disk fails, as a caller would."""
    while True:
        try:
            return await ask()
        except JournalError:
            await asyncio.sleep(0.02)


async def begin(engine: Engine, kind: str, run: str) -> None:
    """Ask for a run, or a batch, until it is acknowledged."""
    if kind == "batch":

        async def ask() -> None:
            async with engine.batch(id=run, on_complete=child(f"{run}/callback")) as batch:
                batch.add_many([child(f"{run}/{number}") for number in range(MEMBERS)])

        await acknowledged(ask)
    elif kind == "rows":  # two callers at once, one key
        key, callers = run, [acknowledged(lambda: engine.start(rows(key), key=key)) for _ in range(2)]
        for handle in await asyncio.gather(*callers):
            ledger.write("ack", handle.run_id, f"key {key}")
            run = handle.run_id
    else:
        await acknowledged(lambda: engine.start(KINDS[kind](run), id=run))
    ledger.write("ack", run, kind)
    await look_after(engine, kind, run)


async def look_after(engine: Engine, kind: str, run: str) -> None:
    """Whatever its caller has to do until a run has ended."""
    if kind == "batch":
        info = await acknowledged(engine.get_batch(run).wait)
        ledger.write("end", run, info.outcome, None)
        return
    handle = engine.get(run)
    try:
        if kind == "signalled":
            for number in range(3):
                await acknowledged(lambda number=number: handle.signal("go", number, dedup=str(number)))
                ledger.write("signal", run, number)
        if kind == "doomed":
            await asyncio.sleep(0.02)
            await acknowledged(lambda: handle.cancel("no longer wanted"))
            ledger.write("cancel", run)
        result = await acknowledged(lambda: handle.result(wait=True))  # one that is blocked is stuck: the judge says so
    except RunCancelledError:
        ledger.write("end", run, "cancelled", None)
    else:
        ledger.write("end", run, "succeeded", result)


async def worker(engine: Engine, names: itertools.count[int], runs: int | None, dice: random.Random) -> None:
    """One caller: a run after the other."""
    kinds = [*KINDS, "batch"]
    while (number := next(names)) < (10**9 if runs is None else runs):
        kind = dice.choice(kinds) if runs is None else kinds[number % len(kinds)]
        await begin(engine, kind, f"{kind}-{ledger.life}-{number}")


def make_engine(folder: Path, **options) -> Engine:
    # A step that kills the process is not what is tried here: whatever runs is killed again and again.
    return Engine(
        folder / "app.db",
        [*KINDS.values(), child],
        queues=[Queue("children", concurrency=8)],
        crash_limit=10**6,
        grace=2.0,
        **options,
    )


def prepare(folder: Path) -> None:
    """The application's own table, in the file that becomes the journal."""
    with contextlib.closing(sqlite3.connect(folder / "app.db")) as app:
        app.execute("CREATE TABLE app (run TEXT NOT NULL, mark TEXT NOT NULL, token TEXT NOT NULL)")
        app.commit()


async def live(
    folder: Path,
    life: int,
    *,
    workers: int = 12,
    runs: int | None = None,
    last: bool = False,
    patience: float = PATIENCE,
    opened=lambda: None,
    **options,
) -> None:
    """
    One life of the application.

    Args:
        folder: Where `app.db` and `ledger` are.
        life: Its number, unlike that of any other.
        workers: Callers at once.
        runs: Stop after so many; without it, go on until killed. With 0, start nothing, and be there for clients.
        last: Start nothing: bring what is open to its end, and write down how each run stands.
        patience: Seconds for that.
        opened: Called when the file is ours.
        options: Of the engine.
    """
    global ledger  # noqa: PLW0603 - steps are plain functions of this module
    ledger = Ledger(folder, life)
    dice = random.Random(life)
    try:
        async with make_engine(folder, **options) as engine:
            ledger.write("boot", life)
            opened()
            open_runs = [info async for info in engine.runs(status=OPEN) if info.workflow in KINDS]
            batches = [info async for info in engine.batches(limit=None if last else 50) if info.finished_at is None]
            async with asyncio.TaskGroup() as callers:
                cared = [
                    *(callers.create_task(look_after(engine, info.workflow, info.run_id)) for info in open_runs),
                    *(callers.create_task(look_after(engine, "batch", info.batch_id)) for info in batches),
                ]
                if last:
                    if cared:
                        await asyncio.wait(cared, timeout=patience)
                    for task in cared:
                        task.cancel()
                    await finish(engine, folder, patience)
                else:
                    names = itertools.count()
                    for _ in range(workers if runs != 0 else 0):
                        callers.create_task(worker(engine, names, runs, dice))
                    if runs == 0:
                        await anyio.sleep_forever()
    finally:
        ledger.close()


async def finish(engine: Engine, folder: Path, patience: float) -> None:
    """How each run stands, once none is open (or too long is)."""
    with anyio.move_on_after(patience):
        while [info async for info in engine.runs(status=OPEN, limit=1)]:
            await asyncio.sleep(0.02)
    with (folder / "final").open("w") as file:
        async for info in engine.runs():
            result = None
            if info.status == "succeeded" and info.workflow in KINDS:
                result = await engine.get(info.run_id).result()
            elif info.status != "succeeded":
                result = str(info.reason or await engine.get(info.run_id).why())
            file.write(json.dumps([info.run_id, info.workflow, info.status, result]) + "\n")
        async for batch in engine.batches():
            file.write(json.dumps([batch.batch_id, "batch", batch.outcome or batch.status, None]) + "\n")

"""
A fuzz of damage: one cell of a journal, or one line of an export, holds what nobody wrote there.

    python tests/crash/fuzz.py --cells 10000 --exports 5000

The journal has open runs of every kind: ready, begun and not, waiting for a timer, a signal, children, a retry, a slot,
in a batch, with a `for_each` half done, a schedule, large payloads, notes, unread signals. Any cell of any row that is
not the innocent runs' own gets a hostile value. What must hold: the engine opens, or refuses the file by an error of
ours; then new runs start and end, the innocent runs end with what they should, the damaged row's run may be asked, runs
are listed, and the engine closes. So with exports: refused by an error of ours, or imported, and nobody is harmed.

`test_fuzz.py` looks at some of each.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import multiprocessing
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from durable import (
    Client,
    Engine,
    Finished,
    Flow,
    Limit,
    Queue,
    Rate,
    Retry,
    Return,
    Schedule,
    cursor,
    emit,
    for_each,
    gather,
    job,
    set_attributes,
    sleep,
    step,
    wait_for,
    workflow,
)
from durable.errors import DurableError, ExportFormatError, JournalError

#: Seconds for what takes some milliseconds, on a machine that does other things: what hangs, hangs for ever.
PATIENCE = 60.0
#: Journals that are looked at side by side.
AT_ONCE = 4
#: What need not be told one by one; and how many of all else are.
GOOD = ("fine", "imported", "refused: ExportFormatError")
SHOWN = 8

NARROW = Limit("narrow", concurrency=1)


@step
async def ok(number: int) -> int:
    return number


@step(limit=NARROW)
async def limited(number: int) -> int:
    await asyncio.sleep(0.001)
    return number


@step(retry=Retry(attempts=50, delay=0.2, factor=1))
async def flaky(number: int) -> int:
    await cursor(0).advance(number)
    raise ConnectionError(number)


@step
async def large(number: int) -> str:
    return "x" * 10_000 + str(number)


@job
async def child(number: int) -> int:
    return number


@job
async def note(text: str) -> str:
    return text


@job
async def emitting(number: int) -> int:
    emit("numbers", number)
    emit("numbers", number + 1)
    return number


@emitting.on_success
def broken(_finished: Finished[int]) -> None:
    raise ConnectionError


@workflow
async def timed(number: int) -> Flow[int]:
    first: int = yield ok(number)
    set_attributes(number=number)
    yield large(number)
    yield sleep(0.3)
    second: int = yield ok(number + 1)
    yield Return(first + second)


@workflow
async def signalled(number: int) -> Flow[str]:
    yield ok(number)
    text: str = yield wait_for("go", str)
    yield Return(f"{text} {number}")


@workflow
async def family(number: int) -> Flow[list[int]]:
    got: list[int] = yield gather(child(number).options(delay=0.3), child(2).options(delay=0.3), ok(4))
    yield Return(got)


@workflow
async def feeding(number: int) -> Flow[list[int]]:
    got: list[int] = yield for_each(child, list(range(number)), concurrency=1)
    yield Return(got)


@workflow
async def lining_up(number: int) -> Flow[list[int]]:
    got: list[int] = yield gather(limited(number), limited(2))
    yield Return(got)


@workflow
async def retrying(number: int) -> Flow[int]:
    got: int = yield flaky(number)
    yield Return(got)


@workflow
async def simple(number: int) -> Flow[int]:
    first: int = yield ok(number)
    yield gather(child(number), limited(number))
    yield Return(first)


DEFINITIONS = (timed, signalled, family, feeding, lining_up, retrying, simple, child, note, emitting)
#: Runs of which no cell is touched, and what they end with.
INNOCENT = {"innocent-timed": 15, "innocent-signalled": "on 8"}
#: What the others end with, if they succeed at all.
OTHERS = {
    "timed": 3, "signalled": "on 1", "family": [1, 2, 4], "lining-up": [1, 2], "delayed": 5, "followed": 6,
    "feeding": [*range(6)], "ended": 3,
}  # fmt: skip


def engine_on(path: str | Path) -> Engine:
    """
    An engine as it opens a damaged file.
    """
    return Engine(
        path,
        DEFINITIONS,
        durability="process",
        grace=0.05,
        queues=[Queue("rated", 2, rate=Rate(100, per=1))],
        schedules=[Schedule("ticks", note("tick"), every=1)],
    )


async def build(path: Path) -> None:
    """
    Make the journal, with open runs of every kind; closed, and some made ready while nobody has it.
    """
    async with engine_on(path) as engine:
        await engine.run(child(4), id="pruned", key="kept")
        await engine.prune(older_than=-60)
        await engine.run(emitting(1), id="emitting")
        await engine.start(timed(7), id="innocent-timed")
        await engine.start(signalled(8), id="innocent-signalled")
        await engine.start(timed(1), id="timed")
        await engine.start(signalled(1), id="signalled", labels={"a": "b"})
        await engine.start(family(1), id="family")
        await engine.start(retrying(1), id="retrying", key="k", key_ttl=3600)
        await engine.start(lining_up(1), id="lining-up")
        await engine.start(child(5).options(delay=60), id="delayed", queue="rated")
        await engine.start(child(6).options(delay=60).then(note("after")), id="followed", expires=600)
        await engine.start(feeding(6), id="feeding")
        async with engine.batch(id="batch", labels={"a": "b"}, on_complete=note("done"), on_success=note("s")) as batch:
            batch.add(child(1).options(delay=0.3))
            batch.add(signalled(2))
        await engine.run(simple(3), id="ended")
        await engine.get("signalled").signal("other", "early", dedup="once")
        with contextlib.suppress(TimeoutError):
            await engine.get("signalled").ask("how", 1, timeout=0.01, dedup="asked")
        async with Client(path) as client:
            await client.get("signalled").signal("other", "later")
        paused = await engine.start(signalled(3), id="paused")
        await paused.pause()
        await engine.queue("rated").change(concurrency=1)
        await engine.limit("narrow").change(concurrency=2)
    with contextlib.closing(sqlite3.connect(path)) as conn, conn:
        ready = "('delayed', 'followed')"
        conn.execute(f"UPDATE durable_runs SET ready_at = created_at, status = 'pending' WHERE run_id IN {ready}")
        runs = f"(SELECT run FROM durable_runs WHERE run_id IN {ready})"
        conn.execute(f"DELETE FROM durable_waits WHERE kind = 'start' AND run IN {runs}")


# --- cells -------------------------------------------------------------------------------------------

HOSTILE: Sequence[Any] = (
    None, 0, -1, 5, 2**63 - 1, -(2**63), 1.5, 1e300, float("inf"), -float("inf"), "", "x", "[]", "{}", "[1", "null",
    '{"a": 1}', "9" * 5000, "[" * 3000, "\x1b[31m", "-1", "[null, null, null]", "\u202e", b"\xff", b"",
)  # fmt: skip


class Cell(NamedTuple):
    """
    A cell, and what is put into it.
    """

    table: str
    where: str
    column: str
    value: Any

    def __str__(self) -> str:
        return f"{self.table.removeprefix('durable_')}.{self.column} = {self.value!r:.40} WHERE {self.where}"


def cells(path: Path, seed: int) -> Iterator[Cell]:
    """
    Every cell with every value, in an order of chance.
    """
    chance = random.Random(seed)
    found: list[Cell] = []
    with contextlib.closing(sqlite3.connect(path)) as conn:
        innocent = {str(run) for (run,) in conn.execute("SELECT run FROM durable_runs WHERE run_id LIKE 'innocent%'")}
        owns = f"SELECT payload FROM durable_events WHERE run IN ({', '.join(innocent)}) AND payload IS NOT NULL"
        payloads = {str(payload) for (payload,) in conn.execute(owns)}
        tables = conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'durable%'").fetchall()
        for (table,) in tables:
            columns = [row[1] for row in conn.execute(f"PRAGMA table_info({table})")]
            keys = [row[1] for row in conn.execute(f"PRAGMA table_info({table})") if row[5]] or columns
            for row in conn.execute(f"SELECT {', '.join(map('quote({})'.format, columns))} FROM {table}").fetchall():
                quoted = dict(zip(columns, row, strict=True))
                if quoted.get("run") in innocent or (table == "durable_payloads" and quoted["payload"] in payloads):
                    continue
                where = " AND ".join(f"{key} IS {quoted[key]}" for key in keys)
                for column in columns:
                    values = [*HOSTILE, *_like(quoted[column], chance)]
                    found += [Cell(table, where, column, value) for value in values]
    chance.shuffle(found)
    return iter(found)


def _like(quoted: str, chance: random.Random) -> list[Any]:
    """
    Values like the one that is there.
    """
    if quoted.startswith("'"):
        text = quoted[1:-1].replace("''", "'")
        at = chance.randrange(len(text) + 1)
        other = chr(chance.randrange(32, 127))
        return [text[:at], text[at:], f"{text[:at]}\x00{text[at:]}", f"{text[:at]}{other}{text[at + 1 :]}"]
    with contextlib.suppress(ValueError):
        number = float(quoted)
        return [int(number) + 1, int(number) ^ (1 << chance.randrange(20)), number / 2, -number]
    return []


def damage(path: Path, cell: Cell) -> bool:
    """
    Put the value there; False where SQLite takes none such.
    """
    with contextlib.closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("PRAGMA synchronous = OFF")
        value = "CAST(? AS TEXT)" if isinstance(cell.value, bytes) and cell.value else "?"
        try:
            changed = conn.execute(f"UPDATE {cell.table} SET {cell.column} = {value} WHERE {cell.where}", (cell.value,))
        except (sqlite3.Error, OverflowError):
            return False
        return changed.rowcount == 1


async def verdict_on_file(path: Path) -> str:
    """
    "fine", "refused: WHY", or what is wrong with an engine that opens the file.
    """
    engine = engine_on(path)
    try:
        await asyncio.wait_for(engine.open(), PATIENCE)
    except JournalError as error:
        return f"refused: {type(error).__name__}"
    except TimeoutError:
        return "WRONG: opening hangs"
    except BaseException as error:
        return f"WRONG: opening raised {type(error).__name__}: {error!s:.100}"
    found = "fine"
    try:
        async with asyncio.timeout(PATIENCE):
            found = await _goes_on(engine)
    except TimeoutError:
        found = "WRONG: it hangs"
    except DurableError as error:
        found = f"WRONG: {type(error).__name__}: {error!s:.150}"
    except BaseException as error:
        found = f"WRONG: a raw {type(error).__name__}: {error!s:.150}"
    if engine.failure is not None:
        found = f"WRONG: the engine is dead: {engine.failure.__cause__ or engine.failure!r:.200}"
    try:
        await asyncio.wait_for(engine.aclose(), PATIENCE)
    except BaseException as error:
        found += f"WRONG: closing raised {type(error).__name__}"
    return found


async def _goes_on(engine: Engine) -> str:
    if (got := await engine.run(simple(9))) != 9:
        return f"WRONG: a new run returned {got!r}"
    for name in ("signalled", "retrying", "family"):
        with contextlib.suppress(DurableError):
            await engine.get(name).signal("go", "on")
        with contextlib.suppress(DurableError):
            await engine.get(name).why()
    with contextlib.suppress(DurableError):
        await engine.get_batch("batch").info()
    with contextlib.suppress(DurableError):
        numbers = [each async for each in engine.get("emitting").stream("numbers")]
        if numbers not in (
            [1, 2],
            [1],
            [2],
        ):  # one whose own number of its run or name of its stream is another is not found
            return f"WRONG: a stream has {numbers!r}"
    with contextlib.suppress(DurableError):
        if (run := await engine.start(child(4), key="kept")).id != "pruned":
            return f"WRONG: a key that was kept was given to {run.id}"
    with contextlib.suppress(DurableError):
        await engine.get("emitting").retry_hooks()
    await engine.prune(older_than=3600)
    await engine.schedules()
    await engine.queue("rated").info()
    async for info in engine.runs():
        _ = info.run_id
    await engine.get("innocent-signalled").signal("go", "on")
    for name, expected in INNOCENT.items():
        if (got := await engine.get(name).result()) != expected:
            return f"WRONG: {name} returned {got!r}"
    if (got := await engine.run(simple(10))) != 10:
        return f"WRONG: a later run returned {got!r}"
    return await _ended_right(engine)


async def _ended_right(engine: Engine) -> str:
    """
    "fine", unless a run succeeded with something else than it should: who is damaged may stop, and not go wrong.
    """
    for name, expected in OTHERS.items():
        with contextlib.suppress(DurableError):
            run = engine.get(name)
            if await run.status() == "succeeded" and (got := await run.result()) != expected:
                return f"WRONG: the damaged run {name} returned {got!r}"
    return "fine"


# --- exports -----------------------------------------------------------------------------------------


async def exported(path: Path, to: Path) -> list[bytes]:
    """
    The lines of an export of all runs.
    """
    async with Client(path) as client:
        names = [info.run_id async for info in client.runs()]
        await client.export(names, to)
    return to.read_bytes().splitlines(keepends=True)


def mutated(lines: Sequence[bytes], chance: random.Random) -> list[bytes]:
    """
    *lines* with one thing wrong.
    """
    changed, at = list(lines), chance.randrange(len(lines))
    match chance.randrange(8):
        case 0:
            place = chance.randrange(len(changed[at]))
            changed[at] = changed[at][:place] + bytes([chance.randrange(256)]) + changed[at][place + 1 :]
        case 1:
            changed[at] = changed[at][: chance.randrange(len(changed[at]))]
        case 2:
            changed.insert(chance.randrange(len(lines)), changed[at])
        case 3:
            del changed[at]
        case _:
            changed[at] = _with_another_leaf(changed[at], chance)
    return changed


def _with_another_leaf(line: bytes, chance: random.Random) -> bytes:
    plain = json.loads(line)
    places: list[tuple[Any, Any]] = []
    left: list[Any] = [plain]
    while left:
        inside = left.pop()
        for key in inside if isinstance(inside, dict) else range(len(inside)):
            places.append((inside, key))
            if isinstance(inside[key], (dict, list)):
                left.append(inside[key])
    inside, key = chance.choice(places)
    if isinstance(inside, dict) and chance.random() < 0.1:
        del inside[key]
    else:
        values = [each for each in HOSTILE if not isinstance(each, bytes)]
        inside[key] = chance.choice([*values, [], {}, True, [1, 2], {"a": {}}, chance.choice(places)[1]])
    return json.dumps(plain).encode() + b"\n"


async def verdict_on_export(path: Path) -> str:
    """
    As `verdict_on_file`, of an engine that imports it into an empty journal, and lets its runs go on.
    """
    engine = engine_on(":memory:")
    await engine.open()
    try:
        async with asyncio.timeout(PATIENCE):
            try:
                await engine.import_runs(path)
                found = "imported"
            except ExportFormatError:
                found = "refused: ExportFormatError"
            except DurableError as error:
                found = f"refused: {type(error).__name__}"
            async for info in engine.runs():
                if info.status == "paused":
                    with contextlib.suppress(DurableError):
                        await engine.get(info.run_id).resume()
            if (got := await engine.run(simple(9))) != 9:
                found = f"WRONG: a new run returned {got!r}"
    except TimeoutError:
        found = "WRONG: it hangs"
    except BaseException as error:
        found = f"WRONG: {type(error).__name__}: {error!s:.150}"
    if engine.failure is not None:
        found = f"WRONG: the engine is dead: {engine.failure.__cause__ or engine.failure!r:.200}"
    await asyncio.wait_for(engine.aclose(), PATIENCE)
    return found


# --- all of it ---------------------------------------------------------------------------------------


async def fuzz_cells(folder: Path, count: int, seed: int) -> dict[str, list[str]]:
    """
    What was found of *count* cells: the verdicts, and which cells got them.
    """
    base = folder / "base.db"
    await build(base)
    left, verdicts = cells(base, seed), dict[str, list[str]]()
    done = 0

    async def look(worker: int) -> None:
        nonlocal done
        path = folder / f"cell-{worker}.db"
        while done < count and (cell := next(left, None)) is not None:
            for old in folder.glob(f"cell-{worker}.db*"):
                old.unlink()
            shutil.copy(base, path)
            if not damage(path, cell):
                continue
            done += 1
            verdict = await verdict_on_file(path)
            if verdict.startswith("WRONG"):
                shutil.copy(path, folder / f"wrong-{done}.db")
            verdicts.setdefault(verdict, []).append(str(cell))

    await asyncio.gather(*(look(worker) for worker in range(AT_ONCE)))
    return verdicts


async def fuzz_exports(folder: Path, count: int, seed: int) -> dict[str, list[str]]:
    """
    As `fuzz_cells`, of exports.
    """
    base = folder / "exported.db"
    await build(base)
    lines = await exported(base, folder / "all.jsonl")
    chance, verdicts = random.Random(seed), dict[str, list[str]]()
    for number in range(count):
        path = folder / "mutated.jsonl"
        path.write_bytes(b"".join(mutated(lines, chance)))
        verdict = await verdict_on_export(path)
        if verdict.startswith("WRONG"):
            shutil.copy(path, folder / f"wrong-{number}.jsonl")
        verdicts.setdefault(verdict, []).append(f"export {number} of seed {seed}")
    return verdicts


Fuzz = Callable[[Path, int, int], Awaitable[dict[str, list[str]]]]


def shared_out(fuzz: Fuzz, folder: Path, count: int, seed: int, processes: int) -> dict[str, list[str]]:
    """
    The verdicts of several processes, each with its share of *count* in an order of its own.
    """
    verdicts: dict[str, list[str]] = {}
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        shares = [count // processes + (each < count % processes) for each in range(processes)]
        running = [pool.submit(_share, fuzz, folder / f"{n}", each, seed + n) for n, each in enumerate(shares) if each]
        for done in running:
            for verdict, which in done.result().items():
                verdicts.setdefault(verdict, []).extend(which)
    return verdicts


def _share(fuzz: Fuzz, folder: Path, count: int, seed: int) -> dict[str, list[str]]:
    quietly()
    folder.mkdir(parents=True)

    async def look() -> dict[str, list[str]]:
        return await fuzz(folder, count, seed)

    return asyncio.run(look())


def quietly() -> None:
    """
    Let nothing be logged: all is damaged here, and says so.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)


def main() -> int:
    """
    Fuzz as the command line says; 1 if something is wrong.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--exports", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    args = parser.parse_args()
    quietly()
    wrong = 0
    with tempfile.TemporaryDirectory() as own:
        folder = args.folder or Path(own)
        for what, fuzz, count in (("cells", fuzz_cells, args.cells), ("exports", fuzz_exports, args.exports)):
            began = time.monotonic()
            verdicts = shared_out(fuzz, folder / what, count, args.seed, args.processes)
            total = sum(map(len, verdicts.values()))
            print(f"{total:,} {what} in {time.monotonic() - began:.0f} s")
            for verdict, which in sorted(verdicts.items(), key=lambda each: -len(each[1])):
                bad = verdict.startswith("WRONG")
                wrong += bad * len(which)
                print(f"{len(which):7,} {verdict}")
                for each in which[: SHOWN if verdict not in GOOD else 0]:
                    print(f"          {each}")
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

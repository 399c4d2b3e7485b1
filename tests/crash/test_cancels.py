"""
kill -9 while things are cancelled: what was asked for is done, in its order, and nothing is undone twice.

A table: each thing that a workflow can have open, by each way in which it is told to end, killed at each of three
moments. All cells of one moment run in one engine, whose process is killed once they have got there; another one opens
the file, and the ledger that both have written is judged.
"""

import json
import os
import signal
import sqlite3
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

from tests import children

ROOT = Path(__file__).parents[2]

PROGRAM = """
    import asyncio, json, os, signal, sqlite3, sys, time
    import structlog; structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    from durable import (
        Engine, Flow, Return, RunCancelled, RunCancelledError, context, gather, job, race, settle, step, timeout,
        transaction, wait_for, workflow,
    )

    FOLDER, MOMENT, IS_FIRST = os.environ["FOLDER"], os.environ["MOMENT"], os.environ["LIFE"] == "first"
    LEDGER = FOLDER + "/ledger"

    def note(cell, what):
        line = f"{'first' if IS_FIRST else 'second'} {cell} {what}\\n".encode()
        fd = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, line)
        os.close(fd)

    def noted(what):
        if not os.path.exists(LEDGER):
            return set()
        return {line.split()[1] for line in open(LEDGER) if line.split()[2] == what}

    async def holds(cell):
        note(cell, "begins")
        try:
            await asyncio.sleep(60)
        finally:
            note(cell, "cleans")
            await asyncio.sleep(1.0 if IS_FIRST and MOMENT == "cleaning" else 0.01)
            note(cell, "ended")

    def holds_plainly(cell):
        note(cell, "begins")
        context().cancelled.wait(60)
        note(cell, "cleans")
        time.sleep(1.0 if IS_FIRST and MOMENT == "cleaning" else 0.01)
        note(cell, "ended")

    @step(process=True)
    def process(cell: str) -> None:
        parent = os.getppid()
        note(cell, "begins")
        while os.getppid() == parent:  # nobody else ends it, should that one be killed
            time.sleep(0.02)

    coroutine, thread = step(holds), step(holds_plainly)
    a_job, a_plain_job = job(name="a-job")(holds), job(name="a-plain-job")(holds_plainly)

    @a_job.on_cancel
    def hook(finished):
        return told(finished.arguments["cell"])

    @job
    async def told(cell: str) -> None:
        note(cell, "hook")

    @workflow
    async def child(cell: str) -> Flow[None]:
        yield coroutine(cell)

    @transaction
    def books(tx, cell: str) -> None:
        tx.execute("INSERT INTO bookings VALUES (?)", (cell,))

    @transaction
    async def books_slowly(tx, cell: str) -> None:
        await tx.execute("INSERT INTO bookings VALUES (?)", (cell,))
        await asyncio.sleep(0.01)

    async def booked(op, cell):
        await op(cell)
        await marks(cell)
        await wait_for("never")

    @step
    async def marks(cell: str) -> None:
        note(cell, "begins")
        note(cell, "cleans")

    OPEN = {
        "coroutine": coroutine, "thread": thread, "process": process, "job": a_job, "plain-job": a_plain_job,
        "child": child, "transaction": lambda cell: booked(books, cell),
        "async-transaction": lambda cell: booked(books_slowly, cell),
    }

    @step
    async def fails() -> None:
        while not os.path.exists(FOLDER + "/go"):
            await asyncio.sleep(0.01)
        raise ValueError

    BY = {
        "cancel": lambda op: gather(op),
        "race": lambda op: race(op, wait_for("go")),
        "fail_fast": lambda op: gather(op, fails(), fail_fast=True),
        "timeout": lambda op: timeout(op, 3.0),
    }

    @step
    async def undo(cell: str) -> None:
        note(cell, "undoes")
        await asyncio.sleep(1.0 if IS_FIRST and MOMENT == "undoing" else 0.01)
        note(cell, "undone")

    @transaction
    def unbooks(tx, cell: str) -> None:
        tx.execute("DELETE FROM bookings WHERE cell = ?", (cell,))
        tx.execute("INSERT INTO undone VALUES (?)", (cell,))

    @workflow
    async def body(cell: str) -> Flow[str]:
        what, by = cell.split(":")
        try:
            yield settle(BY[by](OPEN[what](cell)))
            if by == "cancel":
                yield wait_for("never")  # what completes all the same is heard of, and then this is cancelled
        finally:
            yield undo(cell)
            yield unbooks(cell)
        yield Return("undone")

    @transaction
    def tables(tx) -> None:
        tx.execute("CREATE TABLE bookings (cell TEXT)")
        tx.execute("CREATE TABLE undone (cell TEXT)")

    @workflow
    async def opens() -> Flow[None]:
        yield tables()

    #: Two functions in processes at most, since no more run at once where there are two cores.
    CELLS = [f"{what}:{by}" for what in OPEN for by in BY if what != "process" or by in ("cancel", "race")]
    DEFINITIONS = [body, child, a_job, a_plain_job, told, opens]

    async def until(what, cells):
        while not noted(what).issuperset(cells):
            await asyncio.sleep(0.01)

    async def first():
        engine = Engine(FOLDER + "/app.db", DEFINITIONS, durability="process", threads=40)
        await engine.open()
        await engine.run(opens())
        runs = {cell: await engine.start(body(cell), key=cell) for cell in CELLS}
        await until("begins", [cell for cell in CELLS if not cell.endswith("timeout")])
        open(FOLDER + "/go", "w").close()
        for cell, run in runs.items():
            if cell.endswith("cancel"):
                await run.cancel()
            elif cell.endswith("race"):
                await run.signal("go")
        if MOMENT == "cleaning":
            await until("cleans", [cell for cell in CELLS if not cell.startswith(("process", "async", "trans"))])
        elif MOMENT == "undoing":
            await until("undoes", CELLS)
        os.kill(os.getpid(), signal.SIGKILL)

    async def second():
        async with Engine(FOLDER + "/app.db", DEFINITIONS, durability="process", threads=40) as engine:
            ends = {}
            for cell in CELLS:
                run = await engine.find(cell)
                try:
                    ends[cell] = await run.result(40)
                except RunCancelledError:
                    ends[cell] = "cancelled"
            await engine.idle()
            with sqlite3.connect(FOLDER + "/app.db") as conn:
                bookings, undone = ([*conn.execute(f"SELECT cell FROM {name}")] for name in ("bookings", "undone"))
                hooks = [*conn.execute("SELECT count(*) FROM durable_runs WHERE workflow = 'told' GROUP BY follows")]
            print(json.dumps([ends, bookings, undone, hooks]))

    if __name__ == "__main__":
        asyncio.run(first() if IS_FIRST else second())
"""


def life(tmp_path, program, moment, which):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(program))
    return children.run(
        [sys.executable, str(script)],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FOLDER": str(tmp_path), "MOMENT": moment, "LIFE": which},
        capture_output=True,
        text=True,
        timeout=50,
    )


def taken_in(path):
    """The cells whose runs have recorded that they are to end: before that, their children are told nothing."""
    with closing(sqlite3.connect(path)) as conn:
        return {
            key
            for (key,) in conn.execute(
                "SELECT key FROM runs JOIN history USING (run_id) WHERE event IN ('CancelRequested', 'SignalReceived')"
            )
        }


@pytest.mark.parametrize("moment", ["told", "cleaning", "undoing"])
def test_what_was_told_to_end_ends_and_is_undone_once_whenever_the_process_is_killed(tmp_path, moment):
    """
    Once the cancel is acknowledged, or its clean-up or its undo runs: nothing is begun anew that was told to end, no
    undo overtakes what it undoes, each is undone once, no booking is left, and hooks start what they start once.
    """
    killed = life(tmp_path, PROGRAM, moment, "first")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    heard = taken_in(tmp_path / "app.db")
    resumed = life(tmp_path, PROGRAM, moment, "second")
    assert resumed.returncode == 0, resumed.stderr
    ends, bookings, undone, hooks = json.loads(resumed.stdout)
    assert ends == {cell: "cancelled" if cell.endswith("cancel") else "undone" for cell in ends}
    assert bookings == []
    assert sorted(cell for (cell,) in undone) == sorted(ends)
    assert {count for (count,) in hooks} == {1}
    notes = [line.split() for line in (tmp_path / "ledger").read_text().splitlines()]
    assert {cell for _, cell, what in notes if what == "undone"} == set(ends)
    assert ["job:cancel", "hook"] in [note[1:] for note in notes]
    begun = {cell for which, cell, what in notes if which == "second" and what == "begins"}
    told = set(ends)
    if moment == "told":
        told = {cell for cell in ends if cell.endswith(("cancel", "race"))}
        told -= {cell for cell in told - heard if cell.startswith(("child", "job", "plain-job"))}
    assert begun & told == set()
    for which in ("first", "second"):
        for cell in ends:
            if cell.startswith(("coroutine", "thread", "job", "plain-job", "child")):
                mine = [what for life, each, what in notes if (life, each) == (which, cell)]
                assert "undoes" not in mine or "begins" not in mine or mine.index("ended") < mine.index("undoes"), cell

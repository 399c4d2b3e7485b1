"""
Commands on files in which anything may stand: an answer or a refusal, no traceback, and nothing that drives a terminal.

Some of all pairs of commands and damaged files; ``HOSTILE_COMMANDS=3000`` in the environment says how many.
"""

import asyncio
import os
import random
import sqlite3
import unicodedata
from contextlib import closing

import pytest

from durable import Engine, Flow, Return, job, step, wait_for, workflow
from durable.errors import DurableError

#: An escape sequence, one of eight bits, a bell, and letters that run the other way.
BAD = "\x1b[31m\x9b2J\x07\u202eevil\u2066\u200f"
COUNT = int(os.environ.get("HOSTILE_COMMANDS", "90"))

COMMANDS = [
    ["list"], ["list", "--json"], ["list", "--text", "evil"], ["show", "first"], ["show", "first", "--json"],
    ["show", "waits", "--full"], ["history", "first"], ["history", "first", "--json"], ["history", "first", "--full"],
    ["graph", "first"], ["graph", "first", "--json"], ["stats"], ["stats", "--json"], ["doctor"], ["doctor", "--json"],
    ["doctor", "--thorough"], ["schedules"], ["schedules", "--json"], ["export", "first"], ["export", "--all"],
    ["diff", "first", "waits"], ["diff", "first", "waits", "--json"], ["show", BAD], ["cancel", BAD],
    ["pause", "waits"], ["signal", "waits", BAD, "--json"],
    ["prune", "--older-than", "0s", "--dry-run"], ["list", "--status", BAD],
]  # fmt: skip
HOSTILE = [
    BAD, "", "[", "{}", "9" * 5_000, "[" * 3_000, "\x00", b"\xff\xfe", None, 0, -1, 2**63 - 1, -(2**63), 1e300,
    float("inf"), '{"type": 5, "message": [], "traceback": {}}', "[[], {}, 5]",
]  # fmt: skip
TABLES = (
    "runs",
    "events",
    "waits",
    "schedules",
    "queues",
    "limits",
    "slots",
    "inbox",
    "hook_errors",
    "batches",
    "meta",
)


@step
async def fails(text: str) -> str:
    raise ValueError(text)


@workflow
async def first(text: str) -> Flow[str]:
    got: str = yield fails(text)
    yield Return(got)


@workflow
async def waits(text: str) -> Flow[str]:
    got: str = yield wait_for("go", str)
    yield Return(got)


@job
async def quick(text: str) -> str:
    return text


@first.on_failure
def broken(finished):
    raise RuntimeError(BAD)


async def fill(path):
    """
    Put a hostile text wherever a program can put one.
    """
    async with Engine(path, [first, waits, quick], grace=0.0) as engine:
        with pytest.raises(DurableError):
            await engine.run(first(BAD), id="first", key="k", labels={"label": BAD})
        waiting = await engine.start(waits(BAD), id="waits", labels={"label": BAD}, queue="mail")
        await waiting.signal("other", BAD, dedup=BAD)
        ended = await engine.start(waits(BAD), id="ended")
        await ended.cancel(BAD)
        async with engine.batch(id="batch", description="all", labels={"label": BAD}) as batch:
            batch.add(quick(BAD))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """
    A file with hostile texts.
    """
    path = tmp_path_factory.mktemp("sound") / "sound.db"
    asyncio.run(fill(path))
    return path.read_bytes()


@pytest.fixture
def journal(sound, tmp_path):
    """
    A copy of it.
    """
    path = tmp_path / "app.db"
    path.write_bytes(sound)
    return path


def unsafe(text):
    """
    The characters of *text* that could drive a terminal, or turn its letters round.
    """
    return {each for each in text if each != "\n" and unicodedata.category(each) in {"Cc", "Cf", "Co", "Cs"}}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(map(ascii, command))[:40])
def test_nothing_of_a_journal_drives_a_terminal(cli, journal, command):
    """
    Not in tables, reports or JSON, nor in what is said of a mistake.
    """
    said = cli(*command, "--db", journal)
    assert not unsafe(said.out)
    assert not unsafe(said.err)
    assert "Traceback" not in said.err
    assert said.code in {0, 1, 2, 3, 4, 5}


def test_no_command_shows_a_traceback_for_a_damaged_file(cli, sound, journal, tmp_path):
    """
    One cell of the file is hostile; the command answers, or says in lines what it cannot read.
    """
    chance = random.Random(COUNT)
    with closing(sqlite3.connect(journal)) as conn:
        cells = [
            (f"durable_{table}", column, rowid)
            for table in TABLES
            for _, column, *_ in conn.execute(f"PRAGMA table_info(durable_{table})").fetchall()
            for (rowid,) in conn.execute(f"SELECT rowid FROM durable_{table}").fetchall()
        ]
    tried = 0
    while tried < COUNT:
        table, column, rowid = chance.choice(cells)
        value, command = chance.choice(HOSTILE), chance.choice(COMMANDS)
        path = tmp_path / f"{tried}.db"
        path.write_bytes(sound)
        with closing(sqlite3.connect(path)) as conn, conn:
            given = "CAST(? AS TEXT)" if isinstance(value, bytes) else "?"
            try:
                conn.execute(f"UPDATE {table} SET {column} = {given} WHERE rowid = ?", (value, rowid))
            except (sqlite3.Error, OverflowError):
                continue
        tried += 1
        said = cli(*command, "--db", path)
        what = f"{command} with {table}.{column} = {value!r:.40} of row {rowid}: {said.err[-1500:]}"
        assert "Traceback" not in said.err, what
        assert not unsafe(said.out), what
        assert not unsafe(said.err), what
        for beside in tmp_path.glob(f"{tried - 1}.db*"):
            beside.unlink()

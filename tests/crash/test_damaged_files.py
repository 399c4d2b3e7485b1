"""
Files that were damaged while nobody had them open: bits flipped anywhere, pages overwritten, ends cut off, a WAL that
is gone, cut, flipped or another journal's.

What must hold: the file is refused with an error of ours, or opens; then each run ends with what it should, is blocked
with a reason, or whoever asks for it gets an error. Nothing is made up, and the engine can be closed. A page that is
gone may have held what a run waits for: then it waits on, and `durable doctor --thorough` says that the file is
damaged, as it does where SQLite's own errors come through. (`test_corruption.py` changes single events and pages, and
knows what must be named.)
"""

import asyncio
import os
import random
import shutil
import sqlite3
import time

import pytest

from durable import Engine, Flow, Return, Transaction, job, step, transaction, wait_for, workflow
from durable._cli.main import main as command_line
from durable.errors import DurableError

pytestmark = pytest.mark.anyio

RUNS = 12
calls: list[str] = []


@step
async def work(name: str) -> str:
    calls.append(name)
    return f"{name} was worked on" * 20


@job
async def child(name: str) -> str:
    return f"{name} is a child"


@transaction
def keep(tx: Transaction, name: str) -> str:
    tx.execute("CREATE TABLE IF NOT EXISTS app (name TEXT)")
    tx.execute("INSERT INTO app VALUES (?)", (name,))
    return name


@workflow
async def whole(name: str) -> Flow[list[str]]:
    first: str = yield work(name)
    second: str = yield child(name)
    third: str = yield keep(name)
    payload: str = yield wait_for("go", str)
    last: str = yield work(payload)
    yield Return([first, second, third, payload, last])


def expected(name):
    return [
        f"{name} was worked on" * 20, f"{name} is a child", name, f"go {name}", f"go {name} was worked on" * 20,
    ]  # fmt: skip


NAMES = [f"run-{number}" for number in range(RUNS)]


async def make(path, *, keep_wal):
    """Half of the runs have ended, half of them wait; with a WAL that holds the last part, or without."""
    async with Engine(path, [whole, child], durability="process") as engine:
        runs = [await engine.start(whole(name), id=name) for name in NAMES]
        for run, name in zip(runs[: RUNS // 2], NAMES, strict=False):
            await run.signal("go", f"go {name}")
            assert await run.result(10) == expected(name)
        for run in runs[RUNS // 2 :]:
            while await run.status() != "waiting":
                await asyncio.sleep(0.005)
        if keep_wal:  # as a kill at this moment would leave it
            for suffix in ("", "-wal"):
                shutil.copyfile(f"{path}{suffix}", f"{keep_wal}{suffix}")


async def outcomes(path):
    """What becomes of each run in a damaged file, in words; anything but an error of ours escapes."""
    try:
        engine = Engine(path, [whole, child], durability="process", grace=0.5)
        await engine.open()
    except DurableError as error:
        return {"open": type(error).__name__}
    try:
        found = {}
        for name in NAMES:
            run = engine.get(name)
            try:
                await run.signal("go", f"go {name}", dedup="1")
            except (DurableError, sqlite3.Error) as error:
                found[name] = type(error).__name__
        found.update(dict(zip(NAMES, await asyncio.gather(*(end_of(engine, name) for name in NAMES)), strict=True)))
        return found
    finally:
        await asyncio.wait_for(engine.aclose(), 15)


async def end_of(engine, name, seconds=2.0):
    run, deadline = engine.get(name), time.monotonic() + seconds
    while True:
        try:
            status = await run.status()
            if status == "blocked":
                return "blocked" if (await run.info()).reason else "blocked without a reason"
            return "right" if (value := await run.result(0.2)) == expected(name) else f"wrong: {value}"
        except TimeoutError:
            if time.monotonic() > deadline:
                return "waits on"
        except (DurableError, sqlite3.Error) as error:
            return type(error).__name__


def fine(found, path):
    said = {*found.values()}
    damaged = {"waits on", *(name for name in said if hasattr(sqlite3, name))} & said
    if damaged and command_line(["doctor", "--thorough", "--db", str(path)]) != 1:
        return False
    return not [each for each in said if each.startswith(("wrong", "blocked without"))]


@pytest.fixture(scope="module")
async def journals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    await make(folder / "app.db", keep_wal=folder / "killed.db")
    assert (folder / "killed.db-wal").stat().st_size > 50_000
    return folder


def flip(dice, data):
    for _ in range(dice.choice((1, 3, 20))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def zero(dice, data):
    at = 4096 * dice.randrange(len(data) // 4096)
    data[at : at + 4096] = bytes(4096)


def scribble(dice, data):
    at = 512 * dice.randrange(len(data) // 512)
    data[at : at + 512] = dice.randbytes(512)


def swap(dice, data):
    one, two = (4096 * dice.randrange(len(data) // 4096) for _ in range(2))
    data[one : one + 4096], data[two : two + 4096] = data[two : two + 4096], data[one : one + 4096]


def cut(dice, data):
    del data[dice.randrange(len(data)) :]


@pytest.mark.parametrize("damage", [flip, zero, scribble, swap, cut], ids=lambda fn: fn.__name__)
@pytest.mark.parametrize("which", ["app.db", "killed.db-wal"])
async def test_damage_is_told_or_harmless(journals, tmp_path, damage, which):
    """P12, P15."""
    seed = int(os.environ.get("DURABLE_SEED", time.time_ns() % 2**32))
    dice, seen = random.Random(seed), set()
    for number in range(int(os.environ.get("DURABLE_DAMAGED", "3"))):
        path = tmp_path / f"{number}.db"
        sound = which.removesuffix("-wal")
        for suffix in ("", "-wal"):
            if (journals / f"{sound}{suffix}").exists():
                shutil.copyfile(journals / f"{sound}{suffix}", f"{path}{suffix}")
        target = f"{path}-wal" if which.endswith("-wal") else str(path)
        with open(target, "r+b") as file:
            data = bytearray(file.read())
            damage(dice, data)
            file.seek(0)
            file.write(data)
            file.truncate()
        found = await outcomes(path)
        assert fine(found, path), f"seed {seed}, number {number}: {found}"
        seen |= {*found.values()}
    print(f"seed {seed}: {seen}")

"""
Scenarios 57 to 60: mending, pruning, and every single and double fault that a commit can have.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Awaitable, Callable

import pytest

from durable import (
    Engine,
    Flow,
    Retry,
    Return,
    RunFailedError,
    RunNotFoundError,
    Transaction,
    context,
    for_each,
    gather,
    job,
    sleep,
    start,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable.errors import EngineClosedError
from tests.scenarios.differences import COUNTS, differs, needs_a_file

pytestmark = pytest.mark.anyio

RAN: list[str] = []
#: Another attempt at once; and one for each of the two deaths of the process that a test has.
ONCE_MORE = Retry(attempts=4, delay=0.0)
BROKEN: set[str] = set()


@pytest.fixture(autouse=True)
def ran():
    """
    What bodies ran, in order.
    """
    RAN.clear()
    BROKEN.clear()
    EFFECTS.clear()
    FAULTS.clear()
    HELD.clear()
    return RAN


@step
async def do(name: str) -> str:
    RAN.append(name)
    if name in BROKEN:
        raise ConnectionError(name)
    return name


@job
async def work(name: str) -> str:
    RAN.append(name)
    if name in BROKEN:
        raise ConnectionError(name)
    return f"{name} {context().attempt}"


@workflow
async def family() -> Flow[list]:
    first: str = yield do("first")
    values: list[str] = yield gather(work("x"), work("y"), work("z"))
    last: str = yield do("last")
    yield Return([first, *values, last])


async def fails(run):
    with pytest.raises(RunFailedError) as caught:
        await run.result(20)
    return caught.value


async def test_a_failed_run_goes_on_at_what_failed_once_the_code_is_mended(engines, ran):
    """
    Scenario 57: in another life, with the cause mended: completed steps and children are not repeated;
    retrying a parent retries its failed children only, and keeps the results of the others.
    """
    engine = await engines.file(family, work)
    BROKEN.update(("y", "last"))
    run = await engine.start(family(), id="r")
    await fails(run)
    assert sorted(ran) == ["first", "x", "y", "z"]
    results = {child.run_id: await engine.get(child.run_id).result(20) for child in (await run.children())[::2]}
    await engines.crash(engine)
    BROKEN.discard("y")
    engine = await engines.file(family, work)
    run = engine.get("r")
    assert await run.retry() is True
    assert "last" in str(await fails(run))
    assert sorted(ran) == ["first", "last", "x", "y", "y", "z"]
    BROKEN.clear()
    assert await run.retry() is True
    assert (await run.result(20))[::4] == ["first", "last"]
    assert sorted(ran) == ["first", "last", "last", "x", "y", "y", "z"]
    children = await run.children()
    assert [child.status for child in children] == ["succeeded"] * 3
    assert {child.run_id: await engine.get(child.run_id).result(20) for child in children[::2]} == results


@needs_a_file("a server keeps runs as long as its namespace says: it prunes by itself")
async def test_pruning_takes_old_trees_that_have_ended_and_nothing_else(engines, ran, clock, reached):
    """
    Scenario 58: a waiting parent keeps its finished children, a tree goes with its youngest member, and
    a run that was pruned is answered for by a specific error.
    """

    @workflow
    async def parent(signals: int) -> Flow[list]:
        values: list[str] = yield gather(work("a"), work("b"))
        for _ in range(signals):
            yield wait_for("go")
        yield Return(values)

    engine = await engines.file(parent, work, clock=clock)
    old = await engine.start(parent(0), id="old")
    await old.result(20)
    waiting = await engine.start(parent(1), id="waiting")
    await reached(waiting, "waiting")
    await clock.passes(100)
    young = await engine.start(parent(0), id="young")
    await young.result(20)
    assert await engine.prune(older_than=50) == 3
    for gone in ("old", "old~.0.0"):
        with pytest.raises(RunNotFoundError, match=f"{gone}.*pruned"):
            await engine.get(gone).info()
    assert len(await young.children()) == len(await waiting.children()) == 2
    assert [child.status for child in await waiting.children()] == ["succeeded"] * 2
    await engines.crash(engine)
    engine = await engines.file(parent, work, clock=clock)
    waiting = engine.get("waiting")
    await clock.passes(60)
    await waiting.signal("go")
    assert await waiting.result(20) == ["a 1", "b 1"]
    assert await engine.prune(older_than=50) == 3  # the young one is old by now; the other ended just now
    assert sorted([info.run_id async for info in engine.runs() if info.parent is None]) == ["waiting"]
    assert ran.count("a") == 3


# --- the sample set --------------------------------------------------------------------------------------

EFFECTS: dict[str, set[str]] = {}
#: (number of a body's call, before or after its effect) -> raises there, once.
FAULTS: list[tuple[int, str]] = []
#: Number of a body's call -> the door that it stands before, once, when its effect is done.
HELD: dict[int, Callable[[], Awaitable[None]]] = {}


def act(name):
    mine = context()
    RAN.append(f"{mine.run_id}:{mine.position}")
    glitch("before")
    EFFECTS.setdefault(name, set()).add(mine.idempotency_key)
    glitch("after")


def glitch(where):
    if (len(RAN), where) in FAULTS:
        FAULTS.clear()
        raise ConnectionError(where)


async def hold():
    if (door := HELD.pop(len(RAN), None)) is not None:
        await door()


@step(retry=ONCE_MORE)
async def effect(name: str) -> str:
    """An effect outside, with a key: what happens to it twice under one key has happened once."""
    act(name)
    await hold()
    return name


@job(retry=ONCE_MORE)
async def child(name: str) -> str:
    act(name)
    await hold()
    return name


@transaction(retry=ONCE_MORE)
def insert(tx: Transaction, mark: str) -> str:
    RAN.append("r:6")
    glitch("before")
    tx.execute("CREATE TABLE IF NOT EXISTS app (mark TEXT)")
    tx.execute("INSERT INTO app VALUES (?)", (mark,))
    glitch("after")
    return mark


@workflow
async def sample() -> Flow[list]:
    """Do, iterate, delay, wait for a condition, spawn, await two, write in a transaction."""
    done: str = yield effect("do")
    each: list[str] = yield for_each(effect, ["item 1", "item 2"])
    yield sleep(0.001)
    condition: str = yield wait_for("condition", str)
    spawned = yield start(child("spawned"))
    two: list[str] = yield gather(child("one"), child("two"))
    written: str = yield insert("row")
    third: str = yield spawned.result()
    yield Return([done, *each, condition, *two, written, third])


RESULT = ["do", "item 1", "item 2", "holds", "one", "two", "row", "spawned"]
#: Each effect under one key, however often its body ran.
KEYS = {
    "do": {"r:0"}, "item 1": {"r:1.0"}, "item 2": {"r:1.1"},
    "spawned": {"r~.4:0"}, "one": {"r~.5.0:0"}, "two": {"r~.5.1:0"},
}  # fmt: skip


def keys_of(run_id):
    """As `KEYS`, of another run."""
    return {name: {run_id + key.removeprefix("r") for key in keys} for name, keys in KEYS.items()}


async def finish(path, **options):
    """The sample set, begun or gone on with, to its end; it must be the only one there is."""
    async with Engine(path, [sample, child], durability="process", crash_limit=1000, **options) as engine:
        run = await engine.start(sample(), id="r")
        if await run.status() != "succeeded":
            with contextlib.suppress(Exception):  # it may just have ended
                await run.signal("condition", "holds", dedup="condition")
        assert await run.result(10) == RESULT, path
        assert await run.status() == "succeeded"
        assert (await engine.stats()).runs == {"succeeded": 4}, path
        assert (await engine.stats()).waits == 0, path
        inbox = await engine._backend.read(
            lambda conn: conn.execute("SELECT count(*) FROM durable_inbox").fetchone()[0]
        )
        assert inbox == 0, path


def check(path):
    """The effects, and the rows in the file, are those of a life without faults."""
    assert EFFECTS == KEYS, path
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT mark FROM app").fetchall() == [("row",)], path
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",), path


def held_by(path):
    """What a copy holds: how many events, and the steps whose outcome is among them."""
    with contextlib.closing(sqlite3.connect(path)) as file:
        (events,) = file.execute("SELECT count(*) FROM history").fetchone()
        done = file.execute(
            "SELECT run_id, position FROM history WHERE event = 'StepSucceeded' "
            "UNION SELECT run_id, '0' FROM runs WHERE sort = 'job' AND status = 'succeeded'"
        ).fetchall()
    return events, {f"{run_id}:{position}" for run_id, position in done}


async def first_life(engines, monkeypatch, copies):
    """The copies of a life without faults, and the number of its events."""
    with monkeypatch.context() as patch:
        recorded = copies(patch)
        await finish(engines.path)
    check(engines.path)
    return recorded.paths, held_by(engines.path)[0]


@needs_a_file("it is recovered from copies of its file, made at each commit; on a server: tests/temporal/soak.py")
async def test_every_single_crash_ends_like_none(engines, ran, monkeypatch, copies):
    """
    Scenario 59, crashes: killed before and after each COMMIT of the sample set: result, keys of effects and
    rows are those of a life without faults; nothing whose outcome was on disk is run again. Each crash cut
    something: the copy held less than the whole, except for the last, and those of the closing engine's own commit.
    """
    paths, whole = await first_life(engines, monkeypatch, copies)
    before, after = [paths[kind::2] for kind in (0, 1)]
    assert all("before" in path.name for path in before)
    assert not any("before" in path.name for path in after)
    assert len(before) == len(after) >= 10
    cuts = []
    for path in paths:
        held, done = held_by(path)
        cuts.append(held)
        ran.clear()
        EFFECTS.clear()
        EFFECTS.update({name: set(keys) for name, keys in KEYS.items() if keys <= done})
        await finish(path)
        check(path)
        assert not done & set(ran), path
        assert len(ran) == len(set(ran)) == 7 - len(done), path
    assert sorted(cuts) == cuts
    assert cuts[0] == 0
    assert len({held for held in cuts if held < whole}) >= 8  # a run and its first turn are one commit
    assert all(held < whole for held in cuts[:-3])


@differs(COUNTS)
@pytest.mark.parametrize("where", ["before", "after"])
async def test_every_single_error_ends_like_none(engines, ran, where):
    """
    Scenario 59, errors: raised before and after the effect of each body of the sample set, which has one
    attempt more; that body runs twice, under the same key, and every other once.
    """
    engine = await engines.file(sample, child, tables=True)
    for call in range(1, 8):
        ran.clear()
        EFFECTS.clear()
        FAULTS.append((call, where))
        run = await engine.start(sample(), id=f"r{call}")
        await run.signal("condition", "holds")
        assert await run.result(20) == RESULT
        assert keys_of(run.id) == EFFECTS
        assert FAULTS == [], f"nothing was raised {where} call {call}"
        assert ran.count(ran[call - 1]) == 2, ran
        assert (len(ran), len(set(ran))) == (8, 7), ran
    assert engines.rows("SELECT mark FROM app") == [("row",)] * 7
    if not engines.differs(COUNTS):
        stats = await engine.stats()
        assert (stats.runs, stats.waits) == ({"succeeded": 4 * 7}, 0)


async def test_a_crash_in_each_body_ends_like_none(engines, ran, doors):
    """
    Scenario 59, once more: the engine is lost behind the effect of each body but the transaction's, which cannot be
    held there. Another goes on: that body runs twice, under the same key.
    """
    for call in range(1, 7):
        ran.clear()
        EFFECTS.clear()
        door = HELD[call] = doors()
        engine = await engines.file(sample, child, tables=True)
        run = await engine.start(sample(), id=f"r{call}")
        await run.signal("condition", "holds")
        await door.reached()
        await engines.crash(engine)
        engine = await engines.file(sample, child, tables=True)
        assert await engine.get(run.id).result(20) == RESULT
        assert keys_of(run.id) == EFFECTS
        assert ran.count(ran[call - 1]) == 2, ran
        assert len(set(ran)) == 7, ran
        await engine.aclose()
    assert engines.rows("SELECT mark FROM app") == [("row",)] * 6


@pytest.mark.long
@needs_a_file("it is recovered from copies of its file, made at each commit; on a server: tests/temporal/soak.py")
async def test_a_second_fault_during_the_recovery_changes_nothing(engines, ran, monkeypatch, copies):
    """Scenario 60: each copy of the first life is recovered, and killed again at each COMMIT of the recovery."""
    paths, whole = await first_life(engines, monkeypatch, copies)
    faults = 0
    for path in paths[1::2]:  # what is on disk before a COMMIT is what was there after the last one
        with monkeypatch.context() as patch:
            recorded = copies(patch)
            await finish(path)
        for again in recorded.paths[1::2]:
            held, done = held_by(again)
            faults += held < whole
            ran.clear()
            EFFECTS.clear()
            EFFECTS.update({name: set(keys) for name, keys in KEYS.items() if keys <= done})
            await finish(again)
            check(again)
            assert not done & set(ran), again
    assert faults >= 40


@needs_a_file("it looks for what an engine leaves in its process and its file")
async def test_a_shutdown_without_grace_leaves_nothing_behind(engines, ran, monkeypatch, copies):
    """
    Scenario 60, the shutdown: closed with no grace, each life some COMMITs later than the last: the same
    end, and of the engines no task, thread or lock stays, nor a wait in the file.
    """
    tasks, threads = len(asyncio.all_tasks()), set(threading.enumerate())
    lives = 0
    while True:
        lives += 1
        assert lives < 200
        engine = Engine(engines.path, [sample, child], durability="process", grace=0.0, crash_limit=1000)
        await engine.open()
        try:
            run = await engine.start(sample(), id="r")
            with contextlib.suppress(Exception):
                await run.signal("condition", "holds", dedup="condition")
            while (await engine.stats()).commits < 2 + lives // 3:
                await asyncio.sleep(0)
                if await run.status() == "succeeded":
                    break
            ended = await run.status() == "succeeded"
        finally:
            await engine.aclose()
        with pytest.raises(EngineClosedError):
            await engine.stats()
        assert len(asyncio.all_tasks()) <= tasks
        assert not {thread for thread in set(threading.enumerate()) - threads if "AnyIO" not in thread.name}
        if ended:
            break
    assert lives >= 3
    await finish(engines.path)
    check(engines.path)

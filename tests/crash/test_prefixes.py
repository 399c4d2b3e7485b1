"""
Every prefix of a journal leads to the same end, and no step that it holds is called again.

A copy of the file is taken after each COMMIT, which is what a crash at that moment leaves; a
fresh engine finishes each copy. So the histories are cut wherever a turn closed.
"""

import asyncio
import contextlib
import gc
import importlib.util
import sqlite3
import sys
from pathlib import Path

import pytest

from durable import (
    AsyncTransaction,
    Engine,
    Flow,
    Limit,
    Retry,
    Return,
    RunCancelledError,
    Transaction,
    continue_as,
    for_each,
    gather,
    job,
    race,
    settle,
    sleep,
    start,
    step,
    timeout,
    transaction,
    wait_for,
    workflow,
)
from durable._core.journal.events import KIND_NAMES
from durable._core.run.decision import in_parts
from durable._shell.attempts import steps
from durable._shell.turns import driver
from durable.errors import RunStateError

sys.path.insert(0, str(Path(__file__).parent))
from copies import Copies

pytestmark = pytest.mark.anyio
EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@step
async def double(number: int) -> int:
    return 2 * number


@step(retry=Retry(attempts=4, on=ConnectionError, delay=0.005))
async def shaky(number: int) -> int:
    from durable import context

    if context().attempt < 3:
        raise ConnectionError("again")
    return number


@step
async def fails(number: int) -> int:
    raise ValueError(f"no {number}")


@job
async def triple(number: int) -> int:
    return 3 * number


@transaction
def keep(tx: Transaction, mark: str) -> str:
    tx.execute("INSERT INTO app VALUES (?)", (mark,))
    return mark


@transaction
async def keep_slowly(tx: AsyncTransaction, mark: str) -> str:
    await tx.execute("INSERT INTO app VALUES (?)", (mark,))
    return mark


@workflow
async def orders(count: int) -> Flow[list[object]]:
    """Steps, transactions, jobs, retries, timers."""
    first: int = yield double(count)
    yield keep("one")
    thrice: list[int] = yield gather(triple(1), triple(2), double(5))
    yield keep_slowly("two")
    yield sleep(0.002)
    fourth: int = yield shaky(4)
    each: list[int] = yield for_each(triple, [7, 7, 0], concurrency=2)
    yield Return([first, *thrice, fourth, *each])


async def helper(number: int) -> int:
    a = await double(number)
    return await triple(a)


@workflow
async def groups() -> Flow[list[object]]:
    """Races, timeouts, helpers, failures, nested groups, a child workflow."""
    won = yield race(sleep(30), double(1))
    both: list[object] = yield gather(helper(1), gather(double(2), settle(fails(3))), fails(4), return_exceptions=True)
    try:
        yield timeout(wait_for("never"), 0.003)
    except TimeoutError:
        yield keep("late")
    nested: list[object] = yield orders(1)
    yield Return([won.index, both[0], both[1][0], str(both[1][1].error), str(both[2]), nested[0]])


@workflow
async def talks(left: int) -> Flow[list[str]]:
    """Signals, early and late, and going on as another run with them."""
    text: str = yield wait_for("say", str)
    yield keep(f"{left} {text}")
    if left:
        yield continue_as(talks(left - 1))
    more: str = yield wait_for("say", str, timeout=5.0)
    yield Return([text, more])


@workflow
async def cancelled() -> Flow[None]:
    """A cancel, and the clean-up after it."""
    yield double(1)
    try:
        yield gather(triple(1), wait_for("never"))
    finally:
        yield keep("cleaned")


@step
async def holds() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.005)


@job
async def holds_too() -> None:
    await holds.fn()


@workflow
async def stopped() -> Flow[None]:
    """A step and a child that are cancelled by a group, then by the run, and have clean-up of their own."""
    yield settle(timeout(gather(holds(), holds_too()), 0.02))
    try:
        yield gather(holds(), holds_too(), wait_for("never"))
    finally:
        yield keep("undone")


@job(limit=Limit("narrow", concurrency=1))
async def narrowly(number: int) -> int:
    return 3 * number


@workflow
async def noted(mark: str) -> Flow[None]:
    yield keep(mark)


@workflow(limit=Limit("alone", concurrency=1), limit_key=lambda _number: "shared")
async def exclusive(number: int) -> Flow[int]:
    values: list[int] = yield for_each(narrowly, range(4), concurrency=2)
    yield Return(number + sum(values))


@exclusive.on_success
def told(finished):
    return [noted(f"hook {finished.value}")]


@workflow
async def crossing() -> Flow[list[int]]:
    """Windows over limited jobs, in runs that wait for each other's slot, with chains of follow-ups and a hook."""
    chains = [exclusive(number).then(noted(f"then {number}").then(noted(f"last {number}"))) for number in (1, 2)]
    both: list[int] = yield gather(*chains)
    yield Return(both)


@workflow
async def wide() -> Flow[list[object]]:
    """Much at once: steps, jobs, timers, groups in groups; some that was joined, and some that is left alone."""
    left = yield start(triple(9), key="nine")
    both: list[object] = yield gather(
        *(double(number) for number in range(4)),
        gather(*(triple(number) for number in range(4))),
        race(sleep(30), double(6)),
        start(triple(9), key="nine"),
        sleep(0.002),
        gather(fails(1), fails(2), return_exceptions=True),
    )
    thrice: int = yield left.result()
    first, second = both[8]
    yield Return([*both[:5], both[5].value, str(first), str(second), thrice])


async def say(run):
    for number in range(4):
        await run.signal("say", str(number), dedup=str(number))


async def cancel(run):
    """Once its code waits for a signal that never comes; it may have been cancelled before the process died."""
    while (await run.info()).ended_at is None and "SignalAwaited" not in [each.kind for each in await run.history()]:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.005)  # what was begun with that is at work by now; or not yet, which must make no difference
    await run.cancel("enough")


CASES = {
    "orders": (lambda: (orders(3), [orders, triple]), None, ["one", "two"]),
    "groups": (lambda: (groups(), [groups, orders, triple]), None, ["late", "one", "two"]),
    "talks": (lambda: (talks(2), [talks]), say, ["0 2", "1 1", "2 0"]),
    "crossing": (
        lambda: (crossing(), [crossing, exclusive, narrowly, noted]),
        None,
        ["hook 19", "hook 20", "last 1", "last 2", "then 1", "then 2"],
    ),
    "cancelled": (lambda: (cancelled(), [cancelled, triple]), cancel, ["cleaned"]),
    "wide": (lambda: (wide(), [wide, triple]), None, []),
    "stopped": (lambda: (stopped(), [stopped, holds_too]), cancel, ["undone"]),
}


def finished(path):
    """(run id, position) of the steps that have an outcome in the file, and of jobs that have ended."""
    wanted = [kind for kind, name in KIND_NAMES.items() if name in ("StepSucceeded", "StepFailed")]
    with contextlib.closing(sqlite3.connect(path)) as conn:
        found = conn.execute(
            f"SELECT r.run_id, e.position FROM durable_events AS e JOIN durable_runs AS r USING (run) "
            f"WHERE e.kind IN ({','.join(map(str, wanted))}) "
            "UNION SELECT run_id, '0' FROM durable_runs WHERE sort = 'job' AND ended_at IS NOT NULL"
        )
        return set(found.fetchall())


def marks(path):
    with contextlib.closing(sqlite3.connect(path)) as conn:
        return sorted(mark for (mark,) in conn.execute("SELECT mark FROM app"))


async def outcome(run):
    try:
        return await run.result()
    except RunCancelledError as error:
        return f"cancelled: {error.args}"


async def all_ended(engine):
    """Also what the run has started and does not wait for."""
    while [info async for info in engine.runs() if info.ended_at is None]:
        await asyncio.sleep(0.001)


async def finish(path, definitions, run_id, client):
    async with Engine(path, definitions, durability="process", crash_limit=1000) as engine:
        run = engine.get(run_id)
        async with asyncio.timeout(10):
            if client is not None:
                with contextlib.suppress(RunStateError):  # it has ended
                    await client(run)
            end = await outcome(run)
            await all_ended(engine)
            return end


async def check(tmp_path, monkeypatch, op, definitions, client, tables):
    """The end of a run, having compared it with the end of each prefix of its journal."""
    called = []
    real = steps.Steps.attempt

    async def attempt(self, running, state, *others):
        called.append((state.run_id, running.position))
        return await real(self, running, state, *others)

    monkeypatch.setattr(steps.Steps, "attempt", attempt)
    whole = tmp_path / "whole.db"
    with contextlib.closing(sqlite3.connect(whole)) as app:
        for table in tables:
            app.execute(f"CREATE TABLE {table}")
        app.commit()
    with monkeypatch.context() as patch:
        copies = Copies(patch, tmp_path)
        async with Engine(whole, definitions, durability="process") as engine:
            run = await engine.start(op, id="the-run")
            if client is not None:
                await client(run)
            end = await outcome(run)
            await all_ended(engine)
    assert len(copies.paths) > 4
    for path in copies.paths:
        done = finished(path)
        called.clear()
        assert await finish(path, definitions, "the-run", client) == end, path
        assert not done & set(called), f"{path}: called again"
    return end, copies.paths


@pytest.mark.parametrize("name", CASES)
async def test_every_prefix_of_a_journal_leads_to_the_same_end(tmp_path, monkeypatch, file_strays, name):
    """P1, P2, P3: the same result, each row of a transaction once, no completed step called again."""
    make, client, rows = CASES[name]
    op, definitions = make()
    end, paths = await check(tmp_path, monkeypatch, op, definitions, client, ["app (mark TEXT)"])
    assert end is not None
    for path in paths:
        assert marks(path) == rows, path
        assert file_strays(path) == [], path


@pytest.mark.parametrize("name", ["orders", "groups", "stopped", "wide"])
async def test_a_turn_may_be_cut_between_any_two_things_that_it_opens(tmp_path, monkeypatch, file_strays, name):
    """A turn that opens very much is several commits: here each command is one."""
    make, client, rows = CASES[name]
    for limit in ("ROWS_AT_ONCE", "ROWS_A_COMMIT", "ROWS_OF_CHILD"):
        monkeypatch.setattr(driver, limit, 1)
    cut = []

    def in_counted_parts(*given):
        for parts in in_parts(*given):
            cut.append(len(parts or ()))
            yield parts

    monkeypatch.setattr(driver, "in_parts", in_counted_parts)
    op, definitions = make()
    end, paths = await check(tmp_path, monkeypatch, op, definitions, client, ["app (mark TEXT)"])
    assert end is not None
    assert max(cut) > 1
    for path in paths:
        assert marks(path) == rows, path
        assert file_strays(path) == [], path


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an HTTPError keeps its socket
async def test_every_prefix_of_the_ride_leads_to_the_same_receipt(tmp_path, monkeypatch):
    """The example with a payment server: the key of the charge is the same in all lives."""
    ride = example("ride")
    definitions = [ride.ride, ride.notify_drivers, ride.write_audit]
    tables = ["rides (id INTEGER PRIMARY KEY, user_id INTEGER, pickup TEXT)", "audit (entry TEXT)"]
    with ride.payment_server() as (server, payments):
        end, paths = await check(tmp_path, monkeypatch, ride.ride(42, "Main St", server), definitions, None, tables)
        assert len(payments.charges) == 1
    assert end == ride.Receipt(1, "charge-1", 3)
    for path in paths:
        with contextlib.closing(sqlite3.connect(path)) as app:
            assert app.execute("SELECT count(*) FROM rides").fetchone() == (1,)
    gc.collect()  # here, where that warning is ignored


async def test_every_prefix_of_the_approval_leads_to_the_same_answer(tmp_path, monkeypatch):
    """The example that waits for a person: in whichever life the answer comes, it is that answer."""
    approval = example("approval")

    async def approve(run):
        await run.signal("decision", approval.Decision(approved=True, by="Mia"), dedup="one")

    end, _ = await check(tmp_path, monkeypatch, approval.expense("Ada", 1), [approval.expense], approve, [])
    assert end == "approved by Mia"

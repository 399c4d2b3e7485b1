"""
What is told of runs, alike from an engine, a client and a service.
"""

import asyncio
import sqlite3
from contextlib import AsyncExitStack, closing

import pytest
from attrs import frozen

from durable import (
    Arguments,
    Client,
    DecodeError,
    Flow,
    JournalCorruptError,
    Limit,
    Queue,
    Retry,
    Return,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    Service,
    Signal,
    Transaction,
    UsageError,
    context,
    cursor,
    gather,
    job,
    memo,
    read_histories,
    settle,
    sleep,
    step,
    timeout,
    transaction,
    wait_for,
    workflow,
)

pytestmark = pytest.mark.anyio


@frozen
class Order:
    number: int


@workflow
async def approval(order: Order, *, by: str = "anybody") -> Flow[Order]:
    yield wait_for("approved")
    yield Return(order)


@workflow
async def approvals(*numbers: int) -> Flow[list]:
    yield Return((yield gather(*(approval(Order(number)) for number in numbers))))


@workflow
async def grandparent() -> Flow[list]:
    yield Return((yield approvals(1, 2)))


@workflow
async def napping(seconds: float) -> Flow[None]:
    yield sleep(seconds, name="nap")


@job
def broken(number: int) -> int:
    raise ValueError(f"no order {number}")


DEFINITIONS = (approval, approvals, grandparent, napping, broken)


@pytest.fixture(params=["engine", "client", "service"])
async def journal(request, engines, tmp_db):
    """
    A journal that is executed, and asked from an engine, a client of one, or a service.
    """
    async with AsyncExitStack() as stack:
        if request.param == "service":
            yield await stack.enter_async_context(Service(tmp_db, DEFINITIONS, durability="process", grace=1.0))
        else:
            engine = await engines.file(*DEFINITIONS)
            yield engine if request.param == "engine" else await stack.enter_async_context(Client(tmp_db))


async def found(journal, **filters):
    return [info.id async for info in journal.runs(**filters)]


async def test_runs_are_found_by_what_they_wait_for(journal, reached):
    """
    By the name of a signal, or what else is waited for.
    """
    await reached(await journal.start(approval(Order(1)), id="asks"), "waiting")
    await reached(await journal.start(napping(3600.0), id="naps"), "waiting")
    await journal.start(napping(1.0), id="later", delay=3600)
    assert await found(journal, waiting_for="approved") == ["asks"]
    assert await found(journal, waiting_for="signal:approved") == ["asks"]
    assert await found(journal, waiting_for=Signal("approved")) == ["asks"]
    assert await found(journal, waiting_for="timer") == ["naps"]
    assert await found(journal, waiting_for="start") == ["later"]
    assert await found(journal, waiting_for="refused") == []
    assert await found(journal, waiting_for="approved", workflow=napping) == []


async def test_a_run_tells_what_it_was_given_and_what_it_returned(journal):
    """
    As the function was called, by its annotations; of who fails there is an error, and no result.
    """
    run = await journal.start(approval(Order(7), by="me"))
    info = await run.info()
    assert info.arguments == Arguments((Order(7),), {"by": "me"}) == ((Order(7),), {"by": "me"})
    assert (info.id, info.run_id, info.result, info.error) == (run.id, run.id, None, None)
    await run.signal("approved")
    await run.result(10)
    assert (await run.info()).result == Order(7)
    bad = await journal.start(broken(3))
    with pytest.raises(RunFailedError):
        await bad.result(10)
    info = await bad.info()
    assert (info.arguments.args, info.result, info.error) == ((3,), None, "ValueError: no order 3")
    assert [(each.id, each.arguments, each.result) async for each in journal.runs()] == [
        (bad.id, ((3,), {}), None),
        (run.id, ((Order(7),), {"by": "me"}), Order(7)),
    ]


async def test_the_root_of_a_run_is_the_first_that_led_to_it(journal, reached):
    """
    Over all generations; of one that nobody's run started it is the run itself.
    """
    top = await journal.start(grandparent(), id="top")
    for run_id in ("top", "top~.0", "top~.0~.0.0", "top~.0~.0.1"):
        await reached(journal.get(run_id), "waiting")
    assert [(info.id, info.parent, info.root) async for info in journal.runs()] == [
        ("top~.0~.0.1", "top~.0", "top"),
        ("top~.0~.0.0", "top~.0", "top"),
        ("top~.0", "top", "top"),
        ("top", None, "top"),
    ]
    assert [(child.id, child.arguments.args) for child in await top.children()] == [("top~.0", (1, 2))]


async def test_a_fork_names_its_source(journal, reached):
    """
    The run that it was forked from: of a fork of a fork, the latter.
    """
    run = await journal.start(approval(Order(1)), id="first")
    await reached(run, "waiting")
    again = await run.fork(0, id="second")
    third = await again.fork(0, id="third")
    assert (await run.info()).forked_from is None
    assert (await again.info()).forked_from == "first"
    assert (await third.info()).forked_from == "second"


async def test_a_client_that_knows_no_definition_reads_plain_json(engines, tmp_db):
    """
    What it has started itself it reads by its annotations; everything else as the record has it.
    """
    engine = await engines.file(*DEFINITIONS)
    run = await engine.start(approval(Order(1)), signals=[("approved", None)])
    await run.result(10)
    async with Client(tmp_db) as client:
        info = await client.get(run.id).info()
        assert info.arguments == (({"number": 1},), {})
        assert info.result == {"number": 1}
        await client.start(approval(Order(2)))
        assert (await client.get(run.id).info()).result == Order(1)


async def test_values_that_cannot_be_read_hide_no_run(engines, tmp_db):
    """
    What was recorded for another function, and what is damaged, is told when it is asked for; the rest is there.
    """
    engine = await engines.file(*DEFINITIONS)
    run = await engine.start(approval(Order(1)), signals=[("approved", None)])
    await run.result(10)
    await engine.aclose()

    @workflow(name="approval")
    async def other(number: int) -> Flow[int]: ...

    engine = await engines.file(other)
    info = await engine.get(run.id).info()
    for ask in (lambda: info.arguments, lambda: info.result):
        with pytest.raises(DecodeError, match=f"of run '{run.id}'"):
            ask()
    await engine.aclose()
    with closing(sqlite3.connect(tmp_db)) as conn, conn:
        conn.execute("UPDATE durable_events SET value = replace(value, '1', '2') WHERE value LIKE '%number%'")
    engine = await engines.file(*DEFINITIONS)
    (info,) = [each async for each in engine.runs()]
    for ask in (lambda: info.arguments, lambda: info.result):
        with pytest.raises(JournalCorruptError, match="checksum"):
            ask()
    assert (info.id, info.status) == (run.id, "succeeded")


async def test_a_list_of_runs_with_large_values_is_read_in_shorter_pages(engines):
    """
    All of them, in order, however large they are.
    """

    @job
    def echo(text: str) -> int:
        return len(text)

    engine = await engines.memory(echo)
    runs = await engine.start_many([echo("x" * 900_000) for _ in range(12)])
    for run in runs:
        await run.result(20)
    assert [info.id async for info in engine.runs()] == [run.id for run in reversed(runs)]
    assert [len(info.arguments.args[0]) async for info in engine.runs(limit=7)] == [900_000] * 7


async def test_what_a_run_is_a_fork_of_goes_along_with_it(engines, tmp_path, tmp_db, reached):
    """
    Exported and imported, a fork names its source as before.
    """
    engine = await engines.file(*DEFINITIONS)
    run = await engine.start(approval(Order(1)), id="first")
    await reached(run, "waiting")
    await run.fork(0, id="second")
    await engine.export(["second"], tmp_path / "runs.jsonl")
    elsewhere = await engines.memory(*DEFINITIONS)
    await elsewhere.import_runs(read_histories(tmp_path / "runs.jsonl"))
    assert (await elsewhere.get("second").info()).forked_from == "first"


# --- what it waits for ----------------------------------------------------------------------------


def told(waits):
    return [(wait.kind, wait.name, wait.position) for wait in waits]


async def test_what_a_run_waits_for_is_told_in_values(journal, reached):
    """
    Kind, name and position, since when and until when; for whom. Of one run and in lists alike.
    """
    top = await journal.start(approvals(1, 2), id="top")
    nap = await journal.start(napping(3600.0), id="nap")
    late = await journal.start(napping(1.0), id="late", delay=3600)
    for run_id in ("top", "top~.0.0", "top~.0.1", "nap"):
        await reached(journal.get(run_id), "waiting")
    first, second = await top.waits()
    assert told([first, second]) == [("child", "approval", "0.0"), ("child", "approval", "0.1")]
    assert (first.holder, second.holder) == ("top~.0.0", "top~.0.1")
    (wait,) = await journal.get("top~.0.1").waits()
    assert told([wait]) == [("signal", "approved", "0")]
    assert wait.due is None
    (timer,) = await nap.waits()
    assert told([timer]) == [("timer", "nap", "0")]
    assert timer.due == pytest.approx(timer.since + 3600, abs=0.01)
    (start,) = await late.waits()
    assert told([start]) == [("start", None, None)]
    assert {info.id: list(info.waits) async for info in journal.runs(workflow=napping)} == {
        "nap": [timer._replace(called=None)],  # which lists do not look up
        "late": [start],
    }
    assert list((await nap.info()).waits) == [timer]


async def test_the_bound_of_a_wait_is_told_behind_it(engines, reached):
    """
    A `timeout` around it, and the time of the whole run, are no more than what ends it.
    """

    @workflow(timeout=7200)
    async def bounded() -> Flow[None]:
        yield timeout(wait_for("go"), 3600)

    engine = await engines.memory(bounded)
    run = await engine.start(bounded())
    await reached(run, "waiting")
    waits = await run.waits()
    assert told(waits) == [("signal", "go", "0.0"), ("deadline", None, None), ("timer", "timeout", "0")]
    assert [round(wait.due - wait.since) for wait in waits[1:]] == [7200, 3600]
    assert "waits for signal 'go' at 0.0" in await run.why()


async def test_who_holds_a_limit_is_told_to_who_waits_for_it(engines, reached):
    """
    With its key; and the next attempt of a step, by the step's name.
    """
    gate, began = asyncio.Event(), asyncio.Event()

    @job(limit=Limit("gate", concurrency=1), limit_key=lambda number: f"k{number % 2}")
    async def inside(number: int) -> None:
        began.set()
        await gate.wait()

    @step(retry=Retry(attempts=2, delay=3600))
    async def flaky() -> None:
        raise OSError("not yet")

    @workflow
    async def patient() -> Flow[None]:
        yield flaky()

    engine = await engines.memory(inside, patient)
    first = await engine.start(inside(1))
    await began.wait()
    second = await engine.start(inside(3))
    await reached(second, "waiting")
    (wait,) = await second.waits()
    assert (wait.kind, wait.name, wait.key, wait.holder) == ("slot", "gate", "k1", first.id)
    retried = await engine.start(patient())
    await reached(retried, "waiting")
    (wait,) = await retried.waits()
    assert told([wait]) == [("retry", "flaky", "0")]
    gate.set()
    assert await second.result(5) is None
    assert list(await second.waits()) == []


async def test_what_holds_a_run_up_comes_first(engines, reached, eventually):
    """
    That it is paused, or its queue; its turn there; a step that was cancelled and has not ended.
    """
    began, may_end = asyncio.Event(), asyncio.Event()

    @step
    async def slow() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            await may_end.wait()

    @workflow
    async def stubborn() -> Flow[None]:
        yield slow()

    @job(queue="one")
    async def queued() -> None: ...

    engine = await engines.memory(approval, stubborn, queued, queues=[Queue("one", concurrency=1)])
    await engine.queue("one").pause()
    run = await engine.start(queued())
    assert told(await run.waits()) == [("resume", "one", None)]
    held = await engine.start(approval(Order(1)))
    await reached(held, "waiting")
    await held.pause()
    assert told(await held.waits()) == [("resume", None, None), ("signal", "approved", "0")]
    ending = await engine.start(stubborn())
    await began.wait()
    assert told(await ending.waits()) == []
    await ending.cancel()

    async def cancelled():
        return [wait for wait in told(await ending.waits()) if wait[0] == "ending"] == [("ending", "slow", "0")]

    await eventually(cancelled)
    may_end.set()
    with pytest.raises(RunCancelledError):
        await ending.result(5)


# --- families, counts, limits ---------------------------------------------------------------------


async def test_descendants_are_all_that_a_run_has_led_to(journal, reached):
    """
    Children, theirs, and so on, oldest first; without the run itself, and without those of others.
    """
    top = await journal.start(grandparent(), id="top")
    await journal.start(approvals(3), id="other")
    for run_id in ("top", "top~.0", "top~.0~.0.0", "top~.0~.0.1", "other", "other~.0.0"):
        await reached(journal.get(run_id), "waiting")
    assert [info.id for info in await top.descendants()] == ["top~.0", "top~.0~.0.0", "top~.0~.0.1"]
    assert [info.id for info in await journal.get("top~.0~.0.1").descendants()] == []
    with pytest.raises(RunNotFoundError):
        await journal.get("none").descendants()


async def test_runs_are_counted_by_what_they_have_in_common(journal, reached):
    """
    By one thing, or by several together: also by a label, which some may not have.
    """
    await journal.start(broken(1), labels={"city": "Bern"})
    await reached(await journal.start(broken(2)), "failed")
    await reached(await journal.start(napping(3600.0)), "waiting")
    assert await journal.counts(by=("workflow", "status")) == {("broken", "failed"): 2, ("napping", "waiting"): 1}
    assert await journal.counts() == await journal.counts(by=["workflow", "status"])
    assert await journal.counts(by="status") == {"failed": 2, "waiting": 1}
    assert await journal.counts(by=("kind", "label:city")) == {
        ("job", "Bern"): 1,
        ("job", None): 1,
        ("workflow", None): 1,
    }
    for by in ("colour", (), ["status", "priority"]):
        with pytest.raises(UsageError, match="workflow, version, kind, status, queue and label:NAME"):
            await journal.counts(by=by)


async def test_a_limit_tells_who_is_in_it_and_who_waits(engines, tmp_db, eventually):
    """
    In their order, with the step and the key; of each, and of all limits, from a client too.
    """
    gate = asyncio.Event()

    @step(limit=Limit("gate", concurrency=1), limit_key=lambda name: name)
    async def inside(name: str) -> None:
        await gate.wait()

    @workflow
    async def visitor(name: str) -> Flow[None]:
        yield inside(name)

    engine = await engines.file(visitor, limits=[Limit("other", concurrency=3)])
    for number, name in enumerate("aab"):
        await engine.start(visitor(name), id=f"v{number}")

    async def all_there():
        info = await engine.limit("gate").info()
        return (info.inside, info.waiting) == (2, 1)

    await eventually(all_there)
    info = await engine.limit("gate").info()
    assert [(slot.run, slot.position, slot.key) for slot in info.holders] == [("v0", "0", "a"), ("v2", "0", "b")]
    assert [(slot.run, slot.position, slot.key) for slot in info.waiters] == [("v1", "0", "a")]
    assert await engine.limits() == [info, await engine.limit("other").info()]
    async with Client(tmp_db) as client:
        assert await client.limits() == await engine.limits()
    gate.set()


# --- its steps ------------------------------------------------------------------------------------


@step(retry=Retry(attempts=3, delay=0.0))
async def charge(card: str) -> Order:
    if context().attempt < 3:
        raise OSError(f"{card} is busy")
    await memo("model", answer, 1)
    await memo("model", answer, 2)
    return Order(7)


async def answer(number: int) -> int:
    return number


@transaction
def note(tx: Transaction, number: int) -> int:
    return number


@step
async def refuse() -> None:
    await memo("asked", answer, 5)
    raise LookupError("no such card")


@workflow
async def shopping() -> Flow[None]:
    yield charge("visa")
    yield note(3)
    yield refuse()


async def test_the_steps_of_a_run_are_told_with_their_attempts(engines, tmp_db):
    """
    Position, name, status, each attempt with its start, end and error, result and memos; from a client too.
    """
    engine = await engines.file(shopping)
    run = await engine.start(shopping())
    with pytest.raises(RunFailedError):
        await run.result(10)
    steps = await run.steps()
    assert [(each.position, each.name, each.kind, each.status, each.error) for each in steps] == [
        ("0", "charge", "step", "succeeded", None),
        ("1", "note", "transaction", "succeeded", None),
        ("2", "refuse", "step", "failed", "LookupError: no such card"),
    ]
    charged, noted, refused = steps
    assert [(each.number, each.status, each.error) for each in charged.attempts] == [
        (1, "retrying", "OSError: visa is busy"),
        (2, "retrying", "OSError: visa is busy"),
        (3, "succeeded", None),
    ]
    times = [at for each in charged.attempts for at in (each.started_at, each.ended_at)]
    assert times == sorted(times)
    assert charged.ended_at == times[-1]
    assert (charged.result, noted.result, refused.result) == ({"number": 7}, 3, None)
    assert charged.memos == {"model": 1, "model:2": 2}
    assert refused.memos == {"asked": 5}
    assert charged.site.startswith("shell/test_run_info.py:")
    async with Client(tmp_db) as client:
        assert await client.get(run.id).steps() == steps


async def test_what_steps_were_called_with_is_told_where_their_code_is_at_hand(engines, tmp_db):
    """
    By an engine: of members of groups and of jobs, too. A client has no code, but that of what it has started.
    """

    @workflow
    async def shops() -> Flow[None]:
        yield note(number=3)
        yield gather(charge("visa"), settle(refuse()))
        yield counted(5)

    @job
    async def counted(times: int, *, loud: bool = False) -> int:
        return times

    engine = await engines.file(shops, counted)
    run = await engine.start(shops())
    await run.result(10)
    said = [(each.position, *each.arguments) for each in await run.steps()]
    assert said == [("0", (3,), {}), ("1.0", ("visa",), {}), ("1.1.0", (), {})]
    (child,) = await run.children()
    (function,) = await engine.get(child.id).steps()
    assert function.arguments == ((5,), {})
    async with Client(tmp_db) as client:
        assert [each.arguments for each in await client.get(run.id).steps()] == [None, None, None]

    @workflow(name="shops")
    async def changed() -> Flow[None]:
        yield note(number=4)
        yield wait_for("other")

    await engine.aclose()
    engine = await engines.file(changed)
    assert [each.arguments for each in await engine.get(run.id).steps()] == [((4,), {}), None, None]


async def test_a_step_that_waits_for_its_next_attempt_says_until_when(engines, reached):
    """
    `due`; a job has one step, its function.
    """

    @job(retry=Retry(attempts=2, delay=50.0, jitter=0.0))
    async def flaky() -> None:
        raise OSError("not yet")

    engine = await engines.memory(flaky)
    run = await engine.start(flaky())
    await reached(run, "waiting")
    (only,) = await run.steps()
    assert (only.position, only.name, only.status, only.error) == ("0", "flaky", "retrying", "OSError: not yet")
    assert only.ended_at is None
    assert only.due - only.attempts[0].ended_at == pytest.approx(50.0, abs=0.01)
    with pytest.raises(RunNotFoundError):
        await engine.get("none").steps()


@pytest.mark.parametrize("kind", ["step", "job"])
async def test_memos_are_kept_unless_they_are_not_to_be(engines, kind):
    """
    After the step and its run have ended; with `keep_memos=False` they go with its success, as a cursor does.
    """

    async def asks() -> int:
        await cursor(0).advance(1)
        return await memo("model", answer, 5)

    @workflow
    async def both() -> Flow[None]:
        yield gather(*(call_of() for call_of in asked))

    definition = job if kind == "job" else step
    asked = [definition(name="kept")(asks), definition(name="dropped", keep_memos=False)(asks)]
    engine = await engines.memory(both, *(asked if kind == "job" else ()))
    run = await engine.start(both())
    await run.result(10)
    runs = [run] if kind == "step" else [engine.get(f"{run.id}~.0.0"), engine.get(f"{run.id}~.0.1")]
    steps = [each for one in runs for each in await one.steps()]
    assert [(each.name, each.memos, each.result) for each in steps] == [("kept", {"model": 5}, 5), ("dropped", {}, 5)]
    names = await engine.read(lambda conn: conn.execute("SELECT name FROM durable_notes").fetchall())
    assert names == [("kept:memo:model:1",)]
    assert await engine.prune(0) > 0
    assert await engine.read(lambda conn: conn.execute("SELECT count(*) FROM durable_notes").fetchone()) == (0,)


async def test_a_step_that_is_done_once_more_asks_anew_for_what_was_kept(engines):
    """
    A forced retry sets its success aside, and so the memos of it; those of the new one are kept then.
    """
    asked = []

    async def count() -> int:
        asked.append(len(asked))
        return asked[-1]

    @step
    async def fragile() -> None:
        if not asked[1:]:
            raise ValueError("not now")

    @step
    async def refund() -> int:
        return await memo("count", count)

    @workflow
    async def body() -> Flow[int]:
        try:
            yield fragile()
        except ValueError:
            yield refund()
            raise
        yield Return((yield refund()))

    engine = await engines.memory(body)
    run = await engine.start(body())
    with pytest.raises(RunFailedError):
        await run.result(10)
    assert [each.memos for each in await run.steps()] == [{}, {"count": 0}]
    asked.append(1)
    await run.retry(force=True)
    assert await run.result(10) == 2
    assert [each.memos for each in await run.steps()] == [{}, {"count": 2}]

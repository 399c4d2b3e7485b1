"""
Batches: members that are watched together, and callbacks that start once each, in a total order.
"""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from durable import (
    BatchClosedError,
    Client,
    Flow,
    KeyConflictError,
    Retry,
    Return,
    context,
    continue_as,
    current_batch,
    job,
    step,
    wait_for,
    workflow,
)
from durable.errors import BatchNotFoundError, EncodeError, RetryRefusedError, RunExistsError, UsageError

pytestmark = pytest.mark.anyio


@pytest.fixture
def world():
    """
    Definitions that note what ran, in order; gates hold members back.
    """
    made = SimpleNamespace(ran=[], gates={}, broken=set())

    def gate(name):
        return made.gates.setdefault(name, asyncio.Event())

    @job
    async def member(name: str) -> str:
        made.ran.append(name)
        return name

    @job
    async def gated(name: str) -> str:
        made.ran.append(f"begin {name}")
        await gate(name).wait()
        made.ran.append(name)
        return name

    @job
    async def fails(name: str) -> None:
        made.ran.append(name)
        raise ValueError(name)

    @job
    async def flaky(name: str) -> str:
        made.ran.append(name)
        if name in made.broken:
            raise ValueError(name)
        return name

    @job
    async def call(name: str) -> str:
        assert context().batch == current_batch().id
        made.ran.append(name)
        return name

    made.gate, made.member, made.gated, made.fails, made.flaky, made.call = gate, member, gated, fails, flaky, call
    made.all = [member, gated, fails, flaky, call]
    return made


def calls(world):
    """A callback for each event."""
    return {f"on_{event}": world.call(event) for event in ("success", "failure", "complete")}


def ran(world, *names):
    """Those of *names* that ran, as often as they did, in order."""
    return [name for name in world.ran if name in names]


EVENTS = ("success", "failure", "complete")


async def count(engine, sql, *values):
    return await engine._backend.read(lambda conn: conn.execute(sql, values).fetchone()[0])


# --- how batches end ------------------------------------------------------------------------------


async def test_success_starts_once_after_the_last_member(engines, world):
    """
    All members succeed: complete and success start once each, with the arguments given at creation.
    """
    engine = await engines.memory(*world.all)
    async with engine.batch(**calls(world), description="three", labels={"team": "a"}) as batch:
        for name in ("a", "b", "c"):
            batch.add(world.member(name))
    info = await batch.wait(5)
    assert world.ran[:3] == ["a", "b", "c"]
    assert sorted(world.ran[3:]) == ["complete", "success"]
    assert (info.status, info.outcome, info.description, info.labels) == (
        "complete",
        "succeeded",
        "three",
        {"team": "a"},
    )
    assert (info.total, info.pending, info.succeeded, info.failed, info.cancelled) == (3, 0, 3, 0, 0)
    assert info.created_at <= info.completed_at <= info.finished_at


async def test_a_member_that_succeeds_on_retry_counts_as_success(engines, world):
    """
    Only an end for good is an end.
    """

    @job(retry=Retry(attempts=3, delay=0.001))
    def third_time() -> int:
        if context().attempt < 3:
            raise ConnectionError
        return context().attempt

    engine = await engines.memory(third_time, *world.all)
    async with engine.batch(**calls(world)) as batch:
        batch.add(third_time())
    assert (await batch.wait(5)).outcome == "succeeded"
    assert sorted(world.ran) == ["complete", "success"]


async def test_failure_starts_once_however_many_fail(engines, world):
    """
    At the first member that failed for good, while others go on; complete after the last; success never.
    """
    engine = await engines.memory(*world.all)
    async with engine.batch(**calls(world)) as batch:
        for number in range(5):
            batch.add(world.fails(str(number)))
        batch.add(world.gated("last"))

    async def failure_ran():
        return "failure" in world.ran and (await batch.info()).failed == 5

    await _eventually(failure_ran)
    info = await batch.info()
    assert (info.status, info.pending, info.outcome) == ("open", 1, None)
    later = await batch.add(world.fails("later"))
    await _eventually(lambda: _is(later, "failed"))
    world.gate("last").set()
    info = await batch.wait(5)
    assert (info.outcome, info.failed, info.succeeded) == ("failed", 6, 1)
    assert ran(world, *EVENTS) == ["failure", "complete"]


async def test_an_empty_batch_completes_at_once(engines, world):
    """
    Its callbacks start in the transaction that creates it; without callbacks it is finished there.
    """
    engine = await engines.memory(*world.all)
    async with engine.batch(**calls(world)) as batch:
        pass
    info = await batch.info()
    assert info.status == "complete"
    assert (await batch.wait(5)).outcome == "succeeded"
    assert sorted(world.ran) == ["complete", "success"]
    async with engine.batch() as silent:
        pass
    info = await silent.info()
    assert (info.status, info.outcome, info.completed_at) == ("complete", "succeeded", info.finished_at)


async def test_several_callbacks_of_one_event_all_start(engines, world):
    """
    One that fails stops no other; it makes the batch fail, which is finished when all have ended.
    """
    engine = await engines.memory(*world.all)
    async with engine.batch(on_complete=[world.fails("x"), world.call("y")], on_success=world.call("z")) as batch:
        batch.add(world.member("a"))
    info = await batch.wait(5)
    assert sorted(world.ran) == ["a", "x", "y", "z"]
    assert (info.outcome, info.succeeded) == ("failed", 1)


async def test_a_failing_callback_retries_by_its_own_policy(engines, world):
    """
    Members are not run again for it.
    """

    @job(retry=Retry(attempts=3, delay=0.001))
    def stubborn() -> None:
        world.ran.append(f"attempt {context().attempt}")
        if context().attempt < 3:
            raise ConnectionError

    engine = await engines.memory(stubborn, *world.all)
    async with engine.batch(on_success=stubborn()) as batch:
        batch.add(world.member("a"))
    assert (await batch.wait(5)).outcome == "succeeded"
    assert world.ran == ["a", "attempt 1", "attempt 2", "attempt 3"]


async def test_workflows_with_delays_follow_ups_and_successors_are_members(engines, world, clock, eventually):
    """
    A delayed member keeps the batch open; what a member continues as takes its place; its follow-ups are none.
    """

    @workflow
    async def counts(left: int) -> Flow[str]:
        if left:
            yield continue_as(counts(left - 1))
        yield Return((yield world.member("child")))

    engine = await engines.memory(counts, *world.all, clock=clock)
    async with engine.batch(on_success=world.call("success")) as batch:
        batch.add(counts(2).then(world.member("follow-up")))
        later = batch.add(world.member("later"), delay=60, priority=3, labels={"a": "b"})

    async def one_is_left():
        return (await batch.info()).pending == 1 and "follow-up" in world.ran

    await eventually(one_is_left)
    later = await later
    assert await later.status() == "pending"
    assert (await later.info()).batch == batch.id
    clock.advance(61)
    info = await batch.wait(5)
    assert (info.total, info.succeeded) == (2, 2)
    assert [member.workflow for member in await batch.members()] == ["member", "counts"]
    assert world.ran == ["child", "follow-up", "later", "success"]


# --- creating them ---------------------------------------------------------------------------------


async def test_an_error_in_the_block_adds_nothing(engines, world):
    """
    Neither batch nor members nor nested batches; nor does a member that cannot be recorded.
    """
    engine = await engines.memory(*world.all)
    with pytest.raises(LookupError):
        async with engine.batch(on_success=world.call("success")) as batch:
            batch.add(world.member("a"))
            async with batch.batch() as nested:
                nested.add(world.member("b"))
            raise LookupError
    with pytest.raises(EncodeError):
        async with engine.batch() as other:
            other.add(world.member("a"))
            other.add(world.member(object()))
    assert [info async for info in engine.batches()] == []
    assert [info async for info in engine.runs()] == []
    with pytest.raises(BatchNotFoundError):
        await engine.get_batch(batch.id).info()
    with pytest.raises(UsageError, match="block raised"):
        batch.add(world.member("a"))


async def test_a_member_that_is_refused_refuses_the_whole_batch(engines, world):
    """
    One transaction: no row of it is left.
    """
    engine = await engines.memory(*world.all)
    await engine.start(world.gated("busy"), key="k")
    with pytest.raises(KeyConflictError, match="outside of batch"):
        async with engine.batch() as batch:
            batch.add(world.member("a"))
            batch.add(world.gated("busy").options(key="k"))
    assert [info async for info in engine.batches()] == []
    assert "a" not in world.ran
    assert await count(engine, "SELECT count(*) FROM durable_runs") == 1


async def test_a_key_may_not_join_a_run_outside_the_batch(engines, world):
    """
    Its end would not be awaited, so it is refused; one that replaces that run, or is in the batch, is a member.
    """
    engine = await engines.memory(*world.all)
    outside = await engine.start(world.gated("g"), key="k", id="outside")
    with pytest.raises(RunExistsError, match="no member of batch"):
        async with engine.batch() as batch:
            batch.add(world.gated("g"), id="outside")
    async with engine.batch(on_success=world.call("success")) as batch:
        first = batch.add(world.gated("g"), key="k", on_conflict="replace")
        second = batch.add(world.gated("g").options(key="k"))
    assert await first == await second
    assert (await batch.info()).total == 1
    await _eventually(lambda: _is(outside, "cancelled"))
    world.gate("g").set()
    assert (await batch.wait(5)).outcome == "succeeded"


async def test_an_id_makes_creating_a_batch_idempotent(engines, world):
    """
    The same id and contents: the same batch. Other contents: an error that starts nothing.
    """
    engine = await engines.memory(*world.all)

    async def create(name):
        async with engine.batch(id="nightly", on_success=world.call("success")) as batch:
            added = batch.add(world.member(name))
            async with batch.batch(labels={"a": "b"}) as nested:
                nested.add(world.member("n"))
        return batch, await added

    batch, member = await create("a")
    assert await member.result(5) == "a"
    again, same = await create("a")
    assert (again, same) == (batch, member)
    with pytest.raises(UsageError, match="'nightly' exists already"):
        await create("b")
    await batch.wait(5)
    assert sorted(world.ran) == ["a", "n", "success"]


async def test_a_default_written_out_makes_no_other_batch(engines):
    """
    Of a member, a callback or what is nested; and in a step, where the nth member of each attempt is the same.
    """

    @job
    async def f(number: int, opt: int = 3) -> int:
        return number + opt

    @job(retry=Retry(attempts=2, delay=0.001))
    async def adds() -> None:
        if context().attempt == 1:
            await current_batch().add(f(1))
            raise ConnectionError
        await current_batch().add(f(1, opt=3))

    async def create(call):
        async with engine.batch(id="bb", on_success=call) as batch:
            member = batch.add(call)
            async with batch.batch(on_complete=call) as nested:
                nested.add(call)
        return await member

    engine = await engines.memory(f, adds)
    assert await create(f(1)) == await create(f(1, opt=3))
    with pytest.raises(UsageError, match="'bb' exists already"):
        await create(f(1, opt=4))
    async with engine.batch() as batch:
        batch.add(adds())
    info = await batch.wait(5)
    assert (info.outcome, info.total) == ("succeeded", 2)


async def test_wrong_uses_are_refused_where_they_are_written(engines, world):
    """
    Each says what to do.
    """

    @step
    async def a_step() -> None: ...

    engine = await engines.memory(*world.all)
    batch = engine.batch()
    with pytest.raises(UsageError, match="has yet to begin"):
        batch.add(world.member("a"))
    async with batch:
        with pytest.raises(TypeError, match="expected a call of a @workflow or @job"):
            batch.add(a_step())
        with pytest.raises(UsageError, match="at the end of its block"):
            await batch.info()
    with pytest.raises(UsageError, match="entered once"):
        async with batch:
            pass
    with pytest.raises(UsageError, match="neither id nor key"):
        engine.batch(on_success=world.call("x").options(key="k"))
    for wrong, found in ((a_step(), "a call of step 'a_step'"), (a_step, "the function 'a_step' itself"), (5, "int 5")):
        with pytest.raises(TypeError, match=f"expected a call of a @workflow or @job, found {found}"):
            engine.batch(on_failure=wrong)
    with pytest.raises(UsageError, match="current_batch"):
        current_batch()
    with pytest.raises(BatchNotFoundError, match="'absent'"):
        await engine.get_batch("absent").wait(5)
    with pytest.raises(BatchNotFoundError):
        await engine.get_batch("absent").cancel()
    with pytest.raises(UsageError, match="known by its id alone"):
        engine.get_batch("absent").parent.info()
    with pytest.raises(TimeoutError):
        async with engine.batch() as waiting:
            waiting.add(world.gated("never"))
        await waiting.wait(0.01)
    assert (await waiting.info()).pending == 1


# --- adding members --------------------------------------------------------------------------------


async def test_members_are_added_while_the_batch_is_open(engines, world):
    """
    From outside, one or many in a transaction; afterwards it is refused, and nothing starts.
    """
    engine = await engines.memory(*world.all)
    async with engine.batch(on_success=world.call("success")) as batch:
        batch.add(world.gated("g"))
    added = await engine.get_batch(batch.id).add(world.member("a"))
    assert await added.result(5) == "a"
    many = await batch.add_many([world.member(name) for name in "bc"])
    assert [await each.result(5) for each in many] == ["b", "c"]
    assert ran(world, "success") == []
    world.gate("g").set()
    assert (await batch.wait(5)).total == 4
    before = await count(engine, "SELECT count(*) FROM durable_runs")
    with pytest.raises(BatchClosedError, match="complete") as caught:
        await batch.add(world.member("late"))
    assert caught.value.batch_id == batch.id
    with pytest.raises(BatchClosedError, match="complete"):
        async with batch.batch() as nested:
            nested.add(world.member("late"))
    assert await count(engine, "SELECT count(*) FROM durable_runs") == before
    assert "late" not in world.ran


async def test_a_member_adds_members_that_outlive_it(engines, world):
    """
    It ends first, and the batch completes only after those that it added.
    """

    @job
    async def adds() -> None:
        run = await current_batch().add(world.gated("added"))
        world.ran.append(run.id)

    engine = await engines.memory(adds, *world.all)
    async with engine.batch(**calls(world)) as batch:
        adder = batch.add(adds())
    await (await adder).result(5)
    info = await batch.info()
    assert (info.status, info.total, info.pending) == ("open", 2, 1)
    assert ran(world, *EVENTS) == []
    world.gate("added").set()
    assert (await batch.wait(5)).outcome == "succeeded"
    assert f"{(await adder).id}:0:member.0" in world.ran


async def test_members_added_without_await_are_recorded_before_the_outcome(engines, world):
    """
    In a thread at once, on the loop before the step's end.
    """

    @job
    def threaded() -> int:
        assert threading.current_thread() is not threading.main_thread()
        for number in range(3):
            current_batch().add(world.member(f"t{number}"))
        current_batch().add_many([world.member("t3"), world.member("t4")])
        return 3

    @job
    async def looped() -> None:
        for number in range(3):
            current_batch().add(world.member(f"l{number}"))

    @job(thread=False)
    def inline() -> None:
        current_batch().add(world.member("i"))

    engine = await engines.memory(threaded, looped, inline, *world.all)
    async with engine.batch(on_success=world.call("success")) as batch:
        batch.add_many([threaded(), looped(), inline()])
    info = await batch.wait(5)
    assert (info.outcome, info.total) == ("succeeded", 12)
    assert sorted(world.ran[:-1]) == ["i", "l0", "l1", "l2", "t0", "t1", "t2", "t3", "t4"]
    assert world.ran[-1] == "success"


async def test_a_step_of_a_workflow_adds_members(engines, world):
    """
    The run's batch is that of its steps; the children of a member are no members.
    """

    @step
    async def adds() -> str:
        await current_batch().add(world.member("added"))
        return context().batch

    @job
    async def child() -> str | None:
        with pytest.raises(UsageError, match="members or callbacks"):
            current_batch()
        return context().batch

    @workflow
    async def parent() -> Flow[list[object]]:
        with pytest.raises(UsageError, match="ask in a step"):
            current_batch()
        found: list[object] = [(yield adds()), (yield child())]
        yield Return(found)

    engine = await engines.memory(parent, child, *world.all)
    async with engine.batch(on_success=world.call("success")) as batch:
        run = batch.add(parent())
    assert await (await run).result(5) == [batch.id, None]
    assert (await batch.wait(5)).total == 2


async def test_members_may_add_members_without_end(engines, world):
    """
    Ids are derived from those that add, and stay short all the same.
    """

    @job
    async def adds(left: int) -> None:
        if left:
            await current_batch().add(adds(left - 1))

    @job
    async def goes_on(left: int) -> None:
        if left:
            async with current_batch().parent.batch(on_success=goes_on(left - 1)):
                pass

    engine = await engines.memory(adds, goes_on, *world.all)
    async with engine.batch() as outer:
        outer.add(adds(60))
        async with outer.batch(on_success=goes_on(60)):
            pass
    info = await outer.wait(20)
    assert (info.outcome, info.total) == ("succeeded", 61)
    assert len([info async for info in engine.batches()]) == 62
    assert max([len(info.run_id) async for info in engine.runs()]) < 200


async def test_an_attempt_that_is_repeated_adds_nothing_twice(engines, world):
    """
    The nth add of an attempt is the nth of each; a refused member that nobody awaits fails its adder.
    """

    @job(retry=Retry(attempts=3, delay=0.001))
    async def adds() -> None:
        await current_batch().add(world.member("one"))
        async with current_batch().batch(on_success=world.call("nested")) as nested:
            nested.add(world.member("three"))
        current_batch().add(world.member("two"))
        if context().attempt < 3:
            raise ConnectionError

    @job
    async def clumsy() -> None:
        current_batch().add(world.member("elsewhere"), id="elsewhere")

    engine = await engines.memory(adds, clumsy, *world.all)
    await engine.run(world.member("elsewhere"), id="elsewhere")
    async with engine.batch(on_success=world.call("success")) as batch:
        batch.add(adds())
    assert (await batch.wait(5)).total == 3
    assert sorted(world.ran) == ["elsewhere", "nested", "one", "success", "three", "two"]
    async with engine.batch(on_failure=world.call("failure")) as batch:
        run = batch.add(clumsy())
    assert (await batch.wait(5)).outcome == "failed"
    assert "no member of batch" in (await (await run).info()).reason


async def test_a_member_adds_while_its_engine_closes(engines, world):
    """
    In the grace that steps get, an add is recorded: it is not a failure of the step.
    """

    @job
    async def late() -> None:
        await world.gate("late").wait()
        await current_batch().add(world.member("added"))

    engine = await engines.file(late, *world.all)
    async with engine.batch(on_success=world.call("success")) as batch:
        run = await batch.add(late())
    await _eventually(lambda: _is(run, "running"))
    closing = asyncio.ensure_future(engine.aclose())
    await asyncio.sleep(0)
    world.gate("late").set()
    await closing
    assert world.ran == []
    engine = await engines.file(late, *world.all)
    assert (await engine.get_batch(batch.id).wait(5)).succeeded == 2
    assert sorted(world.ran) == ["added", "success"]


# --- nested batches ----------------------------------------------------------------------------------


async def test_a_nested_batch_is_finished_before_anything_of_its_parent(engines, world):
    """
    The total order: members, callbacks of the innermost, then of the next, then of the outermost.
    """
    engine = await engines.memory(*world.all)
    async with engine.batch(on_success=world.call("1s"), on_complete=world.call("1c")) as outer:
        outer.add(world.member("m1"))
        async with outer.batch(on_success=world.gated("2s")) as middle:
            middle.add(world.member("m2"))
            async with middle.batch(on_complete=world.gated("3c")) as inner:
                inner.add(world.gated("m3"))
    for name in ("m3", "3c", "2s"):
        await _eventually(lambda name=name: _has(world.ran, f"begin {name}"))
        world.gate(name).set()
    info = await outer.wait(5)
    order = [name for name in world.ran if not name.startswith(("begin", "m1", "m2"))]
    assert order[:3] == ["m3", "3c", "2s"]
    assert sorted(order[3:]) == ["1c", "1s"]
    assert (info.outcome, info.total) == ("succeeded", 1)
    assert (await inner.info()).parent == middle.id
    assert inner.parent == middle
    assert middle.parent.parent is None


async def test_a_nested_batch_that_fails_makes_its_parent_fail(engines, world):
    """
    By a member of it: once it is finished, the parent's failure starts, and success never.
    """
    engine = await engines.memory(*world.all)
    async with engine.batch(**calls(world)) as outer:
        outer.add(world.gated("g"))
        async with outer.batch(on_failure=world.gated("nested failure")) as nested:
            nested.add(world.fails("f"))
    await _eventually(lambda: _has(world.ran, "begin nested failure"))
    assert ran(world, *EVENTS) == []
    world.gate("nested failure").set()
    await _eventually(lambda: _has(world.ran, "failure"))
    assert (await outer.info()).status == "open"
    world.gate("g").set()
    assert (await outer.wait(5)).outcome == "failed"
    assert ran(world, *EVENTS) == ["failure", "complete"]


async def test_a_failing_callback_of_a_nested_batch_makes_the_parent_fail(engines, world):
    """
    Although all members succeeded.
    """
    engine = await engines.memory(*world.all)
    async with engine.batch(**calls(world)) as outer, outer.batch(on_success=world.fails("bad")) as nested:
        nested.add(world.member("a"))
    assert (await outer.wait(5)).outcome == "failed"
    assert ran(world, *EVENTS) in (["failure", "complete"], ["complete", "failure"])
    assert (await nested.info()).outcome == "failed"


async def test_a_callback_adds_the_next_batch_to_the_parent(engines, world):
    """
    A chain of batches: the parent's callbacks wait for all, and for the callbacks between them.
    """

    @job
    async def goes_on(left: int) -> None:
        world.ran.append(f"left {left}")
        if left:
            async with current_batch().parent.batch(on_success=goes_on(left - 1)) as following:
                following.add(world.member(f"m{left}"))
            assert (await following.info()).parent == current_batch().parent.id
        else:
            await current_batch().parent.add(world.member("last"))

    engine = await engines.memory(goes_on, *world.all)
    async with engine.batch(**calls(world)) as outer, outer.batch(on_success=goes_on(2)) as first:
        first.add(world.member("m3"))
    assert (await outer.wait(5)).outcome == "succeeded"
    assert world.ran[:6] == ["m3", "left 2", "m2", "left 1", "m1", "left 0"]
    assert world.ran[6] == "last"
    assert sorted(world.ran[7:]) == ["complete", "success"]


async def test_a_failure_callback_adds_to_its_own_open_batch(engines, world):
    """
    A repair joins the batch; the callbacks of completion cannot add any more.
    """

    @job
    async def repair() -> None:
        await current_batch().add(world.member("repair"))

    @job
    async def too_late() -> str:
        with pytest.raises(BatchClosedError, match="complete"):
            await current_batch().add(world.member("late"))
        return "refused"

    engine = await engines.memory(repair, too_late, *world.all)
    async with engine.batch(on_failure=repair(), on_complete=too_late()) as batch:
        batch.add(world.fails("f"))
        batch.add(world.gated("g"))
    await _eventually(lambda: _has(world.ran, "repair"))
    world.gate("g").set()
    info = await batch.wait(5)
    assert (info.total, info.succeeded, info.failed) == (3, 2, 1)
    assert "late" not in world.ran
    assert [info.status async for info in engine.runs(workflow="too_late")] == ["succeeded"]


# --- cancelling, retrying ---------------------------------------------------------------------------


async def test_cancelling_ends_all_members_and_starts_complete_alone(engines, world):
    """
    Members not started never run, running ones get cancellation, nested batches too; again, it changes nothing.
    """
    engine = await engines.memory(*world.all, concurrency=1)
    async with engine.batch(**calls(world)) as batch:
        batch.add(world.gated("running"))
        batch.add(world.member("never"))
        batch.add(world.member("never"), delay=3600)
        async with batch.batch(on_success=world.call("nested success")) as nested:
            nested.add(world.member("never"))
    await _eventually(lambda: _has(world.ran, "begin running"))
    assert await batch.cancel("enough")
    info = await batch.wait(5)
    assert world.ran == ["begin running", "complete"]
    assert (info.outcome, info.cancelled, info.reason) == ("cancelled", 3, "enough")
    assert (await nested.info()).outcome == "cancelled"
    assert all("enough" in member.reason for member in await batch.members())
    assert not await batch.cancel("again")
    with pytest.raises(BatchClosedError):
        await batch.add(world.member("late"))


async def test_a_cancelled_batch_takes_no_members_while_it_ends(engines, world):
    """
    A member that cleans up cannot add to it, nor can anybody else; the second cancel says that it was asked before.
    """

    @workflow
    async def stubborn() -> Flow[None]:
        try:
            yield wait_for("never")
        finally:
            yield world.gated("clean-up")

    engine = await engines.memory(stubborn, *world.all)
    async with engine.batch(**calls(world)) as batch:
        run = batch.add(stubborn())
    await _eventually(lambda: _is(engine.get(run._value.id), "waiting"))
    assert await batch.cancel()
    await _eventually(lambda: _has(world.ran, "begin clean-up"))
    with pytest.raises(BatchClosedError, match="cancelled"):
        await batch.add(world.member("late"))
    assert not await batch.cancel()
    assert (await batch.info()).status == "open"
    world.gate("clean-up").set()
    assert (await batch.wait(5)).outcome == "cancelled"
    assert ran(world, "late", *EVENTS) == ["complete"]


async def test_a_cancelled_member_is_no_success_and_no_failure(engines, world):
    """
    Neither event starts; the batch ends as cancelled.
    """
    engine = await engines.memory(*world.all)
    async with engine.batch(**calls(world)) as batch:
        run = batch.add(world.gated("g"))
        batch.add(world.member("a"))
    await (await run).cancel()
    info = await batch.wait(5)
    assert (info.outcome, info.cancelled, info.succeeded) == ("cancelled", 1, 1)
    assert ran(world, *EVENTS) == ["complete"]


async def test_retrying_a_failed_member_reopens_it_while_the_batch_is_open(engines, world):
    """
    If it then succeeds, the batch does; its failure was told once.
    """
    engine = await engines.memory(*world.all)
    world.broken.add("f")
    async with engine.batch(**calls(world)) as batch:
        failing = batch.add(world.flaky("f"))
        batch.add(world.gated("g"))
    run = await failing
    await _eventually(lambda: _is(run, "failed"))
    await run.retry()
    await _eventually(lambda: _has(world.ran, "f", 2))
    await _eventually(lambda: _is(run, "failed"))
    world.broken.clear()
    await run.retry()
    assert await run.result(5) == "f"
    world.gate("g").set()
    assert (await batch.wait(5)).outcome == "succeeded"
    assert ran(world, "failure") == ["failure"]
    assert sorted(ran(world, "success", "complete")) == ["complete", "success"]


async def test_retrying_a_member_of_a_complete_batch_opens_the_batch_again(engines, world):
    """
    Success is told once all is mended; what was told before is not told again, and counts and outcome agree.
    """
    engine = await engines.memory(*world.all)
    world.broken.add("f")
    async with engine.batch(**calls(world)) as batch:
        failing = batch.add(world.flaky("f"))
    assert (await batch.wait(5)).outcome == "failed"
    run = await failing
    await run.retry()
    info = await batch.wait(5)
    assert (info.outcome, info.succeeded, info.failed) == ("failed", 0, 1)
    world.broken.clear()
    await run.retry()
    assert (await batch.info()).status == "open"
    assert await run.result(5) == "f"
    info = await batch.wait(5)
    assert (info.outcome, info.succeeded, info.failed) == ("succeeded", 1, 0)
    assert sorted(ran(world, *EVENTS)) == ["complete", "failure", "success"]


@pytest.mark.parametrize("by", ["engine", "client", "client alone"])
async def test_a_batch_is_retried_as_a_whole(engines, world, tmp_db, by):
    """
    Its failed members, those of nested batches, and what was cancelled before it began; nothing that has succeeded.
    """
    engine = await engines.file(*world.all)
    world.broken |= {"a", "d"}
    async with engine.batch(**calls(world), id="outer") as outer:
        outer.add(world.flaky("a"))
        outer.add(world.flaky("b"))
        late = outer.add(world.flaky("c"), delay=3600)
        async with outer.batch(on_success=world.call("inner")) as inner:
            inner.add(world.flaky("d"))
    await _eventually(lambda: _has(world.ran, "failure", 1))
    await (await late).cancel()
    info = await outer.wait(5)
    assert (info.outcome, info.failed, info.cancelled) == ("failed", 1, 1)
    world.broken.clear()
    if by == "client alone":
        await engine.aclose()
    async with Client(tmp_db) as client:
        asked = (engine if by == "engine" else client).get_batch("outer")
        assert await asked.retry() == 3
        assert await asked.retry() == 0
    if by == "client alone":
        engine = await engines.file(*world.all)
    info = await engine.get_batch("outer").wait(5)
    assert (info.outcome, info.succeeded, info.failed, info.cancelled) == ("succeeded", 3, 0, 0)
    assert (await engine.get_batch(inner.id).wait(5)).outcome == "succeeded"
    assert sorted(ran(world, "a", "b", "c", "d")) == ["a", "a", "b", "c", "d", "d"]
    assert sorted(ran(world, *EVENTS, "inner")) == ["complete", "failure", "inner", "success"]


async def test_a_cancelled_batch_may_be_retried(engines, world):
    """
    What had not begun begins: it is no cancelled batch any more.
    """
    engine = await engines.memory(*world.all)
    async with engine.batch(**calls(world)) as batch:
        batch.add(world.flaky("a"), delay=3600)
    await batch.cancel("oops")
    assert (await batch.wait(5)).outcome == "cancelled"
    assert await batch.retry() == 1
    info = await batch.wait(5)
    assert (info.outcome, info.cancelled_at, info.succeeded) == ("succeeded", None, 1)
    assert ran(world, "success") == ["success"]


async def test_a_failed_callback_is_retried_with_its_batch(engines, world):
    """
    It made the batch fail; the members are left alone.
    """
    engine = await engines.memory(*world.all)
    world.broken.add("told")
    async with engine.batch(on_success=world.flaky("told")) as batch:
        batch.add(world.flaky("a"))
    assert (await batch.wait(5)).outcome == "failed"
    world.broken.clear()
    assert await batch.retry() == 1
    assert (await batch.wait(5)).outcome == "succeeded"
    assert ran(world, "a", "told") == ["a", "told", "told"]


async def test_a_batch_with_a_member_that_made_up_for_its_failure(engines, world):
    """
    None of its members is retried, unless by force.
    """

    @step
    async def ship() -> None:
        world.ran.append("ship")
        if world.broken:
            raise ValueError("ship")

    @step
    async def refund() -> None:
        world.ran.append("refund")

    @workflow
    async def order() -> Flow[None]:
        try:
            yield ship()
        except ValueError:
            yield refund()
            raise

    engine = await engines.memory(*world.all, order)
    world.broken |= {"a", "ship"}
    async with engine.batch() as batch:
        batch.add(world.flaky("a"))
        batch.add(order())
    assert (await batch.wait(5)).failed == 2
    world.broken.clear()
    with pytest.raises(RetryRefusedError, match="refund"):
        await batch.retry()
    assert (await batch.info()).outcome == "failed"
    assert await batch.retry(force=True) == 2
    assert (await batch.wait(5)).outcome == "succeeded"
    with pytest.raises(BatchNotFoundError):
        await engine.get_batch("none").retry()


async def test_a_fork_is_no_member(engines, world):
    """
    Its end means nothing to the batch.
    """
    engine = await engines.memory(*world.all)

    @workflow
    async def two() -> Flow[str]:
        yield Return((yield world.member("a")))

    engine = await engines.memory(two, *world.all)
    async with engine.batch() as batch:
        run = batch.add(two())
    await batch.wait(5)
    fork = await (await run).fork(0)
    await fork.result(5)
    assert (await fork.info()).batch is None
    assert (await batch.info()).total == 1


# --- looking at them, keeping house ------------------------------------------------------------------


async def test_batches_are_listed_newest_first_and_found_by_labels(engines, world):
    """
    Paged; by labels, and by a part of the description.
    """
    engine = await engines.memory(*world.all)
    made = []
    for number in range(5):
        labels = {"parity": "odd" if number % 2 else "even"}
        async with engine.batch(description=f"number {number}", labels=labels) as batch:
            batch.add(world.member(str(number)))
        made.append(batch.id)
    assert [info.batch_id async for info in engine.batches()] == made[::-1]
    assert [info.batch_id async for info in engine.batches(labels={"parity": "odd"})] == [made[3], made[1]]
    assert [info.batch_id async for info in engine.batches(description="ber 2")] == [made[2]]
    first = [info async for info in engine.batches(limit=2)]
    rest = [info.batch_id async for info in engine.batches(after=first[-1].cursor)]
    assert rest == made[2::-1]
    assert [info.batch async for info in engine.runs(batch=made[0])] == [made[0]]


async def test_events_tell_of_batches(engines, world):
    """
    Failed, complete and finished, each once, under the batch's id.
    """
    engine = await engines.memory(*world.all)
    events = engine.events()
    async with engine.batch(on_failure=world.call("failure")) as batch:
        batch.add(world.fails("a"))
        batch.add(world.fails("b"))
    await batch.wait(5)
    told = []
    async for event in events:
        if event.name.startswith("batch."):
            told.append((event.name, event.run_id))
        if event.name == "batch.finished":
            break
    assert told == [(f"batch.{what}", batch.id) for what in ("failed", "complete", "finished")]


async def test_prune_deletes_a_batch_as_a_whole(engines, world, clock):
    """
    Never a member of an open one; with it go its nested batches, callbacks and children.
    """

    @workflow
    async def parent() -> Flow[str]:
        yield Return((yield world.member("child")))

    engine = await engines.memory(parent, *world.all, clock=clock)
    async with engine.batch(on_success=world.call("success")) as batch:
        old = batch.add(parent())
        batch.add(world.gated("g"))
        async with batch.batch(on_complete=world.call("nested")) as nested:
            nested.add(world.member("n"))
    run = await old
    await run.result(5)
    await nested.wait(5)
    clock.advance(100)
    assert await engine.prune(older_than=50) == 0
    world.gate("g").set()
    await batch.wait(5)
    assert await engine.prune(older_than=50) == 0
    clock.advance(100)
    assert await engine.prune(older_than=50) == 6
    with pytest.raises(BatchNotFoundError):
        await nested.info()
    for table in ("runs", "events", "batches"):
        assert await count(engine, f"SELECT count(*) FROM durable_{table}") == 0


async def test_asking_for_open_members_reads_an_index(engines, world):
    """
    No scan, no counter: the cost at the end of a member is the same with 10 and 10,000.
    """
    from durable._shell.writes import batch_ends

    engine = await engines.memory(*world.all)
    for sql, index in (
        (batch_ends._OPEN_MEMBER, "durable_runs_batch (batch=? AND status=?)"),
        (batch_ends._OPEN_CALLBACK, "durable_runs_callback (callback=? AND status=?)"),
        (batch_ends._UNFINISHED, "durable_batches_unfinished (parent=?)"),
    ):
        plan = await engine._backend.read(
            lambda conn, sql=sql: conn.execute(f"EXPLAIN QUERY PLAN {sql}", (1,)).fetchall()
        )
        assert index in " ".join(row[3] for row in plan)


async def test_ten_thousand_members_complete_once(engines):
    """
    Created in one transaction, looked at by index; `info` counts them in one query.
    """

    @job
    async def quick(number: int) -> None: ...

    @job
    async def done() -> int:
        info = await current_batch().info()
        return info.succeeded

    engine = await engines.memory(quick, done)
    async with engine.batch(on_success=done()) as batch:
        batch.add_many([quick(number) for number in range(10_000)])
    info = await batch.wait(60)
    assert (info.total, info.succeeded, info.outcome) == (10_000, 10_000, "succeeded")
    (callback,) = [info async for info in engine.runs(workflow="done")]
    assert await engine.get(callback.run_id).result(5) == 10_000


# --- from another process -----------------------------------------------------------------------------


@pytest.mark.parametrize("owned", [True, False])
async def test_a_client_makes_fills_and_cancels_batches(engines, world, owned):
    """
    Through the owner, or where nobody owns the file by itself: what it recorded, the next engine does.
    """
    engine = await engines.file(*world.all)
    if not owned:
        await engine.aclose()
    async with Client(engines.path) as client:
        async with client.batch(**calls(world), labels={"from": "client"}) as batch:
            batch.add(world.gated("g"))
            async with batch.batch(on_success=world.call("nested")) as nested:
                nested.add(world.member("n"))
        await batch.add(world.member("a"), labels={"a": "b"})
        async with client.batch(on_complete=world.call("cancelled")) as other:
            other.add(world.gated("other"))
        assert await other.cancel("no need")
        async with client.batch(on_success=world.call("empty")) as empty:
            pass
        with pytest.raises(BatchClosedError, match="complete"):
            await empty.add(world.member("late"))
        with pytest.raises(BatchNotFoundError):
            await client.get_batch("absent").add(world.member("late"))
        if not owned:
            engine = await engines.file(*world.all)
        world.gate("g").set()
        info = await batch.wait(5)
        assert (info.total, info.outcome, info.labels) == (2, "succeeded", {"from": "client"})
        assert (await other.wait(5)).outcome == "cancelled"
        assert (await empty.wait(5)).outcome == "succeeded"
        assert [found.batch_id async for found in client.batches(labels={"from": "client"})] == [batch.id]
        assert sorted(member.workflow for member in await batch.members()) == ["gated", "member"]
    expected = ["a", "cancelled", "complete", "empty", "g", "n", "nested", "success"]
    assert sorted(name for name in world.ran if not name.startswith("begin")) == expected


async def _eventually(condition, timeout=5.0):
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(0.002)


async def _is(run, status):
    return await run.status() == status


async def _has(names, name, times=1):
    return names.count(name) >= times


async def test_who_waits_too_long_for_a_batch_is_told_for_what(engines, world):
    """
    A member, a nested batch or a callback: which, how many, and why that one has not ended.
    """
    engine = await engines.memory(world.member, world.gated)
    async with engine.batch(on_complete=world.gated("last")) as batch:
        done = batch.add(world.member("a"))
        held = batch.add(world.gated("b"))
        async with batch.batch() as inner:
            inner.add(world.gated("c"))
    run = await held
    await (await done).result(5)
    match = rf"^batch '{batch.id}' is not finished after 0.05 s, .*: 1 of 2 members has not ended; run '{run.id}' "
    with pytest.raises(TimeoutError, match=match):
        await batch.wait(0.05)
    world.gates["b"].set()
    await run.result(5)
    match = f"batch '{inner.id}', which is nested in it, is not finished; 1 of 1 members has not ended; run "
    with pytest.raises(TimeoutError, match=match):
        await batch.wait(0.05)
    world.gates["c"].set()
    await inner.wait(5)
    with pytest.raises(TimeoutError, match="its members have ended, a callback has not; run "):
        await batch.wait(0.05)
    world.gates["last"].set()
    assert (await batch.wait(5)).outcome == "succeeded"

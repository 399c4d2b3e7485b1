"""
Named limits: slots and rates shared by steps, jobs and runs; who waits is rows, and nobody is let in twice or never.
"""

import asyncio
import contextlib

import pytest

from durable import (
    Client,
    Flow,
    Limit,
    LimitReachedError,
    Queue,
    Rate,
    Retry,
    Return,
    RunCancelledError,
    RunFailedError,
    continue_as,
    for_each,
    gather,
    job,
    race,
    settle,
    sleep,
    step,
    timeout,
    wait_for,
    workflow,
)
from durable.errors import DefinitionError

pytestmark = pytest.mark.anyio

TWO = Limit("two", concurrency=2)
ONE = Limit("one", concurrency=1)


class Room:
    """Counts who is inside; each stays until let go."""

    def __init__(self):
        self.inside = []
        self.entered = []
        self.peak = 0
        self.doors = {}
        self.open = False

    async def visit(self, name):
        self.inside.append(name)
        self.entered.append(name)
        self.peak = max(self.peak, len(self.inside))
        try:
            if self.open:
                await asyncio.sleep(0.002)
            else:
                await self.doors.setdefault(name, asyncio.Event()).wait()
        finally:
            self.inside.remove(name)

    def let_go(self, name):
        self.doors.setdefault(name, asyncio.Event()).set()

    async def entered_by(self, *names):
        async with asyncio.timeout(5):
            while not set(names) <= set(self.entered):
                await asyncio.sleep(0.001)


ROOM = Room()


@pytest.fixture
def room():
    """
    An empty room.
    """
    ROOM.__init__()
    return ROOM


@step(limit=TWO)
async def call_two(name: str) -> str:
    await ROOM.visit(name)
    return name


@job(limit=TWO)
async def job_two(name: str) -> str:
    await ROOM.visit(name)
    return name


@step(limit=ONE, on_poison="block")
async def call_one(name: str) -> str:
    await ROOM.visit(name)
    return name


@workflow
async def first_type(name: str) -> Flow[str]:
    value: str = yield call_two(name)
    yield Return(value)


@workflow
async def second_type(names: list[str]) -> Flow[list]:
    values: list[str] = yield gather(*(call_two(name) for name in names))
    yield Return(values)


@workflow
async def single(name: str) -> str:
    return await call_one(name)


async def slots(engine):
    """All rows of slots, as (position, granted)."""
    return await engine._backend.read(
        lambda conn: conn.execute("SELECT position, granted_at IS NOT NULL FROM durable_slots ORDER BY slot").fetchall()
    )


async def no_slots(engine, eventually):
    async def none():
        return await slots(engine) == []

    await eventually(none)


async def test_two_types_of_workflows_and_a_job_share_a_limit(engines, room, eventually):
    """
    Never more than two inside, however many wait; and all of them come in.
    """
    engine = await engines.memory(first_type, second_type, job_two)
    room.open = True
    runs = [await engine.start(first_type(f"a{n}")) for n in range(5)]
    runs += [await engine.start(second_type([f"b{n}.{m}" for m in range(3)])) for n in range(3)]
    runs += [await engine.start(job_two(f"c{n}")) for n in range(5)]
    for run in runs:
        await run.result(5)
    assert room.peak == 2
    assert len(room.entered) == 19
    await no_slots(engine, eventually)


async def test_first_come_first_served(engines, room, reached):
    """
    A slot goes to who waits longest, whatever type of run it is.
    """
    engine = await engines.memory(single)
    runs = []
    for number in range(5):
        runs.append(await engine.start(single(f"s{number}")))
        if number == 0:
            await room.entered_by("s0")
        else:
            await reached(runs[-1], "waiting")
    for number, run in enumerate(runs):
        room.let_go(f"s{number}")
        assert await run.result(5) == f"s{number}"
    assert room.entered == [f"s{n}" for n in range(5)]
    assert room.peak == 1


async def test_a_run_whose_first_step_is_let_in_at_once_is_running(engines, room, reached):
    """
    It is not shown as pending, nor could it expire as one that has not begun.
    """
    engine = await engines.file(single)
    run = await engine.start(single("n0"))
    await room.entered_by("n0")
    await reached(run, "running")


async def test_nothing_of_a_run_in_line_is_in_memory_and_why_tells(engines, room, reached, eventually):
    """
    It is freed; `why` names the limit, and how many are before it.
    """
    engine = await engines.memory(single, queues=[Queue("default", concurrency=2)])
    holder = await engine.start(single("holder"))
    await room.entered_by("holder")
    waiting = [await engine.start(single(f"w{n}")) for n in range(10)]
    for run in waiting:
        await reached(run, "waiting")

    async def only_the_holder_is_active():  # a run is let go once it is recorded that it waits
        return (await engine.stats()).active == 1

    await eventually(only_the_holder_is_active)
    inside = f"longest inside: run {holder.id!r}"
    assert f"waits for a slot of limit 'one' at 0 (first in line; {inside})" in await waiting[0].why()
    assert f"(9 before it; {inside})" in await waiting[9].why()
    room.open = True
    room.let_go("holder")
    for run in (holder, *waiting):
        await run.result(5)


async def test_a_slot_is_free_during_a_retry_delay(engines, room, clock, reached, eventually):
    """
    Each attempt asks anew; between two attempts somebody else is inside.
    """
    attempts = []

    @step(limit=ONE, retry=Retry(2, delay=100.0, jitter=0.0))
    async def flaky() -> str:
        attempts.append(list(ROOM.inside))
        if len(attempts) == 1:
            raise ConnectionError
        return "done"

    @workflow
    async def retried() -> str:
        return await flaky()

    engine = await engines.memory(retried, single, clock=clock)
    run = await engine.start(retried())
    await reached(run, "waiting")
    other = await engine.start(single("other"))
    await room.entered_by("other")
    clock.advance(101)

    async def in_line():
        return "limit 'one'" in await run.why()

    await eventually(in_line)
    room.let_go("other")
    await other.result(5)
    assert await run.result(5) == "done"
    assert attempts == [[], []]
    kinds = [event.kind for event in await run.history()]
    assert kinds.count("SlotAwaited") == kinds.count("SlotGranted") == kinds.count("StepStarted") == 2
    await no_slots(engine, eventually)


@pytest.mark.parametrize("error", [ValueError("no"), None])
async def test_a_slot_is_released_with_the_outcome(engines, room, error, eventually):
    """
    Failure or success: the next is let in by the transaction that records it.
    """

    @step(limit=ONE)
    def ends() -> str:
        if error is not None:
            raise error
        return "ok"

    @workflow
    async def ending() -> str:
        yielded = await settle(ends())
        await sleep(1000)
        return str(yielded)

    engine = await engines.memory(ending)
    runs = await engine.start_many([ending() for _ in range(5)])

    async def all_sleep():
        return all(["sleep" in str([e.event for e in await run.history()]) for run in runs])

    await eventually(all_sleep)
    assert await slots(engine) == []


async def test_a_rate_is_a_sliding_window(engines, clock, eventually):
    """
    Never more than the count within any window, with the hand-moved clock.
    """
    begun = []

    @step(limit=Limit("rated", rate=Rate(2, per=10)))
    async def rated(number: int) -> int:
        begun.append((number, clock.offset))
        return number

    @workflow
    async def one(number: int) -> int:
        return await rated(number)

    engine = await engines.memory(one, clock=clock)
    runs = [await engine.start(one(n)) for n in range(5)]
    await runs[0].result(5)
    clock.advance(4)
    await runs[1].result(5)
    assert "its rate lets it in within" in await runs[2].why()
    clock.advance(5)
    await asyncio.sleep(0.01)
    assert len(begun) == 2
    clock.advance(2)
    await runs[3].result(5)
    clock.advance(10.5)
    await runs[4].result(5)
    starts = [at for _, at in begun]
    assert [number for number, _ in begun] == list(range(5))
    assert all(later - earlier >= 10 for earlier, later in zip(starts, starts[2:], strict=False))
    await no_slots(engine, eventually)


async def test_a_restart_does_not_double_a_window(engines, clock):
    """
    The log of grants is in the file; after the restart the timer is set from there.
    """
    begun = []

    @step(limit=Limit("rated", rate=Rate(1, per=60)))
    async def rated(number: int) -> int:
        begun.append(number)
        return number

    @workflow
    async def one(number: int) -> int:
        return await rated(number)

    engine = await engines.file(one, clock=clock)
    first = await engine.start(one(1))
    await first.result(5)
    second = await engine.start(one(2))
    await engine.aclose()
    engine = await engines.file(one, clock=clock)
    third = await engine.start(one(3))
    await asyncio.sleep(0.02)
    assert begun == [1]
    clock.advance(61)
    assert await engine.get(second.id).result(5) == 2
    clock.advance(61)
    assert await third.result(5) == 3


async def test_each_attempt_counts_for_the_rate(engines, clock, reached):
    """
    A retry is a call of the outside world like any other.
    """
    attempts = []

    @step(limit=Limit("rated", rate=Rate(1, per=60)), retry=Retry(3, delay=1.0, jitter=0.0))
    async def flaky() -> int:
        attempts.append(clock.offset)
        if len(attempts) < 2:
            raise ConnectionError
        return len(attempts)

    @workflow
    async def one() -> int:
        return await flaky()

    engine = await engines.memory(one, clock=clock)
    run = await engine.start(one())
    await reached(run, "waiting")
    clock.advance(2)
    await asyncio.sleep(0.02)
    assert attempts == [0.0]
    clock.advance(60)
    assert await run.result(5) == 2


@pytest.mark.parametrize("kind", [single, job_two])
async def test_a_kill_while_inside_leaks_nothing_and_lets_nobody_in_twice(engines, room, kind, reached, eventually):
    """
    The interrupted attempt is the first in line after the restart; those who waited keep their order.
    """
    engine = await engines.file(kind)
    names = [f"n{number}" for number in range(5)]
    runs = []
    for name in names:
        runs.append(await engine.start(kind(name)))
        if kind is single and name != "n0":
            await reached(runs[-1], "waiting")
        else:
            await asyncio.sleep(0.01)
    await room.entered_by("n0")
    await engines.crash(engine)
    room.__init__()
    engine = await engines.file(kind)
    await room.entered_by("n0")
    assert len(room.inside) <= 2
    room.open = True
    for name in names:
        room.let_go(name)
    for run, name in zip(runs, names, strict=True):
        assert await engine.get(run.id).result(5) == name
    assert room.peak <= (1 if kind is single else 2)
    assert room.entered == names
    await no_slots(engine, eventually)


async def test_an_orderly_restart_keeps_the_slot_of_what_was_cut_off(engines, room):
    """
    The attempt that closing interrupted goes first.
    """
    engine = await engines.file(single, grace=0.0)
    first = await engine.start(single("first"))
    await room.entered_by("first")
    second = await engine.start(single("second"))
    await asyncio.sleep(0.01)
    await engine.aclose()
    room.__init__()
    engine = await engines.file(single)
    await room.entered_by("first")
    assert room.inside == ["first"]
    for name, run in (("first", first), ("second", second)):
        room.let_go(name)
        assert await engine.get(run.id).result(5) == name


async def test_cancelling_who_waits_gives_up_the_place(engines, room, reached, eventually):
    """
    And cancelling who is inside lets the next in.
    """
    engine = await engines.memory(single)
    inside, waits, last = [await engine.start(single(name)) for name in ("inside", "waits", "last")]
    await room.entered_by("inside")
    await reached(last, "waiting")
    await waits.cancel("not needed")
    with pytest.raises(RunCancelledError):
        await waits.result(5)
    assert len(await slots(engine)) == 2
    await inside.cancel()
    await room.entered_by("last")
    room.let_go("last")
    assert await last.result(5) == "last"
    assert room.entered == ["inside", "last"]
    await no_slots(engine, eventually)


async def test_a_race_or_timeout_lost_in_line_leaves_no_row(engines, room, clock, eventually):
    """
    A withdrawn step gives up its place; others go on.
    """

    @workflow
    async def racing() -> Flow[int]:
        winner = yield race(call_one("loses"), wait_for("go"))
        yield Return(winner.index)

    @workflow
    async def timed() -> Flow[str]:
        settled = yield settle(timeout(call_one("late"), 10))
        yield Return(type(settled.error).__name__)

    engine = await engines.memory(single, racing, timed, clock=clock)
    holder = await engine.start(single("holder"))
    await room.entered_by("holder")
    raced, limited = await engine.start(racing()), await engine.start(timed())

    async def three():
        return len(await slots(engine)) == 3

    await eventually(three)
    await raced.signal("go")
    assert await raced.result(5) == 1
    clock.advance(11)
    assert await limited.result(5) == "TimeoutError"
    assert await slots(engine) == [("0", 1)]
    room.let_go("holder")
    await holder.result(5)
    assert room.entered == ["holder"]
    await no_slots(engine, eventually)


async def test_the_timeout_of_a_step_counts_from_its_attempt(engines, room, clock):
    """
    Not from when it stood in line.
    """

    @step(limit=ONE, timeout=30.0)
    async def brief() -> str:
        return "in time"

    @workflow
    async def waits() -> str:
        return await brief()

    engine = await engines.memory(single, waits, clock=clock)
    holder = await engine.start(single("holder"))
    await room.entered_by("holder")
    run = await engine.start(waits())
    await asyncio.sleep(0.01)
    clock.advance(1000)
    room.let_go("holder")
    await holder.result(5)
    assert await run.result(5) == "in time"


async def test_for_each_and_gather_around_a_limited_step(engines, room, eventually):
    """
    Members stand in line one by one; results are in the items' order.
    """

    @workflow
    async def many(names: list[str]) -> Flow[list]:
        windowed: list[str] = yield for_each(call_two, names, concurrency=3)
        together: list[str] = yield gather(*(job_two(f"{name}'") for name in names), call_two("last"))
        yield Return([*windowed, *together])

    room.open = True
    engine = await engines.memory(many, job_two)
    names = [f"n{number}" for number in range(7)]
    assert await engine.run(many(names)) == [*names, *(f"{name}'" for name in names), "last"]
    assert room.peak == 2
    await no_slots(engine, eventually)


async def test_a_limit_is_counted_for_each_key_apart(engines, room):
    """
    `limit_key` of a step: one slot for each host.
    """
    limit = Limit("per-host", concurrency=1)

    @step(limit=limit, limit_key=lambda host, **_: host)
    async def fetch(host: str, page: int) -> str:
        await ROOM.visit(f"{host}{page}")
        return host

    @workflow
    async def crawl() -> Flow[list]:
        values: list[str] = yield gather(fetch("a", 1), fetch("a", 2), fetch("b", 1), fetch("b", 2))
        yield Return(values)

    engine = await engines.memory(crawl)
    run = await engine.start(crawl())
    await room.entered_by("a1", "b1")
    await asyncio.sleep(0.02)
    assert sorted(room.inside) == ["a1", "b1"]
    for name in ("a1", "a2", "b1", "b2"):
        room.let_go(name)
    assert await run.result(5) == ["a", "a", "b", "b"]


PER_CUSTOMER = Limit("per-customer", concurrency=1)


@step
async def visit(name: str) -> str:
    await ROOM.visit(name)
    return name


@workflow(limit=PER_CUSTOMER, limit_key=lambda customer, **_: customer)
async def served(customer: str, number: int) -> str:
    return await visit(f"{customer}{number}")


async def test_one_limit_around_a_parent_and_its_child_is_seen_in_why(engines, reached):
    """
    They wait for each other, which is the program's fault; `why` shows both links of the circle.
    """

    @job(limit=ONE)
    async def child() -> int:
        return 1

    @workflow(limit=ONE)
    async def parent() -> Flow[int]:
        value: int = yield child()
        yield Return(value)

    engine = await engines.memory(parent, child)
    run = await engine.start(parent())
    await reached(run, "waiting")
    (info,) = await run.children()
    inner = engine.get(info.run_id)
    await reached(inner, "waiting")
    assert f"waits for run {inner.id!r}" in await run.why()
    assert f"a slot of limit 'one' at 0 (first in line; longest inside: run {run.id!r})" in await inner.why()
    await run.cancel()
    with pytest.raises(RunCancelledError):
        await run.result(5)


async def test_runs_of_one_key_wait_for_each_other(engines, room, eventually):
    """
    The slot is the run's, from before its first turn to its end: at most one run for each customer, in order.
    """
    engine = await engines.file(served)
    runs = [await engine.start(served(customer, number)) for number in range(3) for customer in "ab"]
    await room.entered_by("a0", "b0")
    await asyncio.sleep(0.02)
    assert sorted(room.inside) == ["a0", "b0"]
    assert await runs[2].status() == "pending"
    found = f"waits for a slot of limit 'per-customer' (key 'a') (first in line; longest inside: run {runs[0].id!r})"
    assert found in await runs[2].why()
    await runs[2].cancel()
    with pytest.raises(RunCancelledError):
        await runs[2].result(5)
    await engines.crash(engine)
    room.__init__()
    engine = await engines.file(served)
    await room.entered_by("a0", "b0")
    room.open = True
    for name in ("a0", "b0"):
        room.let_go(name)
    for index in (0, 1, 3, 4, 5):
        await engine.get(runs[index].id).result(5)
    assert [name for name in room.entered if name[0] == "a"] == ["a0", "a2"]
    assert [name for name in room.entered if name[0] == "b"] == ["b0", "b1", "b2"]
    await no_slots(engine, eventually)


async def test_a_limit_may_reject(engines, room, eventually):
    """
    `start` raises; a child fails; once the slot is free, a start succeeds. A delayed one asks when it is due.
    """
    limit = Limit("solo", concurrency=1, on_conflict="reject")

    @workflow(limit=limit)
    async def solo(name: str) -> str:
        return await visit(name)

    @workflow
    async def parent() -> Flow[str]:
        settled = yield settle(solo("child"))
        yield Return(type(settled.error).__name__)

    engine = await engines.memory(solo, parent)
    run = await engine.start(solo("x"))
    await room.entered_by("x")
    with pytest.raises(LimitReachedError, match="limit 'solo' is reached"):
        await engine.start(solo("y"))
    assert await engine.run(parent()) == "LimitReachedError"
    delayed = await engine.start(solo("z"), delay=0.01)
    with pytest.raises(RunCancelledError, match="was reached when it was due"):
        await delayed.result(5)
    room.let_go("x")
    await run.result(5)
    room.open = True
    assert await engine.run(solo("again")) == "again"
    await no_slots(engine, eventually)


async def test_a_limit_may_replace(engines, room, eventually):
    """
    The newest wins: those before it are cancelled, and it begins once they have ended.
    """
    limit = Limit("latest", concurrency=1, on_conflict="replace")

    @step
    async def clean(name: str) -> None:
        await ROOM.visit(f"clean {name}")

    @workflow(limit=limit)
    async def latest(name: str) -> Flow[str]:
        try:
            value: str = yield visit(name)
        finally:
            yield clean(name)
        yield Return(value)

    engine = await engines.memory(latest)
    first = await engine.start(latest("1"))
    await room.entered_by("1")
    second = await engine.start(latest("2"))
    third = await engine.start(latest("3"))
    await room.entered_by("clean 1")
    assert room.inside == ["clean 1"]
    with pytest.raises(RunCancelledError, match="took its place"):
        await second.result(5)
    assert await third.status() == "pending"
    room.let_go("clean 1")
    with pytest.raises(RunCancelledError, match="took its place"):
        await first.result(5)
    await room.entered_by("3")
    assert room.entered == ["1", "clean 1", "3"]
    for name in ("3", "clean 3"):
        room.let_go(name)
    assert await third.result(5) == "3"
    await no_slots(engine, eventually)


async def test_a_job_may_reject_too(engines, room):
    """
    Its limit is then the whole run's.
    """

    @job(limit=Limit("solo", concurrency=1, on_conflict="reject"))
    async def alone(name: str) -> str:
        await ROOM.visit(name)
        return name

    engine = await engines.memory(alone)
    run = await engine.start(alone("x"))
    await room.entered_by("x")
    with pytest.raises(LimitReachedError):
        await engine.start(alone("y"))
    room.let_go("x")
    assert await run.result(5) == "x"


async def test_a_run_that_continues_hands_its_slot_on(engines, room, eventually):
    """
    Nobody comes in between, and the successor does not wait behind who stands in line.
    """
    order = []

    @step
    async def note(name: str) -> None:
        order.append(name)

    @workflow(limit=ONE)
    async def looping(name: str, left: int) -> Flow[str]:
        yield note(f"{name}{left}")
        if left == 2:
            yield wait_for("go")
        if left:
            yield continue_as(looping(name, left - 1))
        yield Return(name)

    engine = await engines.memory(looping)
    first = await engine.start(looping("a", 2))
    second = await engine.start(looping("b", 2))
    await first.signal("go")
    assert await first.result(5) == "a"
    await second.signal("go")
    assert await second.result(5) == "b"
    assert order == ["a2", "a1", "a0", "b2", "b1", "b0"]
    await no_slots(engine, eventually)


async def test_a_step_goes_in_with_the_slot_of_its_own_run(engines, room, eventually):
    """
    A workflow and its step share a limit of one: they do not wait for each other for ever.
    """

    @workflow(limit=ONE)
    async def both() -> str:
        return await call_one("in")

    room.open = True
    engine = await engines.memory(both)
    assert await engine.run(both()) == "in"
    await no_slots(engine, eventually)


async def test_a_paused_run_is_passed_over_and_keeps_its_place(engines, room, reached, eventually):
    """
    It lets others in while it is paused, and is the first again once it is resumed.
    """
    engine = await engines.memory(single)
    runs = {}
    for name in ("holder", "paused", "next", "last"):
        runs[name] = await engine.start(single(name))
        await asyncio.sleep(0.01)
    await reached(runs["last"], "waiting")
    await runs["paused"].pause()
    room.let_go("holder")
    await room.entered_by("next")
    await runs["paused"].resume()
    room.let_go("next")
    await room.entered_by("paused")
    for name in ("paused", "last"):
        room.let_go(name)
    for name, run in runs.items():
        assert await run.result(5) == name
    assert room.entered == ["holder", "next", "paused", "last"]
    await no_slots(engine, eventually)


async def test_a_run_paused_while_inside_gives_its_slot_up_with_the_outcome(engines, room, reached, eventually):
    """
    Its attempt ends and is recorded; the next comes in although the run goes on no further.
    """
    engine = await engines.memory(single)
    held, other = await engine.start(single("held")), await engine.start(single("other"))
    await room.entered_by("held")
    await held.pause()
    room.let_go("held")
    await room.entered_by("other")
    room.let_go("other")
    assert await other.result(5) == "other"
    await held.resume()
    assert await held.result(5) == "held"
    assert room.entered == ["held", "other"]
    await no_slots(engine, eventually)


@workflow(queue="a")
async def in_a(name: str) -> str:
    return await call_one(name)


@workflow(queue="a", limit=ONE)
async def whole_in_a(name: str) -> str:
    return name


@workflow(queue="a")
async def hog_of_a() -> None:
    await hold()


@step
async def hold() -> None:
    await ROOM.visit("hog")


async def test_runs_of_a_paused_queue_are_passed_over_and_keep_their_places(engines, room, reached, eventually):
    """
    What is running ends; others of the limit come in meanwhile, and `why()` tells both sides.
    """
    engine = await engines.file(in_a, single)
    inside = await engine.start(in_a("inside"))
    await room.entered_by("inside")
    first = await engine.start(in_a("first"))
    await reached(first, "waiting")
    await engine.queue("a").pause()
    room.let_go("inside")
    assert await inside.result(5) == "inside"
    other = await engine.start(single("other"))
    await room.entered_by("other")
    said = await first.why()
    assert "queue 'a', which is paused: resume it. Then for a slot of limit 'one' at 0 (first in line" in said
    waits = await engine.start(single("waits"))
    await reached(waits, "waiting")
    assert "(first in line; longest inside" in await waits.why()
    assert (await engine.stats()).waiting_for_limits == 2
    await engine.queue("a").resume()
    for name in ("first", "other", "waits"):
        room.let_go(name)
    for name, run in {"first": first, "other": other, "waits": waits}.items():
        assert await run.result(5) == name
    assert room.entered == ["inside", "other", "first", "waits"]
    await no_slots(engine, eventually)


@pytest.mark.parametrize("held_by", ["step", "run"])
async def test_a_paused_queue_gives_back_what_was_granted_and_cannot_be_used(
    engines, room, reached, eventually, held_by
):
    """
    Let in while the queue was full, and then it was paused: a step that was to go on, and a run that was to begin.
    """
    engine = await engines.file(in_a, whole_in_a, single, hog_of_a, queues=[Queue("a", concurrency=1)])
    outside = await engine.start(single("outside"))
    await room.entered_by("outside")
    late = await engine.start(in_a("late") if held_by == "step" else whole_in_a("late"))
    await eventually(in_line(engine, 1))
    hog = await engine.start(hog_of_a())
    await room.entered_by("hog")
    room.let_go("outside")
    assert await outside.result(5) == "outside"
    await eventually(in_line(engine, 0))
    await engine.queue("a").pause()
    other = await engine.start(single("other"))
    await room.entered_by("other")
    assert "paused: resume it" in await late.why()
    for name in ("hog", "other", "late"):
        room.let_go(name)
    await hog.result(5)
    assert await other.result(5) == "other"
    await engine.queue("a").resume()
    assert await late.result(5) == "late"
    await no_slots(engine, eventually)


@pytest.mark.parametrize("turns", [1, 3])
async def test_a_queue_that_is_resumed_while_its_pause_is_carried_out_lets_its_runs_in(
    engines, room, eventually, turns
):
    """
    The resumption is recorded before the paused queue has let others pass: its runs stand in line as before.
    """
    engine = await engines.file(in_a)
    runs = [await engine.start(in_a("first")), await engine.start(in_a("second"))]
    await room.entered_by("first")
    await eventually(in_line(engine, 1))
    pausing = asyncio.create_task(engine.queue("a").pause())
    for _ in range(turns):
        await asyncio.sleep(0)
    await engine.queue("a").resume()
    await pausing
    for name in ("first", "second"):
        room.let_go(name)
    assert [await run.result(5) for run in runs] == ["first", "second"]
    await no_slots(engine, eventually)


async def test_a_run_that_is_paused_before_it_begins_gives_back_its_own_slot(engines, room, reached, eventually):
    """
    It was let in and waits for its queue; once it is resumed it stands in line again, where it stood.
    """
    engine = await engines.file(whole_in_a, single, hog_of_a, queues=[Queue("a", concurrency=1)])
    hog = await engine.start(hog_of_a())
    await room.entered_by("hog")
    late = await engine.start(whole_in_a("late"))
    other = await engine.start(single("other"))
    await reached(other, "waiting")
    await late.pause()
    await room.entered_by("other")
    await late.resume()
    room.let_go("hog")
    await hog.result(5)
    assert "slot of limit 'one'" in await late.why()
    room.let_go("other")
    assert await other.result(5) == "other"
    assert await late.result(5) == "late"
    await no_slots(engine, eventually)


async def test_a_run_that_is_blocked_before_it_begins_gives_back_its_own_slot(engines, room, reached, eventually):
    """
    Its code is gone: others come in. When it is back, the run stands in line where it stood.
    """
    engine = await engines.file(whole_in_a, single, hog_of_a, queues=[Queue("a", concurrency=1)])
    await engine.start(hog_of_a())
    await room.entered_by("hog")
    late = await engine.start(whole_in_a("late"))
    await engines.crash(engine)
    room.__init__()
    engine = await engines.file(single)
    await reached(engine.get(late.id), "blocked")
    other = await engine.start(single("other"))
    await room.entered_by("other")
    await engines.crash(engine)
    room.__init__()
    engine = await engines.file(whole_in_a, single)
    room.let_go("other")
    assert await engine.get(late.id).result(5) == "late"
    assert await engine.get(other.id).result(5) == "other"


async def test_a_run_that_gets_in_line_while_its_queue_is_paused_is_passed_over(engines, room, reached, eventually):
    """
    It was running when the queue was paused, and asked for a slot only then.
    """

    @workflow(queue="a")
    async def later() -> str:
        await hold()
        return await call_one("later")

    engine = await engines.file(later, single)
    outside = await engine.start(single("outside"))
    run = await engine.start(later())
    await room.entered_by("outside", "hog")
    await engine.queue("a").pause()
    room.let_go("hog")
    await reached(run, "waiting")
    other = await engine.start(single("other"))
    await eventually(in_line(engine, 2))
    room.let_go("outside")
    await room.entered_by("other")
    assert "queue 'a', which is paused" in await run.why()
    await engine.queue("a").resume()
    for name in ("other", "later"):
        room.let_go(name)
    assert (await outside.result(5), await other.result(5), await run.result(5)) == ("outside", "other", "later")
    await no_slots(engine, eventually)


async def test_a_paused_queue_holds_nothing_after_a_restart(engines, room, eventually):
    """
    Killed inside, its queue paused: others come in, and it runs again once the queue is resumed.
    """
    engine = await engines.file(in_a, single)
    gone = await engine.start(in_a("gone"))
    await room.entered_by("gone")
    await engine.queue("a").pause()
    await engines.crash(engine)
    room.__init__()
    engine = await engines.file(in_a, single)
    other = await engine.start(single("other"))
    await room.entered_by("other")
    room.open = True
    room.let_go("other")
    assert await other.result(5) == "other"
    await engine.queue("a").resume()
    assert await engine.get(gone.id).result(5) == "gone"
    await no_slots(engine, eventually)


def in_line(engine, count):
    """
    Whether so many wait for slots.
    """

    async def look():
        return (await engine.stats()).waiting_for_limits == count

    return look


async def test_a_blocked_run_holds_nothing(engines, room, reached, eventually):
    """
    Killed inside, and its workflow is gone from the code: others come in. It goes on when the code is back.
    """
    engine = await engines.file(single, first_type, job_two)

    @workflow
    async def other(name: str) -> str:
        return await call_one(name)

    await engines.crash(engine)
    engine = await engines.file(single, other)
    gone = await engine.start(single("gone"))
    await room.entered_by("gone")
    waits = await engine.start(other("waits"))
    await asyncio.sleep(0.01)
    await engines.crash(engine)
    room.__init__()
    engine = await engines.file(other)
    await reached(engine.get(gone.id), "blocked")
    await room.entered_by("waits")
    room.let_go("waits")
    assert await engine.get(waits.id).result(5) == "waits"
    await engine.aclose()
    room.open = True
    engine = await engines.file(single, other)
    assert await engine.get(gone.id).result(5) == "gone"
    await no_slots(engine, eventually)


async def test_poison_releases_its_slot(engines, room, reached, eventually):
    """
    A step that was running when the process died too often blocks its run, and lets the next in.
    """
    engine = await engines.file(single, crash_limit=1)
    poison = await engine.start(single("poison"))
    await room.entered_by("poison")
    other = await engine.start(single("other"))
    await asyncio.sleep(0.01)
    await engines.crash(engine)
    room.__init__()
    engine = await engines.file(single, crash_limit=1)
    await reached(engine.get(poison.id), "blocked")
    await room.entered_by("other")
    await engine.get(poison.id).resume()
    for name in ("other", "poison"):
        room.let_go(name)
        await engine.get((other if name == "other" else poison).id).result(5)
    assert room.entered == ["other", "poison"]
    await no_slots(engine, eventually)


async def test_retry_and_fork_stand_in_line_again(engines, room, reached, eventually):
    """
    A person's retry of a failed run, and a fork of it, ask for the run's slot like any other.
    """
    fails = [True]

    @step
    async def may_fail() -> None:
        if fails[0]:
            raise ValueError

    @workflow(limit=ONE)
    async def failing(name: str) -> Flow[str]:
        yield may_fail()
        value: str = yield visit(name)
        yield Return(value)

    @workflow(limit=ONE)
    async def holding() -> str:
        return await visit("holder")

    engine = await engines.memory(failing, holding)
    run = await engine.start(failing("a"))
    with pytest.raises(RunFailedError):
        await run.result(5)
    assert await slots(engine) == []
    fails[0] = False
    holder = await engine.start(holding())
    await room.entered_by("holder")
    forked = await run.fork(0)
    await run.retry()
    assert await run.status() == await forked.status() == "pending"
    assert "limit 'one'" in await run.why()
    room.let_go("holder")
    room.let_go("a")
    await holder.result(5)
    assert await run.result(5) == await forked.result(5) == "a"
    assert room.peak == 1
    await no_slots(engine, eventually)


async def test_a_fork_asks_for_the_slot_that_the_original_waits_for(engines, room, reached, eventually):
    """
    What stood in line when it was copied stands in line of its own.
    """

    @workflow
    async def steps(name: str) -> Flow[str]:
        values = yield gather(call_one(name), visit(f"{name}'"))
        yield sleep(1000)
        yield Return(values[0])

    engine = await engines.memory(single, steps)
    holder = await engine.start(single("holder"))
    await room.entered_by("holder")
    run = await engine.start(steps("a"))
    await room.entered_by("a'")
    forked = await run.fork("0.1")
    room.open = True
    for name in ("holder", "a", "a'"):
        room.let_go(name)
    await holder.result(5)
    for each in (run, forked):
        await reached(each, "waiting")
    assert room.entered.count("a") == 2
    await no_slots(engine, eventually)


async def test_clearing_a_queue_removes_who_waits(engines, room, eventually):
    """
    Runs that wait for their own slot have not begun, so they are cleared.
    """
    engine = await engines.memory(served)
    runs = [await engine.start(served("a", number)) for number in range(4)]
    await room.entered_by("a0")
    assert await engine.queue("default").clear() == 3
    for run in runs[1:]:
        with pytest.raises(RunCancelledError):
            await run.result(5)
    room.let_go("a0")
    await runs[0].result(5)
    await no_slots(engine, eventually)
    assert await engine.prune(0) == 4


async def test_other_numbers_hold_from_the_next_opening(engines, room):
    """
    They are those of today's code: more slots, and who waits comes in at the opening.
    """

    def made(limit):
        @step(limit=limit)
        async def enter(name: str) -> str:
            await ROOM.visit(name)
            return name

        @workflow(name="entering")
        async def entering(name: str) -> str:
            return await enter(name)

        return entering

    narrow, wide = made(Limit("door", concurrency=1)), made(Limit("door", concurrency=3))
    engine = await engines.file(narrow)
    runs = [await engine.start(narrow(f"n{number}")) for number in range(4)]
    await room.entered_by("n0")
    await asyncio.sleep(0.02)
    assert room.peak == 1
    await engines.crash(engine)
    room.__init__()
    engine = await engines.file(wide)
    await room.entered_by("n0", "n1", "n2")
    assert room.peak == 3
    for number, run in enumerate(runs):
        room.let_go(f"n{number}")
        await engine.get(run.id).result(5)
    assert room.peak == 3


@pytest.mark.parametrize("before, after", [(ONE, None), (None, ONE)])
async def test_a_limit_may_be_added_or_taken_away_by_new_code(engines, room, before, after, reached, eventually):
    """
    Recorded steps replay, whether their attempts had a limit or not.
    """

    def made(limit):
        @step(name="enter", limit=limit)
        async def enter(name: str) -> str:
            await ROOM.visit(name)
            return name

        @workflow(name="entering")
        async def entering() -> Flow[list]:
            first: str = yield enter("done")
            both: list[str] = yield gather(enter("inside"), enter("maybe in line"))
            yield Return([first, *both])

        return entering

    old, new = made(before), made(after)
    engine = await engines.file(old, limits=[ONE])
    run = await engine.start(old())
    room.let_go("done")
    await room.entered_by("inside")
    await engines.crash(engine)
    room.__init__()
    engine = await engines.file(new, limits=[ONE])
    await room.entered_by("inside")
    room.let_go("inside")
    room.let_go("maybe in line")
    assert await engine.get(run.id).result(5) == ["done", "inside", "maybe in line"]
    await no_slots(engine, eventually)


async def test_a_limit_may_be_named_and_listed_by_the_engine(engines, room):
    """
    By its name in the definition, with the engine's numbers; the engine's numbers also override the definition's.
    """

    @step(limit="api")
    async def call(name: str) -> str:
        await ROOM.visit(name)
        return name

    @workflow
    async def calling() -> Flow[list]:
        values: list[str] = yield gather(*(call(str(number)) for number in range(6)))
        yield Return(values)

    with pytest.raises(DefinitionError, match="limit 'api' of <step 'call'> is not known"):
        await engines.memory(calling)
    room.open = True
    engine = await engines.memory(calling, limits=[Limit("api", concurrency=3)])
    await engine.run(calling())
    assert room.peak == 3
    room.__init__()
    room.open = True
    engine = await engines.memory(first_type, second_type, limits=[Limit("two", concurrency=1)])
    await engine.run(second_type(["a", "b", "c"]))
    assert room.peak == 1


async def test_two_different_limits_of_one_name_are_refused(engines):
    """
    When the engine is made, with both of them named.
    """

    @job(limit=Limit("same", concurrency=1))
    async def one() -> None: ...

    @job(limit=Limit("same", concurrency=2))
    async def two() -> None: ...

    with pytest.raises(DefinitionError, match="two different limits are called 'same'"):
        await engines.memory(one, two)
    await engines.memory(one, two, limits=[Limit("same", concurrency=3)])


async def test_a_key_function_that_fails_raises_at_the_users_line(engines):
    """
    As any other wrong argument of a command; for a job it is the job's failure.
    """

    @step(limit=ONE, limit_key=lambda number: number)
    async def wrong(number: int) -> None: ...

    @workflow
    async def catching() -> Flow[str]:
        try:
            yield wrong(1)
        except DefinitionError as error:
            yield Return(str(error))

    @job(limit=ONE, limit_key=lambda number: 1 / 0)
    async def failing(number: int) -> None: ...

    engine = await engines.memory(catching, failing)
    assert "the limit_key of step 'wrong' must be a non-empty string, found 1" in await engine.run(catching())
    with pytest.raises(DefinitionError, match="ZeroDivisionError"):
        await engine.start(failing(1))


async def test_a_thousand_jobs_through_a_limit_of_five(engines, room, eventually):
    """
    Never more than five inside, none forgotten, in order, and nothing is left behind.
    """
    peak = [0, 0]
    order = []

    @job(limit=Limit("five", concurrency=5))
    async def small(number: int) -> None:
        peak[0] += 1
        peak[1] = max(peak)
        order.append(number)
        await asyncio.sleep(0)
        peak[0] -= 1

    engine = await engines.memory(small)
    runs = await engine.start_many([small(number) for number in range(1000)])
    for run in runs:
        await run.result(60)
    assert peak[1] <= 5
    assert sorted(order) == list(range(1000))
    await no_slots(engine, eventually)


async def test_the_death_of_the_process_at_any_commit_neither_leaks_nor_doubles(engines, room, eventually):
    """
    Copies of the file taken again and again while runs pass through a limit all lead to the end.
    """
    engine = await engines.file(first_type, second_type)
    room.open = True
    runs = [await engine.start(first_type(f"a{n}")) for n in range(6)]
    runs.append(await engine.start(second_type(["b0", "b1", "b2"])))
    for _ in range(6):
        await asyncio.sleep(0.004)
        await engines.crash(engine)
        engine = await engines.file(first_type, second_type, crash_limit=100)
    for run in runs:
        with contextlib.suppress(Exception):
            await engine.get(run.id).result(5)
        assert await engine.get(run.id).status() == "succeeded"
    assert room.peak <= 2
    await no_slots(engine, eventually)


async def test_a_run_that_expires_in_line_leaves_it(engines, clock, eventually):
    """
    It fails without having begun, and who stands behind it comes in.
    """

    @workflow(limit=ONE)
    async def holding() -> Flow[str]:
        value: str = yield wait_for("go")
        yield Return(value)

    engine = await engines.memory(holding, clock=clock)
    holder = await engine.start(holding())
    expiring = await engine.start(holding().options(expires=5))
    last = await engine.start(holding())
    clock.advance(6)
    with pytest.raises(RunFailedError, match="had not begun by"):
        await expiring.result(5)
    for run in (holder, last):
        await run.signal("go", "gone")
        assert await run.result(5) == "gone"
    await no_slots(engine, eventually)


async def test_a_run_that_continues_under_another_key_stands_in_that_line(engines, room, eventually):
    """
    Its slot goes to who waits for it, and it waits for one of the other key.
    """

    @workflow(limit=PER_CUSTOMER, limit_key=lambda customer, **_: customer)
    async def moving(customer: str, left: int) -> Flow[str]:
        yield visit(f"{customer}{left}")
        if left:
            yield continue_as(moving("b", left - 1))
        yield Return(customer)

    engine = await engines.memory(moving)
    other = await engine.start(moving("b", 0))
    run = await engine.start(moving("a", 1))
    await room.entered_by("b0", "a1")
    behind = await engine.start(moving("a", 0))
    room.let_go("a1")
    await room.entered_by("a0")
    room.let_go("a0")
    assert await behind.result(5) == "a"
    assert room.entered.count("b0") == 1
    room.let_go("b0")
    assert await other.result(5) == await run.result(5) == "b"
    assert room.entered.count("b0") == 2
    await no_slots(engine, eventually)


async def test_a_delayed_run_stands_in_line_once_it_is_due(engines, room, clock, eventually):
    """
    Who came later but is due earlier goes first.
    """
    engine = await engines.memory(served, clock=clock)
    delayed = await engine.start(served("a", 0), delay=10)
    assert await slots(engine) == []
    first = await engine.start(served("a", 1))
    await room.entered_by("a1")
    clock.advance(11)

    async def in_line():
        return "limit 'per-customer'" in await delayed.why()

    await eventually(in_line)
    room.let_go("a1")
    room.let_go("a0")
    await first.result(5)
    await delayed.result(5)
    assert room.entered == ["a1", "a0"]
    await no_slots(engine, eventually)


async def test_children_of_one_key_wait_for_each_other(engines, room, eventually):
    """
    A run's slot is asked for wherever it is started; a window of `for_each` does not matter.
    """

    @workflow
    async def parent(numbers: list[int]) -> Flow[list]:
        values: list[str] = yield gather(*(served("a", number) for number in numbers))
        yield Return(values)

    room.open = True
    engine = await engines.memory(parent, served)
    assert await engine.run(parent([1, 2, 3])) == ["a1", "a2", "a3"]
    assert room.entered == ["a1", "a2", "a3"]
    assert room.peak == 1
    await no_slots(engine, eventually)


async def test_a_windowed_for_each_over_a_limited_job(engines, room, eventually):
    """
    The file starts the later children; each stands in line for its attempt.
    """

    @workflow
    async def each(names: list[str]) -> Flow[list]:
        values: list[str] = yield for_each(job_two, names, concurrency=4)
        yield Return(values)

    room.open = True
    engine = await engines.memory(each, job_two)
    names = [f"n{number}" for number in range(12)]
    assert await engine.run(each(names)) == names
    assert room.peak == 2
    await no_slots(engine, eventually)


async def test_a_client_starts_runs_with_a_limit(engines, room, tmp_db, eventually):
    """
    Through the owner, or recorded while nobody executes the file: they stand in line all the same.
    """
    engine = await engines.file(served)
    runs = [await engine.start(served("a", 0))]
    await room.entered_by("a0")
    async with Client(tmp_db) as client:
        runs.append(await client.start(served("a", 1)))
        room.let_go("a0")
        await room.entered_by("a1")
        await engine.aclose()
        runs.append(await client.start(served("a", 2)))
        runs.append(await client.start(served("b", 3)))
    room.__init__()
    engine = await engines.file(served)
    await room.entered_by("a1", "b3")
    assert room.peak == 2
    for name in ("a1", "b3", "a2"):
        room.let_go(name)
    for run in runs:
        await engine.get(run.id).result(5)
    await no_slots(engine, eventually)


async def test_a_dry_run_knows_the_limits(engines, eventually):
    """
    Those that the engine lists, too.
    """

    @step(limit="api")
    async def call(number: int) -> int:
        return number

    @workflow
    async def calling() -> Flow[int]:
        values: list[int] = yield gather(call(1), call(2))
        yield Return(sum(values))

    engine = await engines.memory(calling, limits=[Limit("api", concurrency=1, rate=Rate(1, per=3600))])
    dry = await engine.dry_run(calling(), stand_ins={"call": lambda number: number})
    assert dry.value == 3


async def test_a_limit_out_of_sight_joins_when_it_is_asked_for(engines, room, eventually):
    """
    A step that the code of the workflow does not name: its numbers come with it.
    """
    hidden = {"step": call_one}

    @workflow
    async def dynamic(name: str) -> str:
        return await hidden["step"](name)

    room.open = True
    engine = await engines.memory(dynamic)
    assert "one" not in engine._backend.settings.limits
    runs = [await engine.start(dynamic(str(number))) for number in range(4)]
    for run in runs:
        await run.result(5)
    assert room.peak == 1
    await no_slots(engine, eventually)


async def test_members_of_a_batch_stand_in_line_too(engines, room, eventually):
    """
    A batch is complete when those that waited for each other have ended.
    """
    room.open = True
    engine = await engines.memory(served)
    async with engine.batch() as batch:
        for number in range(3):
            batch.add(served("a", number))
    info = await batch.wait(timeout=5)
    assert info.succeeded == 3
    assert room.entered == ["a0", "a1", "a2"]
    assert room.peak == 1
    await no_slots(engine, eventually)

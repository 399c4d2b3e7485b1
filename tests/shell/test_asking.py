"""
`run.ask`: what a workflow is asked from outside is answered once, whoever dies or hangs up meanwhile.
"""

import asyncio

import pytest
from attrs import frozen

from durable import (
    Asked,
    Client,
    EncodeError,
    Engine,
    Flow,
    Request,
    RequestConflictError,
    RequestRefusedError,
    RequestUnansweredError,
    Return,
    RunBlockedError,
    RunFailedError,
    RunNotFoundError,
    RunStateError,
    Service,
    Signal,
    continue_as,
    step,
    wait_for,
    workflow,
)
from durable._core.journal.events import ReplySent
from durable.testing import every_crash

pytestmark = pytest.mark.anyio


@frozen
class Order:
    amount: int


@frozen
class Verdict:
    approved: bool
    by: str


approve = Request("approve", Order, Verdict)
YES = Verdict(True, "Ann")


@workflow
async def judge(orders: int) -> Flow[list[int]]:
    """Approves so many orders, and refuses large ones."""
    approved: list[int] = []
    while len(approved) < orders:
        asked: Asked[Order, Verdict] = yield wait_for(approve)
        if asked.value.amount > 100:
            yield asked.refuse("too much")
        else:
            approved.append(asked.value.amount)
            yield asked.reply(YES)
    yield Return(approved)


@step
async def stumble() -> None:
    """Fails, as long as its world is broken."""
    if BROKEN:
        msg = "broken"
        raise ValueError(msg)


BROKEN: list[bool] = []


@workflow
async def forgets(then: str) -> Flow[None]:
    """Takes a question in, says nothing, and comes to some end; or answers once its world is mended."""
    asked: Asked[Order, Verdict] = yield wait_for(approve)
    if then == "fail":
        yield stumble()
        yield asked.reply(YES)
    if then == "wait":
        yield wait_for("go")


@workflow
async def relay(rounds: int) -> Flow[str]:
    """Answers one request, takes in another and ignores it, and continues as itself."""
    if rounds == 0:
        last: Asked[Order, Verdict] = yield wait_for(approve)
        yield last.reply(Verdict(True, "the last"))
        yield wait_for("end")
        yield Return("end")
    asked: Asked[Order, Verdict] = yield wait_for(approve)
    yield asked.reply(Verdict(True, f"round {rounds}"))
    yield wait_for(approve)
    yield wait_for("go")
    yield continue_as(relay(rounds - 1))


async def test_who_waits_for_a_request_is_told_as_such(engines, reached):
    """
    In values and in words, and runs are found by it: by itself, its name, what it is, by both. After a restart, too.
    """
    engine = await engines.file(judge)
    await reached(await engine.start(judge(1), id="r"), "waiting")
    for again in (False, True):
        if again:
            await engine.aclose()
            engine = await engines.file(judge)
        run = engine.get("r")
        (wait,) = await run.waits()
        assert (wait.kind, wait.name, wait.position) == ("request", "approve", "0")
        assert (await run.why()).startswith("run 'r' waits for a request 'approve' at 0, for ")
        for named in (approve, "approve", "request", "request:approve"):
            assert [info.id async for info in engine.runs(waiting_for=named)] == ["r"]
        for other in (Signal("approve"), "signal", "signal:approve", "callback", "approv"):
            assert [info.id async for info in engine.runs(waiting_for=other)] == []
    assert await run.ask(approve, Order(1), timeout=5) == YES


async def asked(engine, count):
    """Return once so many requests are recorded."""
    async with asyncio.timeout(10):
        while await engine._backend.read(lambda conn: conn.execute(COUNT).fetchone()) != (count,):
            await asyncio.sleep(0.002)


COUNT = "SELECT count(*) FROM durable_asked"


@pytest.mark.parametrize("keep_resident", [0, 10])
async def test_a_run_is_asked_and_answers(engines, reached, keep_resident):
    """
    Freed in between or not: with values of the types that the request names; or it refuses, and says why.
    """
    engine = await engines.memory(judge, keep_resident=keep_resident)
    run = await engine.start(judge(3))
    assert await run.ask(approve, Order(3), timeout=5) == YES
    await reached(run, "waiting")
    with pytest.raises(RequestRefusedError, match=f"run '{run.id}' refused request 'approve': too much"):
        await run.ask(approve, Order(300), timeout=5)
    await reached(run, "waiting")
    assert await run.ask("approve", {"amount": 4}) == {"approved": True, "by": "Ann"}
    assert await run.ask("approve", Order(5)) == {"approved": True, "by": "Ann"}
    assert await run.result(5) == [3, 4, 5]


async def test_it_is_asked_from_other_processes_workers_and_threads(engines):
    """
    By a `Client`, which hears of the answer from the owner; by each worker of a `Service`; by a thread.
    """
    engine = await engines.file(judge)
    run = await engine.start(judge(3))
    async with Client(engine.path, durability="process") as client:
        assert await client.get(run.id).ask(approve, Order(1), timeout=5) == YES
        with pytest.raises(RequestRefusedError, match="too much"):
            await client.get(run.id).ask(approve, Order(300))
    from_thread = await asyncio.to_thread(engine.from_thread.get(run.id).ask, approve, Order(2), timeout=5.0)
    assert from_thread == YES
    await engine.aclose()
    async with (
        Service(engine.path, [judge], durability="process") as first,
        Service(engine.path, [judge], durability="process") as second,
    ):
        assert first.is_executing != second.is_executing
        for app, amount in ((first, 300), (second, 400)):
            with pytest.raises(RequestRefusedError):
                await app.get(run.id).ask(approve, Order(amount), timeout=5)
        assert await second.get(run.id).ask(approve, Order(3), timeout=5) == YES
        assert await first.get(run.id).result(5) == [1, 2, 3]


async def test_who_asks_again_under_the_same_dedup_gets_the_answer_that_there_is(engines):
    """
    Also of the next process, and once the run has ended. The workflow hears of it once.
    """
    engine = await engines.file(judge)
    run = await engine.start(judge(2), id="r")
    assert await run.ask(approve, Order(1), dedup="a") == YES
    with pytest.raises(RequestRefusedError, match="too much"):
        await run.ask(approve, Order(300), dedup="b")
    await engine.aclose()
    engine = await engines.file(judge)
    run = engine.get("r")
    assert await run.ask(approve, Order(1), dedup="a", timeout=5) == YES
    with pytest.raises(RequestRefusedError, match="too much"):
        await run.ask(approve, Order(300), dedup="b")
    assert await run.ask(approve, Order(2), timeout=5) == YES
    assert await run.result(5) == [1, 2]
    assert await run.ask(approve, Order(1), dedup="a", timeout=5) == YES


async def test_another_question_under_one_dedup_is_refused(engines):
    """
    Nothing was asked: the caller has mixed something up.
    """
    engine = await engines.memory(judge)
    run = await engine.start(judge(2))
    await run.ask(approve, Order(1), dedup="a")
    for request, question in ((approve, Order(2)), ("other", {"amount": 1})):
        with pytest.raises(RequestConflictError, match="dedup='a' was accepted for another request or question"):
            await run.ask(request, question, dedup="a")
    assert await run.ask(approve, Order(2), timeout=5) == YES


async def test_a_caller_that_gives_up_touches_nothing(engines):
    """
    Its request stays, and is answered; who asks again under its dedup hears of that.
    """

    @workflow
    async def busy() -> Flow[int]:
        yield wait_for("go")
        asked: Asked[Order, Verdict] = yield wait_for(approve)
        yield asked.reply(YES)
        yield Return(asked.value.amount)

    engine = await engines.memory(busy)
    run = await engine.start(busy())
    with pytest.raises(
        TimeoutError, match=f"run '{run.id}' has not answered request 'approve' after 0.05 s; it stays asked: .*'go'"
    ):
        await run.ask(approve, Order(7), timeout=0.05, dedup="a")
    asking = asyncio.create_task(run.ask(approve, Order(7), dedup="a"))
    asking.cancel()
    await asyncio.wait([asking])
    assert not engine._backend.running.waiters
    await run.signal("go")
    assert await run.result(5) == 7
    assert await run.ask(approve, Order(7), dedup="a", timeout=5) == YES


@pytest.mark.parametrize("then", ["return", "fail", "cancel"])
async def test_a_run_that_ends_without_an_answer_tells_who_asks(engines, then):
    """
    Whatever end it comes to, and whether its code has taken the request in. Behind that nothing is asked.
    """
    BROKEN[:] = [True]
    engine = await engines.memory(forgets)
    run = await engine.start(forgets("wait" if then == "cancel" else then))
    first = asyncio.create_task(run.ask(approve, Order(1), dedup="a"))
    if then == "cancel":
        second = asyncio.create_task(run.ask(approve, Order(2)))
        await asked(engine, 2)
        await run.cancel()
        with pytest.raises(RequestUnansweredError):
            await second
    status = {"return": "succeeded", "fail": "failed", "cancel": "cancelled"}[then]
    told = rf"run '{run.id}' has ended \({status}\) without an answer to request 'approve'"
    with pytest.raises(RequestUnansweredError, match=told):
        await first
    with pytest.raises(RequestUnansweredError, match=told):
        await run.ask(approve, Order(1), dedup="a")
    with pytest.raises(RunStateError, match=f"cannot ask 'approve' of run '{run.id}': it is {status}"):
        await run.ask(approve, Order(3))


async def test_a_run_that_is_retried_answers_what_it_had_not(engines):
    """
    Its end was none: who asks again waits for the same answer.
    """
    BROKEN[:] = [True]
    engine = await engines.memory(forgets)
    run = await engine.start(forgets("fail"))
    with pytest.raises(RequestUnansweredError):
        await run.ask(approve, Order(1), dedup="a")
    BROKEN.clear()
    await run.retry()
    assert await run.ask(approve, Order(1), dedup="a", timeout=5) == YES


async def test_the_first_answer_stays_whatever_a_retry_comes_to(engines):
    """
    Who was told something was told the truth.
    """

    @workflow
    async def apologises() -> Flow[None]:
        asked: Asked[Order, Verdict] = yield wait_for(approve)
        try:
            yield stumble()
        except ValueError:
            yield asked.refuse("sorry")
            raise
        yield asked.reply(YES)

    BROKEN[:] = [True]
    engine = await engines.memory(apologises)
    run = await engine.start(apologises())
    with pytest.raises(RequestRefusedError, match="sorry"):
        await run.ask(approve, Order(1), dedup="a", timeout=5)
    with pytest.raises(RunFailedError):
        await run.result(5)
    BROKEN.clear()
    await run.retry()
    await run.result(5)
    assert [event.event.refused for event in await run.history() if event.kind == "ReplySent"] == [True, False]
    with pytest.raises(RequestRefusedError, match="sorry"):
        await run.ask(approve, Order(1), dedup="a", timeout=5)


async def test_the_next_attempt_of_a_run_answers_what_the_last_one_did_not(engines):
    """
    Nobody has to ask again: the attempt that failed is as if it had never been.
    """
    attempts: list[int] = []

    @workflow(retry=2)
    async def stumbles() -> Flow[None]:
        asked: Asked[Order, Verdict] = yield wait_for(approve)
        attempts.append(asked.value.amount)
        if len(attempts) == 1:
            msg = "no"
            raise ValueError(msg)
        yield asked.reply(YES)

    engine = await engines.memory(stumbles)
    run = await engine.start(stumbles())
    assert await run.ask(approve, Order(1), timeout=10) == YES
    assert attempts == [1, 1]


async def test_a_blocked_run_says_so_and_answers_once_it_is_resumed(engines):
    """
    As `result` does: nobody is to wait for a person without knowing it.
    """

    @workflow(name="judge")
    async def other(orders: int) -> Flow[list[int]]:
        yield wait_for("something else")
        yield Return([orders])

    engine = await engines.file(judge)
    await engine.start(judge(1), id="r")
    await engine.aclose()
    engine = await engines.file(other)
    with pytest.raises(RunBlockedError, match="diverged"):
        await engine.get("r").ask(approve, Order(1), dedup="a", timeout=5)
    await engine.aclose()
    engine = await engines.file(judge)
    assert await engine.get("r").ask(approve, Order(1), dedup="a", timeout=5) == YES


async def test_answers_and_what_is_unheard_go_over_to_the_run_as_which_it_continues(engines, reached):
    """
    What it has taken in and not answered ends there: the asker is told at once.
    """
    engine = await engines.memory(relay)
    run = await engine.start(relay(1))
    assert await run.ask(approve, Order(1), dedup="a") == Verdict(True, "round 1")
    ignored, unheard = (asyncio.create_task(run.ask(approve, Order(n), dedup=f"{n}")) for n in (2, 3))
    await asked(engine, 3)
    await reached(run, "waiting")
    await run.signal("go")
    with pytest.raises(RequestUnansweredError, match="continued as another"):
        await ignored
    assert await unheard == Verdict(True, "the last")
    assert await run.ask(approve, Order(1), dedup="a", timeout=5) == Verdict(True, "round 1")
    await run.signal("end")
    assert await run.result(5) == "end"


async def test_a_fork_answers_nobody_and_a_pruned_run_has_no_answers(engines, strays):
    """
    The first answer stays; and goes with its run.
    """
    engine = await engines.memory(judge)
    run = await engine.start(judge(1))
    assert await run.ask(approve, Order(1), dedup="a") == YES
    await run.result(5)
    fork = await run.fork(1)
    assert await fork.result(5) == [1]
    await asked(engine, 1)
    await engine.delete(run.id)
    await engine.delete(fork.id)
    assert not await strays(engine)
    with pytest.raises(RunNotFoundError):
        await run.ask(approve, Order(1), dedup="a")


async def test_what_cannot_be_asked_is_refused_where_it_is_asked(engines):
    """
    Each its own error, and nothing is recorded. A question by name alone that does not fit is refused by the run.
    """
    engine = await engines.memory(judge)
    run = await engine.start(judge(1))
    with pytest.raises(EncodeError, match="question of request 'approve'"):
        await run.ask(approve, "3")
    with pytest.raises(TypeError, match="ask takes a Request, or the name of one"):
        await run.ask(3, Order(1))
    with pytest.raises(RunNotFoundError):
        await engine.get("none").ask(approve, Order(1))
    with pytest.raises(RequestRefusedError, match=r"question\.amount: expected int, found none"):
        await run.ask("approve", {"sum": 3}, timeout=5)
    assert [event.kind for event in await run.history()] == [
        "RunStarted", "SignalAwaited", "SignalReceived", "RequestTurnedAway",
    ]  # fmt: skip
    assert await run.ask(approve, Order(1), timeout=5) == YES


async def test_a_client_waits_through_the_death_of_the_owner(engines, tmp_db):
    """
    It asks the next one for the answer, which is recorded by then, or comes.
    """
    engine = await engines.file(judge)
    await engine.queue("default").pause()
    run = await engine.start(judge(1))
    async with Client(tmp_db, durability="process") as client:
        asking = asyncio.create_task(client.get(run.id).ask(approve, Order(1)))
        await asked(engine, 1)
        await engine.aclose()
        async with Engine(tmp_db, [judge], durability="process") as second:
            await second.queue("default").resume()
            assert await asyncio.wait_for(asking, 10) == YES


@workflow
async def office() -> Flow[list[int]]:
    """Answers, refuses, turns away, continues; with steps in between."""
    BROKEN.clear()
    total: list[int] = []
    for _ in range(3):
        asked: Asked[Order, Verdict] = yield wait_for(approve, timeout=60)
        yield stumble()
        total.append(asked.value.amount)
        yield asked.reply(YES) if asked.value.amount < 100 else asked.refuse("too much")
    yield Return(total)


@pytest.mark.long
def test_it_survives_every_crash():
    """
    Asked again until it is acknowledged, whatever is lost: the same questions, answered with the same, once each.
    """
    asked = {approve: [Order(1), Order(300), Order(2)], "other": ["a signal, that nobody hears"]}
    survived = every_crash(office(), [office], signals=asked)
    assert survived.undisturbed.result == [1, 300, 2]
    events = survived.undisturbed.runs["run"].events
    answered = [(event.request, event.refused) for event in events if isinstance(event, ReplySent)]
    assert answered == [("approve-0", False), ("approve-1", True), ("approve-2", False)]


async def test_a_dry_run_is_asked_what_it_is_given(engines):
    """
    Questions stand among the signals, by their `Request`.
    """
    engine = await engines.memory(judge)
    dry = await engine.dry_run(judge(2), signals={approve: [Order(1), Order(300), Order(2)]})
    assert dry.value == [1, 2]

"""
Looking at runs from outside: lists, reasons, histories, attributes, events, counts.
"""

import asyncio
import re
from datetime import UTC, datetime

import pytest
from attrs import fields

from durable import (
    Client,
    Flow,
    Queue,
    Retry,
    Return,
    RunCancelledError,
    RunFailedError,
    as_completed,
    current,
    for_each,
    gather,
    job,
    now,
    poll_until,
    race,
    random,
    saga,
    set_attributes,
    settle,
    sleep,
    step,
    timeout,
    uuid4,
    wait_first,
    wait_for,
    workflow,
)
from durable._core.journal.events import EVENT_CLASSES
from durable._shell.storage import schema

pytestmark = pytest.mark.anyio


@workflow(labels={"team": "ride"})
async def waiting(city: str) -> Flow[str]:
    set_attributes(city=city, stage=1)
    value: str = yield wait_for("go")
    set_attributes(stage=2)
    yield Return(value)


@job(queue="jobs")
async def quick(number: int) -> int:
    return number


@job
async def failing() -> None:
    raise ValueError("no")


@workflow
async def parent() -> Flow[list]:
    values: list[int] = yield gather(quick(1), quick(2), quick(3))
    yield Return(values)


async def ids(found):
    return [info.run_id async for info in found]


async def test_lists_are_filtered(engines, reached):
    """
    By workflow, status, labels, attributes, queue, parent and time; newest first.
    """
    engine = await engines.memory(waiting, quick, failing, parent)
    a = await engine.start(waiting("Bern"), id="a", labels={"vip": "yes"})
    b = await engine.start(waiting("Genf"), id="b")
    p = await engine.start(parent(), id="p")
    f = await engine.start(failing(), id="f")
    await p.result(5)
    with pytest.raises(RunFailedError):
        await f.result(5)
    await reached(a, "waiting")
    await reached(b, "waiting")
    assert await ids(engine.runs()) == ["p~.0.2", "p~.0.1", "p~.0.0", "f", "p", "b", "a"] or (
        sorted(await ids(engine.runs())) == ["a", "b", "f", "p", "p~.0.0", "p~.0.1", "p~.0.2"]
    )
    assert await ids(engine.runs(workflow="waiting")) == ["b", "a"]
    assert await ids(engine.runs(workflow=waiting, status="waiting")) == ["b", "a"]
    assert await ids(engine.runs(status=["failed", "cancelled"])) == ["f"]
    assert await ids(engine.runs(labels={"team": "ride"})) == ["b", "a"]
    assert await ids(engine.runs(labels={"team": "ride", "vip": "yes"})) == ["a"]
    assert await ids(engine.runs(labels={"nobody": "x"})) == []
    assert await ids(engine.runs(attributes={"city": "Bern"})) == ["a"]
    assert await ids(engine.runs(attributes={"stage": 1})) == ["b", "a"]
    assert await ids(engine.runs(attributes={"stage": "1"})) == []
    assert sorted(await ids(engine.runs(queue="jobs"))) == ["p~.0.0", "p~.0.1", "p~.0.2"]
    assert sorted(await ids(engine.runs(parent="p"))) == ["p~.0.0", "p~.0.1", "p~.0.2"]
    assert await ids(engine.runs(parent="a")) == []
    created = (await a.info()).created_at
    assert "a" in await ids(engine.runs(since=created))
    assert await ids(engine.runs(until=created)) == []
    assert "a" not in await ids(engine.runs(since=datetime.fromtimestamp(created + 3600, UTC)))


async def test_lists_are_paged_by_cursor(engines):
    """
    `limit` and `after` give every run once, however many start meanwhile.
    """
    engine = await engines.memory(quick)
    await engine.queue("jobs").pause()
    runs = await engine.start_many([quick(number) for number in range(450)])
    wanted = [run.id for run in runs][::-1]
    assert await ids(engine.runs()) == wanted
    assert await ids(engine.runs(limit=7)) == wanted[:7]
    assert await ids(engine.runs(limit=0)) == []
    seen, after = [], None
    while page := [info async for info in engine.runs(limit=100, after=after)]:
        seen += [info.run_id for info in page]
        after = page[-1].cursor
        await engine.start(quick(-1))
    assert seen == wanted


async def test_info_tells_all_about_a_run(engines, reached):
    """
    A frozen snapshot of what is known.
    """
    engine = await engines.memory(waiting)
    run = await engine.start(waiting("Bern"), id="r", key="k", priority=3, labels={"vip": "yes"})
    await reached(run, "waiting")
    info = await run.info()
    assert (info.run_id, info.workflow, info.version, info.kind) == ("r", "waiting", 1, "workflow")
    assert info.sort == info.kind  # its older name
    assert (info.status, info.queue, info.priority, info.key) == ("waiting", "default", 3, "k")
    assert dict(info.labels) == {"team": "ride", "vip": "yes"}
    assert dict(info.attributes) == {"city": "Bern", "stage": 1}
    assert info.created_at <= info.started_at
    assert (info.ended_at, info.reason, info.error, info.parent) == (None, None, None, None)
    assert repr(run) == "<Run 'r'>"
    assert run.run_id == "r"
    assert {run, engine.get("r")} == {run}


@workflow
async def leaving(error: str) -> Flow[None]:
    try:
        yield sleep(3600)
    finally:
        if error:
            raise OSError(error)


async def test_info_has_the_error_of_a_failed_run_and_of_a_failed_clean_up(engines, reached):
    """
    Of a run that failed, or that was cancelled and whose clean-up did: as one line, in lists and for clients, too. The
    reason that was given to `cancel` is no part of it, whatever it says.
    """
    engine = await engines.file(leaving, failing)
    misleading = "its clean-up failed: KeyError: 7"
    asked = {"plain": ("", ""), "bare": ("", "no disk"), "told": ("enough", "no disk"), "quiet": (misleading, ""),
             "quoted": (misleading, f"no disk; {misleading}")}  # fmt: skip
    for run_id, (reason, error) in asked.items():
        run = await engine.start(leaving(error), id=run_id)
        await reached(run, "waiting")
        await run.cancel(reason)
        with pytest.raises(RunCancelledError):
            await run.result(5)
    with pytest.raises(RunFailedError):
        await engine.run(failing(), id="failed")
    expected = {
        "plain": None, "bare": "OSError: no disk", "told": "OSError: no disk", "quiet": None,
        "quoted": f"OSError: no disk; {misleading}", "failed": "ValueError: no",
    }  # fmt: skip
    assert {info.run_id: info.error async for info in engine.runs()} == expected
    async with Client(engines.path) as client:
        assert {run_id: (await client.get(run_id).info()).error for run_id in expected} == expected


async def test_attributes_are_seen_while_the_run_is_under_way(engines, reached):
    """
    Published values are merged, searchable, and survive the end.
    """
    began, go = asyncio.Event(), asyncio.Event()

    @step
    async def slow() -> None:
        began.set()
        await go.wait()

    @workflow
    async def busy() -> Flow[None]:
        set_attributes(done=0, total=2, tags=["a"])
        yield slow()
        set_attributes(done=1)

    engine = await engines.memory(busy)
    run = await engine.start(busy())
    await began.wait()
    assert dict(await run.attributes()) == {"done": 0, "total": 2, "tags": ["a"]}
    go.set()
    await run.result(5)
    assert dict(await run.attributes()) == {"done": 1, "total": 2, "tags": ["a"]}
    assert await ids(engine.runs(attributes={"done": 1})) == [run.id]


async def test_why_names_what_a_run_waits_for(engines, clock, reached):
    """
    One sentence for each kind of wait, and since when.
    """

    @job(retry=Retry(attempts=2, delay=30.0, jitter=0.0))
    async def flaky() -> None:
        raise ConnectionError

    @workflow
    async def signalled() -> Flow[None]:
        yield wait_for("go", timeout=90)

    @workflow
    async def sleeping() -> Flow[None]:
        yield sleep(60)

    @workflow
    async def both() -> Flow[None]:
        yield gather(sleeping(), wait_for("go"))

    hold, began = asyncio.Event(), asyncio.Event()

    @job(queue="one")
    async def slow() -> None:
        began.set()
        await hold.wait()

    engine = await engines.memory(flaky, signalled, sleeping, both, slow, quick, clock=clock, queues=[Queue("one", 1)])
    runs = {}
    for name, op in {"flaky": flaky(), "signal": signalled(), "sleep": sleeping(), "both": both()}.items():
        runs[name] = await engine.start(op, id=name)
        await reached(runs[name], "waiting")
    clock.advance(7)
    assert "the next attempt of the step at 0 (due in 23.0 s), for 7.0 s" in await runs["flaky"].why()
    assert "signal 'go' at 0 (due in 1 min 23 s), for 7.0 s" in await runs["signal"].why()
    assert "the timer at 0 (due in 53.0 s)" in await runs["sleep"].why()
    why = await runs["both"].why()
    assert "and 1 more" in why
    assert "run 'both~.0.0'" in why or "signal 'go'" in why
    running = await engine.start(slow())
    await began.wait()
    assert "is running, for" in await running.why()
    queued = await engine.start(slow())
    assert "waits for a slot, 1st of 1 in queue 'one'" in await queued.why()
    delayed = await engine.start(quick(1), delay=100)
    assert "its start (due in 1 min 40 s)" in await delayed.why()
    hold.set()
    await running.result(5)
    assert "succeeded" in await running.why()
    await runs["signal"].cancel("enough")
    with pytest.raises(Exception, match="enough"):
        await runs["signal"].result(5)
    assert "was cancelled" in await runs["signal"].why()
    assert "enough" in await runs["signal"].why()


async def test_why_of_a_run_on_a_paused_queue_says_so(engines):
    """
    Whoever asks why nothing happens is told that the queue is paused.
    """
    engine = await engines.memory(quick)
    await engine.queue("jobs").pause()
    run = await engine.start(quick(1))
    assert "paused" in await run.why()


async def test_history_is_the_journal_in_order(engines):
    """
    Numbered events with kind, position, time and payload as text.
    """

    @step
    async def double(number: int) -> int:
        return number * 2

    @workflow
    async def flow() -> Flow[int]:
        value: int = yield double(4)
        yield Return(value)

    engine = await engines.memory(flow)
    run = await engine.start(flow())
    await run.result(5)
    events = await run.history()
    assert [(event.seq, event.kind, event.position) for event in events] == [
        (1, "RunStarted", None),
        (2, "StepStarted", "0"),
        (3, "StepSucceeded", "0"),
        (4, "RunSucceeded", None),
    ]
    assert events[2].value == "8"
    assert sorted(event.at for event in events) == [event.at for event in events]


async def test_children_are_listed_oldest_first(engines):
    """
    With where their parent started them.
    """
    engine = await engines.memory(parent, quick)
    run = await engine.start(parent(), id="p")
    await run.result(5)
    children = await run.children()
    assert [(child.run_id, child.parent, child.position) for child in children] == [
        ("p~.0.0", "p", "0.0"),
        ("p~.0.1", "p", "0.1"),
        ("p~.0.2", "p", "0.2"),
    ]


async def test_deterministic_functions_replay_equally(engines, reached):
    """
    `now`, `uuid4`, `random` and `current` give the same after a restart.
    """
    seen = []

    @workflow
    async def flow() -> Flow[list]:
        values = [now().isoformat(), str(uuid4()), random().random(), current().run_id, current().workflow]
        seen.append(values)
        yield wait_for("go")
        yield Return(values)

    engine = await engines.file(flow)
    run = await engine.start(flow(), id="r")
    await reached(run, "waiting")
    await engine.aclose()
    engine = await engines.file(flow)
    await engine.get("r").signal("go")
    assert await engine.get("r").result(5) == seen[0]
    assert seen == [seen[0], seen[0]]
    assert seen[0][3:] == ["r", "flow"]


async def test_events_tell_what_happens(engines, reached):
    """
    Starts, ends and pauses, in commit order, to every subscriber, until the engine closes.
    """
    engine = await engines.memory(quick, failing, waiting)
    first, second = engine.events(), engine.events()
    await engine.run(quick(1), id="q")
    run = await engine.start(waiting("Bern"), id="w")
    await reached(run, "waiting")
    await run.pause()
    await run.cancel()
    with pytest.raises(RunFailedError):
        await engine.run(failing(), id="f")
    await reached(run, "cancelled")
    await engine.aclose()
    names = [(event.name, event.run_id) async for event in first]
    assert names.index(("run.ready", "q")) < names.index(("run.succeeded", "q"))
    assert ("run.paused", "w") in names
    assert ("run.cancelled", "w") in names
    assert ("run.failed", "f") in names
    assert [(event.name, event.run_id) async for event in second] == names


async def test_a_subscriber_that_leaves_costs_nothing(engines):
    """
    Its buffer is gone with it.
    """
    engine = await engines.memory(quick)
    events = engine.events()
    await engine.start(quick(1))
    async for event in events:
        assert event.workflow == "quick"
        break
    await events.aclose()
    assert not engine._backend.running.broadcast.has_readers


async def test_stats_count(engines, reached):
    """
    Runs by status, waits, events, commits.
    """
    engine = await engines.memory(waiting, quick)
    await engine.run(quick(1))
    run = await engine.start(waiting("Bern"))
    await reached(run, "waiting")
    await asyncio.sleep(0.005)
    stats = await engine.stats()
    assert dict(stats.runs) == {"succeeded": 1, "waiting": 1}
    assert (stats.active, stats.resident, stats.waits, stats.trouble) == (0, 0, 1, None)
    assert stats.events >= 5
    assert stats.bytes > 0
    assert 0 < stats.commits <= stats.writes


async def test_a_slow_subscriber_loses_the_oldest_and_is_told(engines, monkeypatch):
    """
    It never holds the engine up: its next event says how many it lost.
    """
    from durable._shell.tasks import broadcast as module

    monkeypatch.setattr(module, "BUFFERED", 4)
    engine = await engines.memory(quick)
    events = engine.events()
    for number in range(6):
        await engine.run(quick(number), id=str(number))
    await engine.aclose()
    found = [event async for event in events]
    assert len(found) == 4
    assert found[0].lost == 14  # of three a run: ready, started, succeeded
    assert [event.lost for event in found[1:]] == [0, 0, 0]
    assert found[-1].run_id == "5"


@step
async def pay() -> int:
    return 7


@step
async def pay_each(amount: int) -> int:
    return amount


@workflow
async def named() -> Flow[None]:
    yield gather(pay(), quick(1), name=r'the "bo\'th"')
    yield sleep(0.001, name=r'cool "down\'s"')
    yield sleep(0.001)
    yield wait_for("go")


async def test_histories_tell_the_name_of_what_stands_at_a_position(engines, reached):
    """
    Of steps, jobs, groups, timers and signals: with the command and its outcome, in a program and in SQL.
    """
    engine = await engines.memory(named, quick)
    run = await engine.start(named())
    await reached(run, "waiting")
    await run.signal("go")
    await run.result(5)
    history = await run.history()
    names = {event.position: event.name for event in history}
    assert names == {
        None: None, "0": r'the "bo\'th"', "0.0": "pay", "0.1": "quick", "1": r'cool "down\'s"', "2": "sleep", "3": "go",
    }  # fmt: skip
    by_outcome = {event.kind: event.name for event in history}
    assert (by_outcome["StepSucceeded"], by_outcome["ChildSucceeded"]) == ("pay", "quick")

    def told(conn):
        return conn.execute("SELECT seq, name FROM history WHERE run_id = ? ORDER BY seq", (run.id,)).fetchall()

    assert await engine._backend.read(told) == [(event.seq, event.name) for event in history]


def test_the_view_knows_every_command_and_where_its_name_stands():
    """
    Whoever adds a command adds it there.
    """
    commands = {kind: cls for kind, cls in EVENT_CLASSES.items() if getattr(cls, "category", "") == "command"}
    listed = re.findall(r"c\.kind IN \(([\d, ]+)\)", schema._VIEW_HISTORY)[-1]
    assert {int(kind) for kind in listed.split(", ")} == set(commands)
    for cls in commands.values():
        assert next(each.name for each in fields(cls) if each.name != "position") in {"name", "run_id"}
    assert [each.name for each in fields(EVENT_CLASSES[21])] == ["position", "name", "fire_at", "site", "label", "at"]
    group = [each.name for each in fields(EVENT_CLASSES[20])]
    assert group == ["position", "name", "size", "site", "label", "value", "at"]


@pytest.mark.parametrize("first", ["", "before"])
async def test_names_may_be_changed_under_open_runs(engines, eventually, first):
    """
    They are for people: a run that was started without them, or with others, resumes.
    """

    def version(name):
        @workflow(name="naps")
        async def naps() -> Flow[str]:
            yield sleep(0.001, name=name)
            yield gather(pay(), name=name)
            yield for_each(pay_each, [1, 2], name=name)
            yield settle(pay(), name=name)
            yield timeout(wait_for("go"), 60, name=name)
            yield race(pay(), name=name)
            yield wait_first(pay(), name=name)
            yield poll_until(pay, every=1, name=name)
            async for _ in as_completed([pay()], name=name):
                pass
            async with saga(name=name) as undo:
                undo(pay())
            yield Return(name)

        return naps

    before = version(first)
    engine = await engines.file(before)
    run = await engine.start(before())

    async def waits_for_the_signal() -> bool:
        return any(wait.kind == "signal" for wait in await run.waits())

    await eventually(waits_for_the_signal)
    await engine.aclose()
    engine = await engines.file(version("a nap"))
    await engine.get(run.id).signal("go")
    assert await engine.get(run.id).result(5) == "a nap"
    names = {event.position: event.name for event in await engine.get(run.id).history()}
    told = [names[str(number)] for number in range(9)]
    assert told[5:] == ["a nap"] * 4
    assert set(told[:5]) == ({"before"} if first else {"sleep", "gather", "for_each pay_each", "settle", "timeout"})


async def test_why_tells_the_names_that_the_code_gives(engines, eventually):
    """
    Of members of a group, of a helper that is one, of a group, and of a timer.
    """

    async def payment() -> object:
        return await wait_for("paid")

    @workflow
    async def body(form: str) -> Flow[None]:
        match form:
            case "race":
                yield race({"customer": wait_for("go"), "late": sleep(9_000)})
            case "helper":
                yield gather({"payment": payment()})
            case "named":
                yield timeout(race({"customer": wait_for("go"), "late": sleep(9_000)}, name="decision"), 60, name="day")
            case "timeout":
                yield timeout(wait_for("go"), 60, name="patience")
            case _:
                yield sleep(60, name="cool down")

    engine = await engines.memory(body)
    told = {
        "race": "signal 'go' at 0.0 (customer) and 1 more",
        "helper": "signal 'paid' at 0.0.0 (payment)",
        "named": "signal 'go' at 0.0.0 (customer in decision) and 2 more",
        "timeout": "signal 'go' at 0.0 (in patience) and 1 more",
        "timer": "the timer at 0 (cool down) (due in",
    }
    for form, sentence in told.items():
        run = await engine.start(body(form))

        async def is_told(run=run, sentence=sentence) -> bool:
            return sentence in await run.why()

        await eventually(is_told)


async def test_waits_tell_the_names_that_the_code_gives(engines, reached):
    """
    What `why()` says in a sentence, as values; the time of a `timeout` stands last, whatever it is called.
    """

    @workflow
    async def body() -> Flow[None]:
        yield timeout(gather({"customer": wait_for("go")}, name="decision"), 60, name="patience")

    engine = await engines.memory(body)
    run = await engine.start(body())
    await reached(run, "waiting")
    waits = [(wait.kind, wait.position, wait.called) for wait in await run.waits()]
    assert waits == [("signal", "0.0.0", "customer in decision"), ("timer", "0", "patience")]
    assert (await run.info()).waits == await run.waits()

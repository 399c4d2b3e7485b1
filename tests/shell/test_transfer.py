"""
Runs leave a journal and arrive in another one: unchanged, paused, and able to go on.
"""

import asyncio
import json
import os
import re
import stat

import pytest
from attrs import evolve, frozen
from attrs import fields as attrs_fields

from durable import (
    Client,
    Engine,
    Flow,
    Limit,
    Redacted,
    Return,
    RunCancelledError,
    RunNotFoundError,
    continue_as,
    for_each,
    gather,
    job,
    read_histories,
    set_attributes,
    step,
    timeout,
    wait_for,
    workflow,
)
from durable._core.codec.hints import class_hints
from durable._core.codec.records import record_codec
from durable._core.journal.events import RunContinued, SignalReceived
from durable._shell.rows.rows import NewRun
from durable._shell.storage.copies.marks import SCHEMA_VERSION
from durable.errors import DecodeError, ExportFormatError, JournalAccessError, RunExistsError, UsageError

pytestmark = pytest.mark.anyio


@frozen
class Card:
    number: str
    holder: str


@step
async def charge(card: Card) -> str:
    return f"charged {card.number}"


@workflow(labels={"team": "payments"})
async def pay(card: Card) -> Flow[str]:
    set_attributes(stage="charging")
    yield Return((yield charge(card)))


@step
async def work(n: int) -> int:
    counted.append(n)
    return n * 10


@step
async def flaky() -> None:
    raise ConnectionError("card 4111 was refused")


counted: list[int] = []


@workflow
async def asked() -> Flow[list]:
    first: int = yield work(1)
    answer: str = yield wait_for("go", str)
    yield Return([first, answer])


@workflow
async def hasty() -> Flow[str]:
    try:
        yield timeout(wait_for("go", str), 0.05)
    except TimeoutError:
        yield Return("nobody came")


@workflow
async def failing() -> Flow[None]:
    yield flaky()


@job
async def half(n: int) -> float:
    return n / 2


@workflow
async def held(n: int) -> Flow[int]:
    yield Return(n + (yield wait_for("add", int)))


@workflow
async def family() -> Flow[list]:
    yield Return((yield gather(held(1), half(3), held(2))))


@workflow
async def window() -> Flow[list]:
    yield Return((yield for_each(held, [1, 2, 3, 4], concurrency=2)))


@workflow
async def loop(n: int) -> Flow[str]:
    yield work(n)
    if n:
        yield continue_as(loop(n - 1))
    yield Return("landed")


@workflow
async def plain(n: int) -> Flow[int]:
    yield Return(n)


@workflow
async def turning() -> Flow[str]:
    if (yield wait_for("turn", bool)):
        yield continue_as(turning())
    yield Return("stopped")


@workflow
async def pair() -> Flow[str]:
    yield Return((yield turning()))


ALL = [turning, pair, pay, asked, hasty, failing, half, held, family, window, loop, plain]


@pytest.fixture
async def other(tmp_path):
    """
    An engine of another file.
    """
    async with Engine(tmp_path / "other.db", ALL, durability="process", grace=0.2) as engine:
        yield engine


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_header(path):
    return path.read_text().splitlines()[1:]


# --- what ended --------------------------------------------------------------------------------------


async def test_an_ended_run_is_the_same_in_the_other_file(engines, other, tmp_path):
    """
    Result, history, attributes, labels, key and times; and exported again it is line for line equal.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(pay(Card("4111", "Ann")), id="p-1", key="order-7")
    await run.result()
    await engine.export("p-1", tmp_path / "p.jsonl")
    found = await other.import_runs(tmp_path / "p.jsonl")
    assert (found.runs, found.present) == (["p-1"], [])
    again = await other.find("order-7")
    assert await again.result() == "charged 4111"
    assert await again.history() == await run.history()
    mine, theirs = await run.info(), await again.info()
    assert evolve(mine, cursor=0) == evolve(theirs, cursor=0)
    await other.export("p-1", tmp_path / "again.jsonl")
    assert without_header(tmp_path / "again.jsonl") == without_header(tmp_path / "p.jsonl")
    assert stat.S_IMODE(os.stat(tmp_path / "p.jsonl").st_mode) == 0o600


async def test_the_file_can_be_read_by_people_and_programs(engines, tmp_path):
    """
    A header with versions; then facts and events, names for kinds and fields, values as the JSON that they are.
    """
    engine = await engines.file(*ALL)
    await engine.run(pay(Card("4111", "Ann")), id="p-1")
    await engine.export(["p-1"], tmp_path / "p.jsonl")
    header, run, *events = lines(tmp_path / "p.jsonl")
    assert header["durable"] == "journal export"
    assert (header["format"], header["schema"], header["redacted"], header["runs"]) == (1, SCHEMA_VERSION, False, 1)
    assert (run["run"]["run_id"], run["run"]["status"], run["run"]["lines"]) == ("p-1", "succeeded", {"events": 5})
    assert [(each["seq"], each["event"]) for each in events] == [
        (1, "RunStarted"),
        (2, "AttributesSet"),
        (3, "StepStarted"),
        (4, "StepSucceeded"),
        (5, "RunSucceeded"),
    ]
    assert events[0]["value"] == [[{"number": "4111", "holder": "Ann"}], {}]
    assert events[2]["fields"]["name"].endswith("charge")
    assert events[3] == {
        "seq": 4,
        "event": "StepSucceeded",
        "position": "0",
        "at": events[3]["at"],
        "value": "charged 4111",
    }


async def test_what_is_here_already_is_passed_over(engines, other, tmp_path):
    """
    An import can be repeated; only what is missing is written.
    """
    engine = await engines.file(*ALL)
    await engine.run(plain(1), id="a")
    await engine.run(plain(2), id="b")
    await engine.export("a", tmp_path / "a.jsonl")
    await engine.export(["b", "a", "a"], tmp_path / "ab.jsonl")
    await other.import_runs(tmp_path / "a.jsonl")
    found = await other.import_runs(tmp_path / "ab.jsonl")
    assert (found.runs, found.present) == (["b"], ["a"])
    assert [info.run_id async for info in other.runs()] == ["b", "a"]


async def test_another_run_of_the_same_id_refuses_the_whole_import(engines, other, tmp_path):
    """
    The error names it, and nothing of the file is written.
    """
    engine = await engines.file(*ALL)
    for run_id in "abc":
        await engine.run(plain(1), id=run_id)
    await engine.export(["a", "b", "c"], tmp_path / "ab.jsonl")
    await other.run(plain(5), id="b")
    await other.run(plain(5), id="c")
    with pytest.raises(RunExistsError, match=r"'b' exists already: it has other events .*\(so do c\)"):
        await other.import_runs(tmp_path / "ab.jsonl")
    assert [info.run_id async for info in other.runs()] == ["c", "b"]


async def test_a_key_stays_the_runs_own_only_if_it_is_free(engines, other, tmp_path):
    """
    The key is told in any case, but `find` goes on finding whose it was.
    """
    engine = await engines.file(*ALL)
    await engine.run(plain(1), id="a", key="k")
    await engine.export("a", tmp_path / "a.jsonl")
    await other.run(plain(2), id="mine", key="k")
    await other.import_runs(tmp_path / "a.jsonl")
    assert (await other.find("k")).id == "mine"
    assert (await other.get("a").info()).key == "k"


async def test_large_values_and_failures_travel(engines, other, tmp_path):
    """
    A value that is kept by content, and the recorded error with its traceback.
    """
    engine = await engines.file(*ALL)
    await engine.run(pay(Card("x" * 5_000, "é\u2028\U0001f600")), id="large")
    failed = await engine.start(failing(), id="failed")
    with pytest.raises(Exception, match="refused"):
        await failed.result()
    await engine.export(["large", "failed"], tmp_path / "a.jsonl")
    await other.import_runs(read_histories(tmp_path / "a.jsonl"))
    assert await other.get("large").history() == await engine.get("large").history()
    assert await other.get("failed").history() == await failed.history()
    assert await other.get("large").result() == "charged " + "x" * 5_000


async def test_a_failed_run_can_be_retried_where_it_was_imported(engines, other, tmp_path):
    """
    An import leaves a run that all requests know how to deal with.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(failing(), id="f")
    with pytest.raises(Exception, match="refused"):
        await run.result()
    await engine.export("f", tmp_path / "a.jsonl")
    await other.import_runs(tmp_path / "a.jsonl")
    again = other.get("f")
    assert await again.retry()
    with pytest.raises(Exception, match="refused"):
        await again.result()
    assert (await again.info()).status == "failed"


async def test_a_chain_and_what_runs_have_started_come_with_tree(engines, other, tmp_path):
    """
    ``tree=True`` takes along children and successors; links between them are made again.
    """
    engine = await engines.file(*ALL)
    await engine.run(loop(2), id="l")
    await engine.export("l", tmp_path / "l.jsonl", tree=True)
    found = await other.import_runs(tmp_path / "l.jsonl")
    assert found.runs == ["l", "l~2", "l~3"]
    assert await other.get("l").result() == "landed"
    assert isinstance((await other.get("l").history())[-1].event, RunContinued)


# --- what goes on --------------------------------------------------------------------------------------


async def test_a_waiting_run_goes_on_in_the_other_file_once_it_is_resumed(engines, other, tmp_path, reached):
    """
    It arrives paused, says why, takes signals, and repeats no step.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(asked(), id="w")
    await reached(run, "waiting")
    await engine.export("w", tmp_path / "w.jsonl")
    counted.clear()
    await other.import_runs(tmp_path / "w.jsonl")
    again = other.get("w")
    info = await again.info()
    assert info.status == "paused"
    assert info.reason == "imported; resume it to let it continue"
    assert await again.signal("go", "now")
    assert (await again.info()).status == "paused"
    assert await again.resume()
    assert await again.result(timeout=5) == [10, "now"]
    assert counted == []


async def test_an_early_signal_travels_too(engines, other, tmp_path, reached):
    """
    What no turn has taken in is pending in the file, and a signal that was accepted once stays so.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(asked(), id="w")
    await reached(run, "waiting")
    await run.pause()
    await run.signal("go", "early", dedup="d-1")
    await engine.export("w", tmp_path / "w.jsonl")
    (history,) = read_histories(tmp_path / "w.jsonl")
    assert [type(event) for event in history.pending] == [SignalReceived]
    assert history.dedups == ["d-1"]
    await other.import_runs([history])
    again = other.get("w")
    assert not await again.signal("go", "early", dedup="d-1")
    await again.resume()
    assert await again.result(timeout=5) == [10, "early"]


async def test_a_timer_that_comes_due_fires_in_the_other_file(engines, other, tmp_path, reached, eventually):
    """
    Deadlines are instants: one that has passed meanwhile fires at once, for a resumed run.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(hasty(), id="t")
    await reached(run, "waiting")
    await engine.export("t", tmp_path / "t.jsonl")
    await other.import_runs(tmp_path / "t.jsonl")
    await other.get("t").resume()
    assert await other.get("t").result(timeout=5) == "nobody came"


async def test_a_family_goes_on_together(engines, other, tmp_path, reached):
    """
    Parent and children are linked again by their ids: the parent is woken by the last of them.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(family(), id="fam")
    await reached(run, "waiting")
    await engine.get("fam~.0.1").result()
    await reached(engine.get("fam~.0.0"), "waiting")
    await reached(engine.get("fam~.0.2"), "waiting")
    await engine.export("fam", tmp_path / "f.jsonl", tree=True)
    found = await other.import_runs(tmp_path / "f.jsonl")
    assert sorted(found.runs) == ["fam", "fam~.0.0", "fam~.0.1", "fam~.0.2"]
    assert sorted([child.run_id for child in await other.get("fam").children()]) == ["fam~.0.0", "fam~.0.1", "fam~.0.2"]
    for run_id in found.runs:
        if run_id != "fam~.0.1":
            await other.get(run_id).resume()
    await other.get("fam~.0.0").signal("add", 10)
    await other.get("fam~.0.2").signal("add", 20)
    assert await other.get("fam").result(timeout=5) == [11, 1.5, 22]


async def test_a_child_that_ended_here_before_its_parent_came_is_not_waited_for(engines, other, tmp_path, reached):
    """
    Imported one by one, children first: outcomes that are here reach the parent.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(family(), id="fam")
    await reached(run, "waiting")
    await engine.get("fam~.0.1").result()
    for name in ("0.0", "0.2"):
        await reached(engine.get(f"fam~.{name}"), "waiting")
    await engine.export(["fam~.0.0", "fam~.0.1", "fam~.0.2"], tmp_path / "children.jsonl")
    await engine.export(["fam"], tmp_path / "parent.jsonl")
    await other.import_runs(tmp_path / "children.jsonl")
    for name, number in (("0.0", 10), ("0.2", 20)):
        child = other.get(f"fam~.{name}")
        await child.resume()
        await child.signal("add", number)
        await child.result(timeout=5)
    await other.import_runs(tmp_path / "parent.jsonl")
    assert len(await other.get("fam").children()) == 3
    await other.get("fam").resume()
    assert await other.get("fam").result(timeout=5) == [11, 1.5, 22]


async def test_children_that_are_imported_after_their_parent_are_waited_for(engines, other, tmp_path, reached):
    """
    One had ended already, two go on here.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(family(), id="fam")
    await reached(run, "waiting")
    for name in ("0.0", "0.2"):
        await reached(engine.get(f"fam~.{name}"), "waiting")
    await engine.export(["fam"], tmp_path / "parent.jsonl")
    (history,) = read_histories(tmp_path / "parent.jsonl")
    await engine.get("fam~.0.2").signal("add", 20)
    await engine.get("fam~.0.2").result()
    await engine.get("fam~.0.1").result()
    await engine.export(["fam~.0.0", "fam~.0.1", "fam~.0.2"], tmp_path / "children.jsonl")
    await other.import_runs([history])
    await other.import_runs(tmp_path / "children.jsonl")
    await other.get("fam").resume()
    await other.get("fam~.0.0").resume()
    await other.get("fam~.0.0").signal("add", 10)
    assert await other.get("fam").result(timeout=5) == [11, 1.5, 22]


async def test_a_child_that_was_not_imported_counts_as_cancelled(engines, other, tmp_path, reached):
    """
    A parent alone can be looked at; once it is resumed it does not wait for ever.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(family(), id="fam")
    await reached(run, "waiting")
    await engine.export("fam", tmp_path / "f.jsonl")
    await other.import_runs(tmp_path / "f.jsonl")
    again = other.get("fam")
    assert (await again.info()).status == "paused"
    await again.resume()
    with pytest.raises(Exception, match="not imported") as failed:
        await again.result(timeout=5)
    assert not isinstance(failed.value, RunCancelledError)


async def test_a_window_goes_on_with_the_items_that_were_left(engines, other, tmp_path, reached, eventually):
    """
    The items of a `for_each` that no child has been started for are started here.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(window(), id="win")
    await reached(run, "waiting")
    first = engine.get("win~.0.0")
    await reached(first, "waiting")
    await reached(engine.get("win~.0.1"), "waiting")
    await first.signal("add", 100)
    await first.result()
    await reached(engine.get("win~.0.2"), "waiting")
    await engine.export("win", tmp_path / "w.jsonl", tree=True)
    found = await other.import_runs(tmp_path / "w.jsonl")
    assert sorted(found.runs) == ["win", "win~.0.0", "win~.0.1", "win~.0.2"]
    for run_id in ("win", "win~.0.1", "win~.0.2"):
        await other.get(run_id).resume()
    await other.get("win~.0.1").signal("add", 100)
    await other.get("win~.0.2").signal("add", 100)

    async def started():
        return [info.run_id async for info in other.runs() if info.run_id == "win~.0.3"]

    await eventually(started)
    await other.get("win~.0.3").signal("add", 100)
    assert await other.get("win").result(timeout=5) == [101, 102, 103, 104]


async def test_a_window_that_is_not_imported_with_its_children_fails_and_starts_no_more(
    engines, other, tmp_path, reached
):
    """
    A missing child is a failure in the window.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(window(), id="win")
    await reached(run, "waiting")
    await engine.export("win", tmp_path / "w.jsonl")
    await other.import_runs(tmp_path / "w.jsonl")
    await other.get("win").resume()
    with pytest.raises(Exception, match="not imported"):
        await other.get("win").result(timeout=5)
    assert [info.run_id async for info in other.runs()] == ["win"]


async def test_a_delayed_run_begins_when_it_is_due(engines, other, tmp_path):
    """
    Not before, though it was resumed.
    """
    engine = await engines.file(*ALL)
    await engine.start(plain(1), id="later", delay=3_600)
    await engine.export("later", tmp_path / "a.jsonl")
    await other.import_runs(tmp_path / "a.jsonl")
    later = other.get("later")
    await later.resume()
    assert (await later.info()).status == "pending"
    assert await later.cancel("no")
    with pytest.raises(RunCancelledError):
        await later.result(timeout=5)


async def test_an_older_export_of_a_parent_is_refused_beside_its_later_children(engines, other, tmp_path, reached):
    """
    It would start children that are here already: ids derive from the parent's.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(family(), id="fam", delay=0.0)
    await reached(run, "waiting")
    await engine.export("fam~.0.0", tmp_path / "child.jsonl")
    await engine.export("fam", tmp_path / "fam.jsonl")
    (history,) = read_histories(tmp_path / "fam.jsonl")
    older = evolve(history, events=history.events[:1], waits=[])
    await other.import_runs(tmp_path / "child.jsonl")
    with pytest.raises(RunExistsError, match="'fam', which has not ended, would start it again"):
        await other.import_runs([older])
    assert [info.run_id async for info in other.runs()] == ["fam~.0.0"]


async def test_a_child_is_refused_beside_a_parent_that_would_start_it_itself(engines, other, tmp_path, reached):
    """
    The parent is here as it was before: open, and without that child. In the right order all is well.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(family(), id="fam")
    await reached(run, "waiting")
    await engine.export("fam~.0.0", tmp_path / "child.jsonl")
    await engine.export("fam", tmp_path / "fam.jsonl")
    (history,) = read_histories(tmp_path / "fam.jsonl")
    async with Engine(tmp_path / "third.db", ALL, durability="process") as third:
        await third.import_runs([history])
        assert (await third.import_runs(tmp_path / "child.jsonl")).runs == ["fam~.0.0"]
    await other.import_runs([evolve(history, events=history.events[:1], waits=[])])
    with pytest.raises(RunExistsError, match=r"'fam' exists already: .* would start 'fam~.0.0' itself"):
        await other.import_runs(tmp_path / "child.jsonl")
    (child,) = read_histories(tmp_path / "child.jsonl")
    with pytest.raises(RunExistsError, match=r"'fam' exists already: .* would continue as 'fam~2'"):
        await other.import_runs([evolve(child, run=evolve(child.run, run_id="fam~2"))])


async def test_an_older_export_is_refused_beside_what_the_run_continued_as(engines, other, tmp_path):
    """
    The same for successors.
    """
    engine = await engines.file(*ALL)
    await engine.run(loop(1), id="l")
    await engine.export(["l~2"], tmp_path / "second.jsonl")
    await engine.export(["l"], tmp_path / "first.jsonl")
    (first,) = read_histories(tmp_path / "first.jsonl")
    facts = evolve(first.run, status="running", ended_at=None, successor=None)
    await other.import_runs(tmp_path / "second.jsonl")
    with pytest.raises(RunExistsError, match="would continue as it"):
        await other.import_runs([evolve(first, run=facts, events=first.events[:-1])])


async def test_a_blocked_run_goes_on_where_its_code_is(engines, other, tmp_path, reached):
    """
    It arrives paused like any other, and nothing but `resume` is needed.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(plain(4), id="b", delay=3_600)
    await engine.aclose()
    without = await engines.file(asked)
    await without.get("b").pause()
    await without.export("b", tmp_path / "paused.jsonl")
    (history,) = read_histories(tmp_path / "paused.jsonl")
    assert [wait.kind for wait in history.waits] == ["start"]
    blocked = evolve(
        history,
        run=evolve(history.run, status="blocked", reason="no code"),
        waits=[evolve(history.waits[0], kind="code", group="code", fire_at=None)],
    )
    await other.import_runs([blocked])
    again = other.get(run.id)
    assert (await again.info()).status == "paused"
    await again.resume()
    assert await again.result(timeout=5) == 4


async def test_a_run_behind_others_that_are_not_here_waits_for_nobody(engines, other, tmp_path):
    """
    What a schedule let wait for the run before it.
    """
    engine = await engines.file(*ALL)
    await engine.start(plain(4), id="b", delay=3_600)
    await engine.export("b", tmp_path / "b.jsonl")
    (history,) = read_histories(tmp_path / "b.jsonl")
    (delay,) = history.waits
    await other.import_runs([evolve(history, waits=[evolve(delay, fire_at=None, target="nowhere")])])
    await other.get("b").resume()
    assert await other.get("b").result(timeout=5) == 4


async def test_a_step_that_waits_for_a_slot_asks_again_in_the_other_file(engines, tmp_path, reached):
    """
    Slots are of one file: who held one there holds none here, and who waited stands in line.
    """
    entered, leave = asyncio.Event(), asyncio.Event()

    @step(limit=Limit("one", concurrency=1))
    async def narrow(n: int) -> int:
        entered.set()
        await leave.wait()
        return n

    @workflow
    async def through(n: int) -> Flow[int]:
        yield Return((yield narrow(n)))

    engine = await engines.file(through)
    await engine.start(through(1), id="in")
    await entered.wait()
    waiting = await engine.start(through(2), id="line")
    await reached(waiting, "waiting")
    await engine.export(["in", "line"], tmp_path / "t.jsonl")
    leave.set()
    async with Engine(tmp_path / "o.db", [through], durability="process", grace=0.2) as other:
        await other.import_runs(tmp_path / "t.jsonl")
        await other.get("line").resume()
        assert await other.get("line").result(timeout=5) == 2
        await other.get("in").resume()
        assert await other.get("in").result(timeout=5) == 1


async def test_a_parent_waits_for_what_its_child_continued_as(engines, other, tmp_path, reached, eventually):
    """
    Here the child went on as another run before the parent came.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(pair(), id="pair")
    await reached(run, "waiting")
    await reached(engine.get("pair~.0"), "waiting")
    await engine.export("pair", tmp_path / "parent.jsonl")
    await engine.export("pair~.0", tmp_path / "child.jsonl")
    await other.import_runs(tmp_path / "child.jsonl")
    await other.get("pair~.0").resume()
    await other.get("pair~.0").signal("turn", True)

    async def turned():
        return [info.run_id async for info in other.runs() if info.run_id == "pair~.0~2"]

    await eventually(turned)
    await other.import_runs(tmp_path / "parent.jsonl")
    await other.get("pair").resume()
    await other.get("pair~.0~2").signal("turn", False)
    assert await other.get("pair").result(timeout=5) == "stopped"


async def test_a_window_cannot_claim_a_run_that_is_here(engines, other, tmp_path, reached):
    """
    Creating it a second time would fail, long after, in a transaction of others.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(window(), id="win")
    await reached(run, "waiting")
    await engine.export("win", tmp_path / "w.jsonl")
    (history,) = read_histories(tmp_path / "w.jsonl")
    (feed,) = history.feeds
    await other.run(plain(1), id="mine")
    claimed = evolve(feed, items=(evolve(feed.items[0], child="mine"),))
    with pytest.raises(RunExistsError, match="'win' would start it again"):
        await other.import_runs([evolve(history, feeds=[claimed])])


async def test_one_id_with_two_histories_is_refused(engines, other, tmp_path):
    """
    Files may share runs, but not contradict each other.
    """
    engine = await engines.file(*ALL)
    await engine.run(plain(1), id="a")
    await engine.export("a", tmp_path / "a.jsonl")
    (a,) = read_histories(tmp_path / "a.jsonl")
    with pytest.raises(UsageError, match="imported twice, with different events"):
        await other.import_runs([a, evolve(a, events=[*a.events[:-1], evolve(a.events[-1], value="2")])])
    assert (await other.import_runs([a, a])).runs == ["a"]


# --- hostile ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tie", ["parent", "follows"])
async def test_runs_that_started_each_other_are_refused(engines, other, tmp_path, tie):
    """
    Requests to cancel go down from parent to child: a circle would never end.
    """
    engine = await engines.file(*ALL)
    await engine.run(plain(1), id="a")
    await engine.run(plain(1), id="b")
    await engine.export(["a", "b"], tmp_path / "ab.jsonl")
    a, b = read_histories(tmp_path / "ab.jsonl")
    circle = [evolve(a, run=evolve(a.run, **{tie: "b"})), evolve(b, run=evolve(b.run, **{tie: "a"}))]
    with pytest.raises(UsageError, match="circle"):
        await other.import_runs(circle)
    assert [info.run_id async for info in other.runs()] == []


async def test_runs_that_continue_each_other_are_refused(engines, other, tmp_path):
    """
    Who asks for the end of such a run would look for ever.
    """
    engine = await engines.file(*ALL)
    await engine.run(loop(2), id="l")
    await engine.export("l", tmp_path / "l.jsonl", tree=True)
    first, second, third = read_histories(tmp_path / "l.jsonl")
    second = evolve(second, run=evolve(second.run, successor="l"))
    with pytest.raises(UsageError, match="circle"):
        await other.import_runs([first, second, third])


async def test_a_broken_file_writes_nothing(engines, other, tmp_path):
    """
    An error in its last line: the first run is not written either.
    """
    engine = await engines.file(*ALL)
    await engine.run(plain(1), id="a")
    await engine.run(plain(1), id="b")
    await engine.export(["a", "b"], tmp_path / "ab.jsonl")
    whole = (tmp_path / "ab.jsonl").read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(whole[:-20])
    with pytest.raises(ExportFormatError, match=r"cut.jsonl, line 7: expected a JSON object"):
        await other.import_runs(tmp_path / "cut.jsonl")
    assert [info.run_id async for info in other.runs()] == []


@pytest.mark.parametrize(
    "change, said",
    [
        ({"priority": "high"}, "[0].priority: expected int, found str 'high'"),
        ({"priority": 10**30}, "[0].priority: expected int of 64 bits, found int 1000000"),
        ({"workflow": None}, "[0].workflow: expected str, found null"),
        ({"labels": {"a": 1}}, "[0].labels.a: expected str, found int 1"),
        ({"on_conflict": "shout"}, "[0].on_conflict: expected Literal['join', "),
        ({"retry": "{}"}, "[0].retry.attempts: expected int | None, found none"),
        ({"started": {"workflow": "plain"}}, "[0].started.version: expected int, found none"),
        ({"started": {"workflow": 1, "version": 1, "seed": ""}}, "[0].started.workflow: expected str, found int 1"),
        ({"due_at": 1e300}, "[0].due_at: expected epoch seconds of a year before 9999"),
        ({"new": 1}, "[0].new: expected no field of this name, found one"),
        ({"follow_ups": [{}]}, "[0].follow_ups[0].run: expected int, found none"),
    ],
)
async def test_runs_to_be_started_later_are_checked_now(engines, other, tmp_path, change, said):
    """
    Follow-ups are rows that will be inserted when their run ends, with nobody there to complain to.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(held(1).then(plain(2)), id="then")
    await engine.export("then", tmp_path / "a.jsonl")
    (history,) = read_histories(tmp_path / "a.jsonl")
    (template,) = json.loads(history.run.follow_ups)
    hostile = evolve(history, run=evolve(history.run, follow_ups=json.dumps([{**template, **change}])))
    with pytest.raises(UsageError, match=re.escape(f"follow-ups of 'then'{said}")):
        await other.import_runs([hostile])
    await run.cancel()
    await other.import_runs([history])
    await other.get("then").resume()
    await other.get("then").signal("add", 1)
    assert await other.get("then").result(timeout=5) == 2


def test_no_field_of_a_run_to_be_started_later_takes_anything():
    """
    An annotation that cannot be resolved would mean that nothing is checked: a set is refused everywhere.
    """
    codec, hints = record_codec(), class_hints(NewRun)
    for each in attrs_fields(NewRun):
        with pytest.raises(DecodeError):
            codec.from_plain({1}, hints[each.name])


# --- redaction ---------------------------------------------------------------------------------------------


async def test_what_must_not_leave_is_changed_by_a_hook(engines, other, tmp_path):
    """
    The hook sees every value, label, key and reason, and where it stands; the header tells that it was at work.
    """
    engine = await engines.file(*ALL)
    await engine.run(pay(Card("4111", "Ann")), id="p", key="4111")
    failed = await engine.start(failing(), id="f", labels={"card": "4111"})
    with pytest.raises(Exception, match="refused"):
        await failed.result()
    seen: list[Redacted] = []

    def redact(where):
        seen.append(where)
        return json.loads(json.dumps(where.value).replace("4111", "****"))

    await engine.export(["p", "f"], tmp_path / "r.jsonl", redact=redact)
    text = (tmp_path / "r.jsonl").read_text()
    assert '"4111' not in text
    assert lines(tmp_path / "r.jsonl")[0]["redacted"] is True
    places = {(each.run_id, each.event, each.position, each.name.rpartition(".")[2]) for each in seen}
    assert {
        ("p", "Run", None, "key"),
        ("p", "Run", None, "labels"),
        ("p", "Run", None, "attributes"),
        ("p", "RunStarted", None, "pay"),
        ("p", "StepSucceeded", "0", "charge"),
        ("f", "Run", None, "reason"),
        ("f", "StepFailed", "0", "flaky"),
    } <= places
    await other.import_runs(tmp_path / "r.jsonl")
    assert await other.get("p").result() == "charged ****"


@pytest.mark.parametrize(
    "name, returned, said",
    [
        ("reason", None, "must return a string for Run.reason of run 'f'"),
        ("labels", {"card": 1}, "must return a dict of strings for the labels of run 'f'"),
        ("attributes", {1, 2}, "not JSON"),
    ],
)
async def test_a_hook_that_returns_nonsense_leaves_no_file(engines, tmp_path, name, returned, said):
    """
    The error says what it was asked for.
    """
    engine = await engines.file(*ALL)
    failed = await engine.start(failing(), id="f", labels={"card": "4111"})
    await engine.run(pay(Card("1", "Ann")), id="p")
    with pytest.raises(Exception, match="refused"):
        await failed.result()
    with pytest.raises(UsageError, match=said):
        await engine.export(
            ["f", "p"], tmp_path / "r.jsonl", redact=lambda where: returned if where.name == name else where.value
        )
    assert not (tmp_path / "r.jsonl").exists()


class Rot:
    """A codec hook that nobody should use."""

    def encode(self, data):
        return bytes(255 - each for each in data)

    decode = encode


async def test_encrypted_values_travel_as_they_are_or_decoded_for_a_hook(engines, tmp_path):
    """
    Bytes that codec hooks made are base64; a redaction hook gets what they mean.
    """
    engine = await engines.file(*ALL, codec=Rot())
    await engine.run(pay(Card("4111", "Ann")), id="p")
    await engine.export("p", tmp_path / "p.jsonl")
    assert "Ann" not in (tmp_path / "p.jsonl").read_text()
    async with Engine(tmp_path / "a.db", ALL, codec=Rot(), durability="process") as same:
        await same.import_runs(tmp_path / "p.jsonl")
        assert await same.get("p").history() == await engine.get("p").history()
        assert await same.get("p").result() == "charged 4111"
    await engine.export("p", tmp_path / "plain.jsonl", redact=lambda where: where.value)
    async with Engine(tmp_path / "b.db", ALL, durability="process") as without:
        await without.import_runs(tmp_path / "plain.jsonl")
        assert await without.get("p").result() == "charged 4111"


async def test_all_that_is_under_way_passes_the_hook(engines, tmp_path, reached):
    """
    Follow-ups, items of windows, accepted signals, pending ones.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(window().then(pay(Card("4111", "Ann")).options(labels={"x": "4111"})), id="win")
    await reached(run, "waiting")
    await run.pause()
    await run.signal("go", "4111", dedup="4111")

    def redact(where):
        return json.loads(json.dumps(where.value).replace("4111", "****").replace("3", "33"))

    await engine.export("win", tmp_path / "w.jsonl", redact=redact)
    (history,) = read_histories(tmp_path / "w.jsonl")
    assert '"4111' not in (tmp_path / "w.jsonl").read_text()
    assert history.dedups == ["****"]
    assert [item.value for item in history.feeds[0].items] == ["[[33],{}]", "[[4],{}]"]
    assert [event.value for event in history.pending] == ['"****"']


# --- files, clients ----------------------------------------------------------------------------------------


async def test_an_export_overwrites_nothing(engines, tmp_path):
    """
    Neither another file, nor is a folder or an unknown run taken for one.
    """
    engine = await engines.memory(*ALL)
    await engine.run(plain(1), id="a")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(JournalAccessError, match="File exists"):
        await engine.export("a", tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"
    with pytest.raises(RunNotFoundError):
        await engine.export("b", tmp_path / "b")
    assert not (tmp_path / "b").exists()

    def full(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(JournalAccessError, match="cannot be written: No space left"):
        await engine.export("a", tmp_path / "c", redact=full)
    assert not (tmp_path / "c").exists()
    with pytest.raises(JournalAccessError, match="cannot be read"):
        read_histories(tmp_path / "nowhere")


async def test_a_client_exports_and_imports_beside_the_engine(engines, other, tmp_path):
    """
    Over the socket to the owner: in one transaction, or with the owner's error.
    """
    engine = await engines.file(*ALL)
    await engine.run(plain(1), id="a")
    await engine.run(pay(Card("x" * 900_000, "")), id="b")
    async with Client(engine.path) as client:
        await client.export(["a", "b"], tmp_path / "ab.jsonl")
    async with Client(other.path) as client:
        found = await client.import_runs(tmp_path / "ab.jsonl")
        assert (found.runs, found.present) == (["a", "b"], [])
        assert await client.import_runs(tmp_path / "ab.jsonl") == evolve(found, runs=[], present=["a", "b"])
        a, _ = read_histories(tmp_path / "ab.jsonl")
        with pytest.raises(RunExistsError, match="'a' exists already"):
            await client.import_runs([evolve(a, events=[*a.events[:-1], evolve(a.events[-1], value="2")])])
    assert await other.get("a").result() == 1
    assert await other.get("b").history() == await engine.get("b").history()
    assert await other.run(plain(7)) == 7


async def test_a_client_that_owns_the_file_imports_by_itself(engines, tmp_path, tmp_db, reached):
    """
    The next engine finds the runs; numbers that it gives later are others.
    """
    engine = await engines.file(*ALL)
    run = await engine.start(asked(), id="w")
    await reached(run, "waiting")
    await engine.export("w", tmp_path / "w.jsonl")
    async with Engine(tmp_path / "new.db", ALL, durability="process"):
        pass
    async with Client(tmp_path / "new.db", durability="process") as client:
        assert (await client.import_runs(tmp_path / "w.jsonl")).runs == ["w"]
        assert await client.get("w").resume()
    async with Engine(tmp_path / "new.db", ALL, durability="process") as new:
        assert await new.run(plain(7)) == 7
        await new.get("w").signal("go", "on")
        assert await new.get("w").result(timeout=5) == [10, "on"]


async def test_an_import_too_large_for_the_owners_socket_says_what_to_do(engines, tmp_path, monkeypatch):
    """
    A running engine takes lines of a bounded size.
    """
    engine = await engines.file(*ALL)
    await engine.run(pay(Card("x" * 900_000, "")), id="p")
    await engine.export("p", tmp_path / "p.jsonl")
    (history,) = read_histories(tmp_path / "p.jsonl")
    many = [evolve(history, run=evolve(history.run, run_id=f"p-{n}")) for n in range(20)]
    async with Client(engine.path) as client:
        with pytest.raises(UsageError, match="make several requests of it"):
            await client.import_runs(many)
    assert [info.run_id async for info in engine.runs()] == ["p"]

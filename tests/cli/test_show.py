"""
`durable show`: one run on a page.
"""

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from durable import (
    Flow,
    Limit,
    Retry,
    Return,
    RunFailedError,
    continue_as,
    gather,
    job,
    memo,
    race,
    set_attributes,
    sleep,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable._cli.journals import families
from durable._cli.journals.step_lines import steps_in
from durable._cli.terminal import values
from durable._core.journal.events import (
    RunStarted,
    SlotAwaited,
    SlotGranted,
    StepCancelled,
    StepInterrupted,
    StepStarted,
    TimerSet,
)

pytestmark = pytest.mark.anyio


@step
async def charge(amount: int) -> str:
    return f"ch_{amount}"


@transaction
def book(tx, amount: int) -> int:
    return amount


@step
async def refuse(why: str) -> None:
    raise ValueError(why)


@job
async def notify(number: int) -> int:
    return number


@job
async def broken(number: int) -> None:
    raise LookupError(f"nobody {number}")


@workflow(labels={"city": "Bern"})
async def ride(amount: int, *, note: str = "") -> Flow[dict]:
    set_attributes(stage="charging")
    charge_id: str = yield charge(amount)
    yield book(amount)
    yield Return({"charge": charge_id})


@workflow
async def bad_ride(why: str) -> Flow[None]:
    yield charge(1)
    yield refuse(why)


@workflow
async def approval() -> Flow[str]:
    value: str = yield wait_for("approved")
    yield Return(value)


@workflow
async def family(size: int) -> Flow[None]:
    yield gather(*(notify(n) for n in range(size)), inner(), return_exceptions=True)


@workflow
async def inner() -> Flow[None]:
    yield gather(broken(1), return_exceptions=True)


@workflow
async def relay(left: int) -> Flow[None]:
    if left:
        yield continue_as(relay(left - 1))


def section(said, title):
    """
    The lines below a heading, without their indentation.
    """
    lines = said.lines
    below = lines[lines.index(title) + 1 :]
    return [line.strip() for line in (below[: below.index("")] if "" in below else below)]


async def failed(run):
    with pytest.raises(RunFailedError):
        await run.result(5)


async def test_a_run_that_succeeded_is_shown_whole(engines, tmp_db, cli):
    """
    What it was started with, what it gave, what it published, each step with its attempts and source line.
    """
    engine = await engines.file(ride)
    run = await engine.start(ride(42, note="cash"), id="r1", key="ride-42", priority=3)
    await run.result(5)
    said = cli("show", "--db", tmp_db, "r1")
    assert said.code == 0
    assert said.lines[0] == "ride  succeeded"
    facts = dict(line.split(maxsplit=1) for line in said.lines[1 : said.lines.index("")])
    assert facts["run"] == "r1"
    assert facts["workflow"] == "ride, version 1"
    assert facts["queue"] == "default, priority 3"
    assert facts["key"] == "ride-42"
    assert facts["labels"] == "city=Bern"
    assert ", after " in facts["ended"]
    assert section(said, "input") == ['ride(42, note="cash")']
    assert section(said, "result") == ['{"charge": "ch_42"}']
    assert section(said, "attributes") == ['{"stage": "charging"}']
    (heads,) = [index for index, line in enumerate(said.lines) if line.startswith("AT ")]
    first, second = said.lines[heads + 1 : heads + 3]
    assert first.split()[:4] == ["0", "charge", "succeeded", "1"]
    assert second.split()[:4] == ["1", "book", "succeeded", "1"]
    assert "test_show.py:" in first
    assert "children" not in said.lines


async def test_why_is_the_sentence_of_run_why(engines, tmp_db, cli, reached):
    """
    Word for word, for a run that waits, one in line, one that is paused, and one that has ended.
    """
    engine = await engines.file(approval, notify, ride)
    waiting = await engine.start(approval(), id="waiting")
    await reached(waiting, "waiting")
    await engine.queue("shut").pause()
    await engine.start(notify(1), id="line", queue="shut")
    paused = await engine.start(approval(), id="paused")
    await paused.pause()
    await reached(paused, "paused")
    ended = await engine.start(ride(1), id="ended")
    await ended.result(5)
    for name in ("waiting", "line", "paused", "ended"):
        why = await engine.get(name).why()
        shown = cli("show", "--db", tmp_db, name).lines
        assert _timeless(why) in map(_timeless, shown)
        assert _timeless(cli("show", "--db", tmp_db, name, "--json").values[0]["why"]) == _timeless(why)


def _timeless(sentence):
    import re

    return re.sub(r"([\d.]+ (s|min) ?)+\b", "T", sentence)


async def test_a_failed_run_shows_the_recorded_traceback(engines, tmp_db, cli):
    """
    The user's own frames, as they were when the step failed; the step is named with its error.
    """
    engine = await engines.file(bad_ride)
    await failed(await engine.start(bad_ride("no such card"), id="bad"))
    said = cli("show", "--db", tmp_db, "bad")
    error = section(said, "error")
    assert said.code == 0
    assert [line for line in error if not line.startswith("File ")] == [
        "yield refuse(why)",
        "raise ValueError(why)",  # it was raised there, in the step, and recorded with the step's failure
        "ValueError: no such card",
        "failed at 1, step 'refuse':",
        "raise ValueError(why)",
        "ValueError: no such card",
    ]
    (line,) = [line for line in said.lines if " refuse " in line]
    assert "failed" in line
    assert line.endswith("ValueError: no such card")
    (plain,) = cli("show", "--db", tmp_db, "bad", "--json").values
    assert plain["error"]["type"] == "ValueError"
    assert plain["steps"][1]["error"] == "ValueError: no such card"
    assert plain["result"] is None


async def test_failures_of_a_group_are_all_shown(engines, tmp_db, cli):
    """
    Each member's own traceback stands below the group's; more than a page of them is counted.
    """

    @workflow
    async def group(size: int) -> Flow[None]:
        yield gather(*(refuse(f"no {n}") for n in range(size)))

    engine = await engines.file(group)
    await failed(await engine.start(group(2), id="two"))
    await failed(await engine.start(group(12), id="dozen"))
    error = section(cli("show", "--db", tmp_db, "two"), "error")
    assert [line for line in error if line.startswith("failure ")] == ["failure 1 of 2:", "failure 2 of 2:"]
    assert "ValueError: no 0" in error
    assert "ValueError: no 1" in error
    assert "... 4 more failures: --full" in section(cli("show", "--db", tmp_db, "dozen"), "error")
    assert "ValueError: no 11" in section(cli("show", "--db", tmp_db, "dozen", "--full"), "error")


async def test_a_retried_step_shows_its_attempts_and_when_the_next_is_due(engines, tmp_db, cli, reached):
    """
    While it waits for its next attempt, a step is "retrying", with the error of the last.
    """

    @step(retry=Retry(attempts=3, delay=3600, max_delay=3600, jitter=0))
    async def flaky() -> None:
        raise OSError("not yet")

    @workflow
    async def patient() -> Flow[None]:
        yield flaky()

    engine = await engines.file(patient)
    await reached(await engine.start(patient(), id="p"), "waiting")
    (line,) = [line for line in cli("show", "--db", tmp_db, "p").lines if " flaky " in line]
    assert line.split()[:4] == ["0", "flaky", "retrying", "1"]
    assert " in 1 h " in line
    assert line.endswith("OSError: not yet")


async def test_a_step_in_line_for_a_limit_is_waiting(engines, tmp_db, cli, reached):
    """
    It has been asked for and has not begun.
    """
    gate, began = asyncio.Event(), asyncio.Event()

    @step(limit=Limit("gate", concurrency=1))
    async def inside() -> None:
        began.set()
        await gate.wait()

    @workflow
    async def entering() -> Flow[None]:
        yield inside()

    engine = await engines.file(entering)
    first = await engine.start(entering(), id="first")
    await began.wait()
    await reached(await engine.start(entering(), id="second"), "waiting")
    pages = {name: cli("show", "--db", tmp_db, name, "--json").values[0] for name in ("first", "second")}
    status = {name: page["steps"][0]["status"] for name, page in pages.items()}
    assert status == {"first": "running", "second": "waiting"}
    (slot,) = pages["second"]["waits_for_slots"]
    assert (slot["limit"], slot["position"], slot["before"]) == ("gate", "0", 0)
    assert pages["first"]["waits_for_slots"] == []
    (counted,) = cli("stats", "--db", tmp_db, "--json").values[0]["limits"]
    assert (counted["name"], counted["inside"], counted["waiting"]) == ("gate", 1, 1)
    (said,) = [line for line in cli("stats", "--db", tmp_db).lines if line.startswith("gate ")]
    assert said.split()[:6] == ["gate", "1", "at", "once", "1", "1"]
    (line,) = [line for line in cli("show", "--db", tmp_db, "first").lines if " inside " in line]
    assert " for " in line
    gate.set()
    await first.result(5)


async def test_a_run_retried_by_hand_shows_what_counts(engines, tmp_db, cli):
    """
    The attempt that was set aside is gone from the table, as it is from the workflow's sight.
    """
    broken_now = [True]

    @step
    async def sometimes() -> str:
        if broken_now:
            raise ValueError("broken")
        return "fine"

    @workflow
    async def again() -> Flow[str]:
        yield charge(1)
        value: str = yield sometimes()
        yield Return(value)

    engine = await engines.file(again)
    run = await engine.start(again(), id="again")
    await failed(run)
    broken_now.clear()
    await run.retry()
    assert await run.result(5) == "fine"
    (plain,) = cli("show", "--db", tmp_db, "again", "--json").values
    assert [(step["name"], step["status"], step["error"]) for step in plain["steps"]] == [
        ("charge", "succeeded", None),
        ("sometimes", "succeeded", None),
    ]
    assert plain["result"] == "fine"


async def test_another_attempt_of_the_whole_run_is_counted(engines, tmp_db, cli):
    """
    A run with a retry of its own says which attempt it is in.
    """
    calls = []

    @step
    async def second_time() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("first")

    @workflow(retry=Retry(attempts=2, delay=0))
    async def twice() -> Flow[None]:
        yield second_time()

    engine = await engines.file(twice)
    await (await engine.start(twice(), id="t")).result(5)
    said = cli("show", "--db", tmp_db, "t")
    assert "workflow   twice, version 1, attempt 2" in said.out


async def test_long_runs_show_their_latest_steps(engines, tmp_db, cli):
    """
    Thirty, with the others counted; all with --full.
    """

    @workflow
    async def long() -> Flow[None]:
        for n in range(40):
            yield charge(n)

    engine = await engines.file(long)
    await (await engine.start(long(), id="l")).result(10)
    said = cli("show", "--db", tmp_db, "l")
    assert "... 10 earlier commands (10 succeeded): --full" in said.lines
    assert len([line for line in said.lines if " charge " in line]) == 30
    assert said.lines[-1].startswith("39 ")
    full = cli("show", "--db", tmp_db, "l", "--full")
    assert len([line for line in full.lines if " charge " in line]) == 40


def test_a_step_stands_as_its_last_event_says():
    """
    Cut off, it may run again; lost in a race, it is over. Events of other commands change nothing.
    """
    started = StepStarted("0", "charge", 1, "app.py:1", "", 10.0)
    cut_off = [RunStarted("ride", 1, ""), started, StepInterrupted("0", 1, crashed=True, at=11.0)]
    assert [(step.status, step.ended_at) for step in steps_in(cut_off)] == [("interrupted", None)]
    again = [*cut_off, StepStarted("0", "charge", 2, "app.py:1", "", 12.0)]
    assert [(step.status, step.attempt, step.started_at) for step in steps_in(again)] == [("running", 2, 10.0)]
    cancelled = steps_in([started, TimerSet("1", "sleep", 99.0, "app.py:2", at=10.0), StepCancelled("0", 13.0)])
    assert [(step.position, step.status, step.ended_at) for step in cancelled] == [("0", "cancelled", 13.0)]
    granted = [SlotAwaited("0", "charge", 1, "gate", "", "app.py:1", "", 9.0), SlotGranted("0", 9.5)]
    assert [step.status for step in steps_in(granted)] == ["waiting"]
    assert [(step.status, step.started_at) for step in steps_in([*granted, started])] == [("running", 9.0)]


# --- other runs and signals -----------------------------------------------------------------------------


async def test_children_stand_as_a_tree(engines, tmp_db, cli):
    """
    Indented below who started them, with their statuses and why they failed.
    """
    engine = await engines.file(family, inner, notify, broken)
    await (await engine.start(family(2), id="f")).result(5)
    said = cli("show", "--db", tmp_db, "f")
    at = said.lines.index("children")
    assert said.lines[at + 1 : at + 5] == [
        "  f~.0.0  notify  succeeded",
        "  f~.0.1  notify  succeeded",
        "  f~.0.2  inner  succeeded",
        "    f~.0.2~.0.0  broken  failed  LookupError: nobody 1",
    ]
    (plain,) = cli("show", "--db", tmp_db, "f", "--json").values
    assert [child["run_id"] for child in plain["children"]] == ["f~.0.0", "f~.0.1", "f~.0.2"]
    assert plain["children"][2]["children"][0]["reason"] == "LookupError: nobody 1"
    child = cli("show", "--db", tmp_db, "f~.0.2~.0.0").out
    assert "  parent     f~.0.2 at 0.0\n" in child
    assert "  job        broken, version 1\n" in child


async def test_a_large_family_is_counted_from_twenty_on(engines, tmp_db, cli):
    """
    "... and N more", by status, with the command that lists them.
    """
    engine = await engines.file(family, inner, notify, broken)
    await (await engine.start(family(30), id="f")).result(10)
    said = cli("show", "--db", tmp_db, "f")
    assert "  ... and 11 more (11 succeeded): durable list --parent f" in said.lines
    assert len([line for line in said.lines if line.startswith("  f~.")]) == 20
    (plain,) = cli("show", "--db", tmp_db, "f", "--json").values
    assert (len(plain["children"]), plain["more_children"]) == (20, {"succeeded": 11})
    full = cli("show", "--db", tmp_db, "f", "--full")
    assert len([line for line in full.lines if line.startswith("  f~.")]) == 31


async def test_a_page_holds_sixty_relatives_at_most(engines, tmp_db, cli, monkeypatch):
    """
    What is left out further down is counted where it hangs.
    """
    monkeypatch.setattr(families, "_IN_ALL", 3)
    engine = await engines.file(family, inner, notify, broken)
    await (await engine.start(family(2), id="f")).result(5)
    said = cli("show", "--db", tmp_db, "f")
    assert "    ... and 1 more (1 failed): durable list --parent f~.0.2" in said.lines


async def test_signals_are_counted_by_name(engines, tmp_db, cli, reached):
    """
    Those that the run has taken in, those that are recorded for it and wait, and in the end those that it left unread.
    """
    engine = await engines.file(approval)
    run = await engine.start(approval(), id="a")
    await reached(run, "waiting")
    for n in range(2):
        await run.signal("paid", n)
    said = cli("show", "--db", tmp_db, "a")
    assert section(said, "signals") == ["paid  0 received, 2 pending (recorded, not taken in yet)"]
    await run.signal("approved", "yes")
    await run.result(5)
    (plain,) = cli("show", "--db", tmp_db, "a", "--json").values
    assert plain["signals"]["approved"] == {"received": 1, "pending": 0, "unread": 0}
    assert plain["signals"]["paid"] == {"received": 2, "pending": 0, "unread": 2}
    said = cli("show", "--db", tmp_db, "a")
    assert section(said, "signals") == [
        "approved  1 received",
        "paid  2 received, 2 left unread (nobody asked for it before the run ended)",
    ]
    assert any("it left 2 signals unread: 'paid' (2)" in line for line in said.lines)


async def test_what_follows_a_run_is_named_at_both_ends(engines, tmp_db, cli):
    """
    Follow-ups, the run that it went on as, and where a fork came from.
    """
    engine = await engines.file(ride, notify, relay)
    await (await engine.start(ride(1).then(*(notify(n) for n in range(12))), id="r")).result(5)
    said = cli("show", "--db", tmp_db, "r")
    lines = section(said, "started by its end")
    assert len(lines) == 11
    assert lines[-1] == "... and more: --full"
    follower = lines[0].split()[0]
    assert "  follows    r\n" in cli("show", "--db", tmp_db, follower).out
    assert len(section(cli("show", "--db", tmp_db, "r", "--full"), "started by its end")) == 12

    await (await engine.start(relay(1), id="first")).result(5)
    assert "  successor  " in cli("show", "--db", tmp_db, "first").out
    fork = await engine.get("r").fork(1, id="copy")
    await fork.result(5)
    assert "  fork of    r at 1\n" in cli("show", "--db", tmp_db, "copy").out


async def test_members_name_their_batch(engines, tmp_db, cli):
    """
    So that the others can be listed.
    """
    engine = await engines.file(notify)
    async with engine.batch(id="night") as batch:
        batch.add(notify(1))
    (member,) = await batch.members()
    assert "  batch      night\n" in cli("show", "--db", tmp_db, member.run_id).out


async def test_a_run_due_later_says_when(engines, tmp_db, cli):
    """
    Its creation is past, its beginning to come: in the sentence, not as a time that it began.
    """
    engine = await engines.file(notify)
    await engine.start(notify(1), id="later", delay=7200)
    said = cli("show", "--db", tmp_db, "later")
    assert "waits for its start (due in " in said.out
    assert "started" not in said.out


# --- what needs a person, and what is broken ---------------------------------------------------------------


async def test_a_blocked_run_shows_the_report(engines, tmp_db, cli, reached):
    """
    Position, what was recorded and what the code asks for now, both lines, and what to do.
    """

    @workflow(name="changing")
    async def before() -> Flow[None]:
        yield charge(1)
        yield wait_for("go")

    @workflow(name="changing")
    async def after() -> Flow[None]:
        yield book(1)
        yield wait_for("go")

    engine = await engines.file(before)
    await reached(await engine.start(before(), id="c"), "waiting")
    await engine.aclose()
    engine = await engines.file(after)
    await engine.get("c").signal("go")
    await reached(engine.get("c"), "blocked")
    said = cli("show", "--db", tmp_db, "c")
    assert said.code == 0
    assert said.lines[0] == "changing  blocked"
    assert "run 'c' is blocked and needs a person" in said.out
    assert "diverged from its journal at command 0" in said.out
    assert "charge" in said.out
    assert "book" in said.out
    assert said.out.count("test_show.py:") >= 2
    assert (await engine.get("c").why()).splitlines()[0] in said.lines


async def test_a_damaged_history_is_shown_as_far_as_it_goes(engines, tmp_db, cli):
    """
    Exit code 1, the event named; its columns, arguments and earlier steps are still there.
    """
    engine = await engines.file(ride)
    await (await engine.start(ride(42), id="r")).result(5)
    await engine.aclose()
    _change(tmp_db, "UPDATE durable_events SET value = '\"ch_43\"' WHERE seq = 4")
    said = cli("show", "--db", tmp_db, "r")
    assert said.code == 1
    assert "damaged: journal " in said.out
    assert "run 'r', event 4: it does not match its checksum" in said.out
    assert section(said, "input") == ["ride(42)"]
    assert "result" not in said.lines
    assert [line.split()[:3] for line in said.lines if " charge " in line] == [["0", "charge", "running"]]
    (plain,) = cli("show", "--db", tmp_db, "r", "--json").values
    assert plain["events"] == 3
    assert "event 4" in plain["problem"]


async def test_a_first_event_that_is_damaged_leaves_the_columns(engines, tmp_db, cli):
    """
    Not even the arguments can be read; the run's row can.
    """
    engine = await engines.file(ride)
    await (await engine.start(ride(42), id="r", key="k")).result(5)
    await engine.aclose()
    _change(tmp_db, "UPDATE durable_events SET at = 0 WHERE seq = 1")
    said = cli("show", "--db", tmp_db, "r")
    assert said.code == 1
    assert "  key        k\n" in said.out
    assert "input" not in said.lines


async def test_an_event_of_a_newer_release_is_reported(engines, tmp_db, cli):
    """
    One whose checksum is right, but whose kind is unknown here.
    """
    from durable._shell.rows.checksums import checksum

    engine = await engines.file(approval)
    run = await engine.start(approval(), id="a")
    while await run.status() != "waiting":
        await asyncio.sleep(0.01)
    await engine.aclose()
    conn = sqlite3.connect(tmp_db)
    with conn:
        number, seq, before = conn.execute("SELECT run, seq, checksum FROM durable_events ORDER BY id DESC").fetchone()
        forged = (number, seq + 1, 999, None, 1.0, "[]", None, None, checksum(before, 999, None, 1.0, "[]", None))
        conn.execute("INSERT INTO durable_events VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", forged)
    conn.close()
    said = cli("show", "--db", tmp_db, "a")
    assert said.code == 1
    assert "999" in said.out
    assert section(said, "input") == ["approval()"]


def _change(path, sql):
    conn = sqlite3.connect(path)
    with conn:
        conn.execute(sql)
    conn.close()


class Backwards:
    """A codec hook: bytes that nobody else can read."""

    def encode(self, data):
        return data[::-1]

    def decode(self, data):
        return data[::-1]


async def test_what_the_application_encoded_is_named_by_its_size(engines, tmp_db, cli):
    """
    Without the application's codec nothing can be read of a payload; the page says so, and shows the rest.
    """

    engine = await engines.file(ride, bad_ride, codec=Backwards())
    await (await engine.start(ride(42), id="r")).result(5)
    await failed(await engine.start(bad_ride("no"), id="bad"))
    said = cli("show", "--db", tmp_db, "r")
    assert said.code == 0
    (line,) = section(said, "result")
    assert line.startswith("<")
    assert line.endswith(" bytes, encoded by the application's codec>")
    assert section(said, "input")[0].endswith("codec>")
    (plain,) = cli("show", "--db", tmp_db, "r", "--json").values
    assert set(plain["result"]) == {"encoded_bytes"}
    assert section(cli("show", "--db", tmp_db, "bad"), "error")[0].endswith("codec>")


async def test_escapes_in_values_do_not_reach_the_terminal(engines, tmp_db, cli):
    """
    Arguments, errors and tracebacks may hold anything.
    """
    engine = await engines.file(bad_ride)
    await failed(await engine.start(bad_ride("\x1b]0;owned\x07\x9b2J"), id="bad"))
    out = cli("show", "--db", tmp_db, "bad").out
    assert r"\x1b]0;owned\x07\x9b2J" in out
    assert not {each for each in out if not each.isprintable()} - {"\n"}


# --- names and files -----------------------------------------------------------------------------------------


async def test_a_run_may_be_named_by_key_or_beginning(engines, tmp_db, cli):
    """
    Unknown names end with exit code 3, ambiguous ones with 2.
    """
    engine = await engines.file(ride)
    for name in ("abc1", "abc2"):
        await (await engine.start(ride(1), id=name, key=f"key {name}")).result(5)
    assert "  run        abc2\n" in cli("show", "--db", tmp_db, "key:key abc2").out
    said = cli("show", "--db", tmp_db, "abc")
    assert said.code == 2
    assert said.err.startswith("durable show: 'abc' could be more than one run: 'abc1' ('ride', succeeded), 'abc2'")
    said = cli("show", "--db", tmp_db, "xyz")
    assert said.code == 3
    assert "no run of this journal" in said.err


def test_show_loads_no_engine(tmp_path):
    """
    A fresh process shows a run of a process that is gone, without asyncio, structlog or the application.
    """
    path = tmp_path / "app.db"
    program = textwrap.dedent("""
        import asyncio, sys
        from durable import Engine, job
        @job
        async def work(number: int) -> int:
            return number
        async def main():
            async with Engine(sys.argv[1], [work]) as engine:
                await engine.run(work(7), id="w")
        asyncio.run(main())
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", program, path], check=True, capture_output=True, env=environment)
    code = (
        "import sys; from durable._cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'asyncio', 'structlog', 'anyio', 'aiosqlite', 'durable._shell.engine.engine'};"
        "print(code, sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "show", "w", "--db", path, "--json"],
        check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    page, modules = done.stdout.splitlines()
    assert json.loads(page)["result"] == 7
    assert modules == "0 []"


# --- values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload, expected",
    [
        ("[[],{}]", ["f()"]),
        ('[[1,"a"],{"b":null}]', ['f(1, "a", b=null)']),
        ('{"args":1}', ['{"args": 1}']),
        ("no json", ["no json"]),
        (b"12345", ["<5 bytes, encoded by the application's codec>"]),
        (
            json.dumps([["x" * 60, "y" * 60], {"z": [1]}]),
            ["f(", f'  "{"x" * 60}",', f'  "{"y" * 60}",', "  z=[1],", ")"],
        ),
    ],
)
def test_arguments_read_as_a_call(payload, expected):
    """
    On one line where they fit, else one a line; what is not a list of arguments is shown as it is.
    """
    assert values.call_lines("f", payload) == expected


def test_values_are_broken_where_they_are_coarsest():
    """
    What fits stays on its line; numbers fill theirs. The lines are the JSON that they were.
    """
    value = {"rides": [{"id": 1, "stops": list(range(60))}, {"id": 2, "stops": []}], "by": "x" * 80, "none": {}}
    lines = values.value_lines(json.dumps(value))
    assert json.loads("".join(lines)) == value
    assert lines[:5] == [
        "{",
        '  "rides": [',
        "    {",
        '      "id": 1,',
        '      "stops": [',
    ]
    assert '    {"id": 2, "stops": []}' in lines
    assert len(lines) == 15
    assert max(map(len, lines)) <= 110
    assert values.value_lines("[]") == ["[]"]
    deep = "[" * 70 + '"' + "z" * 101 + '"' + "]" * 70
    assert json.loads("".join(values.value_lines(deep, full=True))) == json.loads(deep)


def test_long_values_are_bounded():
    """
    Lines and their lengths; --full shows all. One line too many is not left out for one that says so.
    """
    text = json.dumps([["x" * 99] for _ in range(100)])
    lines = values.value_lines(text)
    assert len(lines) == 41
    assert lines[-1] == "... 262 more lines: --full"
    assert len(values.value_lines(text, full=True)) == 302
    assert values.value_lines(json.dumps("y" * 1000))[0].endswith("…")
    assert len(values.bounded(["a"] * 41, full=False)) == 41
    assert values.bounded(["a"] * 42 + ["b"], full=False, last=True)[::40] == ["... 3 more lines: --full", "b"]


def test_a_value_nested_too_deeply_for_python_is_shown_raw():
    """
    A forged payload must not end in a traceback of ours, just read or only just not.
    """
    assert values.value_lines("[" * 100_000)[0].startswith("[[[[")
    for depth in range(sys.getrecursionlimit() - 100, sys.getrecursionlimit() + 10):
        assert values.value_lines("[" * depth + "]" * depth)[0].startswith(("[[[", "<nested", "["))


@pytest.mark.parametrize(
    "failure, expected",
    [
        ({"type": "a.B", "message": "no\nmore"}, ["B: no"]),
        ({"type": "B", "message": ""}, ["B"]),
        (
            {"type": "B", "traceback": "T\nB: x\n", "cause": {"type": "C", "message": "y"}},
            ["T", "B: x", "caused by:", "  C: y"],
        ),
        (
            {"type": "B", "message": "x", "context": {"type": "C", "message": "y"}},
            ["B: x", "while handling:", "  C: y"],
        ),
        ({"type": "B", "message": "x", "context": {"type": "C", "message": "y"}, "hides_context": True}, ["B: x"]),
        ({"other": 1}, ['{"other": 1}']),
    ],
)
def test_failures_without_traceback_are_named(failure, expected):
    """
    A title in its place, the cause below; what is not a failure is shown as a value.
    """
    assert values.failure_lines(json.dumps(failure)) == expected


def test_causes_end_somewhere():
    """
    However deep a forged chain is.
    """
    failure = {"type": "E", "message": "end"}
    for _ in range(50):
        failure = {"type": "E", "message": "more", "cause": failure}
    lines = values.failure_lines(json.dumps(failure))
    assert sum(line.strip() == "caused by:" for line in lines) == 8


def test_a_failure_in_short_is_one_line():
    """
    Its title, or what stands there instead.
    """
    assert values.failure_in_short('{"type": "E", "message": "m"}') == "E: m"
    assert values.failure_in_short(None) == ""
    assert values.failure_in_short(b"123") == "<3 bytes, encoded by the application's codec>"


async def test_a_step_that_did_not_end_in_time_is_named(engines, tmp_db, cli):
    """
    As `run.info()` names it, in a field of its own.
    """
    may_end = asyncio.Event()

    @step
    async def stubborn() -> None:
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()

    @workflow
    async def body() -> Flow[None]:
        yield race(stubborn(), sleep(0.01))

    engine = await engines.file(body, cleanup_timeout=0.1)
    run = await engine.start(body(), id="r")
    await run.result(5)
    assert "  abandoned  stubborn at 0.0" in cli("show", "r", "--db", tmp_db).lines
    assert cli("show", "r", "--db", tmp_db, "--json").values[0]["abandoned"] == {"0.0": "stubborn"}
    may_end.set()


@step
async def write_article(topic: str) -> str:
    async def model(question: str) -> dict[str, object]:
        return {"text": question.upper(), "usage": {"input_tokens": 1_000, "output_tokens": 5, "cost": 0.0012}}

    async def tool() -> str:
        return "rain"

    async def told() -> None:
        return None

    await memo("model", model, topic)
    await memo("tool", tool)
    await memo("told", told)
    return str((await memo("model", model, "umbrella"))["text"])


@workflow
async def article() -> Flow[str]:
    yield Return((yield write_article("weather")))


async def test_each_call_of_a_model_is_shown_with_what_it_used(engines, tmp_db, cli):
    """
    A step's memos: what each came to, its tokens and cost, and the sum. What came to nothing is shown by --full alone.
    """
    engine = await engines.file(article)
    assert await engine.run(article(), id="a1") == "UMBRELLA"
    said = cli("show", "--db", tmp_db, "a1")
    (start,) = [index for index, line in enumerate(said.lines) if line == "memos"]
    rows = [line.split(maxsplit=4) for line in said.lines[start + 2 : start + 5]]
    assert [(row[0], row[1]) for row in rows] == [("0", "model"), ("0", "tool"), ("0", "model:2")]
    assert "1,000 tokens in, 5 out, $0.0012" in said.lines[start + 2]
    assert '{"text": "WEATHER"' in said.lines[start + 2]
    assert said.lines[start + 3].endswith('"rain"')
    assert said.lines[start + 5] == "2 calls used 2,000 tokens in, 10 out, $0.0024"
    assert " told " in cli("show", "--full", "--db", tmp_db, "a1").out
    (shown,) = cli("show", "--json", "--db", tmp_db, "a1").values
    memos = shown["steps"][0]["memos"]
    assert [each["name"] for each in memos] == ["model", "tool", "told", "model:2"]
    assert (memos[0]["tokens_in"], memos[0]["tokens_out"], memos[0]["cost"]) == (1_000, 5, 0.0012)
    assert memos[1]["value"] == "rain"


async def test_of_many_memos_the_latest_are_shown(engines, tmp_db, cli):
    """
    And said how many there are before them.
    """

    @job
    async def loop() -> None:
        async def ask() -> str:
            return "x"

        for _ in range(35):
            await memo("ask", ask)

    engine = await engines.file(loop)
    await engine.run(loop(), id="many")
    assert "... 5 earlier ones: --full" in cli("show", "--db", tmp_db, "many").out

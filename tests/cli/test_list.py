"""
`durable list`, and the filters and names of runs that other commands share with it.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import sqlite3
import sys
import termios
import time
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from durable import Flow, Limit, Return, gather, job, progress, sleep, step, wait_for, workflow
from durable._cli.journals import filters
from durable._cli.journals.files import open_readonly
from durable._cli.journals.finding import find_run
from durable._cli.terminal.problems import CommandError
from durable._shell.reads import run_rows
from durable._shell.reads.run_rows import Filter, list_runs
from durable._shell.storage import run_labels, schema

pytestmark = pytest.mark.anyio


@workflow(labels={"team": "ride"})
async def approval(number: int) -> Flow[str]:
    value: str = yield wait_for("approved")
    yield Return(value)


@workflow
async def napping() -> Flow[None]:
    yield sleep(3600)


@job(queue="slow")
async def failing(text: str) -> None:
    raise ValueError(text)


@job(queue="closed")
async def never() -> None: ...


@step
async def double(number: int) -> int:
    return 2 * number


@workflow
async def parent() -> Flow[list]:
    values: list[str] = yield gather(approval(1), approval(2))
    yield Return(values)


@pytest.fixture
async def journal(engines, reached):
    """
    A file with runs of all sorts, beside the engine that wrote them.
    """
    engine = await engines.file(approval, napping, failing, never, parent)
    await engine.queue("closed").pause()
    await reached(await engine.start(approval(1), id="a1", key="order-1", labels={"city": "Bern"}), "waiting")
    await reached(await engine.start(approval(2), id="a2", labels={"city": "Genf"}), "waiting")
    await reached(await engine.start(napping(), id="nap"), "waiting")
    bad = await engine.start(failing("no such card"), id="bad")
    await reached(bad, "failed")
    await engine.start(never(), id="line")
    await reached(await engine.start(parent(), id="family"), "waiting")
    for child in ("family~.0.0", "family~.0.1"):
        await reached(engine.get(child), "waiting")
    return engine


def ids(said):
    assert said.code == 0, said.err
    return [value["run_id"] for value in said.values]


# --- filters --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], {"a1", "a2", "nap", "bad", "line", "family", "family~.0.0", "family~.0.1"}),
        (["--status", "failed"], {"bad"}),
        (["--status", "failed,pending"], {"bad", "line"}),
        (["--status", "failed", "--status", "pending"], {"bad", "line"}),
        (["--status", "ended"], {"bad"}),
        (["--status", "open", "--workflow", "napping"], {"nap"}),
        (["--workflow", "approval"], {"a1", "a2", "family~.0.0", "family~.0.1"}),
        (["--label", "city=Bern"], {"a1"}),
        (["--label", "city=Bern", "--label", "team=ride"], {"a1"}),
        (["--label", "city=Bern", "--label", "team=x"], set()),
        (["--queue", "slow"], {"bad"}),
        (["--parent", "family"], {"family~.0.0", "family~.0.1"}),
        (["--parent", "fam"], {"family~.0.0", "family~.0.1"}),
        (["--waiting-for", "approved"], {"a1", "a2", "family~.0.0", "family~.0.1"}),
        (["--waiting-for", "signal:approved", "--label", "city=Genf"], {"a2"}),
        (["--waiting-for", "signal"], {"a1", "a2", "family~.0.0", "family~.0.1"}),
        (["--waiting-for", "timer"], {"nap"}),
        (["--waiting-for", "child"], {"family"}),
        (["--waiting-for", "refused"], set()),
        (["--waiting-for", "slot"], set()),
        (["--since", "1h"], {"a1", "a2", "nap", "bad", "line", "family", "family~.0.0", "family~.0.1"}),
        (["--until", "1h"], set()),
    ],
)
async def test_each_filter_leaves_what_fits(journal, tmp_db, cli, arguments, expected):
    """
    Filters narrow, and all that are given hold together.
    """
    assert set(ids(cli("list", "--db", tmp_db, "--json", *arguments))) == expected


async def test_runs_that_wait_for_a_slot_or_a_start_are_found(engines, tmp_db, cli, reached):
    """
    `--waiting-for slot` is the line of a limit, `--waiting-for start` a delay, `--waiting-for retry` a next attempt.
    """
    gate, began = asyncio.Event(), asyncio.Event()

    @job(limit=Limit("gate", concurrency=1))
    async def inside() -> None:
        began.set()
        await gate.wait()

    @job(retry=3)
    async def flaky() -> None:
        raise OSError("not yet")

    engine = await engines.file(inside, flaky)
    await engine.start(inside(), id="in")
    await began.wait()
    await reached(await engine.start(inside(), id="out"), "waiting")
    await engine.start(flaky(), id="later", delay=3600)
    assert ids(cli("list", "--db", tmp_db, "--json", "--waiting-for", "slot")) == ["out"]
    assert ids(cli("list", "--db", tmp_db, "--json", "--waiting-for", "start")) == ["later"]
    await reached(await engine.start(flaky(), id="again"), "waiting")
    assert ids(cli("list", "--db", tmp_db, "--json", "--waiting-for", "retry")) == ["again"]
    gate.set()


async def test_members_of_a_batch_are_found(engines, tmp_db, cli, reached):
    """
    `--batch` lists its members; a batch that does not exist is told from an empty one.
    """
    engine = await engines.file(approval)
    async with engine.batch(id="night") as batch:
        batch.add(approval(1))
    await engine.start(approval(2), id="other")
    assert ids(cli("list", "--db", tmp_db, "--json", "--batch", "night")) == [
        info.run_id for info in await engine.get_batch("night").members()
    ]
    said = cli("list", "--db", tmp_db, "--batch", "day")
    assert (said.code, said.err) == (3, "durable list: no batch of this journal has the id 'day'\n")


@pytest.mark.parametrize(
    "text, back",
    [("30min", 1800), ("2h", 7200), ("7d ago", 604_800), ("1h 30m", 5400), ("1.5 hours", 5400), ("90s", 90)],
)
def test_a_span_is_counted_back_from_now(text, back):
    """
    Units may be short or long, joined, and followed by "ago".
    """
    assert filters.moment(text).before(1_000_000.0) == 1_000_000.0 - back


@pytest.mark.parametrize(
    "text, at",
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()),
        ("2026-01-31T12:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC).timestamp()),
        ("2026-01-31", time.mktime((2026, 1, 31, 0, 0, 0, 0, 0, -1))),
    ],
)
def test_an_iso_date_is_local_unless_it_says_otherwise(text, at):
    """
    A date alone is its midnight; Z and offsets are obeyed.
    """
    assert filters.moment(text).before(0.0) == at


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--since", "soon"], "'soon' is not a time: give an ISO date (2026-01-31T12:00) or a span before now"),
        (["--since", "2 fortnights"], "is not a time"),
        (["--until", "2026-02-31"], "is not a time"),
        (["--since", "0001-01-01"], "is not a time"),
        (["--status", "done"], "'done' is not a status: there are pending, running"),
        (["--status", ","], "a status is missing"),
        (["--label", "city"], "'city' is not a label: give NAME=VALUE"),
        (["--limit", "-1"], "'-1' is not a whole number"),
        (["--after", "9" * 30], "is not a whole number"),
        (["--workflow", "\udcff"], "is not UTF-8"),
    ],
)
def test_a_filter_that_cannot_be_is_refused(tmp_db, cli, arguments, expected):
    """
    Exit code 2, and a message that says what would do.
    """
    said = cli("list", "--db", tmp_db, *arguments)
    assert said.code == 2
    assert expected in said.err.replace("\n", " ")


def test_the_same_filter_can_be_typed_again():
    """
    What `spelled` gives, parsed again, is the same filter: that is how the next page is named.
    """
    import argparse

    parser = argparse.ArgumentParser()
    filters.add_filters(parser)
    given = ["--status", "open,failed", "--workflow", "w", "--label", "a=b=c", "--label", "d=", "--queue", "q"]
    given += ["--parent", "p", "--batch", "b", "--since", "2h", "--until", "2026-01-31", "--waiting-for", "go"]
    args = parser.parse_args(given)
    wanted = filters.filter_from(args, 5e9)
    assert wanted.labels == {"a": "b=c", "d": ""}
    assert wanted.status == ("pending", "running", "waiting", "paused", "blocked", "failed")
    assert filters.filter_from(parser.parse_args(filters.spelled(args)), 5e9) == wanted
    assert filters.filtered(args)
    assert not filters.filtered(parser.parse_args([]))


# --- pages -----------------------------------------------------------------------------------------


async def test_pages_follow_each_other_without_gap_or_overlap(engines, tmp_db, cli):
    """
    The last line names the command of the next page; following it to the end shows every run once, newest first.
    """
    engine = await engines.file(never)
    await engine.queue("closed").pause()
    for n in range(25):
        await engine.start(never(), id=f"r{n:02}")
    seen, argv = [], ["list", "--db", str(tmp_db), "--queue", "closed", "--limit", "10"]
    for _ in range(3):
        said = cli(*argv)
        *rows, last = said.lines[1:]
        if not last.startswith("more: "):
            seen += [row.split()[0] for row in (*rows, last)]
            break
        seen += [row.split()[0] for row in rows]
        argv = last.removeprefix("more: durable ").split()
    assert seen == [f"r{n:02}" for n in reversed(range(25))]


async def test_the_last_page_names_no_next_one(engines, tmp_db, cli):
    """
    A page that is full, but the last, does not lead to an empty one.
    """
    engine = await engines.file(never)
    await engine.queue("closed").pause()
    for n in range(3):
        await engine.start(never(), id=f"r{n}")
    assert "more:" not in cli("list", "--db", tmp_db, "--limit", "3").out
    assert "more:" in cli("list", "--db", tmp_db, "--limit", "2").out


async def test_cursors_in_json_go_on_behind_a_run(journal, tmp_db, cli):
    """
    Programs page by the `cursor` of the last object.
    """
    first = cli("list", "--db", tmp_db, "--json", "--limit", "3").values
    rest = cli("list", "--db", tmp_db, "--json", "--limit", "0", "--after", first[-1]["cursor"]).values
    everything = cli("list", "--db", tmp_db, "--json", "--limit", "0").values
    assert [run["run_id"] for run in first + rest] == [run["run_id"] for run in everything]


async def test_more_runs_than_one_transaction_reads_are_all_listed(engines, tmp_db, cli):
    """
    `--limit 0` is all of them, however many pages that takes.
    """
    engine = await engines.file(never)
    await engine.queue("closed").pause()
    await engine.start_many([never() for _ in range(450)])
    found = ids(cli("list", "--db", tmp_db, "--json", "--limit", "0"))
    assert len(found) == len(set(found)) == 450


@pytest.mark.parametrize(
    "wanted, expected",
    [
        (Filter(status=("failed",), workflow="w"), "USING INDEX durable_runs_failed"),
        (Filter(status=("blocked",), queue="q"), "USING INDEX durable_runs_blocked"),
        (Filter(labels={"a": "b"}), "SEARCH l USING PRIMARY KEY (name=? AND value=?)"),
        (Filter(status=("blocked",), labels={"a": "b"}), "SEARCH l USING PRIMARY KEY (name=? AND value=?)"),
        (Filter(workflow="w", since=1.0, labels={"a": "b"}), "SEARCH l USING PRIMARY KEY (name=? AND value=?)"),
        (Filter(status=("paused",)), "USING INDEX durable_runs_paused"),
        (Filter(status=("cancelled",), queue="q"), "USING INDEX durable_runs_cancelled"),
        (Filter(parent="p"), "USING INDEX durable_runs_parent (parent=?)"),
        (Filter(batch="b"), "USING INDEX durable_runs_batch (batch=?)"),
        (Filter(waiting_for="approved"), "SEARCH r USING INTEGER PRIMARY KEY"),
        (Filter(waiting_for="timer"), "SEARCH r USING INTEGER PRIMARY KEY"),
        (Filter(status=("waiting",), workflow="w"), "USING INDEX durable_runs_open"),
        (Filter(status=("pending", "running"), since=1.0), "USING INDEX durable_runs_open"),
        (Filter(workflow="w"), "USING INDEX durable_runs_workflow (workflow=?)"),
        (Filter(workflow="w", status=("succeeded",)), "USING INDEX durable_runs_workflow (workflow=?)"),
        (Filter(workflow="w", since=1.0), "USING INDEX durable_runs_created (created_at>? AND created_at<?)"),
        (Filter(since=1.0, until=2.0), "USING INDEX durable_runs_created (created_at>? AND created_at<?)"),
    ],
)
def test_what_an_operator_looks_for_is_not_searched_among_all_runs(tmp_db, wanted, expected):
    """
    SQLite finds these through an index, however many runs have ended.
    """
    conn = sqlite3.connect(tmp_db, isolation_level=None)
    schema.prepare(conn, 0.0)
    asked = []
    conn.set_trace_callback(asked.append)
    assert list_runs(conn, wanted, None, 20) == []
    conn.set_trace_callback(None)
    plan = [detail for *_, detail in conn.execute(f"EXPLAIN QUERY PLAN {asked[-1]}")]
    conn.close()
    assert any(expected in detail for detail in plan), plan


def test_runs_of_a_long_time_are_listed_in_their_order(tmp_db, monkeypatch):
    """
    Where more were created than can be looked at: the newest are found first, and the index of times is left alone.
    """
    conn = sqlite3.connect(tmp_db, isolation_level=None)
    schema.prepare(conn, 0.0)
    row = "INSERT INTO durable_runs (run_id, workflow, version, sort, status, queue, priority, created_at)"
    conn.executemany(f"{row} VALUES (?, 'w', 1, 'job', 'pending', 'q', 0, ?)", [(f"r{n}", n) for n in range(10)])
    monkeypatch.setattr(run_rows, "_SHORT_TIME", 5)
    for since, index in ((7.0, True), (2.0, False)):
        asked = []
        conn.set_trace_callback(asked.append)
        assert [each.run_id for each in list_runs(conn, Filter(since=since), None, 2)] == ["r9", "r8"]
        conn.set_trace_callback(None)
        plan = [detail for *_, detail in conn.execute(f"EXPLAIN QUERY PLAN {asked[-1]}")]
        assert any("durable_runs_created" in detail for detail in plan) is index
    conn.close()


@pytest.mark.parametrize(
    "wanted, drives",
    [
        (Filter(labels={"common": "x"}), "durable_labels"),
        (Filter(labels={"common": "x", "rare": "3"}), "durable_labels"),
        (Filter(labels={"rare": "3"}, status=("failed",)), "durable_labels"),
        (Filter(labels={"common": "x"}, status=("failed",)), "durable_runs_failed"),
        (Filter(labels={"common": "x"}, workflow="w"), "durable_labels"),
        (Filter(labels={"rare": "nothing"}, status=("failed",)), "durable_labels"),
    ],
)
def test_a_rare_label_is_found_by_itself_and_a_common_one_among_what_else_is_few(tmp_db, monkeypatch, wanted, drives):
    """
    Newest first, page by page, whatever it is found by.
    """
    conn = sqlite3.connect(tmp_db, isolation_level=None)
    schema.prepare(conn, 0.0)
    row = "INSERT INTO durable_runs (run_id, workflow, version, sort, status, queue, priority, labels, created_at)"
    labels = [json.dumps({"common": "x", "rare": str(n)}) for n in range(10)]
    status = ["failed" if not n % 3 else "succeeded" for n in range(10)]
    conn.executemany(
        f"{row} VALUES (?, 'w', 1, 'job', ?, 'q', 0, ?, ?)", [(f"r{n}", status[n], labels[n], n) for n in range(10)]
    )
    run_labels.label_anew(conn)
    monkeypatch.setattr(run_labels, "_RARE", 5)
    asked = []
    conn.set_trace_callback(asked.append)
    page = list_runs(conn, wanted, 10, 2)
    conn.set_trace_callback(None)
    plan = [detail for *_, detail in conn.execute(f"EXPLAIN QUERY PLAN {asked[-1]}")]
    first = plan[0].replace("SEARCH l ", "SEARCH durable_labels ")
    assert drives in first, plan
    assert sum("FOR ORDER BY" in each for each in plan) == 1, plan  # of what is above each run, not of the list
    every = [each.run_id for each in page]
    while page:
        page = list_runs(conn, wanted, page[-1].run, 2)
        every += [each.run_id for each in page]
    conn.close()
    expected = [
        f"r{n}"
        for n in reversed(range(9))
        if all(json.loads(labels[n]).get(name) == value for name, value in wanted.labels.items())
        and (wanted.status is None or status[n] in wanted.status)
    ]
    assert every == expected


async def test_runs_are_found_by_their_labels_until_they_are_pruned(engines, cli, tmp_db):
    """
    Those that somebody else has changed, too, once they are looked at anew: doctor tells.
    """
    engine = await engines.file(never)
    kept, gone = [await engine.start(never(), labels={"order": order}, delay=3600) for order in "12"]
    await gone.cancel()
    while await gone.status() != "cancelled":
        await asyncio.sleep(0.01)
    assert ids(cli("list", "--db", tmp_db, "--json", "--label", "order=2")) == [gone.id]
    assert await engine.prune(older_than=0) == 1
    assert ids(cli("list", "--db", tmp_db, "--json", "--label", "order=2")) == []
    assert ids(cli("list", "--db", tmp_db, "--json", "--label", "order=1")) == [kept.id]
    await engine.aclose()
    with contextlib.closing(sqlite3.connect(tmp_db)) as conn:
        assert conn.execute("SELECT name, value FROM durable_labels").fetchall() == [("order", "1")]
        assert "by label" not in cli("doctor", "--db", tmp_db).out
        conn.execute("UPDATE durable_runs SET labels = ?", (json.dumps({"order": "3"}),))
        conn.commit()
        assert ids(cli("list", "--db", tmp_db, "--json", "--label", "order=1")) == []  # what the run says counts
        assert "by label" in cli("doctor", "--db", tmp_db).out
        conn.execute("DELETE FROM durable_meta WHERE name = 'counted'")
        conn.commit()
    await engines.file(never)
    assert ids(cli("list", "--db", tmp_db, "--json", "--label", "order=3")) == [kept.id]
    assert "by label" not in cli("doctor", "--db", tmp_db).out


async def test_runs_that_are_imported_are_found_by_their_labels(engines, cli, tmp_db, tmp_path):
    """
    In the file that they come to, as in the one that they are from.
    """
    engine = await engines.file(never)
    run = await engine.start(never(), labels={"order": "1"}, delay=3600)
    await run.cancel()
    while await run.status() != "cancelled":
        await asyncio.sleep(0.01)
    await engine.export([run.id], tmp_path / "runs.jsonl")
    assert await engine.prune(older_than=0) == 1
    await engine.import_runs(tmp_path / "runs.jsonl")
    assert ids(cli("list", "--db", tmp_db, "--json", "--label", "order=1")) == [run.id]
    assert "by label" not in cli("doctor", "--db", tmp_db).out


# --- what is shown ---------------------------------------------------------------------------------


async def test_the_last_column_says_why(journal, tmp_db, cli):
    """
    What a run waits for, in the words of `run.why()`; why it failed; which queue holds it up.
    """
    lines = {line.split()[0]: line for line in cli("list", "--db", tmp_db).lines}
    assert lines["RUN"].split() == ["RUN", "WORKFLOW", "STATUS", "CREATED", "KEY", "WHY"]
    assert "order-1  signal 'approved' at 0, for " in lines["a1"]
    assert "the timer at 0 (due in 1 h" in lines["nap"]
    assert "ValueError: no such card" in lines["bad"]
    assert lines["line"].endswith("queue 'closed', which is paused")
    assert "run 'family~.0.0' at 0.0 and 1 more" in lines["family"]
    why = await journal.get("a1").why()
    assert why.rpartition(", for ")[0].removeprefix("run 'a1' waits for ") in lines["a1"]


async def test_progress_stands_before_the_reason(engines, tmp_db, cli, reached):
    """
    As long as the run is open; in JSON it has a place of its own.
    """

    @workflow
    async def telling() -> Flow[None]:
        progress(3, 8, "files")
        yield sleep(1_000)

    engine = await engines.file(telling)
    run = await engine.start(telling(), id="telling")
    await reached(run, "waiting")
    assert "  3 of 8 (38%), files; the timer at 0" in cli("list", "--db", tmp_db).lines[1]
    (found,) = cli("list", "--db", tmp_db, "--json").values
    assert found["progress"] == {"done": 3, "total": 8, "note": "files", "position": "0", "at": found["progress"]["at"]}
    assert "progress   3 of 8 (38%), files; told at 0 " in cli("show", "--db", tmp_db, "telling").out
    await run.cancel()
    await reached(run, "cancelled")
    assert "3 of 8" not in cli("list", "--db", tmp_db).lines[1]


async def test_json_has_every_column(journal, tmp_db, cli):
    """
    Times are ISO strings in UTC; what does not apply is null.
    """
    (bad,) = cli("list", "--db", tmp_db, "--json", "--status", "failed").values
    info = await journal.get("bad").info()
    assert bad == {
        "run_id": "bad", "workflow": "failing", "version": 1, "sort": "job", "status": "failed", "queue": "slow",
        "priority": 0, "key": None, "labels": {}, "created_at": bad["created_at"], "started_at": bad["started_at"],
        "ended_at": bad["ended_at"], "parent": None, "position": None, "follows": None, "successor": None,
        "batch": None, "reason": "ValueError: no such card", "waits_for": None, "progress": None,
        "cursor": info.cursor,
        "root": "bad", "forked_from": None,
    }  # fmt: skip
    assert abs(datetime.fromisoformat(bad["ended_at"]).timestamp() - info.ended_at) < 0.001
    (one,) = cli("list", "--db", tmp_db, "--json", "--label", "city=Bern").values
    assert one["waits_for"].startswith("signal 'approved' at 0, for ")


async def test_an_empty_answer_says_which_kind_it_is(engines, tmp_db, cli):
    """
    A journal without runs, and a filter that none fits; in JSON, both are no line.
    """
    await engines.file(never)
    assert cli("list", "--db", tmp_db).out == "no runs\n"
    assert cli("list", "--db", tmp_db, "--status", "failed").out == "no runs fit\n"
    assert cli("list", "--db", tmp_db, "--json").out == ""


async def test_lines_are_no_wider_than_asked_for(journal, tmp_db, cli, monkeypatch):
    """
    With COLUMNS, a reason that has no room has a line of its own; without, into a pipe, nothing moves.
    """
    whole = cli("list", "--db", tmp_db).lines
    monkeypatch.setenv("COLUMNS", "70")
    cut = cli("list", "--db", tmp_db).lines
    assert max(map(len, whole)) > 70 >= max(map(len, cut))
    following = dict(pairwise(cut))
    reasons = [following[line] for line in cut if line.startswith(("a1", "family/"))]
    assert reasons
    assert all(re.fullmatch(r"  signal 'approved' at 0, for [\d.]+ s", line) for line in reasons)


async def test_ids_are_short_on_a_terminal_and_mean_the_same_run(engines, tmp_db, cli, monkeypatch):
    """
    The moment that an id begins with, where that tells it from all others; children bear it, too. What is shown can be
    pasted. A fork is marked.
    """
    engine = await engines.file(parent, approval, napping)
    root = await engine.start(parent())
    await engine.start(napping(), id="1a22c2b8f7b-0000000000")
    await engine.start(napping(), id="1a22c2b8f7b-1111111111")
    await engine.idle()
    monkeypatch.setenv("COLUMNS", "100")
    moment = root.id.partition("-")[0]
    forked = await root.fork("0")
    shown = [line.split()[0] for line in cli("list", "--db", tmp_db).lines if not line.startswith(("  ", "RUN"))]
    assert {moment, f"{moment}~.0.0", f"{moment}~.0.1", "1a22c2b8f7b-0000000000"} <= {*shown}
    for short, whole in ((moment, root.id), (f"{moment}~.0.1", f"{root.id}~.0.1")):
        assert cli("show", short, "--db", tmp_db, "--json").values[0]["run_id"] == whole
    assert cli("show", "1a22c2b8f7b", "--db", tmp_db).code == 2
    assert cli("show", f"{moment}~.7", "--db", tmp_db).code == 3
    lines = cli("list", "--db", tmp_db).lines
    assert [line.split()[0] for line in lines if "parent (fork)" in line] == [forked.id.partition("-")[0]]


@pytest.mark.parametrize("no_color, coloured", [("", True), ("1", False)])
async def test_a_terminal_gets_colours_and_its_own_width(journal, tmp_db, no_color, coloured):
    """
    Statuses in colour unless NO_COLOR is set; lines as wide as the terminal, not more.
    """
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm"}
    variables |= {"NO_COLOR": no_color, "COLUMNS": "", "LINES": ""}
    ours, theirs = os.openpty()
    termios.tcsetwinsize(ours, (24, 60))
    argv = [sys.executable, "-m", "durable", "list", "--db", str(tmp_db)]
    process = await asyncio.create_subprocess_exec(*argv, stdout=theirs, stderr=theirs, env=variables)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other side has closed
        while block := await asyncio.to_thread(os.read, ours, 65_536):
            shown += block
    os.close(ours)
    assert await process.wait() == 0
    lines = shown.decode().splitlines()
    (bad,) = [line for line in lines if line.startswith("bad")]
    assert ("\x1b[31mfailed\x1b[0m" in bad) is coloured
    bare = [re.sub(r"\x1b\[\d*m", "", line) for line in lines]
    assert not any("\x1b" in line for line in bare)
    assert 40 < max(map(len, bare)) <= 60


async def test_escapes_in_names_do_not_reach_the_terminal(engines, tmp_db, cli):
    """
    A reason may hold anything, and in a file from elsewhere so may a key: what could drive a terminal is escaped.
    """
    engine = await engines.file(failing)
    run = await engine.start(failing("\x1b[2Jgone\rover"), id="bad")
    with pytest.raises(Exception, match="gone"):
        await run.result(5)
    await engine.aclose()
    conn = sqlite3.connect(tmp_db)
    with conn:
        conn.execute("UPDATE durable_runs SET key = ?", ("\x1b]0;owned\x07",))
    conn.close()
    out = cli("list", "--db", tmp_db).out
    assert r"\x1b]0;owned\x07" in out
    assert r"\x1b[2Jgone\rover" in out
    assert not set(out) & {"\x1b", "\r", "\x07"}


# --- names of runs -----------------------------------------------------------------------------------


async def test_a_run_is_found_by_id_beginning_and_key(journal, tmp_db):
    """
    A whole id wins over a longer one that begins with it; what a run has started does not make its beginning ambiguous.
    """
    conn = open_readonly(str(tmp_db))
    assert find_run(conn, "a1").run_id == "a1"
    assert find_run(conn, "fam").run_id == "family"
    assert find_run(conn, "family~.0.1").run_id == "family~.0.1"
    assert find_run(conn, "key:order-1").run_id == "a1"
    conn.close()


@pytest.mark.parametrize(
    "text, code, expected",
    [
        ("a", 2, "'a' could be more than one run: 'a1' ('approval', waiting), 'a2' ('approval', waiting). Type more"),
        ("family~", 2, "'family~.0.0'"),
        ("x", 3, "no run of this journal has an id that is, or begins with, 'x' (it may have been pruned)"),
        ("order-1", 3, "A run has this key: name it as key:order-1"),
        ("key:order-2", 3, "no run of this journal has the key 'order-2'"),
        ("", 3, "no run can be called ''"),
        ("\udcff", 3, "no run can be called"),
        ("a%", 3, "no run"),
    ],
)
async def test_a_name_that_means_no_run_or_many_is_refused(journal, tmp_db, text, code, expected):
    """
    Exit code 3 for none, 2 for more than one, with some of them.
    """
    conn = open_readonly(str(tmp_db))
    with pytest.raises(CommandError) as caught:
        find_run(conn, text)
    conn.close()
    assert caught.value.code == code
    assert expected in str(caught.value)


async def test_an_ambiguous_name_shows_a_few(engines, tmp_db):
    """
    Not all ten thousand.
    """
    engine = await engines.file(never)
    await engine.queue("closed").pause()
    for n in range(9):
        await engine.start(never(), id=f"r{n}")
    conn = open_readonly(str(tmp_db))
    with pytest.raises(CommandError, match=r"'r4' \('never', pending\), and more\. Type more") as caught:
        find_run(conn, "r")
    conn.close()
    assert "'r5'" not in str(caught.value)


# --- files -------------------------------------------------------------------------------------------


def test_a_missing_file_is_not_found(tmp_db, cli):
    """
    Exit code 3, and nothing is created.
    """
    said = cli("list", "--db", tmp_db)
    assert said.code == 3
    assert f"no journal at {tmp_db}: the file does not exist" in said.err
    assert not tmp_db.exists()


def test_a_foreign_file_is_refused(tmp_db, cli):
    """
    Exit code 1 and a sentence, for another application's database and for no database at all.
    """
    conn = sqlite3.connect(tmp_db)
    conn.execute("CREATE TABLE mine (x)")
    conn.close()
    said = cli("list", "--db", tmp_db)
    assert said.code == 1
    assert "a database without a journal in it" in said.err
    tmp_db.write_bytes(b"no database" * 500)
    said = cli("list", "--db", tmp_db)
    assert said.code == 2
    assert said.err.startswith("durable list: ")


async def test_a_file_in_a_folder_that_may_not_be_written_is_listed(engines, tmp_db, tmp_path, cli, monkeypatch):
    """
    A journal on a read-only medium is in WAL mode, and still needs no file beside it.
    """
    engine = await engines.file(never)
    await engine.queue("closed").pause()
    await engine.start(never(), id="one")
    await engine.aclose()
    folder = tmp_path / "medium"
    folder.mkdir()
    shutil.copyfile(tmp_db, folder / "copy.db")
    folder.chmod(0o500)
    if os.geteuid() == 0:  # whom no mode keeps out: told what others would find
        monkeypatch.setattr(os, "access", lambda *_args: False)
    try:
        assert ids(cli("list", "--db", folder / "copy.db", "--json")) == ["one"]
        assert "one" in cli("show", "--db", folder / "copy.db", "one").out
        assert [each.name for each in folder.iterdir()] == ["copy.db"]
    finally:
        folder.chmod(0o700)


async def test_lists_and_writes_do_not_wait_for_each_other(engines, tmp_db, cli):
    """
    While an engine records runs, every list shows one state of the file, and no commit fails.
    """

    @workflow
    async def work(number: int) -> Flow[int]:
        for n in range(5):
            number = yield double(n)
        yield Return(number)

    engine = await engines.file(work)
    loop = asyncio.get_running_loop()

    async def write():
        for _ in range(20):
            runs = await engine.start_many([work(n) for n in range(10)])
            await asyncio.gather(*(run.result(20) for run in runs))

    writer = asyncio.create_task(write())
    counts = []
    while not writer.done():
        found = await loop.run_in_executor(None, lambda: _listed(tmp_db))
        counts.append(len(found))
    await writer
    assert counts == sorted(counts)
    assert len(_listed(tmp_db)) == 200
    assert (await engine.stats()).trouble is None


def _listed(path):
    conn = open_readonly(str(path))
    try:
        return list_runs(conn, Filter(), None, 1000)
    finally:
        conn.close()


async def test_a_cell_that_nobody_expects_is_told_in_a_line(engines, cli, tmp_db):
    """
    Without a traceback, and without the bytes of the file as they are.
    """
    engine = await engines.file()
    await engine.aclose()
    conn = sqlite3.connect(tmp_db)
    conn.execute(
        "INSERT INTO durable_runs (run, run_id, workflow, version, sort, status, queue, priority, labels, created_at)"
        " VALUES (1, 'r', 'w', 1, 'job', 'failed', 'q', 0, '[1', 0)"
    )
    conn.commit()
    conn.close()
    said = cli("list", "--db", tmp_db)
    assert (said.code, said.err) == (0, "")
    _, row = said.lines
    assert row.split()[:3] == ["r", "w", "failed"]
    assert "[1" not in row

"""
`durable fork` and `durable diff`: what would have been, here, elsewhere or in memory; and how two runs differ.
"""

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing

import pytest

from durable import Engine, RunFailedError
from durable._cli.applications import load_application

pytestmark = pytest.mark.anyio

SHOP = """
import os
from attrs import frozen
from durable import Flow, Retry, Return, context, for_each, gather, job, sleep, step, wait_for, workflow

@frozen
class Receipt:
    ride: int
    paid: str

def done(what):
    with open(os.path.join(os.path.dirname(__file__), "done.txt"), "a") as file:
        file.write(what + "\\n")

@step
async def book(user: int) -> int:
    done("book")
    return user * 10

@step
async def charge(ride: int) -> Receipt:
    done("charge")
    raise ConnectionError("no connection to the bank")

@step
async def thank(receipt: Receipt) -> str:
    done("thank")
    return f"thanks for {receipt.paid}"

@workflow
async def ride(user: int) -> Flow[str]:
    number: int = yield book(user)
    receipt: Receipt = yield charge(number)
    yield Return((yield thank(receipt)))

@job
async def mail(text: str) -> str:
    done("mail " + text)
    return "mailed " + text

@workflow
async def asks(name: str) -> Flow[str]:
    word: str = yield wait_for(name, str)
    yield Return((yield mail(word)))

@workflow
async def family(text: str) -> Flow[list]:
    parts: list = yield gather(asks("go"), mail(text), book(1))
    yield sleep(3600)
    last: str = yield wait_for("last", str)
    yield Return([*parts, last])

@step(retry=Retry(3, delay=0.001))
async def flaky(bad: int) -> int:
    if context().attempt <= bad:
        raise ValueError("no")
    return 1

@step
async def note(n: int) -> None: ...

@workflow
async def many(bad: int, special: int) -> Flow[int]:
    yield flaky(bad)
    for _ in range(2):
        yield note(special)
        for n in range(8):
            yield note(n)
    yield for_each(note, [special])
    yield sleep(0)
    yield Return(special)

STEPS = {"thank": lambda receipt: "pretended for " + receipt.paid, mail: lambda text: "pretended " + text}
NOTHING = {}
WRONG = 7
"""


@pytest.fixture
def shop(tmp_path):
    """
    The application, as a file; and what its steps have done for real.
    """
    path = tmp_path / "fork_shop.py"
    path.write_text(SHOP)
    sys.modules.pop("fork_shop", None)
    load_application(str(path))
    yield path
    sys.modules.pop("fork_shop", None)


@pytest.fixture
def done(shop):
    """
    What steps have done since it was last asked.
    """
    file = shop.with_name("done.txt")

    def taken():
        found = file.read_text().split("\n")[:-1] if file.exists() else []
        file.unlink(missing_ok=True)
        return found

    return taken


@pytest.fixture
def do(cli):
    """
    Carries out a command in a thread of its own: where one writes, it has an event loop.
    """

    async def carry_out(*argv):
        return await asyncio.to_thread(cli, *argv)

    return carry_out


@asynccontextmanager
async def engine_on(db):
    module = sys.modules["fork_shop"]
    async with Engine(db, [module], durability="process") as engine:
        yield engine, module


@pytest.fixture
async def failed(tmp_db, shop, done):
    """
    A journal with one run, which failed at 1.
    """
    async with engine_on(tmp_db) as (engine, module):
        run = await engine.start(module.ride(4), id="r")
        with pytest.raises(RunFailedError):
            await run.result(5)
    assert done() == ["book", "charge"]
    return tmp_db


async def text_of(do, db, run="r"):
    """What an export of the run says, but for its header."""
    return (await do("export", run, "--db", db)).lines[1:]


# --- into the same journal ---------------------------------------------------------------------------------


async def test_a_copy_in_the_same_journal_goes_on_with_its_engine(do, failed, shop, done):
    """
    The id is written; the next engine executes what follows, and only that; the run keeps its bytes.
    """
    before = await text_of(do, failed)
    said = await do("fork", "r", "--replace", '1={"ride": 40, "paid": "cash"}', "--app", shop, "--db", failed)
    assert said.code == 0, said
    (new_id,) = said.lines
    assert "resumes once one has" in said.err
    async with engine_on(failed) as (engine, _):
        assert await engine.get(new_id).result(5) == "thanks for cash"
    assert done() == ["thank"]
    assert await text_of(do, failed) == before
    diff = await do("diff", "r", new_id, "--db", failed)
    assert diff.code == 1
    assert diff.lines == [
        "- r  ride version 1, failed",
        f"+ {new_id}  ride version 1, succeeded",
        "1 command alike, up to 0",
        "- 1        step 'charge' failed: ConnectionError: no connection to the bank",
        '+ 1        step \'charge\' -> {"ride":40,"paid":"cash"}',
        "           (other outcome)",
        "+ 2        step 'thank' -> \"thanks for cash\"",
        "           (only in the second)",
        "-          the end failed: ConnectionError: no connection to the bank",
        '+          the end -> "thanks for cash"',
        "           (other outcome)",
    ]


async def test_a_live_engine_executes_the_copy(do, failed, shop, done):
    """
    Recorded by the owner over its socket; --run is refused there, since it would be executed twice.
    """
    async with engine_on(failed) as (engine, _):
        command = [sys.executable, "-m", "durable", "fork", "r", "--at", "1", "--db", str(failed)]
        replace = ["--replace", '1={"ride": 40, "paid": "card"}', "--id", "mine", "--json"]
        made = await run_process([*command, *replace])
        assert made.returncode == 0, made.stderr
        assert made.stderr == ""
        assert await engine.get("mine").result(5) == "thanks for card"
        assert done() == ["thank"]
        refused = await do("fork", "r", "--at", "1", "--db", failed, "--run", "--app", shop)
        assert refused.code == 2
        assert f"process {os.getpid()} on" in refused.err
        assert "without --run it resumes the copy" in refused.err
        taken = await run_process([*command, "--id", "mine"])
        assert taken.returncode == 2
        assert "run 'mine' exists already" in taken.stderr


async def run_process(command):
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)


async def test_run_executes_the_copy_here(do, failed, shop, done):
    """
    With real steps, until it has ended: exit code 0 with the result, or 1 with the error.
    """
    cash = '1={"ride": 40, "paid": "cash"}'
    said = await do("fork", "r", "--replace", cash, "--app", shop, "--db", failed, "--run", "--id", "good")
    assert (said.code, said.lines) == (0, ["good: succeeded", '  "thanks for cash"'])
    assert done() == ["thank"]
    said = await do("fork", "r", "--at", "1", "--app", shop, "--db", failed, "--run", "--id", "bad", "--json")
    assert said.code == 1
    (value,) = said.values
    assert (value["run_id"], value["status"], value["error"]["type"]) == ("bad", "failed", "ConnectionError")
    said = await do("fork", "r", "--at", "0", "--app", shop, "--db", failed, "--run", "--id", "bad2")
    assert said.code == 1
    assert said.lines[0] == "bad2: failed"
    assert said.lines[-1].endswith("ConnectionError: no connection to the bank")
    assert done() == ["charge", "book", "charge"]


# --- into another journal ------------------------------------------------------------------------------------


async def test_into_another_journal_the_copy_runs_alone(do, failed, shop, done, tmp_path):
    """
    Made if need be; the original does not come along, and its journal is as before.
    """
    desk = tmp_path / "desk.db"
    before = failed.read_bytes(), await text_of(do, failed)
    cash = '1={"ride": 40, "paid": "cash"}'
    said = await do("fork", "r", "--replace", cash, "--into", desk, "--db", failed, "--app", shop, "--run", "--id", "f")
    assert (said.code, said.lines) == (0, ["f: succeeded", '  "thanks for cash"'])
    assert done() == ["thank"]
    assert [each["run_id"] for each in (await do("list", "--db", desk, "--json")).values] == ["f"]
    assert (failed.read_bytes(), await text_of(do, failed)) == before
    export = tmp_path / "f.jsonl"
    await do("export", "f", "--db", desk, "--output", export)
    assert (await do("diff", "r", export, "--db", failed)).lines[2] == "1 command alike, up to 0"
    again = await do("fork", export, "--at", "2", "--into", desk, "--db", failed, "--json")
    assert again.code == 0, again
    assert again.values[0]["source"] == "f"
    assert again.values[0]["journal"] == str(desk)
    same = await do("fork", "r", "--at", "1", "--into", failed, "--db", failed)
    assert same.code == 2
    assert "own journal" in same.err


async def waiting_family(db, reached):
    async with engine_on(db) as (engine, module):
        run = await engine.start(module.family("x"), id="f")
        await reached(run, "waiting")
        assert await engine.get("f~.0.1").result(5) == "mailed x"
        await reached(engine.get("f~.0.0"), "waiting")
        await reached(run, "waiting")


async def test_children_that_had_not_ended_come_along_paused(do, tmp_db, shop, done, tmp_path, reached):
    """
    Elsewhere they may be going on, so a person resumes them; the copy then takes their outcomes.
    """
    await waiting_family(tmp_db, reached)
    assert sorted(done()) == ["book", "mail x"]
    desk = tmp_path / "desk.db"
    said = await do("fork", "f", "--at", "0.2", "--into", desk, "--db", tmp_db, "--app", shop, "--run", "--id", "n")
    assert said.code == 1
    assert "paused in" in said.err
    assert "f~.0.0" in said.err
    assert said.lines[0] == "n: waiting"
    assert "run 'f~.0.0' (which is paused: resume it) at 0.0" in said.lines[1]
    assert done() == ["book"]
    statuses = {each["run_id"]: each["status"] for each in (await do("list", "--db", desk, "--json")).values}
    assert statuses == {"n": "waiting", "f~.0.0": "paused"}
    export = tmp_path / "f.jsonl"
    await do("export", "f", "--db", tmp_db, "--output", export)
    alone = await do("fork", export, "--at", "0.2", "--into", tmp_path / "other.db")
    assert alone.code == 2
    assert "child f~.0.0 at 0.0 of run" in alone.err
    assert "--replace 0.0=JSON" in alone.err


# --- with stand-ins ------------------------------------------------------------------------------------------


async def test_with_stand_ins_nothing_is_written_and_nothing_executed(do, failed, shop, done):
    """
    How it ends, what follows, and the difference from what is recorded.
    """
    before = failed.read_bytes()
    steps = f"{shop}:STEPS"
    cash = '1={"ride": 40, "paid": "cash"}'
    said = await do("fork", "r", "--replace", cash, "--stand-ins", steps, "--app", shop, "--db", failed)
    assert said.code == 0, said
    assert said.lines == [
        "r:what-if: succeeded (with stand-ins; nothing was executed)",
        '  "pretended for cash"',
        "",
        "what follows",
        "  2        step 'thank' -> \"pretended for cash\"",
        '           the end -> "pretended for cash"',
        "",
        "against what is recorded",
        "- r  ride version 1, failed",
        "+ r:what-if  ride version 1, succeeded",
        "1 command alike, up to 0",
        "- 1        step 'charge' failed: ConnectionError: no connection to the bank",
        '+ 1        step \'charge\' -> {"ride":40,"paid":"cash"}',
        "           (other outcome)",
        "+ 2        step 'thank' -> \"pretended for cash\"",
        "           (only in the second)",
        "-          the end failed: ConnectionError: no connection to the bank",
        '+          the end -> "pretended for cash"',
        "           (other outcome)",
    ]
    missing = await do("fork", "r", "--stand-ins", f"{shop}:NOTHING", "--app", shop, "--db", failed, "--json")
    assert missing.code == 1
    (value,) = missing.values
    assert value["status"] == "failed"
    assert "it has no stand-in" in value["error"]
    assert done() == []
    assert failed.read_bytes() == before


async def test_stand_ins_let_children_timers_and_signals_go_on(do, tmp_db, shop, done, reached, tmp_path):
    """
    From where the run stands, from a journal or an export of its tree.
    """
    await waiting_family(tmp_db, reached)
    done()
    export = tmp_path / "tree.jsonl"
    await do("export", "f", "--tree", "--db", tmp_db, "--output", export)
    signals = ("--signal", 'go="word"', "--signal", 'last="end"')
    for where in (("f", "--db", tmp_db), (export,)):
        said = await do("fork", *where, "--stand-ins", f"{shop}:STEPS", "--app", shop, *signals, "--json")
        assert said.code == 0, said
        (value,) = said.values
        assert value["result"] == ["pretended word", "mailed x", 10, "end"]
        assert value["seconds"] >= 3600
        assert value["diff"][0] == {"fact": "status", "first": "waiting", "second": "succeeded"}
    waits = await do("fork", "f", "--db", tmp_db, "--stand-ins", f"{shop}:STEPS", "--app", shop)
    assert waits.code == 1
    assert "f: waiting" in waits.lines[0]
    assert done() == []


# --- mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, code, told",
    [
        ([], 2, "from where? Give --at POSITION"),
        (["--at", "7"], 2, "position 7 is not before a recorded command of this run; recorded are 0, 1"),
        (["--replace", "9=1"], 2, "position 9 is not before a recorded command"),
        (["--at", "1", "--replace", "1.2.x=1"], 2, "give POSITION=JSON"),
        (["--at", "1", "--replace", "0=nope"], 2, "not JSON"),
        (["--at", "1", "--replace", "0=1", "--replace", "0=2"], 2, "the outcome at 0 is replaced twice"),
        (["--at", "1", "--signal", "go"], 2, "give NAME=JSON"),
        (["--at", "1", "--run"], 2, "--run executes workflows and steps: name the application"),
        (["--at", "1", "--stand-ins", "x:Y"], 2, "--stand-ins runs workflow code: name the application"),
        (["--at", "1", "--stand-ins", "x:Y", "--into", "other.db"], 2, "--stand-ins writes nothing"),
    ],
)
async def test_mistakes_are_told_and_write_nothing(do, failed, options, code, told):
    """
    Each by what is wrong, and what to write instead.
    """
    before = failed.read_bytes()
    said = await do("fork", "r", "--db", failed, *options)
    assert said.code == code
    assert told in said.err
    assert failed.read_bytes() == before


async def test_replacements_are_read_by_what_the_command_returns(do, failed, shop, tmp_path):
    """
    With the application at hand, JSON that does not fit is refused, with the place in it.
    """
    with_app = ("--app", shop, "--db", failed)
    said = await do("fork", "r", "--replace", '1={"ride": "forty", "paid": "cash"}', *with_app)
    assert said.code == 2
    assert "the replacement at 1 (step 'charge') at ride: expected" in said.err
    said = await do("fork", "r", "--replace", '0="ten"', *with_app)
    assert "the replacement at 0 (step 'book'): expected" in said.err
    deep = "[" * 100 + "]" * 100
    assert "nesting" in (await do("fork", "r", "--replace", f"0={deep}", "--db", failed)).err
    assert "is not a mapping" in (await do("fork", "r", "--at", "1", "--stand-ins", f"{shop}:WRONG", *with_app)).err
    assert (await do("fork", tmp_path / "none.jsonl", "--at", "1")).code == 3
    assert (await do("fork", "nobody", "--at", "1", "--db", failed)).code == 3
    export = tmp_path / "r.jsonl"
    await do("export", "r", "--db", failed, "--output", export)
    said = await do("fork", export, "--at", "1")
    assert said.code == 2
    assert "--into FILE" in said.err


# --- diff ----------------------------------------------------------------------------------------------------


async def test_runs_that_are_alike_have_no_differences(do, tmp_db, shop):
    """
    Whatever their ids and times: exit code 0.
    """
    async with engine_on(tmp_db) as (engine, module):
        for run_id in ("a", "b"):
            assert await engine.start(module.mail("x"), id=run_id) is not None
            await engine.get(run_id).result(5)
    said = await do("diff", "a", "b", "--db", tmp_db)
    assert (said.code, said.lines[-1]) == (0, "all that is recorded is alike")
    assert (await do("diff", "a", "b", "--db", tmp_db, "--json")).lines == []
    full = await do("diff", "a", "b", "--db", tmp_db, "--full")
    assert full.code == 0
    assert "s" in full.lines[-2]
    rows = (await do("diff", "a", "b", "--db", tmp_db, "--full", "--json")).values
    assert [row["differs"] for row in rows] == [[], []]


async def test_other_arguments_are_a_fact_of_the_runs(do, tmp_db, shop, monkeypatch):
    """
    Told before the commands; side by side where there is room.
    """
    async with engine_on(tmp_db) as (engine, module):
        for run_id, text in (("a", "x"), ("b", "y")):
            await (await engine.start(module.mail(text), id=run_id)).result(5)
    said = await do("diff", "a", "b", "--db", tmp_db)
    assert said.code == 1
    assert said.lines[2:4] == ['- mail("x")', '+ mail("y")']
    (fact, *rows) = (await do("diff", "a", "b", "--db", tmp_db, "--json")).values
    assert fact["fact"] == "arguments"
    assert fact["first"] == [["x"], {}]
    assert {each for row in rows for each in row["differs"]} <= {"arguments", "outcome"}
    monkeypatch.setenv("COLUMNS", "120")
    wide = await do("diff", "a", "b", "--db", tmp_db)
    (row,) = [line for line in wide.lines if "the end" in line]
    assert row.startswith("|")
    assert '"mailed x"' in row
    assert '"mailed y"' in row


async def test_long_runs_are_shown_around_their_differences(do, tmp_db, shop):
    """
    What is alike between them is counted; attempts and durations are shown if all is asked for.
    """
    async with engine_on(tmp_db) as (engine, module):
        for run_id, bad, special in (("a", 0, 1), ("b", 2, 1), ("c", 0, 7)):
            assert await (await engine.start(module.many(bad, special), id=run_id)).result(5) == special
    said = await do("diff", "a", "c", "--db", tmp_db)
    assert said.code == 1
    digests = [line.partition("(arguments ")[2].partition(")")[0] for line in said.lines if "arguments " in line]
    assert len(set(digests)) == 2
    first, second = digests[:2]
    assert said.lines[2:19] == [
        "- many(0, 1)",
        "+ many(0, 7)",
        "1 command alike, up to 0",
        f"- 1        step 'note' (arguments {first}) -> null",
        f"+ 1        step 'note' (arguments {second}) -> null",
        "           (other arguments)",
        "  2        step 'note' -> null",
        "  3        step 'note' -> null",
        "  4        step 'note' -> null",
        "  ... 2 alike",
        "  7        step 'note' -> null",
        "  8        step 'note' -> null",
        "  9        step 'note' -> null",
        f"- 10       step 'note' (arguments {first}) -> null",
        f"+ 10       step 'note' (arguments {second}) -> null",
        "           (other arguments)",
        "  11       step 'note' -> null",
    ]
    assert "- 19       for_each note of 1 ([1])" in said.lines
    retried = await do("diff", "a", "b", "--db", tmp_db)
    assert retried.lines[4] == "they part at the beginning"
    assert retried.lines[-1].startswith("  ... ")
    full = await do("diff", "a", "b", "--db", tmp_db, "--full")
    assert ", 3 attempts, " in full.lines[6]
    assert not any("alike" in line for line in full.lines)
    assert "sleep: fired, " in full.out
    with closing(sqlite3.connect(tmp_db)) as conn:
        conn.execute("UPDATE durable_events SET body = '[]' WHERE run = 1 AND seq = 2")
        conn.commit()
    damaged = await do("diff", "a", "b", "--db", tmp_db)
    assert damaged.code == 1
    assert "event 2" in damaged.err


async def test_signals_are_sent_to_the_copy(do, tmp_db, shop, done, reached):
    """
    In their order, and not to the run that was copied; what no turn has taken in is told by nobody.
    """
    async with engine_on(tmp_db) as (engine, module):
        await reached(await engine.start(module.asks("go"), id="a"), "waiting")
    fork = ("fork", "a", "--at", "0", "--db", tmp_db, "--app", shop, "--run")
    waits = await do(*fork, "--id", "one")
    assert (waits.code, waits.lines[0]) == (1, "one: waiting")
    assert "signal 'go' at 0" in waits.lines[1]
    said = await do(*fork, "--id", "two", "--signal", 'go="hello"', "--signal", "go=2")
    assert said.lines == ["two: succeeded", '  "mailed hello"']
    assert done() == ["mail hello"]
    statuses = {each["run_id"]: each["status"] for each in (await do("list", "--db", tmp_db, "--json")).values}
    assert statuses == {"a": "waiting", "one": "waiting", "two": "succeeded", "two~.1": "succeeded"}


async def test_a_copy_that_waits_for_time_is_waited_for(do, tmp_db, shop, reached):
    """
    Timers and retries move it; a queue that is paused does not.
    """
    async with engine_on(tmp_db) as (engine, module):
        await (await engine.start(module.many(0, 1), id="m")).result(5)
        await engine.queue("default").pause()
    fork = ("fork", "m", "--at", "0", "--db", tmp_db, "--app", shop, "--run")
    held = await do(*fork, "--id", "held")
    assert (held.code, held.lines[0]) == (1, "held: pending")
    assert "which is paused" in held.lines[1]
    await do("resume", "queue:default", "--db", tmp_db)
    assert (await do(*fork, "--id", "goes")).lines == ["goes: succeeded", "  1"]


async def test_diff_takes_two(do, failed, tmp_path):
    """
    And says so; what is not there has exit code 3.
    """
    assert "which two runs?" in (await do("diff", "r", "--db", failed)).err
    assert (await do("diff", "r", "nobody", "--db", failed)).code == 3
    assert (await do("diff", "r", tmp_path / "none.jsonl", "--db", failed)).code == 3
    many = tmp_path / "many.jsonl"
    await do("fork", "r", "--at", "1", "--db", failed)
    await do("export", "--all", "--db", failed, "--output", many)
    said = await do("diff", "r", many, "--db", failed)
    assert said.code == 2
    assert "has 2 runs" in said.err

"""
`durable history`: the recorded events of a run, also while they are being recorded.
"""

import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing

import pytest

from durable import Flow, Return, continue_as, sleep, step, wait_for, workflow

pytestmark = pytest.mark.anyio


@step
async def add(n: int) -> int:
    return n + 1


@step
async def fail(text: str) -> None:
    raise ValueError(text)


@workflow
async def sums(n: int) -> Flow[int]:
    total: int = yield add(n)
    word: str = yield wait_for("go", str)
    yield Return(total + len(word))


@workflow
async def fails() -> Flow[None]:
    yield fail("x" * 300)


@workflow
async def loops(n: int) -> Flow[int]:
    if n:
        yield continue_as(loops(n - 1))
    yield Return(n)


@workflow
async def naps() -> Flow[None]:
    yield sleep(0)
    yield sleep(3600, name="nap")


async def test_events_in_order_with_time_position_and_words(engines, cli, tmp_db):
    """
    A line an event: number, time since the beginning, name, position, what it is about.
    """
    engine = await engines.file(sums)
    run = await engine.start(sums(1), id="r")
    await run.signal("go", "abc")
    await run.result(5)
    said = cli("history", "r", "--db", tmp_db)
    assert said.code == 0
    assert said.lines[0].startswith("sums r  began ")
    names = [line.split()[3] for line in said.lines[1:]]
    assert names[:3] == ["RunStarted", "StepStarted", "StepSucceeded"]
    assert names[-1] == "RunSucceeded"
    assert [line.split()[0] for line in said.lines[1:]] == [str(n) for n in range(1, len(names) + 1)]
    assert "add (cli/test_history.py:30)" in said.out
    (first, *_, last) = cli("history", "r", "--db", tmp_db, "--json").values
    assert (first["event"], first["fields"]["workflow"], first["value"]) == ("RunStarted", "sums", [[1], {}])
    assert (last["event"], last["value"]) == ("RunSucceeded", 5)
    assert first["at"].endswith("Z")


async def test_only_some_events(engines, cli, tmp_db):
    """
    By name, and from behind a number; an unknown name lists those there are.
    """
    engine = await engines.file(sums)
    run = await engine.start(sums(1), id="r")
    await run.signal("go", "abc")
    await run.result(5)
    only = cli("history", "r", "--db", tmp_db, "--kind", "StepSucceeded", "--json").values
    assert [each["event"] for each in only] == ["StepSucceeded"]
    assert cli("history", "r", "--db", tmp_db, "--after", "2", "--json").values[0]["seq"] == 3
    said = cli("history", "r", "--db", tmp_db, "--kind", "Step")
    assert said.code == 2
    assert "'Step' is not an event; there are AttributesSet" in said.err


async def test_failures_are_a_line_and_with_full_a_traceback(engines, cli, tmp_db):
    """
    Long values are cut; --full shows all of them.
    """
    engine = await engines.file(fails)
    run = await engine.start(fails(), id="r")
    with pytest.raises(Exception, match="x" * 300):
        await run.result(5)
    assert "ValueError: xxx" in cli("history", "r", "--db", tmp_db, "--kind", "StepFailed").out
    full = cli("history", "r", "--db", tmp_db, "--kind", "StepFailed", "--full").out
    assert "raise ValueError(text)" in full
    assert "x" * 300 in full


async def test_a_chain_is_followed_if_asked_to(engines, cli, tmp_db):
    """
    `continue_as` ends a run; --chain goes on with the next.
    """
    engine = await engines.file(loops)
    await (await engine.start(loops(2), id="r")).result(5)
    assert "continued as" not in cli("history", "r", "--db", tmp_db).out
    said = cli("history", "r", "--db", tmp_db, "--chain")
    assert said.out.count("continued as r~") == 2
    assert "RunSucceeded" in said.lines[-1]


async def test_a_damaged_history_is_shown_as_far_as_it_is_good(engines, cli, tmp_db):
    """
    The event that does not match its checksum, and what follows, is not shown as if it were true.
    """
    engine = await engines.file(sums)
    run = await engine.start(sums(1), id="r")
    await run.signal("go", "abc")
    await run.result(5)
    await engine.aclose()
    for damage, words in (
        ("UPDATE durable_events SET value = '7' WHERE seq = 3", "event 3 does not match its checksum"),
        ("DELETE FROM durable_events WHERE seq = 2", "event 2 is missing"),
        ("UPDATE durable_events SET value = CAST(x'ff' AS TEXT) WHERE seq = 1", "event 1 does not match"),
    ):
        with closing(sqlite3.connect(tmp_db)) as conn:
            conn.execute(damage)
            conn.commit()
        said = cli("history", "r", "--db", tmp_db)
        assert said.code == 1
        assert words in said.lines[-1]
    assert "problem" in cli("history", "r", "--db", tmp_db, "--json").values[-1]


def test_following_a_live_run_ends_with_it(tmp_path):
    """
    Events come as they are committed, by another process; with the run's end the command ends.
    """
    db = tmp_path / "app.db"
    script = f"""
        import asyncio, logging, sys, structlog
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        sys.path.insert(0, {str(tmp_path)!r})
        from durable import Engine
        import followed

        async def main():
            async with Engine({str(db)!r}, [followed.sums], durability="process") as engine:
                run = await engine.start(followed.sums(1), id="r")
                while await run.status() != "waiting":
                    await asyncio.sleep(0.002)
                print("ready", flush=True)
                await asyncio.to_thread(sys.stdin.readline)
                await run.signal("go", "abc")
                await run.result(10)

        asyncio.run(main())
    """
    (tmp_path / "followed.py").write_text(
        "from durable import *\n\n@workflow\nasync def sums(n: int) -> Flow[int]:\n"
        "    word: str = yield wait_for('go', str)\n    yield Return(n + len(word))\n"
    )
    engine = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert engine.stdout.readline() == "ready\n"
    follower = subprocess.Popen(
        [sys.executable, "-m", "durable", "history", "r", "--db", db, "--follow"], stdout=subprocess.PIPE, text=True
    )
    seen = [follower.stdout.readline() for _ in range(3)]
    assert "SignalAwaited" in seen[-1]
    out, _ = engine.communicate("\n", timeout=20)
    rest, _ = follower.communicate(timeout=20)
    assert (engine.returncode, follower.returncode) == (0, 0), out
    assert "RunSucceeded" in rest.splitlines()[-1]


async def test_a_timer_is_told_by_its_name(engines, cli, tmp_db, eventually):
    """
    As `run.history()` tells it: by what the code calls it, or else by what it is.
    """
    engine = await engines.file(naps)
    run = await engine.start(naps(), id="r")

    async def sleeps_again() -> bool:
        return sum(event.kind == "TimerSet" for event in await run.history()) == 2

    await eventually(sleeps_again)
    timers = [" ".join(line.split()[4:6]) for line in cli("history", "r", "--db", tmp_db).lines if "TimerSet" in line]
    assert timers == ["0 sleep", "1 nap"]
    assert [event.name for event in await run.history() if event.kind == "TimerSet"] == ["sleep", "nap"]


def test_following_needs_neither_asyncio_nor_structlog():
    """
    Reading a file is no reason to load an event loop.
    """
    program = (
        "import sys\nfrom durable._cli.commands.look import history, graph, doctor, tail\n"
        "print({'asyncio', 'structlog', 'anyio', 'aiosqlite'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"

"""
`durable queues`, `durable limits` and `durable stats --watch`: what waits, what is inside, and how that goes on.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from durable import Limit, Queue, Rate, RunFailedError, job, step, workflow

pytestmark = pytest.mark.anyio

GATEWAY = Limit("gateway", concurrency=1, rate=Rate(100, per=60))


@job(queue="mail")
async def never() -> None: ...


@job
async def failing() -> None:
    raise ValueError("no")


@pytest.fixture
async def busy(engines, tmp_db, reached):
    """
    One run is inside a limit, one waits for its slot, two wait in a paused and throttled queue; one has failed.
    """
    opened, inside = asyncio.Event(), asyncio.Event()

    @step(limit=GATEWAY)
    async def charge() -> None:
        inside.set()
        await opened.wait()

    @workflow
    async def pay() -> None:
        await charge()

    engine = await engines.file(pay, never, failing, queues=[Queue("mail", concurrency=5)])
    await engine.queue("mail").pause()
    await engine.queue("mail").change(concurrency=1)
    await engine.start_many([never(), never()])
    await engine.start(pay(), id="first")
    await inside.wait()
    await reached(await engine.start(pay(), id="second"), "waiting")
    with pytest.raises(RunFailedError):
        await engine.run(failing())
    yield tmp_db
    opened.set()


async def test_queues_say_what_waits_and_what_holds_them_up(busy, cli):
    """
    For people a table, for programs one object a line.
    """
    (mail,) = [line for line in cli("queues", "--db", busy).lines if line.startswith("mail")]
    assert mail.split()[:3] == ["mail", "2", "0"]
    assert mail.endswith("paused, throttled: 1 at once")
    told = {each["name"]: each for each in cli("queues", "--db", busy, "--json").values}["mail"]
    assert (told["depth"], told["paused"], told["changed"]) == (2, True, "1 at once")


async def test_limits_say_their_numbers_and_who_is_in_them(busy, cli):
    """
    All in a table; one by name with the runs that are inside, and those that wait.
    """
    (row,) = [line for line in cli("limits", "--db", busy).lines if line.startswith("gateway")]
    assert row.split("  ")[0:2] == ["gateway", "1 at once, 100 in 1 min"]
    lines = cli("limits", "gateway", "--db", busy).lines
    assert lines[lines.index("inside") + 1].startswith("  first at 0, for ")
    assert lines[lines.index("waiting") + 1].startswith("  second at 0, for ")
    (told,) = cli("limits", "--db", busy, "--json").values
    assert (told["concurrency"], told["count"], told["per"]) == (1, 100, 60)
    assert [each["run"] for each in told["holders"]] == ["first"]
    said = cli("limits", "gatewy", "--db", busy)
    assert (said.code, "no engine of this journal has had a limit called 'gatewy'" in said.err) == (3, True)


async def test_empty_answers_are_sentences(engines, tmp_db, cli):
    """
    No limits, and no queue that has anything to do.
    """
    await engines.file(never)
    assert cli("queues", "--db", tmp_db).out == "no queue has anything to do\n"
    assert cli("limits", "--db", tmp_db).out == "no limits\n"


async def test_stats_say_what_ended_and_what_limits_let_in(busy, cli):
    """
    Of the last hour, and of the last minute; the numbers of a limit stand beside who is in it.
    """
    said = cli("stats", "--db", busy)
    assert "1 in 1 h, 1 failed; 1 in the last minute" in said.out
    (row,) = [line for line in said.lines if line.startswith("gateway")]
    assert "1 at once, 100 in 1 min" in row
    (told,) = cli("stats", "--db", busy, "--json").values
    assert told["ended"] == {"seconds": 3600.0, "succeeded": 0, "failed": 1, "cancelled": 0}
    assert told["limits"][0]["lets_in"] == "1 at once, 100 in 1 min"


async def test_stats_are_watched_until_they_are_interrupted(busy):
    """
    `--watch` tells again and again, as JSON one object a line; Ctrl-C ends it without a complaint.
    """
    argv = [sys.executable, "-m", "durable", "stats", "--watch", "0.05", "--json", "--db", str(busy)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    watching = await asyncio.create_subprocess_exec(
        *argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    told = [json.loads(await watching.stdout.readline()) for _ in range(3)]
    watching.send_signal(signal.SIGINT)
    _, complaint = await watching.communicate()
    assert [each["runs"]["failed"] for each in told] == [1, 1, 1]
    assert (watching.returncode, complaint) == (130, b"")


@pytest.mark.parametrize("pause", ["0", "-1", "soon", "nan", "inf"])
def test_a_pause_is_a_number_of_seconds(cli, tmp_db, pause):
    """
    What is none is wrong usage.
    """
    said = cli("stats", "--db", tmp_db, f"--watch={pause}")
    assert (said.code, "is no pause" in said.err) == (2, True)

"""
What follows a welcome starts once, at its time, and only if the welcome went out.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from durable import Engine
from durable.errors import RunFailedError

EXAMPLES = Path(__file__).parents[2] / "examples"

#: Dies by SIGKILL as soon as the welcome's success is known, that is: on disk.
GREET = """
import asyncio, os, signal, sys
import welcome
from durable import Engine

async def main(path, how):
    jobs = [welcome.send_welcome, welcome.send_onboarding_tips, welcome.notify_admin, welcome.track_signup_metrics]
    async with Engine(path, jobs) as engine:
        await engine.run(welcome.send_welcome("Ada"), key="welcome-Ada")
        if how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        await welcome.all_ended(engine)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def welcome(monkeypatch):
    """
    The example as a module.
    """
    monkeypatch.syspath_prepend(EXAMPLES)
    import welcome

    return welcome


@pytest.fixture
async def engine(welcome, tmp_db):
    """
    An engine of its jobs.
    """
    jobs = [welcome.send_welcome, welcome.send_onboarding_tips, welcome.notify_admin, welcome.track_signup_metrics]
    async with Engine(tmp_db, jobs) as engine:
        yield engine


async def test_tips_wait_and_the_admin_does_not(welcome, engine):
    """
    The tips begin when their delay has passed, the metric follows them, the admin is told before.
    """
    run = await engine.start(welcome.send_welcome("Ada"))
    runs = {info.workflow: info for info in await welcome.all_ended(engine)}
    sent, tips, told, metric = (
        runs[name] for name in ("send_welcome", "send_onboarding_tips", "notify_admin", "track_signup_metrics")
    )
    assert tips.started_at - sent.ended_at >= welcome.A_WHILE
    assert told.started_at < tips.started_at
    assert (tips.follows, told.follows, metric.follows) == (run.id, run.id, tips.run_id)


async def test_a_welcome_that_fails_starts_nothing(welcome, engine):
    """
    Its run is the only one.
    """
    run = await engine.start(welcome.send_welcome("Bob"))
    with pytest.raises(RunFailedError, match="no address"):
        await run.result()
    assert [info.run_id for info in await welcome.all_ended(engine)] == [run.id]


async def test_a_follow_up_that_fails_leaves_the_rest(welcome, engine):
    """
    The welcome stays succeeded, and the other follow-ups run.
    """
    run = await engine.start(welcome.send_welcome("Cyd"))
    ends = {info.workflow: info.status for info in await welcome.all_ended(engine)}
    assert ends.pop("notify_admin") == "failed"
    assert set(ends.values()) == {"succeeded"}
    assert len(ends) == 3
    assert await run.result() == "cyd@example.org"


def test_killed_when_the_welcome_was_out(tmp_db):
    """
    The process dies between the welcome and what follows it: after a restart that happens once.
    """
    children = [
        subprocess.run(
            [sys.executable, "-c", GREET, str(tmp_db), how],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(EXAMPLES), *sys.path]))},
            capture_output=True,
            check=False,
            text=True,
            timeout=20,
        )
        for how in ("die", "live", "live")
    ]
    assert [child.returncode for child in children] == [-signal.SIGKILL, 0, 0], children
    output = children[1].stdout
    assert output.count("Welcome!") == 0
    assert output.count("to ada@example.org: Five tips") == output.count("metrics: Ada got") == 1
    assert "Five tips" not in children[2].stdout

"""
What follows a welcome starts once, at its time, and only if the welcome went out.
"""

import signal

import pytest

from durable import Engine
from durable.errors import RunFailedError

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
async def engine(example, tmp_db):
    """
    An engine of its jobs.
    """
    jobs = [example.send_welcome, example.send_onboarding_tips, example.notify_admin, example.track_signup_metrics]
    async with Engine(tmp_db, jobs) as engine:
        yield engine


async def test_tips_wait_and_the_admin_does_not(example, engine):
    """
    The tips begin when their delay has passed, the metric follows them, the admin is told before.
    """
    run = await engine.start(example.send_welcome("Ada"))
    runs = {info.workflow: info for info in await example.all_ended(engine)}
    sent, tips, told, metric = (
        runs[name] for name in ("send_welcome", "send_onboarding_tips", "notify_admin", "track_signup_metrics")
    )
    assert tips.started_at - sent.ended_at >= example.A_WHILE
    assert told.started_at < tips.started_at
    assert (tips.follows, told.follows, metric.follows) == (run.id, run.id, tips.run_id)


async def test_a_welcome_that_fails_starts_nothing(example, engine):
    """
    Its run is the only one.
    """
    run = await engine.start(example.send_welcome("Bob"))
    with pytest.raises(RunFailedError, match="is not an address"):
        await run.result()
    assert [info.run_id for info in await example.all_ended(engine)] == [run.id]


async def test_a_follow_up_that_fails_leaves_the_rest(example, engine):
    """
    The welcome stays succeeded, and the other follow-ups run.
    """
    run = await engine.start(example.send_welcome("Cyd"))
    ends = {info.workflow: info.status for info in await example.all_ended(engine)}
    assert ends.pop("notify_admin") == "failed"
    assert set(ends.values()) == {"succeeded"}
    assert len(ends) == 3
    assert await run.result() == "cyd@example.org"


def test_killed_when_the_welcome_was_out(start, tmp_db):
    """
    The process dies between the welcome and what follows it: after a restart that happens once.
    """
    assert start(GREET, tmp_db, "die").ended()[0] == -signal.SIGKILL
    code, said = start(GREET, tmp_db, "live").ended()
    assert (code, "Welcome!" in said) == (0, False)
    assert said.count("to ada@example.org: Five tips") == said.count("metrics: Ada got") == 1
    code, said = start(GREET, tmp_db, "live").ended()
    assert (code, "Five tips" in said) == (0, False)

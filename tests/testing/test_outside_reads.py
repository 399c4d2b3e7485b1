"""
Workflow code that asks the world is found by an engine that replays always: the line, and what to use instead.
"""

import asyncio
import inspect
import logging
import os
import random
import secrets
import sys
import time
import uuid
from dataclasses import dataclass, field
from datetime import date, datetime

import pytest

import durable
from durable import Flow, step, workflow

pytestmark = pytest.mark.anyio


@step
async def look() -> float:
    """Asks all of it, as steps may."""
    uuid.uuid4()
    return time.time() + random.random() + len(os.environ) + datetime.now().timestamp()  # noqa: DTZ005


@dataclass
class Order:
    """Its id is made of dice."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)  # read


async def clock() -> None:
    time.time()  # read
    await look()


async def calendar() -> None:
    await look()
    datetime.now()  # noqa: DTZ005 - # read


async def today() -> None:
    date.today()  # noqa: DTZ011 - # read


async def dice() -> None:
    random.random()  # read


async def choice() -> None:
    random.choice([1, 2])  # read


async def ids() -> None:
    uuid.uuid4()  # read


async def secret() -> None:
    secrets.token_hex()  # read


async def entropy() -> None:
    os.urandom(3)  # read


async def environment() -> None:
    os.environ.get("HOME")  # read


async def variable() -> None:
    os.getenv("HOME")  # read


def helper():
    return time.monotonic()  # read


async def by_a_helper() -> None:
    helper()


async def by_a_default() -> None:
    Order()


async def in_a_member_of_a_group() -> None:
    await durable.gather(clock(), clock())


def line_read(fn):
    lines, first = inspect.getsourcelines(fn)
    return first + next(number for number, line in enumerate(lines) if line.rstrip().endswith("# read"))


@pytest.mark.parametrize(
    "code, where, name, instead",
    [
        (clock, clock, "time.time", "durable.now()"),
        (calendar, calendar, "datetime.datetime.now", "durable.now()"),
        (today, today, "datetime.date.today", "durable.now()"),
        (dice, dice, "random.random", "durable.random()"),
        (choice, choice, "random.choice", "durable.random()"),
        (ids, ids, "uuid.uuid4", "durable.uuid4()"),
        (secret, secret, "secrets.token_hex", "a step"),
        (entropy, entropy, "os.urandom", "a step"),
        (environment, environment, "os.environ", "an argument of the workflow, or a step"),
        (variable, variable, "os.getenv", "an argument of the workflow, or a step"),
        (by_a_helper, helper, "time.monotonic", "durable.now()"),
        (by_a_default, Order, "uuid.uuid4", "durable.uuid4()"),
        (in_a_member_of_a_group, clock, "time.time", "durable.now()"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_what_workflow_code_reads_outside_blocks_its_run(engines, code, where, name, instead):
    """
    Before anything comes of it; the report names the line and what to use instead.
    """
    flow = workflow(name=code.__name__)(code)
    engine = await engines.memory(flow, replay_always=True)
    run = await engine.start(flow())
    await engine.idle()
    assert await run.status() == "blocked"
    assert f"{name} at test_outside_reads.py:{line_read(where)}, use {instead}" in await run.why()


@workflow
async def sound() -> Flow[None]:
    """Steps ask what they like; workflow code asks durable, or says that nothing depends on it."""
    yield look()
    durable.now()
    durable.uuid4()
    durable.random().choice([1, 2])
    logging.getLogger(__name__).warning("each record has the time")
    began = time.perf_counter()  # durable: ok
    random.Random(7).random()
    yield look()
    print(f"took {time.perf_counter() - began}")  # durable: ok


async def test_no_false_alarms(engines):
    """
    What libraries do on behalf of the code, what steps do, what `durable` gives, and what a comment lets pass.
    """
    engine = await engines.memory(sound, replay_always=True)
    await engine.run(sound())


async def test_a_plain_engine_does_not_look(engines):
    """
    Only tests pay for it; in production it shows in other arguments, if it shows.
    """
    flow = workflow(name="clock")(clock)
    engine = await engines.memory(flow)
    await engine.run(flow())


async def test_a_profiler_is_left_alone(engines):
    """
    Who profiles has Python's one hook for that: nothing is looked at meanwhile, and nothing taken away.
    """

    def profiler(_frame, _event, _arg):
        """Looks at nothing."""

    flow = workflow(name="clock")(clock)
    engine = await engines.memory(flow, replay_always=True)
    sys.setprofile(profiler)
    try:
        await asyncio.wait_for(engine.run(flow()), 5)
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)

"""
The seam between the core and what drives it, kept honest by a driver that has no journal, clock or loop.

See "A driver" in durable/README.md.
"""

import re
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from durable._core.authoring.decorators import job, step, transaction, workflow
from durable._core.authoring.flow import now, patched
from durable._core.authoring.op_constructors import gather, race, sleep, timeout, wait_for
from durable._core.journal.events import ChildSucceeded, Event, StepStopped, TimerFired
from durable._core.journal.payloads import rebuilt
from durable._core.program.functions import Job
from durable._core.program.ops import Return, RunOp, TransactionOp
from durable._core.run.answers import Answers
from durable._core.run.decision import FIELDS
from durable._core.run.execution import OPENERS, Execution
from durable._core.run.job_execution import JobExecution
from durable.errors import DefinitionError
from tests.core.drive import CODEC, outcome_of, started

README = Path(__file__).parents[2] / "durable" / "README.md"


class NothingIsPatched(Answers):
    """A driver whose runs are all older than any patch."""

    __slots__ = ()

    def patched(self, change_id: str) -> bool:
        return False


class Refused:
    """Opens nothing."""

    def __call__(self, ex, position, owner, index, op, /):
        msg = f"{op.describe()}: there is no database here"
        raise DefinitionError(msg)

    def carried(self, op, codec, /):
        return ()


HERE = {**OPENERS, TransactionOp: Refused()}


def drive(op: RunOp[Any], run_id: str = "r") -> Any:
    """
    The result of a run: each thing that it asks for happens at once; timers when nothing else can.
    """
    definition, now_, first = op.definition, 1_000.0, [started(op)]
    ex: Execution | JobExecution
    if isinstance(definition, Job):
        ex = JobExecution(definition, first, run_id=run_id, codec=CODEC)
    else:
        ex = Execution(definition, first, run_id=run_id, codec=CODEC, answers=NothingIsPatched, openers=HERE)
    arrivals: deque[Event] = deque()
    timers = {}
    arrived: list[Event] = []
    while True:
        decision = ex.advance(arrived, now=now_)
        arrivals += [StepStopped(position, 1, abandoned=False, at=now_) for position in decision.cancelled_steps]
        timers = {position: wait for position, wait in timers.items() if wait not in decision.waits_closed}
        arrivals += [outcome_of(action, now_, run_id) for action in decision.steps]
        for child in decision.children:
            value = CODEC.encode(drive(child.op, child.run_id))
            arrivals.append(ChildSucceeded(child.position, value, now_))
        timers |= {wait.position: wait for wait in decision.waits if wait.fire_at is not None}
        if decision.ended is not None:
            ex.close()
            if decision.ended == "failed":
                raise rebuilt(decision.outcome, CODEC)
            return CODEC.decode(decision.outcome or "null")
        if not arrivals:
            first_due = min(timers.values(), key=lambda wait: wait.fire_at)
            now_ = max(now_, first_due.fire_at)
            arrivals.append(TimerFired(timers.pop(first_due.position).position, now_))
        arrived = [arrivals.popleft()]


@step
def double(n: int) -> int:
    return 2 * n


@step(retry=2)
def fragile(attempts: list[int]) -> int:
    raise ValueError("no")


@job
def added(a: int, b: int) -> int:
    return a + b


@transaction
def insert(tx) -> int:
    return 1


@workflow
async def all_kinds(n: int):
    twice = await double(n)
    both = await gather(double(1), double(2))
    total = await added(twice, sum(both))
    before = now()
    first = await race(sleep(60), wait_for("never"))
    return [total, first.index, (now() - before).total_seconds(), patched("newer")]


@workflow
async def late():
    try:
        await timeout(wait_for("never"), 5)
    except TimeoutError:
        return "late"


@workflow
async def failing():
    yield fragile([])


@workflow
async def asks_for_a_database():
    try:
        yield insert()
    except DefinitionError as error:
        yield Return(str(error))


def test_the_readme_names_all_that_a_driver_gets():
    """
    Each field of a `Decision`, and nothing else.
    """
    text = README.read_text(encoding="utf-8")
    table = text[text.index("| it gets a `Decision`") : text.index("What arrives for something that is open no more")]
    rows = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    assert {name for row in rows for name in re.findall("`([a-z_]+)`", row)} == {*FIELDS}


def test_a_driver_of_forty_lines_runs_workflows():
    """
    Steps, groups, jobs, timers and retries need nothing but `advance`, and what it decides.
    """
    assert drive(all_kinds(5)) == [16, 0, 60.0, False]
    assert drive(late()) == "late"
    with pytest.raises(ValueError, match="no"):
        drive(failing())


def test_a_driver_refuses_an_op_at_the_line_that_asks_for_it():
    """
    What an opener raises as a `DefinitionError` reaches the code as an error of its command.
    """
    assert drive(asks_for_a_database()) == "transaction 'insert': there is no database here"


def test_a_driver_answers_what_it_knows_better():
    """
    With `answers=` the code hears the driver's own, and everything else as ever.
    """
    ex = Execution(all_kinds, [started(all_kinds(5))], run_id="r", codec=CODEC, answers=NothingIsPatched)
    assert isinstance(ex.answers, NothingIsPatched)
    assert ex.answers.run_id == "r"
    ex.close()

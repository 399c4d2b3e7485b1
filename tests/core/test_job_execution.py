"""
A job's run: one step, its attempts, and how it ends.
"""

import pytest

from durable._core.authoring.decorators import job
from durable._core.journal import history
from durable._core.journal.events import (
    CancelRequested,
    ResumeRequested,
    RunExpired,
    RunTimedOut,
    SignalReceived,
    StepInterrupted,
    StepNotBegun,
    StepRetrying,
    StepStopped,
    StepSucceeded,
)
from durable._core.journal.payloads import failure_payload
from durable._core.policies.caps import Caps
from durable._core.policies.retry import Retry
from durable.errors import CapExceededError
from tests.core.drive import CODEC, START, World, execution, failure, kinds, run, started


@job(on_poison="block")
def double(n: int) -> int:
    return n * 2


@job(retry=Retry(2, delay=3.0, jitter=0))
def broken(n: int) -> int:
    raise ValueError(n)


@job(on_crash="raise")
def once() -> int:
    return 1


@job(on_crash="block")
def careful() -> int:
    return 1


def begun(op) -> World:
    world = World(op)
    world.begin()
    return world


def test_a_job_succeeds():
    """
    Start, attempt, end: the value stands in the closing event only.
    """
    world = run(double(4))
    assert kinds(world.events) == ["RunStarted", "StepStarted 0", "RunSucceeded"]
    assert world.value() == 8


@pytest.mark.parametrize("freed", [False, True])
def test_a_job_is_retried_then_fails(freed):
    """
    Delays are timers; the end names the command that failed.
    """
    world = run(broken(1), freed=freed)
    assert kinds(world.events)[1:] == [
        "StepStarted 0",
        "StepRetrying 0",
        "TimerFired 0",
        "StepStarted 0",
        "RunFailed",
    ]
    assert failure(world.events[-1]) == "ValueError: 1"
    assert [wait.kind for decision in world.decisions for wait in decision.waits] == ["retry"]


FAILURE = failure_payload(ValueError("no"), CODEC, with_traceback=False)
ROWS = [
    # job, arrivals, events, (attempts started, cancelled, blocked, ended)
    (double(1), [CancelRequested("no", 1.0)], ["CancelRequested", "CancelSent 0"], ([], ["0"], None, None)),
    (double(1), [CancelRequested("no", 1.0)] * 2, ["CancelRequested", "CancelSent 0"], ([], ["0"], None, None)),
    (double(1), [RunExpired(0.5, 1.0)], [], ([], [], None, None)),  # it has begun
    (double(1), [RunTimedOut(5.0, 1.0)], ["RunTimedOut", "CancelSent 0"], ([], ["0"], None, None)),
    *(
        (double(1), [asked, ended], [type(asked).__name__, "CancelSent 0", end], ([], ["0"], None, status))
        for asked, ended, end, status in [
            (CancelRequested("no", 1.0), StepStopped("0", 1, abandoned=False), "RunCancelled", "cancelled"),
            (CancelRequested("no", 1.0), StepInterrupted("0", 1, True, 1.0), "RunCancelled", "cancelled"),
            (CancelRequested("no", 1.0), StepRetrying("0", 1, 9.0, FAILURE, 1.0), "RunCancelled", "cancelled"),
            (CancelRequested("no", 1.0), StepSucceeded("0", "2", 1.0), "RunSucceeded", "succeeded"),
            (RunTimedOut(5.0, 1.0), StepStopped("0", 1, abandoned=True), "RunFailed", "failed"),
            (RunTimedOut(5.0, 1.0), StepSucceeded("0", "2", 1.0), "RunFailed", "failed"),
        ]
    ),
    (double(1), [StepInterrupted("0", 1, True, 1.0)], ["StepInterrupted 0", "StepStarted 0"], ([2], [], None, None)),
    (double(1), [StepInterrupted("0", 7, True, 1.0)], [], ([], [], None, None)),
    (double(1), [SignalReceived("x", None, 1.0)], ["SignalReceived"], ([], [], None, None)),
    # Of no use to it; that a person asked is told all the same, as in the history of a workflow.
    (double(1), [ResumeRequested(1.0)], ["ResumeRequested"], ([], [], None, None)),
    (once(), [StepInterrupted("0", 1, True, 1.0)], ["RunFailed"], ([], [], None, "failed")),
    (once(), [StepInterrupted("0", 1, False, 1.0)], ["RunFailed"], ([], [], None, "failed")),
    (once(), [StepNotBegun("0", 1, 1.0)], ["StepNotBegun 0", "StepStarted 0"], ([2], [], None, None)),
    (
        careful(),
        [StepInterrupted("0", 1, True, 1.0)],
        ["StepInterrupted 0"],
        ([], [], "job 'careful' was running when the process died: its outcome is unknown", None),
    ),
    (
        careful(),
        [StepInterrupted("0", 1, True, 1.0), ResumeRequested(1.0)],
        ["StepInterrupted 0", "ResumeRequested", "StepStarted 0"],
        ([2], [], "job 'careful' was running when the process died: its outcome is unknown", None),
    ),
]


@pytest.mark.parametrize("op, arrived, events, expected", ROWS)
def test_what_happens_to_a_running_job(op, arrived, events, expected):
    """
    Each arrival, what it records, and what it asks for.
    """
    world = begun(op)
    decision = world.turn(*arrived)
    assert kinds(decision.events) == events
    attempts = [action.attempt for action in decision.steps]
    assert (attempts, list(decision.cancelled_steps), decision.blocked, decision.ended) == expected


@pytest.mark.parametrize("arrival", [CancelRequested("no", 1.0), RunTimedOut(5.0, 1.0), RunExpired(0.5, 1.0)])
def test_a_job_that_is_over_before_it_began_never_runs(arrival):
    """
    No attempt is started, and none is there to cancel.
    """
    decision = execution(double(1), [started(double(1))]).advance([arrival], now=1.0)
    assert decision.steps == []
    assert not decision.cancelled_steps
    assert decision.ended in ("cancelled", "failed")


def test_the_history_of_a_job_has_a_cap():
    """
    As that of a workflow: one that tries without end warns, then needs a person; what it replays counts.
    """

    @job(retry=Retry(None, delay=1.0, jitter=0))
    def hopeless() -> None:
        raise ValueError

    world = World(hopeless(), freed=True, options={"caps": Caps(events=10, events_warning=5)})
    with pytest.raises(CapExceededError, match=r"number of events is 11.*Give up earlier"):
        world.run()
    assert len(world.events) == 9
    assert [entry for decision in world.decisions for entry in decision.logs] == [
        ("warning", "run.history_is_long", {"events": 5, "run_id": "r"})
    ]


def test_poison_jobs_block():
    """
    Three deaths in a row; then a person decides.
    """
    world = begun(double(1))
    assert [world.interrupt("0").blocked is None for _ in range(3)] == [True, True, False]
    assert "died 3 times" in world.decisions[-1].blocked
    assert world.ex.idle
    again = execution(double(1), world.events)
    assert again.in_flight() == []
    decision = again.advance([ResumeRequested(1.0)], now=1.0)
    assert [action.attempt for action in decision.steps] == [4]


def test_an_attempt_under_way_is_found_after_a_crash():
    """
    The shell reports it as interrupted.
    """
    world = begun(double(1))
    ex = execution(double(1), world.events)
    assert ex.in_flight() == [("0", 1)]
    assert not ex.idle
    ex.close()


def test_a_retry_delay_survives_a_crash():
    """
    The count of failures too.
    """
    world = begun(broken(1))
    world.happen()
    ex = execution(broken(1), world.events)
    assert ex.idle
    from durable._core.journal.events import TimerFired

    decision = ex.advance([TimerFired("0", START + 9)], now=START + 9)
    assert [(action.attempt, action.failures) for action in decision.steps] == [(2, 1)]


def test_a_failed_job_is_retried_from_its_beginning():
    """
    A fresh count of attempts.
    """
    world = run(broken(1))
    world.begin([*world.events, history.reopened(world.events, START)])
    assert [(action.attempt, action.failures) for action in world.steps] == [(1, 0)]


def test_the_arguments_arrive_decoded():
    """
    As recorded, converted by the annotations.
    """
    world = begun(double(4))
    assert world.steps[0].op.args == (4,)
    assert CODEC.decode("4") == 4

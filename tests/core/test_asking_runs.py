"""
`signal_run` and `cancel_run`: what is recorded, when it is asked, and how the answer comes.
"""

import pytest

from durable._core.authoring.decorators import step, workflow
from durable._core.authoring.op_constructors import cancel_run, gather, race, signal_run, sleep
from durable._core.journal.events import RunForked
from durable._core.journal.history import fork, reopened
from durable._core.program.ops import Signal
from durable._core.run.decision import CancelAction, SignalAction
from durable.errors import EncodeError, NondeterminismError, RunNotFoundError, RunStateError
from tests.core.drive import World, closed_prefixes, execution, kinds

PAID = Signal("paid", int)


@workflow
async def asks() -> bool:
    """Signals one run, and cancels another."""
    await signal_run("a", PAID, 3)
    return await cancel_run("b", "too late")


@workflow
async def guarded() -> str:
    """Says what was wrong."""
    try:
        await signal_run("gone", "paid", 3)
    except (RunNotFoundError, RunStateError) as error:
        return type(error).__name__
    return "sent"


@step
async def fails() -> None:
    """Never called."""


def test_the_command_is_recorded_with_what_it_asks_and_the_answer_arrives():
    """
    One action a command; the code resumes with what the file answers.
    """
    w = World(asks(), accepting=True)
    sent = w.begin()
    assert list(sent.requests) == [SignalAction("0", "a", "paid", "3", "r/0@1 paid")]
    assert not sent.waits
    w.run_on()
    assert w.value() is True
    asked = [action for decision in w.decisions for action in decision.requests]
    assert asked[1:] == [CancelAction("1", "b", "too late")]
    assert kinds(w.events) == [
        "RunStarted", "SignalSent 0", "RequestAccepted 0", "CancelAsked 1", "RequestAccepted 1", "RunSucceeded",
    ]  # fmt: skip


def test_a_replay_asks_for_nothing_again():
    """
    Whatever prefix of the journal is on disk: what is recorded was asked in that transaction.
    """
    w = World(asks(), accepting=True)
    w.run()
    for length in closed_prefixes(w.events):
        ex = execution(w.op, w.events[:length])
        assert not ex.decision.requests
        ex.close()
    freed = World(asks(), accepting=True, freed=True)
    assert kinds(freed.run()) == kinds(w.events)


@pytest.mark.parametrize(
    "error", [RunNotFoundError("id", "gone"), RunStateError("gone", "succeeded", "signal 'paid' to")]
)
def test_what_is_refused_raises_where_it_was_asked(error):
    """
    The error is rebuilt with its own type.
    """
    w = World(guarded(), refusing={"gone": error})
    w.run()
    assert w.value() == type(error).__name__


def test_what_cannot_be_recorded_raises_at_its_line_and_is_not_asked():
    """
    Nothing of it is in the journal.
    """

    @workflow
    async def sends(value: str) -> str:
        try:
            await signal_run("a", PAID, value)  # type: ignore[misc]  # what is tested
        except EncodeError:
            return "refused"
        return "sent"

    w = World(sends("x"))
    w.run()
    assert w.value() == "refused"
    assert kinds(w.events) == ["RunStarted", "RunSucceeded"]


def test_what_nobody_waits_for_any_more_is_asked_all_the_same():
    """
    A race that is lost takes nothing back: the answer is dropped.
    """

    @workflow
    async def races() -> int:
        return (await race(signal_run("a", "paid"), sleep(0))).index

    w = World(races())
    decision = w.begin()
    assert [action.position for action in decision.requests] == ["0.0"]
    w.fire("0.1")
    assert w.value() == 1


def test_a_retry_asks_again_for_what_was_refused_or_had_no_answer():
    """
    With the same id, so that a signal which was accepted is not sent twice.
    """

    @workflow
    async def both() -> None:
        await gather(signal_run("a", "paid"), fails(), fail_fast=True)

    w = World(both())
    first = w.begin()
    w.fail("0.1", ValueError("no"))
    assert w.end.ended == "failed"
    again = World(both())
    decision = again.begin([*w.events, reopened(w.events, 2_000.0)])
    assert list(decision.requests) == list(first.requests)


def test_a_fork_asks_for_itself_what_its_source_has_no_answer_to():
    """
    The answer comes to the source; who forks it would wait for it without end.
    """
    w = World(asks(), accepting=True)
    w.begin()
    forked = fork(w.events, run_id="r", at="0", replace={}, now=2_000.0)
    assert [type(event) for event in forked[-1:]] == [RunForked]
    assert "SignalSent 0" not in kinds(forked)


@pytest.mark.parametrize("other", [lambda: signal_run("b", "paid"), lambda: signal_run("a", "sent"), lambda: sleep(1)])
def test_another_run_or_signal_at_a_position_is_a_divergence(other):
    """
    Both are what tells one request from another.
    """

    def body(op):
        @workflow(name="changing")
        async def changing() -> None:
            await op()

        return changing()

    w = World(body(lambda: signal_run("a", "paid")))
    w.run()
    with pytest.raises(NondeterminismError, match="signal_run 'paid' of run 'a'"):
        execution(body(other), w.events)


@pytest.mark.parametrize(
    "make",
    [lambda: signal_run(3, "x"), lambda: signal_run("", "x"), lambda: signal_run("a", None), lambda: cancel_run(None),
     lambda: cancel_run("a", 3)],
)  # fmt: skip
def test_what_is_no_run_or_signal_is_refused_where_it_is_written(make):
    """
    It says what is taken, and what was found.
    """
    with pytest.raises(TypeError, match=r"takes .*, found"):
        make()

"""
Requests into a run: what is recorded of a question and its answer, and that it is answered once.
"""

import pytest
from attrs import frozen

from durable import Asked, Flow, Request, Return, gather, race, sleep, step, wait_for, workflow
from durable._core.journal.events import RequestTurnedAway, RunForked, SignalReceived
from durable._core.journal.history import fork, reopened
from durable._core.run.decision import ReplyAction
from durable.errors import EncodeError, NondeterminismError, UsageError
from tests.core.drive import CODEC, World, again, closed_prefixes, execution, kinds


@frozen
class Order:
    amount: int


@frozen
class Verdict:
    approved: bool


approve = Request("approve", Order, Verdict)
YES = '{"approved":true}'


@workflow
async def one() -> Flow[int]:
    """Approves one order."""
    asked: Asked[Order, Verdict] = yield wait_for(approve)
    yield asked.reply(Verdict(True))
    yield Return(asked.value.amount)


@workflow
async def judge() -> list[int]:
    """Approves two orders, and refuses large ones; of awaits."""
    approved: list[int] = []
    while len(approved) < 2:
        asked = await wait_for(approve)
        if asked.value.amount > 100:
            await asked.refuse("too much")
        else:
            approved.append(asked.value.amount)
            await asked.reply(Verdict(True))
    return approved


@step
async def work() -> None:
    """Never called."""


def waiting(op=None, **options) -> World:
    """
    A world whose run waits for its first request.
    """
    world = World(op or one(), **options)
    world.begin()
    return world


def test_an_answer_is_recorded_with_the_turn_that_gives_it():
    """
    With what follows it, so that it costs no turn of its own; the history has question and answer.
    """
    w = waiting()
    decision = w.ask("q1", "approve", Order(3))
    assert list(decision.replies) == [ReplyAction("q1", YES, refused=False)]
    assert w.value() == 3
    assert kinds(w.events) == ["RunStarted", "SignalAwaited 0", "SignalReceived", "ReplySent 1", "RunSucceeded"]
    received, sent = w.events[2:4]
    assert (received.request, received.value, sent.request, sent.value) == ("q1", '{"amount":3}', "q1", YES)


@pytest.mark.parametrize("freed", [False, True])
def test_whatever_crashes_nothing_is_answered_twice(freed):
    """
    From every prefix of the journal the same follows, and what is recorded is not answered again.
    """
    w = waiting(judge(), freed=freed)
    w.ask("q1", "approve", Order(3))
    refusal = w.ask("q2", "approve", Order(300))
    assert list(refusal.replies) == [ReplyAction("q2", '"too much"', refused=True)]
    w.ask("q3", "approve", Order(4))
    assert w.value() == [3, 4]
    for survived in closed_prefixes(w.events):
        ex = execution(w.op, w.events[:survived])
        assert not ex.decision.replies
        ex.close()
        assert kinds(again(w.op, w.events, survived)) == kinds(w.events)


def test_requests_that_come_early_wait_in_their_order():
    """
    As signals do.
    """
    w = World(judge())
    w.begin()
    decision = w.turn(*(SignalReceived("approve", f'{{"amount":{n}}}', w.now, f"q{n}") for n in (1, 2)))
    assert [reply.request for reply in decision.replies] == ["q1", "q2"]
    assert w.value() == [1, 2]


def test_a_signal_and_a_request_of_one_name_are_two_things():
    """
    Who waits for the one does not get the other, and both are kept.
    """

    @workflow
    async def both() -> list[object]:
        asked, signal = await gather(wait_for(approve), wait_for("approve"))
        await asked.reply(Verdict(True))
        return [asked.value.amount, signal]

    w = waiting()
    w.signal("approve", "a signal")
    assert not w.ended
    assert [event.request for event in w.ex.unread()] == [""]
    w = waiting(both())
    w.ask("q1", "approve", Order(1))
    w.signal("approve", "s")
    assert w.value() == [1, "s"]


def test_a_question_that_does_not_fit_is_refused_and_the_code_never_sees_it():
    """
    It is the mistake of who asked. Whether somebody waits already or not; also by a replay of code with other types.
    """
    w = waiting(freed=True)
    decision = w.ask("q1", "approve", {"amount": "much"})
    (refused,) = decision.replies
    assert refused[::2] == ("q1", True)
    assert "question.amount: expected int, found str 'much'" in CODEC.decode(refused.payload)
    assert kinds(decision.events) == ["SignalReceived", "RequestTurnedAway"]
    w.ask("q2", "approve", Order(5))
    assert w.value() == 5
    early = World(sleeps_first())
    early.begin()
    early.ask("q1", "approve", "nonsense")
    early.ask("q2", "approve", Order(6))
    assert [reply.request for reply in early.fire("0").replies] == ["q1", "q2"]
    assert early.value() == 6
    for world, value in ((w, 5), (early, 6)):
        for survived in closed_prefixes(world.events):
            assert kinds(again(world.op, world.events, survived)) == kinds(world.events), value

    @workflow(name="one")
    async def other() -> Flow[object]:
        asked = yield wait_for(Request("approve"))
        yield asked.reply({"approved": True})
        yield Return(asked.value)

    execution(other(), w.events).close()


@workflow
async def sleeps_first() -> Flow[int]:
    """Hears nothing for a while."""
    yield sleep(60)
    asked: Asked[Order, Verdict] = yield wait_for(approve)
    yield asked.reply(Verdict(True))
    yield Return(asked.value.amount)


def test_a_request_is_answered_once():
    """
    A second answer is an error at its line: nothing of it is recorded.
    """

    @workflow
    async def twice() -> str:
        asked = await wait_for(approve)
        await asked.reply(Verdict(True))
        try:
            await asked.refuse("on second thoughts")
        except UsageError as error:
            return str(error)
        return "no error"

    w = waiting(twice())
    w.ask("q1", "approve", Order(1))
    assert "refusal of request 'approve': this workflow has answered it already" in w.value()
    assert [kind for kind in kinds(w.events) if "Reply" in kind] == ["ReplySent 1"]
    for survived in closed_prefixes(w.events):
        assert kinds(again(w.op, w.events, survived)) == kinds(w.events)


def test_an_answer_of_another_type_is_refused_at_its_line():
    """
    The request stays open: the code may still answer it.
    """

    @workflow
    async def wrong() -> str:
        asked = await wait_for(approve)
        try:
            await asked.reply("yes")  # type: ignore[arg-type]  # what is tested
        except EncodeError as error:
            await asked.reply(Verdict(False))
            return str(error)
        return "no error"

    w = waiting(wrong())
    decision = w.ask("q1", "approve", Order(1))
    assert list(decision.replies) == [ReplyAction("q1", '{"approved":false}', refused=False)]
    assert "reply to request 'approve'" in w.value()
    with pytest.raises(TypeError, match="refuse takes a text"):
        Asked(1, "q", approve).refuse(ValueError("no"))  # type: ignore[arg-type]  # what is tested


def test_a_race_that_is_lost_gives_its_request_back():
    """
    The next who waits for it gets it, and its answer counts.
    """

    @workflow
    async def races() -> int:
        await race(gather(wait_for(approve), wait_for("go")), sleep(60))
        asked = await wait_for(approve)
        await asked.reply(Verdict(True))
        return asked.value.amount

    w = waiting(races())
    assert not w.ask("q1", "approve", Order(7)).replies
    assert [reply.request for reply in w.fire("0.1").replies] == ["q1"]
    assert w.value() == 7


def test_who_waits_too_long_is_told_what_did_not_come():
    """
    A `TimeoutError`, as with signals.
    """

    @workflow
    async def patient() -> None:
        await wait_for(approve, timeout=5)

    w = waiting(patient())
    w.fire("0")
    with pytest.raises(TimeoutError, match="no request 'approve' came in time"):
        w.value()


def test_the_next_attempt_of_the_run_hears_what_the_last_one_did_not_answer():
    """
    And not what it did answer.
    """

    @workflow(retry=2)
    async def stumbles() -> None:
        first = await wait_for(approve)
        await first.reply(Verdict(True))
        await wait_for(approve)
        msg = "no"
        raise ValueError(msg)

    w = waiting(stumbles())
    w.ask("q1", "approve", Order(1))
    w.ask("q2", "approve", Order(2))
    assert w.ex.ended
    assert [event.request for event in w.ex.unanswered_requests()] == ["q2"]


def test_a_retry_answers_once_more_and_a_fork_as_its_history_says():
    """
    Which the file takes for what it is: the first answer stays. What stands before the cut is not answered again.
    """

    @workflow
    async def fails() -> None:
        asked = await wait_for(approve)
        await asked.reply(Verdict(True))
        await work()

    w = waiting(fails())
    w.ask("q1", "approve", Order(1))
    w.fail("2", ValueError("no"))
    retried = World(w.op)
    assert not retried.begin([*w.events, reopened(w.events, 5.0)]).replies
    assert [action.position for action in retried.steps] == ["2"]
    for at, replies in (("1", ["q1"]), ("2", [])):
        forked = fork(w.events, run_id="r", at=at, replace={}, now=5.0)
        assert isinstance(forked[-1], RunForked)
        found = World(w.op, run_id="fork").begin(forked)
        assert [reply.request for reply in found.replies] == replies


def test_what_was_turned_away_stays_so_behind_a_retry():
    """
    Its refusal was told, and is not told again.
    """

    @workflow
    async def fails() -> int:
        await work()
        return (await wait_for(approve)).value.amount

    w = waiting(fails())
    w.ask("q1", "approve", "nonsense")
    w.fail("0", ValueError("no"))
    turned = RequestTurnedAway("approve", "q1", '"no"', 1.0)
    events = [*w.events[:-1], turned, w.events[-1]]
    retried = World(w.op)
    retried.begin([*events, reopened(events, 5.0)])
    assert not retried.succeed("0").replies
    assert list(retried.ask("q2", "approve", Order(2)).events)
    assert retried.value() == 2


def test_code_that_answers_otherwise_than_recorded_diverges():
    """
    A refusal is another command than a reply; another answer is one of other arguments.
    """

    @workflow(name="one")
    async def refuses() -> Flow[int]:
        asked: Asked[Order, Verdict] = yield wait_for(approve)
        yield asked.refuse("no")
        yield Return(1)

    w = waiting()
    w.ask("q1", "approve", Order(3))
    with pytest.raises(NondeterminismError, match="recorded reply to request 'approve'"):
        execution(refuses(), w.events[:-1])


def test_a_request_is_a_name_and_two_types():
    """
    Said by its text; anything but a name is refused.
    """
    assert repr(approve) == "Request('approve', Order, Verdict)"
    assert repr(Request("x")) == "Request('x', Any, Any)"
    with pytest.raises(TypeError, match="Request takes the name of a request, found int 3"):
        Request(3)  # type: ignore[call-overload]  # what is tested

"""
Callbacks in the core: a handle at once, an answer once, kept until somebody awaits it, the same in every replay.
"""

import inspect
from datetime import timedelta
from typing import Any

import pytest
from attrs import frozen

from durable import Flow, Return, callback, gather, race, settle, sleep, step, timeout, wait_first, workflow
from durable._core.journal import history
from durable._core.journal.columns import from_row, to_row
from durable._core.journal.events import (
    CallbackCompleted,
    CallbackFailed,
    CallbackOpened,
    HeartbeatMissed,
    RunFailed,
    TimerFired,
)
from durable._core.journal.payloads import failure_payload
from durable._core.program.tokens import make_nonce, make_token, read_token
from durable.errors import (
    CallbackValueError,
    HeartbeatMissedError,
    NondeterminismError,
    TokenMalformedError,
    UsageError,
)

from .drive import CODEC, START, World, again, closed_prefixes, execution, kinds


@frozen
class Payment:
    id: str
    cents: int


@step
async def hand_out(token: str) -> str:
    return token


@workflow
async def order() -> Flow[Payment]:
    payment = yield callback("payment", Payment, timeout=60, heartbeat=10)
    yield hand_out(payment.token)
    paid: Payment = yield payment
    yield Return(paid)


def complete(world, position, value):
    """
    Somebody outside completes the callback at *position*: its rows go with that, as the writer has it.
    """
    world.waits = [wait for wait in world.waits if wait.position != position]
    return world.turn(CallbackCompleted(position, CODEC.encode_by_value(value), world.now))


def fail(world, position, error):
    """
    As `complete`, with a failure.
    """
    world.waits = [wait for wait in world.waits if wait.position != position]
    return world.turn(CallbackFailed(position, failure_payload(error, CODEC), world.now))


def begun(op, **options):
    """
    A run that has begun.
    """
    world = World(op, **options)
    world.begin()
    return world


def test_a_callback_gives_its_handle_at_once_and_its_answer_when_it_is_awaited():
    """
    The code continues with the token in the same turn; a row waits for the answer, and one for the heartbeat.
    """
    world = begun(order())
    assert kinds(world.events) == ["RunStarted", "CallbackOpened 0", "StepStarted 1"]
    opened = world.events[1]
    assert isinstance(opened, CallbackOpened)
    assert (opened.fire_at, opened.heartbeat) == (START + 60, 10)
    assert opened.type.endswith("Payment")
    assert [(wait.kind, wait.position, wait.fire_at) for wait in world.waits] == [
        ("callback", "0", START + 60),
        ("heartbeat", "0", START + 10),
    ]
    world.happen()
    assert kinds(world.events)[-1] == "CallbackAwaited 2"
    complete(world, "0", Payment("p", 5))
    assert world.value() == {"id": "p", "cents": 5}
    assert world.waits == []


def test_an_answer_that_comes_before_it_is_awaited_is_kept():
    """
    It is in the history at once, and the `yield` of the handle does not wait.
    """
    world = begun(order())
    complete(world, "0", Payment("p", 5))
    assert not world.ended
    world.happen()
    assert world.value() == {"id": "p", "cents": 5}


def test_it_may_be_awaited_again_and_gives_an_equal_value_of_its_own():
    """
    What one `yield` made of the answer, another does not see.
    """

    @workflow
    async def twice() -> list[Any]:
        kept = await callback(list[int])
        first = await kept
        first.append(99)
        return [first, await kept]

    world = begun(twice())
    complete(world, "0", [1, 2])
    assert world.value() == [[1, 2, 99], [1, 2]]


@pytest.mark.parametrize("freed", [False, True])
@pytest.mark.parametrize(
    "happen, expected",
    [
        (lambda world: complete(world, "0", 7), 7),
        (lambda world: fail(world, "0", KeyError("declined")), "KeyError('declined')"),
        (lambda world: world.turn(TimerFired("0", world.now)), "TimeoutError("),
        (lambda world: world.turn(HeartbeatMissed("0", world.now)), "HeartbeatMissedError('', '0', 10.0)"),
        (lambda world: complete(world, "0", "seven"), "CallbackValueError("),
    ],
)
def test_it_raises_what_became_of_it(happen, expected, freed):
    """
    A failure as what it was, a deadline as a TimeoutError, a missed heartbeat as one of its own; freed or resident.
    """

    @workflow
    async def catching() -> Any:
        kept = await callback(int, timeout=60, heartbeat=10)
        try:
            return await kept
        except Exception as error:
            return repr(error)

    world = begun(catching(), freed=freed)
    happen(world)
    found = world.value()
    assert found == expected or found.startswith(expected)
    for survived in closed_prefixes(world.events):
        assert again(catching(), world.events, survived) == world.events
        assert again(catching(), world.events, survived, resident=False) == world.events


def test_only_the_first_thing_that_happens_to_it_counts():
    """
    An answer and a timer that are on their way together: what comes second is not even recorded.
    """
    world = begun(order())
    world.turn(HeartbeatMissed("0", world.now), CallbackCompleted("0", "1", world.now), TimerFired("0", world.now))
    assert kinds(world.events)[-1] == "HeartbeatMissed 0"
    assert [wait.position for wait in world.waits if wait.position == "0"] == []


def test_it_is_a_member_of_every_group():
    """
    Who stops waiting leaves it open, and can wait again.
    """

    @workflow
    async def groups() -> list[Any]:
        a, b = await gather(callback("a", int), callback("b", int))
        won = await race(a, sleep(5))
        late = await settle(timeout(a, 5))
        first = await wait_first([a, b])
        return [won.index, type(late.error).__name__, first.value, await gather(a, b), (await race(a, b)).index]

    world = begun(groups())
    world.fire("1.1")
    while world.events[-1].position != "2.0.0":
        world.happen()
    world.fire(next(wait.position for wait in world.waits if wait.kind == "timer"))
    complete(world, "0.1", 2)
    complete(world, "0.0", 1)
    assert world.value() == [1, "TimeoutError", 2, [1, 2], 0]
    for survived in closed_prefixes(world.events):
        assert again(groups(), world.events, survived, resident=False) == world.events


def test_a_cancelled_run_waits_no_longer():
    """
    Its clean-up runs, and its rows go.
    """
    world = begun(order())
    world.happen()
    world.cancel("wrong address")
    assert world.end.ended == "cancelled"
    assert {wait.kind for wait in world.end.waits_closed} >= {"callback", "heartbeat"}


def test_what_a_retry_asks_for_again_has_the_same_token_and_a_new_deadline():
    """
    The step that handed the token out is not repeated, so whoever has it can still answer.
    """
    world = begun(order())
    world.happen()
    fail(world, "0", ValueError("declined"))
    assert isinstance(world.events[-1], RunFailed)
    retried = [*world.events, history.reopened(world.events, world.now + 500)]
    other = World(order(), now=world.now + 500)
    other.begin(retried)
    assert kinds(other.events[len(retried) :]) == ["CallbackOpened 0"]
    first, second = world.events[1], other.events[-1]
    assert isinstance(first, CallbackOpened)
    assert isinstance(second, CallbackOpened)
    assert second.nonce == first.nonce
    assert second.fire_at == first.fire_at + world.now + 500 - START
    complete(other, "0", Payment("p", 1))
    assert other.value() == {"id": "p", "cents": 1}


def test_another_attempt_of_the_run_has_another_token():
    """
    Its steps run again and hand out the new one; the answer to the old one would be to a question of then.
    """
    nonces = {make_nonce("key", "r", "0", attempt) for attempt in (1, 2)}
    assert len(nonces | {make_nonce("key", "r", "1", 1), make_nonce("other file", "r", "0", 1)}) == 4


def test_a_fork_waits_by_a_token_of_its_own():
    """
    The nonce is copied with the command, and the id is another: the answer to the one goes nowhere near the other.
    """
    world = begun(order())
    forked = history.fork(world.events, run_id="r", at="1", replace={}, now=world.now)
    tokens = set()
    for run_id, events in (("r", world.events), ("fork", forked)):
        ex = execution(order(), events, run_id=run_id)
        action = ex.advance([], now=world.now).steps if run_id == "fork" else world.decisions[0].steps
        tokens |= {action[0].op.args[0]}
        ex.close()
    assert {read_token(token).run_id for token in tokens} == {"r", "fork"}


def test_a_fork_may_replace_the_answer():
    """
    As the outcome of a step: `run.fork(replace={position: value})`.
    """
    world = begun(order())
    world.happen()
    forked = history.fork(world.events, run_id="r", at="0", replace={"0": '{"id": "x", "cents": 9}'}, now=world.now)
    other = World(order(), run_id="fork")
    other.begin(forked)
    assert other.run_on() == {"id": "x", "cents": 9}


def test_what_a_history_waits_for_says_both_rows():
    """
    A copy of a run waits as the run did.
    """
    world = begun(order())
    waits = history.open_waits(world.events)
    assert [(wait.kind, wait.name, wait.fire_at) for wait in waits.timers.values()] == [
        ("callback", "payment", START + 60)
    ]
    assert waits.heartbeats == {"0": 10}
    answered = history.open_waits([*world.events, CallbackCompleted("0", "1", START)])
    assert (answered.timers, answered.heartbeats) == ({}, {})


def test_another_name_or_another_callback_is_a_divergence():
    """
    Its name is what it is known by, as a signal's is; what it is read as may change.
    """

    @workflow(name="order")
    async def renamed() -> Flow[Payment]:
        payment = yield callback("refund", Payment)
        yield Return(payment)

    @workflow(name="order")
    async def retyped() -> Flow[Any]:
        payment = yield callback("payment", dict, timeout=1)
        yield hand_out(payment.token)
        yield Return((yield payment))

    world = begun(order())
    with pytest.raises(NondeterminismError, match="callback 'payment'"):
        execution(renamed(), world.events)
    execution(retyped(), world.events).close()


def test_a_handle_of_another_run_is_refused():
    """
    It can get there by a global variable alone.
    """
    kept = []

    @workflow
    async def sharing() -> Any:
        mine = await callback()
        kept.append(mine)
        return await kept[0]

    first, second = begun(sharing(), run_id="a"), World(sharing(), run_id="b")
    second.begin()
    assert not first.ended
    with pytest.raises(UsageError, match="of run 'a' cannot be awaited in run 'b'"):
        second.value()


def test_all_forms_of_a_callback_read_naturally():
    """
    A name, a type, both, or neither; and seconds as numbers or timedeltas.
    """
    made = [
        callback(),
        callback("payment"),
        callback(Payment),
        callback("payment", Payment),
        callback(type=Payment),
        callback(name="payment", type=Payment, timeout=timedelta(minutes=1), heartbeat=timedelta(seconds=5)),
        callback(list[int] | None),
        callback(None),
    ]
    assert [(op.name, op.type) for op in made] == [
        ("", Any),
        ("payment", Any),
        ("", Payment),
        ("payment", Payment),
        ("", Payment),
        ("payment", Payment),
        ("", list[int] | None),
        ("", None),
    ]
    assert (made[5].timeout, made[5].heartbeat) == (60.0, 5.0)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: callback(Payment, "payment"), "takes a name and a type"),
        (lambda: callback("payment", "Payment"), "takes a type, found str"),
        (lambda: callback(hand_out("x")), "takes a type, found a call of step"),
        (lambda: callback("payment", timeout=0), "positive number of seconds, found 0"),
        (lambda: callback("payment", heartbeat=float("inf")), "positive number of seconds, found inf"),
        (lambda: callback("payment", timeout="60"), "positive number of seconds, found '60'"),
    ],
)
def test_a_wrong_callback_is_refused_where_it_is_written(make, words):
    """
    Not at 3 a.m.
    """
    with pytest.raises((TypeError, ValueError), match=words):
        make()


async def test_outside_of_workflows_there_is_none():
    """
    A step gets the token as an argument.
    """
    with pytest.raises(UsageError, match="in workflow code only"):
        await callback("payment")


@pytest.mark.parametrize("run_id", ["r", "ride/3.1@2", "Ä ö/€ 漢字", "x" * 300])
def test_a_token_says_where_it_leads_and_is_safe_in_a_url(run_id):
    """
    Letters, digits, - and _ alone; read back as what it was made of.
    """
    nonce = make_nonce("key", run_id, "3.1", 1)
    token = make_token(run_id, "3.1", nonce)
    assert read_token(token) == (run_id, "3.1", nonce)
    assert all((each.isalnum() and each.isascii()) or each in "-_" for each in token)


def test_a_token_that_was_cut_off_or_changed_is_none():
    """
    No part of one is taken for another.
    """
    token = make_token("r", "0", make_nonce("key", "r", "0", 1))
    for wrong in [token[:end] for end in range(len(token) - 1)] + [token + "A", token + "=", " " + token, "cb1_$$$"]:
        try:
            found = read_token(wrong)
        except TokenMalformedError:
            continue
        assert found.run_id != "r"


def test_tokens_are_read_as_they_were_ever_written():
    """
    Others keep them for months: this one is of the first release that had them.
    """
    assert read_token("cb1_AAECAwQFBgcICQoLMy4xIHI") == ("r", "3.1", "AAECAwQFBgcICQoL")


@pytest.mark.parametrize(
    "event",
    [
        CallbackOpened("0", "payment", 5.0, None, "Payment", "AAECAwQFBgcICQoL", "a.py:1", 1.0),
        CallbackCompleted("0", "1", 1.0),
        CallbackFailed("0", "{}", 1.0),
        HeartbeatMissed("0", 1.0),
    ],
)
def test_events_are_read_back(event):
    """
    Kind numbers and bodies are on disk for ever.
    """
    assert from_row(*to_row(event), 1.0) == event


def test_errors_of_callbacks_are_timeouts_and_type_errors_too():
    """
    Who catches what Python raises for such things catches these.
    """
    assert issubclass(HeartbeatMissedError, TimeoutError)
    assert issubclass(CallbackValueError, TypeError)
    assert inspect.isclass(TokenMalformedError)

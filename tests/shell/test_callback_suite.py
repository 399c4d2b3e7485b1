"""
The callback cases of a public conformance suite (AWS durable execution: 4-1 to 4-19 and 7-1 to 7-15), as they
read here.

There, "wait for callback" is an operation of its own; here it is the helper `ask`, three lines.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import frozen

from durable import Flow, HeartbeatMissedError, Return, callback, gather, sleep, step, workflow
from durable._core.journal.events import CallbackOpened
from durable._core.program.tokens import make_token

pytestmark = pytest.mark.anyio


class RejectedError(Exception):
    """
    What the outside reports.
    """


@frozen
class Stamped:
    at: datetime
    count: int


REJECTED = RejectedError("not approved")
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


@step
async def submit(_token: str) -> None:
    """
    Hands the token to the outside.
    """


@step(retry=2)
async def broken_submit(_token: str) -> None:
    raise ConnectionError("no route")


@step
async def fixed() -> str:
    return "fixed"


async def ask(name: str = "", type_: Any = Any, via: Callable[[str], Awaitable[None]] = submit, **options: Any) -> Any:
    """
    A callback, its token handed out by a step, and the answer.
    """
    handle = await callback(name, type_, **options)
    await via(handle.token)
    return await handle


# --- 4: callbacks -------------------------------------------------------------------------------------------


@workflow
async def one(name: str, timeout: float | None = None, heartbeat: float | None = None) -> Flow[Any]:
    handle = yield callback(name, timeout=timeout, heartbeat=heartbeat)
    yield Return((yield handle))


@workflow
async def behind_a_step(name: str, timeout: float | None = None) -> Flow[Any]:
    handle = yield callback(name, timeout=timeout)
    yield fixed()
    yield Return((yield handle))


@workflow
async def behind_a_wait(name: str, seconds: float, timeout: float | None = None) -> Flow[Any]:
    handle = yield callback(name, timeout=timeout)
    yield sleep(seconds)
    yield Return((yield handle))


@workflow
async def before_a_wait(name: str) -> Flow[Any]:
    handle = yield callback(name)
    answer = yield handle
    yield sleep(2)
    yield Return(answer)


@workflow
async def caught(name: str, timeout: float | None = None) -> Flow[str]:
    handle = yield callback(name, timeout=timeout)
    try:
        yield handle
    except (RejectedError, TimeoutError) as error:
        message = f"caught {type(error).__name__}"
    yield sleep(2)
    yield Return(message)


@workflow
async def stamped(name: str) -> Flow[datetime]:
    handle = yield callback(name, Stamped)
    answer: Stamped = yield handle
    yield Return(answer.at)


@workflow
async def doubled(name: str) -> Flow[list[int]]:
    handle = yield callback(name, int)
    count: int = yield handle
    yield Return([count, count * 2])


@workflow
async def in_turn(a: str, b: str) -> Flow[list[Any]]:
    first = yield (yield callback(a))
    second = yield (yield callback(b))
    yield Return([first, second])


@workflow
async def both(a: str, b: str, backwards: bool = False) -> Flow[list[Any]]:
    first, second = yield gather(callback(a), callback(b))
    answers = {}
    for name, handle in reversed([(a, first), (b, second)]) if backwards else [(a, first), (b, second)]:
        answers[name] = yield handle
    yield Return([answers[a], answers[b]])


# --- 7: wait for callback -----------------------------------------------------------------------------------


@workflow
async def asks(name: str = "", timeout: float | None = None, heartbeat: float | None = None) -> Any:
    return await ask(name, timeout=timeout, heartbeat=heartbeat)


@workflow
async def recovers(name: str, timeout: float | None = None) -> str:
    try:
        return str(await ask(name, timeout=timeout))
    except RejectedError:
        return "recovered"
    except TimeoutError:
        return "timed-out-handled"


@workflow
async def submits_in_vain(name: str) -> Any:
    return await ask(name, via=broken_submit)


@workflow
async def nested(name: str) -> Any:
    (answer,) = await gather(ask(name))
    return answer


@workflow
async def two() -> Any:
    await ask("first")
    return await ask("second")


@workflow
async def interleaved(name: str) -> Any:
    await sleep(1)
    await fixed()
    return await ask(name)


@workflow
async def status_of(name: str) -> str:
    return (await ask(name, dict[str, str]))["status"]


DEFINITIONS = [
    one, behind_a_step, behind_a_wait, before_a_wait, caught, stamped, doubled, in_turn, both, asks, recovers,
    submits_in_vain, nested, two, interleaved, status_of,
]  # fmt: skip
OPENED, AWAITED, DONE, FAILED = "CallbackOpened", "CallbackAwaited", "CallbackCompleted", "CallbackFailed"
STEP, SLEPT = ("StepStarted", "StepSucceeded"), ("TimerSet", "TimerFired")
OVER, MISSED = "TimerFired", "HeartbeatMissed"
SUBMITTED = (OPENED, *STEP, AWAITED)
GOOD, BAD = "RunSucceeded", "RunFailed"

#: Case -> the call, what happens outside ("name=" completes, "name!" fails, "name~" keeps alive; a number is seconds),
#: what it comes to, and its history.
CASES: dict[str, tuple[Any, list[Any], Any, tuple[str, ...]]] = {
    "4-1": (one("c"), [("c=", "ok")], "ok", (OPENED, AWAITED, DONE, GOOD)),
    "4-2": (one("approval"), [("approval=", "ok")], "ok", (OPENED, AWAITED, DONE, GOOD)),
    "4-3": (one("c", 5), [6], TimeoutError, (OPENED, AWAITED, OVER, BAD)),
    "4-4": (one("c", None, 5), [6], HeartbeatMissedError, (OPENED, AWAITED, MISSED, BAD)),
    "4-5": (one("c", None, 10), [8, "c~", 8, ("c=", "ok")], "ok", (OPENED, AWAITED, DONE, GOOD)),
    "4-6": (one("c"), [("c!", REJECTED)], RejectedError, (OPENED, AWAITED, FAILED, BAD)),
    "4-7": (behind_a_step("c"), [("c!", REJECTED)], RejectedError, (OPENED, *STEP, AWAITED, FAILED, BAD)),
    "4-8": (behind_a_step("c", 5), [6], TimeoutError, (OPENED, *STEP, AWAITED, OVER, BAD)),
    "4-9": (behind_a_wait("c", 5), [("c=", "ok"), 6], "ok", (OPENED, "TimerSet", DONE, OVER, AWAITED, GOOD)),
    "4-10": (behind_a_wait("c", 5), [("c!", REJECTED), 6], RejectedError,
             (OPENED, "TimerSet", FAILED, OVER, AWAITED, BAD)),
    "4-11": (behind_a_wait("c", 6, 3), [4, 3], TimeoutError, (OPENED, "TimerSet", OVER, OVER, AWAITED, BAD)),
    "4-12": (before_a_wait("c"), [("c=", "ok"), 3], "ok", (OPENED, AWAITED, DONE, *SLEPT, GOOD)),
    "4-13": (caught("c"), [("c!", REJECTED), 3], "caught RejectedError", (OPENED, AWAITED, FAILED, *SLEPT, GOOD)),
    "4-14": (caught("c", 3), [4, 3], "caught TimeoutError", (OPENED, AWAITED, OVER, *SLEPT, GOOD)),
    "4-15": (stamped("c"), [("c=", Stamped(WHEN, 1))], WHEN, (OPENED, AWAITED, DONE, GOOD)),
    "4-16": (doubled("c"), [("c=", 21)], [21, 42], (OPENED, AWAITED, DONE, GOOD)),
    "4-17": (in_turn("a", "b"), [("a=", 1), ("b=", 2)], [1, 2], (OPENED, AWAITED, DONE) * 2 + (GOOD,)),
    "4-18": (both("a", "b"), [("a=", 1), ("b=", 2)], [1, 2],
             ("GroupOpened", OPENED, OPENED, AWAITED, DONE, AWAITED, DONE, GOOD)),
    "4-19": (both("a", "b", True), [("b=", 2), ("a=", 1)], [1, 2],
             ("GroupOpened", OPENED, OPENED, AWAITED, DONE, AWAITED, DONE, GOOD)),
    "7-1": (asks("c"), [("c=", "ok")], "ok", (*SUBMITTED, DONE, GOOD)),
    "7-2": (asks("approval"), [("approval=", "ok")], "ok", (*SUBMITTED, DONE, GOOD)),
    "7-3": (asks(), [("=", "ok")], "ok", (*SUBMITTED, DONE, GOOD)),
    "7-4": (asks("c"), [("c!", REJECTED)], RejectedError, (*SUBMITTED, FAILED, BAD)),
    "7-5": (asks("c", 3), [4], TimeoutError, (*SUBMITTED, OVER, BAD)),
    "7-6": (recovers("c"), [("c!", REJECTED)], "recovered", (*SUBMITTED, FAILED, GOOD)),
    "7-7": (submits_in_vain("c"), [2], ConnectionError,
            (OPENED, "StepStarted", "StepRetrying", OVER, "StepStarted", "StepFailed", BAD)),
    "7-8": (nested("c"), [("c=", "ok")], "ok", ("GroupOpened", *SUBMITTED, DONE, GOOD)),
    "7-9": (two(), [("first=", 1), ("second=", 2)], 2, (*SUBMITTED, DONE, *SUBMITTED, DONE, GOOD)),
    "7-10": (interleaved("c"), [2, ("c=", "ok")], "ok", (*SLEPT, *STEP, *SUBMITTED, DONE, GOOD)),
    "7-11": (status_of("c"), [("c=", {"status": "approved"})], "approved", (*SUBMITTED, DONE, GOOD)),
    "7-12": (asks("c", None, 5), [6], HeartbeatMissedError, (*SUBMITTED, MISSED, BAD)),
    "7-13": (asks("c", None, 10), [8, "c~", 8, ("c=", "ok")], "ok", (*SUBMITTED, DONE, GOOD)),
    "7-14": (recovers("c", 3), [4], "timed-out-handled", (*SUBMITTED, OVER, GOOD)),
    "7-15": (asks("c"), [("c=", None)], None, (*SUBMITTED, DONE, GOOD)),
}  # fmt: skip


async def _token(run, name):
    """
    The token of the latest callback called *name*.
    """
    opened = [each.event for each in await run.history() if isinstance(each.event, CallbackOpened)]
    last = next(event for event in reversed(opened) if event.name == name)
    return make_token(run.id, last.position, last.nonce)


async def _happen(engine, run, what, clock):
    match what:
        case (str(name), answer) if name.endswith("="):
            await engine.complete(await _token(run, name[:-1]), answer)
        case (str(name), error):
            await engine.fail(await _token(run, name[:-1]), error)
        case str(name):
            await engine.heartbeat(await _token(run, name[:-1]))
        case _:
            clock.advance(what)


@pytest.mark.parametrize("case", CASES)
async def test_case(case, engines, clock):
    """
    Each reads as its description does; what happens outside finds the run freed.
    """
    op, happens, expected, history = CASES[case]
    engine = await engines.memory(*DEFINITIONS, clock=clock)
    run = await engine.start(op)

    for each in happens:
        await engine.idle()
        await _happen(engine, run, each, clock)
    if isinstance(expected, type):
        with pytest.raises(Exception, match="failed") as found:
            await run.result(5)
        assert type(found.value.__cause__) is expected
    else:
        assert await run.result(5) == expected
    assert tuple(each.kind for each in await run.history())[1:] == history

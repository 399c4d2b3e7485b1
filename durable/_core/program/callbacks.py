"""
`callback`: a token that somebody outside completes, fails or keeps alive, and the wait for that.

Unlike a `wait_for`, which takes any signal of a name, it is one question to one party: its answer fits nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar, overload

from attrs import field

from durable._core.light_frozen import late_frozen, light_frozen
from durable._core.policies.retry import is_number
from durable._core.program import current_driver
from durable._core.program.definition import check_name
from durable._core.program.ops import Op, in_seconds, kind_of
from durable._core.program.tokens import make_token
from durable.errors import UsageError

T = TypeVar("T")

#: Not given, where None is a type.
_NOTHING: Final[Any] = object()


@late_frozen(eq=False)
class Callback(Op[T], Generic[T]):
    """
    A callback that exists. Hand its ``token`` to somebody outside, by a step; yield or await it for the answer.

    It may be awaited more than once, and be a member of `race`, `gather`, `timeout`, `wait_first` and `settle`: who
    stops waiting for it leaves it open, and an answer that came meanwhile is kept.

    Raises (when yielded or awaited):
        TimeoutError: Nobody answered in time: counted from when it was made.
        HeartbeatMissedError: Whoever is to answer was silent for too long. It is a TimeoutError, too.
        CallbackFailedError: It was failed with a text. Failed with an exception, it raises that.
        CallbackValueError: The answer is not of its type, and no engine was there to refuse it.

    Example:
        >>> handed_out = []
        >>> @workflow
        ... async def order() -> int:
        ...     paid = await callback("paid", int, timeout=86_400)
        ...     handed_out.append(paid.token)  # in earnest a step gives it to somebody
        ...     return await paid
        >>> async with Engine(":memory:", [order]) as engine:
        ...     run = await engine.start(order())
        ...     await engine.idle()
        ...     await engine.complete(handed_out[0], 500)
        ...     await run.result()
        True
        500
    """

    run_id: str
    position: str
    #: The part of its token that nobody guesses.
    nonce: str = field(repr=False)
    name: str = ""
    site: current_driver.CallSite | None = field(default=None, repr=False)

    @property
    def token(self) -> str:
        """For the one who is to answer, safe in a URL. Anyone who has it may answer, so treat it as a password."""
        return make_token(self.run_id, self.position, self.nonce)

    def describe(self) -> str:
        return f"answer to callback {self.name!r}" if self.name else f"answer to the callback at {self.position}"


@light_frozen(eq=False)
class CallbackOp(Op[Callback[T]]):
    """Makes a callback."""

    name: str
    type: Any
    timeout: float | None
    heartbeat: float | None
    site: current_driver.CallSite | None = None

    def describe(self) -> str:
        return f"callback {self.name!r}" if self.name else "callback"

    def _call_plain(self) -> Any:
        msg = f"{self.describe()} works in workflow code only: a step gets callback.token as an argument"
        raise UsageError(msg)


_Seconds = float | timedelta | None


@overload
def callback(name: str, type: type[T], *, timeout: _Seconds = ..., heartbeat: _Seconds = ...) -> CallbackOp[T]: ...
@overload
def callback(name: type[T], *, timeout: _Seconds = ..., heartbeat: _Seconds = ...) -> CallbackOp[T]: ...
@overload
def callback(*, type: type[T], timeout: _Seconds = ..., heartbeat: _Seconds = ...) -> CallbackOp[T]: ...
@overload
def callback(
    name: Any = ..., type: Any = ..., *, timeout: _Seconds = ..., heartbeat: _Seconds = ...
) -> CallbackOp[Any]: ...
def callback(
    name: Any = _NOTHING, type: Any = _NOTHING, *, timeout: _Seconds = None, heartbeat: _Seconds = None
) -> CallbackOp[Any]:
    """
    A `Callback`, at once: its ``token`` is for somebody outside, who answers it, and yielding it waits for that.

        payment = yield callback(Payment, timeout=3600)
        yield ask_bank(payment.token)
        paid: Payment = yield payment

    It is answered by ``await engine.complete(token, value)`` or ``await engine.fail(token, error)``, also of a `Client`
    or `Service`, or by ``durable complete``: once. What is not of the type is refused there, and it stays open.

    Args:
        name: What people read, in `why()` and in the history. May be left out: ``callback(Payment)``.
        type: What the answer is read as; anything, unless it is given.
        timeout: Seconds (or a timedelta) within which it must be answered, counted from now.
        heartbeat: Seconds (or a timedelta) for which the one who answers may be silent, counted from now, then from
            each ``await engine.heartbeat(token)``.

    Example:
        >>> handed_out = []
        >>> @workflow
        ... async def order() -> int:
        ...     paid = await callback("paid", int, timeout=86_400)
        ...     handed_out.append(paid.token)  # in earnest a step gives it to somebody
        ...     return await paid
        >>> async with Engine(":memory:", [order]) as engine:
        ...     run = await engine.start(order())
        ...     await engine.idle()
        ...     await engine.complete(handed_out[0], 500)
        ...     await run.result()
        True
        500
    """
    if name is not _NOTHING and not isinstance(name, str):
        if type is not _NOTHING:
            msg = f"callback takes a name and a type, or a type alone; found {kind_of(name)} for a name"
            raise TypeError(msg)
        name, type = "", name  # noqa: A001 - as the parameter
    given = "" if name is _NOTHING else name
    label = given and check_name("the name of a callback", given)
    read_as = Any if type is _NOTHING else type
    if isinstance(read_as, (str, Mapping, bytes, int, float, Op)):
        msg = f"callback(type=) takes a type, found {kind_of(read_as)}"
        raise TypeError(msg)
    op: CallbackOp[Any] = CallbackOp(
        label, read_as, _positive(timeout, "timeout"), _positive(heartbeat, "heartbeat"), current_driver.call_site()
    )
    current_driver.created(op)
    return op


def _positive(value: _Seconds, what: str) -> float | None:
    seconds: Any = in_seconds(value)
    if seconds is not None and not (is_number(seconds) and 0 < seconds < float("inf")):
        msg = f"callback({what}=) takes a positive number of seconds, found {value!r:.60}"
        raise ValueError(msg)
    return None if seconds is None else float(seconds)

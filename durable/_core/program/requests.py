"""
Requests into a running run: what is asked from outside with `run.ask`, and is answered by the workflow.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar, overload

from attrs import field

from durable._core.light_frozen import late_frozen, light_frozen
from durable._core.program import current_driver
from durable._core.program.ops import Op, Signal, WaitForOp, kind_of

Q = TypeVar("Q")
A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)


class Request(Generic[Q, A_co]):
    """
    The name of a request, the type of its question and that of its answer: one object for both ends.

    ``answer = await run.ask(approve, Question(...))`` where it is asked. In the workflow ``asked = await
    wait_for(approve)``, then ``await asked.reply(Answer(...))`` or ``await asked.refuse("why")``.

    Example:
        >>> approve = Request("approve", str, bool)
        >>> @workflow
        ... async def order() -> str:
        ...     asked = await wait_for(approve)
        ...     await asked.reply(asked.value == "ada")
        ...     return asked.value
        >>> async with Engine(":memory:", [order]) as engine:
        ...     run = await engine.start(order())
        ...     await run.ask(approve, "ada")
        True
    """

    __slots__ = ("answer", "name", "question")

    @overload
    def __init__(self, name: str, question: type[Q], answer: type[A_co]) -> None: ...
    @overload
    def __init__(self: Request[Any, Any], name: str, question: Any = ..., answer: Any = ...) -> None: ...
    def __init__(self, name: str, question: Any = Any, answer: Any = Any) -> None:
        given: Any = name
        if not isinstance(given, str) or not given:
            msg = f"Request takes the name of a request, found {kind_of(given)}"
            raise TypeError(msg)
        self.name: Final = name
        #: The types of what is asked, and of what is answered.
        self.question: Final = question
        self.answer: Final = answer

    def __repr__(self) -> str:
        question, answer = (getattr(each, "__qualname__", each) for each in (self.question, self.answer))
        return f"Request({self.name!r}, {question}, {answer})"


def name_of(given: str | Signal[Any] | Request[Any, Any]) -> str:
    """The name under which it is sent and waited for."""
    return given if isinstance(given, str) else given.name


@late_frozen(eq=False)
class Asked(Generic[Q, A]):
    """
    A request that the workflow has taken in: its question is the *value*. It is answered once.

    Example:
        >>> approve = Request("approve", str, bool)
        >>> @workflow
        ... async def order() -> str:
        ...     asked = await wait_for(approve)
        ...     await asked.reply(asked.value == "ada")
        ...     return asked.value
        >>> async with Engine(":memory:", [order]) as engine:
        ...     run = await engine.start(order())
        ...     await run.ask(approve, "ada")
        True
    """

    value: Q
    #: Its id in the journal.
    id: str
    request: Request[Q, A] = field(repr=False)

    def reply(self, answer: A) -> ReplyOp:
        """
        Answer it. Who asks has the answer once the turn is on disk that this is yielded or awaited in.

        Raises (when yielded or awaited):
            UsageError: It was answered or refused before.
            EncodeError: The answer cannot be recorded, or is not of the request's type. Nothing was answered.
        """
        return self._end(answer, refused=False)

    def refuse(self, reason: str) -> ReplyOp:
        """
        Answer it with `RequestRefusedError`, which says why.

        Raises (when yielded or awaited):
            UsageError: It was answered or refused before.
        """
        given: Any = reason
        if not isinstance(given, str):
            msg = f"refuse takes a text that says why, found {kind_of(given)}"
            raise TypeError(msg)
        return self._end(reason, refused=True)

    def _end(self, value: Any, *, refused: bool) -> ReplyOp:
        op = ReplyOp(self, value, refused, current_driver.call_site(depth=3))
        current_driver.created(op)
        return op


@light_frozen(eq=False)
class WaitForRequestOp(WaitForOp[Asked[Q, A]]):
    """Waits for the next request of a name."""

    request: Request[Q, A] = field(kw_only=True)


@light_frozen(eq=False)
class ReplyOp(Op[None]):
    """Answers a request, or refuses it."""

    asked: Asked[Any, Any]
    #: The answer; the reason, if it is *refused*.
    value: Any
    refused: bool
    site: current_driver.CallSite | None = None

    def describe(self) -> str:
        return f"{'refusal of' if self.refused else 'reply to'} request {self.asked.request.name!r}"

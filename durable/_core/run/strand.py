"""
Resumes user code: the only module that does.

A *strand* is one thread of a workflow's control: the body, or a helper coroutine that is a
member of a group. `resume` sends one outcome in and runs the code, synchronously, to its
next command or its end. No event loop is involved.

How an async generator is driven: `_driven` delegates to ``agen.asend(value)``, so that a ``yield`` and an ``await op``
inside both come out of its ``send`` (an op's ``__await__`` yields the op itself), and what is sent in next goes
where the code stands. To catch the `StopIteration` by which a ``yield`` leaves ``asend`` would take twice as long.
What comes out of an ``await`` and is no op is a foreign await: our error is thrown into the awaitable, so that the
traceback ends at the user's own line.

The engine holds the only reference to a generator. It is begun with asyncio's hooks for
async generators set aside, so no event loop closes it behind our back, and `close` runs in a
dead mode in which every command is refused.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, Coroutine, Generator
from types import FrameType
from typing import Any, cast

from durable._core.codec.exceptions.safe_text import name_of, shown
from durable._core.program import current_driver
from durable._core.program.command import Command
from durable._core.program.group_ops import AsCompleted, discard
from durable._core.program.ops import Return, ReturnReached
from durable.errors import NotDurableError

#: A generator that keeps yielding while it is closed is given up after this many refusals.
_MAX_REFUSALS = 100


class Strand:
    """One thread of a workflow's control, and the numbering of its commands."""

    __slots__ = (
        "_agen",
        "_code",
        "_returns",
        "commands",
        "draws",
        "prefix",
        "raised",
        "value",
    )

    def __init__(self, code: AsyncGenerator[Any, Any] | Coroutine[Any, Any, Any], prefix: str) -> None:
        #: The generator, and what drives it once it has begun; or a coroutine, which drives itself. None once closed.
        self._agen: AsyncGenerator[Any, Any] | None = None
        self._code: Generator[Any, Any, Any] | Coroutine[Any, Any, Any] | None = None
        if inspect.isasyncgen(code):
            self._agen = code
        else:
            self._code = code  # type: ignore[assignment]  # what is not an async generator is a coroutine here
        self._returns = 0
        #: How it ended.
        self.value: Any = None
        self.raised: BaseException | None = None
        #: Where its commands are numbered: "" for the body, "3.1" for a helper in group 3.
        self.prefix = prefix
        #: Commands asked for so far.
        self.commands = 0
        #: Random values drawn since the last command, so that one more call shifts nothing later.
        self.draws = 0

    def position(self) -> str:
        """The position of the next command."""
        return f"{self.prefix}.{self.commands}" if self.prefix else str(self.commands)

    def next_position(self) -> str:
        """Take the position of the next command."""
        number = self.commands  # as `position`, which asks for a call: this is asked for every command of a replay
        position = f"{self.prefix}.{number}" if self.prefix else str(number)
        self.commands = number + 1
        self.draws = 0
        return position

    def resume(self, value: Any, error: BaseException | None) -> Command | None:
        """
        Give the code the outcome of its last command, and run it to the next one.

        None once it has ended; see *value* and *raised*.
        """
        while True:
            code = self._code
            try:
                if code is None:
                    found = self._begin(error)
                elif error is None:
                    found = code.send(value)
                else:
                    found = self._raise(code, error)
            except BaseException as raised:  # noqa: BLE001 - user code may raise anything; the caller sorts it
                self._end(raised)
                error = None  # its traceback may hold this frame: a cycle, and work for the collector
                return None
            if isinstance(found, Command):
                return found
            value, error = None, self._refused(found)
            if error is None:
                return None

    def _begin(self, error: BaseException | None) -> Any:
        """Begin a generator, with *error* if there is one. What it asks for."""
        agen = self._agen
        if agen is None:
            return _CLOSED
        self._code = _driven(agen, _first_awaitable(agen, error))
        error = None  # its traceback will hold this frame
        return self._code.send(None)

    def _raise(self, code: Generator[Any, Any, Any] | Coroutine[Any, Any, Any], error: BaseException) -> Any:
        """Raise *error* where the code stands. What it asks for then."""
        agen = self._agen
        try:
            if agen is None or _awaited_in(code) is not None:
                return code.throw(error)
            self._code = _driven(agen, agen.athrow(error))  # rather than through *code*, which its traceback would pass
            return self._code.send(None)
        finally:
            del error  # its traceback holds this frame: a cycle

    def _end(self, raised: BaseException) -> None:
        """Note how the code has ended."""
        kind = type(raised)  # asked itself what class it is, an exception of the user's may raise another
        if self._agen is not None:
            if issubclass(kind, (StopAsyncIteration, ReturnReached)):
                raised.__traceback__ = None  # of nobody's interest, and its frames hold the error: a cycle
                return
        elif issubclass(kind, StopIteration):
            self.value = cast("StopIteration", raised).value
            return
        self.raised = raised

    def _refused(self, found: object) -> BaseException | None:
        """What to raise where the code asked for *found*, which is no command; None if it is resumed no more."""
        if found is _CLOSED:
            return None
        if self._agen is None or self._code is None or _awaited_in(self._code) is not None:
            return _not_durable(found)
        if not isinstance(found, Return):
            return _not_an_op(found)
        self.value = found.value
        self._returns += 1
        if self._returns > _MAX_REFUSALS:  # a loop that swallows every end would run for ever
            self.close()
            return None
        return ReturnReached()

    def frames(self) -> list[FrameType]:
        """Where its code stands: its frame, then those of the helpers that it awaits; none once it ended."""
        found: list[FrameType] = []
        code: Any = self._code if self._agen is None else self._agen
        while code is not None:
            kind = "ag" if inspect.isasyncgen(code) else "cr" if inspect.iscoroutine(code) else ""
            frame = getattr(code, f"{kind}_frame", None)
            if frame is None:  # the op itself, or something that shows no frames
                break
            found.append(frame)
            code = getattr(code, f"{kind}_await")
        return found

    def close(self) -> None:
        """Close the code and never resume it, in dead mode: whatever its `finally` blocks ask for is refused."""
        with current_driver.dead_mode():
            awaited = None if self._agen is None or self._code is None else _awaited_in(self._code)
            for _ in range(_MAX_REFUSALS):
                ended, awaited = self._close_once(awaited)
                if ended:
                    break
            # Still in dead mode: code that refused to end is finalised here, by its last reference.
            self._agen = self._code = awaited = None

    def _close_once(self, awaited: Any) -> tuple[bool, Any]:
        """Raise GeneratorExit where the code stands; whether it has ended, and what it awaits where it has not."""
        closing: Any = None
        try:
            if self._code is None:  # it has not begun
                pass
            elif self._agen is None:
                self._code.close()
            elif awaited is not None:
                awaited.throw(GeneratorExit())  # if this returns, it awaits something foreign
                return False, awaited
            else:
                # Not aclose: what is yielded would be lost with it, and helpers in it complain.
                closing = self._agen.athrow(GeneratorExit())
                closing.send(None)
                return False, closing
        except StopIteration as yielded:
            discard(yielded.value)
            return False, None
        except RuntimeError as refused:
            return "ignored GeneratorExit" not in str(refused), awaited
        except BaseException:  # noqa: BLE001 - a dying generator's last words change nothing
            return True, None
        finally:
            closing = None  # it holds what was raised, whose traceback holds this frame: no cycle
        return True, None


#: In place of what a strand asks for that was closed.
_CLOSED = object()


def _driven(agen: AsyncGenerator[Any, Any], awaitable: Any) -> Generator[Any, Any, None]:
    """Gives what *agen* yields, and what it awaits; begins with what *awaitable*, of *agen*, leads to."""
    while True:
        try:
            asked = yield from awaitable
        finally:
            del awaitable  # it keeps what was sent or raised: else as long as the code waits, or in a cycle
        awaitable = agen.asend((yield asked))
        del asked


def _awaited_in(driven: Any) -> Any:
    """What the generator is in that is *driven*, if it stands at an ``await``; None if it stands at a ``yield``."""
    return driven.gi_yieldfrom


def _first_awaitable(agen: AsyncGenerator[Any, Any], error: BaseException | None) -> Any:
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:  # only here, since hooks are read when the first awaitable is made
        return agen.asend(None) if error is None else agen.athrow(error)
    finally:
        sys.set_asyncgen_hooks(*hooks)


_A_MOCK = (
    "a mock returned: it stands in the place of a step or job, which makes ops. Put the mock in the place of its "
    "function: durable.testing.replaced(step, mock), or patch.object(step, 'fn', mock)"
)


def _not_an_op(found: object) -> TypeError:
    if inspect.iscoroutine(found):
        name = getattr(found, "__qualname__", "helper")
        found.close()
        if name.startswith("AsyncMock"):
            return TypeError(f"a workflow yields ops, found what {_A_MOCK}")
        return TypeError(f"a workflow yields ops, found the coroutine {name!r}: await a helper, do not yield it")
    if isinstance(found, AsCompleted):
        return TypeError("a workflow yields ops, found an as_completed: write async for result in as_completed(...)")
    if inspect.isasyncgen(found):
        return TypeError("a workflow yields ops, found an async generator: call a @workflow, or await a coroutine")
    if type(found).__module__ == "unittest.mock":
        return TypeError(f"a workflow yields ops, found what {_A_MOCK}")
    hint = " (call it)" if callable(found) else ""
    return TypeError(f"a workflow yields ops, found {name_of(found)} {shown(found, 80)}{hint}")


def _not_durable(value: object) -> NotDurableError:
    """The error for something awaited that is not an op, described so that the reader finds it."""
    kind = type(value)
    if inspect.iscoroutine(value) or inspect.isgenerator(value):
        found = f"the coroutine {getattr(value, '__qualname__', kind.__name__)!r}"
    elif kind.__module__.startswith(("asyncio", "_asyncio")) or value is None:
        found = "something of the event loop (asyncio.sleep, a socket, a lock, an anyio or asyncio call)"
    else:
        found = f"a foreign awaitable ({kind.__module__}.{kind.__qualname__})"
    return NotDurableError(found)

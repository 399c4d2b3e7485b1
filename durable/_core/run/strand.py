"""
Resumes user code: the only module that does.

A *strand* is one thread of a workflow's control: the body, or a helper coroutine that is a
member of a group. `resume` sends one outcome in and runs the code, synchronously, to its
next command or its end. No event loop is involved.

How an async generator is driven: ``step = agen.asend(x)`` and ``step.send(None)``. A ``yield``
arrives as `StopIteration.value`. An ``await op`` inside arrives as the value that ``send``
returns (an op's ``__await__`` yields the op itself), and the *same* ``step`` is then resumed
with the result. Anything else that comes out of ``send`` is a foreign await: our error is
thrown into the awaitable, so that the traceback ends at the user's own line.

The engine holds the only reference to a generator. It is begun with asyncio's hooks for
async generators set aside, so no event loop closes it behind our back, and `close` runs in a
dead mode in which every command is refused.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, Coroutine
from types import FrameType
from typing import Any

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
        "_coro",
        "_pending",
        "_returns",
        "_started",
        "commands",
        "draws",
        "prefix",
        "raised",
        "value",
    )

    def __init__(self, code: AsyncGenerator[Any, Any] | Coroutine[Any, Any, Any], prefix: str) -> None:
        self._agen: AsyncGenerator[Any, Any] | None = None
        self._coro: Coroutine[Any, Any, Any] | None = None
        if inspect.isasyncgen(code):
            self._agen = code
        else:
            self._coro = code  # type: ignore[assignment]  # what is not an async generator is a coroutine here
        self._pending: Any = None  # the awaitable of a generator that stands at an `await`
        self._started = False
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
        if self._coro is not None:
            return self._resume_coroutine(self._coro, value, error)
        if self._agen is not None:
            return self._resume_generator(self._agen, value, error)
        return None  # closed

    def _resume_coroutine(
        self, coroutine: Coroutine[Any, Any, Any], value: Any, error: BaseException | None
    ) -> Command | None:
        while True:
            try:
                found = coroutine.send(value) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                self.value = stop.value
                return None
            except BaseException as raised:  # noqa: BLE001 - user code may raise anything; the caller sorts it
                self.raised = raised
                return None
            if isinstance(found, Command):
                return found
            value, error = None, _not_durable(found)

    def _resume_generator(
        self, agen: AsyncGenerator[Any, Any], value: Any, error: BaseException | None
    ) -> Command | None:
        pending = self._pending
        while True:
            try:
                if pending is not None:
                    found = pending.send(value) if error is None else pending.throw(error)
                else:
                    pending = self._next_awaitable(agen, value, error)
                    found = pending.send(None)
            except StopIteration as stop:  # it yielded
                pending = None
                found = stop.value
                if isinstance(found, Command):
                    self._pending = None
                    return found
                if isinstance(found, Return):
                    self.value = found.value
                    self._returns += 1
                    if self._returns > _MAX_REFUSALS:  # a loop that swallows every end would run for ever
                        self.close()
                        return None
                    value, error = None, ReturnReached()
                else:
                    value, error = None, _not_an_op(found)
                continue
            except (StopAsyncIteration, ReturnReached):
                pending = error = None  # its traceback holds this frame: a cycle, and work for the collector
                return None
            except BaseException as raised:  # noqa: BLE001 - user code may raise anything; the caller sorts it
                self.raised = raised
                return None
            if isinstance(found, Command):
                self._pending = pending
                return found
            value, error = None, _not_durable(found)

    def _next_awaitable(self, agen: AsyncGenerator[Any, Any], value: Any, error: BaseException | None) -> Any:
        if self._started:
            return agen.asend(value) if error is None else agen.athrow(error)
        self._started = True
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)
        try:  # only here, since hooks are read when the first awaitable is made
            return agen.asend(None) if error is None else agen.athrow(error)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    def frames(self) -> list[FrameType]:
        """Where its code stands: its frame, then those of the helpers that it awaits; none once it ended."""
        found: list[FrameType] = []
        code: Any = self._agen if self._agen is not None else self._coro
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
            for _ in range(_MAX_REFUSALS):
                if self._close_once():
                    break
            # Still in dead mode: code that refused to end is finalised here, by its last reference.
            self._agen = self._coro = self._pending = None

    def _close_once(self) -> bool:
        """Raise GeneratorExit where the code stands; whether it has ended."""
        closing: Any = None
        try:
            if self._coro is not None:
                self._coro.close()
            elif self._pending is not None:
                self._pending.throw(GeneratorExit())  # if this returns, it awaits something foreign
                return False
            elif self._agen is not None and self._started:
                # Not aclose: what is yielded would be lost with it, and helpers in it complain.
                closing = self._agen.athrow(GeneratorExit())
                closing.send(None)
                self._pending = closing
                return False
        except StopIteration as yielded:
            self._pending = None
            discard(yielded.value)
            return False
        except RuntimeError as refused:
            return "ignored GeneratorExit" not in str(refused)
        except BaseException:  # noqa: BLE001 - a dying generator's last words change nothing
            return True
        finally:
            closing = None  # it holds what was raised, whose traceback holds this frame: no cycle
        return True


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

"""
Whether code stands in its clean-up, read from its bytecode: in a `finally`, an `except`, the end of an `async with`.

A step that was told to end may have a value all the same. The code gets it, and the cancellation is raised at the next
command. But where that is the clean-up, as in ``try: yield book()``, ``finally: yield unbook()``, raising it there
would leave what was done; so clean-up runs, and the first command behind it raises.

A `finally` is compiled twice: behind its `try`, and as a handler of exceptions. Both have the same place in the
source, which tells that the first is clean-up, too. Bytecode, because a frozen program has no source; only read.
"""

from __future__ import annotations

import dis
from collections.abc import Iterable
from types import CodeType, FrameType

from durable._core.run.divergence.lookahead import reachable

#: Where code waits for an `await`, GET_AWAITABLE is no more instructions away than that,
_WITHIN_AN_AWAIT = 4
#: and this is its argument where ``__aexit__`` is awaited.
_OF_AN_EXIT = 2


def in_clean_up(frames: Iterable[FrameType]) -> bool:
    """Whether code that stands at *frames* (its own, then those of the helpers that it awaits) cleans up."""
    return any(_cleans_up(frame.f_code, frame.f_lasti) for frame in frames)


def _cleans_up(code: CodeType, last: int) -> bool:
    instructions = list(dis.get_instructions(code))
    index = next((index for index, each in enumerate(instructions) if each.offset == last), None)
    if index is None:
        return False
    for each in instructions[max(index - _WITHIN_AN_AWAIT, 0) : index]:
        if each.opname == "GET_AWAITABLE" and each.arg == _OF_AN_EXIT:
            return True
    handled: set[int] = set()
    for each in instructions:
        if each.opname == "PUSH_EXC_INFO":
            handled |= reachable(instructions, each.offset, until="POP_EXCEPT")
    place = instructions[index].positions
    return any(each.offset in handled and each.positions == place for each in instructions)

"""
Exceptions that come from outside of the code that they are raised in.

A function that calls `sys.exit`, or raises `KeyboardInterrupt`, has failed: that is its own affair. But both come from
outside, too, anywhere between two instructions of it: by Ctrl-C, or by the handler of a signal that is to end the
program. These are for the program.
"""

from __future__ import annotations

import dis
import inspect
import types
from typing import Final

from durable._core.codec.exception_parts import traceback_of

_RAISE: Final = frozenset((dis.opmap["RAISE_VARARGS"], dis.opmap["RERAISE"]))


def came_from_outside(error: BaseException) -> bool:
    """
    Whether *error* interrupted the code, rather than being raised by it.

    What the handler of a signal raises passes the frame of the handler, which was given the frame that it
    interrupted. Python's own handler of Ctrl-C has no frame: what it raises comes from no ``raise``.
    """
    kind = type(error)
    if not issubclass(kind, (KeyboardInterrupt, SystemExit)):
        return False
    origin, link = None, traceback_of(error)
    while link is not None:
        if _handles_a_signal(link.tb_frame):
            return True
        origin, link = link, link.tb_next
    if origin is None or kind is not KeyboardInterrupt:
        return False
    return origin.tb_frame.f_code.co_code[origin.tb_lasti] not in _RAISE


def _handles_a_signal(frame: types.FrameType) -> bool:
    interrupted = frame.f_back
    if interrupted is None or not frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # no function, hence no handler
        return False
    for held in frame.f_locals.values():
        if held is interrupted or (type(held) is tuple and any(each is interrupted for each in held)):
            return True
    return False

"""
Where an exception comes from: the code that it was caught around, or somewhere else.

A function that calls `sys.exit`, or raises `KeyboardInterrupt`, has failed: that is its own affair. But both come from
outside, too, anywhere between two instructions of it: by Ctrl-C, or by the handler of a signal that is to end the
program. These are for the program.
"""

from __future__ import annotations

import dis
import inspect
import types
from typing import Final

from durable._core.codec.exceptions.parts import traceback_of
from durable._core.source_places import OURS

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
    link = traceback_of(error)
    while link is not None:
        if _handles_a_signal(link.tb_frame):
            return True
        link = link.tb_next
    origin = _origin(error)
    return kind is KeyboardInterrupt and origin is not None and not _raises(origin)


def is_the_users_own(error: BaseException) -> bool:
    """
    Whether a ``raise`` of somebody else's code made *error*, though its class is ours, or of a library of ours.

    What SQLite reports is raised by no statement, and what we report by one of ours.
    """
    origin = _origin(error)
    return origin is not None and _raises(origin) and not str.startswith(origin.tb_frame.f_code.co_filename, OURS)


def _origin(error: BaseException) -> types.TracebackType | None:
    """The innermost link of its traceback."""
    origin, link = None, traceback_of(error)
    while link is not None:
        origin, link = link, link.tb_next
    return origin


def _raises(link: types.TracebackType) -> bool:
    return link.tb_frame.f_code.co_code[link.tb_lasti] in _RAISE


def _handles_a_signal(frame: types.FrameType) -> bool:
    interrupted = frame.f_back
    if interrupted is None or not frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # no function, hence no handler
        return False
    for held in frame.f_locals.values():
        if held is interrupted or (type(held) is tuple and any(each is interrupted for each in held)):
            return True
    return False

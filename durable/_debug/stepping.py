"""
Python's own debugger inside a replay: line by line, from one stop to the next.
"""

from __future__ import annotations

import pdb  # noqa: T100 - opening it is what this module is for
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TextIO


class ReplayPdb(pdb.Pdb):
    """
    A pdb that steps through user code only, and whose `quit` leaves pdb and not the program.

    Its `continue` and `quit` both let the replay continue to its next stop.
    """

    def __init__(self, stdin: TextIO | None = None, stdout: TextIO | None = None) -> None:
        # No SIGINT handler of its own, and no .pdbrc: a transcript must not depend on who runs it.
        super().__init__(stdin=stdin, stdout=stdout, skip=["durable.*", "contextlib"], nosigint=True, readrc=False)
        self.prompt = "(pdb) "
        #: Whether the last command asked to continue line by line.
        self.stepping = False

    def user_exception(self, frame: FrameType, exc_info: Any) -> None:
        """Stop where an exception is raised, but not where a generator of the user's hands over its command."""
        if not self.is_skipped_module(str(frame.f_globals.get("__name__"))):
            super().user_exception(frame, exc_info)

    def set_quit(self) -> None:
        """As continue: raising BdbQuit in workflow code would change what it does."""
        self.set_continue()

    def set_continue(self) -> None:
        """Continue without stopping."""
        self.stepping = False
        super().set_continue()

    def set_step(self) -> None:
        """Stop at the next line, in whatever function of the user's."""
        self.stepping = True
        super().set_step()

    def set_next(self, frame: FrameType) -> None:
        """Stop at the next line of this function."""
        self.stepping = True
        super().set_next(frame)

    def set_return(self, frame: FrameType) -> None:
        """Stop when this function returns."""
        self.stepping = True
        super().set_return(frame)

    def set_until(self, frame: FrameType, lineno: int | None = None) -> None:
        """Stop at a later line of this function."""
        self.stepping = True
        super().set_until(frame, lineno)


def step_through(debugger: pdb.Pdb, frame: FrameType, go_on: Callable[[], Any] | None) -> bool:
    """
    Open *debugger* at *frame*, which stands at a command.

    If it is asked to step, *go_on* resumes the replay with tracing on, up to its next stop; whether it was.
    """
    before = sys.gettrace()
    try:
        debugger.reset()
        debugger.interaction(frame, None)
        if go_on is None or not getattr(debugger, "stepping", False):
            return False
        traced: FrameType | None = frame
        while traced is not None:
            traced.f_trace = debugger.trace_dispatch
            traced = traced.f_back
        sys.settrace(debugger.trace_dispatch)
        go_on()
        return True
    finally:
        sys.settrace(before)  # pdb's continue ends all tracing, also that of coverage tools

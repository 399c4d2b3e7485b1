"""
Where the debugger stops: commands of a name, lines, and conditions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from durable._debug.expressions import is_true

if TYPE_CHECKING:
    from durable._debug.stepped_replay import Place, Stop


@frozen
class Breakpoint:
    """One of: a name, a line (of a file), a condition."""

    number: int
    name: str | None = None
    file: str | None = None
    line: int | None = None
    condition: str | None = None

    def meets(self, stop: Stop, places: list[Place]) -> bool:
        """Whether the replay is to stop at *stop*, where the code stands at *places*."""
        if self.condition is not None:
            return bool(places) and is_true(self.condition, places[-1].frame)
        if self.line is not None:
            return any(
                place.line == self.line and (self.file is None or place.file.endswith(self.file)) for place in places
            )
        return any(self.name in (event.name, event.position) for event in stop.opened)

    def __str__(self) -> str:
        if self.condition is not None:
            return f"{self.number}: if {self.condition}"
        if self.line is not None:
            return f"{self.number}: {self.file or ''}{':' if self.file else 'line '}{self.line}"
        return f"{self.number}: commands called {self.name}"


def parse(number: int, text: str) -> Breakpoint:
    """
    The breakpoint that *text* asks for: ``NAME``, ``LINE``, ``FILE:LINE`` or ``if EXPR``.

    Raises:
        ValueError: It asks for nothing.
    """
    text = text.strip()
    if not text:
        msg = "break at what? break NAME | LINE | FILE:LINE | if EXPR"
        raise ValueError(msg)
    if text.startswith("if "):
        return Breakpoint(number, condition=text[3:].strip())
    if text.isdecimal():
        return Breakpoint(number, line=int(text))
    file, colon, line = text.rpartition(":")
    if colon and line.isdecimal():
        return Breakpoint(number, file=file, line=int(line))
    return Breakpoint(number, name=text)

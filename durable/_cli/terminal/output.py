"""
What commands write: lines, tables that fit the terminal, JSON.

Colour only on a terminal, never with ``NO_COLOR``; the width is the terminal's, or that of ``COLUMNS``;
into a pipe nothing is cut. Tables are for people, ``--json`` for programs: one object a line for lists.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

from durable._core.durations import span

#: Statuses by colour: what needs a person is red, what proceeds by itself is not.
STATUS_COLOURS: Final = {
    "failed": "31",
    "blocked": "31",
    "cancelled": "33",
    "paused": "33",
    "succeeded": "32",
    "running": "36",
    "pending": "2",
    "waiting": "34",
}
#: What stands around the number of a colour until a line is written: nothing else can then become an escape
#: sequence, whatever stands in a journal. They are no characters, so no text means anything by them.
_MARKS: Final = "\ufdd0\ufdd1"
_COLOUR: Final = re.compile(f"{_MARKS[0]}([0-9;]*){_MARKS[1]}")
#: Narrower than this, a terminal is treated as this wide: a table of three letters a column helps nobody.
_LEAST_WIDTH: Final = 40
#: The least that a column is cut to.
_LEAST_COLUMN: Final = 8


class Output:
    """Where a command writes, and how."""

    def __init__(self, stream: TextIO | None = None, *, json: bool = False) -> None:
        self._stream = stream or sys.stdout
        #: Whether JSON was asked for.
        self.json = json
        terminal = self._stream.isatty()
        self._coloured = not json and terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        #: Columns that a line may have; 0 is any number.
        self.width = max(shutil.get_terminal_size().columns, _LEAST_WIDTH) if terminal or _columns_given() else 0

    def line(self, text: str = "") -> None:
        """One line. Names, values and errors come from anywhere: what could drive a terminal is shown as escapes."""
        shown = _COLOUR.sub(_escape, printable(text, keep=_MARKS)) if self._coloured else printable(text)
        self._stream.write(f"{shown}\n")

    def flush(self) -> None:
        """Hand what was written to the reader."""
        self._stream.flush()

    def value(self, value: Any) -> None:
        """One JSON value, on one line."""
        self._stream.write(json_printable(json.dumps(value, ensure_ascii=False, default=str)) + "\n")

    def colour(self, text: str, code: str) -> str:
        """*text* in a colour, where colours are wanted."""
        return f"{_MARKS[0]}{code}{_MARKS[1]}{text}{_MARKS[0]}0{_MARKS[1]}" if self._coloured and code else text

    def status(self, status: str) -> str:
        """A status in its colour."""
        return self.colour(status, STATUS_COLOURS.get(status, ""))

    def bold(self, text: str) -> str:
        """*text* in bold, where that is wanted."""
        return self.colour(text, "1")

    def dim(self, text: str) -> str:
        """*text* less prominent, where that is wanted."""
        return self.colour(text, "2")

    def wrapped(self, text: str, *, indent: int) -> list[str]:
        """*text* in lines that fit behind *indent* columns, broken between words alone, for paths; into a pipe one."""
        if not self.width or width_of(text) <= self.width - indent:
            return [text]
        import textwrap  # noqa: PLC0415 - milliseconds that most commands need not spend

        return textwrap.wrap(text, self.width - indent, break_long_words=False, break_on_hyphens=False)

    def table(
        self,
        heads: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        flexible: int = -1,
        readable: int = 0,
    ) -> None:
        """
        Rows under *heads*, in columns as wide as they need.

        On a terminal, the column at index *flexible* is cut so that lines fit; if that is not
        enough, the other wide ones are, too. Where fewer than *readable* columns are left for the last one, those of
        its cells that do not fit stand in a line of their own, under their row.
        """
        cells = [[printable(cell) for cell in row] for row in rows]
        below = [""] * len(cells)
        if self.width and readable:
            below = _moved(heads, cells, self.width, readable)
        widths = _widths(heads, cells)
        if self.width:
            _shrink(widths, self.width, flexible % len(heads))
        self.line(self.bold(_row(heads, widths)))
        for row, note in zip(cells, below, strict=True):
            shown = [cut(cell, width) for cell, width in zip(row, widths, strict=True)]
            text = _row(shown, widths)
            for head, cell in zip(heads, shown, strict=True):
                if head == "STATUS" and cell in STATUS_COLOURS:
                    text = text.replace(cell, self.status(cell), 1)
            self.line(text)
            if note:
                self.line(self.dim(f"  {cut(note, self.width - 2)}"))

    def clear(self) -> None:
        """An empty screen for what comes next; into a pipe, an empty line."""
        self._stream.write("\x1b[H\x1b[2J" if self._stream.isatty() else "\n")


def _moved(heads: Sequence[str], cells: list[list[str]], allowed: int, readable: int) -> list[str]:
    """Take out of the last column what does not fit, if less than *readable* is left for it; for each row, what."""
    room = allowed - sum(width + 2 for width in _widths(heads[:-1], cells))
    if room >= readable:
        return [""] * len(cells)
    moved = [row[-1] if width_of(row[-1]) > room else "" for row in cells]
    for row, text in zip(cells, moved, strict=True):
        if text:
            row[-1] = ""
    return moved


def _widths(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    return [max([len(head), *(width_of(row[i]) for row in cells)]) for i, head in enumerate(heads)]


def _columns_given() -> bool:
    return os.environ.get("COLUMNS", "").isdigit()


def _shrink(widths: list[int], allowed: int, flexible: int) -> None:
    for index in (flexible, *sorted(range(len(widths)), key=lambda i: -widths[i])):
        over = sum(widths) + 2 * (len(widths) - 1) - allowed
        if over <= 0:
            return
        widths[index] = max(min(widths[index], _LEAST_COLUMN), widths[index] - over)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell + " " * (width - width_of(cell)) for cell, width in zip(cells, widths, strict=True)]
    return "  ".join(padded).rstrip()


def width_of(text: str) -> int:
    """Columns that *text* takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def cut(text: str, width: int) -> str:
    """*text*, shortened to *width* columns."""
    if width_of(text) <= width:
        return text
    while text and width_of(text) > width - 1:
        text = text[:-1]
    return text + "…"


def printable(text: str, *, keep: str = "") -> str:
    """*text* on one line, what is not printable as escapes; *keep* are characters to be let through."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode() for each in text
    )


def json_printable(text: str) -> str:
    """*text*, which is JSON on one line, what could drive a terminal as escapes, which mean the same."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def _escape(found: re.Match[str]) -> str:
    return f"\x1b[{found[1]}m"


# --- values in words ------------------------------------------------------------------------------


def ago(then: float | None, now: float | None = None) -> str:
    """How long ago an instant (epoch seconds) was, to the second: "12 s", "1 min 43 s", "2 h", "5 d 3 h"."""
    if then is None:
        return ""
    seconds = round((time.time() if now is None else now) - then)
    return span(seconds) if seconds > 0 else "0 s"


def instant(at: float | None) -> str:
    """An instant (epoch seconds) in local time, to the second."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def iso(at: float | None) -> str | None:
    """An instant (epoch seconds) for programs: ISO 8601 in UTC, to the millisecond."""
    if at is None:
        return None
    milliseconds = round(at * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000)) + f".{milliseconds % 1000:03d}Z"

"""
Tracebacks as text, for people: what is recorded of one, and how it comes back.

A rebuilt exception has no frames to show, so it carries the recorded ones as a note, which Python prints below it.
Recorded again (a workflow lets the error of its step through), the frames of the note follow the new ones: one
traceback, from the workflow's line to the one in the step.
"""

from __future__ import annotations

import collections
import itertools
import linecache
import os
import re
import stat
import traceback as tracebacks
import types
from collections.abc import Iterable
from typing import Any, Final

from durable._core.codec.exceptions.parts import notes_of, traceback_of
from durable._core.codec.exceptions.safe_text import clean
from durable._core.source_places import OURS, has_source

#: The innermost frames are the ones that tell.
_MOST_FRAMES: Final = 100
#: Of a source file that is read for its lines, in bytes; and of one of its lines.
_MOST_SOURCE: Final = 4_000_000
_LONGEST_LINE: Final = 300
_LONGEST_NAME: Final = 500

_TITLE: Final = "Recorded traceback (most recent call last):\n"
#: The frames of a recorded text: each line of theirs is indented, the exception below them is not.
_FRAMES: Final = re.compile(r'^  File "[^\n]*\n(?:  [^\n]*\n)*', re.MULTILINE)


def frames_of(exc: BaseException, cap: int, *, with_ours: bool = False) -> str:
    """
    The user's frames that *exc* went through, those that it went through before it was rebuilt included.

    *with_ours*: frames of this library, too, to be reported.
    """
    if cap <= 0:
        return ""
    text = _format(traceback_of(exc), with_ours=with_ours)
    for note in notes_of(exc):
        if is_traceback(note):
            text += f"{note[len(_TITLE) :]}\n"
    return text if len(text) <= cap else text[-cap:].partition("\n")[2]


def is_traceback(note: Any) -> bool:
    """Whether *note* is one of `as_note`."""
    return type(note) is str and note.startswith(_TITLE)


def as_note(traceback: str) -> str | None:
    """The frames of a recorded *traceback* as a note; None if there are none."""
    found = _FRAMES.search(traceback)
    return f"{_TITLE}{found.group().rstrip()}" if found else None


def _format(traceback: types.TracebackType | None, *, with_ours: bool) -> str:
    links: collections.deque[types.TracebackType] = collections.deque(_links(traceback), maxlen=_MOST_FRAMES)
    frames = [_summary(link) for link in links if with_ours or not _file_of(link).startswith(OURS)]
    return clean("".join(tracebacks.StackSummary.from_list(frames).format())) if frames else ""


def _links(traceback: types.TracebackType | None) -> Iterable[types.TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _file_of(link: types.TracebackType) -> str:
    return str.__str__(link.tb_frame.f_code.co_filename)  # which whoever makes code may set to more than a str


def _summary(link: types.TracebackType) -> tracebacks.FrameSummary:
    code, file, number = link.tb_frame.f_code, _file_of(link), link.tb_lineno
    line = _source_line(file, number)
    summary = tracebacks.FrameSummary(
        file[:_LONGEST_NAME], number, str.__str__(code.co_name)[:_LONGEST_NAME], lookup_line=False,
        line=line[:_LONGEST_LINE],
    )  # fmt: skip
    at = next(itertools.islice(code.co_positions(), link.tb_lasti // 2, None), None)
    if at is not None and at[1] == number and len(line) <= _LONGEST_LINE:  # what it was at, if that is on this line
        _, summary.end_lineno, summary.colno, summary.end_colno = at
    return summary


def _source_line(file: str, number: int | None) -> str:
    """A line of source; empty if none can be had without harm (a frame may name a device, or a file of any size)."""
    if number is None or not has_source(file):
        return ""
    if file.startswith("<"):  # what a shell keeps, or who made the code
        kept = linecache.cache.get(file, ())
        lines = kept[2] if len(kept) > 2 else []  # noqa: PLR2004 - else it is still to be fetched
        return lines[number - 1] if 0 < number <= len(lines) else ""
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return ""
    if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_SOURCE:
        return ""
    linecache.checkcache(file)
    return linecache.getline(file, number)

"""
Source lines around a place. A frozen program has none: then file and line have to do.
"""

from __future__ import annotations

import inspect
import linecache
import os

from durable._core.source_places import has_source
from durable._debug.stepped_replay import Place


def text_at(file: str, line: int) -> str:
    """That line of code; empty where there is no source."""
    return linecache.getline(file, line).strip() if has_source(file) else ""


def line_of(place: Place) -> str:
    """The line where the code stands; empty where there is no source."""
    return text_at(place.file, place.line)


def site_of(place: Place) -> str:
    """File, line and function, as short as people say it."""
    return f"{os.path.basename(place.file)}:{place.line} {place.function.rpartition('.')[2]}"


def lines_around(place: Place, count: int) -> dict[int, str]:
    """About *count* lines around the place, by number; all of them within its function. None without source."""
    lines = linecache.getlines(place.file) if has_source(place.file) else []
    code = place.frame.f_code
    first = code.co_firstlineno
    last = max((line for _, _, line in code.co_lines() if line is not None), default=first)
    begin = max(first, min(place.line - count // 2, last - count + 1))
    end = min(len(lines), last, begin + count - 1)
    return {number: lines[number - 1].rstrip() for number in range(begin, end + 1)}


def around(place: Place, count: int) -> list[str]:
    """`lines_around` with their numbers, the place marked."""
    lines = lines_around(place, count)
    if not lines:
        return [f"no source: {place.file}:{place.line}"]
    digits = len(str(max(lines)))
    return [f"{'->' if number == place.line else '  '} {number:>{digits}}  {text}" for number, text in lines.items()]


def signature_of(place: Place) -> str:
    """A frame's function and its arguments' names, for a stack."""
    arguments = inspect.getargs(place.frame.f_code)
    return f"{place.function.rpartition('.')[2]}({', '.join(arguments.args)})"

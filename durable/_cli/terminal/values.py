"""
Payloads for people and for programs: arguments, results, failures as they stand in the file.

They are JSON text, unless the application's codec hooks made something else of it: then their size
is all that can be said without the application. Nothing is decoded into objects here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

#: A value that fits on a line of this many characters stands on one.
_ONE_LINE: Final = 100
#: Lines of a value or traceback, and characters of one, that are shown unless all was asked for.
_MOST_LINES: Final = 40
_MOST_CHARACTERS: Final = 400
#: Failures within failures that are shown.
_DEPTH: Final = 8
#: Levels within a value that are broken into lines; as deep as the codec lets values be.
_NESTED: Final = 64
_INDENT: Final = "  "
#: Characters of a name that is made short.
_NAME: Final = 36


def plain(payload: Any) -> Any:
    """A payload for programs: what its JSON says; of one that is encoded, its size."""
    if isinstance(payload, bytes):
        return {"encoded_bytes": len(payload)}
    if payload is None:
        return None
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return payload


def value_lines(payload: Any, *, full: bool = False) -> list[str]:
    """A payload for people."""
    if isinstance(payload, bytes):
        return [f"<{len(payload):,} bytes, encoded by the application's codec>"]
    try:
        lines = _pretty(None if payload is None else json.loads(payload))
    except (ValueError, RecursionError):  # not written by a codec of ours: shown as it is, rather than not at all
        lines = str(payload).splitlines()
    return bounded(lines, full=full)


def value_in_short(payload: Any, most: int) -> str:
    """A payload in one line, of *most* characters."""
    found = plain(payload)
    line = value_lines(payload)[0] if isinstance(payload, bytes) else _compact(found)
    return line if len(line) <= most else f"{line[:most]}…"


def shortened(name: str) -> str:
    """A name that somebody else made long: its beginning and its end."""
    return name if len(name) <= _NAME else f"{name[: _NAME // 3]}…{name[1 - _NAME + _NAME // 3 :]}"


def call_lines(name: str, payload: Any, *, full: bool = False) -> list[str]:
    """The arguments of a run as a call: ``ride(42, "Main St 1", fast=true)``."""
    match plain(payload):
        case [[*positional], {**named}] if not isinstance(payload, bytes):
            given = [("", each) for each in positional] + [(f"{key}=", each) for key, each in named.items()]
            line = f"{name}({', '.join(key + _compact(each) for key, each in given)})"
            if len(line) <= _ONE_LINE:
                return [line]
            lines = [f"{name}("]
            for key, each in given:
                first, *rest = _pretty(each)
                lines += [f"{_INDENT}{key}{first}", *(_INDENT + line for line in rest)]
                lines[-1] += ","
            return bounded([*lines, ")"], full=full)
        case _:
            return value_lines(payload, full=full)


def failure_lines(payload: Any, *, full: bool = False) -> list[str]:
    """A recorded failure: its traceback, its cause and context, the members of a group."""
    failure = plain(payload)
    if isinstance(payload, bytes) or not isinstance(failure, dict) or "type" not in failure:
        return value_lines(payload, full=full)
    return _of_failure(failure, full=full, depth=0)


def failure_in_short(payload: Any) -> str:
    """A recorded failure in one line: ``ValueError: bad``."""
    failure = plain(payload)
    if isinstance(payload, bytes) or not isinstance(failure, dict) or "type" not in failure:
        return "" if payload is None else value_lines(payload)[0]
    return _title(failure)


def bounded(lines: Sequence[str], *, full: bool, last: bool = False) -> list[str]:
    """*lines*, unless *full* is asked for no more than fit a screen: the first, or the *last* of them."""
    if full:
        return list(lines)
    cut = [line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]}…" for line in lines]
    left = len(cut) - _MOST_LINES
    if left <= 1:  # the line that would say so takes as much
        return cut
    note = f"... {left:,} more lines: --full"
    return [note, *cut[left:]] if last else [*cut[:_MOST_LINES], note]


def _of_failure(failure: dict[str, Any], *, full: bool, depth: int) -> list[str]:
    trace = str(failure.get("traceback") or "").strip("\n").splitlines()
    lines = bounded(trace, full=full, last=True) if trace else bounded([_title(failure)], full=full)
    if depth == _DEPTH:
        return lines
    title, around = "caused by:", failure.get("cause")
    if around is None and not failure.get("hides_context"):
        title, around = "while handling:", failure.get("context")
    if isinstance(around, dict):
        lines += [title, *(_INDENT + line for line in _of_failure(around, full=full, depth=depth + 1))]
    members = [each for each in failure.get("members") or () if isinstance(each, dict)]
    shown = members if full else members[:_DEPTH]
    for index, member in enumerate(shown, 1):
        lines += [
            f"failure {index} of {len(members)}:",
            *(_INDENT + line for line in _of_failure(member, full=full, depth=depth + 1)),
        ]
    if len(shown) < len(members):
        lines.append(f"... {len(members) - len(shown):,} more failures: --full")
    return lines


def _title(failure: dict[str, Any]) -> str:
    name = str(failure.get("type")).rpartition(".")[2]
    message = str(failure.get("message") or "").strip().partition("\n")[0]
    return f"{name}: {message}" if message else name


def _pretty(value: Any, depth: int = 0) -> list[str]:
    """On one line where that fits; else broken where it is coarsest, numbers and short texts side by side."""
    line = _compact(value)
    if len(line) <= _ONE_LINE or depth == _NESTED or not isinstance(value, (dict, list)):
        return [line]
    if isinstance(value, dict):
        parts = [(f"{_compact(key)}: ", each) for key, each in value.items()]
        opening, closing = "{", "}"
    else:
        if not any(isinstance(each, (dict, list)) for each in value):
            return ["[", *_filled([_compact(each) for each in value]), "]"]
        parts = [("", each) for each in value]
        opening, closing = "[", "]"
    lines = [opening]
    for name, each in parts:
        first, *rest = _pretty(each, depth + 1)
        lines += [f"{_INDENT}{name}{first}", *(_INDENT + line for line in rest)]
        lines[-1] += ","
    lines[-1] = lines[-1].removesuffix(",")
    return [*lines, closing]


def _filled(words: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + len(word) + 2 <= _ONE_LINE:
            lines[-1] += f" {word},"
        else:
            lines.append(f"{_INDENT}{word},")
    return [*lines[:-1], lines[-1].removesuffix(",")]


def _compact(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:  # reading it took the last of the stack, and writing needs more
        return "<nested too deeply to be shown>"

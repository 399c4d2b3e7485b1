"""
One sentence: what a run waits for, and since when. The same for `run.why()` and ``durable show``.

Light, as `run_rows` is: the command line reads with it.
"""

from __future__ import annotations

import sqlite3

from durable._core.durations import span
from durable._core.statuses import ENDS
from durable._shell.reads import run_rows
from durable._shell.reads.run_rows import LONGEST_LINE, RunRow
from durable._shell.reads.waits import WaitInfo, waits_of, waits_of_each


def why_by_id(conn: sqlite3.Connection, run_id: str, now: float) -> str | None:
    """`why` of the run called *run_id*; None if there is none."""
    row = run_rows.run_by_id(conn, run_id)
    return None if row is None else why(conn, row, now)


def why(conn: sqlite3.Connection, row: RunRow, now: float) -> str:
    """What the run waits for at *now*, or how it ended."""
    if row.status in ENDS:
        ended = f"run {row.run_id!r} {row.status if row.status != 'cancelled' else 'was cancelled'}"
        unread = f"; it left {unread_signals(row)}" if row.unread else ""
        return f"{ended} {_since(row.ended_at, now)} ago{unread}" + (f": {row.reason}" if row.reason else "")
    waits = waits_of(conn, row)
    first = waits[0] if waits else None
    match first:
        case WaitInfo("person"):
            said = f"is blocked and needs a person: {row.reason}"
        case WaitInfo("resume", None):
            said = "is paused: resume it to let it continue"
        case WaitInfo("resume", queue) if row.status == "running":
            said = f"is running, or continues once queue {queue!r} is resumed, which is paused"
        case _ if row.status == "running" and not (first and first.kind == "ending"):
            said = f"is running, for {_since(row.ready_at, now)}"
        case _:
            said = f"waits for {_awaited(conn, row, waits, now)}"
    return f"run {row.run_id!r} {said}"


def _place(conn: sqlite3.Connection, row: RunRow) -> str:
    """Where a run stands among those of its queue that wait to begin: "12th of 340 in queue 'mail'"."""
    ahead, length = run_rows.place_in_line(conn, row)
    if ahead >= LONGEST_LINE:
        return f"with more than {LONGEST_LINE:,} before it in queue {row.queue!r}"
    more = f"more than {LONGEST_LINE:,}" if length > LONGEST_LINE else f"{length:,}"
    return f"{_ordinal(ahead + 1)} of {more} in queue {row.queue!r}"


def _ordinal(number: int) -> str:
    teens = number % 100 in (11, 12, 13)
    ending = "th" if teens else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def unread_signals(row: RunRow) -> str:
    """The signals that a run left unread, in words."""
    count = sum(row.unread.values())
    names = ", ".join(f"{name!r}" + (f" ({number:,})" if number > 1 else "") for name, number in row.unread.items())
    return f"{count:,} signal{'s' if count > 1 else ''} unread: {names}"


def awaited(conn: sqlite3.Connection, row: RunRow, now: float) -> str:
    """What a freed run waits for at *now*, and for how long: the oldest in words, the others counted."""
    waits = [each for each in waits_of_each(conn, [row])[row.run] if each.kind != "resume"]
    return _awaited(conn, row, waits, now)


def _awaited(conn: sqlite3.Connection, row: RunRow, waits: list[WaitInfo], now: float) -> str:
    if not waits:
        return "nothing that is recorded"
    first, *others = waits
    if first.kind == "resume":
        paused = f"queue {first.name!r}, which is paused: resume it"
        return f"{paused}. Then for {_awaited(conn, row, others, now)}" if others and row.ready_at is None else paused
    if first.kind == "queue":
        return f"a slot, {_place(conn, row)}, for {_since(first.since, now)}"
    if first.kind == "ending":
        return _describe_end(first, now)
    count = run_rows.count_waits(conn, row.run) + sum(each.kind == "slot" for each in waits)
    more = f" and {count - 1} more" if count > 1 else ""
    where = _where(conn, row.run, first.position)
    said = _describe_slot(conn, row, first, where, now) if first.kind == "slot" else _describe(conn, first, where, now)
    return f"{said}{more}, for {_since(first.since, now)}"


def _other(conn: sqlite3.Connection, run_id: str | None) -> str:
    """The run that this one waits for; and what that needs, if it cannot continue without a person."""
    row = None if run_id is None else run_rows.run_by_id(conn, run_id)
    if row is not None and row.status == "paused":
        return f"run {run_id!r} (which is paused: resume it)"
    if row is None or row.status != "blocked":
        return f"run {run_id!r}"
    return f"run {run_id!r} (which is blocked and needs a person: {row.reason})"


def _since(then: float | None, now: float) -> str:
    return "an unknown time" if then is None else _seconds(now - then)


def _seconds(number: float) -> str:
    """A duration whose milliseconds nobody asked for."""
    return span(number) if number >= 60 else f"{max(0.0, number):.1f} s"  # noqa: PLR2004 - seconds of a minute


def _describe_end(wait: WaitInfo, now: float) -> str:
    what = f"the clean-up of step {wait.name!r}" if wait.holder is None else f"the end of run {wait.holder!r}"
    return f"{what} at {wait.position} (cancelled {_since(wait.since, now)} ago)"


def _where(conn: sqlite3.Connection, run: int, position: str | None) -> str:
    """A position, with the name that the code gives to what stands there."""
    name = run_rows.name_at(conn, run, position) if position else ""
    return f"{position} ({name})" if name else position or ""


def _describe_slot(conn: sqlite3.Connection, row: RunRow, wait: WaitInfo, where: str, now: float) -> str:
    key = f" (key {wait.key!r})" if wait.key else ""
    place = f" at {where}" if where else ""
    ahead = run_rows.ahead_in_limit(conn, row.run, wait.position or "")
    line = "first in line" if not ahead else f"{ahead} before it"
    due = "" if wait.due is None else f"; its rate lets it in within {_seconds(wait.due - now)}"
    inside = "" if wait.holder is None else f"; longest inside: {_other(conn, wait.holder)}"
    return f"a slot of limit {wait.name!r}{key}{place} ({line}{inside}{due})"


def _describe(conn: sqlite3.Connection, wait: WaitInfo, where: str, now: float) -> str:
    until = "" if wait.due is None else f" (due in {_seconds(wait.due - now)})"
    match wait.kind:
        case "signal":
            return f"signal {wait.name!r} at {where}{until}"
        case "request":
            return f"a request {wait.name!r} at {where}{until}"
        case "callback":
            named = f"callback {wait.name!r}" if wait.name else "the callback"
            return f"the answer to {named} at {where}{until}"
        case "child":
            return f"{_other(conn, wait.holder)} at {where}"
        case "retry":
            return f"the next attempt of the step at {where}{until}" if where else f"its next attempt{until}"
        case "start":
            return f"its start{until}" if wait.holder is None else f"the end of {_other(conn, wait.holder)}, to begin"
        case _:
            return f"the {wait.kind} at {where or 'the run'}{until}"

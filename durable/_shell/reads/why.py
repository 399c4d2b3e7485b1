"""
One sentence: what a run waits for, and since when. The same for `run.why()` and ``durable show``.

Light, as `run_rows` is: the command line reads with it.
"""

from __future__ import annotations

import sqlite3

from durable._core.statuses import ENDS
from durable._shell.reads import run_rows
from durable._shell.reads.run_rows import LONGEST_LINE, RunRow, SlotRow, WaitRow


def why_by_id(conn: sqlite3.Connection, run_id: str, now: float) -> str | None:
    """`why` of the run called *run_id*; None if there is none."""
    row = run_rows.run_by_id(conn, run_id)
    return None if row is None else why(conn, row, now)


def why(conn: sqlite3.Connection, row: RunRow, now: float) -> str:
    """What the run waits for at *now*, or how it ended."""
    if row.status in ENDS:
        ended = f"run {row.run_id!r} {row.status if row.status != 'cancelled' else 'was cancelled'}"
        unread = f"; it left {unread_signals(row)}" if row.unread else ""
        return f"{ended} {_span(now, row.ended_at)} ago{unread}" + (f": {row.reason}" if row.reason else "")
    if row.status == "blocked":
        return f"run {row.run_id!r} is blocked and needs a person: {row.reason}"
    if row.status == "paused":
        return f"run {row.run_id!r} is paused: resume it to let it go on"
    if stopping := run_rows.told_to_end(conn, row.run):
        return f"run {row.run_id!r} waits for {_describe_end(*stopping, now)}"
    paused = row.queue in run_rows.paused_queues(conn)
    if row.status == "running" and paused:
        return f"run {row.run_id!r} is running, or continues once queue {row.queue!r} is resumed, which is paused"
    if row.status == "running":
        return f"run {row.run_id!r} is running, for {_span(now, row.ready_at)}"
    if row.status == "pending" and row.ready_at is not None:
        if paused:
            return f"run {row.run_id!r} waits for queue {row.queue!r}, which is paused: resume it"
        return f"run {row.run_id!r} waits for a slot, {_place(conn, row)}, for {_span(now, row.ready_at)}"
    behind = awaited(conn, row.run, now)
    if paused and run_rows.slots_awaited(conn, row.run):
        behind = f"queue {row.queue!r}, which is paused: resume it. Then for {behind}"
    return f"run {row.run_id!r} waits for {behind}"


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


def awaited(conn: sqlite3.Connection, run: int, now: float) -> str:
    """What a freed run waits for at *now*, and for how long: the oldest in words, the others counted."""
    slots = run_rows.slots_awaited(conn, run)
    waits = run_rows.waits_of(conn, run)
    count = len(slots) + run_rows.count_waits(conn, run)
    own = [wait for wait in waits if wait.kind not in ("deadline", "cleanup", "expiry")] or waits
    more = f" and {count - 1} more" if count > 1 else ""
    if slots:
        where = _where(conn, run, slots[0].position)
        return f"{_describe_slot(conn, slots[0], where, now)}{more}, for {_span(now, slots[0].since)}"
    if not own:
        return "nothing that is recorded"
    where = _where(conn, run, own[0].position)
    return f"{_describe_wait(conn, own[0], where, now)}{more}, for {_span(now, own[0].since)}"


def _other(conn: sqlite3.Connection, run_id: str | None) -> str:
    """The run that this one waits for; and what that needs, if it cannot continue without a person."""
    row = None if run_id is None else run_rows.run_by_id(conn, run_id)
    if row is not None and row.status == "paused":
        return f"run {run_id!r} (which is paused: resume it)"
    if row is None or row.status != "blocked":
        return f"run {run_id!r}"
    return f"run {run_id!r} (which is blocked and needs a person: {row.reason})"


def _span(now: float, then: float | None) -> str:
    if then is None:
        return "an unknown time"
    seconds = max(0.0, now - then)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


def _describe_end(position: str, what: str, since: float, is_child: bool, now: float) -> str:  # noqa: FBT001
    waited = f"the end of run {what!r} at" if is_child else f"the clean-up of step {what!r} at"
    return f"{waited} {position} (cancelled {_span(now, since)} ago)"


def _where(conn: sqlite3.Connection, run: int, position: str) -> str:
    """A position, with the name that the code gives to what stands there."""
    name = run_rows.name_at(conn, run, position) if position else ""
    return f"{position} ({name})" if name else position


def _describe_slot(conn: sqlite3.Connection, slot: SlotRow, where: str, now: float) -> str:
    key = f" (key {slot.key!r})" if slot.key else ""
    place = f" at {where}" if where else ""
    line = "first in line" if not slot.ahead else f"{slot.ahead} before it"
    due = "" if slot.due_at is None else f"; its rate lets it in within {max(0.0, slot.due_at - now):.1f} s"
    inside = "" if slot.holder is None else f"; longest inside: {_other(conn, slot.holder)}"
    return f"a slot of limit {slot.name!r}{key}{place} ({line}{inside}{due})"


def _describe_wait(conn: sqlite3.Connection, wait: WaitRow, where: str, now: float) -> str:
    until = "" if wait.fire_at is None else f" (due in {max(0.0, wait.fire_at - now):.1f} s)"
    match wait.kind:
        case "signal":
            return f"signal {wait.name!r} at {where}{until}"
        case "callback":
            named = f"callback {wait.name!r}" if wait.name else "the callback"
            return f"the answer to {named} at {where}{until}"
        case "child":
            return f"{_other(conn, wait.target)} at {where}"
        case "retry":
            return f"the next attempt of the step at {where}{until}"
        case "start":
            return f"its start{until}" if wait.target is None else f"the end of {_other(conn, wait.target)}, to begin"
        case "restart":
            return f"its next attempt{until}"
        case _:
            return f"the {wait.kind} at {where or 'the run'}{until}"

"""
Schedules as rows: their place in time, and what a tick does. Runs on the writer's thread.

A tick is one transaction: its run is created and the schedule's place moves on, or neither.
Its id names the tick, and `upto` says how far ticks are dealt with, so that no tick starts a
second run, whatever is killed or moved back.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from attrs import evolve

from durable._core.authoring.schedules import AHEAD, MOST_MISSED, Overlap, Schedule, Timetable, timetable_from
from durable._core.codec.exceptions.safe_text import one_line
from durable._core.journal.events import StepInterrupted
from durable._core.light_frozen import light_frozen
from durable._core.statuses import ENDS
from durable._shell.reads.lenient import fetch_all
from durable._shell.reads.schedule_rows import held_up_by, schedule_by_name, still_open
from durable._shell.rows.rows import Damaged, Effects, NewRun
from durable._shell.rows.schedule_row import ScheduleRow
from durable._shell.storage.seals import is_sound
from durable._shell.writes.apart import apart
from durable._shell.writes.run_writes import get_or_create
from durable._shell.writes.wakeups import request_cancel
from durable.errors import DurableError, PoisonError, ScheduleNotFoundError, StepInterruptedError, UsageError

_UPDATE = """
UPDATE durable_schedules SET upto = ?, next_at = ?, last_at = ?, last_run = ?, open_runs = ?, paused_at = ?,
    skipped = ?, last_skipped_at = ?, last_error = ?, triggers = ?, failed = ? WHERE name = ?
"""
#: Of the runs of a schedule, those that ended last.
_LATEST_ENDS = """
SELECT run, run_id, reason FROM durable_runs
WHERE run_id > ? AND run_id < ? AND ended_at IS NOT NULL AND successor IS NULL
ORDER BY ended_at DESC, run DESC LIMIT 100
"""
# Body of `StepInterrupted`: attempt, crashed.
_DIED = "SELECT 1 FROM durable_events WHERE run = ? AND kind = ? AND json_extract(body, '$[1]') LIMIT 1"
_POISON = f"{PoisonError.__name__}: "
_KILLERS = (_POISON, f"{StepInterruptedError.__name__}: ")
#: A schedule is paused once so many of its runs in a row have killed the process. One may have had bad luck.
KILLERS = 2


@light_frozen
class Tick:
    """A tick to be recorded: the run that it starts, or why it has none."""

    at: float
    overlap: Overlap
    run: NewRun | None
    error: str = ""


def find_schedule(conn: sqlite3.Connection, name: str) -> ScheduleRow:
    """
    The schedule called *name*.

    Raises:
        ScheduleNotFoundError: The journal knows none.
    """
    found = schedule_by_name(conn, name)
    if found is None:
        raise ScheduleNotFoundError(name, "this journal")
    return found


def save(conn: sqlite3.Connection, row: ScheduleRow, effects: Effects) -> None:
    """Write all of *row* that changes."""
    conn.execute(
        _UPDATE,
        (
            row.upto,
            row.next_at,
            row.last_at,
            row.last_run,
            json.dumps(row.open_runs),
            row.paused_at,
            row.skipped,
            row.last_skipped_at,
            row.last_error,
            json.dumps(row.triggers),
            row.failed,
            row.name,
        ),
    )
    effects.schedules.append((row.name, row))


def timetable_of(row: ScheduleRow) -> Timetable:
    """When a schedule ticks. What its `overlap` and `missed` are is known here of those that were made at run time."""
    overlap, missed = row.overlap or "skip", row.missed or "one"
    return timetable_from(row.name, row.spec, row.timezone, overlap, missed)  # type: ignore[arg-type]  # as written


def put(conn: sqlite3.Connection, timetable: Timetable, starts: str | None, now: float) -> None:
    """Make a schedule, or let it tick as *timetable* says: from now on, if that is otherwise than before."""
    name, spec, zone, anchor = timetable.name, timetable.spec, timetable.timezone, float(int(now))
    before = schedule_by_name(conn, name)
    if before is None:
        conn.execute(
            "INSERT INTO durable_schedules (name, spec, timezone, anchor, upto) VALUES (?, ?, ?, ?, ?)",
            (name, spec, zone, anchor, now),
        )
    elif (before.spec, before.timezone) != (spec, zone):
        conn.execute(
            "UPDATE durable_schedules SET spec = ?, timezone = ?, anchor = ?, upto = ? WHERE name = ?",
            (spec, zone, anchor, now, name),
        )
    made = (None, None) if starts is None else (timetable.overlap, timetable.missed)
    conn.execute(
        "UPDATE durable_schedules SET overlap = ?, missed = ?, starts = ? WHERE name = ?", (*made, starts, name)
    )


def adopt(
    conn: sqlite3.Connection, schedules: Sequence[Schedule], now: float, effects: Effects
) -> dict[str, ScheduleRow]:
    """
    The rows of *schedules*, made or begun anew where they tick otherwise than before; and of those of run time.

    But for those whose rows are damaged (or were found so by `damage`): these tick no more, and say why.
    """
    # so that schedules which this program does not have tick in none
    conn.execute("UPDATE durable_schedules SET next_at = NULL")
    found: dict[str, ScheduleRow] = {}
    listed = {schedule.name: schedule for schedule in schedules}

    def adopt_each(conn: sqlite3.Connection, names: Sequence[str], _: Effects) -> None:
        for name in names:
            if not is_sound(conn, "durable_schedules", name):
                raise ValueError("it does not match its checksum")
            if (row := _adopted(conn, name, listed.get(name), now)) is not None:
                found[name] = row

    known = [name for (name,) in fetch_all(conn, "SELECT name FROM durable_schedules ORDER BY name")]
    for name, error in apart(conn, [*dict.fromkeys((*listed, *known))], adopt_each, effects):
        found.pop(name, None)
        text = f"its row is damaged: {one_line(error)}. Delete the schedule, or restore from a backup"
        conn.execute("UPDATE durable_schedules SET next_at = NULL, last_error = ? WHERE name = ?", (text, name))
        effects.damaged.append(Damaged("schedule", name, text))
    return found


def _adopted(conn: sqlite3.Connection, name: str, listed: Schedule | None, now: float) -> ScheduleRow | None:
    """The row of one schedule; None if it is of another program."""
    if listed is not None:
        put(conn, listed, None, now)
    row = find_schedule(conn, name)
    timetable = listed or (None if row.starts is None else timetable_of(row))
    if timetable is None:
        return None
    upto = row.upto
    if upto > now + AHEAD:
        # It would stand still for as long. Runs that its ticks have started in that future are known by their ids.
        upto = now
        conn.execute("UPDATE durable_schedules SET upto = ? WHERE name = ?", (upto, name))
    if row.paused_at is None:
        next_at = timetable.next_after(upto, anchor=row.anchor)
        conn.execute("UPDATE durable_schedules SET next_at = ? WHERE name = ?", (next_at, name))
    return find_schedule(conn, name)


def record_ticks(
    conn: sqlite3.Connection,
    effects: Effects,
    *,
    before: ScheduleRow,
    ticks: Sequence[Tick],
    upto: float,
    next_at: float | None,
) -> ScheduleRow | None:
    """
    Let *ticks*, made when the row was as *before*, start their runs, and the schedule continue behind *upto*.

    The row as it then is; None if the schedule was deleted meanwhile. Ticks that were dealt with meanwhile, fell into a
    pause, or are those of another timetable than today's, start nothing.
    """
    row = schedule_by_name(conn, before.name)
    if row is None or row.paused_at is not None or row.upto >= upto or _beat(row) != _beat(before):
        effects.schedules.append((before.name, row))
        return row
    if fresh := [tick for tick in ticks if tick.at > row.upto]:
        row = backfill(conn, row._replace(last_at=fresh[-1].at), fresh, effects)
    row = row._replace(upto=upto, next_at=next_at)
    save(conn, row, effects)
    return row


def _beat(row: ScheduleRow) -> tuple[str, str, float]:
    """What its ticks follow from."""
    return row.spec, row.timezone, row.anchor


def _tick(
    conn: sqlite3.Connection, row: ScheduleRow, tick: Tick, effects: Effects, ahead: NewRun | None
) -> ScheduleRow:
    """*ahead*: the last in line, if this transaction has put it there: of the others nothing is to be looked up."""
    if tick.run is None:
        return row.failing(tick.error)
    if run_exists(conn, tick.run.run_id):
        return row
    if tick.overlap == "queue" and ahead is not None and still_open(conn, [ahead.run_id]):
        held_up = row.last_error or held_up_by(conn, [ahead.run])
        row = _start(conn, row, evolve(tick.run, behind=(ahead.run,)), effects)
        return row._replace(last_error=row.last_error or held_up)
    before = still_open(conn, row.open_runs)
    row = row._replace(open_runs=tuple(before))
    if tick.overlap == "allow":
        # One is enough to keep: the next tick starts its run all the same.
        return _start(conn, row._replace(open_runs=row.open_runs[-1:]), tick.run, effects)
    if tick.overlap == "queue":
        row = _start(conn, row, evolve(tick.run, behind=_in_line(conn, list(before.values()))), effects)
        return row._replace(last_error=row.last_error or held_up_by(conn, before.values()))
    if before and tick.overlap == "skip":
        held_up = held_up_by(conn, before.values())
        return row._replace(skipped=row.skipped + 1, last_skipped_at=tick.at, last_error=held_up)
    row = _start(conn, row, tick.run, effects)
    if row.last_error is None:  # else what is in progress is better than nothing
        for run in before.values():
            request_cancel(conn, run, f"schedule {row.name!r} started its next run", tick.run.started.at, effects)
    return row


def _start(conn: sqlite3.Connection, row: ScheduleRow, new: NewRun, effects: Effects) -> ScheduleRow:
    try:
        run_id = get_or_create(conn, new, effects)
    except DurableError as error:  # its key, its limit, its signals: the next tick may fare better
        return row.failing(str(error))
    if run_id == new.run_id:
        return with_run(row, run_id)
    found = conn.execute("SELECT status FROM durable_runs WHERE run_id = ?", (run_id,)).fetchone()
    status = "ended, and pruned since" if found is None else found[0]
    held = f"its key {new.key!r} is held by run {run_id!r} ({status})"
    if found is not None and status not in ENDS:
        return with_open(row, run_id).failing(f"{held}: the tick joined that run and started none")
    return row.failing(f"{held}, so the tick started nothing: give the key an end by key_ttl=, or the call another key")


def with_run(row: ScheduleRow, run_id: str) -> ScheduleRow:
    """*row* with a run that it has started."""
    return with_open(row, run_id)._replace(last_run=run_id, last_error=None)


def with_open(row: ScheduleRow, run_id: str) -> ScheduleRow:
    """*row* with a run that is open, and that its next ticks have to do with."""
    return row if run_id in row.open_runs else row._replace(open_runs=(*row.open_runs, run_id))


def run_exists(conn: sqlite3.Connection, run_id: str) -> bool:
    """Whether a run is called *run_id*."""
    return conn.execute("SELECT 1 FROM durable_runs WHERE run_id = ?", (run_id,)).fetchone() is not None


def _in_line(conn: sqlite3.Connection, before: Sequence[int]) -> tuple[int, ...]:
    """Those of *before* that a new run waits for: the last in line, and who is active besides."""
    waits_for = {
        run: {
            target
            for (target,) in conn.execute(
                "SELECT target FROM durable_waits WHERE run = ? AND kind = 'start' AND target IS NOT NULL", (run,)
            )
        }
        for run in before
    }
    in_line = [run for run in before if waits_for[run]]
    last = in_line[-1:]
    minded = waits_for[last[0]] if last else set[int]()
    return (*(run for run in before if not waits_for[run] and run not in minded), *last)


def start_triggered(
    conn: sqlite3.Connection, effects: Effects, *, name: str, run_id: str, run: NewRun | None, error: str
) -> ScheduleRow:
    """Start what a client asked for while nobody owned the file; or note why it cannot be."""
    row = find_schedule(conn, name)
    row = row._replace(triggers=tuple(each for each in row.triggers if each[0] != run_id))
    if run is None:
        row = row.failing(error)
    elif not run_exists(conn, run_id):
        row = _start(conn, row._replace(open_runs=tuple(still_open(conn, row.open_runs))), run, effects)
    save(conn, row, effects)
    return row


def pause_killer(conn: sqlite3.Connection, run_id: str, at: float, effects: Effects) -> None:
    """
    Pause the schedule whose run this is, which killed the process and has just ended so, if the one before it did, too.

    Each tick would be another killer, and take the process down as often as it takes to find it.
    """
    owner = _schedule_of(conn, run_id)
    if owner is None:
        return
    row = find_schedule(conn, owner)
    ends = conn.execute(_LATEST_ENDS, (f"schedule:{owner}:", f"schedule:{owner};")).fetchall()  # ";" is behind ":"
    latest = [(run, reason) for run, each, reason in ends if _schedule_of(conn, each) == owner][:KILLERS]
    killed = [reason for run, reason in latest if killed_the_process(reason) and _is_sure(conn, run, reason)]
    if row.paused_at is not None or len(killed) < KILLERS:
        return
    error = f"paused, since its last {KILLERS} runs killed the process: {killed[0]}"
    save(conn, row._replace(paused_at=at, next_at=None, last_error=error), effects)


def killed_the_process(reason: str | None) -> bool:
    """Whether a run may have killed the process, by what it failed with."""
    return reason is not None and reason.startswith(_KILLERS)


def _is_sure(conn: sqlite3.Connection, run: int, reason: str) -> bool:
    """Whether it was found guilty; or its attempts were used up by deaths, of which the last one has no event."""
    return reason.startswith(_POISON) or conn.execute(_DIED, (run, StepInterrupted.kind)).fetchone() is not None


def _schedule_of(conn: sqlite3.Connection, run_id: str) -> str | None:
    """The schedule that started a run, as its id says. A name may begin as another does: then it is the longer."""
    if not run_id.startswith("schedule:"):
        return None
    names = [name for (name,) in conn.execute("SELECT name FROM durable_schedules")]
    return max((name for name in names if run_id.startswith(f"schedule:{name}:")), key=len, default=None)


def past_ticks(timetable: Timetable, row: ScheduleRow, since: float, until: float) -> list[float]:
    """
    The ticks from *since* to *until* that can be made up for at once.

    Raises:
        UsageError: They are too many.
    """
    found = timetable.between(since, until, anchor=row.anchor, limit=MOST_MISSED + 1)
    if len(found) > MOST_MISSED:
        msg = f"schedule {row.name!r} ticks more than {MOST_MISSED:,} times in that time: ask for a part of it at once"
        raise UsageError(msg)
    return found


def backfill(conn: sqlite3.Connection, row: ScheduleRow, ticks: Sequence[Tick], effects: Effects) -> ScheduleRow:
    """Let ticks of the past start their runs, unless they have one; the row as it then is, not saved."""
    ahead: NewRun | None = None
    for tick in ticks:
        latest = row.last_run
        row = _tick(conn, row, tick, effects, ahead)
        ahead = tick.run if tick.overlap == "queue" and row.last_run != latest else None
    return row

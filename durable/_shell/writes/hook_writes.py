"""
What became of hooks, and of the starts that the end of a run asked for: kept with the run where it went wrong.

A row goes when it has been made up for. Runs on the writer's thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from attrs import evolve

from durable._shell.claims.places import PlacesFromFile
from durable._shell.reads.hook_rows import OwedHook
from durable._shell.rows.rows import BrokenHook, Effects, NewRun, Refused, RunState
from durable._shell.rows.templates import begun, from_json, to_json
from durable._shell.storage.seals import is_sound
from durable._shell.writes.run_writes import get_or_create
from durable.errors import (
    DurableError,
    KeyConflictError,
    LimitReachedError,
    RunExistsError,
    RunNotFoundError,
    RunStateError,
)

_INSERT = "INSERT INTO durable_hook_errors (run, hook, error, at, starts) VALUES (?, ?, ?, ?, ?)"


def note_broken(conn: sqlite3.Connection, run: int, broken: Sequence[BrokenHook], at: float) -> None:
    """Keep with a run which of its hooks went wrong."""
    conn.executemany(_INSERT, [(run, each.hook, each.error, at, None) for each in broken])


def follow(conn: sqlite3.Connection, ended: RunState, new: NewRun, effects: Effects) -> None:
    """Start what the end of a run starts. A refusal is kept with that run, and harms nothing."""
    try:
        get_or_create(conn, new, effects)
    except (KeyConflictError, LimitReachedError, RunExistsError, RunStateError, RunNotFoundError) as error:
        starts = to_json([evolve(new, run=0, follows=None)])
        conn.execute(_INSERT, (ended.run, f"start of {new.workflow!r}", str(error), new.started.at, starts))
        effects.refused.append(Refused(ended.run_id, str(error)))


def ask_again(conn: sqlite3.Connection, run: int, now: float, numbers: Callable[[], int], effects: Effects) -> int:
    """Start what was refused, and have an engine call the hooks that went wrong; how many of both there are."""
    rows = conn.execute("SELECT entry, starts FROM durable_hook_errors WHERE run = ? ORDER BY entry", (run,)).fetchall()
    places = PlacesFromFile(conn)
    for entry, starts in rows:
        if starts is None:
            conn.execute("UPDATE durable_hook_errors SET asked_at = ? WHERE entry = ?", (now, entry))
            continue
        if not is_sound(conn, "durable_hook_errors", entry):
            damage = "what is to be started does not match its checksum: nothing is"
            conn.execute("UPDATE durable_hook_errors SET error = ?, at = ? WHERE entry = ?", (damage, now, entry))
            continue
        (template,) = from_json(starts)
        new = places.placed(begun(template, run=numbers(), run_id=template.run_id, now=now).following(run))
        try:
            get_or_create(conn, new, effects)
        except DurableError as error:
            conn.execute("UPDATE durable_hook_errors SET error = ?, at = ? WHERE entry = ?", (str(error), now, entry))
        else:
            conn.execute("DELETE FROM durable_hook_errors WHERE entry = ?", (entry,))
    if any(starts is None for _, starts in rows):
        effects.hooks.append(run)
    return len(rows)


def claim_hook(conn: sqlite3.Connection, owed: OwedHook) -> bool:
    """Whether the hook is still to be called; then nobody else calls it, unless it is asked for again."""
    claimed = conn.execute(
        "UPDATE durable_hook_errors SET asked_at = NULL WHERE entry = ? AND asked_at IS NOT NULL", (owed.entry,)
    )
    return claimed.rowcount == 1


def made_up_for(
    conn: sqlite3.Connection, ended: RunState, owed: OwedHook, runs: Sequence[NewRun], effects: Effects
) -> None:
    """Start the *runs* that a hook asked for when it was called again; unless that was recorded before."""
    gone = conn.execute("DELETE FROM durable_hook_errors WHERE entry = ?", (owed.entry,))
    if gone.rowcount:
        for new in runs:
            follow(conn, ended, new, effects)


def broken_again(conn: sqlite3.Connection, owed: OwedHook, error: str, now: float) -> None:
    """The hook went wrong again."""
    conn.execute("UPDATE durable_hook_errors SET error = ?, at = ? WHERE entry = ?", (error, now, owed.entry))

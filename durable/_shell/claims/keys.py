"""
Idempotency keys: who has one, and who may take it over. Runs on the writer's thread, inside an open transaction.

A key is that of one run, whose row has it as `key_live`: for ever, or for a time that counts from when the run begins.
Where the run was pruned, a small row of `durable_keys` stays for it, so that what was done once is not done again.

A run that is started to *coalesce* takes the key from one that is running, and stands behind it; whoever starts a third
finds the second, which has not begun, and gives it the latest arguments. What a run continues as carries its state on,
so that is running from the first, even while it waits for its turn.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal, TypeAlias

from attrs import evolve

from durable._core.codec.digests import may_be_equal
from durable._core.journal.columns import to_row
from durable._core.light_frozen import light_frozen
from durable._core.statuses import ENDS
from durable._shell.rows.checksums import checksum
from durable._shell.rows.rows import BEHIND_FIRST, NewRun, TurnWrite
from durable._shell.storage.seals import is_sound, was_there
from durable.errors import KeyConflictError

_LIVE = """
SELECT run, run_id, arguments, workflow, status, coalesce(key_until, started_at + key_ttl),
    status = 'pending' AND started_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM durable_events AS e WHERE e.run = durable_runs.run AND e.seq = 2)
        AND NOT EXISTS (SELECT 1 FROM durable_inbox AS i WHERE i.run = durable_runs.run AND i.wakes = 1)
        AND (limit_name IS NULL
            OR EXISTS (SELECT 1 FROM durable_waits AS w WHERE w.run = durable_runs.run AND w.kind = 'start'))
FROM durable_runs WHERE key_live = ?
"""
_KEPT = "SELECT run_id, arguments, workflow, status, until FROM durable_keys WHERE key = ?"
_KEEP = """
INSERT OR REPLACE INTO durable_keys (key, run_id, workflow, arguments, status, until)
SELECT key_live, run_id, workflow, arguments, status, coalesce(key_until, started_at + key_ttl) FROM durable_runs
WHERE run = ? AND key_live IS NOT NULL
"""

#: What becomes of a new run whose key is another's: it takes the key over; or it is that run; or it takes the key and
#: cancels that run, or stands behind it; or gives it its own arguments.
Verdict: TypeAlias = Literal["take", "join", "replace", "follow", "renew"]


@light_frozen
class Holder:
    """The run that has a key; its row may be gone."""

    #: None where it was pruned.
    row: int | None
    run_id: str
    arguments: str
    workflow: str
    status: str
    #: When the key may be taken over; None is never.
    until: float | None
    #: Whether nothing of it is recorded but that it exists, as the first of its chain, and it has no slot that its
    #: arguments chose.
    is_waiting: bool = False
    #: Whether its row does not fit its seal: whose the key is, and for how long, is not known.
    is_damaged: bool = False

    @property
    def run(self) -> int:
        """The row of one that has not ended."""
        assert self.row is not None, "one that was pruned has ended"
        return self.row


def holder_of(conn: sqlite3.Connection, key: str) -> Holder | None:
    """Who has *key*."""
    live = conn.execute(_LIVE, (key,)).fetchone()
    if live is not None:
        run, run_id, arguments, workflow, status, until, is_waiting = live
        waits = bool(is_waiting) and not _continues_another(conn, run_id)
        return Holder(run, run_id, arguments, workflow, status, until, waits)
    kept = conn.execute(_KEPT, (key,)).fetchone()
    if kept is None:
        lost = was_there(conn, "durable_keys", "key", key)
        return Holder(None, "?", "", "?", "?", None, is_damaged=True) if lost else None
    is_damaged = not is_sound(conn, "durable_keys", key)
    return evolve(Holder(None, *kept), is_damaged=is_damaged)


def _continues_another(conn: sqlite3.Connection, run_id: str) -> bool:
    """Whether another run continued as the one called *run_id*: the one before it, or the first where that has left."""
    head, _, count = run_id.rpartition("~")
    if not (head and count.isdecimal()):
        return False
    return any(
        conn.execute("SELECT 1 FROM durable_runs WHERE run_id = ? AND successor = ?", (before, run_id)).fetchone()
        for before in (head, f"{head}~{int(count) - 1}")
    )


def verdict(holder: Holder, new: NewRun) -> Verdict:
    """
    What becomes of *new*, whose key *holder* has.

    Raises:
        KeyConflictError: They may not share it.
    """
    if holder.is_damaged:
        recorded, asked = "a run that was pruned, whose row does not match its checksum", f"{new.workflow!r}"
        raise KeyConflictError(new.key or "", holder.run_id, recorded, asked)
    conflict, ended = new.on_conflict, holder.status in ENDS
    if holder.until is not None and holder.until <= new.started.at:
        return "take"
    if ended and (conflict in ("rerun", "replace", "coalesce") or _makes_up(conflict, holder.status)):
        return "take"
    if conflict == "replace":
        return "replace"
    if conflict == "coalesce" and holder.workflow == new.workflow:
        return "follow" if not holder.is_waiting else "join" if holder.arguments == new.arguments else "renew"
    same = may_be_equal(holder.arguments, new.arguments)
    if same and conflict != "reject":
        return "join"
    recorded = f"{holder.workflow!r}" + (" (on_conflict='reject')" if same else "")
    asked = f"{new.workflow!r} with {'the same' if same else 'other'} arguments"
    raise KeyConflictError(new.key or "", holder.run_id, recorded, asked)


def _makes_up(conflict: str, status: str) -> bool:
    return conflict == "rerun-failed" and status != "succeeded"


def free_key(conn: sqlite3.Connection, key: str) -> None:
    """Take *key* from the run that has it."""
    conn.execute("UPDATE durable_runs SET key_live = NULL WHERE key_live = ?", (key,))
    conn.execute("DELETE FROM durable_keys WHERE key = ?", (key,))


def keep_key(conn: sqlite3.Connection, run: int) -> None:
    """Keep the key of *run*, whose row is about to go."""
    conn.execute(_KEEP, (run,))


def drop_expired_keys(conn: sqlite3.Connection, now: float) -> None:
    """Forget the kept keys whose time is over."""
    conn.execute("DELETE FROM durable_keys WHERE until <= ?", (now,))


def note_renewed(conn: sqlite3.Connection, run: int, chain: int) -> None:
    """The first event of *run* was written anew, and has the checksum *chain*: its driver may know the old one."""
    conn.execute("INSERT OR REPLACE INTO durable_renewed (run, checksum) VALUES (?, ?)", (run, chain))


def made_too_early(conn: sqlite3.Connection, turns: Sequence[TurnWrite]) -> set[int]:
    """Runs whose first turn, among *turns*, was made from arguments that are not theirs any more."""
    # Behind the first event: no arguments are replaced once there is another. So most groups need not ask.
    firsts = [turn for turn in turns if turn.events and turn.events[0][1] == BEHIND_FIRST]
    if not firsts or not conn.execute("SELECT EXISTS (SELECT 1 FROM durable_renewed)").fetchone()[0]:
        return set()
    found: set[int] = set()
    for turn in firsts:
        row = conn.execute("SELECT checksum FROM durable_renewed WHERE run = ?", (turn.state.run,)).fetchone()
        if row is None:
            continue
        first = turn.decision.events[0]
        kind, position, body, payload = to_row(first)
        if checksum(row[0], kind, position, first.at, body, payload) != turn.events[0][-1]:
            found.add(turn.state.run)
        else:
            conn.execute("DELETE FROM durable_renewed WHERE run = ?", (turn.state.run,))
    return found


def forget_renewed(conn: sqlite3.Connection) -> None:
    """No driver knows anything yet: the file is being opened."""
    conn.execute("DELETE FROM durable_renewed")

"""
Requests to delete what has ended: trees of runs, batches with all that belongs to them, one run.

Those for what ended long ago look at a bounded number in one transaction, and say where to continue.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable

from durable._core.light_frozen import light_frozen
from durable._core.statuses import ENDS
from durable._shell.claims.keys import drop_expired_keys, keep_key
from durable._shell.reads.run_rows import chain, last_id, require_run
from durable._shell.requests.request import Env, JournalRequest
from durable._shell.rows.rows import Effects
from durable._shell.storage.bulk import about_many
from durable._shell.storage.run_counts import count_ended
from durable._shell.storage.run_labels import forget_labels
from durable.errors import JournalDamagedError, RunStateError

#: Roots looked at in one transaction of `PruneRuns`: bounds how long it holds the writer.
PRUNE_STEP = 200
#: Batches looked at in one transaction: each may have many members.
PRUNE_BATCHES = 20
#: Events after which no further tree or batch is deleted in the same transaction, which took 20 ms for them.
PRUNE_EVENTS = 4_000
#: Large payloads that one transaction looks at, and bytes after which it deletes no further one.
PRUNE_PAYLOADS = 2_000
PRUNE_BYTES = 2 << 20

_ROOTS = """
SELECT run FROM durable_runs
WHERE parent IS NULL AND ended_at < ? AND run > ? AND batch IS NULL AND callback IS NULL ORDER BY run LIMIT ?
"""
_BATCHES = """
SELECT batch FROM durable_batches WHERE parent IS NULL AND finished_at < ? AND batch > ? ORDER BY batch LIMIT ?
"""
_TREE = """
WITH RECURSIVE tree(run) AS (VALUES (?) UNION SELECT r.run FROM durable_runs AS r JOIN tree ON r.parent = tree.run)
SELECT tree.run, r.ended_at FROM tree JOIN durable_runs AS r ON r.run = tree.run
"""
_DELETABLE = """
WITH RECURSIVE tree(run) AS (
    SELECT run FROM durable_runs WHERE run_id = ?
    UNION SELECT r.run FROM durable_runs AS r JOIN tree ON r.parent = tree.run
)
SELECT r.run, r.run_id, r.status, b.batch_id FROM tree JOIN durable_runs AS r ON r.run = tree.run
LEFT JOIN durable_batches AS b ON b.batch = coalesce(r.batch, r.callback)
"""
_NESTED = """
WITH RECURSIVE nested(batch) AS (
    VALUES (?) UNION SELECT b.batch FROM durable_batches AS b JOIN nested ON b.parent = nested.batch
)
SELECT batch, b.finished_at FROM nested JOIN durable_batches AS b USING (batch)
"""
#: The large payloads that the events of a run have, and the signals that it did not ask for.
_LARGE = """
SELECT payload FROM durable_events WHERE run = ? AND payload IS NOT NULL
UNION SELECT payload FROM durable_inbox WHERE run = ? AND payload IS NOT NULL
"""
_IS_UNUSED = """
NOT EXISTS (SELECT 1 FROM durable_events AS e WHERE e.payload = p.payload)
AND NOT EXISTS (SELECT 1 FROM durable_inbox AS i WHERE i.payload = p.payload)
"""
_NEXT_PAYLOADS = """
SELECT max(payload) FROM (SELECT payload FROM durable_payloads WHERE payload > ? ORDER BY payload LIMIT ?)
"""
_UNUSED = f"""
SELECT p.payload FROM durable_payloads AS p
WHERE p.payload > ? AND p.payload <= ? AND {_IS_UNUSED} ORDER BY p.payload
"""  # noqa: S608 - a constant
_ENDED = "SELECT workflow, status FROM durable_runs WHERE run IN ({items}) AND ended_at IS NOT NULL"
_DROP = f"DELETE FROM durable_payloads AS p WHERE p.payload = ? AND {_IS_UNUSED}"  # noqa: S608 - a constant


@light_frozen
class Pruned:
    """
    How many runs one request deleted, and behind which number to continue; None if there are no more.

    Below zero, it is that of a large payload: once all runs have been looked at, what no event has any more is deleted.
    A process that dies in between leaves payloads that the next one to prune finds.
    """

    runs: int
    following: int | None


@light_frozen
class PruneRuns(JournalRequest[Pruned]):
    """
    Delete trees of runs that all ended before *before*; the keys that are theirs are kept.

    Looks at `PRUNE_STEP` roots behind run number *after*. Trees with an open member, and
    those that some run waits for, stay whole. Members and callbacks of batches go with their batch. Of
    a chain of runs that continue each other (`continue_as`), the first stays as long as the last: it is
    how the chain is known.
    """

    before: float
    after: int = 0

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> Pruned:
        """Delete them."""
        drop_expired_keys(conn, env.now)
        return _prune_runs(conn, self.before, self.after, keep_keys=True)


@light_frozen
class PruneRunsAndKeys(JournalRequest[Pruned]):
    """As `PruneRuns`, and their keys are free again."""

    before: float
    after: int = 0

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> Pruned:
        """Delete them."""
        return _prune_runs(conn, self.before, self.after, keep_keys=False)


@light_frozen
class PruneBatches(JournalRequest[Pruned]):
    """
    Delete batches that finished before *before*, with their runs and nested batches, if all of that did.

    Looks at `PRUNE_BATCHES` of them behind batch number *after*. The keys of their runs are kept.
    """

    before: float
    after: int = 0

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> Pruned:
        """Delete them."""
        return _prune_batches(conn, self.before, self.after, keep_keys=True)


@light_frozen
class PruneBatchesAndKeys(JournalRequest[Pruned]):
    """As `PruneBatches`, and the keys of their runs are free again."""

    before: float
    after: int = 0

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> Pruned:
        """Delete them."""
        return _prune_batches(conn, self.before, self.after, keep_keys=False)


@light_frozen
class DeleteRun(JournalRequest[int]):
    """
    Delete one run, all that it continued as, and all that those started; how many runs. Their keys are free again.

    Refused while one of them is open, or waited for. A member of a batch goes with its batch only.
    """

    run_id: str

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> int:
        """Delete them."""
        runs: set[int] = set()
        for link in _chain(conn, require_run(conn, self.run_id).run_id):
            for run, run_id, status, batch in conn.execute(_DELETABLE, (link,)).fetchall():
                _check_deletable(conn, self.run_id, run, run_id, status, batch)
                runs.add(run)
        payloads = {payload for run in runs for (payload,) in conn.execute(_LARGE, (run, run))}
        _delete(conn, runs, keep_keys=False)
        conn.executemany(_DROP, [(payload,) for payload in payloads])
        return len(runs)


REQUESTS = (PruneRuns, PruneRunsAndKeys, PruneBatches, PruneBatchesAndKeys, DeleteRun)


def _chain(conn: sqlite3.Connection, run_id: str) -> list[str]:
    """Ids of the runs that continue each other, of which *run_id* is one: the first is what they are named by."""
    head, _, count = run_id.rpartition("~")
    links = _successors(conn, head) if count.isdecimal() else []
    return links if run_id in links else _successors(conn, run_id)


def _successors(conn: sqlite3.Connection, run_id: str) -> list[str]:
    """*run_id*, and the ids of what that continued as."""
    return [*chain(conn, run_id)]


def _check_deletable(
    conn: sqlite3.Connection, asked: str, run: int, run_id: str, status: str, batch: str | None
) -> None:
    """
    Refuse to delete a run that belongs to the run called *asked*, or is it.

    Raises:
        RunStateError: It must stay.
    """
    if status not in ENDS:
        state = status if run_id == asked else f"the parent of run {run_id!r}, which is {status}"
        raise RunStateError(asked, state, "delete", "Cancel it first")
    if batch is not None:
        raise RunStateError(asked, f"part of batch {batch!r}", "delete", "Batches are pruned as a whole")
    waiting = conn.execute(
        "SELECT r.run_id FROM durable_waits AS w JOIN durable_runs AS r ON r.run = w.run WHERE w.target = ? LIMIT 1",
        (run,),
    ).fetchone()
    if waiting is not None:
        raise RunStateError(asked, f"waited for by run {waiting[0]!r}", "delete")


def _prune_runs(conn: sqlite3.Connection, before: float, after: int, *, keep_keys: bool) -> Pruned:
    if after < 0:
        return Pruned(0, _drop_payloads(conn, -after))
    roots = conn.execute(_ROOTS, (before, after, PRUNE_STEP)).fetchall()
    deleted = events = 0
    for (root,) in roots:
        runs = _ended_tree(conn, root, before)
        if runs is not None and _leaves_chain(conn, root, before):
            events += _delete(conn, runs, keep_keys=keep_keys)
            deleted += len(runs)
        if events >= PRUNE_EVENTS:
            return Pruned(deleted, int(root))
    if len(roots) == PRUNE_STEP:
        return Pruned(deleted, int(roots[-1][0]))
    return Pruned(deleted, _drop_payloads(conn, 0))


def _prune_batches(conn: sqlite3.Connection, before: float, after: int, *, keep_keys: bool) -> Pruned:
    if after < 0:
        return Pruned(0, _drop_payloads(conn, -after))
    roots = conn.execute(_BATCHES, (before, after, PRUNE_BATCHES)).fetchall()
    deleted = events = 0
    for (root,) in roots:
        ended = _ended_batches(conn, root, before)
        if ended is not None:
            batches, runs = ended
            events += _delete(conn, runs, keep_keys=keep_keys)
            conn.executemany("DELETE FROM durable_batches WHERE batch = ?", [(batch,) for batch in batches])
            deleted += len(runs)
        if events >= PRUNE_EVENTS:
            return Pruned(deleted, int(root))
    if len(roots) == PRUNE_BATCHES:
        return Pruned(deleted, int(roots[-1][0]))
    return Pruned(deleted, _drop_payloads(conn, 0))


def count_prunable(conn: sqlite3.Connection, before: float) -> int:
    """How many runs `PruneRuns` and `PruneBatches` would delete. Only reads."""
    gone: set[int] = set()
    for (root,) in conn.execute(_ROOTS, (before, 0, -1)).fetchall():
        runs = _ended_tree(conn, root, before)
        if runs is not None and _leaves_chain(conn, root, before, gone):
            gone |= runs
    count = len(gone)
    for (root,) in conn.execute(_BATCHES, (before, 0, -1)).fetchall():
        ended = _ended_batches(conn, root, before)
        count += 0 if ended is None else len(ended[1])
    return count


def _ended_batches(conn: sqlite3.Connection, root: int, before: float) -> tuple[list[int], set[int]] | None:
    """A batch and those nested in it, and all their runs; None if they must stay."""
    batches = conn.execute(_NESTED, (root,)).fetchall()
    if any(finished_at is None or finished_at >= before for _, finished_at in batches):
        return None
    numbers = [batch for batch, _ in batches]
    runs = _ended_runs(conn, numbers, before)
    return None if runs is None else (numbers, runs)


def _ended_runs(conn: sqlite3.Connection, batches: Iterable[int], before: float) -> set[int] | None:
    """The runs of *batches*, and all that those started; None if they must stay."""
    runs: set[int] = set()
    for batch in batches:
        for (run,) in conn.execute(
            "SELECT run FROM durable_runs WHERE batch = ? UNION ALL SELECT run FROM durable_runs WHERE callback = ?",
            (batch, batch),
        ).fetchall():
            tree = _ended_tree(conn, run, before)
            if tree is None:
                return None
            runs |= tree
    return runs


def _ended_tree(conn: sqlite3.Connection, root: int, before: float) -> set[int] | None:
    """A run and all that it started; None if they must stay."""
    tree = conn.execute(_TREE, (root,)).fetchall()
    if any(ended_at is None or ended_at >= before for _, ended_at in tree):
        return None
    if any(conn.execute("SELECT 1 FROM durable_waits WHERE target = ? LIMIT 1", (run,)).fetchone() for run, _ in tree):
        return None
    return {run for run, _ in tree}


def _leaves_chain(conn: sqlite3.Connection, run: int, before: float, gone: Container[int] | None = None) -> bool:
    """
    Whether a run can go without breaking the chain that it is a link of; the one before it then points past it.

    With *gone*, runs that are as good as deleted, nothing is changed.
    """
    run_id, following = conn.execute("SELECT run_id, successor FROM durable_runs WHERE run = ?", (run,)).fetchone()
    head, _, count = run_id.rpartition("~")
    if head and count.isdecimal():
        # Links between the first and this one have left already, or the one right before it is there still.
        for previous in (head, f"{head}~{int(count) - 1}"):
            points = conn.execute(
                "SELECT run FROM durable_runs WHERE run_id = ? AND successor = ?", (previous, run_id)
            ).fetchone()
            if points is not None and gone is not None:
                if points[0] not in gone:
                    return following is not None
                continue
            if points is not None and following is not None:
                conn.execute("UPDATE durable_runs SET successor = ? WHERE run = ?", (following, points[0]))
            if points is not None:
                return following is not None
    if following is None:
        return True
    try:
        last_link = last_id(conn, following)
    except JournalDamagedError:  # it leads in a circle: that run stays, and all others leave
        return False
    last = conn.execute("SELECT ended_at FROM durable_runs WHERE run_id = ?", (last_link,)).fetchone()
    return last is None or (last[0] is not None and last[0] < before)  # none: it is gone with its batch


def _delete(conn: sqlite3.Connection, found: Iterable[int], *, keep_keys: bool) -> int:
    """Delete the runs that were *found*; how many events they had."""
    numbers = list(found)
    runs = [(run,) for run in numbers]
    if keep_keys:
        for run in numbers:
            keep_key(conn, run)
    events = conn.executemany("DELETE FROM durable_events WHERE run = ?", runs).rowcount
    conn.executemany("DELETE FROM durable_notes WHERE run = ?", runs)
    conn.executemany("DELETE FROM durable_stream_items WHERE run = ?", runs)
    conn.executemany("DELETE FROM durable_inbox WHERE run = ?", runs)  # signals that nobody asked for
    conn.executemany("DELETE FROM durable_dedup WHERE run = ?", runs)
    conn.executemany("DELETE FROM durable_asked WHERE run = ?", runs)
    conn.executemany("DELETE FROM durable_renewed WHERE run = ?", runs)
    conn.executemany("DELETE FROM durable_hook_errors WHERE run = ?", runs)
    # since the number may be given again
    conn.executemany("UPDATE durable_runs SET follows = NULL WHERE follows = ?", runs)
    count_ended(conn, about_many(conn, _ENDED, numbers), -1)
    forget_labels(conn, numbers)
    conn.executemany("DELETE FROM durable_runs WHERE run = ?", runs)
    return events


def _drop_payloads(conn: sqlite3.Connection, behind: int) -> int | None:
    """
    Delete the large payloads that no event has any more, of those with a number above *behind*.

    What to continue with, below zero; None if that was all.
    """
    (last,) = conn.execute(_NEXT_PAYLOADS, (behind, PRUNE_PAYLOADS)).fetchone()
    if last is None:
        return None
    size = 0
    for (payload,) in conn.execute(_UNUSED, (behind, last)).fetchall():
        (length,) = conn.execute("SELECT length(value) FROM durable_payloads WHERE payload = ?", (payload,)).fetchone()
        conn.execute(_DROP, (payload,))
        size += length
        if size >= PRUNE_BYTES:
            return -int(payload)
    return -int(last)

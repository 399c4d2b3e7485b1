"""
Requests about batches: create them with their members, add members, cancel.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from attrs import evolve

from durable._core.admission import Places
from durable._core.codec.codec import Payload
from durable._core.light_frozen import light_frozen
from durable._shell.claims.places import PlacesFromFile
from durable._shell.reads.run_rows import OPEN_SQL, chain
from durable._shell.requests.request import Env, JournalRequest, values_of
from durable._shell.rows.rows import Effects, NewRun, labels_json
from durable._shell.rows.templates import to_json
from durable._shell.writes.batch_ends import finish_batches
from durable._shell.writes.run_writes import create_each
from durable._shell.writes.wakeups import request_cancel
from durable.errors import BatchClosedError, BatchNotFoundError, KeyConflictError, RunExistsError, UsageError

_INSERT = """
INSERT INTO durable_batches
    (batch_id, parent, description, labels, contents, created_at, on_success, on_failure, on_complete)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_TREE = """
WITH RECURSIVE tree(batch) AS (
    VALUES (?) UNION SELECT b.batch FROM durable_batches AS b JOIN tree ON b.parent = tree.batch
)
SELECT t.batch FROM tree AS t JOIN durable_batches AS b USING (batch) WHERE b.completed_at IS NULL
"""
_OPEN_MEMBERS = f"SELECT run FROM durable_runs WHERE batch = ? AND status IN {OPEN_SQL}"  # noqa: S608 - a constant


@light_frozen
class NewBatch:
    """A batch to be created, as plain data."""

    batch_id: str
    #: Id of the batch that it is nested in: an open one, or one created before it by the same request.
    parent: str | None
    description: str
    labels: Mapping[str, str]
    #: Digest of what it is created with, if the id was chosen: then an equal one is the same batch.
    contents: str | None
    #: Its members.
    runs: tuple[NewRun, ...] = ()
    #: Templates of its callbacks.
    on_success: tuple[NewRun, ...] = ()
    on_failure: tuple[NewRun, ...] = ()
    on_complete: tuple[NewRun, ...] = ()

    @property
    def all_runs(self) -> tuple[NewRun, ...]:
        """Its members, and its callbacks."""
        return (*self.runs, *self.on_success, *self.on_failure, *self.on_complete)


@light_frozen
class CreateBatches(JournalRequest[list[str]]):
    """Create batches, the outermost first, and their members: all of them, or none. The members' ids, in order."""

    starts_runs: ClassVar[bool] = True
    for_steps: ClassVar[bool] = True

    batches: tuple[NewBatch, ...]

    @property
    def values(self) -> tuple[Payload, ...]:
        """See `JournalRequest`."""
        return tuple(value for new in self.batches for value in values_of(new.all_runs))

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> list[str]:
        """Create them, unless the outermost is there, and the same."""
        members = [(run, new.batch_id) for new in self.batches for run in new.runs]
        if self.batches and _is_there(conn, self.batches[0]):
            return [run.run_id for run, _ in members]
        numbers: dict[str, int] = {}
        for new in self.batches:
            if numbers and _is_there(conn, new):
                raise _exists(new, "outside of the batch that it is to be nested in")
            parent = None
            if new.parent is not None:
                parent = numbers.get(new.parent) or _open_batch(conn, new.parent)
            labels = labels_json(new.labels)
            callbacks = [to_json(each) if each else None for each in (new.on_success, new.on_failure, new.on_complete)]
            row = (new.batch_id, parent, new.description, labels, new.contents, env.now, *callbacks)
            numbers[new.batch_id] = conn.execute(_INSERT, row).lastrowid or 0
        allocate = env.numbers(conn)
        ids = _add(conn, [(run, each, numbers[each]) for run, each in members], allocate, env.places, effects)
        for number in reversed(numbers.values()):
            finish_batches(conn, number, env.now, allocate, effects)
        return ids


@light_frozen
class AddToBatch(JournalRequest[list[str]]):
    """Add members to an open batch: all of them, or none. Their ids."""

    starts_runs: ClassVar[bool] = True
    for_steps: ClassVar[bool] = True

    batch_id: str
    runs: tuple[NewRun, ...]

    @property
    def values(self) -> tuple[Payload, ...]:
        """See `JournalRequest`."""
        return values_of(self.runs)

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> list[str]:
        """Create them."""
        number = _open_batch(conn, self.batch_id)
        return _add(conn, [(run, self.batch_id, number) for run in self.runs], env.numbers(conn), env.places, effects)


@light_frozen
class CancelBatch(JournalRequest[bool]):
    """Ask all that is open in a batch to end; False if it is complete, or was asked before."""

    for_steps: ClassVar[bool] = True

    batch_id: str
    reason: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """See `JournalRequest`."""
        return (self.reason,)

    def prepared(self, env: Env) -> CancelBatch:
        """As ever; with its reason concealed, if it is not."""
        return evolve(self, reason=env.conceal(self.reason))

    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> bool:
        """Ask each member to, and those of nested batches."""
        row = conn.execute(
            "SELECT batch, completed_at, cancelled_at FROM durable_batches WHERE batch_id = ?", (self.batch_id,)
        ).fetchone()
        if row is None:
            raise BatchNotFoundError("id", self.batch_id)
        batch, completed_at, cancelled_at = row
        if completed_at is not None or cancelled_at is not None:
            return False
        text = f"batch {self.batch_id!r} was cancelled" + (f": {self.reason}" if self.reason else "")
        for (each,) in conn.execute(_TREE, (batch,)).fetchall():
            conn.execute(
                "UPDATE durable_batches SET cancelled_at = ?, reason = ? WHERE batch = ? AND cancelled_at IS NULL",
                (env.now, self.reason if each == batch else text, each),
            )
            members = conn.execute(_OPEN_MEMBERS, (each,)).fetchall()
            for (run,) in members:
                request_cancel(conn, run, text, env.now, effects)
        return True


REQUESTS = (CreateBatches, AddToBatch, CancelBatch)


def _is_there(conn: sqlite3.Connection, new: NewBatch) -> bool:
    """Whether the same batch was created before."""
    row = conn.execute("SELECT contents FROM durable_batches WHERE batch_id = ?", (new.batch_id,)).fetchone()
    if row is None:
        return False
    if new.contents is None or row[0] != new.contents:
        raise _exists(new, "with other members, callbacks, labels or description")
    return True


def _exists(new: NewBatch, reason: str) -> UsageError:
    return UsageError(f"batch {new.batch_id!r} exists already, {reason}. Choose another id, or use engine.get_batch")


def _open_batch(conn: sqlite3.Connection, batch_id: str) -> int:
    """The number of a batch that takes members."""
    row = conn.execute(
        "SELECT batch, completed_at, cancelled_at FROM durable_batches WHERE batch_id = ?", (batch_id,)
    ).fetchone()
    if row is None:
        raise BatchNotFoundError("id", batch_id)
    batch, completed_at, cancelled_at = row
    if completed_at is not None or cancelled_at is not None:
        raise BatchClosedError(batch_id, "complete" if completed_at is not None else "cancelled")
    return int(batch)


def _add(
    conn: sqlite3.Connection,
    added: Sequence[tuple[NewRun, str, int]],
    allocate: Callable[[], int],
    places: Places | None,
    effects: Effects,
) -> list[str]:
    """Create members, of batches that take them, in the lines as the engine knows them: *places*."""
    ids: list[str] = []
    lines = PlacesFromFile(conn, places)
    news = [
        lines.placed(evolve(run, batch=number, run=run.run if run.run > 0 else allocate())) for run, _, number in added
    ]
    for run_id in create_each(conn, news, effects):
        new, (_, batch_id, _) = news[len(ids)], added[len(ids)]
        if new.may_be_refused:
            _check_joined(conn, run_id, new, batch_id)
        ids.append(run_id)
    return ids


def _check_joined(conn: sqlite3.Connection, run_id: str, new: NewRun, batch_id: str) -> None:
    """
    Refuse a run that exists outside of the batch: its end would not be awaited.

    Raises:
        KeyConflictError, RunExistsError: It does.
    """
    workflow = new.workflow
    for link in chain(conn, run_id):
        row = conn.execute("SELECT batch, workflow FROM durable_runs WHERE run_id = ?", (link,)).fetchone()
        if row is None:  # pruned; its key was kept
            break
        batch, workflow = row
        if batch == new.batch:
            return
    if new.key is not None and run_id != new.run_id:
        raise KeyConflictError(
            new.key, run_id, f"{workflow!r} outside of batch {batch_id!r}", "a member of it, which a batch must start"
        )
    raise RunExistsError(run_id, f"a run of {workflow!r}, and no member of batch {batch_id!r}")
